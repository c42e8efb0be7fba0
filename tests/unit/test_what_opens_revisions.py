"""What an instance sets going: its role, the budget of revisions, removed files that come again."""

from __future__ import annotations

import re
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from outpost.intake.assembly import Assembly
from outpost.intake.spool import FilesMissing, Spool
from outpost.lane import end_study
from outpost.records import journal as journal_module
from outpost.records.journal import Budget, Journal, StudyRecord, utc_now
from outpost.results.provenance import ResultObject

MR = "1.2.840.10008.5.1.4.1.1.4"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.22"
PR = "1.2.840.10008.5.1.4.1.1.11.1"
STUDY = "1.2.3"


class Intake:
    """A journal, a spool and an assembly, as the service puts them together for a model that reads MR."""

    def __init__(self, root: Path, budget: Budget | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.root, self.budget = root, budget
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.root / "journal.sqlite3", "brain", self.budget)
        self.spool = Spool(self.root, self.journal, reserve_mib=0, model_reads=[MR])
        self.assembly = Assembly(self.journal, 0.0)

    def restart(self) -> None:
        self.journal.close()
        self.open()
        self.spool.reconcile()

    def file(self, number: int, sop_class: str = MR, study: str = STUDY, **values: object) -> Path:
        image = dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
        image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study}.{len(sop_class)}"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{study}.9.{number}"
        for keyword, value in values.items():
            setattr(image, keyword, value)
        path = self.spool.incoming / f"{number}.dcm"
        image.save_as(path)
        return path

    def send(
        self, number: int, sop_class: str = MR, source: str = "CT1", study: str = STUDY, **values: object
    ) -> StudyRecord | None:
        path = self.file(number, sop_class, study, **values)
        header, record = self.spool.take(path, source)
        path.unlink()
        if record is not None:
            self.assembly.instance_taken(record.row, header)
        return record

    def sent(self, number: int, **values: object) -> StudyRecord:
        record = self.send(number, **values)
        assert record is not None
        return record

    def compute(self) -> StudyRecord:
        """The study goes to its result, or to its end for want of files."""
        study = self.journal.revisions(STUDY)[-1]
        if study.state == "receiving":
            self.journal.complete(study.row)
        self.journal.begin_inference(study.row)
        self.spool.files(study)
        self.journal.begin_delivery(
            study.row,
            model="m",
            model_version="1",
            engine="e",
            precision="float32",
            rung="full",
            device="cpu",
            inference_seconds=1.0,
            results=[ResultObject(f"2.25.{study.row}", SEG, f"2.25.{study.row}.1")],
        )
        self.journal.finish(study.row, "delivered")
        return self.journal.study(study.row)

    def rejected(self, reason: str = "WHY") -> StudyRecord:
        study = self.journal.revisions(STUDY)[-1]
        self.journal.complete(study.row)
        end_study(self.journal, self.spool, study, "rejected", reason, "")
        return self.journal.study(study.row)

    def sweep(self) -> int:
        """What housekeeping does when everything's time is over."""
        found = self.journal.removable(utc_now() + timedelta(days=1))
        return sum(self.spool.remove_study(study) for study in found)

    def files(self) -> set[str]:
        folder = self.spool.studies / STUDY
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def kept(self, study: StudyRecord) -> set[str]:
        return {path.name for path in self.spool.quarantine_folder(study, study.reason).iterdir()}

    def states(self) -> list[str]:
        return [study.state for study in self.journal.revisions(STUDY)]

    def roles(self) -> dict[str, str]:
        latest = self.journal.revisions(STUDY)[-1]
        return {i.sop_uid[-1]: i.role for i in self.journal.instances(STUDY, latest.revision)}

    def codes(self) -> list[str]:
        return [event.code for event in self.journal.events()]


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path / "storage")


def contributing(manufacturer: str) -> list[Dataset]:
    item = Dataset()
    item.Manufacturer = manufacturer
    return [item]


def made_by(source: str) -> list[Dataset]:
    algorithm, segment = Dataset(), Dataset()
    algorithm.AlgorithmSource = source
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm]
    return [segment]


