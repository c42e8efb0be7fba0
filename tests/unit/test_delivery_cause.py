"""What each status of C-STORE means for a result, and how long a refusal is waited out."""

from __future__ import annotations

import pytest

from outpost.config import Delivery, Destination
from outpost.delivery.cause import Cure, Outcome, status_of
from outpost.delivery.pace import is_believed

_WARNINGS = [0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xB123, 0xBFFF]
_LASTING = [0x0105, 0x0106, 0x0112, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, 0x0122, 0x0124, 0x0211, 0x0212]
_PASSING = [0xA700, 0xA7FF, 0x0110, 0x0210, 0x0213, 0x1234, 0xFF00, 0xFE00]


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        ([0x0000], Outcome.STORED),
        (_WARNINGS, Outcome.REMARKED),
        ([0x0111], Outcome.HELD),
        ([*_LASTING, *_PASSING, 0xA800, 0xA900, 0xC000], Outcome.FAILED),
    ],
)
def test_what_is_stored_and_what_is_not(codes: list[int], outcome: Outcome) -> None:
    assert {status_of(code).outcome for code in codes} == {outcome}
    assert all(f"0x{code:04X} (" in str(status_of(code)) for code in codes)


@pytest.mark.parametrize(
    ("codes", "cure"),
    [
        ([*_LASTING, 0xA800, 0xA900, 0xA9FF, 0xC122], Cure.PERSON),
        ([0xC000, 0xC001, 0xC211, 0xCFFF], Cure.PERSON_IF_REPEATED),
        (_PASSING, Cure.TIME),
    ],
)
def test_what_repetition_can_cure(codes: list[int], cure: Cure) -> None:
    assert {status_of(code).cure for code in codes} == {cure}
    assert all(status_of(code).remedy for code in codes), "each says what to do"


def test_every_status_there_is_has_a_meaning() -> None:
    assert all(status_of(code).meaning for code in range(0x10000))


def test_a_doubtful_refusal_is_believed_when_the_pause_is_at_its_longest() -> None:
    destination = Destination(name="pacs", ae_title="PACS", host="h", port=104)
    config = Delivery(destinations=(destination,))
    assert [is_believed(config, attempts) for attempts in (0, 1, 6, 7, 50)] == [
        False,
        False,
        False,
        True,
        True,
    ]
