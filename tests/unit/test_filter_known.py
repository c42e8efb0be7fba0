"""Kinds known by name, held against every DICOM file that installed packages carry, and against made ones."""

from __future__ import annotations

import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest
from filter_headers import header, judged, packaged, rules, series
from pydicom.dataset import Dataset

from outpost.demo import TEMPLATES
from outpost.demo.series import write_series
from outpost.filter.rulefile import known_classes, load_rules, no_rules
from outpost.inference.codes import InputRejected
from outpost.inference.header import read_header, read_headers

BUNDLES: Final = Path(__file__).resolve().parents[2] / "service" / "bundles"
DIRS: Final = "pydicom/test_files/dicomdirtests"

# What in the packages is known to be no image for a model, by its path; the first pattern that fits counts.
# Everything else that is readable must pass. `-` is not readable as DICOM.
GARBAGE: Final = {
    f"{DIRS}/98892001/CT2N/*": "LOCALIZER",
    f"{DIRS}/98892003/MR1/*": "LOCALIZER",
    f"{DIRS}/98892003/MR2/*": "LOCALIZER",
    f"{DIRS}/98892003/MR700/*": "PROJECTION_IMAGE",
    # Directories, and the files of TINY_ALPHA, which have lost all that describes their pixels.
    f"{DIRS}/TINY_ALPHA/README": "-",
    f"{DIRS}/TINY_ALPHA/*": "NOT_AN_IMAGE",
    f"{DIRS}/DICOMDIR*": "NOT_AN_IMAGE",
    "pydicom/charset_files/chrSQEncoding*.dcm": "NOT_AN_IMAGE",
    "pydicom/charset_files/chr[JK]*Multi*.dcm": "",
    "pydicom/charset_files/chr*.dcm": "SECONDARY_CAPTURE",
    "pydicom/palettes/*": "PRESENTATION_STATE",
    "pydicom/test_files/*SQ.dcm": "NOT_AN_IMAGE",
    "pydicom/test_files/UN_sequence.dcm": "NOT_AN_IMAGE",
    "pydicom/test_files/empty_charset_LEI.dcm": "NOT_AN_IMAGE",
    "pydicom/test_files/meta_missing_tsyntax.dcm": "NOT_AN_IMAGE",
    "pydicom/test_files/no_meta_group_length.dcm": "NOT_AN_IMAGE",
    "pydicom/test_files/*NoMeta.dcm": "-",
    "pydicom/test_files/no_meta.dcm": "-",
    "pydicom/test_files/rtstruct.dcm": "-",
    "pydicom/test_files/badVR.dcm": "-",
    "pydicom/test_files/rt*.dcm": "RADIOTHERAPY_OBJECT",
    "pydicom/test_files/reportsi*.dcm": "STRUCTURED_REPORT",
    "pydicom/test_files/test-SR.dcm": "STRUCTURED_REPORT",
    "pydicom/test_files/waveform_ecg.dcm": "WAVEFORM",
    # Whole-body bone scans that were saved as secondary captures.
    "pydicom/test_files/JPEG*.dcm": "SECONDARY_CAPTURE",
    "pydicom/test_files/JPGExtended.dcm": "SECONDARY_CAPTURE",
    "pydicom/test_files/GDCMJ2K_TextGBR.dcm": "SECONDARY_CAPTURE",
    "pydicom/test_files/image_dfl.dcm": "SECONDARY_CAPTURE",
    "pydicom-data/JPEG*.dcm": "SECONDARY_CAPTURE",
    "pydicom-data/?lut_??.dcm": "SECONDARY_CAPTURE",
    "pydicom-data/OT-PAL-8-face.dcm": "-",
    "pydicom*/SC_*.dcm": "SECONDARY_CAPTURE",
    "pydicom*/liver*.dcm": "PROCESSED_RESULT",
    "deid-data/dicom-cookies/*": "SECONDARY_CAPTURE",
    # Slices of a CT, but photographed: 8 bits, YBR, SOP class Secondary Capture.
    "deid-data/humans/*": "SECONDARY_CAPTURE",
    # The cat passes every header rule, as it must: it is the pixels' turn.
    "deid-data/animals/cat.dcm": "",
}
# So many images of these are good and must pass: a package that lost files would make the test say less.
GOOD: Final = {"CT": 16, "MR": 20, "CR": 14, "DX": 1}


def expected(name: str) -> str:
    return next((code for pattern, code in GARBAGE.items() if fnmatch(name, pattern)), "")


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, Path]]:
    return [
        (name, file)
        for name, file in packaged()
        if file.suffix not in {".json", ".md", ".txt", ".zip", ".gz", ".icc", ".dump", ".xml"}
    ]


