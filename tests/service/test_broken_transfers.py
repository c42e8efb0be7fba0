"""Transfers that break off, at the real listener with real senders: what the journal says of their studies."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
from running import free_port, wait_for

from outpost.config import Intake
from outpost.intake import transfer as transfer_module
from outpost.intake.assembly import Assembly
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.records.journal import Journal, StudyRecord, utc_now


class Receiver:
    """The real listener over a real spool, journal and assembly."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.port = root, free_port()
        self.open()

    def open(self) -> None:
        config = Intake(check_called_ae_title=False, listen="127.0.0.1", dicom_port=self.port)
        self.journal = Journal(self.root / "journal.sqlite3", "brain")
        self.journal.transfers_cut()
        self.spool = Spool(self.root, self.journal, 0, 100, [MRImageStorage, CTImageStorage])
        self.assembly = Assembly(self.journal, 0.2, forced_seconds=60)
        self.scp = StorageScp(config, self.spool, self.assembly)
        self.scp.start()

    def close(self) -> None:
        self.scp.stop()
        self.journal.close()

    def associate(self, title: str = "CT1", contexts: Sequence[Any] = (MRImageStorage,)) -> Association:
        entity = AE(title)
        for context in contexts:
            entity.add_requested_context(context, ExplicitVRLittleEndian)
        opened = entity.associate("127.0.0.1", self.port)
        assert opened.is_established
        return opened

    def study(self, uid: str) -> StudyRecord:
        return self.journal.revisions(uid)[-1]

    def broken(self, uid: str, count: int = 1) -> tuple[str, ...]:
        """What is said of a study once as many transfers as that broke off."""
        wait_for(lambda: len(self.study(uid).broken_off) == count, 5, f"{count} sentences")
        return self.study(uid).broken_off

    def ended(self) -> None:
        wait_for(lambda: not self.assembly._transfers, 5, "every transfer has ended")

    def held(self, uid: str) -> StudyRecord:
        """The study was complete, and the worker found images missing."""
        row = self.study(uid).row
        wait_for(self.assembly.complete_due_studies, 5, "it is complete")
        self.journal.begin_inference(row)
        assert self.journal.hold(row, utc_now(), self.study(uid).broken_off)
        self.assembly.hold(row)
        return self.study(uid)

    def computed(self, uid: str) -> None:
        row = self.study(uid).row
        if self.study(uid).state == "receiving":
            self.journal.complete(row, by="forced")
        self.journal.begin_inference(row)
        self.journal.begin_delivery(
            row,
            model="m",
            model_version="1",
            engine="e",
            precision="float32",
            rung="full",
            device="cpu",
            inference_seconds=1.0,
        )


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "storage")
    yield receiver
    receiver.close()


def image(study: str, number: int, folder: Path, sop_class: str = MRImageStorage) -> Path:
    found = dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = sop_class
    found.StudyInstanceUID, found.SeriesInstanceUID = study, f"{study}.1"
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = f"{study}.9.{number}"
    path = folder / f"{study}.{number}.dcm"
    found.save_as(path)
    return path


def test_an_abort_after_some_images_is_said_of_the_study_and_a_later_release_makes_up_for_it(
    receiver: Receiver, tmp_path: Path
) -> None:
    opened = receiver.associate()
    for number in (1, 2):
        assert opened.send_c_store(image("1.2.3", number, tmp_path)).Status == 0
    opened.abort()
    [told] = receiver.broken("1.2.3")
    assert told == "the association from CT1 at 127.0.0.1 ended without being released, after 2 of this study"
    assert receiver.held("1.2.3").held_for == "STUDY_INCOMPLETE"
    [event] = receiver.journal.events()
    assert (event.code, "1.2.3" in event.detail) == ("STUDY_HELD", False)
    time.sleep(0.5)
    assert receiver.assembly.complete_due_studies() == 0, "quiet is no reason any more"

    again = receiver.associate()
    for number in (1, 2, 3):
        assert again.send_c_store(image("1.2.3", number, tmp_path)).Status == 0
    assert receiver.study("1.2.3").held_for == "", "a new image came"
    assert receiver.study("1.2.3").broken_off == (told,), "until it is released"
    again.release()
    receiver.ended()
    assert receiver.study("1.2.3").broken_off == ()
    wait_for(receiver.assembly.complete_due_studies, 5, "it is complete")
    done = receiver.study("1.2.3")
    assert (done.revision, done.state, done.completed_by, done.attempts) == (1, "complete", "quiet", 0)


def test_offering_again_what_is_known_makes_up_for_it_and_wakes_the_study(
    receiver: Receiver, tmp_path: Path
) -> None:
    opened = receiver.associate()
    assert opened.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    opened.abort()
    receiver.broken("1.2.3")
    receiver.held("1.2.3")
    again = receiver.associate("OTHER")
    assert again.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    again.release()
    wait_for(receiver.assembly.complete_due_studies, 5, "it is read again")
    assert receiver.study("1.2.3").completed_by == "quiet"


