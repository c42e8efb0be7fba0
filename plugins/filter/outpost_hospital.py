"""What of the hospital's own stays, for the roles: outpost/controller judges, here are the names Ansible calls.

`read` is always what the module outpost_strangers read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.controller import automatic, docker_settings, strangers, timekeeping


def outpost_docker_plan(read: dict[str, Any], wanted: dict[str, Any], language: str = "en") -> dict[str, Any]:
    """What role container_runtime has to do.

    Args:
        read: part `docker`.
        wanted: fields of docker_settings.Wanted, and `packages`, those of the role.
        language: en or ru.

    Returns:
        `faults` (sentences), `text` of daemon.json (empty: it stays), `settings`, `record`, `installs`, `differs` (keys
        we need that the engine runs without), `told` (those of them of which it tells), `pending` (keys of others that
        a restart would bring in), `others` (containers).
    """
    asked = {key: value for key, value in wanted.items() if key != "packages"}
    planned = docker_settings.plan(
        read["settings"], docker_settings.Wanted(**asked), record=read["record"], intended=read["intended"],
        flags=read["flags"], swarm=read["swarm"] not in ("", "inactive"),
    )  # fmt: skip
    record = docker_settings.record_text(planned.ours)
    running = bool(read["answers"])
    differs = docker_settings.differing(planned.settings, read["info"], read["bridge"]) if running else []
    ours, before = planned.ours, docker_settings.recorded(read["record"])
    if not read["record"]:
        # Of a release before the record, or of a run that was cut before the restart: then the file is the newer one.
        before = {} if read["newer"] else dict(ours)
    told = [key for key in differs if key in planned.needed]
    silent = [
        key
        for key in dict.fromkeys([*before, *ours])
        if running and before.get(key) != ours.get(key)
        and not (key in docker_settings.TOLD and key in planned.settings)
    ]  # fmt: skip
    return {
        "faults": [fault.said("ru" if language == "ru" else "en") for fault in planned.faults],
        "text": planned.text,
        "settings": planned.settings,
        "record": record if record != read["record"] or read["intended"] else "",
        "installs": strangers.engine_installs(read, wanted["packages"]),
        "differs": [*told, *silent],
        "told": told,
        "pending": [key for key in differs if key not in planned.needed and key == "data-root"],
        "others": [name for name in read["containers"] if not name.startswith("outpost-")],
    }


def outpost_docker_root(read: Mapping[str, Any]) -> list[str]:
    """The directory of Docker's images where the hospital has moved it; a list of one, or of none."""
    try:
        said = docker_settings.parse(read["settings"]).get("data-root", "")
    except docker_settings.Unreadable:
        said = ""
    root = str(read["info"].get("DockerRootDir") or said)
    return [root] if root.startswith("/") and not root.startswith("/var/lib/") else []


def outpost_time_plan(read: Mapping[str, Any], servers: Sequence[str]) -> dict[str, Any]:
    """keeper, installs, files ([{path, content}]), reads and told of timekeeping.plan."""
    planned = timekeeping.plan(read, [str(server) for server in servers])
    files = [{"path": path, "content": content} for path, content in planned.files.items()]
    return {
        "keeper": planned.keeper, "installs": planned.installs, "files": files, "reads": list(planned.reads),
        "told": list(planned.told),
    }  # fmt: skip


def outpost_excluded(text: str, beginnings: Iterable[str]) -> str:
    """The settings of dnf-automatic with these packages left alone."""
    return automatic.excluded(text, [str(one) for one in beginnings])


def outpost_unset(wanted: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """What of the wanted settings nobody else has set."""
    return {key: value for key, value in wanted.items() if key not in others}


def outpost_account_fault(read: Mapping[str, Any], language: str = "en") -> str:
    """Who has the number of the service's user, or which number the name has; empty where both are free or ours."""
    found = next(iter(strangers.account_lines(read)))
    said = "ru" if language == "ru" else "en"
    return "" if found.ok else f"[{found.code}] {found.value.said(said)}. {found.remedy.said(said)}"


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_account_fault": outpost_account_fault,
            "outpost_docker_plan": outpost_docker_plan,
            "outpost_docker_root": outpost_docker_root,
            "outpost_excluded": outpost_excluded,
            "outpost_time_plan": outpost_time_plan,
            "outpost_unset": outpost_unset,
        }
