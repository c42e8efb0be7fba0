"""The attributes of an image by which series are chosen and stacked, read without touching its pixels.

Attribute by attribute: a value that only names something (numbers and descriptions of series, dates, names) costs
nothing when it is malformed; one that decides what is computed (sizes, frames, classes) makes its own object
unreadable, and no other.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag
from pydicom.uid import UID, UID_dictionary  # type: ignore[attr-defined]  # public by its documentation

from outpost.codes.failure import told
from outpost.dicom.quicktag import QuickTag
from outpost.inference import progress
from outpost.inference.codes import Code, InputRejected
from outpost.intake.header import is_uid, read_attributes

_T = TypeVar("_T")
# A file that the disk does not give says nothing of what is in it.
_OF_THE_HOST: Final = (errno.EIO, errno.ENOENT, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ESTALE)
CODE_STRING: Final = re.compile(r"[A-Z0-9_ ]{0,16}")
MALFORMED: Final = "(malformed)"
# Longer text names nothing: no expression is let loose on a megabyte.
_LONGEST_TEXT: Final = 1024


# What every object of a study is compared by (`outpost.filter.identity`), the character set first.
WHO: Final = (
    "SpecificCharacterSet", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex",
)  # fmt: skip
_WHO: Final = tuple(QuickTag(Tag(keyword)) for keyword in WHO)


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
    who: tuple[Any, ...] | None = field(
        default=None, repr=False, compare=False
    )  # as `who_of`, if taken already


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file of the study that cannot be read as an image, and what can be known of it all the same.

    Attributes:
        path: the file.
        sop_class_uid: as it says, or seems to say; empty where nothing tells.
        series_instance_uid: likewise.
        fault: what is wrong with it: an exception or attributes, without a value.
        dataset: what could be parsed; None where nothing could.
    """

    path: Path
    sop_class_uid: str
    series_instance_uid: str
    fault: str
    dataset: Dataset | None = field(default=None, repr=False, compare=False)

    @property
    def class_name(self) -> str:
        """The name of its class, where the standard has one; what it says itself is not repeated."""
        return UID(self.sop_class_uid).name if self.sop_class_uid in UID_dictionary else "no known class"


class _Malformed(Exception):
    """An attribute that decides holds what it may not hold."""

    def __init__(self, keyword: str, why: str, dataset: Dataset) -> None:
        super().__init__(f"{keyword}: {why}")
        self.dataset = dataset
        self.told = f"{keyword} ({why})"


def read_study(paths: Sequence[Path]) -> tuple[list[ImageHeader], list[Unreadable]]:
    """Read all files of a study: those that can be read, and those that cannot.

    Raises `OSError` where the disk does not give a file; never for what is in one.
    """
    headers: list[ImageHeader] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        progress.beat()
        found = _read(path)
        if isinstance(found, ImageHeader):
            # Intake took none without them: the rest of this one is lost, and it may have been an image.
            lost = [name for name, uid in zip(_IDENTITY, _identity(found), strict=True) if not uid]
            if not lost:
                headers.append(found)
                continue
            seems = _seems(path)
            found = Unreadable(
                path,
                found.sop_class_uid or seems[0],
                found.series_instance_uid or seems[1],
                f"{', '.join(lost)} (missing)",
                found.dataset,
            )
        unreadable.append(found)
    return headers, unreadable


_IDENTITY: Final = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")


def _identity(header: ImageHeader) -> tuple[str, str, str]:
    return header.sop_class_uid, header.sop_instance_uid, header.series_instance_uid


def read_headers(paths: Sequence[Path]) -> list[ImageHeader]:
    """Read all files of a study. Raises as `read_header` does, at the first that is broken."""
    return [read_header(path) for path in paths]


def read_header(path: Path) -> ImageHeader:
    """Read one file.

    Raises:
        InputRejected: HEADER_UNREADABLE if the file is not DICOM or is broken.
    """
    found = _read(path)
    if isinstance(found, Unreadable):
        raise InputRejected(Code.HEADER_UNREADABLE, f"{path.name} is not readable as DICOM: {found.fault}")
    return found


def counted(unreadable: Sequence[Unreadable]) -> str:
    """How many files of which class cannot be read, and why, for a message: no file and no value is named."""
    counts = Counter((one.class_name, one.fault) for one in unreadable)
    parts = [f"{count} of {name}: {fault}" for (name, fault), count in counts.most_common(5)]
    return "; ".join(parts) + ("; ..." if len(counts) > 5 else "")


def _read(path: Path) -> ImageHeader | Unreadable:
    # pydicom reports broken files by many types: its own, OSError, EOFError, ValueError, struct.error,
    # NotImplementedError, RecursionError. A hostile file must not end the worker: all of them mean one thing here.
    try:
        with path.open("rb") as file:
            dataset = read_attributes(file)
            pixels_at = file.tell()
    except MemoryError:
        raise  # this is about the host, not yet about the file
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_HOST:
            raise
        sop_class, series = _seems(path)
        return Unreadable(path, sop_class, series, told(error))
    try:
        return _header(path, dataset, pixels_at)
    except _Malformed as malformed:
        sop_class, series = _text(dataset, "SOPClassUID"), _text(dataset, "SeriesInstanceUID")
        if not sop_class or not series:
            seems = _seems(path)
            sop_class, series = sop_class or seems[0], series or seems[1]
        return Unreadable(path, sop_class, series, malformed.told, dataset)


