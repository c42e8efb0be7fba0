"""Runs a playbook on a lab's host, whole or cut between two tasks, and asks the host what runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def on(host: str, command: str, check: bool = True) -> str:
    """What a command on the host prints."""
    done = subprocess.run(
        [ROOT / "lab/lab", "exec", host, "--", "sh", "-c", command],
        check=check, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def run(
    playbook: Path | str, host: str, said: dict[str, Any], cut: str = "", tasks: Path | None = None
) -> tuple[int, str]:
    """Status and words of a run; `cut`: the task (a regular expression) after which it is killed, or how many."""
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "true", "ANSIBLE_FORCE_COLOR": "false",
        "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT / 'plugins/callback'}:{ROOT / 'tests/roles/steps/callback'}",
        "ANSIBLE_CALLBACKS_ENABLED": "outpost_cut", "OUTPOST_CUT": cut, "OUTPOST_TASKS": str(tasks or ""),
        "OUTPOST_FAILURES": "",
    }  # fmt: skip
    command = [
        "ansible-playbook",
        "-i",
        str(ROOT / "inventories/lab"),
        str(playbook),
        "-l",
        host,
        "-e",
        json.dumps(said),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=1800,
        start_new_session=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def was_cut(status: int) -> bool:
    return status == -signal.SIGKILL


def changed(said: str, host: str) -> int:
    """How many tasks a whole run says it changed."""
    [found] = re.findall(rf"^{host} .*changed=(\d+) ", said, re.MULTILINE)
    return int(found)
