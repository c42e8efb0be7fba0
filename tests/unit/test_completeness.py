"""A part of a study is told from the whole by what headers and transfer say, and a whole one is not held."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid

from outpost.codes.notes import NoteCode
from outpost.inference.codes import Code, InputRejected, StudyIncomplete
from outpost.inference.completeness import (
    Policy,
    hold_if_more_may_come,
    lacks_of_radiographs,
    lacks_of_volume,
    require_all_radiographs,
    require_whole_volume,
)
from outpost.inference.context import StudyContext
from outpost.inference.header import ImageHeader
from outpost.inference.stack import Stack, stack_slices

BROKEN = ("the association of SCANNER ended after 126 images",)
Edit = Callable[[Dataset, int], None]


def series(kept: Iterable[int], edit: Edit | None = None, **values: object) -> list[ImageHeader]:
    """Headers of some slices (from 1), 1 mm apart, of a series; every image says `values`."""
    study, uid, frame = generate_uid(), generate_uid(), generate_uid()
    headers = []
    for index in (number - 1 for number in kept):
        image = Dataset()
        image.SOPInstanceUID, image.SeriesInstanceUID, image.StudyInstanceUID = generate_uid(), uid, study
        image.FrameOfReferenceUID, image.SeriesNumber, image.InstanceNumber = frame, 1, index + 1
        image.ImageType, image.SliceThickness = ["ORIGINAL", "PRIMARY"], 1.0
        for keyword, value in values.items():
            setattr(image, keyword, value)
        if edit is not None:
            edit(image, index)
        headers.append(header(image, float(index)))
    return headers


def header(image: Dataset, place: float) -> ImageHeader:
    """What the reader of files makes of an image at a place along the patient's axis, millimetres."""
    return ImageHeader(
        path=Path(f"{place:g}.dcm"),
        sop_class_uid=str(MRImageStorage),
        sop_instance_uid=image.SOPInstanceUID,
        series_instance_uid=image.SeriesInstanceUID,
        series_number=1,
        series_description="T1",
        modality="MR",
        image_type=tuple(image.ImageType),
        rows=2,
        columns=2,
        frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        frame_of_reference_uid=image.FrameOfReferenceUID,
        orientation=np.array([1.0, 0, 0, 0, 1, 0]),
        position=np.array([0.0, 0, place]),
        pixel_spacing=np.array([1.0, 1]),
        dataset=image,  # type: ignore[arg-type] # only its attributes are asked for
        pixels_at=0,
    )


def lacks(headers: list[ImageHeader], *others: ImageHeader, broken: tuple[str, ...] = ()) -> tuple[str, ...]:
    return lacks_of_volume(stack_slices(headers), [*headers, *others], broken)


ODD = range(1, 182, 2)
HEAD = range(1, 127)
WHOLE = range(1, 61)


@pytest.mark.parametrize(
    ("kept", "values", "told"),
    [
        (ODD, {"ImagesInAcquisition": 181, "SpacingBetweenSlices": 1}, "ImagesInAcquisition says 181"),  # G3
        (HEAD, {"ImagesInAcquisition": 181}, "holds 126 images, ImagesInAcquisition says 181"),  # G4b
        (range(56, 182), {"ImagesInAcquisition": 181}, "ImagesInAcquisition says 181"),
        (range(1, 91), {"ImagesInAcquisition": 180}, "ImagesInAcquisition says 180"),  # just a half
        (HEAD, {"ImagesInAcquisition": 181, "ImageType": ["DERIVED", "PRIMARY", "OTHER"]}, "says 181"),
        (range(1, 181), {"ImagesInAcquisition": 181}, "holds 180 images"),
        (HEAD, {"NumberOfSeriesRelatedInstances": 181}, "NumberOfSeriesRelatedInstances says 181"),
        (HEAD, {"ImagesInSeries": "181"}, "ImagesInSeries says 181"),
        (HEAD, {"NumberOfSlices": 181}, "has 126 slices, NumberOfSlices says 181"),
        (ODD, {"SpacingBetweenSlices": 1, "SliceThickness": 2}, "numbered in steps of 2"),
        (ODD, {"SliceThickness": 1}, "numbered in steps of 2"),
        (range(1, 182, 3), {"SliceThickness": 1}, "3 times its SliceThickness"),
        (HEAD, {"NumberOfTemporalPositions": 4, "TemporalPositionIdentifier": 1}, "of 4 temporal positions"),
        (range(56, 182), {"NumberOfStudyRelatedInstances": 181}, "numbered 56 to 181 with 55 missing"),
    ],
)
def test_a_part_is_known(kept: Iterable[int], values: dict[str, object], told: str) -> None:
    found = lacks(series(kept, **values))
    assert any(told in sign for sign in found), found


