"""DICOM files whose values are bytes of a test's choice, whatever VR and syntax allow: written past every library."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

# tag -> (VR, bytes)
Elements = dict[int, tuple[str, bytes]]

VRS = "AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
_LONG = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# What scanners, gateways and worse have written where a number, a date or a name was meant.
VALUES = (
    b"",
    b" ",
    b"\0",
    b"N/A",
    b"unknown",
    b"00000000",
    b"20261332",
    b"10:15:00",
    b"1\\2",
    b"\\",
    b"^=^=",
    b"-1",
    b"1e400",
    b"1.5",
    b"99999999999999999999",
    b"nan",
    b"\xff\xfe\xfd\xfc",
    b"\xc8\xe2\xe0\xed\xee\xe2",
    b"\x1b$B\x1b(J",
    b"\x1b" * 9,
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0\x08\x00\x00\x00\x10\x00\x10\x00PN\xff\xff",
    b"\x08\x00\x16\x00UI\x04\x001.2",
    b"A" * 70,
    b"A" * 3000,
    b"\\" * 600,
    b"%s%n{0}{error}",
    b"CUDA error: no kernel image is available",
)


def elements_of(path: Path) -> Elements:
    """The elements of a file as they were read, the meta group left out."""
    dataset = dcmread(path)
    dataset.file_meta.clear()
    return {int(tag): (element.VR, _bytes(element.value)) for tag, element in dataset.items()}


def _bytes(value: Any) -> bytes:
    """As it stands in the file; pydicom has decoded the character set already."""
    return (
        value if isinstance(value, bytes) else str(value or "").encode() + b" " * (len(str(value or "")) % 2)
    )


def tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None, keyword
    return found


def put(elements: Elements, keyword: str, value: bytes, vr: str = "") -> None:
    """Set one attribute to these bytes, padded to an even length."""
    elements[tag(keyword)] = (vr or dictionary_VR(keyword)[:2], value + b" " * (len(value) % 2))


def get(elements: Elements, keyword: str) -> str:
    return elements[tag(keyword)][1].decode("ascii").strip(" \0")


def part10(elements: Elements, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A Part 10 file of these elements, in Explicit VR Little Endian."""
    meta: Elements = {
        0x00020001: ("OB", b"\0\1"),
        0x00020002: ("UI", _uid(get(elements, "SOPClassUID"))),
        0x00020003: ("UI", _uid(get(elements, "SOPInstanceUID"))),
        0x00020010: ("UI", _uid(syntax)),
        0x00020012: ("UI", _uid("1.2.3.4")),
    }
    head = b"".join(_element(number, *meta[number]) for number in sorted(meta))
    body = b"".join(_element(number, *elements[number]) for number in sorted(elements))
    return bytes(128) + b"DICM" + _element(0x00020000, "UL", struct.pack("<L", len(head))) + head + body


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _element(number: int, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH", number >> 16, number & 0xFFFF) + vr.encode()
    if vr in _LONG:
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value) & 0xFFFF) + value


def hostile(chance: random.Random, elements: Elements, keywords: tuple[str, ...]) -> tuple[Elements, str]:
    """A copy in which one to three of these attributes hold what they may not; and which, for a failed test."""
    changed, told = dict(elements), []
    for keyword in chance.sample(keywords, chance.choice((1, 1, 1, 2, 3))):
        right = dictionary_VR(keyword)[:2]
        vr = right if chance.random() < 0.6 else chance.choice(VRS)
        value = chance.choice(VALUES)
        put(changed, keyword, value, vr)
        told.append(f"{keyword} {vr} {value[:40]!r}")
    return changed, "; ".join(told)


def new_instance(elements: Elements, number: int) -> Elements:
    """A copy with an instance UID of its own."""
    copy = dict(elements)
    put(copy, "SOPInstanceUID", generate_uid(entropy_srcs=[str(number)]).encode())
    return copy


def truncated(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """A file that ends in the middle of its header, at some places."""
    for _ in range(3):
        yield data[: chance.randrange(140, min(len(data), 1200))]
