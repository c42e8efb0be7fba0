"""Decoded words -> which pixels count, what they are worth, and whether less is darker; or a fault with its code.

The way of a grey value (PS3.3 C.7.6.3, C.7.5.1.1.2, C.11.1): the bits that are stored are taken out of each word
(`stored_values`), what is padding is told apart, the modality LUT or the rescale makes them real (`modality`), and the
photometric interpretation says how they are shown (`is_reversed`). Each attribute is applied once or refused by name:
what contradicts the pixels is never resolved by a guess.

Not applied: windows and VOI LUTs but for the direction of the latter (they change contrast, which models take away by
percentiles), Real World Value Mapping and the private scales of senders (the same), Pixel Intensity Relationship
(physics of the detector, not how it is shown), overlay planes of their own (they are not in the pixels).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from scipy import ndimage

Mask = NDArray[np.bool_]
Pixels = NDArray[Any]

OUT_OF_RANGE: Final = "PIXELS_OUT_OF_RANGE"
UNDEFINED: Final = "GREY_VALUES_UNDEFINED"

# More padding than that is no image with a border but a rule that hits the image itself.
MOST_PADDED: Final = 0.95
_ALLOCATED: Final = (1, 8, 16, 32)
# Overlay Bit Position, Overlay Bits Allocated and Overlay Data of each group.
_OVERLAYS: Final = [
    (Tag(group, 0x0102), Tag(group, 0x0100), Tag(group, 0x3000)) for group in range(0x6000, 0x6020, 2)
]

# Whether the sign is what it says: pairs of neighbours in which the topmost stored bit changes. Where values really
# run from one half of the range to the other, most such pairs are close by one reading and a whole range apart by the
# other. `_FEWEST_PAIRS` of them, in `_FEWEST_VALUES` on each side (a drawn edge has one), against a tenth.
_NEAR: Final = 16  # parts of the range
_FEWEST_PAIRS: Final = 16
_FEWEST_VALUES: Final = 8
_AGAINST: Final = 10
_LOOKED_AT: Final = 1 << 16  # pixels of an image
_SIGN_BITS: Final = 9  # of 8 bits, writing on black is all edges


class GreyFault(Exception):
    """Grey values cannot be had without a guess.

    Attributes:
        code: PIXELS_OUT_OF_RANGE or GREY_VALUES_UNDEFINED.
        message: names attributes and numbers, never a value of the patient.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values of one file.

    Attributes:
        values: of the shape and type of the words.
        padded: of the same shape, true where a pixel is padding; None where none is.
        layout: bits that the values were moved down by, and the pattern of unused bits that every word had and that
            was cleared; None where nothing is said of either. Slices of one volume have one layout.
        remarks: what was applied beyond the usual, each for a note.
    """

    values: Pixels
    padded: Mask | None = None
    layout: tuple[int, int] | None = (0, 0)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a word the header says that the value is.

    Attributes:
        allocated, stored: bits.
        high: the topmost bit of the value, counted from 0.
        samples: words a pixel.
    """

    allocated: int
    stored: int
    high: int
    samples: int


def layout(dataset: Dataset) -> Layout:
    """Read where values are; what no pixels can have (more bits stored than allocated, half words) is refused.

    Raises:
        GreyFault: PIXELS_OUT_OF_RANGE; GREY_VALUES_UNDEFINED where something is no number.
        AttributeError: no bits are allocated or stored by the header.
    """
    allocated, stored = _integer(dataset, "BitsAllocated"), _integer(dataset, "BitsStored")
    if allocated is None or stored is None:
        raise AttributeError("BitsAllocated, BitsStored")
    if allocated not in _ALLOCATED:
        raise GreyFault(OUT_OF_RANGE, f"BitsAllocated is {allocated}; 8, 16 or 32 can be read")
    if not 1 <= stored <= allocated:
        raise GreyFault(OUT_OF_RANGE, f"BitsStored is {stored}, BitsAllocated {allocated}")
    representation = _integer(dataset, "PixelRepresentation")
    if representation not in (None, 0, 1):
        raise GreyFault(OUT_OF_RANGE, f"PixelRepresentation is {representation}; 0 or 1 is defined")
    high = _integer(dataset, "HighBit")
    samples = _integer(dataset, "SamplesPerPixel") or 1
    return Layout(allocated, stored, stored - 1 if high is None else high, samples)


