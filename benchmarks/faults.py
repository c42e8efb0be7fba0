"""The fault matrix: how long each server calls itself ready while it cannot compute, and what that costs.

`benchmarks/faults.py [--faults raise,hang,...] [--servers outpost,mosec,...]`, in `.venv-bench` (`make bench-faults`).

One cell: the server starts healthy, two studies a second flow, the fault begins. Counted are the seconds until
its readiness endpoint says no (or does not answer, or the server is gone), the requests lost or answered wrongly
until then, and, the fault being lifted, the seconds until it works again.

Peers answer over HTTP: a request that ends in an error or in nothing within 30 s is lost. Outpost acknowledges a
study and owes it a result: one is lost if, in the end, it is neither delivered nor rejected nor quarantined with
a reason. Wrong is an answer (for Outpost: a result in the PACS) with other voxels than in health.

Faults that senders bring (`inputs.py`) are put to Outpost alone: there the bar is to stay ready.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom import dcmread

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests" / "service"))  # the service and a PACS as processes

import inputs  # noqa: E402 - not installed
import report  # noqa: E402 - not installed
import studies  # noqa: E402 - not installed
from peers import PEERS, CannotRun, PeerServer, runs  # noqa: E402 - not installed
from running import BEARER, Service, StoreScp  # noqa: E402 - not installed

from outpost.health.codes import CHECKS, CheckCode  # noqa: E402 - after the path

FAULTS = {
    "raise": 'every call raises "no kernel image is available"',
    "hang": "every call hangs",
    "nan": "the network gives NaN",
    "constant": "the network gives 0.7 everywhere",
    "memory": "every call asks for 70 TB",
    "slow": "every call takes 10 times as long",
    "vanish": 'every call raises "unspecified launch failure"',
    "disk": "the file system it works on is full",
    "kill": "SIGKILL to all processes that compute",
    "stop": "SIGSTOP to all processes that compute",
}
BUNDLE = HERE / "bundles" / "faulty"
WORKERS = 2
RATE = 2.0  # studies a second
HEALTHY_SECONDS = 5.0
LINGER_SECONDS = 3.0  # the fault stays this long after it was noticed
ANSWER_SECONDS = 30.0
SETTLE_SECONDS = 120.0
DISK_MIB = 512
BAR_SECONDS = 10.0
_PROBE_SECONDS = 0.1


@dataclass(slots=True)
class Sent:
    """One study: when, and what came of it (`right`, `wrong`, `error`, `silence`, `refused`, or open)."""

    number: int
    at: float
    end: str = ""


@dataclass(slots=True)
class Cell:
    """What one fault did to one server. Seconds are None for never; `cannot` says why nothing was measured.

    Attributes:
        noticed: seconds from the fault to "not ready".
        back: seconds from its end to ready and, for peers, a right answer.
        hole: studies sent while the fault was there and the server called itself ready.
        lost: as the module says; for Outpost of all studies of the cell.
        wrong: likewise.
        ends: what came of all studies of the cell.
    """

    noticed: float | None = None
    back: float | None = None
    hole: int = 0
    lost: int = 0
    wrong: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    cannot: str = ""


class Subject(Protocol):
    """A server under test, started and healthy."""

    name: str
    folder: Path

    def ready(self) -> bool: ...

    def send(self, sent: Sent) -> None:
        """Send one study and write down its end, if it is known at once."""

    def computing(self) -> list[int]: ...

    def settle(self, all_sent: list[Sent]) -> None:
        """Write down the ends that are still open."""

    def stop(self) -> None: ...


class OfPeer:
    """A peer: it answers what it found, or it does not."""

    def __init__(self, name: str, folder: Path, fault: Path) -> None:
        self.name, self.folder = name, folder
        volume = np.zeros((32, 32, 32), np.float32)
        volume[8:20, 8:20, 8:20] = 100
        buffer = io.BytesIO()
        np.save(buffer, volume)
        self._body = buffer.getvalue()
        self._right = 12**3
        ray_folder = f"/tmp/bench-ray-{os.getpid()}-{folder.name[-8:]}"  # noqa: S108 - a socket's name is short
        self._server = PeerServer(
            PEERS[name],
            folder,
            WORKERS,
            "faulty",
            ANSWER_SECONDS / 3,
            {"BENCH_FAULT": str(fault), "BENCH_RAY_FOLDER": ray_folder},
        )
        self._extra = Path(ray_folder)
        try:
            self._server.start()
        except CannotRun:
            self.stop()
            raise

    def ready(self) -> bool:
        return self._server.ready()

    def send(self, sent: Sent) -> None:
        try:
            status, answer = self._server.infer(self._body, ANSWER_SECONDS)
        except TimeoutError:
            sent.end = "silence"
        except OSError:
            sent.end = "error"
        else:
            right = answer.get("voxels") == self._right
            sent.end = "error" if status != 200 else "right" if right else "wrong"

    def computing(self) -> list[int]:
        return self._server.computing

    def settle(self, all_sent: list[Sent]) -> None:
        """Nothing is open: an answer came or it did not."""

    def stop(self) -> None:
        self._server.stop()
        shutil.rmtree(self._extra, ignore_errors=True)


class OfOutpost:
    """Outpost with a PACS behind it; studies by STOW-RS."""

    name = "outpost"

    def __init__(self, folder: Path, fault: Path, kept: Path) -> None:
        self.folder = folder
        self._kept = kept
        self.studies = studies.ball()
        self._pacs = StoreScp(kept / "pacs").start()
        self._service = Service(
            kept,
            [("PACS", self._pacs.port)],
            study={"quiet_seconds": 0.3, "forced_seconds": inputs.FORCED_SECONDS},
            storage={"root": str(folder / "storage")},
            inference={
                "bundle": str(BUNDLE),
                "workers": WORKERS,
                "timeout_seconds": 20,
                # After an hour, by default; a cell does not last as long.
                "ladder": {"climb_after_seconds": 5, "receive_only_retry_seconds": 5},
            },
            intake={"disk_reserve_mib": 128, "disk_used_percent": 100},
        )
        self._service.storage = folder / "storage"
        try:
            # The service that this process sees is the one under test.
            paths = [str(BUNDLE), *filter(None, [os.environ.get("PYTHONPATH")])]
            self._service.start({"BENCH_FAULT": str(fault), "PYTHONPATH": os.pathsep.join(paths)})
            self._service.wait_ready()
        except AssertionError as error:
            self.stop()
            raise CannotRun(str(error)) from None

    def ready(self) -> bool:
        try:
            return self._ask("GET", "/v2/health/ready", None, 2.0)[0] == 200
        except OSError:
            return False

    def send(self, sent: Sent) -> None:
        try:
            status, _ = self._ask(
                "POST", "/dicom-web/studies", self.studies.stow(sent.number), ANSWER_SECONDS
            )
        except TimeoutError:
            sent.end = "silence"
        except OSError:
            sent.end = "error"
        else:
            # What it did not take, its sender still has and sends again: that is no loss, but no result either.
            sent.end = "" if status in (200, 202) else "refused" if status in (503, 507) else f"http {status}"

    @property
    def pacs_folder(self) -> Path:
        return self._pacs.folder

    def stow(self, files: Sequence[bytes], seconds: float = ANSWER_SECONDS) -> int:
        """Send files of one study; returns the HTTP status."""
        return self._ask("POST", "/dicom-web/studies", studies.body(files), seconds)[0]

    def failing(self) -> list[str]:
        """Codes of the critical checks that fail now, or why it does not say so."""
        try:
            status, body = self._ask("GET", "/health/light", None, 2.0)
            checks = json.loads(body)["checks"] if status in (200, 503) else []
        except OSError as error:
            return [type(error).__name__]
        return [one["code"] for one in checks if not one["ok"] and CHECKS[CheckCode(one["code"])].critical]

    def revisions(self, study_uid: str) -> list[dict[str, Any]]:
        """What the service says of a study; empty where it knows none."""
        status, body = self._ask("GET", f"/studies/{study_uid}", None, 10.0)
        found: list[dict[str, Any]] = json.loads(body)["revisions"] if status == 200 else []
        return found

    def computing(self) -> list[int]:
        assert self._service.process is not None
        parent = self._service.process.pid
        tasks = Path(f"/proc/{parent}/task").iterdir()
        found = [pid for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()]
        return [int(pid) for pid in found if runs(int(pid))]

    def settle(self, all_sent: list[Sent]) -> None:
        open_still = [sent for sent in all_sent if not sent.end]
        deadline = time.monotonic() + SETTLE_SECONDS
        while open_still and time.monotonic() < deadline:
            for sent in list(open_still):
                with suppress(OSError):
                    sent.end = self._outcome(sent)
                    if sent.end:
                        open_still.remove(sent)
            time.sleep(0.5)
        voxels = self._voxels()
        usual = Counter(voxels.values()).most_common(1)[0][0] if voxels else None
        for sent in all_sent:
            if sent.end == "delivered":
                found = voxels.get(self._uid(sent))
                sent.end = "lost" if found is None else "right" if found == usual else "wrong"
        for sent in open_still:
            sent.end = "lost"

    def _outcome(self, sent: Sent) -> str:
        revisions = self.revisions(self._uid(sent))
        if not revisions:
            return ""
        revision = revisions[-1]
        ended = str(revision["outcome"])
        if ended == "pending":
            return ""
        return ended if ended == "delivered" or revision["reason"] else "lost"

    def _uid(self, sent: Sent) -> str:
        return studies.study_uid(self.studies, sent.number)

    def _voxels(self) -> dict[str, int]:
        """Voxels of the mask in each result the PACS holds, by study."""
        found = {}
        for file in self._pacs.folder.iterdir():
            result = dcmread(file)
            found[str(result.StudyInstanceUID)] = int(result.pixel_array.sum())
        return found

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
        address = ("127.0.0.1", self._service.http_port)
        with closing(http.client.HTTPConnection(*address, timeout=timeout)) as connection:
            try:
                headers = BEARER | ({"Content-Type": studies.STOW_TYPE} if body else {})
                connection.request(method, path, body, headers)
                reply = connection.getresponse()
                return reply.status, reply.read()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error

    def stop(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._service.stop()
        if self._service.process is not None and self._service.process.poll() is None:
            self._service.kill()
        self._pacs.stop()


class Stream:
    """Studies at a steady rate, each in a thread of its own: a slow answer does not hold up the next."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._stopping = threading.Event()
        self.sent: list[Sent] = []
        self._threads: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._run)
        self._clock.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            sent = Sent(len(self.sent) + 1, time.monotonic())
            self.sent.append(sent)
            thread = threading.Thread(target=self._subject.send, args=(sent,))
            self._threads.append(thread)
            thread.start()
            due += 1 / RATE

    def stop(self) -> None:
        """Send no more and wait until each request has been answered or given up."""
        self._stopping.set()
        self._clock.join()
        for thread in self._threads:
            thread.join()


