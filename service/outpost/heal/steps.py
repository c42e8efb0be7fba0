"""Putting a damaged journal aside and making a new one, in steps of which each may be the last before the power goes.

    .journal-rebuild.json        written first: what is going on, and in which folder
    journal-damaged/<time>-<reason>/journal.sqlite3{,-wal,-shm}   moved, the file itself first
    .journal-rebuilt.sqlite3     built in one transaction; begun again after a crash
    journal.sqlite3              it gets its name once it is whole and on the disk
    .journal-rebuild.json        removed last

Nothing is deleted but what an earlier attempt left unfinished, and the oldest of what was put aside.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from outpost.durable import sync_file, sync_folder, write_durably
from outpost.events import EventCode
from outpost.heal.damage import JOURNAL, SUSPECT, Damage, usable
from outpost.heal.files import Rebuild
from outpost.heal.salvage import RESCUED, Salvaged, salvage
from outpost.intake.spool import Spool
from outpost.records.journal import Journal

log = logging.getLogger(__name__)

ASIDE: Final = "journal-damaged"
UNDER_WAY: Final = ".journal-rebuild.json"
_BUILDING: Final = ".journal-rebuilt.sqlite3"
_TIMES: Final = "times.json"
# Of what was put aside, the newest are kept: this many, and of this size together; the newest whatever its size.
KEPT_FOLDERS: Final = 3
KEPT_BYTES: Final = 4 << 30
_NAMED: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Z_]{1,24}(-[0-9]{1,4})?")
# Of the journal: when it was last rebuilt (JSON: at, reason, folder), for health and the heartbeat.
REBUILT_FACT: Final = "journal_rebuilt"
# Of the journal: names this run of history; another one says that rows may be missing which were there before.
EPOCH_FACT: Final = "journal_epoch"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A rebuild that has begun. `had_file`: there was something of the journal's name to put aside."""

    folder: Path
    damage: Damage
    had_file: bool


