"""The ladder: which way of computing is tried next when one has failed, and when the fuller one is tried again.

A policy without I/O of its own: it is told of failures and successes and answers with a rung. What it learns is
kept in the journal per bundle, device and input shape, so that a restart does not repeat what failed.

What one study did speaks of inputs of exactly its shape, or of nothing: only the golden case, which is the same in
every process, speaks of inputs of any shape.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from outpost.inference.codes import Code
from outpost.inference.rung import Rung
from outpost.records.journal import Journal, KnownFailure, utc_now

log = logging.getLogger(__name__)

# A rung that fails at each new try is tried ever more seldom.
_LONGEST_REST = timedelta(days=7)
# So many studies must have failed at a rung, and succeeded at another, before the rung is to blame for their shape:
# what one study holds (values without a number, say) can make an engine fail as well as the engine itself.
_WITNESSES = 3
_MOST_WITNESSED = 256  # rungs and shapes whose witnesses are kept, the newest
_MOST_SHAPES = 64  # shapes remembered for one rung, the newest: nobody's odd inputs push out those of others


class Cause(StrEnum):
    """Why a rung failed, as far as it matters for what to try next."""

    MEMORY = "memory"  # anything smaller may fit
    TIME = "time"  # anything smaller may be fast enough
    ENGINE = "engine"  # the engine is not here, or does not take the model: another engine
    OUTPUT = "output"  # the engine's numbers are wrong: another engine or precision
    DEVICE = "device"  # the device cannot, or no longer: another device
    DEATH = "death"  # the process died of neither: another engine, if it happens again
    STUDY = "study"  # an error of the model on this input: perhaps the engine's, so another one
    SYSTEM = "system"  # bundle or weights are not what was released: no rung helps


_CAUSES = {
    Code.INFERENCE_OUT_OF_MEMORY: Cause.MEMORY,
    Code.WORKER_OUT_OF_MEMORY: Cause.MEMORY,
    Code.INFERENCE_TIMEOUT: Cause.TIME,
    Code.OUTPUT_NOT_FINITE: Cause.OUTPUT,
    Code.OUTPUT_CONSTANT: Cause.OUTPUT,
    Code.GOLDEN_MISMATCH: Cause.OUTPUT,
    Code.NO_KERNEL_IMAGE: Cause.DEVICE,
    Code.DEVICE_LOST: Cause.DEVICE,
    Code.WORKER_DIED: Cause.DEATH,
    Code.WORKER_HUNG: Cause.DEATH,
    Code.ENGINE_UNAVAILABLE: Cause.ENGINE,
    Code.BUNDLE_INVALID: Cause.SYSTEM,
    Code.WEIGHTS_MISMATCH: Cause.SYSTEM,
    Code.ASSERTION_FAILED: Cause.SYSTEM,
    Code.STORAGE_FULL: Cause.SYSTEM,
}
# How often a rung may fail of a cause before it is left. A lost device, a process that died, or one that somebody
# stopped, may be an accident.
_STRIKES = {Code.DEVICE_LOST: 2, Code.WORKER_DIED: 2, Code.WORKER_HUNG: 3}


def cause_of(code: str) -> Cause:
    """The cause behind a code; an unknown code speaks of the study."""
    return _CAUSES.get(Code(code), Cause.STUDY) if code in Code.__members__ else Cause.STUDY


def strikes_allowed(code: str) -> int:
    """How many failures of this code a rung is given before the next is tried."""
    return _STRIKES.get(Code(code), 1) if code in Code.__members__ else 1


def strikes_for_study(code: str) -> int:
    """How many failures of this code a study is given at a rung before it is tried at another."""
    return 2 if code in (Code.WORKER_DIED, Code.WORKER_HUNG, Code.DEVICE_LOST) else 1


@dataclass(frozen=True, slots=True)
class Reductions:
    """What a bundle lets the ladder reduce.

    Attributes:
        batches: images (or tiles) a call, descending; the first is the fullest.
        sizes: names of input sizes, descending; the first is the fullest.
        precisions: precisions below the chosen one that the engine offers, in order of preference.
        reference: (engine, precision) of the reference engine, which runs on any CPU.
    """

    batches: Sequence[int]
    sizes: Sequence[str]
    precisions: Sequence[str]
    reference: tuple[str, str]


def build_rungs(engine: str, precision: str, device: str, workers: int, offers: Reductions) -> list[Rung]:
    """All rungs of one host and bundle, fullest first.

    First the chosen engine: fewer studies at once, smaller batches, smaller input, lower precision, each step
    on top of the earlier. Then, where it differs, the reference engine on the CPU with the same steps.
    """
    full = Rung("full", workers, offers.batches[0], offers.sizes[0], engine, precision, device)
    rungs = _reduced(full, "", offers)
    last = rungs[-1]
    for lower in offers.precisions:
        rungs.append(replace(last, name=f"precision-{lower}", precision=lower))
    reference_engine, reference_precision = offers.reference
    if (reference_engine, reference_precision, "cpu") != full.process:
        prefix = "reference" if device == "cpu" else "cpu"
        other = replace(
            full, name=prefix, engine=reference_engine, precision=reference_precision, device="cpu"
        )
        rungs += _reduced(other, f"{prefix}-", offers)
    return rungs


def _reduced(full: Rung, prefix: str, offers: Reductions) -> list[Rung]:
    rungs = [full]
    parallel = full.parallel
    while parallel > 1:
        parallel //= 2
        rungs.append(replace(rungs[-1], name=f"{prefix}parallel-{parallel}", parallel=parallel))
    rungs += [replace(rungs[-1], name=f"{prefix}batch-{batch}", batch=batch) for batch in offers.batches[1:]]
    rungs += [replace(rungs[-1], name=f"{prefix}size-{size}", size=size) for size in offers.sizes[1:]]
    return rungs


class Ladder:
    """Chooses rungs. Safe to use from any thread.

    Args:
        rungs: as `build_rungs` gives them.
        sizes: names of input sizes, descending.
        journal: where failures are kept.
        bundle: name and version of the bundle, as the journal shall know it.
        climb_after_seconds: rest of a rung that failed, doubling with each failure in a row.
        clock: for tests.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        sizes: Sequence[str],
        journal: Journal,
        bundle: str,
        climb_after_seconds: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.rungs = tuple(rungs)
        self._sizes = list(sizes)
        self._journal = journal
        self._bundle = bundle
        self._rest = timedelta(seconds=climb_after_seconds)
        self._clock = clock
        self._lock = threading.RLock()
        self._strikes: dict[tuple[str, str], int] = {}
        self._witnesses: dict[tuple[str, Cause, tuple[int, ...]], set[int]] = {}
        self._known = self._read()

    @property
    def top(self) -> Rung:
        """The fullest rung, working or not."""
        return self.rungs[0]

    def named(self, name: str) -> Rung | None:
        """The rung of this name; None for one that an earlier release or configuration had."""
        return next((rung for rung in self.rungs if rung.name == name), None)

    def rung_for(self, shape: Sequence[int] = ()) -> Rung | None:
        """The fullest rung not known to fail for this input; None when every one is: hold the study.

        An empty shape asks for what holds whatever the input, as for starting a worker.
        """
        with self._lock:
            return next((rung for rung in self.rungs if not self._fails(rung, shape)), None)

    def failed(self, rung: Rung, code: str, shape: Sequence[int] = ()) -> Rung | None:
        """Learn that a rung failed; returns the rung to try next, None when none can help.

        The same rung comes back while its strikes for this code are not used up.
        """
        with self._lock:
            if self._fails(rung, shape):  # another worker was faster to say so
                return next(iter(self._following(rung, cause_of(code), shape)), None)
            key = (rung.name, code)
            self._strikes[key] = self._strikes.get(key, 0) + 1
            if self._strikes[key] < strikes_allowed(code):
                return rung
            del self._strikes[key]
            cause = cause_of(code)
            # A device that is gone is gone whatever the input. (Of a study, the golden case has said so.)
            shape = () if cause is Cause.DEVICE else shape
            following = self._following(rung, cause, shape)
            if not following:
                return None
            self._condemn(rung, cause, shape)
        log.warning(
            "ladder: rung %s failed (%s) for input %s; going on at rung %s",
            rung.name,
            code,
            "x".join(map(str, shape)) or "of any shape",
            following[0].name,
        )
        return following[0]

    def failed_alone(self, rung: Rung, code: str, shape: Sequence[int]) -> Rung | None:
        """Learn that a study failed for memory at a rung while nothing else was in work, more than once.

        Rungs that differ from it only in how many studies are computed at once are left with it.

        Returns:
            The rung to try next; None when none can help.
        """
        with self._lock:
            cause, following = cause_of(code), None
            for left in self.rungs[self.rungs.index(rung) :]:
                if alike(left, rung):
                    following = next(
                        (one for one in self._following(left, cause, shape) if not alike(one, rung)), None
                    )
                    self._condemn(left, cause, shape)
        return following

    def witness(self, rung: Rung, code: str, shape: Sequence[int], study: int) -> bool:
        """A study failed at this rung and succeeded at another; returns whether that now condemns the rung.

        Args:
            rung: where it failed.
            code: of what.
            shape: of the study; the rung is condemned for no other.
            study: its number; one study is one witness, however often it comes.
        """
        key = (rung.name, cause_of(code), tuple(shape))
        with self._lock:
            seen = self._witnesses.pop(key, set())
            seen.add(study)
            if len(seen) >= _WITNESSES:
                self._condemn(rung, cause_of(code), shape)
                return True
            self._witnesses[key] = seen
            while len(self._witnesses) > _MOST_WITNESSED:
                del self._witnesses[next(iter(self._witnesses))]
        return False

    def alternative(self, rung: Rung, code: str, shape: Sequence[int] = ()) -> Rung:
        """Where to try a study that failed at a rung, when the study may be to blame as well as the rung.

        Nothing is learnt yet: only when the other rung succeeds is the first one to blame (`condemn`). The
        same rung where there is no other.
        """
        with self._lock:
            following = self._following(rung, cause_of(code), shape)
        return following[0] if following else rung

    def condemn(self, rung: Rung, code: str, shape: Sequence[int]) -> None:
        """Studies failed at this rung and succeeded at another: the rung was to blame, for their shape."""
        with self._lock:
            self._condemn(rung, cause_of(code), shape)

    def succeeded(self, rung: Rung, shape: Sequence[int] = ()) -> bool:
        """Learn that a rung worked; returns whether it had failed before, so that the system has climbed."""
        with self._lock:
            for key in [key for key in self._strikes if key[0] == rung.name]:
                del self._strikes[key]
            healed = [known for known in self._known if known.rung == rung.name and _heals(shape, known)]
            for known in healed:
                self._journal.forget_failure(self._bundle, rung.device, known.shape, known.rung)
            if healed:
                self._known = self._read()
        return bool(healed)

    def known(self) -> list[KnownFailure]:
        """What is known to fail, for people."""
        with self._lock:
            return list(self._known)

    def resting(self) -> list[tuple[KnownFailure, datetime]]:
        """What is known to fail and not tried now, each with the moment at which it is tried again."""
        with self._lock:
            return [
                (known, known.failed_at + self._rest_of(known))
                for known in self._known
                if self._resting(known)
            ]

    def by_class(self) -> dict[str, Rung | None]:
        """The lowest rung that an input of each class of shapes begins at; None where none is left for one of them.

        The classes are `any` and those of `class_of`: however many shapes there are, there are no more of them.
        """
        with self._lock:
            found: dict[str, Rung | None] = dict.fromkeys(CLASSES, self.rung_for())
            places = {rung.name: place for place, rung in enumerate(self.rungs)}
            for shape in {known.shape for known in self._known if known.shape}:
                rung, name = self.rung_for(shape), class_of(shape)
                lowest = found[name]
                if rung is None or (lowest is not None and places[rung.name] > places[lowest.name]):
                    found[name] = rung
        return found

    def reset(self) -> list[KnownFailure]:
        """Forget all that is known to fail of this bundle on this host; returns what that was."""
        with self._lock:
            forgotten = list(self._known)
            for known in forgotten:
                for device in {rung.device for rung in self.rungs}:
                    self._journal.forget_failure(self._bundle, device, known.shape, known.rung)
            self._strikes.clear()
            self._witnesses.clear()
            self._known = self._read()
        return forgotten

    # --- inside ---

    def _following(self, rung: Rung, cause: Cause, shape: Sequence[int]) -> list[Rung]:
        place = next(n for n, other in enumerate(self.rungs) if other.name == rung.name)
        return [
            other
            for other in self.rungs[place + 1 :]
            if self._helps(rung, other, cause) and not self._fails(other, shape)
        ]

    def _condemn(self, rung: Rung, cause: Cause, shape: Sequence[int]) -> None:
        """Remember a rung, and those after it that would fail of the same, as failing for a shape."""
        following = self._following(rung, cause, shape)
        end = self.rungs.index(following[0]) if following else self.rungs.index(rung) + 1
        for left in self.rungs[self.rungs.index(rung) : end]:
            if left == rung or not self._helps(rung, left, cause):
                self._journal.remember_failure(self._bundle, left.device, shape, left.name, cause)
        self._known = self._read()
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Of each rung, remember no more shapes than a site has; what holds for any input stays."""
        for rung in self.rungs:
            shapes = [known for known in self._known if known.rung == rung.name and known.shape]
            for old in sorted(shapes, key=lambda known: known.failed_at)[:-_MOST_SHAPES]:
                self._journal.forget_failure(self._bundle, rung.device, old.shape, old.rung)
                self._known.remove(old)

    def _helps(self, failed: Rung, other: Rung, cause: Cause) -> bool:
        match cause:
            case Cause.MEMORY:
                # Another device has memory of its own; on the same one only less is less.
                return other.device != failed.device or self._smaller(other, failed)
            case Cause.TIME:
                # Alone, or with less to compute; a smaller batch is no faster.
                return self._smaller(other, failed) and (
                    other.parallel == 1 < failed.parallel
                    or other.size != failed.size
                    or other.precision != failed.precision
                )
            case Cause.ENGINE | Cause.OUTPUT | Cause.DEATH | Cause.STUDY:
                return other.process != failed.process
            case Cause.DEVICE:
                return other.device != failed.device
        return False

    def _smaller(self, one: Rung, other: Rung) -> bool:
        measures = [(r.parallel, r.batch, -self._sizes.index(r.size)) for r in (one, other)]
        no_larger = all(mine <= theirs for mine, theirs in zip(*measures, strict=True))
        less = measures[0] != measures[1] or one.precision != other.precision
        return no_larger and less

    def _fails(self, rung: Rung, shape: Sequence[int]) -> bool:
        return any(
            known.rung == rung.name and _covers(known.shape, shape) and self._resting(known)
            for known in self._known
        )

    def _resting(self, known: KnownFailure) -> bool:
        age = self._clock() - known.failed_at
        # A clock set back says nothing about how long ago it was: then the rung is tried again.
        return timedelta(0) <= age < self._rest_of(known)

    def _rest_of(self, known: KnownFailure) -> timedelta:
        return min(self._rest * float(2 ** min(known.failures - 1, 20)), _LONGEST_REST)

    def _read(self) -> list[KnownFailure]:
        devices = {rung.device for rung in self.rungs}
        names = {rung.name for rung in self.rungs}
        return [
            known
            for device in sorted(devices)
            for known in self._journal.known_failures(self._bundle, device)
            if known.rung in names
        ]


# Upper bounds of classes of shapes, in values (voxels, or pixels of all images).
_BOUNDS = {"to_1m": 1 << 20, "to_16m": 1 << 24, "to_128m": 1 << 27}
CLASSES = ("any", *_BOUNDS, "above")


def class_of(shape: Sequence[int]) -> str:
    """The class of a shape, for metrics: by how many values an input has; `any` for what holds of every shape."""
    if not shape:
        return "any"
    size = math.prod(shape)
    return next((name for name, bound in _BOUNDS.items() if size <= bound), "above")


def alike(one: Rung, other: Rung) -> bool:
    """Whether two rungs compute a study that is alone in the same way."""
    return (one.batch, one.size, one.process) == (other.batch, other.size, other.process)


def _covers(known: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a failure known for one shape speaks of another: of that one alone, or of any where it names none."""
    return not known or tuple(known) == tuple(shape)


def _heals(shape: Sequence[int], known: KnownFailure) -> bool:
    """Whether a success at a shape takes back a known failure: of any input, or of that shape."""
    return not known.shape or tuple(known.shape) == tuple(shape)
