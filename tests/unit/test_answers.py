"""Why something is not done is said in Russian too: every sentence that a person gets, read out of the code itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import outpost
from outpost.cli import main
from outpost.codes.answers import ANSWERS, both, faults, russian, said
from outpost.config import Config, ConfigError, load
from outpost.console.text import events
from outpost.filter.rulefile import RulesInvalid, load_rules
from outpost.intake.guests import WORDS
from outpost.intake.refusal import Refusal
from outpost.options import Language

PACKAGE = Path(outpost.__file__).parent
# What is raised to be said to a person, and what says it.
SAYS = {
    "HTTPException", "Denied", "TooCostly",
    "NoSuchItem", "Refused", "CannotResubmit", "CannotLook", "Busy",
    "CannotDo", "CannotAsk", "CannotStart", "AlreadyRuns", "TooFewDescriptors", "_Refusal",
    "JournalError", "JournalUnusable", "JournalTooNew",
    "ConfigError", "RulesInvalid", "ArgumentTypeError", "AskedWrong", "UnknownId", "CollectedWrong",
    "BookUnusable", "TableUnusable", "_NotThere", "CentreError", "PeerUnreachable", "NotSent", "BeyondBounds",
    "UnsupportedType", "UnsupportedEncoding", "MalformedBody", "BodyTooLarge",
    "complain", "said", "Damage", "_fault", "_cannot", "_turned_away", "turned_away", "refused",
}  # fmt: skip
# Faults of keys of a configuration: whoever writes it reads them by `outpost config check`.
OF_KEYS = ("config.py", "fleet/config.py", "filter/rules.py")
# Where a sentence is kept under this name before it is said.
KEPT = {"words": ("web", "api", "intake"), "told": ("console/judge.py",)}
# Of the code's own misuse: no person gets these.
OF_OURSELVES = {
    "outcome {} is none of {}", "outcome {} without a reason code: name one",
    "study row {} is {}, not {}: it cannot become {}",
    "{}: {}",  # two sentences, each here
    "filter.rules: {} in {}",  # faults of the rule file
    # Choices, each of which is here whole.
    "{} {} during the negotiation of an association: see its log (many do so to an AE title or address they do not "
    "know), and whether it wants TLS",
    "the peer answered {} with status {}{}: {}",
    # A fault of a rule file: `faults` keeps its place.
    "line {}: rules[{}].name: another rule is called {}: give each its own",
}  # fmt: skip


def templates(node: ast.expr) -> Iterator[str]:
    """Every sentence that an expression can be, `{}` for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from templates(one)
            yield from templates(other)
        case ast.List(elts=elements):
            for element in elements:
                yield from templates(element)


def sentences() -> dict[str, str]:
    """Every sentence in the code that is said to a person -> where."""
    found: dict[str, str] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name.startswith(("inference/", "demo/", "codes/")):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            said_there: list[ast.expr] = []
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called in SAYS or (called == "ValueError" and name in OF_KEYS):
                    said_there = [*node.args, *(k.value for k in node.keywords if k.arg == "headers")]
            elif (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and name.startswith(KEPT.get(node.targets[0].id, ("-",)))
            ):
                said_there = [node.value]
            for expression in said_there:
                for text in templates(expression):
                    if re.search(r"[a-z] [a-z]", text.replace("{}", "x")) and not text.startswith("outpost"):
                        found.setdefault(text.strip(), f"{name}:{node.lineno}")
    return found


SENTENCES = sentences()


def test_the_search_finds_sentences_of_every_kind() -> None:
    assert len(SENTENCES) > 120
    for text in (
        "this token is not known here",
        "{} is here no more: have it sent again",
        "its calling AE title is not in intake.known_ae_titles",
        "the path must be absolute (begin with /)",
        "too many wrong tokens from this address: wait a minute, then send the right one",
    ):
        assert text in SENTENCES


@pytest.mark.parametrize("sentence", sorted(SENTENCES))
def test_a_sentence_that_a_person_gets_is_said_in_russian(sentence: str) -> None:
    if sentence in OF_OURSELVES:
        return
    told = russian(sentence.replace("{}", "7"))
    assert told is not None, f"{SENTENCES[sentence]}: {sentence!r} is not in outpost/codes/answers.py"
    assert re.search("[а-яё]{2}", told), told


@pytest.mark.parametrize("sentence", [*(r.comment for r in Refusal), *WORDS.values()])
def test_what_is_answered_for_one_image_or_association_is_said_in_russian(sentence: str) -> None:
    assert russian(sentence) is not None