def test_a_parallel_association_that_is_released_makes_up_for_nothing(
    receiver: Receiver, tmp_path: Path
) -> None:
    one, other = receiver.associate(), receiver.associate()
    assert one.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    assert other.send_c_store(image("1.2.3", 2, tmp_path)).Status == 0
    one.abort()
    receiver.broken("1.2.3")
    other.release()
    receiver.ended()
    assert len(receiver.study("1.2.3").broken_off) == 1


def test_an_association_that_sent_nothing_or_only_of_other_studies_says_nothing(
    receiver: Receiver, tmp_path: Path
) -> None:
    whole = receiver.associate()
    assert whole.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    whole.release()
    receiver.ended()
    receiver.associate(contexts=[Verification]).abort()
    other = receiver.associate()
    assert other.send_c_store(image("7.8.9", 1, tmp_path)).Status == 0
    other.abort()
    receiver.broken("7.8.9")
    assert receiver.study("1.2.3").broken_off == ()


def raw_connection(association: Association) -> socket.socket:
    found = association.dul.socket
    assert found is not None
    assert found.socket is not None
    return found.socket


def test_a_connection_cut_in_the_middle_of_an_image_is_waited_for_and_said(
    receiver: Receiver, tmp_path: Path
) -> None:
    """The next image has begun to arrive: its study is not complete however long nothing more comes."""
    opened = receiver.associate()
    assert opened.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    # The command of a C-STORE, whose data set never comes: what a cut cable leaves.
    command = begun_store(opened, "1.2.3.9.2")
    raw_connection(opened).sendall(command)
    wait_for(lambda: any(t.in_instance() for t in receiver.assembly._transfers), 5, "an image is half here")
    time.sleep(0.6)
    assert receiver.assembly.complete_due_studies() == 0
    raw_connection(opened).shutdown(socket.SHUT_RDWR)
    [told] = receiver.broken("1.2.3")
    assert "broke off in the middle of an image, after 1 of this study" in told
    wait_for(receiver.assembly.complete_due_studies, 5, "then it is complete")


def begun_store(association: Association, sop_uid: str) -> bytes:
    """P-DATA of a C-STORE request's command set, alone."""
    request = C_STORE()
    request.MessageID, request.Priority = 77, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = MRImageStorage, sop_uid
    request.DataSet = BytesIO(b"\x08\x00\x05\x00")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    [context] = association.accepted_contexts
    pdata = next(iter(message.encode_msg(context.context_id, 16384)))
    pdu = P_DATA_TF()
    pdu.from_primitive(pdata)
    return pdu.encode()


def test_a_sender_silent_in_the_middle_of_an_image_has_broken_off_after_a_time(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "SILENT_SECONDS", 0.5)
    opened = receiver.associate()
    assert opened.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    raw_connection(opened).sendall(begun_store(opened, "1.2.3.9.2"))
    wait_for(receiver.assembly.complete_due_studies, 10, "it is complete all the same")
    assert "in the middle of an image" in receiver.broken("1.2.3")[0]
    opened.abort()


def test_a_sender_that_never_releases_is_known_for_it_after_three_studies_and_again_not_after_one_release(
    receiver: Receiver, tmp_path: Path
) -> None:
    def sent(study: str, end: str, title: str = "NEVER") -> None:
        opened = receiver.associate(title)
        assert opened.send_c_store(image(study, 1, tmp_path)).Status == 0
        if end == "abort":
            opened.abort()
        elif end == "close":
            raw_connection(opened).shutdown(socket.SHUT_RDWR)
        else:
            opened.release()
        receiver.ended()

    for number, end in enumerate(("abort", "close", "abort"), 1):
        sent(f"1.2.{number}", end)
        assert len(receiver.broken(f"1.2.{number}")) == 1
        receiver.computed(f"1.2.{number}")  # whole, by its headers
    sent("1.2.4", "abort")
    assert receiver.study("1.2.4").broken_off == ()
    sent("1.2.5", "abort", "ANOTHER")
    assert len(receiver.broken("1.2.5")) == 1, "another sender is not known for it"
    # In the middle of an image it is a sign whoever sends.
    opened = receiver.associate("NEVER")
    assert opened.send_c_store(image("1.2.6", 1, tmp_path)).Status == 0
    raw_connection(opened).sendall(begun_store(opened, "1.2.6.9.2"))
    wait_for(lambda: any(t.in_instance() for t in receiver.assembly._transfers), 5, "an image is half here")
    opened.abort()
    receiver.broken("1.2.6")
    sent("1.2.7", "release")
    sent("1.2.8", "abort")
    assert len(receiver.broken("1.2.8")) == 1, "one release, and it is to be learnt again"


