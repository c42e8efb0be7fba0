"""`outpost serve` that dies by SIGKILL at a chosen step, wrapped from outside: no hook is in the service itself.

`python killing.py nursery` loads the service's modules once and forks a service for each request on standard
input (half a second saved each time); `python killing.py child ...` is the inference child without torch: the real
protocol, the real reading of the study and writing of its result, and a threshold in place of the network.

A step is `function:what:moment`: what some function of the service does to the disk, to the journal, to its worker or
to a peer, and whether death comes before or after it. Only what the function does itself, or through libraries
and `outpost.durable`, counts as its step.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve()
SERVICE = HERE.parents[2] / "service" / "outpost"
# Of these the caller is meant, not they themselves.
_PASSED_OVER = (str(SERVICE / "durable.py"),)
_PASSED_OVER_FUNCTIONS = ("Journal._write",)


class Killer:
    """Ends this process at the `count`-th time that the step is reached."""

    def __init__(self, step: str, count: int, told: Path) -> None:
        self._step, self._left, self._told = step, count, told

    def at(self, step: str) -> None:
        if step != self._step:
            return
        self._left -= 1
        if self._left <= 0:
            # The page cache outlives the process: no fsync is needed for the test to read it.
            self._told.write_text(step)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal takes this thread at its next return from the kernel

    def around(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a step before and after it, named after who calls it."""

        def call(*arguments: Any, **named: Any) -> Any:
            name = f"{caller()}:{what}"
            self.at(f"{name}:before")
            result = function(*arguments, **named)
            self.at(f"{name}:after")
            return result

        return call


