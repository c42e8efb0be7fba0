"""The SQL of both ends: who may do what, what attaching a region changes, and that the two ends agree."""

from __future__ import annotations

import subprocess

import psycopg
import pytest
from postgres_cluster import (
    COLLECTOR_PASSWORD,
    FLEET_SQL,
    NET,
    READER_PASSWORD,
    RECORDER_PASSWORD,
    RECORDS_SQL,
    Fleet,
    study,
    the_fleet,
)

from outpost.fleet.sync import sync_region
from outpost.records.schema import CONTRACTS, NEWEST, NOTES, generated_files


@pytest.fixture
def fleet() -> Fleet:
    fleet = the_fleet()
    fleet.reset()
    return fleet


def test_the_generated_sql_files_are_those_of_the_contract() -> None:
    for path, text in generated_files().items():
        assert path.read_text(encoding="utf-8") == text, f"run python -m outpost.records.schema ({path.name})"


def test_the_mart_has_the_contracts_columns_in_its_order(fleet: Fleet) -> None:
    found = fleet.ask(
        "SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute"
        " WHERE attrelid = 'fleet.studies_store'::regclass AND attnum > 0 ORDER BY attnum"
    )
    first, later = (
        [{"name": column.name, "type": column.type} for column in columns]
        for columns in (CONTRACTS[1].studies, NOTES)
    )
    assert found == [*first, {"name": "loaded_at", "type": "timestamp with time zone"}, *later]
    assert CONTRACTS[NEWEST].studies == (*CONTRACTS[1].studies, *NOTES)


def test_importing_the_regions_schema_gives_exactly_the_columns_we_generate(fleet: Fleet) -> None:
    columns = (
        "SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attcollation,"
        " a.attnotnull FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 ORDER BY a.attnum"
    )
    fleet.ask("CREATE SCHEMA scratch")
    try:
        with fleet.centre.superuser("fleet") as me:
            mapping = f"OPTIONS (user 'fleet_reader', password {psycopg.sql.quote(READER_PASSWORD)})"
            me.execute(f"CREATE USER MAPPING FOR postgres SERVER region_tver {mapping}")
            me.execute("IMPORT FOREIGN SCHEMA fleet_export FROM SERVER region_tver INTO scratch")
        wanted_of = {
            name: columns for contract in CONTRACTS.values() for name, columns in contract.relations.items()
        }
        for relation, wanted in wanted_of.items():
            imported = fleet.ask(columns, (f"scratch.{relation}",))
            assert imported == fleet.ask(columns, (f"region_tver.{relation}",))
            assert [row["attname"] for row in imported] == [column.name for column in wanted]
        relations = fleet.ask(
            "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'scratch'::regnamespace"
        )
        assert {row["name"] for row in relations} == set(wanted_of)
    finally:
        fleet.ask("DROP SCHEMA scratch CASCADE")
        fleet.ask("DROP USER MAPPING IF EXISTS FOR postgres SERVER region_tver")


def test_no_view_of_the_mart_reads_a_foreign_table(fleet: Fleet) -> None:
    read_by_views = fleet.ask(
        "WITH RECURSIVE edge AS ("
        "  SELECT r.ev_class AS reader, d.refobjid AS read FROM pg_rewrite r JOIN pg_depend d"
        "    ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
        "   AND d.refclassid = 'pg_class'::regclass"
        "  UNION ALL SELECT inhparent, inhrelid FROM pg_inherits"
        "), used AS ("
        "  SELECT oid FROM pg_class WHERE relnamespace = 'fleet'::regnamespace AND relkind = 'v'"
        "  UNION SELECT edge.read FROM used JOIN edge ON edge.reader = used.oid"
        ") SELECT relkind::text AS kind, count(*) AS n FROM pg_class JOIN used USING (oid) GROUP BY relkind"
    )
    kinds = {row["kind"]: row["n"] for row in read_by_views}
    assert kinds["v"] == 7
    assert kinds["p"] == 1
    assert int(str(kinds["r"])) >= 6, "the walk reached the partitions"
    assert "f" not in kinds


def test_the_watermark_is_shipped_to_the_region_as_a_literal(fleet: Fleet) -> None:
    with fleet.centre.login("fleet", "fleet_collector", COLLECTOR_PASSWORD) as me:
        plan = me.execute(
            "EXPLAIN (VERBOSE) SELECT study_key FROM region_chita.studies_v1 WHERE seq > 41 AND seq <= 99"
        ).fetchall()
    remote = next(line for row in plan for line in row.values() if "Remote SQL" in str(line))
    assert "((seq > 41)) AND ((seq <= 99))" in str(remote)


