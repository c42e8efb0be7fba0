"""Each file here is a lane of its own (tests/lanes/lanes.py): `make test` asks for its record only."""

from __future__ import annotations

import pytest
from recording import record_lanes


def pytest_configure(config: pytest.Config) -> None:
    record_lanes(config)
