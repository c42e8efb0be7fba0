"""What is wrong with an inventory is told in one line each, and what is lawful passes: judged as Ansible loads it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.template import Templar
from fleet import edit, fleet, loaded, region, verdict
from loaded import load
from starting import ROOT_SECRET

from outpost.controller.inventory import judge
from outpost.controller.inventory.__main__ import page
from outpost.controller.inventory.fault import MEANING
from outpost.platform.line import Language

ROOT = Path(__file__).parents[2]
CHITA, TVER = "regions/chita.yml", "regions/tver.yml"
ALL, REGION, FLEET = "group_vars/all/main.yml", "group_vars/region.yml", "group_vars/fleet.yml"


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    return load(ROOT / "plugins/callback/outpost_inventory.py")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return fleet(tmp_path)


def test_a_right_inventory_passes(plugin: ModuleType, site: Path) -> None:
    assert verdict(plugin, site) == []


def put(file: Path, old: str, new: str) -> None:
    """Replaces; "+" adds the lines of `new`, where a file of this kind has variables."""
    if old != "+":
        edit(file, old, new)
        return
    text = file.read_text()
    line = next(
        line for line in text.splitlines() if re.match(r" *(region_title|preflight|outpost_language)", line)
    )
    space = line[: len(line) - len(line.lstrip())]
    edit(file, line, "".join(f"{space}{one}\n" for one in new.split("\n")) + line)


def _lines(file: Path, text: str) -> int:
    return next(n for n, line in enumerate(file.read_text().splitlines(), 1) if text in line)


# file, what is there, what is put there, what the one line says of it.
WRONG = [
    # Names.
    (REGION, "outpost_systems:", "outpost_sistems:", "outpost_sistems: ", "Did you mean outpost_systems?",
     "[unknown-name]"),
    (REGION, "outpost_systems:", "Outpost_Systems:", "Did you mean outpost_systems?", "[unknown-name]"),
    (REGION, "outpost_systems:", "outpst_systems:", "Did you mean outpost_systems?", "[unknown-name]"),
    (REGION, "outpost_systems:", "оutpost_systems:", "Did you mean outpost_systems?", "[unknown-name]"),
    (REGION, "+", "outpost-systems: {}", "Did you mean outpost_systems?", "[unknown-name]"),
    (TVER, "region_timezone", "region_time_zone", "Did you mean region_timezone?", "[unknown-name]"),
    (TVER, "+", "inference_quiet_second: 60", "inference_quiet_seconds?", "[unknown-name]"),
    (ALL, "+", "postgresql_prot: 5433", "postgresql_port?", "[unknown-name]"),
    (ALL, "+", "outpost_secret: hush-hush", "outpost_secret: not known", "[unknown-name]"),
    (TVER, "region_title", "region_\u200btitle", "Did you mean region_title?", "[unknown-name]"),
    (TVER, "      region_title", "      \u00a0region_title", "Did you mean region_title?", "[unknown-name]"),
    # Keys inside.
    (REGION, "memory_mib", "memory_mb", "outpost_systems.brain.memory_mb", "Did you mean memory_mib?", "[unknown-key]"),
    (REGION, "api_port: 8080, ", "", "outpost_systems.brain.api_port: missing", "[missing]"),
    (TVER, "ae_title: PACS", "aetitle: PACS", "region_pacs.aetitle", "Did you mean ae_title?", "[unknown-key]"),
    (TVER, "+", "inference_study: {force_seconds: 5}", "Did you mean forced_seconds?", "[unknown-key]"),
    (TVER, "+", "inference_destinations: [{name: a, hots: 1.2.3.4}]", "inference_destinations[0].hots",
     "[unknown-key]"),
    (TVER, "+", "inference_api_tokens: [{name: a, role: reed, sha256: x}]", "Did you mean read?", "[choice]"),
    # What a region must have.
    (TVER, "host: 198.51.100.5, ", "", "tver.region_pacs.host: missing", "the address of the archive", "[missing]"),
    (TVER, ", port: 104", "", "tver.region_pacs.port: missing", "[missing]"),
    # Zones.
    (TVER, "Europe/Moscow", "Europe/Moskow", "'Europe/Moskow'", "Did you mean Europe/Moscow?", "[zone]"),
    (TVER, "Europe/Moscow", "europe/moscow", "Did you mean Europe/Moscow?", "[zone]"),
    (TVER, "Europe/Moscow", "Moscow", "Did you mean Europe/Moscow?", "[zone]"),
    (TVER, "Europe/Moscow", "MSK", "'MSK'", "[zone]"),
    (TVER, "Europe/Moscow", "UTC+3", "'UTC+3'", "[zone]"),
    # Region codes.
    (TVER, "tver:", "Tver:", "'Tver'", "[region-code]"),
    (TVER, "tver:", "tver_2:", "'tver_2'", "[region-code]"),
    (TVER, "tver:", "тверь:", "'тверь'", "[region-code]"),
    (TVER, "tver:", "69:", "'69'", "[host-unread]"),
    # Addresses.
    (TVER, "192.0.2.12", "192.0.2.11", "tver.ansible_host: 192.0.2.11", "It is also that of chita", "[address-twice]"),
    (TVER, "ansible_host: 192.0.2.12", "ansible_host: 192.0.2.12\n      region_address: 192.0.2.11",
     "tver.region_address: 192.0.2.11", "[address-twice]"),
    (TVER, "192.0.2.12", "192.0.2.10", "It is also that of centre", "[address-twice]"),
    (TVER, "198.51.100.5, port", "http://198.51.100.5, port", "region_pacs.host: 'http://198.51.100.5'", "[form]"),
    (TVER, "198.51.100.5, port", "198.51.100.555, port", "region_pacs.host: '198.51.100.555'", "[form]"),
    (TVER, "ae_title: PACS", "ae_title: РАСS", "an AE title", "[form]"),
    (TVER, "ae_title: PACS", "ae_title: A_TITLE_TOO_LONG_", "an AE title", "[form]"),
    (TVER, "192.0.2.12", "192.0.2.1222", "ansible_host: '192.0.2.1222'", "[form]"),
    (TVER, "192.0.2.12", "192.10", "ansible_host: 192.1", "[type]"),
    (TVER, "+", "ansible_port: 0022", "ansible_port: 0022, which YAML reads as 18", "[type]"),
    (TVER, "[198.51.100.0/24]", "[198.51.100.7/24]", "_networks[0]", "write 198.51.100.0/24", "[network]"),
    (ALL, "[10.0.0.0/24]", "[duty.example.org]", "outpost_admin_networks[0]: 'duty.example.org'", "[network]"),
    (TVER, "+", "inference_region: chita", "tver.inference_region: 'chita'", "chita call themselves", "[code-twice]"),
    (REGION, "+", "inference_region: Tver", "inference_region: 'Tver'", "beginning with a letter", "[form]"),
    # Secrets.
    (ALL, f'"{ROOT_SECRET}"', "1234567890123456789012345678901234567890", "outpost_root_secret: a number",
     "[secret-type]"),
    (ALL, f'"{ROOT_SECRET}"', "", "outpost_root_secret: empty", "[secret-type]"),
    (ALL, f'"{ROOT_SECRET}"', "~", "outpost_root_secret: empty", "[secret-type]"),
    (TVER, "+", "outpost_uid_secret: 20261130", "outpost_uid_secret: a number", "[secret-type]"),
    (TVER, "+", "ansible_become_password: 007007", "ansible_become_password: a number", "[secret-type]"),
    (TVER, "+", "outpost_uid_secret: yes", "outpost_uid_secret: true or false", "[secret-type]"),
    # Types.
    (ALL, '"1.2.3"', "1.10", "outpost_release: 1.10, which YAML reads as 1.1", "Put it into quotes", "[type]"),
    (ALL, '"1.2.3"', "0.1", "outpost_release: 0.1", "[type]"),
    (ALL, '"1.2.3"', "2026-11-30", "outpost_release", "[type]"),
    (TVER, "ae_title: PACS", "ae_title: NO", "region_pacs.ae_title: NO, which YAML reads as false", "[type]"),
    (TVER, "ae_title: PACS", "ae_title: 0123", "0123, which YAML reads as 83", "[type]"),
    (TVER, "port: 104", "port: 0104", "region_pacs.port: 0104, which YAML reads as 68", "[type]"),
    (TVER, "+", "nvidia_driver_reboot_window: 22:00", "22:00, which YAML reads as 1320", "[type]"),
    (TVER, "+", "inference_quiet_seconds: 1:00", "1:00, which YAML reads as 60", "[type]"),
    (TVER, "+", "inference_quiet_seconds: soon", "inference_quiet_seconds: 'soon'", "[type]"),
    (TVER, "+", 'inference_api_open: "no"', "inference_api_open: 'no'", "without quotes", "[type]"),
    (TVER, "+", "inference_known_ae_titles: PACS", "Put it into brackets: [PACS]", "[type]"),
    (TVER, "+", "inference_study: 5400", "inference_study: 5400", "[type]"),
    (TVER, "+", "inference_known_ae_titles: [PACS, ON]",
     "inference_known_ae_titles[1]: ON, which YAML reads as true", "[type]"),
    (ALL, "outpost_language: en", "outpost_language: NO", "outpost_language", "[type]"),
    (ALL, "outpost_language: en", "outpost_language: de", "one of en, ru", "[choice]"),
    (ALL, "+", "outpost_ntp_servers:", "outpost_ntp_servers: empty", "[empty]"),
    (REGION, "cores: 4", "cores: four", "outpost_systems.brain.cores: 'four'", "[type]"),
    (REGION, "cores: 4", "cores: 0", "outpost_systems.brain.cores: 0", "[range]"),
    (REGION, "11112", "111112", "outpost_systems.brain.dicom_port: 111112", "[range]"),
    (REGION, "brain:", "Brain_1:", "outpost_systems.Brain_1", "[form]"),
    # Ports.
    (REGION, "8080", "11112", "port 11112", "brain.dicom_port, brain.api_port", "[port-twice]"),
    (REGION, "8080", "5432", "port 5432", "postgresql_port, brain.api_port", "[port-twice]"),
    (REGION, "11112", "22", "port 22", "sshd, brain.dicom_port", "[port-twice]"),
    (REGION, "+", "preflight_extra_ports: {orthanc.service: 8080}", "orthanc.service", "[port-twice]"),
    (FLEET, "+", "fleet_database_page_port: 5432", "fleet_database_page_port", "[port-twice]"),
    (REGION, "+", "inference_database_port: 5433", "5432", "[ports-differ]"),
    # Systems and bundles.
    (REGION, "{brain: brain_extraction}", "{brian: brain_extraction}", "Did you mean brain?", "[unknown-system]"),
    (REGION, "{brain: brain_extraction}", "{brain: brain_extracton}", "Did you mean brain_extraction?",
     "[unknown-bundle]"),
    # Files.
    (TVER, "      region_title", "\t  region_title", "a tab in the indentation", "[tab]"),
    (TVER, "{ae_title", "{{ae_title", "no YAML", "[yaml]"),
    (TVER, "region_timezone: Europe/Moscow", "region_timezone Europe/Moscow", "no YAML", "[yaml]"),
    (TVER, "region_title: Регион tver", "region_title: Регион: tver", "no YAML", "[yaml]"),
    (TVER, "region_title: ", "region_title:\u00a0", "U+00A0", "[character]"),
    (TVER, "+", "region_title: A", "written 2 times", "[duplicate-key]"),
    (ALL, "+", "outpost_admin_networks: []", "written 2 times", "[duplicate-key]"),
    (TVER, "  hosts:\n", "  host:\n", "Did you mean hosts?", "[group-key]"),
    (CHITA, "region:\n", "regoin:\n", "Did you mean region?", "[host-nowhere]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "said"), [(f, o, n, s) for f, o, n, *s in WRONG])
def test_what_is_wrong_is_told_with_file_and_line(
    plugin: ModuleType, site: Path, name: str, old: str, new: str, said: list[str]
) -> None:
    file = site / name
    put(file, old, new)
    lines = verdict(plugin, site)
    told = [line for line in lines if all(word in line for word in said)]
    assert told, "\n".join(lines)
    assert len(told) == 1
    if said[-1] not in ("[port-twice]",):
        assert told[0].startswith(f"{file}:"), told
        assert told[0].removeprefix(f"{file}:")[0].isdigit()
    assert "hush-hush" not in told[0]
    assert ROOT_SECRET not in "".join(lines)


def test_the_line_is_that_of_the_key_inside(plugin: ModuleType, site: Path) -> None:
    file = site / TVER
    edit(file, "region_pacs: {ae_title: PACS, host: 198.51.100.5, port: 104}",
         "region_pacs:\n        ae_title: PACS\n        host: 198.51.100.5\n        port: 0104")  # fmt: skip
    (line,) = verdict(plugin, site)
    assert line.startswith(f"{file}:{_lines(file, 'port: 0104')}: region_pacs.port: 0104"), line


def test_all_faults_are_told_at_once_and_in_russian(plugin: ModuleType, site: Path) -> None:
    edit(site / ALL, "outpost_language: en", "outpost_language: ru")
    edit(site / TVER, "Europe/Moscow", "Europe/Moskow")
    edit(site / CHITA, "host: 198.51.100.5, ", "")
    lines = verdict(plugin, site)
    assert len(lines) == 2
    assert "chita.region_pacs.host: нет; нужно: адрес архива." in lines[0]
    assert "region_timezone: 'Europe/Moskow'; нужно: часовой пояс IANA" in lines[1]
    assert "Возможно, Europe/Moscow?" in lines[1]


def test_what_all_regions_have_from_one_file_is_told_once(plugin: ModuleType, site: Path) -> None:
    edit(site / REGION, "cores: 4", "cores: many")
    assert len(verdict(plugin, site)) == 1


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866", "utf-16", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("name", [TVER, ALL])
def test_a_file_of_another_encoding_is_named_with_the_command_that_mends_it(
    plugin: ModuleType, site: Path, name: str, encoding: str
) -> None:
    file = site / name
    edit(file, "\n", "\n# Тверская область, дежурный: доктор Петрова, внутренний телефон\n")
    text = file.read_text()
    file.write_bytes(text.encode(encoding))
    (line,) = verdict(plugin, site)
    assert line.startswith(f"{file}:"), line
    assert line.endswith("[encoding]")
    known = {"cp1251": "WINDOWS-1251", "koi8-r": "KOI8-R", "cp866": "CP866", "utf-16": "UTF-16",
             "utf-16-le": "UTF-16LE", "utf-8-sig": "byte order mark"}  # fmt: skip
    assert known[encoding] in line
    command = line.split("Save it as UTF-8: ")[1].removesuffix(" [encoding]")
    subprocess.run(["bash", "-c", command], check=True)
    assert file.read_text() == text.lstrip("\ufeff")
    assert verdict(plugin, site) == []


def test_a_region_copied_without_another_name_is_told_with_both_files(plugin: ModuleType, site: Path) -> None:
    copy = site / "regions/omsk.yml"
    copy.write_text(region("tver", 13))
    (line,) = verdict(plugin, site)
    assert f"{site / TVER}:4" in line
    assert f"{copy}:4" in line
    assert "[host-twice]" in line


def test_a_host_that_is_region_and_centre_is_told(plugin: ModuleType, site: Path) -> None:
    edit(site / "centre.yml", "    centre:\n", "    tver:\n    centre:\n")
    lines = verdict(plugin, site)
    assert any("[host-both]" in line for line in lines), lines


@pytest.mark.parametrize(
    ("path", "near"),
    [("host_vars/tvr.yml", "tver"), ("group_vars/regions.yml", "region"), ("group_vars/regoin/main.yml", "region"),
     ("host_vars/omsk.yml", "")],
)  # fmt: skip
def test_variables_of_nobody_are_told(plugin: ModuleType, site: Path, path: str, near: str) -> None:
    file = site / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("region_title: X\n")
    (line,) = verdict(plugin, site)
    assert line.startswith(str(file)), line
    assert (f"Did you mean {near}?" in line) == bool(near)
    assert "[vars-of-nobody]" in line


def test_variables_where_nobody_looks_are_told(plugin: ModuleType, site: Path) -> None:
    folder = site / "regions/group_vars"
    folder.mkdir()
    (folder / "region.yml").write_text("inference_quiet_seconds: 60\n")
    (line,) = verdict(plugin, site)
    assert line.startswith(str(folder))
    assert f"Move it to {site}/group_vars" in line


@pytest.mark.parametrize(
    ("limit", "near"),
    [("tvr", "tver"), ("chita,tvr", "tver"), ("chita:tvr", "tver"), ("regions", "region"), ("region:!tvr", "tver"),
     ("region:&omsk", ""), ("tver[0],nowhere*", "")],
)  # fmt: skip
def test_a_limit_that_names_nobody_is_told(plugin: ModuleType, site: Path, limit: str, near: str) -> None:
    lines = verdict(plugin, site, limit=limit)
    assert len(lines) == 1, lines
    assert "[limit]" in lines[0]
    assert (f"Did you mean {near}?" in lines[0]) == bool(near)


@pytest.mark.parametrize(
    "limit", ["tver", "chita,tver", "chita:tver", "region", "all", "*", "tv*", "region:!tver", "region:&chita", "~t.er",
              "region[0]", "region[0:1]", "localhost", "chita,localhost", "!tver", "@/some/file"],
)  # fmt: skip
def test_a_lawful_limit_passes(plugin: ModuleType, site: Path, limit: str) -> None:
    assert verdict(plugin, site, limit=limit) == []


def test_a_limit_with_nothing_to_do_is_told(plugin: ModuleType, site: Path) -> None:
    (line,) = verdict(plugin, site, limit="centre", chosen=set())
    assert "[limit-nobody]" in line


def test_an_inventory_without_a_region_is_told(plugin: ModuleType, tmp_path: Path) -> None:
    assert any("[no-hosts]" in line for line in verdict(plugin, "somewhere,"))
    assert any("[source-missing]" in line for line in verdict(plugin, tmp_path / "flet"))


def test_a_systems_port_taken_by_another_system_is_told(plugin: ModuleType, site: Path) -> None:
    edit(
        site / REGION,
        "outpost_systems:\n",
        "outpost_systems:\n  chest: {dicom_port: 11113, api_port: 8080, cores: 1, memory_mib: 64}\n",
    )
    lines = verdict(plugin, site)
    assert len(lines) == 1, "from one place, once"
    assert "chest.api_port, brain.api_port" in lines[0]


# --- Vaults.


def test_an_encrypted_file_without_its_password_is_named(plugin: ModuleType, site: Path) -> None:
    vault = site / "group_vars/all/vault.yml"
    vault.write_text((ROOT / "inventories/example/group_vars/all/vault.yml").read_text())
    edit(site / ALL, f'outpost_root_secret: "{ROOT_SECRET}"\n', "")
    (line,) = verdict(plugin, site)
    assert line.startswith(f"{vault}: encrypted; wanted: the password of the vault. Add --ask-vault-pass")
    (line,) = verdict(plugin, site, password="another")
    assert "the password given is another" in line
    assert verdict(plugin, site, password="example") == []


def test_what_an_encrypted_file_holds_is_judged_by_its_lines_and_not_shown(
    plugin: ModuleType, site: Path
) -> None:
    vault = site / "group_vars/all/vault.yml"
    text = (
        "outpost_uid_secret: 20261130\noutpost_secrets: hush-hush\nregion_title: '{{ inventory_hostname }}'\n"
    )
    vault.write_bytes(VaultLib([("default", VaultSecret(b"pw"))]).encrypt(text))
    lines = verdict(plugin, site, password="pw")
    assert [line.split("; ")[0] for line in lines] == [
        f"{vault}:1: outpost_uid_secret: a number", f"{vault}:2: outpost_secrets: not known",
    ]  # fmt: skip
    assert "hush" not in "".join(lines)
    assert "20261130" not in "".join(lines)


def test_judging_leaves_ansibles_own_reading_as_it_was(plugin: ModuleType, site: Path) -> None:
    """Text of a file that is read otherwise than Ansible reads it would be no template any more."""
    vault = site / "group_vars/all/vault.yml"
    vault.write_bytes(
        VaultLib([("default", VaultSecret(b"pw"))]).encrypt("inference_region: '{{ inventory_hostname }}'")
    )
    inventory, manager, loader = loaded(site, password="pw")
    assert plugin.verdict(inventory, manager, loader) == []
    variables = manager.get_vars(host=inventory.get_host("tver"))
    assert Templar(loader=loader, variables=variables).template(variables["inference_region"]) == "tver"


def test_a_value_encrypted_by_itself_is_text_and_without_its_password_named(
    plugin: ModuleType, site: Path
) -> None:
    hidden = VaultLib([("default", VaultSecret(b"pw"))]).encrypt(ROOT_SECRET).decode()
    block = "!vault |\n" + "".join(f"  {line}\n" for line in hidden.splitlines())
    edit(site / ALL, f'"{ROOT_SECRET}"\n', block)
    assert verdict(plugin, site, password="pw") == []
    (line,) = verdict(plugin, site)
    assert line.startswith(f"{site / ALL}:1: outpost_root_secret: encrypted"), line


# --- What is lawful.


def test_the_labs_inventory_passes(plugin: ModuleType) -> None:
    assert verdict(plugin, ROOT / "inventories/lab") == []


def test_the_example_passes_with_its_password(plugin: ModuleType) -> None:
    assert verdict(plugin, ROOT / "inventories/example", password="example") == []


LAWFUL = [
    (TVER, "+", "site_contact: Петрова"),
    (TVER, "+", "my_region_title: X\noutposts: 5\nregional_office: y"),
    (TVER, "+", "ansible_hots: x\noutposting: 5\nregions: [a]"),
    (TVER, "ansible_host: 192.0.2.12", "ansible_host: tver.example.org\n      ansible_port: 2222"),
    (TVER, "ansible_host: 192.0.2.12", "ansible_host: 2001:db8::12"),
    (TVER, "ansible_host: 192.0.2.12",
     "ansible_host: 192.0.2.11\n      ansible_port: 2222\n      region_address: 10.9.0.2"),
    (TVER, "ansible_host: 192.0.2.12", "ansible_host: gate\n      ansible_port: 2212\n      region_address: 10.9.0.2"),
    (TVER, "port: 104", 'port: "104"'),
    (TVER, "+", "inference_region: '{{ inventory_hostname }}'"),
    (TVER, "ae_title: PACS", "ae_title: 12345"),
    (TVER, "ae_title: PACS", "ae_title: 'MY PACS'"),
    (TVER, "Europe/Moscow", "UTC"),
    (TVER, "{ae_title: PACS, host: 198.51.100.5, port: 104}",
     "{stow_url: 'https://pacs/dicom-web/studies', stow_token: abc}"),
    (TVER, "{ae_title: PACS, host: 198.51.100.5, port: 104}", "{ae_title: P, host: pacs, port: 104, commitment: true}"),
    (TVER, "+", 'inference_ae_title: "0755"'),
    (TVER, "+", "inference_quiet_seconds: 1_000"),
    (TVER, "+", "inference_api_open: no"),
    (TVER, "+", "inference_check_called_ae_title: 'no'"),
    (TVER, "+", "inference_drift: {enabled: 'yes'}"),
    (TVER, "+", 'nvidia_driver_reboot_window: "22:00-05:00"'),
    (TVER, "+", "nvidia_driver_reboot_window: sat,sun 01:00-05:00"),
    (TVER, "+", "postgresql_settings: {max_connections: 50, log_min_duration_statement: 0}"),
    (TVER, "+", "inference_delivery: {retry_first_seconds: 2.5}"),
    (TVER, "+", "inference_heartbeat_seconds: '{{ 30 * 2 }}'"),
    (TVER, "+", "inference_ae_title: '{{ platform_id }}'"),
    (TVER, "+", "outpost_uid_secret: \"{{ lookup('ansible.builtin.env', 'NONE') }}\""),
    (TVER, "+", "inference_optimise_after_idle_seconds: 0"),
    (TVER, "region_title: Регион tver", 'region_title: "Поезд: №1, «Здоровье»"'),
    (TVER, "region_title: Регион tver", "region_title: 69"),
    (TVER, "region_title: Регион tver", "region_title: Поезд:\u00a0«Здоровье»\u00a0№\u00a01"),
    (TVER, "+", "site_note: |\n  \u00a0с отступом\n  key:\u00a0value"),
    (TVER, "    tver:\n", "    tver: &tver\n"),
    (ALL, "+", "outpost_ntp_servers: []\noutpost_release_url: ''"),
    (ALL, "[10.0.0.0/24]", "[]"),
    (ALL, "+", "preflight_names: [pacs]\npreflight_reach: ['10.0.0.10:5432']"),
    (REGION, "cores: 4", "cores: 2.5, vram_mib: 0, device: 'cuda:1'"),
    (REGION, "+", "fleet_database_sslmode: require"),
    (REGION, "+", "postgresql_port: 5433\ninference_database_port: 5433"),
    ("centre.yml", "fleet:\n",
     "gpu_sites:\n  hosts:\n    tver:\n    chita:\npacs:\n  hosts:\n    orthanc: {ansible_host: 192.0.2.11}\nfleet:\n"),
    ("centre.yml", "fleet:\n",
     "pacs:\n  hosts:\n    orthanc: {base_url: x}\n  vars:\n    postgresql_version: 14\n    collect_logs: 1\nfleet:\n"),
    ("centre.yml", "fleet:\n",
     "siberia:\n  children:\n    far_east:\n      hosts:\n        chita:\n  vars: {site_note: x}\nfleet:\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new"), LAWFUL)
def test_what_is_lawful_passes(plugin: ModuleType, site: Path, name: str, old: str, new: str) -> None:
    put(site / name, old, new)
    assert verdict(plugin, site) == []


def test_lines_that_end_as_on_windows_pass(plugin: ModuleType, site: Path) -> None:
    for name in (TVER, ALL):
        (site / name).write_bytes((site / name).read_text().replace("\n", "\r\n").encode())
    assert verdict(plugin, site) == []


@pytest.mark.parametrize("gone", [["centre.yml"], [CHITA, TVER]])
def test_a_fleet_without_a_centre_or_without_a_region_passes(
    plugin: ModuleType, site: Path, gone: list[str]
) -> None:
    for name in gone:
        (site / name).unlink()
    assert verdict(plugin, site) == []


def test_files_beside_the_hosts_are_no_hosts(plugin: ModuleType, site: Path) -> None:
    for name, text in {
        "README.md": "# x", "rules/brain.yaml": "rules:\n\t- bad", "driver-sets/a.yml": "nvidia_driver_sets: {}",
        "regions/.tver.yml.swp": "\xff", "regions/tver.yml~": "x: [", "host_vars/tver.yml": "region_title: Т",
        "group_vars/all/notes.txt": "{{{", "group_vars/gone.yml.bak": "x", "group_vars/ungrouped.yml": "a: 1",
        "regions/omsk.yml": "---\n# commented out\n",
    }.items():  # fmt: skip
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    assert verdict(plugin, site) == []


def test_two_hosts_behind_one_gate_pass_and_json_may_hold_tabs(plugin: ModuleType, tmp_path: Path) -> None:
    hosts = {
        name: {"ansible_host": "gate", "ansible_port": port, "region_address": address, "outpost_systems": {}}
        for name, port, address in (("chita", 2211, "10.9.0.1"), ("tver", 2212, "10.9.0.2"))
    }
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"region": {"hosts": hosts}}, indent="\t"))
    assert verdict(plugin, file) == []
    file.write_text(file.read_text().replace("2212", "2211"))
    assert [line.split(" ")[-1] for line in verdict(plugin, file)] == ["[address-twice]"]


def test_an_ini_inventory_is_judged_too(plugin: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "hosts.ini"
    text = (
        "[region]\ntver ansible_host=192.0.2.12 region_title=Tver region_timezone=Europe/Moskow\n\n[region:vars]\n"
        "region_pacs={'ae_title': 'PACS', 'host': '198.51.100.5', 'port': 104}\n"
        "outpost_sistems={}\noutpost_systems={}\n"
    )
    file.write_text(text)
    lines = verdict(plugin, file)
    assert [line.split("; ")[0] for line in lines] == [
        f"{file}:2: region_timezone: 'Europe/Moskow'", f"{file}:6: outpost_sistems: not known",
    ]  # fmt: skip


def test_an_inventory_of_a_script_is_judged_by_its_variables(plugin: ModuleType, tmp_path: Path) -> None:
    """As AWX gives it: there are no files."""
    host = {
        "ansible_host": "192.0.2.12", "region_title": "T", "region_timezone": "Europe/Moskow", "outpost_systems": {},
        "remote_tower_enabled": "true", "remote_tower_id": 5, "awx_note": "x",
    }  # fmt: skip
    said = {"region": {"hosts": ["tver"]}, "_meta": {"hostvars": {"tver": host}}}
    script = tmp_path / "hosts"
    script.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(said)}\nE\n")
    script.chmod(0o755)
    (line,) = verdict(plugin, script)
    assert line.startswith("tver: region_timezone: 'Europe/Moskow'; wanted"), line


def test_a_program_without_a_shebang_that_prints_the_inventory_passes(
    plugin: ModuleType, tmp_path: Path
) -> None:
    program = tmp_path / "hosts"
    shutil.copy("/bin/true", program)
    (tmp_path / "tver.yml").write_text(region("tver", 12) + "      outpost_systems: {}\n")
    assert verdict(plugin, tmp_path) == []


def test_what_the_command_line_gives_is_judged_as_such(plugin: ModuleType, site: Path) -> None:
    (line,) = verdict(plugin, site, given={"outpost_relase": "1"})
    assert line.startswith("-e: outpost_relase: "), line
    assert verdict(plugin, site, given={"outpost_deploys": True, "doctor_directory": "/x", "peer": "a"}) == []
    assert verdict(plugin, site, given={"inference_uid_key_may_change": "true"}) == [], (
        "as docs/closed-hosts.md says"
    )


def test_playbooks_that_bring_no_region_up_want_less(plugin: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"region": {"hosts": {"here": {"ansible_connection": "local"}}}}))
    assert verdict(plugin, file, deploys=False, asks=False) == []
    assert verdict(plugin, file, deploys=False) == [], "looked at before there are systems for it"
    assert [line.split(": ")[1] for line in verdict(plugin, file)] == ["here.outpost_systems"]
    systems = {"brain": {"dicom_port": 1, "api_port": 2, "cores": 1, "memory_mib": 1}}
    file.write_text(json.dumps({"region": {"hosts": {"here": {"outpost_systems": systems}}}}))
    assert verdict(plugin, file, deploys=False, asks=False) == []
    assert [line.split(": ")[1] for line in verdict(plugin, file, deploys=False)] == ["here.region_pacs"]


def test_eighty_five_regions_take_less_than_two_seconds(plugin: ModuleType, site: Path) -> None:
    for number in range(83):
        text = region(f"region-{number}", number + 20)
        (site / f"regions/region-{number}.yml").write_text(
            text + "      inference_region: '{{ inventory_hostname }}'\n"
        )
    ansibles = loaded(site)
    plugin.judge.variables.cache_clear()
    began = time.process_time()  # whatever else the machine does
    assert plugin.verdict(*ansibles) == []
    assert time.process_time() - began < 2


def test_an_inventory_of_molecule_beside_it_passes(plugin: ModuleType, site: Path, tmp_path: Path) -> None:
    """Molecule brings one of its own that lists the hosts again, as ungrouped and with its connection's options."""
    folder = tmp_path / "molecule/inventory"
    for name in ("group_vars", "host_vars"):
        (folder / name).mkdir(parents=True)
    (folder / "hosts").write_text("# Molecule managed\n")
    hosts = {"tver": {"ansible_connection": "ssh"}, "chita": {}}
    molecule = {
        "molecule_yml": "{{ lookup('file', molecule_file) | from_yaml }}",
        "molecule_file": "{{ lookup('env', 'M') }}",
    }
    said = {"all": {"hosts": hosts, "vars": molecule}, "ungrouped": {"hosts": hosts, "vars": molecule}}
    (folder / "ansible_inventory.yml").write_text("# Molecule managed\n---\n" + json.dumps(said))
    assert verdict(plugin, folder, site, limit="tver,localhost", chosen={"tver"}) == []


@pytest.mark.parametrize(
    ("language", "file"), [("en", "inventory-codes.md"), ("ru", "inventory-codes.ru.md")]
)
def test_the_page_of_codes_is_made_from_the_table(language: Language, file: str) -> None:
    assert (ROOT / "docs" / file).read_text() == page(language), "make pages"


@pytest.mark.parametrize("code", MEANING)
def test_both_languages_say_the_same_of_a_code(code: str) -> None:
    for words in MEANING[code]:
        assert set(re.findall(r"{\w+}", words.en)) == set(re.findall(r"{\w+}", words.ru))
        assert re.search("[а-яё]", words.ru) or words.en == words.ru


def test_each_variable_that_the_example_and_the_lab_set_is_known() -> None:
    names = judge.variables(ROOT)
    assert {
        "outpost_systems",
        "region_pacs",
        "inference_study",
        "preflight_extra_ports",
    } <= names.options.keys()
    assert not names.is_ours("site_contact")
    assert names.is_ours("outpost_anything")
