"""The header verdict in the running service: what is left out, rejected with its reason, and how rules change under
studies on their way without one being lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from running import CANARY, Service, StoreScp, wait_for

MR_ONLY = "rules:\n  - {name: mr, require: {tag: Modality, equals: MR}, code: MODALITY_UNWANTED}\n"
NO_KANAREYKA = (
    "about: the site's own reason\n"
    "rules:\n  - {name: site, require: {tag: PatientName, equals: Nobody}, code: SITE_NOT_OURS}\n"
)
BAD = "rules:\n  - {name: mr, require: {tag: Modalty, equals: MR}}\n"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("site") / "filter.yaml"
    file.write_text(MR_ONLY)
    return file


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreScp]:
    pacs = StoreScp(tmp_path_factory.mktemp("pacs")).start()
    yield pacs
    pacs.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, pacs: StoreScp, rules: Path) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("service"),
        [("STORESCP", pacs.port)],
        filter={"rules": str(rules)},
        inference={"workers": 1},
    )
    service.start().wait_ready()
    yield service
    assert service.stop() == 0
    assert "Traceback" not in service.log
    assert CANARY not in service.log


def check(service: Service) -> tuple[bool, str]:
    verdict = service.http.get("/health/light").json()
    found = next(check for check in verdict["checks"] if check["code"] == "FILTER_RULES")
    return found["ok"], str(found["value"])


def events(service: Service, code: str) -> list[str]:
    return [event["detail"] for event in service.http.get("/events").json() if event["code"] == code]


def a_study(images: list[Path], folder: Path, with_scout: bool = False) -> tuple[str, Path]:
    """The images as another study; with a localizer beside them where that is asked for."""
    study, series = generate_uid(), generate_uid()
    folder.mkdir()
    for file in images:
        image = dcmread(file)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(folder / file.name)
    if with_scout:
        image = dcmread(images[0])
        image.StudyInstanceUID, image.SeriesInstanceUID = study, generate_uid()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.ImageType, image.SeriesNumber = ["ORIGINAL", "PRIMARY", "LOCALIZER"], 99
        image.save_as(folder / "scout.dcm")
    return str(study), folder


def test_a_localizer_in_a_good_study_is_left_out_and_the_rest_goes_on(
    service: Service, head_series: list[Path], tmp_path: Path
) -> None:
    study, folder = a_study(head_series, tmp_path / "good", with_scout=True)
    assert service.storescu(folder).returncode == 0
    ended = service.wait_outcome(study)
    assert (ended["outcome"], ended["instances"]) == ("delivered", 182)
    assert "of 182 instances left out: LOCALIZER 1 (rules " in service.log
    assert 'outpost_instances_left_out_total{reason="LOCALIZER"} 1.0' in service.http.get("/metrics").text


def test_a_report_is_rejected_by_its_name_and_nothing_of_it_is_deleted(service: Service) -> None:
    report = Path(str(get_testdata_file("test-SR.dcm", download=False)))
    assert service.stow(report).status_code == 200
    ended = service.wait_outcome(str(dcmread(report).StudyInstanceUID))
    assert (ended["outcome"], ended["reason"]) == ("rejected", "STRUCTURED_REPORT")
    assert list((service.storage / "quarantine").rglob("*.dcm"))


def test_rules_change_while_studies_come_and_each_ends_by_one_of_them(
    service: Service, rules: Path, head_series: list[Path], tmp_path: Path
) -> None:
    few = head_series[60:64]  # too few for the model: rejected by it, or before it by the site's rule
    studies = [a_study(few, tmp_path / str(number)) for number in range(8)]
    for number, (_, folder) in enumerate(studies):
        if number == 3:
            rules.write_text(NO_KANAREYKA)
        if number == 5:
            wait_for(lambda: len(events(service, "FILTER_RULES_CHANGED")) == 2, 10, "the new rules judge")
            rules.write_text(BAD)
        assert service.storescu(folder).returncode == 0
    ends = [service.wait_outcome(study) for study, _ in studies]
    assert {end["outcome"] for end in ends} == {"rejected"}
    assert {end["reason"] for end in ends} <= {"NO_SERIES_FOR_BUNDLE", "SITE_NOT_OURS"}
    assert ends[0]["reason"] == "NO_SERIES_FOR_BUNDLE"

    # The wrong file judges nobody: health says so with the line, and the rules before it go on.
    wait_for(lambda: not check(service)[0], 10, "health sees the wrong rule file")
    ok, value = check(service)
    assert not ok
    assert "filter.yaml: line 2: rules[0].require.tag: 'Modalty'" in value
    assert service.http.get("/v2/health/ready").status_code == 200  # degraded, not failed
    [refused] = events(service, "FILTER_RULES_REFUSED")
    assert "goes on judging" in refused
    study, folder = a_study(few, tmp_path / "during")
    assert service.storescu(folder).returncode == 0
    ended = service.wait_outcome(study)
    assert ended["reason"] == "SITE_NOT_OURS"
    judging = refused.rpartition("; ")[2].split()[0]
    assert f"rules {judging}" in ended["detail"]

    rules.write_text(MR_ONLY)
    wait_for(lambda: check(service)[0], 10, "health sees the right rule file")
    study, folder = a_study(few, tmp_path / "after")
    assert service.storescu(folder).returncode == 0
    assert service.wait_outcome(study)["reason"] == "NO_SERIES_FOR_BUNDLE"
    assert len(events(service, "FILTER_RULES_CHANGED")) == 3
    assert CANARY not in str(service.http.get("/events").json()) + str(ends)


def test_a_wrong_rule_file_stops_the_start_with_line_and_reason(tmp_path: Path) -> None:
    rules = tmp_path / "filter.yaml"
    rules.write_text(BAD)
    service = Service(tmp_path / "service", [("PACS", 104)], filter={"rules": str(rules)})
    with pytest.raises(AssertionError, match=r"ended with 1"):
        service.start()
    assert f"{rules}: 1 fault" in service.log
    assert "line 2: rules[0].require.tag: 'Modalty' is no keyword" in service.log
    assert "did you mean Modality?" in service.log
