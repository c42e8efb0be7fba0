"""How large a study may be, judged by its headers before anything is allocated for its pixels.

What is larger is held for a person (STUDY_TOO_LARGE): it is no fault of the host, and no way of computing helps.
The bounds are far above what scanners make: they keep out what a broken or hostile header claims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from outpost.inference.bounded import budget_mib
from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import ImageHeader
from outpost.inference.memory import MIB

# The largest real ones: whole scanned films of 120 million pixels; tomosynthesis of about 1 GiB.
LARGEST_IMAGE_PIXELS: Final = 1 << 27
LARGEST_FILE_BYTES: Final = 2 << 30
# 1024 x 1024 x 1024; the finest head or chest CT has a quarter of that.
LARGEST_VOLUME_VOXELS: Final = 1 << 30
MOST_SLICES: Final = 20_000
MOST_FILES: Final = 50_000
LONGEST_MM: Final = 10_000.0
# Between the largest and the least distance of voxels: 10 mm slices of 0.2 mm pixels have 50.
LARGEST_ANISOTROPY: Final = 100.0
# A voxel is a float32 in memory, and a Boolean where there is padding; the model's own copy is another float32.
_VOXEL_BYTES: Final = 9
# A radiograph is kept at 512 x 512, as float32, twice while all are stacked, with a mask.
_KEPT_IMAGE_BYTES: Final = 512 * 512 * 9


def require_file(image: ImageHeader) -> None:
    """Refuse an image whose pixels would take more than any real one's, by its header.

    Raises:
        InputRejected: STUDY_TOO_LARGE.
    """
    rows, columns, frames, samples = image.rows, image.columns, image.frames, image.samples_per_pixel
    told = f"{image.path.name} has {columns} x {rows} pixels, {frames} frames of {samples} samples"
    if rows * columns > LARGEST_IMAGE_PIXELS:
        raise _too_large(f"{told}: at most {LARGEST_IMAGE_PIXELS} pixels are read")
    size = rows * columns * frames * samples * _bytes_of(image)
    if size > LARGEST_FILE_BYTES:
        raise _too_large(f"{told}: {size} bytes, at most {LARGEST_FILE_BYTES} are read")
    _require_budget(size, told)


def _bytes_of(image: ImageHeader) -> int:
    """Bytes a sample, as far as the header says; what it says wrongly the decoder refuses."""
    try:
        return max(1, min(int(image.dataset.get("BitsAllocated") or 16), 64) // 8)
    except Exception:  # pydicom raises many types on malformed values
        return 2


def require_volume(shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    """Refuse a volume that is too large to be read, or to be brought to another grid.

    Args:
        shape: columns, rows, slices.
        spacing_mm: between them.

    Raises:
        InputRejected: STUDY_TOO_LARGE.
    """
    columns, rows, slices = shape
    told = f"a volume of {columns} x {rows} x {slices} voxels"
    if columns * rows > LARGEST_IMAGE_PIXELS or math.prod(shape) > LARGEST_VOLUME_VOXELS:
        raise _too_large(
            f"{told}: at most {LARGEST_VOLUME_VOXELS} voxels, {LARGEST_IMAGE_PIXELS} a slice, are read"
        )
    if slices > MOST_SLICES:
        raise _too_large(f"{told}: at most {MOST_SLICES} slices are read")
    longest = max(count * distance for count, distance in zip(shape, spacing_mm, strict=True))
    if not longest <= LONGEST_MM:
        raise _too_large(f"{told} covers {longest:g} mm, at most {LONGEST_MM:g} mm are read")
    # Cut across, it is brought to pixels as tall as they are wide.
    anisotropy = max(spacing_mm) / max(min(spacing_mm), 1e-9)
    if not anisotropy <= LARGEST_ANISOTROPY:
        raise _too_large(
            f"{told} has distances from {min(spacing_mm):g} to {max(spacing_mm):g} mm, "
            f"at most {LARGEST_ANISOTROPY:g} times the least are read"
        )
    _require_budget(math.prod(shape) * _VOXEL_BYTES, told)


def require_images(count: int) -> None:
    """Refuse more single images than memory holds at the size they are kept in. Raises as `require_volume`."""
    _require_budget(count * _KEPT_IMAGE_BYTES, f"{count} images")


def require_files(count: int) -> None:
    """Refuse a study of more files than any has. Raises as `require_volume`."""
    if count > MOST_FILES:
        raise _too_large(f"the study has {count} files, at most {MOST_FILES} are read")


def _require_budget(size: int, told: str) -> None:
    budget = budget_mib()
    if budget and size > budget * MIB:
        raise _too_large(f"{told}: {size // MIB} MiB are wanted to read it, this system has {budget} MiB")


def _too_large(message: str) -> InputRejected:
    return InputRejected(Code.STUDY_TOO_LARGE, message, hold=True)
