"""What the journal keeps for ever because a peer once sent something, kept within bounds.

Rows leave in small batches, oldest first, found by an index, so that intake never waits long for the journal:

* rows of refused images whose bytes have left quarantine; a count by day, sender and reason stays (`refused_gone`),
  so that no report, metric or count in the region's database ever falls;
* events, beyond so many of each code: masses of one code push out no other's;
* transfers of studies that have ended: those of studies on their way stay, whatever their age;
* what senders do by habit (`Journal.transfer_broke`), beyond so many senders: it is learnt again.

Studies and their images are never removed here: statistics count them, and what comes late is held against them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from outpost.events import EventCode
from outpost.records.counts import MOST_SENDERS_OF_A_DAY, OTHER, clean_sender, named_of_day, stored
from outpost.records.journal import OUTCOMES, Journal, utc_now
from outpost.records.readonly import Questions

BATCH_ROWS: Final = 500
_PAUSE_SECONDS: Final = 0.02
# Of transfers, which may all have to stay.
_LOOKED_AT: Final = 500
_HABITS: Final = ("contexts", "unreleased")
_DAYS_REMEMBERED: Final = 64
_COUNT: Final = (
    "INSERT INTO refused_gone (day, sender, reason, instances, bytes, evicted, first, last)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, sender, reason) DO UPDATE SET"
    " instances = instances + excluded.instances, bytes = bytes + excluded.bytes,"
    " evicted = evicted + excluded.evicted, first = min(first, excluded.first), last = max(last, excluded.last)"
)
_ENDED: Final = ", ".join(repr(outcome) for outcome in OUTCOMES)
_OF_ENDED: Final = (
    "id >= ? AND id <= ? AND NOT EXISTS (SELECT 1 FROM studies s WHERE s.study_uid = transfers.study_uid"
    f" AND (s.state NOT IN ({_ENDED}) OR s.finished_at > ?))"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many rows of each kind are kept, and how long the oldest of them at the most.

    `transfers_for`: nobody makes up for a transfer of a study that ended before; where there are more than
    `transfers`, before `transfers_for_at_least`.
    """

    refused: int = 10_000
    refused_for: timedelta = timedelta(days=180)
    events_of_a_code: int = 5_000
    transfers: int = 20_000
    transfers_for: timedelta = timedelta(days=7)
    transfers_for_at_least: timedelta = timedelta(hours=1)
    habits: int = 1_000


