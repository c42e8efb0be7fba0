"""Regions and a centre of different releases: what a result says of itself arrives, or is known to be unsaid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from postgres_cluster import (
    COLLECTOR_PASSWORD,
    FLEET_SQL,
    READER_PASSWORD,
    RECORDS_SQL,
    Fleet,
    make_region_database,
    study,
    the_fleet,
)

from outpost.fleet.sync import Attempt, sync_region
from outpost.fleet.view import marked
from outpost.records.schema import CONTRACTS

BEFORE_NOTES = [path for path in RECORDS_SQL if path.name < "0005"]
OF_CONTRACT_1 = [name for name in study(0) if name not in ("notes", "partial", "doubtful")]
NOW = datetime.now(UTC).isoformat()
PART = {"notes": ["STUDY_PARTIAL", "OBJECT_LEFT_OUT"], "partial": True, "finished_at": NOW}
DOUBT = {"notes": ["RESULT_DOUBTFUL"], "doubtful": True, "finished_at": NOW}


@pytest.fixture
def fleet() -> Fleet:
    fleet = the_fleet()
    fleet.reset()
    return fleet


def read(fleet: Fleet, code: str) -> Attempt:
    attempt = sync_region(fleet.config.centre, fleet.config.sync, code)
    assert attempt.fault is None
    return attempt


def said(fleet: Fleet, code: str) -> list[tuple[object, object, object]]:
    return [(row["notes"], row["partial"], row["doubtful"]) for row in fleet.held(code)]


def older_region(fleet: Fleet, code: str) -> psycopg.Connection[dict[str, object]]:
    """Attach the region to a database of the release before notes; a superuser's connection to it."""
    cluster = fleet.regions[code].cluster
    with cluster.superuser("postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS before_notes")
    make_region_database(cluster, code, "before_notes", BEFORE_NOTES)
    assert fleet.attach(code, dbname="before_notes") == "changed"
    return cluster.superuser("before_notes")


def write(connection: psycopg.Connection[dict[str, object]], number: int, **values: object) -> None:
    """One study, as a recorder that knows no notes writes it."""
    row = {name: value for name, value in study(number, **values).items() if name in OF_CONTRACT_1}
    connection.execute(
        f"INSERT INTO outpost.studies ({', '.join(row)}) VALUES ({', '.join(f'%({c})s' for c in row)})"
        " ON CONFLICT (system, study_key, revision) DO UPDATE SET outcome = EXCLUDED.outcome",
        row,
    )


def test_what_a_result_says_of_itself_reaches_the_centre_by_its_codes(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1)
    fleet.regions["chita"].write(2, **PART)
    fleet.regions["chita"].write(3, **DOUBT)

    read(fleet, "chita")

    assert said(fleet, "chita") == [
        ([], False, False),
        (["STUDY_PARTIAL", "OBJECT_LEFT_OUT"], True, False),
        (["RESULT_DOUBTFUL"], False, True),
    ]
    assert fleet.freshness("chita")["contract_version"] == 3
    shown = fleet.ask("SELECT notes, partial FROM fleet.studies WHERE region = 'chita' AND partial")
    assert shown == [{"notes": ["STUDY_PARTIAL", "OBJECT_LEFT_OUT"], "partial": True}]


