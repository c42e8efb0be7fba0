"""Reading the mart: what page, JSON, metrics and table show. Nothing here waits for a region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import class_row

COLOURS = ("green", "amber", "red")
STATES = ("fresh", "late", "stale", "dead", "incompatible", "never")


@dataclass(frozen=True, slots=True)
class Region:
    """One line of fleet.freshness. Seconds as floats; times aware, UTC."""

    region: str
    title: str
    state: str
    age_seconds: float | None
    data_through: datetime | None
    rows: int
    skew_seconds: float | None
    reason: str
    error_class: str | None
    failing_since: datetime | None
    consecutive_failures: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    rows_total: int | None
    rows_behind: int | None
    took_seconds: float | None
    release: str | None
    colour: str = "red"
    health: str = ""
    health_ru: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """One line of fleet.health: whether one system of a region works. `system` is None where none is known.

    `codes`, `why` and `why_ru` are one reason each, in one order; `reasons` is all in a line.
    `since`: when the worst of them began, or, of a green one, since when it works. `beat_at` and `read_at`: the
    centre's clock. What the system said of itself is None where it has said nothing.
    """

    region: str
    title: str
    system: str | None
    colour: str
    reasons: str
    reasons_ru: str
    codes: list[str]
    since: datetime
    beat_at: datetime | None
    beat_age_seconds: float | None
    read_at: datetime | None
    status: str | None
    failing: list[str] | None
    ready: bool | None
    rung: str | None
    receive_only: str | None
    queue: int | None
    oldest_pending_seconds: float | None
    outbox: int | None
    oldest_outbox_seconds: float | None
    disk_free_mib: int | None
    disk_used_percent: float | None
    disk_reserve_mib: int | None
    certificate_until: datetime | None
    release: str | None
    bundle: str | None
    bundle_version: str | None
    boots: int | None
    starts: int | None
    skew_seconds: float | None
    why: list[str]
    why_ru: list[str]


@dataclass(frozen=True, slots=True)
class Removed:
    """A region that was taken out of service, when, and when its last study was received; aware, UTC."""

    region: str
    title: str
    removed_at: datetime
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Counted:
    """One line of fleet.summary: studies of a region that ended alike. Each study counts once."""

    region: str
    system: str
    outcome: str
    model: str | None
    model_version: str | None
    rung: str | None
    studies: int
    last_received_at: datetime | None
    last_finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Marked:
    """One line of fleet.marked: results of a region that say they are of a part of their study, or in doubt.

    `told` is false where the region does not say (contract 1, or never read); the counts are then None. They are of
    results delivered in the last day, `newest_...` of the last one of any day.
    """

    region: str
    told: bool
    partial_day: int | None
    doubtful_day: int | None
    newest_at: datetime | None
    newest_system: str | None
    newest_study_key: str | None
    newest_revision: int | None
    newest_partial: bool | None
    newest_doubtful: bool | None
    newest_notes: list[str] | None


@dataclass(frozen=True, slots=True)
class Study:
    """One revision of one study, with how old the region's data is."""

    region: str
    study_key: str
    revision: int
    system: str
    modality: str | None
    received_at: datetime
    finished_at: datetime | None
    outcome: str
    reason: str | None
    instances: int
    model: str | None
    model_version: str | None
    engine: str | None
    precision: str | None
    rung: str | None
    device: str | None
    inference_seconds: float | None
    release: str | None
    state: str
    age_seconds: float | None
    data_through: datetime | None
    notes: list[str] | None  # codes; None where the region does not say
    partial: bool | None
    doubtful: bool | None


def freshness(connection: psycopg.Connection) -> list[Region]:
    """Every attached region, in order of its code."""
    names = ", ".join(Region.__dataclass_fields__)
    with connection.cursor(row_factory=class_row(Region)) as cursor:
        return cursor.execute(f"SELECT {names} FROM fleet.freshness ORDER BY region").fetchall()


def removed(connection: psycopg.Connection) -> list[Removed]:
    """Every region that was taken out of service, the last one first. Its studies stay in the totals."""
    with connection.cursor(row_factory=class_row(Removed)) as cursor:
        return cursor.execute(
            "SELECT r.region, r.title, r.removed_at, (SELECT max(s.received_at) FROM fleet.studies_store s"
            " WHERE s.region = r.region) AS last_at FROM fleet.regions r WHERE r.removed_at IS NOT NULL"
            " ORDER BY r.removed_at DESC, r.region"
        ).fetchall()


