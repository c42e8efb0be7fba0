"""What commands answer in Russian: lines of `outpost filter|optimise|bundle|send|fleet|drift|quarantine`.

A command says its line in English through `spoken`, which finds the Russian here by the sentence itself, as
`outpost.codes.answers` does for what cannot be done. A test reads the sentences out of the code and asks that each is
here. Standard library only.
"""

from __future__ import annotations

import functools
from typing import Final

from outpost.codes import found
from outpost.codes.matching import Sentences
from outpost.options import Language

SPOKEN: Final[dict[str, str]] = {
    # outpost filter explain (filter/explain.py).
    "not judged:": "не рассмотрены:",
    "study {}: {}; {} of {} instances left; rules {}": "исследование {}: {}; осталось снимков {} из {}; правила {}",
    "study {}: {}; {} of {} instances left ({}); rules {}": (
        "исследование {}: {}; осталось снимков {} из {} ({}); правила {}"
    ),
    "accepted": "принято",
    "REJECTED": "ОТКЛОНЕНО",
    "accepted, the pixels decide": "принято, решат пиксели",
    "  {} ({}): {}": "  {} ({}): {}",
    "  {} ({}, {} instances): {}": "  {} ({}, снимков {}): {}",
    "{}  <- decided": "{}  <- решило",
    "      {}: found {}, wanted {}: {}": "      {}: {}; нужно: {} - {}",
    "  {} is none of: {}": "  {} - ничто из: {}",
    "met": "выполнено",
    "missing, accepted": "значения нет, принято",
    "missing, left to pixels": "значения нет, решат пиксели",
    "left to pixels": "решат пиксели",
    "missing, excluded": "значения нет, исключено",
    "excluded": "исключено",
    "missing, accepted {}": "значения нет, принято {}",
    "missing, left to pixels {}": "значения нет, решат пиксели {}",
    "left to pixels {}": "решат пиксели {}",
    "missing, excluded {}": "значения нет, исключено {}",
    "excluded {}": "исключено {}",
    "holds": "верно",
    "does not hold": "неверно",
    # outpost filter pixels|check.
    "accept": "принять",
    "reject": "отклонить",
    "hold": "придержать",
    "mark": "отметить",
    "  {}": "  {}",
    "{}: ok, {} rules, sha256 {}": "{}: в порядке, правил {}, sha256 {}",
    # outpost optimise (inference/optimise.py).
    "engine": "движок",
    "precision": "точность",
    "s/case": "с/случай",
    "x reference": "к эталонному",
    "answer": "ответ",
    "verdict": "заключение",
    "MiB": "МиБ",
    "chosen": "выбран",
    "within tolerance": "в пределах допуска",
    "outside tolerance": "вне допуска",
    "needs too much memory": "нужно слишком много памяти",
    "failed": "не удалось",
    "skipped": "пропущен",
    "outside tolerance: {}": "вне допуска: {}",
    "needs too much memory: {}": "нужно слишком много памяти: {}",
    "failed: {}": "не удалось: {}",
    "skipped: {}": "пропущен: {}",
    "size {}, batch {}: {} {}, {} wanted": "размер {}, пачка {}: {} {}, нужно {}",
    "{} MiB, the bundle declares {} (resources.memory_mib)": "{} МиБ, в пакете объявлено {} (resources.memory_mib)",
    "ended by {}": "закончился: {}",
    "no engine that may be used gives the golden answer: nothing was kept": (
        "ни один допустимый движок не даёт эталонного ответа: ничего не сохранено"
    ),
    "chosen: {} in {}; evidence: {}": "выбран: {} в {}; обоснование: {}",
    # outpost bundle check (inference/check.py): what was looked at, what was found, what to do.
    "weights {}": "веса {}",
    "selection rules": "правила выбора",
    "resources": "ресурсы",
    "engines": "движки",
    "networks load": "сети загружаются",
    "network shapes": "формы сетей",
    "golden case at {}": "эталон в размере {}",
    "Correct the file; MONAI's bundle specification tells its keys.": (
        "Исправьте файл; его ключи описаны в спецификации пакетов MONAI."
    ),
    "Correct the file; it must be JSON with an `inferer`.": "Исправьте файл: это JSON, в котором есть `inferer`.",
    "Correct the keys named.": "Исправьте названные ключи.",
    "Correct the lines named (docs/filter-rules.md).": "Исправьте названные строки (docs/filter-rules.md).",
    "Put the released file there, or correct `weights`.": "Положите туда файл из выпуска или исправьте `weights`.",
    "Correct `input`.": "Исправьте `input`.",
    "Correct `resources`.": "Исправьте `resources`.",
    "Correct `engines`.": "Исправьте `engines`.",
    "{} network(s) in {}, {}": "сетей {} в {}, {}",
    "Correct configs/inference.json, or the weights' `format` and `example`.": (
        "Исправьте configs/inference.json или `format` и `example` у весов."
    ),
    "Correct network_data_format in metadata.json, or the sizes.": (
        "Исправьте network_data_format в metadata.json или размеры."
    ),
    "If the model is as intended: python -m outpost.inference.golden BUNDLE, or set the tolerance measured.": (
        "Если модель такая, как задумано: python -m outpost.inference.golden BUNDLE, или задайте измеренный допуск."
    ),
    "lacks {}": "нет {}",
    "lacks inferer": "нет inferer",
    "Add the keys; see MONAI's bundle specification.": "Добавьте ключи; см. спецификацию пакетов MONAI.",
    "network_data_format.{}.{} lacks {}": "в network_data_format.{}.{} нет {}",
    "Add the keys: what goes in and comes out is checked by them.": (
        "Добавьте ключи: по ним проверяется, что входит и выходит."
    ),
    "Add what computes a case: a `_target_` and its arguments.": (
        "Добавьте то, что считает случай: `_target_` и его аргументы."
    ),
    "is not there": "отсутствует",
    "Add {}: a bundle has it.": "Добавьте {}: в пакете он обязателен.",
    "is not JSON: {}": "не JSON: {}",
    "Correct the line named.": "Исправьте названную строку.",
    "holds a {}, an object wanted": "внутри {}, а нужен объект",
    "Put `{...}` around it.": "Заключите в `{...}`.",
    "Add {}; docs/ and the bundles of Outpost show one.": "Добавьте {}; образец есть в docs/ и в пакетах Outpost.",
    "{}, {} MiB, digest as released": "{}, {} МиБ, сумма как в выпуске",
    "none: what is known by name is left out": "нет: отсеивается то, что известно по имени",
    "{} rules": "правил: {}",
    "none for this task": "для этой задачи не нужны",
    "input.sop_class_uids: {} is not a UID": "input.sop_class_uids: {} - не UID",
    "Copy the UID from PS3.4 B.5.": "Скопируйте UID из PS3.4 B.5.",
    "input.sop_class_uids: {} is {}, not an image": "input.sop_class_uids: {} - это {}, а не снимок",
    "Give the SOP classes of the images that the model reads (PS3.4 B.5).": (
        "Назовите SOP class снимков, которые читает модель (PS3.4 B.5)."
    ),
    "{} SOP class(es)": "SOP class: {}, все верны",
    "memory_mib is {}, the weights alone are {} MiB": "memory_mib - {}, а одни веса занимают {} МиБ",
    "Declare what a worker process needs; `outpost optimise` measures it.": (
        "Объявите, сколько нужно процессу; это измеряет `outpost optimise`."
    ),
    "memory_mib is {}, this host has {}": "memory_mib - {}, а на этом сервере {}",
    "Correct it, or take a larger host.": "Исправьте или возьмите сервер больше.",
    "{} MiB a worker": "{} МиБ на процесс",
    "Take {}/{} out of `engines`.": "Уберите {}/{} из `engines`.",
    "reference {}: {}": "эталонный {}: {}",
    "Take an engine as reference that every host has.": "Возьмите эталонным движок, который есть на любом сервере.",
    "an engine is listed twice": "движок назван дважды",
    "List each engine and precision once.": "Назовите каждый движок с точностью один раз.",
    "{} took {}": "{} получила {}",
    "{} gave {}": "{} дала {}",
    "no network was called": "ни одна сеть не вызвана",
    "{}; metadata.json declares {}": "{}; в metadata.json объявлено {}",
    "Correct num_channels and spatial_shape of the inputs, or the sizes.": (
        "Исправьте num_channels и spatial_shape входов или размеры."
    ),
    "Correct num_channels and spatial_shape of the outputs.": "Исправьте num_channels и spatial_shape выходов.",
    "{} {}, {} wanted, {} s": "{} {}, нужно {}, {} с",
    "If the model is as intended: python -m outpost.inference.golden BUNDLE writes the answer anew, or set the size's "
    "tolerance to what it really reaches.": (
        "Если модель такая, как задумано: python -m outpost.inference.golden BUNDLE запишет ответ заново, или задайте "
        "размеру допуск, которого он действительно достигает."
    ),
    # outpost send (delivery/send.py).
    "{} of {} files confirmed, {} MB in {} s": "подтверждено файлов {} из {}, {} МБ за {} с",
    "{} of them {}": "из них {}: {}",
    "with the remark {}": "с замечанием {}",
    "in {}, as the peer does not take their own encoding": "в {}, так как получатель не берёт их собственной кодировки",
    # outpost fleet sync (fleet/cli.py).
    "{}: {} rows, {} s, {}": "{}: строк {}, {} с, {}",
    "up to date": "всё получено",
    "{} of {} regions read": "прочитано регионов: {} из {}",
    # outpost drift (drift/cli.py).
    "frozen: {} observations of {} senders; judged from the next hour on": (
        "зафиксировано: наблюдений {} от отправителей {}; сравнение начнётся со следующего часа"
    ),
    "{}: {} to {}, {} days of systems, {} observations": "{}: с {} по {}, системо-дней {}, наблюдений {}",
    "{}: nothing, {} days of systems, {} observations": "{}: пусто, системо-дней {}, наблюдений {}",
    "{} begins: {}": "{} началось: {}",
    "{} ends: {}": "{} кончилось: {}",
    "{} windows, {} alarms, {} of them open": "окон {}, тревог {}, из них открыто {}",
    # outpost quarantine (quarantine/cli.py).
    "{}: {} held, {} of {} MiB; {} left for the quota. {}": (
        "{}: хранится {}, {} из {} МиБ; вытеснено по квоте {}. {}"
    ),
    "ITEM": "ОБЪЕКТ",
    "ENDED (UTC)": "ЗАВЕРШЁН (UTC)",
    "FROM": "ОТ",
    "MODALITY": "МОДАЛЬНОСТЬ",
    "IMAGES": "СНИМКОВ",
    "MIB": "МИБ",
    "OUTCOME": "ИСХОД",
    "REASON": "ПРИЧИНА",
    "{} (gone)": "{} (уже нет)",
    "more: --after {}": "дальше: --after {}",
    "ended": "завершён",
    "from": "от",
    "study": "исследование",
    "images": "снимки",
    "left": "вытеснен",
    "header": "заголовок",
    "{} revision {}": "{} ревизия {}",
    "{} here of {}, {} MiB": "здесь {} из {}, {} МиБ",
    "{}: waits as {}, revision {}": "{}: ждёт как {}, ревизия {}",
    # outpost token.
    "token (shown once, kept nowhere): {}": "токен (показан один раз, нигде не хранится): {}",
    "under api.tokens in the configuration:": "в api.tokens конфигурации:",
}
_SENTENCES: Final = Sentences(SPOKEN)


def spoken(line: str, language: Language) -> str:
    """A line of a command's answer, for its reader."""
    return line if language == "en" else _russian(line)


@functools.lru_cache(maxsize=1024)
def _russian(line: str) -> str:
    return _SENTENCES.russian(line, _part) or found.detail_ru(line)


def _part(value: str) -> str:
    return SPOKEN.get(value) or _SENTENCES.russian(value, _part) or found.detail_ru(value)
