"""What an HTTP client can spend of a listener: real connections, real requests, limits made short for the test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from running import wait_for

from outpost import errand
from outpost.api import limits
from outpost.api.limits import LimitedServer, Limits, tell_limits

SHORT = Limits(
    connections=24,
    per_peer=12,
    reserved=8,
    head_seconds=0.8,
    keep_alive_seconds=1,
    stall_seconds=1.0,
    least_rate=100,
    linger_seconds=0.5,
    pace=200,
    burst=400,
)


class Listener:
    """The listener of the service over an application of the test's."""

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None = None) -> None:
        self.turned: Counter[str] = Counter()
        self.begun = self.ended = self.abandoned = 0
        self.bodies: list[int] = []
        self.server = LimitedServer(self._app(), limits, self._turned_away, tls)
        self._bound = socket.create_server(("127.0.0.1", 0))
        self.port = self._bound.getsockname()[1]
        self._thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self._bound]}, daemon=True
        )
        self._thread.start()
        wait_for(lambda: self.server.started, 5, "it listens")

    def _turned_away(self, reason: str, words: str, address: str, times: int = 1) -> None:
        assert words
        assert address
        self.turned[reason] += times

    def _app(self) -> FastAPI:
        app = FastAPI()
        tell_limits(app)

        @app.get("/v2/health/live")
        async def live() -> dict[str, bool]:
            return {"live": True}

        @app.get("/v2/health/ready")
        def ready() -> dict[str, bool]:
            return {"ready": True}

        @app.get("/studies")
        def studies(mib: int = 0) -> str:
            return "x" * (mib << 20)

        @app.get("/drift/page")
        def page(seconds: float = 5) -> str:
            self.begun += 1
            until = time.monotonic() + seconds
            try:
                while time.monotonic() < until:
                    errand.go_on()
                    time.sleep(0.01)
            except errand.Abandoned:
                self.abandoned += 1
                raise
            self.ended += 1
            return "done"

        @app.post("/dicom-web/studies")
        async def store(request: Request) -> int:
            size = 0
            async for piece in request.stream():
                size += len(piece)
            self.bodies.append(size)
            return size

        @app.post("/refuses")
        async def refuses() -> JSONResponse:
            return JSONResponse({"detail": "the token is not known"}, 401)

        @app.post("/resubmit")
        def resubmit() -> str:
            return "done"

        return app

    def connect(self, *, source: str = "127.0.0.1") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), source_address=(source, 0))
        connection.settimeout(5)
        return connection

    def get(self, path: str, timeout: float = 10) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    listener = Listener(getattr(request, "param", SHORT))
    yield listener
    listener.stop()


def closed_after(connection: socket.socket, seconds: float, drip: bytes = b"") -> float:
    """Seconds until the peer closed, while one byte of `drip` after the other is sent."""
    begun = time.monotonic()
    connection.settimeout(0.1)
    rest = iter(drip)
    while time.monotonic() - begun < seconds:
        try:
            if (byte := next(rest, None)) is not None:
                connection.sendall(bytes((byte,)))
            data = connection.recv(65536)
            if not data:
                return time.monotonic() - begun
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - begun
    raise AssertionError(f"open for more than {seconds} s")


@pytest.mark.parametrize(
    "drip",
    [
        b"",
        b"GET /studies HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 400,
        b"G" * 400,
    ],
    ids=["silent", "headers", "no line end"],
)
def test_a_head_that_does_not_end_is_not_waited_for(listener: Listener, drip: bytes) -> None:
    with listener.connect() as slow:
        assert 0.5 < closed_after(slow, 5, drip) < 3
    wait_for(lambda: listener.turned["REQUEST_LATE"] == 1, 3, "it is told")


def test_a_second_head_on_an_open_connection_has_no_more_time(listener: Listener) -> None:
    with listener.connect() as slow:
        slow.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in slow.recv(65536)
        assert closed_after(slow, 5, b"GET /v2/health/live HTTP/1.1\r\n" + b"X-A: b\r\n" * 400) < 3


def test_a_body_that_comes_in_drops_is_ended_and_a_slow_line_is_not(listener: Listener) -> None:
    head = b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n"
    with listener.connect() as drops, listener.connect() as line:
        drops.sendall(head)
        line.sendall(head)
        gone = threading.Thread(target=lambda: lasted.append(closed_after(drops, 8, b"x" * 60)))
        lasted: list[float] = []
        gone.start()
        for _ in range(20):  # 500 bytes a second, for four times as long as a stall
            line.sendall(b"y" * 100)
            time.sleep(0.2)
        assert b"200 OK" in line.recv(65536)
        gone.join()
    assert lasted[0] < 4
    assert listener.bodies == [2000]
    assert listener.turned["TOO_SLOW"] == 1


