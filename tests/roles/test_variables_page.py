"""docs/variables.md is what the roles and playbooks really read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/variables.md").read_text(encoding="utf-8")


def test_the_page_is_made_from_its_sources() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "lab/make-variables")], capture_output=True, text=True, check=True
    )
    assert made.stdout == PAGE, "make pages"


def test_every_variable_that_a_playbook_or_role_reads_of_the_inventory_is_on_it() -> None:
    files = [
        path
        for folder in ("roles", "playbooks", "inventories")
        for kind in ("*.yml", "*.j2")
        for path in (ROOT / folder).rglob(kind)
    ]
    filters = set(
        re.findall(r'"(outpost_\w+)"', "".join(p.read_text() for p in (ROOT / "plugins/filter").glob("*.py")))
    )
    read: set[str] = set()
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.partition(" #")[0]
            # A variable, not a filter (after a bar), a name of the database, or an attribute of something.
            read |= set(
                re.findall(r"(?<![\w.'\"/|-])(?<!\| )((?:outpost|region)_[a-z_]+)\b(?!\.)(?!['\"/])", code)
            )
    variables = {name for name in read - filters if f"`{name}`" not in PAGE}
    # A login of the database, what site.yml tells preflight, an action and a module.
    assert variables <= {
        "outpost_recorder", "outpost_deploys", "outpost_files", "outpost_lock", "outpost_packages", "outpost_strangers",
        "outpost_units",
    }, variables  # fmt: skip


def test_what_the_example_inventory_sets_is_on_it() -> None:
    for path in (ROOT / "inventories/example").rglob("*.yml"):
        if path.name == "vault.yml":
            continue
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = set(value)
        for host in (
            (value.get("region") or {}).get("hosts", {}).values()
            if isinstance(value.get("region"), dict)
            else ()
        ):
            names |= set(host)
        for name in names - {"region", "fleet", "all"}:
            assert name.startswith("ansible_") or f"`{name}`" in PAGE, f"{path}: {name}"
