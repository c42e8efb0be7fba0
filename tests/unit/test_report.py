"""The structured report: what it holds, how it says it was made, and that other readers accept it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, DigitalXRayImageStorageForPresentation

from outpost.inference.bundle import ReportTexts
from outpost.results.provenance import Provenance
from outpost.results.sr import ImageReport, Probability, write_report

MADE = Provenance("radiograph_orientation", "0.1.0", "torch 2.13.0", "float32", "full", "cpu")
REDUCED = dataclasses.replace(MADE, rung="size-192", precision="bfloat16")
TEXTS = ReportTexts(title="Presentation of radiographs", notice="Not a medical device.")
STUDY = "1.2.826.0.1.3680043.8.498.1"


def image(number: int = 1, series: int = 1) -> Dataset:
    header = Dataset()
    header.SOPClassUID = DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID = f"{STUDY}.{series}.{number}"
    header.SeriesInstanceUID = f"{STUDY}.{series}"
    header.StudyInstanceUID = STUDY
    header.PatientID = "P1"
    header.PatientName = "Иванов^Иван"
    return header


def report_file(folder: Path, made: Provenance = MADE, revision: int = 1) -> Path:
    said = (Probability("MIRRORED", "Probability: mirrored", 0.25),)
    reports = [
        ImageReport(image(1), "Chest, frontal (0.99).", said),
        ImageReport(image(2, series=2), "Not read: PIXELS_CONSTANT.", ()),
    ]
    return write_report(reports, TEXTS, made, revision, folder)


def texts(report: Dataset) -> list[str]:
    return [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]


def test_it_says_of_each_image_what_was_found_and_how_sure(tmp_path: Path) -> None:
    report = pydicom.dcmread(report_file(tmp_path))
    assert report.SOPClassUID == ComprehensiveSRStorage
    first, second = (item for item in report.ContentSequence if item.ValueType == "CONTAINER")
    shown, sentence, number = first.ContentSequence
    assert shown.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.1.1"
    assert sentence.TextValue == "Image 1: Chest, frontal (0.99)."
    assert number.ConceptNameCodeSequence[0].CodeValue == "MIRRORED"
    assert number.ConceptNameCodeSequence[0].CodingSchemeDesignator == "99OUTPOST"
    assert number.MeasuredValueSequence[0].NumericValue == 0.25
    assert [item.ValueType for item in second.ContentSequence] == ["IMAGE", "TEXT"]


def test_its_text_says_how_it_was_made(tmp_path: Path) -> None:
    said = texts(pydicom.dcmread(report_file(tmp_path, revision=2)))
    wanted = {
        "radiograph_orientation",
        "0.1.0",
        "engine = torch 2.13.0",
        "precision = float32",
        "rung = full",
        "device = cpu",
        "revision = 2",
    }
    assert wanted <= set(said)


def test_a_reduced_rung_is_the_first_thing_read(tmp_path: Path) -> None:
    reduced = pydicom.dcmread(report_file(tmp_path, REDUCED))
    summary = [
        item.TextValue
        for item in reduced.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Summary"
    ]
    assert summary[0].startswith("REDUCED: rung size-192. Presentation of radiographs")
    assert reduced.SeriesDescription.startswith("REDUCED: rung size-192")
    assert len(reduced.SeriesDescription) <= 64
    assert "REDUCED" not in pydicom.dcmread(report_file(tmp_path)).to_json()


def test_it_is_the_same_object_when_made_again_and_another_for_a_new_revision(tmp_path: Path) -> None:
    once, again, later = (report_file(tmp_path, revision=number) for number in (1, 1, 2))
    assert once == again
    assert once.name != later.name
    first, second = pydicom.dcmread(once), pydicom.dcmread(later)
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID == STUDY
    assert not list(tmp_path.glob("*.partial"))


def test_it_lists_every_image_as_evidence_by_its_series(tmp_path: Path) -> None:
    (study,) = pydicom.dcmread(report_file(tmp_path)).CurrentRequestedProcedureEvidenceSequence
    listed = {
        series.SeriesInstanceUID: [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]
        for series in study.ReferencedSeriesSequence
    }
    assert listed == {f"{STUDY}.1": [f"{STUDY}.1.1"], f"{STUDY}.2": [f"{STUDY}.2.2"]}


@pytest.mark.parametrize("made", [MADE, REDUCED], ids=["full", "reduced"])
def test_dcmtk_reads_it_without_a_complaint(tmp_path: Path, made: Provenance) -> None:
    read = subprocess.run(
        ["dsrdump", "--verbose", report_file(tmp_path, made)], capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    # DCMTK 3.6.7 cannot check characters of UTF-8; nothing else may it say.
    unchecked = "W: The VR checker does not support this Specific Character Set: ISO_IR 192"
    assert set(read.stderr.splitlines()) <= {unchecked}
    assert "Comprehensive SR Document" in read.stdout
    assert "Иванов^Иван" in read.stdout
    assert "engine = torch 2.13.0" in read.stdout
    assert "0.25" in read.stdout


def test_a_probability_of_any_float_fits_its_field(tmp_path: Path) -> None:
    said = tuple(
        Probability(f"P{index}", "p", float(value)) for index, value in enumerate(np.geomspace(1e-12, 1, 9))
    )
    written = write_report([ImageReport(image(), "x", said)], TEXTS, MADE, 1, tmp_path)
    found = pydicom.dcmread(written).ContentSequence[-1].ContentSequence[2:]
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in found] == pytest.approx(
        [one.value for one in said], abs=5e-5
    )
