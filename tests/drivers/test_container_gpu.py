"""A container gets the host's GPU, sees the driver inside, and is never put on the processor silently.

Real: a host with systemd and Docker 26 (Debian trixie's; the lab's other hosts have a Docker that knows no CDI), the
injection of devices by Docker and runc, the roles, outpost-run, the unit, the doctor and its probe in the container.
Stand-ins, in stand_in_gpu/: the card (an entry in /sys, device files with the numbers of /dev/null), its driver (one
package with a library that holds a version), nvidia-smi, nvidia-modprobe, nvidia-ctk with its hook, and the service in
its image. The lab is the test's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).with_name("stand_in_gpu")
NAME, HOST = "gpu", "chita"
ENVIRONMENT = {
    **os.environ,
    "LAB_NAME": NAME, "LAB_SUBNET": "10.161", "LAB_PUBLISH": "no", "LAB_SUITE": "trixie", "OUTPOST_ROOT": str(ROOT),
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "true", "ANSIBLE_FORCE_COLOR": "false",
}  # fmt: skip
DRIVER, OTHER = "550.163.01", "535.261.03"
SPECIFICATION = "/etc/cdi/nvidia.yaml"
LIBRARY = f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{DRIVER}"
SEEN = "/var/lib/outpost/brain/seen.json"
CONTAINER, UNIT = "outpost-brain", "outpost@brain.service"
# What a host without a card has had since the first release: it must not change, or Docker restarts in every region.
SETTINGS_WITHOUT_CARD = """{
  "live-restore": true,
  "log-driver": "json-file",
  "log-opts": {
    "max-file": "3",
    "max-size": "20m"
  }
}
"""


def lab(*arguments: str, environment: dict[str, str] = ENVIRONMENT) -> None:
    done = subprocess.run(
        [ROOT / "lab/lab", *arguments], env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def on(script: str, *, check: bool = True) -> str:
    """Runs a shell script on the host; returns what it printed, errors too."""
    done = subprocess.run(
        ["docker", "exec", "-i", "-e", "DEBIAN_FRONTEND=noninteractive", f"{NAME}-{HOST}", "bash", "-c", script],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0 or not check, f"{script}\n{done.stdout[-4000:]}"
    return done.stdout


def put(source: Path, target: str) -> None:
    subprocess.run(["docker", "cp", source, f"{NAME}-{HOST}:{target}"], check=True, capture_output=True)


class Site:
    """The host, and the variables its playbook is run with."""

    def __init__(self, folder: Path, environment: dict[str, str] = ENVIRONMENT) -> None:
        self.folder = folder
        self.environment = environment
        self.variables: dict[str, Any] = {
            "outpost_release": "stand-in", "outpost_release_directory": str(folder), "outpost_release_url": "",
            "dicom_filter_rules": {},
        }  # fmt: skip

    def playbook(self, path: str, **variables: Any) -> tuple[int, str, int]:
        """Exit code, all that was printed as one line, how many tasks changed something."""
        given = json.dumps({**self.variables, **variables})
        done = subprocess.run(
            ["ansible-playbook", path, "-l", HOST, "-e", given], cwd=ROOT, env=self.environment, text=True,
            capture_output=True, check=False, timeout=600,
        )  # fmt: skip
        recap = [line for line in done.stdout.splitlines() if line.startswith(f"{HOST} ") and "ok=" in line]
        changed = int(recap[0].split("changed=")[1].split()[0]) if recap else -1
        return done.returncode, " ".join((done.stdout + done.stderr).split()), changed

    def converge(self, **variables: Any) -> int:
        """The roles must pass; how many tasks changed something."""
        code, said, changed = self.playbook("tests/drivers/container_gpu.yml", **variables)
        assert code == 0, said[-6000:]
        return changed

    def doctor(self) -> dict[str, dict[str, Any]]:
        """The doctor's checks that failed, by code."""
        self.playbook("playbooks/doctor.yml", doctor_directory=str(self.folder))
        checks = json.loads((self.folder / f"{HOST}.json").read_text())["checks"]
        return {check["code"]: check for check in checks if not check["ok"]}

    def restart(self) -> str:
        """Restarts the system; returns what its unit logged since."""
        now = on("date '+%F %T'").strip()
        time.sleep(1)  # the journal is asked by the second
        on(
            f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}; timeout 30 systemctl start {UNIT}",
            check=False,
        )
        return on(f"journalctl -u {UNIT} --since '{now}' --no-pager --output=cat")

    def device(self, device: str) -> None:
        """As role inference writes it where the inventory names a device."""
        on(
            f"sed -i /OUTPOST_DEVICE/d /etc/outpost/brain.env; echo OUTPOST_DEVICE={device} >> /etc/outpost/brain.env"
        )


