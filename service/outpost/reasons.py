"""Why a study, or a single image, ended without a result: the codes the pipeline gives itself, and where any code
is explained, in English and Russian.

What inference says of a study or of itself is in `outpost.inference.codes`, what the filter says of a study's headers
and pixels in `outpost.filter.codes` and `outpost.filter.pixel_codes`, what intake answers a sender in
`outpost.intake.refusal`. Codes are an interface (journal, Postgres, metrics, verdicts): never renamed or reused.

`python -m outpost.reasons en|ru` prints all of them as docs/reason-codes.md and docs/reason-codes.ru.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from outpost.codes import causes, doors
from outpost.filter.codes import FILTER_REASONS, SITE_PREFIX, SITE_REASON
from outpost.filter.pixel_codes import PIXEL_REASONS
from outpost.inference.codes import REASONS, Code, Reason
from outpost.intake.refusal import Refusal

Language = Literal["en", "ru"]


class PipelineCode(StrEnum):
    """Reasons that lie neither in the model nor in the images; `_REASONS` explains each."""

    STUDY_EMPTY = "STUDY_EMPTY"
    INSTANCES_REMOVED = "INSTANCES_REMOVED"
    SERVICE_DIED = "SERVICE_DIED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    JOURNAL_LOST_IT = "JOURNAL_LOST_IT"


_PIPELINE: Final[dict[str, Reason]] = {
    PipelineCode.STUDY_EMPTY: Reason(
        "The study has no instances.",
        "Report it with the log: a study begins with its first instance.",
        "В исследовании нет ни одного объекта.",
        "Сообщите инженеру вместе с журналом: исследование начинается с первого объекта.",
    ),
    PipelineCode.INSTANCES_REMOVED: Reason(
        "An image came after the study's files had been removed (some time after delivery, or by quarantine's quota).",
        "Send the whole study again: it is then processed as a new revision.",
        "Снимок пришёл, когда файлы исследования уже удалены (спустя время после доставки или по квоте карантина).",
        "Отправьте исследование целиком ещё раз: оно будет обработано как новая ревизия.",
    ),
    PipelineCode.SERVICE_DIED: Reason(
        "The whole service, or the host, went down several times while it computed this study.",
        "Look for the kernel's OOM killer and for power failures at those times; then submit the study again.",
        "Пока считалось это исследование, служба или весь сервер несколько раз падали.",
        "Ищите за это время OOM killer ядра и сбои питания; затем подайте исследование повторно.",
    ),
    PipelineCode.INTERNAL_ERROR: Reason(
        "A fault in the service itself kept this study from being computed.",
        "Report it with the log around the time; the study's files are in quarantine.",
        "Исследование не посчитано из-за ошибки в самой службе.",
        "Сообщите инженеру вместе с журналом за это время; файлы исследования в карантине.",
    ),
    PipelineCode.JOURNAL_LOST_IT: Reason(
        "The journal was damaged, and nothing on the host says any more what became of this study.",
        "Look in the archive for its result; where there is none, send the whole study again.",
        "Журнал базы данных был повреждён, и на сервере больше ничто не говорит, чем кончилось это исследование.",
        "Посмотрите в архиве, есть ли его результат; если нет, отправьте исследование целиком ещё раз.",
    ),
}

_REFUSED: Final[dict[str, Reason]] = {
    Refusal.NOT_DICOM.name: Reason(
        "The bytes that came cannot be read as DICOM.",
        "Send the image again; if it stays, export it from the archive: it is damaged there or on the way.",
        "Пришедшие байты не читаются как DICOM.",
        "Отправьте снимок ещё раз; если не помогло, выгрузите его из архива: он повреждён там или в пути.",
    ),
    Refusal.TOO_COMPLEX.name: Reason(
        "The object has more elements, items of sequences, levels, fragments or bytes in front of its pixels than any "
        "image has; opening it would cost the service its memory. The event names the sender and the bound.",
        "Look at what the sender makes (a broken export, a converter in a loop); nothing of it is computed. A sender "
        "that repeats it is answered ever more slowly until it stops.",
        "В объекте больше элементов, вложенных записей, уровней, фрагментов или байтов перед пикселями, чем бывает в "
        "снимках; его разбор отнял бы у службы память. Отправитель и превышенный предел названы в событии.",
        "Посмотрите, что выдаёт отправитель (сломанная выгрузка, зациклившийся конвертер); такой объект не считается. "
        "Отправителю, который его повторяет, служба отвечает всё медленнее, пока он не перестанет.",
    ),
    Refusal.UID_MISSING.name: Reason(
        "The image lacks the UID of its study, series or class, or its own.",
        "Have the sender fill the UIDs; an image without them belongs to no study.",
        "В снимке нет UID исследования, серии, класса или самого снимка.",
        "Настройте отправителя заполнять UID: снимок без них не относится ни к какому исследованию.",
    ),
    Refusal.UID_UNSAFE.name: Reason(
        "A UID of the image is not digits and dots of at most 64 (PS3.5 9.1).",
        "Have the sender correct how it makes UIDs.",
        "UID снимка - не цифры и точки общей длиной до 64 (PS3.5 9.1).",
        "Исправьте у отправителя формирование UID.",
    ),
    Refusal.UID_MISMATCH.name: Reason(
        "The sender announced another instance UID than the image itself bears.",
        "Have the sender, or the gateway between, correct its C-STORE command: one of the two changed the UID alone.",
        "Отправитель объявил не тот UID, который записан в самом снимке.",
        "Исправьте отправителя или шлюз: один из них изменил UID только в одном месте.",
    ),
    Refusal.CONTENT_CONFLICT.name: Reason(
        "An image of this UID is held already, with other content; the first one stays.",
        "Have the sender give a changed image a new UID, a lossy copy too (PS3.3 C.7.6.1.1.5); compare both if it is "
        "not clear which is right.",
        "Снимок с этим UID уже принят, но с другим содержимым; остаётся первый.",
        "Изменённый снимок, в том числе сжатый с потерями, должен получать новый UID (PS3.3 C.7.6.1.1.5); если неясно, "
        "какой верен, сравните оба.",
    ),
    Refusal.OTHER_STUDY.name: Reason(
        "By STOW-RS to the address of one study came an image of another.",
        "Have the web client send each study to its own address, or to /studies.",
        "По STOW-RS на адрес одного исследования пришёл снимок другого.",
        "Настройте веб-клиент: каждое исследование - на свой адрес или на /studies.",
    ),
    Refusal.OUT_OF_SPACE.name: Reason(
        "The disk has come to its reserve: nothing was taken, the sender was asked to repeat later.",
        "Free space on the file system of storage.root; the sender repeats by itself.",
        "На диске остался только резерв: ничего не принято, отправителя попросили повторить позже.",
        "Освободите место в файловой системе storage.root; отправитель повторит сам.",
    ),
    Refusal.TOO_MANY_STUDIES.name: Reason(
        "So many studies of this sender wait to be computed (intake.max_waiting_studies) that no other is opened for "
        "now; studies that are open go on, and nothing that was taken is dropped. The event names the sender.",
        "See `outpost top` whether the queue moves. A sender of junk: stop it at the sender. A lawful load: raise "
        "inference_intake.max_waiting_studies; senders repeat by themselves.",
        "От этого отправителя счёта ждёт столько исследований (intake.max_waiting_studies), что новые пока не "
        "открываются; начатые продолжаются, из принятого ничего не пропадает. Отправитель назван в событии.",
        "Посмотрите в `outpost top`, движется ли очередь. Поток мусора остановите у отправителя; если нагрузка "
        "законна, увеличьте inference_intake.max_waiting_studies. Отправители повторят сами.",
    ),
    Refusal.OUT_OF_SERVICE.name: Reason(
        "The system is being taken out of service (playbooks/remove.yml): no other study is opened; those that are "
        "open are computed and delivered.",
        "Have the sender send to another system. If it is to stay: run site.yml with the system in the inventory.",
        "Система выводится из работы (playbooks/remove.yml): новые исследования не открываются; начатые считаются и "
        "доставляются.",
        "Пусть отправитель шлёт в другую систему. Если эта должна остаться: запустите site.yml с ней в инвентаре.",
    ),
    Refusal.TOO_MANY_INSTANCES.name: Reason(
        "The study has as many instances as one may have (intake.max_instances_per_study): this one was not taken.",
        "Look at what the sender sends under one Study Instance UID; if such studies are lawful here, raise "
        "inference_intake.max_instances_per_study and have it sent again.",
        "В исследовании уже столько объектов, сколько допускается (intake.max_instances_per_study): этот не принят.",
        "Посмотрите, что отправитель шлёт под одним Study Instance UID; если такие исследования законны, увеличьте "
        "inference_intake.max_instances_per_study и отправьте ещё раз.",
    ),
    Refusal.INTERNAL.name: Reason(
        "The image could not be stored for a fault of the service's own.",
        "Read the log around the time and report it; then submit the file again.",
        "Снимок не сохранён из-за ошибки в самой службе.",
        "Прочитайте журнал за это время и сообщите инженеру; затем подайте файл повторно.",
    ),
}

AT_THE_DOORS: Final = {code: Reason(*texts) for code, texts in doors.AT_THE_DOORS.items()}
CAUSES: Final = {code: Reason(*texts) for code, texts in causes.CAUSES.items()}
# Of no image or study: these end up in no quarantine, and are no reason of a quota or a rule.
_DOORS: Final = (
    "What was turned away at the door: connections, associations, contexts, requests; event SENDER_REFUSED, the log, "
    "metric `outpost_refused_total`",
    "Что не пущено на порог: соединения, ассоциации, контексты, запросы; событие SENDER_REFUSED, журнал, метрика "
    "`outpost_refused_total`",
)
_DESTINATIONS: Final = (
    "What keeps a result from its destination: event DELIVERY_REFUSED, `/studies`, the log, metrics of deliveries",
    "Что не даёт результату дойти до получателя: событие DELIVERY_REFUSED, `/studies`, журнал, метрики доставки",
)
# The groups of `Code`: what lies in the study, what in computing it, what in the host.
_OF_THE_STUDY: Final = list(Code)[: list(Code).index(Code.INFERENCE_TIMEOUT)]
_OF_THE_HOST: Final = list(Code)[list(Code).index(Code.BUNDLE_INVALID) :]


@dataclass(frozen=True, slots=True)
class Group:
    """Reasons of one origin: heading in both languages, and the codes with their texts."""

    title: str
    title_ru: str
    reasons: Mapping[str, Reason]


def _some(codes: list[Code]) -> dict[str, Reason]:
    return {str(code): REASONS[code] for code in codes}


GROUPS: Final = (
    Group(
        "Single images that intake did not take: outcome *refused*",
        "Отдельные снимки, не принятые службой: исход *refused*",
        _REFUSED,
    ),
    Group(
        "What the headers say: outcome *rejected*, or an image left out of its study",
        "По заголовкам: исход *rejected*, или снимок исключён из исследования",
        {str(code): reason for code, reason in FILTER_REASONS.items()},
    ),
    Group(
        "What the pixels say: *rejected*, *quarantined* (held for a person), or a finding that the rules let pass",
        "По пикселям: *rejected*, *quarantined* (ждёт человека) или находка, которую правила пропускают",
        {
            str(code): Reason(both.en.meaning, both.en.remedy, both.ru.meaning, both.ru.remedy)
            for code, both in PIXEL_REASONS.items()
        },
    ),
    Group(
        "What the model cannot read: outcome *rejected*",
        "Модель не может это прочитать: исход *rejected*",
        _some(_OF_THE_STUDY),
    ),
    Group(
        "Computing failed again and again: outcome *quarantined*",
        "Счёт не удался несколько раз: исход *quarantined*",
        _some([code for code in Code if code not in (*_OF_THE_STUDY, *_OF_THE_HOST)]),
    ),
    Group(
        "The host or the release may not compute; studies wait, and seldom end *quarantined*",
        "Серверу или выпуску нельзя считать; исследования ждут, изредка исход *quarantined*",
        _some(_OF_THE_HOST),
    ),
    Group(
        "What befell the study in the service: outcome *quarantined* or *rejected*",
        "Что случилось с исследованием в самой службе: исход *quarantined* или *rejected*",
        _PIPELINE,
    ),
)

REASON_TABLE: Final[dict[str, Reason]] = {
    code: reason for group in GROUPS for code, reason in group.reasons.items()
}


def explain(code: str) -> Reason | None:
    """Meaning and remedy of a reason code; None for a code that no longer, or not yet, exists."""
    if code.startswith(SITE_PREFIX):
        return SITE_REASON
    return REASON_TABLE.get(code) or AT_THE_DOORS.get(code) or CAUSES.get(code)


_HEAD: Final[dict[Language, str]] = {
    "en": """# Reason codes

