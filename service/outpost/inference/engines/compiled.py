"""torch.compile: the network's modules as machine code, made with the host's C++ compiler.

Compiling takes a minute or more for each input size and each start, so it pays only where a process lives long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from outpost.inference.engines import Network, Source
from outpost.inference.engines.convert import module_of
from outpost.inference.engines.eager import TorchNetwork


def load(precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None) -> Network:
    """See `outpost.inference.engines.load`. Compiles at the first call of each size."""
    module = module_of(weights).to(device)
    compiled = torch.compile(module, dynamic=False)
    return TorchNetwork(module, precision, device, provider="torch.compile inductor", call=compiled)
