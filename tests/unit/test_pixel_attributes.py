"""Which pixels count, from files to the answer of the shipped models, the pixel verdict and what a person is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from mr_series import write_mr_series
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from test_inference_radiograph import chest, radiograph

from outpost.codes.notes import NoteCode
from outpost.demo import TEMPLATES
from outpost.drift.observe import of_pixels
from outpost.filter.pixel_codes import PixelCode
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.pixels import judge_file, judge_frame, judge_volume
from outpost.filter.thumbnail import render
from outpost.inference import load_bundle
from outpost.inference.bundle import full_rung
from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import decode_file
from outpost.inference.golden import dice
from outpost.inference.header import read_header
from outpost.inference.predictor import Predictor
from outpost.inference.radiograph import RadiographCase, read_picture
from outpost.inference.volume import VolumeCase

BUNDLES = Path(__file__).parents[2] / "service/bundles"
Pixels = NDArray[Any]


@cache
def template(name: str) -> NDArray[np.uint16]:
    """A head volume of (slice, row, column) at 2 mm, as radiologists view it."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(TEMPLATES / name))
    return np.asanyarray(image.dataobj)[::-2, ::-2, ::2].transpose(2, 1, 0).astype(np.uint16)


@pytest.fixture(scope="module")
def brain() -> Predictor:
    bundle = load_bundle(BUNDLES / "brain_extraction")
    return Predictor(bundle, full_rung(bundle))


@pytest.fixture(scope="module")
def orientation() -> Predictor:
    bundle = load_bundle(BUNDLES / "radiograph_orientation")
    return Predictor(bundle, full_rung(bundle))


# --- volumes ---


def circle() -> NDArray[np.bool_]:
    rows, columns = template("ch2.nii.gz").shape[1:]
    row, column = np.mgrid[:rows, :columns]
    return (row - rows / 2) ** 2 + (column - columns / 2) ** 2 > (min(rows, columns) / 2) ** 2


def padded_head(image: Dataset, index: int) -> None:
    words = np.where(circle(), np.int16(-32768), template("ch2.nii.gz")[index].astype(np.int16))
    image.PixelRepresentation, image.PixelData = 1, words.astype("<i2").tobytes()
    image.add_new("PixelPaddingValue", "SS", -32768)


# TorchScript is deprecated in torch 2.13 and what deepbet's networks come in; see docs/decisions/0002.
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_a_head_in_a_circle_of_padding_has_its_brain(brain: Predictor, tmp_path: Path) -> None:
    """vtk-dicom #128: Dice was 0.683."""
    case = brain.read(write_mr_series(tmp_path, template("ch2.nii.gz"), edit=padded_head))
    assert isinstance(case, VolumeCase)
    mask = case.view.invert(brain.inferer("full")(case.volume)).transpose(2, 1, 0)
    assert dice(mask, template("ch2bet.nii.gz") > 0) >= 0.93
    assert f"{circle().mean():.1%}" in next(n.detail for n in case.notes if n.code == NoteCode.PIXELS_PADDED)
    assert case.padded is not None
    assert brain.observed["pixels"] == [of_pixels(case.volume[~case.padded])]


def test_a_head_whose_values_do_not_fit_its_bits_is_refused(brain: Predictor, tmp_path: Path) -> None:
    """pydicom #2066: it was wrapped, Dice 0.828."""
    head = (template("ch2.nii.gz") * (20000 / template("ch2.nii.gz").max())).astype(np.uint16)

    def too_few(image: Dataset, index: int) -> None:
        image.BitsStored, image.HighBit = 12, 11

    with pytest.raises(InputRejected, match="BitsStored 12") as caught:
        brain.read(write_mr_series(tmp_path, head, edit=too_few))
    assert caught.value.code == Code.PIXELS_OUT_OF_RANGE


def test_white_padding_of_slices_is_no_bright_air(brain: Predictor, tmp_path: Path) -> None:
    def white(image: Dataset, index: int) -> None:
        words = np.where(circle(), np.uint16(255), template("ch2.nii.gz")[index])
        image.PixelData = words.astype("<u2").tobytes()

    def named(image: Dataset, index: int) -> None:
        white(image, index)
        image.PixelPaddingValue = 255

    head = template("ch2.nii.gz")
    with pytest.raises(InputRejected) as caught:
        brain.read(write_mr_series(tmp_path / "unnamed", head, edit=white))
    assert caught.value.code == PixelCode.PIXELS_PHOTOMETRIC
    case = brain.read(write_mr_series(tmp_path / "named", head, edit=named))
    assert isinstance(case, VolumeCase)
    assert case.volume.max() <= 254


