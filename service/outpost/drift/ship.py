"""Alarms to the region's Postgres, by the recorder's thread. Shipping one twice changes nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import psycopg

from outpost.drift.alarms import Alarm
from outpost.drift.register import Register

log = logging.getLogger(__name__)

_COLUMNS = (
    *("system", "sender", "tag", "aspect", "raised_on", "since", "ended_on"),
    *("test", "statistic", "adjusted_p", "effect", "before", "now_is"),
)
_UPSERT = (
    f"INSERT INTO outpost.drift_alarms AS a ({', '.join(_COLUMNS)})"
    f" VALUES ({', '.join(f'%({column})s' for column in _COLUMNS)})"
    " ON CONFLICT (system, sender, tag, aspect, raised_on) DO UPDATE SET"
    " ended_on = EXCLUDED.ended_on, updated_at = now() WHERE a.ended_on IS DISTINCT FROM EXCLUDED.ended_on"
)


def shipper(register: Register, system: str) -> Callable[[Callable[[], psycopg.Connection]], None]:
    """What the recorder calls at each turn: it ships what is waiting, and connects only if something is.

    Raises psycopg.Error when Postgres fails; nothing is then marked as shipped.
    """
    told = False

    def ship(connect: Callable[[], psycopg.Connection]) -> None:
        nonlocal told
        waiting = register.unshipped()
        if not waiting:
            return
        try:
            with connect().transaction() as transaction:
                transaction.connection.cursor().executemany(
                    _UPSERT, [row_of(alarm, system) for alarm in waiting]
                )
        except psycopg.errors.UndefinedTable:
            # A release may come to a host before its schema; studies are shipped all the same.
            if not told:
                told = True
                log.warning("alarms of drift wait: Postgres lacks outpost.drift_alarms: run the playbook")
            return
        told = False
        register.mark_shipped(waiting)

    return ship


def row_of(alarm: Alarm, system: str) -> dict[str, object]:
    """The Postgres row of an alarm."""
    return {
        "system": system,
        # Free text of whoever connects, where it is no AE title.
        "sender": alarm.sender if re.fullmatch(r"[ -~]{1,16}", alarm.sender) else "(malformed)",
        "tag": alarm.tag,
        "aspect": alarm.aspect,
        "raised_on": alarm.raised_on,
        "since": alarm.since,
        "ended_on": alarm.ended_on,
        "test": alarm.test,
        "statistic": alarm.statistic,
        "adjusted_p": alarm.adjusted_p,
        "effect": alarm.effect,
        "before": alarm.before[:200],
        "now_is": alarm.now[:200],
    }
