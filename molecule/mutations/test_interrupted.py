"""A run that breaks off, and a hand that changed what runs: the next run sees it by what runs, or says why it cannot.

Each cut is between a file that was written and the moment when something runs on it. `make test-cuts` cuts at every task.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cutting import ROOT, changed, on, run, was_cut

HOST = os.environ["OUTPOST_LIMIT"].split(",")[0]
PORT = 5433
# What the inventory says all of a sudden.
OTHERWISE: dict[str, Any] = {
    "outpost_ntp_servers": ["10.255.255.1"],
    "base_journal_retention": "91day",
    "outpost_firewall_ports": [{"port": 4711, "from": []}],
    "container_runtime_insecure_registries": ["10.255.255.1:5000"],
    "postgresql_settings": {"max_connections": 97},
    "postgresql_port": PORT,
    "inference_quiet_seconds": 4,
}
SQL = (
    "cd / && sudo -u postgres $(ls /usr/pgsql-*/bin/psql /usr/bin/psql 2>/dev/null | head -1) -p {port}"
    ' -d outpost -Atc "{sql}"'
)
# The role by itself, as playbooks/region.yml has it.
PLAY = f"""\
- hosts: region
  gather_facts: false
  become: true
  roles:
    - role: platform
    - role: postgresql
      vars:
        postgresql_database: outpost
        postgresql_schema_directory: {ROOT}/service/outpost/records/sql
        postgresql_schema_table: outpost.schema_version
        postgresql_roles:
          - {{name: outpost_recorder, label: "postgres/{{{{ inventory_hostname }}}}/outpost_recorder"}}
          - {{name: fleet_reader, label: "postgres/{{{{ inventory_hostname }}}}/fleet_reader"}}
        postgresql_access:
          - {{role: fleet_reader, from: all}}
        postgresql_certificate_names: "{{{{ __certificate_names }}}}"
  vars:
    __certificate_names: >-
      {{{{ [(hostvars[inventory_hostname] | outpost_region).address, inventory_hostname, 'localhost', '127.0.0.1', '::1']
      + outpost_certificate_names | default([]) }}}}
"""


class Cut(NamedTuple):
    """After which task, and what on the host says that something runs on the file, and what it says then."""

    after: str
    probe: str
    wanted: str


CUTS = [
    Cut("Configure time keeping", "chronyc -n sources | grep -c 10.255.255.1", "1"),
    Cut("Limit the journal",
        "[ $(stat -c %Z /etc/systemd/journald.conf.d/outpost.conf) -le $(date +%s -d"
        " \"$(systemctl show --value -p ActiveEnterTimestamp systemd-journald)\") ] && echo new", "new"),
    Cut("Write the firewall rules", "nft list chain inet outpost input | grep -c 4711", "1"),
    Cut("Write Docker's settings before its first start", "docker info 2>/dev/null | grep -c 10.255.255.1", "1"),
    Cut("Write the settings", SQL.format(port=PORT, sql="SHOW max_connections"), "97"),
    Cut("Write the systems' configuration",
        "[ $(date +%s -d $(docker inspect -f '{{.State.StartedAt}}' outpost-brain)) -ge $(stat -c %Z /etc/outpost/brain.yaml) ]"
        " && echo new", "new"),
    Cut("Write the unit", "systemctl show --value -p RestartUSec,NeedDaemonReload outpost@brain | sort | tr '\\n' ' '", "5s no"),
]  # fmt: skip


@pytest.fixture(scope="module")
def otherwise() -> Iterator[dict[str, Any]]:
    """The host is as the inventory says again, whatever became of it."""
    yield OTHERWISE
    status, said = run("playbooks/region.yml", HOST, {})
    assert status == 0, said[-3000:]


def test_a_run_that_breaks_off_is_made_up_for_by_the_next(otherwise: dict[str, Any]) -> None:
    # As if the release before had another unit, on which systemd still runs the system.
    on(HOST, "sed -i 's/^RestartSec=5/RestartSec=9/' /etc/systemd/system/outpost@.service && systemctl daemon-reload")
    for cut in CUTS:
        status, said = run("playbooks/region.yml", HOST, otherwise, cut=cut.after)
        assert was_cut(status), f"{cut.after}: not cut there\n{said[-3000:]}"
    # What ran before: at the last cut nothing of the system was restarted.
    assert on(HOST, CUTS[-1].probe, check=False) != CUTS[-1].wanted
    assert on(HOST, CUTS[-2].probe, check=False) != CUTS[-2].wanted

    status, said = run("playbooks/region.yml", HOST, otherwise)
    assert status == 0, said[-3000:]
    assert changed(said, HOST) > 0, "it must not say that there was nothing to do"
    found = {cut.after: on(HOST, cut.probe, check=False) for cut in CUTS}
    assert found == {cut.after: cut.wanted for cut in CUTS}
    assert on(HOST, "sed -n '/^records:/,/^api:/s/^  port: //p' /etc/outpost/brain.yaml") == str(PORT)
    closed = on(HOST, "nft list chain inet outpost input")
    assert f"tcp dport {PORT} drop" in closed, "the port that is configured"


def test_the_host_itself_puts_the_firewall_back() -> None:
    on(HOST, "nft delete table inet outpost && systemctl restart nftables.service || true; nft list table inet outpost")
    on(HOST, "nft delete table inet outpost")
    waited = "for n in $(seq 60); do nft list chain inet outpost input 2>/dev/null && break; sleep 1; done"
    assert "tcp dport 11112 drop" in on(HOST, waited)


def test_rules_that_somebody_emptied_or_added_are_seen_by_the_next_look() -> None:
    for broken in (
        "nft flush chain inet outpost input",
        "nft insert rule inet outpost input accept",
        "nft add table inet outpost '{ flags dormant; }'",
        "sed -i 's/4242/4242/; $a # by hand' /etc/outpost/firewall.nft",
    ):
        on(HOST, f"systemctl stop outpost-firewall-watch.timer; {broken}")
        assert on(HOST, "outpost-firewall check || echo other") == "other", broken
        assert "loaded again" in on(HOST, "outpost-firewall heal"), broken
        assert on(HOST, "outpost-firewall check || echo other") == ""
    on(HOST, "sed -i '/# by hand/d' /etc/outpost/firewall.nft; outpost-firewall heal; systemctl start outpost-firewall-watch.timer")


def test_rules_that_nft_refuses_open_no_port() -> None:
    on(HOST, "systemctl stop outpost-firewall-watch.timer; cp -p /etc/outpost/firewall.nft /root/good.nft;"
             " echo 'table inet outpost { nonsense' > /etc/outpost/firewall.nft")  # fmt: skip
    try:
        on(HOST, "systemctl restart outpost-firewall.service", check=False)
        assert "tcp dport 11112 drop" in on(HOST, "nft list chain inet outpost input")
        assert on(HOST, "systemctl is-failed outpost-firewall.service") == "failed", "and it is told"
    finally:
        on(HOST, "mv /root/good.nft /etc/outpost/firewall.nft; systemctl start outpost-firewall.service outpost-firewall-watch.timer")


def test_one_address_cannot_flood_a_port_and_others_are_let_in() -> None:
    """From the machine itself, which is an admin's address here: 2,000 connections at once, none of them kept."""
    rules = on(HOST, "nft list chain inet outpost named")
    assert "limit rate over 50/second burst 500 packets" in rules
    flood = (
        "import socket, sys\nleft = []\nfor n in range(900):\n    s = socket.socket(); s.setblocking(False)\n"
        "    s.connect_ex((sys.argv[1], 8080)); left.append(s)\nimport time; time.sleep(1)\n"
        "print(sum(1 for s in left if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and peer(s)))\n"
    ).replace("import socket, sys\n", "import socket, sys\ndef peer(s):\n    try:\n        return bool(s.getpeername())\n"
              "    except OSError:\n        return False\n")  # fmt: skip
    address = f"{os.environ['LAB_SUBNET']}.0.{ {'chita': 11, 'tver': 12, 'train': 13}[HOST] }"
    import subprocess
    import sys

    let_in = int(subprocess.run([sys.executable, "-c", flood, address], check=True, capture_output=True, text=True).stdout)
    assert 400 <= let_in <= 700, f"{let_in} of 900"


