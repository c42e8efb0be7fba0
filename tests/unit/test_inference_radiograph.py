"""The radiograph task on real DICOM files, and the bundle's own network on its golden case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from scipy import ndimage

from outpost.inference.bundle import Bundle, RadiographManifest, full_rung, load_bundle
from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.header import read_headers
from outpost.inference.predictor import Predictor
from outpost.inference.radiograph import (
    HEADS,
    RadiographCase,
    RadiographClassification,
    RadiographNetwork,
    chest_phantoms,
    finding,
    standardise,
)

STUDY = "1.2.826.0.1.3680043.8.498.7"
ANSWERS = sum(HEADS.values())


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(Path(__file__).parents[2] / "service/bundles/radiograph_orientation")


@pytest.fixture(scope="module")
def task(bundle: Bundle) -> RadiographClassification:
    return RadiographClassification(bundle)


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, full_rung(bundle))


def packaged(package: str, file: str) -> Path:
    return Path(str(distribution(package).locate_file(file)))


def chest() -> Path:
    """A real chest radiograph, CR, MONOCHROME1, 1841 x 1955."""
    return packaged("pydicom-data", "data_store/data/RG1_UNCR.dcm")


def radiograph(
    folder: Path,
    pixels: np.ndarray,
    name: str = "1",
    photometric: str = "MONOCHROME2",
    edit: Callable[[Dataset], None] = lambda image: None,
) -> Path:
    """A CR image file of these unsigned 16-bit pixels."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = ComputedRadiographyImageStorage
    image.SOPInstanceUID, image.SeriesInstanceUID = f"{STUDY}.1.{name}", f"{STUDY}.1"
    image.StudyInstanceUID = STUDY
    image.Modality = "CR"
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = photometric
    image.Rows, image.Columns = pixels.shape[-2:]
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = pixels.astype("<u2").tobytes()
    edit(image)
    file = folder / f"{name}.dcm"
    image.save_as(file, enforce_file_format=True)
    return file


def picture(seed: int = 1) -> np.ndarray:
    """Clouds: nothing that the pixel verdict would take for a panel or a blank."""
    coarse = np.random.default_rng(seed).uniform(0, 4095, (20, 15))
    return ndimage.zoom(coarse, 16, order=1).astype(np.uint16)


def rejected(task: RadiographClassification, *files: Path) -> Code:
    with pytest.raises(InputRejected) as refusal:
        task.read(read_headers(files))
    return refusal.value.code


def test_both_photometric_interpretations_of_one_image_give_one_answer(
    tmp_path: Path, task: RadiographClassification, predictor: Predictor
) -> None:
    real = pydicom.dcmread(chest())
    assert real.PhotometricInterpretation == "MONOCHROME1"
    stored = real.pixel_array
    other = radiograph(tmp_path, 32767 - stored, photometric="MONOCHROME2")
    inferer = predictor.inferer("full")
    one, two = (task.compute(task.read(read_headers([file])), inferer, 8) for file in (chest(), other))
    assert np.abs(one - two).max() < 1e-3
    lying = radiograph(tmp_path, stored, name="2", photometric="MONOCHROME2")
    assert task.compute(task.read(read_headers([lying])), inferer, 8)[0, -1] != pytest.approx(
        one[0, -1], abs=0.1
    )


def test_lossless_jpeg_2000_of_a_real_radiograph_gives_the_answer_of_the_raw_one(
    task: RadiographClassification, predictor: Predictor
) -> None:
    packed = packaged("pydicom-data", "data_store/data/RG1_J2KR.dcm")
    one, two = (task.read(read_headers([file])).pixels for file in (chest(), packed))
    assert torch.equal(one, two)


def test_a_rescale_that_falls_reverses_what_is_seen_and_one_that_rises_changes_nothing(
    tmp_path: Path, task: RadiographClassification
) -> None:
    def rescale(slope: str) -> Callable[[Dataset], None]:
        def edit(image: Dataset) -> None:
            image.RescaleSlope, image.RescaleIntercept = slope, "7"

        return edit

    plain = task.read(read_headers([radiograph(tmp_path, picture())])).pixels
    rising = task.read(read_headers([radiograph(tmp_path, picture(), edit=rescale("2"))])).pixels
    falling = task.read(read_headers([radiograph(tmp_path, picture(), edit=rescale("-1"))])).pixels
    assert torch.equal(plain, rising)
    assert torch.equal(plain, -falling)


