"""A bundle without any service: what the roofline computes, and what every peer's worker calls.

`benchmarks/raw.py BUNDLE STUDY_FOLDER COUNT [--whole]` computes one study COUNT times on one thread: it says
`ready`, waits for a line, and answers with the seconds of the clock at which it began and ended. The study is read
once, before; with `--whole` it is read, computed and written as DICOM each time.

`BENCH_ENGINE` (`engine/precision`) overrides the bundle's reference engine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outpost.inference.bundle import EngineChoice, full_rung, load_bundle
from outpost.inference.predictor import Predictor
from outpost.inference.task import make_task


class Raw:
    """Outpost's own code for a bundle's studies, called directly."""

    def __init__(self, path: Path) -> None:
        bundle = load_bundle(path)
        choice = None
        if wanted := os.environ.get("BENCH_ENGINE"):
            engine, _, precision = wanted.partition("/")
            choice = EngineChoice.model_validate({"engine": engine, "precision": precision or "float32"})
        self._rung = full_rung(bundle, choice)
        self._predictor = Predictor(bundle, self._rung)
        self._task = make_task(bundle)

    def read(self, files: Sequence[Path]) -> Any:
        """Choose and decode the images of a study."""
        return self._predictor.read(files)

    def compute(self, case: Any) -> Any:
        """From decoded images to the output of the model, all its steps."""
        return self._task.compute(case, self._predictor.inferer(self._rung.size), self._rung.batch)

    def whole(self, files: Sequence[Path], folder: Path) -> None:
        """Read, compute, write the DICOM results."""
        self._predictor.run(self._predictor.read(files), self._rung, folder, 1)

    @staticmethod
    def summary(output: Any) -> dict[str, Any]:
        """A small JSON answer that needs the whole output."""
        array = np.asarray(output)
        return {"shape": list(array.shape), "sum": float(array.sum())}


def main() -> int:
    """One process of the roofline."""
    path, folder, count, whole = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), "--whole" in sys.argv
    raw = Raw(path)
    files = sorted(folder.iterdir())
    case = raw.read(files)
    raw.compute(case)  # the first call is slower
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for _ in range(count):
        if whole:
            with tempfile.TemporaryDirectory(dir="/dev/shm") as results:
                raw.whole(files, Path(results))
        else:
            raw.compute(case)
    print(json.dumps([began, time.monotonic()]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
