"""Peers of every mind, met half way: what they take, what they say, and what we make of it."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from prometheus_client import generate_latest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)
from pynetdicom import AE, evt
from running import CANARY, STARTED, Service, answers, free_port, wait_for
from test_delivery import Pacs, Sender

from outpost.api.metrics import Metrics
from outpost.config import Destination, Tls
from outpost.delivery import courier as couriers
from outpost.delivery import link as links
from outpost.delivery.cause import Cause, Outcome, PeerUnreachable, status_of
from outpost.delivery.scu import Peer, echo
from outpost.delivery.send import send
from outpost.delivery.stow import StowPeer
from outpost.events import EventCode
from outpost.records.journal import Delivery, StudyRecord


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier with nothing to do looks about more often: tests wait for it."""
    monkeypatch.setattr(couriers, "_IDLE_SECONDS", 0.1)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    (tmp_path / "brain").mkdir()
    sender = Sender(tmp_path / "brain")
    yield sender
    sender.stop()


class Archive:
    """A PACS of pynetdicom that answers as `says` tells for the instances it is asked to take."""

    def __init__(
        self,
        syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian,),
        classes: tuple[str, ...] = (SecondaryCaptureImageStorage,),
    ) -> None:
        self.says: dict[str, int] = {}
        self.otherwise = 0x0000
        self.stored: list[str] = []
        self.asked: list[str] = []
        self.wait_seconds = 0.0
        self.entity = AE("PACS")
        for one in classes:
            self.entity.add_supported_context(one, list(syntaxes))
        self.entity.add_supported_context("1.2.840.10008.1.1")
        self._server: Any = self.entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)]
        )
        self.port: int = self._server.server_address[1]

    def _on_store(self, event: evt.Event) -> Dataset:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.asked.append(uid)
        answer = Dataset()
        answer.Status = self.says.get(uid, self.otherwise)
        if answer.Status not in (0x0000, 0x0111):
            answer.ErrorComment = f"about {CANARY}"
            answer.OffendingElement = [0x00100020]
        if status_of(answer.Status).outcome is not Outcome.FAILED and uid not in self.stored:
            self.stored.append(uid)
        time.sleep(self.wait_seconds)
        return answer

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def archive() -> Iterator[Archive]:
    archive = Archive()
    yield archive
    archive.stop()


def _to(port: int, **values: Any) -> Destination:
    return Destination(**{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, **values})


def _events(sender: Sender, code: EventCode) -> list[str]:
    return [event.detail for event in sender.journal.events() if event.code == code]


def _delivery(sender: Sender, study: StudyRecord) -> Delivery:
    (delivery,) = sender.journal.deliveries(study.row)
    return delivery


# --- transfer syntaxes ---


def test_a_pacs_that_takes_implicit_vr_alone_gets_segmentation_and_report_with_the_same_values(
    sender: Sender, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "outpost")
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    storescp = subprocess.Popen(["/usr/bin/storescp", "-od", str(folder), "+xi", str(port)])
    STARTED.append(storescp)
    wait_for(lambda: answers(port), 10, "storescp listens")
    study = sender.put()
    outbox = sender.outbox.files(study)[0].parent
    for name in ("liver.dcm", "reportsi.dcm"):  # a binary segmentation, a structured report
        result = dcmread(str(get_testdata_file(name)))
        uid = result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        result.PatientName = result.PatientID = CANARY
        result.save_as(outbox / f"{uid}.dcm", implicit_vr=False, little_endian=True)
    before = {file.stem: file.read_bytes() for file in sender.outbox.files(study)}
    held = {str(uid): dcmread(outbox / f"{uid}.dcm") for uid in before}
    assert {read.file_meta.TransferSyntaxUID for read in held.values()} == {ExplicitVRLittleEndian}
    shutil.copytree(outbox, tmp_path / "as-it-was")
    sender.start(_to(port))
    sender.wait_delivered(study)
    storescp.kill()
    storescp.wait()
    received = {str(read.SOPInstanceUID): read for read in map(dcmread, folder.iterdir())}
    assert set(received) == set(before)
    for uid, now in received.items():
        assert now.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        for element in held[uid]:
            if not element.tag.is_private:
                assert now[element.tag].value == element.value  # of pixels implicit VR makes OB an OW
    kept = {file.stem: file.read_bytes() for file in (tmp_path / "as-it-was").iterdir()}
    assert kept == before, "the outbox stays as it was"
    assert CANARY not in caplog.text


