"""The three timers that say a study is complete, over a real journal and spool."""

from __future__ import annotations

import re
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from outpost.intake import assembly as assembly_module
from outpost.intake.assembly import Assembly, RequiredSeries
from outpost.intake.spool import Spool
from outpost.records.journal import Journal, StudyRecord, utc_now

T1 = RequiredSeries(description="t1.*tra", modality="MR", min_instances=2)
T2 = RequiredSeries(description="T2", modality="MR")


class Intake:
    """A spool whose instances go straight to an assembly, as the listener does it."""

    def __init__(self, root: Path, **timers: float | tuple[RequiredSeries, ...]) -> None:
        root.mkdir(exist_ok=True)
        self.root, self.timers, self.number = root, timers, 0
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.root / "journal.sqlite3", "brain")
        self.spool = Spool(self.root, self.journal, reserve_mib=0)
        timers = {"quiet_seconds": 60.0} | self.timers
        self.assembly = Assembly(self.journal, header_of=self.spool.header_of, **timers)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.journal.close()
        self.open()

    def send(self, description: str = "T1 TRA", modality: str = "MR", study: str = "1.2.3") -> StudyRecord:
        self.number += 1
        image = dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
        image.StudyInstanceUID, image.SeriesDescription, image.Modality = study, description, modality
        image.SeriesInstanceUID = f"{study}.{sum(description.encode())}"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{study}.9.{self.number}"
        path = self.spool.incoming / f"{self.number}.dcm"
        image.save_as(path)
        header, record = self.spool.take(path, "TEST")
        assert record is not None
        self.assembly.instance_taken(record.row, header)
        return record

    def completed_by(self, row: int) -> str:
        [found] = self.journal._rows("SELECT completed_by FROM studies WHERE id = ?", (row,))
        return str(found["completed_by"])


def test_a_study_is_complete_when_nothing_came_for_the_quiet_time(tmp_path: Path) -> None:
    intake = Intake(tmp_path, quiet_seconds=0.3)
    study = intake.send()
    assert intake.assembly.complete_due_studies() == 0
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:  # its sender is transmitting, for longer than the quiet time
        intake.assembly.still_arriving(study.row, "1.2.3.1")
        assert intake.assembly.complete_due_studies() == 0
        time.sleep(0.02)
    time.sleep(0.31)
    assert intake.assembly.complete_due_studies() == 1
    assert intake.journal.study(study.row).state == "complete"
    assert intake.completed_by(study.row) == "quiet"
    intake.assembly.still_arriving(study.row, "1.2.3.1")
    assert intake.assembly.receiving() == 0


def test_after_a_restart_the_quiet_time_begins_anew(tmp_path: Path) -> None:
    intake = Intake(tmp_path, quiet_seconds=0.2)
    study = intake.send()
    time.sleep(0.2)
    intake.restart()
    assert intake.assembly.complete_due_studies() == 0
    time.sleep(0.21)
    assert intake.assembly.complete_due_studies() == 1
    assert intake.journal.study(study.row).state == "complete"


def test_a_study_is_complete_when_its_required_series_are_there_and_quiet_whatever_else_arrives(
    tmp_path: Path,
) -> None:
    intake = Intake(tmp_path, series_quiet_seconds=0.2, required_series=(T1, T2))
    intake.send("T1 TRA")
    intake.send("ep2d t2 sag")
    time.sleep(0.25)
    assert intake.assembly.complete_due_studies() == 0, "T1 has one instance of two"
    study = intake.send("T1 TRA")
    assert intake.assembly.complete_due_studies() == 0, "the series has only just come"
    for _ in range(5):
        time.sleep(0.05)
        intake.send("LOCALIZER")  # which the model does not need
        intake.assembly.still_arriving(study.row, f"1.2.3.{sum(b'LOCALIZER')}")
    assert intake.assembly.complete_due_studies() == 1
    assert intake.completed_by(study.row) == "series"


def test_a_required_series_in_the_middle_of_an_instance_is_waited_for(tmp_path: Path) -> None:
    intake = Intake(tmp_path, series_quiet_seconds=0.1, required_series=(T2,))
    study = intake.send("T2")
    for _ in range(5):
        time.sleep(0.05)
        intake.assembly.still_arriving(study.row, f"1.2.3.{sum(b'T2')}")
        assert intake.assembly.complete_due_studies() == 0
    time.sleep(0.11)
    assert intake.assembly.complete_due_studies() == 1


def test_required_series_are_known_again_after_a_restart(tmp_path: Path) -> None:
    intake = Intake(tmp_path, series_quiet_seconds=0.1, required_series=(T1, T2))
    intake.send("T1 TRA")
    intake.send("T2")
    intake.restart()
    study = intake.send("T1 TRA")
    time.sleep(0.11)
    assert intake.assembly.complete_due_studies() == 1
    assert intake.completed_by(study.row) == "series"