def test_a_study_held_for_nothing_but_that_whose_time_ran_out_counts_too_and_a_part_does_not(
    receiver: Receiver, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        opened = receiver.associate("NEVER")
        assert opened.send_c_store(image(f"1.2.{number}", 1, tmp_path)).Status == 0
        opened.abort()
        receiver.broken(f"1.2.{number}")
        row = receiver.study(f"1.2.{number}").row
        receiver.journal.complete(row)
        receiver.journal.begin_inference(row)
        lacks = receiver.study(f"1.2.{number}").broken_off
        if number == 2:
            lacks = (*lacks, "series 1 holds 1 images, ImagesInAcquisition says 9")
        assert receiver.journal.hold(row, utc_now(), lacks)
        receiver.journal.complete(row, by="forced")
        receiver.journal.finish(row, "quarantined", "STUDY_INCOMPLETE", "; ".join(lacks))
    assert receiver.journal.fact("unreleased NEVER") == "2"


def test_what_was_open_when_the_service_died_has_broken_off(receiver: Receiver, tmp_path: Path) -> None:
    for study in ("1.2.3", "7.8.9"):
        opened = receiver.associate()
        assert opened.send_c_store(image(study, 1, tmp_path)).Status == 0
        if study == "7.8.9":
            opened.release()
            wait_for(lambda: len(receiver.assembly._transfers) == 1, 5, "one is open")
    # As kill -9 leaves it: nothing more is written.
    dead = receiver.journal
    receiver.journal = Journal(receiver.root / "journal.sqlite3", "brain")
    assert receiver.journal.transfers_cut() == 1
    [told] = receiver.study("1.2.3").broken_off
    assert told == "the service ended in the middle of a transfer from CT1"
    assert receiver.study("7.8.9").broken_off == ()
    dead.close()


def test_a_vendors_class_that_is_refused_is_said_and_other_services_are_not(
    receiver: Receiver, tmp_path: Path
) -> None:
    offered = [MRImageStorage, "1.3.46.670589.11.0.0.12.1", "1.2.840.10008.5.1.4.31"]
    opened = receiver.associate(contexts=offered)
    refused = any(str(c.abstract_syntax).startswith("1.3.46") for c in opened.rejected_contexts)
    assert opened.send_c_store(image("1.2.3", 1, tmp_path)).Status == 0
    opened.release()
    receiver.ended()
    told = "the association from CT1 at 127.0.0.1 offered objects that are not taken here (1.3.46.670589.11.0.0.12.1)"
    assert receiver.study("1.2.3").broken_off == ((told,) if refused else ())


def test_an_image_that_is_refused_among_others_is_said_and_a_broken_foreign_object_is_not(
    receiver: Receiver, tmp_path: Path
) -> None:
    report = "1.2.840.10008.5.1.4.1.1.88.22"
    for study, refused_class in (("1.2.3", MRImageStorage), ("7.8.9", report)):
        opened = receiver.associate(contexts=[MRImageStorage, report])
        assert opened.send_c_store(image(study, 1, tmp_path)).Status == 0
        bad = dcmread(image(study, 2, tmp_path, refused_class))
        del bad.SeriesInstanceUID
        # Of what is no image the sender is only warned, so that it goes on.
        assert opened.send_c_store(bad).Status == (0xA900 if refused_class == MRImageStorage else 0xB007)
        opened.release()
        receiver.ended()
    [told] = receiver.study("1.2.3").broken_off
    assert told.endswith("images were refused (UID_MISSING 1)")
    assert receiver.study("7.8.9").broken_off == ()


def test_dcmtk_senders_leave_no_sign(receiver: Receiver, tmp_path: Path) -> None:
    for number, program in enumerate(("storescu", "dcmsend")):
        files = [image(f"1.2.{number}", n, tmp_path) for n in (1, 2)]
        done = subprocess.run(
            [f"/usr/bin/{program}", "127.0.0.1", str(receiver.port), *map(str, files)],
            check=False,
            timeout=30,
        )
        assert done.returncode == 0
        receiver.ended()
        assert receiver.study(f"1.2.{number}").broken_off == ()
    assert receiver.journal.rows("SELECT * FROM transfers") == []


def test_over_a_bad_line_the_newest_break_stands_for_all_and_one_release_makes_up_for_them(
    receiver: Receiver, tmp_path: Path
) -> None:
    for number in range(1, 5):
        opened = receiver.associate()
        for known in range(1, number + 1):
            assert opened.send_c_store(image("1.2.3", known, tmp_path)).Status == 0
        opened.abort()
        receiver.ended()
    [told] = receiver.study("1.2.3").broken_off
    assert told.endswith("after 4 of this study")
    opened = receiver.associate()
    assert opened.send_c_store(image("1.2.3", 5, tmp_path)).Status == 0
    opened.release()
    receiver.ended()
    assert receiver.study("1.2.3").broken_off == ()
