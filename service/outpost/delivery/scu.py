"""Sending DICOM files by C-STORE, as they are, over one association."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association

# Send the encoded bytes of the file: a result leaves exactly as it lies in the outbox.
_config.STORE_SEND_CHUNKED_DATASET = True

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 120
_VERIFICATION = "1.2.840.10008.1.1"
PUSH_MODEL = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
_CONTEXTS = 128  # presentation contexts an association can carry (PS3.8 9.3.2: odd numbers up to 255)
# Stored, with a remark (PS3.4 B.2.3): coercion of elements, data set does not match, elements discarded.
_STORED = (0x0000, 0xB000, 0xB006, 0xB007)


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM storage peer, and the AE title we call ourselves to it."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None


class NotSent(Exception):
    """The peer did not confirm; the text names what it said and what to look at."""


class PeerUnreachable(NotSent):
    """No association, or it ended: trying further files now is useless."""


@contextmanager
def association(
    peer: Peer, files: Sequence[Path] = (), reports: Callable[[evt.Event], tuple[int, None]] | None = None
) -> Iterator[Association]:
    """An association that can carry these files; without files, one for C-ECHO. Raises `PeerUnreachable`.

    With `reports` it can also ask for storage commitment, and hand on a report that comes meanwhile.
    """
    entity = AE(peer.calling_ae_title)
    entity.connection_timeout = _CONNECT_SECONDS
    entity.acse_timeout = _CONNECT_SECONDS
    entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
    wanted = sorted({_class_and_syntax(file) for file in files}) or [(_VERIFICATION, "1.2.840.10008.1.2")]
    handlers: list[evt.EventHandlerType] = [(evt.EVT_CONN_OPEN, _send_promptly)]
    if reports is not None:
        entity.add_requested_context(PUSH_MODEL)
        handlers.append((evt.EVT_N_EVENT_REPORT, reports))
    for sop_class, transfer_syntax in wanted[: _CONTEXTS - (reports is not None)]:
        entity.add_requested_context(sop_class, transfer_syntax)
    opened = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        evt_handlers=handlers,
        tls_args=(peer.tls, peer.host) if peer.tls is not None else None,
    )
    if not opened.is_established:
        raise PeerUnreachable(_why(opened, peer))
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def store(opened: Association, file: Path) -> None:
    """Send one file; returns once the peer has confirmed it. Raises `NotSent`."""
    try:
        status = opened.send_c_store(file)
    except ValueError:
        sop_class, transfer_syntax = _class_and_syntax(file)
        raise NotSent(
            f"the peer does not take SOP class {sop_class} in transfer syntax {transfer_syntax}: enable both"
        ) from None
    except RuntimeError:
        raise PeerUnreachable("the peer ended the association") from None
    _require_stored(status, opened)


def echo(peer: Peer) -> None:
    """C-ECHO. Raises `PeerUnreachable`."""
    with association(peer) as opened:
        status = opened.send_c_echo()
        if "Status" not in status or status.Status != 0:
            raise PeerUnreachable(f"{peer.ae_title} at {peer.host}:{peer.port} does not answer C-ECHO")


def _require_stored(status: Dataset, opened: Association) -> None:
    if "Status" not in status:
        if not opened.is_established:
            raise PeerUnreachable("the peer ended the association without an answer to C-STORE")
        raise PeerUnreachable(f"no answer to C-STORE within {_ANSWER_SECONDS} s")
    if status.Status not in _STORED:
        raise NotSent(f"the peer answered C-STORE with status 0x{status.Status:04X}: see its log")


def _why(opened: Association, peer: Peer) -> str:
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    if opened.is_rejected:
        return f"{where} rejected the association: make it know the AE title {peer.calling_ae_title}"
    return f"{where} cannot be reached within {_CONNECT_SECONDS} s: check address, port and firewall"


def _class_and_syntax(file: Path) -> tuple[str, str]:
    meta = read_file_meta_info(file)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _send_promptly(event: evt.Event) -> None:
    """Without this the last part of each message waits up to 40 ms for the peer's delayed acknowledgement."""
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
