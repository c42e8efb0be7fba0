"""What intake must know of an instance, read from its file without touching pixels."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID
from pydicom.values import convert_text

from outpost.dicom.classes import may_be_an_image
from outpost.dicom.walk import (
    BIG_ENDIAN,
    DEFLATED,
    IMPLICIT,
    Bounds,
    Exceeded,
    Inflated,
    Malformed,
    Plain,
    Source,
    Walked,
    feed,
    file_meta,
    frames_of,
    walk,
    walk_behind,
)
from outpost.intake.refusal import InstanceRefused, Refusal

# A deflated data set can unfold a thousandfold, and who opens it holds and walks all of it: images unfold less.
_INFLATED_LIMIT = 16 << 20
_INFLATED_TIMES = 50
# Top-level elements before the pixels; real objects have hundreds. Each costs microseconds, however empty.
MOST_ELEMENTS = 100_000
_PIXEL_DATA = 0x7FE00008  # Float Pixel Data, the first of the three kinds

# By tag, what intake takes of a data set; of some sequences, what it takes of each item (`outpost.intake.role`).
WANTED = {
    0x00080005: "charset",
    0x00080016: "sop_class",
    0x00080018: "sop_uid",
    0x00080060: "modality",
    0x00080070: "manufacturer",
    0x0008103E: "description",
    0x0020000D: "study_uid",
    0x0020000E: "series_uid",
    0x00280008: "frames",
    0x0018A001: {0x00080070: "contributing"},  # Contributing Equipment Sequence
    0x00620002: {0x00620007: {0x00240202: "algorithm"}},  # Segment Sequence: who made the segmentation
}
_META_SYNTAX = 0x0010
_UNDEFINED = b"\xff\xff\xff\xff"
# VRs a UID or a word may bear, as writers have it; of any other it is none.
_TEXT = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UN UR UT".split()) | {""}

# An image that a model may read is opened as a whole by the process that computes; what is none is kept as it is.
_OF_IMAGES = Bounds()
_OF_OTHERS = Bounds(elements=3_000_000, items=400_000)
_MOST_HEADER_BYTES = 256 << 20  # in front of the pixels of an image


@dataclass(frozen=True, slots=True)
class Header:
    """Identity of one instance. Every UID is safe as a file name.

    `modality` is as sent, empty where it is no code string. `series_description`, cut to 64, is free text of the site
    and may hold what names a patient: it is never logged nor journalled. `manufacturer` is what made it; `made_by`, who
    else is named as its maker: contributing equipment, sources of segmentation algorithms.
    """

    sop_uid: str
    sop_class: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    modality: str
    series_description: str = field(default="", repr=False)
    manufacturer: str = field(default="", repr=False)
    made_by: frozenset[str] = field(default=frozenset(), repr=False)


def is_uid(text: str) -> bool:
    """Whether this is a UID by PS3.5 9.1 (leading zeros tolerated: senders write them), so safe as a name."""
    return len(text) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", text) is not None


def read_header(path: Path) -> Header:
    """Read a Part 10 file. Raises `InstanceRefused` (NOT_DICOM, TOO_COMPLEX, UID_MISSING, UID_UNSAFE)."""
    return examine(path, digested=False)[0]


def examine(path: Path, *, digested: bool = True) -> tuple[Header, str]:
    """The header of a received Part 10 file, and the digest of its values, in one walk over all of its tree.

    The digest is empty where it is not wanted, or the values cannot be compared: deflated, big endian, malformed,
    or out of order (`outpost.intake.content`). Raises `InstanceRefused` as `read_header` does.
    """
    syntax, found, digest = _examined(path, digested=digested)
    return _header(syntax, found), digest


def _examined(path: Path, *, digested: bool) -> tuple[str, Walked, str]:
    dataset_offset(path)
    try:
        with path.open("rb", buffering=0) as file:
            return _walked(file.fileno(), digested=digested)
    except Exceeded as bound:
        raise InstanceRefused(Refusal.TOO_COMPLEX, comment=str(bound)) from None
    except (Malformed, struct.error):
        raise InstanceRefused(Refusal.NOT_DICOM) from None


def digest_of(path: Path) -> str:
    """The digest alone, as `examine` has it, also of a file without the UIDs. Raises `InstanceRefused`."""
    return _examined(path, digested=True)[2]


def known_of(path: Path) -> tuple[str, str, bool]:
    """Class and instance UID as a data set names them, empty where it does not, and whether its pixels have no length,
    as only those in fragments have (PS3.5 A.4). Raises `InstanceRefused` where it cannot be walked.
    """
    syntax, found, _ = _examined(path, digested=False)
    uids = [uid if is_uid(uid) else "" for uid in (_word(found, "sop_class"), _word(found, "sop_uid"))]
    if not found.pixels or syntax == DEFLATED:
        return uids[0], uids[1], False
    with path.open("rb", buffering=0) as file:
        head = Plain(file.fileno()).window(found.end, 12)
    return uids[0], uids[1], head[4:8] == _UNDEFINED or (not found.implicit and head[8:] == _UNDEFINED)


def _walked(descriptor: int, *, digested: bool) -> tuple[str, Walked, str]:
    file = Plain(descriptor)
    meta, at = file_meta(file)
    syntax = meta.get(_META_SYNTAX, b"").rstrip(b"\0 ").decode("latin-1")
    if not syntax:
        raise Malformed("no transfer syntax")
    big_endian, implicit = syntax == BIG_ENDIAN, syntax == IMPLICIT
    source: Plain | Inflated = file
    if syntax == DEFLATED:
        source = Inflated(descriptor, at, _INFLATED_LIMIT + _INFLATED_TIMES * file.size)
        at = 0
    digest = hashlib.sha256() if digested and _is_comparable(syntax) else None
    found = walk(
        source,
        at,
        implicit=implicit,
        big_endian=big_endian,
        wanted=WANTED,
        digest=digest,
        bounds_of=_bounds_of,
    )
    sop_class = _word(found, "sop_class")
    if may_be_an_image(sop_class) and found.end - at > _MOST_HEADER_BYTES:
        raise Exceeded(f"more than {_MOST_HEADER_BYTES >> 20} MiB in front of the pixels")
    if isinstance(source, Inflated):
        source.exhaust()
    else:
        bounds = _bounds_of(sop_class)
        walk_behind(source, found, big_endian=big_endian, bounds=bounds, frames=frames_of(found))
    if found.digest is None:
        return syntax, found, ""
    if UID(syntax).is_compressed:
        digest.update(syntax.encode())  # type: ignore[union-attr] # it is what `found` has
    add_pixels(found, source, implicit=implicit)
    return syntax, found, "v:" + found.digest.hexdigest()


def _bounds_of(sop_class: str) -> Bounds:
    return _OF_IMAGES if not sop_class or may_be_an_image(sop_class) else _OF_OTHERS


def _is_comparable(syntax: str) -> bool:
    """Whether the values stand in the file as they are."""
    uid = UID(syntax)
    try:
        return not uid.is_deflated and uid.is_little_endian
    except ValueError:  # no transfer syntax that is known
        return False


def _word(found: Walked, name: str) -> str:
    """A value that has no character set; a question mark, which is in none, where it is no text."""
    vr, value = found.values.get(name, ("", b""))
    return value.decode("latin-1") if vr in _TEXT or not value else "?"


def _text(found: Walked, name: str) -> str:
    vr, value = found.values.get(name, ("", b""))
    if vr not in _TEXT:
        return ""
    try:
        named = _word(found, "charset").split("\\")
        encodings = convert_encodings(named) if any(named) else [default_encoding]
        return str(convert_text(value, encodings, "LO"))
    except Exception:  # codecs raise many types on hostile bytes
        return value.decode("latin-1")


def _header(syntax: str, found: Walked) -> Header:
    uids = [_word(found, name) for name in ("sop_class", "sop_uid", "study_uid", "series_uid")]
    known = [uid if is_uid(uid) else "" for uid in uids[:2]]
    if not all(uids):
        raise InstanceRefused(Refusal.UID_MISSING, *known)
    if not all(map(is_uid, (*uids, syntax))):
        raise InstanceRefused(Refusal.UID_UNSAFE, *known)
    sop_class, sop_uid, study_uid, series_uid = uids
    modality = _word(found, "modality")
    makers = found.each.get("contributing", set()) | found.each.get("algorithm", set())
    return Header(
        sop_uid=sop_uid,
        sop_class=sop_class,
        study_uid=study_uid,
        series_uid=series_uid,
        transfer_syntax=syntax,
        # Shown to whoever may see a list of studies: what is no code string may name somebody.
        modality=modality if re.fullmatch(r"[A-Z0-9_ ]{0,16}", modality) else "",
        series_description=_text(found, "description")[:64],
        manufacturer=_word(found, "manufacturer").strip(),
        made_by=frozenset(maker.decode("latin-1").strip() for maker in makers),
    )


def add_pixels(found: Walked, source: Source, *, implicit: bool) -> None:
    """Add to the digest the pixel data in front of which a walk ended, and not what may follow them."""
    if not found.pixels:
        return
    at = found.end
    head = source.window(at, 12)
    found.digest.update(b"P" + head[:4])
    begin = 8 if implicit else 12
    length = int.from_bytes(head[begin - 4 : begin], "little")
    feed(found.digest, source, at + begin, length if length != 0xFFFFFFFF else source.size)


def read_attributes(file: BinaryIO, keywords: Sequence[str] = ()) -> FileDataset:
    """Read what stands before the pixels, all or only some attributes; the file is left at the pixels.

    Of children, which may be killed at any moment: it makes an object of each element, whatever their number.
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
