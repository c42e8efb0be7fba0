"""The routes of studies and events: where each study is, what its result says of itself, and why it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, params

from outpost.codes.held import HELD
from outpost.codes.notes import NOTES, Note, NoteText, is_doubtful, is_partial
from outpost.reasons import explain
from outpost.records import said
from outpost.records.journal import Journal, StudyRecord

State = Literal["receiving", "complete", "inferring", "delivering", "delivered", "rejected", "quarantined"]

_TEXTS = ("meaning", "remedy", "meaning_ru", "remedy_ru")


def add_studies(app: FastAPI, journal: Journal, read: Sequence[params.Depends]) -> None:
    """Add /events, /studies and /studies/{study_uid}."""

    @app.get("/events", tags=["health"], dependencies=read)
    def events(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        """What the service decided by itself or was told, newest first: rungs, engines, quotas, re-submissions."""
        return [asdict(event) for event in journal.events(limit)]

    @app.get("/studies", tags=["studies"], dependencies=read)
    def studies(
        state: State | None = None,
        marked: bool = False,
        held: bool = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[dict[str, Any]]:
        """Studies, newest first; `marked`: only partial or doubtful results; `held`: only studies that wait.

        Shows study UIDs: for this host's administrators.
        """
        return list_of(journal, said.newest(journal, state=state, marked=marked, held=held, limit=limit))

    @app.get("/studies/{study_uid}", tags=["studies"], dependencies=read)
    def study(study_uid: str) -> dict[str, Any]:
        """Every revision of one study, with how far its results have come and what destinations said of them."""
        revisions = journal.revisions(study_uid)
        if not revisions:
            raise HTTPException(404, "no study with this Study Instance UID was received here")
        rows = list_of(journal, revisions)
        for row, record in zip(rows, revisions, strict=True):
            words = {(w.file, w.destination): w for w in said.delivery_words(journal, [record.row])}
            row["deliveries"] = []
            for delivery in journal.deliveries(record.row):
                word = words.get((delivery.file, delivery.destination))
                row["deliveries"].append(
                    asdict(delivery)
                    | {
                        "remark": word.remark if word else "",
                        "refused_for": word.refused_for if word else "",
                    }
                )
        return {"study_uid": study_uid, "revisions": rows}


def list_of(journal: Journal, records: Sequence[StudyRecord]) -> list[dict[str, Any]]:
    """Studies as JSON says them: their journal rows, and every code in words."""
    words = said.delivery_words(journal, [record.row for record in records])
    return [
        _study(record)
        | {
            "delivery_words": [
                {"destination": w.destination, "remark": w.remark, "refused_for": w.refused_for}
                for w in words
                if w.study == record.row
            ]
        }
        for record in records
    ]


def _study(record: StudyRecord) -> dict[str, Any]:
    return (
        asdict(record)
        | {
            "outcome": record.outcome,
            "notes": [_note(note) for note in record.notes],
            "partial": is_partial(record.notes),
            "doubtful": is_doubtful(record.notes),
            "held": _held(record),
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
        **words,
    }


def _held(record: StudyRecord) -> dict[str, str] | None:
    """What a study waits for; None where it does not wait, or no longer."""
    if not record.held_for or record.outcome != "pending":
        return None
    return {"code": record.held_for, **_texts(HELD.get(record.held_for) or explain(record.held_for))}


def _texts(explained: object) -> dict[str, str]:
    return {name: getattr(explained, name, "") for name in _TEXTS}
