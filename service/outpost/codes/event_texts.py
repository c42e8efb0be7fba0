"""What each event of the journal means and what to do about it, in English and Russian.

A test asks that every code of `outpost.events` is here.
`python -m outpost.codes.event_texts en|ru` prints docs/event-codes.md and docs/event-codes.ru.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal

Language = Literal["en", "ru"]


@dataclass(frozen=True, slots=True)
class EventText:
    """What happened, and what a person does about it. `needs_person`: `outpost events` marks it."""

    meaning: str
    remedy: str
    meaning_ru: str
    remedy_ru: str
    needs_person: bool = False


_NOTHING, _NOTHING_RU = "Nothing.", "Ничего."

EVENTS: Final[dict[str, EventText]] = {
    "RECEIVE_ONLY_BEGUN": EventText(
        "Computing failed too often of one cause: the service only receives, studies wait.",
        "Read the cause in the detail and its remedy in docs/reason-codes.md; it is tried again by itself.",
        "Счёт слишком часто не удавался по одной причине: служба только принимает, исследования ждут.",
        "Причина в подробностях, средство - в docs/reason-codes.ru.md; служба пробует снова сама.",
        needs_person=True,
    ),
    "RECEIVE_ONLY_ENDED": EventText(
        "The golden case passes again: what waited is computed.",
        _NOTHING,
        "Эталон снова проходит: ожидавшее считается.",
        _NOTHING_RU,
    ),
    "LADDER_DOWN": EventText(
        "A rung failed, a lower one is used: results say so.",
        "If it stays for hours: reading-a-results-rung in the runbooks.",
        "Ступень не удалась, используется более низкая: результаты это говорят.",
        "Если это длится часами: карточка reading-a-results-rung.",
        needs_person=True,
    ),
    "LADDER_UP": EventText(
        "A rung that had failed works again.", _NOTHING, "Неудавшаяся ступень снова работает.", _NOTHING_RU
    ),
    "ENGINE_MEASURED": EventText(
        "The engines were measured on this host and one was chosen.",
        _NOTHING,
        "Движки измерены на этом сервере, один выбран.",
        _NOTHING_RU,
    ),
    "WORKERS_REDUCED": EventText(
        "The system's memory does not hold as many workers as configured: fewer were started.",
        "Give the system more memory (memory_mib) or fewer cores in the inventory.",
        "В память системы не помещается столько процессов, сколько задано: запущено меньше.",
        "Дайте системе больше памяти (memory_mib) или меньше ядер в инвентаре.",
        needs_person=True,
    ),
    "FILTER_RULES_CHANGED": EventText(
        "Another rule set judges studies from now on; the detail has its digest.",
        _NOTHING,
        "С этого момента исследования судит другой набор правил; в подробностях его отпечаток.",
        _NOTHING_RU,
    ),
    "FILTER_RULES_REFUSED": EventText(
        "The rule file on disk is wrong; the rule set before it judges.",
        "Correct the line named: `outpost filter check FILE`.",
        "Файл правил на диске неверен; действуют прежние правила.",
        "Исправьте названную строку: `outpost filter check FILE`.",
        needs_person=True,
    ),
    "SERVICE_DIED": EventText(
        "The service, or the host, ended without being asked to.",
        "Look for power failures and the kernel's OOM killer at that time: runbook memory.",
        "Служба или сервер завершились сами.",
        "Ищите за это время сбой питания и OOM killer ядра: карточка memory.",
        needs_person=True,
    ),
    "QUARANTINE_EVICTED": EventText(
        "A quota was reached: files of the oldest leave quarantine.",
        "If nobody had looked at them: a larger inference_quarantine, or stop the sender that fills it.",
        "Достигнута квота: файлы самых старых покидают карантин.",
        "Если их никто не успел посмотреть: больше inference_quarantine, или остановите того, кто его забивает.",
        needs_person=True,
    ),
    "STUDY_RESUBMITTED": EventText(
        "An administrator had a study computed again.",
        _NOTHING,
        "Администратор отправил исследование на повторный счёт.",
        _NOTHING_RU,
    ),
    "FILE_RESUBMITTED": EventText(
        "An administrator had a refused file offered to intake again.",
        _NOTHING,
        "Администратор предложил отвергнутый файл приёму ещё раз.",
        _NOTHING_RU,
    ),
    "STUDY_HELD": EventText(
        "Images of a study are missing: it waits for them, at the latest until its forced time.",
        "Send the missing images; `outpost studies --held` shows what waits.",
        "В исследовании не хватает снимков: оно ждёт их до крайнего срока.",
        "Дошлите недостающие снимки; что ждёт, показывает `outpost studies --held`.",
    ),
    "REVISIONS_HELD": EventText(
        "New images reopened a study too often: its next revision waits.",
        "Find out who keeps sending: often the PACS routes every new object back to this service.",
        "Новые снимки слишком часто открывали исследование заново: следующая ревизия ждёт.",
        "Выясните, кто шлёт снова и снова: часто PACS возвращает этой службе каждый новый объект.",
        needs_person=True,
    ),
    "RESULT_RETURNED": EventText(
        "Somebody routes results of ours back to us.",
        "Have the sender leave out what comes from us; nothing is computed from it.",
        "Кто-то пересылает наши же результаты обратно нам.",
        "Исключите у отправителя то, что пришло от нас; счёт по ним не идёт.",
        needs_person=True,
    ),
    "DELIVERY_REFUSED": EventText(
        "A destination refuses a result for a reason that repetition cannot cure.",
        "Put right at the destination what the detail names; the result is offered again by itself.",
        "Получатель не принимает результат по причине, которую повтор не исправит.",
        "Исправьте у получателя то, что названо в подробностях; результат будет предложен снова сам.",
        needs_person=True,
    ),
    "DELIVERY_REMARKED": EventText(
        "A destination stored a result with a warning.",
        "Read the warning; the result is there.",
        "Получатель сохранил результат с предупреждением.",
        "Прочитайте предупреждение; результат на месте.",
    ),
    "SENDER_REFUSED": EventText(
        "An association, or a context of one, was refused.",
        "The detail names the sender and why: correct it there, or the known AE titles here.",
        "Соединение или один из его контекстов отклонены.",
        "В подробностях отправитель и причина: исправьте у него или список известных AE здесь.",
        needs_person=True,
    ),
    "DRIFT_BEGUN": EventText(
        "What a sender sends, or what becomes of it, differs from the reference.",
        "Runbook drift-alarm.",
        "То, что шлёт отправитель, или судьба этого отличается от эталонного периода.",
        "Карточка drift-alarm.",
        needs_person=True,
    ),
    "DRIFT_ENDED": EventText(
        "It no longer does, or the reference is another.",
        _NOTHING,
        "Больше не отличается, или взят другой эталонный период.",
        _NOTHING_RU,
    ),
    "LADDER_RESET": EventText(
        "An administrator had the service forget which rungs failed: the fullest is tried again.",
        _NOTHING,
        "Администратор велел забыть, какие ступени не удались: самая полная будет испробована снова.",
        _NOTHING_RU,
    ),
    "JOURNAL_REBUILT": EventText(
        "The journal was damaged: it was put aside, read as far as it can be, and rebuilt from the files.",
        "Runbook journal-damaged: check the disk and the memory of the host.",
        "Журнал был повреждён: его отложили, прочитали, сколько удалось, и восстановили по файлам.",
        "Карточка journal-damaged: проверьте диск и память сервера.",
        needs_person=True,
    ),
    "JOURNAL_ASIDE_REMOVED": EventText(
        "A damaged journal that had been put aside gave way to newer ones.",
        "If this repeats, the disk or the memory is failing: runbook journal-damaged.",
        "Отложенный повреждённый журнал уступил место более новым.",
        "Если повторяется, портится диск или память: карточка journal-damaged.",
        needs_person=True,
    ),
    "STUDIES_RECONCILED": EventText(
        "What only the region's database held as pending got an end there.",
        "If the detail names studies that somebody waits for, have them sent again.",
        "То, что числилось в пути только в базе региона, получило там конец.",
        "Если в подробностях исследования, которых кто-то ждёт, попросите прислать их ещё раз.",
    ),
    "FILE_PUT_ASIDE": EventText(
        "A file of the service's own was damaged: it was put aside, the detail says what is used instead.",
        "Check the disk of the host.",
        "Собственный файл службы повреждён: он отложен, в подробностях - что используется вместо него.",
        "Проверьте диск сервера.",
        needs_person=True,
    ),
    "BACKUP_RESTORED": EventText(
        "The storage of this system was filled from a backup.",
        "What came between the backup and its restoring is not here: have it sent again.",
        "Хранилище системы заполнено из резервной копии.",
        "Пришедшего между копией и восстановлением здесь нет: отправьте это ещё раз.",
        needs_person=True,
    ),
}

_HEAD: Final[dict[Language, str]] = {
    "en": """# Event codes

