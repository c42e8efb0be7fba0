"""Runbooks: each in both languages, alike in build, with links that lead somewhere and commands that exist."""

from __future__ import annotations

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
OF_RESULTS = ("result-is-partial.md", "two-patients.md", "names-come-out-wrong.md")
# What a runbook defines at its top to save typing.
SHORT = {"o": [], "q": ["quarantine"]}
VARIABLE = {"STUDY-INSTANCE-UID": "1.2.3"}


def text(language: str, name: str) -> str:
    return (DOCS / "runbooks" / language / name).read_text(encoding="utf-8")


def test_each_runbook_is_there_in_both_languages() -> None:
    assert {path.name for path in (DOCS / "runbooks" / "ru").glob("*.md")} == set(RUNBOOKS)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for name in OF_RESULTS:
        for language in ("en", "ru"):
            assert f"docs/runbooks/{language}/{name}" in readme


@pytest.mark.parametrize("name", OF_RESULTS)
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
