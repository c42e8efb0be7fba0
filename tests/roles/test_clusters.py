"""Which cluster of PostgreSQL is ours: real data directories in the layouts of both families, running and not."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from loaded import load
from postgres_cluster import NET, Cluster, workspace

from outpost.controller.clusters import Choice, Wanted, choose, upgrade_fault, upgrade_target

ROOT = Path(__file__).parents[2]

MARK = "/etc/outpost/database-outpost.json"
TRACES = ["/etc/outpost/*.yaml", "/etc/outpost/*.started"]
DEB = Wanted("outpost", 5432, "deb")
RPM = Wanted("outpost", 5432, "rpm")


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return load(ROOT / "roles/postgresql/library/postgresql_clusters.py")


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Path]]:
    """Data directories of PostgreSQL's own, each shut down: with our database, with a stranger's, with none."""
    made = {}
    cluster = Cluster("holds", f"{NET[:-1]}91", "region").start()
    try:
        with psycopg.connect(host=str(cluster.sockets), user="postgres", autocommit=True) as own:
            own.execute("CREATE DATABASE erp")
            cluster.stop()
            made["strangers"] = Path(shutil.copytree(cluster.data, workspace() / "strangers"))
            cluster.start()
        with psycopg.connect(host=str(cluster.sockets), user="postgres", autocommit=True) as own:
            own.execute("DROP DATABASE erp")
            own.execute("CREATE DATABASE outpost")
        cluster.stop()
        made["ours"] = Path(shutil.copytree(cluster.data, workspace() / "ours"))
        cluster.start()
        with psycopg.connect(host=str(cluster.sockets), user="postgres", autocommit=True) as own:
            own.execute("ALTER DATABASE outpost RENAME TO outpost_old")
        cluster.stop()
        made["renamed"] = Path(shutil.copytree(cluster.data, workspace() / "renamed"))
        cluster.start()
        with psycopg.connect(host=str(cluster.sockets), user="postgres", autocommit=True) as own:
            own.execute("DROP DATABASE outpost_old")
        cluster.stop()
        made["empty"] = Path(shutil.copytree(cluster.data, workspace() / "dropped"))
        yield made
    finally:
        cluster.destroy()


class Host:
    """A host's files under a directory of the test."""

    def __init__(self, root: Path, reader: ModuleType) -> None:
        self.root, self._reader = root, reader
        for folder in ("proc", "etc/outpost"):
            (root / folder).mkdir(parents=True)

    def file(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def programs(self, *folders: str) -> None:
        for folder in folders:
            self.file(f"{folder}/bin/postgres", "")

    def cluster(self, data: str, made: Path | None, version: str = "", identifier: int = 0) -> None:
        """A data directory; `version` and `identifier` are written over what PostgreSQL wrote."""
        where = self.root / data
        if made is None:
            where.mkdir(parents=True)
            return
        shutil.copytree(made, where)
        if version:
            (where / "PG_VERSION").write_text(f"{version}\n")
        if identifier:
            control = where / "global/pg_control"
            control.write_bytes(struct.pack("=Q", identifier) + control.read_bytes()[8:])

    def debian(self, name: str, made: Path | None, port: int, identifier: int = 0, data: str = "") -> None:
        """A cluster of postgresql-common, VERSION/NAME."""
        data = data or f"/var/lib/postgresql/{name}"
        self.file(
            f"etc/postgresql/{name}/postgresql.conf",
            f"data_directory = '{data}'\t# as pg_createcluster writes it\nport = 1\ninclude_dir = 'conf.d'\n",
        )
        self.file(f"etc/postgresql/{name}/conf.d/outpost.conf", f"port = {port}\n")
        if made is not None:
            self.cluster(data.lstrip("/"), made, name.partition("/")[0], identifier)

    def mark(self, identifier: int, data: str = "/var/lib/postgresql/15/main") -> None:
        mark = {"system_identifier": str(identifier), "data": data, "version": "15"}
        self.file(MARK.lstrip("/"), json.dumps(mark))

    def read(self) -> Any:
        return self._reader.read(str(self.root), MARK, TRACES)

    def choice(self, wanted: Wanted = DEB) -> Choice:
        return choose(self.read(), wanted)

    def stops(self, wanted: Wanted = DEB) -> str:
        choice = self.choice(wanted)
        assert choice.kind == "stop", choice
        assert "Ни один кластер не изменён" in choice.words.ru
        return choice.words.en


@pytest.fixture
def host(tmp_path: Path, reader: ModuleType) -> Host:
    return Host(tmp_path, reader)


def test_the_cluster_with_our_database_is_found_though_it_is_down_and_another_is_newer(
    host: Host, made: dict[str, Path]
) -> None:
    """As after an upgrade of the system: the newer version has a cluster of its own, empty."""
    host.programs("usr/lib/postgresql/13", "usr/lib/postgresql/15")
    host.debian("13/main", made["ours"], 5432, 13)
    host.debian("15/main", made["empty"], 5433, 15)
    choice = host.choice()
    assert (choice.kind, choice.cluster["unit"]) == ("use", "postgresql@13-main.service")


def test_a_directory_of_another_version_is_no_cluster(host: Host, made: dict[str, Path]) -> None:
    """The highest number under /etc/postgresql, or /var/lib/pgsql, was taken whatever was in it."""
    host.programs("usr/lib/postgresql/15")
    host.debian("15/main", made["ours"], 5432)
    (host.root / "etc/postgresql/16").mkdir()
    (host.root / "var/lib/postgresql/17/main").mkdir(parents=True)
    assert host.choice().cluster["version"] == "15"


def test_rpm_an_empty_directory_of_a_newer_version_is_passed_by(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/pgsql-15")
    host.cluster("var/lib/pgsql/15/data", made["ours"], "15")
    host.cluster("var/lib/pgsql/16/data", None)
    choice = host.choice(RPM)
    assert (choice.kind, choice.cluster["unit"]) == ("use", "postgresql-15.service")


def test_two_that_hold_a_database_of_our_name_stop_the_run_in_words(
    host: Host, made: dict[str, Path]
) -> None:
    host.programs("usr/lib/postgresql/13", "usr/lib/postgresql/15")
    host.debian("13/main", made["ours"], 5433, 13)
    host.debian("15/main", made["ours"], 5432, 15)
    said = host.stops()
    for word in ("13/main in /var/lib/postgresql/13/main, port 5433, does not run, databases outpost",
                 "15/main in /var/lib/postgresql/15/main, port 5432", "postgresql_cluster=VERSION/NAME"):  # fmt: skip
        assert word in said
    assert host.choice(Wanted("outpost", 5432, "deb", cluster="13/main")).cluster["version"] == "13"
    assert (
        host.choice(Wanted("outpost", 5432, "deb", cluster="/var/lib/postgresql/15/main/")).cluster["version"]
        == "15"
    )
    host.mark(15)
    assert host.choice().cluster["version"] == "15", "the one that the host remembers"


def test_what_the_host_remembers_does_not_outweigh_an_upgrade_that_was_made(
    host: Host, made: dict[str, Path]
) -> None:
    """pg_upgradecluster leaves the old cluster on another port, and rows go into the new one."""
    host.programs("usr/lib/postgresql/13", "usr/lib/postgresql/15")
    host.debian("13/main", made["ours"], 5433, 13)
    host.debian("15/main", made["ours"], 5432, 15)
    host.mark(13)
    assert "an upgrade was made" in host.stops()


def test_a_newer_package_over_an_older_data_directory_stops_the_run(
    host: Host, made: dict[str, Path]
) -> None:
    host.programs("usr/pgsql-15")
    host.cluster("var/lib/pgsql/data", made["ours"], "13")
    said = host.stops(RPM)
    assert "/var/lib/pgsql/data, written by PostgreSQL 13; installed: 15" in said
    assert "postgres-upgrade.md" in said


def test_a_server_of_another_major_over_its_own_directory_stops_the_run(
    host: Host, made: dict[str, Path]
) -> None:
    host.programs("usr/pgsql-15", "usr/pgsql-13")
    host.cluster("var/lib/pgsql/15/data", made["ours"], "13")
    assert "written by PostgreSQL 13" in host.stops(RPM)


def test_a_disk_that_is_not_mounted_is_never_initialised(host: Host, made: dict[str, Path]) -> None:
    """Neither where the host remembers its cluster, nor before packages come, which make one where there is none."""
    host.file("etc/fstab", "/dev/sdb1 /var/lib/postgresql ext4 defaults 0 2\n/swap none swap sw 0 0\n")
    said = host.stops()
    assert "is on /var/lib/postgresql, which is not mounted (/etc/fstab)" in said
    host.file("etc/fstab", "LABEL=pg /var/lib/postgresql/15/ xfs nofail 0 2\n")
    assert "/var/lib/postgresql/15 is not mounted" in host.stops()
    host.programs("usr/lib/postgresql/15")
    assert "which is not mounted" in host.stops()
    host.file("proc/mounts", "/dev/sdb1 /var/lib/postgresql/15 ext4 rw 0 0\n")
    assert host.choice().kind == "create"


def test_a_mount_of_systemds_own_counts_like_one_of_fstab(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/pgsql-15")
    host.file("etc/systemd/system/var-lib-pgsql.mount", "[Mount]\nWhat=/dev/sdb1\nWhere=/var/lib/pgsql\n")
    assert (
        "is on /var/lib/pgsql, which is not mounted (/etc/systemd/system/var-lib-pgsql.mount)"
        in host.stops(RPM)
    )


def test_a_stale_copy_below_an_unmounted_disk_is_not_taken_for_the_database(
    host: Host, made: dict[str, Path]
) -> None:
    host.programs("usr/lib/postgresql/15")
    host.file("etc/fstab", "/dev/sdb1 /var/lib/postgresql ext4 defaults 0 2\n")
    host.debian("15/main", made["ours"], 5432, 15)
    assert "not mounted" in host.stops()
    host.mark(15)
    assert host.choice().kind == "use", "it is the very one that the host remembers"
    host.mark(14)
    assert "system identifier 14) is not on this host" in host.stops()


def test_a_database_that_was_there_is_not_made_again(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/lib/postgresql/15")
    host.debian("15/main", made["empty"], 5432, 15)
    assert host.choice().kind == "use", "a host that never had one"
    for theirs in ("fleet.yaml", "fleet.started", "filter/brain.yaml"):
        host.file(f"etc/outpost/{theirs}", "x")
    assert host.choice().kind == "use", "the centre's collector never had this database"
    host.file("etc/outpost/brain.yaml", "x")
    assert "systems have worked with it (/etc/outpost/brain.yaml)" in host.stops()
    assert "systems have worked with it (/etc/outpost/fleet.started)" in host.stops(
        Wanted("fleet", 5432, "deb")
    )
    host.mark(15)
    assert "holds no database outpost" in host.stops()
    assert host.choice(Wanted("outpost", 5432, "deb", anew=True)).kind == "use"
    named = Wanted("outpost", 5432, "deb", cluster="15/main")
    assert "and there was one" in host.stops(named), "naming a cluster makes no database"
    host.file(MARK.lstrip("/"), "{")
    assert "cannot be read" in host.stops()


def test_a_configured_cluster_whose_data_is_gone_stops_the_run(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/lib/postgresql/15")
    host.debian("15/main", None, 5432, data="/srv/pg/main")
    assert "/srv/pg/main of a cluster that is configured is missing" in host.stops()
    (host.root / "srv/pg/main/lost+found").mkdir(parents=True)
    assert "/srv/pg/main of a cluster that is configured is empty" in host.stops()


def test_a_database_that_was_renamed_or_dropped_is_not_ours(host: Host, made: dict[str, Path]) -> None:
    """Its row stays in the file for a while."""
    host.programs("usr/lib/postgresql/15")
    host.debian("15/main", made["renamed"], 5432)
    assert host.read()["clusters"][0]["databases"] == ["outpost_old"]
    shutil.rmtree(host.root / "var/lib/postgresql/15/main")
    host.cluster("var/lib/postgresql/15/main", made["empty"])
    assert host.read()["clusters"][0]["databases"] == []


def test_a_strangers_cluster_gets_no_database_of_ours(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/lib/postgresql/15")
    host.debian("15/main", made["strangers"], 5432)
    choice = host.choice()
    assert (choice.kind, choice.cluster["name"], choice.cluster["version"]) == ("create", "outpost", "15")
    host.root.joinpath("usr/lib/postgresql/15").rename(host.root / "away")
    host.programs("usr/pgsql-15")
    shutil.rmtree(host.root / "etc/postgresql")
    shutil.rmtree(host.root / "var/lib/postgresql")
    host.cluster("var/lib/pgsql/15/data", made["strangers"], "15")
    assert "somebody else's" in host.stops(RPM)


def test_data_without_its_configuration_is_found(host: Host, made: dict[str, Path]) -> None:
    """As when packages of the old version were purged with --keep-data, or a data directory was moved."""
    host.programs("usr/lib/postgresql/15")
    host.cluster("var/lib/postgresql/13/main", made["ours"], "13")
    host.debian("15/main", made["empty"], 5432)
    assert "/var/lib/postgresql/13/main, which no configuration" in host.stops()


def test_a_unit_of_the_sites_own_names_the_data_directory(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/pgsql-15")
    host.file(
        "usr/lib/systemd/system/postgresql-15.service",
        "[Service]\nEnvironment=PGDATA=/var/lib/pgsql/15/data/\n",
    )
    host.file(
        "etc/systemd/system/postgresql-15.service.d/data.conf",
        "[Service]\nEnvironment=PGDATA=/srv/pgsql/15\n",
    )
    host.cluster("srv/pgsql/15", made["ours"], "15")
    choice = host.choice(RPM)
    assert (choice.kind, choice.cluster["data"]) == ("use", "/srv/pgsql/15")
    assert choice.cluster["unit"] == "postgresql-15.service"


def test_a_running_server_on_our_port_stops_another(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/lib/postgresql/13", "usr/lib/postgresql/15")
    host.debian("13/main", made["ours"], 5432, 13)
    host.debian("15/main", made["empty"], 5432, 15)
    host.file("var/lib/postgresql/15/main/postmaster.pid", "77\n/x\n0\n5432\n/nowhere\n")
    host.file("proc/77/comm", "postgres\n")
    assert "port 5432 is that of another cluster (/var/lib/postgresql/15/main)" in host.stops()


def test_a_running_server_is_asked_as_its_files_may_be_minutes_behind(
    reader: ModuleType, made: dict[str, Path]
) -> None:
    cluster = Cluster("asked", f"{NET[:-1]}92", "region").start()
    try:
        with psycopg.connect(host=str(cluster.sockets), user="postgres", autocommit=True) as own:
            own.execute("CREATE DATABASE outpost")
        found = reader.cluster("/", "rpm", "", "data", str(cluster.data), str(cluster.data), "", {})
        assert (found["running"], found["databases"]) == (True, ["outpost"])
        cluster.stop("immediate")
        found = reader.cluster("/", "rpm", "", "data", str(cluster.data), str(cluster.data), "", {})
        assert not found["running"]
        assert found["databases"] == ["outpost"] or found["unnamed"], "never: there is nothing in it"
    finally:
        cluster.destroy()


def test_the_identifier_is_that_of_pg_controldata(reader: ModuleType, made: dict[str, Path]) -> None:
    program = next(Path("/usr/lib/postgresql").glob("*/bin/pg_controldata"))
    said = subprocess.run(
        [program, made["ours"]], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    ).stdout
    identifier, clean = reader.control(str(made["ours"]))
    assert f"Database system identifier:           {identifier}\n" in said
    assert clean


def test_an_upgrade_that_broke_off_after_the_switch_goes_on_with_the_new_one(
    host: Host, made: dict[str, Path]
) -> None:
    """Both down, the new one on our port already: the host remembers it."""
    host.programs("usr/lib/postgresql/15")
    host.debian("15/main", made["ours"], 5432, 1)
    host.debian("15/next", made["ours"], 5432, 2)
    host.mark(2)
    assert host.choice().cluster["name"] == "next"
    host.mark(1)
    assert host.choice().cluster["name"] == "main", "and before the switch goes back"


def test_an_upgrade_goes_up_into_a_cluster_that_is_nobody_elses(host: Host, made: dict[str, Path]) -> None:
    host.programs("usr/lib/postgresql/13", "usr/lib/postgresql/15")
    host.debian("13/main", made["ours"], 5432, 13)
    host.debian("15/erp", made["strangers"], 5433, 15)
    read = host.read()
    old = host.choice().cluster

    def fault(name: str) -> str:
        return upgrade_fault(old, upgrade_target(read, name, "deb"), name, "outpost", read["installed"]).en

    assert fault("15/main") == ""
    assert upgrade_target(read, "15/main", "deb")["data"] == "/var/lib/postgresql/15/main"
    assert fault("13/main") == "", "it is there already"
    assert "other databases, too (erp)" in fault("15/erp")
    assert "PostgreSQL 17 is not installed (there is: 13, 15)" in fault("17/main")
    assert "VERSION/NAME" in fault("17")
    assert (
        "is older than"
        in upgrade_fault({**old, "version": "15"}, {}, "13/x", "outpost", read["installed"]).en
    )
