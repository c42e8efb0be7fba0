"""Whether a process hangs is told by what the kernel says of it; how large a study may be, by its headers."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mr_series import ball, write_mr_series

from outpost.dicom.stream import components, rows_columns_bits
from outpost.inference import extent
from outpost.inference.bounded import bounded
from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import read_header
from outpost.inference.usual import UsualTimes
from outpost.inference.watch import Patience, Watch, is_stopped, patience_for, patience_of
from outpost.records.journal import Journal

SOON = Patience(silent_seconds=1.0, busy_seconds=None)


@pytest.fixture
def child() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def run(child: list[subprocess.Popen[bytes]], code: str) -> int:
    child.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
    assert child[-1].stdout is not None
    assert child[-1].stdout.readline() == b"go\n"
    return child[-1].pid


def watched(pid: int, patience: Patience, seconds: float) -> str:
    """What a watch says within so many seconds."""
    watch = Watch(pid)
    watch.beat(patience)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if why := watch.look():
            return why
        time.sleep(0.1)
    return ""


_GO = "import sys, time, threading, os; print('go', flush=True); "


def test_a_process_that_sleeps_hangs(child: list[subprocess.Popen[bytes]]) -> None:
    assert "did nothing for 1 s (state S)" in watched(run(child, _GO + "time.sleep(60)"), SOON, 10)


def test_a_process_that_was_stopped_hangs_whatever_its_patience(child: list[subprocess.Popen[bytes]]) -> None:
    pid = run(child, _GO + "\nwhile True: pass")
    os.kill(pid, signal.SIGSTOP)
    assert "stopped by a signal" in watched(pid, Patience(600.0), 20)
    assert is_stopped(pid)
    os.kill(pid, signal.SIGCONT)
    assert not watched(pid, SOON, 2)
    assert not is_stopped(pid)


@pytest.mark.parametrize(
    "code",
    [
        "\nwhile True: pass",
        "\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)]).start(); time.sleep(60)",
        "\nwhile True: os.pread(os.open('/proc/self/stat', 0), 100, 0), os.closerange(3, 9), time.sleep(0.05)",
    ],
    ids=["computes", "another thread computes", "reads"],
)
def test_a_process_that_works_does_not_hang(child: list[subprocess.Popen[bytes]], code: str) -> None:
    assert not watched(run(child, _GO + code), SOON, 2.5)


def test_a_process_that_gets_no_time_on_a_loaded_host_does_not_hang(
    child: list[subprocess.Popen[bytes]],
) -> None:
    pid = run(child, _GO + "os.nice(19)\nwhile True: pass")
    for _ in range(2 * (os.cpu_count() or 1)):
        run(child, _GO + "\nwhile True: pass")
    assert not watched(pid, SOON, 3)


def test_a_process_that_computes_without_end_hangs_by_its_processor_time(
    child: list[subprocess.Popen[bytes]],
) -> None:
    pid = run(child, _GO + "\nwhile True: pass")
    assert "processor time without a result" in watched(pid, Patience(60, busy_seconds=0.3), 20)


def test_time_in_which_we_were_stopped_ourselves_does_not_count(child: list[subprocess.Popen[bytes]]) -> None:
    pid = run(child, _GO + "time.sleep(60)")
    now = 0.0
    watch = Watch(pid, clock=lambda: now)
    watch.beat(Patience(silent_seconds=30))
    watch.look()
    for moment in (1000.0, 2000.0, 3000.0):
        now = moment
        assert not watch.look()


def test_patience_is_tens_of_seconds_for_what_takes_four_and_grows_with_the_study() -> None:
    usual = patience_of(4.0)
    assert usual.silent_seconds == 10
    assert usual.busy_seconds == 60
    assert patience_of(4.0, 10).busy_seconds == 420
    assert patience_of(None).busy_seconds is None
    assert (patience_for(0).busy_seconds or 0) <= 20 < (patience_for(500).busy_seconds or 0)


# --- what is usual ---


def test_the_usual_time_is_learnt_kept_and_moved_by_no_odd_study(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "brain")
    usual = UsualTimes(journal, "b 1")
    assert usual.of("full") is None
    for seconds in (4.0, 4.2, 4.1, 300.0, math.nan, -1.0, math.inf):
        usual.note("full", seconds)
    assert usual.of("full") == pytest.approx(4.15)
    usual.note("full", 40.0, scale=10)
    assert UsualTimes(journal, "b 1").of("full") == pytest.approx(4.1)
    assert UsualTimes(journal, "b 2").of("full") is None, "another model"
    for number in range(200):
        usual.note(f"rung-{number}", 1.0)
    assert len(json.loads(journal.fact("usual_seconds") or "")["seconds"]) <= 64
    journal.close()


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "{",
        "[]",
        "3",
        '{"bundle": "b 1"}',
        '{"bundle": "b 1", "seconds": 7}',
        '{"bundle": "b 1", "seconds": {"full": [null]}}',
        '{"bundle": "b 1", "seconds": {"full": ["x", 1]}}',
        "[" * 100_000,
    ],
    ids=range(9),
)
def test_a_damaged_record_of_usual_times_is_as_none(tmp_path: Path, kept: str) -> None:
    journal = Journal(tmp_path / "journal", "brain")
    journal.keep_fact("usual_seconds", kept)
    assert UsualTimes(journal, "b 1").of("full") is None
    journal.close()


# --- how large a study may be ---


@pytest.mark.parametrize(
    ("shape", "spacing", "told"),
    [
        ((16384, 16384, 64), (1.0, 1.0, 1.0), "at most"),
        ((2048, 2048, 1000), (0.1, 0.1, 0.1), "at most"),
        ((2, 2, 100_000), (1.0, 1.0, 0.01), "slices"),
        ((256, 256, 170), (1e6, 1e6, 1.0), "mm"),
        ((256, 256, 170), (1.0, 1e-6, 1.0), "distances"),
        ((256, 256, 170), (float("nan"), 1.0, 1.0), "mm"),
    ],
)
def test_a_volume_that_no_scanner_makes_is_held(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], told: str
) -> None:
    with pytest.raises(InputRejected, match=told) as caught:
        extent.require_volume(shape, spacing)
    assert (caught.value.code, caught.value.hold) == (Code.STUDY_TOO_LARGE, True)


@pytest.mark.parametrize("budget", [1600, 64])
def test_what_a_system_reads_depends_on_its_memory(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setenv("OUTPOST_MEMORY_MIB", str(budget))
    usual = [(256, 256, 170), (512, 512, 300)] if budget > 1000 else [(64, 72, 70)]
    for shape in usual:
        extent.require_volume(shape, (0.5, 0.5, 1.0))
    extent.require_images(8)
    with pytest.raises(InputRejected):
        extent.require_volume((1024, 1024, 400), (0.5, 0.5, 1.0))
    with pytest.raises(InputRejected):
        extent.require_images(10_000)


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ({"Rows": 16384, "Columns": 16384}, True),
        ({"NumberOfFrames": 10**6, "Rows": 512, "Columns": 512}, True),
        ({"Rows": 12000, "Columns": 10000}, False),
        ({"Rows": 1, "Columns": 1, "NumberOfFrames": 100_000}, False),
    ],
)
def test_an_image_is_judged_by_its_header(tmp_path: Path, values: dict[str, int], held: bool) -> None:
    def edit(image: object, _: int) -> None:
        for keyword, value in values.items():
            setattr(image, keyword, value)

    [file] = write_mr_series(tmp_path, ball((1, 16, 16)), edit=edit)
    header = read_header(file)
    if held:
        with pytest.raises(InputRejected) as caught:
            extent.require_file(header)
        assert (caught.value.code, caught.value.hold) == (Code.STUDY_TOO_LARGE, True)
    else:
        extent.require_file(header)


def test_a_stream_says_how_many_components_it_has() -> None:
    size = struct.pack(">H8LH", 0, 72, 64, 0, 0, 72, 64, 0, 0, 16384) + b"\x0f\x01\x01" * 16384
    stream = b"\xff\x4f\xff\x51" + struct.pack(">H", (2 + len(size)) & 0xFFFF) + size
    assert components(stream) == 16384
    assert rows_columns_bits(stream) == (64, 72, 16)
    assert components(b"\xff\xd8\xff\xf7\x00\x0b\x10\x00\x40\x00\x48\x03\x01\x11\x00") == 3
    assert components(b"\xff\xd8\xff") is None


def test_reading_that_asks_for_more_than_the_budget_fails_in_the_process_that_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUTPOST_MEMORY_MIB", "100")  # the least is 512 MiB beside what is there
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded():
        assert np.ones(32 << 20, np.uint8).any()
        with pytest.raises(MemoryError):
            np.empty(4 << 30, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    np.empty(1 << 30, np.uint8)
    monkeypatch.setenv("OUTPOST_MEMORY_MIB", "0")
    with bounded():
        np.empty(4 << 30, np.uint8)
