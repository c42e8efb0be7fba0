"""Alarms: a tag of a sender began to differ from the reference, or is back. One each, not one a day."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from outpost.drift.book import ALL, Book, Sketch
from outpost.drift.categorical import Categories
from outpost.drift.compare import common_bins, common_categories, jensen_shannon
from outpost.drift.judge import Finding, Limits, differs, is_back
from outpost.drift.quantiles import Quantiles
from outpost.drift.tags import tag_of

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One difference from its beginning to its end.

    Attributes:
        sender, tag, aspect: of what: `values` of the tag, or how often it is `missing`.
        since: the day it seems to have begun.
        raised_on: last day of the window that showed it.
        ended_on: last day of the window that no longer showed it; None while it goes on.
        test, statistic, adjusted_p, effect, before, now: as the finding that raised it had them.
    """

    sender: str
    tag: str
    aspect: str
    since: date
    raised_on: date
    test: str
    statistic: float
    adjusted_p: float
    effect: float
    before: str
    now: str
    ended_on: date | None = None

    @property
    def key(self) -> Key:
        return self.sender, self.tag, self.aspect

    def __str__(self) -> str:
        tag = tag_of(self.tag)
        whose = "all senders" if self.sender == ALL else f"sender {self.sender}"
        return (
            f"{whose}: {tag.told if tag else self.tag} ({self.tag}): {self.before} -> {self.now}, since about "
            f"{self.since} ({self.test} {self.statistic:.4g}, effect {self.effect:.2f})"
        )


def transitions(
    held: Mapping[Key, Alarm],
    findings: Iterable[Finding],
    last_day: date,
    limits: Limits,
    since: Callable[[Finding], date],
) -> list[Alarm]:
    """What changes: alarms that begin, and those of `held` (the open ones) that end, with `ended_on`.

    What has no finding, for want of observations, stays as it is.
    """
    changed = []
    for finding in findings:
        alarm = held.get(finding.key)
        if alarm is not None:
            if is_back(finding, limits):
                changed.append(replace(alarm, ended_on=last_day))
        elif differs(finding, limits):
            compared = finding.comparison
            changed.append(
                Alarm(
                    *finding.key,
                    since=since(finding),
                    raised_on=last_day,
                    test=compared.test,
                    statistic=compared.statistic,
                    adjusted_p=finding.adjusted_p,
                    effect=compared.effect,
                    before=compared.before,
                    now=compared.now,
                )
            )
    return changed


def bounded(
    held: Mapping[Key, Alarm], changed: Sequence[Alarm], senders: Collection[str], last_day: date, most: int
) -> list[Alarm]:
    """The same changes, so that no more alarms go on than `most`.

    First the oldest end of senders that the window does not have (one that names itself anew each time is never back);
    then those that would begin, and differ least, do not.
    """
    ended = {alarm.key for alarm in changed if alarm.ended_on is not None}
    begun = [alarm for alarm in changed if alarm.ended_on is None]
    beyond = len(held) - len(ended) + len(begun) - most
    if beyond <= 0:
        return list(changed)
    silent = sorted(
        (alarm for key, alarm in held.items() if key not in ended and alarm.sender not in senders),
        key=lambda alarm: alarm.raised_on,
    )[:beyond]
    room = max(0, len(begun) - (beyond - len(silent)))
    kept = sorted(begun, key=lambda alarm: -alarm.effect)[:room]
    return [
        *(alarm for alarm in changed if alarm.ended_on is not None),
        *(replace(alarm, ended_on=last_day) for alarm in silent),
        *kept,
    ]


def turning_day(days: Sequence[tuple[date, Book]], finding: Finding) -> date:
    """The day that parts these days best into a before and an after, for one tag of one sender.

    The best is where the distance of both parts, weighted by how much each has seen, is greatest.
    """
    series = [(day, sketch) for day, book in days if (sketch := _sketch_of(book, finding)) is not None]
    if len(series) < 2:
        return series[0][0] if series else days[0][0]
    before = _running([sketch for _, sketch in series])
    after = _running([sketch for _, sketch in reversed(series)])[::-1]
    best, found = -1.0, series[0][0]
    for index in range(1, len(series)):
        left, right = before[index - 1], after[index]
        sizes = _size(left, finding.aspect), _size(right, finding.aspect)
        if min(sizes):
            weight = sizes[0] * sizes[1] / sum(sizes)
            apart = weight * _distance(left, right, finding.aspect) ** 2
            if apart > best:
                best, found = apart, series[index][0]
    return found


def _sketch_of(book: Book, finding: Finding) -> Sketch | None:
    if finding.sender == ALL:
        return book.pooled().get(finding.tag)
    return book.senders.get(finding.sender, {}).get(finding.tag)


def _running(sketches: Sequence[Sketch]) -> list[Sketch]:
    totals: list[Sketch] = []
    for sketch in sketches:
        if not totals:
            totals.append(sketch)
        elif isinstance(sketch, Categories):
            held = totals[-1]
            assert isinstance(held, Categories)
            totals.append(held.merged(sketch))
        else:
            held = totals[-1]
            assert isinstance(held, Quantiles)
            totals.append(held.merged(sketch))
    return totals


def _size(sketch: Sketch, aspect: str) -> int:
    with_missing = aspect == "missing" or isinstance(sketch, Categories)
    return sketch.present + (sketch.missing if with_missing else 0)


def _distance(left: Sketch, right: Sketch, aspect: str) -> float:
    if aspect == "missing":
        return jensen_shannon(([left.present, left.missing], [right.present, right.missing]))
    if isinstance(left, Categories) and isinstance(right, Categories):
        return jensen_shannon(common_categories(left, right)[1])
    assert isinstance(left, Quantiles)
    assert isinstance(right, Quantiles)
    return jensen_shannon(common_bins(left, right))
