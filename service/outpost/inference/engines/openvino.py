"""OpenVINO on the CPU. Left alone it computes in bfloat16 where the CPU has it; here the precision is always set.

What the compiled model says it computes in is read back: it keeps silent when it cannot do what it is told.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.engines import Network, Source, version
from outpost.inference.engines.convert import kept, script_of

_HINTS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}
# Models compiled for one input size each: a few of small inputs, as batches differ; of large ones, whose memory
# counts (hundreds of MiB), only that of the size the ladder is at.
_KEPT_SMALL = 4
_LARGE_VOXELS = 1 << 22


class OpenVinoNetwork:
    """A model as a `Network`, compiled for each input size at its first call (a quarter of a second)."""

    module = None

    def __init__(self, core: Any, model: Any, precision: str) -> None:
        self._core = core
        self._model = model
        self._precision = precision
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self.facts = {"provider": "CPU", "precision": precision, "device": "cpu"}

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        array = image.contiguous().numpy()
        request = self._request(array.shape)
        # Our own memory for the answer: the request's would be overwritten by the next call.
        output = np.empty(tuple(request.model_outputs[0].shape), dtype=np.float32)
        request.set_input_tensor(openvino.Tensor(array, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(output, shared_memory=True))
        request.infer()
        return torch.from_numpy(output)

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape in self._compiled:
            self._compiled.move_to_end(shape)
            return self._compiled[shape]
        keep = _KEPT_SMALL if np.prod(shape) < _LARGE_VOXELS else 1
        while len(self._compiled) >= keep:
            self._compiled.popitem(last=False)
        self._model.reshape({self._model.input(0): list(shape)})
        compiled = self._core.compile_model(
            self._model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
                "INFERENCE_NUM_THREADS": 1,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                # Pinned threads of several processes would all sit on the first core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        found = compiled.get_property("INFERENCE_PRECISION_HINT")
        if found != _HINTS[self._precision]:
            raise InferenceFailed(
                Code.ENGINE_UNAVAILABLE,
                f"OpenVINO computes in {found.get_type_name()}, {self._precision} was asked for",
            )
        self._compiled[shape] = compiled.create_infer_request()
        return self._compiled[shape]


def load(precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None) -> Network:
    """See `outpost.inference.engines.load`."""
    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InferenceFailed(Code.ENGINE_UNAVAILABLE, "openvino: this CPU does not compute in bfloat16")
    model = _read(core, weights, example, cache)
    if len(model.inputs) != 1 or model.input(0).element_type != openvino.Type.f32:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"weights.{weights.name} do not take one float32 input")
    return OpenVinoNetwork(core, model, precision)


def _read(core: Any, weights: Source, example: Sequence[int], cache: Path | None) -> Any:
    if weights.format == "onnx":
        try:
            return core.read_model(weights.file)
        except RuntimeError as error:
            raise InferenceFailed(
                Code.BUNDLE_INVALID, f"weights.{weights.name}: {weights.file} is not an ONNX model"
            ) from error

    def convert() -> bytes:
        model = openvino.convert_model(
            script_of(weights, example),
            example_input=torch.zeros(tuple(example)),
            input=[openvino.PartialShape([-1, example[1], *([-1] * (len(example) - 2))])],
        )
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(model, f"{folder}/model.xml", compress_to_fp16=False)
            # One file, so that it is written whole or not at all: the length of the first part, then both.
            xml, weights_bytes = (Path(folder, f"model.{kind}").read_bytes() for kind in ("xml", "bin"))
        return len(xml).to_bytes(8, "big") + xml + weights_bytes

    name = f"{weights.sha256[:24]}-torch{torch.__version__}-openvino{version('openvino')}.ir"
    content = kept(cache, name, convert)
    if isinstance(content, Path):
        content = content.read_bytes()
    length = int.from_bytes(content[:8], "big")
    return core.read_model(content[8 : 8 + length], content[8 + length :])
