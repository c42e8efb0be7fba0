"""A system leaves the inventory and is removed: told of, kept able to run, emptied with its archive away, killed.

`make test-removal` brings up the lab and runs this (lab/removal).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

sys.path.insert(0, str(Path(__file__).parents[1] / "verify"))
from conftest import HOSPITAL, ORTHANC, ROOT, host_of, http_json, psql, root_secret, wait_for

from outpost.demo import TEMPLATES
from outpost.demo.series import write_series
from outpost.derived import system_tokens

REGION = "chita"
BRAIN = {"dicom_port": 11112, "api_port": 8080, "cores": 1, "memory_mib": 4096}
SECOND = {"dicom_port": 11113, "api_port": 8081, "cores": 1, "memory_mib": 3072}
BOTH, STAYS = {"brain": BRAIN, "second": SECOND}, {"brain": BRAIN}


def playbook(name: str, systems: dict[str, Any], *more: str, kill_at: str = "") -> tuple[int, str]:
    """Runs a playbook on the region with these systems; `kill_at`: kills it as a task of that name begins."""
    command = [
        "ansible-playbook",
        "-v",
        name,
        "-l",
        REGION,
        "-e",
        json.dumps({"outpost_systems": systems}),
        *more,
    ]
    plain = {
        "ANSIBLE_FORCE_COLOR": "false",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **plain},
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(line)
            if kill_at and re.match(rf"TASK \[.*{re.escape(kill_at)}\]", line):
                time.sleep(secrets.choice([0, 0.3, 0.8]))
                os.killpg(running.pid, signal.SIGKILL)
                break
    said = " ".join("".join(lines).split())
    if kill_at:
        assert running.returncode == -signal.SIGKILL, f"{kill_at} never began: {said[-3000:]}"
    return running.returncode, said


def changed(said: str) -> int:
    return int(re.findall(rf"{REGION} *: ok=\d+ +changed=(\d+)", said)[-1])


def on(command: str) -> str:
    return str(host_of(REGION).run(command).stdout.strip())


def second(path: str) -> Any:
    address = HOSPITAL[REGION]
    return http_json(f"https://{address}:8081{path}", system_tokens(root_secret(), REGION, "second")["admin"])


def send(folder: Path) -> tuple[int, str]:
    sender = ["/usr/bin/storescu", "-v", "--aetitle", "VERIFY", "--call", "OUTPOST", "--scan-directories"]
    done = subprocess.run(
        [*sender, HOSPITAL[REGION], "11113", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def archive(do: str) -> None:
    subprocess.run(
        ["docker", do, f"{os.environ['LAB_NAME']}-hospital"], check=True, capture_output=True, timeout=60
    )


def ready() -> bool:
    return second("/v2/health/ready") is not None


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The region with a second system, a study computed there, and its archive away."""
    status, said = playbook("playbooks/region.yml", BOTH)
    assert status == 0, said[-4000:]
    archive("stop")
    folder = tmp_path_factory.mktemp("head")
    seed = generate_uid()
    write_series(TEMPLATES / "ch2.nii.gz", folder, seed=seed)
    status, said = send(folder)
    assert status == 0, said

    def computed() -> str:
        rows = [row for row in second("/studies") if row["state"] in ("computed", "delivering")]
        return str(rows[0]["study_uid"]) if rows else ""

    yield wait_for("the study to be computed", computed, 240)
    archive("start")


def test_what_left_the_inventory_is_told_of_and_runs_on(study: str) -> None:
    began = on("systemctl show -P ActiveEnterTimestampMonotonic outpost@second")
    status, said = playbook("playbooks/preflight.yml", STAYS)
    assert status == 0, said[-3000:]
    assert "on the host, not in the inventory: second" in said
    status, said = playbook("playbooks/region.yml", STAYS)
    assert status == 0, said[-4000:]
    assert on("systemctl show -P ActiveEnterTimestampMonotonic outpost@second") == began
    assert "dport 11113" in on("nft list table inet outpost"), "its port stays closed to strangers"
    # Its rules, secrets and configuration are still there at its next start.
    on("systemctl restart outpost@second")
    wait_for("the system to be ready again", ready, 180)
    status, said = playbook("playbooks/region.yml", STAYS)
    assert (status, changed(said)) == (0, 0), said[-3000:]


