"""A region after site.yml: what a study, an admin and a power cut would find. Reads the running host, not our files."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
import urllib.error
from hashlib import sha256
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from conftest import (
    ADDRESSES,
    API,
    HOSPITAL,
    ORTHANC,
    ROOT,
    TLS,
    dicom_tls,
    http_json,
    lab,
    psql,
    psql_program,
    send_head_series,
    send_packaged,
    study_end,
    token,
    wait_for,
)
from testinfra.host import Host

from outpost.demo import TEMPLATES
from outpost.demo.dice import LEAST, dice_of_segmentation
from outpost.records.recorder import study_key

PLATFORM = {"chita": ("ubuntu", "24.04"), "tver": ("astra", "1.8"), "train": ("redos", "8")}
PYDICOM = Path(pydicom.__file__).parent / "data/test_files"
# What is no study for the model, in real images that pydicom carries: known by name, and by the lab's own rule set.
GARBAGE: list[tuple[str, str, dict[str, str]]] = [
    ("LOCALIZER", "dicomdirtests/98892001/CT2N/*", {}),
    ("SITE_NOT_FOR_AI", "MR_small.dcm", {"SeriesDescription": "T1 - not for AI"}),
]
REPORTS = ROOT / ".preflight" / os.environ["LAB_NAME"]
UNITS = ["docker.service", "outpost-firewall.service", "outpost@brain.service"]


def test_the_host_is_the_system_the_scenario_says(region: str, host: Host) -> None:
    os_release = dict(
        line.split("=", 1) for line in host.file("/etc/os-release").content_string.split("\n") if "=" in line
    )
    wanted_id, wanted_release = PLATFORM[region]
    assert os_release["ID"].strip('"') == wanted_id
    assert os_release["VERSION_ID"].strip('"').startswith(wanted_release)
    assert host.exists("apt-get") == (wanted_id != "redos"), "the RED OS host must not have apt"


def test_the_verdict_lies_on_the_controller(region: str) -> None:
    verdict = json.loads((REPORTS / f"{region}.json").read_text())
    assert verdict["level"] != "critical"
    assert (verdict["platform"]["id"], verdict["platform"]["release"]) == PLATFORM[region]
    assert {line["code"] for line in verdict["lines"]} >= {"memory", "cores", "disk", "clock", "port-free"}
    assert f'href="{region}.html"' in (REPORTS / "index.html").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_each_unit_runs_and_starts_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_the_clock_is_kept_from_boot_on(region: str, host: Host) -> None:
    unit = "chronyd.service" if region == "train" else "chrony.service"
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_the_service_answers_ready(region: str) -> None:
    def ready() -> bool:
        http_json(f"{API[region]}/v2/health/ready")
        return True

    wait_for(f"readiness of {region}", ready, 30)


def test_the_database_takes_the_recorder(host: Host) -> None:
    config = host.run("cat /etc/outpost/brain.yaml").stdout
    password = json.loads(next(line for line in config.splitlines() if "password:" in line).split(":", 1)[1])
    client = f"{psql_program(host)} -h 127.0.0.1 -U outpost_recorder -d outpost -Atc"
    answer = host.run(f"PGPASSWORD={password} {client} 'SELECT count(*) >= 0 FROM outpost.studies'")
    assert answer.stdout.strip() == "t", answer.stderr


def test_a_study_passes_and_its_mask_is_right(region: str, host: Host, tmp_path: Path) -> None:
    study_uid = send_head_series(region, f"verify {time.time_ns()}", tmp_path / "series")
    end = study_end(region, study_uid)
    assert end["state"] == "delivered", end
    assert (end["engine"], end["precision"], end["rung"]) != (None, None, None), (
        "a result must say how it was made"
    )

    query = json.dumps({"Level": "Instance", "Query": {"StudyInstanceUID": study_uid, "Modality": "SEG"}})
    found = json.loads(
        subprocess.run(
            ["curl", "-sf", f"{ORTHANC}/tools/find", "-d", query], check=True, capture_output=True
        ).stdout
    )
    assert len(found) == 1, "the PACS must hold exactly one segmentation of the study"
    segmentation = tmp_path / "seg.dcm"
    subprocess.run(["curl", "-sf", f"{ORTHANC}/instances/{found[0]}/file", "-o", segmentation], check=True)
    assert dice_of_segmentation(segmentation, TEMPLATES / "ch2bet.nii.gz") >= LEAST

    def recorded() -> bool:
        rows = psql(
            host,
            "outpost",
            "SELECT count(*), coalesce(bool_or(partial OR doubtful), false) FROM fleet_export.studies_v2"
            " WHERE outcome = 'delivered'",
        )
        return not rows.startswith("0|") and rows.endswith("|f")

    wait_for("the study in the region's database", recorded, 30)


def test_the_rule_set_of_the_inventory_judges(region: str) -> None:
    digest = sha256((ROOT / "inventories/lab/rules/brain.yaml").read_bytes()).hexdigest()

    def judges() -> bool:
        checks = http_json(f"{API[region]}/health/light")["checks"]
        found = next(check for check in checks if check["code"] == "FILTER_RULES")
        assert found["value"] == digest[:12], found
        return True

    wait_for("the rule set of the inventory", judges, 10)


@pytest.mark.parametrize(("code", "pattern", "changes"), GARBAGE, ids=[one[0] for one in GARBAGE])
def test_garbage_is_rejected_with_its_reason_and_kept(
    region: str, host: Host, tmp_path: Path, code: str, pattern: str, changes: dict[str, str]
) -> None:
    images = sorted(PYDICOM.glob(pattern))
    assert images
    study_uid = send_packaged(region, images, tmp_path / "garbage", **changes)
    end = study_end(region, study_uid, 60)
    assert (end["state"], end["reason"]) == ("rejected", code), end
    assert end["meaning"] or code.startswith("SITE_"), end

    kept = host.run(f"find /var/lib/outpost/brain/quarantine/{code}/{study_uid}.r1 -type f").stdout.split()
    assert len(kept) == len(images), "a rejected study stays on disk whole"

    config: dict[str, Any] = yaml.safe_load(host.run("cat /etc/outpost/brain.yaml").stdout)
    key = study_key(config["records"]["uid_key"], study_uid)
    row = f"SELECT outcome, reason, instances FROM outpost.studies WHERE study_key = '{key}'"
    wanted = f"rejected|{code}|{len(images)}"
    wait_for(f"{wanted} in the region's database", lambda: psql(host, "outpost", row) == wanted, 30)


def test_the_database_is_closed_to_the_hospital(region: str) -> None:
    with pytest.raises(OSError), socket.create_connection((ADDRESSES[region], 5432), timeout=2):
        pass


def test_secrets_are_readable_by_the_service_alone(host: Host) -> None:
    config = host.file("/etc/outpost/brain.yaml")
    assert (config.mode, config.user, config.group) == (0o640, "root", "outpost")


@pytest.mark.parametrize(
    "path", ["/", "/studies", "/events", "/metrics", "/quarantine", "/drift", "/docs", "/nothing"]
)
def test_without_a_token_nothing_but_health_is_told(region: str, path: str) -> None:
    for bearer in ("", "guessed", token("centre")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            http_json(f"{API[region]}{path}", bearer)
        # Somebody who guesses is slowed.
        assert refused.value.code in ((401, 429) if bearer else (401,))
        refused.value.close()


def test_a_token_that_reads_does_not_show_who_a_patient_is(region: str) -> None:
    for role, status in (("read", 403), ("send", 403), ("admin", 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            http_json(f"{API[region]}/quarantine/study-0/identity", token(region, role))
        assert refused.value.code == status, role
        refused.value.close()


def test_the_administrators_token_lies_with_root_alone_and_in_no_configuration(
    region: str, host: Host
) -> None:
    file = host.file("/etc/outpost/brain.token")
    assert (file.mode, file.user, file.group) == (0o600, "root", "root")
    assert file.content_string.strip() == token(region, "admin")
    config = host.file("/etc/outpost/brain.yaml").content_string
    for role in ("read", "send", "admin"):
        assert token(region, role) not in config


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("STRANGER", "OUTPOST", "Calling AE Title Not Recognized"),
        ("VERIFY", "ANY-SCP", "Called AE Title Not Recognized"),
    ],
)
def test_who_is_not_known_or_does_not_mean_us_is_not_let_in(
    region: str, calling: str, called: str, reason: str
) -> None:
    names = ["-v", "--aetitle", calling, "--call", called]
    answer = echo(*names, *dicom_tls(), HOSPITAL[region])
    assert answer.returncode != 0
    assert reason in answer.stdout + answer.stderr


def echo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/echoscu", *arguments, "11112"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif("dicom" not in TLS, reason="this scenario's DICOM is plain, as most hospitals' is")
@pytest.mark.parametrize(
    "how", [[], ["--anonymous-tls", "--ignore-peer-cert"]], ids=["plain", "no certificate"]
)
def test_dicom_is_spoken_with_those_alone_who_have_a_certificate_of_the_fleet(
    region: str, how: list[str]
) -> None:
    names = ["--aetitle", "VERIFY", "--call", "OUTPOST"]
    refused = echo(*names, *how, HOSPITAL[region])
    assert refused.returncode != 0, refused.stdout
    let_in = echo(*names, *dicom_tls(), HOSPITAL[region])
    assert let_in.returncode == 0, let_in.stderr


@pytest.mark.skipif("api" not in TLS, reason="this scenario's API is plain")
def test_the_api_is_spoken_over_tls_alone(region: str) -> None:
    with pytest.raises(OSError):
        http_json(f"http://{ADDRESSES[region]}:8080/v2/health/live")
    assert http_json(f"{API[region]}/v2/health/live") is not None


def reached(sender: str, address: str, port: int) -> bool:
    """Whether another host of the lab gets a TCP connection."""
    probe = f"timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo open || echo closed"
    return lab("exec", sender, "--", "bash", "-c", probe).strip() == "open"


def test_no_port_is_open_to_a_host_that_is_not_named(region: str) -> None:
    """The mirror is in the VPN and is neither the centre nor an admin's."""
    for port in (11112, 8080, 5432):
        assert not reached("mirror", ADDRESSES[region], port), port


