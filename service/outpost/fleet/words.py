"""What each reason for amber or red is called in words, English and Russian, for the view `fleet.health`.

The collector writes them into `fleet.health_words` from its own release, so that the view, which needs no Python,
speaks as the page does. Templates are PostgreSQL's `format`: %1$s is the first value the view fills in.

Codes are those of the view itself, of the checks of a region's service (`outpost.health.codes`), and `FAULT_...` for
why a region cannot be read (`outpost.fleet.faults`), whose English is the sentence of the fault.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import psycopg

from outpost.health.codes import CHECKS


class Words(NamedTuple):
    """One reason in both languages. A service that says a `critical` code of itself does not work: red."""

    en: str
    ru: str
    critical: bool = False


_OF_THE_CENTRE: Final[dict[str, Words]] = {
    "NEVER": Words("never heard from: %1$s", "ни разу не отвечал: %1$s"),
    "INCOMPATIBLE": Words("cannot be understood: %1$s", "ответ непонятен: %1$s"),
    "UNREAD": Words("not read for %1$s: %2$s", "нет связи %1$s: %2$s"),
    "CENTRE_CLOCK": Words(
        "the centre's own clock went back by %1$s: what is known seems to come from the future",
        "часы самого центра ушли назад на %1$s: известное кажется полученным в будущем",
    ),
    "OLD_CONTRACT": Words(
        "does not report health yet: release %1$s is too old, update the region",
        "ещё не сообщает о своём состоянии: версия %1$s слишком старая, обновите регион",
    ),
    "CLOCK": Words(
        "its clock is %1$s %2$s the centre's: set it (`timedatectl`)",
        "часы %2$s от часов центра на %1$s: выставьте время (`timedatectl`)",
    ),
    "NO_HEARTBEAT": Words(
        "the database answers, but no service has ever said that it works",
        "база отвечает, но служба ни разу не сообщила, что работает",
    ),
    "SILENT": Words(
        "no heartbeat for %1$s: the service is stopped or hangs (its last word was %2$s)",
        "нет сигнала %1$s: служба остановлена или зависла (последнее состояние: %2$s)",
    ),
    "REMOVED": Words(
        "taken out of the configuration; its last heartbeat was %1$s ago",
        "убрана из конфигурации; последний сигнал был %1$s назад",
    ),
    "NOT_IN_CONFIG": Words(
        "runs although the configuration does not name it",
        "работает, хотя в конфигурации её нет",
    ),
    "NOT_READY": Words("not ready (%1$s)", "не готова (%1$s)"),
    "DEGRADED": Words("works with limits", "работает с ограничениями"),
    "QUEUE_GROWS": Words(
        "the queue grows: %1$s studies wait, %2$s more than a few minutes ago",
        "очередь растёт: ждут %1$s исследований, на %2$s больше, чем несколько минут назад",
    ),
    "DISK_NEAR": Words(
        "the disk is nearly full: %1$s MiB free, %3$s %% used; at %2$s MiB nothing more is received",
        "диск почти полон: свободно %1$s МиБ, занято %3$s %%; при %2$s МиБ приём прекратится",
    ),
    "BOOTS": Words("the host has booted %1$s times within an hour", "узел загружался %1$s раз за час"),
    "STARTS": Words(
        "the service has started %1$s times within an hour", "служба запускалась %1$s раз за час"
    ),
    "RELEASE_HALF": Words(
        "release %1$s runs, but %2$s was installed: the change of release did not end",
        "работает версия %1$s, а установлена %2$s: смена версии не закончена",
    ),
    "RELEASE": Words("release %1$s, most systems have %2$s", "версия %1$s, у большинства систем %2$s"),
    "VERDICT_UNKNOWN": Words(
        "the service cannot say how it is: see its log",
        "служба не может определить своё состояние: смотрите её журнал",
        critical=True,
    ),
    "JOURNAL_BROKEN": Words(
        "the service cannot start: its journal cannot be read",
        "служба не запускается: её журнал не читается",
        critical=True,
    ),
    "CANNOT_START": Words(
        "the service cannot start: see its log", "служба не запускается: смотрите её журнал", critical=True
    ),
}

# Those of the first group have values; the view fills them in.
_OF_CHECKS: Final[dict[str, tuple[str, str]]] = {
    "LADDER_REDUCED": (
        "computes at the reduced rung %1$s: slower, or in lower precision",
        "считает на пониженной ступени %1$s: медленнее или с меньшей точностью",
    ),
    "RECEIVE_ONLY": (
        "only receives, computes nothing (%1$s): studies wait",
        "только принимает, ничего не считает (%1$s): исследования ждут",
    ),
    "QUEUE_AGE": (
        "the oldest study has waited for %1$s (%2$s wait)",
        "самое старое исследование ждёт %1$s (всего ждут: %2$s)",
    ),
    "OUTBOX_AGE": (
        "results are not taken: the oldest of %2$s has waited for %1$s",
        "результаты не уходят: старейший из %2$s ждёт %1$s",
    ),
    "DISK_RESERVE": (
        "the disk is full: %1$s MiB free of the %2$s MiB kept in reserve (%3$s %% used); nothing more is received",
        "диск заполнен: свободно %1$s МиБ при резерве %2$s МиБ (занято %3$s %%); приём остановлен",
    ),
    "CERTIFICATE_VALID": (
        "a certificate is not valid (ends %1$s)",
        "сертификат недействителен (срок до %1$s)",
    ),
    "CERTIFICATE_EXPIRES": ("a certificate ends on %1$s", "срок сертификата кончается %1$s"),
    "PIPELINE_TICKING": ("the pipeline hangs", "обработка зависла"),
    "WORKER_ALIVE": ("no inference process runs", "ни один процесс вычислений не работает"),
    "WORKERS_ALIVE": (
        "fewer inference processes run than should",
        "процессов вычислений меньше, чем нужно",
    ),
    "GOLDEN_PASSED": (
        "the golden case gives no right answer: nothing is computed",
        "контрольный случай не даёт верного ответа: ничего не считается",
    ),
    "GOLDEN_RECENT": (
        "the golden case has not been computed for long",
        "контрольный случай давно не считался",
    ),
    "GOLDEN_SPEED": ("the host computes slowly", "узел считает медленно"),
    "GOLDEN_CRAWLS": ("the host computes far too slowly", "узел считает слишком медленно"),
    "INFERENCE_PROGRESS": ("a computation does not get on", "вычисление не продвигается"),
    "INTAKE_LISTENING": ("DICOM intake does not listen", "приём DICOM не слушает порт"),
    "DELIVERY_RUNNING": ("delivery does not run", "доставка не работает"),
    "RESULTS_TAKEN": ("a destination refuses results", "получатель отвергает результаты"),
    "FILTER_RULES": (
        "the rule file on disk is not the one in use",
        "файл правил на диске не тот, что действует",
    ),
    "JOURNAL_ANSWERS": ("the journal does not answer", "журнал не отвечает"),
    "RECORDER_RUNNING": (
        "records are not shipped: the recorder ended",
        "записи не отправляются: поток остановлен",
    ),
    "RECORDS_SHIPPED": ("records do not reach the region's database", "записи не доходят до базы региона"),
    "COMPUTE_CAPABILITY": ("the engine does not fit this GPU", "движок не подходит к этому GPU"),
    "KERNELS_LAUNCH": ("the device computes wrongly", "устройство считает неверно"),
    "MODULE_OUTPUTS": ("the network gives wrong outputs", "сеть даёт неверные значения"),
    "DECODERS_WORK": ("a decoder of images is broken", "декодер изображений неисправен"),
    "WEIGHTS_DIGEST": ("the weights are not those released", "веса модели не те, что выпущены"),
    "PRECISION_IN_USE": ("the engine computes in another precision", "движок считает с другой точностью"),
    "PROVIDER_IN_USE": ("another engine or device computes", "считает другой движок или устройство"),
    "ENGINE_VERSION": ("the engine is not the one measured", "движок не той версии, что измерена"),
    "MEMORY_FITS": ("large studies do not fit into memory", "большие исследования не помещаются в память"),
    "THREADS_ONE": ("a worker uses several processors", "процесс занимает несколько процессоров"),
    "STORAGE_WRITABLE": ("nothing can be written to the storage", "в хранилище нельзя писать"),
    "SYNC_PROMPT": ("the disk is slow to confirm", "диск медленно подтверждает запись"),
    "CLOCK_SANE": ("the host's clock is wrong", "часы узла неверны"),
    "MEMORY_SHARE": ("not all workers fit into memory", "не все процессы помещаются в память"),
    "GPU_GIVEN": ("the host's GPU is not used", "GPU узла не используется"),
    "SECRETS_READABLE": ("a file of secrets cannot be read", "файл секретов не читается"),
    "DESTINATION_ANSWERS": ("a destination does not answer", "получатель не отвечает"),
    "PORTS_USABLE": ("a port is taken", "порт занят"),
    "JOURNAL_USABLE": ("the journal cannot be used", "журнал непригоден"),
    "JOURNAL_WHOLE": ("the journal was rebuilt after damage", "журнал восстановлен после повреждения"),
    "FILES_WHOLE": ("a damaged file was put aside", "повреждённый файл отложен"),
    "JOURNAL_SOUND": ("the journal is damaged", "журнал повреждён"),
    "ENGINE_MEASURED": ("the engine has not been measured", "движок не измерен"),
}

# Why a region cannot be read, by kind of fault; the English is in the fault itself.
_FAULTS: Final[dict[str, str]] = {
    "UNREACHABLE": "не отвечает: узел выключен, связь прервана или межсетевой экран отбрасывает пакеты",
    "REFUSED": "соединение отклонено: PostgreSQL там не работает или не слушает этот адрес",
    "ADDRESS": "адрес или имя базы неверны",
    "LOGIN": "вход не принят: пароль, роль или pg_hba.conf отличаются",
    "BUSY": "нет свободных соединений",
    "STARTING": "PostgreSQL запускается или останавливается",
    "TLS": "нет доверенного шифрованного соединения: проверьте сертификаты",
    "CUT": "связь оборвалась во время передачи",
    "TIMEOUT": "отвечает слишком медленно",
    "INCOMPATIBLE": "регион и центр говорят на разных версиях контракта: обновите отставшего из них",
    "PERMISSION": "нет прав на чтение",
    "WRONG_REGION": "по этому адресу отвечает другой регион",
    "UNNAMED": "базе не сказано, какой это регион",
    "CONNECT": "соединиться не удалось",
    "OTHER": "чтение не удалось",
    "BEHIND": "догоняет накопившееся",
}


def all_words() -> dict[str, Words]:
    """Every code with its sentences."""
    words = dict(_OF_THE_CENTRE)
    for code, kind in CHECKS.items():
        # A check without words of its own is still named: a code is better than silence.
        en, ru = _OF_CHECKS.get(code, (f"check {code} fails", f"проверка {code} не пройдена"))
        words[str(code)] = Words(en, ru, kind.critical)
    return words | {f"FAULT_{kind}": Words(kind, ru) for kind, ru in _FAULTS.items()}


def write_words(connection: psycopg.Connection) -> None:
    """Bring fleet.health_words in line with this release; writes nothing when it is."""
    wanted = {code: tuple(words) for code, words in all_words().items()}
    found = {
        row[0]: row[1:]
        for row in connection.execute("SELECT code, en, ru, critical FROM fleet.health_words").fetchall()
    }
    changed = [(code, *words) for code, words in wanted.items() if found.get(code) != words]
    if not changed:
        return
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO fleet.health_words (code, en, ru, critical) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (code) DO UPDATE SET en = EXCLUDED.en, ru = EXCLUDED.ru, critical = EXCLUDED.critical",
            changed,
        )
