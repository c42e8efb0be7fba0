"""A decoded frame -> the small picture that the pixel verdict looks at and that a person is shown.

Area averaging by whole factors: each small pixel is the mean of a square of full ones, so a value that is flat or
clipped there is so here, and noise falls with the square root of what was averaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from outpost.dicom.grey import GreyFault, Modality, is_reversed, modality

LARGEST = 256  # pixels a side of what is looked at


def reduce_frame(frame: NDArray[Any], largest: int = LARGEST) -> NDArray[np.float32]:
    """Mean over squares of k x k pixels, k the least for which neither side is longer than `largest`.

    Args:
        frame: stored values of (rows, columns) or (rows, columns, samples). A remainder of fewer than k rows or
            columns at the lower and right edge is left out.

    Returns:
        (rows // k, columns // k), with samples behind where there are some.
    """
    rows, columns = frame.shape[:2]
    factor = -(-max(rows, columns) // largest)
    if factor <= 1 or min(rows, columns) < factor:
        return frame.astype(np.float32)
    frame = frame[: rows - rows % factor, : columns - columns % factor]
    # Row by row of each square first: whole rows are added, which is ten times as fast as summing over squares.
    wide: type[np.generic] = np.float64
    if frame.dtype.kind in "iub" and frame.dtype.itemsize <= 2:
        wide = np.int32
    elif frame.dtype == np.float32 and factor <= 4:  # so few lose nothing
        wide = np.float32
    total: NDArray[Any] = frame[::factor].astype(wide)
    for row in range(1, factor):
        np.add(total, frame[row::factor], out=total)
    if factor <= 4:
        wider, total = total, total[:, ::factor].copy()
        for column in range(1, factor):
            np.add(total, wider[:, column::factor], out=total)
    else:
        total = total.reshape(total.shape[0], total.shape[1] // factor, factor, *total.shape[2:]).sum(axis=2)
    small: NDArray[np.float32] = np.multiply(total, 1 / factor**2, dtype=np.float32, casting="same_kind")
    return small


def reduce_mask(mask: NDArray[np.bool_], largest: int = LARGEST) -> NDArray[np.bool_]:
    """Where any pixel of a square of `reduce_frame` is true; (rows, columns) as there."""
    return reduce_frame(mask.view(np.uint8), largest) > 0


def without_border(
    fine: NDArray[Any], padded: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The least rectangle with all that is not padding, and what of it is padding still; all where all is padding."""
    rows, columns = (np.flatnonzero(~padded.all(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return fine, None
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    left = padded[box]
    return fine[box], left if left.any() else None


def displayed_without(
    frame: NDArray[Any], dataset: Dataset, padded: NDArray[np.bool_], largest: int = LARGEST
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A frame with padding as `as_displayed` gives it, reduced: padding takes no part in a mean, and is dark.

    Returns:
        Grey values, and where there is nothing but padding.
    """
    sums = reduce_frame(np.where(padded, frame.dtype.type(0), frame), largest)
    share = reduce_frame(padded.view(np.uint8), largest)
    out = share > 1 - 1e-4
    means: NDArray[np.float32] = np.divide(sums, np.maximum(1 - share, 1e-4), dtype=np.float32)
    values = as_displayed(means, dataset)
    if not out.all():
        values[out] = np.percentile(values[~out], 0.5)
    return values, out


def with_palette(frame: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """A frame of palette indices as the colours they stand for; any other frame as it is."""
    if frame.ndim != 2 or str(dataset.get("PhotometricInterpretation", "")) != "PALETTE COLOR":
        return frame
    # A palette may be broken in as many ways as there are attributes: its indices then show the image well enough.
    try:
        colours: NDArray[Any] = apply_color_lut(frame, dataset)
    except Exception:
        return frame
    return colours


def as_displayed(small: NDArray[np.float32], dataset: Dataset) -> NDArray[np.float32]:
    """Grey values in which more is brighter: rescale and photometric interpretation are applied, the window is not.

    Args:
        small: reduced stored values of (rows, columns), or colours, which are returned as they are.
        dataset: of the image; malformed attributes count as absent.
    """
    if small.ndim != 2:
        return small
    try:
        mapping = modality(dataset)
    except GreyFault:
        mapping = Modality()
    # Of a reduced frame, a table is as good as of a full one where it is smooth, as tables are.
    whole = small if mapping.table is None else np.rint(small)
    values: NDArray[np.float32] = np.asarray(mapping.apply(whole), dtype=np.float32)
    return -values if _is_reversed(dataset) else values


def render(
    frame: NDArray[Any], dataset: Dataset, largest: int = LARGEST, padded: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """A frame as a person would see it: window and photometric interpretation applied, 0 black to 255 white.

    Args:
        frame: stored values of (rows, columns) or (rows, columns, samples).
        dataset: of the image. Where it has no usable window, grey values between the 1st and the 99th hundredth
            are stretched.
        largest: pixels a side.
        padded: of (rows, columns), true where a pixel is padding: it is shown black.

    Returns:
        (rows, columns) or, for colours, (rows, columns, 3), at most `largest` pixels a side.
    """
    coloured = with_palette(frame, dataset)
    small = reduce_frame(coloured, largest)
    if small.ndim == 3:
        stored = _number(dataset, "BitsStored", 8.0) if coloured is frame else 8.0 * coloured.itemsize
        depth = max(1, int(stored))
        colours: NDArray[np.uint8] = np.clip(
            small[..., :3] * np.float32(255 / ((1 << min(depth, 32)) - 1)), 0, 255
        ).astype(np.uint8)
        return colours
    values, out = as_displayed(small, dataset), None
    if padded is not None and not padded.all():
        values, out = displayed_without(frame, dataset, padded, largest)
    real = values if out is None else values[~out]
    low, high = _window(dataset) or tuple(float(value) for value in np.percentile(real, (1, 99)))
    if not high > low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled: NDArray[np.uint8] = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return scaled


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """The first window, in the values of `as_displayed`; only the linear function of PS3.3 C.11.2.1.2 is applied."""
    centre, width = _number(dataset, "WindowCenter", np.nan), _number(dataset, "WindowWidth", np.nan)
    if not (np.isfinite(centre) and np.isfinite(width) and width >= 1):
        return None
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return (-high, -low) if _is_reversed(dataset) else (low, high)


def _is_reversed(dataset: Dataset) -> bool:
    """As `outpost.dicom.grey` says; where attributes contradict each other, by the photometric interpretation."""
    try:
        return is_reversed(dataset)
    except GreyFault:
        return str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1"


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return default
        number = float(
            value if isinstance(value, (str, int, float)) or not hasattr(value, "__len__") else value[0]
        )
    except Exception:
        return default
    return number if np.isfinite(number) else default
