"""The quota of quarantine: how much it may hold of a reason and in all, and who goes when it is too much.

Oldest first, of the sender that holds most: masses of junk from one push out no other's. The newest item of a reason
stays even where it alone is beyond the reason's share: an admin shall be able to see what comes. A study that is on its
way again is left alone, and results are not in quarantine at all.
Beside it the keeper holds the journal's own tables to their bounds (`outpost.records.bounds`).
The QuotaKeeper is a thread of its own, as removing a large study takes longer than the pipeline may be silent.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from outpost.config import Quarantine
from outpost.durable import sync_folder
from outpost.events import EventCode
from outpost.intake.refusal import Refusal
from outpost.intake.spool import MIB, Spool
from outpost.quarantine import shelf
from outpost.quarantine.shelf import Held, Item, ReasonCount
from outpost.reasons import REASON_TABLE
from outpost.records.bounds import Pruner
from outpost.records.counts import clean_sender
from outpost.records.journal import OUTCOMES, Journal, StudyRecord

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 30.0
# Items of which an event each says that they left; of a mass of them one says how many, or nobody would see the rest.
_EVENTS_OF_A_TURN = 50
# Of a study in quarantine: <Study Instance UID>.r<revision>.
_REVISION = re.compile(r"([0-9.]{1,64})\.r([0-9]{1,9})")


def too_much(held: Sequence[Held], settings: Quarantine, disk_bytes: int) -> list[Item]:
    """What has to go so that every quota holds, oldest first. `held` is all of quarantine, oldest first.

    Of whoever holds most: of an address, and there of an AE title. What one sends in masses costs that one its own.
    """
    going: dict[str, Item] = {}

    def there(items: Iterable[Held]) -> list[Held]:
        return [one for one in items if one.item.item not in going]

    for quota in settings.senders:
        _shed(
            [one for one in held if _title(one) == quota.ae_title],
            quota.max_items,
            quota.max_mib * MIB,
            going,
        )
    of_reason: dict[str, list[Held]] = defaultdict(list)
    for one in there(held):
        of_reason[one.item.reason].append(one)
    for reason, items in of_reason.items():
        of = settings.of(reason)
        _shed(items, of.max_items, of.max_mib * MIB, going, spare=items[-1])
    _shed(there(held), len(held), settings.disk_percent / 100 * disk_bytes, going)
    return sorted(going.values(), key=lambda item: item.at)


def _shed(
    held: Sequence[Held], most: int, most_bytes: float, going: dict[str, Item], spare: Held | None = None
) -> None:
    """Add to `going` what of these, oldest first, is beyond a quota. `spare` stays whatever becomes of the rest."""
    count, size = len(held), sum(one.charged for one in held)
    if count <= most and size <= most_bytes:
        return
    waiting: dict[tuple[str, str], deque[Held]] = defaultdict(deque)  # by address and AE title: what may go
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for one in held:
        sender = (one.address, _title(one))
        counts[sender] += 1
        sizes[sender] += one.charged
        if not one.pending and one is not spare:
            waiting[sender].append(one)
    while waiting and (count > most or size > most_bytes):
        sender = _largest(waiting, counts if count > most else sizes)
        one = waiting[sender].popleft()
        if not waiting[sender]:
            del waiting[sender]
        going[one.item.item] = one.item
        count, size = count - 1, size - one.charged
        counts[sender] -= 1
        sizes[sender] -= one.charged


def _largest(
    waiting: Mapping[tuple[str, str], Sequence[Held]], held: Mapping[tuple[str, str], int]
) -> tuple[str, str]:
    """Whose turn it is to lose something: the largest AE title of the largest address; of equals, the oldest's."""
    of_address: Counter[str] = Counter()
    for (address, _), much in held.items():
        of_address[address] += much
    return max(
        waiting,
        key=lambda sender: (
            of_address[sender[0]],
            held[sender],
            -waiting[sender][0].item.at.timestamp(),
        ),
    )


def _title(one: Held) -> str:
    return clean_sender(one.item.senders[0]) if one.item.senders else ""


def fits(counts: Sequence[ReasonCount], settings: Quarantine, disk_bytes: int) -> bool:
    """Whether every quota holds."""
    quotas = [(count, settings.of(count.reason)) for count in counts]
    return (
        not settings.senders  # what one sender has is not among these counts
        and all(
            count.items <= quota.max_items and count.bytes <= quota.max_mib * MIB for count, quota in quotas
        )
        and sum(count.bytes for count in counts) <= settings.disk_percent / 100 * disk_bytes
    )


