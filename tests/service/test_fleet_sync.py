"""The centre and three regions on real PostgreSQL servers: what arrives, what is said when it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from postgres_cluster import NET, READER_PASSWORD, Fleet, cut, make_region_database, study, the_fleet

from outpost.fleet import console, page, view
from outpost.fleet.collector import sync_all
from outpost.fleet.sync import Attempt, CentreError, prepare, sync_region


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = the_fleet()
    fleet.reset()
    yield fleet
    for region in fleet.regions.values():
        if not (region.cluster.data / "postmaster.pid").exists():
            region.cluster.start()


def read(fleet: Fleet, code: str) -> Attempt:
    return sync_region(fleet.config.centre, fleet.config.sync, code)


def test_every_row_of_every_region_arrives_as_the_region_has_it(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, 3)
    fleet.regions["tver"].write(
        1,
        2,
        outcome="rejected",
        reason="NO_SERIES_FOR_BUNDLE",
        model=None,
        finished_at=None,
        inference_seconds=None,
    )
    fleet.regions["train"].write(7, system="lungs", received_at="2026-01-01T00:00:00+09:00")
    for region in fleet.regions.values():
        region.beat()

    attempts = sync_all(fleet.config)

    assert sorted((a.region, a.rows, a.fault) for a in attempts) == [
        ("chita", 3, None),
        ("train", 1, None),
        ("tver", 2, None),
    ]
    for code, region in fleet.regions.items():
        arrived = [{k: v for k, v in row.items() if k != "loaded_at"} for row in fleet.held(code)]
        assert arrived == region.exported()
        assert fleet.freshness(code)["state"] == "fresh"
        assert fleet.freshness(code)["reason"] == "up to date"


def test_a_second_sync_brings_nothing_and_touches_no_row(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, 5)
    assert read(fleet, "chita").rows == 5
    before, mark = fleet.held("chita"), fleet.state("chita")["watermark_seq"]

    assert read(fleet, "chita").rows == 0

    assert fleet.held("chita") == before
    assert fleet.state("chita")["watermark_seq"] == mark


def test_a_row_that_changed_replaces_the_one_held(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1, 2, outcome="pending", finished_at=None)
    read(fleet, "chita")

    chita.write(2, outcome="delivered")

    assert read(fleet, "chita").rows == 1
    assert [row["outcome"] for row in fleet.held("chita")] == ["pending", "delivered"]


def test_a_late_revision_is_kept_beside_the_first_and_the_study_counts_once(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, instances=180)
    read(fleet, "chita")
    fleet.regions["chita"].write(1, revision=2, instances=181, outcome="pending", finished_at=None)
    read(fleet, "chita")

    assert [(r["revision"], r["instances"]) for r in fleet.held("chita")] == [(1, 180), (2, 181)]
    counted = fleet.ask("SELECT outcome, studies FROM fleet.summary WHERE region = 'chita'")
    assert counted == [{"outcome": "pending", "studies": 1}]


def test_rows_in_many_ranges_all_arrive_and_the_ranges_widen(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, 3000)
    fleet.ask("UPDATE fleet.sync SET span_seq = 100")

    assert read(fleet, "chita").rows == 3000

    assert len(fleet.held("chita")) == 3000
    assert fleet.state("chita")["span_seq"] > 100


def test_the_counts_are_those_of_the_rows_after_every_change(fleet: Fleet) -> None:
    tver = fleet.regions["tver"]
    for step in range(4):
        tver.write(step * 10, 10, outcome="pending", model=None)
        tver.write(step * 10, 6 - step)
        tver.write(step * 10, 2, revision=2, rung="cpu")
        read(fleet, "tver")
        counted = fleet.ask("SELECT outcome, model, rung, studies FROM fleet.summary WHERE region = 'tver'")
        newest = fleet.ask(
            "SELECT outcome, model, rung, count(*) AS studies FROM ("
            " SELECT DISTINCT ON (system, study_key) * FROM fleet.studies WHERE region = 'tver'"
            " ORDER BY system, study_key, revision DESC) n GROUP BY outcome, model, rung"
        )
        assert sorted(map(str, counted)) == sorted(map(str, newest))
        assert sum(int(str(row["studies"])) for row in counted) == (step + 1) * 10


def test_a_region_that_is_down_holds_up_no_other_and_its_row_says_why(fleet: Fleet) -> None:
    for region in fleet.regions.values():
        region.write(1)
    sync_all(fleet.config)
    fleet.regions["tver"].cluster.stop("immediate")
    for code in ("chita", "train"):
        fleet.regions[code].write(2)

    faults = {attempt.region: attempt.fault for attempt in sync_all(fleet.config)}

    assert faults["chita"] is None
    assert faults["train"] is None
    assert faults["tver"] is not None
    assert faults["tver"].kind == "refused"
    row = fleet.freshness("tver")
    assert str(row["reason"]).startswith(
        f"{NET}.12:5432 refuses connections: PostgreSQL is not running there"
    )
    assert "failing since 20" in str(row["reason"])
    assert "(1 attempt)" in str(row["reason"])
    assert len(fleet.held("tver")) == 1, "what was known of the region stays"

    fleet.ask("UPDATE fleet.sync SET ok_at = now() - interval '16 minutes' WHERE region = 'tver'")
    assert fleet.freshness("tver")["state"] == "stale"
    fleet.ask("UPDATE fleet.sync SET ok_at = now() - interval '25 hours' WHERE region = 'tver'")
    assert fleet.freshness("tver")["state"] == "dead"

    fleet.regions["tver"].cluster.start()
    fleet.regions["tver"].beat()
    assert read(fleet, "tver").fault is None
    assert fleet.freshness("tver")["reason"] == "up to date"


def test_a_host_that_drops_packets_is_given_up_soon_while_others_go_on(fleet: Fleet) -> None:
    with cut(f"{NET}.13"):
        began = time.monotonic()
        attempts = {attempt.region: attempt for attempt in sync_all(fleet.config)}
        took = time.monotonic() - began

    assert attempts["train"].fault is not None
    assert attempts["train"].fault.kind == "unreachable"
    assert attempts["train"].fault.sentence.startswith(f"no answer from {NET}.13:5432")
    assert 4 < took < 11.5  # 5 s by connect_timeout up to PostgreSQL 15, 10 s by our own limit from 16 on
    assert attempts["chita"].fault is None
    assert attempts["chita"].took_seconds < 2


def test_a_region_never_heard_from_has_a_row_before_and_after_the_first_attempt(fleet: Fleet) -> None:
    assert fleet.attach("ghost") == "changed"
    row = fleet.freshness("ghost")
    assert (row["state"], row["age_seconds"]) == ("never", None)
    assert "not tried yet" in str(row["reason"])

    read(fleet, "ghost")

    row = fleet.freshness("ghost")
    assert row["state"] == "never"
    assert f"{NET}.99:5432 refuses connections" in str(row["reason"])


def other_database(fleet: Fleet, code: str, name: str, change: str) -> None:
    """Attach the region to another database on its server, prepared by `change`."""
    cluster = fleet.regions[code].cluster
    with cluster.superuser("postgres") as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
    make_region_database(cluster, code, name)
    with cluster.superuser(name) as connection:
        connection.execute(change)
    assert fleet.attach(code, dbname=name) == "changed"


HANDSHAKE = (
    "CREATE OR REPLACE VIEW fleet_export.handshake_v3 AS SELECT r.code AS region,"
    " {contract} AS contract_version, r.release,"
    " pg_catalog.clock_timestamp() + interval '{ahead}' AS clock, 0::bigint AS max_seq,"
    " 'another'::text AS epoch, r.systems FROM outpost.region r"
)


def test_a_region_speaking_an_unknown_contract_is_incompatible_and_nothing_is_taken(fleet: Fleet) -> None:
    other_database(fleet, "chita", "newer", HANDSHAKE.format(contract=4, ahead="0 s"))

    read(fleet, "chita")

    row = fleet.freshness("chita")
    assert row["state"] == "incompatible"
    assert "speaks contract 4, the centre knows 1 to 3: update the centre" in str(row["reason"])
    assert fleet.held("chita") == []


def test_a_region_without_the_exported_view_is_incompatible(fleet: Fleet) -> None:
    other_database(fleet, "chita", "older", "DROP VIEW fleet_export.handshake_v1 CASCADE")

    read(fleet, "chita")

    assert fleet.freshness("chita")["state"] == "incompatible"
    assert "fleet_export.handshake_v1" in str(fleet.freshness("chita")["reason"])


def test_another_regions_rows_are_never_filed_under_this_region(fleet: Fleet) -> None:
    fleet.regions["tver"].write(1, 3)
    fleet.attach("chita", host=fleet.regions["tver"].cluster.host)

    fault = read(fleet, "chita").fault

    assert fault is not None
    assert fault.kind == "wrong_region"
    assert fault.sentence == f"{NET}.12:5432 says it is region tver, not chita"
    assert fleet.held("chita") == []


def test_a_wrong_password_is_named_as_such(fleet: Fleet) -> None:
    fleet.attach("chita", password="not this one")

    fault = read(fleet, "chita").fault

    assert fault is not None
    assert fault.kind == "login"


def test_a_clock_that_is_ahead_is_measured_and_said(fleet: Fleet) -> None:
    other_database(fleet, "chita", "ahead", HANDSHAKE.format(contract=3, ahead="90 s"))

    assert read(fleet, "chita").fault is None

    row = fleet.freshness("chita")
    assert row["skew_seconds"] == pytest.approx(90, abs=0.5)
    assert row["state"] == "fresh"
    assert "its clock is 90 s ahead of the centre's" in str(row["reason"])
    assert abs(float(str(fleet.state("tver")["skew_seconds"] or 0))) < 0.5


def test_a_rebuilt_region_is_read_whole_its_history_stays_and_the_row_says_so(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, 5)
    read(fleet, "chita")
    other_database(fleet, "chita", "rebuilt", "SELECT 1")
    with fleet.regions["chita"].cluster.superuser("rebuilt") as connection:
        # More changes than the watermark: its number alone would not betray the new database.
        connection.execute("SELECT setval('outpost.studies_seq', 1000)")
        connection.execute(
            "INSERT INTO outpost.studies"
            " (study_key, revision, system, received_at, outcome, instances, bytes, release)"
            " SELECT lpad(n::text, 32, '0'), 1, 'brain', now(), 'pending', 1, 1, '0.2.0'"
            " FROM generate_series(8, 9) n"
        )

    assert read(fleet, "chita").rows == 2

    assert len(fleet.held("chita")) == 7
    reason = str(fleet.freshness("chita")["reason"])
    assert "all rows read again" in reason
    assert "is not the one read before" in reason


def test_a_region_set_back_to_an_earlier_state_is_read_whole(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1, 5)
    read(fleet, "chita")
    mark = int(str(fleet.state("chita")["watermark_seq"]))
    chita.execute("DELETE FROM outpost.studies WHERE seq > %s", mark - 3)
    chita.execute("SELECT setval('outpost.studies_seq', %s)", mark - 3)
    chita.write(50)  # a new study under a seq that the centre has passed

    assert read(fleet, "chita").rows == 3
    assert "went back from change" in str(fleet.freshness("chita")["reason"])
    assert {study(50)["study_key"]} <= {row["study_key"] for row in fleet.held("chita")}
    assert read(fleet, "chita").rows == 0


def test_a_region_too_slow_for_a_range_is_asked_for_less_next_time(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1, 10)
    fleet.ask("ALTER SERVER region_chita OPTIONS (SET options '-c statement_timeout=300')")
    with chita.cluster.superuser("outpost") as holder, holder.transaction():
        holder.execute("LOCK TABLE outpost.studies IN ACCESS EXCLUSIVE MODE")
        fault = read(fleet, "chita").fault

    assert fault is not None
    assert fault.kind == "timeout"
    assert fleet.state("chita")["span_seq"] == 500
    assert fleet.attach("chita") == "changed", "the option set by hand is put right"
    assert read(fleet, "chita").rows == 10


def test_two_collectors_do_not_read_one_region_at_once(fleet: Fleet) -> None:
    with fleet.centre.superuser("fleet") as other:
        other.execute("SELECT pg_advisory_lock(hashtext('fleet.sync'), hashtext('chita'))")
        fault = read(fleet, "chita").fault
    assert fault is not None
    assert fault.kind == "busy"
    assert read(fleet, "chita").fault is None


def test_failed_attempts_come_ever_later_and_success_resets_them(fleet: Fleet) -> None:
    fleet.attach("ghost")
    pauses = []
    for _ in range(4):
        read(fleet, "ghost")
        pauses.append(
            fleet.ask(
                "SELECT extract(epoch FROM next_attempt_at - clock_timestamp())::float8 AS s FROM fleet.sync"
                " WHERE region = 'ghost'"
            )[0]["s"]
        )
    for pause, wanted in zip(pauses, (10, 20, 40, 80), strict=True):
        assert 0.75 * wanted < float(str(pause)) <= wanted
    assert fleet.state("ghost")["consecutive_failures"] == 4


def test_without_a_collector_running_the_view_says_that(fleet: Fleet) -> None:
    read(fleet, "chita")
    fleet.ask("UPDATE fleet.sync SET ok_at = now() - interval '5 minutes' WHERE region = 'chita'")

    row = fleet.freshness("chita")

    assert row["state"] == "late"
    assert "no failure since: look at outpost-fleet.service" in str(row["reason"])


def test_data_through_never_claims_more_than_the_snapshot_held(fleet: Fleet) -> None:
    before = datetime.now(UTC)
    read(fleet, "chita")
    through = fleet.state("chita")["data_through"]
    assert isinstance(through, datetime)
    assert before - timedelta(seconds=2) < through <= datetime.now(UTC)


def test_a_detached_region_keeps_its_history_and_continues_when_attached_again(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, 4)
    read(fleet, "chita")

    assert fleet.ask("SELECT fleet.detach_region('chita') AS a") == [{"a": "changed"}]
    assert fleet.ask("SELECT fleet.detach_region('chita') AS a") == [{"a": "unchanged"}]

    assert fleet.ask("SELECT 1 FROM fleet.freshness WHERE region = 'chita'") == []
    kept = fleet.ask(
        "SELECT DISTINCT state, count(*) AS n FROM fleet.studies WHERE region = 'chita' GROUP BY state"
    )
    assert kept == [{"state": "removed", "n": 4}]
    assert "chita" not in {attempt.region for attempt in sync_all(fleet.config)}
    # To people: removed, and when; no word of a dead one.
    found = console.summary(fleet.config)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert found["removed"][0]["region"] == "chita", "the last one first; other tests have removed others"
    assert f"(chita): removed on {today}, its history stays" in console.text(found, "en")
    assert f"(chita): выведен {today}, история остаётся" in console.text(found, "ru", whole=False)
    with fleet.centre.login(
        "fleet", "fleet_collector", fleet.config.centre.password.get_secret_value()
    ) as own:
        gone = view.removed(own)
        shown = page.render(view.freshness(own), [], [], datetime.now(UTC), removed=gone)
    assert "Removed regions: their history stays" in shown
    assert "<code>chita</code>" in shown
    assert not page.render([], [], [], datetime.now(UTC)).count("Removed regions")

    assert fleet.attach("chita") == "changed"
    fleet.regions["chita"].write(5)
    assert read(fleet, "chita").rows == 1, "only what is new travels"


def test_a_centre_without_the_schema_is_refused_with_the_remedy(fleet: Fleet) -> None:
    centre = fleet.config.centre.model_copy(update={"database": "postgres"})
    with pytest.raises(
        CentreError, match=r"has fleet schema 0, this release needs 6: apply outpost/fleet/sql"
    ):
        prepare(centre, 10)


def test_no_password_of_a_region_can_be_read_by_the_collectors_role(fleet: Fleet) -> None:
    with fleet.centre.login(
        "fleet", "fleet_collector", fleet.config.centre.password.get_secret_value()
    ) as me:
        seen = str(me.execute("SELECT * FROM pg_user_mappings").fetchall())
    assert READER_PASSWORD not in seen.replace("''", "'")
