"""Real PostgreSQL servers for the tests: throw-away clusters on loopback addresses of their own.

No system cluster is touched. As root the server runs as `nobody`, as PostgreSQL refuses to run as root.
OUTPOST_TEST_PG_CENTRE and OUTPOST_TEST_PG_REGION name other bin directories (other major versions).
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from outpost.fleet.config import FleetConfig

SERVICE = Path(__file__).resolve().parents[2] / "service" / "outpost"
RECORDS_SQL = sorted((SERVICE / "records" / "sql").glob("[0-9]*.sql"))
FLEET_SQL = sorted((SERVICE / "fleet" / "sql").glob("[0-9]*.sql"))
RECORDER_PASSWORD = "recorder's secret"
READER_PASSWORD = "reader's secret"
COLLECTOR_PASSWORD = "collector's secret"

# Two runs side by side (Makefile) have servers of their own; messages with these addresses are tested in tests/service.
NET = os.environ.get("OUTPOST_TEST_NET", "127.78.0")
_AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
_ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def bin_directory(role: str) -> Path:
    """Where this role's server programs are; the newest installed major unless the environment says."""
    named = os.environ.get(f"OUTPOST_TEST_PG_{role.upper()}")
    if named:
        return Path(named)
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not installed:
        raise RuntimeError("no PostgreSQL server programs found: apt-get install postgresql-15")
    return installed[-1].parent


