"""Weights as they come -> what an engine reads: a torch module, a TorchScript module, an ONNX model.

Every way keeps the weights bit by bit; what the numbers become in another engine the golden case tells.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.engines import Source

INPUT: Final = "image"
OUTPUT: Final = "output"
# torch leaves these two without types.
_load: Any = torch.jit.load
_trace: Any = torch.jit.trace


def module_of(weights: Source) -> torch.nn.Module:
    """The eager module of a `torch_export` or `state_dict` file.

    Raises:
        InferenceFailed: BUNDLE_INVALID.
    """
    try:
        if weights.format == "torch_export":
            module: torch.nn.Module = torch.export.load(weights.file).module()
        else:
            if weights.define is None:
                raise ValueError("configs/inference.json defines no such network (network_defs)")
            module = weights.define()
            module.load_state_dict(torch.load(weights.file, map_location="cpu", weights_only=True))
            module.eval()
    except Exception as error:  # torch raises what the broken file makes it raise
        raise _broken(weights, error) from error
    _require_float32(weights, module)
    return module


def script_of(weights: Source, example: Sequence[int]) -> torch.jit.ScriptModule:
    """The network as TorchScript, traced where it comes as code.

    Raises:
        InferenceFailed: BUNDLE_INVALID.
    """
    with warnings.catch_warnings():
        # TorchScript is deprecated in torch 2.13 and what networks come in (docs/decisions/0002).
        warnings.simplefilter("ignore", DeprecationWarning)
        if weights.format != "torchscript":
            # Not inference_mode: parameters made in it cannot be exported to ONNX later.
            with torch.no_grad():
                traced: torch.jit.ScriptModule = _trace(
                    module_of(weights), torch.zeros(tuple(example)), check_trace=False
                )
            return traced
        try:
            module: torch.jit.ScriptModule = _load(str(weights.file), map_location="cpu")
        except (RuntimeError, ValueError, OSError) as error:
            raise _broken(weights, error) from error
        _require_float32(weights, module)
        module.eval()
        return module


def onnx_of(weights: Source, example: Sequence[int], cache: Path | None) -> Path | bytes:
    """The network as an ONNX model whose batch and spatial sizes are free; a file where a cache is given."""
    if weights.format == "onnx":
        return weights.file

    def convert() -> bytes:
        free = {0: "batch", **{axis: f"size{axis}" for axis in range(2, len(example))}}
        model = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations, and constants folded in tracing
            torch.onnx.export(
                script_of(weights, example),
                (torch.zeros(tuple(example)),),
                cast(Any, model),  # a stream is taken too
                # The exporter by tracing: the newer one wants the network's Python code, and onnxscript.
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: free, OUTPUT: free},
            )
        return model.getvalue()

    return kept(cache, f"{weights.sha256[:24]}-torch{torch.__version__}.onnx", convert)


def kept(cache: Path | None, name: str, convert: Callable[[], bytes]) -> Path | bytes:
    """A converted model from the cache, converted and put there first if need be.

    A cache that cannot be written costs the time to convert, not the service.
    """
    if cache is None:
        return convert()
    file = cache / name.replace("+", "-")
    if file.is_file():
        return file
    content = convert()
    partial = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=cache, suffix=".partial")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(partial).replace(file)
    except OSError:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        return content
    return file


def _require_float32(weights: Source, module: torch.nn.Module) -> None:
    floats = {str(tensor.dtype) for tensor in module.parameters() if tensor.is_floating_point()}
    if other := floats - {"torch.float32"}:
        raise InferenceFailed(
            Code.BUNDLE_INVALID,
            f"weights.{weights.name} are {', '.join(sorted(other))}, torch.float32 wanted: engines lower "
            "the precision themselves, as the bundle's candidates say",
        )


def _broken(weights: Source, error: Exception) -> InferenceFailed:
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return InferenceFailed(
        Code.BUNDLE_INVALID,
        f"weights.{weights.name}: {weights.file} cannot be loaded as {weights.format} "
        f"({type(error).__name__}: {first_line})",
    )
