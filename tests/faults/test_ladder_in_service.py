"""Failures of every kind in the running service: each study ends, its result says its rung, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from running import StoreScp, wait_for
from switchable import SwitchableService

CGROUP = Path("/sys/fs/cgroup/memory")


# Seconds for a test in which no study takes too long: on a loaded host, filling memory does.
AMPLE = pytest.mark.parametrize("service", [60], indirect=True, ids=["ample"])


@pytest.fixture
def service(tmp_path: Path, pacs: StoreScp, request: pytest.FixtureRequest) -> Iterator[SwitchableService]:
    service = SwitchableService(
        tmp_path / "service",
        [("PACS", pacs.port)],
        inference={"workers": 2, "timeout_seconds": getattr(request, "param", 6)},
    )
    yield service
    service.stop()


def result_of(pacs: StoreScp, count: int = 1) -> Any:
    results = [dcmread(file) for file in pacs.folder.iterdir()]
    assert len(results) == count
    return results[0]


def test_a_healthy_study_says_full_in_journal_metrics_and_result(
    service: SwitchableService, pacs: StoreScp
) -> None:
    service.start().wait_ready()
    row = service.wait_outcome(service.send_study())
    assert (row["outcome"], row["rung"], row["engine"].split()[0], row["precision"], row["device"]) == (
        "delivered",
        "full",
        "torchscript",
        "float32",
        "cpu",
    )
    result = result_of(pacs)
    assert "rung full" in result.ContentDescription
    assert "REDUCED" not in result.SeriesDescription


@AMPLE
def test_out_of_memory_steps_down_until_it_fits_and_the_result_says_so(
    service: SwitchableService, pacs: StoreScp
) -> None:
    service.fault("torch-oom", at=[256])
    service.start().wait_ready()
    row = service.wait_outcome(service.send_study(), seconds=150)  # twice at full, the second time alone
    assert (row["outcome"], row["rung"]) == ("delivered", "size-128")
    result = result_of(pacs)
    assert "size-128" in result.ContentDescription
    assert result.SeriesDescription.startswith("REDUCED")
    assert "LADDER_DOWN" in service.events()
    # The next one of that shape does not try in vain what is known to fail.
    before = time.monotonic()
    again = service.wait_outcome(service.send_study())
    assert (again["rung"], again["attempts"]) == ("size-128", 1)
    assert time.monotonic() - before < 20
    assert service.ready(), "the golden case fits: the host is well"


@AMPLE
def test_what_was_learnt_survives_kill_9(service: SwitchableService) -> None:
    service.fault("torch-oom", at=[256])
    service.start().wait_ready()
    assert service.wait_outcome(service.send_study(), seconds=150)["rung"] == "size-128"
    service.kill()
    service.start().wait_ready()
    assert service.wait_outcome(service.send_study())["attempts"] == 1


@pytest.fixture
def memory_limit() -> Iterator[Path]:
    """A control group of 1200 MiB, as systemd's MemoryMax= makes one; what starts now starts in it."""
    if not (CGROUP / "memory.limit_in_bytes").exists():
        pytest.fail(f"{CGROUP} is not there: this test needs the memory controller of cgroup v1")
    group = CGROUP / f"outpost-test-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(1200 << 20))
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    [own] = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"]
    (group / "cgroup.procs").write_text(str(os.getpid()))
    yield group
    (CGROUP / own.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
    wait_for(lambda: not (group / "cgroup.procs").read_text().strip(), 20, "the group is empty")
    group.rmdir()


@AMPLE
def test_the_kernel_s_kill_for_memory_costs_a_rung_and_no_study(
    service: SwitchableService, pacs: StoreScp, memory_limit: Path
) -> None:
    service.fault("memory", at=[256], mib=1500)
    service.start().wait_ready()
    assert service.process is not None
    assert str(service.process.pid) in (memory_limit / "cgroup.procs").read_text().split()
    study = service.send_study()
    row = service.wait_outcome(study, seconds=240)
    assert (row["outcome"], row["rung"]) == ("delivered", "size-128"), service.log[-3000:]
    assert service.process.poll() is None, "the kernel took the service instead of its worker"
    assert "WORKER_OUT_OF_MEMORY" in service.log
    assert "size-128" in result_of(pacs).ContentDescription
    service.stop()


def test_a_worker_killed_in_the_middle_of_a_study_costs_nothing_but_time(
    service: SwitchableService, pacs: StoreScp
) -> None:
    service.fault("hang")
    service.start().wait_ready()
    study = service.send_study()
    service.wait_state(study, "inferring")
    time.sleep(0.5)
    service.fault()
    workers = subprocess.run(
        ["pgrep", "-P", str(service.process.pid if service.process else 0), "-f", "inference.child"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(workers) == 2
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    row = service.wait_outcome(study)
    assert (row["outcome"], row["rung"]) == ("delivered", "full")
    result_of(pacs)


@pytest.mark.parametrize(
    ("fault", "code", "attempts"),
    [
        # An exception is judged in the process that raised it: without another engine, a second try tells nothing.
        ({"kind": "raise", "text": "something is wrong"}, "INFERENCE_ERROR", 1),
        ({"kind": "constant"}, "OUTPUT_CONSTANT", 2),
        ({"kind": "segfault"}, "WORKER_DIED", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_study_that_fails_on_a_sound_host_is_put_aside_whole_and_the_next_is_computed(
    service: SwitchableService, fault: dict[str, Any], code: str, attempts: int
) -> None:
    service.fault(**fault)
    service.start().wait_ready()
    study = service.send_study()
    row = service.wait_outcome(study)
    assert (row["outcome"], row["reason"], row["attempts"]) == ("quarantined", code, attempts)
    assert len(list((service.storage / "quarantine" / code).rglob("*.dcm"))) == row["instances"]
    service.fault()
    assert service.wait_outcome(service.send_study())["outcome"] == "delivered"
    assert service.ready()


def test_a_study_that_hangs_is_ended_in_time_and_tried_smaller(service: SwitchableService) -> None:
    service.fault("hang", at=[256])
    service.start().wait_ready()
    row = service.wait_outcome(service.send_study(), seconds=90)
    assert (row["outcome"], row["rung"]) == ("delivered", "size-128")


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "raise", "text": "CUDA error: no kernel image is available for execution on the device"},
        {"kind": "raise", "text": "CUDA error: unspecified launch failure"},
        {"kind": "constant"},
    ],
    ids=["no kernel image", "device lost", "constant"],
)
def test_a_host_that_cannot_compute_is_not_ready_holds_its_studies_and_computes_them_later(
    service: SwitchableService, fault: dict[str, Any]
) -> None:
    service.start().wait_ready()
    service.fault(**fault, golden=True)
    study = service.send_study()
    wait_for(lambda: not service.ready(), 10, "readiness drops")
    held = service.studies(study)[0]
    assert held["outcome"] == "pending"
    service.fault()
    row = service.wait_outcome(study, seconds=90)
    assert row["outcome"] == "delivered"
    wait_for(service.ready, 30, "the service is ready again")


def test_after_enough_failures_of_one_cause_it_only_receives_and_says_so_until_it_works_again(
    tmp_path: Path, pacs: StoreScp
) -> None:
    service = SwitchableService(
        tmp_path / "service",
        [("PACS", pacs.port)],
        sizes=(256,),
        inference={
            "workers": 1,
            "ladder": {"deaths_allowed": 2, "climb_after_seconds": 1, "receive_only_retry_seconds": 3},
        },
    )
    service.fault("kill", golden=True)
    service.start()
    wait_for(lambda: "RECEIVE_ONLY_BEGUN" in service.events(), 60, "it gives up computing")
    study = service.send_study()
    verdict = service.http.get("/health/light").json()
    assert verdict["status"] == "failed"
    assert "RECEIVE_ONLY" in [check["code"] for check in verdict["checks"] if not check["ok"]]
    service.kill()
    service.start()
    assert not service.ready()
    service.fault()
    row = service.wait_outcome(study, seconds=90)
    assert row["outcome"] == "delivered"
    assert "RECEIVE_ONLY_ENDED" in service.events()
    assert service.ready()
    service.stop()
