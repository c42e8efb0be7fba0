"""The parent's side of one child process: start it, ask it, kill it in time, say how it died.

A child that failed is killed, unless it refused an input, or proved itself by the golden case since; `start` puts
another in its place, which computes the golden case before it sees a study: no result ever comes from a process whose
last answer was wrong.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from outpost.codes.notes import Note
from outpost.inference import heap, memory
from outpost.inference.codes import Code, InferenceFailed, InputRejected, StudyIncomplete
from outpost.inference.context import StudyContext
from outpost.inference.result import GoldenVerdict, InferenceResult
from outpost.inference.rung import Rung
from outpost.inference.state import Assertion, Step
from outpost.inference.watch import (
    LOOK_SECONDS,
    Patience,
    Watch,
    is_stopped,
    patience_for,
    patience_of,
)
from outpost.results.provenance import ResultObject

if TYPE_CHECKING:
    from outpost.filter.rulefile import RuleFile

_START_SECONDS = 180.0
# Loading libraries and a model from a cold disk is mostly waiting.
_SILENT_START_SECONDS = 60.0
# Reading takes the longer, the more files there are; on a loaded host a small one takes milliseconds.
_SECONDS_A_FILE = 0.02
_FILES_OF_THE_LIMIT = 1000
# By these a process ends itself when its own code is at fault. Whatever else ends it, another process has sent; the
# kernel's kills for memory are counted (`memory.kills`).
_OF_ITS_OWN = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)


@dataclass(frozen=True, slots=True)
class Started:
    """What a child found out while it started: its golden case, and its asserts."""

    golden: GoldenVerdict
    asserts: tuple[Assertion, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a child found as it read a study.

    Attributes:
        shape: size of the input, by which the ladder remembers what did not fit.
        left_out: instances that the filter left out, by reason code.
        judged: how many instances there were.
        rules: by which rule set, shortened as in messages.
    """

    shape: tuple[int, ...]
    left_out: dict[str, int]
    judged: int
    rules: str


