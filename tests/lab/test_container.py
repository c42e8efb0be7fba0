"""The released image under the launcher's own options: without rights, and under a real memory limit.

Needs Docker and `make release`. The model is the switchable one of tests/faults, mounted into the container.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.data import get_testdata_file
from running import STARTED, TOKEN, StoreScp, answers, wait_for
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


class HostCommand:
    """roles/inference/files/outpost as a host has it, over the folders of a contained service."""

    def __init__(self, service: ContainedService) -> None:
        root = service.root
        current = root / "current"
        current.mkdir()
        release = RELEASES / (RELEASES / "current").read_text().strip()
        shutil.copy(release / "manifest.json", current)
        self.path = root / "outpost"
        for file, target, folders in (
            ("outpost", self.path, {"CONFIGS": root / "etc", "CURRENT": current}),
            (
                "outpost-run",
                current / "outpost-run",
                {"CONFIGS": root / "etc", "STATES": root / "lib", "RUNTIME": root / "run"},
            ),
        ):
            text = (REPOSITORY / "roles/inference/files" / file).read_text()
            for name, folder in folders.items():
                text, count = re.subn(
                    rf"^{name} = .*$", f'{name} = pathlib.Path("{folder}")', text, flags=re.MULTILINE
                )
                assert count == 1, name
            target.write_text(text)
        (root / "etc" / f"{service.name}.env").write_text("OUTPOST_DEVICE=cpu\n")
        (root / "etc" / f"{service.name}.token").write_text(TOKEN)

    def start(self, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {"LANG": "ru_RU.UTF-8", "LC_ALL": "", "OUTPOST_TOKEN": ""}
        return subprocess.Popen([sys.executable, str(self.path), *words], env=environment, **streams)

    def run(self, *words: str) -> tuple[int, str, str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        process = self.start(*words, **pipes)
        out, err = process.communicate(timeout=120)
        return process.returncode, out.decode(), err.decode()


def test_the_hosts_command_asks_the_container_or_one_beside_it(
    service: ContainedService, tmp_path: Path
) -> None:
    service.start()
    command = HostCommand(service)
    status, said, fault = command.run("status")
    assert (status in (0, 1), fault) == (True, "")
    assert said.startswith("brain (chita)")
    assert "диск" in said, "in the language of the one who asks"
    assert command.run("no-such-command")[0] == 2

    # A terminal stays a terminal: top refreshes, and Ctrl-C typed into it ends it in the container too.
    outer, inner = pty.openpty()
    top = command.start(
        "top", "--interval", "0.5", stdin=inner, stdout=inner, stderr=inner, start_new_session=True
    )
    os.close(inner)
    shown = b""
    while shown.count(b"brain (chita)") < 2:
        shown += os.read(outer, 4096)
    os.write(outer, b"\x03")
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: _read(outer), b"")], daemon=True)
    reader.start()
    assert top.wait(20) == 0
    os.close(outer)
    reader.join(5)
    # Without one, a signal to the wrapper ends what runs inside.
    measuring = command.start(
        "optimise", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: "optimise" in service.inside("cat", *_commands(service)).stdout, 20, "it measures")
    measuring.send_signal(signal.SIGINT)
    assert measuring.wait(30) == 130
    assert "optimise" not in service.inside("cat", *_commands(service)).stdout

    # Files of the host: to read, and to write.
    image = tmp_path / "CT.dcm"
    shutil.copy(get_testdata_file("CT_small.dcm"), image)
    status, said, fault = command.run("filter", "explain", str(image))
    assert status in (0, 1), fault
    page = tmp_path / "report.html"
    assert command.run("quarantine", "report", "--format", "html", "-o", str(page))[0] == 0
    assert page.read_text().startswith("<!doctype html>")
    archive = tmp_path / "brain.tar"
    assert command.run("backup", "-o", str(archive))[0] == 0

    service.stop()
    status, said, fault = command.run("status")
    assert status == 1, fault
    assert "ОСТАНОВЛЕНА" in said.splitlines()[0]
    assert command.run("events")[0] == 0
    shutil.move(service.storage, f"{service.storage}.old")
    service.storage.mkdir()
    os.chown(service.storage, 10001, 10001)
    status, said, fault = command.run("restore", str(archive))
    assert (status, fault) == (0, ""), "root's file, mode 0600, reaches the container's user"
    assert (service.storage / "journal.sqlite3").stat().st_uid == 10001


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end has closed
        return b""


def _commands(service: ContainedService) -> list[str]:
    """Paths of the command lines of all processes in the container, as it sees them."""
    listed = service.inside("/bin/sh", "-c", "ls -d /proc/[0-9]*").stdout.split()
    return [f"{process}/cmdline" for process in listed]
