"""TensorRT on an NVIDIA GPU. A plan is tied to GPU, driver and TensorRT, so it is built on the host itself.

Never run by us: no GPU was at hand when it was written. `outpost optimise` runs the golden case on it like on any
other engine before a study does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.engines import Network, Source
from outpost.inference.engines.convert import INPUT, kept, onnx_of


class TensorRtNetwork:
    """Plans as a `Network`, one for each input size, built at its first call (seconds to minutes)."""

    module = None

    def __init__(
        self, model: bytes, sha256: str, precision: str, device: torch.device, cache: Path | None
    ) -> None:
        import tensorrt

        self._trt = tensorrt
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._runtime = tensorrt.Runtime(self._logger)
        self._model = model
        self._sha256 = sha256
        self._precision = precision
        self._device = device
        self._cache = cache
        self._plans: dict[tuple[int, ...], Any] = {}
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        self.facts = {
            "provider": f"{torch.cuda.get_device_name(device)}, compute capability {capability}",
            "precision": precision,
            "device": str(device),
        }

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        image = image.to(self._device).contiguous()
        shape = tuple(image.shape)
        if shape not in self._plans:
            self._plans[shape] = self._load_plan(shape)
        plan = self._plans[shape]
        context = plan.create_execution_context()
        names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
        is_input = self._trt.TensorIOMode.INPUT
        inputs = [name for name in names if plan.get_tensor_mode(name) == is_input]
        outputs = [name for name in names if plan.get_tensor_mode(name) != is_input]
        context.set_input_shape(inputs[0], shape)
        output = torch.empty(tuple(context.get_tensor_shape(outputs[0])), device=self._device)
        context.set_tensor_address(inputs[0], image.data_ptr())
        context.set_tensor_address(outputs[0], output.data_ptr())
        stream = torch.cuda.current_stream(self._device)
        if not context.execute_async_v3(stream.cuda_stream):
            raise InferenceFailed(Code.INFERENCE_ERROR, "TensorRT did not execute its plan")
        stream.synchronize()
        return output

    def _load_plan(self, shape: tuple[int, ...]) -> Any:
        # All that a plan is tied to; one for another host is never found under this name.
        tied = (
            self._sha256,
            self._trt.__version__,
            torch.version.cuda,
            self.facts["provider"],
            self._precision,
            shape,
        )
        name = f"{hashlib.sha256(repr(tied).encode()).hexdigest()[:32]}.plan"
        content = kept(self._cache, name, lambda: self._build(shape))
        plan = self._runtime.deserialize_cuda_engine(
            content if isinstance(content, bytes) else content.read_bytes()
        )
        if plan is None:
            raise InferenceFailed(Code.ENGINE_UNAVAILABLE, "TensorRT does not read the plan it has built")
        return plan

    def _build(self, shape: tuple[int, ...]) -> bytes:
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(self._model):
            problem = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise InferenceFailed(Code.ENGINE_UNAVAILABLE, f"TensorRT does not read the network: {problem}")
        settings = builder.create_builder_config()
        settings.clear_flag(trt.BuilderFlag.TF32)
        if self._precision == "bfloat16":
            settings.set_flag(trt.BuilderFlag.BF16)
        elif self._precision == "float16":
            settings.set_flag(trt.BuilderFlag.FP16)
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name or INPUT, shape, shape, shape)
        settings.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, settings)
        if plan is None:
            raise InferenceFailed(
                Code.ENGINE_UNAVAILABLE, f"TensorRT finds no plan for this GPU in {self._precision}"
            )
        return bytes(plan)


def load(precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None) -> Network:
    """See `outpost.inference.engines.load`."""
    model = onnx_of(weights, example, cache)
    content = model if isinstance(model, bytes) else model.read_bytes()
    return TensorRtNetwork(content, weights.sha256, precision, torch.device(device), cache)
