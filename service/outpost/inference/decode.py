"""DICOM pixel data -> stored values, by the decoder that was measured to be best for the transfer syntax.

Which is best, and what was rejected: docs/decisions/0006-decoders.md, made by benchmarks/decode.py. Where the
first decoder fails the next is tried; a result of nothing but zeros is believed only when the encoded bytes
are as few as an empty image needs, as decoders have been seen to return zeros without an error
(github.com/pydicom/pydicom/issues/966).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import data_element_generator
from pydicom.pixels.utils import pixel_array

from outpost.dicom.grey import GreyFault, Layout, Mask, Stored, layout, stored_values
from outpost.dicom.stream import components, first_fragment, rows_columns_bits
from outpost.inference import progress
from outpost.inference.codes import Code, InputRejected
from outpost.inference.extent import LARGEST_FILE_BYTES, require_file
from outpost.inference.header import ImageHeader

log = logging.getLogger(__name__)

NATIVE: Final = "native"
# The names are pydicom's plugins, but for gdcm-direct: gdcm without that plugin of pydicom's, which keeps from
# it what it can do well (JPEG of 12 bits, RLE).
DECODERS: Final[dict[str, tuple[str, ...]]] = {
    uid.ImplicitVRLittleEndian: (NATIVE,),
    uid.ExplicitVRLittleEndian: (NATIVE,),
    uid.DeflatedExplicitVRLittleEndian: (NATIVE,),
    uid.ExplicitVRBigEndian: (NATIVE,),
    uid.JPEGBaseline8Bit: ("pillow", "gdcm"),
    uid.JPEGExtended12Bit: ("gdcm-direct", "gdcm", "pillow"),
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGLSLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    uid.JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
    uid.RLELossless: ("pydicom", "gdcm-direct"),
}

# Bytes that an image of zeros needs at most, as a share of its samples (and of their bytes for RLE): twice
# what the tightest form of each gives. One bit a sample in lossless JPEG, 6 bits a block of 64 in the lossy
# one, two bytes a run of 128 in RLE; the others end below a hundredth.
_EMPTY_SHARE: Final[dict[str, float]] = {
    uid.JPEGBaseline8Bit: 0.03,
    uid.JPEGExtended12Bit: 0.03,
    uid.JPEGLossless: 0.25,
    uid.JPEGLosslessSV1: 0.25,
    uid.RLELossless: 0.04,
}
_LOSSY: Final = frozenset(
    (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
)
_EMPTY_SHARE_ELSE: Final = 0.01
_EMPTY_BYTES: Final = 1024  # tables and markers, whatever the size


@dataclass(frozen=True, slots=True)
class Decoded:
    """The stored values of one file.

    `pixels` is (rows, columns), (rows, columns, samples), or either behind (frames, ...); signed where Pixel
    Representation says so, unused bits cleared or sign-extended; YBR is turned to RGB. `decoder` is the one
    that gave them, `tried` those before it that did not. `padded`, `layout` and `remarks` are those of
    `outpost.dicom.grey.Stored`: what of the image is padding, where its values lay, what was applied.
    """

    pixels: NDArray[Any]
    decoder: str
    tried: tuple[str, ...] = ()
    padded: Mask | None = None
    layout: tuple[int, int] | None = (0, 0)
    remarks: tuple[str, ...] = ()


def decode_file(path: Path, *, trusting: bool = False) -> tuple[Dataset, Decoded]:
    """Read one file and decode its pixels; the data set comes without Pixel Data, which it no longer needs.

    Args:
        path: of the file.
        trusting: take words for values where the header contradicts them, so that a person sees what was refused.

    Raises:
        InputRejected: PIXELS_UNREADABLE where no decoder can, PIXELS_ALL_ZERO where each gives only zeros for
            encoded bytes that hold more, PIXELS_OUT_OF_RANGE and GREY_VALUES_UNDEFINED where the header
            contradicts the values.
    """
    with _describing(path):
        dataset = pydicom.dcmread(path)
    return dataset, _decode(path, dataset, trusting)


def decode_image(image: ImageHeader) -> Decoded:
    """Decode the pixels of a file whose header is read already: nothing of it is parsed again.

    Raises:
        InputRejected: as `decode_file` does; STUDY_TOO_LARGE before anything is read of the pixels.
    """
    require_file(image)
    with _describing(image.path):
        pixels = _pixels(image)
    image.dataset[pixels.tag] = pixels
    try:
        return _decode(image.path, image.dataset)
    finally:
        image.dataset.pop(pixels.tag, None)


def _pixels(image: ImageHeader) -> DataElement | RawDataElement:
    """The Pixel Data of a file, from where its header ends."""
    syntax = image.dataset.file_meta.TransferSyntaxUID
    if syntax == uid.DeflatedExplicitVRLittleEndian:  # then no place in the file is a place in the data set
        found: Dataset = pydicom.dcmread(image.path, specific_tags=["PixelData"])
        return found.get_item("PixelData")
    little = image.dataset.original_encoding[1]
    assert little is not None  # of every data set that was read from a file
    with image.path.open("rb") as file:
        file.seek(image.pixels_at)
        # Whether the VR is written can be seen: where it is not, these bytes begin an odd length, which none is.
        implicit = file.read(6)[4:] not in (b"OB", b"OW", b"UN")
        file.seek(image.pixels_at)
        return next(data_element_generator(file, implicit, little))


def _decode(path: Path, dataset: Dataset, trusting: bool = False) -> Decoded:
    """Decode and remove the Pixel Data of a data set; raises as `decode_file` does."""
    said = _described(path, dataset)
    progress.beat(said.bytes / (1 << 20))
    _require_size(path, dataset, said)
    syntax, decoders = said.syntax, said.decoders
    failures: list[str] = []
    zeros = 0
    for number, decoder in enumerate(decoders):
        try:
            pixels = _decoded(dataset, decoder)
        except MemoryError:
            raise  # the next decoder needs as much
        # Decoders are plugins with error types of their own; whatever they raise, this one cannot.
        except Exception as error:
            failures.append(f"{decoder}: {type(error).__name__}")
            continue
        if decoder != NATIVE and _is_empty_without_reason(pixels, dataset, syntax):
            zeros += 1
            failures.append(f"{decoder}: only zeros")
            continue
        if number:
            log.warning("pixels decoded by %s after %s", decoder, "; ".join(failures))
        try:
            stored = stored_values(pixels, dataset, said.layout, lossy=syntax in _LOSSY)
        except GreyFault as fault:
            if not trusting:
                raise _rejection(path, fault) from None
            stored = Stored(pixels)
        del dataset.PixelData
        return Decoded(
            stored.values, decoder, tuple(decoders[:number]), stored.padded, stored.layout, stored.remarks
        )
    reasons = "; ".join(failures)
    if zeros:
        raise InputRejected(
            Code.PIXELS_ALL_ZERO,
            f"{path.name} decodes to zeros, although its stream is not empty ({reasons})",
        )
    raise InputRejected(Code.PIXELS_UNREADABLE, f"{path.name} cannot be decoded ({reasons})")


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns a fault of grey values into a rejection that names the file."""
    try:
        yield
    except GreyFault as fault:
        raise _rejection(path, fault) from None


