"""outpost_files: many files of a host by one call, compared with what is there; a difference is told and mended."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "plugins/modules/outpost_files.py"
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}
# Tasks of a role that write one file each, on every run: each costs up to five ways to the host and back.
ONE_BY_ONE = {"copy", "template"}
# These run only where something differs, or where the role is one of a lane or of no ordinary run.
ALLOWED = {
    "archive.yml": "a release that is not there yet",
    "go_back.yml": "a release that does not get ready",
}
RUN_BY_SITE = ("base", "dicom_filter", "inference", "postgresql", "fleet_database")


def call(files: list[dict[str, Any]], check: bool = False) -> dict[str, Any]:
    arguments = {
        "files": [{**ME, **one} for one in files],
        "_ansible_check_mode": check,
        "_ansible_diff": True,
    }
    done = subprocess.run(
        [sys.executable, str(MODULE)], input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def everything(folder: Path) -> list[dict[str, Any]]:
    return [
        {"path": f"{folder}/a/b", "state": "directory", "mode": "0750"},
        {"path": f"{folder}/a/b/plain", "content": "one\n"},
        {
            "path": f"{folder}/a/b/closed",
            "content": "a secret\n",
            "mode": "0600",
            "secret": True,
            "keep": True,
        },
        {"path": f"{folder}/a/link", "state": "link", "target": f"{folder}/a/b"},
        {"path": f"{folder}/a/gone", "state": "absent"},
    ]


def test_a_second_call_changes_nothing_and_a_dry_run_before_it_neither(tmp_path: Path) -> None:
    files = everything(tmp_path)
    would = call(files, check=True)
    assert would["changed"]
    assert list(tmp_path.iterdir()) == []
    first = call(files)
    assert first["written"] == would["written"] == [one["path"] for one in files[:4]]
    assert stat.S_IMODE((tmp_path / "a/b/closed").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o750
    before = {path: path.lstat().st_ctime_ns for path in tmp_path.rglob("*")}
    for check in (True, False):
        assert (call(files, check)["changed"], call(files, check)["diff"]) == (False, [])
    assert before == {path: path.lstat().st_ctime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ("echo two > a/b/plain", "a/b/plain"),
        ("chmod 600 a/b/plain", "a/b/plain"),
        ("chmod 755 a/b", "a/b"),
        ("rm a/b/plain", "a/b/plain"),
        ("mv a/b/plain a/kept && ln -s ../kept a/b/plain", "a/b/plain"),
        ("ln -sfn /tmp a/link", "a/link"),
        ("touch a/gone", "a/gone"),
        ("chmod 644 a/b/closed", "a/b/closed"),
    ],
)
def test_a_difference_is_told_in_a_dry_run_and_mended(tmp_path: Path, wrong: str, path: str) -> None:
    files = everything(tmp_path)
    call(files)
    subprocess.run(["sh", "-c", wrong], cwd=tmp_path, check=True)
    told = call(files, check=True)
    assert told["written"] == [f"{tmp_path}/{path}"]
    assert [one["after_header"] for one in told["diff"]] == told["written"]
    assert call(files)["written"] == told["written"]
    assert not call(files)["changed"]
    assert (tmp_path / "a/b/plain").read_text() == "one\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_another_owner_is_a_difference(tmp_path: Path) -> None:
    files = everything(tmp_path)
    call(files)
    os.chown(tmp_path / "a/b/plain", 1, 1)
    assert call(files)["written"] == [f"{tmp_path}/a/b/plain"]
    assert (tmp_path / "a/b/plain").stat().st_uid == os.getuid()


def test_a_secret_is_in_no_answer_but_where_it_is_kept(tmp_path: Path) -> None:
    files = everything(tmp_path)
    assert "a secret" not in json.dumps(call(files))
    (tmp_path / "a/b/closed").write_text("the one before\n")
    said = call(files)
    [kept] = said.pop("kept")
    assert kept["path"] == f"{tmp_path}/a/b/closed"
    assert kept["mode"] == "0600"
    assert "the one before" not in json.dumps(said)
    assert "a secret" not in json.dumps(said)


def test_what_a_program_refuses_is_not_kept_and_what_was_there_stays(tmp_path: Path) -> None:
    file = {"path": f"{tmp_path}/rules", "content": "right\n", "validate": "grep -q right %s"}
    assert call([file])["changed"]
    said = call([{**file, "content": "wrong\n"}])
    assert said["failed"]
    assert said["path"] == f"{tmp_path}/rules"
    assert (tmp_path / "rules").read_text() == "right\n"


def test_a_backup_stays_beside_and_a_link_that_is_followed_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("theirs\n")
    (tmp_path / "link").symlink_to("real")
    said = call([{"path": f"{tmp_path}/link", "content": "ours\n", "follow": True, "backup": True}])
    assert said["changed"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "ours\n"
    [backup] = tmp_path.glob("real.*~")
    assert backup.read_text() == "theirs\n"


def test_a_link_takes_the_place_of_a_file_only_where_it_may_and_never_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text("of another\n")
    (tmp_path / "target").write_text("")
    link = {"path": f"{tmp_path}/zone", "state": "link", "target": f"{tmp_path}/target"}
    assert call([link])["failed"]
    assert call([{**link, "target": f"{tmp_path}/nowhere", "force": True}])["failed"]
    assert (tmp_path / "zone").read_text() == "of another\n"
    assert call([{**link, "force": True}])["changed"]
    assert (tmp_path / "zone").is_symlink()


@pytest.mark.parametrize("state", ["file", "absent"])
def test_a_directory_is_never_taken_for_a_file(tmp_path: Path, state: str) -> None:
    (tmp_path / "data").mkdir()
    assert call([{"path": f"{tmp_path}/data", "content": "", "state": state}])["failed"]
    assert (tmp_path / "data").is_dir()


PLAY = """\
- hosts: localhost
  gather_facts: false
  vars: {{ansible_python_interpreter: "{python}", systems: {{brain: {{port: 1}}, lung: {{port: 2}}}}}}
  tasks:
    - name: Write
      outpost_files:
        files:
          - {{path: "{out}/%s.conf", template: one.j2, each: "{{{{ systems }}}}", owner: "{uid}", group: "{gid}"}}
          - {{path: "{out}/%s.token", each: {{brain: "x", lung: null}}, owner: "{uid}", group: "{gid}"}}
          - {{path: "{out}/not", content: "{{{{ undefined_name | default('') }}}}", when: false}}
          - {{path: "{out}/src", src: one.txt, owner: "{uid}", group: "{gid}"}}
      register: done
    - debug: {{var: done.written}}
