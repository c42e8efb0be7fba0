"""When two received files are the same DICOM object, although their bytes differ.

Archives and toolkits re-encode what they pass on (Implicit or Explicit VR, lengths of sequences, padding), so
an instance that comes again by another way is rarely the same bytes. What counts is every element's value.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import Protocol

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from outpost.dicom.walk import PADDED
from outpost.intake import header
from outpost.intake.header import Header, dataset_offset
from outpost.intake.refusal import InstanceRefused

__all__ = ["PADDED", "add_values", "content_digest", "examine", "little_endian", "vr_of"]

_CHUNK = 1 << 20
# Bytes of the numbers in a value, by VR; the others are texts or bytes (PS3.5 7.3).
_WIDTHS = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
_TYPECODES = {2: "H", 4: "I", 8: "Q"}
_TRAILING_PADDING = 0xFFFCFFFC


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def content_digest(path: Path, offset: int) -> str:
    """SHA-256 in hex over the values of a Part 10 file whose data set begins at `offset` (bytes).

    Little-endian encodings of one object give one digest. Where the data set cannot be walked (deflated, or
    malformed) it is the digest of its bytes: then only the very same bytes count as the same object.
    """
    try:
        return header.digest_of(path) or _digest_of_bytes(path, offset)
    except InstanceRefused:
        return _digest_of_bytes(path, offset)


def examine(path: Path) -> tuple[Header, str]:
    """Header and `content_digest` of a received Part 10 file, where possible in one pass over it.

    Raises `InstanceRefused` as `read_header` does.
    """
    found, digest = header.examine(path)
    return found, digest or _digest_of_bytes(path, dataset_offset(path))


def _digest_of_bytes(path: Path, offset: int) -> str:
    """`b:` and the digest of the bytes of a data set."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return "b:" + digest.hexdigest()


def add_values(digest: _Digest, dataset: Dataset) -> None:
    """What the walk feeds a digest with (`outpost.dicom.walk`), of a data set that pydicom holds; for children."""
    # All before any: opening a sequence makes pydicom decode other elements on which its items may depend.
    elements = {tag: dataset.get_item(tag, keep_deferred=True) for tag in sorted(dataset.keys())}
    for tag, element in elements.items():
        if tag.element == 0 or tag == _TRAILING_PADDING:
            continue  # group lengths and padding belong to the encoding
        digest.update(b"T%08x" % tag)
        vr = vr_of(element)
        if vr == "SQ":
            for item in dataset[tag].value or ():
                digest.update(b"I")
                add_values(digest, item)
            digest.update(b"E")
            continue
        if isinstance(element, RawDataElement):
            value = little_endian(element)
            # A private element sent as Implicit VR no longer says whether it is text.
            value = value.rstrip(b" \0") if vr in PADDED or tag.is_private else value
        else:  # pydicom has decoded it, as it does the character set, which the rest depends on
            value = str(element.value).encode() if element.value is not None else b""
        digest.update(b"V%d:" % len(value) + value)


def little_endian(element: RawDataElement) -> bytes:
    """The value as encoded, its numbers turned where they came big endian."""
    value: bytes = element.value or b""
    if element.is_little_endian:
        return value
    width = _WIDTHS.get(element.VR or "", 1)
    if width == 1 or len(value) % width:
        return value
    numbers = array(_TYPECODES[width], value)
    numbers.byteswap()
    return numbers.tobytes()


def vr_of(element: RawDataElement | DataElement) -> str:
    """The VR as encoded; where the encoding leaves it out, by the dictionary; UN for what is not in it."""
    if element.VR not in (None, "UN"):
        return element.VR
    try:
        return dictionary_VR(element.tag)
    except KeyError:
        return "UN"