class QuotaKeeper(threading.Thread):
    """Holds quarantine to its quota until `stop`."""

    def __init__(self, settings: Quarantine, journal: Journal, spool: Spool) -> None:
        super().__init__(name="quarantine", daemon=True)
        self._settings = settings
        self._journal = journal
        self._spool = spool
        self._stopping = threading.Event()
        self._pruner = Pruner(journal)
        self._began = time.time()
        for quota in settings.reasons:
            if quota.reason not in REASON_TABLE and not quota.reason.startswith("SITE_"):
                log.warning(
                    "quarantine.reasons: %s is none of docs/reason-codes.md: correct it, or it holds for nothing",
                    quota.reason,
                )

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ask the thread to end and wait for it; an eviction it is in the middle of is finished next time."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout_seconds)

    def run(self) -> None:
        swept = False
        try:
            while not self._stopping.is_set():
                swept = swept or _went_well(self.sweep)
                _went_well(self.turn)  # whatever became of the sweep: a quota that is not held fills the disk
                _went_well(lambda: self._pruner.turn(self._stopping))
                self._stopping.wait(_PERIOD_SECONDS)
        finally:
            self._pruner.close()

    def turn(self) -> int:
        """Finish what was begun, then hold the quota; returns the number of items that left."""
        for item in shelf.leaving(self._journal):  # the service ended between two steps
            with shelf.MOVING:
                self._remove(item)
        disk = shutil.disk_usage(self._spool.root).total
        if fits(shelf.by_reason(self._journal), self._settings, disk):
            return 0  # nearly always; what there is need not be read
        left = 0
        of_senders: Counter[str] = Counter()  # of what no event of its own says
        for item in too_much(shelf.held(self._journal), self._settings, disk):
            if self._stopping.is_set():
                break
            with shelf.MOVING:
                alone = left < _EVENTS_OF_A_TURN
                if shelf.evict(self._journal, item, "quota", event=alone):
                    left += 1
                    if not alone:
                        of_senders[(clean_sender(item.senders[0]) if item.senders else "") or "?"] += 1
                    self._remove(item)
        if of_senders:
            names = ", ".join(f"{count} from {sender}" for sender, count in of_senders.most_common(5))
            told = f"{of_senders.total()} more at once: {names}"
            self._journal.note_event(EventCode.QUARANTINE_EVICTED, told)
        if left:
            log.warning("quarantine: %d items left for the quota, oldest first; see /events", left)
        return left

    def _remove(self, item: Item) -> None:
        if remove_files(self._journal, self._spool, item):
            shelf.note_gone(self._journal, item)

    # --- after a restart ---

    def sweep(self) -> None:
        """Bring the folders and the journal together: what the last end left between two steps.

        A refused image that was placed but not journalled is journalled; the folder of a revision that in the end
        went another way is removed once every image in it is seen where that way led. What the journal knows
        nothing of stays, and so does what may be the only copy, as where somebody moved a folder by hand.
        """
        known = {r["file"] for r in self._journal.rows("SELECT file FROM refused")}
        for path in self._spool.quarantine.glob("*/*.dcm"):
            if path.parent.name not in Refusal.__members__:  # a reason that no release has is no code to ship
                continue
            status = path.stat()
            name = str(path.relative_to(self._spool.root))
            if name not in known and path.is_file() and status.st_ctime < self._began - 1:
                log.warning("quarantine: a refused image was adopted")
                self._journal.refuse(path.parent.name, name, status.st_size, "reconciled")
        for folder in self._spool.quarantine.glob("*/*.r[0-9]*"):
            named = _REVISION.fullmatch(folder.name)
            if named is None or folder.is_symlink() or not folder.is_dir():
                continue
            ended = [
                study
                for study in self._journal.revisions(named[1])
                if study.revision == int(named[2]) and study.state in OUTCOMES
            ]
            if ended and ended[0].reason != folder.parent.name:
                self._remove_other_way(folder, ended[0])

    def _remove_other_way(self, folder: Path, study: StudyRecord) -> None:
        """Remove a folder of a revision that ended for another reason, if all it holds is there as well."""
        own = (
            self._spool.quarantine_folder(study, study.reason)
            if study.reason
            else self._spool.folder(study.study_uid)
        )
        there = {path.name for path in own.iterdir()} if own.is_dir() else set()
        if {path.name for path in folder.iterdir()} <= there:
            _remove_folder(folder)
        else:
            log.warning(
                "quarantine: a folder of study %d lies under another reason than its own (%s) and holds images "
                "that are not there: it stays; move it to its reason, or remove it",
                study.row,
                study.reason or study.state,
            )


def _went_well(work: Callable[[], object]) -> bool:
    """Do it; False, with the fault in the log, where it failed: the thread must outlive any fault."""
    try:
        work()
    except OSError as error:
        log.error("quarantine: %s: trying again", error.strerror)  # noqa: TRY400 - the traceback would show a study's UID
        return False
    except Exception:
        log.exception("quarantine: unexpected fault, trying again")
        return False
    return True


def remove_files(journal: Journal, spool: Spool, item: Item) -> bool:
    """Remove an item's files from the disk, durably; False when the disk does not let us. Safe to repeat."""
    try:
        if item.is_study:
            folder = spool.quarantine_folder(journal.study(item.number), item.reason)
            _remove_folder(folder)
        else:
            path = spool.root / item.file
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_folder(path.parent)
    except OSError as error:
        log.error("quarantine: %s cannot be removed (%s): trying again", item.item, error.strerror)  # noqa: TRY400 - the traceback would show the study's UID
        return False
    return True


def _remove_folder(folder: Path) -> None:
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        os.unlink(entry.path)  # noqa: PTH108 - one call a file of what may be thousands
    folder.rmdir()
    sync_folder(folder.parent)
