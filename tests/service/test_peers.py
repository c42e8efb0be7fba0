"""Peers as they are: what they propose, encode and post, and what they are told. The service receives and holds."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from running import BEARER, Orthanc, Service
from test_intake import NOWHERE, Receiver, copy_of, sample

from outpost.intake.scp import StorageScp

EXAM_CARD = "1.3.46.670589.11.0.0.12.1"
PUSH_MODEL = StorageCommitmentPushModel
BOUNDARY = "a-boundary-of-the-test"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a broken bundle: it receives, and computes nothing."""
    bundle = tmp_path_factory.mktemp("bundle")
    service = Service(tmp_path_factory.mktemp("service"), NOWHERE, inference={"bundle": str(bundle)})
    yield service.start()
    assert service.stop() == 0


def kept(service: Service, study_uid: str) -> set[str]:
    return {file.stem for file in (service.storage / "spool" / study_uid).glob("*.dcm")}


def refused(service: Service, what: str, reason: str) -> int:
    """The counter of what was turned away."""
    found = re.search(
        rf'^outpost_refused_total{{reason="{reason}",what="{what}"}} (\d+)',
        service.http.get("/metrics").text,
        re.M,
    )
    return int(found[1]) if found else 0


def said(service: Service, since: int, *words: str) -> list[str]:
    """Lines of the log behind `since` characters that hold all these words."""
    return [line for line in service.log[since:].splitlines() if all(word in line for word in words)]


# --- what peers propose ---


def seven(folder: Path, odd_class: str, *, study: bool = True) -> tuple[str, list[Path], str]:
    """Three CT slices, an object of another class, three more, as files in the order of sending."""
    study_uid, series_uid, files = generate_uid(), generate_uid(), []
    for number in range(7):
        image = dcmread(sample("CT_small.dcm"))
        image.StudyInstanceUID, image.SeriesInstanceUID = study_uid, series_uid
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if number == 3:
            image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = odd_class
            odd = str(image.SOPInstanceUID)
            del image.PixelData
            if not study:
                del image.StudyInstanceUID, image.SeriesInstanceUID
        files.append(folder / f"{number}.dcm")
        image.save_as(files[-1])
    return study_uid, files, odd


@pytest.mark.parametrize(
    "odd_class",
    [
        EXAM_CARD,  # Philips
        "1.3.12.2.1107.5.9.1",  # Siemens, CSA
        "1.2.840.10008.5.1.4.1.1.99999",  # of a standard to come
        "1.2.840.10008.5.1.4.1.1.12.77",  # retired, without a name any more
        "1.2.840.10008.5.1.1.29",  # retired, Hardcopy Grayscale Image Storage
    ],
)
def test_an_object_of_any_class_is_taken_and_what_comes_behind_it(
    service: Service, tmp_path: Path, odd_class: str
) -> None:
    study_uid, files, odd = seven(tmp_path, odd_class)
    sent = dcmsend(service, *files)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert len(kept(service, study_uid)) == 7
    assert odd in kept(service, study_uid)


def dcmsend(service: Service, *files: Path) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/dcmsend", "-v", "127.0.0.1", str(service.dicom_port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_storescu_that_was_told_of_a_private_class_sends_all(service: Service, tmp_path: Path) -> None:
    study_uid, files, _ = seven(tmp_path, EXAM_CARD)
    profile = tmp_path / "profile.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Plain]\nTransferSyntax1 = LocalEndianExplicit\n"
        "[[PresentationContexts]]\n[Both]\n"
        f"PresentationContext1 = CTImageStorage\\Plain\nPresentationContext2 = {EXAM_CARD}\\Plain\n"
        "[[Profiles]]\n[Both]\nPresentationContexts = Both\n"
    )
    sent = service.storescu(*files, options=["-xf", str(profile), "Both"])
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert len(kept(service, study_uid)) == 7


@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_an_object_of_no_study_that_no_model_reads_does_not_stop_the_sender(
    service: Service, tmp_path: Path, sender: str
) -> None:
    """storescu ends at the first failure: six images would become three. The object lies in quarantine."""
    hanging_protocol = "1.2.840.10008.5.1.4.38.1"
    study_uid, files, odd = seven(tmp_path, hanging_protocol, study=False)
    since, before = len(service.log), refused(service, "instance", "UID_MISSING")
    sent = service.storescu(*files, options=["-R"]) if sender == "storescu" else dcmsend(service, *files)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert len(kept(service, study_uid)) == 6
    aside = (service.storage / "quarantine" / "UID_MISSING").glob("*.dcm")
    assert [file for file in aside if dcmread(file).SOPInstanceUID == odd]
    assert len(said(service, since, "UID_MISSING", sender.upper(), "127.0.0.1")) == 1
    assert refused(service, "instance", "UID_MISSING") == before + 1


