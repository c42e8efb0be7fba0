"""What comes to a study beside its images, or comes again: loops, foreign objects, removed files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from running import CANARY, ROOT, Orthanc, Service, wait_for

RADIOGRAPHS = ROOT / "service" / "bundles" / "radiograph_orientation"
# Orthanc sends every new object of a study on, as the Orthanc book shows for auto-routing.
ROUTE_ALL = """
function OnStoredInstance(instanceId, tags, metadata)
  SendToModality(instanceId, 'outpost')
end
"""
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Orthanc]]:
    """The radiograph system and an archive that sends everything back to it."""
    folder = tmp_path_factory.mktemp("orthanc")
    script = folder / "route.lua"
    script.write_text(ROUTE_ALL)
    orthanc = Orthanc(folder, {}, lua=[script])
    service = Service(
        tmp_path_factory.mktemp("service"),
        [("ORTHANC", orthanc.port)],
        inference={"bundle": str(RADIOGRAPHS), "workers": 1, "optimise_after_idle_seconds": 0},
        storage={"keep_delivered_hours": 3 / 3600},
        study={"quiet_seconds": 0.5, "forced_seconds": 60},
    )
    service.start().wait_ready()
    modality = ["OUTPOST", "127.0.0.1", service.dicom_port]
    assert orthanc.http.put("/modalities/outpost", json=modality).status_code == 200
    yield service, orthanc
    assert service.stop() == 0
    assert "Traceback" not in service.log
    assert CANARY not in service.log
    orthanc.stop()


def radiographs(folder: Path, count: int) -> tuple[str, list[Path]]:
    """A study of real chest radiographs: its UID and its files."""
    source = Path(str(distribution("pydicom-data").locate_file("data_store/data/RG1_UNCR.dcm")))
    study, files = generate_uid(), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = dcmread(source)
        image.PatientName, image.PatientID = f"{CANARY}^A", CANARY
        image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study[:56]}.1"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{study[:56]}.1.{number}"
        files.append(folder / f"{number}.dcm")
        image.save_as(files[-1])
    return str(study), files


def beside(image: Path, target: Path, sop_class: str, modality: str, **values: str) -> Path:
    """An object of another class in the study of an image, without its pixels."""
    source = dcmread(image, stop_before_pixels=True)
    found = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID"):
        setattr(found, keyword, source.get(keyword, ""))
    found.file_meta = source.file_meta
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = sop_class
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    found.SeriesInstanceUID, found.Modality = generate_uid(), modality
    for keyword, value in values.items():
        setattr(found, keyword, value)
    found.save_as(target, enforce_file_format=True)
    return target


def metric(service: Service, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", service.http.get("/metrics").text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def returned(service: Service) -> list[str]:
    return [e["detail"] for e in service.http.get("/events").json() if e["code"] == "RESULT_RETURNED"]


def reports(orthanc: Orthanc, study: str) -> list[Dataset]:
    """The SRs that the archive holds of a study."""
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": "SR"}}
    names = orthanc.http.post("/tools/find", json=query).json()
    return [dcmread(BytesIO(orthanc.http.get(f"/instances/{name}/file").content)) for name in names]


def images_in(report: Dataset) -> set[str]:
    """SOP Instance UIDs of the images that a report is about, by its evidence."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def test_an_archive_that_sends_every_new_object_back_gets_one_report_and_makes_no_loop(
    looping: tuple[Service, Orthanc], tmp_path: Path
) -> None:
    service, orthanc = looping
    study, files = radiographs(tmp_path / "images", 2)
    for file in files:
        assert orthanc.http.post("/instances", content=file.read_bytes()).status_code == 200
    assert service.wait_outcome(study)["outcome"] == "delivered"
    wait_for(lambda: metric(service, 'outpost_instances_by_role_total{role="own"}') >= 1, 20, "it came back")
    time.sleep(3)  # six times the quiet time: a loop would have turned
    revisions = service.studies(study)
    assert [r["state"] for r in revisions] == ["delivered"] * len(revisions)
    assert len(revisions) == len(reports(orthanc, study)) <= 2, "two only where the images came apart"
    [event] = returned(service)
    assert "ORTHANC sends results of Outpost back" in event


