"""`outpost status|studies|events|top` and `outpost config check`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from outpost.codes.answers import complain, faults
from outpost.options import (
    Exit,
    Language,
    add_config,
    add_json,
    add_language,
    examples,
    moment,
    preferred_language,
)

if TYPE_CHECKING:  # what a command needs is imported as it runs
    from outpost.config import Config

# Shows what was found: by this text where it is a system.
_Words = Callable[[dict[str, Any], Language], str]
_Show = Callable[[dict[str, Any], Language, _Words], str]

_STATES = ("receiving", "complete", "inferring", "delivering", "delivered", "rejected", "quarantined")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    status = _command(
        commands,
        "status",
        "how is it: verdict, what fails and what to do, queue, results that wait, disk, last studies",
        "Exit status 1 when it is not well. When the service is down it says so and reads the files alone. At the "
        "centre: all regions.",
        "outpost status",
        "outpost status --language ru",
        "outpost status --json",
    )
    status.add_argument(
        "--drained",
        action="store_true",
        help="only whether anything is still on its way here: exit 0 nothing is, 1 something is and what",
    )
    status.set_defaults(run=_status)

    top = _command(
        commands,
        "top",
        "the same, refreshed; once where it is piped",
        "Ends with Ctrl-C. Needs no terminal abilities: a dumb terminal gets one block below the other.",
        "outpost top",
        "outpost top --interval 10",
        "outpost top --once",
    )
    top.add_argument(
        "--interval", type=_interval, default=2.0, metavar="SECONDS", help="default: %(default)s"
    )
    top.add_argument("--once", action="store_true", help="show it once and end")
    top.set_defaults(run=_top)

    events = _command(
        commands,
        "events",
        "what the service decided by itself, or was told by a person; newest first",
        "`!` marks what needs a person. No event names a patient. Codes: docs/event-codes.md.",
        "outpost events",
        "outpost events --code DELIVERY_REFUSED --since 2026-11-20",
        "outpost events --explain --language ru",
    )
    events.add_argument("--code", help="only this code")
    _add_times(events)
    events.add_argument("--limit", type=int, choices=range(1, 1001), default=50, metavar="N")
    events.add_argument("--explain", action="store_true", help="say below each what it means and what to do")
    events.set_defaults(run=_events)

    studies = _command(
        commands,
        "studies",
        "list studies, newest first: what each result says of itself, and what waits",
        "Shows Study Instance UIDs, by which a PACS finds the study, and never who the patient is.",
        "outpost studies",
        "outpost studies --state quarantined --since 2026-11-20",
        "outpost studies --reason SLICES_MISSING --json",
        "outpost studies --held",
    )
    studies.add_argument("--marked", action="store_true", help="only results that are partial or doubtful")
    studies.add_argument("--held", action="store_true", help="only studies that wait for images")
    studies.add_argument("--state", choices=_STATES, help="only in this state")
    studies.add_argument("--reason", metavar="CODE", help="only with this reason code")
    studies.add_argument("--sender", metavar="AE", help="only with images from this AE title, or stow")
    _add_times(studies)
    studies.add_argument("--limit", type=int, choices=range(1, 1001), default=50, metavar="N")
    studies.set_defaults(run=_studies)

    config = commands.add_parser(
        "config",
        help="look at a configuration file",
        **examples("outpost config check", "outpost config check brain.yaml --json"),
    )
    verbs = config.add_subparsers(required=True, metavar="COMMAND")
    check = verbs.add_parser(
        "check",
        help="judge a configuration file: each fault with its line and what to do; exit 1 when there is one",
        **examples(
            "outpost config check",
            "outpost config check /etc/outpost/brain.yaml",
            "outpost config check --json",
        ),
    )
    check.add_argument(
        "path", type=Path, nargs="?", metavar="FILE", help="the file to judge (default: that of --config)"
    )
    check.add_argument("--config", type=Path, metavar="FILE", help="the same (default: $OUTPOST_CONFIG)")
    add_json(check, "print the faults as JSON")
    check.set_defaults(run=_config_check)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    more: str,
    *shown: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}", **examples(*shown)
    )
    add_config(parser)
    add_language(parser)
    add_json(parser)
    return parser


def _add_times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=moment, metavar="WHEN", help="from this day or moment on, UTC")
    parser.add_argument("--until", type=moment, metavar="WHEN", help="before this day or moment, UTC")


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: write 0.2 to 3600 seconds")
    return seconds


def _config(options: argparse.Namespace) -> Config:
    from outpost.config import Config, load

    return load(options.config, Config)


def _asks_centre(options: argparse.Namespace) -> bool:
    """Whether it is the configuration of the centre's collector."""
    from outpost.console.judge import is_centre

    return is_centre(options.config)


def _status(options: argparse.Namespace) -> int:
    from outpost.console import text

    look, show, judge = _view(options)
    if options.drained and _asks_centre(options):
        return _say_drained("fleet", {}, options.language, as_json=options.json)
    found = look()
    if options.drained:
        return _drained(found, options.language, as_json=options.json)
    print(_as_json(found) if options.json else show(found, options.language, text.status))
    return judge(found)


