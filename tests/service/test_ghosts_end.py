"""What the region's database and the centre hold as pending, and the journal has lost, comes to a truthful end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from postgres_cluster import RECORDER_PASSWORD, Fleet, the_fleet

from outpost.config import Records
from outpost.fleet.sync import sync_region
from outpost.records.journal import Instance, Journal
from outpost.records.recorder import Recorder, study_key

UID_KEY = "the region's own key"


@pytest.fixture
def fleet() -> Fleet:
    fleet = the_fleet()
    fleet.reset()
    return fleet


def receive(journal: Journal, study_uid: str) -> int:
    _, study = journal.add(
        Instance(
            f"{study_uid}.1",
            study_uid,
            f"{study_uid}.9",
            "1.2.840.10008.5.1.4.1.1.4",
            "1.2",
            "MR",
            "d",
            9,
            "MR1",
        )
    )
    assert study is not None
    return study.row


def ship(fleet: Fleet, journal: Journal) -> None:
    """A life of the recorder, until nothing waits."""
    cluster = fleet.regions["chita"].cluster
    settings = Records.model_validate(
        {"host": cluster.host, "port": cluster.port, "password": RECORDER_PASSWORD, "uid_key": UID_KEY}
    )
    recorder = Recorder(journal, settings, "0.4.0")
    try:
        while recorder.ship():
            pass
    finally:
        recorder._disconnect()


def at_the_centre(fleet: Fleet) -> dict[str, dict[str, Any]]:
    attempt = sync_region(fleet.config.centre, fleet.config.sync, "chita")
    assert attempt.fault is None
    return {row["study_key"]: row for row in fleet.held("chita")}


def test_a_study_the_journal_has_lost_ends_in_the_region_and_at_the_centre(
    fleet: Fleet, tmp_path: Path
) -> None:
    with closing(Journal(tmp_path / "before.sqlite3", "brain")) as journal:
        for uid in ("1.2.1", "1.2.2", "1.2.3"):
            receive(journal, uid)
        journal.complete(3)
        journal.begin_inference(3)
        journal.finish(3, "quarantined", "WORKER_TIMEOUT")
        ship(fleet, journal)
    with closing(Journal(tmp_path / "neighbour.sqlite3", "lungs")) as journal:
        receive(journal, "1.2.8")
        ship(fleet, journal)
    assert {row["outcome"] for row in at_the_centre(fleet).values()} == {"pending", "quarantined"}

    with closing(Journal(tmp_path / "after.sqlite3", "brain")) as journal:
        receive(journal, "1.2.2")  # found in the spool
        receive(journal, "1.2.9")  # came since
        ship(fleet, journal)
        events = [(event.code, event.detail) for event in journal.events()]

    held = at_the_centre(fleet)
    ghost = held[study_key(UID_KEY, "1.2.1")]
    assert (ghost["outcome"], ghost["reason"]) == ("quarantined", "JOURNAL_LOST_IT")
    assert ghost["finished_at"] is not None
    for uid in ("1.2.2", "1.2.8", "1.2.9"):  # matched, of another system, new
        assert held[study_key(UID_KEY, uid)]["outcome"] == "pending"
    assert held[study_key(UID_KEY, "1.2.3")]["reason"] == "WORKER_TIMEOUT", "what has ended stays as it ended"
    assert [code for code, _ in events] == ["STUDIES_RECONCILED"]
    assert events[0][1].startswith("1 studies were pending")


def test_a_ghost_that_is_sent_again_goes_its_way_again(fleet: Fleet, tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "before.sqlite3", "brain")) as journal:
        receive(journal, "1.2.1")
        ship(fleet, journal)
    with closing(Journal(tmp_path / "after.sqlite3", "brain")) as journal:
        ship(fleet, journal)
        assert at_the_centre(fleet)[study_key(UID_KEY, "1.2.1")]["reason"] == "JOURNAL_LOST_IT"
        receive(journal, "1.2.1")
        ship(fleet, journal)
        row = at_the_centre(fleet)[study_key(UID_KEY, "1.2.1")]
        assert (row["outcome"], row["reason"], row["finished_at"]) == ("pending", None, None)


def test_nothing_is_ended_while_the_journal_has_rows_that_were_not_shipped(
    fleet: Fleet, tmp_path: Path
) -> None:
    with closing(Journal(tmp_path / "journal.sqlite3", "brain")) as journal:
        row = receive(journal, "1.2.1")
        ship(fleet, journal)
        journal.complete(row)
        journal.begin_inference(row)
        journal.finish(row, "rejected", "NO_SERIES_FOR_BUNDLE")
        ship(fleet, journal)
        assert at_the_centre(fleet)[study_key(UID_KEY, "1.2.1")]["outcome"] == "rejected"
        assert not journal.events()
