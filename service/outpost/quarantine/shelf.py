"""What lies in quarantine, as the journal knows it: items, counts, and the two steps in which one leaves.

An item is `study-N` (the revision in journal row N) or `file-N` (refusal N). It leaves in two steps, each durable:
first the journal says that it goes and why, then its files go, then the journal says that they are gone.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from outpost.events import EventCode
from outpost.intake.spool import MIB, Spool
from outpost.records.counts import clean_sender, stored
from outpost.records.journal import OUTCOMES, Instance, Journal, StudyRecord, utc_now

Leaving = Literal["quota", "resubmitted"]

# Held from a look at an item's files until what was decided on it is in the journal.
MOVING = threading.RLock()

_ENDED = ", ".join(f"'{outcome}'" for outcome in OUTCOMES)
_PENDING = (
    f"EXISTS (SELECT 1 FROM studies o WHERE o.study_uid = {{0}}.study_uid AND o.state NOT IN ({_ENDED}))"
)
# Revisions of a study share their images by hard links: the newest one held accounts for all of them.
_CHARGED = (
    "CASE WHEN q.study_uid <> '' AND EXISTS (SELECT 1 FROM studies n WHERE n.study_uid = q.study_uid"
    " AND n.revision > q.revision AND n.state IN ('rejected', 'quarantined') AND n.evicted_at IS NULL)"
    " THEN 0 ELSE q.bytes END"
)


class NoSuchItem(Exception):
    """There is, or never was, no such item; the text says what names look like."""


@dataclass(frozen=True, slots=True)
class Item:
    """A revision of a study, or a single image, that ended without a result. Times are aware, in UTC."""

    item: str
    at: datetime
    outcome: str
    reason: str
    detail: str
    senders: tuple[str, ...]
    modality: str
    instances: int
    bytes: int
    study_uid: str  # empty for a single image, whose headers nobody trusts
    revision: int
    file: str  # of a single image, below the storage root
    evicted_at: datetime | None
    evicted_for: str
    removed_at: datetime | None

    @property
    def number(self) -> int:
        return int(self.item.partition("-")[2])

    @property
    def is_study(self) -> bool:
        return self.item.startswith("study-")


@dataclass(frozen=True, slots=True)
class Held:
    """An item whose files are here. `charged` is what quotas count, bytes; `pending`: its study is on its way.

    `address` is that of who sent its first image; empty where it is not known.
    """

    item: Item
    charged: int
    pending: bool
    address: str = ""


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """What quarantine holds, and has let go, of one reason."""

    reason: str
    items: int
    bytes: int
    evicted: int
    oldest: datetime | None


def find(journal: Journal, name: str) -> Item:
    """The item of this name, also one whose files have left. Raises `NoSuchItem`."""
    number = int(_checked(name).partition("-")[2])
    rows = journal.rows("SELECT * FROM quarantine WHERE number = ? AND item = ?", (number, name))
    if not rows:
        raise NoSuchItem(f"{name} is not in quarantine: see the list")
    return _item(rows[0])


def listed(
    journal: Journal,
    *,
    reason: str | None = None,
    sender: str | None = None,
    since: datetime | None = None,
    after: str | None = None,
    gone: bool = False,
    limit: int = 100,
) -> list[Item]:
    """Items for a person to look at, newest first; those after the item `after`, for the next page.

    Raises `NoSuchItem` where `after` is none.
    """
    conditions, values = ["1"], list[object]()
    if reason is not None:
        conditions.append("reason = ?")
        values.append(reason)
    if sender is not None:
        conditions.append("instr('\\' || senders || '\\', '\\' || ? || '\\') > 0")
        values.append(sender)
    if since is not None:
        conditions.append("at >= ?")
        values.append(stored(since))
    if not gone:
        conditions.append("evicted_at IS NULL")
    if after is not None:
        last = find(journal, after)
        conditions.append("(at, item) < (?, ?)")
        values += [stored(last.at), last.item]
    rows = journal.rows(
        f"SELECT * FROM quarantine WHERE {' AND '.join(conditions)} ORDER BY at DESC, item DESC LIMIT ?",
        (*values, limit),
    )
    return [_item(r) for r in rows]


def by_reason(journal: Journal) -> list[ReasonCount]:
    """What is held, and what a quota has removed, of each reason."""
    kept = {
        r["reason"]: dict(r)
        for r in journal.rows(
            f"SELECT q.reason, count(*) AS items, sum({_CHARGED}) AS size, min(q.at) AS oldest"
            " FROM quarantine q WHERE q.evicted_at IS NULL GROUP BY q.reason"
        )
    }
    evicted: Counter[str] = Counter()
    for table in ("studies", "refused"):
        for r in journal.rows(
            f"SELECT reason, count(*) AS n FROM {table} WHERE evicted_at IS NOT NULL AND evicted_for = 'quota'"
            " GROUP BY reason"
        ):
            evicted[r["reason"]] += r["n"]
    for r in journal.rows(
        "SELECT reason, sum(evicted) AS n FROM refused_gone WHERE evicted > 0 GROUP BY reason"
    ):
        evicted[r["reason"]] += r["n"]
    none = {"items": 0, "size": 0, "oldest": None}
    counts = {reason: kept.get(reason, none) for reason in sorted({*kept, *evicted})}
    return [
        ReasonCount(reason, r["items"], r["size"], evicted[reason], _moment(r["oldest"]))
        for reason, r in counts.items()
    ]


def held(journal: Journal) -> list[Held]:
    """Everything whose files are here, oldest first."""
    rows = journal.rows(
        f"SELECT q.*, {_CHARGED} AS charged, q.study_uid <> '' AND {_PENDING.format('q')} AS pending,"
        " coalesce(CASE WHEN q.study_uid = '' THEN (SELECT r.address FROM refused r WHERE r.id = q.number) ELSE"
        " (SELECT i.address FROM instances i WHERE i.study_uid = q.study_uid LIMIT 1) END, '') AS address"
        " FROM quarantine q WHERE q.evicted_at IS NULL ORDER BY q.at, q.number"
    )
    return [Held(_item(r), r["charged"], bool(r["pending"]), r["address"]) for r in rows]


def files(journal: Journal, spool: Spool, item: Item) -> list[tuple[Instance, Path | None]]:
    """The images of an item with where each lies now; None where it is gone."""
    if item.is_study:
        return spool.located(journal.study(item.number))
    path = spool.root / item.file
    instance = Instance(path.stem, "", "", "", "", "", "", item.bytes, "".join(item.senders))
    return [(instance, path if path.exists() else None)]


def study_of(journal: Journal, name: str) -> StudyRecord:
    """The revision an item, or any other study, is about. Raises `NoSuchItem`."""
    kind, _, number = _checked(name).partition("-")
    rows = journal.rows("SELECT id FROM studies WHERE id = ?", (int(number),)) if kind == "study" else []
    if not rows:
        raise NoSuchItem(f"{name} is no study here: see the lists of studies and of quarantine")
    return journal.study(int(number))


# --- leaving ---


def evict(journal: Journal, item: Item, why: Leaving, *, event: bool = True) -> bool:
    """The first step: say that the item goes. False, doing nothing, when its study is on its way again.

    `event`: where a quota is why, an event says what went.
    """
    table = "studies" if item.is_study else "refused"
    busy = f" AND NOT {_PENDING.format('studies')}" if item.is_study else ""
    now = stored(utc_now())
    with journal.writing() as db:
        changed = db.execute(
            f"UPDATE {table} SET evicted_at = ?, evicted_for = ? WHERE id = ? AND evicted_at IS NULL{busy}",
            (now, why, item.number),
        ).rowcount
        if changed and why == "quota" and event:
            sender = (clean_sender(item.senders[0]) if item.senders else "") or "?"
            told = f"{item.item}: {item.reason}, {item.bytes / MIB:.1f} MiB, of {item.at:%Y-%m-%d}, from {sender}"
            db.execute(
                "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)",
                (now, EventCode.QUARANTINE_EVICTED, told),
            )
    return bool(changed)


def leaving(journal: Journal) -> list[Item]:
    """Items of which it was said that they go, and not yet that they are gone."""
    return [
        _item(r)
        for r in journal.rows(
            "SELECT * FROM quarantine WHERE evicted_at IS NOT NULL AND removed_at IS NULL ORDER BY at"
        )
    ]


def note_gone(journal: Journal, item: Item) -> None:
    """The last step: the item's files are no longer on the disk."""
    table = "studies" if item.is_study else "refused"
    with journal.writing() as db:
        db.execute(
            f"UPDATE {table} SET removed_at = ? WHERE id = ?",
            (stored(utc_now()), item.number),
        )


def _checked(name: str) -> str:
    if not re.fullmatch(r"(study|file)-[0-9]{1,15}", name):
        raise NoSuchItem(f"{name[:40]!r} names no item: write study-N or file-N, as the list shows them")
    return name


def _item(row: sqlite3.Row) -> Item:
    at = _moment(row["at"])
    assert at is not None  # what is in quarantine has ended
    return Item(
        item=row["item"],
        at=at,
        outcome=row["outcome"],
        reason=row["reason"],
        detail=row["detail"],
        senders=tuple(row["senders"].split("\\")) if row["senders"] else (),
        modality=row["modality"],
        instances=row["instances"],
        bytes=row["bytes"],
        study_uid=row["study_uid"],
        revision=row["revision"],
        file=row["file"],
        evicted_at=_moment(row["evicted_at"]),
        evicted_for=row["evicted_for"],
        removed_at=_moment(row["removed_at"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