def test_a_comb_whose_slices_were_numbered_again_is_known() -> None:
    def again(image: Dataset, index: int) -> None:
        image.InstanceNumber = index // 2 + 1

    found = lacks(series(ODD, edit=again, SpacingBetweenSlices=1, SliceThickness=1))
    assert "2 times both SpacingBetweenSlices and SliceThickness" in found[0]


def test_philips_number_of_slices_is_heard() -> None:
    def say(image: Dataset, _: int) -> None:
        block = image.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x18, "SL", 181)

    assert "Philips' number of slices says 181" in lacks(series(HEAD, edit=say))[0]
    assert not lacks(series(range(1, 182), edit=say))


def test_echoes_of_unlike_length_are_known() -> None:
    first = series(WHOLE, EchoNumbers=1)

    def other(image: Dataset, _: int) -> None:
        image.SeriesInstanceUID, image.StudyInstanceUID = (
            first[0].series_instance_uid,
            first[0].dataset.StudyInstanceUID,
        )
        image.FrameOfReferenceUID = first[0].frame_of_reference_uid

    second = series(range(1, 60), edit=other, EchoNumbers=2)
    assert "is uneven, images by EchoNumbers: 1: 60, 2: 59" in lacks(first, *second)[0]
    even = series(WHOLE, edit=other, EchoNumbers=2)
    assert not lacks(first, *even)


@pytest.mark.parametrize(
    ("kept", "values"),
    [
        (WHOLE, {}),
        (WHOLE, {"ImagesInAcquisition": 60, "NumberOfSeriesRelatedInstances": 60, "NumberOfSlices": 60}),
        (WHOLE, {"ImagesInAcquisition": 30, "NumberOfStudyRelatedInstances": 900}),
        (WHOLE, {"ImagesInAcquisition": 0, "NumberOfSeriesRelatedInstances": -1}),
        (WHOLE, {"ImageType": ["DERIVED", "SECONDARY", "OTHER"], "ImagesInAcquisition": 181}),
        (WHOLE, {"ImageType": ["DERIVED", "PRIMARY", "MPR"], "NumberOfSlices": 181}),
        (WHOLE, {"EchoNumbers": 2, "ImagesInAcquisition": 120}),  # the other echo has a series of its own
        (WHOLE, {"SpacingBetweenSlices": 0.1, "SliceThickness": 5}),  # G6
        (WHOLE, {"SpacingBetweenSlices": -1}),  # G7
        (WHOLE, {"SpacingBetweenSlices": 0.5}),
        (WHOLE, {"SliceThickness": 0.5}),  # gaps between slices
        (range(40, 100), {}),  # numbered across series
        (ODD, {"SliceThickness": 2}),  # every second image is of another echo, elsewhere
    ],
)
def test_a_whole_series_is_not_held(kept: Iterable[int], values: dict[str, object]) -> None:
    assert lacks(series(kept, **values)) == ()


@pytest.mark.parametrize("value", ["all", "181 images", "", "1e400", "60\\60", "-181"])
def test_a_count_that_is_none_says_nothing(value: str) -> None:
    def say(image: Dataset, index: int) -> None:
        image.add_new("ImagesInAcquisition", "LO", value)
        image.add_new("NumberOfSeriesRelatedInstances", "LO", value)
        image.add_new("InstanceNumber", "LO", value if index % 7 == 0 else str(index + 1))

    assert lacks(series(WHOLE, edit=say)) == ()


def test_one_image_that_says_otherwise_is_outvoted() -> None:
    def say(image: Dataset, index: int) -> None:
        image.ImagesInAcquisition = 9999 if index == 7 else 60

    assert lacks(series(WHOLE, edit=say)) == ()


def test_series_that_share_an_acquisition_make_up_its_number_together() -> None:
    one = series(WHOLE, ImagesInAcquisition=100, AcquisitionNumber=4)
    other = series(range(1, 41), ImagesInAcquisition=100, AcquisitionNumber=4)
    assert lacks(one, *other) == ()
    # Two broken series of two acquisitions that bear one number are no whole.
    another = series(WHOLE, ImagesInAcquisition=100, AcquisitionNumber=4)
    assert lacks(one, *another)


def test_temporal_positions_in_other_series_are_there() -> None:
    every = [
        series(WHOLE, NumberOfTemporalPositions=2, TemporalPositionIdentifier=number) for number in (1, 2)
    ]
    assert lacks(every[0], *every[1]) == ()


def test_gaps_that_other_series_fill_are_no_comb() -> None:
    one = series(ODD, SliceThickness=1)

    def other(image: Dataset, index: int) -> None:
        image.FrameOfReferenceUID = one[0].frame_of_reference_uid
        image.InstanceNumber = 2 * (index + 1)

    assert lacks(one) != ()
    assert lacks(one, *series(range(1, 90), edit=other)) == ()


