"""An association as we use it: one question at a time, an answer within a time, and an end whatever the peer does.

pynetdicom's own `send_*` methods can wait for an answer that came (docs/decisions/0015-c-store-that-hangs.md): its
reactor takes the answer off the queue when it was about to look there as the method began. Here whoever asks owns
the queue, by a lock, and nothing else is read from it. The other ways to wait for ever are cut off, literally: by
shutting the socket down when its time is over.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from outpost.delivery.cause import Cause, Cure, NotSent, PeerUnreachable
from outpost.dicom.bounded import LARGEST_PDU, BoundedDimse, BoundedDul

_CONNECT_SECONDS = 10
_NEGOTIATE_SECONDS = 30
_CLOSE_SECONDS = 15
_POLL_SECONDS = 0.5
# Of struct tcp_info (linux/tcp.h, since Linux 4.1): bytes that the peer's host has acknowledged.
_BYTES_ACKED_AT = 120

Context = tuple[str, str]  # abstract syntax, transfer syntax


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM peer, and the AE title we call ourselves to it.

    `answer_seconds`: how long it may neither take what we send nor answer.
    """

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None
    answer_seconds: float = 120.0

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


class _Messages(BoundedDimse):
    """The queue of messages, of which only one thread at a time can take."""

    def __init__(self, opened: Association) -> None:
        super().__init__(opened)
        self._owning = threading.Lock()
        self._owned = False
        self._sending = threading.Lock()

    def get_msg(self, block: bool = False) -> Any:
        """What pynetdicom's reactor calls; it gets nothing while somebody waits for an answer."""
        with self._owning:
            return (None, None) if self._owned else super().get_msg(block)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """No answer is lost: the reactor took from the queue before this began, or takes nothing until it ends."""
        with self._owning:
            self._owned = True
        try:
            yield
        finally:
            with self._owning:
                self._owned = False

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """One message whole after the other, also when a report is answered meanwhile (PS3.7 6.3.1)."""
        with self._sending:
            super().send_msg(primitive, context_id)


class _Wire(AssociationSocket):
    """The connection; it knows why there is none."""

    fault: NotSent | None = None
    connected_at: float | None = None  # monotonic seconds

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, and shake hands where TLS is spoken; never raises, as pynetdicom's own does not."""
        assert self.socket is not None
        where = "{}:{}".format(*primitive.address)
        shaking_hands = False
        try:
            self.socket.settimeout(_CONNECT_SECONDS)
            self.socket.connect(primitive.address_info.as_tuple)
            # Without this the last part of each message waits up to 40 ms for the peer's delayed acknowledgement.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls_args:
                shaking_hands = True
                context, name = self.tls_args
                self.socket = context.wrap_socket(self.socket, server_hostname=name)
            self.socket.settimeout(None)
            self.assoc.requestor.address_info = AddressInformation.from_tuple(self.socket.getsockname())
            self._is_connected = True
            self.connected_at = time.monotonic()
            evt.trigger(self.assoc, evt.EVT_CONN_OPEN, {"address": primitive.address_info.as_tuple})
            primitive.result = "Evt2"
        except OSError as error:
            self.fault = tls_fault(error, where) if shaking_hands else connection_fault(error, where)
            with suppress(OSError):
                self.socket.close()
            self.socket = None
            primitive.result = "Evt17"
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether there are data; pynetdicom's own asks select(), which knows no descriptor above 1023."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        descriptor = connection.fileno()
        if descriptor < 0:
            self.event_queue.put("Evt17")  # pynetdicom's name for a closed connection
            return False
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        there = bool(waiting.poll(0))
        return there or (isinstance(connection, ssl.SSLSocket) and bool(connection.pending()))

    def recv(self, nr_bytes: int) -> bytearray:
        """Since TLS 1.3 a server says that it does not trust us after our side of the handshake is over."""
        if nr_bytes > LARGEST_PDU:
            raise OSError("a PDU longer than any of DICOM")
        try:
            return super().recv(nr_bytes)
        except ssl.SSLError as error:
            self.fault = tls_fault(error, "the peer")
            raise

    def cut(self) -> None:
        """End the connection now: whoever waits in it, wakes."""
        if self.socket is not None:
            with suppress(OSError):
                # Not SSLSocket's, which would take the TLS layer from under a thread that reads.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def taken_bytes(self) -> int:
        """How many bytes the peer's host has taken; 0 where the kernel does not say."""
        try:
            assert self.socket is not None
            told = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_AT + 8)
            return int(struct.unpack_from("=Q", told, _BYTES_ACKED_AT)[0])
        except (AssertionError, OSError, struct.error):
            return 0


