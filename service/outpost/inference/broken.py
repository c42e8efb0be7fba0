"""Objects of a study that cannot be read: left out under their own code while the rest is computed, and said so.

A broken object that no model reads costs nothing. One that says it is an image the model reads, in the very series
that was chosen, would make a part pass for the whole: of a volume it ends the study; of single images the result says
that some could not be read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from outpost.codes.notes import Note, NoteCode
from outpost.filter.verdict import Finding, HeaderVerdict
from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import Unreadable, counted


def wanted_of(unreadable: Sequence[Unreadable], classes: Collection[str]) -> list[Unreadable]:
    """Those that may be images the model reads: of one of its classes, or of a class that nothing tells."""
    return [one for one in unreadable if not one.sop_class_uid or one.sop_class_uid in classes]


def require_something(unreadable: Sequence[Unreadable], headers: int) -> None:
    """Raise InputRejected where nothing of a study can be read."""
    if unreadable and not headers:
        raise InputRejected(
            Code.HEADER_UNREADABLE, f"none of {len(unreadable)} objects can be read ({counted(unreadable)})"
        )


def require_no_part(wanted: Sequence[Unreadable], images: Sequence[Dataset]) -> None:
    """Refuse a volume to whose series images belong that cannot be read.

    Args:
        wanted: of `wanted_of`.
        images: what was chosen.

    Raises:
        InputRejected: HEADER_UNREADABLE.
    """
    chosen = {str(image.get("SeriesInstanceUID", "")) for image in images}
    parts = [one for one in wanted if not one.series_instance_uid or one.series_instance_uid in chosen]
    if parts:
        raise InputRejected(
            Code.HEADER_UNREADABLE,
            f"{len(parts)} objects that seem to be of the series of {len(images)} images cannot be read "
            f"({counted(parts)}): a result on the rest would pass for the whole",
        )


def blamed(rejection: InputRejected, wanted: Sequence[Unreadable]) -> InputRejected:
    """The reason of a study that is refused while images of it cannot be read: these come first."""
    if not wanted or rejection.hold or rejection.code.startswith("PIXELS_"):
        return rejection
    return InputRejected(
        Code.HEADER_UNREADABLE,
        f"{len(wanted)} objects that may be images the model reads cannot be read ({counted(wanted)}); of the rest: "
        f"{rejection.code}, {rejection.message}",
    )


def notes_of(unreadable: Sequence[Unreadable], wanted: Sequence[Unreadable]) -> tuple[Note, ...]:
    """What a result says of what was left out: that images are missing in it is the graver of the two."""
    others = [one for one in unreadable if one not in wanted]
    notes = []
    if wanted:
        notes.append(Note(NoteCode.IMAGES_NOT_READ, counted(wanted)))
    if others:
        notes.append(Note(NoteCode.OBJECT_LEFT_OUT, counted(others)))
    return tuple(notes)


def counted_in(verdict: HeaderVerdict, unreadable: Sequence[Unreadable]) -> HeaderVerdict:
    """The header verdict with what could not be read among what was left out."""
    if not unreadable:
        return verdict
    finding = Finding(
        "header", Code.HEADER_UNREADABLE, "exclude", "the study", len(unreadable), counted(unreadable)
    )
    return replace(verdict, findings=(finding, *verdict.findings), judged=verdict.judged + len(unreadable))
