"""The centre's HTTP face: the page, the same as JSON, metrics, and the collector's own health."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import psycopg
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from outpost import __version__, errand
from outpost.api.limits import tell_limits
from outpost.codes.answers import both
from outpost.codes.found import in_russian
from outpost.errand import Errand
from outpost.fleet import page, view
from outpost.fleet.asking import asking
from outpost.fleet.collector import Collector
from outpost.fleet.config import FleetConfig
from outpost.fleet.metrics import exposition
from outpost.fleet.sync import CentreError
from outpost.options import Language
from outpost.web.page import Page, language_of, static_page
from outpost.web.shield import shield
from outpost.web.tokens import Guard

log = logging.getLogger(__name__)

TURN_LIMIT_SECONDS = 30.0
HEALTH_KEPT_SECONDS: Final = 1.0
PAGE_STUDIES = 20
# What to do, in English and Russian.
_STUCK: Final = (
    "systemd's watchdog restarts the unit; report the log.",
    "Служба systemd перезапустит сборщик сама; сообщите инженеру вместе с журналом.",
)
_NO_DATABASE: Final = (
    "Look at PostgreSQL on this host; run the playbook centre.yml again.",
    "Посмотрите PostgreSQL на этом сервере; запустите плейбук centre.yml ещё раз.",
)
# The watchdog's question; without a token the answer has no words of the database.
OPEN: Final = frozenset({"/health"})


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the verdict, in the form every part of Outpost answers with."""

    code: str
    ok: bool
    value: str | float
    wanted: str
    remedy: str
    remedy_ru: str = ""
    value_ru: str | float = ""
    wanted_ru: str = ""

    def __post_init__(self) -> None:
        """What was found and is wanted, in Russian."""
        object.__setattr__(self, "value_ru", in_russian(self.value))
        object.__setattr__(self, "wanted_ru", in_russian(self.wanted))


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old what the centre knows is, region by region."""

    statement: str
    regions: list[view.Region]


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """Whether each system of each region works, what is worst first."""

    statement: str
    systems: list[view.Health]


@dataclass(frozen=True, slots=True)
class Studies:
    """Studies and totals, with the statement of how many regions they speak for."""

    statement: str
    summary: list[view.Counted]
    marked: list[view.Marked]
    studies: list[view.Study]


def create_app(config: FleetConfig, collector: Collector) -> FastAPI:
    """The application; reads the centre's database anew for each request."""
    app = FastAPI(
        title="Outpost fleet",
        version=__version__,
        description="What all regions did, and how old that knowledge is. No answer waits for a region.",
        # FastAPI's own /docs loads its scripts from a CDN, which the centre's network does not reach.
        openapi_url=None,
    )
    guard = Guard(config.api.tokens, open_to_all=config.api.open)
    read = [Depends(guard.needs("read"))]
    shield(app, guard, open_paths=OPEN, hosts=config.api.hosts)

    tell_limits(app)
    database = _Database(config)

    def reading() -> AbstractContextManager[psycopg.Connection]:
        return asking(config.centre, "page")

    @app.exception_handler(CentreError)
    @app.exception_handler(psycopg.Error)
    def database_fault(request: Request, fault: Exception) -> Response:
        text = " ".join(str(fault).split())
        log.warning("%s not answered: %s", request.url.path, text)
        if request.url.path == "/":
            return Page(page.render_fault(text, datetime.now(UTC), language(request)), status_code=503)
        return JSONResponse(both(text), status_code=503)

    @app.get("/", include_in_schema=False, dependencies=read)
    def show(request: Request) -> Page:
        with reading() as connection:
            return Page(
                page.render(
                    view.freshness(connection),
                    view.summary(connection),
                    view.newest_studies(connection, None, PAGE_STUDIES),
                    datetime.now(UTC),
                    view.marked(connection),
                    view.health(connection),
                    language(request),
                    view.removed(connection),
                )
            )

    @app.get("/openapi.json", include_in_schema=False, dependencies=read)
    def schema() -> dict[str, Any]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=read)
    def docs() -> Page:
        return static_page("outpost.web", "docs.html")

    @app.get("/health.json", dependencies=read)
    def fleet_health() -> FleetHealth:
        """Every system of every region: green, amber or red, why in words (English and Russian), since when."""
        with reading() as connection:
            return FleetHealth(view.headline(view.freshness(connection)), view.health(connection))

    @app.get("/freshness.json", dependencies=read)
    def freshness() -> Freshness:
        """Every attached region with its state, age and the reason in words."""
        with reading() as connection:
            regions = view.freshness(connection)
        return Freshness(view.headline(regions), regions)

    @app.get("/studies.json", dependencies=read)
    def studies(region: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Studies:
        """Totals of all regions, what results say of themselves, and the studies received last (of one, if named)."""
        with reading() as connection:
            return Studies(
                view.headline(view.freshness(connection)),
                view.summary(connection),
                view.marked(connection),
                view.newest_studies(connection, region, limit),
            )

    @app.get("/metrics", include_in_schema=False, dependencies=read)
    def metrics() -> Response:
        until = config.api.tls.until() if config.api.tls is not None else None
        try:
            with reading() as connection:
                body = exposition(
                    view.freshness(connection),
                    view.summary(connection),
                    collector,
                    view.marked(connection),
                    view.health(connection),
                    until,
                )
        except (CentreError, psycopg.Error) as fault:
            log.warning("metrics without the database: %s", " ".join(str(fault).split()))
            body = exposition(None, [], collector, certificate_until=until)
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/health")
    def health(request: Request) -> JSONResponse:
        """Whether the collector does its work; regions that are off do not make it unhealthy."""
        checks = _checks(database, collector)
        if request.state.caller is None:
            checks = [
                replace(check, value="" if check.ok else "see the log, or ask with a token")
                for check in checks
            ]
        ok = all(check.ok for check in checks)
        verdict: dict[str, Any] = {
            "status": "ok" if ok else "failed",
            "checks": [asdict(check) for check in checks],
        }
        return JSONResponse(verdict, status_code=200 if ok else 503)

    return app


def language(request: Request) -> Language:
    """The language of the page: `?lang=`, else the browser's."""
    return language_of(request.query_params.get("lang"), request.headers.get("accept-language", ""))


class _Database:
    """Whether the centre's database answers. Health is asked without a token: however often, it asks once a second."""

    def __init__(self, config: FleetConfig) -> None:
        self._centre = config.centre
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._fault: str | None = None

    def fault(self) -> str | None:
        """What is wrong, in words; None where it answers."""
        with self._lock:
            if time.monotonic() - self._asked_at > HEALTH_KEPT_SECONDS:
                self._fault = self._ask()
                self._asked_at = time.monotonic()
            return self._fault

    def _ask(self) -> str | None:
        try:
            # An errand of its own: the answer is for all that wait, whoever of them goes.
            with errand.of(Errand(None)), asking(self._centre, "health", 5) as connection:
                connection.execute("SELECT 1 FROM fleet.settings")
        except (CentreError, psycopg.Error) as error:
            return " ".join(str(error).split())
        return None


def _checks(database: _Database, collector: Collector) -> list[Check]:
    idle = collector.idle_seconds
    stuck = collector.stuck_regions
    return [
        _database_check(database, collector),
        Check(
            "FLEET_COLLECTOR_TURNS",
            idle <= TURN_LIMIT_SECONDS,
            round(idle, 1),
            f"<= {TURN_LIMIT_SECONDS:g} s since the last turn",
            *(("", "") if idle <= TURN_LIMIT_SECONDS else _STUCK),
        ),
        Check(
            "FLEET_REGIONS_END",
            not stuck,
            ", ".join(stuck) or "none",
            "no region long past its deadline",
            *(("", "") if not stuck else _STUCK),
        ),
    ]


def _database_check(database: _Database, collector: Collector) -> Check:
    fault = database.fault() or collector.fault
    return Check(
        "FLEET_DATABASE",
        fault is None,
        fault or "answers",
        "answers",
        *(("", "") if fault is None else _NO_DATABASE),
    )
