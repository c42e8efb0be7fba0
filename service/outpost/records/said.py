"""What results say of themselves, what destinations say of results, and what waits: questions to the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from outpost.codes.notes import NOTES, Kind, Note
from outpost.records.counts import first_sender, stored
from outpost.records.journal import OUTCOMES, Journal, StudyRecord


def _says(kind: Kind) -> str:
    """The SQL condition that a study's notes hold one of this kind.

    `notes` is `[["CODE", "detail"], ...]`; quotes within a detail are escaped, so no detail looks like the start of a
    note.
    """
    begin = 'instr(notes, \'["{}", "\') > 0'
    return f"({' OR '.join(begin.format(code) for code, text in NOTES.items() if text.kind == kind)})"


PARTIAL, DOUBTFUL = _says("part"), _says("doubt")


# The states in which a study has a result: it is in the outbox, or beyond.
_HAS_RESULT = ("delivering", "delivered")


@dataclass(frozen=True, slots=True)
class Marked:
    """Results of one sender that say they are of a part of their study, or in doubt. One may be both."""

    sender: str
    partial: int
    doubtful: int


@dataclass(frozen=True, slots=True)
class DeliveryWords:
    """What a destination said of a result.

    Attributes:
        remark: with what it was stored.
        refused_for: the cause for which it is not, and which repetition does not cure; empty once it is stored.
        error: that cause in words, with what to do.
    """

    study: int
    file: str
    destination: str
    remark: str
    refused_for: str
    error: str


def notes_of(record: StudyRecord) -> tuple[Note, ...]:
    """What its result says of itself. The journal keeps notes of a result that was lost and is to be made again."""
    return record.notes if record.state in _HAS_RESULT else ()


def newest(
    journal: Journal,
    *,
    state: str | None = None,
    marked: bool = False,
    held: bool = False,
    reason: str | None = None,
    sender: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
) -> list[StudyRecord]:
    """Studies, newest first; `marked` only those whose result is partial or doubtful, `held` only those that wait.

    `since` and `until` are about when the first image came; `sender` is any that sent an image of the study.
    """
    if not (marked or held or reason or sender or since or until):
        return journal.newest(state, limit)
    conditions = ["(?1 IS NULL OR state = ?1)"]
    parameters: list[object] = [state, limit]

    def also(condition: str, value: object) -> None:
        parameters.append(value)
        conditions.append(condition.format(f"?{len(parameters)}"))

    if reason:
        also("reason = {}", reason)
    if sender:
        also("instr('\\' || senders || '\\', '\\' || {} || '\\') > 0", sender)
    if since:
        also("received_at >= {}", stored(since))
    if until:
        also("received_at < {}", stored(until))
    if marked:
        conditions.append(f"notes <> '' AND ({PARTIAL} OR {DOUBTFUL}) AND state IN {_HAS_RESULT}")
    if held:
        conditions.append(f"held_for <> '' AND state NOT IN {OUTCOMES}")
    rows = journal.rows(
        f"SELECT id FROM studies WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?2", parameters
    )
    return [journal.study(row["id"]) for row in rows]


def marked_by_sender(journal: Journal, since: datetime, until: datetime) -> list[Marked]:
    """Results delivered between the two moments, each revision for itself: one made whole later was partial before."""
    rows = journal.rows(
        f"SELECT senders, sum({PARTIAL}) AS partial, sum({DOUBTFUL}) AS doubtful FROM studies"
        " WHERE finished_at >= ? AND finished_at < ? AND state = 'delivered' AND notes <> '' GROUP BY senders",
        (stored(since), stored(until)),
    )
    partial: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()
    for row in rows:
        sender = first_sender(row["senders"])
        partial[sender] += row["partial"]
        doubtful[sender] += row["doubtful"]
    return [
        Marked(sender, partial[sender], doubtful[sender])
        for sender in sorted(partial.keys() | doubtful.keys())
        if partial[sender] or doubtful[sender]
    ]


def delivery_words(journal: Journal, rows: Sequence[int]) -> list[DeliveryWords]:
    """Remarks and refusals of destinations for these studies (journal rows)."""
    marks = ", ".join("?" * len(rows))
    found = journal.rows(
        "SELECT study, file, destination, remark, refused_for, error FROM ("
        " SELECT study, file, destination, remark, error,"
        "  CASE WHEN confirmed_at IS NULL THEN refused_for ELSE '' END AS refused_for FROM deliveries)"
        f" WHERE study IN ({marks}) AND (remark <> '' OR refused_for <> '') ORDER BY study, file, destination",
        tuple(rows),
    )
    return [DeliveryWords(**dict(row)) for row in found]
