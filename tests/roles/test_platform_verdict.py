"""The verdict on whole hosts: trees read by the role's script, judged, and told in every form it leaves in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import recorded_hosts as hosts
from recorded_hosts import ROOT, plant, read

from outpost.platform import codes
from outpost.platform.cli import main
from outpost.platform.facts import facts_of
from outpost.platform.fit import Asked, Bundle
from outpost.platform.host import capacity_lines, device_lines, inventory_lines
from outpost.platform.line import LANGUAGES, Line
from outpost.platform.page import host_page, index_page
from outpost.platform.verdict import Verdict, judge, text

TODAY = date(2026, 11, 26)
RUNS = Asked(driver="580.95.05", modules="proprietary", torch="2.13.0+cu126")
KERNEL = "6.1.90-1-generic"
DIGSIG: dict[str, str | bytes] = {"etc/digsig/digsig_initramfs.conf": "DIGSIG_ELF_MODE=1\n"}
SECURE: dict[str, str | bytes] = {
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": bytes([6, 0, 0, 0, 1])
}
ENROLLED = 'echo "$2 is already enrolled"'
SYSTEMS = {"brain": {"dicom_port": 11112, "api_port": 8080, "cores": 2, "memory_mib": 3072, "vram_mib": 4000}}
READ: dict[str, Any] = {
    "memory_mib": 8192, "cores": 4, "disk_free_mib": {"/var/lib": 50_000, "/boot": 400}, "listening": {}, "units": [],
    "pid1": "systemd", "uid": 0, "clock": 1000.0, "gpu_memory_mib": [11264], "names": {}, "reach": {}, "registry": {},
}  # fmt: skip


def verdict_on(root: Path, asked: Asked = RUNS, *, key_enrolled: bool = False, **tree: Any) -> Verdict:
    planted = {"kernel": KERNEL, "headers": (KERNEL,), "pci": hosts.GTX_1080_TI, **tree}
    os_release = planted.pop("os_release", hosts.ASTRA_18)
    facts = facts_of(read(plant(root, os_release, **planted)))
    return judge("chita", facts, asked, TODAY, key_enrolled=key_enrolled)


def not_ok(lines: tuple[Line, ...] | list[Line]) -> dict[str, str]:
    return {line.code: line.level for line in lines if not line.ok}


def test_a_host_that_fits_gets_no_line_against_it(tmp_path: Path) -> None:
    assert not_ok(verdict_on(tmp_path).lines) == {}


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({"os_release": hosts.ASTRA_17}, {"os-supported": "critical"}),
        ({"os_release": 'ID=debian\nVERSION_ID="12"\n'}, {"os-supported": "critical"}),
        ({"programs": {"python3": "echo Python 3.7.3"}}, {"python": "critical"}),
        ({"programs": {"python3": "exit 1"}}, {"python": "critical"}),
        ({"headers": (), "programs": {"apt-cache": "echo '  Candidate: (none)'"}}, {"headers": "critical"}),
        ({"headers": (), "programs": {"apt-cache": "echo '  Candidate: 6.1.90-1'"}}, {}),
        ({"headers": ()}, {"headers": "warning"}),
        ({"without_headers": ("6.6.28-1-generic",)}, {"headers-all": "warning"}),
        ({"kernel": "6.6.28-1-hardened", "headers": ("6.6.28-1-hardened",)}, {"kernel-flavour": "warning"}),
        ({"files": SECURE}, {"secure-boot": "critical"}),
        ({"files": {**SECURE, "var/lib/dkms/mok.pub": ""}, "programs": {"mokutil": ENROLLED}}, {}),
        ({"files": {"proc/modules": "nouveau 1 0 - Live 0x0\n"}}, {"nouveau": "warning"}),
        ({"files": DIGSIG}, {"digsig": "critical"}),
        ({"files": {"etc/digsig/digsig_initramfs.conf": "DIGSIG_ELF_MODE=2\n"}}, {"digsig": "warning"}),
        ({"programs": {"astra-nochmodx-lock": "echo ACTIVE"}}, {"astra-lock": "warning"}),
        ({"programs": {"astra-mic-control": "echo ACTIVE"}}, {"astra-integrity": "warning"}),
        ({"pci": (*hosts.GTX_1080_TI, *hosts.CARDS["blackwell"])},
         {"gpu-mixed": "critical", "gpu-modules": "critical", "gpu-cuda": "critical", "torch-arch": "critical"}),
        ({"pci": ()}, {"gpu-present": "warning"}),
    ],
)  # fmt: skip
def test_each_trap_is_one_line_and_nothing_else(
    tmp_path: Path, tree: dict[str, Any], wanted: dict[str, str]
) -> None:
    assert not_ok(verdict_on(tmp_path, **tree).lines) == wanted


def test_an_admins_word_on_the_enrolled_key_counts(tmp_path: Path) -> None:
    assert not_ok(verdict_on(tmp_path, files=SECURE, key_enrolled=True).lines) == {}


def test_without_a_driver_asked_neither_headers_nor_secure_boot_matter(tmp_path: Path) -> None:
    found = verdict_on(tmp_path, Asked(), headers=(), files=SECURE)
    assert not_ok(found.lines) == {"driver-named": "warning"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {}),
        ({"gpu_memory_mib": [11264, 3000]}, {"vram": "critical"}),
        ({"gpu_memory_mib": []}, {}),
        ({"disk_free_mib": {"/boot": 100}}, {"boot-space": "warning"}),
        ({"names": {"registry.example": []}}, {"dns": "warning"}),
        ({"names": {"registry.example": ["10.0.0.2"]}}, {}),
        ({"reach": {"10.0.0.10:5432": "no answer in 5 s"}}, {"reach": "warning"}),
        ({"registry": {"registry.example:443": "Connection refused"}}, {"registry": "warning"}),
        ({"reach": {"10.0.0.10:5432": "ok"}}, {}),
    ],
)
def test_memory_of_cards_and_the_network_are_judged(changes: dict[str, Any], wanted: dict[str, str]) -> None:
    lines = capacity_lines(
        {**READ, **changes}, SYSTEMS, 1000.0, disk_min_mib=6144, memory_reserve_mib=1024, clock_skew_max=60
    )
    assert not_ok(lines) == wanted


def test_a_system_with_less_than_its_bundle_needs_is_warned_of() -> None:
    lines = capacity_lines(
        READ, SYSTEMS, 1000.0, disk_min_mib=6144, memory_reserve_mib=1024, clock_skew_max=60,
        bundles=[Bundle("brain", memory_mib=4000, vram_mib=4000), Bundle("elsewhere", memory_mib=1)],
    )  # fmt: skip
    assert not_ok(lines) == {"bundle-memory": "warning"}


def test_one_systems_fault_is_not_the_others(tmp_path: Path) -> None:
    two = {**SYSTEMS, "chest": {**SYSTEMS["brain"], "dicom_port": 1, "api_port": 2, "coers": 1}}
    host = verdict_on(tmp_path)
    both = Verdict("chita", (*host.lines, *inventory_lines(two)), host.facts, two, RUNS)
    assert both.of_system("brain") == "ok"
    assert both.of_system("chest") == "critical"
    assert both.level == "critical"


def test_the_json_holds_code_value_wanted_remedy_and_runbook(tmp_path: Path) -> None:
    report = json.loads(json.dumps(verdict_on(tmp_path, files=SECURE).as_json("en")))
    assert report["format"] == "outpost-verdict/1"
    assert (report["level"], report["status"]) == ("critical", "it will not run")
    (line,) = [one for one in report["lines"] if not one["ok"]]
    assert line["code"] == "secure-boot"
    assert all(line[key] for key in ("proves", "value", "wanted", "remedy"))
    assert line["runbook"] == "docs/runbooks/en/new-server.md#driver"


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_puts_what_stops_first_and_can_leave_out_what_is_fine(tmp_path: Path, language: Any) -> None:
    report = verdict_on(tmp_path, files={**SECURE, "proc/modules": "nouveau 1 0 - Live 0x0\n"}).as_json(
        language
    )
    everything, problems = text(report), text(report, only_problems=True)
    order = [re.search(r"\[([a-z-]+)\]", line)[1] for line in everything if "[" in line]  # type: ignore[index]
    assert order[:2] == ["secure-boot", "nouveau"]
    assert len(problems) == 5, problems
    assert len(everything) > len(problems)


def test_russian_lines_are_russian_throughout(tmp_path: Path) -> None:
    report = verdict_on(tmp_path, files={**SECURE, **DIGSIG}, without_headers=("6.6.28-1-generic",)).as_json(
        "ru"
    )
    for line in report["lines"]:
        for key in ("proves", "remedy"):
            assert not line[key] or re.search("[а-я]{3}", line[key]), (line["code"], key, line[key])
    said = host_page(report, "26.11.2026 12:00 UTC")
    for english in ("will not run", "wanted", "What to do", "not verified", "installed"):
        assert english not in said, english


def test_the_page_escapes_what_a_host_says_and_fetches_nothing(tmp_path: Path) -> None:
    os_release = 'ID=debian\nPRETTY_NAME="<script>alert(1)</script>"\nVERSION_ID="12"\n'
    report = verdict_on(tmp_path, os_release=os_release).as_json("en")
    for page in (host_page(report), index_page([report], ["<b>"], "en", "now")):
        assert "<script" not in page
        assert not re.search(r"(?:src|href)=.(?:https?:)?//", page)
        assert "&lt;" in page


def test_the_index_lists_silent_hosts_too(tmp_path: Path) -> None:
    page = index_page([verdict_on(tmp_path).as_json("en")], ["tver"], "en", "now")
    assert 'href="chita.html"' in page
    assert "tver" in page
    assert "no verdict" in page


@pytest.mark.parametrize(
    ("device", "cards", "fits"),
    [
        ("auto", 0, True),
        ("cpu", 0, True),
        ("cuda", 0, False),
        ("cuda", 1, True),
        ("cuda:1", 1, False),
        ("cuda:1", 2, True),
    ],
)
def test_a_system_that_asks_for_a_card_needs_that_card(device: str, cards: int, fits: bool) -> None:
    found = device_lines(cards, {"brain": {**SYSTEMS["brain"], "device": device}})
    assert all(line.ok for line in found) is fits
    assert {line.level for line in found} <= {"ok" if fits else "critical"}


# --- The table of codes, its page and its runbooks.


def test_the_page_of_codes_is_made_from_the_table() -> None:
    assert (ROOT / "docs/preflight.md").read_text() == codes.page(), (
        "run `python -m outpost.platform codes > docs/preflight.md`"
    )


# Codes that were published: they stay, and keep their meaning.
PUBLISHED = (
    "system-name system-keys ports-distinct init-systemd rights-root memory cores clock disk port-free"
).split()


def test_published_codes_stay() -> None:
    assert all(codes.CODES[code].critical for code in PUBLISHED)


def test_each_code_is_told_in_both_languages() -> None:
    for name, code in codes.CODES.items():
        for words in (code.proves, code.remedy):
            assert words.en.endswith("."), name
            assert re.search("[а-я]", words.ru), name
            assert not re.search("[а-яА-Я]", words.en), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_groups_anchor_is_in_the_runbook(language: str) -> None:
    runbook = (ROOT / codes.RUNBOOK.format(language=language)).read_text()
    for group in codes.GROUPS:
        assert f'<a id="{group}"></a>' in runbook, group
    for name in codes.CODES:
        assert f"`{name}`" in runbook, name


# --- The command.


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["verdict", "--date", "2026-11-26", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_answers_the_question_of_the_issue(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--gpu", "10de:1b06", "--driver", "580.95.05", "--torch"]
    status, said, _ = run(capsys, *asked, "2.13.0+cu126")
    assert (status, said.splitlines()[0]) == (0, "GeForce GTX 1080 Ti (10de:1b06): it will run")
    status, said, _ = run(capsys, *asked, "2.13.0", "--lang", "ru")
    assert status == 1
    assert "СТОП [torch-arch]" in said


def test_the_command_answers_as_json_and_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = run(capsys, "--gpu", "1db6", "--driver", "590.44.01", "--os", "astra-1.8", "--json")
    assert status == 1
    assert json.loads(said)["level"] == "critical"
    assert run(capsys, "--gpu", "1db6", "--html")[1].startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "card"], "looks like 10de:1b06"),
        (["--gpu", "1b06", "--driver", "new"], "'new' is no version"),
        (["--os", "windows-11"], "looks like ubuntu-24.04"),
        (["--collected", "/nowhere.json"], "name the file that collect.yml wrote"),
    ],
)
def test_a_question_that_cannot_be_read_is_status_2_with_the_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert said in error


def test_the_command_needs_the_standard_library_only() -> None:
    # As on a controller: no packages of the venv, nothing but this checkout.
    command = [
        sys.executable,
        "-S",
        "-m",
        "outpost.platform",
        "verdict",
        "--gpu",
        "10de:1b06",
        "--driver",
        "580.95.05",
    ]
    ended = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT / "service")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "it will run" in ended.stdout
