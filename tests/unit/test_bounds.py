"""What peers make grow has a bound, in the journal's tables, in memory, in drift's books and in the log."""

from __future__ import annotations

import io
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from outpost import logs
from outpost.drift.alarms import Alarm, bounded
from outpost.drift.book import ALL, MORE, OTHERS, Book
from outpost.drift.judge import Limits as JudgeLimits
from outpost.drift.judge import judge
from outpost.events import EventCode
from outpost.heal.salvage import salvage
from outpost.intake.assembly import Assembly
from outpost.intake.header import Header
from outpost.intake.refusal import Refusal
from outpost.intake.room import Room
from outpost.intake.waiting import Most, Waiting
from outpost.quarantine import shelf
from outpost.records.bounds import BATCH_ROWS, Limits, Pruner
from outpost.records.counts import MOST_SENDERS_OF_A_DAY, OTHER, refused, refused_after, refused_by_sender
from outpost.records.journal import Instance, Journal, utc_now
from outpost.turns import Turns

RUN = threading.Event()  # never set: nobody stops these
DAY = timedelta(days=1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    yield journal
    journal.close()


def instance(study: str, number: int = 1, source: str = "CT1", address: str = "10.0.0.1") -> Instance:
    return Instance(
        f"{study}.9.{number}",
        study,
        f"{study}.8",
        "1.2.840.1",
        "1.2.840.2",
        "MR",
        "d",
        100,
        source,
        "image",
        address,
    )


def pruned(journal: Journal, **limits: object) -> int:
    pruner = Pruner(journal, Limits(**limits))  # type: ignore[arg-type]  # a test names some of them
    try:
        return pruner.turn(RUN)
    finally:
        pruner.close()


def rows(journal: Journal, table: str) -> int:
    return int(journal.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])


# --- refused images ---


def refuse(
    journal: Journal, count: int, sender: str = "CT1", reason: str = "NOT_DICOM", gone: str = "quota"
) -> None:
    """So many of them; `gone`: why they have left quarantine, empty where they lie there."""
    now = utc_now().isoformat(timespec="microseconds")
    with journal.writing() as db:
        db.executemany(
            "INSERT INTO refused (at, reason, file, bytes, source, evicted_at, evicted_for, removed_at)"
            " VALUES (?, ?, ?, 10, ?, ?, ?, ?)",
            [(now, reason, f"quarantine/{reason}/x.dcm", sender, gone and now, gone, gone and now)] * count
            if gone
            else [(now, reason, f"quarantine/{reason}/x.dcm", sender, None, "", None)] * count,
        )


def counted(journal: Journal) -> tuple[object, ...]:
    """Everything that is told of refused images."""
    now = utc_now()
    return (
        journal.instances_refused(),
        refused(journal, now - DAY, now + DAY),
        refused_after(journal, 0),
        refused_by_sender(journal),
        [(one.reason, one.items, one.evicted) for one in shelf.by_reason(journal)],
    )


def test_rows_of_refused_images_leave_and_no_count_of_them_falls(journal: Journal) -> None:
    refuse(journal, 3 * BATCH_ROWS)
    refuse(journal, 30, "CT2", "UID_MISSING", gone="resubmitted")
    refuse(journal, 5, "CT2", gone="")
    before = counted(journal)
    assert pruned(journal, refused=100) == 3 * BATCH_ROWS + 30 - 100
    assert rows(journal, "refused") == 105
    assert counted(journal) == before
    refuse(journal, 200, "CT1")
    before = counted(journal)
    pruned(journal, refused=100)
    assert counted(journal) == before
    assert len(shelf.held(journal)) == 5, "what lies in quarantine stays, however old"