def test_a_file_goes_as_it_is_where_the_peer_takes_both(sender: Sender) -> None:
    seen: list[str] = []
    archive = Archive(syntaxes=(ImplicitVRLittleEndian, ExplicitVRLittleEndian))
    archive._server.bind(evt.EVT_C_STORE, lambda e: seen.append(e.context.transfer_syntax) or 0)
    study = sender.put()
    sender.start(_to(archive.port))
    sender.wait_delivered(study)
    archive.stop()
    assert seen == [ExplicitVRLittleEndian]


def test_outpost_send_never_sends_a_compressed_file_as_something_else_and_says_what_it_re_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outpost.logs.configure", lambda: None)  # it would outlive the captured output
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    storescp = subprocess.Popen(["/usr/bin/storescp", "-od", str(folder), "+xi", str(port)])
    STARTED.append(storescp)
    wait_for(lambda: answers(port), 10, "storescp listens")
    explicit, compressed = tmp_path / "explicit.dcm", tmp_path / "compressed.dcm"
    shutil.copy(str(get_testdata_file("MR_small.dcm")), explicit)
    shutil.copy(str(get_testdata_file("MR_small_RLE.dcm")), compressed)
    read = dcmread(compressed)
    read.SOPInstanceUID = read.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    read.save_as(compressed)
    big = tmp_path / "big.dcm"
    shutil.copy(str(get_testdata_file("MR_small_bigendian.dcm")), big)
    deflated = tmp_path / "deflated.dcm"
    subprocess.run(["/usr/bin/dcmconv", "+td", explicit, deflated], check=True)
    peer = Peer("127.0.0.1", port, "PACS", "SEND")
    assert send(peer, [explicit, compressed, big, deflated]) == 1
    said = capsys.readouterr()
    storescp.kill()
    storescp.wait()
    assert "2 of 4 files confirmed" in said.out
    assert "2 of them in Implicit VR Little Endian" in said.out
    for refused in (compressed, big):
        assert f"{refused}: " in said.err
        assert "transfer syntaxes not supported" in said.err
    assert len(list(folder.iterdir())) == 1, "the deflated one is the explicit one again"
    assert dcmread(next(folder.iterdir())).PixelData == dcmread(explicit).PixelData


# --- statuses ---


@pytest.mark.parametrize("status", [0x0001, 0xB000, 0xB123])
def test_a_warning_is_stored_with_a_note_and_an_event_a_day(
    sender: Sender, archive: Archive, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "outpost")
    archive.otherwise = status
    studies = [sender.put(), sender.put()]
    sender.start(_to(archive.port))
    sender.wait_delivered(*studies)
    assert len(archive.asked) == 2, "once each"
    for study in studies:
        assert _delivery(sender, study).remark.startswith(f"0x{status:04X} (")
        assert "PatientID" in _delivery(sender, study).remark
    (event,) = _events(sender, EventCode.DELIVERY_REMARKED)
    assert event.startswith(f"pacs: 0x{status:04X}")
    assert caplog.text.count("stored with a warning") == 2
    assert sender.couriers[0].remarks == {f"0x{status:04X}": 2}
    assert CANARY not in caplog.text + event + str(sender.journal.deliveries(studies[0].row))


def test_a_duplicate_is_proof_of_possession(sender: Sender, archive: Archive) -> None:
    archive.otherwise = 0x0111
    study = sender.put()
    sender.start(_to(archive.port))
    sender.wait_delivered(study)
    assert len(archive.asked) == 1
    assert _delivery(sender, study).remark.startswith("0x0111")
    assert not _events(sender, EventCode.DELIVERY_REFUSED)
    assert not _events(sender, EventCode.DELIVERY_REMARKED), "nothing is wrong with it"


def test_after_a_duplicate_commitment_is_asked_for_all_the_same(sender: Sender) -> None:
    pacs = Pacs(sender.port, lambda asked: (asked, []))
    pacs._on_store = lambda _event: 0x0111  # type: ignore[method-assign] # what this PACS says
    study = sender.put()
    results = sender.results(study)
    sender.start(_to(pacs.start().port, commitment=True))
    sender.wait_delivered(study)
    pacs.stop()
    assert [asked for _, asked in pacs.asked] == [results]


