"""What a result repeats of its source: values that only name something cost no result, and stay as they came."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from mr_series import ball, write_mr_series
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from two_readers import by_dcmqi

from outpost.codes.notes import Note, NoteCode
from outpost.inference import load_bundle
from outpost.inference.copying import read_copied
from outpost.inference.header import ImageHeader, read_headers
from outpost.inference.stack import stack_slices
from outpost.intake.header import dataset_offset
from outpost.results.copied import ALWAYS, EQUIPMENT, IF_THERE, Copied, copied_from, keep_bytes
from outpost.results.grid import Grid
from outpost.results.provenance import Provenance
from outpost.results.seg import write_segmentation
from outpost.results.sr import ImageReport, Probability, write_report

BUNDLES = Path(__file__).parents[2] / "service/bundles"
SEGMENT = load_bundle(BUNDLES / "brain_extraction").manifest.segment
TEXTS = load_bundle(BUNDLES / "radiograph_orientation").manifest.report
MADE = Provenance("brain_extraction", "1.0.2", "torchscript 2.13.0", "float32", "full", "cpu")
VOLUME = ball((4, 12, 14), 500)
MASK = VOLUME > 45

TEXT = [
    "Иванов^Иван".encode("cp1251"),
    "ИБ-12/45".encode("cp1251"),
    b"A\\B",
    b"x" * 40,
    b"A^B^C^D^E^F=G=H=I=J",
    b"\x01\x07\x1b\x7f",
    b"\\\\\\",
    b"  both  ends  ",
    b"",
    b"y" * 5000,
    b"line\r\nline\tline",
    b"\xff\xfe\xfd\x80",
    b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
    b"None",
]
HOSTILE: dict[str, list[bytes]] = {
    "DA": [
        b"20261332",
        b"unknown",
        b"00000000",
        b"20260101-20260202",
        b"2026.01.01",
        b"20260101\\20260102",
        b"19731231CANARY",
        b"",
        b"\xc8\xc1",
        b"1",
    ],
    "TM": [b"10:15:00", b"250000", b"morning", b"1", b"120000.1234567", b"-1", b"", b"12\\13", b"0:0"],
    "AS": [b"45", b"045", b"45Y", b"old", b"", b"045Y\\046Y", b"\xff"],
    "DS": [b"70,5", b"NaN", b"inf", b"1e999", b"heavy", b"", b"1\\2", b"1" * 40, b"0x10"],
    "CS": [b"Female", b"W", b"m", b"", b"F\\M", b"\xc6", b"a" * 40, b"YES\x00NO"],
}
LABELS = [
    None,
    b"ISO_IR 192",
    b"UTF8",
    b"",
    b"ISO 2022 IR 6\\ISO 2022 IR 87",
    b"\\ISO 2022 IR 149",
    b"GB18030",
    b"ISO_IR 999",
    b"\xff\xfe",
    b"ISO_IR 144",
    b"\\\\",
    b"ISO_IR 192\\ISO_IR 100",
    b"x" * 70,
]
Edit = Callable[[Dataset, int], None]


def raw(keyword: str, value: bytes, vr: str = "") -> RawDataElement:
    value += b" " * (len(value) % 2)
    return RawDataElement(Tag(keyword), vr or dictionary_VR(keyword), len(value), value, 0, False, True)


def saying(**values: bytes | None) -> Edit:
    def edit(image: Dataset, _: int) -> None:
        for keyword, value in values.items():
            image.pop(Tag(keyword), None)
            if value is not None:
                image[keyword] = raw(keyword, value)
        keep_bytes(image)

    return edit


def headers_of(folder: Path, edit: Edit) -> list[ImageHeader]:
    return list(stack_slices(read_headers(write_mr_series(folder, VOLUME, edit=edit))).images)


def segmentation(
    images: Sequence[ImageHeader], folder: Path, copied: Copied, made: Provenance = MADE
) -> Path:
    affine = stack_slices(images).affine
    return write_segmentation(
        [image.dataset for image in images], MASK, Grid(affine), SEGMENT, made, 1, folder, copied
    )


def report(images: Sequence[ImageHeader], folder: Path, copied: Copied, made: Provenance = MADE) -> Path:
    said = ImageReport(images[0].dataset, "Chest, frontal (0.99).", (Probability("P", "p", 0.5),))
    return write_report([said], TEXTS, made, 1, folder, copied)


def both(folder: Path, edit: Edit, character_set: str = "") -> tuple[list[Path], Copied]:
    """A segmentation and a report of one series, and what they repeat of it."""
    images = headers_of(folder / "series", edit)
    copied = read_copied(images[0], character_set)
    return [segmentation(images, folder, copied), report(images, folder, copied)], copied


def bytes_in(file: Path, keyword: str, implicit: bool = False) -> bytes | None:
    """The bytes of an element as they are in the file, which nobody has decoded."""
    with file.open("rb") as stream:
        stream.seek(dataset_offset(file))
        for element in data_element_generator(stream, implicit, True):
            if element.tag == Tag(keyword):
                return element.value or b""
    return None


@pytest.mark.parametrize("turn", range(len(TEXT)))
def test_no_value_costs_a_result_and_none_is_changed(tmp_path: Path, turn: int) -> None:
    sent: dict[str, bytes] = {}
    for place, keyword in enumerate((*ALWAYS, *IF_THERE, *EQUIPMENT)):
        vr = dictionary_VR(keyword)
        if vr in ("SQ", "UI"):
            continue
        values = HOSTILE.get(vr, TEXT)
        # All attributes at once, each another one of its values; PatientID and PatientName take each once.
        shift = turn if keyword in ("PatientID", "PatientName") else turn + place
        sent[keyword] = next(islice(cycle(values), shift, None))
    label = LABELS[turn % len(LABELS)]
    files, copied = both(tmp_path, saying(SpecificCharacterSet=label, **sent))
    for file in files:
        for keyword, value in sent.items():
            if keyword in EQUIPMENT:
                continue
            found = bytes_in(file, keyword)
            if dictionary_VR(keyword) in HOSTILE or keyword == "TimezoneOffsetFromUTC":
                assert (found or b"") in (b"", raw(keyword, value).value)
            else:
                assert (found or b"").rstrip(b"\0") == raw(keyword, value).value or not value
        assert bytes_in(file, "SpecificCharacterSet") == (raw("PatientID", label).value if label else None)
        subprocess.run(["dcmdump", "-q", file], check=True, capture_output=True)
        assert len(list(pydicom.dcmread(file).iterall())) > 60  # every value can be looked at
    (tmp_path / "nifti").mkdir()
    assert by_dcmqi(files[0], tmp_path / "nifti").centres.shape[0] == np.count_nonzero(MASK)
    assert highdicom.seg.segread(files[0]).get_volume().array.any()
    subprocess.run(["dsrdump", "-q", files[1]], check=True, capture_output=True)
    assert all("CANARY" not in note.detail for note in copied.notes)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyDate", b"20261332"),
        ("StudyTime", b"10:15:00"),
        ("PatientBirthDate", b"unknown"),
        ("PatientBirthDate", b"00000000"),
        ("PatientSex", b"Female"),
        ("TimezoneOffsetFromUTC", b"+3"),
        ("PatientAge", b"45"),
        ("PatientWeight", b"70,5"),
    ],
)
def test_what_dicom_does_not_allow_is_left_out_by_name(tmp_path: Path, keyword: str, value: bytes) -> None:
    files, copied = both(tmp_path, saying(**{keyword: value}))
    assert copied.notes == (
        Note(NoteCode.VALUE_LEFT_OUT, f"not allowed by DICOM: {keyword} ({dictionary_VR(keyword)})"),
    )
    for file in files:
        assert not bytes_in(file, keyword)
        assert (bytes_in(file, keyword) is not None) == (keyword in ALWAYS)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", b"A\\B"),
        ("PatientName", b"Muller^Jorg^^^^^"),
        ("PatientID", b"12\\34"),
        ("AccessionNumber", b"4" * 40),
        ("StudyID", b"1\x02\x1f2"),
        ("IssuerOfPatientID", b"x" * 100),
        ("ReferringPhysicianName", b"A^B^C^D^E^F"),
        ("StudyTime", b"235960"),
        ("StudyDate", b"20240229"),
        ("TimezoneOffsetFromUTC", b"-0330"),
        ("FrameOfReferenceUID", b"1.02.003.4"),
    ],
)
def test_what_files_a_result_stays_as_it_came(tmp_path: Path, keyword: str, value: bytes) -> None:
    files, copied = both(tmp_path, saying(**{keyword: value}))
    assert copied.notes == ()
    for file in files:
        found = bytes_in(file, keyword)
        if found is None:
            assert keyword == "FrameOfReferenceUID"  # a report has none
        else:
            assert found.rstrip(b"\0 ") == value


def test_a_value_longer_than_its_field_is_left_out() -> None:
    source = Dataset()
    value = b"x" * 70_000
    source["StudyDescription"] = RawDataElement(
        Tag("StudyDescription"), None, len(value), value, 0, True, True
    )
    source["SpecificCharacterSet"] = RawDataElement(
        Tag("SpecificCharacterSet"), None, len(value), value, 0, True, True
    )
    copied = copied_from(source)
    named = "not allowed by DICOM: SpecificCharacterSet (CS), StudyDescription (LO)"
    assert [note.detail for note in copied.notes] == [named]
    assert copied.label is None


def test_sequences_are_kept_without_what_is_private_or_broken(tmp_path: Path) -> None:
    item = Dataset()
    item["PatientID"] = raw("PatientID", "ИБ".encode("cp1251"))
    item["TypeOfPatientID"] = raw("TypeOfPatientID", b"not a code!")
    item.add_new(0x00990010, "LO", "CREATOR")

    def edit(image: Dataset, _: int) -> None:
        labelled = Dataset()
        labelled.SpecificCharacterSet, labelled.PatientID = "ISO_IR 100", "1"
        image.OtherPatientIDsSequence = [item, labelled]
        keep_bytes(image)
        image.IssuerOfAccessionNumberSequence = []
        image["IssuerOfPatientIDQualifiersSequence"] = DataElement(
            "IssuerOfPatientIDQualifiersSequence", "SQ", [Dataset()]
        )

    files, copied = both(tmp_path, edit)
    assert "OtherPatientIDsSequence.TypeOfPatientID (CS)" in copied.notes[0].detail
    assert "OtherPatientIDsSequence (SQ)" in copied.notes[0].detail
    for file in files:
        made = pydicom.dcmread(file)
        (kept,) = made.OtherPatientIDsSequence
        assert [keyword_for_tag(tag) for tag in sorted(kept.keys())] == ["PatientID"]
        assert kept.get_item("PatientID").value == "ИБ".encode("cp1251")
        assert "IssuerOfAccessionNumberSequence" not in made


def test_what_was_decoded_or_made_in_memory_is_encoded_again_or_left_out() -> None:
    other = Dataset()
    other.PatientID = "ИБ-1"
    source = Dataset()
    source.PatientName, source.StudyDate, source.OtherPatientIDsSequence = "Иванов^Иван", "20260101", [other]
    source["PatientWeight"] = DataElement("PatientWeight", "DS", "70")
    source["StudyID"] = DataElement(Tag("StudyID"), "US", "no number", already_converted=True)
    copied = copied_from(source)
    assert copied.label == b"ISO_IR 192"
    assert [note.detail for note in copied.notes] == ["not allowed by DICOM: StudyID (US)"]
    result = Dataset()
    copied.put_into(result)
    assert result.PatientName == "Иванов^Иван"
    kept = result.OtherPatientIDsSequence[0].get_item("PatientID")
    assert kept.value.rstrip() == "ИБ-1".encode()
    assert (result.StudyDate, result.PatientWeight, result.StudyID) == ("20260101", 70, "")


# --- character sets ---


@pytest.mark.parametrize(
    ("label", "name", "certain"),
    [
        (b"ISO_IR 144", "Гагарин^Юрий".encode("iso8859-5"), True),
        (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), True),
        (b"ISO_IR 192", "Гагарин^Юрий".encode(), True),
        (b"GB18030", "王^小东".encode("gb18030"), True),
        (b"GBK", "王^小东".encode("gbk"), True),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", True),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^X", True),
        (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", True),
        (None, b"Ivanov^Ivan", True),
        (b"UTF8", b"Ivanov^Ivan", True),
        (None, "Иванов^Иван".encode("cp1251"), False),  # O1
        (b"ISO_IR 192", "Иванов^Иван".encode("cp1251"), False),  # N9
        (b"UTF8", "Иванов^Иван".encode(), False),
        (b"ISO_IR 6", "Müller".encode("latin-1"), False),
        (b"ISO_IR 100", "Иванов".encode("cp866"), False),
        (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$)C\xfb\xf3", False),
        (b"\\ISO 2022 IR 149", b"\xfb\xf3", False),
    ],
)
def test_texts_stay_byte_for_byte_with_their_label_or_without(
    tmp_path: Path, label: bytes | None, name: bytes, certain: bool
) -> None:
    files, copied = both(tmp_path, saying(SpecificCharacterSet=label, PatientName=name, PatientID=name))
    for file in files:
        assert bytes_in(file, "PatientName") == bytes_in(file, "PatientID") == raw("PatientID", name).value
        assert bytes_in(file, "SpecificCharacterSet") == (raw("PatientID", label).value if label else None)
    assert [note.code for note in copied.notes] == [NoteCode.TEXT_KEPT_AS_SENT] * (not certain)
    assert all(note.detail.endswith("PatientName, PatientID") for note in copied.notes)


@pytest.mark.parametrize("label", [None, b"ISO_IR 192", b"ISO_IR 100"])
def test_the_sites_word_on_a_sender_decodes_its_texts(tmp_path: Path, label: bytes | None) -> None:
    name, number = "Иванов^Иван", "ИБ-12/45"
    other = Dataset()
    other["PatientID"] = raw("PatientID", number.encode("cp1251"))

    def edit(image: Dataset, index: int) -> None:
        saying(
            SpecificCharacterSet=label,
            PatientName=name.encode("cp1251"),
            PatientID=number.encode("cp1251"),
            Manufacturer="Электрон".encode("cp1251"),
        )(image, index)
        image.OtherPatientIDsSequence = [other]
        keep_bytes(image)

    files, copied = both(tmp_path, edit, "cp1251")
    assert copied.notes == ()
    for file in files:
        made = pydicom.dcmread(file)
        assert made.SpecificCharacterSet == "ISO_IR 192"
        assert (str(made.PatientName), made.PatientID) == (name, number)
        assert made.OtherPatientIDsSequence[0].PatientID == number
        assert made.ContributingEquipmentSequence[0].Manufacturer == "Электрон"


def test_a_label_of_utf8_that_all_texts_obey_is_believed_before_the_sites_word(tmp_path: Path) -> None:
    name = "Иванов^Иван".encode()
    files, copied = both(tmp_path, saying(SpecificCharacterSet=b"ISO_IR 192", PatientName=name), "cp1251")
    assert copied.notes == ()
    assert all(bytes_in(file, "PatientName") == raw("PatientName", name).value for file in files)


@pytest.mark.parametrize("character_set", ["utf-8", "shift_jis", "no-such-codec"])
def test_a_word_that_does_not_fit_leaves_texts_as_sent(tmp_path: Path, character_set: str) -> None:
    name = "Иванов^Иван\x98".encode("cp1251", "replace") + b"\x98\xff\xff"
    files, copied = both(tmp_path, saying(SpecificCharacterSet=None, PatientName=name), character_set)
    assert "nor does the site's" in copied.notes[0].detail
    assert all(bytes_in(file, "PatientName") == raw("PatientName", name).value for file in files)


def test_a_bundle_that_does_not_speak_ascii_still_fits_beside_any_name(tmp_path: Path) -> None:
    segment = SEGMENT.model_copy(update={"label": "Gehirn, größer"})
    for label, name, wanted in (
        (b"ISO_IR 144", "Гагарин".encode("iso8859-5"), "Gehirn, größer"),
        (None, "Гагарин".encode("cp1251"), "Gehirn, gro?er"),
    ):
        folder = tmp_path / str(label)
        images = headers_of(folder / "series", saying(SpecificCharacterSet=label, PatientName=name))
        file = write_segmentation(
            [image.dataset for image in images],
            MASK,
            Grid(stack_slices(images).affine),
            segment,
            MADE,
            1,
            folder,
            read_copied(images[0]),
        )
        made = pydicom.dcmread(file)
        assert made.SegmentSequence[0].SegmentLabel == wanted
        kept = (bytes_in(file, "PatientName") or b"").rstrip()
        assert kept == ("Гагарин".encode() if label else name)


def test_bytes_survive_being_read_and_written_again_in_another_transfer_syntax(tmp_path: Path) -> None:
    number = "ИБ-12/45".encode("cp1251")
    files, _ = both(tmp_path, saying(SpecificCharacterSet=b"ISO_IR 192", PatientID=number))
    for file in files:
        again = pydicom.dcmread(file)
        again.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        keep_bytes(again, implicit_vr=True)
        again.save_as(tmp_path / "again.dcm", implicit_vr=True, little_endian=True)
        assert bytes_in(tmp_path / "again.dcm", "PatientID", implicit=True) == number
        subprocess.run(["dcmconv", "+te", tmp_path / "again.dcm", tmp_path / "explicit.dcm"], check=True)
        assert bytes_in(tmp_path / "explicit.dcm", "PatientID") == number


@pytest.mark.parametrize("syntax", ["+ti", "+tb", "+td"], ids=["implicit", "big endian", "deflated"])
def test_bytes_come_over_from_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    number = "ИБ-12/45".encode("cp1251")
    other = Dataset()
    other["PatientID"] = raw("PatientID", number)

    def edit(image: Dataset, index: int) -> None:
        image.OtherPatientIDsSequence = [other]
        saying(SpecificCharacterSet=b"ISO_IR 192", PatientID=number, PatientBirthDate=b"unknown")(
            image, index
        )

    folder = tmp_path / "sent"
    folder.mkdir()
    for file in write_mr_series(tmp_path / "series", VOLUME, edit=edit):
        subprocess.run(["dcmconv", syntax, file, folder / file.name], check=True)
    images = list(stack_slices(read_headers(sorted(folder.iterdir()))).images)
    copied = read_copied(images[0])
    assert {note.code for note in copied.notes} == {NoteCode.VALUE_LEFT_OUT, NoteCode.TEXT_KEPT_AS_SENT}
    for file in (segmentation(images, tmp_path, copied), report(images, tmp_path, copied)):
        assert bytes_in(file, "PatientID") == number
        (kept,) = pydicom.dcmread(file).OtherPatientIDsSequence
        assert kept.get_item("PatientID").value == number
        assert bytes_in(file, "PatientBirthDate") == b""


def test_our_times_are_in_the_zone_that_the_result_names(tmp_path: Path) -> None:
    files, copied = both(tmp_path, saying(TimezoneOffsetFromUTC=b"+1345"))
    for file in files:
        made = pydicom.dcmread(file)
        said = f"{made.ContentDate}{str(made.ContentTime)[:4]}"
        assert said in {
            copied.now().strftime("%Y%m%d%H%M"),
            made.ContributingEquipmentSequence[-1].ContributionDateTime[:12],
        }
        assert str(made.ContributingEquipmentSequence[-1].ContributionDateTime).endswith("+1345")
