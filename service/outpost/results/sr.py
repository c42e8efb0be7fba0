"""Findings on images -> a DICOM structured report that says how it was made.

Comprehensive SR (PS3.3 A.35.3), without a template: what is found here has no template of its own. Written with
pydicom alone, as a report is wanted for every radiograph and takes a few milliseconds so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from outpost import __version__
from outpost.durable import write_durably
from outpost.inference.bundle import CodedConcept, ReportTexts
from outpost.results.provenance import MANUFACTURER, Provenance, result_uid, rung_remark, with_remark

# Results stand behind the study's own series; beside the segmentation's, which begins at 9000.
_SERIES_NUMBER: Final = 9100
# Codes of ours (PS3.16 8.2: a private scheme begins with 99).
_SCHEME: Final = "99OUTPOST"
_ENGLISH: Final = CodedConcept(value="en", scheme="RFC5646", meaning="English")
_ENGINE_TEXTS: Final = ("engine", "precision", "rung", "device")

# Of type 1 or 2 in the modules Patient and General Study: present, empty where the sender left them out.
_COPIED: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# Copied only where the sender gave them.
_COPIED_IF_THERE: Final = ("IssuerOfPatientID", "StudyDescription", "TimezoneOffsetFromUTC")


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
) -> Path:
    """Write one report over the images of a study, durably.

    Args:
        reports: at least one; images of one study.
        texts: title and notice, from the bundle.
        provenance: how the findings were made.
        revision: of the study.
        output_dir: an existing folder; the file is named by its SOP Instance UID.

    Returns:
        The file. It appears under its name only once it is complete and on disk.
    """
    first = reports[0].image
    study_uid = str(first.StudyInstanceUID)

    def made_uid(part: str) -> str:
        return result_uid(study_uid, revision, provenance.model, provenance.model_version, part)

    now = datetime.now().astimezone()
    report = Dataset()
    # Names of patients come in any script; the source's own character set need not hold ours.
    report.SpecificCharacterSet = "ISO_IR 192"
    _copy_study(first, report)
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
    report.CurrentRequestedProcedureEvidenceSequence = _evidence(reports, study_uid)

    report.ValueType = "CONTAINER"
    report.ConceptNameCodeSequence = [_code(codes.DCM.ImagingMeasurementReport)]
    report.ContinuityOfContent = "SEPARATE"
    report.ContentSequence = [
        _coded("HAS CONCEPT MOD", codes.DCM.LanguageOfContentItemAndDescendants, _ENGLISH),
        _coded("HAS OBS CONTEXT", codes.DCM.ObserverType, codes.DCM.Device),
        _item("HAS OBS CONTEXT", "UIDREF", codes.DCM.DeviceObserverUID, UID=made_uid("observer")),
        _text("HAS OBS CONTEXT", codes.DCM.DeviceObserverName, provenance.model),
        _text("HAS OBS CONTEXT", codes.DCM.DeviceObserverManufacturer, MANUFACTURER),
        # The first line that is read: on a lower rung it says so.
        _text("CONTAINS", codes.DCM.Summary, with_remark(provenance, f"{texts.title}. {texts.notice}")),
        *_how_made(provenance, revision),
        *(_findings(report, number) for number, report in enumerate(reports, start=1)),
    ]

    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    target = output_dir / f"{report.SOPInstanceUID}.dcm"
    write_durably(target, lambda stream: report.save_as(stream, enforce_file_format=True))
    return target


def _copy_study(image: Dataset, report: Dataset) -> None:
    for keyword in _COPIED:
        setattr(report, keyword, image.get(keyword, ""))
    for keyword in _COPIED_IF_THERE:
        if keyword in image:
            setattr(report, keyword, image[keyword].value)
    if report.PatientSex not in ("M", "F", "O", ""):
        report.PatientSex = "O"


def _evidence(reports: Sequence[ImageReport], study_uid: str) -> list[Dataset]:
    """Every image the report speaks of, by series (PS3.3 C.17.2)."""
    by_series: dict[str, list[Dataset]] = {}
    for report in reports:
        by_series.setdefault(str(report.image.SeriesInstanceUID), []).append(_reference(report.image))
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for series_uid, references in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(series)
    return [study]


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference


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
        concept = CodedConcept(value=probability.code, scheme=_SCHEME, meaning=probability.meaning)
        measured = Dataset()
        measured.NumericValue = DSfloat(round(probability.value, 4), auto_format=True)
        measured.MeasurementUnitsCodeSequence = [_code(codes.UCUM.NoUnits)]
        content.append(_item("CONTAINS", "NUM", concept, MeasuredValueSequence=[measured]))
    return _item(
        "CONTAINS", "CONTAINER", codes.DCM.Findings, ContinuityOfContent="SEPARATE", ContentSequence=content
    )


def _item(relationship: str, value_type: str, concept: Any, **attributes: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [_code(concept)]
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _text(relationship: str, concept: Any, text: str) -> Dataset:
    return _item(relationship, "TEXT", concept, TextValue=text)


def _coded(relationship: str, concept: Any, value: Any) -> Dataset:
    return _item(relationship, "CODE", concept, ConceptCodeSequence=[_code(value)])


def _code(concept: Any) -> Dataset:
    """A code of pydicom's dictionary, or a `CodedConcept`, as a Code Sequence item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = (
        concept.scheme if isinstance(concept, CodedConcept) else concept.scheme_designator
    )
    item.CodeMeaning = concept.meaning
    return item