def test_who_names_itself_anew_each_time_is_named_so_often_a_day_and_no_count_of_others_changes(
    journal: Journal,
) -> None:
    refuse(journal, 4, "CT1")
    for number in range(3 * MOST_SENDERS_OF_A_DAY):
        refuse(journal, 2, f"NEW{number}")
        if number % 100 == 50:
            pruned(journal, refused=20)
    _, days = refused_after(journal, 0)
    told = {one.sender: one.instances for one in days}
    assert len(told) == MOST_SENDERS_OF_A_DAY + 1
    assert told["CT1"] == 4
    assert told["NEW0"] == 2
    assert told[OTHER] == 2 * (2 * MOST_SENDERS_OF_A_DAY + 1)
    pruned(journal, refused=0)
    assert rows(journal, "refused") == 0
    assert refused_after(journal, 0)[1] == days, "what the region's database was told stays true"
    assert rows(journal, "refused_gone") == MOST_SENDERS_OF_A_DAY + 1


def test_a_day_of_which_all_rows_left_before_they_were_shipped_is_shipped_all_the_same(
    journal: Journal,
) -> None:
    refuse(journal, 50)
    last, days = refused_after(journal, 0)
    pruned(journal, refused=0)
    assert refused_after(journal, 0) == (last, days)
    assert refused_after(journal, last) == (last, [])


def test_counts_of_what_left_are_in_a_journal_that_was_rebuilt(journal: Journal, tmp_path: Path) -> None:
    refuse(journal, 50)
    before = counted(journal)
    pruned(journal, refused=10)
    folder = tmp_path / "aside"
    folder.mkdir()
    journal.rescue(folder / "journal.sqlite3")
    healed = Journal(tmp_path / "healed.sqlite3", "brain")
    with healed.writing() as db:
        salvage(folder, db, lambda: None)
    assert counted(healed) == before
    healed.close()


def test_of_a_mass_that_leaves_quarantine_at_once_a_few_events_tell(journal: Journal, tmp_path: Path) -> None:
    from test_quarantine import Place  # its helper

    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place")
    for _ in range(120):
        place.refused(1, "JUNK")
    assert place.keeper(max_items=5).turn() == 115
    events = [event.detail for event in place.journal.events(1000)]
    assert len(events) == 51
    assert events[0] == "65 more at once: 65 from JUNK"
    place.journal.close()


# --- events, habits, transfers ---


def test_masses_of_one_event_push_out_none_of_another_code(journal: Journal) -> None:
    journal.note_event(EventCode.JOURNAL_REBUILT, "the first of all")
    with journal.writing() as db:
        db.executemany(
            "INSERT INTO events (at, code, detail) VALUES (?, 'RESULT_RETURNED', ?)",
            [(f"2026-01-01T00:00:00.{n:06}+00:00", str(n)) for n in range(2 * BATCH_ROWS + 40)],
        )
    pruned(journal, events_of_a_code=30)
    events = journal.events(1000)
    assert [event.detail for event in events[:2]] == [str(2 * BATCH_ROWS + 39), str(2 * BATCH_ROWS + 38)]
    assert len(events) == 31
    assert events[-1].detail == "the first of all"


def test_habits_of_senders_have_an_end_and_other_facts_stay(journal: Journal) -> None:
    journal.keep_fact("refused_shipped", "7")
    for number in range(50):
        journal.keep_fact(f"unreleased NEW{number}", "1")
    pruned(journal, habits=10)
    assert journal.fact("refused_shipped") == "7"
    assert journal.fact("unreleased NEW0") is None
    assert journal.fact("unreleased NEW49") == "1"
    assert rows(journal, "facts") == 12  # with the schema's


def broken(journal: Journal, study: str, source: str, number: int = 1) -> None:
    """A transfer that brings an image of a study and breaks off in the middle of the next."""
    journal.add_all([instance(study, number, source)], transfer=f"{source} {number}")
    journal.transfer_broke(f"{source} {number}", {study: f"of {source} broke off"}, "")


def ended(journal: Journal, study: str, at: str | None = None) -> None:
    [latest] = journal.revisions(study)
    if latest.state == "receiving":
        journal.complete(latest.row)
    journal.finish(latest.row, "rejected", "WHY")
    if at:
        with journal.writing() as db:
            db.execute("UPDATE studies SET finished_at = ? WHERE id = ?", (at, latest.row))


