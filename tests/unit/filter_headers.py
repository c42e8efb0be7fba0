"""Headers for tests of the filter: written to disk as DICOM and read as the service reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from itertools import count
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from outpost.filter.rulefile import RuleFile, parse_rules
from outpost.filter.verdict import HeaderVerdict, judge_headers
from outpost.inference.header import ImageHeader, read_header

_NUMBERS = count(1)
# Folders with DICOM files of real devices, or of people who test readers; read where they are installed.
PACKAGES: Final = {
    "pydicom": "pydicom/data",
    "pydicom-data": "data_store/data",
    "deid-data": "deid_data/data",
}


def write(folder: Path, **attributes: Any) -> Path:
    """An MR image without pixels, one a file; an attribute given as None is left out."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    usual: dict[str, Any] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesNumber": 1,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "PatientName": "Kanareyka^Maria",
        "PatientID": "KANAREYKA-1",
        "Rows": 64,
        "Columns": 64,
        "BitsAllocated": 16,
    }
    for keyword, value in (usual | attributes).items():
        if value is not None:
            setattr(image, keyword, value)
    image.file_meta.MediaStorageSOPClassUID = image.get("SOPClassUID", MRImageStorage)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{next(_NUMBERS):05}.dcm"
    image.save_as(file, enforce_file_format=True)
    return file


def header(folder: Path, **attributes: Any) -> ImageHeader:
    """What `write` writes, as the service reads it."""
    return read_header(write(folder, **attributes))


def series(folder: Path, places: Sequence[float], **attributes: Any) -> list[ImageHeader]:
    """An axial series with slices at these places (mm)."""
    usual = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 0.5]} | attributes
    return [
        header(folder, ImagePositionPatient=[0, 0, place], InstanceNumber=number, **usual)
        for number, place in enumerate(places, 1)
    ]


def rules(text: str) -> RuleFile:
    """A rule file with this text."""
    return parse_rules(text.encode(), Path("rules.yaml"))


def rule(condition: str, **keys: str) -> RuleFile:
    """A rule file with one rule that requires a condition; nothing known by name is looked for."""
    more = "".join(f"    {key}: {value}\n" for key, value in ({"missing": "accept"} | keys).items())
    return rules(f"rules:\n  - name: one\n    require: {condition}\n{more}")


def judged(headers: Sequence[ImageHeader], file: RuleFile) -> HeaderVerdict:
    """The verdict of a rule file."""
    return judge_headers(headers, file)


def packaged() -> Iterator[tuple[str, Path]]:
    """Every file of the packages: `package/path inside it`, and where it is."""
    for package, inside in PACKAGES.items():
        root = Path(str(distribution(package).locate_file(inside)))
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.suffix not in {".py", ".pyc"}:
                yield f"{package}/{file.relative_to(root)}", file
