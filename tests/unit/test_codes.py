"""Every code that an installation can show is explained in English and Russian, and is in a table that people find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outpost.codes import event_texts
from outpost.codes.event_texts import EVENTS
from outpost.events import EventCode
from outpost.health import codes as health
from outpost.health.codes import CHECKS, CheckCode
from outpost.health.russian import RUSSIAN
from outpost.options import LANGUAGES, Language
from outpost.platform import codes as platform

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIRST_CARD = "service-does-not-answer.md"


def page(name: str, language: Language) -> str:
    return (DOCS / (f"{name}.md" if language == "en" else f"{name}.ru.md")).read_text(encoding="utf-8")


def in_language(text: str, language: Language) -> bool:
    letters = re.sub(r"`[^`]*`|[A-Z_]{4,}", "", text)
    return bool(re.search("[а-яё]{3}", letters, re.IGNORECASE)) is (language == "ru")


@pytest.mark.parametrize("code", list(CheckCode))
def test_a_check_says_in_both_languages_what_it_proves_and_what_to_do(code: CheckCode) -> None:
    assert code in CHECKS
    assert code in RUSSIAN, "outpost/health/russian.py"
    for language in LANGUAGES:
        for text in (health.proves(code, language), health.remedy(code, language)):
            assert text.rstrip().endswith("."), text
            assert in_language(text, language), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_check_is_in_the_first_cards_table_that_an_admin_opens(language: Language) -> None:
    card = (DOCS / "runbooks" / language / FIRST_CARD).read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith("| `")]
    named = {code for row in rows for code in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", row.split(" | ")[0])}
    assert {str(code) for code in CheckCode} <= named, {str(c) for c in CheckCode} - named
    assert named <= {*map(str, CheckCode), *map(str, EventCode)}


@pytest.mark.parametrize("code", list(EventCode))
def test_an_event_says_in_both_languages_what_it_means_and_what_to_do(code: EventCode) -> None:
    assert code in EVENTS, "outpost/codes/event_texts.py"
    text = EVENTS[code]
    for english, russian in ((text.meaning, text.meaning_ru), (text.remedy, text.remedy_ru)):
        assert english.endswith(".")
        assert russian.endswith(".")
        assert in_language(english, "en")
        assert in_language(russian, "ru")


@pytest.mark.parametrize("code", list(platform.CODES))
def test_a_line_of_preflight_speaks_both_languages(code: str) -> None:
    known = platform.CODES[code]
    for words in (known.proves, known.remedy):
        assert in_language(words.en, "en"), words.en
        assert in_language(words.ru, "ru"), words.ru
    assert set(platform.GROUPS) <= set(platform._GROUPS_RU)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("name", "make"),
    [("health-codes", health.page), ("event-codes", event_texts.page), ("preflight", platform.page)],
    ids=["health", "events", "preflight"],
)
def test_the_pages_are_the_tables(name: str, make: object, language: Language) -> None:
    assert callable(make)
    assert page(name, language) == make(language), "make pages"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_code_is_on_one_page_alone(language: Language) -> None:
    for name in ("health-codes", "event-codes", "preflight", "reason-codes"):
        codes = {lang: re.findall(r"^\| `([\w-]+)` \|", page(name, lang), re.MULTILINE) for lang in LANGUAGES}
        assert codes["en"] == codes["ru"] != []
