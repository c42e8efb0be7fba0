"""The pipeline: one thread moves complete studies through filter and inference into the outbox.

It is the part that must not hang: systemd's watchdog is fed from here and from nowhere else. Nothing a study
does stops it: each ends as delivered, rejected or quarantined with a code, and the next one follows. While
the golden case does not pass, studies are received and held, not computed.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from outpost.config import Config
from outpost.delivery.outbox import Outbox
from outpost.filter import judge
from outpost.inference import Code, GoldenVerdict, InferenceFailed, InferenceWorker, InputRejected
from outpost.intake.assembly import Assembly
from outpost.intake.spool import MIB, FilesMissing, Spool
from outpost.notify import Notifier
from outpost.reasons import PipelineCode
from outpost.records.journal import Journal, JournalError, StudyRecord, utc_now

log = logging.getLogger(__name__)
T = TypeVar("T")

# A study whose computing failed is tried once more; one that the whole service died on, a few times: on a
# train it may just have been the power.
FAILURES_ALLOWED = 2
DEATHS_ALLOWED = 5

_TICK_SECONDS = 0.25
_LOOK_SECONDS = 2.0
_HOUSEKEEPING_SECONDS = 30.0
_RESULT_ROOM_BYTES = 64 * MIB
_GOLDEN_RETRY_SECONDS = 30.0
_WARM_UP_SECONDS = 240.0  # asked of systemd for loading the model and its golden case
_FINISH_SECONDS = 5.0  # at the end of the service: a study in work may still end by itself
_GRACE_SECONDS = 60.0  # beyond the worker's own limits: then it is the worker that hangs


@dataclass(frozen=True, slots=True)
class Golden:
    """The last golden case: `value` and `wanted` are Dice coefficients, `at` is on the monotonic clock."""

    ok: bool
    at: float
    value: float | None = None
    wanted: float | None = None
    code: str = ""  # when no answer came


class Pipeline:
    """Owns the worker; everything else may only ask for a golden run or look at the public attributes."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        spool: Spool,
        assembly: Assembly,
        outbox: Outbox,
        worker: InferenceWorker,
        notifier: Notifier,
        published: Callable[[], None],
        observed: Callable[[float], None],
    ) -> None:
        """`published` is called when results lie in the outbox, `observed` with a study's seconds."""
        self._config = config
        self._journal = journal
        self._spool = spool
        self._assembly = assembly
        self._outbox = outbox
        self._worker = worker
        self._notifier = notifier
        self._published = published
        self._observed = observed
        self._stop = threading.Event()
        self._asked: list[Future[Golden]] = []
        self._asked_lock = threading.Lock()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker-call")
        self._next_housekeeping = 0.0
        self._next_golden = 0.0
        self._announced = False
        self._worker_is_fresh = True  # it computes the golden case as it starts: that verdict counts
        self._next_look = 0.0
        self.golden: Golden | None = None
        self.queue: dict[str, tuple[int, datetime | None]] = {}  # as Journal.queue, seconds old
        self.last_tick = time.monotonic()

    # --- from other threads ---

    @property
    def worker_alive(self) -> bool:
        return self._worker.alive

    def ask_golden(self) -> Future[Golden]:
        """Have the golden case computed when its turn comes, on the same worker as studies."""
        future: Future[Golden] = Future()
        with self._asked_lock:
            self._asked.append(future)
        return future

    def stop(self) -> None:
        """Have `run` return; a study in work ends within seconds or goes back to the queue."""
        self._stop.set()

    # --- the thread ---

    def run(self) -> None:
        """Work until stopped. Never raises: an unexpected fault is logged and the loop goes on."""
        while not self._stop.is_set():
            try:
                if not self._step():
                    self._stop.wait(_TICK_SECONDS)
            except Exception:
                log.exception("pipeline: unexpected fault, going on")
                self._stop.wait(1.0)
        self._worker.close()
        self._executor.shutdown()
        with self._asked_lock:
            for future in self._asked:
                future.cancel()

    def _step(self) -> bool:
        """Do one thing; returns whether there may be more to do at once."""
        self._tick()
        self._keep_house()
        if self._golden_is_due():
            self._compute_golden()
            return True
        if self.golden is None or not self.golden.ok or self._spool.free_bytes() < _RESULT_ROOM_BYTES:
            return False  # held: a result that cannot be written would look like a fault of the study
        for study in self._journal.in_state("complete", limit=1):
            self._process(study)
            return True
        return False

    def _tick(self) -> None:
        self.last_tick = time.monotonic()
        self._notifier.watchdog()
        try:
            self._assembly.complete_quiet_studies()
            if self.last_tick >= self._next_look:
                self._next_look = self.last_tick + _LOOK_SECONDS
                self.queue = self._journal.queue()
        except sqlite3.Error:
            # A full disk, for instance. It must not cut off the call on the worker during which we tick.
            log.exception("the journal does not answer; trying again")

    def _take_back_interrupted(self) -> None:
        """Only this thread computes: what it finds `inferring` between two steps was interrupted."""
        for study in self._journal.in_state("inferring"):
            if study.attempts >= DEATHS_ALLOWED:
                self._end(
                    study,
                    "quarantined",
                    PipelineCode.SERVICE_DIED,
                    f"the service ended {study.attempts} times on it",
                )
            else:
                self._journal.return_to_queue(study.row, forget_attempt=False)
                log.warning("study %d was interrupted in inference: back in the queue", study.row)

    # --- studies ---

    def _process(self, study: StudyRecord) -> None:
        try:
            self._journal.begin_inference(study.row)
        except JournalError:
            return  # an image has just come: the study waits for its quiet time again
        try:
            files = self._spool.files(study)
            verdict = judge(files)
            if not verdict.accepted:
                self._end(study, "rejected", verdict.reasons[0].code, verdict.reasons[0].detail)
                return
            with self._outbox.work_folder(study) as work:
                result = self._call(lambda: self._worker.run(files, work, study.revision))
                self._outbox.publish(study, work)
        except FilesMissing as missing:
            self._end(study, "quarantined", PipelineCode.INSTANCES_REMOVED, str(missing))
        except InputRejected as rejection:
            self._end(study, "rejected", rejection.code, rejection.message)
        except InferenceFailed as failure:
            if failure.code == Code.WORKER_CLOSED:
                self._journal.return_to_queue(study.row, forget_attempt=True)
                return
            # Whether the study or the device is to blame shows in the golden case of the worker's successor;
            # until then nothing proves that this host can compute.
            self.golden = Golden(ok=False, at=time.monotonic(), code=failure.code)
            self._worker_is_fresh, self._next_golden = True, 0.0
            self._failed(study, failure.code, failure.message)
        except Exception as error:
            log.exception("study %d: unexpected fault in inference", study.row)
            self._failed(study, PipelineCode.INTERNAL_ERROR, type(error).__name__)
        else:
            self._observed(result.seconds)
            self._journal.begin_delivery(
                study.row,
                model=result.model,
                model_version=result.model_version,
                engine=result.engine,
                precision=result.precision,
                rung=result.rung,
                device=result.device,
                inference_seconds=result.seconds,
            )
            log.info(
                "study %d computed in %.1f s (%s, rung %s)",
                study.row,
                result.seconds,
                result.device,
                result.rung,
            )
            self._published()

    def _failed(self, study: StudyRecord, code: str, detail: str) -> None:
        if study.attempts + 1 < FAILURES_ALLOWED:  # the record is from before this attempt
            self._journal.return_to_queue(study.row, forget_attempt=False)
            log.warning("study %d: %s; trying once more", study.row, code)
        else:
            self._end(study, "quarantined", code, detail)

    def _end(self, study: StudyRecord, outcome: str, code: str, detail: str) -> None:
        """Quarantine first, journal second, spool last: after a crash between any two, nothing is lost."""
        self._spool.quarantine_study(study, code)
        self._journal.finish(study.row, outcome, code, detail)
        self._spool.remove_study(study)
        log.warning("study %d %s: %s", study.row, outcome, code)

    # --- the golden case ---

    def _golden_is_due(self) -> bool:
        if self.golden is not None and self.golden.ok and not self._worker.alive:
            self._worker_is_fresh = True
            return True
        return bool(self._asked) or time.monotonic() >= self._next_golden

    def _compute_golden(self) -> None:
        with self._asked_lock:
            asked, self._asked = self._asked, []
        first = not self._announced
        if self.golden is None:  # once: a service that cannot compute must not be "starting" for ever
            self._notifier.extend_start(_WARM_UP_SECONDS)
            self._notifier.status("warming up: loading the model and computing its golden case")
        compute = self._worker.start if self._worker_is_fresh else self._worker.golden
        try:
            self.golden = self._judged(self._call(compute))
            self._worker_is_fresh = False
        except InferenceFailed as failure:
            if failure.code == Code.WORKER_CLOSED:  # the service is ending
                for future in asked:
                    future.cancel()
                return
            log.error("golden case: %s, %s", failure.code, failure.message)  # noqa: TRY400 - its place is known
            self.golden = Golden(ok=False, at=time.monotonic(), code=failure.code)
            self._worker_is_fresh = True
        except Exception:
            log.exception("golden case: unexpected fault")
            self.golden = Golden(ok=False, at=time.monotonic(), code=PipelineCode.INTERNAL_ERROR)
        for future in asked:
            if future.set_running_or_notify_cancel():
                future.set_result(self.golden)
        if self.golden.ok:
            self._next_golden = time.monotonic() + self._config.inference.golden_period_seconds
            if first:
                self._announced = True
                self._notifier.ready()
            self._notifier.status("ready")
        else:
            self._next_golden = time.monotonic() + _GOLDEN_RETRY_SECONDS
            self._notifier.status(
                f"holding studies: the golden case failed ({self.golden.code or 'tolerance'})"
            )

    @staticmethod
    def _judged(verdict: GoldenVerdict) -> Golden:
        code = "" if verdict.ok else Code.GOLDEN_MISMATCH
        return Golden(verdict.ok, time.monotonic(), verdict.value, verdict.wanted, code)

    def _call(self, function: Callable[[], T]) -> T:
        """Run something on the worker, ticking meanwhile; the ticks end when the worker itself hangs."""
        future = self._executor.submit(function)
        hangs_at = (
            time.monotonic() + self._config.inference.timeout_seconds + _WARM_UP_SECONDS + _GRACE_SECONDS
        )
        close_at: float | None = None
        while True:
            try:
                return future.result(timeout=_TICK_SECONDS)
            except FutureTimeout:
                if future.done():
                    return future.result()
            now = time.monotonic()
            if now < hangs_at:
                self._tick()
            if self._stop.is_set():
                close_at = close_at if close_at is not None else now + _FINISH_SECONDS
                if now >= close_at:
                    self._worker.close()

    # --- between studies ---

    def _keep_house(self) -> None:
        """Take back what was interrupted and drop what was abandoned.

        Remove files of delivered studies: after their time, or at once when the disk runs short.
        """
        now = time.monotonic()
        if now < self._next_housekeeping:
            return
        self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
        self._take_back_interrupted()
        self._spool.drop_abandoned()
        keep = timedelta(
            hours=0 if self._spool.below_reserve() else self._config.storage.keep_delivered_hours
        )
        for study in self._journal.removable(utc_now() - keep):
            if self._spool.remove_study(study):
                self._journal.note_spool_removed(study.study_uid)