class _Entity(AE):
    """Makes associations of the parts above."""

    wire: _Wire
    refusal: A_ASSOCIATE_RJ | A_ABORT_RQ | None = None  # what the peer answered to our request

    def _create_socket(self, assoc: Association, address: Any, tls_args: Any) -> AssociationSocket:
        assoc.dimse = _Messages(assoc)
        assoc.dul.__class__ = BoundedDul  # made by pynetdicom, which offers no other way
        self.wire = _Wire(assoc, address=address)
        if tls_args is not None:
            self.wire.tls_args = tls_args
        return self.wire

    def hear(self, event: evt.Event) -> None:
        """Keep a refusal as it comes in. Of an answer that is faster than pynetdicom's own thread, which asks first
        whether the connection is still there, that thread only sees that it is not."""
        if isinstance(event.pdu, A_ASSOCIATE_RJ | A_ABORT_RQ):
            self.refusal = event.pdu


class Link:
    """An association, open or with nothing accepted on it."""

    def __init__(self, peer: Peer, opened: Association, wire: _Wire) -> None:
        self.peer = peer
        self._opened = opened
        self._wire = wire
        self._asked = 0
        self._proposed = {str(context.abstract_syntax) for context in opened.requestor.requested_contexts}

    @property
    def is_open(self) -> bool:
        return bool(self._opened.is_established)

    def context(self, abstract_syntax: str, syntaxes: Sequence[str] = ()) -> PresentationContext:
        """The accepted context of a class, in the first of these transfer syntaxes that has one.

        Raises `NotSent`, with the peer's own reason.
        """
        accepted = [c for c in self._opened.accepted_contexts if c.abstract_syntax == abstract_syntax]
        if not syntaxes and accepted:
            return accepted[0]
        for syntax in syntaxes:
            for context in accepted:
                if context.transfer_syntax[0] == syntax:
                    return context
        raise self._refused(abstract_syntax, syntaxes)

    def _refused(self, abstract_syntax: str, syntaxes: Sequence[str]) -> NotSent:
        said = {c.result for c in self._opened.rejected_contexts if c.abstract_syntax == abstract_syntax}
        offered = " and ".join(syntaxes)
        what = f"{self.peer} accepts the association, but not SOP class {abstract_syntax}"
        if abstract_syntax not in self._proposed:
            return NotSent(
                f"SOP class {abstract_syntax} was not offered to {self.peer}", Cause.CONTEXT_REJECTED
            )
        # PS3.8 Table 9-18.
        if 0x03 in said:
            return NotSent(
                f"{what} (abstract syntax not supported): enable this class there",
                Cause.SOP_CLASS_NOT_SUPPORTED,
                Cure.PERSON,
            )
        if 0x04 in said or not said:
            return NotSent(
                f"{what} in transfer syntax {offered} (transfer syntaxes not supported): enable one there",
                Cause.TRANSFER_SYNTAX_NOT_SUPPORTED,
                Cure.PERSON,
            )
        why = "user rejection" if 0x01 in said else "no reason given"
        return NotSent(
            f"{what} ({why}): see whether it lets AE title {self.peer.calling_ae_title} store this class",
            Cause.CONTEXT_REJECTED,
            Cure.PERSON,
        )

    def ask(self, request: Any, context: PresentationContext) -> Any:
        """Send a request and return the peer's answer to it. Raises `PeerUnreachable`; then the link is closed.

        The peer has `answer_seconds`, counted anew whenever its host takes bytes of what we send: a slow line may
        take long, a silent one may not.
        """
        self._asked = self._asked % 0xFFFF + 1
        request.MessageID = self._asked
        messages = cast("_Messages", self._opened.dimse)
        if not self.is_open:
            raise _ended(self.peer)
        assert context.context_id is not None
        try:
            with messages.owned():
                messages.send_msg(request, context.context_id)
                return self._answer(messages, type(request))
        except PeerUnreachable:
            self._drop()
            raise

    def _answer(self, messages: _Messages, kind: type) -> Any:
        taken, since = self._wire.taken_bytes(), time.monotonic()
        while True:
            try:
                _, answer = messages.msg_queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if not self.is_open:
                    raise _ended(self.peer) from None
                now = self._wire.taken_bytes()
                if now != taken:
                    taken, since = now, time.monotonic()
                if time.monotonic() - since >= self.peer.answer_seconds:
                    raise PeerUnreachable(
                        f"{self.peer} has neither taken data nor answered for {self.peer.answer_seconds:g} s: "
                        "see its log and the link to it",
                        Cause.NO_ANSWER,
                    ) from None
                continue
            if answer is None:
                raise _ended(self.peer)
            # An answer to something else is one that was sent twice: it says nothing about this request.
            if answer.MessageIDBeingRespondedTo == self._asked and isinstance(answer, kind):
                if not answer.is_valid_response:
                    raise PeerUnreachable(
                        f"{self.peer} gave an answer without a status: see its log", Cause.NO_ANSWER
                    )
                return answer

    def close(self) -> None:
        """Release the association; a peer that does not join in is left."""
        if not self.is_open:
            return
        with _alarm(_CLOSE_SECONDS, self._wire.cut):
            # As pynetdicom's `release`, which waits for its reactor to pause without a limit.
            self._opened._reactor_checkpoint.clear()
            deadline = time.monotonic() + 1
            while not self._opened._is_paused and time.monotonic() < deadline:
                time.sleep(0.0005)
            self._opened.acse.negotiate_release()
            self._opened._reactor_checkpoint.set()

    def _drop(self) -> None:
        self._wire.cut()
        self._opened.join(_CLOSE_SECONDS)


