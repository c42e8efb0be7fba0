"""The module postgresql_running on a real server: it runs on its files, or the module says why not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_cluster import NET, Cluster

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "roles/postgresql/library/postgresql_running.py"
LAST = ".".join([*NET.split(".")[:3], "41"])


class Host:
    """A server whose unit is kept by a stand-in for systemctl, which asks pg_ctl."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.cluster, self.log = cluster, folder / "log"
        self.settings = cluster.data / "outpost.conf"
        (folder / "bin").mkdir()
        program = folder / "bin/systemctl"
        control = (
            f"setpriv --reuid=65534 --regid=65534 --clear-groups {cluster.programs}/pg_ctl -D {cluster.data}"
        )
        program.write_text(
            f"#!/bin/sh\nif [ $1 = show ]; then head -1 {cluster.data}/postmaster.pid; else echo $1 >> {self.log};"
            f" {control} -l {cluster.data}/log -m fast -w -s $1; fi\n"
        )
        program.chmod(0o755)
        self.path = f"{folder}/bin:{os.environ['PATH']}"
        self.write()
        cluster.write(
            "postgresql.conf", (cluster.data / "postgresql.conf").read_text() + "\ninclude 'outpost.conf'\n"
        )
        cluster.start()
        with cluster.superuser("postgres") as session:
            session.execute("CREATE ROLE nobody SUPERUSER LOGIN")  # the tests' servers run as nobody
            session.execute("CREATE ROLE recorder LOGIN PASSWORD 'right'")

    def write(self, *lines: str) -> None:
        self.cluster.write("outpost.conf", "\n".join(["log_line_prefix = 'outpost '", *lines]) + "\n")

    def module(self, check: bool = False, **more: Any) -> dict[str, Any]:
        self.log.write_text("")
        arguments = {
            "unit": "postgresql.service", "port": 5432, "settings": str(self.settings),
            "files": [str(self.cluster.data / "pg_hba.conf")], "_ansible_check_mode": check, **more,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(MODULE)], input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PATH": self.path},
        )  # fmt: skip
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))

    def shows(self, name: str, port: int = 5432) -> Any:
        self.cluster.port = port
        with self.cluster.superuser("postgres") as session:
            [row] = session.execute(f"SHOW {name}").fetchall()
        return row[name]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("the module becomes the server's user")
    cluster = Cluster("running", LAST, "region")
    try:
        yield Host(tmp_path_factory.mktemp("running"), cluster)
    finally:
        cluster.destroy()


@pytest.fixture(autouse=True)
def as_it_was(host: Host) -> Iterator[None]:
    hba = (host.cluster.data / "pg_hba.conf").read_text()
    yield
    host.write()
    host.cluster.write("pg_hba.conf", hba)
    host.cluster.write("postgresql.auto.conf", "")
    assert "failed" not in host.module()


def test_a_server_that_runs_on_its_files_is_left_alone(host: Host) -> None:
    host.module()
    said = host.module()
    assert (said["changed"], host.log.read_text()) == (False, "")


def test_a_file_that_nobody_told_the_server_of_is_read(host: Host) -> None:
    host.write("work_mem = '7MB'")
    assert host.module(check=True)["changed"]
    assert host.shows("work_mem") != "7MB", "a dry run"
    assert host.module()["changed"]
    assert (host.shows("work_mem"), host.log.read_text()) == ("7MB", "")


def test_a_dry_run_tells_of_a_file_that_it_does_not_write(host: Host) -> None:
    host.module()
    settings = str(host.cluster.data / "outpost.conf")
    said = host.module(check=True, changes=[settings])
    assert said["changed"]
    assert f"the server reads {settings}, and is restarted where" in said["diff"]["prepared"]
    assert not host.module(changes=[settings])["changed"], "a run asks the server alone"


def test_a_setting_that_waits_for_a_restart_and_another_port_get_one(host: Host) -> None:
    host.write("max_connections = 37", "port = 5439")
    assert host.module(port=5439)["changed"]
    assert host.shows("max_connections", 5439) == "37"
    assert host.log.read_text() == "restart\n"
    assert not host.module(port=5439)["changed"]
    host.cluster.port = 5432


