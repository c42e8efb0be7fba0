"""Whether a region works, as the centre sees it: real databases, heartbeats as the service writes them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from postgres_cluster import (
    COLLECTOR_PASSWORD,
    FLEET_SQL,
    NET,
    READER_PASSWORD,
    RECORDER_PASSWORD,
    RECORDS_SQL,
    Fleet,
    make_region_database,
    the_fleet,
)
from prometheus_client.parser import text_string_to_metric_families

from outpost.fleet import page, view
from outpost.fleet.collector import Collector, sync_all
from outpost.fleet.config import Sync
from outpost.fleet.metrics import exposition
from outpost.fleet.sync import prepare, sync_region
from outpost.fleet.words import _OF_CHECKS, all_words
from outpost.health.codes import CHECKS
from outpost.options import Language

DAY = timedelta(days=1)
BOOT = "0b0d0000-0000-4000-8000-0000000000{:02d}"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = the_fleet()
    fleet.reset()
    prepare(fleet.config.centre, fleet.config.sync.period_seconds)
    yield fleet
    for region in fleet.regions.values():
        if not (region.cluster.data / "postmaster.pid").exists():
            region.cluster.start()


def read(fleet: Fleet, code: str = "chita") -> None:
    assert sync_region(fleet.config.centre, fleet.config.sync, code).fault is None


def later(fleet: Fleet, seconds: float, code: str = "chita") -> None:
    """Let the centre believe that so much time has passed: all its own times of the region are older."""
    past = timedelta(seconds=seconds)
    fleet.ask("UPDATE fleet.heartbeats SET beat_at = beat_at - %s, read_at = read_at - %s", (past, past))
    fleet.ask(
        "UPDATE fleet.sync SET ok_at = ok_at - %(past)s, health_at = health_at - %(past)s,"
        " failing_since = failing_since - %(past)s WHERE region = %(region)s",
        {"past": past, "region": code},
    )


def is_said(line: dict[str, object], colour: str, code: str, english: str, russian: str) -> None:
    assert (line["colour"], code in list(line["codes"])) == (colour, True), line  # type: ignore[call-overload]  # text[]
    assert english in str(line["reasons"])
    assert russian in str(line["reasons_ru"])


def test_a_system_whose_heartbeat_is_new_and_ok_is_green_and_nothing_else_is(fleet: Fleet) -> None:
    fleet.regions["chita"].beat()
    sync_all(fleet.config)

    line = fleet.health("chita")
    assert (line["colour"], line["reasons"], line["reasons_ru"]) == ("green", "works", "работает")
    assert fleet.freshness("chita")["reason"] == "up to date"
    assert fleet.freshness("chita")["colour"] == "green"
    # The other two databases answer, and are fresh: nobody has said that anything works there.
    for code in ("tver", "train"):
        is_said(fleet.health(code, None), "red", "NO_HEARTBEAT", "no service has ever said", "ни разу")
        assert fleet.freshness(code)["state"] == "fresh"
        assert "no service has ever said that it works" in str(fleet.freshness(code)["reason"])
        assert fleet.freshness(code)["colour"] == "red"


SOON = datetime.now(UTC) + 3 * DAY
STATES: list[tuple[dict[str, object], str, str, str, str]] = [
    ({"status": "failed", "failing": ["DISK_RESERVE"], "ready": False, "disk_free_mib": 100},
     "red", "DISK_RESERVE", "100 MiB free of the 2048 MiB", "свободно 100 МиБ"),
    ({"disk_free_mib": None, "disk_used_percent": None}, "red", "DISK_RESERVE", "? MiB free", "свободно ? МиБ"),
    ({"disk_free_mib": 2500}, "amber", "DISK_NEAR", "nearly full: 2500 MiB free", "почти полон"),
    ({"disk_used_percent": 93.5}, "amber", "DISK_NEAR", "93.5 % used", "занято 93.5 %"),
    ({"status": "failed", "failing": ["JOURNAL_ANSWERS"], "ready": False, "queue": None, "outbox": None,
      "oldest_pending_seconds": None, "oldest_outbox_seconds": None},
     "red", "JOURNAL_ANSWERS", "journal does not answer", "журнал не отвечает"),
    ({"status": "failed", "failing": ["JOURNAL_BROKEN"], "ready": False},
     "red", "JOURNAL_BROKEN", "journal cannot be read", "журнал не читается"),
    ({"status": "degraded", "failing": ["LADDER_REDUCED"], "rung": "patches"},
     "amber", "LADDER_REDUCED", "reduced rung patches", "ступени patches"),
    ({"rung": "cpu"}, "amber", "LADDER_REDUCED", "reduced rung cpu", "ступени cpu"),
    ({"status": "failed", "failing": ["RECEIVE_ONLY"], "ready": False, "receive_only": "GOLDEN_WRONG"},
     "red", "RECEIVE_ONLY", "only receives, computes nothing (GOLDEN_WRONG)", "только принимает"),
    ({"receive_only": "GOLDEN_WRONG"}, "red", "RECEIVE_ONLY", "only receives", "только принимает"),
    ({"queue": 7, "oldest_pending_seconds": 2400}, "amber", "QUEUE_AGE", "waited for 40 min (7 wait)", "ждёт 40 мин"),
    ({"queue": 7, "oldest_pending_seconds": 20000}, "red", "QUEUE_AGE", "waited for 6 h", "ждёт 6 ч"),
    ({"outbox": 3, "oldest_outbox_seconds": 4000}, "amber", "OUTBOX_AGE", "oldest of 3 has waited", "не уходят"),
    ({"outbox": 3, "oldest_outbox_seconds": 90000}, "red", "OUTBOX_AGE", "waited for 25 h", "25 ч"),
    ({"certificate_until": SOON}, "amber", "CERTIFICATE_EXPIRES", f"ends on {SOON.date()}", "кончается"),
    ({"certificate_until": SOON - 9 * DAY}, "red", "CERTIFICATE_VALID", "not valid", "недействителен"),
    ({"status": "degraded", "failing": ["CERTIFICATE_EXPIRES"]}, "amber", "CERTIFICATE_EXPIRES", "ends on ?", "?"),
    ({"status": "failed", "failing": ["PIPELINE_TICKING", "QUEUE_AGE"], "ready": False},
     "red", "PIPELINE_TICKING", "the pipeline hangs", "обработка зависла"),
    ({"status": "degraded", "failing": ["DESTINATION_ANSWERS"]},
     "amber", "DESTINATION_ANSWERS", "a destination does not answer", "получатель не отвечает"),
    ({"status": "degraded", "failing": ["CHECK_OF_A_LATER_RELEASE"]},
     "amber", "CHECK_OF_A_LATER_RELEASE", "CHECK_OF_A_LATER_RELEASE", "CHECK_OF_A_LATER_RELEASE"),
    ({"status": "failed", "failing": ["CHECK_OF_A_LATER_RELEASE"], "ready": False},
     "red", "NOT_READY", "not ready", "не готова"),
    ({"status": "degraded"}, "amber", "DEGRADED", "works with limits", "с ограничениями"),
    ({"ready": False}, "red", "NOT_READY", "not ready", "не готова"),
    ({"release": "0.0.9"}, "amber", "RELEASE_HALF", "release 0.0.9 runs, but 0.1.0 was installed", "не закончена"),
    ({"host_clock": datetime.now(UTC) + timedelta(minutes=40)},
     "amber", "CLOCK", "min ahead of the centre's", "спешат от часов центра на"),
    ({"host_clock": datetime.now(UTC) - 400 * DAY}, "red", "CLOCK", "400 days behind", "отстают"),
]  # fmt: skip


def test_each_state_has_its_colour_and_its_words_in_both_languages(fleet: Fleet) -> None:
    for values, colour, code, english, russian in STATES:
        fleet.regions["chita"].beat(**values)
        read(fleet)
        is_said(fleet.health("chita"), colour, code, english, russian)
        assert english in str(fleet.freshness("chita")["reason"])
        assert fleet.freshness("chita")["colour"] == colour
    fleet.regions["chita"].beat()
    read(fleet)
    assert fleet.health("chita")["colour"] == "green", "and none of it stays"


def test_one_that_falls_silent_is_amber_soon_and_red_a_period_later_while_its_database_is_fresh(
    fleet: Fleet,
) -> None:
    fleet.regions["chita"].beat()
    read(fleet)
    for silent, colour in ((70, "green"), (76, "amber"), (130, "amber"), (136, "red"), (90000, "red")):
        fleet.ask(
            "UPDATE fleet.heartbeats SET beat_at = clock_timestamp() - %s", (timedelta(seconds=silent),)
        )
        read(fleet)  # the row is the same: reading it once more is no sign of life
        line = fleet.health("chita")
        assert line["colour"] == colour, (silent, line)
        assert fleet.freshness("chita")["state"] == "fresh"
        if colour != "green":
            is_said(line, colour, "SILENT", "no heartbeat for", "нет сигнала")
            assert "(its last word was ok)" in str(fleet.freshness("chita")["reason"])
            assert line["since"] == line["beat_at"]


def test_with_default_settings_every_end_of_a_service_shows_within_two_minutes(fleet: Fleet) -> None:
    """Worst case: it ends right after a heartbeat, which was read right after it was written."""
    [settings] = fleet.ask("SELECT * FROM fleet.settings")
    [beat] = [60.0]  # Records.heartbeat_seconds, tests/unit/test_heartbeat.py
    late = beat + float(str(settings["heartbeat_grace_seconds"]))
    answer = 10.0  # FIRST_ANSWER_SECONDS: a region that answers at all is read within this
    assert late + Sync().period_seconds + answer <= 120
    # A host that is off: nothing answers, and data that is late is amber.
    assert Sync().period_seconds * float(str(settings["late_after_periods"])) <= 120


def test_a_heartbeat_from_the_future_or_the_past_does_not_fool_the_centre(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.beat()
    read(fleet)
    # Its clock was a year ahead as it wrote, and was put right: the row claims to be younger than now for a year.
    chita.execute(
        "UPDATE outpost.heartbeats SET written_at = written_at + interval '1 year',"
        " host_clock = host_clock + interval '1 year'"
    )
    read(fleet)
    later(fleet, 100)
    read(fleet)
    is_said(fleet.health("chita"), "amber", "SILENT", "no heartbeat", "нет сигнала")
    # Not a new row of a system that lives: one that comes with an age of days, as in a database put back.
    chita.execute("DELETE FROM outpost.heartbeats")
    chita.beat()
    chita.execute(
        "UPDATE outpost.heartbeats SET written_at = written_at - interval '3 days',"
        " host_clock = host_clock - interval '3 days'"
    )
    fleet.ask("TRUNCATE fleet.heartbeats")
    read(fleet)
    is_said(fleet.health("chita"), "red", "SILENT", "no heartbeat for 3 days", "нет сигнала 3 сут.")


def test_a_clock_that_jumps_while_the_service_beats_is_said_and_is_no_silence(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.beat()
    read(fleet)
    chita.beat(host_clock=datetime.now(UTC) - 365 * DAY)
    # The next reading finds a row a year old by a clock that has jumped since; it is new all the same.
    chita.execute("UPDATE outpost.heartbeats SET written_at = written_at - interval '1 year'")
    read(fleet)
    line = fleet.health("chita")
    assert "SILENT" not in list(line["codes"])  # type: ignore[call-overload]  # text[]
    assert float(str(line["beat_age_seconds"])) < 60


def test_the_centres_own_clock_set_back_is_amber_until_it_has_read_again(fleet: Fleet) -> None:
    fleet.regions["chita"].beat()
    read(fleet)
    later(fleet, -7200)
    is_said(
        fleet.health("chita"),
        "amber",
        "CENTRE_CLOCK",
        "centre's own clock went back by 120 min",
        "часы самого центра",
    )
    read(fleet)
    fleet.regions["chita"].beat()
    read(fleet)
    assert fleet.health("chita")["colour"] == "green"


def test_of_two_systems_the_dead_one_is_named_and_the_other_stays_green(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.execute("SELECT outpost.set_systems('{brain,lungs}')")
    for system in ("brain", "lungs"):
        chita.beat(system=system)
    read(fleet)
    fleet.ask("UPDATE fleet.heartbeats SET beat_at = beat_at - interval '10 minutes' WHERE system = 'lungs'")
    read(fleet)
    assert fleet.health("chita", "brain")["colour"] == "green"
    is_said(fleet.health("chita", "lungs"), "red", "SILENT", "no heartbeat for 10 min", "нет сигнала 10 мин")
    assert "lungs: no heartbeat for 10 min" in str(fleet.freshness("chita")["reason"])
    assert "brain" not in str(fleet.freshness("chita")["reason"])


def test_a_system_that_never_began_is_red_and_one_taken_out_is_amber_and_forgotten_after_a_week(
    fleet: Fleet,
) -> None:
    chita = fleet.regions["chita"]
    chita.execute("SELECT outpost.set_systems('{brain,lungs}')")
    chita.beat()
    chita.beat(system="heart")
    read(fleet)
    is_said(fleet.health("chita", "lungs"), "red", "NO_HEARTBEAT", "no service has ever said", "ни разу")
    is_said(
        fleet.health("chita", "heart"), "amber", "NOT_IN_CONFIG", "runs although", "в конфигурации её нет"
    )
    fleet.ask("UPDATE fleet.heartbeats SET beat_at = beat_at - interval '1 hour' WHERE system = 'heart'")
    read(fleet)
    is_said(fleet.health("chita", "heart"), "amber", "REMOVED", "taken out of the configuration", "убрана")
    assert fleet.health("chita")["colour"] == "green"
    fleet.ask("UPDATE fleet.heartbeats SET beat_at = beat_at - interval '8 days' WHERE system = 'heart'")
    assert fleet.ask("SELECT 1 FROM fleet.health WHERE system = 'heart'") == []


@pytest.mark.parametrize(("boots", "colour"), [(2, "green"), (3, "amber"), (5, "red")])
def test_a_host_that_boots_again_and_again_is_not_green_though_each_beat_is_ok(
    fleet: Fleet, boots: int, colour: str
) -> None:
    for number in range(boots):
        fleet.regions["chita"].beat(boot_id=BOOT.format(number))
    read(fleet)
    line = fleet.health("chita")
    assert line["colour"] == colour
    if colour != "green":
        is_said(line, colour, "BOOTS", f"booted {boots} times", f"загружался {boots} раз")


def test_a_service_that_starts_again_and_again_is_not_green(fleet: Fleet) -> None:
    for number in range(8):
        fleet.regions["chita"].beat(process_started=datetime.now(UTC) - timedelta(minutes=8 - number))
    read(fleet)
    is_said(fleet.health("chita"), "red", "STARTS", "started 8 times", "запускалась 8 раз")


@pytest.mark.parametrize(
    ("queues", "grows"),
    [
        ([0, 1, 2, 3, 5, 9], True),
        ([9, 0, 1, 3, 3, 4, 6], True),
        ([0, 5, 9, 5, 6, 9], False),
        ([9, 9, 9, 9, 9, 9], False),
        ([0, 9], False),
    ],
)
def test_a_queue_that_only_grows_is_said(fleet: Fleet, queues: list[int], grows: bool) -> None:
    for queue in queues:
        fleet.regions["chita"].beat(queue=queue)
    read(fleet)
    line = fleet.health("chita")
    assert line["colour"] == ("amber" if grows else "green")
    if grows:
        is_said(line, "amber", "QUEUE_GROWS", f"grows: {queues[-1]} studies wait", "очередь растёт")


def test_one_region_of_another_release_than_the_others_is_named(fleet: Fleet) -> None:
    for code in ("chita", "tver", "train"):
        fleet.regions[code].beat()
        read(fleet, code)
    fleet.regions["tver"].beat(release="0.0.9")
    read(fleet, "tver")
    is_said(
        fleet.health("tver"), "amber", "RELEASE", "release 0.0.9, most systems have 0.1.0", "у большинства"
    )
    assert fleet.health("chita")["colour"] == "green"


def test_a_region_that_is_off_is_amber_at_its_first_failure_and_red_soon(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.beat()
    read(fleet)
    chita.cluster.stop("immediate")
    sync_region(fleet.config.centre, fleet.config.sync, "chita")
    line = fleet.health("chita")
    is_said(line, "amber", "UNREAD", "PostgreSQL is not running there", "PostgreSQL там не работает")
    later(fleet, 181)
    assert fleet.health("chita")["colour"] == "red"
    assert fleet.freshness("chita")["colour"] == "red"
    chita.cluster.start()
    chita.beat()
    read(fleet)
    assert fleet.health("chita")["colour"] == "green"


def test_a_collector_that_has_stopped_leaves_nothing_green(fleet: Fleet) -> None:
    for code in ("chita", "tver", "train"):
        fleet.regions[code].beat()
        read(fleet, code)
        later(fleet, 25, code)  # more than two periods of 10 s; nothing failed, nobody asked
    lines = fleet.ask("SELECT colour, reasons FROM fleet.health")
    assert {line["colour"] for line in lines} == {"amber"}
    assert all("look at outpost-fleet.service" in str(line["reasons"]) for line in lines)


def test_a_region_never_heard_from_is_red_in_words(fleet: Fleet) -> None:
    fleet.attach("ghost")
    sync_region(fleet.config.centre, fleet.config.sync, "ghost")
    is_said(fleet.health("ghost", None), "red", "NEVER", f"never heard from: {NET}.99", "ни разу не отвечал")


def test_a_region_of_an_earlier_contract_is_amber_and_says_that_it_does_not_tell(fleet: Fleet) -> None:
    cluster = fleet.regions["chita"].cluster
    for newest in ("0005", "0007"):  # contracts 1 and 2
        with cluster.superuser("postgres") as connection:
            connection.execute("DROP DATABASE IF EXISTS before_health")
        make_region_database(cluster, "chita", "before_health", [p for p in RECORDS_SQL if p.name < newest])
        fleet.attach("chita", dbname="before_health")
        read(fleet)
        line = fleet.health("chita", None)
        is_said(line, "amber", "OLD_CONTRACT", "does not report health yet", "ещё не сообщает")
        assert "does not report health yet" in str(fleet.freshness("chita")["reason"])
    # Brought up to date, it tells; put back, it is known to have stopped telling.
    cluster.psql("before_health", *RECORDS_SQL)
    read(fleet)
    is_said(fleet.health("chita", None), "red", "NO_HEARTBEAT", "no service has ever said", "ни разу")
    with cluster.superuser("before_health") as connection:
        connection.execute(
            "DROP VIEW fleet_export.health_v3, fleet_export.handshake_v3, fleet_export.studies_v3"
        )
    read(fleet)
    is_said(fleet.health("chita", None), "amber", "OLD_CONTRACT", "does not report health yet", "ещё не")


def test_a_centre_of_the_release_before_reads_a_region_that_tells_its_health(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1)
    fleet.regions["chita"].beat()
    with fleet.centre.superuser("postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS fleet_two")
        connection.execute("CREATE DATABASE fleet_two TEMPLATE template0")
    fleet.centre.psql("fleet_two", *(path for path in FLEET_SQL if path.name < "0005"))
    attach = "SELECT fleet.attach_region('chita', 'Chita', %s, 5432, 'outpost', 'fleet_reader', %s, 'prefer')"
    with fleet.centre.superuser("fleet_two") as connection:
        connection.execute(attach, (fleet.regions["chita"].cluster.host, READER_PASSWORD))
    with fleet.centre.login("fleet_two", "fleet_collector", COLLECTOR_PASSWORD) as connection:
        [hello] = connection.execute("SELECT * FROM region_chita.handshake_v2").fetchall()
        assert (hello["region"], hello["contract_version"]) == ("chita", 2)
        [row] = connection.execute("SELECT study_key, partial FROM region_chita.studies_v2").fetchall()
    assert row["partial"] is False
    # The centre is brought up to date, and told of each region once more: then it reads heartbeats.
    fleet.centre.psql("fleet_two", *FLEET_SQL)
    with fleet.centre.superuser("fleet_two") as connection:
        connection.execute(attach, (fleet.regions["chita"].cluster.host, READER_PASSWORD))
    centre = fleet.config.centre.model_copy(update={"database": "fleet_two"})
    prepare(centre, 10)
    assert sync_region(centre, fleet.config.sync, "chita").fault is None
    with fleet.centre.superuser("fleet_two") as connection:
        assert connection.execute("SELECT colour FROM fleet.health").fetchall() == [{"colour": "green"}]


def test_heartbeats_count_although_the_region_has_much_to_tell_and_that_fails(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1, 600)
    chita.beat()
    chita.execute("REVOKE SELECT ON fleet_export.studies_v3 FROM fleet_reader")
    try:
        fault = sync_region(fleet.config.centre, fleet.config.sync, "chita").fault
        assert fault is not None
        assert fault.kind == "permission"
        assert fleet.ask("SELECT status FROM fleet.heartbeats WHERE region = 'chita'") == [{"status": "ok"}]
        assert fleet.health("chita")["colour"] != "green"
    finally:
        chita.execute("GRANT SELECT ON fleet_export.studies_v3 TO fleet_reader")
    read(fleet)
    assert len(fleet.held("chita")) == 600
    assert fleet.health("chita")["colour"] == "green"


def test_since_when_each_reason_holds_is_kept_and_begins_anew_after_a_break(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]

    def turn(**values: object) -> object:
        chita.beat(**values)
        read(fleet)
        fleet.ask("SELECT fleet.note_health()")
        return fleet.health("chita")["since"]

    bad: dict[str, object] = {"status": "degraded", "failing": ["DESTINATION_ANSWERS"]}
    first = turn(**bad)
    assert turn(**bad) == first
    assert turn(**(bad | {"failing": ["DESTINATION_ANSWERS", "FILTER_RULES"]})) == first
    well = turn()
    assert well != first
    assert turn() == well, "also since when it works"
    assert turn(**bad) not in (first, well)


def test_what_a_region_makes_up_breaks_no_view_and_makes_no_metric(fleet: Fleet) -> None:
    """Whoever holds a region's database may answer anything: the other regions are seen all the same."""
    tver = fleet.regions["tver"]
    tver.beat()
    read(fleet, "tver")
    chita = fleet.regions["chita"]
    chita.execute(
        "CREATE OR REPLACE VIEW fleet_export.health_v3 AS SELECT region, 's' || n AS system, n::bigint AS seq,"
        " 'infinity'::timestamptz AS written_at, 'NaN'::double precision AS age_seconds,"
        " '-infinity'::timestamptz AS host_clock, 1e300::double precision AS period_seconds,"
        " '<b>%1$s%s%</b>' AS status, ARRAY['%s', 'a b', 'MADE_UP_' || n, NULL] AS failing, true AS ready,"
        " repeat('%n<i>', 1000) AS rung, '' AS receive_only, -1 AS queue, 'Infinity'::double precision AS"
        " oldest_pending_seconds, 0 AS outbox, 'NaN'::double precision AS oldest_outbox_seconds, -1::bigint AS"
        " disk_free_mib, 'NaN'::double precision AS disk_used_percent, 1::bigint AS disk_reserve_mib,"
        " 'infinity'::timestamptz AS certificate_until, '<u>' AS release, '' AS bundle, '' AS bundle_version,"
        " '' AS boot_id, '-infinity'::timestamptz AS process_started, 1 AS boots, 1 AS starts, 0 AS queue_rise"
        " FROM (SELECT r.code AS region FROM outpost.region r) r, generate_series(10, 4000) n"
    )
    try:
        sync_region(fleet.config.centre, fleet.config.sync, "chita")
        assert fleet.health("tver")["colour"] == "green"
        lines = fleet.ask("SELECT colour FROM fleet.health WHERE region = 'chita'")
        assert len(lines) <= 32
        assert {line["colour"] for line in lines} <= {"red", "amber"}
        with fleet.centre.login("fleet", "fleet_collector", COLLECTOR_PASSWORD) as connection:
            health, regions = view.health(connection), view.freshness(connection)
        text = exposition(regions, [], Collector(fleet.config), (), health).decode()
        series = [s for f in text_string_to_metric_families(text) for s in f.samples]
        codes = {s.labels["code"] for s in series if s.name == "outpost_fleet_health_reason"}
        assert codes <= {*all_words(), "OTHER"}
        assert len(series) < 2000
        languages: tuple[Language, ...] = ("en", "ru")
        for language in languages:
            shown = page.render(regions, [], [], datetime.now(UTC), (), health, language)
            assert "<b>%" not in shown
            assert "<i>" not in shown
    finally:
        chita.cluster.psql("outpost", next(p for p in RECORDS_SQL if p.name.startswith("0007")))