@pytest.mark.parametrize("status", [0x0122, 0x0124, 0xA900, 0xC211])
def test_what_repetition_cannot_cure_holds_up_nothing_is_told_once_and_is_not_given_up(
    sender: Sender, archive: Archive, status: int
) -> None:
    refused = sender.put(generate_uid(), files=2)
    of_refused = sender.results(refused)
    archive.says[of_refused[0]] = status
    other = sender.put()
    sender.start(_to(archive.port), retry_first_seconds=0.05, retry_max_seconds=0.1)
    sender.wait_delivered(other)
    wait_for(lambda: of_refused[1] in archive.stored, 20, "the rest of the study follows")
    later = sender.put(refused.study_uid)
    sender.wait_delivered(later)
    first = sender.journal.deliveries(refused.row)[0]
    if first.file != f"{of_refused[0]}.dcm":
        first = sender.journal.deliveries(refused.row)[1]
    (event,) = _events(sender, EventCode.DELIVERY_REFUSED)
    assert f"0x{status:04X}" in event
    assert CANARY not in event
    # A later revision is there whole: the earlier one is not sent after it.
    sender.wait_delivered(refused)
    settled = next(d for d in sender.journal.deliveries(refused.row) if d.file == f"{of_refused[0]}.dcm")
    assert settled.remark == "not sent: revision 2, which replaces it, is there"
    assert of_refused[0] not in archive.stored


@pytest.mark.parametrize("status", [0xA700, 0x0110, 0x1234])
def test_what_may_pass_is_tried_again_soon_and_is_no_event(
    sender: Sender, archive: Archive, status: int
) -> None:
    study = sender.put()
    (result,) = sender.results(study)
    archive.says[result] = status
    sender.start(_to(archive.port), retry_first_seconds=0.05, retry_max_seconds=0.1)
    wait_for(lambda: archive.asked.count(result) >= 4, 20, "tried again and again")
    assert not _delivery(sender, study).refused_for
    assert f"0x{status:04X}" in _delivery(sender, study).error
    assert not _events(sender, EventCode.DELIVERY_REFUSED)
    del archive.says[result]
    sender.wait_delivered(study)
    assert _delivery(sender, study).error == ""


def test_a_refused_result_is_offered_again_when_something_new_comes_and_after_a_start(
    sender: Sender, archive: Archive
) -> None:
    archive.otherwise = 0xA900
    studies = [sender.put(), sender.put(), sender.put()]
    sender.start(_to(archive.port))
    wait_for(lambda: sender.couriers[0].refused() == {Cause.DATA_SET_MISMATCH: 3}, 20, "all refused")
    assert sender.journal.deliveries_refused() == {("pacs", "data-set-does-not-match-class"): 3}
    asked = len(archive.asked)
    time.sleep(1.5)
    assert len(archive.asked) == asked, "they wait for hours"
    archive.otherwise = 0x0000
    newest = sender.put()
    sender.wait_delivered(newest, *studies, seconds=10)
    assert sender.couriers[0].refused() == {}

    archive.otherwise = 0x0122
    again = sender.put()
    wait_for(
        lambda: _delivery(sender, again).refused_for if sender.journal.deliveries(again.row) else "", 20, "x"
    )
    sender.stop()
    archive.otherwise = 0x0000
    restarted = Sender(sender.root)
    restarted.start(_to(archive.port))
    try:
        restarted.wait_delivered(again, seconds=10)
    finally:
        restarted.stop()
        sender.journal, sender.scp = type(sender.journal)(sender.root / "journal.sqlite3", "brain"), None


def test_a_revision_that_was_refused_and_then_taken_stays_before_the_next(
    sender: Sender, archive: Archive
) -> None:
    archive.otherwise = 0x0122
    first = sender.put(generate_uid())
    second = sender.put(first.study_uid)
    of_both = [*sender.results(first), *sender.results(second)]
    sender.start(_to(archive.port), refused_retry_seconds=0.5)
    wait_for(lambda: sum(sender.couriers[0].refused().values()) == 2, 20, "both are refused")
    archive.otherwise = 0x0000
    sender.wait_delivered(first, second)
    assert archive.stored == of_both


def test_an_answer_that_comes_after_we_gave_up_loses_and_doubles_nothing(
    sender: Sender, archive: Archive
) -> None:
    archive.wait_seconds = 1.5
    sender.start(_to(archive.port))
    courier = sender.couriers[0]
    assert courier._peer is not None
    courier._peer = replace(courier._peer, answer_seconds=0.6)  # before there is anything to send
    study = sender.put()
    (result,) = sender.results(study)
    wait_for(lambda: courier.failures[Cause.NO_ANSWER] >= 1, 20, "no answer in time")
    archive.wait_seconds, archive.otherwise = 0.0, 0x0111
    sender.wait_delivered(study)
    assert archive.stored == [result]


# --- no association, or no context ---


