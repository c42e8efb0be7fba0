"""A real series through the running service and its trained model to Orthanc and DCMTK, and what befalls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from running import CANARY, ROOT, Orthanc, Service, StoreScp, wait_for

SEG_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreScp]:
    pacs = StoreScp(tmp_path_factory.mktemp("pacs")).start()
    yield pacs
    pacs.stop()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"), {})
    yield orthanc
    orthanc.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, pacs: StoreScp, orthanc: Orthanc) -> Iterator[Service]:
    destinations = [("ORTHANC", orthanc.port), ("STORESCP", pacs.port)]
    service = Service(tmp_path_factory.mktemp("service"), destinations).start().wait_ready()
    yield service
    assert service.stop() == 0
    assert "Traceback" not in service.log


def another_study(
    series: list[Path], folder: Path, *, without: tuple[int, ...] = ()
) -> tuple[str, list[Path]]:
    """The series as another study, some slices left out: its UID and its files."""
    study, images = generate_uid(), []
    series_uid = generate_uid()
    for index, file in enumerate(series):
        if index in without:
            continue
        image = dcmread(file)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series_uid
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        images.append(folder / file.name)
        image.save_as(images[-1])
    return str(study), images


def test_a_series_sent_by_orthanc_comes_back_as_one_segmentation_everywhere_and_a_late_image_makes_a_revision(
    service: Service, orthanc: Orthanc, pacs: StoreScp, head_series: list[Path]
) -> None:
    study = str(dcmread(head_series[0]).StudyInstanceUID)
    modality = ["OUTPOST", "127.0.0.1", service.dicom_port]
    assert orthanc.http.put("/modalities/outpost", json=modality).status_code == 200
    *most, last = head_series
    sent = [orthanc.http.post("/instances", content=file.read_bytes()).json()["ID"] for file in most]
    assert orthanc.http.post("/modalities/outpost/store", json=sent).status_code == 200

    first = service.wait_outcome(study)
    assert (first["outcome"], first["instances"], first["reason"]) == ("delivered", 180, "")
    assert (first["model"], first["precision"], first["rung"]) == ("brain_extraction", "float32", "full")
    [first_result] = pacs.instances()

    assert service.storescu(last).returncode == 0
    second = service.wait_outcome(study, revision=2)
    assert (second["outcome"], second["instances"]) == ("delivered", 181)
    results = pacs.instances()
    assert len(results) == 2
    assert first_result in results

    found = orthanc.http.post(
        "/tools/find",
        json={"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": "SEG"}, "Expand": True},
    ).json()
    assert sorted(i["MainDicomTags"]["SOPInstanceUID"] for i in found) == sorted(results)


def test_what_was_delivered_and_is_sent_again_is_not_computed_again(
    service: Service, pacs: StoreScp, head_series: list[Path]
) -> None:
    study = str(dcmread(head_series[0]).StudyInstanceUID)
    before = (len(service.studies(study)), sorted(pacs.instances()))
    assert service.storescu(head_series[0].parent).returncode == 0
    wait_for(lambda: not service.http.get("/studies?state=receiving").json(), 5, "nothing is being received")
    assert (len(service.studies(study)), sorted(pacs.instances())) == before


def test_a_broken_study_is_rejected_with_its_reason_and_a_worker_killed_in_the_next_is_replaced(
    service: Service, head_series: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "sound").mkdir()
    broken, broken_files = another_study(head_series, tmp_path / "broken", without=(90,))
    sound, _ = another_study(head_series, tmp_path / "sound")
    assert service.storescu(tmp_path / "broken").returncode == 0
    assert service.storescu(tmp_path / "sound").returncode == 0

    service.wait_state(sound, "inferring")
    workers = subprocess.run(
        ["pgrep", "--parent", str(service.process.pid if service.process else 0)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)

    rejected = service.wait_outcome(broken)
    assert (rejected["outcome"], rejected["reason"]) == ("rejected", "SLICES_MISSING")
    assert "Send the missing images" in rejected["remedy"]
    kept = service.storage / "quarantine" / "SLICES_MISSING" / f"{broken}.r1"
    assert len(list(kept.glob("*.dcm"))) == len(broken_files)
    assert not (service.storage / "spool" / broken).exists()

    delivered = service.wait_outcome(sound)
    assert (delivered["outcome"], delivered["attempts"]) == ("delivered", 2)
    assert "WORKER_DIED; trying once more" in service.log
    service.wait_ready()


def test_the_heavy_verdict_computes_the_golden_case_and_metrics_count_what_happened(service: Service) -> None:
    service.wait_ready()
    heavy = service.http.get("/health/heavy")
    assert heavy.status_code == 200
    checks = {check["code"]: check for check in heavy.json()["checks"]}
    assert checks["GOLDEN_PASSED"]["value"] >= 0.995
    assert checks["GOLDEN_RECENT"]["value"] < 60  # of the lane longest without one
    assert service.http.get("/v2/models/brain_extraction/ready").json() == {
        "name": "brain_extraction",
        "ready": True,
    }
    assert service.http.get("/v2/models/other/ready").status_code == 404
    metrics = service.http.get("/metrics").text
    assert 'outpost_studies_total{outcome="delivered",reason=""} 3.0' in metrics
    assert 'outpost_studies_total{outcome="rejected",reason="SLICES_MISSING"} 1.0' in metrics
    assert "outpost_inference_seconds_count 3.0" in metrics
    assert "outpost_ready 1.0" in metrics


def test_the_pages_load_nothing_from_elsewhere(service: Service) -> None:
    for path in ("/", "/docs"):
        page = service.http.get(path)
        assert page.status_code == 200
        lines = [line for line in page.text.splitlines() if not line.lstrip().startswith("// ")]
        assert "//" not in "".join(lines)
    assert "/dicom-web/studies" in service.http.get("/openapi.json").json()["paths"]


def test_no_log_names_a_patient_or_a_study(service: Service, head_series: list[Path], tmp_path: Path) -> None:
    """The canary also comes in what cannot be read, and in paths of requests."""
    image = dcmread(head_series[0])
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.{CANARY}"
    image.save_as(tmp_path / "unsafe.dcm")
    assert service.stow(tmp_path / "unsafe.dcm").status_code == 409
    image = dcmread(head_series[0])
    image.PatientComments = f"{CANARY} another"
    image.save_as(tmp_path / "conflict.dcm")
    assert service.storescu(tmp_path / "conflict.dcm").returncode != 0
    assert service.http.get(f"/studies/{CANARY}").status_code == 404

    log = service.log
    assert "CONTENT_CONFLICT" in log
    assert "UID_UNSAFE" in log
    assert CANARY not in log
    uids = {str(s["study_uid"]) for s in service.http.get("/studies").json()}
    assert uids
    assert not [uid for uid in uids if uid in log]
    assert CANARY not in service.http.get("/metrics").text


def test_the_command_line_sends_and_tests_itself(
    service: Service, head_series: list[Path], tmp_path: Path
) -> None:
    outpost = [str(ROOT / ".venv" / "bin" / "outpost")]
    peer = ["send", "--host", "127.0.0.1", "--port"]
    sent = subprocess.run(
        [*outpost, *peer, str(service.dicom_port), str(head_series[0].parent)], capture_output=True, text=True
    )
    assert (sent.returncode, sent.stdout.split(" confirmed")[0]) == (0, "181 of 181 files")
    (tmp_path / "text").write_text("not DICOM")
    nothing = subprocess.run(
        [*outpost, *peer, str(service.dicom_port), str(tmp_path)], capture_output=True, text=True
    )
    assert nothing.returncode == 1
    assert "no DICOM files in this folder" in nothing.stderr
    tested = subprocess.run(
        [*outpost, "selftest", "--json", "--config", str(service.config_file)], capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    verdict = json.loads(tested.stdout)
    # All is well but for one thing: nobody has measured the engines on this host yet.
    assert [check["code"] for check in verdict["checks"] if not check["ok"]] == ["ENGINE_MEASURED"]
