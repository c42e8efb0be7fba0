"""What stands before every route, over an application of its own: faults, routes that name no role, addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client import generate_latest

from outpost.api.metrics import Metrics
from outpost.config import Intake, Sender, Token
from outpost.intake.doors import OTHERS, Doors, Turned
from outpost.web.shield import shield
from outpost.web.tokens import Denied, Guard, digest

TOKENS = [Token(name=f"our-{role}", role=role, sha256=digest(role)) for role in ("read", "send", "admin")]  # type: ignore[arg-type]  # mypy does not see that these are the literals
SECRET = "/etc/outpost/secret of KANAREYKA"


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    guard = Guard(TOKENS)
    shield(app, guard, open_paths={"/open"}, hosts=["Named.Example."])

    @app.get("/open")
    def open_to_all() -> str:
        return "open"

    @app.get("/forgotten")
    def forgotten() -> str:
        """Whoever wrote it thought of no role."""
        return "seen"

    @app.get("/fails", dependencies=[Depends(guard.needs("read"))])
    def fails() -> str:
        raise ValueError(SECRET)

    @app.get("/breaks", dependencies=[Depends(guard.needs("read"))])
    def breaks() -> StreamingResponse:
        def pieces() -> Iterator[bytes]:
            yield b"begun"
            raise ValueError(SECRET)

        return StreamingResponse(pieces())

    return app


def ask(app: FastAPI, path: str, token: str = "", **headers: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=("10.0.0.9", 1))
        sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        async with httpx.AsyncClient(transport=transport, base_url="http://named.example") as client:
            return await client.get(path, headers=sent)

    return asyncio.run(asked())


def test_a_route_that_names_no_role_is_for_administrators(app: FastAPI) -> None:
    assert ask(app, "/forgotten").status_code == 401
    assert ask(app, "/forgotten", "read").status_code == 403
    assert ask(app, "/forgotten", "send").status_code == 403
    assert ask(app, "/forgotten", "admin").json() == "seen"
    assert ask(app, "/open").json() == "open"


def test_a_fault_tells_whoever_asks_neither_stack_nor_place_and_the_log_all(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = ask(app, "/fails", "read")
    assert answer.status_code == 500
    told = answer.json()
    assert told.pop("detail") == "this went wrong inside the service; its log says more"
    assert told == {"detail_ru": "внутренняя ошибка службы; подробности в её журнале (journalctl)"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert SECRET in caplog.text


def test_an_answer_that_breaks_off_is_not_ended_as_if_it_were_whole(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="KANAREYKA"):  # the server ends the connection at this
        ask(app, "/breaks", "read")


def test_a_websocket_is_not_opened(app: FastAPI) -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/open", "headers": [], "query_string": b"", "scheme": "ws"}
    asyncio.run(app(scope, receive, send))
    assert said == [{"type": "websocket.close", "code": 1008}]


def test_old_monitors_that_name_no_host_are_answered_and_new_ones_must_name_one() -> None:
    async def status(version: str, headers: list[tuple[bytes, bytes]]) -> int:
        app = FastAPI(openapi_url=None)
        shield(app, Guard(TOKENS), open_paths={"/open"}, hosts=[])
        app.add_api_route("/open", lambda: "open")
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "http_version": version, "method": "GET", "path": "/open", "raw_path": b"/open",
            "query_string": b"", "scheme": "http", "headers": headers, "server": ("::ffff:10.0.0.1", 80),
            "client": ("10.0.0.9", 1), "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)
        return int(said[0]["status"])

    assert asyncio.run(status("1.0", [])) == 200
    assert asyncio.run(status("1.1", [])) == 400
    assert asyncio.run(status("1.1", [(b"host", b"10.0.0.1:8080")])) == 200
    assert asyncio.run(status("1.1", [(b"host", b"10.0.0.2")])) == 400
    assert asyncio.run(status("1.1", [(b"host", b"10.0.0.1"), (b"host", b"evil.example")])) == 400


def test_guesses_from_many_addresses_take_no_memory_without_end_and_one_network_counts_once() -> None:
    guard = Guard(TOKENS)

    def guess(address: str) -> int:
        with pytest.raises(Denied) as denied:
            guard.caller("Bearer guess", address)
        return denied.value.status

    for number in range(6000):
        guess(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(guard._wrong) == 4096
    assert [guess(f"2001:db8::{number:x}") for number in range(12)][-2:] == [429, 429]
    assert guess("2001:db8:0:1::1") == 401
    assert [guess("::ffff:192.0.2.1") for _ in range(11)][-1] == 429
    assert guess("192.0.2.1") == 429
    found = guard.caller("Bearer admin", "192.0.2.1")
    assert found is not None
    assert found.role == "admin"


@pytest.mark.parametrize(
    ("sender", "address", "wanted"),
    [
        ("CT1", "10.1.2.3", True),
        ("CT1", "::ffff:10.1.2.3", True),
        ("CT1", "10.1.2.4", False),
        ("CT1", "", False),
        ("CT1", "not an address", False),
        ("MR1", "fd00::7", True),
        ("MR1", "fd00::7%eth0", True),
        ("stow", "10.9.0.1", False),
        ("stow", "10.8.0.1", True),
        ("OTHER", "10.8.0.1", True),
        ("OTHER", "10.1.2.3", False),
    ],
)
def test_where_a_sender_may_come_from(sender: str, address: str, wanted: bool) -> None:
    senders = (
        Sender(ae_title="CT1", addresses=("10.1.2.3",)),
        Sender(ae_title="MR1", addresses=("10.1.2.3", "fd00::/64")),
        Sender(ae_title="*", addresses=("10.8.0.0/16",)),
    )
    assert Intake(senders=senders).may_come_from(sender, address) is wanted


def test_a_sender_of_whom_no_address_is_known_may_come_from_anywhere() -> None:
    assert Intake(senders=(Sender(ae_title="CT1", character_set="cp1251"),)).may_come_from("CT1", "10.0.0.1")
    assert Intake().may_come_from("CT1", "")


def test_refused_callers_are_counted_one_by_one_and_no_flood_of_names_takes_memory() -> None:
    doors = Doors()
    for _ in range(3):
        doors.turned_away("association", Turned.CALLED_AE_UNKNOWN, "whom it calls", "CT1", "10.0.0.1")
    doors.turned_away("association", Turned.CALLING_AE_UNKNOWN, "who it is", 'A\nB"', "10.0.0.2")
    for number in range(500):
        doors.turned_away("association", Turned.CALLING_AE_UNKNOWN, "who it is", f"X{number}", "10.0.0.3")
    counted = doors.of_callers()
    assert counted["CT1", "10.0.0.1", "CALLED_AE_UNKNOWN"] == 3
    assert counted['A?B"', "10.0.0.2", "CALLING_AE_UNKNOWN"] == 1
    assert counted[OTHERS, "", "CALLING_AE_UNKNOWN"] == 500 - 198
    assert len(counted) == 201
    told = Metrics()
    told.follow_doors(doors)
    assert (
        'outpost_associations_refused_total{address="10.0.0.1",calling_ae_title="CT1",reason="CALLED_AE_UNKNOWN"} 3.0'
        in generate_latest(told.registry).decode()
    )
