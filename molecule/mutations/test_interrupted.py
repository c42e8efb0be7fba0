"""A run that breaks off, and a hand that changed what runs: the next run sees it, or says why it cannot be so.

Each cut is between a file that was written and the moment when something runs on it. `make test-cuts` cuts at every
task.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cutting import ROOT, changed, on, run, was_cut

HOST = os.environ["OUTPOST_LIMIT"].split(",")[0]
ADDRESS = f"{os.environ['LAB_SUBNET']}.0.{ {'chita': 11, 'tver': 12, 'train': 13}[HOST] }"
PORT = 5433
# What the inventory says all of a sudden.
OTHERWISE: dict[str, Any] = {
    "outpost_ntp_servers": ["10.255.255.1"],
    "base_journal_max": "900M",
    "outpost_firewall_ports": [{"port": 4711, "from": []}],
    "container_runtime_insecure_registries": ["10.255.255.1:5000"],
    "postgresql_settings": {"max_connections": 97},
    "postgresql_port": PORT,
    "inference_quiet_seconds": 4,
}
_PSQL = (
    "cd / && sudo -u postgres $(ls /usr/pgsql-*/bin/psql /usr/bin/psql 2>/dev/null | head -1)"
    ' -p {port} -d outpost -Atc "{sql}"'
)
_PG = "P=$(ls -d /etc/postgresql/*/main /var/lib/pgsql/*/data 2>/dev/null | head -1);"
_UNWATCHED = "systemctl stop outpost-firewall-watch.timer; "
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
      {{{{ [(hostvars[inventory_hostname] | outpost_region).address, inventory_hostname, 'localhost', '127.0.0.1',
      '::1'] + outpost_certificate_names | default([]) }}}}
"""


class Cut(NamedTuple):
    """After which task, and what on the host says that something runs on the file, and what it says then."""

    after: str
    probe: str
    wanted: str


def sql(text: str, port: int = 5432) -> str:
    return _PSQL.format(port=port, sql=text)


def newer(moment: str, file: str) -> str:
    """Says "new" where something has started after a file changed."""
    return f'[ $(date +%s -d "{moment}") -ge $(stat -c %Z {file}) ] && echo new'


CUTS = [
    Cut("Write the settings of the host", "chronyc -n sources | grep -c 10.255.255.1", "1"),
    Cut(
        "Write the settings of the host",
        newer(
            "$(systemctl show --value -p ActiveEnterTimestamp systemd-journald)",
            "/etc/systemd/journald.conf.d/outpost.conf",
        ),
        "new",
    ),
    Cut("Write the settings of the host", "nft list chain inet outpost input | grep -c 4711", "1"),
    Cut(
        "Merge ours into Docker's settings, with a copy of the file as it was beside it",
        "docker info 2>/dev/null | grep -c 10.255.255.1",
        "1",
    ),
    Cut("Write the settings", sql("SHOW max_connections", PORT), "97"),
    Cut(
        "Write the systems' configuration|Write what holds secrets",
        newer("$(docker inspect -f '{{.State.StartedAt}}' outpost-brain)", "/etc/outpost/brain.yaml"),
        "new",
    ),
    Cut(
        "Write the systems' share of the host and their unit",
        "systemctl show --value -p RestartUSec -p NeedDaemonReload outpost@brain | sort | xargs",
        "5s no",
    ),
]


# Of the cuts and of what breaks a database each host has its turn; `make test-cuts` has all of them everywhere.
_HOSTS = ("chita", "tver", "train")
TURN = _HOSTS.index(HOST)


def in_turn(number: int) -> bool:
    """Whether it is this host's turn."""
    return number % len(_HOSTS) == TURN


def test_the_host_itself_puts_the_firewall_back() -> None:
    listed = "nft list chain inet outpost input"
    # `flush ruleset`, which that unit does, takes the lab's own name server along: only the table goes here.
    on(
        HOST,
        f"nft delete table inet outpost; for n in $(seq 60); do {listed} 2>/dev/null && break; sleep 1; done",
    )
    assert "tcp dport 11112 drop" in on(HOST, listed)


@pytest.mark.parametrize(
    "broken",
    [
        "nft flush chain inet outpost input",
        "nft insert rule inet outpost input accept",
        "nft add table inet outpost '{ flags dormant; }'",
        "nft delete table inet outpost",
        "echo '# by hand' >> /etc/outpost/firewall.nft",
    ],
)
def test_rules_that_are_not_those_of_the_file_are_seen_and_loaded_again(broken: str) -> None:
    try:
        on(HOST, _UNWATCHED + broken)
        assert on(HOST, "outpost-firewall check || echo other") == "other"
        assert "loaded again" in on(HOST, "outpost-firewall heal")
        assert on(HOST, "outpost-firewall check || echo other") == ""
        assert "tcp dport 11112 drop" in on(HOST, "nft list chain inet outpost input")
    finally:
        on(
            HOST,
            "sed -i '/# by hand/d' /etc/outpost/firewall.nft; systemctl start outpost-firewall-watch.timer",
        )


