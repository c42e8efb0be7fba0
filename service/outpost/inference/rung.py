"""A rung of the ladder: everything about how a study is computed that may be reduced when it does not fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of computing, from the fullest down.

    Attributes:
        name: stable word for people, metrics and results: `full`, `single`, `batch-1`, `size-192`, ...
        parallel: how many studies this system computes at once.
        batch: how many images (or tiles) one call of the network takes.
        size: name of an entry of the bundle's `sizes`; `full` is the size the bundle was released with.
        engine: name of an engine, for example `torchscript` or `openvino`.
        precision: for example `float32`; always set, never left to an engine.
        device: `cpu` or `cuda:N`.
    """

    name: str
    parallel: int
    batch: int
    size: str
    engine: str
    precision: str
    device: str

    @property
    def process(self) -> tuple[str, str, str]:
        """What is fixed when a worker process starts; the rest may change from study to study."""
        return self.engine, self.precision, self.device

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
