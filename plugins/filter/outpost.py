"""Filters of the Outpost playbooks: what a host is, which variable files fit it, and its secrets.

They run on the controller and are plain functions, so the tests call them with the identity files themselves.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# What the roles are written for. The key is os-release's ID, never Ansible's own family or distribution:
# those read "Astra Linux" and "RED" here and match nothing.
SUPPORTED: dict[str, tuple[str, ...]] = {
    "ubuntu": ("22.04", "24.04"),
    "astra": ("1.8",),
    "redos": ("7.3", "8"),
}
SPOKEN = {"ubuntu": "Ubuntu", "astra": "Astra Linux", "redos": "RED OS"}

# Section heads the platform role's read prints between the files.
_SECTION = re.compile(r"^=== (?P<name>[a-z_]+) ===$")


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


def _release(os_id: str, version_id: str) -> str:
    """Reduces VERSION_ID to the name the variable files use.

    Ubuntu "24.04" stays; Astra "1.8_x86-64" becomes "1.8"; RED OS "8.0.2" becomes "8", "7.3.1" becomes "7.3"
    (its 7 line never left 7.3, its 8 line counts updates in the second and third place).
    """
    numbers = re.match(r"\d+(?:\.\d+)*", version_id)
    parts = numbers.group(0).split(".") if numbers else []
    if os_id == "redos" and parts[:1] == ["8"]:
        return "8"
    return ".".join(parts[:2])


def _gpus(text: str) -> list[str]:
    """Picks NVIDIA display devices out of lines "vendor device class" read from sysfs, as "10de:1b06"."""
    found = []
    for line in text.splitlines():
        fields = [field.removeprefix("0x").lower() for field in line.split()]
        if len(fields) == 3 and fields[0] == "10de" and fields[2].startswith("03"):
            found.append(f"{fields[0]}:{fields[1]}")
    return found


def outpost_platform(text: str) -> dict[str, Any]:
    """Turns what the platform role read from a host into the facts every other role uses.

    Args:
        text: sections "=== name ===" holding os_release, package_tools, arch, pci, python.

    Returns:
        id, release, family (deb|rpm), package_manager (apt|dnf), arch, gpus, pretty, python, supported (bool).

    Raises:
        AnsibleFilterError: the read is incomplete, so nothing may be concluded from it.
    """
    sections: dict[str, list[str]] = {}
    name = ""
    for line in text.replace("\r", "").splitlines():
        head = _SECTION.match(line.strip())
        if head:
            name = head["name"]
            sections[name] = []
        elif name:
            sections[name].append(line)
    missing = sorted({"os_release", "package_tools", "arch", "pci", "python"} - sections.keys())
    if missing:
        raise AnsibleFilterError(
            f"The host's answer lacks {', '.join(missing)}: its shell printed something else, "
            f"or the link broke in the middle. Log in by hand and look at what `cat /etc/os-release` prints."
        )
    os_release = parse_os_release("\n".join(sections["os_release"]))
    os_id = os_release.get("ID", "")
    release = _release(os_id, os_release.get("VERSION_ID", ""))
    tools = " ".join(sections["package_tools"]).split()
    # An RPM system may carry dpkg as a tool and the other way round: the first word is the native one.
    family = {"apt-get": "deb", "dnf": "rpm"}.get(tools[0] if tools else "", "")
    return {
        "id": os_id,
        "release": release,
        "family": family,
        "package_manager": {"deb": "apt", "rpm": "dnf"}.get(family, ""),
        "arch": " ".join(sections["arch"]).strip(),
        "gpus": _gpus("\n".join(sections["pci"])),
        "pretty": os_release.get("PRETTY_NAME", os_id or "unknown"),
        "python": " ".join(sections["python"]).strip(),
        "supported": release in SUPPORTED.get(os_id, ()) and bool(family),
    }


def outpost_vars_files(platform: dict[str, Any], role_path: str) -> list[str]:
    """Lists a role's vars/ files for a platform, least specific first: family, id, id-release.

    Raises:
        AnsibleFilterError: the role has no file for the platform; it is never served another system's.
    """
    names = (platform["family"], platform["id"], f"{platform['id']}-{platform['release']}")
    files = [path for name in names if (path := Path(role_path, "vars", f"{name}.yml")).is_file()]
    if not files:
        raise AnsibleFilterError(
            f"Role {Path(role_path).name} knows nothing of {platform['pretty']} ({names[2]}). "
            f"Supported: {supported_list()}."
        )
    return [str(path) for path in files]


def outpost_secret(root: str, label: str, length: int = 32) -> str:
    """Derives the secret named by label from the one root secret (HMAC-SHA512, base32, lower case).

    The same root and label always give the same secret, so there is one thing to keep; no derived secret
    tells anything of the root or of another. Base32 needs no quoting in a shell, YAML, SQL or a URL.
    """
    if root.startswith("example-only"):
        raise AnsibleFilterError(
            "outpost_root_secret is the worthless one of inventories/example, which everybody can read. "
            "Set your own as inventories/example/README.md says."
        )
    if len(root) < 32:
        raise AnsibleFilterError(
            f"outpost_root_secret has {len(root)} characters, at least 32 are needed. "
            f"Make one with `openssl rand -hex 32` and keep it in ansible-vault."
        )
    digest = hmac.new(root.encode(), label.encode(), hashlib.sha512).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()[:length]


def outpost_region(host: dict[str, Any]) -> dict[str, str]:
    """Reduces a region's inventory variables to what the centre needs: title and address over the VPN."""
    return {
        "title": str(host.get("region_title", host["inventory_hostname"])),
        "address": str(host.get("region_address", host.get("ansible_host", host["inventory_hostname"]))),
    }


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_platform": outpost_platform,
            "outpost_region": outpost_region,
            "outpost_secret": outpost_secret,
            "outpost_supported": lambda _: supported_list(),
            "outpost_vars_files": outpost_vars_files,
        }
