"""What a result says of itself, why a study waits and what a PACS said, as an admin finds it on the running service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from running import Service

from outpost.codes.notes import Note
from outpost.records.journal import Instance, Journal

NOTES = {
    "1.2.643.1": (),
    "1.2.643.2": (Note("STUDY_PARTIAL", "126 of 181 images"), Note("TEXT_KEPT_AS_SENT", "PatientName")),
    "1.2.643.3": (Note("RESULT_DOUBTFUL", "score 0.31"), Note("PIXELS_UNSURE", "score 0.31")),
    "1.2.643.4": (Note("OBJECT_LEFT_OUT", 'one of ["STUDY_PARTIAL", "'),),
    "1.2.643.5": (Note("OF_A_LATER_RELEASE", "something"),),
}
HELD = "1.2.643.6"
LOST = "1.2.643.7"  # its result was partial, vanished from the outbox, and could not be made again
UNTIL = datetime.now(UTC) + timedelta(days=1)


def fill(storage: Path) -> None:
    """A journal as the service leaves it: five results that ended, and a study that waits."""
    storage.mkdir(parents=True)
    with closing(Journal(storage / "journal.sqlite3", "brain")) as journal:
        for uid, notes in NOTES.items():
            row = receive(journal, uid)
            journal.complete(row)
            journal.begin_inference(row)
            journal.begin_delivery(
                row, model="brain_extraction", model_version="1", engine="torch", precision="float32", rung="full",
                device="cpu", inference_seconds=3.4, notes=notes,
            )  # fmt: skip
            journal.note_delivery(row, "seg.dcm", "pacs0", None)
            journal.finish(row, "delivered")
        lost = receive(journal, LOST)
        journal.complete(lost)
        journal.begin_inference(lost)
        journal.begin_delivery(
            lost, model="m", model_version="1", engine="torch", precision="float32", rung="full", device="cpu",
            inference_seconds=1.0, notes=[Note("STUDY_PARTIAL", "126 of 181")],
        )  # fmt: skip
        journal.recompute(lost)
        journal.begin_inference(lost)
        journal.finish(lost, "rejected", "TOO_FEW_IMAGES")
        waiting = receive(journal, HELD)
        with journal.writing() as db:
            db.execute(
                "UPDATE studies SET held_for = 'REVISIONS_HELD', held_until = ? WHERE id = ?",
                (UNTIL.isoformat(timespec="microseconds"), waiting),
            )
            # One that waited and was given up: it waits no more.
            db.execute("UPDATE studies SET held_for = 'STUDY_INCOMPLETE' WHERE study_uid = '1.2.643.2'")
            db.execute(
                "UPDATE deliveries SET remark = 'B007: elements discarded' WHERE study ="
                " (SELECT id FROM studies WHERE study_uid = '1.2.643.3')"
            )
            db.execute(
                "UPDATE deliveries SET refused_for = 'sop-class-not-supported', error = 'status 0122: see its log',"
                " confirmed_at = NULL WHERE study = (SELECT id FROM studies WHERE study_uid = '1.2.643.4')"
            )
            # Refused at first, and stored since.
            db.execute(
                "UPDATE deliveries SET refused_for = 'sop-class-not-supported' WHERE study ="
                " (SELECT id FROM studies WHERE study_uid = '1.2.643.5')"
            )


def receive(journal: Journal, uid: str) -> int:
    _, record = journal.add(
        Instance(f"{uid}.1", uid, f"{uid}.9", "1.2", "1.2.840.10008.1.2.1", "MR", "d", 10, "CT2")
    )
    assert record is not None
    return record.row


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("said")
    service = Service(
        root, [("PACS", 1)], inference={"bundle": str(root / "none")}, study={"quiet_seconds": 3600}
    )
    fill(service.storage)
    service.start()
    yield service
    service.stop()


def listed(service: Service, **asked: bool | str) -> dict[str, dict[str, Any]]:
    reply = service.http.get("/studies", params=asked)
    assert reply.status_code == 200, reply.text
    return {study["study_uid"]: study for study in reply.json()}


def test_studies_say_in_words_what_their_results_say_of_themselves(service: Service) -> None:
    studies = listed(service)
    said = {uid: (studies[uid]["partial"], studies[uid]["doubtful"]) for uid in NOTES}
    assert said == {
        "1.2.643.1": (False, False),
        "1.2.643.2": (True, False),
        "1.2.643.3": (False, True),
        "1.2.643.4": (False, False),
        "1.2.643.5": (False, False),
    }
    part, kept = studies["1.2.643.2"]["notes"]
    assert (part["code"], part["kind"], part["detail"]) == ("STUDY_PARTIAL", "part", "126 of 181 images")
    assert part["short"].startswith("PARTIAL: ")
    assert part["remedy"].startswith("Send the missing images")
    assert part["remedy_ru"].startswith("Дошлите")
    assert (kept["code"], kept["kind"]) == ("TEXT_KEPT_AS_SENT", "remark")
    pixels = studies["1.2.643.3"]["notes"][1]
    assert (pixels["code"], pixels["kind"]) == ("PIXELS_UNSURE", "remark")
    assert pixels["meaning"], "the text of its reason code"
    [unknown] = studies["1.2.643.5"]["notes"]
    assert (unknown["code"], unknown["kind"], unknown["meaning"]) == ("OF_A_LATER_RELEASE", "remark", "")


def test_only_the_marked_or_only_the_held_are_listed_where_asked(service: Service) -> None:
    assert set(listed(service, marked=True)) == {"1.2.643.2", "1.2.643.3"}
    assert (listed(service)[LOST]["partial"], listed(service)[LOST]["notes"]) == (False, [])
    assert set(listed(service, held=True)) == {HELD}
    assert listed(service, held=True, marked=True) == {}
    assert set(listed(service, marked=True, limit="1")) == {"1.2.643.3"}
    assert listed(service, marked=True, state="receiving") == {}


def test_a_study_that_waits_says_for_what_and_until_when(service: Service) -> None:
    waiting = listed(service, held=True)[HELD]
    assert waiting["outcome"] == "pending"
    assert waiting["held"]["code"] == waiting["held_for"] == "REVISIONS_HELD"
    assert waiting["held_until"].startswith(UNTIL.isoformat()[:16])
    assert waiting["held"]["remedy"].startswith("Find out who keeps sending")
    assert waiting["held"]["meaning_ru"]
    assert listed(service)["1.2.643.2"]["held"] is None, "it has ended"


NO_TEXTS = dict.fromkeys(("meaning", "remedy", "meaning_ru", "remedy_ru"), "")


def test_what_a_pacs_said_stands_at_the_study_and_at_the_delivery(service: Service) -> None:
    studies = listed(service)
    assert studies["1.2.643.3"]["delivery_words"] == [
        {
            "destination": "pacs0",
            "remark": "B007: elements discarded",
            "refused_for": "",
            "error": "",
            "error_ru": "",
        }
        | NO_TEXTS
    ]
    [refused] = studies["1.2.643.4"]["delivery_words"]
    assert refused["refused_for"] == "sop-class-not-supported"
    assert refused["error"] == "status 0122: see its log"
    assert refused["error_ru"] == "status 0122: смотрите его журнал"
    assert refused["remedy"].startswith("Enable the class there")
    assert refused["remedy_ru"].startswith("Включите там этот класс")
    assert studies["1.2.643.1"]["delivery_words"] == studies["1.2.643.5"]["delivery_words"] == []
    [delivery] = service.studies("1.2.643.4")[0]["deliveries"]
    assert (delivery["remark"], delivery["refused_for"]) == ("", "sop-class-not-supported")
    [delivery] = service.studies("1.2.643.1")[0]["deliveries"]
    assert (delivery["remark"], delivery["refused_for"]) == ("", "")


def command(service: Service, *arguments: str, language: str = "en") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "outpost.cli", "studies", "--language", language, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"OUTPOST_CONFIG": str(service.config_file)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_and_the_report_tell_the_same_in_both_languages(service: Service) -> None:
    told = command(service, "--marked")
    assert "1.2.643.2 r1  CT2  MR 1  delivered  PARTIAL" in told
    assert "  PARTIAL: not all images of the study were there. " in told
    assert "126 of 181 images. Send the missing images" in told
    assert "pacs0 stored it with a remark: B007: elements discarded" in told
    assert "1.2.643.4" not in told
    russian = command(service, "--held", language="ru")
    assert f"ждёт до {UNTIL.isoformat()[:16].replace('T', ' ')} UTC" in russian
    assert "Выясните, кто шлёт" in russian
    assert "1.2.643.1" not in russian
    assert (
        "pacs0 refuses the result: sop-class-not-supported. status 0122: see its log. Enable the class there"
        in command(service)
    )
    report = service.http.get("/quarantine/report", params={"format": "json"}).json()
    assert [(s["name"], s["partial"], s["doubtful"]) for s in report["senders"]] == [("CT2", 1, 1)]


def test_the_command_opens_the_storage_when_no_service_holds_it(tmp_path: Path) -> None:
    service = Service(tmp_path, [("PACS", 1)])
    fill(service.storage)
    told = command(service, "--marked", "--json")
    assert '"study_uid": "1.2.643.3"' in told
    assert '"study_uid": "1.2.643.1"' not in told