"""


def test_the_action_fills_in_templates_files_and_names(tmp_path: Path) -> None:
    for folder in ("templates", "files", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "templates/one.j2").write_text(
        "# {{ ansible_managed }}\n{% if true %}\nport {{ item.value.port }}\n{% endif %}\n"
    )
    (tmp_path / "files/one.txt").write_text("as it is {{ not_a_template }}\n")
    (tmp_path / "out/lung.token").write_text("old")
    text = PLAY.format(python=sys.executable, out=tmp_path / "out", uid=os.getuid(), gid=os.getgid())
    (tmp_path / "play.yml").write_text(text)
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", "localhost,", "-c", "local", tmp_path / "play.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

    def play(*more: str) -> str:
        done = subprocess.run(
            [*command, *more],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = play()
    assert re.search(r"changed=1\b", said)
    assert f"localhost: written: {tmp_path}/out/brain.conf, " in said, "without --diff the screen says which"
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {
        "brain.conf": "# Ansible managed\nport 1\n", "lung.conf": "# Ansible managed\nport 2\n", "brain.token": "x",
        "src": "as it is {{ not_a_template }}\n",
    }  # fmt: skip
    (tmp_path / "out/src").write_text("by hand\n")
    would = play("--check", "--diff")
    assert "-by hand" in would
    assert "+as it is" in would
    assert (tmp_path / "out/src").read_text() == "by hand\n"
    assert re.search(r"changed=1\b", play())
    assert re.search(r"changed=0\b", play())


def _tasks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inner = [_tasks(one.get(key, [])) for one in found for key in ("block", "rescue")]
    return [*found, *(task for tasks in inner for task in tasks)]


@pytest.mark.parametrize("role", RUN_BY_SITE)
def test_no_role_writes_its_files_one_by_one(role: str) -> None:
    """What a run that changes nothing costs is the number of its ways to the host; molecule/verify counts those."""
    for path in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        if path.name in ALLOWED or path.name.startswith("upgrade"):
            continue
        for task in _tasks(yaml.safe_load(path.read_text())):
            modules = {key.rsplit(".", 1)[-1] for key in task if "." in key}
            assert not modules & ONE_BY_ONE, f"{path.name}: {task['name']}: give it to outpost_files"
