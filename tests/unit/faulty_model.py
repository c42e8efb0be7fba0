"""A model that does what the brightest voxel of its input asks for; the child process imports it by name.

It stands in the bundle's `inferer` where the real network does, so the fault happens where real ones do.
"""

from __future__ import annotations

import ctypes
import time
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

HANG, SEGFAULT, OUT_OF_MEMORY, RAISE, EMPTY, CHATTER = range(60001, 60007)


class FaultyModel:
    """Callable as a bundle's inferer is; no fault asked for, everything brighter than 45 is the mask."""

    def __call__(self, volume: NDArray[np.float32]) -> NDArray[np.bool_]:
        match int(volume.max()):
            case code if code == HANG:
                time.sleep(600)
            case code if code == SEGFAULT:
                ctypes.string_at(0)
            case code if code == OUT_OF_MEMORY:
                torch.empty(1 << 50)
            case code if code == RAISE:
                _raise()
            case code if code == EMPTY:
                return np.zeros(volume.shape, dtype=np.bool_)
            case code if code == CHATTER:
                print("a library prints to standard output", flush=True)
        return volume > 45


def _raise() -> NoReturn:
    raise RuntimeError("no kernel image is available for execution on the device")
