"""The C-STORE listener: every storage class, every transfer syntax, bytes kept as they came."""

from __future__ import annotations

import functools
import logging
import socket
import socketserver
import ssl
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import (
    AE,
    ALL_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
    _config,
    dimse_messages,
    evt,
)
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import ThreadedAssociationServer

from outpost.config import Intake
from outpost.delivery.scu import PUSH_MODEL
from outpost.intake.assembly import Assembly
from outpost.intake.prompt import PromptRequestHandler
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.room import MIB
from outpost.intake.spool import Spool
from outpost.tls import server_context

log = logging.getLogger(__name__)

_MAX_PDU = 128 * 1024  # bytes; a large PDU saves pynetdicom's per-PDU work (its default is 16 KiB)
_IDLE_SECONDS = 120
_HANDSHAKE_SECONDS = 10
_LOOK_AT_DISK_EVERY = 16 * MIB
_VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO

# A-ASSOCIATE-RJ (PS3.8 9.3.4): rejected transient, by the presentation service, local limit exceeded.
_REJECT_TRANSIENT_LOCAL_LIMIT = (0x02, 0x03, 0x02)


class _Server(ThreadedAssociationServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None  # not pynetdicom's ssl_context: that one shakes hands while accepting

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        accepted, address = super().get_request()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.settimeout(_IDLE_SECONDS)
        return accepted, address

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """In the connection's own thread: a client that never shakes hands keeps nobody else waiting."""
        if self.tls is not None:
            assert isinstance(request, socket.socket)
            request.settimeout(_HANDSHAKE_SECONDS)
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError as error:  # also ssl.SSLError; its reason is one of OpenSSL's words
                reason = getattr(error, "reason", None) or type(error).__name__
                log.warning("connection from %s refused in the TLS handshake: %s", client_address[0], reason)
                self.shutdown_request(request)
                return
            request.settimeout(_IDLE_SECONDS)
        super().process_request_thread(request, client_address)

    def shutdown(self) -> None:
        socketserver.BaseServer.shutdown(self)  # pynetdicom's own also looks for us among servers it started
        self.server_close()


@dataclass(slots=True)
class _Sender:
    """What is known of an open association: which series it sent last, how large its instances are."""

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
    ) -> None:
        """`reports` takes storage commitment reports; `reporters` may call although they send no studies."""
        tls = server_context(config.tls, "intake.tls") if config.tls is not None else None
        self._spool = spool
        self._assembly = assembly
        self._max_associations = config.max_associations
        # Its traffic keeps the study it sends to from being complete.
        self._senders: weakref.WeakKeyDictionary[Association, _Sender] = weakref.WeakKeyDictionary()
        _receive_into(spool)
        entity = AE(config.ae_title)
        entity.maximum_pdu_size = _MAX_PDU
        entity.maximum_associations = config.max_associations
        entity.network_timeout = _IDLE_SECONDS
        if config.known_ae_titles:
            entity.require_calling_aet = [*config.known_ae_titles, *reporters]
        entity.add_supported_context(_VERIFICATION)
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        handlers: list[evt.EventHandlerType] = []
        if reports is not None:  # destinations report their storage commitment to this port
            entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
            handlers.append((evt.EVT_N_EVENT_REPORT, reports))
        self._entity = entity
        self._server = entity.make_server(
            (config.listen, config.dicom_port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_request),
                (evt.EVT_REJECTED, self._on_rejected),
                (evt.EVT_CONN_CLOSE, self._on_closed),
                (evt.EVT_DATA_RECV, self._on_data),
                (evt.EVT_C_STORE, self._on_store),
                *handlers,
            ],
            server_class=_Server,
            request_handler=PromptRequestHandler,
        )
        assert isinstance(self._server, _Server)
        self._server.tls = tls
        self._thread = threading.Thread(target=self._server.serve_forever, name="intake", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def listening(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop listening, then end open associations: their senders repeat what was not acknowledged."""
        self._server.shutdown()
        self._thread.join()
        self._entity.shutdown()
        for association in self._server.active_associations:
            association.abort()

    def _on_request(self, event: evt.Event) -> None:
        if self._spool.below_reserve():
            log.warning(
                "association refused: the disk has reached intake.disk_reserve_mib or disk_used_percent"
            )
            event.assoc.acse.send_reject(*_REJECT_TRANSIENT_LOCAL_LIMIT)
            event.assoc.kill()

    def _on_rejected(self, event: evt.Event) -> None:
        log.warning(
            "association refused: calling AE title %r is not in intake.known_ae_titles, or %d are open",
            event.assoc.requestor.ae_title,
            self._max_associations,
        )

    def _on_data(self, event: evt.Event) -> None:
        sender = self._senders.setdefault(event.assoc, _Sender())
        size = len(event.data)
        sender.arrived += size
        self._spool.room.expect(event.assoc, sender.largest - sender.arrived)
        if sender.study is not None:
            self._assembly.still_arriving(sender.study, sender.series_uid)
        sender.unseen += size
        if sender.unseen >= _LOOK_AT_DISK_EVERY:
            sender.unseen = 0
            if self._spool.below_reserve():
                log.warning("association ended: the disk reached its mark in the middle of an instance")
                event.assoc.abort(block=False)

    def _on_closed(self, event: evt.Event) -> None:
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

    def _on_store(self, event: evt.Event) -> int | Dataset:
        request = event.request
        assert isinstance(request, C_STORE)
        sender = self._senders.setdefault(event.assoc, _Sender())
        sender.largest, sender.arrived = max(sender.largest, sender.arrived), 0
        self._spool.room.expect(event.assoc, 0)
        try:
            header, study = self._spool.take(
                event.dataset_path,
                source=str(event.assoc.requestor.ae_title),
                announced_uid=str(request.AffectedSOPInstanceUID),
            )
        except InstanceRefused as refused:
            if refused.__cause__ is not None:
                log.exception("C-STORE: %s", refused.refusal.name, exc_info=refused.__cause__)
            else:
                log.warning("C-STORE: %s, %s", refused.refusal.name, refused.refusal.comment)
            return _failure(refused.refusal)
        except Exception:
            log.exception("C-STORE: %s", Refusal.INTERNAL.comment)
            return _failure(Refusal.INTERNAL)
        if study is not None:
            sender.study, sender.series_uid = study.row, header.series_uid
            self._assembly.instance_taken(study.row, header)
        return 0x0000


def _failure(refusal: Refusal) -> Dataset:
    status = Dataset()
    status.Status = refusal.status
    status.ErrorComment = refusal.comment
    return status


def _receive_into(spool: Spool) -> None:
    """Have pynetdicom write each data set to a file as it arrives, on the file system of the spool.

    It only knows the system's temporary folder, which is memory in our container, and from which a file could
    not be linked into the spool.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True
    # Replacing the one name it looks up there leaves everyone else's temporary files where they are.
    dimse_messages.__dict__["NamedTemporaryFile"] = functools.partial(NamedTemporaryFile, dir=spool.incoming)
