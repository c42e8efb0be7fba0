"""The running service and a region's real Postgres, which is away at first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_cluster import NET, RECORDER_PASSWORD, Region
from pydicom import dcmread
from pydicom.data import get_testdata_file
from running import Service, wait_for

from outpost.records.recorder import study_key

UID_KEY = "a key of the region"


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region("records", f"{NET}.31")
    region.cluster.stop()
    yield region
    region.cluster.destroy()


def test_a_study_never_waits_for_postgres_and_its_record_arrives_later_without_its_uid(
    region: Region, tmp_path: Path
) -> None:
    records = {
        "enabled": True,
        "host": region.cluster.host,
        "port": region.cluster.port,
        "password": RECORDER_PASSWORD,
        "uid_key": UID_KEY,
    }
    service = Service(tmp_path, [("PACS", 1)], records=records, inference={"bundle": str(tmp_path / "none")})
    service.start()
    image = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    uid = str(dcmread(image).StudyInstanceUID)
    assert service.storescu(image).returncode == 0
    service.wait_state(uid, "complete")

    def shipping() -> str:
        checks = service.http.get("/health/light").json()["checks"]
        return next(str(c["value"]) for c in checks if c["code"] == "RECORDS_SHIPPED")

    wait_for(lambda: shipping() != "shipped", 20, "the verdict says that records wait")
    region.cluster.start()

    def rows() -> list[dict[str, object]]:
        with region.cluster.superuser("outpost") as connection:
            return connection.execute("SELECT * FROM outpost.studies").fetchall()

    [row] = wait_for(rows, 90, "the record arrives")
    assert row["study_key"] == study_key(UID_KEY, uid)
    assert (row["system"], row["modality"], row["outcome"], row["instances"]) == ("brain", "MR", "pending", 1)
    assert uid not in str(row)
    wait_for(lambda: shipping() == "shipped", 20, "the verdict says that all is shipped")
    assert service.stop() == 0
