"""The lanes that `make test` does not run: each has passed whole on the files as they are, or is named.

How a record comes about is tried with the project's own tests/lanes over a lane of a few lines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import imports
import lanes
import pytest
import times

ROOT = Path(__file__).parents[2]
LANES = ROOT / "tests/lanes"
PIN = next(lane for lane in lanes.LANES if lane.name == "pin")
ENGINES = next(lane for lane in lanes.LANES if lane.name == "engines")


def _asked(lane: lanes.Lane) -> Any:
    """A lane that is open is expected to be unproven; once it has passed, its reason has to go."""
    marks = [pytest.mark.xfail(reason=lane.open, strict=True)] if lane.open else []
    return pytest.param(lane, id=lane.name, marks=marks)


@pytest.mark.parametrize("lane", [_asked(lane) for lane in lanes.LANES])
def test_a_lane_has_passed_whole_on_the_files_as_they_are(lane: lanes.Lane) -> None:
    why = lanes.unproven(lane)
    if why and lane.seldom:
        pytest.skip(f"{why} Not asked here: {lane.seldom}.")
    assert not why, why
    record = lanes.proven(lane)
    assert record is not None
    assert record.get("packages") or not lane.packages, (
        "a test of the lane must say its packages: record_property"
    )


def test_each_slow_test_is_in_a_lane_and_nothing_else_runs_it() -> None:
    assert lanes.standing() == list(lanes.LANES), "a lane names a test that is not there"
    named = {test for lane in lanes.LANES for test in lane.tests}
    slow = {f"{folder}/{path.name}" for folder in _FOLDERS for path in (ROOT / folder).glob("test_*.py")}
    assert named == slow
    python = _made("test-python")
    assert python, "make test-python runs no test"
    assert not [test for test in named if any(test == one or test.startswith(f"{one}/") for one in python)]


_FOLDERS = ("tests/drivers", "tests/slow", "molecule/cuts")


@pytest.mark.parametrize("lane", lanes.LANES, ids=lambda lane: lane.name)
def test_make_runs_each_lane_whole(lane: lanes.Lane) -> None:
    said = _dry_run(lane.target)
    if lane.name in ("ubuntu", "astra", "redos"):
        assert f"lab/cuts {lane.name}" in said
        assert all(test.startswith("molecule/cuts/") for test in lane.tests), "which lab/cuts hands to pytest"
    else:
        assert _made(lane.target) == list(lane.tests)


def test_make_runs_the_lanes_of_the_driver_in_their_order() -> None:
    tests = [test for lane in lanes.LANES for test in lane.tests if test.startswith("tests/drivers/")]
    assert _made("test-drivers") == tests


def test_make_test_slow_asks_for_what_is_out_of_date() -> None:
    assert "tests/lanes/slow.py" in _dry_run("test-slow")


def _made(target: str) -> list[str]:
    """The tests that a make target hands to pytest."""
    found = re.findall(r"^(?:.* )?pytest (-q.*)$", _dry_run(target), re.MULTILINE)
    return [word for line in found for word in line.split() if word.startswith("tests/")]


def _dry_run(target: str) -> str:
    command = ["make", "--dry-run", "--no-print-directory", target]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one lane: a test that imports a module, which imports another, and a role of one file."""
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = tests/lanes\n")
    files = {
        "roles/nvidia_driver/tasks/main.yml": "---\n",
        "roles/nvidia_driver/library/__pycache__/m.pyc": "",
        "roles/container_runtime/tasks/main.yml": "---\n",
        "tests/drivers/play.yml": "---\n",
        "tests/drivers/near.py": "import far\n",
        "tests/drivers/far.py": "",
        "tests/drivers/stranger.py": "",
        "tests/drivers/test_driver_pin.py": """
import pathlib, pytest, near
def test_one(record_property):
    record_property("driver", "535.261.03")
@pytest.mark.parametrize("host", ["a", "b"])
def test_two(host):
    if host == "b":
        pytest.skip("two ways are enough")
""",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "tests/drivers/conftest.py", tmp_path / "tests/drivers")
    shutil.copytree(LANES, tmp_path / "tests/lanes", ignore=shutil.ignore_patterns("*.json", "__pycache__"))
    return tmp_path


