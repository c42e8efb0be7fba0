"""Filters of the Outpost playbooks: what a host is, which variable files fit it, and its secrets.

They run on the controller and are plain functions, so the tests call them with the identity files themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# The same code serves the command `outpost platform`; it needs the standard library only.
sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.derived import configured, derived, system_tokens
from outpost.platform.facts import ReadError, facts_of, supported_list


def outpost_platform(text: str) -> dict[str, Any]:
    """Turns what the platform role read from a host into the facts every other role uses (roles/platform/README.md).

    Raises:
        AnsibleFilterError: the read is incomplete, so nothing may be concluded from it.
    """
    try:
        return facts_of(text)
    except ReadError as error:
        raise AnsibleFilterError(str(error)) from error


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
    try:
        return derived(root, label, length)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def outpost_logins(roles: list[dict[str, Any]], root: str) -> list[dict[str, str]]:
    """Roles of a database, each `name` and `label`, as `name` and `password`."""
    return [{"name": role["name"], "password": outpost_secret(root, role["label"])} for role in roles]


def outpost_tokens(systems: dict[str, Any], root: str, host: str) -> dict[str, dict[str, str]]:
    """The tokens of each system's API by role: read, send, admin."""
    try:
        return {system: system_tokens(root, host, system) for system in systems}
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def outpost_region(host: dict[str, Any]) -> dict[str, str]:
    """Reduces a region's inventory variables to what the centre needs: title, address, and port if it says one."""
    port = {"port": str(host["postgresql_port"])} if host.get("postgresql_port") else {}
    return {
        "title": str(host.get("region_title", host["inventory_hostname"])),
        "address": str(host.get("region_address", host.get("ansible_host", host["inventory_hostname"]))),
        **port,
    }


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_logins": outpost_logins,
            "outpost_platform": outpost_platform,
            "outpost_region": outpost_region,
            "outpost_secret": outpost_secret,
            "outpost_token_entries": configured,
            "outpost_tokens": outpost_tokens,
            "outpost_supported": lambda _: supported_list(),
            "outpost_vars_files": outpost_vars_files,
        }
