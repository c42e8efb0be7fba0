"""Facts of a host out of what roles/platform/files/read.sh printed there.

Ansible's own names are of no use here: Astra Linux is of the family "Astra Linux", RED OS of "RED", and
Astra 1.7 and 1.8 both have the major version 1. Everything is keyed on os-release's ID, and what was not read stays
None, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from outpost.platform.gpus import Gpu, lookup

# What the roles are written for.
SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "ubuntu": ("22.04", "24.04"),
    "astra": ("1.8",),
    "redos": ("7.3", "8"),
}
SPOKEN: Final[Mapping[str, str]] = {"ubuntu": "Ubuntu", "astra": "Astra Linux", "redos": "RED OS"}

# Sections a read always has; `python` comes last, so an answer that broke off lacks it.
_ALWAYS: Final = frozenset({"os_release", "package_tools", "arch", "pci", "python"})
_HEAD = re.compile(r"^=== (?P<name>[a-z_]+) ===$")
# Astra's protection levels: by number (astra-modeswitch), and by the names in its licence file.
_LEVELS: Final[Mapping[str, tuple[int, str]]] = {
    "orel": (0, "base"),
    "voronezh": (1, "advanced"),
    "smolensk": (2, "maximum"),
}
_DIGSIG_STATES: Final[Mapping[int, str]] = {0: "off", 1: "enforcing", 2: "log"}
_LOCKS: Final = (
    "interpreters-lock",
    "nochmodx-lock",
    "bash-lock",
    "sudo-control",
    "ptrace-lock",
    "mic-control",
    "mac-control",
)
_INACTIVE = re.compile(r"inactive|disabled|not active|off\b|выключен|неактивн|отключен", re.IGNORECASE)
_ACTIVE = re.compile(r"active|enabled|on\b|включен|активн", re.IGNORECASE)


class ReadError(ValueError):
    """The host's answer is no whole read; nothing may be concluded from it."""


def supported_list() -> str:
    """Returns the supported systems as one line for a message: "Ubuntu 22.04, 24.04; Astra Linux 1.8; ..."."""
    return "; ".join(f"{SPOKEN[name]} {', '.join(releases)}" for name, releases in SUPPORTED.items())


def parse_os_release(text: str) -> dict[str, str]:
    """Reads os-release text into a dict; values may be bare, single or double quoted."""
    pairs = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            pairs[key] = value.strip().strip("\"'")
    return pairs


def sections_of(text: str) -> dict[str, list[str]]:
    """Splits a read into its sections.

    Raises:
        ReadError: sections that are always there are missing.
    """
    sections: dict[str, list[str]] = {}
    name = ""
    for line in text.replace("\r", "").splitlines():
        head = _HEAD.match(line.strip())
        if head:
            name = head["name"]
            sections[name] = []
        elif name:
            sections[name].append(line)
    missing = sorted(_ALWAYS - sections.keys())
    if missing:
        raise ReadError(
            f"The host's answer lacks {', '.join(missing)}: its shell printed something else, "
            f"or the link broke in the middle. Log in by hand and look at what `cat /etc/os-release` prints."
        )
    return sections


def facts_of(text: str) -> dict[str, Any]:
    """Turns a read into the facts every role uses; roles/platform/README.md describes each.

    Raises:
        ReadError: the read is incomplete.
    """
    return facts_of_sections(sections_of(text))


