"""What a peer makes grow by sending has a bound: studies that wait, images of one study, what is kept of refusals."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from running import Service, wait_for

from outpost.records.bounds import Limits
from outpost.records.journal import utc_now

PACS, ELSEWHERE = "127.0.0.1", "127.0.0.66"
OUT_OF_RESOURCES = 0xA700
PER_PEER = 5
BOUNDS = {"max_waiting_studies": 60, "max_waiting_studies_per_peer": PER_PEER, "max_instances_per_study": 60}


def image(study: str | None = None) -> FileDataset:
    """A small image of a new study, or of this one."""
    found: FileDataset = dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    found.StudyInstanceUID = study or generate_uid()
    found.SeriesInstanceUID = generate_uid()
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return found


def sent(
    service: Service, title: str, images: Sequence[FileDataset], address: str = PACS
) -> list[tuple[int, str]]:
    """Status and comment of each, all on one association of this AE title at this address."""
    entity = AE(title)
    entity.add_requested_context(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)
    opened = entity.associate("127.0.0.1", service.dicom_port, bind_address=(address, 0))
    assert opened.is_established
    try:
        answers = [opened.send_c_store(one) for one in images]
    finally:
        opened.release()
    return [(answer.Status, str(answer.get("ErrorComment", ""))) for answer in answers]


def count(service: Service, sql: str) -> int:
    with closing(sqlite3.connect(service.storage / "journal.sqlite3")) as db:
        return int(db.execute(sql).fetchone()[0])


def study_of(service: Service, title: str) -> str:
    """A study that this sender has opened."""
    with closing(sqlite3.connect(service.storage / "journal.sqlite3")) as db:
        return str(db.execute("SELECT study_uid FROM studies WHERE senders = ?", (title,)).fetchone()[0])


def stowed(service: Service, folder: Path, *images: FileDataset) -> httpx.Response:
    files = []
    for number, one in enumerate(images):
        files.append(folder / f"{number}.dcm")
        one.save_as(files[-1])
    return service.stow(*files)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("bounds"), [("PACS", 1)], study={"quiet_seconds": 600}, intake=BOUNDS
    )
    yield service.start()
    assert service.stop() == 0, service.log


def test_a_sender_that_opens_study_after_study_is_told_to_come_later_and_no_other_is(
    service: Service,
) -> None:
    images = [image() for _ in range(PER_PEER + 4)]
    answers = sent(service, "JUNK", images)
    assert [status for status, _ in answers] == [0] * PER_PEER + [OUT_OF_RESOURCES] * 4
    assert answers[-1][1] == "5 studies of this sender wait, send it later"
    # The others, at the same address too, and the same title elsewhere.
    assert sent(service, "CT1", [image()]) == [(0, "")]
    assert sent(service, "JUNK", [image()], ELSEWHERE) == [(0, "")]
    # What is open goes on; what was taken is here; of what was not, nothing is.
    assert sent(service, "JUNK", [image(images[0].StudyInstanceUID)]) == [(0, "")]
    assert all(service.studies(one.StudyInstanceUID)[0]["state"] == "receiving" for one in images[:PER_PEER])
    assert not any(service.studies(one.StudyInstanceUID) for one in images[PER_PEER:])
    assert not any((service.storage / "spool" / one.StudyInstanceUID).exists() for one in images[PER_PEER:])
    # And a person is told of whom.
    events = [event["detail"] for event in service.http.get("/events").json()]
    assert [text for text in events if "'JUNK' at 127.0.0.1: TOO_MANY_STUDIES" in text]
    assert "instance of 'JUNK' at 127.0.0.1 refused: TOO_MANY_STUDIES" in service.log
    metrics = service.http.get("/metrics").text
    assert 'outpost_refused_total{reason="TOO_MANY_STUDIES",what="instance"} 4.0' in metrics
    assert "outpost_waiting_studies_share 1.0" in metrics


def test_what_other_studies_of_its_association_had_refused_makes_no_study_partial(service: Service) -> None:
    [study] = service.http.get("/studies?limit=1").json()
    answers = sent(service, "JUNK", [image(study["study_uid"]), image(), image()])
    assert [status for status, _ in answers] == [0, OUT_OF_RESOURCES, OUT_OF_RESOURCES]
    wait_for(lambda: count(service, "SELECT count(*) FROM transfers") == 0, 5, "the release is written down")
    assert count(service, "SELECT count(*) FROM studies WHERE broken_off <> ''") == 0


def test_by_stow_the_answer_is_503_with_a_time_and_open_studies_go_on(
    service: Service, tmp_path: Path
) -> None:
    images = [image() for _ in range(PER_PEER + 2)]
    answer = stowed(service, tmp_path, *images)
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "60")
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [OUT_OF_RESOURCES]
    assert len(answer.json()["00081198"]["Value"]) == 2
    answer = stowed(service, tmp_path, image())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert "studies of this sender wait, send it later" in answer.text
    assert stowed(service, tmp_path, image(images[0].StudyInstanceUID)).status_code == 200


def test_a_system_that_goes_out_of_service_takes_what_is_open_and_opens_nothing(
    service: Service, tmp_path: Path
) -> None:
    """playbooks/remove.yml leaves a file in the system's state directory; no restart, and a restart changes nothing."""
    closed = service.storage / "out-of-service"
    closed.touch()
    words = "this system goes out of service, send elsewhere"
    answers = sent(service, "CT1", [image(study_of(service, "CT1")), image()])
    assert answers == [(0, ""), (OUT_OF_RESOURCES, words)]
    answer = stowed(service, tmp_path, image())
    assert (answer.status_code, answer.headers.get("Retry-After")) == (503, None)
    assert words in answer.text
    answer = stowed(service, tmp_path, image(study_of(service, "CT1")), image())
    assert answer.status_code == 202
    events = [event["detail"] for event in service.http.get("/events").json()]
    assert [text for text in events if "'CT1' at 127.0.0.1: OUT_OF_SERVICE" in text]
    assert not list((service.storage / "quarantine").glob("OUT_OF_SERVICE/*")), "nothing of it is kept"
    closed.unlink()
    assert sent(service, "CT1", [image()]) == [(0, "")]


