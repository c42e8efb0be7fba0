"""Mutated DICOM files do not end intake, nor make it say what is not so (mutated_dicom.py).

Ten thousand of them are a lane: tests/slow/test_mutated.py.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import mutated_dicom
import pytest
from mutated_dicom import SEED, counted, mutated
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from running import free_port, wait_for

from outpost.config import Intake
from outpost.intake.assembly import Assembly
from outpost.intake.multipart import MalformedBody
from outpost.intake.refusal import InstanceRefused
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.intake.stow import StowRequest
from outpost.records.journal import Journal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what we mutated


class Receiver:
    def __init__(self, root: Path) -> None:
        self.port = free_port()
        self.journal = Journal(root / "journal.sqlite3", "fuzz")
        self.spool = Spool(root, self.journal, 0)
        self.assembly = Assembly(self.journal, 3600)
        self.scp = StorageScp(
            Intake(check_called_ae_title=False, listen="127.0.0.1", dicom_port=self.port),
            self.spool,
            self.assembly,
        )
        self.scp.start()

    def held(self) -> tuple[int, int]:
        """Instances in the journal, and on the disk."""
        return self.journal.instances_received(), len(list(self.spool.studies.glob("[0-9]*/*.dcm")))


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path)
    yield receiver
    receiver.scp.stop()
    receiver.journal.close()


def test_each_of_the_first_five_hundred_files_is_taken_known_or_refused_with_its_bytes_kept() -> None:
    """In a process of limited memory; a file that takes more than 5 s of CPU ends it. Replay: mutated_dicom.py."""
    count = 500
    outcomes = counted(count)
    assert sum(outcomes.values()) == count
    assert {"TAKEN", "NOT_DICOM", "UID_UNSAFE", "CONTENT_CONFLICT"} <= set(outcomes)
    assert outcomes["TAKEN"] > count / 10, "most mutations must not die at the first look"


def test_the_run_notices_an_instance_that_is_acknowledged_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal.sqlite3", "fuzz")
    spool = Spool(tmp_path, journal, 0)
    whole = Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()
    monkeypatch.setattr(spool, "_place", lambda *_: None)
    with pytest.raises(mutated_dicom.Breach, match="not on the disk"):
        mutated_dicom.offer(spool, journal, whole)
    monkeypatch.setattr(spool, "put_aside", lambda *_: None)
    with pytest.raises(mutated_dicom.Breach, match="not in the journal"):
        mutated_dicom.offer(spool, journal, b"not DICOM")


def test_mutated_data_sets_by_c_store_are_each_answered_and_the_listener_lives(receiver: Receiver) -> None:
    entity = AE("FUZZ")
    entity.dimse_timeout = 20
    for syntax in (
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    ):
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", syntax)
    acknowledged, answered, opened = 0, 0, None
    for number in range(300):
        if opened is None or not opened.is_established:
            opened = entity.associate("127.0.0.1", receiver.port)
            assert opened.is_established, f"seed {SEED} number {number}: the listener took no association"
            opened._reactor_checkpoint.clear()  # we read the answers ourselves
            while not opened._is_paused:
                time.sleep(0.001)
        data = mutated(SEED, number)
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        request.AffectedSOPInstanceUID = announced(data)
        offset = 144 + int.from_bytes(data[140:144], "little")
        request.DataSet = BytesIO(data[offset if offset < len(data) else 0 :] or b"\0\0")
        context = random.Random(number).choice(opened.accepted_contexts)
        opened.dimse.send_msg(request, context.context_id)
        _, answer = opened.dimse.get_msg(block=True)
        if answer is not None:
            answered += 1
            acknowledged += answer.Status == 0
    opened._reactor_checkpoint.set()
    opened.release()
    assert answered == 300
    assert acknowledged > 10
    journalled, kept = receiver.held()
    assert journalled == kept <= acknowledged
    assert receiver.scp.listening
    assert not list(receiver.spool.incoming.iterdir())


def announced(data: bytes) -> str:
    """The instance UID a sender would announce: the data set's, where one can be read."""
    try:
        uid = str(
            dcmread(BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID
        )
        return uid if mutated_dicom._UID.fullmatch(uid.encode()) and len(uid) <= 64 else "1.2.3"
    except Exception:
        return "1.2.3"


def test_bytes_that_are_no_dicom_protocol_do_not_end_the_listener(receiver: Receiver) -> None:
    """Random PDUs, PDUs that promise gigabytes, torn association requests."""
    chance = random.Random(SEED)
    entity = AE("FUZZ")
    entity.add_requested_context("1.2.840.10008.1.1")
    for number in range(100):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=5) as connection:
            head = bytes([chance.randrange(10), 0]) + chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\x44", b"\0\1\0\0")
            )
            with suppress(OSError):  # it may be shown the door at once
                connection.sendall(head + chance.randbytes(chance.randrange(200)))
                if number % 10 == 0:
                    connection.shutdown(socket.SHUT_WR)
    assert receiver.scp.listening
    # More connections than associations may be open; those that were closed count no longer.
    opened = wait_for(
        lambda: (a := entity.associate("127.0.0.1", receiver.port)).is_established and a,
        5,
        "it takes associations",
    )
    assert opened.send_c_echo().Status == 0
    opened.release()


def test_mutated_parts_and_bodies_by_stow_are_each_answered(receiver: Receiver) -> None:
    async def body(data: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(data), 10_000):
            yield data[at : at + 10_000]

    stored = 0
    for number in range(0, 300, 3):
        chance = random.Random(f"{SEED}:stow:{number}")
        head = b"--B\r\nContent-Type: application/dicom\r\n\r\n"
        data = b"".join(head + mutated(SEED, n) + b"\r\n" for n in range(number, number + 3)) + b"--B--\r\n"
        if number % 2:
            torn = bytearray(data)
            torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
            data = bytes(torn[: chance.randrange(len(torn))])
        request = StowRequest(receiver.spool, receiver.assembly)
        try:
            asyncio.run(request.read(b"B", body(data)))
        except MalformedBody:
            continue
        status, answer = request.reply()
        assert status in (200, 202, 409)
        stored += len(answer.get("00081199", {}).get("Value", []))
    assert stored > 10
    journalled, kept = receiver.held()
    assert journalled == kept > 10
    assert not list(receiver.spool.incoming.iterdir())


# --- what it found (docs/found-bugs.md) ---


def test_what_follows_the_end_of_a_deflated_data_set_does_not_keep_intake_for_ever(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3", "fuzz")
    spool = Spool(tmp_path, journal, 0)
    whole = Path(str(get_testdata_file("image_dfl.dcm", download=False))).read_bytes()
    begun = time.monotonic()
    for tail in (b"x", bytes(100_000), whole):
        file = spool.incoming / "x.dcm"
        file.write_bytes(whole + tail)
        try:
            spool.take(file, "FUZZ")
        except InstanceRefused:
            continue
    assert time.monotonic() - begun < 5
