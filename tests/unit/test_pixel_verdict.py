"""What a policy makes of what the pixels show, and how it travels from the process that decodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from filter_corpus import CHEST, frame, packaged
from pydicom.dataset import Dataset
from test_inference_radiograph import radiograph
from torch.nn import functional

from outpost.api.metrics import Metrics
from outpost.cli import main
from outpost.filter import anatomy
from outpost.filter.appearance import look
from outpost.filter.pixel_codes import PIXEL_REASONS, PixelCode
from outpost.filter.pixel_policy import LOOKS_AT_NOTHING, PixelPolicy
from outpost.filter.pixels import judge_displayed, judge_frame, judge_volume, slices_to_judge
from outpost.filter.thumbnail import reduce_frame, render
from outpost.inference.bundle import full_rung, load_bundle
from outpost.inference.child import _outcome
from outpost.inference.codes import InferenceFailed, InputRejected
from outpost.inference.header import read_headers
from outpost.inference.predictor import Predictor
from outpost.inference.radiograph import RadiographClassification
from outpost.inference.result import InferenceResult

BUNDLES = Path(__file__).parents[2] / "service" / "bundles"


def header(modality: str = "CR", photometric: str = "MONOCHROME2") -> Dataset:
    dataset = Dataset()
    dataset.Modality, dataset.PhotometricInterpretation = modality, photometric
    return dataset


def noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(2000, 60, (300, 280)).astype(np.uint16)


def rg(number: int) -> Path:
    return packaged("pydicom-data", f"RG{number}_UNCR.dcm")


@pytest.fixture(scope="module")
def task() -> RadiographClassification:
    return RadiographClassification(load_bundle(BUNDLES / "radiograph_orientation"))


def test_a_check_that_is_off_is_not_made_and_one_that_accepts_is_told_but_ends_nothing() -> None:
    assert judge_frame(noise(), header(), PixelPolicy()).against is not None
    assert judge_frame(noise(), header(), PixelPolicy(blank="off", photometric="off")).findings == ()
    told = judge_frame(noise(), header(), PixelPolicy(blank="accept"))
    assert told.accepted
    assert [finding.code for finding in told.findings] == [PixelCode.PIXELS_BLANK]


@pytest.mark.parametrize("name", ["RG3_UNCR.dcm", "RG1_UNCR.dcm"])
def test_a_policy_that_looks_at_nothing_finds_nothing(name: str) -> None:
    assert frame("pydicom-data", name)(LOOKS_AT_NOTHING).findings == ()
    assert judge_frame(noise() * 0, header(), LOOKS_AT_NOTHING).findings == ()


def test_numbers_that_are_none_are_no_way_past_the_verdict() -> None:
    broken = np.full((300, 280), np.nan)
    assert judge_frame(broken, header(), PixelPolicy()).against is not None


@pytest.mark.parametrize(("unsure", "accepted"), [("accept", True), ("reject", False), ("hold", False)])
def test_the_policy_decides_what_becomes_of_doubt(unsure: str, accepted: bool) -> None:
    policy = CHEST.model_copy(update={"unsure": unsure})
    verdict = frame("deid-data", "cat.dcm")(policy)
    assert [finding.code for finding in verdict.findings] == [PixelCode.PIXELS_UNSURE]
    assert verdict.accepted is accepted
    assert verdict.findings[0].action == unsure


def test_of_a_few_pixels_nothing_is_said_but_that() -> None:
    verdict = judge_displayed(noise().astype(np.float32)[:20, :20], "CR", PixelPolicy())
    assert [finding.code for finding in verdict.findings] == [PixelCode.PIXELS_UNSURE]


def test_slices_come_from_the_middle_of_a_volume_and_one_that_is_empty_does_not_end_it() -> None:
    assert slices_to_judge(181, PixelPolicy()) == [63, 90, 117]
    assert slices_to_judge(1, PixelPolicy()) == [0]
    assert slices_to_judge(2, PixelPolicy(slices_per_series=15)) == [0, 1]
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    disc = (500 * np.clip(0.6 - rows**2 - columns**2, 0, 1)).astype(np.float32)
    disc += np.random.default_rng(2).normal(0, 2, disc.shape).astype(np.float32)
    empty = np.zeros_like(disc)
    assert judge_volume([disc, empty, disc], header("MR"), PixelPolicy()).accepted
    against = judge_volume([empty, disc, empty], header("MR"), PixelPolicy()).against
    assert against is not None
    assert against.code is PixelCode.PIXELS_BLANK


def test_weights_that_were_changed_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anatomy, "WEIGHTS_SHA256", "0" * 64)
    anatomy._released.cache_clear()
    with pytest.raises(anatomy.AnatomyWeightsError, match="install the release again"):
        anatomy.classify(np.zeros((64, 64), dtype=np.float32))
    bundle = load_bundle(BUNDLES / "radiograph_orientation")
    with pytest.raises(InferenceFailed, match="WEIGHTS_MISMATCH"):
        Predictor(bundle, full_rung(bundle))
    anatomy._released.cache_clear()


def test_pictures_are_reduced_as_torch_averages_areas() -> None:
    picture = np.random.default_rng(3).random((230, 177)).astype(np.float32)
    wanted = functional.adaptive_avg_pool2d(torch.from_numpy(picture)[None, None], 96)[0, 0]
    # torch's areas begin and end at whole pixels, ours do not: equal on average, near everywhere.
    assert np.abs(anatomy.resized(picture, 96) - wanted.numpy()).max() < 0.5
    assert anatomy.resized(picture, 96).mean() == pytest.approx(picture.mean(), abs=1e-5)
    exact = functional.avg_pool2d(torch.from_numpy(picture[:224, :176])[None, None], 4)[0, 0].numpy()
    np.testing.assert_allclose(reduce_frame(picture[:224, :176], 56), exact, rtol=1e-6)


def test_a_frame_is_rendered_as_it_is_displayed() -> None:
    ramp = np.tile(np.arange(400, dtype=np.uint16), (100, 1))
    plain, reverse = render(ramp, header()), render(ramp, header(photometric="MONOCHROME1"))
    assert plain.dtype == np.uint8
    assert max(plain.shape) <= 256
    assert plain[0, 0] == 0
    assert plain[0, -1] == 255
    assert reverse[0, 0] == 255
    windowed = header()
    windowed.WindowCenter, windowed.WindowWidth = 200, 10
    assert set(np.unique(render(ramp, windowed)[:, :80])) == {0}


def test_hostile_attributes_do_not_end_the_verdict() -> None:
    broken = header()
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        setattr(broken, keyword, None)
    broken.add_new("Modality", "CS", ["CR", "DX"])
    assert judge_frame(noise(), broken, PixelPolicy()).against is not None
    assert render(noise(), broken).any()
    infinite = noise().astype(np.float32)
    infinite[:10] = 3.4e38
    look(infinite, infinite)


def test_of_a_study_the_good_radiograph_is_read_and_the_empty_one_named(
    task: RadiographClassification, tmp_path: Path
) -> None:
    case = task.read(read_headers([rg(1), radiograph(tmp_path, noise())]), PixelPolicy())
    assert len(case.images) == 1
    assert [code for _, code in case.unread] == ["PIXELS_BLANK"]


def test_a_leg_tagged_as_a_chest_is_not_computed(task: RadiographClassification) -> None:
    with pytest.raises(InputRejected) as refusal:
        task.read(read_headers([rg(3)]), CHEST)
    assert refusal.value.code == "PIXELS_ANATOMY"
    assert not refusal.value.hold
    assert len(task.read(read_headers([rg(3)]), PixelPolicy()).images) == 1


def test_doubt_that_is_held_reaches_the_service_as_such(task: RadiographClassification) -> None:
    cat = packaged("deid-data", "cat.dcm")
    told = _outcome(lambda: {"shape": task.read(read_headers([cat]), CHEST).shape})
    code, _, hold = told["rejected"]
    assert (code, hold) == ("PIXELS_UNSURE", True)
    assert InputRejected(*told["rejected"]).hold


def test_what_the_policy_lets_pass_is_counted(task: RadiographClassification) -> None:
    case = task.read(
        read_headers([packaged("deid-data", "cat.dcm")]), CHEST.model_copy(update={"unsure": "accept"})
    )
    assert [note.code for note in case.notes] == ["PIXELS_UNSURE"]
    metrics = Metrics()
    metrics.observe(InferenceResult((), "m", "1", "e", "p", "full", "cpu", 0.1, case.notes))
    assert metrics.registry.get_sample_value("outpost_pixel_findings_total", {"code": "PIXELS_UNSURE"}) == 1


def test_a_person_is_told_of_each_image_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("pixels: {expected_anatomy: [chest_frontal], unsure: hold}\n", encoding="utf-8")
    assert main(["filter", "pixels", str(rg(1)), "--rules", str(rules)]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert main(["filter", "pixels", str(rg(3)), "--rules", str(rules), "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in told["findings"]] == ["PIXELS_ANATOMY"]
    (tmp_path / "no.dcm").write_bytes(b"nothing")
    assert main(["filter", "pixels", str(tmp_path / "no.dcm")]) == 1
    assert "HEADER_UNREADABLE" in capsys.readouterr().out
    assert main(["filter", "pixels", str(tmp_path / "absent")]) == 2


@pytest.mark.parametrize("code", PixelCode)
def test_each_finding_is_explained_in_both_languages(code: PixelCode) -> None:
    for text in (PIXEL_REASONS[code].en, PIXEL_REASONS[code].ru):
        assert len(text.meaning) > 10
        assert len(text.remedy) > 10
