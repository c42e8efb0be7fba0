"""A first run and an update, each cut at every task, one cut after the other on the same host: what is lost stays lost.

A cut loses what a run had in mind: handlers, what it had registered. What a later run does not see by itself is then
never done, so that one chain of cuts, each a task further than the one before, finds what single cuts would find. What
runs at its end is compared with what an uncut run leaves. `make test-cuts`; a lane of each system (tests/lanes).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mutations"))
from cutting import changed, on, run, was_cut

HOST = os.environ["OUTPOST_LIMIT"].split(",")[0]
EVERY = int(os.environ.get("OUTPOST_CUTS", "1"))
# Nothing of it is what the lab's inventory says.
UPDATE: dict[str, Any] = {
    "outpost_ntp_servers": ["10.255.255.1"],
    "base_journal_max": "900M",
    "outpost_firewall_ports": [{"port": 4711, "from": []}],
    "container_runtime_insecure_registries": ["10.255.255.1:5000"],
    "postgresql_settings": {"max_connections": 97, "work_mem": "7MB"},
    "postgresql_port": 5433,
    "inference_quiet_seconds": 4,
    "inference_api_tokens": [{"name": "duty", "role": "read", "sha256": "0" * 64}],
    "outpost_systems": {"brain": {"dicom_port": 11113, "api_port": 8081, "cores": 1.5, "memory_mib": 4000}},
}
_PSQL = "cd / && sudo -u postgres $(ls /usr/pgsql-*/bin/psql /usr/bin/psql 2>/dev/null | head -1)"
_DATA = "$(ls -d /var/lib/postgresql/*/main /var/lib/pgsql/*/data 2>/dev/null | head -1)"
# Of all of these the host says what runs, not what is written.
ASKED = {
    "files": "find /etc/outpost /etc/docker/daemon.json /etc/chrony* /etc/systemd/system /etc/systemd/journald.conf.d"
    " /opt/outpost /usr/local/sbin/outpost-firewall /etc/postgresql /var/lib/pgsql/*/data/*.conf"
    " /var/lib/pgsql/*/data/conf.d -xdev -type f ! -name image.tar.gz ! -name '*.keys' ! -name driftfile ! -name '*~'"
    " 2>/dev/null | sort | xargs sha256sum",
    "links": "readlink /opt/outpost/current /etc/localtime",
    "rules": "nft -s list table inet outpost | sed -e '/elements = {.*}/d' -e '/elements = {/,/}/d'",
    "units": "for u in chrony chronyd systemd-journald docker nftables outpost-firewall outpost-firewall-watch.timer"
    " outpost@brain 'postgresql@*-main' 'postgresql-*'; do systemctl show \"$u\" -p Id -p ActiveState"
    " -p UnitFileState -p NeedDaemonReload; done",
    "servers of time": "chronyc -n sources | grep -c 10.255.255.1",
    "journal": "systemctl show systemd-journald -p ActiveEnterTimestampMonotonic --value",
    "docker": "docker info --format '{{json .RegistryConfig.IndexConfigs}} {{.LoggingDriver}} {{.LiveRestoreEnabled}}'",
    "container": "docker inspect -f '{{.Image}} {{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}"
    ' {{index .Config.Labels "outpost.started"}}\' outpost-brain',
    "ports": "ss -Hltn | awk '{print $4}' | sed 's/.*://' | sort -un | xargs",
    "started on": "/usr/bin/python3 /opt/outpost/current/outpost-run --running brain",
    "settings": f"{_PSQL} -p $(sed -n 4p {_DATA}/postmaster.pid) -d outpost -At"
    ' -c "SELECT name, setting, pending_restart FROM pg_settings'
    " WHERE source = 'configuration file' ORDER BY 1\""
    ' -c "SELECT rolname, rolcanlogin FROM pg_roles ORDER BY 1" -c "SELECT code, release FROM outpost.region"',
}
# What a start changes, and no run compares.
PASSING = ("journal",)


def look() -> dict[str, str]:
    return {what: on(HOST, command, check=False) for what, command in ASKED.items()}


def differences(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[list[str], list[str]]]:
    """What the host says otherwise, line by line."""
    found = {}
    for what in one.keys() - set(PASSING):
        lines = [text.splitlines() for text in (one[what], other[what])]
        if lines[0] != lines[1]:
            found[what] = (sorted(set(lines[0]) - set(lines[1])), sorted(set(lines[1]) - set(lines[0])))
    return found


def chain(said: dict[str, Any]) -> int:
    """Runs until the end, each time cut a task later. Returns how many were cut."""
    cuts, number = 0, EVERY
    while True:
        began = time.monotonic()
        status, text = run("playbooks/region.yml", HOST, said, cut=str(number))
        if not was_cut(status):
            assert status == 0, text[-4000:]
            return cuts
        cuts += 1
        number += EVERY
        if cuts % 10 == 0:
            print(f"cut after task {number}: {time.monotonic() - began:.0f} s", flush=True)


def settled(said: dict[str, Any]) -> dict[str, str]:
    """What runs, after a run that finds nothing more to do."""
    status, text = run("playbooks/region.yml", HOST, said)
    assert status == 0, text[-4000:]
    assert changed(text, HOST) == 0, "an uncut run after the last cut finds nothing to do"
    return look()


def test_a_host_cut_at_every_task_ends_as_one_that_was_not(
    record_property: Callable[[str, object], None],
) -> None:
    first = chain({})
    after_first = settled({})
    # Uncut from here on: there, and back again, which is what the first run is compared with.
    assert run("playbooks/region.yml", HOST, UPDATE)[0] == 0
    updated = settled(UPDATE)
    assert run("playbooks/region.yml", HOST, {})[0] == 0
    assert differences(after_first, settled({})) == {}
    update = chain(UPDATE)
    assert differences(updated, settled(UPDATE)) == {}
    if EVERY > 1:
        pytest.skip(f"{first} and {update} cuts, no difference; every {EVERY}th task is not recorded")
    record_property("cuts of a first run", first)
    record_property("cuts of an update", update)
