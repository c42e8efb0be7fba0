"""A result in another transfer syntax: every value as it was, text byte for byte, read by pydicom and DCMTK."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from outpost.delivery import encoding

CP1251 = "ИВАНОВ^ПЁТР".encode("cp1251")


def _written(folder: Path, result: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    result.SOPClassUID, result.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = syntax
    file = folder / "result.dcm"
    result.save_as(file, enforce_file_format=True)
    return file


def _rich() -> Dataset:
    """Sequences in sequences, private elements, long and empty values, numbers of every kind."""
    deep = Dataset()
    deep.CodeValue, deep.CodeMeaning = "T-A0100", "Brain"
    item = Dataset()
    item.ConceptCodeSequence = Sequence([deep, Dataset()])
    item.FloatingPointValue = [1.5, -2.25]
    held = Dataset()
    held.PatientName = "CANARY"
    held.ContentSequence = Sequence([item])
    held.ReferencedStudySequence = Sequence([])
    held.PixelSpacing = [0.5, 0.5]
    held.add_new(0x00091001, "LO", "private text")
    held.add_new(0x00090010, "LO", "OUTPOST TEST")
    held.add_new(0x00091002, "SQ", Sequence([deep]))
    held.add_new(0x00091003, "UN", b"\x01\x02\x03\x04")
    held.add_new(0x00091004, "FD", 1e-9)
    held.add_new(0x00420011, "OB", bytes(range(256)) * 300)
    held.add_new(0x00080119, "UC", "x" * 70000)
    held.add_new(0x00281054, "LO", "")
    held.TagAngleSecondAxis = -7
    return held


def _implicit(file: Path) -> Dataset:
    raw = io.BytesIO(encoding.part10(file, encoding.IMPLICIT))
    read = dcmread(raw)
    assert read.file_meta.TransferSyntaxUID == encoding.IMPLICIT
    return read


def test_every_value_stays_what_it_was_in_sequences_private_elements_and_numbers(tmp_path: Path) -> None:
    file = _written(tmp_path, _rich())
    was, now = dcmread(file), _implicit(file)
    assert [element.tag for element in now] == [element.tag for element in was]
    for element in was:
        if element.tag.is_private:
            continue  # implicit VR does not carry their VR: their bytes are looked at below
        assert now[element.tag] == element
    # What implicit VR does not say of a private value is its VR; a sequence is known by its undefined length.
    assert now[0x00091002].value[0].CodeMeaning == "Brain"
    assert now.get_item(0x00091001).value == b"private text"
    assert now.get_item(0x00091003).value == b"\x01\x02\x03\x04"
    assert now.get_item(0x00091004).value == struct.pack("<d", 1e-9)


def test_dcmtk_reads_the_same_of_both_encodings(tmp_path: Path) -> None:
    file = _written(tmp_path, _rich())
    (tmp_path / "implicit.dcm").write_bytes(encoding.part10(file, encoding.IMPLICIT))

    def shown(path: Path) -> list[str]:
        back = path.with_suffix(".explicit")
        subprocess.run(["/usr/bin/dcmconv", "+te", "+e", path, back], check=True, capture_output=True)
        told = subprocess.run(["/usr/bin/dcmdump", "+L", back], check=True, capture_output=True).stdout
        lines = told.decode("ascii", "replace").splitlines()
        return [
            line.split("#")[0].rstrip()
            for line in lines
            if line.strip().startswith("(") and not line.strip().startswith(("(0002", "(0009"))
        ]

    assert shown(file) == shown(tmp_path / "implicit.dcm")
    assert len(shown(file)) > 15


@pytest.mark.parametrize("label", [None, "ISO_IR 192", "ISO_IR 144"])
def test_text_keeps_its_bytes_whatever_its_label(tmp_path: Path, label: str | None) -> None:
    held = Dataset()
    held.PatientID = "ID"
    file = _written(tmp_path, held)
    read = dcmread(file)
    if label is not None:
        read.SpecificCharacterSet = label
    read.PatientName = "X" * len(CP1251)
    read.save_as(file)
    raw = file.read_bytes()
    assert raw.count(b"X" * len(CP1251)) == 1
    file.write_bytes(raw.replace(b"X" * len(CP1251), CP1251))
    now = _implicit(file)
    assert now.get_item("PatientName").value.rstrip(b" ") == CP1251
    assert now.get("SpecificCharacterSet") == label


def test_sequences_written_with_undefined_lengths_and_group_lengths_are_right_too(tmp_path: Path) -> None:
    file = _written(tmp_path, _rich())
    subprocess.run(["/usr/bin/dcmconv", "+te", "-e", "+g", file, tmp_path / "other.dcm"], check=True)
    now = _implicit(tmp_path / "other.dcm")
    assert now.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Brain"
    assert not [element.tag for element in now if element.tag.element == 0], "group lengths would lie"


def test_a_sequence_of_unknown_vr_is_implicit_inside_already(tmp_path: Path) -> None:
    inner = encoding._ITEM + struct.pack("<L", 0xFFFFFFFF)
    inner += b"\x08\x00\x04\x01" + struct.pack("<L", 6) + b"Brain " + encoding._ITEM_END + b"\0" * 4
    held = (
        b"\x09\x00\x02\x10UN\0\0" + struct.pack("<L", 0xFFFFFFFF) + inner + encoding._SEQUENCE_END + b"\0" * 4
    )
    after = b"\x10\x00\x20\x00LO" + struct.pack("<H", 2) + b"ID"
    written = encoding._implicit(held + after)
    read = dcmread(io.BytesIO(written), force=True)
    assert read[0x00091002].value[0].CodeMeaning == "Brain"
    assert read.PatientID == "ID"


def test_pixels_of_one_bit_and_of_sixteen_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("liver.dcm", "MR_small.dcm"):
        file = Path(str(get_testdata_file(name)))
        was = dcmread(file)
        assert was.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        now = _implicit(file)
        assert now.PixelData == was.PixelData
        assert np.array_equal(now.pixel_array, was.pixel_array)


def test_a_deflated_file_can_go_inflated_and_a_compressed_or_big_endian_one_only_as_it_is(
    tmp_path: Path,
) -> None:
    file = _written(tmp_path, _rich())
    deflated = tmp_path / "deflated.dcm"
    subprocess.run(["/usr/bin/dcmconv", "+td", file, deflated], check=True)
    assert encoding.also(DeflatedExplicitVRLittleEndian) == (encoding.EXPLICIT, encoding.IMPLICIT)
    assert dcmread(io.BytesIO(encoding.part10(deflated, encoding.EXPLICIT))) == dcmread(file)
    assert _implicit(deflated).ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Brain"
    for syntax in (JPEGBaseline8Bit, ExplicitVRBigEndian, encoding.IMPLICIT):
        assert encoding.also(syntax) == ()
    for name in ("JPEG2000.dcm", "MR_small_bigendian.dcm"):
        with pytest.raises(encoding.NotEncodable):
            encoding.data_set(Path(str(get_testdata_file(name))), encoding.IMPLICIT)


@pytest.mark.parametrize("cut", [3, 9, 30])
def test_a_torn_file_is_not_sent_in_another_encoding(tmp_path: Path, cut: int) -> None:
    file = _written(tmp_path, _rich())
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(encoding.NotEncodable) as told:
        encoding.data_set(file, encoding.IMPLICIT)
    assert "CANARY" not in str(told.value)
