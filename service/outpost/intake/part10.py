"""Putting the head of a received file right: what comes before the data set of a Part 10 file (PS3.10 7.1).

Web clients write it themselves, and leave out the group length, the preamble, or all of it. What stands there is known
again from its bytes, or the file is left as it came, to be refused. The data set is copied as it is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID

from outpost.intake.header import is_uid, known_of
from outpost.intake.refusal import InstanceRefused, Refusal

_HEAD_BYTES: Final = 64 * 1024  # the group has a few hundred bytes; private information in it may have more
_PREFIX: Final = b"DICM"
_GROUP: Final = b"\x02\x00"
_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_GROUP_LENGTH, _SOP_CLASS, _SOP_INSTANCE, _SYNTAX = 0x0000, 0x0002, 0x0003, 0x0010


@dataclass(frozen=True, slots=True)
class _Meta:
    """What stands before the data set; `sound` where it is as the standard wants it. `at`: of the data set, bytes."""

    values: dict[int, bytes]
    at: int
    sound: bool

    def uid(self, element: int) -> str:
        text = self.values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")
        return text if is_uid(text) else ""


def known_uids(path: Path) -> tuple[str, str]:
    """Class and instance UID as the head of a file names them, if it does: also of one that cannot be read."""
    meta = _read_meta(path)
    return (meta.uid(_SOP_CLASS), meta.uid(_SOP_INSTANCE)) if meta is not None else ("", "")


def put_right(path: Path, transfer_syntax: str = "") -> bool:
    """Give a file the head it lacks, in place; returns whether there was something to do.

    `transfer_syntax` is what the sender said of it, if anything: for files that do not say it themselves. Raises
    `InstanceRefused` where the pixels cannot be understood without it.
    """
    meta = _read_meta(path)
    if meta is None or meta.sound:
        return False
    with path.open("rb") as file:
        file.seek(meta.at)
        begin = file.read(8)
    syntax = meta.uid(_SYNTAX) or (transfer_syntax if is_uid(transfer_syntax) else "")
    guessed = "" if syntax else _guess(begin)
    if not (syntax or guessed):
        return False
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".dcm")
    os.close(descriptor)
    whole = Path(name)
    try:
        _write(whole, path, meta, syntax or guessed)
        if guessed and _pixels_are_compressed(whole):
            comment = "no transfer syntax is named, and the pixels are compressed"
            raise InstanceRefused(Refusal.NOT_DICOM, *_uids_of(whole), comment=comment)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
    return True


def _read_meta(path: Path) -> _Meta | None:
    """The head of a file, from its bytes; None where it is no DICOM at all, or reaches too far."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    prefixed = head[128:132] == _PREFIX
    begin = at = 132 if prefixed else 4 if head[:4] == _PREFIX else 0
    values: dict[int, bytes] = {}
    implicit = False
    while head[at : at + 2] == _GROUP:
        vr = head[at + 4 : at + 6]
        if vr in _LONG_VRS:
            length, value = int.from_bytes(head[at + 8 : at + 12], "little"), at + 12
        elif vr in _VRS:
            length, value = int.from_bytes(head[at + 6 : at + 8], "little"), at + 8
        else:
            length, value, implicit = int.from_bytes(head[at + 4 : at + 8], "little"), at + 8, True
        if value + length > len(head):
            return None
        values[int.from_bytes(head[at + 2 : at + 4], "little")] = head[value : value + length]
        at = value + length
    if not values and not prefixed and not _guess(head[at : at + 8]):
        return None
    told = values.get(_GROUP_LENGTH, b"")
    counted = len(told) == 4 and begin + 12 + int.from_bytes(told, "little") == at
    return _Meta(values, at, prefixed and counted and not implicit and _SYNTAX in values)


def _guess(begin: bytes) -> str:
    """The transfer syntax of an uncompressed data set, by its first element; empty where it is none."""
    if begin[:2] == b"\x08\x00":
        if begin[4:6] in _VRS:
            return str(ExplicitVRLittleEndian)
        # A first value is short: class UID, character set, image type.
        return str(ImplicitVRLittleEndian) if int.from_bytes(begin[4:8], "little") < 1024 else ""
    return str(ExplicitVRBigEndian) if begin[:2] == b"\x00\x08" and begin[4:6] in _VRS else ""


def _write(target: Path, source: Path, meta: _Meta, syntax: str) -> None:
    _write_head(target, meta.uid(_SOP_CLASS), meta.uid(_SOP_INSTANCE), syntax)
    _append(target, source, meta.at)
    if not (meta.uid(_SOP_CLASS) and meta.uid(_SOP_INSTANCE)):
        _write_head(target, *_uids_of(target), syntax)
        _append(target, source, meta.at)


def _write_head(target: Path, sop_class: str, sop_uid: str, syntax: str) -> None:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(sop_uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = PYNETDICOM_IMPLEMENTATION_UID
    meta.FileMetaInformationGroupLength = 0  # pydicom counts where there is one
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    with target.open("wb") as file:
        file.write(b"\0" * 128 + _PREFIX + head.getvalue())


def _append(target: Path, source: Path, offset: int) -> None:
    with source.open("rb") as read, target.open("ab") as write:
        read.seek(offset)
        shutil.copyfileobj(read, write, 1 << 20)


def _uids_of(path: Path) -> tuple[str, str]:
    """Class and instance UID as the data set names them; empty where it cannot be read."""
    try:
        return known_of(path)[:2]
    except InstanceRefused:  # as intake refuses it then by itself
        return "", ""


def _pixels_are_compressed(path: Path) -> bool:
    try:
        return known_of(path)[2]
    except InstanceRefused:  # as above
        return False
