"""Breaks what the roles made, one thing at a time: the verify must go red at that test, and green once mended.

A verify that stays green over a broken host proves nothing. Each break is what a role would leave that forgot a step.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = os.environ["OUTPOST_LIMIT"].split(",")
VERIFY = ROOT / "molecule/verify" / ("fleet" if "centre" in LIMIT else "region")


@dataclass(frozen=True)
class Mutation:
    host: str
    what: str
    breaks: str
    seen_by: str
    mend: str
    # What breaks, or what looks, is written otherwise on each system.
    of_each_system: bool = False


_SQL = 'cd / && sudo -u postgres $(ls /usr/pgsql-*/bin/psql /usr/bin/psql 2>/dev/null | head -1) -qd outpost -c "{}"'
_FLEET_SQL = _SQL.replace("-qd outpost", "-qd fleet")
_HBA = "H=$(ls /etc/postgresql/*/main/pg_hba.conf /var/lib/pgsql/*/data/pg_hba.conf 2>/dev/null | head -1);"
_RELOAD = _SQL.format("SELECT pg_reload_conf()").replace("-qd", "-q -o /dev/null -d") + " && sleep 1"
# Without the host's own look at them, which mends within half a minute (test_interrupted.py).
_UNWATCHED = "systemctl stop outpost-firewall-watch.timer && "
_WATCHED = "systemctl start outpost-firewall-watch.timer && systemctl reload outpost-firewall"
# Until somebody listens again after a restart: then these tests ask.
_LISTENS = " && timeout 60 sh -c 'until ss -Hltn sport = :{} | grep -q .; do sleep 0.5; done'"
_API, _PAGE = _LISTENS.format(8080), _LISTENS.format(8090)
_RULES = "/etc/outpost/filter/brain.yaml"
_REGION = LIMIT[-1]
REGION = [
    Mutation(_REGION, "a unit that does not start at boot", "systemctl disable -q outpost@brain",
             "test_each_unit_runs_and_starts_at_boot", "systemctl enable -q outpost@brain"),
    Mutation(_REGION, "a Docker not started at boot", "systemctl disable -q docker.service",
             "test_each_unit_runs_and_starts_at_boot", "systemctl enable -q docker.service"),
    Mutation(_REGION, "a clock nobody keeps", "systemctl stop chronyd.service",
             "test_the_clock_is_kept_from_boot_on", "systemctl start chronyd.service", of_each_system=True),
    Mutation(_REGION, "a journal without bounds", "mv /etc/systemd/journald.conf.d/outpost.conf /root/outpost.conf",
             "test_the_journal_is_bounded", "mv /root/outpost.conf /etc/systemd/journald.conf.d/outpost.conf"),
    Mutation(_REGION, "a service that is not running", "systemctl stop outpost@brain",
             "test_the_service_answers_ready", "systemctl start outpost@brain"),
    Mutation(_REGION, "a recorder with no rights",
             _SQL.format("REVOKE SELECT ON outpost.studies FROM outpost_recorder"),
             "test_the_database_takes_the_recorder",
             _SQL.format("GRANT SELECT ON outpost.studies TO outpost_recorder"), of_each_system=True),
    Mutation(_REGION, "a configuration that sends results nowhere",
             "sed -i.good 's/4242/4249/' /etc/outpost/brain.yaml && systemctl restart outpost@brain",
             "test_a_study_passes",
             "mv /etc/outpost/brain.yaml.good /etc/outpost/brain.yaml && systemctl restart outpost@brain"),
    # As if the role had written nothing: kinds known by name are still left out, what the site wishes is not.
    Mutation(_REGION, "a rule file that is empty",
             f"mv {_RULES} /root/rules.good && install -m 640 -g outpost /dev/null {_RULES} && sleep 4",
             "test_garbage_is_rejected_with_its_reason_and_kept and SITE_NOT_FOR_AI",
             f"mv /root/rules.good {_RULES} && sleep 4"),
    Mutation(_REGION, "rules that the configuration does not name",
             "sed -i.good '/^filter:/,+1d' /etc/outpost/brain.yaml && systemctl restart outpost@brain",
             "test_the_rule_set_of_the_inventory_judges",
             "mv /etc/outpost/brain.yaml.good /etc/outpost/brain.yaml && systemctl restart outpost@brain"),
    Mutation(_REGION, "a firewall that is not loaded", "systemctl stop outpost-firewall",
             "test_the_database_is_closed_to_the_hospital", "systemctl start outpost-firewall"),
    Mutation(_REGION, "a firewall whose rules are empty", _UNWATCHED + "nft flush chain inet outpost input",
             "test_no_port_is_open_to_a_host_that_is_not_named", _WATCHED),
    Mutation(_REGION, "a firewall that somebody's own rule set has taken away", _UNWATCHED + "nft flush ruleset",
             "test_the_rules_close_a_port_by_both_families", "SITE"),
    Mutation(_REGION, "a hospital whose DICOM port is closed",
             _UNWATCHED + "nft insert rule inet outpost input tcp dport 11112 drop",
             "test_the_hospital_reaches_dicom_and_api", _WATCHED),
    Mutation(_REGION, "a database that lets in unencrypted",
             f"{_HBA} sed -i.good 's/^hostnossl.*//; s/^hostssl/host/' $H && {_RELOAD}",
             "test_the_database_takes_nobody_unencrypted", f"{_HBA} mv $H.good $H && {_RELOAD}", of_each_system=True),
    Mutation(_REGION, "a database with a certificate of its own making",
             f"{_HBA} cd $(dirname $H) && cp -p outpost.pem outpost.pem.good && openssl req -x509 -newkey ec -nodes"
             " -pkeyopt ec_paramgen_curve:P-256 -subj /CN=own -keyout /root/k -out /root/c 2>/dev/null &&"
             f" cat /root/c /root/k > outpost.pem && {_RELOAD}",
             "test_the_database_proves_itself",
             f"{_HBA} cd $(dirname $H) && mv outpost.pem.good outpost.pem && {_RELOAD}"),
    Mutation(_REGION, "a database key that others can read", f"{_HBA} chmod 640 $(dirname $H)/outpost.pem",
             "test_keys_are_readable_by_their_service_alone", f"{_HBA} chmod 600 $(dirname $H)/outpost.pem"),
    Mutation(_REGION, "an API that has forgotten its tokens",
             "sed -i.good '/^  tokens: /d; s/^  hosts: .*/&\\n  open: true/' /etc/outpost/brain.yaml"
             f" && systemctl restart outpost@brain{_API}",
             "test_without_a_token_nothing_but_health_is_told",
             f"mv /etc/outpost/brain.yaml.good /etc/outpost/brain.yaml && systemctl restart outpost@brain{_API}"),
    Mutation(_REGION, "a configuration anybody can read", "chmod 644 /etc/outpost/brain.yaml",
             "test_secrets_are_readable_by_the_service_alone", "chmod 640 /etc/outpost/brain.yaml"),
]  # fmt: skip
if "api" in os.environ.get("OUTPOST_LAB_TLS", ""):
    REGION.append(
        Mutation(
            _REGION,
            "an API that speaks plain HTTP",
            "sed -i.good '/^  tls: .*client_certificate/d' /etc/outpost/brain.yaml"
            f" && systemctl restart outpost@brain{_API}",
            "test_the_api_is_spoken_over_tls_alone",
            f"mv /etc/outpost/brain.yaml.good /etc/outpost/brain.yaml && systemctl restart outpost@brain{_API}",
        )
    )
FLEET = [
    Mutation("centre", "a collector that is not running", "systemctl stop outpost-fleet",
             "test_every_region_is_fresh", "systemctl start outpost-fleet"),
    Mutation("centre", "a region that is not attached",
             _FLEET_SQL.format("SELECT fleet.detach_region('chita')"),
             "test_every_region_is_fresh", "SITE"),
    Mutation(_REGION, "a service that may not say how it is",
             _SQL.format("REVOKE INSERT ON outpost.heartbeats FROM outpost_recorder"),
             "test_each_system_says_how_it_is",
             _SQL.format("GRANT INSERT ON outpost.heartbeats TO outpost_recorder")),
    Mutation("centre", "a region whose foreign tables are of the release before",
             _FLEET_SQL.format("ALTER FOREIGN TABLE region_chita.health_v3 RENAME TO away"),
             "test_each_system_says_how_it_is",
             # That attaching makes it again is a test of tests/service/test_fleet_contracts.py; that site.yml attaches,
             # the break above.
             _FLEET_SQL.format("ALTER FOREIGN TABLE region_chita.away RENAME TO health_v3")),
]  # fmt: skip
if "page" in os.environ.get("OUTPOST_LAB_TLS", "").split(","):
    FLEET.append(
        Mutation(
            "centre",
            "a page that speaks plain HTTP",
            f"sed -i.good '/^  tls: .*page/d' /etc/outpost/fleet.yaml && systemctl restart outpost-fleet{_PAGE}",
            "test_the_page_is_spoken_over_tls_alone",
            f"mv /etc/outpost/fleet.yaml.good /etc/outpost/fleet.yaml && systemctl restart outpost-fleet{_PAGE}",
        )
    )


def of_this_scenario(mutations: list[Mutation]) -> list[Mutation]:
    """What breaks alike on every system is broken on one of the three: it is the verify that is tried, and it is one.

    OUTPOST_MUTATIONS=all breaks everything everywhere.
    """
    if os.environ.get("OUTPOST_MUTATIONS") == "all":
        return mutations
    turn = ["chita", "tver", "train"].index(LIMIT[0])
    return [one for number, one in enumerate(mutations) if one.of_each_system or number % 3 == turn]


def verify(test: str, patience: float = 1) -> subprocess.CompletedProcess[str]:
    """One test of the verify; `patience` is the share of its time that it waits."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", test, str(VERIFY)]
    # What fails there is what is looked for, and none of this run's failures.
    environment = {**os.environ, "OUTPOST_VERIFY_PATIENCE": str(patience), "OUTPOST_FAILURES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)


def on(host: str, command: str) -> None:
    subprocess.run([ROOT / "lab/lab", "exec", host, "--", "sh", "-c", command], check=True, timeout=300)


def mend(mutation: Mutation) -> None:
    if mutation.mend == "SITE":
        playbook = ["ansible-playbook", "site.yml", "-l", mutation.host]
        subprocess.run(playbook, cwd=ROOT, check=True, timeout=900, capture_output=True)
    else:
        on(mutation.host, mutation.mend)


@pytest.mark.parametrize(
    "mutation", FLEET if "centre" in LIMIT else of_this_scenario(REGION), ids=lambda mutation: mutation.what
)
def test_the_verify_goes_red_over(mutation: Mutation) -> None:
    on(mutation.host, mutation.breaks)
    try:
        red = verify(mutation.seen_by, patience=0.3)
        noticed = [
            line
            for line in red.stdout.splitlines()
            if line.startswith("FAILED") and mutation.seen_by.split()[0] in line
        ]
        assert red.returncode == 1, f"{mutation.what}: the verify stayed green"
        assert noticed, red.stdout[-3000:] + red.stderr[-2000:]
    finally:
        mend(mutation)
    green = verify(mutation.seen_by)
    assert green.returncode == 0, f"mended, yet still red:\n{green.stdout[-3000:]}"
