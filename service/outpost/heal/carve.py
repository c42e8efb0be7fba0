"""Rows read from the pages of an SQLite file themselves, where no tree leads to them any more.

Only leaves of tables are looked at (file format, https://www.sqlite.org/fileformat2.html, 1.6 and 2.1). Which table a
record is of shows in its values: every table of the journal has a shape of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from outpost.records.journal import STATES

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}\+00:00")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,79}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LEAF: Final = 0x0D
_WAL_HEADER, _FRAME_HEADER = 32, 24
_LONGEST: Final = 1 << 24  # no record of the journal is near it

Record = tuple[int, list[Any]]


def carve(file: Path) -> Iterator[tuple[str, int, list[Any]]]:
    """Every row in a database file or write-ahead log: table, rowid, values in the order of the table's columns.

    A row may come more than once, in older forms too. Damaged pages are passed over. Raises OSError.
    """
    with file.open("rb") as stream:
        head = stream.read(100)
        log = head[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
        size = int.from_bytes(head[8:12] if log else head[16:18], "big")
        size = 65536 if size == 1 else size
        if size < 512 or size > 65536 or size & (size - 1):
            size = 4096
        step, first = (size + _FRAME_HEADER, _WAL_HEADER) if log else (size, 0)
        length = stream.seek(0, 2)

        def page(number: int) -> bytes:
            stream.seek((number - 1) * size)
            return stream.read(size)

        for place in range(first, length, step):
            try:
                stream.seek(place)
                content = stream.read(step)
            except OSError:
                continue  # a sector that the disk cannot read
            content = content[_FRAME_HEADER:] if log else content
            begin = 100 if content[:16] == b"SQLite format 3\x00" else 0
            # Pages of a log are in no order: what runs over into others is not followed there.
            for rowid, values in _records(content, begin, size, None if log else page):
                table = table_of(values)
                if table is not None:
                    yield table, rowid, values


def table_of(values: list[Any]) -> str | None:
    """Which of the journal's tables has records like this one; None where none has, or it cannot be told."""
    count = len(values)
    text = [value if isinstance(value, str) else "" for value in values]
    if count >= 23 and values[0] is None and _UID.fullmatch(text[1]) and text[4] in STATES:
        return "studies"
    if 12 <= count <= 20 and values[0] is None and all(map(_UID.fullmatch, text[1:4])):
        return "instances"
    if count >= 6 and values[0] is None and _TIME.fullmatch(text[1]) and text[3].startswith("quarantine/"):
        return "refused"
    if count == 8 and _DAY.fullmatch(text[0]) and _CODE.fullmatch(text[2]) and isinstance(values[7], int):
        return "refused_gone"
    if count >= 7 and isinstance(values[0], int) and text[1].endswith(".dcm") and text[2]:
        return "deliveries"
    if count == 5 and isinstance(values[1], int) and all(_UID.fullmatch(text[n]) for n in (0, 2, 3)):
        return "results"
    if count == 4 and values[0] is None and _TIME.fullmatch(text[1]) and _CODE.fullmatch(text[2]):
        return "events"
    if count == 6 and values[0] is None and _TIME.fullmatch(text[1]) and _CODE.fullmatch(text[3]):
        return "failures" if values[2] is None or isinstance(values[2], int) else None
    return None


def _records(content: bytes, begin: int, size: int, page: Any) -> Iterator[Record]:
    """Records of one page, if it is a leaf of a table; those that cannot be read are left out."""
    if len(content) < size or content[begin] != _LEAF:
        return
    count = int.from_bytes(content[begin + 3 : begin + 5], "big")
    if begin + 8 + 2 * count > size:
        return
    for number in range(count):
        where = begin + 8 + 2 * number
        cell = int.from_bytes(content[where : where + 2], "big")
        try:
            yield _cell(content, cell, size, page)
        except (IndexError, ValueError, OSError):
            continue


def _cell(content: bytes, at: int, size: int, page: Any) -> Record:
    length, at = _varint(content, at)
    rowid, at = _varint(content, at)
    if not 0 < length < _LONGEST:
        raise ValueError("no record")
    local = _local(length, size)
    payload = content[at : at + local]
    if len(payload) < local:
        raise ValueError("cut off")
    if local < length:
        if page is None:
            raise ValueError("runs over")
        payload += _overflow(
            int.from_bytes(content[at + local : at + local + 4], "big"), length - local, page
        )
    return rowid - (1 << 64) if rowid >= 1 << 63 else rowid, _values(payload)


def _local(length: int, size: int) -> int:
    """How many bytes of a record are in its own page (2.1: X, M and K)."""
    most, least = size - 35, (size - 12) * 32 // 255 - 23
    if length <= most:
        return length
    kept = least + (length - least) % (size - 4)
    return kept if kept <= most else least


def _overflow(number: int, left: int, page: Any) -> bytes:
    found, seen = b"", set()
    while left > len(found):
        if number == 0 or number in seen:
            raise ValueError("its overflow pages end, or go in a circle")
        seen.add(number)
        content = page(number)
        if len(content) < 5:
            raise ValueError("its overflow pages are not there")
        found += content[4:]
        number = int.from_bytes(content[:4], "big")
    return found[:left]


def _values(payload: bytes) -> list[Any]:
    header, at = _varint(payload, 0)
    if header > len(payload):
        raise ValueError("no record")
    kinds, body, values = [], header, []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    for kind in kinds:
        value, taken = _value(payload, body, kind)
        values.append(value)
        body += taken
    if body != len(payload):
        raise ValueError("its header speaks of another length")
    return values


_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind == 0:
        return None, 0
    if kind in _INTEGERS:
        length = _INTEGERS[kind]
        return int.from_bytes(payload[at : at + length], "big", signed=True), length
    if kind == 7:
        return struct.unpack(">d", payload[at : at + 8])[0], 8
    if kind in (8, 9):
        return kind - 8, 0
    if kind < 12:
        raise ValueError("a kind that is reserved")
    length = (kind - 12) // 2
    raw = payload[at : at + length]
    if len(raw) < length:
        raise ValueError("cut off")
    return (raw.decode("utf-8") if kind % 2 else raw), length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number in range(9):
        byte = content[at + number]
        if number == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + number + 1
    raise ValueError("no number")
