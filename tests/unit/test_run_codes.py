"""Why a run of a playbook stops is said with a code, in English and Russian, and every task that stops one says so."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from outpost.codes import run
from outpost.options import LANGUAGES, Language

ROOT = Path(__file__).resolve().parents[2]
STOPS = re.compile(r"\| outpost_stop\b")
# Said in both languages by another table with codes of its own.
OTHERS = {
    "roles/nvidia_driver": "outpost/codes/driver.py, tests/unit/test_driver_codes.py",
    "roles/container_runtime/tasks/cdi.yml": "DOCKER_CDI of outpost/codes/driver.py",
    "roles/platform": "stops where a host is none of ours, before it is known what language its people read",
    "roles/inference/tasks/gpu.yml": "GPU_GIVEN of outpost/codes/driver.py",
    "playbooks/doctor.yml": "JSON for machines; python -m outpost.codes.driver says it",
    "playbooks/driver_set.yml": "asks whoever has just typed the command for its two arguments; an input of a lane",
}


class _Loader(yaml.SafeLoader):
    """Takes Ansible's tags as text."""


_Loader.add_multi_constructor("!", lambda _loader, _tag, node: str(node.value))


def tasks(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a file of tasks or plays."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from tasks(value)
    elif isinstance(node, list):
        for value in node:
            yield from tasks(value)


def stops() -> dict[str, str]:
    """Place of every `fail` and `assert` of roles and playbooks -> its message."""
    found = {}
    files = [ROOT / "site.yml", *ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]
    for file in sorted([*files, *ROOT.glob("playbooks/**/*.yml")]):
        name = file.relative_to(ROOT).as_posix()
        if name.startswith((*OTHERS, "playbooks/roles/")):
            continue
        for task in tasks(yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)):  # noqa: S506 - a SafeLoader
            for module, key in (("fail", "msg"), ("assert", "fail_msg")):
                for called in (module, f"ansible.builtin.{module}"):
                    if isinstance(task.get(called), dict):
                        found[f"{name}: {task.get('name')}"] = str(task[called].get(key, ""))
    return found


PLACES = stops()


def test_the_search_finds_fails_and_asserts() -> None:
    assert len(PLACES) > 15
    assert "roles/inference/tasks/go_back.yml: Say what happened" in PLACES
    assert "playbooks/rotate.yml: Judge the two secrets" in PLACES


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_task_that_stops_a_run_says_a_code_in_both_languages(place: str) -> None:
    message = PLACES[place]
    assert STOPS.search(message), (
        f"{place}: say it by outpost_stop, its texts in outpost/codes/run.py: {message!r}"
    )
    codes = re.findall(r"'([A-Z][A-Z_]{4,})'", message)
    assert codes
    for code in codes:
        assert code in run.CODES, code
        wanted = set(re.findall(r"\{(\w+)\}", " ".join(run.CODES[code].said("en")))) - {"host"}
        given = set(re.findall(r"[(,]\s*(\w+)=", message[STOPS.search(message).start() :]))  # type: ignore[union-attr]  # found above
        assert wanted <= given, f"{place}: {code} needs {wanted - given}"


def test_no_code_of_the_table_is_said_by_nobody() -> None:
    assert {
        code for message in PLACES.values() for code in re.findall(r"'([A-Z][A-Z_]{4,})'", message)
    } == set(run.CODES)
    said = " ".join(
        file.read_text() for file in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    )
    for key in run.SAYS:
        assert f"'{key}'" in said, key


@pytest.mark.parametrize("code", sorted(run.CODES))
def test_a_code_is_said_with_its_remedy_in_both_languages(code: str) -> None:
    text = run.CODES[code]
    for english, russian in ((text.meaning, text.meaning_ru), (text.remedy, text.remedy_ru)):
        fields = [sorted(re.findall(r"\{\w+\}", one)) for one in (english, russian)]
        assert fields[0] == fields[1]
        assert bool(english) is bool(russian)
        assert not re.search("[а-яё]", english, re.IGNORECASE)
        if russian:
            letters = re.sub(r"\{\w+\}|`[^`]*`|\S*[/_.=]\S*|-\w+|sudo|Docker|[A-Z][a-z]*SQL", "", russian)
            assert re.search("[а-яё]{3}", letters), russian
            assert not re.search("[A-Za-z]{3,}", letters), russian
    assert text.remedy or "{lines}" in text.meaning, "nothing says what to do"
    for language in LANGUAGES:
        for path in re.findall(r"(?:docs|playbooks)/[\w/-]+\.(?:md|yml)", " ".join(text.said(language))):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_of_codes_is_the_table(language: Language) -> None:
    page = ROOT / "docs" / f"run-codes{'.ru' if language == 'ru' else ''}.md"
    assert page.read_text(encoding="utf-8") == run.page(language), "make pages"