def seen() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(on(f"cat {SEEN}"))
    return found


def running() -> bool:
    return on(f"docker ps --quiet --filter name=^{CONTAINER}$").strip() != ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host without a card as role base leaves it, with a release of the stand-in service. LAB_KEEP=1 leaves it."""
    folder = tmp_path_factory.mktemp("gpu")
    lab("up", HOST)
    try:
        on("groupadd -g 10001 outpost && useradd -u 10001 -g outpost -M outpost")
        on("mkdir -p /etc/outpost /opt/outpost/releases")
        yield Site(make_release(folder))
    finally:
        if not os.environ.get("LAB_KEEP"):
            lab("down")


def make_release(folder: Path) -> Path:
    """A release whose image is the host's own base with the stand-in service as its program."""
    name = f"{NAME}-release"
    base = subprocess.run(
        ["docker", "inspect", "-f", "{{.Image}}", f"{NAME}-{HOST}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    subprocess.run(["docker", "create", "--name", name, base], check=True, capture_output=True)
    try:
        subprocess.run(
            ["docker", "cp", STAND_INS / "outpost", f"{name}:/usr/bin/outpost"],
            check=True,
            capture_output=True,
        )
        release = folder / "stand-in"
        release.mkdir()
        # Imported and saved by the machine's Docker: the host gets it as an archive, like any release.
        changes = ["--change", 'ENTRYPOINT ["outpost"]', "--change", "ENV PATH=/usr/bin:/bin"]
        tree = f"docker export {name} | docker import {' '.join(map(_quoted, changes))} - outpost:{name}"
        image = subprocess.run(tree, shell=True, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S602
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)
    archive = release / "image.tar"
    subprocess.run(["docker", "save", "-o", archive, f"outpost:{name}"], check=True, capture_output=True)
    subprocess.run(["docker", "rmi", f"outpost:{name}"], check=True, capture_output=True)
    content = {
        "id": image, "archive": archive.name, "archive_bytes": archive.stat().st_size,
        "archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }  # fmt: skip
    (release / "manifest.json").write_text(json.dumps({"version": "stand-in", "image": content}))
    return folder


def _quoted(word: str) -> str:
    return "'" + word + "'"


def make_set(folder: Path) -> dict[str, Any]:
    """A driver set of one package that holds the stand-ins, made by the project's own tool."""
    tree = folder / "tree"
    for name in ("nvidia-smi", "nvidia-modprobe", "nvidia-ctk", "nvidia-cdi-hook"):
        target = tree / "usr/bin" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((STAND_INS / name).read_bytes())
        target.chmod(0o755)
    library = tree / LIBRARY.lstrip("/")
    library.parent.mkdir(parents=True)
    library.write_text(DRIVER)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: nvidia-container-toolkit-stand-in\nVersion: {DRIVER}-1\nArchitecture: amd64\n"
        "Maintainer: Outpost <outpost@localhost>\n"
        "Description: stand-in for an NVIDIA driver and its container toolkit\n"
    )
    packages = folder / "set"
    packages.mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, packages], check=True, capture_output=True)
    tool = ROOT / "roles/nvidia_driver/files/outpost-driver-set"
    made = subprocess.run(
        [tool, packages, "stand-in-550", DRIVER], check=True, capture_output=True, text=True
    )
    (folder / "sets.yml").write_text(made.stdout)
    return {
        "nvidia_driver_set": "stand-in-550", "nvidia_driver_sets_file": str(folder / "sets.yml"),
        "nvidia_driver_repository": str(packages),
    }  # fmt: skip


