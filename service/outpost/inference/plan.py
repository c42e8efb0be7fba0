"""What this host is to compute with: the ladder's rungs from the bundle, the configuration and the host.

Read by the parent process: no torch here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from outpost.config import Config
from outpost.events import EventCode
from outpost.inference import memory
from outpost.inference.bundle import Bundle, load_bundle
from outpost.inference.choice import chosen
from outpost.inference.codes import InferenceFailed
from outpost.inference.ladder import Ladder, Reductions, build_rungs
from outpost.inference.rung import Rung
from outpost.records.journal import Journal
from outpost.shares import PARENT_MIB, held_by, needed_mib

log = logging.getLogger(__name__)

_NVIDIA = Path("/dev/nvidiactl")
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Plan:
    """How this system computes.

    Attributes:
        bundle: None when it cannot be read: the service then receives and holds.
        ladder: its first rung is the fullest.
        fresh: whether the engine was chosen by measurement on this very host, bundle and engines.
        room_to_measure: whether this system's memory lets engines be measured beside a worker.
        keep_memory: whether it holds all workers at once with what each keeps between studies.
        study_mib: what one worker may hold while it reads a study, so that the others keep theirs; 0 is without bound.
        name: of bundle, version and host, by which what is learnt is kept.
    """

    bundle: Bundle | None
    ladder: Ladder
    fresh: bool
    room_to_measure: bool = True
    keep_memory: bool = False
    study_mib: int = 0
    name: str = ""


def make_plan(config: Config, journal: Journal) -> Plan:
    """Read the bundle and the host. Never raises for a broken bundle."""
    settings = config.inference
    device = settings.device
    if device == "auto":
        device = "cuda:0" if _NVIDIA.exists() else "cpu"
    elif device == "cuda":
        device = "cuda:0"
    try:
        bundle = load_bundle(settings.bundle)
    except InferenceFailed as failure:
        log.error("bundle: %s, %s", failure.code, failure.message)  # noqa: TRY400 - its place is known
        rung = Rung("full", 1, 1, "full", "torchscript", "float32", "cpu")
        ladder = Ladder([rung], ["full"], journal, settings.bundle.name, settings.ladder.climb_after_seconds)
        return Plan(None, ladder, fresh=True)
    manifest = bundle.manifest
    choice, fresh = chosen(bundle, config.storage.root, settings.engine)
    sizes = [size.name for size in manifest.sizes]
    offers = Reductions(
        batches=manifest.batches,
        sizes=sizes,
        precisions=[
            other.precision
            for other in manifest.engines.candidates
            if other.engine == choice.engine and _bits(other.precision) < _bits(choice.precision)
        ],
        reference=(manifest.engines.reference.engine, manifest.engines.reference.precision),
    )
    need = manifest.resources.memory_mib
    workers = _workers(config, need, manifest.resources.vram_mib if device != "cpu" else 0, journal)
    limit = _limit_mib(config)
    room = limit is None or limit >= needed_mib(max(workers, 2), need)
    name = f"{bundle.name} {bundle.version} on {_host(config)}"
    return Plan(
        bundle,
        Ladder(
            build_rungs(choice.engine, choice.precision, device, workers, offers),
            sizes,
            journal,
            name,
            settings.ladder.climb_after_seconds,
        ),
        fresh,
        room,
        keep_memory=limit is None or limit >= needed_mib(workers, need),
        study_mib=max(need, limit - PARENT_MIB - (workers - 1) * need) if limit is not None else 0,
        name=name,
    )


def _bits(precision: str) -> int:
    return int("".join(letter for letter in precision if letter.isdigit()) or 32)


def _host(config: Config) -> str:
    """What decides on this host whether a rung fits: with another card or more memory, all is tried anew."""
    models = [
        line.partition(":")[2].strip()
        for file in sorted(_GPUS.glob("*/information"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("Model:")
    ]
    limit = _limit_mib(config)
    return ", ".join([*models, f"{limit} MiB" if limit is not None else "memory unknown"])


def _limit_mib(config: Config) -> int | None:
    limits = [limit for limit in (config.inference.memory_mib, memory.limit_mib()) if limit]
    return min(limits, default=None)


def _workers(config: Config, need_mib: int, need_vram_mib: int, journal: Journal) -> int:
    """As many as configured, unless this system's share of memory, or of the GPU's, holds fewer."""
    wanted = fit = config.inference.workers
    shares = [
        (_limit_mib(config), PARENT_MIB, need_mib, "memory"),
        (config.inference.vram_mib or None, 0, need_vram_mib, "of the GPU's memory"),
    ]
    for limit, taken, need, what in shares:
        if limit is None or not need or held_by(limit, need, taken) >= fit:
            continue
        fit = max(1, held_by(limit, need, taken))
        told = f"{fit} of {wanted}: {limit} MiB {what}, {need} MiB a worker"
        log.warning("inference.workers reduced to %s", told)
        journal.note_event(EventCode.WORKERS_REDUCED, told)
    return fit
