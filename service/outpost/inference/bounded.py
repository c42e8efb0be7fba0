"""A bound on the memory that reading or writing a study may take in a child.

Without it the kernel decides who dies when memory ends, and it may take the neighbour that computes another study.
With it the request that asks for too much fails, in the very process that asked (setrlimit(2), RLIMIT_DATA).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from outpost.inference import heap
from outpost.inference.memory import MIB

# What reading may take in any case: a study of usual size needs less.
_LEAST_MIB = 512


def budget_mib() -> int:
    """What this child may take in all, as its parent says; 0 where it says nothing."""
    text = os.environ.get("OUTPOST_MEMORY_MIB", "")
    return int(text) if text.isdigit() else 0


@contextmanager
def bounded() -> Iterator[None]:
    """Have requests for memory fail once this process would hold more than its budget. Raises `MemoryError` then."""
    budget = budget_mib()
    data = _data_bytes()
    if not budget or data is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = data + max(budget - heap.resident_mib(), _LEAST_MIB) * MIB
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    if soft != resource.RLIM_INFINITY:
        allowed = min(allowed, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """Private writable memory of this process, touched or not: what the limit counts."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return None