def who_of(dataset: Dataset) -> tuple[Any, ...]:
    """Who the patient is, as it stands in a data set, undecoded: the values of `WHO`, None where one is absent."""
    get = dataset.items().mapping.get  # type: ignore[attr-defined]  # of every dict's view, as in filter/values.py
    return tuple([None if element is None else element.value for element in map(get, _WHO)])


def _header(path: Path, dataset: FileDataset, pixels_at: int) -> ImageHeader:
    return ImageHeader(
        path=path,
        sop_class_uid=_deciding(dataset, "SOPClassUID", str) or "",
        sop_instance_uid=_deciding(dataset, "SOPInstanceUID", str) or "",
        series_instance_uid=_deciding(dataset, "SeriesInstanceUID", str) or "",
        series_number=_number(dataset, "SeriesNumber"),
        series_description=_text(dataset, "SeriesDescription"),
        modality=_code_string(dataset, "Modality"),
        image_type=tuple(word.upper() for word in _words(dataset, "ImageType")),
        rows=_deciding(dataset, "Rows", _count) or 0,
        columns=_deciding(dataset, "Columns", _count) or 0,
        frames=_deciding(dataset, "NumberOfFrames", _count) or 1,
        samples_per_pixel=_deciding(dataset, "SamplesPerPixel", _count) or 1,
        photometric_interpretation=_code_string(dataset, "PhotometricInterpretation"),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        orientation=_floats(dataset, "ImageOrientationPatient", 6),
        position=_floats(dataset, "ImagePositionPatient", 3),
        pixel_spacing=_floats(dataset, "PixelSpacing", 2),
        dataset=dataset,
        pixels_at=pixels_at,
        who=who_of(dataset),  # now, while its elements are at hand: a second visit costs three times as much
    )


def _deciding(dataset: Dataset, keyword: str, convert: Callable[[Any], _T]) -> _T | None:
    """The value of an attribute that decides; None where it is absent or empty. Raises `_Malformed`."""
    try:
        value = dataset.get(keyword)
        return convert(value) if value else None
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    except Exception as error:
        raise _Malformed(keyword, type(error).__name__, dataset) from error


def _count(value: Any) -> int:
    """A number of rows, frames or samples: whole, not negative, one."""
    if isinstance(value, bytes):
        raise TypeError("bytes")
    number = int(value)
    if number < 0 or number != float(value):
        raise ValueError("not a count")
    return number


def _number(dataset: Dataset, keyword: str) -> int | None:
    """None also where it is malformed: a number that only names something may cost no study."""
    try:
        value = dataset.get(keyword)
        return None if value is None else int(value)
    except Exception:  # whatever pydicom raises on it
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    """The value as text; empty where it is absent, or cannot be decoded."""
    try:
        value = dataset.get(keyword)
        return "" if value is None else str(value)[:_LONGEST_TEXT]
    except Exception:  # whatever pydicom raises on it
        return ""


def _code_string(dataset: Dataset, keyword: str) -> str:
    """The value where it is a code string (PS3.5 6.2, VR CS): messages show it, and anything else may name somebody."""
    text = _text(dataset, keyword).strip(" \0")
    return text if CODE_STRING.fullmatch(text) else MALFORMED


def _words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    try:
        return tuple(str(value) for value in _values(dataset.get(keyword)))
    except Exception:  # whatever pydicom raises on it
        return ()


def _values(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else tuple(value)


def _floats(dataset: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    try:
        values = [float(item) for item in _values(dataset.get(keyword))]
        numbers = np.array(values, dtype=np.float64)
    except Exception:  # whatever pydicom raises on it
        return None
    return numbers if numbers.shape == (count,) and bool(np.isfinite(numbers).all()) else None


# --- what a broken file says of itself ---

# Where the identity of an object stands, at the latest: before what usually breaks.
_LOOKED_AT: Final = 1 << 18
_CLASS: Final = (b"\x08\x00\x16\x00", b"\x00\x08\x00\x16", b"\x02\x00\x02\x00")
_SERIES: Final = (b"\x20\x00\x0e\x00", b"\x00\x20\x00\x0e")
_UID_AFTER_TAG: Final = re.compile(rb"(?:UI..|.{4})([0-9]+(?:\.[0-9]+)+)", re.DOTALL)


def _seems(path: Path) -> tuple[str, str]:
    """SOP Class and Series Instance UID of a file that cannot be parsed, by the bytes of their tags; empty if none."""
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError:
        return "", ""
    return _uid_behind(head, _CLASS), _uid_behind(head, _SERIES)


def _uid_behind(head: bytes, tags: Sequence[bytes]) -> str:
    for tag in tags:
        at = head.find(tag)
        while at >= 0:
            found = _UID_AFTER_TAG.match(head, at + 4, at + 4 + 72)
            if found and is_uid(text := found[1].decode("ascii")):
                return text
            at = head.find(tag, at + 1)
    return ""
