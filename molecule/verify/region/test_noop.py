"""A run of site.yml that has nothing to do goes to the host no more than it has to: that is nearly all its time."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from conftest import REGIONS, ROOT

# Ways to the host, of 177 in 135 tasks before each role compared its files in one call (docs/found/noop.md). Each costs
# a third of a second.
WAYS, TASKS = 45, 105


@pytest.mark.parametrize("region", REGIONS)
def test_a_run_that_changes_nothing_has_few_ways_to_the_host(region: str) -> None:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [ROOT / ".venv/bin/ansible-playbook", "-i", ROOT / "inventories/lab", "-vvv", "site.yml", "-l", region],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"changed=0 .*failed=0", done.stdout)
    ways, tasks = done.stdout.count("SSH: EXEC"), len(re.findall(r"^TASK \[", done.stdout, re.MULTILINE))
    assert (ways <= WAYS, tasks <= TASKS) == (True, True), f"{ways} ways to the host in {tasks} tasks"
