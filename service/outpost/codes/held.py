"""Why a study that is whole by its timers waits all the same: what the code in the journal's `held_for` means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class HeldText:
    """What it waits for, and what to do about it, in the languages of the runbooks."""

    meaning: str
    remedy: str
    meaning_ru: str
    remedy_ru: str


HELD: Final[dict[str, HeldText]] = {
    "STUDY_INCOMPLETE": HeldText(
        "Images of the study are missing, so it waits for them; at the time named it ends as the bundle's policy says.",
        "Send the missing images, or the whole study again: it is computed as soon as it is whole.",
        "В исследовании не хватает снимков, оно ждёт их; в указанное время с ним поступят по правилам модели.",
        "Дошлите недостающие снимки или отправьте исследование целиком: его посчитают, как только оно станет полным.",
    ),
    "REVISIONS_HELD": HeldText(
        "New images reopened the study too often: its next revision collects what comes until the time named.",
        "Find out who keeps sending: often the PACS routes every new object back to this service.",
        "Новые снимки слишком часто открывали исследование заново: следующая ревизия копит их до указанного времени.",
        "Выясните, кто шлёт снова и снова: часто PACS возвращает этой службе каждый новый объект.",
    ),
}
