"""playbooks/driver_set.yml: a driver set made out of a host, and the role installing another host from it.

Two hosts of one system with real packages, one repository between them; dnf's half is on the RED OS stand-in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import driver_lab as lab
import pytest
import yaml
from driver_lab import NEW, OLD

WORK = lab.WORK / "made-sets"
# What an administrator would type; the libraries come with them. No daemon: these hosts have no init.
WANTED = ["nvidia-smi", "libcuda1", "libnvcuvid1"]


class Host:
    """A container of a stand-in with a directory as its repository."""

    def __init__(self, name: str, image: str) -> None:
        self.name = f"drivers-set-{name}"
        subprocess.run(["docker", "rm", "-f", self.name], capture_output=True, check=False)
        command = ["docker", "run", "-d", "--name", self.name, "--entrypoint", "sleep", image, "infinity"]
        subprocess.run(command, check=True, capture_output=True)

    def on(self, script: str, *, check: bool = True) -> str:
        command = ["docker", "exec", "-e", "DEBIAN_FRONTEND=noninteractive", "-e", "LC_ALL=C", self.name]
        done = subprocess.run(
            [*command, "bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout[-4000:]}"
        return done.stdout

    def put(self, source: Path, target: str) -> None:
        self.on(f"rm -rf {target} && mkdir -p {Path(target).parent}")
        subprocess.run(["docker", "cp", source, f"{self.name}:{target}"], check=True, capture_output=True)

    def offer(self, *folders: Path) -> None:
        """The repository holds these directories' packages and nothing else."""
        self.on("rm -rf /srv/repo && mkdir -p /srv/repo")
        for folder in folders:
            self.put(folder, f"/srv/repo/{folder.name}")
        if self.on("command -v dnf", check=False):
            repository = "[drivers]\nname=drivers\nbaseurl=file:///srv/repo\ngpgcheck=0\nmetadata_expire=0\n"
            self.on(f"createrepo_c -q /srv/repo && printf '{repository}' > /etc/yum.repos.d/drivers.repo")
            return
        self.on("""
        cd /srv/repo && for deb in */*.deb; do
            dpkg-deb -f $deb; echo "Filename: $deb"; echo "Size: $(stat -c %s $deb)"
            echo "SHA256: $(sha256sum $deb | cut -d' ' -f1)"; echo
        done > Packages
        """)
        self.on(
            "echo 'deb [trusted=yes] file:/srv/repo ./' > /etc/apt/sources.list.d/drivers.list && apt-get update -q"
        )

    def play(self, path: str, *more: str, **variables: object) -> tuple[int, int, str]:
        """Exit code, number of changes, all it said as one line."""
        host = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": self.name,
            "ansible_become": False,
        }
        inventory = WORK / "hosts.yml"
        inventory.write_text(json.dumps({"region": {"hosts": {"here": host}}}))
        command = ["ansible-playbook", "-i", inventory, path, *more, "-e", json.dumps(variables)]
        done = subprocess.run(
            command, cwd=lab.ROOT, env=lab.ENVIRONMENT, text=True, capture_output=True, check=False
        )
        recap = next((line for line in done.stdout.splitlines() if line.startswith("here ")), "changed=-1 ")
        changed = int(recap.split("changed=")[1].split()[0])
        return done.returncode, changed, " ".join((done.stdout + done.stderr).split())

    def make(self, name: str, *more: str, **variables: object) -> tuple[int, int, str]:
        return self.play("playbooks/driver_set.yml", *more, nvidia_driver_set=name, **variables)

    def role(self, name: str, *more: str) -> tuple[int, int, str]:
        return self.play(
            "tests/drivers/driver.yml", *more, nvidia_driver_managed=True, nvidia_driver_set=name,
            nvidia_driver_sets_file=str(WORK / f"driver-sets/{name}.yml"),
            nvidia_driver_repository=str(WORK / f"driver-sets/{name}"),
        )  # fmt: skip

    def versions(self) -> dict[str, str]:
        ask = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' | grep ' installed$' | cut -d' ' -f1,2"
        if self.on("command -v dnf", check=False):
            ask = "rpm -qa --qf '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\\n'"
        return dict(line.split() for line in self.on(ask).splitlines())


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    lab.lab_store().ensure(["ubuntu", "redos"])


