"""The lanes of driver tests: too slow for `make test`, so what each has proven is kept by the content of its inputs.

A lane that has passed whole writes its record into proven.json (conftest.py), committed with the change it proves.
tests/roles/test_driver_lanes.py, part of `make test`, fails where a lane's inputs are no longer those of its record.
"""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = "tests/drivers"
RECORDS = ROOT / HERE / "proven.json"

# What every lane rests on, as globs from the root.
COMMON = (
    "roles/nvidia_driver/**/*",
    "plugins/filter/outpost_driver.py",
    "playbooks/doctor.yml",
    "playbooks/driver_rollback.yml",
    f"{HERE}/*.yml",
)


@dataclass(frozen=True)
class Lane:
    """A test file of this directory, the make target `test-drivers-NAME`, and what it rests on beside COMMON.

    `open` says why it has not passed whole on the files as they are; empty is a lane that has.
    """

    name: str
    test: str
    more: tuple[str, ...] = ()
    open: str = ""

    @property
    def target(self) -> str:
        return f"test-drivers-{self.name}"


# In the order in which `make test-drivers` runs them.
LANES = (
    Lane("pin", "test_driver_pin.py"),
    Lane("set", "test_driver_set.py", ("playbooks/driver_set.yml",)),
    Lane("build", "test_module_build.py"),
    Lane("run", "test_run_installer.py", (f"{HERE}/stand-in-installer", f"{HERE}/rpm_*.py")),
    Lane(
        "kernel",
        "test_real_kernel.py",
        (f"{HERE}/machine/**/*",),
        open="11 of its 13 tests passed in a row on 26 Nov 2026; the 12th asked too much of an upgrade: mended, "
        "not run again",
    ),
    Lane(
        "container",
        "test_container_gpu.py",
        (
            "roles/container_runtime/**/*",
            "roles/inference/files/outpost*",
            "roles/inference/tasks/gpu.yml",
            "roles/inference/templates/*",
            f"{HERE}/stand_in_gpu/*",
        ),
    ),
)


def standing(root: Path = ROOT) -> list[Lane]:
    """The lanes whose test file exists."""
    return [lane for lane in LANES if (root / HERE / lane.test).exists()]


def inputs(lane: Lane, root: Path = ROOT) -> dict[str, str]:
    """Path from the root -> sha256 of every file the lane rests on."""
    paths = {path for pattern in (*COMMON, *lane.more) for path in root.glob(pattern)}
    paths |= _with_imports(root / HERE / lane.test)
    files = sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _with_imports(path: Path) -> set[Path]:
    """The file and the modules of its own directory that it imports, and theirs."""
    found, waiting = set(), [path]
    while waiting:
        path = waiting.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                waiting += [path.with_name(f"{name.name}.py") for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting.append(path.with_name(f"{node.module}.py"))
    return found


def digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def records(root: Path = ROOT) -> dict[str, Any]:
    path = root / RECORDS.relative_to(ROOT)
    return dict(json.loads(path.read_text())) if path.exists() else {}


def write(lane: Lane, record: dict[str, Any], root: Path = ROOT) -> None:
    """Puts a lane's record beside those of the others, in the lanes' order."""
    kept = {**records(root), lane.name: record}
    ordered = {each.name: kept[each.name] for each in LANES if each.name in kept}
    path = root / RECORDS.relative_to(ROOT)
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


def unproven(lane: Lane, root: Path = ROOT) -> str:
    """Why the lane's record does not stand for the files as they are, and what to run; empty where it does."""
    record = records(root).get(lane.name)
    run = f"Run `make {lane.target}` and commit {HERE}/proven.json with the change."
    if record is None:
        return f"Lane {lane.name}: no record that it ever passed whole. {run}"
    now, then = inputs(lane, root), record["files"]
    words = [f"{path} (changed)" for path in sorted(now.keys() & then.keys()) if now[path] != then[path]]
    words += [f"{path} (new)" for path in sorted(now.keys() - then.keys())]
    words += [f"{path} (gone)" for path in sorted(then.keys() - now.keys())]
    if words:
        return f"Lane {lane.name} was proven on {record['date']} with other inputs: {', '.join(words)}. {run}"
    if digest(then) != record["inputs"]:
        return f"Lane {lane.name}: the digest of its record is not that of the files it names. {run}"
    return ""
