"""Which pixels count and what they are worth: real files with one attribute each, against a truth."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpeg_ls import encode_array as jpeg_ls
from mr_series import AXIAL, write_mr_series
from numpy.typing import NDArray
from openjpeg.utils import encode_array as jpeg_2000
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from outpost.codes.notes import NoteCode
from outpost.dicom.grey import GreyFault, is_reversed, layout, modality, stored_values
from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import decode_file, decode_image
from outpost.inference.header import read_header, read_headers
from outpost.inference.series import Volume, read_volume
from outpost.inference.stack import stack_slices

Pixels = NDArray[Any]
Edit = Callable[[Dataset], None]

ROW, COLUMN = np.mgrid[0:48, 0:40]
# A smooth surface, 0 to 1, whose neighbours are close.
SURFACE = np.sin(ROW / 9) * np.cos(COLUMN / 7)
SURFACE = (SURFACE - SURFACE.min()) / (SURFACE.max() - SURFACE.min())
OUTSIDE = (ROW - 24) ** 2 + (COLUMN - 20) ** 2 > 19**2


def written(path: Path, words: Pixels, bits: int, edit: Edit = lambda image: None) -> Path:
    """An image of these words, uncompressed."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    image.StudyInstanceUID = image.SeriesInstanceUID = "1.2.4"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = words.shape[-2:]
    image.BitsAllocated, image.BitsStored, image.HighBit = 8 * words.itemsize, bits, bits - 1
    image.PixelRepresentation = int(words.dtype.kind == "i")
    image.add_new("PixelData", "OW" if words.itemsize > 1 else "OB", words.tobytes())
    edit(image)
    image.save_as(path, enforce_file_format=True)
    return path


def setting(**values: Any) -> Edit:
    def edit(image: Dataset) -> None:
        for keyword, value in values.items():
            setattr(image, keyword, value)

    return edit


def grey(low: int, high: int, kind: str = "u2") -> Pixels:
    return np.asarray(np.round(low + SURFACE * (high - low)), dtype=kind)


def refused(path: Path) -> InputRejected:
    with pytest.raises(InputRejected) as caught:
        decode_file(path)
    return caught.value


# --- padding ---

TISSUE = np.stack([grey(0, 900) + 10 * index for index in range(4)]).astype(np.int16)


def padded_series(
    folder: Path,
    value: Any,
    vr: str = "SS",
    *,
    word: int = -32768,
    limit: Any = None,
    edit: Callable[[Dataset, int], None] = lambda image, index: None,
) -> Volume:
    """A signed volume whose corners hold `word`, with this Pixel Padding Value."""

    def change(image: Dataset, index: int) -> None:
        words = np.where(OUTSIDE, np.int16(word), TISSUE[index]).astype("<i2")
        image.PixelRepresentation, image.PixelData = 1, words.tobytes()
        image.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            image.add_new("PixelPaddingRangeLimit", vr, limit)
        edit(image, index)

    files = write_mr_series(folder, TISSUE.astype(np.uint16), orientation=AXIAL, edit=change)
    return read_volume(stack_slices(read_headers(files)))


def require_truth(volume: Volume) -> None:
    truth = np.where(OUTSIDE, 0, TISSUE).transpose(2, 1, 0)
    assert np.array_equal(volume.values, truth)
    assert volume.padded is not None
    assert np.array_equal(volume.padded[:, :, 2].T, OUTSIDE)
    (note,) = [note for note in volume.notes if note.code == NoteCode.PIXELS_PADDED]
    assert f"{OUTSIDE.mean():.1%}" in note.detail
    assert volume.real.size == (~OUTSIDE).sum() * 4


def implicit(image: Dataset, index: int) -> None:
    image.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian


def rle(image: Dataset, index: int) -> None:
    image.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


def twelve_bits(image: Dataset, index: int) -> None:
    image.BitsStored, image.HighBit = 12, 11


