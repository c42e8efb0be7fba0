"""Ending the service part by part: none may keep the others from their end, nor the process."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)


def end_all(steps: Sequence[tuple[str, Callable[[], object]]], seconds: float) -> list[str]:
    """Call every step at once, each in a thread of its own, and wait `seconds` at most for all of them together.

    A step that fails is logged; one that does not return is left behind. Returns the names of both kinds.
    """
    until = time.monotonic() + seconds
    failed: list[str] = []

    def run(name: str, step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException:
            log.exception("%s could not be stopped: going on without it", name)
            failed.append(name)

    threads = [
        (name, threading.Thread(target=run, args=(name, step), name=f"end-{name}", daemon=True))
        for name, step in steps
    ]
    for _, thread in threads:
        thread.start()
    late = []
    for name, thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            late.append(name)
    if late:
        log.error("%s did not stop within %g s: going on without", ", ".join(late), seconds)
    return [*failed, *late]


def at_the_latest(seconds: float, status: int) -> None:
    """End the process after that time with that status, whatever it is then doing."""

    def end() -> None:
        log.error("the service did not end within %g s: ending the process", seconds)
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
