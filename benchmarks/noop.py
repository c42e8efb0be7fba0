#!/usr/bin/env python3
"""How long site.yml takes where there is nothing to do: on one host of the lab, and on twenty.

    LAB_NAME=demo LAB_SUBNET=10.77 OUTPOST_ROOT=$PWD benchmarks/noop.py [--host chita] [--hosts 20] [--repeats 3]

The host is up and has had its run. The twenty are stand-ins: this machine cannot carry twenty hosts that each hold a
model, so site.yml runs for twenty entries of the inventory, each of which answers as the one host did, as late as it
did (noop_ssh/ssh stands where ssh does). What the controller computes, forks and waits for is real; that twenty
hosts share no processor with it is as with real ones. The peer is the floor: a playbook of as many pings as site.yml
has ways to the host.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from report import Spread, finish, table

ROOT = Path(__file__).resolve().parents[1]
SSH = ROOT / "benchmarks/noop_ssh/ssh"
BAR_SECONDS, BAR_RATIO = 15.0, 3.0
# The stand-ins answer as a host of another name did.
ANOTHER_NAME = {"inference_uid_key_may_change": True}


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="chita")
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="outpost-noop-"))
    try:
        return measure(asked.host, asked.hosts, asked.repeats, folder)
    finally:
        shutil.rmtree(folder)


def measure(host: str, hosts: int, repeats: int, folder: Path) -> int:
    for name in ("answers", "seen"):
        (folder / name).mkdir()
    lab = ROOT / "inventories/lab"
    run(folder, lab, "site.yml", host)  # what the lab has not had yet, and the connection
    run(folder, lab, "site.yml", host, "record")
    ways = len(list((folder / "answers").glob("*.out")))
    pings = folder / "pings.yml"
    tasks = [{"name": f"Ping {number}", "ansible.builtin.ping": {}} for number in range(ways)]
    pings.write_text(
        yaml.safe_dump([{"name": "Floor", "hosts": host, "gather_facts": False, "tasks": tasks}])
    )
    many = inventory(host, hosts, folder / "inventory")
    measured: dict[str, list[tuple[float, float]]] = {"one": [], "floor": [], "replayed": [], "many": []}
    for _ in range(repeats):
        measured["one"].append(run(folder, lab, "site.yml", host))
        measured["floor"].append(run(folder, lab, str(pings), host))
        measured["replayed"].append(
            run(folder, inventory(host, 1, folder / "single"), "site.yml", "region", "replay")
        )
        measured["many"].append(run(folder, many, "site.yml", "region", "replay"))
    wall = {name: Spread.of([one for one, _ in each]) for name, each in measured.items()}
    cpu = {name: Spread.of([one for _, one in each]) for name, each in measured.items()}
    said = {
        "one": f"site.yml, {host}", "floor": f"{ways} pings, {host}", "replayed": "site.yml, one stand-in",
        "many": f"site.yml, {hosts} stand-ins",
    }  # fmt: skip
    rows = [[said[name], wall[name], cpu[name]] for name in measured]
    print(table(["a run that changes nothing", "seconds", "processor seconds of the controller"], rows))
    ratio = wall["many"].median / wall["replayed"].median
    return finish(
        "noop", ratio=ratio, peer=f"one host, {wall['one'].median:.1f} s; as many pings, {wall['floor'].median:.1f} s",
        bar=f"<= {BAR_RATIO:.0f}x for {hosts} hosts, <= {BAR_SECONDS:.0f} s for one",
        ok=ratio <= BAR_RATIO and wall["one"].median <= BAR_SECONDS,
        details={"hosts": hosts, "ways": ways, "seconds": wall, "processor_seconds": cpu, "many_are_stand_ins": True},
        packages=("ansible-core",), keep=hosts == 20 and repeats >= 3,
    )  # fmt: skip


def inventory(host: str, hosts: int, folder: Path) -> Path:
    """The lab's, with `hosts` regions like `host`."""
    if folder.exists():
        return folder
    shutil.copytree(ROOT / "inventories/lab", folder)
    known = yaml.safe_load((folder / f"regions/{host}.yml").read_text())["region"]["hosts"][host]
    for path in (folder / "regions").iterdir():
        path.unlink()
    for number in range(1, hosts + 1):
        name = f"standin{number:02d}"
        own: dict[str, Any] = {**known, "ansible_host": f"192.0.2.{number}", "removal_region": host}
        (folder / f"regions/{name}.yml").write_text(
            yaml.safe_dump({"region": {"hosts": {name: own}}}, allow_unicode=True)
        )
    return folder


def run(folder: Path, hosts: Path, playbook: str, limit: str, mode: str = "") -> tuple[float, float]:
    """Seconds of a run, and of processors in it; SystemExit where it failed or changed something."""
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "OUTPOST_ROOT": str(ROOT), "ANSIBLE_NOCOLOR": "1",
    }  # fmt: skip
    given = []
    if mode:
        environment |= {
            "NOOP_MODE": mode, "NOOP_KEPT": str(folder), "NOOP_RUN": str(time.monotonic_ns()),
            "ANSIBLE_SSH_EXECUTABLE": str(SSH), "ANSIBLE_CALLBACKS_ENABLED": "outpost_step",
            "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT}/plugins/callback:{ROOT}/tests/roles/steps/callback",
        }  # fmt: skip
    if mode == "replay":
        given = [
            part
            for name, value in ANOTHER_NAME.items()
            for part in ("-e", f'{{"{name}": {str(value).lower()}}}')
        ]
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", hosts, playbook, "-l", limit, *given]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    recap = done.stdout.partition("PLAY RECAP")[2]
    if done.returncode or (re.search(r"changed=[1-9]", recap) and playbook == "site.yml" and mode):
        sys.exit(
            f"{playbook} {mode} was no run that changes nothing:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
        )
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
