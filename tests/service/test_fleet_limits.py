"""What the centre's page asks its database: no longer than somebody waits, never more at once than it bears."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from fleet_serving import BEARER, Page, serving
from postgres_cluster import Cluster, Fleet, the_fleet

from outpost import errand
from outpost.errand import Abandoned, Errand
from outpost.fleet.asking import asking
from outpost.fleet.sync import CentreError, sync_region

SOON = 3.0  # seconds within which a query ends after its client; statement_timeout is 10
ROUTES = ("/", "/health.json", "/freshness.json", "/studies.json?limit=1000", "/metrics")


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    fleet = the_fleet()
    fleet.reset()
    return fleet


@pytest.fixture(scope="module")
def page(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serving(fleet, tmp_path_factory.mktemp("limits")) as page:
        yield page


def at_work(cluster: Cluster, name: str = "fleet page") -> int:
    """Sessions of this application name that a server has."""
    with cluster.superuser("postgres") as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = %s", (name,)
        ).fetchone()
    assert row is not None
    return int(str(row["n"]))


def within(seconds: float, probe: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


@contextmanager
def held(fleet: Fleet) -> Iterator[None]:
    """A lock, as a restore or a migration takes it, on what every page reads."""
    tables = "fleet.settings, fleet.regions, fleet.sync"
    with fleet.centre.superuser("fleet") as connection:
        for attempt in range(10):
            # The collector may hold the last of them and wait for the first: one of the two then starts again.
            try:
                connection.execute("BEGIN")
                connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
                break
            except psycopg.errors.DeadlockDetected:
                connection.execute("ROLLBACK")
                if attempt == 9:
                    raise
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that hang, as on a host whose disk does not answer."""
    for pid in pids:
        with suppress(ProcessLookupError):  # PostgreSQL's workers come and go
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_free(page: Page, fleet: Fleet) -> None:
    within(5, lambda: page.get("/").status_code == 200, "the page answers again")
    within(5, lambda: at_work(fleet.centre) == 0, "no session is left")


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["closed", "reset"])
def test_a_client_that_has_gone_leaves_no_query_behind(
    page: Page, fleet: Fleet, leave: Callable[[socket.socket], None]
) -> None:
    with held(fleet):
        # From two addresses: one has three quarters of the turns at most.
        clients = [page.ask(path, f"127.0.0.{1 + number % 2}") for number, path in enumerate(ROUTES)]
        within(5, lambda: at_work(fleet.centre) == len(ROUTES), "every route asks")
        for client in clients:
            leave(client)
        within(SOON, lambda: at_work(fleet.centre) == 0, "the queries end with their clients")
    is_free(page, fleet)


def test_reloading_again_and_again_piles_up_no_queries(page: Page, fleet: Fleet) -> None:
    most = 0
    with held(fleet):
        for _ in range(40):
            client = page.ask("/")
            most = max(most, at_work(fleet.centre))
            client.close()
        waiting = [page.ask("/") for _ in range(12)]
        within(5, lambda: at_work(fleet.centre) == 3, "three are asked at once by one address")
        waiting += [page.ask("/", "127.0.0.2") for _ in range(4)]
        within(5, lambda: at_work(fleet.centre) == 4, "the fourth turn is for others")
        most = max(most, at_work(fleet.centre))
        for client in waiting:
            client.close()
        within(SOON, lambda: at_work(fleet.centre) == 0, "nor do those that waited for their turn")
    assert most <= 8, "those that end are still seen for a moment"
    is_free(page, fleet)


def test_a_service_that_is_killed_leaves_no_query_behind(fleet: Fleet, tmp_path: Path) -> None:
    with serving(fleet, tmp_path) as page, held(fleet):
        client = page.ask("/")
        within(5, lambda: at_work(fleet.centre) == 1, "it asks")
        page.process.kill()
        within(SOON, lambda: at_work(fleet.centre) == 0, "the server looks whether its client is there")
        client.close()


def test_health_asks_the_database_once_however_many_ask_it(page: Page, fleet: Fleet) -> None:
    most = 0
    with ThreadPoolExecutor(20) as pool:
        with held(fleet):
            answers = [pool.submit(page.get, "/health") for _ in range(20)]
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                most = max(most, at_work(fleet.centre, "fleet health"))
                time.sleep(0.02)
        statuses = {answer.result().status_code for answer in answers}
    assert most == 1
    assert statuses == {200}


def test_a_database_that_hangs_in_the_middle_is_an_answer_in_words(fleet: Fleet) -> None:
    began = time.monotonic()
    with (
        pytest.raises(CentreError, match="look at PostgreSQL on the centre's host"),
        asking(fleet.config.centre, "page", 1) as connection,
        stopped(connection.info.backend_pid),
    ):
        connection.execute("SELECT 1")
    assert 0.8 < time.monotonic() - began < 4
    within(SOON, lambda: at_work(fleet.centre) == 0, "it ends as soon as it goes on")


