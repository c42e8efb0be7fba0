"""Where the voxels of a result lie: the geometry that was computed with, and what of the headers contradicts it.

A result repeats no geometry of a header. PixelSpacing, orientation and positions come from the affine of the volume
that the model was given; SliceThickness and SpacingBetweenSlices both say how far its slices are apart, as a mask's
voxel is that deep, whatever the thickness of the slice that was excited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.codes.notes import Note, NoteCode

# Senders round to three decimals.
_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Grid:
    """The place of every voxel. Millimetres in the patient coordinate system (LPS, PS3.3 C.7.6.2.1.1).

    Attributes:
        affine: 4x4, maps (column, row, slice) indices to the centre of a voxel.
    """

    affine: NDArray[np.float64]

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """Distance between rows, then between columns."""
        return self._length(1), self._length(0)

    @property
    def slice_spacing(self) -> float:
        """Distance between slices."""
        return self._length(2)

    @property
    def orientation(self) -> tuple[float, ...]:
        """Unit vectors along a row, then along a column."""
        return (*self._direction(0), *self._direction(1))

    def position(self, index: int) -> tuple[float, ...]:
        """Centre of the first pixel of a slice."""
        return tuple(float(value) for value in self.affine[:3, 3] + index * self.affine[:3, 2])

    def _length(self, axis: int) -> float:
        return float(np.linalg.norm(self.affine[:3, axis]))

    def _direction(self, axis: int) -> list[float]:
        unit = self.affine[:3, axis] / self._length(axis)
        # Rounding leaves -1e-17 where 0 is meant, which a decimal string of 16 characters cannot hold well.
        return [float(value) for value in np.round(unit, 12) + 0.0]


def contradictions(images: Sequence[Dataset], grid: Grid) -> tuple[Note, ...]:
    """A note of the attributes that say something else of the geometry than what was computed with.

    Slices thicker or thinner than they are apart contradict nothing; a thickness that is none does.
    """
    wrong = {}
    for image in images:
        spacing = _number(image, "SpacingBetweenSlices")
        if spacing is not None and not abs(spacing - grid.slice_spacing) <= _TOLERANCE * grid.slice_spacing:
            wrong["SpacingBetweenSlices"] = "DS"
        thickness = _number(image, "SliceThickness")
        if thickness is not None and not thickness > 0:
            wrong["SliceThickness"] = "DS"
    if not wrong:
        return ()
    named = ", ".join(f"{keyword} ({vr})" for keyword, vr in wrong.items())
    detail = f"contradicts the positions of the slices, {grid.slice_spacing:.3f} mm apart: {named}"
    return (Note(NoteCode.VALUE_LEFT_OUT, detail),)


def _number(image: Dataset, keyword: str) -> float | None:
    """None where the attribute is absent or empty, NaN where it is no number."""
    try:
        value = image.get(keyword)
        return None if value is None or value == "" else float(value)
    except Exception:  # pydicom decodes a value when it is first looked at, and raises many types
        return math.nan
