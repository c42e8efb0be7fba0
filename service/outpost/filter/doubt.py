"""Which findings of the pixel verdict, where a rule set accepts them, make a result doubtful.

The one place where a finding becomes doubt, for every task.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from outpost.codes.notes import Note, NoteCode
from outpost.filter.pixel_codes import PixelCode

# Writing on an image says nothing against what the image shows.
_DOUBTS: Final = frozenset(PixelCode) - {PixelCode.PIXELS_TEXT}


def with_doubt(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The notes, and beside each finding that casts doubt that the result is doubtful, and by what."""
    told: list[Note] = []
    for note in notes:
        told.append(note)
        if note.code in _DOUBTS:
            told.append(Note(NoteCode.RESULT_DOUBTFUL, f"{note.code}: {note.detail}"))
    return tuple(told)
