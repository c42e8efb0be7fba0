"""The driver role from end to end on this machine, under a layer that takes every write: real dpkg and apt, no network.

The packages are tiny ones with the driver's names; what real ones do is in tests/drivers. The tests are one story in
the order they stand: a later one begins where the one before ended.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded_hosts import ROOT, UBUNTU_2404

FOUND, NEW = "found-535", "site-580"
VERSIONS = {FOUND: "535.261.03", NEW: "580.95.05"}
LAYERED = ("etc", "opt", "usr", "var")


class Host:
    """This machine with its own /etc, /opt, /usr and /var: what is written there lies in memory and goes with it."""

    def __init__(self, layer: Path, work: Path) -> None:
        self.layer, self.work = layer, work
        (work / "os-release").write_text(UBUNTU_2404)

    def on(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        mounts = [
            f"mkdir -p {self.layer}/{name}/up {self.layer}/{name}/work && mount -t overlay overlay"
            f" -o lowerdir=/{name},upperdir={self.layer}/{name}/up,workdir={self.layer}/{name}/work /{name}"
            for name in LAYERED
        ]
        # A role that errs stops no service of this machine and does not reboot it: it finds no systemd.
        mounts.append("mount -t tmpfs tmpfs /run/systemd")
        command = ["unshare", "--mount", "bash", "-c", " && ".join([*mounts, f"{{ {script}\n}}"])]
        command = command if os.geteuid() == 0 else ["sudo", "-n", "-E", *command]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0 or not check, ended.stdout[-4000:] + ended.stderr[-2000:]
        return ended

    def role(self, name: str, *arguments: str, **variables: object) -> tuple[int, int, str]:
        """Exit code, how many tasks changed something, and all that was said as one line."""
        given: dict[str, Any] = {
            "ansible_connection": "local", "ansible_become": False, "nvidia_driver_managed": True,
            "platform_os_release": str(self.work / "os-release"), "nvidia_driver_set": name,
            "nvidia_driver_sets_file": str(self.work / "sets.yml"), "nvidia_driver_repository": str(self.work / name),
            "platform_pci_root": str(self.work / "no-pci"), "nvidia_driver_proc_modules": "/dev/null",
            # Whatever this machine itself has of the driver's families.
            "nvidia_driver_allow": ["*"],
            **variables,
        }  # fmt: skip
        inventory = self.work / "hosts.json"
        inventory.write_text(json.dumps({"region": {"hosts": {"here": given}}}))
        program = str(ROOT / ".venv/bin/ansible-playbook")
        command = shlex.join([program, "-i", str(inventory), "tests/drivers/driver.yml", *arguments])
        ended = self.on(command, check=False)
        recap = next((line for line in ended.stdout.splitlines() if line.startswith("here ")), "")
        changed = int(recap.split("changed=")[1].split()[0]) if recap else -1
        return ended.returncode, changed, " ".join((ended.stdout + ended.stderr).split())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of tiny packages, described by the project's own tool."""
    work = tmp_path_factory.mktemp("driver")
    lines: list[str] = []
    for name, version in VERSIONS.items():
        for package in ("nvidia-smi", "libcuda1"):
            _package(work, work / name, package, version)
        tool = ROOT / "roles/nvidia_driver/files/outpost-driver-set"
        made = subprocess.run(
            [sys.executable, tool, work / name, name, version], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        lines += made[1:] if lines else made
    (work / "sets.yml").write_text("\n".join(lines) + "\n")
    return work


def _package(work: Path, folder: Path, name: str, version: str) -> None:
    tree = work / "tree" / f"{name}-{version}"
    library = tree / f"usr/lib/x86_64-linux-gnu/{name}.so.{version}"
    for path in (tree / "DEBIAN", library.parent, folder):
        path.mkdir(parents=True, exist_ok=True)
    if name.startswith("lib"):
        library.with_name(f"libcuda.so.{version}").touch()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}-1\nArchitecture: amd64\nMaintainer: x <x@x>\nDescription: x\n"
    )
    command = ["dpkg-deb", "--root-owner-group", "-b", tree, folder / f"{name}.deb"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def host(work: Path) -> Iterator[Host]:
    """A host on which somebody installed a driver by hand, and whose repositories do not answer."""
    layer = Path(tempfile.mkdtemp(prefix="outpost-driver-", dir="/dev/shm"))
    host = Host(layer, work)
    host.on(f"rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*; dpkg -i {work}/{FOUND}/*.deb")
    yield host
    # What overlayfs leaves in its layer belongs to root.
    subprocess.run(
        [*([] if os.geteuid() == 0 else ["sudo", "-n"]), "rm", "-rf", "--one-file-system", str(layer)],
        check=True,
    )


def _remembered(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.on("cat /etc/outpost/driver.json").stdout))


