"""What of a role's packages is missing, on dpkg's real tools with a database of the test's own, and how it is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loaded import load
from recorded_hosts import ROOT

from outpost.platform import packages
from outpost.platform.surroundings import surroundings_lines

ENTRY = (
    "Package: {name}\nStatus: install ok {state}\nPriority: optional\nSection: misc\nInstalled-Size: 1\n"
    "Maintainer: A <a@example.invalid>\nArchitecture: all\nVersion: {version}\nDescription: a package\n\n"
)


def database(folder: Path, **states: str) -> Path:
    """dpkg's own directory with packages in these states; a state may be `installed 1.2`."""
    (folder / "updates").mkdir(parents=True, exist_ok=True)
    (folder / "info").mkdir(exist_ok=True)
    rows = []
    for name, state in states.items():
        word, _, version = state.partition(" ")
        rows.append(ENTRY.format(name=name, state=word, version=version or "1.0"))
    (folder / "status").write_text("".join(rows))
    return folder


def looked(admin: Path, *names: str) -> packages.Looked | None:
    # In a hospital's language: what is parsed must not follow it.
    own = {**os.environ, "DPKG_ADMINDIR": str(admin), "LC_ALL": "ru_RU.UTF-8", "LANGUAGE": "ru"}
    script = packages.looking("apt", names)
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=own, capture_output=True, text=True, check=True, timeout=30
    )
    return packages.looked("apt", names, done.stdout)


def play(tmp_path: Path, admin: Path, names: list[str], *more: str) -> tuple[int, str]:
    """The action by the real ansible-playbook on this machine, with that database. It is to install nothing."""
    task = {"name": "Have them", "outpost_packages": {"names": names, "manager": "apt"}}
    book = tmp_path / "play.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    # An apt-get that is called at all says so and fails.
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "apt-get").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexit 100\n")
    (tools / "apt-get").chmod(0o755)
    own = {
        **os.environ, "DPKG_ADMINDIR": str(admin), "PATH": f"{tools}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }  # fmt: skip
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "localhost,", "-c", "local", str(book), *more]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_only_what_is_not_installed_whole_is_missing(tmp_path: Path) -> None:
    admin = database(
        tmp_path, chrony="installed 4.3-2", tzdata="half-configured", nftables="unpacked", bc="config-files"
    )
    found = looked(admin, "chrony", "tzdata", "nftables", "bc", "postgresql", "chrony=4.3*", "chrony=5*")
    assert found is not None
    assert found.missing == ("tzdata", "nftables", "bc", "postgresql", "chrony=5*")
    assert set(found.torn) == {"tzdata", "nftables"}
    assert found.unreadable == ""


def test_an_installation_that_was_cut_off_is_seen_by_its_journal_too(tmp_path: Path) -> None:
    admin = database(tmp_path, chrony="installed")
    (admin / "updates/0001").write_text(ENTRY.format(name="chrony", state="half-configured", version="1.0"))
    found = looked(admin, "chrony")
    assert found is not None
    assert found.missing == ("chrony",)
    assert set(found.torn) == {"chrony", "(journal)"}


@pytest.mark.parametrize(
    ("file", "text", "command"),
    [
        ("status", "Package: chrony\nnonsense\n", "cp /var/lib/dpkg/status-old /var/lib/dpkg/status && dpkg"),
        ("updates/0007", "Package: chrony\nnonsense\n", "dpkg --configure -a"),
    ],
)  # fmt: skip
def test_a_damaged_database_is_told_with_the_command(
    tmp_path: Path, file: str, text: str, command: str
) -> None:
    admin = database(tmp_path, chrony="installed")
    (admin / file).write_text(text)
    found = looked(admin, "chrony")
    assert found is not None
    assert "error" in found.unreadable
    assert command in packages.unreadable("chita", "apt", found.unreadable).en
    assert command in packages.unreadable("chita", "apt", found.unreadable).ru


def test_a_half_file_of_dpkgs_journal_is_the_one_that_is_named() -> None:
    why = "dpkg-query: error: parsing file '/var/lib/dpkg/updates/0007' near line 3"
    assert packages.repair("apt", why).startswith("rm /var/lib/dpkg/updates/0007 && dpkg --configure -a")
    assert packages.repair("dnf", "error: rpmdb: damaged header") == "rpm --rebuilddb"


