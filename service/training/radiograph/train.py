#!/usr/bin/env python3
"""Train the network of service/bundles/radiograph_orientation on simulated radiographs.

    pip install --no-deps -r service/training/radiograph/requirements.txt
    nice -n 15 python service/training/radiograph/train.py --out DIR

One thread, seeded; ten to twenty minutes. Writes into DIR: network.pt (state_dict), network.ts, network.onnx,
metrics.json (errors on pictures and on real radiographs it was never trained on), pools.npz (the pictures,
kept so that a second run need not make them). What it can and cannot: README.md beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import confusion, real_images, sizes_and_engines
from monai.networks.nets import DenseNet
from pools import Pools, pools
from torch.nn import functional

from outpost.inference.radiograph import HEADS, VIEWS

SEED = 20261124
NETWORK = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": sum(HEADS.values()),
    "init_features": 32,
    "growth_rate": 12,
    "block_config": (6, 8, 8, 6),
}
FULL_SIZE = 256
# (steps, batch, pixels a side): mostly small, for the time; then at the sizes it is used at.
SCHEDULE = ((800, 32, (128,)), (220, 16, (160, 224, 256)))
LEARNING_RATE = 2e-3

# Kind of picture -> view, and how often it is drawn.
_VIEW_OF = {
    "ct_frontal": ("chest_frontal", 0.26),
    "drawn_chest": ("chest_frontal", 0.22),
    "ct_lateral": ("chest_lateral", 0.18),
    "ct_from_above": ("other", 0.04),
    "ct_slice": ("other", 0.08),
    "limb": ("other", 0.13),
    "nothing": ("other", 0.09),
}
# Where bones are bright in the picture made, so that a reversed one can be told.
_RADIOGRAPHS = ("ct_frontal", "drawn_chest", "ct_lateral", "limb")


class Drawer:
    """Draws batches: pictures turned, mirrored, reversed and spoilt, with the right answers."""

    def __init__(self, stock: Pools, seed: int) -> None:
        self._stock = stock
        self._kinds = [kind for kind in _VIEW_OF if kind in stock]
        share = np.array([_VIEW_OF[kind][1] for kind in self._kinds])
        self._share = share / share.sum()
        self._rng = np.random.default_rng(seed)
        self._torch_rng = torch.Generator().manual_seed(seed)

    def batch(self, count: int, pixels: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Pictures of (count, 1, pixels, pixels) as `RadiographClassification` hands them to the network.

        Answers: view (class), rotation (class; -1 where there is no upright), mirrored and inverted (0, 1; -1).
        """
        rng = self._rng
        kinds = rng.choice(self._kinds, size=count, p=self._share)
        pictures = np.stack([self._stock[kind][rng.integers(len(self._stock[kind]))] for kind in kinds])
        images = torch.from_numpy(pictures).float()[:, None] / 255
        chest = np.isin(kinds, ("ct_frontal", "drawn_chest", "ct_lateral"))
        images = self._place(images, chest, pixels)
        images = self._expose(images)
        answers = {
            "view": torch.tensor([VIEWS.index(_VIEW_OF[kind][0]) for kind in kinds]),
            "rotation": torch.full((count,), -1),
            "mirrored": torch.full((count,), -1),
            "inverted": torch.full((count,), -1),
        }
        for index, kind in enumerate(kinds):
            mirrored, turns, inverted = rng.random() < 0.5, int(rng.integers(4)), rng.random() < 0.4
            image = images[index]
            if mirrored:
                image = image.flip(-1)
            image = torch.rot90(image, turns, (-2, -1))
            images[index] = 1 - image if inverted else image
            if chest[index]:
                answers["rotation"][index] = turns
            if kind in ("ct_frontal", "drawn_chest"):
                answers["mirrored"][index] = int(mirrored)
            if kind in _RADIOGRAPHS:
                answers["inverted"][index] = int(inverted)
        return standardised(images), answers

    def _place(self, images: torch.Tensor, chest: Any, pixels: int) -> torch.Tensor:
        """Another field of view, centre, slant and aspect ratio."""
        count, rng = len(images), self._rng
        # Real chest films are cropped to the ribs; our CT shows arms' roots and belly too.
        zoom = np.where(chest, rng.uniform(0.55, 1.05, count), rng.uniform(0.45, 1.2, count))
        aspect = np.exp(rng.uniform(-0.22, 0.22, count))
        slant = np.deg2rad(rng.uniform(-12, 12, count))
        theta = np.zeros((count, 2, 3))
        theta[:, 0, 0] = zoom * aspect * np.cos(slant)
        theta[:, 0, 1] = -zoom * np.sin(slant)
        theta[:, 1, 0] = zoom * np.sin(slant)
        theta[:, 1, 1] = zoom / aspect * np.cos(slant)
        theta[:, 0, 2] = rng.uniform(-0.15, 0.15, count)
        theta[:, 1, 2] = rng.uniform(-0.2, 0.1, count)
        grid = functional.affine_grid(
            torch.from_numpy(theta).float(), [count, 1, pixels, pixels], align_corners=False
        )
        return functional.grid_sample(images, grid, align_corners=False, padding_mode="zeros")

    def _expose(self, images: torch.Tensor) -> torch.Tensor:
        """Another exposure, contrast, noise, collimation and marker; a grey border as some readers add."""
        count, rng, pixels = len(images), self._rng, images.shape[-1]
        gamma = torch.from_numpy(np.exp(rng.uniform(-0.7, 0.7, (count, 1, 1, 1)))).float()
        images = images.clamp(1e-4, 1) ** gamma
        # Before the logarithm: intensities fall off exponentially, as raw detectors give them.
        bend = torch.from_numpy(rng.uniform(0.5, 4, (count, 1, 1, 1))).float()
        bent = (1 - torch.exp(-bend * images)) / (1 - torch.exp(-bend))
        images = torch.where(torch.from_numpy(rng.random((count, 1, 1, 1)) < 0.5), bent, images)
        noise = torch.randn(images.shape, generator=self._torch_rng)
        images = images + torch.from_numpy(rng.uniform(0, 0.04, (count, 1, 1, 1))).float() * noise
        ramp = torch.linspace(-1, 1, pixels)
        tilt = torch.from_numpy(rng.normal(0, 0.08, (count, 2, 1))).float()
        images = images + (tilt[:, :1] * ramp)[..., None] + (tilt[:, 1:] * ramp)[:, :, None, :]
        for image in images[:, 0]:
            if rng.random() < 0.4:  # collimated: an edge without exposure, or with all of it
                for side in range(4):
                    if rng.random() < 0.5:
                        torch.rot90(image, side)[: int(rng.uniform(0, 0.12) * pixels)] = float(
                            rng.choice([0.0, 1.0, rng.random()])
                        )
            if rng.random() < 0.5:  # a lead letter, or writing
                tall, wide = (int(rng.uniform(0.02, 0.07) * pixels) for _ in range(2))
                row, column = (int(rng.uniform(0, 0.92) * pixels) for _ in range(2))
                image[row : row + tall, column : column + wide] = float(rng.choice([0.0, 1.2]))
        return images


