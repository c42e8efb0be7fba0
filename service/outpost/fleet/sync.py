"""One pass over one region: handshake, then the rows after the watermark, in ranges, into its partition.

Each range is one transaction on both sides: its rows and the new watermark are stored together or not at
all. The region's rows become visible in the order of `seq` (outpost.stamp_study), so "everything up to the
highest seq of this snapshot" leaves no gap, and no overlap is needed.

A range and not a LIMIT: with local estimates postgres_fdw does not ship a LIMIT above its guess of the
table's size, and would fetch more than asked for over a thin link.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, class_row

from outpost.fleet.config import BATCH_RESERVE_SECONDS, Centre, Sync
from outpost.fleet.faults import NO_ANSWER, Fault, RegionFault, describe, said_by_region
from outpost.fleet.schedule import failure_delay, success_delay
from outpost.fleet.trust import why_not_trusted
from outpost.fleet.words import write_words
from outpost.records.schema import CONTRACTS, NEWEST, Column, Contract

SCHEMA_VERSION = 6  # of fleet/sql: what this code needs to find in fleet.schema_version
SPAN_LEAST, SPAN_MOST = 100, 1_000_000
QUICK_SECONDS, SLOW_SECONDS = 5.0, 15.0
FIRST_ANSWER_SECONDS = 10.0  # a dozen round trips, of a satellite link too

# A region whose host says it runs more is not believed; each costs a line on the page.
SYSTEMS_MOST = 32
# What is read beside the heartbeats in one transaction; more waits for the next, so that these are kept in any case.
_LITTLE_SEQ = 500

# The newest first: a region is read by the newest contract that it speaks, too.
_READABLE = [CONTRACTS[version] for version in sorted(CONTRACTS, reverse=True)]
_COLUMNS = [column.name for column in CONTRACTS[NEWEST].studies if column.name != "region"]
_KEY = ("system", "study_key", "revision")
_HEALTH = [column.name for column in CONTRACTS[NEWEST].health if column.name != "region"]
_AGE = next(column for column in CONTRACTS[NEWEST].health if column.name == "age_seconds")


Connected = TypeVar("Connected", bound=psycopg.Connection[TupleRow])


class CentreError(Exception):
    """The centre's own database cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one pass over one region ended. `rows` brought, `fault` None when everything is here."""

    region: str
    rows: int
    took_seconds: float
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Hello:
    """The region's handshake. `clock` is the region's; `asked_at` and `answered_at` are the centre's."""

    asked_at: datetime
    answered_at: datetime
    region: str
    contract_version: int
    release: str
    clock: datetime
    max_seq: int
    epoch: str
    systems: list[str] | None = None

    @property
    def skew_seconds(self) -> float:
        """The region's clock minus the centre's, seconds, taking the middle of the request."""
        return (self.clock - self.asked_at - (self.answered_at - self.asked_at) / 2).total_seconds()

    @property
    def before_snapshot(self) -> datetime:
        """A moment on the region's clock surely not after the snapshot that this request opened."""
        return self.clock - (self.answered_at - self.asked_at)


@dataclass(frozen=True, slots=True)
class _Region:
    """A region as the centre's database has it: its code, and `at`, its host:port."""

    code: str
    at: str

    def table(self, name: str) -> sql.Identifier:
        return sql.Identifier(f"region_{self.code}", name)


@dataclass(frozen=True, slots=True)
class _State:
    """What fleet.sync remembers of a region."""

    watermark_seq: int
    epoch: str | None
    span_seq: int
    consecutive_failures: int
    contract_version: int | None


@contextmanager
def centre_connection(centre: Centre, purpose: str) -> Iterator[psycopg.Connection]:
    """A connection to the centre's own database, autocommit. Raises `CentreError` if there is none."""
    with connected(centre, purpose, psycopg.Connection[TupleRow]) as connection:
        yield connection


def connected(centre: Centre, purpose: str, of: type[Connected]) -> Connected:
    """The same as an object of this class, whose `with` closes it.

    Once this process has gone, the server ends what it still works on for it within seconds.
    """
    try:
        connection = of.connect(
            host=centre.host,
            port=centre.port,
            dbname=centre.database,
            user=centre.user,
            password=centre.password.get_secret_value(),
            sslmode=centre.sslmode,
            sslrootcert=centre.authorities,
            application_name=f"fleet {purpose}"[:63],
            connect_timeout=5,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            autocommit=True,
        )
        if connection.info.server_version >= 140000:  # an older one works to the end for nobody
            connection.execute("SET client_connection_check_interval = '1s'")
    except psycopg.Error as error:
        raise CentreError(
            f"no connection to the centre's database {centre.database} at {centre.host}:{centre.port}: "
            f"{' '.join(str(error).split())}"
        ) from error
    return connection