def caller() -> str:
    """The innermost function of the service on the stack, as `Class.function`."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if (
            code.co_filename.startswith(str(SERVICE))
            and code.co_filename not in _PASSED_OVER
            and code.co_qualname not in _PASSED_OVER_FUNCTIONS
        ):
            return code.co_qualname
        frame = frame.f_back
    return ""


def arm(killer: Killer) -> None:
    """Wrap what the service does to the world."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *parameters)
            name = f"{caller()}:commit"
            killer.at(f"{name}:before")
            cursor = super().execute(sql, *parameters)
            killer.at(f"{name}:after")
            return cursor

    connect = sqlite3.connect

    def connect_armed(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Connection, **named)

    sqlite3.connect = connect_armed  # type: ignore[assignment]
    for name in ("fsync", "link", "rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, killer.around(name, getattr(os, name)))

    from outpost.delivery.link import Link
    from outpost.inference import worker
    from outpost.records.recorder import Recorder

    Link.ask = killer.around("c-store", Link.ask)  # type: ignore[method-assign]
    Recorder._upsert = killer.around("upsert", Recorder._upsert)  # type: ignore[method-assign]
    ask = worker._Child.ask

    def ask_armed(child: Any, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        name = f"worker:{request['command']}"
        killer.at(f"{name}:before")
        answer = ask(child, request, seconds)
        killer.at(f"{name}:after")
        return answer

    worker._Child.ask = ask_armed  # type: ignore[method-assign]
    spawn = worker.InferenceWorker._spawn

    def spawn_armed(one: worker.InferenceWorker) -> Any:
        child = spawn(one)
        killer.at("worker:spawn:after")
        return child

    worker.InferenceWorker._spawn = spawn_armed  # type: ignore[method-assign]


def _spawn_light_children() -> None:
    """Have workers start this file's child: the real one spends three seconds on importing torch and MONAI."""
    from outpost.inference import worker

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **named: Any) -> None:
            where = command.index("outpost.inference.child")
            super().__init__([sys.executable, str(HERE), "child", *command[where + 1 :]], **named)

    worker.subprocess = types.SimpleNamespace(Popen=Popen, PIPE=subprocess.PIPE)  # type: ignore[assignment]


# --- the nursery ---


def nursery() -> None:
    """Fork a service for each line of JSON on standard input and answer its pid; or wait for one, its status."""
    # All that a service imports when it starts.
    for name in (
        "outpost.inference.child",
        "outpost.serve",
        "uvicorn.loops.auto",
        "uvicorn.protocols.http.auto",
    ):
        importlib.import_module(name)
    parent = os.getpid()
    print(json.dumps(parent), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _serve(request | {"nursery": parent})
        print(json.dumps(pid), flush=True)


def _serve(request: dict[str, Any]) -> None:
    from outpost.inference.child import _die_with

    os.setsid()
    _die_with(request["nursery"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        from outpost.cli import main

        if request["step"] is not None:
            arm(Killer(request["step"], request["count"], Path(request["told"])))
        if request["light"]:
            _spawn_light_children()
        status = main(["serve", "--config", request["config"]])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


# --- the light child ---


def child() -> int:
    """`outpost.inference.child.main` with a predictor that needs no torch."""
    from outpost.inference import child as real

    def module(name: str, **values: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(values)
        sys.modules[name] = made

    module("outpost.inference.predictor", Predictor=LightPredictor)
    module(
        "outpost.inference.asserts",
        observed_golden=lambda bundle, predictor, rung: (predictor.golden(rung), None),
        run_asserts=lambda *_: (),
    )
    sys.argv = sys.argv[1:]
    return real.main()


class LightPredictor:
    """`outpost.inference.predictor.Predictor` with a threshold as the network and nothing to prove."""

    def __init__(self, bundle: Any, rung: Any, storage: Path | None = None) -> None:
        from outpost.inference.volume import VolumeSegmentation

        self._bundle, self._task = bundle, VolumeSegmentation(bundle)
        self.observed: dict[str, Any] = {}

    def golden(self, rung: Any) -> Any:
        from outpost.inference.result import GoldenVerdict

        return GoldenVerdict(True, 1.0, 0.9, 0.001)

    def read(self, files: Any, judge: Any = None, context: Any = None) -> Any:
        from outpost.filter.rulefile import no_rules
        from outpost.filter.verdict import judge_headers
        from outpost.inference.header import read_headers

        self.verdict = judge_headers(read_headers(files), no_rules())
        return self._task.read(self.verdict.require())

    def run(self, case: Any, rung: Any, output_dir: Path, revision: int) -> Any:
        from outpost.inference.result import InferenceResult
        from outpost.results.provenance import Provenance

        made = Provenance(
            self._bundle.name, self._bundle.version, "threshold 1", rung.precision, rung.name, rung.device
        )
        mask = self._task.compute(case, lambda volume: volume > 45, rung.batch)
        files = self._task.write(case, mask, made, revision, output_dir).files
        return InferenceResult(
            files, made.model, made.model_version, made.engine, made.precision, made.rung, made.device, 0.01
        )


# --- the test's side ---


class Nursery:
    """The process that forks services, as the test sees it."""

    def __init__(self, log: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that starts the nursery with less than its caller may do."""
        path = [str(HERE.parent), str(HERE.parents[2] / "service"), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(HERE), "nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1"},
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests: IO[str] = self.process.stdin
        self._answers: IO[str] = self.process.stdout
        self._answer()

    def start(
        self,
        config: Path,
        log: Path,
        told: Path,
        step: str | None = None,
        count: int = 1,
        *,
        light: bool = True,
    ) -> int:
        """Fork a service; returns its pid. `told` is the file that names the step it died at."""
        return self._ask(
            config=str(config), log=str(log), told=str(told), step=step, count=count, light=light
        )

    def wait(self, pid: int) -> int:
        """The exit status of a service, once it has ended."""
        return self._ask(wait=pid)

    def close(self) -> None:
        self._requests.close()
        self.process.wait(timeout=30)
        self._answers.close()

    def _ask(self, **request: Any) -> int:
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        return self._answer()

    def _answer(self) -> int:
        return int(json.loads(self._answers.readline()))


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and is not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Processes started by a process, whichever of its threads started them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(one) for one in task.read_text().split()]
    return found


if __name__ == "__main__":
    sys.exit(child() if sys.argv[1] == "child" else nursery())
