"""The heap of a process that computes: memory of one study is kept for the next, and given back when it is not needed.

glibc's malloc gives every large block back to the kernel as soon as it is freed, and the kernel fills each page with
zeros when it is wanted again. A 3D network frees and wants gigabytes a study: on the machine of
docs/decisions/0008-lanes-and-ladder.md that was half of a brain study's time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from outpost.inference.memory import MIB

# Seconds without a request after which a process gives back what it keeps.
IDLE_SECONDS = 60.0

# Names: The GNU C Library Reference Manual, "Memory Allocation Tunables". No block is large enough to be mapped by
# itself, and nothing at the end of the heap is given back. Other C libraries ignore the variable.
_KEEP = "glibc.malloc.mmap_threshold=0x4000000000:glibc.malloc.trim_threshold=0x4000000000"


def keeping(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that keeps its memory; tunables that are set in it already win."""
    others = [part for part in (environment.get("GLIBC_TUNABLES"),) if part]
    return {**environment, "GLIBC_TUNABLES": ":".join([_KEEP, *others])}


def give_back() -> None:
    """Give memory that was freed back to the kernel, wherever in the heap it lies (glibc; elsewhere nothing)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_mib() -> int:
    """Memory that this process holds now, in MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - after every study: the cheap one
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB
