"""Slices of a series -> a volume at its exact place, or a coded refusal."""

from __future__ import annotations

from pathlib import Path

import gdcm
import numpy as np
import pytest
from mr_series import SAGITTAL, ball, write_mr_series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import JPEGLosslessSV1

from outpost.inference import Code, InputRejected
from outpost.inference.header import read_header
from outpost.inference.series import read_volume
from outpost.inference.stack import Stack, stack_slices

SMALL = ball((8, 10, 12))


def stacked(files: list[Path]) -> Stack:
    return stack_slices([read_header(file) for file in files])


def refusal(files: list[Path]) -> Code:
    with pytest.raises(InputRejected) as rejected:
        stacked(files)
    assert rejected.value.message
    return rejected.value.code


def test_slices_are_ordered_by_place_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    files = write_mr_series(tmp_path, SMALL)
    stack = stacked(sorted(files))
    assert list(stack.files) == files
    assert np.array_equal(read_volume(stack).values, SMALL.transpose(2, 1, 0))


def test_the_affine_of_an_oblique_series_is_exact(tmp_path: Path) -> None:
    tilt = np.deg2rad(17)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    files = write_mr_series(
        tmp_path,
        SMALL,
        orientation=orientation,
        origin=(-3, 4, 5),
        pixel_spacing=(0.5, 0.7),
        slice_spacing=1.3,
    )
    expected = np.eye(4)
    expected[:3, 0] = [0.7, 0, 0]
    expected[:3, 1] = np.array([0, np.cos(tilt), np.sin(tilt)]) * 0.5
    expected[:3, 2] = np.array([0, -np.sin(tilt), np.cos(tilt)]) * 1.3
    expected[:3, 3] = [-3, 4, 5]
    assert np.allclose(stacked(files).affine, expected, atol=1e-6)


def test_a_sagittal_series_stacks_along_its_own_normal(tmp_path: Path) -> None:
    stack = stacked(write_mr_series(tmp_path, SMALL, orientation=SAGITTAL))
    assert np.allclose(stack.affine[:3, 2], [-2, 0, 0])


def test_positions_rounded_to_hundredths_are_still_even(tmp_path: Path) -> None:
    def rounded(image: Dataset, index: int) -> None:
        image.ImagePositionPatient = [-100, -100, round(index * 0.9375, 2)]

    assert stacked(write_mr_series(tmp_path, SMALL, edit=rounded)).spacing_mm[2] == pytest.approx(
        0.9375, abs=2e-3
    )


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    files = write_mr_series(tmp_path, SMALL)
    assert refusal([*files[:3], *files[4:]]) == Code.SLICES_MISSING


def test_two_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    def echoes(image: Dataset, index: int) -> None:
        image.ImagePositionPatient = [-100, -100, 2.0 * (index // 2)]

    assert refusal(write_mr_series(tmp_path, SMALL, edit=echoes)) == Code.SLICES_DUPLICATED


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    def uneven(image: Dataset, index: int) -> None:
        image.ImagePositionPatient = [-100, -100, 2.0 * index + (0.6 if index > 4 else 0)]

    assert refusal(write_mr_series(tmp_path, SMALL, edit=uneven)) == Code.SLICES_UNEVEN


def test_a_sheared_stack_is_refused(tmp_path: Path) -> None:
    def sheared(image: Dataset, index: int) -> None:
        image.ImagePositionPatient = [-100 + 0.5 * index, -100, 2.0 * index]

    assert refusal(write_mr_series(tmp_path, SMALL, edit=sheared)) == Code.GEOMETRY_INCONSISTENT


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", list(SAGITTAL)),
        ("PixelSpacing", [2.0, 2.5]),
        ("FrameOfReferenceUID", "1.2.3"),
        ("Rows", 9),
    ],
)
def test_one_image_unlike_the_others_is_refused(tmp_path: Path, keyword: str, value: object) -> None:
    def change(image: Dataset, index: int) -> None:
        if index == 4:
            setattr(image, keyword, value)

    assert refusal(write_mr_series(tmp_path, SMALL, edit=change)) == Code.GEOMETRY_INCONSISTENT


@pytest.mark.parametrize("orientation", [[1, 0, 0, 1, 0, 0], [0.5, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
def test_an_orientation_that_is_none_is_refused(tmp_path: Path, orientation: list[float]) -> None:
    def change(image: Dataset, _: int) -> None:
        image.ImageOrientationPatient = orientation

    assert refusal(write_mr_series(tmp_path, SMALL, edit=change)) == Code.GEOMETRY_INCONSISTENT


@pytest.mark.parametrize(
    "keyword", ["ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "FrameOfReferenceUID"]
)
def test_an_image_without_a_place_is_refused(tmp_path: Path, keyword: str) -> None:
    def remove(image: Dataset, index: int) -> None:
        if index == 2:
            del image[keyword]

    assert refusal(write_mr_series(tmp_path, SMALL, edit=remove)) == Code.GEOMETRY_MISSING


def test_each_slice_is_rescaled_by_its_own_factors(tmp_path: Path) -> None:
    def scale(image: Dataset, index: int) -> None:
        image.RescaleSlope, image.RescaleIntercept = index + 1, -index

    volume = read_volume(stacked(write_mr_series(tmp_path, SMALL, edit=scale))).values
    factors = np.arange(8).reshape(8, 1, 1)
    assert np.array_equal(volume, (SMALL * (factors + 1) - factors).transpose(2, 1, 0))


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    def truncate(image: Dataset, index: int) -> None:
        if index == 3:
            image.PixelData = image.PixelData[:-20]

    stack = stacked(write_mr_series(tmp_path, SMALL, edit=truncate))
    with pytest.raises(InputRejected) as rejected:
        read_volume(stack)
    assert rejected.value.code == Code.PIXELS_UNREADABLE


def test_an_empty_volume_is_refused(tmp_path: Path) -> None:
    stack = stacked(write_mr_series(tmp_path, np.full_like(SMALL, 7)))
    with pytest.raises(InputRejected) as rejected:
        read_volume(stack)
    assert rejected.value.code == Code.PIXELS_CONSTANT


MR_SMALL = get_testdata_file("MR_small.dcm", download=False)


def jpeg_lossless(folder: Path) -> Path:
    """pydicom's MR image as JPEG Lossless, the most common compressed form in archives."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(MR_SMALL)
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(folder / "jpeg.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert read_file_meta_info(folder / "jpeg.dcm").TransferSyntaxUID == JPEGLosslessSV1
    return folder / "jpeg.dcm"


@pytest.mark.parametrize("name", ["jp2klossless", "jpeg_ls_lossless", "RLE", "bigendian", "jpeg_lossless"])
def test_a_compressed_slice_gives_the_same_voxels(tmp_path: Path, name: str) -> None:
    named = get_testdata_file(f"MR_small_{name}.dcm", download=False)
    file = Path(named) if named else jpeg_lossless(tmp_path)
    one, other = (
        read_volume(Stack((read_header(Path(path)),), np.eye(4), (64, 64, 1))).values
        for path in (MR_SMALL, file)
    )
    assert np.array_equal(one, other)
