"""The walk over a whole file finds what pydicom finds, holds nothing, and ends at its bounds."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset

from outpost.delivery.commitment import Reports
from outpost.dicom.walk import IMPLICIT, Bounds, Exceeded, Held, Inflated, Malformed, Plain, file_meta, walk
from outpost.intake import poison
from outpost.intake.content import add_values, content_digest
from outpost.intake.header import dataset_offset, read_attributes, read_header
from outpost.intake.poison import Poison
from outpost.intake.refusal import InstanceRefused
from outpost.intake.spool import Spool
from outpost.records.journal import Journal

FOLDER = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
# Torn, and a directory whose items are not in order: their digests are of their bytes, as nothing else can be said.
_BY_ITS_BYTES = {"rtplan_truncated.dcm", "DICOMDIR-nooffset"}


def lawful() -> list[Path]:
    """Every file of pydicom's that has a header for intake."""
    found = []
    for path in sorted(FOLDER.rglob("*")):
        try:
            if path.is_file():
                read_header(path)
                found.append(path)
        except InstanceRefused:
            continue
    return found


def digest_by_pydicom(path: Path) -> str:
    """The digest as it was made of pydicom's objects, and stands in journals; empty where there is none of values."""
    with path.open("rb") as file:
        dataset = read_attributes(file)
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_deflated or not syntax.is_little_endian:
            return ""
        digest = hashlib.sha256()
        add_values(digest, dataset)
        if syntax.is_compressed:
            digest.update(syntax.encode())
        if tag := file.read(4):
            digest.update(b"P" + tag)
            if not syntax.is_implicit_VR:
                file.read(4)
            length = int.from_bytes(file.read(4), "little")
            digest.update(file.read() if length == 0xFFFFFFFF else file.read(length))
    return "v:" + digest.hexdigest()


def test_a_walk_finds_the_values_and_the_digest_that_pydicom_finds() -> None:
    files = lawful()
    assert len(files) > 80
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of its own files
            dataset: FileDataset = dcmread(path, stop_before_pixels=True)
            header = read_header(path)
            for keyword, value in (
                ("SOPClassUID", header.sop_class),
                ("SOPInstanceUID", header.sop_uid),
                ("StudyInstanceUID", header.study_uid),
                ("SeriesInstanceUID", header.series_uid),
                ("Modality", header.modality),
                ("SeriesDescription", header.series_description),
                ("Manufacturer", header.manufacturer),
            ):
                assert value == str(dataset.get(keyword) or "")[:64].strip(), (path.name, keyword)
            if path.name not in _BY_ITS_BYTES and (wanted := digest_by_pydicom(path)):
                assert content_digest(path, dataset_offset(path)) == wanted, path.name


@pytest.mark.parametrize("how", [["+ti"], ["+te", "-e"], ["+te", "+e"], ["+ti", "-e"], ["+te", "+g"]])
def test_items_within_items_have_one_digest_however_dcmtk_writes_them(how: list[str], tmp_path: Path) -> None:
    image = dcmread(FOLDER / "CT_small.dcm")
    icon, code = Dataset(), Dataset()
    icon.Rows = icon.Columns = 8
    icon.PixelRepresentation, icon.BitsAllocated, icon.PixelData = 0, 8, bytes(64)
    code.CodeValue, code.CodeMeaning = "1", "Aufnahme"
    icon.PurposeOfReferenceCodeSequence = [code, Dataset()]
    image.IconImageSequence = [icon]
    image.save_as(tmp_path / "one.dcm")
    subprocess.run(["dcmconv", *how, tmp_path / "one.dcm", tmp_path / "other.dcm"], check=True)
    one, other = (
        content_digest(tmp_path / name, dataset_offset(tmp_path / name)) for name in ("one.dcm", "other.dcm")
    )
    assert one == other
    assert one.startswith("v:")


# --- bounds ---


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    """In Implicit VR Little Endian."""
    size = len(value) if length is None else length
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, size) + value


ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<L", mark) for mark in (0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE))
ENDLESS = b"\xff\xff\xff\xff"


