"""What every kind of test shares."""

from __future__ import annotations

import faulthandler
import sys
import threading
from collections.abc import Iterator

import pytest
import running
from failures import pytest_collectreport, pytest_runtest_logreport  # noqa: F401 - hooks of pytest
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


def pytest_unconfigure() -> None:
    """A thread that waits for ever would keep the run from ending, and CI from saying anything: name it and end."""
    waiting = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if waiting:
        sys.stderr.write(f"threads that keep pytest from ending: {', '.join(t.name for t in waiting)}\n")
        faulthandler.dump_traceback_later(90, exit=True)
