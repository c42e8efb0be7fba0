"""The journal: states, revisions, and what survives."""

from __future__ import annotations

import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from outpost.records.journal import Added, Instance, Journal, JournalError, StudyRecord, utc_now


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3", "brain")


def instance(number: int, study: str = "1.2.3", digest: str = "same") -> Instance:
    return Instance(
        f"{study}.9.{number}", study, f"{study}.8", "1.2.840.1", "1.2.840.2", "MR", digest, 100, "CT1"
    )


def received(journal: Journal, number: int = 1, study: str = "1.2.3") -> StudyRecord:
    added, record = journal.add(instance(number, study))
    assert added is Added.NEW
    assert record is not None
    return record


def delivering(journal: Journal, study: str = "1.2.3") -> StudyRecord:
    row = received(journal, study=study).row
    journal.complete(row)
    journal.begin_inference(row)
    journal.begin_delivery(
        row,
        model="m",
        model_version="1",
        engine="e",
        precision="float32",
        rung="full",
        device="cpu",
        inference_seconds=1.5,
    )
    return journal.study(row)


def test_a_study_goes_its_way_and_every_step_is_dated_in_utc(journal: Journal) -> None:
    study = delivering(journal)
    assert (study.state, study.outcome, study.attempts, study.model) == ("delivering", "pending", 1, "m")
    journal.finish(study.row, "delivered")
    [ended] = journal.revisions("1.2.3")
    assert ended.outcome == "delivered"
    assert ended.completed_at is not None
    assert ended.finished_at is not None
    assert ended.received_at <= ended.completed_at <= ended.finished_at <= utc_now()
    assert ended.received_at.utcoffset() == timedelta(0)


def test_a_step_that_the_state_does_not_allow_changes_nothing(journal: Journal) -> None:
    row = received(journal).row
    with pytest.raises(JournalError, match="is receiving, not complete: it cannot become inferring"):
        journal.begin_inference(row)
    with pytest.raises(JournalError, match="is receiving, not delivering: it cannot become delivered"):
        journal.finish(row, "delivered")
    with pytest.raises(JournalError, match="is absent"):
        journal.complete(row + 1)
    assert journal.study(row).state == "receiving"


def test_no_study_ends_without_a_result_or_a_reason(journal: Journal) -> None:
    row = received(journal).row
    journal.complete(row)
    with pytest.raises(JournalError, match="without a reason code"):
        journal.finish(row, "rejected")
    with pytest.raises(JournalError, match="outcome 'lost' is none of"):
        journal.finish(row, "lost", "WHY")


def test_an_image_that_comes_while_the_study_waits_is_taken_into_it(journal: Journal) -> None:
    row = received(journal, 1).row
    journal.complete(row)
    study = received(journal, 2)
    assert (study.row, study.revision, study.state, study.instances, study.bytes) == (
        row,
        1,
        "receiving",
        2,
        200,
    )


def test_an_image_that_comes_later_opens_a_revision_with_all_images(journal: Journal) -> None:
    first = delivering(journal)
    second = received(journal, 2)
    assert (second.revision, second.state, second.instances, second.bytes) == (2, "receiving", 2, 200)
    assert journal.study(first.row).state == "delivering"
    assert [i.sop_uid for i in journal.instances("1.2.3", 1)] == ["1.2.3.9.1"]
    assert [i.sop_uid for i in journal.instances("1.2.3", 2)] == ["1.2.3.9.1", "1.2.3.9.2"]


def test_a_duplicate_changes_nothing_and_other_content_is_a_conflict(journal: Journal) -> None:
    study = received(journal)
    assert journal.add(instance(1))[0] is Added.DUPLICATE
    assert journal.add(instance(1, digest="other")) == (Added.CONFLICT, None)
    moved = Instance("1.2.3.9.1", "9.9.9", "1.2.3.8", "1", "2", "MR", "same", 100)
    assert journal.add(moved) == (Added.CONFLICT, None)
    assert journal.study(study.row) == study


def test_when_files_were_removed_a_known_image_sent_again_opens_a_revision_once(journal: Journal) -> None:
    journal.finish(delivering(journal).row, "delivered")
    second = received(journal, 2)
    journal.complete(second.row)
    journal.finish(second.row, "quarantined", "INSTANCES_REMOVED")
    added, third = journal.add(instance(1))
    assert added is Added.RESTORED
    assert third is not None
    assert (third.revision, third.instances) == (3, 2)
    assert journal.add(instance(2))[0] is Added.DUPLICATE


def test_marking_what_was_shipped_does_not_hide_a_change_made_meanwhile(journal: Journal) -> None:
    row = received(journal).row
    read = journal.unshipped(10)
    journal.complete(row)
    journal.mark_shipped(read)
    [again] = journal.unshipped(10)
    assert again.state == "complete"
    assert again.change > read[0].change
    journal.mark_shipped([again])
    assert journal.unshipped(10) == []
    journal.mark_shipped(read)  # late news of an older state
    assert journal.unshipped(10) == []


def test_unshipped_rows_come_in_the_order_of_their_last_change(journal: Journal) -> None:
    first, second = received(journal, study="1.1").row, received(journal, study="2.2").row
    journal.complete(first)
    assert [r.row for r in journal.unshipped(10)] == [second, first]
    assert [r.row for r in journal.unshipped(1)] == [second]


