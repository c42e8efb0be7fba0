"""Systems that left the inventory: outpost/controller/removal judges, here are the names for the roles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.controller import removal


def outpost_left(found: dict[str, Any], staying: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The systems of the host that the inventory does not name (outpost.controller.removal.left)."""
    return removal.left(found, staying)


def outpost_renamed(
    found: dict[str, Any], staying: dict[str, Any], region: str, language: str = "en"
) -> list[str]:
    """Why a new name is no new system, one line each (outpost.controller.removal.renamed)."""
    faults = removal.renamed(found, staying, region)
    return [fault.said("ru" if language == "ru" else "en") for fault in faults]


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {"outpost_left": outpost_left, "outpost_renamed": outpost_renamed}
