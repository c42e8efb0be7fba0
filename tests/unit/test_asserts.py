"""A worker's asserts, each with the fault it is there for."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from outpost.health.codes import CheckCode
from outpost.inference import asserts
from outpost.inference.bundle import ModuleAssert
from outpost.inference.result import GoldenVerdict
from outpost.inference.rung import Rung
from outpost.inference.state import Assertion

CPU = Rung("full", 1, 1, "full", "torch", "float32", "cpu")
GPU = replace(CPU, device="cuda:0")


class Network:
    """An engine's network with facts of our choice around a real torch module."""

    def __init__(self, module: torch.nn.Module | None = None, **facts: str) -> None:
        self.module = module
        self.facts = {"provider": "torch", "precision": "float32", "device": "cpu"} | facts

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        assert self.module is not None
        result: torch.Tensor = self.module(image)
        return result


# --- the device ---


@pytest.mark.parametrize(
    ("compiled_for", "capability", "ok"),
    [
        (["sm_80", "sm_90"], (8, 0), True),
        (["sm_80"], (8, 6), True),  # the same major version from that minor on
        (["sm_86"], (8, 0), False),
        (["sm_75", "sm_80"], (9, 0), False),
        (["sm_75", "compute_80"], (9, 0), True),  # translated as it is loaded
        (["compute_90"], (8, 6), False),
        (["sm_90a"], (9, 0), True),
        (["sm_100"], (10, 0), True),
        (["sm_120"], (12, 1), True),
        ([], (7, 5), False),
    ],
)
def test_a_gpu_that_torch_was_not_compiled_for_is_found_out(
    compiled_for: list[str], capability: tuple[int, int], ok: bool
) -> None:
    found = asserts.compute_capability("cuda:0", compiled_for, capability)
    assert (found.code, found.ok) == (CheckCode.COMPUTE_CAPABILITY, ok)


def test_on_a_cpu_compute_capability_is_said_not_to_apply() -> None:
    found = asserts.compute_capability("cpu")
    assert found.ok
    assert "not applicable" in str(found.value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_this_cpu_multiplies_and_convolves_right_in_every_precision(precision: str) -> None:
    assert asserts.kernels({precision}, "cpu").ok


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda one, other: one @ other + 1e-3, "product in float32"),
        (lambda one, other: torch.full_like(one, float("nan")), "product in float32"),
        # What a tensor core makes of float32 when it is let (TF32), and what a CPU's bfloat16 units would.
        (lambda one, other: (one.bfloat16() @ other.bfloat16()).float(), "product in float32"),
    ],
)
def test_a_device_that_computes_wrong_is_found_out(
    fault: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], told: str
) -> None:
    found = asserts.kernels({"float32"}, "cpu", multiply=fault)
    assert not found.ok
    assert told in str(found.value)


def test_a_convolution_that_is_wrong_is_found_out_apart_from_the_product() -> None:
    found = asserts.kernels({"float32"}, "cpu", convolve=lambda *_: torch.zeros(1, 8, 10, 10))
    assert (found.ok, str(found.value).split()[0]) == (False, "convolution")


# --- the network ---


class Poisoned(torch.nn.Module):
    """Gives NaN where its input was negative, as a broken memory cell or a wrong kernel may."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.sqrt()


def observed(module: torch.nn.Module, wanted: list[ModuleAssert], rung: Rung = CPU) -> Assertion:
    """The module computed and watched as a predictor's golden case is."""
    predictor: Any = Predictor({"net": Network(module)})
    bundle: Any = Bundle(wanted)
    _, seen = asserts.observed_golden(bundle, predictor, rung)
    return asserts.module_outputs(wanted, seen, rung)


class Predictor:
    def __init__(self, networks: dict[str, Network]) -> None:
        self.networks = networks

    def golden(self, rung: Rung) -> GoldenVerdict:
        self.networks["net"](torch.full((1, 1, 4, 4), -1.0))
        return GoldenVerdict(True, 1.0, 1.0, 0.1, "dice")


class Bundle:
    """A bundle as far as asserts look at one; `weights` are not here."""

    def __init__(self, module_asserts: list[ModuleAssert]) -> None:
        self.manifest = self
        self.module_asserts = module_asserts


def test_a_module_that_gives_what_the_bundle_says_passes_through_the_hook() -> None:
    module = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten())
    wanted = [
        ModuleAssert(network="net", module="0", shape=[1, 1, 4, 4], mean=0.0, tolerance=1e-6),
        ModuleAssert(network="net", module="1", shape=[1, 16]),
    ]
    found = observed(module, wanted)
    assert (found.ok, found.value) == (True, "2 modules")
    assert not module[0]._forward_hooks


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"module": "0"}, "net.0 is not finite"),
        ({"module": "1", "shape": [1, 1, 4, 4]}, "net.1 has shape [1, 16], not [1, 1, 4, 4]"),
        ({"module": "1", "mean": 0.5}, "net.1 has mean nan, not 0.5"),
        ({"module": "7"}, "net.7 is not there, or was not called"),
    ],
)
def test_a_module_that_gives_something_else_is_named(wanted: dict[str, Any], told: str) -> None:
    module = torch.nn.Sequential(Poisoned(), torch.nn.Flatten())
    others = {"network": "net", "finite": not {"shape", "mean"} & set(wanted)}
    found = observed(module, [ModuleAssert.model_validate(others | wanted)])
    assert not found.ok
    assert told in str(found.value)


