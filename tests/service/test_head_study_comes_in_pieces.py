"""A head study whose transfer breaks off, and an archive that routes everything back, at the trained brain model."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import MRImageStorage
from running import BEARER, CANARY, Orthanc, Service, wait_for

ROUTE_ALL = """
function OnStoredInstance(instanceId, tags, metadata)
  SendToModality(instanceId, 'outpost')
end
"""
FORCED_SECONDS = 25


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Orthanc]]:
    folder = tmp_path_factory.mktemp("orthanc")
    script = folder / "route.lua"
    script.write_text(ROUTE_ALL)
    orthanc = Orthanc(folder, {}, lua=[script])
    service = Service(
        tmp_path_factory.mktemp("service"),
        [("ORTHANC", orthanc.port)],
        inference={"workers": 1, "optimise_after_idle_seconds": 0},
        study={"quiet_seconds": 0.5, "forced_seconds": FORCED_SECONDS},
    )
    service.start().wait_ready()
    modality = ["OUTPOST", "127.0.0.1", service.dicom_port]
    assert orthanc.http.put("/modalities/outpost", json=modality).status_code == 200
    yield service, orthanc
    assert service.stop() == 0
    assert "Traceback" not in service.log
    assert CANARY not in service.log
    orthanc.stop()


def another(series: Sequence[Path], folder: Path) -> tuple[str, list[Path]]:
    """The series as another study: its UID and its files."""
    study, files = generate_uid(), []
    folder.mkdir()
    for file in series:
        image = dcmread(file)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study[:56]}.1"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        files.append(folder / file.name)
        image.save_as(files[-1])
    return str(study), files


def associate(service: Service, title: str = "MR1") -> Association:
    entity = AE(title)
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    assert opened.is_established
    return opened


def sent(service: Service, files: Sequence[Path]) -> Association:
    opened = associate(service)
    for file in files:
        assert opened.send_c_store(file).Status == 0
    return opened


def held(service: Service, study: str) -> dict[str, object]:
    def waits() -> dict[str, object] | None:
        return next((s for s in service.studies(study) if s["held_for"] == "STUDY_INCOMPLETE"), None)

    found: dict[str, object] = wait_for(waits, 20, "the study waits")
    return found


def segmentations(orthanc: Orthanc, study: str) -> list[str]:
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": "SEG"}}
    found: list[str] = orthanc.http.post("/tools/find", json=query).json()
    return found


def test_a_transfer_that_breaks_off_makes_no_result_until_it_is_made_up_for_or_its_time_is_over(
    looping: tuple[Service, Orthanc], head_series: list[Path], tmp_path: Path
) -> None:
    service, orthanc = looping
    aborted, aborted_files = another(head_series, tmp_path / "aborted")
    posted, posted_files = another(head_series, tmp_path / "posted")
    given_up, given_up_files = another(head_series, tmp_path / "given up")

    sent(service, given_up_files[:126]).abort()
    sent(service, aborted_files[:126]).abort()
    cut_stow(service, posted_files[:126])
    for study in (aborted, posted, given_up):
        waiting = held(service, study)
        assert (waiting["state"], waiting["attempts"], waiting["instances"]) == ("receiving", 0, 126)
        assert waiting["held_until"]
    time.sleep(2)  # four times the quiet time
    for study in (aborted, posted, given_up):
        assert segmentations(orthanc, study) == []
    events = [e["detail"] for e in service.http.get("/events").json() if e["code"] == "STUDY_HELD"]
    assert len(events) == 3
    assert service.http.get("/v2/health/ready").status_code == 200

    # The whole again, and the rest alone.
    sent(service, aborted_files).release()
    assert service.stow(*posted_files[126:]).status_code == 200
    for study in (aborted, posted):
        row = service.wait_outcome(study)
        assert (row["outcome"], row["attempts"]) == ("delivered", 1)
        # The archive's copy of the segmentation is counted with the study as soon as it is back.
        assert row["instances"] in (181, 182)
        assert "STUDY_PARTIAL" not in {note["code"] for note in row["notes"]}
        assert len(segmentations(orthanc, study)) == 1

    # Nobody made up for it: what the bundle's policy says of a part, and never unmarked.
    ended = service.wait_outcome(given_up, seconds=FORCED_SECONDS + 40)
    if ended["outcome"] == "delivered":
        assert "STUDY_PARTIAL" in {note["code"] for note in ended["notes"]}
    else:
        assert ended["reason"] == "STUDY_INCOMPLETE"


def cut_stow(service: Service, files: Sequence[Path]) -> None:
    """A STOW-RS request whose connection is lost before its body has ended."""
    boundary = "a-boundary-of-the-test"
    with socket.create_connection(("127.0.0.1", service.http_port)) as connection:
        connection.sendall(
            (
                "POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
                f"Authorization: {BEARER['Authorization']}\r\n"
                f'Content-Type: multipart/related; type="application/dicom"; boundary={boundary}\r\n\r\n'
            ).encode()
        )
        for file in files:
            head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            connection.sendall(head + file.read_bytes() + b"\r\n")
        connection.sendall(f"--{boundary}\r\n".encode())
        time.sleep(1)


def test_an_archive_that_sends_segmentations_back_makes_no_loop(
    looping: tuple[Service, Orthanc], head_series: list[Path]
) -> None:
    """After the studies above, whose results it has sent back as they came."""
    service, orthanc = looping
    study = str(dcmread(head_series[0]).StudyInstanceUID)
    sent(service, head_series).release()
    assert service.wait_outcome(study)["outcome"] == "delivered"

    def own() -> float:
        found = re.search(r'by_role_total\{role="own"\} ([0-9.]+)', service.http.get("/metrics").text)
        assert found is not None
        return float(found[1])

    wait_for(lambda: own() >= 3, 20, "every segmentation came back")
    time.sleep(2)
    assert [s["state"] for s in service.studies(study)] == ["delivered"]
    assert len(segmentations(orthanc, study)) == 1
    told = [e["detail"] for e in service.http.get("/events").json() if e["code"] == "RESULT_RETURNED"]
    assert len(told) == own(), "one for each study"
