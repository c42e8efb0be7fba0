"""Our steps around the networks against deepbet's own, and what they make of bad networks and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from outpost.demo import TEMPLATES
from outpost.inference import Code, InferenceFailed, InputRejected, load_bundle
from outpost.inference.brain import BrainExtraction
from outpost.inference.bundle import full_rung
from outpost.inference.golden import dice
from outpost.inference.predictor import Predictor

BUNDLE = Path(__file__).parents[2] / "service/bundles/brain_extraction"


@pytest.fixture(scope="module")
def ours() -> BrainExtraction:
    bundle = load_bundle(BUNDLE)
    inferer: BrainExtraction = Predictor(bundle, full_rung(bundle)).inferer("full")
    return inferer


def head() -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_filename(TEMPLATES / "ch2.nii.gz")


def uneven_head() -> nibabel.Nifti1Image:
    """The head on an oblong grid, cut close on one side, so that the box meets the volume's border."""
    image = head()
    step = np.diag([1.5, 1.0, 2.0, 1.0])
    step[:3, 3] = [20, 0, 6]
    coarse = image.get_fdata(dtype=np.float32)[20::1, :, 6::2]
    return nibabel.Nifti1Image(coarse[: 3 * (coarse.shape[0] // 3) : 3], image.affine @ step)


# TorchScript is deprecated in torch 2.13 and what deepbet's networks come in; see docs/decisions/0002.
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", [head, uneven_head])
def test_the_mask_equals_the_one_of_deepbets_own_code(
    ours: BrainExtraction, case: Callable[[], nibabel.Nifti1Image]
) -> None:
    from deepbet.bet import BrainExtraction as Peer

    image = case()
    _, peer, _ = Peer(no_gpu=True).run(image)
    mask = ours(image.get_fdata(dtype=np.float32))
    assert mask.any()
    assert dice(mask, np.asanyarray(peer.dataobj) > 0) >= 0.999


def model(
    finder: Callable[[torch.Tensor], torch.Tensor], segmenter: Callable[[torch.Tensor], torch.Tensor]
) -> BrainExtraction:
    return BrainExtraction(finder, segmenter, (16, 16, 16), (32, 32, 32), (0.5, 99.5), 0.1, 0.5, "cpu")


def bright(image: torch.Tensor) -> torch.Tensor:
    """A network whose brain is whatever is brighter than the mean of training."""
    brain = torch.sigmoid(50 * (image - 0.449))
    return torch.cat([1 - brain, brain], dim=1)


def filled_with(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda image: torch.full((1, 2, *image.shape[2:]), value)


def cube() -> np.ndarray:
    volume = np.zeros((40, 48, 44), dtype=np.float32)
    volume[10:30, 12:36, 11:33] = 100
    return volume


def test_only_the_largest_piece_is_kept_and_its_hole_filled() -> None:
    volume = cube()
    volume[18:22, 20:28, 20:24] = 0
    volume[2:4, 2:4, 2:4] = 100
    mask = model(bright, bright)(volume)
    assert dice(mask, cube() > 0) > 0.9
    assert mask[20, 24, 22]
    assert not mask[3, 3, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_does_not_answer_in_numbers_fails(value: float) -> None:
    for broken in (model(filled_with(value), bright), model(bright, filled_with(value))):
        with pytest.raises(InferenceFailed) as failed:
            broken(cube())
        assert failed.value.code == Code.OUTPUT_NOT_FINITE


def test_one_nan_among_millions_of_voxels_fails() -> None:
    def almost(image: torch.Tensor) -> torch.Tensor:
        output = bright(image)
        output[0, 1, 3, 3, 3] = float("nan")
        return output

    with pytest.raises(InferenceFailed) as failed:
        model(bright, almost)(cube())
    assert failed.value.code == Code.OUTPUT_NOT_FINITE


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_network_that_always_says_the_same_fails(value: float) -> None:
    for broken in (model(filled_with(value), bright), model(bright, filled_with(value))):
        with pytest.raises(InferenceFailed) as failed:
            broken(cube())
        assert failed.value.code == Code.OUTPUT_CONSTANT


def test_a_volume_without_the_organ_is_rejected() -> None:
    with pytest.raises(InputRejected) as rejected:
        model(lambda image: 0.4 * bright(image), bright)(cube())
    assert rejected.value.code == Code.REGION_NOT_FOUND


def test_an_almost_empty_volume_is_rejected() -> None:
    volume = np.zeros((40, 48, 44), dtype=np.float32)
    volume[0, 0, 0] = 100
    with pytest.raises(InputRejected) as rejected:
        model(bright, bright)(volume)
    assert rejected.value.code == Code.PIXELS_CONSTANT
