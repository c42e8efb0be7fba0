"""One line per step with the seconds it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_started = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds since the program began."""
    print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce `title`, then say how long it took; nothing more when it fails, the error speaks."""
    begun = time.monotonic()
    say(f"{title} ...")
    yield
    say(f"{title}: {time.monotonic() - begun:.1f} s")