@pytest.mark.parametrize(
    "how",
    [
        {"value": -32768},
        {"value": 32768, "vr": "US"},
        {"value": 63536, "vr": "US", "word": -2000},
        {"value": "-2000", "vr": "DS", "word": -2000},
        {"value": -32768, "edit": implicit},
        {"value": 63536, "vr": "US", "word": -2000, "edit": implicit},
        {"value": -2000, "word": -1500, "limit": -1000},
        {"value": -1000, "word": -1500, "limit": -2000},
        {"value": -32768, "edit": rle},
        {"value": -32768, "edit": twelve_bits},
        {"value": -2000, "word": 0x830, "edit": twelve_bits},
        {"value": b"\x00\x80", "vr": "UN"},
    ],
    ids=str,
)
def test_padding_is_background_however_its_value_is_written(tmp_path: Path, how: dict[str, Any]) -> None:
    require_truth(padded_series(tmp_path, **how))


def test_each_slice_has_its_own_padding_value_and_it_stands_before_the_rescale(tmp_path: Path) -> None:
    def own(image: Dataset, index: int) -> None:
        word = -3000 - index
        words = np.where(OUTSIDE, np.int16(word), TISSUE[index]).astype("<i2")
        image.PixelPaddingValue, image.PixelData = word, words.tobytes()
        image.RescaleSlope, image.RescaleIntercept = 2, 0

    volume = padded_series(tmp_path, -1, edit=own)
    assert np.array_equal(volume.values, np.where(OUTSIDE, 0, 2 * TISSUE).transpose(2, 1, 0))


def test_padding_of_unsigned_values_may_lie_outside_of_the_stored_bits(tmp_path: Path) -> None:
    words = np.where(OUTSIDE, np.uint16(0xF000), grey(0, 4000))
    _, decoded = decode_file(
        written(tmp_path / "x.dcm", words, 12, lambda i: i.add_new("PixelPaddingValue", "US", 0xF000))
    )
    assert decoded.padded is not None
    assert np.array_equal(decoded.padded, OUTSIDE)
    assert np.array_equal(decoded.pixels[~OUTSIDE], words[~OUTSIDE])


def test_padding_of_eight_bits_is_read_from_either_sign(tmp_path: Path) -> None:
    words = np.where(OUTSIDE, np.int8(-128), grey(0, 100, "i1"))
    for value, vr in ((-128, "SS"), (128, "US"), (0xFF80, "US")):
        file = written(tmp_path / "x.dcm", words, 8, lambda i: i.add_new("PixelPaddingValue", vr, value))  # noqa: B023 (used at once)
        padded = decode_file(file)[1].padded
        assert padded is not None
        assert np.array_equal(padded, OUTSIDE)


def test_padding_that_is_not_named_is_known_by_lying_where_no_value_can(tmp_path: Path) -> None:
    def unnamed(image: Dataset, index: int) -> None:
        del image.PixelPaddingValue

    volume = padded_series(tmp_path, 0, edit=unnamed)
    require_truth(volume)
    assert any("taken for padding" in note.detail for note in volume.notes)


def test_values_of_tissue_that_equal_padding_are_tissue(tmp_path: Path) -> None:
    words = np.where(OUTSIDE, np.uint16(700), grey(0, 1400))
    hole = ~OUTSIDE & (words == 700)
    assert hole.any()
    file = written(tmp_path / "x.dcm", words, 16, lambda i: i.add_new("PixelPaddingValue", "US", 700))
    padded = decode_file(file)[1].padded
    assert padded is not None
    assert padded[OUTSIDE].mean() > 0.97, "all but tips of one pixel"
    inside = (ROW - 24) ** 2 + (COLUMN - 20) ** 2 < 16**2  # beside the rim they touch padding
    assert not padded[inside].any()