def nested(depth: int) -> bytes:
    begin = struct.pack("<HH", 0x0008, 0x1140) + ENDLESS + ITEM + ENDLESS
    return begin * depth + (ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)) * depth


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (element(0x00100020, b"") * 5000, "1000 elements"),
        (element(0x00081140, (ITEM + bytes(4)) * 300), "100 items"),
        (element(0x00081140, (ITEM + bytes(4)) * 300 + SEQUENCE_END + bytes(4), 0xFFFFFFFF), "100 items"),
        (element(0x00091040, (ITEM + bytes(4)) * 300), "100 items"),
        (nested(11), "10 deep"),
        (
            element(0x00081140, ITEM + struct.pack("<L", 2400) + element(0x00080100, b"") * 300) * 20,
            "elements",
        ),
    ],
)
def test_the_whole_tree_has_bounds(data: bytes, words: str) -> None:
    bounds = Bounds(elements=1000, items=100, depth=10)
    with pytest.raises(Exceeded, match=words):
        walk(Held(data), 0, implicit=True, bounds_of=lambda _: bounds)


def test_frames_that_are_there_allow_for_their_items_and_those_that_are_only_told_do_not() -> None:
    bounds = Bounds(items=100)
    frame = ITEM + struct.pack("<L", 24) + element(0x00209111, ITEM + bytes(4) + ITEM + bytes(4))
    groups = element(0x52009230, frame * 200)
    told = element(0x00280008, b"200 ")
    assert (
        walk(
            Held(told + groups + bytes(200 * 128)),
            0,
            implicit=True,
            wanted={0x00280008: "frames"},
            bounds_of=lambda _: bounds,
        ).items
        == 600
    )
    with pytest.raises(Exceeded):
        walk(
            Held(told + (ITEM + bytes(4)).join([b""]) + element(0x52009230, (ITEM + bytes(4)) * 9000)),
            0,
            implicit=True,
            wanted={0x00280008: "frames"},
            bounds_of=lambda _: bounds,
        )


def test_what_does_not_fit_is_left_out_where_its_length_is_told_and_else_malformed() -> None:
    sound = element(0x00100020, b"ID")
    torn = element(0x00081140, ITEM + struct.pack("<L", 999) + b"xx")
    found = walk(Held(torn + sound), 0, implicit=True, wanted={0x00100020: "id"}, digest=hashlib.sha256())
    assert found.values["id"] == ("", b"ID")
    assert found.digest is None
    with pytest.raises(Malformed):
        walk(Held(element(0x00081140, ITEM + bytes(4) + b"\1\2\3\4\5\6\7\x08", 0xFFFFFFFF)), 0, implicit=True)


def test_a_walk_holds_nothing_of_a_file(tmp_path: Path) -> None:
    """A value of 32 MiB, and 10,000 items: some pieces of a MiB at any moment."""
    data = element(0x00081140, (ITEM + bytes(4)) * 10_000) + element(0x00091010, bytes(32 << 20))
    (tmp_path / "data").write_bytes(data)
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    (tmp_path / "deflated").write_bytes(deflate.compress(data) + deflate.flush())
    for name in ("data", "deflated"):
        with (tmp_path / name).open("rb") as file:
            source = Plain(file.fileno()) if name == "data" else Inflated(file.fileno(), 0, 64 << 20)
            digest = hashlib.sha256() if name == "data" else None
            tracemalloc.start()
            found = walk(source, 0, implicit=True, digest=digest)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert found.items == 10_000
        assert most < 6 << 20, name


def test_a_group_2_that_does_not_end_is_no_file_meta_information() -> None:
    endless = b"".join(struct.pack("<HH2sHH", 2, 0x102, b"OB", 0, 0) + bytes(2) for _ in range(5000))
    with pytest.raises(Malformed):
        file_meta(Held(bytes(128) + b"DICM" + endless))


