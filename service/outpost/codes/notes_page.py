"""The page of documentation of what a result may say of itself, and of why a study may wait.

`python -m outpost.codes.notes_page en|ru` prints docs/result-notes.md and docs/result-notes.ru.md.
"""

from __future__ import annotations

import sys
from typing import Final, Literal

from outpost.codes.held import HELD
from outpost.codes.notes import NOTES, Kind

Language = Literal["en", "ru"]

_HEAD: Final[dict[Language, str]] = {
    "en": """# What a result says of itself

Made by `python -m outpost.codes.notes_page en > docs/result-notes.md`; a test holds it to the tables in
`service/outpost/codes/`. A code is never renamed or reused. [По-русски](result-notes.ru.md).

A result without notes is of the whole study and undoubted. The codes are in the journal (`/studies`, the status page),
in the region's database and at the centre (`fleet.studies`: `notes`, `partial`, `doubtful`); details stay on the host.
What the pixel verdict found and the policy let pass is a note, too: see [reason codes](reason-codes.md). What to do,
step by step: [a result is marked partial](runbooks/en/result-is-partial.md),
[names come out wrong](runbooks/en/names-come-out-wrong.md).
""",
    "ru": """# Что результат говорит о себе

Создано командой `python -m outpost.codes.notes_page ru > docs/result-notes.ru.md`; тест сверяет страницу с таблицами в
`service/outpost/codes/`. Код не переименовывается и не используется повторно. [In English](result-notes.md).

Результат без пометок посчитан по всему исследованию и сомнений не вызывает. Коды пометок есть в журнале службы
(`/studies`, страница состояния), в базе региона и в центре (`fleet.studies`: `notes`, `partial`, `doubtful`);
подробности остаются на сервере. Находка по пикселям, которую пропустили правила, - тоже пометка: см.
[коды причин](reason-codes.ru.md). Что делать по шагам:
[результат помечен как неполный](runbooks/ru/result-is-partial.md),
[искажены имена](runbooks/ru/names-come-out-wrong.md).
""",
}

_TITLES: Final[dict[Kind, tuple[str, str]]] = {
    "part": (
        "The result is of a part: said first in it, *partial* in every view",
        "Результат неполный: сказано в нём первым, *partial* во всех списках",
    ),
    "doubt": (
        "The result is in doubt: said first in it, *doubtful* in every view",
        "Результат сомнительный: сказано в нём первым, *doubtful* во всех списках",
    ),
    "remark": (
        "Remarks: on record, the result holds",
        "Замечания: записаны для сведения, результат в силе",
    ),
}


def page(language: Language) -> str:
    """All notes, and what a held study waits for."""
    russian = language == "ru"
    text = _HEAD[language]
    head = (
        "| код | в результате | что значит | что делать |\n|---|---|---|---|\n"
        if russian
        else "| code | in the result | meaning | remedy |\n|---|---|---|---|\n"
    )
    for kind, (english, in_russian) in _TITLES.items():
        text += f"\n## {in_russian if russian else english}\n\n{head}"
        for code, note in NOTES.items():
            if note.kind == kind:
                meaning, remedy = (
                    (note.meaning_ru, note.remedy_ru) if russian else (note.meaning, note.remedy)
                )
                text += f"| `{code}` | {note.short} | {meaning} | {remedy} |\n"
    if russian:
        text += "\n## Исследование ждёт (`held_for`)\n\n| код | что значит | что делать |\n|---|---|---|\n"
    else:
        text += "\n## A study waits (`held_for`)\n\n| code | meaning | remedy |\n|---|---|---|\n"
    for name, held in HELD.items():
        meaning, remedy = (held.meaning_ru, held.remedy_ru) if russian else (held.meaning, held.remedy)
        text += f"| `{name}` | {meaning} | {remedy} |\n"
    return text


if __name__ == "__main__":
    if sys.argv[1:] not in (["en"], ["ru"]):
        sys.exit("usage: python -m outpost.codes.notes_page en|ru")
    sys.stdout.write(page("ru" if sys.argv[1] == "ru" else "en"))
