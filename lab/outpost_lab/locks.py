"""One build at a time: labs share images, RPMs and the key that signs them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outpost_lab.progress import say


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; says so when another lab's command has it and we wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another lab is at work in {path.parent}, waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
