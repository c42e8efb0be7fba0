"""What a host does to a service: kills, a PACS that is away, a tight limit. Each study still ends, once."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.data import get_testdata_file
from running import Service, StoreScp, wait_for


class Systemd:
    """The socket systemd would listen on."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.heard: list[str] = []
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1500000"}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            self.heard.append(self._socket.recv(4096).decode())


def test_a_study_killed_at_every_step_and_a_pacs_that_is_away_still_give_one_result(
    head_series: list[Path], tmp_path: Path
) -> None:
    study = str(dcmread(head_series[0]).StudyInstanceUID)
    systemd = Systemd(tmp_path / "notify.sock")
    pacs, other = StoreScp(tmp_path / "pacs"), StoreScp(tmp_path / "other").start()
    destinations = [("PACS", pacs.port), ("OTHER", other.port)]
    service = Service(tmp_path / "service", destinations, study={"quiet_seconds": 1})

    def attempts() -> dict[str, dict[str, Any]]:
        return {attempt["destination"]: attempt for attempt in service.studies(study)[0]["deliveries"]}

    service.start()
    assert service.storescu(head_series[0].parent).returncode == 0
    service.kill()  # received

    service.start().wait_state(study, "inferring")
    service.kill()

    service.start().wait_state(study, "delivering")
    wait_for(lambda: len(attempts()) == 2, 20, "an attempt at each destination")
    service.kill()

    service.start(systemd.environment)
    before = attempts()["pacs0"]["attempts"]
    wait_for(lambda: attempts()["pacs0"]["attempts"] > before, 20, "a further attempt")
    [waiting] = service.studies(study)
    assert (waiting["state"], waiting["instances"]) == ("delivering", 181)
    assert "cannot be reached" in attempts()["pacs0"]["error"]
    assert (len(other.instances()), attempts()["pacs1"]["error"]) == (1, "")
    [result] = (service.storage / "outbox").glob("[0-9]*/*.dcm")
    sent = dcmread(BytesIO(result.read_bytes()))

    pacs.start()
    delivered = service.wait_outcome(study)
    assert (delivered["outcome"], delivered["attempts"]) == ("delivered", 2)
    [received] = [dcmread(file) for file in pacs.folder.iterdir()]
    assert (received.SOPInstanceUID, received.PixelData) == (sent.SOPInstanceUID, sent.PixelData)
    assert pacs.instances() == other.instances()
    assert attempts()["pacs1"]["attempts"] == 1
    assert not list((service.storage / "outbox").glob("[0-9]*"))

    service.wait_ready()
    assert service.stop() == 0
    pacs.stop()
    other.stop()
    heard = systemd.heard
    assert [message for message in heard if message in ("READY=1", "STOPPING=1")] == ["READY=1", "STOPPING=1"]
    warming = next(i for i, message in enumerate(heard) if message.startswith("EXTEND_TIMEOUT_USEC="))
    assert warming < heard.index("READY=1")
    assert heard.count("WATCHDOG=1") > 3


def test_a_study_that_takes_too_long_on_every_rung_is_quarantined_with_all_its_images(
    head_series: list[Path], tmp_path: Path
) -> None:
    study = str(dcmread(head_series[0]).StudyInstanceUID)
    service = Service(tmp_path / "service", [("PACS", 1)], inference={"timeout_seconds": 0.2}).start()
    assert service.storescu(head_series[0].parent).returncode == 0
    ended = service.wait_outcome(study, seconds=240)  # three workers start for it, one after the other
    assert (ended["outcome"], ended["reason"], ended["attempts"]) == ("quarantined", "INFERENCE_TIMEOUT", 3)
    kept = service.storage / "quarantine" / "INFERENCE_TIMEOUT" / f"{study}.r1"
    assert len(list(kept.glob("*.dcm"))) == 181
    service.wait_ready()  # the study was to blame, not the device: the golden case passes again
    assert service.stop() == 0


def test_systemd_hears_no_sign_of_life_while_the_pipeline_hangs_and_no_ready_without_a_golden_case(
    tmp_path: Path,
) -> None:
    systemd = Systemd(tmp_path / "notify.sock")
    service = Service(tmp_path / "service", [("PACS", 1)], inference={"bundle": str(tmp_path / "none")})
    service.start(systemd.environment)
    wait_for(lambda: systemd.heard.count("WATCHDOG=1") >= 2, 20, "signs of life")

    blocker = sqlite3.connect(service.storage / "journal.sqlite3", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # who writes now waits, and whoever waits for the writer waits too
    image = get_testdata_file("CT_small.dcm", download=False)
    with subprocess.Popen(["/usr/bin/storescu", "127.0.0.1", str(service.dicom_port), str(image)]) as sender:

        def tick_age() -> float:
            checks = service.http.get("/health/light").json()["checks"]
            age: float = next(c["value"] for c in checks if c["code"] == "PIPELINE_TICKING")
            return age

        wait_for(lambda: tick_age() > 0.5, 20, "the pipeline hangs")
        before = systemd.heard.count("WATCHDOG=1")
        time.sleep(1.5)
        assert systemd.heard.count("WATCHDOG=1") == before
        blocker.execute("ROLLBACK")
        wait_for(lambda: systemd.heard.count("WATCHDOG=1") > before, 20, "signs of life again")
        assert sender.wait(timeout=20) == 0
    blocker.close()
    assert service.stop() == 0
    assert "READY=1" not in systemd.heard