def test_every_file_of_the_packages_is_what_it_is_known_to_be_and_no_good_image_is_refused(
    corpus: list[tuple[str, Path]],
) -> None:
    wrong: list[str] = []
    good: dict[str, int] = {}
    for name, file in corpus:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = read_header(file)
                verdict = judged([image], no_rules())
            except InputRejected:
                found = "-"
            else:
                found = next(iter(verdict.left_out), "")
                if not found:
                    good[image.modality] = good.get(image.modality, 0) + 1
        if found != expected(name):
            wrong.append(f"{name}: {found or 'accepted'}, {expected(name) or 'accepted'} expected")
    assert not wrong, "\n".join(wrong)
    assert all(good[modality] >= count for modality, count in GOOD.items()), good


def test_the_bundles_rule_sets_refuse_no_good_image_of_their_modality(corpus: list[tuple[str, Path]]) -> None:
    """One image a series, mostly without the attributes rules ask for: nothing but MR, and CR or DX, is refused."""
    for bundle, modalities in (("brain_extraction", {"MR"}), ("radiograph_orientation", {"CR", "DX"})):
        file = load_rules(BUNDLES / bundle / "filter.yaml")
        for name, path in corpus:
            if expected(name):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = read_header(path)
                verdict = judged([image], file)
            assert (verdict.decision != "reject") is (image.modality in modalities), (
                bundle,
                name,
                verdict.findings,
            )


def test_a_good_head_series_passes_both_with_all_its_slices(tmp_path: Path) -> None:
    headers = read_headers(write_series(TEMPLATES / "ch2.nii.gz", tmp_path, seed="filter"))
    for file in (no_rules(), load_rules(BUNDLES / "brain_extraction" / "filter.yaml")):
        verdict = judged(headers, file)
        assert verdict.decision != "reject"
        assert len(verdict.accepted) == len(headers) == 181


def test_files_of_one_study_keep_their_images_and_lose_the_rest() -> None:
    """A CT of a heart with its scout, an MR of a brain with its pilots and the projections of its vessels."""
    for study, left, left_out in (
        ("98892001", 5, {"LOCALIZER": 2}),
        ("77654033", 7, {}),
    ):
        headers = [
            read_header(file)
            for name, file in packaged()
            if name.startswith(f"{DIRS}/{study}/") and "DICOMDIR" not in name
        ]
        verdict = judged(headers, no_rules())
        assert (verdict.decision, len(verdict.accepted), verdict.left_out) == ("accept", left, left_out)


