"""Judging: from the state of the running parts to a verdict a machine can act on."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass
from typing import Any

from outpost.config import Config
from outpost.health.codes import CHECKS, CheckCode
from outpost.intake.scp import StorageScp
from outpost.intake.spool import MIB, Spool
from outpost.pipeline import Golden, Pipeline
from outpost.records.journal import utc_now
from outpost.records.recorder import Recorder

_TICK_LIMIT_SECONDS = 10.0
_QUEUE_LIMIT_SECONDS = 1800.0
_OUTBOX_LIMIT_SECONDS = 3600.0
_RECORDS_LIMIT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found, what is wanted, and what to do when `ok` is false (else empty)."""

    code: CheckCode
    ok: bool
    value: str | float | None
    wanted: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok`; `degraded` (works, but something needs a person); `failed` (not ready)."""

    checks: tuple[Check, ...]

    @property
    def status(self) -> str:
        failed = [check for check in self.checks if not check.ok]
        if any(CHECKS[check.code].critical for check in failed):
            return "failed"
        return "degraded" if failed else "ok"

    @property
    def ready(self) -> bool:
        return self.status != "failed"

    def as_json(self) -> dict[str, Any]:
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}


def check(code: CheckCode, ok: bool, value: str | float | None, wanted: str) -> Check:
    """One check, its remedy taken from the table when it fails."""
    return Check(code, ok, value, wanted, "" if ok else CHECKS[code].remedy)


def golden_check(golden: Golden | None) -> Check:
    if golden is None:
        return check(CheckCode.GOLDEN_PASSED, False, "not computed yet", "a right answer")
    if golden.value is None:
        return check(CheckCode.GOLDEN_PASSED, False, golden.code, "a right answer")
    return check(CheckCode.GOLDEN_PASSED, golden.ok, golden.value, f"Dice >= {golden.wanted}")


class Health:
    """Looks at the parts of a running service. `light` takes well under a millisecond."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        scp: StorageScp,
        pipeline: Pipeline,
        couriers: Sequence[threading.Thread],
        recorder: Recorder | None,
    ) -> None:
        self._config = config
        self._spool = spool
        self._scp = scp
        self._pipeline = pipeline
        self._couriers = couriers
        self._recorder = recorder

    def light(self) -> Verdict:
        """The verdict from state that is already there; nothing is computed."""
        now = time.monotonic()
        golden = self._pipeline.golden
        tick_age = now - self._pipeline.last_tick
        golden_age = now - golden.at if golden is not None else None
        golden_limit = (
            2 * self._config.inference.golden_period_seconds + self._config.inference.timeout_seconds
        )
        free_mib = self._spool.free_bytes() // MIB
        reserve_mib = self._config.intake.disk_reserve_mib
        down = [thread.name for thread in self._couriers if not thread.is_alive()]
        checks = [
            check(
                CheckCode.PIPELINE_TICKING,
                tick_age <= _TICK_LIMIT_SECONDS,
                round(tick_age, 1),
                f"<= {_TICK_LIMIT_SECONDS:g} s",
            ),
            check(
                CheckCode.WORKER_ALIVE,
                self._pipeline.worker_alive,
                "runs" if self._pipeline.worker_alive else "none",
                "runs",
            ),
            golden_check(golden),
            check(
                CheckCode.GOLDEN_RECENT,
                golden_age is not None and golden_age <= golden_limit,
                round(golden_age, 1) if golden_age is not None else None,
                f"<= {golden_limit:g} s",
            ),
            check(
                CheckCode.INTAKE_LISTENING,
                self._scp.listening,
                f"port {self._config.intake.dicom_port}",
                "listening",
            ),
            check(CheckCode.DISK_RESERVE, free_mib >= reserve_mib, free_mib, f">= {reserve_mib} MiB"),
            check(CheckCode.DELIVERY_RUNNING, not down, ", ".join(down) or "all run", "all run"),
            self._age(CheckCode.QUEUE_AGE, "complete", _QUEUE_LIMIT_SECONDS),
            self._age(CheckCode.OUTBOX_AGE, "delivering", _OUTBOX_LIMIT_SECONDS),
        ]
        if self._recorder is not None:
            alive = self._recorder.is_alive()
            since = self._recorder.failing_since
            failing = (utc_now() - since).total_seconds() if since is not None else 0.0
            checks += [
                check(CheckCode.RECORDER_RUNNING, alive, "runs" if alive else "ended", "runs"),
                check(
                    CheckCode.RECORDS_SHIPPED,
                    failing <= _RECORDS_LIMIT_SECONDS,
                    self._recorder.last_error or "shipped",
                    f"failing for <= {_RECORDS_LIMIT_SECONDS:g} s",
                ),
            ]
        return Verdict(tuple(checks))

    def heavy(self, timeout_seconds: float) -> Verdict:
        """Have the golden case computed in its turn on the worker, then judge everything."""
        future = self._pipeline.ask_golden()
        try:
            golden: Golden | None = future.result(timeout=timeout_seconds)
        except FutureTimeout:
            future.cancel()
            golden = Golden(ok=False, at=time.monotonic(), code=f"no answer in {timeout_seconds:g} s")
        except CancelledError:
            golden = Golden(ok=False, at=time.monotonic(), code="the service is ending")
        others = [c for c in self.light().checks if c.code != CheckCode.GOLDEN_PASSED]
        return Verdict((golden_check(golden), *others))

    def _age(self, code: CheckCode, state: str, limit: float) -> Check:
        _, since = self._pipeline.queue.get(state, (0, None))
        age = (utc_now() - since).total_seconds() if since is not None else 0.0
        return check(code, age <= limit, round(age, 1), f"<= {limit:g} s")
