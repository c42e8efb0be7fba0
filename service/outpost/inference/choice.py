"""Which engine a bundle is computed with on this host: what `outpost optimise` measured, while it still holds.

The evidence is `engines/<bundle>.json` in the system's storage, with a page for people beside it. It holds for one
bundle, one set of installed engines, one CPU and one set of GPUs. Read by the parent process: no torch here.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from outpost.heal.found import put_aside
from outpost.inference import engines
from outpost.inference.bundle import Bundle, EngineChoice

log = logging.getLogger(__name__)

# Of the evidence file; one of another format is measured anew.
FORMAT = 1
_CPUINFO = Path("/proc/cpuinfo")
_NVIDIA = Path("/proc/driver/nvidia")


def evidence_file(bundle: Bundle, storage_root: Path) -> Path:
    """Where the evidence for a bundle lies; the readable page has the same name and ends in `.html`."""
    return storage_root / "engines" / f"{bundle.name}.json"


def chosen(bundle: Bundle, storage_root: Path, configured: str) -> tuple[EngineChoice, bool]:
    """The engine to compute with.

    Args:
        bundle: of the system.
        storage_root: folder of the system.
        configured: `inference.engine`: `auto`, `name` or `name/precision`.

    Returns:
        The engine and precision; and whether there is nothing to measure: one is configured, or the evidence
        is of this very bundle and host. Without evidence that holds it is the bundle's reference engine.
    """
    if configured != "auto":
        return named(bundle, configured), True
    file = evidence_file(bundle, storage_root)
    try:
        evidence = json.loads(file.read_text(encoding="utf-8"))
        if differing := stale(evidence, bundle):
            log.info("engine: %s was measured with another %s", file, ", ".join(differing))
        else:
            return EngineChoice.model_validate(evidence["chosen"]), True
    except FileNotFoundError:
        log.info("engine: not measured yet (%s is not there)", file)
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError),
        *(RecursionError, ValidationError),
    ) as error:
        why = (
            str(error.strerror)
            if isinstance(error, OSError)
            else f"it cannot be read ({type(error).__name__})"
        )
        move = not isinstance(error, PermissionError)
        put_aside(file, why, "the reference engine computes until the engines are measured again", move=move)
    return bundle.manifest.engines.reference, False


def named(bundle: Bundle, configured: str) -> EngineChoice:
    """The engine a configuration names: `name/precision`, or `name` in the first precision the bundle lists.

    Raises:
        ValidationError: there is no engine or precision of this name.
    """
    name, _, precision = configured.partition("/")
    listed = [bundle.manifest.engines.reference, *bundle.manifest.engines.candidates]
    known = next((one.precision for one in listed if one.engine == name), "float32")
    return EngineChoice.model_validate({"engine": name, "precision": precision or known})


def stale(evidence: dict[str, Any], bundle: Bundle) -> list[str]:
    """What of this bundle and host differs from what was measured; empty if the evidence holds."""
    if evidence.get("format") != FORMAT:
        return ["format"]
    now, then = current_key(bundle), evidence["key"]
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def current_key(bundle: Bundle) -> dict[str, Any]:
    """All that decides which engine is fastest, and whether it is right."""
    manifest = bundle.manifest
    settings = hashlib.sha256()
    for file in ("outpost.yaml", "configs/inference.json", manifest.golden.expected):
        path = bundle.path / file
        settings.update(path.read_bytes() if path.is_file() else b"")
    return {
        "bundle": f"{bundle.name} {bundle.version}",
        "settings": settings.hexdigest(),
        "weights": {name: weights.sha256 for name, weights in manifest.weights.items()},
        "engines": {name: engines.version(name) for name in engines.NAMES},
        "cpu": cpu(),
        "gpu": gpus(),
    }


def cpu() -> dict[str, str]:
    """Model of the CPU, and its flags as a digest: engines choose their code by them."""
    try:
        first, _, _ = _CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return {"model": "unknown", "flags": ""}
    rows = {
        key.strip(): value.strip() for key, _, value in (row.partition(":") for row in first.splitlines())
    }
    flags = " ".join(sorted((rows.get("flags") or rows.get("Features") or "").split()))
    identity = [rows.get(key, "") for key in ("model name", "cpu family", "model", "CPU part")]
    return {
        "model": ", ".join(part for part in identity if part) or "unknown",
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
    }


def gpus() -> list[str]:
    """Models of the NVIDIA GPUs, and the driver's version where there are any."""
    found = [
        line.partition(":")[2].strip()
        for file in sorted(_NVIDIA.glob("gpus/*/information"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("Model:")
    ]
    if found:
        driver = (_NVIDIA / "version").read_text(encoding="utf-8", errors="replace").splitlines()
        found.append(driver[0] if driver else "driver unknown")
    return found