class Pruner:
    """Holds a journal to its limits; `turn` is called now and then, from a thread that nobody waits for."""

    def __init__(self, journal: Journal, limits: Limits | None = None) -> None:
        self._journal = journal
        self._limits = limits or Limits()
        self._questions = Questions(journal)  # what is only asked keeps nobody waiting
        self._named: dict[str, set[str]] = {}  # by day
        self._looked = 0  # up to which transfer

    def close(self) -> None:
        """Close what only it has open; the journal stays open."""
        self._questions.close()

    def turn(self, stopping: threading.Event) -> int:
        """Remove what is beyond the limits; returns how many rows went. Raises sqlite3.Error."""
        gone = 0
        for batch in (self._refused, self._events, self._habits):
            gone += _all(batch, stopping)
        return gone + self._transfers(stopping)

    def _refused(self) -> int:
        limits = self._limits
        beyond = self._questions.rows(
            "SELECT id FROM refused WHERE removed_at IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?",
            (limits.refused,),
        )
        newest = beyond[0]["id"] if beyond else 0
        oldest = self._questions.rows(
            "SELECT id, at, source, reason, bytes, evicted_for FROM refused WHERE removed_at IS NOT NULL"
            " ORDER BY id LIMIT ?",
            (BATCH_ROWS,),
        )
        long_ago = stored(utc_now() - limits.refused_for)
        rows = [row for row in oldest if row["id"] <= newest or row["at"] < long_ago]
        counts = self._counts(rows)
        if rows:
            with self._journal.writing() as db:
                db.executemany(_COUNT, counts)
                db.executemany("DELETE FROM refused WHERE id = ?", [(row["id"],) for row in rows])
        return len(rows)

    def _counts(self, rows: list[sqlite3.Row]) -> list[tuple[str | int, ...]]:
        """What these rows add to `refused_gone`."""
        found: dict[tuple[str, str, str], list[sqlite3.Row]] = defaultdict(list)
        for row in rows:
            day = row["at"][:10]
            found[day, self._sender(day, clean_sender(row["source"])), row["reason"]].append(row)
        return [
            (
                *key,
                len(of),
                sum(row["bytes"] for row in of),
                sum(row["evicted_for"] == "quota" for row in of),
                of[0]["id"],
                of[-1]["id"],
            )
            for key, of in found.items()
        ]

    def _sender(self, day: str, sender: str) -> str:
        """The name under which a sender is counted on this day."""
        named = self._named.get(day)
        if named is None or (sender not in named and len(named) < MOST_SENDERS_OF_A_DAY):
            if len(self._named) > _DAYS_REMEMBERED:
                self._named.clear()
            named = self._named[day] = named_of_day(self._questions, day)
        return sender if sender in named else OTHER

    def _events(self) -> int:
        gone = 0
        for code in EventCode:
            beyond = self._questions.rows(
                "SELECT at FROM events WHERE code = ? ORDER BY at DESC LIMIT 1 OFFSET ?",
                (code, self._limits.events_of_a_code),
            )
            if beyond:
                with self._journal.writing() as db:
                    gone += db.execute(
                        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE code = ? AND at <= ?"
                        " ORDER BY at LIMIT ?)",
                        (code, beyond[0]["at"], BATCH_ROWS),
                    ).rowcount
        return gone

    def _habits(self) -> int:
        gone = 0
        for kind in _HABITS:
            prefix = f"{kind} ", f"{kind}!"  # the character after a space
            beyond = self._questions.rows(
                "SELECT rowid AS n FROM facts WHERE name >= ? AND name < ? ORDER BY rowid DESC LIMIT 1 OFFSET ?",
                (*prefix, self._limits.habits),
            )
            if beyond:
                with self._journal.writing() as db:
                    gone += db.execute(
                        "DELETE FROM facts WHERE rowid IN (SELECT rowid FROM facts WHERE name >= ? AND name < ?"
                        " AND rowid <= ? LIMIT ?)",
                        (*prefix, beyond[0]["n"], BATCH_ROWS),
                    ).rowcount
        return gone

    def _transfers(self, stopping: threading.Event) -> int:
        """One way through the table from where the last turn ended, no more rows than there may be."""
        gone = looked = 0
        while looked <= self._limits.transfers and not stopping.is_set():
            rows = self._questions.rows(
                "SELECT id FROM transfers WHERE id > ? ORDER BY id LIMIT ?", (self._looked, _LOOKED_AT)
            )
            if not rows:
                self._looked = 0
                return gone
            looked += len(rows)
            gone += self._of_ended([row["id"] for row in rows])
            self._looked = rows[-1]["id"]
            stopping.wait(_PAUSE_SECONDS)
        return gone

    def _of_ended(self, looked_at: list[int]) -> int:
        """Remove transfers among these whose study ended long ago, or less long where there are too many."""
        limits = self._limits
        many = self._questions.rows("SELECT 1 FROM transfers LIMIT 1 OFFSET ?", (limits.transfers,))
        since = stored(utc_now() - (limits.transfers_for_at_least if many else limits.transfers_for))
        first, last = looked_at[0], looked_at[-1]
        if not self._questions.rows(
            f"SELECT 1 FROM transfers WHERE {_OF_ENDED} LIMIT 1", (first, last, since)
        ):
            return 0
        with self._journal.writing() as db:
            return db.execute(f"DELETE FROM transfers WHERE {_OF_ENDED}", (first, last, since)).rowcount


def _all(batch: Callable[[], int], stopping: threading.Event) -> int:
    gone = 0
    while not stopping.is_set() and (went := batch()):
        gone += went
        stopping.wait(_PAUSE_SECONDS)
    return gone
