"""collect.yml: one file that says what a host is, without the canaries planted where a host may hold a secret."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import recorded_hosts as hosts
from recorded_hosts import ROOT, plant, read

from outpost.platform.cli import main
from outpost.platform.collected import CollectedWrong, collected_json, load
from outpost.platform.facts import ReadError, facts_of, facts_of_sections
from outpost.platform.fit import Asked
from outpost.platform.verdict import judge

MORE = ROOT / "roles/collect/files/more.sh"
RECORDED = ROOT / "tests/roles/collected"
CANARIES = [
    "CANARYSECRET", "canary5ecretq7z5kx3m2n4b6v8c9a1s", "КАНАРЕЙКИН", "Канарейкина", "19570314", "canary@example.org",
    "1.2.826.0.1.3680043.8.498.4711", "112-233-445", "MIICANARY", "canaryadmintoken",
]  # fmt: skip
HELPFUL = [
    "nvidia-driver 580.95.05-1", "hold nvidia-driver", "1.8.1.16", "golden case passed", "mirror.example",
    "brain/spool files=1", "log-driver",
]  # fmt: skip
CONFIG = """system: brain
records:
  password: CANARYSECRET
  host: 127.0.0.1
api:
  tokens:
    - {name: nurse, role: read, sha256: canary5ecretq7z5kx3m2n4b6v8c9a1s}
fleet_title: Канарейкина Мария Петровна
"""
KEY = "-----BEGIN PRIVATE KEY-----\nMIICANARY\nMIICANARY2\n-----END PRIVATE KEY-----\n"
JOURNAL = """2026-11-26T10:00:00+03:00 chita outpost-run[8]: study 1.2.826.0.1.3680043.8.498.4711.12 of КАНАРЕЙКИН^ИВАН
2026-11-26T10:00:01+03:00 chita outpost-run[8]: PatientBirthDate=19570314 SNILS 112-233-445 95
2026-11-26T10:00:02+03:00 chita outpost-run[8]: wrote to canary@example.org, CANARY token: CANARYSECRET
2026-11-26T10:00:03+03:00 chita outpost-run[8]: ready: golden case passed in 1.2 s
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    journal = tmp_path / "journal.txt"
    journal.write_text(JOURNAL)
    return plant(
        tmp_path / "root", hosts.ASTRA_18, kernel="6.1.90-1-generic", headers=("6.1.90-1-generic",),
        pci=hosts.GTX_1080_TI,
        files={
            "etc/astra/build_version": "1.8.1.16\n",
            "etc/outpost/brain.yaml": CONFIG,
            "etc/outpost/brain.key": KEY,
            "etc/outpost/brain.token": "canaryadmintokenq7z5kx3m2n4b6v8c\n",
            "etc/apt/sources.list": "deb https://reader:CANARYSECRET@mirror.example/astra 1.8_x86-64 main\n",
            "etc/docker/daemon.json": '{"log-driver": "journald"}\n',
            "var/lib/outpost/brain/spool/1.2.826.0.1.3680043.8.498.4711/КАНАРЕЙКИН.dcm": b"\0" * 2048,
        },
        programs={
            "journalctl": f"cat {journal}",
            "dpkg-query": "echo 'ii  nvidia-driver 580.95.05-1'; echo 'ii  docker.io 25.0.5.astra2'",
            "apt-mark": "echo nvidia-driver",
            "nvidia-smi": "echo 'NVIDIA GeForce GTX 1080 Ti, 580.95.05, 11264 MiB, 0 MiB, 41, N/A'",
            "astra-modeswitch": 'test "$1" = get && echo 1 || echo "advanced(voronezh)"',
        },
    )  # fmt: skip


def collect(root: Path, where: Path) -> subprocess.CompletedProcess[str]:
    inventory = where / "hosts.yml"
    inventory.write_text("region: {hosts: {chita: {ansible_connection: local, ansible_become: false}}}\n")
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", inventory, "playbooks/collect.yml", "-v", "--diff"]
    return subprocess.run(
        [*command, "-e", f"collect_root={root}", "-e", f"collect_directory={where}/out"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_no_planted_canary_gets_out_and_what_helps_does(host: Path, tmp_path: Path) -> None:
    ended = collect(host, tmp_path)
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert "changed=0" in ended.stdout
    written = tmp_path / "out/chita.json"
    for said in (written.read_text(), ended.stdout, ended.stderr):
        assert [canary for canary in CANARIES if canary in said] == []
    assert written.stat().st_mode & 0o777 == 0o600
    kept = written.read_text()
    for helpful in HELPFUL:
        assert helpful in kept, helpful


def test_the_file_gives_the_same_facts_as_the_host(host: Path, tmp_path: Path) -> None:
    path = tmp_path / "chita.json"
    path.write_text(collected_json("chita", read(host, MORE)))
    assert facts_of_sections(load(path).sections) == facts_of(read(host))


def test_an_answer_that_broke_off_makes_no_file(host: Path) -> None:
    with pytest.raises(ReadError, match="broke off"):
        collected_json("chita", read(host, MORE).split("=== journal")[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "no JSON"), ("[]", "run collect.yml"), ('{"format": "outpost-collected/0"}', "run collect.yml"),
     ('{"format": "outpost-collected/1", "host": "x", "sections": {"pci": []}}', "lacks")],
)  # fmt: skip
def test_another_file_is_refused_with_the_remedy(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(CollectedWrong, match=said):
        load(path)


# --- Files of collect.yml as fixtures: what a site sends goes into tests/roles/collected and is judged here for good.

EXPECTED: dict[str, dict[str, Any]] = {
    "stand-in-ubuntu": {"id": "ubuntu", "release": "24.04", "package_manager": "apt", "gpus": []},
    "made-redos-v100": {
        "id": "redos", "release": "8", "version": "8.0.2", "package_manager": "dnf", "gpus": ["10de:1db6"],
    },
}  # fmt: skip


def test_each_file_that_was_sent_is_expected_here() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_that_was_sent_gives_facts_and_a_verdict(name: str) -> None:
    facts = facts_of_sections(load(RECORDED / f"{name}.json").sections)
    assert {key: facts[key] for key in EXPECTED[name]} == EXPECTED[name]
    verdict = judge(name, facts, Asked(driver="580.95.05", torch="2.13.0+cu126"), date(2026, 11, 26))
    assert verdict.as_json("ru")["lines"]


def test_the_command_judges_a_file_that_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(RECORDED / "made-redos-v100.json")
    assert main(["verdict", "--collected", path, "--driver", "590.44.01", "--date", "2026-11-26"]) == 1
    assert "branch 580 or older" in capsys.readouterr().out
    assert main(["facts", path]) == 0
    assert (
        json.loads(capsys.readouterr().out)["kernel"]["headers_package"] == "kernel-lt-devel-6.6.52-1.red80"
    )
