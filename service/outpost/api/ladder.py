"""The routes of the ladder: read looks at what is known to fail, admin has it forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, params

from outpost.pipeline import Pipeline


def add_ladder(
    app: FastAPI, pipeline: Pipeline, read: Sequence[params.Depends], admin: Sequence[params.Depends]
) -> None:
    """Add /ladder and /ladder/reset."""

    @app.get("/ladder", tags=["health"], dependencies=read)
    def ladder() -> dict[str, Any]:
        """Which rung inputs begin at, by classes of their shape, and what is known to fail until when."""
        return pipeline.ladder_status()

    @app.post("/ladder/reset", tags=["health"], dependencies=admin)
    def reset(request: Request) -> dict[str, Any]:
        """Forget what is known to fail: the next study begins at the full rung. Written down as an event."""
        return pipeline.reset_ladder(str(getattr(request.state, "token_name", "")))
