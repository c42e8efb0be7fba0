"""The released image under the launcher's own options: without rights, and under a real memory limit.

Needs Docker and `make release`. The model is the switchable one of tests/faults, mounted into the container.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.data import get_testdata_file
from running import STARTED, StoreScp, answers, wait_for
from switchable import HERE, SwitchableService

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASES = REPOSITORY / "dist" / "releases"

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="the release is an image; no docker here")


def launcher() -> ModuleType:
    """roles/inference/files/outpost-run as a module: what it tells Docker is what hosts run."""
    file = REPOSITORY / "roles/inference/files/outpost-run"
    loader = importlib.machinery.SourceFileLoader("outpost_run", str(file))
    spec = importlib.util.spec_from_loader("outpost_run", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class ContainedService(SwitchableService):
    """The service in its container. `memory_mib` is the limit that a system declares in the inventory."""

    def __init__(self, root: Path, destinations: list[tuple[str, int]], memory_mib: int) -> None:
        super().__init__(root, destinations, inference={"workers": 1, "timeout_seconds": 60})
        self.name = f"brain-test-{os.getpid()}"
        self._memory_mib = memory_mib
        # What the launcher makes of a single command, such as `quarantine list`; once started.
        self.beside: Callable[..., list[str]] = lambda *_words: []

    def start(self, environment: dict[str, str] | None = None) -> ContainedService:
        run = launcher()
        run.CONFIGS, run.STATES, run.RUNTIME = (self.root / part for part in ("etc", "lib", "run"))
        states = run.STATES / self.name
        for folder in (run.CONFIGS, states, run.RUNTIME / self.name):
            folder.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load(self.config_file.read_text())
        self.storage = states
        config["storage"]["root"] = str(states)
        (run.CONFIGS / f"{self.name}.yaml").write_text(yaml.safe_dump(config))
        for path in (states, run.RUNTIME / self.name):
            os.chown(path, 10001, 10001)
        for parent in (self.root, *self.root.parents):
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp"):  # noqa: S108 - pytest's own folders
                parent.chmod(0o755)
        current = (RELEASES / "current").read_text().strip()
        manifest = json.loads((RELEASES / current / "manifest.json").read_text())
        image = manifest["image"]["id"]
        os.environ["OUTPOST_CORES"], os.environ["OUTPOST_MEMORY_MIB"] = "2", str(self._memory_mib)
        command = run.command_line(self.name, ["serve"], image, manifest["version"])
        self.beside = lambda *words: run.command_line(self.name, list(words), image, manifest["version"])
        extra = [
            f"--volume={self.root}:{self.root}",
            f"--volume={HERE}:{HERE}:ro",
            f"--env=PYTHONPATH={HERE}",
            f"--env=OUTPOST_TEST_FAULT={self._fault_file}",
        ]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([*command[:2], *extra, *command[2:]], stdout=log, stderr=log)
        STARTED.append(self.process)
        wait_for(lambda: self._up() and answers(self.http_port), 60, "the service listens")
        return self

    def stop(self) -> int:
        subprocess.run(["docker", "rm", "-f", f"outpost-{self.name}"], capture_output=True, check=False)
        return self.process.wait(timeout=30) if self.process is not None else -1

    def inspect(self) -> Any:
        done = subprocess.run(
            ["docker", "inspect", f"outpost-{self.name}"], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)[0]

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", f"outpost-{self.name}", *command], capture_output=True, text=True, check=False
        )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ContainedService]:
    if not (RELEASES / "current").exists():
        pytest.fail(f"{RELEASES / 'current'} is not there: run `make release` first")
    pacs = StoreScp(tmp_path / "pacs").start()
    service = ContainedService(tmp_path / "service", [("PACS", pacs.port)], memory_mib=1100)
    yield service
    service.stop()
    pacs.stop()


def test_the_container_s_memory_limit_costs_a_rung_and_no_study(
    service: ContainedService, tmp_path: Path
) -> None:
    service.fault("memory", at=[256], mib=1500)
    service.start().wait_ready()
    row = service.wait_outcome(service.send_study(), seconds=120)
    assert (row["outcome"], row["rung"]) == ("delivered", "size-128"), service.log[-3000:]
    assert "WORKER_OUT_OF_MEMORY" in service.log
    [result] = (dcmread(file) for file in (tmp_path / "pacs").iterdir())
    assert result.SeriesDescription.startswith("REDUCED: rung size-128")
    assert service.inspect()["State"]["Running"], "the kernel took the service instead of its worker"


def test_the_container_has_no_rights_it_does_not_need(service: ContainedService) -> None:
    service.start().wait_ready()
    status = service.inside("cat", "/proc/1/status").stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split()[0] == "10001"
    assert {facts[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    assert service.inside("touch", "/opt/outpost/x").returncode != 0
    assert "Read-only file system" in service.inside("touch", "/opt/outpost/x").stderr
    assert service.inspect()["HostConfig"]["Memory"] == 1100 << 20
    done = service.inside(
        "outpost", "selftest", "--config", f"{service.root}/etc/{service.name}.yaml", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_admin_s_commands_work_inside_the_running_container_and_beside_a_stopped_one(
    service: ContainedService, tmp_path: Path
) -> None:
    image = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    del image.StudyInstanceUID
    image.save_as(tmp_path / "x.dcm")
    service.start()
    assert service.stow(tmp_path / "x.dcm").status_code == 409
    listed = service.inside("outpost", "quarantine", "list")  # the container knows its configuration
    assert listed.returncode == 0, listed.stderr
    assert "file-1" in listed.stdout
    assert "UID_MISSING" in listed.stdout
    assert "Modality: CT" in service.inside("outpost", "quarantine", "show", "file-1").stdout
    service.stop()
    for words, begins in (
        (("quarantine", "list"), b"UID_MISSING: 1 held"),
        (("quarantine", "thumbnail", "file-1"), b"\x89PNG"),
    ):
        done = subprocess.run(service.beside(*words), capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(begins)