@pytest.mark.parametrize(
    "statement",
    ["SELECT pg_sleep(60)", "SELECT count(*) FROM generate_series(1, 10000000000)"],
    ids=["waits", "computes"],
)
def test_a_statement_is_bounded_by_the_server_too(fleet: Fleet, statement: str) -> None:
    began = time.monotonic()
    with pytest.raises(CentreError, match="within 1 s"), asking(fleet.config.centre, "page", 1) as connection:
        connection.execute(statement)
    assert time.monotonic() - began < 4
    within(SOON, lambda: at_work(fleet.centre) == 0, "it ended")


def test_who_looks_changes_nothing(fleet: Fleet) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), asking(fleet.config.centre, "page") as asked:
        asked.execute("DELETE FROM fleet.summary")


def abandoned(fleet: Fleet, statement: str, seen: Callable[[], bool]) -> None:
    """Ask on an errand, and go once the question is at work."""
    work, ended = Errand(None), threading.Event()

    def ask() -> None:
        with errand.of(work), asking(fleet.config.centre, "page", 60) as connection:
            connection.execute(statement)

    def run() -> None:
        try:
            ask()
        except Abandoned:
            ended.set()

    asker = threading.Thread(target=run)
    asker.start()
    within(5, seen, "it is asked")
    work.stop()
    asker.join(10)
    assert ended.is_set()


@pytest.mark.parametrize(
    "statement", ["SELECT pg_sleep(60)", "SELECT count(*) FROM generate_series(1, 1e10)"]
)
def test_it_does_not_matter_what_the_query_is_at(fleet: Fleet, statement: str) -> None:
    abandoned(fleet, statement, lambda: at_work(fleet.centre) == 1)
    within(SOON, lambda: at_work(fleet.centre) == 0, "it ends")


def test_a_question_to_a_region_that_is_slow_ends_there_as_well(fleet: Fleet) -> None:
    chita = fleet.regions["chita"].cluster
    with chita.superuser("outpost") as connection, connection.transaction():
        connection.execute("LOCK TABLE outpost.studies IN ACCESS EXCLUSIVE MODE")
        abandoned(fleet, "SELECT count(*) FROM region_chita.studies_v3", lambda: waiting_at(chita) == 1)
        within(SOON, lambda: at_work(fleet.centre) == 0, "at the centre")
        within(SOON, lambda: waiting_at(chita) == 0, "and in the region")


def waiting_at(cluster: Cluster) -> int:
    with cluster.superuser("postgres") as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'fleet_reader' AND wait_event_type = 'Lock'"
        ).fetchone()
    assert row is not None
    return int(str(row["n"]))


def test_a_region_that_hangs_holds_up_no_page(page: Page, fleet: Fleet) -> None:
    chita = fleet.regions["chita"].cluster
    main = int((chita.data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    with stopped(main, *map(int, children)):
        reading = threading.Thread(
            target=lambda: sync_region(fleet.config.centre, fleet.config.sync, "chita"), daemon=True
        )
        reading.start()
        time.sleep(0.5)
        for path in ROUTES * 4:
            began = time.monotonic()
            assert page.get(path).status_code == 200
            assert time.monotonic() - began < 5, path
        within(2, lambda: at_work(fleet.centre) == 0, "no page is left waiting")
        readers = at_work(fleet.centre, "fleet collector chita")
        assert readers <= 2, "this one's and the service's own"
    reading.join(30)
    assert not reading.is_alive()


def test_the_page_has_the_limits_of_a_systems_api(page: Page, fleet: Fleet) -> None:
    assert httpx.post(f"{page.url}/", headers=BEARER, content=b"x" * (2 << 20)).status_code == 413
    assert page.get("/?" + "x" * 9000).status_code == 414
    assert page.get("/", headers={f"x-{n}": "1" for n in range(120)}).status_code == 431
    silent = []
    for _ in range(300):
        with suppress(
            ConnectionResetError
        ):  # there is no room for all of them; some are told before connect() returns
            silent.append(socket.create_connection(("127.0.0.1", page.port), timeout=10))
    for client in silent[::3]:
        with suppress(OSError):
            client.sendall(b"GET / HTTP/1.1\r\nHo")
    assert page.get("/health").status_code == 200
    assert page.get("/").status_code in (200, 503), "its own address has used its share"
    with httpx.Client(
        transport=httpx.HTTPTransport(local_address="127.0.0.9"), headers=BEARER, timeout=20
    ) as other:
        assert other.get(page.url).status_code == 200
    for client in silent:
        client.close()
    within(5, lambda: at_work(fleet.centre) == 0, "who never asked has nothing asked for")
