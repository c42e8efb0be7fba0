"""What a run meets on hosts that are not ours: proxies, damaged files, a host's own zone; by the roles' own tasks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded_hosts import ROOT

DEAD_PROXY = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9"
)


def tasks(file: Path) -> Iterator[dict[str, Any]]:
    """Every task of a file of tasks, those inside blocks too."""
    waiting = list(yaml.safe_load(file.read_text()) or [])
    while waiting:
        one = waiting.pop(0)
        yield one
        for kind in ("block", "rescue", "always"):
            waiting += one.get(kind, [])


def every_task() -> list[tuple[Path, dict[str, Any]]]:
    files = sorted(ROOT.glob("roles/*/tasks/*.yml")) + sorted(ROOT.glob("roles/*/handlers/*.yml"))
    return [(file, task) for file in files for task in tasks(file)]


def named(role: str, name: str) -> dict[str, Any]:
    [found] = [
        task
        for file in (ROOT / "roles" / role / "tasks").glob("*.yml")
        for task in tasks(file)
        if task.get("name") == name
    ]
    return found


# --- Proxies.


def test_every_task_that_asks_a_web_server_says_whether_it_takes_the_environments_proxy() -> None:
    kinds = {"ansible.builtin.uri", "ansible.builtin.get_url"}
    asking = [(file.name, task) for file, task in every_task() if kinds & task.keys()]
    assert len(asking) >= 4, "the roles ask web servers in other ways now: look for them"
    for file, task in asking:
        options = task.get("ansible.builtin.uri") or task["ansible.builtin.get_url"]
        wanted = [False] if "127.0.0.1" in options["url"] else [False, "{{ inference_release_by_proxy }}"]
        assert options.get("use_proxy") in wanted, f"{file}: {task['name']}"


class Ready(BaseHTTPRequestHandler):
    """A service that is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


def test_a_ready_service_is_seen_although_the_environment_names_a_proxy_that_is_dead(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ready)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        # The very tasks, each with one system, told to give up soon.
        waits = [
            named("inference", "Wait until every system is ready"),
            named("fleet_database", "Wait until the fleet page answers"),
        ]
        for wait in waits:
            wait.update(retries=1, delay=1)
            wait.pop("when", None)
        known = {
            "inference_systems": {"brain": {"api_port": server.server_port}}, "inference_api_tls": {},
            "inference_ready_seconds": 3, "fleet_database_page_tls": {}, "fleet_database_page_port": server.server_port,
        }  # fmt: skip
        book = tmp_path / "play.yml"
        book.write_text(
            json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": known, "tasks": waits}])
        )
        command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "localhost,", "-c", "local", str(book)]
        own = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"} | DEAD_PROXY
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=120)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 0, done.stdout[-2000:]
    assert "failed=0" in done.stdout


def test_no_client_of_the_service_takes_a_proxy_from_the_environment() -> None:
    """What asks over HTTP in the service is httpx, told not to trust the environment."""
    for file in (ROOT / "service/outpost").rglob("*.py"):
        text = file.read_text()
        assert text.count("httpx.Client(") == text.count("trust_env=False"), file
        assert "urllib.request.urlopen" not in text, file
        assert "requests.get" not in text, file


# --- The archive of a release.


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "image.tar.gz"
    file.write_bytes(b"an image" * 4096)
    return file


def whole(archive: Path, digest: str, *, image: bool = True, dry: str = "no") -> bool:
    """What the role's own task says of the archive, with a docker that has the image or has not."""
    argv = named("inference", "Ask what of the release is there")["ansible.builtin.command"]["argv"]
    docker = archive.parent / "bin/docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text("#!/bin/sh\n" + ("echo present\n" if image else "echo No such image: x >&2; exit 1\n"))
    docker.chmod(0o755)
    done = subprocess.run(
        [*argv[:4], "sha256:x", str(archive), digest, dry],
        env={**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert ("image" in said) == image
    return "archive" in said


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_damaged_archive_of_the_same_size_and_time_is_not_taken_for_whole(archive: Path) -> None:
    digest = sha256(archive)
    assert whole(archive, digest)
    assert whole(archive, digest), "found whole before"
    before = archive.stat()
    with archive.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0")
    os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    # The time of the last change of an inode has whole seconds here; nobody damages a file in the second of its check.
    Path(f"{archive}.whole").write_text(
        f"{digest} {before.st_size} {before.st_ino} {int(before.st_ctime) - 1}\n"
    )
    assert archive.stat().st_size == before.st_size
    assert not whole(archive, digest)


def test_what_the_disk_changed_by_itself_is_seen_before_an_image_is_loaded(archive: Path) -> None:
    digest = sha256(archive)
    assert whole(archive, digest)
    archive.write_bytes(b"another!" * 4096)
    seen = archive.stat()
    # A bit that flips changes no time.
    Path(f"{archive}.whole").write_text(f"{digest} {seen.st_size} {seen.st_ino} {int(seen.st_ctime)}\n")
    assert whole(archive, digest), "the record says so"
    assert not whole(archive, digest, image=False)


def test_a_part_of_an_archive_and_none_are_not_whole_and_a_dry_run_writes_nothing(archive: Path) -> None:
    digest = sha256(archive)
    assert whole(archive, digest, dry="dry")
    assert not Path(f"{archive}.whole").exists()
    archive.write_bytes(archive.read_bytes()[:-1])
    assert not whole(archive, digest)
    archive.unlink()
    assert not whole(archive, digest)


# --- The time zone.


def linking(place: Path) -> list[dict[str, Any]]:
    """The role's own task and its own entry of the zone, for a file of the test's."""
    entries = yaml.safe_load((ROOT / "roles/base/vars/main.yml").read_text())["__base_files"]
    block = named("base", "Have the files of the host's settings as they are wanted")
    block["block"][0]["outpost_files"]["files"] = [one for one in entries if one["path"] == "/etc/localtime"]
    return list(json.loads(json.dumps([block]).replace("/etc/localtime", str(place))))


def test_the_zone_is_linked_whatever_was_there_before(tmp_path: Path) -> None:
    zones = Path("/usr/share/zoneinfo")
    places = {name: tmp_path / name for name in ("file", "nothing", "link", "dangling")}
    places["file"].write_bytes((zones / "Europe/Moscow").read_bytes())
    places["link"].symlink_to(zones / "Europe/Moscow")
    places["dangling"].symlink_to(tmp_path / "gone")
    ended = zone_run(tmp_path, [task for place in places.values() for task in linking(place)], "Asia/Chita")
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert {place.readlink() for place in places.values()} == {zones / "Asia/Chita"}


def test_a_zone_that_the_host_does_not_know_is_told_and_nothing_changed(tmp_path: Path) -> None:
    place = tmp_path / "localtime"
    place.write_bytes(b"a copy of a zone")
    ended = zone_run(tmp_path, linking(place), "Europe/Kyivv")
    assert ended.returncode == 2
    assert "knows no time zone Europe/Kyivv" in " ".join(ended.stdout.split())
    assert place.read_bytes() == b"a copy of a zone"


def zone_run(tmp_path: Path, play: list[dict[str, Any]], zone: str) -> subprocess.CompletedProcess[str]:
    book = tmp_path / "play.yml"
    one = {"hosts": "localhost", "gather_facts": False, "vars": {"base_timezone": zone}, "tasks": play}
    book.write_text(json.dumps([one]))
    command = ["sudo", "-n"] if os.geteuid() else []
    command += [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "localhost,", "-c", "local", str(book)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
