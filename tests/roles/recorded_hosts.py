"""Root trees of hosts as vendors make them, for the platform role's real read: files, sysfs, and programs that answer.

Contents are facts read off real systems: Astra's and RED OS's identity files are whole, as they were quoted from
hosts and images in public. What programs say is as short as their parsers need.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ = ROOT / "roles/platform/files/read.sh"

ASTRA_18 = """PRETTY_NAME="Astra Linux"
NAME="Astra Linux"
ID=astra
ID_LIKE=debian
ANSI_COLOR="1;31"
HOME_URL="https://astralinux.ru"
SUPPORT_URL="https://astralinux.ru/support"
LOGO=astra
VERSION_ID=1.8_x86-64
VERSION_CODENAME=1.8_x86-64
"""
ASTRA_17 = ASTRA_18.replace("1.8_", "1.7_")
ASTRA_17_SE = ASTRA_17 + "VARIANT_ID=se\n"
ASTRA_CE = 'NAME="Astra Linux (Orel)"\nID=astra\nVERSION_ID=2.12.22\nVARIANT_ID=orel\n'
REDOS_73 = """NAME="RED OS"
VERSION="MUROM (7.3.6)"
PLATFORM_ID="platform:el7"
ID="redos"
ID_LIKE="rhel centos fedora"
VERSION_ID="7.3"
PRETTY_NAME="RED OS MUROM (7.3.6)"
ANSI_COLOR="0;31"
CPE_NAME="cpe:/o:redos:redos:7"
HOME_URL="https://redos.red-soft.ru/"
BUG_REPORT_URL="https://support.red-soft.ru/"
EDITION="Standard"
"""
REDOS_731 = REDOS_73.replace('"7.3"', '"7.3.1"').replace("7.3.6", "7.3.1")
REDOS_732 = REDOS_73.replace('"7.3"', '"7.3.2"').replace("7.3.6", "7.3.2")
REDOS_73_CERTIFIED = REDOS_73.replace('"Standard"', '"Certified"')
REDOS_802 = """NAME="RED OS"
VERSION="8.0.2"
PLATFORM_ID="platform:red80"
ID="redos"
ID_LIKE="rhel centos fedora"
VERSION_ID="8.0.2"
PRETTY_NAME="RED OS 8.0.2"
ANSI_COLOR="0;31"
CPE_NAME="cpe:/o:redos:redos:8"
HOME_URL="https://redos.red-soft.ru/"
BUG_REPORT_URL="https://support.red-soft.ru/"
EDITION="Standard"
"""
REDOS_803 = REDOS_802.replace(
    'PRETTY_NAME="RED OS 8.0.2"', 'PRETTY_NAME="RED OS 8.0.3 (Standard Desktop)"'
).replace("8.0.2", "8.0.3")
UBUNTU_2404 = """PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.1 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
"""
UBUNTU_2204 = """PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
"""

# PCI functions as "vendor device class": a card, its audio, a headless card, a bridge, another vendor's display.
GTX_1080_TI = ("10de 1b06 030000", "10de 10ef 040300")
TESLA_V100 = ("10de 1db6 030200",)
A100_NVSWITCH = ("10de 20b0 030200", "10de 1af1 068000")
INTEL = ("8086 1912 030000",)
CARDS = {
    "kepler": ("10de 102d 030200",),
    "maxwell": ("10de 17c8 030000",),
    "pascal": GTX_1080_TI,
    "volta": TESLA_V100,
    "turing": ("10de 1eb8 030200",),
    "ampere": A100_NVSWITCH,
    "ada": ("10de 2684 030000", "10de 22ba 040300"),
    "hopper": ("10de 2331 030200",),
    "blackwell": ("10de 2bb5 030200",),
}

PROGRAM = "#!/bin/sh\n"


def plant(
    root: Path,
    os_release: str,
    *,
    tool: str = "apt-get",
    pci: tuple[str, ...] = (),
    kernel: str = "",
    compiler: str = "12.2.0",
    headers: tuple[str, ...] = (),
    without_headers: tuple[str, ...] = (),
    files: dict[str, str | bytes] | None = None,
    programs: dict[str, str] | None = None,
) -> Path:
    """Makes a host's tree under root.

    Args:
        root: an empty directory.
        os_release: content of /etc/os-release.
        tool: the package manager that is there.
        pci: functions, as the constants above.
        kernel: the running release; it has a directory of modules.
        compiler: the gcc that built it.
        headers: kernels with headers.
        without_headers: installed kernels that have none.
        files: more files, by path from the root.
        programs: name -> body of a shell script in /usr/bin.
    """
    content: dict[str, str | bytes] = {"etc/os-release": os_release, **(files or {})}
    if kernel:
        content["proc/sys/kernel/osrelease"] = kernel + "\n"
        content["proc/version"] = (
            f"Linux version {kernel} (builder@host) (gcc (Vendor {compiler}-1) {compiler}, GNU ld) #1\n"
        )
        content[f"lib/modules/{kernel}/modules.builtin"] = ""
    for release in headers:
        content[f"lib/modules/{release}/build/Makefile"] = ""
    for release in without_headers:
        content[f"lib/modules/{release}/modules.builtin"] = ""
    for slot, function in enumerate(pci):
        vendor, device, device_class = function.split()
        where = f"sys/bus/pci/devices/0000:{slot + 1:02x}:00.0"
        content |= {
            f"{where}/vendor": f"0x{vendor}\n",
            f"{where}/device": f"0x{device}\n",
            f"{where}/class": f"0x{device_class}\n",
            f"{where}/subsystem_vendor": "0x1043\n",
            f"{where}/subsystem_device": "0x85e4\n",
        }
    for path, text in content.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
    scripts = {"uname": "echo x86_64", "python3": "echo Python 3.11.2", tool: "exit 1", **(programs or {})}
    for name, body in scripts.items():
        program = root / "usr/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PROGRAM + body + "\n")
        program.chmod(0o755)
    return root


def read(root: Path, *more: Path) -> str:
    """What the role's own script (and further ones in the same shell) prints of a tree."""
    head = f"ROOT={root}\nOS_RELEASE={root}/etc/os-release\nPCI_ROOT={root}/sys/bus/pci/devices\n"
    script = head + "\n".join(path.read_text() for path in (READ, *more))
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == "", ended.stderr
    return ended.stdout
