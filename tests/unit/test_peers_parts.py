"""The parts that meet peers, without a network: negotiation, comparing encodings, heads of files, bodies, counts."""

from __future__ import annotations

import asyncio
import gzip
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless
from pynetdicom import AllStoragePresentationContexts, build_context, sop_class

from outpost.delivery.scu import PUSH_MODEL
from outpost.dicom.classes import may_be_an_image
from outpost.intake import same
from outpost.intake.body import BodyTooLarge, UnsupportedEncoding, plain
from outpost.intake.content import content_digest
from outpost.intake.doors import Doors, Turned
from outpost.intake.header import dataset_offset
from outpost.intake.multipart import MalformedBody, MultipartReader, PartBegins
from outpost.intake.negotiation import is_storage, name_of, supported
from outpost.intake.part10 import known_uids, put_right
from outpost.intake.refusal import InstanceRefused
from outpost.intake.spool import Spool
from outpost.records.journal import Journal


def sample(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom's wheel lacks {name}"
    return Path(path)


# --- negotiation ---


def test_every_storage_class_pynetdicom_knows_is_one() -> None:
    assert all(is_storage(str(context.abstract_syntax)) for context in AllStoragePresentationContexts)


def test_no_class_of_another_service_is_taken_for_storage() -> None:
    services = {
        uid
        for name, classes in vars(sop_class).items()
        if name.startswith("_") and name.endswith("_CLASSES") and isinstance(classes, dict)
        if name not in ("_STORAGE_CLASSES", "_SERVICE_CLASSES", "_NON_PATIENT_OBJECT_CLASSES")
        for uid in classes.values()
    }
    assert len(services) > 60
    taken = {uid for uid in services if is_storage(uid)}
    assert {UID_dictionary[uid][0] for uid in taken} <= {"Media Storage Directory Storage"}
    transfer_syntaxes = [uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"]
    assert not [uid for uid in transfer_syntaxes if is_storage(uid)]


def test_private_and_future_classes_are_storage_and_not_believed_to_be_images() -> None:
    for uid in ("1.3.46.670589.11.0.0.12.1", "1.2.840.10008.5.1.4.1.1.99999", "1.2.840.113619.4.26"):
        assert is_storage(uid)
        assert not may_be_an_image(uid)
        assert name_of(uid) == "an unknown class", "a UID may be anything: it is not repeated"
    assert may_be_an_image("1.2.840.10008.5.1.4.1.1.2")
    assert not may_be_an_image("1.2.840.10008.5.1.4.1.1.88.11")


def test_known_transfer_syntaxes_come_before_private_ones_and_none_is_left_out() -> None:
    proposed = [
        build_context("1.2.3.4", ["1.2.3.5", RLELossless]),
        build_context("1.2.3.4", ["1.2.3.6", ExplicitVRLittleEndian]),
    ]
    [context] = supported(proposed, commitment_reports=False)
    assert context.transfer_syntax == [ExplicitVRLittleEndian, RLELossless, "1.2.3.5", "1.2.3.6"]
    assert supported([build_context(PUSH_MODEL)], commitment_reports=False) == []
    [reports] = supported([build_context(PUSH_MODEL)], commitment_reports=True)
    assert (reports.scu_role, reports.scp_role) == (True, True)


# --- two encodings of one image ---


def compared(one: Path, other: Path | None, held: Path | None = None) -> same.Answer:
    kept = held or other
    assert kept is not None
    return same.compare(one, other, content_digest(kept, dataset_offset(kept)))


def by_dcmtk(source: Path, target: Path, *command: str) -> Path:
    subprocess.run([*command, source, target], check=True, capture_output=True)
    return target


@pytest.mark.parametrize(
    "name",
    ["MR_small.dcm", "SC_rgb.dcm", "color-pl.dcm", "CT_small.dcm", "SC_rgb_small_odd.dcm", "rtdose.dcm"],
)
def test_pixels_are_compared_whatever_they_are(tmp_path: Path, name: str) -> None:
    """Signed and unsigned, colours, palettes, odd sizes, frames of 32 bits; also by the digest alone."""
    rle = by_dcmtk(sample(name), tmp_path / "rle.dcm", "/usr/bin/dcmcrle")
    assert compared(rle, sample(name)).same
    assert compared(sample(name), rle).same
    assert compared(rle, None, sample(name)).same, "its file is gone, and its values are known"
    gone = compared(sample(name), None, rle)
    assert (gone.same, "gone" in gone.comment) == (False, True), (
        "what was compressed is known by its bytes alone"
    )
    changed = dcmread(rle)
    changed.decompress()
    stored = bytearray(changed.PixelData)
    stored[len(stored) // 2] ^= 1
    changed.PixelData = bytes(stored)
    changed.save_as(tmp_path / "changed.dcm")
    assert not compared(tmp_path / "changed.dcm", rle).same


def test_fragments_offset_tables_and_unused_bits_are_no_part_of_an_image(tmp_path: Path) -> None:
    image = dcmread(sample("MR_small.dcm"))
    image.PixelData = (image.pixel_array & 0xFFF).astype("<u2").tobytes()
    image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
    image.save_as(tmp_path / "clean.dcm")
    image.PixelData = (image.pixel_array | 0xA000).astype("<u2").tobytes()
    image.save_as(tmp_path / "dirty.dcm")
    assert compared(tmp_path / "dirty.dcm", tmp_path / "clean.dcm").same
    image.add_new(0x60000102, "US", 15)  # an overlay lies in those bits
    image.save_as(tmp_path / "dirty.dcm")
    clean = dcmread(tmp_path / "clean.dcm")
    clean.add_new(0x60000102, "US", 15)
    clean.save_as(tmp_path / "clean.dcm")
    assert not compared(tmp_path / "dirty.dcm", tmp_path / "clean.dcm").same
    whole = by_dcmtk(sample("MR_small.dcm"), tmp_path / "whole.dcm", "/usr/bin/dcmcjpls")
    cut = by_dcmtk(sample("MR_small.dcm"), tmp_path / "cut.dcm", "/usr/bin/dcmcjpls", "+fs", "1", "+ot")
    assert whole.read_bytes() != cut.read_bytes()
    assert compared(cut, whole).same


def test_the_same_text_in_another_character_set_is_the_same_and_a_wrong_label_is_not(tmp_path: Path) -> None:
    image = dcmread(sample("MR_small.dcm"))
    image.SpecificCharacterSet, image.PatientName = "ISO_IR 144", "Иванов^Пётр"
    image.save_as(tmp_path / "cyrillic.dcm")
    utf = by_dcmtk(tmp_path / "cyrillic.dcm", tmp_path / "utf.dcm", "/usr/bin/dcmconv", "+U8")
    assert compared(utf, tmp_path / "cyrillic.dcm").same
    other = dcmread(utf)
    other.PatientName = "Иванова^Пётр"
    other.save_as(tmp_path / "other.dcm")
    assert not compared(tmp_path / "other.dcm", tmp_path / "cyrillic.dcm").same


def test_without_time_nothing_is_the_same_and_the_next_question_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rle = by_dcmtk(sample("MR_small.dcm"), tmp_path / "rle.dcm", "/usr/bin/dcmcrle")
    with monkeypatch.context() as patched:
        patched.setattr(same, "SECONDS", 0.0)
        answer = compared(rle, sample("MR_small.dcm"))
        assert (answer.same, "not found out" in answer.comment) == (False, True)
    assert compared(rle, sample("MR_small.dcm")).same
    with monkeypatch.context() as patched:
        patched.setattr(same, "SECONDS", 0.0)
        patched.setattr(same, "_REST_SECONDS", 0.5)
        assert not any(compared(rle, sample("MR_small.dcm")).same for _ in range(same._MOST_FAILURES))
    assert not compared(rle, sample("MR_small.dcm")).same, "it rests"
    time.sleep(0.6)
    assert compared(rle, sample("MR_small.dcm")).same


def test_a_child_that_died_is_replaced_and_a_busy_one_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rle = by_dcmtk(sample("MR_small.dcm"), tmp_path / "rle.dcm", "/usr/bin/dcmcrle")
    assert compared(rle, sample("MR_small.dcm")).same
    child = same._comparer._child
    assert child is not None
    child.kill()
    child.wait()
    assert compared(rle, sample("MR_small.dcm")).same
    monkeypatch.setattr(same, "_SEAT_SECONDS", 0.1)
    with same._comparer._seat:
        began = time.monotonic()
        assert not compared(rle, sample("MR_small.dcm")).same
        assert time.monotonic() - began < 2
    same._comparer._dismiss_idle()
    assert same._comparer._child is None


def test_an_image_sent_again_compressed_brings_its_removed_study_back(tmp_path: Path) -> None:
    """Its study is wanted again, and only the digest of its native form is left of it."""
    (tmp_path / "root").mkdir()
    journal = Journal(tmp_path / "root" / "journal.sqlite3", "brain")
    spool = Spool(tmp_path / "root", journal, reserve_mib=0)

    def arrived(file: Path) -> Path:
        return Path(shutil.copy(file, spool.incoming / file.name))

    _, study = spool.take(arrived(sample("MR_small.dcm")), "TEST")
    assert study is not None
    journal.complete(study.row)
    journal.finish(study.row, "quarantined", "INSTANCES_REMOVED")
    assert spool.remove_study(study)
    rle = by_dcmtk(sample("MR_small.dcm"), tmp_path / "rle.dcm", "/usr/bin/dcmcrle")
    _, again = spool.take(arrived(rle), "TEST")
    assert again is not None
    assert again.revision == 2
    [file] = spool.files(again)
    assert file.read_bytes() == rle.read_bytes()
    journal.close()


def test_whatever_bytes_come_a_second_time_they_are_a_conflict_at_worst(tmp_path: Path) -> None:
    chance = random.Random(20261130)
    (tmp_path / "root").mkdir()
    journal = Journal(tmp_path / "root" / "journal.sqlite3", "brain")
    spool = Spool(tmp_path / "root", journal, reserve_mib=0)
    source = by_dcmtk(sample("MR_small.dcm"), tmp_path / "rle.dcm", "/usr/bin/dcmcrle")
    spool.take(Path(shutil.copy(sample("MR_small.dcm"), spool.incoming)), "TEST")
    begin = dataset_offset(source)
    ends = set()
    for number in range(60):
        raw = bytearray(source.read_bytes())
        for _ in range(3):
            raw[chance.randrange(begin + 700, len(raw))] = chance.randrange(256)
        path = spool.incoming / f"{number}.dcm"
        path.write_bytes(raw)
        try:
            _, study = spool.take(path, "TEST")
            ends.add("known" if study is None else "new")
        except InstanceRefused as refused:
            ends.add(refused.refusal.name)
    assert "CONTENT_CONFLICT" in ends
    assert ends <= {"known", "new", "CONTENT_CONFLICT", "NOT_DICOM", "UID_MISSING", "UID_UNSAFE"}
    journal.close()


# --- heads of files ---


def test_a_right_file_is_left_as_it_is_and_so_is_what_is_no_dicom(tmp_path: Path) -> None:
    for content in (sample("CT_small.dcm").read_bytes(), b"", b"DICM", b"not DICOM at all" * 20, bytes(500)):
        (tmp_path / "x").write_bytes(content)
        assert not put_right(tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.filterwarnings("ignore")  # pydicom warns of each
def test_random_bytes_behind_a_beginning_raise_nothing_but_refusals(tmp_path: Path) -> None:
    chance = random.Random(7)
    begins = (
        bytes(128) + b"DICM",
        b"DICM",
        b"\x02\0\x10\0UI",
        b"\x08\0\x16\0UI\x1a\0",
        b"\x08\0\x05\0",
        b"\0\x08\0\x16UI",
    )
    for number in range(300):
        (tmp_path / "x").write_bytes(begins[number % len(begins)] + chance.randbytes(chance.randrange(400)))
        with suppress(InstanceRefused):
            put_right(tmp_path / "x")
        known_uids(tmp_path / "x")
        assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_big_endian_data_set_without_a_head_is_known_for_one(tmp_path: Path) -> None:
    raw = sample("ExplVR_BigEnd.dcm").read_bytes()
    (tmp_path / "x").write_bytes(raw[dataset_offset(sample("ExplVR_BigEnd.dcm")) :])
    assert put_right(tmp_path / "x")
    assert (
        dcmread(tmp_path / "x").pixel_array.tobytes()
        == dcmread(sample("ExplVR_BigEnd.dcm")).pixel_array.tobytes()
    )


def test_what_the_part_says_of_its_syntax_counts_only_where_the_file_says_nothing(tmp_path: Path) -> None:
    shutil.copy(sample("MR_small_RLE.dcm"), tmp_path / "x")
    assert not put_right(tmp_path / "x", str(JPEGBaseline8Bit))
    raw = sample("MR_small_RLE.dcm").read_bytes()
    (tmp_path / "x").write_bytes(raw[dataset_offset(sample("MR_small_RLE.dcm")) :])
    with pytest.raises(InstanceRefused, match="no transfer syntax is named"):
        put_right(tmp_path / "x", "../../etc")
    assert put_right(tmp_path / "x", str(RLELossless))
    assert known_uids(tmp_path / "x") == (
        str(dcmread(sample("MR_small_RLE.dcm")).SOPClassUID),
        str(dcmread(sample("MR_small_RLE.dcm")).SOPInstanceUID),
    )


# --- bodies ---


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("closing", [b"--", b"", b"-"])
def test_lines_may_end_as_the_first_one_does_and_the_content_is_kept_whatever_ends_it(
    end: bytes, closing: bytes
) -> None:
    contents = [b"x\r", b"x\n", b"\r\n\r\nx", b"\n", b"", bytes(range(256))]
    body = b"preamble" + end
    for content in contents:
        body += (
            b"--B"
            + end
            + b"Content-Type: application/dicom; transfer-syntax=1.2.3"
            + end
            + end
            + content
            + end
        )
    body += b"--B" + closing
    for size in (1, 7, len(body)):
        reader, found = MultipartReader(b"B"), []
        for at in range(0, len(body), size):
            for event in reader.feed(body[at : at + size]):
                if isinstance(event, PartBegins):
                    assert event == PartBegins("application/dicom", "1.2.3")
                    found.append(b"")
                elif isinstance(event, bytes):
                    found[-1] += event
        reader.close()
        assert found == contents


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not in the body"),
        (b"--A\r\n\r\nx\r\n--A--", "not in the body"),
        (b"--B--", "no part"),
        (b"--B\r\n", "no part"),
        (b"--B\r\nContent-Ty", "before its closing"),
        (b"--B\r\n\r\nx", "before its closing"),
        (b"--B\r\n\r\nx\r\n--", "before its closing"),
    ],
)
def test_what_a_body_lacks_is_named(body: bytes, words: str) -> None:
    reader = MultipartReader(b"B")
    reader.feed(body)
    with pytest.raises(MalformedBody, match=words):
        reader.close()


async def _pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def unfolded(body: bytes, encoding: str, size: int = 1000) -> bytes:
    async def read() -> bytes:
        found = bytearray()
        async for piece in plain(_pieces(body, size), encoding):
            assert len(piece) <= 1 << 20
            found += piece
        return bytes(found)

    return asyncio.run(read())


def test_what_was_compressed_is_unfolded_piece_by_piece() -> None:
    content = random.Random(1).randbytes(5000) + bytes(5 << 20) + b"end"
    for size in (1000, 1 << 20):
        assert unfolded(gzip.compress(content), "GZIP", size) == content
        assert unfolded(gzip.compress(content), "identity, gzip", size) == content
        assert unfolded(content, "identity", 1 << 20) == content


def test_a_bomb_and_a_broken_stream_are_told_apart() -> None:
    with pytest.raises(BodyTooLarge):
        unfolded(gzip.compress(bytes(100 << 20)), "gzip")
    with pytest.raises(MalformedBody, match="before its end"):
        unfolded(gzip.compress(b"x" * 500)[:-8], "gzip")
    with pytest.raises(MalformedBody, match="not compressed"):
        unfolded(gzip.compress(b"x" * 500) + b"no second stream", "gzip")
    with pytest.raises(UnsupportedEncoding):
        unfolded(b"", "zstd")


# --- counts ---


def test_each_refusal_counts_and_one_event_of_a_kind_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    noted: list[str] = []
    doors = Doors(noted.append)
    for _ in range(3):
        doors.turned_away("association", Turned.CALLING_AE_UNKNOWN, "who is it", "A", "10.0.0.1")
    doors.turned_away("association", Turned.CALLING_AE_UNKNOWN, "who is it", "A", "10.0.0.2")
    doors.turned_away("request", Turned.BODY_MALFORMED, "torn", "", "10.0.0.1")
    assert doors.counts() == {("association", "CALLING_AE_UNKNOWN"): 4, ("request", "BODY_MALFORMED"): 1}
    assert len(caplog.records) == 5
    assert [detail.split(" of ")[1].split(":")[0] for detail in noted] == [
        "'A' at 10.0.0.1",
        "'A' at 10.0.0.2",
    ]


def test_what_a_sender_calls_itself_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    Doors().turned_away("association", Turned.CALLING_AE_UNKNOWN, "who is it", "A\nERROR x", "10.0.0.1")
    assert "\n" not in caplog.records[0].getMessage()
