"""Couriers: one thread a destination carries results from the outbox until they are proven delivered.

A destination that is down holds up only its own courier. What proves a delivery: storage commitment where the
destination is configured with it, the instance named in a STOW-RS reply, else the status of C-STORE. Attempts are
journalled; the pause after a failed one doubles from `retry_first_seconds` to `retry_max_seconds` and never ends
in giving up. Order: the oldest study first, files of a study in their order, no revision before the one before it.

A result that is refused for a reason that repetition cannot cure holds up nothing, and is offered again after
`refused_retry_seconds`, at each start, when such a result is taken after all, and, one at a time, when something
new lies in the outbox. Once a later revision has reached the destination an earlier one is not sent there any more.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from outpost.config import Delivery as DeliveryConfig
from outpost.config import Destination
from outpost.delivery import commitment
from outpost.delivery.cause import Cause, Cure, NotSent, PeerUnreachable
from outpost.delivery.outbox import Outbox
from outpost.delivery.pace import is_believed, note_refused, note_remark, pause_seconds
from outpost.delivery.scu import Link, Peer, association, store
from outpost.delivery.stow import StowPeer
from outpost.records.journal import Delivery, Journal, StudyRecord, utc_now
from outpost.tls import client_context

__all__ = ["Courier", "pause_seconds"]

log = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
_BATCH = 100  # files sent over one association
# A report often comes on the association it was asked on; it is kept open this long for it.
_REPORT_SECONDS = 2.0
# Couriers that were all held up by one outage shall not all come back at the same moment.
_JITTER = 0.2
# With nothing due the outbox is looked through again after this long, or when something is due, or new.
_LOOK_SECONDS = 60.0
# A peer that is busy says so itself, and soon has room: the pause grows to this many first ones at most.
_BUSY_PAUSES = 4
_RETRY_AFTER_SECONDS = 3600.0  # a peer that wants to be left alone for longer is asked all the same
# How often a commitment may go unreported before what was stored long ago holds up later revisions no more.
_UNREPORTED = 3

Due = tuple[StudyRecord, Path]


class Line(Protocol):
    """An open connection to a destination, for a batch."""

    def store(self, file: Path) -> str:
        """Send one file; returns the destination's remark if it had one.

        Raises `NotSent`, or `PeerUnreachable` when trying further files is useless.
        """

    def ask_commitment(self, files: list[Path], transaction_uid: str) -> None:
        """Ask for storage commitment. Raises `NotSent` when the request was not taken."""


class _DimseLine:
    def __init__(self, link: Link) -> None:
        self._link = link

    def store(self, file: Path) -> str:
        return store(self._link, file)

    def ask_commitment(self, files: list[Path], transaction_uid: str) -> None:
        commitment.ask(self._link, files, transaction_uid)


class _StowLine:
    """DICOMweb servers answer for each request, so every result is one."""

    def __init__(self, peer: StowPeer) -> None:
        self._peer = peer

    def store(self, file: Path) -> str:
        return self._peer.store(file)

    def ask_commitment(self, files: list[Path], transaction_uid: str) -> None:
        raise AssertionError("a STOW-RS destination is configured without commitment")


class Courier:
    """Delivers to one destination; whichever courier brings the last proof of a study ends it.

    Raises `TlsUnusable` when the destination's TLS files cannot be used.
    """

    def __init__(
        self,
        destination: Destination,
        config: DeliveryConfig,
        calling_ae_title: str,
        journal: Journal,
        outbox: Outbox,
        reports: commitment.Reports,
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._config = config
        self._journal = journal
        self._outbox = outbox
        self._reports = reports
        # Since the start: attempts that failed by cause, results stored with a warning by status.
        self.failures: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._failures = 0
        self._not_before = 0.0
        self._look_at = 0.0
        self._heard = True  # at the start too: a crash can leave a study with nothing to send
        # What was refused for good before then is offered again: at the start, as somebody may have seen to it.
        self._cured_at = utc_now()
        self._news = True
        self._refused: dict[tuple[int, str], str] = {}  # (journal row, file): the cause
        self._wake = threading.Event()
        tls = destination.tls
        section = f"delivery.destinations[{self.name}].tls"
        self._stow: StowPeer | None = None
        self._peer: Peer | None = None
        if destination.stow_url is not None:
            context = client_context(tls, section, check_hostname=True) if tls is not None else None
            self._stow = StowPeer(
                destination.stow_url,
                destination.stow_token.get_secret_value(),
                context,
                destination.stow_proxy,
            )
        else:
            assert (
                destination.host and destination.port and destination.ae_title
            )  # the configuration's own rule
            self._peer = Peer(
                destination.host,
                destination.port,
                destination.ae_title,
                calling_ae_title,
                client_context(tls, section) if tls is not None else None,
            )

    def wake(self) -> None:
        """Something new lies in the outbox, or a report has come."""
        self._heard = self._news = True
        self._wake.set()

    def refused(self) -> dict[str, int]:
        """How many results the destination refuses for a reason that repetition cannot cure, by cause."""
        return Counter(self._refused.copy().values())

    def run(self, stop: threading.Event) -> None:
        """Carry until `stop` is set. Never raises: a fault is logged and tried again later."""
        while not stop.is_set():
            try:
                if self._heard:
                    self._heard = False
                    self._finish_studies()
                self._round(stop)
            except Exception:
                log.exception("delivery to %s: unexpected fault, trying again", self.name)
                self._news = True
                self._back_off()
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()
        if self._stow is not None:
            self._stow.close()

    # --- a round ---

    def _round(self, stop: threading.Event) -> None:
        now = time.monotonic()
        if now < self._not_before or (now < self._look_at and not self._news):
            return
        news, self._news = self._news, False
        to_send, to_ask = self._due(news)
        if not to_send and not to_ask:
            return
        self._look_at = 0.0  # what is sent now may make more due
        study, file = (to_send or to_ask)[0]
        try:
            with self._line([file for _, file in (*to_send, *to_ask)]) as line:
                if self._peer is not None:
                    self._failures = 0  # an HTTP server is known to be there by its first answer
                waiting: set[str] = set()
                for study, file in to_send:
                    if stop.is_set():
                        return
                    if study.study_uid in waiting:
                        continue
                    taken, holds_up = self._send(line, study, file)
                    if holds_up:
                        waiting.add(study.study_uid)  # what follows of this study waits for it
                    if taken:
                        to_ask.append((study, file))
                if self._destination.commitment and to_ask:
                    study, file = to_ask[0]
                    self._ask(line, to_ask, stop)
        except PeerUnreachable as absence:
            # One line and one journal entry a pause, not one for each of what may be weeks of results.
            self.failures[absence.cause] += 1
            self._journal.note_delivery(study.row, file.name, self.name, str(absence))
            self._back_off(absence)
            log.warning("delivery to %s: %s; trying again (%s)", self.name, absence, absence.cause)

    def _send(self, line: Line, study: StudyRecord, file: Path) -> tuple[bool, bool]:
        """Returns whether the file was taken, and whether what follows of its study has to wait for it."""
        key = (study.row, file.name)
        try:
            remark = line.store(file)
        except PeerUnreachable:
            raise
        except NotSent as refusal:
            self._failures = 0
            return False, not self._note_refusal(study, file, refusal)
        self._failures = 0
        proven = not self._destination.commitment
        self._journal.note_delivery(study.row, file.name, self.name, None, proven=proven, remark=remark)
        if self._refused.pop(key, None) is not None:
            log.info("delivery of study %d to %s: taken after all", study.row, self.name)
            self._cured_at = utc_now()
        if remark:
            self.remarks[remark.split(" ", 1)[0]] += 1
            note_remark(self._journal, self.name, remark, study.row)
        if proven:
            self._finish_if_all_confirmed(study)
        return True, False

    def _note_refusal(self, study: StudyRecord, file: Path, refusal: NotSent) -> bool:
        """Write down that a file was not taken; returns whether it will not be until a person has seen to it."""
        self.failures[refusal.cause] += 1
        known = self._tried(study, file)
        attempts = 1 + (known.attempts if known is not None else 0)
        lasting = refusal.cure is Cure.PERSON or (
            refusal.cure is Cure.PERSON_IF_REPEATED and is_believed(self._config, attempts)
        )
        self._journal.note_delivery(
            study.row, file.name, self.name, str(refusal), refused_for=refusal.cause if lasting else ""
        )
        log.warning(
            "delivery of study %d to %s failed: %s (%s)", study.row, self.name, refusal, refusal.cause
        )
        key = (study.row, file.name)
        if lasting:
            self._refused[key] = refusal.cause
            if known is None or known.refused_for != refusal.cause:
                note_refused(self._journal, self.name, refusal.cause, str(refusal), study.row)
        else:
            self._refused.pop(key, None)
        return lasting

    def _tried(self, study: StudyRecord, file: Path) -> Delivery | None:
        return next(
            (
                d
                for d in self._journal.deliveries(study.row)
                if (d.file, d.destination) == (file.name, self.name)
            ),
            None,
        )

    def _ask(self, line: Line, to_ask: list[Due], stop: threading.Event) -> None:
        transaction = commitment.new_transaction_uid()
        # Written down first: a report may be quicker than our own next step.
        self._journal.note_commitment_asked([(s.row, f.name) for s, f in to_ask], self.name, transaction)
        try:
            line.ask_commitment([file for _, file in to_ask], transaction)
        except PeerUnreachable:
            raise
        except NotSent as fault:
            self._note_refusal(*to_ask[0], fault)
            self._back_off(fault)
            return
        deadline = time.monotonic() + _REPORT_SECONDS
        while not self._heard and not stop.is_set() and time.monotonic() < deadline:
            time.sleep(0.02)

    @contextmanager
    def _line(self, files: list[Path]) -> Iterator[Line]:
        if self._stow is not None:
            yield _StowLine(self._stow)
            return
        assert self._peer is not None  # one of the two is there
        reports = self._reports.take if self._destination.commitment else None
        with association(self._peer, files, reports) as link:
            yield _DimseLine(link)

    # --- what is due ---

    def _due(self, news: bool) -> tuple[list[Due], list[Due]]:
        """What to send, and what to ask commitment for, in order; no more than one association carries.

        With `news` a result that is refused for good is among it, if the last attempt is not too near.
        """
        to_send: list[Due] = []
        to_ask: list[Due] = []
        waiting: set[str] = set()  # studies of which something earlier is not there yet
        tried = self._journal.deliveries_to(self.name)
        overtaken = self._journal.overtaken(self.name)
        self._refused = {
            (row, name): delivery.refused_for
            for row, files in tried.items()
            for name, delivery in files.items()
            if delivery.refused_for and delivery.confirmed_at is None
        }
        probe: tuple[datetime, Due] | None = None
        soonest = _LOOK_SECONDS
        for study in self._journal.in_state("delivering"):
            if len(to_send) + len(to_ask) >= _BATCH:
                break
            if study.study_uid in waiting:
                continue
            known = tried.get(study.row, {})
            for file in self._outbox.files(study):
                delivery = known.get(file.name)
                if delivery is not None and delivery.confirmed_at is not None:
                    continue
                if delivery is not None and delivery.stored_at is not None:
                    # It lies there; only the proof is missing, and that holds up no other file of it. A later
                    # revision waits: were this one refused, it would follow it.
                    left = self._left_to_ask(delivery)
                    if self._holds_up(delivery):
                        waiting.add(study.study_uid)
                    if left is not None and left <= 0:
                        to_ask.append((study, file))
                    soonest = min(soonest, left if left is not None else soonest)
                    continue
                if study.row in overtaken and delivery is not None:
                    self._settle(study, file, overtaken[study.row])
                    continue
                left = self._left_to_send(delivery)
                if delivery is not None and delivery.refused_for:
                    since = delivery.last_attempt_at
                    if left <= 0:
                        to_send.append((study, file))
                    elif since is not None and self._is_over(since, self._config.retry_max_seconds):
                        probe = min(probe or (since, (study, file)), (since, (study, file)), key=_first)
                    soonest = min(soonest, left)
                    continue  # it holds nothing up
                if self._destination.commitment:
                    waiting.add(study.study_uid)
                soonest = min(soonest, left)
                if left <= 0:
                    to_send.append((study, file))
                else:
                    waiting.add(study.study_uid)
                    break
        if news and probe is not None:
            to_send.insert(0, probe[1])  # before a later revision that may be in the same round
        self._look_at = time.monotonic() + max(soonest, 0.0)
        return to_send[:_BATCH], to_ask[:_BATCH]

    def _settle(self, study: StudyRecord, file: Path, revision: int | None) -> None:
        """A later revision lies there: this one would arrive as if it were newer. With the later whole, it is over."""
        if revision is None:
            return
        self._refused.pop((study.row, file.name), None)
        remark = f"not sent: revision {revision}, which replaces it, is there"
        self._journal.settle_delivery(study.row, file.name, self.name, remark)
        log.warning("delivery of study %d to %s: %s", study.row, self.name, remark)
        self._finish_if_all_confirmed(study)

    def _left_to_ask(self, delivery: Delivery) -> float | None:
        """Seconds until commitment is asked for (again); None where it is not."""
        if not self._destination.commitment:
            return None
        asked = delivery.commitment_asked_at
        return 0.0 if asked is None else _left(asked, self._config.commitment_seconds)

    def _holds_up(self, delivery: Delivery) -> bool:
        """Whether a later revision waits for the proof of this one. A peer that never reports shall not keep the
        newer result from its readers: then it follows in the order of sending, and this one is asked for still."""
        since = delivery.stored_at
        patience = _UNREPORTED * self._config.commitment_seconds
        return self._destination.commitment and since is not None and not self._is_over(since, patience)

    def _left_to_send(self, tried: Delivery | None) -> float:
        """Seconds until a file is sent (again)."""
        if tried is None or tried.last_attempt_at is None:
            return 0.0
        if tried.refused_for:
            if tried.last_attempt_at < self._cured_at:
                return 0.0
            return _left(tried.last_attempt_at, self._config.refused_retry_seconds)
        return _left(tried.last_attempt_at, pause_seconds(self._config, tried.attempts))

    @staticmethod
    def _is_over(since: datetime, seconds: float) -> bool:
        return _left(since, seconds) <= 0

    def _back_off(self, fault: NotSent | None = None) -> None:
        self._failures += 1
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, guards nothing
        pause = pause_seconds(self._config, self._failures)
        if fault is not None and fault.cause is Cause.BUSY:
            pause = min(pause, _BUSY_PAUSES * self._config.retry_first_seconds)
        if fault is not None and fault.retry_seconds is not None:
            pause = max(self._config.retry_first_seconds, min(fault.retry_seconds, _RETRY_AFTER_SECONDS))
            jitter = max(jitter, 1.0)  # not before it wants
        self._not_before = time.monotonic() + jitter * pause

    # --- the end of a study ---

    def _finish_studies(self) -> None:
        for study in self._journal.in_state("delivering"):
            self._finish_if_all_confirmed(study)

    def _finish_if_all_confirmed(self, study: StudyRecord) -> None:
        """End the study when every destination of the present configuration has every file."""
        with _finishing:
            if self._journal.study(study.row).state != "delivering":
                return
            deliveries = self._journal.deliveries(study.row)
            confirmed = {(d.file, d.destination) for d in deliveries if self._proves(d)}
            destinations = [destination.name for destination in self._config.destinations]
            files = self._outbox.files(study)
            if not files:
                # Only a disk that loses files brings this about: nothing was proven.
                log.error("study %d: its results are gone from the outbox, computing them again", study.row)
                self._journal.recompute(study.row)
                return
            if {(file.name, name) for file in files for name in destinations} <= confirmed:
                self._journal.finish(study.row, "delivered")
                self._outbox.remove(study)
                log.info("study %d delivered to %s", study.row, ", ".join(destinations))

    def _proves(self, delivery: Delivery) -> bool:
        if delivery.confirmed_at is not None:
            return True
        # Commitment was switched off in the meantime: then the C-STORE status has to do.
        asked = {d.name for d in self._config.destinations if d.commitment}
        return delivery.stored_at is not None and delivery.destination not in asked


def _left(since: datetime, seconds: float) -> float:
    """Seconds until `seconds` after `since` are over."""
    age = utc_now() - since
    # Negative when the clock was set back: then the journal cannot say how long ago it was.
    return seconds - age.total_seconds() if age >= timedelta(0) else 0.0


def _first(pair: tuple[datetime, Due]) -> datetime:
    return pair[0]


# Couriers of two destinations may confirm the last files of a study at the same moment.
_finishing = threading.Lock()
