"""What a process that computes finds out about itself: facts that were looked at, each with a code.

Runs in the child, after the bundle is loaded. `observed_golden` computes the golden case and watches it;
`run_asserts` judges that and all the rest. An assertion that cannot be looked at is one that failed.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module, functional

from outpost.codes.failure import told
from outpost.health.codes import CheckCode
from outpost.inference import engines, memory
from outpost.inference.bundle import Bundle, ModuleAssert
from outpost.inference.codes import InferenceFailed
from outpost.inference.engines import Network
from outpost.inference.result import GoldenVerdict
from outpost.inference.rung import Rung
from outpost.inference.state import Assertion

# Beside the one that computes, others only start and wait.
_BUSY_LIMIT: Final = 1.2
# Rounding errors of sums of 64 products, in units of the precision and of the largest result.
_ROUNDING: Final = 16
_SIDE: Final = 64
# The other engines are torch.
_MODULES: Final = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}

Array = NDArray[np.float64]


class Loaded(Protocol):
    """What is looked at: a `Predictor`."""

    @property
    def networks(self) -> Mapping[str, Network]: ...

    def golden(self, rung: Rung) -> GoldenVerdict: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """Output of a module: its shape, whether all of it was finite, and its mean (over all values)."""

    shape: tuple[int, ...]
    finite: bool
    mean: float


@dataclass(slots=True)
class Observation:
    """A golden case while it was computed.

    Attributes:
        busy_threads: processor time of all threads by that of the busiest: 1 is one thread, however busy the
            host is with other things. NaN when the kernel does not tell.
        modules: outputs by (network, module); none of a module that was not called.
    """

    busy_threads: float = math.nan
    modules: dict[tuple[str, str], list[Seen]] = field(default_factory=dict)


def observed_golden(bundle: Bundle, predictor: Loaded, rung: Rung) -> tuple[GoldenVerdict, Observation]:
    """Compute the golden case as `Predictor.golden` does, and watch it. Raises what that raises."""
    observation = Observation()
    # What other engines make of a network has no modules any more.
    eager = bundle.manifest.module_asserts if rung.engine == "torch" else []
    with _watched(eager, predictor.networks, observation):
        before = _seconds_of_threads()
        verdict = predictor.golden(rung)
        used = [seconds - before.get(name, 0.0) for name, seconds in _seconds_of_threads().items()]
    if max(used, default=0.0) > 0:
        observation.busy_threads = sum(used) / max(used)
    return verdict, observation


def run_asserts(
    bundle: Bundle, predictor: Loaded, rung: Rung, observation: Observation | None = None
) -> list[Assertion]:
    """Look at everything this process can know of itself.

    Args:
        bundle: as it was loaded.
        predictor: with the bundle loaded for `rung`.
        rung: as studies will be computed.
        observation: from `observed_golden`; without it the golden case is computed here.
    """
    seen = observation or observed_golden(bundle, predictor, rung)[1]
    networks = predictor.networks
    code = CheckCode
    return [
        _guarded(code.COMPUTE_CAPABILITY, lambda: compute_capability(rung.device)),
        _guarded(code.KERNELS_LAUNCH, lambda: kernels({"float32", rung.precision}, rung.device)),
        _guarded(code.MODULE_OUTPUTS, lambda: module_outputs(bundle.manifest.module_asserts, seen, rung)),
        _guarded(code.DECODERS_WORK, decoders),
        _guarded(code.WEIGHTS_DIGEST, lambda: weights_digest(bundle)),
        _guarded(code.PRECISION_IN_USE, lambda: precision_in_use(networks, rung)),
        _guarded(code.PROVIDER_IN_USE, lambda: provider_in_use(networks, rung)),
        _guarded(code.ENGINE_VERSION, lambda: engine_version(rung.engine)),
        _guarded(code.MEMORY_FITS, lambda: memory_fits(bundle.manifest.resources.memory_mib, *_memory())),
        _guarded(code.THREADS_ONE, lambda: threads_one(seen.busy_threads, torch.get_num_threads())),
    ]


def _guarded(code: CheckCode, look: Callable[[], Assertion]) -> Assertion:
    try:
        return look()
    # Anything may be wrong with what is looked at; that is the answer then.
    except Exception as error:
        return Assertion(code, False, told(error), "could be looked at")


# --- device ---


def compute_capability(
    device: str,
    compiled_for: Sequence[str] | None = None,
    capability: tuple[int, int] | None = None,
) -> Assertion:
    """Whether torch holds machine code, or code it can translate, for the GPU.

    `compiled_for` and `capability` are asked of torch when not given: names such as `sm_86` (machine code, runs
    on the same major version from that minor on) and `compute_90` (PTX, translated for anything newer), as
    the CUDA C++ Programming Guide has it (5.4, binary and PTX compatibility).
    """
    code, wanted = CheckCode.COMPUTE_CAPABILITY, "compiled for this GPU"
    if device == "cpu":
        return Assertion(code, True, "not applicable: the device is the CPU", wanted)
    compiled_for = torch.cuda.get_arch_list() if compiled_for is None else compiled_for
    major, minor = torch.cuda.get_device_capability(device) if capability is None else capability
    for name in compiled_for:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")  # sm_90a and the like: features of that architecture alone
        there = (int(digits[:-1]), int(digits[-1]))
        if (
            kind == "sm"
            and there[0] == major
            and there[1] <= minor
            and (digits == number or there[1] == minor)
        ):
            return Assertion(code, True, f"{major}.{minor}: {name}", wanted)
        if kind == "compute" and there <= (major, minor) and digits == number:
            return Assertion(code, True, f"{major}.{minor}: {name}", wanted)
    return Assertion(
        code, False, f"{major}.{minor}, compiled for {', '.join(compiled_for) or 'none'}", wanted
    )


def kernels(
    precisions: Iterable[str],
    device: str,
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.matmul,
    convolve: Callable[..., torch.Tensor] = functional.conv2d,
) -> Assertion:
    """Launch a product and a convolution in each precision and hold them against numpy in double precision."""
    worst, told = 0.0, []
    for precision in sorted(precisions):
        dtype = getattr(torch, precision)
        for name, operation, reference, one, other in (
            ("product", multiply, np.matmul, (_SIDE, _SIDE), (_SIDE, _SIDE)),
            ("convolution", convolve, _convolution, (1, 4, 12, 12), (8, 4, 3, 3)),
        ):
            first, second = _values(one, dtype, 1), _values(other, dtype, 2)
            found = operation(first.to(device), second.to(device)).double().cpu().numpy()
            right = reference(first.double().numpy(), second.double().numpy())
            error = float(np.abs(found - right).max() / (torch.finfo(dtype).eps * np.abs(right).max()))
            if not error <= _ROUNDING:  # also NaN
                told.append(f"{name} in {precision} is off by {error:g} roundings")
            worst = max(worst, error)
    found_text = "; ".join(told) or f"off by {worst:.1f} roundings at most"
    return Assertion(CheckCode.KERNELS_LAUNCH, not told, found_text, f"<= {_ROUNDING} roundings")


def _values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Numbers from -1 to 1, already rounded to the precision."""
    count = math.prod(shape)
    return torch.from_numpy(np.sin(np.arange(1.0, count + 1) * seed)).reshape(shape).to(dtype)