Made by `python -m outpost.codes.event_texts en > docs/event-codes.md`; a test holds it to the table in
`service/outpost/codes/event_texts.py`. A code is never renamed or reused. [По-русски](event-codes.ru.md).

What the service decided by itself, or was told by a person: `outpost events`, newest first. No event names a patient.

| code | meaning | what to do |
|---|---|---|
""",
    "ru": """# Коды событий

Создано командой `python -m outpost.codes.event_texts ru > docs/event-codes.ru.md`; тест сверяет страницу с таблицей в
`service/outpost/codes/event_texts.py`. Код не переименовывается и не используется повторно.
[In English](event-codes.md).

Что служба решила сама или по указанию человека: `outpost events`, новые сверху. Ни одно событие не называет пациента.

| код | что значит | что делать |
|---|---|---|
""",
}


def page(language: Language) -> str:
    """All events as a page of documentation."""
    rows = [
        f"| `{code}` | {text.meaning_ru} | {text.remedy_ru} |\n"
        if language == "ru"
        else f"| `{code}` | {text.meaning} | {text.remedy} |\n"
        for code, text in EVENTS.items()
    ]
    return _HEAD[language] + "".join(rows)


if __name__ == "__main__":
    if sys.argv[1:] not in (["en"], ["ru"]):
        sys.exit("usage: python -m outpost.codes.event_texts en|ru")
    sys.stdout.write(page("ru" if sys.argv[1] == "ru" else "en"))
