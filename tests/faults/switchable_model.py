"""A model whose faults a test switches on and off while the service runs; the child process imports it by name.

It stands in the bundle's `inferer` where the real network does, so a fault happens where real ones do. The file
named by OUTPOST_TEST_FAULT says what happens, as JSON: {"kind": ..., "at": [sizes], "golden": bool, ...}. With
"shape" it happens to volumes of that shape alone, with "once" to one call.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.phantom import SHAPE


class SwitchableModel:
    """Callable as a bundle's inferer is: everything brighter than 45 is the mask. `edge` is the size's value."""

    def __init__(self, edge: int) -> None:
        self._edge = edge

    def __call__(self, volume: NDArray[np.float32]) -> NDArray[np.bool_]:
        fault = self._fault(volume)
        match fault.get("kind"):
            case "raise":
                raise RuntimeError(fault["text"])
            case "torch-oom":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            case "memory":
                hog = np.ones(fault["mib"] << 17)  # float64: resident, as every page is written
                hog.sum()
            case "hang":
                time.sleep(600)
            case "slow":
                time.sleep(fault["seconds"])
            case "burn":
                while True:
                    pass
            case "kill-service":
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            case "nan":
                raise InferenceFailed(Code.OUTPUT_NOT_FINITE, "the output runs from nan to nan")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
            case "misshapen":
                return (volume > 45)[:-1]  # nothing is wrong until it is written
            case "constant":
                return np.zeros(volume.shape, dtype=np.bool_)
        return volume > 45

    def _fault(self, volume: NDArray[np.float32]) -> dict[str, Any]:
        file = Path(os.environ["OUTPOST_TEST_FAULT"])
        if not file.exists():
            return {}
        fault: dict[str, Any] = json.loads(file.read_text())
        is_golden = volume.shape == SHAPE
        meant = self._edge in fault.get("at", [self._edge]) and (fault.get("golden", False) or not is_golden)
        meant = meant and fault.get("shape", list(volume.shape)) == list(volume.shape)
        if meant and fault.get("once"):
            file.unlink(missing_ok=True)
        return fault if meant else {}