@pytest.mark.parametrize(
    ("sop_class", "values", "role"),
    [
        (MR, {}, "image"),
        (MR, {"Manufacturer": "Outpost"}, "image"),  # what a model reads is an image, whoever says he made it
        (MR, {"Manufacturer": "Outpost demo"}, "image"),
        (PR, {}, "other"),
        ("1.2.840.10008.5.1.4.1.1.2", {}, "other"),  # CT: this model reads MR
        ("1.2.840.10008.5.1.4.1.1.4.1", {}, "other"),
        ("1.3.46.670589.11.0.0.12.1", {}, "other"),  # a private class
        (SEG, {}, "other"),
        (SEG, {"Manufacturer": "Outpost demo"}, "other"),
        (SEG, {"Manufacturer": "Outpost"}, "own"),
        (SEG, {"Manufacturer": "Outpost "}, "own"),
        (SR, {"Manufacturer": "Outpost"}, "own"),
        (SEG, {"Manufacturer": "PACS", "SegmentSequence": made_by("Outpost")}, "own"),
        ("1.2.840.10008.5.1.4.1.1.7", {"ContributingEquipmentSequence": contributing("Outpost")}, "own"),
        ("1.2.840.10008.5.1.4.1.1.7", {"ContributingEquipmentSequence": contributing("PACS")}, "other"),
    ],
)
def test_an_instance_has_a_role_by_its_class_and_by_who_made_it(
    intake: Intake, sop_class: str, values: dict[str, object], role: str
) -> None:
    intake.send(1, sop_class, **values)
    assert intake.roles() == {"1": role}
    assert intake.journal.instances_by_role()[role] == 1


def test_a_result_is_known_by_its_uid_or_series_even_where_it_no_longer_says_whose_it_is(
    intake: Intake,
) -> None:
    intake.sent(1)
    row = intake.compute().row
    intake.send(2, SEG, SOPInstanceUID=f"2.25.{row}", Manufacturer="PACS")
    intake.send(3, SEG, SeriesInstanceUID=f"2.25.{row}.1", Manufacturer="PACS")
    assert intake.journal.instances_by_role() == {"image": 1, "other": 0, "own": 2}
    assert intake.states() == ["delivered"]


def test_a_result_that_another_encoding_carries_is_still_known(intake: Intake) -> None:
    """Implicit VR, as PACS re-encode, and a private element before the one that tells."""
    path = intake.file(1, SEG, Manufacturer="Outpost")
    image = dcmread(path)
    del image.PixelData
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.save_as(path, implicit_vr=True, little_endian=True)
    assert image.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian
    intake.spool.take(path, "PACS")
    assert intake.roles() == {"1": "own"}


@pytest.mark.parametrize("state", ["complete", "inferring", "delivering", "delivered"])
@pytest.mark.parametrize("sop_class", [SEG, PR])
def test_what_is_no_image_moves_no_study_and_goes_with_its_files(
    intake: Intake, state: str, sop_class: str
) -> None:
    row = intake.sent(1).row
    intake.journal.complete(row)
    if state in ("inferring", "delivering", "delivered"):
        intake.journal.begin_inference(row)
    if state in ("delivering", "delivered"):
        intake.journal._db.execute("UPDATE studies SET state = 'delivering' WHERE id = ?", (row,))
    if state == "delivered":
        intake.journal.finish(row, "delivered")
    assert intake.send(2, sop_class, Manufacturer="Outpost") is None
    assert intake.states() == [state]
    assert intake.files() == {"1.2.3.9.1.dcm", "1.2.3.9.2.dcm"}
    assert intake.journal.study(row).instances == 2
    if state == "delivered":
        assert intake.sweep() == 1
        assert intake.files() == set()


