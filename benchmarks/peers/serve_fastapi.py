"""Plain FastAPI as tutorials show it: the model is called in the `async def` route, on the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from served import Served, load


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    global _model
    _model = load()
    yield


_model: Served
app = FastAPI(lifespan=_lifespan)


@app.post("/infer")
async def infer(request: Request) -> dict[str, Any]:
    """Takes the body as it came, answers JSON."""
    return _model(await request.body())


@app.get("/health")
async def health() -> dict[str, str]:
    """Health as users write it."""
    return {"status": "ok"}


if __name__ == "__main__":
    from arguments import parse

    arguments = parse()
    uvicorn.run(
        "serve_fastapi:app",
        host="127.0.0.1",
        port=arguments.port,
        workers=arguments.workers,
        access_log=False,
        log_level="warning",
    )
