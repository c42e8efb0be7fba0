"""The demo's own tools: the series is the volume, and the Dice figure tells right from wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from outpost.demo import TEMPLATES, dice, series
from outpost.demo.dice import LEAST, dice_in_space
from outpost.inference import InferenceWorker, load_bundle
from outpost.inference.bundle import full_rung
from outpost.inference.header import read_header
from outpost.inference.stack import stack_slices
from outpost.results.grid import Grid
from outpost.results.provenance import Provenance
from outpost.results.seg import write_segmentation

BUNDLE = Path(__file__).parents[2] / "service/bundles/brain_extraction"
HEAD, REFERENCE = TEMPLATES / "ch2.nii.gz", TEMPLATES / "ch2bet.nii.gz"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return series.write_series(HEAD, tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def segmentation(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = tmp_path_factory.mktemp("storage")
    with InferenceWorker(BUNDLE, full_rung(load_bundle(BUNDLE)), 60, storage) as worker:
        yield worker.run(images, tmp_path_factory.mktemp("result")).files[0]


def nifti_of(folder: Path, output: Path) -> nibabel.Nifti1Image:
    """What dcm2niix, which shares no code with us, makes of a series."""
    tool = Path(sys.executable).with_name("dcm2niix")
    subprocess.run([tool, "-f", "series", "-o", output, folder], check=True, capture_output=True)
    (made,) = output.glob("*.nii")
    return nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(made))


def assert_same(made: nibabel.Nifti1Image, original: nibabel.Nifti1Image) -> None:
    original = nibabel.as_closest_canonical(original)
    assert np.allclose(made.affine, original.affine, atol=1e-4)
    assert np.array_equal(np.asanyarray(made.dataobj), np.asanyarray(original.dataobj))


def test_another_reader_finds_the_same_voxels_at_the_same_places(images: list[Path], tmp_path: Path) -> None:
    assert_same(nifti_of(images[0].parent, tmp_path), nibabel.Nifti1Image.from_filename(HEAD))


def test_an_oblique_volume_keeps_its_geometry(tmp_path: Path) -> None:
    turn = np.deg2rad(12)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-0.9, 1.1, 1.5])
    affine[:3, 3] = [12.25, -7.5, 3.125]
    voxels = np.random.default_rng(2).integers(0, 900, (20, 24, 12)).astype(np.uint16)
    original = nibabel.Nifti1Image(voxels, affine)
    original.to_filename(tmp_path / "oblique.nii.gz")
    series.write_series(tmp_path / "oblique.nii.gz", tmp_path / "series")
    (tmp_path / "back").mkdir()
    assert_same(nifti_of(tmp_path / "series", tmp_path / "back"), original)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_study(tmp_path: Path) -> None:
    small = nibabel.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.eye(4))
    small.to_filename(tmp_path / "small.nii.gz")
    one, again, other = (
        [file.read_bytes() for file in series.write_series(tmp_path / "small.nii.gz", tmp_path / name, seed)]
        for name, seed in (("one", "a"), ("again", "a"), ("other", "b"))
    )
    assert one == again
    assert not set(one) & set(other)


@pytest.mark.parametrize("value", [0.5, -1.0, 70000.0])
def test_a_volume_that_would_change_is_refused(tmp_path: Path, value: float) -> None:
    broken = nibabel.Nifti1Image(np.full((3, 4, 5), value, dtype=np.float32), np.eye(4))
    broken.to_filename(tmp_path / "broken.nii.gz")
    with pytest.raises(ValueError, match="whole values from 0 to 65535"):
        series.write_series(tmp_path / "broken.nii.gz", tmp_path / "series")


def test_the_real_model_on_the_real_head_is_good_enough(
    segmentation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dice", str(segmentation)])
    assert dice.main() == 0
    assert float(capsys.readouterr().out.split()[1]) == pytest.approx(0.936, abs=0.002)


def test_the_mask_a_centimetre_beside_fails(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = np.asanyarray(nibabel.Nifti1Image.from_filename(REFERENCE).dataobj) != 0
    # Voxels are 1 mm; slices run from foot to head, rows and columns against the NIfTI axes.
    shifted = np.roll(reference, 10, axis=0).transpose(2, 1, 0)[:, ::-1, ::-1]
    made = Provenance("shifted", "1", "none", "float32", "full", "cpu")
    stack = stack_slices([read_header(image) for image in images])
    headers = [image.dataset for image in stack.images]
    segment = load_bundle(BUNDLE).manifest.segment
    result = write_segmentation(headers, shifted, Grid(stack.affine), segment, made, 1, tmp_path)
    monkeypatch.setattr(sys, "argv", ["dice", str(result)])
    assert dice.main() == 1
    assert 0.8 < float(capsys.readouterr().out.split()[1]) < LEAST


def test_what_is_no_segmentation_fails_with_a_reason(
    images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dice", str(images[0])])
    assert dice.main() == 1
    assert "segimage2itkimage" in capsys.readouterr().err


def test_dice_is_taken_in_space_not_in_array_order() -> None:
    mask = np.zeros((10, 12, 14), dtype=bool)
    mask[2:5, 3:9, 4:12] = True
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 9
    assert dice_in_space(mask[::-1], flipped, mask, np.eye(4)) == 1.0
    assert dice_in_space(mask[::-1], np.eye(4), mask, np.eye(4)) < 1.0


def test_what_lies_outside_the_references_grid_counts_as_wrong() -> None:
    mask = np.ones((4, 4, 4), dtype=bool)
    reference = np.ones((2, 4, 4), dtype=bool)
    assert dice_in_space(mask, np.eye(4), reference, np.eye(4)) == pytest.approx(2 * 32 / (64 + 32))
