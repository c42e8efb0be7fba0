"""Radiographs in the running service: two patients in one study are held, a broken image is said to be missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hostile import Elements, elements_of, part10, put
from pydicom import dcmread
from pydicom.uid import generate_uid
from running import ROOT, Service, StoreScp

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreScp]:
    pacs = StoreScp(tmp_path_factory.mktemp("pacs")).start()
    yield pacs
    pacs.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, pacs: StoreScp) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("radiographs") / "service",
        [("PACS", pacs.port)],
        inference={
            "bundle": str(ROOT / "service" / "bundles" / "radiograph_orientation"),
            "workers": 1,
            "optimise_after_idle_seconds": 86400,
        },
    )
    yield service.start().wait_ready()
    service.stop()


@pytest.fixture(scope="module")
def chest() -> Elements:
    return elements_of(Path(str(distribution("pydicom-data").locate_file("data_store/data/RG1_UNCR.dcm"))))


def write(folder: Path, study: str, chest: Elements, number: int, **values: bytes) -> Path:
    image = dict(chest)
    put(image, "StudyInstanceUID", study.encode())
    put(image, "SeriesInstanceUID", generate_uid().encode())
    put(image, "SOPInstanceUID", generate_uid().encode())
    put(image, "SeriesNumber", str(number).encode())
    for keyword, value in values.items():
        put(image, keyword, value, "IS" if keyword == "Rows" else "")
    file = folder / f"{number}.dcm"
    file.write_bytes(part10(image))
    return file


def test_two_radiographs_of_two_patients_are_held(service: Service, chest: Elements, tmp_path: Path) -> None:
    """Q1, by C-STORE."""
    study = str(generate_uid())
    write(tmp_path, study, chest, 1, PatientID=b"1", PatientName=b"First^One", PatientBirthDate=b"19500101")
    write(tmp_path, study, chest, 2, PatientID=b"2", PatientName=b"Second^Two", PatientBirthDate=b"19600101")
    assert service.storescu(tmp_path).returncode == 0
    row = service.wait_outcome(study)
    assert (row["outcome"], row["reason"]) == ("quarantined", "TWO_PATIENTS")
    head, _, counts = row["detail"].partition("; objects of each: ")
    assert head == "2 identities in 2 objects: PatientID, PatientName, PatientBirthDate differ"
    assert sorted(counts.split("; ")) == ["1 in series 1", "1 in series 2"]
    # A person looked at it and answers for it: it is computed, and the note stays.
    again = service.http.post(f"/studies/{study}/resubmit", params={"skip_filter": "true"})
    assert again.status_code == 200, again.text
    row = service.wait_outcome(study, revision=2)
    assert row["outcome"] == "delivered"
    assert "for which this study was not held" in str(row["notes"])


def test_a_radiograph_that_cannot_be_read_is_missing_in_the_report_and_the_report_says_so(
    service: Service, pacs: StoreScp, chest: Elements, tmp_path: Path
) -> None:
    study = str(generate_uid())
    files = [write(tmp_path, study, chest, 1), write(tmp_path, study, chest, 2, Rows=b"N/A")]
    before = set(pacs.folder.iterdir())
    assert service.stow(*files).status_code == 200
    row = service.wait_outcome(study)
    assert row["outcome"] == "delivered"
    assert "IMAGES_NOT_READ" in str(row["notes"])
    [report] = set(pacs.folder.iterdir()) - before
    assert "PARTIAL" in dcmread(report).SeriesDescription


def test_seven_studies_of_one_scanner_with_zeros_for_a_birth_date_make_nothing_unready(
    service: Service, chest: Elements, tmp_path: Path
) -> None:
    """ST, on the way of reports, which took two workers a study."""
    looks: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            looks.append(service.http.get("/v2/health/ready").status_code)

    thread = threading.Thread(target=look)
    thread.start()
    studies = []
    for number in range(8):
        studies.append(str(generate_uid()))
        values = {"PatientBirthDate": b"00000000", "StudyTime": b"10:15:00"} if number < 7 else {}
        assert service.stow(write(tmp_path, studies[-1], chest, number + 1, **values)).status_code == 200
    rows = [service.wait_outcome(study, seconds=30) for study in studies]
    ended.set()
    thread.join()
    assert rows[-1]["outcome"] == "delivered"
    assert all(row["outcome"] in ("delivered", "quarantined") for row in rows)
    assert set(looks) == {200}, f"{len(looks) - looks.count(200)} of {len(looks)} looks found it not ready"
