"""Nobody who is not let in learns or changes anything: every route of a running service, browsers, DICOM callers."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]  # made at run time
from running import CANARY, Service, wait_for
from starlette.routing import Route
from test_intake import Receiver

from outpost.api.app import OPEN, create_app
from outpost.api.metrics import Metrics
from outpost.config import Config, load
from outpost.intake.assembly import Assembly
from outpost.intake.spool import Spool
from outpost.records.journal import Journal
from outpost.web.page import NOTHING
from outpost.web.tokens import digest

TOKENS = {role: f"a-token-with-the-role-{role}" for role in ("read", "send", "admin")}
# What each route needs, written down once more: a new route has to be put here by a person.
ADMIN = {
    "/health/heavy",
    "/quarantine/{item}/identity",
    "/quarantine/{item}/image.png",
    "/quarantine/{item}/resubmit",
    "/quarantine/{item}/export.tar",
    "/studies/{study_uid}/resubmit",
    "/drift/freeze",
}
SEND = {"/dicom-web/studies", "/dicom-web/studies/{study_uid}"}
READ = {
    "/",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/events",
    "/studies",
    "/studies/{study_uid}",
    "/quarantine",
    "/quarantine/reasons",
    "/quarantine/report",
    "/quarantine/{item}",
    "/quarantine/{item}/thumbnail.png",
    "/drift",
    "/drift/page",
    "/drift/sketch",
}
PAGES = ("/", "/docs", "/quarantine/report", "/drift/page")
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("closed")
    tokens = [{"name": f"our-{role}", "role": role, "sha256": digest(TOKENS[role])} for role in TOKENS]
    service = Service(root, [("PACS", 9)], api={"tokens": tokens, "hosts": ["outpost.hospital.ru"]})
    service.http = httpx.Client(base_url=f"http://127.0.0.1:{service.http_port}", timeout=30)
    yield service.start()
    service.stop()


@pytest.fixture(scope="module")
def app(service: Service, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application as `outpost serve` makes it, to be asked which routes it has."""
    root = tmp_path_factory.mktemp("routes")
    journal = Journal(root / "journal.sqlite3", "brain")
    made = create_app(
        load(service.config_file, Config),
        "brain_extraction",
        journal,
        Spool(root, journal, 0, 100),
        Assembly(journal, 3600),
        cast(Any, None),  # the verdict's state: no route is called here
        Metrics(),
    )
    journal.close()
    return made


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def basic(password: str, name: str = "anybody") -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def concrete(path: str) -> str:
    filled = path.replace("{study_uid}", "1.2.3").replace("{item}", "study-1")
    return filled.replace("{name}", "brain_extraction")


def test_every_route_is_open_by_name_or_wants_the_token_of_its_role(service: Service, app: FastAPI) -> None:
    routes = {(route.path, method) for route in app.routes if isinstance(route, Route | APIRoute)
              for method in route.methods or () if method != "HEAD"}  # fmt: skip
    assert len(routes) == len(app.routes), "a mount or a websocket is a route as well"
    assert {path for path, _ in routes} == OPEN | READ | SEND | ADMIN
    for path, method in sorted(routes):
        where = concrete(path)
        if path in OPEN:
            assert service.http.request(method, where).status_code in (200, 503), path
            continue
        allowed = {"admin"} | ({"read"} if path in READ else {"send"} if path in SEND else set())
        nobody = service.http.request(method, where)
        assert nobody.status_code == 401, path
        assert nobody.headers["WWW-Authenticate"] == "Bearer", path
        assert service.http.request(method, where, headers=basic("")).status_code in (401, 429), path
        for role in TOKENS:
            if role in allowed and path == "/health/heavy":
                continue  # computes a study
            answer = service.http.request(method, where, headers=bearer(role))
            if role in allowed:
                assert answer.status_code not in (401, 403, 405, 429, 500), (path, role, answer.text)
            else:
                assert answer.status_code == 403, (path, role)
                assert answer.json()["detail"].startswith(f"the token our-{role} may {role} only"), path


