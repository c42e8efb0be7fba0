"""What each status of C-STORE means for a result, how long a refusal is waited out, and what the journal keeps."""

from __future__ import annotations

import pytest
from test_journal import delivering, instance, journal

from outpost.config import Delivery, Destination
from outpost.delivery.cause import Cure, Outcome, status_of
from outpost.delivery.pace import is_believed
from outpost.records.journal import Journal

__all__ = ["journal"]  # the fixture

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


def test_a_remark_stays_when_something_fails_later_and_a_refusal_goes_when_it_was_taken(
    journal: Journal,
) -> None:
    study = delivering(journal)
    journal.note_delivery(study.row, "a.dcm", "pacs", None, proven=False, remark="0xB000 (coerced)")
    journal.note_delivery(study.row, "a.dcm", "pacs", "no commitment", refused_for="commitment-not-offered")
    assert journal.deliveries_refused() == {("pacs", "commitment-not-offered"): 1}
    (kept,) = journal.deliveries(study.row)
    assert (kept.remark, kept.refused_for) == ("0xB000 (coerced)", "commitment-not-offered")
    journal.note_delivery(study.row, "a.dcm", "pacs", None)
    (kept,) = journal.deliveries(study.row)
    assert (kept.remark, kept.refused_for, kept.error) == ("", "", "")
    assert journal.deliveries_refused() == {}


def test_an_event_is_kept_once_a_day_for_each_subject(journal: Journal) -> None:
    assert journal.note_event_daily("DELIVERY_REFUSED", "pacs: not-authorised", ": why (study 1)")
    assert not journal.note_event_daily("DELIVERY_REFUSED", "pacs: not-authorised", ": why (study 2)")
    assert journal.note_event_daily("DELIVERY_REFUSED", "ris: not-authorised", ": why (study 2)")
    assert journal.note_event_daily("DELIVERY_REMARKED", "pacs: not-authorised", "")
    assert [event.detail for event in journal.events()][-1] == "pacs: not-authorised: why (study 1)"


def test_a_revision_is_overtaken_by_what_has_reached_the_same_destination(journal: Journal) -> None:
    first = delivering(journal)
    _, second = journal.add(instance(2))
    assert second is not None
    journal.complete(second.row)
    journal.begin_inference(second.row)
    journal.begin_delivery(
        second.row,
        model="m",
        model_version="1",
        engine="e",
        precision="float32",
        rung="full",
        device="cpu",
        inference_seconds=1,
    )
    assert journal.overtaken("pacs") == {}
    journal.note_delivery(second.row, "b.dcm", "pacs", "no room")
    assert journal.overtaken("pacs") == {}, "what was tried is not there yet"
    journal.note_delivery(second.row, "b.dcm", "pacs", None)
    assert journal.overtaken("pacs") == {first.row: None}
    assert journal.overtaken("ris") == {}
    journal.finish(second.row, "delivered")
    assert journal.overtaken("pacs") == {first.row: 2}