def prepare(centre: Centre, period_seconds: float) -> None:
    """Check that the database has the schema this code needs, and tell it the period that judges lateness."""
    with centre_connection(centre, "prepare") as connection:
        try:
            found = connection.execute("SELECT max(version) FROM fleet.schema_version").fetchone()
            version = (found and found[0]) or 0
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            version = 0
        if version < SCHEMA_VERSION:
            raise CentreError(
                f"database {centre.database} has fleet schema {version}, this release needs "
                f"{SCHEMA_VERSION}: apply outpost/fleet/sql (playbook centre.yml)"
            )
        write_words(connection)
        connection.execute(
            "UPDATE fleet.settings SET period_seconds = %(period)s WHERE period_seconds <> %(period)s",
            {"period": period_seconds},
        )


def attached_regions(centre: Centre) -> list[str]:
    """Codes of all attached regions, those that answered last time first."""
    with centre_connection(centre, "regions") as connection:
        rows = connection.execute(
            "SELECT r.region FROM fleet.regions r JOIN fleet.sync s USING (region) WHERE r.removed_at IS NULL"
            " ORDER BY s.consecutive_failures, r.region"
        )
        return [row[0] for row in rows]


def sync_region(centre: Centre, settings: Sync, region: str) -> Attempt:
    """Bring everything new from one region, and write down in fleet.sync how that went.

    Whatever the region does, this ends within about `deadline_seconds`. Raises `CentreError` when the
    centre's own database fails, for then nothing can be written down.
    """
    started = time.monotonic()
    with centre_connection(centre, f"collector {region}") as connection:
        try:
            held = connection.execute(
                "SELECT pg_try_advisory_lock(hashtext('fleet.sync'), hashtext(%s))", (region,)
            ).fetchone()
            if not (held and held[0]):
                return Attempt(region, 0, 0.0, Fault("busy", "another collector is reading this region"))
            return _attempt(connection, settings, _known(connection, region), started)
        except psycopg.Error as error:
            raise CentreError(f"the centre's database failed: {' '.join(str(error).split())}") from error


def _known(connection: psycopg.Connection, code: str) -> _Region:
    row = connection.execute(
        "SELECT string_agg(o.option_value, ':' ORDER BY o.option_name)"
        " FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o"
        " WHERE s.srvname = 'region_' || %s AND o.option_name IN ('host', 'port')",
        (code,),
    ).fetchone()
    return _Region(code, (row and row[0]) or f"region {code}")


def _authorities(connection: psycopg.Connection, region: _Region) -> str:
    """The file of authorities that the centre's server judges the region's certificate by; empty for none."""
    row = connection.execute(
        "SELECT o.option_value FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o"
        " WHERE s.srvname = 'region_' || %s AND o.option_name = 'sslrootcert'",
        (region.code,),
    ).fetchone()
    return (row and row[0]) or ""


def _attempt(connection: psycopg.Connection, settings: Sync, region: _Region, started: float) -> Attempt:
    with connection.cursor(row_factory=class_row(_State)) as cursor:
        state = cursor.execute(
            "UPDATE fleet.sync SET attempted_at = clock_timestamp() WHERE region = %s"
            " RETURNING watermark_seq, epoch, span_seq, consecutive_failures, contract_version",
            (region.code,),
        ).fetchone()
    if state is None:
        return Attempt(region.code, 0, 0.0, Fault("unknown", f"region {region.code} is not attached"))
    progress = _Progress(state.span_seq)
    fault: Fault | None = None
    try:
        fault = _pull(connection, settings, region, state, progress, started + settings.deadline_seconds)
    except RegionFault as error:
        fault = error.fault
    except psycopg.Error as error:
        if connection.broken or connection.closed:
            raise
        fault = describe(error, region.at, region.code)
        if fault.kind == "tls":
            fault = why_not_trusted(fault, region.at, region.code, _authorities(connection, region))
    took = time.monotonic() - started
    _write_down(connection, settings, region, state, progress, fault, took)
    return Attempt(region.code, progress.rows, took, fault)


@dataclass(slots=True)
class _Progress:
    """What a pass has achieved so far; the ranges already stored stay stored whatever comes after."""

    span_seq: int
    rows: int = 0
    skew_seconds: float | None = None


