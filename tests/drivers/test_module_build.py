"""The kernel module: really built by DKMS for a real kernel's headers, and what happens where it cannot be.

Takes minutes of compiling, so it is a lane of its own (lanes.py). A container is enough to build for a kernel; to boot
it is not (docs/nvidia-traps.md).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import debian_drivers as debian
import driver_lab as lab
import pytest

ROOT = Path(__file__).parents[2]
CONTAINER = "drivers-build"
WORK = debian.CACHE / "build"
VARIABLES = {"nvidia_driver_managed": True}


def inside(script: str, *, check: bool = True) -> str:
    command = [
        "docker",
        "exec",
        "-e",
        "DEBIAN_FRONTEND=noninteractive",
        "-e",
        "LC_ALL=C",
        CONTAINER,
        "bash",
        "-c",
        script,
    ]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0 or not check, f"{script}\n{done.stdout[-4000:]}"
    return done.stdout


def run(path: str, **variables: object) -> tuple[int, str]:
    inventory = WORK / "hosts.yml"
    host = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": CONTAINER,
        "ansible_become": False,
    }
    inventory.write_text(json.dumps({"region": {"hosts": {"builder": host}}}))
    command = ["ansible-playbook", "-i", inventory, path, "-e", json.dumps({**VARIABLES, **variables})]
    done = subprocess.run(command, cwd=ROOT, env=lab.ENVIRONMENT, text=True, capture_output=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def make_set(name: str, paths: list[Path]) -> dict[str, object]:
    """The role's variables for a set of these files."""
    folder = lab.folder(WORK / name, paths)
    tool = ROOT / "roles/nvidia_driver/files/outpost-driver-set"
    command = [tool, folder, name, debian.index("bookworm")["libnvidia-ml1"].version.split("-")[0]]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (WORK / f"{name}.yml").write_text(made)
    return {
        "nvidia_driver_set": name,
        "nvidia_driver_sets_file": str(WORK / f"{name}.yml"),
        "nvidia_driver_repository": str(folder),
    }


@pytest.fixture(scope="module")
def packages() -> list[Path]:
    return [package.path for package in debian.building()]


@pytest.fixture(scope="module", autouse=True)
def _container() -> Iterator[None]:
    WORK.mkdir(parents=True, exist_ok=True)
    store = lab.lab_store()
    store.ensure(["ubuntu"])
    subprocess.run(["docker", "rm", "-f", CONTAINER], capture_output=True, check=False)
    command = [
        "docker",
        "run",
        "-d",
        "--name",
        CONTAINER,
        "--entrypoint",
        "sleep",
        store.tag("ubuntu"),
        "infinity",
    ]
    subprocess.run(command, check=True, capture_output=True)
    try:
        inside("apt-get update -q")
        yield
    finally:
        subprocess.run(["docker", "rm", "-f", CONTAINER], check=True, capture_output=True)


def release(packages: list[Path]) -> str:
    image = next(path.name for path in packages if path.name.startswith("linux-image-"))
    return image.split("_")[0].removeprefix("linux-image-")


def test_without_headers_of_a_kernel_nothing_is_touched(packages: list[Path]) -> None:
    image = next(path for path in packages if path.name.startswith("linux-image-"))
    subprocess.run(["docker", "cp", image, f"{CONTAINER}:/root/"], check=True, capture_output=True)
    inside(f"apt-get install -y --no-install-recommends /root/{image.name}")
    without = make_set(
        "no-headers", [path for path in packages if not path.name.startswith("linux-headers-")]
    )
    code, said = run("tests/drivers/driver.yml", **without)
    assert code == 2
    assert f"[HEADERS] is: no headers of {release(packages)}" in said, said[-3000:]
    assert "nvidia" not in inside("dpkg -l | grep nvidia", check=False)


def test_the_module_is_built_for_the_kernel_before_the_set_counts_as_installed(
    packages: list[Path], record_property: Callable[[str, object], None]
) -> None:
    code, said = run("tests/drivers/driver.yml", **make_set("build-535", packages))
    assert code == 0, said[-5000:]
    kernel = release(packages)
    status = inside("dkms status")
    assert f", {kernel}, x86_64: installed" in status
    module = inside(f"modinfo -k {kernel} nvidia-current | grep -E '^(version|vermagic)'")
    version = debian.index("bookworm")["libnvidia-ml1"].version.split("-")[0]
    assert f"version:        {version}" in module
    record_property("driver", version)
    record_property("kernel", kernel)
    assert f"vermagic:       {kernel} " in module


def test_the_doctor_agrees() -> None:
    code, said = run("playbooks/doctor.yml", doctor_directory=str(WORK))
    checks = {c["code"]: c for c in json.loads((WORK / "builder.json").read_text())["checks"]}
    assert checks["MODULE_BUILT"]["ok"], checks["MODULE_BUILT"]
    assert code == 0, said[-3000:]


def test_a_kernel_without_the_module_is_seen_before_anybody_reboots_into_it(packages: list[Path]) -> None:
    # What an admin forces past the lock: a newer kernel, no headers. To apt under the lock it does not even exist.
    pattern = "^linux-image-6.1.0-[0-9]+-cloud-amd64$"
    open_ = "-o Dir::Etc::preferencesparts=/nonexistent"
    newest = inside(
        f"apt-cache {open_} search --names-only '{pattern}' 2>/dev/null | sort -V | tail -1"
    ).split()[0]
    kernel = newest.removeprefix("linux-image-")
    assert kernel != release(packages), "the security suite must be ahead of the release"
    inside(f"apt-get -y {open_} install --no-install-recommends {newest}")
    code, _ = run("playbooks/doctor.yml", doctor_directory=str(WORK))
    checks = {c["code"]: c for c in json.loads((WORK / "builder.json").read_text())["checks"]}
    assert code == 2
    assert checks["MODULE_BUILT"]["value"] == f"not built for {kernel}"
    assert "Do not reboot" in checks["MODULE_BUILT"]["remedy"]
    code, said = run("tests/drivers/driver.yml", **make_set("build-535", packages))
    assert code == 2
    assert f"[MODULE_BUILT] is: not built for {kernel}" in said
