"""Image headers of one series -> slices in order and the exact place of every voxel, or a coded refusal.

Nothing is guessed: a series that does not stack evenly is refused, because a mask at a wrong place is worse
than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import ImageHeader

# DS values carry up to 16 characters, but senders round: cosines to 4-6 decimals, positions to 2-3.
_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE_MM = 1e-3
_POSITION_TOLERANCE_MM = 0.05
_GAP_TOLERANCE = 0.02  # of the slice distance; rounding aside, scanners place slices evenly


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one volume, sorted along the slice normal.

    Attributes:
        images: one header a slice.
        affine: 4x4, maps (column, row, slice) indices to patient millimetres (LPS).
        shape: number of columns, rows and slices.
    """

    images: tuple[ImageHeader, ...]
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    @property
    def files(self) -> tuple[Path, ...]:
        """One file a slice."""
        return tuple(image.path for image in self.images)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between columns, rows and slices."""
        column, row, slice_ = (float(np.linalg.norm(self.affine[:3, axis])) for axis in range(3))
        return column, row, slice_


def stack_slices(headers: Sequence[ImageHeader]) -> Stack:
    """Sort the slices of a series and compute its affine from their positions (PS3.3 C.7.6.2.1.1).

    Raises:
        InputRejected: GEOMETRY_MISSING, GEOMETRY_INCONSISTENT, SLICES_DUPLICATED, SLICES_MISSING or
            SLICES_UNEVEN.
    """
    first = headers[0]
    for header in headers:
        if (
            header.orientation is None
            or header.position is None
            or header.pixel_spacing is None
            or not header.frame_of_reference_uid
        ):
            raise InputRejected(
                Code.GEOMETRY_MISSING,
                f"{header.path.name} lacks a valid ImageOrientationPatient, ImagePositionPatient, "
                "PixelSpacing or FrameOfReferenceUID",
            )
        _require_same_plane(first, header)
    assert first.orientation is not None and first.pixel_spacing is not None  # just checked

    row_direction, column_direction = first.orientation[:3], first.orientation[3:]
    if (
        abs(np.linalg.norm(row_direction) - 1) > _COSINE_TOLERANCE
        or abs(np.linalg.norm(column_direction) - 1) > _COSINE_TOLERANCE
        or abs(row_direction @ column_direction) > _COSINE_TOLERANCE
    ):
        raise InputRejected(
            Code.GEOMETRY_INCONSISTENT,
            f"ImageOrientationPatient {first.orientation.tolist()} is not two perpendicular unit vectors",
        )
    # Rounded cosines are no unit vectors: unmended, they would stretch the grid and skew it.
    row_direction = row_direction / np.linalg.norm(row_direction)
    column_direction = column_direction - (column_direction @ row_direction) * row_direction
    column_direction = column_direction / np.linalg.norm(column_direction)
    if first.pixel_spacing.min() <= 0:
        raise InputRejected(
            Code.GEOMETRY_INCONSISTENT, f"PixelSpacing {first.pixel_spacing.tolist()} is not positive"
        )
    if len(headers) < 2:
        raise InputRejected(Code.SLICES_MISSING, "the series has 1 slice, a volume has at least 2")

    normal = np.cross(row_direction, column_direction)
    positions = np.array([header.position for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    _require_even(positions, normal)

    affine = np.eye(4)
    affine[:3, 0] = row_direction * first.pixel_spacing[1]
    affine[:3, 1] = column_direction * first.pixel_spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(headers) - 1)
    affine[:3, 3] = positions[0]
    return Stack(
        images=tuple(headers[index] for index in order),
        affine=affine,
        shape=(first.columns, first.rows, len(headers)),
    )


def require_whole(stack: Stack, left_out: Sequence[ImageHeader]) -> None:
    """Refuse a stack to which slices belong that the filter left out: a mask on a part would pass for the whole.

    One that lies where a slice of the stack lies (a phase image, say) or in another plane does not belong to it.

    Raises:
        InputRejected: SLICES_MISSING.
    """
    first = stack.images[0]
    assert first.orientation is not None  # of every slice of a stack
    origin, step = stack.affine[:3, 3], stack.affine[:3, 2]
    spacing = float(np.linalg.norm(step))
    belonging = 0
    for header in left_out:
        if (
            header.series_instance_uid != first.series_instance_uid
            or header.sop_class_uid != first.sop_class_uid
            or header.position is None
            or (
                header.orientation is not None
                and np.abs(header.orientation - first.orientation).max() > 10 * _COSINE_TOLERANCE
            )
        ):
            continue
        offset = header.position - origin
        along = float(offset @ step) / spacing**2
        aside = float(np.linalg.norm(offset - along * step))
        taken = abs(along - round(along)) < 0.25 and 0 <= round(along) < len(stack.images)
        belonging += aside <= spacing and not taken
    if belonging:
        raise InputRejected(
            Code.SLICES_MISSING,
            f"the filter left out {belonging} instances of series {first.series_number} that lie where it has no "
            f"other slice; {len(stack.images)} are left",
        )


def _require_same_plane(first: ImageHeader, other: ImageHeader) -> None:
    assert first.orientation is not None and other.orientation is not None
    assert first.pixel_spacing is not None and other.pixel_spacing is not None
    differs = None
    if (first.rows, first.columns) != (other.rows, other.columns):
        differs = f"size {other.columns}x{other.rows} and {first.columns}x{first.rows}"
    elif first.frame_of_reference_uid != other.frame_of_reference_uid:
        differs = "two frames of reference"
    elif np.abs(first.orientation - other.orientation).max() > _COSINE_TOLERANCE:
        differs = f"orientation {other.orientation.tolist()} and {first.orientation.tolist()}"
    elif np.abs(first.pixel_spacing - other.pixel_spacing).max() > _SPACING_TOLERANCE_MM:
        differs = f"pixel spacing {other.pixel_spacing.tolist()} and {first.pixel_spacing.tolist()} mm"
    if differs:
        raise InputRejected(Code.GEOMETRY_INCONSISTENT, f"one series holds images of {differs}")


def _require_even(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Check that sorted slice positions are distinct, evenly spaced and stacked straight along the normal."""
    distances = positions @ normal
    gaps = np.diff(distances)
    if gaps.min() < _POSITION_TOLERANCE_MM:
        at = float(distances[int(gaps.argmin())])
        raise InputRejected(Code.SLICES_DUPLICATED, f"two slices lie at {at:.2f} mm along the slice normal")
    # The lower quartile, not the mean: a missing slice widens single gaps and must not hide in the average.
    usual = float(np.quantile(gaps, 0.25))
    tolerance = max(_POSITION_TOLERANCE_MM, _GAP_TOLERANCE * usual)
    worst = int(np.abs(gaps - usual).argmax())
    gap = float(gaps[worst])
    if abs(gap - usual) > tolerance:
        message = (
            f"slices {worst + 1} and {worst + 2} are {gap:.3f} mm apart, the usual distance is {usual:.3f} mm"
        )
        missing = round(gap / usual) - 1
        if missing >= 1 and abs(gap - (missing + 1) * usual) <= tolerance * (missing + 1):
            raise InputRejected(Code.SLICES_MISSING, f"{message}: {missing} missing between them")
        raise InputRejected(Code.SLICES_UNEVEN, message)
    even = np.linspace(positions[0], positions[-1], len(positions))
    off = float(np.linalg.norm(positions - even, axis=1).max())
    shear = float(np.linalg.norm(np.cross(positions[-1] - positions[0], normal)))
    if off > tolerance or shear > max(tolerance, _COSINE_TOLERANCE * float(distances[-1] - distances[0])):
        raise InputRejected(
            Code.GEOMETRY_INCONSISTENT,
            f"slices do not stack straight: {off:.2f} mm off the line, {shear:.2f} mm off the slice normal",
        )