def measure(subject: Subject, fault: str, order: Path, give_up: float) -> Cell:
    """One cell. `order` is the file the network reads its fault from, `give_up` the seconds after which it is never."""
    stream = Stream(subject)
    try:
        time.sleep(HEALTHY_SECONDS)
        began = time.monotonic()
        lift = _inject(subject, fault, order)
        noticed = _wait(lambda: not subject.ready(), began, give_up, twice=True)
        if fault == "kill":
            ended = began  # nothing to lift
        else:
            time.sleep(LINGER_SECONDS if noticed is not None else 0)
            lift()
            ended = time.monotonic()

        def works() -> bool:
            proven = subject.name == "outpost" or any(
                sent.end == "right" for sent in list(stream.sent) if sent.at > ended
            )
            return proven and subject.ready()

        back = _wait(works, ended, time.monotonic() - ended + give_up)
    finally:
        stream.stop()
    subject.settle(stream.sent)
    before = [sent.end for sent in stream.sent if sent.at < began - 2]
    if any(end != "right" for end in before):
        return Cell(cannot=f"not healthy before the fault: {dict(Counter(before))}")
    until = began + (noticed if noticed is not None else give_up)
    hole = [sent for sent in stream.sent if began <= sent.at < until]
    # Outpost answers for all it took; a peer only for what a balancer would still have sent it, and for what it
    # had in work as the fault began.
    judged = stream.sent if subject.name == "outpost" else [sent for sent in stream.sent if sent.at < until]
    ends = Counter(sent.end for sent in judged)
    lost = ends["lost"] if subject.name == "outpost" else ends["error"] + ends["silence"]
    return Cell(
        noticed, back, len(hole), lost, ends["wrong"], dict(Counter(sent.end for sent in stream.sent))
    )


