"""The C-STORE listener: every storage class, every transfer syntax, bytes kept as they came."""

from __future__ import annotations

import functools
import logging
import socket
import socketserver
import threading
import weakref
from tempfile import NamedTemporaryFile

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
from outpost.intake.assembly import Assembly
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import Spool

log = logging.getLogger(__name__)

_MAX_PDU = 128 * 1024  # bytes; a large PDU saves pynetdicom's per-PDU work (its default is 16 KiB)
_MAX_ASSOCIATIONS = 32
_IDLE_SECONDS = 120
_VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO

# A-ASSOCIATE-RJ (PS3.8 9.3.4): rejected transient, by the presentation service, local limit exceeded.
_REJECT_TRANSIENT_LOCAL_LIMIT = (0x02, 0x03, 0x02)


class _PromptSocket(socket.socket):
    """A receiving socket that acknowledges at once.

    Senders with Nagle's algorithm hold the last part of each message until the earlier part is acknowledged,
    which Linux delays by 40 ms. TCP_QUICKACK ends with the next read, so it is set again after each.
    """

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data = super().recv(bufsize, flags)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


class _Server(ThreadedAssociationServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        accepted, address = super().get_request()
        prompt = _PromptSocket(fileno=accepted.detach())
        prompt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return prompt, address

    def shutdown(self) -> None:
        socketserver.BaseServer.shutdown(self)  # pynetdicom's own also looks for us among servers it started
        self.server_close()


class StorageScp:
    """Listens for associations. Success is answered only after `Spool.take` has returned."""

    def __init__(self, config: Intake, spool: Spool, assembly: Assembly) -> None:
        self._spool = spool
        self._assembly = assembly
        # The study each open association last sent to: its traffic keeps that study from being complete.
        self._sending: weakref.WeakKeyDictionary[Association, int] = weakref.WeakKeyDictionary()
        _receive_into(spool)
        entity = AE(config.ae_title)
        entity.maximum_pdu_size = _MAX_PDU
        entity.maximum_associations = _MAX_ASSOCIATIONS
        entity.network_timeout = _IDLE_SECONDS
        entity.require_calling_aet = list(config.known_ae_titles)
        entity.add_supported_context(_VERIFICATION)
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        self._entity = entity
        self._server = entity.make_server(
            (config.listen, config.dicom_port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_request),
                (evt.EVT_REJECTED, self._on_rejected),
                (evt.EVT_DATA_RECV, self._on_data),
                (evt.EVT_C_STORE, self._on_store),
            ],
            server_class=_Server,
        )
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
            log.warning("association refused: free disk space is below intake.disk_reserve_mib")
            event.assoc.acse.send_reject(*_REJECT_TRANSIENT_LOCAL_LIMIT)
            event.assoc.kill()

    def _on_rejected(self, event: evt.Event) -> None:
        log.warning(
            "association refused: calling AE title %r is not in intake.known_ae_titles, or %d are open",
            event.assoc.requestor.ae_title,
            _MAX_ASSOCIATIONS,
        )

    def _on_data(self, event: evt.Event) -> None:
        row = self._sending.get(event.assoc)
        if row is not None:
            self._assembly.still_arriving(row)

    def _on_store(self, event: evt.Event) -> int | Dataset:
        request = event.request
        assert isinstance(request, C_STORE)
        try:
            _, study = self._spool.take(
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
            self._sending[event.assoc] = study.row
            self._assembly.instance_taken(study.row)
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
