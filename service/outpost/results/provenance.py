"""How a result was made, what it says of itself, and by which words its reader sees that."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from outpost.codes.notes import NOTES, Note

MANUFACTURER: Final = "Outpost"
FULL: Final = "full"


@dataclass(frozen=True, slots=True)
class ResultObject:
    """Identity of one DICOM object that was made."""

    sop_uid: str
    sop_class: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A result of an earlier revision of the same study, which this one replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a result was made; every word of it is written into the result.

    `notes` are what it says of itself beside its answer, `replaces` the results of earlier revisions.
    """

    model: str
    model_version: str
    engine: str
    precision: str
    rung: str
    device: str
    notes: tuple[Note, ...] = ()
    replaces: tuple[Replaced, ...] = ()


def result_uid(study_uid: str, revision: int, model: str, model_version: str, part: str) -> str:
    """A UID that is the same for the same result however often it is made, and differs for any other.

    Derived by name-based UUID (RFC 9562 version 5) under the root for UUIDs, 2.25 (PS3.5 B.2).
    """
    name = "\n".join((study_uid, str(revision), model, model_version, part))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def rung_remark(provenance: Provenance) -> str:
    """What stands first in a result computed on a lower rung of the ladder; empty on the full one."""
    return "" if provenance.rung == FULL else f"REDUCED: rung {provenance.rung}"


def remarks(provenance: Provenance) -> tuple[str, ...]:
    """What a reader must see before the answer: a part, doubt, a lower rung. The first is the gravest."""
    by_kind: dict[str, list[str]] = {"part": [], "doubt": []}
    for note in provenance.notes:
        text = NOTES.get(note.code)  # type: ignore[call-overload] # a StrEnum's members are found by their text
        if text is not None and text.kind in by_kind and text.short not in by_kind[text.kind]:
            by_kind[text.kind].append(text.short)
    rung = rung_remark(provenance)
    return (*by_kind["part"], *by_kind["doubt"], *([rung] if rung else []))


def replaces_text(provenance: Provenance) -> str:
    """That the result takes the place of an earlier one; empty where it does not."""
    if not provenance.replaces:
        return ""
    return f"Replaces the result of revision {max(one.revision for one in provenance.replaces)}"


def with_remark(provenance: Provenance, text: str, length: int | None = None) -> str:
    """A text with the remarks before it, cut to `length` characters at its end.

    Remarks that do not fit together are told by their first word each: none may be lost behind another.
    """
    told = remarks(provenance)
    head = ". ".join(told)
    if length is not None and len(head) > length:
        head = ", ".join(dict.fromkeys(remark.partition(":")[0] for remark in told))
    return (f"{head}. {text}" if head else text)[:length]
