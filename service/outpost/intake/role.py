"""What an instance is to the model of this host: an image it may read, another object, or a result that came back.

Only images set anything going. A PACS that routes every new object of a study back to us would otherwise make an
endless loop of studies and results; and presentation states, reports, key objects, dose, documents come to a study
for months after it was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID

from outpost.intake.header import Header, read_attributes
from outpost.results.provenance import MANUFACTURER

Role = Literal["image", "other", "own"]

# What results are written as, ours or what others make of them: segmentations, parametric maps, structured reports,
# presentation states, secondary captures, encapsulated documents, RT structure sets, real world values.
_RESULT_CLASSES: Final = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(66|30|88|11|7|104|481|67)(\.|$)")
_MADE_BY: Final = ("Manufacturer", "ContributingEquipmentSequence", "SegmentSequence")


def role_of(
    path: Path,
    header: Header,
    model_reads: Collection[str] | None,
    is_result: Callable[[str, str], bool],
) -> Role:
    """The role of a received Part 10 file.

    Args:
        path: the file; it is looked into only where its class is one that results have, or that no model reads.
        header: of the file.
        model_reads: SOP classes that the model here reads; None where there is none that says so: then every storage
            class of images is one.
        is_result: whether the journal knows an instance or series UID as a result of ours.
    """
    result_class = _RESULT_CLASSES.match(header.sop_class) is not None
    read = reads(header.sop_class, model_reads)
    if read and not result_class:
        return "image"
    if is_result(header.sop_uid, header.series_uid) or _made_by_us(path, result_class):
        return "own"
    return "image" if read else "other"


def reads(sop_class: str, model_reads: Collection[str] | None) -> bool:
    """Whether a model reads this SOP class; where no model says what it reads, whether images are stored by it."""
    return sop_class in model_reads if model_reads is not None else "Image Storage" in UID(sop_class).name


def _made_by_us(path: Path, result_class: bool) -> bool:
    """Whether the object itself says so, however it came here and whoever has re-encoded it."""
    try:
        with path.open("rb") as file:
            dataset = read_attributes(file, _MADE_BY)
        return (result_class and _says(dataset, "Manufacturer")) or _contributed(dataset)
    except Exception:
        return False  # pydicom raises many types on what it cannot parse; an object like that is none of ours


def _contributed(dataset: Dataset) -> bool:
    return any(
        _says(item, "Manufacturer") for item in _items(dataset, "ContributingEquipmentSequence")
    ) or any(
        _says(algorithm, "AlgorithmSource")
        for segment in _items(dataset, "SegmentSequence")
        for algorithm in _items(segment, "SegmentationAlgorithmIdentificationSequence")
    )


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    return list(dataset.get(keyword) or ())


def _says(dataset: Dataset, keyword: str) -> bool:
    return str(dataset.get(keyword) or "").strip() == MANUFACTURER