def test_an_answer_that_broke_off_is_none(tmp_path: Path) -> None:
    admin = database(tmp_path, chrony="installed")
    assert looked(admin, "chrony") is not None
    assert packages.looked("apt", ["chrony"], "is|ii |chrony|1.0\ntorn|") is None


APT_SAYS = """\
Err:1 http://mirror.example/debian stable InRelease
W: Failed to fetch http://mirror.example/debian/dists/stable/InRelease  Could not resolve 'mirror.example'
E: The repository 'https://third.example/apt stable Release' does not have a Release file.
E: Release file for http://old.example/debian/dists/stable/InRelease is expired (invalid since 3d).
W: GPG error: http://keyless.example stable InRelease: The following signatures couldn't be verified
W: Some index files failed to download. They have been ignored, or old ones used instead.
"""
DNF_SAYS = "Failed to download metadata for repo 'dead': Cannot download repomd.xml: all mirrors were tried"


def test_repositories_that_do_not_answer_are_named() -> None:
    assert list(packages.dead_repositories("apt", APT_SAYS)) == [
        "http://mirror.example/debian/dists/stable/InRelease", "https://third.example/apt",
        "http://old.example/debian/dists/stable/InRelease", "http://keyless.example",
    ]  # fmt: skip
    assert list(packages.dead_repositories("dnf", DNF_SAYS)) == ["dead"]
    said = packages.not_installed(
        "chita", ["chrony"], "No package", packages.dead_repositories("apt", APT_SAYS)
    )
    assert "http://mirror.example/debian/dists/stable/InRelease (Could not resolve" in said.en
    assert "Не отвечают: http://mirror.example" in said.ru


def test_a_run_whose_packages_are_all_there_asks_no_repository(tmp_path: Path) -> None:
    admin = database(tmp_path / "admin", chrony="installed", tzdata="installed", stranger="half-configured")
    status, said = play(tmp_path, admin, ["chrony", "tzdata"])
    assert status == 0, said
    assert "changed=0" in said
    assert not (tmp_path / "asked").exists()


def test_a_dry_run_says_what_would_be_installed_and_asks_no_repository(tmp_path: Path) -> None:
    admin = database(tmp_path / "admin", chrony="installed")
    status, said = play(tmp_path, admin, ["chrony", "nftables"], "--check", "--diff")
    assert status == 0, said
    assert "changed=1" in said
    assert "+nftables" in said
    assert not (tmp_path / "asked").exists()


def test_a_damaged_database_stops_before_anything_is_asked(tmp_path: Path) -> None:
    admin = database(tmp_path / "admin", chrony="installed")
    (admin / "status").write_text("Package: chrony\nnonsense\n")
    status, said = play(tmp_path, admin, ["chrony"], "-e", "outpost_language=ru")
    assert status == 2
    assert "Ничего не изменено. На сервере: cp /var/lib/dpkg/status-old" in " ".join(said.split())
    assert not (tmp_path / "asked").exists()


# --- The same before anything changes.


def judged(said: str = "", wanted: dict[str, Any] | None = None, **read: Any) -> dict[str, tuple[bool, str]]:
    around = {
        "writable": {}, "packages": said, "repositories": {}, "release": "", "archive_there": False,
        "remote_tmp": "/root/.ansible/tmp", **read.pop("surroundings", {}),
    }  # fmt: skip
    asked = {"packages": {"manager": "apt", "names": ["chrony"]}, "archive": {}, **(wanted or {})}
    lines = surroundings_lines({"surroundings": around, **read}, asked)
    return {line.code: (line.ok, line.level) for line in lines if not line.ok} | {
        line.code: (True, "ok")
        for line in lines
        if line.ok and line.code not in {x.code for x in lines if not x.ok}
    }


WHOLE, MISSING = "is|ii |chrony|4\ntorn|\nage|5\n", "torn|\nage|5\n"


def test_a_host_that_lacks_nothing_is_not_judged_by_its_repositories() -> None:
    assert "package-source" not in judged(WHOLE)


