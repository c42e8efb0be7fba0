"""What a person at the host's terminal asks: of a service that runs, hangs or is down; and backups."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from running import CANARY, TOKEN, Service, StoreScp, free_port, wait_for

from outpost.health.russian import RUSSIAN


def ready(service: Service) -> None:
    """Started, and ready: three minutes, as a unit has; other tests may hold the processors."""
    service.start()
    wait_for(lambda: service.http.get("/v2/health/ready").status_code == 200, 180, "the service is ready")


class Scene:
    """A service with one delivered study, one refused image, and a destination."""

    def __init__(self, root: Path, series: list[Path]) -> None:
        self.root = root
        self.pacs = StoreScp(root / "pacs").start()
        self.service = Service(root / "host", [("PACS", self.pacs.port)], inference={"workers": 1})
        ready(self.service)
        self.study = str(dcmread(series[0], stop_before_pixels=True).StudyInstanceUID)
        self.series = series
        assert self.service.storescu(*series, options=("-aet", "CT2")).returncode == 0
        self.service.wait_outcome(self.study)
        torn = root / "torn.dcm"
        torn.write_bytes(series[0].read_bytes()[:200])
        self.service.stow(torn)

    def ask(
        self, *words: str, config: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`outpost ...` as a process of its own, in English unless told otherwise."""
        given = {"OUTPOST_CONFIG": str(config or self.service.config_file), "OUTPOST_LANGUAGE": "en"}
        given["OUTPOST_TOKEN"] = TOKEN
        return subprocess.run(
            [sys.executable, "-m", "outpost.cli", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | given | environment,
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, head_series: list[Path]) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("console"), head_series)
    yield scene
    scene.service.stop()
    scene.pacs.stop()


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def names_nobody(scene: Scene, text: str) -> None:
    assert CANARY not in text
    assert scene.study not in text


def test_status_tells_on_one_screen_how_the_service_is_and_what_it_did(scene: Scene) -> None:
    done = scene.ask("status")
    assert done.returncode in (0, 1), done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("brain (chita)")
    assert "computes them" in first or "needs a person" in first
    assert len(rest) < 40
    assert "delivered 1" in done.stdout
    assert "CT2" in done.stdout
    assert "NOT_DICOM 1" in done.stdout
    assert "rung full" in done.stdout
    names_nobody(scene, done.stdout)
    found = summary(scene.ask("status", "--json"))
    assert found["service"]["verdict"] in ("ok", "degraded")
    assert done.returncode == (0 if found["service"]["verdict"] == "ok" else 1)
    assert [s["state"] for s in found["work"]["last"]] == ["delivered"]
    names_nobody(scene, json.dumps(found))


def test_events_and_studies_are_found_by_code_state_time_and_reason(scene: Scene) -> None:
    events = json.loads(scene.ask("events", "--json").stdout)
    assert isinstance(events, list)
    names_nobody(scene, json.dumps(events))
    assert scene.ask("events", "--code", "NO_SUCH_EVENT").stdout == "no events\n"
    both = [
        json.loads(scene.ask("studies", "--json", *more).stdout) for more in ([], ["--state", "delivered"])
    ]
    assert [[s["study_uid"] for s in found] for found in both] == [[scene.study]] * 2
    for nothing in (
        ["--state", "quarantined"],
        ["--since", "2999-01-01"],
        ["--until", "2000-01-01"],
        ["--reason", "LOCALIZER"],
        ["--sender", "CT"],
    ):
        done = scene.ask("studies", *nothing)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "no such studies\n"), nothing
    found = scene.ask("studies", "--sender", "CT2", "--since", "2000-01-01", "--limit", "1")
    assert scene.study in found.stdout
    assert CANARY not in found.stdout


def test_top_shows_once_where_it_is_piped_and_needs_no_terminal(scene: Scene) -> None:
    done = scene.ask("top", TERM="dumb")
    assert done.returncode in (0, 1)
    assert "\033" not in done.stdout
    assert "last hour: delivered 1" in done.stdout
    names_nobody(scene, done.stdout)


def test_a_service_that_hangs_is_said_to_hang_and_its_files_are_read_all_the_same(scene: Scene) -> None:
    process = scene.service.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        done = scene.ask("status")
        studies = scene.ask("studies")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert done.returncode == 1
    assert "DOES NOT ANSWER" in done.stdout.splitlines()[0]
    assert "systemctl restart outpost@brain" in done.stdout
    assert "delivered 1" in done.stdout
    assert scene.study in studies.stdout


def another_study(series: list[Path], folder: Path) -> tuple[str, list[Path]]:
    """The same head under other UIDs: a study of its own."""
    folder.mkdir()
    study = ""
    for file in series:
        found = dcmread(file)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(found, name, f"{getattr(found, name)}.7")
        found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
        found.save_as(folder / file.name)
        study = str(found.StudyInstanceUID)
    return study, sorted(folder.iterdir())


