"""The recorder: ships the journal's rows to the region's Postgres, where the centre reads them.

A thread of its own, so that the clinical path never waits for a database: while Postgres is away, rows stay
unshipped in the journal and the recorder tries again with growing pauses, for weeks if need be. A row is
marked shipped only after its commit; a crash between the two ships it again, and the upsert changes nothing.

Images that intake refused belong to no study: their counts by day, sender and reason are shipped as they stand.

No patient data leaves: a study becomes `study_key`, free-text details (of an end, of a note) stay in the journal, and
a modality that is none of DICOM's codes (headers carry anything) is left out, as is what is no AE title.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import psycopg

from outpost.codes.failure import told
from outpost.codes.notes import is_doubtful, is_partial
from outpost.config import Records
from outpost.events import EventCode
from outpost.reasons import PipelineCode
from outpost.records.counts import RefusedDay, clean_sender, refused_after
from outpost.records.journal import OUTCOMES, Journal, StudyRecord, utc_now
from outpost.records.said import notes_of

log = logging.getLogger(__name__)

BATCH_ROWS = 500
POLL_SECONDS = 1.0
RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0

# PS3.3 C.7.3.1.1.1: the defined terms of Modality (0008,0060).
_MODALITY_TERMS = (
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL"
    " IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX"
    " REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF"
    " STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC"
)
MODALITIES = frozenset(_MODALITY_TERMS.split())

_NOTE_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,79}")  # as outpost.studies.notes_are_codes

_COLUMNS = (
    "study_key",
    "revision",
    "system",
    "modality",
    "received_at",
    "completed_at",
    "finished_at",
    "outcome",
    "reason",
    "instances",
    "bytes",
    "model",
    "model_version",
    "engine",
    "precision",
    "rung",
    "device",
    "inference_seconds",
    "release",
    "senders",
    "notes",
    "partial",
    "doubtful",
)
_KEY = ("system", "study_key", "revision")

# What ended keeps the release it ended under, however often and by whom its row is shipped again: a migration
# of the journal may ship all of history.
_KEPT = {
    "release": "CASE WHEN outpost.studies.finished_at IS NULL THEN EXCLUDED.release ELSE outpost.studies.release END"
}

# seq and updated_at are the database's own (outpost.stamp_study).
_UPSERT = (
    f"INSERT INTO outpost.studies ({', '.join(_COLUMNS)}) VALUES ({', '.join(f'%({c})s' for c in _COLUMNS)})"
    f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{c} = {_KEPT.get(c, f'EXCLUDED.{c}')}" for c in _COLUMNS if c not in _KEY)
)

# Counts as they stand: shipping them again changes nothing.
_UPSERT_REFUSED = (
    "INSERT INTO outpost.refused_instances AS r (system, day, sender, reason, instances, bytes)"
    " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (system, day, sender, reason) DO UPDATE SET"
    " instances = EXCLUDED.instances, bytes = EXCLUDED.bytes"
    " WHERE (r.instances, r.bytes) IS DISTINCT FROM (EXCLUDED.instances, EXCLUDED.bytes)"
)
# Of the journal: up to which refusal Postgres has them.
_REFUSED_SHIPPED = "refused_shipped"

_PENDING = "SELECT study_key, revision FROM outpost.studies WHERE system = %s AND outcome = 'pending'"
# Where the row has ended meanwhile, or has been told otherwise, it stays.
_LOST = (
    "UPDATE outpost.studies SET outcome = 'quarantined', reason = %s, completed_at = coalesce(completed_at, %s),"
    " finished_at = %s WHERE system = %s AND study_key = %s AND revision = %s AND outcome = 'pending'"
)

# Held until commit, so that rows of several systems on a host become visible in the order of their seq.
# outpost.stamp_study takes the same lock; taking it first keeps two recorders from deadlocking over rows.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('outpost.studies'))"


def study_key(uid_key: str, study_uid: str) -> str:
    """The pseudonym of a study: HMAC-SHA256 of its StudyInstanceUID under the region's key, 32 hex digits."""
    return hmac.new(uid_key.encode(), study_uid.encode(), hashlib.sha256).hexdigest()[:32]


def row_of(record: StudyRecord, uid_key: str, release: str) -> dict[str, object]:
    """The Postgres row of a journal row: column name to value, without anything about the patient."""
    notes = notes_of(record)
    return {
        "study_key": study_key(uid_key, record.study_uid),
        "revision": record.revision,
        "system": record.system,
        "modality": record.modality if record.modality in MODALITIES else None,
        "received_at": record.received_at,
        "completed_at": record.completed_at,
        "finished_at": record.finished_at,
        "outcome": record.outcome,
        "reason": record.reason or None,
        "instances": record.instances,
        "bytes": record.bytes,
        "model": record.model or None,
        "model_version": record.model_version or None,
        "engine": record.engine or None,
        "precision": record.precision or None,
        "rung": record.rung or None,
        "device": record.device or None,
        "inference_seconds": record.inference_seconds,
        "release": release,
        "senders": [sender for sender in map(clean_sender, record.senders) if sender],
        "notes": list(dict.fromkeys(note.code for note in notes if _NOTE_CODE.fullmatch(note.code))),
        "partial": is_partial(notes),
        "doubtful": is_doubtful(notes),
    }