class InferenceWorker:
    """One child process of one CPU thread with one bundle loaded for one rung.

    Methods may be called from any thread; studies go one by one.

    Args:
        bundle_path: folder of the bundle.
        rung: how to compute; its engine, precision and device are fixed until `change`.
        timeout_seconds: longest time for one study; then the child is killed. Longer for one of very many files.
        storage: folder of the system; engines keep converted models below it.
        start_seconds: longest time to load the bundle and compute the golden case.
        vram_mib: what the child may take of a GPU; 0 is all of it.
        keep_memory: whether the child keeps the memory of one study for the next (`outpost.inference.heap`):
            faster, where the host's memory holds what the bundle declares.
        memory_mib: what the child may hold while it reads or writes a study; 0 is without bound.
    """

    def __init__(
        self,
        bundle_path: Path,
        rung: Rung,
        timeout_seconds: float,
        storage: Path,
        start_seconds: float = _START_SECONDS,
        vram_mib: int = 0,
        keep_memory: bool = True,
        memory_mib: int = 0,
    ) -> None:
        self._memory_mib = memory_mib
        self._usual: float | None = None
        self._bundle_path = bundle_path
        self._rung = rung
        self._timeout_seconds = timeout_seconds
        self._storage = storage
        self._start_seconds = start_seconds
        self._vram_mib = vram_mib
        self._keep_memory = keep_memory
        self._lock = threading.RLock()
        # The kernel takes the death of the *thread* that started a child for the death of its parent
        # (prctl(2), PR_SET_PDEATHSIG): children are started by one thread that lives as long as the worker.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference-starter")
        self._child: _Child | None = None
        self._deadline = 0.0
        self._closed = False
        self._observed: dict[str, Any] = {}
        self._step, self._computing_seconds, self._scale = "", 0.0, 1.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rung(self) -> Rung:
        """The rung the child was, or will be, started for."""
        return self._rung

    def change(self, rung: Rung) -> None:
        """Compute at another rung from now on; the child is replaced if that needs another process."""
        with self._lock:
            if rung.process != self._rung.process:
                self._discard()
            self._rung = rung

    def start(self) -> Started:
        """Have a child that has loaded the bundle; returns what it found, at once if it runs already.

        Raises:
            InferenceFailed: no child can be had; the code says why. GOLDEN_MISMATCH is one reason.
        """
        with self._lock:
            child = self._ready_child()
            assert child.found is not None  # of one that is ready
            return child.found

    def read(
        self, files: Sequence[Path], rules: RuleFile | None = None, context: StudyContext | None = None
    ) -> Reading:
        """Judge the headers of a study, choose its images, decode them and judge their pixels. Its time begins.

        Args:
            files: of one study.
            rules: by which headers and pixels are judged; left out, the bundle's own.
            context: what no header says; left out, nothing is known and nothing waited for.

        Raises:
            InputRejected: the study is not one for this model.
            StudyIncomplete: images are missing that may still come.
            InferenceFailed: any other end; there is no child then, unless the failure is `sound`.
        """
        allowed = self._timeout_seconds + _SECONDS_A_FILE * max(0, len(files) - _FILES_OF_THE_LIMIT)
        self._deadline = time.monotonic() + allowed
        self._observed = {}  # of the study before, which died in a child
        request: dict[str, Any] = {
            "command": "read",
            "files": [str(file) for file in files],
            "context": (context or StudyContext()).as_json(),
        }
        if rules is not None:  # whole, not by name: a child that starts later needs what judges now
            request["rules"] = rules.text.decode()
        answer = self._ask(request, allowed, first=Step.READ)
        return Reading(tuple(answer["shape"]), answer["left_out"], answer["judged"], answer["rules"])

    def compute(
        self, rung: Rung, output_dir: Path, revision: int = 1, usual_seconds: float | None = None
    ) -> InferenceResult:
        """Compute the study that was read, in what is left of its time.

        Args:
            rung: of the same process as the worker's own.
            output_dir: an existing folder for the results.
            revision: of the study; together with study and model it decides the UIDs of the results.
            usual_seconds: what a study of the golden case's size usually takes; left out, the golden case's own time.

        Raises:
            InputRejected: the study is not one for this model.
            InferenceFailed: any other end without a result; there is no child then, unless it is `sound`.
        """
        request = {
            "command": "compute",
            "rung": rung.as_json(),
            "output_dir": str(output_dir),
            "revision": revision,
        }
        with self._lock:
            if not self.alive:  # another process has not read the study
                how = self._child.ended_idle() if self._child is not None else None
                self._discard()
                raise self._closing(
                    how or InferenceFailed(Code.WORKER_DIED, "the process ended between two steps")
                )
            self._usual = usual_seconds
            try:
                answer = self._ask(request, self._deadline - time.monotonic())
            finally:
                self._usual = None
        answer["files"] = tuple(Path(file) for file in answer["files"])
        answer["objects"] = tuple(ResultObject(**one) for one in answer["objects"])
        answer["notes"] = tuple(Note(**note) for note in answer["notes"])
        return InferenceResult(**answer)

    def extend(self, seconds: float) -> None:
        """The study waited without its fault: give it that much more time."""
        self._deadline += seconds

    def run(self, files: Sequence[Path], output_dir: Path, revision: int = 1) -> InferenceResult:
        """`read` and `compute` at the worker's own rung."""
        self.read(files)
        return self.compute(self._rung, output_dir, revision)

    def golden(self, seconds: float | None = None) -> GoldenVerdict:
        """Compute the golden case now. A wrong answer is a verdict; no answer raises.

        Args:
            seconds: longest time for it; left out, as long as a start may take.

        Raises:
            InferenceFailed: no answer came; there is no child then.
        """
        return GoldenVerdict(
            **self._ask(
                {"command": "golden", "rung": self._rung.as_json()},
                self._start_seconds if seconds is None else seconds,
            )
        )

    def observed(self) -> dict[str, Any]:
        """What was seen of the study in work, for watching drift; by group, asked once."""
        seen, self._observed = self._observed, {}
        return seen

    @property
    def alive(self) -> bool:
        """Whether a child process runs at this moment; one that was stopped by a signal does not."""
        child = self._child
        return child is not None and child.process.poll() is None and not is_stopped(child.process.pid)

    @property
    def proven(self) -> bool:
        """Whether `alive`, and the golden case has passed in this very process."""
        child = self._child
        return child is not None and child.found is not None and self.alive

    @property
    def heard_at(self) -> float | None:
        """When the child last began a piece of its work, on the monotonic clock; None where there is no child."""
        child = self._child
        return child.heard_at if child is not None else None

    @property
    def step(self) -> str:
        """Where the last request was when it ended: a `Step`, `golden` or `start`."""
        return self._step

    @property
    def computing_seconds(self) -> float:
        """How long the last study was in the model, seconds; 0 where it never came to its end."""
        return self._computing_seconds

    @property
    def scale(self) -> float:
        """Size of the last study as a multiple of the golden case."""
        return self._scale

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        child = self._child
        return child.process.pid if child is not None else None

    def rest(self) -> None:
        """End the child, if it is idle, and free its memory; the next request starts another."""
        with self._lock:
            self._discard()

    def close(self) -> None:
        """Kill the child, also in the middle of a study, whose request then raises WORKER_CLOSED."""
        self._closed = True
        if (child := self._child) is not None:
            child.process.kill()
        with self._lock:
            self._discard()
        self._starter.shutdown()

    def _ask(self, request: dict[str, Any], seconds: float, first: str = "") -> dict[str, Any]:
        with self._lock:
            child = self._ready_child()
            assert child.found is not None  # of one that is ready
            usual = max(child.found.golden.seconds, self._usual or 0.0)
            child.expect(first or str(request["command"]), usual)
            try:
                return child.ask(request, seconds)
            except InferenceFailed as failure:
                if failure.sound:
                    raise
                self._discard()
                raise self._closing(failure) from failure
            finally:
                self._step, self._computing_seconds, self._scale = (
                    child.step,
                    child.computing_seconds,
                    child.scale,
                )
                self._observed |= child.observed
                child.observed = {}

    def _ready_child(self) -> _Child:
        """A child that runs and has passed its golden case; starts one if there is none."""
        if self._closed:
            raise InferenceFailed(Code.WORKER_CLOSED, "the worker is closed")
        if self.alive:
            assert self._child is not None  # as it is alive
            return self._child
        self._discard()
        child = self._child = self._starter.submit(self._spawn).result()
        self._step = "start"
        try:
            if self._closed:  # in the meantime: `close` saw no child to kill
                raise InferenceFailed(Code.WORKER_CLOSED, "the worker is closed")
            answer = child.answer(self._start_seconds)
            golden = GoldenVerdict(**answer["golden"])
            if not golden.ok:
                raise InferenceFailed(
                    Code.GOLDEN_MISMATCH,
                    f"the golden case at rung {self._rung.name} reached {golden.metric} {golden.value:g}, "
                    f"{golden.wanted:g} wanted",
                )
            child.found = Started(golden, tuple(Assertion(**one) for one in answer["asserts"]))
        except InferenceFailed as failure:
            self._discard()
            raise self._closing(failure) from failure
        return child

    def _closing(self, failure: InferenceFailed) -> InferenceFailed:
        if self._closed:
            return InferenceFailed(
                Code.WORKER_CLOSED, "the service closed the worker in the middle of its work"
            )
        return failure

    def _spawn(self) -> _Child:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "outpost.inference.child",
                str(self._bundle_path),
                json.dumps(self._rung.as_json()),
                str(os.getpid()),
                str(self._storage),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={
                **(heap.keeping(os.environ) if self._keep_memory else os.environ),
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                # One setting for every library that starts threads of its own.
                **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
                "OUTPOST_VRAM_MIB": str(self._vram_mib),
                "OUTPOST_MEMORY_MIB": str(self._memory_mib),
            },
            # Its own session: a Ctrl-C at the terminal is for the service, which closes its children.
            start_new_session=True,
        )
        return _Child(process, memory.kills())

    def _discard(self) -> None:
        if (child := self._child) is not None:
            self._child = None
            child.discard()


