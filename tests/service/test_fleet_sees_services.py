"""The real service, its region's real database and a real centre: what becomes of a service is seen at the centre.

Short periods; tests/service/test_fleet_health.py holds the arithmetic of the default ones.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from postgres_cluster import RECORDER_PASSWORD, Fleet, the_fleet
from pydicom.data import get_testdata_file
from running import BUNDLE, Service, StoreScp, wait_for
from switchable import SwitchableService

from outpost.config import Config, load
from outpost.fleet.sync import prepare, sync_region
from outpost.health.heartbeat import tell_cannot_start

SECONDS = 90.0  # generous: the machine is shared; a test goes on as soon as it is seen
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = the_fleet()
    fleet.reset()
    prepare(fleet.config.centre, 1)
    fleet.ask("UPDATE fleet.settings SET heartbeat_grace_seconds = 3")
    yield fleet
    fleet.ask("UPDATE fleet.settings SET heartbeat_grace_seconds = 15, period_seconds = 10")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StoreScp]:
    pacs = StoreScp(tmp_path / "pacs").start()
    yield pacs
    pacs.stop()


@pytest.fixture
def service(tmp_path: Path, fleet: Fleet, pacs: StoreScp) -> Iterator[Service]:
    service = Service(tmp_path / "service", [("PACS", pacs.port)], **sections(fleet))
    yield service
    if service.process is not None and service.process.poll() is None:
        service.process.send_signal(signal.SIGCONT)
    service.stop()


def sections(fleet: Fleet, **more: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration: records in the region's database, with quick heartbeats."""
    records = {
        "enabled": True,
        "host": fleet.regions["chita"].cluster.host,
        "password": RECORDER_PASSWORD,
        "uid_key": "k" * 32,
        "heartbeat_seconds": 1,
    }
    return {"records": records, "inference": {"bundle": str(BUNDLE), "workers": 1}} | more


# What this machine, shared and small, may truly be told of at any time: not what a test is about.
OF_THE_MACHINE = {"GOLDEN_SPEED", "GOLDEN_CRAWLS", "SYNC_PROMPT", "MEMORY_SHARE", "MEMORY_FITS", "RELEASE_HALF",
                  "STARTS", "DISK_NEAR"}  # fmt: skip


def line(fleet: Fleet) -> dict[str, Any]:
    """What the centre says of the service now, having just read its region."""
    sync_region(fleet.config.centre, fleet.config.sync, "chita")
    fleet.ask("SELECT fleet.note_health()")
    return fleet.ask("SELECT * FROM fleet.health WHERE region = 'chita'")[0]