def test_the_hospital_reaches_dicom_and_api_and_not_the_database(region: str) -> None:
    assert {port: reached("hospital", HOSPITAL[region], port) for port in (11112, 8080, 5432)} == {
        11112: True, 8080: True, 5432: False,
    }  # fmt: skip


def test_the_rules_close_a_port_by_both_families(host: Host) -> None:
    rules = host.run_expect([0], "nft list table inet outpost").stdout
    for port in (11112, 8080, 5432):
        assert f"tcp dport {port} drop" in rules, rules


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_the_database_takes_nobody_unencrypted(host: Host, address: str) -> None:
    for user in ("outpost_recorder", "fleet_reader", "postgres"):
        link = f"host={address} user={user} dbname=outpost sslmode=disable connect_timeout=5"
        answer = host.run(
            f"LC_ALL=C PGPASSWORD=guessed {psql_program(host)} {shlex.quote(link)} -Atc 'SELECT 1'"
        )
        assert answer.rc != 0
        without_ipv6 = address == "::1" and "Cannot assign requested address" in answer.stderr
        assert "no encryption" in answer.stderr or without_ipv6, answer.stderr


def test_the_database_proves_itself_by_the_fleets_authority(region: str, host: Host) -> None:
    def asked(address: str) -> str:
        link = (
            f"host={address} user=fleet_reader dbname=outpost sslmode=verify-full"
            " sslrootcert=/etc/outpost/tls/fleet-ca.pem connect_timeout=5"
        )
        return str(
            host.run(
                f"LC_ALL=C PGPASSWORD=guessed {psql_program(host)} {shlex.quote(link)} -Atc 'SELECT 1'"
            ).stderr
        )

    # Past the certificate, and then the password is wrong.
    assert "password authentication failed" in asked(ADDRESSES[region])
    assert "password authentication failed" in asked("127.0.0.1")
    assert "does not match host name" in asked("127.0.0.2")