@pytest.fixture
def play(tmp_path: Path) -> Path:
    file = tmp_path / "play.yml"
    file.write_text(PLAY)
    return file


PG = "P=$(ls -d /etc/postgresql/*/main /var/lib/pgsql/*/data 2>/dev/null | head -1);"


@pytest.mark.parametrize(
    ("broken", "mended", "told"),
    [
        (f"{PG} sed -i.good '1i host nonsense' $P/pg_hba.conf", f"{PG} mv $P/pg_hba.conf.good $P/pg_hba.conf",
         "pg_hba.conf:1:"),
        (SQL.format(port=5432, sql="ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1'"),
         SQL.format(port=5432, sql="ALTER SYSTEM RESET ssl_min_protocol_version"),
         "ssl_min_protocol_version is TLSv1 by"),
        (SQL.format(port=5432, sql="ALTER ROLE outpost_recorder VALID UNTIL '2001-01-01'"),
         SQL.format(port=5432, sql="ALTER ROLE outpost_recorder VALID UNTIL 'infinity'"),
         "a login is not let in"),
        (f"{PG} sed -i.good '1i host all all 127.0.0.1/32 reject' $P/pg_hba.conf",
         f"{PG} mv $P/pg_hba.conf.good $P/pg_hba.conf", "a login is not let in"),
    ],
    ids=["a line that the server refuses", "a setting that outweighs", "a login that ended", "a rule before ours"],
)  # fmt: skip
def test_a_database_that_does_not_run_as_written_is_told(play: Path, broken: str, mended: str, told: str) -> None:
    on(HOST, broken)
    try:
        status, said = run(play, HOST, {})
        assert status == 2, said[-3000:]
        assert told in " ".join(said.split()), said[-3000:]
    finally:
        on(HOST, mended)
        on(HOST, SQL.format(port=5432, sql="SELECT pg_reload_conf()"))


def test_a_password_that_somebody_changed_is_the_fleets_again(play: Path) -> None:
    on(HOST, SQL.format(port=5432, sql="ALTER ROLE outpost_recorder PASSWORD 'another' NOLOGIN"))
    status, said = run(play, HOST, {})
    assert status == 0, said[-3000:]
    assert changed(said, HOST) == 1
