"""The C-STORE listener: every storage class, every transfer syntax, bytes kept as they came."""

from __future__ import annotations

import functools
import gc
import logging
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import ThreadedAssociationServer

from outpost.config import Intake
from outpost.delivery.scu import PUSH_MODEL
from outpost.dicom.classes import may_be_an_image
from outpost.intake.assembly import Assembly
from outpost.intake.doors import Doors, Turned, What
from outpost.intake.guests import WORDS, Guest, Guests, Places, Why, calling_title, rejection, whole_request
from outpost.intake.negotiation import VERIFICATION, is_storage, name_of, supported
from outpost.intake.prompt import PromptRequestHandler
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.room import MIB
from outpost.intake.spool import Spool
from outpost.intake.transfer import Transfer
from outpost.lobby import BACKLOG, Lobby, Room
from outpost.records.counts import clean_sender
from outpost.tls import server_context

log = logging.getLogger(__name__)

_MAX_PDU = 128 * 1024  # bytes; a large PDU saves pynetdicom's per-PDU work (its default is 16 KiB)
_IDLE_SECONDS = 120
_HANDSHAKE_SECONDS = 10
_MOST_HANDSHAKES = 16  # at a time; each has a thread
_COLLECT_SECONDS = 30.0
_END_SECONDS = 3.0  # for associations to end by themselves at our end
_LOOK_AT_DISK_EVERY = 16 * MIB
_ABSTRACT_SYNTAX_NOT_SUPPORTED, _SYNTAXES_NOT_SUPPORTED = 0x03, 0x04  # results of a context (PS3.8 9.3.3.2)
_UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 C
# PS3.4 B.2.3, a warning: the data set does not match its class. Senders go on behind it.
_KEPT_ASIDE = 0xB007

# A-ASSOCIATE-RJ (PS3.8 9.3.4): rejected transient, by the presentation service, local limit exceeded.
_REJECT_TRANSIENT_LOCAL_LIMIT = (0x02, 0x03, 0x02)
# Rejected permanent, by the service user, calling AE title not recognized.
_REJECT_CALLING_AE_TITLE = (0x01, 0x01, 0x03)
# The same, called AE title not recognized.
_REJECT_CALLED_AE_TITLE = (0x01, 0x01, 0x07)


class _Server(ThreadedAssociationServer):
    """Its connections are accepted by a `Lobby`, not by `serve_forever`."""

    daemon_threads = True
    request_queue_size = BACKLOG
    tls: ssl.SSLContext | None = None  # not pynetdicom's ssl_context: that one shakes hands while accepting
    doors: Doors
    guests: Guests
    handshakes: threading.BoundedSemaphore

    def enter(self, accepted: socket.socket, address: Any) -> None:
        """A connection that has something to say gets a thread."""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.settimeout(_IDLE_SECONDS)
        if self.tls is not None and not self.handshakes.acquire(blocking=False):
            words = f"{_MOST_HANDSHAKES} others are shaking hands"
            self.doors.turned_away("connection", Turned.TOO_MANY_CONNECTIONS, words, "", address[0])
            accepted.close()
            return
        self.process_request(accepted, address)

    def guest_of(self, connection: socket.socket, address: Any) -> Guest:
        """Write a connection into the book."""
        return self.guests.arrived(connection, str(address[0]))

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """In the connection's own thread: a client that never shakes hands keeps nobody else waiting."""
        if self.tls is not None:
            assert isinstance(request, socket.socket)
            request.settimeout(_HANDSHAKE_SECONDS)
            try:
                try:
                    request = self.tls.wrap_socket(request, server_side=True)
                finally:
                    self.handshakes.release()
            except OSError as error:  # also ssl.SSLError; its reason is one of OpenSSL's words
                reason = getattr(error, "reason", None) or type(error).__name__
                words = f"the TLS handshake failed ({reason})"
                self.doors.turned_away("connection", Turned.TLS_HANDSHAKE, words, "", client_address[0])
                self.shutdown_request(request)
                return
            request.settimeout(_IDLE_SECONDS)
        super().process_request_thread(request, client_address)

    def shutdown(self) -> None:
        self.server_close()  # pynetdicom's own also waits for a loop that never ran


