"""TorchScript: the network as torch saved it, without its Python code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from outpost.inference.engines import Network, Source
from outpost.inference.engines.convert import script_of
from outpost.inference.engines.eager import TorchNetwork


def load(precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None) -> Network:
    """See `outpost.inference.engines.load`."""
    module: torch.nn.Module = script_of(weights, example).to(device)
    return TorchNetwork(module, precision, device, provider="torch.jit")