@pytest.mark.parametrize("sentence", sorted(ANSWERS))
def test_what_is_filled_in_is_in_both_languages(sentence: str) -> None:
    values = [f"v{n}v" for n in range(sentence.count("{}"))]
    told = russian(sentence.format(*values))
    assert told is not None
    if not sentence.startswith(("Input should be", "Input is not", "Value error")):
        assert all(value in told for value in values), told


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("file-3 is here no more: have it sent again", "file-3 здесь уже нет: пусть отправят ещё раз"),
        (
            "3 of the 20 images of study-7 are here no more: send the study again from the archive; it is then taken "
            "as new",
            "3 из 20 снимков study-7 здесь уже нет",
        ),
        # One sentence within another.
        (
            "association of 'CT1' at 10.0.0.9: CALLING_AE_UNKNOWN, its calling AE title is not in "
            "intake.known_ae_titles",
            "его calling AE title нет в intake.known_ae_titles",
        ),
        (
            "journal /d/j: disk I/O error: free space on its file system; nothing was changed",
            "освободите место",
        ),
        (
            "PACS at 10.0.0.5:104 cannot be reached (no answer in 10 s): check address, route and firewall",
            "за 10 с",
        ),
    ],
)
def test_a_sentence_is_known_whatever_is_filled_in(english: str, expected: str) -> None:
    assert expected in said(english, "ru")
    assert said(english, "en") == english


def test_a_rule_files_faults_are_said_in_russian_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "rules:\n"
        "- {name: a, scope: instance, exclude: {tag: Modalitty, equals: OT}, code: SITE_A}\n"
        "- {name: b, scope: instance, exclude: {fact: nothing, equals: 1}, code: NO_SUCH}\n"
    )
    with pytest.raises(RulesInvalid) as caught:
        load_rules(file)
    told = faults(str(caught.value), "ru")
    assert "не ключевое слово из словаря DICOM; может быть, Modality?" in told
    left = [line for line in told.splitlines() if not re.search("[а-яё]{3}", line)]
    assert left == [], told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["studies", "--limit", "many", "--config", "x"], "--limit: 'many' - не целое число"),
        (["studies", "--state", "lost", "--config", "x"], "--state: 'lost' не подходит, можно: 'receiving'"),
        (["events", "--since", "yesterday", "--config", "x"], "--since: 'yesterday' - не день и не время"),
        (["events", "--nothing", "--config", "x"], "неизвестно: --nothing"),
        (["events"], "не хватает: --config"),
        (["dig"], "'dig' не подходит, можно: "),
        (["platform", "verdict", "--json", "--html"], "--html: нельзя вместе с --json"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_in_the_readers_language(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OUTPOST_CONFIG", raising=False)
    for language in ("ru", "en"):
        monkeypatch.setenv("OUTPOST_LANGUAGE", language)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert (told in capsys.readouterr().err) is (language == "ru")


def test_what_is_not_ours_stays_as_it_is() -> None:
    assert said("FATAL: out of cheese", "ru") == "FATAL: out of cheese"
    assert both("FATAL: out of cheese") == {"detail": "FATAL: out of cheese"}
    assert russian("send " + "x" * 5000) is None


def test_a_configurations_faults_keep_key_and_value_and_say_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "brain.yaml"
    file.write_text(
        "system: Brain!\nregion: chita\nstorage: {root: relative}\nintake: {dicom_port: 99999, ae_titel: X}\n"
        "inference: {bundle: /b, workers: many}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file, Config)
    told = faults(str(caught.value), "ru")
    assert f"{file}: ошибок" in told
    for words in (
        "system: от 2 до 31 знака a-z, 0-9 и '-', первой - буква (найдено 'Brain!')",
        "storage.root: путь должен быть полным (начинаться с /) (найдено 'relative')",
        "intake.dicom_port: нужно не больше 65535 (найдено 99999)",
        "intake.ae_titel: такого ключа нет; может быть, ae_title?",
        "inference.workers: нужно целое число",
    ):
        assert words in told
    left = [line for line in told.splitlines() if not re.search("[а-яё]{3}", line)]
    assert left == []


def test_a_command_says_in_the_readers_language_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTPOST_LANGUAGE", "ru")
    monkeypatch.delenv("OUTPOST_CONFIG", raising=False)
    assert main(["platform", "verdict", "--os", "windows-11"]) == 2
    assert "os: 'windows-11' не из наших" in capsys.readouterr().err
    file = tmp_path / "brain.yaml"
    file.write_text("system: [1]\n")
    assert main(["config", "check", str(file)]) == 1
    assert "строка 1: system: " in capsys.readouterr().out
    assert main(["backup", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "не читается" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("language", "told"),
    [
        (
            "en",
            ("CALLING_AE_UNKNOWN: The sender's AE title is not one", "add it to `intake.known_ae_titles`"),
        ),
        (
            "ru",
            (
                "ассоциация 'CT1' at 10.0.0.9: CALLING_AE_UNKNOWN, его calling AE title нет",
                "AE title отправителя",
            ),
        ),
    ],
)
def test_an_event_says_what_the_code_in_its_detail_means(language: Language, told: tuple[str, ...]) -> None:
    event = {
        "at": "2026-11-30T15:04:05+00:00",
        "code": "SENDER_REFUSED",
        "detail": "association of 'CT1' at 10.0.0.9: CALLING_AE_UNKNOWN, its calling AE title is not in "
        "intake.known_ae_titles",
    }
    shown = " ".join(events([event], language, remedies=True).split())
    for words in told:
        assert words in shown
    assert "CALLING_AE_UNKNOWN: " not in events([event], language, remedies=False)
