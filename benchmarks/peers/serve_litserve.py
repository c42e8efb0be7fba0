"""LitServe: as many workers on the one device as cores."""

from __future__ import annotations

import base64
from typing import Any

import litserve
from arguments import parse
from served import load


class Inference(litserve.LitAPI):  # type: ignore[misc] # litserve is untyped
    """Takes base64 in JSON, answers JSON."""

    def setup(self, device: str) -> None:
        self._model = load()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["study"])

    def predict(self, body: bytes) -> dict[str, Any]:
        return self._model(body)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    arguments = parse()
    server = litserve.LitServer(
        Inference(),
        accelerator="cpu",
        workers_per_device=arguments.workers,
        timeout=arguments.timeout,
    )
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")
