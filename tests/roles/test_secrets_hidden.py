"""No task, default or spec can print a secret: read from the roles and playbooks themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from derivable import labels

from outpost.codes.run import CODES

ROOT = Path(__file__).parents[2]
# What makes a secret, and the words by which one is handed on.
DERIVES = re.compile(r"outpost_secret\b(?! is)|outpost_logins\b|outpost_tokens\b|outpost_certificate\b")
MENTIONS = re.compile(
    DERIVES.pattern
    + r"|outpost_(root|uid)_secret(_before)?\b|passw|uid_key: //p|stow_token|region_pacs \| combine|_own_tokens"
    r"|page_token\b"
)
# It prints tokens on purpose, and touches no host.
PRINTS_ON_PURPOSE = "tokens.yml"
# What comes out of these is public or masked: the fleet's authorities, preflight's faults, the reason of a failure.
PUBLIC = re.compile(
    r"\{\{ outpost_root_secret \| (default\(''\) \| )?outpost_(trusted|ground_checks)\(.*?\}\}"
    r"|ansible_failed_result \| outpost_reason(\((?:[^()]|\([^()]*\))*\))?",
    re.DOTALL,
)
TEMPLATED = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
# Expressions that only judge: Ansible prints them as they are written, never what they come to.
JUDGES = ("when", "changed_when", "failed_when", "until", "name", "tags")
# Modules that hand their arguments to a process, where everybody on the host may read them.
ON_A_COMMAND_LINE = ("command", "shell", "raw", "script")
# Tasks that look at what a hidden task registered, and what of it they use: nothing of a secret.
LOOKS_AT_HIDDEN = {
    "Remember which regions still have the secret of before": "is_available, rowcount, names of regions",
    "Decide what has to be restarted": "changed, names of systems",
    "Decide whether there is anything to go back to": "how many",
    "Say which schema files would be applied": "version of the schema",
    "Apply the schema files it has not seen": "version of the schema",
    "Have it use it": "changed, names of systems",
    "Have the server run on its files": "changed, for a dry run",
    "Restart the collector where it runs on something else": "changed, for a dry run",
}


class Task(NamedTuple):
    file: str
    task: dict[str, Any]
    rescue: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return str(self.task.get("name"))

    @property
    def module(self) -> str:
        keys = [key for key in self.task if "." in key or key == "outpost_files"]
        return keys[0].rsplit(".", 1)[-1] if keys else ""

    @property
    def written(self) -> list[dict[str, Any]]:
        """What outpost_files is given here; of a list in a variable nothing."""
        files = self.task.get("outpost_files", {}).get("files", [])
        return files if isinstance(files, list) else []


def _walk(file: str, found: Any, rescue: list[dict[str, Any]]) -> Iterator[Task]:
    for one in found or []:
        inner = [key for key in ("pre_tasks", "tasks", "post_tasks", "handlers", "block") if key in one]
        for key in inner:
            yield from _walk(file, one[key], one.get("rescue", []) if key == "block" else [])
        for key in ("rescue", "always"):
            yield from _walk(file, one.get(key), [])
        if not inner and "hosts" not in one and "ansible.builtin.import_playbook" not in one:
            yield Task(file, one, rescue)


FILES = sorted(
    [
        *(ROOT / "roles").glob("*/tasks/**/*.yml"),
        *(ROOT / "roles").glob("*/handlers/*.yml"),
        *(ROOT / "playbooks").rglob("*.yml"),
    ]
)
TASKS = [
    task
    for path in FILES
    if path.name != PRINTS_ON_PURPOSE
    for task in _walk(str(path.relative_to(ROOT)), yaml.safe_load(path.read_text()), [])
]


def _said(task: Task) -> str:
    """All of a task that Ansible templates and may print, and the template that it writes."""
    given = {key: value for key, value in task.task.items() if key not in JUDGES}
    if task.module == "assert":
        given = {**given, "ansible.builtin.assert": {**given["ansible.builtin.assert"], "that": ""}}
    text = json.dumps(given, ensure_ascii=False)
    if task.module == "template":
        text += (
            ROOT / Path(task.file).parents[1] / "templates" / task.task["ansible.builtin.template"]["src"]
        ).read_text()
    for one in task.written:
        if "template" in one:
            text += (ROOT / Path(task.file).parents[1] / "templates" / one["template"]).read_text()
    return _templated(text)


def _templated(text: str) -> str:
    """The expressions in a text; words about a secret are none."""
    return " ".join(TEMPLATED.findall(PUBLIC.sub("", text)))


SECRET = [task for task in TASKS if MENTIONS.search(_said(task))]
HIDDEN = [task for task in TASKS if task.task.get("no_log") is True]


def test_the_walk_finds_what_there_is() -> None:
    assert len(TASKS) > 150
    assert {"Create the roles", "Attach the regions of the inventory", "Write certificate and key"} <= {
        t.name for t in SECRET
    }
    assert "Write the systems' configuration" in {task.name for task in SECRET}, "by its template"


@pytest.mark.parametrize("task", SECRET, ids=lambda task: task.name)
def test_a_task_that_handles_a_secret_is_hidden(task: Task) -> None:
    assert task.task.get("no_log") is True, f"{task.file}: {task.name}"
    assert not (task.module in ON_A_COMMAND_LINE and DERIVES.search(_said(task))), "in a process list"
    assert task.module not in ("copy", "template") or task.task.get("diff") is False, (
        f"{task.file}: {task.name}"
    )
    assert all(one.get("secret") is True for one in task.written), (
        f"{task.file}: {task.name}: shown by --diff"
    )
    assert task.module not in ("debug", "fail", "assert")


@pytest.mark.parametrize("task", HIDDEN, ids=lambda task: task.name)
def test_what_is_hidden_says_why_it_failed(task: Task) -> None:
    if task.task.get("failed_when") is False:
        return
    [said] = [one for one in task.rescue if "ansible.builtin.fail" in one]
    text = said["ansible.builtin.fail"]["msg"]
    assert "no_log" not in said
    assert "ansible_failed_result" in text, f"{task.file}: {task.name}"
    [code] = re.findall(r"'([A-Z_]{5,})' \| outpost_stop\(", text)
    assert re.search("run this again|root secret", CODES[code].remedy), "and what to do"
    # Only through the filter that masks, or a number.
    assert not re.search(r"ansible_failed_result(?! \| outpost_reason|\.rc)", text)


def test_nothing_that_a_hidden_task_registered_is_printed_later() -> None:
    hidden = {task.task["register"] for task in HIDDEN if "register" in task.task}
    assert hidden
    word = re.compile(r"\b(" + "|".join(map(re.escape, hidden)) + r")\b")
    looking = {task.name for task in TASKS if task not in HIDDEN and word.search(_said(task))}
    assert looking == LOOKS_AT_HIDDEN.keys()


def _values(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _values(value, f"{path}/{key}")
    elif isinstance(node, list):
        for value in node:
            yield from _values(value, path)
    elif isinstance(node, str):
        yield path, _templated(node)


def test_no_default_spec_or_variable_of_a_role_or_play_comes_to_a_secret() -> None:
    """Ansible prints all arguments of a role, templated, where one of them is wrong."""
    sources = [
        *(ROOT / "roles").glob("*/defaults/*.yml"),
        *(ROOT / "roles").glob("*/meta/*.yml"),
        *(ROOT / "roles").glob("*/vars/**/*.yml"),
    ]
    found: dict[str, Any] = {
        str(path.relative_to(ROOT)): yaml.safe_load(path.read_text()) for path in sources
    }
    for path in (ROOT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            found[f"{path.name}, {play['name']}"] = [
                play.get("vars"),
                play.get("roles"),
                play.get("environment"),
            ]
    templated = {
        where: [f"{path}: {text}" for path, text in _values(node) if MENTIONS.search(text)]
        for where, node in found.items()
    }
    # A default that its spec does not repeat is printed by nothing.
    own = templated["roles/inference/defaults/main.yml"]
    assert own.pop().startswith("/inference_destinations: ")
    assert {where: texts for where, texts in templated.items() if texts} == {}


def test_a_secret_option_of_a_role_is_one_that_no_default_fills() -> None:
    """no_log in a spec keeps a value out of no output of a failed validation."""
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            for name, option in entry["options"].items():
                assert not option.get("no_log"), f"{path}: {name}"


def test_the_tests_of_runs_know_every_label() -> None:
    text = "".join(path.read_text() for path in FILES)
    used = set(re.findall(r"outpost_secret\(([^()]*)\)", text)) | set(
        re.findall(r"\blabel: \"?((?:postgres|token|uid)[^\",}]*(?:\}\}[^\",}]*)?)", text)
    )
    used -= {"item.label"}
    assert len(used) >= 7
    known = {re.sub(r"\bchita\b", "*", label) for label in labels("chita")}
    made = {
        re.sub(r"\s*~\s*|'|\"", "", re.sub(r"\{\{ \w+ \}\}|inventory_hostname|item\.key", "*", one))
        for one in used
    }
    assert made == known
