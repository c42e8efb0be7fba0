"""What a system needs of its host: one arithmetic for preflight, the running service and its health check.

Standard library only: the controller reads it too.
"""

from __future__ import annotations

from typing import Final

PARENT_MIB: Final = 400
"""The service itself beside its workers, MiB: its threads, the journal's cache, what is being received."""


def workers_of(cores: float) -> int:
    """How many workers a system with that many cores is given: a whole core each, and at least one."""
    return max(1, int(cores))


def needed_mib(workers: int, worker_mib: int) -> int:
    """Memory in MiB that so many workers of a bundle take, with the service itself."""
    return PARENT_MIB + workers * worker_mib


def held_by(limit_mib: int, worker_mib: int, taken_mib: int = PARENT_MIB) -> int:
    """How many workers of `worker_mib` MiB fit into `limit_mib` MiB beside what is taken; 0 where none does."""
    return max(0, (limit_mib - taken_mib) // worker_mib)
