"""The platform facts, from what the vendors' identity files say.

The contents are facts read off real systems (os-release, ID, VERSION_ID and PRETTY_NAME lines; the reference notes
of this project name where each was seen). Shown: what Ansible's own facts get wrong, ours get right.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import pytest
from ansible.errors import AnsibleFilterError

UBUNTU_2404 = (
    'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n'
)
UBUNTU_2204 = 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\n'
ASTRA_18 = 'PRETTY_NAME="Astra Linux"\nNAME="Astra Linux"\nID=astra\nID_LIKE=debian\nVERSION_ID=1.8_x86-64\n'
ASTRA_17 = 'PRETTY_NAME="Astra Linux"\nNAME="Astra Linux"\nID=astra\nVERSION_ID=1.7_x86-64\nVARIANT_ID=se\n'
ASTRA_CE = 'NAME="Astra Linux (Orel)"\nID=astra\nVERSION_ID=2.12.22\nVARIANT_ID=orel\n'
REDOS_73 = 'NAME="RED OS"\nID="redos"\nVERSION_ID="7.3"\nPRETTY_NAME="RED OS MUROM (7.3.6)"\n'
REDOS_731 = REDOS_73.replace('"7.3"', '"7.3.1"')
REDOS_802 = 'NAME="RED OS"\nID="redos"\nVERSION_ID="8.0.2"\nPRETTY_NAME="RED OS 8.0.2"\n'
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'


def answer(os_release: str, tools: str = "apt-get", pci: str = "", python: str = "3.11.2") -> str:
    return (
        f"=== os_release ===\n{os_release}=== package_tools ===\n{tools}\n=== arch ===\nx86_64\n"
        f"=== pci ===\n{pci}\n=== python ===\n{python}\n"
    )


@pytest.mark.parametrize(
    ("os_release", "tools", "wanted"),
    [
        (UBUNTU_2404, "apt-get", ("ubuntu", "24.04", "deb", "apt", True)),
        (UBUNTU_2204, "apt-get", ("ubuntu", "22.04", "deb", "apt", True)),
        (ASTRA_18, "apt-get", ("astra", "1.8", "deb", "apt", True)),
        (ASTRA_17, "apt-get", ("astra", "1.7", "deb", "apt", False)),
        (ASTRA_CE, "apt-get", ("astra", "2.12", "deb", "apt", False)),
        (REDOS_73, "dnf", ("redos", "7.3", "rpm", "dnf", True)),
        (REDOS_731, "dnf", ("redos", "7.3", "rpm", "dnf", True)),
        (REDOS_802, "dnf", ("redos", "8", "rpm", "dnf", True)),
        (DEBIAN, "apt-get", ("debian", "12", "deb", "apt", False)),
        (REDOS_802, "", ("redos", "8", "", "", False)),
    ],
)
def test_each_identity_file_gives_the_platform_its_vendor_means(
    filters: ModuleType, os_release: str, tools: str, wanted: tuple[str, str, str, str, bool]
) -> None:
    found = filters.outpost_platform(answer(os_release, tools))
    assert (
        found["id"],
        found["release"],
        found["family"],
        found["package_manager"],
        found["supported"],
    ) == wanted


def test_only_nvidia_display_devices_count_as_gpus(filters: ModuleType) -> None:
    pci = (
        "0x10de 0x1b06 0x030000\n"  # GeForce GTX 1080 Ti
        "0x10de 0x10ef 0x040300\n"  # its HDMI audio
        "0x10de 0x1db6 0x030200\n"  # Tesla V100, no display output
        "0x8086 0x1912 0x030000\n"  # another vendor's display
    )
    assert filters.outpost_platform(answer(UBUNTU_2404, pci=pci))["gpus"] == ["10de:1b06", "10de:1db6"]


def test_an_answer_broken_off_in_the_middle_is_an_error_not_a_platform(filters: ModuleType) -> None:
    with pytest.raises(AnsibleFilterError, match=r"lacks .*pci, python.* by hand"):
        filters.outpost_platform(answer(UBUNTU_2404).split("=== pci")[0])


def test_a_terminals_carriage_returns_do_not_matter(filters: ModuleType) -> None:
    assert filters.outpost_platform(answer(ASTRA_18).replace("\n", "\r\n"))["release"] == "1.8"


def test_variable_files_come_least_specific_first(filters: ModuleType, tmp_path: Path) -> None:
    role = tmp_path / "somerole"
    (role / "vars").mkdir(parents=True)
    for name in ("deb", "astra", "astra-1.8", "rpm"):
        (role / "vars" / f"{name}.yml").touch()
    platform = filters.outpost_platform(answer(ASTRA_18))
    found = filters.outpost_vars_files(platform, str(role))
    assert [path.rsplit("/", 1)[1] for path in found] == ["deb.yml", "astra.yml", "astra-1.8.yml"]


def test_a_role_without_files_for_the_platform_stops_with_the_supported_list(
    filters: ModuleType, tmp_path: Path
) -> None:
    platform = filters.outpost_platform(answer(REDOS_802, "dnf"))
    with pytest.raises(
        AnsibleFilterError, match=r"redos-8.*Supported: Ubuntu 22.04, 24.04; Astra Linux 1.8; RED OS 7.3, 8"
    ):
        filters.outpost_vars_files(platform, str(tmp_path))


def test_derived_secrets_are_stable_distinct_and_need_no_quoting(filters: ModuleType) -> None:
    root = hashlib.sha256(b"a root secret of the tests").hexdigest()
    one = filters.outpost_secret(root, "postgres/chita/outpost_recorder")
    assert one == filters.outpost_secret(root, "postgres/chita/outpost_recorder")
    assert one != filters.outpost_secret(root, "postgres/tver/outpost_recorder")
    assert one != filters.outpost_secret(root[::-1], "postgres/chita/outpost_recorder")
    assert len(one) == 32
    assert one.isalnum()


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("", "not set"),
        ("short", "5 characters"),
        ("example-only-replace" * 3, "everybody can read"),
        ("0123456789abcdef" * 4, "quickly guessed"),
        ("a" * 64, "quickly guessed"),
        ("0101" * 15 + "11", "quickly guessed"),
        (12345678901234567890123456789012345, "not a text"),
        (None, "not a text"),
    ],
)
def test_a_weak_root_secret_is_refused_with_the_way_to_make_one(
    filters: ModuleType, root: object, reason: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=reason):
        filters.outpost_secret(root, "any")
