"""What commands answer, and what stands beside a reason, is said in Russian: every sentence, read out of the code."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mr_series import ball, write_mr_series

import outpost
from outpost.cli import main
from outpost.codes.details import DETAILS, LOOKS
from outpost.codes.found import detail, detail_ru
from outpost.codes.spoken import SPOKEN, spoken

PACKAGE = Path(outpost.__file__).parent
ROOT = PACKAGE.parents[1]
# What makes a detail, and the functions whose texts become a part of one.
MAKES_DETAILS = {"InputRejected", "InferenceFailed", "Note", "FilesMissing"}
PARTS = {
    "inference/completeness.py": (
        "_lacks_by_count", "_lacks_slices", "_uneven", "_lacks_times", "_lacks_of_study", "_comb",
    ),
    "inference/engines/__init__.py": ("unavailable", "unsuited"),
    "inference/plausible.py": ("judge",),
    "filter/pixels.py": ("_plain", "_look", "_shown"),
    "filter/verdict.py": ("look", "series_name"),
    "filter/conditions.py": ("_wanted", "negated"),
    "intake/transfer.py": ("released",),
}  # fmt: skip
# Where every text that ends in a look's finding is an argument, or is returned.
FINDS = {"inference/check.py": ("look", "_Unsound", "Finding")}
# Names, keys and texts that are whole only with another.
NAMES = {
    "{}: {}", "{}/{}", "{}/{} on {}: {}", "{}/configs/metadata.json: {}", "{}/configs/inference.json: {}: {}",
    "weights.{}: {}", "{} {}", "{} ({})", "{}-{}", "{}", "configs/metadata.json", "configs/inference.json",
    "outpost.yaml",
    "filter.yaml", "{}: {}: {}", "; ", ", ", "", "doubtful", "plausible", "implausible", "NumberOfSlices",
    "ImagesInAcquisition", "EchoNumbers", "TemporalPositionIdentifier", "NumberOfTemporalPositions", "SliceThickness",
    "SpacingBetweenSlices", "cuda", "openvino", "tensorrt", "torch-compile", "contexts", " or ", "not ", "_", " ",
    "...",
    "exists", "between", "in", "equals", "{} {} -> {}", "{}: {:g}", "{}...", "in {}", "the whole", "InstanceNumber",
    "outputs", "golden", "{} {}{}", "of {}", "{} network(s)", "off", "reason", "{} is {}",
    "{}, was {}{}", "{} known failures forgotten{}",
    "study {}: {}; {}; rules {}",
}  # fmt: skip


def texts(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Every text of an expression or statement, `{}` for what is filled in; not what goes into the log."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
        ("log.", "_announced", "_number", "getattr")
    ):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values), node.lineno
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value, node.lineno
        return
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def found_in(file: Path) -> Iterator[tuple[str, int, str]]:
    """(text, line, table) of a file: `detail` or `spoken`."""
    name = file.relative_to(PACKAGE).as_posix()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name in PARTS.get(name, ()):
            for statement in node.body:
                yield from ((text, line, "detail") for text, line in texts(statement))
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        kind = (
            "spoken"
            if called == "spoken" or called in FINDS.get(name, ())
            else "detail"
            if called in MAKES_DETAILS
            else ""
        )
        if called == "note_event":
            yield from (
                (text, line, "detail") for argument in node.args[1:2] for text, line in texts(argument)
            )
        for argument in node.args if kind else ():
            if isinstance(argument, ast.Constant | ast.JoinedStr | ast.IfExp | ast.BinOp):
                yield from ((text, line, kind) for text, line in texts(argument))


def sentences() -> dict[str, tuple[str, str]]:
    """Every sentence -> (table, where)."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        if not file.relative_to(PACKAGE).as_posix().startswith(("demo/", "codes/")):
            for text, line, kind in found_in(file):
                found.setdefault(text, (kind, f"{file.relative_to(PACKAGE)}:{line}"))
    return found


SENTENCES = sentences()


def test_the_search_finds_sentences_of_every_kind() -> None:
    assert len(SENTENCES) > 150
    for text in (
        "the model finds no brain in this series",
        "{} holds {} images, {} says {}",
        "package {} is not installed",
        "Correct `engines`.",
        "{} of {} files confirmed, {} MB in {} s",
        "lacks inferer",
    ):
        assert text in SENTENCES


@pytest.mark.parametrize("text", sorted(SENTENCES))
def test_a_sentence_of_a_command_or_a_detail_is_said_in_russian(text: str) -> None:
    if text in NAMES or not re.search("[a-z]{2}", text):
        return
    kind, where = SENTENCES[text]
    filled = text.replace("{}", "7")
    told = spoken(filled, "ru") if kind == "spoken" else detail_ru(filled)
    assert re.search("[а-яё]", told), f"{where}: {text!r} is not in outpost/codes/{kind}"


