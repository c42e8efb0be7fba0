"""The watch over the journal's files must not harm what it looks after."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from outpost.heal.watch import JournalWatch
from outpost.records.journal import Journal

ANOTHER_PROCESS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM studies").fetchone()
db.close()
"""


@pytest.fixture
def watched(tmp_path: Path) -> tuple[Journal, JournalWatch, Path]:
    file = tmp_path / "journal.sqlite3"
    journal = Journal(file, "brain")
    return journal, JournalWatch(tmp_path, journal, threading.Event()), file


def test_another_process_that_reads_the_journal_takes_nothing_away(
    watched: tuple[Journal, JournalWatch, Path],
) -> None:
    """Whoever closes a descriptor of the file lets go of all locks of the service, and the log is then removed."""
    journal, watch, file = watched
    log = file.with_name("journal.sqlite3-wal")
    for _ in range(3):
        watch.turn()
        before = log.stat().st_ino
        subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, file], check=True, timeout=30)
        assert log.exists()
        assert log.stat().st_ino == before
    watch.turn()
    assert journal.damage == ""
    journal.close()


@pytest.mark.parametrize("name", ["journal.sqlite3", "journal.sqlite3-wal"])
def test_a_file_that_was_taken_away_is_noticed(
    watched: tuple[Journal, JournalWatch, Path], name: str
) -> None:
    journal, watch, file = watched
    watch.turn()
    file.with_name(name).unlink()
    watch.turn()
    assert name in str(journal.damage)
    journal.close()


def test_a_file_that_was_overwritten_is_noticed(watched: tuple[Journal, JournalWatch, Path]) -> None:
    journal, watch, file = watched
    watch.turn()
    fd = file.open("r+b")  # left open: closing it here would end the service's locks
    fd.write(b"\0" * 64)
    fd.flush()
    watch.turn()
    assert "overwritten" in str(journal.damage)