def test_a_driver_installed_by_hand_is_adopted_once_with_its_files(host: Host, work: Path) -> None:
    code, _, said = host.role(NEW)
    assert code == 2
    assert "[WAY_BACK] is: a driver that no set describes: libcuda1, nvidia-smi" in said, said[-3000:]

    code, changed, said = host.role(FOUND, "--check")
    assert (code, changed) == (0, 1), said[-3000:]
    assert host.on("ls /etc/outpost/driver.json /opt/outpost/drivers", check=False).stdout == ""

    code, changed, said = host.role(FOUND)
    assert (code, changed > 0) == (0, True), said[-3000:]
    sets = yaml.safe_load((work / "sets.yml").read_text())["nvidia_driver_sets"]
    remembered = _remembered(host)
    assert (remembered["name"], remembered["packages"], remembered["previous"]) == (
        FOUND, sets[FOUND]["packages"], {},
    )  # fmt: skip
    assert host.on("apt-mark showhold").stdout.split() == ["libcuda1", "nvidia-smi"]
    assert host.on(f"ls /opt/outpost/drivers/{FOUND}").stdout.split() == ["libcuda1.deb", "nvidia-smi.deb"]

    code, changed, said = host.role(FOUND)
    assert (code, changed) == (0, 0), said[-3000:]


def _around(hours: int) -> str:
    """The hour of a window that lies `hours` from now, UTC."""
    begin = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    return f"{begin:%H:%M}-{begin + datetime.timedelta(hours=2):%H:%M}"


@pytest.mark.parametrize(
    ("fact", "when", "then"),
    [
        ("__nvidia_driver_missing", "once the files had come", "run again within the window, it will not wait"),
        ("__nvidia_driver_drained", "once the inference systems had stopped",
         "The driver was not touched, the locks stand, the inference systems were started again"),
        ("__nvidia_driver_finished", "while the set was installed", f"The host is on {FOUND} again, whole and locked"),
    ],
    ids=["files", "drain", "install"],
)  # fmt: skip
def test_a_window_that_closes_in_the_middle_ends_on_the_set_before_without_a_reboot(
    host: Host, work: Path, fact: str, when: str, then: str
) -> None:
    loaded = work / "sys/module/nvidia/version"
    loaded.parent.mkdir(parents=True, exist_ok=True)
    loaded.write_text("535.261.03\n")
    # The clock cannot be turned, so the window moves: it is another one once the step before is done.
    window = f"{{{{ '{_around(8)}' if {fact} is defined else '{_around(-1)}' }}}}"
    code, _, said = host.role(
        NEW, nvidia_driver_sysfs=str(work / "sys"), nvidia_driver_reboot_window=window,
        nvidia_driver_timezone="UTC",
    )  # fmt: skip
    assert code == 2
    assert f"minutes, {when}, and the change to {NEW} needs a reboot" in said, said[-3000:]
    assert then in said, said[-3000:]
    assert "Reboot into the new driver" not in said
    assert host.on(f"ls /opt/outpost/drivers/{NEW} | grep deb").stdout.split() == [
        "libcuda1.deb",
        "nvidia-smi.deb",
    ]
    assert host.on("dpkg-query -W -f '${Version}' libcuda1").stdout == "535.261.03-1"
    assert _remembered(host)["name"] == FOUND
    assert host.on("apt-mark showhold").stdout.split() == ["libcuda1", "nvidia-smi"]
    assert "535.261.03" in host.on("cat /etc/apt/preferences.d/outpost-driver").stdout
    assert "under-way" not in host.on("ls /etc/outpost").stdout
    code, changed, said = host.role(FOUND)
    assert (code, changed) == (0, 0), said[-3000:]


def test_a_window_that_is_open_but_too_short_for_a_change_is_refused_before_the_files_come(
    host: Host, work: Path
) -> None:
    code, _, said = host.role(
        NEW, nvidia_driver_sysfs=str(work / "sys"), nvidia_driver_reboot_window=_around(-1),
        nvidia_driver_timezone="UTC", nvidia_driver_window_minutes=90,
    )  # fmt: skip
    assert code == 2
    assert "[WINDOW_OPEN] is: the kernel holds 535.261.03" in said, said[-3000:]
    assert "nvidia_driver_window_minutes before it closes" in said


def test_an_adopted_driver_can_be_changed_and_is_the_way_back(host: Host) -> None:
    code, _, said = host.role(NEW)
    assert code == 0, said[-3000:]
    remembered = _remembered(host)
    assert (remembered["name"], remembered["previous"]["name"]) == (NEW, FOUND)
    assert host.on("dpkg-query -W -f '${Version}' libcuda1").stdout == "580.95.05-1"


def test_a_dry_run_is_not_failed_by_nouveau_that_a_run_would_mend_but_by_a_loaded_one(
    host: Host, work: Path
) -> None:
    host.on(
        "mkdir -p /etc/initramfs-tools /etc/X11 && echo 'nouveau modeset=1' > /etc/initramfs-tools/modules"
        ' && printf \'Section "Device"\\n  Driver "nouveau"\\nEndSection\\n\' > /etc/X11/xorg.conf'
    )
    modules = work / "modules"
    modules.write_text("nouveau 2441216 1 - Live 0x0\n")
    code, _, said = host.role(NEW, "--check", nvidia_driver_proc_modules=str(modules))
    assert code == 2
    assert "[NOUVEAU_OFF] is: the kernel; wanted: nouveau nowhere" in said, said[-3000:]

    code, changed, said = host.role(NEW, "--check")
    assert (code, changed) == (0, 2), said[-3000:]
    assert "nouveau modeset=1" in host.on("cat /etc/initramfs-tools/modules").stdout.splitlines()

    code, _, said = host.role(NEW)
    assert code == 0, said[-3000:]
    assert "# nouveau modeset=1" in host.on("cat /etc/initramfs-tools/modules").stdout.splitlines()
