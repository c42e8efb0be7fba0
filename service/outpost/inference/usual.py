"""How long studies usually take on this host: what a worker that hangs is judged by.

Kept in the journal, so that a restart need not learn it again. What cannot be read there is as if nothing were known:
then the golden case's time stands for it.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from statistics import median

from outpost.records.journal import Journal

_KEPT = 32  # the newest of each rung: the middle of them is not moved by one odd study
_ENOUGH = 3
_MOST_RUNGS = 64
_KEEP_EVERY = 8  # a study; what is lost by a kill is learnt again soon
_LONGEST_SECONDS = 3600.0


class UsualTimes:
    """Seconds that computing takes, by rung, for an input of the golden case's size. Safe to use from any thread.

    Args:
        journal: where they are kept.
        bundle: name, version and host, as the ladder names them: with another model or card all is learnt again.
    """

    def __init__(self, journal: Journal, bundle: str) -> None:
        self._journal = journal
        self._bundle = bundle
        self._lock = threading.Lock()
        self._noted = 0
        self._times = _read(journal.fact("usual_seconds"), bundle)

    def note(self, rung: str, seconds: float, scale: float = 1.0) -> None:
        """A study took so long at a rung; `scale` is its size as a multiple of the golden case."""
        if not (math.isfinite(seconds) and math.isfinite(scale) and 0 < seconds < _LONGEST_SECONDS):
            return
        with self._lock:
            if rung not in self._times and len(self._times) >= _MOST_RUNGS:
                return
            self._times.setdefault(rung, deque(maxlen=_KEPT)).append(seconds / max(1.0, scale))
            self._noted += 1
            if self._noted % _KEEP_EVERY and self._noted != _ENOUGH:
                return
            times = {name: [round(one, 3) for one in found] for name, found in self._times.items()}
        self._journal.keep_fact("usual_seconds", json.dumps({"bundle": self._bundle, "seconds": times}))

    def of(self, rung: str) -> float | None:
        """The usual time at a rung; None before enough studies were computed there."""
        with self._lock:
            times = self._times.get(rung, ())
            return median(times) if len(times) >= _ENOUGH else None


def _read(kept: str | None, bundle: str) -> dict[str, deque[float]]:
    try:
        found = json.loads(kept or "{}")
        if found.get("bundle") != bundle:
            return {}
        return {
            str(rung): deque((one for one in map(float, times) if 0 < one < _LONGEST_SECONDS), maxlen=_KEPT)
            for rung, times in list(found["seconds"].items())[:_MOST_RUNGS]
        }
    # A damaged journal may hold anything; nothing of it is worth more than learning it again.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