def test_rules_that_nft_refuses_open_no_port() -> None:
    on(HOST, f"{_UNWATCHED} cp -p /etc/outpost/firewall.nft /root/good.nft")
    try:
        on(HOST, "echo 'table inet outpost { nonsense' > /etc/outpost/firewall.nft")
        on(HOST, "systemctl restart outpost-firewall.service", check=False)
        assert on(HOST, "systemctl is-failed outpost-firewall.service") == "failed", "it is told"
        assert "tcp dport 11112 drop" in on(HOST, "nft list chain inet outpost input")
    finally:
        on(HOST, "mv /root/good.nft /etc/outpost/firewall.nft")
        on(HOST, "systemctl start outpost-firewall.service outpost-firewall-watch.timer")


def test_one_address_cannot_flood_a_port() -> None:
    """900 connections at once, to a port where nobody listens: whoever is let in is refused at once, others wait."""
    on(HOST, f"{_UNWATCHED} nft add rule inet outpost input tcp dport 4712 jump named")
    sockets = [socket.socket() for _ in range(900)]
    try:
        for one in sockets:
            one.setblocking(False)
            one.connect_ex((ADDRESS, 4712))
        time.sleep(0.9)  # less than a second, after which TCP repeats itself
        refused = [
            one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED for one in sockets
        ]
        assert 450 <= sum(refused) <= 750, sum(refused)
    finally:
        for one in sockets:
            one.close()
        on(HOST, "outpost-firewall heal; systemctl start outpost-firewall-watch.timer")


@pytest.fixture
def play(tmp_path: Path) -> Path:
    file = tmp_path / "play.yml"
    file.write_text(PLAY)
    return file


# What breaks it, how that is mended, and what the run says.
BROKEN = {
    "a line that is refused": (
        f"{_PG} sed -i.good '1i host nonsense' $P/pg_hba.conf",
        f"{_PG} mv $P/pg_hba.conf.good $P/pg_hba.conf",
        "pg_hba.conf:1:",
    ),
    "a setting that outweighs": (
        sql("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1'"),
        sql("ALTER SYSTEM RESET ssl_min_protocol_version"),
        "ssl_min_protocol_version is TLSv1 by",
    ),
    "a login that ended": (
        sql("ALTER ROLE outpost_recorder VALID UNTIL '2001-01-01'"),
        sql("ALTER ROLE outpost_recorder VALID UNTIL 'infinity'"),
        "a login is not let in",
    ),
    "a rule before ours": (
        f"{_PG} sed -i.good '1i host all all 127.0.0.1/32 reject' $P/pg_hba.conf",
        f"{_PG} mv $P/pg_hba.conf.good $P/pg_hba.conf",
        "a login is not let in",
    ),
}


@pytest.mark.parametrize("name", [name for number, name in enumerate(BROKEN) if in_turn(number)])
def test_a_database_that_does_not_run_as_written_is_told(play: Path, name: str) -> None:
    broken, mended, told = BROKEN[name]
    on(HOST, broken)
    try:
        status, said = run(play, HOST, {})
        assert status == 2, said[-3000:]
        assert told in " ".join(said.split()), said[-3000:]
    finally:
        on(HOST, mended)
        on(HOST, sql("SELECT pg_reload_conf()"))


def test_a_password_that_somebody_changed_is_the_fleets_again(play: Path) -> None:
    on(HOST, sql("ALTER ROLE outpost_recorder PASSWORD 'another' NOLOGIN"))
    status, said = run(play, HOST, {})
    assert status == 0, said[-3000:]
    assert changed(said, HOST) == 1


def test_a_run_that_breaks_off_is_made_up_for_by_the_next() -> None:
    """The last one: the host stays as the inventory said all of a sudden."""
    # As if the release before had another unit, on which systemd still runs the system.
    unit = "/etc/systemd/system/outpost@.service"
    on(HOST, f"sed -i 's/^RestartSec=5/RestartSec=9/' {unit} && systemctl daemon-reload")
    for number, after in enumerate(dict.fromkeys(cut.after for cut in CUTS)):
        if not in_turn(number):
            continue
        # Twice a minute the host itself would load what was written.
        on(HOST, "systemctl stop outpost-firewall-watch.timer")
        status, said = run("playbooks/region.yml", HOST, OTHERWISE, cut=after)
        assert was_cut(status), f"{after}: not cut there\n{said[-3000:]}"
        runs = [
            cut.probe for cut in CUTS if cut.after == after and on(HOST, cut.probe, check=False) == cut.wanted
        ]
        assert runs == [], f"{after}: it runs already"

    status, said = run("playbooks/region.yml", HOST, OTHERWISE)
    assert status == 0, said[-3000:]
    assert changed(said, HOST) > 0, "it must not say that there was nothing to do"
    found = {cut.probe: on(HOST, cut.probe, check=False) for cut in CUTS}
    assert found == {cut.probe: cut.wanted for cut in CUTS}
    assert on(HOST, "sed -n '/^records:/,/^api:/s/^  port: //p' /etc/outpost/brain.yaml") == str(PORT)
    assert f"tcp dport {PORT} drop" in on(HOST, "nft list chain inet outpost input"), "as configured"
