"""A right inventory on disk, for tests that put one thing wrong; and the verdict on it, by Ansible's own loader."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from ansible import constants
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecret, VaultSecretsContext
from ansible.vars.manager import VariableManager
from starting import ROOT_SECRET

ALL = f"""\
outpost_root_secret: "{ROOT_SECRET}"
outpost_release: "1.2.3"
outpost_release_directory: /srv/releases
outpost_admin_networks: [10.0.0.0/24]
outpost_language: en
"""
REGION = """\
outpost_systems:
  brain: {dicom_port: 11112, api_port: 8080, cores: 4, memory_mib: 8192}
preflight_bundles: {brain: brain_extraction}
"""
FLEET = "preflight_extra_ports: {outpost-fleet.service: 8090}\n"
CENTRE = "fleet:\n  hosts:\n    centre:\n      ansible_host: 192.0.2.10\n"


def region(name: str, number: int) -> str:
    """The file of a region; 192.0.2.0/24 is TEST-NET-1 of RFC 5737, where nobody answers."""
    return f"""\
---
region:
  hosts:
    {name}:
      ansible_host: 192.0.2.{number}
      region_title: Регион {name}
      region_timezone: Europe/Moscow
      region_pacs: {{ae_title: PACS, host: 198.51.100.5, port: 104}}
      outpost_hospital_networks: [198.51.100.0/24]
"""


def fleet(folder: Path) -> Path:
    """An inventory of two regions and a centre in `folder`/fleet, with nothing wrong."""
    root = folder / "fleet"
    (root / "regions").mkdir(parents=True)
    (root / "group_vars/all").mkdir(parents=True)
    (root / "centre.yml").write_text(CENTRE)
    (root / "group_vars/all/main.yml").write_text(ALL)
    (root / "group_vars/region.yml").write_text(REGION)
    (root / "group_vars/fleet.yml").write_text(FLEET)
    for number, name in enumerate(("chita", "tver"), 11):
        (root / f"regions/{name}.yml").write_text(region(name, number))
    return root


def loaded(*sources: Path | str, password: str = "") -> tuple[InventoryManager, VariableManager, DataLoader]:
    """What Ansible itself makes of the sources."""
    loader = DataLoader()
    secrets = [("default", VaultSecret(password.encode()))] if password else []
    loader.set_vault_secrets(secrets)
    VaultSecretsContext._current = VaultSecretsContext(secrets)  # initialize() is for once a process
    # As without our ansible.cfg, whose inventory plugin would end the process where a file cannot be read.
    plugins = ["host_list", "script", "auto", "yaml", "ini"]
    with patch.multiple(constants, INVENTORY_ANY_UNPARSED_IS_FAILED=False, INVENTORY_ENABLED=plugins):
        inventory = InventoryManager(loader=loader, sources=[str(source) for source in sources])
    return inventory, VariableManager(loader=loader, inventory=inventory), loader


def verdict(
    plugin: ModuleType,
    *sources: Path | str,
    limit: str = "",
    chosen: Collection[str] | None = None,
    deploys: bool = True,
    asks: bool = True,
    given: dict[str, Any] | None = None,
    password: str = "",
) -> list[str]:
    """The lines on what Ansible loads of the sources, without the first, which counts them."""
    inventory, manager, loader = loaded(*sources, password=password)
    manager._extra_vars = given or {}
    words = split_host_pattern(limit) if limit else ()
    lines = plugin.verdict(inventory, manager, loader, limit=words, chosen=chosen, deploys=deploys, asks=asks)
    return list(lines[1:])


def edit(file: Path, old: str, new: str) -> None:
    """Puts one thing wrong."""
    text = file.read_text()
    assert old in text, old
    file.write_text(text.replace(old, new, 1))
