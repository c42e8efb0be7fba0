"""Computing again what ended: a study goes back into the queue as revision n+1, a refused image back to intake."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from outpost.events import EventCode
from outpost.intake.assembly import Assembly
from outpost.intake.refusal import InstanceRefused
from outpost.intake.spool import Spool
from outpost.quarantine import shelf
from outpost.quarantine.quota import remove_files
from outpost.records.journal import Journal, JournalError

log = logging.getLogger(__name__)


class CannotResubmit(Exception):
    """What was asked cannot be done; the text says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Resubmitted:
    """What became of it: the study (`study-N`) that now goes its way, and its revision."""

    item: str
    study_uid: str
    revision: int


def resubmit(
    journal: Journal,
    spool: Spool,
    assembly: Assembly | None,
    name: str,
    *,
    skip_filter: bool = False,
    who: str = "",
) -> Resubmitted:
    """Have an item, or a study that was delivered, computed as if it had come now. Written down as an event.

    Args:
        assembly: of the running service; None where none runs.
        name: `study-N` or `file-N`.
        skip_filter: an administrator overrules what the filter says; what the model cannot read stays rejected.
        who: the name of the token that asked, for the event.

    Raises `CannotResubmit`, and `NoSuchItem` for a name that there is not.
    """
    told = f"{f' by {who}' if who else ''}{', filter skipped' if skip_filter else ''}"
    if name.startswith("file-"):
        if skip_filter:
            raise CannotResubmit(
                "skip_filter is for studies: intake refused this image before any filter saw it"
            )
        return _offer_again(journal, spool, assembly, shelf.find(journal, name), told)
    study = shelf.study_of(journal, name)
    with shelf.MOVING, spool.unchanging():
        gone = sum(path is None and instance.role == "image" for instance, path in spool.located(study))
        try:
            if gone:
                journal.want(study.row)  # else what comes again unchanged would be known, and be left at that
                raise CannotResubmit(
                    f"{gone} of the {study.instances} images of {name} are here no more: send the study again from "
                    "the archive; it is then taken as new"
                )
            opened = journal.resubmit(study.row, skip_filter=skip_filter, told=told)
        except JournalError as error:
            raise CannotResubmit(str(error)) from None
    log.info("study %d is computed again as study %d%s", study.row, opened.row, told)
    return Resubmitted(f"study-{opened.row}", opened.study_uid, opened.revision)


def _offer_again(
    journal: Journal, spool: Spool, assembly: Assembly | None, item: shelf.Item, told: str
) -> Resubmitted:
    kept = spool.root / item.file
    arrived = spool.incoming / f"{item.item}.dcm"
    with shelf.MOVING:
        if item.evicted_at is not None or not kept.exists():
            raise CannotResubmit(f"{item.item} is here no more: have it sent again")
        arrived.unlink(missing_ok=True)
        os.link(kept, arrived)
        os.utime(arrived)  # what has lain in .incoming for long is taken for abandoned
        try:
            source = item.senders[0] if item.senders else ""
            header, study = spool.take(arrived, source)
        except InstanceRefused as refused:
            successor = _successor(journal, spool, item)
            if successor:  # put aside a second time, as a new item: this one has had its turn
                _leave(journal, spool, item)
            raise CannotResubmit(
                f"intake refuses {item.item} again: {refused}; it is kept as {successor or item.item}"
            ) from None
        finally:
            arrived.unlink(missing_ok=True)
        _leave(journal, spool, item)
        journal.note_event(EventCode.FILE_RESUBMITTED, f"{item.item}, was {item.reason}{told}")
    if study is not None and assembly is not None:
        assembly.instance_taken(study.row, header)
    if study is None:
        study = journal.revisions(header.study_uid)[-1]
    return Resubmitted(f"study-{study.row}", study.study_uid, study.revision)


def _successor(journal: Journal, spool: Spool, item: shelf.Item) -> str:
    """The item under which intake has put the same bytes aside again; empty where it has not."""
    kept = spool.root / item.file
    for row in journal.rows("SELECT id, file FROM refused WHERE id > ? ORDER BY id DESC", (item.number,)):
        path = spool.root / row["file"]
        if path.exists() and path.samefile(kept):
            return f"file-{row['id']}"
    return ""


def _leave(journal: Journal, spool: Spool, item: shelf.Item) -> None:
    if shelf.evict(journal, item, "resubmitted") and remove_files(journal, spool, item):
        shelf.note_gone(journal, item)
