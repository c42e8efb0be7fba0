"""Every file of its own that the service reads at its start, damaged in every way: it becomes ready and says so."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from healing import Archive, House, make_bundle, series
from killing import Nursery, alive
from running import answers, wait_for

from outpost.drift.book import Book
from outpost.drift.shelf import Shelf

RULES = "rules:\n  - {name: mr, require: {tag: Modality, equals: MR}, code: MODALITY_UNWANTED}\n"
# Root without the right to read what it may not.
_UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    root = tmp_path_factory.mktemp("nursery")
    os.environ["OUTPOST_TEST_FAULT"] = str(root / "no-fault")
    nursery = Nursery(root / "log", _UNPRIVILEGED if os.geteuid() == 0 else ())
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    archive = Archive()
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture(scope="module")
def kept(nursery: Nursery, archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with every file that a start reads, but the journal's own (test_journal_heals.py)."""
    root = tmp_path_factory.mktemp("kept")
    house = House(
        root / "house", nursery, archive, make_bundle(root / "bundle"), filter={"rules": str(root / "f.yaml")}
    )
    (root / "f.yaml").write_text(RULES)
    house.start()
    house.wait_ready()
    house.end()
    today = datetime.now(UTC).date()
    shelf = Shelf(house.storage / "drift")
    for days in (0, 1, 40):
        book = Book()
        day = today - timedelta(days=days)
        for _ in range(30):
            book.add(f"chita/brain/{day}", "MR1", {"Modality": "MR", "Rows": 16})
        shelf.put_day(day, book)
    shelf.freeze(book)
    (house.storage / "drift" / "alarms.json").write_text(
        json.dumps({"judged": None, "reference": "", "alarms": []})
    )
    (house.storage / "drift" / "months" / "2026-01.gz").write_bytes(book.encode())
    (house.storage / "engines").mkdir(exist_ok=True)
    (house.storage / "engines" / "brain_extraction.json").write_text(
        json.dumps({"format": 1, "key": {}, "chosen": {}})
    )
    (house.storage / "journal-damaged").mkdir()
    (house.storage / "journal-damaged" / "times.json").write_text("[]")
    return root


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size or 64))


def garbled(file: Path) -> None:
    file.write_bytes(random.Random(file.name).randbytes(300))


def of_another_version(file: Path) -> None:
    """Sound, and of a release to come: other keys, other types."""
    if file.suffix == ".gz":
        import gzip

        file.write_bytes(gzip.compress(json.dumps({"outpost_drift": 99, "parts": [], "senders": 7}).encode()))
    elif file.suffix == ".yaml":
        file.write_text("version: 99\nrules: {deep: [1, 2]}\n")
    else:
        file.write_text(json.dumps({"version": 99, "format": 99, "alarms": {"a": 1}, "judged": 7}))


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def deeply_nested(file: Path) -> None:
    file.write_text("[" * 100_000)


def not_ours_to_read(file: Path) -> None:
    file.chmod(0)


# All of them by `make damage`: a start of the service takes seconds.
KINDS: list[Callable[[Path], None]] = [garbled, of_another_version, a_folder, not_ours_to_read]
if os.environ.get("OUTPOST_TEST_DAMAGE") == "all":
    KINDS += [truncated, emptied, zeroed, deeply_nested]


@pytest.mark.parametrize("damage", KINDS, ids=lambda one: one.__name__)
def test_a_start_with_every_file_damaged_comes_to_ready_and_tells_of_each(
    damage: Callable[[Path], None], kept: Path, nursery: Nursery, archive: Archive, tmp_path: Path
) -> None:
    rules = tmp_path / "f.yaml"
    house = House(tmp_path / "house", nursery, archive, kept / "bundle", filter={"rules": str(rules)})
    shutil.copytree(kept / "house" / "brain", house.storage)
    rules.write_text(RULES)
    storage = house.storage
    drift = storage / "drift"
    read = [
        *sorted(drift.glob("days/*.gz")),
        *sorted(drift.glob("months/*.gz")),
        drift / "reference.gz",
        drift / "alarms.json",
        storage / "engines" / "brain_extraction.json",
    ]
    assert len(read) == 7
    for file in [*read, rules, storage / "journal-damaged" / "times.json"]:
        damage(file)
    if damage is a_folder:
        (storage / ".lock").unlink()
        (storage / ".lock").mkdir()
        (storage / "spool" / ".incoming" / "half.dcm").mkdir()

    study, files = series(tmp_path / "study")
    house.start()
    house.wait_ready()
    assert house.service.stow(*files).status_code == 200
    assert house.service.wait_outcome(study)["outcome"] == "delivered"

    checks = house.checks()
    # Books of days beyond the window are read when somebody looks.
    assert house.service.http.get("/drift/page").status_code == 200
    told = "\n".join(detail for code, detail in house.events() if code == "FILE_PUT_ASIDE") + str(
        house.checks()["FILES_WHOLE"]
    )
    for name in ("alarms.json", "brain_extraction.json", f"{datetime.now(UTC).date()}.gz"):
        if damage is of_another_version and name == "brain_extraction.json":
            continue  # it is what an earlier release measured, or a later one: measured again
        assert f"{name}: " in told or name in house.service.log, f"{name} is told of: {told}"
    assert not checks["FILES_WHOLE"]["ok"]
    if damage is not emptied:  # an empty rule file is one: what is built in judges
        assert not checks["FILTER_RULES"]["ok"]
        assert "goes on judging" in house.service.log
    if damage not in (not_ours_to_read, emptied):
        assert list(drift.glob("alarms.json.damaged-*"))
    assert house.end() == 0


