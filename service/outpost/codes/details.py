"""What stands beside a reason code in Russian: the details of a study, of its images, and of what a model answered.

The code says them in English, where it looks; `outpost.codes.found` finds the Russian here by the sentence. A test
reads the sentences out of the code and asks that each is here. Standard library only.
"""

from __future__ import annotations

from typing import Final

DETAILS: Final[dict[str, str]] = {
    # The header filter (filter/verdict.py, conditions.py, values.py).
    "none of {} instances is left ({}); {}: {} ({}; rules {})": (
        "из {} снимков не осталось ни одного ({}); {}: {} ({}; правила {})"
    ),
    # The pixel verdict (filter/pixels.py).
    "every pixel is {}": "все пиксели равны {}",
    "{} pixels at the shorter side are too few to judge by": "{} пикселей по короткой стороне - мало, чтобы судить",
    "neighbours correlate by {}, {} of the range is not a shade": (
        "соседние пиксели связаны на {}, {} диапазона - не оттенки"
    ),
    "{} of the image is at one end of its range": "{} снимка - на краю диапазона яркости",
    "{} is at the ends, of the rest {} is more than a line": "{} на краях диапазона, из остального {} шире линии",
    "{} panels over {}, {} paints, {} coloured, {} lines of writing": (
        "панелей {} на {}, красок {}, цветного {}, строк текста {}"
    ),
    "{} of the border is bright, air is dark in {}": "{} края светлые, а воздух в {} тёмный",
    "{} runs look like lines of writing": "похоже на строки текста: {}",
    "shows {} wanted ({})": "показано: {} требуется ({})",
    "shows perhaps {} wanted ({}, {} is enough)": "возможно, показано: {} требуется ({}, достаточно {})",
    "a chest shown reversed with probability {}": "грудная клетка, инвертирована с вероятностью {}",
    "a chest, perhaps shown reversed ({})": "грудная клетка, возможно инвертирована ({})",
    "nothing found": "ничего не найдено",
    # What a model answers of a brain (inference/brain.py).
    "the model finds no brain in this series": "модель не находит мозга в этой серии",
    "the output of network {} runs from {} to {}": "выход сети {}: от {} до {}",
    "network {} gave {} for every voxel": "сеть {} дала {} для каждого вокселя",
    "voxels from percentile {} to {} all have the value {}": "все воксели от {} до {} процентиля равны {}",
    # Objects that cannot be read (inference/broken.py, decode.py, header.py).
    "{} objects that may be images the model reads cannot be read ({}); of the rest: {}, {}": (
        "не читаются объекты, которые могут быть снимками для модели: {} ({}); остальные: {}, {}"
    ),
    "none of {} objects can be read ({})": "ни один из {} объектов не читается ({})",
    "{} objects that seem to be of the series of {} images cannot be read ({}): a result on the rest would pass for "
    "the whole": (
        "не читаются {} объектов, похоже, из серии на {} снимков ({}): результат по остальным сошёл бы за полный"
    ),
    "{} cannot be decoded ({})": "{} не декодируется ({})",
    "{} decodes to zeros, although its stream is not empty ({})": (
        "{} декодируется в нули, хотя поток не пуст ({})"
    ),
    "{} says its pixels are {} bytes, not 1 to {}": "{}: по заголовку пиксели занимают {} байт, а не 1-{}",
    "{} has the transfer syntax {}, which has no decoder here": "{}: для transfer syntax {} здесь нет декодера",
    "{} does not describe its pixels ({})": "{}: пиксели не описаны ({})",
    "{} has {} bytes of pixels, {} rows and {} columns of {} bits take {}, and the rest is not padding": (
        "{}: байт пикселей {}, а {} строк на {} столбцов по {} бит занимают {}, и остальное - не заполнение"
    ),
    "{} has a stream of {} components, its header says {}": "{}: в потоке {} компонент, в заголовке {}",
    "{} has a stream of {} rows and {} columns, its header says {} and {}": (
        "{}: в потоке {} строк и {} столбцов, в заголовке {} и {}"
    ),
    "{} is not readable as DICOM: {}": "{} не читается как DICOM: {}",
    # What shows that images are missing (inference/completeness.py, intake/, lane.py).
    "{} holds {} images, {} says {}": "{}: снимков {}, по {} их {}",
    "{} has {} slices, {} says {}": "{}: срезов {}, по {} их {}",
    "{} is uneven, images by {}: {}": "{}: снимков неровно, по {}: {}",
    "of {} temporal positions that NumberOfTemporalPositions announces, {} are there": (
        "из {} временных точек, объявленных в NumberOfTemporalPositions, есть {}"
    ),
    "the study holds {} images, {} says {}, and the images of {} are numbered {} to {} with {} missing": (
        "в исследовании снимков {}, по {} их {}, а номера в {} - от {} до {}, пропущено {}"
    ),
    "{} is numbered in steps of {}, and its slices are {} mm apart, {} times its {}": (
        "{}: номера идут с шагом {}, а срезы стоят через {} мм, это в {} раза больше {}"
    ),
    "slices of {} are {} mm apart, {} times both SpacingBetweenSlices and SliceThickness": (
        "{}: срезы стоят через {} мм, это в {} раза больше и SpacingBetweenSlices, и SliceThickness"
    ),
    "Philips' number of slices": "числу срезов Philips",
    "a series without a number": "серия без номера",
    "the study has no instances": "в исследовании нет снимков",
    "{}; no lower rung is left": "{}; ступени ниже уже нет",
    "the service ended {} times on it": "служба заканчивалась на нём {} раза",
    "its journal row was lost": "его строка в журнале потеряна",
    # What a result says of itself (codes/notes.py).
    "the answer is unlike what the model gives on what it is for: {}": (
        "ответ не похож на то, что модель даёт на своих исследованиях: {}"
    ),
    "the mask has {} ml, {} to {} are usual": "маска {} мл, обычно от {} до {}",
    "likeness to the organ {} (doubt below {}, none below {}): form {}, pattern {}": (
        "сходство с органом {} (сомнение ниже {}, нет ниже {}): форма {}, рисунок {}"
    ),
    "image {}: {}": "снимок {}: {}",
    "image {} of {}: {}": "снимок {} из {}: {}",
    "{} of {} images: {}": "{} из {} снимков: {}",
    "{}: PixelPaddingValue: {} left out": "{}: PixelPaddingValue: не учтено {}",
    "PixelPaddingValue: {} of the volume set to {}": "PixelPaddingValue: {} объёма заменено на {}",
    "ModalityLUTSequence was applied": "применена ModalityLUTSequence",
    "not allowed by DICOM: {}": "не разрешено DICOM: {}",
    "contradicts the positions of the slices, {} mm apart: {}": (
        "противоречит положению срезов, между ними {} мм: {}"
    ),
    "no SpecificCharacterSet": "нет SpecificCharacterSet",
    "no SpecificCharacterSet, nor does the site's character set": (
        "нет SpecificCharacterSet, и набор знаков площадки не подходит"
    ),
    "SpecificCharacterSet does not fit": "SpecificCharacterSet не подходит",
    "SpecificCharacterSet does not fit, nor does the site's character set": (
        "не подходит ни SpecificCharacterSet, ни набор знаков площадки"
    ),
    "{} says nothing in {} of {} objects": "{} ничего не говорит в {} из {} объектов",
    "{} differ, for which this study was not held": "различаются {}, из-за этого исследование не придержано",
    "{} identities in {} objects: {} differs; objects of each: {}": (
        "личностей {} в {} объектах: различается {}; объектов у каждой: {}"
    ),
    "{} identities in {} objects: {} differ; objects of each: {}": (
        "личностей {} в {} объектах: различаются {}; объектов у каждой: {}"
    ),
    # How one patient's identity varies (filter/identity.py): names of rules.
    "character set": "набор знаков",
    "case": "регистр",
    "spaces and punctuation": "пробелы и знаки",
    "leading zeros": "нули в начале",
    "other ids": "другие номера",
    "component groups": "группы компонент",
    "a part of the date": "часть даты",
    "transliteration": "транслитерация",
    "order of components": "порядок компонент",
    "differs, and the others agree": "различается, остальное совпадает",
    "{} of {} images were removed after an earlier end of the study and not sent again": (
        "{} из {} снимков удалены после прежнего завершения исследования и не присланы снова"
    ),
    "{} offered objects that are not taken here ({})": "{} предлагал объекты, которые здесь не принимаются ({})",
    "of {} images were refused ({})": "{}: часть снимков отклонена ({})",
    "{} broke off in the middle of an image, after {} of this study": (
        "{}: обрыв посреди снимка, до этого {} из этого исследования"
    ),
    "{} ended without being released, after {} of this study": (
        "{}: закончено без release, до этого {} из этого исследования"
    ),
    "the association from {}": "ассоциация от {}",
    "the request from {}": "запрос от {}",
    "an unnamed sender": "отправитель без имени",
    "the association from {} at {}": "ассоциация от {} ({})",
    "the request from {} at {}": "запрос от {} ({})",
    # Events (events.py): what was decided by itself, or told by a person.
    "studies, results and quarantine of a backup are here": "исследования, результаты и карантин из копии на месте",
    "{} judges ({})": "действует {} ({})",
    "no rule file": "без файла правил",
    "{} goes on judging": "действует прежний {}",
    "{} known failures forgotten": "забыто известных отказов: {}",
    "{} known failures forgotten by {}": "забыто известных отказов: {}, по просьбе {}",
    "rung {} passes its golden case again": "ступень {} снова проходит эталон",
    "rung {} works again": "ступень {} снова работает",
    "was: {}": "было: {}",
    "while a worker started at rung {}": "пока процесс запускался на ступени {}",
    "{}, was {}": "{}, было {}",
    # Radiographs (inference/radiograph.py).
    "{} decodes to {}, not to rows and columns": "{} декодируется в {}, а не в строки и столбцы",
    "every pixel of {} is {}": "{}: все пиксели равны {}",
    "the network gives {} for {} images, {} answers an image are wanted": (
        "сеть даёт {} на {} снимков, нужно {} ответов на снимок"
    ),
    "the answers to {} are not finite": "ответы на {} - не конечные числа",
    "all answers to one image have one value": "все ответы на один снимок одинаковы",
    "{} images that differ got one answer": "{} разных снимков получили один ответ",
    "by PixelPaddingValue {} of {} is padding, at most {} can be": (
        "по PixelPaddingValue заполнение занимает {} ({}), а может не больше {}"
    ),
    # Series and volumes (inference/series.py, stack.py, volume.py).
    "by PixelPaddingValue {} of the series is padding, at most {} can be": (
        "по PixelPaddingValue заполнение занимает {} серии, а может не больше {}"
    ),
    "slices of one series use other bits of their words than BitsStored and HighBit say: {}": (
        "срезы серии используют не те биты, что названы в BitsStored и HighBit: {}"
    ),
    "slices of one series come by their grey values differently: {}": (
        "срезы одной серии по-разному получают значения серого: {}"
    ),
    "every voxel of the series is {}": "все воксели серии равны {}",
    "{} decodes to {}, its header says {}": "{} декодируется в {}, в заголовке {}",
    "{} rescales by {} and {}": "{}: пересчёт с {} и {}",
    "ImageOrientationPatient {} is not two perpendicular unit vectors": (
        "ImageOrientationPatient {} - не два перпендикулярных единичных вектора"
    ),
    "PixelSpacing {} is not positive": "PixelSpacing {} не положителен",
    "the series has 1 slice, a volume has at least 2": "в серии 1 срез, а в объёме их не меньше 2",
    "the filter left out {} instances of series {} that lie where it has no other slice; {} are left": (
        "фильтр убрал {} снимков серии {} с мест, где других срезов нет; осталось {}"
    ),
    "one series holds images of {}": "в одной серии снимки разных: {}",
    "two slices lie at {} mm along the slice normal": "два среза на одном месте: {} мм по нормали",
    "slices do not stack straight: {} mm off the line, {} mm off the slice normal": (
        "срезы не выстраиваются прямо: {} мм от линии, {} мм от нормали"
    ),
    "{} lacks a valid ImageOrientationPatient, ImagePositionPatient, PixelSpacing or FrameOfReferenceUID": (
        "{}: нет верных ImageOrientationPatient, ImagePositionPatient, PixelSpacing или FrameOfReferenceUID"
    ),
    "{}: {} missing between them": "{}: между ними не хватает {}",
    "slices of the series: {}": "срезов в серии: {}",
    "the mask is {} for every voxel": "маска равна {} в каждом вокселе",
    # The bundle and what it names (inference/bundle.py, predictor.py, plausible.py, golden.py).
    "bundle {} has no size {}, only {}": "в пакете {} нет размера {}, есть {}",
    "{}: task is {}, it must be one of {}": "{}: task - {}, а должно быть одно из {}",
    "{} has sha256 {}, bundle {} wants {}": "у {} sha256 {}, пакет {} ждёт {}",
    "{} has sha256 {}, its bundle wants {}": "у {} sha256 {}, пакет ждёт {}",
    "bundle {} does not read volumes": "пакет {} не читает объёмы",
    "bundle {} lacks configs/inference.json": "в пакете {} нет configs/inference.json",
    "bundle {}: {}": "пакет {}: {}",
    "{}/configs/metadata.json lacks {}": "в {}/configs/metadata.json нет {}",
    "{}/outpost.yaml: weights.{} lie in package {}, which is not installed": (
        "{}/outpost.yaml: weights.{} лежат в пакете {}, а он не установлен"
    ),
    "{} holds no mean organ: {}": "в {} нет усреднённого органа: {}",
    "{} has shapes {} and {}, {} wanted": "у {} формы {} и {}, нужно {}",
    "the golden case was rejected: {}": "эталон отклонён: {}",
    "golden.case is {}; for radiographs there is chest_phantom": (
        "golden.case - {}; для рентгенограмм есть chest_phantom"
    ),
    "{} has shape {}, the answer {}": "у {} форма {}, у ответа {}",
    "{} holds no answers: {}": "в {} нет ответов: {}",
    "{} is not a golden mask: {}": "{} - не эталонная маска: {}",
    # Engines (inference/engines/).
    "weights.{}: {} cannot be loaded as {} ({}: {})": "weights.{}: {} не загружается как {} ({}: {})",
    "weights.{} are {}, torch.float32 wanted: engines lower the precision themselves, as the bundle's candidates say": (
        "weights.{} - {}, нужно torch.float32: точность движки снижают сами, как сказано в кандидатах пакета"
    ),
    "onnxruntime computes by {}, {} was asked for": "onnxruntime считает через {}, а запрошен {}",
    "weights.{} take {}, tensor(float) wanted": "weights.{} принимают {}, нужно tensor(float)",
    "weights.{}: {} is not an ONNX model": "weights.{}: {} - не модель ONNX",
    "openvino: this CPU does not compute in bfloat16": "openvino: этот процессор не считает в bfloat16",
    "weights.{} do not take one float32 input": "weights.{} не принимают один вход float32",
    "OpenVINO computes in {}, {} was asked for": "OpenVINO считает в {}, а запрошено {}",
    "TensorRT did not execute its plan": "TensorRT не выполнил свой план",
    "TensorRT does not read the plan it has built": "TensorRT не читает построенный им же план",
    "TensorRT does not read the network: {}": "TensorRT не читает сеть: {}",
    "TensorRT finds no plan for this GPU in {}": "TensorRT не находит плана для этой карты в {}",
    "there is no engine {}, only {}": "движка {} нет, есть {}",
    "package {} is not installed": "пакет {} не установлен",
    "device {}: this host has no NVIDIA GPU with a loaded driver": (
        "устройство {}: на сервере нет карты NVIDIA с загруженным драйвером"
    ),
    "OpenVINO does not compute on NVIDIA GPUs": "OpenVINO не считает на картах NVIDIA",
    "TensorRT computes on NVIDIA GPUs only": "TensorRT считает только на картах NVIDIA",
    "torch.compile needs a C++ compiler (g++ or clang++), and there is none": (
        "torch.compile нужен компилятор C++ (g++ или clang++), а его нет"
    ),
    "{} is not run in {} here, only in {}": "{} в {} здесь не считает, только в {}",
    "{} does not run {} weights, only {}": "{} не берёт веса {}, только {}",
    # The process that computes (inference/child.py, worker.py).
    "the golden case at rung {} reached {} {}, {} wanted": "эталон на ступени {}: {} {}, нужно {}",
    "{}; the golden case passes": "{}; эталон проходит",
    "{}; then the golden case reached {} {}, {} wanted": "{}; затем эталон дал {} {}, нужно {}",
    "the worker is closed": "процесс уже закрыт",
    "the service closed the worker in the middle of its work": "служба закрыла процесс посреди работы",
    "{}: the kernel counts {} kill(s) for memory": "{}: ядро завершало процессы из-за памяти, раз: {}",
    "the process ended between two steps": "процесс закончился между двумя шагами",
    "it was stopped by a signal between two steps": "он остановлен сигналом между двумя шагами",
    "no answer in {} s; the process was killed": "нет ответа за {} с; процесс завершён",
    "{}; the process was killed in {}": "{}; процесс завершён на {}",
}

# Looks of the header filter, as short as these are: known only within a detail.
LOOKS: Final[dict[str, str]] = {
    "the study": "исследование",
    "series {}": "серия {}",
    "series without number": "серия без номера",
    "{} is {}, wanted: {}": "{}: {}, нужно: {}",
    "not {}": "не {}",
    "present": "присутствует",
    "absent": "отсутствует",
    "missing": "значения нет",
    "unknown": "неизвестно",
    "(not shown)": "(не показано)",
    "between {} and {}": "от {} до {}",
    "in {}": "из {}",
    "equals {}": "равно {}",
    "contains {}": "содержит {}",
    "matches {}": "подходит под {}",
    "at least {}": "не меньше {}",
    "at most {}": "не больше {}",
    "more than {}": "больше {}",
    "less than {}": "меньше {}",
    "{} value {}": "{}, значение {}",
}
