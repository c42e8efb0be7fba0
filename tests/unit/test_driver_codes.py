"""Every code that can be said of the NVIDIA driver is explained in both languages, and spoken where people read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from outpost.codes import driver
from outpost.options import LANGUAGES, Language

ROOT = Path(__file__).resolve().parents[2]
# Where a code of the driver is made: Python of the filter and modules, YAML of the roles.
PLACES = [
    ROOT / "plugins/filter/outpost_driver.py",
    *(ROOT / "roles/nvidia_driver/tasks").glob("*.yml"),
    *(ROOT / "roles/container_runtime/tasks").glob("*.yml"),
    ROOT / "roles/inference/tasks/gpu.yml",
]
MADE = re.compile(r'_check\(\s*"([A-Z_]+)"|\bcode: ([A-Z_]{4,})|\[([A-Z]+_[A-Z_]+)\]')


def said_somewhere() -> set[str]:
    return {
        code
        for place in PLACES
        for groups in MADE.findall(place.read_text(encoding="utf-8"))
        for code in groups
        if code
    }


def test_every_code_that_a_playbook_can_say_of_the_driver_is_in_the_table_and_no_other() -> None:
    found = said_somewhere()
    assert {
        "MODULE_BUILT",
        "SET_INSTALLED",
        "LOCK_FILES",
        "DOCKER_CDI",
    } <= found  # the search finds each form
    assert found == set(driver.CODES)


@pytest.mark.parametrize("code", sorted(driver.CODES))
def test_a_code_of_the_driver_says_in_both_languages_what_it_means_and_what_to_do(code: str) -> None:
    text = driver.CODES[code]
    for said, russian in [
        *((one, False) for one in text.said("en")),
        *((one, True) for one in text.said("ru")),
    ]:
        assert said.endswith("."), said
        letters = re.sub(r"`[^`]*`|[A-Z_]{4,}|\(ЗПС\)", "", said)
        assert bool(re.search("[а-яё]{3}", letters, re.IGNORECASE)) is russian, said
    for language in LANGUAGES:
        for path in re.findall(r"docs/[\w/-]+\.md", " ".join(text.said(language))):
            assert (ROOT / path).exists(), path
            assert f"/{language}/" in path


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_of_driver_codes_is_the_table_and_in_the_index(language: Language) -> None:
    name = "driver-codes.md" if language == "en" else "driver-codes.ru.md"
    kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert kept == driver.page(language), "make pages"
    assert f"({name})" in (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([\w/.-]+\.md)\)", kept):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "driver failed (site-580)"), ("ru", "драйвер НЕ в порядке (site-580)")],
)
def test_a_file_of_the_doctor_is_said_for_a_person(tmp_path: Path, language: Language, words: str) -> None:
    verdict = {
        "host": "chita", "set": "site-580", "status": "failed", "failed": ["MODULE_BUILT"], "note": "",
        "checks": [
            {"code": "PACKAGES", "ok": True, "value": "as in the set", "wanted": "set", "remedy": "Run site.yml."},
            {"code": "MODULE_BUILT", "ok": False, "value": "not built for 6.1.0-18", "wanted": "built",
             "remedy": "`dkms status`, then the make.log it names."},
        ],
    }  # fmt: skip
    file = tmp_path / "chita.json"
    file.write_text(json.dumps(verdict), encoding="utf-8")
    # As on a controller: without the service's libraries.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "outpost.codes.driver", language, str(file)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT / "service"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert words in done.stdout
    assert "not built for 6.1.0-18" in done.stdout
    told = driver.CODES["MODULE_BUILT"].remedy_ru if language == "ru" else "`dkms status`"
    assert told in done.stdout
    assert "[PACKAGES]" not in done.stdout


def test_a_file_that_is_no_verdict_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "other.json"
    file.write_text("[]")
    assert driver.main(["ru", str(file)]) == 2
    assert "это не заключение" in capsys.readouterr().err
