"""Looking at files nobody trusts, from outside: each is opened in a child process that may be killed at any moment.

What a decoder does with hostile bytes - crash, hang, take all memory - it does there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from outpost.quarantine.child import UNREADABLE
from outpost.reasons import explain

SECONDS: Final = 20.0
SMALL: Final = 160  # pixels a side: what is written into an image cannot be read at that size ...
SMALL_FACTOR: Final = 4  # ... and an image that is itself so small is made smaller by as much at least
LARGE: Final = 512
_MOST_BYTES: Final = 4 << 20
_WAIT_SECONDS: Final = 10.0

# Looking may take no more of the host than one core and one child's memory.
_seat = threading.BoundedSemaphore(1)
# Whoever waits holds one of the API's threads: a few may, all others are sent away at once.
_MOST_WAITING: Final = 2
_places = threading.BoundedSemaphore(1 + _MOST_WAITING)


class CannotLook(Exception):
    """The file shows nothing; the text says why, without anything from the file."""


class Busy(CannotLook):
    """Somebody else is looking at something: ask again in a moment."""


def header(file: Path, *, identity: bool) -> dict[str, str]:
    """What the header says: keyword to text. Who the patient is only where `identity` is asked for."""
    found: dict[str, Any] = json.loads(_ask("identity" if identity else "header", file))
    return {str(keyword): str(value) for keyword, value in found.items()}


def picture(file: Path, size: int = SMALL) -> bytes:
    """The (middle) frame as a PNG of at most `size` pixels a side, for `SMALL` by `SMALL_FACTOR` smaller at least."""
    answer = _ask("picture", file, str(size), str(SMALL_FACTOR if size <= SMALL else 1))
    if not answer.startswith(b"\x89PNG\r\n\x1a\n"):
        raise CannotLook("the decoder gave no picture")
    return answer


def _ask(what: str, file: Path, *more: str) -> bytes:
    if not _places.acquire(blocking=False):
        raise Busy(
            f"another file is being opened and {_MOST_WAITING} more wait for it: ask again in a moment"
        )
    try:
        if not _seat.acquire(timeout=_WAIT_SECONDS):
            raise Busy("another file is being opened: ask again in a moment")
        try:
            return _asked([sys.executable, "-m", "outpost.quarantine.child", what, str(file), *more])
        finally:
            _seat.release()
    finally:
        _places.release()


def _asked(command: list[str]) -> bytes:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libraries quote the data set
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    late = threading.Timer(SECONDS, process.kill)
    late.start()
    assert process.stdout is not None
    try:
        answer = process.stdout.read(_MOST_BYTES + 1)
        if len(answer) > _MOST_BYTES:
            raise CannotLook("the answer is longer than any picture")
        status = process.wait()
    finally:
        late.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if status == UNREADABLE:
        code = answer.decode("ascii", "replace")[:40]
        reason = explain(code)
        raise CannotLook(
            f"{code}: {reason.meaning}"
            if reason
            else "opening it takes more memory than is allowed for looking"
        )
    if status == 0:
        return answer
    raise CannotLook(
        f"opening it took longer than {SECONDS:g} s or more memory than is allowed, or the decoder crashed "
        f"(status {status})"
    )
