"""A result in another transfer syntax, for peers that do not take the one it lies in; its values stay as they are.

Only encodings of the same values are exchanged: what is compressed, or big endian, leaves as it is or not at all.
The data set is re-written element by element without being understood, so that text keeps its bytes whatever its
character set, and a private value its own.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import split_dataset

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"

# What else a file of a transfer syntax may be sent in, the nearest first. Implicit VR is what every peer has to
# take (PS3.5 10.1). Not the other way: an implicit file does not say what its private values are.
_ALSO = {EXPLICIT: (IMPLICIT,), DEFLATED: (EXPLICIT, IMPLICIT)}

# VRs whose length takes two bytes (PS3.5 Table 7.1-2); all others, also those still to come, take four.
_SHORT = frozenset(
    vr.encode() for vr in "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_LENGTH_TO_END = b"\x08\x00\x01\x00"


class NotEncodable(ValueError):
    """The file cannot be re-written; the text says where, never what is there."""


def also(syntax: str) -> tuple[str, ...]:
    """Other transfer syntaxes in which a file of this one may be sent."""
    return _ALSO.get(syntax, ())


def data_set(file: Path, syntax: str) -> bytes:
    """The data set of a file, encoded in `syntax`, which is its own or one of `also`. Raises `NotEncodable`."""
    meta, offset = split_dataset(file)
    own = str(meta.TransferSyntaxUID)
    held = file.read_bytes()[offset:]
    if own == syntax:
        return held
    if syntax not in also(own):
        raise NotEncodable(f"from transfer syntax {own} to {syntax} there is no way without touching values")
    if own == DEFLATED:
        try:
            held = zlib.decompress(held, -zlib.MAX_WBITS)
        except zlib.error:
            raise NotEncodable("the deflated data set cannot be inflated") from None
    return held if syntax == EXPLICIT else _implicit(held)


def part10(file: Path, syntax: str) -> bytes:
    """The whole file in another transfer syntax, with its file meta information."""
    encoded = data_set(file, syntax)
    meta = read_file_meta_info(file)
    meta.TransferSyntaxUID = UID(syntax)
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + head.getvalue() + encoded


def _implicit(explicit: bytes) -> bytes:
    """Explicit VR Little Endian -> Implicit VR Little Endian.

    Group lengths go: they count bytes of the old encoding, and are retired.
    """
    written = io.BytesIO()
    try:
        end = _elements(memoryview(explicit), 0, len(explicit), written, nested=False)
    except (struct.error, IndexError):
        raise NotEncodable("the data set ends in the middle of an element") from None
    except RecursionError:
        raise NotEncodable("sequences lie too deep in each other") from None
    assert end == len(explicit)
    return written.getvalue()


def _elements(data: memoryview, at: int, end: int, written: io.BytesIO, *, nested: bool) -> int:
    """Re-write elements up to `end`, or, where nested, up to the item's delimiter; returns where it stopped."""
    while at < end:
        tag = bytes(data[at : at + 4])
        if nested and tag == _ITEM_END:
            return at + 8
        vr, length, value = _header(data, at)
        if vr == b"SQ":
            written.write(tag + struct.pack("<L", _UNDEFINED))
            at = _items(data, value, end, length, written)
            written.write(_SEQUENCE_END + b"\0\0\0\0")
        elif length == _UNDEFINED:
            if vr != b"UN" or tag == _PIXEL_DATA:
                raise NotEncodable(f"element {_shown(tag)} is encapsulated")
            # A sequence of unknown VR is implicit VR inside already (PS3.5 6.2.2).
            at = _skip_items(data, value, end)
            written.write(tag + struct.pack("<L", _UNDEFINED) + data[value:at])
        else:
            at = value + length
            if at > end:
                raise NotEncodable(f"element {_shown(tag)} is longer than what holds it")
            if tag[2:] != b"\0\0" and tag != _LENGTH_TO_END:
                written.write(tag + struct.pack("<L", length) + data[value:at])
    return at


def _header(data: memoryview, at: int) -> tuple[bytes, int, int]:
    """VR, length, and where the value begins, of the element at `at`."""
    vr = bytes(data[at + 4 : at + 6])
    if vr in _SHORT:
        return vr, struct.unpack_from("<H", data, at + 6)[0], at + 8
    return vr, struct.unpack_from("<L", data, at + 8)[0], at + 12


def _items(data: memoryview, at: int, end: int, length: int, written: io.BytesIO) -> int:
    """The items of a sequence of explicit VR; each gets an undefined length, as its size changes."""
    last = end if length == _UNDEFINED else at + length
    if last > end:
        raise NotEncodable("a sequence is longer than what holds it")
    while at < last:
        tag, size = bytes(data[at : at + 4]), struct.unpack_from("<L", data, at + 4)[0]
        at += 8
        if tag == _SEQUENCE_END and length == _UNDEFINED:
            return at
        if tag != _ITEM:
            raise NotEncodable(f"{_shown(tag)} where an item of a sequence should begin")
        written.write(_ITEM + struct.pack("<L", _UNDEFINED))
        if size == _UNDEFINED:
            at = _elements(data, at, last, written, nested=True)
        else:
            if at + size > last:
                raise NotEncodable("an item is longer than its sequence")
            at = _elements(data, at, at + size, written, nested=False)
        written.write(_ITEM_END + b"\0\0\0\0")
    return at


def _skip_items(data: memoryview, at: int, end: int) -> int:
    """Where a sequence of undefined length and implicit VR ends: behind its delimiter."""
    while at < end:
        tag, size = bytes(data[at : at + 4]), struct.unpack_from("<L", data, at + 4)[0]
        at += 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise NotEncodable(f"{_shown(tag)} where an item of a sequence should begin")
        at = _skip_elements(data, at, end) if size == _UNDEFINED else at + size
    raise NotEncodable("a sequence without an end")


def _skip_elements(data: memoryview, at: int, end: int) -> int:
    """Where an item of undefined length and implicit VR ends: behind its delimiter."""
    while at < end:
        tag, size = bytes(data[at : at + 4]), struct.unpack_from("<L", data, at + 4)[0]
        at += 8
        if tag == _ITEM_END:
            return at
        at = _skip_items(data, at, end) if size == _UNDEFINED else at + size
    raise NotEncodable("an item without an end")


def _shown(tag: bytes) -> str:
    group, element = struct.unpack("<HH", tag)
    return f"({group:04X},{element:04X})"