def test_a_study_of_which_transfers_break_off_without_end_keeps_a_few_and_is_still_one_of_part(
    journal: Journal,
) -> None:
    for number in range(60):
        broken(journal, "1.2", f"NEW{number}", number)
    assert rows(journal, "transfers") == 16
    [study] = journal.revisions("1.2")
    assert len(study.broken_off) == 16
    assert study.broken_off[-1] == "of NEW59 broke off"
    # One that ends well makes up for all of them, those that are not written down as well.
    journal.add_all([instance("1.2", 99)], transfer="whole")
    journal.transfer_released("whole")
    assert journal.revisions("1.2")[0].broken_off == ()
    assert rows(journal, "transfers") == 0


def test_transfers_of_studies_on_their_way_stay_and_of_those_that_ended_long_ago_go(journal: Journal) -> None:
    for study in ("1.1", "1.2", "1.3"):
        broken(journal, study, "CT1")
    long_ago = (utc_now() - 8 * DAY).isoformat(timespec="microseconds")
    lately = (utc_now() - 2 * DAY).isoformat(timespec="microseconds")
    ended(journal, "1.1", long_ago)
    ended(journal, "1.2", lately)
    assert pruned(journal) == 1
    assert [r["study_uid"] for r in journal.rows("SELECT study_uid FROM transfers")] == ["1.2", "1.3"]
    # Where there are too many, those that ended lately go as well; never of what is on its way.
    assert pruned(journal, transfers=1) == 1
    assert [r["study_uid"] for r in journal.rows("SELECT study_uid FROM transfers")] == ["1.3"]
    assert pruned(journal, transfers=0) == 0


def test_one_association_that_never_ends_is_remembered_with_so_many_studies(journal: Journal) -> None:
    assembly = Assembly(journal, 5)
    transfer = assembly.transfer("JUNK")
    for number in range(10_500):
        transfer.took(Header(f"1.{number}", "1.9", f"1.{number}.1", "1.2", "1.2", "MR", ""), None)
        transfer.refused(f"1.{number}.2", Refusal.NOT_DICOM)
    assert len(transfer._sent) == len(transfer._refused) == 10_000
    assert transfer._forgotten == {"NOT_DICOM": 500}
    # What did not open a study of its own is no image that those lack which it did bring.
    transfer.refused("1.2.3", Refusal.TOO_MANY_STUDIES, "2.5")
    assert "1.2.3" not in transfer._refused


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("SELECT id FROM refused WHERE removed_at IS NOT NULL ORDER BY id LIMIT 9", "refused_removed"),
        ("SELECT at FROM events WHERE code = 'X' ORDER BY at DESC LIMIT 1 OFFSET 9", "events_by_code"),
        ("SELECT 1 FROM events WHERE code = 'X' AND at >= '2026'", "events_by_code"),
        ("SELECT * FROM transfers WHERE broken_after IS NULL", "transfers_open"),
        ("SELECT day FROM refused_gone WHERE last > 5", "refused_gone_by_last"),
    ],
)
def test_what_is_looked_for_at_each_turn_or_start_is_found_by_an_index(
    journal: Journal, question: str, index: str
) -> None:
    plan = " ".join(row["detail"] for row in journal.rows(f"EXPLAIN QUERY PLAN {question}"))
    assert index in plan, plan
    assert "TEMP B-TREE" not in plan, plan


# --- studies that wait ---


def take(journal: Journal, waiting: Waiting, *instances: Instance) -> list[str]:
    answers = waiting.admit(instances)
    journal.add_all([one for one, refused in zip(instances, answers, strict=True) if refused is None])
    return [refused.refusal.name if refused else "" for refused in answers]


def test_a_pacs_that_sends_a_day_of_studies_again_is_not_refused(journal: Journal) -> None:
    most = Most.of(20_000, 0, 50_000)  # as configured where nothing is
    assert (most.per_sender, most.per_address) == (10_000, 15_000)
    waiting = Waiting(journal, most)
    for start in range(0, 5000, 500):
        many = [instance(f"1.{number}", source="PACS") for number in range(start, start + 500)]
        assert take(journal, waiting, *many) == [""] * 500


