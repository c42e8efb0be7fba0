"""Runbooks: each in both languages, alike in build, with links that lead somewhere and commands that exist."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from pathlib import Path

import pytest

from outpost.cli import _parser
from outpost.codes.held import HELD
from outpost.codes.notes import NoteCode
from outpost.reasons import REASON_TABLE

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOKS = sorted(path.name for path in (DOCS / "runbooks" / "en").glob("*.md"))
OF_OPERATION = (
    "backup-and-restore.md",
    "decommission.md",
    "memory.md",
    "upgrade.md",
    "service-does-not-answer.md",
)
OF_RESULTS = ("result-is-partial.md", "two-patients.md", "names-come-out-wrong.md")
# What a runbook defines at its top to save typing.
SHORT = {"o": [], "q": ["quarantine"]}
VARIABLE = {"STUDY-INSTANCE-UID": "1.2.3", "DAY": "2026-11-01", "ДЕНЬ": "2026-11-01"}


def text(language: str, name: str) -> str:
    return (DOCS / "runbooks" / language / name).read_text(encoding="utf-8")


def test_each_runbook_is_there_in_both_languages_and_in_the_index() -> None:
    assert {path.name for path in (DOCS / "runbooks" / "ru").glob("*.md")} == set(RUNBOOKS)
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for name in RUNBOOKS:
        assert f"[en](runbooks/en/{name}) | [ru](runbooks/ru/{name})" in index, name
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
    assert "(docs/README.md)" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*OF_RESULTS, *OF_OPERATION])
def test_both_languages_have_the_same_steps_tables_and_commands(name: str) -> None:
    english, russian = text("en", name), text("ru", name)
    for pattern in (r"^## ", r"^\| ", r"^\d\. ", r"^    [oq] "):
        assert len(re.findall(pattern, english, re.MULTILINE)) == len(
            re.findall(pattern, russian, re.MULTILINE)
        ), pattern
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", english)) == set(re.findall(r"`([A-Z]+_[A-Z_]+)`", russian))


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("name", RUNBOOKS)
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(language: str, name: str) -> None:
    page = text(language, name)
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", page):
        path, _, anchor = target.partition("#")
        if path:
            assert (DOCS / "runbooks" / language / path).exists(), target
        elif anchor:
            assert anchor in anchors, target


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("name", OF_RESULTS)
def test_every_command_named_exists_with_its_options_and_every_code_is_known(
    language: str, name: str
) -> None:
    page = text(language, name)
    lines = re.findall(r"^    ([oq] [^{\n]*)$", page, re.MULTILINE) + re.findall(r"`([oq] [^`]*)`", page)
    lines += [f"o {line}" for line in re.findall(r"`outpost ([^`]*)`", page)]
    assert lines
    for line in lines:
        short, *words = shlex.split(line.partition(" > ")[0])
        words = [VARIABLE.get(word, word) for word in words]
        configured = ["--config", "brain.yaml"]
        options = _parser().parse_args([*SHORT[short], *words, *configured])
        assert callable(options.run), line
    known = {*map(str, NoteCode), *REASON_TABLE, *HELD}
    for code in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", page):
        assert code in known, code


ENVIRONMENT = {"OUTPOST_CONFIG": "brain.yaml", "OUTPOST_LANGUAGE": "en"}
PAGES = [
    ("README", DOCS.parent / "README.md"),
    ("docs/README", DOCS / "README.md"),
    ("security", DOCS / "security.md"),
]
PAGES += [
    (f"{language}/{name}", DOCS / "runbooks" / language / name)
    for language in ("en", "ru")
    for name in RUNBOOKS
]


def commands_of(page: str, program: str) -> list[str]:
    """What a page has people type of a program: lines set in, and words between backticks."""
    lines = re.findall(r"^    (.*)$", page, re.MULTILINE) + re.findall(r"`([^`\n]+)`", page)
    found = []
    for line in lines:
        for part in re.split(r"\s*(?:&&|\|\||[;|])\s*", line):
            match = re.match(rf"(?:sudo (?:-\S+ )*)?(?:/usr/local/bin/)?{program}(?: (.*))?$", part)
            if match and (match.group(1) or "")[:1] not in (":", "="):
                found.append((match.group(1) or "").partition(" #")[0].strip())
    return found


@pytest.mark.parametrize(("name", "path"), PAGES, ids=[name for name, _ in PAGES])
def test_every_outpost_command_of_a_page_is_one_that_the_parser_knows(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    for line in commands_of(path.read_text(encoding="utf-8"), "outpost"):
        words = shlex.split(re.split(r" \d?[<>] ?", line)[0].replace("[", "").replace("]", ""))
        if words[:1] in (["-s"], ["--system"]):  # of the host's wrapper
            words = words[2:]
        words = [VARIABLE.get(word, word) for word in words if word not in ("...", "$@")]
        if not words or words == ["--help"] or ": command not found" in line:
            continue
        # A command named without what it needs, such as `outpost restore`: it must exist all the same.
        known = _parser()
        try:
            assert callable(known.parse_args(words).run), line
        except SystemExit:
            verbs = " ".join(itertools.takewhile(lambda word: re.fullmatch("[a-z]+", word), words))
            assert not [word for word in words if word.startswith("-")], f"{name}: {line}"
            assert f"usage: outpost {verbs}" in parser_of(verbs).format_usage(), f"{name}: {line}"


def parser_of(verbs: str) -> argparse.ArgumentParser:
    parser = _parser()
    for verb in verbs.split():
        [group] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        parser = group.choices[verb]
    return parser


@pytest.mark.parametrize(("name", "path"), PAGES, ids=[name for name, _ in PAGES])
def test_every_playbook_make_target_and_program_of_a_page_exists(name: str, path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    root = DOCS.parent
    for playbook in re.findall(
        r"\b((?:playbooks/)?[a-z_]+\.yml)\b", " ".join(commands_of(page, "ansible-playbook"))
    ):
        assert (root / playbook).exists(), playbook
    for playbook in re.findall(r"`(playbooks/[a-z_]+\.yml)`", page):
        assert (root / playbook).exists(), playbook
    targets = (root / "Makefile").read_text(encoding="utf-8")
    for line in commands_of(page, "make"):
        target = next((word for word in line.split() if not word.startswith("-")), "help")
        target = target.rstrip(')"')
        assert re.search(rf"^(?:[a-z-]+ )*{re.escape(target)}(?: [a-z-]+)*:", targets, re.MULTILINE), (
            f"{name}: make {line}"
        )
    for program in re.findall(r"^    ((?:lab|service)/[a-z-]+)", page, re.MULTILINE):
        assert (root / program).exists(), program


def test_the_security_guide_names_proofs_that_are_there() -> None:
    page = (DOCS / "security.md").read_text(encoding="utf-8")
    for test in re.findall(r"`((?:tests|molecule)/[\w/.]+)`", page):
        assert (DOCS.parent / test).exists(), test
    for target in re.findall(r"\]\(([^)#]+)", page):
        assert (DOCS / target).exists(), target
