"""What belongs to a driver set that is made out of a host: the driver's packages, and the running kernel's alone.

The names are those of os-release and package lists in the wild; how apt and dnf answer is in tests/drivers.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from loaded import load

ROLE = Path(__file__).parents[2] / "roles/nvidia_driver"


@pytest.fixture
def closure() -> ModuleType:
    return load(ROLE / "library/nvidia_driver_closure.py")


def families(name: str) -> dict[str, list[str]]:
    return dict(yaml.safe_load((ROLE / f"vars/{name}.yml").read_text()))


@pytest.mark.parametrize(
    ("release", "number"),
    [
        ("6.8.0-45-generic", "6.8.0-45"),  # Ubuntu
        ("5.15.0-122-lowlatency", "5.15.0-122"),
        ("6.1.90-1-generic", "6.1.90-1"),  # Astra
        ("6.1.0-37-cloud-amd64", "6.1.0-37"),  # Debian
        ("6.6.52-1.red80.x86_64", "6.6.52-1.red80"),  # RED OS
        ("5.15.131-3.el7.3.x86_64", "5.15.131-3.el7.3"),
        ("6.12.85-1.red80.x86_64-rt", "6.12.85-1.red80"),
    ],
)
def test_the_number_of_a_kernel_is_what_its_packages_carry(
    closure: ModuleType, monkeypatch: pytest.MonkeyPatch, release: str, number: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert closure.number_of_the_running_kernel() == number


ASTRA = {
    "linux-6.1-generic": "6.1.90-1", "linux-image-6.1.90-1-generic": "1", "linux-headers-6.1.90-1": "1",
    "linux-headers-6.1.90-1-generic": "1", "linux-astra-modules-6.1.90-1-generic": "1",
    "linux-image-6.1.90-10-generic": "1", "linux-image-5.15.0-70-generic": "1", "linux-kbuild-6.1": "6.1.90-1",
    "linux-kbuild-5.15": "1", "gcc": "12",
}  # fmt: skip
NEEDS = {
    "linux-headers-6.1.90-1-generic": "linux-headers-6.1.90-1 (= 1), linux-kbuild-6.1 (>= 6.1.90) | dkms, gcc"
}


def test_the_running_kernel_comes_with_its_headers_its_modules_and_what_they_need_of_a_kernel(
    closure: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*command: str, **_: object) -> subprocess.CompletedProcess[str]:
        needed = NEEDS.get(command[-1].split("=")[0], "libc6")
        return subprocess.CompletedProcess(command, 0, f"Package: x\nDepends: {needed}\n", "")

    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.1.90-1-generic"))
    monkeypatch.setattr(closure, "run", run)
    found = closure.Apt().kernel(ASTRA, families("deb")["__nvidia_driver_kernel_families"])
    assert found == {
        "linux-image-6.1.90-1-generic", "linux-headers-6.1.90-1", "linux-headers-6.1.90-1-generic",
        "linux-astra-modules-6.1.90-1-generic", "linux-kbuild-6.1",
    }  # fmt: skip


def test_of_kernels_under_one_name_the_running_one_is_taken(
    closure: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        "kernel-lt\t0:6.1.128-2.el7.3", "kernel-lt\t0:6.1.110-1.el7.3", "kernel-lt-devel\t0:6.1.110-1.el7.3",
        "bash\t0:5-1",
    ]  # fmt: skip
    done = subprocess.CompletedProcess((), 0, "\n".join(rows), "")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.1.110-1.el7.3.x86_64"))
    monkeypatch.setattr(closure, "run", lambda *_, **__: done)
    stands = closure.Dnf().installed()
    kernel = closure.Dnf().kernel(stands, families("rpm")["__nvidia_driver_kernel_families"])
    assert {name: stands[name] for name in kernel} == {
        "kernel-lt": "0:6.1.110-1.el7.3", "kernel-lt-devel": "0:6.1.110-1.el7.3",
    }  # fmt: skip


def test_the_drivers_version_is_that_of_most_packages(closure: ModuleType) -> None:
    ubuntu = {
        "libnvidia-compute-570": "570.195.03-0ubuntu0.24.04.1", "nvidia-utils-570": "570.195.03-0ubuntu0.24.04.1",
        "nvidia-settings": "510.47.03-0ubuntu4", "nvidia-container-toolkit": "1.17.8-1",
    }  # fmt: skip
    assert closure.driver_of(ubuntu, families("deb")["__nvidia_driver_families"]) == "570.195.03"
    assert closure.driver_of({"nvidia-driver": "3:580.95.05-1.red80"}, ["nvidia-*"]) == "580.95.05"
    with pytest.raises(closure.Refused, match="nvidia-container-toolkit carries a driver's version"):
        closure.driver_of({"nvidia-container-toolkit": "1.17.8-1"}, ["nvidia-*"])
