#!/usr/bin/env python3
"""What the filter of input costs: the header verdict, the pixel verdict, and its share of a study's time.

    benchmarks/filter.py [--studies 40]

Three limits: 2 ms for the headers of a study, 20 ms for the pixels of a frame after decoding, on one core, and 3 % of
what a study takes of the service. The share is measured with two services that differ only in their rules, one with
the bundle's own, one that judges nothing; the same studies go to both in turn, one at a time, and the processor time of
each service's processes is counted: receiving, computing, writing and sending. The median counts: now and then a
golden case is computed beside a study, which has nothing to do with it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "service"), str(ROOT / "tests" / "unit")]

import header_verdict  # noqa: E402 - after the path
import httpx  # noqa: E402
import numpy as np  # noqa: E402
import report  # noqa: E402
import torch  # noqa: E402
from filter_corpus import CHEST, HEAD_SLICES, packaged  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from running import BEARER, Service, StoreScp  # noqa: E402
from studies import STOW_TYPE  # noqa: E402
from throughput import Workload, brain, radiograph  # noqa: E402

from outpost.filter.pixels import judge_frame  # noqa: E402
from outpost.filter.rulefile import known_classes  # noqa: E402
from outpost.inference.decode import decode_image  # noqa: E402
from outpost.inference.header import read_header  # noqa: E402

HEADER_MS, PIXELS_MS, SHARE = 2.0, 20.0, 0.03
_STUCK_SECONDS = 60.0
# Judges nothing: every kind known by name is kept, no rule, no look at the pixels.
_NOTHING = """
about: nothing is judged
known: {{{known}}}
pixels: {{blank: "off", zeros: "off", saturated: "off", clipped: "off", screen_capture: "off", photometric: "off",
  burned_in_text: "off", anatomy: "off", plausible: "off", unsure: accept}}
"""
# Beside the bundle's own: every check that there is, with the classifier on every radiograph.
_STRICT = """
about: every check
pixels: {expected_anatomy: [chest_frontal, chest_lateral, limb], unsure: hold}
"""


def milliseconds(what: Callable[[], object], repeats: int) -> report.Spread:
    """Of one call, after one that does not count."""
    what()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        what()
        took.append(1000 * (time.perf_counter() - began))
    return report.Spread.of(took)


def frames() -> dict[str, tuple[NDArray[Any], Dataset, Any]]:
    """Decoded frames of every size in use."""
    found = {}
    for name, package, policy in (
        ("RG1_UNCR.dcm", "pydicom-data", CHEST),
        ("cat.dcm", "deid-data", CHEST),
        ("693_UNCR.dcm", "pydicom-data", HEAD_SLICES),
        ("MR2_UNCR.dcm", "pydicom-data", HEAD_SLICES),
    ):
        header = read_header(packaged(package, name))
        found[name] = decode_image(header).pixels, header.dataset, policy
    pixels, dataset, policy = found["RG1_UNCR.dcm"]
    rows, columns = (
        np.linspace(0, size - 1, wide).astype(int)
        for size, wide in zip(pixels.shape, (4096, 3328), strict=True)
    )
    found["RG1 enlarged to a mammogram"] = pixels[np.ix_(rows, columns)].copy(), dataset, policy
    return found


def processor_seconds(pid: int) -> float:
    """What the threads of a process and of its descendants have used, by the scheduler's clock of nanoseconds."""
    total, family = 0, [pid]
    while family:
        # A thread or process may end while it is looked at.
        with suppress(OSError):
            for thread in Path(f"/proc/{family.pop()}/task").iterdir():
                total += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
                family += [int(child) for child in (thread / "children").read_text(encoding="ascii").split()]
    return total / 1e9


class Side:
    """A service with one worker, its PACS, and the processor time its studies took."""

    def __init__(self, name: str, load: Workload, rules: Path | None, root: Path, stack: ExitStack) -> None:
        self.name = name
        self._load = load
        self.pacs = StoreScp(root / name / "pacs").start()
        stack.callback(self.pacs.stop)
        self.service = Service(
            root / name / "service",
            [("PACS", self.pacs.port)],
            inference={
                "bundle": str(load.bundle),
                "workers": 1,
                "engine": "auto",
                "optimise_after_idle_seconds": 86400,
            },
            **({"filter": {"rules": str(rules)}} if rules is not None else {}),
        )
        stack.callback(self.service.stop)
        self.service.start({"OMP_NUM_THREADS": "1"}).wait_ready()
        self.seconds: list[float] = []
        self._sent = 0

    def study(self, serial: int, counted: bool) -> None:
        """Send one study, wait until the PACS has the result, note what it took."""
        body = self._load.studies.stow(serial)
        assert self.service.process is not None  # started
        pid = self.service.process.pid
        before = processor_seconds(pid)
        reply = httpx.post(
            f"http://127.0.0.1:{self.service.http_port}/dicom-web/studies",
            content=body,
            headers=BEARER | {"Content-Type": STOW_TYPE},
            timeout=60,
        )
        reply.raise_for_status()
        self._sent += 1
        deadline = time.monotonic() + _STUCK_SECONDS
        while len(list(self.pacs.folder.iterdir())) < self._sent:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: a study was not delivered: {self.service.log[-500:]}")
            time.sleep(0.02)
        time.sleep(0.1)  # what is journalled after the delivery
        if counted:
            self.seconds.append(processor_seconds(pid) - before)