def test_a_reload_that_somebody_asked_for_before_leaves_the_restart_to_be_done(host: Host) -> None:
    host.write("max_connections = 36")
    host.cluster.reload()
    assert host.module()["changed"]
    assert host.shows("max_connections") == "36"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("outpost.conf", "work_mem = 'much'\n", "outpost.conf:1: work_mem"),
        ("outpost.conf", "no_such_setting = 1\n", "no_such_setting"),
        ("pg_hba.conf", "host all all 10.0.0.7 scram-sha-256\n", "pg_hba.conf:1:"),
        ("postgresql.auto.conf", "log_line_prefix = 'theirs '\n", "log_line_prefix is theirs  by"),
    ],
)
def test_what_the_server_refuses_or_something_outweighs_is_told(
    host: Host, file: str, text: str, told: str
) -> None:
    """A reload leaves what ran in place, and says nothing to whoever asked for it."""
    kept = (host.cluster.data / file).read_text() if file == "pg_hba.conf" else ""
    host.cluster.write(file, text + kept)
    said = host.module()
    assert said.get("failed"), said
    assert told in said["msg"]


def test_settings_that_are_not_read_at_all_are_told(host: Host) -> None:
    said = host.module(settings=str(host.cluster.data / "conf.d/outpost.conf"))
    assert "does not read" in said["msg"]


def test_a_login_is_tried(host: Host) -> None:
    for login, told in (
        ({"name": "recorder", "password": "wrong"}, "recorder: "),
        ({"name": "absent", "password": "right"}, "absent: "),
    ):
        said = host.module(logins=[login])
        assert said.get("failed")
        assert told in said["msg"]
        assert login["password"] not in json.dumps(said)


# What somebody may have done to a login, and back.
SPOILT = {
    "SUPERUSER": "NOSUPERUSER", "CREATEDB": "NOCREATEDB", "CREATEROLE": "NOCREATEROLE", "NOLOGIN": "LOGIN",
    "PASSWORD 'another'": "PASSWORD 'right'", "PASSWORD NULL": "PASSWORD 'right'",
    "VALID UNTIL '2020-01-01'": "VALID UNTIL 'infinity'",
}  # fmt: skip


def test_what_is_there_is_told_by_the_server_and_by_a_login(host: Host) -> None:
    """Whatever of it is told to be otherwise is written; so a wrong "as it is wanted" would stay for good."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = host.cluster.data / "pair.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=it", "-keyout", pair]
    certificate = subprocess.run(made, check=True, capture_output=True, text=True).stdout
    host.cluster.write("pair.pem", pair.read_text() + certificate)
    pair.chmod(0o600)
    os.chown(pair, host.cluster.data.stat().st_uid, host.cluster.data.stat().st_gid)
    hba = (host.cluster.data / "pg_hba.conf").read_text()
    host.cluster.write("pg_hba.conf", f"hostssl all recorder 127.0.0.1/32 scram-sha-256\n{hba}")
    files = [f"ssl_{one}_file = '{pair}'" for one in ("cert", "key")]
    host.write(f"port = {port}", "listen_addresses = '*'", "ssl = on", *files)
    assert "failed" not in host.module(port=port)
    login = {"name": "recorder", "password": "right"}

    def told(database: str) -> Any:
        said = host.module(
            port=port, tells=True, logins=[login], database=database, schema_table="told.schema_version"
        )
        assert "failed" not in said, said
        assert not said["changed"]
        return said["state"]

    def run(statement: str, database: str = "postgres") -> None:
        host.cluster.port = port
        with host.cluster.superuser(database) as session:
            session.execute(statement)

    assert told("none") == {"roles": [], "database": False, "version": 0}
    run("CREATE DATABASE told")
    assert told("told") == {"roles": ["recorder"], "database": True, "version": 0}
    run("CREATE SCHEMA told", "told")
    run("CREATE TABLE told.schema_version (version int)", "told")
    assert told("told")["version"] == 0
    run("INSERT INTO told.schema_version VALUES (3), (7)", "told")
    assert told("told")["version"] == 7
    for wrong, right in SPOILT.items():
        run(f"ALTER ROLE recorder {wrong}")
        assert told("told")["roles"] == [], wrong
        run(f"ALTER ROLE recorder {right}")
        assert told("told")["roles"] == ["recorder"], right
    run("ALTER DATABASE told CONNECTION LIMIT 0")
    assert told("told")["database"] is False


def test_a_server_that_cannot_be_asked_is_a_failure_and_never_an_empty_answer(host: Host) -> None:
    """An empty answer would have every file of the schema applied again."""
    working = host.path
    try:
        host.path = "/nonexistent"
        assert host.module(tells=True, logins=[{"name": "recorder", "password": "right"}])["failed"]
    finally:
        host.path = working
