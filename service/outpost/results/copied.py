"""What a result repeats of its source: the patient and the study, so that a PACS files it beside the images.

A value that only names something never costs a result. Each attribute is dealt with in one of these ways, and nothing
else is copied: no private element, no remark on the patient, no physician but the referring one.

Kept byte for byte, whatever is in it (too long, a backslash, control characters), as archives file and search by it:
    PatientName, PatientID, IssuerOfPatientID, OtherPatientNames, StudyID, AccessionNumber, ReferringPhysicianName,
    StudyDescription, DeidentificationMethod, species, breed and owner, subject and protocol of a trial (PN, LO, SH,
    UC); Manufacturer and the like of the device that made the images.
Kept byte for byte (leading zeros too), as viewers match by it:
    StudyInstanceUID, FrameOfReferenceUID (UI).
Kept byte for byte where DICOM allows the value (PS3.5 6.2), else left out, as an archive may fail on a date that is
none and finds nobody by it:
    PatientBirthDate, StudyDate (DA), PatientBirthTime, StudyTime (TM), PatientAge (AS), PatientSize, PatientWeight
    (DS), PatientSex, TypeOfPatientID, PatientIdentityRemoved, QualityControlSubject (CS), TimezoneOffsetFromUTC (SH).
Kept item by item by the same rules, without what is private or a sequence in them:
    OtherPatientIDsSequence, IssuerOfPatientIDQualifiersSequence, IssuerOfAccessionNumberSequence,
    DeidentificationMethodCodeSequence (SQ).
Left out, whatever the VR: a value longer than 16,382 bytes, which might not fit its field in another character set.

What is left out is named in a note VALUE_LEFT_OUT by keyword and VR. Attributes that the standard wants present
(type 2) are then empty.

**Texts.** Bytes are copied with the SpecificCharacterSet they came with, or without one if they came without: whatever
an archive makes of the images, it makes of the result. All words of our own are plain ASCII, which every character set
of DICOM contains; a bundle's word that is not is written in UTF-8 where the source's texts can be decoded for certain,
else without its accents. Where they cannot be decoded for certain (no label, an unknown one, bytes that it does not
allow), the note TEXT_KEPT_AS_SENT says so.

A site may say what a sender's texts are really encoded in. They are then decoded by it and written as ISO_IR 192, if
all of them can be; a label of UTF-8 that all texts obey is believed before it. Wanted where the archive decodes
unlabelled texts by a setting of its own (Orthanc's DefaultEncoding) and others who read the result do not know it. An
archive that compares bytes wants no such setting.
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from io import BytesIO
from typing import Final, TypeAlias

from pydicom import charset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import correct_ambiguous_vr, write_dataset
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from outpost.codes.notes import Note, NoteCode
from outpost.results.said import code_item

Element: TypeAlias = RawDataElement | DataElement

# Type 2 in the modules Patient and General Study: present in every result, empty where there is nothing to say.
ALWAYS: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# Present where the sender gave them.
IF_THERE: Final = (
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "QualityControlSubject",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "PatientSpeciesDescription",
    "PatientBreedDescription",
    "ResponsiblePerson",
    "ResponsibleOrganization",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "TimezoneOffsetFromUTC",
)
KEYWORDS: Final = ("SpecificCharacterSet", *ALWAYS, *IF_THERE, "FrameOfReferenceUID")
# Of the device that made the images; it stands as a contributor in the result. Texts, kept byte for byte.
EQUIPMENT: Final = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)

_TEXT_VRS: Final = frozenset({"PN", "LO", "SH", "UC", "LT", "ST", "UT"})
_UID_VRS: Final = frozenset({"UI"})
_CHARACTER_SET: Final = Tag("SpecificCharacterSet")
_UTF8: Final = b"ISO_IR 192"
# A short field's length is counted in 16 bits in Explicit VR, and a text may grow fourfold in UTF-8.
_LONGEST: Final = 0x3FFE
_LONGEST_LABEL: Final = 1024
_MOST_ITEMS: Final = 64
# Single-byte default repertoire: with any of these as label, or none, only ASCII is certain.
_DEFAULT_LABELS: Final = ("", "ISO_IR 6", "ISO 2022 IR 6")


# --- values that are checked ---


def _is_date(value: str) -> bool:
    if re.fullmatch(r"[0-9]{8}", value) is None:
        return False
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True


def _is_time(value: str) -> bool:
    found = re.fullmatch(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.[0-9]{1,6})?)?)?", value)
    if found is None:
        return False
    hour, minute, second = (int(part or 0) for part in found.groups())
    return hour < 24 and minute < 60 and second <= 60


def _is_decimal(value: str) -> bool:
    return (
        len(value) <= 16
        and re.fullmatch(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *", value) is not None
        and math.isfinite(float(value))
    )


def _is_offset(value: str) -> bool:
    found = re.fullmatch(r"([+-])([0-9]{2})([0-9]{2})", value)
    if found is None or value == "-0000" or int(found[3]) > 59:
        return False
    return -12 * 60 <= int(found[1] + "1") * (int(found[2]) * 60 + int(found[3])) <= 14 * 60


def _one_of(*allowed: str) -> Callable[[str], bool]:
    return lambda value: value in allowed


_BY_KEYWORD: Final[dict[str, Callable[[str], bool]]] = {
    "PatientSex": _one_of("M", "F", "O"),
    "PatientIdentityRemoved": _one_of("YES", "NO"),
    "QualityControlSubject": _one_of("YES", "NO"),
    "TimezoneOffsetFromUTC": _is_offset,
}
_BY_VR: Final[dict[str, Callable[[str], bool]]] = {
    "DA": _is_date,
    "TM": _is_time,
    "AS": lambda value: re.fullmatch(r"[0-9]{3}[DWMY]", value) is not None,
    "DS": _is_decimal,
    "CS": lambda value: re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) is not None,
}


# --- what is copied ---


@dataclass(frozen=True, slots=True)
class Copied:
    """Elements of one source image that its result repeats, as bytes.

    Attributes:
        elements: of patient and study; each raw, Explicit VR Little Endian, or a sequence of such.
        equipment: of the device that made the images, in the same form.
        frame_of_reference: the bytes of its UID.
        label: SpecificCharacterSet as it came; None where there is none.
        encodings: by which all texts can be decoded for certain (names that Python's codecs know); None where they
            cannot.
        notes: what was left out, and that texts are kept as sent.
        zone: what dates and times of the result are in; None is that of this host.
    """

    elements: tuple[Element, ...]
    equipment: tuple[Element, ...] = ()
    frame_of_reference: bytes = b""
    label: bytes | None = None
    encodings: tuple[str, ...] | None = ()
    notes: tuple[Note, ...] = ()
    zone: timezone | None = None

    def put_into(self, result: Dataset) -> None:
        """Give a result that is otherwise finished the patient and study, and texts that fit beside them."""
        copied = self
        if not all(value.isascii() for value in _own_texts(result)):
            if self.encodings is None:
                _strip_accents(result)
            else:
                copied = self.in_utf8()
        result.pop(_CHARACTER_SET, None)
        if copied.label:
            result[_CHARACTER_SET] = _raw(_CHARACTER_SET, "CS", copied.label)
        for element in copied.elements:
            result[element.tag] = element
        if "FrameOfReferenceUID" in result and self.frame_of_reference:
            tag = Tag("FrameOfReferenceUID")
            result[tag] = _raw(tag, "UI", self.frame_of_reference)
        if any(element.tag == Tag("Manufacturer") for element in copied.equipment):
            maker = Dataset()
            for element in copied.equipment:
                maker[element.tag] = element
            maker.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.AcquisitionEquipment)]
            result.ContributingEquipmentSequence = [maker, *result.get("ContributingEquipmentSequence", ())]
        keep_bytes(result)

    def now(self) -> datetime:
        """The present as this result writes it: in the zone that it names, else in this host's."""
        return datetime.now().astimezone(self.zone)

    def in_utf8(self) -> Copied:
        """The same with all texts in UTF-8. Only where they can be decoded for certain."""
        assert self.encodings is not None  # the caller looked
        encodings = list(self.encodings)

        def recoded(value: bytes) -> bytes:
            text = value.decode("ascii") if _is_plain(value) else _decoded(value, encodings)
            assert text is not None  # as was tried
            return text.encode()

        return replace(
            self,
            elements=_with_texts(self.elements, recoded),
            equipment=_with_texts(self.equipment, recoded),
            label=_UTF8,
            encodings=("utf-8",),
        )


def copied_from(source: Dataset, character_set: str = "") -> Copied:
    """Take from a source image what its result repeats; never fails on a value.

    Args:
        source: holds at least the attributes `KEYWORDS` and `EQUIPMENT` it came with, best as they were read: an
            element that somebody decoded is encoded again.
        character_set: what the site says its texts are really encoded in, as a name that Python's codecs know; empty
            where it says nothing.
    """
    left_out: dict[str, str] = {}
    source = _encoded(source, left_out)
    elements = [
        element
        for keyword in (*ALWAYS, *IF_THERE)
        if (element := _element(source, Tag(keyword), keyword in ALWAYS, left_out)) is not None
    ]
    equipment = [
        element
        for keyword in EQUIPMENT
        if (element := _element(source, Tag(keyword), False, left_out)) is not None
    ]
    label: bytes | None = _bytes_of(source, _CHARACTER_SET)
    if label and len(label) > _LONGEST_LABEL:
        left_out["SpecificCharacterSet"], label = "CS", None
    copied = Copied(
        elements=tuple(elements),
        equipment=tuple(equipment),
        frame_of_reference=_bytes_of(source, Tag("FrameOfReferenceUID")),
        label=label or None,
        zone=_zone(elements),
    )
    notes = []
    if left_out:
        named = ", ".join(f"{keyword} ({vr})" for keyword, vr in sorted(left_out.items()))
        notes.append(Note(NoteCode.VALUE_LEFT_OUT, f"not allowed by DICOM: {named}"))
    texts = [(keyword, value) for keyword, value in _texts((*elements, *equipment)) if not _is_plain(value)]
    values = [value for _, value in texts]
    encodings = _encodings_of_label(label or b"")
    fits = encodings is not None and _all_decode(values, encodings)
    # UTF-8 is the one encoding that bytes of another do not pass for.
    proven = fits and encodings == [charset.python_encoding["ISO_IR 192"]]
    if texts and character_set and not proven and _all_decode(values, [character_set]):
        copied = replace(copied, encodings=(character_set,)).in_utf8()
    elif texts and not fits:
        why = "no SpecificCharacterSet" if not label else "SpecificCharacterSet does not fit"
        if character_set:
            why += ", nor does the site's character set"
        named = ", ".join(dict.fromkeys(keyword for keyword, _ in texts))
        notes.append(Note(NoteCode.TEXT_KEPT_AS_SENT, f"{why}: {named}"))
        copied = replace(copied, encodings=None)
    else:
        copied = replace(copied, encodings=tuple(encodings or ("ascii",)))
    return replace(copied, notes=tuple(notes))


def keep_bytes(dataset: Dataset, implicit_vr: bool = False) -> None:
    """Have pydicom write elements that nobody decoded byte for byte, in Explicit or Implicit VR Little Endian.

    It takes bytes for those of another encoding otherwise, and decodes and encodes them again. In either syntax the
    bytes of a value are the same, sequences aside.
    """
    correct_ambiguous_vr(dataset, is_little_endian=True)  # as it would do beside
    _keep_bytes(dataset, implicit_vr)


def _keep_bytes(dataset: Dataset, implicit_vr: bool) -> None:
    for element in list(dataset.elements()):
        if element.VR == "SQ":
            for item in dataset[element.tag].value:
                _keep_bytes(item, implicit_vr)
    # What it holds against the original character set, and has no public name.
    dataset.set_original_encoding(implicit_vr, True, dataset._character_set)


# --- elements ---


def _encoded(source: Dataset, left_out: dict[str, str]) -> Dataset:
    """The attributes that are copied, each as the bytes of Explicit VR Little Endian or a sequence of such."""
    wanted = Dataset()
    decoded: list[DataElement] = []
    for keyword in (*KEYWORDS, *EQUIPMENT):
        tag = Tag(keyword)
        if tag not in source:
            continue
        element = source.get_item(tag)
        if _is_raw(element) or tag == _CHARACTER_SET:
            wanted[tag] = element
        else:
            decoded.append(element)
    if decoded:
        for encoded in _encoded_again(decoded, _bytes_of(wanted, _CHARACTER_SET), left_out):
            wanted[encoded.tag] = encoded
    return wanted


def _is_raw(element: Element) -> bool:
    """Whether nobody has decoded it, nor made it."""
    if isinstance(element, RawDataElement):
        return True
    return element.VR == "SQ" and all(_is_raw(inner) for item in element.value for inner in item.elements())


def _encoded_again(
    decoded: Sequence[DataElement], label: bytes, left_out: dict[str, str]
) -> Iterator[Element]:
    """Elements that somebody decoded, or made, as bytes again; in UTF-8 where no label says otherwise."""
    character_set = label.decode("latin-1").split("\\") if label else "ISO_IR 192"
    unlabelled = not label
    for element in decoded:
        one = Dataset()
        one[element.tag] = element
        plain = all(text.isascii() for text in _own_texts(one))
        one.SpecificCharacterSet = character_set
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        try:
            write_dataset(stream, one)
        except Exception:  # pydicom raises many types on values that are none of their VR
            left_out[element.keyword] = str(element.VR)
            continue
        again = read_dataset(BytesIO(stream.getvalue()), is_implicit_VR=False, is_little_endian=True)
        yield again.get_item(element.tag)
        if unlabelled and not plain:
            unlabelled = False
            yield _raw(_CHARACTER_SET, "CS", _UTF8)


def _element(source: Dataset, tag: BaseTag, always: bool, left_out: dict[str, str]) -> Element | None:
    """An element as the result holds it; None where it holds none."""
    keyword, vr = keyword_for_tag(tag), dictionary_VR(tag)
    if vr == "SQ":
        return _sequence(source, tag, left_out) if tag in source else None
    value = _bytes_of(source, tag)
    if value and not _may_stay(keyword, vr, value):
        left_out[keyword] = vr
        value = b""
    return _raw(tag, vr, value) if value or always else None


def _sequence(source: Dataset, tag: BaseTag, left_out: dict[str, str]) -> Element | None:
    keyword = keyword_for_tag(tag)
    try:
        items = list(source[tag].value)[: _MOST_ITEMS + 1]
    except Exception:  # pydicom raises many types on malformed sequences; this one only names something
        left_out[keyword] = "SQ"
        return None
    made = []
    for item in items:
        if _CHARACTER_SET in item:  # texts of another character set than all others: not worth the confusion
            left_out[keyword] = "SQ"
            continue
        copy = Dataset()
        for element in list(item.elements()):
            inner = element.tag
            if not inner.is_private and (name := keyword_for_tag(inner)):
                vr = dictionary_VR(inner)
                if vr == "SQ":
                    left_out[f"{keyword}.{name}"] = vr
                    continue
                value = _bytes_of(item, inner)
                if value and (vr not in _KNOWN_VRS or not _may_stay(name, vr, value)):
                    left_out[f"{keyword}.{name}"] = vr
                elif value:
                    copy[inner] = _raw(inner, vr, value)
        if copy:
            made.append(copy)
    if len(items) > _MOST_ITEMS:
        left_out[keyword] = "SQ"
        return None
    return DataElement(tag, "SQ", made) if made else None


_KNOWN_VRS: Final = _TEXT_VRS | _UID_VRS | _BY_VR.keys()


def _may_stay(keyword: str, vr: str, value: bytes) -> bool:
    if len(value) > _LONGEST:
        return False
    if keyword not in _BY_KEYWORD and vr in _TEXT_VRS | _UID_VRS:
        return True
    try:
        text = value.decode("ascii").strip(" ")
    except UnicodeDecodeError:
        return False
    return not text or _BY_KEYWORD.get(keyword, _BY_VR.get(vr, bool))(text)


def _bytes_of(source: Dataset, tag: BaseTag) -> bytes:
    """The bytes of a value, without the zeros that fill it up; nothing where it is absent or no text."""
    if tag not in source:
        return b""
    element = source.get_item(tag)
    if tag == _CHARACTER_SET and isinstance(element, DataElement):  # pydicom looks at it for its own purposes
        terms = [element.value] if isinstance(element.value, str) else list(element.value or ())
        return "\\".join(map(str, terms)).encode("latin-1", "replace")
    value = element.value if isinstance(element, RawDataElement) else None
    return value.rstrip(b"\0") if isinstance(value, bytes) else b""


def _raw(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def _zone(elements: Iterable[Element]) -> timezone | None:
    """The zone by which the study's dates and times are meant, which goes for ours beside them as well."""
    for element in elements:
        if element.tag == Tag("TimezoneOffsetFromUTC") and element.value:
            text = element.value.decode("ascii").strip()
            minutes = int(text[1:3]) * 60 + int(text[3:5])
            return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
    return None


# --- texts ---


def _is_plain(value: bytes) -> bool:
    """ASCII in every character set: an escape begins another one."""
    return value.isascii() and b"\x1b" not in value


def _texts(elements: Iterable[Element]) -> Iterator[tuple[str, bytes]]:
    """Keyword and bytes of each text, also in sequences (which alone are no raw elements)."""
    for element in elements:
        if isinstance(element, DataElement):
            for item in element.value:
                yield from _texts(item.elements())
        elif element.VR in _TEXT_VRS and element.value:
            yield keyword_for_tag(element.tag), element.value


def _with_texts(elements: Iterable[Element], change: Callable[[bytes], bytes]) -> tuple[Element, ...]:
    changed: list[Element] = []
    for element in elements:
        if isinstance(element, DataElement):
            items = []
            for item in element.value:
                copy = Dataset()
                for inner in _with_texts(item.elements(), change):
                    copy[inner.tag] = inner
                items.append(copy)
            changed.append(DataElement(element.tag, "SQ", items))
        elif element.VR in _TEXT_VRS and element.value:
            changed.append(_raw(element.tag, element.VR, change(element.value)))
        else:
            changed.append(element)
    return tuple(changed)


def _encodings_of_label(label: bytes) -> list[str] | None:
    """What SpecificCharacterSet says, as Python's codecs; None where only ASCII is certain."""
    try:
        terms = [term.strip() for term in label.decode("ascii").split("\\")]
    except UnicodeDecodeError:
        return None
    if terms[0] in _DEFAULT_LABELS and len(terms) == 1:
        return None
    if any(term not in charset.python_encoding for term in terms):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found: list[str] = charset.convert_encodings(terms)
        except Exception:  # it warns, or raises, of what it does not know
            return None
    # pydicom reads the default repertoire as Latin 1, in which any byte is a letter.
    return ["ascii", *found[1:]] if terms[0] in _DEFAULT_LABELS else found


def _all_decode(values: Iterable[bytes], encodings: list[str]) -> bool:
    return all(_decoded(value, encodings) is not None for value in values)


def _decoded(value: bytes, encodings: list[str]) -> str | None:
    """A text, or None where the encodings do not give one for certain."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            text = charset.decode_bytes(value, encodings, TEXT_VR_DELIMS | PN_DELIMS | {0x3D, 0x5C})
        except Exception:  # UnicodeError, LookupError, or a warning made one
            return None
    # Controls of the upper half stand in no name: such bytes are another code page's letters.
    return None if any("\x80" <= sign <= "\x9f" or sign in "\ufffd\x1b" for sign in text) else text


def _own_texts(result: Dataset) -> Iterator[str]:
    for element in result.elements():
        if isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _own_texts(item)
        elif element.VR in _TEXT_VRS and element.value is not None:
            yield str(element.value)


def _strip_accents(result: Dataset) -> None:
    for element in result.elements():
        if isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value:
                _strip_accents(item)
        elif element.VR in _TEXT_VRS and isinstance(element.value, str) and not element.value.isascii():
            plain = unicodedata.normalize("NFKD", element.value)
            plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
            element.value = plain.encode("ascii", "replace").decode("ascii")
