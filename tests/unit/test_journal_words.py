"""Why a journal was put aside: each word is in the runbook, in both languages, and `outpost journal check` says it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import outpost.heal
from outpost.cli import main
from outpost.options import LANGUAGES, Language

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAL = Path(outpost.heal.__file__).parent


def words() -> set[str]:
    """Reasons of damage that the code can give."""
    text = "".join(file.read_text(encoding="utf-8") for file in HEAL.glob("*.py"))
    found = re.findall(r'Damage\(\s*"([A-Z_]+)"', text) + re.findall(r'write_suspect\(\w+, "([A-Z_]+)"', text)
    found += re.findall(r'\.damage = f"([A-Z_]+):', text) + re.findall(r'else "([A-Z_]+)", detail', text)
    return set(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_for_a_damaged_journal_has_a_row_and_no_other(language: Language) -> None:
    card = (DOCS / "runbooks" / language / "journal-damaged.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([A-Z_]+)` \|", card, re.MULTILINE))
    assert {"CORRUPT", "SUSPECT", "BEHIND", "ASKED_FOR"} <= words()
    assert rows == words()


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", ("NOT_A_DATABASE: it does not begin as an SQLite file does", "restart the unit")),
        ("ru", ("NOT_A_DATABASE: он начинается не как файл SQLite", "перезапустите службу")),
    ],
)
def test_the_check_says_it_in_the_readers_language(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    language: Language,
    told: tuple[str, ...],
) -> None:
    monkeypatch.setenv("OUTPOST_LANGUAGE", language)
    config = tmp_path / "brain.yaml"
    config.write_text(
        f"system: brain\nregion: chita\nstorage: {{root: {tmp_path}}}\n"
        "delivery: {destinations: [{name: pacs, ae_title: PACS, host: 10.78.0.5, port: 104}]}\n"
        "records: {password: one, uid_key: two}\n"
    )
    (tmp_path / "journal.sqlite3").write_bytes(b"overwritten by something else")
    assert main(["journal", "check", "--config", str(config)]) == 1
    shown = capsys.readouterr().out
    for sentence in told:
        assert sentence in shown