def test_zero_as_padding_changes_nothing_where_air_is_zero(tmp_path: Path) -> None:
    head = np.where(OUTSIDE, 0, grey(200, 900))
    files = write_mr_series(
        tmp_path,
        np.stack([head, head, head]).astype(np.uint16),
        edit=lambda i, _: setattr(i, "PixelPaddingValue", 0),
    )
    volume = read_volume(stack_slices(read_headers(files)))
    assert np.array_equal(volume.values[:, :, 1].T, head)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda i, _: setattr(i, "PixelPaddingRangeLimit", 2000), "100.0%"),
        (lambda i, _: setattr(i, "PixelPaddingRangeLimit", 895), "9.*is padding"),
        (lambda i, _: i.add_new("PixelPaddingValue", "SS", [1, 2]), "PixelPaddingValue has 2 values"),
        (
            lambda i, _: i.add_new("PixelPaddingValue", "LO", "none"),
            "PixelPaddingValue is not a whole number",
        ),
        (lambda i, _: (i.pop("PixelPaddingValue"), setattr(i, "PixelPaddingRangeLimit", 1)), "without"),
    ],
)
def test_a_padding_that_cannot_be_is_refused_by_name(tmp_path: Path, change: Any, told: str) -> None:
    with pytest.raises(InputRejected, match=told) as caught:
        padded_series(tmp_path, -32768, edit=change)
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED


# --- bits ---


def test_values_that_do_not_fit_their_bits_are_refused_and_numbers_named(tmp_path: Path) -> None:
    """pydicom #2066: they were wrapped at 4096."""
    rejection = refused(written(tmp_path / "x.dcm", grey(0, 20000), 12))
    assert rejection.code == Code.PIXELS_OUT_OF_RANGE
    assert "BitsStored 12" in rejection.message
    assert "20000" in rejection.message


@pytest.mark.parametrize(
    "syntax", [uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless]
)
def test_a_stream_of_more_bits_than_are_stored_is_refused(tmp_path: Path, syntax: str) -> None:
    words = grey(0, 20000)
    path = written(tmp_path / "x.dcm", words, 16)
    assert np.array_equal(decode_file(compressed(path, syntax, words, 16))[1].pixels, words)
    image = dcmread(path)
    image.BitsStored, image.HighBit = 12, 11
    image.save_as(path)
    assert refused(path).code == Code.PIXELS_OUT_OF_RANGE


@pytest.mark.parametrize("syntax", [uid.JPEGExtended12Bit, uid.JPEG2000])
def test_a_lossy_stream_may_overshoot_its_bits_a_little_and_no_more(tmp_path: Path, syntax: str) -> None:
    words = grey(0, 4095)
    path = written(tmp_path / "x.dcm", words, 12)
    if syntax == uid.JPEG2000:
        compressed(path, uid.JPEG2000Lossless, words, 16)  # as loose as a lossy one for what is asked here
    else:
        subprocess.run(["dcmcjpeg", "+ee", "+q", "98", path, path], check=True)
    image = dcmread(path)
    image.file_meta.TransferSyntaxUID = uid.UID(syntax)
    image.save_as(path)
    assert np.abs(decode_file(path)[1].pixels.astype(int) - words).max() <= 12
    image.BitsStored, image.HighBit = 10, 9
    image.save_as(path)
    assert refused(path).code == Code.PIXELS_OUT_OF_RANGE
    slightly = Dataset()
    slightly.BitsAllocated, slightly.BitsStored = 16, 12
    over = np.where(words > 4000, words + 30, words).astype(np.uint16)
    stored = stored_values(over, slightly, layout(slightly), lossy=True)
    assert stored.values.max() == 4095
    with pytest.raises(GreyFault):
        stored_values(over, slightly, layout(slightly))


