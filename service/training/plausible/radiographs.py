"""Answers of the radiograph bundle about real images of packages, in sixteen presentations each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

HERE: Final = Path(__file__).resolve().parent
ANSWERS: Final = HERE / "radiographs.json"
BUNDLE: Final = HERE.parents[1] / "bundles" / "radiograph_orientation"

# Package, file, what it is, and the views that are right.
_IMAGES: Final = (
    ("pydicom-data", "RG1_UNCR.dcm", "chest, PA", "chest_frontal"),
    ("pydicom-data", "RG3_UNCR.dcm", "lower leg", "other"),
    ("deid-data", "cat.dcm", "cat, tagged DX CHEST AP", "other"),
    ("pydicom-data", "693_UNCR.dcm", "slice of a CT, tagged DX", "other"),
    ("pydicom-data", "MR2_UNCR.dcm", "slice of an MR shoulder, tagged DX", "other"),
    ("pynetdicom", "RTImageStorage.dcm", "beam of a linac, tagged DX", "other"),
)


@dataclass(frozen=True)
class Answer:
    """About one presentation of an image.

    Attributes:
        image: what it is.
        view: answered.
        right: whether all that is reported of it is right.
        least: the least probability of what is reported.
    """

    image: str
    view: str
    right: bool
    least: float


def measure() -> None:
    """Write radiographs.json."""
    ANSWERS.write_text(json.dumps([asdict(one) for one in _answers()], indent=0) + "\n", encoding="utf-8")


def answers() -> list[Answer]:
    return [Answer(**one) for one in json.loads(ANSWERS.read_text(encoding="utf-8"))]


def _answers() -> Iterator[Answer]:
    import torch
    from volumes import packaged

    from outpost.inference.bundle import full_rung, load_bundle
    from outpost.inference.header import read_header
    from outpost.inference.predictor import Predictor
    from outpost.inference.radiograph import (
        VIEWS,
        RadiographCase,
        RadiographClassification,
        _by_head,
        _read_pixels,
    )

    bundle = load_bundle(BUNDLE)
    predictor = Predictor(bundle, full_rung(bundle))
    task = RadiographClassification(bundle)
    for package, file, what, wanted in _IMAGES:
        picture = _read_pixels(read_header(packaged(package, file))).numpy()
        shown, asked = [], []
        for turn in range(4):
            for mirrored in (False, True):
                for reverse in (False, True):
                    one = np.rot90(picture[:, ::-1] if mirrored else picture, turn)
                    shown.append(np.ascontiguousarray(-one if reverse else one))
                    asked.append((turn, reverse))
        case = RadiographCase(torch.from_numpy(np.stack(shown)))
        for found, (turn, reverse) in zip(
            task.compute(case, predictor.inferer("full"), 8), asked, strict=True
        ):
            view, rotation, _, inverted = _by_head(found)
            name = VIEWS[int(view.argmax())]
            right, least = name == wanted, float(view.max())
            if name != "other":
                right = right and int(rotation.argmax()) == turn and bool(inverted[0] >= 0.5) is reverse
                least = min(least, float(rotation.max()), float(max(inverted[0], 1 - inverted[0])))
            yield Answer(what, name, right, round(least, 4))