def test_what_comes_late_to_a_study_in_quarantine_lies_there_with_it(intake: Intake) -> None:
    intake.sent(1)
    study = intake.rejected()
    intake.send(2, PR)
    assert intake.states() == ["rejected"]
    assert intake.files() == set()
    assert intake.kept(study) == {"1.2.3.9.1.dcm", "1.2.3.9.2.dcm"}
    [row] = intake.journal.rows("SELECT kept_bytes FROM studies")
    assert row["kept_bytes"] == sum(p.stat().st_size for p in intake.spool.quarantine.glob("WHY/*/*.dcm"))


def test_a_crash_before_it_lies_there_is_made_up_for_at_the_start(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.sent(1)
    study = intake.rejected()
    monkeypatch.setattr(Spool, "_keep_with_ended", lambda *_: None)
    intake.send(2, PR)
    monkeypatch.undo()
    assert intake.files() == {"1.2.3.9.2.dcm"}
    intake.restart()
    assert intake.files() == set()
    assert intake.kept(study) == {"1.2.3.9.1.dcm", "1.2.3.9.2.dcm"}


def test_what_comes_while_a_study_is_put_into_quarantine_is_not_lost(intake: Intake) -> None:
    study = intake.sent(1)
    intake.journal.complete(study.row)
    intake.journal.begin_inference(study.row)
    kept = intake.spool.quarantine_study(study, "WHY")
    intake.send(2, PR)  # between the two steps of its end
    intake.journal.finish(study.row, "rejected", "WHY", "", kept)
    assert intake.spool.remove_study(study)
    assert intake.kept(intake.journal.study(study.row)) == {"1.2.3.9.1.dcm", "1.2.3.9.2.dcm"}


def test_what_comes_after_quarantine_let_a_study_go_is_kept_for_its_time(intake: Intake) -> None:
    intake.sent(1)
    study = intake.rejected()
    intake.journal._db.execute(
        "UPDATE studies SET evicted_at = '2026', evicted_for = 'quota', removed_at = '2026'"
    )
    for path in intake.spool.quarantine.glob("WHY/*/*.dcm"):
        path.unlink()
    intake.send(2, PR)
    assert intake.files() == {"1.2.3.9.2.dcm"}
    intake.restart()
    assert intake.files() == {"1.2.3.9.2.dcm"}, "a restart keeps it, too"
    assert intake.sweep() == 1
    assert intake.files() == set()
    assert intake.journal.removable(utc_now() + timedelta(days=9)) == []
    assert intake.sent(1).revision == 2, "its image, sent again, is still taken as new"
    assert study.row == 1


def test_an_object_that_came_first_gives_way_to_the_image(intake: Intake) -> None:
    first = intake.sent(1, sop_class=PR, Modality="PR")
    assert (first.state, first.modality) == ("receiving", "PR")
    assert intake.sent(2).modality == "MR"
    intake.compute()
    assert intake.states() == ["delivered"]


def test_a_study_of_objects_alone_ends_and_is_woken_by_none_of_them(intake: Intake) -> None:
    intake.sent(1, sop_class=PR)
    intake.rejected("PRESENTATION_STATE")
    for number in range(2, 6):
        intake.send(number, PR if number % 2 else SEG, Manufacturer="Outpost")
    assert intake.states() == ["rejected"]
    assert intake.codes() == ["RESULT_RETURNED"]


def test_results_that_come_back_make_one_event_for_each_sender_of_a_study(intake: Intake) -> None:
    intake.sent(1)
    intake.compute()
    for number in range(2, 40):
        intake.send(number, SEG, source="ARCHIVE" if number % 2 else "stow", Manufacturer="Outpost")
    told = [event.detail for event in intake.journal.events()]
    assert len(told) == 2
    assert not any(STUDY in text for text in told)
    assert intake.journal.instances_by_role()["own"] == 38


def test_an_own_result_does_not_keep_a_study_from_being_complete(intake: Intake) -> None:
    intake.sent(1)
    assert intake.send(2, SEG, Manufacturer="Outpost") is None
    assert intake.send(3, PR) is not None, "another object says that its sender is still at it"


def test_a_missing_object_that_is_no_image_does_not_keep_a_study_from_being_computed(intake: Intake) -> None:
    intake.sent(1)
    intake.send(2, PR)
    (intake.spool.studies / STUDY / "1.2.3.9.2.dcm").unlink()
    assert [path.name for path in intake.spool.files(intake.journal.revisions(STUDY)[-1])] == [
        "1.2.3.9.1.dcm"
    ]


# --- the budget ---


def test_beyond_its_budget_a_revision_waits_collects_and_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(tmp_path / "storage", Budget(3, 2))
    for number in range(3):
        assert intake.sent(number).held_for == ""
        intake.compute()
    fourth = intake.sent(4)
    assert (fourth.revision, fourth.state, fourth.held_for) == (4, "receiving", "REVISIONS_HELD")
    first = intake.journal.revisions(STUDY)[0]
    assert fourth.held_until == first.received_at + timedelta(hours=2)
    assert intake.codes() == ["REVISIONS_HELD"]
    assert intake.assembly.complete_due_studies() == 0
    intake.restart()
    assert intake.assembly.complete_due_studies() == 0, "nor after a restart"
    assert intake.sent(5).row == fourth.row
    assert intake.assembly.complete_due_studies() == 0
    assert intake.assembly.receiving() == 0, "held, it keeps nothing else from being done"
    assert intake.journal.held() == {"REVISIONS_HELD": 1}
    # Its time comes.
    intake.journal._db.execute("UPDATE studies SET held_until = ?", (journal_module._text(utc_now()),))
    intake.restart()
    assert intake.assembly.complete_due_studies() == 1
    done = intake.journal.study(fourth.row)
    assert (done.state, done.completed_by, done.held_for, done.held_until) == ("complete", "quiet", "", None)
    assert done.instances == 5
    assert intake.codes() == ["REVISIONS_HELD"], "once"


def test_the_budget_is_of_one_study_and_of_its_hours_and_what_an_admin_wants_is_free(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "storage", Budget(2, 1))
    intake.sent(1)
    study = intake.compute()
    intake.journal.resubmit(study.row, skip_filter=False, told="")
    intake.compute()
    assert intake.sent(2).held_for == "", "the second of its own"
    intake.compute()
    hour_ago = journal_module._text(utc_now() - timedelta(minutes=61))
    intake.journal._db.execute("UPDATE studies SET received_at = ? WHERE revision = 1", (hour_ago,))
    assert intake.sent(3).held_for == "", "the first is long ago"
    intake.compute()
    assert intake.sent(4).held_for == "REVISIONS_HELD"
    assert intake.sent(9, study="7.8.9").held_for == ""


def test_no_clock_that_jumped_makes_a_revision_wait_longer_than_the_hours(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "storage", Budget(1, 1))
    intake.sent(1)
    intake.compute()
    ahead = journal_module._text(utc_now() + timedelta(days=400))
    intake.journal._db.execute("UPDATE studies SET received_at = ?", (ahead,))
    until = intake.sent(2).held_until
    assert until is not None
    assert until <= utc_now() + timedelta(hours=1)


# --- removed files that come again ---


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 1, 2, 3), (1, 4, 2, 3), (3, 2, 1, 4)])
@pytest.mark.parametrize("batch", [False, True])
def test_a_study_whose_files_were_removed_is_computed_whole_when_it_comes_again_with_a_new_image(
    intake: Intake, order: tuple[int, ...], batch: bool
) -> None:
    for number in (1, 2, 3):
        intake.sent(number)
    intake.compute()
    assert intake.sweep() == 1
    if batch:
        intake.spool.take_all([intake.file(number) for number in order], "stow")
    else:
        for number in order:
            intake.send(number)
    assert intake.states() == ["delivered", "receiving"]
    assert len(intake.files()) == 4
    assert intake.compute().instances == 4
    assert intake.sweep() == 1
    assert intake.files() == set()


