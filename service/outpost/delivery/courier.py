"""Couriers: one thread a destination carries results from the outbox until they are confirmed.

A destination that is down holds up only its own courier. Attempts are journalled; the pause after a failed
one doubles from `retry_first_seconds` to `retry_max_seconds` and never ends in giving up.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from pathlib import Path

from outpost.config import Delivery as DeliveryConfig
from outpost.config import Destination
from outpost.delivery.outbox import Outbox
from outpost.delivery.scu import NotSent, Peer, PeerUnreachable, association, store
from outpost.records.journal import Delivery, Journal, StudyRecord, utc_now

log = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
_BATCH = 100  # files sent over one association


def pause_seconds(config: DeliveryConfig, attempts: int) -> float:
    """How long to wait after that many failed attempts in a row."""
    doublings = min(attempts - 1, 30)  # beyond, the cap has long been reached
    return min(config.retry_first_seconds * 2.0**doublings, config.retry_max_seconds)


class Courier:
    """Delivers to one destination; whichever courier brings the last confirmation of a study ends it."""

    def __init__(
        self,
        destination: Destination,
        config: DeliveryConfig,
        calling_ae_title: str,
        journal: Journal,
        outbox: Outbox,
    ) -> None:
        self.name = destination.name
        self._peer = Peer(destination.host, destination.port, destination.ae_title, calling_ae_title)
        self._config = config
        self._journal = journal
        self._outbox = outbox
        self._failures = 0
        self._not_before = 0.0
        self._wake = threading.Event()

    def wake(self) -> None:
        """Something new lies in the outbox."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Carry until `stop` is set. Never raises: a fault is logged and tried again later."""
        # A crash, or a destination taken out of the configuration, can leave a study with nothing to send.
        for study in self._journal.in_state("delivering"):
            self._finish_if_all_confirmed(study)
        while not stop.is_set():
            try:
                self._round(stop)
            except Exception:
                log.exception("delivery to %s: unexpected fault, trying again", self.name)
                self._back_off()
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()

    def _round(self, stop: threading.Event) -> None:
        if time.monotonic() < self._not_before:
            return
        due = self._due()[:_BATCH]
        if not due:
            return
        first_study, first_file = due[0]
        try:
            with association(self._peer, [file for _, file in due]) as opened:
                self._failures = 0
                for study, file in due:
                    if stop.is_set():
                        return
                    first_study, first_file = study, file
                    try:
                        store(opened, file)
                    except PeerUnreachable:
                        raise
                    except NotSent as refusal:
                        self._journal.note_delivery(study.row, file.name, self.name, str(refusal))
                        log.warning("delivery of study %d to %s failed: %s", study.row, self.name, refusal)
                    else:
                        self._journal.note_delivery(study.row, file.name, self.name, None)
                        self._finish_if_all_confirmed(study)
        except PeerUnreachable as absence:
            # One line and one journal entry a pause, not one for each of what may be weeks of results.
            self._journal.note_delivery(first_study.row, first_file.name, self.name, str(absence))
            self._back_off()
            log.warning("delivery to %s: %s; trying again", self.name, absence)

    def _due(self) -> list[tuple[StudyRecord, Path]]:
        due = []
        for study in self._journal.in_state("delivering"):
            tried = {d.file: d for d in self._journal.deliveries(study.row) if d.destination == self.name}
            due += [(study, file) for file in self._outbox.files(study) if self._is_due(tried.get(file.name))]
        return due

    def _is_due(self, tried: Delivery | None) -> bool:
        if tried is None or tried.last_attempt_at is None:
            return True
        if tried.confirmed_at is not None:
            return False
        age = utc_now() - tried.last_attempt_at
        # Negative when the clock was set back: then the journal cannot say how long ago it was.
        return age < timedelta(0) or age >= timedelta(seconds=pause_seconds(self._config, tried.attempts))

    def _back_off(self) -> None:
        self._failures += 1
        self._not_before = time.monotonic() + pause_seconds(self._config, self._failures)

    def _finish_if_all_confirmed(self, study: StudyRecord) -> None:
        """End the study when every destination of the present configuration has every file."""
        with _finishing:
            if self._journal.study(study.row).state != "delivering":
                return
            confirmed = {
                (d.file, d.destination)
                for d in self._journal.deliveries(study.row)
                if d.confirmed_at is not None
            }
            destinations = [destination.name for destination in self._config.destinations]
            wanted = {(file.name, name) for file in self._outbox.files(study) for name in destinations}
            if wanted <= confirmed:
                self._journal.finish(study.row, "delivered")
                self._outbox.remove(study)
                log.info("study %d delivered to %s", study.row, ", ".join(destinations))


# Couriers of two destinations may confirm the last files of a study at the same moment.
_finishing = threading.Lock()
