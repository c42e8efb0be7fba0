"""How a child tells its parent that it gets on: a beat at each step, and before each piece of work in it.

Code that reads and decodes beats; outside a child nobody listens, and a beat costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# A beat that announces no more work than this is told seldom: a study may have 10,000 files.
_LITTLE_MIB, _SELDOM_SECONDS = 4.0, 0.2

Listener = Callable[[str, float, float], None]

_listener: Listener | None = None
_step = ""
_told_at = 0.0


def listen(listener: Listener | None) -> None:
    """Have beats told from now on: as (step, MiB of the work that comes, its size in golden cases)."""
    global _listener
    _listener = listener


def step(name: str, *, mib: float = 0.0, scale: float = 1.0) -> None:
    """Another step begins, with so much work; `scale` is its size as a multiple of the golden case."""
    global _step
    _step = name
    _tell(mib, scale)


def beat(mib: float = 0.0) -> None:
    """The next piece of the present step begins: so many MiB are to be decoded or written."""
    if _listener is not None and (mib > _LITTLE_MIB or time.monotonic() - _told_at > _SELDOM_SECONDS):
        _tell(mib, 1.0)


def _tell(mib: float, scale: float) -> None:
    global _told_at
    if _listener is not None:
        _told_at = time.monotonic()
        _listener(_step, mib, scale)
