"""What every kind of test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import running
from hypothesis import settings

# The same examples at every run, and no clock: a machine that is busy at the moment is no failure.
settings.register_profile("outpost", derandomize=True, deadline=None)
settings.load_profile("outpost")


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_tests() -> Iterator[None]:
    yield
    for process in running.STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
