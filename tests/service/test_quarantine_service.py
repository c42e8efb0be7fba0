"""A study that was rejected: found, looked at, and computed after all, over the API and by the command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid
from running import BUNDLE, CANARY, Service, StoreScp, wait_for

from outpost.web.tokens import digest

READ, ADMIN = "a-token-that-reads", "a-token-that-does"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Scene:
    """The service with a bundle whose limits can be changed, and its PACS."""

    def __init__(self, root: Path) -> None:
        self.bundle = root / "bundle"
        shutil.copytree(BUNDLE, self.bundle)
        self.pacs = StoreScp(root / "pacs").start()
        self.service = Service(
            root,
            [("PACS", self.pacs.port)],
            inference={"bundle": str(self.bundle), "workers": 1, "optimise_after_idle_seconds": 0},
            api={
                "tokens": [
                    {"name": "viewer", "role": "read", "sha256": digest(READ)},
                    {"name": "operator", "role": "admin", "sha256": digest(ADMIN)},
                ]
            },
        )
        self.service.http.headers.update(bearer(READ))

    def limit(self, min_slices: int) -> None:
        manifest = yaml.safe_load((self.bundle / "outpost.yaml").read_text())
        manifest["input"]["min_slices"] = min_slices
        (self.bundle / "outpost.yaml").write_text(yaml.safe_dump(manifest))

    def command(
        self, *arguments: str, token: str = "", **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        """`outpost quarantine ...` as the admin types it inside the container."""
        environment = os.environ | {"OUTPOST_CONFIG": str(self.service.config_file), "OUTPOST_TOKEN": token}
        return subprocess.run(
            [sys.executable, "-m", "outpost.cli", "quarantine", *arguments],
            capture_output=True,
            check=False,
            timeout=60,
            env=environment,
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("quarantine"))
    yield scene
    scene.service.stop()
    scene.pacs.stop()


def test_a_rejected_study_is_listed_seen_exported_and_delivered_once_the_limit_is_changed(
    scene: Scene, head_series: list[Path]
) -> None:
    service, study = scene.service, str(dcmread(head_series[0]).StudyInstanceUID)
    scene.limit(min_slices=500)
    service.start().wait_ready()
    sent = service.storescu(head_series[0].parent, options=("-aet", "CT2"))
    assert sent.returncode == 0, sent.stderr
    rejected = service.wait_outcome(study)
    assert (rejected["outcome"], rejected["senders"]) == ("rejected", ["CT2"])
    reason = rejected["reason"]

    [item] = service.http.get("/quarantine", params={"sender": "CT2", "reason": reason}).json()["items"]
    assert (item["item"], item["instances"], item["study_uid"]) == ("study-1", 181, study)
    assert item["meaning_ru"]
    assert service.http.get("/quarantine", params={"sender": "CT1"}).json()["items"] == []
    [held] = service.http.get("/quarantine/reasons").json()
    assert (held["reason"], held["items"], held["bytes"]) == (reason, 1, item["bytes"])

    shown = service.http.get("/quarantine/study-1")
    assert shown.json()["header"]["Modality"] == "MR"
    assert CANARY not in shown.text
    picture = service.http.get("/quarantine/study-1/thumbnail.png")
    assert picture.headers["content-type"] == "image/png"
    assert max(Image.open(io.BytesIO(picture.content)).size) <= 160

    told = scene.command("list", "--language=ru", token=READ)
    assert told.returncode == 0, told.stderr
    assert "study-1" in told.stdout.decode()
    assert item["meaning_ru"] in told.stdout.decode()
    nobody = scene.command("list")
    assert (nobody.returncode, nobody.stdout) == (1, b"")
    assert b"set OUTPOST_TOKEN" in nobody.stderr

    exported = scene.command("export", "study-1", token=ADMIN)
    with tarfile.open(fileobj=io.BytesIO(exported.stdout)) as archive:
        names = archive.getnames()
        manifest = json.loads(archive.extractfile("study-1/manifest.json").read())  # type: ignore[union-attr]
        for entry in manifest["files"]:
            content = archive.extractfile(entry["file"]).read()  # type: ignore[union-attr]
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert len(names) == 182
    assert (manifest["reason"], manifest["senders"], manifest["study_uid"]) == (reason, ["CT2"], study)

    # Submitted again under the same limit it ends the same way, as another revision.
    again = service.http.post("/quarantine/study-1/resubmit", headers=bearer(ADMIN))
    assert again.json() == {"item": "study-2", "study_uid": study, "revision": 2}
    assert service.wait_outcome(study, revision=2)["reason"] == reason

    assert service.stop() == 0
    scene.limit(min_slices=10)
    down = scene.command("list", "--json")
    assert [i["item"] for i in json.loads(down.stdout)["items"]] == ["study-2", "study-1"]
    done = scene.command("resubmit", "study-2", "study-1", "study-9")
    assert (done.returncode, done.stdout) == (1, b"study-2: waits as study-3, revision 3\n")
    assert b"study-1: revision 3 of this study is complete: wait for its end" in done.stderr
    assert b"study-9" in done.stderr
    service.start()
    third = service.wait_outcome(study, revision=3)
    assert (third["outcome"], third["instances"], third["senders"]) == ("delivered", 181, ["CT2"])
    assert len(scene.pacs.instances()) == 1

    # What was delivered can be computed again too, while its files are here.
    by_name = service.http.post(f"/studies/{study}/resubmit?skip_filter=true", headers=bearer(ADMIN))
    assert by_name.json()["revision"] == 4
    assert service.wait_outcome(study, revision=4)["outcome"] == "delivered"
    assert len(scene.pacs.instances()) == 2
    events = [(e["code"], e["detail"]) for e in service.http.get("/events").json()]
    assert ("STUDY_RESUBMITTED", "study 3 as study 4 by operator, filter skipped") in events
    assert ("STUDY_RESUBMITTED", "study 1 as study 2 by operator") in events


def test_a_study_that_a_rule_rejects_is_delivered_where_an_admin_overrules_the_filter(
    scene: Scene, head_series: list[Path], tmp_path: Path
) -> None:
    service = scene.service
    rules = {"rules": [{"name": "never", "scope": "study", "require": {"tag": "Modality", "equals": "CT"},
                        "code": "SITE_NEVER"}]}  # fmt: skip

    def changes() -> int:
        return [event["code"] for event in service.http.get("/events").json()].count("FILTER_RULES_CHANGED")

    before = changes()  # those in use when the service started were told as well
    (scene.bundle / "filter.yaml").write_text(yaml.safe_dump(rules))
    wait_for(lambda: changes() > before, 30, "the rules are taken")
    study = generate_uid()
    for file in head_series:
        image = dcmread(file)
        image.StudyInstanceUID = study
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(tmp_path / file.name)
    assert service.storescu(tmp_path, options=("-aet", "MR1")).returncode == 0
    first = service.wait_outcome(study)
    assert (first["outcome"], first["reason"]) == ("rejected", "SITE_NEVER")
    [item] = service.http.get("/quarantine", params={"sender": "MR1"}).json()["items"]
    assert item["reason"] == "SITE_NEVER"
    assert item["meaning"].startswith("A rule of this site")
    done = scene.command("resubmit", "--skip-filter", item["item"], token=ADMIN)
    assert done.returncode == 0, done.stderr
    assert service.wait_outcome(study, revision=2)["outcome"] == "delivered"


def test_an_image_that_was_refused_can_be_looked_at_and_offered_again(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(CANARY.encode() * 20)
    service = scene.service
    assert service.http.post("/dicom-web/studies", headers=bearer(READ)).status_code == 403
    boundary = "b"
    body = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    sent = service.http.post(
        "/dicom-web/studies",
        content=body + (tmp_path / "junk").read_bytes() + f"\r\n--{boundary}--\r\n".encode(),
        headers=bearer(ADMIN)
        | {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
    )
    assert sent.status_code == 409
    shown = service.http.get("/quarantine/file-1").json()
    assert (shown["reason"], shown["senders"], shown["header"]) == ("NOT_DICOM", ["stow"], {})
    assert shown["header_fault"].startswith("HEADER_UNREADABLE")
    blind = service.http.get("/quarantine/file-1/thumbnail.png")
    assert blind.status_code == 422
    assert CANARY not in blind.text
    again = service.http.post("/quarantine/file-1/resubmit", headers=bearer(ADMIN))
    assert again.status_code == 409
    assert "intake refuses file-1 again: NOT_DICOM" in again.json()["detail"]
    items = service.http.get("/quarantine", params={"reason": "NOT_DICOM"}).json()["items"]
    assert [item["item"] for item in items] == ["file-2"]
    assert len(list((service.storage / "quarantine" / "NOT_DICOM").iterdir())) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/quarantine/study-1/identity"),
        ("GET", "/quarantine/study-1/image.png"),
        ("GET", "/quarantine/study-1/export.tar"),
        ("POST", "/quarantine/study-1/resubmit"),
        ("POST", "/studies/1.2.3/resubmit"),
    ],
)
def test_acting_and_who_the_patient_is_want_the_role_admin(scene: Scene, method: str, path: str) -> None:
    http = scene.service.http
    assert http.request(method, path).status_code == 403
    assert http.request(method, path, headers={"Authorization": ""}).status_code == 401
    assert http.request(method, path, headers=bearer(ADMIN)).status_code in (200, 404, 409)


@pytest.mark.parametrize("path", ["", "/reasons", "/report", "/study-1", "/study-1/thumbnail.png"])
def test_looking_wants_the_role_read(scene: Scene, path: str) -> None:
    assert scene.service.http.get(f"/quarantine{path}", headers={"Authorization": ""}).status_code == 401
    assert scene.service.http.get(f"/quarantine{path}").status_code == 200


@pytest.mark.parametrize("path", ["study-99", "file-99", "nothing", "study-1%2F..", "..%2F..%2Fetc"])
def test_what_is_no_item_is_not_found(scene: Scene, path: str) -> None:
    assert scene.service.http.get(f"/quarantine/{path}").status_code == 404
    assert scene.service.http.get(f"/quarantine/{path}/thumbnail.png").status_code == 404


def test_identity_is_shown_to_the_admin_alone(scene: Scene) -> None:
    whole = scene.service.http.get("/quarantine/study-1/identity", headers=bearer(ADMIN)).json()
    assert CANARY in whole["header"]["PatientName"]
    refused = scene.command("show", "study-1", "--identity", token=READ)
    assert refused.returncode == 1
    assert CANARY.encode() not in refused.stdout + refused.stderr
    assert CANARY.encode() in scene.command("show", "study-1", "--identity", token=ADMIN).stdout


def test_the_report_is_the_same_over_the_api_and_by_the_command(scene: Scene, tmp_path: Path) -> None:
    page = scene.service.http.get("/quarantine/report", params={"language": "ru", "days": 7})
    assert page.headers["content-type"].startswith("text/html")
    assert "CT2" in page.text
    told = scene.command("report", "--days=7", token=READ)
    assert told.returncode == 0, told.stderr
    assert "From CT2 (MR): studies 1; delivered 1" in told.stdout.decode()
    written = scene.command("report", "--format=html", "-o", str(tmp_path / "report.html"), token=READ)
    assert written.returncode == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_metrics_count_by_sender_and_nothing_anywhere_names_the_patient(
    scene: Scene, head_series: list[Path]
) -> None:
    service = scene.service
    metrics = service.http.get("/metrics").text
    assert 'outpost_studies_by_sender_total{outcome="delivered",reason="",sender="CT2"} 2.0' in metrics
    assert 'outpost_instances_refused_by_sender_total{reason="NOT_DICOM",sender="stow"} 2.0' in metrics
    assert 'outpost_quarantine_items{reason="NOT_DICOM"} 1.0' in metrics
    study = str(dcmread(head_series[0]).StudyInstanceUID)
    wait_for(lambda: "resubmi" in service.log or "computed again" in service.log, 5, "it is logged")
    for told in (metrics, service.log, service.http.get("/events").text):
        assert CANARY not in told
        assert study not in told
    assert "Traceback" not in service.log


def test_a_command_meets_a_service_that_holds_the_storage_and_does_not_answer(scene: Scene) -> None:
    config = yaml.safe_load(scene.service.config_file.read_text())
    config["api"]["port"] = 1
    other = scene.service.config_file.with_name("other.yaml")
    other.write_text(yaml.safe_dump(config))
    refused = scene.command("list", f"--config={other}", token=READ)
    assert refused.returncode == 3
    assert b"holds the storage but does not answer at http://127.0.0.1:1" in refused.stderr
    with pytest.raises(httpx.TransportError):
        httpx.get("http://127.0.0.1:1", trust_env=False)