def _run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(
        [*_AS_NOBODY, "env", *(f"{name}={value}" for name, value in environment.items()), *map(str, command)],
        env=_ENVIRONMENT,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")


@functools.cache
def workspace() -> Path:
    """A directory the servers' user may write; removed when the test process ends."""
    path = Path(tempfile.mkdtemp(prefix="outpost-pg-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    if _AS_NOBODY:
        os.chown(path, 65534, 65534)
    return path


@functools.cache
def _template(programs: Path) -> Path:
    """One initdb for all clusters of a version: the others are copies."""
    data = workspace() / f"template-{abs(hash(programs))}"
    _run(
        programs / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C",
        "--auth=trust", "--no-sync",
    )  # fmt: skip
    return data


class Cluster:
    """One running server at `host`:5432, its superuser reachable through a socket only."""

    port = 5432

    def __init__(self, name: str, host: str, role: str) -> None:
        self.name, self.host = name, host
        self.programs = bin_directory(role)
        self.data = workspace() / name
        self.sockets = workspace() / f"{name}-socket"
        _run("cp", "-r", _template(self.programs), self.data)
        _run("mkdir", self.sockets)
        access = "local all all trust\nhost all all 127.0.0.0/8 scram-sha-256"
        _run("sh", "-c", f'printf "%s\n" "{access}" > {self.data}/pg_hba.conf')
        settings = {
            "listen_addresses": host,
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets),
            "password_encryption": "scram-sha-256",
            "shared_buffers": "16MB",
            "fsync": "off",
            "timezone": "UTC",
            "log_min_messages": "warning",
        }
        lines = "\n".join(f"{key} = '{value}'" for key, value in settings.items())
        lines += "\ninclude_if_exists 'tls.conf'"
        _run("sh", "-c", f'printf "%s\\n" "{lines}" >> {self.data}/postgresql.conf')

    def start(self, environment: dict[str, str] | None = None) -> Cluster:
        _run(
            self.programs / "pg_ctl",
            "-D",
            self.data,
            "-l",
            self.data / "log",
            "-w",
            "-s",
            "start",
            **environment or {},
        )
        return self

    def stop(self, mode: str = "fast") -> None:
        _run(self.programs / "pg_ctl", "-D", self.data, "-m", mode, "-w", "-s", "stop")

    def destroy(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        """A file of the server's data directory, its user's alone; `reload` has the server read it."""
        path = self.data / name
        path.write_text(text)
        path.chmod(0o600)
        if _AS_NOBODY:
            os.chown(path, 65534, 65534)

    def reload(self) -> None:
        with self.superuser("postgres") as connection:
            connection.execute("SELECT pg_reload_conf()")

    def superuser(self, database: str) -> psycopg.Connection[dict[str, object]]:
        return psycopg.connect(
            host=str(self.sockets), port=self.port, user="postgres", dbname=database,
            autocommit=True, row_factory=dict_row,
        )  # fmt: skip

    def login(self, database: str, user: str, password: str) -> psycopg.Connection[dict[str, object]]:
        return psycopg.connect(
            host=self.host, port=self.port, user=user, password=password, dbname=database,
            autocommit=True, row_factory=dict_row, connect_timeout=5,
        )  # fmt: skip

    def psql(self, database: str, *files: Path) -> None:
        """Apply files as Ansible does."""
        for file in files:
            subprocess.run(
                [
                    "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1",
                    f"--host={self.sockets}", f"--port={self.port}", "--username=postgres",
                    f"--dbname={database}", f"--file={file}",
                ],
                check=True, capture_output=True, text=True, timeout=60,
            )  # fmt: skip


def make_region_database(
    cluster: Cluster, code: str, database: str = "outpost", files: Sequence[Path] = RECORDS_SQL
) -> None:
    """What the role postgresql does on a region's host. `files`: those of an earlier release."""
    with cluster.superuser("postgres") as connection:
        for role, password in (("outpost_recorder", RECORDER_PASSWORD), ("fleet_reader", READER_PASSWORD)):
            _make_role(connection, role, password)
        connection.execute(f"CREATE DATABASE {database} TEMPLATE template0")
    cluster.psql(database, *files)
    with cluster.superuser(database) as connection:
        connection.execute("SELECT outpost.set_region(%s, %s)", (code, "0.1.0"))


def make_fleet_database(cluster: Cluster) -> None:
    """What the role fleet_database does on the centre."""
    with cluster.superuser("postgres") as connection:
        _make_role(connection, "fleet_collector", COLLECTOR_PASSWORD)
        connection.execute("CREATE DATABASE fleet TEMPLATE template0")
    cluster.psql("fleet", *FLEET_SQL)


def _make_role(connection: psycopg.Connection[dict[str, object]], name: str, password: str) -> None:
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
    if not exists:
        connection.execute(sql.SQL(f"CREATE ROLE {name} LOGIN PASSWORD {{}}").format(sql.Literal(password)))


class Region:
    """One region of the test fleet: its server, and what a recorder would do there."""

    def __init__(self, code: str, host: str) -> None:
        self.code = code
        self.cluster = Cluster(code, host, "region").start()
        make_region_database(self.cluster, code)

    def write(self, number: int, count: int = 1, **values: object) -> None:
        """Upsert `count` studies from `number` on, in one transaction, as the recorder does."""
        rows = [study(n, **values) for n in range(number, number + count)]
        with (
            self.cluster.login("outpost", "outpost_recorder", RECORDER_PASSWORD) as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            cursor.executemany(_UPSERT, rows)

    def beat(self, **values: object) -> None:
        """One heartbeat, as the service writes it."""
        row = heartbeat(**values)
        with self.cluster.login("outpost", "outpost_recorder", RECORDER_PASSWORD) as connection:
            connection.execute(
                f"INSERT INTO outpost.heartbeats ({', '.join(row)}) VALUES ({', '.join(f'%({c})s' for c in row)})",
                row,
            )

    def beat_rows(self, count: int) -> None:
        """Many rows at once, with the trigger off: `seq` and `written_at` are ours."""
        row = heartbeat(written_at=datetime.now(UTC) - timedelta(days=3))
        with self.cluster.superuser("outpost") as connection:
            connection.execute(
                f"INSERT INTO outpost.heartbeats (seq, {', '.join(row)})"
                f" SELECT n, {', '.join(f'%({c})s' for c in row)} FROM generate_series(-%(rows)s::integer, -1) n",
                row | {"rows": count},
            )

    def exported(self) -> list[dict[str, object]]:
        """What the region shows a centre that speaks the newest contract."""
        with self.cluster.login("outpost", "fleet_reader", READER_PASSWORD) as connection:
            return connection.execute(
                "SELECT * FROM fleet_export.studies_v3 ORDER BY system, study_key, revision"
            ).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        with self.cluster.superuser("outpost") as connection:
            connection.execute(statement, values or None)


def study(number: int, **values: object) -> dict[str, object]:
    """A plausible row of outpost.studies."""
    return {
        "study_key": f"{number:032x}",
        "revision": 1,
        "system": "brain",
        "modality": "MR",
        "received_at": "2026-11-23T10:00:00+00:00",
        "completed_at": "2026-11-23T10:00:05+00:00",
        "finished_at": "2026-11-23T10:00:09+00:00",
        "outcome": "delivered",
        "reason": None,
        "instances": 181,
        "bytes": 14_000_000,
        "model": "brain_extraction",
        "model_version": "1.0.2",
        "engine": "torch",
        "precision": "float32",
        "rung": "full",
        "device": "cpu",
        "inference_seconds": 3.4,
        "release": "0.1.0",
        "notes": [],
        "partial": False,
        "doubtful": False,
    } | values


_STARTED = datetime.now(UTC) - timedelta(hours=5)


def heartbeat(**values: object) -> dict[str, object]:
    """What a system that is well says of itself."""
    now = datetime.now(UTC)
    return {
        "system": "brain",
        "host_clock": now,
        "period_seconds": 60,
        "status": "ok",
        "failing": [],
        "ready": True,
        "rung": "full",
        "receive_only": "",
        "queue": 0,
        "oldest_pending_seconds": 0.0,
        "outbox": 0,
        "oldest_outbox_seconds": 0.0,
        "disk_free_mib": 100_000,
        "disk_used_percent": 40.0,
        "disk_reserve_mib": 2048,
        "certificate_until": None,
        "release": "0.1.0",
        "bundle": "brain_extraction",
        "bundle_version": "1.0.2",
        "boot_id": "0b0d0000-0000-4000-8000-000000000001",
        "process_started": _STARTED,
    } | values


_UPSERT = (
    f"INSERT INTO outpost.studies ({', '.join(study(0))}) VALUES ({', '.join(f'%({c})s' for c in study(0))})"
    " ON CONFLICT (system, study_key, revision) DO UPDATE SET "
    + ", ".join(f"{c} = EXCLUDED.{c}" for c in study(0) if c not in ("system", "study_key", "revision"))
)


class Fleet:
    """A centre and three regions, each a server of its own, all attached."""

    def __init__(self) -> None:
        allow_all()
        self.centre = Cluster("centre", f"{NET}.10", "centre").start()
        make_fleet_database(self.centre)
        self.regions = {
            code: Region(code, f"{NET}.{last}") for code, last in (("chita", 11), ("tver", 12), ("train", 13))
        }
        self.config = FleetConfig.model_validate(
            {
                "centre": {
                    "host": self.centre.host,
                    "port": self.centre.port,
                    "password": COLLECTOR_PASSWORD,
                },
                "sync": {"period_seconds": 10},
            }
        )

    def attach(self, code: str, **values: object) -> str:
        """fleet.attach_region as Ansible calls it; 'changed' or 'unchanged'."""
        host = self.regions[code].cluster.host if code in self.regions else f"{NET}.99"
        arguments = {
            "region": code,
            "title": code.capitalize(),
            "host": host,
            "port": Cluster.port,
            "dbname": "outpost",
            "username": "fleet_reader",
            "password": READER_PASSWORD,
            "sslmode": "prefer",
        } | values
        call = ", ".join(f"{name} => %({name})s" for name in arguments)
        return str(self.ask(f"SELECT fleet.attach_region({call}) AS answer", arguments)[0]["answer"])

    def ask(self, statement: str, values: object = None) -> list[dict[str, object]]:
        """Ask the centre's database as its superuser."""
        with self.centre.superuser("fleet") as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def freshness(self, code: str) -> dict[str, object]:
        return self.ask("SELECT * FROM fleet.freshness WHERE region = %s", (code,))[0]

    def health(self, code: str, system: str | None = "brain") -> dict[str, object]:
        """The line of fleet.health of one system."""
        return self.ask(
            "SELECT * FROM fleet.health WHERE region = %s AND system IS NOT DISTINCT FROM %s", (code, system)
        )[0]

    def state(self, code: str) -> dict[str, object]:
        return self.ask("SELECT * FROM fleet.sync WHERE region = %s", (code,))[0]

    def held(self, code: str) -> list[dict[str, object]]:
        return self.ask(
            "SELECT * FROM fleet.studies_store WHERE region = %s ORDER BY system, study_key, revision",
            (code,),
        )

    def reset(self) -> None:
        """As new: three regions, reachable, without studies, never read."""
        for region in self.regions.values():
            region.execute("TRUNCATE outpost.studies, outpost.refused_instances, outpost.heartbeats")
            region.execute("UPDATE outpost.region SET systems = NULL")
        for row in self.ask("SELECT region FROM fleet.regions"):
            if row["region"] not in self.regions:
                self.ask("SELECT fleet.detach_region(%s)", (row["region"],))
        self.ask("TRUNCATE fleet.studies_store, fleet.summary, fleet.heartbeats, fleet.health_since")
        self.ask("DELETE FROM fleet.sync")
        for code in self.regions:
            self.attach(code)

    def destroy(self) -> None:
        for cluster in (self.centre, *(region.cluster for region in self.regions.values())):
            cluster.destroy()


@functools.cache
def the_fleet() -> Fleet:
    """The fleet all test modules of a run share: starting it takes seconds."""
    fleet = Fleet()
    atexit.register(fleet.destroy)
    return fleet


_RULE = ["-m", "comment", "--comment", "outpost-fleet-tests", "-j"]


def _iptables(*arguments: str, check: bool = True) -> bool:
    sudo = ["sudo", "-n"] if os.geteuid() else []
    done = subprocess.run([*sudo, "iptables", "-w", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(
            f"iptables {' '.join(arguments)}: {done.stderr}(these tests need root to cut links)"
        )
    return done.returncode == 0


@contextmanager
def cut(host: str, after_bytes: int = 0) -> Iterator[None]:
    """DROP what `host` sends (and, at once, what it should get), from its `after_bytes`-th byte on."""
    rules = [["INPUT", "-s", host, *_RULE, "DROP"]]
    if after_bytes:
        rules.append(["INPUT", "-s", host, "-m", "quota", "--quota", str(after_bytes), *_RULE, "ACCEPT"])
    else:
        rules.append(["INPUT", "-d", host, *_RULE, "DROP"])
    try:
        for rule in rules:
            _iptables("-I", *rule)
        yield
    finally:
        for rule in rules:
            _iptables("-D", *rule, check=False)


def allow_all() -> None:
    """Remove what an earlier run that was killed may have left."""
    sudo = ["sudo", "-n"] if os.geteuid() else []
    listing = subprocess.run([*sudo, "iptables", "-S", "INPUT"], capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        if "outpost-fleet-tests" in line:
            _iptables("-D", *line.split()[1:], check=False)