def test_what_is_computed_makes_room_and_a_batch_is_counted_once(journal: Journal) -> None:
    waiting = Waiting(journal, Most.of(8, 4, 100))
    several = [instance("1.1", number) for number in range(9)]
    assert take(journal, waiting, *several) == [""] * 9, "one study, however many images"
    assert take(journal, waiting, *(instance(f"1.{n}") for n in range(2, 8))) == [
        "",
        "",
        "",
        *["TOO_MANY_STUDIES"] * 3,
    ]
    ended(journal, "1.1")
    waiting._counted = None  # a second passes
    assert take(journal, waiting, instance("1.6")) == [""]
    # An image that comes late opens a revision, and waits as others do; one that is known opens none.
    assert take(journal, waiting, instance("1.1", 99)) == ["TOO_MANY_STUDIES"]
    assert take(journal, waiting, instance("1.1", 1)) == [""]
    assert take(journal, waiting, instance("1.6", 2)) == [""]
    # What is to be computed again, as an administrator says, is taken whatever waits.
    journal.want(journal.revisions("1.1")[-1].row)
    assert take(journal, waiting, instance("1.1", 1)) == [""]
    assert journal.revisions("1.1")[-1].revision == 2


def test_a_revision_counts_for_who_opened_it(journal: Journal) -> None:
    waiting = Waiting(journal, Most.of(8, 4, 100))
    take(journal, waiting, instance("1.1"))
    ended(journal, "1.1")
    take(journal, waiting, instance("1.1", 2, "CT2", "10.0.0.2"))
    assert journal.uncomputed() == {("10.0.0.2", "CT2"): 1}


# --- the disk ---


