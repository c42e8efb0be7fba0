"""What a check found and what is wanted, in Russian: the values beside a code on pages and in `outpost status`.

The code says them in English, where it looks. Here is the same in Russian, found by the text itself, as in
`outpost.codes.answers`: `{}` stands for what is filled in. A test reads the texts out of the code and asks that each
is here. Units need no entry of their own. Standard library only.
"""

from __future__ import annotations

import functools
import re
from typing import Final, TypeVar

from outpost.codes import answers
from outpost.codes.details import DETAILS, LOOKS
from outpost.codes.matching import Sentences
from outpost.options import Language

_Value = TypeVar("_Value", str, float, "str | float | None")

# Longer ones have something of a stranger's in them: a library's or a database's text.
_LONGEST: Final = 1500
# "head: text", one in another: more are no text of ours, and each is looked up.
_MOST_HEADS: Final = 40

FOUND: Final[dict[str, str]] = {
    # The running service (health/verdict.py).
    "not computed yet": "ещё не посчитан",
    "a right answer": "верный ответ",
    "largest difference <= {}": "наибольшее отклонение <= {}",
    "the service is ending": "служба завершает работу",
    "computes": "считает",
    "all run": "все работают",
    "{}: {} for {}": "{}: {}, причина {}",
    "none refused": "отказов нет",
    "as on disk": "как на диске",
    "{} (and {} more)": "{} (и ещё {})",
    "runs": "работает",
    "none": "нет",
    "not known yet": "пока неизвестно",
    "<= {} times the fastest": "не больше {} самых быстрых времён",
    "a study for {} s": "исследование, уже {} с",
    "the golden case for {} s": "эталон, уже {} с",
    "idle": "сейчас не считает",
    "port {}": "порт {}",
    "listening": "принимает соединения",
    "ended": "закончился",
    "shipped": "переданы",
    "failing for <= {} s": "сбой не дольше {} с",
    "worker {}: {}": "процесс {}: {}",
    ">= {} MiB, at most {} % used": ">= {} МиБ, занято не больше {} %",
    "{} MiB, {} % used": "{} МиБ, занято {} %",
    # The host (health/host.py).
    "writable": "можно писать",
    ">= {} ({})": ">= {} ({})",
    "the journal's newest row": "последняя запись журнала",
    "this release": "дата выпуска",
    ">= {} MiB ({} workers of {} MiB, {} MiB for the service)": (
        ">= {} МиБ (процессов {} по {} МиБ и {} МиБ самой службе)"
    ),
    "no limit known": "ограничения нет",
    "given": "отдана контейнеру",
    "none to give, or none asked for": "карты нет, или она не запрошена",
    "what the host has": "всё, что есть на сервере",
    "{} files": "файлов: {}",
    "none configured": "не заданы",
    "readable": "читаются",
    "expired {}": "истёк {}",
    "valid from {}": "действует только с {}",
    "valid now": "действует сейчас",
    "later than in {} days": "позже чем через {} дн.",
    "answers C-ECHO": "отвечает на C-ECHO",
    "answers": "отвечает",
    "free, or ours": "свободны или наши",
    "{}: taken, and not by this service": "{}: занят, и не этой службой",
    "{} and {}: taken, and not by this service": "{} и {}: заняты, и не этой службой",
    "free": "свободны",
    "this service runs: {}": "работает эта служба: {}",
    "it asks for a token": "просит токен",
    "none yet": "ещё нет",
    # Why a container got no GPU (roles/inference/files/outpost-run).
    "the kernel has no NVIDIA driver loaded ({} is not there)": "в ядре нет драйвера NVIDIA (нет {})",
    "no specification of nvidia.com/gpu lies in {}": "описания nvidia.com/gpu нет в {}",
    "no specification of nvidia.com/gpu lies in {} or {}": "описания nvidia.com/gpu нет ни в {}, ни в {}",
    "{} names no device nvidia.com/gpu={}": "{} не называет устройства nvidia.com/gpu={}",
    "{} all define nvidia.com/gpu={}: Docker then takes none": (
        "{}: все определяют nvidia.com/gpu={}, Docker тогда не берёт ни одного"
    ),
    "{} is stale: it names driver {}, the kernel holds {}": "{} устарел: назван драйвер {}, а в ядре {}",
    "{} lacks /dev/nvidia-uvm, which CUDA needs: it was made before that module was loaded": (
        "в {} нет /dev/nvidia-uvm, без которого CUDA не работает: файл сделан до загрузки этого модуля"
    ),
    "nvidia-smi in a container gave no answer in {} s": "nvidia-smi в контейнере не ответил за {} с",
    "nothing": "ничего",
    "nvidia-smi in a container says: {} (exit code {})": "nvidia-smi в контейнере: {} (код {})",
    "torch {} of this release computes on no GPU": "torch {} этого выпуска на видеокарте не считает",
    "outpost-run: {} is not started: its device {} cannot be given, {}. Run site.yml for this host, or by hand "
    "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; docs/runbooks/en/gpu-not-in-the-container.md": (
        "{} не запускается: нельзя дать устройство {}, {}. Запустите site.yml для этого сервера или вручную "
        "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; docs/runbooks/ru/gpu-not-in-the-container.md."
    ),
    # The journal and other files of the service (heal/).
    "in use": "в работе",
    "rebuilt {} UTC, the old one is in {}": "перестроен {} UTC, прежний в {}",
    "whole": "цел",
    "not rebuilt for 24 h": "24 ч не перестраивался",
    "{} was {} while the service ran": "{} {} при работающей службе",
    "removed": "удалён",
    "replaced": "подменён",
    "{} cannot be read: {}": "{} не читается: {}",
    "{} became shorter while the service ran": "{} укорочен при работающей службе",
    "overwritten": "перезаписан",
    "put aside as {}": "отложен как {}",
    "it could not be put aside": "отложить его не удалось",
    "it is no whole result": "это не целый результат",
    "its study is computed again": "исследование будет посчитано заново",
    "the reference engine computes until the engines are measured again": (
        "до нового измерения движков считает эталонный движок"
    ),
    "the next window raises alarms again": "следующее окно снова поднимет тревоги",
    "drift goes on without it": "дрейф считается дальше без него",
    "it is no folder": "это не каталог",
    "an empty folder has its place": "на его месте пустой каталог",
    "it cannot be used ({})": "им нельзя пользоваться ({})",
    "drift is not watched": "дрейф не отслеживается",
    "it is no file": "это не файл",
    "an empty file has its place": "на его месте пустой файл",
    "it is not the rule set that it is named by": "это не тот набор правил, чьё имя он носит",
    "it is written again": "он записан заново",
    "its study goes on without it": "исследование продолжается без него",
    "it cannot be read": "он не читается",
    "the journal is being rebuilt since {}: {}": "журнал перестраивается, причина {}: {}",
    "the journal is damaged ({}) and was rebuilt {} times within an hour: the disk or the memory of this host is "
    "failing: replace it; trying again by itself": (
        "журнал повреждён ({}), за час его перестроили уже {} раз: отказывает диск или память сервера, замените их; "
        "попытки продолжаются сами"
    ),
    # The self-test.
    "measured here": "измерен здесь",
    "not measured here yet": "здесь ещё не измерен",
    # A process that computes, of itself (inference/asserts.py, decode.py).
    "could be looked at": "проверку удалось провести",
    "compiled for this GPU": "собран для этой карты",
    "not applicable: the device is the CPU": "неприменимо: считает процессор",
    "{}, compiled for {}": "{}, собран для {}",
    "{} in {} is off by {} roundings": "{} в {} отклоняется на {} округлений",
    "product": "произведение",
    "convolution": "свёртка",
    "off by {} roundings at most": "отклонение не больше {} округлений",
    "<= {} roundings": "<= {} округлений",
    "none named by the bundle": "пакет модели ничего не называет",
    "as module_asserts says": "как в module_asserts",
    "not applicable: {} has no modules": "неприменимо: у {} нет модулей",
    "{} is not there, or was not called": "{} нет, или он не вызывался",
    "{} is not finite": "{}: не конечные числа",
    "{} has shape {}, not {}": "{}: форма {}, а не {}",
    "{} has mean {}, not {} +- {}": "{}: среднее {}, а не {} +- {}",
    "{} modules": "модулей: {}",
    "sha256 as released": "sha256 как в выпуске",
    "not told": "не сообщается",
    "{}; parameters in {}": "{}; параметры в {}",
    "parameters in {}": "параметры в {}",
    "{} on {}": "{} на {}",
    "{} is not loaded": "{} не загружен",
    "loaded": "загружен",
    "{}, as installed": "{}, как установлен",
    "{} transfer syntaxes": "проверено transfer syntax: {}",
    "each image comes out right": "каждый снимок раскодирован верно",
    "{}: shape {}": "{}: форма {}",
    "{} after {} failed": "{} (не справился: {})",
    "off by at most {}": "отклонение не больше {}",
    "peak {} MiB": "пик {} МиБ",
    "limit and available >= {} MiB": "предел и доступно >= {} МиБ",
    "limit {} MiB": "предел {} МиБ",
    "available {} MiB": "доступно {} МиБ",
    "peak {} MiB, limit {} MiB, available {} MiB": "пик {} МиБ, предел {} МиБ, доступно {} МиБ",
    "peak <= {} MiB, limit and available >= {} MiB": "пик <= {} МиБ, предел и доступно >= {} МиБ",
    "{} busy, torch has {}": "занято {}, у torch {}",
    # The centre's collector (fleet/app.py).
    "<= {} s since the last turn": "с прошлого круга прошло <= {} с",
    "no region long past its deadline": "ни один регион не просрочен надолго",
}
_SENTENCES: Final = Sentences({**DETAILS, **FOUND})
_WITH_LOOKS: Final = Sentences({**DETAILS, **FOUND, **LOOKS})
_UNITS: Final = {
    "MiB": "МиБ", "GiB": "ГиБ", "ms": "мс", "s": "с", "min": "мин", "h": "ч", "d": "сут", "days": "сут",
    "bytes": "байт",
}  # fmt: skip
# What a rule of the filter saw: "ImageType is LOCALIZER".
_LOOK: Final = re.compile(r"(\S+(?: value \d+)?) is (.{1,120})")
_WORD: Final = re.compile(r"[A-Za-z]{3}")
# A peer as messages name it: "PACS at 10.0.0.5:104".
_PEER: Final = re.compile(r"(\S) at ([\w.\[\]:-]+:\d+)\b")
_WITH_UNIT: Final = re.compile(rf"(?<![\w.])(\d+(?:\.\d+)?) ({'|'.join(_UNITS)})\b")


