"""Inputs that several service tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import running

from outpost.demo import TEMPLATES
from outpost.demo.series import write_series

# Stands in every name and identifier of the test patient; it may appear in no log.
CANARY = "KANAREYKA"


@pytest.fixture(scope="session")
def head_series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A whole MR head series as files, foot to head, of a patient named by the canary."""
    return write_series(TEMPLATES / "ch2.nii.gz", tmp_path_factory.mktemp("series"), seed=CANARY)


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_tests() -> Iterator[None]:
    yield
    for process in running.STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
