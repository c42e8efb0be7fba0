"""Small DICOM MR series for tests: real files on disk, with one thing changed where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

Edit = Callable[[Dataset, int], None]


def write_mr_series(
    folder: Path,
    volume: NDArray[np.uint16],
    *,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-100.0, -100.0, -50.0),
    pixel_spacing: Sequence[float] = (2.0, 2.0),
    slice_spacing: float = 2.0,
    study: str | None = None,
    number: int = 1,
    description: str = "T1",
    edit: Edit | None = None,
) -> list[Path]:
    """Write a volume of (slice, row, column), one slice a file; `edit` may change each before that."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    study, series, frame = study or generate_uid(), generate_uid(), generate_uid()
    files = []
    for index, pixels in enumerate(volume):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.SpecificCharacterSet = "ISO_IR 192"
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Modality, image.SeriesNumber, image.InstanceNumber = "MR", number, index + 1
        image.SeriesDescription = description
        image.PatientName, image.PatientID, image.PatientSex, image.PatientBirthDate = (
            "Test^Head",
            "T1",
            "O",
            "",
        )
        image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = (
            "20260101",
            "120000",
            "1",
            "A1",
        )
        image.ReferringPhysicianName = ""
        image.ImageOrientationPatient = [float(value) for value in orientation]
        image.ImagePositionPatient = [
            float(value) for value in np.add(origin, normal * slice_spacing * index)
        ]
        image.PixelSpacing, image.SliceThickness = list(pixel_spacing), slice_spacing
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows, image.Columns = pixels.shape
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = pixels.astype("<u2").tobytes()
        if edit is not None:
            edit(image, index)
        image.file_meta.MediaStorageSOPClassUID = image.get("SOPClassUID", MRImageStorage)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        # Names that sort in another order than the slices do.
        files.append(folder / f"{(index * 7919) % 10007:05}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files


def ball(shape: tuple[int, int, int] = (70, 64, 72), value: int = 500) -> NDArray[np.uint16]:
    """A bright ball off the centre of a noisy dark volume of (slice, row, column)."""
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    centre = np.array(shape).reshape(3, 1, 1, 1) * np.array([0.4, 0.5, 0.6]).reshape(3, 1, 1, 1)
    volume = np.random.default_rng(1).integers(0, 40, shape).astype(np.uint16)
    volume[((grid - centre) ** 2).sum(axis=0) < (min(shape) / 4) ** 2] = value
    return volume
