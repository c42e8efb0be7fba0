"""`outpost fleet` as systemd runs it: a process of its own, its page, its signs of life, and the table."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import fleet_serving
import httpx
import pytest
import yaml
from fastapi.routing import APIRoute
from fleet_serving import TOKEN, environment
from postgres_cluster import NET, Fleet, the_fleet
from prometheus_client.parser import text_string_to_metric_families
from running import free_port
from starlette.routing import Route

from outpost.config import load
from outpost.fleet.app import OPEN, create_app
from outpost.fleet.collector import Collector
from outpost.fleet.config import FleetConfig
from outpost.web.page import NOTHING

COMMAND = [sys.executable, "-m", "outpost.cli", "fleet"]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = the_fleet()
    fleet.reset()
    yield fleet
    if not (fleet.centre.data / "postmaster.pid").exists():
        fleet.centre.start()


def write_config(fleet: Fleet, directory: Path, port: int = 8090, **centre: object) -> Path:
    return fleet_serving.write_config(fleet, directory / "fleet.yaml", port, centre)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass
class Served:
    """A running `outpost fleet serve`: its HTTP client, its process, what it told systemd."""

    http: httpx.Client
    process: subprocess.Popen[str]
    notify: socket.socket

    def forget(self) -> None:
        """Pass over what systemd has been told so far."""
        self.notify.setblocking(False)
        with suppress(BlockingIOError):
            while self.notify.recv(4096):
                pass

    def hears(self, message: str, seconds: float = 10) -> bool:
        """Whether systemd is told this within the time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.notify.settimeout(left)
            with suppress(TimeoutError):
                if self.notify.recv(4096).decode() == message:
                    return True
        return False

    def wait_for(self, path: str, wanted: int, seconds: float = 15) -> httpx.Response:
        deadline = time.monotonic() + seconds
        while True:
            answer = self.http.get(path)
            if answer.status_code == wanted:
                return answer
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)


