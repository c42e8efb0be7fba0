"""The command `outpost quarantine`: what a hospital's admin types on the server.

While the service runs it is asked over its API (a token, where tokens are configured, comes from OUTPOST_TOKEN);
while it does not, the storage is opened directly and held until the command ends. Which of the two is decided by
the lock that the service holds on the storage, so never both.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outpost.codes.answers import complain
from outpost.codes.found import detail
from outpost.codes.spoken import spoken
from outpost.options import Exit, add_config, add_json, add_language, examples, moment, preferred_language

if TYPE_CHECKING:  # what the commands need is imported as they run
    from outpost.quarantine.client import RemoteDesk
    from outpost.quarantine.desk import Desk

_MIB = 1 << 20


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `quarantine` and its subcommands."""
    common = common_options()
    quarantine = commands.add_parser(
        "quarantine",
        help="look at what ended without a result, and try it again",
        **examples("outpost quarantine list", "outpost quarantine show study-12"),
    )
    kinds = quarantine.add_subparsers(required=True, metavar="COMMAND")

    listing = kinds.add_parser(
        "list",
        parents=[common],
        help="list items, newest first, and counts by reason",
        **examples(
            "outpost quarantine list --sender CT2 --since 2026-11-20",
            "outpost quarantine list --reason LOCALIZER --limit 200",
        ),
    )
    listing.add_argument("--reason", help="only this reason code")
    listing.add_argument("--sender", help="only from this AE title")
    listing.add_argument("--since", type=moment, help="only since this day (YYYY-MM-DD) or moment, UTC")
    listing.add_argument("--after", metavar="ITEM", help="the next page: what comes after this item")
    listing.add_argument("--limit", type=int, choices=range(1, 1001), default=50, metavar="N")
    listing.add_argument("--gone", action="store_true", help="also what has left quarantine")
    add_json(listing)
    listing.set_defaults(run=_list)

    show = kinds.add_parser(
        "show",
        parents=[common],
        help="show one item, and what its header says",
        **examples("outpost quarantine show study-12", "outpost quarantine show file-7 --json"),
    )
    show.add_argument("item", help="study-N or file-N, as the list shows it")
    show.add_argument("--identity", action="store_true", help="with who the patient is")
    add_json(show)
    show.set_defaults(run=_show)

    thumbnail = kinds.add_parser(
        "thumbnail",
        parents=[common],
        help="write an image of an item as PNG",
        **examples("outpost quarantine thumbnail study-12 -o /tmp/12.png"),
    )
    thumbnail.add_argument("item")
    thumbnail.add_argument("--image", type=int, metavar="N", help="which, from 0 (default: the middle one)")
    thumbnail.add_argument("--large", action="store_true", help="large enough to read what is written in it")
    thumbnail.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    thumbnail.set_defaults(run=_thumbnail)

    resubmit = kinds.add_parser(
        "resubmit",
        parents=[common],
        help="have items computed as if they came now",
        **examples("outpost quarantine resubmit study-12 file-7"),
    )
    resubmit.add_argument("items", nargs="+", metavar="ITEM", help="study-N, file-N or a Study Instance UID")
    resubmit.add_argument(
        "--skip-filter", action="store_true", help="overrule the filter; this is written down"
    )
    resubmit.set_defaults(run=_resubmit)

    export = kinds.add_parser(
        "export",
        parents=[common],
        help="write an item's images and a manifest as tar",
        **examples("outpost quarantine export study-12 -o /tmp/study-12.tar"),
    )
    export.add_argument("item")
    export.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    export.set_defaults(run=_export)

    report = kinds.add_parser(
        "report",
        parents=[common],
        help="who sends what cannot be used, to be forwarded",
        **examples("outpost quarantine report --days 30 --format html -o /tmp/report.html"),
    )
    report.add_argument("--days", type=int, default=30, help="how many, up to --until (default: %(default)s)")
    report.add_argument("--until", type=moment, help="day or moment, UTC (default: now)")
    report.add_argument("--format", choices=("text", "html", "json"), default="text")
    report.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    report.set_defaults(run=_report)


