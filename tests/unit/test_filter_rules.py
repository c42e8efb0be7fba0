"""The rule language: operators, unknown attributes, nesting, scopes, and what a wrong file is answered with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from filter_headers import header, judged, rule, rules, series
from pydicom.dataset import Dataset

from outpost.filter.codes import FILTER_REASONS, SITE_REASON, FilterCode
from outpost.filter.conditions import ready
from outpost.filter.rulefile import RulesInvalid, known_classes, load_rules
from outpost.filter.rules import OPERATORS, Condition
from outpost.inference.codes import InputRejected
from outpost.reasons import explain

ATTRIBUTES: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "", "NORM"],
    "SeriesDescription": "t1_MPRAGE sag",
    "SliceThickness": "1.5",
    "InstanceNumber": 7,
    "PatientAge": "018M",
    "PixelSpacing": [0.5, 0.25],
    "PatientIdentityRemoved": "NO",
    "EchoTime": "",
}

HOLDS, FAILS, UNKNOWN = True, False, None


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ("{tag: Modality, equals: MR}", HOLDS),
        ("{tag: Modality, equals: mr}", HOLDS),  # senders differ in case
        ("{tag: Modality, equals: CT}", FAILS),
        ("{tag: Modality, in: [CT, MR]}", HOLDS),
        ("{tag: Modality, in: [CT, CR]}", FAILS),
        ("{tag: PatientIdentityRemoved, equals: NO}", HOLDS),  # YAML 1.1 would read false
        ("{tag: SeriesDescription, contains: mprage}", HOLDS),
        ("{tag: SeriesDescription, contains: flair}", FAILS),
        ("{tag: SeriesDescription, matches: '^T1.*sag$'}", HOLDS),
        ("{tag: SeriesDescription, matches: '^sag'}", FAILS),
        ("{tag: SliceThickness, equals: 1.50}", HOLDS),  # as numbers, not as text
        ("{tag: SliceThickness, equals: '1.5'}", HOLDS),
        ("{tag: SliceThickness, at_least: 1.5}", HOLDS),
        ("{tag: SliceThickness, more_than: 1.5}", FAILS),
        ("{tag: SliceThickness, at_most: 1.5}", HOLDS),
        ("{tag: SliceThickness, less_than: 1.5}", FAILS),
        ("{tag: SliceThickness, between: [1, 2]}", HOLDS),
        ("{tag: SliceThickness, between: [2, 3]}", FAILS),
        ("{tag: InstanceNumber, in: [6, 7]}", HOLDS),
        ("{tag: PatientAge, between: [1.4, 1.6]}", HOLDS),  # 18 months in years
        ("{tag: PatientAge, at_least: 18}", FAILS),
        ("{tag: SeriesDescription, at_least: 1}", UNKNOWN),  # no number
        # Multiplicity: any value unless all are asked for, or one by its place.
        ("{tag: ImageType, equals: NORM}", HOLDS),
        ("{tag: ImageType, value: 1, equals: ORIGINAL}", HOLDS),
        ("{tag: ImageType, value: 2, equals: ORIGINAL}", FAILS),
        ("{tag: ImageType, value: 3, equals: AXIAL}", UNKNOWN),  # there, but empty
        ("{tag: ImageType, value: 5, equals: AXIAL}", UNKNOWN),
        ("{tag: PixelSpacing, at_most: 0.3}", HOLDS),
        ("{tag: PixelSpacing, values: all, at_most: 0.3}", FAILS),
        ("{tag: PixelSpacing, values: all, at_most: 0.5}", HOLDS),
        # Missing is unknown, but for `exists`.
        ("{tag: BodyPartExamined, equals: HEAD}", UNKNOWN),
        ("{tag: EchoTime, at_least: 1}", UNKNOWN),
        ("{tag: BodyPartExamined, exists: true}", FAILS),
        ("{tag: BodyPartExamined, exists: false}", HOLDS),
        ("{tag: EchoTime, exists: true}", FAILS),  # there, but empty
        ("{tag: Modality, exists: true}", HOLDS),
        ("{tag: Modality, exists: false}", FAILS),
        # UIDs by keyword or by themselves.
        ("{tag: SOPClassUID, equals: MRImageStorage}", HOLDS),
        ("{tag: SOPClassUID, in: [CTImageStorage, 1.2.840.10008.5.1.4.1.1.4]}", HOLDS),
        ("{tag: SOPClassUID, equals: CTImageStorage}", FAILS),
        ("{tag: TransferSyntaxUID, equals: ExplicitVRLittleEndian}", HOLDS),  # of the file's meta information
        # Into sequences: any item counts.
        ("{tag: AnatomicRegionSequence.CodeValue, equals: 'T-A0100'}", HOLDS),
        ("{tag: AnatomicRegionSequence.CodeValue, equals: 'T-D1100'}", HOLDS),
        ("{tag: AnatomicRegionSequence.CodeValue, equals: 'T-00000'}", FAILS),
        ("{tag: ProcedureCodeSequence.CodeValue, equals: X}", UNKNOWN),
    ],
)
def test_a_condition_on_an_attribute_is_true_false_or_unknown(
    tmp_path: Path, condition: str, truth: bool | None
) -> None:
    regions = []
    for code in ("T-A0100", "T-D1100"):
        regions.append(Dataset())
        regions[-1].CodeValue = code
    one = header(tmp_path, AnatomicRegionSequence=regions, **ATTRIBUTES)
    found = ready(rule(condition).rules.rules[0].condition)
    assert found.test([one]) is truth
    assert [seen.truth for seen in found.trace([one], descriptions=True)] == [truth]


def test_every_operator_is_tried_above() -> None:
    # The table above is the proof of the language: a new operator must appear there.
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f", {operator}: " in text for operator in OPERATORS)


TRUTHS = {
    HOLDS: "{tag: Modality, equals: MR}",
    FAILS: "{tag: Modality, equals: CT}",
    UNKNOWN: "{tag: EchoTime, equals: 1}",
}


@pytest.mark.parametrize(("first", "second"), list(itertools.product(TRUTHS, repeat=2)))
def test_all_any_and_not_nest_and_keep_what_is_unknown(
    tmp_path: Path, first: bool | None, second: bool | None
) -> None:
    one = [header(tmp_path)]

    def truth(condition: str) -> bool | None:
        return ready(rule(condition).rules.rules[0].condition).test(one)

    both = {first, second}
    every = False if False in both else None if None in both else True
    some = True if True in both else None if None in both else False
    parts = f"[{TRUTHS[first]}, {TRUTHS[second]}]"
    assert truth(f"{{all: {parts}}}") is every
    assert truth(f"{{any: {parts}}}") is some
    assert truth(f"{{not: {{all: {parts}}}}}") is (None if every is None else not every)
    assert truth(f"{{any: [{{not: {{any: {parts}}}}}, {{all: {parts}}}]}}") is (
        None if None in both else every or not some
    )


@pytest.mark.parametrize(
    ("policy", "decision", "code"),
    [
        ("accept", "accept", None),
        ("pixels", "pixels_decide", "ATTRIBUTE_MISSING"),
        ("reject", "reject", "ATTRIBUTE_MISSING"),
    ],
)
def test_what_is_missing_is_accepted_rejected_or_left_to_the_pixels_as_the_rule_says(
    tmp_path: Path, policy: str, decision: str, code: str | None
) -> None:
    images = [header(tmp_path)]
    verdict = judged(images, rule("{tag: BodyPartExamined, equals: HEAD}", missing=policy))
    assert verdict.decision == decision
    assert [finding.code for finding in verdict.findings] == ([code] if code else [])
    # The set's own policy holds for rules that do not say.
    one = "rules: [{name: one, require: {tag: BodyPartExamined, equals: HEAD}}]"
    assert judged(images, rules(f"missing: {policy}\n{one}")).decision == decision
    assert judged(images, rules(one)).decision == "pixels_decide"


def test_a_rule_that_is_not_met_leaves_out_or_leaves_the_decision_to_the_pixels(tmp_path: Path) -> None:
    images = [header(tmp_path, BodyPartExamined="KNEE")]
    wrong = "{tag: BodyPartExamined, equals: HEAD}"
    assert judged(images, rule(wrong)).decision == "reject"
    verdict = judged(images, rule(wrong, unmet="pixels", code="BODY_PART_UNWANTED"))
    assert (verdict.decision, len(verdict.accepted)) == ("pixels_decide", 1)
    assert [(f.code, f.effect, f.detail) for f in verdict.findings] == [
        ("BODY_PART_UNWANTED", "pixels", "BodyPartExamined is KNEE, wanted: equals HEAD")
    ]


def test_exclude_is_the_contrary_of_require(tmp_path: Path) -> None:
    text = "rules: [{name: no-ct, exclude: {tag: Modality, equals: %s}, code: MODALITY_UNWANTED}]"
    images = [header(tmp_path)]
    assert judged(images, rules(text % "CT")).decision == "accept"
    assert judged(images, rules(text % "MR")).left_out == {"MODALITY_UNWANTED": 1}


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ("{fact: images, between: [10, 20]}", HOLDS),
        ("{fact: images, more_than: 20}", FAILS),
        ("{fact: frames, equals: 20}", HOLDS),
        ("{fact: orientation, in: [axial, coronal]}", HOLDS),
        ("{fact: orientation, equals: sagittal}", FAILS),
        (
            "{fact: slice_spacing_mm, between: [2.9, 3.1]}",
            HOLDS,
        ),  # two slices are lost, the usual distance is 3
        ("{fact: extent_mm, at_least: 60}", HOLDS),
        ("{fact: extent_mm, at_least: 70}", FAILS),
        ("{fact: pixel_spacing_mm, at_most: 1}", HOLDS),
        ("{fact: pixel_spacing_mm, exists: true}", HOLDS),
    ],
)
def test_series_are_chosen_by_count_orientation_spacing_and_extent(
    tmp_path: Path, condition: str, truth: bool
) -> None:
    places = [3.0 * n for n in range(22) if n not in (7, 15)]
    images = series(tmp_path, places)
    assert ready(rule(condition).rules.rules[0].condition).test(images) is truth
    assert (judged(images, rule(condition)).decision == "accept") is truth


@pytest.mark.parametrize(
    ("cosines", "orientation"),
    [
        ([1, 0, 0, 0, 1, 0], "axial"),
        ([1, 0, 0, 0, 0.94, 0.34], "axial"),  # tilted by 20 degrees, as heads are
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([1, 0, 0, 0, 0.71, 0.71], "oblique"),
    ],
)
def test_the_orientation_is_that_of_the_slices(
    tmp_path: Path, cosines: list[float], orientation: str
) -> None:
    images = series(tmp_path, [0, 3], ImageOrientationPatient=cosines)
    assert ready(rule(f"{{fact: orientation, equals: {orientation}}}").rules.rules[0].condition).test(images)


def test_a_series_of_several_directions_is_mixed_and_one_without_geometry_is_unknown(tmp_path: Path) -> None:
    three = [
        image
        for cosines in ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])
        for image in series(tmp_path, [0, 5], ImageOrientationPatient=cosines)
    ]
    mixed = ready(rule("{fact: orientation, equals: mixed}").rules.rules[0].condition)
    spacing = ready(rule("{fact: slice_spacing_mm, at_most: 9}").rules.rules[0].condition)
    assert mixed.test(three) is True
    assert spacing.test(three) is None
    bare = [header(tmp_path)]
    assert (mixed.test(bare), spacing.test(bare)) == (None, None)
    assert spacing.test([header(tmp_path, SpacingBetweenSlices="5")]) is True


def test_a_series_is_judged_by_all_of_its_instances_or_by_any(tmp_path: Path) -> None:
    images = [header(tmp_path, EchoTime=time) for time in ("10", "10", "90", None)]
    for condition, truth in (
        ("{tag: EchoTime, at_most: 20}", False),
        ("{tag: EchoTime, over: any, at_most: 20}", True),
        ("{tag: EchoTime, over: any, more_than: 90}", False),
        ("{tag: EchoTime, at_most: 90}", True),  # the one without it does not count
        ("{tag: EchoTime, exists: true}", False),
        ("{tag: EchoTime, over: any, exists: true}", True),
    ):
        assert ready(rule(condition).rules.rules[0].condition).test(images) is truth


def test_instance_rules_leave_out_instances_and_series_rules_see_what_is_left(tmp_path: Path) -> None:
    images = [
        *(header(tmp_path, InstanceNumber=n, ImageType=["DERIVED", "SECONDARY"]) for n in range(3)),
        *(header(tmp_path, InstanceNumber=n) for n in range(4)),
        *(header(tmp_path, SeriesInstanceUID="1.2.3.5", SeriesNumber=2) for _ in range(9)),
    ]
    file = rules("""
