"""How far two sketches of one tag lie apart, and whether chance explains it. Standard library only.

Both are brought onto common bins first. Probabilities are the asymptotic ones; `tests/unit/test_drift_compare.py`
holds them against scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from outpost.drift.categorical import Categories, Cell, alike
from outpost.drift.quantiles import Quantiles

CHI_SQUARE, KOLMOGOROV_SMIRNOV = "chi-square", "kolmogorov-smirnov"

# Values that occurred fewer times are not named in anything that people or other hosts see.
RARE = 10
# Categories kept apart; the rest counts as one.
_APART = 12
# Bins of numbers, of equal share of the reference.
_BINS = 10
# The usual rule for chi-square: cells in which fewer are expected are thrown together.
_EXPECTED = 5.0

Counts = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Now against the reference.

    Attributes:
        test: `chi-square` or `kolmogorov-smirnov`.
        statistic: of the test.
        p: probability of one at least as great by chance.
        effect: how much changed, 0 to 1, whatever the sample: the Kolmogorov-Smirnov distance of numbers, the
            Jensen-Shannon distance of categories.
        distance: Jensen-Shannon distance, base 2: 0 is alike, 1 is nothing in common.
        psi: population stability index.
        before, now: what each was, in words.
    """

    test: str
    statistic: float
    p: float
    effect: float
    distance: float
    psi: float
    before: str
    now: str


def compare_categories(reference: Categories, now: Categories, design_effect: float) -> Comparison:
    """Compare values, a missing one counting as a value. Both hold observations."""
    labels, counts = common_categories(reference, now)
    statistic, p = chi_square(counts, design_effect)
    return _compared(CHI_SQUARE, statistic, p, counts, *_most_changed(labels, counts))


def compare_missing(
    reference: Categories | Quantiles, now: Categories | Quantiles, design_effect: float
) -> Comparison:
    """Compare how often there was no value. Both hold observations."""
    counts = ([reference.present, reference.missing], [now.present, now.missing])
    statistic, p = chi_square(counts, design_effect)
    told = [f"missing in {_percent(missing, present + missing)}" for present, missing in counts]
    return _compared(CHI_SQUARE, statistic, p, counts, *told)


def compare_numbers(reference: Quantiles, now: Quantiles, design_effect: float) -> Comparison:
    """Compare the values that are there. Both hold some."""
    statistic = kolmogorov_smirnov(reference, now)
    sizes = reference.present, now.present
    p = kolmogorov_smirnov_p(statistic, *(size / design_effect for size in sizes))
    counts = common_bins(reference, now)
    return _compared(KOLMOGOROV_SMIRNOV, statistic, p, counts, _spread(reference), _spread(now))


def _compared(test: str, statistic: float, p: float, counts: Counts, before: str, now: str) -> Comparison:
    distance = jensen_shannon(counts)
    effect = statistic if test == KOLMOGOROV_SMIRNOV else distance
    return Comparison(test, statistic, p, effect, distance, stability_index(counts), before, now)


# --- common bins ---


def common_categories(reference: Categories, now: Categories) -> tuple[list[str], Counts]:
    """The most frequent values of either by name, then `other` and `missing` where they occur."""
    reference, now = alike(reference, now)
    shares: dict[Cell, float] = {}
    for sketch in (reference, now):
        size = max(1, sketch.present + sketch.missing)
        for cell, (count, _) in sketch.cells.items():
            shares[cell] = max(shares.get(cell, 0.0), count / size)
    apart = sorted(shares, key=lambda cell: (-shares[cell], str(cell)))[:_APART]
    labels, left, right = [], [], []
    for cell in apart:
        named = [sketch.cells[cell] for sketch in (reference, now) if cell in sketch.cells]
        # What is rare is no device, and might be a person typed into the wrong attribute: it is not named.
        labels.append(min((label for count, label in named if label and count >= RARE), default="(rare)"))
        left.append(reference.cells.get(cell, (0, ""))[0])
        right.append(now.cells.get(cell, (0, ""))[0])
    for label, a, b in (
        ("other", reference.present - sum(left), now.present - sum(right)),
        ("missing", reference.missing, now.missing),
    ):
        if a or b:
            labels.append(label)
            left.append(a)
            right.append(b)
    return labels, (left, right)


def common_bins(reference: Quantiles, now: Quantiles) -> Counts:
    """Values of both in bins between the deciles of the reference."""
    cells = sorted(reference.cells)
    size, passed = reference.present, 0
    bounds: list[int] = []  # a bin ends with this cell
    for cell in cells[:-1]:
        passed += reference.cells[cell]
        if passed >= size * (len(bounds) + 1) / _BINS:
            bounds.append(cell)
            if len(bounds) == _BINS - 1:
                break
    # What lies below all that the reference ever had is a bin of its own; so is what lies above.
    bounds = [cells[0] - 1, *bounds, cells[-1]]
    return _binned(reference, bounds), _binned(now, bounds)


