"""Measuring the engines while nobody needs the host: `outpost optimise` in a process of its own.

Done when the choice of the engine was not made on this very host, bundle and engines (a new card, a new release).
A study that arrives ends the measuring at once; it begins anew at the next quiet time. Where memory does not
hold a worker beside it, it is done before the first worker starts: studies are received and held meanwhile.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_END_SECONDS = 5.0
# After a measuring that failed; it is not worth the host's time again soon.
_RETRY_SECONDS = 6 * 3600.0
_LONGEST_FIRST_SECONDS = 900.0


class IdleOptimiser:
    """Starts and ends the measuring; `turn` is to be called often, by one thread.

    Args:
        config_file: of this system.
        wanted: whether there is anything to measure.
        after_idle_seconds: quiet time before it begins; 0 is never.
        first: whether it is done before anything else, as there is no room for it later.
    """

    def __init__(
        self, config_file: Path, wanted: bool, after_idle_seconds: float, *, first: bool = False
    ) -> None:
        self._config_file = config_file
        self._wanted = wanted and after_idle_seconds > 0
        self._after = after_idle_seconds
        self._first = first and self._wanted
        self._quiet_since = time.monotonic()
        self._not_before = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the engines are being measured at this moment."""
        return self._process is not None

    @property
    def before_all(self) -> bool:
        """Whether workers must not start yet."""
        return self._first

    def turn(self, idle: bool) -> bool:
        """Look at the host once; returns True when a measuring has just ended well."""
        now = time.monotonic()
        if self._first:
            if self._process is None:
                self._start()
                self._quiet_since = now
            if now - self._quiet_since > _LONGEST_FIRST_SECONDS:
                log.warning("measuring the engines took too long; the engine stays as it is")
                self.stop()
            well = self._process is not None and self._ended(now)
            self._first = self._process is not None
            self._wanted = False  # once a start: a measuring that fails shall not hold up studies again
            return well
        if not idle:
            self._quiet_since = now
            self.stop()
            return False
        if self._process is not None:
            return self._ended(now)
        if self._wanted and now >= self._not_before and now - self._quiet_since >= self._after:
            log.info("measuring the engines, as no study has come for %.0f s", self._after)
            self._start()
        return False

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [
                *("nice", "-n", "19"),
                *(sys.executable, "-m", "outpost.cli", "optimise"),
                *("--config", str(self._config_file)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        """End a measuring that is under way; nothing of it is kept."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return
        process.kill()
        process.wait()

    def _ended(self, now: float) -> bool:
        assert self._process is not None  # asked only then
        status = self._process.poll()
        if status is None:
            return False
        self._process = None
        if status != 0:
            self._not_before = now + _RETRY_SECONDS
            log.warning("measuring the engines ended with status %d; the engine stays as it is", status)
            return False
        self._wanted = False
        return True
