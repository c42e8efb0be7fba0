"""How much of the service one HTTP client can spend: connections, time, bytes, requests, and what an answer costs.

uvicorn bounds how long an idle connection stays and how large a head may be; all else is here (docs/decisions/0018):

- `LimitedServer` accepts through a `Lobby`, and looks once a second for whoever is slow.
- `LimitedProtocol` is one connection: time for the head, a least rate for a body and for reading an answer.
- `Gate` is before the application: pace of each address, and how many answers of each kind are worked on at a time.

A few connections and requests are kept for health, which is asked by whoever watches this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio.to_thread
import h11
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from outpost import errand
from outpost.api import plain
from outpost.codes.answers import both
from outpost.errand import Abandoned, Errand, TooCostly
from outpost.lobby import BACKLOG, Lobby, Room
from outpost.web.page import EVERY_ANSWER

log = logging.getLogger(__name__)


class TurnedAway(Protocol):
    """Is told of what was refused: reason (`doors.Turned`), words, address, and how many times."""

    def __call__(self, reason: str, words: str, address: str, times: int = 1) -> None: ...


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_HEALTH: Final = ("/v2/health/", "/v2/models/", "/health/light", "/health")
_TIMED_OUT: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
_LONGEST_DELAY: Final = 1.0  # seconds that a request waits for its pace
_THREADS: Final = 64  # of all sync routes, and of storing by STOW-RS
# A body is read in pieces; each costs some 0.4 ms, however small. Pieces of this size are free, a smaller one is the
# more of a whole one the smaller it is, and of these each address has so many a second (all addresses four times that).
_FREE_PIECE: Final = 4 << 10  # bytes
_SMALL_PIECES: Final = 40.0
# An answer that was worked out holds its turn so long while it is read, in seconds; what is unread then is bounded.
_READ_SECONDS: Final = 2.0
_UNREAD_BYTES: Final = 64 << 20  # of all connections, in buffers of this process
_SEND_BUFFER: Final = 256 << 10  # bytes in the kernel, of one connection
# A request that was answered and still sends is kept so long before a new one of its address takes its place, seconds.
_KEPT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one listener. `reserved` connections, of an address and in all, beyond the others answer for health only.

    `least_rate`, bytes a second over `stall_seconds`, is asked of a body and of reading an answer. `pace` is requests a
    second of one address, twice that of all.
    """

    connections: int = 256
    per_peer: int = 32
    reserved: int = 32
    head_seconds: float = 10.0
    head_bytes: int = 32 << 10
    headers: int = 100
    target_bytes: int = 8 << 10
    keep_alive_seconds: int = 5
    stall_seconds: float = 60.0
    least_rate: float = 128.0
    linger_seconds: float = 10.0
    small_body_bytes: int = 1 << 20
    pace: float = 50.0
    burst: float = 100.0
    storing: int = 16

    @classmethod
    def of(cls, connections: int, storing: int = 16) -> Limits:
        """For so many connections and STOW-RS requests at a time: what there are descriptors for."""
        reserved = min(32, connections // 8)
        most = connections - reserved
        return cls(connections=most, per_peer=max(1, most // 8), reserved=reserved, storing=storing)


@dataclass(frozen=True, slots=True)
class Kind:
    """Answers of one cost: how many are worked on at a time, how many wait, and for how long each, in seconds."""

    name: str
    at_once: int
    waiting: int
    wait_seconds: float
    work_seconds: float | None  # None: as long as it takes


HEALTH: Final = Kind("health", 8, 64, 10, None)
ORDINARY: Final = Kind("ordinary", 4, 64, 20, 20)
COSTLY: Final = Kind("costly", 1, 16, 20, 30)
METRICS: Final = Kind("metrics", 1, 8, 10, 20)
LONG: Final = Kind("long", 2, 8, 20, None)  # a golden case, an archive
STORING: Final = Kind("storing", 16, 48, 60, None)


def kind_of(method: str, path: str) -> Kind:
    """What an answer costs, by its route."""
    if path in _HEALTH or path.startswith(_HEALTH[:2]):
        return HEALTH
    if path == "/health/heavy" or path.endswith("/export.tar"):
        return LONG
    if path.startswith("/dicom-web/") and method == "POST":
        return STORING
    if path == "/metrics":
        return METRICS
    if path.startswith("/drift") or path == "/quarantine/report":
        return COSTLY
    return ORDINARY


class _Turns:
    """So many at a time, the others one after the other."""

    def __init__(self, kind: Kind, at_once: int) -> None:
        self.kind = kind
        self._free = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._of_peer: dict[str, tuple[asyncio.Semaphore, int]] = {}  # and how many hold or want it
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, peer: str) -> AsyncIterator[bool]:
        """Whether it is its turn now; False where too many wait, or it waited too long.

        One address has three quarters of the turns at most: who is slow with all of his keeps nobody else waiting.
        """
        mine, users = self._of_peer.get(peer) or (asyncio.Semaphore(max(1, self._at_once * 3 // 4)), 0)
        self._of_peer[peer] = mine, users + 1
        try:
            async with self._turn(peer, mine) as is_mine:
                yield is_mine
        finally:
            users = self._of_peer[peer][1] - 1
            if users:
                self._of_peer[peer] = mine, users
            else:
                del self._of_peer[peer]

    @asynccontextmanager
    async def _turn(self, peer: str, mine: asyncio.Semaphore) -> AsyncIterator[bool]:
        kind = self.kind
        full = self._waiting.total() >= kind.waiting or self._waiting[peer] >= max(1, kind.waiting * 3 // 4)
        if (self._free.locked() or mine.locked()) and full:
            yield False
            return
        self._waiting[peer] += 1
        try:
            async with asyncio.timeout(kind.wait_seconds):
                await mine.acquire()
                try:
                    await self._free.acquire()
                except BaseException:
                    mine.release()
                    raise
        except TimeoutError:
            yield False
            return
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]
        try:
            yield True
        finally:
            self._free.release()
            mine.release()


class _Pace:
    """Requests of one address, or of all, come through no faster than this; who is early waits."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._at = burst, time.monotonic()

    def delay(self, now: float) -> float:
        """Seconds that the next has to wait; it is counted."""
        return self.delay_of(1, now)

    def delay_of(self, cost: float, now: float) -> float:
        """Seconds that who has just taken so much of it has to wait before the next."""
        # Never further behind than this: those that waited and went must cost those behind them nothing.
        least = -_LONGEST_DELAY * self._per_second
        self._left = max(least, min(self._burst, self._left + (now - self._at) * self._per_second) - cost)
        self._at = now
        return max(0.0, -self._left / self._per_second)

    def is_full(self, now: float) -> bool:
        """Whether nobody came for a while."""
        return self._left + (now - self._at) * self._per_second >= self._burst


class Gate:
    """What stands before the application, for all connections of one listener. For its event loop alone."""

    def __init__(self, app: App, limits: Limits, turned_away: TurnedAway) -> None:
        self.limits, self.turned_away = limits, turned_away
        self._app = app
        self._turns: dict[Kind, _Turns] = {}
        self._paces: dict[tuple[str, bool], _Pace] = {}
        self._all = {health: _Pace(2 * limits.pace, 2 * limits.burst) for health in (True, False)}
        self._pieces: dict[str, _Pace] = {}
        self._all_pieces = _Pace(4 * _SMALL_PIECES, 4 * _SMALL_PIECES)

    async def __call__(self, scope: Message, receive: Receive, send: Send, at: LimitedProtocol) -> None:
        path, method = str(scope["path"]), str(scope["method"])
        kind = kind_of(method, path)
        refusal = self._refusal(scope, kind, at)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        delay = self._delay(at.peer, kind)
        if delay:
            await asyncio.sleep(delay)
        turns = self._turns.get(kind)
        if turns is None:
            turns = self._turns[kind] = _Turns(kind, min(kind.at_once, self.limits.storing))
        async with turns.turn(at.peer) as mine:
            if at.is_gone:
                return  # whoever asked has gone meanwhile
            if not mine:
                words = (
                    f"{kind.at_once} answers of this kind are worked on and others wait: ask again later, and ask less "
                    "often"
                )
                self.turned_away("TOO_MANY_REQUESTS", words, at.peer)
                await _answer(send, 503, words, {"Retry-After": "5"})
                return
            work = Errand(kind.work_seconds)
            at.errand = work
            try:
                with errand.of(work):
                    await self._app(scope, *_told_of_the_end(scope, receive, send))
            finally:
                at.errand = None
            if kind is not HEALTH:
                await at.has_read()  # an answer in memory counts until it is read

    def _refusal(
        self, scope: Message, kind: Kind, at: LimitedProtocol
    ) -> tuple[int, str, dict[str, str]] | None:
        limits, close = self.limits, {"Connection": "close"}
        if at.reserved and kind is not HEALTH:
            words = _too_many(limits)
            self.turned_away("TOO_MANY_CONNECTIONS", words, at.peer)
            return 503, words, close | {"Retry-After": "5"}
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > limits.head_bytes:
            return (
                431,
                f"the headers have {size} bytes, at most {limits.head_bytes} are read: send less",
                close,
            )
        if len(scope["headers"]) > limits.headers:
            found = len(scope["headers"])
            return (
                431,
                f"the request has {found} headers, at most {limits.headers} are read: send fewer",
                close,
            )
        target = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        if target > limits.target_bytes:
            return (
                414,
                f"the path has {target} bytes, at most {limits.target_bytes} are read: shorten it",
                close,
            )
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if kind is not STORING and length.isdigit() and int(length) > limits.small_body_bytes:
            words = (
                f"the body has {int(length)} bytes, at most {limits.small_body_bytes} are taken here: images are sent "
                "to /dicom-web/studies"
            )
            return 413, words, close
        return None

    def _delay(self, peer: str, kind: Kind) -> float:
        now, health = time.monotonic(), kind is HEALTH
        pace = self._paces.get((peer, health))
        if pace is None:
            if len(self._paces) > 4096:
                self._paces = {key: one for key, one in self._paces.items() if not one.is_full(now)}
            share = 0.5 if health else 1.0
            pace = self._paces[peer, health] = _Pace(share * self.limits.pace, share * self.limits.burst)
        # What waits in the pace of its own address does not press on that of all: a flood delays itself first.
        return pace.delay(now) or self._all[health].delay(now)

    def delay_of_piece(self, peer: str, size: int) -> float:
        """Seconds that a connection has to wait before it is read again, having brought `size` bytes of a body."""
        cost = 1 - size / _FREE_PIECE
        if cost <= 0:
            return 0.0
        now = time.monotonic()
        pace = self._pieces.get(peer)
        if pace is None:
            if len(self._pieces) > 4096:
                self._pieces = {key: one for key, one in self._pieces.items() if not one.is_full(now)}
            pace = self._pieces[peer] = _Pace(_SMALL_PIECES, _SMALL_PIECES)
        return pace.delay_of(cost, now) or self._all_pieces.delay_of(cost, now)


def _told_of_the_end(scope: Message, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Both, with `Connection: close` in an answer that comes before the body was read: the connection ends then, and a
    client that is not told loses the next request that it sends there.
    """
    headers = dict(scope["headers"])
    whole = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"

    async def hear() -> Message:
        nonlocal whole
        message = await receive()
        whole = whole or (message["type"] == "http.request" and not message.get("more_body"))
        return message

    async def say(message: Message) -> None:
        if message["type"] == "http.response.start" and not whole:
            message = dict(message) | {"headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return hear, say


class _OpenToItsSender:
    """The transport of one answer. After `Connection: close` uvicorn closes at once, and a client that is still sending
    its body gets a reset in place of its answer: here only the answer ends, and the connection lingers.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol, self._transport = protocol, protocol.transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._protocol.still_sends:
            self._transport.close()
        elif self._transport.can_write_eof():  # over TLS there is no such word
            self._transport.write_eof()


class LimitedProtocol(H11Protocol):
    """One connection. Times are of the monotonic clock, seconds."""

    gate: Gate
    of_peer: Counter[str]

    def __init__(
        self, config: uvicorn.Config, server_state: Any, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.app = self._gated
        self.peer = ""
        self.reserved = False
        self.errand: Errand | None = None
        self.is_gone = False
        self._head_since: float | None = None
        self._lingers_since: float | None = None
        self._came = self._went = 0
        self._mark: tuple[float, int] | None = None  # of a body: when, and bytes until then
        self._written = 0
        self._unread: tuple[float, int] | None = None  # of an answer: when, and bytes that were not read
        self._rests: asyncio.TimerHandle | None = None  # until it is read again

    async def _gated(self, scope: Message, receive: Receive, send: Send) -> None:
        self.cycle.transport = _OpenToItsSender(self)  # type: ignore[assignment]  # has of it what a cycle calls
        await self.gate(scope, receive, send, self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._head_since = time.monotonic()
        limits, most = self.gate.limits, len(self.connections)
        self.of_peer[self.peer] += 1
        self.reserved = most > limits.connections or self.of_peer[self.peer] > limits.per_peer

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.of_peer[self.peer] -= 1
            if self.of_peer[self.peer] <= 0:
                del self.of_peer[self.peer]
        if self.errand is not None:
            self.errand.stop()
        if self._rests is not None:
            self._rests.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._came += len(data)
        if self._lingers_since is not None:
            self._rest(len(data))  # of a body that nobody wants
            return
        in_body = self.conn.their_state is h11.SEND_BODY
        if self._head_since is None and self.is_idle:
            self._head_since = time.monotonic()
        try:
            super().data_received(data)
        except (h11.ProtocolError, UnicodeDecodeError):  # in states that uvicorn does not expect
            self.transport.abort()
            return
        if not self.is_idle:
            self._head_since = None
        if in_body and self.conn.their_state is h11.SEND_BODY:
            self._rest(len(data))

    def _rest(self, size: int) -> None:
        """Leave what comes in drops to the kernel for a moment, so that they are read together."""
        delay = self.gate.delay_of_piece(self.peer, size)
        if delay and self._rests is None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._rests = self.loop.call_later(delay, self._read_again)

    def _read_again(self) -> None:
        self._rests = None
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        if self.still_sends:
            # It is answered, and still sends. Closing at once would take the answer from it.
            self._lingers_since = time.monotonic()
            self.flow.resume_reading()
            return
        self._head_since = None
        super().on_response_complete()

    @property
    def still_sends(self) -> bool:
        """Whether its body is not whole yet, and it has a place to send it to."""
        return (
            self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing() and not self.reserved
        )

    @property
    def is_idle(self) -> bool:
        """Whether no request is being received, worked on or answered."""
        return (self.cycle is None or self.cycle.response_complete) and self.conn.their_state is h11.IDLE

    async def has_read(self) -> None:
        """Wait a moment until the peer has read what it was answered, but for what any buffer holds.

        Not for long: others wait for its turn. The server looks at what all have not read.
        """
        until = time.monotonic() + _READ_SECONDS
        while not self.is_gone and self.unread > 256 << 10 and time.monotonic() < until:
            await asyncio.sleep(0.1)

    @property
    def unread(self) -> int:
        """Bytes of an answer that are still in this process."""
        size: int = self.transport.get_write_buffer_size()
        return size

    def look(self, now: float) -> str | None:
        """End the connection where its peer is too slow; returns why (`doors.Turned`)."""
        limits = self.gate.limits
        if self._lingers_since is not None and now - self._lingers_since > limits.linger_seconds:
            self.transport.abort()
            return None
        if self.is_idle and self._head_since is not None:
            if now - self._head_since > limits.head_seconds:
                self._end()
                return "REQUEST_LATE"
            return None
        if self._reads_slowly(now):
            self.transport.abort()
            return "TOO_SLOW"
        if self._sends_slowly(now):
            if self.cycle.response_started:
                self.transport.abort()
            else:
                self._end()
            return "TOO_SLOW"
        return None

    def _sends_slowly(self, now: float) -> bool:
        cycle = self.cycle
        waits = (
            cycle is not None
            and not cycle.response_complete
            and cycle.more_body
            and not cycle.waiting_for_100_continue
            and not self.flow.read_paused
        )
        if not waits:
            self._mark = None
        elif self._mark is None:
            self._mark = now, self._came
        elif now - self._mark[0] >= self.gate.limits.stall_seconds:
            least = self.gate.limits.least_rate * (now - self._mark[0])
            slow = self._came - self._mark[1] < least
            self._mark = now, self._came
            return slow
        return False

    def _reads_slowly(self, now: float) -> bool:
        unread = self.transport.get_write_buffer_size()
        if not unread:
            self._unread = None
        elif self._unread is None or unread > self._unread[1]:
            self._unread = now, unread
        elif now - self._unread[0] >= self.gate.limits.stall_seconds:
            least = self.gate.limits.least_rate * (now - self._unread[0])
            slow = self._unread[1] - unread < least
            self._unread = now, unread
            return slow
        return False

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TIMED_OUT)
            self.transport.close()

    def make_way(self, peer: str) -> bool:
        """Close it where it is idle, or answered and still sending: that not at once for one of its own address."""
        lingers = self._lingers_since is not None and (
            peer != self.peer or time.monotonic() - self._lingers_since > _KEPT_SECONDS
        )
        if not (self.is_idle or lingers) or self.transport.is_closing():
            return False
        self.transport.abort()
        return True


class LimitedServer(uvicorn.Server):
    """uvicorn behind a lobby. Give `run` exactly one bound socket.

    With `tls` nothing else is spoken; `explains` has plain HTTP told so before the connection is closed.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        turned_away: TurnedAway,
        tls: ssl.SSLContext | None = None,
        *,
        explains: bool = False,
    ) -> None:
        self._limits, self._turned_away, self._tls = limits, turned_away, tls
        self._explains = explains and tls is not None

        class Limited(LimitedProtocol):
            gate = Gate(app, limits, turned_away)
            of_peer = Counter()  # noqa: RUF012 - of this listener's connections, as the gate is

        self._protocol = Limited
        super().__init__(
            uvicorn.Config(
                app,
                http=self._protocol,
                ws="none",
                server_header=False,
                access_log=False,  # access logs would carry study UIDs in paths
                log_config=None,
                lifespan="off",
                timeout_keep_alive=limits.keep_alive_seconds,
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=limits.head_bytes,
            )
        )
        self._refusal = _no_place(limits)
        self._lobby: Lobby | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Connections that have asked for nothing yet."""
        return self._lobby.waiting if self._lobby is not None else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept; `sockets` is the one to accept on."""
        assert sockets is not None and len(sockets) == 1, "one bound socket"
        loop = asyncio.get_running_loop()
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        await self.lifespan.startup()
        sockets[0].listen(BACKLOG)
        self.servers = []
        self._entering: set[asyncio.Task[None]] = set()
        limits = self._limits
        room = Room(
            most=limits.connections,
            per_peer=limits.connections // 2,
            first_seconds=limits.head_seconds,
            whole_seconds=limits.head_seconds,
            per_second=2 * limits.pace,
            burst=limits.burst,
        )

        def let_in(connection: socket.socket, _address: Any) -> None:
            loop.call_soon_threadsafe(self._enter, connection)

        def whole(data: bytes) -> bool:
            return (self._tls is not None and bool(data)) or _is_whole_head(data, limits.head_bytes)

        self._lobby = Lobby(
            "api-lobby",
            sockets[0],
            room,
            let_in,
            lambda _connection, _address, data: whole(data),
            self._left_the_lobby,
            _asks_for_health if self._tls is None else lambda _: False,
            asks=whole,
            farewell=_TIMED_OUT if self._tls is None else b"",
        )
        self._lobby.start()
        self._looking = loop.create_task(self._look())
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and let what is being answered end within a few seconds."""
        if self._lobby is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._lobby.stop)
        if self._looking is not None:
            self._looking.cancel()
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedProtocol):
                if connection.errand is not None:
                    connection.errand.stop()
                if connection.is_idle:
                    connection.transport.abort()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _enter(self, connection: socket.socket) -> None:
        limits, of_peer = self._limits, self._protocol.of_peer
        try:
            peer = str(connection.getpeername()[0])
        except OSError:
            connection.close()
            return
        held = self.server_state.connections
        full = len(held) >= limits.connections or of_peer[peer] >= limits.per_peer
        if full:
            mine = of_peer[peer] >= limits.per_peer
            way = any(
                one.make_way(peer)
                for one in list(held)
                if isinstance(one, LimitedProtocol) and (one.peer == peer or not mine)
            )
            over = len(held) + len(self._entering) >= limits.connections + limits.reserved
            over = over or of_peer[peer] >= limits.per_peer + limits.reserved // 2
            if not way and not over and self._tls is None and self._is_refused(connection):
                self._turned_away("TOO_MANY_CONNECTIONS", _too_many(limits), peer)
                return
            if over and not way:
                self._turned_away("TOO_MANY_CONNECTIONS", "all of its connections are in use", peer)
                connection.close()
                return
        task = asyncio.get_running_loop().create_task(self._welcome(connection))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    def _is_refused(self, connection: socket.socket) -> bool:
        """Whether it is answered here, as only health has a place left: by as little work as can be."""
        try:
            head = connection.recv(self._limits.head_bytes, socket.MSG_PEEK)
            if not head or _asks_for_health(head):
                return False
            while connection.recv(1 << 17):  # closing with bytes unread would reset the answer away
                pass
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            return True
        with contextlib.suppress(OSError):
            connection.send(self._refusal)
        connection.close()
        return True

    async def _welcome(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        times = {"ssl_handshake_timeout": 5.0, "ssl_shutdown_timeout": 5.0} if self._tls is not None else {}
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if self._explains and await plain.is_told(connection):
                return
            await loop.connect_accepted_socket(
                lambda: self._protocol(
                    config=self.config, server_state=self.server_state, app_state={}, _loop=loop
                ),
                connection,
                ssl=self._tls,
                **times,
            )
        except (OSError, ssl.SSLError, TimeoutError):  # a handshake that failed, or a peer that has gone
            connection.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._limits.head_seconds / 4))
            now = time.monotonic()
            for one in list(self.server_state.connections):
                if not isinstance(one, LimitedProtocol):
                    continue
                try:
                    why = one.look(now)
                except Exception:
                    log.exception("a connection could not be looked at: it is closed")
                    one.transport.abort()
                    continue
                if why is not None:
                    self._turned_away(why, _WORDS[why], one.peer)
            self._bound_unread()

    def _bound_unread(self) -> None:
        """Where answers that are not read fill the memory, end those of the address with the most."""
        unread = [one for one in self.server_state.connections if isinstance(one, LimitedProtocol)]
        sizes = {one: one.unread for one in unread if one.unread and not one.transport.is_closing()}
        while sum(sizes.values()) > _UNREAD_BYTES:
            of_peer: Counter[str] = Counter()
            for one, size in sizes.items():
                of_peer[one.peer] += size
            ((peer, _),) = of_peer.most_common(1)
            most = max((one for one in sizes if one.peer == peer), key=lambda one: sizes[one])
            del sizes[most]
            most.transport.abort()
            self._turned_away("TOO_SLOW", _WORDS["TOO_SLOW"], peer)

    def _left_the_lobby(self, address: str, why: str, times: int) -> None:
        reason = "REQUEST_LATE" if why == "late" else "TOO_MANY_CONNECTIONS"
        self._turned_away(reason, _WORDS[reason], address, times)


_WORDS: Final = {
    "TOO_MANY_CONNECTIONS": "more connections than there is room for wait to be let in",
    "REQUEST_LATE": "it connected and did not ask in time",
    "TOO_SLOW": "it sends its body, or reads the answer, slower than any line is: look at the line or at the client",
}


def _is_whole_head(data: bytes, most: int) -> bool:
    """Whether the head of a request is here to its end, or something that h11 answers without waiting for that."""
    if not data[:1].isalpha() or len(data) > most:
        return bool(data)
    return b"\n\r\n" in data or b"\n\n" in data


def _asks_for_health(head: bytes) -> bool:
    """Whether the first line of a request that is not encrypted asks for health."""
    return any(head.startswith(f"GET {path}".encode()) for path in _HEALTH)


def tell_limits(app: FastAPI) -> None:
    """Have an application say what took too long."""

    @app.exception_handler(TooCostly)
    def too_costly(_request: Request, fault: Exception) -> Response:
        return JSONResponse(both(str(fault)), 422)

    @app.exception_handler(Abandoned)
    def abandoned(_request: Request, _fault: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it


def _no_place(limits: Limits) -> bytes:
    """The whole answer to who asks where only health has a place left."""
    words = _too_many(limits)
    body = json.dumps(both(words)).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(body))} | EVERY_ANSWER
    named |= {"Connection": "close", "Retry-After": "5"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n".encode() + body


def _too_many(limits: Limits) -> str:
    return (
        f"{limits.connections} connections are open, {limits.per_peer} of one address at most: close those that are "
        "not needed, and connect again later"
    )


async def _answer(send: Send, status: int, words: str, headers: dict[str, str]) -> None:
    body = json.dumps(both(words)).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(body))} | EVERY_ANSWER | headers
    raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
