"""The root secret is rotated under a running region and centre; the run is killed at one step after the other.

`make test-rotation` brings up the lab and runs this (lab/rotation); half an hour, so it is no part of `make test`. It
rotates to a new secret and back again, so that the lab ends as it began.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "verify"))
from conftest import ADDRESSES, API, LAB, ROOT, host_of, http_json, lab, psql, root_secret, wait_for

from outpost.controller import certificates
from outpost.derived import derived, system_tokens

REGION = "chita"
# The run is killed as each of these begins: before it, after it, or in its middle, whatever the moment gives.
THERE = [
    "Write the authorities of both secrets",
    "Write the certificate and its key",
    "Have the server run on its files",
    "Create the roles",
    "Create the database",
    "Write the systems' configuration",
    "Restart the systems that changed",
    "Name the region, its release and its systems in the database",
]
BACK = [
    "Have the kernel hold these very rules",
    "Wait until every system is ready",
    "Judge who may reach the host, which takes no host",
    "Write the collector's configuration",
    "Ask with the new secret",
    "Attach the regions of the inventory",
    "Restart the collector where it runs on something else",
]


def playbook(name: str, limit: str, said: dict[str, str], kill_at: str = "") -> tuple[int, str]:
    """Runs a playbook; `kill_at`: kills it, and all it started here, as a task whose name matches begins."""
    extra = LAB / "rotation.json"
    # The lab's other regions are not up; each would be waited for, and rightly be said to be left.
    here = {"fleet_database_regions": {REGION: {"title": REGION, "address": ADDRESSES[REGION]}}}
    extra.write_text(json.dumps({**said, **here}))
    extra.chmod(0o600)
    command = ["ansible-playbook", "-vv", name, "-l", limit, "-e", f"@{extra}"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(line)
            task = re.match(r"(?:TASK|RUNNING HANDLER) \[(?:\w+ : )?(.*?)\] \*", line)
            if kill_at and task and re.fullmatch(kill_at, task[1]):
                time.sleep(secrets.choice([0, 0.2, 0.5, 1.0]))
                os.killpg(running.pid, signal.SIGKILL)
                break
    said_text = "".join(lines)
    if kill_at:
        assert running.returncode == -signal.SIGKILL, f"{kill_at} was never begun:\n{said_text[-3000:]}"
    return running.returncode, said_text


def all_secrets(*roots: str) -> list[str]:
    labels = [
        f"postgres/{REGION}/outpost_recorder", f"postgres/{REGION}/fleet_reader", "postgres/centre/fleet_collector",
        f"uid-key/{REGION}", "token/centre/read",
    ]  # fmt: skip
    found = [derived(root, label) for root in roots for label in labels]
    found += [token for root in roots for token in system_tokens(root, REGION, "brain").values()]
    return [*found, *roots, "PRIVATE KEY"]


def fresh_since(moment: str) -> bool:
    heard = psql(
        host_of("centre"), "fleet", f"SELECT ok_at > '{moment}' FROM fleet.sync WHERE region = '{REGION}'"
    )
    return heard == "t"


def link_works(seconds: float = 90) -> None:
    now = psql(host_of("centre"), "fleet", "SELECT clock_timestamp()")
    wait_for("the centre to hear from the region", lambda: fresh_since(now), seconds)


def opens(secret: str) -> bool:
    try:
        http_json(f"{API[REGION]}/studies", system_tokens(secret, REGION, "brain")["read"])
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code != 401
    return True


def recorder_ships() -> bool:
    checks = http_json(f"{API[REGION]}/health/light", system_tokens(root_secret(), REGION, "brain")["admin"])[
        "checks"
    ]
    return all(check["ok"] for check in checks if "RECORD" in check["code"] or "POSTGRES" in check["code"])


def rotate(before: str, after: str, first: str, kills: list[str]) -> None:
    said = {"outpost_root_secret": after, "outpost_root_secret_before": before, "outpost_uid_secret": first}
    limit = f"{REGION},centre"
    for point in kills:
        began = time.monotonic()
        _, text = playbook("playbooks/rotate.yml", limit, said, kill_at=point)
        print(f"killed at {point}: {time.monotonic() - began:.0f} s")
        assert not [word for word in all_secrets(before, after) if word in text], (
            f"a secret was printed before {point}"
        )
    status, text = playbook("playbooks/rotate.yml", limit, said)
    assert status == 0, text[-4000:]
    assert "No region is left" in text
    assert not [word for word in all_secrets(before, after) if word in text]
    (LAB / "root_secret").write_text(after)
    link_works()
    assert opens(before), "until it is finished both open the API"
    assert opens(after)
    wait_for("the recorder to ship", recorder_ships, 60)

    # Finished: the secret of before opens nothing any more.
    rest = {"outpost_root_secret": after, "outpost_uid_secret": first}
    for play in ("playbooks/region.yml", "playbooks/centre.yml"):
        status, text = playbook(play, limit, rest)
        assert status == 0, text[-4000:]
    link_works()
    assert (opens(before), opens(after)) == (False, True)
    for name in (REGION, "centre"):
        trust = host_of(name).file("/etc/outpost/tls/fleet-ca.pem").content_string
        assert trust == certificates.trusted(after)
    status, text = playbook("playbooks/region.yml", limit, rest)
    assert re.search(rf"{REGION} .*changed=0 ", text), "an interrupted rotation leaves nothing to make up for"


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[str, str]]:
    old = root_secret()
    yield old, secrets.token_hex(32)
    (LAB / "root_secret").write_text(old)


def test_a_secret_changed_without_a_word_stops_before_the_region_is_touched(keys: tuple[str, str]) -> None:
    """Under another key every study of the past would be a new one at the centre."""
    status, text = playbook("playbooks/region.yml", REGION, {"outpost_root_secret": keys[1]})
    assert status == 2
    assert "set outpost_uid_secret" in " ".join(text.split())
    assert re.search(rf"{REGION} .*changed=0 ", text)


def test_a_region_that_is_cut_off_keeps_the_secret_of_before_and_is_caught_up(keys: tuple[str, str]) -> None:
    old, new = keys
    said = {"outpost_root_secret": new, "outpost_root_secret_before": old, "outpost_uid_secret": old}
    lab("cut", REGION)
    try:
        status, text = playbook("playbooks/rotate.yml", f"{REGION},centre", said)
    finally:
        lab("heal", REGION)
    assert status != 0
    assert f"Still under the secret of before: {REGION}" in " ".join(text.split()), text[-4000:]
    link_works()


def test_a_rotation_killed_at_one_step_after_the_other_ends_whole(keys: tuple[str, str]) -> None:
    old, new = keys
    key = host_of(REGION).run("sed -n 's/^  uid_key: //p' /etc/outpost/brain.yaml").stdout
    rotate(old, new, first=old, kills=THERE)
    assert host_of(REGION).run("sed -n 's/^  uid_key: //p' /etc/outpost/brain.yaml").stdout == key
    rotate(new, old, first=old, kills=BACK)
    assert host_of(REGION).run("sed -n 's/^  uid_key: //p' /etc/outpost/brain.yaml").stdout == key
