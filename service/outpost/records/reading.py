"""The journal, opened for reading alone: beside the running service, or where none runs. Nothing is brought forward."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from outpost.records.journal import SCHEMA_VERSION, Journal, JournalError


class JournalReading(Journal):
    """A journal whose questions can be asked and whose writing methods fail (SQLite refuses).

    Raises `JournalError` when there is none, it cannot be read, or it has the columns of an older release.
    """

    def __init__(self, path: Path, system: str) -> None:
        self.path = path
        self.system = system
        self._budget = None
        self._lock = threading.RLock()
        if not path.exists():
            raise JournalError(f"there is no journal at {path}: this system has not run here yet")
        # A journal that was closed well has no -wal; in a folder that may not be written SQLite then wants to
        # hear that nobody changes the file.
        attempts = ["mode=ro"]
        if not path.with_name(f"{path.name}-wal").exists():
            attempts.append("mode=ro&immutable=1")
        told = ""
        for attempt in attempts:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?{attempt}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=5,
            )
            self._db.row_factory = sqlite3.Row
            try:
                found = self._schema()
            except sqlite3.Error as error:
                self._db.close()
                told = str(error)
            else:
                if found >= SCHEMA_VERSION:
                    return
                self._db.close()
                raise JournalError(
                    f"journal {path} has schema {found}, this release reads {SCHEMA_VERSION}: it is brought "
                    "forward when the service starts"
                )
        raise JournalError(f"journal {path} cannot be read ({told}): see the runbook on a damaged journal")
