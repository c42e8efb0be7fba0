"""The engines are measured on the host by the service itself, and what was chosen computes the next study."""

from __future__ import annotations

import json
import shutil
import sqlite3
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from running import ROOT, Service, StoreScp, wait_for

RADIOGRAPHS = ROOT / "service" / "bundles" / "radiograph_orientation"


def chest_radiograph(folder: Path) -> Path:
    """A real chest radiograph, CR, from an installed package."""
    found = distribution("pydicom-data").locate_file("data_store/data/RG1_UNCR.dcm")
    folder.mkdir()
    return Path(shutil.copy(str(found), folder))


def measured(service: Service) -> bool:
    with sqlite3.connect(service.storage / "journal.sqlite3") as journal:
        return bool(journal.execute("SELECT 1 FROM events WHERE code = 'ENGINE_MEASURED'").fetchone())


@pytest.mark.parametrize(
    ("share", "first"),
    [({"workers": 2, "optimise_after_idle_seconds": 1}, False), ({"workers": 1, "memory_mib": 1500}, True)],
    ids=["beside a worker when nobody needs the host", "first where memory holds one process only"],
)
def test_engines_are_measured_on_the_host_and_the_chosen_one_computes(
    tmp_path: Path, share: dict[str, Any], first: bool
) -> None:
    pacs = StoreScp(tmp_path / "pacs").start()
    service = Service(
        tmp_path / "service", [("PACS", pacs.port)], inference={"bundle": str(RADIOGRAPHS), **share}
    ).start()
    if first:
        assert service.http.get("/v2/health/ready").status_code == 503, "no worker before the measuring"
    wait_for(lambda: measured(service), 240, "the engines are measured")
    evidence = json.loads((service.storage / "engines" / "radiograph_orientation.json").read_text())
    assert (service.storage / "engines" / "radiograph_orientation.html").exists()
    service.wait_ready()

    image = chest_radiograph(tmp_path / "image")
    assert service.storescu(image.parent).returncode == 0
    row = service.wait_outcome(str(dcmread(image, stop_before_pixels=True).StudyInstanceUID))
    assert (row["outcome"], row["rung"]) == ("delivered", "full")
    assert row["engine"].split()[0] == evidence["chosen"]["engine"]
    assert row["precision"] == evidence["chosen"]["precision"]

    # What was measured holds: a restart does not measure again.
    service.stop()
    before = len(service.log)
    service.start().wait_ready()
    assert "not measured" not in service.log[before:]
    assert "measuring the engines" not in service.log[before:]
    service.stop()
    pacs.stop()
