"""What the filter measures itself of instances, series and a study, for rules to ask: geometry and counts.

Lengths are millimetres in the patient coordinate system. A fact that the headers do not give is None: unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.inference.header import ImageHeader

Value = float | str | None

# A slice normal within about 37 degrees of an axis of the body is named by it.
_DOMINANT: Final = 0.8
_PLANES: Final = ("sagittal", "coronal", "axial")  # by the axis of LPS that the normal is closest to
_SAME_PLACE_MM: Final = 0.01
_SAME_COSINE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Fact:
    """`scopes`: of what it is known. `words`: all it can be, where it is no number. `about`: for people."""

    about: str
    scopes: tuple[str, ...]
    measure: Callable[[Sequence[ImageHeader]], Value]
    words: tuple[str, ...] = ()


def _images(headers: Sequence[ImageHeader]) -> Value:
    return len(headers)


def _series(headers: Sequence[ImageHeader]) -> Value:
    return len({header.series_instance_uid for header in headers})


def _frames(headers: Sequence[ImageHeader]) -> Value:
    return sum(header.frames for header in headers)


def _orientation(headers: Sequence[ImageHeader]) -> Value:
    cosines = [c for c in map(_cosines, headers) if c is not None]
    if not cosines:
        return None
    rows = np.array(cosines)
    if np.abs(rows - rows[0]).max() < _SAME_COSINE:  # as in most series: one is enough
        rows = rows[:1]
    normals = np.abs(np.cross(rows[:, :3], rows[:, 3:]))
    planes = {
        _PLANES[int(normal.argmax())] if normal.max() >= _DOMINANT * np.linalg.norm(normal) else "oblique"
        for normal in np.unique(normals.round(2), axis=0)
        if normal.any()
    }
    if not planes:
        return None
    return planes.pop() if len(planes) == 1 else "mixed"


def _slice_spacing(headers: Sequence[ImageHeader]) -> Value:
    places = _places(headers)
    if places is not None and len(places) > 1:
        return float(np.median(np.diff(places)))
    return _measure(headers[0].dataset, "SpacingBetweenSlices")


def _extent(headers: Sequence[ImageHeader]) -> Value:
    places = _places(headers)
    if places is not None and len(places) > 1:
        return float(places[-1] - places[0] + np.median(np.diff(places)))
    spacing = _measure(headers[0].dataset, "SpacingBetweenSlices")
    return spacing * headers[0].frames if spacing is not None and headers[0].frames > 1 else None


def _pixel_spacing(headers: Sequence[ImageHeader]) -> Value:
    found = [float(header.pixel_spacing.max()) for header in headers if header.pixel_spacing is not None]
    if found:
        return max(found)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = _measure(headers[0].dataset, keyword)
        if spacing is not None:
            return spacing
    return None


def _cosines(header: ImageHeader) -> NDArray[np.float64] | None:
    """Orientation of an image, or of all frames of one where they share it."""
    if header.orientation is not None or header.frames == 1:
        return header.orientation
    shared = _shared(header.dataset, "PlaneOrientationSequence")
    try:
        found = np.array([float(v) for v in shared.ImageOrientationPatient]) if shared is not None else None
    except (AttributeError, TypeError, ValueError):
        return None
    return found if found is not None and found.shape == (6,) and bool(np.isfinite(found).all()) else None


def _places(headers: Sequence[ImageHeader]) -> NDArray[np.float64] | None:
    """Places of the slices along their common normal, sorted, each once; None where there is no such normal."""
    placed = [h for h in headers if h.orientation is not None and h.position is not None]
    if not placed:
        return None
    orientations = np.array([header.orientation for header in placed])
    if np.abs(orientations - orientations[0]).max() > _SAME_COSINE:
        return None
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    along = np.sort(np.array([header.position for header in placed]) @ normal)
    return along[np.concatenate(([True], np.diff(along) > _SAME_PLACE_MM))]


def _measure(dataset: Dataset, keyword: str) -> float | None:
    """A length in mm (of several the largest) of an image, or of all its frames where they share it."""
    for holder in (dataset, _shared(dataset, "PixelMeasuresSequence")):
        try:
            value = holder.get(keyword) if holder is not None else None
            if value is None:
                continue
            numbers = [float(v) for v in (value if hasattr(value, "__iter__") else (value,))]
        except Exception:  # noqa: S112 - an unreadable value is an unknown fact; pydicom raises many types
            continue
        if numbers and np.isfinite(numbers).all() and max(numbers) > 0:
            return max(numbers)
    return None


def _shared(dataset: Dataset, sequence: str) -> Dataset | None:
    try:
        item: Dataset = dataset.SharedFunctionalGroupsSequence[0][sequence].value[0]
    except Exception:  # whatever is missing or broken on the way there
        return None
    return item


FACTS: Final[dict[str, Fact]] = {
    "images": Fact("number of instances", ("series", "study"), _images),
    "series": Fact("number of series", ("study",), _series),
    "frames": Fact("number of frames of all instances", ("instance", "series", "study"), _frames),
    "orientation": Fact(
        "how slices lie, from ImageOrientationPatient: `oblique` is more than 37 degrees off, `mixed` is several",
        ("instance", "series"),
        _orientation,
        ("axial", "coronal", "sagittal", "oblique", "mixed"),
    ),
    "slice_spacing_mm": Fact(
        "usual distance of slices by their positions, else SpacingBetweenSlices", ("series",), _slice_spacing
    ),
    "extent_mm": Fact("what the slices cover along their normal", ("series",), _extent),
    "pixel_spacing_mm": Fact(
        "greater of PixelSpacing's two values, else of ImagerPixelSpacing's",
        ("instance", "series"),
        _pixel_spacing,
    ),
}
