"""The gate: how many studies may be in the model at once, when a study asks for more room than usual."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Gate:
    """Lets in as many as every one inside, and the next in line, agree to; first come, first served."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: list[int] = []
        self._line: deque[object] = deque()

    @property
    def limit(self) -> int | None:
        """The least number that somebody inside or first in line wants not to be exceeded; None if empty."""
        with self._condition:
            return min(self._inside, default=None)

    @contextmanager
    def entered(self, parallel: int, given_up: Callable[[], bool]) -> Iterator[float]:
        """Be inside while no more than `parallel` are; yields the seconds waited.

        `given_up` is asked while waiting: once true, whoever waits is let in, to find the work ended.
        """
        began = time.monotonic()
        ticket = object()
        with self._condition:
            self._line.append(ticket)
            try:
                while not given_up():
                    first = self._line[0] is ticket
                    if first and len(self._inside) < min([parallel, *self._inside]):
                        break
                    self._condition.wait(0.5)
            finally:
                self._line.remove(ticket)
            self._inside.append(parallel)
            self._condition.notify_all()
        try:
            yield time.monotonic() - began
        finally:
            with self._condition:
                self._inside.remove(parallel)
                self._condition.notify_all()
