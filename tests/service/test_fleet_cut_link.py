"""A link cut in the middle of a transfer, with the server options production has: about 27 seconds."""

from __future__ import annotations

import threading
import time

from postgres_cluster import NET, Cluster, Fleet, cut, the_fleet

from outpost.fleet.sync import Attempt, sync_region

ROWS = 20_000
CUT_AFTER_BYTES = 1_500_000  # well inside the second range of 10 000 rows


def test_a_cut_in_mid_transfer_is_noticed_leaves_no_partial_range_and_holds_up_nobody() -> None:
    fleet = the_fleet()
    fleet.reset()
    chita = fleet.regions["chita"]
    chita.execute(
        "INSERT INTO outpost.studies"
        " (study_key, revision, system, received_at, outcome, instances, bytes, release)"
        " SELECT md5(n::text), 1, 'brain', now(), 'delivered', 181, 1, '0.1.0' FROM generate_series(1, %s) n",
        ROWS,
    )
    first = min(int(str(row["seq"])) for row in chita.exported())
    fleet.ask("UPDATE fleet.sync SET watermark_seq = %s WHERE region = 'chita'", (first - 1,))
    ended: list[Attempt] = []
    reading = threading.Thread(
        target=lambda: ended.append(sync_region(fleet.config.centre, fleet.config.sync, "chita"))
    )

    with cut(chita.cluster.host, after_bytes=CUT_AFTER_BYTES):
        reading.start()
        slowest = watch_others(fleet, reading)
        reader_left = backends(chita.cluster, "fleet_reader")
        collector_left = [r for r in backends(fleet.centre, "fleet_collector") if "chita" in r]

    assert ended, "the pass ended while the link was still cut"
    fault = ended[0].fault
    assert fault is not None
    assert fault.kind == "cut", fault
    assert 15 < ended[0].took_seconds < 27.5, ended
    assert slowest < 3, "reading the view and the other regions never waited"
    assert collector_left == []
    assert reader_left == [], "the region has no backend stuck in sending"

    held = len(fleet.held("chita"))
    mark = int(str(fleet.state("chita")["watermark_seq"]))
    assert 0 < held < ROWS
    assert held == mark - first + 1, "whole ranges and the watermark that belongs to them"
    row = fleet.freshness("chita")
    assert row["state"] == "never"
    assert str(row["reason"]).startswith(f"the link to {NET}.11:5432 was cut during the transfer")

    again = sync_region(fleet.config.centre, fleet.config.sync, "chita")
    assert (again.fault, again.rows) == (None, ROWS - held)
    assert len(fleet.held("chita")) == ROWS


def watch_others(fleet: Fleet, reading: threading.Thread) -> float:
    """Until the reading ends, use everything else; the longest any of it took, seconds."""
    slowest, number = 0.0, 0
    while reading.is_alive():
        number += 1
        fleet.regions["tver"].write(number)
        began = time.monotonic()
        assert fleet.ask("SELECT count(*) AS n FROM fleet.freshness") == [{"n": 3}]
        fleet.ask("SELECT count(*) FROM fleet.studies")
        assert sync_region(fleet.config.centre, fleet.config.sync, "tver").rows == 1
        assert fleet.attach("train") == "unchanged"
        slowest = max(slowest, time.monotonic() - began)
        reading.join(0.5)
    return slowest


def backends(cluster: Cluster, user: str) -> list[str]:
    """Application names of the sessions of a user, once those that are just ending have had a moment."""
    deadline = time.monotonic() + 5
    while True:
        with cluster.superuser("postgres") as connection:
            rows = connection.execute(
                "SELECT application_name AS name FROM pg_stat_activity WHERE usename = %s", (user,)
            ).fetchall()
        names = [str(row["name"]) for row in rows]
        if not names or time.monotonic() > deadline:
            return names
        time.sleep(0.2)
