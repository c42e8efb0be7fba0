"""The command `outpost drift`: look, freeze a reference, merge what devices kept, try limits out on an archive.

`status`, `freeze` and `report` work on the folder of a system (--config), whether the service runs or not; `merge`
and `replay` on files alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from outpost.codes.answers import complain
from outpost.codes.spoken import spoken
from outpost.options import Exit, add_config, add_json, examples, preferred_language

if TYPE_CHECKING:  # what a command needs is imported as it runs
    from outpost.config import Config
    from outpost.drift.alarms import Alarm
    from outpost.drift.book import Book
    from outpost.drift.register import Register
    from outpost.drift.replay import Window
    from outpost.drift.shelf import Shelf


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `drift` and its subcommands."""
    drift = commands.add_parser(
        "drift",
        help="see whether what comes in has changed",
        **examples("outpost drift status", "outpost drift report --output /tmp/drift.html"),
    )
    kinds = drift.add_subparsers(required=True, metavar="COMMAND")
    configured = argparse.ArgumentParser(add_help=False)
    add_config(configured)
    period = argparse.ArgumentParser(add_help=False)
    period.add_argument("--from", dest="first", type=date.fromisoformat, required=True, metavar="DAY")
    period.add_argument("--to", dest="last", type=date.fromisoformat, required=True, metavar="DAY")

    status = kinds.add_parser(
        "status",
        parents=[configured],
        help="open alarms; exit status 1 if there are any",
        **examples("outpost drift status", "outpost drift status --json"),
    )
    add_json(status)
    status.set_defaults(run=_told(_status))

    freeze = kinds.add_parser(
        "freeze",
        parents=[configured, period],
        help="make the reference of a period of usual work",
        **examples("outpost drift freeze --from 2026-09-01 --to 2026-10-31"),
    )
    freeze.set_defaults(run=_told(_freeze))

    report = kinds.add_parser(
        "report",
        parents=[configured],
        help="write the page with plots",
        **examples("outpost drift report --output /tmp/drift.html", "outpost drift report > /tmp/drift.html"),
    )
    _add_output(report, "HTML file to write (default: standard output)")
    report.set_defaults(run=_told(_report))

    merging = kinds.add_parser(
        "merge",
        help="put the sketches of days, devices or regions together",
        **examples("outpost drift merge chita/*.gz tver/*.gz --output both.gz"),
    )
    merging.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sketch files (*.gz)")
    _add_output(merging, "sketch file to write", required=True)
    merging.set_defaults(run=_told(_merge))

    replaying = kinds.add_parser(
        "replay",
        help="replay a table of headers as if it came in on its dates",
        **examples(
            "outpost drift replay headers.csv --column StudyDate=date --column Modality=modality "
            "--reference 2011-01-01:2011-12-31"
        ),
    )
    replaying.add_argument("table", type=Path, help="CSV file, or packed by gzip: one image a row")
    replaying.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="TAG=NAME",
        help="column of a tag; StudyDate is needed, a wrong tag is answered with the list of all",
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
    replaying.add_argument("--min-sample", type=int)
    replaying.add_argument("--effect", type=float)
    replaying.add_argument("--effect-numbers", type=float)
    _add_output(replaying, "HTML page to write")
    replaying.set_defaults(run=_told(_replay))


