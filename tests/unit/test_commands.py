"""The command line as a newcomer meets it: one spelling of options, examples that parse, completion that completes."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from outpost.cli import _parser, main
from outpost.completion import bash

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "service"


def commands(
    parser: argparse.ArgumentParser, name: str = "outpost"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, sub in action.choices.items():
                yield from commands(sub, f"{name} {verb}")


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUTPOST_CONFIG", str(tmp_path / "brain.yaml"))
    monkeypatch.setenv("OUTPOST_LANGUAGE", "en")


ALL = dict(commands(_parser()))
# Commands that group others have no options of their own.
LEAVES = {
    name: parser for name, parser in ALL.items() if not any(other.startswith(f"{name} ") for other in ALL)
}


@pytest.mark.parametrize("name", LEAVES)
def test_every_help_ends_with_examples_that_parse_and_the_exit_statuses(name: str) -> None:
    text = LEAVES[name].format_help()
    assert "exit status: 0 ok, 1 found a problem, 2" in text
    shown = text[text.index("examples:") : text.index("exit status:")].splitlines()[1:]
    lines = [line.strip() for line in shown if line.strip()]
    assert lines
    for line in lines:
        found = re.search(r"outpost (?!complet)[^|)]*|outpost completion bash", line)
        assert found is not None, line
        words = shlex.split(re.split(r" [<>] ", found.group(0))[0])[1:]
        assert callable(_parser().parse_args(words).run), line


@pytest.mark.parametrize("name", ALL)
def test_an_option_is_spelled_and_meant_alike_everywhere(name: str) -> None:
    for action in dict(commands(_parser()))[name]._actions:
        shown = [option for option in action.option_strings if action.help != argparse.SUPPRESS]
        for wrong, right in (
            ("--lang", "--language"),
            ("--conf", "--config"),
            ("--out", "--output"),
            ("--format-json", "--json"),
        ):
            assert wrong not in shown or right in shown, f"{name}: {wrong} is {right} elsewhere"
        if "--json" in shown:
            assert action.nargs == 0
        if "--language" in shown:
            assert list(action.choices or ()) == ["en", "ru"]
        if "--config" in shown:
            assert action.type is Path
            assert not action.required, "$OUTPOST_CONFIG is set"
            assert "$OUTPOST_CONFIG" in str(action.help)


@pytest.mark.parametrize(
    "words",
    [
        "platform verdict --os astra-1.8 --lang ru",
        "drift report --out page.html",
        "drift merge a.gz --out b.gz",
        "quarantine list --language ru --json",
        "studies --marked --held --state delivered --limit 3",
        "selftest --json",
        "fleet table --config fleet.yaml",
    ],
)
def test_older_spellings_work_on(words: str) -> None:
    options = _parser().parse_args(shlex.split(words))
    assert callable(options.run)
    if "ru" in words:
        assert options.language == "ru"


def test_the_language_is_the_locales_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OUTPOST_LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    for value, wanted in (("ru_RU.UTF-8", "ru"), ("en_US.UTF-8", "en"), ("C.UTF-8", "en"), ("", "en")):
        monkeypatch.setenv("LANG", value)
        assert _parser().parse_args(["status"]).language == wanted
    monkeypatch.setenv("LANG", "ru_RU.UTF-8")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert _parser().parse_args(["status"]).language == "en", "LC_ALL goes before LANG"
    monkeypatch.setenv("OUTPOST_LANGUAGE", "ru")
    assert _parser().parse_args(["status"]).language == "ru"
    assert _parser().parse_args(["status", "--language", "en"]).language == "en"


def test_the_parser_needs_nothing_of_the_services_libraries() -> None:
    # A controller has none of them, and help should not take a second.
    blocked = (
        "torch",
        "monai",
        "psycopg",
        "uvicorn",
        "fastapi",
        "pynetdicom",
        "httpx",
        "numpy",
        "pydicom",
        "pydantic",
    )
    code = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "from outpost.cli import main\n"
        "status = main(['fleet', 'table', '--config', 'x.yaml'])\n"
        "print(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SERVICE)},
    )
    assert done.stdout == "3\n", done.stderr
    assert "not installed here" in done.stderr


def completed(*words: str, folder: Path) -> list[str]:
    script = folder / "completion"
    script.write_text(bash(_parser()))
    ask = (
        f'source "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _outpost; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-uc", ask, "bash", *words], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").touch()
    assert completed("outpost", "sta", folder=tmp_path) == ["status"]
    assert completed("outpost", "config", "", folder=tmp_path) == ["--help", "check"]
    assert completed("outpost", "-s", "brain", "studies", "--state", "deliv", folder=tmp_path) == [
        "delivering",
        "delivered",
    ]
    assert completed("outpost", "quarantine", "list", "--lang", folder=tmp_path) == ["--language"]
    assert completed("outpost", "filter", "check", "ru", folder=tmp_path) == ["rules.yaml"]
    assert completed("outpost", "status", "--config", "ru", folder=tmp_path) == ["rules.yaml"]
    assert "list" in completed("outpost", "quarantine", "", folder=tmp_path)
    assert "serve" not in completed("outpost", "quarantine", "", folder=tmp_path)


def test_the_hosts_completion_is_made_from_the_parser() -> None:
    kept = (ROOT / "roles/inference/files/outpost-completion.bash").read_text()
    assert kept == bash(_parser()), "make pages"


# --- outpost config check


def checked(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    file = tmp_path / "checked.yaml"
    file.write_text(text, encoding="utf-8")
    status = main(["config", "check", str(file)])
    return status, capsys.readouterr().out


GOOD = """\
system: brain
region: chita
storage: {root: /nowhere/outpost/brain}
records:
  enabled: false
