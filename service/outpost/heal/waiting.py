"""What the HTTP port answers before there is a journal: alive, not ready, and why."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from outpost.health.codes import CheckCode
from outpost.health.verdict import Verdict, check
from outpost.notify import Notifier

_END_SECONDS = 5.0
_MORE_SECONDS = 120.0  # asked of systemd at each sign of progress

Message = MutableMapping[str, Any]


class WaitingRoom:
    """A small HTTP server on the service's own socket, opened by the first `show`.

    Args:
        listening: bound; it is duplicated and stays open.
        server: makes the server for an application: TLS and limits as the service itself has them.
    """

    def __init__(
        self, listening: socket.socket, server: Callable[[Any], uvicorn.Server], notifier: Notifier
    ) -> None:
        self._listening = listening
        self._make = server
        self._notifier = notifier
        self._text = ""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def show(self, text: str) -> None:
        """Answer by this text from now on."""
        self._text = text
        self._notifier.extend_start(_MORE_SECONDS)
        self._notifier.watchdog()  # a service that begins again is watched already; this comes of progress alone
        self._notifier.status(f"not ready: {text}")
        if self._server is None:
            self._server = self._make(self._answer)
            self._thread = threading.Thread(
                target=self._server.run,
                kwargs={"sockets": [self._listening.dup()]},
                name="waiting-room",
                daemon=True,
            )
            self._thread.start()

    def close(self) -> None:
        """Stop answering; whoever asks now waits in line for the service."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(_END_SECONDS)
        self._server = self._thread = None

    async def _answer(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/v2/health/live":
            status = 200
            body: dict[str, Any] = {"live": True}
        elif path == "/v2/health/ready":
            status, body = 503, {"ready": False}
        elif path == "/health/light":
            found = check(CheckCode.JOURNAL_USABLE, False, self._text, "in use")
            status, body = 503, Verdict((found,)).as_json()
        else:
            status, body = 503, {"detail": "the service is starting: see /health/light"}
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"5")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