def test_an_image_of_no_study_stays_a_failure(service: Service, tmp_path: Path) -> None:
    study_uid, files, _ = seven(tmp_path, "1.2.840.10008.5.1.4.1.1.4", study=False)
    sent = dcmsend(service, *files)
    assert "with status ERROR    : 1" in sent.stdout + sent.stderr
    assert len(kept(service, study_uid)) == 6


def test_a_private_transfer_syntax_is_no_reason_to_refuse(service: Service, tmp_path: Path) -> None:
    private = "1.3.46.670589.33.1.4.1"  # Philips, a run-length code of its own
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID(EXAM_CARD)
    image.file_meta.TransferSyntaxUID = UID(private)
    image.save_as(tmp_path / "x.dcm", implicit_vr=False, little_endian=True)
    entity = AE("PHILIPS")
    entity.add_requested_context(EXAM_CARD, private)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    assert opened.is_established
    assert opened.send_c_store(tmp_path / "x.dcm").Status == 0
    opened.release()
    [study] = service.studies(image.StudyInstanceUID)
    assert study["instances"] == 1


def test_services_that_are_not_storage_are_rejected_each_with_a_line_and_a_count(
    service: Service, tmp_path: Path
) -> None:
    others = {
        StudyRootQueryRetrieveInformationModelFind: "SERVICE_NOT_OFFERED",
        ModalityWorklistInformationFind: "SERVICE_NOT_OFFERED",
        ModalityPerformedProcedureStep: "SERVICE_NOT_OFFERED",
        "1.2.840.10008.5.1.4.32.2": "SERVICE_NOT_OFFERED",  # retired: no toolkit serves it
        "1.2.840.10008.1.20.2": "SERVICE_NOT_OFFERED",  # commitment, pull model
        PUSH_MODEL: "COMMITMENT_NOT_OFFERED",
    }
    copy_of("CT_small.dcm", tmp_path / "x.dcm")
    entity = AE("CONSOLE")
    for uid in (Verification, CTImageStorage, *others):
        entity.add_requested_context(uid, ExplicitVRLittleEndian)
    since, before = len(service.log), refused(service, "context", "SERVICE_NOT_OFFERED")
    opened = entity.associate("127.0.0.1", service.dicom_port)
    assert {str(context.abstract_syntax) for context in opened.accepted_contexts} == {
        Verification,
        CTImageStorage,
    }
    assert {context.result for context in opened.rejected_contexts} == {3}
    assert opened.send_c_echo().Status == 0
    assert opened.send_c_store(tmp_path / "x.dcm").Status == 0, "and its images come"
    opened.release()
    for uid, reason in others.items():
        name = "torage commitment" if uid == PUSH_MODEL else UID(uid).name
        assert len(said(service, since, "context of 'CONSOLE' at 127.0.0.1", reason, name)) == 1, UID(
            uid
        ).name
    assert len(said(service, since, "CONSOLE")) == len(others)
    assert refused(service, "context", "SERVICE_NOT_OFFERED") == before + 5
    events = [e["detail"] for e in service.http.get("/events").json() if e["code"] == "SENDER_REFUSED"]
    assert any("CONSOLE" in detail and "COMMITMENT_NOT_OFFERED" in detail for detail in events)


def test_a_question_on_a_storage_context_gets_an_answer_and_the_association_lives(
    service: Service, tmp_path: Path
) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    entity = AE("PEER")
    entity.add_requested_context(EXAM_CARD)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    [(status, _)] = list(opened.send_c_find(query, EXAM_CARD))
    assert status.Status == 0x0211
    assert opened.send_c_store(tmp_path / "x.dcm").Status == 0
    opened.release()
    assert kept(service, image.StudyInstanceUID)


# --- storage commitment asked of us ---


