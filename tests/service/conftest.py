"""Inputs that several service tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import CANARY

from outpost.demo import TEMPLATES
from outpost.demo.series import write_series


@pytest.fixture(scope="session")
def head_series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A whole MR head series as files, foot to head, of a patient named by the canary."""
    return write_series(TEMPLATES / "ch2.nii.gz", tmp_path_factory.mktemp("series"), seed=CANARY)
