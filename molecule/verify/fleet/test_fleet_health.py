"""What the centre says of regions that do not work, on real hosts, with the roles' own times: each within two minutes.

The lab reads its regions every 3 s; heartbeats come once a minute, as everywhere. So most of the time is waiting, and
each region has troubles of its own meanwhile; but a service that is stopped comes first and alone: nobody else is red.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from conftest import PAGE, PATIENCE, REGIONS, host_of, http_json, http_text, lab, psql, token, wait_for
from testinfra.host import Host

ALONE = "tver"
SEEN_SECONDS = 120
UNIT = "outpost@brain.service"


@pytest.fixture
def centre() -> Host:
    return host_of("centre")


def health(centre: Host) -> dict[str, dict[str, Any]]:
    rows = psql(
        centre,
        "fleet",
        "SELECT json_agg(h) FROM (SELECT region, system, colour, codes, reasons, reasons_ru,"
        " beat_age_seconds FROM fleet.health) h",
    )
    return {row["region"]: row for row in json.loads(rows)}


def told(
    centre: Host, region: str, codes: set[str], colours: set[str]
) -> Callable[[], dict[str, Any] | None]:
    def probe() -> dict[str, Any] | None:
        row = health(centre)[region]
        return row if row["colour"] in colours and codes & set(row["codes"]) else None

    return probe


def seen(
    centre: Host, region: str, *codes: str, colours: tuple[str, ...] = ("amber", "red")
) -> dict[str, Any]:
    """The line of fleet.health once one of the codes is among its reasons: within two minutes, however patient."""
    probe = told(centre, region, set(codes), set(colours))
    row: dict[str, Any] = wait_for(f"{region} shown for {codes}", probe, SEEN_SECONDS / max(PATIENCE, 1))
    said = psql(centre, "fleet", f"SELECT colour, reason FROM fleet.freshness WHERE region = '{region}'")
    assert not said.startswith("green"), said
    return row


def recovered(centre: Host, region: str, *codes: str) -> None:
    def probe() -> bool:
        row = health(centre)[region]
        return not set(codes) & set(row["codes"]) and (row["beat_age_seconds"] or 999) < 75

    wait_for(f"{region} no longer shown for {codes}", probe, 180)


def page(language: str) -> str:
    return asked(f"/?lang={language}")


def asked(path: str) -> str:
    """What the centre's page answers to the token that may read it."""
    return http_text(PAGE + path, token("centre"))


def test_each_system_says_how_it_is_and_the_centre_hears_it(centre: Host) -> None:
    """A row a minute: what is heard now was not heard before."""
    before = {
        region: psql(host_of(region), "outpost", "SELECT max(seq) FROM outpost.heartbeats")
        for region in REGIONS
    }

    def heard() -> bool:
        now = health(centre)
        return all(
            now[region]["system"] == "brain"
            and (now[region]["beat_age_seconds"] or 999) < 75
            and not {"SILENT", "NO_HEARTBEAT", "UNREAD", "OLD_CONTRACT", "CLOCK"} & set(now[region]["codes"])
            and psql(host_of(region), "outpost", "SELECT max(seq) FROM outpost.heartbeats") != before[region]
            for region in REGIONS
        )

    wait_for("a new heartbeat of each region at the centre", heard, 90)
    for line in http_json(f"{PAGE}/health.json")["systems"]:
        assert line["colour"] == "green" or line["why"], line
        assert line["colour"] == "green" or line["why_ru"], line


def test_a_service_that_is_stopped_is_seen(centre: Host) -> None:
    region, sick = ALONE, host_of(ALONE)
    sick.run_expect([0], f"systemctl stop {UNIT}")
    try:
        row = seen(centre, region, "SILENT")
        assert "no heartbeat for" in row["reasons"]
        assert "нет сигнала" in row["reasons_ru"]
        assert "no heartbeat for" in page("en")
        assert "нет сигнала" in page("ru")
        said = psql(centre, "fleet", f"SELECT state, reason FROM fleet.freshness WHERE region = '{region}'")
        assert said.startswith("fresh|"), "its database is alive"
        assert "no heartbeat" in said
        metrics = asked("/metrics")
        assert f'outpost_fleet_health{{colour="green",region="{region}",system="brain"}} 0.0' in metrics
        assert f'outpost_fleet_health_reason{{code="SILENT",region="{region}",system="brain"}} 1.0' in metrics
        assert [r for r, other in health(centre).items() if "SILENT" in other["codes"]] == [region]
    finally:
        sick.run_expect([0], f"systemctl start {UNIT}")
    recovered(centre, region, "SILENT", "GOLDEN_PASSED", "WORKER_ALIVE")