def _binned(sketch: Quantiles, bounds: Sequence[int]) -> list[int]:
    counts = [0] * (len(bounds) + 1)
    index = 0
    for cell in sorted(sketch.cells):
        while index < len(bounds) and cell > bounds[index]:
            index += 1
        counts[index] += sketch.cells[cell]
    return counts


# --- distances ---


def jensen_shannon(counts: Counts) -> float:
    """Jensen-Shannon distance (root of the divergence, base 2), 0 to 1."""
    sizes = [sum(side) for side in counts]
    divergence = 0.0
    for a, b in zip(*counts, strict=True):
        p, q = a / sizes[0], b / sizes[1]
        middle = (p + q) / 2
        divergence += sum(share * math.log2(share / middle) / 2 for share in (p, q) if share)
    return math.sqrt(max(0.0, divergence))


def stability_index(counts: Counts) -> float:
    """Population stability index; an empty cell counts as half an observation."""
    sizes = [sum(side) for side in counts]
    index = 0.0
    for a, b in zip(*counts, strict=True):
        if a or b:
            p, q = max(a, 0.5) / sizes[0], max(b, 0.5) / sizes[1]
            index += (q - p) * math.log(q / p)
    return index


# --- tests ---


def chi_square(counts: Counts, design_effect: float = 1.0) -> tuple[float, float]:
    """Pearson's statistic of homogeneity, divided by the design effect (Rao and Scott's first correction), and p."""
    left, right = counts
    sizes = sum(left), sum(right)
    share = [size / sum(sizes) for size in sizes]
    kept: list[tuple[int, int]] = []
    few = (0, 0)
    for a, b in zip(left, right, strict=True):
        if min(share) * (a + b) < _EXPECTED:
            few = (few[0] + a, few[1] + b)
        else:
            kept.append((a, b))
    if sum(few):
        kept.append(few)
    statistic = 0.0
    for a, b in kept:
        for found, expected in ((a, share[0] * (a + b)), (b, share[1] * (a + b))):
            statistic += (found - expected) ** 2 / expected
    statistic /= design_effect
    return statistic, chi_square_p(statistic, len(kept) - 1)


def chi_square_p(statistic: float, freedom: int) -> float:
    """Probability of a chi-square at least as great: the upper regularised gamma function, of whole or half order."""
    if freedom < 1 or statistic <= 0:
        return 1.0
    half = statistic / 2
    # Q(a + 1, x) = Q(a, x) + x^a e^-x / gamma(a + 1), upwards from Q(1, x) or Q(1/2, x) (DLMF 8.8.6).
    order, total = (1.0, math.exp(-half)) if freedom % 2 == 0 else (0.5, math.erfc(math.sqrt(half)))
    while order < freedom / 2:
        total += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return min(1.0, total)


def kolmogorov_smirnov(reference: Quantiles, now: Quantiles) -> float:
    """Greatest distance of the two cumulative shares."""
    sizes = reference.present, now.present
    passed = [0, 0]
    greatest = 0.0
    for cell in sorted(reference.cells.keys() | now.cells.keys()):
        passed[0] += reference.cells.get(cell, 0)
        passed[1] += now.cells.get(cell, 0)
        greatest = max(greatest, abs(passed[0] / sizes[0] - passed[1] / sizes[1]))
    return greatest


def kolmogorov_smirnov_p(distance: float, left: float, right: float) -> float:
    """Probability of such a distance between samples of these sizes: Kolmogorov's limit, at Stephens' argument.

    Stephens 1970, Journal of the Royal Statistical Society B 32, 115-122. With ties, as here, it is too great
    rather than too small.
    """
    root = math.sqrt(left * right / (left + right))
    size = (root + 0.12 + 0.11 / root) * distance
    if size < 0.2:
        return 1.0
    terms = ((2 if k % 2 else -2) * math.exp(-2 * (k * size) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def false_discovery(ps: Sequence[float]) -> list[float]:
    """Adjusted probabilities after Benjamini and Hochberg: keeping those below q keeps a share q of false ones."""
    order = sorted(range(len(ps)), key=lambda index: ps[index], reverse=True)
    adjusted = [1.0] * len(ps)
    least = 1.0
    for place, index in enumerate(order):
        least = min(least, ps[index] * len(ps) / (len(ps) - place))
        adjusted[index] = least
    return adjusted


# --- words ---


def _most_changed(labels: Sequence[str], counts: Counts) -> tuple[str, str]:
    """The two values whose shares differ most, in each."""
    sizes = [sum(side) for side in counts]
    moved = sorted(
        range(len(labels)),
        key=lambda i: (-abs(counts[0][i] / sizes[0] - counts[1][i] / sizes[1]), i),
    )[:2]
    before, now = (
        ", ".join(f"{labels[i]} {_percent(side[i], size)}" for i in moved)
        for side, size in zip(counts, sizes, strict=True)
    )
    return before, now


def _spread(sketch: Quantiles) -> str:
    low, middle, high = (sketch.quantile(share) for share in (0.1, 0.5, 0.9))
    return f"median {middle:.4g}, 80 % in {low:.4g} to {high:.4g}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"
