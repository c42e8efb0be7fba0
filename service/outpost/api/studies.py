"""The routes of studies and events: where each study is, what its result says of itself, and why it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, params

from outpost.records.explained import deliveries, explained
from outpost.records.journal import Journal
from outpost.records.said import newest

State = Literal["receiving", "complete", "inferring", "delivering", "delivered", "rejected", "quarantined"]


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
        return explained(journal, newest(journal, state=state, marked=marked, held=held, limit=limit))

    @app.get("/studies/{study_uid}", tags=["studies"], dependencies=read)
    def study(study_uid: str) -> dict[str, Any]:
        """Every revision of one study, with how far its results have come and what destinations said of them."""
        revisions = journal.revisions(study_uid)
        if not revisions:
            raise HTTPException(404, "no study with this Study Instance UID was received here")
        rows = explained(journal, revisions)
        for row, record in zip(rows, revisions, strict=True):
            row["deliveries"] = deliveries(journal, record.row)
        return {"study_uid": study_uid, "revisions": rows}
