"""The lobby: connections wait here, without a thread or a buffer of their own, until they have something to say.

A peer that connects and is silent costs one descriptor; one that asks is let in, in fair turns between addresses and
no faster than the service can bear. When the lobby is full, the silent connection that waited longest, of the address
with the most, has to leave: whoever connects and asks at once always finds a place.

In a flood the lobby looks at what came fifty times a second, and not at each connection as it comes: each time it takes
the interpreter from the threads that receive images. What is silent then stays with the kernel until it speaks.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from outpost.listening import RESET, Listening, queues_beside

log = logging.getLogger(__name__)

_TURN_SECONDS: Final = 0.25
_ACCEPTED_AT_ONCE: Final = 64
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS: Final = 0.1
_TELL_SECONDS: Final = 1.0
# Looks at what came, a second; the first ones at once.
_TURNS_PER_SECOND: Final = 50.0
# Silent connections turned away in a second, from which on the kernel keeps them, and for how long in seconds.
_SILENT_FLOOD: Final = 500
_HELD_BACK_SECONDS: Final = 30.0
BACKLOG: Final = 1024
# Of a queue from which more than so many that spoke were turned away in a second, so many are taken a second. Other
# addresses have other queues, and what is turned away there is tried again later.
_SPEAKING_FLOOD: Final = 200
_SPEAKING_PER_SECOND: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Room:
    """How large the lobby is, in connections, and how long one may wait there, in seconds.

    `first_seconds`: until its first byte. `whole_seconds`: until its first request is whole. `per_second` connections
    are let in, and `burst` in a moment; `accepted_per_second` taken from the kernel, whose queue else fills for all.
    Of addresses with more than `crowd` that ask, `crowd_per_second` are let in: each costs, if only to be refused.
    """

    most: int = 256
    per_peer: int = 64
    first_seconds: float = 10.0
    whole_seconds: float = 30.0
    per_second: float = 100.0
    burst: float = 100.0
    accepted_per_second: float = 3000.0
    crowd: int = 8
    crowd_per_second: float = 25.0


class Pace:
    """A token bucket. `now` is monotonic, seconds."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._at = burst, time.monotonic()

    def wait(self, now: float) -> float:
        """Seconds until one more may go; 0 where it may go now."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / self._per_second

    def take(self) -> None:
        """One goes, whether it may or not: no debt is kept."""
        self._left = max(0.0, self._left - 1)


@dataclass(slots=True, eq=False)
class _Waiting:
    connection: socket.socket
    address: Any
    since: float
    spoke: bool = False
    ready: bool = False

    @property
    def peer(self) -> str:
        return str(self.address[0])


class _Queue:
    """One listening socket of the port. Times are monotonic, seconds."""

    def __init__(self, listening: socket.socket) -> None:
        self.door = Listening(listening)
        self.again = 0.0  # not 0: it rests until then
        self.spoke_left = 0  # since it was counted
        self.flooded: Pace | None = None


class Lobby(threading.Thread):
    """Accepts on a listening socket until `stop`. The socket is made non-blocking and stays the caller's."""

    def __init__(
        self,
        name: str,
        listening: socket.socket,
        room: Room,
        enter: Callable[[socket.socket, Any], None],
        whole: Callable[[socket.socket, Any, bytes], bool | None],
        turned_away: Callable[[str, str, int], None],
        first: Callable[[bytes], bool] = lambda _: False,
        asks: Callable[[bytes], bool] = bool,
        farewell: bytes = b"",
    ) -> None:
        """`enter` takes over a connection and its address. `whole` sees what has arrived, without its being read, and
        says whether that is a request: None where the connection was answered already and is to be closed.
        `turned_away` is told once a second who had to leave: the address, why (`full`, `late`), how many times.
        `first` says of what has arrived whether it is let in before all others, `asks` whether it is a request that
        may be worth another's place. `farewell` is said to who spoke and is late.
        """
        super().__init__(name=name, daemon=True)
        self._listening, self._room = listening, room
        self._door = Listening(listening)
        self._beside: list[socket.socket] = []
        self._queues: dict[int, _Queue] = {}  # by descriptor
        self._enter, self._whole, self._tell, self._is_first = enter, whole, turned_away, first
        self._asks, self._farewell = asks, farewell
        self._left: Counter[tuple[str, str]] = Counter()  # since it was told
        self._told = time.monotonic()
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()  # by descriptor, in the order they came
        self._of_peer: Counter[str] = Counter()
        self._ready: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # by address: they take turns
        self._silent: dict[str, OrderedDict[int, _Waiting]] = {}
        self._stopping = threading.Event()
        self._poll = select.epoll()
        self._entering = Pace(room.per_second, room.burst)
        self._first = Pace(room.per_second, room.burst)
        self._evicting = Pace(room.per_second, room.burst)
        self._accepting = Pace(room.accepted_per_second, room.accepted_per_second / 2)
        self._crowding = Pace(room.crowd_per_second, room.burst)
        self._only_crowds = False  # are ready
        self._turning = Pace(_TURNS_PER_SECOND, _TURNS_PER_SECOND)
        self._silent_left = 0  # since `_counted`
        self._counted = self._flooded_at = self._told
        self._held_back_until: float | None = None

    @property
    def waiting(self) -> int:
        """Connections that wait here."""
        return len(self._waiting)

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Accept no more, and close what waits."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout_seconds)

    def run(self) -> None:
        self._beside = queues_beside(self._listening, BACKLOG)
        for listening in (self._listening, *self._beside):
            self._queues[listening.fileno()] = queue = _Queue(listening)
            queue.door.hold_back_nobody()  # as a lobby before this one may have left it
            self._poll.register(listening.fileno(), select.EPOLLIN)
        faults = 0
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                    faults = 0
                except Exception:  # whatever one connection does: the next ones must be let in
                    faults += 1
                    if self._stopping.is_set() or faults > 10:
                        raise
                    log.exception("%s: a connection could not be handled, going on", self.name)
                    self._stopping.wait(_PAUSE_SECONDS)
        finally:
            for one in list(self._waiting.values()):
                self._close(one)
            self._poll.close()
            self._door.hold_back_nobody()
            for listening in self._beside:
                listening.close()

    def _turn(self) -> None:
        while rest := self._turning.wait(time.monotonic()):
            if self._stopping.wait(rest):
                return
        self._turning.take()
        came: list[_Queue] = []
        for descriptor, _ in self._poll.poll(self._rest(time.monotonic())):
            if (queue := self._queues.get(descriptor)) is not None:
                came.append(queue)
            elif (one := self._waiting.get(descriptor)) is not None:
                self._look(one)
        for queue in sorted(came, key=lambda one: (one.flooded is not None, one.spoke_left)):
            self._accept(queue)
        now = time.monotonic()
        for descriptor, queue in self._queues.items():
            if queue.again and now >= queue.again:
                queue.again = 0.0
                self._poll.register(descriptor, select.EPOLLIN)
        self._end_late(now)
        self._hold_back(now)
        self._count_floods(now)
        if self._left and now - self._told > _TELL_SECONDS:
            left, self._left, self._told = self._left, Counter(), now
            for (peer, why), times in left.items():
                self._tell(peer, why, times)
        self._only_crowds = False
        while self._ready and not self._entering.wait(now):
            one = self._next(now)
            if one is None:
                self._only_crowds = True
                break
            self._entering.take()
            self._let_in(one)

    def _rest(self, now: float) -> float:
        rest = _TURN_SECONDS
        if self._ready:
            rest = min(rest, (self._crowding if self._only_crowds else self._entering).wait(now))
        again = min((queue.again for queue in self._queues.values() if queue.again), default=0.0)
        if again:
            rest = min(rest, max(0.0, again - now))
        return rest + 0.001 if rest else 0.0

    def _pause(self, queue: _Queue, seconds: float) -> None:
        self._poll.unregister(queue.door.fileno())
        queue.again = time.monotonic() + seconds

    def _accept(self, queue: _Queue) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            now = time.monotonic()
            if queue.flooded is not None and (wait := queue.flooded.wait(now)):
                self._pause(queue, wait + 0.02)
                return
            if wait := self._accepting.wait(now):
                self._pause(queue, wait + 0.01)
                return
            try:
                came = queue.door.accept()
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    return  # it was gone before it was here
                # The descriptors are spent: whoever waits here in silence gives one back.
                self._make_place(None)
                self._pause(queue, _PAUSE_SECONDS)
                return
            if came is None:
                return
            self._accepting.take()
            if queue.flooded is not None:
                queue.flooded.take()
            silent, left = self._silent_left, self._left.total()
            self._arrive(*came)
            queue.spoke_left += self._left.total() > left and self._silent_left == silent

    def _arrive(self, descriptor: int, address: Any) -> None:
        now = time.monotonic()
        peer = str(address[0])
        try:
            place = self._has_place(descriptor, peer, now)
        except BaseException:
            self._door.reset(descriptor)
            raise
        if not place:
            self._left[peer, "full"] += 1
            self._door.reset(descriptor)
            return
        one = _Waiting(self._door.socket_of(descriptor), address, now)
        self._waiting[descriptor] = one
        self._of_peer[peer] += 1
        self._silent.setdefault(peer, OrderedDict())[descriptor] = one
        self._poll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._look(one)  # what it asks is mostly here already; by that it may be one that goes first

    def _has_place(self, descriptor: int, peer: str, now: float) -> bool:
        """Whether there is a place for who has just come; another one may have left for it."""
        of_peer = self._of_peer[peer] >= self._room.per_peer
        if not of_peer and len(self._waiting) < self._room.most:
            return True
        silent = peer in self._silent
        if (of_peer or silent) and self._evicting.wait(now):
            # In a flood, what asks has asked by now: it waited in the kernel's queue. What does not, and has others of
            # its address waiting, goes at once: to give it another's place costs ten times that, while all wait. So
            # does what asks where all others have asked, too, and came before it.
            data = self._door.peek(descriptor)
            self._silent_left += not data
            if not self._asks(data) or not (silent or self._is_first(data)):
                return False
        else:
            self._evicting.take()
        return self._make_place(peer if of_peer else None)

    def _hold_back(self, now: float) -> None:
        """In a flood of silent connections leave them to the kernel, for a while."""
        if self._held_back_until is not None:
            if now < self._held_back_until:
                return
            for queue in self._queues.values():
                queue.door.hold_back_nobody()
            self._held_back_until = None
        elif self._silent_left > _SILENT_FLOOD and self._hold_back_silent():
            self._held_back_until = now + _HELD_BACK_SECONDS
            log.info("%s: a flood of silent connections, the kernel keeps them until they speak", self.name)
        elif now - self._counted <= _TELL_SECONDS:
            return
        self._silent_left, self._counted = 0, now

    def _hold_back_silent(self) -> bool:
        done = [queue.door.hold_back_silent() for queue in self._queues.values()]
        if not all(done):
            for queue in self._queues.values():
                queue.door.hold_back_nobody()
        return all(done)

    def _count_floods(self, now: float) -> None:
        """Once a second: a queue from which many that speak are turned away is taken from no faster than that."""
        if now - self._flooded_at <= _TELL_SECONDS:
            return
        self._flooded_at = now
        for queue in self._queues.values():
            if not self._beside or queue.spoke_left <= _SPEAKING_FLOOD:
                queue.flooded = None
            elif queue.flooded is None:
                queue.flooded = Pace(_SPEAKING_PER_SECOND, _SPEAKING_PER_SECOND / 20)
            queue.spoke_left = 0

    def _make_place(self, peer: str | None) -> bool:
        """Have the one that waited longest leave, a silent one if any: of this address, or of the one with the most."""
        if peer is None:
            peer = max(self._silent, key=lambda name: len(self._silent[name]), default=None)
        silent = self._silent.get(peer) if peer is not None else None
        if silent:
            leaving = next(iter(silent.values()))
        elif peer is not None and (ready := self._ready.get(peer)):
            leaving = ready[0]  # whoever comes is looked at: it may be one that goes first
        else:
            return False
        self._left[leaving.peer, "full"] += 1
        self._silent_left += not leaving.spoke
        self._close(leaving)
        return True

    def _look(self, one: _Waiting) -> None:
        if one.ready:
            return
        try:
            data = one.connection.recv(1 << 17, socket.MSG_PEEK)
        except BlockingIOError:
            return  # it has said nothing yet
        except OSError:
            data = b""
        whole = self._whole(one.connection, one.address, data) if data else None
        one.spoke = one.spoke or bool(data)
        if whole is None:
            self._forget(one)
            one.connection.close()
        elif whole and self._is_first(data) and not self._first.wait(time.monotonic()):
            self._first.take()
            self._let_in(one)
        elif whole:
            one.ready = True
            self._no_longer_silent(one)
            self._ready.setdefault(one.peer, deque()).append(one)

    def _end_late(self, now: float) -> None:
        room = self._room
        late = []
        for one in self._waiting.values():
            age = now - one.since
            if age <= min(room.first_seconds, room.whole_seconds):
                break
            if not one.ready and age > (room.whole_seconds if one.spoke else room.first_seconds):
                late.append(one)
        for one in late:
            self._left[one.peer, "late"] += 1
            self._close(one, self._farewell if one.spoke else b"")

    def _next(self, now: float) -> _Waiting | None:
        """Whose turn it is; None where it is that of nobody yet."""
        for peer, ready in self._ready.items():
            if len(ready) > self._room.crowd:
                if self._crowding.wait(now):
                    continue
                self._crowding.take()
            one = ready.popleft()
            if ready:
                self._ready.move_to_end(peer)
            else:
                del self._ready[peer]
            return one
        return None

    def _let_in(self, one: _Waiting) -> None:
        self._forget(one)
        try:
            self._enter(one.connection, one.address)
        except Exception:  # a thread that cannot be started, for one
            log.exception("%s: a connection could not be let in", self.name)
            _reset(one.connection)

    def _forget(self, one: _Waiting) -> None:
        descriptor = one.connection.fileno()
        if self._waiting.pop(descriptor, None) is None:
            return
        self._no_longer_silent(one)
        self._of_peer[one.peer] -= 1
        if self._of_peer[one.peer] <= 0:
            del self._of_peer[one.peer]
        self._poll.unregister(descriptor)

    def _no_longer_silent(self, one: _Waiting) -> None:
        silent = self._silent.get(one.peer)
        if silent is not None:
            silent.pop(one.connection.fileno(), None)
            if not silent:
                del self._silent[one.peer]

    def _close(self, one: _Waiting, farewell: bytes = b"") -> None:
        if one.ready and (ready := self._ready.get(one.peer)) is not None and one in ready:
            ready.remove(one)
            if not ready:
                del self._ready[one.peer]
        self._forget(one)
        if not farewell:
            _reset(one.connection)
            return
        with contextlib.suppress(OSError):
            while one.connection.recv(1 << 17):  # closing with bytes unread would reset the farewell away
                pass
        with contextlib.suppress(OSError):
            one.connection.send(farewell)
        one.connection.close()


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()
