"""The command `outpost ladder`: which rung studies are computed at and why, and how to have that forgotten.

Beside a running service it asks the service's API, with the token of OUTPOST_TOKEN: what the service keeps in memory
and what stands in its journal then never disagree. While no service holds the storage it works on the journal itself,
under the same lock that a starting service wants.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any, Literal

from outpost.codes.answers import complain
from outpost.options import add_json, examples
from outpost.quarantine.cli import common_options

if TYPE_CHECKING:  # what the command needs is imported as it runs
    from outpost.config import Config

_TEXTS = {
    "en": {
        "at": "Studies begin at rung {rung}.",
        "none": "No rung is left: studies wait.",
        "class": "Largest reduction by size of the input",
        "failing": "Known to fail",
        "nothing": "Nothing is known to fail.",
        "line": "{rung} for {shape}: {cause}, {failures} in a row, last {failed_at}; tried again from {tried_again_at}",
        "any": "any input",
        "forgotten": "Forgotten: {forgotten}. The next study begins at the full rung.",
    },
    "ru": {
        "at": "Исследования начинаются со ступени {rung}.",
        "none": "Ступеней не осталось: исследования ждут.",
        "class": "Наибольшее снижение по размеру входа",
        "failing": "Известно, что не работает",
        "nothing": "Неработающих ступеней нет.",
        "line": "{rung} для {shape}: {cause}, подряд {failures}, последний раз {failed_at}; снова с {tried_again_at}",
        "any": "любого входа",
        "forgotten": "Забыто: {forgotten}. Следующее исследование начнётся с полной ступени.",
    },
}


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ladder`."""
    text = "show at which rung studies are computed and why, or have what failed forgotten"
    ladder = commands.add_parser(
        "ladder", help=text, description=text, **examples("outpost ladder status", "outpost ladder reset")
    )
    kinds = ladder.add_subparsers(required=True, metavar="COMMAND")
    for name, help_ in (
        ("status", "what is known to fail, of which inputs, and when it is tried again"),
        (
            "reset",
            "forget it, after memory was added or a fault was repaired; needs a token with the role admin",
        ),
    ):
        kind = kinds.add_parser(
            name,
            parents=[common_options()],
            help=help_,
            description=help_,
            **examples(f"outpost ladder {name}"),
        )
        add_json(kind)
        kind.set_defaults(run=_run, what=name)


def _run(options: argparse.Namespace) -> int:
    from outpost.config import Config, load
    from outpost.quarantine.client import Refused

    try:
        found = _ask(load(options.config, Config), options.what)
    except (Refused, _Refusal) as refusal:
        complain("outpost", refusal, options.language)
        return 1
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(_lines(found, _TEXTS[options.language])))
    return 0


class _Refusal(Exception):
    """The command cannot be done; the text is for the person who typed it."""


def _ask(config: Config, what: Literal["status", "reset"]) -> dict[str, Any]:
    from outpost.quarantine.client import RemoteDesk

    root = config.storage.root
    try:
        lock = (root / ".lock").open("a")
    except OSError as error:
        raise _Refusal(
            f"storage.root {root} cannot be opened ({error.strerror}): run this where the service runs, as its user"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return RemoteDesk(config.api, os.environ.get("OUTPOST_TOKEN", "")).ladder(what)
        return _on_storage(config, what)


def _on_storage(config: Config, what: Literal["status", "reset"]) -> dict[str, Any]:
    """The same while no service runs."""
    from outpost.inference.ladder_status import reset, status_of
    from outpost.inference.plan import make_plan
    from outpost.records.journal import Journal, JournalError

    try:
        journal = Journal(config.storage.root / "journal.sqlite3", config.system)
    except JournalError as error:
        raise _Refusal(str(error)) from None
    try:
        ladder = make_plan(config, journal).ladder
        return reset(ladder, journal, "") if what == "reset" else status_of(ladder)
    finally:
        journal.close()


def _lines(found: dict[str, Any], texts: dict[str, str]) -> list[str]:
    lines = [texts["forgotten"].format_map(found)] if "forgotten" in found else []
    lines.append(texts["at"].format_map(found) if found["rung"] else texts["none"])
    reduced = {name: rung for name, rung in found["by_class"].items() if rung != found["rungs"][0]}
    if reduced:
        lines.append(
            f"{texts['class']}: " + ", ".join(f"{name} {rung or '-'}" for name, rung in reduced.items())
        )
    lines.append(f"{texts['failing']}:" if found["failing"] else texts["nothing"])
    for known in found["failing"]:
        shape = "x".join(map(str, known["shape"])) or texts["any"]
        lines.append("  " + texts["line"].format_map({**known, "shape": shape}))
    return lines
