"""A hundred deaths by SIGKILL at chosen and random steps: nothing acknowledged is lost, nothing is sent as two results.

The model of what is allowed, held against the disk after each death and against everybody at the end:

* every acknowledged instance belongs to revisions that ended delivered, rejected or quarantined, with a reason where
  there is no result, and its file lies where that outcome says;
* a revision has one result UID and one content, however often it was sent; it was sent of exactly the revision's
  images, revisions of a study in their order; what was not delivered was never sent;
* the region's Postgres holds the journal's rows, each once;
* no half-received file and no half-written result outlives the next start.

The seed decides the load and where each death comes; OUTPOST_TEST_SEED replays one (the threads' timing is their
own). OUTPOST_TEST_KILLS asks for more deaths than 100.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from killing import Nursery, alive, children
from mr_series import ball, write_mr_series
from postgres_cluster import RECORDER_PASSWORD, Cluster, make_region_database
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from running import BEARER, Service, answers, free_port, wait_for
from switchable import write_bundle

from outpost.records.recorder import study_key

UID_KEY = "a key for the test"
KILLS = int(os.environ.get("OUTPOST_TEST_KILLS", "100"))
ENDED = ("delivered", "rejected", "quarantined")
MR, SEG = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class Step:
    """Where to die. `load` is what makes the service come there, `most` the highest count it surely reaches."""

    area: str
    name: str
    load: str = "head"
    most: int = 1
    after: str = ""  # a step to die at first, for this one to be reached


def _around(area: str, name: str, **values: Any) -> list[Step]:
    return [Step(area, f"{name}:before", **values), Step(area, f"{name}:after", **values)]


STEPS = [
    *_around("journal", "Journal.add_all:commit", most=4),
    *_around("journal", "Journal.complete:commit"),
    *_around("journal", "Journal.begin_inference:commit"),
    *_around("journal", "Journal.begin_delivery:commit"),
    *_around("journal", "Journal.finish:commit"),
    *_around("journal", "Journal.return_to_queue:commit", after="worker:compute:before"),
    *_around("journal", "Journal.note_failure:commit", after="worker:read:after"),
    *_around("journal", "Journal.keep_fact:commit"),
    *_around("journal", "Journal.refuse:commit", load="garbage"),
    *_around("spool", "Spool._examined:fsync", most=4),
    *_around("spool", "Spool._place:mkdir"),
    *_around("spool", "Spool._place:link", most=4),
    *_around("spool", "Spool._place:fsync", most=5),
    *_around("spool", "Spool.put_aside:link", load="garbage"),
    *_around("spool", "Spool.quarantine_study:link", load="foreign", most=3),
    Step("spool", "Spool.quarantine_study:fsync:after", load="foreign", most=3),
    *_around("spool", "Spool.remove_study:unlink", load="foreign", most=3),
    Step("spool", "Spool.remove_study:rmdir:before", load="foreign"),
    Step("worker", "worker:spawn:after"),
    *_around("worker", "worker:read"),
    *_around("worker", "worker:compute"),
    Step("outbox", "Outbox.work_folder:mkdir:after"),
    *_around("outbox", "Outbox.publish:rename"),
    Step("outbox", "Outbox.publish:fsync:after", most=2),
    *_around("outbox", "store:c-store"),
    *_around("outbox", "Journal.note_delivery:commit"),
    Step("outbox", "Outbox.remove:unlink:after"),
    Step("outbox", "Outbox.remove:rmdir:before"),
    *_around("recorder", "Recorder.ship:upsert"),
    *_around("recorder", "Journal.mark_shipped:commit"),
]
# Deaths without a step: of the worker's process alone, and of the service at any moment.
WORKER, MOMENT = "worker, killed from outside", "service, killed from outside"


# --- the senders ---


@dataclass
class Job:
    files: list[Path]
    by: str  # "c-store" or "stow"
    answered: bool = field(default=False)


class Sender(threading.Thread):
    """A PACS: sends each file until it is answered, and knows which were acknowledged."""

    def __init__(self, dicom_port: int, http_port: int) -> None:
        super().__init__(name="sender", daemon=True)
        self._dicom_port = dicom_port
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=10, headers=BEARER)
        self._jobs: list[Job] = []
        self._change = threading.Lock()
        self.acknowledged: dict[str, Path] = {}  # SOP Instance UID -> what was sent
        self.unexpected: list[str] = []
        self.open = threading.Event()
        self.ending = False

    def add(self, job: Job) -> None:
        with self._change:
            self._jobs.append(job)

    @property
    def waiting(self) -> int:
        with self._change:
            return len(self._jobs)

    def run(self) -> None:
        while not self.ending:
            self.open.wait(0.1)
            with self._change:
                jobs = list(self._jobs)
            for job in jobs:
                if self.open.is_set():
                    with suppress(OSError, RuntimeError, httpx.HTTPError):
                        (self._store if job.by == "c-store" else self._stow)(job)
            with self._change:
                self._jobs = [job for job in self._jobs if job.files]
            time.sleep(0.02)

    def _store(self, job: Job) -> None:
        entity = AE("PACS")
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 10
        entity.add_requested_context(MR, "1.2.840.10008.1.2.1")
        opened = entity.associate("127.0.0.1", self._dicom_port)
        if not opened.is_established:
            return
        try:
            for file in list(job.files):
                answer = opened.send_c_store(file)
                if "Status" not in answer:
                    return
                if answer.Status == 0x0000:
                    self.acknowledged[uid_of(file)] = file
                else:
                    self.unexpected.append(f"C-STORE {answer.Status:04X}")
                job.files.remove(file)
        finally:
            if opened.is_established:
                opened.release()

    def _stow(self, job: Job) -> None:
        boundary = "a-boundary-of-the-test"
        body = b"".join(
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file.read_bytes() + b"\r\n"
            for file in job.files
        )
        reply = self._http.post(
            "/dicom-web/studies",
            content=body + f"--{boundary}--\r\n".encode(),
            headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
        )
        stored = {item["00081155"]["Value"][0] for item in reply.json().get("00081199", {}).get("Value", [])}
        for file in list(job.files):
            if is_garbage(file):
                job.files.remove(file)
                if reply.status_code != 409:
                    self.unexpected.append(f"garbage: {reply.status_code}")
            elif uid_of(file) in stored:
                self.acknowledged[uid_of(file)] = file
                job.files.remove(file)


def uid_of(file: Path) -> str:
    return str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)


def is_garbage(file: Path) -> bool:
    return file.suffix == ".garbage"


# --- the destination ---


@dataclass(frozen=True)
class Received:
    sop_uid: str
    study_uid: str
    revision: int
    images: frozenset[str]
    digest: str


class Destination:
    """A PACS that keeps what it got, in order, and now and then fails before or after keeping it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.port = free_port()
        self.received: list[Received] = []
        self.sound = False
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
        fate = 1.0 if self.sound else self._chance.random()
        if fate < 0.06:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            return 0xC000
        if fate < 0.12:
            return 0xA700
        dataset = event.dataset
        self.received.append(
            Received(
                str(event.request.AffectedSOPInstanceUID),
                str(dataset.StudyInstanceUID),
                revision_in(dataset),
                frozenset(
                    str(image.ReferencedSOPInstanceUID)
                    for series in dataset.ReferencedSeriesSequence
                    for image in series.ReferencedInstanceSequence
                ),
                hashlib.sha256(event.request.DataSet.getvalue()).hexdigest(),
            )
        )
        if fate < 0.18:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000


