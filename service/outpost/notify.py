"""Telling systemd how the service is doing (sd_notify(3)), in the few messages that are needed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

# Often enough for any sane WatchdogSec, seldom enough not to busy PID 1.
_WATCHDOG_SECONDS = 5.0
# The kernel queues only ten datagrams (net.unix.max_dgram_qlen): a busy receiver makes the sender wait.
_PATIENCE_SECONDS = 10.0


class Notifier:
    """Sends to the socket named by NOTIFY_SOCKET; silent where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = float(environment.get("WATCHDOG_USEC") or 0) / 1e6
        self._period = min(_WATCHDOG_SECONDS, watchdog / 3) if watchdog else _WATCHDOG_SECONDS
        self._last_watchdog = float("-inf")
        self._status = ""

    def ready(self) -> None:
        """Start-up is over: systemd may start what waits for us."""
        self._send("READY=1", patience_seconds=_PATIENCE_SECONDS)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; repeated texts are not sent again."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def extend_start(self, seconds: float) -> None:
        """Ask for that much more time from now before the start counts as failed."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def watchdog(self) -> None:
        """Sign of life; call as often as you like, and only from what must not hang."""
        now = time.monotonic()
        if now - self._last_watchdog >= self._period:
            self._last_watchdog = now
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service has begun to end."""
        self._send("STOPPING=1", patience_seconds=_PATIENCE_SECONDS)

    def _send(self, message: str, patience_seconds: float = 0.0) -> None:
        """`patience_seconds` is for what is said once; the rest is dropped when the receiver is busy."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outgoing, suppress(OSError):
            outgoing.settimeout(patience_seconds)
            outgoing.sendto(message.encode(), self._address)
