"""The training script of the anatomy classifier, without the packages its pictures come from."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[2] / "service/training/anatomy"))
sys.path.append(str(Path(__file__).parents[2] / "service/training/radiograph"))

from pictures import SIZE, recoloured, screen, shuttered_limb
from train_anatomy import Drawer, standardised, train

from outpost.filter import anatomy

TRAINING = Path(__file__).parents[2] / "service/training/anatomy"


def stock(count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    drawn = {"shuttered_limb": shuttered_limb, "screen": screen}
    return {
        kind: (np.stack([draw(rng) for _ in range(count)]) * 255).astype(np.uint8)
        for kind, draw in drawn.items()
    }


def test_pictures_are_of_one_size_and_range_and_the_same_for_the_same_seed() -> None:
    first, second = stock(), stock()
    for kind, pictures in first.items():
        assert pictures.shape == (3, SIZE, SIZE)
        assert np.array_equal(pictures, second[kind])


def test_recoloured_tissues_keep_the_air_dark() -> None:
    rng = np.random.default_rng(4)
    disc = np.zeros((SIZE, SIZE), dtype=np.float32)
    disc[60:200, 60:200] = np.linspace(0.2, 1, 140)
    for _ in range(5):
        assert recoloured(disc, rng)[:40, :40].max() < 0.05


def test_slices_and_screens_are_not_asked_whether_they_are_reversed() -> None:
    images, classes, inverted = Drawer(stock(), 3).batch(48)
    assert images.shape == (48, 1, anatomy.SIDE, anatomy.SIDE)
    limbs = classes == anatomy.CLASSES.index("limb")
    assert limbs.any()
    assert not limbs.all()
    assert (inverted[limbs] >= 0).all()
    assert (inverted[~limbs] < 0).all()


def test_the_service_computes_what_was_trained() -> None:
    network, losses = train(stock(), 5, steps=3)
    assert len(losses) == 3
    file = io.BytesIO()
    np.savez(
        file,
        **{f"0/{name}": value for name, value in network.folded().items()},
        **{"0/temperature": np.ones(2)},
    )
    (folded,) = anatomy.read_networks(file.getvalue())
    images = Drawer(stock(), 6).batch(4)[0]
    with torch.inference_mode():
        logits = network(images)
        found = anatomy._answers(folded, images)
    wanted = torch.cat((logits[:, :-1].softmax(1), logits[:, -1:].sigmoid()), 1)
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=0)  # float16 weights


def test_grey_values_are_stretched_alike_in_training_and_service() -> None:
    picture = np.random.default_rng(7).gamma(2, 50, (anatomy.SIDE, anatomy.SIDE)).astype(np.float32)
    trained = standardised(torch.from_numpy(picture)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(anatomy.standardised(picture), trained, atol=1e-4)


def test_the_released_weights_are_those_whose_errors_are_published() -> None:
    metrics = json.loads((TRAINING / "metrics.json").read_text(encoding="utf-8"))
    released = Path(anatomy.__file__).with_name(anatomy.WEIGHTS).read_bytes()
    assert metrics["sha256"] == anatomy.WEIGHTS_SHA256 == hashlib.sha256(released).hexdigest()
    assert len(released) < 150_000
    assert all(shares["wrong"] <= 0.02 for name, shares in metrics["held_back"].items() if name != "reversed")
