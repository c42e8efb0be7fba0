"""The pipeline: lanes of one worker process each move complete studies through filter and inference.

Its own thread decides nothing about a study: it keeps time (quiet studies, housekeeping, systemd's watchdog), and
says which lanes may work. It is the part that must not hang: the watchdog is fed from here and from nowhere
else, and not while a lane hangs. While no golden case passes, studies are received and held, not computed.

The queue is the journal: durable, and in memory no more of it than the lanes have in work.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from outpost.config import Config
from outpost.delivery.outbox import Outbox
from outpost.drift.book import Value
from outpost.drift.keeper import Ended, Keeper
from outpost.events import EventCode
from outpost.filter.active import ActiveRules
from outpost.inference import InferenceResult, InferenceWorker
from outpost.inference.gate import Gate
from outpost.inference.ladder_status import reset, status_of
from outpost.inference.plan import Plan, make_plan
from outpost.inference.rung import Rung
from outpost.inference.state import Golden, LaneState
from outpost.inference.usual import UsualTimes
from outpost.intake.assembly import Assembly
from outpost.intake.spool import MIB, Spool
from outpost.lane import ALONE, DEATHS_TOGETHER, OUTSIDE, Lane, end_study
from outpost.notify import Notifier
from outpost.optimiser import IdleOptimiser
from outpost.reasons import PipelineCode
from outpost.records.journal import Journal, StudyRecord, utc_now
from outpost.turns import Turns

log = logging.getLogger(__name__)

# A study that the whole service died on: on a train it may just have been the power, so a few times.
DEATHS_ALLOWED = 5
# Of those, deaths while it was the only study in work: then hardly anything else is to blame.
DEATHS_ALONE = 3

_TICK_SECONDS = 0.25
_LOOK_SECONDS = 2.0
_HOUSEKEEPING_SECONDS = 30.0
_RESULT_ROOM_BYTES = 64 * MIB
_WARM_UP_SECONDS = 60.0  # asked of systemd again and again while a lane is proving itself
_FINISH_SECONDS = 5.0  # at the end of the service: a study in work may still end by itself
# A study unusually large for this host may pass this and still end well: the verdict says so, nothing is stopped.
_STALL_FIRST_SECONDS, _STALL_FACTOR = 5.0, 1.5
_SUSPICIOUS = 3.0  # times as long as studies usually take
_LONGEST_RECEIVE_ONLY_SECONDS = 4 * 3600.0
_MEAN_WEIGHT = 0.2  # of the newest study in the running mean of their times
_LOOKED_AHEAD = 16  # studies in the queue among which one is looked for that killed nothing yet
_PASSED_SECONDS = 600.0  # that long others are computed before one that the service died on
_ALONE_WAIT_SECONDS = 600.0


class Pipeline:
    """Owns the lanes; everything else may only ask for a golden run or look at the public attributes."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        spool: Spool,
        assembly: Assembly,
        outbox: Outbox,
        plan: Plan,
        rules: ActiveRules,
        optimiser: IdleOptimiser,
        notifier: Notifier,
        published: Callable[[], None],
        observed: Callable[[InferenceResult], None],
        keeper: Keeper | None = None,
    ) -> None:
        """`published` is called when results lie in the outbox, `observed` with each.

        `keeper` watches what comes in for drift.
        """
        self._keeper = keeper
        self._optimiser = optimiser
        self._config = config
        self._journal = journal
        self._spool = spool
        self._assembly = assembly
        self._notifier = notifier
        self._published = published
        self._observed = observed
        self._stop = threading.Event()
        self._condition = threading.Condition()
        self._claimed: dict[int, float] = {}  # rows the lanes have, or shall leave alone, until when
        self._asked: list[Future[Golden]] = []
        self._next_housekeeping = 0.0
        self._next_look = 0.0
        self._announced = False
        self._typical: float | None = None
        self._only_receiving = ""
        self._retry_at = 0.0
        self._retries = 0
        self.gate = Gate()
        self.ladder = plan.ladder
        self.rules = rules
        self.instances_left_out: Counter[str] = Counter()  # by reason code, of studies that were computed
        self.queue: dict[str, tuple[int, datetime | None]] = {}  # as Journal.queue, seconds old
        self.last_tick = self.journal_answered = time.monotonic()
        self.golden_fastest: float | None = None
        self._lent = 0  # lanes that rest while the engines are measured
        self._alone: int | None = None  # the lane beside which no other may work
        self._turns = Turns(journal)
        self._suspects: dict[int, float] = {}  # rows that wait for others, since when
        self._usual = UsualTimes(journal, plan.name)
        self._lanes = [
            Lane(
                number,
                self,
                InferenceWorker(
                    config.inference.bundle,
                    plan.ladder.rung_for() or plan.ladder.rungs[-1],
                    config.inference.timeout_seconds,
                    config.storage.root,
                    vram_mib=config.inference.vram_mib // plan.ladder.top.parallel,
                    keep_memory=plan.keep_memory,
                    memory_mib=plan.study_mib,
                ),
                journal,
                spool,
                outbox,
                self._stop,
                config.inference.golden_period_seconds,
                config.inference.timeout_seconds,
            )
            for number in range(plan.ladder.top.parallel)
        ]

    # --- for health, from other threads ---

    @property
    def lanes(self) -> list[LaneState]:
        """One entry a lane."""
        return [lane.state for lane in self._lanes]

    @property
    def rung(self) -> Rung:
        """The rung new studies begin at."""
        return self.ladder.rung_for() or self.ladder.rungs[-1]

    @property
    def receive_only(self) -> str:
        """The code that made this system stop computing; empty while it computes."""
        return self._only_receiving

    @property
    def golden(self) -> Golden | None:
        """What the lanes' golden cases say together: one that fails speaks for all, else the newest."""
        found = self._goldens()
        failing = [golden for golden in found if not golden.ok]
        return failing[0] if failing else max(found, key=lambda golden: golden.at, default=None)

    @property
    def golden_period(self) -> float:
        """Seconds between the golden cases of one lane."""
        return max((lane.golden_period for lane in self._lanes), default=0.0)

    @property
    def stall_seconds(self) -> float:
        """How long a study or golden case may be in work before it counts as not getting on."""
        return _STALL_FIRST_SECONDS + _STALL_FACTOR * max(self.golden_fastest or 0.0, self._typical or 0.0)

    def ladder_status(self) -> dict[str, Any]:
        """As `status_of`, of the ladder in use."""
        return status_of(self.ladder)

    def reset_ladder(self, who: str) -> dict[str, Any]:
        """Forget which rungs failed; returns as `outpost.inference.ladder_status.reset`."""
        return reset(self.ladder, self._journal, who)

    def _goldens(self) -> list[Golden]:
        """Of the lanes that have one; cheaper than `lanes`, which asks the kernel about every process."""
        return [lane.golden for lane in self._lanes if lane.golden is not None]

    def ask_golden(self) -> Future[Golden]:
        """Have the golden case computed by the next free lane, before its next study."""
        future: Future[Golden] = Future()
        with self._condition:
            self._asked.append(future)
            self._condition.notify_all()
        return future

    def stop(self) -> None:
        """Have `run` return; a study in work ends within seconds or goes back to the queue."""
        self._stop.set()

    def close(self) -> None:
        """Kill the workers, whatever they do."""
        for lane in self._lanes:
            lane.close()

    # --- the thread ---

    def run(self) -> None:
        """Keep time until stopped. Never raises: an unexpected fault is logged and the loop goes on."""
        self._learn_from_last_end()
        for lane in self._lanes:
            lane.start()
        while not self._stop.is_set():
            try:
                self._tick()
                self._keep_house()
                self._measure_engines()
            except Exception:
                log.exception("pipeline: unexpected fault, going on")
                self._stop.wait(1.0)
            self._stop.wait(_TICK_SECONDS)
        self._end_lanes()
        with self._condition:
            for future in self._asked:
                future.cancel()

    def _end_lanes(self) -> None:
        self._optimiser.stop()
        close_at = time.monotonic() + _FINISH_SECONDS
        with self._condition:
            self._condition.notify_all()
        for lane in self._lanes:
            lane.join(max(0.0, close_at - time.monotonic()))
        self.close()
        for lane in self._lanes:
            lane.join(_FINISH_SECONDS)

    def _tick(self) -> None:
        now = self.last_tick = time.monotonic()
        if not any(lane.hangs(now) for lane in self._lanes):
            self._notifier.watchdog()
        if not self._announced:
            self._notifier.extend_start(_WARM_UP_SECONDS)
            self._notifier.status("warming up: loading the model and computing its golden case")
        try:
            completed = self._assembly.complete_due_studies()
            if now >= self._next_look:
                self._next_look = now + _LOOK_SECONDS
                self.queue = self._journal.queue()
                self.journal_answered = time.monotonic()
                self.rules.look()
        except sqlite3.Error:
            # A full disk, for instance. It must not cut off the lanes during whose work we tick.
            log.exception("the journal does not answer; trying again")
            return
        if completed:
            with self._condition:
                self._condition.notify_all()

    # --- what lanes ask (Floor) ---

    def may_work(self, lane: int) -> bool:
        """Whether this lane may have a worker now."""
        if self._only_receiving and not (lane == 0 and time.monotonic() >= self._retry_at):
            return False
        if self._optimiser.before_all or self._alone not in (None, lane):
            return False
        rung = self.rung
        if lane >= min(rung.parallel - self._lent, self.gate.limit or rung.parallel):
            return False
        # One after the other: the first proves the host before the rest load the model beside it.
        return lane == 0 or any(golden.ok for golden in self._goldens())

    def next_study(self, wait_seconds: float) -> StudyRecord | None:
        """The oldest complete study nobody has (of many, the oldest of whose turn it is), claimed for the caller."""
        with self._condition:
            study = self._unclaimed()
            if study is None:
                self._condition.wait(wait_seconds)
                study = self._unclaimed()
            if study is not None:
                self._claimed[study.row] = float("inf")
                self._turns.took(study)
            return study

    def _unclaimed(self) -> StudyRecord | None:
        if self._asked or self._only_receiving:
            return None
        if self._spool.free_bytes() < _RESULT_ROOM_BYTES:
            return None  # held: a result that cannot be written would look like a fault of the study
        now = time.monotonic()
        for row in [row for row, until in self._claimed.items() if until <= now]:
            del self._claimed[row]
        waiting = self._journal.queued(limit=len(self._claimed) + _LOOKED_AHEAD)
        free = [study for study in waiting if study.row not in self._claimed]
        if len(free) >= _LOOKED_AHEAD:
            free = self._turns.oldest_of_each(self._claimed.keys(), _LOOKED_AHEAD) or free
        for study in free:
            if self._turn_has_come(study, now):
                return study
        return free[0] if free else None

    def _turn_has_come(self, study: StudyRecord, now: float) -> bool:
        """Whether a study is taken before those that came later: one that the service died on lets them pass."""
        if not study.attempts:
            return True
        deaths = [code for code, _ in self._journal.failures_of(study.row)].count(PipelineCode.SERVICE_DIED)
        if deaths < DEATHS_TOGETHER:
            return True
        for row in [row for row, since in self._suspects.items() if now - since > 10 * _PASSED_SECONDS]:
            del self._suspects[row]
        return now - self._suspects.setdefault(study.row, now) > _PASSED_SECONDS

    def put_down(self, study: StudyRecord, hold_seconds: float = 0.0) -> None:
        """The lane is done with the study; it may be taken again after the hold."""
        with self._condition:
            if hold_seconds:
                self._claimed[study.row] = time.monotonic() + hold_seconds
            else:
                self._claimed.pop(study.row, None)
                self._condition.notify()

    def hold(self, study: StudyRecord, lacks: Sequence[str]) -> bool:
        """Have a study wait for what it lacks; False where a later revision has that already."""
        until = utc_now() + timedelta(seconds=self._assembly.forced_after(study))
        if not self._journal.hold(study.row, until, lacks):
            return False
        self._assembly.hold(study.row)
        return True

    def character_set(self, study: StudyRecord) -> str:
        """In what the site says the texts of this study's sender are encoded; empty where it says nothing."""
        return self._config.intake.character_set_of(study.senders)

    def asked_golden(self) -> list[Future[Golden]]:
        """Those who want the golden case computed now."""
        with self._condition:
            asked, self._asked = self._asked, []
        return asked

    def make_room(self, lane: int) -> None:
        """Have the other idle lanes end their processes and free their memory."""
        for other in self._lanes:
            if other.number != lane:
                other.rest()

    @contextmanager
    def alone(self, lane: int) -> Iterator[None]:
        """While it lasts no other lane works or has a process; begins when what they have in work has ended."""
        while not self._stop.is_set():
            with self._condition:
                if self._alone is None:
                    self._alone = lane
                    break
            self._lanes[lane].rest()  # whoever is alone now waits for our memory
            self._stop.wait(0.2)
        try:
            others = [other for other in self._lanes if other.number != lane]
            deadline = time.monotonic() + _ALONE_WAIT_SECONDS
            # They end their processes by themselves, once they may not work (`may_work`).
            while any(other.has_process for other in others) and time.monotonic() < deadline:
                if self._stop.wait(0.05):
                    break
            yield
        finally:
            with self._condition:
                self._alone = None if self._alone == lane else self._alone
                self._condition.notify_all()

    def usual_seconds(self, rung: Rung) -> float | None:
        """What computing usually takes at a rung, for an input of the golden case's size; None before it is known."""
        return self._usual.of(rung.name)

    def took(self, rung: Rung, seconds: float, scale: float) -> None:
        """A study was in the model for so long."""
        self._usual.note(rung.name, seconds, scale)

    def left_out(self, counts: Mapping[str, int]) -> None:
        """Instances of a study that is computed were left out, by reason code."""
        with self._condition:
            self.instances_left_out.update(counts)

    def computed(self, result: InferenceResult) -> bool:
        """A result lies in the outbox; returns whether it took suspiciously long."""
        seconds = result.seconds
        slow = self._typical is not None and seconds > _SUSPICIOUS * self._typical
        if slow and self._typical is not None:  # one enormous study says little about those that follow
            seconds = _SUSPICIOUS * self._typical
        self._typical = (
            seconds if self._typical is None else self._typical + _MEAN_WEIGHT * (seconds - self._typical)
        )
        self._observed(result)
        self._published()
        return slow

    def ended(self, study: StudyRecord, observed: dict[str, Any], values: dict[str, Value]) -> None:
        """A study came to its end: counted for drift when there is time."""
        if self._keeper is not None:
            self._keeper.observe(Ended(study.study_uid, observed, values))

    def proven(self) -> None:
        """This host can compute: it is ready, and no longer only receives."""
        if self._journal.failures_since_success():
            self._journal.note_success()
        seconds = [golden.seconds for golden in self._goldens() if golden.seconds]
        if seconds:
            self.golden_fastest = min([*seconds, *([self.golden_fastest] if self.golden_fastest else [])])
        if self._only_receiving:
            self._journal.note_event(EventCode.RECEIVE_ONLY_ENDED, f"was: {self._only_receiving}")
            self._journal.keep_fact("receive_only", None)
            self._only_receiving, self._retries = "", 0
        self._announce("ready")

    def gave_up(self, code: str, rung: Rung) -> None:
        """No rung helps: after enough failures of one cause, only receive."""
        self._notifier.status(f"holding studies: the golden case fails ({code})")
        since = self._journal.failures_since_success()
        failures = since.get((code, rung.name), 0) + since.get((code, OUTSIDE), 0)
        if failures >= self._config.inference.ladder.deaths_allowed:
            self._only_receive(
                code, f"{failures} failures of {code} at rung {rung.name}, none but failures since"
            )

    # --- receiving only ---

    def _only_receive(self, code: str, told: str) -> None:
        pause = min(
            self._config.inference.ladder.receive_only_retry_seconds * 2 ** min(self._retries, 10),
            max(_LONGEST_RECEIVE_ONLY_SECONDS, self._config.inference.ladder.receive_only_retry_seconds),
        )
        self._retries += 1
        self._retry_at = time.monotonic() + pause
        if not self._only_receiving:
            self._journal.note_event(EventCode.RECEIVE_ONLY_BEGUN, told)
            self._journal.keep_fact("receive_only", code)
        self._only_receiving = code
        log.error("receiving only: %s; trying again in %.0f s", told, pause)
        # The unit has started as far as it can: systemd must not end and start it for ever.
        self._announce(f"receiving only: {code}")

    def _learn_from_last_end(self) -> None:
        """A worker's start that the service did not survive is a death that only this can count."""
        for number in range(256):
            rung = self._journal.fact(f"starting-{number}")
            if rung is None:
                if number >= len(self._lanes):
                    break
                continue
            self._journal.keep_fact(f"starting-{number}", None)
            self._journal.note_failure(
                None, PipelineCode.SERVICE_DIED, rung, "the service ended while a worker started"
            )
            self._journal.note_event(EventCode.SERVICE_DIED, f"while a worker started at rung {rung}")
        # Somebody may have put it right meanwhile: one try at once.
        self._only_receiving = self._journal.fact("receive_only") or ""
        rungs = {rung.name: rung for rung in self.ladder.rungs}
        allowed = self._config.inference.ladder.deaths_allowed
        for (code, name), failures in self._journal.failures_since_success().items():
            if code != PipelineCode.SERVICE_DIED or name not in rungs:
                continue
            # No rung is left for it: power that fails, or a kill, says nothing about any. What takes the service
            # down at every start is for a person.
            if failures >= allowed:
                self._only_receive(
                    code, f"the service ended {failures} times starting a worker at rung {name}"
                )

    def _announce(self, status: str) -> None:
        if not self._announced:
            self._announced = True
            self._notifier.ready()
        self._notifier.status(status)

    # --- the engine ---

    def _measure_engines(self) -> None:
        """While nothing waits, find out which engine is the fastest here; the lanes change to it by themselves."""
        idle = (
            not self._only_receiving
            and not (self.queue.keys() & {"complete", "inferring"})
            and not self._assembly.receiving()
            and self.golden is not None
            and self.golden.ok
        )
        if self._optimiser.turn(idle):
            plan = make_plan(self._config, self._journal)
            top = plan.ladder.top
            self._journal.note_event(
                EventCode.ENGINE_MEASURED, f"{top.engine} in {top.precision} on {top.device}"
            )
            log.info("engine chosen: %s in %s on %s", top.engine, top.precision, top.device)
            self.ladder = plan.ladder
            self._usual = UsualTimes(self._journal, plan.name)
            self.golden_fastest, self._typical = None, None
        # One lane's core and memory are lent to the measuring.
        self._lent = 1 if self._optimiser.running and self.rung.parallel > 1 else 0

    # --- between studies ---

    def _take_back_interrupted(self) -> None:
        """Studies that are `inferring` while no lane has them were interrupted."""
        with self._condition:
            # At one moment: a lane that takes a study, or puts one down, between the two would seem dead.
            interrupted = [s for s in self._journal.in_state("inferring") if s.row not in self._claimed]
        if not interrupted:
            return
        alone = self._journal.fact(ALONE)
        for study in interrupted:
            number = self._journal.note_failure(
                study.row,
                PipelineCode.SERVICE_DIED,
                ALONE if alone == str(study.row) else "",
                "the service ended in the middle of it",
            )
            self._journal.note_event(EventCode.SERVICE_DIED, f"in the middle of study {study.row}")
            died = [
                name
                for code, name in self._journal.failures_of(study.row)
                if code == PipelineCode.SERVICE_DIED
            ]
            deaths = len(died)
            log.warning("failure %d: study %d was interrupted in inference", number, study.row)
            if deaths >= DEATHS_ALLOWED or died.count(ALONE) >= DEATHS_ALONE:
                end_study(
                    self._journal,
                    self._spool,
                    study,
                    "quarantined",
                    PipelineCode.SERVICE_DIED,
                    f"the service ended {deaths} times on it",
                )
            else:
                self._journal.return_to_queue(study.row, forget_attempt=False)
        self._journal.keep_fact(ALONE, None)

    def _keep_house(self) -> None:
        """Take back what was interrupted and drop what was abandoned.

        Remove files of delivered studies: after their time, or at once when the disk runs short.
        """
        now = time.monotonic()
        if now < self._next_housekeeping:
            return
        kept_seconds = self._config.storage.keep_delivered_hours * 3600
        self._next_housekeeping = now + min(_HOUSEKEEPING_SECONDS, max(kept_seconds, 1.0))
        self._take_back_interrupted()
        if adopted := self._assembly.adopt():
            log.warning("%d studies were being received and watched by nobody: watched again", adopted)
        self._spool.drop_abandoned()
        keep = timedelta(
            hours=0 if self._spool.below_reserve() else self._config.storage.keep_delivered_hours
        )
        for study in self._journal.removable(utc_now() - keep):
            self._spool.remove_study(study)
