"""The child process that computes: `python -m outpost.inference.child BUNDLE THREADS PARENT_PID`.

It answers one JSON line on standard output for each JSON line on standard input, the first unasked once the
bundle is loaded and the golden case computed. It ends when its input ends or its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outpost.inference.bundle import load_bundle
from outpost.inference.codes import Code, InferenceFailed, InputRejected

if TYPE_CHECKING:
    from outpost.inference.predictor import Predictor

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve requests until the input ends."""
    bundle_path, threads, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _die_with(parent)
    faulthandler.enable()
    # If memory runs out, the kernel shall take this process, which is replaced, not the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    # Answers go to the real standard output; what libraries print goes to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    predictor: Predictor | None = None

    def load() -> dict[str, Any]:
        nonlocal predictor
        # Imported here, not above: torch takes seconds, and nothing may run before `_die_with` did.
        from outpost.inference.predictor import Predictor

        predictor = Predictor(load_bundle(bundle_path), threads)
        return asdict(predictor.golden())

    def compute(request: dict[str, Any]) -> dict[str, Any]:
        assert predictor is not None  # requests are read after `load` only
        if request["command"] == "golden":
            return asdict(predictor.golden())
        files = [Path(file) for file in request["files"]]
        return asdict(predictor.run(files, Path(request["output_dir"]), request["revision"]))

    def answer(question: Callable[[], dict[str, Any]]) -> None:
        answers.write(json.dumps(_outcome(question), default=str) + "\n")
        answers.flush()

    answer(load)
    if predictor is None:
        return 1
    for line in sys.stdin:
        answer(partial(compute, json.loads(line)))
    return 0


def _outcome(question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run and tell the parent how it ended; only death itself goes untold."""
    try:
        return {"ok": question()}
    except InputRejected as rejection:
        return {"rejected": [rejection.code, rejection.message]}
    except InferenceFailed as failure:
        return {"failed": [failure.code, failure.message]}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        code = Code.INFERENCE_OUT_OF_MEMORY if _is_out_of_memory(error) else Code.INFERENCE_ERROR
        sys.excepthook(type(error), error, error.__traceback__)
        return {"failed": [code, message]}


def _is_out_of_memory(error: Exception) -> bool:
    # torch reports memory it cannot get as torch.OutOfMemoryError on a GPU and, on the CPU, as a plain
    # RuntimeError from "DefaultCPUAllocator" (c10/core/impl/alloc_cpu.cpp).
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error))
    )


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies, and die now if it is dead already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