def stored_values(words: Pixels, dataset: Dataset, said: Layout, *, lossy: bool = False) -> Stored:
    """Take the stored bits out of decoded words.

    Args:
        words: whole words of (..., rows, columns) or, with samples, of (..., rows, columns, samples), signed where
            Pixel Representation says so, unused bits as they came.
        dataset: attributes of the image.
        said: of the same.
        lossy: they come from a lossy stream, whose values may overshoot the range a little.

    Raises:
        GreyFault: PIXELS_OUT_OF_RANGE, GREY_VALUES_UNDEFINED.
    """
    if words.dtype.kind not in "iu" or said.allocated == 1:
        return Stored(words)
    width, bits, high = 8 * words.itemsize, said.stored, said.high
    coloured = said.samples > 1
    bounds = None if coloured else _padding(dataset, width, signed=words.dtype.kind == "i")
    padded = _within(words, bounds) if bounds else None
    place: tuple[int, int] | None = (0, 0)
    remarks: tuple[str, ...] = ()
    values = words
    if bits == width:
        _overlay_bits(dataset, bits)
    if bits < width or high != bits - 1:
        values, place, remarks = _without_unused(words, padded, dataset, bits, high, lossy)
        if bounds:
            padded = _either(padded, _within(values, bounds))
    if not coloured:
        if padded is not None and bounds is not None:
            padded = _outside_only(values, padded, bounds)
        elif bounds is None and values.dtype.kind == "i" and (padded := _unnamed(values, bits)) is not None:
            remarks += ("the least value there is, far below all others, was taken for padding",)
        _require_sign(values, padded, dataset, bits)
    return Stored(values, padded, place, remarks)


# --- the bits of a word ---


def _without_unused(
    words: Pixels, padded: Mask | None, dataset: Dataset, bits: int, high: int, lossy: bool
) -> tuple[Pixels, tuple[int, int] | None, tuple[str, ...]]:
    """Values, layout and remarks as in `Stored`."""
    width = 8 * words.itemsize
    plain = words.view(f"u{words.itemsize}")
    real = plain if padded is None else plain[~padded]
    used = int(np.bitwise_or.reduce(real, axis=None)) if real.size else 0
    if not used:
        return words, None, ()
    signed = words.dtype.kind == "i"
    unused = ((1 << width) - 1) ^ ((1 << bits) - 1)
    shift = high - bits + 1
    if 0 < shift <= width - bits:
        below = used & ((1 << shift) - 1)
        if not below or used & unused:
            return _moved_down(words, padded, dataset, bits, shift)
        # Else the values are where BitsStored alone would have them, and HighBit is wrong.
    if not used & unused and not (signed and used >> (bits - 1)):
        _overlay_bits(dataset, bits)
        return words, (0, 0), ()  # nearly every image ends here
    return _with_stray_bits(words, padded, dataset, bits, lossy)


def _moved_down(
    words: Pixels, padded: Mask | None, dataset: Dataset, bits: int, shift: int
) -> tuple[Pixels, tuple[int, int], tuple[str, ...]]:
    """Values that do not begin at the lowest bit, as HighBit says."""
    width = 8 * words.itemsize
    values = (words << (width - bits - shift)) >> (width - bits)
    stray = (values << shift) ^ words
    if padded is not None:
        stray[padded] = 0
    high = bits + shift - 1
    strays = int(np.bitwise_or.reduce(stray.view(f"u{words.itemsize}"), axis=None))
    if strays & ~_overlay_bits(dataset, bits, shift):
        raise GreyFault(
            OUT_OF_RANGE,
            f"BitsStored {bits} and HighBit {high} leave bits unused that are set (mask {strays:#06x})",
        )
    return values, (shift, 0), (f"HighBit {high}, BitsStored {bits}: values moved down by {shift} bits",)


