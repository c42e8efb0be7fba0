"""Decoding: every transfer syntax against known pixels, and what happens when a decoder fails or lies."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpeg_ls import encode_array as jpeg_ls
from openjpeg.utils import encode_array as jpeg_2000
from pydicom import Dataset, FileMetaDataset, dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from outpost.inference import decode
from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import DECODERS, decode_file, decode_image, decoders_selfcheck
from outpost.inference.header import read_header

ROW, COLUMN = np.mgrid[0:64, 0:48]
SURFACE = np.sin(ROW / 9) * np.cos(COLUMN / 7)
NATIVE = [s for s, names in DECODERS.items() if names == (decode.NATIVE,)]
LOSSLESS = [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless]


def grey(bits: int, signed: bool) -> np.ndarray[Any, Any]:
    """All values of so many bits occur at both ends."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    spread = (SURFACE - SURFACE.min()) / (SURFACE.max() - SURFACE.min())
    width = 8 if bits <= 8 else 16
    return np.asarray(np.round(low + spread * (high - low)), dtype=f"{'int' if signed else 'uint'}{width}")


def written(path: Path, syntax: str, pixels: np.ndarray[Any, Any], bits: int) -> Path:
    """A file of one syntax, encoded by a library that is not always the one that will decode it."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.StudyInstanceUID = made.SeriesInstanceUID = "1.2.4"
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        made.PlanarConfiguration = 0
    shape = pixels.shape[:-1] if colour else pixels.shape
    if len(shape) == 3:
        made.NumberOfFrames = shape[0]
    made.Rows, made.Columns = shape[-2:]
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * pixels.itemsize, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.add_new("PixelData", "OW" if pixels.itemsize == 2 else "OB", pixels.tobytes())
    frames = pixels if len(shape) == 3 else pixels[np.newaxis]
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        made.save_as(path, enforce_file_format=True)
        option = {uid.JPEGLossless: "+el", uid.JPEGLosslessSV1: "+e1", uid.JPEGBaseline8Bit: "+eb"}
        quality = ["+q", "98"] if syntax not in LOSSLESS else []
        command = ["/usr/bin/dcmcjpeg", option.get(syntax, "+ee"), *quality, path, path]
        subprocess.run(command, check=True)
        return path
    if syntax == uid.RLELossless:
        made.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif syntax in NATIVE:
        made.file_meta.TransferSyntaxUID = uid.UID(syntax)
        if syntax == uid.ExplicitVRBigEndian:
            made.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    else:
        made.file_meta.TransferSyntaxUID = uid.UID(syntax)
        streams = []
        for frame in frames:
            if syntax == uid.JPEGLSLossless:
                streams.append(bytes(jpeg_ls(frame.view(f"u{frame.itemsize}"))))
            elif syntax == uid.JPEGLSNearLossless:
                streams.append(bytes(jpeg_ls(frame, lossy_error=2)))
            else:
                lossy = {"compression_ratios": [4]} if syntax == uid.JPEG2000 else {}
                space = 1 if colour else 2
                streams.append(jpeg_2000(frame, bits_stored=bits, photometric_interpretation=space, **lossy))
        if colour and syntax == uid.JPEG2000Lossless:
            made.PhotometricInterpretation = "YBR_RCT"
        made.PixelData = encapsulate(streams)
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (16, True)])
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda s: uid.UID(s).name[:40])
def test_lossless_pixels_come_back_as_they_were(tmp_path: Path, syntax: str, bits: int, signed: bool) -> None:
    pixels = grey(bits, signed)
    _, decoded = decode_file(written(tmp_path / "x.dcm", syntax, pixels, bits))
    assert decoded.pixels.dtype == pixels.dtype, "in the byte order of this machine too"
    assert np.array_equal(decoded.pixels, pixels)
    assert decoded.decoder == DECODERS[syntax][0]


@pytest.mark.parametrize(
    ("syntax", "bits", "tolerance"),
    [
        (uid.JPEGBaseline8Bit, 8, 3),
        (uid.JPEGExtended12Bit, 12, 12),
        (uid.JPEGExtended12Bit, 8, 3),
        (uid.JPEGLSNearLossless, 12, 2),
        (uid.JPEG2000, 12, 60),
    ],
)
def test_lossy_pixels_come_back_nearly_as_they_were(
    tmp_path: Path, syntax: str, bits: int, tolerance: int
) -> None:
    pixels = grey(bits, signed=False)
    _, decoded = decode_file(written(tmp_path / "x.dcm", syntax, pixels, bits))
    assert np.abs(decoded.pixels.astype(int) - pixels).max() <= tolerance
    assert decoded.pixels.dtype == pixels.dtype


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, *LOSSLESS], ids=lambda s: uid.UID(s).name)
def test_frames_and_colours_come_back_in_order(tmp_path: Path, syntax: str) -> None:
    frames = np.stack([grey(12, signed=False), grey(12, signed=False)[::-1], grey(12, signed=False) // 2])
    _, decoded = decode_file(written(tmp_path / "frames.dcm", syntax, frames, 12))
    assert np.array_equal(decoded.pixels, frames)
    if syntax != uid.JPEGLSLossless:  # its encoder here takes colours only by plane
        colours = np.stack([grey(8, False), grey(8, False)[::-1], grey(8, False) // 3], axis=-1)
        _, decoded = decode_file(written(tmp_path / "colours.dcm", syntax, colours, 8))
        assert np.array_equal(decoded.pixels, colours)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm"])
def test_colours_are_red_green_and_blue_whatever_the_stream_has(name: str) -> None:
    _, decoded = decode_file(Path(str(get_testdata_file(name, download=False))))
    native = dcmread(str(get_testdata_file("SC_rgb.dcm", download=False))).pixel_array
    assert decoded.pixels.shape == native.shape
    assert np.abs(decoded.pixels.astype(int) - native).max() <= 6


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_are_not_stored_are_not_part_of_the_value(tmp_path: Path, signed: bool) -> None:
    pixels = grey(12, signed)
    dirty = (pixels.view("u2") & 0x0FFF) | np.uint16(0xA000)  # an overlay in the high bits, as of old
    path = written(tmp_path / "x.dcm", uid.ExplicitVRLittleEndian, dirty.view(pixels.dtype), 12)
    assert np.array_equal(decode_file(path)[1].pixels, pixels)


def test_an_odd_number_of_bytes_is_padded_and_the_padding_is_no_pixel(tmp_path: Path) -> None:
    pixels = grey(8, signed=False)[:33, :47]
    made = written(tmp_path / "x.dcm", uid.ExplicitVRLittleEndian, pixels, 8)
    assert np.array_equal(decode_file(made)[1].pixels, pixels)


# --- when a decoder fails, or lies ---


@pytest.mark.parametrize("syntax", DECODERS)
def test_pixels_read_from_where_the_header_ends_are_those_of_the_whole_file(syntax: str) -> None:
    file = Path(decode.__file__).parent / "frames" / f"{syntax}.dcm"
    image = read_header(file)
    assert np.array_equal(decode_image(image).pixels, decode_file(file)[1].pixels)
    assert "PixelData" not in image.dataset


@pytest.mark.parametrize("shape", [(454, 454), (2003, 1723), (205, 205), (100, 102)])
@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_no_length_of_pixels_is_taken_for_their_vr(
    tmp_path: Path, syntax: str, shape: tuple[int, int]
) -> None:
    """454 x 454 of 16 bits are 0x064A48 bytes, whose last two read `HJ`: like a VR."""
    pixels = (np.arange(shape[0] * shape[1]) % 4096).astype(np.uint16).reshape(shape)
    file = written(tmp_path / "x.dcm", uid.ExplicitVRLittleEndian, pixels, 12)
    read, made = dcmread(file), Dataset()
    for element in read:  # a data set that was read keeps to the byte order it was read in
        made.add(element)
    made.file_meta = read.file_meta
    if syntax == uid.ExplicitVRBigEndian:
        made.PixelData = pixels.astype(">u2").tobytes()
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(file, enforce_file_format=True)
    assert np.array_equal(decode_image(read_header(file)).pixels, pixels)


def replaced(monkeypatch: pytest.MonkeyPatch, **decoders: Any) -> None:
    real = decode._decoded

    def decoded(dataset: Dataset, decoder: str) -> Any:
        made = decoders.get(decoder)
        if made is None:
            return real(dataset, decoder)
        if isinstance(made, Exception):
            raise made
        return np.zeros_like(real(dataset, decoder))

    monkeypatch.setattr(decode, "_decoded", decoded)


WITH_TWO = [s for s, names in DECODERS.items() if len(names) > 1 and s in LOSSLESS]


@pytest.mark.parametrize("syntax", WITH_TWO, ids=lambda s: uid.UID(s).name)
@pytest.mark.parametrize("fault", [RuntimeError("broken"), "zeros"], ids=["raises", "zeros"])
def test_what_the_first_decoder_cannot_do_the_second_does_and_it_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, fault: Any
) -> None:
    pixels = grey(12, signed=False)
    path = written(tmp_path / "x.dcm", syntax, pixels, 12)
    first, second = DECODERS[syntax][:2]
    replaced(monkeypatch, **{first: fault})
    _, decoded = decode_file(path)
    assert np.array_equal(decoded.pixels, pixels)
    assert (decoded.decoder, decoded.tried) == (second, (first,))


def test_zeros_from_every_decoder_are_believed_of_an_empty_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (256, 256), dtype=np.uint16)
    for syntax in WITH_TWO:
        path = written(tmp_path / "x.dcm", syntax, noise, 12)
        with monkeypatch.context() as patched:
            replaced(patched, **dict.fromkeys(DECODERS[syntax], "zeros"))
            with pytest.raises(InputRejected) as caught:
                decode_file(path)
        assert caught.value.code is Code.PIXELS_ALL_ZERO
        path = written(tmp_path / "empty.dcm", syntax, np.zeros_like(noise), 12)
        assert not decode_file(path)[1].pixels.any()


def test_one_frame_of_zeros_among_others_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (2, 256, 256), dtype=np.uint16)
    path = written(tmp_path / "x.dcm", uid.JPEG2000Lossless, noise, 12)
    real = decode._decoded

    def first_frame_lost(dataset: Dataset, decoder: str) -> Any:
        pixels = real(dataset, decoder).copy()
        if decoder == "pylibjpeg":
            pixels[0] = 0
        return pixels

    monkeypatch.setattr(decode, "_decoded", first_frame_lost)
    assert decode_file(path)[1].decoder == "gdcm"


@pytest.mark.parametrize(
    "syntax", [*LOSSLESS, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit], ids=lambda s: uid.UID(s).name
)
def test_a_torn_stream_is_refused_with_a_code_or_decoded(tmp_path: Path, syntax: str) -> None:
    path = written(tmp_path / "x.dcm", syntax, grey(12, signed=False), 12)
    torn = dcmread(path)
    torn.PixelData = encapsulate([b"\xff\xd8 not a stream at all"])
    torn.save_as(path)
    with pytest.raises(InputRejected) as caught:
        decode_file(path)
    assert caught.value.code is Code.PIXELS_UNREADABLE


@pytest.mark.parametrize(
    "change",
    [{"Rows": 0}, {"Rows": 65535, "Columns": 65535}, {"BitsAllocated": None}, {"NumberOfFrames": 10**6}],
    ids=str,
)
def test_a_header_that_lies_about_its_pixels_is_refused_before_memory_is_taken(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = written(tmp_path / "x.dcm", uid.RLELossless, grey(12, signed=False), 12)
    lying = dcmread(path)
    for name, value in change.items():
        setattr(lying, name, value)
    lying.save_as(path)
    with pytest.raises(InputRejected) as caught:
        decode_file(path)
    assert caught.value.code is Code.PIXELS_UNREADABLE


def test_a_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.dcm", uid.ExplicitVRLittleEndian, grey(8, False), 8)
    video = dcmread(path)
    video.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    video.PixelData = encapsulate([b"12"])
    video["PixelData"].is_undefined_length = True
    video.save_as(path)
    with pytest.raises(InputRejected, match=uid.MPEG2MPML):
        decode_file(path)


# --- the selfcheck ---


def test_the_selfcheck_passes_for_every_syntax_in_a_moment() -> None:
    decoders_selfcheck()
    begun = time.monotonic()
    verdicts = decoders_selfcheck()
    assert time.monotonic() - begun < 0.3
    assert [syntax for syntax, _, _ in verdicts] == list(DECODERS)
    assert [v for v in verdicts if not v[1]] == []


def test_the_selfcheck_names_a_decoder_that_is_broken_or_gives_other_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, pyjpegls=RuntimeError("no library"))
    real = decode._decoded

    def off_by_one(dataset: Dataset, decoder: str) -> Any:
        return real(dataset, decoder) ^ (decoder == "pydicom")

    monkeypatch.setattr(decode, "_decoded", off_by_one)
    bad = {syntax: message for syntax, ok, message in decoders_selfcheck() if not ok}
    assert set(bad) == {uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.RLELossless}
    assert "after pyjpegls failed" in bad[uid.JPEGLSLossless]
    assert "off by at most 1" in bad[uid.RLELossless]


def test_the_frames_are_what_their_script_makes(tmp_path: Path) -> None:
    frames = Path(decode.__file__).parent / "frames"
    assert {file.stem for file in frames.glob("*.dcm")} == set(DECODERS)
    assert shutil.which(str(frames / "make")) is not None
