"""Signals from outside and studies of very many files: what they cost the study itself, and nobody else."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mr_series import ball, write_mr_series
from pydicom import dcmread
from running import StoreScp, wait_for
from switchable import SwitchableService

from outpost.health.codes import CHECKS, CheckCode

PARTS = 1500
# Of each image: reading all takes far longer than a study of usual size may be silent.
PRIVATE_ELEMENTS = 600


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwitchableService]:
    root = tmp_path_factory.mktemp("neighbours")
    pacs = StoreScp(root / "pacs").start()
    service = SwitchableService(
        root / "service",
        [("PACS", pacs.port)],
        inference={"workers": 1, "timeout_seconds": 300},
        storage={"root": str(root / "service" / "brain"), "keep_delivered_hours": 0},
    )
    service.http.timeout = 180
    service.start().wait_ready()
    yield service
    service.stop()
    pacs.stop()


def children(service: SwitchableService) -> list[int]:
    assert service.process is not None
    found: list[int] = []
    for task in Path(f"/proc/{service.process.pid}/task").iterdir():
        found += map(int, (task / "children").read_text(encoding="ascii").split())
    return [pid for pid in found if b"inference.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def critical(service: SwitchableService) -> set[str]:
    """Critical checks that fail now; but for the speed of the golden case, which is the load of the machine."""
    checks = service.http.get("/health/light").json()["checks"]
    failing = {one["code"] for one in checks if not one["ok"] and CHECKS[CheckCode(one["code"])].critical}
    return failing - {CheckCode.GOLDEN_CRAWLS}


def test_a_study_interrupted_by_signals_again_and_again_is_computed_at_full(
    service: SwitchableService,
) -> None:
    service.fault("slow", seconds=60)
    uid = service.send_study()
    for turn, number in enumerate((signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM)):
        wait_for(lambda turn=turn: service.studies(uid)[0]["attempts"] == turn + 1, 90, "it is in work")
        service.wait_state(uid, "inferring")
        [worker] = children(service)
        time.sleep(0.5)
        if turn == 3:
            service.fault()
        os.kill(worker, number)
        wait_for(lambda worker=worker: worker not in children(service), 30, "it is replaced")
    row = service.wait_outcome(uid, seconds=90)
    assert (row["outcome"], row["rung"], row["attempts"]) == ("delivered", "full", 5), service.log[-2000:]
    assert service.http.get("/ladder").json()["failing"] == []
    row = service.wait_outcome(service.send_study(), seconds=60)
    assert (row["rung"], row["attempts"]) == ("full", 1)


def test_a_worker_that_starts_again_makes_nobody_ready_and_killers_of_it_move_no_rung(
    service: SwitchableService,
) -> None:
    """Killed idle, and then each that starts in its place: ready is who has proven himself, and it is so at last."""
    wait_for(service.ready, 60, "it is ready")
    for _ in range(4):  # one less than failures of one cause in a row that end computing
        wait_for(lambda: len(children(service)) == 1, 60, "a worker is there")
        [worker] = children(service)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda worker=worker: worker not in children(service), 10, "it has gone")
        wait_for(lambda: children(service), 60, "another one starts")
        for _ in range(5):
            assert not service.ready(), "nobody has proven that this host computes"
            time.sleep(0.05)
    wait_for(service.ready, 90, "ready again")
    status = service.http.get("/ladder").json()
    assert (status["rung"], status["failing"]) == ("full", [])
    assert "RECEIVE_ONLY_BEGUN" not in service.events()


def many(folder: Path) -> tuple[str, list[bytes]]:
    """A study of many images that no model reads; its UID, and the files."""
    [file] = write_mr_series(folder, ball((1, 16, 16)))
    image = dcmread(file)
    image.ImageType = ["DERIVED", "PRIMARY", "LOCALIZER"]
    block = image.private_block(0x0009, "OUTPOST TEST", create=True)
    for number in range(200):
        block.add_new(number, "LO", "a value")
    for group in (0x000B, 0x000D):
        block = image.private_block(group, "OUTPOST TEST", create=True)
        for number in range(PRIVATE_ELEMENTS // 3):
            block.add_new(number, "LO", "a value")
    uid = str(image.SOPInstanceUID)[:50]
    files = []
    for number in range(PARTS):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{number + 1}"
        buffer = io.BytesIO()
        image.save_as(buffer)
        files.append(buffer.getvalue())
    return str(image.StudyInstanceUID), files


def resident_mib(service: SwitchableService) -> int:
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) >> 10


def test_a_study_of_very_many_files_in_one_request_leaves_the_host_ready_and_the_next_study_its_turn(
    service: SwitchableService, tmp_path: Path
) -> None:
    wait_for(service.ready, 60, "it is ready")
    for _ in range(3):
        service.wait_outcome(service.send_study())
    uid, files = many(tmp_path)
    before, stop = resident_mib(service), threading.Event()
    polls, most, failing = 0, before, Counter[str]()

    def poll() -> None:
        nonlocal polls, most
        while not stop.wait(0.1):
            polls += 1
            failing.update(critical(service))
            most = max(most, resident_mib(service))

    watching = threading.Thread(target=poll)
    watching.start()
    try:
        head = b"--part\r\nContent-Type: application/dicom\r\n\r\n"
        reply = httpx.post(
            f"{service.http.base_url}/dicom-web/studies",
            content=b"".join(head + file + b"\r\n" for file in files) + b"--part--\r\n",
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
                "Authorization": service.http.headers["Authorization"],
            },
            timeout=180,
        )
        assert reply.status_code == 200, reply.text[:300]
        assert len(reply.json()["00081199"]["Value"]) == PARTS
        service.wait_state(uid, "inferring", seconds=90)
        after = service.send_study()
        row = service.wait_outcome(uid, seconds=240)
        assert (row["outcome"], row["reason"], row["attempts"]) == ("rejected", "LOCALIZER", 1), row
        row = service.wait_outcome(after, seconds=30)
        assert (row["outcome"], row["rung"], row["attempts"]) == ("delivered", "full", 1)
    finally:
        stop.set()
        watching.join()
    assert polls > 20
    assert failing == {}
    assert most - before <= 64, f"{before} MiB before, {most} at most"