def _with_stray_bits(
    words: Pixels, padded: Mask | None, dataset: Dataset, bits: int, lossy: bool
) -> tuple[Pixels, tuple[int, int], tuple[str, ...]]:
    """Values where unused bits are set, or where the sign may not reach into them."""
    width, signed = 8 * words.itemsize, words.dtype.kind == "i"
    empty = width - bits
    # By shifts, signed or not: what is left has its sign extended, or its unused bits cleared.
    values = (words << empty) >> empty
    plain, meant = words.view(f"u{words.itemsize}"), values.view(f"u{words.itemsize}")
    stray = plain ^ meant
    if padded is not None:
        stray[padded] = 0
    if not stray.any():
        return values, (0, 0), ()
    if overlay := _overlay_bits(dataset, bits):
        stray &= plain.dtype.type(~overlay & ((1 << width) - 1))
        if not stray.any():
            return values, (0, 0), ("bits of the pixels that hold an overlay were cleared",)
    rest = stray if padded is None else stray[~padded]
    unused = (((1 << width) - 1) ^ ((1 << bits) - 1)) & ~overlay
    if signed:
        negative = (values if padded is None else values[~padded]) < 0
        # Either no negative value has its sign extended (then each strays by all unused bits), or all have.
        if (rest[negative] == unused).all() and not rest[~negative].any():
            return values, (0, 0), ()
    real = words if padded is None else words[~padded]
    least, greatest = int(real.min()), int(real.max())
    low, up = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if lossy and max(low - least, greatest - up) < (1 << bits) // _NEAR:
        return np.clip(words, low, up), (0, 0), ()
    if not overlay and greatest == _integer_or_none(dataset, "LargestImagePixelValue"):
        told = (
            f"values are larger than BitsStored {bits} can hold, as LargestImagePixelValue says: read whole"
        )
        return words, (0, 0), (told,)
    top = real.view(plain.dtype) & plain.dtype.type(unused)
    pattern = int(top.flat[0])
    if (top == pattern).all():  # then it says nothing, and the values differ from whole words by one number
        return values, (0, pattern), (f"bits above BitsStored {bits} are {pattern:#06x} everywhere: cleared",)
    raise GreyFault(
        OUT_OF_RANGE,
        f"BitsStored {bits}, PixelRepresentation {int(signed)}, but values from {least} to {greatest}",
    )


def _overlay_bits(dataset: Dataset, bits: int, shift: int = 0) -> int:
    """The unused bits of a word in which old images hold overlay planes (PS3.3 C.9.2, retired in 2004).

    Raises:
        GreyFault: PIXELS_OUT_OF_RANGE where one is said to be in the bits of the value.
    """
    found, present = 0, dataset.keys()
    for position, width, plane in _OVERLAYS:
        if position not in present or plane in present:
            continue  # planes of their own are not in the pixels
        with suppress(Exception):  # pydicom raises many types on malformed values; then no bit is declared
            bit = int(dataset[position].value)
            if bit or int(dataset[width].value) > 1:  # 0 of 1 is a plane of its own that was taken out
                found |= 1 << bit
    inside = found & (((1 << bits) - 1) << shift)
    if inside:
        raise GreyFault(
            OUT_OF_RANGE, f"OverlayBitPosition {inside.bit_length() - 1} lies within BitsStored {bits}"
        )
    return found