def concept(code: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", "a title"
    return [item]


def equipment(manufacturer: str) -> list[Dataset]:
    item = Dataset()
    item.Manufacturer = manufacturer
    return [item]


SR = "1.2.840.10008.5.1.4.1.1.88.22"  # Enhanced SR
SC = "1.2.840.10008.5.1.4.1.1.7"

# Kind, and attributes that make an instance one; None stands for a missing attribute.
MADE: Final[list[tuple[str, dict[str, Any]]]] = [
    ("own-result", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Manufacturer": "Outpost"}),
    ("own-result", {"SOPClassUID": SR, "Modality": "SR", "Manufacturer": "Outpost"}),
    # What another system made of a result of ours.
    ("own-result", {"SOPClassUID": SC, "ContributingEquipmentSequence": equipment("Outpost")}),
    ("phantom", {"PatientName": "PHANTOM"}),
    ("phantom", {"PatientName": "ACR Phantom^MR 2"}),
    ("phantom", {"PatientName": "QA^^^"}),
    ("phantom", {"PatientID": "QC_0012"}),
    ("phantom", {"StudyDescription": "Weekly QA"}),
    ("phantom", {"SeriesDescription": "Air Cal"}),
    ("phantom", {"BodyPartExamined": "PHANTOM"}),
    ("phantom", {"QualityControlImage": "YES"}),
    ("phantom", {"StudyDescription": "Фантом, еженедельно", "SpecificCharacterSet": "ISO_IR 192"}),
    # Quality control comes before the clinical kinds.
    ("phantom", {"PatientName": "PHANTOM", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    ("dose-report", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}),
    ("dose-report", {"SOPClassUID": SR, "Modality": "SR", "ConceptNameCodeSequence": concept("113701")}),
    ("dose-report", {"SOPClassUID": SC, "SeriesDescription": "Patient Protocol", "Modality": "CT"}),
    ("dose-report", {"SOPClassUID": SC, "SeriesDescription": "Dose Report", "Modality": "CT"}),
    (
        "structured-report",
        {"SOPClassUID": SR, "Modality": "SR", "ConceptNameCodeSequence": concept("126000")},
    ),
    ("structured-report", {"SOPClassUID": None, "Modality": "SR"}),
    ("key-object", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.59", "Modality": "KO"}),
    ("presentation-state", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "Modality": "PR"}),
    ("document", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "Modality": "DOC"}),
    ("radiotherapy", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3", "Modality": "RTSTRUCT"}),
    ("waveform", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1", "Modality": "ECG"}),
    ("processed-result", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"}),
    ("processed-result", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Manufacturer": "Outpost demo"}),
    ("processed-result", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.1", "Modality": "REG"}),
    ("raw-data", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}),
    ("raw-data", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}),
    ("video", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1.1", "Modality": "ES"}),
    ("secondary-capture", {"SOPClassUID": SC}),
    ("secondary-capture", {"SOPClassUID": f"{SC}.4"}),
    ("secondary-capture", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
    ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    ("localizer", {"SeriesDescription": "3-plane loc"}),
    ("localizer", {"SeriesDescription": "Survey_SHC", "Modality": "MR"}),
    ("localizer", {"SeriesDescription": "Topogram 0.6 T20f", "Modality": None}),
    ("localizer", {"SeriesDescription": "AAHScout"}),
    ("radiotherapy", {"SOPClassUID": None, "Modality": "RTPLAN"}),
    ("dose-report", {"SeriesDescription": "Dose Report", "ImageType": None}),
    ("projection", {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}),
    ("projection", {"ImageType": ["DERIVED", "PRIMARY", "ANGIO", "MAX_IP"]}),
    ("reformatted", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    ("parametric", {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}),
    ("derived", {"ImageType": ["DERIVED", "PRIMARY"]}),
    ("not-an-image", {"Rows": None, "Columns": None, "BitsAllocated": None}),
]


def test_every_kind_is_made_below_or_above() -> None:
    assert {kind for kind, _ in MADE} == set(known_classes())


@pytest.mark.parametrize(("kind", "attributes"), MADE)
def test_an_instance_of_a_kind_is_left_out_by_its_code_and_kept_where_the_rule_set_says(
    tmp_path: Path, kind: str, attributes: dict[str, Any]
) -> None:
    images = [header(tmp_path, **attributes)]
    code = known_classes()[kind].code
    assert judged(images, rules(f"known: {{{kind}: exclude}}")).left_out == {code: 1}
    kept = ", ".join(f"{name}: keep" for name in known_classes())
    assert judged(images, rules(f"known: {{{kept}}}")).decision == "accept"
    verdict = judged(images, no_rules())
    assert bool(verdict.left_out) is (known_classes()[kind].default == "exclude")


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientName": "Fantomas^Ivan"},
        {"PatientName": "Phantomova^Anna"},
        {"PatientID": "QA77-1234"},
        {"PatientID": "QA 1042"},
        {"PatientID": "QC000123"},
        {"StudyDescription": "MRI brain, phantom limb pain"},
        {"SeriesDescription": "T1 head phantom limb"},
        {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
            "SeriesDescription": "skeletal survey",
            "Modality": None,
        },
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "SeriesDescription": "scanogram", "Modality": "RG"},
        {"StudyDescription": "QAnd A clinic, acr joint"},
        {"SeriesDescription": "Bone survey", "Modality": "CR"},
        {"SeriesDescription": "local shim t1"},
        {"SeriesDescription": "T1 after dose 2", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {
            "ImageType": ["DERIVED", "SECONDARY", "OTHER"]
        },  # pydicom's MR_small says so, and many a sound image
        {"ImageType": None},
        {"ImageType": None, "Modality": None, "SOPClassUID": None, "PatientName": None, "PatientID": None},
        {"ConversionType": "DV"},  # a sound CT of pydicom-data says so
    ],
)
def test_what_only_looks_like_a_kind_is_kept(tmp_path: Path, attributes: dict[str, Any]) -> None:
    assert judged([header(tmp_path, **attributes)], no_rules()).decision == "accept"


def test_a_long_series_called_survey_is_no_localizer(tmp_path: Path) -> None:
    short = series(tmp_path, [float(n) for n in range(9)], SeriesDescription="survey")
    long = series(tmp_path, [float(n) for n in range(70)], SeriesDescription="survey")
    assert judged(short, no_rules()).left_out == {"LOCALIZER": 9}
    assert judged(long, no_rules()).decision == "accept"


def test_no_attribute_that_is_missing_makes_a_good_image_a_bad_one(tmp_path: Path) -> None:
    """Each attribute of a real CT taken away in turn, then all that a reader can do without."""
    file = next(file for name, file in packaged() if name == f"{DIRS}/77654033/CT2/17106")
    whole = read_header(file).dataset
    keywords = [element.keyword for element in whole if element.keyword]
    assert len(keywords) > 50
    for taken in keywords:
        image = read_header(file)
        del image.dataset[taken]
        assert judged([image], no_rules()).decision == "accept", taken
    image = read_header(file)
    for taken in set(keywords) - {"Rows", "Columns", "BitsAllocated"}:
        del image.dataset[taken]
    assert judged([image], no_rules()).decision == "accept"
