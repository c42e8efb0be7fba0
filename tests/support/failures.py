"""Failures of a run said once more at its end.

Whoever reads CI's answer sees the last lines of an hour: with two lanes side by side, and hosts removed after a
failure, these are not the ones that tell what failed. A conftest imports the hooks from here; `.ci/run` names the
file in `$OUTPOST_FAILURES` and prints it last.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_LINES = 12  # of each failure: the last ones hold what was asked and what came


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _keep(report, report.when or "")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _keep(report, "collect")


def _keep(report: pytest.TestReport | pytest.CollectReport, when: str) -> None:
    if not report.failed or not (name := os.environ.get("OUTPOST_FAILURES")):
        return
    last = report.longreprtext.rstrip().splitlines()[-_LINES:]
    where = " ".join(filter(None, (os.environ.get("LAB_NAME"), report.nodeid, f"({when})")))
    # One write: several lanes keep theirs in the same file.
    with Path(name).open("a", encoding="utf-8") as file:
        file.write("\n".join([f"FAILED {where}", *(f"  {line[:200]}" for line in last), "", ""]))
