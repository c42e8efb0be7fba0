"""The real ansible-playbook with a wrong inventory ends before a play begins: any playbook, started anywhere."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from fleet import edit, fleet
from starting import ROOT_SECRET, started_from

ROOT = Path(__file__).parents[2]
CHITA, TVER = "regions/chita.yml", "regions/tver.yml"
ALL, REGION = "group_vars/all/main.yml", "group_vars/region.yml"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return fleet(tmp_path)


def run(
    site: Path, playbook: str, *more: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    # An admin's shell knows nothing of where the service's package lies.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ANSIBLE_CONFIG")}
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(site), str(ROOT / playbook), *more]
    return subprocess.run(
        command, cwd=cwd, env={**own, **environment}, capture_output=True, text=True, check=False, timeout=120
    )


def stopped(ended: subprocess.CompletedProcess[str], *said: str) -> None:
    """The run ended with one line for the fault, and no play of it began."""
    out = ended.stdout
    assert ended.returncode == 2, out + ended.stderr
    assert "PLAY [" not in out
    assert "TASK [" not in out
    assert any(all(word in line for word in said) for line in out.splitlines()), out + ended.stderr
    assert ROOT_SECRET not in out + ended.stderr


# Each playbook with a fault of its own: what is wrong, the command, what is said.
RUNS = [
    ("a tab", TVER, "      region_title", "\tregion_title", ("site.yml",), (f"{TVER}:6: ", "[tab]")),
    ("a brace", TVER, "{ae_title", "{{ae_title", ("playbooks/collect.yml",), (TVER, "[yaml]")),
    ("in variables", ALL, "outpost_language: en", "outpost_language: [en", ("playbooks/centre.yml",), (ALL, "[yaml]")),
    ("null", ALL, f'"{ROOT_SECRET}"', "",
     ("playbooks/certificate.yml", "-e", "peer=a"), ("outpost_root_secret: empty",)),
    ("window", TVER, "region_title", "nvidia_driver_reboot_window: 22:00\n      region_title",
     ("playbooks/driver_rollback.yml",), ("22:00, which YAML reads as 1320",)),
    ("octal", TVER, "port: 104", "port: 0104", ("playbooks/rotate.yml",), ("0104, which YAML reads as 68",)),
    ("ports", REGION, "8080", "5432", ("playbooks/doctor.yml",), ("port 5432", "[port-twice]")),
    ("twice", TVER, "region_title", "region_title: A\n      region_title",
     ("playbooks/driver_set.yml",), ("[duplicate-key]",)),
    ("limit", ALL, "en", "en", ("playbooks/preflight.yml", "-l", "chita,tvr"), ("'tvr'", "Did you mean tver?")),
    ("nobody", ALL, "en", "en", ("playbooks/region.yml", "-l", "centre"), ("[limit-nobody]",)),
    ("-e", ALL, "en", "en",
     ("playbooks/tokens.yml", "-e", "outpost_relase=1"), ("-e: outpost_relase", "outpost_release?")),
    ("later", TVER, "Europe/Moscow", "Msk",
     ("site.yml", "--start-at-task", "Judge the host", "--tags", "x"), ("'Msk'", "[zone]")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "old", "new", "command", "said"), [each[1:] for each in RUNS], ids=[each[0] for each in RUNS]
)
def test_a_wrong_inventory_ends_the_run_before_a_host_is_asked(
    site: Path, name: str, old: str, new: str, command: tuple[str, ...], said: tuple[str, ...]
) -> None:
    edit(site / name, old, new)
    stopped(run(site, *command), *said)


def test_a_run_tells_all_kinds_at_once(site: Path) -> None:
    """What test_inventory_judged.py tries one by one, by the command itself."""
    edit(site / REGION, "outpost_systems", "outpost_sistems")
    edit(site / REGION, "preflight_bundles", "inference_study: {force_seconds: 5}\npreflight_bundles")
    edit(site / ALL, f'"{ROOT_SECRET}"', "12345678901234567890123456789012")
    edit(site / ALL, '"1.2.3"', "1.10")
    edit(site / TVER, "Europe/Moscow", "Europe/Moskow")
    edit(site / TVER, "host: 198.51.100.5, ", "")
    edit(site / TVER, "192.0.2.12", "192.0.2.11")
    edit(site / CHITA, "chita:", "Chita:")
    edit(site / CHITA, "region_title", "postgresql_port: 22\n      region_title")
    (site / "regions/omsk.yml").write_text((site / TVER).read_text().replace("192.0.2.11", "192.0.2.13"))
    (site / "host_vars").mkdir()
    (site / "host_vars/tvr.yml").write_text("region_title: Тверь\n")
    ended = run(site, "site.yml", "-l", "tver")
    for said in (
        ("outpost_sistems", "Did you mean outpost_systems?"), ("force_seconds", "Did you mean forced_seconds?"),
        (f"{ALL}:1: outpost_root_secret: a number", "[secret-type]"), ("1.10, which YAML reads as 1.1", "[type]"),
        ("'Europe/Moskow'", "Did you mean Europe/Moscow?"), ("'Chita'", "[region-code]"),
        ("sshd, postgresql_port", "[port-twice]"), ("omsk.yml", "tver.yml", "[host-twice]"),
        ("host_vars/tvr.yml", "Did you mean tver?"),
    ):  # fmt: skip
        stopped(ended, *said)
    assert "12345678901234567890123456789012" not in ended.stdout + ended.stderr


def test_a_file_of_another_encoding_and_a_vault_without_its_password_end_the_run(site: Path) -> None:
    vault = site / "group_vars/all/vault.yml"
    vault.write_bytes((ROOT / "inventories/example/group_vars/all/vault.yml").read_bytes())
    stopped(run(site, "site.yml"), f"{vault}: encrypted", "[vault]")
    file = site / TVER
    file.write_bytes(file.read_text().encode("cp1251"))
    stopped(run(site, "site.yml"), f"{file}:6: ", "WINDOWS-1251", "[encoding]")


def test_a_limit_that_matches_nobody_at_all_is_refused_by_ansible_itself(site: Path) -> None:
    ended = run(site, "site.yml", "-l", "tvr")
    assert ended.returncode != 0
    assert "PLAY [" not in ended.stdout
    assert "tvr" in ended.stdout + ended.stderr


def test_no_inventory_ends_the_run(site: Path) -> None:
    stopped(run(site.with_name("flet"), "site.yml"), "flet: is not there", "[source-missing]")


@pytest.mark.parametrize(
    ("name", "old", "new", "code"),
    [(TVER, "      region_title", "\tregion_title", "[tab]"), (TVER, "Europe/Moscow", "Moscow", "[zone]"),
     (TVER, "tver:", "69:", "[host-unread]")],
)  # fmt: skip
def test_started_elsewhere_with_a_configuration_of_ones_own_it_is_judged_all_the_same(
    site: Path, tmp_path: Path, name: str, old: str, new: str, code: str
) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nforks = 5\n")
    edit(site / name, old, new)
    ended = run(site, "site.yml", cwd=tmp_path, HOME=str(tmp_path))
    stopped(ended, str(site / name), code)


@pytest.mark.parametrize("where", ["checkout", "elsewhere"])
def test_a_right_inventory_is_let_through_to_the_hosts(site: Path, tmp_path: Path, where: str) -> None:
    given = json.dumps({**started_from(tmp_path), "ansible_ssh_common_args": "-o ConnectTimeout=1"})
    ended = run(
        site, "playbooks/preflight.yml", "-l", "tver",
        "-e", given, "-e", f"preflight_report_directory={tmp_path}/report",
        cwd=ROOT if where == "checkout" else tmp_path, HOME=str(tmp_path),
    )  # fmt: skip
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert "unreachable=1" in ended.stdout


def test_other_commands_name_an_unread_file_in_our_words_too(site: Path) -> None:
    edit(site / TVER, "      region_title", "\tregion_title")
    ended = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-inventory"), "-i", str(site), "--list"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert f"{site / TVER}:6: a tab in the indentation" in ended.stdout


def test_a_region_commented_out_whole_is_no_fault(site: Path) -> None:
    lines = (site / CHITA).read_text().splitlines()
    (site / CHITA).write_text("---\n" + "".join(f"# {line}\n" for line in lines))
    ended = run(site, "playbooks/tokens.yml")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_playbook_of_the_sites_own_is_not_judged(site: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text(
        "- hosts: region\n  gather_facts: false\n  connection: local\n  tasks:\n  - ansible.builtin.debug:\n"
    )
    edit(site / REGION, "outpost_systems", "outpost_sistems")
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(site), str(own)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    own.write_text(
        f"- import_playbook: {own.with_name('other.yml')}\n- import_playbook: {ROOT}/playbooks/tokens.yml\n"
    )
    own.with_name("other.yml").write_text(
        "- hosts: region\n  gather_facts: false\n  connection: local\n  tasks: []\n"
    )
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    stopped(ended, "outpost_sistems")
