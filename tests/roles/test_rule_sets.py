"""Rule sets of the filter in an inventory: what is wrong stops the run before a host is asked for anything."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from starting import started_from

ROOT = Path(__file__).parents[2]
SYSTEMS = {"brain": {"dicom_port": 11112, "api_port": 8080, "cores": 2, "memory_mib": 3072}}
# TEST-NET-1 of RFC 5737: nobody answers there, so a task that wants the host would be told "unreachable".
INVENTORY = """\
region:
  hosts:
    nowhere:
      ansible_host: 192.0.2.1
      ansible_ssh_common_args: -o ConnectTimeout=1
      outpost_systems: {brain: {dicom_port: 11112, api_port: 8080, cores: 2, memory_mib: 3072}}
      dicom_filter_rules:
"""


def run(tmp_path: Path, rules: str, playbook: str, *more: str) -> subprocess.CompletedProcess[str]:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY + rules)
    given = json.dumps(started_from(tmp_path))
    command = [ROOT / ".venv/bin/ansible-playbook", "-i", inventory, "-e", given, playbook, *more]
    # An admin's shell knows nothing of where the service's package lies.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def loaded(tmp_path: Path, text: str) -> Any:
    """A value as an inventory's YAML gives it, which knows where it was written."""
    file = tmp_path / "region.yml"
    file.write_text(text)
    return DataLoader().load_from_file(str(file))


@pytest.mark.parametrize(
    ("playbook", "more"), [("site.yml", ()), ("site.yml", ("--check",)), ("playbooks/region.yml", ())]
)
def test_a_wrong_rule_set_stops_the_run_before_the_host_is_asked(
    tmp_path: Path, playbook: str, more: tuple[str, ...]
) -> None:
    wrong = """\
        brain:
          rules:
            - name: modality
              requir: {tag: Modality, equals: MR}
"""
    ended = run(tmp_path, wrong, playbook, *more)
    said = " ".join(ended.stdout.split())
    assert ended.returncode == 2, said + ended.stderr
    assert (
        f"{tmp_path}/hosts.yml: line 11: dicom_filter_rules.brain: rules[0].requir: there is no such key"
        in said
    )
    assert "did you mean require?" in said
    assert "nothing was changed" in said
    assert "unreachable=0" in said


def test_a_wrong_rule_file_is_told_with_its_own_line_and_a_right_one_lets_the_run_go_on(
    tmp_path: Path,
) -> None:
    file = tmp_path / "brain.yaml"
    file.write_text("rules:\n  - name: modality\n    require: {tag: Modalty, equals: MR}\n")
    ended = run(tmp_path, f"        brain: {file}\n", "playbooks/preflight.yml")
    said = " ".join(ended.stdout.split())
    assert ended.returncode == 2
    assert f"brain: {file}: line 3: rules[0].require.tag: 'Modalty' is no keyword" in said
    assert "did you mean Modality?" in said

    file.write_text(file.read_text().replace("Modalty", "Modality"))
    ended = run(tmp_path, f"        brain: {file}\n", "playbooks/preflight.yml")
    assert ended.returncode == 4, ended.stdout
    assert "unreachable=1" in ended.stdout


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("brian: {}", "line 1: the host has no such system (it has brain); did you mean brain?"),
        ("brain: rules/brain.yaml", "write {{ inventory_dir }}/rules/brain.yaml"),
        ("brain: /no/such.yaml", "line 1: /no/such.yaml cannot be read (No such file or directory)"),
        (
            "brain: [localizer]",
            "['localizer'] is neither a rule set nor the path of one; {} is the model's own",
        ),
        ("brain:", "None is neither a rule set nor the path of one"),
        ("brain:\n  known:\n    localiser: keep", "line 3: dicom_filter_rules.brain: known.localiser: "),
        (
            "brain:\n  rules:\n  - {name: a, require: {tag: BurnedInAnnotation, equals: NO}}",
            "line 3: dicom_filter_rules.brain: rules[0].require.equals: give text or a number, and put true and false",
        ),
    ],
)
def test_each_mistake_is_told_with_its_place_in_the_inventory(
    rule_sets: ModuleType, tmp_path: Path, rules: str, said: str
) -> None:
    judged = rule_sets.outpost_rule_sets(loaded(tmp_path, rules), SYSTEMS)
    assert judged["files"] == []
    (fault,) = judged["faults"]
    assert said in fault


def test_every_host_hears_all_its_faults_at_once(rule_sets: ModuleType, tmp_path: Path) -> None:
    rules = "brain:\n  rules:\n  - {name: A, require: {tag: Modality, equal: MR}}\nchest: {}\n"
    faults = rule_sets.outpost_rule_sets(loaded(tmp_path, rules), SYSTEMS)["faults"]
    assert [fault.split(":")[0] for fault in faults] == ["brain", "brain", "chest"]


@pytest.mark.parametrize(
    "text", ["08", "NO", "1e5", "1.", "+7", "true", "null", "2026-01-01", "1:30", "~", " a", ""]
)
def test_a_text_of_the_inventory_is_the_same_text_on_the_host(rule_sets: ModuleType, text: str) -> None:
    from outpost.filter.rulefile import parse_rules

    said = {"about": "написано", "rules": [{"name": "a", "require": {"tag": "PatientID", "equals": text}}]}
    (file,) = rule_sets.outpost_rule_sets({"brain": said}, SYSTEMS)["files"]
    (rule,) = parse_rules(file["text"].encode(), Path("host.yaml")).rules.rules
    assert rule.condition.equals == text.strip()
    assert "написано" in file["text"]