def _convolution(image: Array, weights: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(image, weights.shape[2:], axis=(2, 3))
    result: Array = np.einsum("nchwij,ocij->nohw", windows, weights)
    return result


# --- the network ---


@contextmanager
def _watched(
    wanted: Sequence[ModuleAssert], networks: Mapping[str, Network], observation: Observation
) -> Iterator[None]:
    """Have each named module report its outputs; one that is not there reports none."""
    with ExitStack() as hooks:
        for one in wanted:
            seen = observation.modules.setdefault((one.network, one.module), [])
            network = networks[one.network].module
            with suppress(AttributeError):
                module = network.get_submodule(one.module) if network is not None else None
                assert module is not None  # an eager engine has one
                hooks.callback(module.register_forward_hook(functools.partial(_note, seen)).remove)
        yield


def _note(seen: list[Seen], _module: Module, _inputs: Any, output: Any) -> None:
    tensor = output[0] if isinstance(output, tuple | list) else output
    values = tensor.detach().float()
    seen.append(Seen(tuple(tensor.shape), bool(torch.isfinite(values).all()), float(values.mean())))


def module_outputs(wanted: Sequence[ModuleAssert], observation: Observation, rung: Rung) -> Assertion:
    """Hold what the watched modules gave against the bundle's `module_asserts`."""
    code, told = CheckCode.MODULE_OUTPUTS, []
    if not wanted:
        return Assertion(code, True, "none named by the bundle", "as module_asserts says")
    if rung.engine != "torch":
        return Assertion(
            code, True, f"not applicable: {rung.engine} has no modules", "as module_asserts says"
        )
    for one in wanted:
        name = f"{one.network}.{one.module}"
        outputs = observation.modules.get((one.network, one.module))
        if not outputs:
            told.append(f"{name} is not there, or was not called")
            continue
        for seen in outputs:
            if one.finite and not seen.finite:
                told.append(f"{name} is not finite")
            # A smaller size of the ladder has other shapes; the bundle states those of the full one.
            elif one.shape is not None and rung.size == "full" and list(seen.shape) != one.shape:
                told.append(f"{name} has shape {list(seen.shape)}, not {one.shape}")
            elif one.mean is not None and not abs(seen.mean - one.mean) <= one.tolerance:
                told.append(f"{name} has mean {seen.mean:g}, not {one.mean:g} +- {one.tolerance:g}")
    return Assertion(code, not told, "; ".join(told) or f"{len(wanted)} modules", "as module_asserts says")


def weights_digest(bundle: Bundle) -> Assertion:
    """Read the weights again and hold them against their digests."""
    wanted = "sha256 as released"
    try:
        files = [bundle.find_weights(name) for name in bundle.manifest.weights]
    except InferenceFailed as failure:
        return Assertion(CheckCode.WEIGHTS_DIGEST, False, failure.message, wanted)
    return Assertion(CheckCode.WEIGHTS_DIGEST, True, f"{len(files)} files", wanted)


# --- the engine ---


def precision_in_use(networks: Mapping[str, Network], rung: Rung) -> Assertion:
    """What the engine says it computes in, and what the parameters are kept in, not what was asked for."""
    found = {network.facts.get("precision", "not told") for network in networks.values()}
    kept = {
        str(tensor.dtype).removeprefix("torch.")
        for network in networks.values()
        if network.module is not None
        for tensor in network.module.parameters()
        if tensor.is_floating_point()
    }
    # Autocast keeps parameters in float32 and rounds them as it computes; none may be kept in less.
    right = {one.partition(" ")[0] for one in found} == {rung.precision} and kept <= {"float32"}
    told = ", ".join(sorted(found)) + (f"; parameters in {', '.join(sorted(kept))}" if kept else "")
    return Assertion(CheckCode.PRECISION_IN_USE, right, told, f"{rung.precision}; parameters in float32")


def provider_in_use(networks: Mapping[str, Network], rung: Rung) -> Assertion:
    """Whether the library part and the device that really compute are the rung's."""
    kind = rung.device.partition(":")[0]
    # onnxruntime goes on with the CPU when the GPU's provider cannot be loaded; the others refuse.
    wanted = {"onnxruntime": "CUDAExecutionProvider" if kind == "cuda" else "CPUExecutionProvider"}
    provider = wanted.get(rung.engine, "")
    found = {(net.facts.get("provider", ""), net.facts.get("device", "")) for net in networks.values()}
    right = all(device == rung.device and provider in ("", name) for name, device in found)
    told = ", ".join(sorted(f"{name} on {device}" for name, device in found))
    return Assertion(
        CheckCode.PROVIDER_IN_USE, right and bool(found), told, f"{provider or rung.engine} on {rung.device}"
    )


def engine_version(engine: str) -> Assertion:
    """Whether the engine in memory is the one that is installed, by which it was measured and chosen."""
    code = CheckCode.ENGINE_VERSION
    module = sys.modules.get(_MODULES.get(engine, "torch"))
    if module is None:
        return Assertion(code, False, f"{engine} is not loaded", "loaded")
    installed, loaded = engines.version(engine), str(module.__version__)
    return Assertion(code, _release(loaded) == _release(installed), loaded, f"{installed}, as installed")


def _release(text: str) -> list[str]:
    """The release in a version: what was built from a repository adds where from, as in 2.13.0+cpu."""
    return text.partition("+")[0].partition("-")[0].split(".")[:3]


# --- the process ---


def decoders() -> Assertion:
    """Decode a known image in every transfer syntax that is accepted, by the decoder that is used for it."""
    from outpost.inference.decode import decoders_selfcheck

    found = decoders_selfcheck()
    wrong = [f"{syntax}: {told}" for syntax, ok, told in found if not ok]
    told = "; ".join(wrong) or f"{len(found)} transfer syntaxes"
    return Assertion(CheckCode.DECODERS_WORK, bool(found) and not wrong, told, "each image comes out right")


def memory_fits(need_mib: int, peak_mib: int, limit_mib: int | None, available_mib: int | None) -> Assertion:
    """Whether a worker's memory is there.

    Args:
        need_mib: what the bundle declares for its largest input.
        peak_mib: the most this process has held, after a golden case.
        limit_mib: of the control group or the host.
        available_mib: what the host could give, with what this process holds already.
    """
    told = [f"peak {peak_mib} MiB" if peak_mib > need_mib else ""]
    told += [
        f"{name} {found} MiB" if found is not None and found < need_mib else ""
        for name, found in (("limit", limit_mib), ("available", available_mib))
    ]
    problems = [one for one in told if one]
    found = (
        ", ".join(problems) or f"peak {peak_mib} MiB, limit {limit_mib} MiB, available {available_mib} MiB"
    )
    wanted = f"peak <= {need_mib} MiB, limit and available >= {need_mib} MiB"
    return Assertion(CheckCode.MEMORY_FITS, not problems, found, wanted)


def _memory() -> tuple[int, int | None, int | None]:
    """(peak, limit, available) of this process as it is now, in MiB."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    )
    peak, now = (int(fields[name].split()[0]) // 1024 for name in ("VmHWM", "VmRSS"))
    available = memory.available_mib()
    return peak, memory.limit_mib(), available + now if available is not None else None


def threads_one(busy_threads: float, torch_threads: int) -> Assertion:
    """Whether one thread computed the golden case, whichever library started it."""
    one = not busy_threads > _BUSY_LIMIT and torch_threads == 1  # NaN: torch's own word must do
    found = f"{busy_threads:.2f} busy, torch has {torch_threads}"
    return Assertion(CheckCode.THREADS_ONE, one, found, f"<= {_BUSY_LIMIT:g} busy, torch has 1")


def _seconds_of_threads() -> dict[str, float]:
    """Processor seconds of each thread of this process so far; empty where the kernel does not count them."""
    seconds = {}
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            seconds[thread.name] = int((thread / "schedstat").read_text("ascii").split()[0]) / 1e9
    return seconds
