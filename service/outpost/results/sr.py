"""Findings on images -> a DICOM structured report that says how it was made.

Comprehensive SR (PS3.3 A.35.3), without a template: what is found here has no template of its own. Written with
pydicom alone, as a report is wanted for every radiograph and takes a few milliseconds so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from outpost import __version__
from outpost.durable import write_durably
from outpost.inference.bundle import CodedConcept, ReportTexts
from outpost.results.copied import Copied, copied_from
from outpost.results.provenance import (
    MANUFACTURER,
    Provenance,
    remarks,
    replaces_text,
    result_uid,
    rung_remark,
    with_remark,
)
from outpost.results.said import (
    SCHEME,
    code_item,
    meaning,
    note_code,
    reference,
    replaced_by_series,
    say_maker,
)

# Results stand behind the study's own series; beside the segmentation's, which begins at 9000.
_SERIES_NUMBER: Final = 9100
_ENGLISH: Final = CodedConcept(value="en", scheme="RFC5646", meaning="English")
_ENGINE_TEXTS: Final = ("engine", "precision", "rung", "device")
_NOTES: Final = CodedConcept(value="NOTES", scheme=SCHEME, meaning="What the result says of itself")
_NOTE: Final = CodedConcept(value="NOTE", scheme=SCHEME, meaning="Note")


@dataclass(frozen=True, slots=True)
class Probability:
    """A number of 0 to 1: `code` is of our own scheme, at most 16 characters; `meaning` is read by people."""

    code: str
    meaning: str
    value: float


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What is said of one image.

    Attributes:
        image: its attributes, without pixels.
        text: the finding as a sentence.
        probabilities: what the sentence rests on; none where the image was not read.
    """

    image: Dataset
    text: str
    probabilities: tuple[Probability, ...]


def write_report(
    reports: Sequence[ImageReport],
    texts: ReportTexts,
    provenance: Provenance,
    revision: int,
    output_dir: Path,
    copied: Copied | None = None,
) -> Path:
    """Write one report over the images of a study, durably.

    Args:
        reports: at least one; images of one study.
        texts: title and notice, from the bundle.
        provenance: how the findings were made.
        revision: of the study.
        output_dir: an existing folder; the file is named by its SOP Instance UID.
        copied: patient and study; left out, taken from the first image.

    Returns:
        The file. It appears under its name only once it is complete and on disk.
    """
    copied = copied or copied_from(reports[0].image)
    study_uid = str(reports[0].image.StudyInstanceUID)

    def made_uid(part: str) -> str:
        return result_uid(study_uid, revision, provenance.model, provenance.model_version, part)

    now = copied.now()
    report = Dataset()
    report.SOPClassUID = uid.ComprehensiveSRStorage
    report.SOPInstanceUID = made_uid("report")
    report.InstanceCreationDate = now.strftime("%Y%m%d")
    report.InstanceCreationTime = now.strftime("%H%M%S")
    report.Modality = "SR"
    report.SeriesInstanceUID = made_uid("report-series")
    report.SeriesNumber = _SERIES_NUMBER + revision
    report.SeriesDescription = with_remark(
        provenance, f"{texts.title} by {provenance.model} {provenance.model_version}", 64
    )
    report.ReferencedPerformedProcedureStepSequence = []
    report.Manufacturer = MANUFACTURER
    report.ManufacturerModelName = provenance.model[:64]
    report.SoftwareVersions = __version__
    report.DeviceSerialNumber = provenance.device[:64]
    report.InstanceNumber = 1
    report.CompletionFlag = "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"
    report.ContentDate = report.InstanceCreationDate
    report.ContentTime = report.InstanceCreationTime
    report.PerformedProcedureCodeSequence = []
    if replaced := replaced_by_series(provenance.replaces, uid.ComprehensiveSRStorage):
        report.PredecessorDocumentsSequence = [_by_series(replaced, study_uid)]
    report.CurrentRequestedProcedureEvidenceSequence = _evidence(reports, study_uid)

    report.ValueType = "CONTAINER"
    report.ConceptNameCodeSequence = [code_item(codes.DCM.ImagingMeasurementReport)]
    report.ContinuityOfContent = "SEPARATE"
    report.ContentSequence = [
        _coded("HAS CONCEPT MOD", codes.DCM.LanguageOfContentItemAndDescendants, _ENGLISH),
        _coded("HAS OBS CONTEXT", codes.DCM.ObserverType, codes.DCM.Device),
        _item("HAS OBS CONTEXT", "UIDREF", codes.DCM.DeviceObserverUID, UID=made_uid("observer")),
        _text("HAS OBS CONTEXT", codes.DCM.DeviceObserverName, provenance.model),
        _text("HAS OBS CONTEXT", codes.DCM.DeviceObserverManufacturer, MANUFACTURER),
        # The first line that is read: of a part, in doubt, or on a lower rung it says so.
        _text("CONTAINS", codes.DCM.Summary, _summary(texts, provenance)),
        *_notes(provenance),
        *_how_made(provenance, revision),
        *(_findings(report, number) for number, report in enumerate(reports, start=1)),
    ]

    say_maker(report, provenance, revision, now)
    copied.put_into(report)
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    target = output_dir / f"{report.SOPInstanceUID}.dcm"
    write_durably(target, lambda stream: report.save_as(stream, enforce_file_format=True))
    return target