def test_the_centre_counts_what_was_marked_in_the_last_day_and_names_the_newest(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    chita = fleet.regions["chita"]
    chita.write(1, 3, **PART)
    chita.write(9, **(DOUBT | {"finished_at": now - timedelta(hours=1)}))
    chita.write(10, **(PART | {"finished_at": now - timedelta(hours=25)}))
    chita.write(11, **(PART | {"outcome": "pending", "finished_at": None}))
    chita.write(12)
    for code in ("chita", "tver"):
        read(fleet, code)

    with fleet.centre.login("fleet", "fleet_collector", COLLECTOR_PASSWORD) as connection:
        found = {row.region: row for row in marked(connection)}
    assert (found["chita"].told, found["chita"].partial_day, found["chita"].doubtful_day) == (True, 3, 1)
    assert found["chita"].newest_partial
    assert found["chita"].newest_notes == ["STUDY_PARTIAL", "OBJECT_LEFT_OUT"]
    assert (found["tver"].told, found["tver"].partial_day, found["tver"].newest_at) == (True, 0, None)
    assert (found["train"].told, found["train"].partial_day) == (False, None), (
        "never read: it has said nothing"
    )


def test_a_region_of_the_release_before_is_read_and_said_not_to_tell(fleet: Fleet) -> None:
    with older_region(fleet, "chita") as older:
        write(older, 1)
        read(fleet, "chita")

    assert said(fleet, "chita") == [(None, None, None)]
    assert fleet.freshness("chita")["state"] == "fresh"
    assert fleet.freshness("chita")["contract_version"] == 1
    found = fleet.ask("SELECT told, partial_day FROM fleet.marked WHERE region = 'chita'")
    assert found == [{"told": False, "partial_day": None}]


def test_a_region_brought_up_to_date_is_read_again_once_and_then_tells(fleet: Fleet) -> None:
    with older_region(fleet, "chita") as older:
        write(older, 1)
        write(older, 2)
        assert read(fleet, "chita").rows == 2
        assert read(fleet, "chita").rows == 0

        fleet.regions["chita"].cluster.psql("before_notes", *RECORDS_SQL)
        older.execute(
            "UPDATE outpost.studies SET notes = '{RESULT_DOUBTFUL}', doubtful = true WHERE study_key = %s",
            (study(2)["study_key"],),
        )
        assert read(fleet, "chita").rows == 2
        assert read(fleet, "chita").rows == 0

    assert said(fleet, "chita") == [([], False, False), (["RESULT_DOUBTFUL"], False, True)]
    assert "contract 3 says more of each" in str(fleet.freshness("chita")["reason"])


def test_a_region_that_lost_the_newer_views_no_longer_tells_of_what_changed_since(fleet: Fleet) -> None:
    with older_region(fleet, "chita") as older:
        fleet.regions["chita"].cluster.psql("before_notes", *RECORDS_SQL)
        write(older, 1, outcome="pending")
        older.execute("UPDATE outpost.studies SET notes = '{STUDY_PARTIAL}', partial = true")
        read(fleet, "chita")
        assert said(fleet, "chita") == [(["STUDY_PARTIAL"], True, False)]

        older.execute(
            "DROP VIEW fleet_export.studies_v3, fleet_export.handshake_v3,"
            " fleet_export.studies_v2, fleet_export.handshake_v2"
        )
        write(older, 1, outcome="delivered")
        assert read(fleet, "chita").rows == 1

    assert said(fleet, "chita") == [(None, None, None)]


def test_a_centre_whose_regions_were_not_attached_again_goes_on_by_contract_1(fleet: Fleet) -> None:
    for table in ("studies_v3", "handshake_v3", "health_v3", "studies_v2", "handshake_v2"):
        fleet.ask(f"DROP FOREIGN TABLE region_chita.{table}")
    fleet.regions["chita"].write(1, **PART)
    read(fleet, "chita")
    assert said(fleet, "chita") == [(None, None, None)]

    assert fleet.attach("chita") == "changed"
    assert read(fleet, "chita").rows == 1
    assert said(fleet, "chita") == [(PART["notes"], True, False)]


def test_a_centre_of_the_release_before_reads_a_region_that_tells_more(fleet: Fleet) -> None:
    fleet.regions["chita"].write(1, **PART)
    with fleet.centre.superuser("postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS fleet_before")
        connection.execute("CREATE DATABASE fleet_before TEMPLATE template0")
    fleet.centre.psql("fleet_before", *(path for path in FLEET_SQL if path.name < "0003"))
    with fleet.centre.superuser("fleet_before") as connection:
        connection.execute(
            "SELECT fleet.attach_region('chita', 'Chita', %s, 5432, 'outpost', 'fleet_reader', %s, 'prefer')",
            (fleet.regions["chita"].cluster.host, READER_PASSWORD),
        )
    columns = [column.name for column in CONTRACTS[1].studies]
    with fleet.centre.login("fleet_before", "fleet_collector", COLLECTOR_PASSWORD) as connection:
        [hello] = connection.execute("SELECT * FROM region_chita.handshake_v1").fetchall()
        assert (hello["region"], hello["contract_version"]) == ("chita", 1)
        # What the collector of contract 1 does with the rows.
        connection.execute(
            f"INSERT INTO fleet.studies_store ({', '.join(columns)}) SELECT {', '.join(columns)}"
            " FROM region_chita.studies_v1 WHERE seq > 0 AND seq <= %s",
            (hello["max_seq"],),
        )
        [row] = connection.execute("SELECT * FROM fleet.studies").fetchall()
    [exported] = fleet.regions["chita"].exported()
    assert {name: row[name] for name in columns} == {name: exported[name] for name in columns}
    # Brought up to date, it keeps what it holds, and knows that it was not told.
    fleet.centre.psql("fleet_before", *FLEET_SQL)
    with fleet.centre.superuser("fleet_before") as connection:
        [row] = connection.execute("SELECT * FROM fleet.studies").fetchall()
        assert (row["study_key"], row["notes"], row["partial"]) == (exported["study_key"], None, None)