def test_series_of_another_modality_or_description_are_not_the_required_ones(tmp_path: Path) -> None:
    intake = Intake(tmp_path, series_quiet_seconds=0.05, required_series=(T2,))
    intake.send("T2", modality="CT")
    intake.send("T1 TRA")
    time.sleep(0.06)
    assert intake.assembly.complete_due_studies() == 0


def test_a_study_that_never_falls_quiet_is_complete_at_the_forced_time(tmp_path: Path) -> None:
    intake = Intake(tmp_path, forced_seconds=0.3)
    study = intake.send()
    begun = time.monotonic()
    while not intake.assembly.complete_due_studies():
        assert time.monotonic() - begun < 2
        intake.send()
        time.sleep(0.02)
    assert time.monotonic() - begun > 0.25
    assert intake.completed_by(study.row) == "forced"


def test_the_forced_time_goes_on_over_a_restart(tmp_path: Path) -> None:
    intake = Intake(tmp_path, forced_seconds=0.3)
    intake.send()
    time.sleep(0.31)
    intake.restart()
    assert intake.assembly.complete_due_studies() == 1


def test_a_clock_set_back_only_makes_the_forced_time_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(tmp_path, forced_seconds=0.2)
    intake.send()
    monkeypatch.setattr(assembly_module, "utc_now", lambda: utc_now() - timedelta(days=400))
    intake.restart()
    assert intake.assembly.complete_due_studies() == 0
    time.sleep(0.21)
    assert intake.assembly.complete_due_studies() == 1


@pytest.mark.parametrize(
    ("by", "timers"),
    [
        ("quiet", {"quiet_seconds": 0.05}),
        ("series", {"series_quiet_seconds": 0.05, "required_series": (T1,)}),
        ("forced", {"forced_seconds": 0.05}),
    ],
)
def test_a_late_instance_makes_the_next_revision_whichever_timer_ended_the_first(
    tmp_path: Path, by: str, timers: dict[str, float]
) -> None:
    intake = Intake(tmp_path, **timers)
    intake.send()
    first = intake.send()
    time.sleep(0.06)
    assert intake.assembly.complete_due_studies() == 1
    intake.journal.begin_inference(first.row)
    second = intake.send()
    assert (second.revision, second.instances) == (2, 3)
    time.sleep(0.06)
    # By series at once, although only one instance is new: those of the first revision count.
    assert intake.assembly.complete_due_studies() == 1
    assert intake.completed_by(first.row) == intake.completed_by(second.row) == by


def test_a_study_not_yet_computed_takes_a_late_instance_in(tmp_path: Path) -> None:
    intake = Intake(tmp_path, series_quiet_seconds=0.05, required_series=(T1,))
    intake.send()
    study = intake.send()
    time.sleep(0.06)
    assert intake.assembly.complete_due_studies() == 1
    assert intake.send().row == study.row
    time.sleep(0.06)
    assert intake.assembly.complete_due_studies() == 1
    assert intake.journal.study(study.row).instances == 3


def test_a_description_that_is_no_expression_is_named_at_the_start() -> None:
    with pytest.raises(re.error):
        RequiredSeries(description="(")


def test_a_study_that_the_journal_could_not_complete_stays_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(tmp_path, quiet_seconds=0)
    study = intake.send()

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(intake.journal, "complete", full)
        with pytest.raises(sqlite3.OperationalError):
            intake.assembly.complete_due_studies()
    assert intake.assembly.receiving() == 1
    assert intake.assembly.complete_due_studies() == 1
    assert intake.journal.study(study.row).state == "complete"


def test_a_study_that_nobody_watches_is_watched_again(tmp_path: Path) -> None:
    """Its instance was journalled, and then a fault came before the assembly heard of it."""
    intake = Intake(tmp_path, quiet_seconds=0)
    study = intake.send()
    intake.assembly._receiving.clear()
    assert intake.assembly.complete_due_studies() == 0
    assert intake.assembly.adopt() == 1
    assert intake.assembly.adopt() == 0
    assert intake.assembly.complete_due_studies() == 1
    assert intake.journal.study(study.row).state == "complete"


def held(intake: Intake, row: int, seconds: float = 60.0) -> None:
    """The worker found images missing: the study waits, as the pipeline has it."""
    intake.journal.begin_inference(row)
    assert intake.journal.hold(row, utc_now() + timedelta(seconds=seconds), ("an image is missing",))
    intake.assembly.hold(row)