def test_the_table_of_heartbeats_stays_bounded_and_its_writer_cannot_clear_it(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.execute("ALTER TABLE outpost.heartbeats DISABLE TRIGGER stamp_heartbeat")
    chita.beat_rows(3000)
    chita.execute("ALTER TABLE outpost.heartbeats ENABLE TRIGGER stamp_heartbeat")
    chita.beat()
    chita.beat(system="lungs")
    with chita.cluster.superuser("outpost") as connection:
        counts = connection.execute(
            "SELECT system, count(*) AS n FROM outpost.heartbeats GROUP BY system ORDER BY system"
        ).fetchall()
    assert counts == [{"system": "brain", "n": 2880}, {"system": "lungs", "n": 1}]
    with chita.cluster.login("outpost", "outpost_recorder", RECORDER_PASSWORD) as connection:
        for forbidden in (
            "DELETE FROM outpost.heartbeats",
            "UPDATE outpost.heartbeats SET status = 'ok'",
            "TRUNCATE outpost.heartbeats",
            "SELECT outpost.set_systems('{x}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)


@pytest.mark.parametrize(
    "values",
    [
        {"failing": ["IVANOV^IVAN"]},
        {"failing": ["DISK_RESERVE", "Ivanov 1961"]},
        {"failing": [None]},
        {"receive_only": "Ivanov Ivan"},
        {"rung": "Иванов"},
        {"bundle": "Ivanov Ivan"},
        {"status": "fine"},
        {"boot_id": "1.2.840.113619"},
    ],
)
def test_a_heartbeat_takes_no_text_that_could_be_a_patients(fleet: Fleet, values: dict[str, object]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        fleet.regions["chita"].beat(**values)


def test_every_code_has_sentences_of_its_own_in_both_languages_that_the_database_can_fill(
    fleet: Fleet,
) -> None:
    assert {str(code) for code in CHECKS} <= set(_OF_CHECKS), "add the new check to outpost/fleet/words.py"
    found = fleet.ask(
        "SELECT code, en, format(en, VARIADIC ARRAY['A', 'B', 'C', 'D']) AS said,"
        " ru, format(ru, VARIADIC ARRAY['A', 'B', 'C', 'D']) AS said_ru FROM fleet.health_words"
    )
    assert {row["code"] for row in found} == set(all_words())
    for row in found:
        assert any("а" <= letter <= "я" for letter in str(row["said_ru"])), row
        assert "$" not in str(row["said"]) + str(row["said_ru"])


def test_the_page_says_first_what_is_wrong_and_never_calls_a_dead_region_green(fleet: Fleet) -> None:
    fleet.regions["chita"].beat()
    fleet.regions["tver"].beat(status="failed", failing=["DISK_RESERVE"], ready=False, disk_free_mib=3)
    sync_all(fleet.config)
    with fleet.centre.login("fleet", "fleet_collector", COLLECTOR_PASSWORD) as connection:
        regions, health = view.freshness(connection), view.health(connection)
    english = page.render(regions, [], [], datetime.now(UTC), (), health, "en")
    russian = page.render(regions, [], [], datetime.now(UTC), (), health, "ru")
    assert "1 of 3 regions work (2 red); data of 3 fresh" in english
    assert "Работают 1 из 3 регионов (не работает: 2); свежие данные от 3" in russian
    assert english.index("the disk is full: 3 MiB free") < english.index("Systems that work: 1")
    assert russian.index("диск заполнен: свободно 3 МиБ") < russian.index("Работающие системы: 1")
    assert english.count('class="card red"') == 2
    assert english.count('class="state green"') == 2, "chita, among the systems and among the regions"
    assert "the disk is full" not in russian
