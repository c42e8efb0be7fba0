"""What the centre says of a region: each code in both languages, with a row in the runbook that tells what to do."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import outpost.fleet
from outpost.fleet import page, table
from outpost.fleet.view import STATES, Health, Region
from outpost.fleet.words import _FAULTS, all_words
from outpost.health.codes import CheckCode
from outpost.options import LANGUAGES, Language

ROOT = Path(__file__).resolve().parents[2]
FLEET = Path(outpost.fleet.__file__).parent
RUNBOOK = "docs/runbooks/{language}/region-is-red.md"
WHEN = datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC)


def source(name: str) -> str:
    return (FLEET / name).read_text(encoding="utf-8")


def of_the_view() -> set[str]:
    """Codes that the view `fleet.health_reasons` makes by itself, in its newest version."""
    newest = max(
        (file for file in (FLEET / "sql").glob("*.sql") if "VIEW fleet.health_reasons" in file.read_text()),
        key=lambda file: file.name,
    )
    return set(re.findall(r"^        \('([A-Z_]+)', ", newest.read_text(encoding="utf-8"), re.MULTILINE))


def of_the_centre_itself() -> set[str]:
    return set(re.findall(r'"(FLEET_[A-Z_]+)"', source("app.py")))


def kinds_of_faults() -> set[str]:
    found = set(re.findall(r'(?:Fault|RegionFault)\(\s*"([a-z_]+)"', source("faults.py") + source("sync.py")))
    return found | set(re.findall(r'",\s*"([a-z]+)",\s*(?:"|NO_ANSWER)', source("faults.py")))


def rows(language: Language) -> dict[str, str]:
    """Code -> its row of the runbook."""
    card = (ROOT / RUNBOOK.format(language=language)).read_text(encoding="utf-8")
    return {
        code: line
        for line in card.splitlines()
        if line.startswith("| `")
        for code in re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", line.split(" | ")[0])
    }


def test_every_code_that_the_view_makes_and_every_kind_of_fault_has_words() -> None:
    assert {"SILENT", "NEVER", "RELEASE_HALF", "BOOTS"} <= of_the_view()
    assert of_the_view() <= set(all_words())
    assert {"unreachable", "login", "tls", "cut", "behind", "wrong_region"} <= kinds_of_faults()
    # "unknown" is of a region that is not attached: it has no line at the centre.
    assert {kind.upper() for kind in kinds_of_faults() - {"unknown"}} == set(_FAULTS)


@pytest.mark.parametrize("code", sorted(all_words()))
def test_a_reason_is_said_in_both_languages_and_by_no_makeshift(code: str) -> None:
    words = all_words()[code]
    assert not words.en.startswith("check "), "outpost/fleet/words.py"
    assert re.search("[а-яё]{3}", words.ru)
    if not code.startswith("FAULT_"):
        assert not re.search("[а-яё]", words.en)
        assert re.findall(r"%\d\$s", words.en) == [] or set(re.findall(r"%\d\$s", words.ru)) == set(
            re.findall(r"%\d\$s", words.en)
        )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_that_the_centre_can_show_has_a_row_that_says_what_to_do(language: Language) -> None:
    wanted = {*all_words(), *of_the_centre_itself()}
    found = rows(language)
    assert wanted - set(found) == set()
    assert set(found) - wanted == set(), "rows of codes that nobody shows"
    for code, row in found.items():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) in (3, 4), row
        assert cells[1], row
        assert cells[-1].strip("| ") or code == "FAULT_INCOMPATIBLE", row


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_runbook_names_states_units_and_checks_that_there_are(language: Language) -> None:
    card = (ROOT / RUNBOOK.format(language=language)).read_text(encoding="utf-8")
    for state in STATES:
        assert f"`{state}`" in card
    assert {str(code) for code in CheckCode} <= set(rows(language))
    assert (ROOT / "roles/fleet_database/files/outpost-fleet.service").exists()
    assert f"(runbooks/{language}/region-is-red.md)" in (ROOT / "docs/README.md").read_text(encoding="utf-8")


def health(colour: str, codes: list[str]) -> Health:
    why = [all_words()[code].en.replace("%1$s", "3 min").replace("%2$s", "ok") for code in codes]
    why_ru = [all_words()[code].ru.replace("%1$s", "3 мин").replace("%2$s", "ok") for code in codes]
    return Health(
        "chita", "Чита", "brain", colour, "; ".join(why), "; ".join(why_ru), codes, WHEN, WHEN, 4.0, WHEN,
        "ok", [], True, "full", "", 3, 12.0, 0, None, 1000, 50.0, 500, None, "0.1.0", "b", "1", 1, 1, 0.0,
        why, why_ru,
    )  # fmt: skip


def region(error_class: str | None) -> Region:
    return Region(
        "chita", "Чита", "stale", 400.0, WHEN, 0, 0.1, "no answer", error_class, None, 3, WHEN, WHEN, 10, 0, 0.1,
        "0.1.0", "red", "brain: silent", "brain: молчит",
    )  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_the_code_of_each_reason_and_where_its_row_is(language: Language) -> None:
    shown = page.render(
        [region("refused")], [], [], WHEN, health=[health("red", ["SILENT", "DISK_NEAR"])], language=language
    )
    for code in ("SILENT", "DISK_NEAR", "FAULT_REFUSED"):
        assert f"<code>{code}</code>" in shown
    assert RUNBOOK.format(language=language) in shown
    well = page.render([region(None)], [], [], WHEN, health=[health("green", [])], language=language)
    assert "region-is-red" not in well


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("0 of 1 regions work", "RED", "HEALTH", "[SILENT DISK_NEAR]", "[FAULT_REFUSED]")),
        (
            "ru",
            ("Работают 0 из 1 регионов", "НЕ РАБОТАЕТ", "СОСТОЯНИЕ", "[SILENT DISK_NEAR]", "[FAULT_REFUSED]"),
        ),
    ],
)
def test_the_table_of_a_terminal_speaks_the_readers_language(
    language: Language, words: tuple[str, ...]
) -> None:
    shown = table.render([region("refused")], [], [], [health("red", ["SILENT", "DISK_NEAR"])], language)
    for word in (*words, RUNBOOK.format(language=language)):
        assert word in shown
    if language == "ru":
        for line in shown.splitlines():
            assert not re.search(r"\b(heartbeat|works|studies|REASON|STATE)\b", line), line
