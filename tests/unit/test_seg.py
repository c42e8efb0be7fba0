"""The DICOM segmentation: where it comes from, how it was made, and that it is the same when made again."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from mr_series import AXIAL, SAGITTAL, ball, write_mr_series
from pydicom.dataset import Dataset

from outpost.demo.dice import dice_of_segmentation
from outpost.inference import load_bundle
from outpost.inference.copying import read_copied
from outpost.inference.header import read_header
from outpost.inference.stack import stack_slices
from outpost.results.grid import Grid
from outpost.results.provenance import Provenance, result_uid
from outpost.results.seg import write_segmentation

SEGMENT = load_bundle(Path(__file__).parents[2] / "service/bundles/brain_extraction").manifest.segment
MADE = Provenance("brain_extraction", "1.0.2", "torchscript 2.13.0", "float32", "full", "cpu")
VOLUME = ball((8, 20, 24), 500)
MASK = VOLUME > 45


def written(sources: list[Path], revision: int = 1, made: Provenance = MADE) -> Path:
    stack = stack_slices([read_header(file) for file in sources])
    images = [image.dataset for image in stack.images]
    copied = read_copied(stack.images[0])
    return write_segmentation(
        images, MASK, Grid(stack.affine), SEGMENT, made, revision, sources[0].parent, copied
    )


def segmentation(sources: list[Path], revision: int = 1, made: Provenance = MADE) -> Dataset:
    return pydicom.dcmread(written(sources, revision, made))


def test_it_names_what_it_shows_with_standard_codes(tmp_path: Path) -> None:
    segment = segmentation(write_mr_series(tmp_path, VOLUME)).SegmentSequence[0]
    assert segment.SegmentLabel == "Brain"
    shown = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (shown.CodeValue, shown.CodingSchemeDesignator, shown.CodeMeaning) == ("12738006", "SCT", "Brain")
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"


def test_it_says_how_it_was_made(tmp_path: Path) -> None:
    made = segmentation(write_mr_series(tmp_path, VOLUME), revision=2)
    algorithm = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("brain_extraction", "1.0.2")
    assert algorithm.AlgorithmParameters == (
        "engine=torchscript 2.13.0,precision=float32,rung=full,device=cpu,revision=2"
    )
    assert made.ContentDescription == "torchscript 2.13.0, float32, rung full"


def test_it_belongs_to_the_patient_and_study_of_its_source(tmp_path: Path) -> None:
    sources = write_mr_series(tmp_path, VOLUME)
    made, source = segmentation(sources), pydicom.dcmread(sources[0])
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"):
        assert made[keyword].value == source[keyword].value
    referenced = {
        instance.ReferencedSOPInstanceUID
        for instance in made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {pydicom.dcmread(file).SOPInstanceUID for file in sources}


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 144", "Гагарин^Юрий"), ("ISO_IR 192", "Гагарин^Юрий"), ("ISO_IR 100", "Müller^Jörg")],
)
def test_a_name_of_any_script_survives(tmp_path: Path, character_set: str, name: str) -> None:
    def named(image: Dataset, _: int) -> None:
        image.SpecificCharacterSet, image.PatientName = character_set, name

    assert str(segmentation(write_mr_series(tmp_path, VOLUME, edit=named)).PatientName) == name


@pytest.mark.parametrize(
    "keyword",
    "PatientName PatientID PatientSex PatientBirthDate AccessionNumber StudyID StudyDate StudyTime "
    "ReferringPhysicianName SliceThickness SpecificCharacterSet SeriesNumber".split(),
)
def test_a_source_without_an_attribute_still_gets_its_result(tmp_path: Path, keyword: str) -> None:
    def remove(image: Dataset, _: int) -> None:
        del image[keyword]

    assert segmentation(write_mr_series(tmp_path, VOLUME, edit=remove)).NumberOfFrames > 0


def test_a_sex_the_standard_does_not_know_is_left_out_not_changed_to_another(tmp_path: Path) -> None:
    def change(image: Dataset, _: int) -> None:
        image.PatientSex = "W"

    assert segmentation(write_mr_series(tmp_path, VOLUME, edit=change)).PatientSex == ""


def test_made_again_it_is_the_same_object(tmp_path: Path) -> None:
    sources = write_mr_series(tmp_path, VOLUME)
    one, other = segmentation(sources), segmentation(sources)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "PixelData"):
        assert one[keyword].value == other[keyword].value
    assert len(list(tmp_path.glob("2.25.*.dcm"))) == 1


def test_another_revision_or_model_is_another_object(tmp_path: Path) -> None:
    sources = write_mr_series(tmp_path, VOLUME)
    newer = Provenance("brain_extraction", "1.0.3", "torchscript 2.13.0", "float32", "full", "cpu")
    made = [segmentation(sources), segmentation(sources, revision=2), segmentation(sources, made=newer)]
    assert len({one.SOPInstanceUID for one in made}) == 3
    assert len({one.SeriesInstanceUID for one in made}) == 3


def test_a_result_uid_is_valid() -> None:
    uid = result_uid("1.2.3", 1, "model", "1", "segmentation")
    assert pydicom.uid.UID(uid).is_valid
    assert len(uid) <= 64


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_another_reader_finds_the_mask_where_it_was_drawn(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    sources = write_mr_series(tmp_path, VOLUME, orientation=orientation, slice_spacing=3)
    made = written(sources)
    affine = stack_slices([read_header(file) for file in sources]).affine
    reference = nibabel.Nifti1Image(
        MASK.transpose(2, 1, 0).astype(np.uint8), np.diag([-1, -1, 1, 1]) @ affine
    )
    reference.to_filename(tmp_path / "mask.nii.gz")
    assert dice_of_segmentation(made, tmp_path / "mask.nii.gz") == 1.0
