"""The parent's side of the child process: start it, ask it, kill it in time, replace it when it fails.

A child that failed in any way but refusing an input is replaced, and its successor computes the golden case
before it sees a study: no result ever comes from a process whose last answer was wrong.
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
from pathlib import Path
from typing import Any, Self

from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.result import GoldenVerdict, InferenceResult

_START_SECONDS = 180.0


class InferenceWorker:
    """One child process with one loaded bundle. Methods may be called from any thread; studies go one by one.

    Args:
        bundle_path: folder of the bundle.
        threads: CPU threads the child computes with.
        timeout_seconds: longest time for one study; then the child is killed and replaced.
        start_seconds: longest time to load the bundle and compute the golden case.
    """

    def __init__(
        self,
        bundle_path: Path,
        threads: int,
        timeout_seconds: float,
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self._bundle_path = bundle_path
        self._threads = threads
        self._timeout_seconds = timeout_seconds
        self._start_seconds = start_seconds
        self._lock = threading.Lock()
        # The kernel takes the death of the *thread* that started a child for the death of its parent
        # (prctl(2), PR_SET_PDEATHSIG): children are started by one thread that lives as long as the worker.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference-starter")
        self._child: _Child | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> GoldenVerdict:
        """Load the bundle and compute the golden case; returns once both are done.

        Raises:
            InferenceFailed: BUNDLE_INVALID, WEIGHTS_MISMATCH, GOLDEN_MISMATCH, INFERENCE_TIMEOUT or
                WORKER_DIED.
        """
        with self._lock:
            return self._ready_child()[1]

    def run(self, files: Sequence[Path], output_dir: Path, revision: int = 1) -> InferenceResult:
        """Compute one study.

        Args:
            files: all images of the study; the bundle's rules choose among them.
            output_dir: an existing folder for the results.
            revision: of the study; together with study and model it decides the UIDs of the results.

        Raises:
            InputRejected: the study is not one for this model.
            InferenceFailed: any other end without a result; the child has been replaced.
        """
        request = {
            "command": "run",
            "files": [str(file) for file in files],
            "output_dir": str(output_dir),
            "revision": revision,
        }
        answer = self._ask(request, self._timeout_seconds)
        answer["files"] = tuple(Path(file) for file in answer["files"])
        return InferenceResult(**answer)

    def golden(self) -> GoldenVerdict:
        """Compute the golden case now. A wrong answer is a verdict; no answer raises.

        Raises:
            InferenceFailed: no answer came; the child has been replaced.
        """
        return GoldenVerdict(**self._ask({"command": "golden"}, self._start_seconds))

    @property
    def alive(self) -> bool:
        """Whether a child process runs at this moment."""
        child = self._child
        return child is not None and child.process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        child = self._child
        return child.process.pid if child is not None else None

    def close(self) -> None:
        """Kill the child, also in the middle of a study, whose `run` then raises WORKER_CLOSED."""
        self._closed = True
        if (child := self._child) is not None:
            child.process.kill()
        with self._lock:
            self._discard()
        self._starter.shutdown()

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        with self._lock:
            child, _ = self._ready_child()
            try:
                return child.ask(request, seconds)
            except InferenceFailed as failure:
                self._discard()
                if self._closed:
                    raise InferenceFailed(
                        Code.WORKER_CLOSED, "the service closed the worker in the middle of a study"
                    ) from failure
                # Loads while the caller deals with the failure.
                self._child = self._starter.submit(self._spawn).result()
                raise

    def _ready_child(self) -> tuple[_Child, GoldenVerdict]:
        """A child that runs and has passed its golden case; starts one if there is none."""
        if self._closed:
            raise InferenceFailed(Code.WORKER_CLOSED, "the worker is closed")
        if not self.alive:
            self._discard()
            self._child = self._starter.submit(self._spawn).result()
            if self._closed:  # in the meantime: `close` saw no child to kill
                self._discard()
                raise InferenceFailed(Code.WORKER_CLOSED, "the worker is closed")
        child = self._child
        assert child is not None  # set just above or alive before
        if child.started is None:
            try:
                verdict = GoldenVerdict(**child.answer(self._start_seconds))
                if not verdict.ok:
                    raise InferenceFailed(
                        Code.GOLDEN_MISMATCH,
                        f"the golden case reached Dice {verdict.value:.4f}, at least {verdict.wanted} wanted",
                    )
            except InferenceFailed as failure:
                self._discard()
                if self._closed:
                    raise InferenceFailed(Code.WORKER_CLOSED, "the worker is closed") from failure
                raise
            child.started = verdict
        return child, child.started

    def _spawn(self) -> _Child:
        threads = str(self._threads)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "outpost.inference.child",
                str(self._bundle_path),
                threads,
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                # One setting for every library that starts threads of its own.
                **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
            },
            # Its own session: a Ctrl-C at the terminal is for the service, which closes its children.
            start_new_session=True,
        )
        return _Child(process)

    def _discard(self) -> None:
        if (child := self._child) is not None:
            self._child = None
            child.discard()


class _Child:
    """A running child process and the pipes to it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.started: GoldenVerdict | None = None

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
        outcome = json.loads(self._line(seconds))
        if "rejected" in outcome:
            code, message = outcome["rejected"]
            raise InputRejected(Code(code), message)
        if "failed" in outcome:
            code, message = outcome["failed"]
            raise InferenceFailed(Code(code), message)
        answer: dict[str, Any] = outcome["ok"]
        return answer

    def discard(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _line(self, seconds: float) -> bytes:
        assert self.process.stdout is not None  # opened as a pipe
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + seconds
        received = b""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise InferenceFailed(
                    Code.INFERENCE_TIMEOUT,
                    f"no answer in {seconds:g} s; the process was killed",
                )
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise self._death()
            received += chunk
        return received

    def _death(self) -> InferenceFailed:
        status = self.process.wait()
        how = (
            f"by signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"with status {status}"
        )
        return InferenceFailed(Code.WORKER_DIED, f"process {self.process.pid} ended {how}")
