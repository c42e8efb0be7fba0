"""Turn a volume so that its axes point right, anterior and superior (RAS), and turn a mask back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True)
class RasView:
    """How a volume's axes lie to the patient's: only swaps and flips, so no voxel value changes.

    Attributes:
        axes: for each of right, anterior, superior the axis of the volume closest to it.
        flips: for each of them, whether that axis points the other way.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, volume: NDArray[Scalar]) -> NDArray[Scalar]:
        """The volume with its axes pointing right, anterior and superior."""
        return np.flip(volume.transpose(self.axes), self._flipped())

    def invert(self, volume: NDArray[Scalar]) -> NDArray[Scalar]:
        """The volume with its axes as they were before `apply`."""
        return np.flip(volume, self._flipped()).transpose(np.argsort(self.axes))

    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis, flip in enumerate(self.flips) if flip)


def ras_view(affine_lps: NDArray[np.float64]) -> RasView:
    """Find the swaps and flips closest to RAS.

    Args:
        affine_lps: 4x4, maps voxel indices to patient millimetres (LPS).
    """
    directions = _LPS_TO_RAS @ affine_lps[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    axes = max(
        permutations(range(3)),
        key=lambda axes: sum(abs(directions[world, axis]) for world, axis in enumerate(axes)),
    )
    flips = [bool(directions[world, axis] < 0) for world, axis in enumerate(axes)]
    return RasView((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
