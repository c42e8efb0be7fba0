"""Drift in the running service: what comes in is counted, shown and kept; alarms reach a real Postgres once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from postgres_cluster import NET, RECORDER_PASSWORD, Region
from pydicom import dcmread
from pydicom.data import get_testdata_file
from running import Service, wait_for

from outpost.cli import main
from outpost.config import Records
from outpost.drift.alarms import Alarm
from outpost.drift.book import Book
from outpost.drift.categorical import Categories
from outpost.drift.register import Register
from outpost.drift.shelf import Shelf
from outpost.drift.ship import shipper
from outpost.records.journal import Journal
from outpost.records.recorder import Recorder

DAY = date(2026, 3, 10)
ALARM = Alarm("CT1", "Modality", "values", DAY, DAY, "chi-square", 300.0, 1e-9, 0.5, "CR 100 %", "DX 60 %")


def test_what_comes_in_is_counted_by_sender_also_when_it_is_rejected_and_survives_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(tmp_path, [("PACS", 1)]).start().wait_ready()
    image = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    assert service.storescu(image).returncode == 0
    ended = service.wait_outcome(str(dcmread(image).StudyInstanceUID))
    assert ended["outcome"] == "rejected"

    today = datetime.now(UTC).date()

    def sketch() -> Book:
        period = {"from": str(today), "to": str(today)}
        return Book.decode(service.http.get("/drift/sketch", params=period).content)

    assert service.http.get("/drift").json()["reference"] is None
    assert "freeze" in service.http.get("/drift/page").text
    refused = service.http.post("/drift/freeze", params={"from": str(today), "to": str(today)})
    assert refused.status_code == 409
    assert "choose a longer period" in refused.json()["detail"]
    assert "outpost_drift_alarms_open 0.0" in service.http.get("/metrics").text
    assert isinstance(sketch(), Book)
    assert service.stop() == 0

    (tags,) = Shelf(service.storage / "drift").day(today).senders.values()
    modality, outcome = tags["Modality"], tags["Outcome"]
    assert isinstance(modality, Categories)
    assert isinstance(outcome, Categories)
    assert modality.cells["CT"] == (1, "CT")
    assert list(outcome.cells) == [f"rejected {ended['reason']}"[:32]]
    assert main(["drift", "status", "--config", str(service.config_file)]) == 0
    assert "no reference" in capsys.readouterr().out


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region("drift", f"{NET}.41")
    yield region
    region.cluster.destroy()


def test_alarms_reach_postgres_once_and_again_when_they_end(region: Region, tmp_path: Path) -> None:
    settings = Records.model_validate(
        {
            "host": region.cluster.host,
            "port": region.cluster.port,
            "password": RECORDER_PASSWORD,
            "uid_key": "key",
        }
    )
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    register = Register(tmp_path / "alarms.json")
    register.change([ALARM, replace(ALARM, tag="Rows")], DAY, "digest")
    recorder = Recorder(journal, settings, "1.0", [shipper(register, "brain")])
    recorder.start()

    def rows() -> list[dict[str, object]]:
        with region.cluster.superuser("outpost") as connection:
            return connection.execute("SELECT * FROM outpost.drift_alarms ORDER BY tag").fetchall()

    wait_for(lambda: len(rows()) == 2, 20, "both alarms arrive")
    wait_for(lambda: register.unshipped() == [], 5, "they are marked as shipped")
    register.change([replace(ALARM, ended_on=date(2026, 4, 1))], DAY, "digest")
    wait_for(lambda: rows()[0]["ended_on"] == date(2026, 4, 1), 20, "the end arrives")
    assert len(rows()) == 2
    recorder.stop()
    journal.close()


def test_a_postgres_without_the_table_keeps_no_study_from_it(region: Region, tmp_path: Path) -> None:
    with region.cluster.superuser("outpost") as connection:
        connection.execute("DROP TABLE outpost.drift_alarms")
    register = Register(tmp_path / "alarms.json")
    register.change([ALARM], DAY, "digest")
    ship = shipper(register, "brain")

    def connect() -> psycopg.Connection:
        return psycopg.connect(
            host=region.cluster.host,
            port=region.cluster.port,
            dbname="outpost",
            user="outpost_recorder",
            password=RECORDER_PASSWORD,
            autocommit=True,
        )

    ship(connect)
    assert register.unshipped() == [ALARM]
