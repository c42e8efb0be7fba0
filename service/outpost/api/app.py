"""The routes. Handlers that touch the journal are plain functions: FastAPI runs them in threads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from fastapi import Depends, FastAPI, HTTPException, Request, Response, params
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from outpost import __version__
from outpost.api.dicomweb import add_dicomweb
from outpost.api.drift import add_drift
from outpost.api.ladder import add_ladder
from outpost.api.limits import tell_limits
from outpost.api.metrics import Metrics
from outpost.api.quarantine import add_quarantine
from outpost.api.studies import add_studies
from outpost.config import Config
from outpost.drift.keeper import Keeper
from outpost.health.verdict import Health, Verdict
from outpost.intake.assembly import Assembly
from outpost.intake.doors import Doors
from outpost.intake.spool import Spool
from outpost.pipeline import Pipeline
from outpost.quarantine.desk import Desk
from outpost.records.journal import Journal
from outpost.records.readonly import Questions
from outpost.web.page import Page, static_page
from outpost.web.shield import shield
from outpost.web.tokens import Guard

# Balancers, watchdogs and systemd ask these: they name no study, and no place on this host.
OPEN: Final = frozenset({"/v2/health/live", "/v2/health/ready", "/v2/models/{name}/ready", "/health/light"})
# Places on this host, and identifiers of DICOM, in what a check has found.
_NOT_FOR_ALL: Final = re.compile(r"(?<![\w:/.])/[\w.@+-]+(?:/[\w.@+-]*)*|\b[0-9]+(?:\.[0-9]+){5,}\b")


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
    pipeline: Pipeline | None = None,
) -> FastAPI:
    """The HTTP application of one running service. `model` is the name of its bundle; `doors` counts refusals."""
    # FastAPI's own /docs loads its scripts from a CDN, which a hospital's network does not reach.
    app = FastAPI(title="Outpost", version=__version__, openapi_url=None)
    guard = Guard(config.api.tokens, open_to_all=config.api.open)
    read, send, admin = ([Depends(guard.needs(role))] for role in ("read", "send", "admin"))
    shield(app, guard, open_paths=OPEN, hosts=config.api.hosts)
    tell_limits(app)
    asking = Questions(journal)
    _add_health(app, config, model, health, admin)
    add_studies(app, asking, read)
    add_dicomweb(app, config, spool, assembly, send, doors or Doors())
    add_quarantine(app, Desk(asking, spool, assembly, config.quarantine), read, admin)
    add_drift(app, config, keeper, read, admin)
    if pipeline is not None:
        add_ladder(app, pipeline, read, admin)

    @app.get("/metrics", tags=["health"], response_class=Response, dependencies=read)
    def prometheus() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False, dependencies=read)
    def status() -> Page:
        return static_page("outpost.api", "status.html")

    @app.get("/openapi.json", include_in_schema=False, dependencies=read)
    def schema() -> dict[str, Any]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=read)
    def docs() -> Page:
        return static_page("outpost.web", "docs.html")

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
    def light(request: Request) -> JSONResponse:
        """The verdict from state that is already there; without a token it names no place on this host."""
        verdict = health.light()
        told = verdict.as_json()
        if request.state.caller is None:
            told = _for_all(told)
        return JSONResponse(told, 200 if verdict.ready else 503)

    @app.get("/health/heavy", tags=["health"], dependencies=admin)
    def heavy() -> JSONResponse:
        """Computes the golden case in its turn on the worker, then judges; takes as long as a study."""
        return _verdict(health.heavy(config.inference.timeout_seconds + 30))

    def _verdict(verdict: Verdict) -> JSONResponse:
        return JSONResponse(verdict.as_json(), 200 if verdict.ready else 503)


def _for_all(told: Any) -> Any:
    """A verdict as everybody may read it."""
    if isinstance(told, dict):
        return {key: _for_all(value) for key, value in told.items()}
    if isinstance(told, list):
        return [_for_all(value) for value in told]
    return _NOT_FOR_ALL.sub("(not shown without a token)", told) if isinstance(told, str) else told
