"""The playbooks' plugins as plain Python: loaded by path, since their folder is Ansible's, not a package."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from loaded import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def filters() -> ModuleType:
    return load(ROOT / "plugins/filter/outpost.py")


@pytest.fixture(scope="session")
def preflight() -> ModuleType:
    return load(ROOT / "plugins/filter/outpost_preflight.py")


@pytest.fixture(scope="session")
def rule_sets() -> ModuleType:
    return load(ROOT / "plugins/filter/outpost_rules.py")
