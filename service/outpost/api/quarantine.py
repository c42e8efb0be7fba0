"""The routes of quarantine: read looks, admin acts, and only admin sees who the patient is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response, params
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import AfterValidator

from outpost.quarantine.again import CannotResubmit
from outpost.quarantine.desk import Desk, Format
from outpost.quarantine.look import Busy, CannotLook
from outpost.quarantine.shelf import NoSuchItem
from outpost.reasons import Language
from outpost.web.page import Page

_REASON = Query(pattern=r"^[A-Za-z0-9_.:-]{1,80}$", description="a reason code")
_SENDER = Query(max_length=16, description="an AE title, or stow")


def _of_our_time(moment: datetime | None) -> datetime | None:
    """Years that every time zone, and every number of days before, has a date for."""
    if moment is not None and not 1990 <= moment.year <= 2200:
        raise ValueError(f"the year {moment.year} is not one of 1990 to 2200: correct it")
    return moment


_MOMENT = AfterValidator(_of_our_time)


def add_quarantine(
    app: FastAPI, desk: Desk, read: Sequence[params.Depends], admin: Sequence[params.Depends]
) -> None:
    """Add the routes under /quarantine, and the one that has any study computed again."""

    @app.get("/quarantine", tags=["quarantine"], dependencies=read)
    def listed(
        reason: Annotated[str | None, _REASON] = None,
        sender: Annotated[str | None, _SENDER] = None,
        since: Annotated[datetime | None, _MOMENT] = None,
        after: str | None = None,
        gone: bool = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        """What ended without a result, newest first. Page on with `after`; `gone` shows also what has left."""
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=UTC)
        with _Told():
            return desk.listed(reason=reason, sender=sender, since=since, after=after, gone=gone, limit=limit)

    @app.get("/quarantine/reasons", tags=["quarantine"], dependencies=read)
    def reasons() -> list[dict[str, Any]]:
        """What quarantine holds of each reason, what it may hold, and what its quota has removed."""
        return desk.reasons()

    @app.get("/quarantine/report", tags=["quarantine"], dependencies=read, response_class=Response)
    def report(
        days: Annotated[int, Query(ge=1, le=3660)] = 30,
        until: Annotated[datetime | None, _MOMENT] = None,
        format: Format = "html",
        language: Language = "en",
    ) -> Response:
        """Who sends what cannot be used: as a page to forward, as text, or as data."""
        until = until or datetime.now(UTC)
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        made = desk.report(until - timedelta(days=days), until, format, language)
        if isinstance(made, str):
            return Page(made) if format == "html" else PlainTextResponse(made)
        return JSONResponse(jsonable_encoder(made))

    @app.get("/quarantine/{item}", tags=["quarantine"], dependencies=read)
    def show(item: str) -> dict[str, Any]:
        """One item with what its header says of the image; not who the patient is."""
        with _Told():
            return desk.show(item)

    @app.get("/quarantine/{item}/identity", tags=["quarantine"], dependencies=admin)
    def identity(item: str) -> dict[str, Any]:
        """The same with who the patient is."""
        with _Told():
            return desk.show(item, identity=True)

    @app.get(
        "/quarantine/{item}/thumbnail.png", tags=["quarantine"], dependencies=read, response_class=Response
    )
    def thumbnail(item: str, image: Annotated[int | None, Query(ge=0)] = None) -> Response:
        """The middle image, or the one of this number, so small that nothing written into it can be read."""
        with _Told():
            return _png(desk.picture(item, image))

    @app.get("/quarantine/{item}/image.png", tags=["quarantine"], dependencies=admin, response_class=Response)
    def image(item: str, image: Annotated[int | None, Query(ge=0)] = None) -> Response:
        """The same larger, with whatever is written into the pixels."""
        with _Told():
            return _png(desk.picture(item, image, large=True))

    @app.post("/quarantine/{item}/resubmit", tags=["quarantine"], dependencies=admin)
    def resubmit(request: Request, item: str, skip_filter: bool = False) -> dict[str, Any]:
        """Back into the queue as if it had come now; `skip_filter` overrules the filter. Written down."""
        with _Told():
            return desk.resubmit(item, skip_filter=skip_filter, who=_who(request))

    @app.post("/studies/{study_uid}/resubmit", tags=["studies"], dependencies=admin)
    def recompute(request: Request, study_uid: str, skip_filter: bool = False) -> dict[str, Any]:
        """Compute any ended study again, also one that was delivered on a reduced rung."""
        with _Told():
            return desk.resubmit(study_uid, skip_filter=skip_filter, who=_who(request))

    @app.get(
        "/quarantine/{item}/export.tar", tags=["quarantine"], dependencies=admin, response_class=Response
    )
    def export(item: str) -> StreamingResponse:
        """The images as they came, with a manifest. They hold patient data: answer for where they go."""
        with _Told():
            return StreamingResponse(
                desk.archive(item),
                media_type="application/x-tar",
                headers={"Content-Disposition": f'attachment; filename="{item}.tar"'},
            )


class _Told:
    """What quarantine cannot do, as HTTP says it."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case NoSuchItem():
                raise HTTPException(404, str(error)) from None
            case CannotResubmit():
                raise HTTPException(409, str(error)) from None
            case Busy():
                raise HTTPException(503, str(error)) from None
            case CannotLook():
                raise HTTPException(422, str(error)) from None


def _png(picture: bytes) -> Response:
    return Response(picture, media_type="image/png")


def _who(request: Request) -> str:
    """The name of the token; empty where the API is open to all."""
    return str(request.state.caller.name)