def _pull(
    connection: psycopg.Connection,
    settings: Sync,
    region: _Region,
    state: _State,
    progress: _Progress,
    deadline: float,
) -> Fault | None:
    """Read ranges until nothing is missing, or until there is no time for another one."""
    watermark, epoch, spoken = state.watermark_seq, state.epoch, state.contract_version
    heard = False
    while True:
        began = time.monotonic()
        with connection.transaction():
            contract, hello = _first_handshake(connection, region, deadline)
            _limit_statements(connection, deadline - time.monotonic())
            if not heard:
                heard = True
                _store_health(connection, region, contract, hello)
                if hello.max_seq - watermark > _LITTLE_SEQ:
                    continue
            again = _why_read_again(hello, epoch, watermark, spoken)
            if again:
                watermark = 0
            until = min(watermark + progress.span_seq, hello.max_seq)
            if progress.skew_seconds is None:
                # Asked again now that the connection stands: opening it took several round trips.
                progress.skew_seconds = _handshake(connection, region, contract).skew_seconds
            rows, newest = 0, None
            if until > watermark:
                rows, newest = _store_range(connection, region, contract, watermark, until)
            if rows:
                _count(connection, region)
            complete = until >= hello.max_seq
            connection.execute(
                "UPDATE fleet.sync SET watermark_seq = %(until)s, max_seq = %(max_seq)s, epoch = %(epoch)s,"
                " contract_version = %(contract)s, release = %(release)s, skew_seconds = %(skew)s,"
                " data_through = coalesce(%(through)s, data_through), rows_total = rows_total + %(rows)s,"
                " resync_at = CASE WHEN %(again)s::text IS NULL THEN resync_at ELSE clock_timestamp() END,"
                " resync_reason = coalesce(%(again)s, resync_reason) WHERE region = %(region)s",
                {
                    "region": region.code,
                    "until": until,
                    "max_seq": hello.max_seq,
                    "epoch": hello.epoch,
                    "contract": hello.contract_version,
                    "release": hello.release,
                    "skew": progress.skew_seconds,
                    "through": hello.before_snapshot if complete else newest,
                    "rows": rows,
                    "again": again,
                },
            )
        watermark, epoch, spoken = until, hello.epoch, hello.contract_version
        progress.rows += rows
        progress.span_seq = next_span(progress.span_seq, time.monotonic() - began)
        if complete:
            return None
        if deadline - time.monotonic() < BATCH_RESERVE_SECONDS:
            return Fault(
                "behind",
                f"catching up: {progress.rows} rows read, at most {hello.max_seq - until} changes to go",
            )


def _first_handshake(
    connection: psycopg.Connection, region: _Region, deadline: float
) -> tuple[Contract, Hello]:
    """The handshake that also opens the connection to the region, and the contract it is by.

    Before PostgreSQL 16 the server option connect_timeout gives up an address that does not answer; since
    then postgres_fdw waits by itself and ignores it (20 s measured with 16.14 and 18.4, tcp_user_timeout's),
    but can be interrupted.
    """
    if connection.info.server_version < 160000:
        _limit_statements(connection, deadline - time.monotonic())
        return _newest_handshake(connection, region)
    _limit_statements(connection, FIRST_ANSWER_SECONDS)
    try:
        return _newest_handshake(connection, region)
    except psycopg.errors.QueryCanceled as error:
        if said_by_region(error):
            raise
        raise RegionFault("unreachable", NO_ANSWER.format(at=region.at)) from None


def _newest_handshake(connection: psycopg.Connection, region: _Region) -> tuple[Contract, Hello]:
    """The handshake by the newest contract whose relations are there, at the region and as foreign tables here."""
    *newer, oldest = _READABLE
    for contract in newer:
        try:
            with connection.transaction():  # a savepoint: the older one is asked in the same snapshot
                return contract, _handshake(connection, region, contract)
        except psycopg.errors.UndefinedTable:
            continue
    return oldest, _handshake(connection, region, oldest)


def _limit_statements(connection: psycopg.Connection, seconds: float) -> None:
    """Stop each further statement of the transaction after so long."""
    connection.execute(
        sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(max(1, int(seconds * 1000))))
    )


def _handshake(connection: psycopg.Connection, region: _Region, contract: Contract) -> Hello:
    """Ask the region who it is. Raises `RegionFault` when the answer is not one we can work with."""
    asked_at = _centre_clock(connection)
    answer = connection.execute(
        sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(sql.Identifier(column.name) for column in contract.handshake),
            region.table(contract.handshake_relation),
        )
    ).fetchone()
    answered_at = _centre_clock(connection)
    if answer is None:
        raise RegionFault("unnamed", f"the database at {region.at} has not been told which region it is")
    hello = Hello(asked_at, answered_at, *answer)
    if hello.region != region.code:
        raise RegionFault("wrong_region", f"{region.at} says it is region {hello.region}, not {region.code}")
    if hello.contract_version != contract.version:
        known = [readable.version for readable in _READABLE]
        older = "the region" if hello.contract_version < min(known) else "the centre"
        raise RegionFault(
            "incompatible",
            f"the region speaks contract {hello.contract_version}, the centre knows {min(known)} to {max(known)}: "
            f"update {older}",
        )
    return hello


