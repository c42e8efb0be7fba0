"""Quantiles of numbers, in bounded memory, that merge exactly.

Values are counted in cells whose bounds grow geometrically, as in DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019,
doi 10.14778/3352063.3352135): any value in a cell is within 1 % of the cell's middle. The bounds are the same in
every sketch, so merging is adding, in any order. Rank sketches (KLL, t-digest) are smaller for the same rank error
but their content depends on the order of merging, and two of them share no grid on which to compare.

Unlike the original nothing is ever collapsed: numbers below 1e-6 in size are zero, those beyond 1e12 are 1e12, so
there are 4148 cells at most. On the common grid a Kolmogorov-Smirnov distance is exact for the values rounded to
the grid: what moves by less than 2 % is not seen, and nothing is seen that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from outpost.drift.categorical import count_of

RELATIVE_ERROR = 0.01
LEAST, GREATEST = 1e-6, 1e12

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)
_LOWEST = math.ceil(math.log(LEAST) * _PER_LOG)
# Cells of positive numbers are numbered from 1, those of negative ones downwards from -1, zero has 0: the order of
# cells is the order of values.
HIGHEST_CELL = math.ceil(math.log(GREATEST) * _PER_LOG) - _LOWEST + 1


def cell_of(value: float) -> int:
    """The cell a finite number is counted in."""
    size = abs(value)
    if size < LEAST:
        return 0
    cell = math.ceil(math.log(min(size, GREATEST)) * _PER_LOG) - _LOWEST + 1
    return cell if value > 0 else -cell


def middle_of(cell: int) -> float:
    """The number that stands for a cell: within `RELATIVE_ERROR` of everything in it."""
    if cell == 0:
        return 0.0
    size = 2 * _GAMMA ** (abs(cell) - 1 + _LOWEST) / (_GAMMA + 1)
    return size if cell > 0 else -size


class Quantiles:
    """The distribution of a number, and how often there was none."""

    __slots__ = ("_cells", "missing")

    def __init__(self) -> None:
        self._cells: dict[int, int] = {}
        self.missing = 0

    def add(self, value: float | None, times: int = 1) -> None:
        """Count a number; None, NaN and the infinities are missing ones."""
        if value is None or not math.isfinite(value):
            self.missing += times
            return
        cell = cell_of(value)
        self._cells[cell] = self._cells.get(cell, 0) + times

    def has(self, value: float) -> bool:
        """Whether counting this number makes it no larger."""
        return not math.isfinite(value) or cell_of(value) in self._cells

    @property
    def present(self) -> int:
        """Observations that had a value."""
        return sum(self._cells.values())

    @property
    def cells(self) -> Mapping[int, int]:
        """Cell -> count; the order of cells is the order of values."""
        return self._cells

    def quantile(self, share: float) -> float | None:
        """The number below which that share of the values lies, within `RELATIVE_ERROR`; None without values."""
        rank = share * (self.present - 1)
        passed = 0
        for cell in sorted(self._cells):
            passed += self._cells[cell]
            if passed > rank:
                return middle_of(cell)
        return None

    def merged(self, other: Quantiles) -> Quantiles:
        """The sketch of both sets of observations together."""
        both = Quantiles()
        both.missing = self.missing + other.missing
        both._cells = dict(self._cells)
        for cell, count in other._cells.items():
            both._cells[cell] = both._cells.get(cell, 0) + count
        return both

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads; equal sketches give equal text."""
        cells = sorted(self._cells)
        # Differences are short numbers: the text packs to half.
        steps = [cell - before for cell, before in zip(cells, [0, *cells], strict=False)]
        return {
            "kind": "quantiles",
            "missing": self.missing,
            "steps": steps,
            "counts": [self._cells[cell] for cell in cells],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Quantiles:
        """Raises ValueError, KeyError or TypeError for anything `as_json` does not write."""
        read = cls()
        read.missing = count_of(value["missing"])
        cell = 0
        for step, count in zip(value["steps"], value["counts"], strict=True):
            cell += int(step)
            if abs(cell) > HIGHEST_CELL:
                raise ValueError(f"cell {cell} is beyond {HIGHEST_CELL}")
            read._cells[cell] = count_of(count)
        return read

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantiles) and self.missing == other.missing and self._cells == other._cells
