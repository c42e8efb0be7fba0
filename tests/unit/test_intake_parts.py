"""The parts of intake that need no network: multipart bodies, identity of content, the spool, room."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from outpost.intake import room
from outpost.intake.content import content_digest
from outpost.intake.header import dataset_offset, is_uid, read_header
from outpost.intake.multipart import MalformedBody, MultipartReader, PartBegins, PartEnds
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import FilesMissing, Spool
from outpost.intake.stow import UnsupportedType, boundary_of
from outpost.records.journal import Journal, StudyRecord

# --- multipart ---

PARTS = [b"plain", b"", b"\r\n--Bx is not --B\r\n", b"\r\n--\r\n-- B\r\n", bytes(range(256)) * 40, b"--B"]
BODY = (
    b"a preamble\r\n"
    + b"".join(
        b"--B  \r\nContent-Type: application/DICOM; x=y\r\nX: 1\r\n\r\n" + p + b"\r\n" for p in PARTS[:-1]
    )
    + b"--B\r\n\r\n"
    + PARTS[-1]
    + b"\r\n--B--\r\nan epilogue"
)


def parts_of(chunks: list[bytes]) -> list[tuple[str, bytes]]:
    reader, parts, ended = MultipartReader(b"B"), [], 0
    for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, PartBegins):
                parts.append((event.content_type, b""))
            elif isinstance(event, PartEnds):
                ended += 1
            else:
                parts[-1] = (parts[-1][0], parts[-1][1] + event)
    reader.close()
    assert ended == len(parts)
    return parts


def test_a_multipart_body_gives_the_same_parts_however_it_is_cut() -> None:
    # A line that begins with the boundary is one, so such content needs another boundary: RFC 2046 5.1.1.
    body = BODY.replace(b"\r\n--Bx is", b"\r\n-Bx is")
    wanted = [("application/dicom", p.replace(b"\r\n--Bx is", b"\r\n-Bx is")) for p in PARTS[:-1]]
    wanted.append(("", PARTS[-1]))
    assert parts_of([body]) == wanted
    assert parts_of([body[i : i + 1] for i in range(len(body))]) == wanted
    chance = random.Random(7)
    for _ in range(50):
        cuts = sorted(chance.sample(range(len(body)), 20))
        assert parts_of([body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]) == wanted


def test_a_boundary_with_text_behind_it_is_named() -> None:
    with pytest.raises(MalformedBody, match="followed by other text"):
        parts_of([BODY])


def test_a_body_without_its_end_is_named() -> None:
    with pytest.raises(MalformedBody, match="before its closing boundary"):
        parts_of([b"--B\r\n\r\nhalf"])


def test_endless_headers_and_preambles_do_not_fill_the_memory() -> None:
    with pytest.raises(MalformedBody, match="headers of a part exceed"):
        parts_of([b"--B\r\nX: ", *([b"y" * 1000] * 20)])
    reader = MultipartReader(b"B")
    for _ in range(100):
        reader.feed(b"no boundary here" * 100)
    assert len(reader._buffer) < 100


def test_only_related_dicom_with_a_boundary_is_taken() -> None:
    assert boundary_of('multipart/related; type="application/dicom"; boundary="a b"') == b"a b"
    assert boundary_of("Multipart/Related; boundary=x") == b"x"
    for other in (
        "",
        "application/dicom",
        "multipart/form-data; boundary=x",
        'multipart/related; type="text/xml"',
    ):
        with pytest.raises(UnsupportedType):
            boundary_of(other)
    for boundary in ("", "; boundary=", f"; boundary={'x' * 201}"):
        with pytest.raises(MalformedBody):
            boundary_of(f"multipart/related{boundary}")


# --- content ---


def sample(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom's wheel lacks {name}"
    return Path(path)


def digest(path: Path) -> str:
    return content_digest(path, dataset_offset(path))


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "reportsi.dcm", "test-SR.dcm"]
)
@pytest.mark.parametrize("how", [["+ti"], ["+te", "-e"], ["+te", "+g"], ["+ti", "+e", "+p", "100", "200"]])
def test_an_object_re_encoded_by_dcmtk_has_the_same_digest(name: str, how: list[str], tmp_path: Path) -> None:
    subprocess.run(["dcmconv", *how, sample(name), tmp_path / "other.dcm"], check=True)
    assert (tmp_path / "other.dcm").read_bytes() != sample(name).read_bytes()
    assert digest(tmp_path / "other.dcm") == digest(sample(name))


def test_one_changed_pixel_or_name_or_item_is_another_object(tmp_path: Path) -> None:
    found = {digest(sample("CT_small.dcm"))}
    for change in ("pixel", "name", "item"):
        image = dcmread(sample("CT_small.dcm"))
        if change == "pixel":
            image.PixelData = image.PixelData[:-1] + bytes([image.PixelData[-1] ^ 1])
        elif change == "name":
            image.PatientName = "Other"
        else:
            item = Dataset()
            item.PatientID = "X"
            image.OtherPatientIDsSequence = [*image.get("OtherPatientIDsSequence", []), item]
        image.save_as(tmp_path / f"{change}.dcm")
        found.add(digest(tmp_path / f"{change}.dcm"))
    assert len(found) == 4


def test_what_was_cut_off_is_another_object_and_what_cannot_be_walked_is_its_bytes(tmp_path: Path) -> None:
    for name in ("rtplan.dcm", "CT_small.dcm"):
        (tmp_path / name).write_bytes(sample(name).read_bytes()[:-200])
        assert digest(tmp_path / name) != digest(sample(name))
    assert digest(sample("image_dfl.dcm")).startswith("b:")
    assert digest(sample("CT_small.dcm")).startswith("v:")


# --- headers ---


@pytest.mark.parametrize("text", ["1.2.840.10008", "2.25." + "9" * 38, "1.02"])
def test_a_uid_is_one(text: str) -> None:
    assert is_uid(text)


@pytest.mark.parametrize(
    "text", ["", "1", "..", "1..2", ".1", "1.", "1.2/3", "1.2\n", "1.2 ", "1.2.x", "1." + "2" * 63]
)
def test_what_must_not_become_a_path_is_no_uid(text: str) -> None:
    assert not is_uid(text)


def test_every_test_file_of_pydicom_has_a_header_or_a_refusal() -> None:
    """Truncated, without meta, wrong VRs, DICOMDIRs: all of them end one of the two ways."""
    folder = sample("CT_small.dcm").parent
    read = refused = 0
    for path in sorted(folder.rglob("*.dcm")):
        try:
            header = read_header(path)
            assert all(map(is_uid, (header.study_uid, header.series_uid, header.sop_uid)))
            digest(path)
            read += 1
        except InstanceRefused:
            refused += 1
    assert read > 40
    assert refused > 5


@pytest.mark.parametrize("inflated", [1 << 26, 1 << 24])
def test_a_deflated_bomb_is_refused_in_a_moment(tmp_path: Path, inflated: int) -> None:
    whole = sample("image_dfl.dcm").read_bytes()
    offset = dataset_offset(sample("image_dfl.dcm"))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    # Zeros are elements of eight bytes without a value: two million of them in the smaller one.
    plain = zlib.decompress(whole[offset:], -zlib.MAX_WBITS)
    bomb = deflate.compress(plain[: plain.index(b"\xe0\x7f\x10\x00")] + b"\0" * inflated)
    (tmp_path / "bomb.dcm").write_bytes(whole[:offset] + bomb + deflate.flush())
    assert (tmp_path / "bomb.dcm").stat().st_size < 1 << 17
    begun = time.process_time()
    with pytest.raises(InstanceRefused, match="TOO_COMPLEX"):
        read_header(tmp_path / "bomb.dcm")
    assert digest(tmp_path / "bomb.dcm").startswith("b:")
    assert time.process_time() - begun < 2


# --- the spool ---


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "root").mkdir()
    return Journal(tmp_path / "root" / "journal.sqlite3", "brain")


@pytest.fixture
def spool(tmp_path: Path, journal: Journal) -> Spool:
    return Spool(tmp_path / "root", journal, reserve_mib=0)


def arrived(spool: Spool, study: str, number: int, name: str = "x") -> Path:
    image = dcmread(sample("MR_small.dcm"))
    image.StudyInstanceUID, image.PatientName = study, name
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}"
    path = spool.incoming / f"{time.monotonic_ns()}.dcm"
    image.save_as(path)
    return path


def taken(spool: Spool, study: str, number: int) -> StudyRecord:
    _, record = spool.take(arrived(spool, study, number), "TEST")
    assert record is not None
    return record


def ended(spool: Spool, journal: Journal, study: StudyRecord, reason: str) -> None:
    journal.complete(study.row)
    spool.quarantine_study(study, reason)
    journal.finish(study.row, "rejected", reason)
    assert spool.remove_study(study)


def test_an_instance_is_on_the_disk_before_it_is_in_the_journal(
    spool: Spool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link, add = os.fsync, os.link, journal.add_all

    def noting(name: str, function: object) -> object:
        def call(*arguments: object) -> object:
            steps.append(
                name if name != "fsync" else f"fsync {Path(f'/proc/self/fd/{arguments[0]}').readlink().name}"
            )
            return function(*arguments)  # type: ignore[operator] # one of the three above

        return call

    monkeypatch.setattr(os, "fsync", noting("fsync", fsync))
    monkeypatch.setattr(os, "link", noting("link", link))
    monkeypatch.setattr(journal, "add_all", noting("journal", add))
    file = arrived(spool, "1.2.3", 1)
    spool.take(file, "TEST")
    assert steps == [f"fsync {file.name}", "fsync spool", "link", "fsync 1.2.3", "journal"]


def test_bytes_that_were_placed_but_not_journalled_are_adopted_after_a_crash(
    spool: Spool, journal: Journal
) -> None:
    taken(spool, "1.2.3", 1)
    orphan = spool.folder("1.2.3") / "1.2.3.2.dcm"
    shutil.move(arrived(spool, "1.2.3", 2), orphan)
    unfinished = arrived(spool, "1.2.3", 3)
    assert spool.reconcile() == 1
    assert not unfinished.exists()
    [study] = journal.revisions("1.2.3")
    assert study.instances == 2
    assert spool.reconcile() == 0


def test_a_placed_file_that_is_not_what_its_name_says_goes_to_quarantine(
    spool: Spool, journal: Journal
) -> None:
    taken(spool, "1.2.3", 1)
    shutil.move(arrived(spool, "1.2.3", 2), spool.folder("1.2.3") / "1.2.3.7.dcm")
    (spool.folder("1.2.3") / "1.2.3.8.dcm").write_bytes(b"torn")
    assert spool.reconcile() == 0
    assert journal.instances_refused() == {"NOT_DICOM": 1, "UID_MISMATCH": 1}
    assert [f.name for f in spool.folder("1.2.3").iterdir()] == ["1.2.3.1.dcm"]


def test_a_late_image_of_a_rejected_study_brings_its_files_back_from_quarantine(
    spool: Spool, journal: Journal
) -> None:
    ended(spool, journal, taken(spool, "1.2.3", 1), "WHY")
    assert not spool.folder("1.2.3").exists()
    second = taken(spool, "1.2.3", 2)
    assert [f.name for f in spool.files(second)] == ["1.2.3.1.dcm", "1.2.3.2.dcm"]
    assert (spool.quarantine / "WHY" / "1.2.3.r1" / "1.2.3.1.dcm").exists()


def test_half_a_study_is_never_handed_out_and_sending_it_again_makes_it_whole(
    spool: Spool, journal: Journal
) -> None:
    first = taken(spool, "1.2.3", 1)
    spool.remove_study(first)
    second_file = arrived(spool, "1.2.3", 2)
    _, study = spool.take(second_file, "TEST")
    assert study is not None
    with pytest.raises(FilesMissing):
        spool.files(study)
    spool.take(arrived(spool, "1.2.3", 1), "TEST")
    assert len(spool.files(study)) == 2


def test_a_crash_between_the_end_of_a_study_and_its_removal_is_made_good(
    spool: Spool, journal: Journal
) -> None:
    study = taken(spool, "1.2.3", 1)
    journal.complete(study.row)
    spool.quarantine_study(study, "WHY")
    spool.quarantine_study(study, "WHY")
    journal.finish(study.row, "rejected", "WHY")
    spool.reconcile()
    assert not spool.folder("1.2.3").exists()
    assert len(list((spool.quarantine / "WHY" / "1.2.3.r1").iterdir())) == 1


def test_an_instance_whose_journalling_failed_is_refused_and_taken_when_it_comes_again(
    spool: Spool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(journal, "add_all", full)
        with pytest.raises(InstanceRefused, match="OUT_OF_SPACE"):
            spool.take(arrived(spool, "1.2.3", 1, name="torn"), "TEST")
    again = arrived(spool, "1.2.3", 1, name="whole")
    spool.take(again, "TEST")
    assert (spool.folder("1.2.3") / "1.2.3.1.dcm").read_bytes() == again.read_bytes()


def test_files_stay_when_a_later_revision_has_opened(spool: Spool, journal: Journal) -> None:
    first = taken(spool, "1.2.3", 1)
    journal.complete(first.row)
    journal.begin_inference(first.row)
    taken(spool, "1.2.3", 2)
    assert not spool.remove_study(first)
    assert len(list(spool.folder("1.2.3").iterdir())) == 2


def test_bytes_of_a_sender_that_went_away_are_dropped_and_those_still_arriving_are_not(spool: Spool) -> None:
    abandoned, arriving = arrived(spool, "1.2.3", 1), arrived(spool, "1.2.3", 2)
    long_ago = time.time() - 3600
    os.utime(abandoned, (long_ago, long_ago))
    spool.drop_abandoned()
    assert (abandoned.exists(), arriving.exists()) == (False, True)


def test_below_the_reserve_nothing_is_taken_or_kept(tmp_path: Path, journal: Journal) -> None:
    spool = Spool(tmp_path / "root", journal, reserve_mib=1 << 40)
    with pytest.raises(InstanceRefused) as caught:
        spool.take(arrived(spool, "1.2.3", 1), "TEST")
    assert caught.value.refusal is Refusal.OUT_OF_SPACE
    assert not list(spool.quarantine.iterdir())


def test_every_refusal_fits_an_error_comment() -> None:
    assert max(len(refusal.comment) for refusal in Refusal) <= 64


@pytest.mark.parametrize("failing", ["journal", "quarantine"])
def test_whatever_fails_inside_one_instance_is_an_answer_and_the_next_one_is_taken(
    spool: Spool, journal: Journal, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patched:
        if failing == "journal":
            patched.setattr(journal, "add_all", broken)
            wanted, file = Refusal.INTERNAL, arrived(spool, "1.2.3", 1)
        else:
            full = OSError(errno.ENOSPC, "no space")
            patched.setattr(spool, "put_aside", lambda *_: (_ for _ in ()).throw(full))
            file = spool.incoming / "torn.dcm"
            file.write_bytes(b"torn")
            wanted = Refusal.NOT_DICOM
        with pytest.raises(InstanceRefused) as caught:
            spool.take(file, "TEST")
    assert caught.value.refusal is wanted
    if failing == "journal":
        assert len(list((spool.quarantine / "INTERNAL").iterdir())) == 1
    taken(spool, "1.2.3", 2)


def test_files_that_came_together_share_one_transaction_and_each_has_its_answer(
    spool: Spool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    add_all = journal.add_all
    monkeypatch.setattr(
        journal,
        "add_all",
        lambda batch, *more: (batches.append(len(batch)), add_all(batch, *more))[1],
    )
    taken(spool, "1.2.3", 9)
    torn = spool.incoming / "torn.dcm"
    torn.write_bytes(b"torn")
    files = [
        arrived(spool, "1.2.3", 1),
        torn,
        arrived(spool, "1.2.3", 9, name="another"),  # a known UID with other content
        arrived(spool, "1.2.4", 1),
        arrived(spool, "1.2.3", 9),  # known as it is
        arrived(spool, "1.2.3", 1),  # as the first of this batch
    ]
    found = [
        one.refusal.name if isinstance(one, InstanceRefused) else one[1] and one[1].study_uid
        for one in spool.take_all(files, "TEST")
    ]
    assert found == ["1.2.3", "NOT_DICOM", "CONTENT_CONFLICT", "1.2.4", None, None]
    assert batches == [1, 3, 2]
    assert {path.name for path in spool.folder("1.2.3").iterdir()} == {"1.2.3.9.dcm", "1.2.3.1.dcm"}
    assert journal.study(1).instances == 2


def test_one_instance_that_cannot_be_placed_is_not_refused_to_those_beside_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def one_fails(source: Path, target: Path) -> None:
        if target.name == "1.2.3.2.dcm":
            raise OSError(errno.EIO, "a bad block")
        link(source, target)

    monkeypatch.setattr(os, "link", one_fails)
    found = spool.take_all([arrived(spool, "1.2.3", number) for number in (1, 2, 3)], "TEST")
    assert [isinstance(one, InstanceRefused) for one in found] == [False, True, False]


def test_a_removed_study_that_is_sent_again_is_taken_whole_and_each_image_counts_as_a_sign(
    spool: Spool, journal: Journal
) -> None:
    first = taken(spool, "1.2.3", 1)
    taken(spool, "1.2.3", 2)
    taken(spool, "1.2.3", 3)
    ended(spool, journal, first, "INSTANCES_REMOVED")
    again = taken(spool, "1.2.3", 1)
    assert again.revision == 2
    assert taken(spool, "1.2.3", 2).row == again.row, "the study's quiet time begins anew"
    _, nothing_new = spool.take(arrived(spool, "1.2.3", 2), "TEST")
    assert nothing_new is None
    # Half of it was there when its quiet time was over: what comes now is wanted, not a duplicate.
    journal.complete(again.row)
    journal.begin_inference(again.row)
    third = taken(spool, "1.2.3", 3)
    assert third.revision == 3
    assert {path.name for path in spool.folder("1.2.3").iterdir()} == {
        "1.2.3.1.dcm",
        "1.2.3.2.dcm",
        "1.2.3.3.dcm",
    }


# --- room ---


class FakeDisk:
    """A disk of 1000 MiB whose free share the test sets: a real one is in tests/service/test_intake.py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1000
        monkeypatch.setattr(room, "disk_of", lambda _: room.Disk(self.free << 20, 100 - self.free / 10))


def test_room_closes_at_either_mark_and_opens_only_well_above_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for reserve, percent, mark in ((200, 100, 200), (0, 80, 200)):
        disk, door = FakeDisk(monkeypatch), room.Room(tmp_path, reserve, percent)
        assert not door.closed()
        disk.free = mark
        assert not door.closed()
        disk.free = mark - 1
        assert door.closed()
        disk.free = mark + 5
        assert door.closed(), "a little more room must not open it"
        disk.free = mark + 25
        assert not door.closed()
        disk.free = mark + 5
        assert not door.closed(), "and once open it closes at the mark, not above"


def test_bytes_that_are_on_their_way_count_as_if_they_were_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for reserve, percent in ((200, 100), (0, 80)):
        disk, door = FakeDisk(monkeypatch), room.Room(tmp_path, reserve, percent)
        disk.free = 300
        door.expect("one", 60 << 20)
        assert not door.closed()
        door.expect("two", 60 << 20)
        assert door.closed()
        door.expect("one", 0)
        door.expect("two", 10 << 20)
        assert not door.closed()