def open_link(peer: Peer, contexts: Sequence[Context], handlers: Sequence[evt.EventHandlerType] = ()) -> Link:
    """Negotiate an association that offers each of these contexts by itself.

    Where the peer accepts the association and none of the contexts, the link is closed and says why for each.
    Raises `PeerUnreachable`, with the peer's reason.
    """
    entity = _Entity(peer.calling_ae_title)
    entity.acse_timeout = _NEGOTIATE_SECONDS
    # These would end an association while a large result is on its way over a slow line: `Link.ask` has its own.
    entity.dimse_timeout = entity.network_timeout = None
    for abstract_syntax, transfer_syntax in contexts:
        entity.requested_contexts = [*entity.requested_contexts, _context(abstract_syntax, transfer_syntax)]
    _resolve(peer.host, peer.port)
    limit = 2 * _CONNECT_SECONDS + _NEGOTIATE_SECONDS + _CLOSE_SECONDS
    with _alarm(limit, lambda: entity.wire.cut() if hasattr(entity, "wire") else None):
        opened = entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_PDU_RECV, entity.hear), *handlers],
            tls_args=(peer.tls, peer.host) if peer.tls is not None else None,
        )
    answered = opened.acceptor.primitive
    if opened.is_established or (answered is not None and answered.result == 0x00):
        return Link(peer, opened, entity.wire)
    if isinstance(entity.refusal, A_ASSOCIATE_RJ):
        answered = entity.refusal.to_primitive()
    raise _why(peer, answered, entity)


def reach(host: str, port: int, seconds: float) -> None:
    """Connect to a TCP port and close again. Raises `PeerUnreachable`."""
    _resolve(host, port)
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise connection_fault(error, f"{host}:{port}", seconds) from None


def _resolve(host: str, port: int) -> None:
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise name_fault(error, host) from None


def _context(abstract_syntax: str, transfer_syntax: str) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = [transfer_syntax]
    return context


@contextmanager
def _alarm(seconds: float, ring: Any) -> Iterator[None]:
    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _ended(peer: Peer) -> PeerUnreachable:
    return PeerUnreachable(
        f"{peer} ended the association without an answer: see its log", Cause.ASSOCIATION_ABORTED
    )


