"""The report by sender: each study once, shares that add up, words an admin can forward, and no patient in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from outpost.codes.notes import Note
from outpost.quarantine.page import render
from outpost.quarantine.report import Report, make_report, percent, text
from outpost.records.counts import MOST_SENDERS, refused_by_sender, studies_by_sender
from outpost.records.journal import Instance, Journal, utc_now

UID = "1.2.643.777"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3", "brain")


def ended(
    journal: Journal, number: int, sender: str, reason: str, modality: str = "CT", notes: Sequence[Note] = ()
) -> int:
    """A study of one image that ended so; without a reason it was delivered. Its journal row."""
    study = f"{UID}.{number}"
    image = Instance(f"{study}.1", study, f"{study}.2", "1.2", "1.2.1", modality, "d", 10, sender)
    _, record = journal.add(image)
    assert record is not None
    journal.complete(record.row)
    if reason:
        outcome = "quarantined" if reason == "INFERENCE_TIMEOUT" else "rejected"
        journal.finish(record.row, outcome, reason, "KANAREYKA^IVAN")
        return record.row
    deliver(journal, record.row, notes)
    return record.row


def deliver(journal: Journal, row: int, notes: Sequence[Note] = ()) -> None:
    journal.begin_inference(row)
    journal.begin_delivery(
        row, model="m", model_version="1", engine="e", precision="p", rung="full", device="cpu", inference_seconds=1.0,
        notes=notes,
    )  # fmt: skip
    journal.finish(row, "delivered")


@pytest.fixture
def report(journal: Journal) -> Report:
    reasons = ["LOCALIZER"] * 19 + ["DOSE_REPORT"] * 3 + ["INFERENCE_TIMEOUT"] + [""] * 27
    for number, reason in enumerate(reasons):
        ended(journal, number, "CT2", reason)
    for number in range(10):
        ended(journal, 100 + number, "MR<1>", "", modality="MR")
    for _ in range(4):
        journal.refuse("NOT_DICOM", "quarantine/NOT_DICOM/x.dcm", 10, "GATEWAY")
    return make_report(journal, utc_now() - timedelta(days=30), utc_now() + timedelta(seconds=1))


def test_it_says_which_share_of_whose_studies_is_what_in_both_languages(report: Report) -> None:
    english = text(report, "en")
    assert "38 % of studies from CT2 (19 of 50): LOCALIZER. Nothing but localizers" in english
    assert "38 % of all studies (23 of 60) gave no result" in english
    assert "From MR<1> (MR): studies 10; delivered 10, rejected 0, quarantined 0" in english
    assert "Single images from GATEWAY not taken: 4, NOT_DICOM." in english
    russian = text(report, "ru")
    assert "38 % исследований от CT2 (19 из 50): LOCALIZER. " in russian
    assert "Что делать: Настройте отправителя" in russian
    assert [sender.name for sender in report.senders] == ["CT2", "GATEWAY", "MR<1>"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_page_is_whole_in_itself_and_what_a_sender_calls_itself_is_no_html(
    report: Report, language: str
) -> None:
    page = render(report, language)  # type: ignore[arg-type] # one of the two
    assert "MR&lt;1&gt;" in page
    assert "MR<1>" not in page
    assert not re.search(r"(src|href)=|https?://|@import|url\(|<script", page)
    for plot in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(plot)  # noqa: S314 - our own
    assert page.count("<svg") == 2 + 3
    assert f'<html lang="{language}">' in page


def test_nothing_in_it_names_a_study_or_a_patient(report: Report) -> None:
    for language in ("en", "ru"):
        for told in (text(report, language), render(report, language), str(report)):  # type: ignore[arg-type]
            assert "KANAREYKA" not in told
            assert UID not in told


def test_a_study_computed_again_counts_once_as_it_ended_at_last(journal: Journal) -> None:
    row = ended(journal, 1, "CT2", "LOCALIZER")
    again = journal.resubmit(row, skip_filter=True, told="")
    period = (utc_now() - timedelta(days=1), utc_now() + timedelta(days=1))
    assert [share.reason for share in make_report(journal, *period).senders[0].reasons] == ["LOCALIZER"]
    deliver(journal, again.row)
    [sender] = make_report(journal, *period).senders
    assert (sender.studies, sender.delivered, sender.reasons) == (1, 1, ())


def test_it_says_who_sends_parts_and_what_is_in_doubt_also_where_a_whole_one_followed(
    journal: Journal,
) -> None:
    part, doubt = (
        Note("STUDY_PARTIAL", "126 of 181"),
        Note("RESULT_DOUBTFUL", 'as ["STUDY_PARTIAL", "x"] has it'),
    )
    row = ended(journal, 1, "CT2", "", notes=[part])
    deliver(journal, journal.resubmit(row, skip_filter=False, told="").row)
    ended(journal, 2, "CT2", "", notes=[part, doubt])
    ended(journal, 3, "MR1", "", notes=[doubt])
    ended(journal, 4, "MR2", "", notes=[Note("OBJECT_LEFT_OUT", '["STUDY_PARTIAL", "')])
    ended(journal, 5, "MR3", "")
    report = make_report(journal, utc_now() - timedelta(days=1), utc_now() + timedelta(days=1))

    assert [(s.name, s.partial, s.doubtful) for s in report.senders] == [
        ("CT2", 2, 1),
        ("MR1", 0, 1),
        ("MR2", 0, 0),
        ("MR3", 0, 0),
    ]
    english, russian = text(report, "en"), text(report, "ru")
    assert "Partial results: 2, doubtful: 2." in english
    assert "Partial results from CT2: 2. The result was computed on a part of the images" in english
    assert "What to do: Send the missing images" in english
    assert "Неполных результатов: 2, сомнительных: 2." in russian
    assert "Сомнительных результатов по исследованиям от MR1: 1." in russian
    assert "Partial results from CT2: 2." in render(report, "en")
    assert "126 of 181" not in english + russian + render(report, "ru")
    assert asdict(report)["senders"][0]["partial"] == 2


def test_only_what_ended_in_the_period_counts(journal: Journal) -> None:
    ended(journal, 1, "CT2", "LOCALIZER")
    now = utc_now()
    assert make_report(journal, now - timedelta(days=1), now + timedelta(days=1)).studies == 1
    empty = make_report(journal, now + timedelta(days=1), now + timedelta(days=2))
    assert (empty.studies, empty.senders) == (0, ())
    assert "No study ended in this period." in text(empty, "en")
    assert "<svg" not in render(empty, "ru")


def test_many_senders_are_summed_up(journal: Journal) -> None:
    for number in range(35):
        ended(journal, number, f"CT{number}", "LOCALIZER")
    report = make_report(journal, utc_now() - timedelta(days=1), utc_now() + timedelta(days=1))
    assert len(report.senders) == 31
    assert (report.senders[0].name, report.senders[0].studies) == ("*", 5)
    assert "100 % of studies from all other senders (5 of 5): LOCALIZER" in text(report, "en")


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [(0, 0, "0 %"), (0, 5, "0 %"), (1, 1000, "<1 %"), (999, 1000, ">99 %"), (3, 3, "100 %")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(part: int, whole: int, told: str) -> None:
    assert percent(part, whole) == told


def test_metrics_name_so_many_senders_and_who_is_named_once_stays_named(journal: Journal) -> None:
    for number in range(MOST_SENDERS + 5):
        ended(journal, number, f"CT{number}", "LOCALIZER")
        journal.refuse("NOT_DICOM", "x", 1, f"GW{number}")
    counts = studies_by_sender(journal, known=["PACS"])
    assert len({sender for sender, _, _ in counts}) == MOST_SENDERS  # 49 of them, and all others
    assert counts["CT0", "rejected", "LOCALIZER"] == 1
    assert counts["other", "rejected", "LOCALIZER"] == 6
    for number in range(9):
        ended(journal, 1000 + number, "CT54", "LOCALIZER")  # the busiest, but late
    assert studies_by_sender(journal, known=["PACS"])["other", "rejected", "LOCALIZER"] == 15
    assert refused_by_sender(journal)["other", "NOT_DICOM"] == 5
    journal.refuse("NOT_DICOM", "x", 1, "IVANOV^IVAN\n1961")
    assert refused_by_sender(journal)["other", "NOT_DICOM"] == 6


def test_times_of_day_in_other_zones_are_the_same_moments(journal: Journal) -> None:
    ended(journal, 1, "CT2", "LOCALIZER")
    zone = datetime.now(UTC).astimezone().tzinfo
    begin = (utc_now() - timedelta(minutes=1)).astimezone(zone)
    assert make_report(journal, begin, utc_now() + timedelta(minutes=1)).studies == 1
