"""The journal opened for reading alone: one door for all who only ask."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import outpost
from outpost.records import readonly
from outpost.records.journal import Journal
from outpost.records.readonly import JournalReading

PAGE = 4096


def test_nothing_but_the_one_door_opens_a_database_for_reading_alone() -> None:
    package = Path(outpost.__file__).parent
    doors = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if re.search(r"mode=ro\b", file.read_text(encoding="utf-8"))
    }
    assert doors == {"records/readonly.py"}


def test_a_connection_that_asks_changes_nothing_and_leaves_the_log(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite3"
    journal = Journal(file, "brain")
    log = file.with_name("journal.sqlite3-wal")
    before = log.stat()
    with closing(readonly.connect(file)) as db:
        assert db.execute("SELECT count(*) AS n FROM studies").fetchone()["n"] == 0
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM events")
    assert (log.stat().st_ino, log.stat().st_size) == (before.st_ino, before.st_size)
    journal.close()


def test_damage_that_a_console_meets_is_said_as_sqlite_says_it(tmp_path: Path) -> None:
    """It was an AttributeError: the reading journal had nowhere to keep the damage in mind."""
    file = tmp_path / "journal.sqlite3"
    Journal(file, "brain").close()
    with closing(sqlite3.connect(file)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'studies'").fetchone()[0]
    content = bytearray(file.read_bytes())
    content[(root - 1) * PAGE : root * PAGE] = b"\xff" * PAGE
    file.write_bytes(content)
    journal = JournalReading(file, "brain")
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        journal.rows("SELECT * FROM studies")
    assert journal.damage.startswith("CORRUPT")
    journal.close()
