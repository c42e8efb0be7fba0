"""Replaying a table of headers as if its images had come in on their dates: to try limits out on one's own archive.

A table is a CSV file, packed by gzip or not, one image a row. Its columns are named like the tags, or mapped to
them; it is read once, row by row.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

from outpost.codes.failure import told
from outpost.drift.alarms import Alarm, transitions, turning_day
from outpost.drift.book import Book, Value, merge
from outpost.drift.judge import Finding, Limits, judge
from outpost.drift.tags import HEADER, Kind

DATE_COLUMN = "StudyDate"


class TableUnusable(Exception):
    """The table cannot be replayed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Window:
    """One period of a replay: its days, its book, what was found, and which alarms began or ended in it."""

    days: tuple[date, date]
    book: Book
    findings: list[Finding]
    changed: list[Alarm]


def read_days(table: Path, columns: Mapping[str, str], sender: str = "TABLE") -> dict[date, Book]:
    """The books of all days in a table.

    Args:
        table: the CSV file.
        columns: tag (or `StudyDate`, `PatientBirthYear`) -> column in the table. Tags that are not named are not
            watched.
        sender: AE title all rows are counted under.

    Raises:
        TableUnusable: no such file, or columns that it has not.
    """
    days: dict[date, Book] = {}
    try:
        with (
            gzip.open(table, "rt", newline="") if table.suffix == ".gz" else table.open(newline="") as stream
        ):
            rows = csv.reader(stream)
            places = {name: column for column, name in enumerate(next(rows))}
            lacking = [column for column in columns.values() if column not in places]
            if lacking:
                raise TableUnusable(f"{table} has no column {lacking[0]}: it has {', '.join(places)}")
            readers = [
                (tag, places[column], _reader(tag)) for tag, column in columns.items() if tag in HEADER
            ]
            date_place = places[columns[DATE_COLUMN]]
            birth_place = places[columns["PatientBirthYear"]] if "PatientBirthYear" in columns else None
            for row in rows:
                day = _day(row[date_place])
                if day is None:
                    continue
                values: dict[str, Value] = {tag: read(row[place]) for tag, place, read in readers}
                if birth_place is not None:
                    values["PatientAge"] = _age(row[birth_place], day)
                book = days.get(day)
                if book is None:
                    book = days[day] = Book()
                book.add(f"table/{sender.lower()}/{day}", sender, values)
    except (OSError, UnicodeDecodeError, csv.Error, StopIteration, IndexError) as error:
        raise TableUnusable(f"{table} is no CSV table of headers ({told(error)})") from error
    return dict(sorted(days.items()))


def replay(
    days: Mapping[date, Book],
    reference: Book,
    windows: Iterable[tuple[date, date]],
    limits: Limits,
) -> Iterator[Window]:
    """Judge one window after the other as the service would, keeping alarms from one to the next."""
    held: dict[tuple[str, str, str], Alarm] = {}
    for first, last in windows:
        book = merge([days[day] for day in _between(days, first, last)])
        if not book.parts:
            continue
        findings = judge(reference, book, limits)
        # As far back again as the window is long: what began before it is not dated to its first day.
        back = first - (last - first) - timedelta(days=1)
        near = [(day, days[day]) for day in _between(days, back, last)]
        changed = transitions(held, findings, last, limits, lambda finding: turning_day(near, finding))  # noqa: B023 - called at once
        for alarm in changed:
            if alarm.ended_on is None:
                held[alarm.key] = alarm
            else:
                del held[alarm.key]
        yield Window((first, last), book, findings, changed)


def months(first: date, last: date) -> Iterator[tuple[date, date]]:
    """Calendar months from the one of `first` to the one of `last`."""
    begin = first.replace(day=1)
    while begin <= last:
        after = (begin + timedelta(days=32)).replace(day=1)
        yield begin, after - timedelta(days=1)
        begin = after


def rolling(first: date, last: date, length: int) -> Iterator[tuple[date, date]]:
    """Windows of `length` days that end on each day from `first` to `last`: what the service itself does."""
    for number in range((last - first).days + 1):
        end = first + timedelta(days=number)
        yield end - timedelta(days=length - 1), end


def _between(days: Mapping[date, Book], first: date, last: date) -> Sequence[date]:
    return [
        day
        for day in (first + timedelta(days=number) for number in range((last - first).days + 1))
        if day in days
    ]


def _reader(tag: str) -> Callable[[str], Value]:
    return _number if HEADER[tag].kind is Kind.NUMBER else _text


# Cached, so that equal values of many days are one object.
@lru_cache(maxsize=4096)
def _text(cell: str) -> str | None:
    # Tables made by pandas write a whole number as 12.0 where a neighbour was missing.
    text = cell.strip().upper().removesuffix(".0")
    return text if text not in ("", "NAN", "NONE") else None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _day(cell: str) -> date | None:
    digits = cell.strip().removesuffix(".0").replace("-", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _age(birth_year: str, day: date) -> str | None:
    year = _number(birth_year)
    if year is None:
        return None
    age = day.year - int(year)
    return f"{age // 10 * 10}s" if 0 <= age <= 120 else None
