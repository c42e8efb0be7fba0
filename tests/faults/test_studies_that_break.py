"""Studies that break what reads or writes them: each ends under its own code, and hurts no other and not the host."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hostile import Elements, elements_of, get, new_instance, part10, put
from mr_series import ball, write_mr_series
from pydicom.uid import (
    EnhancedMRImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from running import StoreScp
from switchable import SwitchableService

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwitchableService]:
    root = tmp_path_factory.mktemp("breaking")
    pacs = StoreScp(root / "pacs").start()
    service = SwitchableService(root / "service", [("PACS", pacs.port)], inference={"workers": 1})
    service.start().wait_ready()
    yield service
    service.stop()
    pacs.stop()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> list[Elements]:
    files = write_mr_series(tmp_path_factory.mktemp("head"), ball(value=500))
    return sorted((elements_of(file) for file in files), key=lambda one: int(get(one, "InstanceNumber")))


class Study:
    """A copy of the head with UIDs of its own, changed as a test wants it."""

    def __init__(self, head: Sequence[Elements], folder: Path) -> None:
        self.uid = str(generate_uid())
        self.folder = folder
        self.images = [dict(one) for one in head]
        series = str(generate_uid())
        for image in self.images:
            put(image, "StudyInstanceUID", self.uid.encode())
            put(image, "SeriesInstanceUID", series.encode())
            put(image, "SOPInstanceUID", str(generate_uid()).encode())

    def every(self, keyword: str, value: bytes, vr: str = "") -> Study:
        for image in self.images:
            put(image, keyword, value, vr)
        return self

    def add(self, kind: str, series: str = "", **values: bytes) -> Elements:
        """Another object of the study."""
        image = new_instance(self.images[0], len(self.images))
        put(image, "SOPInstanceUID", str(generate_uid()).encode())
        put(image, "SOPClassUID", kind.encode())
        put(image, "SeriesInstanceUID", (series or str(generate_uid())).encode())
        for keyword, value in values.items():
            put(image, keyword, value)
        self.images.append(image)
        return image

    def files(self, images: Sequence[Elements] | None = None) -> list[Path]:
        folder = self.folder / self.uid
        folder.mkdir(exist_ok=True)
        paths = []
        for image in images if images is not None else self.images:
            paths.append(folder / f"{get(image, 'SOPInstanceUID')}.dcm")
            paths[-1].write_bytes(part10(image))
        return paths

    def send(self, service: SwitchableService, images: Sequence[Elements] | None = None) -> str:
        """By STOW, which looks at bytes alone."""
        reply = service.stow(*self.files(images))
        assert reply.status_code == 200, reply.text
        return self.uid


@pytest.fixture
def study(head: list[Elements], tmp_path: Path) -> Callable[[], Study]:
    return lambda: Study(head, tmp_path)


@contextmanager
def watched(service: SwitchableService) -> Iterator[list[bool]]:
    """Whether the service was ready, at every look meanwhile."""
    looks: list[bool] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            looks.append(service.ready())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()


def worker_of(service: SwitchableService) -> list[str]:
    assert service.process is not None
    tasks = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    return sorted(pid for task in tasks for pid in task.read_text().split())


def test_a_run_of_studies_that_cannot_be_written_leaves_worker_and_readiness_alone(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    """ST: seven of them, then a good one."""
    before = worker_of(service)
    service.fault("misshapen")
    with watched(service) as looks:
        bad = [study().send(service) for _ in range(7)]
        rows = [service.wait_outcome(one) for one in bad]
        service.fault()
        began = time.monotonic()
        good = service.wait_outcome(study().send(service))
        took = time.monotonic() - began
    assert [(row["outcome"], row["reason"], row["attempts"]) for row in rows] == [
        ("quarantined", "STUDY_UNUSUAL", 1)
    ] * 7
    assert rows[0]["detail"].startswith("writing: ValueError"), rows[0]["detail"]
    assert rows[0]["detail"].endswith("; the golden case passes")
    assert good["outcome"] == "delivered"
    assert took < 20
    assert len(looks) > 20
    assert all(looks), f"not ready in {looks.count(False)} of {len(looks)} looks"
    assert worker_of(service) == before, "a worker was replaced"
    assert service.http.get("/health/light").json()["status"] != "failed"


def test_a_scanner_that_writes_no_birth_date_but_zeros_makes_nothing_unready(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    with watched(service) as looks:
        rows = []
        for value, when in ((b"00000000", b"20261332"), (b"unknown", b"10:15:00"), (b"19731231CANARY", b"x")):
            one = study().every("PatientBirthDate", value).every("StudyDate", when)
            rows.append(service.wait_outcome(one.send(service)))
    assert all(looks)
    for row in rows:
        assert (row["outcome"], row["reason"]) == ("delivered", "")
        assert "CANARY" not in str(row)
    assert "CANARY" not in service.log


def test_a_model_that_raises_is_told_by_type_and_costs_no_worker(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    before = worker_of(service)
    service.fault("raise", text="Invalid value for VR DA: '19731231KANAREYKA'")
    with watched(service) as looks:
        row = service.wait_outcome(study().send(service))
    service.fault()
    assert (row["outcome"], row["reason"]) == ("quarantined", "INFERENCE_ERROR")
    assert row["detail"].startswith("computing: RuntimeError")
    assert "KANAREYKA" not in str(row) + service.log
    assert all(looks)
    assert worker_of(service) == before


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (SecondaryCaptureImageStorage, {"NumberOfFrames": b"N/A"}),  # B1
        (GrayscaleSoftcopyPresentationStateStorage, {"Rows": b"64\\72", "Modality": b"PR"}),  # B2, as text
        ("1.2.840.10008.5.1.4.1.1.88.11", {"Columns": b"@\0@\0", "Modality": b"SR"}),
        ("1.2.840.10008.5.1.4.1.1.481.3", {"SamplesPerPixel": b"one", "Modality": b"RTSTRUCT"}),
        (
            EnhancedMRImageStorage,
            {"SharedFunctionalGroupsSequence": b"\xfe\xff\x00\xe0\x08\x00\x00\x00\x10\x00\x10\x00PN\xff\xff"},
        ),
        ("1.3.46.670589.11.0.0.12.2", {"NumberOfFrames": b"-2"}),  # Philips' private storage
    ],
    ids=["B1", "B2", "SR", "RTSTRUCT", "enhanced", "private"],
)
def test_a_broken_foreign_object_is_left_out_and_the_head_is_computed(
    service: SwitchableService, study: Callable[[], Study], kind: str, values: dict[str, bytes]
) -> None:
    one = study()
    whole = len(one.images)
    extra = one.add(kind, **values)
    if "Rows" in values:  # two values of US
        put(extra, "Rows", b"\x40\0\x48\0", "US")
    row = service.wait_outcome(one.send(service))
    assert (row["outcome"], row["reason"], row["instances"]) == ("delivered", "", whole + 1), row
    if kind != EnhancedMRImageStorage:  # its sequence is never looked into for a head of single slices
        assert "OBJECT_LEFT_OUT" in str(row["notes"])
        assert "1 of " in str(row["notes"])
    assert extra  # it is there


@pytest.mark.parametrize("keyword", ["Rows", "NumberOfFrames"])
def test_a_broken_image_of_the_series_itself_is_not_taken_for_no_image(
    service: SwitchableService, study: Callable[[], Study], keyword: str
) -> None:
    """At the end of the stack, where no gap would show."""
    one = study()
    put(one.images[-1], keyword, b"N/A", "IS")
    row = service.wait_outcome(one.send(service))
    assert (row["outcome"], row["reason"]) == ("rejected", "HEADER_UNREADABLE")
    assert f"1 of MR Image Storage: {keyword} (ValueError)" in row["detail"]


def test_a_study_of_which_nothing_can_be_read_says_so(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    row = service.wait_outcome(study().every("Columns", b"wide", "LO").send(service))
    assert (row["outcome"], row["reason"]) == ("rejected", "HEADER_UNREADABLE")
    assert row["detail"].startswith("none of 70 objects can be read (70 of MR Image Storage: Columns")


def test_two_patients_in_one_series_are_held_before_anything_is_computed(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    """P2: another patient from slice 45 on."""
    one = study()
    for image in one.images[45:]:
        put(image, "PatientID", b"P-KANAREYKA")
        put(image, "PatientName", b"KANAREYKA^PETR")
    row = service.wait_outcome(one.send(service))
    assert (row["outcome"], row["reason"]) == ("quarantined", "TWO_PATIENTS")
    # Whichever object lies first on the disk.
    head, _, counts = row["detail"].partition("; objects of each: ")
    assert head == "2 identities in 70 objects: PatientID, PatientName differ"
    assert sorted(counts.split("; ")) == ["25 in series 1", "45 in series 1"]
    kept = service.storage / "quarantine" / "TWO_PATIENTS" / f"{one.uid}.r1"
    assert len(list(kept.glob("*.dcm"))) == 70
    assert "KANAREYKA" not in service.log


def test_the_images_of_another_patient_that_come_later_are_held_as_a_revision(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    one = study()
    first = list(one.images)
    one.send(service)
    assert service.wait_outcome(one.uid)["outcome"] == "delivered"
    late = one.add(MRImageStorage, PatientID=b"OTHER", PatientName=b"Other^One")
    one.send(service, [late])
    row = service.wait_outcome(one.uid, revision=2)
    assert (row["outcome"], row["reason"]) == ("quarantined", "TWO_PATIENTS")
    assert f"in {len(first) + 1} objects" in row["detail"]


def test_one_patient_written_in_two_ways_is_computed_and_said_so(
    service: SwitchableService, study: Callable[[], Study]
) -> None:
    one = study()
    for image in one.images[45:]:
        put(image, "PatientName", b"TEST^HEAD")
    row: dict[str, Any] = service.wait_outcome(one.send(service))
    assert row["outcome"] == "delivered"
    assert "PatientName: case" in str(row["notes"])
    assert "IDENTITY_VARIES" in str(row["notes"])


# --- nobody is named outside the files ---

_NAMING = {
    "PatientName": b"KANAREYKA^ANNA\\KANAREYKA",
    "PatientID": b"KANAREYKA-4711",
    "PatientBirthDate": b"19731231KANAREYKA",  # H21
    "PatientSex": b"kanareyka-KANAREYKA",
    "PatientAge": b"KANAREYKA",
    "StudyDate": b"2026KANAREYKA",
    "StudyTime": b"10:15:KANAREYKA",
    "StudyID": b"KANAREYKA",
    "AccessionNumber": b"KANAREYKA\\KANAREYKA",
    "ReferringPhysicianName": b"KANAREYKA=KANAREYKA=KANAREYKA=KANAREYKA",
    "SeriesNumber": b"KANAREYKA",
    "InstanceNumber": b"KANAREYKA",
    "SeriesDescription": b"KANAREYKA " * 20,
    "StudyDescription": b"KANAREYKA",
    "ProtocolName": b"KANAREYKA",
    "Manufacturer": b"KANAREYKA^A",
    "ManufacturerModelName": b"KANAREYKA^A",
    "BodyPartExamined": b"kanareyka KANAREYKA",
    "IssuerOfPatientID": b"KANAREYKA",
    "OtherPatientIDs": b"KANAREYKA",
    "OtherPatientNames": b"KANAREYKA",
    "PatientComments": b"KANAREYKA",
    "SpecificCharacterSet": b"KANAREYKA",
    "StationName": b"KANAREYKA",
    "InstitutionName": b"KANAREYKA",
    "TimezoneOffsetFromUTC": b"KANAREYKA",
    "KVP": b"KANAREYKA",
    "SpacingBetweenSlices": b"KANAREYKA",
    "SliceThickness": b"KANAREYKA",
    "ImagesInAcquisition": b"KANAREYKA",
    "AcquisitionNumber": b"KANAREYKA",
    "EchoNumbers": b"KANAREYKA",
    "TemporalPositionIdentifier": b"KANAREYKA",
}
_DECIDING = (
    "Modality ImageType PhotometricInterpretation Rows Columns NumberOfFrames SamplesPerPixel PixelSpacing "
    "FrameOfReferenceUID ImageOrientationPatient ImagePositionPatient RescaleSlope RescaleIntercept "
    "BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue WindowCenter"
).split()


def said(service: SwitchableService) -> str:
    """All that the service says of studies: its log, its journal but for what lets a study be found, and its API."""
    told = [service.log]
    with sqlite3.connect(service.storage / "journal.sqlite3") as journal:
        for (table,) in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            told += map(repr, journal.execute(f"SELECT * FROM {table}"))
    for path in (
        "/",
        "/metrics",
        "/events",
        "/studies",
        "/quarantine",
        "/quarantine/report",
        "/quarantine/summary",
        "/health/light",
        "/drift",
    ):
        told.append(service.http.get(path).text)
    for item in service.http.get("/quarantine").json()["items"][::2]:
        shown = service.http.get(f"/quarantine/{item['item']}")
        assert shown.status_code == 200
        told.append(shown.text)
    return "\n".join(told)


def test_no_value_of_any_attribute_gets_out(
    service: SwitchableService, study: Callable[[], Study], tmp_path: Path
) -> None:
    studies = []
    for name in ("delivered or written in vain", "the model raises", "broken off in writing"):
        one = study()
        for keyword, value in _NAMING.items():
            one.every(keyword, value)
        for image in one.images:
            image[0x00091001] = ("LO", b"KANAREYKA ")
            image[0x00090010] = ("LO", b"KANAREYKA ")
        if name == "the model raises":
            service.fault("raise", text="With tag (0010,0010) got exception: KANAREYKA")
        elif name != "delivered or written in vain":
            service.fault("misshapen")
        studies.append(one.send(service))
        service.wait_outcome(one.uid)
    service.fault()
    # By C-STORE, one attribute that decides in each image: left out, refused by the rules, or by the stack.
    mixed = study()
    for image, keyword in zip(mixed.images, _DECIDING, strict=False):
        put(image, keyword, b"kanareyka^KANAREYKA")
    sent = service.storescu(*mixed.files(), options=["-xe"])
    assert sent.returncode == 0, sent.stderr
    studies.append(mixed.uid)
    for keyword in (
        "Modality",
        "PhotometricInterpretation",
        "ImageType",
        "ImagePositionPatient",
        "RescaleSlope",
    ):
        studies.append(study().every(keyword, b"kanareyka^KANAREYKA").send(service))
    two = study()
    put(two.images[0], "PatientName", b"KANAREYKA^PETR")
    put(two.images[0], "PatientID", b"KANAREYKA")
    studies.append(two.send(service))
    refused = tmp_path / "refused.dcm"
    one = study().images[0]
    put(one, "StudyInstanceUID", b"KANAREYKA")
    refused.write_bytes(part10(one))
    assert service.stow(refused).status_code == 409
    rows = [service.wait_outcome(uid) for uid in studies]
    assert {"TWO_PATIENTS", "STUDY_UNUSUAL", "INFERENCE_ERROR"} <= {row["reason"] for row in rows}
    told = said(service)
    assert len(told) > 10_000
    where = [told[max(0, m.start() - 80) : m.end() + 20] for m in re.finditer("(?i)kanareyka", told)]
    assert not where, where[:5]
    assert not [uid for uid in studies if uid in service.log], "a UID stands in the log"
