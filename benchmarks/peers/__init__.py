"""Peer servers of the benchmarks: the same model behind each, served the way its own documentation shows.

`PEERS` says how each is started and asked; the modules beside it are what runs in the peer's process.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent
sys.path.append(str(BENCHMARKS.parent / "tests" / "service"))

from ports import free_port  # noqa: E402 - not installed

_FORM_BOUNDARY = "a-boundary-of-the-benchmark"


def _raw(body: bytes) -> tuple[bytes, str]:
    return body, "application/octet-stream"


def _form(body: bytes) -> tuple[bytes, str]:
    head = (
        f"--{_FORM_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="study"; filename="study"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (
        head.encode() + body + f"\r\n--{_FORM_BOUNDARY}--\r\n".encode(),
        f"multipart/form-data; boundary={_FORM_BOUNDARY}",
    )


def _json(body: bytes) -> tuple[bytes, str]:
    return json.dumps({"study": base64.b64encode(body).decode()}).encode(), "application/json"


@dataclass(frozen=True, slots=True)
class Peer:
    """A serving framework.

    Attributes:
        name: in tables.
        package: Python package that must be there.
        readiness: the best of its own health endpoints; 200 means ready.
        route: where a study is posted.
        pack: a study's bytes as this server takes them.
        start: seconds it may take to become ready.
        processes: how many processes compute; None is as many as asked for.
        module: file in this folder that serves.
    """

    name: str
    package: str
    readiness: str
    route: str
    pack: Callable[[bytes], tuple[bytes, str]]
    start: float = 60.0
    processes: int | None = None
    module: str = ""

    @property
    def missing(self) -> bool:
        return find_spec(self.package) is None


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mosec", "mosec", "/", "/inference", _raw),
        # Its requests reach the worker pickled, so no files: base64 in JSON, as its documentation has it.
        Peer("litserve", "litserve", "/health", "/predict", _json),
        Peer("bentoml", "bentoml", "/readyz", "/infer", _form),
        Peer("fastapi", "fastapi", "/health", "/infer", _raw, processes=1),
        Peer("fastapi-workers", "fastapi", "/health", "/infer", _raw, module="fastapi"),
        Peer("ray", "ray", "/-/healthz", "/", _raw, start=120.0),
    )
}


class PeerServer:
    """One peer as processes of this machine, with its own folder and ports.

    Args:
        peer: which.
        folder: working and temporary folder of its processes; may lie on a file system of its own.
        workers: processes that compute, of one thread each.
        served: `bundle:PATH` or `faulty`, see `served.py`.
        timeout: seconds a request may take, where the peer has such a limit.
        environment: added to that of its processes.
    """

    def __init__(
        self,
        peer: Peer,
        folder: Path,
        workers: int,
        served: str,
        timeout: float,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.peer = peer
        self.folder = folder
        self.port = free_port()
        self.workers = peer.processes or workers
        self._timeout = timeout
        self._environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            "PYTHONPATH": os.pathsep.join(
                [str(BENCHMARKS), *([p] if (p := os.environ.get("PYTHONPATH")) else [])]
            ),
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(folder),
            "BENCH_FOLDER": str(folder),
            "BENCH_SERVED": served,
            # No peer may speak to anyone outside.
            "BENTOML_DO_NOT_TRACK": "True",
            "RAY_USAGE_STATS_ENABLED": "0",
            "DO_NOT_TRACK": "1",
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file = Path(f"{folder}.log")

    def start(self) -> PeerServer:
        """Start it; returns when it says that it is ready. Raises `CannotRun`."""
        (self.folder / "workers").mkdir(parents=True, exist_ok=True)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / f"serve_{self.peer.module or self.peer.name}.py"),
                    f"--port={self.port}",
                    f"--workers={self.workers}",
                    f"--timeout={self._timeout:g}",
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.peer.start
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise CannotRun(
                    f"{self.peer.name} ended with status {self.process.returncode}: {self.last_words}"
                )
            # Some say "ready" before a worker has loaded the model; that is not held against them here.
            if self.ready() and len(self.computing) >= self.workers:
                return self
            time.sleep(0.1)
        raise CannotRun(f"{self.peer.name} is not ready after {self.peer.start:g} s: {self.last_words}")

    def ready(self) -> bool:
        """What a load balancer that asks the readiness endpoint would believe."""
        try:
            return self._ask("GET", self.peer.readiness, None, "", 2.0)[0] == 200
        except OSError:
            return False

    def infer(self, body: bytes, timeout: float) -> tuple[int, dict[str, Any]]:
        """Post a study; returns status and answer. Raises OSError (TimeoutError too) when none comes."""
        packed, kind = self.peer.pack(body)
        status, answer = self._ask("POST", self.peer.route, packed, kind, timeout)
        if status != 200:
            return status, {}
        value: dict[str, Any] = json.loads(answer)
        return status, value

    def _ask(
        self, method: str, path: str, body: bytes | None, kind: str, timeout: float
    ) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            try:
                connection.request(method, path, body, {"Content-Type": kind} if kind else {})
                reply = connection.getresponse()
                return reply.status, reply.read()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error

    @property
    def computing(self) -> list[int]:
        """Process ids of those that have the model loaded."""
        found = (int(file.name) for file in (self.folder / "workers").iterdir())
        return [pid for pid in found if runs(pid)]

    def kill_workers(self) -> None:
        """SIGKILL to every process that computes, as the kernel sends it."""
        for pid in self.computing:
            os.kill(pid, signal.SIGKILL)

    @property
    def last_words(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """End it with everything it started."""
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        family = [*self.computing, *_session(self.process.pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class CannotRun(Exception):
    """A peer did not come up; the text says what it said."""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return _stat(pid)[0] not in ("", "Z")


def _session(leader: int) -> list[int]:
    """Processes of the session that `leader` began."""
    pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [pid for pid in pids if _stat(pid)[1] == str(leader)]


def _stat(pid: int) -> tuple[str, str]:
    """State and session of a process; empty when it has gone."""
    try:
        # proc(5): after the command's closing bracket come state, parent, group and session.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[3]
