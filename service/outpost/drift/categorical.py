"""Counts of categories, in bounded memory, that merge exactly.

Up to 1024 different values are counted by name. What has more is no category but garbage (a serial number, a name in
the wrong attribute), and is counted in cells: a cell holds the values whose hashes begin alike, and is named after
the least of them in text order. There are as many bits to a cell as leave 1024 cells at most. That number of bits
depends on the set of values alone, not on the order in which they came or sketches were merged, which heavy-hitter
lists of fixed length (Misra-Gries, Space-Saving) cannot promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

MOST_CELLS = 1024
LABEL_LENGTH = 32
_HASH_BITS = 24

Cell = str | int
Cells = dict[Cell, tuple[int, str]]


class Categories:
    """How often each value occurred, and how often there was none."""

    __slots__ = ("_bits", "_cells", "missing")

    def __init__(self) -> None:
        self._cells: Cells = {}
        self._bits: int | None = None  # of the hash that make a cell; None while values are counted by name
        self.missing = 0

    def add(self, value: str | None, times: int = 1) -> None:
        """Count a value; None is a missing one. Text beyond `LABEL_LENGTH` characters is cut off."""
        if value is None:
            self.missing += times
            return
        label = value[:LABEL_LENGTH]
        cell = label if self._bits is None else _cell(label, self._bits)
        held = self._cells.get(cell)
        if held is not None:
            self._cells[cell] = (held[0] + times, min(held[1], label))
        else:
            self._cells[cell] = (times, label)
            self._bound()

    def has(self, value: str) -> bool:
        """Whether counting this value makes it no larger."""
        label = value[:LABEL_LENGTH]
        return (label if self._bits is None else _cell(label, self._bits)) in self._cells

    @property
    def present(self) -> int:
        """Observations that had a value."""
        return sum(count for count, _ in self._cells.values())

    @property
    def cells(self) -> Mapping[Cell, tuple[int, str]]:
        """Cell -> (count, label). Those of two sketches mean the same if they are `alike`."""
        return self._cells

    def merged(self, other: Categories) -> Categories:
        """The sketch of both sets of observations together."""
        both, added = alike(self, other)
        merged = Categories()
        merged.missing = self.missing + other.missing
        merged._bits = both._bits
        merged._cells = dict(both._cells)
        _add_all(merged._cells, added._cells)
        merged._bound()
        return merged

    def without_rare(self, least: int) -> Categories:
        """The same, but values that occurred fewer than `least` times are counted together, without a name."""
        told = Categories()
        told.missing, told._bits = self.missing, self._bits
        for cell, (count, label) in self._cells.items():
            if count >= least:
                told._cells[cell] = (count, label)
            elif self._bits is None:
                _add_all(told._cells, {"": (count, "")})
            else:
                told._cells[cell] = (count, "")
        return told

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads; equal sketches give equal text."""
        written: dict[str, Any] = {"kind": "categories", "missing": self.missing}
        if self._bits is None:
            return written | {"counts": {str(cell): self._cells[cell][0] for cell in sorted(self._cells)}}
        cells = [[cell, count, label] for cell, (count, label) in self._cells.items()]
        return written | {"bits": self._bits, "cells": sorted(cells)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Categories:
        """Raises ValueError, KeyError or TypeError for anything `as_json` does not write."""
        read = cls()
        read.missing = count_of(value["missing"])
        if "counts" in value:
            for label, count in value["counts"].items():
                read._cells[label[:LABEL_LENGTH]] = (count_of(count), label[:LABEL_LENGTH])
        else:
            read._bits = count_of(value["bits"])
            if not read._bits <= _HASH_BITS:
                raise ValueError(f"cells of {read._bits} bits, {_HASH_BITS} at most")
            for cell, count, label in value["cells"]:
                if not 0 <= int(cell) < 1 << read._bits:
                    raise ValueError(f"cell {cell} has more than {read._bits} bits")
                read._cells[int(cell)] = (count_of(count), str(label)[:LABEL_LENGTH])
        read._bound()
        return read

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Categories)
            and (self.missing, self._bits) == (other.missing, other._bits)
            and self._cells == other._cells
        )

    def _bound(self) -> None:
        while len(self._cells) > MOST_CELLS:
            self._coarsen(_HASH_BITS if self._bits is None else self._bits - 1)

    def _coarsen(self, bits: int) -> None:
        coarser: Cells = {}
        for cell, (count, label) in self._cells.items():
            if isinstance(cell, str):
                wider = _cell(cell, bits)
            else:
                assert self._bits is not None  # cells are numbers
                wider = cell >> (self._bits - bits)
            _add_all(coarser, {wider: (count, label)})
        self._cells, self._bits = coarser, bits


def alike(left: Categories, right: Categories) -> tuple[Categories, Categories]:
    """Both with the same kind of cells, as coarse as the coarser of them."""
    if left._bits == right._bits:
        return left, right
    bits = min(bits for bits in (left._bits, right._bits) if bits is not None)
    return _coarsened(left, bits), _coarsened(right, bits)


def count_of(value: Any) -> int:
    """A count as read from a file. Raises ValueError if it is none."""
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _coarsened(sketch: Categories, bits: int) -> Categories:
    if sketch._bits == bits:
        return sketch
    coarser = Categories()
    coarser.missing, coarser._bits, coarser._cells = sketch.missing, sketch._bits, sketch._cells
    coarser._coarsen(bits)
    return coarser


def _add_all(cells: Cells, more: Mapping[Cell, tuple[int, str]]) -> None:
    for cell, (count, label) in more.items():
        held = cells.get(cell)
        cells[cell] = (count, label) if held is None else (held[0] + count, min(held[1], label))


@lru_cache(maxsize=4096)
def _hash(label: str) -> int:
    # Not hash(): that differs from process to process.
    return int.from_bytes(
        blake2b(label.encode("utf-8", "replace"), digest_size=_HASH_BITS // 8).digest(), "big"
    )


def _cell(label: str, bits: int) -> int:
    return _hash(label) >> (_HASH_BITS - bits)