def compressed(path: Path, syntax: str, words: Pixels, bits: int) -> Path:
    if syntax in (uid.JPEGLosslessSV1, uid.RLELossless):
        tool = ["dcmcrle"] if syntax == uid.RLELossless else ["dcmcjpeg", "+e1"]
        subprocess.run([*tool, path, path], check=True)
        return path
    image = dcmread(path)
    stream = (
        bytes(jpeg_ls(words.view(f"u{words.itemsize}")))
        if syntax == uid.JPEGLSLossless
        else jpeg_2000(words, bits_stored=bits, photometric_interpretation=2)
    )
    image.PixelData = encapsulate([stream])
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    image.file_meta.TransferSyntaxUID = uid.UID(syntax)
    image.save_as(path, enforce_file_format=True)
    return path


def test_they_are_read_whole_where_the_largest_value_says_so_too(tmp_path: Path) -> None:
    words = grey(0, 20000)
    edit = lambda image: image.add_new("LargestImagePixelValue", "US", 20000)  # noqa: E731 (one line)
    _, decoded = decode_file(written(tmp_path / "x.dcm", words, 12, edit))
    assert np.array_equal(decoded.pixels, words)
    assert "read whole" in decoded.remarks[0]
    assert refused(
        written(
            tmp_path / "y.dcm", words, 12, lambda image: image.add_new("LargestImagePixelValue", "US", 4095)
        )
    )


def overlay(position: int, allocated: int = 16) -> Edit:
    def edit(image: Dataset) -> None:
        image.add_new((0x6000, 0x0010), "US", image.Rows)
        image.add_new((0x6000, 0x0011), "US", image.Columns)
        image.add_new((0x6000, 0x0040), "CS", "G")
        image.add_new((0x6000, 0x0100), "US", allocated)
        image.add_new((0x6000, 0x0102), "US", position)

    return edit


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_in_unused_bits_is_not_part_of_the_value(tmp_path: Path, signed: bool) -> None:
    values = grey(-2000, 2000, "i2") if signed else grey(0, 4095)
    drawn = ((ROW + COLUMN) % 7 == 0).astype("u2") << 14
    words = ((values.view("u2") & 0x0FFF) | drawn).view(values.dtype)
    _, decoded = decode_file(written(tmp_path / "x.dcm", words, 12, overlay(14)))
    assert np.array_equal(decoded.pixels, values)
    assert refused(written(tmp_path / "y.dcm", words, 12)).code == Code.PIXELS_OUT_OF_RANGE
    assert refused(written(tmp_path / "z.dcm", words, 12, overlay(13))).code == Code.PIXELS_OUT_OF_RANGE


@pytest.mark.parametrize("bits", [12, 16])
def test_an_overlay_in_the_bits_of_the_value_is_refused(tmp_path: Path, bits: int) -> None:
    rejection = refused(written(tmp_path / "x.dcm", grey(0, 4095), bits, overlay(3)))
    assert rejection.code == Code.PIXELS_OUT_OF_RANGE
    assert "OverlayBitPosition 3" in rejection.message


def test_an_overlay_of_its_own_plane_is_not_in_the_pixels(tmp_path: Path) -> None:
    def plane(image: Dataset) -> None:
        overlay(0, 1)(image)
        image.add_new((0x6000, 0x3000), "OW", b"\xff\xff" * 120)

    values = grey(0, 4095)
    for number, edit in enumerate((plane, overlay(0, 1))):  # the second after its data was taken out
        assert np.array_equal(
            decode_file(written(tmp_path / f"{number}.dcm", values, 12, edit))[1].pixels, values
        )


def test_values_aligned_to_the_top_are_moved_down(tmp_path: Path) -> None:
    values = grey(0, 4095)
    _, decoded = decode_file(written(tmp_path / "x.dcm", values << 4, 12, setting(HighBit=15)))
    assert np.array_equal(decoded.pixels, values)
    assert decoded.layout == (4, 0)
    signed = grey(-500, 511, "i2")
    _, decoded = decode_file(written(tmp_path / "y.dcm", signed << 2, 10, setting(HighBit=11)))
    assert np.array_equal(decoded.pixels, signed)
    # Dark ones, too: a slice of air lies in its volume as the others do.
    dark = grey(0, 90)
    assert np.array_equal(
        decode_file(written(tmp_path / "d.dcm", dark << 4, 12, setting(HighBit=15)))[1].pixels, dark
    )