class NothingInjected(Exception):
    """There was no process that a fault could be done to: whatever came of the cell would say nothing."""


def _inject(subject: Subject, fault: str, order: Path) -> Callable[[], None]:
    """Begin a fault; returns what ends it. Raises `NothingInjected`."""
    if fault in ("kill", "stop"):
        found = subject.computing()
        reached = _signal(found, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        if not reached:
            raise NothingInjected(f"nothing injected: none of {len(found)} processes that compute was there")
        return (lambda: None) if fault == "kill" else lambda: _continue(reached)
    if fault == "disk":
        return _fill(subject.folder / "ballast")
    order.write_text(fault, encoding="ascii")
    return order.unlink


def _signal(processes: Sequence[int], number: signal.Signals) -> list[int]:
    """Send a signal; returns the processes that were there to get it."""
    reached = []
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            reached.append(pid)
    return reached


def _continue(stopped: Sequence[int]) -> None:
    _signal(stopped, signal.SIGCONT)


def _fill(ballast: Path) -> Callable[[], None]:
    """Fill the file system and keep it full, as whoever fills a disk does; returns what empties it again."""
    emptied = threading.Event()

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            while not emptied.is_set():
                for size in (1 << 20, 1 << 12):
                    with suppress(OSError):
                        while True:
                            file.write(bytes(size))
                emptied.wait(0.02)

    thread = threading.Thread(target=fill)
    thread.start()

    def lift() -> None:
        emptied.set()
        thread.join()
        ballast.unlink()

    return lift


def _wait(
    condition: Callable[[], bool], since: float, seconds: float, *, twice: bool = False
) -> float | None:
    """Seconds from `since` until the condition held (twice in a row: one probe may have met a hiccup)."""
    first: float | None = None
    while (now := time.monotonic()) < since + seconds:
        if condition():
            if first is None:
                first = now
            if not twice or now > first:
                return round(first - since, 1)
        else:
            first = None
        time.sleep(_PROBE_SECONDS)
    return None


@contextmanager
def file_system(label: str) -> Iterator[Path]:
    """A small file system of its own, to be filled without harm."""
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{label}-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "bench", str(folder)], check=True)
    try:
        yield folder
    finally:
        for _ in range(50):
            if subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.log").unlink(missing_ok=True)


