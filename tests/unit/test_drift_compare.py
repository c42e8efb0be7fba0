"""Tests and distances are those of the textbooks: scipy says the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from outpost.drift.categorical import Categories
from outpost.drift.compare import (
    chi_square,
    chi_square_p,
    common_categories,
    compare_categories,
    compare_numbers,
    false_discovery,
    jensen_shannon,
    kolmogorov_smirnov,
    kolmogorov_smirnov_p,
)
from outpost.drift.quantiles import Quantiles


def numbers(values) -> Quantiles:
    sketch = Quantiles()
    for value in values:
        sketch.add(float(value))
    return sketch


def categories(**counts: int) -> Categories:
    sketch = Categories()
    for value, count in counts.items():
        sketch.add(value, count)
    return sketch


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("statistic", [0.01, 1.0, 5.5, 40.0, 300.0])
def test_the_tail_of_chi_square_is_scipys(freedom: int, statistic: float) -> None:
    assert chi_square_p(statistic, freedom) == pytest.approx(stats.chi2.sf(statistic, freedom), rel=1e-9)


def test_the_chi_square_test_is_scipys() -> None:
    table = ([120, 30, 50], [200, 90, 60])
    expected = stats.chi2_contingency(np.array(table), correction=False)
    assert chi_square(table) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)


def test_the_jensen_shannon_distance_is_scipys() -> None:
    left, right = [10, 0, 5, 85], [20, 30, 0, 50]
    assert jensen_shannon((left, right)) == pytest.approx(
        distance.jensenshannon(left, right, base=2), rel=1e-9
    )


def test_the_kolmogorov_smirnov_distance_is_scipys_but_for_the_width_of_a_cell() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.lognormal(5, 0.6, 3000), rng.lognormal(5.2, 0.6, 1000)
    expected = stats.ks_2samp(left, right, method="asymp")
    found = kolmogorov_smirnov(numbers(left), numbers(right))
    assert found <= expected.statistic + 1e-12  # nothing is seen that is not there
    assert found == pytest.approx(expected.statistic, abs=0.01)


@pytest.mark.parametrize("found", [0.05, 0.08, 0.12])
def test_the_probability_of_a_distance_is_near_scipys_exact_one(found: float) -> None:
    expected = stats.kstwo.sf(found, 300)
    assert kolmogorov_smirnov_p(found, 600, 600) == pytest.approx(expected, rel=0.1)


def test_the_adjusted_probabilities_are_scipys() -> None:
    ps = [0.001, 0.2, 0.03, 0.04, 0.5, 0.011]
    assert false_discovery(ps) == pytest.approx(list(stats.false_discovery_control(ps)))


def test_samples_of_one_source_are_seldom_significant() -> None:
    rng = np.random.default_rng(7)
    found = [
        compare_numbers(numbers(rng.normal(100, 15, 400)), numbers(rng.normal(100, 15, 400)), 1.0).p
        for _ in range(200)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.09


def test_a_category_that_takes_over_is_told_by_name() -> None:
    compared = compare_categories(categories(CR=100), categories(CR=65, DX=35), 1.0)
    assert compared.p < 1e-6
    assert (compared.before, compared.now) == ("CR 100 %, DX 0 %", "CR 65 %, DX 35 %")


def test_sketches_counted_by_name_and_by_hash_are_compared_on_common_cells() -> None:
    flooded = categories(**{f"x{number}": 1 for number in range(3000)})
    labels, (left, right) = common_categories(categories(x7=500), flooded)
    assert sum(left) == 500
    assert sum(right) == 3000
    assert "other" in labels
