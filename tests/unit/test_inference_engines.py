"""One small network through every engine and from every format of weights: the same numbers, said honestly."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import openvino
import pytest
import torch

from outpost.inference import Code, InferenceFailed, engines
from outpost.inference.engines import convert

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
EXAMPLE = (1, 1, 16, 16)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.InstanceNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 2, 3, padding=1),
        torch.nn.Softmax(dim=1),
    ).eval()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, engines.Source]:
    folder = tmp_path_factory.mktemp("weights")
    example = torch.zeros(EXAMPLE)
    torch.save(network().state_dict(), folder / "state_dict")
    torch.jit.trace(network(), example).save(str(folder / "torchscript"))  # type: ignore[no-untyped-call]
    # With sizes left free, as a bundle with several has to.
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    torch.export.save(
        torch.export.export(network(), (torch.zeros(2, 1, 16, 16),), dynamic_shapes=(free,)),
        folder / "torch_export.pt2",
    )
    (folder / "torch_export.pt2").rename(folder / "torch_export")

    def source(kind: str) -> engines.Source:
        file = folder / kind
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return engines.Source("net", file, digest, kind, network if kind == "state_dict" else None)

    made = convert.onnx_of(source("torchscript"), EXAMPLE, None)
    assert isinstance(made, bytes)
    (folder / "onnx").write_bytes(made)
    return {kind: source(kind) for kind in ("state_dict", "torchscript", "torch_export", "onnx")}


def difference(made: engines.Network, shape: tuple[int, ...]) -> float:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network()(image)
    found = made(image)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return float((found - expected).abs().max())


@pytest.mark.parametrize("kind", ["state_dict", "torchscript", "torch_export", "onnx"])
@pytest.mark.parametrize("engine", ["torch", "torchscript", "onnxruntime", "openvino"])
def test_every_engine_gives_the_networks_own_numbers_from_every_format_at_every_size(
    sources: dict[str, engines.Source], engine: str, kind: str
) -> None:
    if lack := engines.unsuited(engine, "float32", [kind]):
        assert kind in lack
        with pytest.raises(InferenceFailed) as failed:
            engines.load(engine, "float32", sources[kind], "cpu", EXAMPLE)
        assert failed.value.code == Code.ENGINE_UNAVAILABLE
        return
    made = engines.load(engine, "float32", sources[kind], "cpu", EXAMPLE)
    for shape in ((1, 1, 16, 16), (3, 1, 16, 16), (2, 1, 24, 40), (1, 1, 16, 16)):
        assert difference(made, shape) < 1e-5
    assert made.facts["precision"] == "float32"
    assert (made.module is not None) == (engine in ("torch", "torchscript"))


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize("engine", ["openvino", "torchscript"])
def test_bfloat16_is_computed_only_where_it_is_asked_for(
    sources: dict[str, engines.Source], engine: str
) -> None:
    lower = engines.load(engine, "bfloat16", sources["torchscript"], "cpu", EXAMPLE)
    assert 1e-5 < difference(lower, (1, 1, 32, 32)) < 5e-2
    assert lower.facts["precision"].startswith("bfloat16")


def test_openvino_that_computes_in_other_numbers_than_it_was_told_is_refused(
    sources: dict[str, engines.Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpost.inference.engines import openvino as engine

    made = engines.load("openvino", "float32", sources["onnx"], "cpu", EXAMPLE)
    told = openvino.Type.f16 if not HAS_BFLOAT16 else openvino.Type.bf16
    # What is wanted and what is told differ as they do where a CPU lacks the type.
    monkeypatch.setattr(engine, "_HINTS", _Told({"float32": openvino.Type.f32}, told))
    with pytest.raises(InferenceFailed) as failed:
        made(torch.zeros(EXAMPLE))
    assert failed.value.code == Code.ENGINE_UNAVAILABLE


class _Told(dict[str, openvino.Type]):
    """Gives another value when it is first asked."""

    def __init__(self, values: dict[str, openvino.Type], first: openvino.Type) -> None:
        super().__init__(values)
        self._first: openvino.Type | None = first

    def __getitem__(self, key: str) -> openvino.Type:
        first, self._first = self._first, None
        return first if first is not None else super().__getitem__(key)


def test_an_earlier_answer_is_not_overwritten_by_the_next(sources: dict[str, engines.Source]) -> None:
    for engine in ("openvino", "onnxruntime"):
        made = engines.load(engine, "float32", sources["onnx"], "cpu", EXAMPLE)
        first = made(torch.ones(EXAMPLE))
        before = first.clone()
        made(torch.rand(EXAMPLE))
        assert torch.equal(first, before)


def test_a_converted_model_is_kept_by_its_digest_and_used_again(
    sources: dict[str, engines.Source], tmp_path: Path
) -> None:
    for engine in ("openvino", "onnxruntime"):
        engines.load(engine, "float32", sources["torchscript"], "cpu", EXAMPLE, tmp_path / "cache")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    assert sorted(file.suffix for file in kept) == [".ir", ".onnx"]
    assert all(file.name.startswith(sources["torchscript"].sha256[:24]) for file in kept)
    for engine in ("openvino", "onnxruntime"):
        made = engines.load(engine, "float32", sources["torchscript"], "cpu", EXAMPLE, tmp_path / "cache")
        assert difference(made, (1, 1, 16, 16)) < 1e-5
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()} == kept


def test_a_cache_that_cannot_be_written_costs_only_time(
    sources: dict[str, engines.Source], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    made = engines.load(
        "onnxruntime", "float32", sources["torchscript"], "cpu", EXAMPLE, tmp_path / "file" / "cache"
    )
    assert difference(made, (1, 1, 16, 16)) < 1e-5


@pytest.mark.parametrize("kind", ["state_dict", "torchscript", "torch_export", "onnx"])
def test_broken_weights_are_named(sources: dict[str, engines.Source], tmp_path: Path, kind: str) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"no weights at all")
    source = engines.Source("net", broken, "0" * 64, kind, network)
    for engine in ("torchscript", "onnxruntime", "openvino"):
        if engines.unsuited(engine, "float32", [kind]):
            continue
        with pytest.raises(InferenceFailed) as failed:
            engines.load(engine, "float32", source, "cpu", EXAMPLE)
        assert failed.value.code == Code.BUNDLE_INVALID
        assert "weights.net" in failed.value.message


def test_weights_of_fewer_bits_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    torch.jit.trace(network().bfloat16(), torch.zeros(EXAMPLE).bfloat16()).save(str(file))  # type: ignore[no-untyped-call]
    with pytest.raises(InferenceFailed) as failed:
        engines.load(
            "torchscript", "float32", engines.Source("net", file, "0" * 64, "torchscript"), "cpu", EXAMPLE
        )
    assert "bfloat16" in failed.value.message


@pytest.mark.parametrize(
    ("engine", "device", "word"),
    [
        ("tensorrt", "cpu", "tensorrt is not installed"),
        ("onnxruntime", "cuda:0", "no NVIDIA GPU"),
        ("torch", "cuda:0", "no NVIDIA GPU"),
        ("caffe", "cpu", "there is no engine caffe"),
    ],
)
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has a GPU")
def test_an_engine_that_is_not_there_says_why(engine: str, device: str, word: str) -> None:
    assert word in (engines.unavailable(engine, device) or "")


def test_without_a_compiler_torch_compile_is_not_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in (engines.unavailable("torch-compile", "cpu") or "")


def test_versions_are_those_of_the_installed_packages() -> None:
    assert engines.version("openvino") == version("openvino")
    assert engines.version("torch-compile") == version("torch")
    assert engines.version("tensorrt") == ""


def test_asking_which_engines_are_there_loads_none_of_them() -> None:
    import subprocess

    code = (
        "import sys; from outpost.inference import choice, engines;"
        "[engines.unavailable(n, 'cpu') for n in engines.NAMES];"
        "print([m for m in ('torch', 'openvino', 'onnxruntime', 'monai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
