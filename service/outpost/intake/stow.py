"""STOW-RS (PS3.18 10.5): instances by HTTP, each part straight to disk and durable before the reply."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from typing import IO, Any

from starlette.concurrency import run_in_threadpool

from outpost.intake.assembly import Assembly
from outpost.intake.multipart import Event, MalformedBody, MultipartReader, PartBegins, PartEnds
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import MIB, Spool

log = logging.getLogger(__name__)

_PART_TYPE = "application/dicom"
_LOOK_AT_DISK_EVERY = 64 * MIB
# Tags of the reply as DICOM JSON names them (PS3.18 10.5.3.2).
_REFERENCED_SOP_SEQUENCE = "00081199"
_FAILED_SOP_SEQUENCE = "00081198"
_SOP_CLASS = "00081150"
_SOP_INSTANCE = "00081155"
_FAILURE_REASON = "00081197"


class UnsupportedType(Exception):
    """The Content-Type is none that this service takes."""


def boundary_of(content_type: str) -> bytes:
    """The boundary of `multipart/related; type="application/dicom"; boundary=...`.

    Raises `UnsupportedType` for any other type, `MalformedBody` where the boundary is missing or invalid.
    """
    header = Message()
    header["Content-Type"] = content_type
    kind = str(header.get_param("type", _PART_TYPE)).lower()
    if header.get_content_type() != "multipart/related" or kind != _PART_TYPE:
        raise UnsupportedType(f'send Content-Type: multipart/related; type="{_PART_TYPE}"; boundary=...')
    boundary = str(header.get_param("boundary", ""))
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():  # RFC 2046 5.1.1
        raise MalformedBody("the Content-Type has no boundary of 1 to 70 ASCII characters")
    return boundary.encode()


class StowRequest:
    """Takes the instances of one request, in order."""

    def __init__(self, spool: Spool, assembly: Assembly) -> None:
        self._spool = spool
        self._assembly = assembly
        self._stored: list[tuple[str, str]] = []
        self._failed: list[Refusal] = []
        self._part = ExitStack()
        self._file: IO[bytes] | None = None

    async def read(self, boundary: bytes, body: AsyncIterable[bytes]) -> None:
        """Store part after part as the body arrives.

        Raises `MalformedBody`, and `InstanceRefused` (OUT_OF_SPACE) when the disk has or reaches its reserve:
        the sender then repeats the whole request, what was taken already being known.
        """
        reader = MultipartReader(boundary)
        unseen = _LOOK_AT_DISK_EVERY
        with self._part:
            async for chunk in body:
                unseen += len(chunk)
                if unseen >= _LOOK_AT_DISK_EVERY:
                    unseen = 0
                    if self._spool.below_reserve():
                        raise InstanceRefused(Refusal.OUT_OF_SPACE)
                # Writing and fsync block: in a thread, so that health answers meanwhile.
                await run_in_threadpool(self._handle, reader.feed(chunk))
            reader.close()

    def reply(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and DICOM JSON body (PS3.18 10.5.3): 200 all stored, 202 some, 409 none."""
        body: dict[str, Any] = {}
        if self._stored:
            items = [
                {_SOP_CLASS: _value("UI", sop_class), _SOP_INSTANCE: _value("UI", sop_uid)}
                for sop_class, sop_uid in self._stored
            ]
            body[_REFERENCED_SOP_SEQUENCE] = {"vr": "SQ", "Value": items}
        if self._failed:
            # What cannot be read, or must not be trusted, has no UIDs worth repeating.
            items = [{_FAILURE_REASON: _value("US", refusal.status)} for refusal in self._failed]
            body[_FAILED_SOP_SEQUENCE] = {"vr": "SQ", "Value": items}
        if self._stored:
            return (202 if self._failed else 200), body
        return 409, body

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, PartBegins):
                self._file = self._part.enter_context(self._spool.receiving_file())
                if event.content_type not in (_PART_TYPE, ""):
                    self._failed.append(Refusal.NOT_DICOM)
                    self._file = None
            elif isinstance(event, PartEnds):
                if self._file is not None:
                    self._file.flush()
                    self._take(Path(self._file.name))
                self._file = None
                self._part.close()
            elif self._file is not None:
                self._file.write(event)

    def _take(self, arrived: Path) -> None:
        try:
            header, study = self._spool.take(arrived, source="stow")
        except InstanceRefused as refused:
            if refused.refusal is Refusal.OUT_OF_SPACE:
                raise
            log.warning("STOW-RS: %s, %s", refused.refusal.name, refused.refusal.comment)
            self._failed.append(refused.refusal)
            return
        self._stored.append((header.sop_class, header.sop_uid))
        if study is not None:
            self._assembly.instance_taken(study.row, header)


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
