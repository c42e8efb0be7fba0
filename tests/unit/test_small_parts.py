"""Small parts that promise something: logs without patients, pauses between attempts, the tables of codes."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from outpost import logs
from outpost.config import Delivery, Destination
from outpost.delivery.courier import pause_seconds
from outpost.filter.verdict import ACCEPTED, judge
from outpost.health import CHECKS, CheckCode
from outpost.health.verdict import Verdict, check, golden_check
from outpost.inference import Code
from outpost.pipeline import Golden
from outpost.reasons import PipelineCode, explain


@pytest.fixture
def own_logging() -> object:
    """`logs.configure` for one test; pytest's own handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("own_logging")
def test_an_exception_is_logged_by_type_and_place_without_its_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure()
    log = logging.getLogger("outpost.test")
    try:
        raise ValueError("invalid PatientName 'KANAREYKA'")
    except ValueError:
        log.exception("something failed")
    logging.getLogger("pydicom").warning("KANAREYKA is not a valid value")
    logging.getLogger("pynetdicom.events").error("KANAREYKA")
    printed = capsys.readouterr().err
    assert re.fullmatch(
        r"ERROR outpost\.test: something failed \| ValueError at test_small_parts\.py:\d+ test_an_ex\w+\n",
        printed,
    )


def test_pauses_double_up_to_their_limit_and_never_end() -> None:
    destination = Destination(name="pacs", ae_title="PACS", host="pacs", port=104)
    config = Delivery(destinations=(destination,), retry_first_seconds=5, retry_max_seconds=300)
    assert [pause_seconds(config, n) for n in (1, 2, 3, 6, 7, 8, 10_000)] == [5, 10, 20, 160, 300, 300, 300]


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({}, "ae_title and host and port missing"),
        ({"ae_title": "PACS", "host": "pacs"}, "port missing"),
        ({"stow_url": "https://pacs/studies", "port": 104}, "stow_url and port"),
        ({"stow_url": "https://pacs/studies", "commitment": True}, "stow_url and commitment"),
        ({"ae_title": "PACS", "host": "pacs", "port": 104, "stow_token": "x"}, "C-STORE knows no tokens"),
    ],
)
def test_a_destination_is_a_dicom_node_or_a_dicomweb_server(keys: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Destination.model_validate({"name": "pacs", **keys})


def test_every_reason_a_study_can_end_with_is_explained() -> None:
    for code in [*PipelineCode, *Code]:
        reason = explain(code)
        assert reason is not None, code
        assert reason.meaning
        assert reason.remedy
    assert explain("") is None


def test_every_check_has_a_meaning_and_a_remedy() -> None:
    assert set(CHECKS) == set(CheckCode)
    assert all(kind.proves and kind.remedy for kind in CHECKS.values())


def test_a_verdict_is_as_bad_as_its_worst_check_and_only_failures_carry_remedies() -> None:
    good = check(CheckCode.WORKER_ALIVE, True, "runs", "runs")
    minor = check(CheckCode.OUTBOX_AGE, False, 9999.0, "<= 3600 s")
    major = check(CheckCode.DISK_RESERVE, False, 5, ">= 1024 MiB")
    assert [Verdict(c).status for c in ((good,), (good, minor), (good, minor, major))] == [
        "ok",
        "degraded",
        "failed",
    ]
    assert [Verdict((minor,)).ready, Verdict((major,)).ready] == [True, False]
    assert (good.remedy, bool(minor.remedy)) == ("", True)


def test_the_golden_check_believes_only_a_right_answer() -> None:
    assert not golden_check(None).ok
    assert not golden_check(Golden(ok=False, at=0, code="WORKER_DIED")).ok
    assert not golden_check(Golden(ok=False, at=0, value=0.2, wanted=0.99)).ok
    assert golden_check(Golden(ok=True, at=0, value=1.0, wanted=0.99)).ok


def test_the_filter_accepts_every_study_but_an_empty_one() -> None:
    assert judge([Path("any.dcm")]) is ACCEPTED
    assert [reason.code for reason in judge([]).reasons] == ["STUDY_EMPTY"]
