"""One window against the reference: which tags differ, by more than chance and by enough to matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outpost.drift.book import ALL, Book, Sketch
from outpost.drift.categorical import Categories
from outpost.drift.compare import (
    KOLMOGOROV_SMIRNOV,
    Comparison,
    compare_categories,
    compare_missing,
    compare_numbers,
    false_discovery,
)
from outpost.drift.quantiles import Quantiles
from outpost.errand import go_on

SENDER_TAG = "Sender"
# Kept apart in a window; an AE title is free text for whoever sends.
_MOST_SENDERS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What makes a difference an alarm; docs/drift.md says where the values come from.

    Attributes:
        min_sample: observations that both must have.
        false_discovery: greatest adjusted probability of chance.
        effect: least effect that begins an alarm, of categories and of how often a tag is missing.
        effect_numbers: the same, of numbers.
        ends_at: share of these below which an alarm ends.
        design_effect: how much more counts vary than those of independent observations: images come in studies,
            studies in patients, patients in wards.
    """

    min_sample: int = 100
    false_discovery: float = 0.01
    effect: float = 0.25
    effect_numbers: float = 0.35
    ends_at: float = 0.75
    design_effect: float = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one aspect (`values` or `missing`) of one tag of one sender."""

    sender: str
    tag: str
    aspect: str
    comparison: Comparison
    adjusted_p: float
    count_before: int
    count_now: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.sender, self.tag, self.aspect


def judge(reference: Book, window: Book, limits: Limits) -> list[Finding]:
    """Compare each sender with itself, or with all of the reference where the reference does not know it.

    More than so many senders, as where one names itself anew each time, are compared as one: what is found has a label
    of a metric each. With more than one sender, all together are compared as well, and how the images share among them.
    A tag without enough observations on either side has no finding.
    """
    window = window.with_senders(_MOST_SENDERS, reference.senders)
    known = reference.pooled()
    found: list[tuple[str, str, str, Comparison, int, int]] = []
    senders = sorted(window.senders)
    if len(window.senders.keys() | reference.senders.keys()) > 1:
        senders.append(ALL)
    for sender in senders:
        before, now = sketches_of(reference, sender), sketches_of(window, sender)
        for tag in sorted(before.keys() & now.keys()):
            go_on()
            found += [
                (sender, tag, *rest) for rest in _compared(before[tag], now[tag], limits, known.get(tag))
            ]
    adjusted = false_discovery([comparison.p for *_, comparison, _, _ in found])
    return [
        Finding(sender, tag, aspect, comparison, q, count_before, count_now)
        for (sender, tag, aspect, comparison, count_before, count_now), q in zip(found, adjusted, strict=True)
    ]


def sketches_of(book: Book, sender: str) -> Mapping[str, Sketch]:
    """The sketches of a sender by tag; of all of them for `ALL`, and for one that the book does not know."""
    if sender in book.senders:
        return book.senders[sender]
    return book.pooled() | ({SENDER_TAG: _senders(book)} if sender == ALL else {})


def differs(finding: Finding, limits: Limits) -> bool:
    """Whether it begins an alarm."""
    return finding.adjusted_p <= limits.false_discovery and finding.comparison.effect >= least_effect(
        finding, limits
    )


def is_back(finding: Finding, limits: Limits) -> bool:
    """Whether it ends one: well below what begins an alarm, so that none flickers."""
    return finding.comparison.effect < limits.ends_at * least_effect(finding, limits)


def least_effect(finding: Finding, limits: Limits) -> float:
    """The effect at which this kind of finding begins an alarm."""
    return limits.effect_numbers if finding.comparison.test == KOLMOGOROV_SMIRNOV else limits.effect


def _compared(
    before: Sketch, now: Sketch, limits: Limits, fallback: Sketch | None
) -> list[tuple[str, Comparison, int, int]]:
    if before.present + before.missing < limits.min_sample and fallback is not None:
        before = fallback
    sizes = before.present + before.missing, now.present + now.missing
    if min(sizes) < limits.min_sample:
        return []
    if isinstance(before, Categories) and isinstance(now, Categories):
        return [("values", compare_categories(before, now, limits.design_effect), *sizes)]
    assert isinstance(before, Quantiles)  # a book has one kind of sketch for a tag
    assert isinstance(now, Quantiles)
    compared = []
    if before.missing or now.missing:
        compared.append(("missing", compare_missing(before, now, limits.design_effect), *sizes))
    present = before.present, now.present
    if min(present) >= limits.min_sample:
        compared.append(("values", compare_numbers(before, now, limits.design_effect), *present))
    return compared


def _senders(book: Book) -> Categories:
    """How the observations share among the senders."""
    counted = Categories()
    for sender, sketches in book.senders.items():
        counted.add(sender, max((s.present + s.missing for s in sketches.values()), default=0))
    return counted
