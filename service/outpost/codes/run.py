"""Why a run of a playbook stops, beside preflight and the driver: each code in English and Russian, with what to do.

The roles name the code and what is filled in (`outpost_stop` of plugins/filter/outpost_words.py); the texts are here. A
test asks that every `fail` and `assert` of roles and playbooks is said so. Standard library only: the controller reads
it. `python -m outpost.codes.run en|ru` prints docs/run-codes.md and docs/run-codes.ru.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from outpost.codes import answers, found
from outpost.codes.code_text import CodeText
from outpost.codes.matching import Sentences
from outpost.options import LANGUAGES, Exit, Language

# Before a host is touched.
BEFORE: Final[Mapping[str, CodeText]] = {
    "RUN_CANNOT_END": CodeText(
        "This run cannot end well; no host was asked and nothing was changed:\n{lines}", "",
        "Этот запуск не может кончиться хорошо; ни один сервер не опрошен, ничего не изменено:\n{lines}", "",
    ),
    "INVENTORY_UNFIT": CodeText(
        "The inventory of {host} is wrong:\n{lines}", "",
        "Инвентарь для {host} неверен:\n{lines}", "",
    ),
    "HOST_UNFIT": CodeText(
        "{host} cannot carry what is asked of it:\n{lines}", "",
        "{host} не потянет того, что от него требуется:\n{lines}", "",
    ),
    "NETWORKS_UNFIT": CodeText(
        "{host} would be open to everybody or closed to all:\n{lines}", "",
        "{host} оказался бы открыт для всех или закрыт от всех:\n{lines}", "",
    ),
    "RULES_WRONG": CodeText(
        "The filter's rule sets of {host} are wrong; nothing was changed:\n{lines}\n",
        "Correct them in the inventory, or in the file that it names; docs/filter-rules.md explains the language.",
        "Наборы правил фильтра для {host} неверны; ничего не изменено:\n{lines}\n",
        "Исправьте их в инвентаре или в файле, который он называет; язык описан в docs/filter-rules.md.",
    ),
    "UID_KEY_NOT_DERIVED": CodeText(
        "{host}: the key of study keys cannot be derived: {why} Nothing was changed.",
        "outpost_uid_secret, where it is set, is the root secret that the region was first set up with "
        "(docs/security.md).",
        "{host}: не удаётся вычислить ключ, по которому исследования узнают в центре: {why} Ничего не изменено.",
        "outpost_uid_secret, если задан, - это корневой секрет, с которым регион был впервые настроен "
        "(docs/security.md).",
    ),
    "UID_KEY_CHANGED": CodeText(
        "{host}: the inventory gives {systems} another key of study keys than the host has: the root secret was "
        "changed. Nothing was changed on the host.",
        "Keep the key: set outpost_uid_secret to the root secret that the region was first set up with, beside "
        "outpost_root_secret (docs/security.md). If the history may part here, run once with "
        "-e inference_uid_key_may_change=true.",
        "{host}: у {systems} по инвентарю другой ключ исследований, чем на сервере: корневой секрет сменили. На "
        "сервере ничего не изменено.",
        "Сохраните ключ: рядом с outpost_root_secret задайте outpost_uid_secret - корневой секрет, с которым регион "
        "был впервые настроен (docs/security.md). Если история может здесь разделиться, запустите один раз с "
        "-e inference_uid_key_may_change=true.",
    ),
    "ROTATION_UNPREPARED": CodeText(
        "A rotation needs three lines in the vault: outpost_root_secret (the new one), outpost_root_secret_before "
        "(the old one, another than the new), and outpost_uid_secret (the root secret that the fleet was first set "
        "up with; after a first rotation that is the old one). Nothing was changed.",
        "Put them there and run this again; the head of playbooks/rotate.yml shows them.",
        "Для смены секрета в хранилище нужны три строки: outpost_root_secret (новый), outpost_root_secret_before "
        "(прежний, не равный новому) и outpost_uid_secret (корневой секрет, с которым сеть была впервые настроена; "
        "при первой смене это прежний). Ничего не изменено.",
        "Добавьте их и запустите снова; образец - в начале playbooks/rotate.yml.",
    ),
}  # fmt: skip

# While a host is being changed.
DURING: Final[Mapping[str, CodeText]] = {
    "CONFIGURATION_NOT_WRITTEN": CodeText(
        '{host}: task "{task}" failed in /etc/outpost: {why} What runs goes on as it is.',
        "Remove the cause and run this again.",
        '{host}: не удалась задача "{task}" в /etc/outpost: {why} Работающее не тронуто.',
        "Устраните причину и запустите снова.",
    ),
    "CERTIFICATE_NOT_WRITTEN": CodeText(
        "{host}: {file}, certificate and key, was not written: {why} What runs goes on as it is.",
        "Remove the cause and run this again.",
        "{host}: {file} с сертификатом и ключом не записан: {why} Работающее не тронуто.",
        "Устраните причину и запустите снова.",
    ),
    "LOGIN_NOT_CREATED": CodeText(
        "{host}: a login of PostgreSQL ({logins}, port {port}) was not created: {why}",
        "Remove the cause and run this again.",
        "{host}: учётная запись PostgreSQL ({logins}, порт {port}) не создана: {why}",
        "Устраните причину и запустите снова.",
    ),
    "REGION_NOT_ATTACHED": CodeText(
        "{host}: {regions} was not attached to the centre's database: {why} The regions are not touched by it.",
        "Remove the cause and run this again.",
        "{host}: {regions} - не удалось подключить к базе центра: {why} Сами регионы не затронуты.",
        "Устраните причину и запустите снова.",
    ),
    "REGIONS_NOT_ASKED": CodeText(
        '{host}: task "{task}" failed: {why} The logins at the regions stay as they are.',
        "Remove the cause and run this again.",
        '{host}: не удалась задача "{task}": {why} Учётные записи в регионах остались прежними.',
        "Устраните причину и запустите снова.",
    ),
    "RULES_NOT_IN_USE": CodeText(
        "{host}: a rule set does not judge {seconds} s after it was written:\n{lines}\n"
        "The rule set before it goes on judging, no study is lost.",
        "Where the service names a fault, the release of the host does not know what the rule set says: update it "
        "first, or take the new key out.",
        "{host}: через {seconds} с после записи набор правил ещё не действует:\n{lines}\n"
        "Действует прежний набор, ни одно исследование не потеряно.",
        "Если служба называет ошибку, её выпуск не знает того, что есть в наборе: сначала обновите сервер или уберите "
        "новый ключ.",
    ),
    "RELEASE_WENT_BACK": CodeText(
        "{host}: release {release} did not become ready. The host runs {before} again; no study was lost, they wait "
        "in the spool.",
        "Next: docs/runbooks/en/service-does-not-answer.md. The last lines of its log:\n{log}",
        "{host}: выпуск {release} не стал готов. Сервер снова работает на {before}; исследования не потеряны, они ждут "
        "в очереди.",
        "Дальше: docs/runbooks/ru/service-does-not-answer.md. Последние строки журнала:\n{log}",
    ),
    "CONFIGURATION_WENT_BACK": CodeText(
        "{host}: release {release} did not become ready. The configuration that was there before is back in place; no "
        "study was lost, they wait in the spool.",
        "Next: docs/runbooks/en/service-does-not-answer.md. The last lines of its log:\n{log}",
        "{host}: выпуск {release} не стал готов. Прежняя конфигурация возвращена; исследования не потеряны, они ждут в "
        "очереди.",
        "Дальше: docs/runbooks/ru/service-does-not-answer.md. Последние строки журнала:\n{log}",
    ),
    "NOTHING_TO_GO_BACK_TO": CodeText(
        "{host}: release {release} did not become ready. There is no other release to go back to; studies are kept in "
        "/var/lib/outpost and wait.",
        "Next: docs/runbooks/en/service-does-not-answer.md. The last lines of its log:\n{log}",
        "{host}: выпуск {release} не стал готов. Другого выпуска, к которому можно вернуться, нет; исследования "
        "хранятся в /var/lib/outpost и ждут.",
        "Дальше: docs/runbooks/ru/service-does-not-answer.md. Последние строки журнала:\n{log}",
    ),
    "CONFIGURATION_NOT_BACK": CodeText(
        "{host}: release {release} did not become ready, and the configuration that was there before could not be put "
        "back: {why} No study was lost, they wait in the spool.",
        "Remove the cause and run this again. Next: docs/runbooks/en/service-does-not-answer.md.",
        "{host}: выпуск {release} не стал готов, и прежнюю конфигурацию не удалось вернуть: {why} Исследования не "
        "потеряны, они ждут в очереди.",
        "Устраните причину и запустите снова. Дальше: docs/runbooks/ru/service-does-not-answer.md.",
    ),
    "HOST_NOT_READ": CodeText(
        "{host} could not be read: {why}",
        "Log in and see that /bin/sh runs and that sudo asks for nothing; then run this again.",
        "{host}: не удалось прочитать сервер: {why}",
        "Войдите на него и проверьте, что /bin/sh работает и sudo ничего не спрашивает; затем запустите снова.",
    ),
    "FILE_NOT_WRITTEN": CodeText(
        "{file} was not written: {why}",
        "Remove the cause and run this again.",
        "{file} не записан: {why}",
        "Устраните причину и запустите снова.",
    ),
}  # fmt: skip
CODES: Final[Mapping[str, CodeText]] = {**BEFORE, **DURING}

# What a playbook says beside: when it has done its work, and of a code of the driver. English, Russian.
SAYS: Final[Mapping[str, tuple[str, str]]] = {
    "HOST_FITS": (
        "{host}: {system}, {passed} checks passed",
        "{host}: {system}, пройдено проверок: {passed}",
    ),
    "COLLECTED": (
        "{host}: {file}; look through it before you send it",
        "{host}: {file}; просмотрите его перед отправкой",
    ),
    "REGIONS_LEFT": (
        "Still under the secret of before: {regions}. Run this again when they can be reached.",
        "Ещё с прежним секретом: {regions}. Запустите снова, когда с ними будет связь.",
    ),
    "NO_REGION_LEFT": (
        "No region is left. Take the secret of before out of the vault and run site.yml: then it ends.",
        "Регионов с прежним секретом не осталось. Уберите его из хранилища и запустите site.yml: тогда он перестанет "
        "действовать.",
    ),
    "GPU_WITHHELD": (
        "{host}, system {system}: {why} Nothing was changed or restarted.",
        "{host}, система {system}: {why} Ничего не изменено и не перезапущено.",
    ),
    "TOKENS_OF_SYSTEM": ("{system}: port {port} of {address}", "{system}: порт {port} на {address}"),
    "PAGE_OF_CENTRE": ("page: {url}", "страница: {url}"),
}

# Parts of what is filled in that only playbooks say: of tasks (controller/reason.py), of rule sets
# (plugins/filter/outpost_rules.py).
PARTS: Final[dict[str, str]] = {
    "the task failed without a word.": "задача кончилась ошибкой без объяснения.",
    "the shell there ended with status {}.": "оболочка там кончилась со статусом {}.",
    "PostgreSQL refused: {}.": "PostgreSQL отказал: {}.",
    "a region": "регион",
    "none": "нет",
    "nothing": "ничего",
    "{}: wanted {}, found {}": "{}: нужно {}, есть {}",
    "the host has no such system (it has {}); {}": "у сервера нет такой системы (есть: {}); {}",
    "did you mean {}?": "может быть, {}?",
    "correct dicom_filter_rules, or outpost_systems": "исправьте dicom_filter_rules или outpost_systems",
    "{} is neither a rule set nor the path of one; {} is the model's own": (
        "{} - не набор правил и не путь к нему; {} - собственный набор модели"
    ),
    "{} is no absolute path on the controller; write {}": (
        "{} - не полный путь на управляющей машине; пишите {}"
    ),
    "{} cannot be read ({}); name an existing file on the controller": (
        "{} не читается ({}); назовите существующий файл на управляющей машине"
    ),
}
_PARTS: Final = Sentences(PARTS)


def stop(code: str, language: Language, values: Mapping[str, object]) -> str:
    """The message of a run that stops. Raises KeyError where the code is unknown or a value is missing."""
    meaning, remedy = CODES[code].said(language)
    text = f"[{code}] {meaning}" + (f"{'' if meaning.endswith(chr(10)) else ' '}{remedy}" if remedy else "")
    return _filled(text, language, values)


def say(key: str, language: Language, values: Mapping[str, object]) -> str:
    """What a playbook says that has done its work. Raises KeyError as `stop` does."""
    return _filled(SAYS[key][language == "ru"], language, values)


def _filled(text: str, language: Language, values: Mapping[str, object]) -> str:
    known = {name: str(value) for name, value in values.items()}
    if language == "ru":
        known = {
            name: "\n".join(map(_line, value.splitlines())) if name != "log" else value
            for name, value in known.items()
        }
    # The text is ours; what is filled in may hold braces, and stays as it is.
    return re.sub(r"\{(\w+)\}", lambda place: known[place[1]], text)


def _line(line: str) -> str:
    """One line of what is filled in, in Russian: the longest end of it that is known."""
    at = 0
    while True:
        rest = line[at:]
        told = _PARTS.russian(rest, _part) or answers.faults(rest, "ru")
        # More than the word before the value found: the reason itself.
        if told.partition(" (найдено ")[0] != rest.partition(" (found ")[0]:
            return re.sub(r"\bline (\d+): ", r"строка \1: ", line[:at] + told)
        following = line.find(": ", at)
        if following < 0:
            return found.russian(line)
        at = following + 2


def _part(value: str) -> str:
    return _PARTS.russian(value, _part) or found.russian(value)


_HEAD: Final[dict[Language, str]] = {
    "en": """# Codes of a run