def test_numbers_and_answers_stay_what_they_are(rule_sets: ModuleType) -> None:
    condition = {"all": [{"tag": "Rows", "at_least": 64}, {"tag": "SliceThickness", "at_most": 0.5},
                         {"tag": "Modality", "exists": True}]}  # fmt: skip
    (file,) = rule_sets.outpost_rule_sets(
        {"brain": {"rules": [{"name": "a", "require": condition}]}}, SYSTEMS
    )["files"]
    assert yaml.safe_load(file["text"])["rules"][0]["require"] == condition


def test_the_models_own_rules_and_a_host_without_systems_need_no_file(rule_sets: ModuleType) -> None:
    assert rule_sets.outpost_rule_sets({"brain": {}}, SYSTEMS) == {"files": [], "faults": []}
    assert rule_sets.outpost_rule_sets({}, {}) == {"files": [], "faults": []}
    assert rule_sets.outpost_rule_files({"brain": {}, "chest": "/x.yaml"}) == {
        "chest": "/etc/outpost/filter/chest.yaml"
    }


def test_what_the_service_says_of_its_rules_is_read_from_its_health(rule_sets: ModuleType) -> None:
    answer = {
        "json": {"checks": [{"code": "DISK_RESERVE", "value": 1}, {"code": "FILTER_RULES", "value": "abc"}]}
    }
    assert rule_sets.outpost_rules_in_use(answer) == "abc"
    assert rule_sets.outpost_rules_in_use({"msg": "Connection refused"}) == ""


class _Health(BaseHTTPRequestHandler):
    """What a service answers that is not ready and whose rule file is wrong to it."""

    fault = "brain.yaml: line 3: rules[0].require.fact: 'voxels' is no fact"

    def do_GET(self) -> None:
        body = json.dumps(
            {"status": "failed", "checks": [{"code": "FILTER_RULES", "value": self.fault}]}
        ).encode()
        self.send_response(503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


def test_a_rule_set_that_does_not_judge_fails_the_run_with_the_services_own_word(tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: region\n  gather_facts: false\n  tasks:\n"
        "  - ansible.builtin.import_role: {name: dicom_filter, tasks_from: check}\n"
        "  - ansible.builtin.import_role: {name: dicom_filter, tasks_from: active}\n"
    )
    local = {"ansible_connection": "local", "ansible_become": False, "dicom_filter_active_seconds": 2}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        systems = {"brain": SYSTEMS["brain"] | {"api_port": server.server_port}}
        more = json.dumps(local | {"outpost_systems": systems})
        ended = run(tmp_path, "        brain: {missing: accept}\n", str(play), "-e", more)
        server.shutdown()
    said = " ".join(ended.stdout.split())
    assert ended.returncode == 2, said
    assert "nowhere: a rule set does not judge 2 s after it was written" in said
    assert f"found {_Health.fault}" in said
    assert "The rule set before it goes on judging" in said


def test_the_rule_sets_of_the_labs_inventory_and_of_every_model_are_right(rule_sets: ModuleType) -> None:
    files = [*ROOT.glob("inventories/*/rules/*.yaml"), *ROOT.glob("service/bundles/*/filter.yaml")]
    assert len(files) >= 2
    for file in files:
        assert rule_sets.outpost_rule_sets({"brain": str(file)}, SYSTEMS)["faults"] == [], file


def test_the_labs_rule_set_is_its_models_and_one_rule_of_its_own() -> None:
    lab = yaml.safe_load((ROOT / "inventories/lab/rules/brain.yaml").read_text())
    model = yaml.safe_load((ROOT / "service/bundles/brain_extraction/filter.yaml").read_text())
    assert lab["rules"][1:] == model["rules"]
    assert {key: lab[key] for key in model.keys() - {"about", "rules"}} == {
        key: model[key] for key in model.keys() - {"about", "rules"}
    }


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    found = [re.match(r"([A-Za-z0-9_.-]+)(?:\[\w+\])?==(\S+)", line) for line in lines]
    return {pin[1].lower(): pin[2] for pin in found if pin}


def test_the_controller_judges_with_the_very_libraries_of_the_service() -> None:
    controller, service = pins("requirements-controller.txt"), pins("service/requirements.txt")
    assert {"pydantic", "pyyaml", "pydicom"} <= controller.keys() & service.keys()
    for name in controller.keys() & service.keys():
        assert controller[name] == service[name], name


def test_judging_needs_nothing_that_the_controller_does_not_have() -> None:
    beyond = pins("service/requirements.txt").keys() - pins("requirements-controller.txt").keys()
    modules = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if {owner.lower() for owner in owners} & beyond
    ]
    assert {"torch", "pynetdicom"} <= set(modules)
    # None in sys.modules is how Python is told that a module is not there.
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r})); sys.path.insert(0, {str(ROOT / 'service')!r})\n"
        "from pathlib import Path; from outpost.filter.rulefile import parse_rules\n"
        "parse_rules(b'rules: [{name: a, require: {tag: Modality, equals: MR}}]', Path('a'))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
