"""Studies as lines of text: what results say of themselves, what waits, what destinations said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from outpost.options import Language


def lines(studies: Sequence[dict[str, Any]], language: Language) -> Iterator[str]:
    """A line a study (as `records.explained` gives it), below it what is to be told beside the row."""
    for study in studies:
        yield _line(study)
        yield from (f"  {line}" for line in _says(language, study))


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


def _says(language: Language, study: dict[str, Any]) -> list[str]:
    """What is to be told beside the row, gravest first; remarks by their codes alone."""
    russian = language == "ru"
    lines = []
    if held := study["held"]:
        until = (study["held_until"] or "")[:16].replace("T", " ")
        wait = f"{'ждёт до' if russian else 'waits until'} {until} UTC" if until else held["code"]
        words = (
            _in_words(language, held, "meaning"),
            _in_words(language, study, "detail"),
            _in_words(language, held, "remedy"),
        )
        lines.append(f"{wait}: {_prose(words)}")
    for kind in ("part", "doubt"):
        for note in study["notes"]:
            if note["kind"] == kind:
                words = (
                    _in_words(language, note, "meaning"),
                    _in_words(language, note, "detail"),
                    _in_words(language, note, "remedy"),
                )
                lines.append(f"{note['short']}. {_prose(words)}")
    for word in study["delivery_words"]:
        if word["refused_for"]:
            how = "не принимает результат" if russian else "refuses the result"
            told = [word["refused_for"], *(_in_words(language, word, key) for key in ("error", "remedy"))]
            lines.append(f"{word['destination']} {how}: {_prose(told)}")
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


def _in_words(language: Language, explained: dict[str, Any], key: str) -> str:
    return str(explained[f"{key}_ru" if language == "ru" else key])
