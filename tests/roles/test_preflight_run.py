"""preflight.yml from end to end on this machine: what stops a host stops only that one; all are in the report."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loaded import load
from recorded_hosts import GTX_1080_TI, ROOT, UBUNTU_2404, plant
from starting import release, started_from

SYSTEMS = {"brain": {"dicom_port": 11112, "api_port": 8080, "cores": 0.1, "memory_mib": 64}}


def run(
    tmp_path: Path, hosts: dict[str, dict[str, Any]], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The playbook over hosts that are all this machine, in a process space whose first process is called systemd."""
    tree = tmp_path / "host"
    if not tree.exists():
        plant(tree, UBUNTU_2404, pci=GTX_1080_TI)
    common = {
        **started_from(tmp_path),
        "ansible_connection": "local", "ansible_become": False, "outpost_systems": SYSTEMS,
        "outpost_hospital_networks": ["192.0.2.0/24"], "outpost_admin_networks": [],
        "preflight_disk_min_mib": 1, "preflight_memory_reserve_mib": 0,
        # Other tests have their databases on this machine.
        "preflight_database_port": 5999,
        "platform_os_release": str(tree / "etc/os-release"),
        "preflight_report_directory": str(tmp_path / "report"),
    }  # fmt: skip
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"region": {"hosts": hosts, "vars": common}}))
    shell = tmp_path / "systemd"
    shutil.copy("/bin/bash", shell)
    playbook = [
        str(ROOT / ".venv/bin/ansible-playbook"),
        "-i",
        str(inventory),
        "playbooks/preflight.yml",
        *arguments,
    ]
    inside = [
        "unshare",
        "--fork",
        "--pid",
        "--mount-proc",
        str(shell),
        "-c",
        '"$@"; exit $?',
        "bash",
        *playbook,
    ]
    command = inside if os.geteuid() == 0 else ["sudo", "-n", *inside]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def recap(ended: subprocess.CompletedProcess[str], host: str) -> str:
    return next(line for line in ended.stdout.splitlines() if line.startswith(f"{host} ") and "ok=" in line)


def test_a_host_that_cannot_run_stops_and_the_others_go_on(tmp_path: Path) -> None:
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {"chita": {}, "tver": {"preflight_memory_reserve_mib": 10**9}, "train": gone}
    ended = run(tmp_path, hosts, "-e", "outpost_language=ru")
    assert "failed=0" in recap(ended, "chita"), ended.stdout[-3000:]
    assert "failed=1" in recap(ended, "tver")
    assert "unreachable=1" in recap(ended, "train")
    assert all("changed=0" in recap(ended, host) for host in hosts)
    assert "tver: работать не будет" in ended.stdout
    assert "ок   brain: будет работать" in ended.stdout, "each system has its own word"
    assert "[memory]" in ended.stdout

    report = tmp_path / "report"
    assert json.loads((report / "chita.json").read_text())["level"] == "ok"
    stopped = json.loads((report / "tver.json").read_text())
    assert (stopped["level"], stopped["systems"]) == ("critical", {"brain": "critical"})
    index = (report / "index.html").read_text()
    assert index.index("tver") < index.index("chita"), "what stops stands first"
    assert "train" in index
    assert "Заключение" in (report / "tver.html").read_text()

    # A run over one host leaves the others on the page, with their earlier verdict and when it was made.
    (report / "ulan.json").write_text((report / "tver.json").read_text().replace('"tver"', '"ulan"'))
    again = run(tmp_path, hosts, "-e", "outpost_language=ru", "-l", "chita")
    assert "failed=0" in recap(again, "chita"), again.stdout[-3000:]
    index = (report / "index.html").read_text()
    assert index.index("tver.html") < index.index("chita.html")
    assert "Заключения по узлам: 2" in index, "train never had a verdict"
    assert "ulan" not in index, "it is no longer in the inventory"
    assert stopped["at"] in index


def test_a_host_whose_python_is_too_old_gets_its_verdict_without_being_asked_further(tmp_path: Path) -> None:
    tree = plant(tmp_path / "host", UBUNTU_2404, programs={"python3": "echo Python 3.7.3"})
    ended = run(tmp_path, {"chita": {"platform_root": str(tree)}})
    assert ended.returncode == 2
    report = json.loads((tmp_path / "report/chita.json").read_text())
    assert [line["code"] for line in report["lines"] if line["level"] == "critical"] == ["python"]
    assert "Install the system's own package python3" in ended.stdout


