"""What the inference stage hands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from outpost.codes.notes import Note
from outpost.results.provenance import ResultObject


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """The files made from one study, and how they were made.

    Attributes:
        files: DICOM objects to deliver, in the order of delivery.
        model: name of the bundle.
        model_version: version of the bundle.
        engine: what computed it, for example `torchscript 2.13.0`.
        precision: for example `float32`.
        rung: step of the ladder; `full` is nothing reduced.
        device: for example `cpu`.
        seconds: wall time from reading the first image to the last file written.
        notes: what the result says of itself beside its answer.
        objects: identity of each file.
    """

    files: tuple[Path, ...]
    model: str
    model_version: str
    engine: str
    precision: str
    rung: str
    device: str
    seconds: float
    notes: tuple[Note, ...] = ()
    objects: tuple[ResultObject, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a result, in the order of delivery, and what was found while they were written."""

    files: tuple[Path, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class GoldenVerdict:
    """The golden case, computed on the same process, device and precision as studies.

    Attributes:
        ok: whether `value` is within `wanted`.
        value: the answer held against the one the bundle was released with, in `metric`.
        wanted: what the bundle accepts at this size.
        seconds: wall time of the computation.
        metric: `dice` (overlap of masks, 0 to 1, at least `wanted`) or `max_abs` (greatest absolute difference,
            at most `wanted`).
    """

    ok: bool
    value: float
    wanted: float
    seconds: float
    metric: str = "dice"
