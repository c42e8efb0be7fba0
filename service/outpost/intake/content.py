"""When two received files are the same DICOM object, although their bytes differ.

Archives and toolkits re-encode what they pass on (Implicit or Explicit VR, lengths of sequences, padding), so
an instance that comes again by another way is rarely the same bytes. What counts is every element's value.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import IO, Protocol

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_file_meta_info

from outpost.intake.header import (
    Header,
    dataset_offset,
    header_of,
    read_attributes,
    read_header,
)

_CHUNK = 1 << 20
# Bytes of the numbers in a value, by VR; the others are texts or bytes (PS3.5 7.3).
_WIDTHS = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
_TYPECODES = {2: "H", 4: "I", 8: "Q"}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_TRAILING_PADDING = 0xFFFCFFFC
# VRs whose values are padded to even length, with a space or a NUL as the writer likes (PS3.5 6.2).
PADDED = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def content_digest(path: Path, offset: int) -> str:
    """SHA-256 in hex over the values of a Part 10 file whose data set begins at `offset` (bytes).

    Little-endian encodings of one object give one digest. Where the data set cannot be walked (deflated, or
    malformed) it is the digest of its bytes: then only the very same bytes count as the same object.
    """
    try:
        return _digest_of_values(path)[1]
    except Exception:
        # pydicom raises many types on malformed data sets; intake keeps those all the same.
        return "b:" + _digest_of_bytes(path, offset)


def examine(path: Path) -> tuple[Header, str]:
    """Header and `content_digest` of a received Part 10 file, where possible in one pass over it.

    Raises `InstanceRefused` as `read_header` does.
    """
    offset = dataset_offset(path)
    try:
        dataset, digest = _digest_of_values(path)
    except Exception:
        return read_header(path), "b:" + _digest_of_bytes(path, offset)
    return header_of(dataset), digest


def _digest_of_values(path: Path) -> tuple[FileDataset, str]:
    """What stands before the pixels, and the digest; raises many types where the values cannot be walked."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        # Before anything is walked: what a few deflated bytes unfold to can take minutes.
        syntax = read_file_meta_info(path).TransferSyntaxUID
        if syntax.is_deflated or not syntax.is_little_endian:
            raise ValueError("the values are not in the file as they are")
        dataset = read_attributes(file)
        add_values(digest, dataset)
        if syntax.is_compressed:
            digest.update(syntax.encode())
        _add_pixels(digest, file, implicit_vr=syntax.is_implicit_VR)
    return dataset, "v:" + digest.hexdigest()


def _digest_of_bytes(path: Path, offset: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def add_values(digest: _Digest, dataset: Dataset) -> None:
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


def _add_pixels(digest: _Digest, file: IO[bytes], *, implicit_vr: bool) -> None:
    """Add the pixel data, which begin where the file stands, and not what may follow them."""
    tag = file.read(4)
    if not tag:
        return
    digest.update(b"P" + tag)
    if not implicit_vr:
        file.read(4)  # VR and two reserved bytes
    length = int.from_bytes(file.read(4), "little")
    left = -1 if length == _UNDEFINED_LENGTH else length
    while left != 0 and (chunk := file.read(_CHUNK if left < 0 else min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk) if left > 0 else 0
