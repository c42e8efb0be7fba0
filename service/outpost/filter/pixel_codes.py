"""Every finding of the pixel verdict: its stable code, what it means, what to do about it, in English and Russian.

Codes are an interface (journal, Postgres, metrics): never renamed or reused; a text may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class PixelCode(StrEnum):
    """Stable identifier of one finding; `PIXEL_REASONS` explains each, in the order in which they are looked for."""

    PIXELS_ZEROS = "PIXELS_ZEROS"
    PIXELS_BLANK = "PIXELS_BLANK"
    PIXELS_SATURATED = "PIXELS_SATURATED"
    PIXELS_CLIPPED = "PIXELS_CLIPPED"
    PIXELS_SCREEN_CAPTURE = "PIXELS_SCREEN_CAPTURE"
    PIXELS_PHOTOMETRIC = "PIXELS_PHOTOMETRIC"
    PIXELS_ANATOMY = "PIXELS_ANATOMY"
    PIXELS_TEXT = "PIXELS_TEXT"
    PIXELS_UNSURE = "PIXELS_UNSURE"


@dataclass(frozen=True, slots=True)
class Text:
    """What a code means and what an administrator does about it, in one language."""

    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class PixelReason:
    """A code in the languages of the runbooks."""

    en: Text
    ru: Text


PIXEL_REASONS: Final[dict[PixelCode, PixelReason]] = {
    PixelCode.PIXELS_ZEROS: PixelReason(
        Text(
            "Every pixel of the image is zero.",
            "Look at the image on the sender: it was exported without its pixels, or a gateway lost them.",
        ),
        Text(
            "Все пиксели изображения равны нулю.",
            "Откройте изображение на отправителе: его выгрузили без пикселей или их потерял шлюз.",
        ),
    ),
    PixelCode.PIXELS_BLANK: PixelReason(
        Text(
            "The image shows nothing: one value, a smooth ramp, or noise alone.",
            "Look at the image on the sender: an exposure without a patient, or a detector that did not read out.",
        ),
        Text(
            "На изображении ничего нет: одно значение, плавный переход или только шум.",
            "Откройте изображение на отправителе: снимок без пациента или детектор не был считан.",
        ),
    ),
    PixelCode.PIXELS_SATURATED: PixelReason(
        Text(
            "Nearly all of the image is at its least or at its greatest value.",
            "Have the image taken again or exported without a window: exposure or conversion went wrong.",
        ),
        Text(
            "Почти всё изображение имеет наименьшее или наибольшее значение.",
            "Повторите снимок или выгрузите его без окна: ошибка экспозиции или преобразования.",
        ),
    ),
    PixelCode.PIXELS_CLIPPED: PixelReason(
        Text(
            "Most of what the image shows was cut off to black and white; too few grey values are left to read.",
            "Have the sender export original pixels: a narrow window was burned in, or the detector was overexposed.",
        ),
        Text(
            "Большая часть изображения обрезана до чёрного и белого; серых значений слишком мало для анализа.",
            "Выгрузите исходные пиксели: в них записано узкое окно или детектор был переэкспонирован.",
        ),
    ),
    PixelCode.PIXELS_SCREEN_CAPTURE: PixelReason(
        Text(
            "The image is a picture of a screen, a page or a photograph, not an acquired image.",
            "Have the sender send the original series, not captures of a viewer.",
        ),
        Text(
            "Это снимок экрана, страницы или фотография, а не исходное изображение аппарата.",
            "Отправьте исходную серию, а не снимки экрана просмотрщика.",
        ),
    ),
    PixelCode.PIXELS_PHOTOMETRIC: PixelReason(
        Text(
            "What should be dark is bright: Photometric Interpretation (0028,0004) does not fit the pixels.",
            "Correct MONOCHROME1 or MONOCHROME2 at the sender: a conversion changed one without the other.",
        ),
        Text(
            "Тёмное показано светлым: Photometric Interpretation (0028,0004) не соответствует пикселям.",
            "Исправьте MONOCHROME1 или MONOCHROME2 на отправителе: при преобразовании изменили одно без другого.",
        ),
    ),
    PixelCode.PIXELS_ANATOMY: PixelReason(
        Text(
            "The pixels show another part of the body, or another kind of picture, than the model is for.",
            "Look at the thumbnail; if the tags name the wrong body part, correct them or the routing at the sender.",
        ),
        Text(
            "На изображении другая часть тела или другой вид снимка, чем тот, для которого создана модель.",
            "Посмотрите миниатюру; если в тегах неверная область, исправьте их или маршрутизацию на отправителе.",
        ),
    ),
    PixelCode.PIXELS_TEXT: PixelReason(
        Text(
            "Writing seems to be burned into the pixels; it may name the patient.",
            "Look at the thumbnail before the image leaves the region; switch burned-in annotation off at the sender.",
        ),
        Text(
            "Похоже, в пиксели впечатан текст; он может содержать данные пациента.",
            "Посмотрите миниатюру до передачи за пределы региона; отключите впечатывание на отправителе.",
        ),
    ),
    PixelCode.PIXELS_UNSURE: PixelReason(
        Text(
            "The pixels do not say clearly whether the image is one for the model.",
            "Look at the thumbnail; re-submit the study if it is good. `pixels.unsure` decides what becomes of such.",
        ),
        Text(
            "По пикселям нельзя уверенно сказать, подходит ли изображение модели.",
            "Посмотрите миниатюру; если снимок хороший, отправьте повторно. Судьбу таких решает `pixels.unsure`.",
        ),
    ),
}
