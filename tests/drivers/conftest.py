"""Records a lane that has passed whole; see lanes.py.

Whole is: every test that pytest finds in the lane's file has passed in this session, or has skipped itself in its own
body with words that say why. So no selection of tests, however it was made, and no run that broke off leaves a record;
nor does one during which an input was edited. A test says which packages it used with pytest's
`record_property(name, version)`.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import lanes
import pytest

_BEFORE: dict[str, dict[str, str]] = {}
_REPORTS: dict[str, list[pytest.TestReport]] = defaultdict(list)
_SAID: list[str] = []


def pytest_sessionstart() -> None:
    for lane in lanes.standing():
        _BEFORE[lane.name] = lanes.inputs(lane)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _REPORTS[Path(report.nodeid.split("::")[0]).name].append(report)


def pytest_sessionfinish() -> None:
    for lane in lanes.standing():
        reports = _REPORTS.get(lane.test)
        if reports:
            _SAID.append(_record(lane, reports))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _SAID:
        terminalreporter.write_line(line)


def _record(lane: lanes.Lane, reports: list[pytest.TestReport]) -> str:
    """Writes the lane's record where it is whole; says what became of it."""
    passed = {
        _name(r.nodeid) for r in reports if r.when == "call" and r.passed and not hasattr(r, "wasxfail")
    }
    skipped = {_name(r.nodeid): _reason(r) for r in reports if r.when == "call" and _reason(r)}
    failed = {_name(r.nodeid) for r in reports if r.failed}
    wrong = failed | (_all_tests(lane) - passed - skipped.keys())
    if wrong or not passed:
        few = ", ".join(sorted(wrong)[:4]) + (", ..." if len(wrong) > 4 else "")
        return f"lane {lane.name}: not recorded, {len(wrong)} of its tests did not pass in this run: {few}"
    files = lanes.inputs(lane)
    if files != _BEFORE[lane.name]:
        edited = sorted(
            k for k in files.keys() | _BEFORE[lane.name] if files.get(k) != _BEFORE[lane.name].get(k)
        )
        return f"lane {lane.name}: not recorded, edited while it ran: {', '.join(edited)}"
    record = {
        "inputs": lanes.digest(files),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%MZ}",
        "seconds": round(sum(report.duration for report in reports)),
        "tests": len(passed),
        "skipped": dict(sorted(skipped.items())),
        "packages": dict(sorted({k: str(v) for r in reports for k, v in r.user_properties}.items())),
        "files": files,
    }
    lanes.write(lane, record)
    return f"lane {lane.name}: passed whole; commit {lanes.HERE}/proven.json with the change it proves"


def _name(nodeid: str) -> str:
    return nodeid.partition("::")[2]


def _reason(report: pytest.TestReport) -> str:
    """Why a test skipped itself; empty for one that did not, and for an expected failure."""
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return ""
    return str(report.longrepr[2]).removeprefix("Skipped:").strip()


def _all_tests(lane: lanes.Lane) -> set[str]:
    """Names of all tests of the lane, by a pytest that knows nothing of this session's options."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"{lanes.HERE}/{lane.test}"], cwd=lanes.ROOT, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    found = {_name(line) for line in done.stdout.splitlines() if line.partition("::")[0].endswith(lane.test)}
    assert found, f"pytest finds no test in {lane.test}: {done.stdout[-500:]}"
    return found