class _Child:
    """A running child process and the pipes to it. `kills`: the kernel's count as it was started."""

    found: Started | None = None  # once its golden case has passed

    def __init__(self, process: subprocess.Popen[bytes], kills: int | None) -> None:
        self.process = process
        self._kills = kills
        self.observed: dict[str, Any] = {}
        self._watch = Watch(process.pid)
        self._watch.beat(Patience(_SILENT_START_SECONDS))
        self._received = b""
        self._usual = 0.0
        self._computing_since: float | None = None
        self.heard_at = time.monotonic()
        self.step, self.computing_seconds, self.scale = "start", 0.0, 1.0

    def expect(self, step: str, usual_seconds: float) -> None:
        """A request comes that begins with this step; a golden case usually takes so long."""
        self._kills = memory.kills()  # what the kernel kills from now on may be this one
        self._usual = usual_seconds
        self.heard_at = time.monotonic()
        self.step, self.computing_seconds, self._computing_since = step, 0.0, None
        self._watch.beat(patience_for(0) if step == Step.READ else patience_of(usual_seconds))

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self.process.stdin is not None  # opened as a pipe
        left = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self.process.stdin.fileno(), left) :]
        except BrokenPipeError:
            raise self._death() from None
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        """Wait for one answer; raises what the child says, or that it said nothing in time."""
        deadline = time.monotonic() + seconds
        while "beat" in (outcome := json.loads(self._line(deadline, seconds))):
            self._heard(*outcome["beat"])
        if self._computing_since is not None:
            self.computing_seconds = time.monotonic() - self._computing_since
        self.observed = outcome.get("observed", {})
        if "rejected" in outcome:
            raise InputRejected(*outcome["rejected"])
        if "incomplete" in outcome:
            raise StudyIncomplete(tuple(outcome["incomplete"]))
        if "failed" in outcome:
            code, message = outcome["failed"]
            raise InferenceFailed(Code(code), message, outcome.get("sound", False))
        answer: dict[str, Any] = outcome["ok"]
        return answer

    def _heard(self, step: str, mib: float, scale: float) -> None:
        """The child begins a step, or the next piece of it."""
        now = self.heard_at = time.monotonic()
        if step == Step.COMPUTE:
            self._computing_since, self.scale = now, scale
        elif self._computing_since is not None:
            self.computing_seconds, self._computing_since = now - self._computing_since, None
        if step:
            self.step = step
        reads_or_writes = self.step in (Step.READ, Step.WRITE)
        self._watch.beat(patience_for(mib) if reads_or_writes else patience_of(self._usual or None, scale))

    def discard(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _line(self, deadline: float, seconds: float) -> bytes:
        """The next line that the child writes; raises where none comes in time, or while the child hangs."""
        assert self.process.stdout is not None  # opened as a pipe
        descriptor = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            # What came while we were stopped ourselves is looked at before the clock.
            if not poll.poll(min(max(left, 0.0), LOOK_SECONDS) * 1000):
                if left <= 0:
                    raise InferenceFailed(
                        Code.INFERENCE_TIMEOUT,
                        f"no answer in {max(seconds, 0):.0f} s; the process was killed",
                    )
                if why := self._watch.look():
                    raise InferenceFailed(
                        Code.WORKER_HUNG,
                        f"{why}; the process was killed in {self.step}",
                        outside=self._watch.stopped,
                    )
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise self._death()
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def ended_idle(self) -> InferenceFailed:
        """Why it is not there any more, between two requests: it has ended, or was stopped."""
        if self.process.poll() is None:
            return InferenceFailed(
                Code.WORKER_HUNG, "it was stopped by a signal between two steps", outside=True
            )
        return self._death(" between two steps")

    def _death(self, when: str = "") -> InferenceFailed:
        status = self.process.wait()
        how = (
            f"by signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"with status {status}"
        )
        told = f"process {self.process.pid} ended {how}{when}"
        kills = memory.kills()
        if (
            status == -signal.SIGKILL
            and kills is not None
            and self._kills is not None
            and kills > self._kills
        ):
            return InferenceFailed(
                Code.WORKER_OUT_OF_MEMORY,
                f"{told}: the kernel counts {kills - self._kills} kill(s) for memory",
            )
        outside = status < 0 and -status not in _OF_ITS_OWN
        return InferenceFailed(Code.WORKER_DIED, told, outside=outside)
