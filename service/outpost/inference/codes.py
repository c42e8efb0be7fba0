"""Every reason for which inference gives no result: its stable code, what it means, what to do about it.

Codes are an interface: they stand in the journal, in Postgres, in metrics and in health verdicts. A code is
never renamed or reused; a message may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """Stable identifier of one reason; the table `REASONS` explains each."""

    # The study is not something this model can read: it ends as rejected.
    HEADER_UNREADABLE = "HEADER_UNREADABLE"
    NO_SERIES_FOR_BUNDLE = "NO_SERIES_FOR_BUNDLE"
    GEOMETRY_MISSING = "GEOMETRY_MISSING"
    GEOMETRY_INCONSISTENT = "GEOMETRY_INCONSISTENT"
    SLICES_DUPLICATED = "SLICES_DUPLICATED"
    SLICES_MISSING = "SLICES_MISSING"
    SLICES_UNEVEN = "SLICES_UNEVEN"
    PIXELS_UNREADABLE = "PIXELS_UNREADABLE"
    PIXELS_CONSTANT = "PIXELS_CONSTANT"
    PIXELS_ALL_ZERO = "PIXELS_ALL_ZERO"
    REGION_NOT_FOUND = "REGION_NOT_FOUND"
    PIXELS_OUT_OF_RANGE = "PIXELS_OUT_OF_RANGE"
    GREY_VALUES_UNDEFINED = "GREY_VALUES_UNDEFINED"
    TWO_PATIENTS = "TWO_PATIENTS"
    STUDY_INCOMPLETE = "STUDY_INCOMPLETE"
    STUDY_UNUSUAL = "STUDY_UNUSUAL"
    STUDY_TOO_LARGE = "STUDY_TOO_LARGE"

    # The study was fine, computing it was not: it may be tried again, then ends in quarantine.
    INFERENCE_TIMEOUT = "INFERENCE_TIMEOUT"
    INFERENCE_ERROR = "INFERENCE_ERROR"
    INFERENCE_OUT_OF_MEMORY = "INFERENCE_OUT_OF_MEMORY"
    OUTPUT_NOT_FINITE = "OUTPUT_NOT_FINITE"
    OUTPUT_CONSTANT = "OUTPUT_CONSTANT"
    WORKER_DIED = "WORKER_DIED"
    WORKER_CLOSED = "WORKER_CLOSED"
    WORKER_OUT_OF_MEMORY = "WORKER_OUT_OF_MEMORY"
    WORKER_HUNG = "WORKER_HUNG"
    NO_KERNEL_IMAGE = "NO_KERNEL_IMAGE"
    DEVICE_LOST = "DEVICE_LOST"
    STORAGE_FULL = "STORAGE_FULL"

    # The worker may not serve at all until this is put right.
    BUNDLE_INVALID = "BUNDLE_INVALID"
    WEIGHTS_MISMATCH = "WEIGHTS_MISMATCH"
    GOLDEN_MISMATCH = "GOLDEN_MISMATCH"
    ASSERTION_FAILED = "ASSERTION_FAILED"
    ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Reason:
    """What a code means and what an administrator does about it; `_ru` is the same in Russian."""

    meaning: str
    remedy: str
    meaning_ru: str = ""
    remedy_ru: str = ""


REASONS: Final[dict[Code, Reason]] = {
    Code.HEADER_UNREADABLE: Reason(
        "A file of the study is not readable as DICOM.",
        "Send the study again; if it stays, export it from the archive and look at the named file.",
        "Файл исследования не читается как DICOM.",
        "Отправьте исследование ещё раз; если не помогло, выгрузите его из архива и проверьте названный файл.",
    ),
    Code.NO_SERIES_FOR_BUNDLE: Reason(
        "No series of the study fits the input rules of the model (outpost.yaml, `input`).",
        "Nothing, if the study is of another kind; else compare the message with the rules.",
        "Ни одна серия исследования не подходит под требования модели к входу (outpost.yaml, `input`).",
        "Ничего, если исследование другого рода; иначе сравните сообщение с требованиями.",
    ),
    Code.GEOMETRY_MISSING: Reason(
        "An image lacks the attributes that place it in space.",
        "Have the sender export original images, not secondary captures.",
        "В снимке нет атрибутов, задающих его положение в пространстве.",
        "Настройте отправителя присылать исходные снимки, а не вторичные захваты.",
    ),
    Code.GEOMETRY_INCONSISTENT: Reason(
        "The images of the series differ in orientation, pixel spacing or size, or do not stack.",
        "Have the sender split the series into single volumes.",
        "Снимки серии различаются ориентацией, шагом пикселей или размером либо не складываются в стопку.",
        "Настройте отправителя делить серию на отдельные объёмы.",
    ),
    Code.SLICES_DUPLICATED: Reason(
        "Two images of the series lie at one position.",
        "Have the sender split echoes or repetitions into series of their own.",
        "Два снимка серии лежат в одном положении.",
        "Настройте отправителя выделять эхо и повторы в отдельные серии.",
    ),
    Code.SLICES_MISSING: Reason(
        "The series has a gap of one or more slices.",
        "Send the missing images; the study is then processed again as a new revision.",
        "В серии пропущен один или несколько срезов.",
        "Дошлите недостающие снимки: исследование будет обработано заново как новая ревизия.",
    ),
    Code.SLICES_UNEVEN: Reason(
        "The distance between slices varies more than rounding explains.",
        "Have the sender reconstruct the series with an even slice distance.",
        "Расстояние между срезами меняется сильнее, чем объясняет округление.",
        "Настройте на аппарате реконструкцию серии с равным шагом срезов.",
    ),
    Code.PIXELS_UNREADABLE: Reason(
        "The pixels of an image cannot be decoded.",
        "Send the study again uncompressed (Explicit VR Little Endian).",
        "Пиксели снимка не декодируются.",
        "Отправьте исследование ещё раз без сжатия (Explicit VR Little Endian).",
    ),
    Code.PIXELS_CONSTANT: Reason(
        "Every voxel of the series has one value: the image is empty.",
        "Look at the series on the sender; an empty one was acquired or exported wrongly.",
        "Все воксели серии имеют одно значение: снимок пуст.",
        "Откройте серию на отправителе: пустую сняли или выгрузили с ошибкой.",
    ),
    Code.PIXELS_ALL_ZERO: Reason(
        "Every decoder gives nothing but zeros for pixel data that are not empty: the stream is broken.",
        "Have the sender send the study again, best uncompressed (Explicit VR Little Endian).",
        "Все декодеры дают одни нули, хотя данные пикселей не пусты: поток повреждён.",
        "Отправьте исследование ещё раз, лучше без сжатия (Explicit VR Little Endian).",
    ),
    Code.REGION_NOT_FOUND: Reason(
        "The model finds nothing of what it segments in this series.",
        "Check that the series shows the body part the model is for.",
        "Модель не нашла в серии того, что она выделяет.",
        "Проверьте, что на серии та часть тела, для которой создана модель.",
    ),
    Code.PIXELS_OUT_OF_RANGE: Reason(
        "Pixel values do not fit the bits the image says it uses (BitsStored, HighBit, PixelRepresentation).",
        "Have the sender, or the gateway between, write these attributes as the pixels are.",
        "Значения пикселей не помещаются в биты, указанные в снимке (BitsStored, HighBit, PixelRepresentation).",
        "Исправьте отправителя или шлюз: эти атрибуты должны соответствовать пикселям.",
    ),
    Code.GREY_VALUES_UNDEFINED: Reason(
        "The image carries a table or rule for its grey values that is broken or not known here.",
        "Have the sender send the image without it; the message names the attribute.",
        "Снимок содержит таблицу или правило для оттенков серого, которое повреждено или здесь неизвестно.",
        "Настройте отправителя присылать снимок без него; сообщение называет атрибут.",
    ),
    Code.TWO_PATIENTS: Reason(
        "The images of one study, or of one series, name more than one patient.",
        "Find out whose each image is and correct it at the sender; see the runbook, two patients in one study.",
        "Снимки одного исследования или одной серии принадлежат разным пациентам.",
        "Выясните, чей каждый снимок, и исправьте у отправителя; см. инструкцию о двух пациентах.",
    ),
    Code.STUDY_INCOMPLETE: Reason(
        "Images of the study are missing: what came says so, and the rest did not come within the forced time.",
        "Send the whole study again; the message says what is missing. See the runbook on partial results.",
        "Не хватает снимков исследования: это видно по пришедшим, остальные не пришли за отведённое время.",
        "Отправьте исследование ещё раз целиком; сообщение говорит, чего не хватает. См. инструкцию о частичных.",
    ),
    Code.STUDY_UNUSUAL: Reason(
        "Reading the study, or writing its result, ended in an error, while the golden case passes.",
        "The study is the cause: the message names the step and the attribute; report it with the study's file.",
        "Чтение исследования или запись результата кончились ошибкой, хотя эталонный случай проходит.",
        "Причина в самом исследовании: сообщение называет шаг и атрибут; передайте инженеру вместе с файлом.",
    ),
    Code.STUDY_TOO_LARGE: Reason(
        "By its headers the study is larger than this system can read: nothing of it was decoded.",
        "The message names what is too large. If it is real, give the system more memory; else correct the sender.",
        "Судя по заголовкам, исследование больше, чем эта система может прочитать; ничего не декодировалось.",
        "Сообщение называет, что слишком велико. Если размер настоящий, добавьте системе памяти; иначе исправьте "
        "отправителя.",
    ),
    Code.INFERENCE_TIMEOUT: Reason(
        "Computing took longer than `inference.timeout_seconds`; the worker was killed and replaced.",
        "Check the load of the host; raise the limit if the host is slow but healthy.",
        "Счёт длился дольше `inference.timeout_seconds`; процесс остановлен и заменён.",
        "Проверьте загрузку сервера; если он исправен, но медленный, увеличьте предел.",
    ),
    Code.INFERENCE_ERROR: Reason(
        "The model raised an error on this study.",
        "Read the worker's log around this time; report it with the message.",
        "Модель завершилась с ошибкой на этом исследовании.",
        "Прочитайте журнал процесса за это время и сообщите инженеру вместе с сообщением.",
    ),
    Code.INFERENCE_OUT_OF_MEMORY: Reason(
        "Memory did not suffice for this study; the worker was replaced.",
        "Give the system more memory or stop what else uses it.",
        "Для этого исследования не хватило памяти; процесс заменён.",
        "Дайте системе больше памяти или остановите то, что её занимает.",
    ),
    Code.OUTPUT_NOT_FINITE: Reason(
        "The model's output holds NaN or infinity; no result was written.",
        "Run `outpost selftest`; if it is ok, the study is the cause: look at its pixels.",
        "В выходе модели есть NaN или бесконечность; результат не записан.",
        "Запустите `outpost selftest`; если он в порядке, причина в исследовании: посмотрите его пиксели.",
    ),
    Code.OUTPUT_CONSTANT: Reason(
        "The model gave the whole volume one value; no result was written.",
        "Run `outpost selftest`; if it is ok, the study is the cause: look at its pixels.",
        "Модель дала одно значение на весь объём; результат не записан.",
        "Запустите `outpost selftest`; если он в порядке, причина в исследовании: посмотрите его пиксели.",
    ),
    Code.WORKER_DIED: Reason(
        "The worker process ended in the middle of a study and was replaced.",
        "Read the message for the signal; signal 9 with little free memory is the kernel's OOM killer.",
        "Процесс счёта завершился посреди исследования и был заменён.",
        "Смотрите сигнал в сообщении; сигнал 9 при малой свободной памяти - это OOM killer ядра.",
    ),
    Code.WORKER_CLOSED: Reason(
        "The worker was asked to compute after, or while, the service closed it.",
        "Nothing: the study is taken up again when the service starts.",
        "Процессу счёта дали работу после того, как служба его закрыла, или во время закрытия.",
        "Ничего: исследование будет взято снова при запуске службы.",
    ),
    Code.WORKER_OUT_OF_MEMORY: Reason(
        "The kernel killed the worker because the system's memory limit was reached.",
        "Nothing at once: the study is computed one rung lower. Give the system more memory to climb back.",
        "Ядро остановило процесс счёта: достигнут предел памяти системы.",
        "Срочно - ничего: исследование считается ступенью ниже. Дайте системе больше памяти, чтобы вернуться наверх.",
    ),
    Code.WORKER_HUNG: Reason(
        "The worker neither answered nor worked for far longer than is usual on this host; it was replaced.",
        "Nothing: the study is computed again. If it repeats, see the message: a stopped process was stopped by hand.",
        "Процесс не отвечал и не работал намного дольше обычного на этом сервере; он заменён.",
        "Ничего: исследование считается снова. Если повторяется, смотрите сообщение: процесс мог остановить человек.",
    ),
    Code.NO_KERNEL_IMAGE: Reason(
        "The GPU cannot run what the engine was compiled for (no kernel image for its architecture).",
        "Install a release whose engine supports this GPU; until then the CPU computes.",
        "Видеокарта не может выполнить то, для чего собран движок (нет ядра для её архитектуры).",
        "Установите выпуск, движок которого поддерживает эту карту; до тех пор считает процессор.",
    ),
    Code.DEVICE_LOST: Reason(
        "The GPU failed in the middle of computing; its context is poisoned and the process was ended.",
        "Look at `dmesg` for Xid messages and at the GPU's temperature; the CPU computes meanwhile.",
        "Видеокарта отказала во время счёта; её контекст испорчен, процесс завершён.",
        "Ищите в `dmesg` сообщения Xid, проверьте температуру карты; тем временем считает процессор.",
    ),
    Code.STORAGE_FULL: Reason(
        "There was no room on the disk for the result; the study waits and is computed again.",
        "Free space on the file system of storage.root; see the runbook, the disk is full.",
        "На диске не нашлось места для результата; исследование ждёт и будет посчитано снова.",
        "Освободите место в файловой системе storage.root; см. инструкцию о заполненном диске.",
    ),
    Code.BUNDLE_INVALID: Reason(
        "The model bundle is incomplete or its configuration is wrong.",
        "Install the release again; the message names the file and the key.",
        "Пакет модели неполон или его настройки неверны.",
        "Установите выпуск заново; сообщение называет файл и ключ.",
    ),
    Code.WEIGHTS_MISMATCH: Reason(
        "A weights file is not the one the bundle was released with (sha256 differs).",
        "Install the release again; do not replace weights by hand.",
        "Файл весов не тот, с которым выпущена модель (не совпал sha256).",
        "Установите выпуск заново; не заменяйте веса вручную.",
    ),
    Code.ASSERTION_FAILED: Reason(
        "A worker found at its start that this host, or the release, is not as it must be; the message says which.",
        "Look the check up in docs/health-codes.md; `outpost selftest` shows it with its remedy.",
        "При запуске процесс обнаружил, что сервер или выпуск не таков, как должен; сообщение называет проверку.",
        "Найдите проверку в docs/health-codes.md; `outpost selftest` покажет её вместе с тем, что делать.",
    ),
    Code.GOLDEN_MISMATCH: Reason(
        "The golden case gave another answer than the one the bundle was released with.",
        "Do not use this host for inference; check memory and CPU, then install the release again.",
        "Эталонный случай дал не тот ответ, с которым выпущена модель.",
        "Не считайте на этом сервере; проверьте память и процессор, затем установите выпуск заново.",
    ),
    Code.ENGINE_UNAVAILABLE: Reason(
        "The engine is not on this host, or did not take the precision or device it was told.",
        "Run `outpost optimise`: it says of each engine why it is not used, and keeps one that works.",
        "Движка нет на этом сервере, либо он не принял заданную точность или устройство.",
        "Запустите `outpost optimise`: он скажет о каждом движке, почему тот не используется, и оставит рабочий.",
    ),
}


class InputRejected(Exception):
    """The study cannot be read by this model; trying again cannot help.

    Attributes:
        code: why, as `outpost.reasons.explain` knows it: a `Code`, a code of the filter, or a site's own.
        message: one sentence with the value found and the value wanted, without patient data.
        hold: a person shall look at the study: it goes to quarantine instead of being rejected.
    """

    def __init__(self, code: str, message: str, hold: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.hold = hold


class StudyIncomplete(Exception):
    """Images of the study are missing that may still come: it waits.

    Attributes:
        lacks: each sign of it as a sentence with the number found and the number wanted, without patient data.
    """

    def __init__(self, lacks: tuple[str, ...]) -> None:
        super().__init__("; ".join(lacks))
        self.lacks = lacks


class InferenceFailed(Exception):
    """Computing failed, or the worker may not serve.

    Attributes:
        code: why, as an entry of `REASONS`.
        message: one sentence with the value found and the value wanted, without patient data.
        sound: the golden case has passed since, in the very process that failed: it may go on serving.
        outside: a signal from outside ended or stopped the process: that speaks neither of the study nor of the rung.
    """

    def __init__(self, code: Code, message: str, sound: bool = False, outside: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.sound = sound
        self.outside = outside
