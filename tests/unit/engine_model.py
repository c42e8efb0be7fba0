"""A model that fails by the engine its networks are in; processes that try engines import it by name."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray


class EngineModel:
    """Callable as a bundle's inferer is. `faults`: by provider and precision, what happens instead.

    `slow`: seconds of computing, by provider.
    """

    def __init__(self, networks: dict[str, Any], faults: dict[str, str], slow: dict[str, float]) -> None:
        facts = networks["finder"].facts
        self._fault = faults.get(f"{facts['provider']} {facts['precision']}", "")
        self._slow = slow.get(facts["provider"], 0.0)

    def __call__(self, volume: NDArray[np.float32]) -> NDArray[np.bool_]:
        match self._fault:
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                time.sleep(600)
            case "memory":
                np.ones(1 << 34, dtype=np.uint8)
            case "wrong":
                return volume > 150
        end = time.process_time() + self._slow
        while time.process_time() < end:
            pass
        return volume > 45
