"""The API of the host that is broken: what its system says of itself."""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

HOST = os.environ["OUTPOST_LIMIT"].split(",")[0]
_ADDRESS = f"{os.environ['LAB_SUBNET']}.0.{ {'chita': 11, 'tver': 12, 'train': 13}[HOST] }"
# Who it is does not matter here, and Molecule's scenarios speak TLS or not (lab/scenario).
_ANYBODY = ssl._create_unverified_context()  # noqa: S323 - health of our own lab
_API = f"{'https' if 'api' in os.environ.get('OUTPOST_LAB_TLS', '').split(',') else 'http'}://{_ADDRESS}:8080"


def checks() -> tuple[int, list[dict[str, Any]]]:
    """What it says, and whether it is ready (200) or not (503). Raises OSError where it does not listen."""
    try:
        with urllib.request.urlopen(f"{_API}/health/light", timeout=5, context=_ANYBODY) as answer:
            return answer.status, json.load(answer)["checks"]
    except urllib.error.HTTPError as unready:
        return unready.code, json.load(unready)["checks"]


def wait_until_ready(seconds: float) -> None:
    """After a start, its worker takes its time."""
    deadline = time.monotonic() + seconds
    failing: list[Any] = []
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):  # it does not listen yet
            status, said = checks()
            if status == 200:
                return
            failing = [check["code"] for check in said if not check["ok"]]
        time.sleep(1)
    raise AssertionError(f"not ready within {seconds:g} s: {failing}")