def share(load: Workload, studies: int, strict: bool) -> dict[str, Any]:
    """Processor seconds of a study with and without the filter, studies alternating."""
    with tempfile.TemporaryDirectory(prefix="bench-filter-") as folder, ExitStack() as stack:
        root = Path(folder)
        off, every = root / "off.yaml", root / "strict.yaml"
        off.write_text(_nothing(), encoding="utf-8")
        every.write_text(_STRICT, encoding="utf-8")
        rules: dict[str, Path | None] = {"off": off, "on": None}
        if strict:
            rules["every check"] = every
        sides = {name: Side(name, load, file, root, stack) for name, file in rules.items()}
        for number in range(studies + 2):
            turn: Sequence[Side] = list(sides.values())
            for side in turn if number % 2 else reversed(turn):
                side.study(number + 1, counted=number >= 2)
    return {name: side.seconds for name, side in sides.items()}


def _nothing() -> str:
    return _NOTHING.format(known=", ".join(f"{name}: keep" for name in known_classes()))


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=40, help="radiographs; a fifth as many heads")
    studies = parser.parse_args().studies
    torch.set_num_threads(1)
    loads = {"brain": brain(1), "radiograph": radiograph(1)}
    with tempfile.TemporaryDirectory() as folder:
        header_rows = header_verdict.measure(Path(folder))
    pixel_ms = {
        f"{name} {' x '.join(map(str, pixels.shape))}": milliseconds(
            partial(judge_frame, pixels, dataset, policy), 20
        )
        for name, (pixels, dataset, policy) in frames().items()
    }
    rows: list[list[object]] = [
        [f"headers, {row.study}, {row.rules}", f"{row.median_ms:.3g} (at most {row.worst_ms:.3g})", HEADER_MS]
        for row in header_rows
    ]
    rows += [[f"pixels, {name}", str(ms), PIXELS_MS] for name, ms in pixel_ms.items()]
    print(report.table(["one thread", "ms (range)", "limit"], rows) + "\n", flush=True)
    shares: dict[str, float] = {}
    details: dict[str, Any] = {
        "header_ms": [asdict(row) for row in header_rows],
        "pixel_ms": pixel_ms,
        "study_seconds": {},
    }
    table = []
    for name, load in loads.items():
        seconds = share(load, max(5, studies // 5) if name == "brain" else studies, name == "radiograph")
        details["study_seconds"][name] = {side: report.Spread.of(took) for side, took in seconds.items()}
        without = statistics.median(seconds["off"])
        for side, took in seconds.items():
            more = statistics.median(took) / without - 1
            spread = report.Spread.of([1000 * one for one in took])
            table.append([name, side, str(spread), "-" if side == "off" else f"{more:+.1%}"])
            if side == "on":
                shares[name] = more
            details[f"share_{name}_{side}"] = more
    print(report.table(["study", "filter", "processor ms a study (range)", "more"], table) + "\n")
    slowest = max(ms.median for ms in pixel_ms.values())
    slowest_header = max(row.median_ms for row in header_rows)
    return report.finish(
        "filter",
        ratio=max(shares.values()),
        peer="the service without the filter; "
        f"headers {slowest_header:.2f} ms a study, pixels {slowest:.1f} ms a frame at the most",
        bar=f"<= {SHARE} of a study's time, <= {HEADER_MS:g} ms, <= {PIXELS_MS:g} ms",
        ok=max(shares.values()) <= SHARE and slowest <= PIXELS_MS and slowest_header <= HEADER_MS,
        details=details,
        packages=["outpost", "torch", "numpy", "scipy", "pydicom"],
        keep=studies >= 40,
    )


if __name__ == "__main__":
    sys.exit(main())
