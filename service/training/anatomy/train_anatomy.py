#!/usr/bin/env python3
"""Train the anatomy classifier of the pixel verdict (outpost/filter/anatomy.npz).

    pip install --no-deps -r service/training/anatomy/requirements.txt
    python service/training/anatomy/train_anatomy.py --out DIR

One thread, seeded; about ten minutes. Writes into DIR: anatomy.npz (weights of three networks), metrics.json
(errors on pictures and on real images none of which was trained on), pools.npz (the pictures, kept for a second
run). To release new weights, copy anatomy.npz to service/outpost/filter, its sha256 to WEIGHTS_SHA256 in
service/outpost/filter/anatomy.py, and metrics.json beside this script.
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
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1] / "radiograph"))

from anatomy_errors import held_back, real_images
from pictures import KINDS, Pools, pools

from outpost.filter.anatomy import CLASSES, LAYERS, SIDE, _answers, read_networks

SEED = 20261126
NETWORKS = 3
STEPS, BATCH, LEARNING_RATE = 1500, 48, 4e-3
# Where bones are bright in the picture made, so that a reversed one can be told.
_RADIOGRAPHS = ("ct_frontal", "drawn_chest", "ct_lateral", "limb", "shuttered_limb")
_CHESTS = ("ct_frontal", "drawn_chest", "ct_lateral")
_SLICES = ("head_slice", "body_slice")
_AS_IT_IS = ("screen",)


class Drawer:
    """Draws batches: pictures turned, mirrored, reversed and spoilt, with the right answers."""

    def __init__(self, stock: Pools, seed: int) -> None:
        self._stock = stock
        self._kinds = [kind for kind in KINDS if kind in stock]
        share = np.array([KINDS[kind][1] for kind in self._kinds])
        self._share = share / share.sum()
        self._rng = np.random.default_rng(seed)
        self._torch_rng = torch.Generator().manual_seed(seed)

    def batch(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures of (count, 1, SIDE, SIDE) as the service gives them; classes; reversed (0, 1, or -1: not told)."""
        rng = self._rng
        kinds = rng.choice(self._kinds, size=count, p=self._share)
        stock = [self._stock[kind][rng.integers(len(self._stock[kind]))] for kind in kinds]
        images = torch.from_numpy(np.stack(stock)).float()[:, None] / 255
        images = self._placed(images, kinds)
        images = self._exposed(images, kinds)
        inverted = torch.full((count,), -1.0)
        for index, kind in enumerate(kinds):
            image = images[index].flip(-1) if rng.random() < 0.5 else images[index]
            if kind not in _AS_IT_IS and rng.random() < (0.25 if kind in _CHESTS else 0.5):
                image = torch.rot90(image, int(rng.integers(1, 4)), (-2, -1))
            # Slices are never shown reversed: their scale is physical; a radiograph's is a convention.
            reverse = kind not in _SLICES and rng.random() < 0.4
            images[index] = 1 - image if reverse else image
            if kind in _RADIOGRAPHS:
                inverted[index] = float(reverse)
        classes = torch.tensor([CLASSES.index(KINDS[kind][0]) for kind in kinds])
        return standardised(functional.avg_pool2d(images, 2)), classes, inverted

    def _placed(self, images: torch.Tensor, kinds: Any) -> torch.Tensor:
        """Another field of view, centre, slant and aspect ratio."""
        count, rng = len(images), self._rng
        # Real chest films are cropped to the ribs; our CT shows arms' roots and belly too.
        zoom = np.where(
            np.isin(kinds, _CHESTS), rng.uniform(0.55, 1.05, count), rng.uniform(0.5, 1.15, count)
        )
        aspect = np.exp(rng.uniform(-0.2, 0.2, count))
        slant = np.deg2rad(rng.uniform(-10, 10, count)) * ~np.isin(kinds, _AS_IT_IS)
        theta = np.zeros((count, 2, 3))
        theta[:, 0, 0] = zoom * aspect * np.cos(slant)
        theta[:, 0, 1] = -zoom * np.sin(slant)
        theta[:, 1, 0] = zoom * np.sin(slant)
        theta[:, 1, 1] = zoom / aspect * np.cos(slant)
        theta[:, 0, 2] = rng.uniform(-0.12, 0.12, count)
        theta[:, 1, 2] = rng.uniform(-0.15, 0.1, count)
        grid = functional.affine_grid(
            torch.from_numpy(theta).float(), [count, 1, 2 * SIDE, 2 * SIDE], align_corners=False
        )
        edge = torch.from_numpy(rng.random(count) < 0.5)
        sampled = functional.grid_sample(images, grid, align_corners=False, padding_mode="zeros")
        bordered = functional.grid_sample(images, grid, align_corners=False, padding_mode="border")
        return torch.where(edge[:, None, None, None], bordered, sampled)

    def _exposed(self, images: torch.Tensor, kinds: Any) -> torch.Tensor:
        """Another exposure, contrast, noise, collimation and marker."""
        count, rng, side = len(images), self._rng, images.shape[-1]

        def drawn(low: float, high: float) -> torch.Tensor:
            return torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1))).float()

        images = images.clamp(1e-4, 1) ** torch.exp(drawn(-0.7, 0.7))
        # Before the logarithm: intensities fall off exponentially, as raw detectors give them.
        bend = drawn(0.5, 4)
        bent = (1 - torch.exp(-bend * images)) / (1 - torch.exp(-bend))
        images = torch.where(torch.from_numpy(rng.random((count, 1, 1, 1)) < 0.4), bent, images)
        # Local contrast as processed radiographs have it: what is coarse is taken back.
        coarse = functional.interpolate(functional.avg_pool2d(images, 16), scale_factor=16, mode="bilinear")
        images = images - drawn(-0.1, 0.6) * coarse * torch.from_numpy(rng.random((count, 1, 1, 1)) < 0.5)
        noise = torch.randn(images.shape, generator=self._torch_rng)
        images = images + drawn(0, 0.05) * noise
        ramp = torch.linspace(-1, 1, side)
        tilt = torch.from_numpy(rng.normal(0, 0.06, (count, 2, 1))).float()
        images = images + (tilt[:, :1] * ramp)[..., None] + (tilt[:, 1:] * ramp)[:, :, None, :]
        for image, kind in zip(images[:, 0], kinds, strict=True):
            if kind in _CHESTS and rng.random() < 0.4:  # collimated
                for turn in range(4):
                    if rng.random() < 0.5:
                        torch.rot90(image, turn)[: int(rng.uniform(0, 0.12) * side)] = float(
                            rng.choice([0.0, 1.0, rng.random()])
                        )
            if kind not in _AS_IT_IS and rng.random() < 0.4:  # a lead letter, or writing
                tall, wide = (int(rng.uniform(0.02, 0.07) * side) for _ in range(2))
                row, column = (int(rng.uniform(0, 0.92) * side) for _ in range(2))
                image[row : row + tall, column : column + wide] = float(rng.choice([0.0, 1.2]))
        return images


