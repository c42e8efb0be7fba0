"""Sketches merge in any order to the same, stay within their bounds, and survive being written down."""

from __future__ import annotations

import json
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpost.drift.categorical import MOST_CELLS, Categories, alike
from outpost.drift.quantiles import HIGHEST_CELL, RELATIVE_ERROR, Quantiles, cell_of, middle_of

values = st.one_of(st.none(), st.text(max_size=40))
numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
usual = st.floats(min_value=1e-5, max_value=1e11).flatmap(lambda size: st.sampled_from([size, -size]))


def categories(observed: list[str | None]) -> Categories:
    sketch = Categories()
    for value in observed:
        sketch.add(value)
    return sketch


def quantiles(observed: list[float | None]) -> Quantiles:
    sketch = Quantiles()
    for value in observed:
        sketch.add(value)
    return sketch


def many(prefix: str, count: int) -> list[str | None]:
    return [f"{prefix}{number}" for number in range(count)]


@given(st.lists(values), st.lists(values), st.lists(values))
def test_categories_merge_in_any_order_and_grouping_to_the_sketch_of_all(a, b, c) -> None:
    one, two, three = categories(a), categories(b), categories(c)
    assert one.merged(two) == two.merged(one) == categories(a + b)
    assert one.merged(two).merged(three) == one.merged(two.merged(three)) == categories(c + b + a)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=25)
def test_categories_merge_exactly_also_where_their_number_is_beyond_the_bound(x, y, z, seed) -> None:
    a, b, c = many("a", 700 * x), many("a", 500 * y) + many("b", 300 * y), many("c", 900 * z)
    one, two, three = categories(a), categories(b), categories(c)
    shuffled = a + b + c
    Random(seed).shuffle(shuffled)
    assert one.merged(two).merged(three) == three.merged(one).merged(two) == categories(shuffled)


def test_garbage_in_a_tag_cannot_make_its_sketch_grow() -> None:
    sketch = categories(["CR"] * 500 + many("serial number ", 20_000))
    assert len(sketch.cells) <= MOST_CELLS
    assert sketch.present == 20_500
    assert len(json.dumps(sketch.as_json())) < 60_000


def test_what_is_frequent_keeps_its_count_beside_garbage() -> None:
    plain, flooded = alike(categories(["CR"] * 500), categories(["CR"] * 500 + many("x", 20_000)))
    (cell,) = plain.cells
    assert 500 <= flooded.cells[cell][0] <= 600


@given(st.lists(values))
def test_categories_survive_being_written(observed) -> None:
    sketch = categories(observed)
    assert Categories.from_json(json.loads(json.dumps(sketch.as_json()))) == sketch


def test_rare_values_lose_their_names_and_none_of_their_counts() -> None:
    sketch = categories(["PHILIPS"] * 50 + ["IVANOV^IVAN", "PETROV^PETR"]).without_rare(10)
    assert sketch.present == 52
    assert "IVANOV" not in json.dumps(sketch.as_json())
    assert sketch.cells["PHILIPS"] == (50, "PHILIPS")


@given(st.lists(numbers), st.lists(numbers), st.lists(numbers))
def test_quantiles_merge_in_any_order_and_grouping_to_the_sketch_of_all(a, b, c) -> None:
    one, two, three = quantiles(a), quantiles(b), quantiles(c)
    assert one.merged(two) == two.merged(one) == quantiles(b + a)
    assert one.merged(two).merged(three) == one.merged(two.merged(three)) == quantiles(a + c + b)


@given(usual)
def test_a_cell_stands_for_its_values_within_the_stated_error(value: float) -> None:
    assert math.isclose(middle_of(cell_of(value)), value, rel_tol=RELATIVE_ERROR * (1 + 1e-9))


@given(usual, usual)
def test_cells_are_in_the_order_of_their_values(left: float, right: float) -> None:
    low, high = sorted((left, right))
    assert cell_of(low) <= cell_of(high)


@given(st.lists(usual, min_size=1), st.floats(0, 1))
def test_every_quantile_is_within_the_stated_error(observed: list[float], share: float) -> None:
    exact = sorted(observed)[math.floor(share * (len(observed) - 1))]
    found = quantiles(list(observed)).quantile(share)
    assert found is not None
    assert math.isclose(found, exact, rel_tol=RELATIVE_ERROR * (1 + 1e-9))


@given(st.lists(numbers))
def test_quantiles_survive_being_written_and_stay_bounded(observed) -> None:
    sketch = quantiles(observed)
    assert Quantiles.from_json(json.loads(json.dumps(sketch.as_json()))) == sketch
    assert all(abs(cell) <= HIGHEST_CELL for cell in sketch.cells)
    assert sketch.present + sketch.missing == len(observed)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Categories, {"missing": -1, "counts": {}}),
        (Categories, {"missing": 0, "counts": {"CR": 1.5}}),
        (Categories, {"missing": 0, "bits": 99, "cells": []}),
        (Categories, {"missing": 0, "bits": 4, "cells": [[16, 1, "x"]]}),
        (Quantiles, {"missing": 0, "steps": [99999], "counts": [1]}),
        (Quantiles, {"missing": 0, "steps": [1, 2], "counts": [1]}),
    ],
)
def test_a_sketch_that_was_tampered_with_is_refused(kind, value) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        kind.from_json(value)
