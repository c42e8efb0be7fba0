"""Whether a mask looks like the organ that it is meant to be: what a model marks where the organ is not, seldom does.

A network answers whatever it is shown; a brain model marks a water sphere whole. So the answer is held against the
organ: its volume, its form and what lies inside it. Form and inside are compared with a mean of the organ that the
bundle brings, turned and scaled to the mask, so that neither size nor contrast nor a nodding head counts. How limits
were found, and on how little they rest: docs/doubt.md.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outpost.inference.codes import Code, InferenceFailed

Grade = Literal["plausible", "doubtful", "implausible"]
Grey = NDArray[np.float32]

SIDE: Final = 24  # points a side at which an organ is compared
# Half the side of the cube in which it is compared, in cube roots of the mask's volume: a brain's longest is 0.72.
REACH: Final = 0.8
# Across the cube root of its volume an organ is looked at in so many blocks: a brain in blocks of 4 mm.
_BLOCKS: Final = 30
# Shades wider than this, in cube roots of the volume, are a coil's and not the organ's.
_SHADE: Final = 0.16
# Degrees by which the organ may be turned about the axes to the right, to the front and upward.
_TURNS: Final = (
    *((degrees, 0, 0) for degrees in (0, -40, -20, 20, 40)),
    *((0, degrees, 0) for degrees in (-20, 20)),
    *((0, 0, degrees) for degrees in (-20, 20)),
)
_ENOUGH: Final = 0.6  # a pattern this near is no chance, however the organ is turned
_DEEP: Final = 0.98  # share in the mask of what lies wholly in it, but for rounding
_LEAST_POINTS: Final = 200  # inside the organ, to compare what lies there


@dataclass(frozen=True, slots=True)
class Organ:
    """The mean of an organ, and how likely a mask is one.

    Attributes:
        form: share of examples that have a point in their mask, (`SIDE`, `SIDE`, `SIDE`).
        pattern: mean grey value of a point without the shade around it, in deviations.
        coefficients: bias, of the pattern and of the form: their sum is the log odds.
    """

    form: Grey
    pattern: Grey
    coefficients: tuple[float, float, float]

    def likeness(self, form: float, pattern: float) -> float:
        """Probability of 0 to 1 by what the limits were fitted on: half of it organs, half of it others."""
        bias, of_pattern, of_form = self.coefficients
        return float(1 / (1 + np.exp(-np.clip(bias + of_pattern * pattern + of_form * form, -60, 60))))


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one mask.

    Attributes:
        volume_ml: of the mask.
        form: overlap (Dice) with the organ's mean form, at the turn at which the pattern fits best.
        pattern: correlation with its mean pattern whatever its sign: other contrasts reverse it.
    """

    volume_ml: float
    form: float
    pattern: float


@dataclass(frozen=True, slots=True)
class Judged:
    """How plausible a mask is, and by which numbers: one English sentence."""

    grade: Grade
    told: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle takes for plausible: `plausible` of its outpost.yaml, its organ read.

    Attributes:
        volume_ml: least and greatest; outside it is doubtful.
        organ: its mean; None compares volumes alone.
        doubtful_below: likeness at which doubt begins.
        implausible_below: likeness at which the mask is not the organ.
    """

    volume_ml: tuple[float, float] | None = None
    organ: Organ | None = None
    doubtful_below: float = 0.0
    implausible_below: float = 0.0

    def judge(self, volume: Grey, mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Judged:
        """Hold a mask against the limits.

        Args:
            volume: intensities, axes pointing right, anterior and superior.
            mask: of the same shape, not empty.
            spacing_mm: between voxels along these axes.
        """
        told: list[str] = []
        grade: Grade = "plausible"
        ml = volume_ml(mask, spacing_mm)
        if self.volume_ml is not None and not self.volume_ml[0] <= ml <= self.volume_ml[1]:
            grade = "doubtful"
            told.append(f"the mask has {ml:.0f} ml, {self.volume_ml[0]:g} to {self.volume_ml[1]:g} are usual")
        if self.organ is not None:
            found = measure(volume, mask, spacing_mm, self.organ)
            likeness = self.organ.likeness(found.form, found.pattern)
            if likeness < self.doubtful_below:
                grade = "implausible" if likeness < self.implausible_below else "doubtful"
                told.append(
                    f"likeness to the organ {likeness:.3f} (doubt below {self.doubtful_below:g}, none below "
                    f"{self.implausible_below:g}): form {found.form:.2f}, pattern {found.pattern:.2f}"
                )
        return Judged(grade, "; ".join(told))


def volume_ml(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Volume of a mask in millilitres."""
    return float(np.count_nonzero(mask) * np.prod(spacing_mm) / 1000)


def measure(volume: Grey, mask: NDArray[np.bool_], spacing_mm: Sequence[float], organ: Organ) -> Measures:
    """What of a mask is like the organ. Arguments as of `Limits.judge`."""
    ml = volume_ml(mask, spacing_mm)
    inside = organ.form > 0.5
    best = (0.0, 0.0)
    seen = _Seen.of(volume, mask, spacing_mm)
    for turn in _TURNS:
        share, grey, deep = seen.at(turn)
        here = share > 0.5
        both, either = int((here & inside).sum()), int(here.sum() + inside.sum())
        form = 2 * both / max(1, either)
        pattern = abs(_correlation(grey[deep & inside], organ.pattern[deep & inside]))
        best = max(best, (pattern, form))
        if pattern >= _ENOUGH:
            break
    return Measures(ml, best[1], best[0])


