"""A host as hospitals have them (molecule/shared/hospital-host) after site.yml: nothing stood in the way."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from conftest import LAB, REGIONS, ROOT, psql
from testinfra.host import Host

LOCK = "/run/outpost-controller.lock"
PLAY = """\
- hosts: {region}
  gather_facts: false
  tasks:
    - outpost_lock:
    - ansible.builtin.raw: {command}
"""


def test_the_hospitals_own_settings_are_as_they_were(host: Host) -> None:
    environment = host.file("/etc/environment").content_string
    assert "http_proxy=http://127.0.0.1:9" in environment
    assert "LANG=ru_RU.UTF-8" in environment
    dead = [
        file
        for file in ("/etc/apt/sources.list.d/dead.list", "/etc/yum.repos.d/dead.repo")
        if host.file(file).exists
    ]
    assert len(dead) == 1


def test_the_zone_is_a_link_where_an_installer_had_copied_a_file(region: str, host: Host) -> None:
    named = yaml.safe_load((ROOT / f"inventories/lab/regions/{region}.yml").read_text())
    zone = named["region"]["hosts"][region]["region_timezone"]
    assert host.file("/etc/localtime").linked_to == f"/usr/share/zoneinfo/{zone}"


def test_the_database_speaks_english_on_a_host_that_speaks_russian(host: Host) -> None:
    assert psql(host, "postgres", "SHOW lc_messages") == "C"
    assert host.run("LC_ALL=ru_RU.UTF-8 ls /nonexistent").stderr.isascii() is False, (
        "the lab's hosts have no translations"
    )


def snapshot(host: Host) -> list[str]:
    """What the host is, a line each: files, packages, units, firewall."""
    script = (ROOT / "molecule/shared/snapshot").read_text()
    return str(host.run(f"sh -c {shlex.quote(script)}").stdout).splitlines()


@pytest.mark.skipif(len(REGIONS) > 1, reason="one region is enough: it takes as long as a run")
def test_a_dry_run_with_a_changed_inventory_tells_each_change_and_makes_none(region: str, host: Host) -> None:
    changes = {
        "inference_quiet_seconds": 4,
        "postgresql_settings": {"work_mem": "9MB"},
        "base_timezone": "Asia/Omsk",
        "base_journal_max": "900M",
        "container_runtime_settings": {"max-concurrent-downloads": 2},
    }
    before = snapshot(host)
    told = playbook("region.yml", "-l", region, "--check", "--diff", "-e", json.dumps(changes))
    assert told.returncode == 0, told.stdout[-3000:]
    for said in (
        "zoneinfo/Asia/Omsk",
        "+work_mem = '9MB'",
        "conf.d/outpost.conf, and is restarted where one of its settings asks for that",
        "systemd-journald.service ran on another /etc/systemd/journald.conf.d/outpost.conf",
        "would restart Docker for max-concurrent-downloads",
        "would restart brain and wait",
    ):
        assert said in " ".join(told.stdout.split()), said
    read = told.stdout.partition("TASK [postgresql : Have the server run on its files]")[2]
    assert read.partition("TASK [")[0].count(f"changed: [{region}]") == 1
    assert sorted(set(snapshot(host)) ^ set(before)) == []


def playbook(name: str | Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(ROOT / "inventories/lab")]
    return subprocess.run(
        [*command, str(ROOT / "playbooks" / name), *more],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def environment() -> dict[str, str]:
    """An admin's shell that names a proxy, too."""
    return {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1",
        "LAB_NAME": LAB.name, "OUTPOST_ROOT": str(ROOT), "http_proxy": "http://127.0.0.1:9",
    }  # fmt: skip


def test_a_second_controller_is_told_who_has_the_host_and_a_killed_one_is_forgotten(
    region: str, host: Host, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text(PLAY.format(region=region, command="sleep 20"))
    second.write_text(PLAY.format(region=region, command="'true'"))
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(ROOT / "inventories/lab"), "-l", region]
    with subprocess.Popen(
        [*command, str(first)], env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    ) as running:
        try:
            deadline = time.monotonic() + 40
            while not host.file(LOCK).exists and time.monotonic() < deadline:
                time.sleep(0.3)
            held = host.file(LOCK).content_string
            told = playbook(second, "-l", region)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    assert told.returncode == 2, told.stdout
    said = " ".join(re.sub(r"[│\s]+", " ", told.stdout).split())
    assert f"(process {running.pid}) since" in said
    assert held.splitlines()[2] in said
    # Killed, it gave nothing back itself; the run that follows at once is let in all the same.
    after = playbook(second, "-l", region)
    assert after.returncode == 0, after.stdout