def _rejection(path: Path, fault: GreyFault) -> InputRejected:
    return InputRejected(Code(fault.code), f"{path.name}: {fault.message}")


@contextmanager
def _describing(path: Path) -> Iterator[None]:
    """Turns whatever pydicom raises while a file's description of its pixels is read into a rejection."""
    try:
        yield
    except GreyFault:
        raise
    except MemoryError:
        raise
    # pydicom raises many types on broken files, also when an attribute is first looked at.
    except Exception as error:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{path.name} does not describe its pixels ({type(error).__name__})"
        ) from error


@dataclass(frozen=True, slots=True)
class _Described:
    """What the header says of the pixels."""

    syntax: str
    decoders: Sequence[str]
    rows: int
    columns: int
    frames: int
    layout: Layout

    @property
    def bytes(self) -> int:
        """Of all pixels, uncompressed."""
        samples = self.rows * self.columns * self.frames * self.layout.samples
        return samples * (self.layout.allocated // 8) if self.layout.allocated > 1 else -(-samples // 8)


def _described(path: Path, dataset: Dataset) -> _Described:
    """What is to be decoded, and by which decoders in order."""
    with refusing(path), _describing(path):
        said = _Described(
            syntax=(syntax := str(dataset.file_meta.TransferSyntaxUID)),
            decoders=DECODERS.get(syntax, ()),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            frames=int(dataset.get("NumberOfFrames") or 1),
            layout=layout(dataset),
        )
    if not 0 < said.bytes <= LARGEST_FILE_BYTES:
        raise InputRejected(
            Code.PIXELS_UNREADABLE,
            f"{path.name} says its pixels are {said.bytes} bytes, not 1 to {LARGEST_FILE_BYTES}",
        )
    if not said.decoders:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{path.name} has the transfer syntax {syntax}, which has no decoder here"
        )
    return said