def sample(volume: Grey, mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> tuple[Grey, Grey]:
    """One example of an organ: which points of the cube are in it, and their grey values in deviations, else 0."""
    share, grey, deep = _Seen.of(volume, mask, spacing_mm).at((0, 0, 0))
    spread = float(grey[deep].std()) if deep.any() else 1.0
    return share, np.where(deep, grey / max(spread, 1e-6), 0).astype(np.float32)


def read_organ(file: Path, sha256: str) -> Organ:
    """Read a mean organ.

    Raises:
        InferenceFailed: BUNDLE_INVALID, WEIGHTS_MISMATCH.
    """
    try:
        content = file.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise InferenceFailed(
                Code.WEIGHTS_MISMATCH, f"{file} has sha256 {found}, its bundle wants {sha256}"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            form, pattern = (archive[name].astype(np.float32) for name in ("form", "pattern"))
            bias, of_pattern, of_form = archive["coefficients"].astype(float).tolist()
    except (OSError, ValueError, KeyError) as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{file} holds no mean organ: {error}") from error
    if form.shape != (SIDE,) * 3 or pattern.shape != form.shape:
        raise InferenceFailed(
            Code.BUNDLE_INVALID, f"{file} has shapes {form.shape} and {pattern.shape}, {(SIDE,) * 3} wanted"
        )
    return Organ(form, pattern, (bias, of_pattern, of_form))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A mask and what it encloses, in blocks.

    Attributes:
        share: of each block that is in the mask.
        grey: grey values of blocks wholly in it, as a share of the shade around; else 0.
        middle: of the mask, in blocks.
        scale: blocks to a cube root of the mask's volume, along each axis.
    """

    share: Grey
    grey: Grey
    middle: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, volume: Grey, mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> _Seen:
        size = (np.count_nonzero(mask) * float(np.prod(spacing_mm))) ** (1 / 3)
        steps = [max(1, round(size / _BLOCKS / spacing)) for spacing in spacing_mm]
        box = tuple(_extent(mask, axis) for axis in range(3))
        share, grey = (_blocks(values, steps) for values in (mask[box], volume[box]))
        scale = size / (np.array(spacing_mm) * steps)
        deep = share > _DEEP
        # Around each block, the mean of what is in the mask with it.
        known = ndimage.gaussian_filter(deep.astype(np.float32), _SHADE * scale)
        around = ndimage.gaussian_filter(np.where(deep, grey, 0), _SHADE * scale) / np.maximum(known, 1e-6)
        level = np.maximum(np.abs(around), 1e-6)
        flat = np.where(deep, (grey - around) / level, 0).astype(np.float32)
        total = max(float(share.sum()), 1e-6)
        middle = np.array(
            [
                (share.sum(tuple(other for other in range(3) if other != axis)) * np.arange(count)).sum()
                / total
                for axis, count in enumerate(share.shape)
            ]
        )
        return cls(share, flat, middle, scale)

    def at(self, turn: tuple[float, float, float]) -> tuple[Grey, Grey, NDArray[np.bool_]]:
        """At the points of the cube, turned: share in the mask, grey value, and whether it is deep in the mask."""
        places = [
            middle + scale * axis
            for middle, scale, axis in zip(self.middle, self.scale, _points(turn), strict=True)
        ]
        share, grey = (ndimage.map_coordinates(values, places, order=1) for values in (self.share, self.grey))
        return share, grey, share > _DEEP


@cache
def _points(turn: tuple[float, float, float]) -> tuple[NDArray[np.float64], ...]:
    """The points of the cube along the three axes, turned about them by degrees."""
    line = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * REACH
    places = np.stack(np.meshgrid(line, line, line, indexing="ij"))
    for axis, degrees in enumerate(turn):
        if degrees:
            first, second = (other for other in range(3) if other != axis)
            cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            turned = places.copy()
            turned[first] = places[first] * cosine - places[second] * sine
            turned[second] = places[first] * sine + places[second] * cosine
            places = turned
    return tuple(places)


def _extent(mask: NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last plane across an axis that has any of the mask."""
    planes = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return slice(int(planes[0]), int(planes[-1]) + 1)


def _blocks(values: NDArray[Any], steps: Sequence[int]) -> Grey:
    """Means of blocks of so many voxels; what is left over at the ends is filled up with nothing."""
    # One axis after the other, the one furthest apart in memory first: what is left lies together.
    means: NDArray[Any] = values
    for axis in sorted(range(3), key=lambda axis: -abs(values.strides[axis])):
        step, size = steps[axis], means.shape[axis]
        shape = [-(-size // step) if other == axis else means.shape[other] for other in range(3)]
        sums = np.zeros_like(means, dtype=np.float32, shape=shape)
        for start in range(min(step, size)):
            part = means[(slice(None),) * axis + (slice(start, None, step),)]
            sums[(slice(None),) * axis + (slice(0, part.shape[axis]),)] += part
        means = sums / np.float32(step)
    return means


def _correlation(first: Grey, second: Grey) -> float:
    if first.size < _LEAST_POINTS:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / spread if spread > 1e-9 else 0.0