def name_fault(error: OSError, host: str) -> PeerUnreachable:
    """Why a name has no address."""
    return PeerUnreachable(
        f"the name {host} cannot be resolved ({error.strerror}): correct the destination's address, or the name "
        "service of this host",
        Cause.NAME_NOT_RESOLVED,
    )


def connection_fault(error: OSError, where: str, seconds: float = _CONNECT_SECONDS) -> PeerUnreachable:
    """Why there is no TCP connection."""
    if isinstance(error, ConnectionRefusedError):
        return PeerUnreachable(
            f"{where} cannot be reached (connection refused): nothing listens there; see that the peer runs, and "
            "check the port",
            Cause.CONNECTION_REFUSED,
        )
    why = f"no answer in {seconds:g} s" if isinstance(error, TimeoutError) else error.strerror
    return PeerUnreachable(
        f"{where} cannot be reached ({why}): check address, route and firewall", Cause.NO_ROUTE
    )


def tls_fault(error: OSError, where: str) -> PeerUnreachable:
    """Why there is no TLS on a TCP connection. OpenSSL's words name certificates' faults, never their content."""
    said = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    if not said:
        said = "no answer" if isinstance(error, TimeoutError) else "the connection was closed"
    return PeerUnreachable(
        f"TLS with {where} fails ({said}): check that it speaks TLS on this port, and the certificates and "
        "authorities (tls.ca) of both sides",
        Cause.TLS_FAILED,
    )


# A-ASSOCIATE-RJ (PS3.8 Table 9-21): source and reason -> what it says, our cause, what to do.
_REJECTED = {
    (1, 2): ("application context not supported", Cause.ASSOCIATION_REJECTED, "is this a DICOM storage peer?"),
    (1, 3): (
        "calling AE title not recognised",
        Cause.CALLING_AE_NOT_RECOGNISED,
        "make the peer know our AE title {calling}, with this host's address",
    ),
    (1, 7): (
        "called AE title not recognised",
        Cause.CALLED_AE_NOT_RECOGNISED,
        "the peer is not called {called}: correct the destination's ae_title",
    ),
    (2, 2): ("protocol version not supported", Cause.ASSOCIATION_REJECTED, "is this a DICOM port?"),
    (3, 1): ("temporary congestion", Cause.BUSY, "it is busy; we try again soon"),
    (3, 2): ("local limit exceeded", Cause.BUSY, "it has as many associations as it takes; we try again soon"),
}  # fmt: skip


def _why(peer: Peer, answered: A_ASSOCIATE | None, entity: _Entity) -> PeerUnreachable:
    if entity.wire.fault is not None:
        return PeerUnreachable(str(entity.wire.fault), entity.wire.fault.cause)
    if answered is not None:
        key = (answered.result_source or 0, answered.diagnostic or 0)
        told = f"result {answered.result}, source {key[0]}, reason {key[1]}"
        said, cause, remedy = _REJECTED.get(
            key, ("no reason given", Cause.ASSOCIATION_REJECTED, "see the peer's log for what it misses")
        )
        if cause is Cause.ASSOCIATION_REJECTED and answered.result == 0x02:
            cause, remedy = Cause.BUSY, "it calls this transient; we try again soon"
        remedy = remedy.format(calling=peer.calling_ae_title, called=peer.ae_title)
        return PeerUnreachable(f"{peer} rejects the association: {said} ({told}): {remedy}", cause)
    since = entity.wire.connected_at
    if entity.refusal is None and (since is None or time.monotonic() - since >= _NEGOTIATE_SECONDS):
        return PeerUnreachable(
            f"{peer} accepts the connection, but does not answer the request for an association within "
            f"{_NEGOTIATE_SECONDS} s: check that this is a DICOM port, and whether it wants TLS",
            Cause.NO_ANSWER,
        )
    how = "closed the connection" if entity.refusal is None else "aborted"
    return PeerUnreachable(
        f"{peer} {how} during the negotiation of an association: see its log "
        "(many do so to an AE title or address they do not know), and whether it wants TLS",
        Cause.ASSOCIATION_ABORTED,
    )
