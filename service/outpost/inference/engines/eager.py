"""torch itself: the network's own modules, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from outpost.inference.engines import Network, Source
from outpost.inference.engines.convert import module_of


class TorchNetwork:
    """A torch module as a `Network`.

    In float32 nothing is computed in fewer bits. Any other precision is torch's autocast: operations it
    deems safe run in it, the others in float32.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        precision: str,
        device: str,
        provider: str,
        call: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._module = module
        self._call = call or module
        self._kind = torch.device(device).type
        self._lower = None if precision == "float32" else getattr(torch, precision)
        # Tensor cores would otherwise take 10 of the 23 bits of each factor (TF32).
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        where = {str(tensor.device) for tensor in module.parameters()} or {device}
        self.facts = {
            "provider": provider,
            "precision": precision if self._lower is None else f"{precision} (autocast)",
            "device": ", ".join(sorted(where)),
        }

    @property
    def module(self) -> torch.nn.Module | None:
        return self._module

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            if self._lower is None:
                return self._call(image)
            with torch.autocast(self._kind, dtype=self._lower):
                return self._call(image).float()


def load(precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None) -> Network:
    """See `outpost.inference.engines.load`."""
    return TorchNetwork(module_of(weights).to(device), precision, device, provider="torch")
