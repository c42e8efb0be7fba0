"""What a benchmark prints and keeps: the machine, a table for people, and last one line of JSON for machines.

Ratios are what counts: both sides of one ran on this machine in this run. A benchmark whose peer could not run
says so and is not ok. Standard library only, as benchmarks of single parts shall not load the rest.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# What changes the figures of a network on a CPU by factors.
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeats of one measurement: the median counts, least and greatest say how far to trust it."""

    median: float
    least: float
    greatest: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.least)}-{number(self.greatest)})"


def number(value: float) -> str:
    """A figure with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def interleaved(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure all sides in turn, `repeats` times over: what else the machine does then meets them alike.

    Each second round goes backwards, so that no side always follows the same neighbour.
    """
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        names = list(sides)
        for name in names if turn % 2 == 0 else reversed(names):
            measured[name].append(sides[name]())
    return measured


def machine() -> dict[str, Any]:
    """Facts without which the figures mean nothing."""
    cpu = _cpu()
    flags = cpu.get("flags", "").split()
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; a package that is not there is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers are the caller's to round."""
    lines = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def finish(
    name: str,
    *,
    ratio: float | None,
    peer: str,
    bar: str,
    ok: bool,
    details: dict[str, Any],
    packages: Sequence[str] = (),
    keep: bool = True,
) -> int:
    """Keep the run in `results/`, print the JSON line, return the exit status (0 ok, 1 not).

    Args:
        name: of the benchmark, as in `make bench-NAME`.
        ratio: ours to the peer's; None when one of them could not run, which is never ok.
        peer: the named peer or limit the ratio is to.
        bar: what was to be reached, in words.
        ok: whether it was.
        details: everything measured; dataclasses are allowed.
        packages: whose versions matter.
        keep: False for a run with fewer repeats than count.
    """
    line = {
        "name": name,
        "ratio": round(ratio, 3) if ratio is not None else None,
        "peer": peer,
        "bar": bar,
        "ok": ok and ratio is not None,
    }
    if keep:
        now = datetime.now(UTC)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}-{now:%Y-%m-%d}.json").write_text(
            json.dumps(
                {
                    **line,
                    "date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
                    "machine": machine(),
                    "versions": versions(*packages),
                    "details": details,
                },
                indent=1,
                default=_plain,
            )
            + "\n",
            encoding="utf-8",
        )
    print(json.dumps(line), flush=True)
    return 0 if line["ok"] else 1


def _plain(value: object) -> object:
    if isinstance(value, Spread):
        return asdict(value)
    raise TypeError(f"{value!r} cannot be kept as JSON: give text or numbers")


def _cpu() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    return {
        key.strip(): value.strip() for key, _, value in (row.partition(":") for row in first.splitlines())
    }
