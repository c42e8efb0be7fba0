"""`outpost bundle check`: the brain's bundle is sound; a fault that only loading or computing shows is found and named.

A lane (tests/lanes/lanes.py): `make test-slow-bundles`. tests/unit/test_bundle_check.py is its sample.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_faults import BRAIN, faults, replace_in, without

from outpost.inference.check import check_bundle


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BRAIN, tmp_path / "bundle"))


def test_a_released_bundle_is_sound() -> None:
    findings = [finding.as_json() for finding in check_bundle(BRAIN)]
    assert [finding["what"] for finding in findings][-3:] == [
        "golden case at full",
        "golden case at 192",
        "golden case at 128",
    ]
    assert all(finding["ok"] and not finding["remedy"] for finding in findings)


@pytest.mark.parametrize(
    ("change", "what", "told"),
    [
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