Made by `python -m outpost.codes.run en > docs/run-codes.md`; a test holds it to the tables in
`service/outpost/codes/run.py`. A code keeps its meaning for good. [По-русски](run-codes.ru.md).

Why `site.yml`, or another playbook, stopped: the code is in brackets before the message, whose language
`outpost_language` sets. What preflight says is in [preflight.md](preflight.md), of the driver in
[driver-codes.md](driver-codes.md), of the inventory's files in [inventory-codes.md](inventory-codes.md). `…` is what
the message fills in.
""",
    "ru": """# Коды запуска

Создано командой `python -m outpost.codes.run ru > docs/run-codes.ru.md`; тест сверяет страницу с таблицами в
`service/outpost/codes/run.py`. Код сохраняет свой смысл навсегда. [In English](run-codes.md).

Почему остановился `site.yml` или другой плейбук: код стоит в скобках перед сообщением, а язык сообщения задаёт
`outpost_language`. Коды проверки сервера - в [preflight.ru.md](preflight.ru.md), драйвера - в
[driver-codes.ru.md](driver-codes.ru.md), файлов инвентаря - в [inventory-codes.ru.md](inventory-codes.ru.md).
`…` - то, что подставляет сообщение.
""",
}
_GROUPS: Final = (
    (
        BEFORE,
        ("Before a host is changed", "code", "why", "what to do"),
        ("До изменений на сервере", "код", "почему", "что делать"),
    ),
    (
        DURING,
        ("While hosts are being changed", "code", "why", "what to do"),
        ("Во время изменений", "код", "почему", "что делать"),
    ),
)
_EACH: Final[dict[Language, str]] = {
    "en": "Each line says it, with a code of its own.",
    "ru": "Сказано в каждой строке, с её собственным кодом.",
}


def page(language: Language) -> str:
    """All codes as a page of documentation."""
    text = _HEAD[language]
    for codes, english, russian in _GROUPS:
        title, *columns = russian if language == "ru" else english
        text += f"\n## {title}\n\n| {' | '.join(columns)} |\n|---|---|---|\n"
        for code, known in codes.items():
            meaning, remedy = (_cell(one) for one in known.said(language))
            text += f"| `{code}` | {meaning} | {remedy or _EACH[language]} |\n"
    return text


def _cell(text: str) -> str:
    shown = " ".join(re.sub(r"\{\w+\}", "…", text).split())
    return re.sub(r"docs/(runbooks/\w\w/([a-z-]+)\.md)", r"[\2](\1)", shown)


def main(arguments: Sequence[str]) -> int:
    """`python -m outpost.codes.run en|ru`."""
    if len(arguments) != 1 or arguments[0] not in LANGUAGES:
        sys.stderr.write("usage: python -m outpost.codes.run en|ru\n")
        return Exit.USAGE
    sys.stdout.write(page("ru" if arguments[0] == "ru" else "en"))
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
