"""Networks and inferers for bundles of the assert tests; the child process imports them by name."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Sound(torch.nn.Module):
    """`inner` gives 0.25 everywhere; the network does not show it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Conv3d(1, 1, 1)
        torch.nn.init.constant_(self.inner.weight, 0.0)
        assert self.inner.bias is not None
        torch.nn.init.constant_(self.inner.bias, 0.25)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.inner(image)
        return image


class GivesNan(Sound):
    """`inner` is broken."""

    def __init__(self) -> None:
        super().__init__()
        torch.nn.init.constant_(self.inner.weight, float("nan"))


class Threshold:
    """Inferer: calls the network, and takes everything brighter than 45 for the mask."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, volume: NDArray[np.float32]) -> NDArray[np.bool_]:
        self._network(torch.zeros(1, 1, 8, 8, 8))
        return volume > 45


class ManyThreads:
    """Inferer that computes in threads of its own, as a library does whose setting was forgotten."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def __call__(self, volume: NDArray[np.float32]) -> NDArray[np.bool_]:
        done = threading.Barrier(4)

        def compute() -> None:
            torch.zeros(600, 600).matmul(torch.zeros(600, 600))
            for _ in range(20):
                np.ones((400, 400)) @ np.ones((400, 400))
            done.wait()
            self._never.wait()

        for _ in range(3):
            threading.Thread(target=compute, daemon=True).start()
        done.wait()
        return volume > 45
