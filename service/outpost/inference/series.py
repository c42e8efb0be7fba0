"""Stacked DICOM slices -> a volume of real intensities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import decode_file
from outpost.inference.stack import Stack


def read_volume(stack: Stack) -> NDArray[np.float32]:
    """The volume of `read_slices`."""
    return read_slices(stack)[0]


def read_slices(stack: Stack) -> tuple[NDArray[np.float32], tuple[Dataset, ...]]:
    """Decode the pixels of a stack and apply each slice's rescale (PS3.3 C.7.6.16.2.9).

    Returns:
        Array of (column, row, slice), whose affine is `stack.affine`; and the attributes of each slice
        without its pixels, so that a result is written without reading the files again.

    Raises:
        InputRejected: PIXELS_UNREADABLE, PIXELS_ALL_ZERO or PIXELS_CONSTANT.
    """
    columns, rows, slices = stack.shape
    volume = np.empty((slices, rows, columns), dtype=np.float32)
    images = []
    for index, file in enumerate(stack.files):
        volume[index], image = _read_slice(file, (rows, columns))
        images.append(image)
    if volume.min() == volume.max():
        raise InputRejected(Code.PIXELS_CONSTANT, f"every voxel of the series is {volume.flat[0]:g}")
    return volume.transpose(2, 1, 0), tuple(images)


def _read_slice(file: Path, shape: tuple[int, int]) -> tuple[NDArray[np.float64], Dataset]:
    dataset, decoded = decode_file(file)
    pixels = decoded.pixels
    try:
        slope = float(dataset.get("RescaleSlope") or 1)
        intercept = float(dataset.get("RescaleIntercept") or 0)
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    except Exception as error:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{file.name} has no numbers to rescale by ({type(error).__name__})"
        ) from error
    if pixels.shape != shape:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{file.name} decodes to {pixels.shape}, its header says {shape}"
        )
    scaled: NDArray[np.float64] = pixels * slope + intercept
    if not np.isfinite(scaled).all():
        raise InputRejected(Code.PIXELS_UNREADABLE, f"{file.name} rescales by {slope:g} and {intercept:g}")
    return scaled, dataset
