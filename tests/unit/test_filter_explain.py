"""`outpost filter explain` and `outpost filter check`: what a person, and a script, is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filter_headers import write
from pydicom.data import get_testdata_file

from outpost.cli import main
from outpost.filter.page import page

BUNDLE = Path(__file__).resolve().parents[2] / "service" / "bundles" / "brain_extraction"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of a patient named by the canary: a scout, a head of three slices, a dose report."""
    folder = tmp_path / "study"
    write(
        folder, SeriesNumber=1, SeriesInstanceUID="1.1", SeriesDescription="Scout", StudyDescription="Brain"
    )
    for number in range(3):
        write(
            folder, SeriesNumber=2, SeriesInstanceUID="1.2", InstanceNumber=number, StudyDescription="Brain"
        )
    write(
        folder,
        SeriesNumber=9,
        SeriesInstanceUID="1.3",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67",
        Modality="SR",
    )
    return folder


def test_each_rule_is_shown_with_the_value_found_and_the_value_wanted(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", "explain", str(study), "--bundle", str(BUNDLE)]) == 0
    told = capsys.readouterr().out
    assert "3 of 5 instances left (DOSE_REPORT 1, LOCALIZER 1)" in told
    assert "known.localizer (series 1): excluded LOCALIZER  <- decided" in told
    assert "SeriesDescription: found Scout, wanted matches" in told
    assert "known.dose-report (series 9, 1 instances): excluded DOSE_REPORT  <- decided" in told
    assert "modality (series 2): met" in told
    assert "Modality: found MR, wanted equals MR: holds" in told
    assert "modality (series 9): excluded MODALITY_UNWANTED\n" in told  # would have, too; another decided
    assert "body-part (series 2): met" in told
    assert "series 2 is none of: own-result, phantom, dose-report" in told


def test_the_same_is_told_to_machines(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "explain", str(study), "--bundle", str(BUNDLE), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    # The series without slice positions has no orientation; that rule accepts it then.
    assert (found["decision"], found["instances"], found["accepted"]) == ("accept", 5, 3)
    [decided] = [rule for rule in found["rules"] if rule["decided"] and rule["code"] == "LOCALIZER"]
    assert decided["where"] == "series 1"
    looks = [look for look in decided["looks"] if look["what"] == "SeriesDescription"]
    assert {look["found"] for look in looks} == {"Scout"}
    assert any(look["holds"] and "scout" in look["wanted"] for look in looks)


def test_a_rejected_study_and_a_file_that_is_no_dicom_are_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = get_testdata_file("test-SR.dcm", download=False)
    assert main(["filter", "explain", str(report), "--json"]) == 1
    [found] = json.loads(capsys.readouterr().out)
    assert (found["decision"], found["code"]) == ("reject", "STRUCTURED_REPORT")
    (tmp_path / "letter.txt").write_text("no image")
    assert main(["filter", "explain", str(tmp_path)]) == 1
    assert "letter.txt is not readable as DICOM" in capsys.readouterr().out
    assert main(["filter", "explain", str(tmp_path / "nothing")]) == 2


def test_no_value_that_tells_who_the_patient_is_is_ever_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keywords = (
        "PatientName PatientID PatientBirthDate PatientAddress OtherPatientIDs PatientComments AccessionNumber "
        "StudyInstanceUID SeriesInstanceUID SOPInstanceUID StudyDate ReferringPhysicianName InstitutionName "
        "OperatorsName StationName StudyID DeviceSerialNumber ImageComments RequestedProcedureDescription"
    ).split()
    values = {
        keyword: "20010101"
        if keyword.endswith("Date")
        else f"1.2.{n}.777"
        if keyword.endswith("UID")
        else "KANAREYKA777"
        for n, keyword in enumerate(keywords)
    }
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n"
        + "".join(
            f"  - {{name: r{n}, scope: {scope}, require: {{tag: {keyword}, matches: xxx}}}}\n"
            for n, (keyword, scope) in enumerate(
                (keyword, scope) for keyword in keywords for scope in ("instance", "series", "study")
            )
        )
    )
    file = write(tmp_path / "study", **values)
    for form in ([], ["--json"]):
        assert main(["filter", "explain", str(file), "--rules", str(rules), *form]) == 1
        told = capsys.readouterr()
        assert not any(value in told.out + told.err for value in ("KANAREYKA", "20010101", "777"))
        assert "(not shown)" in told.out


def test_a_rule_file_is_checked_and_a_wrong_one_is_named_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", "check", str(BUNDLE / "filter.yaml")]) == 0
    assert "ok, 3 rules, sha256 " in capsys.readouterr().out
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("rules:\n  - name: one\n    require: {tag: Modality, equls: MR}\n")
    assert main(["filter", "check", str(wrong)]) == 1
    assert (
        "line 3: rules[0].require.equls: there is no such key; did you mean equals?"
        in capsys.readouterr().err
    )
    assert main(["filter", "check", str(wrong), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert main(["filter", "explain", str(wrong), "--rules", str(wrong)]) == 2


def test_the_rules_of_a_system_are_those_its_configuration_names(
    tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "site.yaml"
    rules.write_text("known: {localizer: keep, dose-report: keep}\n")
    config = tmp_path / "brain.yaml"
    config.write_text(
        "system: brain\nregion: chita\nrecords: {enabled: false}\n"
        f"storage: {{root: {tmp_path}}}\nfilter: {{rules: {rules}}}\n"
        "delivery: {destinations: [{name: pacs, ae_title: PACS, host: 127.0.0.1, port: 104}]}\n"
    )
    assert main(["filter", "explain", str(study), "--config", str(config)]) == 0
    assert "4 of 5 instances left" in capsys.readouterr().out  # the dose report is still a structured report


def test_the_page_of_the_language_is_what_the_code_says() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert (docs / "filter-rules.md").read_text(encoding="utf-8") == page()
