"""The head of a compressed frame -> the size and the bits its own stream says it has.

A stream of as many pixels as the header says, but of other rows and columns, decodes without an error into a picture
that is torn: only its own head tells (ITU-T T.81 B.2.2, T.87 C.2.2, T.800 A.5.1).
"""

from __future__ import annotations

import struct
from typing import Final

_JPEG: Final = b"\xff\xd8"
_J2K: Final = b"\xff\x4f\xff\x51"
_JP2: Final = b"\x00\x00\x00\x0cjP  "
# Start of frame of every JPEG process but tables (C4, CC) and reserved (C8); F7 is JPEG-LS's.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_LOOKED_AT: Final = 1 << 20  # bytes before the frame: tables and application data


def first_fragment(pixel_data: bytes) -> bytes:
    """What follows the offset table of encapsulated pixel data (PS3.5 A.4), up to a bound; nothing where it is odd."""
    if pixel_data[:4] != b"\xfe\xff\x00\xe0":
        return b""
    (table,) = struct.unpack_from("<L", pixel_data, 4)
    return bytes(pixel_data[16 + table : 16 + table + _LOOKED_AT])


def rows_columns_bits(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and bits a sample of a JPEG, JPEG-LS or JPEG 2000 stream; None where its head does not say."""
    head = _head(stream)
    return head[:3] if head is not None and head[0] else None  # 0 rows: told after the first scan


def components(stream: bytes) -> int | None:
    """Into how many components such a stream says it decodes; None where its head does not say."""
    head = _head(stream)
    return head[3] if head is not None else None


def _head(stream: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, bits and components."""
    try:
        if stream.startswith(_JP2):
            stream = stream[stream.index(_J2K) :]
        if stream.startswith(_J2K):
            right, bottom, left, top = struct.unpack_from(">4L", stream, 8)
            (count,) = struct.unpack_from(">H", stream, 40)
            return bottom - top, right - left, (stream[42] & 0x7F) + 1, count
        return _of_jpeg(stream) if stream.startswith(_JPEG) else None
    except (struct.error, ValueError, IndexError):
        return None


def _of_jpeg(stream: bytes) -> tuple[int, int, int, int] | None:
    at = 2
    while stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            bits, rows, columns, count = struct.unpack_from(">BHHB", stream, at + 4)
            return rows, columns, bits, count
        (length,) = struct.unpack_from(">H", stream, at + 2)
        at += 2 + length
    return None