class _Report:
    """An N-EVENT-REPORT as its handler gets it, of 100,000 items."""

    context = SimpleNamespace(transfer_syntax=IMPLICIT)
    request = SimpleNamespace(EventInformation=BytesIO(element(0x00081199, (ITEM + bytes(4)) * 100_000)))
    opened = False

    @property
    def event_information(self) -> Dataset:
        self.opened = True
        return Dataset()


def test_a_report_is_walked_before_objects_are_made_of_it(tmp_path: Path) -> None:
    journal, event = Journal(tmp_path / "journal.sqlite3", "brain"), _Report()
    status, _ = Reports(journal, heard=lambda: None).take(cast("Any", event))
    assert (status, event.opened) == (0x0110, False)
    journal.close()


# --- who parses what ---

_READERS = re.compile(
    r"\b(dcmread|read_partial|read_dataset|read_sequence|read_attributes|data_element_generator)\("
)
# Loaded by the service, and called by its children alone.
_OF_CHILDREN = {
    "outpost.intake.header": "defines read_attributes",
    "outpost.quarantine.child": "a child, of which the service takes a constant",
    "outpost.inference.header": "reads studies in the child that computes",
    "outpost.inference.copying": "likewise",
    "outpost.inference.decode": "likewise",
    "outpost.results.copied": "likewise",
    "outpost.delivery.outbox": "reads results, which the service itself has written",
    "outpost.heal.files": "likewise, in the outbox",
}


def test_no_module_of_the_serving_process_reads_data_sets_with_pydicom() -> None:
    code = "import sys, outpost.serve; print(*(n for n in sys.modules if n.startswith('outpost.')))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "outpost.intake.spool" in loaded
    root = Path(__file__).parents[2] / "service"
    for name in loaded:
        file = root / Path(*name.split(".")).with_suffix(".py")
        if file.exists() and _READERS.search(file.read_text()):
            assert name in _OF_CHILDREN, f"{name} reads data sets in the process that must live"


# --- poison ---


def test_waits_grow_for_one_sender_and_are_forgotten_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(poison.time, "monotonic", lambda: now[0])
    known = Poison()
    waits = [known.struck("A", "10.0.0.1") for _ in range(9)]
    assert waits[:3] == [0.0, 0.5, 1.0]
    assert waits == sorted(waits)
    assert waits[-1] == poison.LONGEST_WAIT_SECONDS
    assert known.struck("B", "10.0.0.1") == known.struck("A", "10.0.0.2") == 0
    now[0] += 20 * poison.HALF_LIFE_SECONDS
    assert known.struck("A", "10.0.0.1") == 0
    for number in range(5000):
        known.struck(str(number), "")
    assert len(known._senders) <= 512


def test_poison_found_at_a_restart_is_refused_by_the_name_of_its_sender(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    spool = Spool(tmp_path, journal, reserve_mib=0)
    with spool.receiving_file() as file:
        image = dcmread(FOLDER / "MR_small.dcm")
        image.save_as(file)
        file.flush()
        header, _ = spool.take(Path(file.name), "SCANNER", address="10.0.0.7")
    whole = (spool.folder(header.study_uid) / f"{header.sop_uid}.dcm").read_bytes()
    at = whole.index(b"\xe0\x7f\x10\x00")
    poisonous = (
        whole[:at] + struct.pack("<HH2sHL", 0x7001, 0x1010, b"SQ", 0, 8 * 60_000) + (ITEM + bytes(4)) * 60_000
    )
    (spool.folder(header.study_uid) / f"{header.sop_uid}.9.dcm").write_bytes(poisonous + whole[at:])
    assert spool.reconcile() == 0
    [row] = journal.rows("SELECT reason, source FROM refused")
    assert (row["reason"], row["source"]) == ("TOO_COMPLEX", "SCANNER")
    assert "instance of SCANNER at 10.0.0.7 refused: TOO_COMPLEX, more than 50000 items" in caplog.text
    journal.close()
    assert not list(spool.incoming.iterdir())