# --- radiographs ---


def stored_chest() -> NDArray[np.uint16]:
    return np.asarray(pydicom.dcmread(chest()).pixel_array[::2, ::2], dtype=np.uint16)


def framed(pixels: Pixels, value: int, wide: int) -> Pixels:
    return np.pad(pixels, wide, constant_values=value)


def padding(value: int, limit: int | None = None) -> Callable[[Dataset], None]:
    def edit(image: Dataset) -> None:
        image.add_new("PixelPaddingValue", "US", value)
        if limit is not None:
            image.add_new("PixelPaddingRangeLimit", "US", limit)

    return edit


def answers(predictor: Predictor, file: Path) -> Pixels:
    case = predictor.read([file])
    assert isinstance(case, RadiographCase)
    found: Pixels = predictor.inferer("full")(case.pixels).numpy()
    return found


@pytest.mark.parametrize(
    ("photometric", "value"), [("MONOCHROME1", 0), ("MONOCHROME1", 65535), ("MONOCHROME2", 65535)]
)
def test_a_canvas_of_padding_changes_no_answer(
    orientation: Predictor, tmp_path: Path, photometric: str, value: int
) -> None:
    pixels = stored_chest() if photometric == "MONOCHROME1" else 32767 - stored_chest()
    plain = answers(orientation, radiograph(tmp_path, pixels, "1", photometric))
    canvas = framed(pixels, value, 300)
    named = answers(orientation, radiograph(tmp_path, canvas, "2", photometric, padding(value)))
    assert np.abs(named - plain).max() < 1e-4
    with_limit = radiograph(tmp_path, canvas, "3", photometric, padding(value, abs(value - 9)))
    assert np.abs(answers(orientation, with_limit) - plain).max() < 0.5


def test_a_round_collimator_of_padding_is_dark_whatever_its_value(
    orientation: Predictor, tmp_path: Path
) -> None:
    pixels = stored_chest()
    rows, columns = pixels.shape
    row, column = np.mgrid[:rows, :columns]
    outside = (row / rows - 0.5) ** 2 + (column / columns - 0.5) ** 2 > 0.3
    found = []
    for name, value in enumerate((0, 40000, 65535)):
        words = np.where(outside, np.uint16(value), pixels)
        file = radiograph(tmp_path, words, str(name), "MONOCHROME1", padding(value))
        picture = read_picture(read_header(file))
        assert picture.padded is not None
        assert picture.pixels.numpy()[picture.padded].max() <= np.percentile(picture.pixels, 5)
        found.append(picture.pixels.numpy())
        assert [note.code for note in picture.notes] == [NoteCode.PIXELS_PADDED]
        case = orientation.read([file])
        assert isinstance(case, RadiographCase)
        assert orientation.observed["pixels"] == [of_pixels(found[-1][~picture.padded])]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_radiograph_that_is_nearly_all_padding_is_refused(orientation: Predictor, tmp_path: Path) -> None:
    file = radiograph(tmp_path, framed(stored_chest()[:200, :200], 9, 900), edit=padding(9))
    with pytest.raises(InputRejected, match="is padding") as caught:
        orientation.read([file])
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED


def test_values_of_a_radiograph_are_mapped_and_reversed_once(orientation: Predictor, tmp_path: Path) -> None:
    pixels = stored_chest()
    plain = read_picture(read_header(radiograph(tmp_path, pixels, "1", "MONOCHROME1"))).pixels

    def shape(value: str) -> Callable[[Dataset], None]:
        return lambda image: setattr(image, "PresentationLUTShape", value)

    def table(image: Dataset) -> None:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [32768, 0, 16])
        item.add_new("ModalityLUTType", "LO", "US")
        item.add_new("LUTData", "OW", (32767 - np.arange(32768)).astype("<u2").tobytes())
        image.ModalityLUTSequence = pydicom.Sequence([item])

    twice = read_picture(read_header(radiograph(tmp_path, pixels, "2", "MONOCHROME1", shape("INVERSE"))))
    assert np.array_equal(twice.pixels, plain)
    assert twice.notes == ()
    unlike = read_picture(read_header(radiograph(tmp_path, pixels, "3", "MONOCHROME1", shape("IDENTITY"))))
    assert np.array_equal(unlike.pixels, plain)
    assert [note.code for note in unlike.notes] == [NoteCode.GREY_VALUES_MAPPED]
    mapped = read_picture(read_header(radiograph(tmp_path, pixels, "4", "MONOCHROME2", table)))
    assert np.allclose(mapped.pixels, plain + 32767)
    with pytest.raises(InputRejected) as caught:
        orientation.read([radiograph(tmp_path, pixels, "5", "MONOCHROME2", shape("INVERSE"))])
    assert caught.value.code == Code.GREY_VALUES_UNDEFINED


