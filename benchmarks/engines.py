"""Engines on one CPU thread: torch eager against what Outpost can compute with instead. `make bench-engines`.

Networks: those of the bundles, each on the very tensors its golden case gives it, and MONAI's DenseNet-121 with
seeded weights (1x1x224x224). Every engine is a process of its own; all are measured in turn, several rounds, and the
least processor time of each counts. Bundles of TorchScript weights have TorchScript as their eager side.

Bars: at least 1.6 x eager in float32, and at least 3 x in bfloat16 where the CPU has it. In float32 DenseNet's
output may differ by 1e-5 at most; a bundle's golden case must be within the bundle's tolerance in any precision.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "service"), str(ROOT / "benchmarks")]

import report  # noqa: E402 - not installed

BAR_FLOAT32, BAR_BFLOAT16 = 1.6, 3.0
SAME = 1e-5
DENSENET = "densenet121"
OTHERS = [("openvino", "float32"), ("openvino", "bfloat16"), ("onnxruntime", "float32")]
LOAD_SECONDS = 400


def main() -> int:
    """Measure, print, keep."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument(
        "--quick", action="store_true", help="three rounds, no torch.compile, nothing kept"
    )
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        return child(**json.loads(options.child))
    rounds = 3 if options.quick else options.rounds
    details: dict[str, Any] = {}
    bars: list[tuple[str, float | None, float, bool]] = []
    bf16 = bool({"avx512_bf16", "amx_bf16"} & set(report.machine()["flags"]))
    models = sorted(path.parent.name for path in (ROOT / "service/bundles").glob("*/outpost.yaml"))
    for model in [DENSENET, *models]:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(model, rounds, Path(folder), compiling=not options.quick)
        details[model] = rows
        eager = rows[0]["seconds"]
        for row in rows:
            row["ratio"] = eager / row["seconds"] if eager and row["seconds"] else None
        print(f"\n{model}, one thread, least of {rounds}:")
        head = ("engine", "ms", "x eager", "max abs diff", "golden", "load s", "MiB", "note")
        print(report.table(head, map(cells, rows)), flush=True)
        for precision, bar in (("float32", BAR_FLOAT32), ("bfloat16", BAR_BFLOAT16)):
            if precision == "bfloat16" and not bf16:
                print("bfloat16: this CPU does not have it, no bar")
                continue
            fit = [
                row
                for row in rows[1:]
                if row["ratio"] and row["precision"] == precision and within(row, model, precision)
            ]
            best = max((row["ratio"] for row in fit), default=None)
            ok = best is not None and best >= bar
            bars.append((f"{model} {precision}", best, bar, ok))
            told = f"{best:.2f}" if best else "none within tolerance"
            print(f"{precision}: best {told} x eager, bar {bar}: {'ok' if ok else 'NOT REACHED'}", flush=True)
    ratios = {name: best for name, best, _, _ in bars}
    return report.finish(
        "engines",
        ratio=ratios[f"{DENSENET} float32"],
        peer="torch eager, DenseNet-121, one thread, float32",
        bar=f">= {BAR_FLOAT32} x eager in float32 and >= {BAR_BFLOAT16} x in bfloat16, every model",
        ok=all(ok for *_, ok in bars),
        details={
            "models": details,
            "bars": [dict(zip(("what", "ratio", "bar", "ok"), bar, strict=True)) for bar in bars],
        },
        packages=("torch", "onnxruntime", "openvino", "monai", "deepbet"),
        keep=not options.quick,
    )


def within(row: dict[str, Any], model: str, precision: str) -> bool:
    """Whether an engine's answer may be used."""
    if model == DENSENET:
        return precision != "float32" or row["max_abs"] <= SAME
    return bool(row["golden"]["ok"])


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    golden = row.get("golden")
    return (
        f"{row['engine']}/{row['precision']}",
        f"{row['seconds'] * 1000:.1f}" if row["seconds"] else "-",
        f"{row['ratio']:.2f}" if row["ratio"] else "-",
        f"{row['max_abs']:.1e}" if row["max_abs"] is not None else "-",
        f"{golden['metric']} {golden['value']:.5g}" if golden else "-",
        f"{row['load_seconds']:.1f}" if row["load_seconds"] is not None else "-",
        str(row["memory_mib"] or "-"),
        row["note"],
    )


