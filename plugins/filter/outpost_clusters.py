"""Which cluster of PostgreSQL is ours: outpost/controller/clusters judges, here is the name for the roles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.controller import clusters


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


class FilterModule:
    """Tells Ansible the name."""

    def filters(self) -> dict[str, Any]:
        return {"outpost_cluster": outpost_cluster}
