"""A C-STORE that would wait for ever: the race in pynetdicom, and peers that fall silent at every point."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interleaving import Receiver, image, interleave, stock
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from outpost.delivery import link as links
from outpost.delivery.cause import Cause
from outpost.delivery.scu import NotSent, Peer, PeerUnreachable, association, store


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image().save_as(tmp_path / "image.dcm", enforce_file_format=True)
    return tmp_path / "image.dcm"


class Line:
    """A line between sender and receiver: slow, or dead after so many bytes of the sender's."""

    def __init__(self, to: int, *, dies_after: int = 1 << 40, bytes_per_second: float = 1e12) -> None:
        self._to, self._left, self._pace = to, dies_after, bytes_per_second
        self._listening = socket.socket()
        # Small, so that bytes wait at the sender and not in buffers between.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        while data := near.recv(min(self._left, 2048)):
            far.sendall(data)
            self._left -= len(data)
            if self._left <= 0:
                threading.Event().wait(60)  # it reads no more, and does not close
            time.sleep(len(data) / self._pace)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        try:
            while data := far.recv(65536):
                near.sendall(data)
            near.close()
        except OSError:
            return

    def stop(self) -> None:
        for one in self._open:
            # A thread that waits in recv() keeps a closed socket open, and the peer's thread with it.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _peer(port: int, **values: Any) -> Peer:
    return replace(Peer("127.0.0.1", port, "PACS", "OUTPOST", answer_seconds=1.5), **values)


def test_pynetdicoms_own_sender_loses_an_answer_that_has_come(receiver: Receiver) -> None:
    status, seconds = stock(receiver.port, 1.5)
    assert len(receiver.stored) == 1, "the receiver took it and answered"
    assert "Status" not in status
    assert seconds >= 1.5


def test_ours_meets_the_same_moment_and_has_the_answer(receiver: Receiver, file: Path) -> None:
    with association(_peer(receiver.port), [file]) as link:
        interleave(link._opened)
        began = time.monotonic()
        assert store(link, file) == ""
        assert time.monotonic() - began < 1
        for _ in range(3):
            store(link, file)
    assert len(receiver.stored) == 4


def test_the_reactor_that_a_report_let_believe_it_runs_keeps_no_association_open(
    receiver: Receiver, file: Path
) -> None:
    def overtaken(opened: Any) -> None:
        """As when pynetdicom's thread of a report ends (`_serve_request`) while its reactor is paused."""
        opened._reactor_checkpoint.clear()
        time.sleep(0.05)
        opened._is_paused = False

    entity = AE("SENDER")
    entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    opened = entity.associate("127.0.0.1", receiver.port)
    overtaken(opened)
    release = threading.Thread(target=opened.release, daemon=True)
    release.start()
    release.join(2)
    assert release.is_alive(), "pynetdicom's own release waits for ever"
    opened._is_paused = True  # lets it end
    release.join(5)

    with association(_peer(receiver.port), [file]) as link:
        store(link, file)
        overtaken(link._opened)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert link._opened.is_released


def test_a_peer_that_reads_no_more_in_the_middle_is_left(receiver: Receiver, tmp_path: Path) -> None:
    big = image()
    big.EncapsulatedDocument = b"\0" * (8 << 20)
    big.save_as(tmp_path / "big.dcm", enforce_file_format=True)
    line = Line(receiver.port, dies_after=200_000)
    began = time.monotonic()
    with (
        pytest.raises(PeerUnreachable, match="neither taken data nor answered") as told,
        association(_peer(line.port), [tmp_path / "big.dcm"]) as link,
    ):
        store(link, tmp_path / "big.dcm")
    assert told.value.cause is Cause.NO_ANSWER
    assert time.monotonic() - began < 10
    assert not [t for t in threading.enumerate() if t is link._opened.dul], "no thread stays behind"
    line.stop()


def test_a_slow_line_may_take_longer_than_a_silent_peer(receiver: Receiver, tmp_path: Path) -> None:
    big = image()
    big.EncapsulatedDocument = b"\0" * (1 << 20)
    big.save_as(tmp_path / "big.dcm", enforce_file_format=True)
    line = Line(receiver.port, bytes_per_second=300_000)
    began = time.monotonic()
    with association(_peer(line.port, answer_seconds=1.0), [tmp_path / "big.dcm"]) as link:
        store(link, tmp_path / "big.dcm")
    assert time.monotonic() - began > 2, "it took more than one silence"
    assert len(receiver.stored) == 1
    line.stop()


@pytest.mark.parametrize(
    "said", [b"", b"\x02\x00\x00", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x02\x00\x00\x00\x10\x00abc"]
)
def test_a_port_that_is_no_dicom_peer_holds_nobody_up(
    said: bytes, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(links, "_NEGOTIATE_SECONDS", 0.5)
    monkeypatch.setattr(links, "_CLOSE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            accepted, _ = server.accept()
            accepted.sendall(said)
            threading.Event().wait(20)
            accepted.close()

        threading.Thread(target=answer, daemon=True).start()
        began = time.monotonic()
        with (
            pytest.raises(PeerUnreachable, match=r"DICOM port|negotiation"),
            association(_peer(server.getsockname()[1]), [file]),
        ):
            pass
        assert time.monotonic() - began < 6


def test_an_answer_that_comes_twice_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    """Else the second instance would be called stored by what was said of the first."""

    class Twice(Receiver):
        def _on_store(self, event: evt.Event) -> int:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
            if len(self.stored) == 1:
                return 0x0000
            again = C_STORE()
            again.MessageIDBeingRespondedTo, again.Status = 1, 0x0000
            again.AffectedSOPClassUID = SecondaryCaptureImageStorage
            event.assoc.dimse.send_msg(again, event.context.context_id)
            return 0xA700

    files = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    for file in files:
        image().save_as(file, enforce_file_format=True)
    receiver = Twice()
    with association(_peer(receiver.port), files) as link:
        store(link, files[0])
        with pytest.raises(NotSent, match="0xA700"):
            store(link, files[1])
    receiver.stop()
