"""Opening the journal at the start of the service, whatever state it is in.

A damaged one is put aside and rebuilt; one that is in the way (a full disk, a file system mounted read-only, a file of
another user) is waited for. Meanwhile the HTTP port answers that the service is not ready, and why.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from outpost.heal import steps
from outpost.heal.damage import (
    JOURNAL,
    Damage,
    JournalTooNew,
    JournalUnusable,
    is_damage,
    judge,
    usable,
    write_suspect,
)
from outpost.records.journal import Budget, Journal, JournalError

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
# So many rebuilds within an hour may be as many power cuts. Beyond that the disk or the memory damages what we write.
_REBUILDS_AT_ONCE = 10
_PAUSE_FIRST_SECONDS, _PAUSE_MOST_SECONDS = 30.0, 600.0


class Notice(Protocol):
    """Says what the service waits for to whoever asks, until `close`."""

    def show(self, text: str) -> None:
        """Why the service is not ready, in one sentence. Also a sign that there is progress."""

    def close(self) -> None:
        """The journal is open."""


class Stopped(Exception):
    """The service was told to end while it waited."""


def open_journal(
    root: Path,
    system: str,
    budget: Budget | None,
    model_reads: Callable[[], Collection[str] | None],
    notice: Notice,
    stopping: threading.Event,
) -> Journal:
    """The journal, sound as far as can be told in time. The caller holds the storage.

    Raises `Stopped`, and `JournalTooNew` where a newer release wrote it.
    """
    told = ""
    try:
        while not stopping.is_set():
            try:
                with usable(root / JOURNAL), _in_folder(root):
                    heal(root, system, model_reads, lambda text: _go_on(notice, text, stopping), stopping)
                    return _opened(root, system, budget)
            except JournalUnusable as unusable:
                if str(unusable) != told:
                    told = str(unusable)
                    log.error("the journal cannot be used: %s; trying again every %g s", told, _RETRY_SECONDS)  # noqa: TRY400 - the text says it all
                notice.show(told)
                stopping.wait(_RETRY_SECONDS)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                # The check of bounded time had not come to it.
                write_suspect(root, "CORRUPT", str(error))
        raise Stopped
    finally:
        notice.close()


def heal(
    root: Path,
    system: str,
    model_reads: Callable[[], Collection[str] | None],
    tell: Callable[[str], None],
    stopping: threading.Event | None = None,
    damage: Damage | None = None,
) -> str:
    """Rebuild the journal if it is damaged, or `damage` says so; returns what was done, empty when nothing was.

    Raises `JournalUnusable`, `JournalTooNew`, OSError, sqlite3.Error.
    """
    attempt = steps.under_way(root)
    if attempt is None:
        damage = damage or judge(root)
        if damage is None:
            return ""
        log.error(
            "the journal is damaged (%s: %s): putting it aside and rebuilding it",
            damage.reason,
            damage.detail,
        )
        _wait_out(root, damage, tell, stopping)
        attempt = steps.begin(root, damage)
    said = f"the journal is being rebuilt since {attempt.damage.reason}: {attempt.damage.detail}"
    tell(said)
    if steps.put_aside(root, attempt):
        done = "the new journal was already in its place"
    else:
        begun = time.monotonic()
        done = steps.rebuild(root, system, attempt, model_reads(), lambda: tell(said))
        log.warning("the journal was rebuilt in %.1f s: %s", time.monotonic() - begun, done)
    steps.finish(root)
    return done


def _wait_out(
    root: Path, damage: Damage, tell: Callable[[str], None], stopping: threading.Event | None
) -> None:
    """Where journals are damaged again and again, leave pauses: rebuilding without end would wear out what is left."""
    times = steps.rebuilt_times(root)
    if len(times) < _REBUILDS_AT_ONCE or stopping is None:
        return
    pause = min(_PAUSE_MOST_SECONDS, _PAUSE_FIRST_SECONDS * 2 ** min(len(times) - _REBUILDS_AT_ONCE, 10))
    until = time.monotonic() + pause
    log.error("the journal was rebuilt %d times within an hour: waiting %.0f s", len(times), pause)
    while time.monotonic() < until:
        tell(
            f"the journal is damaged ({damage.reason}) and was rebuilt {len(times)} times within an hour: the disk or"
            " the memory of this host is failing: replace it; trying again by itself"
        )
        stopping.wait(min(_RETRY_SECONDS, max(0.0, until - time.monotonic())))


def _opened(root: Path, system: str, budget: Budget | None) -> Journal:
    try:
        return Journal(root / JOURNAL, system, budget)
    except JournalError as error:
        raise JournalTooNew(str(error)) from None


def _go_on(notice: Notice, text: str, stopping: threading.Event) -> None:
    notice.show(text)
    if stopping.is_set():
        raise Stopped


@contextmanager
def _in_folder(root: Path) -> Iterator[None]:
    if not root.is_dir():
        raise JournalUnusable(f"storage.root {root} is gone: mount it; nothing was changed")
    yield