def measure(model: str, rounds: int, folder: Path, *, compiling: bool) -> list[dict[str, Any]]:
    """One row for each engine; the first is the eager side, which writes the answers the others are held to."""
    from outpost.inference import engines
    from outpost.inference.bundle import load_bundle

    formats = ["state_dict"]
    if model != DENSENET:
        manifest = load_bundle(ROOT / "service/bundles" / model).manifest
        formats = sorted({weights.format for weights in manifest.weights.values()})
    eager = [("torch", "float32"), ("torchscript", "float32"), ("torch-compile", "float32")]
    if engines.unsuited("torch", "float32", formats):
        eager = [eager[1], eager[0], eager[2]]
    rows, running = [], {}
    try:
        for engine, precision in [*eager, *OTHERS]:
            row: dict[str, Any] = {
                "engine": engine,
                "precision": precision,
                **dict.fromkeys(("seconds", "max_abs", "load_seconds", "memory_mib", "golden")),
                "note": engines.unavailable(engine, "cpu")
                or engines.unsuited(engine, precision, formats)
                or "",
            }
            if engine == "torch-compile" and not compiling:
                row["note"] = "not tried (--quick)"
            rows.append(row)
            if not row["note"]:
                try:
                    process = start(model, engine, precision, folder)
                    row |= answer(process)
                    running[len(rows) - 1] = process
                except (ValueError, OSError) as error:
                    row["note"] = f"failed: {error}"
        times = report.interleaved(
            {str(number): lambda process=process: ask(process) for number, process in running.items()}, rounds
        )
        for number, found in times.items():
            rows[int(number)]["seconds"] = min(found)
            rows[int(number)]["all_seconds"] = [round(one, 5) for one in found]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return rows


def start(model: str, engine: str, precision: str, folder: Path) -> subprocess.Popen[str]:
    spec = {"model": model, "engine": engine, "precision": precision, "folder": str(folder)}
    return subprocess.Popen(
        [sys.executable, __file__, "--child", json.dumps(spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline() or '""') or {}
    if not found:
        raise ValueError(f"the process ended with {process.wait()}")
    return found


def ask(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(answer(process)["seconds"])


# --- in the child ---


def child(model: str, engine: str, precision: str, folder: str) -> int:
    """Load, say what came of it, then compute once for each line of input."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    from outpost.inference.trial import memory_peak_mib

    torch.set_num_threads(1)
    started = time.monotonic()
    calls, golden = (
        densenet(engine, precision, Path(folder)) if model == DENSENET else bundle(model, engine, precision)
    )
    outputs = [network(image) for network, image in calls]
    loaded = time.monotonic() - started
    expected = Path(folder) / "answers.pt"
    if not expected.exists():
        torch.save((outputs, [image for _, image in calls]), expected)
    wanted, images = torch.load(expected)
    # The same input for every engine: the first network's answer decides what a bundle's second one sees.
    calls = [(network, image) for (network, _), image in zip(calls, images, strict=True)]
    outputs = [network(image) for network, image in calls]
    different = max(float((one - other).abs().max()) for one, other in zip(outputs, wanted, strict=True))
    del outputs, wanted

    def say(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    say(load_seconds=loaded, max_abs=different, golden=golden, memory_mib=memory_peak_mib())
    for _ in sys.stdin:
        began = time.process_time()
        for network, image in calls:
            network(image)
        say(seconds=time.process_time() - began)
    return 0


def densenet(engine: str, precision: str, folder: Path) -> tuple[list[tuple[Any, Any]], None]:
    import torch
    from monai.networks.nets import DenseNet121

    from outpost.inference import engines

    def define() -> torch.nn.Module:
        torch.manual_seed(0)
        return DenseNet121(spatial_dims=2, in_channels=1, out_channels=14).eval()

    weights = folder / "densenet.pt"
    if not weights.exists():
        torch.save(define().state_dict(), weights)
    source = engines.Source(DENSENET, weights, "0" * 64, "state_dict", define)
    torch.manual_seed(1)
    image = torch.rand(1, 1, 224, 224)
    return [(engines.load(engine, precision, source, "cpu", image.shape), image)], None


def bundle(name: str, engine: str, precision: str) -> tuple[list[tuple[Any, Any]], dict[str, Any]]:
    """The calls of the golden case: each network with the tensor it was given."""
    from dataclasses import asdict

    from outpost.inference.bundle import EngineChoice, full_rung, load_bundle
    from outpost.inference.predictor import Predictor

    loaded = load_bundle(ROOT / "service/bundles" / name)
    choice = EngineChoice(engine=engine, precision=precision)
    rung = full_rung(loaded, choice)
    predictor = Predictor(loaded, rung)
    verdict = predictor.golden(rung)
    calls: list[tuple[Any, Any]] = []

    class Noting:
        def __init__(self, network: Any) -> None:
            self.network, self.facts, self.module = network, network.facts, network.module

        def __call__(self, image: Any) -> Any:
            calls.append((self.network, image.clone()))
            return self.network(image)

    predictor.replace_networks({name: Noting(network) for name, network in predictor.networks.items()})
    predictor.golden_output(rung)
    return calls, asdict(verdict)


if __name__ == "__main__":
    sys.exit(main())
