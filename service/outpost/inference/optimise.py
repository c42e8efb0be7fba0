"""`outpost optimise`: every engine the bundle lists is tried on this host; the fastest within tolerance is kept.

Each trial is a process of its own with one thread, a memory limit and a time limit: one that crashes is a row of
the table. The table is the evidence for the choice; `outpost.inference.choice` reads it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from outpost import __version__
from outpost.codes.spoken import spoken
from outpost.durable import sync_folder
from outpost.inference import engines, heap
from outpost.inference.bundle import Bundle, EngineChoice, full_rung
from outpost.inference.choice import FORMAT, current_key, evidence_file, named
from outpost.inference.memory import MIB
from outpost.options import Language

log = logging.getLogger(__name__)

TRIAL_SECONDS = 300.0
# A trial's own data may take this many times what the bundle declares, and what the libraries need besides:
# enough to measure one that needs too much, not enough to push the host.
_MEMORY_FACTOR, _MEMORY_BASE_MIB = 3, 1024

# Verdicts of a row, in the order people want to see them.
CHOSEN, WITHIN, OUTSIDE, TOO_LARGE, FAILED, SKIPPED = (
    "chosen",
    "within tolerance",
    "outside tolerance",
    "needs too much memory",
    "failed",
    "skipped",
)


def optimise(
    bundle: Bundle,
    storage_root: Path,
    *,
    device: str = "cpu",
    configured: str = "auto",
    trial_seconds: float = TRIAL_SECONDS,
    told: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Try all engines of a bundle, keep the evidence, return it.

    Args:
        bundle: what to compute.
        storage_root: folder of the system; the evidence goes to its `engines`.
        device: `cpu` or `cuda:N`.
        configured: `inference.engine`; other than `auto`, that engine is tried too, and used if it is right.
        trial_seconds: longest time for one engine.
        told: is called with each row as it is there.

    Returns:
        The evidence; `chosen` is None where no engine gives the golden answer: then nothing is kept.

    Raises:
        InferenceFailed: the bundle or its weights are not what was released.
        OSError: the evidence cannot be written.
    """
    bundle.weights  # noqa: B018 - reads and checks them once, before many processes do
    reference = bundle.manifest.engines.reference
    wanted = None if configured == "auto" else named(bundle, configured)
    choices = [reference, *bundle.manifest.engines.candidates, *([wanted] if wanted else [])]
    rows: list[dict[str, Any]] = []
    for choice in dict.fromkeys((one.engine, one.precision) for one in choices):
        row = _row(
            bundle, EngineChoice(engine=choice[0], precision=choice[1]), device, storage_root, trial_seconds
        )
        first = rows[0]["seconds"] if rows else row["seconds"]
        row["ratio"] = round(first / row["seconds"], 2) if first and row["seconds"] else None
        rows.append(row)
        told(row)
    best = _best(rows, wanted)
    if best is not None:
        best["verdict"] = CHOSEN
    evidence = {
        "format": FORMAT,
        "key": current_key(bundle),
        "chosen": {"engine": best["engine"], "precision": best["precision"]} if best else None,
        "configured": configured,
        "device": device,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "outpost": __version__,
        "machine": {"host": platform.node(), "kernel": platform.release(), "cores": os.cpu_count()},
        "rows": rows,
    }
    if best is not None:
        file = evidence_file(bundle, storage_root)
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file.with_suffix(".html"), page(evidence))
        # Last: it is what counts, and names a page that is there.
        _write(file, json.dumps(evidence, indent=1) + "\n")
    return evidence


def _best(rows: list[dict[str, Any]], wanted: EngineChoice | None) -> dict[str, Any] | None:
    """The fastest row within tolerance, or the configured one where it is right."""
    right = [row for row in rows if row["verdict"] == WITHIN]
    if wanted is not None:
        right = [
            row for row in right if (row["engine"], row["precision"]) == (wanted.engine, wanted.precision)
        ]
    return min(right, key=lambda row: float(row["seconds"]), default=None)


def _row(
    bundle: Bundle, choice: EngineChoice, device: str, storage_root: Path, trial_seconds: float
) -> dict[str, Any]:
    # The reference computes on the CPU whatever the host has: it is what the ladder ends with.
    where = "cpu" if choice == bundle.manifest.engines.reference else device
    row: dict[str, Any] = {
        "engine": choice.engine,
        "precision": choice.precision,
        "version": engines.version(choice.engine),
        "device": where,
        "verdict": SKIPPED,
        "reason": "",
        "seconds": None,
        "memory_mib": None,
    }
    formats = sorted({weights.format for weights in bundle.manifest.weights.values()})
    lack = engines.unavailable(choice.engine, where) or engines.unsuited(
        choice.engine, choice.precision, formats
    )
    if lack:
        return row | {"reason": lack}
    outcome = _try(bundle, choice, where, storage_root, trial_seconds)
    if outcome.get("failed") == "ENGINE_UNAVAILABLE":
        return row | {"reason": outcome["reason"]}
    if "failed" in outcome:
        return row | {"verdict": FAILED, "reason": f"{outcome['failed']}: {outcome['reason']}"}
    return row | outcome | _judged(bundle, outcome)