def test_an_image_without_a_picture_is_rejected_by_its_code(
    tmp_path: Path, task: RadiographClassification
) -> None:
    assert rejected(task, radiograph(tmp_path, np.zeros((200, 200)))) == Code.PIXELS_CONSTANT
    assert rejected(task, radiograph(tmp_path, np.full((200, 200), 9))) == Code.PIXELS_CONSTANT


def test_one_blank_image_is_reported_beside_one_that_was_read(
    tmp_path: Path, bundle: Bundle, predictor: Predictor
) -> None:
    files = [radiograph(tmp_path, picture()), radiograph(tmp_path, np.zeros((200, 200)), name="2")]
    case = predictor.read(files)
    result = predictor.run(case, full_rung(bundle), tmp_path, 1)
    assert "Image 2: Not read: PIXELS_CONSTANT" in pydicom.dcmread(result.files[0]).to_json()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Modality", "MG"),
        ("PhotometricInterpretation", "PALETTE COLOR"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
        ("ImageType", ["DERIVED", "PRIMARY", "LOCALIZER"]),
    ],
)
def test_what_the_rules_do_not_name_is_not_read(
    tmp_path: Path, task: RadiographClassification, keyword: str, value: str
) -> None:
    file = radiograph(tmp_path, picture(), edit=lambda image: setattr(image, keyword, value))
    assert rejected(task, file) == Code.NO_SERIES_FOR_BUNDLE


def test_several_frames_are_refused(tmp_path: Path, task: RadiographClassification) -> None:
    def frames(image: Dataset) -> None:
        image.NumberOfFrames = 2

    file = radiograph(tmp_path, np.stack([picture(1), picture(2)]), edit=frames)
    assert rejected(task, file) == Code.NO_SERIES_FOR_BUNDLE


def test_images_come_in_one_order_however_the_files_do(
    tmp_path: Path, task: RadiographClassification
) -> None:
    files = [radiograph(tmp_path, picture(number), name=str(number)) for number in range(3)]
    forth, back = task.read(read_headers(files)), task.read(read_headers(files[::-1]))
    assert torch.equal(forth.pixels, back.pixels)
    assert forth.shape == (3, 512, 512)


def test_broken_outputs_are_not_results(task: RadiographClassification) -> None:
    case = RadiographCase(torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(1)))
    ramp = torch.arange(ANSWERS, dtype=torch.float32)

    def failed(answer: Callable[[torch.Tensor], torch.Tensor]) -> Code:
        with pytest.raises(InferenceFailed) as failure:
            task.compute(case, answer, 2)
        return failure.value.code

    assert failed(lambda pixels: torch.full((len(pixels), ANSWERS), torch.nan)) == Code.OUTPUT_NOT_FINITE
    assert failed(lambda pixels: torch.zeros(len(pixels), ANSWERS)) == Code.OUTPUT_CONSTANT
    assert failed(lambda pixels: ramp.repeat(len(pixels), 1)) == Code.OUTPUT_CONSTANT
    assert failed(lambda pixels: torch.rand(len(pixels), 2)) == Code.BUNDLE_INVALID
    with pytest.raises(InferenceFailed, match="OUTPUT_CONSTANT"):
        task.compute(RadiographCase(case.pixels[:1]), lambda pixels: torch.zeros(1, ANSWERS), 2)
    # The same image sent three times may have one answer.
    same = RadiographCase(case.pixels[:1].repeat(3, 1, 1))
    assert task.compute(same, lambda pixels: ramp.repeat(len(pixels), 1), 2).shape == (3, ANSWERS)