def facts_of_sections(sections: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """As facts_of, of sections already split; a file of collect.yml holds them so."""

    def pairs(name: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in sections.get(name, ()) if "=" in line)

    os_release = parse_os_release("\n".join(sections["os_release"]))
    os_id = os_release.get("ID", "")
    release = release_of(os_id, os_release.get("VERSION_ID", ""))
    tools = " ".join(sections["package_tools"]).split()
    # An RPM system may carry dpkg as a tool and the other way round: the first word is the native one.
    family = {"apt-get": "deb", "dnf": "rpm"}.get(tools[0] if tools else "", "")
    arch = " ".join(sections["arch"]).strip()
    devices = gpu_devices(sections["pci"])
    astra = pairs("astra")
    return {
        "id": os_id,
        "release": release,
        "version": _full_version(os_id, os_release, astra),
        "edition": _edition(os_id, os_release),
        "codename": os_release.get("VERSION_CODENAME", ""),
        "family": family,
        "package_manager": {"deb": "apt", "rpm": "dnf"}.get(family, ""),
        "arch": arch,
        "pretty": os_release.get("PRETTY_NAME") or os_release.get("NAME") or os_id or "unknown",
        "python": " ".join(sections["python"]).strip(),
        "supported": release in SUPPORTED.get(os_id, ()) and bool(family),
        "gpus": [device["id"] for device in devices],
        "gpu_devices": devices,
        "kernel": _kernel(os_id, sections, arch),
        "secure_boot": _secure_boot(sections.get("secure_boot", ())),
        "protection": _protection(os_id, os_release, astra),
        "digsig": _digsig(pairs("digsig")),
        "locks": _locks(pairs("locks")),
        "virtualization": " ".join(sections.get("virtualization", ())).strip(),
    }


def release_of(os_id: str, version_id: str) -> str:
    """Reduces VERSION_ID to the name the variable files use.

    Ubuntu "24.04" stays; Astra "1.8_x86-64" becomes "1.8"; RED OS "8.0.2" becomes "8", "7.3.1" becomes "7.3"
    (its 7 line never left 7.3, its 8 line counts updates in the second and third place).
    """
    numbers = re.match(r"\d+(?:\.\d+)*", version_id)
    parts = numbers.group(0).split(".") if numbers else []
    if os_id == "redos" and parts[:1] == ["8"]:
        return "8"
    return ".".join(parts[:2])


def gpu_devices(lines: Sequence[str]) -> list[dict[str, Any]]:
    """NVIDIA display devices of lines "vendor device class [slot [subsystem vendor, device] [driver]]".

    A card's audio function (class 0x0403) and bridges such as NVSwitch (0x0680) are no GPUs.
    """
    found = []
    for line in lines:
        fields = [field.removeprefix("0x").lower() for field in line.split()]
        if len(fields) < 3 or fields[0] != "10de" or not fields[2].startswith("03"):
            continue
        gpu = lookup(f"{fields[0]}:{fields[1]}")
        found.append(
            {
                **_described(gpu),
                "slot": fields[3] if len(fields) > 3 else "",
                "subsystem": ":".join(fields[4:6]) if len(fields) > 6 else "",
                "driver": "" if fields[-1] == "none" or len(fields) < 5 else fields[-1],
            }
        )
    return found


def _described(gpu: Gpu) -> dict[str, Any]:
    return {
        "id": gpu.id,
        "name": gpu.name,
        "chip": gpu.chip,
        "architecture": gpu.architecture,
        "compute_capability": gpu.compute_capability,
        "known_by": gpu.known_by,
    }


def _full_version(os_id: str, os_release: Mapping[str, str], astra: Mapping[str, str]) -> str:
    """The most exact version there is: Astra's build ("1.8.1.16"), RED OS's minor ("7.3.6" of "MUROM (7.3.6)")."""
    if os_id == "astra":
        return astra.get("build") or astra.get("version") or os_release.get("VERSION_ID", "").split("_")[0]
    said = re.search(r"\d+(?:\.\d+)+", os_release.get("VERSION", ""))
    version_id = os_release.get("VERSION_ID", "")
    return said.group(0) if said and said.group(0).startswith(version_id) else version_id


def _edition(os_id: str, os_release: Mapping[str, str]) -> str:
    """RED OS: "standard" or "certified"; Astra: its variant ("se", "orel") where it says one; else empty."""
    return os_release.get({"redos": "EDITION", "astra": "VARIANT_ID"}.get(os_id, ""), "").lower()


def _protection(os_id: str, os_release: Mapping[str, str], astra: Mapping[str, str]) -> dict[str, Any]:
    """Astra's protection level, 0 base (Orel), 1 advanced (Voronezh), 2 maximum (Smolensk); None where unknown.

    os-release does not tell it; astra-modeswitch does, and else the words of the licence file.
    """
    if os_id != "astra":
        return {"level": None, "name": ""}
    if astra.get("mode", "").strip() in ("0", "1", "2"):
        level = int(astra["mode"])
        return {"level": level, "name": ("base", "advanced", "maximum")[level]}
    words = " ".join(
        [astra.get("mode_name", ""), astra.get("license", ""), os_release.get("VARIANT_ID", "")]
    ).lower()
    for word, (level, name) in _LEVELS.items():
        if word in words:
            return {"level": level, "name": name}
    return {"level": None, "name": ""}


def _digsig(read: Mapping[str, str]) -> dict[str, Any]:
    """Astra's closed software environment: "off", "log", "enforcing", or "absent" where the host has none.

    Mode 2 is taken for "log" from memory of the vendor's text; unconfirmed.
    """
    mode_text = read.get("DIGSIG_ELF_MODE", "").strip().strip("\"'")
    mode = int(mode_text) if mode_text in ("0", "1", "2") else None
    loaded = read.get("loaded") == "yes"
    if mode is not None:
        state = _DIGSIG_STATES[mode]
    elif loaded:
        state = "enforcing"  # the module is there and its mode unreadable: the careful reading
    else:
        state = "absent"
    return {"state": state, "mode": mode, "loaded": loaded}


def _locks(read: Mapping[str, str]) -> dict[str, bool | None]:
    """Astra's locks: True active, False inactive, None absent or unreadable.

    Its tools say it in words, or by their exit status.
    """
    found: dict[str, bool | None] = {}
    for lock in _LOCKS:
        answer = read.get(lock)
        name = lock.removesuffix("-lock").removesuffix("-control").replace("-", "_")
        if answer is None:
            found[name] = None
            continue
        status, _, words = answer.partition(" ")
        if _INACTIVE.search(words):
            found[name] = False
        elif _ACTIVE.search(words):
            found[name] = True
        else:
            found[name] = {"0": True, "1": False}.get(status)
    return found


def _kernel(os_id: str, sections: Mapping[str, Sequence[str]], arch: str) -> dict[str, Any]:
    read: dict[str, list[str]] = {}
    for line in sections.get("kernel", ()):
        key, separator, value = line.partition("=")
        if separator:
            read.setdefault(key, []).append(value.strip())

    def one(key: str) -> str:
        return (read.get(key) or [""])[0]

    release = one("release")
    installed = {line.split()[0]: line.endswith(" headers") for line in read.get("installed", ()) if line}
    owner = " ".join(sections.get("kernel_owner", ())).split()
    flavour = kernel_flavour(os_id, release, owner[0] if owner else "")
    package = headers_package(os_id, release, flavour, arch)
    candidates = [
        line.partition("=")[2].strip()
        for line in sections.get("headers_candidate", ())
        if line.startswith("candidate=")
    ]
    asked = bool(sections.get("headers_candidate"))
    available = any(candidate != "(none)" for candidate in candidates) if asked else None
    compiler = re.search(r"\((?:x86_64-linux-gnu-)?gcc[^)]*\)[ )]*(\d[\d.]*)", one("version")) or re.search(
        r"gcc[^,]*?(\d+\.\d+[\d.]*)", one("version")
    )
    return {
        "release": release,
        "flavour": flavour,
        "headers_package": package,
        "headers_present": installed.get(release) if release else None,
        "headers_available": available,
        "installed": sorted(installed),
        "without_headers": sorted(name for name, has in installed.items() if not has),
        "compiler": compiler.group(1) if compiler else "",
        "tools": {tool: one(tool) for tool in ("gcc", "make", "dkms")},
        "modules": sorted(read.get("module", ())),
        "nvidia_version": one("nvidia"),
        "nvidia_kind": one("nvidia_kind") or ("proprietary" if one("nvidia") else ""),
    }


def kernel_flavour(os_id: str, release: str, owner: str = "") -> str:
    """The kernel's flavour: "generic", "hardened"; on RED OS "kernel", "kernel-lt", "kernel-rt"; empty when unknown.

    Args:
        os_id: os-release's ID.
        release: what `uname -r` prints.
        owner: RED OS: name of the package that owns the running kernel's files; `uname -r` does not tell it.
    """
    if os_id == "redos":
        if owner:
            return re.sub(r"-(core|modules.*)$", "", owner)
        return "kernel-rt" if release.endswith("-rt") else ""
    tail = re.search(r"-([a-z][a-z0-9-]*)$", release)
    return tail.group(1) if tail else ""


def headers_package(os_id: str, release: str, flavour: str, arch: str) -> str:
    """Name of the package with the headers of kernel `release`, empty where it cannot be told.

    Ubuntu, Astra: linux-headers-RELEASE. RED OS: FLAVOUR-devel-RELEASE as dnf wants it, which needs the flavour.
    """
    if not release:
        return ""
    if os_id == "redos":
        bare = release.removesuffix("-rt").removesuffix(f".{arch}") if arch else release
        return f"{flavour}-devel-{bare}" if flavour else ""
    return f"linux-headers-{release}"


def _secure_boot(lines: Sequence[str]) -> dict[str, Any]:
    """Secure Boot: "enabled", "disabled", "unsupported" (no UEFI) or "unknown"; whether a key of ours is enrolled."""
    read: dict[str, str] = {}
    keys = []
    for line in lines:
        name, separator, value = line.partition("=")
        if separator and name == "key":
            keys.append(value)
        elif separator:
            read[name] = value.strip()
    if not lines:
        state = "unknown"
    elif read.get("SecureBoot") in ("0", "1"):
        # In setup mode nothing is verified yet, whatever the variable says.
        state = "enabled" if read["SecureBoot"] == "1" and read.get("SetupMode") != "1" else "disabled"
    elif "SecureBoot enabled" in read.get("mokutil", ""):
        state = "enabled"
    elif "SecureBoot disabled" in read.get("mokutil", ""):
        state = "disabled"
    else:
        state = "unknown" if read.get("firmware") == "uefi" else "unsupported"
    locked = re.search(r"\[(\w+)\]", read.get("lockdown", ""))
    enrolled = any("is already enrolled" in key for key in keys) if keys or "mokutil" in read else None
    return {"state": state, "key_enrolled": enrolled, "lockdown": locked.group(1) if locked else ""}