def _judged(bundle: Bundle, outcome: dict[str, Any]) -> dict[str, Any]:
    goldens = [
        {"size": "full", "batch": bundle.manifest.batches[0], **outcome["golden"]},
        *outcome["reduced"],
    ]
    for golden in goldens:
        if not golden["ok"]:
            return {
                "verdict": OUTSIDE,
                "reason": f"size {golden['size']}, batch {golden['batch']}: {golden['metric']} "
                f"{golden['value']:g}, {golden['wanted']:g} wanted",
            }
    need, declared = outcome["memory_mib"], bundle.manifest.resources.memory_mib
    if need is not None and need > declared:
        return {
            "verdict": TOO_LARGE,
            "reason": f"{need} MiB, the bundle declares {declared} (resources.memory_mib)",
        }
    return {"verdict": WITHIN, "reason": ""}


def _try(
    bundle: Bundle, choice: EngineChoice, device: str, storage_root: Path, trial_seconds: float
) -> dict[str, Any]:
    """Run `outpost.inference.trial`; its death or silence is an outcome as well."""
    limit = (_MEMORY_FACTOR * bundle.manifest.resources.memory_mib + _MEMORY_BASE_MIB) * MIB
    rung = full_rung(bundle, choice, device=device)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "outpost.inference.trial", str(bundle.path)),
                *(json.dumps(rung.as_json()), str(storage_root), str(os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=trial_seconds,
            check=False,
            env={
                **heap.keeping(os.environ),  # as the workers do
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            },
            # CUDA maps far more than it uses: there the GPU is the limit.
            preexec_fn=partial(_limit_data, limit) if device == "cpu" else None,
        )
    except subprocess.TimeoutExpired:
        return {"failed": "INFERENCE_TIMEOUT", "reason": f"no answer in {trial_seconds:g} s"}
    if done.returncode == 0:
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return {"failed": "WORKER_DIED", "reason": f"ended by {how} {' '.join(last)[:200]}".strip()}


def _limit_data(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _write(file: Path, text: str) -> None:
    """Replace a file as a whole, durably."""
    partial_file = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with partial_file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial_file.replace(file)
    sync_folder(file.parent)


# --- for people ---

_HEAD = ("engine", "precision", "s/case", "x reference", "answer", "MiB", "verdict")


def cells(row: dict[str, Any], language: Language = "en") -> tuple[str, ...]:
    """A row of the table as people read it."""
    golden = row.get("golden")
    return (
        f"{row['engine']} {row['version']}".strip(),
        row["precision"],
        f"{row['seconds']:.3f}" if row["seconds"] else "-",
        f"{row['ratio']:.2f}" if row.get("ratio") else "-",
        f"{golden['metric']} {golden['value']:.5g}" if golden else "-",
        str(row["memory_mib"]) if row["memory_mib"] else "-",
        spoken(row["verdict"] + (f": {row['reason']}" if row["reason"] else ""), language),
    )


def table(evidence: dict[str, Any], language: Language = "en") -> str:
    """The evidence as text."""
    head = tuple(spoken(name, language) for name in _HEAD)
    lines = [head, *(cells(row, language) for row in evidence["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def page(evidence: dict[str, Any]) -> str:
    """The evidence as a page that needs nothing from elsewhere."""
    key = evidence["key"]
    best = evidence["chosen"]
    facts = {
        "Bundle": key["bundle"],
        "Chosen": f"{best['engine']} in {best['precision']}" if best else "none",
        "Asked for": evidence["configured"],
        "Measured": evidence["measured_at"],
        "Host": f"{evidence['machine']['host']}, {evidence['machine']['cores']} cores, "
        f"kernel {evidence['machine']['kernel']}",
        "CPU": key["cpu"]["model"],
        "GPU": ", ".join(key["gpu"]) or "none",
        "Device": evidence["device"],
        "Installed engines": ", ".join(f"{name} {value}" for name, value in key["engines"].items() if value),
        "Outpost": evidence["outpost"],
    }
    facts |= {f"Weights {name} (sha256)": digest for name, digest in key["weights"].items()}
    above = "".join(f"<tr><th>{escape(name)}<td>{escape(str(value))}" for name, value in facts.items())
    head = "".join(f"<th>{escape(name)}" for name in _HEAD)
    body = "".join(
        f'<tr class="{escape(row["verdict"].split()[0])}">'
        + "".join(f"<td>{escape(cell)}" for cell in cells(row))
        for row in evidence["rows"]
    )
    reduced = "".join(
        f"<tr><td>{escape(row['engine'])} {escape(row['precision'])}<td>{escape(str(one['size']))}"
        f"<td>{one['batch']}<td>{escape(one['metric'])} {one['value']:.5g}<td>{one['wanted']:g}"
        f"<td>{'yes' if one['ok'] else 'NO'}"
        for row in evidence["rows"]
        for one in row.get("reduced", ())
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Engines of {escape(key["bundle"])}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }}
table {{ border-collapse: collapse; margin: 1em 0 }}
th, td {{ border: 1px solid #bbb; padding: .3em .6em; text-align: left; vertical-align: top }}
.chosen {{ background: #d9f2dd; font-weight: 600 }} .skipped, .failed {{ color: #666 }} .outside {{ color: #a00 }}
</style>
<h1>Engines of {escape(key["bundle"])}</h1>
<p>Each engine computed the bundle's golden case with one thread, in a process of its own. The fastest whose
answer is within the bundle's tolerance at every size, and which needs no more memory than the bundle
declares, computes studies on this host. Seconds are the best of three, of processor time on the CPU.</p>
<table>{above}</table>
<table><tr>{head}{body}</table>
<h2>Reduced sizes and batches</h2>
<table><tr><th>engine<th>size<th>batch<th>answer<th>wanted<th>within{reduced}</table>
</html>
"""
