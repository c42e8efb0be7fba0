"""What is watched: the header attributes by their DICOM keywords, and what the service adds.

Nothing here names a person: age is counted in decades, and no identifier, date, description or comment is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a tag is counted."""

    CATEGORY = "category"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Tag:
    """One watched quantity; `told` is what a page calls it."""

    name: str
    kind: Kind
    told: str


def _table(*rows: tuple[str, str, str]) -> dict[str, Tag]:
    return {name: Tag(name, Kind(kind), told) for name, kind, told in rows}


# Of each image; images of a series that agree in all of these count once.
HEADER = _table(
    ("Modality", "category", "modality"),
    ("Manufacturer", "category", "manufacturer"),
    ("ManufacturerModelName", "category", "model of the device"),
    ("BodyPartExamined", "category", "body part"),
    ("ViewPosition", "category", "view position"),
    ("PhotometricInterpretation", "category", "photometric interpretation"),
    ("BitsStored", "category", "bits stored"),
    ("Rows", "number", "rows, pixels"),
    ("Columns", "number", "columns, pixels"),
    ("KVP", "number", "tube voltage, kV"),
    ("Exposure", "number", "exposure, mAs"),
    ("PixelSpacing", "number", "pixel spacing, mm"),
    ("PatientAge", "category", "age, decade"),
    ("PatientSex", "category", "sex"),
)
# Of what was read of an image or volume, in stored or rescaled values; the last is a share of pixels.
PIXELS = _table(
    ("pixels.mean", "number", "mean of the pixels"),
    ("pixels.sd", "number", "standard deviation of the pixels"),
    ("pixels.p01", "number", "1st percentile of the pixels"),
    ("pixels.p50", "number", "median of the pixels"),
    ("pixels.p99", "number", "99th percentile of the pixels"),
    ("pixels.extremes", "number", "share of pixels at the least or greatest value"),
)
# Of each study.
STUDY = _table(
    ("Outcome", "category", "how studies end"),
    ("Rung", "category", "rung of the ladder"),
    ("InferenceSeconds", "number", "seconds to compute a study"),
)
# Of all senders together.
SENDERS = _table(("Sender", "category", "sending AE title"))

OUTPUT_PREFIX = "output."
_KNOWN = HEADER | PIXELS | STUDY | SENDERS


def tag_of(name: str) -> Tag | None:
    """The tag of this name; numbers that a task gives of its answers are called `output.` and their name."""
    if name.startswith(OUTPUT_PREFIX):
        return Tag(name, Kind.NUMBER, f"answer: {name.removeprefix(OUTPUT_PREFIX).replace('_', ' ')}")
    return _KNOWN.get(name)