class _Storing(Association):
    """Takes C-STORE of every class that was accepted; pynetdicom serves those alone that it knows by name."""

    def _serve_request(self, msg: Any, context_id: int) -> None:
        guest = _guest(self)
        if guest is not None:
            guest.asked = True
            guest.busy += 1
        try:
            self._serve(msg, context_id)
        finally:
            if guest is not None:
                guest.busy -= 1

    def _serve(self, msg: Any, context_id: int) -> None:
        context = self._accepted_cx.get(context_id)
        if context is None or not msg.is_valid_request or _is_for_pynetdicom(msg, context):
            super()._serve_request(msg, context_id)
            return
        if self._sent_release:
            return
        self._is_paused = True
        try:
            if isinstance(msg, C_STORE) and is_storage(str(context.abstract_syntax)):
                StorageServiceClass(self).SCP(msg, context)
            else:
                answer = type(msg)()
                answer.MessageIDBeingRespondedTo = msg.MessageID
                answer.Status = _UNRECOGNIZED_OPERATION
                self.dimse.send_msg(answer, context_id)
        except Exception:
            # As pynetdicom does: whatever went wrong, the sender learns it by the end of the association.
            log.exception("a request could not be answered")
            self.abort()
        self._is_paused = False


def _is_for_pynetdicom(msg: Any, context: PresentationContext) -> bool:
    """Whether it is a service that pynetdicom has and we offer; of any other it would parse what came with it."""
    if isinstance(msg, C_ECHO):
        return context.abstract_syntax == VERIFICATION
    return isinstance(msg, N_EVENT_REPORT) and context.abstract_syntax == PUSH_MODEL


class _Handler(PromptRequestHandler):
    def _refused(self, association: Association) -> Callable[[str, str], None]:
        server, known = self.server, weakref.ref(association)
        assert isinstance(server, _Server)

        def note(title: str, words: str) -> None:
            opened = known()
            request = opened.requestor.primitive if opened is not None else None
            named = str(request.calling_ae_title) if request is not None else title
            address = _address(opened) if opened is not None else ""
            server.doors.turned_away("association", Turned.BEYOND_BOUNDS, words, clean_sender(named), address)

        return note

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.__class__ = _Storing  # made by super(), which offers no other way
        return association


@dataclass(slots=True)
class _Sender:
    """What is known of an open association: which series it sent last, how large its instances are."""

    transfer: Transfer
    study: int | None = None
    series_uid: str = ""
    largest: int = 0  # bytes of one instance with all that surrounds it
    arrived: int = 0  # of the present one
    unseen: int = 0  # since the disk was last looked at


