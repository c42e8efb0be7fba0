"""Readiness of the running service is truthful: each fault takes it down in seconds, and it comes back by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import StoreScp, wait_for
from switchable import HERE, SwitchableService

from outpost.health.codes import CHECKS

# The bar: readiness drops within this time in every fault.
DROPS_SECONDS = 10.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwitchableService]:
    root = tmp_path_factory.mktemp("health")
    pacs = StoreScp(root / "pacs").start()
    service = SwitchableService(
        root / "service",
        [("PACS", pacs.port)],
        inference={
            "workers": 1,
            "timeout_seconds": 20,
            "golden_period_seconds": 3,
            "ladder": {"deaths_allowed": 100},
        },
    )
    yield service.start().wait_ready()
    service.stop()
    pacs.stop()


@pytest.fixture(autouse=True)
def _well_again(service: SwitchableService) -> Iterator[None]:
    yield
    service.fault()
    wait_for(service.ready, 60, "the service is ready again")


def verdict(service: SwitchableService) -> dict[str, Any]:
    found: dict[str, Any] = service.http.get("/health/light").json()
    return found


def failing(service: SwitchableService) -> set[str]:
    return {check["code"] for check in verdict(service)["checks"] if not check["ok"]}


def seconds_until(condition: Callable[[], Any], what: str) -> float:
    began = time.monotonic()
    wait_for(condition, DROPS_SECONDS, what)
    return time.monotonic() - began


def test_a_service_that_is_well_says_so_of_itself_its_worker_and_its_host(service: SwitchableService) -> None:
    wait_for(lambda: "DESTINATION_ANSWERS" in str(verdict(service)), 20, "the host was looked at")
    # Its bundle declares less memory than torch takes: a hint to people, and nothing that stops a study.
    assert failing(service) <= {"MEMORY_FITS"}
    found = {check["code"] for check in verdict(service)["checks"]}
    for place in ("service", "worker"):
        wanted = {code for code, kind in CHECKS.items() if kind.place == place}
        assert wanted - found <= {"RECORDER_RUNNING", "RECORDS_SHIPPED"}, "records are switched off"
    assert found >= {"STORAGE_WRITABLE", "SYNC_PROMPT", "CLOCK_SANE", "MEMORY_SHARE", "SECRETS_READABLE"}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "raise", "text": "CUDA error: no kernel image is available for execution on the device"},
        {"kind": "constant"},
        {"kind": "kill"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_model_that_fails_on_every_call_is_not_ready_within_seconds(
    service: SwitchableService, fault: dict[str, Any]
) -> None:
    service.fault(**fault, golden=True)
    seconds_until(lambda: not service.ready(), "readiness drops")
    wait_for(lambda: "GOLDEN_PASSED" in failing(service), 30, "the next worker's golden case says why")


def test_a_model_that_hangs_is_not_ready_within_seconds_though_its_time_is_not_over(
    service: SwitchableService,
) -> None:
    service.fault("hang", golden=True)
    seconds_until(lambda: not service.ready(), "readiness drops")
    assert "INFERENCE_PROGRESS" in failing(service)


def test_a_study_that_hangs_is_not_ready_though_the_golden_case_would_pass(
    service: SwitchableService,
) -> None:
    service.fault("hang")
    uid = service.send_study()
    wait_for(lambda: service.studies(uid)[0]["state"] == "inferring", 20, "the study is in work")
    seconds_until(lambda: not service.ready(), "readiness drops")
    assert "INFERENCE_PROGRESS" in failing(service)
    service.fault()
    assert service.wait_outcome(uid)["outcome"] == "delivered", "the time limit freed it"


def test_a_model_that_became_ten_times_slower_is_not_ready_within_seconds(service: SwitchableService) -> None:
    fastest = service.http.get("/health/heavy").json()
    assert fastest["status"] != "failed"
    service.fault("slow", seconds=3.0, golden=True)
    seconds_until(lambda: not service.ready(), "readiness drops")
    assert failing(service) & {"GOLDEN_CRAWLS", "INFERENCE_PROGRESS"}


def test_a_worker_killed_between_studies_is_replaced_and_proves_itself_again(
    service: SwitchableService,
) -> None:
    children = subprocess.run(
        ["pgrep", "-f", "-P", str(service.process.pid if service.process else 0), "outpost.inference.child"],
        capture_output=True,
        text=True,
        check=True,
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    wait_for(lambda: not service.ready(), DROPS_SECONDS, "readiness drops")
    wait_for(service.ready, 60, "another worker has proven itself")


def test_the_heavy_check_computes_the_golden_case_on_demand(service: SwitchableService) -> None:
    reply = service.http.get("/health/heavy")
    golden = next(c for c in reply.json()["checks"] if c["code"] == "GOLDEN_PASSED")
    assert (reply.status_code, golden["ok"], golden["value"]) == (200, True, 1.0)


def test_the_self_test_beside_the_running_service_knows_it_and_leaves_it_alone(
    service: SwitchableService, tmp_path: Path
) -> None:
    before = {path.name for path in service.storage.iterdir()}
    told = subprocess.run(
        [sys.executable, "-m", "outpost.cli", "selftest", "--json", "--config", str(service.config_file)],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
            "OUTPOST_TEST_FAULT": str(tmp_path / "none"),
        },
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    checks = {check["code"]: check for check in json.loads(told.stdout)["checks"]}
    assert {code for code, check in checks.items() if not check["ok"]} <= {"ENGINE_MEASURED", "MEMORY_FITS"}
    assert checks["PORTS_USABLE"]["value"].startswith("this service runs")
    assert {path.name for path in service.storage.iterdir()} == before
    assert service.ready()
