"""How much ended how, by who sent it: for metrics, the report by sender and the region's Postgres.

A sender is an AE title, or "stow": it names a device or an archive. Whoever connects chooses it, so its form is
checked before it leaves the journal, and metrics name only so many.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from outpost.records.journal import OUTCOMES, Journal

OTHER = "other"
# Label values that one metric may have; a series is kept for each by whoever scrapes.
MOST_SENDERS = 50
# Senders of refused images that are counted by name on one day; what comes from others that day is counted together.
MOST_SENDERS_OF_A_DAY = 100


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
    """Images refused between the two moments; what has left quarantine long ago is counted by whole days."""
    first, last = stored(since)[:10], stored(until - timedelta(microseconds=1))[:10]
    return _refused(
        journal,
        ("at >= ? AND at < ?", (stored(since), stored(until))),
        ("day >= ? AND day <= ?", (first, last)),
    )


def refused_after(journal: Journal, number: int) -> tuple[int, list[RefusedDay]]:
    """Whole counts of every day on which something was refused after refusal `number`, and the last number.

    Counts as they stand, not differences: whoever writes them twice has written them once.
    """
    [newest] = journal.rows(
        "SELECT max((SELECT coalesce(max(id), 0) FROM refused), (SELECT coalesce(max(last), 0) FROM refused_gone))"
        " AS n"
    )
    last = int(newest["n"])
    if last <= number:
        return last, []
    days = [
        r["day"]
        for r in journal.rows(
            "SELECT DISTINCT substr(at, 1, 10) AS day FROM refused WHERE id > ?"
            " UNION SELECT day FROM refused_gone WHERE last > ?",
            (number, number),
        )
    ]
    marks = ", ".join("?" * len(days))
    return last, _refused(
        journal,
        (f"substr(at, 1, 10) IN ({marks}) AND id <= ?", (*days, last)),
        (f"day IN ({marks})", days),
    )


def _refused(
    journal: Journal, here: tuple[str, Sequence[object]], gone: tuple[str, Sequence[object]]
) -> list[RefusedDay]:
    """`here` and `gone` are conditions, with their values, on rows that are here and on counts of those that went."""
    rows = journal.rows(
        "SELECT substr(at, 1, 10) AS day, source, reason, count(*) AS n, sum(bytes) AS size, min(id) AS first"
        f" FROM refused WHERE {here[0]} GROUP BY 1, 2, 3"
        " UNION ALL SELECT day, sender, reason, instances, bytes, first FROM refused_gone"
        f" WHERE {gone[0]}",
        (*here[1], *gone[1]),
    )
    named = _named_by_day((r["day"], clean_sender(r["source"]), r["first"]) for r in rows)
    instances: Counter[tuple[str, str, str]] = Counter()
    size: Counter[tuple[str, str, str]] = Counter()
    for r in rows:
        sender = clean_sender(r["source"])
        key = (r["day"], sender if sender in named[r["day"]] else OTHER, r["reason"])
        instances[key] += r["n"]
        size[key] += r["size"]
    return [RefusedDay(*key, instances=n, bytes=size[key]) for key, n in sorted(instances.items())]


def named_of_day(journal: Journal, day: str) -> set[str]:
    """Senders of refused images that are counted by name on this day (YYYY-MM-DD)."""
    rows = journal.rows(
        "SELECT source, min(id) AS first FROM refused WHERE substr(at, 1, 10) = ?1 GROUP BY source"
        " UNION ALL SELECT sender, min(first) FROM refused_gone WHERE day = ?1 GROUP BY sender",
        (day,),
    )
    return _named_by_day((day, clean_sender(r["source"]), r["first"]) for r in rows).get(day, set())


def _named_by_day(seen: Iterable[tuple[str, str, int]]) -> dict[str, set[str]]:
    """Of each day the first senders, by the number of their first refusal: who is named stays named."""
    first: dict[str, dict[str, int]] = defaultdict(dict)
    for day, sender, number in seen:
        if sender != OTHER:
            first[day][sender] = min(number, first[day].get(sender, number))
        else:
            first[day].setdefault(sender, number)
    return {
        day: set(sorted(senders.keys() - {OTHER}, key=senders.__getitem__)[:MOST_SENDERS_OF_A_DAY])
        for day, senders in first.items()
    }


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
        "SELECT source, reason, count(*) AS n, min(id) AS first FROM refused GROUP BY reason, source"
        " UNION ALL SELECT sender, reason, sum(instances), min(first) FROM refused_gone GROUP BY reason, sender"
        " ORDER BY first"
    )
    named = _named((clean_sender(r["source"]) for r in rows if r["source"] != OTHER), known)
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