def test_results_come_back_by_other_ways_changed_by_others_and_from_another_outpost(
    looping: tuple[Service, Orthanc], tmp_path: Path
) -> None:
    """By STOW-RS and under new UIDs; as a SEG of a system that this journal does not know; in a wrapping of a PACS."""
    service, orthanc = looping
    study, files = radiographs(tmp_path / "images", 1)
    assert service.storescu(files[0]).returncode == 0
    assert service.wait_outcome(study)["outcome"] == "delivered"
    [report] = wait_for(lambda: reports(orthanc, study), 20, "the archive holds the report")
    own = metric(service, 'outpost_instances_by_role_total{role="own"}')
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    report.SeriesInstanceUID = generate_uid()
    report.save_as(tmp_path / "renamed.dcm")
    assert service.stow(tmp_path / "renamed.dcm").status_code == 200
    other = beside(
        files[0], tmp_path / "seg.dcm", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", Manufacturer="Outpost"
    )
    wrapped = dcmread(beside(files[0], tmp_path / "sc.dcm", "1.2.840.10008.5.1.4.1.1.7", "OT"))
    by = Dataset()
    by.Manufacturer = "Outpost"
    wrapped.ContributingEquipmentSequence = [by]
    wrapped.save_as(tmp_path / "sc.dcm")
    assert service.storescu(other, options=["-R"]).returncode == 0
    assert service.stow(tmp_path / "sc.dcm").status_code == 200
    wait_for(
        lambda: metric(service, 'outpost_instances_by_role_total{role="own"}') >= own + 3,
        10,
        "all three known",
    )
    time.sleep(2)
    [row] = service.studies(study)
    assert (row["state"], row["revision"]) == ("delivered", 1)
    # A result alone, of a study whose images were never here: no model is run for it.
    alone = beside(
        files[0], tmp_path / "alone.dcm", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", Manufacturer="Outpost"
    )
    lone = dcmread(alone)
    lone.StudyInstanceUID = generate_uid()
    lone.save_as(alone)
    assert service.storescu(alone, options=["-R"]).returncode == 0
    ended = service.wait_outcome(str(lone.StudyInstanceUID))
    assert (ended["outcome"], ended["reason"], ended["rung"]) == ("rejected", "OWN_RESULT", "")


def test_objects_that_no_model_reads_wake_no_study_and_lie_with_its_files(
    looping: tuple[Service, Orthanc], tmp_path: Path
) -> None:
    service, _ = looping
    study, files = radiographs(tmp_path / "images", 1)
    kinds = [(PRESENTATION_STATE, "PR"), (KEY_OBJECT, "KO"), (ENCAPSULATED_PDF, "DOC"), (RAW_DATA, "CR")]
    objects = [beside(files[0], tmp_path / f"{number}.dcm", *kind) for number, kind in enumerate(kinds)]
    # Alone, they end by the filter's word; the image then makes the study one that is computed, with them beside it.
    assert service.storescu(objects[0]).returncode == 0
    first = service.wait_outcome(study)
    assert (first["outcome"], first["reason"]) == ("rejected", "PRESENTATION_STATE")
    assert service.storescu(objects[1]).returncode == 0
    kept = service.storage / "quarantine" / "PRESENTATION_STATE" / f"{study}.r1"
    wait_for(lambda: len(list(kept.iterdir())) == 2, 10, "the second lies beside the first")
    assert not (service.storage / "spool" / study).exists()
    assert service.storescu(files[0]).returncode == 0
    second = service.wait_outcome(study, revision=2)
    assert (second["outcome"], second["modality"]) == ("delivered", "CR")
    assert service.stow(*objects[2:]).status_code == 200
    time.sleep(2)
    revisions = service.studies(study)
    assert [r["state"] for r in revisions] == ["rejected", "delivered"]
    assert revisions[1]["instances"] == 6, "an image, four objects, and the report that the archive sent back"
    spool = service.storage / "spool" / study
    wait_for(lambda: not spool.exists(), 20, "all files go together")
    # Later still: it is kept for its time, and goes, too.
    late = beside(files[0], tmp_path / "late.dcm", PRESENTATION_STATE, "PR")
    assert service.storescu(late).returncode == 0
    assert len(list(spool.iterdir())) == 1
    wait_for(lambda: not spool.exists(), 20, "what came late goes, too")
    assert len(service.studies(study)) == 2


def test_a_study_whose_files_were_removed_and_that_is_sent_again_is_computed_whole_or_known(
    looping: tuple[Service, Orthanc], tmp_path: Path
) -> None:
    """Old images first, new first, mixed over two associations, and nothing new at all."""
    service, orthanc = looping
    cases = {
        name: radiographs(tmp_path / name, 4) for name in ("old first", "new first", "apart", "nothing new")
    }
    for _, files in cases.values():
        assert service.storescu(*files[:3]).returncode == 0
    for study, _ in cases.values():
        assert service.wait_outcome(study)["outcome"] == "delivered"
    spool = service.storage / "spool"
    wait_for(lambda: not [s for s, _ in cases.values() if (spool / s).exists()], 30, "all files are removed")

    study, files = cases["nothing new"]
    assert service.storescu(*files[:3]).returncode == 0
    assert len(list((spool / study).iterdir())) == 3, "kept again: a new one may be on its way"
    _, files = cases["old first"]
    assert service.storescu(*files).returncode == 0
    _, files = cases["new first"]
    assert service.stow(*reversed(files)).status_code == 200
    _, files = cases["apart"]
    assert service.storescu(files[1], files[3]).returncode == 0
    time.sleep(1.5)  # longer than the quiet time: the study is read, and its other images are awaited
    assert service.storescu(files[0], files[2]).returncode == 0
    for name in ("old first", "new first", "apart"):
        study, files = cases[name]
        second = service.wait_outcome(study, revision=2)
        assert (name, second["outcome"]) == (name, "delivered")
        whole = {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}
        made = wait_for(lambda s=study: [r for r in reports(orthanc, s) if len(images_in(r)) == 4], 20, name)
        assert [images_in(report) for report in made] == [whole]
        assert len(service.studies(study)) == 2
    study, _ = cases["nothing new"]
    assert [r["state"] for r in service.studies(study)] == ["delivered"], "known, and not computed again"
    wait_for(lambda: not (spool / study).exists(), 30, "its files go again")
