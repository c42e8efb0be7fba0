"""The keeper: counts what studies show into today's book, and once a day holds the last weeks against the reference.

A thread of its own, behind a queue of bounded length: lanes put in and go on, whatever becomes of it. What is counted
but not yet written is lost when the service is killed, a few minutes of it; that is a sketch, not a study.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from outpost.config import Drift
from outpost.drift.alarms import Alarm, bounded, transitions, turning_day
from outpost.drift.book import ALL, OTHERS, Book, Value, merge
from outpost.drift.judge import Finding, Limits, judge
from outpost.drift.register import Register
from outpost.drift.shelf import Shelf
from outpost.events import EventCode
from outpost.records.journal import Journal

log = logging.getLogger(__name__)

_QUEUE_LENGTH = 1000
# An AE title is free text for whoever sends: so many are kept apart a day, the rest counts together.
_MOST_SENDERS = 32
# Different values and numbers that a day keeps apart, of all tags and senders; a busy one has some thousand.
_MOST_CELLS = 50_000
_MOST_ALARMS = 500  # that go on at a time
_POLL_SECONDS = 1.0
Observed = Mapping[str, Sequence[Mapping[str, Value]]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A study that came to its end.

    Attributes:
        study_uid: by which the journal knows who sent it; it is not kept.
        observed: from the worker: groups of values, such as `images`.
        values: of the study: how it ended, on which rung, in how many seconds.
    """

    study_uid: str
    observed: Observed
    values: Mapping[str, Value]


def limits_of(settings: Drift) -> Limits:
    """The limits a system is configured with."""
    return Limits(
        min_sample=settings.min_sample,
        false_discovery=settings.false_discovery,
        effect=settings.effect,
        effect_numbers=settings.effect_numbers,
    )


class Keeper(threading.Thread):
    """Runs until `stop`. The properties are for pages and metrics."""

    def __init__(
        self,
        region: str,
        system: str,
        folder: Path,
        shipped_reference: Path | None,
        settings: Drift,
        journal: Journal,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        super().__init__(name="drift", daemon=True)
        self._where = f"{region}/{system}"
        self._settings = settings
        self._journal = journal
        self._today = today
        self._shipped = shipped_reference
        self._waiting: queue.Queue[Ended] = queue.Queue(_QUEUE_LENGTH)
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # of the book and of judging
        self.shelf = Shelf(folder)
        self.register = Register(folder / "alarms.json")
        self._day = today()
        self._book = self.shelf.day(self._day)
        self._unsaved = False
        self._next_save = 0.0
        self._next_judging = 0.0
        self._findings: list[Finding] = []
        self.dropped = 0  # studies that found the queue full
        self.failures = 0  # turns that failed, since the process started

    # --- from other threads ---

    def observe(self, ended: Ended) -> None:
        """Count a study when there is time. Never waits and never raises."""
        try:
            self._waiting.put_nowait(ended)
        except queue.Full:
            self.dropped += 1

    @property
    def findings(self) -> list[Finding]:
        """Of the window judged last in this process."""
        return self._findings

    def reference(self) -> Book | None:
        """What windows are held against now."""
        return self.shelf.reference(self._shipped)

    def freeze(self, first: date, last: date) -> Book:
        """Make the reference of a period; the next turn judges by it.

        Raises:
            ValueError: the period holds too little to be one.
            OSError: it cannot be written.
        """
        with self._lock:
            self._save()
            book = self.shelf.period(first, last)
            if book.observations < self._settings.min_sample:
                raise ValueError(
                    f"{first} to {last} holds {book.observations} observations, at least "
                    f"{self._settings.min_sample} are wanted: choose a longer period"
                )
            self.shelf.freeze(book)
            self._next_judging = 0.0
        return book

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ask the thread to end, and wait until all that was counted is on the disk."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout_seconds)

    # --- the thread ---

    def run(self) -> None:
        """Work until stopped. Never raises: no study depends on this, and it on none."""
        while not self._stopping.is_set():
            self._turn(_POLL_SECONDS)
        self._turn(0.0)
        with self._lock:
            try:
                self._save()
            except OSError as error:
                log.error("drift: today's sketches cannot be written: %s", error)  # noqa: TRY400 - says it all

    def _turn(self, wait_seconds: float) -> None:
        try:
            waiting = self._take(wait_seconds)
            with self._lock:
                for ended in waiting:
                    self._count(ended)
                now = time.monotonic()
                if self._today() != self._day:
                    self._save()
                    self._day, self._next_judging = self._today(), 0.0
                    self._book = self.shelf.day(self._day)
                elif self._unsaved and now >= self._next_save:
                    self._save()
                if now >= self._next_judging:
                    self._next_judging = now + 3600
                    self._judge()
        except Exception:
            self.failures += 1
            log.exception("drift: unexpected fault, going on")
            self._stopping.wait(_POLL_SECONDS)

    def _take(self, wait_seconds: float) -> list[Ended]:
        taken = []
        try:
            taken.append(
                self._waiting.get(timeout=wait_seconds) if wait_seconds else self._waiting.get_nowait()
            )
            while True:
                taken.append(self._waiting.get_nowait())
        except queue.Empty:
            return taken

    def _count(self, ended: Ended) -> None:
        sender = self._journal.sender(ended.study_uid)[:16] or "(unknown)"
        if sender not in self._book.senders and len(self._book.senders) >= _MOST_SENDERS:
            sender = OTHERS
        part = f"{self._where}/{self._day}"
        # Headers may say anything, in every image something else: a day is read again with fifty others.
        full = self._book.cells >= _MOST_CELLS
        if full and sender not in self._book.senders:
            sender = OTHERS
        for values in (*(values for group in ended.observed.values() for values in group), ended.values):
            self._book.add(part, sender, self._book.known(sender, values) if full else values)
        if not self._unsaved:
            self._unsaved, self._next_save = True, time.monotonic() + self._settings.save_minutes * 60

    def _save(self) -> None:
        if self._unsaved:
            self.shelf.put_day(self._day, self._book)
            self._unsaved = False

    def _judge(self) -> None:
        """Hold the window that ended yesterday against the reference, once."""
        reference = self.reference()
        if reference is None:
            return
        last = self._day - timedelta(days=1)
        digest = hashlib.sha256(reference.encode()).hexdigest()
        known = self.register.reference == digest
        if known and self.register.judged is not None and self.register.judged >= last and self._findings:
            return
        length = timedelta(days=self._settings.window_days)
        near = self.shelf.days(last - 2 * length + timedelta(days=1), last)
        window = merge([book for day, book in near if day > last - length])
        limits = limits_of(self._settings)
        self._findings = judge(reference, window, limits)
        # Against another reference what was an alarm means nothing any more.
        changed = (
            [replace(alarm, ended_on=last) for alarm in self.register.open.values()] if not known else []
        )
        held = self.register.open if known else {}
        found = transitions(held, self._findings, last, limits, lambda finding: turning_day(near, finding))
        changed += bounded(held, found, {*window.senders, ALL}, last, _MOST_ALARMS)
        for alarm in changed:
            self._tell(alarm)
        self.register.change(changed, last, digest)
        self.shelf.compact(last - timedelta(days=self._settings.keep_days))

    def _tell(self, alarm: Alarm) -> None:
        if alarm.ended_on is None:
            log.warning("drift: %s", alarm)
            self._journal.note_event(EventCode.DRIFT_BEGUN, str(alarm))
        else:
            log.info("drift ended: %s", alarm)
            self._journal.note_event(EventCode.DRIFT_ENDED, f"raised on {alarm.raised_on}: {alarm}")
