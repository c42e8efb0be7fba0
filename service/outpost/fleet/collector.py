"""The loop that keeps the mart up to date: each region in a thread of its own when its time has come.

A region that hangs holds one thread until its deadline and nothing else. The loop itself only asks the
centre's database who is due; it reports a sign of life after each such turn, so what systemd's watchdog
watches is exactly what must not hang.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg

from outpost.codes.failure import told
from outpost.fleet.config import FleetConfig
from outpost.fleet.sync import Attempt, CentreError, attached_regions, centre_connection, prepare, sync_region

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0
# A pass ends by its deadline, its last cancel request within tcp_user_timeout; past this a thread hangs.
GRACE_SECONDS = 60.0

# The second line: a clock set back must not postpone a region until the old time comes round again.
_DUE = (
    "SELECT r.region FROM fleet.regions r JOIN fleet.sync s USING (region) WHERE r.removed_at IS NULL"
    " AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= now()"
    "      OR s.next_attempt_at > now() + %s * interval '1 second')"
    " ORDER BY s.consecutive_failures, s.next_attempt_at NULLS FIRST"
)

# Since when what is wrong has been so.
_NOTE_HEALTH = "SELECT fleet.note_health()"


def sync_all(config: FleetConfig) -> list[Attempt]:
    """One pass over every attached region, due or not. Raises `CentreError`."""
    prepare(config.centre, config.sync.period_seconds)
    regions = attached_regions(config.centre)
    with ThreadPoolExecutor(config.sync.parallel, thread_name_prefix="region") as pool:
        attempts = list(pool.map(lambda region: sync_region(config.centre, config.sync, region), regions))
    with centre_connection(config.centre, "health") as connection:
        connection.execute(_NOTE_HEALTH)
    return attempts


class Collector(threading.Thread):
    """Runs until `stop`. `alive` is called after each turn of the loop that found nothing stuck."""

    def __init__(self, config: FleetConfig, alive: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="collector", daemon=True)
        self._config = config
        self._alive = alive
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[str, float] = {}  # region: when its thread began, monotonic seconds
        self._last_turn = time.monotonic()
        self._fault: str | None = None
        self._failing: dict[str, str] = {}  # region: kind of its last fault, so that a log says each once

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the loop. Regions under way are abandoned: their transactions roll back with the process."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout_seconds)

    @property
    def idle_seconds(self) -> float:
        """Since the last turn of the loop, seconds; more than a few means that it hangs."""
        return time.monotonic() - self._last_turn

    @property
    def fault(self) -> str | None:
        """Why the last turn could not ask the centre's database; None if it could."""
        return self._fault

    @property
    def stuck_regions(self) -> list[str]:
        """Regions whose thread is long past its deadline."""
        latest = time.monotonic() - self._config.sync.deadline_seconds - GRACE_SECONDS
        with self._lock:
            return sorted(region for region, began in self._under_way.items() if began < latest)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                prepare(self._config.centre, self._config.sync.period_seconds)
                with centre_connection(self._config.centre, "collector") as connection:
                    connection.execute("SET statement_timeout = '10s'")
                    self._turns(connection)
            except (CentreError, psycopg.Error) as error:
                self._note(" ".join(str(error).split()))
            except Exception as error:  # whatever it is, the loop must go on: nothing else syncs
                log.exception("the collector's turn failed")
                self._note(told(error))
            self._turned()
            self._stopping.wait(TURN_SECONDS)

    def _turns(self, connection: psycopg.Connection) -> None:
        settings = self._config.sync
        farthest = max(settings.period_seconds, settings.backoff_max_seconds)
        while not self._stopping.is_set():
            due = [row[0] for row in connection.execute(_DUE, (farthest,))]
            if self._fault is not None:
                log.info("the centre's database answers again")
                self._fault = None
            for region in due:
                self._begin(region)
            connection.execute(_NOTE_HEALTH)
            self._turned()
            self._stopping.wait(TURN_SECONDS)

    def _begin(self, region: str) -> None:
        with self._lock:
            if region in self._under_way or len(self._under_way) >= self._config.sync.parallel:
                return
            self._under_way[region] = time.monotonic()
        threading.Thread(target=self._sync, args=(region,), name=f"region {region}", daemon=True).start()

    def _sync(self, region: str) -> None:
        try:
            self._tell(sync_region(self._config.centre, self._config.sync, region))
        except CentreError as error:
            log.warning("region %s not read: %s", region, error)
        except Exception:
            log.exception("region %s not read: a fault in the collector", region)
        finally:
            with self._lock:
                del self._under_way[region]

    def _tell(self, attempt: Attempt) -> None:
        """Log what changed: a fault when it begins or becomes another one, and its end."""
        before = self._failing.get(attempt.region)
        if attempt.fault is None:
            if self._failing.pop(attempt.region, None) is not None:
                log.info("region %s is read again, %d rows", attempt.region, attempt.rows)
        elif attempt.fault.kind != before:
            self._failing[attempt.region] = attempt.fault.kind
            log.warning("region %s: %s", attempt.region, attempt.fault.sentence)

    def _note(self, fault: str) -> None:
        if self._fault is None:
            log.warning("%s", fault)
        self._fault = fault

    def _turned(self) -> None:
        self._last_turn = time.monotonic()
        if not self.stuck_regions:
            self._alive()
