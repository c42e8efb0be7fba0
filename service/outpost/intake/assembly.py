"""Assembly: a study is complete once no new instance has come for the quiet time.

The quiet time runs on the monotonic clock and begins anew at a restart: on a train the wall clock may jump.
"""

from __future__ import annotations

import logging
import threading
import time

from outpost.records.journal import Journal, JournalError

log = logging.getLogger(__name__)


class Assembly:
    """Watches studies that are being received. `quiet_seconds`: wait since the last sign of life."""

    def __init__(self, journal: Journal, quiet_seconds: float) -> None:
        self._journal = journal
        self._quiet = quiet_seconds
        self._lock = threading.Lock()
        now = time.monotonic()
        self._last_sign = {study.row: now for study in journal.in_state("receiving")}

    def instance_taken(self, row: int) -> None:
        """A new instance of this study was journalled."""
        with self._lock:
            self._last_sign[row] = time.monotonic()

    def still_arriving(self, row: int) -> None:
        """The sender of this study is transmitting; over a slow link one instance can take minutes."""
        with self._lock:
            if row in self._last_sign:
                self._last_sign[row] = time.monotonic()

    def complete_quiet_studies(self) -> int:
        """Move studies whose time has come to `complete`; returns how many."""
        limit = time.monotonic() - self._quiet
        with self._lock:
            due = [row for row, seen in self._last_sign.items() if seen <= limit]
            for row in due:
                del self._last_sign[row]
        completed = 0
        for row in due:
            try:
                self._journal.complete(row)
                completed += 1
                log.info("study %d complete", row)
            except JournalError:
                continue  # complete already: its instance was journalled, it fell due, then the sign came
        return completed

    def receiving(self) -> int:
        """How many studies are being received."""
        with self._lock:
            return len(self._last_sign)