def test_a_study_that_lacks_images_waits_for_the_next_one_and_its_quiet_time(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "root", quiet_seconds=0.05)
    row = intake.send().row
    time.sleep(0.1)
    assert intake.assembly.complete_due_studies() == 1
    held(intake, row)
    time.sleep(0.1)
    assert intake.assembly.complete_due_studies() == 0
    intake.restart()
    time.sleep(0.1)
    assert intake.assembly.complete_due_studies() == 0, "nor after a restart"
    waiting = intake.journal.study(row)
    assert (waiting.state, waiting.held_for, waiting.attempts) == ("receiving", "STUDY_INCOMPLETE", 0)
    assert waiting.detail == "an image is missing"
    assert intake.send().row == row
    assert intake.assembly.complete_due_studies() == 0, "quiet first"
    time.sleep(0.1)
    assert intake.assembly.complete_due_studies() == 1
    again = intake.journal.study(row)
    assert (again.completed_by, again.held_for, again.detail) == ("quiet", "", "")
    assert again.held_until is not None, "that it was held once stays on record"
    held(intake, row)
    assert [event.code for event in intake.journal.events()] == ["STUDY_HELD"], "told once"


def test_a_study_that_lacks_images_is_forced_when_its_time_is_over(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "root", quiet_seconds=0.05, forced_seconds=0.6)
    row = intake.send().row
    time.sleep(0.1)
    assert intake.assembly.complete_due_studies() == 1
    held(intake, row)
    assert intake.assembly.complete_due_studies() == 0
    time.sleep(0.6)
    assert intake.assembly.complete_due_studies() == 1
    assert intake.journal.study(row).completed_by == "forced"


def test_the_forced_time_of_a_study_in_work_does_not_jump_with_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(tmp_path / "root", quiet_seconds=0.0, forced_seconds=60)
    row = intake.send().row
    assert intake.assembly.complete_due_studies() == 1
    monkeypatch.setattr(assembly_module, "utc_now", lambda: utc_now() + timedelta(days=3))
    left = intake.assembly.forced_after(intake.journal.study(row))
    assert 50 < left <= 60


def test_a_study_is_not_held_where_a_later_revision_has_what_came_since(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "root", quiet_seconds=0.0)
    row = intake.send().row
    assert intake.assembly.complete_due_studies() == 1
    intake.journal.begin_inference(row)
    later = intake.send()
    assert later.revision == 2
    assert not intake.journal.hold(row, utc_now(), ("an image is missing",))
    assert intake.journal.study(row).state == "inferring"
    assert intake.journal.events() == []


def test_a_sender_that_stalls_between_two_images_is_waited_for_while_its_transfer_is_open(
    tmp_path: Path,
) -> None:
    intake = Intake(tmp_path / "s", quiet_seconds=0.2, open_quiet_seconds=1.0)
    record = intake.send()
    header = intake.spool.header_of(intake.journal.instances("1.2.3", 1)[0])
    assert header is not None
    transfer = intake.assembly.transfer("CT1")
    transfer.took(header, record)
    time.sleep(0.5)
    assert intake.assembly.complete_due_studies() == 0, "open: its sender has not said that it is through"
    other = intake.send(study="1.2.4")
    transfer.took(header, other)  # it has gone on to another study
    assert intake.assembly.complete_due_studies() == 1
    assert intake.completed_by(record.row) == "quiet"
    time.sleep(0.3)
    assert intake.assembly.complete_due_studies() == 0
    transfer.released()
    assert intake.assembly.complete_due_studies() == 1


def test_a_transfer_that_stays_open_for_ever_keeps_no_study_longer_than_its_own_quiet_time(
    tmp_path: Path,
) -> None:
    intake = Intake(tmp_path / "s", quiet_seconds=0.1, open_quiet_seconds=0.4)
    record = intake.send()
    header = intake.spool.header_of(intake.journal.instances("1.2.3", 1)[0])
    assert header is not None
    intake.assembly.transfer("CT1").took(header, record)
    time.sleep(0.2)
    assert intake.assembly.complete_due_studies() == 0
    time.sleep(0.3)
    assert intake.assembly.complete_due_studies() == 1


def test_a_required_series_that_an_open_transfer_sent_to_last_may_not_be_whole(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "s", series_quiet_seconds=0.1, required_series=(T1,))
    intake.send()
    record = intake.send()
    header = intake.spool.header_of(intake.journal.instances("1.2.3", 1)[0])
    assert header is not None
    transfer = intake.assembly.transfer("CT1")
    transfer.took(header, record)
    time.sleep(0.2)
    assert intake.assembly.complete_due_studies() == 0
    intake.send("SURVEY")
    survey = intake.spool.header_of(intake.journal.instances("1.2.3", 1)[2])
    assert survey is not None
    transfer.took(survey, record)  # it has gone on to another series
    assert intake.assembly.complete_due_studies() == 1
    assert intake.completed_by(record.row) == "series"