def _require_size(path: Path, dataset: Dataset, said: _Described) -> None:
    """Refuse pixels that are of another size than the header says, where decoders would not notice.

    Bytes beyond the last pixel are padding when they hold one value, or are fewer than the shortest line: more would
    be pixels that the header does not know, and those before them in the wrong place.
    """
    with _describing(path):
        data = dataset.PixelData
    if said.decoders == (NATIVE,):
        line = min(said.rows, said.columns) * max(said.layout.allocated * said.layout.samples // 8, 1)
        if len(data) - said.bytes < line or _is_halved(dataset):
            return
        tail = np.frombuffer(data, np.uint8, offset=said.bytes)
        if (tail != tail[0]).any():
            raise InputRejected(
                Code.PIXELS_UNREADABLE,
                f"{path.name} has {len(data)} bytes of pixels, {said.rows} rows and {said.columns} columns of "
                f"{said.layout.allocated} bits take {said.bytes}, and the rest is not padding",
            )
    elif (found := components(first_fragment(data))) is not None and found > max(4, said.layout.samples):
        # Each is decoded at full size, whatever the header says.
        raise InputRejected(
            Code.PIXELS_UNREADABLE,
            f"{path.name} has a stream of {found} components, its header says {said.layout.samples}",
        )
    elif (head := rows_columns_bits(first_fragment(data))) and head[:2] != (said.rows, said.columns):
        raise InputRejected(
            Code.PIXELS_UNREADABLE,
            f"{path.name} has a stream of {head[0]} rows and {head[1]} columns, "
            f"its header says {said.rows} and {said.columns}",
        )


def _is_halved(dataset: Dataset) -> bool:
    """Whether two pixels share their colours, and so take two thirds of the bytes."""
    return str(dataset.get("PhotometricInterpretation", "")).endswith("_422")


def _decoded(dataset: Dataset, decoder: str) -> NDArray[Any]:
    if decoder == "gdcm-direct":
        return _by_gdcm(dataset)
    options: dict[str, Any] = {}
    if decoder != NATIVE:
        head = rows_columns_bits(first_fragment(dataset.PixelData))
        if head and head[2] > int(dataset.BitsStored):
            options["bits_stored"] = head[2]  # gdcm clears what is above
        if int(dataset.get("NumberOfFrames") or 1) == 1:
            options["extended_offsets"] = None  # of one frame, it is all there is, whatever a table says
    pixels: NDArray[Any] = pixel_array(
        dataset,
        decoding_plugin="" if decoder == NATIVE else decoder,
        # What unused bits mean is `stored_values`'s to say: pydicom clears them, and with them what is out of range.
        correct_unused_bits=False,
        # Signed streams of unsigned values keep their sign here, so that it is seen.
        apply_j2k_sign_correction=bool(dataset.get("PixelRepresentation")),
        **options,
    )
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)  # big endian ones are not torch's