def test_a_revision_is_computed_only_after_the_one_before_it(journal: Journal) -> None:
    first = received(journal).row
    journal.complete(first)
    other = received(journal, study="1.2.4").row
    journal.complete(other)
    journal.begin_inference(first)
    late = received(journal, 2).row
    journal.complete(late)
    assert [study.row for study in journal.queued()] == [other]
    journal.return_to_queue(first, forget_attempt=True)
    assert [study.row for study in journal.queued()] == [first, other]
    journal.begin_inference(first)
    journal.finish(first, "rejected", "NO_SERIES_FOR_BUNDLE")
    assert [study.row for study in journal.queued()] == [other, late]


def test_all_is_there_after_closing_and_opening(journal: Journal) -> None:
    study = delivering(journal)
    journal.note_delivery(study.row, "a.dcm", "pacs", "no route")
    journal.note_delivery(study.row, "a.dcm", "pacs", None)
    journal.note_delivery(study.row, "a.dcm", "pacs", "sent needlessly")
    journal.close()
    again = Journal(journal.path, "brain")
    assert again.study(study.row) == study
    [attempt] = again.deliveries(study.row)
    assert (attempt.attempts, attempt.confirmed_at is not None) == (3, True)


def test_threads_together_lose_and_double_nothing(journal: Journal) -> None:
    def add(offset: int) -> None:
        for number in range(25):
            journal.add(instance(offset * 20 + number))  # neighbours overlap by five

    threads = [threading.Thread(target=add, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [study] = journal.revisions("1.2.3")
    assert study.instances == len(journal.instances("1.2.3", 1)) == 8 * 20 + 5
    assert journal.instances_received() == 165


def test_every_commit_waits_for_the_disk(journal: Journal) -> None:
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_journal_of_a_newer_release_is_left_alone(journal: Journal) -> None:
    journal.close()
    with sqlite3.connect(journal.path) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(
        JournalError, match="has schema 99, this release knows 5: install the release that wrote it"
    ):
        Journal(journal.path, "brain")


def test_the_release_before_finds_its_journal_when_a_new_one_is_taken_back(journal: Journal) -> None:
    """The first release's own statements on the file of this one, which opens it again afterwards."""
    journal.add(instance(1))
    journal.close()
    with sqlite3.connect(journal.path) as old:
        assert old.execute("PRAGMA user_version").fetchone()[0] == 1, "which the first release takes"
        old.execute(
            "INSERT INTO studies (study_uid, revision, modality, state, received_at, instances, bytes, change)"
            " VALUES ('9.9', 1, 'MR', 'receiving', '2026-01-01T00:00:00.000000+00:00', 0, 0, 99)"
        )
        old.execute(
            "INSERT INTO instances (sop_uid, study_uid, series_uid, sop_class, transfer_syntax, modality, digest,"
            " bytes, revision, source, received_at) VALUES ('9.9.1', '9.9', '9.8', '1', '1', 'MR', 'd', 1, 1, 'CT7',"
            " '2026-01-01T00:00:00.000000+00:00')"
        )
    again = Journal(journal.path, "brain")
    [record] = again.revisions("9.9")
    assert record.senders == ("CT7",)
    assert again.fact("schema") == "5"
    again.close()


def test_files_may_go_only_when_the_newest_revision_was_delivered_long_enough_ago(journal: Journal) -> None:
    first = delivering(journal)
    tomorrow = utc_now() + timedelta(days=1)
    assert journal.removable(tomorrow) == []
    journal.finish(first.row, "delivered")
    assert journal.removable(utc_now() - timedelta(hours=1)) == []
    assert [r.row for r in journal.removable(tomorrow)] == [first.row]
    second = received(journal, 2)
    assert journal.removable(tomorrow) == []
    journal.complete(second.row)
    journal.finish(second.row, "rejected", "WHY")
    assert journal.removable(tomorrow) == []
    journal.note_spool_removed(second)
    assert journal.removable(tomorrow) == []


def test_a_revision_that_opened_while_the_files_of_the_one_before_went_has_its_own_to_remove(
    journal: Journal,
) -> None:
    first = delivering(journal)
    journal.finish(first.row, "delivered")
    second = received(journal, 2)
    journal.note_spool_removed(first)
    journal.complete(second.row)
    journal.begin_inference(second.row)
    journal.begin_delivery(
        second.row, model="m", model_version="1", engine="e", precision="p", rung="full", device="cpu",
        inference_seconds=1.0,
    )  # fmt: skip
    journal.finish(second.row, "delivered")
    assert [r.row for r in journal.removable(utc_now() + timedelta(days=1))] == [second.row]


def test_counts_are_by_outcome_and_reason(journal: Journal) -> None:
    journal.finish(delivering(journal, "1.1").row, "delivered")
    rejected = received(journal, study="2.2").row
    journal.complete(rejected)
    journal.finish(rejected, "rejected", "SLICES_MISSING")
    waiting = received(journal, study="3.3")
    assert journal.outcomes() == {
        ("delivered", ""): 1,
        ("rejected", "SLICES_MISSING"): 1,
        ("pending", ""): 1,
    }
    assert journal.queue() == {"receiving": (1, waiting.received_at)}
