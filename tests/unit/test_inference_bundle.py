"""What is checked before a bundle may serve."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from outpost.inference import REASONS, Code, InferenceFailed, load_bundle
from outpost.inference.bundle import EngineChoice, full_rung

BUNDLE = Path(__file__).parents[2] / "service/bundles/brain_extraction"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))


def failure(action: Callable[[], object]) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as failed:
        action()
    return failed.value


def test_the_bundle_names_its_model_and_version() -> None:
    bundle = load_bundle(BUNDLE)
    assert (bundle.name, bundle.version) == ("brain_extraction", "1.0.2")


def test_the_weights_of_the_installed_package_are_the_released_ones() -> None:
    assert {file.name for file in load_bundle(BUNDLE).weights.values()} == {"bbox_model.pt", "model.pt"}


def test_other_weights_are_refused(copy: Path) -> None:
    settings = copy / "outpost.yaml"
    settings.write_text(settings.read_text().replace("sha256: 39a7", "sha256: 39a8"))
    assert failure(lambda: load_bundle(copy).weights).code == Code.WEIGHTS_MISMATCH


def test_weights_of_a_package_that_is_not_installed_are_named(copy: Path) -> None:
    settings = copy / "outpost.yaml"
    settings.write_text(settings.read_text().replace("package: deepbet", "package: no-such-package"))
    failed = failure(lambda: load_bundle(copy).weights)
    assert failed.code == Code.BUNDLE_INVALID
    assert "no-such-package" in failed.message


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("min_slices: 60", "min_slice: 60", "input.min_slice"),
        ("min_slices: 60", "min_slice: 60", "did you mean min_slices?"),
        ("    format: torchscript", "    formats: torchscript", "weights.finder.formats"),
        ("precision: float32", "precision: float33", "engines.reference.precision"),
        ("engine: torchscript", "engine: torchscrypt", "engines.reference.engine"),
        ("metric: dice", "metric: max_abs", "golden.metric"),
        ("tolerance: 0.97", "tolerance: 97", "Dice is at most 1"),
        ("name: full", "name: whole", "the first is the released one"),
        ('name: "192"', 'name: "128"', "a name of its own"),
        ("batches: [1]", "batches: [1, 8]", "descending"),
        ("    package: deepbet\n", "", "give either path"),
        ("task: volume_segmentation", "task: volume_segmentaton", "volume_segmentaton"),
        ("prefer_description: (?i)", "prefer_description: (", "input.prefer_description"),
        ("batches: [1]", "batches: [", "outpost.yaml"),
    ],
)
def test_a_wrong_setting_is_named(copy: Path, old: str, new: str, named: str) -> None:
    settings = copy / "outpost.yaml"
    assert old in settings.read_text()
    settings.write_text(settings.read_text().replace(old, new))
    failed = failure(lambda: load_bundle(copy))
    assert failed.code == Code.BUNDLE_INVALID
    assert named in failed.message


@pytest.mark.parametrize("file", ["outpost.yaml", "configs/metadata.json", "configs/inference.json"])
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    failed = failure(lambda: load_bundle(copy))
    assert failed.code == Code.BUNDLE_INVALID
    assert file in failed.message


def test_the_full_rung_is_of_the_reference_engine_unless_one_is_chosen() -> None:
    bundle = load_bundle(BUNDLE)
    assert full_rung(bundle).process == ("torchscript", "float32", "cpu")
    chosen = full_rung(bundle, EngineChoice(engine="openvino", precision="bfloat16"), workers=3)
    assert (chosen.process, chosen.parallel, chosen.size) == (("openvino", "bfloat16", "cpu"), 3, "full")


def test_every_code_has_a_meaning_and_a_remedy() -> None:
    assert set(REASONS) == set(Code)
    assert all(reason.meaning and reason.remedy for reason in REASONS.values())