def seen(fleet: Fleet, what: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    last: dict[str, Any] = {}

    def probe() -> dict[str, Any] | None:
        nonlocal last
        last = line(fleet)
        return last if condition(last) else None

    try:
        found: dict[str, Any] = wait_for(probe, SECONDS, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; last: {last}") from None
    return found


def well(row: dict[str, Any]) -> bool:
    return row["status"] is not None and not set(row["codes"]) - OF_THE_MACHINE


def has(code: str, *colours: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: code in row["codes"] and row["colour"] in (colours or ("amber", "red"))


def test_a_service_that_works_hangs_goes_on_and_ends_is_seen_as_that(fleet: Fleet, service: Service) -> None:
    service.start()
    seen(fleet, "a service that warms up is not green", lambda row: row["colour"] == "red")
    service.wait_ready()
    row = seen(fleet, "the service works", well)
    assert (row["bundle"], row["rung"], row["ready"], row["queue"], row["outbox"]) == (
        "brain_extraction",
        "full",
        True,
        0,
        0,
    )
    assert row["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    assert service.process is not None
    os.killpg(service.process.pid, signal.SIGSTOP)
    row = seen(fleet, "it hangs", has("SILENT", "red"))
    assert "the service is stopped or hangs" in row["reasons"]
    assert "служба остановлена или зависла" in row["reasons_ru"]
    assert fleet.freshness("chita")["state"] == "fresh", "its database is alive"
    assert "no heartbeat" in str(fleet.freshness("chita")["reason"])
    os.killpg(service.process.pid, signal.SIGCONT)
    seen(fleet, "it goes on", lambda row: "SILENT" not in row["codes"])

    service.stop()
    seen(fleet, "it has ended", has("SILENT", "red"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as storage.root of a service."""
    folder = tmp_path / "switchable" / "brain"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def switchable(
    small_disk: Path, fleet: Fleet, pacs: StoreScp, request: pytest.FixtureRequest
) -> Iterator[SwitchableService]:
    """A service with one worker whose model fails as a test wants it, on a disk that is easily filled.

    It has two rungs, or those of the sizes a test names.
    """
    more = sections(
        fleet,
        inference={
            "workers": 1,
            "golden_period_seconds": 1,
            "ladder": {"deaths_allowed": 2, "climb_after_seconds": 3600, "receive_only_retry_seconds": 2},
        },
        intake={"disk_reserve_mib": 20},
    )
    more["intake"] |= {"listen": "127.0.0.1"}
    service = SwitchableService(
        small_disk.parent, [("PACS", pacs.port)], sizes=getattr(request, "param", (256, 128)), **more
    )
    yield service
    service.stop()


def test_a_reduced_rung_a_full_disk_a_hung_pipeline_and_a_broken_journal_are_seen(
    fleet: Fleet, switchable: SwitchableService
) -> None:
    switchable.fault("torch-oom", at=[256], golden=True)
    switchable.start()
    row = seen(fleet, "the rung is reduced", has("LADDER_REDUCED"))
    row = seen(fleet, "and nothing else", lambda row: row["colour"] == "amber" and row["ready"])
    assert "reduced rung size-128" in row["reasons"]
    assert "на пониженной ступени size-128" in row["reasons_ru"]

    filler = switchable.storage / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:  # truly full: not a byte more fits
            file.write(bytes(1 << 16))
    row = seen(fleet, "the disk is full", has("DISK_RESERVE", "red"))
    assert "0 MiB free of the 20 MiB" in row["reasons"]
    assert (row["status"], row["ready"]) == ("failed", False)
    filler.unlink()
    seen(fleet, "there is room again", lambda row: "DISK_RESERVE" not in row["codes"])

    # A deadlock of all who use the journal: the service still says that it hangs.
    blocker = sqlite3.connect(switchable.storage / "journal.sqlite3", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    image = get_testdata_file("CT_small.dcm", download=False)
    with subprocess.Popen(
        ["/usr/bin/storescu", "127.0.0.1", str(switchable.dicom_port), str(image)]
    ) as sender:
        row = seen(fleet, "the pipeline hangs", has("PIPELINE_TICKING", "red"))
        assert "the pipeline hangs" in row["reasons"]
        blocker.execute("ROLLBACK")
        sender.wait(60)
    blocker.close()
    seen(fleet, "it goes on", lambda row: "PIPELINE_TICKING" not in row["codes"])

    # Not a journal any more, under the feet of the service: seen within a minute, or healed.
    journal = switchable.storage / "journal.sqlite3"
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.write(os.urandom(size))
    for suffix in ("-wal", "-shm"):
        Path(f"{journal}{suffix}").write_bytes(b"")

    def red_or_sound(row: dict[str, Any]) -> bool:
        red = row["colour"] == "red" and bool({"JOURNAL_ANSWERS", "SILENT"} & set(row["codes"]))
        return red or journal.read_bytes()[:15] == b"SQLite format 3"

    seen(fleet, "the broken journal", red_or_sound)


@pytest.mark.parametrize("switchable", [(256,)], indirect=True)
def test_one_that_only_receives_is_red_and_a_database_that_was_away_is_written_again(
    fleet: Fleet, switchable: SwitchableService
) -> None:
    # No worker at any rung lives through its golden case.
    switchable.fault("kill", golden=True)
    switchable.start()
    row = seen(fleet, "it only receives", has("RECEIVE_ONLY", "red"))
    assert "only receives, computes nothing (" in row["reasons"]
    assert row["receive_only"]

    chita = fleet.regions["chita"].cluster
    chita.stop("immediate")
    row = seen(fleet, "its database is away", has("UNREAD"))
    assert "PostgreSQL is not running there" in row["reasons"]
    chita.start()
    switchable.fault(None)
    row = seen(
        fleet,
        "beats are written again, and it computes again",
        lambda row: row["status"] == "ok" or row["ready"],
    )
    assert not {"UNREAD", "SILENT", "RECEIVE_ONLY"} & set(row["codes"])


def test_a_wrong_clock_of_the_host_or_of_its_service_is_said_with_how_wrong_it_is(
    fleet: Fleet, switchable: SwitchableService
) -> None:
    switchable.start({"LD_PRELOAD": str(FAKETIME), "FAKETIME": "-3h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    row = seen(fleet, "the service's clock is behind", has("CLOCK", "red"))
    assert "its clock is 3 h behind the centre's" in row["reasons"]
    assert "часы отстают от часов центра на 3 ч" in row["reasons_ru"]
    switchable.stop()

    chita = fleet.regions["chita"].cluster
    chita.stop("fast")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+1d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    chita.start(fake)
    try:
        fleet.regions["chita"].beat()
        row = seen(fleet, "the database's clock is ahead", has("CLOCK", "red"))
        assert "its clock is 24 h ahead of the centre's" in row["reasons"]
        assert "SILENT" not in row["codes"], "what it wrote just now is new, whatever its clock says"
        time.sleep(5)
        row = line(fleet)
        assert float(row["beat_age_seconds"]) > 4, "and is not young for a day"
    finally:
        chita.stop("fast")
        chita.start()
    fleet.regions["chita"].beat(period_seconds=1)
    row = line(fleet)
    assert "CLOCK" not in row["codes"]


def test_a_service_that_cannot_start_says_so_before_it_ends(fleet: Fleet, service: Service) -> None:
    with socket.create_server(("127.0.0.1", service.dicom_port)):
        ended = subprocess.run(
            [sys.executable, "-m", "outpost.cli", "serve", "--config", str(service.config_file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode != 0
    assert "intake.dicom_port: cannot listen" in ended.stderr
    row = seen(fleet, "it cannot start", has("CANNOT_START", "red"))
    assert "the service cannot start" in row["reasons"]
    assert "служба не запускается" in row["reasons_ru"]

    config = load(service.config_file, Config)
    tell_cannot_start(config, "0.1.0", sqlite3.DatabaseError("file is not a database"))
    row = seen(fleet, "of its journal", has("JOURNAL_BROKEN", "red"))
    assert "its journal cannot be read" in row["reasons"]
