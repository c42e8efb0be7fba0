"""The journal, opened for reading alone: beside the running service, or where none runs. Nothing is brought forward.

Every connection that only asks is made here. SQLite lets readers of a write-ahead log go on beside the writer; its
files are never opened or closed by anything but SQLite, as a closed descriptor takes all locks of the process away.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from outpost import errand
from outpost.records.journal import SCHEMA_VERSION, Journal, JournalError

_KEPT: Final = 4  # connections for questions; more are opened where more ask, and closed


def connect(file: Path, *, alone: bool = False, timeout: float = 5) -> sqlite3.Connection:
    """A connection that changes nothing: read-only, so it neither checkpoints nor removes the write-ahead log.

    Usable from any thread, by one at a time. Rows answer by name and by position.

    Args:
        alone: without the write-ahead log, as if nobody else had the file open.
        timeout: seconds to wait while the writer keeps the file to itself.

    Raises:
        sqlite3.Error: there is no such file, or the first query finds that it is no journal.
    """
    mode = "mode=ro&immutable=1" if alone else "mode=ro"
    db = sqlite3.connect(
        f"{file.absolute().as_uri()}?{mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=timeout,
    )
    db.row_factory = sqlite3.Row
    return db


class JournalReading(Journal):
    """A journal whose questions can be asked and whose writing methods fail (SQLite refuses).

    Raises `JournalError` when there is none, it cannot be read, or it has the columns of an older release.
    """

    def __init__(self, path: Path, system: str) -> None:
        self.path = path
        self.system = system
        self._budget = None
        self.damage = ""
        self._lock = threading.RLock()
        if not path.exists():
            raise JournalError(f"there is no journal at {path}: this system has not run here yet")
        told = ""
        # A journal that was closed well has no -wal; in a folder that may not be written SQLite then wants to
        # hear that nobody changes the file.
        for alone in (False,) if path.with_name(f"{path.name}-wal").exists() else (False, True):
            self._db = connect(path, alone=alone)
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


class Questions(Journal):
    """A journal that answers beside the one that is written to; what it writes, that one writes.

    By connections of its own, so that no answer keeps intake waiting. A query ends with the errand it belongs to.
    Safe to use from any thread. Raises, of every query, `errand.Abandoned` and `errand.TooCostly`.
    """

    def __init__(self, journal: Journal) -> None:
        # Not Journal's own, which would open the file a second time for writing.
        self.path = journal.path
        self.system = journal.system
        self.journal = journal
        self._kept: list[tuple[tuple[int, int], sqlite3.Connection]] = []
        self._pool = threading.Lock()

    def close(self) -> None:
        """Close the connections for asking; the journal itself stays open."""
        with self._pool:
            kept, self._kept = self._kept, []
        for _, db in kept:
            db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self.journal.writing() as db:
            yield db

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._asking() as db, errand.reading(db):
            return db.execute(sql, parameters).fetchall()

    writing = _write
    rows = _rows

    @contextmanager
    def _asking(self) -> Iterator[sqlite3.Connection]:
        status = self.path.stat()
        file = (status.st_dev, status.st_ino)  # a damaged journal may have been replaced
        with self._pool:
            db = next((db for of, db in self._kept if of == file), None)
            old = [one for of, one in self._kept if of != file]
            self._kept = [(of, one) for of, one in self._kept if of == file and one is not db]
        for one in old:
            one.close()
        if db is None:
            db = connect(self.path)
        try:
            yield db
        except sqlite3.DatabaseError:
            db.close()
            raise
        with self._pool:
            keep = len(self._kept) < _KEPT
            if keep:
                self._kept.append((file, db))
        if not keep:
            db.close()
