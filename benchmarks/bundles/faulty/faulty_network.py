"""A small network whose faults are ordered from outside, through a file named by `BENCH_FAULT`.

Healthy it marks what is bright. The first word of the file is the present fault; an empty or absent file is health.
Both Outpost and its peers run exactly this module.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

# Like this the CUDA runtime words them (cudaGetErrorString), and torch prefixes them.
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
DEVICE_LOST = "CUDA error: unspecified launch failure"

_WORK = 6  # rounds of convolution: tens of ms on one thread
_SLOW = 10


class Network(nn.Module):
    """(1, 1, D, H, W) intensities -> (1, 2, D, H, W); channel 1 is near 1 where the input is bright."""

    def __init__(self) -> None:
        super().__init__()
        # Averaging kernels: their sum decides nothing and costs time, as a real network's would.
        self.kernel = nn.Parameter(torch.full((8, 8, 3, 3, 3), 1 / 216), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        began = time.monotonic()
        fault = _fault()
        match fault:
            case "raise":
                raise RuntimeError(NO_KERNEL)
            case "vanish":
                raise RuntimeError(DEVICE_LOST)
            case "hang":
                time.sleep(24 * 3600)
            case "memory":
                torch.empty(1 << 46)
        bright = torch.sigmoid(20 * (self._worked(image) - image.mean() - image.std()))
        output = torch.cat([1 - bright, bright], dim=1)
        if fault == "nan":
            return torch.full_like(output, torch.nan)
        if fault == "constant":
            return torch.full_like(output, 0.7)
        if fault == "slow":
            time.sleep((_SLOW - 1) * (time.monotonic() - began))
        return output

    def _worked(self, image: torch.Tensor) -> torch.Tensor:
        work = image.expand(-1, 8, -1, -1, -1)
        for _ in range(_WORK):
            work = functional.conv3d(work, self.kernel, padding=1)
        return image + 0 * work[:, :1]


def _fault() -> str:
    try:
        return Path(os.environ["BENCH_FAULT"]).read_text(encoding="ascii").strip()
    except (KeyError, OSError):
        return ""
