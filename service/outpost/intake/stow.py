"""STOW-RS (PS3.18 10.5): instances by HTTP, each part straight to disk and durable before the reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from typing import IO, Any

from anyio import CancelScope, move_on_after
from starlette.concurrency import run_in_threadpool

from outpost.intake.assembly import Assembly
from outpost.intake.body import BodyTooLarge
from outpost.intake.doors import Doors
from outpost.intake.multipart import LONGEST_TYPE, MalformedBody, MultipartReader, PartBegins, PartEnds
from outpost.intake.part10 import known_uids, put_right
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import MIB, Spool

log = logging.getLogger(__name__)

_PART_TYPE = "application/dicom"
_EXPECTED_TYPE = f'Content-Type: multipart/related; type="{_PART_TYPE}"; boundary=...'
_LONGEST_BOUNDARY = 200  # RFC 2046 5.1.1 allows 70; Orthanc sends 73
_METADATA_TYPES = frozenset({"application/dicom+json", "application/dicom+xml"})
_LOOK_AT_DISK_EVERY = 64 * MIB
# Taken together: one transaction and one sync of the folder for all.
_BATCH_FILES = 64
_BATCH_BYTES = 64 * MIB
_BATCH_SECONDS = 0.5
# Of one request: its reply names each, and is made in memory.
_MOST_PARTS = 20_000
_MOST_FAILED = 500
# Tags of the reply as DICOM JSON names them (PS3.18 10.5.3.2).
_REFERENCED_SOP_SEQUENCE = "00081199"
_FAILED_SOP_SEQUENCE = "00081198"
_SOP_CLASS = "00081150"
_SOP_INSTANCE = "00081155"
_FAILURE_REASON = "00081197"
_ERROR_COMMENT = "00000902"
_SOURCE = "stow"  # who sent it, where no AE title says so


class UnsupportedType(Exception):
    """The Content-Type is none that this service takes."""


def boundary_of(content_type: str) -> bytes:
    """The boundary of `multipart/related; type="application/dicom"; boundary=...`.

    Raises `UnsupportedType` for any other type, `MalformedBody` where the boundary is missing or invalid.
    """
    if len(content_type) > LONGEST_TYPE:  # a parser of mail headers takes time with the square of it
        raise UnsupportedType(f"the Content-Type is longer than {LONGEST_TYPE} characters: {_EXPECTED_TYPE}")
    header = Message()
    header["Content-Type"] = content_type
    whole, kind = header.get_content_type(), str(header.get_param("type", _PART_TYPE)).strip().lower()
    if content_type and whole == _PART_TYPE:
        raise UnsupportedType(f"a bare instance is not taken: make it a part of a body, {_EXPECTED_TYPE}")
    if {whole, kind} & _METADATA_TYPES:
        raise UnsupportedType(
            f"metadata and bulk data apart are not taken: send whole instances, {_EXPECTED_TYPE}"
        )
    if whole != "multipart/related" or kind != _PART_TYPE:
        raise UnsupportedType(f"send {_EXPECTED_TYPE}")
    boundary = str(header.get_param("boundary", ""))
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise MalformedBody(f"the Content-Type has no boundary of 1 to {_LONGEST_BOUNDARY} ASCII characters")
    return boundary.encode()


class StowRequest:
    """Takes the instances of one request, in order."""

    def __init__(
        self,
        spool: Spool,
        assembly: Assembly,
        address: str = "",
        study_uid: str | None = None,
        doors: Doors | None = None,
    ) -> None:
        """`address` is the sender's. `study_uid`: what the request's path names, if anything; only its are taken."""
        self._spool = spool
        self._assembly = assembly
        self._transfer = assembly.transfer("stow", address, what="request", half=self._part_is_untaken)
        self._address = address
        self._study_uid = study_uid
        self._doors = doors or Doors()
        self._stored: list[tuple[str, str]] = []
        self._failed: list[InstanceRefused] = []
        self._transfer_syntax = ""  # as the headers of the part that is arriving say
        self._faults: dict[Path, InstanceRefused] = {}  # what is known to be wrong with files of the batch
        self._part = ExitStack()  # the file of the part that is arriving
        self._file: IO[bytes] | None = None
        self._batch: list[tuple[Path, ExitStack]] = []  # whole parts that are not taken yet
        self._batch_bytes, self._batch_began = 0, 0.0
        self._taking = False
        self._turn = asyncio.Lock()  # one thread at a time handles what came
        self._full: InstanceRefused | None = None
        self._wait = 0.0  # seconds that the sender should wait, for what it sent again and again
        self._parts = 0

    async def read(self, boundary: bytes, body: AsyncIterable[bytes]) -> None:
        """Store part after part as the body arrives.

        Raises `MalformedBody`, and `InstanceRefused` when the disk has or reaches its reserve (OUT_OF_SPACE), or when
        no other study may be opened (TOO_MANY_STUDIES): the sender then repeats the whole request, what was taken
        already being known.
        """
        reader = MultipartReader(boundary)
        unseen = _LOOK_AT_DISK_EVERY
        ended, whole = asyncio.Event(), False
        stalled = asyncio.create_task(self._take_when_stalled(ended))
        with self._part:
            try:
                async for chunk in body:
                    unseen += len(chunk)
                    self._transfer.moved()
                    if unseen >= _LOOK_AT_DISK_EVERY:
                        unseen = 0
                        if self._spool.below_reserve():
                            raise InstanceRefused(Refusal.OUT_OF_SPACE)
                    # Writing and fsync block: in a thread, so that health answers meanwhile.
                    async with self._turn:
                        await run_in_threadpool(self._handle, reader, chunk)
                    if self._full is not None:
                        break
                    await self._keep_waiting()
                else:
                    reader.close()
                    whole = True
            finally:
                ended.set()
                # Also of a body that broke off what is whole: a sender over a bad link comes further each time.
                with CancelScope(shield=True):
                    await stalled
                    await run_in_threadpool(self._take_batch)
                    if not whole:
                        await run_in_threadpool(self._transfer.broke_off)
        if self._full is not None:
            raise self._full
        await run_in_threadpool(self._transfer.released)
        await self._keep_waiting()

    async def _keep_waiting(self) -> None:
        wait, self._wait = self._wait, 0.0
        if wait:
            await asyncio.sleep(wait)

    async def _take_when_stalled(self, ended: asyncio.Event) -> None:
        """Over a slow link each part by itself: it is the sign that its study is still arriving."""
        while not ended.is_set():
            with move_on_after(_BATCH_SECONDS):
                await ended.wait()
            async with self._turn:
                if self._batch and time.monotonic() - self._batch_began >= _BATCH_SECONDS:
                    await run_in_threadpool(self._take_batch)

    def _taken(self) -> None:
        self._taking = False

    def _part_is_untaken(self) -> bool:
        """Whether a part is arriving, or here and not yet in the journal."""
        return self._file is not None or bool(self._batch) or self._taking

    def is_to_be_repeated(self) -> bool:
        """Whether images were refused for now, so that the same request may do better later."""
        return any(one.refusal is Refusal.TOO_MANY_STUDIES for one in self._failed)

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
            body[_FAILED_SOP_SEQUENCE] = {"vr": "SQ", "Value": [_failed_item(one) for one in self._failed]}
        if self._stored:
            return (202 if self._failed else 200), body
        return 409, body

    def _handle(self, reader: MultipartReader, chunk: bytes) -> None:
        for event in reader.events(chunk):
            if isinstance(event, PartBegins):
                self._parts += 1
                if self._parts > _MOST_PARTS or len(self._failed) > _MOST_FAILED:
                    raise BodyTooLarge(
                        f"a request of more than {_MOST_PARTS} parts, or of {_MOST_FAILED} that are refused: split it"
                    )
                # Whatever its type is called: what it holds says what it is.
                self._file = self._part.enter_context(self._spool.receiving_file())
                self._transfer_syntax = event.transfer_syntax
            elif isinstance(event, PartEnds):
                if self._file is not None:
                    self._file.flush()
                    self._finish(self._file)
                self._file = None
                self._part.close()
            elif self._file is not None:
                self._file.write(event)

    def _finish(self, file: IO[bytes]) -> None:
        path = Path(file.name)
        try:
            put_right(path, self._transfer_syntax)
        except InstanceRefused as refused:
            self._faults[path] = refused
        except Exception as error:  # as it came it is taken, or refused with the reason
            log.warning("the head of a received file could not be put right (%s)", type(error).__name__)
        self._add_to_batch(file)

    def _better_said(self, path: Path, refused: InstanceRefused) -> InstanceRefused:
        fault = self._faults.pop(path, None)
        if fault is not None and refused.refusal is fault.refusal:
            refused.comment = fault.comment
            refused.sop_class, refused.sop_uid = fault.sop_class, fault.sop_uid
        if not refused.sop_uid:
            refused.sop_class, refused.sop_uid = known_uids(path)
        return refused

    def _fail(self, refused: InstanceRefused) -> None:
        self._failed.append(refused)
        if refused.wait:
            self._wait = max(self._wait, refused.wait)
            self._doors.slowed(refused.refusal.name, _SOURCE, self._address, refused.wait)
        if self._spool.may_be_image(refused.sop_class):
            self._transfer.refused(refused.sop_uid, refused.refusal, refused.study_uid)
        self._doors.turned_away(
            "instance", refused.refusal.name, refused.comment, _SOURCE, self._address, refused.__cause__
        )
        # Kept for the reply: without the frames, and what is in them, from which it was raised.
        refused.__traceback__ = refused.__cause__ = refused.__context__ = None

    def _add_to_batch(self, file: IO[bytes]) -> None:
        if not self._batch:
            self._batch_bytes, self._batch_began = 0, time.monotonic()
        self._batch.append((Path(file.name), self._part.pop_all()))
        self._batch_bytes += file.tell()
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._take_batch()

    def _take_batch(self) -> None:
        """Take what came since the last time: the sender waits for one answer to all, and so may the disk."""
        self._taking = True
        with ExitStack() as files:
            files.callback(self._taken)
            batch, self._batch = self._batch, []
            for _, file in batch:
                files.push(file)
            paths = [path for path, _ in batch]
            answers = self._spool.take_all(
                paths, _SOURCE, address=self._address, study_uid=self._study_uid, transfer=self._transfer.name
            )
            for path, taken in zip(paths, answers, strict=True):
                if isinstance(taken, InstanceRefused):
                    # Of studies that are open the rest is taken; a request that only opens others ends here.
                    if taken.refusal is Refusal.OUT_OF_SPACE or (
                        taken.refusal in (Refusal.TOO_MANY_STUDIES, Refusal.OUT_OF_SERVICE)
                        and not self._stored
                    ):
                        self._full = taken
                        continue
                    self._fail(self._better_said(path, taken))
                    continue
                header, study = taken
                self._transfer.took(header, study)
                self._stored.append((header.sop_class, header.sop_uid))
                if study is not None:
                    self._assembly.instance_taken(study.row, header)


def _failed_item(refused: InstanceRefused) -> dict[str, Any]:
    item = {
        _FAILURE_REASON: _value("US", refused.refusal.status),
        _ERROR_COMMENT: _value("LO", refused.comment),
    }
    if refused.sop_class:
        item[_SOP_CLASS] = _value("UI", refused.sop_class)
    if refused.sop_uid:
        item[_SOP_INSTANCE] = _value("UI", refused.sop_uid)
    return dict(sorted(item.items()))


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
