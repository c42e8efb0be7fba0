"""`outpost status` and `outpost top` at the centre: the whole fleet, and the collector that gathers it."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from outpost import __version__
from outpost.fleet import table, view
from outpost.fleet.asking import asking
from outpost.fleet.config import FleetConfig
from outpost.fleet.sync import CentreError
from outpost.options import Exit, Language

# What the host's wrapper knows of the unit, such as "failed (exit code 137), restarted 4 times".
_UNIT: Final = "OUTPOST_UNIT"
_SECONDS: Final = 15.0
_CERTIFICATE_DAYS: Final = timedelta(days=30)
_WORDS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "unit": "collector: {unit}; what follows is of the last reading. Why: journalctl -u outpost-fleet -n 50",
        "gone": "{title} ({region}): removed on {day}, its history stays",
        "cannot": "the fleet's database cannot be asked: {fault}",
        "certificate": "the page's certificate ends on {until}: run the playbook centre.yml, or replace the site's own",
    },
    "ru": {
        "unit": "сборщик: {unit}; данные ниже - на момент последнего чтения. Почему: journalctl -u outpost-fleet -n 50",
        "gone": "{title} ({region}): выведен {day}, история остаётся",
        "cannot": "база центра не отвечает: {fault}",
        "certificate": "сертификат страницы действует до {until}: запустите centre.yml или замените сертификат",
    },
}


def summary(config: FleetConfig) -> dict[str, Any]:
    """All that the centre knows, as for the page; times are datetimes. Where it cannot be asked, `fault` says why."""
    found: dict[str, Any] = {
        "kind": "fleet",
        "release": os.environ.get("OUTPOST_RELEASE", __version__),
        "at": datetime.now(UTC),
        "unit": os.environ.get(_UNIT, ""),
        "certificate_until": config.api.tls.until() if config.api.tls is not None else None,
        "fault": "",
        "statement": "",
        "systems": [],
        "regions": [],
        "summary": [],
        "marked": [],
        "removed": [],
    }
    try:
        with asking(config.centre, "table", _SECONDS) as connection:
            regions, health = view.freshness(connection), view.health(connection)
            counted, marked = view.summary(connection), view.marked(connection)
            removed = view.removed(connection)
    except (CentreError, psycopg.Error) as error:
        return found | {"fault": " ".join(str(error).split())}
    return found | {
        "statement": view.headline(regions),
        "systems": [asdict(line) for line in health],
        "regions": [asdict(line) for line in regions],
        "summary": [asdict(line) for line in counted],
        "marked": [asdict(line) for line in marked],
        "removed": [asdict(line) for line in removed],
    }


def text(found: dict[str, Any], language: Language, *, whole: bool = True) -> str:
    """For people: what is wrong first. Not `whole` leaves the counts of studies out."""
    words, parts = _WORDS[language], []
    if not _runs(found["unit"]):
        parts.append(words["unit"].format(unit=found["unit"]))
    if _ends_soon(found):
        parts.append(words["certificate"].format(until=f"{found['certificate_until']:%Y-%m-%d}"))
    if found["fault"]:
        return "\n".join([*parts, words["cannot"].format(fault=found["fault"])])
    regions = [view.Region(**line) for line in found["regions"]]
    health = [view.Health(**line) for line in found["systems"]]
    if whole:
        counted = [view.Counted(**line) for line in found["summary"]]
        marked = [view.Marked(**line) for line in found["marked"]]
        parts.append(table.render(regions, counted, marked, health, language))
    else:
        parts.append(table.render_health(regions, health, language))
    for line in found.get("removed", []):
        day = f"{line['removed_at']:%Y-%m-%d}"
        parts.append(words["gone"].format(title=line["title"], region=line["region"], day=day))
    return "\n".join(parts)


def judged(found: dict[str, Any]) -> int:
    """0 all regions work and are read, and the page can be, 1 not so, 3 where the database could not be asked."""
    if found["fault"]:
        return Exit.CANNOT_ASK
    well = _runs(found["unit"]) and not _ends_soon(found)
    return Exit.OK if well and all(line["colour"] == "green" for line in found["regions"]) else Exit.FOUND


def _ends_soon(found: dict[str, Any]) -> bool:
    until: datetime | None = found["certificate_until"]
    return until is not None and until - found["at"] < _CERTIFICATE_DAYS


def _runs(unit: str) -> bool:
    """Whether the unit runs, as far as that is known here."""
    return not unit or unit.startswith("active")
