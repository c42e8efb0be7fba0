"""Which cluster of PostgreSQL is ours: outpost/controller/clusters judges, here are the names for the roles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.controller import clusters
from outpost.platform.line import Language


def outpost_cluster(read: dict[str, Any], wanted: dict[str, Any], language: str = "en") -> dict[str, Any]:
    """`kind` (use, create, install, stop), `cluster`, `words` of outpost.controller.clusters.choose."""
    asked = clusters.Wanted(
        database=str(wanted["database"]),
        port=int(wanted["port"]),
        family=str(wanted["family"]),
        cluster=str(wanted.get("cluster") or ""),
        anew=bool(wanted.get("anew")),
    )
    return clusters.as_json(clusters.choose(read, asked), "ru" if language == "ru" else "en")


def outpost_upgrade_target(read: dict[str, Any], name: str, family: str) -> dict[str, Any]:
    """The cluster that an upgrade goes to (outpost.controller.clusters.upgrade_target)."""
    return clusters.upgrade_target(read, name, family)


@pass_context
def outpost_upgrade_fault(
    context: Context,
    old: dict[str, Any],
    new: dict[str, Any],
    name: str,
    database: str,
    installed: dict[str, str],
) -> str:
    """Why an upgrade cannot be made, in the inventory's language; empty where it can."""
    language: Language = "ru" if context.get("outpost_language") == "ru" else "en"
    return clusters.upgrade_fault(old, new, name, database, installed).said(language)


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_cluster": outpost_cluster,
            "outpost_upgrade_fault": outpost_upgrade_fault,
            "outpost_upgrade_target": outpost_upgrade_target,
        }
