"""The ladder as people and programs see it: status, and reset; used by the service and by the command beside it."""

from __future__ import annotations

from typing import Any

from outpost.events import EventCode
from outpost.inference.ladder import Ladder
from outpost.records.journal import Journal


def status_of(ladder: Ladder) -> dict[str, Any]:
    """What the ladder knows.

    Returns:
        `rung`: where inputs begin of which nothing is known; `by_class`: the lowest where inputs of a class of shapes
        begin, None where none is left; `rungs`: all, fullest first; `failing`: what is known to fail, each with `rung`,
        `shape` (empty: any), `cause`, `failures` in a row, `failed_at` and `tried_again_at`.
    """
    rung = ladder.rung_for()
    return {
        "rung": rung.name if rung is not None else None,
        "by_class": {
            name: found.name if found is not None else None for name, found in ladder.by_class().items()
        },
        "rungs": [one.name for one in ladder.rungs],
        "failing": [
            {
                "rung": known.rung,
                "shape": list(known.shape),
                "cause": known.cause,
                "failures": known.failures,
                "failed_at": known.failed_at.isoformat(timespec="seconds"),
                "tried_again_at": again.isoformat(timespec="seconds"),
            }
            for known, again in ladder.resting()
        ],
    }


def reset(ladder: Ladder, journal: Journal, who: str) -> dict[str, Any]:
    """Forget what is known to fail, write that down, and return what there was and the status since.

    Args:
        ladder: of the running service, or of its storage while it does not run.
        journal: where the event is kept.
        who: name of the token, or empty.
    """
    forgotten = ladder.reset()
    by = f" by {who}" if who else ""
    journal.note_event(EventCode.LADDER_RESET, f"{len(forgotten)} known failures forgotten{by}")
    return {"forgotten": len(forgotten), **status_of(ladder)}
