"""The attributes of an image by which series are chosen and stacked, read without touching its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from outpost.inference.codes import Code, InputRejected
from outpost.intake.header import read_attributes


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """One image file. Lengths are millimetres in the patient coordinate system (LPS, PS3.3 C.7.6.2.1.1).

    `dataset` holds every attribute that stands before the pixels, each decoded when it is first looked at, and
    `pixels_at` is where in the file they begin (bytes), so that a file is parsed once a study.
    `orientation` holds the six direction cosines, `position` the centre of the first pixel, `pixel_spacing`
    the distance between rows, then between columns; each is None where the attribute is absent or malformed.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    series_number: int | None
    series_description: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    samples_per_pixel: int
    photometric_interpretation: str
    frame_of_reference_uid: str
    orientation: NDArray[np.float64] | None
    position: NDArray[np.float64] | None
    pixel_spacing: NDArray[np.float64] | None
    dataset: FileDataset = field(repr=False, compare=False)
    pixels_at: int


def read_headers(paths: Sequence[Path]) -> list[ImageHeader]:
    """Read all files of a study. Raises as `read_header` does, at the first that is broken."""
    return [read_header(path) for path in paths]


def read_header(path: Path) -> ImageHeader:
    """Read one file.

    Raises:
        InputRejected: HEADER_UNREADABLE if the file is not DICOM or is broken.
    """
    try:
        with path.open("rb") as file:
            dataset = read_attributes(file)
            pixels_at = file.tell()
        return ImageHeader(
            path=path,
            sop_class_uid=str(dataset.get("SOPClassUID", "")),
            sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
            series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
            series_number=_number(dataset, "SeriesNumber"),
            series_description=str(dataset.get("SeriesDescription", "")),
            modality=str(dataset.get("Modality", "")),
            image_type=tuple(str(value).upper() for value in _values(dataset.get("ImageType"))),
            rows=int(dataset.get("Rows") or 0),
            columns=int(dataset.get("Columns") or 0),
            frames=int(dataset.get("NumberOfFrames") or 1),
            samples_per_pixel=int(dataset.get("SamplesPerPixel") or 1),
            photometric_interpretation=str(dataset.get("PhotometricInterpretation", "")),
            frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
            orientation=_floats(dataset.get("ImageOrientationPatient"), 6),
            position=_floats(dataset.get("ImagePositionPatient"), 3),
            pixel_spacing=_floats(dataset.get("PixelSpacing"), 2),
            dataset=dataset,
            pixels_at=pixels_at,
        )
    # pydicom reports broken files by many types: its own, OSError, EOFError, ValueError, struct.error,
    # NotImplementedError. A hostile file must not end the worker, so all of them mean one thing here.
    except Exception as error:
        raise InputRejected(
            Code.HEADER_UNREADABLE, f"{path.name} is not readable as DICOM ({type(error).__name__})"
        ) from error


def _number(dataset: Dataset, keyword: str) -> int | None:
    """None also where it is malformed: a number that only names something shall cost no study."""
    try:
        value = dataset.get(keyword)
        return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _values(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _floats(value: Any, count: int) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([float(item) for item in _values(value)], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and bool(np.isfinite(numbers).all()) else None
