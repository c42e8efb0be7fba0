"""The recorder between a real journal and a real Postgres: nothing lost or twice, nothing of the patient."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from postgres_cluster import READER_PASSWORD, RECORDER_PASSWORD, Region, the_fleet

from outpost.codes.notes import NOTES, Note
from outpost.config import Records
from outpost.records.journal import _MIGRATIONS, _SCHEMA, Instance, Journal, StudyRecord, utc_now
from outpost.records.recorder import Recorder, study_key

UID_KEY = "the region's own key"


@pytest.fixture
def region() -> Iterator[Region]:
    fleet = the_fleet()
    fleet.reset()
    region = fleet.regions["chita"]
    yield region
    if not (region.cluster.data / "postmaster.pid").exists():
        region.cluster.start()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    yield journal
    journal.close()


def settings(region: Region) -> Records:
    return Records.model_validate(
        {
            "host": region.cluster.host,
            "port": region.cluster.port,
            "password": RECORDER_PASSWORD,
            "uid_key": UID_KEY,
        }
    )


def receive(
    journal: Journal, study_uid: str, instances: int = 2, modality: str = "MR", first: int = 0
) -> StudyRecord:
    for number in range(first, first + instances):
        _, record = journal.add(
            Instance(
                f"{study_uid}.{number}",
                study_uid,
                f"{study_uid}.9",
                "1.2",
                "1.2.1",
                modality,
                f"d{number}",
                100,
            )
        )
    assert record is not None
    return record


def deliver(journal: Journal, record: StudyRecord, notes: Sequence[Note] = ()) -> None:
    journal.complete(record.row)
    journal.begin_inference(record.row)
    journal.begin_delivery(
        record.row,
        model="brain_extraction",
        model_version="1.0.2",
        engine="torch",
        precision="float32",
        rung="full",
        device="cpu",
        inference_seconds=3.4,
        notes=notes,
    )
    journal.finish(record.row, "delivered")


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_the_rows_carry_the_outcome_and_no_trace_of_the_patient(region: Region, journal: Journal) -> None:
    deliver(journal, receive(journal, "1.2.643.111", instances=3))
    bad = receive(journal, "1.2.643.222", modality="IVANOV")
    journal.complete(bad.row)
    journal.finish(
        bad.row, "rejected", "NO_SERIES_FOR_BUNDLE", detail="patient IVANOV^IVAN of 1961 has no series"
    )

    assert Recorder(journal, settings(region), "0.1.0").ship() == 2

    rows = {row["study_key"]: row for row in region.exported()}
    delivered = rows[study_key(UID_KEY, "1.2.643.111")]
    assert (delivered["outcome"], delivered["instances"], delivered["model"]) == (
        "delivered",
        3,
        "brain_extraction",
    )
    assert (delivered["rung"], delivered["region"], delivered["inference_seconds"]) == ("full", "chita", 3.4)
    rejected = rows[study_key(UID_KEY, "1.2.643.222")]
    assert (rejected["outcome"], rejected["reason"], rejected["modality"]) == (
        "rejected",
        "NO_SERIES_FOR_BUNDLE",
        None,
    )
    everything = str(region.exported())
    for trace in ("1.2.643", "IVANOV", "IVAN", "1961"):
        assert trace not in everything
    assert journal.unshipped(10) == []


def test_notes_are_shipped_by_their_codes_and_never_with_a_detail(region: Region, journal: Journal) -> None:
    notes = {
        "1.2.643.1": [],
        "1.2.643.2": [Note("STUDY_PARTIAL", "126 of 181 of IVANOV^IVAN"), Note("STUDY_PARTIAL", "again")],
        "1.2.643.3": [Note("PIXELS_UNSURE", "IVANOV"), Note("RESULT_DOUBTFUL", "IVANOV 1961")],
        "1.2.643.4": [Note("Ivanov Ivan 1961"), Note("OBJECT_LEFT_OUT", "IVANOV^IVAN.dcm")],
        "1.2.643.5": [Note(code, "1961") for code in NOTES],
    }
    for study_uid, said in notes.items():
        deliver(journal, receive(journal, study_uid), said)

    recorder = Recorder(journal, settings(region), "0.1.0")
    assert recorder.ship() == len(notes)
    recorder.stop()

    rows = {row["study_key"]: row for row in region.exported()}

    def said_of(study_uid: str) -> tuple[object, object, object]:
        row = rows[study_key(UID_KEY, study_uid)]
        return row["notes"], row["partial"], row["doubtful"]

    assert said_of("1.2.643.1") == ([], False, False)
    assert said_of("1.2.643.2") == (["STUDY_PARTIAL"], True, False)
    assert said_of("1.2.643.3") == (["PIXELS_UNSURE", "RESULT_DOUBTFUL"], False, True)
    assert said_of("1.2.643.4") == (["OBJECT_LEFT_OUT"], False, False)
    assert said_of("1.2.643.5") == (list(map(str, NOTES)), True, True)
    with region.cluster.superuser("outpost") as me:
        everything = str(me.execute("SELECT * FROM outpost.studies").fetchall())
    for trace in ("IVAN", "Ivan", ".dcm", "again"):  # no digits: they stand in hashes and times
        assert trace not in everything


def test_a_result_that_was_lost_and_then_not_made_again_says_nothing(
    region: Region, journal: Journal
) -> None:
    row = receive(journal, "1.2.643.1").row
    journal.complete(row)
    journal.begin_inference(row)
    journal.begin_delivery(
        row, model="m", model_version="1", engine="torch", precision="float32", rung="full", device="cpu",
        inference_seconds=1.0, notes=[Note("STUDY_PARTIAL", "126 of 181")],
    )  # fmt: skip
    recorder = Recorder(journal, settings(region), "0.1.0")
    recorder.ship()
    assert [(r["outcome"], r["notes"], r["partial"]) for r in region.exported()] == [
        ("pending", ["STUDY_PARTIAL"], True)
    ]
    journal.recompute(row)  # the outbox lost it
    recorder.ship()
    journal.begin_inference(row)
    journal.finish(row, "quarantined", "STUDY_INCOMPLETE", "126 of 181")
    recorder.ship()
    recorder.stop()
    assert [(r["outcome"], r["notes"], r["partial"]) for r in region.exported()] == [
        ("quarantined", [], False)
    ]


def test_a_journal_of_the_release_before_has_no_notes_and_ships_none(region: Region, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.sqlite3")) as db:  # as the release of schema 3 left it
        db.executescript(_SCHEMA + _MIGRATIONS[2] + _MIGRATIONS[3])
        db.execute("INSERT INTO facts VALUES ('schema', '3')")
        db.execute(
            "INSERT INTO studies (study_uid, revision, modality, state, received_at, finished_at, change)"
            " VALUES ('1.2.3', 1, 'MR', 'delivered', ?1, ?1, 1)",
            (utc_now().isoformat(timespec="microseconds"),),
        )
        db.execute("PRAGMA user_version = 1")
        db.commit()
    journal = Journal(tmp_path / "old.sqlite3", "brain")
    recorder = Recorder(journal, settings(region), "0.1.0")
    assert recorder.ship() == 1
    recorder.stop()
    journal.close()
    assert [(row["notes"], row["partial"], row["doubtful"]) for row in region.exported()] == [
        ([], False, False)
    ]


def test_reasons_are_counted_by_day_system_sender_and_modality_however_often_they_are_shipped(
    region: Region, journal: Journal
) -> None:
    for number, sender in enumerate(["CT2", "CT2", "CT1", "KANAREYKA^IVAN\n"]):
        study = f"1.2.643.{number}"
        _, record = journal.add(
            Instance(f"{study}.1", study, f"{study}.9", "1.2", "1.2.1", "CT", "d", 1, sender)
        )
        assert record is not None
        journal.complete(record.row)
        journal.finish(record.row, "rejected", "LOCALIZER", "KANAREYKA")
    deliver(journal, receive(journal, "1.2.643.9"))
    for sender in ("CT2", "CT2", "KANAREYKA^IVAN\n", "TOO LONG FOR AN AE TITLE"):
        journal.refuse("NOT_DICOM", "quarantine/NOT_DICOM/KANAREYKA.dcm", 10, sender)

    def counted() -> dict[tuple[object, ...], object]:
        with region.cluster.login("outpost", "outpost_recorder", RECORDER_PASSWORD) as connection:
            rows = connection.execute("SELECT * FROM outpost.reasons_by_sender").fetchall()
        assert {(row["day"], row["system"]) for row in rows} == {(utc_now().date(), "brain")}
        keys = ("sender", "modality", "unit", "outcome", "reason")
        return {tuple(row[key] for key in keys): row["count"] for row in rows}

    recorder = Recorder(journal, settings(region), "0.1.0")
    recorder.ship()
    wanted = {
        ("CT2", "CT", "study", "rejected", "LOCALIZER"): 2,
        ("CT1", "CT", "study", "rejected", "LOCALIZER"): 1,
        ("", "CT", "study", "rejected", "LOCALIZER"): 1,
        ("", "MR", "study", "delivered", None): 1,
        ("CT2", None, "instance", "refused", "NOT_DICOM"): 2,
        ("", None, "instance", "refused", "NOT_DICOM"): 2,
    }
    assert counted() == wanted
    assert recorder.ship() == 0
    # A crash between the commit and the note of it: all is shipped once more.
    journal.keep_fact("refused_shipped", None)
    journal.refuse("UID_MISSING", "quarantine/UID_MISSING/x.dcm", 10, "CT2")
    Recorder(journal, settings(region), "0.1.0").ship()
    assert counted() == wanted | {("CT2", None, "instance", "refused", "UID_MISSING"): 1}
    with region.cluster.superuser("outpost") as me:
        everything = str(me.execute("SELECT * FROM outpost.studies").fetchall())
        everything += str(me.execute("SELECT * FROM outpost.refused_instances").fetchall())
    for trace in ("1.2.643", "KANAREYKA", "IVAN", ".dcm", "TOO LONG"):
        assert trace not in everything


def test_the_pseudonym_depends_on_the_key_and_is_the_documented_hmac() -> None:
    # RFC 4231, test case 2: key "Jefe".
    assert study_key("Jefe", "what do ya want for nothing?") == "5bdcc146bf60754e6a042426089575c7"
    assert study_key("another", "1.2.3") != study_key("key", "1.2.3")


def test_a_crash_between_commit_and_mark_ships_again_and_changes_nothing(
    region: Region, tmp_path: Path
) -> None:
    class DiesOnce(Journal):
        def mark_shipped(self, records: Sequence[StudyRecord]) -> None:
            raise SystemExit("the process dies here")

    path = tmp_path / "journal.sqlite3"
    dying = DiesOnce(path, "brain")
    deliver(dying, receive(dying, "1.2.3"))
    with pytest.raises(SystemExit):
        Recorder(dying, settings(region), "0.1.0").ship()
    dying.close()
    before = region.exported()
    assert len(before) == 1

    journal = Journal(path, "brain")
    assert len(journal.unshipped(10)) == 1
    assert Recorder(journal, settings(region), "0.1.0").ship() == 1

    assert region.exported() == before, "same row, same place in the order"
    assert journal.unshipped(10) == []
    journal.close()


def test_while_postgres_is_down_the_journal_keeps_the_rows_and_they_arrive_afterwards(
    region: Region, journal: Journal
) -> None:
    region.cluster.stop("immediate")
    recorder = Recorder(journal, settings(region), "0.1.0")
    recorder.start()
    try:
        began = time.monotonic()
        deliver(journal, receive(journal, "1.2.3"))
        assert time.monotonic() - began < 0.5, "the clinical path does not wait"
        until(lambda: recorder.consecutive_failures)
        assert recorder.failing_since is not None
        assert recorder.last_error is not None
        assert "refused" in recorder.last_error
        assert recorder.is_alive()
        assert len(journal.unshipped(10)) == 1

        region.cluster.start()
        until(lambda: journal.unshipped(10) == [])
        until(lambda: recorder.last_error is None)
        assert recorder.failing_since is None
        assert recorder.shipped_total == 1
        assert [row["outcome"] for row in region.exported()] == ["delivered"]
    finally:
        recorder.stop()
    assert not recorder.is_alive()


def test_a_session_that_postgres_ends_is_replaced_by_a_new_one(region: Region, journal: Journal) -> None:
    recorder = Recorder(journal, settings(region), "0.1.0")
    receive(journal, "1.2.3")
    assert recorder.ship() == 1
    region.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'outpost_recorder'"
    )
    receive(journal, "1.2.4")
    with pytest.raises(psycopg.OperationalError):
        recorder.ship()
    assert len(journal.unshipped(10)) == 1, "not marked as shipped"
    assert recorder.ship() == 1
    recorder.stop()


def test_a_row_postgres_refuses_stays_in_the_journal_and_holds_up_no_other(
    region: Region, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    bad = receive(journal, "1.2.643.5")
    journal.complete(bad.row)
    journal.finish(bad.row, "quarantined", "free text of IVANOV")
    deliver(journal, receive(journal, "1.2.643.6"))
    recorder = Recorder(journal, settings(region), "0.1.0")

    assert recorder.ship() == 1
    assert recorder.ship() == 0, "the refused row is not tried for ever"
    assert recorder.refused_rows == 1
    assert [record.study_uid for record in journal.unshipped(10)] == ["1.2.643.5"]
    assert [row["study_key"] for row in region.exported()] == [study_key(UID_KEY, "1.2.643.6")]
    assert "Postgres refuses journal row" in caplog.text
    assert "IVANOV" not in caplog.text
    assert "1.2.643" not in caplog.text

    receive(journal, "1.2.643.5", instances=1, first=7)  # revision 2 is another row, and is fine
    assert recorder.ship() == 1
    recorder.stop()


def test_a_count_postgres_refuses_holds_up_neither_studies_nor_other_counts(
    region: Region, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(journal, receive(journal, "1.2.643.6"))
    for reason in ("UID_MISSING", "free text of IVANOV", "NOT_DICOM"):
        journal.refuse(reason, "quarantine/x.dcm", 10, "CT2")
    recorder = Recorder(journal, settings(region), "0.1.0")

    def counted() -> list[tuple[object, object]]:
        with region.cluster.superuser("outpost") as me:
            rows = me.execute("SELECT reason, instances FROM outpost.refused_instances ORDER BY 1").fetchall()
        return [(row["reason"], row["instances"]) for row in rows]

    assert recorder.ship() == 1
    assert counted() == [("NOT_DICOM", 1), ("UID_MISSING", 1)]
    assert recorder.refused_rows == 1
    told = caplog.text
    assert "Postgres refuses a count of refused images of" in told
    assert "IVANOV" not in told
    assert recorder.ship() == 0
    assert caplog.text == told, "the refused count is not tried for ever"

    journal.refuse("NOT_DICOM", "quarantine/y.dcm", 10, "CT2")
    receive(journal, "1.2.643.7")
    assert recorder.ship() == 1
    assert counted() == [("NOT_DICOM", 2), ("UID_MISSING", 1)]
    recorder.stop()


def test_rows_shipped_again_by_a_later_release_keep_the_release_their_study_ended_under(
    region: Region, journal: Journal
) -> None:
    deliver(journal, receive(journal, "1.2.3"))
    under_way = receive(journal, "1.2.4")
    recorder = Recorder(journal, settings(region), "0.1.0")
    recorder.ship()
    recorder.stop()
    before = {row["study_key"]: row for row in region.exported()}

    with journal.writing() as db:
        db.execute("UPDATE studies SET shipped_change = 0")  # as a migration does
    deliver(journal, under_way)
    later = Recorder(journal, settings(region), "0.2.0")
    assert later.ship() == 2
    later.stop()
    after = {row["study_key"]: row for row in region.exported()}
    old, new = study_key(UID_KEY, "1.2.3"), study_key(UID_KEY, "1.2.4")
    assert after[old] == before[old], "nothing of it changed, and so the centre need not read it again"
    assert (before[new]["release"], after[new]["release"]) == ("0.1.0", "0.2.0")


def test_a_late_instance_ships_as_a_second_revision(region: Region, journal: Journal) -> None:
    deliver(journal, receive(journal, "1.2.3", instances=2))
    recorder = Recorder(journal, settings(region), "0.1.0")
    recorder.ship()
    receive(journal, "1.2.3", instances=1, first=2)
    recorder.ship()
    recorder.stop()
    assert [(row["revision"], row["instances"] is not None, row["outcome"]) for row in region.exported()] == [
        (1, True, "delivered"),
        (2, True, "pending"),
    ]


def test_a_reader_by_watermark_misses_no_row_while_two_recorders_write(
    region: Region, tmp_path: Path
) -> None:
    studies = 150
    recorders: list[Recorder] = []
    journals: list[Journal] = []

    def fill(journal: Journal) -> None:
        for number in range(studies):
            record = receive(journal, f"1.2.{number}", instances=1)
            if number % 3 == 0:
                deliver(journal, record)

    for system in ("brain", "lungs"):
        journals.append(Journal(tmp_path / f"{system}.sqlite3", system))
        recorders.append(Recorder(journals[-1], settings(region), "0.1.0"))

    def ship_for_ever(recorder: Recorder) -> None:
        while not done.is_set():
            recorder.ship()

    done = threading.Event()
    threads = [threading.Thread(target=fill, args=(journal,)) for journal in journals]
    threads += [threading.Thread(target=ship_for_ever, args=(recorder,)) for recorder in recorders]
    seen: dict[tuple[object, object, object], dict[str, object]] = {}
    mark, reads = 0, 0
    with region.cluster.login("outpost", "fleet_reader", READER_PASSWORD) as reader:
        for thread in threads:
            thread.start()
        try:
            while True:
                settled = not any(t.is_alive() for t in threads[:2]) and not any(
                    j.unshipped(1) for j in journals
                )
                rows = reader.execute(
                    "SELECT * FROM fleet_export.studies_v2 WHERE seq > %s", (mark,)
                ).fetchall()
                for row in rows:
                    seen[row["system"], row["study_key"], row["revision"]] = row
                    mark = max(mark, int(str(row["seq"])))
                reads += bool(rows)
                if settled:
                    break
        finally:
            done.set()
            for thread in threads:
                thread.join()
    for recorder, journal in zip(recorders, journals, strict=True):
        recorder.stop()
        journal.close()

    wanted = {(row["system"], row["study_key"], row["revision"]): row for row in region.exported()}
    assert len(wanted) == 2 * studies
    assert reads > 10, "the reader really read while the others wrote"
    assert seen == wanted
