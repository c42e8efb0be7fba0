"""What `.ci/run` prints last: every failure of every kind of test, and none that was looked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import failures

_TESTS = """
import pytest
from failures import pytest_collectreport, pytest_runtest_logreport

@pytest.fixture
def broken():
    raise OSError("no such host: chita")

def test_right(): pass
def test_wrong(): assert 0.58 >= 0.8, "throughput under attack"
def test_without_a_host(broken): pass
"""


def test_each_failure_is_kept_with_what_was_asked_and_what_came(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_TESTS.partition("@")[0])
    (tmp_path / "test_some.py").write_text(_TESTS)
    (tmp_path / "test_unreadable.py").write_text("import no_such_module")
    kept = tmp_path / "kept"
    environment = {
        **os.environ,
        "OUTPOST_FAILURES": str(kept),
        "LAB_NAME": "mol-astra",
        "PYTEST_ADDOPTS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(Path(failures.__file__).parent),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
    ]
    subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, check=False)

    said = kept.read_text()
    assert "FAILED mol-astra test_unreadable.py (collect)" in said
    assert "No module named 'no_such_module'" in said
    assert "FAILED mol-astra test_some.py::test_wrong (call)" in said
    assert "AssertionError: throughput under attack" in said
    assert "FAILED mol-astra test_some.py::test_without_a_host (setup)" in said
    assert "no such host: chita" in said
    assert "test_right" not in said
