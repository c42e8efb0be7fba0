"""Every reason a study or an image can end with is explained, in both languages, where people look for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outpost.delivery.cause import Cause
from outpost.filter.codes import FilterCode
from outpost.filter.pixel_codes import PixelCode
from outpost.inference import Code
from outpost.intake.doors import Turned
from outpost.intake.refusal import Refusal
from outpost.reasons import AT_THE_DOORS, CAUSES, GROUPS, REASON_TABLE, Language, PipelineCode, explain, page

ROOT = Path(__file__).resolve().parents[2]


def test_every_code_is_in_exactly_one_group() -> None:
    codes = [code for group in GROUPS for code in group.reasons]
    assert len(codes) == len(set(codes))
    assert set(codes) == {
        *map(str, Code),
        *map(str, PipelineCode),
        *map(str, FilterCode),
        *map(str, PixelCode),
        *(refusal.name for refusal in Refusal),
    }


def test_every_reason_of_the_doors_is_explained() -> None:
    assert set(AT_THE_DOORS) == {str(code) for code in Turned} - set(REASON_TABLE)
    assert {str(code) for code in Turned} & set(REASON_TABLE) == {
        "OUT_OF_SPACE",
        "TOO_MANY_STUDIES",
        "OUT_OF_SERVICE",
    }


def test_every_cause_of_a_result_that_does_not_arrive_is_explained() -> None:
    assert set(CAUSES) == {str(cause) for cause in Cause}


@pytest.mark.parametrize("code", sorted({*REASON_TABLE, *AT_THE_DOORS, *CAUSES}))
def test_a_code_says_in_english_and_russian_what_it_means_and_what_to_do(code: str) -> None:
    reason = explain(code)
    assert reason is not None
    assert re.fullmatch(r"[A-Z][A-Z_]+|[a-z]+(-[a-z]+)*", code)
    for english in (reason.meaning, reason.remedy):
        assert english.endswith(".")
        assert not re.search("[а-яё]", english, re.IGNORECASE)
    for russian in (reason.meaning_ru, reason.remedy_ru):
        assert russian.endswith(".")
        assert re.search("[а-яё]", russian, re.IGNORECASE)


@pytest.mark.parametrize(("language", "name"), [("en", "reason-codes.md"), ("ru", "reason-codes.ru.md")])
def test_the_page_of_reasons_is_the_table(language: Language, name: str) -> None:
    kept = (ROOT / "docs" / name).read_text()
    assert kept == page(language), f"python -m outpost.reasons {language} > docs/{name}"
