"""Stacked DICOM slices -> a volume of real intensities, in which padding is background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outpost.codes.notes import Note, NoteCode, merged
from outpost.dicom.grey import MOST_PADDED, Modality, background, modality, require_shape
from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import Decoded, decode_image, refusing
from outpost.inference.header import ImageHeader
from outpost.inference.stack import Stack


@dataclass(frozen=True, slots=True)
class Volume:
    """What the pixels of a stack are worth.

    Attributes:
        values: array of (column, row, slice), whose affine is that of the stack.
        padded: of the same shape, true where the images say that a pixel is padding: there, the value is that of
            background. None where none is.
        notes: what was applied.
    """

    values: NDArray[np.float32]
    padded: NDArray[np.bool_] | None = None
    notes: tuple[Note, ...] = ()

    @property
    def real(self) -> NDArray[np.float32]:
        """The values without padding: all, or those left in no order."""
        return self.values if self.padded is None else self.values[~self.padded]


def read_volume(stack: Stack) -> Volume:
    """Decode the pixels of a stack, apply each slice's grey values (PS3.3 C.11.1) and take padding out.

    Raises:
        InputRejected: PIXELS_UNREADABLE, PIXELS_ALL_ZERO, PIXELS_CONSTANT, PIXELS_OUT_OF_RANGE or
            GREY_VALUES_UNDEFINED.
    """
    columns, rows, slices = stack.shape
    volume = np.empty((slices, rows, columns), dtype=np.float32)
    padded: NDArray[np.bool_] | None = None
    notes: list[Note] = []
    layouts: dict[tuple[int, int], str] = {}
    mappings: dict[tuple[str, ...], str] = {}
    mapped = False
    for index, image in enumerate(stack.images):
        decoded, mapping = _read_slice(image, volume[index], notes)
        mappings.setdefault(mapping.named, image.path.name)
        mapped |= mapping.changes
        if decoded.padded is not None:
            padded = np.zeros(volume.shape, dtype=np.bool_) if padded is None else padded
            padded[index] = decoded.padded
        if decoded.layout is not None:
            layouts.setdefault(decoded.layout, image.path.name)
    if len(layouts) > 1:
        raise InputRejected(
            Code.PIXELS_OUT_OF_RANGE,
            f"slices of one series use other bits of their words than BitsStored and HighBit say: "
            f"{', '.join(layouts.values())}",
        )
    if len(mappings) > 1 and mapped:
        told = " but ".join(f"{' and '.join(named) or 'none'} in {name}" for named, name in mappings.items())
        raise InputRejected(
            Code.GREY_VALUES_UNDEFINED, f"slices of one series come by their grey values differently: {told}"
        )
    if padded is not None:
        notes.append(_take_out(volume, padded))
        padded = padded.transpose(2, 1, 0)
    if volume.min() == volume.max():
        raise InputRejected(Code.PIXELS_CONSTANT, f"every voxel of the series is {volume.flat[0]:g}")
    return Volume(volume.transpose(2, 1, 0), padded, merged(notes))


def _read_slice(
    image: ImageHeader, target: NDArray[np.float32], notes: list[Note]
) -> tuple[Decoded, Modality]:
    """Decode one slice, its real values into their place."""
    name, decoded = image.path.name, decode_image(image)
    with refusing(image.path):
        mapping = modality(image.dataset)
        require_shape(image.dataset)
    if decoded.pixels.shape != target.shape:
        raise InputRejected(
            Code.PIXELS_UNREADABLE,
            f"{name} decodes to {decoded.pixels.shape}, its header says {target.shape}",
        )
    # Values of the table are whole; those of a scale are in double precision.
    np.copyto(target, mapping.apply(decoded.pixels), casting="same_kind")
    if not np.isfinite(target).all():
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{name} rescales by {mapping.slope:g} and {mapping.intercept:g}"
        )
    notes += (Note(NoteCode.GREY_VALUES_MAPPED, remark) for remark in decoded.remarks)
    if mapping.table is not None:
        notes.append(Note(NoteCode.GREY_VALUES_MAPPED, "ModalityLUTSequence was applied"))
    return decoded, mapping


def _take_out(volume: NDArray[np.float32], padded: NDArray[np.bool_]) -> Note:
    """Set padding to background, in place.

    Models take grey values by percentiles, and saw air around a head: that is what padding becomes. Raises
    `InputRejected` where it is nearly all there is, unless it is background as it is.
    """
    share = float(padded.mean())
    if share == 1:
        raise _all_padded(share)
    real = volume[~padded]
    empty = background(real)
    if share > MOST_PADDED and (volume[padded] != empty).any():
        raise _all_padded(share)
    volume[padded] = empty
    return Note(NoteCode.PIXELS_PADDED, f"PixelPaddingValue: {share:.1%} of the volume set to {empty:g}")


def _all_padded(share: float) -> InputRejected:
    return InputRejected(
        Code.GREY_VALUES_UNDEFINED,
        f"by PixelPaddingValue {share:.1%} of the series is padding, at most {MOST_PADDED:.0%} can be",
    )
