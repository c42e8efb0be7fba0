"""Whatever stands in an attribute that is read, reading a study ends in a case or in one code, and never in an error.

Each attribute that the code looks at is set to what scanners and gateways have been seen to write, and to worse, in its
own VR and in others; the number in a failed test's name makes the file again.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hostile import (
    IDENTITY,
    VALUES,
    Elements,
    elements_of,
    get,
    hostile,
    new_instance,
    part10,
    put,
    tag,
    truncated,
)
from mr_series import ball, write_mr_series
from mutated_dicom import SEED as MUTATED_SEED
from mutated_dicom import mutated
from pydicom.uid import (
    GrayscaleSoftcopyPresentationStateStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from outpost.drift import observe
from outpost.drift.tags import HEADER
from outpost.filter.facts import FACTS
from outpost.filter.identity import require_one_patient
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.rulefile import RuleFile, load_rules, no_rules, parse_rules
from outpost.filter.verdict import Judge
from outpost.inference import broken
from outpost.inference.bundle import VolumeManifest, load_bundle
from outpost.inference.codes import Code, InputRejected, StudyIncomplete
from outpost.inference.header import ImageHeader, Unreadable, counted, read_study
from outpost.inference.task import Case, Task, make_task

SEED = 20261130
BUNDLES = Path(__file__).parents[2] / "service" / "bundles"
SLICES = 8
# All that is read anywhere between the files and the model; `test_no_attribute_is_forgotten` holds it to the code.
READ = tuple(
    dict.fromkeys(
        """
    SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality Manufacturer
    ManufacturerModelName SeriesDescription StudyDescription StudyDate StudyTime PatientName PatientID PatientBirthDate
    PatientSex PatientAge IssuerOfPatientID OtherPatientIDs OtherPatientIDsSequence BodyPartExamined ViewPosition
    SliceThickness SpacingBetweenSlices KVP Exposure SeriesNumber InstanceNumber ImagePositionPatient
    ImageOrientationPatient FrameOfReferenceUID SamplesPerPixel PhotometricInterpretation PlanarConfiguration
    NumberOfFrames Rows Columns PixelSpacing ImagerPixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation
    RescaleSlope RescaleIntercept WindowCenter WindowWidth SharedFunctionalGroupsSequence AcquisitionNumber
    QualityControlImage BurnedInAnnotation ConversionType ProtocolName AccessionNumber StudyID ReferringPhysicianName
    PixelPaddingValue LossyImageCompression ContrastBolusAgent
    """.split()
    )
)
MUTABLE = tuple(keyword for keyword in READ if keyword not in IDENTITY)

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, about what we wrote on purpose


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Elements]:
    files = write_mr_series(tmp_path_factory.mktemp("series"), ball((SLICES, 64, 64)), slice_spacing=6)
    return sorted((elements_of(file) for file in files), key=lambda one: int(get(one, "InstanceNumber")))


@pytest.fixture(scope="module")
def judges() -> list[Judge]:
    """The rule sets of the bundles, and one that asks for every attribute and fact."""
    texts = [
        f"  - {{name: t{n}, scope: series, missing: accept, unmet: pixels, require: {{tag: {keyword}, matches: x}}}}"
        for n, keyword in enumerate(one for one in READ if not one.endswith("Sequence"))
    ]
    texts += [
        f"  - {{name: f{n}, scope: {scope}, missing: accept, unmet: pixels, require: {{fact: {fact}, exists: true}}}}"
        for n, (fact, scope) in enumerate((fact, scope) for fact in FACTS for scope in FACTS[fact].scopes)
    ]
    everything = parse_rules(("rules:\n" + "\n".join(texts) + "\n").encode(), Path("everything"))
    shipped: list[RuleFile] = [load_rules(path) for path in sorted(BUNDLES.glob("*/filter.yaml"))]
    return [Judge(rules) for rules in (no_rules(), everything, *shipped)]


@cache
def task(name: str) -> Task:
    """Of a bundle, but for a series as small as ours."""
    bundle = load_bundle(BUNDLES / name)
    loose = {"min_slices": 2, "min_extent_mm": 10, "max_slice_spacing_mm": 10}
    if not isinstance(bundle.manifest, VolumeManifest):
        loose = {"min_pixels": 32}
    rules = bundle.manifest.input.model_copy(update=loose)  # type: ignore[attr-defined]  # of both kinds
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"input": rules}))
    return make_task(bundle)


def read_as_the_child_does(paths: list[Path], judges: list[Judge], bundle: str) -> Case:
    """What `Predictor.read` does with the headers of a study, with every rule set."""
    headers, unreadable = read_study(paths)
    broken.require_something(unreadable, len(headers))
    require_one_patient([*headers, *unreadable], "off")
    assert observe.of_headers((header.series_instance_uid, header.dataset) for header in headers) is not None
    taken: tuple[ImageHeader, ...] = ()
    for judge in judges[:2]:
        taken = broken.counted_in(judge(headers), unreadable).accepted or taken
    for judge in judges[2:]:
        judge(headers)
    # What the pixels show is judged elsewhere (test_pixel_verdict.py), and a ball in noise shows nothing.
    policy = PixelPolicy(blank="off", screen_capture="off") if bundle == "brain_extraction" else None
    return task(bundle).read(taken or headers, policy, ())


@pytest.mark.parametrize("bundle", ["brain_extraction", "radiograph_orientation"])
def test_no_value_makes_reading_raise(
    tmp_path: Path, slices: list[Elements], judges: list[Judge], bundle: str
) -> None:
    ends: Counter[str] = Counter()
    quoted: list[str] = []
    for number in range(120):
        chance = random.Random(f"{SEED}:{number}")
        study = [dict(one) for one in slices]
        if bundle == "radiograph_orientation":
            study = study[:2]
            for one in study:
                put(one, "SOPClassUID", b"1.2.840.10008.5.1.4.1.1.1\0")
                put(one, "Modality", b"CR")
        changed, told = hostile(chance, study[1], MUTABLE)
        study[1] = changed
        if chance.random() < 0.3:  # as a scanner does it: in every image
            for one in study:
                one.update({tag(word.split()[0]): changed[tag(word.split()[0])] for word in told.split("; ")})
        paths = []
        for index, one in enumerate(study):
            paths.append(tmp_path / f"{index}.dcm")
            paths[-1].write_bytes(part10(one))
        try:
            read_as_the_child_does(paths, judges, bundle)
            ends["a case"] += 1
        except (InputRejected, StudyIncomplete) as rejection:
            ends[str(getattr(rejection, "code", "incomplete"))] += 1
            quoted += [told] if "%s%n" in str(rejection) else []
        except Exception as error:
            raise AssertionError(f"number {number}: {told}: {type(error).__name__}") from error
    assert not quoted, "a value stands in the reason"
    assert ends["a case"] > 10, ends
    assert len(ends) > 2, ends


NAMING = (
    "SeriesNumber SeriesDescription StudyDescription StudyDate StudyTime PatientName PatientID PatientBirthDate "
    "PatientSex PatientAge AccessionNumber StudyID ReferringPhysicianName InstanceNumber ProtocolName Manufacturer "
    "ManufacturerModelName SpecificCharacterSet IssuerOfPatientID OtherPatientIDs AcquisitionNumber WindowCenter"
).split()


@pytest.mark.parametrize("keyword", NAMING)
def test_a_value_that_only_names_something_costs_no_study(
    tmp_path: Path, slices: list[Elements], keyword: str
) -> None:
    judges = [Judge(no_rules())] * 2
    values = [one for one in VALUES if keyword != "SpecificCharacterSet" or b"\0" not in one]
    for number, value in enumerate(values):
        paths = []
        for index, one in enumerate(slices):
            changed = dict(one)
            put(changed, keyword, value)
            paths.append(tmp_path / f"{number}-{index}.dcm")
            paths[-1].write_bytes(part10(changed))
        case = read_as_the_child_does(paths, judges, "brain_extraction")
        assert case.shape == (64, 64, SLICES), value


def unread(path: Path) -> Unreadable:
    headers, unreadable = read_study([path])
    assert not headers
    [found] = unreadable
    return found


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"])
@pytest.mark.parametrize("value", [b"N/A", b"\0", b"-1", b"1\\2", b"1.5"])
def test_a_malformed_value_that_decides_makes_its_object_unreadable_and_is_not_told(
    tmp_path: Path, slices: list[Elements], keyword: str, value: bytes
) -> None:
    changed = dict(slices[0])
    put(changed, keyword, value, "IS")
    file = tmp_path / "x.dcm"
    file.write_bytes(part10(changed))
    if value == b"\0":  # nothing but padding: as if it were not there
        headers, unreadable = read_study([file])
        assert len(headers) == 1
        assert not unreadable
        return
    found = unread(file)
    assert (found.sop_class_uid, found.series_instance_uid) == (
        MRImageStorage,
        get(changed, "SeriesInstanceUID"),
    )
    assert re.fullmatch(rf"1 of MR Image Storage: {keyword} \(\w+\)", counted([found]))


def test_a_torn_file_says_at_least_of_which_class_and_series_it_seems_to_be(
    tmp_path: Path, slices: list[Elements]
) -> None:
    whole = part10(slices[0])
    series = whole.index(get(slices[0], "SeriesInstanceUID").encode())
    seen = Counter[bool]()
    for torn in (
        whole[: series + 40] + b"\xff" * 40,
        whole[: series + 70] + b"\x08\0\x70\0SQ\0\0\xff\xff\xff\xff\0\0",
    ):
        file = tmp_path / "torn.dcm"
        file.write_bytes(torn)
        headers, unreadable = read_study([file])
        seen[bool(unreadable)] += 1
        for one in (*headers, *unreadable):
            assert one.sop_class_uid == MRImageStorage
    assert seen[True] > 0
    for number in range(40):
        for torn in truncated(random.Random(number), whole):
            file.write_bytes(torn)
            headers, unreadable = read_study([file])  # never raises
            assert len(headers) + len(unreadable) == 1
    file.write_bytes(b"not DICOM at all")
    assert unread(file).class_name == "no known class"


def test_a_broken_object_of_another_kind_is_left_out_and_one_of_the_series_is_not(
    tmp_path: Path, slices: list[Elements]
) -> None:
    paths = []
    for index, one in enumerate(slices):
        paths.append(tmp_path / f"{index}.dcm")
        paths[-1].write_bytes(part10(one))
    extra = new_instance(slices[0], 1)
    put(extra, "NumberOfFrames", b"N/A")
    for kind, series, ends in (
        (SecondaryCaptureImageStorage, "1.2.3", False),
        (GrayscaleSoftcopyPresentationStateStorage, get(extra, "SeriesInstanceUID"), False),
        (MRImageStorage, "1.2.3", False),
        (MRImageStorage, get(extra, "SeriesInstanceUID"), True),
    ):
        put(extra, "SOPClassUID", kind.encode())
        put(extra, "SeriesInstanceUID", series.encode())
        (tmp_path / "extra.dcm").write_bytes(part10(extra))
        headers, unreadable = read_study([*paths, tmp_path / "extra.dcm"])
        assert (len(headers), len(unreadable)) == (SLICES, 1)
        wanted = broken.wanted_of(unreadable, [MRImageStorage])
        images = [header.dataset for header in headers]
        if ends:
            with pytest.raises(InputRejected, match="1 objects that seem to be of the series") as refused:
                broken.require_no_part(wanted, images)
            assert refused.value.code == Code.HEADER_UNREADABLE
        else:
            broken.require_no_part(wanted, images)
            [note] = broken.notes_of(unreadable, [])
            assert note.code == "OBJECT_LEFT_OUT"
            assert note.detail.startswith("1 of ")
            assert "NumberOfFrames" in note.detail


def test_no_attribute_is_forgotten() -> None:
    """Every keyword in the code that reads is among those that are mutated."""
    service = Path(__file__).parents[2] / "service" / "outpost"
    text = "".join(
        (service / file).read_text(encoding="utf-8")
        for file in (
            "inference/header.py",
            "inference/series.py",
            "inference/radiograph.py",
            "filter/facts.py",
            "filter/identity.py",
            "filter/thumbnail.py",
            "filter/pixels.py",
            "drift/observe.py",
        )
    )
    asked = set(
        re.findall(
            r'(?:get|_number|_text|_words|_floats|_deciding|_measure|_listed)\([^()"]*"([A-Z]\w+)"', text
        )
    )
    asked |= set(HEADER)
    assert len(asked) > 25
    assert asked <= set(READ)


def test_mutated_files_are_read_or_counted_and_never_raise(tmp_path: Path) -> None:
    """The files that intake is tried with, past intake: a disk may do to them what intake would have refused."""
    judge = Judge(no_rules())
    seen = Counter[str]()
    for number in range(400):
        file = tmp_path / "x.dcm"
        file.write_bytes(mutated(MUTATED_SEED, number))
        headers, unreadable = read_study([file])
        require_one_patient([*headers, *unreadable, *headers], "off")
        observe.of_headers((header.series_instance_uid, header.dataset) for header in headers)
        seen[judge(headers).decision if headers else "unreadable"] += 1
        for one in unreadable:
            assert re.fullmatch(r"1 of [\w ,.()/-]+: [\w ,()]+", counted([one])), f"number {number}"
    assert min(seen["unreadable"], seen["accept"]) > 20, seen