def _run(project: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The records that a run of the project's lane leaves, and what it said."""
    command = [sys.executable, "-B", "-m", "pytest", *(arguments or ["tests/drivers/test_driver_pin.py"])]
    done = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
    path = project / "tests/drivers/proven.json"
    return (json.loads(path.read_text()) if path.exists() else {}), done.stdout + done.stderr


def test_a_whole_run_is_recorded_with_what_it_rests_on(project: Path) -> None:
    records, said = _run(project)
    record = records["pin"]
    assert "lane pin: passed whole" in said
    assert (record["tests"], record["skipped"]) == (2, {"test_two[b]": "two ways are enough"})
    assert record["packages"] == {"driver": "535.261.03"}
    assert list(record["files"]) == [
        "roles/nvidia_driver/tasks/main.yml", "tests/drivers/far.py", "tests/drivers/near.py",
        "tests/drivers/play.yml", "tests/drivers/test_driver_pin.py",
    ]  # fmt: skip
    assert lanes.unproven(PIN, project) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["tests/drivers/test_driver_pin.py", "-k", "one"],
        ["tests/drivers/test_driver_pin.py", "--deselect", "tests/drivers/test_driver_pin.py::test_one"],
        ["tests/drivers/test_driver_pin.py::test_one"],
        ["tests/drivers/test_driver_pin.py::test_two"],
    ],
)
def test_a_selection_of_a_lane_is_not_recorded(project: Path, arguments: list[str]) -> None:
    records, said = _run(project, *arguments)
    assert records == {}
    assert "lane pin: not recorded" in said
    assert " passed" in said


@pytest.mark.parametrize(
    ("add", "more"),
    [
        ("def test_three(): assert 0", []),
        ("def test_a_first(): assert 0\ntest_one, test_a_first = test_a_first, test_one", ["-x"]),
        ("@pytest.fixture\ndef card(): pytest.skip('no card here')\ndef test_three(card): pass", []),
        ("@pytest.mark.skip(reason='not today')\ndef test_three(): pass", []),
        ("@pytest.mark.xfail\ndef test_three(): assert 0", []),
        ("@pytest.fixture\ndef card():\n    yield\n    assert 0\ndef test_three(card): pass", []),
        ("def test_three(): pathlib.Path(__file__).with_name('far.py').write_text('#')", []),
        ("pytest.skip('no lab here', allow_module_level=True)", []),
    ],
    ids=["failed", "broke off", "skipped by a fixture", "skipped by a mark", "expected failure", "failed at its end",
         "edited meanwhile", "skipped as a whole"],
)  # fmt: skip
def test_a_run_that_is_not_whole_is_not_recorded(project: Path, add: str, more: list[str]) -> None:
    test = project / "tests/drivers/test_driver_pin.py"
    test.write_text(test.read_text() + add + "\n")
    records, said = _run(project, "tests/drivers/test_driver_pin.py", *more)
    assert records == {}, said
    assert "passed whole" not in said


def test_what_changed_since_is_named_with_what_to_run(project: Path) -> None:
    _run(project)
    (project / "roles/nvidia_driver/tasks/main.yml").write_text("--- # changed\n")
    (project / "roles/nvidia_driver/tasks/new.yml").touch()
    (project / "tests/drivers/far.py").unlink()
    (project / "tests/drivers/stranger.py").write_text("# nobody imports it\n")
    (project / "roles/container_runtime/tasks/main.yml").write_text("--- # another lane's\n")
    why = lanes.unproven(PIN, project)
    named = re.search(r"other inputs: (.*)\. Run", why)
    assert named is not None, why
    assert named[1].split(", ") == [
        "roles/nvidia_driver/tasks/main.yml (changed)", "roles/nvidia_driver/tasks/new.yml (new)",
        "tests/drivers/far.py (gone)",
    ]  # fmt: skip
    assert "make test-drivers-pin" in why


def test_a_lane_that_never_passed_is_named_and_one_without_a_test_is_not_asked_for(project: Path) -> None:
    assert [lane.name for lane in lanes.standing(project)] == ["pin"]
    assert "Lane pin: no record" in lanes.unproven(PIN, project)