def health(connection: psycopg.Connection) -> list[Health]:
    """Every system of every attached region, what is worst first."""
    names = ", ".join(Health.__dataclass_fields__)
    with connection.cursor(row_factory=class_row(Health)) as cursor:
        return cursor.execute(
            f"SELECT {names} FROM fleet.health"
            " ORDER BY array_position(ARRAY['red', 'amber', 'green'], colour), since, region, system"
        ).fetchall()


def summary(connection: psycopg.Connection) -> list[Counted]:
    """Studies counted by region, system, outcome, model and rung."""
    names = ", ".join(Counted.__dataclass_fields__)
    with connection.cursor(row_factory=class_row(Counted)) as cursor:
        return cursor.execute(
            f"SELECT {names} FROM fleet.summary ORDER BY region, system, outcome, model, model_version, rung"
        ).fetchall()


def marked(connection: psycopg.Connection) -> list[Marked]:
    """What was marked partial or doubtful, region by region, in order of its code."""
    names = ", ".join(Marked.__dataclass_fields__)
    with connection.cursor(row_factory=class_row(Marked)) as cursor:
        return cursor.execute(f"SELECT {names} FROM fleet.marked ORDER BY region").fetchall()


def newest_studies(connection: psycopg.Connection, region: str | None, limit: int) -> list[Study]:
    """The studies received last, newest first; of one region if named."""
    own = [
        name for name in Study.__dataclass_fields__ if name not in ("state", "age_seconds", "data_through")
    ]
    # As fleet.studies, but limited before the join: then each partition is read only from its newest end.
    with connection.cursor(row_factory=class_row(Study)) as cursor:
        return cursor.execute(
            f"SELECT s.*, coalesce(f.state, 'removed') AS state, f.age_seconds, f.data_through FROM ("
            f" SELECT {', '.join(own)} FROM fleet.studies_store"
            " WHERE %(region)s::text IS NULL OR region = %(region)s"
            " ORDER BY received_at DESC LIMIT %(limit)s) s"
            " LEFT JOIN fleet.freshness f ON f.region = s.region ORDER BY s.received_at DESC",
            {"region": region, "limit": limit},
        ).fetchall()


def headline(regions: Sequence[Region]) -> str:
    """What comes with every total: how many of the regions work, and for how many it really speaks."""
    if not regions:
        return "no region is attached yet"
    colours = Counter(region.colour for region in regions)
    states = Counter(region.state for region in regions)
    wrong = ", ".join(f"{colours[colour]} {colour}" for colour in ("red", "amber") if colours[colour])
    others = ", ".join(f"{states[state]} {state}" for state in STATES[1:] if states[state])
    return (
        f"{colours['green']} of {len(regions)} regions work"
        + (f" ({wrong})" if wrong else "")
        + f"; data of {states['fresh']} fresh"
        + (f" ({others})" if others else "")
    )


def age(seconds: float | None) -> str:
    """An age for people: 4 s, 3 min, 5 h, 12 d; a dash when unknown."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(when: datetime | None) -> str:
    """A time for people, UTC; a dash when there is none."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if when else "-"


def marks(partial: bool | None, doubtful: bool | None) -> str:
    """What a result says of itself, in a word or two; a dash for one that says nothing."""
    return ", ".join(word for word, so in (("partial", partial), ("doubtful", doubtful)) if so) or "-"


def marked_day(region: Marked, count: int | None) -> str:
    """A count of the last day for people; words where the region does not tell."""
    return str(count or 0) if region.told else "not told"


def marked_newest(region: Marked) -> str:
    """When, what and which the newest marked result is; a dash where there is none."""
    if region.newest_at is None:
        return "-"
    which = f"{region.newest_system} {(region.newest_study_key or '')[:12]} r{region.newest_revision}"
    return f"{moment(region.newest_at)} {marks(region.newest_partial, region.newest_doubtful)}, {which}"


def model_name(counted: Counted) -> str:
    """Model with its version; a dash when none ran."""
    return " ".join(filter(None, (counted.model, counted.model_version))) or "-"