def test_what_comes_again_without_a_new_image_is_known_kept_for_its_time_and_goes(intake: Intake) -> None:
    for number in (1, 2):
        intake.sent(number)
    study = intake.compute()
    assert intake.sweep() == 1
    assert intake.send(1) is None
    assert intake.send(2) is None
    assert intake.states() == ["delivered"]
    assert len(intake.files()) == 2
    assert intake.journal.removable(utc_now() - timedelta(hours=1)) == [], "not at once"
    # A sweep that had listed the study before its files came again leaves them.
    assert not intake.spool.remove_study(study)
    assert len(intake.files()) == 2
    assert intake.sweep() == 1
    assert intake.files() == set()
    assert intake.send(1) is None, "and again"
    assert len(intake.files()) == 1


def test_a_new_image_alone_finds_the_others_missing_and_all_others_complete_it(intake: Intake) -> None:
    for number in (1, 2):
        intake.sent(number)
    intake.compute()
    intake.sweep()
    second = intake.sent(3)
    with pytest.raises(FilesMissing, match=r"2 of 3 images were removed"):
        intake.spool.files(second)
    intake.sent(1)
    with pytest.raises(FilesMissing, match=r"1 of 3 images were removed"):
        intake.spool.files(intake.journal.study(second.row))
    assert intake.journal.study(second.row).restored_at is not None
    intake.sent(2)
    assert intake.compute().revision == 2


