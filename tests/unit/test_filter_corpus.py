"""The pixel verdict on real images and drawn garbage: no good image refused, no garbage passed, the page true."""

from __future__ import annotations

import pytest
from filter_corpus import ACCEPTED, PAGE, Case, judged, page


@pytest.fixture(scope="module")
def results() -> list[tuple[Case, str]]:
    return judged()


def test_no_good_radiograph_or_series_is_refused(results: list[tuple[Case, str]]) -> None:
    good = [(case, verdict) for case, verdict in results if case.good]
    assert len(good) > 40
    assert [f"{case.name}: {verdict}" for case, verdict in good if verdict != ACCEPTED] == []


def test_no_garbage_passes(results: list[tuple[Case, str]]) -> None:
    bad = [(case, verdict) for case, verdict in results if not case.good]
    assert len(bad) > 90
    assert [case.name for case, verdict in bad if verdict == ACCEPTED] == []


def test_garbage_is_ended_for_the_right_reason(results: list[tuple[Case, str]]) -> None:
    wrong = [f"{case.name}: {verdict}" for case, verdict in results if verdict not in case.wanted]
    assert wrong == []


def test_the_published_matrix_is_what_the_code_gives(results: list[tuple[Case, str]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(results), (
        "docs/filter-corpus.md is stale: python tests/unit/filter_corpus.py --write"
    )
