#!/usr/bin/env python3
"""Finds the limits of doubt for the brain bundle, and publishes what they let pass and what they stop.

    calibrate.py measure --work FOLDER    masks of all volumes, the mean brain, measures.json (half an hour on one core)
    calibrate.py radiographs              radiographs.json (seconds)
    calibrate.py publish                  docs/doubt.md from both files (a second)

`measure` computes every volume of `volumes.py` with the bundle as the service does, and keeps the masks in FOLDER. From
two heads it makes the mean brain; by the sources that may be fitted on, the coefficients of likeness; both go into
service/bundles/brain_extraction/plausible/brain.npz, whose digest stands in outpost.yaml. Nothing is drawn by chance
that is not seeded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
BUNDLE: Final = ROOT / "service" / "bundles" / "brain_extraction"
ORGAN: Final = BUNDLE / "plausible" / "brain.npz"
MEASURES: Final = HERE / "measures.json"
PAGE: Final = ROOT / "docs" / "doubt.md"

# Coefficients are kept small: two groups that can be told apart wholly would drive them to infinity.
_RIDGE: Final = 0.002


@dataclass(frozen=True)
class Row:
    """One volume and what was measured of it.

    Attributes:
        head, source, name, fitted, ordinary: as of `volumes.Sample`.
        shown: probability of a head in the middle one of three slices, across each axis.
        refused: why the model gave no mask; the measures of one are 0 then.
        volume_ml, form, pattern: of `outpost.inference.plausible`.
    """

    head: bool
    source: str
    name: str
    fitted: bool
    ordinary: bool
    shown: tuple[float, ...]
    refused: str
    volume_ml: float
    form: float
    pattern: float


def rows() -> list[Row]:
    """Those of measures.json."""
    return [
        Row(**{**row, "shown": tuple(row["shown"])})
        for row in json.loads(MEASURES.read_text(encoding="utf-8"))["rows"]
    ]


# --- measuring ---


def measure(work: Path) -> None:
    """Masks, the mean brain, its coefficients and measures.json."""
    from volumes import samples

    from outpost.inference.plausible import Organ
    from outpost.inference.plausible import measure as measured

    todo = list(samples())
    kept = {one.name: _mask(one, work) for one in todo}
    examples = [
        _example(one, kept[one.name])
        for one in todo
        if one.ordinary and one.fitted and one.name.endswith(": as it is")
    ]
    organ = Organ(
        *(
            np.mean([example[part] for example in examples], axis=0).astype(np.float16).astype(np.float32)
            for part in (0, 1)
        ),
        (0.0, 0.0, 0.0),
    )
    found: list[Row] = []
    for one in todo:
        volume, spacing = one.make()
        mask, refused = kept[one.name]
        values = (
            asdict(measured(volume, mask, spacing, organ))
            if mask.any()
            else dict.fromkeys(("volume_ml", "form", "pattern"), 0.0)
        )
        found.append(
            Row(
                head=one.head,
                source=one.source,
                name=one.name,
                fitted=one.fitted,
                ordinary=one.ordinary,
                shown=_shown(volume, spacing),
                refused=refused,
                **{name: round(value, 4) for name, value in values.items()},
            )
        )
        print(
            f"{one.name}: {found[-1].volume_ml:.0f} ml, form {found[-1].form:.3f}, pattern {found[-1].pattern:.3f}"
        )
    coefficients = fit(found)
    ORGAN.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        ORGAN,
        form=organ.form.astype(np.float16),
        pattern=organ.pattern.astype(np.float16),
        coefficients=np.array(coefficients, dtype=np.float32),
    )
    MEASURES.write_text(
        json.dumps(
            {
                "sha256": hashlib.sha256(ORGAN.read_bytes()).hexdigest(),
                "coefficients": coefficients,
                "rows": [asdict(row) for row in found],
            },
            indent=0,
        )
        + "\n",
        encoding="utf-8",
    )
    print(f"sha256 of {ORGAN}: {hashlib.sha256(ORGAN.read_bytes()).hexdigest()}; put it into outpost.yaml")


def _mask(one: Any, work: Path) -> tuple[NDArray[np.bool_], str]:
    """The bundle's mask of a volume, from FOLDER if it was computed before; and why there is none."""
    from outpost.inference.codes import InputRejected

    file = work / f"{hashlib.sha256(one.name.encode()).hexdigest()[:16]}.npz"
    if not file.exists():
        volume, _ = one.make()
        try:
            mask, refused = _inferer()(volume), ""
        except InputRejected as rejection:
            mask, refused = np.zeros(volume.shape, dtype=np.bool_), rejection.code
        work.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, mask=mask, refused=refused)
    with np.load(file) as kept:
        return kept["mask"], str(kept["refused"])


