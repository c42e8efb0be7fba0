"""The routes. Handlers that touch the journal are plain functions: FastAPI runs them in threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Response, params
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from outpost import __version__
from outpost.api.dicomweb import add_dicomweb
from outpost.api.drift import add_drift
from outpost.api.metrics import Metrics
from outpost.api.quarantine import add_quarantine
from outpost.api.security import Guard
from outpost.config import Config
from outpost.drift.keeper import Keeper
from outpost.health.verdict import Health, Verdict
from outpost.intake.assembly import Assembly
from outpost.intake.doors import Doors
from outpost.intake.spool import Spool
from outpost.quarantine.desk import Desk
from outpost.reasons import explain
from outpost.records.journal import Journal, StudyRecord

State = Literal["receiving", "complete", "inferring", "delivering", "delivered", "rejected", "quarantined"]


def create_app(
    config: Config,
    model: str,
    journal: Journal,
    spool: Spool,
    assembly: Assembly,
    health: Health,
    metrics: Metrics,
    keeper: Keeper | None = None,
    doors: Doors | None = None,
) -> FastAPI:
    """The HTTP application of one running service. `model` is the name of its bundle; `doors` counts refusals."""
    # FastAPI's own /docs loads its scripts from a CDN, which a hospital's network does not reach.
    app = FastAPI(title="Outpost", version=__version__, docs_url=None, redoc_url=None)
    guard = Guard(config.api.tokens)
    read, admin = [Depends(guard.needs("read"))], [Depends(guard.needs("admin"))]
    _add_health(app, config, model, health, admin)
    _add_studies(app, journal, read)
    add_dicomweb(app, spool, assembly, admin, doors or Doors())
    add_quarantine(app, Desk(journal, spool, assembly, config.quarantine), read, admin)
    add_drift(app, config, keeper, read, admin)
    pages = files("outpost.api") / "templates"
    status_page = (pages / "status.html").read_text(encoding="utf-8")
    docs_page = (pages / "docs.html").read_text(encoding="utf-8")

    @app.get("/metrics", tags=["health"], response_class=Response, dependencies=read)
    def prometheus() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def status() -> HTMLResponse:
        return HTMLResponse(status_page)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page)

    return app


def _add_health(
    app: FastAPI, config: Config, model: str, health: Health, admin: Sequence[params.Depends]
) -> None:
    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:  # async: it answers also while every thread is busy
        """The process answers (Open Inference Protocol)."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    def ready() -> JSONResponse:
        """A golden case passed a moment ago and all a study needs is running (Open Inference Protocol)."""
        is_ready = health.light().ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/v2/models/{name}/ready", tags=["health"])
    def model_ready(name: str) -> JSONResponse:
        """The same for the one model this service runs (Open Inference Protocol)."""
        if name != model:
            raise HTTPException(404, f"no model {name!r} here; this service runs {model!r}")
        is_ready = health.light().ready
        return JSONResponse({"name": model, "ready": is_ready}, 200 if is_ready else 503)

    @app.get("/health/light", tags=["health"])
    def light() -> JSONResponse:
        """The verdict from state that is already there."""
        return _verdict(health.light())

    @app.get("/health/heavy", tags=["health"], dependencies=admin)
    def heavy() -> JSONResponse:
        """Computes the golden case in its turn on the worker, then judges; takes as long as a study."""
        return _verdict(health.heavy(config.inference.timeout_seconds + 30))

    def _verdict(verdict: Verdict) -> JSONResponse:
        return JSONResponse(verdict.as_json(), 200 if verdict.ready else 503)


def _add_studies(app: FastAPI, journal: Journal, read: Sequence[params.Depends]) -> None:
    @app.get("/events", tags=["health"], dependencies=read)
    def events(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        """What the service decided by itself or was told, newest first: rungs, engines, quotas, re-submissions."""
        return [asdict(event) for event in journal.events(limit)]

    @app.get("/studies", tags=["studies"], dependencies=read)
    def studies(
        state: State | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[dict[str, Any]]:
        """Studies, newest first. Shows study UIDs: for this host's administrators."""
        return [_study(record) for record in journal.newest(state, limit)]

    @app.get("/studies/{study_uid}", tags=["studies"], dependencies=read)
    def study(study_uid: str) -> dict[str, Any]:
        """Every revision of one study, with how far its results have come."""
        revisions = journal.revisions(study_uid)
        if not revisions:
            raise HTTPException(404, "no study with this Study Instance UID was received here")
        return {
            "study_uid": study_uid,
            "revisions": [
                _study(record) | {"deliveries": [asdict(d) for d in journal.deliveries(record.row)]}
                for record in revisions
            ],
        }


def _study(record: StudyRecord) -> dict[str, Any]:
    reason = explain(record.reason)
    return asdict(record) | {
        "outcome": record.outcome,
        "meaning": reason.meaning if reason else "",
        "remedy": reason.remedy if reason else "",
        "meaning_ru": reason.meaning_ru if reason else "",
        "remedy_ru": reason.remedy_ru if reason else "",
    }