def test_files_that_came_again_and_were_removed_again_are_no_sign_of_more_to_come(intake: Intake) -> None:
    intake.sent(1)
    intake.compute()
    intake.sweep()
    intake.send(1)
    intake.sweep()
    assert intake.sent(2).restored_at is None, "the image alone is quarantined at once"


def test_an_object_that_is_no_image_is_not_wanted_again(intake: Intake) -> None:
    intake.sent(1)
    intake.send(2, PR)
    intake.send(3, SEG, Manufacturer="Outpost")
    intake.rejected()
    intake.journal._db.execute("UPDATE studies SET evicted_at = '2026', removed_at = '2026'")
    for path in intake.spool.quarantine.glob("WHY/*/*.dcm"):
        path.unlink()
    assert intake.send(2, PR) is None
    assert intake.send(3, SEG, Manufacturer="Outpost") is None
    assert intake.states() == ["rejected"]
    assert intake.sent(1).revision == 2


def test_journals_of_every_earlier_schema_open_and_take_objects_of_each_role(tmp_path: Path) -> None:
    for version in (1, 2, 3, 4):
        root = tmp_path / str(version)
        root.mkdir()
        with sqlite3.connect(root / "journal.sqlite3") as old:
            old.executescript(journal_module._SCHEMA)
            for step in range(2, version + 1):
                old.executescript(journal_module._MIGRATIONS[step])
            old.execute("PRAGMA user_version = 1")
            if version > 1:
                old.execute("INSERT INTO facts VALUES ('schema', ?)", (str(version),))
            old.execute(
                "INSERT INTO studies (study_uid, revision, state, received_at, finished_at, change)"
                " VALUES ('1.2.3', 1, 'delivered', ?, ?, 1)",
                ("2026-01-01T00:00:00.000000+00:00",) * 2,
            )
            old.execute(
                "INSERT INTO instances (sop_uid, study_uid, series_uid, sop_class, transfer_syntax, modality,"
                " digest, bytes, revision, source, received_at)"
                " VALUES ('1.2.3.9.77', '1.2.3', '1', '1', '1', 'MR', 'd', 1, 1, 'CT1', '2026')"
            )
        intake = Intake(root, Budget(5, 1))
        assert intake.roles() == {"7": "image"}
        intake.send(1, SEG, Manufacturer="Outpost")
        intake.send(2, PR)
        assert intake.states() == ["delivered"]
        assert intake.sent(3).revision == 2
        intake.journal.close()


def test_the_classes_of_results_are_the_same_at_intake_and_in_the_filter() -> None:
    from outpost.filter.rulefile import known_classes
    from outpost.intake.role import _RESULT_CLASSES

    own = known_classes()["own-result"].when.model_dump_json()
    found = re.search(r'"matches":"(\^[^"]+)"', own)
    assert found is not None
    assert found[1].replace("\\\\", "\\") == f"^{_RESULT_CLASSES.pattern}"
