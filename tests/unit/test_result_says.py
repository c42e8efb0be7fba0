"""What a result says of itself: in words first, in codes that a program finds, and what it replaces."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage
from test_result_copies import MADE, headers_of, report, saying, segmentation

from outpost.codes.notes import NOTES, Note, NoteCode
from outpost.filter.pixel_codes import PixelCode
from outpost.inference.copying import read_copied
from outpost.results.provenance import MANUFACTURER, Provenance, Replaced, remarks, with_remark
from outpost.results.said import SCHEME, code_value, in_short_text, meaning, told

LACKS = "series 3 holds 91 images, ImagesInAcquisition says 181"
PARTIAL = Note(NoteCode.STUDY_PARTIAL, LACKS)
DOUBTFUL = Note(NoteCode.RESULT_DOUBTFUL, "mask of 2566 ml")
LEFT_OUT = Note(NoteCode.VALUE_LEFT_OUT, "not allowed by DICOM: StudyDate (DA)")
ALL = (PARTIAL, DOUBTFUL, LEFT_OUT)
OLD = (
    Replaced(str(SegmentationStorage), "1.2.3.4", "1.2.3", 1),
    Replaced(str(ComprehensiveSRStorage), "1.2.3.6", "1.2.3.5", 2),
)


def both(folder: Path, made: Provenance) -> tuple[Dataset, Dataset]:
    images = headers_of(folder / "series", saying(PatientID=b"T1"))
    copied = read_copied(images[0])
    return (
        pydicom.dcmread(segmentation(images, folder, copied, made)),
        pydicom.dcmread(report(images, folder, copied, made)),
    )


def saying_of_itself(**changes: object) -> Provenance:
    return dataclasses.replace(MADE, **changes)  # type: ignore[arg-type] # each test names fields of its own


def test_a_part_is_the_first_thing_read_everywhere(tmp_path: Path) -> None:
    seg, sr = both(tmp_path, saying_of_itself(notes=(LEFT_OUT, DOUBTFUL, PARTIAL), rung="192"))
    for made in (seg, sr):
        assert made.SeriesDescription.startswith("PARTIAL, DOUBTFUL, REDUCED. ")
        assert len(made.SeriesDescription) <= 64
    assert seg.ContentDescription.startswith("PARTIAL, DOUBTFUL, REDUCED. ")
    assert len(seg.ContentDescription) <= 64
    described = seg.SegmentSequence[0].SegmentDescription
    assert described == seg.DerivationDescription
    assert described.startswith(f"PARTIAL: not all images of the study were there: {LACKS}. DOUBTFUL: ")
    assert described.endswith("StudyDate (DA)")
    (summary,) = (
        item for item in sr.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == "Summary"
    )
    assert summary.TextValue.startswith("PARTIAL: not all images of the study were there. DOUBTFUL: ")


def test_every_note_is_there_as_a_code(tmp_path: Path) -> None:
    seg, sr = both(tmp_path, saying_of_itself(notes=ALL))
    wanted = {(SCHEME, code_value(note.code)) for note in ALL}
    coded = {(item.CodingSchemeDesignator, item.CodeValue) for item in seg.DerivationCodeSequence}
    assert coded == wanted | {("DCM", "113076")}
    assert "notes=STUDY_PARTIAL RESULT_DOUBTFUL VALUE_LEFT_OUT" in (
        seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    )
    (notes,) = (item for item in sr.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "NOTES")
    codes = [item for item in notes.ContentSequence if item.ValueType == "CODE"]
    assert {
        (item.ConceptCodeSequence[0].CodingSchemeDesignator, item.ConceptCodeSequence[0].CodeValue)
        for item in codes
    } == wanted
    assert codes[0].ContentSequence[0].TextValue == LACKS


def test_a_result_without_notes_says_nothing_of_the_kind(tmp_path: Path) -> None:
    seg, sr = both(tmp_path, MADE)
    assert len(seg.DerivationCodeSequence) == 1
    assert "DerivationDescription" not in seg
    assert "SegmentDescription" not in seg.SegmentSequence[0]
    assert "ReferencedImageSequence" not in seg
    assert "PredecessorDocumentsSequence" not in sr
    assert all(item.ConceptNameCodeSequence[0].CodeValue != "NOTES" for item in sr.ContentSequence)


def test_every_result_is_known_as_ours_by_more_than_its_manufacturer(tmp_path: Path) -> None:
    for made in both(tmp_path, saying_of_itself(notes=ALL)):
        ours = made.ContributingEquipmentSequence[-1]
        purpose = ours.PurposeOfReferenceCodeSequence[0]
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109102", "DCM")
        assert ours.Manufacturer == MANUFACTURER
        assert "brain_extraction 1.0.2, engine torchscript 2.13.0" in ours.ContributionDescription
        assert LACKS in ours.ContributionDescription


def test_a_result_names_those_of_its_kind_that_it_replaces(tmp_path: Path) -> None:
    seg, sr = both(tmp_path, saying_of_itself(replaces=OLD))
    (named,) = seg.ReferencedImageSequence
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (SegmentationStorage, "1.2.3.4")
    assert named.PurposeOfReferenceCodeSequence[0].CodeValue == "REPLACED"
    assert [series.SeriesInstanceUID for series in seg.ReferencedSeriesSequence][1:] == ["1.2.3"]
    (study,) = sr.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == sr.StudyInstanceUID
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.5"
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == ["1.2.3.6"]
    assert seg.SegmentSequence[0].SegmentDescription == "Replaces the result of revision 2"
    assert any(
        "Replaces the result of revision 2. " in item.get("TextValue", "") for item in sr.ContentSequence
    )


def test_dcmtk_reads_a_report_with_all_that_without_a_complaint(tmp_path: Path) -> None:
    images = headers_of(tmp_path / "series", saying(SpecificCharacterSet=None))
    made = saying_of_itself(notes=ALL, replaces=OLD)
    file = report(images, tmp_path, read_copied(images[0]), made)
    read = subprocess.run(["dsrdump", "--verbose", file], capture_output=True, text=True, check=True)
    assert read.stderr == ""
    assert "Predecessor Docs    : 1" in read.stdout
    assert f'(STUDY_PARTIAL,{SCHEME},"PARTIAL' in read.stdout


def test_each_code_has_a_value_of_its_own_that_fits_and_a_meaning_in_ascii() -> None:
    codes = [*NoteCode, *PixelCode, "A_CODE_OF_A_SITE_THAT_IS_LONG", "A_CODE_OF_A_SITE_THAT_IS_LONGER"]
    values = [code_value(code) for code in codes]
    assert len(set(values)) == len(codes)
    assert all(len(value) <= 16 for value in values)
    assert all(text.short.isascii() and len(text.short) <= 64 for text in NOTES.values())
    assert all(meaning(code).isascii() and len(meaning(code)) <= 64 for code in codes)


@pytest.mark.parametrize("length", [64, None])
def test_no_remark_is_lost_behind_another(length: int | None) -> None:
    made = saying_of_itself(notes=(DOUBTFUL, PARTIAL), rung="192")
    text = with_remark(made, "Brain", length)
    assert all(remark.partition(":")[0] in text for remark in remarks(made))
    assert text.endswith("Brain")


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    notes = tuple(Note(NoteCode.OBJECT_LEFT_OUT, f"object {number} " + "x" * 90) for number in range(40))
    text = in_short_text(told(saying_of_itself(notes=(*notes, PARTIAL))))
    assert len(text) <= 1024
    assert text.startswith("PARTIAL")
    assert text.endswith(" more")
    assert len(in_short_text(["y" * 5000])) <= 1024
    both(tmp_path, saying_of_itself(notes=(*notes, PARTIAL)))
