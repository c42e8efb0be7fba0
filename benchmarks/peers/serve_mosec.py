"""mosec: one stage of as many workers as cores."""

from __future__ import annotations

import sys
from typing import Any

from arguments import parse
from mosec import Server, Worker
from served import load


class Inference(Worker):  # type: ignore[misc] # mosec is untyped
    """Takes the body as it came, answers JSON."""

    def __init__(self) -> None:
        self._model = load()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, Any]:
        return self._model(data)


if __name__ == "__main__":
    arguments = parse()
    # It reads its settings from the command line.
    sys.argv += [
        f"--port={arguments.port}",
        f"--timeout={round(arguments.timeout * 1000)}",
        "--max-request-size=1073741824",
        "--log-level=warning",
    ]
    server = Server()
    server.append_worker(Inference, num=arguments.workers)
    server.run()