def test_an_answer_that_nobody_reads_is_not_kept(listener: Listener) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", listener.port))
        slow.sendall(b"GET /studies?mib=16 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: listener.turned["TOO_SLOW"], 8, "it is ended")
    wait_for(lambda: not listener.server.server_state.connections, 3, "nothing is left of it")


@pytest.mark.parametrize(
    ("size", "query", "status"),
    [(300_000, "", b" 401 "), (30_000_000, "", b" 413 "), (300_000, "?" + "x" * 20_000, b" 414 ")],
)
def test_who_is_refused_while_it_sends_a_body_is_told_why(size: int, query: str, status: bytes) -> None:
    """As an archive does that sends a study with a wrong token: all of the body, and only then it reads."""
    listener = Listener(replace(SHORT, linger_seconds=10))
    head = f"POST /refuses{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    answer = b""
    try:
        with listener.connect() as connection:
            connection.sendall(head.encode())
            for _ in range(size // 100_000):
                connection.sendall(bytes(100_000))
            while piece := connection.recv(4096):
                answer += piece
    finally:
        listener.stop()
    assert status in answer.partition(b"\r\n")[0]
    assert b"connection: close" in answer.lower()


def test_a_body_behind_an_answer_is_not_read_for_ever(listener: Listener) -> None:
    with listener.connect() as endless:
        endless.sendall(b"POST /resubmit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < 8:
                endless.sendall(b"4\r\nabcd\r\n")
                time.sleep(0.01)
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /studies HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /studies?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"POST /resubmit HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"413"),
        (b"GET /studies HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40000 + b"\r\n\r\n", b"431"),
        (b"\r\n" * 30000, b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
    ids=["headers", "target", "body", "head", "empty lines", "tls"],
)
def test_what_is_too_large_is_refused_in_words(listener: Listener, head: bytes, status: bytes) -> None:
    with listener.connect() as one:
        one.sendall(head)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 " + status)


def test_connections_of_one_address_leave_room_for_health_and_for_others(listener: Listener) -> None:
    held = [listener.connect(source="127.0.0.9") for _ in range(12)]
    for one in held:  # each is in the middle of a body, and lawful
        one.sendall(b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        one.sendall(b"x" * 300)
    wait_for(lambda: len(listener.server.server_state.connections) == 12, 3, "all are in")
    with listener.connect(source="127.0.0.9") as more:
        more.sendall(b"GET /studies HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while piece := more.recv(65536):
            answer += piece
        assert b" 503 " in answer
        assert b"12 of one address at most" in answer
    with listener.connect(source="127.0.0.9") as health:
        health.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in health.recv(65536)
    assert listener.get("/studies").status_code == 200, "another address is not touched"
    for one in held:
        one.close()


def test_an_idle_connection_gives_way_to_one_that_asks(listener: Listener) -> None:
    idle = [listener.connect() for _ in range(12)]
    for one in idle:
        one.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in one.recv(65536)
    assert listener.get("/studies").status_code == 200
    for one in idle:
        one.close()


def test_what_costs_much_is_done_one_at_a_time_and_given_up_when_the_client_has_gone(
    listener: Listener,
) -> None:
    asking = [listener.connect() for _ in range(8)]
    for one in asking:
        one.sendall(b"GET /drift/page?seconds=20 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: listener.begun, 3, "one is worked on")
    assert listener.get("/v2/health/ready", timeout=2).status_code == 200
    assert listener.get("/studies", timeout=2).status_code == 200
    assert listener.begun == 1
    for one in asking:
        one.close()
    wait_for(lambda: listener.abandoned, 3, "it is given up")
    time.sleep(0.3)
    assert (listener.begun, listener.ended) == (1, 0), "whoever went while waiting costs nothing"


def test_an_answer_that_takes_too_long_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COSTLY", replace(limits.COSTLY, work_seconds=0.3))
    listener = Listener(SHORT)
    try:
        answer = listener.get("/drift/page?seconds=5")
        assert answer.status_code == 422
        assert "longer than 0.3 s" in answer.json()["detail"]
        assert "shorter period" in answer.json()["detail"]
    finally:
        listener.stop()


@pytest.mark.parametrize("listener", [replace(SHORT, pace=40, burst=20)], indirect=True)
def test_a_flood_of_requests_goes_no_faster_than_its_pace_and_health_is_answered(listener: Listener) -> None:
    answered: list[float] = []
    until = time.monotonic() + 2

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.port}", timeout=10) as client:
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    client.get("/studies")
                    answered.append(time.monotonic())

    flood = [threading.Thread(target=ask) for _ in range(6)]
    for one in flood:
        one.start()
    slowest = 0.0
    while time.monotonic() < until - 0.5:
        begun = time.monotonic()
        assert listener.get("/v2/health/live", timeout=2).status_code == 200
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.1)
    for one in flood:
        one.join()
    assert len(answered) < 20 + 40 * 3
    assert slowest < 2


def test_silent_connections_without_end_cost_no_place(listener: Listener) -> None:
    """More than there is room for, from the address of whoever watches this host."""
    silent: list[socket.socket] = []
    for _ in range(400):
        silent.append(listener.connect())
    assert listener.get("/v2/health/ready").status_code == 200
    assert listener.get("/studies").status_code == 200
    assert listener.server.waiting <= SHORT.connections
    wait_for(lambda: listener.turned["TOO_MANY_CONNECTIONS"] > 300, 3, "they are told")
    for one in silent:
        one.close()


def test_it_ends_while_clients_hang_at_every_point(listener: Listener) -> None:
    hanging: list[Any] = [listener.connect() for _ in range(4)]
    hanging[1].sendall(b"GET /studies HTTP/1.1\r\nHo")
    hanging[2].sendall(b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
    hanging[3].sendall(b"GET /drift/page?seconds=30 HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.3)
    begun = time.monotonic()
    listener.stop()
    assert time.monotonic() - begun < 10
    for one in hanging:
        one.close()
