"""An answer that is being worked on for somebody: it ends when that one has gone, or when it took too long.

Whoever works in loops on behalf of a request calls `go_on()` now and then. It also leaves the interpreter to intake
for most of the time: what is read for a page is never worth a slower image.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_WORK_SECONDS: Final = 0.004  # at a stretch
_REST: Final = 2.0  # times as long as was worked


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class TooCostly(Exception):
    """The answer took longer than one may; the text says so, with a remedy."""


class Errand:
    """One request's work. `seconds` is how long it may take from now; `stop` may be called from any thread."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds if seconds is not None else None
        self._stopped = False
        self._began = time.monotonic()

    def stop(self) -> None:
        """Whoever asked has gone."""
        self._stopped = True

    @property
    def over(self) -> bool:
        """Whether to go on is in vain."""
        return self._stopped or (self._until is not None and time.monotonic() > self._until)

    def check(self) -> None:
        """Raises `Abandoned` or `TooCostly` where going on is in vain."""
        if self._stopped:
            raise Abandoned
        if self.over:
            raise TooCostly(
                f"the answer took longer than {self.seconds:g} s and was given up: ask for less, a shorter period or "
                "a smaller limit"
            )

    def rest(self) -> None:
        """Leave the interpreter to others for a moment where it was used for a while."""
        worked = time.monotonic() - self._began
        if worked > _WORK_SECONDS:
            time.sleep(min(worked * _REST, 0.1))
            self._began = time.monotonic()


_current: ContextVar[Errand | None] = ContextVar("errand", default=None)


@contextmanager
def of(errand: Errand) -> Iterator[None]:
    """What runs inside, in threads started from here too, works for this errand."""
    token = _current.set(errand)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Errand | None:
    """The errand that runs here; None where nobody waits."""
    return _current.get()


def go_on() -> None:
    """Between two steps of long work: raises `Abandoned` or `TooCostly`; does nothing where nobody waits."""
    errand = _current.get()
    if errand is not None:
        errand.check()
        errand.rest()


@contextmanager
def reading(db: sqlite3.Connection) -> Iterator[None]:
    """A query of this connection ends with its errand, in the middle of it. Raises `Abandoned`, `TooCostly`."""
    errand = _current.get()
    if errand is None:
        yield
        return
    errand.check()
    db.set_progress_handler(lambda: errand.over, 100_000)
    try:
        yield
    except sqlite3.OperationalError:
        errand.check()  # says why it was interrupted, where it was us
        raise
    finally:
        db.set_progress_handler(None, 0)