def test_a_high_bit_that_the_values_contradict_is_not_followed(tmp_path: Path) -> None:
    values = grey(0, 4095)
    assert np.array_equal(
        decode_file(written(tmp_path / "x.dcm", values, 12, setting(HighBit=15)))[1].pixels, values
    )
    both = refused(written(tmp_path / "y.dcm", grey(0, 65535), 12, setting(HighBit=15)))
    assert both.code == Code.PIXELS_OUT_OF_RANGE
    assert "HighBit 15" in both.message


def test_slices_of_one_volume_have_their_values_in_the_same_bits(tmp_path: Path) -> None:
    def some(image: Dataset, index: int) -> None:
        image.BitsStored, image.HighBit = 12, 15 if index == 2 else 11
        if index == 2:
            image.PixelData = (np.frombuffer(image.PixelData, "<u2") << 4).tobytes()

    files = write_mr_series(tmp_path, TISSUE.astype(np.uint16), edit=some)
    with pytest.raises(InputRejected) as caught:
        read_volume(stack_slices(read_headers(files)))
    assert caught.value.code == Code.PIXELS_OUT_OF_RANGE


@pytest.mark.parametrize(
    "lie",
    [
        {"BitsStored": 24},
        {"BitsStored": 0},
        {"BitsAllocated": 12, "BitsStored": 12},
        {"PixelRepresentation": 2},
    ],
    ids=str,
)
def test_widths_that_no_word_has_are_refused_by_name(tmp_path: Path, lie: dict[str, int]) -> None:
    rejection = refused(written(tmp_path / "x.dcm", grey(0, 4000), 12, setting(**lie)))
    assert rejection.code == Code.PIXELS_OUT_OF_RANGE
    assert next(reversed(lie)) in rejection.message or "BitsAllocated" in rejection.message


def test_signed_values_may_have_their_sign_extended_or_not(tmp_path: Path) -> None:
    values = grey(-2000, 2000, "i2")
    assert np.array_equal(decode_file(written(tmp_path / "x.dcm", values, 12))[1].pixels, values)
    assert np.array_equal(decode_file(written(tmp_path / "y.dcm", values & 0x0FFF, 12))[1].pixels, values)
    mixed = np.where(COLUMN < 20, values, values & 0x0FFF)
    assert refused(written(tmp_path / "z.dcm", mixed, 12)).code == Code.PIXELS_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("words", "bits", "representation"),
    [
        (grey(0, 4095), 12, 1),
        (grey(0, 65535), 16, 1),
        (grey(-1000, 1500, "i2"), 16, 0),
        (grey(-1000, 1500, "i2") & 0x0FFF, 12, 0),
        (grey(-1000, 1500, "i2"), 12, 0),
    ],
)
def test_values_of_the_other_sign_are_refused_by_name(
    tmp_path: Path, words: Pixels, bits: int, representation: int
) -> None:
    rejection = refused(written(tmp_path / "x.dcm", words, bits, setting(PixelRepresentation=representation)))
    assert rejection.code == Code.PIXELS_OUT_OF_RANGE
    assert "PixelRepresentation" in rejection.message


def test_a_signed_stream_of_unsigned_values_is_refused(tmp_path: Path) -> None:
    values = grey(-1000, 1500, "i2")
    path = compressed(written(tmp_path / "x.dcm", values, 16), uid.JPEG2000Lossless, values, 16)
    assert np.array_equal(decode_file(path)[1].pixels, values)
    image = dcmread(path)
    image.PixelRepresentation = 0
    image.save_as(path)
    assert refused(path).code == Code.PIXELS_OUT_OF_RANGE


