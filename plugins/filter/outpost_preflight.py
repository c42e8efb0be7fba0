"""The preflight verdict: what a host offers against what the inventory asks of it.

One list of checks, each with a stable code, the value seen, the value wanted and the remedy. Codes are
documented in docs/preflight.md; a code never changes its meaning.
"""

from __future__ import annotations

import re
from typing import Any

_SYSTEM_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}")
_SYSTEM_KEYS = {"dicom_port", "api_port", "cores", "memory_mib"}


def _check(code: str, ok: bool, value: Any, wanted: Any, remedy: str) -> dict[str, Any]:
    return {"code": code, "ok": bool(ok), "value": str(value), "wanted": str(wanted), "remedy": remedy}


def outpost_inventory_checks(systems: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Judges the inventory's systems alone; needs no host.

    Args:
        systems: name -> dicom_port, api_port (TCP), cores (number), memory_mib (MiB).
    """
    checks = []
    for name, wanted in systems.items():
        checks.append(
            _check(
                "system-name",
                _SYSTEM_NAME.fullmatch(name),
                name,
                "a letter, then 1 to 30 of a-z 0-9 -",
                f"Rename the system {name!r} in outpost_systems.",
            )
        )
        missing, unknown = sorted(_SYSTEM_KEYS - wanted.keys()), sorted(wanted.keys() - _SYSTEM_KEYS)
        checks.append(
            _check(
                "system-keys",
                not missing and not unknown,
                ", ".join([f"no {key}" for key in missing] + [f"unknown {key}" for key in unknown])
                or "complete",
                ", ".join(sorted(_SYSTEM_KEYS)),
                f"Correct outpost_systems.{name} in the region's file.",
            )
        )
    ports: dict[int, list[str]] = {}
    for name, wanted in systems.items():
        for key in ("dicom_port", "api_port"):
            ports.setdefault(int(wanted.get(key, 0)), []).append(f"{name}.{key}")
    shared = {port: users for port, users in ports.items() if len(users) > 1}
    checks.append(
        _check(
            "ports-distinct",
            not shared,
            "; ".join(f"{port} used by {' and '.join(users)}" for port, users in shared.items())
            or "distinct",
            "one port each",
            "Give every system of the host its own dicom_port and api_port.",
        )
    )
    return checks


def outpost_preflight(
    read: dict[str, Any],
    systems: dict[str, dict[str, Any]],
    clock: float,
    disk_min_mib: int,
    memory_reserve_mib: int,
    clock_skew_max: int,
    extra_ports: dict[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Judges a host against its systems.

    Args:
        read: what the module preflight_read returned.
        systems: as in outpost_inventory_checks.
        clock: the controller's time, seconds since 1970, taken when the host was asked.
        disk_min_mib: free MiB wanted under each path read.
        memory_reserve_mib: MiB kept for the system and the database beside the systems' sum.
        clock_skew_max: seconds the host's clock may be off.
        extra_ports: unit name -> port, for services beside the systems (the fleet page).
    """
    asked_memory = sum(int(system["memory_mib"]) for system in systems.values()) + int(memory_reserve_mib)
    asked_cores = sum(float(system["cores"]) for system in systems.values())
    skew = abs(float(read["clock"]) - float(clock))
    checks = [
        _check("init-systemd", read["pid1"] == "systemd", read["pid1"], "systemd",
               "Outpost runs under systemd; install the system with its own init."),
        _check("rights-root", read["uid"] == 0, f"uid {read['uid']}", "uid 0",
               "Connect as root, or as a user with sudo and set ansible_become_password."),
        _check("memory", read["memory_mib"] >= asked_memory, f"{read['memory_mib']} MiB",
               f"at least {asked_memory} MiB", "Lower memory_mib of the systems, or move one to another host."),
        _check("cores", read["cores"] >= asked_cores, read["cores"], f"at least {asked_cores:g}",
               "Lower cores of the systems, or move one to another host."),
        _check("clock", skew <= int(clock_skew_max), f"{skew:.0f} s off the controller",
               f"at most {clock_skew_max} s", "Set it (`timedatectl set-time`), then look at `chronyc sources`."),
    ]  # fmt: skip
    for path, free in read["disk_free_mib"].items():
        checks.append(
            _check("disk", free >= int(disk_min_mib), f"{free} MiB free at {path}", f"at least {disk_min_mib} MiB",
                   f"Free space under {path}; `du -xh {path} | sort -h | tail` names the largest.")
        )  # fmt: skip
    wanted_ports = [
        (f"outpost@{name}.service", int(system[key]))
        for name, system in systems.items()
        for key in ("dicom_port", "api_port")
    ] + [(unit, int(port)) for unit, port in (extra_ports or {}).items()]
    for unit, port in wanted_ports:
        holder = read["listening"].get(str(port))
        checks.append(
            _check("port-free", holder is None or unit in read["units"], f"{port} held by {holder or 'nobody'}",
                   f"free, or held by {unit}",
                   f"Stop {holder} (`ss -ltnp sport = :{port}`), or choose another port in outpost_systems.")
        )  # fmt: skip
    return checks


def outpost_failed(checks: list[dict[str, Any]]) -> list[str]:
    """Renders the failed checks, a line each, for one message."""
    return [
        f"[{check['code']}] is: {check['value']}; wanted: {check['wanted']}. {check['remedy']}"
        for check in checks
        if not check["ok"]
    ]


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_failed": outpost_failed,
            "outpost_inventory_checks": outpost_inventory_checks,
            "outpost_preflight": outpost_preflight,
        }
