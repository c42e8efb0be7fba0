"""What every request passes before a route sees it, and every answer before it leaves.

Closed by default: a route that is not named as open wants a token, one that names no role wants an administrator's, and
a path that does not exist tells so only to who may read. Nothing here waits for anything.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Collection, Iterable, MutableMapping
from ipaddress import IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outpost.codes.answers import both, russian
from outpost.web.page import EVERY_ANSWER, NOTHING
from outpost.web.tokens import Caller, Denied, Guard

log = logging.getLogger(__name__)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]{1,253})(?::[0-9]{1,5})?")
_FOR_PEOPLE: Final = (
    "\n\nIn a browser: reload this page, write any user name, and the token as the password. On the controller "
    "`ansible-playbook playbooks/tokens.yml` prints the tokens."
    "\nВ браузере: обновите страницу, введите любое имя пользователя, а вместо пароля - токен. На управляющей машине "
    "токены печатает `ansible-playbook playbooks/tokens.yml`.\n"
)


def shield(app: FastAPI, guard: Guard, *, open_paths: Collection[str], hosts: Iterable[str]) -> None:
    """Put the shield before the application's routes.

    Args:
        app: the application.
        guard: who may ask.
        open_paths: paths of routes, as they are declared, that are open to all.
        hosts: further names and addresses under which this server is called.
    """
    app.add_exception_handler(HTTPException, _not_done)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_middleware(_Shield, routes_of=app, guard=guard, open_paths=frozenset(open_paths), hosts=hosts)


def needed(app: FastAPI, scope: MutableMapping[str, Any], open_paths: Collection[str]) -> str | None:
    """The role that this request needs; None where it is open to all."""
    for route in app.routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            if getattr(route, "path", None) in open_paths:
                return None
            if isinstance(route, APIRoute):
                asked = (getattr(one.dependency, "role", None) for one in route.dependencies)
                return next((role for role in asked if role is not None), "admin")
            return "admin"
    return "read"  # to be told that there is no such path, or no such method


class _Shield:
    def __init__(
        self, app: ASGIApp, routes_of: FastAPI, guard: Guard, open_paths: frozenset[str], hosts: Iterable[str]
    ) -> None:
        self._app = app
        self._routes_of = routes_of
        self._guard = guard
        self._open = open_paths
        own = socket.gethostname()
        self._names = {_plain(name) for name in ("localhost", own, own.partition(".")[0], *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
            return
        begun = False

        async def armed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in EVERY_ANSWER.items():
                    headers[name] = value
                headers.setdefault("Content-Security-Policy", NOTHING)
            await send(message)

        try:
            self._judge(scope)
        except Denied as denied:
            await _answer(denied, scope)(scope, receive, armed)
            return
        try:
            await self._app(scope, receive, armed)
        except Exception:
            if begun:
                raise  # the connection ends in the middle: whoever reads knows that something is missing
            log.exception("an HTTP request could not be answered")
            words = "this went wrong inside the service; its log says more"
            await _said(words, 500, Headers(scope=scope))(scope, receive, armed)

    def _judge(self, scope: Scope) -> None:
        """Raise `Denied`, or put the caller into the request's state."""
        headers = Headers(scope=scope)
        if scope["method"] not in _METHODS:
            raise Denied(405, "this method is not served here", {"Allow": "GET, HEAD, POST"})
        self._judge_host(scope, headers)
        role = needed(self._routes_of, scope, self._open)
        caller: Caller | None = None
        try:
            caller = self._guard.caller(_only(headers, "authorization"), _address(scope))
        except Denied:
            if role is not None:
                raise
        if role is not None:
            _judge_origin(scope, headers)
            self._guard.ask(caller, role)
            if caller is not None and caller.ambient:
                _judge_ambient(scope, headers, role)
        scope.setdefault("state", {})["caller"] = caller

    def _judge_host(self, scope: Scope, headers: Headers) -> None:
        """Whom the request means: another's name that leads here is how foreign pages get in (DNS rebinding)."""
        given = headers.getlist("host")
        if not given and scope.get("http_version") == "1.0":
            return  # no browser: those have said it for thirty years
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        name = _plain(found[1]) if found is not None else ""
        if name in self._names:
            return
        try:
            address = _mapped(name)
            server = scope.get("server")
            if address.is_loopback or (server is not None and address == _mapped(str(server[0]))):
                return
        except ValueError:
            pass  # a name, or nothing
        raise Denied(
            400,
            "this server does not go by the name in the Host header: add the name to api.hosts if it does",
        )


