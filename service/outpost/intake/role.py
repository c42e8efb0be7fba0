"""What an instance is to the model of this host: an image it may read, another object, or a result that came back.

Only images set anything going. A PACS that routes every new object of a study back to us would otherwise make an
endless loop of studies and results; and presentation states, reports, key objects, dose, documents come to a study
for months after it was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, Literal

from pydicom.uid import UID

from outpost.intake.header import Header
from outpost.results.provenance import MANUFACTURER

Role = Literal["image", "other", "own"]

# What results are written as, ours or what others make of them: segmentations, parametric maps, structured reports,
# presentation states, secondary captures, encapsulated documents, RT structure sets, real world values.
_RESULT_CLASSES: Final = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(66|30|88|11|7|104|481|67)(\.|$)")


def role_of(
    header: Header,
    model_reads: Collection[str] | None,
    is_result: Callable[[str, str], bool],
) -> Role:
    """The role of a received Part 10 file.

    Args:
        header: of the file.
        model_reads: SOP classes that the model here reads; None where there is none that says so: then every storage
            class of images is one.
        is_result: whether the journal knows an instance or series UID as a result of ours.
    """
    result_class = _RESULT_CLASSES.match(header.sop_class) is not None
    read = reads(header.sop_class, model_reads)
    if read and not result_class:
        return "image"
    if is_result(header.sop_uid, header.series_uid) or _made_by_us(header, result_class):
        return "own"
    return "image" if read else "other"


def reads(sop_class: str, model_reads: Collection[str] | None) -> bool:
    """Whether a model reads this SOP class; where no model says what it reads, whether images are stored by it."""
    return sop_class in model_reads if model_reads is not None else "Image Storage" in UID(sop_class).name


def _made_by_us(header: Header, result_class: bool) -> bool:
    """Whether the object itself says so, however it came here and whoever has re-encoded it."""
    return (result_class and header.manufacturer == MANUFACTURER) or MANUFACTURER in header.made_by
