"""A lane: one thread with one worker process. It takes a study from the queue and brings it to its end.

The end is a result in the outbox, a rejection or a quarantine with a code, or the way back into the queue: one
rung lower where the rung was the cause, as it was where the host was. A lane computes no study unless the golden
case has passed in its present process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from outpost.delivery.outbox import Outbox
from outpost.drift.book import Value
from outpost.events import EventCode
from outpost.filter.active import ActiveRules
from outpost.filter.rulefile import open_rules
from outpost.health.codes import CHECKS, CheckCode
from outpost.inference import Code, GoldenVerdict, InferenceFailed, InferenceResult, InputRejected
from outpost.inference.codes import StudyIncomplete
from outpost.inference.context import StudyContext
from outpost.inference.gate import Gate
from outpost.inference.ladder import Cause, Ladder, alike, cause_of, strikes_for_study
from outpost.inference.rung import Rung
from outpost.inference.state import Assertion, Golden, LaneState, Step, Work
from outpost.inference.worker import InferenceWorker
from outpost.intake.spool import FilesMissing, Spool
from outpost.reasons import PipelineCode
from outpost.records.journal import Journal, JournalError, StudyRecord, utc_now

log = logging.getLogger(__name__)

# A study whose computing failed is tried once more, on another rung where there is one.
FAILURES_ALLOWED = 2
# One that took too long: as it is, alone on the host, and smaller.
TIMEOUTS_ALLOWED = 3
# One whose worker hung: as it is once more, as somebody may have stopped the process, and then as after a timeout.
HANGS_ALLOWED = 4
# Deaths of the whole service in the middle of a study, after which it is computed alone.
DEATHS_TOGETHER = 2
# The fact that names the study that is computed alone: a death of the service then has no other cause.
ALONE = "alone"
# One whose worker somebody ended or stopped from outside: that says nothing of the study, but it is not tried for ever.
OUTSIDE_ALLOWED = 5
# What stands for the rung of such a failure: no rung is to blame.
OUTSIDE = "outside"
# A device that fails again and again on one study, and computes the golden case between: the study is what it fails on.
DEVICE_FAILURES_ALLOWED = 3

_WAIT_SECONDS = 0.25
# The golden case may take this share of a lane's time while studies wait, and that while none does.
_GOLDEN_SHARE, _GOLDEN_SHARE_IDLE = 0.02, 0.05
_GOLDEN_OFTENEST_SECONDS = 2.0
_GOLDEN_PATIENCE_SECONDS = 10.0
_SUSPICIOUS, _SURE, _GOLDEN_AGAIN_SECONDS = 3.0, 6.0, 0.5
# A study whose result found no room on the disk is left alone that long.
_FULL_SECONDS = 10.0
_PAUSE_FIRST_SECONDS, _PAUSE_LAST_SECONDS = 1.0, 60.0
# Beyond the limits of its worker: then it is the lane itself that hangs.
_GRACE_SECONDS = 60.0


class Floor(Protocol):
    """What a lane asks of the pipeline it belongs to."""

    ladder: Ladder
    gate: Gate
    rules: ActiveRules

    def may_work(self, lane: int) -> bool:
        """Whether the lane may have a worker now: not while receiving only, nor beyond the rung's number."""

    def next_study(self, wait_seconds: float) -> StudyRecord | None:
        """The oldest study that waits, now this lane's; None when none came in time."""

    def put_down(self, study: StudyRecord, hold_seconds: float = 0.0) -> None:
        """The lane is done with the study, one way or the other."""

    def hold(self, study: StudyRecord, lacks: Sequence[str]) -> bool:
        """Have a study wait for what it lacks; False where a later revision has that already."""

    def character_set(self, study: StudyRecord) -> str:
        """In what the site says the texts of this study's sender are encoded; empty where it says nothing."""

    def asked_golden(self) -> list[Future[Golden]]:
        """Those who want the golden case computed now; the caller answers them."""

    def make_room(self, lane: int) -> None:
        """Have every other idle lane end its process."""

    def alone(self, lane: int) -> AbstractContextManager[None]:
        """While it lasts no other lane works or has a process; begins when what they have in work has ended."""

    def usual_seconds(self, rung: Rung) -> float | None:
        """What computing usually takes at a rung, for an input of the golden case's size; None before it is known."""

    def took(self, rung: Rung, seconds: float, scale: float) -> None:
        """A study was in the model for so long; `scale` is its size as a multiple of the golden case."""

    def left_out(self, counts: Mapping[str, int]) -> None:
        """Instances of a study that is computed were left out, by reason code."""

    def computed(self, result: InferenceResult) -> bool:
        """A result lies in the outbox; returns whether it took suspiciously long."""

    def ended(self, study: StudyRecord, observed: dict[str, Any], values: dict[str, Value]) -> None:
        """A study came to its end: what the worker saw of it, and how it ended, for watching drift."""

    def proven(self) -> None:
        """A golden case has passed, or a study was computed: this host can compute."""

    def gave_up(self, code: str, rung: Rung) -> None:
        """No rung helps against a failure of the host itself."""