_MADE: list[Any] = []


def _inferer() -> Any:
    """The bundle's own, in OpenVINO, which is fastest; loaded once."""
    from outpost.inference.bundle import EngineChoice, full_rung, load_bundle
    from outpost.inference.predictor import Predictor

    if not _MADE:
        bundle = load_bundle(BUNDLE)
        predictor = Predictor(bundle, full_rung(bundle, EngineChoice(engine="openvino", precision="float32")))
        _MADE.append(predictor.inferer("full"))
    return _MADE[0]


def _example(
    one: Any, kept: tuple[NDArray[np.bool_], str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from outpost.inference.plausible import sample

    volume, spacing = one.make()
    return sample(volume, kept[0], spacing)


def _shown(volume: NDArray[np.float32], spacing: Sequence[float]) -> tuple[float, ...]:
    """As the pixel verdict sees it: the middle one of three slices across each axis."""
    from outpost.filter.anatomy import classify
    from outpost.filter.pixel_policy import PixelPolicy
    from outpost.filter.thumbnail import LARGEST, reduce_frame
    from outpost.inference.volume import cut_across

    found = []
    for axis in range(3):
        plane = cut_across(volume, spacing, axis, PixelPolicy())
        seen = sorted(classify(reduce_frame(one, LARGEST)).probability("head_slice") for one in plane)
        found.append(round(seen[len(seen) // 2], 4))
    return tuple(found)


def fit(found: Iterable[Row]) -> list[float]:
    """Logistic regression of being a head on pattern and form, by Newton's method.

    Only sources that may be fitted on; each source counts alike within its group, both groups alike.
    """
    used = [row for row in found if row.fitted and not row.refused]
    sources = {head: {row.source for row in used if row.head is head} for head in (True, False)}
    weights = np.array(
        [
            1
            / len(sources[row.head])
            / sum(other.source == row.source and other.head is row.head for other in used)
            for row in used
        ]
    )
    x = np.array([[1, row.pattern, row.form] for row in used])
    y = np.array([row.head for row in used], dtype=float)
    middle, spread = x[:, 1:].mean(0), x[:, 1:].std(0)
    x[:, 1:] = (x[:, 1:] - middle) / spread
    beta = np.zeros(3)
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ beta))
        penalty = _RIDGE * np.array([0, 1, 1])
        gradient = x.T @ (weights * (y - p)) - penalty * beta
        curvature = (x.T * (weights * p * (1 - p))) @ x + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        beta += step
        if np.abs(step).max() < 1e-9:
            break
    scaled = beta[1:] / spread
    return [round(float(value), 4) for value in (beta[0] - scaled @ middle, *scaled)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("measure", "radiographs", "publish"))
    parser.add_argument("--work", type=Path, required=False)
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if arguments.what == "measure":
        if arguments.work is None:
            parser.error("measure needs --work FOLDER: masks are kept there")
        measure(arguments.work)
    elif arguments.what == "radiographs":
        import radiographs

        radiographs.measure()
    else:
        from curve import page

        PAGE.write_text(page(rows()), encoding="utf-8")
        print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