def running(name: str, image: str) -> Iterator[Host]:
    host = Host(name, lab.lab_store().tag(image))
    yield host
    subprocess.run(["docker", "rm", "-f", host.name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def first() -> Iterator[Host]:
    """Somebody installed the older driver here by hand."""
    for host in running("first", "ubuntu"):
        host.on("apt-get update -q")
        host.offer(lab.sets("tver")[OLD])
        host.on(f"apt-get install -y --no-install-recommends {' '.join(WANTED)}")
        yield host


@pytest.fixture(scope="module")
def second() -> Iterator[Host]:
    """Another host of the same system; its repository has no driver."""
    for host in running("second", "ubuntu"):
        host.on("apt-get update -q")
        yield host


@pytest.fixture(scope="module")
def rpm() -> Iterator[Host]:
    for host in running("rpm", "redos"):
        host.offer(lab.sets("train")[OLD])
        yield host


def made(name: str) -> dict[str, Any]:
    """The set as written, after a look at whether each of its files is here."""
    described = yaml.safe_load((WORK / f"driver-sets/{name}.yml").read_text())["nvidia_driver_sets"][name]
    files = {path.name for path in (WORK / "driver-sets" / name).iterdir()}
    assert files == {package["file"] for package in described["packages"]}
    return dict(described)


def test_a_dry_run_says_what_the_set_would_hold_and_writes_nothing(first: Host) -> None:
    code, changed, said = first.make("dry", "--check")
    assert (code, changed) == (0, 0), said[-3000:]
    for name in WANTED:
        assert f"{name} 535." in said
    assert not (WORK / "driver-sets/dry.yml").exists()
    assert first.on("ls /var/tmp") == ""


def test_a_set_of_what_is_installed_names_it_exactly_and_is_adopted_without_a_change(
    first: Host, record_property: Callable[[str, object], None]
) -> None:
    before = first.versions()
    record_property("driver", before["libcuda1"])
    code, _, said = first.make("found-535")
    assert code == 0, said[-3000:]
    described = made("found-535")
    assert described["driver"] == before["libcuda1"].split("-")[0]
    assert described["platforms"] == ["ubuntu-24.04"]
    driver = {path.name.split("_")[0] for path in lab.sets("tver")[OLD].iterdir()}
    assert {p["name"]: p["version"] for p in described["packages"]} == {
        name: version for name, version in before.items() if name in driver
    }
    assert first.versions() == before
    assert first.on("ls /var/tmp") == ""

    code, _, said = first.role("found-535")
    assert code == 0, said[-3000:]
    assert first.versions() == before
    assert set(first.on("apt-mark showhold").split()) == {p["name"] for p in described["packages"]}
    assert first.role("found-535")[:2] == (0, 0)


def test_a_set_of_what_the_repository_offers_is_made_past_the_lock_of_the_present_one(first: Host) -> None:
    before = first.versions()
    first.offer(lab.sets("tver")[OLD], lab.sets("tver")[NEW])
    code, _, said = first.make("next-550", nvidia_driver_set_packages=WANTED)
    assert code == 0, said[-3000:]
    described = made("next-550")
    assert described["driver"].startswith("550.")
    versions = {p["name"]: p["version"] for p in described["packages"]}
    assert all(versions[name].startswith("550.") for name in WANTED)
    # What it needs of the driver's families comes along, and stays at the version the rest wants.
    assert {"libnvidia-ml1", "libnvidia-ptxjitcompiler1"} <= set(versions)
    assert first.versions() == before, "a host out of which a set is made is not changed"

    code, _, said = first.role("next-550")
    assert code == 0, said[-3000:]
    assert {n: v for n, v in first.versions().items() if n in versions} == versions


def test_a_set_that_is_there_already_is_never_written_over(first: Host) -> None:
    before = (WORK / "driver-sets/found-535.yml").read_text()
    code, _, said = first.make("found-535")
    assert code == 2
    assert "found-535.yml is there already" in said
    assert (WORK / "driver-sets/found-535.yml").read_text() == before


def test_another_host_is_installed_from_the_set_alone(second: Host) -> None:
    code, _, said = second.role("found-535")
    assert code == 0, said[-3000:]
    wanted = {p["name"]: p["version"] for p in made("found-535")["packages"]}
    assert {n: v for n, v in second.versions().items() if n in wanted} == wanted


def test_packages_that_the_distribution_has_dropped_are_named(second: Host) -> None:
    # Here they came from the controller, and the repository never had them; apt keeps no copy of a file given to it.
    second.on("rm -rf /opt/outpost/drivers")
    code, _, said = second.make("lost")
    assert code == 2
    assert "No driver set was made: the files of" in said, said[-2000:]
    assert "libcuda1 535." in said
    assert "A distribution drops old versions" in said
    assert not (WORK / "driver-sets/lost.yml").exists()
    assert second.on("ls /var/tmp") == ""


def test_a_host_without_a_driver_is_told_to_name_packages(rpm: Host) -> None:
    code, _, said = rpm.make("nothing")
    assert code == 2
    assert "none of no package carries a driver's version" in said, said[-2000:]


def test_dnf_makes_a_set_of_what_it_offers_and_the_role_installs_it(rpm: Host) -> None:
    code, _, said = rpm.make("rpm-535", nvidia_driver_set_packages=["nvidia-driver-cuda"])
    assert code == 0, said[-3000:]
    described = made("rpm-535")
    assert described["driver"].startswith("535.")
    code, _, said = rpm.role("rpm-535")
    assert code == 0, said[-3000:]
    wanted = {p["name"]: p["version"] for p in described["packages"]}
    assert {n: v for n, v in rpm.versions().items() if n in wanted} == wanted
    code, _, said = rpm.make("rpm-found")
    assert code == 0, said[-3000:]
    assert {p["name"]: p["version"] for p in made("rpm-found")["packages"]} == wanted
