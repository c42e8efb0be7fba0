"""Choosing the one series of a study that the bundle reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from mr_series import Edit, ball, write_mr_series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage

from outpost.inference import Code, InputRejected, load_bundle

BUNDLE = load_bundle(Path(__file__).parents[2] / "service/bundles/brain_extraction")
HEAD = ball()


def rejection(files: list[Path]) -> InputRejected:
    with pytest.raises(InputRejected) as rejected:
        BUNDLE.select(files)
    return rejected.value


def setting(**values: object) -> Edit:
    def edit(image: Dataset, _: int) -> None:
        for keyword, value in values.items():
            setattr(image, keyword, value)

    return edit


def test_the_head_is_chosen_among_localizer_and_report(tmp_path: Path) -> None:
    localizer = write_mr_series(
        tmp_path / "a", HEAD[:3], edit=setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    )
    head = write_mr_series(tmp_path / "b", HEAD)
    report = Path(get_testdata_file("reportsi.dcm", download=False))
    assert BUNDLE.select([report, *localizer, *head]) == head


def test_the_series_named_t1_comes_before_a_finer_one(tmp_path: Path) -> None:
    finer = write_mr_series(tmp_path / "a", HEAD, slice_spacing=1.8, description="T2 space")
    named = write_mr_series(tmp_path / "b", HEAD, description="Ax T1 MPRAGE")
    assert BUNDLE.select([*finer, *named]) == named


def test_the_finer_of_two_alike_is_chosen_in_any_order(tmp_path: Path) -> None:
    coarse = write_mr_series(tmp_path / "a", HEAD)
    fine = write_mr_series(tmp_path / "b", HEAD, slice_spacing=1.8)
    assert BUNDLE.select([*coarse, *fine]) == BUNDLE.select([*fine, *coarse]) == fine


def test_a_t1_with_a_lost_slice_is_not_replaced_by_a_t2(tmp_path: Path) -> None:
    broken = write_mr_series(tmp_path / "a", HEAD, description="T1")
    whole = write_mr_series(tmp_path / "b", HEAD, description="T2")
    assert rejection([*broken[:30], *broken[31:], *whole]).code == Code.SLICES_MISSING


def test_a_t1_with_a_lost_slice_gives_way_to_another_t1(tmp_path: Path) -> None:
    broken = write_mr_series(tmp_path / "a", HEAD, slice_spacing=1.8)
    whole = write_mr_series(tmp_path / "b", HEAD)
    assert BUNDLE.select([*broken[:30], *broken[31:], *whole]) == whole


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (setting(Modality="CT"), "modality CT, MR wanted"),
        (setting(SOPClassUID=CTImageStorage), "SOP class"),
        (setting(SOPClassUID=EnhancedMRImageStorage), "SOP class"),
        (setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "LOCALIZER"),
        (setting(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1"),
        (setting(NumberOfFrames=2), "2 frames"),
    ],
)
def test_a_series_of_another_kind_is_refused_saying_why(tmp_path: Path, edit: Edit, words: str) -> None:
    refused = rejection(write_mr_series(tmp_path, HEAD, edit=edit))
    assert refused.code == Code.NO_SERIES_FOR_BUNDLE
    assert words in refused.message


def test_thick_slices_are_refused(tmp_path: Path) -> None:
    refused = rejection(write_mr_series(tmp_path, HEAD, slice_spacing=5))
    assert refused.code == Code.NO_SERIES_FOR_BUNDLE
    assert "5.00 mm apart" in refused.message


def test_a_part_too_small_for_a_head_is_refused(tmp_path: Path) -> None:
    refused = rejection(write_mr_series(tmp_path, HEAD, pixel_spacing=(1, 1)))
    assert refused.code == Code.NO_SERIES_FOR_BUNDLE
    assert "at least 120 mm" in refused.message


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "CT_small.dcm", "rtdose.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_gdcm.dcm"]
)
def test_pydicoms_own_files_are_refused_without_surprise(name: str) -> None:
    assert rejection([Path(get_testdata_file(name, download=False))]).code == Code.NO_SERIES_FOR_BUNDLE


def test_a_file_that_is_not_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_bytes(b"not an image" * 100)
    refused = rejection([tmp_path / "readme.txt"])
    assert refused.code == Code.HEADER_UNREADABLE
    assert "readme.txt" in refused.message


def test_a_refusal_tells_nothing_of_the_patient(tmp_path: Path) -> None:
    refused = rejection(write_mr_series(tmp_path, HEAD[:5], description="Ivanova Anna 1950"))
    assert "Ivanova" not in refused.message
    assert "Test" not in refused.message
