"""Stacked DICOM slices -> a volume of real intensities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import decode_image
from outpost.inference.header import ImageHeader
from outpost.inference.stack import Stack


def read_volume(stack: Stack) -> NDArray[np.float32]:
    """Decode the pixels of a stack and apply each slice's rescale (PS3.3 C.7.6.16.2.9).

    Returns:
        Array of (column, row, slice), whose affine is `stack.affine`.

    Raises:
        InputRejected: PIXELS_UNREADABLE, PIXELS_ALL_ZERO or PIXELS_CONSTANT.
    """
    columns, rows, slices = stack.shape
    volume = np.empty((slices, rows, columns), dtype=np.float32)
    for index, image in enumerate(stack.images):
        _read_slice(image, volume[index])
    if volume.min() == volume.max():
        raise InputRejected(Code.PIXELS_CONSTANT, f"every voxel of the series is {volume.flat[0]:g}")
    return volume.transpose(2, 1, 0)


def _read_slice(image: ImageHeader, target: NDArray[np.float32]) -> None:
    """Decode and rescale one slice into its place."""
    name, pixels = image.path.name, decode_image(image).pixels
    try:
        slope = float(image.dataset.get("RescaleSlope") or 1)
        intercept = float(image.dataset.get("RescaleIntercept") or 0)
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    except Exception as error:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{name} has no numbers to rescale by ({type(error).__name__})"
        ) from error
    if pixels.shape != target.shape:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{name} decodes to {pixels.shape}, its header says {target.shape}"
        )
    # In double precision: large intercepts would eat the values' last bits.
    np.add(pixels * slope, intercept, out=target, casting="same_kind")
    if not np.isfinite(target).all():
        raise InputRejected(Code.PIXELS_UNREADABLE, f"{name} rescales by {slope:g} and {intercept:g}")