def test_attaching_answers_changed_only_when_something_was_changed(fleet: Fleet) -> None:
    assert fleet.attach("chita") == "unchanged"
    for change in (
        {"title": "Chita oblast"},
        {"host": f"{NET}.200"},
        {"port": 5433},
        {"dbname": "other"},
        {"sslmode": "disable"},
        {"sslrootcert": "/etc/outpost/ca.pem"},
        {"username": "someone"},
        {"password": "it's \\ new"},
    ):
        assert fleet.attach("chita", **change) == "changed", change
        assert fleet.attach("chita", **change) == "unchanged", change
        assert fleet.attach("chita") == "changed", f"{change} taken back"
    assert fleet.attach("chita") == "unchanged"


@pytest.mark.parametrize(
    "by_hand",
    [
        "ALTER SERVER region_chita OPTIONS (SET keepalives_idle '7200')",
        "ALTER SERVER region_chita OPTIONS (DROP connect_timeout)",
        "ALTER SERVER region_chita OPTIONS (ADD fdw_tuple_cost '1')",
        "ALTER USER MAPPING FOR fleet_collector SERVER region_chita OPTIONS (ADD password_required 'false')",
        "DROP USER MAPPING FOR fleet_collector SERVER region_chita",
        "ALTER FOREIGN TABLE region_chita.studies_v1 DROP COLUMN rung",
        "ALTER FOREIGN TABLE region_chita.studies_v1 ALTER COLUMN bytes TYPE integer",
        "ALTER FOREIGN TABLE region_chita.studies_v1 ADD COLUMN extra text",
        "ALTER FOREIGN TABLE region_chita.handshake_v1 OPTIONS (SET table_name 'handshake_v0')",
        "DROP FOREIGN TABLE region_chita.handshake_v1",
        "REVOKE SELECT ON region_chita.studies_v1 FROM fleet_collector",
        "REVOKE USAGE ON SCHEMA region_chita FROM fleet_collector",
        "DROP SERVER region_chita CASCADE",
        "UPDATE fleet.regions SET removed_at = now() WHERE region = 'chita'",
        "DELETE FROM fleet.sync WHERE region = 'chita'",
    ],
)
def test_attaching_puts_right_what_was_changed_by_hand(fleet: Fleet, by_hand: str) -> None:
    fleet.regions["chita"].write(1)
    fleet.ask(by_hand)

    assert fleet.attach("chita") == "changed"
    assert fleet.attach("chita") == "unchanged"

    assert sync_region(fleet.config.centre, fleet.config.sync, "chita").fault is None
    assert len(fleet.held("chita")) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"region": "Chita; DROP"}, 'region code "Chita; DROP" is not usable'),
        ({"password": ""}, "no user or no password"),
        ({"username": None}, "no user or no password"),
    ],
)
def test_attaching_refuses_what_cannot_work(fleet: Fleet, values: dict[str, object], words: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match=words):
        fleet.attach(**({"code": "chita"} | values))  # type: ignore[arg-type]  # deliberately wrong values


def test_attaching_does_not_wait_for_a_region_that_hangs_nor_stop_readers(fleet: Fleet) -> None:
    with (
        fleet.centre.login("fleet", "fleet_collector", COLLECTOR_PASSWORD) as collector,
        collector.transaction(),
    ):
        collector.execute(
            "INSERT INTO fleet.studies_store (region, study_key, revision, system)"
            " VALUES ('chita', 'k', 1, 's')"
        )  # a sync in its transaction: it holds its locks on the mart until the region has answered
        with fleet.centre.superuser("fleet") as admin:
            admin.execute("SET statement_timeout = '2s'")
            answer = admin.execute(
                f"SELECT fleet.attach_region('omsk', 'Omsk', '{NET}.98', 5432, 'outpost', 'r', 'x') AS a"
            ).fetchone()
            assert answer == {"a": "changed"}
            admin.execute("SELECT count(*) FROM fleet.studies")


