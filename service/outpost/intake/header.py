"""What intake must know of an instance, read from its file without touching pixels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from outpost.intake.refusal import InstanceRefused, Refusal

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
]
# A deflated data set can unfold a thousandfold, and pydicom holds and walks all of it: images unfold less.
_INFLATED_LIMIT = 16 << 20
_INFLATED_TIMES = 50
# Top-level elements before the pixels; real objects have hundreds. Each costs microseconds, however empty.
MOST_ELEMENTS = 100_000
_PIXEL_DATA = 0x7FE00008  # Float Pixel Data, the first of the three kinds
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """Identity of one instance. Every UID is safe as a file name.

    `modality` is as sent, empty where it is no code string. `series_description`, cut to 64, is free text of the site
    and may hold what names a patient: it is never logged nor journalled.
    """

    sop_uid: str
    sop_class: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    modality: str
    series_description: str = field(default="", repr=False)


def is_uid(text: str) -> bool:
    """Whether this is a UID by PS3.5 9.1 (leading zeros tolerated: senders write them), so safe as a name."""
    return len(text) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", text) is not None


def read_header(path: Path) -> Header:
    """Read a Part 10 file. Raises `InstanceRefused` (NOT_DICOM, UID_MISSING, UID_UNSAFE)."""
    try:
        _require_modest_inflation(path)
        with path.open("rb") as file:
            dataset = read_attributes(file, _TAGS)
    except Exception:
        # pydicom raises many types on hostile bytes, and their texts quote the data set.
        raise InstanceRefused(Refusal.NOT_DICOM) from None
    return header_of(dataset)


def header_of(dataset: FileDataset) -> Header:
    """The header of a data set that was read from a Part 10 file. Raises as `read_header` does."""
    try:
        transfer_syntax = str(dataset.file_meta.TransferSyntaxUID)
        values = [str(dataset.get(tag) or "") for tag in _TAGS]
    except Exception:
        # Values are decoded when they are first looked at.
        raise InstanceRefused(Refusal.NOT_DICOM) from None
    sop_class, sop_uid, study_uid, series_uid, modality, description = values
    uids = (sop_class, sop_uid, study_uid, series_uid)
    known = [uid if is_uid(uid) else "" for uid in (sop_class, sop_uid)]
    if not all(uids):
        raise InstanceRefused(Refusal.UID_MISSING, *known)
    if not all(map(is_uid, (*uids, transfer_syntax))):
        raise InstanceRefused(Refusal.UID_UNSAFE, *known)
    return Header(
        sop_uid=sop_uid,
        sop_class=sop_class,
        study_uid=study_uid,
        series_uid=series_uid,
        transfer_syntax=transfer_syntax,
        # Shown to whoever may see a list of studies: what is no code string may name somebody.
        modality=modality if re.fullmatch(r"[A-Z0-9_ ]{0,16}", modality) else "",
        series_description=description[:64],
    )


def read_attributes(file: BinaryIO, keywords: Sequence[str] = ()) -> FileDataset:
    """Read what stands before the pixels, all or only some attributes; the file is left at the pixels.

    Raises many types on malformed data sets, `ValueError` on endless ones.
    """
    left = MOST_ELEMENTS

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MOST_ELEMENTS} elements")
        return tag in (_PIXEL_DATA, _PIXEL_DATA + 1, _PIXEL_DATA + 8)

    wanted: list[BaseTag | int] = [Tag(keyword) for keyword in keywords]
    return read_partial(file, stop_when=at_pixels, specific_tags=wanted or None)


def dataset_offset(path: Path) -> int:
    """Where the data set of a Part 10 file begins, in bytes. Raises `InstanceRefused` (NOT_DICOM).

    Preamble and prefix take 132 bytes, the group length element 12, and then what that element counts.
    """
    with path.open("rb") as file:
        head = file.read(144)
    if head[128:132] != b"DICM" or head[132:138] != b"\x02\x00\x00\x00UL":
        raise InstanceRefused(Refusal.NOT_DICOM)
    return 144 + int.from_bytes(head[140:144], "little")


def _require_modest_inflation(path: Path) -> None:
    offset = dataset_offset(path)
    with path.open("rb") as file:
        meta = file.read(offset)
        if DeflatedExplicitVRLittleEndian.encode() not in meta:
            return
        allowed = _INFLATED_LIMIT + _INFLATED_TIMES * path.stat().st_size
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = 0
        pending = b""
        # What follows the end of the stream stays unconsumed for ever.
        while not inflate.eof and (pending or (pending := file.read(_CHUNK))):
            inflated += len(inflate.decompress(pending, _CHUNK))
            pending = inflate.unconsumed_tail
            if inflated > allowed:
                raise InstanceRefused(Refusal.NOT_DICOM)