def _require_sign(values: Pixels, padded: Mask | None, dataset: Dataset, bits: int) -> None:
    """Refuse values whose neighbours say that Pixel Representation is the other one."""
    if bits < _SIGN_BITS or values.shape[-1] < 2:
        return
    signed = values.dtype.kind == "i"
    # Cheaply first: most images do not use the topmost bit.
    if (int(values.min()) >= 0) if signed else not int(values.max()) >> (bits - 1):
        return
    rows = values.reshape(-1, values.shape[-1])
    step = max(1, rows.size // _LOOKED_AT)
    rows = rows[::step]
    one, other = rows[:, :-1], rows[:, 1:]
    half = 1 << (bits - 1)
    crossing = ((one < 0) != (other < 0)) if signed else ((one >= half) != (other >= half))
    if padded is not None:
        out = padded.reshape(-1, values.shape[-1])[::step]
        crossing &= ~(out[:, :-1] | out[:, 1:])
    if int(crossing.sum()) < _FEWEST_PAIRS:
        return
    low = np.minimum(one[crossing], other[crossing]).astype(np.int64)
    up = np.maximum(one[crossing], other[crossing]).astype(np.int64)
    # The ends of the range are what is clipped, or drawn.
    least, greatest = (-half, half - 1) if signed else (0, 2 * half - 1)
    inner = (low > least) & (up < greatest)
    low, up = low[inner], up[inner]
    near = 2 * half // _NEAR
    against, for_it = 2 * half - (up - low) < near, up - low < near
    number = int(against.sum())
    if (
        number >= _FEWEST_PAIRS
        and number > _AGAINST * int(for_it.sum())
        and min(len(np.unique(low[against])), len(np.unique(up[against]))) >= _FEWEST_VALUES
    ):
        raise GreyFault(
            OUT_OF_RANGE,
            f"PixelRepresentation is {int(signed)}, but {number} neighbours run over the end of the range "
            f"({least} to {greatest} by BitsStored {bits}) as if it were {int(not signed)}",
        )


# --- padding ---


def _padding(dataset: Dataset, width: int, *, signed: bool) -> tuple[int, int] | None:
    """Least and greatest padding value among whole words, or None."""
    value, limit = _integer(dataset, "PixelPaddingValue"), _integer(dataset, "PixelPaddingRangeLimit")
    if value is None:
        if limit is not None:
            raise GreyFault(UNDEFINED, "PixelPaddingRangeLimit stands without PixelPaddingValue")
        return None
    first = _as_word(value, width, signed=signed)
    last = first if limit is None else _as_word(limit, width, signed=signed)
    return min(first, last), max(first, last)


def _as_word(value: int, width: int, *, signed: bool) -> int:
    """A value of VR US or SS as the words have it, whichever VR was sent: senders write -32768 as 32768."""
    if not -0x8000 <= value <= 0xFFFF:
        return value  # no word has it
    value = (value & 0xFFFF) - (0x10000 if signed and value & 0x8000 else 0)
    return value - 0x100 if signed and width == 8 and 0x80 <= value <= 0xFF else value


def _within(values: Pixels, bounds: tuple[int, int]) -> Mask | None:
    """Where the values lie in a range; None where they do nowhere."""
    kind = np.iinfo(values.dtype)
    low, high = max(bounds[0], kind.min), min(bounds[1], kind.max)
    if low > high:
        return None
    found: Mask = values == low if low == high else (values >= low) & (values <= high)
    return found if found.any() else None


def _unnamed(values: Pixels, bits: int) -> Mask | None:
    """Padding that no attribute names: the least signed value there is, and farther from all others than they lie."""
    least = -(1 << (bits - 1))
    if bits < _SIGN_BITS or int(values.min()) != least:
        return None
    padded: Mask = values == least
    real = values[~padded]
    if not real.size or int(real.min()) - least <= max(int(real.max()) - int(real.min()), 1 << (bits - 2)):
        return None
    return _outside_only(values, padded, (least, least))


def _either(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _outside_only(values: Pixels, padded: Mask, bounds: tuple[int, int]) -> Mask | None:
    """Padding whose value tissue has too: only what reaches the border of its frame, where padding is put."""
    real = values[~padded]
    if not real.size:
        return padded
    some = real[:: max(1, real.size // _LOOKED_AT)]
    low, high = np.percentile(some, (1, 99))
    if not low < bounds[0] <= bounds[1] < high:
        return padded
    kept = np.zeros_like(padded)
    frames = padded.reshape(-1, *padded.shape[-2:])
    square = np.ones((3, 3))
    for frame, target in zip(frames, kept.reshape(frames.shape), strict=True):
        # Without lines, which are where tissue passes through the value.
        broad = ndimage.binary_dilation(ndimage.binary_erosion(frame, square, border_value=1), square) & frame
        labels, count = ndimage.label(broad)
        reaching = np.zeros(count + 1, dtype=np.bool_)
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            reaching[edge] = True
        reaching[0] = False
        target[...] = ndimage.binary_dilation(reaching[labels], square, iterations=2, mask=frame)
    return kept if kept.any() else None


def background(real: Pixels) -> float:
    """What padding is set to, given the values that count: a little more than the darkest, as one of them may be odd.

    Zero where they begin near it: that is no signal.
    """
    some = real.reshape(-1)[:: max(1, real.size // _LOOKED_AT)]
    low, high = (float(value) for value in np.percentile(some, (0.5, 99.5)))
    return 0.0 if 0 <= low <= 0.5 * high else low


# --- stored values -> real values ---


@dataclass(frozen=True, slots=True)
class Modality:
    """How stored values become real ones: a table, or a slope and an intercept.

    Attributes:
        slope, intercept: where there is no table.
        first: stored value of the first entry; what lies below has the first entry, what lies above the last.
        table: entries.
        named: the attributes it was made of.
    """

    slope: float = 1.0
    intercept: float = 0.0
    first: int = 0
    table: NDArray[np.uint16] | None = None
    named: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return self.table is not None or self.slope != 1 or self.intercept != 0

    @property
    def falls(self) -> bool:
        """Whether what was more becomes less."""
        if self.table is None:
            return self.slope < 0
        return int(self.table[-1]) < int(self.table[0])

    def apply(self, values: Pixels) -> Pixels:
        """Real values: in double precision (large intercepts would eat the last bits), or whole where they are."""
        if self.table is not None:
            places = values.astype(np.int64) - self.first
            entries: Pixels = self.table[np.clip(places, 0, len(self.table) - 1)]
            return entries
        if not self.changes:
            return values
        scaled: Pixels = values * self.slope
        scaled += self.intercept
        return scaled


def modality(dataset: Dataset) -> Modality:
    """The modality LUT or the rescale of an image (PS3.3 C.11.1); the identity where it has neither.

    Raises:
        GreyFault: GREY_VALUES_UNDEFINED where it is broken, or says two things.
    """
    slope, intercept = _real(dataset, "RescaleSlope"), _real(dataset, "RescaleIntercept")
    if slope == 0:
        raise GreyFault(UNDEFINED, "RescaleSlope is 0, which makes every pixel alike")
    item = _only_item(dataset, "ModalityLUTSequence")
    if item is None:
        both = (("RescaleSlope", slope), ("RescaleIntercept", intercept))
        named = tuple(keyword for keyword, value in both if value is not None)
        return Modality(1.0 if slope is None else slope, intercept or 0.0, named=named)
    if slope not in (None, 1.0) or intercept not in (None, 0.0):
        raise GreyFault(
            UNDEFINED,
            f"ModalityLUTSequence beside RescaleSlope {slope} and RescaleIntercept {intercept}: one may be present",
        )
    signed = (_integer(dataset, "PixelRepresentation") or 0) == 1
    first, table = _table(item, "ModalityLUTSequence", dataset, signed=signed)
    return Modality(first=first, table=table, named=("ModalityLUTSequence",))


def _table(item: Dataset, name: str, dataset: Dataset, *, signed: bool) -> tuple[int, NDArray[np.uint16]]:
    """First stored value and entries of a lookup table (PS3.3 C.11.1.1)."""
    order = ">" if getattr(dataset, "original_encoding", (None, True))[1] is False else "<"
    try:
        descriptor = item["LUTDescriptor"].value
        if isinstance(descriptor, bytes):
            descriptor = np.frombuffer(descriptor, f"{order}u2").tolist()
        count, first, bits = (int(value) for value in descriptor)
        data = item["LUTData"].value
        if isinstance(data, bytes):
            entries = None
        else:
            entries = np.asarray([int(value) & 0xFFFF for value in data], dtype=np.uint16)
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    except Exception as error:
        raise GreyFault(
            UNDEFINED, f"{name} has no LUTDescriptor or LUTData to read ({type(error).__name__})"
        ) from None
    count = (count & 0xFFFF) or 1 << 16
    first = (first & 0xFFFF) - (0x10000 if signed and first & 0x8000 else 0)
    if not 8 <= bits <= 16:
        raise GreyFault(UNDEFINED, f"LUTDescriptor of {name} says {bits} bits an entry; 8 to 16 are defined")
    if entries is None:
        # Of 8 bits, entries may be packed two a word.
        packed = bits == 8 and len(data) in (count, count + count % 2)
        if packed:
            raw = np.frombuffer(data, np.uint8)
            # In words of big endian, the lower byte is the first.
            raw = raw if order == "<" or item["LUTData"].VR == "OB" else raw.reshape(-1, 2)[:, ::-1].ravel()
            entries = raw[:count].astype(np.uint16)
        else:
            entries = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.uint16)
    elif bits == 8 and len(entries) == -(-count // 2) and count > 2:
        entries = entries.astype("<u2").view(np.uint8)[:count].astype(np.uint16)
    if len(entries) != count:
        raise GreyFault(
            UNDEFINED, f"LUTData of {name} has {len(entries)} entries, its LUTDescriptor says {count}"
        )
    if int(entries.max()) >> bits:
        raise GreyFault(
            UNDEFINED, f"LUTData of {name} runs to {int(entries.max())}, its LUTDescriptor says {bits} bits"
        )
    return first, entries


# --- how it is shown ---


def is_reversed(dataset: Dataset) -> bool:
    """Whether more is shown darker: MONOCHROME1, or a VOI LUT that falls (PS3.3 C.7.6.3.1.2, C.11.2).

    INVERSE of Presentation LUT Shape goes with MONOCHROME1 and says the same once more (PS3.3 C.7.6.1). Beside
    MONOCHROME2 it contradicts it, and viewers differ. IDENTITY beside MONOCHROME1 does, too, but some senders write
    it always: the photometric interpretation is then followed, as most viewers do.

    Raises:
        GreyFault: GREY_VALUES_UNDEFINED.
    """
    require_shape(dataset)
    return (_text(dataset, "PhotometricInterpretation") == "MONOCHROME1") != _voi_falls(dataset)


def require_shape(dataset: Dataset) -> None:
    """Refuse a Presentation LUT Shape that is unknown or contradicts the photometric interpretation.

    Raises:
        GreyFault: GREY_VALUES_UNDEFINED.
    """
    shape = _text(dataset, "PresentationLUTShape")
    if shape not in ("", "IDENTITY", "INVERSE"):
        raise GreyFault(UNDEFINED, "PresentationLUTShape is neither IDENTITY nor INVERSE")
    if shape == "INVERSE" and _text(dataset, "PhotometricInterpretation") == "MONOCHROME2":
        raise GreyFault(
            UNDEFINED, "PresentationLUTShape INVERSE contradicts PhotometricInterpretation MONOCHROME2"
        )


def shape_ignored(dataset: Dataset) -> str:
    """What is to be told where the Presentation LUT Shape was not followed; nothing elsewhere."""
    if _text(dataset, "PhotometricInterpretation") == "MONOCHROME1" and (
        _text(dataset, "PresentationLUTShape") == "IDENTITY"
    ):
        return "PresentationLUTShape IDENTITY beside PhotometricInterpretation MONOCHROME1: the latter was followed"
    return ""


def _voi_falls(dataset: Dataset) -> bool:
    """Whether the VOI LUT reverses; a window, or a table that is broken or goes up and down, does not."""
    if "VOILUTSequence" not in dataset or "WindowCenter" in dataset:
        return False
    try:
        _, table = _table(dataset["VOILUTSequence"].value[0], "VOILUTSequence", dataset, signed=False)
    except Exception:  # of display only: what cannot be read changes nothing
        return False
    steps = np.diff(table.astype(np.int64))
    return bool((steps <= 0).all() and (steps < 0).any())


# --- attributes ---

_TAGS: Final = {
    keyword: Tag(keyword)
    for keyword in (
        "BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation"
        " PixelPaddingValue PixelPaddingRangeLimit LargestImagePixelValue RescaleSlope RescaleIntercept"
        " ModalityLUTSequence VOILUTSequence WindowCenter PresentationLUTShape"
    ).split()
}


def _value(dataset: Dataset, keyword: str) -> Any:
    """The value of an attribute as pydicom has it, None where it is absent or empty."""
    # Not by `get`: for what is absent, and most is, that takes ten times as long.
    tag = _TAGS[keyword]
    if tag not in dataset.keys():  # noqa: SIM118 (`in dataset` makes a tag of it each time)
        return None
    try:
        value = dataset[tag].value
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    except Exception as error:
        raise GreyFault(UNDEFINED, f"{keyword} cannot be read ({type(error).__name__})") from None
    if type(value) is int:
        return value
    if isinstance(value, (MultiValue, list, tuple)):
        if len(value) > 1:
            raise GreyFault(UNDEFINED, f"{keyword} has {len(value)} values, 1 is defined")
        value = value[0] if value else None
    if isinstance(value, bytes):
        little = getattr(dataset, "original_encoding", (None, True))[1]
        value = (
            int.from_bytes(value, "big" if little is False else "little")
            if len(value) in (1, 2, 4)
            else value
        )
    return None if value in ("", b"") else value


def _integer(dataset: Dataset, keyword: str) -> int | None:
    value = _value(dataset, keyword)
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise GreyFault(UNDEFINED, f"{keyword} is not a whole number") from None
    return number


def _integer_or_none(dataset: Dataset, keyword: str) -> int | None:
    try:
        return _integer(dataset, keyword)
    except GreyFault:
        return None


def _real(dataset: Dataset, keyword: str) -> float | None:
    value = _value(dataset, keyword)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not np.isfinite(number):
        raise GreyFault(UNDEFINED, f"{keyword} is not a number")
    return number


def _text(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    return "" if value is None else str(value).strip().upper()


def _only_item(dataset: Dataset, keyword: str) -> Dataset | None:
    tag = _TAGS[keyword]
    if tag not in dataset.keys():  # noqa: SIM118 (as in `_value`)
        return None
    try:
        value = dataset[tag].value
    except Exception as error:  # as in `_value`
        raise GreyFault(UNDEFINED, f"{keyword} cannot be read ({type(error).__name__})") from None
    if value is None or (isinstance(value, (Sequence, list, bytes, str)) and not len(value)):
        return None
    if not isinstance(value, Sequence) or len(value) != 1:
        raise GreyFault(UNDEFINED, f"{keyword} has not one item")
    item: Dataset = value[0]
    return item
