"""The register of alarms: which are open, which have been, and which Postgres has not heard of. One small file."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from outpost.drift.alarms import Alarm, Key
from outpost.durable import write_durably
from outpost.heal.found import put_aside

# Alarms that have ended are kept for the page, this many.
_KEPT = 1000
_DATES = ("since", "raised_on", "ended_on")


class Register:
    """Alarms in the order in which they were raised. Safe to use from any thread.

    Attributes:
        judged: last day of the window judged last; None before the first.
        reference: what that was held against, by its digest.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._alarms: list[tuple[Alarm, bool]] = []  # with whether it is shipped in its present state
        self.judged: date | None = None
        self.reference = ""
        try:
            self._load(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # Written as a whole or not at all: this is a disk that lost it. The next window raises them again.
            why = (
                str(error.strerror)
                if isinstance(error, OSError)
                else f"it cannot be read ({type(error).__name__})"
            )
            put_aside(
                file, why, "the next window raises alarms again", move=not isinstance(error, PermissionError)
            )

    @property
    def open(self) -> dict[Key, Alarm]:
        """Those that go on."""
        with self._lock:
            return {alarm.key: alarm for alarm, _ in self._alarms if alarm.ended_on is None}

    @property
    def all(self) -> list[Alarm]:
        """Those that go on and those that have been."""
        with self._lock:
            return [alarm for alarm, _ in self._alarms]

    def change(self, changed: Sequence[Alarm], judged: date, reference: str) -> None:
        """Alarms that began, or ended, in a window; durable when this returns. Raises OSError."""
        with self._lock:
            for alarm in changed:
                if alarm.ended_on is not None:
                    self._alarms = [
                        pair for pair in self._alarms if not _same(pair[0], replace(alarm, ended_on=None))
                    ]
                self._alarms.append((alarm, False))
            ended = [pair for pair in self._alarms if pair[0].ended_on is not None and pair[1]]
            for pair in ended[: max(0, len(self._alarms) - _KEPT)]:
                self._alarms.remove(pair)
            self.judged, self.reference = judged, reference
            self._save()

    def unshipped(self) -> list[Alarm]:
        """What Postgres does not hold in its present state."""
        with self._lock:
            return [alarm for alarm, shipped in self._alarms if not shipped]

    def mark_shipped(self, alarms: Sequence[Alarm]) -> None:
        """Postgres has committed exactly these; one that ended meanwhile stays unshipped. Raises OSError."""
        with self._lock:
            self._alarms = [(alarm, shipped or alarm in alarms) for alarm, shipped in self._alarms]
            self._save()

    def _load(self, value: dict[str, Any]) -> None:
        names = {field.name for field in fields(Alarm)}
        alarms = []
        for row in value["alarms"]:
            shipped = bool(row.pop("shipped"))
            for name in _DATES:
                row[name] = date.fromisoformat(row[name]) if row[name] else None
            alarms.append((_shown(Alarm(**{name: row[name] for name in names})), shipped))
        self.judged = date.fromisoformat(value["judged"]) if value["judged"] else None
        self.reference = str(value["reference"])
        self._alarms = alarms

    def _save(self) -> None:
        value = {
            "judged": self.judged,
            "reference": self.reference,
            "alarms": [asdict(alarm) | {"shipped": shipped} for alarm, shipped in self._alarms],
        }
        text = json.dumps(value, default=lambda day: day.isoformat() if day else None, indent=1)
        write_durably(self._file, lambda stream: stream.write(text.encode()))


def _same(left: Alarm, right: Alarm) -> bool:
    return (*left.key, left.raised_on, left.ended_on) == (*right.key, right.raised_on, right.ended_on)


def _shown(alarm: Alarm) -> Alarm:
    """The alarm, if it can be shown: values of other types than it has raise here, and nowhere else."""
    str(alarm)
    return alarm