def test_of_an_engine_without_modules_it_is_said_that_none_was_looked_at() -> None:
    wanted = [ModuleAssert(network="net", module="0")]
    found = observed(torch.nn.Sequential(torch.nn.ReLU()), wanted, replace(CPU, engine="onnxruntime"))
    assert found.ok
    assert "not applicable" in str(found.value)


# --- the engine ---


def test_an_engine_in_another_precision_than_the_rung_is_found_out() -> None:
    assert asserts.precision_in_use({"net": Network()}, CPU).ok
    lower = Network(precision="bfloat16 (autocast)")
    assert not asserts.precision_in_use({"net": lower}, CPU).ok
    assert asserts.precision_in_use({"net": lower}, replace(CPU, precision="bfloat16")).ok
    assert not asserts.precision_in_use({"net": Network(), "other": lower}, CPU).ok


def test_parameters_that_were_rounded_are_found_out_whatever_the_engine_says() -> None:
    rounded = Network(torch.nn.Linear(2, 2).bfloat16())
    found = asserts.precision_in_use({"net": rounded}, CPU)
    assert (found.ok, "parameters in bfloat16" in str(found.value)) == (False, True)


def test_onnxruntime_that_fell_back_to_the_cpu_is_found_out() -> None:
    rung = replace(GPU, engine="onnxruntime")
    gpu = Network(provider="CUDAExecutionProvider", device="cuda:0")
    assert asserts.provider_in_use({"net": gpu}, rung).ok
    fallen = Network(provider="CPUExecutionProvider", device="cuda:0")
    assert not asserts.provider_in_use({"net": gpu, "other": fallen}, rung).ok
    assert not asserts.provider_in_use({"net": Network(device="cpu")}, GPU).ok
    assert not asserts.provider_in_use({}, CPU).ok


def test_an_engine_in_memory_of_another_version_than_on_disk_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asserts.engine_version("torch").ok
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    found = asserts.engine_version("torchscript")
    assert (found.ok, found.value) == (False, "2.12.1+cpu")
    assert not asserts.engine_version("tensorrt").ok  # not loaded here


# --- the process ---


@pytest.mark.parametrize(
    ("peak", "limit", "available", "told"),
    [
        (900, 4000, 3000, None),
        (900, None, None, None),
        (1100, 4000, 3000, "peak 1100 MiB"),
        (900, 800, 3000, "limit 800 MiB"),
        (900, 4000, 700, "available 700 MiB"),
    ],
)
def test_memory_that_the_largest_input_does_not_fit_in_is_found_out(
    peak: int, limit: int | None, available: int | None, told: str | None
) -> None:
    found = asserts.memory_fits(1000, peak, limit, available)
    assert found.ok == (told is None)
    assert told is None or found.value == told


class Busy:
    """Computes the golden case with three threads; hashing lets go of Python's lock, as engines do."""

    networks: ClassVar[dict[str, Network]] = {}

    def __init__(self) -> None:
        self.measured = threading.Event()

    def golden(self, rung: Rung) -> GoldenVerdict:
        done = threading.Barrier(3)

        def compute() -> None:
            hashlib.sha256(bytes(64 << 20))
            done.wait()
            self.measured.wait()  # a thread that has ended is not counted any more

        for _ in range(2):
            threading.Thread(target=compute).start()
        hashlib.sha256(bytes(64 << 20))
        done.wait()
        return GoldenVerdict(True, 1.0, 1.0, 0.1, "dice")


def test_a_second_thread_that_computes_is_found_out() -> None:
    bundle: Any = Bundle([])
    busy = Busy()
    _, several = asserts.observed_golden(bundle, busy, CPU)
    busy.measured.set()
    assert not asserts.threads_one(several.busy_threads, 1).ok
    alone: Any = Predictor({"net": Network(torch.nn.Flatten())})
    _, one = asserts.observed_golden(bundle, alone, CPU)
    assert asserts.threads_one(one.busy_threads, 1).ok
    assert not asserts.threads_one(one.busy_threads, 2).ok


def test_what_cannot_be_looked_at_has_failed() -> None:
    def broken() -> Assertion:
        raise OSError(errno.ENODEV, "of a patient")

    found = asserts._guarded(CheckCode.DECODERS_WORK, broken)
    assert (found.ok, found.value) == (False, "OSError ENODEV")
