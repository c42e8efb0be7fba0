"""After any single study the next ordinary one is computed at the full rung: every kind of bad study there is."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mr_series import ball, write_mr_series
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from running import StoreScp, wait_for
from switchable import SwitchableService

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Each replaces a worker several times: `make bad-studies` runs all, the ordinary tests a sample.
EVERY = pytest.mark.skipif(
    not os.environ.get("EVERY_BAD_STUDY"), reason="takes minutes: make bad-studies runs it"
)
MEMORY_MIB = 1500
USUAL = (70, 64, 72)  # slices, rows, columns of an ordinary study here
ODD = (61, 64, 72)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwitchableService]:
    root = tmp_path_factory.mktemp("quality")
    pacs = StoreScp(root / "pacs").start()
    service = SwitchableService(
        root / "service",
        [("PACS", pacs.port)],
        inference={"workers": 1, "timeout_seconds": 300, "memory_mib": MEMORY_MIB},
        storage={"root": str(root / "service" / "brain"), "keep_delivered_hours": 0},
    )
    service.http.timeout = 180
    service.start().wait_ready()
    yield service
    service.stop()
    pacs.stop()


@pytest.fixture(autouse=True)
def _next_is_full(service: SwitchableService) -> Iterator[None]:
    """Whatever a test sent: the next study is computed at full at its first attempt, and nothing was learnt of it."""
    yield
    service.fault()
    row = service.wait_outcome(service.send_study(), seconds=90)
    assert (row["outcome"], row["rung"], row["attempts"]) == ("delivered", "full", 1), service.log[-2000:]
    status = service.http.get("/ladder").json()
    assert status["rung"] == "full"
    assert [known for known in status["failing"] if known["shape"] != list(reversed(ODD))] == []
    assert {name: rung for name, rung in status["by_class"].items() if name != "to_1m"} == {
        "any": "full", "to_16m": "full", "to_128m": "full", "above": "full"
    }  # fmt: skip
    wait_for(service.ready, 30, "it is ready")


def series(folder: Path, edit: Callable[[Dataset, int], None], shape: tuple[int, int, int] = USUAL) -> str:
    """Write a series with something wrong in each image; returns its Study Instance UID."""
    files = write_mr_series(folder, ball(shape), edit=edit)
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def sent(service: SwitchableService, folder: Path, uid: str) -> dict[str, Any]:
    reply = service.stow(*sorted(folder.glob("*.dcm")))
    assert reply.status_code == 200, reply.text[:500]
    return service.wait_outcome(uid, seconds=120)


def rle(image: Dataset, rows: int, columns: int, byte: int = 7) -> None:
    """Pixels of one value, as small as RLE can write them."""
    runs, rest = divmod(rows * columns, 128)
    segment = struct.pack("BB", 129, byte) * runs
    if rest:
        segment += struct.pack("BB", 257 - rest if rest > 1 else 0, byte)
    segment += b"\0" * (len(segment) % 2)
    head = struct.pack("<16L", 2, 64, 64 + len(segment), *([0] * 13))
    image.Rows, image.Columns = rows, columns
    image.file_meta.TransferSyntaxUID = RLELossless
    image.PixelData = encapsulate([head + segment + segment])
    image["PixelData"].is_undefined_length = True


def stream(image: Dataset, syntax: str, content: bytes) -> None:
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = encapsulate([content + b"\0" * (len(content) % 2)])
    image["PixelData"].is_undefined_length = True


def _huge_rle(image: Dataset, _: int) -> None:
    rle(image, 16, 128)
    image.Rows = image.Columns = 16384


def _beyond_memory(image: Dataset, _: int) -> None:
    rle(image, 1536, 1536)
    image.PixelSpacing = [0.1, 0.1]


def _tall_spacing(image: Dataset, _: int) -> None:
    image.PixelSpacing = [1e6, 1e6]


def _tiny_spacing(image: Dataset, _: int) -> None:
    image.PixelSpacing = [1e-6, 1e-6]


def _tall_and_tiny(image: Dataset, _: int) -> None:
    image.PixelSpacing = [1e6, 1e-6]


def _no_numbers(image: Dataset, _: int) -> None:
    image.RescaleSlope, image.RescaleIntercept = "3e38", "3e38"


def _components(image: Dataset, _: int) -> None:
    """JPEG 2000 of 64 x 72, but of 16384 components."""
    size = struct.pack(">H8LH", 0, 72, 64, 0, 0, 72, 64, 0, 0, 16384) + b"\x0f\x01\x01" * 16384
    stream(
        image,
        JPEG2000Lossless,
        b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(size)) + size + b"\xff\xd9",
    )


def _jpeg_ls(image: Dataset, _: int) -> None:
    """JPEG-LS whose frame claims 65535 x 65535."""
    stream(
        image,
        JPEGLSLossless,
        b"\xff\xd8\xff\xf7\x00\x0b\x10" + struct.pack(">HH", 65535, 65535) + b"\x01\x01\x11\x00\xff\xd9",
    )


def _line(image: Dataset, _: int) -> None:
    image.Rows, image.Columns, image.NumberOfFrames = 1, 1, 100000


def _rle_too_long(image: Dataset, _: int) -> None:
    """RLE that expands to 160 times what its header says."""
    rle(image, 1024, 720 * 10)
    image.Rows, image.Columns = 64, 72


@pytest.mark.parametrize(
    ("edit", "outcome", "reason"),
    [
        (_huge_rle, "quarantined", "STUDY_TOO_LARGE"),
        (_beyond_memory, "quarantined", "STUDY_TOO_LARGE"),
        (_tall_spacing, "quarantined", "STUDY_TOO_LARGE"),
        (_tiny_spacing, "rejected", "NO_SERIES_FOR_BUNDLE"),
        (_tall_and_tiny, "rejected", "NO_SERIES_FOR_BUNDLE"),
        (_no_numbers, "rejected", "PIXELS_UNREADABLE"),
        (_components, "rejected", "PIXELS_UNREADABLE"),
        (_jpeg_ls, "rejected", "PIXELS_UNREADABLE"),
        (_line, "rejected", "NO_SERIES_FOR_BUNDLE"),
        (_rle_too_long, "rejected", "PIXELS_CONSTANT"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_study_of_odd_size_ends_by_its_header(
    service: SwitchableService,
    tmp_path: Path,
    edit: Callable[[Dataset, int], None],
    outcome: str,
    reason: str,
) -> None:
    shape = (64, *USUAL[1:]) if edit is _huge_rle else USUAL
    began = time.monotonic()
    uid = series(tmp_path / "study", edit, shape)
    row = sent(service, tmp_path / "study", uid)
    assert (row["outcome"], row["reason"], row["attempts"]) == (outcome, reason, 1), row
    assert time.monotonic() - began < 60
    if reason == "STUDY_TOO_LARGE":
        assert len(list((service.storage / "quarantine" / reason).rglob(f"{uid}*/*.dcm"))) == shape[0]
        assert uid not in row["detail"]
        shown = service.http.get("/quarantine", params={"reason": reason}).json()["items"]
        assert shown


def test_headers_that_inflate_beyond_memory_are_held_and_cost_no_worker(
    service: SwitchableService, tmp_path: Path
) -> None:
    """Each of 70 deflated files is allowed by itself: 15 MiB of zeros in a private attribute."""
    zeros = bytes(15 << 20)

    def inflate(image: Dataset, _: int) -> None:
        image.add_new(0x00090010, "LO", "X")
        image.add_new(0x00091001, "OB", zeros)
        image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    uid = series(tmp_path / "study", inflate)
    before = worker_of(service)
    row = sent(service, tmp_path / "study", uid)
    assert (row["outcome"], row["reason"]) == ("quarantined", "INFERENCE_OUT_OF_MEMORY"), row
    assert row["detail"].endswith("the golden case passes")
    assert worker_of(service) == before


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "misshapen"}, "quarantined"),
        ({"kind": "kill", "once": True}, "delivered"),
        ({"kind": "nan"}, "quarantined"),
        *(
            pytest.param(fault, outcome, marks=EVERY)
            for fault, outcome in (
                ({"kind": "torch-oom"}, "quarantined"),
                ({"kind": "torch-oom", "at": [256]}, "delivered"),  # smaller, for that shape alone
                ({"kind": "raise", "text": "CUDA error: device-side assert triggered"}, "quarantined"),
                ({"kind": "raise", "text": "CUDA error: no kernel image is available"}, "quarantined"),
                ({"kind": "constant"}, "quarantined"),
                ({"kind": "segfault"}, "quarantined"),
                ({"kind": "kill"}, "quarantined"),
                ({"kind": "hang"}, "quarantined"),
            )
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values()))[:40] if isinstance(value, dict) else "",
)
def test_a_study_that_the_model_fails_on_moves_nothing_for_other_shapes(
    service: SwitchableService, fault: dict[str, Any], outcome: str
) -> None:
    service.fault(**fault)
    row = service.wait_outcome(service.send_study(ODD), seconds=120)
    assert row["outcome"] == outcome, row
    if fault.get("once"):
        assert (row["rung"], row["attempts"]) == ("full", 2)


def test_memory_that_a_neighbour_took_costs_a_study_a_second_try_and_nothing_of_its_quality(
    service: SwitchableService,
) -> None:
    service.fault("torch-oom", once=True)
    row = service.wait_outcome(service.send_study(), seconds=60)
    assert (row["outcome"], row["rung"], row["attempts"]) == ("delivered", "full", 2)


# --- workers that are stopped, hang or die ---


def worker_of(service: SwitchableService) -> list[int]:
    assert service.process is not None
    found = subprocess.run(
        ["pgrep", "-P", str(service.process.pid), "-f", "inference.child"],
        capture_output=True,
        text=True,
        check=False,
    )
    return sorted(int(pid) for pid in found.stdout.split())


@pytest.mark.parametrize(
    "signal_", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name
)
def test_a_worker_stopped_in_the_middle_of_a_study_is_replaced_in_seconds(
    service: SwitchableService, signal_: signal.Signals
) -> None:
    service.fault("slow", seconds=8)
    uid = service.send_study()
    service.wait_state(uid, "inferring")
    time.sleep(1.0)
    [worker] = worker_of(service)
    os.kill(worker, signal_)
    began = time.monotonic()
    service.fault()
    wait_for(lambda: not service.ready(), 5, "readiness says so")
    row = service.wait_outcome(uid, seconds=60)
    assert (row["outcome"], row["rung"], row["attempts"]) == ("delivered", "full", 2)
    assert time.monotonic() - began < 40
    assert not Path(f"/proc/{worker}").exists()
    wait_for(service.ready, 20, "ready again")


def test_a_worker_stopped_while_idle_is_replaced_before_a_study_meets_it(service: SwitchableService) -> None:
    [worker] = worker_of(service)
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: not service.ready(), 5, "readiness says so")
    wait_for(service.ready, 40, "another one is ready")
    assert worker_of(service) != [worker]


def test_a_worker_stopped_in_its_golden_case_moves_no_rung(service: SwitchableService) -> None:
    service.fault("slow", seconds=4, golden=True)
    asked = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import urllib.request as r; r.urlopen('{service.http.base_url}/health/heavy')",
        ],
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: "golden" in str(progress(service)), 10, "the golden case is in work")
    [worker] = worker_of(service)
    os.kill(worker, signal.SIGSTOP)
    service.fault()
    asked.wait(timeout=90)
    wait_for(service.ready, 60, "ready again")


def progress(service: SwitchableService) -> Any:
    checks = service.http.get("/health/light").json()["checks"]
    return next(check["value"] for check in checks if check["code"] == "INFERENCE_PROGRESS")


@pytest.mark.parametrize("kind", ["hang", pytest.param("burn", marks=EVERY)])
def test_a_study_that_hangs_is_ended_by_what_is_usual_and_not_by_the_time_limit(
    service: SwitchableService, kind: str
) -> None:
    """The limit is 300 s; asleep it takes about 10 s, with a busy processor about 20 s of processor time."""
    service.fault(kind, once=True)
    uid = service.send_study()
    service.wait_state(uid, "inferring")
    began = time.monotonic()
    row = service.wait_outcome(uid, seconds=280)
    assert (row["outcome"], row["rung"], row["attempts"]) == ("delivered", "full", 2)
    assert "WORKER_HUNG" in service.log
    if kind == "hang":
        assert time.monotonic() - began < 40


# --- deaths of the whole service ---


def starting(service: SwitchableService) -> bool:
    with sqlite3.connect(service.storage / "journal.sqlite3") as journal:
        return bool(journal.execute("SELECT 1 FROM facts WHERE name LIKE 'starting-%'").fetchone())


def test_kill_9_in_every_start_of_a_worker_moves_no_rung(service: SwitchableService) -> None:
    for _ in range(4):
        service.kill()
        service.start()
        wait_for(lambda: starting(service), 20, "a worker starts")
    service.kill()
    service.start().wait_ready()


@EVERY
def test_a_study_that_takes_the_service_down_is_set_aside_and_its_neighbours_are_computed_at_full(
    tmp_path: Path,
) -> None:
    """As the kernel does that kills a whole control group: whatever is in work dies with it."""
    pacs = StoreScp(tmp_path / "pacs").start()
    service = SwitchableService(tmp_path / "service", [("PACS", pacs.port)], inference={"workers": 2})
    odd = list(reversed(ODD))
    service.fault("hang", shape=odd)  # until all are sent
    service.start().wait_ready()
    bad = service.send_study(ODD)
    service.wait_state(bad, "inferring")
    good = [service.send_study() for _ in range(3)]
    service.fault("kill-service", shape=odd)
    deadline = time.monotonic() + 300
    deaths = 0
    while time.monotonic() < deadline:
        assert service.process is not None
        if service.process.poll() is not None:
            deaths += 1
            service.start()
        with suppress(httpx.HTTPError):
            found = [service.studies(uid) for uid in (bad, *good)]
            if all(rows and rows[0]["outcome"] != "pending" for rows in found):
                break
        time.sleep(0.1)
    assert 2 <= deaths <= 5
    row = service.wait_outcome(bad, seconds=1)
    assert (row["outcome"], row["reason"]) == ("quarantined", "SERVICE_DIED")
    for uid in good:
        row = service.wait_outcome(uid, seconds=1)
        assert (row["outcome"], row["rung"]) == ("delivered", "full")
    assert service.http.get("/ladder").json()["failing"] == []
    service.stop()
    pacs.stop()


# --- the command ---


def ladder(service: SwitchableService, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outpost.cli", "ladder", *words, "--config", str(service.config_file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LANG": "C"},
    )


def test_the_ladder_is_shown_and_reset_beside_the_running_service_and_without_it(
    service: SwitchableService,
) -> None:
    ladder(service, "reset")
    resets = service.events().count("LADDER_RESET")
    service.fault("torch-oom", at=[256])
    assert service.wait_outcome(service.send_study(ODD), seconds=200)["rung"] == "size-128"
    service.fault()
    told = ladder(service, "status")
    assert told.returncode == 0, told.stderr
    assert "Studies begin at rung full." in told.stdout
    assert "full for 72x64x61: memory, 1 in a row" in told.stdout
    metrics = service.http.get("/metrics").text
    assert 'outpost_rung_steps_down{shapes="to_1m"} 1.0' in metrics
    assert 'outpost_rung_steps_down{shapes="any"} 0.0' in metrics
    service.stop()
    assert "72x64x61" in ladder(service, "status").stdout, "without the service, from its journal"
    service.start().wait_ready()
    told = ladder(service, "reset", "--language", "ru")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("Забыто: 1."), told.stdout
    assert service.events().count("LADDER_RESET") == resets + 1
    assert service.wait_outcome(service.send_study(ODD))["rung"] == "full"
    service.stop()
    assert ladder(service, "reset").stdout.startswith("Forgotten: 0.")
    service.start().wait_ready()


def test_what_is_usual_is_kept_and_a_damaged_record_of_it_is_no_harm(service: SwitchableService) -> None:
    for _ in range(3):
        service.wait_outcome(service.send_study())
    with sqlite3.connect(service.storage / "journal.sqlite3") as journal:
        [kept] = journal.execute("SELECT value FROM facts WHERE name = 'usual_seconds'").fetchone()
    assert '"full"' in kept
    service.stop()
    with sqlite3.connect(service.storage / "journal.sqlite3") as journal:
        journal.execute(
            "UPDATE facts SET value = '{\"bundle\": 3, \"seconds\": [1' WHERE name = 'usual_seconds'"
        )
        journal.execute("INSERT INTO ladder VALUES ('b', 'cpu', 'AxB', 'full', 'memory', 'x', 'never')")
    service.start().wait_ready()


def test_the_limits_keep_no_lawful_study_out(service: SwitchableService, tmp_path: Path) -> None:
    """160 slices of 256 x 256."""
    files = write_mr_series(
        tmp_path / "large",
        ball((160, 256, 256)).astype(np.uint16),
        pixel_spacing=(0.9, 0.9),
        slice_spacing=1.0,
    )
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    assert sent(service, tmp_path / "large", uid)["rung"] == "full"
