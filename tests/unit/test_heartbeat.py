"""What a heartbeat says of a service in a bad state: it needs neither the disk nor the journal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from outpost.config import Config, Records
from outpost.health.codes import CheckCode
from outpost.health.heartbeat import VERDICT_UNKNOWN, Heartbeat, Working
from outpost.health.verdict import Verdict, check
from outpost.records.journal import utc_now

FULL = check(CheckCode.DISK_RESERVE, False, 3, ">= 2048 MiB")
WELL = check(CheckCode.WORKER_ALIVE, True, "runs", "runs")


def config(root: Path) -> Config:
    return Config.model_validate(
        {
            "system": "brain",
            "region": "chita",
            "storage": {"root": str(root)},
            "delivery": {"destinations": [{"name": "pacs", "ae_title": "P", "host": "127.0.0.1", "port": 1}]},
            "records": {"password": "x", "uid_key": "y"},
        }
    )


def heartbeat(
    root: Path, verdict: Callable[[], Verdict] = lambda: Verdict((WELL,)), **working: Any
) -> Heartbeat:
    says = Working(**({"rung": "full", "receive_only": "", "queue": {}} | working))
    return Heartbeat(config(root), verdict, lambda: says, "0.1.0-1f67c57e", ("brain_extraction", "1.0.2"))


def test_by_default_it_comes_once_a_minute_and_never_more_rarely_than_five() -> None:
    assert Records(enabled=False).heartbeat_seconds == 60
    with pytest.raises(ValueError, match="300"):
        Records(enabled=False, heartbeat_seconds=301)


def test_it_counts_what_waits_and_for_how_long_the_oldest(tmp_path: Path) -> None:
    now = utc_now()
    queue = {
        "receiving": (4, now - timedelta(hours=9)),
        "complete": (2, now - timedelta(seconds=90)),
        "inferring": (1, now - timedelta(seconds=120)),
        "delivering": (5, now - timedelta(seconds=300)),
    }
    beat = heartbeat(tmp_path, queue=queue).take()
    assert (beat.status, beat.failing, beat.ready) == ("ok", [], True)
    assert (beat.queue, beat.outbox) == (3, 5)
    assert beat.oldest_pending_seconds == pytest.approx(120, abs=2)
    assert beat.oldest_outbox_seconds == pytest.approx(300, abs=2)
    assert beat.disk_free_mib


def test_with_no_journal_and_no_disk_it_says_so_and_nothing_it_does_not_know(tmp_path: Path) -> None:
    beat = heartbeat(tmp_path / "gone", lambda: Verdict((WELL, FULL)), queue=None).take()
    assert (beat.status, beat.failing, beat.ready) == ("failed", ["DISK_RESERVE"], False)
    assert (beat.queue, beat.oldest_pending_seconds, beat.outbox, beat.oldest_outbox_seconds) == (None,) * 4
    assert (beat.disk_free_mib, beat.disk_used_percent) == (None, None)


def test_a_verdict_that_cannot_be_had_is_told_as_failed(tmp_path: Path) -> None:
    def broken() -> Verdict:
        raise RuntimeError("a part is gone")

    beat = heartbeat(tmp_path, broken).take()
    assert (beat.status, beat.failing, beat.ready) == ("failed", [VERDICT_UNKNOWN], False)


@pytest.mark.parametrize("rung", ["full", "cpu size-128/3", "Иванов %s; DROP"])
def test_names_are_what_the_table_takes(tmp_path: Path, rung: str) -> None:
    beat = heartbeat(tmp_path, rung=rung, receive_only="Ivanov Ivan").take()
    assert set(beat.rung) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+:~ /-")
    assert beat.receive_only == "X"
    assert len(beat.boot_id) == 36
