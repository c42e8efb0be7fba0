"""Quarantine: what may leave it, in which order, and what a kill between any two steps leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

import outpost.records.journal as journal_module
from outpost.config import Quarantine
from outpost.events import EventCode
from outpost.intake.refusal import Refusal
from outpost.intake.room import Room
from outpost.intake.spool import Spool
from outpost.quarantine import shelf
from outpost.quarantine.again import CannotResubmit, resubmit
from outpost.quarantine.quota import QuotaKeeper
from outpost.records.journal import Added, Instance, Journal, StudyRecord, utc_now

MIB = 1 << 20
MUCH = {"max_mib": 10_000, "max_items": 1000, "disk_percent": 100}


class Place:
    """A storage with a journal; opened again after a death."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = Journal(root / "journal.sqlite3", "brain")
        self.spool = Spool(root, self.journal, reserve_mib=0)

    def received(self, study: str, images: int = 2, size: int = MIB, sender: str = "CT1") -> StudyRecord:
        self.spool.folder(study).mkdir(exist_ok=True)
        record = None
        start = len(self.journal.instances(study, 99))
        for number in range(start, start + images):
            uid = f"{study}.{number}"
            (self.spool.folder(study) / f"{uid}.dcm").write_bytes(bytes(size))
            _, record = self.journal.add(
                Instance(uid, study, f"{study}.9", "1.2", "1.2.1", "CT", uid, size, sender)
            )
        assert record is not None
        return record

    def rejected(self, study: str, reason: str = "LOCALIZER", images: int = 2, **how: object) -> StudyRecord:
        record = self.received(study, images, **how)  # type: ignore[arg-type]
        self.journal.complete(record.row)
        self.end(record, reason)
        return self.journal.study(record.row)

    def end(self, record: StudyRecord, reason: str) -> None:
        kept = self.spool.quarantine_study(record, reason)
        self.journal.finish(record.row, "rejected", reason, "", kept)
        self.spool.remove_study(record)

    def refused(self, size: int = MIB, sender: str = "CT1") -> None:
        arrived = self.spool.incoming / "x.dcm"
        arrived.write_bytes(bytes(size))
        self.spool.put_aside(arrived, Refusal.NOT_DICOM, sender)
        arrived.unlink()

    def keeper(self, **quota: object) -> QuotaKeeper:
        return QuotaKeeper(Quarantine.model_validate(MUCH | quota), self.journal, self.spool)

    def held(self) -> list[str]:
        return [one.item.item for one in shelf.held(self.journal)]

    def on_disk(self) -> set[str]:
        return {path.name for path in self.spool.quarantine.rglob("*.dcm")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_oldest_of_a_reason_leave_until_its_number_and_its_bytes_fit(place: Place) -> None:
    for number in range(5):
        place.rejected(f"1.{number}")
    place.rejected("2.1", "PHANTOM")
    keeper = place.keeper(reasons=[{"reason": "LOCALIZER", "max_mib": 100, "max_items": 4}])
    assert keeper.turn() == 1
    assert place.held() == ["study-2", "study-3", "study-4", "study-5", "study-6"]
    keeper = place.keeper(reasons=[{"reason": "LOCALIZER", "max_mib": 5, "max_items": 4}])
    assert keeper.turn() == 2
    assert place.held() == ["study-4", "study-5", "study-6"]
    assert {name.rpartition(".")[0][:3] for name in place.on_disk()} == {"1.3", "1.4", "2.1"}
    assert keeper.turn() == 0


def test_all_reasons_together_keep_to_their_share_of_the_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.refused()
    place.rejected("1.1")
    place.rejected("2.1", "PHANTOM")
    monkeypatch.setattr(
        "outpost.quarantine.quota.shutil.disk_usage", lambda _path: type("Disk", (), {"total": 40 * MIB})
    )
    assert place.keeper(disk_percent=10).turn() == 1
    assert place.held() == ["study-1", "study-2"]
    assert place.keeper(disk_percent=5).turn() == 1
    assert place.held() == ["study-2"]


def test_the_newest_of_a_reason_stays_for_a_person_to_see_even_if_it_is_too_large(place: Place) -> None:
    place.rejected("1.1", images=3)
    assert place.keeper(max_mib=1).turn() == 0
    place.rejected("1.2", images=3)
    assert place.keeper(max_mib=1).turn() == 1
    assert place.held() == ["study-2"]


def test_a_study_on_its_way_again_is_left_alone_and_so_is_every_result(place: Place) -> None:
    outbox = place.root / "outbox" / "1"
    outbox.mkdir(parents=True)
    (outbox / "result.dcm").write_bytes(b"a result")
    first = place.rejected("1.1")
    place.rejected("1.2")
    place.rejected("1.3")
    place.received("1.1", images=1)  # a late image: revision 2 needs what quarantine holds
    keeper = place.keeper(max_items=1)
    assert keeper.turn() == 1
    assert place.held() == ["study-1", "study-3"]
    assert not shelf.evict(place.journal, shelf.find(place.journal, f"study-{first.row}"), "quota")
    second = place.journal.revisions("1.1")[-1]
    assert len(place.spool.files(second)) == 3
    assert (outbox / "result.dcm").exists()


def test_what_leaves_is_written_down_by_reason_and_sender_and_counted(place: Place) -> None:
    place.rejected("1.2.643.777", sender="CT2")
    place.rejected("1.2")
    place.keeper(max_items=1).turn()
    [event] = place.journal.events()
    assert event.code == EventCode.QUARANTINE_EVICTED
    assert event.detail == f"study-1: LOCALIZER, 2.0 MiB, of {utc_now():%Y-%m-%d}, from CT2"
    [count] = shelf.by_reason(place.journal)
    assert (count.reason, count.items, count.bytes, count.evicted) == ("LOCALIZER", 1, 2 * MIB, 1)
    gone = shelf.find(place.journal, "study-1")
    assert gone.evicted_at is not None
    assert gone.removed_at is not None
    assert [item.item for item in shelf.listed(place.journal)] == ["study-2"]
    assert [item.item for item in shelf.listed(place.journal, gone=True)] == ["study-2", "study-1"]


def test_images_that_two_revisions_share_count_once(place: Place) -> None:
    first = place.rejected("1.1", "SLICES_MISSING")
    resubmit(place.journal, place.spool, None, f"study-{first.row}")
    second = place.journal.revisions("1.1")[-1]
    place.spool.files(second)
    place.end(second, "SLICES_UNEVEN")
    assert {c.reason: c.bytes for c in shelf.by_reason(place.journal)} == {
        "SLICES_MISSING": 0,
        "SLICES_UNEVEN": 2 * MIB,
    }
    assert len({path.stat().st_ino for path in place.spool.quarantine.rglob("*.dcm")}) == 2


def test_a_reason_without_a_quota_of_its_own_has_the_common_one_and_a_mistyped_one_is_told(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    own = [{"reason": name, "max_mib": 1, "max_items": 2} for name in ("NOT_DICOM", "NOT_DIKOM", "SITE_OWN")]
    place.keeper(reasons=own)
    assert [record.args for record in caplog.records] == [("NOT_DIKOM",)]
    settings = Quarantine.model_validate({"reasons": own})
    assert settings.of("NOT_DICOM").max_items == 2
    assert (settings.of("PHANTOM").max_items, settings.of("PHANTOM").max_mib) == (1000, 10240)
    with pytest.raises(ValidationError, match="reasons names NOT_DICOM twice: keep one"):
        Quarantine.model_validate({"reasons": [own[0], own[0]]})


# --- kills ---


def killed_in(root: Path, step: int, work: Callable[[Place], object]) -> bool:
    """Run `work` in a process that dies by SIGKILL at its `step`-th step; whether it came so far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
        return os.WIFSIGNALED(status)
    signal.alarm(30)
    left = step

    def dying(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            for _ in ("before", "after"):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                if _ == "before":
                    result = function(*arguments, **named)
            return result

        return call

    place = Place(root)
    for module, name in (
        (os, "unlink"), (os, "rmdir"), (os, "fsync"), (os, "link"), (shelf, "evict"), (shelf, "note_gone"),
    ):  # fmt: skip
        setattr(module, name, dying(getattr(module, name)))
    try:
        work(place)
    finally:
        os._exit(0)
    return False


def check_shelf(place: Place) -> None:
    """What must hold at any moment: what is held is whole, and what is not whole was written down before."""
    told = {event.detail.partition(":")[0] for event in place.journal.events()}
    for item in shelf.listed(place.journal, gone=True):
        found = [path for _, path in shelf.files(place.journal, place.spool, item)]
        if item.evicted_at is None:
            assert None not in found, f"{item.item} is held and not whole"
        else:
            assert item.item in told or item.evicted_for == "resubmitted"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_between_any_two_steps_of_an_eviction_leaves_what_the_next_life_finishes(
    tmp_path: Path,
) -> None:
    quota = {"max_items": 1}
    for step in range(200):
        root = tmp_path / str(step)
        root.mkdir()
        place = Place(root)
        place.refused(100)
        place.refused(100)
        for number in range(3):
            place.rejected(f"1.{number}", size=100)
        place.received("1.0", images=1, size=100)
        place.journal.close()
        died = killed_in(root, step, lambda place: place.keeper(**quota).turn())
        place = Place(root)
        check_shelf(place)
        keeper = place.keeper(**quota)
        keeper.sweep()
        keeper.turn()
        check_shelf(place)
        assert place.held() == ["file-2", "study-1", "study-3"]
        assert shelf.leaving(place.journal) == []
        assert len(place.on_disk()) == 1 + 2 + 2
        assert not (place.spool.quarantine / "LOCALIZER" / "1.1.r1").exists()
        assert len(place.spool.files(place.journal.revisions("1.0")[-1])) == 3
        place.journal.close()
        if not died:
            break
    assert 15 < step < 199


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_while_a_study_ends_or_is_submitted_again_leaves_nothing_on_the_shelf_unknown(
    tmp_path: Path,
) -> None:
    for step in range(200):
        root = tmp_path / str(step)
        root.mkdir()
        place = Place(root)
        place.rejected("1.1", size=100)
        ending = place.received("1.2", size=100)
        place.journal.complete(ending.row)
        place.journal.close()

        def work(place: Place) -> None:
            resubmit(place.journal, place.spool, None, "study-1")
            place.spool.files(place.journal.revisions("1.1")[-1])
            place.end(place.journal.revisions("1.2")[-1], "PHANTOM")
            place.refused(100)

        died = killed_in(root, step, work)
        place = Place(root)
        place.spool.reconcile()
        check_shelf(place)
        keeper = place.keeper()
        keeper._began += 100  # as if the files of the last life were old
        keeper.sweep()
        check_shelf(place)
        latest = place.journal.revisions("1.1")[-1]
        if latest.revision == 2:
            assert len(place.spool.files(latest)) == 2
        known = {item.file for item in shelf.listed(place.journal) if item.file}
        assert known == {str(p.relative_to(root)) for p in (root / "quarantine").glob("*/*.dcm")}
        place.journal.close()
        if not died:
            break
    assert 15 < step < 199


def test_the_folder_of_an_end_that_was_not_journalled_goes_once_the_study_ended_otherwise(
    place: Place,
) -> None:
    study = place.received("1.1")
    place.journal.complete(study.row)
    place.spool.quarantine_study(study, "INFERENCE_TIMEOUT")  # and then the service died
    keeper = place.keeper()
    keeper.sweep()
    assert (place.spool.quarantine / "INFERENCE_TIMEOUT" / "1.1.r1").exists()
    place.end(study, "PHANTOM")
    keeper.sweep()
    assert not (place.spool.quarantine / "INFERENCE_TIMEOUT" / "1.1.r1").exists()
    assert len(list((place.spool.quarantine / "PHANTOM" / "1.1.r1").iterdir())) == 2


def test_stray_names_and_files_among_the_folders_are_left_alone_and_stop_no_sweep(place: Place) -> None:
    reason = place.spool.quarantine / "PHANTOM"
    strays = [reason / name for name in ("1.2.3.r1.bak", "x.r1", "1.2.3.r" + "9" * 30)]
    for stray in strays:
        stray.mkdir(parents=True)
    (reason / "1.1.r1").write_bytes(b"no folder")
    (reason / "1.2.r1").symlink_to(place.root)
    place.rejected("1.1")
    place.rejected("1.2")
    study = place.received("1.3")
    place.journal.complete(study.row)
    place.spool.quarantine_study(study, "PHANTOM")
    place.end(study, "LOCALIZER")
    place.keeper().sweep()
    assert {path.name for path in reason.iterdir()} == {*(s.name for s in strays), "1.1.r1", "1.2.r1"}


def test_stray_images_are_adopted_only_where_intake_itself_puts_them(place: Place) -> None:
    for name in (Refusal.NOT_DICOM.name, "Иванов", "LOCALIZER", "lost+found"):
        (place.spool.quarantine / name).mkdir()
        (place.spool.quarantine / name / "x.dcm").write_bytes(b"x")
    keeper = place.keeper()
    keeper._began += 100  # as if the files of the last life were old
    keeper.sweep()
    assert [item.file for item in shelf.listed(place.journal)] == ["quarantine/NOT_DICOM/x.dcm"]
    assert len(list(place.spool.quarantine.glob("*/x.dcm"))) == 4


def test_a_folder_that_somebody_moved_to_another_reason_stays_and_is_told_without_a_uid(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.rejected("1.2.643.1")
    place.rejected("1.2.643.2")
    moved = place.spool.quarantine / "PHANTOM" / "1.2.643.1.r1"
    part = place.spool.quarantine / "PHANTOM" / "1.2.643.2.r1"
    moved.parent.mkdir()
    (place.spool.quarantine / "LOCALIZER" / "1.2.643.1.r1").rename(moved)
    part.mkdir()
    (place.spool.quarantine / "LOCALIZER" / part.name / "1.2.643.2.0.dcm").rename(part / "1.2.643.2.0.dcm")
    place.keeper().sweep()
    assert len(list(moved.iterdir())) == 2
    assert len(list(part.iterdir())) == 1
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(" lies")[0] for line in sorted(told)] == [
        "quarantine: a folder of study 1",
        "quarantine: a folder of study 2",
    ]
    assert "643" not in caplog.text


def test_the_quota_is_held_even_where_the_sweep_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.rejected("1.1")
    place.rejected("1.2")
    keeper = place.keeper(max_items=1)

    def broken() -> None:
        raise PermissionError(13, "Permission denied", "/srv/1.2.643.1.r1")

    monkeypatch.setattr(keeper, "sweep", broken)
    keeper.start()
    deadline = time.monotonic() + 10
    while shelf.leaving(place.journal) or place.held() != ["study-2"]:
        assert time.monotonic() < deadline, "the quota was not held"
        time.sleep(0.01)
    keeper.stop()
    assert "Permission denied" in caplog.text
    assert "643" not in caplog.text


# --- again ---


def test_a_rejected_study_submitted_again_is_a_complete_revision_with_all_its_images(place: Place) -> None:
    first = place.rejected("1.1", sender="CT2")
    again = resubmit(place.journal, place.spool, None, "study-1", skip_filter=True, who="operator")
    assert (again.item, again.revision) == ("study-2", 2)
    second = place.journal.revisions("1.1")[-1]
    assert (second.state, second.skip_filter, second.instances, second.bytes) == (
        "complete",
        True,
        first.instances,
        first.bytes,
    )
    assert second.senders == ("CT2",)
    assert [study.row for study in place.journal.queued()] == [2]
    assert len(place.spool.files(second)) == 2
    [event] = place.journal.events()
    assert event.code == EventCode.STUDY_RESUBMITTED
    assert event.detail == "study 1 as study 2 by operator, filter skipped"


def test_a_study_that_has_not_ended_or_has_a_newer_revision_is_not_submitted_again(place: Place) -> None:
    place.rejected("1.1")
    resubmit(place.journal, place.spool, None, "study-1")
    for name in ("study-1", "study-2"):
        with pytest.raises(CannotResubmit, match="revision 2 of this study is complete: wait for its end"):
            resubmit(place.journal, place.spool, None, name)
    second = place.journal.revisions("1.1")[-1]
    place.spool.files(second)
    place.end(second, "PHANTOM")
    with pytest.raises(CannotResubmit, match=r"revision 2 of this study is newer \(study-2\): take that"):
        resubmit(place.journal, place.spool, None, "study-1")
    for name in ("study-77", "file-1", "what", "../study-1"):
        with pytest.raises(shelf.NoSuchItem):
            resubmit(place.journal, place.spool, None, name)


def test_a_study_whose_images_have_left_says_so_and_coming_anew_it_is_taken_whole(place: Place) -> None:
    place.rejected("1.1", images=1)
    place.rejected("1.2", images=1)
    place.keeper(max_items=1).turn()
    with pytest.raises(
        CannotResubmit, match=r"1 of the 1 images of study-1 are here no more: send the study"
    ):
        resubmit(place.journal, place.spool, None, "study-1")
    again = Instance("1.1.0", "1.1", "1.1.9", "1.2", "1.2.1", "CT", "1.1.0", MIB, "CT1")
    _, record = place.journal.add(again)
    assert record is not None
    assert (record.revision, record.state, record.instances) == (2, "receiving", 1)


def test_a_study_whose_images_are_gone_is_wanted_again_only_as_its_newest_revision_once_that_ended(
    place: Place,
) -> None:
    place.rejected("1.1", images=1)
    place.rejected("1.2", images=1)
    place.keeper(max_items=1).turn()
    late = place.received("1.1", images=1)
    for name in ("study-1", f"study-{late.row}"):
        with pytest.raises(CannotResubmit, match="revision 2 of this study is receiving: wait for its end"):
            resubmit(place.journal, place.spool, None, name)
    place.journal.complete(late.row)
    place.journal.finish(late.row, "rejected", "INSTANCES_REMOVED")
    with pytest.raises(
        CannotResubmit, match=rf"revision 2 of this study is newer \(study-{late.row}\): take that"
    ):
        resubmit(place.journal, place.spool, None, "study-1")
    assert place.journal.rows("SELECT id FROM studies WHERE wanted") == []
    with pytest.raises(CannotResubmit, match=r"1 of the 2 images of study-3 are here no more"):
        resubmit(place.journal, place.spool, None, f"study-{late.row}")
    assert [r["id"] for r in place.journal.rows("SELECT id FROM studies WHERE wanted")] == [late.row]


def test_files_are_not_removed_between_the_look_at_them_and_the_new_revision(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = place.received("1.1")
    place.journal.complete(study.row)
    place.journal.begin_inference(study.row)
    place.journal.begin_delivery(
        study.row, model="m", model_version="1", engine="e", precision="p", rung="full", device="cpu",
        inference_seconds=1.0,
    )  # fmt: skip
    place.journal.finish(study.row, "delivered")
    found = place.spool.located
    removed: list[bool] = []
    remover = threading.Thread(
        target=lambda: removed.append(place.spool.remove_study(place.journal.study(study.row)))
    )

    def located(record: StudyRecord) -> list[tuple[Instance, Path | None]]:
        there = found(record)
        remover.start()  # the pipeline comes to remove what was delivered long ago, just now
        remover.join(0.3)
        return there

    monkeypatch.setattr(place.spool, "located", located)
    assert resubmit(place.journal, place.spool, None, "study-1").revision == 2
    remover.join()
    assert removed == [False]
    assert len(place.spool.files(place.journal.revisions("1.1")[-1])) == 2


@pytest.mark.parametrize("asked", [True, False])
def test_a_reduced_result_is_computed_again_from_its_files_or_once_they_are_sent_again(
    place: Place, asked: bool
) -> None:
    study = place.received("1.1", images=1)
    place.journal.complete(study.row)
    place.journal.begin_inference(study.row)
    place.journal.begin_delivery(
        study.row, model="m", model_version="1", engine="e", precision="p", rung="size-96", device="cpu",
        inference_seconds=1.0,
    )  # fmt: skip
    with pytest.raises(CannotResubmit, match="revision 1 of this study is delivering: wait for its end"):
        resubmit(place.journal, place.spool, None, "study-1")
    place.journal.finish(study.row, "delivered")
    if not asked:
        assert resubmit(place.journal, place.spool, None, "study-1").revision == 2
        assert len(place.spool.files(place.journal.revisions("1.1")[-1])) == 1
        return
    place.spool.remove_study(place.journal.study(study.row))
    image = Instance("1.1.0", "1.1", "1.1.9", "1.2", "1.2.1", "CT", "1.1.0", MIB, "PACS")
    assert place.journal.add(image)[0] is Added.DUPLICATE
    with pytest.raises(
        CannotResubmit, match="send the study again from the archive; it is then taken as new"
    ):
        resubmit(place.journal, place.spool, None, "study-1")
    added, record = place.journal.add(image)
    assert added is Added.RESTORED
    assert record is not None
    assert (record.revision, record.state) == (2, "receiving")


def test_a_file_that_is_refused_again_leaves_only_for_an_item_that_holds_the_same_bytes(place: Place) -> None:
    place.refused()
    with pytest.raises(CannotResubmit, match=r"intake refuses file-1 again: NOT_DICOM: .* kept as file-2"):
        resubmit(place.journal, place.spool, None, "file-1")
    assert place.held() == ["file-2"]
    assert len(place.on_disk()) == 1
    with pytest.raises(CannotResubmit, match="file-1 is here no more"):
        resubmit(place.journal, place.spool, None, "file-1")
    place.spool.room = Room(place.root, 1 << 40)  # a full disk: what is refused then is put aside nowhere
    with pytest.raises(CannotResubmit, match=r"OUT_OF_SPACE: .* kept as file-2"):
        resubmit(place.journal, place.spool, None, "file-2")
    assert place.held() == ["file-2"]
    assert len(place.on_disk()) == 1
    assert not list(place.spool.incoming.iterdir())


# --- what the journal counts ---


def test_a_study_knows_all_its_senders_in_order_through_its_revisions(place: Place) -> None:
    place.received("1.1", sender="CT2", images=2)
    place.received("1.1", sender="stow", images=1)
    [first] = place.journal.revisions("1.1")
    assert first.senders == ("CT2", "stow")
    place.journal.complete(first.row)
    place.end(first, "PHANTOM")
    place.received("1.1", sender="PACS", images=1)
    assert place.journal.revisions("1.1")[-1].senders == ("CT2", "stow", "PACS")


def test_the_list_is_paged_and_filtered_by_reason_sender_and_time(place: Place) -> None:
    for number in range(3):
        place.rejected(f"1.{number}", sender="CT2")
    place.rejected("2.1", "PHANTOM", sender="MR1")
    place.refused(sender="CT2")
    journal = place.journal
    page = shelf.listed(journal, limit=2)
    assert [item.item for item in page] == ["file-1", "study-4"]
    page = shelf.listed(journal, limit=2, after="study-4")
    assert [item.item for item in page] == ["study-3", "study-2"]
    assert [i.item for i in shelf.listed(journal, reason="PHANTOM")] == ["study-4"]
    assert [i.item for i in shelf.listed(journal, sender="CT2", reason="NOT_DICOM")] == ["file-1"]
    assert shelf.listed(journal, sender="CT") == []
    assert shelf.listed(journal, since=utc_now() + timedelta(hours=1)) == []


def test_a_journal_of_the_release_before_learns_its_senders_and_ships_its_rows_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with sqlite3.connect(path) as old:
        old.executescript(f"BEGIN;{journal_module._SCHEMA}{journal_module._MIGRATIONS[2]}COMMIT;")
        old.execute("PRAGMA user_version = 2")
        for revision in (1, 2):
            old.execute(
                "INSERT INTO studies (study_uid, revision, state, received_at, change, shipped_change)"
                " VALUES ('1.1', ?, 'rejected', '2026-01-01T00:00:00.000000+00:00', ?, ?)",
                (revision, revision, revision),
            )
        for number, (source, revision) in enumerate([("CT2", 1), ("CT1", 1), ("CT2", 1), ("stow", 2)]):
            old.execute(
                "INSERT INTO instances (sop_uid, study_uid, series_uid, sop_class, transfer_syntax, modality,"
                " digest, bytes, revision, source, received_at) VALUES (?, '1.1', '', '', '', '', '', 1, ?, ?, '')",
                (str(number), revision, source),
            )
    old.close()
    journal = Journal(path, "brain")
    assert [study.senders for study in journal.revisions("1.1")] == [("CT2", "CT1"), ("CT2", "CT1", "stow")]
    assert len(journal.unshipped(10)) == 2


# --- one sender's masses and the others ---


def test_junk_of_one_sender_pushes_out_its_own_and_not_what_is_older_and_real(place: Place) -> None:
    real = [f"study-{place.rejected(f'1.2.{n}', sender='MRT1').row}" for n in range(3)]
    for number in range(20):
        place.rejected(f"1.3.{number}", sender="JUNK")
    place.keeper(max_items=8).turn()
    held = place.held()
    assert len(held) == 8
    assert set(real) <= set(held)


def test_new_names_at_one_address_are_no_way_to_push_out_another_address(place: Place) -> None:
    def refused(address: str, sender: str) -> None:
        arrived = place.spool.incoming / "x.dcm"
        arrived.write_bytes(bytes(MIB))
        place.spool.put_aside(arrived, Refusal.NOT_DICOM, sender, address)
        arrived.unlink()

    for _ in range(4):
        refused("10.0.0.5", "MRT1")
    for number in range(30):
        refused("10.0.0.66", f"NAME{number}")
    place.keeper(max_items=10).turn()
    kept = [one for one in shelf.held(place.journal) if one.address == "10.0.0.5"]
    assert len(kept) == 4


def test_junk_of_one_sender_keeps_to_its_share_by_bytes_and_of_the_whole_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = place.rejected("1.2.1", images=2, sender="MRT1")
    for number in range(6):
        place.rejected(f"1.3.{number}", images=4, sender="JUNK")
    place.keeper(max_mib=10).turn()
    assert f"study-{real.row}" in place.held()
    other = place.rejected("1.4.1", "NO_PIXELS", images=3, sender="JUNK")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"total": 8 * MIB}))
    place.keeper(disk_percent=100).turn()
    assert f"study-{real.row}" in place.held()
    assert f"study-{other.row}" in place.held(), "of the sender that holds most the oldest goes"


def test_a_sender_may_have_a_quota_of_its_own_whatever_the_reasons(place: Place) -> None:
    for number, reason in enumerate(("LOCALIZER", "NO_PIXELS", "LOCALIZER", "NO_PIXELS")):
        place.rejected(f"1.2.{number}", reason, sender="NOISY")
    quiet = place.rejected("1.2.9", sender="MRT1")
    place.keeper(senders=[{"ae_title": "NOISY", "max_mib": 100, "max_items": 1}]).turn()
    assert len(place.held()) == 2
    assert f"study-{quiet.row}" in place.held()


def test_a_sender_with_two_quotas_is_told() -> None:
    one = {"ae_title": "NOISY", "max_mib": 1, "max_items": 1}
    with pytest.raises(ValidationError, match="senders names NOISY twice"):
        Quarantine.model_validate({"senders": [one, one]})
