"""BentoML: as many workers as cores, each with the model and its share of the HTTP requests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml

if __name__ == "__main__":
    from arguments import parse

    arguments = parse()
    # The service is defined when BentoML imports this file again: settings travel through the environment.
    os.environ["BENCH_WORKERS"] = str(arguments.workers)
    os.environ["BENCH_TIMEOUT"] = str(arguments.timeout)
    os.execv(  # noqa: S606 - it shall become that very process
        sys.executable,
        [
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            f"{Path(__file__).stem}:Inference",
            "--working-dir",
            str(Path(__file__).parent),
            "--host=127.0.0.1",
            f"--port={arguments.port}",
        ],
    )


@bentoml.service(
    workers=int(os.environ.get("BENCH_WORKERS", "1")),
    traffic={"timeout": float(os.environ.get("BENCH_TIMEOUT", "60")), "max_concurrency": 1024},
    metrics={"enabled": False},
)
class Inference:
    """Takes an uploaded file, answers JSON."""

    def __init__(self) -> None:
        from served import load

        self._model = load()

    @bentoml.api  # type: ignore[untyped-decorator] # bentoml is untyped
    def infer(self, study: Path) -> dict[str, Any]:
        return self._model(study.read_bytes())
