"""Studies a second of a bundle: Outpost against the machine's limit and against peers with the same model.

`benchmarks/throughput.py [--workloads brain,radiograph] [--servers ...] [--repeats 3]`, in `.venv-bench`
(`make bench-throughput`).

Counted is a study that is done, between the end of the warm-up and the end of the run, with enough studies under
way that no process ever waits for one:
- roofline: as many processes as cores, one thread each, computing one decoded study again and again;
- bare: the same with reading before and writing DICOM after, each time; the limit of a service that costs nothing;
- roofline-kept and bare-kept: the same again, with the heap settings of Outpost's workers (`outpost.inference.heap`);
- peers: the study's DICOM files posted over HTTP as one tar, read and computed by Outpost's own code and made a
  DICOM result, in memory only; done is the answer with the result. `NAME-output` answers a few numbers about the
  model's output and makes no DICOM result, which is less than any of the others does;
- Outpost: the study sent by STOW-RS, fsynced and journalled, computed, its DICOM result journalled and sent on;
  done is the result's file in the PACS (DCMTK's storescp). Client and PACS run on the same cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests" / "service"))  # the service and a PACS as processes

import report  # noqa: E402 - not installed
import studies  # noqa: E402 - not installed
from peers import PEERS, CannotRun, PeerServer  # noqa: E402 - not installed
from running import BEARER, Service, StoreScp  # noqa: E402 - not installed
from studies import Studies  # noqa: E402 - not installed

from outpost.inference import heap  # noqa: E402 - behind what changes the path

ROOFLINE, BARE, OUTPOST = "roofline", "bare", "outpost"
KEPT = "-kept"
OUTPUT_ONLY = "-output"
LIMIT_BAR, PEER_BAR, NAMED_PEER = 0.95, 1.0, "mosec"
WORKERS = len(os.sched_getaffinity(0))
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_QUIET_SECONDS = 0.5
# A study that is delivered this late will not come.
_STUCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Workload:
    """One bundle, a real study for it, and how many studies are counted (after a warm-up of a quarter).

    `judged`: held against the bars. A network of 20 ms is not: there the limit would be the file's own bytes,
    which Outpost writes to the disk and hashes before it answers, and a peer does not.
    """

    name: str
    bundle: Path
    studies: Studies
    count: int
    judged: bool = True

    @property
    def warm_up(self) -> int:
        return max(2 * WORKERS, self.count // 4)


def brain(count: int) -> Workload:
    """An MR head of 181 slices; some seconds a study."""
    from outpost.demo import TEMPLATES
    from outpost.demo.series import write_series

    with tempfile.TemporaryDirectory() as folder:
        files = write_series(TEMPLATES / "ch2.nii.gz", Path(folder), "bench")
        made = Studies.read(files)
    return Workload("brain", ROOT / "service" / "bundles" / "brain_extraction", made, count)


def radiograph(count: int) -> Workload:
    """A CR chest radiograph of 1955 x 1841 pixels from pydicom-data."""
    from pydicom.data import get_testdata_file

    file = get_testdata_file("RG1_UNCR.dcm", download=False)
    if file is None:
        raise CannotRun("RG1_UNCR.dcm is not there: install pydicom-data")
    bundles = [b for b in (ROOT / "service" / "bundles").iterdir() if _task(b) == "radiograph_classification"]
    if not bundles:
        raise CannotRun("no bundle in service/bundles has the task radiograph_classification")
    return Workload("radiograph", bundles[0], Studies.read([Path(str(file))]), count * 25, judged=False)


def _task(bundle: Path) -> str:
    import yaml

    manifest = bundle / "outpost.yaml"
    return str(yaml.safe_load(manifest.read_text(encoding="utf-8")).get("task")) if manifest.exists() else ""


WORKLOADS: dict[str, Callable[[int], Workload]] = {"brain": brain, "radiograph": radiograph}


def raw_rate(load: Workload, *, whole: bool, kept: bool = False) -> float:
    """Studies a second of `WORKERS` one-thread processes without a service."""
    environment = os.environ | _ONE_THREAD
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        load.studies.write(1, Path(folder))
        count = math.ceil(load.count / WORKERS)
        command = [sys.executable, str(HERE / "raw.py"), str(load.bundle), folder, str(count)]
        processes = [
            subprocess.Popen(
                [*command, *(["--whole"] if whole else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=heap.keeping(environment) if kept else environment,
            )
            for _ in range(WORKERS)
        ]
        try:
            for process in processes:
                if _say(process) != "ready":
                    raise CannotRun(f"{load.bundle} cannot be computed: run benchmarks/raw.py by hand")
            for process in processes:
                assert process.stdin is not None  # a pipe
                process.stdin.write("\n")
                process.stdin.flush()
            times = [json.loads(_say(process)) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.communicate()
    # Each at its own speed: cores of a shared machine differ, and an early finisher shall not wait in the figure.
    return sum(count / (ended - began) for began, ended in times)


def _say(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # a pipe
    return process.stdout.readline().strip()


def peer_rate(side: str, load: Workload) -> float:
    """Studies a second of a peer, clients asking again as soon as they are answered."""
    name = side.removesuffix(OUTPUT_ONLY)
    if PEERS[name].missing:
        raise CannotRun(f"{name} is not installed: make bench-setup")
    clients = 2 * WORKERS + 1
    total = load.warm_up + load.count
    bodies = [load.studies.tar(serial) for serial in range(1, total + clients + 1)]
    done: list[float] = []
    failed: list[str] = []
    lock = threading.Lock()
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    server = PeerServer(
        PEERS[name],
        folder,
        WORKERS,
        f"{'output' if side.endswith(OUTPUT_ONLY) else 'bundle'}:{load.bundle}",
        _STUCK_SECONDS,
        {"BENCH_RAY_FOLDER": str(folder / "ray")},
    )

    def ask() -> None:
        while bodies and not failed and len(done) < total:
            with lock:
                body = bodies.pop() if bodies else b""
            if not body:
                return
            try:
                status, _ = server.infer(body, _STUCK_SECONDS)
            except OSError as error:
                failed.append(repr(error))
                return
            if status != 200:
                failed.append(f"status {status}: {server.last_words}")
                return
            with lock:
                done.append(time.monotonic())

    try:
        server.start()
        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        server.log_file.unlink(missing_ok=True)
    if failed:
        raise CannotRun(f"{name} did not answer a study: {failed[0]}")
    return _rate(sorted(done), load)


def outpost_rate(load: Workload, engine: str, expected: float) -> float:
    """Studies a second of Outpost, from the first result to the last; `expected` sizes the queue."""
    total = load.warm_up + load.count
    # What waits for its quiet time, what is on the way to the PACS, and a queue that is never empty.
    under_way = 3 * WORKERS + math.ceil(expected * (_QUIET_SECONDS + 1.5))
    bodies = [load.studies.stow(serial) for serial in range(1, total + under_way + 1)]
    with tempfile.TemporaryDirectory(prefix="bench-outpost-") as root:
        pacs = StoreScp(Path(root) / "pacs").start()
        service = Service(
            Path(root) / "service",
            [("PACS", pacs.port)],
            study={"quiet_seconds": _QUIET_SECONDS},
            inference={
                "bundle": str(load.bundle),
                "workers": WORKERS,
                "engine": engine or "auto",
                "optimise_after_idle_seconds": 86400,
            },
        )
        done: list[float] = []
        try:
            service.start(_ONE_THREAD).wait_ready()
            deadline = time.monotonic() + _STUCK_SECONDS
            sent = 0
            with closing(http.client.HTTPConnection("127.0.0.1", service.http_port, timeout=60)) as stow:
                while len(done) < total:
                    arrived = len(os.listdir(pacs.folder))  # noqa: PTH208 - fifty times a second: the cheap one
                    now = time.monotonic()
                    if arrived > len(done):
                        deadline = now + _STUCK_SECONDS
                        done += [now] * (arrived - len(done))
                    if now > deadline:
                        raise CannotRun(f"Outpost delivered {len(done)} of {sent}: {service.log[-300:]}")
                    if sent - len(done) < under_way and bodies:
                        stow.request(
                            "POST",
                            "/dicom-web/studies",
                            bodies.pop(),
                            BEARER | {"Content-Type": studies.STOW_TYPE},
                        )
                        reply = stow.getresponse()
                        answer = reply.read()
                        if reply.status != 200:
                            raise CannotRun(f"Outpost refused a study with {reply.status}: {answer[:300]!r}")
                        sent += 1
                    else:
                        time.sleep(0.02)
        except AssertionError as error:
            raise CannotRun(str(error)) from None
        finally:
            if log := os.environ.get("BENCH_KEEP_LOGS"):
                Path(log).mkdir(parents=True, exist_ok=True)
                shutil.copy(service.log_file, Path(log) / f"throughput-{load.name}.log")
            with suppress(subprocess.TimeoutExpired):
                service.stop()
            pacs.stop()
    return _rate(done, load)


def _rate(done: list[float], load: Workload) -> float:
    """Studies a second after the warm-up; `done` are the ends, in order."""
    counted = done[load.warm_up - 1 : load.warm_up + load.count]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def run(load: Workload, servers: list[str], repeats: int, engine: str) -> dict[str, Any]:
    """All sides in turn; returns and prints what they reached."""
    cannot: dict[str, str] = {}
    expected = raw_rate(load, whole=False)  # also warms the machine

    def side(name: str, measure: Callable[[], float]) -> Callable[[], float]:
        def measured() -> float:
            if name in cannot:
                return math.nan
            try:
                rate = measure()
            except CannotRun as error:
                cannot[name] = str(error)
                return math.nan
            print(f"  {load.name}, {name}: {report.number(rate)} studies/s", flush=True)
            return rate

        return measured

    sides: dict[str, Callable[[], float]] = {
        ROOFLINE: lambda: raw_rate(load, whole=False),
        BARE: lambda: raw_rate(load, whole=True),
        ROOFLINE + KEPT: lambda: raw_rate(load, whole=False, kept=True),
        BARE + KEPT: lambda: raw_rate(load, whole=True, kept=True),
    }
    for name in servers:
        sides[name] = (
            (lambda: outpost_rate(load, engine, expected))
            if name == OUTPOST
            else (lambda name=name: peer_rate(name, load))  # type: ignore[misc]
        )
    rates = report.interleaved({name: side(name, measure) for name, measure in sides.items()}, repeats)
    spreads = {name: report.Spread.of(found) for name, found in rates.items() if name not in cannot}
    limit, ours = spreads[ROOFLINE].median, spreads.get(OUTPOST)
    print(f"\n{load.name}: {load.bundle.name}, {engine or 'the reference engine'}, {WORKERS} x 1 thread\n")
    print(
        report.table(
            ["side", "studies/s (range)", "% of roofline", "Outpost to it"],
            [
                [
                    name,
                    str(spread),
                    f"{100 * spread.median / limit:.0f}",
                    f"{ours.median / spread.median:.2f}" if ours else "-",
                ]
                for name, spread in sorted(spreads.items(), key=lambda item: -item[1].median)
            ],
        )
    )
    for name, why in cannot.items():
        print(f"{name} could not run: {why}")
    print()
    return {"studies_per_second": spreads, "rates": rates, "cannot": cannot, "count": load.count}


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="default: %(default)s")
    parser.add_argument(
        "--servers",
        default="outpost,mosec,mosec-output,litserve,bentoml,fastapi,fastapi-workers",
        help="default: %(default)s; ray too",
    )
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=12, help="heavy studies a run; light ones 25 times that")
    parser.add_argument(
        "--engine", default="", help="engine/precision of all sides; default: the bundle's reference"
    )
    options = parser.parse_args()
    servers = options.servers.split(",")
    if options.engine:
        os.environ["BENCH_ENGINE"] = options.engine
    results: dict[str, Any] = {}
    reached: dict[str, tuple[float, float]] = {}
    for name in options.workloads.split(","):
        try:
            load = WORKLOADS[name](options.count)
        except CannotRun as error:
            print(f"{name} could not run: {error}")
            continue
        engine = options.engine or _reference(load.bundle)
        found = results[name] = run(load, servers, options.repeats, engine)
        rates: dict[str, report.Spread] = found["studies_per_second"]
        if OUTPOST in rates and NAMED_PEER in rates:
            ours = rates[OUTPOST].median
            limit, peer = ours / rates[ROOFLINE].median, ours / rates[NAMED_PEER].median
            if load.judged:
                reached[name] = limit, peer
            print(
                f"{name}: {limit:.2f} of the roofline, {peer:.2f} of {NAMED_PEER}, "
                f"{ours / rates[BARE].median:.2f} of bare, {ours / rates[ROOFLINE + KEPT].median:.2f} of "
                f"{ROOFLINE + KEPT}, {ours / rates[BARE + KEPT].median:.2f} of {BARE + KEPT}\n"
            )
    complete = set(results) == set(WORKLOADS) and bool(reached)
    return report.finish(
        "throughput",
        ratio=min((limit for limit, _ in reached.values()), default=None),
        peer=f"{ROOFLINE}; to {NAMED_PEER}: "
        + ", ".join(f"{name} {peer:.2f}" for name, (_, peer) in reached.items()),
        bar=f">= {LIMIT_BAR} of the {ROOFLINE}, >= {PEER_BAR} of {NAMED_PEER}",
        ok=complete
        and all(limit >= LIMIT_BAR and peer >= PEER_BAR for limit, peer in reached.values())
        and not any(found["cannot"] for found in results.values()),
        details=results,
        packages=["outpost", "torch", *(PEERS[peer].package for peer in servers if peer in PEERS), "uvicorn"],
        keep=complete and options.repeats >= 3,
    )


def _reference(bundle: Path) -> str:
    from outpost.inference.bundle import load_bundle

    reference = load_bundle(bundle).manifest.engines.reference
    return f"{reference.engine}/{reference.precision}"


if __name__ == "__main__":
    sys.exit(main())
