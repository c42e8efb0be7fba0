"""How often the classifier is wrong: on simulated pictures held back, and on real images it was never trained on."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from outpost.filter.anatomy import CLASSES, classify, read_networks
from outpost.filter.thumbnail import as_displayed, reduce_frame
from outpost.inference.decode import decode_file

if TYPE_CHECKING:
    from train_anatomy import Drawer

SURE = 0.9  # as `PixelPolicy.sure`
_PYDICOM = "data_store/data/"
# Real images of installed packages -> package, file, and what they show. None of them was trained on.
REAL = {
    "chest PA (RG1)": ("pydicom-data", f"{_PYDICOM}RG1_UNCR.dcm", "chest_frontal"),
    "lower leg (RG3)": ("pydicom-data", f"{_PYDICOM}RG3_UNCR.dcm", "limb"),
    "cat, tagged DX CHEST AP": ("deid-data", "deid_data/data/animals/cat.dcm", "other"),
    "CT head (693)": ("pydicom-data", f"{_PYDICOM}693_UNCR.dcm", "head_slice"),
    "MR shoulder (MR2)": ("pydicom-data", f"{_PYDICOM}MR2_UNCR.dcm", "body_slice"),
    "MR abdomen": ("pydicom-data", f"{_PYDICOM}MR-SIEMENS-DICOM-WithOverlays.dcm", "body_slice"),
    "CT spine": ("pydicom-data", f"{_PYDICOM}bad_sequence.dcm", "body_slice"),
    "CT abdomen": ("pydicom-data", f"{_PYDICOM}explicit_VR-UN.dcm", "body_slice"),
    "NM whole body": ("pydicom-data", f"{_PYDICOM}JPEG2000_UNC.dcm", "other"),
    "test pattern": ("pydicom-data", f"{_PYDICOM}vlut_04.dcm", "other"),
    "drawn face, tagged CT HEAD": ("deid-data", "deid_data/data/humans/ctbrain1.dcm", "other"),
    **{
        f"cookies {number}": ("deid-data", f"deid_data/data/dicom-cookies/image{number}.dcm", "other")
        for number in range(1, 8)
    },
}
HEAD = Path("/usr/share/mricron/templates/ch2.nii.gz")  # Debian's mricron-data


def held_back(file: Path, drawer: Drawer, batches: int = 25) -> dict[str, Any]:
    """By kind: share called right, wrong and unsure at `SURE`; and share of reversals told right."""
    networks = read_networks(file.read_bytes())
    told: dict[str, list[str]] = {name: [] for name in CLASSES}
    reversals = []
    for _ in range(batches):
        images, classes, inverted = drawer.batch(32)
        for image, wanted, reverse in zip(
            images[:, 0].numpy(), classes.tolist(), inverted.tolist(), strict=True
        ):
            shown = classify(image, networks)
            sure = shown.probability(shown.best) >= SURE
            right = shown.best == CLASSES[wanted]
            told[CLASSES[wanted]].append("unsure" if not sure else "right" if right else "wrong")
            if reverse >= 0:
                reversals.append((shown.inverted > 0.5) == bool(reverse))
    shares = {
        name: {verdict: round(said.count(verdict) / len(said), 3) for verdict in ("right", "unsure", "wrong")}
        | {"of": len(said)}
        for name, said in told.items()
        if said
    }
    return shares | {"reversed": {"right": round(float(np.mean(reversals)), 3), "of": len(reversals)}}


def real_images(file: Path) -> dict[str, Any]:
    """Each real image, and slices of a real head, in 8 turns and mirrors: best class, its probability, verdicts."""
    networks = read_networks(file.read_bytes())
    pictures = {name: (_displayed(*found[:2]), found[2]) for name, found in REAL.items()}
    if HEAD.exists():
        volume = np.asarray(nibabel.load(HEAD).dataobj, dtype=np.float32)
        for axis, plane in enumerate(("sagittal", "coronal", "axial")):
            for part in (0.35, 0.5, 0.65):
                at = int(part * volume.shape[axis])
                name = f"MR head ch2, {plane} {part:.0%}"
                pictures[name] = np.rot90(np.take(volume, at, axis)), "head_slice"
    told = {}
    for name, (picture, wanted) in pictures.items():
        answers = [
            classify(np.rot90(one, turns), networks)
            for one in (picture, picture[:, ::-1])
            for turns in range(4)
        ]
        upright = answers[0]
        told[name] = {
            "shows": wanted,
            "upright": {
                "best": upright.best,
                "probability": round(upright.probability(upright.best), 3),
                "inverted": round(upright.inverted, 3),
            },
            "of_8": {
                "right": sum(one.best == wanted and one.probability(wanted) >= SURE for one in answers),
                "unsure": sum(one.probability(one.best) < SURE for one in answers),
                "wrong": sum(one.best != wanted and one.probability(one.best) >= SURE for one in answers),
            },
            "upright_reversed": {
                "best": (flipped := classify(-picture, networks)).best,
                "probability": round(flipped.probability(flipped.best), 3),
                "inverted": round(flipped.inverted, 3),
            },
        }
    return told


def _displayed(package: str, file: str) -> NDArray[np.float32]:
    dataset, decoded = decode_file(Path(str(distribution(package).locate_file(file))))
    small = as_displayed(reduce_frame(decoded.pixels), dataset)
    return small.mean(axis=2) if small.ndim == 3 else small
