"""A release that cannot run: the host goes back to the one before by itself, and the playbook says so."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from system_api import wait_until_ready

ROOT = Path(__file__).parents[2]
LIMIT = os.environ["OUTPOST_LIMIT"].split(",")
BROKEN = "0.0.1-broken"


def on(host: str, *command: str) -> str:
    answer = subprocess.run(
        [ROOT / "lab/lab", "exec", host, "--", *command],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip()


def site(*more: str) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", "site.yml", "-l", LIMIT[0], *more]
    # Molecule asks for colours, which would stand before the names we look for.
    plain = {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **plain}
    return subprocess.run(
        command, cwd=ROOT, timeout=900, capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A release whose image is whole by its id and holds no program: the container ends at once."""
    folder = tmp_path / BROKEN
    folder.mkdir()
    empty = tmp_path / "empty.tar"
    tarfile.open(empty, "w").close()
    reference = f"outpost-broken:{os.environ['LAB_NAME']}"
    subprocess.run(["docker", "import", empty, reference], check=True, capture_output=True)
    try:
        archive = folder / "image.tar"
        subprocess.run(["docker", "save", "--output", archive, reference], check=True)
        inspect = ["docker", "image", "inspect", "--format={{.Id}}", reference]
        image = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
    finally:
        subprocess.run(["docker", "image", "rm", reference], check=True, capture_output=True)
    digest, size = hashlib.sha256(archive.read_bytes()).hexdigest(), archive.stat().st_size
    told = {"id": image, "archive": archive.name, "archive_bytes": size, "archive_sha256": digest}
    manifest = {"version": BROKEN, "made_at": datetime.now(UTC).isoformat(), "image": told}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_release_that_does_not_become_ready_is_taken_back(releases: Path) -> None:
    before = on(LIMIT[0], "readlink", "/opt/outpost/current")
    configuration = on(LIMIT[0], "cat", "/etc/outpost/brain.yaml")
    # A configuration that goes with the new release: the one before might refuse it.
    failed = site("-e", '{"inference_quarantine": {"max_items": 777}}',
                  "-e", f"outpost_release={BROKEN}", "-e", f"outpost_release_directory={releases}",
                  "-e", "outpost_release_url=", "-e", "inference_ready_seconds=30")  # fmt: skip
    said = " ".join(failed.stdout.split())
    assert failed.returncode == 2, said[-3000:]
    assert f"release {BROKEN} did not become ready" in said, said[-3000:]
    assert f"runs {Path(before).name} again" in said

    assert on(LIMIT[0], "readlink", "/opt/outpost/current") == before
    assert "777" not in configuration
    assert on(LIMIT[0], "cat", "/etc/outpost/brain.yaml") == configuration
    wait_until_ready(60)

    again = site()
    assert again.returncode == 0, again.stdout[-3000:]
    recap = next(
        line for line in again.stdout.splitlines() if line.startswith(f"{LIMIT[0]} ") and "ok=" in line
    )
    assert "changed=0" in recap, "the host must stand as if the broken release had never come"
