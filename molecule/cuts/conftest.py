"""A chain of cuts on one system is a lane (tests/lanes/lanes.py), recorded in proven.json."""

from __future__ import annotations

import pytest
from recording import record_lanes


def pytest_configure(config: pytest.Config) -> None:
    record_lanes(config)