def cell(server: str, fault: str, give_up: float) -> Cell:
    """Start the server, measure, stop it."""
    if server != "outpost" and PEERS[server].missing:
        return Cell(cannot=f"{server} is not installed: make bench-setup")
    with file_system(server) as folder, tempfile.TemporaryDirectory(prefix="bench-order-") as aside:
        order = Path(aside) / "fault"
        try:
            subject: Subject = (
                OfOutpost(folder, order, Path(aside))
                if server == "outpost"
                else OfPeer(server, folder, order)
            )
        except CannotRun as error:
            return Cell(cannot=str(error))
        try:
            try:
                found = measure(subject, fault, order, give_up)
            except NothingInjected as error:
                found = Cell(cannot=str(error))
            if log := os.environ.get("BENCH_KEEP_LOGS"):
                _keep_log(Path(log), server, fault, folder, Path(aside))
            return found
        finally:
            subject.stop()


def input_cell(fault: str) -> inputs.InputCell:
    """Start Outpost, let a sender do its worst, stop it."""
    with file_system("outpost") as folder, tempfile.TemporaryDirectory(prefix="bench-order-") as aside:
        try:
            subject = OfOutpost(folder, Path(aside) / "fault", Path(aside))
        except CannotRun as error:
            return inputs.InputCell(cannot=str(error))
        try:
            found = inputs.measure(subject, fault, SETTLE_SECONDS)
            if log := os.environ.get("BENCH_KEEP_LOGS"):
                _keep_log(Path(log), "outpost", fault, folder, Path(aside))
            return found
        finally:
            subject.stop()


