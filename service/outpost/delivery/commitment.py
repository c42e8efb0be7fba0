"""Storage commitment (PS3.4 J): asking a destination to answer for what it took, and hearing its report.

A report comes on the association it was asked on, or on one that the destination opens to our intake port, hours
later perhaps. It is believed for the transaction it names: 122 random bits that only the destination was told.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import encode

from outpost.config import Delivery as DeliveryConfig
from outpost.delivery.cause import Cause, Cure, NotSent, status_of
from outpost.delivery.link import Link
from outpost.delivery.pace import is_believed, note_refused
from outpost.delivery.scu import PUSH_MODEL
from outpost.dicom.walk import BIG_ENDIAN, IMPLICIT, Bounds, Held, walk
from outpost.records.journal import Journal

log = logging.getLogger(__name__)

_INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known instance (PS3.4 J.3.5)
_REQUEST = 1  # action type
# Failure Reason (0008,1197) of a Failed SOP Sequence (PS3.3 C.14.1.1), and whether sending the result again can
# change it. Others are read as a status of C-STORE.
_REASONS = {
    0x0110: ("processing failure", Cure.PERSON_IF_REPEATED),
    0x0112: ("no such instance there", Cure.PERSON_IF_REPEATED),
    # Another object lies there under our UID.
    0x0119: ("class and instance do not match", Cure.PERSON),
    0x0122: ("it does not commit to this class: enable that, or set commitment to false", Cure.PERSON),
    0x0131: ("transaction UID in use already", Cure.TIME),
    0x0213: ("no room", Cure.TIME),
}


def new_transaction_uid() -> str:
    """A UID nobody can guess (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def ask(link: Link, files: Sequence[Path], transaction_uid: str) -> None:
    """Ask for the commitment of result files. Raises `NotSent` when the request was not taken."""
    try:
        context = link.context(PUSH_MODEL)
    except NotSent as refused:
        raise NotSent(
            f"{link.peer} does not offer storage commitment: enable it there, or set commitment to false",
            Cause.COMMITMENT_NOT_OFFERED,
            refused.cure,
        ) from None
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = [_reference(file) for file in files]
    request = N_ACTION()
    request.RequestedSOPClassUID = PUSH_MODEL
    request.RequestedSOPInstanceUID = _INSTANCE
    request.ActionTypeID = _REQUEST
    syntax = context.transfer_syntax[0]
    encoded = encode(asked, syntax.is_implicit_VR, syntax.is_little_endian)
    assert encoded is not None  # a data set of our own making
    request.ActionInformation = BytesIO(encoded)
    status = int(link.ask(request, context).Status)
    if status != 0:
        said = status_of(status)
        raise NotSent(
            f"{link.peer} answered the request for storage commitment with status {said}: see its log",
            Cause.COMMITMENT_REFUSED,
            said.cure,
        )


# Objects of some kilobyte for each item.
_REPORT = Bounds(elements=60_000, items=15_000, depth=4)


class Reports:
    """Takes reports, on whatever association they come; `heard` is called after each that was known.

    `config` says how often a result is sent before a refusal that a person has to see to is believed; without it,
    only those are that nobody says in passing trouble.
    """

    def __init__(
        self, journal: Journal, heard: Callable[[], None], config: DeliveryConfig | None = None
    ) -> None:
        self._journal = journal
        self._heard = heard
        self._config = config

    def take(self, event: evt.Event) -> tuple[int, None]:
        """Handler of N-EVENT-REPORT. Success is answered once the report is in the journal."""
        try:
            _require_modest(event)
            report = event.event_information
            transaction = str(report.TransactionUID)
            awaited = {file: (row, name) for row, file, name in self._journal.awaiting(transaction)}
            refused = {
                file: self._refusal(awaited[file], file, item)
                for item in report.get("FailedSOPSequence") or ()
                if (file := _file_of(item)) in awaited
            }
            # What a report names as committed and as failed is not proven.
            committed = [
                (awaited[file][0], file)
                for file in dict.fromkeys(map(_file_of, report.get("ReferencedSOPSequence") or ()))
                if file in awaited and file not in refused
            ]
            failed = [(awaited[file][0], file, *why) for file, why in refused.items()]
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
        for file, (_, lasting) in refused.items():
            if lasting:
                row, name = awaited[file]
                note_refused(self._journal, name, Cause.COMMITMENT_REFUSED, refused[file][0], row)
        if known:
            self._heard()
        return 0x0000, None

    def _refusal(self, of: tuple[int, str], file: str, item: Dataset) -> tuple[str, str]:
        """Why a result was not committed to, and the cause where sending it again cannot change that."""
        row, name = of
        code = int(item.get("FailureReason") or 0)
        said = status_of(code)
        meaning, cure = _REASONS.get(code, (said.meaning, said.cure))
        sentence = f"storage commitment refused: reason 0x{code:04X} ({meaning})"
        if cure is Cure.PERSON_IF_REPEATED and self._config is not None:
            attempts = next(
                (
                    d.attempts
                    for d in self._journal.deliveries(row)
                    if (d.file, d.destination) == (file, name)
                ),
                0,
            )
            if is_believed(self._config, attempts):
                cure = Cure.PERSON
        return sentence, Cause.COMMITMENT_REFUSED if cure is Cure.PERSON else ""


def _require_modest(event: evt.Event) -> None:
    """A report small enough to make objects of it. Raises `Malformed`, `Exceeded`."""
    request: Any = event.request  # an N-EVENT-REPORT, as it is its handler that asks
    information, syntax = request.EventInformation, event.context.transfer_syntax
    if information is not None:
        source = Held(information.getvalue())
        walk(
            source,
            0,
            implicit=syntax == IMPLICIT,
            big_endian=syntax == BIG_ENDIAN,
            bounds_of=lambda _: _REPORT,
        )


def _reference(file: Path) -> Dataset:
    meta = read_file_meta_info(file)
    item = Dataset()
    item.ReferencedSOPClassUID = meta.MediaStorageSOPClassUID
    item.ReferencedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return item


def _file_of(item: Dataset) -> str:
    """Results are named by their instance UID. An item without one names none."""
    return f"{item.get('ReferencedSOPInstanceUID', '')}.dcm"
