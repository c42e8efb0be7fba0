"""The journal as whoever only asks sees it: by connections of their own, so that no answer keeps intake waiting.

SQLite lets readers of a write-ahead log go on beside the writer. A query ends with the errand it belongs to.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from outpost import errand
from outpost.records.journal import Journal

_KEPT: Final = 4  # connections; more are opened where more ask, and closed


class Questions(Journal):
    """A journal that answers beside the one that is written to; what it writes, that one writes.

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
            db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=5,
            )
            db.row_factory = sqlite3.Row
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