@pytest.mark.parametrize(
    ("title", "role", "offered"),
    [("MODALITY", False, False), ("MODALITY", True, True), ("PACS", False, True)],
)
def test_commitment_is_offered_to_those_who_report_it_and_to_nobody_else(
    tmp_path: Path, title: str, role: bool, offered: bool
) -> None:
    receiver = Receiver(tmp_path / "root")
    receiver.scp.stop()
    heard: list[object] = []

    def report(event: object) -> tuple[int, None]:
        heard.append(event)
        return 0, None

    from outpost.config import Intake

    config = Intake(check_called_ae_title=False, listen="127.0.0.1", dicom_port=receiver.port)
    receiver.scp = StorageScp(config, receiver.spool, receiver.assembly, report, ["PACS"])
    receiver.scp.start()
    with receiver:
        entity = AE(title)
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        entity.add_requested_context(PUSH_MODEL)
        roles = [build_role(PUSH_MODEL, scp_role=True)] if role else []
        opened = entity.associate("127.0.0.1", receiver.port, ext_neg=roles)
        assert (PUSH_MODEL in [c.abstract_syntax for c in opened.accepted_contexts]) is offered
        assert opened.send_c_store(sample("CT_small.dcm")).Status == 0
        if role:
            report_of = Dataset()
            report_of.TransactionUID = generate_uid()
            status, _ = opened.send_n_event_report(report_of, 1, PUSH_MODEL, "1.2.840.10008.1.20.1.1")
            assert status.Status == 0
            assert heard
        opened.release()


# --- one image in several encodings ---


def encoded(how: str, source: Path, target: Path) -> Path:
    """The same object in another transfer syntax, by DCMTK."""
    commands = {
        "rle": ["dcmcrle"],
        "jpeg-lossless": ["dcmcjpeg"],
        "jpeg-lossless-sv6": ["dcmcjpeg", "+el", "+sv", "6"],
        "jpeg-ls": ["dcmcjpls"],
        "deflated": ["dcmconv", "+td"],
        "big-endian": ["dcmconv", "+tb"],
        "implicit": ["dcmconv", "+ti", "+e"],
        "jpeg-lossy": ["dcmcjpeg", "+eb", "+un"],
        "utf-8": ["dcmconv", "+U8"],
    }
    program, *options = commands[how]
    subprocess.run([f"/usr/bin/{program}", *options, source, target], check=True, capture_output=True)
    return target


LOSSLESS = [
    "rle",
    "jpeg-lossless",
    "jpeg-lossless-sv6",
    "jpeg-ls",
    "deflated",
    "big-endian",
    "implicit",
    "utf-8",
]