def _raw(answer: Callable[[socket.socket], None]) -> tuple[int, socket.socket]:
    """A listener that does with each connection what the test says."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = server.accept()
            except OSError:
                return
            with accepted:
                answer(accepted)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], server


def _rejecting(result: int, source: int, reason: int) -> Callable[[socket.socket], None]:
    def answer(accepted: socket.socket) -> None:
        accepted.recv(65536)
        accepted.sendall(bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason]))
        accepted.recv(1)

    return answer


def _aborting(source: int, reason: int) -> Callable[[socket.socket], None]:
    def answer(accepted: socket.socket) -> None:
        accepted.recv(65536)
        accepted.sendall(bytes([7, 0, 0, 0, 0, 4, 0, 0, source, reason]))
        accepted.recv(1)

    return answer


RAW = [
    (_rejecting(1, 1, 3), Cause.CALLING_AE_NOT_RECOGNISED, "calling AE title not recognised", "our AE title OUTPOST"),
    (_rejecting(1, 1, 7), Cause.CALLED_AE_NOT_RECOGNISED, "called AE title not recognised", "not called PACS"),
    (_rejecting(2, 3, 1), Cause.BUSY, "temporary congestion", "again soon"),
    (_rejecting(2, 3, 2), Cause.BUSY, "local limit exceeded", "again soon"),
    (_rejecting(1, 1, 1), Cause.ASSOCIATION_REJECTED, "no reason given", "result 1, source 1, reason 1"),
    (_rejecting(2, 1, 1), Cause.BUSY, "no reason given", "transient"),
    (_rejecting(1, 2, 2), Cause.ASSOCIATION_REJECTED, "protocol version not supported", "DICOM port"),
    (_aborting(0, 0), Cause.ASSOCIATION_ABORTED, "aborted during the negotiation", "see its log"),
    (lambda accepted: None, Cause.ASSOCIATION_ABORTED, "closed the connection", "whether it wants TLS"),
]  # fmt: skip


class _Late(threading.Event):
    """What the thread that asked for an association waits for; on a busy machine it runs on some time after."""

    def wait(self, timeout: float | None = None) -> bool:
        came = super().wait(timeout)
        time.sleep(0.1)
        return came


@pytest.mark.parametrize(("answer", "cause", "said", "remedy"), RAW)
def test_an_answer_that_is_faster_than_the_thread_that_asked_is_quoted_as_well(
    monkeypatch: pytest.MonkeyPatch, answer: Any, cause: Cause, said: str, remedy: str
) -> None:
    made = links._Entity._create_socket

    def late(entity: Any, *given: Any) -> Any:
        wire = made(entity, *given)
        wire._ready = _Late()
        return wire

    monkeypatch.setattr(links._Entity, "_create_socket", late)
    port, server = _raw(answer)
    with server, pytest.raises(PeerUnreachable) as raised:
        echo(Peer("127.0.0.1", port, "PACS", "OUTPOST"))
    assert raised.value.cause is cause
    assert said in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize(("answer", "cause", "said", "remedy"), RAW)
def test_who_does_not_associate_is_quoted_with_its_own_reason_and_no_firewall(
    sender: Sender, caplog: pytest.LogCaptureFixture, answer: Any, cause: Cause, said: str, remedy: str
) -> None:
    port, server = _raw(answer)
    study = sender.put()
    sender.put()
    sender.start(_to(port), retry_first_seconds=30, retry_max_seconds=30)
    wait_for(lambda: sender.journal.deliveries(study.row), 20, "an attempt")
    time.sleep(0.3)
    server.close()
    error = _delivery(sender, study).error
    assert said in error
    assert remedy in error
    assert "firewall" not in error
    assert sender.couriers[0].failures == {cause: 1}
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("outpost.delivery")]
    assert len(lines) == 1, "one line a pause"
    assert lines[0].startswith("delivery to pacs: ")
    assert error in lines[0]


@pytest.mark.parametrize(
    ("host", "cause", "said"),
    [
        ("no-such-host.invalid", Cause.NAME_NOT_RESOLVED, "cannot be resolved"),
        ("127.0.0.1", Cause.CONNECTION_REFUSED, "nothing listens there"),
        ("127.0.0.2", Cause.NO_ROUTE, "firewall"),
    ],
)
def test_no_name_no_listener_and_no_route_are_three_reasons(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, host: str, cause: Cause, said: str
) -> None:
    monkeypatch.setattr(links, "_CONNECT_SECONDS", 1)
    # A full queue of connections drops further ones, as a firewall does.
    full = socket.socket()
    full.bind(("127.0.0.2", 0))
    full.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    port = full.getsockname()[1] if host == "127.0.0.2" else free_port()
    study = sender.put()
    sender.start(_to(port, host=host), retry_first_seconds=30, retry_max_seconds=30)
    wait_for(lambda: sender.journal.deliveries(study.row), 20, "an attempt")
    for one in (*waiting, full):
        one.close()
    assert said in _delivery(sender, study).error
    assert sender.couriers[0].failures == {cause: 1}


def test_tls_where_none_is_spoken_and_an_unknown_certificate_are_told_as_tls(
    sender: Sender, tmp_path: Path
) -> None:
    for name in ("outpost", "stranger"):
        subject = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        subprocess.run(["/usr/bin/openssl", *subject, *files], cwd=tmp_path, check=True, capture_output=True)
    tls = Tls(certificate=tmp_path / "outpost.pem", key=tmp_path / "outpost.key", ca=tmp_path / "outpost.pem")
    port = free_port()
    keys = ["+tls", "stranger.key", "stranger.pem", "-ic", "-rc"]
    storescp = subprocess.Popen(
        ["/usr/bin/storescp", *keys, str(port)], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    STARTED.append(storescp)
    wait_for(lambda: answers(port), 10, "storescp listens")
    plain, server = _raw(lambda accepted: accepted.recv(1) and None)
    study = sender.put()
    unknown = _to(port).model_copy(update={"tls": tls, "name": "unknown"})
    none = _to(plain).model_copy(update={"tls": tls, "name": "none"})
    sender.start(unknown, none, retry_first_seconds=30, retry_max_seconds=30)
    wait_for(lambda: len(sender.journal.deliveries(study.row)) == 2, 20, "both were tried")
    storescp.kill()
    storescp.wait()
    server.close()
    for delivery in sender.journal.deliveries(study.row):
        assert "TLS with 127.0.0.1" in delivery.error
        assert "firewall" not in delivery.error
    assert "certificate" in next(
        d.error for d in sender.journal.deliveries(study.row) if d.destination == "unknown"
    )
    assert [courier.failures for courier in sender.couriers] == [{Cause.TLS_FAILED: 1}] * 2


def test_a_class_that_is_not_accepted_is_told_as_that_and_holds_up_no_other_class(
    sender: Sender, archive: Archive
) -> None:
    study = sender.put()
    outbox = sender.outbox.files(study)[0].parent
    segmentation = dcmread(str(get_testdata_file("liver.dcm")))
    uid = segmentation.SOPInstanceUID = segmentation.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    segmentation.save_as(outbox / f"{uid}.dcm")
    taken = next(file.stem for file in outbox.iterdir() if file.stem != uid)
    sender.start(_to(archive.port))
    wait_for(
        lambda: archive.stored == [taken] and sender.couriers[0].refused(), 20, "the other class is there"
    )
    refused = next(d for d in sender.journal.deliveries(study.row) if d.file == f"{uid}.dcm")
    assert "abstract syntax not supported" in refused.error
    assert refused.refused_for == "sop-class-not-supported"
    (event,) = _events(sender, EventCode.DELIVERY_REFUSED)
    assert event.startswith("pacs: sop-class-not-supported: ")
    metrics = Metrics()
    metrics.follow_deliveries(sender.journal, sender.couriers)
    told = generate_latest(metrics.registry).decode()
    labels = '{destination="pacs",reason="sop-class-not-supported"} 1.0'
    assert f"outpost_delivery_failures_total{labels}" in told
    assert f"outpost_deliveries_refused{labels}" in told
    # The administrator enables it; a new study shows that, and the old one follows.
    archive.entity.add_supported_context(segmentation.SOPClassUID, ExplicitVRLittleEndian)
    archive._server.contexts = archive.entity.supported_contexts
    time.sleep(0.5)
    sender.put()
    sender.wait_delivered(study, seconds=10)


def test_where_no_transfer_syntax_is_accepted_that_is_the_reason(sender: Sender) -> None:
    archive = Archive(syntaxes=("1.2.840.10008.1.2.4.50",))
    study = sender.put()
    sender.start(_to(archive.port))
    wait_for(lambda: sender.couriers[0].refused(), 20, "refused")
    archive.stop()
    assert "transfer syntaxes not supported" in _delivery(sender, study).error
    assert _delivery(sender, study).refused_for == "transfer-syntax-not-supported"


# --- storage commitment ---


def _report(pacs: Pacs, failed: dict[str, int | None], committed: list[str], transaction: str) -> None:
    """A report with reasons of the test's choice, and an item that names no instance."""
    report = Dataset()
    report.TransactionUID = transaction
    items = []
    for uid, reason in failed.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SecondaryCaptureImageStorage, uid
        if reason is not None:
            item.FailureReason = reason
        items.append(item)
    report.FailedSOPSequence = [*items, Dataset()]
    held = []
    for uid in committed:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SecondaryCaptureImageStorage, uid
        held.append(item)
    report.ReferencedSOPSequence = held
    from pynetdicom import build_role

    caller = AE("PACS")
    caller.add_requested_context("1.2.840.10008.1.20.1")
    opened = caller.associate(
        "127.0.0.1", pacs._report_to, ext_neg=[build_role("1.2.840.10008.1.20.1", scp_role=True)]
    )
    status, _ = opened.send_n_event_report(report, 2, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1")
    opened.release()
    assert status.Status == 0


@pytest.mark.parametrize(
    ("reason", "lasting"), [(0x0119, True), (0x0122, True), (0x0112, False), (None, False)]
)
def test_a_commitment_that_is_refused_for_good_is_told_and_lets_later_revisions_pass(
    sender: Sender, reason: int | None, lasting: bool
) -> None:
    pacs = Pacs(sender.port, lambda _asked: None).start()
    first = sender.put(generate_uid())
    second = sender.put(first.study_uid)
    (of_first,), (of_second,) = sender.results(first), sender.results(second)
    # What is refused for good is tried before something later once this time is over: here it is not.
    sender.start(_to(pacs.port, commitment=True), retry_max_seconds=60 if lasting else 0.4)
    wait_for(lambda: pacs.asked, 20, "asked")
    _report(pacs, {of_first: reason}, [of_first], pacs.asked[0][0])
    if lasting:
        wait_for(lambda: of_second in pacs.stored, 20, "the later revision is not held up")
        (event,) = _events(sender, EventCode.DELIVERY_REFUSED)
        assert event.startswith("pacs: commitment-refused: ")
        # The later one may come again where the machine is slow: nobody reports on it.
        assert list(dict.fromkeys(pacs.stored)) == [of_first, of_second]
        assert pacs.stored.count(of_first) == 1, "what is refused for good is not sent again"
    else:
        wait_for(lambda: pacs.stored.count(of_first) >= 2, 20, "it is sent again")
        assert of_second not in pacs.stored
        assert not _events(sender, EventCode.DELIVERY_REFUSED)
    assert sender.is_delivering(first), "named as committed and as failed is not proven"
    pacs.stop()


def test_a_peer_without_storage_commitment_is_told_as_that(sender: Sender, archive: Archive) -> None:
    study = sender.put()
    sender.start(_to(archive.port, commitment=True))
    wait_for(lambda: sender.couriers[0].refused(), 20, "told")
    assert sender.is_delivering(study)
    assert "does not offer storage commitment" in _delivery(sender, study).error
    assert _delivery(sender, study).stored_at is not None
    assert len(archive.asked) == 1


def test_a_peer_that_never_reports_keeps_no_later_revision_back_for_ever(sender: Sender) -> None:
    pacs = Pacs(sender.port, lambda _asked: None).start()
    first = sender.put(generate_uid())
    second = sender.put(first.study_uid)
    of_both = [*sender.results(first), *sender.results(second)]
    sender.start(_to(pacs.port, commitment=True), commitment_seconds=0.5)
    wait_for(lambda: pacs.stored == of_both, 20, "in order, after some patience")
    assert sender.is_delivering(first)
    pacs.stop()


# --- STOW-RS ---


class Web:
    """A DICOMweb server that answers as the test says: (status, headers, body) of the whole request's bytes."""

    def __init__(self, say: Callable[[bytes, Any], tuple[int, dict[str, str], Any]]) -> None:
        self.bodies: list[bytes] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = b""
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while (size := int(self.rfile.readline(), 16)) > 0:
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                web.bodies.append(body)
                status, headers, said = say(body, self.headers)
                told = b"" if said is None else json.dumps(said).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(told)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/studies"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _named(uid: str, warning: int | None = None, failure: int | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    if failure is not None:
        item["00081197"] = {"vr": "US", "Value": [failure]}
    return {"00081198" if failure is not None else "00081199": {"vr": "SQ", "Value": [item]}}


def _stowed(sender: Sender, say: Any, **settings: Any) -> tuple[Web, StudyRecord, str]:
    study = sender.put()
    (uid,) = sender.results(study)
    web = Web(lambda body, headers: say(uid, body, headers))
    sender.start(Destination(name="pacs", stow_url=web.url), **settings)
    return web, study, uid


@pytest.mark.parametrize("answer", [(415, {}, None), (409, {}, 0xC122)])
def test_a_server_that_does_not_take_the_transfer_syntax_gets_the_same_values_in_another(
    sender: Sender, answer: Any
) -> None:
    def say(uid: str, body: bytes, _headers: Any) -> Any:
        if b"1.2.840.10008.1.2.1\0" in body:
            return answer[0], {}, _named(uid, failure=answer[2]) if answer[2] else None
        return 200, {}, _named(uid)

    web, study, uid = _stowed(sender, say)
    sender.wait_delivered(study)
    web.stop()
    file = web.bodies[-1].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
    (sender.root / "got.dcm").write_bytes(file)
    got = dcmread(sender.root / "got.dcm")
    assert (got.SOPInstanceUID, got.PatientName) == (uid, CANARY)
    assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian


def test_a_server_that_wants_a_length_gets_one(sender: Sender) -> None:
    def say(uid: str, _body: bytes, headers: Any) -> Any:
        return (411, {}, None) if "Content-Length" not in headers else (200, {}, _named(uid))

    web, study, _ = _stowed(sender, say)
    sender.wait_delivered(study)
    web.stop()
    assert len(web.bodies) == 2


@pytest.mark.parametrize(
    ("said", "remark"),
    [
        ({"warning": 0xB000}, "0xB000 (coercion of data elements)"),
        ({"warning": 45063}, "0xB007 (data set does not match SOP class)"),
        ({"failure": 0x0111}, "0x0111"),
        ({"failure": 45070}, "0xB00E"),
    ],
)
def test_a_warning_or_a_duplicate_of_stow_is_stored(
    sender: Sender, said: dict[str, int], remark: str
) -> None:
    status = 202 if "warning" in said else 409
    web, study, _ = _stowed(sender, lambda uid, _body, _headers: (status, {}, _named(uid, **said)))
    sender.wait_delivered(study)
    web.stop()
    assert len(web.bodies) == 1
    assert _delivery(sender, study).remark.startswith(remark)


@pytest.mark.parametrize(
    ("status", "failure", "cause", "lasting", "said"),
    [
        (409, 0x0122, Cause.SOP_CLASS_NOT_SUPPORTED, True, "enable this SOP class"),
        (409, 43264, Cause.DATA_SET_MISMATCH, True, "0xA900"),
        (409, 0x0110, Cause.PROCESSING_FAILURE, False, "processing failure"),
        (409, 0xA700, Cause.OUT_OF_RESOURCES, False, "no room"),
        (409, 45071, Cause.BUSY, False, "just being stored"),
        (400, None, Cause.REQUEST_REFUSED, True, "bad request"),
        (413, None, Cause.TOO_LARGE, True, "limit of the server"),
        (415, None, Cause.TRANSFER_SYNTAX_NOT_SUPPORTED, True, "media type"),
        (200, None, Cause.NOT_NAMED, False, "without naming the instance"),
    ],
)
def test_what_a_server_says_of_an_instance(
    sender: Sender, status: int, failure: int | None, cause: Cause, lasting: bool, said: str
) -> None:
    def say(uid: str, _body: bytes, _headers: Any) -> Any:
        return status, {}, _named(uid, failure=failure) if failure is not None else None

    web, study, _ = _stowed(sender, say, retry_first_seconds=0.05, retry_max_seconds=0.1)
    seen = sender.couriers[0]
    wait_for(lambda: seen.refused() if lasting else seen.failures[cause] >= 3, 20, "judged")
    web.stop()
    assert _delivery(sender, study).refused_for == (cause if lasting else "")
    assert said in _delivery(sender, study).error
    assert len(_events(sender, EventCode.DELIVERY_REFUSED)) == int(lasting)


@pytest.mark.parametrize(
    ("status", "headers", "cause", "said"),
    [
        (401, {}, Cause.NOT_AUTHORISED, "check stow_token"),
        (403, {}, Cause.NOT_AUTHORISED, "stow_token"),
        (404, {}, Cause.WRONG_ADDRESS, "check stow_url"),
        (405, {}, Cause.WRONG_ADDRESS, "no POST"),
        (
            308,
            {"Location": "https://else.where/studies?token=x"},
            Cause.WRONG_ADDRESS,
            "https://else.where/studies)",
        ),
        (429, {"Retry-After": "7"}, Cause.BUSY, "too many requests"),
        (503, {"Retry-After": "7"}, Cause.BUSY, "not available now"),
        (502, {}, Cause.SERVER_FAULT, "proxy"),
        (507, {}, Cause.OUT_OF_RESOURCES, "no room"),
    ],
)
def test_what_a_server_says_of_itself(
    sender: Sender, status: int, headers: dict[str, str], cause: Cause, said: str
) -> None:
    pauses = {"retry_first_seconds": 5, "retry_max_seconds": 5}
    web, study, _ = _stowed(sender, lambda *_: (status, headers, None), **pauses)
    wait_for(lambda: sender.journal.deliveries(study.row), 20, "an attempt")
    time.sleep(0.2)
    web.stop()
    assert said in _delivery(sender, study).error
    assert "token=x" not in _delivery(sender, study).error
    assert not _delivery(sender, study).refused_for
    assert sender.couriers[0].failures == {cause: 1}
    pause = sender.couriers[0]._not_before - time.monotonic()
    assert 5 < pause < 9 if headers.get("Retry-After") else pause < 6.1


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://no-such-host.invalid/studies", Cause.NAME_NOT_RESOLVED),
        ("http://127.0.0.1:{free}/studies", Cause.CONNECTION_REFUSED),
        ("https://127.0.0.1:{plain}/studies", Cause.TLS_FAILED),
        ("http://127.0.0.1:{plain}/studies", Cause.ASSOCIATION_ABORTED),
    ],
)
def test_a_web_server_that_is_not_there_is_told_by_what_is_missing(
    tmp_path: Path, url: str, cause: Cause
) -> None:
    plain, server = _raw(lambda accepted: accepted.recv(1) and None)
    file = tmp_path / "x.dcm"
    shutil.copy(str(get_testdata_file("MR_small.dcm")), file)
    peer = StowPeer(url.format(free=free_port(), plain=plain), "", None)
    from outpost.delivery.scu import PeerUnreachable

    with pytest.raises(PeerUnreachable) as told:
        peer.store(file)
    server.close()
    assert told.value.cause is cause, str(told.value)
    assert ("firewall" in str(told.value)) is (cause is Cause.NO_ROUTE)


