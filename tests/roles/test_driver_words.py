"""What a run of the playbooks says of the driver, in the language of the inventory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHECK = {
    "code": "MODULE_BUILT", "ok": False, "value": "not built for 6.1.0-18", "wanted": "the module built",
    "remedy": "`dkms status`, then the make.log it names.",
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "said", "silent"),
    [
        ("en", "[MODULE_BUILT] is: not built for 6.1.0-18", "Сделать"),
        ("ru", "[MODULE_BUILT] есть: not built for 6.1.0-18", "[MODULE_BUILT] is"),
    ],
)
def test_a_failed_check_of_the_driver_is_said_in_the_inventorys_language(
    tmp_path: Path, language: str, said: str, silent: str
) -> None:
    playbook = tmp_path / "judge.yml"
    # As roles/nvidia_driver/tasks/judge.yml says it.
    fail = {"msg": "{{ [check] | outpost_failed | join('\n') }}"}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.fail": fail}]}
    playbook.write_text(yaml.safe_dump([play]))
    variables = {"check": CHECK, "ours": language, "outpost_language": "{{ ours }}"}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local",
         "-e", yaml.safe_dump(variables, default_flow_style=True), playbook],
        cwd=ROOT, env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    told = " ".join(done.stdout.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in told
    assert silent not in told
    if language == "ru":
        assert "Сделать: `dkms status`, затем make.log" in told