def test_a_dry_run_reports_too_and_a_card_is_judged_against_the_set(tmp_path: Path) -> None:
    card = {
        "platform_pci_root": str(tmp_path / "host/sys/bus/pci/devices"), "preflight_driver": "595.58.03",
        "preflight_torch": "2.13.0", "preflight_bundles": {"brain": "brain_extraction"},
    }  # fmt: skip
    ended = run(tmp_path, {"chita": card}, "--check")
    assert ended.returncode == 2, ended.stdout[-3000:]
    report = json.loads((tmp_path / "report/chita.json").read_text())
    stops = {line["code"] for line in report["lines"] if line["level"] == "critical"}
    assert {"gpu-driver", "gpu-cuda", "torch-arch"} <= stops
    assert any(line["code"] == "bundle-memory" and not line["ok"] for line in report["lines"])


def _sets(tmp_path: Path, name: str) -> dict[str, str]:
    """A set for the recorded host, whose name says nothing of its driver, and the inventory's words for it."""
    package = {"name": "nvidia-smi", "version": "595.58.03-1", "file": "s.deb", "sha256": "0" * 64}
    sets = {"chita-2026.1": {"driver": "595.58.03", "platforms": ["ubuntu-24.04"], "packages": [package]}}
    (tmp_path / "sets.yml").write_text(json.dumps({"nvidia_driver_sets": sets}))
    return {"nvidia_driver_set": name, "nvidia_driver_sets_file": str(tmp_path / "sets.yml")}


def test_the_card_is_judged_against_the_driver_that_the_set_itself_names(tmp_path: Path) -> None:
    asked = {
        **_sets(tmp_path, "chita-2026.1"),
        "platform_pci_root": str(tmp_path / "host/sys/bus/pci/devices"),
    }
    ended = run(tmp_path, {"chita": asked}, "--check")
    assert ended.returncode == 2, ended.stdout[-3000:]
    lines = json.loads((tmp_path / "report/chita.json").read_text())["lines"]
    judged = next(line for line in lines if line["code"] == "gpu-driver")
    assert (judged["level"], "595" in judged["value"]) == ("critical", True), judged


def test_a_set_that_does_not_exist_is_named_unless_the_host_has_no_card_to_drive(tmp_path: Path) -> None:
    asked = _sets(tmp_path, "chita-2027")
    card = {"platform_pci_root": str(tmp_path / "host/sys/bus/pci/devices")}
    ended = run(tmp_path, {"chita": {**asked, **card}, "tver": {**asked, "platform_pci_root": "/nowhere"}})
    said = " ".join(ended.stdout.split())
    assert "There is no driver set 'chita-2027' for ubuntu-24.04; known: chita-2026.1" in said, said[-3000:]
    assert "failed=1" in recap(ended, "chita")
    assert "failed=0" in recap(ended, "tver")


@pytest.mark.parametrize(
    ("torch", "failed"), [("2.13.0+cu130", {"torch-arch", "gpu-cuda"}), ("2.13.0+cu126", set())]
)
def test_the_release_to_be_deployed_is_judged_by_its_manifest(
    tmp_path: Path, torch: str, failed: set[str]
) -> None:
    release(tmp_path / "releases", "1.0", torch=torch)
    card = {
        "platform_pci_root": str(tmp_path / "host/sys/bus/pci/devices"), "preflight_driver": "580.95.05",
        "outpost_release_directory": str(tmp_path / "releases"), "outpost_release": "1.0",
    }  # fmt: skip
    run(tmp_path, {"chita": card})
    report = json.loads((tmp_path / "report/chita.json").read_text())
    assert report["asked"]["torch"] == torch
    assert {line["code"] for line in report["lines"] if line["level"] == "critical"} & {
        "torch-arch", "gpu-cuda", "torch-build", "torch-named",
    } == failed  # fmt: skip


def test_a_release_that_is_not_here_is_not_judged_and_a_broken_manifest_is_named(tmp_path: Path) -> None:
    named = {"outpost_release_directory": str(tmp_path), "outpost_release": "1.0"}
    ended = run(tmp_path, {"chita": named})
    assert ended.returncode == 0, ended.stdout[-3000:]
    (tmp_path / "1.0").mkdir()
    (tmp_path / "1.0/manifest.json").write_text("{")
    ended = run(tmp_path, {"chita": named})
    assert ended.returncode == 2
    assert f"{tmp_path}/1.0/manifest.json is no JSON" in " ".join(ended.stdout.split())


