"""Lanes: tests too slow for every `make test`, so what each has proven is kept by the content of its inputs.

A lane that has passed whole writes its record (recording.py), committed with the change it proves. Part of `make test`
(tests/roles/test_lanes.py) fails where a lane's inputs are no longer those of its record: `make test-slow` runs those
lanes, `make test-times` writes all of them into docs/testing.md. CONTRIBUTING.md says how a lane is added.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imports import closure

ROOT = Path(__file__).parents[2]

# Where modules of the service and of its tests are looked up; libraries are held by their pins.
_SERVICE = ("service", "tests/support", "tests/slow", "tests/unit", "tests/service", "tests/faults")
_PINS = ("service/requirements*.txt", "requirements-*.txt", "tests/conftest.py", "tests/slow/conftest.py")

# What every lane of the driver rests on.
_DRIVERS = (
    "roles/nvidia_driver/**/*",
    "plugins/filter/outpost_driver.py",
    "playbooks/doctor.yml",
    "playbooks/driver_rollback.yml",
    "tests/drivers/*.yml",
)
_ANSIBLE = (
    "roles/**/*",
    "playbooks/**/*",
    "plugins/**/*",
    "molecule/cuts/*.py",
    "service/outpost/controller/**/*.py",
)


@dataclass(frozen=True)
class Lane:
    """Test files that are run together by one make target, and what they rest on.

    name: said to people, and the key of its record.
    proves: in a line, for docs/testing.md.
    tests: paths of test files from the root.
    target: of make.
    inputs: globs from the root, beside the tests and what these import.
    record: path from the root of the JSON file with its record.
    folders: where its modules are looked up; `names`: whether what strings name counts too (imports.py).
    environment: variables without which a run is a sample, and is not recorded.
    sample: what `make test` still runs of it.
    packages: whether its tests must say which packages they used (`record_property`), since no pin of ours does.
    open: why it has not passed whole on the files as they are; empty is a lane that has.
    seldom: why `make test` does not fail where its record is out of date, but says so; empty is a lane that it asks.
    """

    name: str
    proves: str
    tests: tuple[str, ...]
    target: str
    inputs: tuple[str, ...] = ()
    record: str = "tests/lanes/proven.json"
    folders: tuple[str, ...] = _SERVICE
    names: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    sample: str = ""
    packages: bool = False
    open: str = ""
    seldom: str = ""


def _slow(name: str, proves: str, sample: str, inputs: tuple[str, ...] = ()) -> Lane:
    return Lane(
        name, proves, (f"tests/slow/test_{name}.py",), f"test-slow-{name}", (*_PINS, *inputs), sample=sample
    )


def _driver(name: str, proves: str, test: str, more: tuple[str, ...] = (), open_: str = "") -> Lane:
    return Lane(
        name, proves, (f"tests/drivers/{test}",), f"test-drivers-{name}", (*_DRIVERS, *more),
        "tests/drivers/proven.json", ("tests/drivers",), names=False, packages=True, open=open_,
        sample="`tests/roles/test_nvidia_driver*.py`",
    )  # fmt: skip


def _cuts(system: str) -> Lane:
    return Lane(
        system, f"a first run and an update on {system}, cut at every task", ("molecule/cuts/test_cuts.py",),
        f"test-cuts-{system}", _ANSIBLE, "molecule/cuts/proven.json", ("molecule/cuts", "molecule/mutations"),
        names=False, environment={"OUTPOST_SCENARIO": system}, sample="`molecule/mutations/test_interrupted.py`",
        seldom="it takes two hours and rests on every role: it is run before a release",
    )  # fmt: skip


# Those of a record in the order in which `make` runs them.
LANES = (
    _slow("engines", "every engine of a bundle tried, bad ones too", "`tests/unit/test_inference_optimise.py`"),
    _slow("bundles", "`outpost bundle check` over every kind of fault", "`tests/unit/test_bundle_check.py`"),
    _slow("mutated", "ten thousand mutated files through intake", "`tests/faults/test_mutated_dicom.py`"),
    _driver("pin", "the driver's lock on real NVIDIA packages", "test_driver_pin.py"),
    _driver("set", "driver sets made and installed", "test_driver_set.py", ("playbooks/driver_set.yml",)),
    _driver("build", "DKMS builds the real module", "test_module_build.py"),
    _driver(
        "run", "the .run route on the RED OS stand-in", "test_run_installer.py",
        ("tests/drivers/stand-in-installer", "tests/drivers/rpm_*.py"),
    ),
    _driver(
        "kernel", "an emulated machine: nouveau, reboot, power cuts", "test_real_kernel.py",
        ("tests/drivers/machine/**/*",),
        "11 of its 13 tests passed in a row on 26 Nov 2026; the 12th asked too much of an upgrade: mended, "
        "not run again",
    ),
    _driver(
        "container", "Docker 26 gives a container a stand-in GPU", "test_container_gpu.py",
        (
            "roles/container_runtime/**/*", "roles/inference/files/outpost*", "roles/inference/tasks/gpu.yml",
            "roles/inference/templates/*", "tests/drivers/stand_in_gpu/*",
        ),
    ),
    *map(_cuts, ("ubuntu", "astra", "redos")),
)  # fmt: skip


def standing(root: Path = ROOT) -> list[Lane]:
    """The lanes whose test files exist."""
    return [lane for lane in LANES if all((root / test).exists() for test in lane.tests)]


def inputs(lane: Lane, root: Path = ROOT) -> dict[str, str]:
    """Path from the root -> sha256 of every file the lane rests on."""
    paths = {path for pattern in lane.inputs for path in root.glob(pattern)}
    written = [path for path in paths if path.suffix != ".py"] if lane.names else []
    paths |= closure(root, [*(root / test for test in lane.tests), *written], lane.folders, names=lane.names)
    files = sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def records(record: str, root: Path = ROOT) -> dict[str, Any]:
    """The records of a file, by the lanes' names."""
    path = root / record
    return dict(json.loads(path.read_text())) if path.exists() else {}


def proven(lane: Lane, root: Path = ROOT) -> dict[str, Any] | None:
    """The lane's record."""
    found = records(lane.record, root).get(lane.name)
    return None if found is None else dict(found)


def write(lane: Lane, record: dict[str, Any], root: Path = ROOT) -> None:
    """Puts a lane's record beside those of the others in its file, in the lanes' order."""
    kept = {**records(lane.record, root), lane.name: record}
    ordered = {
        each.name: kept[each.name] for each in LANES if each.record == lane.record and each.name in kept
    }
    (root / lane.record).write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


def unproven(lane: Lane, root: Path = ROOT) -> str:
    """Why the lane's record does not stand for the files as they are, and what to run; empty where it does."""
    record = proven(lane, root)
    run = f"Run `make {lane.target}` and commit {lane.record} with the change."
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