@pytest.mark.parametrize("text", sorted({**DETAILS, **LOOKS, **SPOKEN}))
def test_what_is_filled_in_is_in_both_languages(text: str) -> None:
    values = [f"v{n}v" for n in range(text.count("{}"))]
    told = spoken(text.format(*values) if values else text, "ru")
    assert all(value in told for value in values), told


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        (
            "none of 24 instances is left (LOCALIZER 24); series 3: ImageType is LOCALIZER, wanted: not equals "
            "LOCALIZER (known.localizer; rules 1a2b3c)",
            "из 24 снимков не осталось ни одного (LOCALIZER 24); серия 3: ImageType: LOCALIZER, нужно: не равно "
            "LOCALIZER (known.localizer; правила 1a2b3c)",
        ),
        (
            "series 4 holds 12 images, ImagesInAcquisition says 24; series 4 has 12 slices, NumberOfSlices says 24",
            "серия 4: снимков 12, по ImagesInAcquisition их 24; серия 4: срезов 12, по NumberOfSlices их 24",
        ),
        (
            "shows hand 0.93, chest_frontal wanted (0.05)",
            "показано: hand 0.93, chest_frontal требуется (0.05)",
        ),
        (
            "the answer is unlike what the model gives on what it is for: the mask has 31 ml, 700 to 2000 are usual",
            "маска 31 мл, обычно от 700 до 2000",
        ),
        (
            "the association from 'CT1' at 10.0.0.9 ended without being released, after 5 of this study",
            "ассоциация от 'CT1' (10.0.0.9): закончено без release, до этого 5 из этого исследования",
        ),
    ],
)
def test_details_with_what_is_filled_in(english: str, expected: str) -> None:
    assert expected in detail(english, "ru")
    assert detail(english, "en") == english


@pytest.mark.parametrize("text", ["ivanov", "database disk image is malformed", "x" * 5000])
def test_what_is_not_ours_stays(text: str) -> None:
    if "is" not in text:
        assert detail_ru(text) == text
    assert spoken(text, "en") == text


# Of the English sentences; what else is in Latin letters are names.
ENGLISH = re.compile(
    r"\b(found|wanted|holds?|does|study|series|instances|left|met|missing|unknown|equals|matches|decided|none|rules"
    r"|at most|excluded|judged|readable|lacks|correct|add|network|resources|there|chosen|skipped|failed"
    r"|within|outside|installed|answer|not)\b(?!\.)"
)


def english_left(text: str) -> list[str]:
    return [line for line in text.splitlines() if ENGLISH.search(line)]


def test_filter_explain_leaves_no_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    write_mr_series(study, ball((24, 32, 32)))
    (study / "note.txt").write_text("no DICOM")
    rules = ROOT / "service/bundles/brain_extraction/filter.yaml"
    monkeypatch.setenv("LC_ALL", "ru_RU.UTF-8")
    monkeypatch.delenv("OUTPOST_LANGUAGE", raising=False)
    main(["filter", "explain", str(study), "--rules", str(rules)])
    told = capsys.readouterr().out
    assert "исследование 1: принято" in told
    assert "не рассмотрены:" in told
    # The names of kinds are names.
    assert english_left("\n".join(line for line in told.splitlines() if "ничто из: " not in line)) == []
    main(["filter", "explain", str(study), "--rules", str(rules), "--language", "en"])
    assert "study 1: accepted" in capsys.readouterr().out
    main(["filter", "check", str(rules)])
    assert "в порядке, правил" in capsys.readouterr().out


def test_bundle_check_leaves_no_english(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "service/bundles/brain_extraction/configs", bundle / "configs")
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    del metadata["version"]
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
    assert main(["bundle", "check", str(bundle), "--language", "ru"]) == 1
    told = capsys.readouterr().out
    assert (
        "СБОЙ configs/metadata.json: нет version\n     Добавьте ключи; см. спецификацию пакетов MONAI."
        in told
    )
    assert "СБОЙ outpost.yaml: отсутствует" in told
    assert english_left(told) == []


def test_the_table_of_optimise_is_in_the_readers_language() -> None:
    from outpost.inference.optimise import table

    row = {
        "engine": "openvino",
        "version": "2026.1",
        "precision": "float32",
        "seconds": 0.5,
        "memory_mib": 900,
    }
    rows = [
        row | {"verdict": "chosen", "reason": ""},
        row | {"verdict": "skipped", "reason": "package openvino is not installed"},
        row | {"verdict": "outside tolerance", "reason": "size full, batch 1: dice 0.7, 0.9 wanted"},
        row | {"verdict": "failed", "reason": "INFERENCE_TIMEOUT: no answer in 300 s"},
    ]
    told = table({"rows": rows}, "ru")
    for words in (
        "движок", "выбран", "пропущен: пакет openvino не установлен",
        "вне допуска: размер full, пачка 1: dice 0.7, нужно 0.9",
        "не удалось: INFERENCE_TIMEOUT: нет ответа за 300 с",
    ):  # fmt: skip
        assert words in told
    assert english_left(told) == []
    assert "within" not in told
    assert "skipped: package openvino is not installed" in table({"rows": rows})