def _view(
    options: argparse.Namespace,
) -> tuple[Callable[[], dict[str, Any]], _Show, Callable[[dict[str, Any]], int]]:
    """How to look, to show it to people and to judge it: at a system, or from the centre at all regions."""
    if _asks_centre(options):
        from outpost.config import load
        from outpost.console import text
        from outpost.fleet import console
        from outpost.fleet.config import FleetConfig

        centre = load(options.config, FleetConfig)

        def show(found: dict[str, Any], language: Language, words: _Words) -> str:
            return console.text(found, language, whole=words is text.status)

        return lambda: console.summary(centre), show, console.judged
    from outpost.console import look

    config = _config(options)
    return lambda: look.summary(config), lambda found, language, words: words(found, language), _judged


def _as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, default=lambda moment: moment.isoformat())


def _drained(found: dict[str, Any], language: Language, *, as_json: bool) -> int:
    """Whether a host may be taken out of service: nothing is received, computed or waiting for a destination."""
    if found["work"] is None or found["outbox"] is None:
        return _cannot(Exception(found["work_fault"] or "the outbox cannot be read: run this as root"))
    waiting = {state: queue["studies"] for state, queue in found["work"]["queue"].items() if queue["studies"]}
    if found["outbox"]["studies"]:
        waiting["outbox"] = found["outbox"]["studies"]
    return _say_drained(found["system"], waiting, language, as_json=as_json)


def _say_drained(system: str, waiting: dict[str, int], language: Language, *, as_json: bool) -> int:
    from outpost.console import text

    if as_json:
        print(json.dumps({"drained": not waiting, "waiting": waiting}))
    else:
        print(text.drained(system, waiting, language))
    return Exit.FOUND if waiting else Exit.OK


def _judged(found: dict[str, Any]) -> int:
    """0 well, 1 not well, 3 where neither the service nor its files could be asked."""
    if found["service"]["verdict"] == "ok" and not found["failing"] and found["work"] is not None:
        return Exit.OK
    if found["service"]["state"] in ("stopped", "unknown") and found["work"] is None:
        return Exit.CANNOT_ASK
    return Exit.FOUND


def _top(options: argparse.Namespace) -> int:
    from outpost.console import text

    look, show, judge = _view(options)
    language: Language = options.language
    terminal = sys.stdout.isatty()
    clears = terminal and os.environ.get("TERM", "dumb") not in ("", "dumb")
    try:
        while True:
            found = look()
            if options.json:
                print(_as_json(found), flush=True)
            else:
                # Home and erase line by line: a screen that is cleared whole flickers.
                shown = show(found, language, text.top)
                print(
                    "\033[H" + shown.replace("\n", "\033[K\n") + "\033[K\n\033[J" if clears else shown,
                    flush=True,
                )
            if options.once or not terminal:
                return judge(found)
            if not clears:
                print(flush=True)
            time.sleep(options.interval)
    except KeyboardInterrupt:
        return Exit.OK  # that is how one leaves it


def _events(options: argparse.Namespace) -> int:
    from outpost.console import look, text

    try:
        with look.reading(_config(options)) as journal:
            found = look.events(
                journal, code=options.code, since=options.since, until=options.until, limit=options.limit
            )
    except look.CannotAsk as fault:
        return _cannot(fault)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    elif found:
        print(text.events(found, options.language, remedies=options.explain))
    else:
        print("нет событий" if options.language == "ru" else "no events")
    return Exit.OK


def _studies(options: argparse.Namespace) -> int:
    from outpost.console import look
    from outpost.quarantine.cli import plain
    from outpost.quarantine.studies_text import lines
    from outpost.records.explained import explained
    from outpost.records.said import newest

    try:
        with look.reading(_config(options)) as journal:
            records = newest(
                journal,
                state=options.state,
                marked=options.marked,
                held=options.held,
                reason=options.reason,
                sender=options.sender,
                since=options.since,
                until=options.until,
                limit=options.limit,
            )
            found = plain(explained(journal, records))
    except look.CannotAsk as fault:
        return _cannot(fault)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return Exit.OK
    if not found:
        print("нет таких исследований" if options.language == "ru" else "no such studies", file=sys.stderr)
    for line in lines(found, options.language):
        print(line)
    return Exit.OK


def _cannot(fault: Exception) -> int:
    complain("outpost", fault)
    return Exit.CANNOT_ASK


_FITS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "system": "ok, the configuration of an inference system",
        "fleet": "ok, the configuration of the centre's collector",
    },
    "ru": {
        "system": "в порядке, конфигурация ИИ-системы",
        "fleet": "в порядке, конфигурация сборщика центра",
    },
}


def _config_check(options: argparse.Namespace) -> int:
    from outpost.console.judge import judge

    configured = options.path or options.config or os.environ.get("OUTPOST_CONFIG")
    if not configured:
        complain("outpost config check", "name a file, or set OUTPOST_CONFIG")
        return Exit.USAGE
    path = Path(configured)
    judged = judge(path)
    if options.json:
        print(judged.as_json(path))
    elif not judged.faults:
        print(f"{path}: {_FITS[preferred_language()][judged.kind]}")
    else:
        what = "1 fault" if len(judged.faults) == 1 else f"{len(judged.faults)} faults"
        language = preferred_language()
        print(faults(f"{path}: {what}", language))
        for fault in judged.faults:
            print(f"  {faults(str(fault), language)}")
    return Exit.FOUND if judged.faults else Exit.OK
