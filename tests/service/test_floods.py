"""Floods of connections at both ports: what is silent stays with the kernel, what speaks costs no more than it may."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import wait_for
from test_limits_dicom import PLACES, Receiver, end_of, stores
from test_limits_http import SHORT, Listener

from outpost import listening, lobby
from outpost.lobby import Lobby, Room

ATTACK = Path(__file__).resolve().parents[2] / "benchmarks" / "limits.py"
ATTACKER, ELSEWHERE = "127.0.0.66", "127.0.0.9"
ROOM = Room(most=64, per_peer=32, first_seconds=2.0, whole_seconds=2.0, per_second=200, burst=200)


class Door:
    """A lobby before nothing: who is let in waits in `entered`."""

    def __init__(self, room: Room = ROOM, bound: socket.socket | None = None, **how: Any) -> None:
        self.bound = bound or socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self.bound.getsockname()
        self.entered: list[tuple[socket.socket, Any]] = []
        self.left: dict[str, int] = {}
        self.turns = self.arrived = 0
        counting = self

        class Counting(Lobby):
            def _turn(self) -> None:
                counting.turns += 1
                super()._turn()

            def _arrive(self, descriptor: int, address: Any) -> None:
                counting.arrived += 1
                super()._arrive(descriptor, address)

        self.lobby = Counting(
            "door",
            self.bound,
            room,
            lambda connection, address: self.entered.append((connection, address)),
            lambda _connection, _address, data: data.endswith(b"\n"),
            self._told,
            asks=lambda data: data.endswith(b"\n"),
            **how,
        )
        self.lobby.start()

    def _told(self, peer: str, why: str, times: int) -> None:
        self.left[why] = self.left.get(why, 0) + times

    def connect(self, source: str = ATTACKER) -> socket.socket:
        return socket.create_connection(self.address, source_address=(source, 0), timeout=5)

    @property
    def holds_back(self) -> bool:
        return self.lobby._held_back_until is not None

    def close(self) -> None:
        self.lobby.stop()
        for connection, _ in self.entered:
            connection.close()
        self.bound.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Door]]:
    with contextlib.ExitStack() as stack:

        def opening(*how: Any, **more: Any) -> Door:
            door = Door(*how, **more)
            stack.callback(door.close)
            return door

        yield opening


@contextlib.contextmanager
def meanwhile(attack: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run it in a thread of its own until the block ends, which the event tells it."""
    over = threading.Event()
    thread = threading.Thread(target=attack, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def flood(door: Door, said: bytes) -> contextlib.AbstractContextManager[None]:
    """Who comes as fast as it is turned away."""

    def run(over: threading.Event) -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            with contextlib.suppress(OSError):
                held.append(door.connect())
                held[-1].sendall(said)
            if len(held) > 200:
                held.pop(0).close()
        for one in held:
            one.close()

    return meanwhile(run)


def until_held_back(door: Door) -> list[socket.socket]:
    silent: list[socket.socket] = []

    def is_held_back() -> bool:
        silent.extend(door.connect() for _ in range(40))
        return door.holds_back

    wait_for(is_held_back, 10, "silent connections are held back")
    return silent


def test_a_flood_of_silent_connections_is_left_to_the_kernel_and_who_speaks_finds_the_door(
    opened: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "_SILENT_FLOOD", 50)
    door = opened()
    until_held_back(door)
    late = [door.connect() for _ in range(300)]
    time.sleep(1.2)
    arrived = door.arrived
    late += [door.connect() for _ in range(300)]
    time.sleep(1.2)
    for one in late[100:]:
        one.close()
    time.sleep(0.5)
    assert door.arrived == arrived, "those that say nothing, or end, do not come so far"
    for source in (ELSEWHERE, ATTACKER):
        with door.connect(source) as honest:
            begun = time.monotonic()
            honest.sendall(b"I ask\n")
            wait_for(lambda: door.entered, 5, "who asks is let in")
            assert time.monotonic() - begun < 1
            # What it is sent, and its receipts, come through as on any connection.
            connection, address = door.entered.pop()
            assert address == honest.getsockname()
            connection.setblocking(True)
            sending = threading.Thread(target=connection.sendall, args=(b"y" * (4 << 20),))
            sending.start()
            size = 0
            while size < 4 << 20:
                size += len(honest.recv(1 << 20))
            sending.join()
            connection.close()
    late[0].sendall(b"I come late\n")
    wait_for(lambda: door.entered, 5, "who was silent and speaks is let in")
    for one in late[:100]:
        one.close()


def test_silent_connections_are_seen_again_after_a_while(
    opened: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "_SILENT_FLOOD", 50)
    monkeypatch.setattr(lobby, "_HELD_BACK_SECONDS", 1.0)
    door = opened()
    for one in until_held_back(door):
        one.close()
    wait_for(lambda: not door.holds_back and not door.lobby.waiting, 10, "the flood is over")
    with door.connect(ELSEWHERE) as silent:
        wait_for(lambda: door.lobby.waiting, 2, "it waits")
        assert end_of(silent, 4) < 4


def test_the_next_lobby_on_the_port_holds_nobody_back(
    opened: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "_SILENT_FLOOD", 50)
    first = opened()
    held = until_held_back(first)
    first.lobby.stop()
    second = opened(bound=first.bound)
    with second.connect(ELSEWHERE):
        wait_for(lambda: second.lobby.waiting, 5, "a silent connection waits")
    for one in held:
        one.close()


@pytest.mark.parametrize("found", ["0\n", None], ids=["switched off", "not told"])
def test_without_syn_cookies_nobody_is_held_back(
    opened: Callable[..., Door], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str | None
) -> None:
    """The kernel's queue of half connections would be full for all."""
    if found is not None:
        (tmp_path / "tcp_syncookies").write_text(found)
    monkeypatch.setattr(listening, "_SYNCOOKIES", tmp_path / "tcp_syncookies")
    monkeypatch.setattr(lobby, "_SILENT_FLOOD", 50)
    door = opened()
    with flood(door, b""):
        time.sleep(2)
        assert not door.holds_back
        with door.connect(ELSEWHERE) as honest:
            honest.sendall(b"I ask\n")
            wait_for(lambda: door.entered, 3, "who asks is let in")
    assert door.left["full"] > 100


@pytest.mark.parametrize("said", [b"half of a quest", b"I ask\n"], ids=["half requests", "requests"])
def test_in_a_flood_that_speaks_the_lobby_takes_no_more_turns_than_fifty_a_second(
    opened: Callable[..., Door], said: bytes
) -> None:
    begun = time.monotonic()
    door = opened(replace(ROOM, per_second=20, burst=20))
    with flood(door, said):
        time.sleep(3)
        turns = door.turns
        assert turns <= 50 + 50 * (time.monotonic() - begun) + 2
        begun = time.monotonic()
        with door.connect(ELSEWHERE) as honest:
            honest.sendall(b"I ask\n")
            wait_for(lambda: any(at[0] == ELSEWHERE for _, at in door.entered), 3, "the other is let in")
        assert time.monotonic() - begun < 1
    assert door.left["full"] > 100


def test_a_crowd_of_one_address_is_let_in_at_its_own_pace_and_no_other_waits_for_it(
    opened: Callable[..., Door],
) -> None:
    door = opened(replace(ROOM, burst=10, crowd_per_second=5))
    with flood(door, b"I ask\n"):
        time.sleep(1)
        before, begun = len(door.entered), time.monotonic()
        time.sleep(2)
        assert len(door.entered) - before < 5 * (time.monotonic() - begun) + 12
        with door.connect(ELSEWHERE) as honest:
            begun = time.monotonic()
            honest.sendall(b"I ask\n")
            wait_for(lambda: any(at[0] == ELSEWHERE for _, at in door.entered), 3, "the other is let in")
            assert time.monotonic() - begun < 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses_are_what_python_says_they_are(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as bound:
        heard = listening.Listening(bound)
        assert heard.accept() is None
        with socket.create_connection(bound.getsockname()[:2]) as client:
            came = wait_for(heard.accept, 2, "it comes")
            connection = heard.socket_of(came[0])
            assert came[1] == client.getsockname() == connection.getpeername()
            assert heard.peek(came[0]) == b""
            client.sendall(b"hello")
            wait_for(lambda: heard.peek(came[0]) == b"hello", 2, "it is seen")
            assert connection.recv(9) == b"hello"
            connection.close()


def test_no_descriptor_is_left_of_a_flood(opened: Callable[..., Door]) -> None:
    door = opened()
    time.sleep(0.3)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for said in (b"", b"half", b"I ask\n"):
        with flood(door, said):
            time.sleep(1)
    door.lobby.stop()
    for connection, _ in door.entered:
        connection.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_an_association_is_opened_at_once_while_20000_are_half_open(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "storage", PLACES, Room(per_second=25, burst=50))
    ports = str(receiver.port), str(receiver.port)
    attacker = subprocess.Popen([sys.executable, str(ATTACK), "--attack", "half-open-dicom", *ports])
    try:
        wait_for(lambda: receiver.scp._lobby._held_back_until is not None, 20, "the kernel holds them back")
        time.sleep(1)
        turned = receiver.turned("TOO_MANY_CONNECTIONS")
        for number in range(3):
            begun = time.monotonic()
            association = receiver.associate(source=ATTACKER if number else ELSEWHERE)
            assert time.monotonic() - begun < 1
            assert stores(association, tmp_path, number=number + 1)
            association.release()
        time.sleep(1)
        assert receiver.turned("TOO_MANY_CONNECTIONS") - turned < 1500, "hardly one is accepted"
        assert attacker.poll() is None
    finally:
        attacker.kill()
        attacker.wait()
        receiver.close()


def test_heads_that_do_not_end_wait_before_the_event_loop_and_are_told_so() -> None:
    listener = Listener(SHORT)
    try:
        slow = [listener.connect() for _ in range(8)]
        for one in slow:
            one.sendall(b"GET /studies HTTP/1.1\r\nHost: x\r\n")
        wait_for(lambda: listener.server.waiting == 8, 2, "they wait")
        assert not listener.server.server_state.connections
        assert slow[0].recv(4096).startswith(b"HTTP/1.1 408 ")
        assert slow[0].recv(4096) == b""
        wait_for(lambda: listener.turned["REQUEST_LATE"] == 8, 3, "they are told")
        for one in slow:
            one.close()
    finally:
        listener.stop()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HTTP/1.1 400 "),
        (b"GET /v2/health/live HTTP/1.1\nHost: x\n\n", b"HTTP/1.1 200 "),
        (b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 "),
        (b"GET /studies HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 40000, b"HTTP/1.1 4"),
    ],
    ids=["TLS", "line feeds alone", "a request", "a head too large"],
)
def test_what_can_be_answered_is_answered_at_once(said: bytes, answer: bytes) -> None:
    listener = Listener(replace(SHORT, head_seconds=20))
    try:
        with listener.connect() as one:
            begun = time.monotonic()
            one.sendall(said)
            assert one.recv(4096).startswith(answer)
            assert time.monotonic() - begun < 3
    finally:
        listener.stop()


def test_a_head_in_pieces_is_answered_as_one() -> None:
    listener = Listener(replace(SHORT, head_seconds=5))
    try:
        with listener.connect() as one:
            for piece in (b"GET /v2/hea", b"lth/live HTTP/1.1\r\n", b"Host: x\r", b"\n\r", b"\n"):
                one.sendall(piece)
                time.sleep(0.05)
            assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
    finally:
        listener.stop()
