"""Systems that the host has and the inventory does not name: read from its files, told of, kept, refused as renamed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from loaded import load

from outpost.controller import removal
from outpost.controller.networks import region_ports

ROOT = Path(__file__).parents[2]
BRAIN = {"dicom_port": 11112, "api_port": 8080, "cores": 1, "memory_mib": 64}


def system(**values: Any) -> dict[str, Any]:
    usual = {"region": "chita", "dicom_port": 11113, "api_port": 8081, "configured": True, "enabled": True}
    return {**usual, "active": True, "container": True, "leaving": False, **values}


def line(code: str, lines: list[Any]) -> Any:
    return next(one for one in lines if one.code == code)


def test_a_system_that_left_the_inventory_is_a_warning_by_name() -> None:
    found = {"brain": system(dicom_port=11112, api_port=8080), "chest": system()}
    gone = removal.left(found, {"brain": BRAIN})
    assert list(gone) == ["chest"]
    told = line("system-left", removal.lines(gone, [], {}))
    assert (told.ok, told.level) == (False, "warning")
    assert "chest" in told.value.en
    assert "playbooks/remove.yml -e outpost_system=" in told.remedy.ru
    assert line("system-left", removal.lines({}, [], {})).ok


@pytest.mark.parametrize("key", ["dicom_port", "api_port"])
def test_a_new_name_on_an_old_port_is_a_renamed_system(key: str) -> None:
    """The new one could not listen, or would leave the studies of the old one behind."""
    found = {"chest": system()}
    new = {"lungs": {**BRAIN, key: system()[key]}}
    [fault] = removal.renamed(found, new, "chita")
    assert f"lungs ({key} {system()[key]}) is on the port of chest" in fault.en
    assert removal.renamed(found, {"lungs": BRAIN}, "chita") == [], "another port is another system"
    assert removal.renamed(found, {"chest": {**BRAIN, "dicom_port": 11113}}, "chita") == []
    assert line("system-renamed", removal.lines({}, [fault.en], {})).level == "critical"


def test_an_existing_system_that_takes_the_port_of_one_that_left_is_refused_too() -> None:
    found = {"brain": system(dicom_port=11112, api_port=8080), "chest": system()}
    [fault] = removal.renamed(found, {"brain": {**BRAIN, "dicom_port": 11113}}, "chita")
    assert "brain (dicom_port 11113) is on the port of chest" in fault.en


def test_a_renamed_region_is_refused_before_its_keys_are() -> None:
    [fault] = removal.renamed({"brain": system()}, {"brain": BRAIN}, "transbaikal")
    assert "brain was set up in region chita, and the inventory calls the host transbaikal" in fault.en


def test_a_database_that_is_not_clear_is_a_line_of_the_preflight() -> None:
    told = line(
        "database-cluster", removal.lines({}, [], {"kind": "stop", "words": "two clusters", "cluster": {}})
    )
    assert (told.level, told.value.ru) == ("critical", "two clusters")
    used = {"kind": "use", "words": "", "cluster": {"data": "/var/lib/postgresql/15/main"}}
    assert line("database-cluster", removal.lines({}, [], used)).ok
    assert line("database-cluster", removal.lines({}, [], {"kind": "create", "words": "", "cluster": {}})).ok


def test_the_firewall_goes_on_closing_the_ports_of_what_left() -> None:
    wanted: Any = {
        "archives": [],
        "hospital": ["192.0.2.0/24"],
        "admin": [],
        "centre": [],
        "database_port": 5432,
    }
    rules = region_ports({"brain": BRAIN, **removal.left({"chest": system()}, {"brain": BRAIN})}, **wanted)
    assert {11112, 8080, 11113, 8081, 5432} <= {rule["port"] for rule in rules}


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return load(ROOT / "roles/removal/library/removal_systems.py")


def test_ports_and_region_are_read_from_what_the_role_writes(reader: ModuleType, tmp_path: Path) -> None:
    """The file as roles/inference writes it: other sections have ports, too."""
    path = tmp_path / "brain.yaml"
    path.write_text(
        "# Ansible managed\nsystem: brain\nregion: chita\nintake:\n  dicom_port: 11112\n  ae_title: \"OUTPOST\"\n"
        "delivery:\n  destinations:\n    - {\"name\": \"pacs\", \"port\": 104}\nrecords:\n  host: 127.0.0.1\n"
        "  port: 5432\napi:\n  port: 8080\n  tls: {\"certificate\": \"/x\"}\n"
    )  # fmt: skip
    assert reader.configuration(str(path)) == {"region": "chita", "dicom_port": 11112, "api_port": 8080}
    assert reader.configuration(str(tmp_path / "none.yaml")) == {"region": "", "dicom_port": 0, "api_port": 0}


def test_the_role_writes_what_the_reader_reads() -> None:
    """A key that moves in the template must be found again."""
    template = (ROOT / "roles/inference/templates/system.yaml.j2").read_text()
    assert "\nregion: {{" in template
    assert "\n  dicom_port: {{" in template
    assert "\napi:\n  port: {{" in template
    assert "\n  password: {{ inference_database_password" in template, (
        "roles/removal/tasks/keep.yml replaces it"
    )


def test_secrets_go_last() -> None:
    tasks = yaml.safe_load((ROOT / "roles/removal/tasks/drain.yml").read_text())
    names = [task["name"] for task in tasks]
    assert names[0] == "Have it open no more studies"
    assert names.index("Wait until all is computed and delivered") < names.index("Stop it, now and at boot")
    assert names[-1] == "Remove its configuration and its secrets"


def test_all_that_closes_the_host_goes_with_the_region() -> None:
    """A unit that stays would load the rules again, or fail at every boot."""
    files = yaml.safe_load((ROOT / "roles/base/vars/main.yml").read_text())["__base_firewall_files"]
    put = [one["path"] for one in files if "src" in one]
    assert len(put) == 5
    tasks = yaml.safe_load((ROOT / "roles/removal/tasks/region.yml").read_text())
    loops = {task["name"]: task["loop"] for task in tasks if "loop" in task}
    assert set(put) <= set(loops["Remove units and settings of ours"])
    assert loops["Take the firewall's rules away, now and at boot"] == [
        "outpost-firewall-watch.timer",
        "outpost-firewall.service",
    ]
