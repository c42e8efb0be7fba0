"""Every reason for which the header verdict leaves out an image, a series or a study.

Codes are an interface: they stand in the journal, in Postgres, in metrics and in site rule files. A code is never
renamed or reused; a text may change. What the pixel verdict says is in `outpost.filter.pixel_codes`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from outpost.inference.codes import Reason


class FilterCode(StrEnum):
    """Stable identifier of one reason; the table `FILTER_REASONS` explains each."""

    # Known by name: what lies in studies beside, or instead of, the images a model reads.
    PHANTOM = "PHANTOM"
    LOCALIZER = "LOCALIZER"
    DOSE_REPORT = "DOSE_REPORT"
    STRUCTURED_REPORT = "STRUCTURED_REPORT"
    SECONDARY_CAPTURE = "SECONDARY_CAPTURE"
    PRESENTATION_STATE = "PRESENTATION_STATE"
    KEY_OBJECT = "KEY_OBJECT"
    ENCAPSULATED_DOCUMENT = "ENCAPSULATED_DOCUMENT"
    PROJECTION_IMAGE = "PROJECTION_IMAGE"
    REFORMATTED_IMAGE = "REFORMATTED_IMAGE"
    PARAMETRIC_IMAGE = "PARAMETRIC_IMAGE"
    DERIVED_IMAGE = "DERIVED_IMAGE"
    PROCESSED_RESULT = "PROCESSED_RESULT"
    OWN_RESULT = "OWN_RESULT"
    RADIOTHERAPY_OBJECT = "RADIOTHERAPY_OBJECT"
    WAVEFORM = "WAVEFORM"
    VIDEO = "VIDEO"
    RAW_DATA = "RAW_DATA"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"

    # What a rule of a rule set wanted and did not find.
    MODALITY_UNWANTED = "MODALITY_UNWANTED"
    SOP_CLASS_UNWANTED = "SOP_CLASS_UNWANTED"
    BODY_PART_UNWANTED = "BODY_PART_UNWANTED"
    VIEW_UNWANTED = "VIEW_UNWANTED"
    ORIENTATION_UNWANTED = "ORIENTATION_UNWANTED"
    DESCRIPTION_UNWANTED = "DESCRIPTION_UNWANTED"
    IMAGE_COUNT_UNWANTED = "IMAGE_COUNT_UNWANTED"
    SPACING_UNWANTED = "SPACING_UNWANTED"
    EXTENT_UNWANTED = "EXTENT_UNWANTED"
    IMAGE_SIZE_UNWANTED = "IMAGE_SIZE_UNWANTED"
    AGE_UNWANTED = "AGE_UNWANTED"
    CONTRAST_UNWANTED = "CONTRAST_UNWANTED"
    ATTRIBUTE_MISSING = "ATTRIBUTE_MISSING"
    RULE_UNMET = "RULE_UNMET"


_SEND_IMAGES: Final = (
    "Nothing, if the study has no images for this model; else have the sender route the images too."
)
_SEND_IMAGES_RU: Final = (
    "Ничего, если в исследовании нет снимков для этой модели; иначе настройте отправителя, "
    "чтобы он присылал и сами снимки."
)
_COMPARE: Final = (
    "Nothing, if the study is of another kind; else compare the values shown by `outpost filter explain`."
)
_COMPARE_RU: Final = (
    "Ничего, если исследование другого рода; иначе сравните значения из `outpost filter explain`."
)

# Rules of a site's own file may count under codes of its own, which begin so.
SITE_PREFIX: Final = "SITE_"
SITE_REASON: Final = Reason(
    "A rule of this site's own rule file left it out; the message names the rule.",
    "Compare the values shown by `outpost filter explain`; correct the rule in the file that filter.rules names.",
    "Отсеяно правилом из собственного файла правил площадки; сообщение называет правило.",
    "Сравните значения из `outpost filter explain`; исправьте правило в файле, заданном в filter.rules.",
)

FILTER_REASONS: Final[dict[FilterCode, Reason]] = {
    FilterCode.PHANTOM: Reason(
        "The images show a phantom or belong to quality control.",
        "Nothing; if it was a patient, correct the attribute that `outpost filter explain` shows, or set "
        "known.phantom to keep.",
        "На снимках фантом, или они сделаны для контроля качества.",
        "Ничего; если это был пациент, исправьте атрибут, который показывает `outpost filter explain`, или "
        "задайте known.phantom: keep.",
    ),
    FilterCode.LOCALIZER: Reason(
        "Nothing but localizers (scouts, topograms, surveys) is left of the study.",
        "Have the sender route the diagnostic series too; see the report by sending AE title.",
        "В исследовании одни локалайзеры (разметка, топограммы).",
        "Настройте отправителя, чтобы он присылал и диагностические серии; см. отчёт по AE-заголовкам отправителей.",
    ),
    FilterCode.DOSE_REPORT: Reason(
        "A dose report: a radiation dose structured report, or a screen that shows one.",
        _SEND_IMAGES,
        "Отчёт о дозе: структурированный отчёт или снимок экрана с ним.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.STRUCTURED_REPORT: Reason(
        "A structured report: text and measurements, no image.",
        _SEND_IMAGES,
        "Структурированный отчёт: текст и измерения, не снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.SECONDARY_CAPTURE: Reason(
        "A secondary capture: a screen, a scanned film or another copy without the modality's attributes.",
        "Have the sender route the original images; if copies are all there is, set known.secondary-capture "
        "to keep.",
        "Вторичный захват: снимок экрана, скан плёнки или иная копия без атрибутов аппарата.",
        "Настройте отправку исходных снимков; если есть только копии, задайте known.secondary-capture: keep.",
    ),
    FilterCode.PRESENTATION_STATE: Reason(
        "A presentation state: how images shall be shown, no image itself.",
        _SEND_IMAGES,
        "Состояние представления: как показывать снимки, сам не снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.KEY_OBJECT: Reason(
        "A key object selection: a list of marked images, no image itself.",
        _SEND_IMAGES,
        "Выборка ключевых объектов: список отмеченных снимков, сама не снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.ENCAPSULATED_DOCUMENT: Reason(
        "A document in DICOM (PDF, CDA, a printable model), no image.",
        _SEND_IMAGES,
        "Документ в DICOM (PDF, CDA, модель для печати), не снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.PROJECTION_IMAGE: Reason(
        "A projection or rendering (MIP, MinIP, volume or surface rendering) of a volume, not its slices.",
        "Have the sender route the source slices; a model that reads projections sets known.projection to keep.",
        "Проекция или рендеринг (MIP, MinIP, объёмная реконструкция), а не сами срезы.",
        "Настройте отправку исходных срезов; для модели, читающей проекции, задайте known.projection: keep.",
    ),
    FilterCode.REFORMATTED_IMAGE: Reason(
        "A reformat (MPR, curved MPR) of a volume, not the slices that were acquired.",
        "Have the sender route the source slices, or set known.reformatted to keep.",
        "Реформат (MPR, криволинейная реконструкция), а не исходные срезы.",
        "Настройте отправку исходных срезов или задайте known.reformatted: keep.",
    ),
    FilterCode.PARAMETRIC_IMAGE: Reason(
        "A computed map (ADC, phase, perfusion, fractional anisotropy), not an anatomical image.",
        "Have the sender route the anatomical series, or set known.parametric to keep.",
        "Расчётная карта (ADC, фазовая, перфузионная, фракционной анизотропии), а не анатомический снимок.",
        "Настройте отправку анатомических серий или задайте known.parametric: keep.",
    ),
    FilterCode.DERIVED_IMAGE: Reason(
        "The image says that it is derived from others (ImageType DERIVED), and the rule set wants originals.",
        "Have the sender route original images, or set known.derived to keep: many sound images say DERIVED.",
        "Снимок помечен как производный (ImageType DERIVED), а набор правил требует исходных.",
        "Настройте отправку исходных снимков или задайте known.derived: keep: DERIVED бывает и у хороших снимков.",
    ),
    FilterCode.PROCESSED_RESULT: Reason(
        "A result of processing (segmentation, parametric map, registration), perhaps one of our own sent back.",
        "Have the archive not route results to this system.",
        "Результат обработки (сегментация, параметрическая карта, совмещение), возможно наш же, присланный обратно.",
        "Настройте архив, чтобы он не пересылал результаты в эту систему.",
    ),
    FilterCode.OWN_RESULT: Reason(
        "A result that this system, or another Outpost, made itself and that was sent back.",
        "Nothing: it starts no computing. Better have the archive not route results to this system.",
        "Результат, сделанный этой же системой (или другой системой Outpost) и присланный обратно.",
        "Ничего: счёт он не запускает. Лучше настройте архив, чтобы он не пересылал результаты в эту систему.",
    ),
    FilterCode.RADIOTHERAPY_OBJECT: Reason(
        "A radiotherapy object (plan, structures, dose, treatment record), no diagnostic image.",
        _SEND_IMAGES,
        "Объект лучевой терапии (план, структуры, доза, запись лечения), не диагностический снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.WAVEFORM: Reason(
        "A waveform (ECG, haemodynamics, audio), no image.",
        _SEND_IMAGES,
        "Кривая (ЭКГ, гемодинамика, звук), не снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.VIDEO: Reason(
        "A video (endoscopy, microscopy, photography), no radiological image.",
        _SEND_IMAGES,
        "Видео (эндоскопия, микроскопия, фото), не лучевой снимок.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.RAW_DATA: Reason(
        "Raw data of a vendor, which only that vendor's software reads.",
        _SEND_IMAGES,
        "Сырые данные производителя, читаемые только его программой.",
        _SEND_IMAGES_RU,
    ),
    FilterCode.NOT_AN_IMAGE: Reason(
        "The object describes no pixels (no Rows, no Columns) and is of no kind known by name.",
        "Look at it with `outpost filter explain`; have the sender route images only.",
        "Объект не описывает пикселей (нет Rows и Columns) и не относится к известным видам.",
        "Посмотрите его командой `outpost filter explain`; настройте отправителя присылать только снимки.",
    ),
    FilterCode.MODALITY_UNWANTED: Reason(
        "The modality is not one the rule set wants.",
        _COMPARE,
        "Модальность не из тех, которых требует набор правил.",
        _COMPARE_RU,
    ),
    FilterCode.SOP_CLASS_UNWANTED: Reason(
        "The kind of object (SOP Class UID) is not one the rule set wants.",
        _COMPARE,
        "Вид объекта (SOP Class UID) не из тех, которых требует набор правил.",
        _COMPARE_RU,
    ),
    FilterCode.BODY_PART_UNWANTED: Reason(
        "The body part, as the attributes tell it, is not one the rule set wants.",
        "If the attributes are wrong, have the rule leave the decision to the pixels (`unmet: pixels`).",
        "Область исследования, судя по атрибутам, не та, которой требует набор правил.",
        "Если атрибуты неверны, пусть правило оставит решение пикселям (`unmet: pixels`).",
    ),
    FilterCode.VIEW_UNWANTED: Reason(
        "The view (projection, laterality) is not one the rule set wants.",
        "If the attributes are wrong, have the rule leave the decision to the pixels (`unmet: pixels`).",
        "Укладка (проекция, сторона) не та, которой требует набор правил.",
        "Если атрибуты неверны, пусть правило оставит решение пикселям (`unmet: pixels`).",
    ),
    FilterCode.ORIENTATION_UNWANTED: Reason(
        "The slices do not lie as the rule set wants (axial, sagittal, coronal), or a series mixes directions.",
        _COMPARE,
        "Срезы лежат не так, как требует набор правил (аксиально, сагиттально, фронтально), или серия смешанная.",
        _COMPARE_RU,
    ),
    FilterCode.DESCRIPTION_UNWANTED: Reason(
        "The description of study, series or protocol is not one the rule set wants.",
        "Descriptions are free text: widen the rule's expression if the study was a good one.",
        "Описание исследования, серии или протокола не подходит под набор правил.",
        "Описания пишут в свободной форме: если исследование годное, расширьте выражение в правиле.",
    ),
    FilterCode.IMAGE_COUNT_UNWANTED: Reason(
        "The number of images, frames or series is outside the range of the rule set.",
        "If images are missing, send them: the study is then processed again as a new revision.",
        "Число снимков, кадров или серий вне пределов набора правил.",
        "Если снимков не хватает, дошлите их: исследование будет обработано заново как новая ревизия.",
    ),
    FilterCode.SPACING_UNWANTED: Reason(
        "The distance of slices or pixels, or the slice thickness, is outside the range of the rule set.",
        "Have the sender route the series of the wanted spacing.",
        "Шаг срезов или пикселей либо толщина среза вне пределов набора правил.",
        "Настройте отправку серии с нужным шагом.",
    ),
    FilterCode.EXTENT_UNWANTED: Reason(
        "The series covers less, or more, of the body than the rule set wants.",
        _COMPARE,
        "Серия охватывает меньше или больше, чем требует набор правил.",
        _COMPARE_RU,
    ),
    FilterCode.IMAGE_SIZE_UNWANTED: Reason(
        "The image has fewer, or more, rows or columns than the rule set wants.",
        "Have the sender route images of full size, not previews.",
        "В снимке меньше или больше строк либо столбцов, чем требует набор правил.",
        "Настройте отправку полноразмерных снимков, а не уменьшенных копий.",
    ),
    FilterCode.AGE_UNWANTED: Reason(
        "The patient's age is outside the range that the rule set gives for the model.",
        _COMPARE,
        "Возраст пациента вне пределов, заданных набором правил для модели.",
        _COMPARE_RU,
    ),
    FilterCode.CONTRAST_UNWANTED: Reason(
        "The use of a contrast agent is not as the rule set wants.",
        _COMPARE,
        "Применение контраста не такое, как требует набор правил.",
        _COMPARE_RU,
    ),
    FilterCode.ATTRIBUTE_MISSING: Reason(
        "An attribute that a rule needs is missing or unreadable, and that rule rejects then (`missing: reject`).",
        "Have the sender fill the attribute, or set the rule's `missing` to accept or pixels.",
        "Нужный правилу атрибут отсутствует или не читается, а правило в этом случае отвергает (`missing: reject`).",
        "Настройте отправителя заполнять атрибут или задайте в правиле `missing`: accept или pixels.",
    ),
    FilterCode.RULE_UNMET: Reason(
        "A rule of the rule set that names no code of its own was not met; the message names the rule.",
        _COMPARE,
        "Не выполнено правило набора, у которого нет своего кода; сообщение называет правило.",
        _COMPARE_RU,
    ),
}
