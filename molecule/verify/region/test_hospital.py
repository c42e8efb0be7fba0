"""What the hospital had set on its server (molecule/prepared) is there after site.yml, and ours beside it."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import ROOT
from testinfra.host import Host

OF_HOSPITAL = {
    "data-root": "/var/lib/docker/hospital",
    "registry-mirrors": ["http://mirror.hospital.invalid:5000"],
    "log-driver": "local",
    "bip": "10.253.7.1/24",
    "debug": False,
}


@pytest.fixture(autouse=True)
def of_prepared_hosts(region: str) -> None:
    if region == "tver":
        pytest.skip("nothing of a hospital's is prepared there")


def test_dockers_settings_are_the_hospitals_and_ours(region: str, host: Host) -> None:
    if region != "chita":
        pytest.skip("its Docker has no settings of the hospital's")
    file = host.file("/etc/docker/daemon.json")
    assert file.is_symlink, "a link stays one"
    assert host.file("/srv/hospital/daemon.json").mode == 0o640
    assert json.loads(file.content_string) == {**OF_HOSPITAL, "live-restore": True}
    assert host.run("ls /srv/hospital/daemon.json.*~").stdout.split(), "a copy of the file as it was"
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert (info["DockerRootDir"], info["LoggingDriver"]) == ("/var/lib/docker/hospital", "local")
    assert info["LiveRestoreEnabled"], "what runs is what is written"
    assert "10.253.7.1" in host.run("ip -4 address show docker0").stdout


def test_the_hospitals_time_server_stays(region: str, host: Host) -> None:
    config = "/etc/chrony/chrony.conf" if region == "chita" else "/etc/chrony.conf"
    text = host.file(config).content_string
    assert text.startswith("# The hospital's own.\nserver ntp.hospital.invalid iburst\n")
    assert "local stratum" not in text


def test_the_journal_is_kept_as_long_as_the_hospital_says(region: str, host: Host) -> None:
    if region != "chita":
        pytest.skip("its journal has the distribution's settings")
    ours = host.file("/etc/systemd/journald.conf.d/outpost.conf").content_string
    assert "MaxRetentionSec" not in ours
    assert "SystemMaxUse=1G" in ours


def test_dnf_automatic_leaves_alone_what_must_not_move(region: str, host: Host) -> None:
    """Asked of dnf itself, with the settings that dnf-automatic reads: what would it take?"""
    if region != "train":
        pytest.skip("there is no dnf")
    program = (
        "import dnf, dnf.automatic.main as automatic; base = dnf.Base(); base.conf.read();"
        "found = automatic.AutomaticConfig('/etc/dnf/automatic.conf');"
        "found.update_baseconf(base.conf); print(found.commands.apply_updates, *base.conf.excludepkgs)"
    )
    answer = host.run_expect([0], f'python3 -c "{program}"').stdout.split()
    assert answer[0] == "True", "the hospital's wish to have updates stays"
    assert "his-pacs*" in answer
    assert {"docker*", "containerd*", "postgresql*", "nvidia-*", "kernel*"} <= set(answer)


def test_preflight_names_whose_listener_is_on_a_port_of_ours(region: str, host: Host) -> None:
    """Strangers of every kind on the host that runs our service: process, published container, cluster."""
    if region != "chita":
        pytest.skip("asked once")
    image = json.loads(host.file("/opt/outpost/current/manifest.json").content_string)["image"]["id"]
    version = host.run("ls /etc/postgresql").stdout.split()[0]
    host.run_expect([0], "systemd-run --unit=his-viewer python3 -m http.server 9996 --bind ::")
    host.run_expect([0], f"docker run -d --rm --name his-archive -p 9997:80 --entrypoint sleep {image} 300")
    host.run_expect([0], f"pg_createcluster -p 5440 {version} his --start")
    host.run_expect([0], "su postgres -c 'createdb -p 5440 pacs'")
    asked = {
        "preflight_extra_ports": {"a.service": 9996, "b.service": 9997},
        "preflight_database_port": 5440, "outpost_language": "en", "preflight_report_directory": "",
    }  # fmt: skip
    command = ["ansible-playbook", "-i", "inventories/lab", "playbooks/preflight.yml", "-l", region]
    try:
        done = subprocess.run(
            [*command, "-e", json.dumps(asked)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )  # fmt: skip
    finally:
        host.run("systemctl stop his-viewer; docker rm -f his-archive")
        host.run(f"pg_dropcluster --stop {version} his")
    said = " ".join(done.stdout.split())
    assert done.returncode == 2, said[-3000:]
    stops = [line for line in done.stdout.splitlines() if "[port-free]" in line and "STOP" in line]
    assert len(stops) == 3, stops
    for named in (
        "his-viewer.service",
        "container his-archive",
        f"cluster /var/lib/postgresql/{version}/his",
    ):
        assert named in said, named
    for ours in ("11112 held by our own outpost@brain.service", "8080 held by our own outpost@brain.service"):
        assert ours in said, ours