def _keep_log(target: Path, server: str, fault: str, folder: Path, aside: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    log = aside / "log" if server == "outpost" else Path(f"{folder}.log")
    shutil.copy(log, target / f"{server}-{fault}.log")


def seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def show(
    matrix: dict[str, dict[str, Cell]], servers: list[str], of_input: dict[str, inputs.InputCell]
) -> None:
    """Print the matrix, one table a question."""

    def rows(cells: Callable[[Cell], str]) -> list[list[str]]:
        return [
            [fault, *("cannot run" if c.cannot else cells(c) for c in (by[server] for server in servers))]
            for fault, by in matrix.items()
        ]

    head = ["fault", *servers]
    print("\nSeconds until it no longer calls itself ready\n")
    print(report.table(head, rows(lambda c: seconds(c.noticed))))
    print("\nStudies lost + answered wrongly, of those sent until then (Outpost: of all)\n")
    print(report.table(head, rows(lambda c: f"{c.lost} + {c.wrong}")))
    print("\nSeconds from the end of the fault until it works again\n")
    print(report.table(head, rows(lambda c: seconds(c.back))))
    for fault, by in matrix.items():
        for server in servers:
            if by[server].cannot:
                print(f"\n{server}, {fault}: {by[server].cannot}")
    if ours := [(fault, by["outpost"]) for fault, by in matrix.items() if "outpost" in by]:
        print("\nWhat became of Outpost's studies\n")
        print(report.table(["fault", "ends"], [[fault, c.ends] for fault, c in ours]))
    if of_input:
        print("\nFaults that senders bring: Outpost stays ready, and each study comes to its right end\n")
        rows_of_input = [
            [
                fault,
                f"{c.polls[1]} of {c.polls[0]}",
                f"{c.lost} + {c.wrong}",
                c.reduced,
                c.revisions,
                c.cannot or c.ends,
                c.failing or "",
            ]
            for fault, c in of_input.items()
        ]
        print(
            report.table(
                ["fault", "not ready", "lost + wrong", "reduced", "revisions", "ends", "failing"],
                rows_of_input,
            )
        )
    print()


def main() -> int:
    """Run the matrix and judge it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = ",".join([*FAULTS, *inputs.FAULTS])
    parser.add_argument("--faults", default=everything, help="default: %(default)s")
    parser.add_argument("--servers", default=",".join(["outpost", *PEERS]), help="default: %(default)s")
    parser.add_argument("--give-up", type=float, default=60, help="seconds, default: %(default)s")
    options = parser.parse_args()
    wanted, servers = options.faults.split(","), options.servers.split(",")
    faults = [fault for fault in wanted if fault not in inputs.FAULTS]
    if os.geteuid() != 0:
        return report.finish(
            "faults",
            ratio=None,
            peer="none",
            bar="runs as root, to mount the file systems it fills",
            ok=False,
            details={},
            keep=False,
        )
    peers = [server for server in servers if server != "outpost"]
    matrix: dict[str, dict[str, Cell]] = {}
    for fault in faults:
        print(f"{fault}: {FAULTS[fault]}", flush=True)
        # All beside each other: a cell is mostly waiting. It is no advantage to the one with a limit to keep.
        with ThreadPoolExecutor(len(servers)) as pool:
            running = {server: pool.submit(cell, server, fault, options.give_up) for server in servers}
            matrix[fault] = {server: future.result() for server, future in running.items()}
        for server in servers:
            found = matrix[fault][server]
            print(f"  {server}: {found.cannot or asdict(found)}", flush=True)
    of_input: dict[str, inputs.InputCell] = {}
    for fault in (fault for fault in wanted if fault in inputs.FAULTS and "outpost" in servers):
        print(f"{fault}: {inputs.FAULTS[fault]}", flush=True)
        of_input[fault] = input_cell(fault)
        print(f"  outpost: {of_input[fault].cannot or asdict(of_input[fault])}", flush=True)
    show(matrix, servers, of_input)

    def in_time(server: str) -> int:
        cells = [by[server] for by in matrix.values()]
        return sum(c.noticed is not None and c.noticed <= BAR_SECONDS for c in cells)

    complete = set(servers) == {"outpost", *PEERS} and set(wanted) == {*FAULTS, *inputs.FAULTS}
    could_run = [peer for peer in peers if not any(by[peer].cannot for by in matrix.values())]
    best = max(could_run, key=in_time, default=None)
    ours = [by["outpost"] for by in matrix.values() if "outpost" in by]
    reached = all(
        not c.cannot and c.noticed is not None and c.noticed <= BAR_SECONDS and not c.lost and not c.wrong
        for c in ours
    ) and all(c.ok and c.ready_enough(fault) for fault, c in of_input.items())
    return report.finish(
        "faults",
        ratio=in_time("outpost") / max(in_time(best), 1) if best and ours else None,
        peer=f"{best}, of {', '.join(peers)}: faults noticed in {BAR_SECONDS:g} s"
        if best
        else "none could run",
        bar=f"<= {BAR_SECONDS:g} s in every fault, 0 lost, 0 wrong; ready throughout what senders bring",
        ok=reached and could_run == peers and bool(ours or of_input),
        details={
            "faults": {fault: (FAULTS | inputs.FAULTS)[fault] for fault in wanted},
            "give_up_seconds": options.give_up,
            "cells": {fault: {s: asdict(by[s]) for s in servers} for fault, by in matrix.items()},
            "of_input": {fault: asdict(found) for fault, found in of_input.items()},
        },
        packages=["outpost", "torch", *(PEERS[peer].package for peer in peers), "uvicorn"],
        keep=complete,
    )


if __name__ == "__main__":
    sys.exit(main())
