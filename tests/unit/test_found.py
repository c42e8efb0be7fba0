"""What a check found and what is wanted is said in Russian: every text, read out of the code that looks."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import outpost
from outpost.codes.found import FOUND, detail_ru, in_russian, russian, shown
from outpost.health.codes import CHECKS, CheckCode
from outpost.health.verdict import check

PACKAGE = Path(outpost.__file__).parent
LAUNCHER = PACKAGE.parents[1] / "roles/inference/files/outpost-run"
# Where checks are made: every function there that makes one, and those that make a part of one.
LOOKS = {
    PACKAGE / "health/verdict.py": ("_age",),
    PACKAGE / "health/host.py": ("_running_service",),
    PACKAGE / "selftest.py": (),
    PACKAGE / "fleet/app.py": (),
    PACKAGE / "heal/watch.py": ("found", "_moved"),
    PACKAGE / "heal/waiting.py": (),
    PACKAGE / "heal/found.py": ("__str__",),
    PACKAGE / "inference/asserts.py": (),
    PACKAGE / "inference/decode.py": ("decoders_selfcheck",),
    LAUNCHER: ("specification_fault", "trial_fault", "gpu_arguments"),
}
MAKES = {"check", "Check", "Assertion"}
# Names, codes and keys: the same in every language, or never shown.
NAMES = {
    "full", "study", "golden", "complete", "delivering", "dice", "Dice >= {}", "worst", "runs on", "GET",
    "/health/light", "127.0.0.1", "::1", "0.0.0.0", "::", "checks", "code", "value", "status", "api.tls", "certificate",
    "ca", "https", "intake.dicom_port", "api.port", "ascii", "replace", ":", "_", "cpu", "sm", "compute", "af",
    "torch", "float32", "precision", "provider", "device", "cuda", "onnxruntime", "torch.", "eps",
    "CUDAExecutionProvider", "CPUExecutionProvider", "PRAGMA quick_check(1)", "journal.sqlite3", "ok", ".", " ",
    "outpost.inference", "frames", "{}.dcm", "seconds", "VmHWM", "VmRSS", "all", "auto", "rb", "wb",
    "{} {}", "{}.{}", "{}: {}", "{}-{}", "{}.{}: {}", "{}{}", "; {}", ">= {}", "<= {}", "{}", "",
    "; ", ", ", " and ", " or ", ">= {} ({})", "CORRUPT: {}",
    "MISSING: {}", "limit", "available", "ru", ".probe-{}-{}", "{} {}, {}",
    "{}{}: off by at most {}", "{} {}: {}", "{}: {}: {}", "{}: {}; {}; {}",
    # Ends of texts that are here whole.
    " after {} failed", ", at most {} % used",
    "FLEET_COLLECTOR_TURNS", "FLEET_REGIONS_END", "FLEET_DATABASE",
}  # fmt: skip
# Names of software and of the standard within a sentence.
WORDS_THAT_STAY = {"torch", "sha256", "transfer", "syntax", "nvidia", "module", "asserts"}
# Of the launcher: options and words of Docker, and what only the unit's log says.
OF_DOCKER = re.compile(
    r"^(--|docker|run$|rm$|nvidia-smi$|outpost-|/dev/|\{\}\+|\+cpu|CUDA_)|outpost-run: |on this host$"
)


def texts(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Every text in a function, `{}` for what is filled in; not its docstring, nor what goes into the log."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
        ("log.", "print", "sys.exit", "checks.append")
    ):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values), node.lineno
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from texts(part.value)
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value, node.lineno
        return
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def all_texts() -> dict[str, str]:
    """Every text of a check -> where."""
    found: dict[str, str] = {}
    for file, parts in LOOKS.items():
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = {ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
            if function.name in parts or (calls & MAKES and file != LAUNCHER):
                for statement in function.body:
                    for text, line in texts(statement):
                        if not (file == LAUNCHER and OF_DOCKER.search(text)):
                            found.setdefault(text, f"{file.name}:{line}")
    for file in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "put_aside":
                for argument in call.args[1:3]:
                    for text, line in texts(argument):
                        found.setdefault(text, f"{file.name}:{line}")
    return found


TEXTS = all_texts()


def test_the_search_finds_texts_of_every_kind() -> None:
    assert len(TEXTS) > 100
    for text in (
        "not computed yet",
        "<= {} times the fastest",
        "{}: taken, and not by this service",
        "none named by the bundle",
        "{} was {} while the service ran",
        "<= {} s since the last turn",
        "it is no whole result",
        "nvidia-smi in a container gave no answer in {} s",
    ):
        assert text in TEXTS


@pytest.mark.parametrize("text", sorted(TEXTS))
def test_a_text_of_a_check_is_said_in_russian(text: str) -> None:
    if text in NAMES:
        return
    told = russian(text.replace("{}", "7"))
    assert re.search("[а-яё]", told), f"{TEXTS[text]}: {text!r} is not in outpost/codes/found.py"
    left = set(re.findall(r"(?<![\w./_-])[a-z]{3,}(?![\w./_-])", told)) - WORDS_THAT_STAY
    assert not left, f"{TEXTS[text]}: {left} of {text!r} is left in {told!r}"


@pytest.mark.parametrize("text", sorted(FOUND))
def test_what_is_filled_in_is_in_both_languages(text: str) -> None:
    values = [f"v{n}v" for n in range(text.count("{}"))]
    told = russian(text.format(*values))
    assert all(value in told for value in values), told


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("<= 30 s", "<= 30 с"),
        ("12.5 ms", "12.5 мс"),
        (
            ">= 2500 MiB (2 workers of 1000 MiB, 500 MiB for the service)",
            ">= 2500 МиБ (процессов 2 по 1000 МиБ и 500 МиБ самой службе)",
        ),
        (">= 2048 MiB, at most 95 % used", ">= 2048 МиБ, занято не больше 95 %"),
        ("none", "нет"),
        ("the golden case for 3.2 s", "эталон, уже 3.2 с"),
        ("worker 1: peak 900 MiB, available 70 MiB", "процесс 1: пик 900 МиБ, доступно 70 МиБ"),
        (
            "intake.tls.key /etc/k.pem: Permission denied; api.tls.ca /etc/ca: No such file or directory",
            "intake.tls.key /etc/k.pem: нет прав; api.tls.ca /etc/ca: такого файла или каталога нет",
        ),
        ("intake.tls.certificate: expired 2026-01-02", "intake.tls.certificate: истёк 2026-01-02"),
        (
            "PACS: PACS at 10.0.0.5:104 cannot be reached (No route to host): check address, route and firewall",
            "PACS: PACS (10.0.0.5:104) недоступен (нет маршрута до узла): проверьте адрес, маршрут и межсетевой экран",
        ),
        ("MISSING: journal.sqlite3 was removed while the service ran", "MISSING: journal.sqlite3 удалён при"),
        ("openvino float32, not measured here yet", "openvino float32, здесь ещё не измерен"),
        (
            "brain.json: Input/output error; it could not be put aside; drift goes on without it",
            "brain.json: ошибка ввода-вывода; отложить его не удалось; дрейф считается дальше без него",
        ),
        (
            "/etc/cdi/a.yaml is stale: it names driver 580.1, the kernel holds 580.2",
            "назван драйвер 580.1, а в ядре",
        ),
    ],
)
def test_values_with_what_is_filled_in(english: str, expected: str) -> None:
    assert expected in shown(english, "ru")
    assert shown(english, "en") == english


@pytest.mark.parametrize(
    "value", ["GOLDEN_FAILED", "port", "full", "database disk image is malformed", "x" * 5000]
)
def test_names_codes_and_texts_of_strangers_stay(value: str) -> None:
    assert russian(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "a: " * 490, ", ".join(f"a{n}: b is c; d: e for f" for n in range(55)), "series 1 holds 2 images, " * 60,
        "none of none of is left (); : ( rules " * 38, "x, " * 490,
    ],
    ids=["heads", "lists", "sentences", "nested", "commas"],
)  # fmt: skip
def test_a_text_made_to_be_slow_is_not(text: str) -> None:
    begun = time.process_time()
    detail_ru(text[:1500])
    assert time.process_time() - begun < 0.5


def test_numbers_stay_numbers_and_nothing_is_a_dash() -> None:
    assert in_russian(3.5) == 3.5
    assert in_russian(None) is None
    assert shown(None, "ru") == shown(None, "en") == "-"


def test_a_check_says_value_and_wanted_in_both_languages() -> None:
    found = check(CheckCode.QUEUE_AGE, False, 4000.0, "<= 1800 s")
    assert (found.value_ru, found.wanted_ru) == (4000.0, "<= 1800 с")
    found = check(CheckCode.MEMORY_FITS, False, "no limit known", CHECKS[CheckCode.MEMORY_FITS].proves)
    assert (found.value_ru, found.wanted_ru[:6]) == ("ограничения нет", "Памяти")