def revision_in(dataset: Dataset) -> int:
    """The revision as the result itself says it, among the algorithm's parameters."""
    algorithm = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    found = dict(pair.split("=", 1) for pair in algorithm.AlgorithmParameters.split(","))
    return int(found["revision"])


# --- the scene ---


class Scene:
    """The service with all its peers, and the chance that decides what happens to it."""

    def __init__(self, root: Path, seed: int, cluster: Cluster) -> None:
        self.chance = random.Random(seed)
        self.root = root
        self.cluster = cluster
        self.destination = Destination(random.Random(seed + 1))
        self.destination.start()
        bundle = write_bundle(root / "bundle")
        manifest = yaml.safe_load((bundle / "outpost.yaml").read_text())
        manifest["input"] |= {"min_slices": 4, "max_slice_spacing_mm": 50.0}
        (bundle / "outpost.yaml").write_text(yaml.safe_dump(manifest))
        self.service = Service(
            root / "service",
            [("PACS", self.destination.port)],
            study={"quiet_seconds": 0.3},
            delivery={"retry_first_seconds": 0.1, "retry_max_seconds": 0.4},
            inference={
                "bundle": str(bundle),
                "workers": self.chance.choice((1, 2)),
                "optimise_after_idle_seconds": 0,
                # The test kills the service in the start of its worker more often than any host does.
                "ladder": {
                    "deaths_allowed": 100,
                    "climb_after_seconds": 1,
                    "receive_only_retry_seconds": 1,
                },
            },
            records={
                "enabled": True,
                "host": cluster.host,
                "port": cluster.port,
                "password": RECORDER_PASSWORD,
                "uid_key": UID_KEY,
            },
        )
        os.environ["OUTPOST_TEST_FAULT"] = str(root / "no-fault")
        self.nursery = Nursery(root / "nursery.log")
        self.sender = Sender(self.service.dicom_port, self.service.http_port)
        self.sender.start()
        self.told = root / "told"
        self.pid = 0
        self.started = 0.0
        self.studies = 0
        self.late: list[Job] = []
        self.counted: Counter[str] = Counter()

    # --- load ---

    def load(self, kind: str) -> None:
        """Another study on its way in, and by chance a late image or a repetition of an earlier one."""
        self.studies += 1
        folder = self.root / f"study-{self.studies}"
        by = self.chance.choice(("c-store", "c-store", "stow"))
        if kind == "garbage":
            folder.mkdir()
            (folder / "1.garbage").write_bytes(self.chance.randbytes(300))
            self.sender.add(Job([folder / "1.garbage"], "stow"))
            kind = "head"
        slices = 5 if kind == "head" else 3
        files = write_mr_series(
            folder, ball((slices, 16, 16)), pixel_spacing=(10.0, 10.0), slice_spacing=40.0
        )
        if kind == "head" and self.chance.random() < 0.4:
            self.late.append(Job([files.pop()], by))
        self.sender.add(Job(files, by))
        if self.late and self.chance.random() < 0.5:
            self.sender.add(self.late.pop(0))
        if self.chance.random() < 0.3 and self.sender.acknowledged:
            again = self.chance.choice(sorted(self.sender.acknowledged))
            self.sender.add(Job([self.sender.acknowledged[again]], "c-store"))

    # --- life and death ---

    def start(self, step: str | None = None, count: int = 1, *, light: bool = True) -> None:
        self.told.unlink(missing_ok=True)
        self.started = time.time()
        self.pid = self.nursery.start(
            self.service.config_file, self.service.log_file, self.told, step, count, light=light
        )

    def wait_listening(self) -> bool:
        """Whether the service came to listen; it may be dead before, where that was asked for."""
        ports = (self.service.dicom_port, self.service.http_port)
        wait_for(lambda: not alive(self.pid) or all(map(answers, ports)), 20, "the service listens")
        return alive(self.pid)

    def wait_death(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.005)
        return not alive(self.pid)

    def buried(self) -> None:
        """Dead, by SIGKILL, and what it left is in order."""
        self.sender.open.clear()
        status = self.nursery.wait(self.pid)
        assert status == -signal.SIGKILL, f"ended with {status}: {self.service.log[-3000:]}"
        check_disk(self)

    def round(self, step: Step, count: int) -> bool:
        """One life, up to a step; returns whether it was reached."""
        self.load(step.load)
        self.start(step.name, count)
        if self.wait_listening():
            check_start(self)
            self.sender.open.set()
        reached = self.wait_death(20)
        if not reached:
            os.killpg(self.pid, signal.SIGKILL)
        self.buried()
        if reached:
            assert self.told.read_text() == step.name
            self.counted[step.name] += 1
        return reached

    def outside_round(self) -> None:
        """One life whose worker is killed from outside, and then the service, whatever they do."""
        self.load("head")
        self.start()
        if self.wait_listening():
            self.sender.open.set()
        workers = wait_for(lambda: children(self.pid), 10, "the worker starts")
        time.sleep(self.chance.uniform(0, 1.5))
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                self.counted[WORKER] += 1
        time.sleep(self.chance.uniform(0, 1.0))
        assert alive(self.pid), self.service.log[-3000:]
        os.killpg(self.pid, signal.SIGKILL)
        self.counted[MOMENT] += 1
        self.buried()

    def last_life(self) -> None:
        """No more deaths: everything comes to its end, with the real worker."""
        for job in self.late:
            self.sender.add(job)
        self.destination.sound = True
        self.destination.start()
        self.start(light=False)
        assert self.wait_listening()
        check_start(self)
        self.sender.open.set()
        wait_for(lambda: self.sender.waiting == 0, 30, "everything is acknowledged")
        wait_for(self._quiet, 90, "every revision ends and is shipped")
        os.kill(self.pid, signal.SIGTERM)
        assert self.nursery.wait(self.pid) == 0

    def _quiet(self) -> bool:
        with closing(sqlite3.connect(self.service.storage / "journal.sqlite3")) as db:
            (open_,) = db.execute(
                f"SELECT count(*) FROM studies WHERE state NOT IN {ENDED} OR change > shipped_change"
            ).fetchone()
        return bool(open_ == 0)

    def close(self) -> None:
        self.sender.ending = True
        if self.pid and alive(self.pid):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.sender.join()
        self.nursery.close()
        self.destination.stop()