@pytest.mark.parametrize(
    ("answers", "source", "each"),
    [
        ({"http://a": "ok"}, (True, "ok"), None),
        ({"http://a": "ok", "http://b": "refused"}, (True, "ok"), (False, "warning")),
        ({"http://b": "refused"}, (False, "critical"), (False, "warning")),
        ({}, (False, "critical"), None),
    ],
)
def test_missing_packages_need_one_repository_that_answers(
    answers: dict[str, str], source: tuple[bool, str], each: tuple[bool, str] | None
) -> None:
    found = judged(MISSING, surroundings={"repositories": answers})
    assert (found["package-source"], found.get("repository")) == (source, each)


def test_what_would_fail_in_the_middle_stops_before_it_begins() -> None:
    found = judged(
        "unreadable|dpkg-query: error: parsing file\ntorn|\nage|5\n",
        surroundings={"writable": {"/opt": False}, "release": "HTTP 404"},
        inodes_free={"/opt": 12}, temporary_free_mib={"/srv/tmp": 3},
        wanted={"archive": {"url": "http://m/r/1/image.tar.gz", "path": "/opt/x", "bytes": 5 << 20, "by_proxy": False}},
    )  # fmt: skip
    assert found == dict.fromkeys(
        ("writable", "inodes", "temp-space", "package-tool", "release-fetch"), (False, "critical")
    )
    assert "package-torn" in judged("torn|stranger \nage|5\n")


def test_an_archive_that_comes_from_here_needs_room_among_the_temporary_files() -> None:
    archive = {"url": "", "path": "/opt/x", "bytes": 500 << 20, "by_proxy": False}
    room = {"/srv/tmp": 100, "/root/.ansible/tmp": 100}
    assert judged(WHOLE, temporary_free_mib=room)["temp-space"] == (True, "ok")
    assert judged(WHOLE, {"archive": archive}, temporary_free_mib=room)["temp-space"] == (False, "critical")


@pytest.fixture
def around() -> ModuleType:
    return load(ROOT / "roles/preflight/module_utils/preflight_surroundings.py")


def test_the_hosts_own_proxy_is_asked_for_where_a_repository_is_behind_it(
    around: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert around.proxy_of("http://deb.example/debian", "") == ""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert around.proxy_of("http://deb.example/debian", "") == "http://127.0.0.1:9"
    assert around.proxy_of("http://deb.example/debian", "DIRECT") == ""
    monkeypatch.setenv("no_proxy", "deb.example")
    assert around.proxy_of("http://deb.example/debian", "") == ""
    assert "(proxy 127.0.0.1)" in around.reachable("http://deb.example/debian", "127.0.0.1:9", 2)
    assert around.reachable("file:/media/cdrom", "", 2) == "ok"


@pytest.mark.parametrize(
    ("main", "own", "asked"),
    [
        ("", "", ""),
        ("proxy=http://p:1", "", "http://p:1"),
        ("proxy=http://p:1", "proxy=", ""),
        ("proxy=http://p:1", "proxy=http://q:2", "http://q:2"),
        # yum knew the word; dnf 4 looks for a proxy of that name, and so must the judge.
        ("proxy=_none_", "", "_none_"),
    ],
)
def test_dnf_is_asked_through_the_proxy_that_dnf_takes(
    around: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: str, own: str, asked: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dnf").mkdir()
    (tmp_path / "yum.repos.d").mkdir()
    (tmp_path / "dnf/dnf.conf").write_text(f"[main]\n{main}\n")
    (tmp_path / "yum.repos.d/a.repo").write_text(f"[a]\nbaseurl=http://repo.example/a\n{own}\n")
    assert around.dnf_repositories(str(tmp_path)) == {"http://repo.example/a": asked}


def test_a_host_that_says_nothing_of_its_packages_is_told_in_both_languages() -> None:
    silent, broken = packages.not_looked_at("chita", ""), packages.not_looked_at("chita", "sh: not found")
    assert "what is installed: no answer. Look" in silent.en
    assert "что установлено: ответа нет. Проверьте" in silent.ru
    assert "sh: not found. Look" in broken.en
    assert packages.not_needed("chita", "http://dead").ru == (
        "chita: репозиторий http://dead не ответил; из него ничего не требовалось"
    )