@pytest.fixture(scope="module")
def encodings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A CT slice with a name beyond ASCII, as it was made and in every other way."""
    folder = tmp_path_factory.mktemp("encodings")
    copy_of("CT_small.dcm", folder / "made.dcm", SpecificCharacterSet="ISO_IR 144", PatientName="Снимок")
    return {"made": folder / "made.dcm"} | {
        how: encoded(how, folder / "made.dcm", folder / f"{how}.dcm") for how in [*LOSSLESS, "jpeg-lossy"]
    }


def status_of(service: Service, file: Path) -> Dataset:
    image = dcmread(file, stop_before_pixels=True)
    entity = AE("ARCHIVE")
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    opened = entity.associate("127.0.0.1", service.dicom_port)
    status = opened.send_c_store(file)
    opened.release()
    return status


@pytest.mark.parametrize("first", ["made", "rle"])
def test_an_image_that_comes_again_in_any_lossless_encoding_is_known(
    service: Service, encodings: dict[str, Path], tmp_path: Path, first: str
) -> None:
    new = {"StudyInstanceUID": generate_uid(), "SOPInstanceUID": generate_uid()}
    files = {how: renamed(file, tmp_path / f"{how}.dcm", new) for how, file in encodings.items()}
    assert status_of(service, files[first]).Status == 0
    spool = service.storage / "spool" / new["StudyInstanceUID"] / f"{new['SOPInstanceUID']}.dcm"
    before = spool.read_bytes()
    for how in ("made", *LOSSLESS):
        assert status_of(service, files[how]).Status == 0, how
        assert service.stow(files[how]).status_code == 200, how
    [study] = service.studies(new["StudyInstanceUID"])
    assert (study["revision"], study["instances"]) == (1, 1)
    assert spool.read_bytes() == before


def renamed(file: Path, target: Path, values: dict[str, str]) -> Path:
    """A copy with other UIDs; the pixels stay as they are encoded."""
    shutil.copy(file, target)
    options = [word for name, value in values.items() for word in ("-m", f"{name}={value}")]
    subprocess.run(["/usr/bin/dcmodify", "-nb", *options, target], check=True, capture_output=True)
    return target


@pytest.mark.parametrize("changed", ["pixel", "patient", "spacing", "series"])
def test_other_pixels_or_values_in_another_encoding_stay_a_conflict(
    service: Service, tmp_path: Path, changed: str
) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "first.dcm")
    assert status_of(service, tmp_path / "first.dcm").Status == 0
    spool = service.storage / "spool" / image.StudyInstanceUID / f"{image.SOPInstanceUID}.dcm"
    before = spool.read_bytes()
    if changed == "pixel":
        pixels = image.pixel_array.copy()
        pixels[5, 7] ^= 1
        image.PixelData = pixels.tobytes()
    elif changed == "patient":
        image.PatientID = "SOMEBODY ELSE"
    elif changed == "spacing":
        image.PixelSpacing = [1.5, 1.5]
    else:
        image.SeriesInstanceUID = generate_uid()
    image.save_as(tmp_path / "second.dcm")
    aside = service.storage / "quarantine" / "CONTENT_CONFLICT"
    held = len(list(aside.glob("*"))) if aside.exists() else 0
    since = len(service.log)
    for how in ("rle", "deflated"):
        answer = status_of(service, encoded(how, tmp_path / "second.dcm", tmp_path / f"{how}.dcm"))
        assert answer.Status == 0xC001, how
    assert spool.read_bytes() == before
    assert len(list(aside.glob("*"))) == held + 2
    assert len(said(service, since, "CONTENT_CONFLICT", "'ARCHIVE' at 127.0.0.1")) == 2


def test_a_lossy_copy_is_another_image_and_its_sender_is_told_the_remedy(
    service: Service, encodings: dict[str, Path]
) -> None:
    assert status_of(service, encodings["made"]).Status == 0
    answer = status_of(service, encodings["jpeg-lossy"])
    assert (answer.Status, answer.ErrorComment) == (
        0xC001,
        "held with other content: a lossy copy needs a UID of its own",
    )
    [item] = service.stow(encodings["jpeg-lossy"]).json()["00081198"]["Value"]
    assert item["00000902"]["Value"] == [answer.ErrorComment]


def test_a_hostile_second_copy_ends_the_comparison_and_nothing_else(service: Service, tmp_path: Path) -> None:
    """It promises 4 GiB of pixels, or a torn stream. What is held stays, and the next question is answered."""
    image = copy_of("CT_small.dcm", tmp_path / "first.dcm")
    assert status_of(service, tmp_path / "first.dcm").Status == 0
    whole = dcmread(encoded("rle", tmp_path / "first.dcm", tmp_path / "whole.dcm"))
    whole.Rows = whole.Columns = 0xFFFF
    whole.save_as(tmp_path / "huge.dcm")
    torn = (tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "torn.dcm").write_bytes(torn[:-4000])
    for name in ("huge.dcm", "torn.dcm"):
        assert status_of(service, tmp_path / name).Status == 0xC001
    assert status_of(service, tmp_path / "whole.dcm").Status == 0
    [study] = service.studies(image.StudyInstanceUID)
    assert study["instances"] == 1


# --- STOW-RS: heads of parts ---


def without_head(file: Path) -> bytes:
    """The data set alone."""
    raw = file.read_bytes()
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


def element(number: int, vr: bytes, value: bytes, *, implicit: bool = False) -> bytes:
    tag = b"\x02\x00" + number.to_bytes(2, "little")
    if implicit:
        return tag + len(value).to_bytes(4, "little") + value
    if vr == b"OB":
        return tag + b"OB\0\0" + len(value).to_bytes(4, "little") + value
    return tag + vr + len(value).to_bytes(2, "little") + value


def head(
    file: Path, *, leave_out: Sequence[int] = (), implicit: bool = False, length: int | None = None
) -> bytes:
    """File meta information as a careless client writes it."""
    meta = dcmread(file, stop_before_pixels=True).file_meta
    values = {
        1: (b"OB", b"\x00\x01"),
        2: (b"UI", meta.MediaStorageSOPClassUID.encode()),
        3: (b"UI", meta.MediaStorageSOPInstanceUID.encode()),
        0x10: (b"UI", meta.TransferSyntaxUID.encode()),
        0x12: (b"UI", b"1.2.3"),
    }
    written = b"".join(
        element(number, vr, value + b"\0" * (len(value) % 2), implicit=implicit)
        for number, (vr, value) in values.items()
        if number not in leave_out
    )
    if length is not None:
        written = element(0, b"UL", length.to_bytes(4, "little")) + written
    return written


PREAMBLE = bytes(128) + b"DICM"
HEADS: dict[str, Callable[[Path], bytes]] = {
    "no group length": lambda f: PREAMBLE + head(f),
    "group length too short": lambda f: PREAMBLE + head(f, length=12),
    "group length too long": lambda f: PREAMBLE + head(f, length=9999),
    "no version": lambda f: PREAMBLE + head(f, leave_out=[1]),
    "no version, class, instance, implementation": lambda f: PREAMBLE + head(f, leave_out=[1, 2, 3, 0x12]),
    "implicit meta": lambda f: PREAMBLE + head(f, implicit=True),
    "no preamble": lambda f: b"DICM" + head(f),
    "no preamble, no prefix": head,
    "preamble, no meta": lambda _: PREAMBLE,
    "no transfer syntax": lambda f: PREAMBLE + head(f, leave_out=[0x10]),
    "data set alone": lambda _: b"",
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("source", ["CT_small.dcm", "MR_small_implicit.dcm"])
def test_a_part_without_a_right_head_is_stored_as_a_right_file(
    service: Service, tmp_path: Path, name: str, source: str
) -> None:
    image = copy_of(source, tmp_path / "right.dcm")
    (tmp_path / "sent.dcm").write_bytes(
        HEADS[name](tmp_path / "right.dcm") + without_head(tmp_path / "right.dcm")
    )
    reply = service.stow(tmp_path / "sent.dcm")
    assert reply.status_code == 200, reply.text
    stored = service.storage / "spool" / image.StudyInstanceUID / f"{image.SOPInstanceUID}.dcm"
    assert dcmread(stored) == dcmread(tmp_path / "right.dcm")
    assert without_head(stored) == without_head(tmp_path / "right.dcm")
    dump = subprocess.run(
        ["/usr/bin/dcmdump", "-q", "+fo", stored], capture_output=True, text=True, check=False, timeout=20
    )
    assert dump.returncode == 0, dump.stderr
    assert image.SOPInstanceUID in dump.stdout
    assert service.stow(tmp_path / "right.dcm").status_code == 200, "and is known when it comes with its head"
    assert len(service.studies(image.StudyInstanceUID)) == 1


def test_compressed_pixels_need_a_transfer_syntax_which_the_part_may_name(
    service: Service, tmp_path: Path
) -> None:
    image = copy_of("MR_small_RLE.dcm", tmp_path / "right.dcm")
    bare = without_head(tmp_path / "right.dcm")
    (tmp_path / "bare.dcm").write_bytes(bare)
    reply = service.stow(tmp_path / "bare.dcm")
    assert reply.status_code == 409
    [item] = reply.json()["00081198"]["Value"]
    assert item["00081197"]["Value"] == [0xC000]
    assert item["00000902"]["Value"] == ["no transfer syntax is named, and the pixels are compressed"]
    assert item["00081155"]["Value"] == [image.SOPInstanceUID]
    named = f"Content-Type: application/dicom; transfer-syntax={RLELossless}"
    assert post(service, body_of((named, bare))).status_code == 200
    kept_file = service.storage / "spool" / image.StudyInstanceUID / f"{image.SOPInstanceUID}.dcm"
    assert dcmread(kept_file).file_meta.TransferSyntaxUID == RLELossless


# --- STOW-RS: bodies ---


def body_of(*parts: tuple[str, bytes], end: bytes = b"\r\n", closing: bytes = b"--") -> bytes:
    """A multipart body of (header lines, content)."""
    written = b"".join(
        b"--" + BOUNDARY.encode() + end + headers.encode() + (end if headers else b"") + end + content + end
        for headers, content in parts
    )
    return written + b"--" + BOUNDARY.encode() + closing + end


def post(service: Service, body: bytes | Iterator[bytes], path: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.http.post(
        f"/dicom-web/studies{path}", content=body, headers={"Content-Type": RELATED} | named
    )


DICOM = "Content-Type: application/dicom"


@pytest.mark.parametrize(
    ("content_type", "shape"),
    [
        (RELATED, {}),
        (RELATED, {"end": b"\n"}),
        (RELATED, {"closing": b""}),
        (RELATED.replace('"application/dicom"', "Application/DICOM").replace("related", "Related"), {}),
        (f'multipart/related; boundary="{BOUNDARY}"; type="application/dicom"; charset=utf-8', {}),
        (f"multipart/related; boundary={BOUNDARY}", {}),
        (f'multipart/related;type="application/dicom";boundary={BOUNDARY};start="<1>"', {}),
    ],
)
@pytest.mark.parametrize(
    "headers", [DICOM, "", "content-type:APPLICATION/DICOM;charset=x\r\nContent-ID: <1>"]
)
@pytest.mark.parametrize("preamble", [b"", b"This is a message of many parts.\r\n--\n"])
def test_a_body_is_read_as_senders_write_it(
    service: Service,
    tmp_path: Path,
    content_type: str,
    shape: dict[str, bytes],
    headers: str,
    preamble: bytes,
) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    if shape.get("end") == b"\n":
        headers = headers.replace("\r\n", "\n")
    body = preamble + body_of((headers, (tmp_path / "x.dcm").read_bytes()), **shape)
    reply = post(service, body, Content_Type=content_type)
    assert reply.status_code == 200, reply.text
    [file] = (service.storage / "spool" / image.StudyInstanceUID).glob("*.dcm")
    assert file.read_bytes() == (tmp_path / "x.dcm").read_bytes()


@pytest.mark.parametrize(
    ("status", "reason", "words", "content_type", "body", "encoding"),
    [
        (415, "TYPE_NOT_TAKEN", "metadata and bulk data", "application/dicom+json", b"[]", ""),
        (
            415,
            "TYPE_NOT_TAKEN",
            "metadata",
            'multipart/related; type="application/dicom+xml"; boundary=b',
            b"",
            "",
        ),
        (415, "TYPE_NOT_TAKEN", "a bare instance", "application/dicom", b"x", ""),
        (
            415,
            "TYPE_NOT_TAKEN",
            "send Content-Type: multipart/related",
            "multipart/form-data; boundary=b",
            b"",
            "",
        ),
        (415, "ENCODING_NOT_TAKEN", "send gzip", RELATED, b"x", "br"),
        (415, "ENCODING_NOT_TAKEN", "send gzip", RELATED, b"x", "gzip, gzip"),
        (400, "BODY_MALFORMED", "not compressed as", RELATED, b"no gzip", "gzip"),
        (
            400,
            "BODY_MALFORMED",
            "ends before its end",
            RELATED,
            gzip.compress(body_of((DICOM, b"x")))[:30],
            "gzip",
        ),
        (400, "BODY_MALFORMED", "1 to 200", "multipart/related", b"", ""),
        (400, "BODY_MALFORMED", "not in the body", RELATED, b"--other\r\n\r\nx\r\n--other--", ""),
        (400, "BODY_MALFORMED", "not in the body", RELATED, b"", ""),
        (400, "BODY_MALFORMED", "holds no part", RELATED, body_of(), ""),
        (400, "BODY_MALFORMED", "may be cut off", RELATED, body_of((DICOM, b"x"))[:-40], ""),
        (413, "BODY_TOO_LARGE", "without compressing", RELATED, b"bomb", "gzip"),
    ],
)
def test_a_request_that_cannot_be_taken_is_told_why_and_leaves_one_line(
    service: Service, status: int, reason: str, words: str, content_type: str, body: bytes, encoding: str
) -> None:
    if body == b"bomb":
        squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
        begin = f"--{BOUNDARY}\r\n{DICOM}\r\n\r\n".encode()
        body = squeeze.compress(begin) + squeeze.compress(bytes(120 << 20)) + squeeze.flush()
    since, before = len(service.log), refused(service, "request", reason)
    headers = {"Content_Encoding": encoding} if encoding else {}
    reply = post(service, body, Content_Type=content_type, **headers)
    assert (reply.status_code, words in reply.json()["detail"]) == (status, True), reply.text
    [line] = said(service, since, "WARNING")
    assert f"request of 127.0.0.1 refused: {reason}" in line
    assert refused(service, "request", reason) == before + 1
    assert not list((service.storage / "spool" / ".incoming").iterdir())


def test_a_part_of_another_type_is_judged_by_what_it_holds(service: Service, tmp_path: Path) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    octets = "Content-Type: application/octet-stream"
    aside = service.storage / "quarantine" / "NOT_DICOM"
    before = len(list(aside.glob("*"))) if aside.exists() else 0
    reply = post(
        service,
        body_of((octets, (tmp_path / "x.dcm").read_bytes()), ("Content-Type: image/jpeg", b"\xff\xd8")),
    )
    assert reply.status_code == 202
    assert kept(service, image.StudyInstanceUID) == {image.SOPInstanceUID}
    assert len(list(aside.glob("*"))) == before + 1, "nothing that came is lost"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity", "several"])
def test_a_compressed_body_is_unfolded(service: Service, tmp_path: Path, encoding: str) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    image.PixelData = bytes(3 << 20)  # more than one piece, of nothing: it compresses a thousandfold
    image.Rows, image.Columns = 1024, 1536
    image.save_as(tmp_path / "x.dcm")
    body = body_of((DICOM, (tmp_path / "x.dcm").read_bytes()))
    compressed = {
        "gzip": gzip.compress(body),
        "x-gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "identity": body,
        "several": gzip.compress(body[:1000]) + gzip.compress(body[1000:]),
    }[encoding]
    name = encoding if encoding != "several" else "gzip"
    chunks = (
        compressed[at : at + 7000] for at in range(0, len(compressed), 7000)
    )  # chunked, without a length
    assert post(service, chunks, Content_Encoding=name).status_code == 200
    [file] = (service.storage / "spool" / image.StudyInstanceUID).glob("*.dcm")
    assert file.read_bytes() == (tmp_path / "x.dcm").read_bytes()


def test_the_address_of_a_study_takes_its_instances_and_names_those_of_others(
    service: Service, tmp_path: Path
) -> None:
    mine, other = copy_of("CT_small.dcm", tmp_path / "1.dcm"), copy_of("MR_small.dcm", tmp_path / "2.dcm")
    parts = [(DICOM, (tmp_path / name).read_bytes()) for name in ("1.dcm", "2.dcm")]
    since = len(service.log)
    reply = post(service, body_of(*parts), f"/{mine.StudyInstanceUID}")
    assert reply.status_code == 202
    [stored], [failed] = (reply.json()[tag]["Value"] for tag in ("00081199", "00081198"))
    assert stored["00081155"]["Value"] == [mine.SOPInstanceUID]
    assert failed["00081150"]["Value"] == [other.SOPClassUID]
    assert failed["00081155"]["Value"] == [other.SOPInstanceUID]
    assert failed["00081197"]["Value"] == [0xA901]
    assert "00081190" not in reply.json(), "nothing can be retrieved here"
    assert not service.studies(other.StudyInstanceUID)
    assert len(said(service, since, "OTHER_STUDY", "'stow' at 127.0.0.1")) == 1
    assert post(service, body_of(parts[0]), f"/{mine.StudyInstanceUID}").status_code == 200
    assert post(service, body_of(parts[1]), f"/{mine.StudyInstanceUID}").status_code == 409
    assert post(service, body_of(parts[0]), "/no-uid").status_code == 400


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_failed_instance_is_named_wherever_it_is_known(service: Service, tmp_path: Path) -> None:
    good = copy_of("CT_small.dcm", tmp_path / "good.dcm")
    assert service.stow(tmp_path / "good.dcm").status_code == 200
    good.PatientID = "OTHER"
    good.save_as(tmp_path / "conflict.dcm")
    no_series = copy_of("CT_small.dcm", tmp_path / "no-series.dcm", SeriesInstanceUID="")
    torn = copy_of("CT_small.dcm", tmp_path / "whole.dcm")
    raw = (tmp_path / "whole.dcm").read_bytes()
    at = 144 + int.from_bytes(raw[140:144], "little")
    (tmp_path / "torn.dcm").write_bytes(raw[:at] + b"\x08\0\x05\0SQ\0\0" + b"\xff" * 300)
    copy_of("CT_small.dcm", tmp_path / "fresh.dcm")
    (tmp_path / "text.dcm").write_bytes(b"not DICOM at all")
    names = ["fresh", "conflict", "no-series", "torn", "text"]
    reply = service.stow(*(tmp_path / f"{name}.dcm" for name in names))
    assert reply.status_code == 202
    failed = [
        (
            item["00081197"]["Value"][0],
            item.get("00081155", {}).get("Value"),
            item.get("00081150", {}).get("Value"),
        )
        for item in reply.json()["00081198"]["Value"]
    ]
    ct = [str(CTImageStorage)]
    assert sorted(failed, key=str) == sorted(
        [
            (0xC001, [good.SOPInstanceUID], ct),
            (0xA900, [no_series.SOPInstanceUID], ct),
            (0xC000, [torn.SOPInstanceUID], ct),
            (0xC000, None, None),
        ],
        key=str,
    )


@pytest.mark.parametrize(
    ("accept", "xml"),
    [
        ("*/*", False),
        ("application/dicom+json", False),
        ("application/dicom+xml", True),
        ("application/dicom+json;q=0.1, application/dicom+xml", True),
        ("application/dicom+xml;q=0.5, application/dicom+json", False),
        ("application/dicom+xml, */*;q=0.5", True),
    ],
)
def test_the_reply_is_in_the_form_that_is_asked_for(
    service: Service, tmp_path: Path, accept: str, xml: bool
) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    reply = post(service, body_of((DICOM, (tmp_path / "x.dcm").read_bytes()), (DICOM, b"x")), Accept=accept)
    assert reply.status_code == 202
    if not xml:
        assert reply.headers["content-type"] == "application/dicom+json"
        assert reply.json()["00081199"]["Value"][0]["00081155"]["Value"] == [image.SOPInstanceUID]
        return
    assert reply.headers["content-type"].startswith("application/dicom+xml")
    root = ElementTree.fromstring(reply.text)  # noqa: S314 - our own reply
    stored = root.find(
        "DicomAttribute[@tag='00081199']/Item/DicomAttribute[@keyword='ReferencedSOPInstanceUID']/Value"
    )
    assert stored is not None
    assert stored.text == image.SOPInstanceUID
    assert (
        root.find("DicomAttribute[@keyword='FailedSOPSequence']/Item/DicomAttribute[@vr='US']/Value")
        is not None
    )


def test_curl_and_orthanc_store_by_stow(service: Service, tmp_path: Path) -> None:
    image = copy_of("CT_small.dcm", tmp_path / "x.dcm")
    (tmp_path / "body").write_bytes(body_of((DICOM, (tmp_path / "x.dcm").read_bytes())))
    url = f"http://127.0.0.1:{service.http_port}/dicom-web/studies"
    command = [
        "/usr/bin/curl",
        "-sS",
        "--fail",
        "-H",
        f"Content-Type: {RELATED}",
        "-H",
        f"Authorization: {BEARER['Authorization']}",
        "-H",
        "Transfer-Encoding: chunked",
    ]
    subprocess.run([*command, "--data-binary", f"@{tmp_path / 'body'}", url], check=True, timeout=30)
    assert kept(service, image.StudyInstanceUID) == {image.SOPInstanceUID}
    ours = copy_of("MR_small.dcm", tmp_path / "y.dcm")
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    orthanc = Orthanc(tmp_path / "orthanc", {}, [str(plugin)])
    try:
        stored = orthanc.http.post("/instances", content=(tmp_path / "y.dcm").read_bytes()).json()
        server = {"Url": f"http://127.0.0.1:{service.http_port}/dicom-web/", "HttpHeaders": BEARER}
        orthanc.http.put("/dicom-web/servers/outpost", json=server).raise_for_status()
        sent = orthanc.http.post("/dicom-web/servers/outpost/stow", json={"Resources": [stored["ID"]]})
        assert sent.status_code == 200, sent.text
    finally:
        orthanc.stop()
    assert kept(service, ours.StudyInstanceUID) == {ours.SOPInstanceUID}


# --- who was turned away, and why ---


def test_the_reason_why_an_association_is_refused_is_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> list[str]:
        found = [r.getMessage() for r in caplog.records if r.name.startswith("outpost.")]
        caplog.clear()
        assert len(set(found)) == 1, found
        return found

    with Receiver(tmp_path / "root", known_ae_titles=["MRT1"], max_associations=1) as receiver:
        stranger = AE("STRANGER")
        stranger.add_requested_context(CTImageStorage)
        assert receiver.rejects(stranger)
        line = lines()[0]
        assert "association of 'STRANGER' at 127.0.0.1 refused: CALLING_AE_UNKNOWN" in line
        assert "intake.known_ae_titles" in line
        assert "max_associations" not in line
        known = AE("MRT1")
        known.add_requested_context(CTImageStorage)
        first = known.associate("127.0.0.1", receiver.port)
        assert first.is_established
        assert receiver.rejects(known)
        line = lines()[0]
        assert "association of 'MRT1' at 127.0.0.1 refused: TOO_MANY_ASSOCIATIONS" in line
        assert "1 associations are open" in line
        assert "known_ae_titles" not in line
        first.release()
    with Receiver(tmp_path / "full", disk_reserve_mib=1 << 40) as receiver:
        assert receiver.rejects(known)
        line = lines()[0]
        assert "association of 'MRT1' at 127.0.0.1 refused: OUT_OF_SPACE" in line


def test_a_refused_file_is_on_record_with_the_address_of_its_sender(tmp_path: Path) -> None:
    copy_of("CT_small.dcm", tmp_path / "x.dcm", StudyInstanceUID="")
    with Receiver(tmp_path / "root") as receiver:
        assert receiver.storescu(tmp_path / "x.dcm").returncode != 0
        [row] = receiver.journal.rows("SELECT source, address FROM refused")
        assert (row["source"], row["address"]) == ("STORESCU", "127.0.0.1")