def standardised(images: torch.Tensor) -> torch.Tensor:
    """As `outpost.filter.anatomy.standardised`, of a batch."""
    flat = images.flatten(1)
    low, high = (torch.quantile(flat, part, dim=1)[:, None, None, None] for part in (0.01, 0.99))
    return 4 * ((images - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) - 2


class Network(nn.Module):
    """The network of `outpost.filter.anatomy` with batch normalisation, which `folded` takes away."""

    def __init__(self) -> None:
        super().__init__()
        before = 1
        blocks = []
        for channels, size, stride in LAYERS:
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(before, channels, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels)
                )
            )
            before = channels
        self.blocks = nn.ModuleList(blocks)
        self.answers = nn.Linear(before, len(CLASSES) + 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            images = functional.relu(block(images))
        return self.answers(functional.dropout(images.mean((2, 3)), 0.1, self.training))

    def folded(self) -> dict[str, np.ndarray]:
        """Weights as the service reads them: float16, normalisation multiplied in."""
        found = {"answers": self.answers.weight, "answers_bias": self.answers.bias}
        for number, (convolution, norm) in enumerate(self.blocks):
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            found[f"kernel{number}"] = convolution.weight * scale[:, None, None, None]
            found[f"bias{number}"] = norm.bias - norm.running_mean * scale
        return {name: value.detach().numpy().astype(np.float16) for name, value in found.items()}


def train(stock: Pools, seed: int, steps: int = STEPS) -> tuple[Network, list[float]]:
    """A trained network in evaluation mode, and the loss of each step."""
    torch.manual_seed(seed)
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.15)
    drawer, losses, started = Drawer(stock, seed), [], time.monotonic()
    for _ in range(steps):
        images, classes, inverted = drawer.batch(BATCH)
        network.train()
        logits = network(images)
        known = inverted >= 0
        loss = functional.cross_entropy(logits[:, :-1], classes, label_smoothing=0.02)
        loss = loss + 0.5 * functional.binary_cross_entropy_with_logits(logits[known, -1], inverted[known])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        rate.step()
        losses.append(float(loss.detach()))
        if len(losses) % 100 == 0:
            seconds = time.monotonic() - started
            print(f"step {len(losses)}/{steps} loss {np.mean(losses[-100:]):.3f} {seconds:.0f} s", flush=True)
    return network.eval(), losses


