"""The routes of drift: alarms, the page, this host's sketch for the centre, and a new reference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response, params

from outpost.config import Config
from outpost.drift import view
from outpost.drift.book import BookUnusable
from outpost.drift.keeper import Keeper, limits_of
from outpost.web.page import Page, language_of

# Longer is what a reference is made of by nobody; a period is read day by day.
_MOST_DAYS = 1100

_FROM = Query(alias="from", description="first day, YYYY-MM-DD")
_TO = Query(alias="to", description="last day, YYYY-MM-DD")


def add_drift(
    app: FastAPI,
    config: Config,
    keeper: Keeper | None,
    read: Sequence[params.Depends],
    admin: Sequence[params.Depends],
) -> None:
    """Add the routes under /drift; 404 where drift is not watched."""

    def kept() -> Keeper:
        if keeper is None:
            raise HTTPException(404, "drift is not watched here: set drift.enabled")
        return keeper

    @app.get("/drift", tags=["drift"], dependencies=read)
    def status() -> dict[str, Any]:
        """Alarms that go on and that have been, and what the last weeks are held against."""
        register = kept().register
        return view.status(kept().reference(), register.judged, register.all)

    @app.get("/drift/page", tags=["drift"], dependencies=read, response_class=Response)
    def page(request: Request) -> Page:
        """Each tag of each sender over time beside the reference, with plots."""
        today = datetime.now(UTC).date()
        held = kept()
        return Page(
            view.page(
                config.system,
                held.shelf,
                held.reference(),
                held.register.all,
                limits_of(config.drift),
                today,
                language_of(request.query_params.get("lang"), request.headers.get("accept-language", "")),
            )
        )

    @app.get("/drift/sketch", tags=["drift"], dependencies=read, response_class=Response)
    def sketch(first: Annotated[date, _FROM], last: Annotated[date, _TO]) -> Response:
        """The sketches of a period, for `outpost drift merge` elsewhere; rare values are not named."""
        _checked(first, last)
        book = kept().shelf.period(first, last).for_others()
        return Response(book.encode(), media_type="application/gzip")

    @app.post("/drift/freeze", tags=["drift"], dependencies=admin)
    def freeze(first: Annotated[date, _FROM], last: Annotated[date, _TO]) -> dict[str, Any]:
        """Make the reference of a period of usual work. Open alarms end: they were against the old one."""
        _checked(first, last)
        try:
            book = kept().freeze(first, last)
        except (ValueError, BookUnusable) as error:
            raise HTTPException(409, str(error)) from None
        return view.status(book, kept().register.judged, kept().register.all)


def _checked(first: date, last: date) -> None:
    """Answers 422 where the period is none, or longer than one may ask for."""
    days = (last - first).days + 1
    if days < 1:
        raise HTTPException(422, f"from {first} is later than to {last}: exchange them")
    if days > _MOST_DAYS:
        raise HTTPException(
            422,
            f"{first} to {last} are {days} days, at most {_MOST_DAYS} are read at a time: ask for a shorter period",
        )
