"""What one study shows, read in the worker's process where header and pixels are at hand anyway.

Values only, and only those of `tags`: whoever gets an observation learns of a device, not of a person. It must cost
next to nothing and may never be the reason why a study fails: what cannot be read is missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.drift.book import Value
from outpost.drift.tags import HEADER, Kind

log = logging.getLogger(__name__)

MALFORMED = "(malformed)"
# Beyond this the shape of a distribution no longer changes, and the time does.
_PIXELS_LOOKED_AT = 65_536
_IMAGES_READ = 16  # of one series, evenly
_MOST_SEEN = 256  # of one study; a usual one has some ten
# A code string (PS3.5 6.2, VR CS), and the name of a maker or a device: words, not a sentence and not a person's
# name with its carets.
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_DEVICE = re.compile(r"[\w .,/&()+\-]{1,64}")
_BINARY = frozenset({"Rows", "Columns", "BitsStored"})
_NAMES = frozenset({"Manufacturer", "ManufacturerModelName"})


def of_headers(images: Iterable[tuple[str, Dataset]]) -> list[dict[str, Value]]:
    """The watched attributes of a study.

    Args:
        images: series and data set of each file. Images of one series that agree in all that is watched count once:
            a CT of 500 slices is one observation, two views are two. Of a long series some images are read.
    """
    by_series: dict[str, list[Dataset]] = {}
    for series, dataset in images:
        by_series.setdefault(series, []).append(dataset)
    seen: list[dict[str, Value]] = []
    for datasets in by_series.values():
        some = datasets[:: -(-len(datasets) // _IMAGES_READ)]
        rows = [{tag: _read(tag, dataset) for tag in HEADER} for dataset in some]
        seen += {tuple(row.values()): row for row in rows}.values()
        if len(seen) >= _MOST_SEEN:
            break
    return seen


def of_pixels(pixels: NDArray[Any]) -> dict[str, Value]:
    """Statistics of one image or volume, on every so-manyth pixel of it; none of an empty one."""
    if not pixels.size:
        return {}
    # One step on every axis, so that no row or column is favoured.
    step = max(1, int((pixels.size / _PIXELS_LOOKED_AT) ** (1 / pixels.ndim)))
    some = pixels[(slice(None, None, step),) * pixels.ndim].astype(np.float32).ravel()
    low, p01, p50, p99, high = (float(value) for value in np.percentile(some, (0, 1, 50, 99, 100)))
    return {
        "pixels.mean": float(some.mean(dtype=np.float64)),
        "pixels.sd": float(some.std(dtype=np.float64)),
        "pixels.p01": p01,
        "pixels.p50": p50,
        "pixels.p99": p99,
        "pixels.extremes": float(np.mean((some == low) | (some == high))),
    }


def safely(look: Callable[[], Sequence[Mapping[str, Value]]]) -> list[dict[str, Value]]:
    """What `look` sees; nothing, with a line in the log, where it fails."""
    try:
        return [dict(values) for values in look()]
    except Exception:
        log.exception("not observed for drift; the study goes on")
        return []


def _read(tag: str, dataset: Dataset) -> Value:
    try:
        if tag == "PatientAge":
            return _decade(dataset)
        text = _text(dataset, tag)
        if tag == "PixelSpacing":
            text = text or _text(dataset, "ImagerPixelSpacing")
        if not text:
            return None
        if HEADER[tag].kind is Kind.NUMBER:
            return float(text.split("\\")[0])
    # A malformed number, or whatever else a library makes of a broken attribute.
    except Exception:
        return None if HEADER[tag].kind is Kind.NUMBER else MALFORMED
    return text.upper() if (_DEVICE if tag in _NAMES else _CODE).fullmatch(text.upper()) else MALFORMED


def _text(dataset: Dataset, keyword: str) -> str:
    """The value as text; empty if there is none.

    Of what is not decoded yet, the bytes: pydicom would write a malformed value into a warning, and a birth date
    must not stand in a log.
    """
    if keyword not in dataset:
        return ""
    element = dataset.get_item(keyword)
    value = element.value if element is not None else None
    if isinstance(value, bytes) and keyword not in _BINARY:
        return value.decode("ascii", "replace").strip(" \0")
    if isinstance(value, bytes):
        value = dataset.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = "\\".join(map(str, value))
    return "" if value is None else str(value).strip(" \0")


def _decade(dataset: Dataset) -> str | None:
    """The patient's age as `40s`, of Patient Age or of birth and study date."""
    age = _text(dataset, "PatientAge")
    if re.fullmatch(r"\d{3}[DWMY]", age):
        years = int(age[:3]) if age[3] == "Y" else 0
    else:
        born, studied = _text(dataset, "PatientBirthDate"), _text(dataset, "StudyDate")
        if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", studied)):
            return None
        years = (int(studied) - int(born)) // 10_000
    return f"{years // 10 * 10}s" if 0 <= years <= 120 else None