def temperatures(file: Path, drawer: Drawer, batches: int = 25) -> tuple[float, float]:
    """What the logits of classes, and of reversal, are divided by: the likelihood of held back pictures decides."""
    networks = read_networks(file.read_bytes())
    drawn = [drawer.batch(32) for _ in range(batches)]
    images, classes, inverted = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    both = torch.stack((images, images.flip(-1)))
    known = inverted >= 0

    def losses(temperature: float) -> tuple[float, float]:
        scaled = [one | {"temperature": torch.tensor([temperature, temperature])} for one in networks]
        with torch.inference_mode():
            said = (
                torch.stack([_answers(one, part) for one in scaled for part in both])
                .mean(0)
                .clamp(1e-6, 1 - 1e-6)
            )
        told = said[known, -1]
        return (
            float(functional.nll_loss(said[:, :-1].log(), classes)),
            float(functional.binary_cross_entropy(told, inverted[known])),
        )

    tried = {float(value): losses(float(value)) for value in np.arange(0.3, 1.55, 0.05).round(2)}
    return min(tried, key=lambda value: tried[value][0]), min(tried, key=lambda value: tried[value][1])


def main() -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="less than 1: try the script out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    stock, measured = pools(arguments.out / "pools.npz", SEED, arguments.share)
    weights: dict[str, np.ndarray] = {}
    losses = []
    for number in range(NETWORKS):
        network, found = train(stock, SEED + number, max(2, int(STEPS * arguments.share)))
        weights |= {f"{number}/{name}": value for name, value in network.folded().items()}
        losses.append(float(np.mean(found[-50:])))
    file = arguments.out / "anatomy.npz"

    def write(temperature: tuple[float, float]) -> None:
        each = {
            f"{number}/temperature": np.array(temperature, dtype=np.float32) for number in range(NETWORKS)
        }
        np.savez_compressed(file, **weights, **each)

    write((1.0, 1.0))
    temperature = temperatures(file, Drawer(measured, SEED + 50))
    write(temperature)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    metrics = {
        "seed": SEED,
        "pictures": {kind: len(pictures) for kind, pictures in stock.items()},
        "parameters": int(sum(value.size for value in weights.values())),
        "bytes": file.stat().st_size,
        "seconds": round(time.monotonic() - started),
        "loss": losses,
        "temperature": temperature,
        "machine": {"python": platform.python_version(), "torch": torch.__version__},
        "held_back": held_back(file, Drawer(measured, SEED + 100)),
        "real": real_images(file),
        "sha256": digest,
    }
    (arguments.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"held_back": metrics["held_back"], "real": metrics["real"]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
