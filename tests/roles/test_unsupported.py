"""An unsupported host stops the run before anything changes, in words an admin can act on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from starting import started_from

ROOT = Path(__file__).parents[2]
SUPPORTED = "wanted: Ubuntu 22.04, 24.04; Astra Linux 1.8; RED OS 7.3, 8"


def preflight(tmp_path: Path, os_release: str) -> subprocess.CompletedProcess[str]:
    identity = tmp_path / "os-release"
    identity.write_text(os_release)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("region: {hosts: {elsewhere: {ansible_connection: local, ansible_become: false}}}\n")
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", inventory, "playbooks/preflight.yml"]
    return subprocess.run(
        [
            *command,
            "-e",
            f"platform_os_release={identity}",
            "-e",
            f"preflight_report_directory={tmp_path}/report",
            "-e",
            json.dumps(started_from(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("os_release", "named"),
    [
        (
            'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "Debian GNU/Linux 12 (bookworm)",
        ),
        ('ID=astra\nVERSION_ID=1.7_x86-64\nPRETTY_NAME="Astra Linux"\n', "release 1.7"),
        ("", "id unknown"),
    ],
)
def test_an_unsupported_host_stops_with_the_supported_list(
    tmp_path: Path, os_release: str, named: str
) -> None:
    ended = preflight(tmp_path, os_release)
    said = " ".join(ended.stdout.split())
    assert ended.returncode == 2
    assert named in said
    assert SUPPORTED in said
    assert "changed=0" in said
    report = json.loads((tmp_path / "report/elsewhere.json").read_text())
    assert [line["code"] for line in report["lines"] if line["level"] == "critical"] == ["os-supported"]


def test_a_play_without_a_preflight_stops_there_too(tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text("- {hosts: all, gather_facts: false, roles: [platform]}\n")
    identity = tmp_path / "os-release"
    identity.write_text("ID=astra\nVERSION_ID=1.7_x86-64\n")
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", "localhost,", "-c", "local", play]
    ended = subprocess.run(
        [*command, "-e", f"platform_os_release={identity}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "Supported: Ubuntu 22.04, 24.04" in " ".join(ended.stdout.split())
