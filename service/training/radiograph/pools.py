"""The pictures that training draws from, made once and kept in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from simulate import ChestCt, Picture, drawn_chest, drawn_limb, drawn_nothing, lung_outlines

Pools = dict[str, NDArray[np.uint8]]

# How many of each: (for training, for measuring). Lung outlines are split by outline, the CT cannot be.
COUNTS = {
    "ct_frontal": (300, 30),
    "ct_lateral": (120, 16),
    "ct_from_above": (40, 8),
    "ct_slice": (120, 20),
    "limb": (300, 30),
    "nothing": (300, 30),
}
_OUTLINES_HELD_BACK = 60
_CHESTS_AN_OUTLINE = 2


def pools(file: Path, seed: int, share: float = 1.0) -> tuple[Pools, Pools]:
    """Pictures for training and for measuring, of (picture, row, column), by the name of their kind.

    Args:
        file: where they are kept; read if it is there.
        seed: of everything random.
        share: of the full number of pictures; less than 1 only to try the script out.
    """
    if not file.exists():
        _make(file, seed, share)
    with np.load(file) as archive:
        kinds = sorted({name.split("/")[1] for name in archive.files})
        return (
            {kind: archive[f"train/{kind}"] for kind in kinds},
            {kind: archive[f"measure/{kind}"] for kind in kinds},
        )


def _make(file: Path, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    made: dict[str, list[Picture]] = {}
    ct = ChestCt()
    count = {
        kind: (max(2, int(train * share)), max(2, int(measure * share)))
        for kind, (train, measure) in COUNTS.items()
    }
    angles = {
        # Turned by up to 15 degrees a chest is still read as frontal; lateral from either side.
        "ct_frontal": lambda: (rng.uniform(-15, 15), rng.uniform(-15, 15)),
        "ct_lateral": lambda: (rng.choice([-90, 90]) + rng.uniform(-15, 15), rng.uniform(-8, 8)),
        "ct_from_above": lambda: (rng.uniform(-180, 180), rng.choice([-90, 90]) + rng.uniform(-15, 15)),
    }
    for kind, draw in angles.items():
        for part, number in zip(("train", "measure"), count[kind], strict=True):
            pictures = made.setdefault(f"{part}/{kind}", [])
            while len(pictures) < number:
                if len(pictures) % 10 == 0:
                    volume = ct.attenuation(rng.uniform(0.2, 1.6), rng.choice([0, rng.uniform(0, 0.25)]))
                pictures.append(ct.project(rng, *draw(), volume))
    for part, number in zip(("train", "measure"), count["ct_slice"], strict=True):
        made[f"{part}/ct_slice"] = list(ct.slices(rng, number))
    for part, place in (("train", 0), ("measure", 1)):
        made[f"{part}/limb"] = [drawn_limb(rng) for _ in range(count["limb"][place])]
        made[f"{part}/nothing"] = [drawn_nothing(rng) for _ in range(count["nothing"][place])]
    outlines = lung_outlines()
    rng.shuffle(outlines)
    outlines = outlines[: max(4, int(len(outlines) * share))]
    held_back = max(2, int(_OUTLINES_HELD_BACK * share))
    made["measure/drawn_chest"] = [drawn_chest(outline, rng) for outline in outlines[:held_back]]
    made["train/drawn_chest"] = [
        drawn_chest(outline, rng) for outline in outlines[held_back:] for _ in range(_CHESTS_AN_OUTLINE)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file, **{name: (np.stack(pictures) * 255).astype(np.uint8) for name, pictures in made.items()}
    )
