"""Turning volumes to RAS and back."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from outpost.inference.orientation import ras_view

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINES = [
    np.vstack([np.hstack([np.eye(3)[:, order] * signs * [0.9, 1.1, 3.0], [[5], [6], [7]]]), [0, 0, 0, 1]])
    for order in permutations(range(3))
    for signs in product((-1, 1), repeat=3)
]


def rotated(degrees: float) -> np.ndarray:
    turn = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    return affine


@pytest.mark.parametrize("affine", [*AFFINES, rotated(30), rotated(-40)])
def test_a_volume_of_any_orientation_is_turned_as_nibabel_turns_it(affine: np.ndarray) -> None:
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, LPS_TO_RAS @ affine, dtype="int64"))
    assert np.array_equal(ras_view(affine).apply(volume), np.asanyarray(expected.dataobj))


@pytest.mark.parametrize("affine", AFFINES)
def test_turning_back_gives_every_voxel_its_place_again(affine: np.ndarray) -> None:
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    view = ras_view(affine)
    assert np.array_equal(view.invert(view.apply(volume)), volume)
