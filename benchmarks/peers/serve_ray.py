"""Ray Serve: as many replicas as cores, one CPU each."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import ray
from arguments import parse
from ray import serve
from starlette.requests import Request


class Inference:
    """Takes the body as it came, answers JSON."""

    def __init__(self) -> None:
        from served import load

        self._model = load()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return self._model(await request.body())


if __name__ == "__main__":
    arguments = parse()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ray.init(
        num_cpus=arguments.workers,
        include_dashboard=False,
        object_store_memory=128 << 20,
        _temp_dir=os.environ["BENCH_RAY_FOLDER"],  # its sockets' names must be short
    )
    serve.start(
        http_options=serve.config.HTTPOptions(
            host="127.0.0.1", port=arguments.port, request_timeout_s=arguments.timeout
        )
    )
    deployment = serve.deployment(num_replicas=arguments.workers, ray_actor_options={"num_cpus": 1})(
        Inference
    )
    serve.run(deployment.bind())
    stopping.wait()
    serve.shutdown()
    ray.shutdown()