def under_way(root: Path) -> Attempt | None:
    """The rebuild that an earlier start began and did not end."""
    marker = root / UNDER_WAY
    try:
        said = json.loads(marker.read_text(encoding="utf-8"))
        folder, damage = str(said["folder"]), Damage(str(said["reason"]), str(said["detail"]))
        if not _NAMED.fullmatch(folder):
            raise ValueError(folder)
        return Attempt(root / ASIDE / folder, damage, bool(said["had_file"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        # Written as a whole or not at all, so this is the disk again. What there is decides what comes next.
        with suppress(OSError):
            remove(marker)
        return None


def begin(root: Path, damage: Damage) -> Attempt:
    """Write down what is about to be done. Raises OSError."""
    (root / ASIDE).mkdir(exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{damage.reason}"
    number = 1
    while (root / ASIDE / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    name = name if number == 1 else f"{name}-{number}"
    attempt = Attempt(root / ASIDE / name, damage, os.path.lexists(root / JOURNAL))
    attempt.folder.mkdir()
    sync_folder(root / ASIDE)
    said = {"folder": name, "reason": damage.reason, "detail": damage.detail, "had_file": attempt.had_file}
    write_durably(root / UNDER_WAY, lambda stream: stream.write(json.dumps(said).encode()))
    return attempt


def put_aside(root: Path, attempt: Attempt) -> bool:
    """Move the journal's files into the folder. True when that, and all after it, was done by an earlier attempt.

    Raises OSError.
    """
    attempt.folder.mkdir(parents=True, exist_ok=True)
    moved = os.path.lexists(attempt.folder / JOURNAL) or not attempt.had_file
    if moved and os.path.lexists(root / JOURNAL):
        return True  # the one in its place is the new one
    # The log before its file would make an older journal of it, which looks sound.
    for name in (JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm", RESCUED):
        if os.path.lexists(root / name):
            (root / name).rename(attempt.folder / name)
            sync_folder(attempt.folder)
            sync_folder(root)
    return False


def rebuild(
    root: Path,
    system: str,
    attempt: Attempt,
    model_reads: Collection[str] | None,
    tick: Callable[[], None] = lambda: None,
) -> str:
    """Make the new journal and give it its name; returns what was kept and what was made again, as one sentence.

    Raises OSError, sqlite3.Error, `JournalUnusable`: the next attempt begins again.
    """
    building = root / _BUILDING
    for left in (building, root / f"{_BUILDING}-wal", root / f"{_BUILDING}-shm"):
        remove(left)
    with usable(building):
        journal = Journal(building, system)
        try:
            told = _fill(root, journal, attempt, model_reads, tick)
        finally:
            journal.close()
    sync_file(building)
    building.rename(root / JOURNAL)
    sync_folder(root)
    return told


def finish(root: Path) -> None:
    """The new journal has its name: forget that a rebuild was under way, and why. Raises OSError."""
    remove(root / SUSPECT)
    remove(root / UNDER_WAY)
    sync_folder(root)
    _note_time(root)


def _fill(
    root: Path,
    journal: Journal,
    attempt: Attempt,
    model_reads: Collection[str] | None,
    tick: Callable[[], None],
) -> str:
    spool = Spool(root, journal, 0, model_reads=model_reads)
    journal.rows("PRAGMA foreign_keys = OFF")
    now = datetime.now(UTC)
    with journal.writing() as db:
        saved = salvage(attempt.folder, db, tick)
        made = Rebuild(db, spool, attempt.folder, tick)
        made.run()
        told = _sentence(root, attempt, saved, made)
        facts = {
            REBUILT_FACT: json.dumps(
                {"at": now.isoformat(), "reason": attempt.damage.reason, "folder": str(attempt.folder)}
            ),
            EPOCH_FACT: f"{attempt.folder.name}-{os.urandom(4).hex()}",
        }
        db.executemany(
            "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            facts.items(),
        )
        at = now.isoformat(timespec="microseconds")
        db.execute(
            "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)", (at, EventCode.JOURNAL_REBUILT, told)
        )
    for removed in prune(root):
        journal.note_event(EventCode.JOURNAL_ASIDE_REMOVED, removed)
    found = journal.rows("PRAGMA integrity_check(1)")[0][0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"the rebuilt journal is damaged as well: {found}")
    return told


def _sentence(root: Path, attempt: Attempt, saved: Salvaged, made: Rebuild) -> str:
    kept = ", ".join(
        f"{saved.rows[table]} {table}" for table in ("studies", "instances", "refused") if saved.rows[table]
    )
    lost = f" (rows of {', '.join(sorted(saved.damaged))} could not be read)" if saved.damaged else ""
    again = ", ".join(f"{count} {state}" for state, count in sorted(made.made.items()))
    if made.instances:
        again = f"{again or 'no studies'}, {made.instances} instances"
    return (
        f"{attempt.damage.reason}: {attempt.damage.detail[:200]}; kept: {kept or 'nothing'}{lost}; from the files: "
        f"{again or 'nothing was missing'}; the old journal is in {attempt.folder.relative_to(root)}"
    )


def prune(root: Path) -> list[str]:
    """Remove the oldest of what was put aside beyond what is kept; returns a sentence for each."""
    try:
        folders = sorted(
            (path for path in (root / ASIDE).iterdir() if path.is_dir() and _NAMED.fullmatch(path.name)),
            key=lambda path: path.name,
            reverse=True,
        )
    except OSError:
        return []
    told, size = [], 0
    for number, folder in enumerate(folders):
        mine = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        if number and (number >= KEPT_FOLDERS or size + mine > KEPT_BYTES):
            shutil.rmtree(folder, ignore_errors=True)
            told.append(f"{ASIDE}/{folder.name}, {mine >> 20} MiB: the newest {KEPT_FOLDERS} are kept")
        else:
            size += mine
    return told


def rebuilt_times(root: Path) -> list[datetime]:
    """When rebuilds ended in the last hour, oldest first; empty where that cannot be read."""
    try:
        said: Any = json.loads((root / ASIDE / _TIMES).read_text(encoding="utf-8"))
        times = sorted(datetime.fromisoformat(text) for text in said)
    except (OSError, ValueError, TypeError):
        return []
    now = datetime.now(UTC)
    return [at for at in times if at.tzinfo is not None and now - timedelta(hours=1) < at <= now]


def _note_time(root: Path) -> None:
    times = [*rebuilt_times(root), datetime.now(UTC)][-50:]
    with suppress(OSError):
        (root / ASIDE / _TIMES).write_text(json.dumps([at.isoformat() for at in times]), encoding="utf-8")


def remove(path: Path) -> None:
    """A file, or a folder that has its name. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def rebuilt_at(journal: Journal) -> tuple[datetime, str] | None:
    """When the journal was last rebuilt and where the old one is; None when it never was."""
    fact = journal.fact(REBUILT_FACT)
    try:
        said = json.loads(fact or "")
        return datetime.fromisoformat(said["at"]), str(said["folder"])
    except (ValueError, KeyError, TypeError):
        return None
