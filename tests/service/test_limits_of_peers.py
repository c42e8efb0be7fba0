"""The whole service while somebody tries to spend it, and its end whatever hangs."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from running import Service, wait_for

ATTACK = Path(__file__).resolve().parents[2] / "benchmarks" / "limits.py"
ELSEWHERE = "127.0.0.66"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("limits")
    service = Service(root, [("PACS", 1)], study={"quiet_seconds": 600})
    yield service.start()
    assert service.stop() == 0, service.log


def sent(service: Service) -> bool:
    return (
        service.storescu(
            Path(str(get_testdata_file("MR_small.dcm", download=False))), options=["+II"]
        ).returncode
        == 0
    )


@pytest.mark.parametrize("attack", ["half-open-http", "slow-head", "flood-of-ages", "flood-associations"])
def test_images_are_taken_and_health_answers_while_somebody_attacks(service: Service, attack: str) -> None:
    """The rest, and the figures, are in benchmarks/limits.py."""
    attacker = subprocess.Popen(
        [sys.executable, str(ATTACK), "--attack", attack, str(service.dicom_port), str(service.http_port)]
    )
    try:
        time.sleep(1)
        for _ in range(2):
            begun = time.monotonic()
            assert sent(service)
            assert service.http.get("/v2/health/live", timeout=5).status_code == 200
            assert service.http.get("/health/light", timeout=5).status_code in (200, 503)
            assert time.monotonic() - begun < 10
        assert attacker.poll() is None
    finally:
        attacker.kill()
        attacker.wait()
    assert "outpost_connections" in service.http.get("/metrics").text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/drift/sketch?from=0001-01-01&to=9999-12-31", "at most 1100 are read"),
        ("/drift/sketch?from=2026-02-01&to=2026-01-01", "exchange them"),
        ("/quarantine/report?until=0001-01-01T00:00:00", "1990 to 2200"),
        ("/quarantine/report?until=9999-12-31T23:59:59-12:00", "1990 to 2200"),
        ("/quarantine?since=0001-01-01T00:00:00%2B14:00", "1990 to 2200"),
        ("/quarantine/report?days=99999", "3660"),
        ("/studies?limit=1000000", "1000"),
        ("/events?limit=1000000", "1000"),
        ("/quarantine?limit=1000000", "1000"),
    ],
)
def test_a_question_without_bounds_is_refused_with_value_and_remedy(
    service: Service, path: str, words: str
) -> None:
    answer = service.http.get(path)
    assert answer.status_code == 422, answer.text
    assert words in answer.text


def test_what_is_open_of_a_peer_is_shown_and_who_was_limited_is_an_event(service: Service) -> None:
    silent = [
        socket.create_connection(("127.0.0.1", service.dicom_port), source_address=(ELSEWHERE, 0))
        for _ in range(200)
    ]
    assert sent(service)
    events = [event["detail"] for event in service.http.get("/events").json()]
    assert any("TOO_MANY_CONNECTIONS" in detail and ELSEWHERE in detail for detail in events)
    assert 'outpost_connections{port="dicom",state="waiting"}' in service.http.get("/metrics").text
    for one in silent:
        one.close()


# --- the end ---

HANGS = {
    "quarantine": "import outpost.quarantine.quota as m; m.QuotaKeeper.stop = stop",
    "intake": "import outpost.intake.scp as m; m.StorageScp.stop = stop",
    "drift": "import outpost.drift.keeper as m; m.Keeper.stop = stop",
    "pipeline": "import outpost.pipeline as m; m.Pipeline.stop = stop",
    "journal": "import outpost.records.journal as m; m.Journal.close = stop",
}


def injected(root: Path, where: str, *, hangs: bool) -> dict[str, str]:
    """An environment in which the stop of this part hangs, or fails."""
    root.mkdir(parents=True, exist_ok=True)
    what = "time.sleep(3600)" if hangs else "raise OSError('injected')"
    text = (
        f"import sys, time\n\ndef stop(self, *_):\n    {what}\n\n"
        f"if 'outpost.cli' in ' '.join(sys.orig_argv):\n    {HANGS[where]}\n"
        "    import outpost.serve as s; s._STOP_SECONDS, s._LAST_SECONDS = 3.0, 1.0\n"
    )
    (root / "sitecustomize.py").write_text(text)
    service = Path(__file__).resolve().parents[2] / "service"
    return {"PYTHONPATH": f"{root}:{service}"}


@pytest.mark.parametrize(
    ("where", "hangs"),
    [("quarantine", True), ("intake", True), ("drift", False), ("pipeline", True), ("journal", True)],
)
def test_a_part_whose_stop_hangs_or_fails_does_not_keep_the_process(
    tmp_path: Path, where: str, hangs: bool
) -> None:
    service = Service(tmp_path, [("PACS", 1)])
    service.start(injected(tmp_path / "inject", where, hangs=hangs))
    assert sent(service)
    begun = time.monotonic()
    status = service.stop()
    assert time.monotonic() - begun < 15
    assert status == 1
    assert where in service.log or "did not end within" in service.log
    left = subprocess.run(["pgrep", "-f", str(service.config_file)], capture_output=True, text=True).stdout
    assert not left.strip(), "no process of it is left"
    again = Service(tmp_path, [("PACS", 1)])
    again.dicom_port, again.http_port = service.dicom_port, service.http_port
    again.config_file.write_text(service.config_file.read_text())


def test_who_says_it_twice_does_not_wait(tmp_path: Path) -> None:
    service = Service(tmp_path, [("PACS", 1)])
    service.start(injected(tmp_path / "inject", "quarantine", hangs=True))
    process = service.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: not listens(service.dicom_port), 10, "it is ending")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(5)
    assert time.monotonic() - begun < 1.5


def test_it_ends_with_status_0_while_peers_hold_on_to_it(tmp_path: Path) -> None:
    service = Service(tmp_path, [("PACS", 1)]).start()
    held = [
        socket.create_connection(("127.0.0.1", port)) for port in (service.dicom_port, service.http_port) * 4
    ]
    held[1].sendall(b"GET /studies HTTP/1.1\r\nHo")
    held[2].sendall(b"\x01\x00\x00")
    held[3].sendall(b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nx")
    asking = threading.Thread(target=lambda: contextlib.suppress(OSError) and held[5].sendall(b"x"))
    asking.start()
    asking.join()
    begun = time.monotonic()
    assert service.stop() == 0, service.log
    assert time.monotonic() - begun < 15
    for one in held:
        one.close()


def test_too_few_descriptors_are_told_before_anything_starts(tmp_path: Path) -> None:
    service = Service(tmp_path, [("PACS", 1)])
    command = f"ulimit -n 200; exec {sys.executable} -m outpost.cli serve --config {service.config_file}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "200 descriptors" in ended.stderr
    assert "LimitNOFILE=" in ended.stderr


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
