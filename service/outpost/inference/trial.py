"""One engine tried on one bundle, in a process of its own, as `outpost optimise` starts it.

`python -m outpost.inference.trial BUNDLE RUNG STORAGE PARENT_PID` prints one JSON object. What kills it kills
nothing else: the memory it may have and the time it may take are set from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from outpost.inference import memory
from outpost.inference.bundle import Bundle, load_bundle
from outpost.inference.child import _die_with, classify
from outpost.inference.codes import InferenceFailed
from outpost.inference.rung import Rung

REPEATS = 3


def main() -> int:
    """Try, and say what came of it."""
    bundle, rung = load_bundle(Path(sys.argv[1])), Rung(**json.loads(sys.argv[2]))
    storage, parent = Path(sys.argv[3]), int(sys.argv[4])
    _die_with(parent)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    # The answer goes to the real standard output; what libraries print goes to the log.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        outcome = try_engine(bundle, rung, storage)
    except InferenceFailed as failure:
        outcome = {"failed": str(failure.code), "reason": failure.message}
    except Exception as error:
        outcome = {"failed": str(classify(error)), "reason": f"{type(error).__name__}: {error}"[:300]}
    json.dump(outcome, answer)
    answer.flush()
    return 0


def try_engine(bundle: Bundle, rung: Rung, storage: Path) -> dict[str, Any]:
    """Load the engine, time the golden case at the fullest rung, compute it at every other size and batch.

    Seconds are of processor time where the CPU computes: what else the host does then counts little.
    """
    started = time.monotonic()
    from outpost.inference.predictor import Predictor

    clock = time.process_time if rung.device == "cpu" else time.monotonic
    predictor = Predictor(bundle, rung, storage)
    loaded = time.monotonic() - started
    first = predictor.golden(rung)  # compiles and warms up
    seconds = []
    for _ in range(REPEATS if first.ok else 0):
        began = clock()
        predictor.golden(rung)
        seconds.append(clock() - began)
    peak = memory_peak_mib()
    others = [replace(rung, batch=batch) for batch in bundle.manifest.batches[1:]]
    others += [replace(rung, size=size.name) for size in bundle.manifest.sizes[1:]]
    return {
        "seconds": min(seconds, default=None),
        "load_seconds": loaded,
        "memory_mib": peak,
        "golden": asdict(first),
        "reduced": [
            {"size": other.size, "batch": other.batch, **asdict(predictor.golden(other))} for other in others
        ],
        "facts": predictor.engine_facts,
    }


def memory_peak_mib() -> int | None:
    """The most memory this process had at once; None if the kernel does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 // memory.MIB
    return None


if __name__ == "__main__":
    sys.exit(main())
