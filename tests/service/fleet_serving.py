"""`outpost fleet serve` as a process of its own for tests, on a port of its own, over a fleet of real servers."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from postgres_cluster import COLLECTOR_PASSWORD, Fleet
from running import free_port

from outpost.web.tokens import digest

SERVICE = Path(__file__).resolve().parents[2] / "service"
TOKEN = "the-token-of-the-page"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def environment(**values: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICE), "LC_ALL": "C.UTF-8", **values}


def write_config(
    fleet: Fleet, path: Path, port: int, centre: dict[str, Any] | None = None, **api: Any
) -> Path:
    """The centre's configuration for this fleet; `api` is put beside what every page has, `centre` over the link."""
    value = {
        "centre": {"host": fleet.centre.host, "port": 5432, "password": COLLECTOR_PASSWORD} | (centre or {}),
        "sync": {"period_seconds": 1},
        "api": {
            "listen": "127.0.0.1",
            "port": port,
            "tokens": [{"name": "duty", "role": "read", "sha256": digest(TOKEN)}],
            **api,
        },
    }
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Page:
    """A page that is served: where, by which process, and how to ask it."""

    port: int
    config: Path
    process: subprocess.Popen[bytes]
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def get(self, path: str, timeout: float = 20, **more: Any) -> httpx.Response:
        return httpx.get(
            self.url + path,
            headers=BEARER | more.pop("headers", {}),
            timeout=timeout,
            verify=self.tls or True,
            **more,
        )

    def ask(self, path: str, source: str = "127.0.0.1") -> socket.socket:
        """Ask without waiting for the answer; the socket is the client, which goes when it is closed."""
        client: socket.socket = socket.create_connection(
            ("127.0.0.1", self.port), timeout=10, source_address=(source, 0)
        )
        if self.tls is not None:
            client = self.tls.wrap_socket(client, server_hostname="127.0.0.1")
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        return client


@contextmanager
def serving(fleet: Fleet, folder: Path, trusting: ssl.SSLContext | None = None, **api: Any) -> Iterator[Page]:
    """The page as systemd runs it, until the end of the block."""
    port = free_port()
    config = write_config(fleet, folder / "fleet.yaml", port, **api)
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "outpost.cli", "fleet", "serve", "--config", str(config)],
            env=environment(),
            stderr=log,
        )
    page = Page(port, config, process, trusting)
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(httpx.TransportError):
                if page.get("/health").status_code == 200:
                    break
            assert process.poll() is None, (folder / "serve.log").read_text()
            assert time.monotonic() < deadline, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield page
    finally:
        process.terminate()
        process.wait(20)
