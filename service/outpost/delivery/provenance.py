"""Words by which a reader of a result sees that it was computed with less than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outpost.delivery.seg import Provenance

FULL = "full"


def rung_remark(provenance: Provenance) -> str:
    """What stands first in a result computed on a lower rung of the ladder; empty on the full one."""
    return "" if provenance.rung == FULL else f"REDUCED: rung {provenance.rung}"


def with_remark(provenance: Provenance, text: str, length: int | None = None) -> str:
    """A text with the remark before it, cut to `length` characters at the end, never at the remark."""
    remark = rung_remark(provenance)
    return (f"{remark}. {text}" if remark else text)[:length]
