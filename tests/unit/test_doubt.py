"""What is no head is refused, or its result says so; what is a head is neither: `docs/doubt.md` holds."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filter_corpus import packaged
from mr_series import write_mr_series
from numpy.typing import NDArray
from pydicom import dcmread

sys.path.append(str(Path(__file__).parents[2] / "service/training/plausible"))

import volumes as v
from calibrate import MEASURES, PAGE, Row, fit, rows
from curve import (
    DOUBTED,
    NOTHING,
    REFUSED,
    both_stages,
    first_stage,
    likeness_of,
    limits,
    organ,
    page,
    second_stage,
)

from outpost.codes.notes import Note, NoteCode
from outpost.filter.doubt import with_doubt
from outpost.filter.pixel_codes import PixelCode
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.rulefile import open_rules, rules_of, source_of
from outpost.filter.verdict import Judge
from outpost.inference.bundle import Bundle, EngineChoice, Plausible, full_rung, load_bundle, read_manifest
from outpost.inference.codes import InferenceFailed, InputRejected
from outpost.inference.orientation import RasView
from outpost.inference.plausible import Limits, measure, read_organ
from outpost.inference.predictor import Predictor
from outpost.inference.result import InferenceResult
from outpost.inference.rung import Rung
from outpost.inference.volume import VolumeCase, VolumeSegmentation

BUNDLES = Path(__file__).parents[2] / "service" / "bundles"
BRAIN, RADIOGRAPHS = BUNDLES / "brain_extraction", BUNDLES / "radiograph_orientation"
RAS = RasView((0, 1, 2), (False, False, False))
MM2 = (2.0, 2.0, 2.0)

Made = tuple[NDArray[np.float32], tuple[float, float, float]]


# --- the published curve ---


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    return rows()


def test_the_published_page_is_what_the_code_gives(measured: list[Row]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(measured), "docs/doubt.md is stale: make doubt"


def test_no_head_is_refused_and_the_margin_is_wide(measured: list[Row]) -> None:
    heads = [row for row in measured if row.head]
    assert len(heads) > 100
    assert [row.name for row in heads if REFUSED in (first_stage(row), second_stage(row, limits()))] == []
    odds = [
        likeness / (1 - likeness)
        for row in heads
        if "CT" not in row.source
        if (likeness := likeness_of(row, organ()))
    ]
    threshold = limits().implausible_below
    assert min(odds) > 3 * threshold / (1 - threshold)


def test_of_an_ordinary_head_nothing_is_told(measured: list[Row]) -> None:
    told = [row.name for row in measured if row.ordinary and both_stages(row, limits()) != NOTHING]
    assert sum(row.ordinary for row in measured) >= 60
    assert told == []


def test_nothing_that_is_no_head_passes_and_most_is_refused(measured: list[Row]) -> None:
    others = {row.name: both_stages(row, limits()) for row in measured if not row.head}
    assert len(others) > 90
    assert [name for name, ended in others.items() if ended == NOTHING] == []
    assert sum(ended == REFUSED for ended in others.values()) >= 0.9 * len(others)
    spheres = [ended for name, ended in others.items() if name.startswith("water sphere")]
    assert spheres.count(REFUSED) >= len(spheres) - 1


def test_the_shipped_coefficients_are_those_that_the_measures_give(measured: list[Row]) -> None:
    kept = json.loads(MEASURES.read_text(encoding="utf-8"))
    assert fit(measured) == pytest.approx(kept["coefficients"], abs=2e-3)
    assert organ().coefficients == pytest.approx(kept["coefficients"], rel=1e-6)
    manifest = load_bundle(BRAIN).manifest
    assert manifest.plausible.likeness.sha256 == kept["sha256"]


# --- the kind, end to end: series of files through the shipped bundle ---


def drawn(
    draw: Callable[[np.random.Generator], NDArray[np.float32]], *changes: v.Change, seed: int = 5
) -> Made:
    rng = np.random.default_rng(seed)
    return v.then(*changes, v.at(*MM2))(draw(rng), (1.5, 1.5, 1.5), rng)


def head(*changes: v.Change) -> Made:
    volume, spacing = v.nifti(v.TEMPLATES / "ch2.nii.gz")
    return v.then(v.at(*MM2), *changes)(volume, spacing, np.random.default_rng(9))


def brain_alone() -> Made:
    volume, spacing = v.nifti(v.TEMPLATES / "ch2bet.nii.gz")
    return v.then(v.padded(15), v.at(*MM2))(volume, spacing, np.random.default_rng(9))


def ct_head() -> Made:
    (made,) = [
        one.make for one in v.samples() if one.name == "head as CT shows it (drawn round ch2bet): noise"
    ]
    volume, spacing = made()
    return v.resampled(volume, spacing, MM2)


@dataclass(frozen=True)
class Case:
    """`wanted`: refused, doubt told (or refused), nothing told; `unrefused`: anything but refused."""

    make: Callable[[], Made]
    wanted: str


REFUSED_OR_DOUBTED, UNREFUSED = "refused or doubt told", "not refused"
CASES = {
    "water sphere 62 mm, SNR 10": Case(partial(drawn, lambda _: v.sphere(62), v.rician(10)), REFUSED),
    "water sphere 75 mm, SNR 30": Case(partial(drawn, lambda _: v.sphere(75), v.rician(30)), REFUSED),
    "water sphere 85 mm, SNR 60, shaded": Case(
        partial(drawn, lambda _: v.sphere(85), v.shaded(0.3), v.rician(60)), REFUSED_OR_DOUBTED
    ),
    "cylinder with inserts": Case(partial(drawn, v.inserts, v.rician(25)), REFUSED),
    "bottle on its side": Case(partial(drawn, lambda _: v.bottle(0, 0.8), v.rician(25)), REFUSED),
    "fruit with segments": Case(
        partial(drawn, lambda rng: v.fruit(rng, 75, 11, 0), v.rician(25)), REFUSED_OR_DOUBTED
    ),
    "gel with structure": Case(
        partial(drawn, lambda rng: v.texture(rng, 5, (72, 88, 74)), v.rician(30)), REFUSED_OR_DOUBTED
    ),
    "knee": Case(partial(drawn, lambda rng: v.limb(rng, 1, True), v.rician(20)), REFUSED_OR_DOUBTED),
    "noise alone": Case(
        partial(drawn, lambda rng: rng.rayleigh(60, (134, 150, 134)).astype(np.float32)), REFUSED
    ),
    "half-empty sphere": Case(
        partial(drawn, lambda _: v.half_empty(v.sphere(85), 0), v.rician(20)), REFUSED_OR_DOUBTED
    ),
    "head as CT shows it": Case(ct_head, REFUSED_OR_DOUBTED),
    "head": Case(head, NOTHING),
    "head, noise and shade": Case(partial(head, v.shaded(0.4), v.rician(15)), NOTHING),
    "head of a child": Case(partial(head, v.sized(0.85)), NOTHING),
    "head, tilted": Case(partial(head, v.tilted(15)), NOTHING),
    "brain alone": Case(brain_alone, UNREFUSED),
    "head without its front quarter": Case(partial(head, v.cut(1, 0, 0.75)), DOUBTED),
}


@pytest.fixture(scope="module")
def brain() -> Bundle:
    return load_bundle(BRAIN)


@pytest.fixture(scope="module")
def predictor(brain: Bundle) -> Predictor:
    return Predictor(brain, rung(brain))


def rung(bundle: Bundle, size: str = "128") -> Rung:
    """OpenVINO at the least size takes a twentieth of the reference's time; the limits hold there, too."""
    return replace(full_rung(bundle, EngineChoice(engine="openvino", precision="float32")), size=size)