def test_keys_are_readable_by_their_service_alone(host: Host) -> None:
    found = host.run(
        "stat -c '%a %U' /etc/postgresql/*/main/outpost.pem /var/lib/pgsql/*/data/outpost.pem"
    ).stdout
    assert found.split() == ["600", "postgres"]
    if TLS != [""]:
        key = host.file("/etc/outpost/tls/fleet.pem")
        assert (key.mode, key.user, key.group) == (0o640, "root", "outpost")


def test_the_container_can_do_no_more_than_it_needs(host: Host) -> None:
    inspected = json.loads(host.run("docker inspect outpost-brain").stdout)[0]
    assert inspected["Config"]["User"] == "10001:10001"
    assert inspected["HostConfig"]["ReadonlyRootfs"] is True
    assert inspected["HostConfig"]["CapDrop"] == ["ALL"]
    assert inspected["HostConfig"]["Memory"] == 4096 * 2**20


def test_a_killed_container_comes_back_ready(region: str, host: Host) -> None:
    host.run_expect([0], "docker kill outpost-brain")

    def gone() -> bool:
        try:
            http_json(f"{API[region]}/v2/health/live")
        except (urllib.error.URLError, OSError):
            return True
        return False

    wait_for("the killed service to be gone", gone, 10)
    wait_for(
        "the service to be ready again",
        lambda: http_json(f"{API[region]}/v2/health/ready") is not None,
        90,
    )


# How fast this machine is at the moment: another scenario computes beside this one.
OF_THE_MOMENT = {"GOLDEN_SPEED", "GOLDEN_CRAWLS", "SYNC_PROMPT"}


def test_the_systems_own_verdict_finds_nothing_wrong(region: str) -> None:
    """What preflight let pass, the running service must not complain of: both count the same shares."""

    def nothing_wrong() -> bool:
        verdict = http_json(f"{API[region]}/health/light")
        wrong = [check for check in verdict["checks"] if not check["ok"]]
        assert [check for check in wrong if check["code"] not in OF_THE_MOMENT] == []
        assert wrong or verdict["status"] == "ok", verdict["status"]
        return True

    # The container was killed just before: its database and its destinations are asked again in time.
    wait_for(f"a verdict of {region} without a fault", nothing_wrong, 60)


def test_the_journal_is_bounded(host: Host) -> None:
    settings = host.run("systemd-analyze cat-config systemd/journald.conf").stdout
    assert "SystemMaxUse=1G" in settings
    assert "Storage=persistent" in settings


def test_the_clock_stands_in_the_regions_zone(region: str, host: Host) -> None:
    zones = {"chita": "Asia/Chita", "tver": "Europe/Moscow", "train": "Asia/Krasnoyarsk"}
    assert host.file("/etc/localtime").linked_to == f"/usr/share/zoneinfo/{zones[region]}"
