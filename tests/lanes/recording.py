"""A plugin of pytest: records a lane that has passed whole; see lanes.py. A conftest registers it by `record_lanes`.

Whole is: every test that pytest finds in the lane's files has passed in this session, or has skipped itself in its own
body with words that say why. So no selection of tests, however it was made, and no run that broke off leaves a record;
nor does one during which an input was edited. What a test says with pytest's `record_property(name, value)` is kept.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections import defaultdict

import lanes
import pytest
import times

_BEFORE: dict[str, dict[str, str]] = {}
_REPORTS: dict[str, list[pytest.TestReport]] = defaultdict(list)
_SAID: list[str] = []


def record_lanes(config: pytest.Config) -> None:
    """For the `pytest_configure` of a conftest whose tests are lanes."""
    if not config.pluginmanager.has_plugin("lanes"):
        config.pluginmanager.register(sys.modules[__name__], "lanes")


def pytest_collection_finish(session: pytest.Session) -> None:
    collected = {item.nodeid.split("::")[0] for item in session.items}
    for lane in _meant():
        if collected & set(lane.tests):
            _BEFORE[lane.name] = lanes.inputs(lane)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _REPORTS[report.nodeid.split("::")[0]].append(report)


def pytest_sessionfinish() -> None:
    for lane in _meant():
        reports = [report for test in lane.tests for report in _REPORTS.get(test, [])]
        if reports:
            _SAID.append(_record(lane, reports))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _SAID:
        terminalreporter.write_line(line)


def _meant() -> list[lanes.Lane]:
    """The lanes that a run in this environment may prove; another one is a sample, or another lane's."""
    return [
        lane
        for lane in lanes.standing()
        if all(os.environ.get(name) == value for name, value in lane.environment.items())
    ]


def _record(lane: lanes.Lane, reports: list[pytest.TestReport]) -> str:
    """Writes the lane's record where it is whole; says what became of it."""
    passed = {r.nodeid for r in reports if r.when == "call" and r.passed and not hasattr(r, "wasxfail")}
    skipped = {r.nodeid: _reason(r) for r in reports if r.when == "call" and _reason(r)}
    failed = {r.nodeid for r in reports if r.failed}
    wrong = failed | (_all_tests(lane) - passed - skipped.keys())
    if wrong or not passed:
        few = ", ".join(sorted(_name(one) for one in wrong)[:4]) + (", ..." if len(wrong) > 4 else "")
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
        "skipped": {_name(one): why for one, why in sorted(skipped.items())},
        "packages" if lane.packages else "said": dict(
            sorted({k: str(v) for r in reports for k, v in r.user_properties}.items())
        ),
        "files": files,
    }
    lanes.write(lane, record)
    page = times.refresh()
    return f"lane {lane.name}: passed whole; commit {lane.record}{page and f' and {page}'} with the change it proves"


def _name(nodeid: str) -> str:
    return nodeid.partition("::")[2]


def _reason(report: pytest.TestReport) -> str:
    """Why a test skipped itself; empty for one that did not, and for an expected failure."""
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return ""
    return str(report.longrepr[2]).removeprefix("Skipped:").strip()


def _all_tests(lane: lanes.Lane) -> set[str]:
    """Node ids of all tests of the lane, by a pytest that knows nothing of this session's options."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *lane.tests], cwd=lanes.ROOT, env=environment, check=True, capture_output=True, text=True
    )
    found = {line for line in done.stdout.splitlines() if line.partition("::")[0] in lane.tests}
    assert found, f"pytest finds no test in {', '.join(lane.tests)}: {done.stdout[-500:]}"
    return found