def _by_gdcm(dataset: Dataset) -> NDArray[Any]:
    """gdcm, frame by frame, for images of one sample: how it orders colours depends on the codec.

    Never its reader of whole files: that ends the process on a torn JPEG stream (docs/found-bugs.md).
    """
    # Here, as its library takes long to load and is seldom needed.
    import gdcm  # type: ignore[import-untyped]

    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise NotImplementedError("colour")
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    signed = int(dataset.get("PixelRepresentation") or 0)
    frames = int(dataset.get("NumberOfFrames") or 1)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    decoded = []
    for stream in generate_frames(dataset.PixelData, number_of_frames=frames):
        fragment = gdcm.Fragment()
        fragment.SetByteStringValue(stream)
        fragments = gdcm.SequenceOfFragments.New()
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((columns, rows, 1))
        image.SetDataElement(element)
        kind = gdcm.PhotometricInterpretation.GetPIType(str(dataset.PhotometricInterpretation))
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        head = rows_columns_bits(stream)
        stored = max(int(dataset.BitsStored), head[2]) if head else bits  # it clears what is above
        image.SetPixelFormat(gdcm.PixelFormat(1, bits, stored, stored - 1, signed))
        text = image.GetBuffer()
        if text is None or image.GetPixelFormat().GetBitsAllocated() != bits:
            raise ValueError("gdcm gives no pixels of this width")
        raw = text.encode("utf-8", "surrogateescape")
        decoded.append(np.frombuffer(raw, dtype=f"<{'ui'[signed]}{bits // 8}").reshape(rows, columns))
    return np.stack(decoded) if frames > 1 else decoded[0]


def _is_empty_without_reason(pixels: NDArray[Any], dataset: Dataset, syntax: str) -> bool:
    """Whether a frame is all zeros although its stream is longer than that takes."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    stack = pixels if frames > 1 else pixels[np.newaxis]
    empty = [index for index in range(frames) if not stack[index].any()]
    if not empty:
        return False
    samples = stack[0].size * (stack.itemsize if syntax == uid.RLELossless else 1)
    allowed = _EMPTY_BYTES + samples * _EMPTY_SHARE.get(syntax, _EMPTY_SHARE_ELSE)
    lengths = [len(frame) for frame in generate_frames(dataset.PixelData, number_of_frames=frames)]
    return any(lengths[index] > allowed for index in empty)


# --- the decoders of every accepted syntax, tried on a known image ---

# Largest difference from the known image: none for what is lossless, a few of 4096 grey values for the rest.
_TOLERANCE: Final[dict[str, int]] = {
    uid.JPEGBaseline8Bit: 4,
    uid.JPEGExtended12Bit: 8,
    uid.JPEGLSNearLossless: 2,
    uid.JPEG2000: 4,
    uid.HTJ2K: 24,
}


def known_image(syntax: str) -> NDArray[Any]:
    """The image, 32 x 32, that `frames/<syntax>.dcm` holds: a curved surface of 12 bits, 8 for the baseline."""
    row, column = np.mgrid[0:32, 0:32]
    surface = np.sin(row / 10) * np.cos(column / 12)
    # The whole range of values: DCMTK's lossy encoders stretch what has less.
    surface = (surface - surface.min()) / (surface.max() - surface.min())
    if syntax == uid.JPEGBaseline8Bit:
        return np.asarray(np.round(surface * 255), dtype=np.uint8)
    return np.asarray(np.round(surface * 4095), dtype=np.uint16)


def decoders_selfcheck(
    decode: Callable[[Path], tuple[Dataset, Decoded]] = decode_file,
) -> list[tuple[str, bool, str]]:
    """Decode one small frame of every accepted transfer syntax by the decoder chosen for it.

    Returns (transfer syntax UID, whether it is right, what was found) in the order of `DECODERS`.
    """
    verdicts = []
    with resources.as_file(resources.files("outpost.inference") / "frames") as frames:
        for syntax, decoders in DECODERS.items():
            try:
                _, decoded = decode(frames / f"{syntax}.dcm")
                wanted = known_image(syntax).astype(np.int64)
                if decoded.pixels.shape != wanted.shape:
                    verdicts.append((syntax, False, f"{decoded.decoder}: shape {decoded.pixels.shape}"))
                    continue
                off = int(np.abs(decoded.pixels.astype(np.int64) - wanted).max())
                ok = off <= _TOLERANCE.get(syntax, 0) and not decoded.tried
                failed = f" after {', '.join(decoded.tried)} failed" if decoded.tried else ""
                verdicts.append((syntax, ok, f"{decoded.decoder}{failed}: off by at most {off}"))
            # A decoder that is missing or broken may raise anything: that is what is being asked.
            except Exception as error:
                verdicts.append((syntax, False, f"{decoders[0]}: {type(error).__name__}: {error}"))
    return verdicts