class Recorder(threading.Thread):
    """Ships what the journal calls unshipped, until `stop`. Its properties are for health and metrics."""

    def __init__(
        self,
        journal: Journal,
        settings: Records,
        release: str,
        also: Sequence[Callable[[Callable[[], psycopg.Connection]], None]] = (),
    ) -> None:
        """`also`: what else is shipped after the studies, given a way to connect; raises psycopg.Error."""
        super().__init__(name="recorder", daemon=True)
        self._also = also
        self._journal = journal
        self._settings = settings
        self._release = release
        self._stopping = threading.Event()
        self._connection: psycopg.Connection | None = None
        self._shipped_total = 0
        self._last_shipped_at: datetime | None = None
        self._failures = 0
        self._failing_since: datetime | None = None
        self._last_error: str | None = None
        self._refused: dict[tuple[str, int], int] = {}  # rows Postgres will not take, and at which change
        self._refused_counts: set[tuple[str, str, str]] = set()  # the same of intake's: day, sender, reason
        self._reconciled = False  # whether Postgres was asked what it holds as pending, in this life
        self._counts_tried = 0  # up to which refusal counts were shipped, or refused

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ask the thread to end and wait for it; what is unshipped then stays in the journal."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout_seconds)

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self._turn())
        finally:
            self._disconnect()

    @property
    def shipped_total(self) -> int:
        """Rows committed to Postgres since the process started."""
        return self._shipped_total

    @property
    def last_shipped_at(self) -> datetime | None:
        """When rows were last committed, UTC; None if never since the process started."""
        return self._last_shipped_at

    @property
    def consecutive_failures(self) -> int:
        """Attempts that have failed since the last that went well."""
        return self._failures

    @property
    def failing_since(self) -> datetime | None:
        """When the present series of failures began, UTC; None while all is well."""
        return self._failing_since

    @property
    def last_error(self) -> str | None:
        """What the last attempt failed of, without patient data; None while all is well."""
        return self._last_error

    @property
    def refused_rows(self) -> int:
        """Rows Postgres will not take as they are; they stay in the journal and do not hold up others."""
        return len(self._refused) + len(self._refused_counts)

    def ship(self) -> int:
        """Ship one batch and return how many rows were committed; 0 when nothing was waiting.

        Raises psycopg.Error when Postgres cannot be reached or fails; nothing is then marked as shipped.
        """
        waiting = [
            record
            for record in self._journal.unshipped(BATCH_ROWS + len(self._refused))
            if self._refused.get((record.study_uid, record.revision)) != record.change
        ]
        shipped = max(self._counts_tried, int(self._journal.fact(_REFUSED_SHIPPED) or 0))
        last, refused = refused_after(self._journal, shipped)
        if not waiting and not refused:
            if not self._reconciled:
                self._reconcile()
                self._reconciled = True
            return 0
        connection = self._connected()
        try:
            with connection.transaction():
                connection.execute(_LOCK)
                committed = self._upsert(connection, waiting) if waiting else []
                if refused:
                    self._upsert_refused(connection, refused)
        except BaseException:
            self._disconnect()
            raise
        self._journal.mark_shipped(committed)
        if refused:
            self._counts_tried = last
            if not self._refused_counts:  # else the next life, perhaps of a newer release, tries once more
                self._journal.keep_fact(_REFUSED_SHIPPED, str(last))
        for record in committed:
            self._refused.pop((record.study_uid, record.revision), None)
        if committed:
            self._shipped_total += len(committed)
            self._last_shipped_at = utc_now()
        return len(committed)

    def _reconcile(self) -> None:
        """Give what Postgres holds as pending, and the journal does not know, the end it has come to.

        The journal may have been lost with its host, or have lost rows. What it knows is
        shipped by now. Raises psycopg.Error.
        """
        connection = self._connected()
        try:
            rows = connection.execute(_PENDING, (self._journal.system,)).fetchall()
            pending = {(str(key), int(revision)) for key, revision in rows}
            if pending:
                pending -= self._known(open_=True)
            if pending:
                pending -= self._known(open_=False)
            if not pending:
                return
            now, reason = utc_now(), str(PipelineCode.JOURNAL_LOST_IT)
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(_LOCK)
                cursor.executemany(
                    _LOST,
                    [
                        (reason, now, now, self._journal.system, key, revision)
                        for key, revision in sorted(pending)
                    ],
                )
        except BaseException:
            self._disconnect()
            raise
        told = (
            f"{len(pending)} studies were pending in the region's database and are unknown here: they ended there as"
            f" {reason}"
        )
        log.warning("%s", told)
        self._journal.note_event(EventCode.STUDIES_RECONCILED, told)

    def _known(self, *, open_: bool) -> set[tuple[str, int]]:
        """Study key and revision of what the journal knows, of what is on its way or of what has ended."""
        key = self._settings.uid_key.get_secret_value()
        ended = ", ".join(f"'{outcome}'" for outcome in OUTCOMES)
        rows = self._journal.rows(
            f"SELECT study_uid, revision FROM studies WHERE +state {'NOT ' if open_ else ''}IN ({ended})"
            " AND reason <> ?",
            (PipelineCode.JOURNAL_LOST_IT,),
        )
        return {(study_key(key, row["study_uid"]), row["revision"]) for row in rows}

    def _upsert(self, connection: psycopg.Connection, records: Sequence[StudyRecord]) -> list[StudyRecord]:
        """Write the rows; if Postgres refuses one, all the others still go. Returns those written."""
        key = self._settings.uid_key.get_secret_value()
        rows = [row_of(record, key, self._release) for record in records]
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(_UPSERT, rows)
            return list(records)
        except (psycopg.DataError, psycopg.IntegrityError):
            log.warning("Postgres refused a batch of %d rows; trying them one by one", len(rows))
        written = []
        for record, row in zip(records, rows, strict=True):
            try:
                with connection.transaction():
                    connection.execute(_UPSERT, row)
                written.append(record)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                self._refused[record.study_uid, record.revision] = record.change
                log.error("Postgres refuses journal row %d: %s", record.row, sentence(error))  # noqa: TRY400 - the traceback would show the row
        return written

    def _upsert_refused(self, connection: psycopg.Connection, counts: Sequence[RefusedDay]) -> None:
        """Write the counts of intake's refusals; if Postgres refuses one, all the others still go."""
        keys = [(r.day, r.sender, r.reason) for r in counts]
        rows = [(self._journal.system, r.day, r.sender, r.reason, r.instances, r.bytes) for r in counts]
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(_UPSERT_REFUSED, rows)
        except (psycopg.DataError, psycopg.IntegrityError):
            log.warning("Postgres refused a batch of %d counts; trying them one by one", len(rows))
        else:
            self._refused_counts.difference_update(keys)
            return
        for key, row in zip(keys, rows, strict=True):
            try:
                with connection.transaction():
                    connection.execute(_UPSERT_REFUSED, row)
                self._refused_counts.discard(key)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                self._refused_counts.add(key)
                log.error("Postgres refuses a count of refused images of %s: %s", key[0], sentence(error))  # noqa: TRY400 - the traceback would show the row

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._settings, "outpost-recorder")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _turn(self) -> float:
        """Ship once; return the seconds to wait before the next turn."""
        try:
            shipped = self.ship()
            for ship in self._also:
                ship(self._connected)
        except Exception as error:  # the thread must outlive any fault: nothing else ships rows
            return self._failed(error)
        if self._failures:
            log.info("Postgres takes rows again after %d failed attempts", self._failures)
        self._failures, self._failing_since, self._last_error = 0, None, None
        return 0.0 if shipped >= BATCH_ROWS else POLL_SECONDS

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        self._last_error = sentence(error)
        if self._failing_since is None:
            self._failing_since = utc_now()
            log.warning("cannot ship records, they wait in the journal: %s", self._last_error)
        elif not isinstance(error, psycopg.Error):
            log.error("cannot ship records: %s", self._last_error)
        return float(min(RETRY_MAX_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(self._failures - 1, 16)))


