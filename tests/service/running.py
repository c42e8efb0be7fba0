"""The service as a process, and the DICOM peers around it, for tests: everything real, on loopback ports."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml
from ports import free_port as free_port
from pydicom import dcmread

# Stands in every name and identifier of the test patient; it may appear in no log.
CANARY = "KANAREYKA"
ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "service" / "bundles" / "brain_extraction"
# The API of every service here is closed as in a hospital; tests ask it with this administrator's token, as do the
# commands that they start (the service's own environment is the same, and does not look at it).
TOKEN = "the-token-of-all-tests"
os.environ["OUTPOST_TOKEN"] = TOKEN
BEARER = {"Authorization": f"Bearer {TOKEN}"}
# Every process started here: what a failed test leaves running ends with the session (conftest.py).
STARTED: list[subprocess.Popen[bytes]] = []
ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`; the test fails, naming `what`, when none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:g} s")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Service:
    """`outpost serve` with its own configuration; may be killed and started again on the same storage."""

    def __init__(
        self, root: Path, destinations: Sequence[tuple[str, int]], **sections: dict[str, Any]
    ) -> None:
        self.root = root
        self.storage = root / "brain"
        self.dicom_port, self.http_port = free_port(), free_port()
        self.log_file = root / "log"
        self.config_file = root / "brain.yaml"
        config: dict[str, Any] = {
            "system": "brain",
            "region": "chita",
            # Peers of the tests call us as they like; test_closed_by_default.py looks at the check itself.
            "intake": {
                "listen": "127.0.0.1",
                "dicom_port": self.dicom_port,
                "check_called_ae_title": False,
            },
            "study": {"quiet_seconds": 0.5},
            "storage": {"root": str(self.storage)},
            "inference": {"bundle": str(BUNDLE)},
            "delivery": {
                "destinations": [
                    {"name": f"pacs{n}", "ae_title": title, "host": "127.0.0.1", "port": port}
                    for n, (title, port) in enumerate(destinations)
                ],
                "retry_first_seconds": 0.5,
                "retry_max_seconds": 1,
            },
            "records": {"enabled": False},
            "api": {
                "listen": "127.0.0.1",
                "port": self.http_port,
                "tokens": [
                    {"name": "tests", "role": "admin", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
                ],
            },
        }
        for name, values in sections.items():
            config[name] = config.get(name, {}) | values
        root.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(yaml.safe_dump(config))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=30, headers=BEARER)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, environment: dict[str, str] | None = None) -> Service:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outpost.cli", "serve", "--config", str(self.config_file)],
                stderr=log,
                env=os.environ | (environment or {}),
                start_new_session=True,
            )
        STARTED.append(self.process)
        wait_for(lambda: self._up() and answers(self.http_port), 60, "the service listens")
        return self

    def _up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with {self.process.returncode}: {self.log}")
        return answers(self.dicom_port)

    def wait_ready(self) -> Service:
        wait_for(lambda: self.http.get("/v2/health/ready").status_code == 200, 60, "the service is ready")
        return self

    def kill(self) -> None:
        """SIGKILL, as the kernel or a power cut would: nothing is told, nothing is flushed."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as systemd does; returns the exit status."""
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def studies(self, study_uid: str) -> list[dict[str, Any]]:
        reply = self.http.get(f"/studies/{study_uid}")
        found: list[dict[str, Any]] = reply.json()["revisions"] if reply.status_code == 200 else []
        return found

    def wait_outcome(self, study_uid: str, revision: int = 1, seconds: float = 60) -> dict[str, Any]:
        """The journal's row of a revision, once it has ended."""

        def ended() -> dict[str, Any] | None:
            return next(
                (
                    s
                    for s in self.studies(study_uid)
                    if s["revision"] == revision and s["outcome"] != "pending"
                ),
                None,
            )

        row: dict[str, Any] = wait_for(ended, seconds, f"revision {revision} ends")
        return row

    def wait_state(self, study_uid: str, state: str, revision: int = 1, seconds: float = 60) -> None:
        def is_there() -> bool:
            return any(s["revision"] == revision and s["state"] == state for s in self.studies(study_uid))

        wait_for(is_there, seconds, f"revision {revision} is {state}")

    def storescu(self, *paths: Path, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """DCMTK's sender, by its full name: pynetdicom brings programs of the same names into the venv."""
        return subprocess.run(
            ["/usr/bin/storescu", "-v", *options, "+sd", "127.0.0.1", str(self.dicom_port), *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def stow(self, *paths: Path) -> httpx.Response:
        boundary = "a-boundary-of-the-test"
        body = b"".join(
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
            for path in paths
        )
        return self.http.post(
            "/dicom-web/studies",
            content=body + f"--{boundary}--\r\n".encode(),
            headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
        )


class StoreScp:
    """DCMTK's storescp as a PACS that can be down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> StoreScp:
        self.process = subprocess.Popen(
            ["/usr/bin/storescp", "-od", str(self.folder), "-uf", "+xa", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        STARTED.append(self.process)
        wait_for(lambda: answers(self.port), 60, "storescp listens")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def instances(self) -> list[str]:
        """SOP Instance UIDs of what it holds."""
        return [str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in self.folder.iterdir()]


class Orthanc:
    """Debian's Orthanc, also as a sender."""

    def __init__(
        self,
        folder: Path,
        modalities: dict[str, list[Any]],
        plugins: Sequence[str] = (),
        lua: Sequence[Path] = (),
        encoding: str = "Latin1",
    ) -> None:
        self.port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "HttpPort": self.http_port,
                    "DicomPort": self.port,
                    "DicomAet": "ORTHANC",
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomModalities": modalities,
                    "Plugins": list(plugins),
                    "LuaScripts": [str(script) for script in lua],
                    "DefaultEncoding": encoding,
                }
            )
        )
        log = folder / "orthanc.log"
        with log.open("wb") as file:
            self.process = subprocess.Popen([ORTHANC, str(config)], stdout=file, stderr=file)
        STARTED.append(self.process)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60)

        def listens() -> bool:
            assert self.process.poll() is None, f"Orthanc ended: {log.read_text(errors='replace')[-2000:]}"
            return answers(self.http_port) and answers(self.port)

        wait_for(listens, 60, "Orthanc listens")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
