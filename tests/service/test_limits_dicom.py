"""What a DICOM peer can spend: places, threads and time, at the real listener with real senders and raw sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import MRImageStorage
from running import free_port, wait_for
from test_broken_transfers import begun_store, image, raw_connection
from test_intake import certificates  # noqa: F401 - a fixture
from test_intake import tls as tls_of

from outpost.config import Intake
from outpost.intake.assembly import Assembly
from outpost.intake.doors import Doors
from outpost.intake.guests import Places
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.lobby import Room
from outpost.records.journal import Journal
from outpost.tls import client_context

PLACES = Places.of(
    8,
    request_seconds=0.8,
    unused_seconds=1.5,
    stall_seconds=1.2,
    idle_gives_way_seconds=0.4,
    half_gives_way_seconds=0.6,
)
ROOM = Room(most=32, per_peer=16, first_seconds=0.6, whole_seconds=1.0)


class Receiver:
    """The real listener over a real spool, journal and assembly."""

    def __init__(self, root: Path, places: Places = PLACES, room: Room = ROOM, **intake: Any) -> None:
        self.port = free_port()
        self.events: list[str] = []
        root.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(root / "journal.sqlite3", "brain")
        self.spool = Spool(root, self.journal, 0, 100, [MRImageStorage])
        self.doors = Doors(self.events.append)
        self.scp = StorageScp(
            Intake(listen="127.0.0.1", dicom_port=self.port, check_called_ae_title=False, **intake),
            self.spool,
            Assembly(self.journal, 60),
            doors=self.doors,
            room=room,
            places=places,
        )
        self.scp.start()

    def close(self) -> None:
        self.scp.stop()
        self.journal.close()

    def associate(self, title: str = "CT1", source: str = "127.0.0.1") -> Association:
        entity = AE(title)
        entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        return entity.associate("127.0.0.1", self.port, bind_address=(source, 0))

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), source_address=(source, 0), timeout=5)

    def turned(self, reason: str) -> int:
        return sum(count for (_, of), count in self.doors.counts().items() if of == reason)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "storage")
    yield receiver
    receiver.close()


def stores(opened: Association, tmp_path: Path, study: str = "1.2.3", number: int = 1) -> bool:
    assert opened.is_established, "it found no place"
    return bool(opened.send_c_store(image(study, number, tmp_path)).Status == 0)


def acceptors() -> int:
    """Threads of associations at our end, and of their networks."""
    return sum("AcceptorThread" in thread.name for thread in threading.enumerate())


def end_of(connection: socket.socket, seconds: float) -> float:
    """Seconds until the peer closes it."""
    begun = time.monotonic()
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        raise AssertionError(f"open for more than {seconds} s") from None
    except OSError:
        pass
    return time.monotonic() - begun


def test_connections_that_ask_for_nothing_take_no_place(receiver: Receiver, tmp_path: Path) -> None:
    silent = [receiver.connect() for _ in range(60)]
    opened = receiver.associate()
    assert stores(opened, tmp_path)
    opened.release()
    assert receiver.scp.waiting <= ROOM.per_peer
    wait_for(lambda: receiver.turned("TOO_MANY_CONNECTIONS") >= 60 - ROOM.per_peer - 1, 3, "they are told")
    for one in silent[-ROOM.per_peer :]:
        end_of(one, 3)
    wait_for(lambda: receiver.turned("REQUEST_LATE") >= 1, 3, "it is told")
    assert any("at" in event or "127.0.0.1" in event for event in receiver.events)
    wait_for(lambda: acceptors() == 0, 3, "no thread is left")


@pytest.mark.parametrize(
    "said",
    [b"\x01", b"\x01\x00\x00\x00\x01\x00\x00\x01", b"\x01\x00\x00\x00\x01"],
    ids=["a byte", "a part of a request", "half a head"],
)
def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(receiver: Receiver, said: bytes) -> None:
    with receiver.connect() as slow:
        slow.sendall(said)
        assert end_of(slow, 4) < 3
    wait_for(lambda: receiver.turned("REQUEST_LATE") == 1, 2, "it is told")
    assert acceptors() == 0


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x00\x04aaaa",
    ],
    ids=["http", "tls", "a request of 4 GiB", "data first"],
)
def test_what_is_no_request_is_closed_at_once(receiver: Receiver, said: bytes) -> None:
    with receiver.connect() as stranger:
        stranger.sendall(said)
        assert end_of(stranger, 2) < 0.5
    assert receiver.turned("NO_REQUEST") == 1


def test_one_sender_gets_half_one_address_three_quarters_and_others_the_rest(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "storage", Places.of(8))
    try:
        greedy = [receiver.associate("GREEDY", "127.0.0.9") for _ in range(8)]
        assert [one.is_established for one in greedy] == [True] * 4 + [False] * 4
        # pynetdicom takes an answer that comes with the end of the connection for its end, now and then.
        assert any(one.is_rejected for one in greedy[4:])
        many = [receiver.associate(f"NAME{n}", "127.0.0.9") for n in range(8)]
        assert sum(one.is_established for one in many) == 2, "new names make no new address"
        other = receiver.associate("OTHER")
        assert stores(other, tmp_path)
        assert receiver.turned("TOO_MANY_ASSOCIATIONS") == 10
        assert any("'GREEDY' at 127.0.0.9" in event and "per_peer" in event for event in receiver.events)
        for one in [*greedy, *many, other]:
            if one.is_established:
                one.release()
    finally:
        receiver.close()


def test_silent_associations_give_way_to_one_that_asks_and_busy_ones_do_not(
    tmp_path: Path,
) -> None:
    receiver = Receiver(tmp_path / "storage", replace(PLACES, unused_seconds=60))
    silent = [receiver.associate("SILENT", f"127.0.0.{20 + n // 4}") for n in range(7)]
    busy = receiver.associate("BUSY", "127.0.0.30")
    assert all(one.is_established for one in [*silent, busy])
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        assert stores(busy, tmp_path)
    opened = receiver.associate("NEW", "127.0.0.40")
    assert stores(opened, tmp_path, number=2)
    assert receiver.turned("GAVE_WAY") == 1
    assert stores(busy, tmp_path, number=3)
    wait_for(lambda: sum(one.is_aborted for one in silent) == 1, 3, "it learns it by an abort")
    for one in [*silent, busy, opened]:
        one.abort()
    receiver.close()


def test_an_association_that_was_never_used_ends_and_a_known_sender_may_keep_its_own(
    receiver: Receiver, tmp_path: Path
) -> None:
    known, unknown = receiver.associate("KNOWN"), receiver.associate("UNKNOWN")
    assert stores(known, tmp_path)
    wait_for(lambda: unknown.is_aborted, 5, "it ends")
    assert receiver.turned("NEVER_USED") == 1
    time.sleep(0.5)
    assert stores(known, tmp_path, number=2)
    known.release()


@pytest.mark.parametrize("drops", [False, True], ids=["silent", "byte by byte"])
def test_a_sender_that_stops_in_the_middle_of_a_pdu_is_cut_with_its_thread(
    receiver: Receiver, tmp_path: Path, drops: bool
) -> None:
    opened = receiver.associate()
    assert stores(opened, tmp_path)
    wire = raw_connection(opened)
    pdu = begun_store(opened, "1.2.3.9.2")
    wire.sendall(pdu[:20])
    sending = threading.Event()

    def drip() -> None:
        try:
            while not sending.wait(0.05):
                wire.sendall(b"\x00")
        except OSError:
            return

    dripping = threading.Thread(target=drip)
    if drops:
        dripping.start()
    wait_for(lambda: receiver.turned("TOO_SLOW") == 1, 6, "it is cut")
    sending.set()
    wait_for(lambda: acceptors() == 0, 4, "its threads end")
    assert receiver.scp.guests.connected() == 0
    opened.abort()
    if drops:
        dripping.join()


def test_small_pdus_without_end_are_no_way_to_keep_a_place(receiver: Receiver) -> None:
    """Each is whole, and its message never is: pynetdicom's idle timer begins with each of them again."""
    opened = receiver.associate()
    wire = raw_connection(opened)
    wire.sendall(begun_store(opened, "1.2.3.9.2"))
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        for _ in range(80):
            wire.sendall(b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x00")
            time.sleep(0.1)
    assert time.monotonic() - begun < 6
    assert receiver.turned("TOO_SLOW") == 1
    opened.abort()


def test_a_thin_line_that_goes_on_sending_is_served(receiver: Receiver, tmp_path: Path) -> None:
    """3 KB a second, for more than twice as long as a line may stall."""
    there = socket.create_server(("127.0.0.1", 0))

    def forward() -> None:
        near, _ = there.accept()
        far = socket.create_connection(("127.0.0.1", receiver.port))

        def back() -> None:
            while data := far.recv(65536):
                near.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        while data := near.recv(512):
            far.sendall(data)
            time.sleep(len(data) / 3000)
        far.close()

    threading.Thread(target=forward, daemon=True).start()
    entity = AE("THIN")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    opened = entity.associate("127.0.0.1", there.getsockname()[1])
    begun = time.monotonic()
    assert stores(opened, tmp_path)
    assert time.monotonic() - begun > 2 * PLACES.stall_seconds
    opened.release()
    there.close()


def test_with_tls_a_silent_handshake_and_a_silent_peer_behind_it_end(
    tmp_path: Path,
    certificates: Path,  # noqa: F811 - the fixture
) -> None:
    tls = tls_of(certificates)
    receiver = Receiver(tmp_path / "storage", tls=tls)
    try:
        with receiver.connect() as raw:
            quiet = client_context(tls, "peer").wrap_socket(raw)
            assert isinstance(quiet, ssl.SSLSocket)
            assert end_of(quiet, 5) < 4
        wait_for(lambda: receiver.turned("REQUEST_LATE") == 1, 3, "it is told")
        wait_for(lambda: acceptors() == 0, 3, "its thread ends")
    finally:
        receiver.close()


def test_it_stops_in_time_while_peers_hang_at_every_point(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "storage", Places.of(8))
    silent, half = receiver.connect(), receiver.connect()
    half.sendall(b"\x01\x00")
    idle, stalled = receiver.associate("IDLE"), receiver.associate("HALF")
    raw_connection(stalled).sendall(begun_store(stalled, "1.2.3.9.2")[:20])
    time.sleep(0.3)
    begun = time.monotonic()
    receiver.close()
    assert time.monotonic() - begun < 8
    wait_for(lambda: acceptors() == 0, 3, "no thread is left")
    for one in (idle, stalled):
        one.abort()
    silent.close()
    half.close()


def test_a_flood_of_refusals_fills_neither_the_log_nor_the_journal(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    doors = Doors(lambda detail: journal.note_event("SENDER_REFUSED", detail))
    for number in range(20_000):
        doors.turned_away("association", "TOO_MANY_ASSOCIATIONS", "no place", f"A{number % 5000}", "10.0.0.1")
        doors.turned_away("connection", "TOO_MANY_CONNECTIONS", "no place", "", "10.0.0.1")
    assert doors.counts()["association", "TOO_MANY_ASSOCIATIONS"] == 20_000
    assert len(caplog.records) <= 400
    assert len(journal.events(1000)) <= 200
    journal.close()
