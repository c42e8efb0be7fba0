"""The centre's page over TLS: by a certificate of the fleet's authority, and in no other way."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet_serving import BEARER, TOKEN, Page, environment, serving, write_config
from postgres_cluster import Fleet, the_fleet
from running import free_port
from test_fleet_limits import at_work, held, within

from outpost.controller import certificates

ROOT_SECRET, OTHER_SECRET = "5a" * 32, "c3" * 32
ROUTES = ("/", "/docs", "/openapi.json", "/health.json", "/freshness.json", "/studies.json", "/metrics")


def files(folder: Path, secret: str = ROOT_SECRET, *names: str) -> dict[str, Any]:
    """What the role writes on the centre, and the section that names it."""
    issued = certificates.server(secret, "centre", names or ("127.0.0.1",), datetime.now(UTC))
    (folder / "page.pem").write_text(issued.certificate + issued.key)
    (folder / "fleet-ca.pem").write_text(certificates.trusted(secret))
    return {
        "certificate": str(folder / "page.pem"),
        "key": str(folder / "page.pem"),
        "ca": str(folder / "fleet-ca.pem"),
        "require_client_certificate": False,
    }


def trusting(secret: str = ROOT_SECRET) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificates.trusted(secret))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    fleet = the_fleet()
    fleet.reset()
    return fleet


@pytest.fixture(scope="module")
def page(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("tls")
    with serving(fleet, folder, trusting(), tls=files(folder)) as page:
        yield page


def spoken_plainly(page: Page, request: bytes) -> bytes:
    """All that the port answers to bytes that are not TLS."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=15) as client:
        client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


def test_every_route_answers_over_tls_to_who_trusts_the_fleets_authority(page: Page) -> None:
    for path in ROUTES:
        assert page.get(path).status_code == 200, path
        refused = httpx.get(page.url + path, verify=trusting())
        assert refused.status_code == 401, path
    metrics = page.get("/metrics").text
    assert re.search(r"^outpost_fleet_page_certificate_until_timestamp_seconds [1-9]", metrics, re.MULTILINE)
    browser = httpx.get(page.url, auth=("duty", TOKEN), headers={"Accept": "text/html"}, verify=trusting())
    assert browser.status_code == 200


def test_plain_http_gets_an_explanation_and_nothing_else(page: Page) -> None:
    for path in (*ROUTES, "/health", "/nothing"):
        answer = httpx.get(
            f"http://127.0.0.1:{page.port}{path}", headers=BEARER, follow_redirects=True, timeout=10
        )
        assert answer.status_code == 400, path
        assert "https://" in answer.text
        assert "Location" not in answer.headers, "a redirect would hide that the token goes in the clear"
        assert "chita" not in answer.text
        assert TOKEN not in answer.text
    posted = httpx.post(f"http://127.0.0.1:{page.port}/", content=b"x" * 200_000, timeout=10)
    assert posted.status_code == 400


@pytest.mark.parametrize(
    "request_",
    [
        b"get / http/1.1\r\n\r\n",
        b"GET",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x80.\x01\x00\x02" + b"\x00" * 43,
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00" + b"\xff" * 512,
    ],
    ids=["lower case", "three letters", "HTTP/2 without TLS", "SSLv2", "zeros", "a record that is none"],
)
def test_whatever_is_no_tls_ends_at_once(page: Page, request_: bytes) -> None:
    began = time.monotonic()
    answer = spoken_plainly(page, request_)
    assert time.monotonic() - began < 4
    assert b"chita" not in answer
    assert answer == b"" or b" 400 " in answer or answer[:1] == b"\x15", answer[:40]


def test_a_certificate_of_another_fleet_or_name_is_no_proof(page: Page) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(page.url, verify=trusting(OTHER_SECRET))
    with pytest.raises(httpx.ConnectError, match="mismatch"):
        httpx.get(f"https://localhost:{page.port}", verify=trusting())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # that they are outdated is the point
def test_an_outdated_protocol_is_refused(page: Page) -> None:
    context = trusting()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", page.port), timeout=10) as client,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(client, server_hostname="127.0.0.1")


def test_handshakes_that_are_never_ended_keep_nobody_out(page: Page) -> None:
    hanging = []
    for number in range(60):
        client = socket.create_connection(("127.0.0.1", page.port), timeout=10)
        client.sendall(b"\x16\x03\x01"[: 1 + number % 3])
        hanging.append(client)
    began = time.monotonic()
    assert httpx.get(f"{page.url}/freshness.json", headers=BEARER, verify=trusting(), timeout=20).is_success
    assert time.monotonic() - began < 12
    for client in hanging:
        client.close()


def test_a_client_that_has_gone_leaves_no_query_behind_over_tls_either(page: Page, fleet: Fleet) -> None:
    with held(fleet):
        clients = [page.ask(path) for path in ("/", "/studies.json", "/metrics")]
        within(5, lambda: at_work(fleet.centre) == 3, "it is asked")
        for client in clients:
            client.close()
        within(3, lambda: at_work(fleet.centre) == 0, "the queries end with their clients")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "page.pem").unlink(), "api.tls.certificate: .* cannot be read"),
        (lambda folder: (folder / "page.pem").write_text("torn"), "api.tls: .* not a certificate"),
        (
            lambda folder: (folder / "page.pem").write_text(
                (folder / "page.pem").read_text().partition("-----BEGIN PRIVATE")[0]
            ),
            "api.tls: .* not a certificate and its unencrypted key",
        ),
        (lambda folder: (folder / "fleet-ca.pem").write_text(""), "api.tls.ca: .* holds no PEM certificates"),
    ],
    ids=["missing", "torn", "without its key", "no authorities"],
)
def test_without_usable_files_it_does_not_start_and_config_check_says_why(
    fleet: Fleet, tmp_path: Path, spoil: Any, says: str
) -> None:
    section = files(tmp_path)
    spoil(tmp_path)
    config = write_config(fleet, tmp_path / "fleet.yaml", free_port(), tls=section)
    for words, status, stream in (
        (["fleet", "serve", "--config"], 2, "stderr"),
        (["config", "check"], 1, "stdout"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "outpost.cli", *words, str(config)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        said = " ".join(getattr(done, stream).split())
        assert re.search(says, said), said
        assert "Traceback" not in done.stderr
