"""Inference systems that a host has and the inventory does not name: which they are, and what is a renamed one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from outpost.platform.codes import line
from outpost.platform.line import Line, Words, same

Found = Mapping[str, Mapping[str, Any]]
PLAYBOOK: Final = "playbooks/remove.yml"
_NONE: Final = Words("none", "нет")
_PORT: Final = Words(
    "{new} ({key} {port}) is on the port of {old}, which is on the host and not in the inventory",
    "{new} ({key} {port}) на порту системы {old}, которая есть на узле, но не в инвентаре",
)
_REGION: Final = Words(
    "{system} was set up in region {old}, and the inventory calls the host {new}",
    "{system} настроена в регионе {old}, а инвентарь называет узел {new}",
)


def left(found: Found, staying: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The systems of the host that the inventory does not name. `found`: of the module removal_systems."""
    return {name: dict(system) for name, system in found.items() if name not in staying}


def renamed(found: Found, staying: Found, region: str) -> list[Words]:
    """What makes a new name no new system: its storage, journal and history are under another one on this host."""
    faults = []
    gone: Found = left(found, staying)
    for new, wanted in staying.items():
        for key in ("dicom_port", "api_port"):
            port = int(wanted.get(key) or 0)
            for old, system in gone.items():
                if port and port in (int(system["dicom_port"]), int(system["api_port"])):
                    faults.append(_PORT.by(new=new, key=key, port=port, old=old))
    for name, system in found.items():
        if system["region"] and system["region"] != region:
            faults.append(_REGION.by(system=name, old=system["region"], new=region))
    return faults


def lines(gone: Mapping[str, Any], faults: list[str], look: Mapping[str, Any]) -> list[Line]:
    """For the preflight: systems that left the inventory, names that changed, and where the database is.

    Args:
        gone: as `left` gives it.
        faults: of `renamed`, in the language of the report.
        look: postgresql_look; empty where nobody looked.
    """
    said = [
        line(
            "system-left",
            not gone,
            Words("on the host, not in the inventory: {n}", "на узле, но не в инвентаре: {n}").by(
                n=", ".join(gone)
            )
            if gone
            else _NONE,
            Words("each system of the host in outpost_systems", "каждая система узла в outpost_systems"),
        ),
        line(
            "system-renamed",
            not faults,
            same("; ".join(faults)) if faults else _NONE,
            Words("the names that the host has", "имена те же, что на узле"),
        ),
    ]
    if look:
        stops = look["kind"] == "stop"
        value = look["words"] if stops else look["cluster"].get("data") or Words("to be made", "будет создан")
        wanted = Words(
            "one cluster that holds the database, or none yet", "один кластер с базой или ещё ни одного"
        )
        said.append(line("database-cluster", not stops, value, wanted))
    return said
