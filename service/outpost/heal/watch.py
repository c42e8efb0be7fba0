"""Looking after the journal's files while the service runs: are they still the ones it writes to, and sound?

A file that is removed or replaced under a running service goes on to be written, and is gone at its end: all that was
acknowledged since would be lost. So its place is looked at every few seconds, and its content now and then.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from outpost.events import EventCode
from outpost.heal import found, steps
from outpost.heal.damage import JOURNAL, MAGIC, JournalUnusable, check, write_suspect
from outpost.heal.salvage import RESCUED
from outpost.health.codes import CheckCode
from outpost.records.journal import Journal

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
# The first whole check: what the one at the start had no time for. It reads the whole file, so then only daily.
_FIRST_CHECK_SECONDS, _CHECK_SECONDS = 600.0, 86400.0
_SHOWN = timedelta(hours=24)


class JournalWatch(threading.Thread):
    """Sets `journal.damage` when something is wrong; the service then ends and `hand_over` tells the next start."""

    def __init__(self, root: Path, journal: Journal, stopping: threading.Event) -> None:
        super().__init__(name="journal-watch", daemon=True)
        self._root = root
        self._journal = journal
        self._stopping = stopping
        self._places = self._look()
        # Never closed: closing any descriptor of a file ends all locks of this process on it (POSIX), SQLite's, too.
        # Another process that opens the journal then takes itself for the only one, and removes the log at its end.
        self._file = os.open(root / JOURNAL, os.O_RDONLY | os.O_CLOEXEC)
        self._size = 0
        self._check_at = time.monotonic() + _FIRST_CHECK_SECONDS
        self._rebuilt = steps.rebuilt_at(journal)

    def run(self) -> None:
        """Look until told to stop. Never raises."""
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self.turn()
            except Exception:
                log.exception("journal-watch: unexpected fault, going on")

    def turn(self) -> None:
        """Look once."""
        self._tell()
        if self._journal.damage:
            return
        if moved := self._moved():
            self._journal.damage = f"MISSING: {moved}"
            return
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + _CHECK_SECONDS
            with suppress(JournalUnusable):
                if wrong := check(self._root / JOURNAL):
                    self._journal.damage = f"CORRUPT: {wrong}"

    def hand_over(self) -> bool:
        """Leave word for the next start, and the content of a journal that lost its file; False without need."""
        if not self._journal.damage:
            return False
        reason, _, detail = self._journal.damage.partition(": ")
        if self._moved():
            target = self._root / RESCUED
            try:
                steps.remove(target)
                self._journal.rescue(target)
            except (OSError, sqlite3.Error) as error:
                log.error("the journal cannot be written to another file: %s", error)  # noqa: TRY400 - says it all
                with suppress(OSError):
                    steps.remove(target)
        write_suspect(self._root, reason, detail)
        return True

    def found(self) -> Iterator[tuple[CheckCode, bool, str, str]]:
        """For health: code, whether it is well, value, what is wanted."""
        damage = self._journal.damage
        yield CheckCode.JOURNAL_USABLE, not damage, damage or "in use", "in use"
        at, folder = self._rebuilt or (None, "")
        lately = at is not None and datetime.now(UTC) - at < _SHOWN
        told = (
            f"rebuilt {at:%Y-%m-%d %H:%M} UTC, the old one is in {folder}"
            if at is not None and lately
            else "whole"
        )
        yield CheckCode.JOURNAL_WHOLE, not lately, told, "not rebuilt for 24 h"
        files = found.shown()
        yield CheckCode.FILES_WHOLE, not files, "; ".join(map(str, files[-3:])) or "whole", "whole"

    def _tell(self) -> None:
        waiting = found.untold()
        for number, one in enumerate(waiting):
            try:
                self._journal.note_event(EventCode.FILE_PUT_ASIDE, str(one))
            except sqlite3.Error:
                found.tell_again(waiting[number:])
                return

    def _look(self) -> dict[str, tuple[int, int] | None]:
        places: dict[str, tuple[int, int] | None] = {}
        for name in (JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"):
            try:
                status = os.stat(self._root / name)  # noqa: PTH116 - as the others here
                places[name] = (status.st_dev, status.st_ino)
            except OSError:
                places[name] = None
        return places

    def _moved(self) -> str:
        """Which of the files it writes to is no longer in its place, or no longer itself; empty when all are well."""
        for name, place in self._look().items():
            then = self._places[name]
            if then is None:
                self._places[name] = place
            elif place != then:
                return f"{name} was {'removed' if place is None else 'replaced'} while the service ran"
        try:
            head, size = os.pread(self._file, len(MAGIC), 0), os.fstat(self._file).st_size
        except OSError as error:
            return f"{JOURNAL} cannot be read: {error.strerror}"
        if size < self._size:
            return f"{JOURNAL} became shorter while the service ran"
        self._size = size
        if size and head != MAGIC:
            return f"{JOURNAL} was overwritten while the service ran"
        return ""