@pytest.mark.parametrize(
    ("variable", "said"),
    [("preflight_driver=580.x", "is no version"), ("outpost_language=de", "wanted: one of en, ru"),
     ("preflight_show=some", "wanted: one of all, problems")],
)  # fmt: skip
def test_a_wrong_setting_is_named(tmp_path: Path, variable: str, said: str) -> None:
    ended = run(tmp_path, {"chita": {}}, "-e", variable)
    assert ended.returncode == 2
    assert said in " ".join(ended.stdout.split()), ended.stdout[-3000:]


@pytest.mark.parametrize("variable", ["outpost_hospital_networks", "outpost_admin_networks"])
def test_an_inventory_that_names_no_networks_stops_before_the_host_is_asked(
    tmp_path: Path, variable: str
) -> None:
    ended = run(tmp_path, {"chita": {variable: None}}, "-e", "outpost_language=en")
    assert ended.returncode == 2
    said = " ".join(ended.stdout.split())
    assert f"{variable} is not set. Name the networks" in said
    assert "Read what the host is" not in said, "nothing was asked of the host"


def test_a_report_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(tmp_path, {"chita": {}}, "-v", "-e", f"preflight_report_directory={tmp_path}/file/report")
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert "set preflight_report_directory" in ended.stdout


# --- What the host reaches.


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # On a host Ansible brings it along.
    around = load(ROOT / "roles/preflight/module_utils/preflight_surroundings.py")
    monkeypatch.setitem(sys.modules, "ansible.module_utils.preflight_surroundings", around)
    return load(ROOT / "roles/preflight/library/preflight_read.py")


def test_a_port_that_listens_answers_and_a_closed_one_says_why(module: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert module.connect(f"127.0.0.1:{port}", 2) == "ok"
    assert "refused" in module.connect(f"127.0.0.1:{port}", 2)
    assert "HOST:PORT" in module.connect("127.0.0.1", 2)


def test_names_resolve_or_come_back_empty(module: ModuleType) -> None:
    assert "127.0.0.1" in module.resolve("localhost")
    assert module.resolve("no-such-host.invalid") == []


def test_targets_that_never_answer_cost_the_bound_once(module: ModuleType) -> None:
    never = threading.Event()
    began = time.monotonic()
    answers = module.all_at_once(lambda target: never.wait(30) or target, ["a", "b", "c"], 0.3, "late")
    assert answers == {"a": "late", "b": "late", "c": "late"}
    assert time.monotonic() - began < 2
    never.set()


def chain(table: str, name: str, hook: str, policy: str) -> str:
    """As `nft list chains` prints it."""
    kind = f"type filter hook {hook} priority filter; policy {policy};"
    return f"table {table} {{\n\tchain {name} {{\n\t\t{kind}\n\t}}\n}}\n"


@pytest.mark.parametrize(
    ("ufw", "firewalld", "chains", "found"),
    [
        ("no", "", "", []),
        ("yes", "", "", ["ufw"]),
        ("no", "is-active", "", ["firewalld"]),
        ("no", "is-enabled", "", ["firewalld"]),  # not now, but after the next boot
        ("no", "", chain("inet filter", "input", "input", "drop"), ["nftables inet filter input"]),
        ("no", "", chain("ip filter", "FORWARD", "forward", "drop"), []),
        ("no", "", chain("inet outpost", "input", "input", "accept"), []),
    ],
    ids=[
        "none",
        "ufw",
        "firewalld",
        "firewalld at boot",
        "a table that drops",
        "what Docker sets",
        "our own",
    ],
)
def test_a_firewall_beside_ours_is_found(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ufw: str,
    firewalld: str,
    chains: str,
    found: list[str],
) -> None:
    (tmp_path / "ufw.conf").write_text(f"# ufw\nENABLED={ufw}\n")
    (tmp_path / "chains").write_text(chains)
    for name, does in (
        ("ufw", "true"),
        ("systemctl", f'[ "$1" = "{firewalld}" ]'),
        ("nft", f"cat {tmp_path}/chains"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(module, "UFW", str(tmp_path / "ufw.conf"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert module.firewalls() == found
