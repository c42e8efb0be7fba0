"""How long each part of `make test` and each lane took: the table in docs/testing.md.

python tests/lanes/times.py run NAME COMMAND...   # the command, and how long it took, kept in .times/ where it passed
python tests/lanes/times.py write                 # times.json and docs/testing.md out of what was kept
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from typing import Any

import lanes

ROOT = lanes.ROOT
KEPT, TIMES, PAGE = ROOT / ".times", ROOT / "tests/lanes/times.json", ROOT / "docs/testing.md"
BEGIN, END = "<!-- make test-times: begin -->", "<!-- make test-times: end -->"

# Parts of `make test`: what each proves, and beside which others it runs.
PARTS = {
    "lint": "ruff, mypy, YAML, Ansible, units | first",
    "service": "the service with real peers | one half, first",
    "unit": "unit tests | one half, second",
    "faults": "what breaks the service | other half, first",
    "roles": "roles, playbooks, plugins | other half, second",
    "lab": "the lab itself | last, beside a scenario",
    "molecule-ubuntu": "a region on Ubuntu | two scenarios at a time",
    "molecule-astra": "a region on Astra Linux | two scenarios at a time",
    "molecule-redos": "a region on RED OS | two scenarios at a time",
    "molecule-fleet": "three regions and the centre | two scenarios at a time",
}


def run(name: str, command: list[str]) -> int:
    began = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    if not status:
        KEPT.mkdir(exist_ok=True)
        kept = {
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "seconds": round(time.monotonic() - began),
        }
        (KEPT / f"{name}.json").write_text(json.dumps(kept) + "\n")
    return status


def committed() -> dict[str, Any]:
    """Times of the parts as `write` kept them last."""
    return dict(json.loads(TIMES.read_text())) if TIMES.exists() else {}


def times() -> dict[str, Any]:
    """Times of the parts: what this checkout measured, else what was committed."""
    found = committed()
    for name in PARTS:
        if (KEPT / f"{name}.json").exists():
            found[name] = json.loads((KEPT / f"{name}.json").read_text())
    return {name: found[name] for name in PARTS if name in found}


def table(parts: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    lines = ["| Part of `make test` | Proves | Runs | Minutes | Measured |", "|---|---|---|---:|---|"]
    for name, words in PARTS.items():
        proves, beside = words.split(" | ")
        lines.append(f"| `make {_target(name)}` | {proves} | {beside} | {_minutes(parts.get(name))} |")
    lines += [
        "",
        "| Lane proven by content | Proves | Tests | Minutes | Proven | In `make test` instead |",
        "|---|---|---:|---:|---|---|",
    ]
    for lane in lanes.LANES:
        record = lanes.proven(lane)
        tests = str(record["tests"]) if record else ""
        lines.append(
            f"| `make {lane.target}` | {lane.proves} | {tests} | {_minutes(record)} | {lane.sample} |"
        )
    return "\n".join(lines)


def _target(name: str) -> str:
    return name if name in ("lint",) or name.startswith("molecule-") else f"test-{name}"


def _minutes(record: dict[str, Any] | None) -> str:
    return f"{record['seconds'] / 60:.1f} | {record['date'][:10]}" if record else "not yet | never"


def page(text: str, parts: dict[str, Any]) -> str:
    """docs/testing.md with the tables of now."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{table(parts)}\n{END}{rest.partition(END)[2]}"


def refresh() -> str:
    """Writes the tables with the lanes' records of now; the page's path from the root, empty where there is none."""
    if not PAGE.exists():
        return ""
    PAGE.write_text(page(PAGE.read_text(), committed()))
    return str(PAGE.relative_to(ROOT))


def main(arguments: list[str]) -> int:
    if len(arguments) > 2 and arguments[0] == "run":
        return run(arguments[1], arguments[2:])
    if arguments == ["write"]:
        TIMES.write_text(json.dumps(times(), indent=1) + "\n")
        refresh()
        return 0
    sys.stderr.write(str(__doc__))
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
