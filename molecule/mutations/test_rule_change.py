"""A rule set that changes in the inventory: it judges without a restart, and a wrong one never reaches the host."""

from __future__ import annotations

import json
import os
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from system_api import HOST, checks, wait_until_ready

ROOT = Path(__file__).parents[2]
LABS_OWN = ROOT / "inventories/lab/rules/brain.yaml"
# The role by itself, as playbooks/region.yml has it: what else that does is proven elsewhere.
PLAY = """\
- hosts: region
  gather_facts: false
  become: true
  roles: [dicom_filter]
  tasks:
    - ansible.builtin.import_role: {name: dicom_filter, tasks_from: active}
"""


def on_host(*command: str) -> str:
    answer = subprocess.run(
        [ROOT / "lab/lab", "exec", HOST, "--", *command],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip()


def apply(tmp_path: Path, rules: Path) -> subprocess.CompletedProcess[str]:
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    said: dict[str, Any] = {"dicom_filter_rules": {"brain": str(rules)}}
    # Molecule asks for colours, which would stand before the names we look for.
    plain = {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **plain}
    command = [
        "ansible-playbook",
        "-i",
        str(ROOT / "inventories/lab"),
        "-l",
        HOST,
        str(play),
        "-e",
        json.dumps(said),
    ]
    return subprocess.run(
        command, cwd=ROOT, timeout=120, capture_output=True, text=True, check=False, env=environment
    )


def judging() -> str:
    return str(next(check["value"] for check in checks()[1] if check["code"] == "FILTER_RULES"))


def short(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()[:12]


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    file = tmp_path / "changed.yaml"
    file.write_text(LABS_OWN.read_text() + "\n# one line more\n")
    return file


def test_a_changed_rule_set_judges_without_a_restart_and_a_wrong_one_stays_here(
    tmp_path: Path, changed: Path
) -> None:
    wait_until_ready(180)  # what broke it before has just been mended
    started = on_host("docker", "inspect", "--format={{.Id}} {{.State.StartedAt}}", "outpost-brain")
    try:
        done = apply(tmp_path, changed)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "changed=1" in done.stdout
        assert judging() == short(changed)

        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(changed.read_text().replace("SeriesDescription", "SeriesDescripton"))
        stopped = apply(tmp_path, wrong)
        said = " ".join(stopped.stdout.split())
        assert stopped.returncode == 2, said[-3000:]
        assert "did you mean SeriesDescription?" in said
        assert "changed=0" in said
        assert judging() == short(changed)
    finally:
        back = apply(tmp_path, LABS_OWN)
    assert back.returncode == 0, back.stdout[-3000:]
    assert judging() == short(LABS_OWN)
    assert on_host("docker", "inspect", "--format={{.Id}} {{.State.StartedAt}}", "outpost-brain") == started
