"""Studies as JSON says them: their journal rows with every code in words, for the API and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from outpost.codes.answers import said
from outpost.codes.found import detail_ru
from outpost.codes.held import HELD
from outpost.codes.notes import NOTES, Note, NoteText, is_doubtful, is_partial
from outpost.reasons import explain
from outpost.records.journal import Journal, StudyRecord
from outpost.records.said import DeliveryWords, delivery_words, notes_of

_TEXTS = ("meaning", "remedy", "meaning_ru", "remedy_ru")


def explained(journal: Journal, records: Sequence[StudyRecord]) -> list[dict[str, Any]]:
    """Each study with its outcome, its notes, why it waits and what destinations said of its results."""
    words = delivery_words(journal, [record.row for record in records])
    return [
        _study(record) | {"delivery_words": [_words(word) for word in words if word.study == record.row]}
        for record in records
    ]


def _words(word: DeliveryWords) -> dict[str, str]:
    error = word.error if word.refused_for else ""
    return {
        "destination": word.destination,
        "remark": word.remark,
        "refused_for": word.refused_for,
        "error": error,
        "error_ru": said(error, "ru"),
    } | _texts(explain(word.refused_for))


def deliveries(journal: Journal, row: int) -> list[dict[str, Any]]:
    """How far each result of a study has come at each destination, with what was said of it."""
    words = {(w.file, w.destination): w for w in delivery_words(journal, [row])}
    found = []
    for delivery in journal.deliveries(row):
        word = words.get((delivery.file, delivery.destination))
        found.append(
            asdict(delivery)
            | {"remark": word.remark if word else "", "refused_for": word.refused_for if word else ""}
        )
    return found


def _study(record: StudyRecord) -> dict[str, Any]:
    notes = notes_of(record)
    return (
        asdict(record)
        | {
            "outcome": record.outcome,
            "notes": [_note(note) for note in notes],
            "partial": is_partial(notes),
            "doubtful": is_doubtful(notes),
            "held": _held(record),
            "detail_ru": detail_ru(record.detail),
        }
        | _texts(explain(record.reason))
    )


def _note(note: Note) -> dict[str, str]:
    """A note with its texts. What the pixel verdict found has those of its reason code."""
    text: NoteText | None = next((text for code, text in NOTES.items() if code == note.code), None)
    words = _texts(text or explain(note.code))
    return {
        "code": note.code,
        "kind": text.kind if text else "remark",
        "short": text.short if text else words["meaning"],
        "detail": note.detail,
        "detail_ru": detail_ru(note.detail),
        **words,
    }


def _held(record: StudyRecord) -> dict[str, str] | None:
    """What a study waits for; None where it does not wait, or no longer."""
    if not record.held_for or record.outcome != "pending":
        return None
    return {"code": record.held_for, **_texts(HELD.get(record.held_for) or explain(record.held_for))}


def _texts(reason: object) -> dict[str, str]:
    return {name: getattr(reason, name, "") for name in _TEXTS}