# --- the model ---


class Books:
    """What the journal says, read from a copy: the service's own file is recovered by the service alone."""

    def __init__(self, scene: Scene) -> None:
        copy = scene.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("journal.sqlite3", "journal.sqlite3-wal"):
            if (scene.service.storage / name).exists():
                shutil.copy(scene.service.storage / name, copy / name)
        with closing(sqlite3.connect(copy / "journal.sqlite3")) as db:
            db.row_factory = sqlite3.Row
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert not db.execute("PRAGMA foreign_key_check").fetchall()
            self.studies = db.execute("SELECT * FROM studies ORDER BY id").fetchall()
            self.instances = {row["sop_uid"]: row for row in db.execute("SELECT * FROM instances")}
            self.confirmed = {
                (row["study"], row["file"])
                for row in db.execute("SELECT * FROM deliveries WHERE confirmed_at IS NOT NULL")
            }
        self.newest = {row["study_uid"]: row for row in self.studies}

    def of(self, study: sqlite3.Row) -> set[str]:
        """SOP Instance UIDs of a revision."""
        return {
            uid
            for uid, row in self.instances.items()
            if row["study_uid"] == study["study_uid"] and row["revision"] <= study["revision"]
        }


def check_disk(scene: Scene) -> None:
    """What must hold at any moment, also between two steps."""
    storage = scene.service.storage
    if not (storage / "journal.sqlite3").exists():
        assert not scene.sender.acknowledged
        return
    books = Books(scene)
    lost = scene.sender.acknowledged.keys() - books.instances.keys()
    assert not lost, f"{len(lost)} acknowledged instances are not in the journal"
    sent = {one.sop_uid for one in scene.destination.received}
    for study in books.studies:
        files = {f"{uid}.dcm" for uid in books.of(study)}
        if study["state"] in ("rejected", "quarantined"):
            assert study["reason"]
            folder = storage / "quarantine" / study["reason"] / f"{study['study_uid']}.r{study['revision']}"
            assert files == {file.name for file in folder.iterdir()}, f"quarantine of row {study['id']}"
        elif study["id"] == books.newest[study["study_uid"]]["id"]:
            held = {file.name for file in (storage / "spool" / study["study_uid"]).glob("*.dcm")}
            held |= {file.name for file in storage.glob(f"quarantine/*/{study['study_uid']}.r*/*.dcm")}
            assert files <= held, f"spool of row {study['id']}, {study['state']}"
        if study["state"] == "delivering":
            assert list((storage / "outbox" / str(study["id"])).glob("*.dcm")), f"outbox of row {study['id']}"
        if study["state"] == "delivered":
            mine = [file for row, file in books.confirmed if row == study["id"]]
            assert mine, f"row {study['id']} is delivered, and no file of it was"
            assert {Path(file).stem for file in mine} <= sent