def standardised(images: torch.Tensor) -> torch.Tensor:
    """Grey values as the service gives them: see `outpost.inference.radiograph.standardise`."""
    from outpost.inference.radiograph import standardise

    return torch.stack([standardise(image[0]) for image in images])[:, None]


def loss_of(logits: torch.Tensor, answers: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy of every answer that exists."""
    total, start = torch.zeros(()), 0
    for head, width in HEADS.items():
        part, answer = logits[:, start : start + width], answers[head]
        start += width
        known = answer >= 0
        if not known.any():
            continue
        if width == 1:
            total = total + functional.binary_cross_entropy_with_logits(part[known, 0], answer[known].float())
        else:
            total = total + functional.cross_entropy(part[known], answer[known])
    return total


def train(stock: Pools, seed: int, schedule: Any) -> tuple[torch.nn.Module, list[float]]:
    """The trained network in evaluation mode, and the loss of each step."""
    torch.manual_seed(seed)
    network = DenseNet(**NETWORK)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    steps = sum(part[0] for part in schedule)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.15, final_div_factor=100
    )
    drawer, losses, started = Drawer(stock, seed), [], time.monotonic()
    sizes = np.random.default_rng(seed)
    for count, batch, pixels in schedule:
        for _ in range(count):
            images, answers = drawer.batch(batch, int(sizes.choice(pixels)))
            network.train()
            loss = loss_of(network(images), answers)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            rate.step()
            losses.append(float(loss.detach()))
            if len(losses) % 50 == 0:
                seconds = time.monotonic() - started
                print(
                    f"step {len(losses)}/{steps} loss {np.mean(losses[-50:]):.3f} {seconds:.0f} s", flush=True
                )
    return network.eval(), losses


def export(network: torch.nn.Module, folder: Path) -> dict[str, str]:
    """Write the weights in every format the bundle could name; returns their digests."""
    example = torch.rand(1, 1, FULL_SIZE, FULL_SIZE, generator=torch.Generator().manual_seed(SEED))
    torch.save(network.state_dict(), folder / "network.pt")
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(network, example))
    torch.jit.save(traced, folder / "network.ts")
    torch.onnx.export(
        network,
        (example,),
        folder / "network.onnx",
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch", 2: "rows", 3: "columns"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("network.*"))
    }


def main() -> int:
    """Train, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="less than 1: try the script out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    stock, held_back = pools(arguments.out / "pools.npz", SEED, arguments.share)
    pictures_seconds = time.monotonic() - started
    schedule = [(max(2, int(steps * arguments.share)), *rest) for steps, *rest in SCHEDULE]
    network, losses = train(stock, SEED, schedule)
    seconds = time.monotonic() - started
    digests = export(network, arguments.out)
    metrics = {
        "seed": SEED,
        "pictures": {kind: len(pictures) for kind, pictures in stock.items()},
        "network": {
            key: list(value) if isinstance(value, tuple) else value for key, value in NETWORK.items()
        },
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": {"pictures": round(pictures_seconds), "all": round(seconds)},
        "loss": {"first_50": float(np.mean(losses[:50])), "last_50": float(np.mean(losses[-50:]))},
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cpu": platform.machine(),
        },
        "held_back": confusion(network, Drawer(held_back, SEED + 1), FULL_SIZE),
        "real": real_images(network, FULL_SIZE),
        "sizes_and_engines": sizes_and_engines(network, arguments.out / "network.onnx", FULL_SIZE),
        "sha256": digests,
    }
    (arguments.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics["real"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