class StorageScp:
    """Listens for associations. Success is answered only after `Spool.take` has returned.

    Raises `TlsUnusable`, and `OSError` where the port cannot be listened on.
    """

    def __init__(
        self,
        config: Intake,
        spool: Spool,
        assembly: Assembly,
        reports: Callable[[evt.Event], tuple[int, None]] | None = None,
        reporters: Sequence[str] = (),
        doors: Doors | None = None,
        room: Room | None = None,
        places: Places | None = None,
    ) -> None:
        """`reports` takes storage commitment reports; `reporters` may call although they send no studies.

        `doors` counts what is turned away. `room` is for connections that have asked for nothing yet; `places`, in
        stead of the configured ones, for associations.
        """
        tls = server_context(config.tls, "intake.tls") if config.tls is not None else None
        self._spool = spool
        self._assembly = assembly
        self._doors = doors or Doors()
        self._config = config
        self._guests = Guests(places or places_of(config), self._cut, (*config.known_ae_titles, *reporters))
        self._takes_reports = reports is not None
        self._reporters = frozenset(reporters)
        self._callers = frozenset((*config.known_ae_titles, *reporters)) if config.known_ae_titles else None
        # Its traffic keeps the study it sends to from being complete.
        self._senders: weakref.WeakKeyDictionary[Association, _Sender] = weakref.WeakKeyDictionary()
        _receive_into(spool)
        entity = AE(config.ae_title)
        entity.maximum_pdu_size = _MAX_PDU
        entity.maximum_associations = (
            1 << 30
        )  # `Guests` counts: pynetdicom counts those that never asked, too
        entity.network_timeout = _IDLE_SECONDS
        entity.add_supported_context(VERIFICATION)  # what else is accepted depends on who proposes what
        handlers: list[evt.EventHandlerType] = []
        if reports is not None:  # destinations report their storage commitment to this port
            handlers.append((evt.EVT_N_EVENT_REPORT, reports))
        self._entity = entity
        self._server = entity.make_server(
            (config.listen, config.dicom_port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_request),
                (evt.EVT_REJECTED, self._on_rejected),
                (evt.EVT_ACCEPTED, self._on_accepted),
                (evt.EVT_CONN_CLOSE, self._on_closed),
                (evt.EVT_RELEASED, self._on_released),
                (evt.EVT_ABORTED, self._on_aborted),
                (evt.EVT_DATA_RECV, self._on_data),
                (evt.EVT_C_STORE, self._on_store),
                *handlers,
            ],
            server_class=_Server,
            request_handler=_Handler,
        )
        assert isinstance(self._server, _Server)
        self._server.tls, self._server.doors, self._server.guests = tls, self._doors, self._guests
        self._server.handshakes = threading.BoundedSemaphore(_MOST_HANDSHAKES)
        assert self._server.socket is not None
        self._lobby = Lobby(
            "intake",
            self._server.socket,
            room or Room(per_second=25, burst=50),
            self._server.enter,
            self._at_the_door if tls is None else _first_of_tls,
            self._left_the_lobby,
            asks=_asks if tls is None else bool,
        )
        self._collected = 0.0

    def start(self) -> None:
        self._guests.start()
        self._lobby.start()

    @property
    def listening(self) -> bool:
        return self._lobby.is_alive()

    @property
    def guests(self) -> Guests:
        """Who is connected."""
        return self._guests

    @property
    def waiting(self) -> int:
        """Connections that have asked for nothing yet."""
        return self._lobby.waiting

    def stop(self) -> None:
        """Stop listening, then end open associations: their senders repeat what was not acknowledged.

        Whoever hangs in the middle of a PDU is cut after a moment.
        """
        self._spool.poison.close()
        self._lobby.stop()
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort(block=False)
        until = time.monotonic() + _END_SECONDS
        while self._server.active_associations and time.monotonic() < until:
            time.sleep(0.02)
        self._guests.stop()

    def _at_the_door(self, connection: socket.socket, address: Any, data: bytes) -> bool | None:
        """What is no request is closed; who would find no place is told so without a thread of ours."""
        whole = whole_request(data)
        if whole is None:
            words = "what it sends first is no request for an association"
            self._doors.turned_away("connection", Turned.NO_REQUEST, words, "", address[0])
        if not whole:
            return whole
        title = calling_title(data)
        if self._callers is not None and title not in self._callers:
            return True  # it is told that, in its turn
        refusal = self._guests.refusal(address[0], title)
        if refusal is None:
            return True
        self._doors.turned_away("association", Turned.TOO_MANY_ASSOCIATIONS, refusal, title, address[0])
        try:
            connection.recv(len(data))  # closing with bytes unread would reset the answer away
            connection.send(rejection(*_REJECT_TRANSIENT_LOCAL_LIMIT))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return None

    def _left_the_lobby(self, address: str, why: str, times: int) -> None:
        reason, words = Turned.REQUEST_LATE, WORDS[Why.REQUEST_LATE]
        if why == "full":
            reason = Turned.TOO_MANY_CONNECTIONS
            words = "more connections than there is room for wait without having asked for anything"
        self._doors.turned_away("connection", reason, words, "", address, times=times)

    def _cut(self, why: Why, guest: Guest) -> None:
        what: What = "association" if guest.place else "connection"
        self._doors.turned_away(what, Turned[why.name], WORDS[why], guest.title, guest.address)

    def _on_request(self, event: evt.Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        assert request is not None
        refusal = self._why_to_reject(association, request)
        if refusal is not None:
            reason, words, answer = refusal
            self._turn_away("association", reason, words, association)
            association.acse.send_reject(*answer)
            association.kill()
            return
        association.acceptor.supported_contexts = supported(
            request.presentation_context_definition_list,
            commitment_reports=self._takes_reports and self._may_report(association, request),
        )

    def _why_to_reject(
        self, association: Association, request: A_ASSOCIATE
    ) -> tuple[Turned, str, tuple[int, int, int]] | None:
        """The reason, in a word and in words, and the answer; None where nothing speaks against it."""
        if self._callers is not None and request.calling_ae_title not in self._callers:
            words = "its calling AE title is not in intake.known_ae_titles"
            return Turned.CALLING_AE_UNKNOWN, words, _REJECT_CALLING_AE_TITLE
        if not self._config.may_come_from(str(request.calling_ae_title), _address(association)):
            words = "its address is not among those that intake.senders names for its AE title"
            return Turned.ADDRESS_UNKNOWN, words, _REJECT_CALLING_AE_TITLE
        if not self._config.is_called(str(request.called_ae_title)):
            words = "it calls an AE title that is not intake.ae_title or in intake.called_ae_titles"
            return Turned.CALLED_AE_UNKNOWN, words, _REJECT_CALLED_AE_TITLE
        if self._spool.below_reserve():
            words = "the disk has reached intake.disk_reserve_mib or disk_used_percent"
            return Turned.OUT_OF_SPACE, words, _REJECT_TRANSIENT_LOCAL_LIMIT
        guest = _guest(association)
        if guest is not None:
            full = self._guests.take_place(guest, str(request.calling_ae_title))
            if full is not None:
                return Turned.TOO_MANY_ASSOCIATIONS, full, _REJECT_TRANSIENT_LOCAL_LIMIT
            guest.half = _half_of(association)
        return None

    def _may_report(self, association: Association, request: A_ASSOCIATE) -> bool:
        """Whether the peer reports commitments, as destinations do, and does not ask for them, as modalities do."""
        roles = association.requestor.role_selection.get(UID(PUSH_MODEL))
        return request.calling_ae_title in self._reporters or (roles is not None and bool(roles.scp_role))

    def _on_rejected(self, event: evt.Event) -> None:
        # By pynetdicom itself: what we know of we have rejected before.
        words = "it asks for what cannot be negotiated, as a user identity that is not known"
        self._turn_away("association", Turned.NOT_NEGOTIATED, words, event.assoc)

    def _on_accepted(self, event: evt.Event) -> None:
        for context in event.assoc.rejected_contexts:
            self._turn_away("context", *_why_rejected(context), event.assoc)

    def _turn_away(
        self,
        what: What,
        reason: str,
        words: str,
        association: Association,
        cause: BaseException | None = None,
    ) -> None:
        request = association.requestor.primitive
        title = str(request.calling_ae_title) if request is not None else ""
        self._doors.turned_away(what, reason, words, title, _address(association), cause)

    def _sender(self, association: Association) -> _Sender:
        sender = self._senders.get(association)
        if sender is None:
            still = weakref.ref(association)  # what the dictionary holds must not hold its own key
            sender = _Sender(
                self._assembly.transfer(
                    str(association.requestor.ae_title),
                    _address(association),
                    half=lambda: (known := still()) is not None and known.dimse.message is not None,
                    alive=lambda: (known := still()) is not None and known.is_alive(),
                )
            )
            if association.requestor.primitive is None:
                return sender  # it has not said yet who it is
            self._senders[association] = sender
        return sender

    def _on_released(self, event: evt.Event) -> None:
        if (sender := self._senders.get(event.assoc)) is not None:
            sender.transfer.released(_storage_refused(event.assoc))

    def _on_aborted(self, event: evt.Event) -> None:
        if (sender := self._senders.get(event.assoc)) is not None:
            sender.transfer.broke_off()

    def _on_data(self, event: evt.Event) -> None:
        sender = self._sender(event.assoc)
        size = len(event.data)
        sender.transfer.moved()
        sender.arrived += size
        self._spool.room.expect(event.assoc, sender.largest - sender.arrived)
        if sender.study is not None:
            self._assembly.still_arriving(sender.study, sender.series_uid)
        sender.unseen += size
        if sender.unseen >= _LOOK_AT_DISK_EVERY:
            sender.unseen = 0
            if self._spool.below_reserve():
                words = (
                    "the disk reached its mark in the middle of an instance, and the association was ended"
                )
                self._turn_away("instance", Turned.OUT_OF_SPACE, words, event.assoc)
                event.assoc.abort(block=False)

    def _on_closed(self, event: evt.Event) -> None:
        if (guest := _guest(event.assoc)) is not None:
            self._guests.left(guest)
        self._collect()
        self._spool.room.expect(event.assoc, 0)
        # pynetdicom leaves the file of an instance that did not come to its end: nobody will ever need it.
        half = event.assoc.dimse.message
        if half is not None and half._data_set_file is not None:
            half._data_set_file.close()
            Path(half._data_set_file.name).unlink(missing_ok=True)
        if event.assoc.requestor.primitive is None:
            # Closed before it asked for an association, as every probe of the port is: pynetdicom would go on
            # waiting for the request, and count it as an open association, for half a minute.
            primitives: Any = event.assoc.dul.to_user_queue
            primitives.put(None)  # as at its time-out

    def _collect(self) -> None:
        """pynetdicom's associations are circles; who comes in floods would otherwise stay in memory."""
        now = time.monotonic()
        if now - self._collected > _COLLECT_SECONDS:
            self._collected = now
            gc.collect()

    def _on_store(self, event: evt.Event) -> int | Dataset:
        request = event.request
        assert isinstance(request, C_STORE)
        sender = self._sender(event.assoc)
        sender.largest, sender.arrived = max(sender.largest, sender.arrived), 0
        self._spool.room.expect(event.assoc, 0)
        try:
            header, study = self._spool.take(
                event.dataset_path,
                source=str(event.assoc.requestor.ae_title),
                announced_uid=str(request.AffectedSOPInstanceUID),
                transfer=sender.transfer.name,
                address=_address(event.assoc),
            )
        except InstanceRefused as refused:
            sop_class = refused.sop_class or str(request.AffectedSOPClassUID)
            if self._spool.may_be_image(sop_class):
                announced = str(request.AffectedSOPInstanceUID)
                sender.transfer.refused(announced, refused.refusal, refused.study_uid)
            self._turn_away("instance", refused.refusal.name, refused.comment, event.assoc, refused.__cause__)
            if refused.wait:
                title = str(event.assoc.requestor.ae_title)
                self._doors.slowed(refused.refusal.name, title, _address(event.assoc), refused.wait)
                self._spool.poison.hold(refused.wait)
            return _answer_to(refused, str(request.AffectedSOPClassUID))
        except Exception as error:
            self._turn_away("instance", Refusal.INTERNAL.name, Refusal.INTERNAL.comment, event.assoc, error)
            return _answer_to(InstanceRefused(Refusal.INTERNAL), "")
        sender.transfer.took(header, study)
        if (guest := _guest(event.assoc)) is not None and not guest.stored:
            self._guests.stores(guest)
        if study is not None:
            sender.study, sender.series_uid = study.row, header.series_uid
            self._assembly.instance_taken(study.row, header)
        return 0x0000


def places_of(config: Intake) -> Places:
    """The places of a configuration."""
    return Places.of(
        config.max_associations,
        config.max_associations_per_peer,
        stall_seconds=config.stall_seconds,
        unused_seconds=config.unused_seconds,
    )


def _asks(data: bytes) -> bool:
    """Whether these first bytes are a request."""
    return bool(data) and bool(whole_request(data))


def _first_of_tls(_connection: socket.socket, _address: Any, _data: bytes) -> bool:
    """Whether it has something to say; what, is seen behind the handshake."""
    return True


def _guest(association: Association) -> Guest | None:
    return getattr(association.dul.socket, "guest", None)


def _half_of(association: Association) -> Callable[[], bool]:
    """Whether a message of it has begun and not ended; it does not keep the association."""
    still = weakref.ref(association)
    return lambda: (known := still()) is not None and known.dimse.message is not None


def _storage_refused(association: Association) -> list[str]:
    """Storage classes that were asked for and are in no accepted context."""
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    asked = {context.abstract_syntax for context in association.rejected_contexts} - accepted
    return sorted({name_of(str(uid)) for uid in asked if uid is not None and is_storage(str(uid))})


# What may be wrong with an object that is no image, and no reason to hold up the images behind it.
_OF_NO_STUDY = (Refusal.NOT_DICOM, Refusal.TOO_COMPLEX, Refusal.UID_MISSING, Refusal.UID_UNSAFE)


def _answer_to(refused: InstanceRefused, announced_class: str) -> Dataset:
    """The C-STORE status: a failure, at which DCMTK's senders stop in the middle of what they have to send.

    An object that no model reads, and that belongs to no study, is not worth that: hanging protocols, DICOMDIRs,
    private ones. It is in quarantine, and its sender is warned.
    """
    status = Dataset()
    aside = refused.kept and refused.refusal in _OF_NO_STUDY
    if aside and not may_be_an_image(refused.sop_class or announced_class):
        status.Status = _KEPT_ASIDE
    else:
        status.Status = refused.refusal.status
    status.ErrorComment = refused.comment
    return status


def _why_rejected(context: PresentationContext) -> tuple[Turned, str]:
    uid = str(context.abstract_syntax)
    if context.result == _ABSTRACT_SYNTAX_NOT_SUPPORTED and uid == PUSH_MODEL:
        words = (
            "storage commitment is not offered: this is no archive, and the peer no destination that reports"
        )
        return Turned.COMMITMENT_NOT_OFFERED, words
    if context.result == _ABSTRACT_SYNTAX_NOT_SUPPORTED:
        return (
            Turned.SERVICE_NOT_OFFERED,
            f"{name_of(uid)} is not offered: instances are stored here, no more",
        )
    if context.result == _SYNTAXES_NOT_SUPPORTED:
        return Turned.SYNTAX_NOT_OFFERED, f"no transfer syntax proposed for {name_of(uid)} is known"
    return Turned.ROLE_NOT_OFFERED, f"for {name_of(uid)} the peer proposes a role that leaves us none"


def _address(association: Association) -> str:
    address = association.requestor.address_info
    return address.address if address is not None else ""


def _receive_into(spool: Spool) -> None:
    """Have pynetdicom write each data set to a file as it arrives, on the file system of the spool.

    It only knows the system's temporary folder, which is memory in our container, and from which a file could
    not be linked into the spool.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = (
        "none"  # those write out each request before its bounds are looked at; nobody reads it
    )
    # Replacing the one name it looks up there leaves everyone else's temporary files where they are.
    dimse_messages.__dict__["NamedTemporaryFile"] = functools.partial(NamedTemporaryFile, dir=spool.incoming)
