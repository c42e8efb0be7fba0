"""The command `outpost studies`: studies of any end with what their results say of themselves, and what waits."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from outpost.quarantine.cli import common_options, in_one_line, in_words, open_desk, plain

_STATES = ("receiving", "complete", "inferring", "delivering", "delivered", "rejected", "quarantined")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `studies`."""
    text = "list studies, newest first: what each result says of itself, and what waits"
    studies = commands.add_parser("studies", parents=[common_options()], help=text, description=text)
    studies.add_argument("--marked", action="store_true", help="only results that are partial or doubtful")
    studies.add_argument("--held", action="store_true", help="only studies that wait for images")
    studies.add_argument("--state", choices=_STATES)
    studies.add_argument("--limit", type=int, choices=range(1, 1001), default=50, metavar="N")
    studies.add_argument("--json", action="store_true")
    studies.set_defaults(run=_studies)


@in_one_line
def _studies(options: argparse.Namespace) -> int:
    with open_desk(options) as desk:
        studies = plain(
            desk.studies(state=options.state, marked=options.marked, held=options.held, limit=options.limit)
        )
    if options.json:
        print(json.dumps(studies, ensure_ascii=False))
        return 0
    for study in studies:
        print(_line(study))
        for line in _says(options, study):
            print(f"  {line}")
    return 0


def _line(study: dict[str, Any]) -> str:
    marks = [word for word in ("partial", "doubtful") if study[word]] + (["held"] if study["held"] else [])
    return "  ".join(
        filter(
            None,
            (
                f"study-{study['row']}",
                study["received_at"][:16].replace("T", " "),
                f"{study['study_uid']} r{study['revision']}",
                ", ".join(study["senders"]) or "?",
                f"{study['modality'] or '?'} {study['instances']}",
                " ".join(filter(None, (study["state"], study["reason"]))),
                ", ".join(marks).upper(),
            ),
        )
    )


def _says(options: argparse.Namespace, study: dict[str, Any]) -> list[str]:
    """What is to be told beside the row, gravest first; remarks by their codes alone."""
    russian = options.language == "ru"
    lines = []
    if held := study["held"]:
        until = (study["held_until"] or "")[:16].replace("T", " ")
        wait = f"{'ждёт до' if russian else 'waits until'} {until} UTC" if until else held["code"]
        words = (in_words(options, held, "meaning"), study["detail"], in_words(options, held, "remedy"))
        lines.append(f"{wait}: {_prose(words)}")
    for kind in ("part", "doubt"):
        for note in study["notes"]:
            if note["kind"] == kind:
                words = (
                    in_words(options, note, "meaning"),
                    note["detail"],
                    in_words(options, note, "remedy"),
                )
                lines.append(f"{note['short']}. {_prose(words)}")
    for word in study["delivery_words"]:
        if word["refused_for"]:
            how = "не принимает результат" if russian else "refuses the result"
            lines.append(f"{word['destination']} {how}: {_prose((word['refused_for'], word['error']))}")
        elif word["remark"]:
            how = "сохранил с замечанием" if russian else "stored it with a remark"
            lines.append(f"{word['destination']} {how}: {word['remark']}")
    remarks = dict.fromkeys(note["code"] for note in study["notes"] if note["kind"] == "remark")
    if remarks:
        lines.append(f"{'замечания' if russian else 'remarks'}: {', '.join(remarks)}")
    return lines


def _prose(texts: Iterable[str]) -> str:
    """Texts one after the other, each ended by a full stop."""
    return " ".join(text if text[-1] in ".!?" else f"{text}." for text in texts if text)
