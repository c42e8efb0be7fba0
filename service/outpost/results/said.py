"""What every result says of itself, in codes that a program finds: its notes, its maker, what it replaces.

A part, doubt, a lower rung:
    first in SeriesDescription, and in the summary (SR) or ContentDescription and SegmentDescription (SEG).
Notes, coded:
    SR: a container NOTES with a CODE item for each, its facts as TEXT below it. SEG: DerivationCodeSequence (General
    Image, PS3.3 C.7.6.1: a coded description of how this image was derived).
Notes, as text:
    SR: TEXT items of that container. SEG: DerivationDescription and SegmentDescription.
How it was made:
    ContributingEquipmentSequence with the purpose 109102 Processing Equipment (SOP Common, PS3.3 C.12.1), in both.
What it replaces:
    SR: PredecessorDocumentsSequence (PS3.3 C.17.2). SEG: ReferencedImageSequence (General Reference, PS3.3 C.12.4)
    with the purpose REPLACED, listed in the Common Instance Reference module too.

A segmentation is an image: the standard's list of predecessors is for documents alone, and Referenced Instances are
those that are no images. No code of the standard says "replaces" of an image, so the purpose is of our own scheme.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from outpost import __version__
from outpost.codes.notes import NOTES, Note, NoteCode
from outpost.results.provenance import MANUFACTURER, Provenance, Replaced, remarks, replaces_text

# Codes of ours (PS3.16 8.2: a private scheme begins with 99).
SCHEME: Final = "99OUTPOST"
# A Code Value has 16 characters at most.
_SHORT: Final[dict[str, str]] = {
    NoteCode.TEXT_KEPT_AS_SENT: "TEXT_AS_SENT",
    NoteCode.GREY_VALUES_MAPPED: "GREY_MAPPED",
    "PIXELS_SCREEN_CAPTURE": "PIXELS_SCREEN",
    "PIXELS_PHOTOMETRIC": "PIXELS_PHOTOM",
}
_LONGEST_VALUE: Final = 16
_LONGEST_MEANING: Final = 64
_LONGEST_SHORT_TEXT: Final = 1024  # ST


def code_value(code: str) -> str:
    """The code of a note as a DICOM Code Value: at most 16 characters, another one for each code."""
    if len(code) <= _LONGEST_VALUE:
        return code
    return _SHORT.get(code) or f"{code[:11]}_{zlib.crc32(code.encode()) & 0xFFFF:04x}"


def meaning(code: str) -> str:
    """What a note means, in at most 64 characters of ASCII."""
    text = NOTES.get(code)  # type: ignore[call-overload] # a StrEnum's members are found by their text
    return (text.short if text is not None else code.replace("_", " ").capitalize())[:_LONGEST_MEANING]


def code_item(concept: Any) -> Dataset:
    """A code with `value`, `meaning`, and `scheme_designator` or `scheme`, as a Code Sequence item (PS3.3 8.8)."""
    scheme = getattr(concept, "scheme_designator", None) or concept.scheme
    return _code(concept.value, str(scheme), concept.meaning)


def own_code(value: str, told: str) -> Dataset:
    """A code of our scheme."""
    return _code(value, SCHEME, told)


def note_code(note: Note) -> Dataset:
    """A note as a code of our scheme."""
    return own_code(code_value(note.code), meaning(note.code))


def note_text(note: Note) -> str:
    """A note as a sentence: what it means, and the facts."""
    return f"{meaning(note.code)}: {note.detail}" if note.detail else meaning(note.code)


def in_short_text(parts: Iterable[str]) -> str:
    """Sentences as one text that fits 1024 characters; what does not is counted, not cut in the middle."""
    sentences = [part.rstrip(".") for part in parts if part]
    kept: list[str] = []
    for number, sentence in enumerate(sentences):
        rest = f". {len(sentences) - number} more"
        if len(". ".join([*kept, sentence])) + len(rest) > _LONGEST_SHORT_TEXT:
            if not kept:
                kept.append(sentence[: _LONGEST_SHORT_TEXT - 1])
                continue
            kept.append(f"{len(sentences) - number} more")
            break
        kept.append(sentence)
    return ". ".join(kept)


def told(provenance: Provenance) -> list[str]:
    """What a result says of itself, as sentences, the gravest first; what it replaces stands before mere remarks."""
    notes = [note for note in provenance.notes if note.detail]
    grave = remarks(provenance)
    first = [
        sentence
        for remark in grave
        for sentence in [note_text(note) for note in notes if meaning(note.code) == remark] or [remark]
    ]
    rest = [note_text(note) for note in provenance.notes if meaning(note.code) not in grave]
    return [sentence for sentence in (*first, replaces_text(provenance), *rest) if sentence]


def made_with(provenance: Provenance, revision: int) -> dict[str, str]:
    """How a result was computed, by name."""
    return {
        "engine": provenance.engine,
        "precision": provenance.precision,
        "rung": provenance.rung,
        "device": provenance.device,
        "revision": str(revision),
    }


def say_maker(result: Dataset, provenance: Provenance, revision: int, now: datetime) -> None:
    """Write down that we made it. Archives that overwrite Manufacturer leave this alone: results are known by it."""
    how = ", ".join(f"{name} {value}" for name, value in made_with(provenance, revision).items())
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.ProcessingEquipment)]
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = provenance.model[:64]
    equipment.SoftwareVersions = __version__
    equipment.DeviceSerialNumber = provenance.device[:64]
    equipment.ContributionDateTime = now.strftime("%Y%m%d%H%M%S%z")
    equipment.ContributionDescription = in_short_text(
        [f"{provenance.model} {provenance.model_version}, {how}", *told(provenance)]
    )
    result.ContributingEquipmentSequence = [equipment]
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = f"Codes of {MANUFACTURER}"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    result.CodingSchemeIdentificationSequence = [scheme]


def reference(sop_class: str, sop_uid: str) -> Dataset:
    """One item of a Referenced SOP Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_uid
    return item


def replaced_by_series(replaces: Sequence[Replaced], sop_class: str) -> dict[str, list[Dataset]]:
    """References to the replaced results of one SOP class, by series."""
    found: dict[str, list[Dataset]] = {}
    for one in replaces:
        if one.sop_class_uid == sop_class:
            found.setdefault(one.series_instance_uid, []).append(reference(sop_class, one.sop_instance_uid))
    return found


def _code(value: str, scheme: str, text: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = text
    return item
