"""Sending DICOM files by C-STORE, as they are, over one association."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.filereader import read_file_meta_info
from pynetdicom import _config, evt
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import split_dataset

from outpost.delivery import encoding
from outpost.delivery.cause import Cause, Cure, NotSent, Outcome, PeerUnreachable, Status, status_of
from outpost.delivery.link import Context, Link, Peer, open_link

__all__ = [
    "PUSH_MODEL",
    "Link",
    "NotSent",
    "Peer",
    "PeerUnreachable",
    "association",
    "echo",
    "require_taken",
    "store",
]

# Send the encoded bytes of the file: a result leaves exactly as it lies in the outbox.
_config.STORE_SEND_CHUNKED_DATASET = True

_VERIFICATION = "1.2.840.10008.1.1"
PUSH_MODEL = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
_CONTEXTS = 128  # presentation contexts an association can carry (PS3.8 9.3.2: odd numbers up to 255)
_OFFENDING = 5  # attributes named of those a peer complains about


@contextmanager
def association(
    peer: Peer, files: Sequence[Path] = (), reports: Callable[[evt.Event], tuple[int, None]] | None = None
) -> Iterator[Link]:
    """An association that can carry these files; without files, one for C-ECHO. Raises `PeerUnreachable`.

    With `reports` it can also ask for storage commitment, and hand on a report that comes meanwhile.
    """
    handlers: list[evt.EventHandlerType] = []
    contexts: list[Context] = [] if files else [(_VERIFICATION, encoding.IMPLICIT)]
    if reports is not None:
        contexts += [(PUSH_MODEL, encoding.IMPLICIT), (PUSH_MODEL, encoding.EXPLICIT)]
        handlers.append((evt.EVT_N_EVENT_REPORT, reports))
    link = open_link(peer, (contexts + _contexts(files))[:_CONTEXTS], handlers)
    try:
        yield link
    finally:
        link.close()


def _contexts(files: Sequence[Path]) -> list[Context]:
    """One for each class and transfer syntax, then others that the same values can be sent in.

    Each has a transfer syntax of its own: of several in one context the peer picks one, which need not be the
    file's, and many pick Implicit VR. The files' own come first, should there not be room for all.
    """
    own = sorted({_class_and_syntax(file) for file in files})
    also = [(sop_class, syntax) for sop_class, held in own for syntax in encoding.also(held)]
    return list(dict.fromkeys([*own, *also]))


def store(link: Link, file: Path) -> str:
    """Send one file; returns once the peer has confirmed it, with its remark if it had one. Raises `NotSent`."""
    try:
        meta, offset = split_dataset(file)
        sop_class, instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        syntax = str(meta.TransferSyntaxUID)
    except (OSError, AttributeError) as error:
        raise NotSent(
            f"the file cannot be read ({type(error).__name__}): see the disk", Cause.FILE_UNUSABLE
        ) from None
    context = link.context(sop_class, (syntax, *encoding.also(syntax)))
    request = C_STORE()
    request.Priority = 0x02
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = instance
    if context.transfer_syntax[0] == syntax:
        request._dataset_path = (file, offset)
    else:
        try:
            request.DataSet = BytesIO(encoding.data_set(file, context.transfer_syntax[0]))
        except encoding.NotEncodable as fault:
            raise NotSent(
                f"the peer takes SOP class {sop_class} in transfer syntax {context.transfer_syntax[0]} alone, and the "
                f"file cannot be sent in it ({fault}): enable {syntax} at the peer",
                Cause.TRANSFER_SYNTAX_NOT_SUPPORTED,
                Cure.PERSON,
            ) from None
    answer = link.ask(request, context)
    if answer.AffectedSOPInstanceUID and answer.AffectedSOPInstanceUID != instance:
        raise NotSent("the peer answered C-STORE for another instance: see its log", Cause.UNKNOWN_STATUS)
    return require_taken(status_of(answer.Status), "C-STORE", _offending(answer))


def sent_as(link: Link, file: Path) -> str | None:
    """The transfer syntax a file is re-encoded in on this association; None where it goes as it is."""
    sop_class, syntax = _class_and_syntax(file)
    accepted = str(link.context(sop_class, (syntax, *encoding.also(syntax))).transfer_syntax[0])
    return None if accepted == syntax else accepted


def require_taken(status: Status, what: str, about: str = "") -> str:
    """The remark with which a peer took an instance, or none. Raises `NotSent` where it did not take it.

    `about` names attributes the peer complains of.
    """
    if status.outcome is Outcome.FAILED:
        raise NotSent(
            f"the peer answered {what} with status {status}{about}: {status.remedy}",
            status.cause,
            status.cure,
        )
    return "" if status.outcome is Outcome.STORED else f"{status}{about}"


def echo(peer: Peer) -> None:
    """C-ECHO; a peer that accepts the association but not this service has answered as well.

    Raises `PeerUnreachable`.
    """
    with association(peer) as link:
        try:
            context = link.context(_VERIFICATION)
        except NotSent:
            return
        request = C_ECHO()
        request.AffectedSOPClassUID = _VERIFICATION
        answer = link.ask(request, context)
        if answer.Status != 0:
            raise PeerUnreachable(
                f"{peer} answers C-ECHO with status 0x{answer.Status:04X}: see its log", Cause.UNKNOWN_STATUS
            )


def _offending(answer: Any) -> str:
    """Attributes that a status is about (0000,0901). Its Error Comment may quote the patient's, so it is left."""
    tags = answer.OffendingElement or ()
    if isinstance(tags, int):
        tags = (tags,)
    named = [keyword_for_tag(tag) or str(tag) for tag in list(tags)[:_OFFENDING]]
    return f" about {', '.join(named)}" if named else ""


def _class_and_syntax(file: Path) -> Context:
    meta = read_file_meta_info(file)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
