"""A head made of ellipsoids: the input of the golden case, the same on every machine, nobody's data.

It has what the networks look for in a T1 head: bright scalp, dark skull, dark fluid, grey cortex folded over
white matter, ventricles, cerebellum, stem, eyes and neck. Only its mask on release says what is right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPACING_MM = 2.0
SHAPE = (96, 120, 104)

# Intensities, arbitrary units, in the order of a T1 image.
_SCALP, _SKULL, _FLUID, _GREY, _WHITE, _NECK, _EYE, _STEM = 200, 25, 35, 110, 170, 60, 60, 150
_ENDLESS_MM = 1e6


def head_phantom() -> NDArray[np.float32]:
    """The volume: shape `SHAPE`, `SPACING_MM` cubic voxels, axes pointing right, anterior and superior."""
    x, y, z = np.meshgrid(
        *((np.arange(size) - (size - 1) / 2) * SPACING_MM for size in SHAPE), indexing="ij", sparse=True
    )

    def radius(centre: tuple[float, float, float], axes: tuple[float, float, float]) -> NDArray[np.float64]:
        """Distance from the centre of an ellipsoid with these half axes (mm); 1 on its surface."""
        squares: NDArray[np.float64] = sum(
            ((place - middle) / axis) ** 2
            for place, middle, axis in zip((x, y, z), centre, axes, strict=True)
        )
        return np.sqrt(squares)

    head = np.zeros(SHAPE, dtype=np.float32)
    head[(radius((0, -10, 0), (52, 60, _ENDLESS_MM)) < 1) & (z < -20)] = _NECK
    head[radius((0, 0, 5), (76, 98, 85)) < 1] = _SCALP
    head[radius((0, 0, 5), (72, 94, 81)) < 1] = _SKULL
    head[radius((0, 0, 5), (67, 87, 76)) < 1] = _FLUID

    depth = radius((0, 0, 8), (64, 84, 70))
    brain = depth < 1
    head[brain] = _GREY
    around, along = np.arctan2(z - 8, x), np.arctan2(y, np.hypot(x, z - 8))
    folds = 0.86 + 0.05 * np.sin(14 * around + 3 * np.sin(5 * along)) * np.cos(9 * along)
    head[brain & (depth < folds)] = _WHITE
    for side in (-1, 1):
        head[radius((side * 14, 5, 18), (7, 30, 14)) < 1] = _FLUID  # ventricle
        head[radius((side * 18, 12, 8), (9, 14, 9)) < 1] = _GREY  # deep nuclei
    head[brain & (np.abs(x) < 1.5) & (depth > 0.75) & (z > 0)] = _FLUID  # between the hemispheres
    head[(radius((0, -45, -45), (45, 30, 25)) < 1) & ~brain] = _GREY  # cerebellum
    head[(radius((0, -20, 0), (13, 13, _ENDLESS_MM)) < 1) & (z < -30)] = _STEM
    for side in (-1, 1):
        head[radius((side * 32, 75, -15), (14, 14, 14)) < 1] = _EYE
    return head
