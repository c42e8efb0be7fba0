"""What an attribute holds, as rules compare it; and which values may be shown to whom.

Headers of a series repeat themselves: what was decoded once is not decoded again for the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from outpost.dicom.quicktag import QuickTag
from outpost.inference.header import CODE_STRING, MALFORMED, ImageHeader

Values = tuple[str | float, ...]

# Longer text is no name and no description: an expression is not let loose on a megabyte.
_LONGEST_TEXT: Final = 1024
_MOST_VALUES: Final = 256
_CHARACTER_SET: Final = QuickTag(Tag("SpecificCharacterSet"))
_NUMBERS: Final = frozenset("DS FL FD IS SL SS SV UL US UV".split())
_TEXTS: Final = frozenset("AE AS CS DA DT LO LT PN SH ST TM UC UI UR UT".split())
# Values of these kinds say nothing of who the patient is; free text may, also where it should not.
_CODED: Final = frozenset("AT CS DS FL FD IS SL SS SV UL US UV".split())
_DESCRIPTIONS: Final = frozenset(
    "BodyPartExamined CodeMeaning CodeValue ContrastBolusAgent Manufacturer ManufacturerModelName ProtocolName "
    "SequenceName SeriesDescription StudyDescription".split()
)
_PATIENT_GROUP: Final = 0x0010
# What belongs to study, series or equipment (PS3.3 A.1.2): the same in all instances of a series, so read from one.
_OF_SERIES: Final = frozenset(
    Tag(keyword)
    for keyword in "AccessionNumber BodyPartExamined DeviceSerialNumber InstitutionName InstitutionalDepartmentName "
    "Laterality Manufacturer ManufacturerModelName Modality ProtocolName QualityControlSubject "
    "ReferringPhysicianName SeriesDate SeriesDescription SeriesNumber SoftwareVersions SpecificCharacterSet "
    "StationName StudyDate StudyDescription StudyID StudyTime".split()
)
# What a header holds decoded already.
_DECODED: Final = {
    Tag("SOPClassUID"): "sop_class_uid",
    Tag("ImageType"): "image_type",
    Tag("Rows"): "rows",
    Tag("Columns"): "columns",
}


class Attribute:
    """One attribute, or one inside sequences, and how to read it from headers.

    Args:
        path: a keyword, or several joined by dots.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._tags = [Tag(part) for part in path.split(".")]
        self._first = QuickTag(self._tags[0])
        self._in_meta = self._first.group == 2
        self._seen: dict[Any, Values] = {}

    def read(self, dataset: Dataset) -> Values:
        """Its values; none where it is missing, empty or unreadable."""
        if len(self._tags) > 1:
            return tuple(_inside([dataset], self._tags))[:_MOST_VALUES]
        if self._in_meta:
            return _read(getattr(dataset, "file_meta", None), self._first)
        held = _held(dataset)
        element = held.get(self._first)
        if element is None:
            return ()
        if not isinstance(element, RawDataElement):
            return _values(element)
        character_set = held.get(_CHARACTER_SET)
        key = (element.value, element.VR, None if character_set is None else _raw(character_set))
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) > 4096:
                self._seen.clear()
            found = self._seen[key] = _read(dataset, self._first)
        return found


class Fingerprint:
    """Something equal for two headers of a series only if these attributes of theirs are; nothing is decoded for it.

    Args:
        paths: of the attributes; for one inside a sequence the whole sequence is compared.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        tags = {Tag(path.split(".")[0]) for path in paths} - _OF_SERIES
        self._tags = [QuickTag(t) for t in sorted(tags - _DECODED.keys()) if t.group != _PATIENT_GROUP]
        decoded = [_DECODED[tag] for tag in sorted(tags & _DECODED.keys())]
        self._decoded = attrgetter("series_instance_uid", "sop_class_uid", *decoded)

    def __call__(self, header: ImageHeader) -> tuple[Any, ...]:
        get = _held(header.dataset).get
        key: tuple[Any, ...] = self._decoded(header)
        for tag in self._tags:
            element = get(tag)
            key += (None if element is None else _raw(element),)
        return key


def that_differ(headers: Sequence[ImageHeader], path: str) -> Iterable[ImageHeader]:
    """Headers among which every value of an attribute is; for what a series has in common, one of each series."""
    tag = Tag(path.split(".")[0])
    if len(headers) == 1:
        return headers
    if tag in _OF_SERIES or tag.group == _PATIENT_GROUP:
        return {header.series_instance_uid: header for header in reversed(headers)}.values()
    if tag in _DECODED:
        get = attrgetter(_DECODED[tag])
        return {get(header): header for header in headers}.values()
    return headers


def shown(path: str, values: Values, *, descriptions: bool) -> str:
    """Values as a message shows them: never who the patient is, descriptions only where the reader may see them."""
    if not values:
        return "missing"
    last = path.rsplit(".", maxsplit=1)[-1]
    number = tag_for_keyword(last) or 0
    if last == "SOPClassUID":
        return UID(str(values[0])).name
    if number >> 16 != _PATIENT_GROUP and (
        dictionary_VR(last) in _CODED or (descriptions and last in _DESCRIPTIONS)
    ):
        if dictionary_VR(last) == "CS" and not all(CODE_STRING.fullmatch(str(value)) for value in values):
            return MALFORMED
        text = "\\".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        return text if len(text) <= 120 else f"{text[:117]}..."
    return "(not shown)"


def _held(dataset: Dataset) -> Any:
    """The elements as they were read, by tag: `Dataset.get_item` without a check for deferred reading each time."""
    return dataset.items().mapping  # type: ignore[attr-defined]  # of every dict's view


def _raw(element: Any) -> Any:
    value = element.value
    if isinstance(value, bytes | str | int | float) or value is None:
        return value
    if isinstance(value, MultiValue):
        return tuple(value)
    return str(value) if not isinstance(element, DataElement) or element.VR != "SQ" else _items(value)


def _items(sequence: Sequence[Dataset]) -> Any:
    return tuple(
        tuple((tag, _raw(element)) for tag, element in item.items()) for item in sequence[:_MOST_VALUES]
    )


def _inside(datasets: Sequence[Dataset], tags: Sequence[BaseTag]) -> Iterable[str | float]:
    """The values of a tag in any item of the sequences that lead to it."""
    if len(tags) == 1:
        for dataset in datasets:
            yield from _read(dataset, tags[0])
        return
    items: list[Dataset] = []
    for dataset in datasets:
        try:
            found = dataset.get(tags[0])
            items += found.value[:_MOST_VALUES] if found is not None and found.VR == "SQ" else []
        except Exception:  # noqa: S112 - an unreadable sequence is a missing one; pydicom raises many types
            continue
    yield from _inside(items, tags[1:])


def _read(dataset: Dataset | None, tag: BaseTag) -> Values:
    try:
        element = dataset.get(tag) if dataset is not None else None
        return _values(element) if element is not None else ()
    except Exception:  # an unreadable value is a missing one; pydicom raises many types
        return ()


def _values(element: DataElement) -> Values:
    """Numbers as float, text without padding; none when it is empty or holds what no rule compares."""
    value, kind = element.value, element.VR
    if value is None or value == "":
        return ()
    parts = list(value)[:_MOST_VALUES] if isinstance(value, MultiValue | list | tuple) else [value]
    if kind in _NUMBERS:
        try:
            return tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            return ()
    if kind not in _TEXTS:
        return ()
    texts = tuple(str(part)[:_LONGEST_TEXT].strip(" \0") for part in parts)
    return texts if any(texts) else ()