def test_a_lane_of_a_system_is_recorded_by_a_run_on_that_system_alone(project: Path) -> None:
    cuts = project / "molecule/cuts"
    cuts.mkdir(parents=True)
    shutil.copy(ROOT / "molecule/cuts/conftest.py", cuts)
    (cuts / "test_cuts.py").write_text(
        "import os, pytest\ndef test_cut(record_property):\n    record_property('cuts', 93)\n"
        "    if 'OUTPOST_CUTS' in os.environ: pytest.skip('a sample')\n"
    )
    for environment, proven in (
        ({}, []),
        ({"OUTPOST_SCENARIO": "astra", "OUTPOST_CUTS": "10"}, []),
        ({"OUTPOST_SCENARIO": "astra"}, ["astra"]),
    ):
        _python(project, "-m", "pytest", "molecule/cuts", **environment)
        kept = lanes.records("molecule/cuts/proven.json", project)
        assert list(kept) == proven
    assert kept["astra"]["said"] == {"cuts": "93"}
    assert list(kept["astra"]["files"]) == [
        "molecule/cuts/conftest.py",
        "molecule/cuts/test_cuts.py",
        *_ROLES,
    ]


_ROLES = ["roles/container_runtime/tasks/main.yml", "roles/nvidia_driver/tasks/main.yml"]


def _python(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", *arguments], cwd=project, check=False, capture_output=True, text=True,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("OUTPOST_")}, **environment},
    )  # fmt: skip


