"""Whether a child that has not answered yet is at work, or hangs: by what the kernel says of it, not by the clock.

A process that uses the processor, reads, writes, or waits for its turn on a loaded host is at work, however long it
takes. One that does none of it for much longer than its work usually takes hangs; so does one that was stopped
(SIGSTOP), and one that has spent many times the processor time that its work usually needs without a beat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.5
# A process that is stopped does not go on by itself. (A debugger's or profiler's short stop is another state, `t`.)
_STOPPED_SECONDS: Final = 2.0
# One in uninterruptible sleep waits for a disk, which may be slow.
_DISK_TIMES: Final = 4.0
# Less than this share of a processor is a thread that wakes up now and then, not work.
_AT_WORK_SHARE: Final = 0.02
# A look that comes later than that says that we ourselves did not run: the child may not have either.
_LONGEST_LOOK_SECONDS: Final = 1.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")

SILENT_SECONDS: Final = 10.0
SILENT_TIMES: Final = 2.5
BUSY_SECONDS: Final = 20.0
BUSY_TIMES: Final = 10.0
_BUSY_SECONDS_A_MIB: Final = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child may be without a sign of life, in its present step.

    Attributes:
        silent_seconds: doing nothing that the kernel can see.
        busy_seconds: processor time since its last beat; None is without limit.
    """

    silent_seconds: float = SILENT_SECONDS
    busy_seconds: float | None = None


def patience_of(usual_seconds: float | None, scale: float = 1.0) -> Patience:
    """For computing what usually takes so long: at 4 s, 10 s of silence or 60 s of processor time.

    Args:
        usual_seconds: of a golden case, or of a study of its size; None where nothing is known.
        scale: size of the study as a multiple of that.
    """
    if usual_seconds is None:
        return Patience()
    usual = usual_seconds * max(1.0, scale)
    return Patience(
        max(SILENT_SECONDS, SILENT_TIMES * usual),
        BUSY_SECONDS + BUSY_TIMES * usual,
    )


def patience_for(mib: float) -> Patience:
    """For reading or writing so many MiB: the slowest decoder gives a MiB in far less than a second."""
    return Patience(busy_seconds=BUSY_SECONDS + _BUSY_SECONDS_A_MIB * mib)


@dataclass(frozen=True, slots=True)
class _Look:
    """A process at a moment: its state (proc(5)), processor time in seconds, and a count of what it read and wrote."""

    state: str
    seconds: float
    moved: int


class Watch:
    """Watches one process. `look` is to be called every `LOOK_SECONDS`, `beat` at each sign of its own.

    Args:
        pid: of the process.
        clock: for tests.
    """

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._clock = clock
        self._patience = Patience()
        self._last: _Look | None = None
        self._looked_at = clock()
        self._silent = self._stopped = self._busy = 0.0

    def beat(self, patience: Patience) -> None:
        """The process gave a sign of life, and has so much time for what it does now."""
        self._patience = patience
        self._silent = self._stopped = self._busy = 0.0

    @property
    def stopped(self) -> bool:
        """Whether it hangs because a signal stopped it, as of the last look."""
        return self._stopped >= _STOPPED_SECONDS

    def look(self) -> str:
        """Look at the process; returns why it hangs, or nothing while it does not."""
        now = self._clock()
        passed = min(now - self._looked_at, _LONGEST_LOOK_SECONDS)
        self._looked_at = now
        look, last = _look(self._pid), self._last
        self._last = look
        if look is None or last is None:
            return ""  # it has ended, which its pipe tells; or it is the first look
        used = look.seconds - last.seconds
        self._busy += used
        self._stopped = self._stopped + passed if look.state == "T" else 0.0
        if used > _AT_WORK_SHARE * passed or look.moved != last.moved or _waits_its_turn(self._pid, look):
            self._silent = 0.0
        else:
            self._silent += passed / (_DISK_TIMES if look.state == "D" else 1.0)
        if self.stopped:
            return f"it was stopped by a signal for {self._stopped:.1f} s"
        if self._silent >= self._patience.silent_seconds:
            return (
                f"it did nothing for {self._silent:.0f} s (state {look.state}), "
                f"{self._patience.silent_seconds:.0f} s are allowed"
            )
        allowed = self._patience.busy_seconds
        if allowed is not None and self._busy >= allowed:
            return (
                f"it used {self._busy:.0f} s of processor time without a result, {allowed:.0f} s are allowed"
            )
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal."""
    look = _look(pid)
    return look is not None and look.state == "T"


def _waits_its_turn(pid: int, look: _Look) -> bool:
    """Whether a thread of it could run at once: on a loaded host it may get no time for long."""
    return look.state == "R" or (look.state != "T" and "R" in _states_of_threads(pid))


def _look(pid: int) -> _Look | None:
    try:
        fields = _stat(Path(f"/proc/{pid}/stat"))
        return _Look(fields[0], (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[9]) + _moved(pid))
    except (OSError, ValueError, IndexError):
        return None


def _stat(file: Path) -> list[str]:
    """Fields of a stat file from the state on: the name before it may hold blanks and brackets."""
    return file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def _moved(pid: int) -> int:
    """Bytes it has read and written, however: also those that the page cache gave."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar", "read_b")))
    return 0


def _states_of_threads(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError, IndexError):
            yield _stat(file)[0]
