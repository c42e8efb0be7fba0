"""A decoded frame -> the small picture that the pixel verdict looks at and that a person is shown.

Area averaging by whole factors: each small pixel is the mean of a square of full ones, so a value that is flat or
clipped there is so here, and noise falls with the square root of what was averaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

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
    wide = np.int32 if frame.dtype.kind in "iub" and frame.dtype.itemsize <= 2 else np.float64
    total: NDArray[Any] = frame[::factor].astype(wide)
    for row in range(1, factor):
        np.add(total, frame[row::factor], out=total)
    shape = (total.shape[0], total.shape[1] // factor, factor, *total.shape[2:])
    small: NDArray[np.float32] = (total.reshape(shape).sum(axis=2) / factor**2).astype(np.float32)
    return small


def as_displayed(small: NDArray[np.float32], dataset: Dataset) -> NDArray[np.float32]:
    """Grey values in which more is brighter: rescale and photometric interpretation are applied, the window is not.

    Args:
        small: reduced stored values of (rows, columns), or colours, which are returned as they are.
        dataset: of the image; malformed attributes count as absent.
    """
    if small.ndim != 2:
        return small
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    values = small * np.float32(slope or 1.0) + np.float32(intercept)
    return -values if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1" else values


def render(frame: NDArray[Any], dataset: Dataset, largest: int = LARGEST) -> NDArray[np.uint8]:
    """A frame as a person would see it: window and photometric interpretation applied, 0 black to 255 white.

    Args:
        frame: stored values of (rows, columns) or (rows, columns, samples).
        dataset: of the image. Where it has no usable window, grey values between the 1st and the 99th hundredth
            are stretched.

    Returns:
        (rows, columns) or, for colours, (rows, columns, 3), at most `largest` pixels a side.
    """
    small = reduce_frame(frame, largest)
    if small.ndim == 3:
        depth = max(1, int(_number(dataset, "BitsStored", 8.0)))
        colours: NDArray[np.uint8] = np.clip(
            small[..., :3] * np.float32(255 / ((1 << min(depth, 32)) - 1)), 0, 255
        ).astype(np.uint8)
        return colours
    values = as_displayed(small, dataset)
    low, high = _window(dataset) or tuple(float(value) for value in np.percentile(values, (1, 99)))
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
    if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        low, high = -high, -low
    return low, high


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
