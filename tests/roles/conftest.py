"""The playbooks' plugins as plain Python: loaded by path, since their folder is Ansible's, not a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"outpost_plugin_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def filters() -> ModuleType:
    return _load(ROOT / "plugins/filter/outpost.py")


@pytest.fixture(scope="session")
def preflight() -> ModuleType:
    return _load(ROOT / "plugins/filter/outpost_preflight.py")


@pytest.fixture(scope="session")
def rule_sets() -> ModuleType:
    return _load(ROOT / "plugins/filter/outpost_rules.py")