def test_thousands_of_small_files_close_intake_before_the_file_system_has_no_inode_left(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=100", "tmpfs", str(disk)], check=True)
    try:
        room = Room(disk, 1, 90)
        assert not room.closed()
        for number in range(95):
            (disk / str(number)).touch()
        assert room.closed(), "bytes are free, inodes are not"
        for number in range(50):
            (disk / str(number)).unlink()
        assert not room.closed()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- drift ---


def test_senders_of_a_window_are_labels_and_so_many_of_them_at_the_most() -> None:
    part = "chita/brain/2026-01-01"
    reference, window = Book(), Book()
    for _ in range(60):
        reference.add(part, "CT1", {"Modality": "CT"})
        window.add(part, "CT1", {"Modality": "CT"})
    for number in range(300):
        for _ in range(100):
            window.add(part, f"NEW{number}", {"Modality": "MR"})
    found = {finding.sender for finding in judge(reference, window, JudgeLimits(min_sample=50))}
    assert len(found) == 66
    assert {"CT1", OTHERS, ALL} <= found, "who is known is named, however little it sends"
    assert window.with_senders(2, reference.senders).observations == window.observations


def test_a_day_keeps_no_more_values_apart_than_it_may_and_counts_them_all() -> None:
    part, book = "chita/brain/2026-01-01", Book()
    book.add(part, "CT1", {"Manufacturer": "MAKER", "KVP": 120.0})
    before = book.cells
    for number in range(50):
        book.add(part, "CT1", book.known("CT1", {"Manufacturer": f"M{number}", "KVP": 2.0**number}))
    assert book.cells == before + 1
    sketch = book.senders["CT1"]["Manufacturer"]
    assert dict(sketch.cells) == {"MAKER": (1, "MAKER"), MORE: (50, MORE)}
    assert book.observations == 51


def alarm(sender: str, raised: date, effect: float = 0.5) -> Alarm:
    return Alarm(sender, "Modality", "values", raised, raised, "t", 1.0, 0.0, effect, "a", "b")


def test_alarms_of_senders_that_are_gone_end_before_there_are_too_many() -> None:
    day = date(2026, 1, 1)
    held = {one.key: one for one in [alarm(f"OLD{n}", day + n * DAY) for n in range(5)]}
    begun = [alarm("CT1", day + 9 * DAY, 0.3), alarm("CT2", day + 9 * DAY, 0.9)]
    assert bounded(held, begun, {"OLD0"}, day, 100) == begun
    changed = bounded(held, begun, {"OLD0", "OLD3", "OLD4"}, day + 9 * DAY, 5)
    assert [(one.sender, one.ended_on is None) for one in changed] == [
        ("OLD1", False),
        ("OLD2", False),
        ("CT2", True),
        ("CT1", True),
    ]
    changed = bounded(held, begun, {sender for sender, _, _ in held}, day, 6)
    assert [one.sender for one in changed] == ["CT2"], "of those that begin, what differs most"


# --- the log ---


def test_a_message_has_so_many_lines_a_minute_and_the_next_says_how_many_were_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    monkeypatch.setattr(logs, "_MINUTE_SECONDS", 3600.0)
    try:
        logs.configure(stream=stream)
        log = logging.getLogger("outpost.test")
        for number in range(1000):
            log.warning("%s broke off", f"NEW{number}")
        log.error("another message %d", 1)
        assert stream.getvalue().count("broke off") == 600
        assert "another message 1" in stream.getvalue()
        monkeypatch.setattr(logs, "_MINUTE_SECONDS", 0.0)
        log.warning("%s broke off", "100 %s")
        assert (
            stream.getvalue()
            .splitlines()[-1]
            .endswith("100 %s broke off (400 more like it since the last line)")
        )
    finally:
        root.handlers[:] = before
        root.setLevel(level)


# --- turns ---


def complete(journal: Journal, study: str, source: str, address: str) -> int:
    journal.add(instance(study, 1, source, address))
    row = journal.revisions(study)[0].row
    journal.complete(row)
    return row


def turns_of(journal: Journal, count: int) -> list[str]:
    """Who is computed next, so many times; what is computed is out of the queue."""
    turns, order = Turns(journal), []
    for _ in range(count):
        study = turns.oldest_of_each((), 16)[0]
        turns.took(study)
        order.append(study.study_uid)
        journal.begin_inference(study.row)
    return order


def test_ten_thousand_studies_of_one_sender_put_off_those_of_another_by_one(journal: Journal) -> None:
    with journal.writing() as db:
        db.executemany(
            "INSERT INTO studies (study_uid, revision, state, received_at, change, opened_by, opened_from)"
            " VALUES (?, 1, 'complete', '2026-01-01T00:00:00+00:00', ?, 'JUNK', '10.0.0.9')",
            [(f"7.{number}", number) for number in range(10_000)],
        )
    complete(journal, "1.1", "CT1", "10.0.0.1")
    complete(journal, "1.2", "CT1", "10.0.0.1")
    complete(journal, "2.1", "MR1", "10.0.0.2")
    begun = time.monotonic()
    assert turns_of(journal, 6) == ["7.0", "1.1", "2.1", "7.1", "1.2", "7.2"]
    assert time.monotonic() - begun < 2, "of what a study takes, next to nothing"
    assert journal.queued_of_each({4}) == [("10.0.0.9", "JUNK", 5)], "what somebody has is nobody else's"


def test_who_names_itself_anew_each_time_shares_one_turn_with_who_else_is_new_at_its_address(
    journal: Journal,
) -> None:
    for number in range(50):
        complete(journal, f"7.{number}", f"NEW{number}", "10.0.0.9")
    for number in range(4):
        complete(journal, f"1.{number}", "CT1", "10.0.0.9")
    turns = Turns(journal)
    turns.took(journal.revisions("1.0")[0])  # it had one before
    order = []
    for _ in range(6):
        study = turns.oldest_of_each((), 16)[0]
        turns.took(study)
        order.append(study.study_uid[0])
        journal.begin_inference(study.row)
    assert order.count("1") == 3
