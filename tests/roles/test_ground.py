"""What a run starts from: the release and the secret are judged on the controller before any host is asked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starting import ROOT_SECRET as SECRET

ROOT = Path(__file__).parents[2]
ARCHIVE = b"an image" * 4096


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    write(tmp_path / "releases")
    return tmp_path / "releases"


def write(directory: Path, version: str = "1.2.3", **changes: Any) -> None:
    folder = directory / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.tar.gz").write_bytes(ARCHIVE)
    image = {
        "id": "sha256:" + "a" * 64, "reference": f"outpost:{version}", "archive": "image.tar.gz",
        "archive_sha256": hashlib.sha256(ARCHIVE).hexdigest(), "archive_bytes": len(ARCHIVE),
    }  # fmt: skip
    made = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    manifest = {"version": version, "made_at": made, "image": image} | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


def failing(preflight: ModuleType, directory: Path, version: str = "1.2.3", **more: Any) -> dict[str, str]:
    release = {"directory": str(directory), "release": version, "url": "", **more}
    checks = preflight.outpost_ground_checks(SECRET, [release, dict(release)])
    return {check["code"]: check["value"] for check in checks if not check["ok"]}


def test_a_whole_release_and_a_secret_of_ones_own_pass(preflight: ModuleType, releases: Path) -> None:
    assert failing(preflight, releases) == {}


def test_what_is_wrong_with_a_release_is_named(preflight: ModuleType, releases: Path) -> None:
    folder = releases / "1.2.3"
    assert set(failing(preflight, releases, "9.9.9")) == {"release-there"}
    assert failing(preflight, releases, "") == {"release-there": "outpost_release names none"}
    with (folder / "image.tar.gz").open("r+b") as file:
        file.seek(5000)
        file.write(b"X")
    assert set(failing(preflight, releases)) == {"release-whole"}
    os.truncate(folder / "image.tar.gz", 100)
    assert failing(preflight, releases) == {"release-whole": "100 bytes"}
    (folder / "image.tar.gz").unlink()
    assert set(failing(preflight, releases)) == {"release-whole"}
    assert failing(preflight, releases, url="http://here/releases") == {}, "hosts fetch it elsewhere"
    for broken in ("{", "[]", "{}", json.dumps({"version": "1.2.3", "image": {"archive": "../../x"}})):
        (folder / "manifest.json").write_text(broken)
        assert set(failing(preflight, releases)) == {"release-there"}
    write(releases, image={"id": "sha256:" + "a" * 64})
    assert set(failing(preflight, releases)) == {"release-there"}
    write(releases)
    (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"1.2.3"', '"1.2.4"')
    )
    assert "1.2.4" in failing(preflight, releases)["release-there"]


def test_a_controller_that_lives_before_its_release_is_named(preflight: ModuleType, releases: Path) -> None:
    write(releases, made_at=(datetime.now(UTC) + timedelta(days=2)).isoformat())
    assert set(failing(preflight, releases)) == {"controller-clock"}
    write(releases, made_at="yesterday")
    assert failing(preflight, releases) == {}


def test_a_release_says_how_much_a_host_must_have_free(preflight: ModuleType, releases: Path) -> None:
    asked = lambda: preflight.outpost_release_disk(str(releases), "1.2.3", 6144)  # noqa: E731 - two words
    assert asked() == 6144
    image = {"archive_bytes": 3 << 30, "unpacked_bytes": 8 << 30}
    write(releases, image=image)
    assert asked() == (11 << 10) + 1024
    assert preflight.outpost_release_disk(str(releases), "none", 6144) == 6144


@pytest.mark.parametrize("playbook", ["site", "region", "centre"])
@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"outpost_root_secret": "example-only-worthless-" * 3}, "root-secret"),
        ({"outpost_release": "9.9.9"}, "release-there"),
    ],
)
def test_the_run_stops_before_any_host_is_asked(
    releases: Path, tmp_path: Path, playbook: str, values: dict[str, str], code: str
) -> None:
    chita, tver, centre = (
        {"ansible_connection": "ssh", "ansible_host": f"127.0.0.{number}", "ansible_port": 1}
        for number in (1, 2, 3)
    )
    variables = {
        "outpost_root_secret": SECRET, "outpost_release": "1.2.3", "outpost_release_directory": str(releases),
        "outpost_systems": {}, **values,
    }  # fmt: skip
    inventory = tmp_path / "hosts.json"
    groups = {
        "region": {"hosts": {"chita": chita, "tver": tver}}, "fleet": {"hosts": {"centre": centre}},
    }  # fmt: skip
    inventory.write_text(json.dumps({"all": {"children": groups, "vars": variables}}))
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", inventory, f"playbooks/{playbook}.yml", "-vvv"]
    ended = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert f"[{code}]" in said, said[-3000:]
    assert "unreachable=1" not in said, "no host was asked"
    assert variables["outpost_root_secret"] not in said
