"""Looking at what hostile senders left: pictures and headers come from a child that may die, hang or starve."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian
from running import CANARY

from outpost.quarantine import child, look


def sample(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def test_a_picture_is_small_enough_that_writing_in_it_cannot_be_read_unless_a_large_one_is_wanted() -> None:
    small = Image.open(io.BytesIO(look.picture(sample("examples_ybr_color.dcm"))))
    large = Image.open(io.BytesIO(look.picture(sample("examples_ybr_color.dcm"), look.LARGE)))
    assert max(small.size) <= 160 < max(large.size) <= 512
    assert small.mode == "RGB"
    grey = np.asarray(Image.open(io.BytesIO(look.picture(sample("CT_small.dcm")))))
    assert grey.shape == (32, 32)
    assert grey.min() == 0
    assert grey.max() == 255


@pytest.mark.parametrize(
    ("shape", "small"),
    [((150, 150), (38, 38)), ((12, 2000), (1, 154)), ((3, 300), (1, 75)), ((641, 7), (129, 2))],
)
def test_an_image_that_is_small_or_narrow_itself_is_made_smaller_by_four_at_least_in_each_direction(
    shape: tuple[int, int], small: tuple[int, int], tmp_path: Path
) -> None:
    written = np.zeros(shape, dtype=np.uint16)
    written[:, ::2] = 1000  # strokes of one pixel, as letters of a small font have
    image = dcmread(sample("CT_small.dcm"))
    image.Rows, image.Columns = shape
    image.PixelRepresentation, image.RescaleIntercept, image.RescaleSlope = 0, 0, 1
    image.WindowCenter, image.WindowWidth = 500, 1000
    image.PixelData = written.tobytes()
    image.save_as(tmp_path / "image.dcm")
    shown = np.asarray(Image.open(io.BytesIO(look.picture(tmp_path / "image.dcm"))))
    assert shown.shape == small
    assert np.ptp(shown[:, :-1].astype(int)) <= 52, "of the strokes only a mean is left"
    large = np.asarray(Image.open(io.BytesIO(look.picture(tmp_path / "image.dcm", look.LARGE))))
    assert large.shape == (
        shape if max(shape) <= look.LARGE else tuple(-(-n // -(-max(shape) // 512)) for n in shape)
    )


def test_a_header_names_the_patient_only_where_that_is_asked_for(tmp_path: Path) -> None:
    image = dcmread(sample("MR_small.dcm"))
    for keyword in (
        "PatientName", "PatientID", "StudyDescription", "SeriesDescription", "ProtocolName", "InstitutionName",
        "StationName", "AccessionNumber", "ReferringPhysicianName", "PatientComments", "ImageComments",
    ):  # fmt: skip
        setattr(image, keyword, CANARY)
    image.save_as(tmp_path / "image.dcm")
    told = look.header(tmp_path / "image.dcm", identity=False)
    assert (told["Modality"], told["Rows"], told["SOPClassUID"]) == ("MR", "64", "MR Image Storage")
    assert "\\" in told["ImageType"]
    assert CANARY not in str(told)
    assert str(image.StudyInstanceUID) not in str(told)
    whole = look.header(tmp_path / "image.dcm", identity=True)
    assert (whole["PatientName"], whole["PatientID"]) == (CANARY, CANARY)
    assert whole.items() > told.items()


def test_what_cannot_be_read_says_so_by_its_code_without_its_words(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(CANARY.encode() * 50)
    with pytest.raises(look.CannotLook, match=r"^HEADER_UNREADABLE: A file of the study is not readable"):
        look.header(tmp_path / "x.dcm", identity=True)
    with pytest.raises(look.CannotLook, match=r"^PIXELS_UNREADABLE: "):
        look.picture(sample("rtplan.dcm"))
    with pytest.raises(look.CannotLook, match=r"^HEADER_UNREADABLE"):
        look.header(tmp_path / "none.dcm", identity=False)


def test_a_file_that_unfolds_beyond_all_bounds_starves_its_child_and_nobody_else(tmp_path: Path) -> None:
    image = dcmread(sample("MR_small.dcm"))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.PixelData = b""
    bomb = tmp_path / "bomb.dcm"
    image.save_as(bomb)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packer.compress(bytes(1 << 20))
    packer.flush(zlib.Z_FULL_FLUSH)
    mebibyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    head = bomb.read_bytes()
    end = head.index(b"1.2.840.10008.1.2.1.99") + 24
    with bomb.open("wb") as stream:
        stream.write(head[:end])
        stream.write(mebibyte * (2 * child.MEMORY_MIB))
    before = Path("/proc/self/statm").read_text().split()[1]
    with pytest.raises(look.CannotLook, match=r"memory|PIXELS_UNREADABLE"):
        look.picture(bomb)
    after = Path("/proc/self/statm").read_text().split()[1]
    assert (int(after) - int(before)) * os.sysconf("SC_PAGE_SIZE") < 64 << 20


def test_a_child_that_hangs_crashes_or_babbles_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(look.CannotLook, match=r"the decoder crashed \(status -6\)"):
        look._asked([sys.executable, "-c", "import os; print('half a picture', flush=True); os.abort()"])
    with pytest.raises(look.CannotLook, match="longer than any picture"):
        look._asked([sys.executable, "-c", "while True: print('x' * 65536)"])
    monkeypatch.setattr(look, "SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(look.CannotLook, match=r"longer than 0.3 s .*\(status -9\)"):
        look._asked([sys.executable, "-c", "import time; time.sleep(60)"])
    assert time.monotonic() - began < 5


def test_one_file_is_opened_at_a_time_and_the_next_is_asked_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_WAIT_SECONDS", 0.01)
    first = threading.Thread(target=look.picture, args=(sample("MR_small.dcm"),))
    first.start()
    time.sleep(0.1)
    with pytest.raises(look.Busy):
        look.picture(sample("MR_small.dcm"))
    first.join()
    look.picture(sample("MR_small.dcm"))


def test_two_may_wait_and_whoever_comes_then_is_sent_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, go_on = threading.Semaphore(0), threading.Event()
    answers: list[bytes] = []

    def slow(_command: list[str]) -> bytes:
        opening.release()
        assert go_on.wait(10)
        return b"\x89PNG\r\n\x1a\n"

    monkeypatch.setattr(look, "_asked", slow)
    lookers = [
        threading.Thread(target=lambda: answers.append(look.picture(sample("MR_small.dcm"))))
        for _ in range(3)
    ]
    for looker in lookers:
        looker.start()
    assert opening.acquire(timeout=10)
    deadline = time.monotonic() + 10
    while look._places._value:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(look.Busy, match="2 more wait for it: ask again in a moment"):
            look.picture(sample("MR_small.dcm"))
        assert time.monotonic() - began < 1
    go_on.set()
    for looker in lookers:
        looker.join()
    assert len(answers) == 3, "who waited was served"
    assert look.picture(sample("MR_small.dcm"))


def test_the_child_may_write_no_file_and_dies_first_when_memory_runs_out(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        child._limit()
        badness = Path("/proc/self/oom_score_adj").read_text().strip()
        try:
            (tmp_path / "x").write_bytes(b"x")
        except OSError:
            os._exit(0 if badness == "1000" else 2)
        os._exit(1)
    # SIGXFSZ ends a process that ignores EFBIG; Python turns it into an error.
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
