"""The rules that judge a study whose filter an administrator has overruled: they leave nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from outpost.filter.rulefile import known_classes, no_rules, open_rules
from outpost.filter.verdict import judge_headers
from outpost.inference.header import read_headers


def test_every_kind_known_by_name_is_kept_and_no_pixel_check_looks() -> None:
    rules = open_rules().rules
    assert rules.known == dict.fromkeys(known_classes(), "keep")
    assert rules.rules == ()
    looks = rules.pixels.model_dump()
    assert {name for name, action in looks.items() if action == "off"} == {
        "blank", "zeros", "saturated", "clipped", "screen_capture", "photometric", "burned_in_text", "anatomy",
    }  # fmt: skip
    assert looks["unsure"] == "accept"


@pytest.mark.parametrize("name", ["rtplan.dcm", "MR_small.dcm", "reportsi.dcm"])
def test_what_the_filter_leaves_out_by_itself_is_left(name: str) -> None:
    headers = read_headers([Path(str(get_testdata_file(name, download=False)))])
    assert judge_headers(headers, open_rules()).decision == "accept"
    assert (judge_headers(headers, no_rules()).decision == "reject") == (name != "MR_small.dcm")
