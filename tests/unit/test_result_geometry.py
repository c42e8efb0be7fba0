"""Geometry of a segmentation is that which was computed with, whatever the headers say of it beside the positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from mr_series import AXIAL, SAGITTAL, ball, write_mr_series
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from two_readers import assert_both_see, seen

from outpost.codes.notes import NoteCode
from outpost.inference import load_bundle
from outpost.inference.codes import InputRejected
from outpost.inference.copying import read_copied
from outpost.inference.header import read_headers
from outpost.inference.stack import Stack, stack_slices
from outpost.results.grid import Grid, contradictions
from outpost.results.provenance import Provenance
from outpost.results.seg import write_segmentation

SEGMENT = load_bundle(Path(__file__).parents[2] / "service/bundles/brain_extraction").manifest.segment
MADE = Provenance("brain_extraction", "1.0.2", "torchscript 2.13.0", "float32", "full", "cpu")
VOLUME = ball((12, 20, 24), 500)
MASK = VOLUME > 45
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
# 5 and 3 degrees about two axes, cosines rounded to four decimals as some senders do.
OBLIQUE = tuple(
    float(value)
    for value in np.round(
        [0.99862953, 0.0, -0.05233596, 0.00456138, 0.9961947, 0.08703629],
        4,
    )
)


def raw(keyword: str, value: str) -> RawDataElement:
    data = value.encode()
    data += b" " * (len(data) % 2)
    return RawDataElement(Tag(keyword), "DS", len(data), data, 0, False, True)


def saying(**values: object) -> Callable[[Dataset, int], None]:
    def edit(image: Dataset, _: int) -> None:
        for keyword, value in values.items():
            if isinstance(value, str):
                image[keyword] = raw(keyword, value)
            else:
                setattr(image, keyword, value)

    return edit


def shortened(image: Dataset, _: int) -> None:
    """Positions with blanks before and behind, and more digits than a decimal string may have."""
    text = "\\".join(f" {float(value):.17f}" for value in image.ImagePositionPatient)
    image["ImagePositionPatient"] = raw("ImagePositionPatient", text + " ")


def spacing_as_text(image: Dataset, _: int) -> None:
    image["PixelSpacing"] = raw("PixelSpacing", "2.0000000000000000000\\2.0000000000000000000")


def written(folder: Path, stack: Stack, mask: np.ndarray = MASK) -> Path:
    return write_segmentation(
        [image.dataset for image in stack.images],
        mask,
        Grid(stack.affine),
        SEGMENT,
        MADE,
        1,
        folder,
        read_copied(stack.images[0]),
    )


CASES = {
    "G6: spacing a tenth of the distance, thicker slices": saying(
        SpacingBetweenSlices="0.2", SliceThickness="5"
    ),
    "G7: negative spacing": saying(SpacingBetweenSlices="-2"),
    "spacing 0": saying(SpacingBetweenSlices="0"),
    "spacing NaN": saying(SpacingBetweenSlices="NaN"),
    "spacing no number": saying(SpacingBetweenSlices="2 mm"),
    "spacing of two values": saying(SpacingBetweenSlices="2\\2"),
    "spacing with a comma": saying(SpacingBetweenSlices="2,0"),
    "spacing enormous": saying(SpacingBetweenSlices="1e30"),
    "thickness negative": saying(SliceThickness="-1"),
    "thickness no number": saying(SliceThickness="thin"),
    "thickness alone contradicts": saying(SliceThickness="0.1"),
    "pixel aspect ratio contradicts": saying(PixelAspectRatio=[1, 3]),
    "slice location contradicts": saying(SliceLocation="77"),
    "positions too long and padded": shortened,
    "pixel spacing of twenty digits": spacing_as_text,
}


@pytest.mark.parametrize("edit", CASES.values(), ids=CASES)
def test_both_readers_see_what_was_computed_with(
    tmp_path: Path, edit: Callable[[Dataset, int], None]
) -> None:
    stack = stack_slices(read_headers(write_mr_series(tmp_path / "series", VOLUME, edit=edit)))
    assert stack.spacing_mm == pytest.approx((2, 2, 2))
    file = written(tmp_path, stack)
    assert_both_see(file, tmp_path / "nifti", seen(MASK.transpose(2, 1, 0), stack.affine))
    measures = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == float(measures.SliceThickness) == 2.0


@pytest.mark.parametrize(
    ("orientation", "spacing"),
    [(AXIAL, 2.0), (SAGITTAL, 1.2), (CORONAL, 2.7), (OBLIQUE, 1.337), ((0.8, 0.6, 0, -0.6, 0.8, 0), 3.0)],
    ids=["axial", "sagittal", "coronal", "oblique, rounded cosines", "turned"],
)
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "numbered backwards"])
def test_every_orientation_is_found_where_it_was_computed(
    tmp_path: Path, orientation: tuple[float, ...], spacing: float, backwards: bool
) -> None:
    def number(image: Dataset, index: int) -> None:
        image.SpacingBetweenSlices = 0.1
        if backwards:
            image.InstanceNumber = len(VOLUME) - index

    files = write_mr_series(
        tmp_path / "series",
        VOLUME,
        orientation=orientation,
        slice_spacing=spacing,
        pixel_spacing=(1.1, 0.9),
        edit=number,
    )
    stack = stack_slices(read_headers(files))
    assert stack.spacing_mm == pytest.approx((0.9, 1.1, spacing), abs=1e-4)
    file = written(tmp_path, stack)
    # The slices of rounded cosines lie off the normal of the plane by a hair.
    assert_both_see(file, tmp_path / "nifti", seen(MASK.transpose(2, 1, 0), stack.affine), 5e-3)


def test_an_empty_slice_between_others_moves_nothing(tmp_path: Path) -> None:
    mask = MASK.copy()
    mask[[4, 6]] = False
    stack = stack_slices(read_headers(write_mr_series(tmp_path / "series", VOLUME)))
    file = written(tmp_path, stack, mask)
    assert_both_see(file, tmp_path / "nifti", seen(mask.transpose(2, 1, 0), stack.affine))


def test_each_frame_names_the_image_it_lies_on(tmp_path: Path) -> None:
    def odd(image: Dataset, index: int) -> None:
        image.SpacingBetweenSlices = 0.2
        if index % 2:  # the same orientation, rounded otherwise
            image["ImageOrientationPatient"] = DataElement(
                "ImageOrientationPatient", "DS", ["1.00001", "0", "0", "0", "0.99999", "0"]
            )

    stack = stack_slices(read_headers(write_mr_series(tmp_path / "series", VOLUME, edit=odd)))
    made = pydicom.dcmread(written(tmp_path, stack))
    by_position = {
        round(float(image.position[2]), 3): image.sop_instance_uid
        for image in stack.images
        if image.position is not None
    }
    for frame in made.PerFrameFunctionalGroupsSequence:
        place = round(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]), 3)
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == by_position[place]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"SpacingBetweenSlices": "0.2"}, "SpacingBetweenSlices (DS)"),
        ({"SpacingBetweenSlices": "-2"}, "SpacingBetweenSlices (DS)"),
        ({"SpacingBetweenSlices": "1O"}, "SpacingBetweenSlices (DS)"),
        ({"SliceThickness": "0"}, "SliceThickness (DS)"),
        ({"SpacingBetweenSlices": "2.0004", "SliceThickness": "5"}, ""),
        ({"SpacingBetweenSlices": "", "SliceThickness": ""}, ""),
    ],
)
def test_what_contradicts_the_positions_is_noted_and_what_only_differs_is_not(
    tmp_path: Path, values: dict[str, str], named: str
) -> None:
    files = write_mr_series(tmp_path, VOLUME, edit=saying(**values))
    stack = stack_slices(read_headers(files))
    notes = contradictions([image.dataset for image in stack.images], Grid(stack.affine))
    assert [note.code for note in notes] == [NoteCode.VALUE_LEFT_OUT] * bool(named)
    assert all(note.detail.endswith(f": {named}") for note in notes)


@pytest.mark.parametrize("lean", [0.002, -0.0005], ids=["as much as a stack may", "a hair"])
def test_slices_that_lean_and_jitter_within_tolerance_are_read_where_they_were_computed(
    tmp_path: Path, lean: float
) -> None:
    def shift(image: Dataset, index: int) -> None:
        jitter = 0.01 * (-1) ** index
        image.ImagePositionPatient = [-100.0, -100.0 + 2 * lean * index, -50.0 + 2.0 * index + jitter]

    stack = stack_slices(read_headers(write_mr_series(tmp_path / "series", VOLUME, edit=shift)))
    file = written(tmp_path, stack)
    # The readers take the slices to stand straight on the plane; the stack's tolerance is 0.05 mm.
    assert_both_see(file, tmp_path / "nifti", seen(MASK.transpose(2, 1, 0), stack.affine), 0.05)


def test_a_tilted_gantry_is_refused_not_straightened(tmp_path: Path) -> None:
    def tilt(image: Dataset, index: int) -> None:
        image.ImagePositionPatient = [-100.0, -100.0 + 0.5 * index, -50.0 + 2.0 * index]

    with pytest.raises(InputRejected, match="GEOMETRY_INCONSISTENT"):
        stack_slices(read_headers(write_mr_series(tmp_path, VOLUME, edit=tilt)))
