"""What a result says of findings that its rule set accepts: each by its own code, and that the result is doubtful.

The one place where a finding becomes doubt, for every task.
"""

from __future__ import annotations

from typing import Final

from outpost.codes.notes import Note, NoteCode
from outpost.filter.pixel_codes import PixelCode
from outpost.filter.pixels import PixelVerdict

# Writing on an image says nothing against what the image shows.
_NO_DOUBT: Final = frozenset((PixelCode.PIXELS_TEXT,))


def notes_of(verdict: PixelVerdict, where: str = "") -> tuple[Note, ...]:
    """Notes of the findings of an accepted image or volume.

    Args:
        verdict: with nothing against computing.
        where: which image it is, without what its sender named it.
    """
    return tuple(
        note for finding in verdict.findings for note in accepted(finding.code, finding.detail, where)
    )


def accepted(code: PixelCode, detail: str, where: str = "") -> tuple[Note, ...]:
    """Notes of one finding that was accepted."""
    detail = f"{where}: {detail}" if where else detail
    note = Note(code, detail)
    return (note,) if code in _NO_DOUBT else (note, Note(NoteCode.RESULT_DOUBTFUL, f"{code}: {detail}"))