def plug_in(version: str) -> None:
    """A stand-in card on the bus, and a kernel that holds its driver in `version`."""
    on(f"""
        set -e
        card=/sys/bus/pci/devices/0000:01:00.0
        mount -t tmpfs none /sys/module
        mount -t tmpfs none /sys/bus/pci/devices
        mkdir -p $card /sys/module/nvidia /run/stand-in-gpu
        echo 0x10de > $card/vendor
        echo 0x1b06 > $card/device
        echo 0x030000 > $card/class
        echo {version} | tee /sys/module/nvidia/version > /run/stand-in-gpu/version
    """)


def test_a_host_without_a_card_keeps_docker_s_settings_and_gets_no_device(site: Site) -> None:
    site.converge()
    assert on("cat /etc/docker/daemon.json") == SETTINGS_WITHOUT_CARD
    started = on("systemctl show -p ActiveEnterTimestampMonotonic docker.service")
    assert site.converge() == 0
    assert on("systemctl show -p ActiveEnterTimestampMonotonic docker.service") == started
    assert "OUTPOST_DEVICE" not in on("cat /etc/outpost/brain.env")
    assert "device:" not in on("cat /etc/outpost/brain.yaml")
    on(
        f"ln -sfn /opt/outpost/releases/stand-in /opt/outpost/current; systemctl daemon-reload; systemctl enable {UNIT}"
    )
    assert "no NVIDIA driver on this host" in site.restart()
    assert seen()["nodes"] == {}
    assert "OUTPOST_GPU_WITHHELD" not in seen()["environment"]


def test_a_system_that_asks_for_a_card_is_refused_where_none_is(site: Site) -> None:
    site.device("cuda")
    said = site.restart()
    assert (
        "brain is not started: its device cuda cannot be given, the kernel has no NVIDIA driver loaded"
        in said
    )
    assert "gpu-not-in-the-container.md" in said
    assert not running()
    code, printed, _ = site.playbook("tests/drivers/container_gpu.yml", outpost_systems={
        "brain": {"dicom_port": 11112, "api_port": 8080, "cores": 2, "memory_mib": 3072, "device": "cuda"}
    })  # fmt: skip
    assert code == 2
    assert "[GPU_GIVEN] chita, system brain: device cuda cannot be given" in printed
    site.device("auto")
    site.restart()


def test_the_roles_give_what_runs_the_gpu(site: Site, record_property: Callable[[str, object], None]) -> None:
    for name in ("docker.io", "runc", "containerd", "systemd"):
        record_property(name, on(f"dpkg-query -W -f '${{Version}}' {name}"))
    plug_in(DRIVER)
    on("mknod -m 0600 /dev/nvidia0 c 1 3")  # a site's own mode outside; inside is what the specification says
    site.variables |= make_set(site.folder)
    docker = on("systemctl show -p ActiveEnterTimestampMonotonic docker.service")
    site.converge()
    assert json.loads(on("cat /etc/docker/daemon.json"))["features"] == {"cdi": True}
    assert on("systemctl show -p ActiveEnterTimestampMonotonic docker.service") != docker
    assert f"libnvidia-ml.so.{DRIVER}" in on(f"cat {SPECIFICATION}")
    assert seen()["nodes"], "what ran had no GPU"
    assert site.converge() == 0


