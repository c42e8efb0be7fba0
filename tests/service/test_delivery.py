"""Proof of delivery and order, against Orthanc, and against peers that misbehave as a test says."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from running import CANARY, STARTED, Orthanc, answers, free_port, wait_for

from outpost.config import Delivery, Destination, Intake, Tls
from outpost.delivery.commitment import Reports
from outpost.delivery.courier import Courier
from outpost.delivery.outbox import Outbox
from outpost.delivery.scu import PUSH_MODEL
from outpost.intake.assembly import Assembly
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.records.journal import Instance, Journal, StudyRecord

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Sender:
    """Journal, outbox, couriers and the listener for reports: the sending half of the service."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.journal = Journal(root / "journal.sqlite3", "brain")
        self.outbox = Outbox(root)
        self.couriers: list[Courier] = []
        self.threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self.scp: StorageScp | None = None
        self._count = 0

    def start(self, *destinations: Destination, **settings: Any) -> Sender:
        times = {"retry_first_seconds": 0.2, "retry_max_seconds": 0.4} | settings
        config = Delivery(destinations=destinations, **times)
        reports = Reports(self.journal, self._wake)
        intake = Intake(
            check_called_ae_title=False,
            listen="127.0.0.1",
            dicom_port=self.port,
            disk_reserve_mib=0,
            disk_used_percent=100,
        )
        spool = Spool(self.root, self.journal, 0, 100)
        self.scp = StorageScp(intake, spool, Assembly(self.journal, 5), reports.take)
        self.scp.start()
        self.couriers = [
            Courier(d, config, "OUTPOST", self.journal, self.outbox, reports) for d in destinations
        ]
        self.threads = [threading.Thread(target=c.run, args=(self.stopping,)) for c in self.couriers]
        for thread in self.threads:
            thread.start()
        return self

    def _wake(self) -> None:
        for courier in self.couriers:
            courier.wake()

    def stop(self) -> None:
        self.stopping.set()
        self._wake()
        for thread in self.threads:
            thread.join(20)
        if self.scp is not None:
            self.scp.stop()
        self.journal.close()

    def put(self, study_uid: str = "", files: int = 1) -> StudyRecord:
        """A study, or a further revision of it, whose results lie in the outbox."""
        uid = study_uid or generate_uid()
        self._count += 1
        _, study = self.journal.add(
            Instance(generate_uid(), uid, generate_uid(), "1.2", "1.2", "MR", str(self._count), 1)
        )
        assert study is not None
        self.journal.complete(study.row)
        self.journal.begin_inference(study.row)
        with self.outbox.work_folder(study) as work:
            for _ in range(files):
                _write_result(work, uid)
            self.outbox.publish(study, work)
        self.journal.begin_delivery(
            study.row,
            model="m",
            model_version="1",
            engine="e",
            precision="f32",
            rung="full",
            device="cpu",
            inference_seconds=1,
        )
        self._wake()
        return study

    def results(self, study: StudyRecord) -> list[str]:
        return [file.stem for file in self.outbox.files(study)]

    def wait_delivered(self, *studies: StudyRecord, seconds: float = 30) -> None:
        def all_delivered() -> bool:
            return all(self.journal.study(study.row).state == "delivered" for study in studies)

        wait_for(all_delivered, seconds, "delivered")

    def is_delivering(self, study: StudyRecord) -> bool:
        return self.journal.study(study.row).state == "delivering" and bool(self.outbox.files(study))


def _write_result(folder: Path, study_uid: str) -> None:
    result = Dataset()
    result.SOPClassUID, result.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    result.StudyInstanceUID, result.SeriesInstanceUID = study_uid, generate_uid()
    result.PatientName = result.PatientID = CANARY
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.save_as(folder / f"{result.SOPInstanceUID}.dcm", enforce_file_format=True)


