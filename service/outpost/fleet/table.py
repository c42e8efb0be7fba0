"""The fleet view as text, for a terminal: what `outpost fleet table` and `make demo` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from outpost.fleet.page import RUNBOOK, age_in, fault_code, headline_in, word
from outpost.fleet.view import (
    Counted,
    Health,
    Marked,
    Region,
    marked_day,
    marked_newest,
    model_name,
    moment,
)
from outpost.options import Language

_HEADS: Final[Mapping[Language, Mapping[str, Sequence[str]]]] = {
    "en": {
        "systems": ("REGION", "SYSTEM", "HEALTH", "SINCE (UTC)", "HEARTBEAT", "REASON"),
        "regions": ("REGION", "STATE", "AGE", "RELEASE", "DATA THROUGH (UTC)", "REASON"),
        "studies": ("REGION", "SYSTEM", "OUTCOME", "MODEL", "RUNG", "STUDIES", "LAST STUDY (UTC)"),
        "marked": ("REGION", "PARTIAL, 24 H", "DOUBTFUL, 24 H", "NEWEST SUCH RESULT (UTC)"),
        "none": ("no studies yet",),
        "do": ("what each [CODE] means and what to do:",),
    },
    "ru": {
        "systems": ("РЕГИОН", "СИСТЕМА", "СОСТОЯНИЕ", "С (UTC)", "СИГНАЛ", "ПРИЧИНА"),
        "regions": ("РЕГИОН", "ДАННЫЕ", "ВОЗРАСТ", "ВЕРСИЯ", "ДАННЫЕ ПО (UTC)", "ПРИЧИНА"),
        "studies": ("РЕГИОН", "СИСТЕМА", "ИСХОД", "МОДЕЛЬ", "СТУПЕНЬ", "ИССЛЕДОВАНИЙ", "ПОСЛЕДНЕЕ (UTC)"),
        "marked": ("РЕГИОН", "НЕПОЛНЫХ ЗА СУТКИ", "СОМНИТЕЛЬНЫХ ЗА СУТКИ", "НОВЕЙШИЙ (UTC)"),
        "none": ("исследований пока нет",),
        "do": ("что значит каждый [КОД] и что делать:",),
    },
}
_COLOURS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {},
    "ru": {"green": "зелёный", "amber": "жёлтый", "red": "красный"},
}


def render(
    regions: Sequence[Region],
    counted: Sequence[Counted],
    marked: Sequence[Marked] = (),
    health: Sequence[Health] = (),
    language: Language = "en",
) -> str:
    """The views, with the headline that says how many regions work and how many the numbers speak for."""
    head = _HEADS[language]
    parts = [headline_in(regions, language)]
    if health:
        systems = [
            (
                h.region,
                h.system or "-",
                _COLOURS[language].get(h.colour, h.colour).upper(),
                moment(h.since),
                age_in(h.beat_age_seconds, language),
                _why(h, language),
            )
            for h in health
        ]
        parts.append(columns(head["systems"], systems))
        if any(h.colour != "green" for h in health):
            parts.append(f"{head['do'][0]} {RUNBOOK.format(language=language)}")
    if regions:
        rows = [
            (
                r.region,
                word(r.state, language),
                age_in(r.age_seconds, language),
                r.release or "-",
                moment(r.data_through),
                (r.health_ru if language == "ru" else r.reason)
                + (f" [{fault_code(r)}]" if fault_code(r) else ""),
            )
            for r in regions
        ]
        parts.append(columns(head["regions"], rows))
    if counted:
        lines = [
            (
                c.region,
                c.system,
                word(c.outcome, language),
                model_name(c),
                c.rung or "-",
                str(c.studies),
                moment(c.last_finished_at or c.last_received_at),
            )
            for c in counted
        ]
        parts.append(columns(head["studies"], lines))
    else:
        parts.append(head["none"][0])
    if marked:
        told = [
            (m.region, marked_day(m, m.partial_day), marked_day(m, m.doubtful_day), marked_newest(m))
            for m in marked
        ]
        parts.append(columns(head["marked"], told))
    return "\n\n".join(parts)


def _why(line: Health, language: Language) -> str:
    """In words, and the codes by which the runbook has its rows."""
    told = line.reasons_ru if language == "ru" else line.reasons
    return f"{told} [{' '.join(line.codes)}]" if line.codes else told


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their headings, each column as wide as its widest value, the last one free to run on."""
    everything = [head, *rows]
    widths = [max(len(row[i]) for row in everything) for i in range(len(head))]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    )
