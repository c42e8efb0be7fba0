"""The heartbeat: a row a minute in the region's Postgres that says how this system is, for the centre to judge.

It comes from the verdict of the process that works, in a thread of that very process: a process that is stopped, hangs
or has ended writes none, and the centre sees that. A thread of the pipeline that hangs is said by the verdict.

Nothing here asks the journal or writes to the disk: a full disk and a broken journal are what it must be able to tell.
No patient data: counts, ages, codes and names of software.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from outpost.codes.failure import told
from outpost.config import Config
from outpost.health.certificate import validities
from outpost.health.host import tls_sections
from outpost.intake.room import MIB, disk_of
from outpost.records.journal import utc_now
from outpost.records.recorder import connect, sentence

if TYPE_CHECKING:
    from outpost.health.verdict import Verdict

log = logging.getLogger(__name__)

# What no check says: the verdict itself cannot be had, the service ended while it started, of its journal or of else.
VERDICT_UNKNOWN: Final = "VERDICT_UNKNOWN"
JOURNAL_BROKEN: Final = "JOURNAL_BROKEN"
CANNOT_START: Final = "CANNOT_START"
# A verdict that changes is told at once, but not more often than this.
_EARLY_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# States of a study, as Journal.queue has them, that wait for a result of inference.
_BEFORE_RESULT = ("complete", "inferring")


@dataclass(frozen=True, slots=True)
class Working:
    """What the pipeline says of itself at one moment. `queue` as `Journal.queue`; None: the journal does not answer."""

    rung: str
    receive_only: str
    queue: Mapping[str, tuple[int, datetime | None]] | None


@dataclass(frozen=True, slots=True)
class Beat:
    """One row of outpost.heartbeats, but for what the database stamps. Ages in seconds, None where not known."""

    system: str
    host_clock: datetime
    period_seconds: float
    status: str
    failing: list[str]
    ready: bool
    rung: str
    receive_only: str
    queue: int | None
    oldest_pending_seconds: float | None
    outbox: int | None
    oldest_outbox_seconds: float | None
    disk_free_mib: int | None
    disk_used_percent: float | None
    disk_reserve_mib: int
    certificate_until: datetime | None
    release: str
    bundle: str
    bundle_version: str
    boot_id: str
    process_started: datetime

    @property
    def news(self) -> tuple[object, ...]:
        """What is told at once when it changes."""
        return self.status, self.failing, self.ready, self.rung, self.receive_only


_INSERT = (
    f"INSERT INTO outpost.heartbeats ({', '.join(Beat.__dataclass_fields__)})"
    f" VALUES ({', '.join(f'%({name})s' for name in Beat.__dataclass_fields__)})"
)


class Heartbeat(threading.Thread):
    """Writes a row at once and every `records.heartbeat_seconds`, until `stop`; sooner when the verdict changes."""

    def __init__(
        self,
        config: Config,
        verdict: Callable[[], Verdict],
        working: Callable[[], Working],
        release: str,
        bundle: tuple[str, str],
    ) -> None:
        """`bundle`: name and version of what computes; both empty when there is none."""
        super().__init__(name="heartbeat", daemon=True)
        self._config = config
        self._verdict = verdict
        self._working = working
        self._release = release
        self._bundle = bundle
        self._period = config.records.heartbeat_seconds
        self._stopping = threading.Event()
        self._connection: psycopg.Connection | None = None
        self._process_started = utc_now()
        self._failing = False
        self.written = 0  # rows since the process started

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Ask the thread to end and wait for it."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout_seconds)

    def run(self) -> None:
        next_at, last_at, said = time.monotonic(), 0.0, None
        early = min(_EARLY_SECONDS, self._period / 3)
        try:
            while not self._stopping.is_set():
                now = time.monotonic()
                try:
                    beat = self.take()
                    if now >= next_at or (beat.news != said and now >= last_at + early):
                        last_at, said = now, beat.news
                        next_at = now + self._period
                        self._write(beat)
                except Exception as error:  # the thread must outlive any fault: silence means a dead service
                    self._failed(error)
                self._stopping.wait(min(_LOOK_SECONDS, self._period / 5))
        finally:
            self._disconnect()

    def tell(self, code: str) -> None:
        """Write one row that says this alone is wrong. Raises psycopg.Error."""
        try:
            self._write(self._beat("failed", False, [code]))
        finally:
            self._disconnect()

    def take(self) -> Beat:
        """How the system is now. Never raises for a state, however bad."""
        try:
            verdict = self._verdict()
        except Exception:
            log.exception("the verdict cannot be had")
            return self._beat("failed", False, [VERDICT_UNKNOWN])
        failing = sorted({str(check.code) for check in verdict.checks if not check.ok})
        return self._beat(verdict.status, verdict.ready, failing)

    def _beat(self, status: str, ready: bool, failing: list[str]) -> Beat:
        working = self._working()
        now = utc_now()
        free, used = self._disk()
        queue, pending = _counted(working.queue, _BEFORE_RESULT, now)
        outbox, oldest = _counted(working.queue, ("delivering",), now)
        return Beat(
            system=self._config.system,
            host_clock=now,
            period_seconds=self._period,
            status=status,
            failing=failing,
            ready=ready,
            rung=_name(working.rung, " /"),
            receive_only=working.receive_only
            if re.fullmatch("[A-Z0-9_]{0,80}", working.receive_only)
            else "X",
            queue=queue,
            oldest_pending_seconds=pending,
            outbox=outbox,
            oldest_outbox_seconds=oldest,
            disk_free_mib=free,
            disk_used_percent=used,
            disk_reserve_mib=self._config.intake.disk_reserve_mib,
            certificate_until=self._certificate_until(),
            release=_name(self._release),
            bundle=_name(self._bundle[0]),
            bundle_version=_name(self._bundle[1]),
            boot_id=_boot_id(),
            process_started=self._process_started,
        )

    def _disk(self) -> tuple[int | None, float | None]:
        try:
            disk = disk_of(self._config.storage.root)
        except OSError:
            return None, None
        return disk.free // MIB, round(disk.used_percent, 1)

    def _certificate_until(self) -> datetime | None:
        ends = []
        for _, tls in tls_sections(self._config):
            for file in (tls.certificate, tls.ca):
                with suppress(OSError):  # SECRETS_READABLE says so
                    ends += [validity.until for validity in validities(file.read_bytes())]
        return min(ends, default=None)

    def _write(self, beat: Beat) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._config.records, "outpost-heartbeat")
        try:
            self._connection.execute(_INSERT, asdict(beat))
        except BaseException:
            self._disconnect()
            raise
        self.written += 1
        if self._failing:
            log.info("Postgres takes heartbeats again")
        self._failing = False

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            log.warning(
                "no heartbeat written: %s",
                sentence(error) if isinstance(error, psycopg.Error) else told(error),
            )
        self._failing = True

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def tell_cannot_start(config: Config, release: str, error: Exception) -> None:
    """Leave one row that says why a service that is about to end did not get to work. Never raises."""
    if not config.records.enabled:
        return
    code = JOURNAL_BROKEN if isinstance(error, sqlite3.Error) else CANNOT_START
    heartbeat = Heartbeat(config, _no_verdict, lambda: Working("", "", None), release, ("", ""))
    try:
        heartbeat.tell(code)
    except Exception as fault:
        log.warning("no heartbeat written: %s", told(fault))


def _no_verdict() -> Verdict:
    raise RuntimeError("the service has not started: there is no verdict")


def _counted(
    queue: Mapping[str, tuple[int, datetime | None]] | None, states: tuple[str, ...], now: datetime
) -> tuple[int | None, float | None]:
    """How many studies are in these states, and for how long the oldest of them; None, None: nobody knows."""
    if queue is None:
        return None, None
    found = [queue[state] for state in states if state in queue]
    ages = [(now - since).total_seconds() for _, since in found if since is not None]
    return sum(count for count, _ in found), max(0.0, max(ages, default=0.0))


def _name(text: str, also: str = "") -> str:
    """A name of software as the table takes it."""
    return re.sub(f"[^A-Za-z0-9_.+:~{also}-]", "_", text)[:80]


def _boot_id() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()[:36]
    return ""
