"""Whether an instance that came again with other bytes is the same image, encoded in another way.

Archives and gateways send one image as RLE, JPEG lossless, deflated or big endian, as it suits them; its values and
pixels stay. That is looked at only when the values as encoded differ, and in a child process: nothing of a sender is
decompressed here. The child is kept for the rest of the study, and killed when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# The sender waits for its answer: DICOM peers give up after half a minute and more.
SECONDS: Final = 15.0
_SEAT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 30.0
_MOST_BYTES: Final = 1024
# Whoever sends what ends one child after the other shall not have a core for it: then nothing is compared for a while.
_MOST_FAILURES: Final = 5
_REST_SECONDS: Final = 60.0
_UNDECIDED: Final = "this UID is held; whether with the same image was not found out"


@dataclass(frozen=True, slots=True)
class Answer:
    """`same`: it is the image that is held. Else `comment` (64 characters at most) may say more, or is empty."""

    same: bool
    comment: str = ""


def compare(arrived: Path, held: Path | None, digest: str) -> Answer:
    """Compare a file with the one that is held, or with its `content_digest` where that file is gone.

    Where it cannot be decided, in time or at all, it is not the same: nothing is overwritten then.
    """
    return _comparer.compare(arrived, held, digest)


class _Comparer:
    """One child at a time, whoever asks: comparing takes no more of the host than one core and its memory."""

    def __init__(self) -> None:
        self._seat = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._leaving: threading.Timer | None = None
        self._failures = 0  # one behind the other
        self._rests_until = 0.0

    def compare(self, arrived: Path, held: Path | None, digest: str) -> Answer:
        if not self._seat.acquire(timeout=_SEAT_SECONDS):
            return Answer(same=False, comment=_UNDECIDED)
        try:
            if self._leaving is not None:
                self._leaving.cancel()
            if time.monotonic() < self._rests_until:
                return Answer(same=False, comment=_UNDECIDED)
            found = self._ask([str(arrived), str(held) if held is not None else "", digest])
            self._count(failed=found is None)
            self._leaving = threading.Timer(_IDLE_SECONDS, self._dismiss_idle)
            self._leaving.daemon = True
            self._leaving.start()
        except OSError as error:
            log.warning("two encodings of an instance could not be compared: %s", error.strerror)
            found = None
        finally:
            self._seat.release()
        return found or Answer(same=False, comment=_UNDECIDED)

    def _ask(self, question: list[str]) -> Answer | None:
        for _ in range(2):  # a child that has had its share of questions leaves; the next one is asked
            fresh = self._child is None or self._child.poll() is not None
            if fresh:
                self._child = _start()
            assert self._child is not None
            line, late = _answer(self._child, json.dumps(question).encode() + b"\n")
            if line:
                said = json.loads(line)
                return Answer(said["same"] is True, str(said["comment"])[:64])
            self._dismiss()
            if late:
                log.warning("comparing two encodings of an instance took longer than %g s", SECONDS)
                return None
            if fresh:
                log.warning(
                    "comparing two encodings of an instance took too much memory, or crashed a decoder"
                )
                return None
        return None

    def _count(self, *, failed: bool) -> None:
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= _MOST_FAILURES:
            self._failures, self._rests_until = 0, time.monotonic() + _REST_SECONDS
            log.warning(
                "comparing encodings failed %d times: left alone for %g s", _MOST_FAILURES, _REST_SECONDS
            )

    def _dismiss(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _dismiss_idle(self) -> None:
        if self._seat.acquire(blocking=False):  # else it is in use, and the next timer runs after that
            try:
                self._dismiss()
            finally:
                self._seat.release()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "outpost.intake.same_child"],
        stdin=subprocess.PIPE,  # closed when this process ends, whatever ends it: the child then ends, too
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libraries quote the data set
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def _answer(child: subprocess.Popen[bytes], question: bytes) -> tuple[bytes, bool]:
    """One line of the child, empty where none came; and whether it was late."""
    assert child.stdin is not None
    assert child.stdout is not None
    deadline = time.monotonic() + SECONDS
    try:
        child.stdin.write(question)
        child.stdin.flush()
    except BrokenPipeError:
        return b"", False
    waiting = select.poll()
    waiting.register(child.stdout.fileno(), select.POLLIN | select.POLLHUP)
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            return b"", True
        piece = os.read(child.stdout.fileno(), _MOST_BYTES)
        if not piece or len(line) > _MOST_BYTES:
            return b"", False
        line += piece
    return line, False


_comparer = _Comparer()
