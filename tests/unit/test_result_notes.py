"""Every note and every reason to wait is explained in both languages, and the pages of them are the tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outpost.codes.held import HELD
from outpost.codes.notes import NOTES, Note, NoteCode, is_doubtful, is_partial, kind_of
from outpost.codes.notes_page import Language, page
from outpost.events import EventCode
from outpost.inference.codes import Code

ROOT = Path(__file__).resolve().parents[2]


def test_every_note_is_explained_in_english_and_russian_and_short_fits_any_character_set() -> None:
    assert set(NOTES) == set(NoteCode)
    for code, text in NOTES.items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,79}", code), "as the region's database wants it"
        assert text.short.isascii()
        # It stands first in Series Description, of 64 characters (LO, PS3.5 6.2).
        assert len(text.short) <= 64 or text.kind == "remark"
        for english in (text.meaning, text.remedy):
            assert english.endswith(".")
            assert not re.search("[а-яё]", english, re.IGNORECASE)
        for russian in (text.meaning_ru, text.remedy_ru):
            assert russian.endswith(".")
            assert re.search("[а-яё]", russian, re.IGNORECASE)


def test_what_a_study_waits_for_is_a_known_code() -> None:
    assert set(HELD) == {Code.STUDY_INCOMPLETE, EventCode.REVISIONS_HELD}
    for text in HELD.values():
        assert re.search("[а-яё]", text.meaning_ru + text.remedy_ru)


def test_a_code_that_nobody_knows_is_a_remark_and_neither_part_nor_doubt() -> None:
    assert kind_of("PIXELS_TEXT") == "remark"
    unknown = [Note("OF_A_LATER_RELEASE"), Note("PIXELS_TEXT")]
    assert not is_partial(unknown)
    assert not is_doubtful(unknown)
    assert is_partial([*unknown, Note(NoteCode.IMAGES_NOT_READ)])
    assert is_doubtful([*unknown, Note(NoteCode.RESULT_DOUBTFUL)])


@pytest.mark.parametrize(("language", "name"), [("en", "result-notes.md"), ("ru", "result-notes.ru.md")])
def test_the_page_of_notes_is_the_table(language: Language, name: str) -> None:
    kept = (ROOT / "docs" / name).read_text()
    assert kept == page(language), f"python -m outpost.codes.notes_page {language} > docs/{name}"
