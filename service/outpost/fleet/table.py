"""The fleet view as text, for a terminal: what `outpost fleet table` and `make demo` print."""

from __future__ import annotations

from collections.abc import Sequence

from outpost.fleet.view import (
    Counted,
    Health,
    Marked,
    Region,
    age,
    headline,
    marked_day,
    marked_newest,
    model_name,
    moment,
)


def render(
    regions: Sequence[Region],
    counted: Sequence[Counted],
    marked: Sequence[Marked] = (),
    health: Sequence[Health] = (),
) -> str:
    """The views, with the headline that says how many regions work and how many the numbers speak for."""
    parts = [headline(regions)]
    if health:
        systems = [
            (h.region, h.system or "-", h.colour.upper(), moment(h.since), age(h.beat_age_seconds), h.reasons)
            for h in health
        ]
        parts.append(columns(("REGION", "SYSTEM", "HEALTH", "SINCE (UTC)", "HEARTBEAT", "REASON"), systems))
    if regions:
        rows = [
            (r.region, r.state, age(r.age_seconds), r.release or "-", moment(r.data_through), r.reason)
            for r in regions
        ]
        parts.append(columns(("REGION", "STATE", "AGE", "RELEASE", "DATA THROUGH (UTC)", "REASON"), rows))
    if counted:
        lines = [
            (
                c.region,
                c.system,
                c.outcome,
                model_name(c),
                c.rung or "-",
                str(c.studies),
                moment(c.last_finished_at or c.last_received_at),
            )
            for c in counted
        ]
        head = ("REGION", "SYSTEM", "OUTCOME", "MODEL", "RUNG", "STUDIES", "LAST STUDY (UTC)")
        parts.append(columns(head, lines))
    else:
        parts.append("no studies yet")
    if marked:
        told = [
            (m.region, marked_day(m, m.partial_day), marked_day(m, m.doubtful_day), marked_newest(m))
            for m in marked
        ]
        parts.append(columns(("REGION", "PARTIAL, 24 H", "DOUBTFUL, 24 H", "NEWEST SUCH RESULT (UTC)"), told))
    return "\n\n".join(parts)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their headings, each column as wide as its widest value, the last one free to run on."""
    everything = [head, *rows]
    widths = [max(len(row[i]) for row in everything) for i in range(len(head))]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    )
