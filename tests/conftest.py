"""What every kind of test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import running


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_tests() -> Iterator[None]:
    yield
    for process in running.STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