@pytest.mark.parametrize(
    "path", ["/nothing", "/docs/oauth2-redirect", "/redoc", "/static/x", "//studies", "/studies/", "/%2e"]
)
def test_what_is_not_there_is_told_only_to_who_may_read(service: Service, path: str) -> None:
    assert service.http.get(path).status_code == 401
    assert service.http.get(path, headers=bearer("send")).status_code == 403


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "PUT", "DELETE", "PATCH", "PROPFIND", "CONNECT"])
def test_methods_that_no_route_has_are_not_served(service: Service, method: str) -> None:
    with socket.create_connection(("127.0.0.1", service.http_port), timeout=10) as peer:
        peer.sendall(
            f"{method} /studies HTTP/1.1\r\nHost: localhost\r\nX-Secret: mirror\r\nConnection: close\r\n"
            f"Authorization: Bearer {TOKENS['admin']}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    assert answer.split()[1] in (b"405", b"400")
    assert b"mirror" not in answer


def test_every_answer_carries_what_a_browser_must_know(service: Service) -> None:
    stow = {"Content-Type": "text/plain"}
    answers = [
        service.http.get("/v2/health/live"),
        service.http.get("/studies"),
        service.http.get("/studies", headers=bearer("send")),
        service.http.get("/nothing", headers=bearer("read")),
        service.http.get("/studies?limit=x", headers=bearer("read")),
        service.http.get("/studies", headers=bearer("read")),
        service.http.get("/quarantine/study-1/export.tar", headers=bearer("admin")),
        service.http.post("/dicom-web/studies", headers=stow),
        service.http.post("/dicom-web/studies", headers=bearer("send") | stow),
        service.http.get("/studies", headers={"Host": "evil.example"}),
        service.http.request("DELETE", "/studies"),
        *(service.http.get(path, headers=bearer("read")) for path in PAGES),
    ]
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 403, 404, 405, 415, 422}
    for answer in answers:
        said = answer.headers
        assert said["X-Content-Type-Options"] == "nosniff"
        assert said["X-Frame-Options"] == "DENY"
        assert said["Referrer-Policy"] == "same-origin"
        assert said["Cache-Control"] == "no-store"
        assert said["Cross-Origin-Resource-Policy"] == "same-origin"
        assert said["Content-Security-Policy"].startswith(NOTHING)
        assert "unsafe" not in said["Content-Security-Policy"]
        assert "Server" not in said
        assert "Traceback" not in answer.text
        assert str(service.root) not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_nothing_from_elsewhere_and_style_no_single_element(service: Service, path: str) -> None:
    page = service.http.get(path, headers=bearer("read"))
    assert page.status_code == 200
    assert not re.search(r"https?://(?!www\.w3\.org)|\ssrc=|@import|\sstyle=|\son[a-z]+=", page.text)
    assert page.text.count("<style>") <= 1


def test_a_person_gets_in_by_a_browser_with_any_name_and_the_token_as_password(service: Service) -> None:
    html = {"Accept": "text/html,application/xhtml+xml"}
    asked = service.http.get("/", headers=html)
    assert asked.status_code == 401
    assert asked.headers["WWW-Authenticate"] == 'Basic realm="Outpost", charset="UTF-8"'
    assert "playbooks/tokens.yml" in asked.text
    for name in ("", "anybody", "дежурный", "a" * 100):
        for path in PAGES:
            answer = service.http.get(path, headers=html | basic(TOKENS["read"], name))
            assert answer.status_code == 200, (path, name)
    identity = "/quarantine/study-1/identity"
    assert service.http.get(identity, headers=html | basic(TOKENS["read"])).status_code == 403
    assert service.http.get(identity, headers=html | basic(TOKENS["admin"])).status_code == 404


@pytest.mark.parametrize(
    "credentials",
    ["", "Bearer", "Basic", "Basic !!!", "Basic YQ==", "Digest x", "Bearer x y", f"Bearer {'a' * 5000}",
     f"Token {TOKENS['admin']}", TOKENS["admin"], f"Bearer {TOKENS['admin']}x", f"Bearer {digest(TOKENS['admin'])}"],
)  # fmt: skip
def test_nothing_else_is_taken_for_a_token(service: Service, credentials: str) -> None:
    assert service.http.get("/studies", headers={"Authorization": credentials}).status_code in (401, 429)


def test_a_token_is_not_looked_for_in_the_address_in_cookies_or_twice(service: Service) -> None:
    token = TOKENS["admin"]
    assert service.http.get(f"/studies?token={token}&access_token={token}").status_code == 401
    assert (
        service.http.get("/studies", headers={"Cookie": f"token={token}; outpost-token={token}"}).status_code
        == 401
    )
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer other")]
    assert service.http.get("/studies", headers=twice).status_code in (401, 429)


