"""A damaged journal, on a storage in which everything has happened once: the service comes back to ready by itself,
every study has its end, and the archive has one result of each.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from healing import ENDED, Archive, House, Lived, checked, live, make_bundle, overwrite, pages_of, series
from killing import Nursery, alive
from postgres_cluster import RECORDER_PASSWORD, the_fleet
from pydicom import dcmread
from running import answers, wait_for

from outpost.cli import main
from outpost.config import Records
from outpost.delivery.outbox import Outbox
from outpost.fleet.sync import sync_region
from outpost.heal.damage import judge
from outpost.heal.start import heal
from outpost.heal.steps import KEPT_FOLDERS
from outpost.intake.spool import Spool
from outpost.records.journal import Instance, Journal
from outpost.records.recorder import Recorder, study_key

PAGE = 4096


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    root = tmp_path_factory.mktemp("nursery")
    os.environ["OUTPOST_TEST_FAULT"] = str(root / "no-fault")
    nursery = Nursery(root / "log")
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def lived(
    nursery: Nursery, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lived, Archive]]:
    archive = Archive()
    root = tmp_path_factory.mktemp("lived")
    house = House(root / "house", nursery, archive, bundle, study={"quiet_seconds": 0.6})
    found = live(house, root / "inputs")
    yield found, archive
    house.kill()
    archive.stop()


@pytest.fixture
def house(lived: tuple[Lived, Archive], nursery: Nursery, bundle: Path, tmp_path: Path) -> Iterator[House]:
    """The service on a copy of that storage, with an archive that holds what was delivered there."""
    made, old = lived
    archive = Archive()
    archive.received = list(old.received)
    archive.start()
    house = House(tmp_path / "house", nursery, archive, bundle)
    shutil.copytree(made.storage, house.storage)
    yield house
    house.kill()
    archive.stop()


def settled(storage: Path) -> Path:
    """The journal with all that its log holds."""
    file = storage / "journal.sqlite3"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


def garbage_in_front(storage: Path) -> None:
    overwrite(settled(storage), 0, random.Random(1).randbytes(100))


def first_page_zeroed(storage: Path) -> None:
    overwrite(settled(storage), 0, bytes(PAGE))


def cut_in_half(storage: Path) -> None:
    file = settled(storage)
    os.truncate(file, file.stat().st_size // 2)


def cut_within_a_page(storage: Path) -> None:
    file = settled(storage)
    os.truncate(file, file.stat().st_size - 5000)


def cut_to_ten_bytes(storage: Path) -> None:
    os.truncate(settled(storage), 10)


def empty(storage: Path) -> None:
    os.truncate(settled(storage), 0)


def empty_beside_its_log(storage: Path) -> None:
    os.truncate(storage / "journal.sqlite3", 0)


def zeros_in_the_middle(storage: Path) -> None:
    file = settled(storage)
    overwrite(file, PAGE * (file.stat().st_size // PAGE // 3), bytes(PAGE * 6))


def studies_zeroed(storage: Path) -> None:
    for page in pages_of(storage, "studies"):
        overwrite(settled(storage), PAGE * (page - 1), bytes(PAGE))


def instances_zeroed(storage: Path) -> None:
    for page in pages_of(storage, "instances"):
        overwrite(settled(storage), PAGE * (page - 1), bytes(PAGE))


def studies_and_instances_zeroed(storage: Path) -> None:
    studies_zeroed(storage)
    instances_zeroed(storage)


def studies_head_flipped(storage: Path) -> None:
    """The tree is gone, the rows are still there."""
    for page in pages_of(storage, "studies"):
        overwrite(settled(storage), PAGE * (page - 1), b"\x99\x99\x99")


def an_index_alone(storage: Path) -> None:
    file = settled(storage)
    with closing(sqlite3.connect(file)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'studies_by_state'").fetchone()
    with file.open("rb") as stream:
        stream.seek(PAGE * (page - 1))
        content = stream.read(PAGE)
    assert b"delivered" in content
    overwrite(file, PAGE * (page - 1), content.replace(b"delivered", b"delivereX"))


def missing(storage: Path) -> None:
    for file in storage.glob("journal.sqlite3*"):
        file.unlink()


def missing_beside_its_log(storage: Path) -> None:
    (storage / "journal.sqlite3").unlink()


def log_lost(storage: Path) -> None:
    (storage / "journal.sqlite3-wal").unlink()
    (storage / "journal.sqlite3-shm").unlink()


def log_of_another(storage: Path) -> None:
    """A write-ahead log of another journal, whose pages would replace ours."""
    other = storage.parent / "other.sqlite3"
    with closing(sqlite3.connect(other)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE strange (value TEXT)")
        db.executemany("INSERT INTO strange VALUES (?)", [("x" * 900,) for _ in range(60)])
        db.commit()
        log = Path(f"{other}-wal").read_bytes()
    settled(storage)
    (storage / "journal.sqlite3-wal").write_bytes(log)


def index_of_log_garbled(storage: Path) -> None:
    (storage / "journal.sqlite3-shm").write_bytes(random.Random(2).randbytes(32768))


def a_folder(storage: Path) -> None:
    missing(storage)
    (storage / "journal.sqlite3").mkdir()


def of_another_program(storage: Path) -> None:
    missing(storage)
    with closing(sqlite3.connect(storage / "journal.sqlite3")) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.commit()


def an_older_copy(storage: Path) -> None:
    """The journal of the time before any study: sound, and behind the files."""
    file = settled(storage)
    with closing(sqlite3.connect(file)) as db:
        for table in ("deliveries", "results", "failures", "instances", "refused", "transfers", "studies"):
            db.execute(f"DELETE FROM {table}")
        db.commit()


def schema_of_nowhere(storage: Path) -> None:
    """A version beyond ours in a file that is damaged as well."""
    file = settled(storage)
    overwrite(file, 60, (77).to_bytes(4, "big"))
    overwrite(file, PAGE * 3, bytes(PAGE * 3))


DAMAGES: list[Callable[[Path], None]] = [
    garbage_in_front,
    first_page_zeroed,
    cut_in_half,
    cut_within_a_page,
    cut_to_ten_bytes,
    empty,
    empty_beside_its_log,
    zeros_in_the_middle,
    studies_zeroed,
    instances_zeroed,
    studies_and_instances_zeroed,
    studies_head_flipped,
    an_index_alone,
    missing,
    missing_beside_its_log,
    log_lost,
    log_of_another,
    a_folder,
    of_another_program,
    an_older_copy,
    schema_of_nowhere,
]


def sizes(folder: Path) -> dict[str, int]:
    """Of the journal's files; its shared memory is nobody's content, and a reader leaves an empty log."""
    found = {path.name: path.stat().st_size for path in folder.glob("journal.sqlite3*") if path.is_file()}
    return {
        name: size
        for name, size in found.items()
        if not name.endswith("-shm") and (size or name.endswith("3"))
    }


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_all_that_files_know_is_in_the_rebuilt_journal(
    damage: Callable[[Path], None], lived: tuple[Lived, Archive], tmp_path: Path
) -> None:
    made, _ = lived
    root = tmp_path / "brain"
    shutil.copytree(made.storage, root)
    damage(root)
    before = sizes(root)

    told = heal(root, "brain", lambda: None, lambda _: None)

    assert told
    with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
        spool = Spool(root, journal, 0)
        assert (spool.reconcile(), Outbox(root).reconcile(journal)) == (0, 0)
        states = {row.study_uid: (row.revision, row.state, row.instances) for row in journal.newest()}
        assert states[made.delivered] == (1, "delivered", 5)
        assert states[made.waiting] == (1, "delivering", 5)
        assert states[made.receiving][:2] in ((1, "receiving"), (1, "complete"))
        assert states[made.rejected] == (1, "rejected", 3)
        assert len(states) == 4
        [waiting] = journal.in_state("delivering")
        assert waiting.model
        assert waiting.rung == "full"
        for result in Outbox(root).files(waiting):
            assert journal.is_result(result.stem)
        assert journal.instances_refused() == {"NOT_DICOM": 1}
        assert not journal.rows("PRAGMA foreign_key_check")
        assert journal.fact("journal_epoch")
    [aside] = (root / "journal-damaged").glob("2*")
    assert sizes(aside) == before
    assert judge(root) is None, "once healed, it is whole"


# All of them by `make damage`: a start of the service takes seconds.
RUN = (
    DAMAGES
    if os.environ.get("OUTPOST_TEST_DAMAGE") == "all"
    else [first_page_zeroed, missing, log_of_another]
)


@pytest.mark.parametrize("damage", RUN, ids=lambda damage: damage.__name__)
def test_the_service_on_a_damaged_journal_comes_to_ready_and_every_study_to_its_end(
    damage: Callable[[Path], None], house: House, lived: tuple[Lived, Archive]
) -> None:
    damage(house.storage)

    house.start()
    house.wait_ready()
    house.wait_quiet()

    checked(house, lived[0])
    found = house.checks()
    assert not found["JOURNAL_WHOLE"]["ok"]
    assert found["JOURNAL_USABLE"]["ok"]
    [told] = [detail for code, detail in house.events() if code == "JOURNAL_REBUILT"]
    [aside] = (house.storage / "journal-damaged").glob("2*")
    assert told.endswith(f"the old journal is in journal-damaged/{aside.name}")
    assert "journal was rebuilt" in house.service.log
    # What was delivered is known by the word beside its images: it is not computed and sent once more.
    assert house.archive.times(lived[0].delivered) == 1
    assert house.archive.times(lived[0].waiting) == 1


def removed(storage: Path) -> None:
    missing(storage)


def replaced(storage: Path) -> None:
    other = storage.parent / "other.sqlite3"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.commit()
    other.replace(storage / "journal.sqlite3")


def cut(storage: Path) -> None:
    os.truncate(storage / "journal.sqlite3", 0)


def overwritten(storage: Path) -> None:
    overwrite(storage / "journal.sqlite3", 0, random.Random(3).randbytes(PAGE))


def log_removed(storage: Path) -> None:
    (storage / "journal.sqlite3-wal").unlink()


UNDER_IT = [removed, log_removed]
if os.environ.get("OUTPOST_TEST_DAMAGE") == "all":
    UNDER_IT += [replaced, cut, overwritten]


@pytest.mark.parametrize("damage", UNDER_IT, ids=lambda one: one.__name__)
def test_a_journal_damaged_under_the_running_service_heals_and_loses_nothing_acknowledged(
    damage: Callable[[Path], None], house: House, lived: tuple[Lived, Archive], tmp_path: Path
) -> None:
    study, files = series(tmp_path / "more")
    house.archive.stop()
    house.start()
    house.wait_ready()
    damage(house.storage)
    with suppress(httpx.HTTPError):
        assert house.service.stow(*files).status_code == 200
    wait_for(lambda: "beginning again" in house.service.log, 40, "the service begins again by itself")
    house.archive.start()

    house.wait_ready(90)
    house.wait_quiet(60)

    assert alive(house.pid), "it is the same process to whoever started it"
    checked(house, lived[0], more=1)
    # Taken before or after: it has one row and its end. The real worker, which the new process has, judges more.
    assert [row["state"] in ENDED for row in house.rows() if row["study_uid"] == study] == [True]
    assert not house.checks()["JOURNAL_WHOLE"]["ok"]


# In the order in which a rebuild comes to them; each is the last step of a life.
STEPS = [
    ("begin:mkdir:after", 1),
    ("begin:mkdir:after", 1),
    ("begin:fsync:before", 2),
    ("put_aside:rename:before", 1),
    ("put_aside:rename:after", 1),
    ("put_aside:fsync:after", 1),
    ("put_aside:fsync:after", 2),
    ("_fill:commit:before", 1),
    ("_fill:commit:after", 1),
    ("rebuild:fsync:before", 1),
    ("rebuild:rename:before", 1),
    ("rebuild:rename:after", 1),
    ("remove:unlink:before", 2),
    ("finish:fsync:before", 1),
]


def test_a_rebuild_that_is_killed_at_any_step_goes_on_and_ends_the_same(
    house: House, lived: tuple[Lived, Archive]
) -> None:
    empty_beside_its_log(house.storage)  # three files to move, and rows that only pages still know
    missed = []
    for step, count in STEPS:
        house.start(step, count)
        wait_for(lambda: not alive(house.pid) or answers(house.service.dicom_port), 40, f"death at {step}")
        if house.told.exists():
            assert house.nursery.wait(house.pid) == -signal.SIGKILL
        else:
            missed.append(step)
            house.kill()

    house.start()
    house.wait_ready()
    house.wait_quiet()

    # A life that begins after the new journal has its name has little left to do.
    assert not missed, house.service.log[-2000:]
    checked(house, lived[0])
    assert len([code for code, _ in house.events() if code == "JOURNAL_REBUILT"]) == 1
    assert not list(house.storage.glob(".journal-*"))
    whole = [
        path for path in (house.storage / "journal-damaged").glob("2*") if (path / "journal.sqlite3").exists()
    ]
    assert len(whole) == 1


def test_a_study_with_new_images_gets_another_revision_and_not_the_old_uids(
    lived: tuple[Lived, Archive], tmp_path: Path
) -> None:
    made, _ = lived
    root = tmp_path / "brain"
    shutil.copytree(made.storage, root)
    _, files = series(tmp_path / "more", slices=1)
    image = dcmread(files[0])
    image.StudyInstanceUID = made.delivered
    image.save_as(root / "spool" / made.delivered / f"{image.SOPInstanceUID}.dcm")
    missing(root)

    heal(root, "brain", lambda: None, lambda _: None)

    with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
        assert [(r.revision, r.state) for r in journal.revisions(made.delivered)] == [
            (1, "delivered"),
            (2, "receiving"),
        ]
        assert journal.revisions(made.delivered)[1].instances == 6
        assert journal.replaced_by(journal.revisions(made.delivered)[1]), "its result says what it replaces"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE studies SET received_at = '2026-13-4' WHERE id = 1",
        "UPDATE studies SET notes = '{[' WHERE id = 1",
        "UPDATE studies SET study_uid = 'x' WHERE id = 1",
        "UPDATE studies SET state = 'deliverfd' WHERE id = 1",
        "UPDATE instances SET revision = 'one' WHERE id = 1",
        "UPDATE instances SET series_uid = x'00' WHERE id = 1",
    ],
)
def test_a_value_that_no_journal_writes_is_damage(
    change: str, lived: tuple[Lived, Archive], tmp_path: Path
) -> None:
    made, _ = lived
    root = tmp_path / "brain"
    shutil.copytree(made.storage, root)
    with closing(sqlite3.connect(settled(root))) as db:
        db.execute(change)
        db.commit()

    found = judge(root)
    assert found is not None
    assert found.reason == "CORRUPT"
    heal(root, "brain", lambda: None, lambda _: None)

    with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
        states = {row.study_uid: row.state for row in journal.newest()}
        assert len(states) == 4
        assert states[made.delivered] == "delivered"
        assert journal.revisions(made.delivered)[0].instances == 5
    assert judge(root) is None


def test_a_result_cut_off_in_the_outbox_is_computed_again_under_its_uid(
    house: House, lived: tuple[Lived, Archive]
) -> None:
    [result] = house.storage.glob("outbox/[0-9]*/*.dcm")
    os.truncate(result, result.stat().st_size * 2 // 3)

    house.start()
    house.wait_ready()
    house.wait_quiet()

    assert house.archive.results_of(lived[0].waiting) == {result.stem}
    assert not house.checks()["FILES_WHOLE"]["ok"]


def test_the_oldest_of_what_was_put_aside_goes_with_an_event(tmp_path: Path) -> None:
    for _ in range(5):
        root = tmp_path / "brain"
        root.mkdir(exist_ok=True)
        (root / "journal.sqlite3").write_bytes(b"no database at all" * 100)
        heal(root, "brain", lambda: None, lambda _: None)
    kept = sorted(path.name for path in (root / "journal-damaged").glob("2*"))
    assert len(kept) == KEPT_FOLDERS
    with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
        [removed] = [event.detail for event in journal.events() if event.code == "JOURNAL_ASIDE_REMOVED"]
        assert removed.startswith("journal-damaged/")


def test_the_command_checks_beside_a_running_service_and_rebuilds_only_without_one(
    house: House, lived: tuple[Lived, Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(house.service.config_file)]
    house.start()
    house.wait_ready()
    assert main(["journal", "check", *config]) == 0
    assert capsys.readouterr().out.startswith("sound")
    assert main(["journal", "rebuild", *config]) == 1
    assert "in use by the running service" in capsys.readouterr().err
    house.wait_quiet()
    house.end()
    an_index_alone(house.storage)
    assert main(["journal", "check", "--json", *config]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "CORRUPT"
    assert main(["journal", "rebuild", *config]) == 0
    assert "kept: 4 studies" in capsys.readouterr().out
    assert main(["journal", "check", *config]) == 0


@pytest.mark.parametrize("damage", [missing, zeros_in_the_middle], ids=lambda one: one.__name__)
def test_region_and_centre_follow_the_rebuilt_journal(
    damage: Callable[[Path], None], lived: tuple[Lived, Archive], tmp_path: Path
) -> None:
    made, _ = lived
    fleet = the_fleet()
    fleet.reset()
    cluster = fleet.regions["chita"].cluster
    root = tmp_path / "brain"
    shutil.copytree(made.storage, root)
    key = "the region's own key"
    settings = Records.model_validate(
        {"host": cluster.host, "port": cluster.port, "password": RECORDER_PASSWORD, "uid_key": key}
    )

    def ship_and_read() -> dict[str, tuple[str, str | None]]:
        with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
            recorder = Recorder(journal, settings, "0.4.0")
            while recorder.ship():
                pass
            recorder._disconnect()
        assert sync_region(fleet.config.centre, fleet.config.sync, "chita").fault is None
        return {row["study_key"]: (row["outcome"], row["reason"]) for row in fleet.held("chita")}

    lost = Instance("1.9.1", "1.9", "1.9.2", "1.2.840.10008.5.1.4.1.1.4", "1.2", "MR", "d", 9, "MR1")
    with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
        journal.add(lost)  # its file is nowhere: only Postgres still knows it
    before = ship_and_read()
    assert before[study_key(key, "1.9")] == ("pending", None)
    damage(root)
    heal(root, "brain", lambda: None, lambda _: None)

    after = ship_and_read()

    known = {
        study_key(key, uid): uid for uid in (made.delivered, made.waiting, made.receiving, made.rejected)
    }
    assert {after[one] == before[one] for one in known} == {True}
    assert len(after) == 5, "nothing is there twice"
    if damage is missing:
        assert after[study_key(key, "1.9")] == ("quarantined", "JOURNAL_LOST_IT")
    with closing(Journal(root / "journal.sqlite3", "brain")) as journal:
        row = next(r for r in journal.newest() if r.study_uid == made.receiving)
        if row.state == "receiving":
            journal.complete(row.row)
        journal.begin_inference(row.row)
        journal.finish(row.row, "quarantined", "WORKER_TIMEOUT")
    assert ship_and_read()[study_key(key, made.receiving)] == ("quarantined", "WORKER_TIMEOUT")
