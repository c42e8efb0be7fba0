"""The journal: one SQLite file, the truth of every study on this host.

It holds patient identifiers (study UIDs), so it never leaves the host; `recorder` ships
keyed pseudonyms only.

States::

    receiving -> complete -> inferring -> delivering -> delivered
                    |            |
                    +------------+--> rejected | quarantined

Every write is one transaction under `synchronous=FULL`: when a method returns, the fact survives a power cut.
"""

from __future__ import annotations

import enum
import json
import sqlite3
import threading
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from outpost.codes.notes import Note, NoteCode
from outpost.codes.notes import as_text as notes_as_text
from outpost.codes.notes import of_text as notes_of_text
from outpost.events import EventCode
from outpost.inference.codes import Code
from outpost.reasons import PipelineCode
from outpost.results.provenance import Replaced, ResultObject

SCHEMA_VERSION = 5
# The oldest version whose release can still read and write what is here, as everything since was only added: a
# release that does not become ready is taken back, and the one before must find its journal. `user_version` says
# this one; the fact `schema` says what the file has.
READABLE_FROM = 1
STATES = ("receiving", "complete", "inferring", "delivering", "delivered", "rejected", "quarantined")
OUTCOMES = ("delivered", "rejected", "quarantined")

_SCHEMA = """
CREATE TABLE studies (
    id                INTEGER PRIMARY KEY,
    study_uid         TEXT NOT NULL,
    revision          INTEGER NOT NULL,
    modality          TEXT NOT NULL DEFAULT '',
    state             TEXT NOT NULL,
    reason            TEXT NOT NULL DEFAULT '',
    detail            TEXT NOT NULL DEFAULT '',
    received_at       TEXT NOT NULL,
    completed_at      TEXT,
    finished_at       TEXT,
    attempts          INTEGER NOT NULL DEFAULT 0,
    instances         INTEGER NOT NULL DEFAULT 0,
    bytes             INTEGER NOT NULL DEFAULT 0,
    model             TEXT NOT NULL DEFAULT '',
    model_version     TEXT NOT NULL DEFAULT '',
    engine            TEXT NOT NULL DEFAULT '',
    precision         TEXT NOT NULL DEFAULT '',
    rung              TEXT NOT NULL DEFAULT '',
    device            TEXT NOT NULL DEFAULT '',
    inference_seconds REAL,
    spool_removed_at  TEXT,
    change            INTEGER NOT NULL,
    shipped_change    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (study_uid, revision)
);
CREATE INDEX studies_by_state ON studies (state, reason);
CREATE INDEX studies_by_change ON studies (change);
CREATE INDEX studies_unshipped ON studies (change) WHERE change > shipped_change;

CREATE TABLE instances (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_uid         TEXT NOT NULL UNIQUE,
    study_uid       TEXT NOT NULL,
    series_uid      TEXT NOT NULL,
    sop_class       TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    modality        TEXT NOT NULL,
    digest          TEXT NOT NULL,
    bytes           INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    source          TEXT NOT NULL,
    received_at     TEXT NOT NULL
);
CREATE INDEX instances_by_study ON instances (study_uid, revision);

CREATE TABLE refused (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      TEXT NOT NULL,
    reason  TEXT NOT NULL,
    file    TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    source  TEXT NOT NULL
);

CREATE TABLE deliveries (
    study           INTEGER NOT NULL REFERENCES studies (id),
    file            TEXT NOT NULL,
    destination     TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    last_attempt_at TEXT,
    confirmed_at    TEXT,
    error           TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (study, file, destination)
);
"""

# What each version added to the one before: a journal is brought forward where it lies, in one transaction.
_MIGRATIONS = {
    2: """
ALTER TABLE studies ADD COLUMN completed_by TEXT NOT NULL DEFAULT '';

-- stored_at: the destination answered C-STORE with success; confirmed_at stays the proof of delivery.
ALTER TABLE deliveries ADD COLUMN stored_at TEXT;
ALTER TABLE deliveries ADD COLUMN transaction_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN commitment_asked_at TEXT;

-- study: journal row, NULL when it was the golden case or the start of a worker.
CREATE TABLE failures (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     TEXT NOT NULL,
    study  INTEGER REFERENCES studies (id),
    cause  TEXT NOT NULL,
    rung   TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX failures_by_study ON failures (study, cause);

-- Rungs of the ladder known to fail.
CREATE TABLE ladder (
    bundle    TEXT NOT NULL,
    device    TEXT NOT NULL,
    shape     TEXT NOT NULL,
    rung      TEXT NOT NULL,
    cause     TEXT NOT NULL,
    failures  INTEGER NOT NULL DEFAULT 1,
    failed_at TEXT NOT NULL,
    PRIMARY KEY (bundle, device, shape, rung)
);

CREATE TABLE events (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     TEXT NOT NULL,
    code   TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);

-- Small facts that outlive the process, by name.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
""",
    3: """
-- AE titles (or "stow") a study came from, the first one first, a backslash between: no AE title has one.
ALTER TABLE studies ADD COLUMN senders TEXT NOT NULL DEFAULT '';
-- An administrator overruled the filter for this revision.
ALTER TABLE studies ADD COLUMN skip_filter INTEGER NOT NULL DEFAULT 0;
-- It shall be computed again, and its files are gone: sent once more, its images are taken.
ALTER TABLE studies ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
-- What quarantine held of the revision as it ended, bytes; NULL where an older release ended it.
ALTER TABLE studies ADD COLUMN kept_bytes INTEGER;
-- evicted_at: it was decided that the files leave quarantine, and why; removed_at: they are gone.
ALTER TABLE studies ADD COLUMN evicted_at TEXT;
ALTER TABLE studies ADD COLUMN evicted_for TEXT NOT NULL DEFAULT '';
ALTER TABLE studies ADD COLUMN removed_at TEXT;
ALTER TABLE refused ADD COLUMN evicted_at TEXT;
ALTER TABLE refused ADD COLUMN evicted_for TEXT NOT NULL DEFAULT '';
ALTER TABLE refused ADD COLUMN removed_at TEXT;

UPDATE studies SET senders = coalesce((
    SELECT group_concat(source, '\\') FROM (
        SELECT source, min(id) AS first FROM instances i
        WHERE i.study_uid = studies.study_uid AND i.revision <= studies.revision AND source <> ''
        GROUP BY source ORDER BY first)), '');
-- The region's Postgres does not know the senders yet.
UPDATE studies SET shipped_change = 0;

-- By triggers, so that whatever adds an instance or opens a revision need not think of it.
CREATE TRIGGER study_keeps_senders AFTER INSERT ON studies WHEN NEW.revision > 1 BEGIN
    UPDATE studies SET senders = coalesce((
        SELECT senders FROM studies o WHERE o.study_uid = NEW.study_uid AND o.revision = NEW.revision - 1), '')
    WHERE id = NEW.id;
END;
CREATE TRIGGER study_learns_sender AFTER INSERT ON instances WHEN NEW.source <> '' BEGIN
    UPDATE studies SET senders = CASE senders WHEN '' THEN NEW.source ELSE senders || '\\' || NEW.source END
    WHERE study_uid = NEW.study_uid AND revision = NEW.revision
      AND instr('\\' || senders || '\\', '\\' || NEW.source || '\\') = 0;
END;

DROP INDEX studies_by_state;
CREATE INDEX studies_by_state ON studies (state, reason, senders);
-- The plus keeps SQLite from looking there by state, and so through all that has left long ago.
CREATE INDEX studies_held ON studies (finished_at)
    WHERE +state IN ('rejected', 'quarantined') AND evicted_at IS NULL;
CREATE INDEX refused_held ON refused (at) WHERE evicted_at IS NULL;
CREATE INDEX studies_evicted ON studies (evicted_for, reason) WHERE evicted_at IS NOT NULL;
CREATE INDEX refused_evicted ON refused (evicted_for, reason) WHERE evicted_at IS NOT NULL;
CREATE INDEX studies_leaving ON studies (evicted_at) WHERE evicted_at IS NOT NULL AND removed_at IS NULL;
CREATE INDEX refused_leaving ON refused (evicted_at) WHERE evicted_at IS NOT NULL AND removed_at IS NULL;
CREATE INDEX refused_by_sender ON refused (reason, source);
CREATE INDEX refused_by_day ON refused (substr(at, 1, 10), source, reason);

-- Everything that ended without a result: revisions of studies, and single instances that were not taken.
CREATE VIEW quarantine AS
SELECT 'study-' || id AS item, id AS number, finished_at AS at, state AS outcome, reason, detail, senders,
       modality, instances, coalesce(kept_bytes, bytes) AS bytes, study_uid, revision, '' AS file,
       evicted_at, evicted_for, removed_at
FROM studies WHERE +state IN ('rejected', 'quarantined')
UNION ALL
SELECT 'file-' || id, id, at, 'refused', reason, '', source, '', 1, bytes, '', 0, file,
       evicted_at, evicted_for, removed_at
FROM refused;
""",
    4: """
-- What the result says of itself (codes and details as JSON, `outpost.codes.notes`).
ALTER TABLE studies ADD COLUMN notes TEXT NOT NULL DEFAULT '';
-- The study is whole by its timers and waits all the same: a code, and until when at the latest.
ALTER TABLE studies ADD COLUMN held_for TEXT NOT NULL DEFAULT '';
ALTER TABLE studies ADD COLUMN held_until TEXT;
-- Transfers that broke off and were not made up for: sentences as JSON.
ALTER TABLE studies ADD COLUMN broken_off TEXT NOT NULL DEFAULT '';
-- Files that had been removed after delivery were sent again, last at that time.
ALTER TABLE studies ADD COLUMN restored_at TEXT;

-- image: a model may read it; other: none does; own: a result of ours that was sent back.
ALTER TABLE instances ADD COLUMN role TEXT NOT NULL DEFAULT 'image';
ALTER TABLE instances ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE refused ADD COLUMN address TEXT NOT NULL DEFAULT '';

-- remark: it was stored with a warning. refused_for: repetition cannot cure why it was not stored.
ALTER TABLE deliveries ADD COLUMN remark TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN refused_for TEXT NOT NULL DEFAULT '';

CREATE INDEX instances_no_images ON instances (role) WHERE role <> 'image';
CREATE INDEX studies_waiting ON studies (held_for) WHERE held_for <> '';

-- Associations and requests that sent images of a study: open (broken_after NULL), or broken off and not made up for.
-- broken_after: the highest id at that moment, so a later transfer has a greater one. kind: what the sender may turn
-- out to do always ('unreleased', 'contexts'); empty where the sign is sure.
CREATE TABLE transfers (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    study_uid    TEXT NOT NULL,
    transfer     TEXT NOT NULL,
    source       TEXT NOT NULL,
    kind         TEXT NOT NULL DEFAULT '',
    broken_after INTEGER,
    sentence     TEXT NOT NULL DEFAULT '',
    UNIQUE (study_uid, transfer)
);
CREATE INDEX transfers_by_transfer ON transfers (transfer);

-- Results of ours, by which they are known when they come back and named when they are replaced.
CREATE TABLE results (
    sop_uid    TEXT PRIMARY KEY,
    study      INTEGER NOT NULL REFERENCES studies (id),
    sop_class  TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    made_at    TEXT NOT NULL
);
CREATE INDEX results_by_study ON results (study);
CREATE INDEX results_by_series ON results (series_uid);
""",
    5: """
-- Who opened this revision: AE title (or "stow") and address of what came first. By these, waiting studies are counted.
ALTER TABLE studies ADD COLUMN opened_by TEXT NOT NULL DEFAULT '';
ALTER TABLE studies ADD COLUMN opened_from TEXT NOT NULL DEFAULT '';
CREATE INDEX studies_uncomputed ON studies (opened_from, opened_by)
    WHERE state IN ('receiving', 'complete', 'inferring');

-- What was refused, long ago or long before many others, and whose bytes have left: a count is left of it
-- (`outpost.records.bounds`). first, last: the least and the greatest number of the rows that went into it.
CREATE TABLE refused_gone (
    day       TEXT NOT NULL,
    sender    TEXT NOT NULL,
    reason    TEXT NOT NULL,
    instances INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    evicted   INTEGER NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    PRIMARY KEY (day, sender, reason)
);
CREATE INDEX refused_gone_by_last ON refused_gone (last);
CREATE INDEX refused_removed ON refused (id) WHERE removed_at IS NOT NULL;
CREATE INDEX events_by_code ON events (code, at);
CREATE INDEX transfers_open ON transfers (id) WHERE broken_after IS NULL;

-- An AE title is whatever a peer writes: so many are named with a study that its row stays a row.
DROP TRIGGER study_learns_sender;
CREATE TRIGGER study_learns_sender AFTER INSERT ON instances WHEN NEW.source <> '' BEGIN
    UPDATE studies SET senders = CASE senders WHEN '' THEN NEW.source ELSE senders || '\\' || NEW.source END
    WHERE study_uid = NEW.study_uid AND revision = NEW.revision AND length(senders) < 512
      AND instr('\\' || senders || '\\', '\\' || NEW.source || '\\') = 0;
END;
""",
}

