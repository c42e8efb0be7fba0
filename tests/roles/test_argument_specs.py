"""Each role's argument_specs.yml and defaults/main.yml say the same: what is documented is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())

# Ansible prints a spec, with its defaults templated, where one argument is wrong: these may hold a secret of the site.
DEFAULT_NOT_IN_SPEC = {"inference_destinations"}


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_and_defaults_name_the_same_variables_with_the_same_values(role: Path) -> None:
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role / "defaults/main.yml")
    required = {name for name, option in options.items() if option.get("required")}
    assert options.keys() - required == defaults.keys()
    for name in defaults:
        if name in DEFAULT_NOT_IN_SPEC:
            assert "default" not in options[name]
            continue
        documented, real = options[name]["default"], defaults[name]
        if isinstance(real, str) and isinstance(documented, str):
            documented, real = " ".join(documented.split()), " ".join(real.split())
        assert documented == real, f"{name}: documented {documented!r}, default {real!r}"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_each_public_variable_is_described_in_a_sentence(role: Path) -> None:
    for entry in load(role / "meta/argument_specs.yml")["argument_specs"].values():
        assert entry["short_description"]
        for name, option in entry["options"].items():
            assert name.startswith(f"{role.name}_")
            assert str(option["description"]).endswith("."), name


def test_no_role_asks_ansible_what_the_host_is() -> None:
    # On Astra Linux and RED OS the answers are "Astra Linux" and "RED", which match nobody's conditions.
    misleading = re.compile(r"ansible_(os_family|distribution)|ansible_facts(\.|\[')(os_family|distribution)")
    for path in [
        *(ROOT / "roles").rglob("*.yml"),
        *(ROOT / "playbooks").rglob("*.yml"),
        *(ROOT / "roles").rglob("*.j2"),
    ]:
        assert not misleading.search(path.read_text()), path


@pytest.mark.parametrize("site", ["lab", "example"])
def test_a_region_is_a_file_of_at_most_twelve_active_lines(site: str) -> None:
    for path in (ROOT / "inventories" / site / "regions").glob("*.yml"):
        active = [
            line
            for line in path.read_text().splitlines()
            if line.strip() and not line.lstrip().startswith(("#", "---"))
        ]
        assert len(active) <= 12, path