def a_service_that_hangs_is_seen(centre: Host, region: str, sick: Host) -> None:
    """SIGSTOP to the service: the watchdog replaces it after a minute, and until it is ready it says so."""
    recovered(centre, region, "SILENT", "GOLDEN_PASSED")
    sick.run_expect([0], "docker kill --signal STOP outpost-brain")
    seen(centre, region, "SILENT", "GOLDEN_PASSED", "WORKER_ALIVE")
    recovered(centre, region, "SILENT", "GOLDEN_PASSED", "WORKER_ALIVE")


def a_full_disk_is_seen(centre: Host, region: str, sick: Host) -> None:
    """A small file system in place of the service's own: less is free than the reserve that must stay."""
    storage = "/var/lib/outpost/brain"
    sick.run_expect(
        [0],
        f"systemctl stop {UNIT} && mount -t tmpfs -o size=64m,mode=770,uid=10001,gid=10001 full {storage}",
    )
    try:
        sick.run_expect([0], f"systemctl start --no-block {UNIT}")
        row = seen(centre, region, "DISK_RESERVE", colours=("red",))
        assert "the disk is full" in row["reasons"]
        assert "диск заполнен" in row["reasons_ru"]
    finally:
        sick.run_expect([0], f"systemctl stop {UNIT}; umount {storage} && systemctl start {UNIT}")
    recovered(centre, region, "DISK_RESERVE", "GOLDEN_PASSED", "SILENT")


def a_journal_that_cannot_be_read_is_seen_or_healed(centre: Host, region: str, sick: Host) -> None:
    """No moment in which the journal is broken and the region green for two minutes."""
    journal = "/var/lib/outpost/brain/journal.sqlite3"
    sick.run_expect([0], f"systemctl stop {UNIT} && cp -a {journal} /root/journal.good")
    sick.run_expect(
        [0], f"rm -f {journal}-wal {journal}-shm && head -c 65536 /dev/urandom | dd of={journal} conv=notrunc"
    )
    sick.run_expect([0], f"systemctl start --no-block {UNIT}")
    try:

        def sound() -> bool:
            # Not the bytes themselves: what was written over them is no text.
            return sick.run(f"head -c 15 {journal} | grep -qx 'SQLite format 3'").rc == 0

        def seen_or_healed() -> bool:
            row = health(centre)[region]
            return sound() or (
                row["colour"] == "red" and bool({"JOURNAL_BROKEN", "SILENT"} & set(row["codes"]))
            )

        wait_for("the broken journal seen or healed", seen_or_healed, SEEN_SECONDS / max(PATIENCE, 1))
    finally:
        if not sound():
            sick.run_expect(
                [0],
                f"systemctl stop {UNIT}; rm -f {journal}-wal {journal}-shm; cp -a /root/journal.good {journal};"
                f" systemctl reset-failed {UNIT}; systemctl start {UNIT}",
            )
        sick.run("rm -f /root/journal.good")
    recovered(centre, region, "SILENT", "JOURNAL_BROKEN", "GOLDEN_PASSED")


def a_rung_below_the_full_one_is_seen(centre: Host, region: str, sick: Host) -> None:
    """A worker that dies again and again is not trusted at the full rung: less is tried, and the centre told."""
    kill = "pgrep -f 'outpost[.]inference' | xargs --no-run-if-empty kill -9"
    deadline = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < deadline:
        sick.run(kill)
        row = health(centre)[region]
        if {"LADDER_REDUCED", "RECEIVE_ONLY", "WORKER_ALIVE", "GOLDEN_PASSED"} & set(row["codes"]):
            break
        time.sleep(2)
    else:
        pytest.fail(f"workers die all the time, and {region} is shown as {row}")
    sick.run_expect([0], f"systemctl restart {UNIT}")
    recovered(centre, region, "RECEIVE_ONLY", "WORKER_ALIVE", "GOLDEN_PASSED", "SILENT")