_RECORD_COLUMNS = (
    "id, study_uid, revision, modality, received_at, completed_at, finished_at, state, reason, detail, "
    "instances, bytes, model, model_version, engine, precision, rung, device, inference_seconds, attempts, "
    "change, senders, skip_filter, notes, held_for, held_until, broken_off, completed_by, restored_at"
)


# A sender whose studies proved whole this many times in a row although no transfer ended as it should does that always.
_KNOWN_HABIT = 3
# Of one study: each that ends well makes up for all before it, so that a few say as much as thousands.
_MOST_BROKEN = 16


class JournalError(Exception):
    """A state change that the study's present state does not allow, or a journal of another version."""


class Added(enum.Enum):
    """What became of an instance offered to the journal."""

    NEW = "new"  # first sight: the study is receiving
    DUPLICATE = "duplicate"  # same UID, same content: nothing changed
    CONFLICT = "conflict"  # same UID, other content: not taken
    RESTORED = "restored"  # known content, wanted again: a late instance found the files removed
    KEPT = "kept"  # known content of a delivered study whose files were removed: its file is kept again
    BESIDE = "beside"  # first sight, but no image: it is kept with its study and sets nothing going


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM object as it was received. `digest` covers its values, `bytes` is the size of the file."""

    sop_uid: str
    study_uid: str
    series_uid: str
    sop_class: str
    transfer_syntax: str
    modality: str
    digest: str
    bytes: int
    source: str = ""  # who sent it: calling AE title or "stow"; stays in the journal
    role: str = "image"  # image: a model may read it; other: none does; own: a result of ours that came back
    address: str = ""  # from where it was sent


@dataclass(frozen=True, slots=True)
class Prospect:
    """What taking an instance would mean: a revision would open, its study would have one more than so many."""

    opens: bool
    adds: bool
    instances: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How many revisions of one study may open within so many hours before the next one waits."""

    revisions: int
    hours: float


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One revision of one study. Timestamps are aware, in UTC; `bytes` and `instances` count the whole."""

    study_uid: str
    revision: int
    system: str
    modality: str
    received_at: datetime
    completed_at: datetime | None
    finished_at: datetime | None
    state: str
    reason: str
    detail: str
    instances: int
    bytes: int
    model: str
    model_version: str
    engine: str
    precision: str
    rung: str
    device: str
    inference_seconds: float | None
    change: int
    row: int = field(default=0, compare=False)  # what logs name a study by: it says nothing about a patient
    attempts: int = field(default=0, compare=False)  # times inference was begun
    senders: tuple[str, ...] = ()  # AE titles, or "stow"; the first sent its first instance
    skip_filter: bool = False  # an administrator overruled the filter for this revision
    notes: tuple[Note, ...] = ()  # what its result says of itself
    held_for: str = ""  # the code for which it waits although its timers ran out
    held_until: datetime | None = None  # at the latest
    broken_off: tuple[str, ...] = ()  # transfers that broke off and were not made up for
    completed_by: str = field(default="", compare=False)  # quiet, series, forced or resubmitted
    restored_at: datetime | None = field(default=None, compare=False)  # removed files were last sent again

    @property
    def outcome(self) -> str:
        """delivered, rejected, quarantined, or pending while the study is on its way."""
        return self.state if self.state in OUTCOMES else "pending"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far one result file has come on its way to one destination."""

    study: int
    file: str
    destination: str
    attempts: int
    last_attempt_at: datetime | None
    confirmed_at: datetime | None
    error: str
    stored_at: datetime | None = None  # taken with success; where commitment is asked for, no proof yet
    transaction_uid: str = ""  # of the storage commitment that is being waited for
    commitment_asked_at: datetime | None = None
    remark: str = ""  # it was taken with a warning, or a later revision came in its stead
    refused_for: str = ""  # the cause, where repetition cannot cure why it was not taken


@dataclass(frozen=True, slots=True)
class Event:
    """Something the service decided by itself that a person should be able to look up."""

    at: datetime
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A rung that failed for inputs of a shape; `failures` counts in a row, `failed_at` is the last."""

    rung: str
    shape: tuple[int, ...]
    cause: str
    failures: int
    failed_at: datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    """Fixed width, so that text order in SQLite is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _senders(text: str) -> tuple[str, ...]:
    return tuple(text.split("\\")) if text else ()