rules:
  - {name: originals, scope: instance, exclude: {tag: ImageType, value: 1, equals: DERIVED}, code: DERIVED_IMAGE}
  - {name: enough, require: {fact: images, at_least: 5}, code: IMAGE_COUNT_UNWANTED}
""")
    verdict = judged(images, file)
    assert verdict.decision == "accept"
    assert verdict.left_out == {"IMAGE_COUNT_UNWANTED": 4, "DERIVED_IMAGE": 3}
    assert {image.series_number for image in verdict.accepted} == {2}
    assert [(f.rule, f.where, f.instances) for f in verdict.findings] == [
        ("originals", "series 1", 3),
        ("enough", "series 1", 4),
    ]


def test_a_rule_of_the_study_decides_over_all_that_is_left(tmp_path: Path) -> None:
    images = [header(tmp_path), header(tmp_path, SeriesInstanceUID="1.2.3.5", SeriesDescription="T1 post")]
    has_t1 = "{tag: SeriesDescription, over: any, contains: t1}"
    assert judged(images, rule(has_t1, scope="study")).decision == "accept"
    verdict = judged(images, rule("{fact: series, at_least: 3}", scope="study", code="IMAGE_COUNT_UNWANTED"))
    assert (verdict.decision, verdict.left_out) == ("reject", {"IMAGE_COUNT_UNWANTED": 2})


def test_a_rejection_has_the_code_of_the_most_instances_and_names_rule_values_and_rule_set(
    tmp_path: Path,
) -> None:
    images = [
        header(tmp_path, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SeriesInstanceUID="1.9"),
        *series(tmp_path, [0, 3], Modality="CT"),
    ]
    file = rule("{tag: Modality, equals: MR}", code="MODALITY_UNWANTED")
    with pytest.raises(InputRejected) as rejected:
        judged(images, file).require()
    assert rejected.value.code == "MODALITY_UNWANTED"
    assert rejected.value.message == (
        "none of 3 instances is left (MODALITY_UNWANTED 2, STRUCTURED_REPORT 1); series 1: "
        f"Modality is CT, wanted: equals MR (one; rules {file.short})"
    )


def test_no_message_of_a_verdict_names_a_patient(tmp_path: Path) -> None:
    keywords = ("PatientName", "PatientID", "SeriesDescription", "StudyDescription", "StudyInstanceUID")
    text = "rules:\n" + "".join(
        f"  - {{name: r{n}, scope: instance, unmet: pixels, require: {{tag: {keyword}, equals: X}}}}\n"
        if keyword != "StudyInstanceUID"
        else f"  - {{name: r{n}, scope: instance, unmet: pixels, require: {{tag: {keyword}, equals: 1.2}}}}\n"
        for n, keyword in enumerate(keywords)
    )
    one = header(
        tmp_path,
        SeriesDescription="Kanareyka series",
        StudyDescription="kanareyka",
        StudyInstanceUID="1.2.77",
    )
    verdict = judged([one], rules(text))
    assert len(verdict.findings) == len(keywords)
    told = str([(f.detail, f.where) for f in verdict.findings]).lower()
    assert "kanareyka" not in told
    assert "1.2.77" not in told


def test_a_hostile_header_is_unknown_not_an_error(tmp_path: Path) -> None:
    one = header(tmp_path, SeriesDescription="x" * 64)
    one.dataset.add_new("SliceThickness", "DS", None)
    one.dataset["SliceThickness"].value = None
    one.dataset.add_new("ContentLabel", "CS", "\udce4\udcff")
    for condition in (
        "{tag: SliceThickness, at_most: 3}",
        "{tag: ContentLabel, equals: X}",
        "{fact: slice_spacing_mm, at_most: 3}",
        "{fact: extent_mm, at_most: 3}",
    ):
        assert judged([one], rule(condition)).judged == 1


# Text, then the line, and words that its fault must hold.
BAD_FILES: list[tuple[str, int, tuple[str, ...]]] = [
    ("rule: []\n", 1, ("rule: there is no such key", "did you mean rules?")),
    ("about: x\n\nknown:\n  localiser: keep\n", 4, ("known.localiser", "did you mean localizer?")),
    ("known:\n  localizer: drop\n", 2, ("known.localizer", "'exclude' or 'keep'", "'drop'")),
    ("missing: maybe\n", 1, ("missing", "'accept', 'reject' or 'pixels'", "'maybe'")),
    ("rules:\n  - nam: a\n    require: {tag: Modality, equals: MR}\n", 2, ("rules[0].name: missing",)),
    (
        "rules:\n  - name: A b\n    require: {tag: Modality, equals: MR}\n",
        2,
        ("rules[0].name", "a-z", "'A b'"),
    ),
    ("rules:\n  - name: a\n", 2, ("rules[0]", "either require or exclude")),
    (
        "rules:\n  - name: a\n    require: {tag: Modalty, equals: MR}\n",
        3,
        ("no keyword", "did you mean Modality?"),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: '(0008,0060)', equals: MR}\n",
        3,
        ("write the keyword", "Modality"),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: Modality, equal: MR}\n",
        3,
        ("equal: there is no such key", "equals?"),
    ),
    ("rules:\n  - name: a\n    require: {tag: Modality}\n", 3, ("has one operator", "here is none")),
    (
        "rules:\n  - name: a\n    require: {tag: Rows, at_least: 1, at_most: 2}\n",
        3,
        ("at_least and at_most",),
    ),
    ("rules:\n  - name: a\n    require: {tag: Modality, fact: images, equals: 1}\n", 3, ("tag and fact",)),
    ("rules:\n  - name: a\n    require: {all: [], equals: 1}\n", 3, ("at least 1 item",)),
    ("rules:\n  - name: a\n    require: {not: {tag: Rows, equals: 1}, over: any}\n", 3, ("over beside not",)),
    ("rules:\n  - name: a\n    require: {fact: slices, at_least: 1}\n", 3, ("'slices' is no fact", "images")),
    ("rules:\n  - name: a\n    require: {fact: orientation, equals: axal}\n", 3, ("did you mean axial?",)),
    (
        "rules:\n  - name: a\n    scope: instance\n    require: {fact: extent_mm, at_least: 1}\n",
        2,
        ("known of a series", "scope instance"),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: SeriesDescription, matches: '(t1'}\n",
        3,
        ("not a regular expression",),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: SOPClassUID, equals: MRImagStorage}\n",
        3,
        ("did you mean MRImageStorage?",),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: Rows, at_least: many}\n",
        3,
        ("at_least", "valid number", "'many'"),
    ),
    ("rules:\n  - name: a\n    require: {tag: Rows, between: [5, 1]}\n", 3, ("[least, greatest]",)),
    (
        "rules:\n  - name: a\n    require: {tag: Modality, equals: true}\n",
        3,
        ("put true and false in quotes",),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: PixelData, exists: true}\n",
        3,
        ("pixels are judged by `pixels`",),
    ),
    (
        "rules:\n  - name: a\n    require: {tag: CodeValue.Modality, exists: true}\n",
        3,
        ("CodeValue is no sequence",),
    ),
    ("rules:\n  - name: a\n    require: {tag: ProcedureCodeSequence, exists: true}\n", 3, ("is a sequence",)),
    (
        "rules:\n  - name: a\n    require: {tag: Rows, exists: true}\n    code: LOCALISER\n",
        4,
        ("no reason code", "LOCALIZER", "SITE_"),
    ),
    (
        "rules:\n  - {name: a, require: {tag: Rows, exists: true}}\n  - name: b\n    exclude: {tag: Rows, equals: 1}\n"
        "  - name: a\n    exclude: {tag: Rows, equals: 1}\n",
        5,
        ("rules[2].name", "another rule is called 'a'"),
    ),
    (
        "rules:\n  - name: deep\n    require:\n      all:\n        - {tag: Rows, exists: true}\n        - any:\n"
        "            - {tag: Columns, exists: true}\n            - not: {tag: Colums, exists: true}\n",
        8,
        ("rules[0].require.all[1].any[1].not.tag", "did you mean Columns?"),
    ),
    ("pixels:\n  sure: 0.9\n  blnk: reject\n", 3, ("pixels.blnk", "did you mean blank?")),
    ("rules:\n  - name: a\n   require: x\n", 3, ("is not YAML", "line 3")),
    ("missing: accept\nmissing: reject\n", 2, ("appears twice", "line 2")),
    ("- a\n- b\n", 0, ("holds list",)),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_FILES)
def test_a_wrong_rule_file_is_answered_with_line_key_reason_and_the_nearest_right_key(
    tmp_path: Path, text: str, line: int, words: tuple[str, ...]
) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RulesInvalid) as invalid:
        load_rules(file)
    told = str(invalid.value)
    assert str(file) in told
    assert all(word in told for word in words), told
    assert not line or f"line {line}" in told, told


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text(
        "missing: x\nrules:\n  - {name: a}\n  - {name: b, require: {tag: Rows, equals: 1}, code: Y}\n"
    )
    with pytest.raises(RulesInvalid) as invalid:
        load_rules(file)
    assert len(invalid.value.faults) == 3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: " + b"x" * 300_000, b"[" * 5000])
def test_what_is_no_rule_file_is_refused_and_nothing_worse(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "filter.yaml").write_bytes(content)
    with pytest.raises(RulesInvalid):
        load_rules(tmp_path / "filter.yaml")
    with pytest.raises(RulesInvalid, match="name an existing file"):
        load_rules(tmp_path / "none.yaml")


def test_every_reason_says_what_it_means_and_what_to_do_in_both_languages() -> None:
    assert set(FILTER_REASONS) == set(FilterCode)
    for code, reason in FILTER_REASONS.items():
        assert reason.meaning.endswith("."), code
        assert all((reason.remedy, reason.meaning_ru, reason.remedy_ru)), code
        assert explain(code) == reason
    assert explain("SITE_NOT_OURS") == SITE_REASON


def test_each_kind_known_by_name_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in known_classes().values()]
    assert len(set(codes)) == len(codes)
    assert all(code in FilterCode.__members__ for code in codes)


def test_a_condition_made_in_code_is_checked_like_one_in_a_file() -> None:
    with pytest.raises(ValueError, match="one of all, any, not, tag and fact"):
        Condition()
