"""What the filter leaves out of a series: never a part of a volume that is then computed as if it were the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mr_series import write_mr_series
from pydicom import Dataset

from outpost.filter.rulefile import rules_of, source_of
from outpost.filter.verdict import judge_headers
from outpost.inference.bundle import load_bundle
from outpost.inference.codes import InputRejected
from outpost.inference.header import read_headers
from outpost.inference.task import make_task

BUNDLE = Path(__file__).parents[2] / "service/bundles/brain_extraction"
VOLUME = np.random.default_rng(1).integers(0, 900, (80, 64, 64)).astype(np.uint16)


def read(folder: Path, edit: Callable[[Dataset, int], None]) -> int:
    """How many slices of a series the brain bundle reads, by its own rules."""
    headers = read_headers(write_mr_series(folder, VOLUME, edit=edit))
    taken = judge_headers(headers, rules_of(source_of(BUNDLE, None))).require()
    left_out = [header for header in headers if header not in taken]
    assert left_out
    case = make_task(load_bundle(BUNDLE)).read(taken, None, left_out)
    return case.shape[2]


def projection(image: Dataset, index: int) -> None:
    if index >= 65:
        image.ImageType = ["DERIVED", "PRIMARY", "MIP"]


def quality_control(image: Dataset, index: int) -> None:
    if index < 10:
        image.QualityControlImage = "YES"


@pytest.mark.parametrize("edit", [projection, quality_control])
def test_a_series_whose_end_was_left_out_is_refused(
    tmp_path: Path, edit: Callable[[Dataset, int], None]
) -> None:
    with pytest.raises(
        InputRejected, match=r"SLICES_MISSING: the filter left out 1[05] instances of series 1"
    ):
        read(tmp_path, edit)


def test_what_lies_in_another_plane_or_where_a_slice_is_does_not_belong_to_it(tmp_path: Path) -> None:
    def beside(image: Dataset, index: int) -> None:
        if index >= 75:
            image.ImageType = ["DERIVED", "PRIMARY", "MIP"]
            if index % 2:
                image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            else:
                image.ImagePositionPatient = [-100, -100, -50 + 2 * (index - 70)]

    assert read(tmp_path, beside) == 75
