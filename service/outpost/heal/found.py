"""Files of the service's own that were found damaged: put aside under a name that says when and why, never deleted.

Whoever reads such a file calls `put_aside` and goes on with its default, or with its last good copy. What was found is
kept here until it is in the journal as an event (`outpost.heal.watch`), and health shows it for a day.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# Of each file, the newest that were put aside.
KEPT: Final = 3
_SHOWN: Final = timedelta(hours=24)
_MOST: Final = 100
_lock = threading.Lock()
_untold: list[Found] = []
_shown: list[Found] = []


@dataclass(frozen=True, slots=True)
class Found:
    """A damaged file: its name, why, where it is now (None: it could not be moved), and what is used instead."""

    at: datetime
    file: Path
    why: str
    aside: Path | None
    instead: str

    def __str__(self) -> str:
        where = f"put aside as {self.aside.name}" if self.aside is not None else "it could not be put aside"
        return f"{self.file.name}: {self.why}; {where}; {self.instead}"


def put_aside(file: Path, why: str, instead: str, *, move: bool = True) -> Found:
    """Have a damaged file out of the way and remember it. Never raises.

    Args:
        why: without a value of a patient.
        instead: what is used now, as a clause: "nothing is known of that day".
        move: not, where the file is none of ours to move, or cannot be read for want of permission.
    """
    aside = _moved(file, why) if move else None
    found = Found(datetime.now(UTC), file, why[:300], aside, instead)
    with _lock:
        if any((one.file, one.why, one.aside) == (found.file, found.why, None) for one in _shown):
            return found  # looked at again and again: it is told once
        _untold.append(found)
        _shown.append(found)
        del _untold[:-_MOST], _shown[:-_MOST]
    log.error("damaged file: %s", found)
    return found


def untold() -> list[Found]:
    """What no event tells of yet; the caller tells of it."""
    with _lock:
        found = list(_untold)
        _untold.clear()
    return found


def tell_again(found: list[Found]) -> None:
    """The journal could not take them: they are told later."""
    with _lock:
        _untold[:0] = found


def shown(now: datetime | None = None) -> list[Found]:
    """What was found within the last day, in this process."""
    since = (now or datetime.now(UTC)) - _SHOWN
    with _lock:
        return [one for one in _shown if one.at >= since]


def _moved(file: Path, why: str) -> Path | None:
    word = re.sub(r"[^A-Za-z0-9]+", "-", why).strip("-")[:24] or "damaged"
    target = file.with_name(f"{file.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{word}")
    try:
        if not os.path.lexists(file):
            return None
        file.rename(target)
    except OSError:
        return None
    with suppress(OSError):
        older = sorted(file.parent.glob(f"{file.name}.damaged-*"))
        for old in older[:-KEPT]:
            if old.is_file() or old.is_symlink():
                old.unlink()
    return target