def test_who_names_itself_anew_each_time_takes_the_room_of_nobody_else(service: Service) -> None:
    taken = 0
    for number in range(60):
        [(status, words)] = sent(service, f"NEW{number}", [image()], ELSEWHERE)
        if status == OUT_OF_RESOURCES:
            break
        taken += 1
    assert status == OUT_OF_RESOURCES
    assert words == "45 studies of this address wait, send it later"
    assert 40 <= taken <= 45
    assert sent(service, "CT1", [image()]) == [(0, "")]


def test_a_study_has_no_more_images_than_one_may_have(service: Service, tmp_path: Path) -> None:
    study = generate_uid()
    answers = sent(service, "ENDLESS", [image(study) for _ in range(62)])
    assert [status for status, _ in answers] == [0] * 60 + [OUT_OF_RESOURCES] * 2
    assert answers[-1][1] == "the study has as many instances as one may have"
    assert service.studies(study)[0]["instances"] == 60
    # Its result will say that images are missing, and which kind of sender sends it.
    partial = "SELECT count(*) FROM studies WHERE broken_off LIKE '%TOO_MANY_INSTANCES 2%'"
    wait_for(lambda: count(service, partial) == 1, 5, "the release is written down")
    assert stowed(service, tmp_path, image(study)).status_code == 409


def test_each_image_of_a_study_under_another_title_leaves_its_row_a_row(service: Service) -> None:
    study = generate_uid()
    for number in range(40):
        assert sent(service, f"TITLE-NUMBER-{number:03}", [image(study)]) == [(0, "")]
    assert count(service, f"SELECT length(senders) FROM studies WHERE study_uid = '{study}'") < 540


def test_after_a_kill_the_same_studies_wait_and_what_was_refused_long_ago_keeps_nobody_waiting(
    service: Service,
) -> None:
    """Refusals of before, as a day of junk leaves them: of each a count stays, and no count falls."""
    assert sent(service, "JUNK", [image()])[0][0] == OUT_OF_RESOURCES
    service.kill()
    many, limits = 16_000, Limits()
    with closing(sqlite3.connect(service.storage / "journal.sqlite3")) as db, db:
        at = utc_now().isoformat(timespec="microseconds")
        db.executemany(
            "INSERT INTO refused (at, reason, file, bytes, source, evicted_at, evicted_for, removed_at)"
            " VALUES (?, 'NOT_DICOM', ?, 10, ?, ?, 'quota', ?)",
            ((at, f"quarantine/NOT_DICOM/{n}.dcm", f"NEW{n % 5000}", at, at) for n in range(many)),
        )
        db.executemany(
            "INSERT INTO events (at, code, detail) VALUES (?, 'QUARANTINE_EVICTED', ?)",
            ((f"{at[:20]}{n:06}+00:00", f"file-{n}") for n in range(many)),
        )
    begun = time.monotonic()
    service.start()
    assert time.monotonic() - begun < 10, "a start does not wait for it"
    study, longest = study_of(service, "CT1"), 0.0

    def pruned() -> bool:
        nonlocal longest
        began = time.monotonic()
        assert sent(service, "CT1", [image(study)])[0][0] == 0
        longest = max(longest, time.monotonic() - began)
        left = count(service, "SELECT count(*) FROM refused"), count(service, "SELECT count(*) FROM events")
        return left[0] <= limits.refused and left[1] <= limits.events_of_a_code + 50

    wait_for(pruned, 30, "what is beyond the bounds has left")
    assert longest < 2, "images are taken while rows leave"
    assert sent(service, "JUNK", [image()]) == [
        (OUT_OF_RESOURCES, "5 studies of this sender wait, send it later")
    ]
    metrics = service.http.get("/metrics").text
    assert f'outpost_instances_refused_total{{reason="NOT_DICOM"}} {float(many)}' in metrics
    assert f'outpost_quarantine_evicted_total{{reason="NOT_DICOM"}} {float(many)}' in metrics
    assert 0 < count(service, "SELECT count(DISTINCT sender) FROM refused_gone") <= 101
    assert service.http.get("/quarantine/report?days=1").status_code == 200


def test_what_many_others_have_waiting_puts_a_study_off_by_little(service: Service) -> None:
    """With what the tests before have opened, once it is complete."""
    service.stop()
    text = service.config_file.read_text()
    assert "quiet_seconds: 600" in text
    text = text.replace("quiet_seconds: 600", "quiet_seconds: 0.5").replace("studies: 60", "studies: 600")
    service.config_file.write_text(text)
    service.start()
    waiting = "SELECT count(*) FROM studies WHERE state = 'complete' AND opened_from <> '127.0.0.77'"
    wait_for(lambda: count(service, waiting) > 40, 20, "what was sent before is complete")
    assert sent(service, "CT9", [image()], "127.0.0.77") == [(0, "")]
    begun = (
        "SELECT count(*) FROM studies WHERE opened_from = '127.0.0.77'"
        " AND (state NOT IN ('receiving', 'complete') OR held_for <> '')"
    )
    wait_for(lambda: count(service, begun), 90, "it is in work")
    assert count(service, waiting) >= 16