def _evidence(reports: Sequence[ImageReport], study_uid: str) -> list[Dataset]:
    """Every image the report speaks of, by series (PS3.3 C.17.2)."""
    found: dict[str, list[Dataset]] = {}
    for report in reports:
        found.setdefault(str(report.image.SeriesInstanceUID), []).append(_reference(report.image))
    return [_by_series(found, study_uid)]


def _by_series(found: dict[str, list[Dataset]], study_uid: str) -> Dataset:
    """References by series as the item of one study (PS3.3 Table C.17-3)."""
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for series_uid, references in found.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(series)
    return study


def _reference(image: Dataset) -> Dataset:
    return reference(str(image.SOPClassUID), str(image.SOPInstanceUID))


def _summary(texts: ReportTexts, provenance: Provenance) -> str:
    replaces = replaces_text(provenance)
    title = f"{replaces}. {texts.title}" if replaces else texts.title
    return with_remark(provenance, f"{title}. {texts.notice}")


def _notes(provenance: Provenance) -> list[Dataset]:
    """What the result says of itself: each note as a code, with its facts as text below it; none, no container."""
    items = []
    for note in provenance.notes:
        item = _item("CONTAINS", "CODE", _NOTE, ConceptCodeSequence=[note_code(note)])
        if note.detail:
            item.ContentSequence = [_text("HAS PROPERTIES", codes.DCM.Comment, note.detail)]
        items.append(item)
    told = [_text("CONTAINS", codes.DCM.Comment, remark) for remark in remarks(provenance)]
    told += [
        _text("CONTAINS", codes.DCM.Comment, meaning(code))
        for code in dict.fromkeys(note.code for note in provenance.notes)
        if meaning(code) not in remarks(provenance)
    ]
    if not items:
        return []
    return [
        _item("CONTAINS", "CONTAINER", _NOTES, ContinuityOfContent="SEPARATE", ContentSequence=told + items)
    ]


def _how_made(provenance: Provenance, revision: int) -> list[Dataset]:
    made_with = [f"{name} = {getattr(provenance, name)}" for name in _ENGINE_TEXTS]
    made_with.append(f"revision = {revision}")
    if remark := rung_remark(provenance):
        made_with.append(remark)
    return [
        _text("CONTAINS", codes.DCM.AlgorithmName, provenance.model),
        _text("CONTAINS", codes.DCM.AlgorithmVersion, provenance.model_version),
        *(_text("CONTAINS", codes.DCM.AlgorithmParameters, text) for text in made_with),
    ]


def _findings(report: ImageReport, number: int) -> Dataset:
    source = _item("CONTAINS", "IMAGE", codes.DCM.SourceOfMeasurement)
    source.ReferencedSOPSequence = [_reference(report.image)]
    content = [source, _text("CONTAINS", codes.DCM.Finding, f"Image {number}: {report.text}")]
    for probability in report.probabilities:
        concept = CodedConcept(value=probability.code, scheme=SCHEME, meaning=probability.meaning)
        measured = Dataset()
        measured.NumericValue = DSfloat(round(probability.value, 4), auto_format=True)
        measured.MeasurementUnitsCodeSequence = [code_item(codes.UCUM.NoUnits)]
        content.append(_item("CONTAINS", "NUM", concept, MeasuredValueSequence=[measured]))
    return _item(
        "CONTAINS", "CONTAINER", codes.DCM.Findings, ContinuityOfContent="SEPARATE", ContentSequence=content
    )


def _item(relationship: str, value_type: str, concept: Any, **attributes: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code_item(concept)]
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _text(relationship: str, concept: Any, text: str) -> Dataset:
    return _item(relationship, "TEXT", concept, TextValue=text)


def _coded(relationship: str, concept: Any, value: Any) -> Dataset:
    return _item(relationship, "CODE", concept, ConceptCodeSequence=[code_item(value)])
