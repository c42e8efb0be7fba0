"""Couriers: one thread a destination carries results from the outbox until they are proven delivered.

A destination that is down holds up only its own courier. What proves a delivery: storage commitment where the
destination is configured with it, the instance named in a STOW-RS reply, else the status of C-STORE. Attempts are
journalled; the pause after a failed one doubles from `retry_first_seconds` to `retry_max_seconds` and never ends
in giving up. Order: the oldest study first, files of a study in their order, no revision before the one before it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from pynetdicom.association import Association

from outpost.config import Delivery as DeliveryConfig
from outpost.config import Destination
from outpost.delivery import commitment
from outpost.delivery.outbox import Outbox
from outpost.delivery.scu import NotSent, Peer, PeerUnreachable, association, store
from outpost.delivery.stow import StowPeer, require_stored
from outpost.records.journal import Delivery, Journal, StudyRecord, utc_now
from outpost.tls import client_context

log = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
_BATCH = 100  # files sent over one association
# A report often comes on the association it was asked on; it is kept open this long for it.
_REPORT_SECONDS = 2.0
# Couriers that were all held up by one outage shall not all come back at the same moment.
_JITTER = 0.2

Due = tuple[StudyRecord, Path]


def pause_seconds(config: DeliveryConfig, attempts: int) -> float:
    """How long to wait after that many failed attempts in a row."""
    doublings = min(attempts - 1, 30)  # beyond, the cap has long been reached
    return min(config.retry_first_seconds * 2.0**doublings, config.retry_max_seconds)


class Line(Protocol):
    """An open connection to a destination, for a batch."""

    def store(self, file: Path) -> None:
        """Send one file. Raises `NotSent`, or `PeerUnreachable` when trying further files is useless."""

    def ask_commitment(self, files: list[Path], transaction_uid: str) -> str | None:
        """Ask for storage commitment; returns why the request was not taken, or None."""


class _DimseLine:
    def __init__(self, opened: Association) -> None:
        self._opened = opened

    def store(self, file: Path) -> None:
        store(self._opened, file)

    def ask_commitment(self, files: list[Path], transaction_uid: str) -> str | None:
        return commitment.ask(self._opened, files, transaction_uid)


class _StowLine:
    """DICOMweb servers answer for each request, so every result is one."""

    def __init__(self, peer: StowPeer) -> None:
        self._peer = peer

    def store(self, file: Path) -> None:
        require_stored(self._peer.store([file])[file])

    def ask_commitment(self, files: list[Path], transaction_uid: str) -> str | None:
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
        self._failures = 0
        self._not_before = 0.0
        self._heard = True  # at the start too: a crash can leave a study with nothing to send
        self._wake = threading.Event()
        tls = destination.tls
        section = f"delivery.destinations[{self.name}].tls"
        self._stow: StowPeer | None = None
        self._peer: Peer | None = None
        if destination.stow_url is not None:
            context = client_context(tls, section, check_hostname=True) if tls is not None else None
            self._stow = StowPeer(destination.stow_url, destination.stow_token.get_secret_value(), context)
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
        self._heard = True
        self._wake.set()

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
                self._back_off()
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()
        if self._stow is not None:
            self._stow.close()

    # --- a round ---

    def _round(self, stop: threading.Event) -> None:
        if time.monotonic() < self._not_before:
            return
        to_send, to_ask = self._due()
        if not to_send and not to_ask:
            return
        study, file = (to_send or to_ask)[0]
        try:
            with self._line([file for _, file in (*to_send, *to_ask)]) as line:
                self._failures = 0
                refused: set[str] = set()
                for study, file in to_send:
                    if stop.is_set():
                        return
                    if study.study_uid not in refused and not self._send(line, study, file):
                        refused.add(study.study_uid)  # what follows of this study waits for it
                    elif study.study_uid not in refused:
                        to_ask.append((study, file))
                if self._destination.commitment and to_ask:
                    self._ask(line, to_ask, stop)
        except PeerUnreachable as absence:
            # One line and one journal entry a pause, not one for each of what may be weeks of results.
            self._journal.note_delivery(study.row, file.name, self.name, str(absence))
            self._back_off()
            log.warning("delivery to %s: %s; trying again", self.name, absence)

    def _send(self, line: Line, study: StudyRecord, file: Path) -> bool:
        try:
            line.store(file)
        except PeerUnreachable:
            raise
        except NotSent as refusal:
            self._journal.note_delivery(study.row, file.name, self.name, str(refusal))
            log.warning("delivery of study %d to %s failed: %s", study.row, self.name, refusal)
            return False
        proven = not self._destination.commitment
        self._journal.note_delivery(study.row, file.name, self.name, None, proven=proven)
        if proven:
            self._finish_if_all_confirmed(study)
        return True

    def _ask(self, line: Line, to_ask: list[Due], stop: threading.Event) -> None:
        transaction = commitment.new_transaction_uid()
        # Written down first: a report may be quicker than our own next step.
        self._journal.note_commitment_asked([(s.row, f.name) for s, f in to_ask], self.name, transaction)
        fault = line.ask_commitment([file for _, file in to_ask], transaction)
        if fault is not None:
            log.warning("delivery to %s: %s", self.name, fault)
            study, file = to_ask[0]
            self._journal.note_delivery(study.row, file.name, self.name, fault)
            self._back_off()
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
        with association(self._peer, files, reports) as opened:
            yield _DimseLine(opened)

    # --- what is due ---

    def _due(self) -> tuple[list[Due], list[Due]]:
        """What to send, and what to ask commitment for, in order; no more than one association carries."""
        to_send: list[Due] = []
        to_ask: list[Due] = []
        waiting: set[str] = set()  # studies of which something earlier is not there yet
        for study in self._journal.in_state("delivering"):
            if len(to_send) + len(to_ask) >= _BATCH:
                break
            if study.study_uid in waiting:
                continue
            tried = {d.file: d for d in self._journal.deliveries(study.row) if d.destination == self.name}
            for file in self._outbox.files(study):
                delivery = tried.get(file.name)
                if delivery is not None and delivery.confirmed_at is not None:
                    continue
                if self._destination.commitment:
                    waiting.add(
                        study.study_uid
                    )  # a later revision: were this one refused, it would follow it
                if delivery is not None and delivery.stored_at is not None:
                    # It lies there; only the proof is missing, and that holds up no other file of it.
                    if self._asks_again(delivery):
                        to_ask.append((study, file))
                elif self._is_due(delivery):
                    to_send.append((study, file))
                else:
                    waiting.add(study.study_uid)
                    break
        return to_send[:_BATCH], to_ask[:_BATCH]

    def _asks_again(self, delivery: Delivery) -> bool:
        if not self._destination.commitment:
            return False
        asked = delivery.commitment_asked_at
        return asked is None or self._over(asked, self._config.commitment_seconds)

    def _is_due(self, tried: Delivery | None) -> bool:
        if tried is None or tried.last_attempt_at is None:
            return True
        return self._over(tried.last_attempt_at, pause_seconds(self._config, tried.attempts))

    @staticmethod
    def _over(since: datetime, seconds: float) -> bool:
        age = utc_now() - since
        # Negative when the clock was set back: then the journal cannot say how long ago it was.
        return age < timedelta(0) or age >= timedelta(seconds=seconds)

    def _back_off(self) -> None:
        self._failures += 1
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, guards nothing
        self._not_before = time.monotonic() + jitter * pause_seconds(self._config, self._failures)

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


# Couriers of two destinations may confirm the last files of a study at the same moment.
_finishing = threading.Lock()