@pytest.mark.parametrize(
    ("code", "values", "english", "russian"),
    [
        (
            "LOGIN_NOT_CREATED",
            {"logins": "fleet_reader", "port": 5432, "why": "PostgreSQL refused: out of {memory}."},
            "[LOGIN_NOT_CREATED] chita: a login of PostgreSQL (fleet_reader, port 5432) was not created: PostgreSQL "
            "refused: out of {memory}. Remove the cause and run this again.",
            "[LOGIN_NOT_CREATED] chita: учётная запись PostgreSQL (fleet_reader, порт 5432) не создана: PostgreSQL "
            "отказал: out of {memory}. Устраните причину и запустите снова.",
        ),
        (
            "HOST_NOT_READ",
            {"why": "the shell there ended with status 127."},
            "[HOST_NOT_READ] chita could not be read: the shell there ended with status 127. Log in",
            "оболочка там кончилась со статусом 127. Войдите на него",
        ),
        (
            "RULES_WRONG",
            {
                "lines": "brain: /r.yaml: line 3: rules[0].exclude.tag: Modalitty is no keyword of the DICOM data "
                "dictionary; did you mean Modality? (found 'Modalitty')\n"
                "lung: inventory.yml: line 7: the host has no such system (it has brain); did you mean brain?\n"
                "brain: /gone.yaml cannot be read (No such file or directory); name an existing file on the controller"
            },
            "rules[0].exclude.tag: Modalitty is no keyword",
            "brain: /r.yaml: строка 3: rules[0].exclude.tag: Modalitty - не ключевое слово из словаря DICOM; может "
            "быть, Modality? (найдено 'Modalitty')\n"
            "lung: inventory.yml: строка 7: у сервера нет такой системы (есть: brain); может быть, brain?\n"
            "brain: /gone.yaml не читается (такого файла или каталога нет); назовите существующий файл на управляющей "
            "машине\nИсправьте их в инвентаре",
        ),
        (
            "RULES_NOT_IN_USE",
            {"seconds": 60, "lines": "brain: wanted 1a2b, found nothing"},
            "does not judge 60 s after it was written:\nbrain: wanted 1a2b, found nothing\nThe rule set before",
            "через 60 с после записи набор правил ещё не действует:\nbrain: нужно 1a2b, есть ничего\nДействует",
        ),
        (
            "DATABASE_NOT_ON_ITS_FILES",
            {
                "unit": "postgresql@15-main.service",
                "why": "settings of /x/outpost.conf do not act: work_mem is 4MB by /y/postgresql.auto.conf:3. Take "
                "them out there (ALTER SYSTEM RESET where that is postgresql.auto.conf), or name the value in "
                "postgresql_settings.",
            },
            "does not run as its files say: settings of /x/outpost.conf do not act: work_mem is 4MB by /y",
            "настройки из /x/outpost.conf не действуют: work_mem is 4MB by /y/postgresql.auto.conf:3. Уберите их там",
        ),
        (
            "REMOVAL_NOT_NAMED",
            {"hosts": "chita", "system": "none", "region": "none"},
            "Given: hosts chita; system none; region none. Nothing was changed.",
            "Дано: серверы chita; система нет; регион нет. Ничего не изменено.",
        ),
        (
            "NOTHING_TO_GO_BACK_TO",
            {"release": "9.9", "before": "", "log": "none: a line of the log\nNo such file or directory"},
            "The last lines of its log:\nnone: a line of the log\nNo such",
            "Последние строки журнала:\nnone: a line of the log\nNo such",
        ),
    ],
)
def test_what_is_filled_in_is_said_in_the_language(
    code: str, values: dict[str, object], english: str, russian: str
) -> None:
    assert english in run.stop(code, "en", {"host": "chita", **values})
    assert russian in run.stop(code, "ru", {"host": "chita", **values})


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "[ROTATION_UNPREPARED] A rotation needs three lines in the vault"),
        ("ru", "[ROTATION_UNPREPARED] Для смены секрета в хранилище нужны три строки"),
    ],
)
def test_a_playbook_stops_in_the_language_of_the_inventory(tmp_path: Path, language: str, said: str) -> None:
    # The task of playbooks/rotate.yml, without the fleet that the playbook asks for.
    play = yaml.safe_load((ROOT / "playbooks/rotate.yml").read_text(encoding="utf-8"))[0]
    playbook = tmp_path / "rotate.yml"
    playbook.write_text(yaml.safe_dump([play | {"hosts": "localhost"}]))
    known = {"outpost_language": "{{ ours }}", "ours": language, "outpost_root_secret": "5" * 64}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local",
         "-e", yaml.safe_dump(known, default_flow_style=True), playbook],
        cwd=ROOT, env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    told = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert said in told, done.stdout + done.stderr


def test_what_the_module_of_the_database_says_has_russian() -> None:
    """Every sentence that `postgresql_running` fails with, read out of it."""
    source = (ROOT / "roles/postgresql/library/postgresql_running.py").read_text(encoding="utf-8")
    arguments = [
        call.args[0]
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Refused"
    ]
    # "sentence" % values, or the sentence alone; the class itself takes what it is given.
    said = [one.left if isinstance(one, ast.BinOp) else one for one in arguments]
    said = [ast.literal_eval(one) for one in said]
    assert len(said) > 7
    for sentence in said:
        plain = re.sub(r"%[sd]", "{}", sentence)
        assert plain in run.PARTS or f"{plain}." in run.PARTS, plain
