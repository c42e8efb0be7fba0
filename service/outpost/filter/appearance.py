"""What a frame looks like, whatever it shows: empty, clipped, a screen, written upon. Numpy and scipy on a thumbnail.

Each check is a predicate over `Appearance`, which is measured once. Thresholds stand beside what they were measured
to separate (`tests/filter_corpus.py` lists the images, docs/filter-corpus.md shows the outcome); between the nearest
good and the nearest bad image there is always room, and they lie nearer to the bad one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Grey = NDArray[np.float32]

# Below this many pixels a side nothing can be said: the least in use is 64 (MR), and 16 is noise to any measure.
LEAST_SIDE: Final = 32
# Values this near to the least or greatest, as a share of the range, are at it: means of equal values are equal.
_AT = 1e-6
# Neighbours closer than this are flat.
_FLAT = 1e-6
# The grey values that count as seen lie between these shares of the image.
_DARKEST, _BRIGHTEST = 1, 99

_NOISE_CORRELATION: Final = (
    0.3  # of neighbours after a smooth shade is taken away; good images: 0.83 and more
)
_RAMP_RESIDUAL: Final = (
    0.015  # deviation left by a smooth shade, as a share of the range; good images: 0.13 and more
)
_SATURATED_SHARE: Final = 0.98  # a leg between shutters: 0.41; a drawn line on a page: 0.95
_CLIPPED_ENDS: Final = 0.5  # share at the two ends
_CLIPPED_END: Final = 0.05  # at each of them: a page has ink at none
_CLIPPED_SOLID: Final = (
    0.45  # of what lies between them, thicker than a line; good images 0.60 and more, bad 0.32
)
_BETWEEN: Final = 0.01  # of the range: nearer to an end than this is the end
_PANEL_LEAST: Final = 0.0015  # of the picture
_PANEL_FILL: Final = 0.85  # of its bounding box; an ellipse fills 0.79
_PANELS: Final = 3  # good images: none
_PANEL_SHARE: Final = 0.02
_PAINT_SHARE: Final = 0.008  # of the picture in exactly one grey
_PAINTS: Final = 3  # such greys between black and white; good images: 1 at most
_COLOUR: Final = 0.08  # difference of colours, as a share of the range
_COLOUR_SHARE: Final = 0.05
_BRIGHT_BORDER: Final = 0.6  # of the border's pixels at the bright end; good slices: none

# Writing: patches of blocks of 8 x 8 pixels with many sudden changes along rows; in a patch, rows of pixels with
# changes between rows without.
_BLOCK: Final = 8
_STEP: Final = 0.25  # of the range
_STEPS_A_BLOCK: Final = 8
_PATCH_WIDE: Final = 3  # blocks
_GAP: Final = 0.15  # of the changes in the patch's busiest row
_LEAST_TALL: Final = 4  # pixels; letters smaller than that are lost in the thumbnail
_MOST_TALL: Final = 24
_LINES: Final = 2  # good images: none
_PAGE_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class Appearance:
    """Measures of one frame; shares are of its pixels.

    Attributes:
        side: the shorter side of the frame looked at, in pixels.
        constant: the one value of every pixel, if there is but one.
        least, greatest: share at the least and at the greatest value.
        correlation: of neighbouring pixels once a smooth shade is taken away: noise has none.
        residual: deviation that a smooth shade leaves, as a share of the range.
        solid: of what lies between the extremes, the share thicker than a line: a burned-in window leaves lines.
        panels: rectangles of one value between the extremes, and the share they take.
        paints: greys that take a share of the picture in exactly one value.
        colour: share of coloured pixels.
        bright_border: share of the border's pixels at the bright end.
        lines: runs of what looks like writing.
    """

    side: int
    constant: float | None
    least: float = 0.0
    greatest: float = 0.0
    correlation: float = 1.0
    residual: float = 1.0
    solid: float = 1.0
    panels: int = 0
    panel_share: float = 0.0
    paints: int = 0
    colour: float = 0.0
    bright_border: float = 0.0
    lines: int = 0

    @property
    def too_small(self) -> bool:
        """Nothing can be said of so few pixels."""
        return self.side < LEAST_SIDE

    @property
    def blank(self) -> bool:
        """Nothing but one value, a smooth shade or noise."""
        return self.constant is not None or (
            self.correlation < _NOISE_CORRELATION or self.residual < _RAMP_RESIDUAL
        )

    @property
    def saturated(self) -> bool:
        """Nearly all of it is at one end."""
        return max(self.least, self.greatest) >= _SATURATED_SHARE

    @property
    def badly_clipped(self) -> bool:
        """Black and white, with a line of greys between."""
        ends = self.least + self.greatest >= _CLIPPED_ENDS and min(self.least, self.greatest) >= _CLIPPED_END
        return ends and self.solid <= _CLIPPED_SOLID

    @property
    def screen(self) -> bool:
        """Panels of a program, a page of writing, or colours where an acquired image has none."""
        return (
            (self.panels >= _PANELS and self.panel_share >= _PANEL_SHARE)
            or (self.paints >= _PAINTS and self.lines >= _LINES)
            or self.colour >= _COLOUR_SHARE
            or self.lines >= _PAGE_LINES
        )

    @property
    def reversed_slice(self) -> bool:
        """The air around is bright; said of slices only, where air is dark by physics."""
        return self.bright_border >= _BRIGHT_BORDER

    @property
    def written_upon(self) -> bool:
        """There seem to be lines of writing."""
        return self.lines >= _LINES


def look(
    grey: Grey, fine: Grey, colours: Grey | None = None, padded: NDArray[np.bool_] | None = None
) -> Appearance:
    """Measure a frame.

    Args:
        grey: the thumbnail, brighter = more, of (row, column).
        fine: the same twice as fine, for writing; or the thumbnail where the frame has no more pixels.
        colours: the thumbnail with its samples, where it has several.
        padded: of the shape of `grey`, true where a pixel is padding, which counts for nothing; None without.
    """
    side = min(grey.shape)
    real = grey if padded is None else grey[~padded]
    if not real.size:
        return Appearance(side, 0.0)
    least, greatest = float(real.min()), float(real.max())
    if not greatest > least:
        return Appearance(side, least)
    share = (grey - least) / (greatest - least)
    at_least, at_greatest = share <= _AT, share >= 1 - _AT
    # Every second pixel tells the hundredths as well, in a quarter of the time.
    some = share[::2, ::2] if padded is None else share[~padded]
    low, high = (float(value) for value in np.percentile(some, (_DARKEST, _BRIGHTEST)))
    seen = np.clip((share - low) / max(high - low, 1e-6), 0, 1)
    if padded is None:
        correlation, residual = _structure(seen)
        border = np.concatenate((seen[0], seen[-1], seen[:, 0], seen[:, -1]))
    else:
        at_least, at_greatest = at_least[~padded], at_greatest[~padded]
        # Padding becomes the mean, of which nothing is left: it has no part in the correlation.
        correlation, residual = _structure(np.where(padded, seen[~padded].mean(), seen))
        residual *= float(np.sqrt(padded.size / real.size))
        border = seen[~padded & ~ndimage.binary_erosion(~padded)]
        share[padded] = 0
        seen[padded] = 0
    panels, panel_share, paints = _panels(share, seen)
    return Appearance(
        side=side,
        constant=None,
        least=float(at_least.mean()),
        greatest=float(at_greatest.mean()),
        correlation=correlation,
        residual=residual,
        solid=_solid(share) if at_least.mean() + at_greatest.mean() >= _CLIPPED_ENDS else 1.0,
        panels=panels,
        panel_share=panel_share,
        paints=paints,
        colour=0.0 if colours is None else _colour(colours),
        bright_border=float((border >= 0.98).mean()),
        lines=_lines(fine, (greatest - least) * max(high - low, 0.5 * (1 - low))),
    )


def _structure(seen: Grey) -> tuple[float, float]:
    """Correlation of neighbours, and deviation, once the best quadratic shade is subtracted."""
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in seen.shape)
    # The shade by products of Legendre polynomials, which are nearly orthogonal on the grid: no system to solve.
    by_row = np.stack((np.ones_like(rows), rows, 1.5 * rows**2 - 0.5))
    by_column = np.stack((np.ones_like(columns), columns, 1.5 * columns**2 - 0.5))
    by_row /= np.linalg.norm(by_row, axis=1, keepdims=True)
    by_column /= np.linalg.norm(by_column, axis=1, keepdims=True)
    left = seen - by_row.T @ (by_row @ seen @ by_column.T) @ by_column
    return min(_correlation(left[1:], left[:-1]), _correlation(left[:, 1:], left[:, :-1])), float(left.std())


def _correlation(one: Grey, other: Grey) -> float:
    return float((one * other).mean() / np.sqrt((one * one).mean() * (other * other).mean() + 1e-12))


def _solid(share: Grey) -> float:
    """Of the pixels between the extremes, those with 5 x 5 of their kind around them."""
    between = (share > _BETWEEN) & (share < 1 - _BETWEEN)
    return float(ndimage.binary_erosion(between, np.ones((5, 5))).sum() / max(int(between.sum()), 1))


def _panels(share: Grey, seen: Grey) -> tuple[int, float, int]:
    """Rectangles of one value that is neither black nor white, the share they take, and how many such values."""
    flat = np.zeros(share.shape, dtype=np.bool_)
    flat[:-1, :-1] = (np.abs(share[:-1, 1:] - share[:-1, :-1]) < _FLAT) & (
        np.abs(share[1:, :-1] - share[:-1, :-1]) < _FLAT
    )
    flat &= (seen > 0.03) & (seen < 0.97) & (share > _AT) & (share < 1 - _AT)
    if flat.mean() < _PANEL_SHARE / 2:
        return 0, 0.0, 0
    labels, count = ndimage.label(flat)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    panels, pixels = 0, 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = (part.stop - part.start for part in box)
        large = sizes[label] >= _PANEL_LEAST * share.size and min(tall, wide) >= 3
        if large and sizes[label] >= _PANEL_FILL * tall * wide:
            panels += 1
            pixels += int(sizes[label])
    _, counts = np.unique(share[flat], return_counts=True)
    return panels, pixels / share.size, int((counts >= _PAINT_SHARE * share.size).sum())


def _colour(colours: Grey) -> float:
    span = float(colours.max() - colours.min()) or 1.0
    spread = colours.max(axis=2) - colours.min(axis=2)
    return float((spread > _COLOUR * span).mean())


def _lines(fine: Grey, span: float) -> int:
    """Runs of blocks in which rows change suddenly and often, as letters do; `span` is the range of the image."""
    rows, columns = fine.shape[0] // _BLOCK, (fine.shape[1] - 1) // _BLOCK
    if not rows or not columns:
        return 0
    steps = np.abs(np.diff(fine[: rows * _BLOCK, : columns * _BLOCK + 1], axis=1)) > _STEP * max(span, 1e-6)
    # Eight booleans are one word of 64 bits, whose ones are counted at once.
    counts = np.bitwise_count(np.ascontiguousarray(steps).view(np.uint64)).reshape(rows, _BLOCK, columns)
    labels, _ = ndimage.label(counts.sum(axis=1) >= _STEPS_A_BLOCK)
    return sum(
        _lines_of_patch(
            steps[box[0].start * _BLOCK : box[0].stop * _BLOCK, box[1].start * _BLOCK : box[1].stop * _BLOCK]
        )
        for box in ndimage.find_objects(labels)
        if box[1].stop - box[1].start >= _PATCH_WIDE
    )


def _lines_of_patch(steps: NDArray[np.bool_]) -> int:
    """Rows of letters in a patch: they have gaps between them, which a texture has not."""
    changes = steps.sum(axis=1)
    busy = np.concatenate(([False], changes > max(2.0, _GAP * float(changes.max())), [False]))
    edges = np.flatnonzero(busy[1:] != busy[:-1])
    tall = edges[1::2] - edges[::2]
    return int(((tall >= _LEAST_TALL) & (tall <= _MOST_TALL)).sum())
