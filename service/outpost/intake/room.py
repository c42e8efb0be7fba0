"""Room on the disk: when intake stops taking, and when it takes again.

It stops early on purpose. What it leaves free belongs to the journal, the results and the log: a full disk
would lose what was acknowledged, a refused association is merely repeated by its sender.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
# Once closed, this much more than the mark must be free before anything is taken again: otherwise one removed
# study would open the door for a single image, and senders would meet it open and shut in turns.
_REOPEN_FREE = 1.1
_REOPEN_PERCENT = 1.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system as its unprivileged users see it, in bytes; `used_percent` is what df shows.

    Or what `df -i` shows, where that is more: thousands of small files use up inodes long before they use up bytes.
    """

    free: int
    used_percent: float


def disk_of(root: Path) -> Disk:
    status = os.statvfs(root)
    used = status.f_blocks - status.f_bfree
    usable = used + status.f_bavail
    files = status.f_files - status.f_ffree  # both 0 where a file system makes inodes as it needs them
    may_be = files + status.f_favail
    used_percent = max(100 * used / usable if usable else 100.0, 100 * files / may_be if may_be > 0 else 0.0)
    return Disk(status.f_bavail * status.f_frsize, used_percent)


class Room:
    """Whether there is room for another instance. Safe to use from any thread.

    `reserve_mib`: free MiB that stay free; `used_percent`: share of the file system that may be used. Either
    being crossed closes it. Bytes announced by `expect` count as if they lay on the disk already.
    """

    def __init__(self, root: Path, reserve_mib: int, used_percent: float = 100) -> None:
        self._root = root
        self._reserve = reserve_mib * MIB
        self._used_percent = used_percent
        self._lock = threading.Lock()
        self._expected: dict[object, int] = {}
        self._closed = False

    def expect(self, sender: object, size: int) -> None:
        """`sender` is in the middle of an instance of which `size` more bytes are likely to come."""
        with self._lock:
            if size > 0:
                self._expected[sender] = size
            else:
                self._expected.pop(sender, None)

    def closed(self) -> bool:
        """Whether nothing new may be taken."""
        disk = disk_of(self._root)
        with self._lock:
            free = disk.free - sum(self._expected.values())
            used_percent = disk.used_percent
            if self._expected and disk.free:
                # The free share shrinks by what is still to come.
                used_percent = 100 - (100 - used_percent) * max(free, 0) / disk.free
            if self._closed:
                self._closed = (
                    free < self._reserve * _REOPEN_FREE or used_percent > self._used_percent - _REOPEN_PERCENT
                )
            else:
                self._closed = free < self._reserve or used_percent > self._used_percent
            return self._closed
