"""One association, or one STOW-RS request, that brings images: did it end as it should, or break off?

DICOM has no end of study, but a sender that is through releases its association, or closes its multipart body. One
that ends otherwise may not have sent all: the journal keeps that of each study it sent to, until a later transfer of
the same study, begun after the break, has ended well: it has then sent the rest, or offered all again.

Some senders never release: they abort, or close the connection, after the last image every time. So an end between
two images is a sign only until the sender is known for it: three studies in a row which proved whole although no
transfer since was released (`Journal.transfer_broke`). One release, and it has to be learnt again. An end in the
middle of an image is nobody's habit, and always a sign.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from outpost.intake.header import Header
from outpost.intake.refusal import Refusal
from outpost.records.counts import clean_sender
from outpost.records.journal import Journal, StudyRecord

if TYPE_CHECKING:
    from outpost.intake.assembly import Assembly

log = logging.getLogger(__name__)

# In the middle of an image: longer than any association may be idle.
SILENT_SECONDS: Final = 120.0
_MOST_CODES: Final = 3
# Studies, and refused images, of one association: it may be open for weeks.
_MOST_REMEMBERED: Final = 10_000


class Transfer:
    """What one association or request has sent so far. Safe to use from any thread.

    `name` stands in the journal; it says nothing of a patient.
    """

    def __init__(
        self,
        journal: Journal,
        assembly: Assembly,
        source: str,
        address: str = "",
        *,
        what: str = "association",
        half: Callable[[], bool] = lambda: False,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        """`half` says whether an image has begun to arrive and not ended; `alive`, whether the peer's thread is."""
        self.name = secrets.token_hex(8)
        self.row: int | None = None  # of the study that it sends to
        self.series_uid = ""  # likewise
        self._journal = journal
        self._assembly = assembly
        sender = clean_sender(source) or "an unnamed sender"
        self._who = f"the {what} from {sender}{f' at {address}' if address else ''}"
        self._what = what
        self._half = half
        self._alive = alive
        self._lock = threading.Lock()
        self._sent: Counter[str] = Counter()  # instances by study UID, known ones too
        self._refused: dict[str, Refusal] = {}  # by announced instance UID
        # Of earlier ones, by code: nobody makes up for those any more.
        self._forgotten: Counter[str] = Counter()
        self._over = False
        self.last_sign = time.monotonic()  # of anything that came

    def moved(self) -> None:
        """Bytes have come."""
        self.last_sign = time.monotonic()

    def took(self, header: Header, study: StudyRecord | None) -> None:
        """An instance was taken, or was known."""
        with self._lock:
            first = not self._sent
            self._sent[header.study_uid] += 1
            while len(self._sent) > _MOST_REMEMBERED:
                del self._sent[next(iter(self._sent))]
            self._refused.pop(header.sop_uid, None)
            if study is not None:
                self.row, self.series_uid = study.row, header.series_uid
            self.last_sign = time.monotonic()
        if first:
            self._assembly.transfer_began(self)

    def refused(self, sop_uid: str, refusal: Refusal, study_uid: str = "") -> None:
        """An instance that may be an image was not taken. What is held with other content is no missing image.

        Nor is what did not open a study of its own, to those that this transfer brought something of.
        """
        if refusal is Refusal.CONTENT_CONFLICT:
            return
        with self._lock:
            if refusal in (Refusal.TOO_MANY_STUDIES, Refusal.OUT_OF_SERVICE) and study_uid not in self._sent:
                return
            self._refused[sop_uid] = refusal
            while len(self._refused) > _MOST_REMEMBERED:
                self._forgotten[self._refused.pop(next(iter(self._refused))).name] += 1

    def in_instance(self) -> bool:
        """Whether an image of it is half here: nobody may call its study complete."""
        return not self._over and self._half()

    def open_series(self) -> str | None:
        """The series it sent to last, while it may bring more of that; None once it is over."""
        return None if self._over else self.series_uid

    def check(self, now: float) -> None:
        """Call it broken off where its peer is gone, or silent in the middle of an image (monotonic seconds)."""
        if self._over:
            return
        silent = now - self.last_sign > SILENT_SECONDS and self._half()
        if silent or not self._alive():
            self.broke_off()

    def released(self, contexts_refused: Sequence[str] = ()) -> None:
        """It ended as it should; `contexts_refused` are storage classes it asked for in vain."""
        if not self._ends():
            return
        lacks: list[tuple[str, str]] = []
        if contexts_refused:
            named = ", ".join(contexts_refused[:_MOST_CODES])
            lacks.append(("contexts", f"{self._who} offered objects that are not taken here ({named})"))
        if refused := self._forgotten + Counter(one.name for one in self._refused.values()):
            codes = ", ".join(f"{code} {count}" for code, count in refused.most_common(_MOST_CODES))
            lacks.append(("", f"of {self._who} images were refused ({codes})"))
        self._write(lambda: self._journal.transfer_released(self.name, lacks))

    def broke_off(self) -> None:
        """It ended otherwise: by A-ABORT, a closed connection, a timeout, a body without its end."""
        half = self._half()
        if not self._ends():
            return
        how = "broke off in the middle of an image" if half else "ended without being released"
        sentences = {
            uid: f"{self._who} {how}, after {count} of this study" for uid, count in self._sent.items()
        }
        log.warning("%s %s", self._who, how)
        # A request has one end, which no client leaves out by habit.
        kind = "" if half or self._what != "association" else "unreleased"
        self._write(lambda: self._journal.transfer_broke(self.name, sentences, kind))

    def _ends(self) -> bool:
        """Whether this is its end, and it has sent anything."""
        with self._lock:
            first, self._over = not self._over, True
        return first and bool(self._sent)

    def _write(self, write: Callable[[], list[int]]) -> None:
        try:
            woken = write()
        except sqlite3.Error:
            # As after a power cut: it counts as broken off when the service next starts.
            log.exception("how a transfer ended could not be written down")
            woken = []
        for row in woken:
            self._assembly.wake(row)
        self._assembly.transfer_ended(self)