def test_the_reader_sees_the_export_and_nothing_else(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1)
    with chita.cluster.login("outpost", "fleet_reader", READER_PASSWORD) as reader:
        assert len(reader.execute("SELECT * FROM fleet_export.studies_v1").fetchall()) == 1
        for forbidden in (
            "SELECT * FROM outpost.studies",
            "SELECT * FROM outpost.region",
            "SELECT outpost.set_region('x', 'y')",
            "SELECT nextval('outpost.studies_seq')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(forbidden)
        for writing in (
            "DELETE FROM fleet_export.studies_v1",
            "CREATE TABLE public.mine (a integer)",
            "CREATE TEMPORARY TABLE mine (a integer)",
        ):
            reader.execute("SET default_transaction_read_only = off")
            with pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)
            ):
                reader.execute(writing)


def test_the_reader_has_three_connections_and_its_time_limits(fleet: Fleet) -> None:
    cluster = fleet.regions["tver"].cluster
    open_ones = [cluster.login("outpost", "fleet_reader", READER_PASSWORD) for _ in range(3)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            cluster.login("outpost", "fleet_reader", READER_PASSWORD)
        shown = [
            open_ones[0].execute(f"SHOW {name}").fetchone()
            for name in ("statement_timeout", "idle_in_transaction_session_timeout", "tcp_keepalives_idle")
        ]
        assert [next(iter(row.values())) for row in shown if row] == ["30s", "1min", "10"]
    finally:
        for connection in open_ones:
            connection.close()


def test_the_recorder_writes_studies_and_nothing_else(fleet: Fleet) -> None:
    with fleet.regions["chita"].cluster.login("outpost", "outpost_recorder", RECORDER_PASSWORD) as recorder:
        for forbidden in (
            "DELETE FROM outpost.studies",
            "TRUNCATE outpost.studies",
            "UPDATE outpost.region SET code = 'x'",
            "SELECT * FROM fleet_export.studies_v1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                recorder.execute(forbidden)


@pytest.mark.parametrize(
    "values",
    [
        {"study_key": "1.2.840.113619.2.55.3"},
        {"reason": "Ivanov Ivan 1961"},
        {"modality": "Ivanov"},
        {"outcome": "lost"},
        {"notes": ["STUDY_PARTIAL", "Ivanov Ivan 1961"]},
        {"notes": ["IVANOV^IVAN"]},
        {"notes": ["STUDY_PARTIAL", None]},
        {"notes": ["19731231"]},
        {"notes": [["STUDY_PARTIAL"], ["RESULT_DOUBTFUL"]]},
    ],
)
def test_the_table_itself_refuses_what_could_be_patient_data(fleet: Fleet, values: dict[str, object]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        fleet.regions["chita"].write(1, **values)


def test_the_collectors_role_cannot_change_regions_contract_or_servers(fleet: Fleet) -> None:
    with fleet.centre.login("fleet", "fleet_collector", COLLECTOR_PASSWORD) as me:
        for forbidden in (
            "INSERT INTO fleet.regions (region, title) VALUES ('x', 'x')",
            "DELETE FROM fleet.studies_store",
            "UPDATE fleet.contract SET name = 'x'",
            "UPDATE fleet.settings SET stale_after_seconds = 1",
            "SELECT fleet.attach_region('x', 'x', 'x', 1, 'x', 'x', 'x')",
            "SELECT fleet.detach_region('chita')",
            "ALTER SERVER region_chita OPTIONS (SET host 'x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                me.execute(forbidden)


def test_a_region_has_no_login_at_the_centre_and_nothing_there_is_for_everybody(fleet: Fleet) -> None:
    """The centre asks the regions and is never asked by them: none can read another's rows there."""
    fleet.regions["chita"].write(1)
    sync_region(fleet.config.centre, fleet.config.sync, "chita")
    logins = fleet.ask("SELECT rolname::text AS name FROM pg_roles WHERE rolcanlogin ORDER BY rolname")
    assert [row["name"] for row in logins] == ["fleet_collector", "postgres"]
    for user, password in (
        ("fleet_reader", READER_PASSWORD),
        ("outpost_recorder", RECORDER_PASSWORD),
        ("fleet_collector", READER_PASSWORD),
        ("postgres", ""),
    ):
        with pytest.raises(psycopg.OperationalError):
            fleet.centre.login("fleet", user, password).close()
    # Whoever got a login all the same would still be somebody without a right.
    relations = fleet.ask(
        "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (nspname = 'fleet' OR nspname LIKE 'region%')"
    )
    assert len(relations) > 10
    fleet.ask("CREATE ROLE a_region LOGIN PASSWORD 'guessed'")
    try:
        with pytest.raises(psycopg.OperationalError, match="CONNECT privilege"):
            fleet.centre.login("fleet", "a_region", "guessed").close()
        fleet.ask("GRANT CONNECT ON DATABASE fleet TO a_region")  # the next wall
        with fleet.centre.login("fleet", "a_region", "guessed") as stranger:
            for row in relations:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    stranger.execute(f"SELECT * FROM {row['name']}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute("CREATE TABLE public.mine (a integer)")
            mapped = stranger.execute("SELECT umoptions FROM pg_user_mappings").fetchall()
            assert {row["umoptions"] for row in mapped} == {None}, "the regions' passwords"
    finally:
        fleet.ask("REVOKE CONNECT ON DATABASE fleet FROM a_region")
        fleet.ask("DROP ROLE a_region")


def test_a_region_shows_a_stranger_with_a_login_nothing(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1)
    chita.execute("CREATE ROLE a_neighbour LOGIN PASSWORD 'guessed'")
    try:
        with pytest.raises(psycopg.OperationalError, match="CONNECT privilege"):
            chita.cluster.login("outpost", "a_neighbour", "guessed").close()
        chita.execute("GRANT CONNECT ON DATABASE outpost TO a_neighbour")  # the next wall
        with chita.cluster.login("outpost", "a_neighbour", "guessed") as stranger:
            for forbidden in (
                "SELECT * FROM fleet_export.studies_v1",
                "SELECT * FROM fleet_export.studies_v2",
                "SELECT * FROM fleet_export.handshake_v1",
                "SELECT * FROM outpost.studies",
                "SELECT outpost.set_region('x', 'y')",
                "CREATE TABLE public.mine (a integer)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    stranger.execute(forbidden)
    finally:
        chita.execute("REVOKE CONNECT ON DATABASE outpost FROM a_neighbour")
        chita.execute("DROP ROLE a_neighbour")


def test_applying_all_files_again_changes_nothing(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1, 2)
    sync_region(fleet.config.centre, fleet.config.sync, "chita")
    exported, held = chita.exported(), fleet.held("chita")

    chita.cluster.psql("outpost", *RECORDS_SQL)
    fleet.centre.psql("fleet", *FLEET_SQL)

    assert chita.exported() == exported
    assert fleet.held("chita") == held
    assert fleet.attach("chita") == "unchanged"
    assert sync_region(fleet.config.centre, fleet.config.sync, "chita").rows == 0


def test_a_region_whose_view_differs_from_the_contract_stops_at_the_check(fleet: Fleet) -> None:
    cluster = fleet.regions["train"].cluster
    with cluster.superuser("postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS differing")
        connection.execute("CREATE DATABASE differing TEMPLATE template0")
    cluster.psql("differing", RECORDS_SQL[0])
    with cluster.superuser("differing") as connection:
        connection.execute("ALTER TABLE fleet_export.studies_v1 RENAME COLUMN rung TO step")
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        cluster.psql("differing", RECORDS_SQL[1])
    assert "studies_v1 column 17: contract has rung text, database has step text" in stopped.value.stderr
    with cluster.superuser("differing") as connection:
        versions = connection.execute("SELECT version FROM outpost.schema_version").fetchall()
    assert versions == [{"version": 1}]


def test_a_database_with_studies_does_not_become_another_region(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    with chita.cluster.superuser("outpost") as connection:
        assert connection.execute("SELECT outpost.set_region('chita', '0.1.0') AS a").fetchone() == {
            "a": "unchanged"
        }
        assert connection.execute("SELECT outpost.set_region('chita', '0.1.1') AS a").fetchone() == {
            "a": "changed"
        }
        assert connection.execute("SELECT outpost.set_region('chita', '0.1.0') AS a").fetchone() == {
            "a": "changed"
        }
        chita.write(1)
        with pytest.raises(
            psycopg.errors.RaiseException, match='belongs to region "chita" and holds its studies'
        ):
            connection.execute("SELECT outpost.set_region('tver', '0.1.0')")


def test_a_write_that_changes_nothing_gets_no_new_place_in_the_order(fleet: Fleet) -> None:
    chita = fleet.regions["chita"]
    chita.write(1, 2)
    before = chita.exported()
    chita.write(1, 2)
    assert chita.exported() == before
    chita.execute("UPDATE outpost.studies SET rung = 'cpu' WHERE study_key = %s", study(1)["study_key"])
    after = chita.exported()
    assert max(int(str(r["seq"])) for r in after) > max(int(str(r["seq"])) for r in before)
