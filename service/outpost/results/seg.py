"""A mask over DICOM slices -> a DICOM segmentation that says where it comes from and how it was made.

The library that builds it is given images made here, of nothing but identity and the geometry that was computed with:
what a sender wrote into names, dates and optional geometry can neither stop it nor end in the result unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as CodedEntry
from pydicom.uid import SegmentationStorage
from pydicom.valuerep import DSfloat

from outpost import __version__
from outpost.durable import write_durably
from outpost.inference.bundle import CodedConcept, Segment
from outpost.results.copied import Copied, copied_from
from outpost.results.grid import Grid
from outpost.results.provenance import MANUFACTURER, Provenance, result_uid, with_remark
from outpost.results.said import (
    code_item,
    in_short_text,
    made_with,
    note_code,
    own_code,
    replaced_by_series,
    say_maker,
    told,
)

# Results stand behind the study's own series, which scanners number from 1 and PACS from 1000 at most.
_SERIES_NUMBER = 9000


def write_segmentation(
    images: Sequence[Dataset],
    mask: NDArray[np.bool_],
    grid: Grid,
    segment: Segment,
    provenance: Provenance,
    revision: int,
    output_dir: Path,
    copied: Copied | None = None,
) -> Path:
    """Write a binary segmentation of one segment, durably.

    Args:
        images: attributes of the segmented images, one a slice; of them identity alone is looked at.
        mask: array of (slice, row, column), slices in the order of `images`.
        grid: where its voxels lie.
        segment: how the mask is named and coded.
        provenance: how it was made, what it says of itself, and what it replaces.
        revision: of the study.
        output_dir: an existing folder; the file is named by its SOP Instance UID.
        copied: patient and study; left out, taken from the first image.

    Returns:
        The file. It appears under its name only once it is complete and on disk.
    """
    copied = copied or copied_from(images[0])
    study_uid = str(images[0].StudyInstanceUID)

    def uid(part: str) -> str:
        return result_uid(study_uid, revision, provenance.model, provenance.model_version, part)

    parameters = made_with(provenance, revision)
    if provenance.notes:
        parameters["notes"] = " ".join(dict.fromkeys(note.code for note in provenance.notes))
    description = SegmentDescription(
        segment_number=1,
        segment_label=segment.label,
        segmented_property_category=_entry(segment.category),
        segmented_property_type=_entry(segment.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=provenance.model,
            version=provenance.model_version,
            family=codes.cid7162.ArtificialIntelligence,
            source=MANUFACTURER,
            parameters=parameters,
        ),
        tracking_uid=uid("tracking"),
        tracking_id=f"{provenance.model} {segment.label}",
    )
    # Readers take the frames for one block: an empty slice between others stays in, those at the ends go.
    first, last = _extent(mask)
    now = copied.now()
    dataset = Segmentation(
        source_images=_bare(images, grid),
        pixel_array=mask[first : last + 1],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        plane_positions=[
            hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, grid.position(index))
            for index in range(first, last + 1)
        ],
        omit_empty_frames=False,
        series_instance_uid=uid("series"),
        series_number=_SERIES_NUMBER + revision,
        sop_instance_uid=uid("segmentation"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=provenance.model,
        software_versions=__version__,
        device_serial_number=provenance.device,
        content_label="SEGMENTATION",
        content_description=with_remark(
            provenance, f"{provenance.engine}, {provenance.precision}, rung {provenance.rung}", 64
        ),
        content_date=now.date(),
        content_time=now.time(),
        series_description=with_remark(
            provenance, f"{segment.label} by {provenance.model} {provenance.model_version}", 64
        ),
    )
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.ContentDate, dataset.ContentTime
    _say_notes(dataset, provenance)
    _say_replaced(dataset, provenance)
    say_maker(dataset, provenance, revision, now)
    copied.put_into(dataset)
    target = output_dir / f"{dataset.SOPInstanceUID}.dcm"
    write_durably(target, lambda stream: dataset.save_as(stream, enforce_file_format=True))
    return target


def _entry(concept: CodedConcept) -> CodedEntry:
    return CodedEntry(concept.value, concept.scheme, concept.meaning)


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """First and last slice in which the mask has a voxel; of an empty mask, all."""
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    return (int(filled[0]), int(filled[-1])) if len(filled) else (0, len(mask) - 1)


def _bare(images: Sequence[Dataset], grid: Grid) -> list[Dataset]:
    """Images of which only identity is the sender's; their geometry is the grid's, all else empty."""
    first = images[0]
    shared = Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(shared, keyword, str(first[keyword].value))
    shared.FrameOfReferenceUID = "2.25.0"  # the sender's own takes its place as it is
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
    ):
        setattr(shared, keyword, "")
    shared.StudyDate = shared.StudyTime = shared.ReferringPhysicianName = None
    shared.Modality = ""
    shared.Rows, shared.Columns = first.Rows, first.Columns
    shared.ImageOrientationPatient = [_decimal(value) for value in grid.orientation]
    shared.PixelSpacing = [_decimal(value) for value in grid.pixel_spacing]
    shared.SliceThickness = shared.SpacingBetweenSlices = _decimal(grid.slice_spacing)
    if any(_says(image, "LossyImageCompression") == "01" for image in images):
        shared.LossyImageCompression = "01"
    made = []
    for index, image in enumerate(images):
        bare = Dataset()
        bare.update(shared)
        bare.SOPClassUID, bare.SOPInstanceUID = str(image.SOPClassUID), str(image.SOPInstanceUID)
        bare.ImagePositionPatient = [_decimal(value) for value in grid.position(index)]
        made.append(bare)
    return made


def _decimal(value: float) -> DSfloat:
    return DSfloat(value, auto_format=True)


def _says(image: Dataset, keyword: str) -> str:
    try:
        return str(image.get(keyword, ""))
    except Exception:  # pydicom decodes a value when it is first looked at, and raises many types
        return ""


def _say_notes(dataset: Dataset, provenance: Provenance) -> None:
    dataset.DerivationCodeSequence = [
        code_item(codes.cid7203.SegmentationImageDerivation),
        *({note.code: note_code(note) for note in provenance.notes}).values(),
    ]
    if said := in_short_text(told(provenance)):
        dataset.DerivationDescription = said
        dataset.SegmentSequence[0].SegmentDescription = said


def _say_replaced(dataset: Dataset, provenance: Provenance) -> None:
    """References to earlier results, each also where the standard wants every reference listed."""
    by_series = replaced_by_series(provenance.replaces, SegmentationStorage)
    if not by_series:
        return
    purpose = own_code("REPLACED", "Result that this one replaces")
    dataset.ReferencedImageSequence = []
    for series_uid, references in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedInstanceSequence = references
        # Behind the segmented series: viewers take the first for it.
        dataset.ReferencedSeriesSequence.append(series)
        for reference in references:
            named = Dataset()
            named.update(reference)
            named.PurposeOfReferenceCodeSequence = [purpose]
            dataset.ReferencedImageSequence.append(named)