class Pacs:
    """A PACS that commits as `answer` says: for each request (its instances), what to report, or None."""

    def __init__(
        self, report_to: int, answer: Callable[[list[str]], tuple[list[str], list[str]] | None]
    ) -> None:
        self.port = free_port()
        self.stored: list[str] = []
        self.asked: list[tuple[str, list[str]]] = []  # transaction UID, instances
        self.refuse: set[str] = set()
        self.associations = 0
        self.same_association = False
        self._report_to, self._answer = report_to, answer
        self._entity = AE("PACS")
        self._entity.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
        self._entity.add_supported_context(PUSH_MODEL)
        self._server: Any = None

    def start(self) -> Pacs:
        self._server = self._entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_ACCEPTED, self._on_accepted),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_N_ACTION, self._on_action),
            ],
        )
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def _on_accepted(self, _event: evt.Event) -> None:
        self.associations += 1

    def _on_store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in self.refuse:
            return 0xC000
        self.stored.append(uid)
        return 0x0000

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        asked = [
            str(item.ReferencedSOPInstanceUID) for item in event.action_information.ReferencedSOPSequence
        ]
        transaction = str(event.action_information.TransactionUID)
        self.asked.append((transaction, asked))
        said = self._answer(asked)
        if said is not None:
            association = event.assoc if self.same_association else None
            threading.Thread(target=self.report, args=(transaction, *said, association)).start()
        return 0x0000, None

    def report(
        self, transaction: str, committed: list[str], failed: list[str], association: Any = None
    ) -> int:
        """N-EVENT-REPORT; returns the status of the answer."""
        report = Dataset()
        report.TransactionUID = transaction
        report.ReferencedSOPSequence = [_item(uid) for uid in committed]
        if failed:
            report.FailedSOPSequence = [_item(uid, 0x0112) for uid in failed]
        opened = association
        if opened is None:
            caller = AE("PACS")
            caller.add_requested_context(PUSH_MODEL)
            from pynetdicom import build_role

            role = build_role(PUSH_MODEL, scp_role=True)
            opened = caller.associate("127.0.0.1", self._report_to, ext_neg=[role])
            assert opened.is_established
        else:
            time.sleep(0.1)  # the answer to the request goes first
        status, _ = opened.send_n_event_report(
            report, 2 if failed else 1, PUSH_MODEL, "1.2.840.10008.1.20.1.1"
        )
        if association is None:
            opened.release()
        return int(status.Status)


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SecondaryCaptureImageStorage, uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _all(asked: list[str]) -> tuple[list[str], list[str]]:
    return asked, []


def _dimse(port: int, *, commitment: bool = False, title: str = "PACS") -> Destination:
    return Destination(name="pacs", ae_title=title, host="127.0.0.1", port=port, commitment=commitment)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    sender = Sender(tmp_path / "brain") if (tmp_path / "brain").mkdir() is None else None
    assert sender is not None
    yield sender
    sender.stop()


@pytest.fixture
def pacs(request: pytest.FixtureRequest, sender: Sender) -> Iterator[Pacs]:
    pacs = Pacs(sender.port, getattr(request, "param", _all))
    yield pacs
    pacs.stop()


def test_orthanc_commits_on_an_association_of_its_own_and_only_then_a_result_leaves_the_outbox(
    sender: Sender, tmp_path: Path
) -> None:
    orthanc = Orthanc(tmp_path / "orthanc", {"outpost": ["OUTPOST", "127.0.0.1", sender.port]})
    try:
        study = sender.put(files=2)
        results = sender.results(study)
        sender.start(_dimse(orthanc.port, commitment=True, title="ORTHANC"))
        sender.wait_delivered(study)
        held = {
            orthanc.http.get(f"/instances/{i}/simplified-tags").json()["SOPInstanceUID"]
            for i in orthanc.http.get("/instances").json()
        }
    finally:
        orthanc.stop()
    deliveries = sender.journal.deliveries(study.row)
    assert held == set(results)
    assert all(d.stored_at and d.transaction_uid and d.confirmed_at for d in deliveries)
    assert all(d.confirmed_at > d.commitment_asked_at for d in deliveries)  # type: ignore[operator]


@pytest.mark.skipif(not DICOMWEB.exists(), reason="Debian's orthanc-dicomweb is not installed")
def test_orthanc_takes_a_result_by_stow_and_its_reply_is_the_proof(sender: Sender, tmp_path: Path) -> None:
    orthanc = Orthanc(tmp_path / "orthanc", {}, plugins=[str(DICOMWEB)])
    try:
        study = sender.put()
        (result,) = sender.results(study)
        url = f"http://127.0.0.1:{orthanc.http_port}/dicom-web/studies"
        sender.start(Destination(name="pacs", stow_url=url))
        sender.wait_delivered(study)
        (held,) = orthanc.http.get("/instances").json()
        assert orthanc.http.get(f"/instances/{held}/simplified-tags").json()["SOPInstanceUID"] == result
    finally:
        orthanc.stop()


