"""Studies to send: real files once, then as many studies of the same images as wanted, each with its own UIDs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

BOUNDARY = "a-boundary-of-the-benchmark"
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
# Of one length and unlike anything else in a file, so that a serial number is replaced in the encoded bytes.
_PREFIX = "2.25.1"


def _serial(number: int) -> bytes:
    return f"{_PREFIX}{number:018d}".encode("ascii")


@dataclass(frozen=True, slots=True)
class Studies:
    """Studies of the same images. Serial numbers begin at 1; 0 stands in the template."""

    template: tuple[bytes, ...]

    @classmethod
    def of(cls, images: Sequence[Dataset]) -> Studies:
        """Make the template; the UIDs of `images` are replaced in place."""
        known: dict[str, str] = {}
        template = []
        for image in images:
            for keyword in _UIDS:
                if keyword in image:
                    old = str(image[keyword].value)
                    setattr(image, keyword, known.setdefault(old, f"{_serial(0).decode()}{len(known):020d}"))
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            buffer = io.BytesIO()
            image.save_as(buffer, enforce_file_format=True)
            template.append(buffer.getvalue())
        return cls(tuple(template))

    @classmethod
    def read(cls, files: Sequence[Path]) -> Studies:
        """Make the template from the files of one study."""
        return cls.of([dcmread(file) for file in files])

    def files(self, serial: int) -> list[bytes]:
        """The encoded files of one study."""
        return [file.replace(_serial(0), _serial(serial)) for file in self.template]

    def stow(self, serial: int) -> bytes:
        """One study as the body of a STOW-RS request (PS3.18 10.5)."""
        return body(self.files(serial))

    def tar(self, serial: int) -> bytes:
        """One study as an uncompressed tar of its files."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number, file in enumerate(self.files(serial)):
                entry = tarfile.TarInfo(f"{number:04}.dcm")
                entry.size = len(file)
                archive.addfile(entry, io.BytesIO(file))
        return buffer.getvalue()

    def write(self, serial: int, folder: Path) -> list[Path]:
        """One study as files in `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, file in enumerate(self.files(serial)):
            paths.append(folder / f"{number:04}.dcm")
            paths[-1].write_bytes(file)
        return paths


def body(files: Sequence[bytes]) -> bytes:
    """Files as the body of a STOW-RS request (PS3.18 10.5) of type `STOW_TYPE`."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = b"".join(head + file + b"\r\n" for file in files)
    return parts + f"--{BOUNDARY}--\r\n".encode()


def study_uid(studies: Studies, serial: int) -> str:
    """Study Instance UID of one of them."""
    first = dcmread(io.BytesIO(studies.template[0]), stop_before_pixels=True)
    return str(first.StudyInstanceUID).replace(_serial(0).decode(), _serial(serial).decode())


def serial_of(uid: str) -> int:
    """Which of the studies a study UID belongs to."""
    return int(uid[len(_PREFIX) : len(_serial(0))])


STOW_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def ball() -> Studies:
    """A small MR series (24 slices of 32 x 32, 4 mm voxels): a bright ball in noise. For the fault matrix."""
    depth, size = 24, 32
    grid = np.stack(np.meshgrid(np.arange(depth), np.arange(size), np.arange(size), indexing="ij"))
    volume = np.random.default_rng(1).integers(0, 40, (depth, size, size)).astype("<u2")
    volume[((grid - np.array([11, 15, 17]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < 64] = 500
    return Studies.of([_slice(pixels, index) for index, pixels in enumerate(volume)])


def _slice(pixels: NDArray[Any], index: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPInstanceUID, image.StudyInstanceUID = f"1.2.{index + 1}", "1.1"
    image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.3", "1.4"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image.Modality, image.SeriesNumber, image.InstanceNumber, image.SeriesDescription = (
        "MR",
        1,
        index + 1,
        "T1",
    )
    image.PatientName, image.PatientID, image.PatientSex, image.PatientBirthDate = "Bench^Ball", "B1", "O", ""
    image.StudyDate, image.StudyTime, image.StudyID = "20260101", "120000", "1"
    image.AccessionNumber = image.ReferringPhysicianName = ""
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [-64, -64, 4 * index - 48]
    image.PixelSpacing, image.SliceThickness = [4, 4], 4
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = pixels.tobytes()
    return image