def _centre_clock(connection: psycopg.Connection) -> datetime:
    """The clock of the centre's database, the one all times in fleet.sync are of."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def _why_read_again(hello: Hello, epoch: str | None, watermark: int, spoken: int | None) -> str | None:
    """Why the watermark means nothing in this database, or None if it does. `spoken`: the contract of the last pass."""
    if epoch is not None and hello.epoch != epoch:
        return "the region's database is not the one read before (rebuilt or restored)"
    if hello.max_seq < watermark:
        return f"the region's database went back from change {watermark} to {hello.max_seq} (restored)"
    if watermark and spoken is not None and _says_more(hello.contract_version, spoken):
        return f"the rows held came by contract {spoken}, contract {hello.contract_version} says more of each"
    return None


def _says_more(version: int, spoken: int) -> bool:
    """Whether a later contract has columns of studies that the one spoken before lacks."""
    return spoken < version and CONTRACTS[version].studies != CONTRACTS[spoken].studies


# A number or moment outside these is none: arithmetic with it would end the view for all regions.
_SANE = {
    "double precision": "CASE WHEN {0} BETWEEN -3e9 AND 3e9 THEN {0} END",  # also not NaN, which is above all
    "timestamp with time zone": "CASE WHEN {0} > '1900-01-01' AND {0} < '2900-01-01' THEN {0} END",
    "text": "left({0}, 80)",
    "text[]": "ARRAY(SELECT f FROM unnest({0}) f WHERE f ~ '^[A-Z][A-Z0-9_]{{0,79}}$' LIMIT 60)",
}
# What a row says that leaves out what every row has.
_ELSE = {"period_seconds": "60", "status": "'failed'", "ready": "false", "rung": "''", "receive_only": "''"}


def _believed(column: Column) -> sql.Composable:
    """What is kept of a column of a region's heartbeats: whoever holds its database may write anything there."""
    sane = sql.SQL(_SANE.get(column.type, "{0}")).format(sql.Identifier(column.name))
    if column.name in _ELSE:
        return sql.SQL("coalesce({}, {})").format(sane, sql.SQL(_ELSE[column.name]))
    return sane


def _store_health(connection: psycopg.Connection, region: _Region, contract: Contract, hello: Hello) -> None:
    """Keep the newest heartbeat of each system, and when the centre saw it; nothing where the contract has none.

    A row seen for the first time was written `age_seconds` ago by the region's own clock, however wrong that is, and
    not before the reading that still found the one before it. Seen again, it is no older and no newer than it was.
    """
    if not contract.health:
        connection.execute(
            "UPDATE fleet.sync SET health_at = NULL, systems = NULL WHERE region = %s", (region.code,)
        )
        return
    asked = sql.Literal(hello.asked_at)
    connection.execute(
        sql.SQL(
            "INSERT INTO fleet.heartbeats AS h (region, {columns}, epoch, beat_at, read_at)"
            " SELECT {region}, {values}, {epoch},"
            "  {asked} - greatest(coalesce({age}, 3e9), 0) * interval '1 second', {asked} FROM {table}"
            " WHERE system ~ '^[a-z][a-z0-9-]{{1,30}}$' ORDER BY system LIMIT {most}"
            " ON CONFLICT (region, system) DO UPDATE SET {updates}, epoch = EXCLUDED.epoch, read_at = EXCLUDED.read_at,"
            " beat_at = CASE WHEN h.epoch = EXCLUDED.epoch AND h.seq = EXCLUDED.seq THEN h.beat_at"
            "  WHEN h.epoch = EXCLUDED.epoch AND h.seq < EXCLUDED.seq"
            "  THEN least(greatest(EXCLUDED.beat_at, h.read_at), EXCLUDED.read_at) ELSE EXCLUDED.beat_at END"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, _HEALTH)),
            values=sql.SQL(", ").join(
                _believed(column) for column in contract.health if column.name in _HEALTH
            ),
            age=_believed(_AGE),
            region=sql.Literal(region.code),
            epoch=sql.Literal(hello.epoch),
            asked=asked,
            table=region.table(contract.health_relation),
            most=sql.Literal(SYSTEMS_MOST),
            updates=sql.SQL(", ").join(
                sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
                for name in _HEALTH
                if name != "system"
            ),
        )
    )
    connection.execute(
        "UPDATE fleet.sync SET health_at = %s, systems = %s, skew_seconds = %s WHERE region = %s",
        (hello.asked_at, hello.systems and hello.systems[:SYSTEMS_MOST], hello.skew_seconds, region.code),
    )


