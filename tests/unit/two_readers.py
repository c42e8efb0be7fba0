"""A segmentation as two readers that are not ours see it: dcmqi (DCMTK, ITK) and highdicom."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

_TOOL = "segimage2itkimage"


@dataclass(frozen=True)
class Seen:
    """A mask by its voxels in space.

    Attributes:
        spacing: of the grid, millimetres, ascending.
        millilitres: of the mask.
        centres: of its voxels, (voxel, 3), LPS millimetres, sorted.
    """

    spacing: NDArray[np.float64]
    millilitres: float
    centres: NDArray[np.float64]


def seen(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Seen:
    """A mask and its affine (LPS) as `Seen`."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    voxels = np.argwhere(mask)
    centres = voxels @ affine[:3, :3].T + affine[:3, 3]
    order = np.lexsort(np.round(centres, 1).T)
    return Seen(np.sort(spacing), float(mask.sum() * np.prod(spacing) / 1000), centres[order])


def by_dcmqi(file: Path, folder: Path) -> Seen:
    """Read by dcmqi's segimage2itkimage into an existing folder."""
    tool = shutil.which(_TOOL, path=str(Path(sys.executable).parent))
    assert tool is not None
    subprocess.run(
        [tool, "--inputDICOM", file, "--outputDirectory", folder, "--outputType", "nifti"],
        check=True,
        capture_output=True,
    )
    (made,) = folder.glob("*.nii*")
    image = Nifti1Image.from_filename(made)
    return seen(np.asanyarray(image.dataobj) != 0, np.diag([-1.0, -1, 1, 1]) @ image.affine)


def by_highdicom(file: Path) -> Seen:
    """Read by highdicom."""
    volume = highdicom.seg.segread(file).get_volume(combine_segments=True)
    return seen(volume.array != 0, volume.affine)


def assert_both_see(file: Path, folder: Path, wanted: Seen, tolerance_mm: float = 1e-3) -> None:
    """Both readers find the spacing, the volume and every voxel of a mask where it was computed."""
    folder.mkdir()
    for found in (by_dcmqi(file, folder), by_highdicom(file)):
        assert np.allclose(found.spacing, wanted.spacing, atol=tolerance_mm)
        assert abs(found.millilitres - wanted.millilitres) <= 1e-3 * wanted.millilitres
        assert found.centres.shape == wanted.centres.shape
        assert np.abs(found.centres - wanted.centres).max() <= tolerance_mm
