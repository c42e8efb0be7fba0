"""Who is let in over HTTP, over real TLS on the running service, and what its log says of it."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import CANARY, Service, wait_for

from outpost.web.tokens import digest

READ, ADMIN = "a-token-that-reads", "a-token-that-does"
STUDY = f"1.2.826.{int.from_bytes(CANARY.encode())}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("secured")

    def openssl(*arguments: str) -> None:
        subprocess.run(["/usr/bin/openssl", *arguments], cwd=root, check=True, capture_output=True)

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=outpost"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "outpost.key", "-out", "outpost.pem"),
    )
    certificate = str(root / "outpost.pem")
    tls = {
        "certificate": certificate,
        "key": str(root / "outpost.key"),
        "ca": certificate,
        "require_client_certificate": False,
    }
    tokens = [
        {"name": "viewer", "role": "read", "sha256": digest(READ)},
        {"name": "operator", "role": "admin", "sha256": digest(ADMIN)},
    ]
    service = Service(root, [("PACS", 9)], api={"tls": tls, "tokens": tokens})
    context = ssl.create_default_context(cafile=certificate)
    service.http = httpx.Client(base_url=f"https://127.0.0.1:{service.http_port}", verify=context, timeout=30)
    yield service.start()
    service.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/health/light"])
def test_health_is_open_to_balancers_and_watchdogs(service: Service, path: str) -> None:
    assert service.http.get(path).status_code in (200, 503)


@pytest.mark.parametrize("path", ["/studies", "/studies/1.2.3", "/events", "/metrics", "/", "/docs"])
def test_what_names_studies_wants_a_token_that_reads(service: Service, path: str) -> None:
    refused = service.http.get(path)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "role read" in refused.json()["detail"]
    assert service.http.get(path, headers=bearer("guessed")).status_code == 401
    for token in (READ, ADMIN):
        assert service.http.get(path, headers=bearer(token)).status_code in (200, 404)


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "told"),
    [
        ("GET", "/studies", "", 401, "нужен токен с ролью read"),
        ("GET", "/studies", "guessed", 401, "этот токен здесь неизвестен"),
        ("GET", "/health/heavy", READ, 403, "токен viewer позволяет только read, а нужно admin"),
        ("GET", "/studies/1.2.3", READ, 404, "исследование с таким Study Instance UID сюда не поступало"),
        ("GET", "/no-such-place", READ, 404, "по этому адресу ничего нет"),
        ("GET", "/v2/models/none/ready", READ, 404, "модели 'none' здесь нет"),
        ("GET", "/quarantine/file-99", READ, 404, "file-99 нет в карантине: смотрите список"),
        ("GET", "/studies?limit=0", READ, 422, "limit: нужно не меньше 1"),
        ("DELETE", "/studies", READ, 405, "этот метод здесь не поддерживается"),
        ("POST", "/dicom-web/studies", ADMIN, 415, "отправьте Content-Type: multipart/related"),
        (
            "POST",
            "/studies/1.2.3/resubmit?skip_filter=perhaps",
            ADMIN,
            422,
            "skip_filter: нужно true или false",
        ),
    ],
)
def test_a_refusal_is_said_in_both_languages_to_programs_and_to_people(
    service: Service, method: str, path: str, token: str, status: int, told: str
) -> None:
    sent = bearer(token) if token else {}
    program = service.http.request(method, path, headers=sent)
    assert program.status_code == status
    assert told in program.json()["detail_ru"]
    assert not re.search("[а-яё]", str(program.json()["detail"]))
    person = service.http.request(method, path, headers=sent | {"Accept": "text/html,application/xhtml+xml"})
    assert person.status_code == status
    assert person.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert told in person.text
    assert person.headers["Content-Security-Policy"].startswith("default-src 'none'")
    if not isinstance(program.json()["detail"], list):
        assert person.text.startswith(program.json()["detail"])


@pytest.mark.parametrize(("method", "path"), [("POST", "/dicom-web/studies"), ("GET", "/health/heavy")])
def test_sending_and_asking_for_work_want_a_token_with_the_role_admin(
    service: Service, method: str, path: str
) -> None:
    assert service.http.request(method, path).status_code == 401
    refused = service.http.request(method, path, headers=bearer(READ))
    assert refused.status_code == 403
    role = "send" if method == "POST" else "admin"
    assert refused.json()["detail"] == f"the token viewer may read only; {role} is needed"
    if method == "POST":  # let in, and then told about its body
        assert service.http.post(path, headers=bearer(ADMIN)).status_code == 415


def test_every_route_that_is_not_health_says_in_the_schema_that_it_wants_a_token(service: Service) -> None:
    paths = service.http.get("/openapi.json", headers=bearer(READ)).json()["paths"]
    open_ones = {path for path, methods in paths.items() for m in methods.values() if not m.get("security")}
    assert open_ones == {
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}/ready",
        "/health/light",
    }


def test_metrics_name_the_present_rung_and_what_computes_on_it(service: Service) -> None:
    metrics = service.http.get("/metrics", headers=bearer(READ)).text
    assert re.search(
        r'^outpost_rung\{device="cpu",engine="[a-z-]+",precision="\w+",rung="full"\} 1.0$', metrics, re.M
    )


def test_plain_http_is_not_spoken_where_tls_is_configured(service: Service) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{service.http_port}/health/light")


def test_refusals_are_logged_now_and_then_and_never_with_a_token_or_a_study(service: Service) -> None:
    for n in range(40):
        service.http.get(f"/studies/{STUDY}?who={CANARY}", headers=bearer(f"secret-guess-{n}"))
    service.http.get(f"/studies/{STUDY}", headers=bearer(READ))
    service.http.get(f"/{CANARY}")
    wait_for(lambda: "HTTP request refused" in service.log, 20, "a refusal is logged")
    said = service.log
    assert said.count("HTTP request refused") < 10
    for secret in ("secret-guess", READ, ADMIN, STUDY, CANARY):
        assert secret not in said


@pytest.mark.parametrize("role", ["read", "send", "admin"])
def test_the_command_makes_a_token_whose_digest_it_prints_for_the_configuration(role: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "outpost.cli", "token", "viewer", role],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    token = re.search(r": (\S{43})$", made, re.MULTILINE)
    assert token is not None
    assert f"{{name: viewer, role: {role}, sha256: {digest(token[1])}}}" in made


def test_an_api_that_is_open_by_choice_serves_all_and_warns(tmp_path: Path) -> None:
    choice = {"listen": "0.0.0.0", "tokens": [], "open": True}
    service = Service(tmp_path, [("PACS", 9)], api=choice).start()
    del service.http.headers["Authorization"]
    try:
        assert service.http.get("/studies").status_code == 200
        for foreign in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert service.http.post("/studies/1.2.3/resubmit", headers=foreign).status_code == 403
        assert service.http.get("/studies", headers={"Host": "evil.example"}).status_code == 400
        assert "takes anyone's word (api.open): see api.tls and api.tokens" in service.log
    finally:
        service.stop()
