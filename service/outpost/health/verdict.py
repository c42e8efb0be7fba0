"""Judging: from the state of the running parts to a verdict a machine can act on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from outpost.codes.found import in_russian
from outpost.health.codes import CHECKS, CheckCode, proves, remedy
from outpost.inference.state import Assertion, Golden, LaneState
from outpost.intake.room import MIB, disk_of
from outpost.records.journal import utc_now

if TYPE_CHECKING:  # a worker's process reads the table of codes; it shall not load the whole service for it
    from outpost.config import Config
    from outpost.delivery.courier import Courier
    from outpost.heal.watch import JournalWatch
    from outpost.health.host import HostWatch
    from outpost.intake.scp import StorageScp
    from outpost.pipeline import Pipeline
    from outpost.records.recorder import Recorder

_TICK_LIMIT_SECONDS = 10.0
JOURNAL_LIMIT_SECONDS = 30.0
_QUEUE_LIMIT_SECONDS = 1800.0
_OUTBOX_LIMIT_SECONDS = 3600.0
_RECORDS_LIMIT_SECONDS = 900.0
# How many times the fastest golden case: a busy host reaches two or three, one that is throttled more.
_SLOW, _CRAWLING = 3.0, 4.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found, what is wanted, and what to do when `ok` is false (else empty), in both languages."""

    code: CheckCode
    ok: bool
    value: str | float | None
    wanted: str
    remedy: str
    remedy_ru: str = ""
    value_ru: str | float | None = None
    wanted_ru: str = ""


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
    wanted_ru = proves(code, "ru") if wanted == CHECKS[code].proves else in_russian(wanted)
    told = ("", "") if ok else (CHECKS[code].remedy, remedy(code, "ru"))
    return Check(code, ok, value, wanted, *told, in_russian(value), wanted_ru)


def asserted(assertion: Assertion, value: str | float | None = None) -> Check:
    """What a worker asserted, as a check; `value` is shown instead of its own."""
    found = assertion.value if value is None else value
    return check(CheckCode(assertion.code), assertion.ok, found, assertion.wanted)


def golden_check(golden: Golden | None) -> Check:
    """Whether the golden case gave the right answer."""
    if golden is None:
        return check(CheckCode.GOLDEN_PASSED, False, "not computed yet", "a right answer")
    if golden.value is None or golden.wanted is None:
        return check(CheckCode.GOLDEN_PASSED, False, golden.code, "a right answer")
    wanted = (
        f"Dice >= {golden.wanted:g}"
        if golden.metric == "dice"
        else f"largest difference <= {golden.wanted:g}"
    )
    return check(CheckCode.GOLDEN_PASSED, golden.ok, golden.value, wanted)