def test_wrong_tokens_are_slowed_and_the_right_one_of_the_same_address_is_let_in(service: Service) -> None:
    codes = [service.http.get("/studies", headers=bearer_of(f"guess-{n}")).status_code for n in range(30)]
    assert codes[-1] == 429
    assert codes[-15:] == [429] * 15
    refused = service.http.get("/studies", headers=basic("guess"))
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert service.http.get("/studies", headers=bearer("read")).status_code == 200
    assert service.http.get("/studies").status_code == 401
    assert service.http.get("/v2/health/live", headers=bearer_of("guess")).status_code == 200


def bearer_of(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.nip.io", "localhost.evil.example", "127.0.0.1@evil.example",
     "169.254.169.254", "10.9.8.7:{port}", "[2001:db8::1]", "0x7f.1", "2130706433", "", "localhost:80:80", "local host",
     "outpost.hospital.ru.evil.example", "evil.example/localhost"],
)  # fmt: skip
def test_a_request_that_means_another_host_is_refused(service: Service, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name was made to lead here."""
    headers = bearer("admin") | {"Host": host.format(port=service.http_port)}
    for path in ("/studies", "/", "/health/light"):
        answer = service.http.get(path, headers=headers)
        assert answer.status_code == 400, path
    assert "api.hosts" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:{port}", "127.0.0.1:{port}", "127.0.0.1:18080", "[::1]:{port}", "outpost.hospital.ru",
     "Outpost.Hospital.RU.:8080", socket.gethostname()],
)  # fmt: skip
def test_a_request_by_a_name_of_its_own_is_answered(service: Service, host: str) -> None:
    headers = bearer("read") | {"Host": host.format(port=service.http_port)}
    assert service.http.get("/studies", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "file://"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
            "Origin": EVIL,
        },
    ],
    ids=str,
)
def test_what_a_page_of_another_site_has_a_browser_send_is_refused(
    service: Service, said: dict[str, str]
) -> None:
    for credentials in (bearer("admin"), basic(TOKENS["admin"])):
        for method, path in (
            ("GET", "/studies"),
            ("GET", "/quarantine/study-1/image.png"),
            ("GET", "/quarantine/study-1/export.tar"),
            ("POST", "/quarantine/study-1/resubmit"),
            ("POST", "/studies/1.2.3/resubmit"),
            ("POST", "/dicom-web/studies"),
            ("GET", "/"),
        ):
            answer = service.http.request(method, path, headers=credentials | said)
            assert answer.status_code == 403, (method, path)
            assert answer.json()["detail"] == "requests from pages of other sites are not taken"
            assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert service.http.options("/studies", headers=said | preflight).status_code in (401, 403)


def test_a_link_from_elsewhere_leads_to_a_page_but_to_no_data(service: Service) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    admin = basic(TOKENS["admin"])
    assert service.http.get("/", headers=admin | followed).status_code == 200
    assert service.http.get("/quarantine/study-1/export.tar", headers=admin | followed).status_code == 403


def test_what_changes_something_is_taken_by_password_from_our_own_pages_alone(service: Service) -> None:
    """Over plain HTTP a browser sends no Sec-Fetch-Site: what says nothing of where it comes from is not believed."""
    own = f"http://127.0.0.1:{service.http_port}"
    admin, path = basic(TOKENS["admin"]), "/quarantine/study-1/resubmit"
    assert service.http.post(path, headers=admin).status_code == 403
    assert service.http.post(path, headers=admin | {"Referer": f"{EVIL}/127.0.0.1"}).status_code == 403
    assert service.http.get("/health/heavy", headers=admin).status_code == 403
    assert service.http.post(path, headers=admin | {"Origin": own}).status_code == 404
    assert service.http.post(path, headers=admin | {"Referer": f"{own}/quarantine"}).status_code == 404
    assert service.http.post(path, headers=admin | {"Sec-Fetch-Site": "same-origin"}).status_code == 404
    assert service.http.post(path, headers=bearer("admin")).status_code == 404


def test_open_health_names_no_place_on_the_host_and_the_closed_one_does(service: Service) -> None:
    told = service.http.get("/health/light").text
    assert str(service.storage) not in told
    assert "/" + str(service.root).split("/")[1] not in told
    assert {check["code"] for check in service.http.get("/health/light").json()["checks"]}
    whole = service.http.get("/health/light", headers=bearer("read")).json()
    assert {check["code"] for check in whole["checks"]} == {
        check["code"] for check in service.http.get("/health/light").json()["checks"]
    }


def test_what_was_refused_and_by_whom_is_logged_without_a_token_or_an_address_of_a_page(
    service: Service,
) -> None:
    service.http.get(f"/{CANARY}", headers=bearer_of(CANARY))
    service.http.get("/studies", headers={"Host": f"{CANARY}.example"})
    with suppress(httpx.TransportError):
        service.http.get("/studies", headers={"Origin": f"http://{CANARY}"})
    assert CANARY not in service.log
    for token in TOKENS.values():
        assert token not in service.log


def test_without_tokens_only_health_is_answered_and_it_says_how_to_set_them(tmp_path: Path) -> None:
    service = Service(tmp_path, [("PACS", 9)], api={"listen": "0.0.0.0", "tokens": []}).start()
    try:
        for headers in ({}, bearer("admin"), basic("")):
            answer = service.http.get("/studies", headers={"Authorization": ""} | headers)
            assert answer.status_code in (401, 429)
        del service.http.headers["Authorization"]
        refused = service.http.post("/dicom-web/studies")
        assert refused.status_code == 401
        assert "outpost token" in refused.json()["detail"]
        assert service.http.get("/v2/health/live").json() == {"live": True}
        assert "checks" in service.http.get("/health/light").json()
        assert "answers how this system is, and nothing else" in service.log
    finally:
        service.stop()


# --- DICOM ---


def reject_of(receiver: Receiver, calling: str, called: str) -> tuple[int, int, int] | None:
    """Result, source and reason of an A-ASSOCIATE-RJ; None where the association was accepted."""
    entity = AE(calling)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    opened = receiver.rejects(entity, called)
    if opened is None:
        return None
    answer = opened.acceptor.primitive
    assert answer is not None
    return answer.result, answer.result_source, cast(int, answer.diagnostic)


def test_callers_must_call_us_by_our_name_and_it_is_counted(tmp_path: Path) -> None:
    options = {"check_called_ae_title": True, "called_ae_titles": ["OLD_AI"]}
    with Receiver(tmp_path, **options) as receiver:
        assert reject_of(receiver, "MRT1", "OUTPOST") is None
        assert reject_of(receiver, "MRT1", "OLD_AI") is None
        for other in ("ANY-SCP", "outpost", "OUTPOST2", "PACS"):
            assert reject_of(receiver, "MRT1", other) == (1, 1, 7), other
        assert receiver.scp._doors.counts()["association", "CALLED_AE_UNKNOWN"] == 4


def test_a_senders_title_is_believed_from_its_own_addresses_alone(tmp_path: Path) -> None:
    senders = [
        {"ae_title": "MRT1", "addresses": ["127.0.0.0/8", "::1"]},
        {"ae_title": "CT1", "addresses": ["10.1.2.3"]},
        {"ae_title": "*", "addresses": ["192.168.7.0/24"]},
        {"ae_title": "OLD", "character_set": "cp1251"},
    ]
    with Receiver(tmp_path, senders=senders) as receiver:
        assert reject_of(receiver, "MRT1", "OUTPOST") is None
        for forged in ("CT1", "STRANGER", "OLD"):
            assert reject_of(receiver, forged, "OUTPOST") == (1, 1, 3), forged
        assert receiver.scp._doors.counts()["association", "ADDRESS_UNKNOWN"] == 3


def test_who_is_turned_away_costs_no_known_sender_its_place(tmp_path: Path) -> None:
    with Receiver(tmp_path, known_ae_titles=["MRT1"], max_associations=1) as receiver:
        strangers = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(5)]  # say nothing
        wait_for(lambda: receiver.scp.waiting >= 5, 10, "they are connected")
        for _ in range(10):
            assert reject_of(receiver, "STRANGER", "OUTPOST") == (1, 1, 3)
        known = AE("MRT1")
        known.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        first = known.associate("127.0.0.1", receiver.port)
        assert first.is_established, "strangers hold no place"
        assert reject_of(receiver, "MRT1", "OUTPOST") == (2, 3, 2), "the second one of those allowed"
        first.release()
        wait_for(lambda: reject_of(receiver, "MRT1", "OUTPOST") is None, 5, "the place is free again")
        for one in strangers:
            one.close()
