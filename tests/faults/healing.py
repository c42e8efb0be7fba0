"""A storage in which everything has happened once, made by the real service, to be damaged and started again."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from killing import Nursery, alive
from mr_series import ball, write_mr_series
from pydicom import dcmread
from pynetdicom import AE, evt
from running import Service, answers, free_port, wait_for
from switchable import write_bundle

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
ENDED = ("delivered", "rejected", "quarantined")


class Archive:
    """A PACS that keeps what it gets, in order: SOP Instance UID and a digest of the pixels."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: list[tuple[str, str]] = []  # study, instance
        self._entity = AE("PACS")
        self._entity.add_supported_context(SEG)
        self._server: Any = None

    def start(self) -> None:
        if self._server is None:
            self._server = self._entity.start_server(
                ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
            )

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        self.received.append((str(event.dataset.StudyInstanceUID), str(event.request.AffectedSOPInstanceUID)))
        return 0x0000

    def results_of(self, study: str) -> set[str]:
        return {sop for of, sop in self.received if of == study}

    def times(self, study: str) -> int:
        return sum(of == study for of, _ in self.received)


@dataclass
class Lived:
    """Studies by what became of them; `spool` of the waiting one is there, too."""

    storage: Path
    delivered: str
    rejected: str
    waiting: str
    receiving: str


class House:
    """The service on a storage of its own, in the nursery's quick form, with its archive."""

    def __init__(self, root: Path, nursery: Nursery, archive: Archive, bundle: Path, **sections: Any) -> None:
        self.root = root
        self.nursery = nursery
        self.archive = archive
        study = sections.pop("study", {"quiet_seconds": 0.3})
        self.service = Service(
            root,
            [("PACS", archive.port)],
            study=study,
            delivery={"retry_first_seconds": 0.1, "retry_max_seconds": 0.4},
            inference={"bundle": str(bundle), "optimise_after_idle_seconds": 0},
            **sections,
        )
        self.told = root / "told"
        self.pid = 0

    @property
    def storage(self) -> Path:
        return self.service.storage

    def start(self, step: str | None = None, count: int = 1) -> None:
        self.told.unlink(missing_ok=True)
        self.pid = self.nursery.start(self.service.config_file, self.service.log_file, self.told, step, count)

    def wait_ready(self, seconds: float = 30) -> None:
        def ready() -> bool:
            assert alive(self.pid), self.service.log[-3000:]
            if not answers(self.service.http_port):
                return False
            with suppress(httpx.HTTPError):
                return self.service.http.get("/v2/health/ready").status_code == 200
            return False

        wait_for(
            ready, seconds, f"ready: {self.service.log[-3000:] if self.service.log_file.exists() else ''}"
        )

    def checks(self) -> dict[str, dict[str, Any]]:
        return {one["code"]: one for one in self.service.http.get("/health/light").json()["checks"]}

    def rows(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.storage}/journal.sqlite3?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM studies ORDER BY id")]

    def events(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(f"file:{self.storage}/journal.sqlite3?mode=ro", uri=True)) as db:
            return [(row[0], row[1]) for row in db.execute("SELECT code, detail FROM events ORDER BY id")]

    def wait_quiet(self, seconds: float = 30) -> None:
        def quiet() -> bool:
            assert alive(self.pid), self.service.log[-3000:]
            with suppress(sqlite3.Error):
                return all(row["state"] in ENDED for row in self.rows())
            return False

        wait_for(quiet, seconds, "every study ends")

    def end(self) -> int:
        if not self.pid or not alive(self.pid):
            return -1
        os.kill(self.pid, signal.SIGTERM)
        return self.nursery.wait(self.pid)

    def kill(self) -> None:
        if self.pid and alive(self.pid):
            os.killpg(self.pid, signal.SIGKILL)
            self.nursery.wait(self.pid)


def make_bundle(folder: Path) -> Path:
    bundle = write_bundle(folder)
    manifest = yaml.safe_load((bundle / "outpost.yaml").read_text())
    manifest["input"] |= {"min_slices": 4, "max_slice_spacing_mm": 50.0}
    (bundle / "outpost.yaml").write_text(yaml.safe_dump(manifest))
    return bundle


def series(folder: Path, slices: int = 5) -> tuple[str, list[Path]]:
    files = write_mr_series(folder, ball((slices, 16, 16)), pixel_spacing=(10.0, 10.0), slice_spacing=40.0)
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID), files


def live(house: House, inputs: Path) -> Lived:
    """One of each: delivered and kept, rejected, waiting in the outbox, being received; and a refused file."""
    delivered, files = series(inputs / "delivered")
    rejected, few = series(inputs / "rejected", slices=3)
    waiting, held = series(inputs / "waiting")
    receiving, last = series(inputs / "receiving")
    garbage = inputs / "garbage.dcm"
    garbage.write_bytes(b"no image at all")
    house.archive.start()
    house.start()
    house.wait_ready()
    house.service.stow(*files)
    house.service.stow(*few)
    house.service.stow(garbage)
    house.service.wait_outcome(delivered)
    house.service.wait_outcome(rejected)
    house.archive.stop()
    house.service.stow(*held)
    house.service.wait_state(waiting, "delivering")
    house.service.stow(*last)
    house.kill()
    return Lived(house.storage, delivered, rejected, waiting, receiving)


def checked(house: House, lived: Lived, more: int = 0) -> None:
    """Nothing was lost, nothing is in the archive as two results."""
    newest = {row["study_uid"]: row for row in house.rows()}
    assert newest[lived.delivered]["state"] == "delivered"
    assert newest[lived.waiting]["state"] == "delivered"
    assert newest[lived.receiving]["state"] == "delivered"
    assert newest[lived.rejected]["state"] == "rejected"
    assert newest[lived.rejected]["reason"]
    assert (house.storage / "quarantine" / newest[lived.rejected]["reason"]).is_dir()
    assert {row["revision"] for row in house.rows()} == {1}, house.rows()
    for study in (lived.delivered, lived.waiting, lived.receiving):
        assert len(house.archive.results_of(study)) == 1
    assert [row["instances"] for row in newest.values()].count(5) == 3 + more
    with closing(sqlite3.connect(f"file:{house.storage}/journal.sqlite3?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert not db.execute("PRAGMA foreign_key_check").fetchall()
        assert db.execute("SELECT count(*) FROM refused").fetchone()[0] == 1


def pages_of(storage: Path, name: str) -> list[int]:
    """Numbers of the pages of a table or index, from 1."""
    with closing(sqlite3.connect(storage / "journal.sqlite3")) as db:
        return [row[0] for row in db.execute("SELECT pageno FROM dbstat WHERE name = ?", (name,))]


def overwrite(file: Path, at: int, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(content)
