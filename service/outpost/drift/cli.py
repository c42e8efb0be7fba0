"""The command `outpost drift`: look, freeze a reference, merge what devices kept, try limits out on an archive.

`status`, `freeze` and `report` work on the folder of a system (--config), whether the service runs or not; `merge`
and `replay` on files alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from outpost.config import Config, load
from outpost.drift import view
from outpost.drift.alarms import Alarm
from outpost.drift.book import Book, BookUnusable, merge
from outpost.drift.judge import Limits
from outpost.drift.keeper import limits_of
from outpost.drift.page import render
from outpost.drift.register import Register
from outpost.drift.replay import DATE_COLUMN, TableUnusable, Window, months, read_days, replay, rolling
from outpost.drift.shelf import SHIPPED_REFERENCE, Shelf
from outpost.drift.tags import HEADER
from outpost.durable import write_durably

DEFAULTS = Limits()


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `drift` and its subcommands."""
    drift = commands.add_parser("drift", help="see whether what comes in has changed")
    kinds = drift.add_subparsers(required=True, metavar="COMMAND")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("--config", type=Path, required=True, help="YAML file of this system")
    period = argparse.ArgumentParser(add_help=False)
    period.add_argument("--from", dest="first", type=date.fromisoformat, required=True, metavar="DAY")
    period.add_argument("--to", dest="last", type=date.fromisoformat, required=True, metavar="DAY")

    status = kinds.add_parser(
        "status", parents=[configured], help="open alarms; exit status 1 if there are any"
    )
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.set_defaults(run=_told(_status))

    freeze = kinds.add_parser(
        "freeze", parents=[configured, period], help="make the reference of a period of usual work"
    )
    freeze.set_defaults(run=_told(_freeze))

    report = kinds.add_parser("report", parents=[configured], help="write the page with plots")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="HTML file to write")
    report.set_defaults(run=_told(_report))

    merging = kinds.add_parser("merge", help="put the sketches of days, devices or regions together")
    merging.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sketch files (*.gz)")
    merging.add_argument("--out", type=Path, required=True, metavar="FILE", help="sketch file to write")
    merging.set_defaults(run=_told(_merge))

    replaying = kinds.add_parser("replay", help="replay a table of headers as if it came in on its dates")
    replaying.add_argument("table", type=Path, help="CSV file, or packed by gzip: one image a row")
    replaying.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="TAG=NAME",
        help=f"column of a tag; tags: {DATE_COLUMN} (needed), PatientBirthYear, {', '.join(HEADER)}",
    )
    replaying.add_argument(
        "--reference", required=True, metavar="DAY:DAY", help="period of the table that is the reference"
    )
    replaying.add_argument("--from", dest="first", type=date.fromisoformat, metavar="DAY", help="replay from")
    replaying.add_argument("--to", dest="last", type=date.fromisoformat, metavar="DAY", help="replay up to")
    replaying.add_argument(
        "--window",
        type=int,
        metavar="DAYS",
        help="windows of so many days, one a day (default: calendar months)",
    )
    replaying.add_argument("--min-sample", type=int, default=DEFAULTS.min_sample)
    replaying.add_argument("--effect", type=float, default=DEFAULTS.effect)
    replaying.add_argument("--effect-numbers", type=float, default=DEFAULTS.effect_numbers)
    replaying.add_argument("--out", type=Path, metavar="FILE", help="HTML page to write")
    replaying.set_defaults(run=_told(_replay))


def _told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Say in one line what a command cannot do."""

    def told(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except (BookUnusable, TableUnusable, OSError, ValueError) as error:
            print(f"outpost drift: {error}", file=sys.stderr)
            return 2

    return told


def _status(options: argparse.Namespace) -> int:
    config = load(options.config, Config)
    shelf, register = _of(config)
    told = view.status(_reference(config, shelf), register.judged, register.all)
    print(json.dumps(told, default=str) if options.json else view.text(told, register.all))
    return 1 if register.open else 0


def _freeze(options: argparse.Namespace) -> int:
    config = load(options.config, Config)
    shelf, _ = _of(config)
    book = shelf.period(options.first, options.last)
    if book.observations < config.drift.min_sample:
        raise ValueError(
            f"{options.first} to {options.last} holds {book.observations} observations, at least "
            f"{config.drift.min_sample} are wanted: choose a longer period"
        )
    shelf.freeze(book)
    print(
        f"frozen: {book.observations} observations of {len(book.senders)} senders; judged from the next hour on"
    )
    return 0


def _report(options: argparse.Namespace) -> int:
    config = load(options.config, Config)
    shelf, register = _of(config)
    today = datetime.now(UTC).date()
    reference = _reference(config, shelf)
    page = view.page(config.system, shelf, reference, register.all, limits_of(config.drift), today)
    options.out.write_text(page, encoding="utf-8")
    return 0


def _merge(options: argparse.Namespace) -> int:
    books = []
    for file in options.files:
        try:
            books.append(Book.decode(file.read_bytes()))
        except BookUnusable as error:
            raise BookUnusable(f"{file}: {error}") from None
    book = merge(books)
    write_durably(options.out, lambda stream: stream.write(book.encode()))
    days = book.days
    told = f"{days[0]} to {days[1]}" if days else "nothing"
    print(f"{options.out}: {told}, {len(book.parts)} days of systems, {book.observations} observations")
    return 0


def _replay(options: argparse.Namespace) -> int:
    columns = dict(column.partition("=")[::2] for column in options.column)
    unknown = columns.keys() - HEADER.keys() - {DATE_COLUMN, "PatientBirthYear"}
    if unknown or DATE_COLUMN not in columns:
        what = f"no such tag: {sorted(unknown)[0]}" if unknown else f"--column {DATE_COLUMN}=NAME is missing"
        raise ValueError(f"{what}; write --column TAG=NAME for each column")
    begin, _, end = options.reference.partition(":")
    reference_days = date.fromisoformat(begin), date.fromisoformat(end)
    limits = Limits(
        min_sample=options.min_sample, effect=options.effect, effect_numbers=options.effect_numbers
    )
    days = read_days(options.table, columns)
    reference = merge([book for day, book in days.items() if reference_days[0] <= day <= reference_days[1]])
    if not reference.parts:
        raise ValueError(f"the table has no image from {begin} to {end}: choose another --reference")
    first = options.first or reference_days[1] + timedelta(days=1)
    last = options.last or max(days)
    periods = rolling(first, last, options.window) if options.window else months(first, last)
    windows: list[Window] = []
    alarms: list[Alarm] = []
    for window in replay(days, reference, periods, limits):
        windows.append(window)
        for alarm in window.changed:
            print(f"{window.days[1]} {'begins' if alarm.ended_on is None else 'ends'}: {alarm}")
            if alarm.ended_on is not None:
                alarms = [one for one in alarms if one.key != alarm.key or one.ended_on is not None]
            alarms.append(alarm)
    print(
        f"{len(windows)} windows, {len(alarms)} alarms, {sum(a.ended_on is None for a in alarms)} of them open"
    )
    if options.out is not None:
        page = render(f"Replay of {options.table.name}", reference, windows, alarms, limits)
        options.out.write_text(page, encoding="utf-8")
    return 0


def _of(config: Config) -> tuple[Shelf, Register]:
    folder = config.storage.root / "drift"
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: the service has not run with drift.enabled yet")
    return Shelf(folder), Register(folder / "alarms.json")


def _reference(config: Config, shelf: Shelf) -> Book | None:
    return shelf.reference(config.inference.bundle / SHIPPED_REFERENCE)