def series(folder: Path, made: Made) -> list[Path]:
    """Axial slices, rows to the back and columns to the left, as MR."""
    volume, spacing = made
    pixels = np.clip(volume * (1000 / np.percentile(volume, 99.5)), 0, 4000).astype(np.uint16)
    return write_mr_series(
        folder,
        np.ascontiguousarray(pixels[::-1, ::-1].transpose(2, 1, 0)),
        pixel_spacing=(spacing[1], spacing[0]),
        slice_spacing=spacing[2],
        description="T1 MPRAGE",
    )


def ended(
    predictor: Predictor, files: list[Path], output: Path, judge: Judge | None = None, size: str = "128"
) -> tuple[str, object]:
    """What became of a series, and the rejection or the result."""
    output.mkdir(exist_ok=True)
    try:
        case = predictor.read(files, judge)
        result = predictor.run(case, rung(predictor._bundle, size), output, 1)
    except InputRejected as rejection:
        return (DOUBTED if rejection.hold else REFUSED), rejection
    doubtful = any(note.code == NoteCode.RESULT_DOUBTFUL for note in result.notes)
    return (DOUBTED if doubtful else NOTHING), result


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_head_is_refused_or_marked_and_a_head_is_not(
    name: str, predictor: Predictor, tmp_path: Path
) -> None:
    case = CASES[name]
    found, told = ended(predictor, series(tmp_path / "in", case.make()), tmp_path / "out")
    wanted = {
        REFUSED_OR_DOUBTED: (REFUSED, DOUBTED),
        UNREFUSED: (DOUBTED, NOTHING),
    }.get(case.wanted, (case.wanted,))
    assert found in wanted, told
    if isinstance(told, InferenceResult) and found == DOUBTED:
        (note,) = [note for note in told.notes if note.code == NoteCode.RESULT_DOUBTFUL]
        assert "likeness" in note.detail
        assert dcmread(told.files[0]).SOPInstanceUID


