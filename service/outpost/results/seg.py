"""A mask over DICOM slices -> a DICOM segmentation that says where it comes from and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as CodedEntry
from pydicom.valuerep import DSfloat

from outpost import __version__
from outpost.durable import write_durably
from outpost.inference.bundle import CodedConcept, Segment
from outpost.results.provenance import MANUFACTURER, Provenance, result_uid, with_remark

# Results stand behind the study's own series, which scanners number from 1 and PACS from 1000 at most.
_SERIES_NUMBER = 9000
# Attributes of type 2 (present, may be empty) which a segmentation copies from its source image. Senders
# leave them out; that is no reason to lose a result.
_COPIED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_SEXES = ("M", "F", "O", "")


def write_segmentation(
    sources: Sequence[Path | Dataset],
    mask: NDArray[np.bool_],
    segment: Segment,
    provenance: Provenance,
    revision: int,
    output_dir: Path,
) -> Path:
    """Write a binary segmentation of one segment, durably.

    Args:
        sources: the segmented images, one a slice: files, or what was read of them (it is completed here).
        mask: array of (slice, row, column), slices in the order of `sources`.
        segment: how the mask is named and coded.
        provenance: how it was made.
        revision: of the study.
        output_dir: an existing folder; the file is named by its SOP Instance UID.

    Returns:
        The file. It appears under its name only once it is complete and on disk.
    """
    images = [
        pydicom.dcmread(source, stop_before_pixels=True) if isinstance(source, Path) else source
        for source in sources
    ]
    # Patient and study are copied from the first; of the others only geometry and UIDs are taken.
    _complete_source(images[0])
    _complete_thickness(images)
    study_uid = str(images[0].StudyInstanceUID)

    def uid(part: str) -> str:
        return result_uid(study_uid, revision, provenance.model, provenance.model_version, part)

    made_with = {
        "engine": provenance.engine,
        "precision": provenance.precision,
        "rung": provenance.rung,
        "device": provenance.device,
        "revision": str(revision),
    }
    algorithm = hd.AlgorithmIdentificationSequence(
        name=provenance.model,
        version=provenance.model_version,
        family=codes.cid7162.ArtificialIntelligence,
        source=MANUFACTURER,
        parameters=made_with,
    )
    dataset = Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            SegmentDescription(
                segment_number=1,
                segment_label=segment.label,
                segmented_property_category=_entry(segment.category),
                segmented_property_type=_entry(segment.type),
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=uid("tracking"),
                tracking_id=f"{provenance.model} {segment.label}",
            )
        ],
        series_instance_uid=uid("series"),
        series_number=_SERIES_NUMBER + revision,
        sop_instance_uid=uid("segmentation"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=provenance.model,
        software_versions=__version__,
        device_serial_number=provenance.device,
        content_label="SEGMENTATION",
        content_description=f"{provenance.engine}, {provenance.precision}, rung {provenance.rung}"[:64],
        series_description=with_remark(
            provenance, f"{segment.label} by {provenance.model} {provenance.model_version}", 64
        ),
        # Names of patients come in any script; the source's own character set need not hold ours.
        specific_character_set="ISO_IR 192",
    )
    target = output_dir / f"{dataset.SOPInstanceUID}.dcm"
    write_durably(target, lambda stream: dataset.save_as(stream, enforce_file_format=True))
    return target


def _entry(concept: CodedConcept) -> CodedEntry:
    return CodedEntry(concept.value, concept.scheme, concept.meaning)


def _complete_source(image: Dataset) -> None:
    """Decode the texts of a source image, and make present what a segmentation copies of it."""
    image.decode()
    for keyword in _COPIED:
        if keyword not in image:
            setattr(image, keyword, "")
    if image.PatientSex not in _SEXES:
        image.PatientSex = "O"


def _complete_thickness(images: Sequence[Dataset]) -> None:
    """Give slices without a thickness the distance between them, which their positions tell."""
    first, last = (
        np.array(image.ImagePositionPatient, dtype=np.float64) for image in (images[0], images[-1])
    )
    distance = float(np.linalg.norm(last - first)) / (len(images) - 1)
    for image in images:
        if not image.get("SliceThickness"):
            image.SliceThickness = DSfloat(distance, auto_format=True)