def test_a_broken_transfer_counts_unless_the_series_is_known_to_be_whole() -> None:
    assert lacks(series(WHOLE), broken=BROKEN) == BROKEN
    for values in ({"ImagesInAcquisition": 60}, {"NumberOfSeriesRelatedInstances": 60}):
        assert lacks(series(WHOLE, **values), broken=BROKEN) == ()
    part = series(WHOLE, ImagesInAcquisition=60, NumberOfSeriesRelatedInstances=61)
    assert len(lacks(part, broken=BROKEN)) == 2


def context(forced: bool, broken_off: tuple[str, ...] = ()) -> StudyContext:
    return StudyContext(forced=forced, broken_off=broken_off)


def test_a_part_waits_then_ends_as_the_bundle_says() -> None:
    headers = series(HEAD, ImagesInAcquisition=181)
    stack: Stack = stack_slices(headers)
    for policy in ("refuse", "compute"):
        with pytest.raises(StudyIncomplete) as held:
            require_whole_volume(stack, headers, context(False), policy)  # type: ignore[arg-type] # Literal by loop
        assert "126 images, ImagesInAcquisition says 181" in held.value.lacks[0]
    with pytest.raises(InputRejected, match=r"STUDY_INCOMPLETE.*126 images") as refused:
        require_whole_volume(stack, headers, context(True), "refuse")
    assert refused.value.hold
    (note,) = require_whole_volume(stack, headers, context(True), "compute")
    assert note.code == NoteCode.STUDY_PARTIAL
    assert "126 images" in note.detail
    overruled = StudyContext(forced=False, overruled=True)
    assert require_whole_volume(stack, headers, overruled, "refuse") == (note,)
    assert StudyContext.of_json(json.loads(json.dumps(overruled.as_json()))) == overruled
    whole = series(WHOLE)
    assert require_whole_volume(stack_slices(whole), whole, context(False), "refuse") == ()


def test_a_gap_is_held_only_where_more_may_come() -> None:
    rejection = InputRejected(Code.SLICES_MISSING, "slices 3 and 4 are 2 mm apart")
    headers = series(WHOLE)
    hold_if_more_may_come(rejection, headers, context(False))
    with pytest.raises(StudyIncomplete) as held:
        hold_if_more_may_come(rejection, headers, context(False, BROKEN))
    assert held.value.lacks == (rejection.message, *BROKEN)
    with pytest.raises(StudyIncomplete):
        hold_if_more_may_come(rejection, series(WHOLE, ImagesInSeries=61), context(False))
    other = InputRejected(Code.GEOMETRY_MISSING, "lacks PixelSpacing")
    hold_if_more_may_come(other, series(WHOLE, ImagesInSeries=61), context(False))
    with pytest.raises(StudyIncomplete):
        hold_if_more_may_come(other, headers, context(False, BROKEN))


def test_what_did_not_come_in_time_is_the_reason_or_stands_beside_it() -> None:
    rejection = InputRejected(Code.SLICES_MISSING, "slices 3 and 4 are 2 mm apart")
    hold_if_more_may_come(rejection, series(WHOLE), context(True))
    for headers, broken in ((series(WHOLE), BROKEN), (series(WHOLE, ImagesInSeries=61), ())):
        with pytest.raises(InputRejected) as refused:
            hold_if_more_may_come(rejection, headers, context(True, broken))
        assert (refused.value.code, refused.value.hold) == (Code.STUDY_INCOMPLETE, True)
        assert refused.value.message.startswith(f"{rejection.message}; ")
    none = InputRejected(Code.NO_SERIES_FOR_BUNDLE, "3 slices, at least 20 wanted")
    with pytest.raises(InputRejected, match="ImagesInSeries says 61") as refused:
        hold_if_more_may_come(none, series(WHOLE, ImagesInSeries=61), context(True))
    assert (refused.value.code, refused.value.hold) == (Code.NO_SERIES_FOR_BUNDLE, False)


# --- radiographs ---


@pytest.mark.parametrize(
    ("values", "broken", "told"),
    [
        ({}, BROKEN, BROKEN[0]),
        ({"NumberOfSeriesRelatedInstances": 6}, (), "holds 3 images, NumberOfSeriesRelatedInstances says 6"),
        ({"ImagesInAcquisition": 4}, (), "ImagesInAcquisition says 4"),
        ({"NumberOfStudyRelatedInstances": 3}, BROKEN, ""),
        ({"NumberOfStudyRelatedInstances": 9}, (), ""),  # reports count, too
        ({"ImagesInAcquisition": 1}, (), ""),
        ({}, (), ""),
    ],
)
def test_missing_radiographs_are_known(values: dict[str, object], broken: tuple[str, ...], told: str) -> None:
    headers = series(range(1, 4), **values)
    found = lacks_of_radiographs(headers, headers, broken)
    assert any(told in sign for sign in found) if told else found == ()
    policy: Policy = "compute"
    noted = require_all_radiographs(headers, headers, context(True, broken), policy)
    assert [note.code for note in noted] == [NoteCode.STUDY_PARTIAL] * bool(told)
