"""The fleet view as text, for a terminal: what `outpost fleet table` and `make demo` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outpost.fleet.page import RUNBOOK, age_in, fault_code, headline_in, word_in
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

# Headings of the four tables, in their order.
_HEALTH: Final[dict[Language, tuple[str, ...]]] = {
    "en": ("REGION", "SYSTEM", "HEALTH", "SINCE (UTC)", "HEARTBEAT", "REASON"),
    "ru": ("РЕГИОН", "СИСТЕМА", "СОСТОЯНИЕ", "С (UTC)", "СИГНАЛ", "ПРИЧИНА"),
}
_REGIONS: Final[dict[Language, tuple[str, ...]]] = {
    "en": ("REGION", "STATE", "AGE", "RELEASE", "DATA THROUGH (UTC)", "REASON"),
    "ru": ("РЕГИОН", "ДАННЫЕ", "ВОЗРАСТ", "ВЕРСИЯ", "ДАННЫЕ ПО (UTC)", "ПРИЧИНА"),
}
_COUNTED: Final[dict[Language, tuple[str, ...]]] = {
    "en": ("REGION", "SYSTEM", "OUTCOME", "MODEL", "RUNG", "STUDIES", "LAST STUDY (UTC)"),
    "ru": ("РЕГИОН", "СИСТЕМА", "ИСХОД", "МОДЕЛЬ", "СТУПЕНЬ", "ИССЛЕДОВАНИЙ", "ПОСЛЕДНЕЕ (UTC)"),
}
_MARKED: Final[dict[Language, tuple[str, ...]]] = {
    "en": ("REGION", "PARTIAL, 24 H", "DOUBTFUL, 24 H", "NEWEST SUCH RESULT (UTC)"),
    "ru": ("РЕГИОН", "НЕПОЛНЫХ, 24 Ч", "СОМНИТЕЛЬНЫХ, 24 Ч", "НОВЕЙШИЙ ТАКОЙ РЕЗУЛЬТАТ (UTC)"),
}
_DO: Final[dict[Language, str]] = {
    "en": "what each [CODE] means and what to do:",
    "ru": "что значит каждый [КОД] и что делать:",
}
_NO_STUDIES: Final[dict[Language, str]] = {"en": "no studies yet", "ru": "исследований пока нет"}
_COLOURS: Final[dict[str, str]] = {"green": "РАБОТАЕТ", "amber": "ВНИМАНИЕ", "red": "НЕ РАБОТАЕТ"}


def render(
    regions: Sequence[Region],
    counted: Sequence[Counted],
    marked: Sequence[Marked] = (),
    health: Sequence[Health] = (),
    language: Language = "en",
) -> str:
    """The views, with the headline that says how many regions work and how many the numbers speak for."""
    parts = [render_health(regions, health, language)]
    if counted:
        lines = [
            (
                c.region,
                c.system,
                word_in(c.outcome, language),
                model_name(c),
                c.rung or "-",
                str(c.studies),
                moment(c.last_finished_at or c.last_received_at),
            )
            for c in counted
        ]
        parts.append(columns(_COUNTED[language], lines))
    else:
        parts.append(_NO_STUDIES[language])
    if marked:
        told = [
            (m.region, _day(m, m.partial_day, language), _day(m, m.doubtful_day, language), marked_newest(m))
            for m in marked
        ]
        parts.append(columns(_MARKED[language], told))
    return "\n\n".join(parts)


def render_health(regions: Sequence[Region], health: Sequence[Health], language: Language = "en") -> str:
    """The headline, each system, and how old the data of each region is."""
    parts = [headline_in(regions, language)]
    if health:
        systems = [
            (
                h.region,
                h.system or "-",
                h.colour.upper() if language == "en" else _COLOURS.get(h.colour, h.colour),
                moment(h.since),
                age_in(h.beat_age_seconds, language),
                _why(h, language),
            )
            for h in health
        ]
        parts.append(columns(_HEALTH[language], systems))
        if any(h.colour != "green" for h in health):
            parts.append(f"{_DO[language]} {RUNBOOK.format(language=language)}")
    if regions:
        rows = [
            (
                r.region,
                word_in(r.state, language),
                age_in(r.age_seconds, language),
                r.release or "-",
                moment(r.data_through),
                _how(r, language),
            )
            for r in regions
        ]
        parts.append(columns(_REGIONS[language], rows))
    return "\n\n".join(parts)


def _why(line: Health, language: Language) -> str:
    """In words, and the codes by which the runbook has its rows."""
    told = line.reasons if language == "en" else line.reasons_ru
    return f"{told} [{' '.join(line.codes)}]" if line.codes else told


def _how(region: Region, language: Language) -> str:
    told = region.reason if language == "en" else region.health_ru or region.reason
    return f"{told} [{code}]" if (code := fault_code(region)) else told


def _day(marked: Marked, count: int | None, language: Language) -> str:
    return marked_day(marked, count) if language == "en" or marked.told else "не сообщает"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their headings, each column as wide as its widest value, the last one free to run on."""
    everything = [head, *rows]
    widths = [max(len(row[i]) for row in everything) for i in range(len(head))]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    )
