"""Two runs at once on one host: the second is told of the first, and a run that has ended holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from outpost.controller import lock

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / ".venv/bin/ansible-playbook"


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """A playbook that takes the lock `tmp_path/lock` and then works until `tmp_path/end` is there."""
    tasks = [
        {"name": "Take it", "outpost_lock": {"path": str(tmp_path / "lock")}},
        {
            "name": "Work",
            "ansible.builtin.wait_for": {"path": str(tmp_path / "end"), "timeout": 60, "sleep": 1},
        },
    ]
    hosts = [{"hosts": "tver", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (tmp_path / "play.yml").write_text(json.dumps(hosts))
    return tmp_path / "play.yml"


def start(play: Path, *more: str) -> subprocess.Popen[str]:
    command = [str(ANSIBLE), "-i", "tver,", str(play), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_second_run_is_told_and_the_lock_ends_with_the_first_however_it_ends(play: Path) -> None:
    held = play.with_name("lock")
    first = start(play)
    try:
        until(held.exists)
        second = start(play, "-e", "outpost_language=ru")
        said, _ = second.communicate(timeout=60)
        said = " ".join(said.split())
        assert second.returncode == 2, said
        assert "tver сейчас меняет" in said
        assert f"(process {first.pid})" in said
        assert " since 20" in said
        assert held.exists(), "the second takes nothing from the first"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    until(lambda: not held.exists(), 10)

    play.with_name("end").touch()
    third = start(play)
    said, _ = third.communicate(timeout=60)
    assert third.returncode == 0, said
    until(lambda: not held.exists(), 10)


def test_a_dry_run_takes_no_lock_and_is_not_kept_from_looking(play: Path) -> None:
    play.with_name("end").touch()
    play.with_name("lock").write_text(f"other:1:1\n{uptime()}\nanna@ctrl2\n")
    dry = start(play, "--check")
    said, _ = dry.communicate(timeout=60)
    assert dry.returncode == 0, said
    assert "anna@ctrl2" in play.with_name("lock").read_text()


@pytest.mark.parametrize("playbook", ["region", "centre", "rotate"])
def test_a_playbook_takes_the_lock_before_it_changes_a_host(playbook: str) -> None:
    for play in yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text()):
        if play.get("become"):
            before = play.get("pre_tasks") or play["tasks"][:1]
            assert "outpost_lock" in before[-1], play["name"]


# --- The host's part, by the shell that runs there.

MINE = lock.Run("here", 7, 70)


def uptime() -> int:
    return int(float(Path("/proc/uptime").read_text().split()[0]))


def sh(script: str) -> lock.Answer | None:
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    return lock.answered(done.stdout)


def holder(path: Path) -> str:
    return path.read_text().splitlines()[0] if path.exists() else ""


def test_a_lock_is_taken_once_and_is_its_runs_own_until_it_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lock with a space"
    assert sh(lock.taking(MINE, "anna", str(path))) == lock.Answer("taken")
    assert sh(lock.taking(MINE, "anna", str(path))) == lock.Answer("mine")
    other = lock.Run("elsewhere", 8, 80)
    answer = sh(lock.taking(other, "boris", str(path)))
    assert answer is not None
    assert (answer.state, answer.holder, answer.who) == ("held", str(MINE), "anna")
    sh(lock.releasing(other, str(path)))
    assert holder(path) == str(MINE)
    sh(lock.releasing(MINE, str(path)))
    assert not path.exists()


@pytest.mark.parametrize(("silent", "state"), [(0, "held"), (80, "held"), (91, "taken")])
def test_a_run_of_another_controller_that_died_is_forgotten(tmp_path: Path, silent: int, state: str) -> None:
    path = tmp_path / "lock"
    path.write_text(f"elsewhere:8:80\n{uptime() - silent}\nboris@ctrl2 since then\n")
    answer = sh(lock.taking(MINE, "anna", str(path)))
    assert answer is not None
    assert answer.state == state
    assert (holder(path) == str(MINE)) == (state == "taken")


def test_a_run_that_is_known_to_have_ended_gives_way_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    gone = lock.Run("here", 9, 90)
    sh(lock.taking(gone, "anna", str(path)))
    assert sh(lock.taking(MINE, "anna", str(path), dead=str(gone))) == lock.Answer("taken")
    sh(lock.renewing(gone, "anna", str(path)))
    sh(lock.releasing(gone, str(path)))
    assert holder(path) == str(MINE), "the dead run's keeper takes nothing back"


def test_a_renewal_beats_and_takes_again_what_a_restart_of_the_host_has_lost(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(f"{MINE}\n{uptime() - 60}\nanna\n")
    sh(lock.renewing(MINE, "anna", str(path)))
    assert int(path.read_text().splitlines()[1]) >= uptime() - 2
    path.unlink()
    sh(lock.renewing(MINE, "anna", str(path)))
    assert holder(path) == str(MINE)


def test_of_many_that_want_it_at_once_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    runs = [lock.Run("c", number, number) for number in range(1, 25)]
    asked = [
        subprocess.Popen(
            ["/bin/sh", "-c", lock.taking(run, "x", str(path))], stdout=subprocess.PIPE, text=True
        )
        for run in runs
    ]
    states = [lock.answered(one.communicate()[0]) for one in asked]
    assert sorted(one.state for one in states if one is not None) == ["held"] * 23 + ["taken"]


@pytest.mark.parametrize("left", ["", "other:1:1\n", "other:1:1\nsoon\nanna\n", "\0\0\0"])
def test_what_is_left_of_a_broken_lock_holds_nobody_up(tmp_path: Path, left: str) -> None:
    path = tmp_path / "lock"
    path.write_text(left)
    assert sh(lock.taking(MINE, "anna", str(path))) == lock.Answer("taken")


def test_a_run_knows_whether_its_process_lives() -> None:
    mine = lock.Run.of(os.getpid())
    assert mine.lives() is True
    assert lock.Run.read(str(mine)) == mine
    assert lock.Run(mine.boot, mine.process, mine.started + 1).lives() is False
    assert lock.Run("another boot", 1, 1).lives() is None
    assert lock.Run.read("anything") is None