# --- the whole service ---


def test_the_running_service_meets_an_old_a_finicky_and_an_unwilling_pacs(
    head_series: list[Path], tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "old"
    folder.mkdir()
    old = subprocess.Popen(["/usr/bin/storescp", "-od", str(folder), "+xi", str(port)])
    STARTED.append(old)
    finicky = Archive(classes=(SegmentationStorage,))
    unwilling = Archive(classes=(SegmentationStorage,))
    finicky.otherwise, unwilling.otherwise = 0xB000, 0x0122
    destinations = [("OLD", port), ("PACS", finicky.port), ("PACS", unwilling.port)]
    service = Service(tmp_path / "service", destinations).start().wait_ready()
    try:
        study = str(dcmread(head_series[0], stop_before_pixels=True).StudyInstanceUID)
        assert service.storescu(*head_series).returncode == 0

        def told() -> dict[str, Any]:
            rows = service.studies(study)
            found = {d["destination"]: d for d in rows[0]["deliveries"]} if rows else {}
            return found if len(found) == 3 else {}

        deliveries = wait_for(told, 60, "all were tried")
        (received,) = wait_for(lambda: list(folder.iterdir()), 10, "the old one has it")
        assert dcmread(received).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert hd.seg.segread(received).get_volume().array.any(), "highdicom reads the mask"
        assert deliveries["pacs0"]["confirmed_at"]
        assert deliveries["pacs1"]["confirmed_at"]
        assert deliveries["pacs1"]["remark"].startswith("0xB000 (coercion of data elements)")
        assert deliveries["pacs2"]["refused_for"] == "sop-class-not-supported"
        events = {event["code"]: event["detail"] for event in service.http.get("/events").json()}
        assert events["DELIVERY_REFUSED"].startswith("pacs2: sop-class-not-supported: the peer answered")
        assert events["DELIVERY_REMARKED"].startswith("pacs1: 0xB000")
        checks = {check["code"]: check for check in service.http.get("/health/light").json()["checks"]}
        assert checks["RESULTS_TAKEN"]["value"] == "pacs2: 1 for sop-class-not-supported"
        metrics = service.http.get("/metrics").text
        assert (
            'outpost_deliveries_refused{destination="pacs2",reason="sop-class-not-supported"} 1.0' in metrics
        )
        assert 'outpost_delivery_remarks_total{destination="pacs1",status="0xB000"} 1.0' in metrics
        assert service.http.get("/v2/health/ready").status_code == 200
        assert CANARY not in service.log
    finally:
        service.stop()
        for archive in (finicky, unwilling):
            archive.stop()
        old.kill()
        old.wait()
