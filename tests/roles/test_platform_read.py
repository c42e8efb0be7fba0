"""The platform role's read and its facts, over trees of hosts: the real script, the real parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recorded_hosts as hosts
from recorded_hosts import plant, read

from outpost.platform.facts import facts_of, kernel_flavour

EFI = "sys/firmware/efi/efivars/{}-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def facts(root: Path) -> dict[str, Any]:
    return facts_of(read(root))


@pytest.mark.parametrize(
    ("os_release", "tool", "wanted"),
    [
        (hosts.UBUNTU_2204, "apt-get", ("ubuntu", "22.04", "22.04.5", "", "deb", "apt", True)),
        (hosts.UBUNTU_2404, "apt-get", ("ubuntu", "24.04", "24.04.1", "", "deb", "apt", True)),
        (hosts.ASTRA_17, "apt-get", ("astra", "1.7", "1.7", "", "deb", "apt", False)),
        (hosts.ASTRA_17_SE, "apt-get", ("astra", "1.7", "1.7", "se", "deb", "apt", False)),
        (hosts.ASTRA_18, "apt-get", ("astra", "1.8", "1.8", "", "deb", "apt", True)),
        (hosts.ASTRA_CE, "apt-get", ("astra", "2.12", "2.12.22", "orel", "deb", "apt", False)),
        (hosts.REDOS_73, "dnf", ("redos", "7.3", "7.3.6", "standard", "rpm", "dnf", True)),
        (hosts.REDOS_731, "dnf", ("redos", "7.3", "7.3.1", "standard", "rpm", "dnf", True)),
        (hosts.REDOS_732, "dnf", ("redos", "7.3", "7.3.2", "standard", "rpm", "dnf", True)),
        (hosts.REDOS_73_CERTIFIED, "dnf", ("redos", "7.3", "7.3.6", "certified", "rpm", "dnf", True)),
        (hosts.REDOS_802, "dnf", ("redos", "8", "8.0.2", "standard", "rpm", "dnf", True)),
        (hosts.REDOS_803, "dnf", ("redos", "8", "8.0.3", "standard", "rpm", "dnf", True)),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_each_quoted_identity_file_is_read_as_its_vendor_means_it(
    tmp_path: Path, os_release: str, tool: str, wanted: tuple[str, ...]
) -> None:
    found = facts(plant(tmp_path, os_release, tool=tool))
    keys = ("id", "release", "version", "edition", "family", "package_manager", "supported")
    assert tuple(found[key] for key in keys) == wanted
    assert found["arch"] == "x86_64"
    assert found["python"] == "3.11.2"


def test_a_pretty_name_that_is_missing_is_the_name(tmp_path: Path) -> None:
    assert facts(plant(tmp_path, hosts.ASTRA_CE))["pretty"] == "Astra Linux (Orel)"


def test_astras_build_is_its_version(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"etc/astra/build_version": "1.8.1.16\n", "etc/astra_version": "1.8.1\n"}
    assert facts(plant(tmp_path, hosts.ASTRA_18, files=files))["version"] == "1.8.1.16"


@pytest.mark.parametrize(
    ("programs", "licence", "wanted"),
    [
        ({"astra-modeswitch": 'test "$1" = get && echo 2 || echo "maximum(smolensk)"'}, "", (2, "maximum")),
        ({"astra-modeswitch": 'test "$1" = get && echo 1 || echo "advanced(voronezh)"'}, "", (1, "advanced")),
        ({"astra-modeswitch": "exit 1"}, 'DESCRIPTION="Astra Linux SE (Voronezh)"\n', (1, "advanced")),
        ({}, 'DESCRIPTION="Astra Linux Special Edition (Orel)"\n', (0, "base")),
        ({}, "", (None, "")),
    ],
)
def test_the_protection_level_is_read_or_unknown_never_guessed(
    tmp_path: Path, programs: dict[str, str], licence: str, wanted: tuple[int | None, str]
) -> None:
    files: dict[str, str | bytes] = {"etc/astra_license": licence} if licence else {}
    found = facts(plant(tmp_path, hosts.ASTRA_18, files=files, programs=programs))["protection"]
    assert (found["level"], found["name"]) == wanted


@pytest.mark.parametrize(
    ("configuration", "modules", "wanted"),
    [
        ("DIGSIG_ELF_MODE=1\nDIGSIG_XATTR_MODE=0\n", "digsig_verif 1 0 - Live 0x0\n", ("enforcing", 1, True)),
        ("DIGSIG_ELF_MODE=2\n", "digsig_verif 1 0 - Live 0x0\n", ("log", 2, True)),
        ("DIGSIG_ELF_MODE=0\n", "", ("off", 0, False)),
        ("", "digsig_verif 1 0 - Live 0x0\n", ("enforcing", None, True)),
        ("", "", ("absent", None, False)),
    ],
)
def test_the_closed_software_environment_is_seen_in_every_mode(
    tmp_path: Path, configuration: str, modules: str, wanted: tuple[str, int | None, bool]
) -> None:
    files: dict[str, str | bytes] = {"proc/modules": modules}
    if configuration:
        files["etc/digsig/digsig_initramfs.conf"] = configuration
    found = facts(plant(tmp_path, hosts.ASTRA_18, files=files))["digsig"]
    assert (found["state"], found["mode"], found["loaded"]) == wanted


def test_locks_say_it_in_words_or_by_exit_status(tmp_path: Path) -> None:
    programs = {
        "astra-nochmodx-lock": "echo ACTIVE",
        "astra-interpreters-lock": "echo inactive; exit 1",
        "astra-bash-lock": "exit 0",
        "astra-sudo-control": "exit 1",
        "astra-mic-control": "echo ВКЛЮЧЕНО",
    }
    locks = facts(plant(tmp_path, hosts.ASTRA_18, programs=programs))["locks"]
    assert locks == {
        "nochmodx": True, "interpreters": False, "bash": True, "sudo": False, "ptrace": None, "mic": True, "mac": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("os_release", "kernel", "owner", "flavour", "package"),
    [
        (hosts.UBUNTU_2404, "6.8.0-49-generic", "", "generic", "linux-headers-6.8.0-49-generic"),
        (hosts.ASTRA_18, "6.1.90-1-generic", "", "generic", "linux-headers-6.1.90-1-generic"),
        (hosts.ASTRA_18, "6.6.28-1-hardened", "", "hardened", "linux-headers-6.6.28-1-hardened"),
        (hosts.ASTRA_17, "5.15.0-33-lowlatency", "", "lowlatency", "linux-headers-5.15.0-33-lowlatency"),
        (
            hosts.REDOS_73,
            "6.1.128-2.el7.3.x86_64",
            "kernel-lt",
            "kernel-lt",
            "kernel-lt-devel-6.1.128-2.el7.3",
        ),
        (hosts.REDOS_73, "5.15.78-2.el7.3.x86_64", "kernel-core", "kernel", "kernel-devel-5.15.78-2.el7.3"),
        (
            hosts.REDOS_802,
            "6.6.52-1.red80.x86_64",
            "kernel-lt-core",
            "kernel-lt",
            "kernel-lt-devel-6.6.52-1.red80",
        ),
        (hosts.REDOS_802, "6.12.85-1.red80.x86_64-rt", "", "kernel-rt", "kernel-rt-devel-6.12.85-1.red80"),
        (hosts.REDOS_802, "6.6.52-1.red80.x86_64", "", "", ""),
    ],
)
def test_the_headers_package_of_the_running_kernel_is_named(
    tmp_path: Path, os_release: str, kernel: str, owner: str, flavour: str, package: str
) -> None:
    redos = "redos" in os_release
    # rpm says on standard output, with spaces, that nobody owns a file.
    programs = (
        {"rpm": f"echo {owner}" if owner else 'echo "file is not owned by any package"; exit 1'}
        if redos
        else {}
    )
    tree = plant(
        tmp_path,
        os_release,
        tool="dnf" if redos else "apt-get",
        kernel=kernel,
        headers=(kernel,),
        programs=programs,
    )
    found = facts(tree)["kernel"]
    assert (found["release"], found["flavour"], found["headers_package"]) == (kernel, flavour, package)
    assert found["headers_present"] is True
    assert found["compiler"] == "12.2.0"


@pytest.mark.parametrize(
    ("tool", "answer", "available"),
    [
        ("apt-cache", 'echo "linux-headers"; echo "  Installed: (none)"; echo "  Candidate: 6.1.90-1"', True),
        ("apt-cache", 'echo "  Candidate: (none)"', False),
        ("apt-cache", "true", None),
        ("dnf", "echo kernel-lt-devel-6.1.128-2.el7.3.x86_64", True),
        ("dnf", "echo kernel-lt-devel-6.1.99-1.el7.3.x86_64", False),
        ("dnf", "exit 1", None),
    ],
)
def test_whether_repositories_have_the_headers_is_asked_where_a_card_is(
    tmp_path: Path, tool: str, answer: str, available: bool | None
) -> None:
    rpm = tool == "dnf"
    tree = plant(
        tmp_path, hosts.REDOS_73 if rpm else hosts.ASTRA_18, tool="dnf" if rpm else "apt-get",
        kernel="6.1.128-2.el7.3.x86_64" if rpm else "6.1.90-1-generic", pci=hosts.TESLA_V100,
        without_headers=("6.6.1-old",), programs={tool: answer},
    )  # fmt: skip
    found = facts(tree)["kernel"]
    assert found["headers_present"] is False
    assert found["headers_available"] is available
    assert "6.6.1-old" in found["without_headers"]


def test_without_a_card_the_package_manager_is_not_asked(tmp_path: Path) -> None:
    tree = plant(
        tmp_path, hosts.ASTRA_18, kernel="6.1.90-1-generic", programs={"apt-cache": "touch $0.was-asked"}
    )
    assert facts(tree)["kernel"]["headers_available"] is None
    assert not (tree / "usr/bin/apt-cache.was-asked").exists()


@pytest.mark.parametrize(
    ("secure", "setup", "mokutil", "key", "wanted"),
    [
        (1, 0, None, False, ("enabled", None)),
        (1, 0, "exit 1", False, ("enabled", False)),
        (1, 0, 'echo "$2 is already enrolled"; exit 1', True, ("enabled", True)),
        (1, 0, 'echo "$2 is not enrolled"', True, ("enabled", False)),
        (1, 1, None, False, ("disabled", None)),
        (0, 0, None, False, ("disabled", None)),
        (None, None, 'echo "SecureBoot enabled"', False, ("enabled", False)),
        (None, None, None, False, ("unsupported", None)),
    ],
)
def test_secure_boot_and_the_enrolled_key_are_read(
    tmp_path: Path,
    secure: int | None,
    setup: int | None,
    mokutil: str | None,
    key: bool,
    wanted: tuple[str, bool | None],
) -> None:
    files: dict[str, str | bytes] = {}
    if secure is not None and setup is not None:
        files = {
            EFI.format("SecureBoot"): bytes([6, 0, 0, 0, secure]),
            EFI.format("SetupMode"): bytes([6, 0, 0, 0, setup]),
        }
    if key:
        files["var/lib/dkms/mok.pub"] = b"\x30"
    found = facts(
        plant(tmp_path, hosts.UBUNTU_2404, files=files, programs={"mokutil": mokutil} if mokutil else {})
    )
    assert (found["secure_boot"]["state"], found["secure_boot"]["key_enrolled"]) == wanted


@pytest.mark.parametrize("architecture", hosts.CARDS)
def test_each_generation_of_cards_is_known_from_sysfs(tmp_path: Path, architecture: str) -> None:
    devices = facts(plant(tmp_path, hosts.UBUNTU_2404, pci=hosts.CARDS[architecture]))["gpu_devices"]
    assert [device["architecture"] for device in devices] == [architecture], "one card, no audio, no bridge"
    assert devices[0]["known_by"] == "table"
    assert devices[0]["compute_capability"]
    assert devices[0]["slot"] == "0000:01:00.0"
    assert devices[0]["subsystem"] == "1043:85e4"
    assert devices[0]["driver"] == ""


def test_mixed_cards_are_all_listed_and_other_vendors_left_out(tmp_path: Path) -> None:
    tree = plant(
        tmp_path, hosts.UBUNTU_2404, pci=(*hosts.GTX_1080_TI, *hosts.INTEL, *hosts.CARDS["blackwell"])
    )
    assert facts(tree)["gpus"] == ["10de:1b06", "10de:2bb5"]


def test_a_host_without_cards_has_none(tmp_path: Path) -> None:
    assert facts(plant(tmp_path, hosts.UBUNTU_2404, pci=hosts.INTEL))["gpus"] == []


def test_the_bound_driver_and_loaded_modules_are_seen(tmp_path: Path) -> None:
    modules = "nouveau 1 0 - Live 0x0\nnvidia_uvm 1 0 - Live 0x0\n"
    tree = plant(tmp_path, hosts.UBUNTU_2404, pci=hosts.TESLA_V100, kernel="6.8.0-49-generic", files={
        "proc/modules": modules, "sys/module/nvidia/version": "580.95.05\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05\n",
    })  # fmt: skip
    (tree / "sys/bus/pci/devices/0000:01:00.0/driver").symlink_to("../../../bus/pci/drivers/nouveau")
    found = facts(tree)
    assert found["gpu_devices"][0]["driver"] == "nouveau"
    assert found["kernel"]["modules"] == ["nouveau", "nvidia_uvm"]
    assert (found["kernel"]["nvidia_version"], found["kernel"]["nvidia_kind"]) == ("580.95.05", "open")


def test_a_program_that_hangs_does_not_hold_up_the_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "READ", shortened := tmp_path / "read.sh")
    shortened.write_text(
        (hosts.ROOT / "roles/platform/files/read.sh").read_text().replace("timeout 15", "timeout 0.2")
    )
    tree = plant(tmp_path / "host", hosts.ASTRA_18, programs={"astra-modeswitch": "sleep 60"})
    assert facts(tree)["protection"]["level"] is None


def test_a_kernel_of_no_known_form_has_no_flavour() -> None:
    assert kernel_flavour("ubuntu", "6.8.0") == ""
