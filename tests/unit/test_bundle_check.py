"""`outpost bundle check`: a bundle is sound; each fault of its files is found, named and has a remedy.

What is found by loading and computing, half a minute each, is a lane: tests/slow/test_bundles.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_faults import BRAIN, BUNDLES, faults, replace_in, without

from outpost.cli import main


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BRAIN, tmp_path / "bundle"))


def test_a_released_bundle_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    """The one that is checked in seconds; the other by the lane."""
    assert main(["bundle", "check", str(BUNDLES / "radiograph_orientation"), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [finding["what"] for finding in findings][-2:] == ["network shapes", "golden case at full"]
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
