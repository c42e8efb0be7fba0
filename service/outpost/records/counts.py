"""How much ended how, by who sent it: for metrics, the report by sender and the region's Postgres.

A sender is an AE title, or "stow": it names a device or an archive. Whoever connects chooses it, so its form is
checked before it leaves the journal, and metrics name only so many.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from outpost.records.journal import OUTCOMES, Journal

OTHER = "other"
# Label values that one metric may have; a series is kept for each by whoever scrapes.
MOST_SENDERS = 50


@dataclass(frozen=True, slots=True)
class Ended:
    """Studies of one sender and modality that ended alike on one day (YYYY-MM-DD, UTC)."""

    day: str
    sender: str
    modality: str
    outcome: str
    reason: str
    studies: int


@dataclass(frozen=True, slots=True)
class RefusedDay:
    """Images of one sender that intake refused for one reason on one day (YYYY-MM-DD, UTC)."""

    day: str
    sender: str
    reason: str
    instances: int
    bytes: int


def stored(moment: datetime) -> str:
    """A moment as the journal writes it: text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def clean_sender(text: str) -> str:
    """The sender where it has the form of an AE title (PS3.5 6.2), else nothing."""
    return text if re.fullmatch(r"[ -\[\]-~]{1,16}", text) else ""


def first_sender(senders: str) -> str:
    """Who sent the first image, of the journal's list."""
    return clean_sender(senders.partition("\\")[0])


def ended(journal: Journal, since: datetime, until: datetime) -> list[Ended]:
    """Studies whose last end lies between the two moments; one computed again counts as it ended at last."""
    rows = journal.rows(
        "SELECT substr(finished_at, 1, 10) AS day, senders, modality, state, reason, count(*) AS n FROM studies s"
        " WHERE finished_at >= ? AND finished_at < ? AND NOT EXISTS (SELECT 1 FROM studies o"
        "  WHERE o.study_uid = s.study_uid AND o.revision > s.revision AND o.finished_at < ?)"
        " GROUP BY 1, 2, 3, 4, 5",
        (stored(since), stored(until), stored(until)),
    )
    counts: Counter[tuple[str, str, str, str, str]] = Counter()
    for r in rows:
        counts[r["day"], first_sender(r["senders"]), r["modality"], r["state"], r["reason"]] += r["n"]
    return [Ended(*key, studies=n) for key, n in sorted(counts.items())]


def refused(journal: Journal, since: datetime, until: datetime) -> list[RefusedDay]:
    """Images refused between the two moments."""
    return _refused(
        journal,
        "at >= ? AND at < ?",
        (stored(since), stored(until)),
    )


def refused_after(journal: Journal, number: int) -> tuple[int, list[RefusedDay]]:
    """Whole counts of every day on which something was refused after refusal `number`, and the last number.

    Counts as they stand, not differences: whoever writes them twice has written them once.
    """
    last = int(journal.rows("SELECT coalesce(max(id), 0) AS n FROM refused")[0]["n"])
    if last <= number:
        return last, []
    days = [
        r["day"]
        for r in journal.rows("SELECT DISTINCT substr(at, 1, 10) AS day FROM refused WHERE id > ?", (number,))
    ]
    marks = ", ".join("?" * len(days))
    return last, _refused(journal, f"substr(at, 1, 10) IN ({marks}) AND id <= ?", (*days, last))


def _refused(journal: Journal, condition: str, values: Sequence[object]) -> list[RefusedDay]:
    rows = journal.rows(
        "SELECT substr(at, 1, 10) AS day, source, reason, count(*) AS n, sum(bytes) AS size FROM refused"
        f" WHERE {condition} GROUP BY 1, 2, 3",
        values,
    )
    instances: Counter[tuple[str, str, str]] = Counter()
    size: Counter[tuple[str, str, str]] = Counter()
    for r in rows:
        key = (r["day"], clean_sender(r["source"]), r["reason"])
        instances[key] += r["n"]
        size[key] += r["size"]
    return [RefusedDay(*key, instances=n, bytes=size[key]) for key, n in sorted(instances.items())]


def studies_by_sender(journal: Journal, known: Iterable[str] = ()) -> dict[tuple[str, str, str], int]:
    """Revisions that ended, by (sender, outcome, reason), with no more senders than a metric may have."""
    rows = journal.rows(
        "SELECT senders, state, reason, count(*) AS n, min(id) AS first FROM studies"
        f" WHERE state IN ({', '.join('?' * len(OUTCOMES))}) GROUP BY state, reason, senders ORDER BY first",
        OUTCOMES,
    )
    named = _named((first_sender(r["senders"]) for r in rows), known)
    counts: Counter[tuple[str, str, str]] = Counter()
    for r in rows:
        sender = first_sender(r["senders"])
        counts[sender if sender in named else OTHER, r["state"], r["reason"]] += r["n"]
    return dict(counts)


def refused_by_sender(journal: Journal, known: Iterable[str] = ()) -> dict[tuple[str, str], int]:
    """Images refused, by (sender, reason), with no more senders than a metric may have."""
    rows = journal.rows(
        "SELECT source, reason, count(*) AS n, min(id) AS first FROM refused GROUP BY reason, source ORDER BY first"
    )
    named = _named((clean_sender(r["source"]) for r in rows), known)
    counts: Counter[tuple[str, str]] = Counter()
    for r in rows:
        sender = clean_sender(r["source"])
        counts[sender if sender in named else OTHER, r["reason"]] += r["n"]
    return dict(counts)


def _named(seen: Iterable[str], known: Iterable[str]) -> set[str]:
    """The configured ones and the first seen: who is named stays named, so that no counter ever falls."""
    named = dict.fromkeys(known)
    for sender in seen:
        if len(named) >= MOST_SENDERS:
            break
        if sender:
            named.setdefault(sender)
    return set(named)
