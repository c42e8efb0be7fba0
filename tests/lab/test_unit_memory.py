"""The service as a real systemd unit under a real MemoryMax=: what the kernel takes costs a rung and no study.

Needs Docker: systemd runs in a host of the lab, the service in it from this checkout and its virtual environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from running import STARTED, StoreScp, answers, wait_for
from switchable import HERE, SwitchableService

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

from outpost_lab.hosts import CAPABILITIES, SYSTEMD_FLAGS
from outpost_lab.images import ImageStore
from outpost_lab.settings import REPOSITORY, read_settings

UNIT = "outpost-test.service"
LIMIT_MIB = 1100

pytestmark = pytest.mark.skipif(
    not shutil.which("docker"), reason="the lab is Docker containers; no docker here"
)


class UnitService(SwitchableService):
    """The service as a unit of Type=notify of the systemd in a container that shares this machine's network."""

    def __init__(self, root: Path, destinations: list[tuple[str, int]]) -> None:
        super().__init__(root, destinations, inference={"workers": 1, "timeout_seconds": 60})
        self.container = f"outpost-unit-test-{os.getpid()}"

    def start(self, environment: dict[str, str] | None = None) -> UnitService:
        images = ImageStore(read_settings(os.environ))
        images.ensure(["ubuntu"])
        # As they are here: the checkout, its virtual environment with the Python below it, and the test's folder.
        seen = {REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix), self.root}
        volumes = [f"--volume={path}:{path}" for path in seen if path != Path("/usr")]
        subprocess.run(
            ["docker", "run", "--detach", "--rm", f"--name={self.container}", "--network=host"]
            + [f"--cap-add={capability}" for capability in CAPABILITIES]
            + [*SYSTEMD_FLAGS, *volumes, images.tag("ubuntu")]
            # Nothing of multi-user.target: its servers would meet this machine's ports.
            + ["/lib/systemd/systemd", "--unit=basic.target"],
            check=True,
            capture_output=True,
        )
        wait_for(lambda: self.systemctl("is-active", "basic.target").returncode == 0, 60, "systemd is up")
        settings = {
            "OUTPOST_TEST_FAULT": str(self._fault_file),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(REPOSITORY / "service")]),
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                ["docker", "exec", self.container, "systemd-run", "--wait", "--pipe", "--collect"]
                + [f"--unit={UNIT}", "--service-type=notify", f"--property=MemoryMax={LIMIT_MIB}M"]
                + [f"--setenv={name}={value}" for name, value in settings.items()]
                + [sys.executable, "-m", "outpost.cli", "serve", "--config", str(self.config_file)],
                stdout=log,
                stderr=log,
            )
        STARTED.append(self.process)
        wait_for(lambda: self._up() and answers(self.http_port), 60, "the service listens")
        return self

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", self.container, "systemctl", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def stop(self) -> int:
        self.systemctl("stop", UNIT)
        status = self.process.wait(timeout=30) if self.process is not None else -1
        subprocess.run(["docker", "rm", "-f", self.container], capture_output=True, check=False)
        return status


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UnitService]:
    pacs = StoreScp(tmp_path / "pacs").start()
    service = UnitService(tmp_path / "service", [("PACS", pacs.port)])
    yield service
    service.stop()
    pacs.stop()


def test_the_unit_s_memory_limit_costs_a_rung_and_no_study(service: UnitService, tmp_path: Path) -> None:
    service.fault("memory", at=[256], mib=1500)
    service.start().wait_ready()
    shown = service.systemctl("show", UNIT, "--property=MemoryMax,ActiveState,NRestarts").stdout
    assert f"MemoryMax={LIMIT_MIB << 20}\n" in shown, shown
    row = service.wait_outcome(service.send_study(), seconds=120)
    assert (row["outcome"], row["rung"]) == ("delivered", "size-128"), service.log[-3000:]
    assert "WORKER_OUT_OF_MEMORY" in service.log
    [result] = (dcmread(file) for file in (tmp_path / "pacs").iterdir())
    assert result.SeriesDescription.startswith("REDUCED: rung size-128")
    assert service.systemctl("is-active", UNIT).stdout.strip() == "active", "the service itself was taken"
