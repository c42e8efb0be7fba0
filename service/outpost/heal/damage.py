"""Whether the journal can be trusted: what is damage, what is only in the way, and what is neither.

Nothing here changes a file: it is read through connections that cannot write, so that a write-ahead log which is not
this journal's own never gets into it.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outpost.heal.marks import mark_in
from outpost.records import readonly
from outpost.records.journal import SCHEMA_VERSION, STATES

JOURNAL: Final = "journal.sqlite3"
# What a running service wrote down before it ended: its journal is to be rebuilt, and why.
SUSPECT: Final = ".journal-suspect"
# How long the check at a start may take. What is left undone then `watch` does while the service runs.
CHECK_SECONDS: Final = 10.0
MAGIC: Final = b"SQLite format 3\x00"
_TABLES: Final = frozenset({"studies", "instances", "refused", "deliveries"})
_REVISION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)+)\.r([0-9]+)")
# sqlite3.DatabaseError.sqlite_errorcode, its low byte.
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the journal. `reason` is a short word for names of folders, `detail` one sentence."""

    reason: str
    detail: str


class JournalUnusable(Exception):
    """The journal is sound as far as is known and cannot be used now; the text says why and what to do."""


class JournalTooNew(Exception):
    """A newer release wrote the journal; the text says what to do."""


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says of the file that it is damaged, or none of its own."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and code is not None and (code & 0xFF) in _DAMAGED


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """What keeps a sound journal from being used becomes `JournalUnusable` with its remedy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = (error.sqlite_errorcode or 0) & 0xFF
        if code in _DAMAGED:
            raise
        remedy = {
            sqlite3.SQLITE_FULL: "free space on its file system",
            sqlite3.SQLITE_READONLY: "mount its file system for writing, or give the service's user the file",
            sqlite3.SQLITE_CANTOPEN: "give the service's user the folder and the file",
            sqlite3.SQLITE_PERM: "give the service's user the folder and the file",
            sqlite3.SQLITE_BUSY: "end what else has it open",
        }.get(code, "see the kernel's log for faults of the disk")
        raise JournalUnusable(f"journal {path}: {error}: {remedy}; nothing was changed") from None
    except OSError as error:
        raise JournalUnusable(_in_the_way(path, error)) from None


def judge(root: Path, seconds: float = CHECK_SECONDS) -> Damage | None:
    """What is wrong with the journal under `root`; None when nothing is, or there is none yet and need not be one.

    Takes `seconds` at most, give or take a page. Raises `JournalUnusable`, `JournalTooNew`.
    """
    file, log = root / JOURNAL, root / f"{JOURNAL}-wal"
    suspect = root / SUSPECT
    until = time.monotonic() + seconds
    with usable(file):
        if suspect.is_file():
            told = suspect.read_text(encoding="utf-8", errors="replace").strip()
            reason, _, detail = told.partition(": ")
            known = re.fullmatch(r"[A-Z_]{1,24}", reason) is not None
            return Damage(reason if known else "SUSPECT", detail if known else told or "said by the last run")
        try:
            status = file.stat()
        except FileNotFoundError:
            if file.is_symlink():
                raise JournalUnusable(
                    f"journal {file} is a link to what is not there: mount it; nothing was changed"
                ) from None
            if log.exists():
                return Damage("MISSING", "its write-ahead log is there, the file is not")
            return Damage("MISSING", "there are studies, and no journal") if holds_studies(root) else None
        if not stat.S_ISREG(status.st_mode):
            return Damage("NO_FILE", "something that is no file has its name")
        for beside in (log, root / f"{JOURNAL}-shm"):
            if beside.exists() and not beside.is_file():
                return Damage("NO_FILE", f"something that is no file has the name {beside.name}")
        if status.st_size == 0:
            if log.exists() and log.stat().st_size:
                return Damage("EMPTY", "the file is empty, and its write-ahead log is not")
            return (
                Damage("EMPTY", "the file is empty, and there are studies") if holds_studies(root) else None
            )
        try:
            with file.open("rb") as stream:
                head = stream.read(100)
        except OSError as error:
            if error.errno == errno.EIO:
                return Damage("UNREADABLE", "the disk cannot read its beginning")
            raise
    # Before SQLite opens it: its log would be made with the permissions of the file, and stay so.
    for one in (file, log, root / f"{JOURNAL}-shm"):
        if one.exists() and not os.access(one, os.W_OK):
            raise JournalUnusable(
                f"journal {one} cannot be written: give the service's user the file, or mount its file system for"
                " writing; nothing was changed"
            )
    if head[:16] != MAGIC:
        return Damage("NOT_A_DATABASE", "it does not begin as an SQLite file does")
    told = check(file, seconds)
    if told:
        return Damage("CORRUPT", told)
    return _said_by_tables(file, until) or behind(root)


def check(file: Path, seconds: float | None = None, *, alone: bool = False) -> str:
    """What SQLite's own check finds, every index held against its table; empty where it finds nothing.

    `seconds` bounds it: what was not looked at by then counts as sound. `alone`: without the write-ahead log.
    Raises `JournalUnusable`.
    """
    ended = threading.Event()
    with usable(file):
        try:
            with closing(readonly.connect(file, alone=alone)) as db:

                def end() -> None:
                    ended.set()
                    db.interrupt()

                timer = threading.Timer(seconds, end) if seconds is not None else None
                if timer is not None:
                    timer.daemon = True
                    timer.start()
                try:
                    found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
                finally:
                    if timer is not None:
                        timer.cancel()
                        timer.join()  # it must not interrupt a connection that is being closed
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return str(error)
            if ended.is_set():
                return ""
            raise
    # Pages not yet looked at when it was ended seem to be used by nothing.
    return "" if found == "ok" or ended.is_set() else found.strip().replace("\n", "; ")


def holds_studies(root: Path) -> bool:
    """Whether there is anything under `root` that only a journal can explain."""
    return any(
        next(iter(root.glob(pattern)), None) is not None
        for pattern in (
            "spool/[0-9]*/*.dcm",
            "outbox/[0-9]*/*.dcm",
            "quarantine/*/*.dcm",
            "quarantine/*/*.r[0-9]*",
        )
    )


def _said_by_tables(file: Path, until: float) -> Damage | None:
    with usable(file), closing(readonly.connect(file)) as db:
        tables = {row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if not tables and not version:  # made, and ended before its tables were
            if holds_studies(file.parent):
                return Damage("EMPTY", "it has no tables, and there are studies")
            return None
        if version > SCHEMA_VERSION:
            raise JournalTooNew(
                f"journal {file} has schema {version}, this release knows {SCHEMA_VERSION}: "
                "install the release that wrote it, or a newer one; nothing was changed"
            )
        if lacking := sorted(_TABLES - tables):
            return Damage("FOREIGN", f"it has no table {', '.join(lacking)}")
        try:
            db.execute("SELECT id, study_uid, revision, state, change FROM studies LIMIT 1")
            db.execute("SELECT sop_uid, study_uid, digest, revision FROM instances LIMIT 1")
        except sqlite3.OperationalError as error:
            return Damage("FOREIGN", str(error))
        for table, wrong in _WRONG.items():
            columns = {row["name"] for row in db.execute(f"PRAGMA table_info({table})")}
            conditions = [text for name, text in wrong if name in columns]
            # The newest rows first: those of studies that are on their way.
            sql = f"SELECT 1 FROM {table} WHERE {' OR '.join(conditions)} ORDER BY id DESC LIMIT 1"
            db.set_progress_handler(lambda: time.monotonic() > until, 20_000)
            try:
                if db.execute(sql).fetchone():
                    return Damage("CORRUPT", f"a row of {table} holds what the journal never writes")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
            finally:
                db.set_progress_handler(None, 0)
    return None


def _uid_column(name: str) -> tuple[str, str]:
    return name, f"typeof({name}) <> 'text' OR {name} GLOB '*[^0-9.]*'"


def _time_column(name: str) -> tuple[str, str]:
    return name, f"{name} NOT GLOB '[12][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:*+00:00'"


# SQLite keeps no checksum of its pages: what a flipped bit makes of a value shows only in the value.
_WRONG: Final = {
    "studies": (
        ("state", f"state NOT IN ({', '.join(repr(state) for state in STATES)})"),
        _uid_column("study_uid"),
        *(_time_column(name) for name in ("received_at", "completed_at", "finished_at", "held_until")),
        *((n, f"typeof({n}) <> 'integer'") for n in ("revision", "instances", "bytes", "change", "attempts")),
        *((name, f"({name} <> '' AND NOT json_valid({name}))") for name in ("notes", "broken_off")),
        ("finished_at", "(state IN ('rejected', 'quarantined') AND (finished_at IS NULL OR reason = ''))"),
    ),
    "instances": (
        *map(_uid_column, ("sop_uid", "study_uid", "series_uid")),
        _time_column("received_at"),
        *((n, f"typeof({n}) <> 'integer'") for n in ("revision", "bytes")),
    ),
}


def behind(root: Path) -> Damage | None:
    """Whether files speak of revisions that the journal must once have known: then it has lost its newest pages.

    A write-ahead log that is gone leaves a journal which is sound and old.
    """
    file = root / JOURNAL
    if not file.exists() or not file.stat().st_size:
        return None
    with usable(file), closing(readonly.connect(file)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone():
            return None

        def known(study_uid: str, revision: int) -> bool:
            found = db.execute(
                "SELECT 1 FROM studies WHERE study_uid = ? AND revision = ?", (study_uid, revision)
            ).fetchone()
            return found is not None

        for folder in root.glob("outbox/[0-9]*"):
            if folder.name.isdecimal() and not _row(db, int(folder.name)):
                return Damage("BEHIND", "the outbox has results of a study that it does not know")
        for folder in root.glob("quarantine/*/*.r[0-9]*"):
            named = _REVISION.fullmatch(folder.name)
            if named is not None and folder.is_dir() and not known(named[1], int(named[2])):
                return Damage("BEHIND", "quarantine has a study that it does not know")
        for folder in root.glob("spool/[0-9]*"):
            mark = mark_in(folder)
            if mark is not None and not known(folder.name, mark.revision):
                return Damage("BEHIND", "the spool has a computed study that it does not know")
    return None


def _row(db: sqlite3.Connection, number: int) -> bool:
    if number >= 1 << 63:
        return False
    return db.execute("SELECT 1 FROM studies WHERE id = ?", (number,)).fetchone() is not None


def _in_the_way(path: Path, error: OSError) -> str:
    remedy = {
        errno.ENOSPC: "free space on its file system",
        errno.EDQUOT: "free space on its file system, or raise the quota",
        errno.EROFS: "mount its file system for writing",
        errno.EACCES: "give the service's user the folder and the file",
        errno.EPERM: "give the service's user the folder and the file",
    }.get(error.errno or 0, "see the kernel's log for faults of the disk")
    return f"journal {path}: {error.strerror}: {remedy}; nothing was changed"


def write_suspect(root: Path, reason: str, detail: str) -> None:
    """Have the next start rebuild the journal. Never raises: a disk that cannot be written is told elsewhere."""
    try:
        target = root / SUSPECT
        partial = target.with_suffix(f".{time.monotonic_ns()}")
        partial.write_text(f"{reason}: {detail}\n", encoding="utf-8")
        partial.replace(target)
    except OSError:
        pass