def shown(value: object, language: Language) -> str:
    """What a check found, or wants, for a person to read: `-` where nothing is known."""
    return "-" if value is None else str(value) if language == "en" else russian(str(value))


def in_russian(value: _Value) -> _Value:
    """The same value for readers of Russian: a text translated, a number as it is."""
    return russian(value) if isinstance(value, str) else value


def detail(text: str, language: Language) -> str:
    """What stands beside the reason of a study or an image, for a person to read."""
    return text if language == "en" else detail_ru(text)


@functools.lru_cache(maxsize=1024)
def detail_ru(text: str) -> str:
    """The same in Russian."""
    return _PEER.sub(r"\1 (\2)", _told(text, _WITH_LOOKS) or text)


@functools.lru_cache(maxsize=1024)
def russian(text: str) -> str:
    """A text in Russian; names, codes and what is not ours stay as they are."""
    return _PEER.sub(r"\1 (\2)", _told(text, _SENTENCES) or text)


@functools.lru_cache(maxsize=4096)  # parts of a long text are asked for again and again
def _told(text: str, known: Sentences, *, whole: bool = False) -> str | None:
    """None where nothing in the text is known; with `whole`, where a part of it is not."""
    if len(text) > _LONGEST or text.count(": ") > _MOST_HEADS:
        return None
    if exact := known.exact(text):
        return exact
    lists = [(mark, text.split(mark)) for mark in ("; ", ", ") if mark in text]
    told = [[_told(part, known, whole=True) for part in parts] for _, parts in lists]
    # A list, each of whose parts is known, before a sentence that would take several of them for one value.
    for (mark, _), those in zip(lists, told, strict=True):
        if all(those):
            return mark.join(map(str, those))
    if sentence := known.russian(text, lambda value: _told(value, known) or value) or answers.russian(text):
        return sentence
    for mark, parts in () if whole else lists:
        if any(those := [_told(part, known) for part in parts]):
            return mark.join(one or part for one, part in zip(those, parts, strict=True))
    head, mark, rest = text.partition(": ")
    # "wanted: ..." is the second half of what a rule saw, and no name before a text.
    if mark and head != "wanted" and "; " not in head and (told_rest := _told(rest, known, whole=whole)):
        return f"{_told(head, known) or head}: {told_rest}"
    if known is _WITH_LOOKS and (look := _LOOK.fullmatch(text)):
        return f"{look[1]}: {_told(look[2], known) or look[2]}"
    with_units = _WITH_UNIT.sub(lambda found: f"{found[1]} {_UNITS[found[2]]}", text)
    # Units alone make no sentence known: there are words beside them.
    return None if with_units == text or (whole and _WORD.search(with_units)) else with_units
