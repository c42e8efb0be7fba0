"""What is known of the processes that compute: values that go from the child to the pipeline and on to health.

Nothing here loads torch or looks at anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from outpost.inference.rung import Rung

# What a lane is doing; empty when it waits.
Work = Literal["", "start", "golden", "study"]


class Step(StrEnum):
    """Where a child is in a study; an error is told with it."""

    READ = "reading"
    COMPUTE = "computing"
    WRITE = "writing"


@dataclass(frozen=True, slots=True)
class Assertion:
    """One fact of a process that was looked at, not believed.

    Attributes:
        code: an entry of `outpost.health.codes.CHECKS`, where its remedy stands.
        ok: whether `value` is as wanted.
        value: what was found.
        wanted: what must be found.
    """

    code: str
    ok: bool
    value: str | float | None
    wanted: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden case as it was last computed.

    Attributes:
        ok: whether the answer was right.
        at: when, on the monotonic clock of this process.
        value: what was measured; None when no answer came.
        wanted: the limit `value` is held against.
        code: why it is not ok, as an entry of `outpost.reasons.REASONS`; empty when it is.
        metric: `dice` (at least `wanted`) or `max_abs` (at most `wanted`).
        seconds: wall time of the computation.
    """

    ok: bool
    at: float
    value: float | None = None
    wanted: float | None = None
    code: str = ""
    metric: str = "dice"
    seconds: float | None = None


@dataclass(slots=True)
class LaneState:
    """One of the processes that compute, as the pipeline sees it; read by other threads, written by its own.

    Attributes:
        alive: whether its process runs and has passed the golden case.
        busy_since: when its present work began, on the monotonic clock; None when it waits.
        what: its present work.
        rung: how it computes.
        asserts: what its process found as it started.
        golden: its last golden case; None before the first.
        heard_at: when its process last began a piece of its present work: read another file, say; None as `busy_since`.
        in_studies: seconds that it had studies in work since its last golden case; meanwhile it can compute none.
    """

    rung: Rung
    alive: bool = False
    busy_since: float | None = None
    what: Work = ""
    asserts: tuple[Assertion, ...] = field(default=())
    golden: Golden | None = None
    heard_at: float | None = None
    in_studies: float = 0.0

    @property
    def getting_on_since(self) -> float | None:
        """When it last gave a sign of getting on with its present work; None when it waits."""
        if self.busy_since is None:
            return None
        return max(self.busy_since, self.heard_at or self.busy_since)
