"""What is turned away at the doors: each leaves one line in the log and one count, with who sent it and why.

The reasons are the true ones: whoever reads the line shall look in the right place first.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Literal

from outpost.intake.poison import LONGEST_WAIT_SECONDS
from outpost.intake.refusal import Refusal

log = logging.getLogger(__name__)

What = Literal["connection", "association", "context", "instance", "request"]

# Of one sender and one reason, one event in this time; of all together so many: somebody's retries fill no journal.
_EVENT_SECONDS: Final = 3600.0
_MOST_EVENTS: Final = 200
# Lines of one sender and one reason, and of all, in this time; what goes beyond is counted and told with the next line.
_LINES_SECONDS: Final = 60.0
_MOST_LINES_OF_ONE: Final = 30
_MOST_LINES: Final = 300


# Callers that are counted one by one; those beyond, as who names itself anew each time, are counted together.
_MOST_CALLERS: Final = 200
OTHERS: Final = "others"
_OF_LIMITS: Final = frozenset(
    {"TOO_MANY_CONNECTIONS", "TOO_MANY_REQUESTS", "TOO_SLOW", "REQUEST_LATE", "TOO_MANY_STUDIES"}
)

# Of instances, what a person has to stop at the sender.
_ALSO_EVENTS: Final = frozenset(
    {
        Refusal.TOO_COMPLEX.name,
        Refusal.TOO_MANY_STUDIES.name,
        Refusal.OUT_OF_SERVICE.name,
        Refusal.TOO_MANY_INSTANCES.name,
    }
)


class Turned(StrEnum):
    """Why something other than an instance was turned away; instances have `Refusal`. Labels of a metric."""

    TLS_HANDSHAKE = "TLS_HANDSHAKE"
    CALLING_AE_UNKNOWN = "CALLING_AE_UNKNOWN"
    CALLED_AE_UNKNOWN = "CALLED_AE_UNKNOWN"
    ADDRESS_UNKNOWN = "ADDRESS_UNKNOWN"
    TOO_MANY_ASSOCIATIONS = "TOO_MANY_ASSOCIATIONS"
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    NO_REQUEST = "NO_REQUEST"
    REQUEST_LATE = "REQUEST_LATE"
    NEVER_USED = "NEVER_USED"
    TOO_SLOW = "TOO_SLOW"
    GAVE_WAY = "GAVE_WAY"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    OUT_OF_SPACE = "OUT_OF_SPACE"
    TOO_MANY_STUDIES = "TOO_MANY_STUDIES"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"
    BEYOND_BOUNDS = "BEYOND_BOUNDS"
    NOT_NEGOTIATED = "NOT_NEGOTIATED"
    COMMITMENT_NOT_OFFERED = "COMMITMENT_NOT_OFFERED"
    SERVICE_NOT_OFFERED = "SERVICE_NOT_OFFERED"
    ROLE_NOT_OFFERED = "ROLE_NOT_OFFERED"
    SYNTAX_NOT_OFFERED = "SYNTAX_NOT_OFFERED"
    OPERATION_NOT_OFFERED = "OPERATION_NOT_OFFERED"
    BODY_MALFORMED = "BODY_MALFORMED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    TYPE_NOT_TAKEN = "TYPE_NOT_TAKEN"
    ENCODING_NOT_TAKEN = "ENCODING_NOT_TAKEN"


class Doors:
    """Counts since the start, and the log lines. Safe to use from any thread."""

    def __init__(self, note: Callable[[str], None] | None = None) -> None:
        """`note` keeps an event, now and then, of associations and contexts that were refused, and of poison."""
        self._note = note
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._of_callers: Counter[tuple[str, str, str]] = Counter()
        self._noted: dict[tuple[str, ...], float] = {}
        self._lines: Counter[tuple[str, ...]] = Counter()  # in this minute
        self._unsaid: Counter[tuple[str, ...]] = Counter()
        self._minute = time.monotonic()

    def turned_away(
        self,
        what: What,
        reason: str,
        words: str,
        sender: str,
        address: str,
        cause: BaseException | None = None,
        times: int = 1,
    ) -> None:
        """Note that something was refused, so many times.

        `words` are ours, or names of the standard: never the sender's text.
        """
        who = f"{sender!r} at {address}" if sender else address
        with self._lock:
            self._counts[what, reason] += times
            if what == "association":
                self._count_caller(sender, address, reason, times)
            unsaid = self._to_say(what, reason, who)
            unsaid = unsaid + times - 1 if unsaid is not None else None
        if unsaid is not None:
            more = f" ({unsaid} more like it since the last line)" if unsaid else ""
            log.warning(
                "%s of %s refused: %s, %s%s",
                what,
                who or "an unknown peer",
                reason,
                words,
                more,
                exc_info=cause,
            )
        if what in ("association", "context") or reason in _OF_LIMITS or reason in _ALSO_EVENTS:
            self._tell((what, reason, who), f"{what} of {who}: {reason}, {words}")

    def slowed(self, reason: str, sender: str, address: str, seconds: float) -> None:
        """Note that a sender is kept waiting, as it sends again and again what is refused for this reason."""
        who = f"{sender!r} at {address}" if sender else address
        with self._lock:
            unsaid = self._to_say("slowed", reason, who)
        if unsaid is not None:
            more = f" ({unsaid} more like it since the last line)" if unsaid else ""
            log.warning(
                "%s repeats what is refused (%s): it waits %.1f s for the answer%s",
                who,
                reason,
                seconds,
                more,
            )
        self._tell(
            ("slowed", reason, who),
            f"{who} repeats what is refused ({reason}): it waits up to {LONGEST_WAIT_SECONDS:g} s for each answer",
        )

    def _tell(self, what: tuple[str, ...], words: str) -> None:
        if self._note is not None and self._is_news(*what):
            try:
                self._note(words)
            except sqlite3.Error:  # the disk is full, perhaps: the line and the count are there
                log.warning("a refusal could not be noted in the journal")

    def of_callers(self) -> dict[tuple[str, str, str], int]:
        """Associations refused since the start, by calling AE title, address and reason."""
        with self._lock:
            return dict(self._of_callers)

    def _count_caller(self, title: str, address: str, reason: str, times: int) -> None:
        key = "".join(c if " " <= c <= "~" else "?" for c in title)[:16], address, reason
        if key not in self._of_callers and len(self._of_callers) >= _MOST_CALLERS:
            key = OTHERS, "", reason
        self._of_callers[key] += times

    def counts(self) -> dict[tuple[str, str], int]:
        """How often since the start, by what was refused and the reason."""
        with self._lock:
            return dict(self._counts)

    def _to_say(self, *what: str) -> int | None:
        """How many were not said since the last line of this kind; None where this one is not said, either."""
        now = time.monotonic()
        if now - self._minute > _LINES_SECONDS:
            self._lines.clear()
            self._minute = now
        if len(self._unsaid) > _MOST_LINES:
            self._unsaid.clear()  # a sender that names itself anew each time has no next line
        if self._lines[what] >= _MOST_LINES_OF_ONE or self._lines.total() >= _MOST_LINES:
            self._unsaid[what] += 1
            return None
        self._lines[what] += 1
        return self._unsaid.pop(what, 0)

    def _is_news(self, *what: str) -> bool:
        now = time.monotonic()
        with self._lock:
            for key in [key for key, at in self._noted.items() if now - at > _EVENT_SECONDS]:
                del self._noted[key]
            if what in self._noted or len(self._noted) >= _MOST_EVENTS:
                return False
            self._noted[what] = now
            return True