def _judge_origin(scope: Scope, headers: Headers) -> None:
    """Refuse what another site's page had a browser send; a link that a person follows to a page is let in."""
    origin = headers.getlist("origin")
    if origin and (len(origin) > 1 or not _is_own(origin[0], headers)):
        raise Denied(403, "requests from pages of other sites are not taken")
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return
    follows_link = (
        headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and scope["method"] == "GET"
        and scope["path"] in ("/", "/docs", "/drift/page", "/quarantine/report")
    )
    if not follows_link:
        raise Denied(403, "requests from pages of other sites are not taken")


def _judge_ambient(scope: Scope, headers: Headers, role: str) -> None:
    """What changes or costs something must be seen to come from a page of ours, where a browser adds the credentials.

    Over plain HTTP browsers send no Sec-Fetch-Site, and no Origin with a GET.
    """
    if scope["method"] in _SAFE and not (role == "admin" and scope["path"].startswith("/health/")):
        return
    said = headers.get("origin") or headers.get("referer")
    if headers.get("sec-fetch-site") in ("same-origin", "none") or (said and _is_own(said, headers)):
        return
    raise Denied(
        403,
        "with a user name and password this is taken from this server's own pages alone: send a Bearer token",
    )


def _is_own(url: str, headers: Headers) -> bool:
    """Whether an Origin or Referer names this server, as the request itself names it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    standard = {"http": 80, "https": 443}.get(parts.scheme)
    if standard is None or parts.hostname is None or parts.username is not None:
        return False
    named = _HOST.fullmatch(headers.get("host", ""))
    if named is None:
        return False
    own_port = int(named[0].rpartition(":")[2]) if named[0] != named[1] else standard
    return _plain(parts.hostname) == _plain(named[1]) and (port or standard) == own_port


def _answer(denied: Denied, scope: Scope) -> Response:
    headers = Headers(scope=scope)
    response = _said(denied.words, denied.status, headers, _FOR_PEOPLE if denied.status == 401 else "")
    if denied.status == 401:  # a browser asks for a name and a password
        basic = 'Basic realm="Outpost", charset="UTF-8"'
        response.headers["WWW-Authenticate"] = basic if _is_person(headers) else "Bearer"
    response.headers.update(denied.headers)
    return response


def _said(words: str, status: int, headers: Headers, more: str = "") -> Response:
    """An answer that says why not: to a person in both languages, to a program as JSON (`detail`, `detail_ru`)."""
    if not _is_person(headers):
        return JSONResponse(both(words), status)
    told = russian(words)
    return PlainTextResponse(words + (f"\n{told}" if told else "") + more, status)


def _is_person(headers: Headers) -> bool:
    """Whether a person's browser asks, going to a page."""
    return "text/html" in headers.get("accept", "")


async def _not_done(request: Request, fault: Exception) -> Response:
    """What a route says that it cannot do, and addresses that there are not."""
    assert isinstance(fault, HTTPException)
    response = _said(str(fault.detail), fault.status_code, request.headers)
    response.headers.update(fault.headers or {})
    return response


async def _not_understood(request: Request, fault: Exception) -> Response:
    """A request whose parameters are wrong: each with its name and the reason."""
    assert isinstance(fault, RequestValidationError)
    found = fault.errors()
    named = [(".".join(map(str, one["loc"][1:])) or str(one["loc"][0]), str(one["msg"])) for one in found]
    told = "; ".join(f"{name}: {russian(why) or why}" for name, why in named)
    if _is_person(request.headers):
        said = "; ".join(f"{name}: {why}" for name, why in named)
        return PlainTextResponse(f"{said}\n{told}", 422)
    return JSONResponse({"detail": jsonable_encoder(found), "detail_ru": told}, 422)


def _only(headers: Headers, name: str) -> str | None:
    """The value of a header that may come once; one that nobody knows where it comes twice."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else ("" if values else None)


def _plain(name: str) -> str:
    return name.lower().strip("[]").rstrip(".")


def _mapped(text: str) -> Any:
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client is not None else ""
