"""pynetdicom's connections, made to wake up instead of polling, and to acknowledge at once.

Stock pynetdicom looks for work every millisecond in each of its two threads and reads 4 KiB at a time; on CT
slices over a real link that, and delayed acknowledgements, are most of the time a sender waits for us
(benchmarks/intake.py). Only what the reactors wait on is replaced; the protocol stays pynetdicom's.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler

from outpost.dicom.bounded import LARGEST_PDU, MOST_WAITING, BoundedDimse, BoundedDul
from outpost.intake.guests import Guest

log = logging.getLogger(__name__)

_WAIT_SECONDS = 0.05  # at most, until timers and the order to end are looked at again
_FULL_SECONDS = 0.005
_PIECE = 256 * 1024


class PromptRequestHandler(RequestHandler):
    """Hands every accepted connection to an association that wakes up by itself, and bounds what its peer sends."""

    def _refused(self, association: Association) -> Callable[[str, str], None]:
        """What is told of a peer that is beyond bounds: with the AE title it just named, and why."""
        return lambda _title, words: log.warning("an association ends: %s", words)

    def _create_association(self) -> Association:
        association = super()._create_association()
        work = threading.Event()
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(association, os.close, wake)
        dul = association.dul
        # From the service to the network: the network's thread waits on its socket and on `wake`.
        dul.to_provider_queue = _WakingDescriptor(wake)
        dul._run_loop_delay = 0
        connection = dul.socket
        assert connection is not None
        connection.__class__ = _PromptConnection  # made by super(), which has announced it already
        assert isinstance(connection, _PromptConnection)
        connection.wake = wake
        assert connection.socket is not None
        connection.guest = getattr(self.server, "guest_of", _stranger)(connection.socket, self.client_address)
        # From the network to the service, whose thread passes this checkpoint before it looks at both queues.
        association._reactor_checkpoint = _Checkpoint(work)
        association._reactor_checkpoint.set()
        association.dimse.msg_queue = _WakingEvent(work)
        dul.to_user_queue = _WakingEvent(work)
        # Made by super(), too: the same, within bounds.
        dul.__class__, association.dimse.__class__ = BoundedDul, BoundedDimse
        assert isinstance(dul, BoundedDul)
        assert isinstance(association.dimse, BoundedDimse)
        dul.refused = association.dimse.refused = self._refused(association)
        return association


def _stranger(connection: socket.socket, _address: Any) -> Guest:
    """Where nobody keeps a book of guests."""
    return Guest("", connection, 0.0)


class _WakingDescriptor(queue.Queue[Any]):
    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        os.eventfd_write(self._descriptor, 1)


class _WakingEvent(queue.Queue[Any]):
    def __init__(self, work: threading.Event) -> None:
        super().__init__()
        self._work = work

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._work.set()


class _Checkpoint(threading.Event):
    """Passing it also waits until there is something to do."""

    def __init__(self, work: threading.Event) -> None:
        super().__init__()
        self._work = work

    def wait(self, timeout: float | None = None) -> bool:
        passed = super().wait(timeout)
        self._work.wait(_WAIT_SECONDS)
        self._work.clear()  # before the queues are looked at: what comes from now on wakes again
        return passed


class _PromptConnection(AssociationSocket):
    wake: int
    guest: Guest

    def _shutdown_socket(self) -> None:
        # pynetdicom's own keeps the descriptor where the peer was the first to go.
        self.guest.close()

    @property
    def ready(self) -> bool:
        """Wait for data to read, for something to send, or a moment; whether there are data.

        While too many requests of the peer wait for their turn, nothing is read.
        """
        if self.socket is None or not self._is_connected:
            return False
        if self.assoc.dimse.msg_queue.qsize() >= MOST_WAITING and self.assoc.is_established:
            waiting = select.poll()
            waiting.register(self.wake, select.POLLIN)
            if waiting.poll(_FULL_SECONDS * 1000):
                os.eventfd_read(self.wake)
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        connection = self.socket.fileno()
        if connection < 0:
            self.event_queue.put("Evt17")  # pynetdicom's name for a closed connection
            return False
        waiting = select.poll()  # not select(): that knows no descriptor above 1023
        waiting.register(connection, select.POLLIN)
        waiting.register(self.wake, select.POLLIN)
        ready = {descriptor for descriptor, _ in waiting.poll(_WAIT_SECONDS * 1000)}
        if self.wake in ready:
            os.eventfd_read(self.wake)
        return connection in ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly so many bytes, or fewer where the connection ends.

        Senders with Nagle's algorithm hold the last part of each message until the earlier part is
        acknowledged, which Linux delays by 40 ms. TCP_QUICKACK ends with the next read, so each sets it again.
        """
        if nr_bytes > LARGEST_PDU:
            raise OSError("a PDU longer than any of DICOM")
        connection = self.socket
        assert connection is not None
        data = bytearray()
        self.guest.reads()
        while len(data) < nr_bytes:
            piece = connection.recv(min(_PIECE, nr_bytes - len(data)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if not piece:
                break
            data += piece
            self.guest.moved(len(piece))
        self.guest.has_read()
        return data
