"""What a result says of itself beside its answer: that it is of a part, that there is doubt, what was left out.

A note is made where the fact is seen (in the worker), travels with the result, and is kept in the result itself, the
journal, the region's records and every view. A result without notes is of the whole study and undoubted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Kind = Literal["part", "doubt", "remark"]


class NoteCode(StrEnum):
    """Stable identifier of one note; `NOTES` explains each. Findings of the pixel verdict are notes, too."""

    STUDY_PARTIAL = "STUDY_PARTIAL"
    IMAGES_NOT_READ = "IMAGES_NOT_READ"
    RESULT_DOUBTFUL = "RESULT_DOUBTFUL"
    IDENTITY_VARIES = "IDENTITY_VARIES"
    OBJECT_LEFT_OUT = "OBJECT_LEFT_OUT"
    VALUE_LEFT_OUT = "VALUE_LEFT_OUT"
    TEXT_KEPT_AS_SENT = "TEXT_KEPT_AS_SENT"
    PIXELS_PADDED = "PIXELS_PADDED"
    GREY_VALUES_MAPPED = "GREY_VALUES_MAPPED"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that a result says of itself.

    Attributes:
        code: a `NoteCode` or a code of the pixel verdict.
        detail: one English sentence or list of facts: numbers, attribute keywords, VRs. Never a value of the patient.
    """

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NoteText:
    """What a note means and what to do about it.

    Attributes:
        kind: `part` and `doubt` are said first in the result and by every view; a `remark` is on record only.
        short: what the result says, in plain ASCII: it must fit any character set.
    """

    kind: Kind
    short: str
    meaning: str
    remedy: str
    meaning_ru: str
    remedy_ru: str


NOTES: Final[dict[NoteCode, NoteText]] = {
    NoteCode.STUDY_PARTIAL: NoteText(
        "part",
        "PARTIAL: not all images of the study were there",
        "The result was computed on a part of the images: the rest had not come within the forced time.",
        "Send the missing images: the study is computed again and the new result names the one it replaces.",
        "Результат посчитан по части снимков: остальные не пришли за отведённое время.",
        "Дошлите недостающие снимки: исследование будет посчитано заново, новый результат назовёт заменённый.",
    ),
    NoteCode.IMAGES_NOT_READ: NoteText(
        "part",
        "PARTIAL: some images could not be read",
        "Images that the model should have read could not be read; the result says nothing of them.",
        "Look at the images named in the result; send them again, best uncompressed.",
        "Часть снимков, нужных модели, не читается; о них в результате ничего нет.",
        "Посмотрите снимки, названные в результате; отправьте их ещё раз, лучше без сжатия.",
    ),
    NoteCode.RESULT_DOUBTFUL: NoteText(
        "doubt",
        "DOUBTFUL: the images may not show what the model is for",
        "What the images show, or what the model made of them, is unlike what it was tried on.",
        "Have a person look at the images before anything rests on this result.",
        "Изображение или ответ модели не похожи на те, на которых модель проверяли.",
        "Не опирайтесь на результат, пока снимки не посмотрит человек.",
    ),
    NoteCode.IDENTITY_VARIES: NoteText(
        "remark",
        "The patient is written in more than one way",
        "The images name one patient in several ways, which the rules take for equal.",
        "Nothing, if it is one person; else correct the images at their source and send the study again.",
        "Снимки называют одного пациента по-разному; правила считают эти записи равными.",
        "Ничего, если это один человек; иначе исправьте снимки у отправителя и отправьте исследование заново.",
    ),
    NoteCode.OBJECT_LEFT_OUT: NoteText(
        "remark",
        "Objects that cannot be read were left out",
        "Objects of the study that cannot be read as DICOM were left out; the images were computed without them.",
        "Look at the named objects if they were images; else nothing.",
        "Объекты исследования, которые не читаются как DICOM, пропущены; снимки посчитаны без них.",
        "Посмотрите названные объекты, если это были снимки; иначе ничего.",
    ),
    NoteCode.VALUE_LEFT_OUT: NoteText(
        "remark",
        "Header values that DICOM does not allow were left out",
        "Values of the source that DICOM does not allow, or that contradict what was computed, are not repeated.",
        "Nothing is wrong with the result; have the sender correct the named attributes.",
        "Значения исходных снимков, недопустимые в DICOM или противоречащие посчитанному, не повторены в результате.",
        "Результат верен; исправьте названные атрибуты у отправителя.",
    ),
    NoteCode.TEXT_KEPT_AS_SENT: NoteText(
        "remark",
        "Texts are kept byte for byte: their character set is not sure",
        "The character set of the source is missing or wrong: its texts were copied byte for byte, with its label.",
        "If names come out wrong, set intake.senders for this sender; see the runbook.",
        "Кодировка источника не указана или указана неверно: его тексты скопированы байт в байт, с той же меткой.",
        "Если имена искажены, задайте intake.senders для отправителя; см. инструкцию.",
    ),
    NoteCode.PIXELS_PADDED: NoteText(
        "remark",
        "Padding pixels were not taken for tissue",
        "Pixels that the images mark as padding were set to background before computing.",
        "Nothing.",
        "Пиксели, помеченные в снимках как заполнение, перед счётом заменены фоном.",
        "Ничего.",
    ),
    NoteCode.GREY_VALUES_MAPPED: NoteText(
        "remark",
        "Grey values were mapped as the images say",
        "The images carry a table or a shape by which stored values become grey values; it was applied.",
        "Nothing.",
        "Снимки содержат таблицу или правило перевода значений в оттенки серого; оно применено.",
        "Ничего.",
    ),
}


def merged(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Each note once, in the order they came; an empty detail goes where the same code has another."""
    unique = list(dict.fromkeys(notes))
    told = {note.code for note in unique if note.detail}
    return tuple(note for note in unique if note.detail or note.code not in told)


def as_text(notes: Sequence[Note]) -> str:
    """How the journal keeps notes: JSON, and nothing where there are none."""
    return json.dumps([[note.code, note.detail] for note in notes], ensure_ascii=False) if notes else ""


def of_text(text: str) -> tuple[Note, ...]:
    """Notes as `as_text` wrote them."""
    return tuple(Note(code, detail) for code, detail in json.loads(text)) if text else ()