@pytest.fixture
def served(fleet: Fleet, tmp_path: Path) -> Iterator[Served]:
    now = datetime.now(UTC)
    fleet.regions["chita"].write(1, 2)
    fleet.regions["chita"].write(
        3, finished_at=now, notes=["STUDY_PARTIAL", "RESULT_DOUBTFUL"], partial=True, doubtful=True
    )
    fleet.regions["tver"].write(
        1, outcome="rejected", reason="NO_SERIES_FOR_BUNDLE", model=None, model_version=None, rung=None
    )
    fleet.attach("ghost", title="<b>Ghost</b>")
    # It reads every second; on a busy machine a reading may be late by more than one.
    fleet.ask("UPDATE fleet.settings SET late_after_periods = 20")
    fleet.regions["chita"].beat()
    port = free_port()
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify.sock"))
    process = subprocess.Popen(
        [*COMMAND, "serve", "--config", str(write_config(fleet, tmp_path, port))],
        env=environment(NOTIFY_SOCKET=str(tmp_path / "notify.sock"), WATCHDOG_USEC="3000000"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15, headers=bearer) as http:
            notify.settimeout(20)
            assert notify.recv(100) == b"READY=1"
            yield Served(http, process, notify)
    finally:
        process.terminate()
        process.wait(20)
        notify.close()
        if (fleet.centre.data / "postmaster.pid").exists():
            fleet.ask("UPDATE fleet.settings SET late_after_periods = 2")


def regions(served: Served) -> dict[str, dict[str, object]]:
    return {row["region"]: row for row in served.http.get("/freshness.json").json()["regions"]}


def test_the_service_syncs_by_itself_and_shows_it_as_page_json_metrics_and_table(
    served: Served, fleet: Fleet, tmp_path: Path
) -> None:
    deadline = time.monotonic() + 15
    while {row["state"] for code, row in regions(served).items() if code != "ghost"} != {"fresh"}:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    while not regions(served)["ghost"]["error_class"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    said = "1 of 4 regions work (3 red); data of 3 fresh (1 never)"
    while served.http.get("/freshness.json").json()["statement"] != said:
        assert time.monotonic() < deadline, served.http.get("/freshness.json").text
        time.sleep(0.2)
    assert "refuses connections" in str(regions(served)["ghost"]["reason"])

    studies = served.http.get("/studies.json", params={"region": "tver"}).json()
    assert [(row["region"], row["outcome"], row["reason"]) for row in studies["studies"]] == [
        ("tver", "rejected", "NO_SERIES_FOR_BUNDLE")
    ]
    assert {(row["region"], row["outcome"], row["studies"]) for row in studies["summary"]} == {
        ("chita", "delivered", 3),
        ("tver", "rejected", 1),
    }
    assert studies["statement"] == said
    assert served.http.get("/studies.json", params={"limit": 0}).status_code == 422

    told = {row["region"]: row for row in studies["marked"]}
    assert [told[code]["partial_day"] for code in ("chita", "tver", "ghost")] == [1, 0, None]
    assert (told["chita"]["newest_notes"], told["ghost"]["told"]) == (
        ["STUDY_PARTIAL", "RESULT_DOUBTFUL"],
        False,
    )
    newest = served.http.get("/studies.json", params={"region": "chita", "limit": 3}).json()["studies"]
    assert sorted((row["partial"], row["doubtful"]) for row in newest) == [(False, False)] * 2 + [
        (True, True)
    ]

    page = served.http.get("/").text
    assert page.count("partial, doubtful") == 2, "the newest of its region, and its own line"
    assert "not told" in page
    assert said in page
    assert "Работают 1 из 4 регионов (не работает: 3)" in served.http.get("/?lang=ru").text
    russian = served.http.get("/", headers={"Accept-Language": "ru-RU,ru;q=0.9"}).text
    assert "ни разу не отвечал" in russian
    assert "соединение отклонено" in russian

    told_health = {row["region"]: row for row in served.http.get("/health.json").json()["systems"]}
    assert (told_health["chita"]["colour"], told_health["chita"]["why"]) == ("green", [])
    assert (told_health["tver"]["colour"], told_health["tver"]["codes"]) == ("red", ["NO_HEARTBEAT"])
    assert "refuses connections" in told_health["ghost"]["reasons"]
    assert "&lt;b&gt;Ghost&lt;/b&gt;" in page
    assert "<b>Ghost" not in page
    assert 'http-equiv="refresh"' in page
    for outside in ("src=", "http://", "https://", "@import", "<script"):
        assert outside not in page

    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(served.http.get("/metrics").text)
        for s in family.samples
    }
    assert samples["outpost_fleet_database_up", ()] == 1
    of_chita, of_tver = (("region", "chita"), ("system", "brain")), (("region", "tver"), ("system", ""))
    assert samples["outpost_fleet_health", (("colour", "green"), *of_chita)] == 1
    assert samples["outpost_fleet_health", (("colour", "green"), *of_tver)] == 0
    assert samples["outpost_fleet_health", (("colour", "red"), *of_tver)] == 1
    assert samples["outpost_fleet_health_reason", (("code", "NO_HEARTBEAT"), *of_tver)] == 1
    assert 0 <= samples["outpost_fleet_heartbeat_age_seconds", of_chita] < 60
    assert samples["outpost_fleet_region_state", (("region", "chita"), ("state", "fresh"))] == 1
    assert samples["outpost_fleet_region_state", (("region", "ghost"), ("state", "never"))] == 1
    assert samples["outpost_fleet_region_rows_total", (("region", "chita"),)] == 3
    assert ("outpost_fleet_region_age_seconds", (("region", "ghost"),)) not in samples
    assert samples["outpost_fleet_partial_results", (("region", "chita"),)] == 1
    assert samples["outpost_fleet_doubtful_results", (("region", "tver"),)] == 0
    assert ("outpost_fleet_partial_results", (("region", "ghost"),)) not in samples
    assert 0 <= samples["outpost_fleet_region_age_seconds", (("region", "chita"),)] < 15

    fleet.regions["chita"].write(10)
    deadline = time.monotonic() + 5
    while len(fleet.held("chita")) != 4:
        assert time.monotonic() < deadline, "the loop brings new rows by itself"
        time.sleep(0.1)

    printed = run("table", "--config", write_config(fleet, tmp_path)).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert printed.startswith(f"{said}\n\nREGION  SYSTEM  HEALTH")
    assert ["chita", "brain", "delivered", "brain_extraction", "1.0.2", "full", "4"] in [
        row[:7] for row in lines
    ]
    assert ["ghost", "never", "-"] in [row[:3] for row in lines]
    assert ["chita", "brain", "GREEN"] in [row[:3] for row in lines]
    assert ["tver", "-", "RED"] in [row[:3] for row in lines]
    assert ["chita", "1", "1"] in [row[:3] for row in lines]
    assert ["ghost", "not", "told", "not", "told", "-"] in lines


def test_nobody_without_the_token_sees_the_fleet(served: Served, fleet: Fleet, tmp_path: Path) -> None:
    config = load(write_config(fleet, tmp_path), FleetConfig)
    app = create_app(config, Collector(config))
    paths = {route.path for route in app.routes if isinstance(route, Route | APIRoute)}
    assert len(paths) == len(app.routes)
    assert paths == OPEN | {
        "/",
        "/docs",
        "/openapi.json",
        "/freshness.json",
        "/health.json",
        "/studies.json",
        "/metrics",
    }
    base = str(served.http.base_url)
    with httpx.Client(base_url=base, timeout=15) as stranger:
        for path in [*sorted(paths - OPEN), "/nothing", "/docs/oauth2-redirect", "/redoc"]:
            refused = stranger.get(path)
            assert refused.status_code == 401, path
            assert "chita" not in refused.text
            if path in paths:
                assert served.http.get(path).status_code == 200, path
                answer = stranger.get(path, auth=("duty", TOKEN))  # as a browser does
                assert answer.status_code == 200, path
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert answer.headers["Content-Security-Policy"].startswith(NOTHING)
                assert not re.search(r"\ssrc=|@import|\sstyle=|\son[a-z]+=", answer.text), path
        asked = stranger.get("/", headers={"Accept": "text/html"})
        assert asked.headers["WWW-Authenticate"].startswith("Basic ")
        health = stranger.get("/health")
        assert health.status_code == 200
        assert {check["value"] for check in health.json()["checks"]} == {""}
    token = {"Authorization": f"Bearer {TOKEN}"}
    for foreign in (
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert httpx.get(f"{base}/freshness.json", headers=token | foreign).status_code in (400, 403)
    page = served.http.get("/docs").text
    assert "openapi.json" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "Server" not in served.http.get("/").headers


def test_without_tokens_the_page_is_closed_and_says_how_to_open_it(fleet: Fleet, tmp_path: Path) -> None:
    port = free_port()
    path = write_config(fleet, tmp_path, port)
    config = yaml.safe_load(path.read_text())
    del config["api"]["tokens"]
    path.write_text(yaml.safe_dump(config))
    with subprocess.Popen([*COMMAND, "serve", "--config", str(path)], env=environment()) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 20
            while True:
                with suppress(httpx.TransportError):
                    refused = httpx.get(f"{url}/freshness.json")
                    break
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert refused.status_code == 401
            assert "outpost token" in refused.json()["detail"]
            assert httpx.get(f"{url}/health").status_code == 200
        finally:
            process.terminate()
            process.wait(20)


def test_signs_of_life_come_from_the_loop_and_health_is_red_when_the_database_is_away(
    served: Served, fleet: Fleet
) -> None:
    assert served.wait_for("/health", 200).json()["status"] == "ok"
    assert served.hears("WATCHDOG=1")

    fleet.centre.stop("immediate")

    verdict = served.wait_for("/health", 503).json()
    assert verdict["status"] == "failed"
    failed = {check["code"]: check for check in verdict["checks"] if not check["ok"]}
    assert list(failed) == ["FLEET_DATABASE"]
    assert "refused" in failed["FLEET_DATABASE"]["value"]
    assert failed["FLEET_DATABASE"]["remedy"].startswith("Look at PostgreSQL")
    assert failed["FLEET_DATABASE"]["remedy_ru"].startswith("Посмотрите PostgreSQL")
    page = served.http.get("/")
    assert page.status_code == 503
    assert "The fleet view cannot be shown" in page.text
    assert served.http.get("/freshness.json").status_code == 503
    assert "outpost_fleet_database_up 0.0" in served.http.get("/metrics").text
    served.forget()
    assert served.hears("WATCHDOG=1"), "a restart would not bring the database back"

    fleet.centre.start()
    served.wait_for("/health", 200)


def test_systemd_ending_the_service_ends_it_at_once_and_well(served: Served) -> None:
    served.wait_for("/health", 200)
    served.process.send_signal(signal.SIGTERM)
    assert served.hears("STOPPING=1")
    assert served.process.wait(15) == 0


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(fleet: Fleet, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--config", write_config(fleet, tmp_path, port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"cannot listen on 127.0.0.1:{port} (Address already in use)")


def test_one_pass_says_for_each_region_how_it_went(fleet: Fleet, tmp_path: Path) -> None:
    fleet.regions["chita"].write(1, 3)
    fleet.attach("ghost")
    config = write_config(fleet, tmp_path)

    done = run("sync", "--config", config)

    assert done.returncode == 0, done.stderr
    assert "chita: 3 rows, " in done.stdout
    assert "ghost: 0 rows, " in done.stdout
    assert f"{NET}.99:5432 refuses connections" in done.stdout
    assert done.stdout.endswith("3 of 4 regions read\n")
    assert run("sync", "--strict", "--config", config).returncode == 1


def test_a_centre_that_is_not_there_is_one_sentence_and_exit_code_3(fleet: Fleet, tmp_path: Path) -> None:
    for verb in ("sync", "table"):
        done = run(verb, "--config", write_config(fleet, tmp_path, port=8090, database="absent"))
        assert done.returncode == 3
        assert done.stderr.startswith(f"no connection to the centre's database absent at {NET}.10:5432")
        assert "Traceback" not in done.stderr


def test_a_wrong_key_in_the_configuration_is_answered_with_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("centre: {password: x}\nsync: {period_second: 10}\n", encoding="utf-8")
    done = run("table", "--config", path)
    assert done.returncode == 2
    assert "sync.period_second: there is no such key; did you mean period_seconds?" in done.stderr
