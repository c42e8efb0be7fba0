"""`outpost bundle check`: the released bundles are sound; each kind of fault is found, named and has a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from outpost.cli import main
from outpost.inference.check import Finding, check_bundle

BUNDLES = Path(__file__).parents[2] / "service/bundles"
BRAIN = BUNDLES / "brain_extraction"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BRAIN, tmp_path / "bundle"))


def replace_in(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        text = (bundle / file).read_text()
        assert old in text
        (bundle / file).write_text(text.replace(old, new, 1))

    return change


def without(file: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / file).unlink()


def faults(bundle: Path) -> list[Finding]:
    return [finding for finding in check_bundle(bundle) if not finding.ok]


def test_a_released_bundle_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "check", str(BRAIN), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [finding["what"] for finding in findings][-3:] == [
        "golden case at full",
        "golden case at 192",
        "golden case at 128",
    ]
    assert all(finding["ok"] and not finding["remedy"] for finding in findings)


@pytest.mark.parametrize(
    ("change", "what", "told"),
    [
        (without("outpost.yaml"), "outpost.yaml", "not there"),
        (without("configs/metadata.json"), "configs/metadata.json", "not there"),
        (without("configs/inference.json"), "configs/inference.json", "not there"),
        (replace_in("configs/metadata.json", "{", "{,"), "configs/metadata.json", "not JSON"),
        (replace_in("configs/metadata.json", '"version"', '"versions"'), "configs/metadata.json", "version"),
        (
            replace_in("configs/metadata.json", '"spatial_shape"', '"shape"'),
            "configs/metadata.json",
            "inputs.image lacks spatial_shape",
        ),
        (
            replace_in("configs/inference.json", '"inferer"', '"inferrer"'),
            "configs/inference.json",
            "lacks inferer",
        ),
        (replace_in("outpost.yaml", "min_slices", "min_slice"), "outpost.yaml", "did you mean min_slices?"),
        (replace_in("filter.yaml", "tag: Modality", "tag: Modalty"), "filter.yaml", "did you mean Modality?"),
        (replace_in("outpost.yaml", "sha256: 39a7", "sha256: 39a8"), "weights finder", "sha256"),
        (
            replace_in("outpost.yaml", "package: deepbet", "package: shallowbet"),
            "weights finder",
            "shallowbet",
        ),
        (
            replace_in("outpost.yaml", "1.2.840.10008.5.1.4.1.1.4]", "1.2.840.10008.1.1]"),
            "selection rules",
            "Verification",
        ),
        (replace_in("outpost.yaml", "memory_mib: 1600", "memory_mib: 5"), "resources", "weights alone"),
        (
            replace_in(
                "outpost.yaml", "engine: onnxruntime, precision: float32", "engine: torch, precision: float32"
            ),
            "engines",
            "torchscript weights",
        ),
        (replace_in("outpost.yaml", "format: torchscript", "format: onnx"), "engines", "onnx"),
        (
            replace_in("configs/inference.json", "BrainExtraction", "BrainExtracton"),
            "networks load",
            "BrainExtracton",
        ),
        (
            replace_in("configs/inference.json", "@networks#segmenter", "@networks#segmentor"),
            "networks load",
            "segmentor",
        ),
        (
            replace_in("configs/metadata.json", '"num_channels": 2', '"num_channels": 3'),
            "network shapes",
            "(3, 256",
        ),
        (without("golden/head_phantom.npz"), "golden case at full", "head_phantom.npz"),
        (
            replace_in("outpost.yaml", "tolerance: 0.97", "tolerance: 0.999"),
            "golden case at 192",
            "0.999 wanted",
        ),
    ],
)
def test_a_fault_is_named_and_has_a_remedy(
    copy: Path, change: Callable[[Path], None], what: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copy)
    first = faults(copy)[0]
    assert first.what == what
    assert told in first.told
    assert first.remedy
    assert str(first).startswith("FAIL")