delivery:
  destinations:
    - {name: pacs, ae_title: PACS, host: 10.0.0.1, port: 104}
"""


def test_a_configuration_that_is_right_is_said_to_be_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = checked(GOOD, tmp_path, capsys)
    assert (status, "ok" in said) == (0, True), said


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("region: chita", "region: chita\nquitness: 3"), 3, "there is no such key"),
        (("port: 104", "port: 70000"), 8, "delivery.destinations[0].port"),
        (("enabled: false", "enabled: true\n  password: hunter2-secret"), 4, "uid_key missing"),
        (("system: brain\n", ""), 1, "system: missing; add it"),
        (("enabled: false", "enabled: false\n  pasword: hunter2-secret"), 6, "did you mean password?"),
        (("ae_title: PACS", "ae_title: PACS-WITH-TOO-LONG-A-NAME"), 8, "AE title"),
        (("region: chita", "region: chita\nregion: tver"), 3, "appears twice"),
        (("region: chita", "region: [chita"), 3, "is not YAML"),
    ],
    ids=["unknown", "range", "missing-secret", "missing", "misspelled-secret", "value", "twice", "no-yaml"],
)
def test_each_fault_of_a_configuration_has_its_line_and_remedy(
    change: tuple[str, str], line: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = checked(GOOD.replace(*change), tmp_path, capsys)
    assert status == 1
    assert f"line {line}" in said, said
    assert words in said
    assert "hunter2" not in said, "a secret is never shown"


def test_a_configuration_names_files_that_are_there_on_its_own_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "brain"
    root.mkdir()
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: 7\n")
    value = yaml.safe_load(GOOD)
    value["storage"]["root"] = str(root)
    value["filter"] = {"rules": str(rules)}
    value["api"] = {"tls": dict.fromkeys(("certificate", "key", "ca"), str(tmp_path / "none.pem"))}
    value["inference"] = {"bundle": str(tmp_path)}
    status, said = checked(yaml.safe_dump(value), tmp_path, capsys)
    assert status == 1
    for words in ("api.tls.certificate", "filter.rules", "inference.bundle"):
        assert words in said, said


def test_the_centres_configuration_is_known_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = checked("centre: {password: hunter2}\n", tmp_path, capsys)
    assert (status, "the centre's collector" in said) == (0, True), said
    status, said = checked("centre: {password: hunter2}\nsync:\n  period_second: 3\n", tmp_path, capsys)
    assert (status, "line 3" in said) == (1, True), said
    assert main(["events", "--config", str(tmp_path / "checked.yaml")]) == 2
    assert "outpost fleet table" in capsys.readouterr().err


# --- the controller


def test_a_fresh_controller_gets_its_programs_on_the_path(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    line = 'eval "$(make -s path)"'
    assert f"    make controller\n    {line}\n" in readme
    done = subprocess.run(
        ["bash", "-euc", f"{line}; command -v ansible-playbook"], capture_output=True, text=True, check=False, cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == f"{ROOT}/.venv/bin/ansible-playbook\n", done.stderr
    planned = subprocess.run(
        ["make", "-n", "-B", "controller"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert "lab/make-venv controller" in planned


def test_the_controllers_outpost_works_without_the_services_libraries(tmp_path: Path) -> None:
    # lab/make-venv itself, with a pip that installs nothing.
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/make-venv").write_text((ROOT / "lab/make-venv").read_text())
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/pip").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / ".venv/bin/pip").chmod(0o755)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / "service").symlink_to(SERVICE)
    subprocess.run(["bash", "lab/make-venv", "controller"], cwd=tmp_path, check=True, capture_output=True)
    outpost = tmp_path / ".venv/bin/outpost"
    done = subprocess.run(
        [outpost, "platform", "verdict", "--os", "astra-1.8"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"sys.path.insert(0, '{tmp_path}/service')" in outpost.read_text()