def check_start(scene: Scene) -> None:
    """What the last death left half done is gone."""
    for folder in ("spool/.incoming", "outbox/.work"):
        for left in (scene.service.storage / folder).iterdir():
            assert left.stat().st_mtime >= scene.started, f"{folder} keeps what the last life left"


def check_end(scene: Scene) -> None:
    """What must hold once all is quiet."""
    check_disk(scene)
    storage, books = scene.service.storage, Books(scene)
    assert not scene.sender.unexpected
    assert {study["state"] for study in books.studies} <= set(ENDED)
    for uid, file in scene.sender.acknowledged.items():
        study = books.newest[books.instances[uid]["study_uid"]]
        if study["state"] == "delivered":
            kept = storage / "spool" / study["study_uid"] / f"{uid}.dcm"
        else:
            kept = (
                storage
                / "quarantine"
                / study["reason"]
                / f"{study['study_uid']}.r{study['revision']}"
                / f"{uid}.dcm"
            )
        assert dcmread(kept) == dcmread(file)
    check_sent(scene, books)
    assert not list((storage / "spool" / ".incoming").iterdir())
    assert [path.name for path in (storage / "outbox").iterdir()] == [".work"]
    assert not list((storage / "outbox" / ".work").iterdir())
    ended = {s["study_uid"] for s in books.newest.values() if s["state"] != "delivered"}
    assert not ended & {path.name for path in (storage / "spool").iterdir()}, "spool of what was put aside"
    check_postgres(scene, books)


