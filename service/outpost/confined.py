"""Limits that a child process takes upon itself before it opens what nobody trusts."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20


def confine(memory_mib: int, cpu_seconds: int) -> None:
    """Allow this process so much more memory than it has now, so much CPU time in all, and to write no file.

    If the host's memory runs out, the kernel takes this process first.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    memory = pages * resource.getpagesize() + memory_mib * MIB
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hardest = resource.getrlimit(kind)[1]  # of whoever started this process: it cannot be raised
        limit = most if hardest == resource.RLIM_INFINITY else min(most, hardest)
        resource.setrlimit(kind, (limit, limit))
