"""Intake against real senders. The service has a broken bundle: it then receives, holds, and says so."""

from __future__ import annotations

import random
import signal
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage
from running import BEARER, CANARY, Service, answers, free_port, wait_for

from outpost.config import Intake, Tls
from outpost.delivery.scu import NotSent, Peer, association, store
from outpost.intake.assembly import Assembly
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.records.journal import Journal
from outpost.tls import TlsUnusable, client_context, server_context

NOWHERE = [("NOWHERE", 1)]  # nothing listens on port 1
# One file for each way pixel data come: native, big endian, deflated, RLE, JPEG, JPEG-LS, JPEG 2000.
ENCODINGS = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "ExplVR_BigEnd.dcm",
    "image_dfl.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
]


def sample(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom's wheel lacks {name}"
    return Path(path)


def copy_of(name: str, target: Path, **values: str) -> Dataset:
    """A sample as an instance and a study of its own, with some values changed."""
    image = dcmread(sample(name))
    image.StudyInstanceUID, image.SOPInstanceUID = generate_uid(), generate_uid()
    for keyword, value in values.items():
        setattr(image, keyword, value)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(target)
    return image


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    bundle = tmp_path_factory.mktemp("bundle")
    service = Service(tmp_path_factory.mktemp("service"), NOWHERE, inference={"bundle": str(bundle)})
    yield service.start()
    assert service.stop() == 0


def test_a_broken_bundle_is_not_ready_and_says_why_yet_the_service_receives(service: Service) -> None:
    def golden() -> str:
        return next(
            c["value"]
            for c in service.http.get("/health/light").json()["checks"]
            if c["code"] == "GOLDEN_PASSED"
        )

    wait_for(lambda: golden() == "BUNDLE_INVALID", 20, "the verdict names the broken bundle")
    assert service.http.get("/health/light").status_code == 503
    assert service.http.get("/v2/health/ready").status_code == 503
    assert service.http.get("/v2/health/live").status_code == 200
    echo = subprocess.run(["/usr/bin/echoscu", "127.0.0.1", str(service.dicom_port)], check=False, timeout=20)
    assert echo.returncode == 0


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_is_kept_as_it_came(service: Service, name: str, tmp_path: Path) -> None:
    sent = tmp_path / "sent.dcm"
    image = copy_of(name, sent)
    entity = AE("PEER")
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    assert opened.send_c_store(sent).Status == 0
    opened.release()
    kept = dcmread(service.storage / "spool" / image.StudyInstanceUID / f"{image.SOPInstanceUID}.dcm")
    assert kept.file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
    assert kept.PixelData == image.PixelData


def test_an_instance_sent_again_in_another_encoding_is_the_same_instance(
    service: Service, tmp_path: Path
) -> None:
    image = copy_of("MR_small.dcm", tmp_path / "explicit.dcm")
    subprocess.run(["dcmconv", "+ti", "+g", tmp_path / "explicit.dcm", tmp_path / "implicit.dcm"], check=True)
    assert service.storescu(tmp_path / "explicit.dcm").returncode == 0
    assert service.storescu(tmp_path / "implicit.dcm", options=["-xi"]).returncode == 0
    assert service.stow(tmp_path / "explicit.dcm").status_code == 200
    [study] = service.studies(image.StudyInstanceUID)
    assert (study["revision"], study["instances"]) == (1, 1)


def test_other_content_under_a_known_uid_is_refused_kept_and_overwrites_nothing(
    service: Service, tmp_path: Path
) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "first.dcm")
    assert service.storescu(tmp_path / "first.dcm").returncode == 0
    kept = service.storage / "spool" / image.StudyInstanceUID / f"{image.SOPInstanceUID}.dcm"
    before = kept.read_bytes()
    pixels = bytearray(image.PixelData)
    pixels[1000] ^= 1
    image.PixelData = bytes(pixels)
    image.save_as(tmp_path / "second.dcm")
    refused = service.storescu(tmp_path / "second.dcm", options=["-d"])
    assert refused.returncode != 0
    assert "this instance UID is held with other content" in refused.stderr + refused.stdout  # Error Comment
    reply = service.stow(tmp_path / "second.dcm")
    assert reply.status_code == 409
    assert reply.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xC001]
    assert kept.read_bytes() == before
    set_aside = list((service.storage / "quarantine" / "CONTENT_CONFLICT").iterdir())
    assert [dcmread(file).PixelData == image.PixelData for file in set_aside] == [True, True]


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [
        ({"StudyInstanceUID": "../../../etc"}, 0xA900, "UID_UNSAFE"),
        ({"StudyInstanceUID": "1." * 40 + "1"}, 0xA900, "UID_UNSAFE"),
        ({"StudyInstanceUID": ""}, 0xA900, "UID_MISSING"),
        ({"SeriesInstanceUID": ""}, 0xA900, "UID_MISSING"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_missing_and_unsafe_uids_are_refused_and_the_bytes_kept(
    service: Service, tmp_path: Path, values: dict[str, str], status: int, reason: str
) -> None:
    folder = service.storage / "quarantine" / reason
    before = len(list(folder.glob("*"))) if folder.exists() else 0
    image = copy_of("CT_small.dcm", tmp_path / "bad.dcm", **values)
    entity = AE("PEER")
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    answer = opened.send_c_store(tmp_path / "bad.dcm")
    opened.release()
    assert answer.Status == status
    assert answer.ErrorComment
    assert len(list(folder.glob("*"))) == before + 1


def test_an_announced_uid_that_is_not_the_data_sets_is_refused(service: Service, tmp_path: Path) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    image.file_meta.MediaStorageSOPInstanceUID = generate_uid()  # what our sender announces
    image.save_as(tmp_path / "x.dcm", enforce_file_format=False)
    peer = Peer("127.0.0.1", service.dicom_port, "OUTPOST", "PEER")
    with association(peer, [tmp_path / "x.dcm"]) as opened, pytest.raises(NotSent, match="0xA900"):
        store(opened, tmp_path / "x.dcm")


def test_stow_answers_for_each_instance(service: Service, tmp_path: Path) -> None:
    first = copy_of("CT_small.dcm", tmp_path / "1.dcm")
    second = copy_of("MR_small.dcm", tmp_path / "2.dcm")
    reply = service.stow(tmp_path / "1.dcm", tmp_path / "2.dcm")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/dicom+json"
    stored = reply.json()["00081199"]["Value"]
    assert [item["00081155"]["Value"][0] for item in stored] == [first.SOPInstanceUID, second.SOPInstanceUID]
    (tmp_path / "3.dcm").write_bytes(b"not DICOM at all")
    partly = service.stow(tmp_path / "1.dcm", tmp_path / "3.dcm")
    assert partly.status_code == 202
    assert len(partly.json()["00081199"]["Value"]) == len(partly.json()["00081198"]["Value"]) == 1
    assert service.stow(tmp_path / "3.dcm").status_code == 409


def test_stow_names_what_is_wrong_with_the_request(service: Service) -> None:
    def post(content_type: str, body: bytes) -> int:
        headers = {"Content-Type": content_type}
        return service.http.post("/dicom-web/studies", content=body, headers=headers).status_code

    assert post("application/json", b"{}") == 415
    assert post('multipart/related; type="application/dicom+json"; boundary=b', b"--b--") == 415
    assert post('multipart/related; type="application/dicom"', b"") == 400
    cut = b"--b\r\nContent-Type: application/dicom\r\n\r\nthe connection ended here"
    assert post('multipart/related; type="application/dicom"; boundary=b', cut) == 400
    assert not list((service.storage / "spool" / ".incoming").iterdir())


def test_a_stow_sender_that_goes_away_leaves_what_was_whole_and_nothing_else(
    service: Service, tmp_path: Path
) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "whole.dcm")
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + (tmp_path / "whole.dcm").read_bytes() + b"\r\n"
    head = (
        "POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n"
        f"Authorization: {BEARER['Authorization']}\r\n"
        'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", service.http_port)) as sender:
        sender.sendall(head.encode() + part + part[: len(part) // 2])
        wait_for(lambda: service.studies(image.StudyInstanceUID), 10, "the whole part is journalled")
    incoming = service.storage / "spool" / ".incoming"
    wait_for(lambda: not list(incoming.iterdir()), 10, "the half part is gone")
    assert "Exception in ASGI" not in service.log


def test_below_the_disk_reserve_every_way_in_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    service = Service(
        tmp_path,
        NOWHERE,
        intake={"disk_reserve_mib": 1 << 40},  # 1 EiB
        inference={"bundle": str(tmp_path / "none")},
    ).start()
    refused = service.storescu(sample("CT_small.dcm"))
    assert refused.returncode != 0
    assert "Rejected Transient" in refused.stderr + refused.stdout
    assert "Local Limit Exceeded" in refused.stderr + refused.stdout
    assert service.stow(sample("CT_small.dcm")).status_code == 507
    check = next(c for c in service.http.get("/health/light").json()["checks"] if c["code"] == "DISK_RESERVE")
    assert (check["ok"], bool(check["remedy"])) == (False, True)
    assert not list((service.storage / "spool").rglob("*.dcm"))
    assert service.stop() == 0


def test_on_a_full_disk_nothing_is_acknowledged_that_is_not_kept_and_room_makes_it_work_again(
    tmp_path: Path,
) -> None:
    """A file system of 6 MiB, without a reserve: every write of the service may fail."""
    service = Service(
        tmp_path, NOWHERE, intake={"disk_reserve_mib": 0}, inference={"bundle": str(tmp_path / "none")}
    )
    service.storage.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", service.storage], check=True)
    try:
        service.start()
        ballast = service.storage / "ballast"
        ballast.write_bytes(b"x" * (4 << 20))
        image = dcmread(sample("CT_small.dcm"))
        image.StudyInstanceUID = study = generate_uid()
        image.PixelData = image.PixelData * 6
        acknowledged, refused = [], []

        def send(number: int) -> None:
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{study[:50]}.{number}"
            image.save_as(tmp_path / "image.dcm")
            status = service.storescu(tmp_path / "image.dcm").returncode
            (acknowledged if status == 0 else refused).append(image.SOPInstanceUID)

        for number in range(20):
            send(number)
        assert len(acknowledged) > 3
        assert len(refused) > 3
        ballast.unlink()
        for number in range(20):
            send(number)
        assert set(refused) <= set(acknowledged)
        kept = {dcmread(file).SOPInstanceUID for file in (service.storage / "spool" / study).glob("*.dcm")}
        assert kept == set(acknowledged)
        assert service.studies(study)[-1]["instances"] == len(kept) == 20
        assert service.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", service.storage], check=True)


def test_only_known_calling_ae_titles_are_served_when_they_are_named(tmp_path: Path) -> None:
    service = Service(
        tmp_path,
        NOWHERE,
        intake={"known_ae_titles": ["MRT1"]},
        inference={"bundle": str(tmp_path / "none")},
    ).start()
    stranger = service.storescu(sample("CT_small.dcm"), options=["-aet", "STRANGER"])
    assert stranger.returncode != 0
    assert "Calling AE Title Not Recognized" in stranger.stderr + stranger.stdout
    assert service.storescu(sample("CT_small.dcm"), options=["-aet", "MRT1"]).returncode == 0
    assert service.stop() == 0


def test_whatever_was_acknowledged_before_a_kill_is_there_after_the_restart(tmp_path: Path) -> None:
    """Killed at a random moment of a running transfer, several times; the seed makes it repeatable."""
    chance = random.Random(20261123)
    service = Service(tmp_path, NOWHERE, inference={"bundle": str(tmp_path / "none")})
    acknowledged: set[str] = set()
    image = dcmread(sample("CT_small.dcm"))
    image.StudyInstanceUID = study = generate_uid()
    for _ in range(3):
        service.start()
        entity = AE("PEER")
        entity.dimse_timeout = 2  # how long our sender waits for an answer that a kill prevented
        entity.add_requested_context(CTImageStorage, image.file_meta.TransferSyntaxUID)
        opened = entity.associate("127.0.0.1", service.dicom_port)
        assert opened.is_established
        killer = threading.Timer(0.2 + chance.random() * 0.4, service.kill)
        killer.start()
        while opened.is_established:
            image.SOPInstanceUID = uid = generate_uid()
            image.file_meta.MediaStorageSOPInstanceUID = uid
            try:
                answer = opened.send_c_store(image)
            except RuntimeError:
                break  # the kill came between two instances
            if "Status" in answer and answer.Status == 0:
                acknowledged.add(uid)
        killer.join()
    assert len(acknowledged) > 20
    service.start()
    kept = {UID(file.stem) for file in (service.storage / "spool" / study).glob("*.dcm")}
    assert acknowledged <= kept
    assert all(dcmread(file).PixelData for file in (service.storage / "spool" / study).glob("*.dcm"))
    rows = service.studies(study)
    # The interrupted instance may have been placed before the kill: it was adopted, or was never whole.
    assert rows[-1]["instances"] == len(kept)
    assert len(kept) <= len(acknowledged) + 3
    assert service.stop() == 0


def test_two_services_never_share_a_storage_and_a_taken_port_is_named(tmp_path: Path) -> None:
    first = Service(tmp_path / "one", NOWHERE, inference={"bundle": str(tmp_path / "none")}).start()
    second = Service(
        tmp_path / "two",
        NOWHERE,
        storage={"root": str(first.storage)},
        inference={"bundle": str(tmp_path / "none")},
    )
    with pytest.raises(AssertionError, match="is in use by another outpost process"):
        second.start()
    third = Service(
        tmp_path / "three",
        NOWHERE,
        api={"port": first.http_port},
        inference={"bundle": str(tmp_path / "none")},
    )
    with pytest.raises(AssertionError, match=f"api.port: cannot listen on 127.0.0.1:{first.http_port}"):
        third.start()
    assert first.stop() == 0


def test_a_wrong_configuration_ends_at_once_with_status_2(tmp_path: Path) -> None:
    service = Service(tmp_path, NOWHERE, study={"quite_seconds": 5})
    with pytest.raises(
        AssertionError, match=r"(?s)ended with 2: .*study\.quite_seconds.*did you mean quiet_seconds"
    ):
        service.start()


def test_sigterm_in_the_middle_of_a_transfer_ends_within_seconds(tmp_path: Path) -> None:
    service = Service(tmp_path, NOWHERE, inference={"bundle": str(tmp_path / "none")}).start()
    entity = AE("PEER")
    entity.add_requested_context(CTImageStorage)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    assert opened.is_established
    assert service.process is not None
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=15) == 0
    assert time.monotonic() - begun < 10
    assert not answers(service.dicom_port)
    opened.abort()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_refused_and_malformed_instances_leave_nothing_of_the_patient_in_log_or_replies(
    service: Service, tmp_path: Path
) -> None:
    """The canary stands wherever a value can: UIDs, descriptions, broken VRs, raw bytes, the protocol itself."""
    values = {
        "PatientName": CANARY,
        "PatientID": CANARY,
        "SeriesDescription": CANARY,
        "StudyDescription": CANARY,
    }
    replies = []

    def send(image: Dataset, name: str) -> None:
        image.save_as(tmp_path / name)
        sent = service.storescu(tmp_path / name, options=["-d"])
        replies.extend(line for line in (sent.stdout + sent.stderr).splitlines() if "Error Comment" in line)
        replies.append(service.stow(tmp_path / name).text)

    known = copy_of("CT_small.dcm", tmp_path / "known.dcm", **values)
    send(known, "known.dcm")
    known.PatientComments = f"{CANARY} other content"
    send(known, "conflict.dcm")
    send(copy_of("CT_small.dcm", tmp_path / "x", **values, StudyInstanceUID=f"1.2.{CANARY}"), "unsafe.dcm")
    send(copy_of("CT_small.dcm", tmp_path / "x", **values, SeriesInstanceUID=""), "missing.dcm")
    # Values that pydicom warns about and quotes: a date, a number and an age that are none; a foreign charset.
    whole = (tmp_path / "known.dcm").read_bytes()
    for old, new in (
        (b"19970430", b"KANAREY1"),
        (b"ISO_IR 100", b"KANAREYKA!"),
        (b"CS", b"DS"),
        (b"UI", b"US"),
    ):
        (tmp_path / "broken.dcm").write_bytes(whole[:132] + whole[132:].replace(old, new))
        replies.append(service.stow(tmp_path / "broken.dcm").text)
    for cut in (200, 400, 700, 1000):
        (tmp_path / "torn.dcm").write_bytes(whole[:cut] + CANARY.encode() * 20)
        replies.append(service.stow(tmp_path / "torn.dcm").text)
    boundary = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={CANARY}'}
    replies.append(service.http.post("/dicom-web/studies", content=CANARY * 9, headers=boundary).text)
    for head in (b"\x01\0\0\0\0\x44", b"\x04\0\0\0\0\x44", b"\x09\0\0\0\0\x44", b"\x01\0\xff\xff\xff\xff"):
        with socket.create_connection(("127.0.0.1", service.dicom_port)) as connection:
            connection.sendall(head + CANARY.encode() * 20)
    wait_for(lambda: answers(service.dicom_port), 5, "the listener lives")
    said = service.log
    for code in ("CONTENT_CONFLICT", "UID_UNSAFE", "UID_MISSING", "NOT_DICOM"):
        assert code in said, "or the canary would prove nothing"
    assert CANARY not in said
    assert "KANAREY" not in said
    assert not [reply for reply in replies if CANARY in reply]


# --- the listener alone, in this process: what needs no service around it ---


class Receiver:
    """The real listener over a real spool and journal; its log is pytest's caplog."""

    def __init__(self, root: Path, **intake: Any) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.port = root, free_port()
        config = Intake(**{"check_called_ae_title": False} | intake, listen="127.0.0.1", dicom_port=self.port)
        self.journal = Journal(root / "journal.sqlite3", "brain")
        self.spool = Spool(root, self.journal, config.disk_reserve_mib, config.disk_used_percent)
        self.assembly = Assembly(self.journal, 3600)
        self.scp = StorageScp(config, self.spool, self.assembly)
        self.scp.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.scp.stop()
        self.journal.close()

    def storescu(self, *paths: Path, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/usr/bin/storescu", "-v", *options, "127.0.0.1", str(self.port), *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def rejects(self, entity: AE, called: str = "ANY-SCP") -> Association | None:
        """The association that this one asked for, where it was rejected; None where it was accepted.

        On a busy machine pynetdicom's requestor, 3 times in 100, aborts what was just rejected, and knows no reason
        then; a plain socket has got 600 rejections of 600. So it asks again.
        """
        for _ in range(5):
            opened = entity.associate("127.0.0.1", self.port, ae_title=called)
            if opened.is_established:
                opened.release()
                return None
            if opened.is_rejected:
                return opened
        raise AssertionError("aborted five times, and never rejected")

    def kept(self) -> set[str]:
        return {file.stem for file in self.spool.studies.glob("[0-9]*/*.dcm")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it and a stranger's authority signed, as PEM files."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["/usr/bin/openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for authority in ("ca", "stranger-ca"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={authority}"),
            *("-keyout", f"{authority}.key", "-out", f"{authority}.pem"),
        )
    for name, authority in (("outpost", "ca"), ("pacs", "ca"), ("stranger", "stranger-ca")):
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"),
            *("-CAcreateserial", "-days", "2", "-out", f"{name}.pem"),
        )
    return folder


def tls(certificates: Path, **values: Any) -> Tls:
    files = {
        "certificate": certificates / "outpost.pem",
        "key": certificates / "outpost.key",
        "ca": certificates / "ca.pem",
    }
    return Tls(**(files | values))


def as_client(certificates: Path, name: str) -> list[str]:
    key, certificate = certificates / f"{name}.key", certificates / f"{name}.pem"
    return ["+tls", str(key), str(certificate), "+cf", str(certificates / "ca.pem"), "-rc"]


def test_instances_come_over_tls_from_a_client_whose_certificate_we_trust(
    tmp_path: Path, certificates: Path
) -> None:
    large = copy_of("CT_small.dcm", tmp_path / "large.dcm")
    large.PixelData = random.Random(3).randbytes(4 << 20)
    large.save_as(tmp_path / "large.dcm")
    small = copy_of("CT_small.dcm", tmp_path / "small.dcm")
    with Receiver(tmp_path / "root", tls=tls(certificates)) as receiver:
        sent = receiver.storescu(
            tmp_path / "large.dcm", tmp_path / "small.dcm", options=as_client(certificates, "pacs")
        )
        assert sent.returncode == 0, sent.stderr
        assert receiver.kept() == {large.SOPInstanceUID, small.SOPInstanceUID}
        [file] = receiver.spool.studies.glob(f"*/{large.SOPInstanceUID}.dcm")
        assert dcmread(file).PixelData == large.PixelData


def test_without_a_trusted_certificate_nothing_comes_over_tls(
    tmp_path: Path, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    anonymous = ["+tla", "+cf", str(certificates / "ca.pem"), "-rc"]
    with Receiver(tmp_path / "root", tls=tls(certificates)) as receiver:
        assert receiver.storescu(tmp_path / "x.dcm").returncode != 0, "plain DICOM"
        assert receiver.storescu(tmp_path / "x.dcm", options=anonymous).returncode != 0
        stranger = receiver.storescu(tmp_path / "x.dcm", options=as_client(certificates, "stranger"))
        assert stranger.returncode != 0
        assert receiver.kept() == set()
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("outpost.")]
        assert len(lines) == 3, "one for each"
        assert all("connection of 127.0.0.1 refused: TLS_HANDSHAKE" in line for line in lines)
        assert receiver.storescu(tmp_path / "x.dcm", options=as_client(certificates, "pacs")).returncode == 0
    with Receiver(tmp_path / "open", tls=tls(certificates, require_client_certificate=False)) as receiver:
        assert receiver.storescu(tmp_path / "x.dcm", options=anonymous).returncode == 0
        assert receiver.kept() == {sample.SOPInstanceUID}


def test_tls_older_than_1_2_is_not_spoken(tmp_path: Path, certificates: Path) -> None:
    with Receiver(tmp_path / "root", tls=tls(certificates, require_client_certificate=False)) as receiver:
        for version, wanted in (("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
            with socket.create_connection(("127.0.0.1", receiver.port)) as plain:
                try:
                    context.wrap_socket(plain).close()
                    spoken = True
                except (ssl.SSLError, ConnectionResetError):
                    spoken = False
            assert spoken is wanted, version


def test_a_client_that_never_shakes_hands_keeps_nobody_waiting(tmp_path: Path, certificates: Path) -> None:
    copy_of("CT_small.dcm", tmp_path / "x.dcm")
    with Receiver(tmp_path / "root", tls=tls(certificates)) as receiver:
        silent = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(3)]
        begun = time.monotonic()
        assert receiver.storescu(tmp_path / "x.dcm", options=as_client(certificates, "pacs")).returncode == 0
        assert time.monotonic() - begun < 5
        for connection in silent:
            connection.close()


@pytest.mark.parametrize("key", ["certificate", "key", "ca"])
def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path, certificates: Path, key: str) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(TlsUnusable, match=rf"intake\.tls\.{key}: {missing} cannot be read"):
        server_context(tls(certificates, **{key: missing}), "intake.tls")
    torn = tmp_path / "torn.pem"
    torn.write_text("-----BEGIN nothing")
    with pytest.raises(TlsUnusable, match=str(torn)):
        server_context(tls(certificates, **{key: torn}), "intake.tls")


def test_a_key_of_another_certificate_or_with_a_password_is_named(tmp_path: Path, certificates: Path) -> None:
    with pytest.raises(TlsUnusable, match="belongs together"):
        client_context(tls(certificates, key=certificates / "pacs.key"), "delivery.tls")
    locked = tmp_path / "locked.key"
    command = [
        "/usr/bin/openssl",
        "rsa",
        "-aes256",
        "-passout",
        "pass:x",
        "-in",
        certificates / "outpost.key",
    ]
    subprocess.run([*command, "-out", locked], check=True, capture_output=True)
    with pytest.raises(TlsUnusable, match=r"delivery\.tls\.key: .*is encrypted"):
        client_context(tls(certificates, key=locked), "delivery.tls")


@pytest.mark.parametrize("mark", [{"disk_reserve_mib": 6}, {"disk_used_percent": 75, "disk_reserve_mib": 0}])
def test_intake_closes_before_the_disk_is_full_loses_nothing_and_opens_again_by_itself(
    tmp_path: Path, mark: dict[str, Any]
) -> None:
    """A file system of 24 MiB, sent to until refused; either mark leaves 6 MiB of it free."""
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", root], check=True)
    try:
        with Receiver(root, **mark) as receiver:
            image = copy_of("CT_small.dcm", tmp_path / "image.dcm")
            image.PixelData = random.Random(5).randbytes(150_000)
            entity = AE("PEER")
            entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
            acknowledged, statuses = set(), []
            opened = entity.associate("127.0.0.1", receiver.port)
            while len(statuses) < 200 and statuses.count(0xA700) < 3:
                image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
                answer = opened.send_c_store(image)
                statuses.append(answer.Status)
                if answer.Status == 0:
                    acknowledged.add(str(image.SOPInstanceUID))
            opened.release()
            assert len(acknowledged) > 10
            assert statuses[-3:] == [0xA700] * 3, "an open association is answered for each instance"
            assert receiver.rejects(entity), "and a new one is refused"
            assert 4 << 20 < receiver.spool.free_bytes() < 8 << 20
            assert receiver.kept() == acknowledged
            assert receiver.journal.instances_received() == len(acknowledged)
            receiver.journal.note_event("TEST", "the journal still writes")
            [study] = receiver.journal.revisions(image.StudyInstanceUID)

            receiver.spool.remove_study(study)
            opened = entity.associate("127.0.0.1", receiver.port)
            assert opened.is_established
            assert opened.send_c_store(image).Status == 0
            opened.release()
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


def test_an_instance_larger_than_the_room_left_ends_before_the_disk_does(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", root], check=True)
    try:
        with Receiver(root, disk_reserve_mib=20) as receiver:
            image = copy_of("CT_small.dcm", tmp_path / "image.dcm")
            image.PixelData = bytes(70 << 20)
            image.save_as(tmp_path / "image.dcm")
            assert receiver.storescu(tmp_path / "image.dcm").returncode != 0
            wait_for(lambda: not list(receiver.spool.incoming.iterdir()), 10, "the half instance is gone")
            copy_of("CT_small.dcm", tmp_path / "small.dcm")
            wait_for(lambda: receiver.storescu(tmp_path / "small.dcm").returncode == 0, 10, "it takes again")
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


def test_no_more_associations_are_open_than_configured(tmp_path: Path) -> None:
    with Receiver(tmp_path / "root", max_associations=2) as receiver:
        entity = AE("PEER")
        entity.add_requested_context(CTImageStorage)
        first, second = (entity.associate("127.0.0.1", receiver.port) for _ in range(2))
        assert (first.is_established, second.is_established) == (True, True)
        assert receiver.rejects(entity)
        first.release()
        wait_for(lambda: receiver.storescu(sample("CT_small.dcm")).returncode == 0, 10, "a place is free")
        second.release()
