"""What every peer's worker loads and calls: the very model and code Outpost runs, without Outpost around it.

`BENCH_SERVED` says which: `bundle:PATH` (a study as a tar of DICOM files; its DICOM result is made, and answered as
base64 in JSON), `output:PATH` (the same without a DICOM result: JSON about the output) or `faulty` (a volume as a
.npy file; see `benchmarks/bundles/faulty`).
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Served = Callable[[bytes], dict[str, Any]]


def load() -> Served:
    """Load the model; call it with the body of a request."""
    kind, _, path = os.environ["BENCH_SERVED"].partition(":")
    model: Served = _Faulty() if kind == "faulty" else _OfBundle(Path(path), dicom=kind == "bundle")
    # By its process id the harness knows who computes, and whom to kill.
    (Path(os.environ["BENCH_FOLDER"]) / "workers" / str(os.getpid())).touch()
    return model


class _OfBundle:
    """Read, compute and answer. Nothing is kept and nothing is sent on: Outpost does that besides."""

    def __init__(self, path: Path, *, dicom: bool) -> None:
        from raw import Raw

        self._raw = Raw(path)
        self._dicom = dicom

    def __call__(self, body: bytes) -> dict[str, Any]:
        # In memory, not on the disk: the readers want files, the peers shall not pay for a disk.
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                archive.extractall(folder, filter="data")
            files = sorted(Path(folder).iterdir())
            if not self._dicom:
                return self._raw.summary(self._raw.compute(self._raw.read(files)))
            with tempfile.TemporaryDirectory(dir="/dev/shm") as results:
                self._raw.whole(files, Path(results))
                made = sorted(Path(results).iterdir())
                return {"results": [base64.b64encode(file.read_bytes()).decode() for file in made]}


class _Faulty:
    """Keeps the body in the working folder, as a server that must not lose its input would; then computes."""

    def __init__(self) -> None:
        import numpy as np
        import torch

        sys.path.insert(0, str(Path(__file__).parents[1] / "bundles" / "faulty"))
        from faulty_network import Network

        torch.set_num_threads(1)
        self._numpy, self._torch = np, torch
        self._network = Network().eval()

    def __call__(self, body: bytes) -> dict[str, Any]:
        with tempfile.TemporaryFile(dir=os.environ["BENCH_FOLDER"], buffering=0) as kept:
            written = 0
            while written < len(body):
                written += kept.write(body[written:]) or 0
        volume = self._numpy.load(io.BytesIO(body))
        with self._torch.inference_mode():
            output = self._network(self._torch.from_numpy(volume)[None, None])[0, 1]
        # As a handler does that trusts its model: a NaN is not above the threshold.
        return {"voxels": int((output > 0.5).sum())}
