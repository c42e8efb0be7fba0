"""Storage commitment (PS3.4 J): asking a destination to answer for what it took, and hearing its report.

A report comes on the association it was asked on, or on one that the destination opens to our intake port, hours
later perhaps. It is believed for the transaction it names: 122 random bits that only the destination was told.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import evt
from pynetdicom.association import Association

from outpost.delivery.scu import PUSH_MODEL
from outpost.records.journal import Journal

log = logging.getLogger(__name__)

_INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known instance (PS3.4 J.3.5)
_REQUEST = 1  # action type
# Failure Reason (0008,1197) of a Failed SOP Sequence (PS3.3 C.14.1.1).
_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such instance there",
    0x0119: "class and instance do not match",
    0x0122: "class not supported",
    0x0131: "transaction UID in use already",
    0x0213: "no room",
}


def new_transaction_uid() -> str:
    """A UID nobody can guess (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def ask(opened: Association, files: Sequence[Path], transaction_uid: str) -> str | None:
    """Ask for the commitment of result files; returns None when the request was taken, else why not."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(file) for file in files]
    try:
        status, _ = opened.send_n_action(request, _REQUEST, PUSH_MODEL, _INSTANCE)
    except ValueError:
        return "the peer does not offer storage commitment: enable it there, or set commitment to false"
    except RuntimeError:
        return "the peer ended the association before storage commitment was asked for"
    if "Status" not in status:
        return "no answer to the request for storage commitment"
    if status.Status != 0:
        return f"the peer answered the request for storage commitment with status 0x{status.Status:04X}"
    return None


class Reports:
    """Takes reports, on whatever association they come; `heard` is called after each that was known."""

    def __init__(self, journal: Journal, heard: Callable[[], None]) -> None:
        self._journal = journal
        self._heard = heard

    def take(self, event: evt.Event) -> tuple[int, None]:
        """Handler of N-EVENT-REPORT. Success is answered once the report is in the journal."""
        try:
            report = event.event_information
            transaction = str(report.TransactionUID)
            awaited = {file: row for row, file, _ in self._journal.awaiting(transaction)}
            committed = [
                (awaited[file], file)
                for file in map(_file_of, report.get("ReferencedSOPSequence") or ())
                if file in awaited
            ]
            failed = [
                (awaited[file], file, f"storage commitment refused: {_reason(item)}")
                for item in report.get("FailedSOPSequence") or ()
                if (file := _file_of(item)) in awaited
            ]
            self._journal.commitment_reported(transaction, committed, failed)
            known = len(committed) + len(failed)
        except Exception as error:
            # A report is the peer's bytes; the error's text may quote them.
            log.warning("storage commitment: a report that cannot be used (%s)", type(error).__name__)
            return 0x0110, None
        if not known:
            log.warning("storage commitment: a report on nothing that is waited for")
        elif failed:
            log.warning("storage commitment: %d results refused, to be sent again", len(failed))
        if known:
            self._heard()
        return 0x0000, None


def _reference(file: Path) -> Dataset:
    meta = read_file_meta_info(file)
    item = Dataset()
    item.ReferencedSOPClassUID = meta.MediaStorageSOPClassUID
    item.ReferencedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return item


def _file_of(item: Dataset) -> str:
    """Results are named by their instance UID."""
    return f"{item.ReferencedSOPInstanceUID}.dcm"


def _reason(item: Dataset) -> str:
    code = int(item.get("FailureReason") or 0)
    return _REASONS.get(code, f"reason 0x{code:04X}")