class Lane(threading.Thread):
    """Runs until its pipeline stops. The public attributes are for health; only this thread sets them."""

    def __init__(
        self,
        number: int,
        floor: Floor,
        worker: InferenceWorker,
        journal: Journal,
        spool: Spool,
        outbox: Outbox,
        stop: threading.Event,
        golden_period_seconds: float,
        study_seconds: float,
    ) -> None:
        super().__init__(name=f"lane-{number}")
        self.number = number
        self._floor = floor
        self._worker = worker
        self._journal = journal
        self._spool = spool
        self._outbox = outbox
        self._stopping = stop
        self._longest_period = golden_period_seconds
        self._study_seconds = study_seconds
        self._golden: Golden | None = None
        self._asserts: tuple[Assertion, ...] = ()
        self._busy_since: float | None = None
        self._in_line = False  # for its turn in the model, with a study that has been read
        self._study_since: float | None = None
        self._in_studies = 0.0  # seconds, since the last golden case
        self._what: Work = ""
        self._not_before = 0.0
        self._pauses = 0
        self._next_golden = 0.0
        self._rung_proven: Rung | None = None
        self._seconds_before: float | None = None  # of the golden case before the last
        self._fastest = 0.0  # golden case at the present rung, seconds
        self._tried: tuple[Rung, tuple[int, ...]] = (worker.rung, ())
        self._alone = False  # whether no other lane works now
        self._start_alone = False  # whether the next start is to be without the others' work beside it

    # --- for other threads ---

    @property
    def state(self) -> LaneState:
        return LaneState(
            alive=self._worker.proven,
            busy_since=None if self._in_line else self._busy_since,
            what=self._what,
            rung=self._worker.rung,
            asserts=self._asserts,
            golden=self._golden,
            heard_at=self._worker.heard_at,
            in_studies=self._in_studies + (time.monotonic() - since if (since := self._study_since) else 0.0),
        )

    @property
    def has_process(self) -> bool:
        """Whether its worker has a process, or it has something in work."""
        return self._busy_since is not None or self._worker.pid is not None

    @property
    def golden(self) -> Golden | None:
        """Its last golden case; None while it is not proven."""
        return self._golden

    @property
    def golden_period(self) -> float:
        """Seconds between two golden cases: often where they are cheap, never oftener than the share allows."""
        # By the fastest: a host that has slowed down must be looked at no more seldom for it.
        return self._period(_GOLDEN_SHARE)

    def _period(self, share: float) -> float:
        return min(max(self._fastest / share, _GOLDEN_OFTENEST_SECONDS), self._longest_period)

    def hangs(self, now: float) -> bool:
        """Whether the lane itself, not its worker, has been silent for longer than any limit allows."""
        if self._busy_since is None or self._in_line:
            return False
        since = max(self._busy_since, self._worker.heard_at or 0.0)
        return now - since > self._study_seconds + 600 + _GRACE_SECONDS

    def rest(self) -> None:
        """End the worker's process unless it is at work."""
        if self._busy_since is None:
            self._worker.rest()

    def close(self) -> None:
        """End the worker's process, also at work: its study goes back to the queue."""
        self._worker.close()

    # --- the thread ---

    def run(self) -> None:
        """Work until stopped. Never raises: an unexpected fault is logged and the lane goes on."""
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:
                log.exception("%s: unexpected fault, going on", self.name)
                self._stopping.wait(1.0)
        self._worker.close()

    def _turn(self) -> None:
        if not self._floor.may_work(self.number):
            self._unproven()
            self._stopping.wait(_WAIT_SECONDS)
            return
        wanted = self._floor.ladder.rung_for()
        if wanted is not None and wanted != self._worker.rung:  # climbed, or stepped down by another lane
            self._worker.change(wanted)
            self._next_golden = 0.0
        if self._golden is None or not self._golden.ok or not self._worker.alive:
            if time.monotonic() >= self._not_before:
                with self._undisturbed(self._start_alone):
                    self._start()
            else:
                self._stopping.wait(_WAIT_SECONDS)
            return
        asked = self._floor.asked_golden()
        if asked or time.monotonic() >= self._next_golden:
            self._compute_golden(asked)
            return
        study = self._floor.next_study(_WAIT_SECONDS)
        if study is None:
            early = self._period(_GOLDEN_SHARE) - self._period(_GOLDEN_SHARE_IDLE)
            if time.monotonic() >= self._next_golden - early:
                self._compute_golden([])
        else:
            hold = 0.0
            self._study_since = time.monotonic()
            try:
                with self._undisturbed(self._suspected(study)):
                    hold = self._process(study)
            finally:
                self._in_studies += time.monotonic() - self._study_since
                self._study_since = None
                self._floor.put_down(study, hold)

    @contextmanager
    def _undisturbed(self, wanted: bool) -> Iterator[None]:
        """Have no other lane work meanwhile, where that is wanted: then a failure has one cause only."""
        with self._floor.alone(self.number) if wanted else nullcontext():
            self._alone = wanted
            try:
                yield
            finally:
                self._alone = False

    def _suspected(self, study: StudyRecord) -> bool:
        """Whether a study is computed alone: memory ended, or the service died more than once, while it was in work."""
        if not study.attempts:
            return False
        codes = [code for code, _ in self._journal.failures_of(study.row)]
        return codes.count(PipelineCode.SERVICE_DIED) >= DEATHS_TOGETHER or any(
            cause_of(code) is Cause.MEMORY for code in codes
        )

    # --- proving ---

    def _start(self) -> bool:
        """Have a worker whose golden case has passed; returns whether it worked."""
        rung = self._floor.ladder.rung_for() or self._floor.ladder.rungs[-1]
        self._worker.change(rung)
        self._journal.keep_fact(f"starting-{self.number}", rung.name)
        try:
            with self._at_work("start"):
                started = self._worker.start()
        except InferenceFailed as failure:
            self._host_failed(rung, failure)
            return False
        finally:
            self._journal.keep_fact(f"starting-{self.number}", None)
        self._asserts = started.asserts
        if broken := _broken(started.asserts):
            self._worker.rest()
            self._host_failed(rung, broken, started.golden)
            return False
        self._passed(started.golden, rung)
        return True

    def _compute_golden(self, asked: Sequence[Future[Golden]]) -> None:
        rung = self._worker.rung
        # Ten times as long as it took is slow, and judged so by health; longer than that it hangs.
        usual = self._golden.seconds if self._golden is not None and self._golden.seconds else 0.0
        try:
            with self._at_work("golden"):
                verdict = self._worker.golden(_GOLDEN_PATIENCE_SECONDS + 12 * usual)
        except InferenceFailed as failure:
            self._host_failed(rung, failure)
        else:
            if verdict.ok:
                self._passed(verdict, rung)
            else:
                self._worker.rest()
                told = f"{verdict.metric} {verdict.value:g}, {verdict.wanted:g} wanted"
                self._host_failed(rung, InferenceFailed(Code.GOLDEN_MISMATCH, told), verdict)
        for future in asked:
            if future.set_running_or_notify_cancel():
                assert self._golden is not None  # both ways set it
                future.set_result(self._golden)

    def _passed(self, verdict: GoldenVerdict, rung: Rung) -> None:
        self._in_studies = 0.0
        self._golden = Golden(
            ok=True,
            at=time.monotonic(),
            value=verdict.value,
            wanted=verdict.wanted,
            metric=verdict.metric,
            # The better of two, as one may have met another busy moment of the host; not where it is far too slow.
            seconds=verdict.seconds
            if verdict.seconds > _SURE * self._fastest
            else min(verdict.seconds, self._seconds_before or verdict.seconds),
        )
        # One slow run is looked at again at once: whether the host has become slow shall not take two periods.
        suspicious = verdict.seconds > _SUSPICIOUS * self._fastest and (self._seconds_before or 0.0) < (
            _SUSPICIOUS * self._fastest
        )
        self._seconds_before = verdict.seconds
        if rung == self._rung_proven and self._fastest:
            self._fastest = min(self._fastest, verdict.seconds)
        else:
            self._rung_proven, self._fastest, self._seconds_before = rung, verdict.seconds, None
        self._pauses, self._not_before, self._start_alone = 0, 0.0, False
        pause = _GOLDEN_AGAIN_SECONDS if suspicious else self.golden_period
        self._next_golden = time.monotonic() + pause
        if self._floor.ladder.succeeded(rung):
            self._journal.note_event(EventCode.LADDER_UP, f"rung {rung.name} passes its golden case again")
        self._floor.proven()

    def _host_failed(
        self, rung: Rung, failure: InferenceFailed, verdict: GoldenVerdict | None = None
    ) -> None:
        """The golden case failed: nothing proves that this host can compute at this rung."""
        if failure.code == Code.WORKER_CLOSED:
            return
        self._golden = Golden(
            ok=False,
            at=time.monotonic(),
            value=verdict.value if verdict else None,
            wanted=verdict.wanted if verdict else None,
            code=failure.code,
            metric=verdict.metric if verdict else "",
            seconds=verdict.seconds if verdict else None,
        )
        log.error("%s: golden case at rung %s: %s, %s", self.name, rung.name, failure.code, failure.message)
        self._journal.note_failure(
            None, failure.code, OUTSIDE if failure.outside else rung.name, failure.message
        )
        if failure.outside:
            # Whoever ends our processes says nothing about a rung: the same again, ever more seldom.
            self._give_up(failure.code, rung, pause=self._pauses > 0)
            return
        disturbed = cause_of(failure.code) in (Cause.MEMORY, Cause.TIME) or failure.code == Code.WORKER_HUNG
        if disturbed and not self._alone:
            # Perhaps it was what another lane reads that took the memory or the time, or what was here before:
            # that says nothing about the rung. Once more, alone.
            self._start_alone = True
            return
        lower = self._floor.ladder.failed(rung, failure.code)
        if lower is not None:
            if lower != rung:
                self._stepped_down(rung, lower, failure.code)
            return  # at once, at the next turn
        self._give_up(failure.code, rung, pause=True)

    def _give_up(self, code: str, rung: Rung, *, pause: bool) -> None:
        if pause:
            seconds = min(_PAUSE_FIRST_SECONDS * 2**self._pauses, _PAUSE_LAST_SECONDS)
            self._not_before = time.monotonic() + seconds
        self._pauses = min(self._pauses + 1, 10)
        self._floor.gave_up(code, rung)

    def _unproven(self) -> None:
        if self._worker.pid is not None:  # also one that was stopped, or has died
            self._worker.rest()
        self._golden, self._asserts = None, ()

    def _stepped_down(self, rung: Rung, lower: Rung, code: str, shape: Sequence[int] = ()) -> None:
        of = f" for inputs of {'x'.join(map(str, shape))}" if shape else ""
        self._journal.note_event(EventCode.LADDER_DOWN, f"{rung.name} -> {lower.name} ({code}){of}")

    # --- a study ---

    def _process(self, study: StudyRecord) -> float:
        """Bring a study to an end, or back into the queue; returns seconds it shall be left alone there."""
        try:
            self._journal.begin_inference(study.row)
        except JournalError:
            return 0.0  # an image has just come: the study waits for its quiet time again
        self._tried = (self._worker.rung, ())
        if self._alone:
            self._journal.keep_fact(ALONE, str(study.row))
        self._worker.observed()  # what was seen of a study that went back to the queue is not of this one
        try:
            files = self._spool.files(study)
            if not files:
                self._end(study, "rejected", PipelineCode.STUDY_EMPTY, "the study has no instances")
                return 0.0
            with self._outbox.work_folder(study) as work:
                context = self._context(study)
                result = self._compute(study, files, work, context)
                if result is None:  # every rung is known to fail for it: until one has rested
                    self._journal.return_to_queue(study.row, forget_attempt=True)
                    return 60.0
                if set(self._journal.study(study.row).broken_off) - set(context.broken_off):
                    # A transfer of it broke off meanwhile: the worker has not judged by that yet.
                    self._journal.return_to_queue(study.row, forget_attempt=True)
                    return 0.0
                self._outbox.publish(study, work)
        except FilesMissing as missing:
            # Where some of the files were sent again, the others may be on their way.
            if study.restored_at is None or self._forced(study):
                self._end(study, "quarantined", PipelineCode.INSTANCES_REMOVED, str(missing))
            else:
                self._hold(study, (str(missing),))
        except StudyIncomplete as incomplete:
            if self._forced(study):
                self._end(study, "quarantined", Code.STUDY_INCOMPLETE, "; ".join(incomplete.lacks))
            else:
                self._hold(study, incomplete.lacks)
        except InputRejected as rejection:
            outcome = "quarantined" if rejection.hold else "rejected"
            self._end(study, outcome, rejection.code, rejection.message)
        except InferenceFailed as failure:
            return self._failed(study, failure)
        except Exception as error:
            log.exception("study %d: unexpected fault in inference", study.row)
            self._journal.note_failure(
                study.row, PipelineCode.INTERNAL_ERROR, self._tried[0].name, type(error).__name__
            )
            self._again_or_end(study, PipelineCode.INTERNAL_ERROR, type(error).__name__)
        else:
            self._finish(study, result)
        finally:
            if self._alone:
                self._journal.keep_fact(ALONE, None)
        return 0.0

    def _compute(
        self, study: StudyRecord, files: Sequence[Path], work: Path, context: StudyContext
    ) -> InferenceResult | None:
        ladder = self._floor.ladder
        with self._at_work("study"):
            rules = open_rules() if study.skip_filter else self._floor.rules.file
            reading = self._worker.read(files, rules, context)
            shape = reading.shape
            if reading.left_out:
                told = ", ".join(f"{code} {count}" for code, count in reading.left_out.items())
                log.info(
                    "study %d: of %d instances left out: %s (rules %s)",
                    study.row,
                    reading.judged,
                    told,
                    reading.rules,
                )
                self._floor.left_out(reading.left_out)
            self._tried = (self._worker.rung, shape)
            rung = self._choose(study, shape)
            if rung is None:
                return None
            self._tried = (rung, shape)
            if rung.process != self._worker.rung.process:
                self._worker.change(rung)
                self._worker.start()
                self._worker.read(files, rules, context)
            if rung.parallel < ladder.top.parallel:
                self._floor.make_room(self.number)
            self._in_line = True  # which is no sign of a worker that hangs
            try:
                with self._floor.gate.entered(rung.parallel, self._stopping.is_set) as waited:
                    self._busy_since, self._in_line = time.monotonic(), False
                    self._worker.extend(waited)
                    result = self._worker.compute(rung, work, study.revision, self._floor.usual_seconds(rung))
            finally:
                self._in_line = False
            self._floor.took(rung, self._worker.computing_seconds, self._worker.scale)
            return result

    def _context(self, study: StudyRecord) -> StudyContext:
        return StudyContext(
            senders=study.senders,
            character_set=self._floor.character_set(study),
            broken_off=self._journal.study(study.row).broken_off,  # as it is now, not as it was in the queue
            forced=self._forced(study),
            replaces=self._journal.replaced_by(study),
        )

    @staticmethod
    def _forced(study: StudyRecord) -> bool:
        """Whether no more is waited for: its time is over, or an administrator wants it computed as it is."""
        return study.completed_by in ("forced", "resubmitted") or (
            study.held_until is not None and study.held_until <= utc_now()
        )

    def _hold(self, study: StudyRecord, lacks: Sequence[str]) -> None:
        """Back to waiting, as if it had not been begun; where a later revision has more, this one is at its end."""
        if self._floor.hold(study, lacks):
            log.info("study %d waits for images: %s", study.row, "; ".join(lacks))
        else:
            told = f"{'; '.join(lacks)}; a later revision has what came since"
            self._end(study, "rejected", Code.STUDY_INCOMPLETE, told)

    def _choose(self, study: StudyRecord, shape: tuple[int, ...]) -> Rung | None:
        """The rung for a study: the ladder's, or another one where that has failed on this very study."""
        ladder = self._floor.ladder
        rung = ladder.rung_for(shape)
        if rung is None or not study.attempts:
            return rung
        # A death of the service says nothing about a rung, and one accident (a process killed or stopped, memory that
        # a neighbour took) sends nobody lower.
        failures = [
            (code, name)
            for code, name in self._journal.failures_of(study.row)
            if name and code != PipelineCode.SERVICE_DIED
        ]
        in_vain = [name for code, name in failures if cause_of(code) is Cause.MEMORY]
        if len(in_vain) >= FAILURES_ALLOWED:
            left = [failed for name in in_vain if (failed := ladder.named(name)) is not None]
            while any(alike(rung, failed) for failed in left):
                lower = ladder.alternative(rung, Code.WORKER_OUT_OF_MEMORY, shape)
                if lower == rung:
                    break
                rung = lower
        counts: Counter[str] = Counter()
        for code, name in failures:
            counts[code] += 1
            if (
                cause_of(code) is not Cause.MEMORY
                and name == rung.name
                and counts[code] >= strikes_for_study(code)
            ):
                rung = self._another(rung, code, shape)
        return rung

    def _another(self, rung: Rung, code: str, shape: Sequence[int]) -> Rung:
        """Where to try a study that failed at a rung; the same rung where there is no other."""
        ladder = self._floor.ladder
        other = ladder.alternative(rung, code, shape)
        if other == rung and code == Code.WORKER_HUNG:  # no other engine: perhaps it was slow, not hanging
            other = ladder.alternative(rung, Code.INFERENCE_TIMEOUT, shape)
        return other

    def _finish(self, study: StudyRecord, result: InferenceResult) -> None:
        rung, shape = self._tried
        self._journal.begin_delivery(
            study.row,
            model=result.model,
            model_version=result.model_version,
            engine=result.engine,
            precision=result.precision,
            rung=result.rung,
            device=result.device,
            inference_seconds=result.seconds,
            notes=result.notes,
            results=result.objects,
        )
        self._floor.ended(
            study,
            self._worker.observed(),
            {"Outcome": "computed", "Rung": result.rung, "InferenceSeconds": result.seconds},
        )
        log.info(
            "study %d computed in %.1f s (%s, rung %s)", study.row, result.seconds, result.device, result.rung
        )
        ladder = self._floor.ladder
        if study.attempts:
            for code, name in self._own_failures(study):
                failed = ladder.named(name)
                # It works here: it was that rung or what is odd about the study. Other studies of its shape tell.
                if (
                    failed is not None
                    and name != rung.name
                    and ladder.witness(failed, code, shape, study.row)
                ):
                    self._stepped_down(failed, rung, code, shape)
        if ladder.succeeded(rung, shape):
            self._journal.note_event(EventCode.LADDER_UP, f"rung {rung.name} works again")
        self._floor.proven()
        if self._floor.computed(result):
            self._next_golden = 0.0  # a large study, or a host that has become slow? The golden case tells

    def _failed(self, study: StudyRecord, failure: InferenceFailed) -> float:
        """No result: whose fault it was decides what happens to the study."""
        if failure.code == Code.WORKER_CLOSED:
            self._journal.return_to_queue(study.row, forget_attempt=True)
            return 0.0
        if failure.code == Code.STORAGE_FULL:
            self._journal.return_to_queue(study.row, forget_attempt=True)
            log.error("study %d: %s; held until there is room", study.row, failure.message)
            return _FULL_SECONDS
        rung, shape = self._tried
        cause = cause_of(failure.code)
        # Only what fails in the model speaks of a rung; reading and writing are the same at each, and whoever has not
        # been read has no shape.
        step = self._worker.step
        computing = bool(shape) and step not in (Step.READ, Step.WRITE)
        blamed = OUTSIDE if failure.outside else rung.name if computing else ""
        number = self._journal.note_failure(study.row, failure.code, blamed, failure.message)
        told = f"{failure.code} at step {step}, rung {rung.name}"
        log.warning("study %d: %s, %s", study.row, told, failure.message)
        another = computing and not failure.outside and self._another(rung, failure.code, shape) != rung
        if failure.sound:
            # The golden case has passed in the very process: the host is well, and the worker goes on. The study is
            # to blame, or the engine, which another one tells.
            self._again_or_end(study, failure.code, failure.message, FAILURES_ALLOWED if another else 0)
            return 0.0
        self._golden = None  # until the successor has proven itself
        # The study or the host? The golden case in the successor tells.
        if not self._start():
            self._journal.acquit(number)
            self._journal.return_to_queue(study.row, forget_attempt=True)
        elif failure.outside:
            self._interrupted(study, failure)
        elif cause is Cause.MEMORY and computing:
            self._out_of_memory(study, failure)
        else:
            allowed = FAILURES_ALLOWED
            if failure.code == Code.WORKER_HUNG:
                allowed = HANGS_ALLOWED
            elif cause is Cause.TIME:
                allowed = TIMEOUTS_ALLOWED
            elif cause is Cause.DEVICE:
                allowed = DEVICE_FAILURES_ALLOWED
            elif another:  # which is tried once this one has failed as often as an accident may happen
                allowed = strikes_for_study(failure.code) + 1
            self._again_or_end(study, failure.code, failure.message, allowed)
        return 0.0

    def _interrupted(self, study: StudyRecord, failure: InferenceFailed) -> None:
        """A signal from outside ended or stopped the worker: as it is once more, unless that goes on."""
        often = [name for _, name in self._journal.failures_of(study.row)].count(OUTSIDE)
        if often < OUTSIDE_ALLOWED:
            self._journal.return_to_queue(study.row, forget_attempt=False)
            log.warning("study %d: %s; trying once more", study.row, failure.code)
        else:
            told = f"{failure.message}; {often} times a signal from outside interrupted it"
            self._end(study, "quarantined", failure.code, told)

    def _out_of_memory(self, study: StudyRecord, failure: InferenceFailed) -> None:
        """The model did not find the memory it wanted: the rung is to blame only where nothing else was in work."""
        rung, shape = self._tried
        if not self._alone:
            self._journal.return_to_queue(study.row, forget_attempt=False)  # as it is once more, alone
            return
        lower = self._floor.ladder.failed_alone(rung, failure.code, shape)
        if lower is None:
            self._end(study, "quarantined", failure.code, f"{failure.message}; no lower rung is left")
        else:
            self._stepped_down(rung, lower, failure.code, shape)
            self._journal.return_to_queue(study.row, forget_attempt=False)

    def _again_or_end(
        self, study: StudyRecord, code: str, detail: str, allowed: int = FAILURES_ALLOWED
    ) -> None:
        if len(self._own_failures(study)) < allowed:
            self._journal.return_to_queue(study.row, forget_attempt=False)
            log.warning("study %d: %s; trying once more", study.row, code)
        else:
            self._end(study, "quarantined", code, detail)

    def _own_failures(self, study: StudyRecord) -> list[tuple[str, str]]:
        """(code, rung) of failures the study may be to blame for: not the power's, nor those that came from outside.

        Nor those for want of memory in the model, of which the ladder has learnt already.
        """
        return [
            (code, name)
            for code, name in self._journal.failures_of(study.row)
            if code != PipelineCode.SERVICE_DIED
            and name != OUTSIDE
            and not (name and cause_of(code) is Cause.MEMORY)
        ]

    def _end(self, study: StudyRecord, outcome: str, code: str, detail: str) -> None:
        end_study(self._journal, self._spool, study, outcome, code, detail)
        self._floor.ended(study, self._worker.observed(), {"Outcome": f"{outcome} {code}"})

    @contextmanager
    def _at_work(self, what: Work) -> Iterator[None]:
        """For health: since when the worker has been at what."""
        self._what, self._busy_since = what, time.monotonic()
        try:
            yield
        finally:
            self._what, self._busy_since = "", None


