"""Who is connected to the DICOM port, how many they may be, and how long one may keep a place without using it.

A place is an association. One sender (AE title at an address) gets half of the places, one address three quarters, so
that others always find one. Where no place is left, an association that does nothing gives way to one that asks: first
those that never stored anything. A connection that stops in the middle of a PDU, or brings it byte by byte, is cut:
pynetdicom's own timers do not run while it reads one.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 0.25
_WINDOWS: Final = 4  # of a stall time: so finely is measured
# Slower than this is nobody's line: 9600 baud brings 960.
LEAST_BYTES_PER_SECOND: Final = 128
# A-ABORT of the service provider, reason not specified (PS3.8 9.3.8).
_ABORT: Final = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00"
_CALLED: Final = slice(10, 26)  # of an A-ASSOCIATE-RQ (PS3.8 9.3.2)
_CALLING: Final = slice(26, 42)
_REQUEST: Final = 0x01
# A request with 128 contexts of every transfer syntax there is has 300 KiB; the kernel need not hold all of it.
_ENOUGH_OF_REQUEST: Final = 16 << 10
_LONGEST_REQUEST: Final = 1 << 20


class Why(StrEnum):
    """Why a connection was cut. Labels of a metric."""

    REQUEST_LATE = "REQUEST_LATE"
    NEVER_USED = "NEVER_USED"
    TOO_SLOW = "TOO_SLOW"
    GAVE_WAY = "GAVE_WAY"


WORDS: Final = {
    Why.REQUEST_LATE: "it connected and did not ask for an association in time",
    Why.NEVER_USED: "its association was open and nothing was asked on it in intake.unused_seconds",
    Why.TOO_SLOW: (
        "in the middle of a message it sent less than "
        f"{LEAST_BYTES_PER_SECOND} bytes a second for intake.stall_seconds: look at the line or at the sender"
    ),
    Why.GAVE_WAY: (
        "its association did nothing while another sender found no place: see intake.max_associations and "
        "intake.max_associations_per_peer"
    ),
}


@dataclass(frozen=True, slots=True)
class Places:
    """How many associations there may be, and the patience with each, in seconds.

    `most` in all, `per_sender` of an AE title at an address, `per_address` of an address.
    """

    most: int
    per_sender: int
    per_address: int
    request_seconds: float = 30.0
    unused_seconds: float = 60.0
    stall_seconds: float = 60.0
    idle_gives_way_seconds: float = 5.0
    half_gives_way_seconds: float = 15.0

    @classmethod
    def of(cls, most: int, per_sender: int = 0, **patience: float) -> Places:
        """`per_sender` 0: half of the places, all where there are fewer than four."""
        reserve = most // 4
        per_sender = min(most, per_sender) if per_sender else (most + 1) // 2 if most >= 4 else most
        return cls(most, per_sender, max(per_sender, most - reserve), **patience)


@dataclass(slots=True, eq=False)
class Guest:
    """One connection. Times are monotonic seconds."""

    address: str
    connection: socket.socket
    since: float
    title: str = ""
    place: bool = False  # it has an association, or is about to
    known: bool = False  # it stored something here before
    stored: bool = False  # on this association
    asked: bool = False
    busy: int = 0  # requests of it that are being answered
    half: Callable[[], bool] = lambda: False  # whether a message of it has begun and not ended
    head: bool = False  # the head of a PDU is here, the rest is not
    reading: bool = False
    came: int = 0  # bytes, in all
    last: float = 0.0  # when bytes came
    marks: list[tuple[float, int]] = field(
        default_factory=list
    )  # while a message is half: (when, bytes in all)
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    # --- from the thread that reads ---

    def reads(self) -> None:
        """The head or the rest of a PDU is being waited for."""
        self.reading = True

    def moved(self, size: int) -> None:
        """Bytes have come."""
        self.came += size
        self.last = time.monotonic()

    def has_read(self) -> None:
        """The head, or the rest, is here."""
        self.head = not self.head
        self.reading = self.head

    # ---

    def cut(self, farewell: bytes = b"") -> None:
        """End the connection under whoever reads or writes on it: they see it closed. Safe to repeat."""
        with self.lock:
            self.gone = True
            if self.connection.fileno() < 0:
                return
            with contextlib.suppress(OSError):
                if farewell and type(self.connection) is socket.socket:
                    self.connection.send(farewell, socket.MSG_DONTWAIT)
            with contextlib.suppress(OSError):
                # Not SSLSocket's own: that one takes its state from under a thread that reads.
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back. Safe to repeat."""
        with self.lock:
            self.gone = True
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                self.connection.close()