def test_a_journal_of_a_newer_release_is_refused_with_the_remedy_and_not_touched(
    kept: Path, nursery: Nursery, archive: Archive, tmp_path: Path
) -> None:
    house = House(tmp_path / "house", nursery, archive, kept / "bundle")
    shutil.copytree(kept / "house" / "brain", house.storage)
    file = house.storage / "journal.sqlite3"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 99")
    before = file.read_bytes()

    house.start()

    assert house.nursery.wait(house.pid) == 1
    assert "has schema 99, this release knows" in house.service.log
    assert "install the release that wrote it" in house.service.log
    assert "Traceback" not in house.service.log
    assert file.read_bytes() == before
    assert not list((house.storage / "journal-damaged").glob("2*"))


def unreadable(storage: Path) -> Callable[[], None]:
    (storage / "journal.sqlite3").chmod(0)
    return lambda: (storage / "journal.sqlite3").chmod(0o600)


def not_writable(storage: Path) -> Callable[[], None]:
    (storage / "journal.sqlite3").chmod(0o400)
    return lambda: (storage / "journal.sqlite3").chmod(0o600)


def a_link_to_nowhere(storage: Path) -> Callable[[], None]:
    file, elsewhere = storage / "journal.sqlite3", storage.parent / "not-mounted" / "journal.sqlite3"
    elsewhere.parent.mkdir()
    (storage / "journal.sqlite3").rename(storage.parent / "kept.sqlite3")
    file.symlink_to(elsewhere)

    def mount() -> None:
        (storage.parent / "kept.sqlite3").rename(elsewhere)

    return mount


@pytest.mark.parametrize(
    "hinder", [unreadable, not_writable, a_link_to_nowhere], ids=lambda one: one.__name__
)
def test_what_is_only_in_the_way_is_told_waited_for_and_no_damage(
    hinder: Callable[[Path], Callable[[], None]],
    kept: Path,
    nursery: Nursery,
    archive: Archive,
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house", nursery, archive, kept / "bundle")
    shutil.copytree(kept / "house" / "brain", house.storage)
    mend = hinder(house.storage)

    house.start()

    def told() -> str:
        assert alive(house.pid), house.service.log
        if not answers(house.service.http_port):
            return ""
        [check] = house.service.http.get("/health/light").json()["checks"]
        assert (check["code"], check["ok"]) == ("JOURNAL_USABLE", False)
        return str(check["value"])

    text = wait_for(told, 30, "it says why it is not ready")
    assert "nothing was changed" in text
    assert house.service.http.get("/v2/health/ready").status_code == 503
    assert house.service.http.get("/v2/health/live").status_code == 200
    mend()
    house.wait_ready()
    assert not list((house.storage / "journal-damaged").glob("2*"))
    assert house.checks()["JOURNAL_WHOLE"]["ok"]
    assert house.end() == 0


def test_a_rebuild_that_finds_the_disk_full_waits_for_room_and_goes_on(
    kept: Path, nursery: Nursery, archive: Archive, tmp_path: Path
) -> None:
    house = House(tmp_path / "house", nursery, archive, kept / "bundle", intake={"disk_reserve_mib": 0})
    house.storage.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", house.storage], check=True)
    try:
        shutil.copytree(kept / "house" / "brain", house.storage, dirs_exist_ok=True)
        with (house.storage / "journal.sqlite3").open("r+b") as file:
            file.write(bytes(200))
        with suppress(OSError), (house.storage / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
        house.start()
        told = house.service.log_file
        wait_for(
            lambda: told.exists() and "free space on its file system" in told.read_text(), 30, "what to do"
        )
        wait_for(lambda: answers(house.service.http_port), 10, "the port answers")
        assert house.service.http.get("/v2/health/ready").status_code == 503
        (house.storage / "filler").unlink()
        house.wait_ready()
        assert [code for code, _ in house.events()].count("JOURNAL_REBUILT") == 1
        house.end()
    finally:
        house.kill()
        subprocess.run(["umount", "--lazy", house.storage], check=True)