class Health:
    """Looks at the parts of a running service. `light` takes well under a millisecond.

    `host` has looked at what is around the service; without it those checks are left out.
    """

    def __init__(
        self,
        config: Config,
        scp: StorageScp,
        pipeline: Pipeline,
        couriers: Sequence[threading.Thread],
        recorder: Recorder | None,
        host: HostWatch | None = None,
        deliveries: Sequence[Courier] = (),
        files: JournalWatch | None = None,
    ) -> None:
        self._config = config
        self._scp = scp
        self._pipeline = pipeline
        self._couriers = couriers
        self._recorder = recorder
        self._host = host
        self._deliveries = deliveries
        self._files = files

    def light(self) -> Verdict:
        """The verdict from state that is already there; nothing is computed."""
        return Verdict(tuple(self._light(self._pipeline.golden)))

    def heavy(self, timeout_seconds: float) -> Verdict:
        """Have the golden case computed in its turn on the worker, then judge everything."""
        future = self._pipeline.ask_golden()
        try:
            golden = future.result(timeout=timeout_seconds)
        except FutureTimeout:
            future.cancel()
            golden = Golden(ok=False, at=time.monotonic(), code=f"no answer in {timeout_seconds:g} s")
        except CancelledError:
            golden = Golden(ok=False, at=time.monotonic(), code="the service is ending")
        return Verdict(tuple(self._light(golden)))

    def _light(self, golden: Golden | None) -> Iterator[Check]:
        now = time.monotonic()
        lanes = tuple(self._pipeline.lanes)
        tick_age = now - self._pipeline.last_tick
        yield check(
            CheckCode.PIPELINE_TICKING,
            tick_age <= _TICK_LIMIT_SECONDS,
            round(tick_age, 1),
            f"<= {_TICK_LIMIT_SECONDS:g} s",
        )
        yield from self._workers(lanes)
        yield golden_check(golden)
        yield from self._golden_times(lanes, now)
        yield self._progress(lanes, now)
        cause = self._pipeline.receive_only
        yield check(CheckCode.RECEIVE_ONLY, not cause, cause or "computes", "computes")
        yield from worst(lane.asserts for lane in lanes)
        yield from self._intake()
        down = [thread.name for thread in self._couriers if not thread.is_alive()]
        yield check(CheckCode.DELIVERY_RUNNING, not down, ", ".join(down) or "all run", "all run")
        yield self._age(CheckCode.QUEUE_AGE, "complete", _QUEUE_LIMIT_SECONDS)
        yield self._age(CheckCode.OUTBOX_AGE, "delivering", _OUTBOX_LIMIT_SECONDS)
        refused = [
            f"{courier.name}: {count} for {reason}"
            for courier in self._deliveries
            for reason, count in sorted(courier.refused().items())
        ]
        yield check(
            CheckCode.RESULTS_TAKEN, not refused, "; ".join(refused) or "none refused", "none refused"
        )
        rules = self._pipeline.rules
        yield check(CheckCode.FILTER_RULES, not rules.fault, rules.fault or rules.file.short, "as on disk")
        silent = now - self._pipeline.journal_answered
        yield check(
            CheckCode.JOURNAL_ANSWERS,
            silent <= JOURNAL_LIMIT_SECONDS,
            round(silent, 1),
            f"<= {JOURNAL_LIMIT_SECONDS:g} s",
        )
        yield from self._records()
        if self._files is not None:
            for code, ok, value, wanted in self._files.found():
                yield check(code, ok, value, wanted)
        if self._host is not None:
            yield from self._host.checks

    def _workers(self, lanes: Sequence[LaneState]) -> Iterator[Check]:
        rung = self._pipeline.rung
        alive = sum(lane.alive for lane in lanes)
        yield check(CheckCode.WORKER_ALIVE, alive > 0, "runs" if alive else "none", "runs")
        yield check(CheckCode.WORKERS_ALIVE, alive >= rung.parallel, alive, f">= {rung.parallel}")
        yield check(CheckCode.LADDER_REDUCED, rung.name == "full", rung.name, "full")

    def _golden_times(self, lanes: Sequence[LaneState], now: float) -> Iterator[Check]:
        """How old the golden cases are, and how long they took: the worst worker counts."""
        proven = [lane.golden for lane in lanes if lane.alive and lane.golden is not None]
        # Between two golden cases a worker may have a study in work; how long that may take INFERENCE_PROGRESS judges.
        oldest = max(
            (
                max(0.0, now - lane.golden.at - lane.in_studies)
                for lane in lanes
                if lane.alive and lane.golden is not None
            ),
            default=None,
        )
        limit = 2 * self._pipeline.golden_period + self._pipeline.stall_seconds
        yield check(
            CheckCode.GOLDEN_RECENT,
            oldest is not None and oldest <= limit,
            round(oldest, 1) if oldest is not None else None,
            f"<= {limit:.1f} s",
        )
        slowest = max((golden.seconds for golden in proven if golden.seconds is not None), default=None)
        fastest = self._pipeline.golden_fastest
        ratio = slowest / fastest if slowest and fastest else None
        shown = round(ratio, 2) if ratio is not None else "not known yet"
        for code, most in ((CheckCode.GOLDEN_SPEED, _SLOW), (CheckCode.GOLDEN_CRAWLS, _CRAWLING)):
            yield check(code, ratio is None or ratio <= most, shown, f"<= {most:g} times the fastest")

    def _progress(self, lanes: Sequence[LaneState], now: float) -> Check:
        at_work = [
            (now - since, lane.what)
            for lane in lanes
            if (since := lane.getting_on_since) is not None and lane.what in ("study", "golden")
        ]
        seconds, what = max(at_work, default=(0.0, ""))
        limit = self._pipeline.stall_seconds
        found = f"a study for {seconds:.1f} s" if what == "study" else f"the golden case for {seconds:.1f} s"
        found = found if what else "idle"
        return check(CheckCode.INFERENCE_PROGRESS, seconds <= limit, found, f"<= {limit:.1f} s")

    def _intake(self) -> Iterator[Check]:
        intake = self._config.intake
        yield check(CheckCode.INTAKE_LISTENING, self._scp.listening, f"port {intake.dicom_port}", "listening")
        yield disk_check(self._config)

    def _records(self) -> Iterator[Check]:
        if self._recorder is None:
            return
        alive = self._recorder.is_alive()
        yield check(CheckCode.RECORDER_RUNNING, alive, "runs" if alive else "ended", "runs")
        since = self._recorder.failing_since
        failing = (utc_now() - since).total_seconds() if since is not None else 0.0
        yield check(
            CheckCode.RECORDS_SHIPPED,
            failing <= _RECORDS_LIMIT_SECONDS,
            self._recorder.last_error or "shipped",
            f"failing for <= {_RECORDS_LIMIT_SECONDS:g} s",
        )

    def _age(self, code: CheckCode, state: str, limit: float) -> Check:
        _, since = self._pipeline.queue.get(state, (0, None))
        age = (utc_now() - since).total_seconds() if since is not None else 0.0
        return check(code, age <= limit, round(age, 1), f"<= {limit:g} s")


def worst(workers: Iterable[Sequence[Assertion]]) -> Iterator[Check]:
    """One check a code from what several workers asserted: the first that failed speaks for all."""
    found: dict[str, Check] = {}
    for number, assertions in enumerate(workers):
        for assertion in assertions:
            if assertion.code not in found:
                found[assertion.code] = asserted(assertion)
            elif found[assertion.code].ok and not assertion.ok:
                found[assertion.code] = asserted(assertion, f"worker {number}: {assertion.value}")
    yield from found.values()


def disk_check(config: Config) -> Check:
    """Free space of the file system of storage.root."""
    reserve = config.intake.disk_reserve_mib
    percent = config.intake.disk_used_percent
    wanted = f">= {reserve} MiB" + (f", at most {percent:g} % used" if percent < 100 else "")
    try:
        disk = disk_of(config.storage.root)
    except OSError as error:
        return check(CheckCode.DISK_RESERVE, False, error.strerror, wanted)
    free_mib = disk.free // MIB
    if disk.used_percent > percent:
        found = f"{free_mib} MiB, {disk.used_percent:.1f} % used"
        return check(CheckCode.DISK_RESERVE, False, found, wanted)
    return check(CheckCode.DISK_RESERVE, free_mib >= reserve, free_mib, wanted)