# What an assert that failed means for the ladder: another device, another engine. The rest no rung helps.
_ASSERTED = {
    CheckCode.COMPUTE_CAPABILITY: Code.NO_KERNEL_IMAGE,
    CheckCode.KERNELS_LAUNCH: Code.NO_KERNEL_IMAGE,
    CheckCode.MODULE_OUTPUTS: Code.GOLDEN_MISMATCH,
    CheckCode.PRECISION_IN_USE: Code.GOLDEN_MISMATCH,
    CheckCode.PROVIDER_IN_USE: Code.GOLDEN_MISMATCH,
    CheckCode.WEIGHTS_DIGEST: Code.WEIGHTS_MISMATCH,
}


def _broken(asserts: Sequence[Assertion]) -> InferenceFailed | None:
    """The first critical assert that failed, as what the ladder understands."""
    for one in asserts:
        code = CheckCode(one.code)
        if not one.ok and CHECKS[code].critical:
            told = f"{code}: {one.value}, {one.wanted} wanted"
            return InferenceFailed(_ASSERTED.get(code, Code.ASSERTION_FAILED), told)
    return None


def end_study(
    journal: Journal, spool: Spool, study: StudyRecord, outcome: str, code: str, detail: str
) -> None:
    """Quarantine first, journal second, spool last: after a crash between any two, nothing is lost."""
    kept_bytes = spool.quarantine_study(study, code)
    journal.finish(study.row, outcome, code, detail, kept_bytes)
    spool.remove_study(study)
    log.warning("study %d %s: %s", study.row, outcome, code)