@pytest.mark.parametrize(("bits", "low", "high"), [(12, 0, 4095), (16, 0, 65535), (10, 0, 1023)])
def test_white_drawn_on_black_is_not_a_sign(tmp_path: Path, bits: int, low: int, high: int) -> None:
    """A shutter, a marker and noise at both ends: no value of these runs over an end."""
    noise = np.random.default_rng(1).integers(0, 6, SURFACE.shape)
    words = np.where((ROW // 5 + COLUMN // 5) % 2 == 0, low + noise, high - noise).astype("u2")
    words[:, 20:] = grey(low, high)[:, 20:]
    assert np.array_equal(decode_file(written(tmp_path / "x.dcm", words, bits))[1].pixels, words)


def test_words_of_32_bits_and_of_big_endian_are_looked_at_too(tmp_path: Path) -> None:
    values = grey(0, 3_000_000, "u4")
    assert np.array_equal(decode_file(written(tmp_path / "x.dcm", values, 24))[1].pixels, values)
    assert refused(written(tmp_path / "y.dcm", values, 20)).code == Code.PIXELS_OUT_OF_RANGE

    def big(image: Dataset) -> None:
        image.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
        image.PixelData = grey(0, 20000).astype(">u2").tobytes()

    assert refused(written(tmp_path / "z.dcm", grey(0, 1), 12, big)).code == Code.PIXELS_OUT_OF_RANGE


# --- grey values ---


def lut(data: Any, descriptor: Any, vr: str = "OW") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if all(value >= 0 for value in descriptor) else "SS", descriptor)
    item.add_new("ModalityLUTType", "LO", "US")
    item.add_new("LUTData", vr, data)
    return item


def mapped(tmp_path: Path, item: Dataset, words: Pixels, bits: int = 12, **values: Any) -> Volume:
    def edit(image: Dataset, index: int) -> None:
        image.PixelRepresentation, image.PixelData = int(words.dtype.kind == "i"), words.tobytes()
        image.BitsStored, image.HighBit = bits, bits - 1
        image.ModalityLUTSequence = Sequence([item])
        setting(**values)(image)

    files = write_mr_series(tmp_path, np.stack([words.view("u2")] * 2), edit=edit)
    return read_volume(stack_slices(read_headers(files)))


SQUARES = (np.arange(4096, dtype=np.int64) ** 2 >> 8).astype("<u2")


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_modality_lut_is_applied(tmp_path: Path, vr: str) -> None:
    data = SQUARES.tobytes() if vr == "OW" else SQUARES.tolist()
    words = grey(0, 4095)
    volume = mapped(tmp_path, lut(data, [4096, 0, 16], vr), words)
    assert np.array_equal(volume.values[:, :, 0].T, SQUARES[words])
    assert [note.code for note in volume.notes] == [NoteCode.GREY_VALUES_MAPPED]


def test_a_modality_lut_begins_at_a_signed_value_and_ends_hold_beyond_it(tmp_path: Path) -> None:
    words = grey(-1500, 1500, "i2")
    table = np.arange(2001, dtype="<u2")
    volume = mapped(tmp_path, lut(table.tobytes(), [2001, -1000, 16]), words, 16)
    assert np.array_equal(volume.values[:, :, 0].T, np.clip(words.astype(int) + 1000, 0, 2000))
    item = lut(table.tobytes(), [2001, 0x10000 - 1000, 16])  # the same, sent as US
    assert np.array_equal(mapped(tmp_path / "2", item, words, 16).values, volume.values)


def test_a_modality_lut_of_65536_entries_says_0_and_one_of_8_bits_may_be_packed(tmp_path: Path) -> None:
    words = grey(0, 65535)
    table = (65535 - np.arange(65536)).astype("<u2")
    volume = mapped(tmp_path, lut(table.tobytes(), [0, 0, 16]), words, 16)
    assert np.array_equal(volume.values[:, :, 0].T, table[words])
    small = grey(0, 255)
    bytes_ = np.arange(255, -1, -1, dtype=np.uint8)
    for name, data in (("packed", bytes_.tobytes()), ("wide", bytes_.astype("<u2").tobytes())):
        volume = mapped(tmp_path / name, lut(data, [256, 0, 8]), small, 8)
        assert np.array_equal(volume.values[:, :, 0].T, 255 - small)


@pytest.mark.parametrize(
    ("item", "values", "told"),
    [
        (lut(SQUARES.tobytes(), [4000, 0, 16]), {}, "4096 entries, its LUTDescriptor says 4000"),
        (lut(SQUARES.tobytes(), [4096, 0, 12]), {}, "65504, its LUTDescriptor says 12 bits"),
        (lut(SQUARES.tobytes(), [4096, 0, 20]), {}, "20 bits an entry"),
        (lut(b"", [4096, 0, 16]), {}, "no LUTDescriptor or LUTData"),
        (Dataset(), {}, "no LUTDescriptor or LUTData"),
        (
            lut(SQUARES.tobytes(), [4096, 0, 16]),
            {"RescaleSlope": 2, "RescaleIntercept": 0},
            "one may be present",
        ),
    ],
)
def test_a_modality_lut_that_is_broken_or_contradicted_is_refused(
    tmp_path: Path, item: Dataset, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputRejected, match=told) as caught:
        mapped(tmp_path, item, grey(0, 4095), **values)
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED


@pytest.mark.parametrize(("slope", "vr"), [(0, "DS"), ("abc", "LO"), ([1, 2], "DS"), ("nan", "LO")])
def test_a_rescale_that_is_no_number_is_refused_by_name(tmp_path: Path, slope: Any, vr: str) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.add_new("RescaleSlope", vr, slope)

    files = write_mr_series(tmp_path, TISSUE.astype(np.uint16), edit=edit)
    with pytest.raises(InputRejected, match="RescaleSlope") as caught:
        read_volume(stack_slices(read_headers(files)))
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED


@pytest.mark.parametrize("lost", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_that_some_slices_lack_is_refused_and_one_that_changes_nothing_is_not(
    tmp_path: Path, lost: str
) -> None:
    def edit(image: Dataset, index: int, slope: float = 2.5, intercept: float = -1024) -> None:
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
        if index == 2:
            delattr(image, lost)

    volume = TISSUE.astype(np.uint16)
    with pytest.raises(InputRejected, match="come by their grey values differently") as caught:
        read_volume(stack_slices(read_headers(write_mr_series(tmp_path / "1", volume, edit=edit))))
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED
    files = write_mr_series(tmp_path / "2", volume, edit=lambda i, n: edit(i, n, 1, 0))
    assert np.array_equal(read_volume(stack_slices(read_headers(files))).values, volume.transpose(2, 1, 0))


def test_a_rescale_may_be_missing_empty_or_fall(tmp_path: Path) -> None:
    image = Dataset()
    assert modality(image).apply(np.array([3])) == [3]
    image.RescaleSlope = image.RescaleIntercept = ""
    assert modality(image).apply(np.array([3])) == [3]
    image.RescaleSlope, image.RescaleIntercept = "-2", "1"
    assert modality(image).apply(np.array([3])) == [-5]
    assert modality(image).falls


# --- how it is shown ---


@pytest.mark.parametrize(
    ("photometric", "shape", "reverse"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),  # said twice, done once
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_less_is_darker_or_brighter_by_one_reversal(
    photometric: str, shape: str | None, reverse: bool
) -> None:
    image = Dataset()
    image.PhotometricInterpretation = photometric
    if shape:
        image.PresentationLUTShape = shape
    assert is_reversed(image) is reverse
    falling = np.arange(4095, -1, -1, dtype="<u2")
    image.VOILUTSequence = Sequence([lut(falling.tobytes(), [4096, 0, 16])])
    assert is_reversed(image) is not reverse
    image.VOILUTSequence = Sequence([lut(falling[::-1].tobytes(), [4096, 0, 16])])
    assert is_reversed(image) is reverse


@pytest.mark.parametrize("shape", ["INVERSE", "SIGMOID"])
def test_a_shape_that_contradicts_or_is_unknown_is_refused(tmp_path: Path, shape: str) -> None:
    image = Dataset()
    image.PhotometricInterpretation, image.PresentationLUTShape = "MONOCHROME2", shape
    with pytest.raises(GreyFault, match="PresentationLUTShape"):
        is_reversed(image)
    files = write_mr_series(
        tmp_path, TISSUE.astype(np.uint16), edit=lambda i, _: setattr(i, "PresentationLUTShape", shape)
    )
    with pytest.raises(InputRejected) as caught:
        read_volume(stack_slices(read_headers(files)))
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED


# --- size ---


def test_bytes_beyond_the_last_pixel_are_padding_or_refused(tmp_path: Path) -> None:
    values = grey(0, 4095)
    for tail in (b"\0\0", b"\0" * 1000, b"\1\2\3\4"):
        file = written(
            tmp_path / "x.dcm",
            values,
            12,
            lambda i: setattr(i, "PixelData", values.tobytes() + tail),  # noqa: B023 (used at once)
        )
        assert np.array_equal(decode_file(file)[1].pixels, values)
        assert np.array_equal(decode_image(read_header(file)).pixels, values)
    for change in ({"Rows": 47}, {"Columns": 39}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}):
        rejection = refused(written(tmp_path / "x.dcm", values, 12, setting(**change)))
        assert rejection.code == Code.PIXELS_UNREADABLE
        assert "is not padding" in rejection.message
    short = refused(written(tmp_path / "x.dcm", values, 12, setting(Rows=49)))
    assert short.code == Code.PIXELS_UNREADABLE


def test_a_second_frame_that_the_header_does_not_know_is_refused(tmp_path: Path) -> None:
    frames = np.stack([grey(0, 4095), grey(4095, 0)])
    file = written(tmp_path / "x.dcm", frames, 12, setting(NumberOfFrames=2))
    assert decode_file(file)[1].pixels.shape == frames.shape
    assert refused(written(file, frames, 12)).code == Code.PIXELS_UNREADABLE


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_stream_of_other_rows_and_columns_is_refused(tmp_path: Path, syntax: str) -> None:
    values = grey(0, 4095)
    path = compressed(written(tmp_path / "x.dcm", values, 12), syntax, values, 12)
    assert np.array_equal(decode_file(path)[1].pixels, values)
    image = dcmread(path)
    image.Rows, image.Columns = image.Columns, image.Rows  # as many pixels, torn
    image.save_as(path)
    rejection = refused(path)
    assert rejection.code == Code.PIXELS_UNREADABLE
    assert "48 rows and 40 columns" in rejection.message


def test_fragments_and_offset_tables_do_not_change_one_frame(tmp_path: Path) -> None:
    values = grey(0, 4095)
    path = compressed(written(tmp_path / "x.dcm", values, 12), uid.JPEG2000Lossless, values, 12)
    stream = jpeg_2000(values, bits_stored=12, photometric_interpretation=2)
    image = dcmread(path)
    for table in (True, False):
        image.PixelData = encapsulate([stream], fragments_per_frame=3, has_bot=table)
        image.save_as(path)
        assert np.array_equal(decode_file(path)[1].pixels, values)
    image.PixelData = encapsulate([stream], has_bot=False)
    for offset in (0, 77):  # of one frame, a table says nothing that matters
        image.ExtendedOffsetTable = np.array([offset], "<u8").tobytes()
        image.ExtendedOffsetTableLengths = np.array([len(stream)], "<u8").tobytes()
        image.save_as(path)
        assert np.array_equal(decode_file(path)[1].pixels, values)
