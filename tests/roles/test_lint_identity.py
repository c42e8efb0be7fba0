"""Our rule for ansible-lint fires where a role asks Ansible what the host is, with the project's own configuration."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from recorded_hosts import ROOT

TASK = """---
- name: Install the driver
  ansible.builtin.debug:
    msg: done
  when: {condition}
"""
MISLEADING = {
    "family": "ansible_facts['os_family'] == 'Debian'",
    "attribute": "ansible_facts.distribution == 'Ubuntu'",
    "variable": "ansible_distribution_release == 'noble'",
    "manager": "ansible_facts['pkg_mgr'] == 'apt'",
    "ours": "platform_family == 'deb'",
}


def test_the_rule_fires_in_tasks_and_templates_and_leaves_our_own_facts(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".ansible-lint", tmp_path)
    shutil.copytree(ROOT / "plugins/lint", tmp_path / "plugins/lint")
    for name, condition in MISLEADING.items():
        tasks = tmp_path / f"roles/{name}/tasks/main.yml"
        tasks.parent.mkdir(parents=True)
        tasks.write_text(TASK.format(condition=condition))
    template = tmp_path / "roles/family/templates/motd.j2"
    template.parent.mkdir()
    template.write_text("This is {{ ansible_distribution }}\n")

    command = [ROOT / ".venv/bin/ansible-lint", "--offline", "-q", "-f", "codeclimate"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 2, ended.stderr
    found = [(one["check_name"].split("[")[0], one["location"]["path"]) for one in json.loads(ended.stdout)]
    places = sorted(path for rule, path in found if rule == "platform-identity")
    assert places == [
        "roles/attribute/tasks/main.yml",
        "roles/family/tasks/main.yml",
        "roles/family/templates/motd.j2",
        "roles/manager/tasks/main.yml",
        "roles/variable/tasks/main.yml",
    ]