def _has_images(db: sqlite3.Connection, study_uid: str) -> bool:
    return (
        db.execute(
            "SELECT 1 FROM instances WHERE study_uid = ? AND role = 'image' LIMIT 1", (study_uid,)
        ).fetchone()
        is not None
    )


class Journal:
    """Opens the journal, creating it where there is none. Safe to use from any thread.

    `budget` holds revisions back that open too often; without one none is. Raises `JournalError` when the file was
    written by a newer version: downgrading would lose what it says.
    """

    def __init__(self, path: Path, system: str, budget: Budget | None = None) -> None:
        self.path = path
        self.system = system
        self._budget = budget
        # What SQLite, or a look at its files, has found wrong with it; empty while nothing is. Whoever runs the service
        # ends it then: the next start rebuilds the journal (`outpost.heal`).
        self.damage = ""
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            self._bring_forward()
        except BaseException:
            self._db.close()
            raise

    def _bring_forward(self) -> None:
        path = self.path
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        needed = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if needed > SCHEMA_VERSION:
            raise JournalError(
                f"journal {path} has schema {needed}, this release knows {SCHEMA_VERSION}: "
                "install the release that wrote it, or a newer one"
            )
        if needed == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = 1;COMMIT;")
        for step in range(self._schema() + 1, SCHEMA_VERSION + 1):
            self._db.executescript(
                f"BEGIN;{_MIGRATIONS[step]}"
                f"INSERT INTO facts VALUES ('schema', '{step}') ON CONFLICT (name) DO UPDATE SET value = '{step}';"
                f"PRAGMA user_version = {READABLE_FROM};COMMIT;"
            )

    def _schema(self) -> int:
        """The version that the file has; a newer release may have added to it."""
        needed = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
            return needed
        found = self._db.execute("SELECT value FROM facts WHERE name = 'schema'").fetchone()
        return max(needed, int(found[0]) if found is not None else 2)  # facts came with 2

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._watched():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # some errors, a full disk for one, have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._lock, self._watched():
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Keep in mind that SQLite found the file damaged, whoever asked."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
            ):
                self.damage = self.damage or f"CORRUPT: {error}"
            raise

    def rescue(self, target: Path) -> None:
        """Write all that this connection sees into a new file: its own may have lost its name. Raises sqlite3.Error."""
        with self._lock:
            self._db.execute("VACUUM INTO ?", (str(target),))

    # For modules with tables or questions of their own (`records.shelf`).
    writing = _write
    rows = _rows

    def _record(self, row: sqlite3.Row) -> StudyRecord:
        received = _moment(row["received_at"])
        assert received is not None
        return StudyRecord(
            study_uid=row["study_uid"],
            revision=row["revision"],
            system=self.system,
            modality=row["modality"],
            received_at=received,
            completed_at=_moment(row["completed_at"]),
            finished_at=_moment(row["finished_at"]),
            state=row["state"],
            reason=row["reason"],
            detail=row["detail"],
            instances=row["instances"],
            bytes=row["bytes"],
            model=row["model"],
            model_version=row["model_version"],
            engine=row["engine"],
            precision=row["precision"],
            rung=row["rung"],
            device=row["device"],
            inference_seconds=row["inference_seconds"],
            change=row["change"],
            row=row["id"],
            attempts=row["attempts"],
            senders=_senders(row["senders"]),
            skip_filter=bool(row["skip_filter"]),
            notes=notes_of_text(row["notes"]),
            held_for=row["held_for"],
            held_until=_moment(row["held_until"]),
            broken_off=tuple(json.loads(row["broken_off"])) if row["broken_off"] else (),
            completed_by=row["completed_by"],
            restored_at=_moment(row["restored_at"]),
        )

    # --- intake ---

    def lookup(self, sop_uid: str) -> Instance | None:
        """The instance held under this UID, if any."""
        rows = self._rows("SELECT * FROM instances WHERE sop_uid = ?", (sop_uid,))
        return self._instance(rows[0]) if rows else None

    def prospect(self, instance: Instance) -> Prospect:
        """What taking this instance would mean, as things are."""
        rows = self._rows(
            "SELECT s.state, s.instances, s.wanted, s.reason, s.evicted_at,"
            " EXISTS (SELECT 1 FROM instances WHERE sop_uid = ?1) AS known"
            " FROM studies s WHERE s.study_uid = ?2 ORDER BY s.revision DESC LIMIT 1",
            (instance.sop_uid, instance.study_uid),
        )
        if not rows:
            return Prospect(opens=True, adds=True, instances=0)
        [latest] = rows
        if latest["known"]:
            # What an administrator has asked for is free.
            again = latest["reason"] == PipelineCode.INSTANCES_REMOVED or latest["evicted_at"] is not None
            opens = instance.role == "image" and again and not latest["wanted"]
            return Prospect(opens, False, latest["instances"])
        opens = instance.role == "image" and latest["state"] not in ("receiving", "complete")
        return Prospect(opens, True, latest["instances"])

    def uncomputed(self) -> dict[tuple[str, str], int]:
        """How many revisions are not computed yet, by (address, AE title) of who opened them."""
        rows = self._rows(
            "SELECT opened_from, opened_by, count(*) AS n FROM studies INDEXED BY studies_uncomputed"
            " WHERE state IN ('receiving', 'complete', 'inferring') GROUP BY opened_from, opened_by"
        )
        return {(r["opened_from"], r["opened_by"]): r["n"] for r in rows}

    @staticmethod
    def _instance(row: sqlite3.Row) -> Instance:
        return Instance(
            sop_uid=row["sop_uid"],
            study_uid=row["study_uid"],
            series_uid=row["series_uid"],
            sop_class=row["sop_class"],
            transfer_syntax=row["transfer_syntax"],
            modality=row["modality"],
            digest=row["digest"],
            bytes=row["bytes"],
            source=row["source"],
            role=row["role"],
            address=row["address"],
        )

    def add(self, instance: Instance) -> tuple[Added, StudyRecord | None]:
        """Take one instance that is already durable in the spool; returns what became of it and its study.

        A study not yet handed to inference takes it in (and waits again); otherwise revision n+1 opens, which
        counts everything the earlier revisions had.
        """
        return self.add_all([instance])[0]

    def add_all(
        self, instances: Sequence[Instance], missing: Container[str] = (), transfer: str = ""
    ) -> list[tuple[Added, StudyRecord | None]]:
        """`add` for each, in order and in one transaction: all of them are journalled, or none.

        `missing` are the instance UIDs whose files are not in the spool. Of a study in work that is one which is
        about to end for that very reason: the image is wanted again. `transfer` names the association or request
        that brought them: until `transfer_released` it is one that may break off.
        """
        now = _text(utc_now())
        with self._write() as db:
            return [self._add(db, instance, now, missing, transfer) for instance in instances]

    def _add(
        self, db: sqlite3.Connection, instance: Instance, now: str, missing: Container[str], transfer: str
    ) -> tuple[Added, StudyRecord | None]:
        held = db.execute("SELECT * FROM instances WHERE sop_uid = ?", (instance.sop_uid,)).fetchone()
        latest = db.execute(
            "SELECT * FROM studies WHERE study_uid = ? ORDER BY revision DESC LIMIT 1",
            (instance.study_uid,),
        ).fetchone()
        if held is not None and (
            held["digest"] != instance.digest or held["study_uid"] != instance.study_uid
        ):
            return Added.CONFLICT, None
        if transfer and instance.role != "own":
            db.execute(
                "INSERT INTO transfers (study_uid, transfer, source) VALUES (?, ?, ?)"
                " ON CONFLICT (study_uid, transfer) DO NOTHING",
                (instance.study_uid, transfer, instance.source),
            )
        if held is not None:
            return self._known(db, instance, held["role"], latest, now, instance.sop_uid in missing)
        added = Added.NEW
        if instance.role != "image" and latest is not None:
            study, revision = int(latest["id"]), int(latest["revision"])
            if instance.role == "own" or latest["state"] != "receiving":
                added = Added.BESIDE
            self._beside(db, instance, latest, now)
        elif latest is not None and latest["state"] in ("receiving", "complete"):
            study, revision = int(latest["id"]), int(latest["revision"])
            self._goes_on(db, latest)
            if latest["modality"] != instance.modality and not _has_images(db, instance.study_uid):
                db.execute("UPDATE studies SET modality = ? WHERE id = ?", (instance.modality, study))
        else:
            study = self._open_revision(db, instance, latest, now)
            revision = int(latest["revision"]) + 1 if latest is not None else 1
        if instance.role == "own":
            self._note_returned(db, instance, study, now)
        db.execute(
            "INSERT INTO instances (sop_uid, study_uid, series_uid, sop_class, transfer_syntax, modality,"
            " digest, bytes, revision, source, received_at, role, address)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                instance.sop_uid,
                instance.study_uid,
                instance.series_uid,
                instance.sop_class,
                instance.transfer_syntax,
                instance.modality,
                instance.digest,
                instance.bytes,
                revision,
                instance.source,
                now,
                instance.role,
                instance.address,
            ),
        )
        db.execute(
            "UPDATE studies SET instances = instances + 1, bytes = bytes + ? WHERE id = ?",
            (instance.bytes, study),
        )
        return added, self.study(study)

    def _known(
        self,
        db: sqlite3.Connection,
        instance: Instance,
        role: str,
        latest: sqlite3.Row | None,
        now: str,
        gone: bool,
    ) -> tuple[Added, StudyRecord | None]:
        """An instance that the journal knows was sent again; `gone` says that its file is not in the spool."""
        if latest is None:
            return Added.DUPLICATE, None
        # Its files are here no more, and it is, or may yet be, to be computed again.
        wanted_again = latest["wanted"] or (
            role == "image"
            and (
                latest["reason"] == PipelineCode.INSTANCES_REMOVED
                or latest["evicted_at"] is not None
                or (latest["state"] == "inferring" and gone)
            )
        )
        if wanted_again:
            opened = self._open_revision(db, instance, latest, now)
            db.execute("UPDATE studies SET restored_at = ? WHERE id = ?", (now, opened))
            return Added.RESTORED, self.study(opened)
        if gone and role != "own" and latest["state"] in ("delivered", "receiving", "complete"):
            # The sender may be sending the whole study again, of which a new image is yet to come.
            db.execute(
                "UPDATE studies SET restored_at = ?, spool_removed_at = NULL WHERE id = ?",
                (now, latest["id"]),
            )
            if latest["state"] == "delivered":
                return Added.KEPT, self.study(latest["id"])
            if role == "image":
                self._goes_on(db, latest)
                return Added.DUPLICATE, self.study(latest["id"])
        return Added.DUPLICATE, self._record(latest)

    def _goes_on(self, db: sqlite3.Connection, latest: sqlite3.Row) -> None:
        """An image came to a study that is not in work yet: it waits for its quiet time again."""
        if latest["state"] == "complete":
            self._move(db, latest["id"], ("complete",), "receiving", completed_at=None)
        elif latest["held_for"] == Code.STUDY_INCOMPLETE:
            db.execute("UPDATE studies SET held_for = '', detail = '' WHERE id = ?", (latest["id"],))

    def _beside(self, db: sqlite3.Connection, instance: Instance, latest: sqlite3.Row, now: str) -> None:
        """An object that is no image comes to a study: it is counted, and its file goes when the study's go."""
        if latest["state"] not in OUTCOMES:
            return
        gone = latest["spool_removed_at"] if latest["state"] == "delivered" else latest["evicted_at"]
        db.execute(
            "UPDATE studies SET change = ?, restored_at = CASE WHEN ? THEN ? ELSE restored_at END,"
            " spool_removed_at = NULL WHERE id = ?",
            (self._next_change(db), gone is not None, now, latest["id"]),
        )

    @staticmethod
    def _note_returned(db: sqlite3.Connection, instance: Instance, study: int, now: str) -> None:
        """Once a study and sender, however many results come back."""
        before = db.execute(
            "SELECT 1 FROM instances WHERE study_uid = ? AND source = ? AND role = 'own' LIMIT 1",
            (instance.study_uid, instance.source),
        ).fetchone()
        if before is None:
            db.execute(
                "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)",
                (
                    now,
                    EventCode.RESULT_RETURNED,
                    f"study {study}: {instance.source or 'somebody'} sends results of Outpost back to it; they are"
                    " kept with the study and computed by nobody: take Outpost out of that route",
                ),
            )

    def _open_revision(
        self, db: sqlite3.Connection, instance: Instance, latest: sqlite3.Row | None, now: str
    ) -> int:
        revision, instances, size, restored = (
            (latest["revision"] + 1, latest["instances"], latest["bytes"], latest["restored_at"])
            if latest is not None
            else (1, 0, 0, None)
        )
        held_until = self._budget_spent_until(db, instance.study_uid, now)
        cursor = db.execute(
            "INSERT INTO studies"
            " (study_uid, revision, modality, state, received_at, instances, bytes, change, restored_at,"
            " held_for, held_until, opened_by, opened_from)"
            " VALUES (?, ?, ?, 'receiving', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                instance.study_uid,
                revision,
                instance.modality,
                now,
                instances,
                size,
                self._next_change(db),
                restored,
                EventCode.REVISIONS_HELD if held_until is not None else "",
                held_until,
                instance.source,
                instance.address,
            ),
        )
        assert cursor.lastrowid is not None
        if held_until is not None:
            assert self._budget is not None
            db.execute(
                "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)",
                (
                    now,
                    EventCode.REVISIONS_HELD,
                    f"study {cursor.lastrowid}: {self._budget.revisions} revisions within {self._budget.hours:g} h;"
                    f" the next one collects what comes and is computed at {held_until[:19]} UTC",
                ),
            )
        self._show_broken(db, instance.study_uid)
        return cursor.lastrowid

    def _budget_spent_until(self, db: sqlite3.Connection, study_uid: str, now: str) -> str | None:
        """Until when a revision that opens now waits; None where it need not. What an admin asked for is free."""
        if self._budget is None:
            return None
        hours = timedelta(hours=self._budget.hours)
        nth = db.execute(
            "SELECT received_at FROM studies WHERE study_uid = ? AND completed_by <> 'resubmitted'"
            " ORDER BY revision DESC LIMIT 1 OFFSET ?",
            (study_uid, self._budget.revisions - 1),
        ).fetchone()
        if nth is None:
            return None
        # A clock that was set back meanwhile makes nobody wait longer than the hours.
        until = min(datetime.fromisoformat(nth["received_at"]), datetime.fromisoformat(now)) + hours
        return _text(until) if until > datetime.fromisoformat(now) else None

    # --- transfers that break off ---

    def transfer_released(self, transfer: str, lacks: Sequence[tuple[str, str]] = ()) -> list[int]:
        """A transfer ended as it should: it makes up for those of its studies that broke off before it began.

        `lacks` are (kind, sentence) of what it could not hand over all the same, one of each kind. Returns the
        journal rows of studies that waited for this and may be looked at again.
        """
        with self._write() as db:
            rows = db.execute("SELECT * FROM transfers WHERE transfer = ?", (transfer,)).fetchall()
            woken: list[int] = []
            for row in rows:
                if row["source"]:
                    self._forget_habit(db, "unreleased", row["source"])
                    if not any(kind == "contexts" for kind, _ in lacks):
                        self._forget_habit(db, "contexts", row["source"])
                woken += self._made_up(db, row)
            for number, (kind, sentence) in enumerate(lacks):
                for row in rows:
                    if not (kind and self._habit(db, kind, row["source"]) >= _KNOWN_HABIT):
                        name = f"{transfer} {number}"
                        self._broke(db, row["study_uid"], name, row["source"], kind, sentence)
            return woken

    def transfer_broke(self, transfer: str, sentences: Mapping[str, str], kind: str) -> list[int]:
        """A transfer broke off; `sentences` says of each study how. Returns rows to look at again, as above.

        A sender that never ends its transfers as it should, whose studies proved whole all the same, is known for
        it: `kind` names the habit. It is empty where the transfer broke off in the middle of an instance: that
        is nobody's habit.
        """
        with self._write() as db:
            woken: list[int] = []
            for row in db.execute("SELECT * FROM transfers WHERE transfer = ?", (transfer,)).fetchall():
                if kind and self._habit(db, kind, row["source"]) >= _KNOWN_HABIT:
                    woken += self._made_up(db, row)
                    continue
                db.execute("DELETE FROM transfers WHERE id = ?", (row["id"],))
                latest = self._latest(db, row["study_uid"])
                if kind and (latest is None or latest["state"] in (*OUTCOMES, "delivering")):
                    continue  # all that was sent is in the result
                sentence = sentences.get(row["study_uid"], "a transfer of this study broke off")
                self._broke(db, row["study_uid"], transfer, row["source"], kind, sentence)
            return woken

    def transfers_cut(self) -> int:
        """Transfers that were open when the service ended broke off with it; returns of how many studies."""
        with self._write() as db:
            open_ = db.execute("SELECT * FROM transfers WHERE broken_after IS NULL").fetchall()
            cut = 0
            for row in open_:
                db.execute("DELETE FROM transfers WHERE id = ?", (row["id"],))
                latest = self._latest(db, row["study_uid"])
                if latest is None or latest["state"] in (*OUTCOMES, "delivering"):
                    continue
                sentence = f"the service ended in the middle of a transfer from {row['source'] or 'an unknown sender'}"
                self._broke(db, row["study_uid"], row["transfer"], row["source"], "", sentence)
                cut += 1
            return cut

    def _broke(
        self, db: sqlite3.Connection, study_uid: str, transfer: str, source: str, kind: str, sentence: str
    ) -> None:
        # What makes up for this one makes up for those before it: over a bad line there may be many.
        db.execute(
            "DELETE FROM transfers WHERE study_uid = ? AND source = ? AND kind = ? AND broken_after IS NOT NULL"
            " AND transfer <> ?",
            (study_uid, source, kind, transfer),
        )
        db.execute(
            "INSERT INTO transfers (study_uid, transfer, source, kind, broken_after, sentence)"
            " VALUES (?, ?, ?, ?, coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'transfers'), 0) + 1, ?)"
            " ON CONFLICT (study_uid, transfer) DO NOTHING",
            (study_uid, transfer, source, kind, sentence),
        )
        db.execute(
            "DELETE FROM transfers WHERE id IN (SELECT id FROM transfers WHERE study_uid = ? AND broken_after IS NOT"
            " NULL ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (study_uid, _MOST_BROKEN),
        )
        self._show_broken(db, study_uid)

    def _made_up(self, db: sqlite3.Connection, released: sqlite3.Row) -> list[int]:
        db.execute(
            "DELETE FROM transfers WHERE id = ? OR (study_uid = ? AND broken_after < ?)",
            (released["id"], released["study_uid"], released["id"]),
        )
        return self._show_broken(db, released["study_uid"])

    def _show_broken(self, db: sqlite3.Connection, study_uid: str) -> list[int]:
        """Keep the newest revision's own list as it is now; returns its row where it waited for nothing else."""
        latest = self._latest(db, study_uid)
        if latest is None or latest["state"] in (*OUTCOMES, "delivering"):
            return []
        found = db.execute(
            "SELECT DISTINCT sentence FROM transfers WHERE study_uid = ? AND broken_after IS NOT NULL ORDER BY id",
            (study_uid,),
        ).fetchall()
        sentences = [row["sentence"] for row in found]
        text = json.dumps(sentences) if sentences else ""
        if text == latest["broken_off"]:
            return []
        db.execute("UPDATE studies SET broken_off = ? WHERE id = ?", (text, latest["id"]))
        if text or latest["state"] != "receiving" or latest["held_for"] != Code.STUDY_INCOMPLETE:
            return []
        db.execute("UPDATE studies SET held_for = '', detail = '' WHERE id = ?", (latest["id"],))
        return [int(latest["id"])]

    @staticmethod
    def _latest(db: sqlite3.Connection, study_uid: str) -> sqlite3.Row | None:
        found = db.execute(
            "SELECT * FROM studies WHERE study_uid = ? ORDER BY revision DESC LIMIT 1", (study_uid,)
        ).fetchone()
        assert found is None or isinstance(found, sqlite3.Row)
        return found

    @staticmethod
    def _habit(db: sqlite3.Connection, kind: str, source: str) -> int:
        """How many studies in a row came so from this sender and proved whole."""
        found = db.execute("SELECT value FROM facts WHERE name = ?", (f"{kind} {source}",)).fetchone()
        return int(found["value"]) if found is not None else 0

    @staticmethod
    def _forget_habit(db: sqlite3.Connection, kind: str, source: str) -> None:
        db.execute("DELETE FROM facts WHERE name = ?", (f"{kind} {source}",))

    def _learn_habits(self, db: sqlite3.Connection, row: int, notes: Sequence[Note]) -> None:
        """A study was computed: did it prove whole although its transfers did not end as they should?

        It did where its result is of no part, or of one for no other reason than these very transfers, and nobody
        made up for them in all the time it waited.
        """
        study = db.execute("SELECT * FROM studies WHERE id = ?", (row,)).fetchone()
        broken = db.execute(
            "SELECT * FROM transfers WHERE study_uid = ? AND broken_after IS NOT NULL", (study["study_uid"],)
        ).fetchall()
        if not broken or any(not one["kind"] for one in broken):
            return
        if any(note.code == NoteCode.STUDY_PARTIAL for note in notes):
            other = study["detail"]
            for one in broken:
                other = other.replace(one["sentence"], "")
            if not study["detail"] or other.strip("; "):
                return
        for kind, source in {(one["kind"], one["source"]) for one in broken}:
            db.execute(
                "INSERT INTO facts (name, value) VALUES (?, '1')"
                " ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
                (f"{kind} {source}",),
            )
        db.execute(
            "DELETE FROM transfers WHERE study_uid = ? AND broken_after IS NOT NULL", (study["study_uid"],)
        )

    def refuse(self, reason: str, file: str, size: int, source: str, address: str = "") -> None:
        """Note that bytes were received but not taken; `file` is where quarantine keeps them."""
        with self._write() as db:
            db.execute(
                "INSERT INTO refused (at, reason, file, bytes, source, address) VALUES (?, ?, ?, ?, ?, ?)",
                (_text(utc_now()), reason, file, size, source, address),
            )

    # --- the way of a study ---

    def complete(self, row: int, by: str = "quiet") -> None:
        """No more instances are awaited: the study may be processed. `by` names the timer that said so."""
        with self._write() as db:
            self._move(db, row, ("receiving",), "complete", completed_at=_text(utc_now()), completed_by=by)
            # What it lacked stays on record; that it waited for its budget says nothing of its images.
            db.execute(
                "UPDATE studies SET held_until = CASE held_for WHEN ? THEN NULL ELSE held_until END, held_for = ''"
                " WHERE id = ?",
                (EventCode.REVISIONS_HELD, row),
            )

    def hold(self, row: int, until: datetime, lacks: Sequence[str]) -> bool:
        """Images of a study in work are missing that may still come: it waits, and no attempt was made.

        Returns False, changing nothing, where a later revision has opened: that one has what came since.
        """
        with self._write() as db:
            study = db.execute("SELECT * FROM studies WHERE id = ?", (row,)).fetchone()
            latest = self._latest(db, study["study_uid"])
            assert latest is not None
            if latest["id"] != row:
                return False
            self._move(
                db,
                row,
                ("inferring",),
                "receiving",
                completed_at=None,
                completed_by="",
                held_for=Code.STUDY_INCOMPLETE,
                held_until=_text(until),
                detail="; ".join(lacks),
                attempts=study["attempts"] - 1,
            )
            if study["held_until"] is None:
                db.execute(
                    "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)",
                    (
                        _text(utc_now()),
                        EventCode.STUDY_HELD,
                        f"study {row} waits until {_text(until)[:19]} UTC at the latest: {'; '.join(lacks)}",
                    ),
                )
            return True

    def begin_inference(self, row: int) -> None:
        """Count one attempt and take the study out of the queue; survives a crash as `inferring`."""
        with self._write() as db:
            self._move(db, row, ("complete",), "inferring")
            db.execute("UPDATE studies SET attempts = attempts + 1 WHERE id = ?", (row,))

    def return_to_queue(self, row: int, *, forget_attempt: bool) -> None:
        """Put a study whose inference did not end back; `forget_attempt` when the study is not to blame."""
        with self._write() as db:
            self._move(db, row, ("inferring",), "complete")
            if forget_attempt:
                db.execute("UPDATE studies SET attempts = attempts - 1 WHERE id = ?", (row,))

    def recompute(self, row: int) -> None:
        """The results of a study vanished from the outbox before they were delivered: make them again."""
        with self._write() as db:
            self._move(db, row, ("delivering",), "complete")

    def begin_delivery(
        self,
        row: int,
        *,
        model: str,
        model_version: str,
        engine: str,
        precision: str,
        rung: str,
        device: str,
        inference_seconds: float,
        notes: Sequence[Note] = (),
        results: Sequence[ResultObject] = (),
    ) -> None:
        """The results are durable in the outbox; this is what made them, and what they say of themselves."""
        now = _text(utc_now())
        with self._write() as db:
            self._learn_habits(db, row, notes)
            db.executemany(
                "INSERT INTO results (sop_uid, study, sop_class, series_uid, made_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (sop_uid) DO NOTHING",
                [(one.sop_uid, row, one.sop_class, one.series_uid, now) for one in results],
            )
            self._move(
                db,
                row,
                ("inferring",),
                "delivering",
                model=model,
                model_version=model_version,
                engine=engine,
                precision=precision,
                rung=rung,
                device=device,
                inference_seconds=inference_seconds,
                notes=notes_as_text(notes),
            )

    def is_result(self, sop_uid: str, series_uid: str = "") -> bool:
        """Whether this instance is a result that this system made, or lies in a series it made."""
        return bool(
            self._rows(
                "SELECT 1 FROM results WHERE sop_uid = ? UNION ALL SELECT 1 FROM results WHERE series_uid = ? LIMIT 1",
                (sop_uid, series_uid),
            )
        )

    def replaced_by(self, study: StudyRecord) -> tuple[Replaced, ...]:
        """Results of earlier revisions that somebody may hold, the newest revision's first."""
        rows = self._rows(
            "SELECT r.sop_class, r.sop_uid, r.series_uid, s.revision FROM results r JOIN studies s ON s.id = r.study"
            " WHERE s.study_uid = ? AND s.revision < ? ORDER BY s.revision DESC, r.sop_uid",
            (study.study_uid, study.revision),
        )
        return tuple(Replaced(r["sop_class"], r["sop_uid"], r["series_uid"], r["revision"]) for r in rows)

    def finish(
        self, row: int, outcome: str, reason: str = "", detail: str = "", kept_bytes: int | None = None
    ) -> None:
        """End a study. Anything but `delivered` must say why (`reason` is a code).

        `kept_bytes` is what quarantine holds of it.
        """
        if outcome not in OUTCOMES:
            raise JournalError(f"outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
        if outcome != "delivered" and not reason:
            raise JournalError(f"outcome {outcome!r} without a reason code: name one")
        before = ("delivering",) if outcome == "delivered" else ("complete", "inferring")
        with self._write() as db:
            if reason == Code.STUDY_INCOMPLETE:
                self._learn_habits(db, row, (Note(NoteCode.STUDY_PARTIAL),))
            self._move(
                db,
                row,
                before,
                outcome,
                reason=reason,
                detail=detail,
                finished_at=_text(utc_now()),
                kept_bytes=kept_bytes,
            )

    def _move(
        self,
        db: sqlite3.Connection,
        row: int,
        before: Sequence[str],
        state: str,
        **columns: str | float | None,
    ) -> None:
        assignments = {"state": state, **columns, "change": self._next_change(db)}
        names = ", ".join(f"{name} = ?" for name in assignments)
        cursor = db.execute(
            f"UPDATE studies SET {names} WHERE id = ? AND state IN ({', '.join('?' * len(before))})",
            (*assignments.values(), row, *before),
        )
        if cursor.rowcount != 1:
            now = db.execute("SELECT state FROM studies WHERE id = ?", (row,)).fetchone()
            found = now["state"] if now else "absent"
            raise JournalError(
                f"study row {row} is {found}, not {' or '.join(before)}: it cannot become {state}"
            )

    @staticmethod
    def _next_change(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT coalesce(max(change), 0) + 1 FROM studies").fetchone()[0])

    # --- deliveries ---

    def deliveries(self, row: int) -> list[Delivery]:
        """Every attempt made so far for one study; a file and destination never tried have no entry."""
        return [
            self._delivery(r)
            for r in self._rows("SELECT * FROM deliveries WHERE study = ? ORDER BY file, destination", (row,))
        ]

    def deliveries_to(self, destination: str) -> dict[int, dict[str, Delivery]]:
        """Every attempt made so far for the studies that are delivering: journal row -> file -> how far it is."""
        found: dict[int, dict[str, Delivery]] = {}
        for r in self._rows(
            "SELECT d.* FROM studies s JOIN deliveries d ON d.study = s.id"
            " WHERE s.state = 'delivering' AND d.destination = ?",
            (destination,),
        ):
            found.setdefault(r["study"], {})[r["file"]] = self._delivery(r)
        return found

    @staticmethod
    def _delivery(row: sqlite3.Row) -> Delivery:
        return Delivery(
            study=row["study"],
            file=row["file"],
            destination=row["destination"],
            attempts=row["attempts"],
            last_attempt_at=_moment(row["last_attempt_at"]),
            confirmed_at=_moment(row["confirmed_at"]),
            error=row["error"],
            stored_at=_moment(row["stored_at"]),
            transaction_uid=row["transaction_uid"],
            commitment_asked_at=_moment(row["commitment_asked_at"]),
            remark=row["remark"],
            refused_for=row["refused_for"],
        )

    def note_delivery(
        self,
        row: int,
        file: str,
        destination: str,
        error: str | None,
        *,
        proven: bool = True,
        remark: str = "",
        refused_for: str = "",
    ) -> None:
        """One attempt ended: `error` is None when the destination took the object, then with a `remark` perhaps.

        `proven` says whether that is the proof, or storage commitment must still be had. `refused_for` is the cause
        of an error that repetition cannot cure.
        """
        now = _text(utc_now())
        taken = now if error is None else None
        with self._write() as db:
            db.execute(
                "INSERT INTO deliveries (study, file, destination, attempts, last_attempt_at, stored_at,"
                " confirmed_at, error, remark, refused_for) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (study, file, destination) DO UPDATE SET"
                " attempts = attempts + 1, last_attempt_at = excluded.last_attempt_at,"
                " stored_at = coalesce(excluded.stored_at, stored_at),"
                " confirmed_at = coalesce(confirmed_at, excluded.confirmed_at), error = excluded.error,"
                " remark = CASE WHEN excluded.stored_at IS NULL THEN remark ELSE excluded.remark END,"
                " refused_for = excluded.refused_for",
                (
                    row,
                    file,
                    destination,
                    now,
                    taken,
                    taken if proven else None,
                    error or "",
                    remark,
                    refused_for,
                ),
            )

    def overtaken(self, destination: str) -> dict[int, int | None]:
        """Journal rows of delivering studies of which a later revision has reached this destination.

        The value is that revision where it was delivered whole, else None.
        """
        rows = self._rows(
            "SELECT s.id, max(CASE WHEN o.state = 'delivered' AND d.confirmed_at IS NOT NULL THEN o.revision END)"
            " AS whole FROM studies s JOIN studies o ON o.study_uid = s.study_uid AND o.revision > s.revision"
            " JOIN deliveries d ON d.study = o.id WHERE s.state = 'delivering' AND d.destination = ?"
            " AND (d.stored_at IS NOT NULL OR d.confirmed_at IS NOT NULL) GROUP BY s.id",
            (destination,),
        )
        return {r["id"]: r["whole"] for r in rows}

    def settle_delivery(self, row: int, file: str, destination: str, remark: str) -> None:
        """This object need not reach this destination any more; `remark` says why."""
        with self._write() as db:
            db.execute(
                "UPDATE deliveries SET confirmed_at = coalesce(confirmed_at, ?), remark = ?, refused_for = ''"
                " WHERE study = ? AND file = ? AND destination = ?",
                (_text(utc_now()), remark, row, file, destination),
            )

    def deliveries_refused(self) -> dict[tuple[str, str], int]:
        """How many results a destination refuses for good, by (destination, cause)."""
        rows = self._rows(
            "SELECT d.destination, d.refused_for, count(*) AS n FROM studies s JOIN deliveries d ON d.study = s.id"
            " WHERE s.state = 'delivering' AND d.refused_for <> '' AND d.confirmed_at IS NULL"
            " GROUP BY d.destination, d.refused_for"
        )
        return {(r["destination"], r["refused_for"]): r["n"] for r in rows}

    def note_commitment_asked(
        self, files: Sequence[tuple[int, str]], destination: str, transaction_uid: str
    ) -> None:
        """Storage commitment is asked for these (journal row, file) at a destination, in one transaction."""
        now = _text(utc_now())
        with self._write() as db:
            db.executemany(
                "UPDATE deliveries SET transaction_uid = ?, commitment_asked_at = ?"
                " WHERE study = ? AND file = ? AND destination = ?",
                [(transaction_uid, now, row, file, destination) for row, file in files],
            )

    def awaiting(self, transaction_uid: str) -> list[tuple[int, str, str]]:
        """(journal row, file, destination) of what this storage commitment was asked for, and is still open."""
        rows = self._rows(
            "SELECT study, file, destination FROM deliveries"
            " WHERE transaction_uid = ? AND transaction_uid <> '' AND confirmed_at IS NULL",
            (transaction_uid,),
        )
        return [(r["study"], r["file"], r["destination"]) for r in rows]

    def commitment_reported(
        self,
        transaction_uid: str,
        committed: Sequence[tuple[int, str]],
        failed: Sequence[tuple[int, str, str, str]],
    ) -> None:
        """A destination reported on (journal row, file): `committed` is proven, `failed` (with the reason why, and
        the cause if repetition cannot cure it) is to be sent again."""
        now = _text(utc_now())
        with self._write() as db:
            db.executemany(
                "UPDATE deliveries SET confirmed_at = coalesce(confirmed_at, ?), error = '', refused_for = ''"
                " WHERE transaction_uid = ? AND study = ? AND file = ?",
                [(now, transaction_uid, row, file) for row, file in committed],
            )
            db.executemany(
                "UPDATE deliveries SET stored_at = NULL, transaction_uid = '', commitment_asked_at = NULL,"
                " last_attempt_at = ?, error = ?, refused_for = ? WHERE transaction_uid = ? AND study = ?"
                " AND file = ? AND confirmed_at IS NULL",
                [(now, reason, cause, transaction_uid, row, file) for row, file, reason, cause in failed],
            )

    # --- reading ---

    def study(self, row: int) -> StudyRecord:
        """The study in this journal row, which must exist."""
        return self._record(self._rows(f"SELECT {_RECORD_COLUMNS} FROM studies WHERE id = ?", (row,))[0])

    def in_state(self, state: str, limit: int = -1) -> list[StudyRecord]:
        """Studies in one state, oldest first."""
        sql = f"SELECT {_RECORD_COLUMNS} FROM studies WHERE state = ? ORDER BY id LIMIT ?"
        return [self._record(r) for r in self._rows(sql, (state, limit))]

    def queued(self, limit: int = -1) -> list[StudyRecord]:
        """Complete studies, oldest first; a revision waits until the one before it has its result or its end."""
        sql = (
            f"SELECT {_RECORD_COLUMNS} FROM studies s WHERE state = 'complete' AND NOT EXISTS (SELECT 1"
            " FROM studies o WHERE o.study_uid = s.study_uid AND o.revision < s.revision"
            " AND o.state IN ('receiving', 'complete', 'inferring')) ORDER BY id LIMIT ?"
        )
        return [self._record(r) for r in self._rows(sql, (limit,))]

    def queued_of_each(self, claimed: Collection[int] = ()) -> list[tuple[str, str, int]]:
        """Of each sender the oldest study that is `queued`, and not claimed: address, AE title, journal row."""
        rows = self._rows(
            "SELECT opened_from, opened_by, min(id) AS id FROM studies s WHERE state = 'complete'"
            " AND id NOT IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1"
            " FROM studies o WHERE o.study_uid = s.study_uid AND o.revision < s.revision"
            " AND o.state IN ('receiving', 'complete', 'inferring')) GROUP BY opened_from, opened_by",
            (json.dumps(sorted(claimed)),),
        )
        return [(r["opened_from"], r["opened_by"], r["id"]) for r in rows]

    def opener(self, row: int) -> tuple[str, str]:
        """Address and AE title of who opened this revision; empty where nobody sent it."""
        [found] = self._rows("SELECT opened_from, opened_by FROM studies WHERE id = ?", (row,))
        return found["opened_from"], found["opened_by"]

    def newest(self, state: str | None = None, limit: int = 100) -> list[StudyRecord]:
        """Studies for a person to look at, newest first."""
        sql = (
            f"SELECT {_RECORD_COLUMNS} FROM studies WHERE ?1 IS NULL OR state = ?1 ORDER BY id DESC LIMIT ?2"
        )
        return [self._record(r) for r in self._rows(sql, (state, limit))]

    def revisions(self, study_uid: str) -> list[StudyRecord]:
        """Every revision of one study, first to last."""
        sql = f"SELECT {_RECORD_COLUMNS} FROM studies WHERE study_uid = ? ORDER BY revision"
        return [self._record(r) for r in self._rows(sql, (study_uid,))]

    def instances(self, study_uid: str, revision: int) -> list[Instance]:
        """What belongs to one revision: all that arrived up to it, in order of arrival."""
        sql = "SELECT * FROM instances WHERE study_uid = ? AND revision <= ? ORDER BY id"
        return [self._instance(r) for r in self._rows(sql, (study_uid, revision))]

    def sender(self, study_uid: str) -> str:
        """Who sent the newest instance of a study: calling AE title or "stow"; empty if there is none."""
        rows = self._rows(
            "SELECT source FROM instances WHERE study_uid = ? ORDER BY id DESC LIMIT 1", (study_uid,)
        )
        return str(rows[0]["source"]) if rows else ""

    def outcomes(self) -> dict[tuple[str, str], int]:
        """How many revisions ended (or are on their way) by (outcome, reason)."""
        counts: dict[tuple[str, str], int] = {}
        for r in self._rows("SELECT state, reason, count(*) AS n FROM studies GROUP BY state, reason"):
            key = (r["state"] if r["state"] in OUTCOMES else "pending", r["reason"])
            counts[key] = counts.get(key, 0) + r["n"]
        return counts

    def computed(self) -> dict[tuple[str, str, str, str], int]:
        """How many revisions were computed by (rung, engine, precision, device)."""
        rows = self._rows(
            "SELECT rung, engine, precision, device, count(*) AS n FROM studies WHERE rung != ''"
            " GROUP BY rung, engine, precision, device"
        )
        return {(r["rung"], r["engine"], r["precision"], r["device"]): r["n"] for r in rows}

    def queue(self) -> dict[str, tuple[int, datetime | None]]:
        """Per unfinished state: how many studies, and since when the oldest has been on its way."""
        rows = self._rows(
            "SELECT state, count(*) AS n, min(coalesce(completed_at, received_at)) AS since FROM studies"
            " WHERE state IN ('receiving', 'complete', 'inferring', 'delivering') GROUP BY state"
        )
        return {r["state"]: (r["n"], _moment(r["since"])) for r in rows}

    def instances_received(self) -> int:
        """Instances ever taken; never falls, also when files are removed after delivery."""
        return int(self._rows("SELECT coalesce(max(id), 0) AS n FROM instances")[0]["n"])

    def instances_by_role(self) -> dict[str, int]:
        """Instances ever taken, by what they are to a model: image, other, own."""
        rows = self._rows("SELECT role, count(*) AS n FROM instances WHERE role <> 'image' GROUP BY role")
        found = {"image": 0, "other": 0, "own": 0} | {r["role"]: r["n"] for r in rows}
        found["image"] = self.instances_received() - found["other"] - found["own"]
        return found

    def held(self) -> dict[str, int]:
        """How many studies wait although their timers ran out, by code."""
        rows = self._rows(
            "SELECT held_for, count(*) AS n FROM studies WHERE held_for <> '' GROUP BY held_for"
        )
        return {r["held_for"]: r["n"] for r in rows}

    def instances_refused(self) -> dict[str, int]:
        """Instances not taken, by reason."""
        rows = self._rows(
            "SELECT reason, sum(n) AS n FROM (SELECT reason, count(*) AS n FROM refused GROUP BY reason"
            " UNION ALL SELECT reason, sum(instances) FROM refused_gone GROUP BY reason) GROUP BY reason"
        )
        return {r["reason"]: r["n"] for r in rows}

    # --- failures, and what was learnt from them ---

    def note_failure(self, study: int | None, cause: str, rung: str, detail: str) -> int:
        """Write down one failure; `study` is None when no study was in work. Returns its number."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO failures (at, study, cause, rung, detail) VALUES (?, ?, ?, ?, ?)",
                (_text(utc_now()), study, cause, rung, detail),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def acquit(self, failure: int) -> None:
        """The host was to blame, not the study: the failure stays, the study is not charged with it."""
        with self._write() as db:
            db.execute("UPDATE failures SET study = NULL WHERE id = ?", (failure,))

    def failures_of(self, row: int) -> list[tuple[str, str]]:
        """(cause, rung) of every failure charged to a study, in order."""
        rows = self._rows("SELECT cause, rung FROM failures WHERE study = ? ORDER BY id", (row,))
        return [(r["cause"], r["rung"]) for r in rows]

    def failures_by_cause(self) -> dict[str, int]:
        """Failures ever, by cause."""
        rows = self._rows("SELECT cause, count(*) AS n FROM failures GROUP BY cause")
        return {r["cause"]: r["n"] for r in rows}

    def failures_since_success(self) -> dict[tuple[str, str], int]:
        """How often each (cause, rung) has failed since anything was last computed right."""
        rows = self._rows(
            "SELECT cause, rung, count(*) AS n FROM failures WHERE id >"
            " coalesce((SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'success'), 0)"
            " GROUP BY cause, rung"
        )
        return {(r["cause"], r["rung"]): r["n"] for r in rows}

    def note_success(self) -> None:
        """Something was computed right: earlier failures no longer count as a row."""
        with self._write() as db:
            db.execute(
                "INSERT INTO facts (name, value) SELECT 'success', coalesce(max(id), 0) FROM failures WHERE true"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            )

    def known_failures(self, bundle: str, device: str) -> list[KnownFailure]:
        """Rungs that failed with this bundle on this device; a row that makes no sense is left out."""
        found = []
        for r in self._rows("SELECT * FROM ladder WHERE bundle = ? AND device = ?", (bundle, device)):
            with suppress(ValueError, TypeError, AttributeError):
                found.append(
                    KnownFailure(
                        rung=str(r["rung"]),
                        shape=tuple(int(size) for size in r["shape"].split("x") if size),
                        cause=str(r["cause"]),
                        failures=max(1, int(r["failures"])),
                        failed_at=datetime.fromisoformat(r["failed_at"]).astimezone(UTC),
                    )
                )
        return found

    def remember_failure(self, bundle: str, device: str, shape: Sequence[int], rung: str, cause: str) -> None:
        """A rung failed for a shape; an empty shape means whatever the input."""
        with self._write() as db:
            db.execute(
                "INSERT INTO ladder (bundle, device, shape, rung, cause, failed_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (bundle, device, shape, rung) DO UPDATE SET"
                " failures = failures + 1, cause = excluded.cause, failed_at = excluded.failed_at",
                (bundle, device, "x".join(map(str, shape)), rung, cause, _text(utc_now())),
            )

    def forget_failure(self, bundle: str, device: str, shape: Sequence[int], rung: str) -> None:
        """A rung that had failed works again."""
        with self._write() as db:
            db.execute(
                "DELETE FROM ladder WHERE bundle = ? AND device = ? AND shape = ? AND rung = ?",
                (bundle, device, "x".join(map(str, shape)), rung),
            )

    def note_event(self, code: str, detail: str) -> None:
        """Keep what the service decided by itself, or was told to do."""
        with self._write() as db:
            db.execute(
                "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)", (_text(utc_now()), code, detail)
            )

    def note_event_daily(self, code: str, subject: str, more: str) -> bool:
        """Keep an event whose detail begins with `subject`, unless there is such a one of today (UTC).

        Returns whether it was new.
        """
        now = _text(utc_now())
        with self._write() as db:
            if db.execute(
                "SELECT 1 FROM events WHERE code = ? AND at >= ? AND substr(detail, 1, ?) = ?",
                (code, now[:10], len(subject), subject),
            ).fetchone():
                return False
            db.execute("INSERT INTO events (at, code, detail) VALUES (?, ?, ?)", (now, code, subject + more))
        return True

    def events(self, limit: int = 100) -> list[Event]:
        """Newest first."""
        rows = self._rows("SELECT at, code, detail FROM events ORDER BY id DESC LIMIT ?", (limit,))
        return [Event(datetime.fromisoformat(r["at"]), r["code"], r["detail"]) for r in rows]

    def fact(self, name: str) -> str | None:
        """A small fact that outlives the process."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0]["value"] if rows else None

    def keep_fact(self, name: str, value: str | None) -> None:
        """Set a fact; None removes it."""
        with self._write() as db:
            if value is None:
                db.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                db.execute(
                    "INSERT INTO facts (name, value) VALUES (?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (name, value),
                )

    # --- keeping the spool small ---

    def removable(self, finished_before: datetime, limit: int = 50) -> list[StudyRecord]:
        """Studies whose files may go: the newest revision was delivered before then, none is on its way.

        Files that were sent again stay as long from then. What came late to a study that has left quarantine goes
        in the same way.
        """
        sql = (
            f"SELECT {_RECORD_COLUMNS} FROM studies s WHERE (state = 'delivered' OR (state IN ('rejected',"
            " 'quarantined') AND evicted_at IS NOT NULL AND restored_at IS NOT NULL)) AND spool_removed_at IS NULL"
            " AND finished_at < ?1 AND (restored_at IS NULL OR restored_at < ?1)"
            " AND NOT EXISTS (SELECT 1 FROM studies o WHERE o.study_uid = s.study_uid"
            " AND (o.revision > s.revision OR o.state NOT IN ('delivered', 'rejected', 'quarantined')))"
            " ORDER BY id LIMIT ?2"
        )
        return [self._record(r) for r in self._rows(sql, (_text(finished_before), limit))]

    def left_quarantine(self, row: int) -> bool:
        """Whether it was decided that the files of this revision leave quarantine."""
        return bool(self._rows("SELECT 1 FROM studies WHERE id = ? AND evicted_at IS NOT NULL", (row,)))

    def note_kept(self, row: int, kept_bytes: int) -> None:
        """What quarantine holds of an ended revision has changed."""
        with self._write() as db:
            db.execute("UPDATE studies SET kept_bytes = ? WHERE id = ?", (kept_bytes, row))

    def note_spool_removed(self, study: StudyRecord) -> None:
        """The files of this revision, and so of all before it, have left the spool.

        A later one may have opened since, and brought files of its own.
        """
        with self._write() as db:
            db.execute(
                "UPDATE studies SET spool_removed_at = ?, restored_at = NULL WHERE study_uid = ? AND revision <= ?",
                (_text(utc_now()), study.study_uid, study.revision),
            )

    # --- computing again ---

    def resubmit(self, row: int, *, skip_filter: bool, told: str) -> StudyRecord:
        """Open revision n+1 of an ended study as if it had just come whole, and write down who wanted it.

        Raises `JournalError` when a later revision is there, or this one has not ended.
        """
        now = _text(utc_now())
        with self._write() as db:
            latest = self._ended(db, row)
            cursor = db.execute(
                "INSERT INTO studies (study_uid, revision, modality, state, received_at, completed_at,"
                " completed_by, instances, bytes, skip_filter, change)"
                " VALUES (?, ?, ?, 'complete', ?, ?, 'resubmitted', ?, ?, ?, ?)",
                (
                    latest["study_uid"],
                    latest["revision"] + 1,
                    latest["modality"],
                    now,
                    now,
                    latest["instances"],
                    latest["bytes"],
                    int(skip_filter),
                    self._next_change(db),
                ),
            )
            assert cursor.lastrowid is not None
            db.execute(
                "INSERT INTO events (at, code, detail) VALUES (?, ?, ?)",
                (now, EventCode.STUDY_RESUBMITTED, f"study {row} as study {cursor.lastrowid}{told}"),
            )
            return self.study(cursor.lastrowid)

    def want(self, row: int) -> None:
        """Take the images of this study as new when they are sent once more: its files are gone.

        Raises `JournalError` as `resubmit` does: a study on its way has, or gets, its files.
        """
        with self._write() as db:
            self._ended(db, row)
            db.execute("UPDATE studies SET wanted = 1 WHERE id = ?", (row,))

    @staticmethod
    def _ended(db: sqlite3.Connection, row: int) -> sqlite3.Row:
        """The row of a study's newest revision, which has ended. Raises `JournalError` where it is another."""
        study = db.execute("SELECT * FROM studies WHERE id = ?", (row,)).fetchone()
        if study is None:
            raise JournalError(f"there is no study row {row}: see the list of studies")
        latest = db.execute(
            "SELECT * FROM studies WHERE study_uid = ? ORDER BY revision DESC LIMIT 1",
            (study["study_uid"],),
        ).fetchone()
        if latest["state"] not in OUTCOMES:
            raise JournalError(
                f"revision {latest['revision']} of this study is {latest['state']}: wait for its end"
            )
        if latest["id"] != row:
            raise JournalError(
                f"revision {latest['revision']} of this study is newer (study-{latest['id']}): take that"
            )
        assert isinstance(latest, sqlite3.Row)
        return latest

    # --- the recorder ---

    def unshipped(self, limit: int) -> list[StudyRecord]:
        """Rows the region's Postgres does not hold in their present state, in order of change."""
        sql = f"SELECT {_RECORD_COLUMNS} FROM studies WHERE change > shipped_change ORDER BY change LIMIT ?"
        return [self._record(r) for r in self._rows(sql, (limit,))]

    def mark_shipped(self, records: Sequence[StudyRecord]) -> None:
        """Postgres has committed exactly these; a study that changed meanwhile stays unshipped."""
        with self._write() as db:
            db.executemany(
                "UPDATE studies SET shipped_change = max(shipped_change, ?)"
                " WHERE study_uid = ? AND revision = ?",
                [(r.change, r.study_uid, r.revision) for r in records],
            )