def _store_range(
    connection: psycopg.Connection, region: _Region, contract: Contract, after: int, until: int
) -> tuple[int, datetime | None]:
    """Copy the rows with after < seq <= until; how many, and the newest `updated_at` among them.

    What the region's contract does not say is stored as NULL, whatever an earlier contract said of the row. The bounds
    are literals, so that postgres_fdw ships the condition.
    """
    told = {column.name for column in contract.studies}
    statement = sql.SQL(
        "WITH stored AS ("
        " INSERT INTO fleet.studies_store (region, {columns})"
        " SELECT {region}, {values} FROM {table} WHERE seq > {after} AND seq <= {until}"
        " ON CONFLICT (region, system, study_key, revision) DO UPDATE SET {updates}, loaded_at = now()"
        " RETURNING updated_at) SELECT count(*), max(updated_at) FROM stored"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
        values=sql.SQL(", ").join(sql.Identifier(c) if c in told else sql.SQL("NULL") for c in _COLUMNS),
        region=sql.Literal(region.code),
        table=region.table(contract.studies_relation),
        after=sql.Literal(after),
        until=sql.Literal(until),
        updates=sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
            for name in _COLUMNS
            if name not in _KEY
        ),
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0], row[1]


def _count(connection: psycopg.Connection, region: _Region) -> None:
    """Count the region's studies anew, each once with its newest revision, into fleet.summary."""
    connection.execute("DELETE FROM fleet.summary WHERE region = %s", (region.code,))
    connection.execute(
        "INSERT INTO fleet.summary (region, system, outcome, model, model_version, rung, studies,"
        " last_received_at, last_finished_at)"
        " SELECT s.region, s.system, s.outcome, s.model, s.model_version, s.rung, count(*),"
        " max(s.received_at), max(s.finished_at) FROM fleet.studies_store s"
        " WHERE s.region = %(region)s AND NOT EXISTS (SELECT FROM fleet.studies_store n"
        "  WHERE n.region = %(region)s AND n.system = s.system AND n.study_key = s.study_key"
        "  AND n.revision > s.revision)"
        " GROUP BY s.region, s.system, s.outcome, s.model, s.model_version, s.rung",
        {"region": region.code},
    )


def next_span(span: int, took_seconds: float) -> int:
    """The width of the next range: wider while ranges go quickly, narrower when one was slow."""
    if took_seconds < QUICK_SECONDS:
        return min(span * 2, SPAN_MOST)
    return max(span // 2, SPAN_LEAST) if took_seconds > SLOW_SECONDS else span


def _write_down(
    connection: psycopg.Connection,
    settings: Sync,
    region: _Region,
    state: _State,
    progress: _Progress,
    fault: Fault | None,
    took_seconds: float,
) -> None:
    """Write the end of the pass into fleet.sync, with the time of the next one."""
    failed = fault is not None and fault.kind != "behind"
    failures = state.consecutive_failures + 1 if failed else 0
    delay = failure_delay(settings, failures) if failed else success_delay(settings)
    span = progress.span_seq
    if fault is not None and fault.kind in ("timeout", "cut"):
        span = max(span // 4, SPAN_LEAST)  # a range that did not get through may be too wide for the link
    connection.execute(
        "UPDATE fleet.sync SET rows = %(rows)s, took_seconds = %(took)s, span_seq = %(span)s,"
        " ok_at = CASE WHEN %(complete)s THEN clock_timestamp() ELSE ok_at END,"
        " error_class = %(kind)s, error = %(sentence)s, consecutive_failures = %(failures)s,"
        " failing_since = CASE WHEN %(failed)s THEN coalesce(failing_since, clock_timestamp()) END,"
        " next_attempt_at = clock_timestamp() + %(delay)s WHERE region = %(region)s",
        {
            "region": region.code,
            "rows": progress.rows,
            "took": took_seconds,
            "span": span,
            "complete": fault is None,
            "kind": fault.kind if fault else None,
            "sentence": fault.sentence if fault else None,
            "failures": failures,
            "failed": failed,
            "delay": timedelta(seconds=0.0 if fault and fault.kind == "behind" else delay),
        },
    )
