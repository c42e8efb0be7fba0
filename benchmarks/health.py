#!/usr/bin/env python3
"""How long the light health check takes, on the state of a service with 16 workers.

    benchmarks/health.py [--rounds 2000]

The disk is real; pipeline and listener are values in the state of a service at work, each lane with every assert.
The peer is the promise itself: 1 ms for the median. The 99th percentile is printed beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from report import finish, table

from outpost.config import Config
from outpost.health.codes import CHECKS
from outpost.health.verdict import Health
from outpost.inference.rung import Rung
from outpost.inference.state import Assertion, Golden, LaneState

LANES = 16
PROMISE_SECONDS = 1e-3


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as root:
        health = service(Path(root))
        seconds = sorted(timed(health) for _ in range(rounds))
        checks = len(health.light().checks)
    median, late = statistics.median(seconds), seconds[int(0.99 * rounds)]
    print(table(["light check", "ms"], [["median", f"{median * 1e3:.3f}"], ["99 %", f"{late * 1e3:.3f}"]]))
    return conclude(median, late, checks)


def timed(health: Health) -> float:
    """Seconds of one verdict."""
    began = time.perf_counter()
    health.light()
    return time.perf_counter() - began


def service(root: Path) -> Health:
    """Health over parts in the state of a service at work."""
    now = time.monotonic()
    rung = Rung("full", LANES, 1, "full", "torchscript", "float32", "cpu")
    asserts = tuple(
        Assertion(code, True, "as it should be", "as it should be")
        for code, kind in CHECKS.items()
        if kind.place == "worker"
    )
    golden = Golden(ok=True, at=now, value=1.0, wanted=0.995, seconds=1.0)
    lanes = [LaneState(rung, True, now, "study", asserts, golden) for _ in range(LANES)]
    pipeline: Any = SimpleNamespace(
        lanes=lanes,
        golden=golden,
        golden_fastest=0.9,
        golden_period=50.0,
        stall_seconds=8.0,
        receive_only="",
        rung=rung,
        queue={},
        last_tick=now,
    )
    config = Config.model_validate(
        {
            "system": "bench",
            "region": "bench",
            "storage": {"root": str(root)},
            "delivery": {
                "destinations": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}]
            },
            "records": {"enabled": False},
        }
    )
    scp: Any = SimpleNamespace(listening=True)
    return Health(config, scp, pipeline, [threading.current_thread()], None)


def conclude(median: float, late: float, checks: int) -> int:
    """Hold the median against the promise."""
    return finish(
        "health",
        ratio=PROMISE_SECONDS / median,
        peer="the promise of 1 ms",
        bar=">= 1",
        ok=median <= PROMISE_SECONDS,
        details={"median_ms": median * 1e3, "p99_ms": late * 1e3, "workers": LANES, "checks": checks},
    )


if __name__ == "__main__":
    sys.exit(main())