Made by `python -m outpost.reasons en > docs/reason-codes.md`; a test holds it to the tables in
`service/outpost/reasons.py`. A code is never renamed or reused. [По-русски](reason-codes.ru.md).

Every study ends as *delivered*, as *rejected* (nothing in it for the model) or as *quarantined* (computing
it failed, or a person shall look); a single image that was not taken is *refused*. All but *delivered* have a
code from here and lie in quarantine: `outpost quarantine list`, see
[why was my study rejected](runbooks/en/why-was-my-study-rejected.md). Rules of a site may give codes of
their own, beginning with `SITE_`; what those mean is known to whoever wrote the rules.
What a *delivered* result says of itself (a part, doubt): [notes](result-notes.md).
""",
    "ru": """# Коды причин

Создано командой `python -m outpost.reasons ru > docs/reason-codes.ru.md`; тест сверяет страницу с таблицами в
`service/outpost/reasons.py`. Код не переименовывается и не используется повторно.
[In English](reason-codes.md).

Каждое исследование кончается как *delivered* (результат доставлен), *rejected* (модели нечего с ним делать)
или *quarantined* (не удалось посчитать, либо должен посмотреть человек); одиночный снимок, который не приняли, -
*refused*. Всё, кроме *delivered*, имеет код отсюда и лежит в карантине: `outpost quarantine list`, см.
[почему моё исследование отклонено](runbooks/ru/why-was-my-study-rejected.md). Правила площадки могут давать
и свои коды, они начинаются с `SITE_`; их смысл знает тот, кто писал правила.
Что доставленный результат говорит о себе (неполный, сомнительный): [пометки](result-notes.ru.md).
""",
}


def page(language: Language) -> str:
    """All codes as a page of documentation."""
    text = _HEAD[language]
    for group in (*GROUPS, Group(*_DOORS, AT_THE_DOORS), Group(*_DESTINATIONS, CAUSES)):
        if language == "ru":
            text += f"\n## {group.title_ru}\n\n| код | что значит | что делать |\n|---|---|---|\n"
            rows = [f"| `{code}` | {r.meaning_ru} | {r.remedy_ru} |\n" for code, r in group.reasons.items()]
        else:
            text += f"\n## {group.title}\n\n| code | meaning | remedy |\n|---|---|---|\n"
            rows = [f"| `{code}` | {r.meaning} | {r.remedy} |\n" for code, r in group.reasons.items()]
        text += "".join(rows)
    return text


if __name__ == "__main__":
    if sys.argv[1:] not in (["en"], ["ru"]):
        sys.exit("usage: python -m outpost.reasons en|ru")
    sys.stdout.write(page("ru" if sys.argv[1] == "ru" else "en"))
