"""One patient or several: values as scanners, gateways and people write them, byte for byte in files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SegmentationStorage,
    generate_uid,
)

from outpost.codes.notes import Note, NoteCode
from outpost.filter.identity import IdentityMode, require_one_patient
from outpost.filter.rulefile import RulesInvalid, open_rules, parse_rules
from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import ImageHeader, read_headers

ANNA = {"PatientID": "4711", "PatientName": "Ivanova^Anna", "PatientBirthDate": "19731231", "PatientSex": "F"}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what is written on purpose

NAMELESS = {"PatientName": "", "PatientBirthDate": "", "PatientSex": ""}


def files(folder: Path, patients: Sequence[dict[str, Any]], **same: Any) -> list[ImageHeader]:
    """One small file of one study for each; texts given as bytes stand in the file as they are."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, patient in enumerate(patients):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", f"1.2.3.{number + 1}"
        image.SeriesNumber, image.Modality, image.Rows, image.Columns = number + 1, "MR", 64, 64
        for keyword, value in {**same, **patient}.items():
            image.add_new(keyword, dictionary_VR(keyword), "" if isinstance(value, bytes) else value)
            if isinstance(value, bytes):  # past every codec of pydicom's
                image[keyword]._value = value
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        paths.append(folder / f"{number}.dcm")
        _save(image, patient, same, paths[-1])
    return read_headers(paths)


def _save(image: Dataset, patient: dict[str, Any], same: dict[str, Any], path: Path) -> None:
    """Write bytes where bytes are meant: a mark of the same length stands in for them meanwhile."""
    marks = {}
    for keyword, value in {**same, **patient}.items():
        if isinstance(value, bytes):
            padded = value + b" " * (len(value) % 2)
            mark = f"{len(marks)}".ljust(len(padded), "#")
            image[keyword]._value = mark if dictionary_VR(keyword) != "PN" else None
            setattr(image, keyword, mark)
            marks[mark.encode()] = padded
    image.save_as(path, enforce_file_format=True)
    written = path.read_bytes()
    for mark, value in marks.items():
        assert written.count(mark) == 1, mark
        written = written.replace(mark, value)
    path.write_bytes(written)


def verdict(
    folder: Path, patients: Sequence[dict[str, Any]], mode: IdentityMode = "normal", **same: Any
) -> str:
    """What comes out: nothing, the text of the note, or the message of TWO_PATIENTS, to be held."""
    try:
        notes = require_one_patient(files(folder, patients, **same), mode)
    except InputRejected as rejection:
        held = rejection.code == Code.TWO_PATIENTS and rejection.hold
        return f"{'two' if held else rejection.code}: {rejection.message}"
    assert [note.code for note in notes] in ([], [NoteCode.IDENTITY_VARIES])
    return notes[0].detail if notes else ""


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({}, ""),
        ({"PatientName": "IVANOVA^ANNA"}, "PatientName: case"),
        ({"PatientName": "Ivanova Anna"}, "PatientName: spaces and punctuation"),
        ({"PatientName": "Ivanova^Anna^^^"}, ""),  # trailing carets say nothing (PS3.5 6.2.1)
        ({"PatientName": "Anna^Ivanova"}, "PatientName: order of components"),
        ({"PatientName": "Иванова^Анна"}, "PatientName: transliteration"),
        ({"PatientName": "Ivanova^A"}, "PatientName: abbreviation"),
        ({"PatientName": "Ivanovva^Anna"}, "PatientName: transliteration"),
        ({"PatientName": "Ivnaova^Anna"}, "PatientName: typing"),
        ({"PatientName": "Petrova^Anna"}, "PatientName: differs, and the others agree"),  # married
        ({"PatientID": "04711"}, "PatientID: leading zeros"),
        ({"PatientID": " 47 11"}, "PatientID: spaces and punctuation"),
        ({"PatientID": "K 9", "OtherPatientIDs": ["1", "4711"]}, "PatientID: other ids"),
        ({"PatientBirthDate": "1973.12.31"}, "PatientBirthDate: spaces and punctuation"),
        ({"PatientBirthDate": "1973"}, "PatientBirthDate: a part of the date"),
        ({"PatientBirthDate": "19731230"}, "PatientBirthDate: differs, and the others agree"),  # corrected
        ({"PatientBirthDate": "00000000"}, "PatientBirthDate says nothing in 1 of 2 objects"),
        ({"PatientBirthDate": "unknown"}, "PatientBirthDate says nothing in 1 of 2 objects"),
        ({"PatientSex": "f"}, "PatientSex: case"),
        ({"PatientSex": "O"}, "PatientSex says nothing in 1 of 2 objects"),
        ({"PatientID": ""}, "PatientID says nothing in 1 of 2 objects"),
        (NAMELESS, "PatientName says nothing in 1 of 2 objects"),
        ({"PatientName": "ANONYMOUS"}, "PatientName says nothing in 1 of 2 objects"),
        ({"PatientID": "", **NAMELESS}, "PatientID says nothing in 1 of 2 objects"),
    ],
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_one_patient_written_differently_is_one_and_the_rule_is_told(
    tmp_path: Path, other: dict[str, Any], rule: str
) -> None:
    told = verdict(tmp_path, [ANNA, ANNA | other], SpecificCharacterSet="ISO_IR 192")
    assert told.startswith(rule), told
    assert bool(rule) == bool(told), told


