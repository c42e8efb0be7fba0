"""The command `outpost journal`: what an admin types where a journal may be damaged."""

from __future__ import annotations

import argparse
import fcntl
import json
import sqlite3
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outpost.codes.answers import complain, said
from outpost.options import add_config, add_json, examples, preferred_language


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `journal` and its subcommands."""
    journal = commands.add_parser(
        "journal",
        help="check the journal, or rebuild it from what is left",
        **examples("outpost journal check", "outpost journal rebuild"),
    )
    kinds = journal.add_subparsers(required=True, metavar="COMMAND")
    text = "say whether the journal is sound; changes nothing, also while the service runs"
    check = kinds.add_parser("check", help=text, description=text, **examples("outpost journal check --json"))
    text = (
        "put the journal aside and make a new one of what can be read of it and of spool, outbox and quarantine; "
        "the unit must be stopped"
    )
    rebuild = kinds.add_parser("rebuild", help=text, description=text, **examples("outpost journal rebuild"))
    for parser in (check, rebuild):
        add_config(parser)
        add_json(parser, "print the answer as JSON")
    check.set_defaults(run=_check)
    rebuild.set_defaults(run=_rebuild)


def _check(options: argparse.Namespace) -> int:
    from outpost.config import Config, load
    from outpost.heal.damage import SUSPECT, JournalTooNew, JournalUnusable, judge

    config = load(options.config, Config)
    root = config.storage.root
    answer: dict[str, Any] = {"journal": str(root / "journal.sqlite3"), "sound": False, "checked": _now()}
    try:
        # Of a running service the newest folders may be a moment ahead of its journal: it is asked twice.
        found = judge(root, seconds=3600.0)
        if found is not None and found.reason == "BEHIND":
            found = judge(root, seconds=3600.0)
        answer["sound"] = found is None
        if found is not None:
            answer |= {"reason": found.reason, "detail": found.detail}
            answer["remedy"] = (
                "restart the unit: it rebuilds the journal by itself; or run `outpost journal rebuild`"
            )
    except (JournalUnusable, JournalTooNew) as error:
        answer |= {"reason": "UNUSABLE", "detail": str(error), "remedy": "do what the detail says"}
    answer["aside"] = _aside(root)
    answer["asked_for"] = (root / SUSPECT).is_file()
    if options.json:
        print(json.dumps(answer))
    else:
        language = preferred_language()
        if answer["sound"]:
            print(said("sound", language))
        else:
            print(
                f"{answer['reason']}: {said(answer['detail'], language)}\n{said(answer['remedy'], language)}"
            )
        for folder in answer["aside"]:
            print(said(f"put aside: {folder}", language))
    return 0 if answer["sound"] else 1


def _rebuild(options: argparse.Namespace) -> int:
    from outpost.config import Config, load
    from outpost.heal.damage import Damage, JournalTooNew, JournalUnusable, judge
    from outpost.heal.folders import make_folders
    from outpost.heal.start import heal
    from outpost.inference.bundle import load_bundle
    from outpost.inference.codes import InferenceFailed

    config = load(options.config, Config)
    root = config.storage.root

    def model_reads() -> Collection[str] | None:
        try:
            return load_bundle(config.inference.bundle).sop_class_uids
        except InferenceFailed:
            return None

    try:
        with (root / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                complain(
                    "outpost",
                    f"{root} is in use by the running service: stop its unit first, or restart it: it checks"
                    " the journal as it starts and rebuilds it where that is needed",
                )
                return 1
            make_folders(root)
            wanted = judge(root) or Damage("ASKED_FOR", "an administrator asked for it")
            told = heal(root, config.system, model_reads, lambda _: None, damage=wanted)
    except (JournalUnusable, JournalTooNew, OSError, sqlite3.Error) as error:
        complain("outpost", error)
        return 1
    print(json.dumps({"rebuilt": told}) if options.json else told)
    return 0


def _aside(root: Path) -> list[str]:
    from outpost.heal.steps import ASIDE

    try:
        return sorted(str(path) for path in (root / ASIDE).iterdir() if path.is_dir())
    except OSError:
        return []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