def _add_output(parser: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
    """-o, --output; its older spelling --out works on."""
    parser.add_argument("-o", "--output", "--out", type=Path, required=required, metavar="FILE", help=text)


class _NotThere(Exception):
    """The service has kept nothing of drift yet."""


def _told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Say in one line what a command cannot do."""

    @functools.wraps(run)
    def told(options: argparse.Namespace) -> int:
        from outpost.drift.book import BookUnusable
        from outpost.drift.replay import TableUnusable

        try:
            return run(options)
        except _NotThere as error:
            complain("outpost drift", error)
            return Exit.CANNOT_ASK
        except (BookUnusable, TableUnusable, OSError, ValueError) as error:
            complain("outpost drift", error)
            return Exit.USAGE

    return told


def _status(options: argparse.Namespace) -> int:
    from outpost.drift import view

    config = _config(options)
    shelf, register = _of(config)
    told = view.status(_reference(config, shelf), register.judged, register.all)
    print(json.dumps(told, default=str) if options.json else view.text(told, register.all))
    return 1 if register.open else 0


def _freeze(options: argparse.Namespace) -> int:
    config = _config(options)
    shelf, _ = _of(config)
    book = shelf.period(options.first, options.last)
    if book.observations < config.drift.min_sample:
        raise ValueError(
            f"{options.first} to {options.last} holds {book.observations} observations, at least "
            f"{config.drift.min_sample} are wanted: choose a longer period"
        )
    shelf.freeze(book)
    told = f"frozen: {book.observations} observations of {len(book.senders)} senders; judged from the next hour on"
    print(spoken(told, preferred_language()))
    return 0


def _report(options: argparse.Namespace) -> int:
    from outpost.drift import view
    from outpost.drift.keeper import limits_of

    config = _config(options)
    shelf, register = _of(config)
    today = datetime.now(UTC).date()
    reference = _reference(config, shelf)
    page = view.page(
        config.system, shelf, reference, register.all, limits_of(config.drift), today, preferred_language()
    )
    if options.output is None:
        sys.stdout.write(page)
    else:
        options.output.write_text(page, encoding="utf-8")
    return 0


def _merge(options: argparse.Namespace) -> int:
    from outpost.drift.book import Book, BookUnusable, merge
    from outpost.durable import write_durably

    books = []
    for file in options.files:
        try:
            books.append(Book.decode(file.read_bytes()))
        except BookUnusable as error:
            raise BookUnusable(f"{file}: {error}") from None
    book = merge(books)
    write_durably(options.output, lambda stream: stream.write(book.encode()))
    days = book.days
    told = f"{days[0]} to {days[1]}" if days else "nothing"
    line = f"{options.output}: {told}, {len(book.parts)} days of systems, {book.observations} observations"
    print(spoken(line, preferred_language()))
    return 0


def _replay(options: argparse.Namespace) -> int:
    from outpost.drift.book import merge
    from outpost.drift.judge import Limits
    from outpost.drift.page import render
    from outpost.drift.replay import DATE_COLUMN, months, read_days, replay, rolling
    from outpost.drift.tags import HEADER

    columns = dict(column.partition("=")[::2] for column in options.column)
    unknown = columns.keys() - HEADER.keys() - {DATE_COLUMN, "PatientBirthYear"}
    if unknown or DATE_COLUMN not in columns:
        known = ", ".join((DATE_COLUMN, "PatientBirthYear", *HEADER))
        what = (
            f"no such tag: {sorted(unknown)[0]}; tags: {known}"
            if unknown
            else f"--column {DATE_COLUMN}=NAME is missing"
        )
        raise ValueError(f"{what}; write --column TAG=NAME for each column")
    begin, _, end = options.reference.partition(":")
    reference_days = date.fromisoformat(begin), date.fromisoformat(end)
    given = {name: getattr(options, name) for name in ("min_sample", "effect", "effect_numbers")}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
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
            how = "begins" if alarm.ended_on is None else "ends"
            print(spoken(f"{window.days[1]} {how}: {alarm}", preferred_language()))
            if alarm.ended_on is not None:
                alarms = [one for one in alarms if one.key != alarm.key or one.ended_on is not None]
            alarms.append(alarm)
    still = sum(alarm.ended_on is None for alarm in alarms)
    print(spoken(f"{len(windows)} windows, {len(alarms)} alarms, {still} of them open", preferred_language()))
    if options.output is not None:
        page = render(f"Replay of {options.table.name}", reference, windows, alarms, limits)
        options.output.write_text(page, encoding="utf-8")
    return 0


def _config(options: argparse.Namespace) -> Config:
    from outpost.config import Config, load

    return load(options.config, Config)


def _of(config: Config) -> tuple[Shelf, Register]:
    from outpost.drift.register import Register
    from outpost.drift.shelf import Shelf

    folder = config.storage.root / "drift"
    if not folder.is_dir():
        raise _NotThere(f"{folder} does not exist: the service has not run with drift.enabled yet")
    return Shelf(folder), Register(folder / "alarms.json")


def _reference(config: Config, shelf: Shelf) -> Book | None:
    from outpost.drift.shelf import SHIPPED_REFERENCE

    return shelf.reference(config.inference.bundle / SHIPPED_REFERENCE)