def check_sent(scene: Scene, books: Books) -> None:
    sent: dict[tuple[str, int], set[tuple[str, str]]] = defaultdict(set)
    revisions: dict[str, list[int]] = defaultdict(list)
    images: dict[tuple[str, int], frozenset[str]] = {}
    for one in scene.destination.received:
        sent[one.study_uid, one.revision].add((one.sop_uid, one.digest))
        revisions[one.study_uid].append(one.revision)
        images[one.study_uid, one.revision] = one.images
    for key, results in sent.items():
        assert len(results) == 1, f"revision {key[1]} was sent as {len(results)} different results"
    for order in revisions.values():
        assert order == sorted(order), f"revisions were sent in the order {order}"
    delivered = {
        (study["study_uid"], study["revision"]): books.of(study)
        for study in books.studies
        if study["state"] == "delivered"
    }
    assert sent.keys() == delivered.keys()
    for key, wanted in delivered.items():
        assert images[key] == wanted, f"revision {key[1]} was computed of other images than it has"


def check_postgres(scene: Scene, books: Books) -> None:
    with scene.cluster.superuser("outpost") as connection:
        rows = connection.execute("SELECT * FROM outpost.studies").fetchall()
    found = sorted(
        (r["study_key"], r["revision"], r["outcome"], r["reason"] or "", r["rung"] or "", r["instances"])
        for r in rows
    )
    wanted = sorted(
        (
            study_key(UID_KEY, s["study_uid"]),
            s["revision"],
            s["state"],
            s["reason"],
            s["rung"],
            s["instances"],
        )
        for s in books.studies
    )
    assert found == wanted


# --- the test ---


def plan_of(chance: random.Random, kills: int) -> list[tuple[Step | None, int]]:
    """Where to die, life by life: every step at least once, in any order; None is a death from outside."""
    by_name = {step.name: step for step in STEPS}
    outside = kills // 10
    lives: list[list[Step | None]] = [[None] for _ in range(outside)]
    # Every step once, those of the smallest area again, then any.
    chosen = [*STEPS, *(step for step in STEPS if step.area == "recorder")]
    while len(chosen) < kills - 2 * outside:
        chosen += chance.sample(STEPS, len(STEPS))
    for step in chosen[: kills - 2 * outside]:
        lives.append([by_name[step.after], step] if step.after else [step])
    chance.shuffle(lives)
    return [(step, 1 if step is None else chance.randint(1, step.most)) for life in lives for step in life]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    # An address of this very run: another may go on beside it.
    cluster = Cluster(
        "killing", f"127.79.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}", "region"
    ).start()
    make_region_database(cluster, "chita")
    yield cluster
    cluster.destroy()


def test_a_hundred_kills_at_random_steps_lose_nothing_and_send_nothing_as_two_results(
    tmp_path: Path, cluster: Cluster
) -> None:
    seed = int(os.environ.get("OUTPOST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}: replay with OUTPOST_TEST_SEED={seed}")
    began = time.monotonic()
    scene = Scene(tmp_path, seed, cluster)
    try:
        missed: list[Step] = []
        for step, count in plan_of(scene.chance, KILLS):
            # Away for a whole life now and then, where the step does not need it.
            if step is not None and step.area in ("spool", "recorder") and scene.chance.random() < 0.15:
                scene.destination.stop()
            else:
                scene.destination.start()
            life = time.monotonic()
            if step is None:
                scene.outside_round()
            elif not scene.round(step, count):
                missed.append(step)
            print(f"{time.monotonic() - life:5.2f} s  {step.name if step else 'outside'} {count}")
        scene.destination.start()
        for step in missed:
            scene.round(step, 1)
        scene.last_life()
        check_end(scene)
    finally:
        scene.close()
    areas: Counter[str] = Counter()
    for step in STEPS:
        areas[step.area] += scene.counted[step.name]
    areas["worker"] += scene.counted[WORKER]
    outcomes = Counter(study["state"] for study in Books(scene).studies)
    kills = scene.counted.total()
    print(f"{kills} kills in {time.monotonic() - began:.0f} s: {dict(areas)}, {dict(outcomes)}")
    never = [step.name for step in STEPS if not scene.counted[step.name]]
    assert not never, f"never reached: {never}"
    assert kills >= KILLS
    assert min(areas.values()) >= 8, areas
    assert outcomes["delivered"] > outcomes.total() / 2, outcomes
    assert max(study["revision"] for study in Books(scene).studies) > 1