@pytest.mark.parametrize("spacing", [(1.2, 1.2, 3.0)])
def test_a_sphere_of_thick_slices_is_refused(
    predictor: Predictor, tmp_path: Path, spacing: tuple[float, float, float]
) -> None:
    field = (200.0, 224.0, 200.0)
    made = v.rician(15)(v.sphere(80, spacing, field), spacing, np.random.default_rng(2))
    found, told = ended(predictor, series(tmp_path / "in", made), tmp_path / "out", size="full")
    assert found == REFUSED
    assert told.code == "PIXELS_ANATOMY"
    assert "likeness" in told.message


# --- what a site makes of it ---


@pytest.fixture(scope="module")
def sphere() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    volume, _ = drawn(lambda _: v.sphere(75), v.rician(20))
    return volume, volume > 500


@pytest.fixture(scope="module")
def cut_brain() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Between the limits: a brain of which the lower third is missing."""
    volume, spacing = v.nifti(v.TEMPLATES / "ch2bet.nii.gz")
    volume, _ = v.then(v.at(*MM2), v.cut(2, 0.33, 1))(volume, spacing, np.random.default_rng(1))
    return volume, volume > 20


@pytest.mark.parametrize(
    ("thing", "policy", "wanted"),
    [
        ("sphere", PixelPolicy(), ("PIXELS_ANATOMY", False)),
        ("sphere", PixelPolicy(unsure="hold"), ("PIXELS_ANATOMY", False)),
        ("sphere", PixelPolicy(plausible="accept"), "told"),
        ("sphere", PixelPolicy(plausible="accept", unsure="hold"), ("PIXELS_UNSURE", True)),
        ("sphere", PixelPolicy(plausible="off"), "nothing"),
        ("sphere", None, "nothing"),
        ("cut_brain", PixelPolicy(), "told"),
        ("cut_brain", PixelPolicy(unsure="hold"), ("PIXELS_UNSURE", True)),
        ("cut_brain", PixelPolicy(unsure="reject"), ("PIXELS_UNSURE", False)),
        ("cut_brain", PixelPolicy(plausible="accept"), "told"),
        ("cut_brain", PixelPolicy(plausible="off", unsure="reject"), "nothing"),
    ],
)
def test_the_rules_decide_what_becomes_of_an_answer_that_is_none(
    thing: str, policy: PixelPolicy | None, wanted: object, brain: Bundle, request: pytest.FixtureRequest
) -> None:
    volume, mask = request.getfixturevalue(thing)
    task = VolumeSegmentation(brain)
    case = VolumeCase(volume, RAS, (), spacing_mm=MM2, policy=policy)
    if isinstance(wanted, tuple):
        with pytest.raises(InputRejected) as refusal:
            task.doubts(case, mask)
        assert (refusal.value.code, refusal.value.hold) == wanted
        return
    assert [note.code for note in task.doubts(case, mask)] == (
        [NoteCode.RESULT_DOUBTFUL] if wanted == "told" else []
    )


def test_an_administrator_who_overrules_the_filter_gets_a_result_that_tells_the_doubt(
    predictor: Predictor, tmp_path: Path
) -> None:
    files = series(tmp_path / "in", drawn(lambda _: v.sphere(70), v.rician(20)))
    found, told = ended(predictor, files, tmp_path / "out", Judge(open_rules()))
    assert found == DOUBTED
    assert isinstance(told, InferenceResult)


def test_the_golden_case_is_not_judged(
    brain: Bundle, sphere: tuple[NDArray[np.float32], NDArray[np.bool_]]
) -> None:
    task = VolumeSegmentation(brain)
    case = task.golden_case()
    assert case.policy is None
    assert task.doubts(case, case.volume > 100) == ()


def test_the_shipped_rules_accept_doubt_and_tell_it() -> None:
    policy = rules_of(source_of(BRAIN, None)).rules.pixels
    assert (policy.plausible, policy.unsure, policy.expected_anatomy) == ("reject", "accept", ("head_slice",))
    assert policy.enough < policy.sure
    assert PixelPolicy(sure=0.8).enough == 0.8


# --- the measures ---


def test_neither_size_nor_contrast_nor_voxels_change_what_a_head_is_like() -> None:
    volume, spacing = v.nifti(v.TEMPLATES / "ch2.nii.gz")
    bet, _ = v.nifti(v.TEMPLATES / "ch2bet.nii.gz")
    mask = bet > 0
    as_it_is = measure(volume, mask, spacing, organ())
    assert as_it_is.pattern > 0.8
    smaller = measure(volume, mask, (0.5, 0.5, 0.5), organ())
    assert smaller.volume_ml == pytest.approx(as_it_is.volume_ml / 8)
    assert smaller.pattern == pytest.approx(as_it_is.pattern, abs=0.01)
    thick = measure(volume[::3], mask[::3], (3.0, 1.0, 1.0), organ())
    assert thick.pattern == pytest.approx(as_it_is.pattern, abs=0.1)
    reversed_ = measure(volume.max() - volume, mask, spacing, organ())
    assert reversed_.pattern > 0.6


def test_a_bundle_may_state_a_volume_alone() -> None:
    ball, spacing = np.ones((60, 60, 60), dtype=np.float32), (1.0, 1.0, 1.0)
    mask = np.zeros_like(ball, dtype=np.bool_)
    mask[20:40, 20:40, 20:40] = True
    assert Limits().judge(ball, mask, spacing).grade == "plausible"
    assert Limits((1, 20)).judge(ball, mask, spacing).grade == "plausible"
    judged = Limits((10, 20)).judge(ball, mask, spacing)
    assert judged.grade == "doubtful"
    assert "8 ml" in judged.told


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"volume_ml": [5, 2]}, "volume_ml"),
        ({"volume_ml": [-1, 2]}, "volume_ml"),
        (
            {
                "likeness": {
                    "path": "a.npz",
                    "sha256": "0" * 64,
                    "doubtful_below": 0.1,
                    "implausible_below": 0.2,
                }
            },
            "implausible_below 0.2 is more",
        ),
        ({"volumes_ml": [1, 2]}, "volumes_ml"),
    ],
)
def test_limits_that_make_no_sense_are_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Plausible.model_validate(wrong)


def test_limits_measured_with_another_model_are_not_used(
    tmp_path: Path,
    sphere: tuple[NDArray[np.float32], NDArray[np.bool_]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(BRAIN, tmp_path / "other")
    with (tmp_path / "other/golden/head_phantom.npz").open("ab") as file:
        file.write(b"another model's answer")
    task = VolumeSegmentation(load_bundle(tmp_path / "other"))
    assert "measured with another model" in caplog.text
    volume, mask = sphere
    assert task.doubts(VolumeCase(volume, RAS, (), spacing_mm=MM2, policy=PixelPolicy()), mask) == ()


def test_a_mean_organ_that_was_changed_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "organ.npz"
    with pytest.raises(InferenceFailed, match="BUNDLE_INVALID"):
        read_organ(file, "0" * 64)
    file.write_bytes(b"nothing")
    with pytest.raises(InferenceFailed, match="WEIGHTS_MISMATCH"):
        read_organ(file, "0" * 64)


# --- radiographs, and findings that are accepted ---


@pytest.fixture(scope="module")
def radiographs() -> Predictor:
    bundle = load_bundle(RADIOGRAPHS)
    return Predictor(bundle, full_rung(bundle))


def doubts_of(predictor: Predictor, files: list[Path], folder: Path, rules: str = "") -> list[Note]:
    from outpost.filter.rulefile import parse_rules

    judge = Judge(parse_rules(rules.encode(), Path("rules"))) if rules else None
    case = predictor.read(files, judge)
    folder.mkdir()
    result = predictor.run(case, full_rung(predictor._bundle), folder, 1)
    return [note for note in result.notes if note.code == NoteCode.RESULT_DOUBTFUL]


def test_a_cat_tagged_as_a_chest_is_told_to_be_doubtful(radiographs: Predictor, tmp_path: Path) -> None:
    (told,) = doubts_of(radiographs, [packaged("deid-data", "cat.dcm")], tmp_path / "out")
    assert told.detail == "image 1 of 1: it shows other (0.92), which the model knows nothing of"


def test_of_two_images_the_doubtful_one_is_named(radiographs: Predictor, tmp_path: Path) -> None:
    files = [packaged("pydicom-data", "RG3_UNCR.dcm"), packaged("deid-data", "cat.dcm")]
    told = doubts_of(radiographs, files, tmp_path / "out", "identity: 'off' # they are of two\n")
    assert {note.detail.partition(":")[0] for note in told} == {"image 1 of 2", "image 2 of 2"}
    assert "cat" not in str(told)


def test_a_finding_that_the_rules_accept_is_doubt_in_the_result(
    radiographs: Predictor, tmp_path: Path
) -> None:
    rules = "pixels: {expected_anatomy: [chest_frontal], unsure: accept, plausible: 'off'}\n"
    cat = doubts_of(radiographs, [packaged("deid-data", "cat.dcm")], tmp_path / "cat", rules)
    assert [note.detail[:13] for note in cat] == ["PIXELS_UNSURE"]
    rules = "pixels: {expected_anatomy: [chest_frontal], anatomy: accept, plausible: 'off'}\n"
    leg = doubts_of(radiographs, [packaged("pydicom-data", "RG3_UNCR.dcm")], tmp_path / "leg", rules)
    assert [note.detail[:14] for note in leg] == ["PIXELS_ANATOMY"]


@pytest.mark.parametrize("code", PixelCode)
def test_each_accepted_finding_is_doubt_but_for_writing(code: PixelCode) -> None:
    found = with_doubt((Note(str(code), "seen"), Note(NoteCode.PIXELS_PADDED, "5")))
    assert found[0] == Note(code, "seen")
    assert found[-1].code == NoteCode.PIXELS_PADDED
    assert (Note(NoteCode.RESULT_DOUBTFUL, f"{code}: seen") in found) is (code is not PixelCode.PIXELS_TEXT)


def test_a_bundle_without_limits_doubts_nothing() -> None:
    from outpost.inference.radiograph import RadiographCase, RadiographClassification

    bundle = load_bundle(RADIOGRAPHS)
    manifest = read_manifest(RADIOGRAPHS / "outpost.yaml")
    plain = manifest.model_copy(update={"doubtful": type(manifest.doubtful)()})
    task = RadiographClassification(Bundle(bundle.path, bundle.name, bundle.version, plain))
    golden = task.golden_case()
    case = RadiographCase(golden.pixels, policy=PixelPolicy())
    answers = np.load(RADIOGRAPHS / "golden" / "chest_phantom.npy")
    assert task.doubts(case, answers) == ()
    assert len(RadiographClassification(bundle).doubts(case, answers)) >= 1
    assert RadiographClassification(bundle).doubts(golden, answers) == ()