def test_the_container_has_the_device_and_no_other_right(site: Site) -> None:
    found = seen()
    assert found["uid"] == 10001
    assert found["rights"] == "0" * 16
    assert set(map(tuple, found["nodes"].values())) == {("0o666", 0)}
    assert found["opened"] == sorted(found["nodes"]) == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"]
    assert found["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void", "an edit of the specification"
    assert "OUTPOST_GPU_WITHHELD" not in found["environment"]
    host = json.loads(on(f"docker inspect -f '{{{{json .HostConfig}}}}' {CONTAINER}"))
    assert host["DeviceRequests"][0]["Driver"] == "cdi"
    assert host["DeviceRequests"][0]["DeviceIDs"] == ["nvidia.com/gpu=all"]
    assert host["ReadonlyRootfs"]
    # The hook that NVIDIA's libraries need writes into the root before it becomes read-only.
    assert (
        on(f"docker exec {CONTAINER} readlink {LIBRARY.replace(DRIVER, '1')}").strip() == Path(LIBRARY).name
    )


def test_the_doctor_sees_the_driver_in_the_container(site: Site) -> None:
    assert site.doctor() == {}


@pytest.mark.parametrize(
    ("fault", "said", "remedy"),
    [
        # What a daemon-reload does to the container's rights, here to the file itself.
        (
            f"docker exec -u 0 {CONTAINER} rm /dev/nvidia0",
            "Failed to initialize NVML: Unknown Error",
            "reloaded systemd",
        ),
        (
            f"echo {OTHER} > /run/stand-in-gpu/version",
            "Failed to initialize NVML: Driver/library version mismatch; NVML library version: 550.163",
            "another driver",
        ),
        (
            f"echo {OTHER} > /run/stand-in-gpu/version; echo {OTHER} > {LIBRARY}",
            OTHER,
            "another driver",
        ),
        (
            f"""
                systemctl stop {UNIT}
                sed -i '/hostPath: .usr.bin.nvidia-smi/,+6d' {SPECIFICATION}
                gpu="--device nvidia.com/gpu=all"
                docker run -d --rm --name {CONTAINER} $gpu --entrypoint sleep $(docker images -q) 600
            """,
            'exec: "nvidia-smi": executable file not found',
            "gives no nvidia-smi",
        ),
    ],
    ids=["taken-away", "mismatch", "other-version", "no-nvidia-smi"],
)
def test_the_doctor_names_what_is_wrong_in_the_container(
    site: Site, fault: str, said: str, remedy: str
) -> None:
    on(f"cp {SPECIFICATION} /root/whole.yaml")
    try:
        on(fault)
        found = site.doctor()
        assert set(found) == {"CONTAINER_SEES"}
        assert said in found["CONTAINER_SEES"]["value"]
        assert remedy in found["CONTAINER_SEES"]["remedy"]
    finally:
        on(MEND)
        site.restart()
    assert site.doctor() == {}


BROKEN = {
    "missing": (f"rm {SPECIFICATION}", "no specification of nvidia.com/gpu lies in /etc/cdi or /var/run/cdi"),
    "stale": (
        f"sed -i s/{DRIVER}/{OTHER}/ {SPECIFICATION}",
        f"is stale: it names driver {OTHER}, the kernel holds {DRIVER}",
    ),
    "wins-stale": (
        f"mkdir -p /var/run/cdi; sed s/{DRIVER}/{OTHER}/ {SPECIFICATION} > /var/run/cdi/nvidia.yaml",
        f"/var/run/cdi/nvidia.yaml is stale: it names driver {OTHER}",
    ),
    "twice": (
        f"cp {SPECIFICATION} /etc/cdi/other.yaml",
        "all define nvidia.com/gpu=all: Docker then takes none",
    ),
    "no-uvm": (f"sed -i /nvidia-uvm/d {SPECIFICATION}", "lacks /dev/nvidia-uvm"),
    "no-module": ("mv /sys/module/nvidia /sys/module/away", "the kernel has no NVIDIA driver loaded"),
    # What only Docker can tell.
    "no-cdi": (
        'sed -i \'s/"cdi": true/"cdi": false/\' /etc/docker/daemon.json; systemctl restart docker',
        'could not select device driver "cdi"',
    ),
    "hook": ("mv /usr/bin/nvidia-cdi-hook /root/", "nvidia-cdi-hook: no such file or directory"),
    "library": (f"rm {LIBRARY}", "nvidia-smi in a container says"),
    "no-nvml": (f"echo {OTHER} > /run/stand-in-gpu/version", "Driver/library version mismatch"),
}
MEND = f"""
    rm -f /var/run/cdi/nvidia.yaml /etc/cdi/other.yaml
    cp /root/whole.yaml {SPECIFICATION}
    [ -d /sys/module/nvidia ] || mv /sys/module/away /sys/module/nvidia
    [ -e /usr/bin/nvidia-cdi-hook ] || mv /root/nvidia-cdi-hook /usr/bin/
    echo {DRIVER} | tee {LIBRARY} > /run/stand-in-gpu/version
    if grep -q 'cdi.: false' /etc/docker/daemon.json; then
        sed -i 's/"cdi": false/"cdi": true/' /etc/docker/daemon.json
        systemctl restart docker
    fi
"""


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_a_gpu_that_cannot_be_given_is_refused_or_told_never_silent(site: Site, kind: str) -> None:
    fault, said = BROKEN[kind]
    on(f"cp {SPECIFICATION} /root/whole.yaml; systemctl stop {UNIT}; {fault}")
    try:
        site.device("cuda")
        log = site.restart()
        assert "brain is not started: its device cuda cannot be given" in log
        assert said in log
        assert not running()

        site.device("auto")
        log = site.restart()
        assert "brain gets no GPU, the processor computes" in log
        assert running(), log
        assert said in seen()["environment"]["OUTPOST_GPU_WITHHELD"]
        assert "/dev/nvidia0" not in seen()["nodes"]
        found = site.doctor()
        assert said in found["CONTAINER_SEES"]["value"]
        assert "no GPU was given" in found["CONTAINER_SEES"]["value"]
    finally:
        on(MEND)
        site.restart()
    assert seen()["nodes"]


def test_an_index_that_no_card_has_is_refused(site: Site) -> None:
    try:
        site.device("cuda:1")
        assert f"{SPECIFICATION} names no device nvidia.com/gpu=1" in site.restart()
        assert not running()
        site.device("cuda:0")
        site.restart()
        assert seen()["nodes"]
    finally:
        site.device("auto")
        site.restart()


def test_a_release_for_processors_gets_no_card_and_raises_no_alarm(site: Site) -> None:
    manifest = "/opt/outpost/current/manifest.json"
    on(f'cp {manifest} /root/; sed -i \'1s/{{/{{"torch": "2.13.0+cpu", /\' {manifest}')
    try:
        assert "torch 2.13.0+cpu of this release computes on no GPU" in site.restart()
        assert seen()["nodes"] == {}
        assert site.doctor() == {}
    finally:
        on(f"cp /root/manifest.json {manifest}")
        site.restart()


def test_device_files_that_a_boot_did_not_make_are_made(site: Site) -> None:
    # Docker remembers the numbers of files it has given before: as after a boot, it has given none yet.
    on(f"systemctl stop {UNIT}; rm /dev/nvidia*; systemctl restart docker")
    assert "gets no GPU" not in site.restart()
    assert seen()["opened"] == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"]


def test_a_run_of_the_roles_mends_a_stale_specification_and_gives_the_gpu_back(site: Site) -> None:
    on(f"sed -i s/{DRIVER}/{OTHER}/ {SPECIFICATION}")
    site.restart()
    assert seen()["nodes"] == {}
    on(f"rm {SEEN}")  # what is seen later is of a later start
    assert set(site.doctor()) == {"CDI_FRESH", "CONTAINER_SEES"}
    site.converge()
    assert seen()["nodes"], "the system was restarted after its devices were described"
    assert site.doctor() == {}
    assert site.converge() == 0


def test_a_host_that_lost_the_toolkit_stops_the_run_before_a_system_does(site: Site) -> None:
    on("mv /usr/bin/nvidia-ctk /root/")
    try:
        code, said, _ = site.playbook("tests/drivers/container_gpu.yml")
        assert code == 2
        assert "[TOOLKIT] is: no /usr/bin/nvidia-ctk; wanted: NVIDIA's container toolkit." in said
        assert running()
    finally:
        on("mv /root/nvidia-ctk /usr/bin/")


def test_a_docker_that_knows_no_cdi_is_named_with_its_version(tmp_path: Path) -> None:
    """On the lab's usual stand-in, with the Docker of Debian bookworm."""
    old = {**ENVIRONMENT, "LAB_NAME": "gpu-old", "LAB_SUBNET": "10.163", "LAB_SUITE": "bookworm"}
    lab("up", HOST, environment=old)
    try:
        code, said, _ = Site(tmp_path, old).playbook(
            "tests/drivers/container_gpu.yml", container_runtime_cdi=True
        )
        assert code == 2
        assert re.search(
            r"\[DOCKER_CDI\] chita has a video card and Docker 20\.10\.\S+; wanted: 25 or later", said
        ), said[-3000:]
    finally:
        lab("down", environment=old)
