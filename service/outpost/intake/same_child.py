"""The child process that compares two encodings of an instance: `python -m outpost.intake.same_child`.

Each line on standard input is a JSON list: the file that arrived, the file that is held (empty where it is gone), and
the digest of what is held. Each answer is a line of JSON: `same`, and a comment for the sender.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial, read_sequence
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag

from outpost.confined import confine
from outpost.intake.content import PADDED, add_values, little_endian, vr_of
from outpost.intake.header import MOST_ELEMENTS

_MEMORY_MIB: Final = 1024
_CPU_SECONDS: Final = 600
_MOST_QUESTIONS: Final = 1000

_LOSSY: Final = "held with other content: a lossy copy needs a UID of its own"
_GONE: Final = "held before; its file is gone, so it cannot be compared"

_PIXELS: Final = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_PIXELS_AS_ENCODED: Final = b"\xe0\x7f\x10\x00"
# What encoders tell of their work: Derivation Description and Code, Lossy Image Compression, its ratio and method.
# Where the pixels are the same it changes nothing.
_HISTORY: Final = frozenset({0x00082111, 0x00089215, 0x00282110, 0x00282112, 0x00282114})
# What belongs to the encoding: what it means for the pixels is compared with the pixels.
_OF_THE_ENCODING: Final = frozenset(
    {
        *_PIXELS,
        0x7FE00001,  # extended offsets
        0x7FE00002,
        0x7FE00003,
        0xFFFCFFFC,  # padding behind the data set
        0x00080005,  # Specific Character Set: texts are compared as they read
        0x00280004,  # Photometric Interpretation
        0x00280006,  # Planar Configuration
        *_HISTORY,
    }
)
_TEXTS: Final = frozenset("LO LT PN SH ST UC UT".split())


def main() -> int:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print may quote a file
    warnings.simplefilter("ignore")
    confine(_MEMORY_MIB, _CPU_SECONDS)
    for _, line in zip(range(_MOST_QUESTIONS), sys.stdin, strict=False):
        arrived, held, digest = json.loads(line)
        try:
            same, comment = judge(Path(arrived), Path(held) if held else None, digest)
        except Exception:  # hostile bytes raise whatever they like; MemoryError is one of them
            same, comment = False, "this UID is held; whether with the same image cannot be read"
        answers.write(json.dumps({"same": same, "comment": comment}).encode() + b"\n")
        answers.flush()
    return 0


def judge(arrived: Path, held: Path | None, digest: str) -> tuple[bool, str]:
    """Whether both are one instance, and what else the sender should know. Raises many types on broken files."""
    one = _read(arrived)
    if held is None:
        if digest.startswith("v:") and digest in _native_digests(one):
            return True, ""
        return False, _GONE
    other = _read(held)
    latin = ["iso8859"]
    same = _same_values(one, other, _encodings(one, latin), _encodings(other, latin)) and _same_pixels(
        one, other
    )
    return same, _LOSSY if not same and _is_lossy(one) != _is_lossy(other) else ""


def _read(path: Path) -> Dataset:
    """The whole of a file. Raises `ValueError` where its elements do not end, as those of a deflated bomb."""
    left = MOST_ELEMENTS

    def count(_tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MOST_ELEMENTS} elements")
        return False

    with path.open("rb") as file:
        return read_partial(file, stop_when=count)


# --- values ---


def _same_values(one: Dataset, other: Dataset, encodings: list[str], other_encodings: list[str]) -> bool:
    ours, theirs = _compared(one), _compared(other)
    if ours.keys() ^ theirs.keys():
        return False
    return all(_same_value(one, other, tag, encodings, other_encodings) for tag in ours)


def _compared(dataset: Dataset) -> dict[BaseTag, DataElement | RawDataElement]:
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    for tag in dataset.keys():  # noqa: SIM118 - a data set iterates over its elements, and decodes them
        if tag.element == 0 or tag in _OF_THE_ENCODING:
            continue
        found[tag] = dataset.get_item(tag)
    return found


def _same_value(
    one: Dataset, other: Dataset, tag: BaseTag, encodings: list[str], other_encodings: list[str]
) -> bool:
    a, b = one.get_item(tag), other.get_item(tag)
    vr = _vr(a, b)
    if vr == "SQ":
        items, others = _items(one, tag, encodings), _items(other, tag, other_encodings)
        return len(items) == len(others) and all(
            _same_values(x, y, _encodings(x, encodings), _encodings(y, other_encodings))
            for x, y in zip(items, others, strict=True)
        )
    x, y = _bytes(a), _bytes(b)
    if vr in PADDED or vr == "UN" or tag.is_private:
        x, y = x.rstrip(b" \0"), y.rstrip(b" \0")
    if x == y:
        return True
    if vr not in _TEXTS or encodings == other_encodings:
        return False
    text, other_text = _text(x, encodings), _text(y, other_encodings)
    return text is not None and text == other_text


def _vr(one: DataElement | RawDataElement, other: DataElement | RawDataElement) -> str:
    known = [vr for vr in (vr_of(one), vr_of(other)) if vr != "UN"]
    return "SQ" if "SQ" in known else known[0] if known else "UN"


def _items(dataset: Dataset, tag: BaseTag, encodings: list[str]) -> list[Dataset]:
    element = dataset.get_item(tag)
    if vr_of(element) == "SQ":
        return list(dataset[tag].value or ())
    raw = _bytes(element)  # a sequence whose VR was lost on the way (PS3.5 6.2.2): Implicit VR Little Endian
    return list(read_sequence(BytesIO(raw), True, True, len(raw), encodings))


def _bytes(element: DataElement | RawDataElement) -> bytes:
    if isinstance(element, RawDataElement):
        return little_endian(element)
    value = element.value  # pydicom has decoded it, as it does what other elements depend on
    return value if isinstance(value, bytes) else str(value).encode() if value is not None else b""


def _encodings(dataset: Dataset, inherited: list[str]) -> list[str]:
    named = dataset.get("SpecificCharacterSet")
    return convert_encodings(named) if named else inherited


def _text(raw: bytes, encodings: list[str]) -> str | None:
    """How a value reads by its character set; None where it does not."""
    text = decode_bytes(raw, encodings, {ord("\\"), ord("^"), ord("=")})
    return None if "\ufffd" in text else text.rstrip(" \0")


# --- pixels ---


def _same_pixels(one: Dataset, other: Dataset) -> bool:
    tags = [[tag for tag in _PIXELS if tag in dataset] for dataset in (one, other)]
    if tags[0] != tags[1]:
        return False
    if tags[0] != [_PIXELS[0]]:
        return all(_bytes(one.get_item(tag)) == _bytes(other.get_item(tag)) for tag in tags[0])
    (a, colours), (b, other_colours) = _decoded(one), _decoded(other)
    if colours != other_colours or a.shape != b.shape or a.dtype != b.dtype:
        return False
    unused = _unused_bits(one)
    return bool(np.array_equal(a, b) or (unused and np.array_equal(a << unused, b << unused)))


def _decoded(dataset: Dataset) -> tuple[NDArray[Any], str]:
    """Stored values as unsigned numbers, and what colours they are."""
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    # pydicom's annotation says that each option is all of them.
    pixels, said = decoder.as_array(dataset, raw=True, correct_unused_bits=False)  # type: ignore[arg-type] # as above
    colours = str(said["photometric_interpretation"])
    if colours in (PhotometricInterpretation.YBR_RCT, PhotometricInterpretation.YBR_ICT):
        colours = "RGB"  # the transform of JPEG 2000, undone by its decoder
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels.view(f"u{pixels.itemsize}"), colours


def _unused_bits(dataset: Dataset) -> int:
    """How many of the highest bits of a stored value mean nothing: encoders may clear them or extend the sign."""
    if any(tag.group & 0xFF01 == 0x6000 and tag.element == 0x0102 for tag in dataset.keys()):  # noqa: SIM118 - as above
        return 0  # overlays may be in them
    if int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        return 0
    return int(dataset.BitsAllocated) - int(dataset.BitsStored)


def _is_lossy(dataset: Dataset) -> bool:
    syntax = dataset.file_meta.TransferSyntaxUID
    return syntax in _LOSSY_SYNTAXES or str(dataset.get("LossyImageCompression", "")) == "01"


_LOSSY_SYNTAXES: Final = frozenset(
    {
        pydicom.uid.JPEGBaseline8Bit,
        pydicom.uid.JPEGExtended12Bit,
        pydicom.uid.JPEGLSNearLossless,
        pydicom.uid.JPEG2000,
        pydicom.uid.HTJ2K,
    }
)


def _native_digests(dataset: Dataset) -> Iterator[str]:
    """The `content_digest`s this object may have had uncompressed: encoders add a word on what they did."""
    elements = {tag: dataset.get_item(tag) for tag in dataset.keys() if tag < 0x7FE00000}  # noqa: SIM118 - as above
    pixels = (
        _native_pixels(dataset) if _PIXELS[0] in dataset else b""
    )  # behind: it makes pydicom decode elements
    for left_out in (frozenset[int](), _HISTORY):
        digest = hashlib.sha256()
        add_values(digest, Dataset({tag: e for tag, e in elements.items() if tag not in left_out}))
        digest.update(pixels)
        yield "v:" + digest.hexdigest()


def _native_pixels(dataset: Dataset) -> bytes:
    """What `content_digest` adds for Pixel Data that are not compressed."""
    pixels, _ = _decoded(dataset)
    if int(dataset.get("PlanarConfiguration") or 0) == 1 and pixels.ndim >= 3:
        pixels = np.moveaxis(pixels, -1, -3)
    stored = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"P" + _PIXELS_AS_ENCODED + stored + b"\0" * (len(stored) % 2)


if __name__ == "__main__":
    sys.exit(main())
