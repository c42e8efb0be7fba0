"""Write a NIfTI head volume as a DICOM MR series with exactly its geometry and voxel values.

`python -m outpost.demo.series OUTPUT [--volume FILE.nii.gz] [--seed TEXT]`

The seed decides patient, study and all UIDs: the same seed gives the same bytes, another seed another study.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path

import numpy as np
from nibabel.funcs import as_closest_canonical
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from outpost.demo import TEMPLATES

_DATE, _TIME = "20260101", "120000"
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UINT16_MAX = 65535


def write_series(volume: Path, output: Path, seed: str = "demo") -> list[Path]:
    """Write one axial slice a file into `output`, which is created.

    Args:
        volume: NIfTI file with whole, non-negative voxel values up to 65535 and perpendicular axes.
        output: folder.
        seed: any text.

    Returns:
        The files from foot to head.

    Raises:
        ValueError: the volume cannot be written without changing a value or its geometry.
    """
    voxels, affine = _load_lps(volume)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / steps
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-4):
        raise ValueError(f"{volume}: its axes are not perpendicular; a DICOM series holds no sheared volume")

    output.mkdir(parents=True, exist_ok=True)
    study, series, frame = (_uid(seed, part) for part in ("study", "series", "frame of reference"))
    files = []
    for index in range(voxels.shape[2]):
        image = _image(voxels[:, :, index].T, _uid(seed, f"image {index}"))
        image.PatientName = f"Artificial^Outpost {seed}"
        image.PatientID = f"OUTPOST-{seed}"[:64]
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.InstanceNumber = index + 1
        image.ImageOrientationPatient = [_decimal(value) for value in directions[:, :2].T.ravel()]
        image.ImagePositionPatient = [_decimal(value) for value in (affine @ [0, 0, index, 1])[:3]]
        image.PixelSpacing = [_decimal(steps[1]), _decimal(steps[0])]
        image.SliceThickness = image.SpacingBetweenSlices = _decimal(steps[2])
        image.DerivationDescription = f"{volume.name} of a software package, not an examination of a patient"
        files.append(output / f"{index + 1:04}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files


def _load_lps(file: Path) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Voxels with axes left, posterior, head (as radiologists view slices) and their affine to LPS mm."""
    image = as_closest_canonical(Nifti1Image.from_filename(file))  # type: ignore[no-untyped-call]  # nibabel's is untyped
    values = np.asanyarray(image.dataobj)
    if values.ndim != 3:
        raise ValueError(f"{file}: has shape {values.shape}; a volume of three dimensions is wanted")
    voxels = values.astype(np.uint16)
    if not np.array_equal(voxels, values):
        raise ValueError(
            f"{file}: its values run from {values.min()} to {values.max()} and may have fractions; "
            f"whole values from 0 to {_UINT16_MAX} are wanted"
        )
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = voxels.shape[0] - 1, voxels.shape[1] - 1
    return voxels[::-1, ::-1], _RAS_TO_LPS @ image.affine @ flip


def _image(pixels: NDArray[np.uint16], uid: UID) -> Dataset:
    """An MR image without patient, study and place. Rows run down, columns to the right."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = MRImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = uid
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, uid
    image.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = _DATE
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = _TIME
    image.AccessionNumber = image.ReferringPhysicianName = image.PatientBirthDate = ""
    image.PatientSex = "O"
    image.StudyID, image.SeriesNumber, image.AcquisitionNumber = "1", 1, 1
    image.Modality, image.Manufacturer, image.BodyPartExamined = "MR", "Outpost demo", "HEAD"
    image.StudyDescription, image.SeriesDescription = "Outpost demo", "T1 template"
    image.PatientPosition, image.PositionReferenceIndicator = "HFS", ""
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "RM", "NONE", ""
    image.MRAcquisitionType = "3D"
    image.RepetitionTime = image.EchoTime = image.EchoTrainLength = None
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.BurnedInAnnotation = "NO"
    image.PixelData = pixels.astype("<u2").tobytes()
    return image


def _uid(seed: str, part: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'outpost demo/{seed}/{part}').int}")


def _decimal(value: float) -> str:
    """The value as a decimal string of at most 16 characters (PS3.5, VR DS), as exact as that allows."""
    for digits in range(15, 0, -1):
        if len(text := f"{value + 0.0:.{digits}g}") <= 16:
            return text
    raise AssertionError(value)


def main() -> int:
    """Write the series and name its folder."""
    parser = argparse.ArgumentParser(prog="python -m outpost.demo.series", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--volume", type=Path, default=TEMPLATES / "ch2.nii.gz")
    parser.add_argument("--seed", default="demo")
    arguments = parser.parse_args()
    try:
        files = write_series(arguments.volume, arguments.output, arguments.seed)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(files)} images in {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