def test_pixels_that_are_not_square_give_the_answer_of_square_ones(
    orientation: Predictor, tmp_path: Path
) -> None:
    pixels = stored_chest()[:900, :900]
    tall = np.repeat(pixels, 2, axis=0)
    edit = lambda image: setattr(image, "PixelAspectRatio", [1, 2])  # noqa: E731 (one line)
    plain = answers(orientation, radiograph(tmp_path, pixels, "1", "MONOCHROME1"))
    assert (
        np.abs(answers(orientation, radiograph(tmp_path, tall, "2", "MONOCHROME1", edit)) - plain).max()
        < 0.05
    )


# --- the verdict, and what a person sees ---


@pytest.mark.parametrize(("photometric", "value"), [("MONOCHROME2", 4000), ("MONOCHROME1", 0)])
def test_padding_is_not_photometry(tmp_path: Path, photometric: str, value: int) -> None:
    """The air around a slice is dark; a bright border of padding, with a marker in it, is no air."""
    head = template("ch2.nii.gz")[45]
    canvas = framed(head if photometric == "MONOCHROME2" else 300 - head, value, 20)
    canvas[2:4, 2:4] = 150  # keeps the border from being cut off
    file = radiograph(tmp_path, canvas, "1", photometric, padding(value))
    header, policy = pydicom.dcmread(file), PixelPolicy()
    header.Modality = "MR"
    _, decoded = decode_file(file)
    unnamed = judge_frame(decoded.pixels, header, policy).against
    assert unnamed is not None
    assert unnamed.code == PixelCode.PIXELS_PHOTOMETRIC
    assert judge_frame(decoded.pixels, header, policy, decoded.padded).accepted
    assert all(finding["action"] == "accept" for finding in judge_file(file, policy))


def test_of_a_nearly_saturated_canvas_only_the_image_counts() -> None:
    pixels = (32767 - stored_chest())[::2, ::2]
    canvas = framed(pixels, 65535, 1600)
    out = canvas == 65535
    header = Dataset()
    header.Modality, header.PhotometricInterpretation = "CR", "MONOCHROME2"
    against = judge_frame(canvas, header, PixelPolicy()).against
    assert against is not None
    assert against.code in (PixelCode.PIXELS_SATURATED, PixelCode.PIXELS_CLIPPED, PixelCode.PIXELS_BLANK)
    assert judge_frame(canvas, header, PixelPolicy(), out).findings == ()


def test_noise_within_padding_is_still_noise() -> None:
    noise = np.random.default_rng(1).integers(0, 900, (300, 300)).astype(np.uint16)
    row, column = np.mgrid[:300, :300]
    out = (row - 150) ** 2 + (column - 150) ** 2 > 140**2
    header = Dataset()
    header.Modality, header.PhotometricInterpretation = "MR", "MONOCHROME2"
    against = judge_frame(np.where(out, np.uint16(60000), noise), header, PixelPolicy(), out).against
    assert against is not None
    assert against.code == PixelCode.PIXELS_BLANK
    slices = [np.where(out, 0, noise).astype(np.float32)] * 3
    found = judge_volume(slices, header, PixelPolicy(), [out] * 3).against
    assert found is not None
    assert found.code == PixelCode.PIXELS_BLANK


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_person_sees_padding_black_and_the_image_in_its_own_range(photometric: str) -> None:
    image = Dataset()
    image.PhotometricInterpretation = photometric
    row, column = np.mgrid[:200, :200]
    pixels = (1000 + row).astype(np.uint16)
    out = column < 60
    shown = render(np.where(out, np.uint16(60000), pixels), image, padded=out)
    assert not shown[:, :60].any()
    assert int(shown[:, 60:].max()) - int(shown[:, 60:].min()) > 240
