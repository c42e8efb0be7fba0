"""Senders that send what no image is, again and again: each waits longer for its answer than for the one before.

By sender and address, and forgotten with time, so that nobody else waits for it. The same bytes from the same sender
are known again by their digest: they are refused without being walked, and not kept a second time.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 10.0
# Half of what somebody did is forgotten in this time.
HALF_LIFE_SECONDS: Final = 300.0
_MOST_SENDERS: Final = 512
_MOST_ALIKE: Final = 16  # digests kept of one sender
_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class _Known:
    strikes: float = 0.0
    at: float = field(default_factory=time.monotonic)
    files: OrderedDict[tuple[int, str], tuple[str, Path | None]] = field(default_factory=OrderedDict)


class Poison:
    """What each sender sent of it lately. Safe to use from any thread."""

    def __init__(self, most_waiting: int = 4) -> None:
        """`most_waiting`: senders are kept waiting at a time, whoever they are; they hold associations meanwhile."""
        self._lock = threading.Lock()
        self._senders: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._seats = threading.BoundedSemaphore(most_waiting)
        self._closing = threading.Event()

    def known(self, sender: str, address: str, path: Path) -> str:
        """Why these very bytes of this sender were refused, and are still kept; empty where they were not."""
        with self._lock:
            known = self._senders.get((sender, address))
            sizes = {size for size, _ in known.files} if known is not None else set()
        if known is None or path.stat().st_size not in sizes:
            return ""
        words, kept = known.files.get(_digest(path), ("", None))
        return words if kept is not None and kept.exists() else ""

    def struck(self, sender: str, address: str) -> float:
        """Another one came; returns the seconds for which its sender should wait for the answer."""
        now = time.monotonic()
        with self._lock:
            known = self._senders.setdefault((sender, address), _Known())
            self._senders.move_to_end((sender, address))
            while len(self._senders) > _MOST_SENDERS:
                self._senders.popitem(last=False)
            known.strikes = 1 + known.strikes * 0.5 ** ((now - known.at) / HALF_LIFE_SECONDS)
            known.at = now
            if known.strikes < 1.5:
                return 0.0
            return float(min(FIRST_WAIT_SECONDS * 2 ** min(known.strikes - 2, 16), LONGEST_WAIT_SECONDS))

    def remember(self, sender: str, address: str, path: Path, words: str, kept: Path) -> None:
        """`path` was refused, and why; its bytes are kept."""
        digest = _digest(path)
        with self._lock:
            known = self._senders.get((sender, address))
            if known is not None:
                known.files[digest] = words, kept
                while len(known.files) > _MOST_ALIKE:
                    known.files.popitem(last=False)

    def hold(self, seconds: float) -> None:
        """Have the caller, a thread of the sender's own, wait; not at all where enough others do."""
        if seconds > 0 and self._seats.acquire(blocking=False):
            try:
                self._closing.wait(seconds)
            finally:
                self._seats.release()

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closing.set()


def _digest(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