def test_a_backup_of_a_working_service_becomes_a_ready_one_elsewhere_and_what_waits_is_no_end(
    scene: Scene, tmp_path: Path
) -> None:
    assert scene.ask("status", "--drained").returncode == 0
    # The destination is down: a result waits, and with it whoever takes the host out of service.
    scene.pacs.stop()
    study, files = another_study(scene.series, tmp_path / "again")
    assert scene.service.storescu(*files).returncode == 0
    scene.service.wait_state(study, "delivering")
    waits = scene.ask("status", "--drained", "--json")
    assert (waits.returncode, summary(waits)) == (
        1,
        {"drained": False, "waiting": {"delivering": 1, "outbox": 1}},
    )
    assert "results waiting: 1" in scene.ask("status").stdout

    file = tmp_path / "brain.tar"
    taken = scene.ask("backup", "-o", str(file))
    assert taken.returncode == 0, taken.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        names = archive.getnames()
    assert names[0] == "journal.sqlite3"
    assert names[-1] == "outpost-backup.json"
    for part in ("quarantine/NOT_DICOM/", "outbox/", "spool/"):
        assert any(name.startswith(part) for name in names), part
    scene.pacs.start()
    scene.service.wait_outcome(study)
    assert scene.ask("status", "--drained").returncode == 0

    other = Service(tmp_path / "other", [("PACS", scene.pacs.port)], inference={"workers": 1})
    cut = tmp_path / "cut.tar"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused = scene.ask("restore", str(cut), config=other.config_file)
    assert (refused.returncode, list(other.storage.glob("[!.]*"))) == (1, []), "a torn archive leaves nothing"
    restored = scene.ask("restore", str(file), config=other.config_file)
    assert restored.returncode == 0, restored.stderr
    twice = scene.ask("restore", str(file), config=other.config_file)
    assert (twice.returncode, "is not empty" in twice.stderr) == (1, True)
    try:
        ready(other)
        assert [s["state"] for s in other.studies(scene.study)] == ["delivered"]
        assert other.wait_outcome(study)["outcome"] == "delivered", (
            "the result that waited goes on from there"
        )
        assert any(e["code"] == "BACKUP_RESTORED" for e in other.http.get("/events").json())
        assert other.http.get("/quarantine/reasons").json()[0]["reason"] == "NOT_DICOM"
        assert "is in use" in scene.ask("restore", str(file), config=other.config_file).stderr
    finally:
        other.stop()


def test_a_service_that_is_down_is_said_to_be_down_and_its_files_are_read(
    scene: Scene, tmp_path: Path
) -> None:
    scene.service.stop()
    done = scene.ask("status", OUTPOST_UNIT="failed (exit code 137), restarted 4 times")
    assert done.returncode == 1
    assert "STOPPED" in done.stdout.splitlines()[0]
    assert "unit: failed (exit code 137), restarted 4 times" in done.stdout
    assert "systemctl start outpost@brain" in done.stdout
    assert "CT2" in done.stdout
    assert scene.ask("events").returncode == 0
    assert scene.study in scene.ask("studies", "--json").stdout
    config = yaml.safe_load(scene.service.config_file.read_text())
    config["intake"]["disk_reserve_mib"] = 10**9
    full = tmp_path / "full.yaml"
    full.write_text(yaml.safe_dump(config))
    english = scene.ask("status", config=full)
    assert "Free space on the file system of storage.root" in " ".join(english.stdout.split())
    # The language is the locale's where nobody says otherwise.
    russian = scene.ask("status", config=full, OUTPOST_LANGUAGE="", LC_ALL="ru_RU.UTF-8")
    assert " ".join(RUSSIAN["DISK_RESERVE"][1].split()) in " ".join(russian.stdout.split())
    [check] = summary(scene.ask("status", "--json", config=full))["failing"]
    assert (check["code"], check["critical"]) == ("DISK_RESERVE", True)
    assert check["remedy_ru"] == RUSSIAN["DISK_RESERVE"][1]
    (scene.service.storage / ".lock").unlink()
    assert "STOPPED" in scene.ask("status").stdout

    # Nothing there to ask: another status, and in words.
    bare = Service(tmp_path / "bare", [("PACS", free_port())])
    for words in (["status"], ["events"], ["studies"]):
        done = scene.ask(*words, config=bare.config_file)
        assert done.returncode == 3, words
        assert "does not exist" in done.stdout + done.stderr
    for config in (tmp_path / "missing.yaml",):
        assert scene.ask("status", config=config).returncode == 2