@pytest.mark.parametrize("status", [200, 202, 409, 413])
def test_a_stow_reply_that_does_not_name_the_instance_or_names_it_as_failed_proves_nothing(
    sender: Sender, status: int
) -> None:
    class Handler(BaseHTTPRequestHandler):
        seen: list[str] = []  # noqa: RUF012
        failed: list[str] = []  # noqa: RUF012

        def do_POST(self) -> None:
            while (size := int(self.rfile.readline(), 16)) > 0:
                self.rfile.read(size + 2)
            self.rfile.readline()
            self.seen.append(self.headers["Authorization"])
            value = [{"00081155": {"Value": [uid]}, "00081197": {"Value": [272]}} for uid in self.failed]
            body = json.dumps({"00081198": {"Value": value}} if status == 409 else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        study = sender.put()
        Handler.failed = sender.results(study)
        url = f"http://127.0.0.1:{server.server_port}/studies"
        sender.start(Destination(name="pacs", stow_url=url, stow_token="s3cret"))
        wait_for(lambda: len(Handler.seen) >= 2, 20, "it is tried again")
        assert sender.is_delivering(study)
        assert set(Handler.seen) == {"Bearer s3cret"}
        (delivery,) = sender.journal.deliveries(study.row)
        assert str(status if status != 409 else 272) in delivery.error
    finally:
        server.shutdown()
        server.server_close()


def test_what_a_pacs_took_with_success_and_then_lost_is_sent_again(sender: Sender) -> None:
    first = iter([True])
    pacs = Pacs(sender.port, lambda asked: ([], asked) if next(first, False) else (asked, [])).start()
    try:
        study = sender.put()
        (result,) = sender.results(study)
        sender.start(_dimse(pacs.port, commitment=True))
        sender.wait_delivered(study)
    finally:
        pacs.stop()
    assert pacs.stored == [result, result]
    assert len(pacs.asked) == 2


def test_a_report_on_the_same_association_counts(sender: Sender, pacs: Pacs) -> None:
    pacs.same_association = True
    study = sender.put()
    sender.start(_dimse(pacs.start().port, commitment=True))
    sender.wait_delivered(study)
    assert pacs.associations == 1


@pytest.mark.parametrize("pacs", [lambda _asked: None], indirect=True, ids=["silent"])
def test_a_pacs_that_does_not_report_is_asked_again_also_after_a_restart_but_sent_nothing_twice(
    sender: Sender, pacs: Pacs
) -> None:
    study = sender.put()
    results = sender.results(study)
    pacs.start()
    sender.start(_dimse(pacs.port, commitment=True), commitment_seconds=0.5)
    wait_for(lambda: len(pacs.asked) >= 2, 20, "asked again")
    assert sender.is_delivering(study)
    sender.stop()
    again = Sender(sender.root)
    again.port = sender.port
    try:
        before = len(pacs.asked)
        again.start(_dimse(pacs.port, commitment=True), commitment_seconds=300)
        # The last request of the run before still counts: its report comes to the service started since.
        transaction = again.journal.deliveries(study.row)[0].transaction_uid
        assert pacs.report(transaction, results, []) == 0
        again.wait_delivered(study)
        assert len(pacs.asked) <= before + 1
    finally:
        again.stop()
        sender.journal = Journal(sender.root / "journal.sqlite3", "brain")  # for the fixture to close
        sender.scp = None
    assert pacs.stored == results


@pytest.mark.parametrize("pacs", [lambda _asked: None], indirect=True, ids=["silent"])
def test_a_report_on_an_unknown_transaction_or_a_foreign_instance_proves_nothing(
    sender: Sender, pacs: Pacs
) -> None:
    study = sender.put()
    results = sender.results(study)
    pacs.start()
    sender.start(_dimse(pacs.port, commitment=True))
    wait_for(lambda: pacs.asked, 20, "asked")
    pacs.report("1.2.3", results, [])
    pacs.report("", results, [])
    pacs.report(pacs.asked[0][0], ["1.2.3.4"], [])
    time.sleep(0.5)
    assert sender.is_delivering(study)
    pacs.report(pacs.asked[0][0], results, [])
    sender.wait_delivered(study)


@pytest.mark.parametrize("pacs", [lambda _asked: None], indirect=True, ids=["silent"])
def test_a_later_revision_waits_until_the_one_before_it_is_proven(sender: Sender, pacs: Pacs) -> None:
    first = sender.put(generate_uid())
    second = sender.put(first.study_uid)
    other = sender.put()
    of_first, of_second, of_other = map(sender.results, (first, second, other))
    pacs.start()
    sender.start(_dimse(pacs.port, commitment=True))
    wait_for(lambda: pacs.asked, 20, "asked")
    time.sleep(1.5)
    assert pacs.stored == [*of_first, *of_other]
    pacs.report(pacs.asked[0][0], [*of_first, *of_other], [])
    wait_for(lambda: len(pacs.asked) == 2, 20, "the second revision follows")
    assert pacs.stored == [*of_first, *of_other, *of_second]


def test_a_study_whose_results_are_lost_is_computed_again_and_not_called_delivered(
    sender: Sender, pacs: Pacs
) -> None:
    study = sender.put()
    shutil.rmtree(sender.outbox.files(study)[0].parent)
    sender.start(_dimse(pacs.start().port))
    wait_for(lambda: sender.journal.study(study.row).state != "delivering", 10, "the loss is seen")
    assert sender.journal.study(study.row).state == "complete"


def test_a_refused_result_holds_up_its_own_study_and_no_other(sender: Sender, pacs: Pacs) -> None:
    refused = sender.put(generate_uid(), files=2)
    later = sender.put(refused.study_uid)
    other = sender.put()
    of_refused, of_later, of_other = map(sender.results, (refused, later, other))
    pacs.refuse = {of_refused[0]}
    pacs.start()
    sender.start(_dimse(pacs.port))
    sender.wait_delivered(other)
    assert pacs.stored == of_other
    pacs.refuse = set()
    sender.wait_delivered(refused, later)
    assert pacs.stored == [*of_other, *of_refused, *of_later]


def test_three_hundred_studies_that_waited_for_the_link_arrive_once_and_in_order_over_few_associations(
    sender: Sender, pacs: Pacs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "outpost")
    studies = [sender.put() for _ in range(300)]
    wanted = [uid for study in studies for uid in sender.results(study)]
    sender.start(_dimse(pacs.port))
    time.sleep(1.5)  # nobody listens yet
    assert len(sender.journal.in_state("delivering")) == 300
    pacs.start()
    sender.wait_delivered(*studies, seconds=180)
    assert pacs.stored == wanted
    assert pacs.associations <= 5
    said = caplog.text
    assert CANARY not in said
    assert not [uid for uid in [*wanted, *(s.study_uid for s in studies)] if uid in said]


def test_over_tls_a_result_goes_only_to_a_peer_whose_certificate_we_trust(
    sender: Sender, tmp_path: Path
) -> None:
    for name in ("outpost", "pacs", "stranger"):
        subject = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        subprocess.run(["/usr/bin/openssl", *subject, *files], cwd=tmp_path, check=True, capture_output=True)
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()

    def storescp(name: str) -> subprocess.Popen[bytes]:
        keys = ["+tls", f"{name}.key", f"{name}.pem", "+cf", "outpost.pem", "-rc"]
        program = ["/usr/bin/storescp", *keys, "-od", str(folder), "+xa", str(port)]
        process = subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.DEVNULL)
        STARTED.append(process)
        wait_for(lambda: answers(port), 10, "storescp listens")
        return process

    ours = Tls(certificate=tmp_path / "outpost.pem", key=tmp_path / "outpost.key", ca=tmp_path / "pacs.pem")
    study = sender.put()
    results = sender.results(study)
    stranger = storescp("stranger")
    sender.start(_dimse(port).model_copy(update={"tls": ours}))
    wait_for(lambda: sender.journal.deliveries(study.row), 20, "an attempt fails")
    assert sender.is_delivering(study)
    stranger.kill()
    stranger.wait()
    pacs = storescp("pacs")
    try:
        sender.wait_delivered(study)
    finally:
        pacs.kill()
        pacs.wait()
    (received,) = folder.iterdir()
    assert str(dcmread(received).SOPInstanceUID) == results[0]
