"""The training script of the radiograph network, without the packages its pictures come from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "service/training/radiograph"))

from simulate import SIZE, drawn_chest, drawn_limb, drawn_nothing
from train import HEADS, SEED, VIEWS, Drawer, loss_of, train


def outline() -> np.ndarray:
    """Two upright ovals, as lungs lie."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    lungs = [((rows - 0.5) / 0.3) ** 2 + ((columns - middle) / 0.13) ** 2 < 1 for middle in (0.32, 0.68)]
    return (lungs[0] | lungs[1]).astype(np.float32)


def stock(count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    made = {
        "drawn_chest": [drawn_chest(outline(), rng) for _ in range(count)],
        "limb": [drawn_limb(rng) for _ in range(count)],
        "nothing": [drawn_nothing(rng) for _ in range(count)],
    }
    return {kind: (np.stack(pictures) * 255).astype(np.uint8) for kind, pictures in made.items()}


def test_pictures_are_of_one_size_and_range_and_the_same_for_the_same_seed() -> None:
    first, second = stock(), stock()
    for kind, pictures in first.items():
        assert pictures.shape == (3, SIZE, SIZE)
        assert pictures.max() == 255
        assert np.array_equal(pictures, second[kind])


def test_lungs_are_darker_than_what_lies_between_them() -> None:
    chest = drawn_chest(outline(), np.random.default_rng(2))
    lung = chest[SIZE // 2, int(0.32 * SIZE)]
    assert chest[SIZE // 2, SIZE // 2] > lung + 0.2


def test_only_what_has_an_answer_is_asked() -> None:
    images, answers = Drawer(stock(), 3).batch(64, 64)
    assert images.shape == (64, 1, 64, 64)
    chest = answers["view"] == VIEWS.index("chest_frontal")
    assert chest.any()
    assert not chest.all()
    assert ((answers["rotation"] >= 0) == chest).all()
    assert ((answers["mirrored"] >= 0) == chest).all()
    assert set(answers["rotation"][chest].tolist()) == {0, 1, 2, 3}
    asked = answers["inverted"] >= 0
    assert (asked & ~chest).any()  # limbs
    assert (~asked).any()  # pictures of nothing


def test_the_loss_is_nothing_for_right_answers_and_ignores_what_is_not_asked() -> None:
    answers = {name: torch.tensor([-1, 1 if width == 1 else 2]) for name, width in HEADS.items()}
    answers["view"] = torch.tensor([0, 1])
    right = torch.tensor([[9.0, 0, 0, 5, 5, 5, 5, 5, 5], [0, 9, 0, 0, 0, 9, 0, 9, 9]])
    assert loss_of(right, answers) < 0.01
    wrong = right.clone()
    wrong[1, 7] = -9  # says it is not mirrored
    assert loss_of(wrong, answers) > 5


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_training_twice_gives_the_same_network() -> None:
    torch.set_num_threads(1)
    schedule = ((3, 2, (32,)),)
    one, two = (train(stock(2), SEED, schedule)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
