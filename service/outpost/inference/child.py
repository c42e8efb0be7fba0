"""The child process that computes: `python -m outpost.inference.child BUNDLE RUNG PARENT_PID STORAGE`.

It answers JSON lines on standard output to JSON lines on standard input; the first answer comes unasked, once the
bundle is loaded for the rung and the golden case and the asserts are computed. Requests: `read` (choose and
decode the images of a study), `compute` (the study that was read), `golden`. It ends when its input ends or
its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import json
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outpost import logs
from outpost.codes.failure import told
from outpost.inference import heap, progress
from outpost.inference.bounded import bounded
from outpost.inference.bundle import load_bundle
from outpost.inference.codes import Code, InferenceFailed, InputRejected, StudyIncomplete
from outpost.inference.context import StudyContext
from outpost.inference.rung import Rung
from outpost.inference.state import Step

if TYPE_CHECKING:
    from outpost.filter.verdict import Judge
    from outpost.inference.predictor import Predictor
    from outpost.inference.task import Case

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
# What the CUDA runtime says when the device cannot, or can no longer, compute (cudaGetErrorString). After the
# second kind the context is lost for this process, whatever is tried in it.
_NO_KERNEL = ("no kernel image is available", "invalid device function", "ptx jit compiler")
_LOST = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "cuda runtime error", "device-side assert")


def main() -> int:
    """Serve requests until the input ends."""
    bundle_path, rung = Path(sys.argv[1]), Rung(**json.loads(sys.argv[2]))
    parent, storage = int(sys.argv[3]), Path(sys.argv[4])
    _die_with(parent)
    # The log has a descriptor of its own: what libraries and their native parts print would quote what they decode.
    log_stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", buffering=1)
    faulthandler.enable(log_stream)
    logs.configure(stream=log_stream)
    # If memory runs out, the kernel shall take this process, which is replaced, not the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    # Answers go to the real standard output, and nothing else does.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())

    def answer(question: Callable[[], dict[str, Any]]) -> None:
        answers.write(json.dumps(_outcome(question) | desk.observed(), default=str) + "\n")
        answers.flush()

    def beat(step: str, mib: float, scale: float) -> None:
        answers.write(json.dumps({"beat": [step, mib, scale]}) + "\n")
        answers.flush()

    desk = _Desk(bundle_path, rung, storage)
    answer(desk.load)
    progress.listen(beat)
    if not desk.loaded:
        return 1
    # From here on studies are read. Until now a broken installation could say so.
    os.dup2(nowhere, sys.stderr.fileno())
    for line in _requests(sys.stdin.fileno()):
        answer(partial(desk.serve, json.loads(line)))
        if heap.resident_mib() > desk.declared_mib:
            heap.give_back()
    return 0


def _requests(stream: int) -> Iterator[bytes]:
    """Lines as they come, until the input ends; in a long pause the heap is given back, once."""
    received, kept = b"", True
    while True:
        ready, _, _ = select.select([stream], [], [], heap.IDLE_SECONDS if kept else None)
        if not ready:
            heap.give_back()
            kept = False
            continue
        chunk = os.read(stream, 1 << 16)
        if not chunk:
            return
        *lines, received = (received + chunk).split(b"\n")
        yield from lines
        kept = kept or bool(lines)


class _Desk:
    """Where requests are served: the loaded bundle, and the study that was read last."""

    def __init__(self, bundle_path: Path, rung: Rung, storage: Path) -> None:
        self._bundle_path = bundle_path
        self._rung = rung
        self._storage = storage
        self._declared_mib = 0
        self._predictor: Predictor | None = None
        self._case: Case | None = None
        self._judge: Judge | None = None  # by the rule set of the last request
        self._proven: set[tuple[str, int]] = set()  # (size, batch) whose golden case passed here

    @property
    def loaded(self) -> bool:
        return self._predictor is not None

    @property
    def declared_mib(self) -> int:
        """Memory that the bundle declares for one process."""
        return self._declared_mib

    def observed(self) -> dict[str, Any]:
        """What was seen since the last answer, for watching drift: as `observed` of an answer, also a refusal."""
        if self._predictor is None or not self._predictor.observed:
            return {}
        seen, self._predictor.observed = self._predictor.observed, {}
        return {"observed": seen}

    def load(self) -> dict[str, Any]:
        # Imported here, not above: torch takes seconds, and nothing may run before `_die_with` did.
        from outpost.inference.asserts import observed_golden, run_asserts
        from outpost.inference.predictor import Predictor

        bundle = load_bundle(self._bundle_path)
        self._declared_mib = bundle.manifest.resources.memory_mib
        self._predictor = Predictor(bundle, self._rung, self._storage)
        golden, seen = observed_golden(bundle, self._predictor, self._rung)
        if golden.ok:
            self._proven.add((self._rung.size, self._rung.batch))
        asserts = run_asserts(bundle, self._predictor, self._rung, seen)
        return {"golden": asdict(golden), "asserts": [asdict(one) for one in asserts]}

    def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._predictor is not None  # requests are read after `load` only
        match request["command"]:
            case "golden":
                return asdict(self._predictor.golden(Rung(**request["rung"])))
            case "read":
                self._case = None  # frees the last study before this one is decoded
                files = [Path(file) for file in request["files"]]
                judge = self._judge_by(request.get("rules"))
                context = StudyContext.of_json(request["context"])
                with self._blaming(self._rung), bounded():
                    self._case = self._predictor.read(files, judge, context)
                verdict = self._predictor.verdict
                assert verdict is not None  # of the study just read
                return {
                    "shape": [int(size) for size in self._case.shape],
                    "left_out": verdict.left_out,
                    "judged": verdict.judged,
                    "rules": verdict.rules,
                }
            case "compute":
                assert self._case is not None, "compute without read"
                rung = Rung(**request["rung"])
                self._prove(rung)
                case, self._case = self._case, None
                with self._blaming(rung):
                    return asdict(
                        self._predictor.run(case, rung, Path(request["output_dir"]), request["revision"])
                    )
        raise ValueError(f"no such command: {request['command']}")

    @contextmanager
    def _blaming(self, rung: Rung) -> Iterator[None]:
        """Whatever a study makes the code raise is judged here, by the golden case: the process need not die for it.

        Raises:
            InputRejected: STUDY_UNUSUAL, to be held, where the golden case passes; INFERENCE_OUT_OF_MEMORY where the
                study, or its result, is too large to be read or written at all.
            InferenceFailed: the model failed on the study, `sound` where the golden case passes; or the host is
                to blame.
        """
        assert self._predictor is not None
        try:
            yield
        except (InputRejected, StudyIncomplete, InferenceFailed):
            raise
        except Exception as error:
            step = self._predictor.step
            by_model = step is Step.COMPUTE
            # Only the model's engine speaks of the device: texts of a reader or writer may quote the study.
            code = classify(error, trusted=by_model)
            too_large = code is Code.INFERENCE_OUT_OF_MEMORY and not by_model
            if code is not Code.INFERENCE_ERROR and not too_large:
                raise
            what = f"{step}: {told(error)}"
            log.exception("unexpected fault; the golden case tells whose")
            self._case = None
            progress.step("golden")
            verdict = self._predictor.golden(rung)
            if not verdict.ok:
                raise InferenceFailed(
                    Code.GOLDEN_MISMATCH,
                    f"{what}; then the golden case reached {verdict.metric} {verdict.value:g}, "
                    f"{verdict.wanted:g} wanted",
                ) from error
            if by_model:
                raise InferenceFailed(code, f"{what}; the golden case passes", sound=True) from error
            raise InputRejected(
                code if too_large else Code.STUDY_UNUSUAL, f"{what}; the golden case passes", hold=True
            ) from error

    def _judge_by(self, rules: str | None) -> Judge | None:
        """The rule set of a request made ready; the parent has found it right. None is the bundle's own."""
        if rules is None:
            return None
        if self._judge is None or self._judge.file.text != rules.encode():
            from outpost.filter.rulefile import parse_rules
            from outpost.filter.verdict import Judge

            self._judge = Judge(parse_rules(rules.encode(), Path("rules")))
        return self._judge

    def _prove(self, rung: Rung) -> None:
        """No study is computed in a way whose golden case did not pass in this very process."""
        assert self._predictor is not None
        if (rung.size, rung.batch) in self._proven:
            return
        progress.step("golden", scale=5)  # an engine may make itself ready for this size first
        verdict = self._predictor.golden(rung)
        if not verdict.ok:
            raise InferenceFailed(
                Code.GOLDEN_MISMATCH,
                f"the golden case at rung {rung.name} reached {verdict.metric} {verdict.value:g}, "
                f"{verdict.wanted:g} wanted",
            )
        self._proven.add((rung.size, rung.batch))