def common_options() -> argparse.ArgumentParser:
    """--config and --language, for every command that asks the service or its storage."""
    common = argparse.ArgumentParser(add_help=False)
    add_config(common)
    add_language(common)
    return common


class _Refusal(Exception):
    """The command cannot be done; the text is for the person who typed it."""

    def __init__(self, text: str, status: Exit = Exit.FOUND) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def open_desk(options: argparse.Namespace) -> Iterator[Desk | RemoteDesk]:
    """The running service's desk, or one of our own on the storage that no service holds."""
    from outpost.config import Config, load

    config = load(options.config, Config)
    from outpost.quarantine.again import CannotResubmit
    from outpost.quarantine.client import Refused, RemoteDesk
    from outpost.quarantine.desk import Desk
    from outpost.quarantine.look import CannotLook
    from outpost.quarantine.shelf import NoSuchItem

    root = config.storage.root
    try:
        lock = (root / ".lock").open("a")
    except OSError as error:
        raise _Refusal(
            f"storage.root {root} cannot be opened ({error.strerror}): run this where the service runs, as its user",
            Exit.CANNOT_ASK,
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                yield RemoteDesk(config.api, os.environ.get("OUTPOST_TOKEN", ""))
            except Refused as refused:
                raise _Refusal(str(refused), Exit.FOUND if refused.answered else Exit.CANNOT_ASK) from None
            return
        from outpost.intake.spool import Spool
        from outpost.records.journal import Journal, JournalError

        try:
            journal = Journal(root / "journal.sqlite3", config.system)
        except JournalError as error:
            raise _Refusal(str(error), Exit.CANNOT_ASK) from None
        except sqlite3.Error as error:
            raise _Refusal(
                f"the journal cannot be opened ({error}): `outpost journal check` says more; a service that starts"
                " rebuilds a damaged one",
                Exit.CANNOT_ASK,
            ) from None
        try:
            spool = Spool(root, journal, config.intake.disk_reserve_mib, config.intake.disk_used_percent)
            yield Desk(journal, spool, None, config.quarantine)
        except (NoSuchItem, CannotResubmit, CannotLook) as refused:
            raise _Refusal(str(refused)) from None
        finally:
            journal.close()


def in_one_line(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Say what a command cannot do in one line: exit status 1, or 3 where nobody could be asked."""

    @functools.wraps(command)
    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except _Refusal as refusal:
            complain("outpost", refusal, getattr(options, "language", None))
            return refusal.status

    return run


@in_one_line
def _list(options: argparse.Namespace) -> int:
    with open_desk(options) as desk:
        reasons = plain(desk.reasons())
        page = plain(
            desk.listed(
                reason=options.reason,
                sender=options.sender,
                since=options.since,
                after=options.after,
                gone=options.gone,
                limit=options.limit,
            )
        )
    if options.json:
        print(json.dumps({"reasons": reasons, **page}, ensure_ascii=False))
        return 0
    for reason in reasons:
        told = (
            f"{reason['reason']}: {reason['items']} held, {reason['bytes'] / _MIB:.1f} of "
            f"{reason['max_bytes'] / _MIB:.0f} MiB; {reason['evicted']} left for the quota. "
            f"{in_words(options, reason, 'meaning')}"
        )
        print(spoken(told, options.language))
    if reasons:
        print()
    heads = ("ITEM", "ENDED (UTC)", "FROM", "MODALITY", "IMAGES", "MIB", "OUTCOME", "REASON")
    rows = [tuple(spoken(head, options.language) for head in heads)]
    rows += [
        (
            item["item"],
            item["at"][:16].replace("T", " "),
            ", ".join(item["senders"]) or "?",
            item["modality"] or "?",
            str(item["instances"]),
            f"{item['bytes'] / _MIB:.1f}",
            spoken(f"{item['outcome']} (gone)", options.language) if item["evicted_at"] else item["outcome"],
            item["reason"],
        )
        for item in page["items"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if page["next"]:
        print(spoken(f"more: --after {page['next']}", options.language))
    return 0


@in_one_line
def _show(options: argparse.Namespace) -> int:
    with open_desk(options) as desk:
        item = plain(desk.show(options.item, identity=options.identity))
    if options.json:
        print(json.dumps(item, ensure_ascii=False))
        return 0
    print(f"{item['item']}: {item['outcome']}, {item['reason']}")
    print(f"  {in_words(options, item, 'meaning')}")
    print(f"  {in_words(options, item, 'remedy')}")
    if item["detail"]:
        print(f"  {detail(item['detail'], options.language)}")
    told = {
        "ended": item["at"],
        "from": ", ".join(item["senders"]),
        "study": f"{item['study_uid']} revision {item['revision']}" if item["study_uid"] else "",
        "images": f"{item['images']} here of {item['instances']}, {item['bytes'] / _MIB:.1f} MiB",
        "left": f"{item['evicted_at']} ({item['evicted_for']})" if item["evicted_at"] else "",
        "header": item["header_fault"],
        **item["header"],
    }
    for name, value in told.items():
        if value and name in item["header"]:
            print(f"  {name}: {value}")
        elif value:
            print(f"  {spoken(name, options.language)}: {spoken(str(value), options.language)}")
    return 0


@in_one_line
def _thumbnail(options: argparse.Namespace) -> int:
    with open_desk(options) as desk:
        picture = desk.picture(options.item, options.image, large=options.large)
    _write(options.output, [picture])
    return 0


@in_one_line
def _resubmit(options: argparse.Namespace) -> int:
    status: int = Exit.OK
    for name in options.items:  # one that cannot be done does not keep the others
        try:
            with open_desk(options) as desk:
                done = desk.resubmit(name, skip_filter=options.skip_filter)
            told = f"{name}: waits as {done['item']}, revision {done['revision']}"
            print(spoken(told, getattr(options, "language", preferred_language())))
        except _Refusal as refusal:
            complain(f"outpost: {name}", refusal, getattr(options, "language", None))
            status = max(status, refusal.status)
    return status


@in_one_line
def _export(options: argparse.Namespace) -> int:
    with open_desk(options) as desk:
        _write(options.output, desk.archive(options.item))
    return 0


@in_one_line
def _report(options: argparse.Namespace) -> int:
    if not 1 <= options.days <= 3660:
        raise _Refusal(f"--days {options.days}: write 1 to 3660")
    until = options.until or datetime.now(UTC)
    with open_desk(options) as desk:
        made = desk.report(until - timedelta(days=options.days), until, options.format, options.language)
    text = made if isinstance(made, str) else json.dumps(plain(made), ensure_ascii=False) + "\n"
    _write(options.output, [text.encode()])
    return 0


def in_words(options: argparse.Namespace, explained: dict[str, Any], key: str) -> str:
    return str(explained[f"{key}_ru" if options.language == "ru" else key])


def plain(value: Any) -> Any:
    """As it comes over the API: dates are text."""
    return json.loads(json.dumps(value, default=_iso))


def _iso(value: date) -> str:
    return value.isoformat()


def _write(output: Path | None, pieces: Iterable[bytes]) -> None:
    """To a file that appears whole, or to standard output, which must not be a terminal for what is no text."""
    if output is not None:
        partial = output.with_name(f"{output.name}.partial")
        try:
            with partial.open("wb") as stream:
                for piece in pieces:
                    stream.write(piece)
            partial.replace(output)
        except OSError as error:
            raise _Refusal(f"{output} cannot be written ({error.strerror}): name another place") from None
        finally:
            partial.unlink(missing_ok=True)
        return
    for piece in pieces:
        if sys.stdout.isatty() and b"\0" in piece:
            raise _Refusal("this is no text: write it to a file with -o FILE, or with > FILE")
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
