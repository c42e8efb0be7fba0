"""What page, API and command line tell of a system's drift, from its folder alone: the service may run or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from outpost.drift.alarms import Alarm
from outpost.drift.book import Book, merge
from outpost.drift.judge import Limits, judge
from outpost.drift.page import render, title_of
from outpost.drift.replay import Window
from outpost.drift.shelf import Shelf
from outpost.options import Language

# Up to this many weeks are drawn as weeks, more as months.
_WEEKS = 26


def windows(shelf: Shelf, reference: Book | None, limits: Limits, last: date) -> list[Window]:
    """What is kept, in weeks or months up to a day, each judged against the reference."""
    months = shelf.months()
    if not months:
        return []
    begin = months[0][0]
    if (last - begin).days > 7 * _WEEKS:
        periods = [((first, _month_end(first)), book) for first, book in months]
    else:
        days = shelf.days(begin, last)
        count = ((last - begin).days + 7) // 7
        weeks = [last - timedelta(days=7 * number) for number in reversed(range(count))]
        periods = [
            (
                (end - timedelta(days=6), end),
                merge([book for day, book in days if end - timedelta(days=6) <= day <= end]),
            )
            for end in weeks
        ]
    return [
        Window(days, book, judge(reference, book, limits) if reference is not None else [], [])
        for days, book in periods
        if book.parts
    ]


def page(
    system: str,
    shelf: Shelf,
    reference: Book | None,
    alarms: Sequence[Alarm],
    limits: Limits,
    last: date,
    language: Language = "en",
) -> str:
    """The HTML page of a system."""
    title, note = title_of(system, last, language)
    return render(
        title, reference, windows(shelf, reference, limits, last), alarms, limits, note, language=language
    )


def status(reference: Book | None, judged: date | None, alarms: Sequence[Alarm]) -> dict[str, Any]:
    """The same as data."""
    days = reference.days if reference is not None else None
    return {
        "reference": None
        if reference is None or days is None
        else {"from": days[0], "to": days[1], "observations": reference.observations},
        "judged_up_to": judged,
        "open": [asdict(alarm) for alarm in alarms if alarm.ended_on is None],
        "ended": [asdict(alarm) for alarm in alarms if alarm.ended_on is not None],
    }


def text(told: dict[str, Any], alarms: Sequence[Alarm]) -> str:
    """The same as lines for a terminal."""
    reference = told["reference"]
    lines = [
        "no reference: nothing is judged; freeze one with outpost drift freeze"
        if reference is None
        else f"reference {reference['from']} to {reference['to']}, {reference['observations']} observations; "
        f"judged up to {told['judged_up_to'] or 'nothing yet'}"
    ]
    open_ = [alarm for alarm in alarms if alarm.ended_on is None]
    lines += [f"ALARM {alarm}" for alarm in open_] or ["no open alarm"]
    return "\n".join(lines)


def _month_end(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)