def _outcome(question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run and tell the parent how it ended; only death itself goes untold."""
    try:
        return {"ok": question()}
    except InputRejected as rejection:
        return {"rejected": [rejection.code, rejection.message, rejection.hold]}
    except StudyIncomplete as incomplete:
        return {"incomplete": incomplete.lacks}
    except InferenceFailed as failure:
        return {"failed": [failure.code, failure.message], "sound": failure.sound}
    except Exception as error:
        log.exception("unexpected fault")
        return {"failed": [classify(error), told(error)]}


def classify(error: Exception, *, trusted: bool = True) -> Code:
    """Which code an exception of the model, its engine or the device stands for.

    Args:
        error: the exception.
        trusted: whether its text is the engine's; one that may quote a study says nothing of the device.
    """
    # torch reports memory it cannot get as torch.OutOfMemoryError on a GPU and, on the CPU, as a plain
    # RuntimeError from "DefaultCPUAllocator" (c10/core/impl/alloc_cpu.cpp); onnxruntime and OpenVINO let
    # std::bad_alloc through as text.
    text = str(error) if trusted else ""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Code.STORAGE_FULL
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(sign in text for sign in ("DefaultCPUAllocator", "bad_alloc", "Failed to allocate memory"))
    ):
        return Code.INFERENCE_OUT_OF_MEMORY
    if any(sign in text.lower() for sign in _NO_KERNEL):
        return Code.NO_KERNEL_IMAGE
    if any(sign in text for sign in _LOST):
        return Code.DEVICE_LOST
    return Code.INFERENCE_ERROR


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies, and die now if it is dead already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