def connect(settings: Records, name: str) -> psycopg.Connection:
    """A connection to the region's Postgres, called `name` there. Raises psycopg.Error."""
    return psycopg.connect(
        host=settings.host,
        port=settings.port,
        dbname=settings.database,
        user=settings.user,
        password=settings.password.get_secret_value(),
        sslmode=settings.sslmode,
        sslrootcert=settings.authorities,
        application_name=name,
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20000,
        autocommit=True,  # transactions are opened where they are needed, none is left idle
    )


# Classes of SQLSTATE in which the server speaks of the connection or of itself (PostgreSQL, appendix A).
_OF_THE_CONNECTION = ("08", "28", "3D", "53", "57")


def sentence(error: Exception) -> str:
    """One line without row values. PostgreSQL's texts quote them, also the first line of some (22007: "invalid input
    syntax ... "), so only those of the connection are written: no row was there yet.
    """
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08")[:2] in _OF_THE_CONNECTION:
        text = error.diag.message_primary or (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {text}"
    if isinstance(error, psycopg.Error):
        places = (
            error.diag.schema_name,
            error.diag.table_name,
            error.diag.column_name,
            error.diag.constraint_name,
        )
        where = ".".join(place for place in places if place)
        return told(error) + (f" in {where}" if where else "")
    return told(error)