class Guests:
    """The book of who is here. Safe to use from any thread; `run` is a thread's."""

    def __init__(self, places: Places, told: Callable[[Why, Guest], None], known: Iterable[str] = ()) -> None:
        """`told` hears of each that was cut; `known` are AE titles of the site's own senders."""
        self.places = places
        self._told = told
        self._lock = threading.Lock()
        self._guests: set[Guest] = set()
        self._stored: dict[tuple[str, str], float] = {}  # senders that stored something, and when
        self._known = frozenset(known)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guests", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Cut whoever is still here."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        for guest in self._all():
            guest.cut(_ABORT)

    def arrived(self, connection: socket.socket, address: str) -> Guest:
        """A connection that was let in."""
        now = time.monotonic()
        guest = Guest(address, connection, now, last=now)
        with self._lock:
            self._guests.add(guest)
        return guest

    def left(self, guest: Guest) -> None:
        """Its connection is closed."""
        with self._lock:
            self._guests.discard(guest)

    def open(self) -> int:
        """How many places are taken."""
        with self._lock:
            return sum(guest.place and not guest.gone for guest in self._guests)

    def connected(self) -> int:
        """How many connections are open, those with a place among them."""
        with self._lock:
            return len(self._guests)

    def refusal(self, address: str, title: str) -> str | None:
        """Why this sender would find no place, in words; None where it finds one, for which nobody need give way."""
        with self._lock:
            return self._refusal(address, title, self._giving_way(address, title, time.monotonic()))

    def take_place(self, guest: Guest, title: str) -> str | None:
        """Give it a place; the reason, in words, where there is none."""
        now = time.monotonic()
        with self._lock:
            giving = self._giving_way(guest.address, title, now)
            refusal = self._refusal(guest.address, title, giving)
            if refusal is not None:
                return refusal
            guest.title, guest.place, guest.since, guest.last = title, True, now, now
            guest.known = title in self._known or (guest.address, title) in self._stored
            if giving is not None:
                giving.gone = True
        if giving is not None:
            self._told(Why.GAVE_WAY, giving)
            giving.cut(_ABORT)
        return None

    def stores(self, guest: Guest) -> None:
        """It stored something."""
        guest.stored = guest.known = True
        with self._lock:
            self._stored[guest.address, guest.title] = time.monotonic()
            while len(self._stored) > 1000:  # an AE title is whatever somebody writes
                self._stored.pop(next(iter(self._stored)))

    def _all(self) -> list[Guest]:
        with self._lock:
            return list(self._guests)

    def _refusal(self, address: str, title: str, giving: Guest | None) -> str | None:
        """By what is taken, less the one that gives way."""
        places = self.places
        holding = [guest for guest in self._guests if guest.place and not guest.gone and guest is not giving]
        if len(holding) >= places.most:
            return f"{len(holding)} associations are open, as many as intake.max_associations allows"
        of_sender = sum(guest.address == address and guest.title == title for guest in holding)
        if of_sender >= places.per_sender:
            return (
                f"{of_sender} associations of this sender are open, as many as intake.max_associations_per_peer "
                "allows one AE title at one address"
            )
        of_address = sum(guest.address == address for guest in holding)
        if of_address >= places.per_address:
            return (
                f"{of_address} associations of this address are open; the other {places.most - places.per_address} "
                "of intake.max_associations are kept for others"
            )
        return None

    def _giving_way(self, address: str, title: str, now: float) -> Guest | None:
        """Who has to go for this sender to find a place; None where nobody has to, or nobody is idle."""
        if self._refusal(address, title, None) is None:
            return None
        holding = [guest for guest in self._guests if guest.place and not guest.gone]
        per_address = Counter(guest.address for guest in holding)
        per_sender = Counter((guest.address, guest.title) for guest in holding)
        if per_sender[address, title] >= self.places.per_sender:
            holding = [guest for guest in holding if (guest.address, guest.title) == (address, title)]
        elif per_address[address] >= self.places.per_address:
            holding = [guest for guest in holding if guest.address == address]
        idle = [guest for guest in holding if self._is_idle(guest, now)]
        return max(
            idle,
            key=lambda guest: (
                not guest.stored,
                not guest.known,
                per_sender[guest.address, guest.title],
                now - guest.last,
            ),
            default=None,
        )

    def _is_idle(self, guest: Guest, now: float) -> bool:
        if guest.busy:
            return False
        silent = now - guest.last
        if guest.half() or guest.reading:
            return silent > self.places.half_gives_way_seconds
        return silent > self.places.idle_gives_way_seconds

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("connections could not be looked at, going on")

    def look(self, now: float) -> None:
        """Cut whoever keeps a place, or a thread, without using it."""
        for guest in self._all():
            if guest.connection.fileno() < 0:
                self.left(guest)
                continue
            why = None if guest.gone else self._why_to_cut(guest, now)
            if why is not None:
                self._told(why, guest)
                guest.cut(b"" if why is Why.REQUEST_LATE else _ABORT)

    def _why_to_cut(self, guest: Guest, now: float) -> Why | None:
        places = self.places
        if not guest.place:
            return Why.REQUEST_LATE if now - guest.since > places.request_seconds else None
        if guest.reading or (guest.half() and not guest.busy):
            return Why.TOO_SLOW if self._crawls(guest, now) else None
        guest.marks.clear()
        unused = not (guest.asked or guest.known)
        if unused and now - guest.last > places.unused_seconds:
            return Why.NEVER_USED
        return None

    def _crawls(self, guest: Guest, now: float) -> bool:
        """Whether it brought next to nothing for as long as a line may stall."""
        stall, marks = self.places.stall_seconds, guest.marks
        if not marks:
            marks.append((guest.last, guest.came))
        while len(marks) > 1 and now - marks[1][0] >= stall:
            del marks[0]
        then, had = marks[0]
        if now - then >= stall:
            return guest.came - had < LEAST_BYTES_PER_SECOND * stall
        if now - marks[-1][0] >= stall / _WINDOWS:
            marks.append((now, guest.came))
        return False


# --- before anything is read ---


def whole_request(data: bytes) -> bool | None:
    """Whether these first bytes of a connection are an A-ASSOCIATE-RQ; None where they never will be one."""
    if data[0] != _REQUEST:
        return None
    if len(data) < 6:
        return False
    length = int.from_bytes(data[2:6], "big")
    if length > _LONGEST_REQUEST:
        return None
    return len(data) >= min(6 + length, _ENOUGH_OF_REQUEST)


def calling_title(data: bytes) -> str:
    """The calling AE title of an A-ASSOCIATE-RQ; empty where there is none of the right form."""
    try:
        return data[_CALLING].decode("ascii").strip()
    except UnicodeDecodeError:
        return ""


def rejection(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return bytes((0x03, 0, 0, 0, 0, 4, 0, result, source, reason))
