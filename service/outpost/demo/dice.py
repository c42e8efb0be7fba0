"""Measure a DICOM segmentation against a reference mask: Dice, by place in space, not by array order.

`python -m outpost.demo.dice SEG.dcm [--reference FILE.nii.gz] [--least 0.92]`

The segmentation is read by dcmqi's segimage2itkimage (package dcmqi), which shares no code with the service.
Exit status 1 below `--least`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy import ndimage

from outpost.demo import TEMPLATES

_TOOL = "segimage2itkimage"
LEAST = 0.92


def dice_of_segmentation(segmentation: Path, reference: Path) -> float:
    """Dice of the first segment against the voxels of `reference` that are not 0.

    Raises:
        FileNotFoundError: dcmqi is not installed.
        ValueError: dcmqi cannot read the segmentation, or it has not exactly one segment.
    """
    tool = shutil.which(_TOOL, path=str(Path(sys.executable).parent)) or shutil.which(_TOOL)
    if tool is None:
        raise FileNotFoundError(f"{_TOOL} is not installed; package dcmqi of requirements-dev.txt has it")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [tool, "--inputDICOM", str(segmentation), "--outputDirectory", folder, "--outputType", "nifti"],
            capture_output=True,
            text=True,
            check=False,
        )
        segments = sorted(Path(folder).glob("*.nii*"))
        if done.returncode != 0 or len(segments) != 1:
            raise ValueError(
                f"{_TOOL} made {len(segments)} segments of {segmentation}, 1 wanted; it said: "
                f"{(done.stderr or done.stdout).strip()[-500:]}"
            )
        mask, affine = _load(segments[0])
    return dice_in_space(mask, affine, *_load(reference))


def dice_in_space(
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    reference: NDArray[np.bool_],
    reference_affine: NDArray[np.float64],
) -> float:
    """Dice of two masks on grids of their own, compared where the reference's voxels lie.

    What of the mask lies outside the reference's grid counts as wrong. Affines: 4x4, voxel to RAS mm.
    """
    to_mask = np.linalg.inv(affine) @ reference_affine
    # grid-constant: the border's voxels reach half a voxel out, so rounding of the affines cannot lose them.
    there = ndimage.affine_transform(
        mask.astype(np.uint8),
        to_mask[:3, :3],
        to_mask[:3, 3],
        output_shape=reference.shape,
        order=0,
        mode="grid-constant",
    ).astype(np.bool_)
    # In units of the reference's voxels, so that nothing outside its grid is forgotten.
    size = np.count_nonzero(mask) * abs(np.linalg.det(affine) / np.linalg.det(reference_affine))
    total = size + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(there & reference) / total) if total else 0.0


def _load(file: Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    image = Nifti1Image.from_filename(file)
    return np.asanyarray(image.dataobj) != 0, image.affine


def main() -> int:
    """Print the figure; 1 if it is too low or cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m outpost.demo.dice", description=__doc__)
    parser.add_argument("segmentation", type=Path)
    parser.add_argument("--reference", type=Path, default=TEMPLATES / "ch2bet.nii.gz")
    parser.add_argument("--least", type=float, default=LEAST)
    arguments = parser.parse_args()
    try:
        figure = dice_of_segmentation(arguments.segmentation, arguments.reference)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    verdict = "ok" if figure >= arguments.least else "too low"
    print(f"Dice {figure:.4f} (at least {arguments.least:.2f}): {verdict}")
    return 0 if figure >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