def test_make_test_slow_runs_what_is_out_of_date_says_so_and_leaves_the_rest(project: Path) -> None:
    (project / "Makefile").write_text(
        f"test-drivers-pin:\n\t{sys.executable} -B -m pytest -q tests/drivers/test_driver_pin.py\n"
    )
    listed = _python(project, "tests/lanes/slow.py", "--list")
    assert "[1 of 1] make test-drivers-pin: it was never recorded how long it takes" in listed.stdout, (
        listed.stderr
    )
    assert lanes.records("tests/drivers/proven.json", project) == {}
    done = _python(project, "tests/lanes/slow.py")
    assert (done.returncode, "[1 of 1] pin: proven" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "No lane is to run." in _python(project, "tests/lanes/slow.py").stdout

    (project / "tests/drivers/far.py").write_text("assert 0, 'broken meanwhile'")
    listed = _python(project, "tests/lanes/slow.py", "--list")
    assert "tests/drivers/far.py (changed)" in listed.stdout
    failed = _python(project, "tests/lanes/slow.py")
    assert (failed.returncode, "Not proven: pin" in failed.stdout) == (1, True)
    assert "tests/drivers/far.py (changed)" in lanes.unproven(PIN, project), (
        "a failed run leaves the record as it was"
    )


SERVICE = {
    "service/outpost/__init__.py": "",
    "service/outpost/engines/__init__.py": "",
    "service/outpost/engines/fast.py": "",
    "service/outpost/engines/slow.py": "",
    "service/outpost/engines/sql/0001.sql": "",
    "service/outpost/lone.py": "",
    "service/bundles/brain/model.yaml": "task: outpost.lone.Task\n",
    "tests/unit/helper.py": "",
}
_ENGINES = {
    "service/outpost/__init__.py",
    "service/outpost/engines/__init__.py",
    "service/outpost/engines/sql/0001.sql",
}
_FAST, _SLOW, _LONE = (f"service/outpost/{name}.py" for name in ("engines/fast", "engines/slow", "lone"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import outpost.engines.fast", {*_ENGINES, _FAST}),
        ("from outpost.engines import fast, WORD", {*_ENGINES, _FAST}),
        ("from outpost.engines.fast import WORD", {*_ENGINES, _FAST}),
        ("def late():\n    from outpost.engines import slow", {*_ENGINES, _SLOW}),
        ("if TYPE_CHECKING:\n    import outpost.lone", {"service/outpost/__init__.py", _LONE}),
        ("import helper", {"tests/unit/helper.py"}),
        ("run([sys.executable, '-m', 'outpost.engines.slow'])", {*_ENGINES, _SLOW}),
        (
            "run([sys.executable, '-c', 'import outpost.lone as l; l.run()'])",
            {"service/outpost/__init__.py", _LONE},
        ),
        ("import_module(f'outpost.engines.{name}')", {*_ENGINES, _FAST, _SLOW}),
        ("{'_target_': 'helper.Model'}", {"tests/unit/helper.py"}),
        (
            "ROOT / 'service/bundles/brain'",
            {"service/bundles/brain/model.yaml", "service/outpost/__init__.py", _LONE},
        ),
        ("import json, torch", set()),
        ("'outpost'", set()),
        ("'a sentence. It names outpost.'", set()),
    ],
)
def test_what_a_test_rests_on_is_read_from_it(tmp_path: Path, text: str, found: set[str]) -> None:
    for name, content in (SERVICE | {"tests/slow/test_x.py": text}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    start = tmp_path / "tests/slow/test_x.py"
    paths = imports.closure(tmp_path, [start], ("service", "tests/slow", "tests/unit"), names=True)
    assert {str(path.relative_to(tmp_path)) for path in paths - {start}} == found


def test_imports_of_the_package_around_are_followed_on_and_a_file_s_name_is_no_module(tmp_path: Path) -> None:
    changed = SERVICE | {
        "service/outpost/engines/fast.py": "from . import slow\nSETTINGS = 'helper.yaml'",
        "service/outpost/engines/slow.py": "from .. import lone",
        "tests/slow/test_x.py": "import outpost.engines.fast",
    }
    for name, content in changed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    start = tmp_path / "tests/slow/test_x.py"
    paths = imports.closure(tmp_path, [start], ("service", "tests/slow", "tests/unit"), names=True)
    assert {str(path.relative_to(tmp_path)) for path in paths - {start}} == {*_ENGINES, _FAST, _SLOW, _LONE}


def test_what_the_processes_of_the_engines_lane_really_load_are_inputs_of_it() -> None:
    loads = (
        "import sys, test_engines, outpost.inference.child, outpost.inference.trial, outpost.inference.predictor;"
        "print('\\n'.join(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))"
    )
    folders = ("service", "tests/slow", "tests/unit")
    path = os.pathsep.join(str(ROOT / folder) for folder in folders)
    done = subprocess.run(
        [sys.executable, "-c", loads],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    ours = {
        str(Path(line).relative_to(ROOT))
        for line in done.stdout.splitlines()
        if any(Path(line).is_relative_to(ROOT / folder) for folder in folders)
    }
    assert len(ours) > 40
    inputs = lanes.inputs(ENGINES)
    assert sorted(ours - inputs.keys()) == []
    by_name = {
        "service/outpost/inference/engines/openvino.py", "service/outpost/inference/brain.py",
        "service/bundles/brain_extraction/outpost.yaml", "service/requirements.txt", "tests/unit/engine_model.py",
    }  # fmt: skip
    assert by_name <= inputs.keys(), "what only a string or a pin names"


def test_the_page_of_times_is_what_the_records_say() -> None:
    text = times.PAGE.read_text()
    assert text == times.page(text, times.committed()), "docs/testing.md is stale: make test-times"


@pytest.mark.parametrize(("status", "kept"), [(0, True), (3, False)])
def test_how_long_a_part_took_is_kept_where_it_passed(project: Path, status: int, kept: bool) -> None:
    done = _python(project, "tests/lanes/times.py", "run", "unit", "sh", "-c", f"exit {status}")
    assert done.returncode == status
    assert (project / ".times/unit.json").exists() is kept
    (project / "docs").mkdir()
    (project / "docs/testing.md").write_text(f"before\n{times.BEGIN}\n{times.END}\nafter\n")
    _run(project)
    assert _python(project, "tests/lanes/times.py", "write").returncode == 0
    page = (project / "docs/testing.md").read_text()
    assert ("| `make test-unit` | unit tests | one half, second | 0.0 |" in page) is kept
    assert "| `make test-drivers-pin` | the driver's lock on real NVIDIA packages | 2 | 0.0 |" in page
    assert (page.startswith("before\n"), page.endswith("\nafter\n")) == (True, True)