@pytest.mark.parametrize(
    ("other", "keywords"),
    [
        ({"PatientID": "4712"}, "PatientID"),
        ({"PatientID": "4712", "PatientName": "Petrov^Ivan"}, "PatientID, PatientName"),
        # The same id, as it stands on a sheet of paper: TEST, 1, ...
        ({"PatientName": "Petrov^Ivan", "PatientBirthDate": "19500101"}, "PatientName, PatientBirthDate"),
        ({"PatientName": "Petrov^Ivan", "PatientBirthDate": ""}, "PatientName"),
        ({"PatientName": "Ivanova^A", "PatientBirthDate": "19500101"}, "PatientName, PatientBirthDate"),
        ({"PatientName": "Ivanov^Ivan", "PatientSex": "M"}, "PatientName, PatientSex"),  # twins
        ({"PatientID": "", "PatientBirthDate": "19500101"}, "PatientBirthDate"),
        ({"PatientID": "", "PatientName": "Petrov^Ivan"}, "PatientName"),
        ({"PatientID": "1-23"}, "PatientID"),
        ({"IssuerOfPatientID": "B"}, "PatientID"),  # two hospitals gave the same number
        ({"PatientID": "ANON-77", "PatientName": "ANON-77", "PatientBirthDate": ""}, "PatientID"),
    ],
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_two_patients_are_two_and_no_value_is_told(
    tmp_path: Path, other: dict[str, Any], keywords: str
) -> None:
    told = verdict(tmp_path, [ANNA, ANNA | other, ANNA], IssuerOfPatientID="A")
    assert told.startswith("two: 2 identities in 3 objects: "), told
    assert set(keywords.split(", ")) <= set(told.split(": ")[2].split(" differ")[0].split(", ")), told
    assert "2 in series 1, 3; 1 in series 2" in told
    for value in {*ANNA.values(), *other.values()} - {"", "B", "M", "F"}:
        assert value not in told


def test_whoever_comes_first_and_whatever_lies_between_two_are_two(tmp_path: Path) -> None:
    nobody = {"PatientID": "", **NAMELESS}
    other = {"PatientID": "9", "PatientName": "Petrov^Ivan"}
    for number, order in enumerate(((ANNA, nobody, other), (nobody, other, ANNA), (other, ANNA, nobody))):
        assert verdict(tmp_path / str(number), order).startswith("two: 2 identities in 3 objects")


def test_the_same_patient_under_another_character_set_is_one(tmp_path: Path) -> None:
    name = "Иванова^Анна"
    written = [
        {"PatientName": name.encode("iso8859-5"), "SpecificCharacterSet": "ISO_IR 144"},
        {"PatientName": name.encode(), "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientName": name.encode("cp1251"), "SpecificCharacterSet": ""},  # unlabelled
        {"PatientName": name.encode("cp1251"), "SpecificCharacterSet": "ISO_IR 192"},  # wrongly labelled
        {"PatientName": name.encode("cp1251"), "SpecificCharacterSet": "ISO_IR 100"},  # the same bytes
    ]
    told = verdict(tmp_path, [ANNA | one for one in written])
    assert told == "PatientName: character set"
    two = [ANNA | one | {"PatientID": ""} for one in written]
    two[2]["PatientName"] = "Петров^Иван".encode("cp1251")
    assert verdict(tmp_path / "two", two).startswith("two: ")


def test_escapes_of_iso_2022_are_read_by_their_label(tmp_path: Path) -> None:
    """PS3.5 H.3: the same name in kanji by escapes, and in UTF-8."""
    escaped = b"Yamada^Tarou=" + "山田^太郎".encode("iso2022_jp")
    written = [
        {"PatientName": escaped, "SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientID": "1"},
        {"PatientName": "山田^太郎".encode(), "SpecificCharacterSet": "ISO_IR 192", "PatientID": ""},
    ]
    assert verdict(tmp_path, written).startswith("PatientName: ")
    other = [written[0], written[1] | {"PatientName": "山本^次郎".encode()}]
    assert verdict(tmp_path / "other", other).startswith("two: ")


def test_groups_of_a_name_agree_by_one_of_them_and_contradict_by_one_of_them(tmp_path: Path) -> None:
    whole = {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    for number, part in enumerate(("Yamada^Tarou", "山田^太郎", "=山田^太郎", "YAMADA^TAROU=山田^太郎")):
        told = verdict(
            tmp_path / str(number), [whole, {"PatientName": part}], SpecificCharacterSet="ISO_IR 192"
        )
        assert told.startswith("PatientName: "), told
        assert "component groups" in told
    other = [whole | {"PatientBirthDate": "1950"}, {"PatientName": "Yamada^Tarou=山本^次郎"}]
    assert verdict(tmp_path / "x", other, SpecificCharacterSet="ISO_IR 192").startswith("two: ")


def test_ids_of_the_patient_elsewhere_are_found_in_their_sequence_too(tmp_path: Path) -> None:
    item = Dataset()
    item.PatientID, item.IssuerOfPatientID = "0815", "OLD"
    assert verdict(
        tmp_path, [ANNA | {"OtherPatientIDsSequence": [item]}, ANNA | {"PatientID": "815"}]
    ).startswith("PatientID: other ids")


def test_our_own_results_do_not_count_and_others_reports_do(tmp_path: Path) -> None:
    foreign = {"PatientID": "9", "PatientName": "Petrov^Ivan"}
    for number, kind in enumerate((SegmentationStorage, ComprehensiveSRStorage)):
        ours = foreign | {"SOPClassUID": kind, "Manufacturer": "Outpost"}
        assert verdict(tmp_path / f"ours{number}", [ANNA, ours]) == ""
        theirs = ours | {"Manufacturer": "Outposts"}
        assert verdict(tmp_path / f"theirs{number}", [ANNA, theirs]).startswith("two: ")
    image = foreign | {"Manufacturer": "Outpost"}  # an image is no result of ours, whatever it says
    assert verdict(tmp_path / "image", [ANNA, image]).startswith("two: ")


def test_strict_takes_case_and_spaces_for_equal_and_nothing_else(tmp_path: Path) -> None:
    for number, (other, two) in enumerate(
        (
            ({"PatientName": "IVANOVA ANNA"}, False),
            ({"PatientBirthDate": ""}, False),
            ({"PatientName": "Ivanova^A"}, True),
            ({"PatientID": "04711"}, True),
            ({"PatientBirthDate": "19731230"}, True),
        )
    ):
        told = verdict(tmp_path / str(number), [ANNA, ANNA | other], "strict")
        assert told.startswith("two: ") is two, told


def test_off_ends_no_study_and_notes_what_differs(tmp_path: Path) -> None:
    headers = files(tmp_path, [ANNA, {"PatientID": "9", "PatientName": "Petrov^Ivan"}])
    assert require_one_patient(headers, "off") == (
        Note(
            NoteCode.IDENTITY_VARIES,
            "PatientBirthDate says nothing in 1 of 2 objects; PatientSex says nothing in 1 of 2 objects; "
            "PatientID, PatientName differ, for which this study was not held",
        ),
    )


def test_a_rule_file_sets_it_and_an_administrator_who_skips_the_filter_switches_it_off() -> None:
    assert parse_rules(b"", Path("none")).rules.identity == "normal"
    assert parse_rules(b"identity: strict\n", Path("rules")).rules.identity == "strict"
    assert parse_rules(b"identity: off\n", Path("rules")).rules.identity == "off"
    assert open_rules().rules.identity == "off"
    with pytest.raises(RulesInvalid, match="line 1: identity"):
        parse_rules(b"identity: sometimes\n", Path("rules"))


def test_a_study_in_which_every_object_names_somebody_else_is_told_in_a_moment(tmp_path: Path) -> None:
    headers = files(tmp_path, [{"PatientID": str(n), "PatientName": f"P{n}^X"} for n in range(300)])
    began = time.thread_time()
    with pytest.raises(InputRejected, match="more than 20 identities in 300 objects"):
        require_one_patient(headers)
    alike = files(
        tmp_path / "b", [{"PatientID": "1", "PatientName": f"Ivanov^{'I' * n}"} for n in range(1, 200)]
    )
    require_one_patient(alike, "off")
    assert time.thread_time() - began < 1
