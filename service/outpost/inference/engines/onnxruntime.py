"""onnxruntime, on the CPU or by CUDA. It turns to the CPU by itself when CUDA fails: here that is an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.engines import Network, Source
from outpost.inference.engines.convert import onnx_of

_WARNINGS = 3  # severities below are not logged


class OnnxNetwork:
    """A session as a `Network`."""

    module = None

    def __init__(self, session: Any, device: str) -> None:
        self._session = session
        self._device = torch.device(device)
        self._input = session.get_inputs()[0].name
        self.facts = {
            "provider": session.get_providers()[0],
            "precision": "float32",
            "device": device,
        }

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        output = self._session.run(None, {self._input: image.contiguous().cpu().numpy()})[0]
        return torch.from_numpy(output).to(self._device)


def load(precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None) -> Network:
    """See `outpost.inference.engines.load`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _WARNINGS
    # The arena keeps the most it ever needed: several processes of one system would each hold it.
    options.enable_cpu_mem_arena = False
    provider: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if device.startswith("cuda"):
        number = device.partition(":")[2] or "0"
        provider = ("CUDAExecutionProvider", {"device_id": number, "use_tf32": "0"})
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    model = onnx_of(weights, example, cache)
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=[provider]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf as error:
        raise InferenceFailed(
            Code.BUNDLE_INVALID, f"weights.{weights.name}: {weights.file} is not an ONNX model"
        ) from error
    if session.get_providers()[0] != provider[0]:
        raise InferenceFailed(
            Code.ENGINE_UNAVAILABLE,
            f"onnxruntime computes by {session.get_providers()[0]}, {provider[0]} was asked for",
        )
    kind = session.get_inputs()[0].type
    if kind != "tensor(float)":
        raise InferenceFailed(
            Code.BUNDLE_INVALID, f"weights.{weights.name} take {kind}, tensor(float) wanted"
        )
    return OnnxNetwork(session, device)