def test_a_renamed_system_is_refused_before_anything_is_changed(study: str) -> None:
    for playbook_ in ("playbooks/preflight.yml", "playbooks/region.yml"):
        status, said = playbook(playbook_, {"brain": BRAIN, "head": SECOND})
        assert status == 2
        assert "head (dicom_port 11113) is on the port of second" in said
        assert changed(said) == 0
    status, said = playbook("playbooks/region.yml", BOTH, "-e", "inference_region=nerchinsk")
    assert status == 2
    assert "brain was set up in region chita, and the inventory calls the host nerchinsk" in said


def test_the_inventory_has_the_last_word_on_what_is_removed(study: str) -> None:
    status, said = playbook("playbooks/remove.yml", BOTH, "-e", "outpost_system=second")
    assert status == 2
    assert "is in outpost_systems: the next site.yml would set it up again" in said
    status, said = playbook("playbooks/remove.yml", STAYS, "-e", "outpost_system=secnd")
    assert status == 2
    assert "has no system secnd; it has brain, second" in said


def test_nothing_is_removed_while_a_result_is_not_delivered(study: str, tmp_path: Path) -> None:
    status, said = playbook(
        "playbooks/remove.yml", STAYS, "-e", "outpost_system=second", "-e", "removal_wait_seconds=10"
    )
    assert status == 2, said[-3000:]
    assert "second is not empty after 10 s" in said
    assert on("systemctl is-active outpost@second") == "active"
    write_series(TEMPLATES / "ch2.nii.gz", tmp_path, seed=generate_uid())
    status, said = send(tmp_path)
    assert "0xa700" in said.lower() or "Out of Resources" in said, said[-2000:]
    assert len(second("/studies")) == 1, "no other study is opened"
    assert host_of(REGION).file("/var/lib/outpost/second/out-of-service").exists


def test_a_removal_killed_on_the_way_goes_on_and_delivers_everything(study: str) -> None:
    brain = on("systemctl show -P ActiveEnterTimestampMonotonic outpost@brain")
    archive("start")
    for point in (
        "Stop it, now and at boot",
        "Close its ports for good",
        "Remove its configuration and its secrets",
    ):
        playbook("playbooks/remove.yml", STAYS, "-e", "outpost_system=second", kill_at=point)
    status, said = playbook("playbooks/remove.yml", STAYS, "-e", "outpost_system=second")
    assert status == 0, said[-4000:]
    assert "second is removed. Its data stays in /var/lib/outpost/second" in said
    assert {"SEG", "SR"} <= set(find(study)), "everything is delivered before anything is removed"
    assert on("systemctl is-active outpost@second") in ("inactive", "unknown")
    assert on("systemctl is-enabled outpost@second") in ("disabled", "not-found", "")
    assert on("docker ps --all --quiet --filter name=^outpost-second$") == ""
    assert on("ls /etc/outpost | grep ^second") == ""
    assert on("ls /etc/outpost/filter | grep ^second") == ""
    assert "11113" not in on("nft list table inet outpost")
    assert psql(host_of(REGION), "outpost", "SELECT systems FROM outpost.region") == "{brain}"
    assert host_of(REGION).file("/var/lib/outpost/second").is_directory, "its data stays"
    assert on("systemctl show -P ActiveEnterTimestampMonotonic outpost@brain") == brain, (
        "nothing of the other is touched"
    )
    status, said = playbook("playbooks/remove.yml", STAYS, "-e", "outpost_system=second")
    assert (status, changed(said)) == (0, 0), said[-3000:]
    status, said = playbook("playbooks/region.yml", STAYS)
    assert (status, changed(said)) == (0, 0), said[-3000:]


def find(study: str) -> list[str]:
    """Modalities of the series that the archive has of a study."""
    question = json.dumps({"Level": "Series", "Expand": True, "Query": {"StudyInstanceUID": study}}).encode()
    with urllib.request.urlopen(f"{ORTHANC}/tools/find", question, timeout=10) as answer:
        return sorted(one["MainDicomTags"]["Modality"] for one in json.loads(answer.read()))


def test_the_same_name_comes_back_with_its_history(study: str) -> None:
    status, said = playbook("playbooks/region.yml", BOTH)
    assert status == 0, said[-4000:]
    assert [row["study_uid"] for row in second("/studies")] == [study]
    assert not host_of(REGION).file("/var/lib/outpost/second/out-of-service").exists


def test_with_a_second_word_the_data_goes_too(study: str) -> None:
    status, said = playbook(
        "playbooks/remove.yml", STAYS, "-e", "outpost_system=second", "-e", "removal_data=true"
    )
    assert status == 0, said[-4000:]
    assert not host_of(REGION).file("/var/lib/outpost/second").exists
    assert host_of(REGION).file("/var/lib/outpost/brain").exists