def a_database_that_is_down_is_seen(centre: Host, region: str, sick: Host) -> None:
    unit = sick.run(
        "systemctl list-units --plain --no-legend 'postgresql*' | grep -v slice | awk '{print $1}' | tail -1"
    )
    name = unit.stdout.strip()
    sick.run_expect([0], f"systemctl stop {name}")
    try:
        row = seen(centre, region, "UNREAD")
        assert "refuses connections" in row["reasons"]
        assert "PostgreSQL там не работает" in row["reasons_ru"]
    finally:
        sick.run_expect([0], f"systemctl start {name}")
    recovered(centre, region, "UNREAD", "SILENT")


def a_link_that_is_cut_is_seen(centre: Host, region: str, _: Host) -> None:
    lab("cut", region)
    try:
        seen(centre, region, "UNREAD")
    finally:
        lab("heal", region)
    recovered(centre, region, "UNREAD", "SILENT")


def a_clock_that_is_wrong_is_seen(centre: Host, region: str, sick: Host) -> None:
    """The lab's hosts share one clock; the region's database is told another one by its handshake."""
    view = "fleet_export.handshake_v3"
    good = psql(sick, "outpost", f"SELECT pg_get_viewdef('{view}'::regclass)").rstrip(";")
    wrong = good.replace("h.clock", "h.clock + interval '10 minutes' AS clock", 1)
    assert wrong != good
    psql(sick, "outpost", f"CREATE OR REPLACE VIEW {view} AS {wrong}")
    try:
        row = seen(centre, region, "CLOCK")
        assert "10 min ahead of the centre's" in row["reasons"]
        assert "спешат от часов центра на 10 мин" in row["reasons_ru"]
    finally:
        psql(sick, "outpost", f"CREATE OR REPLACE VIEW {view} AS {good}")
    recovered(centre, region, "CLOCK")


Trouble = Callable[[Host, str, Host], None]
# One after the other in each region, the regions at the same time.
TROUBLES: dict[str, list[Trouble]] = {
    "chita": [a_full_disk_is_seen, a_database_that_is_down_is_seen],
    "tver": [a_service_that_hangs_is_seen, a_rung_below_the_full_one_is_seen, a_clock_that_is_wrong_is_seen],
    "train": [a_journal_that_cannot_be_read_is_seen_or_healed, a_link_that_is_cut_is_seen],
}


@pytest.fixture(scope="module")
def troubles() -> Iterator[dict[tuple[str, Trouble], Future[None]]]:
    """What came of each; a test that asks waits for it. Connections are each trouble's own."""
    with ThreadPoolExecutor(len(TROUBLES)) as regions:
        ends: dict[tuple[str, Trouble], Future[None]] = {
            (region, trouble): Future() for region, of_it in TROUBLES.items() for trouble in of_it
        }

        def one_after_the_other(region: str) -> None:
            for trouble in TROUBLES[region]:
                end = ends[region, trouble]
                if not end.set_running_or_notify_cancel():
                    continue
                try:
                    end.set_result(trouble(host_of("centre"), region, host_of(region)))
                except BaseException as error:  # pytest's own failures are none of Exception
                    end.set_exception(error)

        for region in TROUBLES:
            regions.submit(one_after_the_other, region)
        yield ends
        for end in ends.values():
            end.cancel()


@pytest.mark.parametrize(
    ("region", "trouble"),
    [(region, trouble) for region, of_it in TROUBLES.items() for trouble in of_it],
    ids=lambda value: value if isinstance(value, str) else value.__name__.removesuffix("_is_seen"),
)
def test_the_centre_sees(
    troubles: dict[tuple[str, Trouble], Future[None]], region: str, trouble: Trouble
) -> None:
    troubles[region, trouble].result(timeout=1200)
