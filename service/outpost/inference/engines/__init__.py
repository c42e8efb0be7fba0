"""Engines: a weights file enters, a network comes out that computes tensors, in the precision that was asked for.

One module an engine. This one loads none of them, so that the parent process can ask which are there: versions
come from the installed packages' metadata.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from outpost.inference.codes import Code, InferenceFailed

if TYPE_CHECKING:
    import torch

_NVIDIA = Path("/dev/nvidiactl")


class Network(Protocol):
    """A loaded network.

    Attributes:
        facts: what really computes, as the engine says after loading: `provider`, `precision`, `device`.
        module: the torch module inside, where there is one whose parts can be looked at.
    """

    @property
    def facts(self) -> dict[str, str]: ...

    @property
    def module(self) -> torch.nn.Module | None: ...

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, channels, ...) float32 on the device -> float32 on the device; any size the network takes."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """What an engine makes a network of.

    Attributes:
        name: of the network in the bundle.
        file: its weights.
        sha256: digest of the file; converted models are kept by it.
        format: `torchscript`, `torch_export`, `onnx` or `state_dict`.
        define: makes the network's torch module, for weights that come without it (`state_dict`).
    """

    name: str
    file: Path
    sha256: str
    format: str
    define: Callable[[], torch.nn.Module] | None = None


@dataclass(frozen=True, slots=True)
class _Engine:
    module: str
    packages: tuple[str, ...]  # of which one must be installed
    precisions: tuple[str, ...]
    formats: tuple[str, ...]  # of weights


_ANY: Final = ("torchscript", "torch_export", "onnx", "state_dict")
_CODE: Final = ("torch_export", "state_dict")
_ENGINES: Final = {
    "torchscript": _Engine(
        "torchscript", ("torch",), ("float32", "bfloat16"), ("torchscript", "torch_export", "state_dict")
    ),
    "torch": _Engine("eager", ("torch",), ("float32", "bfloat16"), _CODE),
    "torch-compile": _Engine("compiled", ("torch",), ("float32", "bfloat16"), _CODE),
    "onnxruntime": _Engine("onnxruntime", ("onnxruntime-gpu", "onnxruntime"), ("float32",), _ANY),
    "openvino": _Engine("openvino", ("openvino",), ("float32", "bfloat16"), _ANY),
    "tensorrt": _Engine("tensorrt", ("tensorrt",), ("float32", "bfloat16", "float16"), _ANY),
}
NAMES: Final = tuple(_ENGINES)


def version(name: str) -> str:
    """Installed version of an engine; empty if it is not installed."""
    for package in _ENGINES[name].packages:
        try:
            return installed_version(package)
        except PackageNotFoundError:
            continue
    return ""


def unavailable(name: str, device: str) -> str | None:
    """Why an engine cannot compute on a device of this host, or None. Looks only at what is installed."""
    if name not in _ENGINES:
        return f"there is no engine {name}, only {', '.join(NAMES)}"
    if not version(name):
        return f"package {' or '.join(_ENGINES[name].packages)} is not installed"
    cuda = device.startswith("cuda")
    if cuda and not _NVIDIA.exists():
        return f"device {device}: this host has no NVIDIA GPU with a loaded driver"
    if cuda and name == "openvino":
        return "OpenVINO does not compute on NVIDIA GPUs"
    if name == "tensorrt" and not cuda:
        return "TensorRT computes on NVIDIA GPUs only"
    if name == "torch-compile" and compiler() is None:
        return "torch.compile needs a C++ compiler (g++ or clang++), and there is none"
    return None


def unsuited(name: str, precision: str, formats: Sequence[str]) -> str | None:
    """Why an engine cannot run weights of these formats in this precision on any host, or None."""
    engine = _ENGINES[name]
    if precision not in engine.precisions:
        return f"{name} is not run in {precision} here, only in {', '.join(engine.precisions)}"
    for other in formats:
        if other not in engine.formats:
            return f"{name} does not run {other} weights, only {', '.join(engine.formats)}"
    return None


def compiler() -> str | None:
    """The C++ compiler torch.compile would call, if there is one."""
    named = os.environ.get("CXX")
    return next((found for one in (named, "g++", "clang++") if one and (found := shutil.which(one))), None)


def load(
    name: str, precision: str, weights: Source, device: str, example: Sequence[int], cache: Path | None = None
) -> Network:
    """Load a network for one thread.

    Args:
        name: of the engine.
        precision: in which it must compute.
        weights: the network.
        device: `cpu` or `cuda:N`.
        example: a whole input (batch, channels, ...) with which the network may be traced.
        cache: folder where converted models are kept, made if absent; None converts anew.

    Raises:
        InferenceFailed: ENGINE_UNAVAILABLE: the engine is not there, or did not take the precision or device
            asked for; BUNDLE_INVALID: the weights cannot be loaded.
    """
    lack = unavailable(name, device) or unsuited(name, precision, [weights.format])
    if lack:
        raise InferenceFailed(Code.ENGINE_UNAVAILABLE, f"{name}/{precision} on {device}: {lack}")
    module = importlib.import_module(f"outpost.inference.engines.{_ENGINES[name].module}")
    network: Network = module.load(precision, weights, device, tuple(example), cache)
    return network