def test_grey_values_do_not_depend_on_the_scale_of_the_sender() -> None:
    image = torch.rand(64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(standardise(image), standardise(image * 4000 - 1000), atol=1e-3)
    assert standardise(image).min() == -2
    assert standardise(image).max() == 2


def test_each_question_of_an_image_has_probabilities_that_sum_to_one(
    task: RadiographClassification, predictor: Predictor
) -> None:
    answers = task.compute(task.golden_case(), predictor.inferer("full"), 8)
    assert answers[:, :3].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert answers[:, 3:7].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert ((answers >= 0) & (answers <= 1)).all()


def test_of_what_is_no_chest_it_is_not_said_how_it_lies() -> None:
    leg = np.array([0.1, 0.1, 0.8, 0.9, 0.1, 0, 0, 0.9, 0.9], dtype=np.float32)
    assert "turned" not in finding(leg)
    chest_turned = np.array([0.9, 0.1, 0, 0, 0, 1, 0, 0.9, 0.2], dtype=np.float32)
    assert "turned by 180 degrees" in finding(chest_turned)
    assert finding(chest_turned).endswith("; grey values as usual (0.80).")


def test_mirroring_is_not_told_because_it_was_measured_to_be_chance(
    tmp_path: Path, bundle: Bundle, predictor: Predictor
) -> None:
    result = predictor.run(predictor.read([chest()]), full_rung(bundle), tmp_path, 1)
    assert "mirrored" not in pydicom.dcmread(result.files[0]).to_json().lower()


def test_the_golden_case_passes_at_every_size_and_batch(bundle: Bundle, predictor: Predictor) -> None:
    full = full_rung(bundle)
    for size in bundle.manifest.sizes:
        for batch in bundle.manifest.batches:
            verdict = predictor.golden(dataclasses.replace(full, size=size.name, batch=batch))
            assert verdict.ok, verdict
            assert verdict.metric == "max_abs"


def test_another_answer_fails_the_golden_case(
    bundle: Bundle, task: RadiographClassification, predictor: Predictor
) -> None:
    answers = predictor.golden_output(full_rung(bundle))
    expected = bundle.path / bundle.manifest.golden.expected
    wrong = answers.copy()
    wrong[3, 7] += 0.05
    assert task.compare(answers, expected, 0.02)[0]
    ok, off = task.compare(wrong, expected, 0.02)
    assert not ok
    assert off == pytest.approx(0.05, abs=1e-3)


def test_the_golden_case_is_eight_different_pictures() -> None:
    pictures = chest_phantoms()
    assert pictures.shape == (8, 512, 512)
    assert len({one.tobytes() for one in pictures}) == 8


def test_a_study_of_one_image_ends_as_a_report_with_its_rung(
    tmp_path: Path, bundle: Bundle, predictor: Predictor
) -> None:
    rung = dataclasses.replace(full_rung(bundle), name="batch-1", batch=1)
    result = predictor.run(predictor.read([chest()]), rung, tmp_path, 3)
    report = pydicom.dcmread(result.files[0])
    assert report.Modality == "SR"
    assert report.SeriesDescription.startswith("DOUBTFUL, REDUCED.")
    assert report.StudyInstanceUID == pydicom.dcmread(chest(), stop_before_pixels=True).StudyInstanceUID
    assert "revision = 3" in report.to_json()


def test_the_turns_of_the_real_chest_and_its_reversal_are_told(
    task: RadiographClassification, predictor: Predictor
) -> None:
    """One image, never trained on: no proof of quality (docs/models.md), but what must not get lost."""
    upright = task.read(read_headers([chest()])).pixels[0]
    turned = [torch.rot90(upright, turns) for turns in range(4)]
    case = RadiographCase(torch.stack([*turned, -upright]))
    answers = task.compute(case, predictor.inferer("full"), 8)
    assert answers[:, 3:7].argmax(axis=1).tolist() == [0, 1, 2, 3, 0]
    assert (answers[:, 8] > 0.5).tolist() == [False, False, False, False, True]


def test_the_manifest_is_read_by_the_rules_of_its_task(bundle: Bundle) -> None:
    assert isinstance(bundle.manifest, RadiographManifest)
    assert bundle.weights["classifier"].stat().st_size < 3 << 20


def test_the_inferer_brings_images_to_the_size_it_was_given() -> None:
    seen: list[torch.Size] = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape)
        return torch.zeros(len(images), ANSWERS)

    RadiographNetwork(network, 160, "cpu")(torch.rand(2, 512, 512))
    assert seen == [torch.Size((2, 1, 160, 160))]
