"""What studies show is counted off their way, kept durably, judged once a day, and told once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from outpost.config import Drift
from outpost.drift.alarms import Alarm
from outpost.drift.book import OTHERS, Book, BookUnusable, merge
from outpost.drift.keeper import Ended, Keeper
from outpost.drift.observe import MALFORMED, of_headers, of_pixels, safely
from outpost.drift.register import Register
from outpost.drift.shelf import Shelf
from outpost.drift.tags import HEADER
from outpost.records.journal import Instance, Journal

DAY = date(2026, 3, 10)


def book(part: str, modality: str = "CR", count: int = 5, sender: str = "CT1") -> Book:
    made = Book()
    for number in range(count):
        made.add(part, sender, {"Modality": modality, "Rows": 1000.0 + number, "Exposure": None})
    return made


# --- books ---


def test_books_of_devices_merge_in_any_order_to_the_same_bytes() -> None:
    books = [book(f"chita/brain/2026-03-{day:02}", count=day) for day in range(1, 8)]
    books.append(book("tver/brain/2026-03-01", "MR", sender="MR9"))
    assert merge(books).encode() == merge(books[::-1]).encode()
    halves = merge([merge(books[:3]), merge(books[3:])])
    assert halves.encode() == merge(books).encode()
    assert halves.observations == sum(one.observations for one in books)


def test_a_day_that_was_sent_twice_counts_once_in_its_fuller_state() -> None:
    early, late = book("chita/brain/2026-03-01", count=3), book("chita/brain/2026-03-01", count=9)
    other = book("chita/brain/2026-03-02")
    assert merge([early, other, late]).observations == 14


def test_a_day_inside_a_merged_book_is_not_counted_again() -> None:
    one, two = book("chita/brain/2026-03-01"), book("chita/brain/2026-03-02")
    with pytest.raises(BookUnusable, match="both hold chita/brain/2026-03-01"):
        merge([merge([one, two]), one])


def test_a_book_survives_being_packed_and_says_what_is_no_book() -> None:
    one = book("chita/brain/2026-03-01")
    assert Book.decode(one.encode()) == one
    for broken in (b"", b"no book", one.encode()[:-20], one.encode()[:30] + b"x" + one.encode()[31:]):
        with pytest.raises(BookUnusable):
            Book.decode(broken)


def test_a_book_for_others_names_nothing_rare() -> None:
    one = book("chita/brain/2026-03-01", count=50)
    one.add("chita/brain/2026-03-01", "CT1", {"Manufacturer": "IVANOV IVAN"})
    assert b"IVANOV" not in json.dumps([s.as_json() for s in one.for_others().pooled().values()]).encode()
    assert one.for_others().observations == one.observations


# --- what is seen of a study ---


def test_a_series_is_one_observation_and_two_views_are_two() -> None:
    slice_ = pydicom.dcmread(get_testdata_file("MR_small.dcm"), stop_before_pixels=True)
    other = Dataset()
    other.update(slice_)
    other.ViewPosition = "PA"
    seen = of_headers([("1", slice_)] * 181 + [("2", slice_), ("2", other)])
    assert [values["ViewPosition"] for values in seen] == [None, None, "PA"]
    assert seen[0]["Modality"] == "MR"
    assert seen[0].keys() == HEADER.keys()


def test_nothing_of_a_person_is_observed() -> None:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = "Ivanov^Ivan", "12345"
    dataset.PatientBirthDate, dataset.StudyDate = "19540317", "20260310"
    dataset.Manufacturer = "Ivanov^Ivan"  # somebody typed into the wrong field
    dataset.Modality = "X-RAY"
    (seen,) = of_headers([("1", dataset)])
    assert seen["PatientAge"] == "70s"
    assert seen["Manufacturer"] == seen["Modality"] == MALFORMED
    told = json.dumps(seen).upper()
    assert not any(secret in told for secret in ("IVANOV", "12345", "1954", "0317"))


@pytest.mark.filterwarnings("error")  # a warning would carry the value into the log
def test_attributes_that_cannot_be_read_are_missing_ones() -> None:
    dataset = Dataset()
    for tag, vr, value in (
        (0x00100030, "DA", b"born in May"),
        (0x00101010, "AS", b"9 Y "),
        (0x00180060, "DS", b"eighty kV "),
        (0x00181152, "IS", b"4\\5 "),
        (0x00280010, "US", b"\x01"),
        (0x00080060, "CS", b"computed radiography of somebody "),
    ):
        dataset[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    (seen,) = of_headers([("1", dataset)])
    assert seen["KVP"] is seen["Rows"] is seen["PatientAge"] is None
    assert seen["Exposure"] == 4
    assert seen["Modality"] == MALFORMED


def test_pixel_statistics_of_a_large_image_are_those_of_all_of_it_nearly_and_soon() -> None:
    rng = np.random.default_rng(3)
    volume = rng.normal(100, 20, (256, 256, 160)).astype(np.float32)
    began = time.perf_counter()
    seen = of_pixels(volume)
    assert time.perf_counter() - began < 0.1
    assert seen["pixels.mean"] == pytest.approx(100, abs=1)
    assert seen["pixels.sd"] == pytest.approx(20, abs=0.5)
    assert seen["pixels.p99"] == pytest.approx(float(np.percentile(volume, 99)), rel=0.02)
    assert of_pixels(np.zeros((64, 64)))["pixels.extremes"] == 1.0


def test_what_fails_to_be_observed_is_nobodys_trouble() -> None:
    assert safely(lambda: [{"Rows": 1 / 0}]) == []


# --- days on disk ---


def test_old_days_become_months_and_are_counted_once_also_after_a_crash_between(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(60)]
    for day in days:
        shelf.put_day(day, book(f"chita/brain/{day}"))
    before = shelf.period(days[0], days[-1])
    january = (tmp_path / "days" / "2026-01-05.gz").read_bytes()
    assert shelf.compact(date(2026, 2, 15)) == 31
    (tmp_path / "days" / "2026-01-05.gz").write_bytes(january)  # its removal did not reach the disk
    assert shelf.period(days[0], days[-1]).encode() == before.encode()
    assert shelf.compact(date(2026, 2, 15)) == 1
    assert shelf.period(days[0], days[-1]).encode() == before.encode()
    assert [begin for begin, _ in shelf.months()] == [date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)]


def test_a_day_that_the_disk_has_lost_stops_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put_day(DAY, book(f"chita/brain/{DAY}"))
    (tmp_path / "days" / f"{DAY}.gz").write_bytes(b"\0" * 100)
    assert shelf.day(DAY) == Book()
    assert shelf.days(DAY, DAY) == []


# --- the register ---


def alarm(tag: str = "Modality") -> Alarm:
    return Alarm("CT1", tag, "values", DAY, DAY, "chi-square", 300.0, 1e-9, 0.5, "CR 100 %", "DX 60 %")


def test_the_register_survives_and_knows_what_postgres_has(tmp_path: Path) -> None:
    register = Register(tmp_path / "alarms.json")
    register.change([alarm(), alarm("Rows")], DAY, "digest")
    register.mark_shipped([alarm()])
    again = Register(tmp_path / "alarms.json")
    assert [one.tag for one in again.unshipped()] == ["Rows"]
    assert again.judged == DAY
    (ended,) = [one for one in again.open.values() if one.tag == "Modality"]
    again.change([replace(ended, ended_on=DAY)], DAY, "digest")
    assert sorted(one.tag for one in again.unshipped()) == ["Modality", "Rows"]
    assert list(again.open) == [("CT1", "Rows", "values")]


def test_a_register_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "alarms.json").write_text('{"alarms": [{"shipped": false}]}')
    assert Register(tmp_path / "alarms.json").all == []


# --- the keeper ---


class Clock:
    def __init__(self, day: date) -> None:
        self.day = day

    def __call__(self) -> date:
        return self.day


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.sqlite3", "brain")
    for sender in ("CT1", "CT2", *(f"FLOOD{number}" for number in range(60))):
        made.add(Instance(f"1.{sender}", f"study of {sender}", "1", "1", "1", "CR", "d", 10, sender))
    yield made
    made.close()


def keeper_of(tmp_path: Path, journal: Journal, clock: Clock, **settings: float) -> Keeper:
    drift = Drift.model_validate({"window_days": 7, "min_sample": 50, **settings})
    return Keeper("chita", "brain", tmp_path / "drift", None, drift, journal, clock)


def study(modality: str = "CR", sender: str = "CT1") -> Ended:
    return Ended(
        f"study of {sender}", {"images": [{"Modality": modality, "Rows": 2000}]}, {"Outcome": "computed"}
    )


def run_day(keeper: Keeper, *studies: Ended) -> None:
    """One turn of the keeper's thread for what came in today."""
    for one in studies:
        keeper.observe(one)
    keeper._turn(0.0)


def weeks(keeper: Keeper, clock: Clock, count: int, modality: str) -> None:
    for _ in range(7 * count):
        run_day(keeper, *[study(modality) for _ in range(20)])
        clock.day += timedelta(days=1)
        run_day(keeper)


def test_a_change_is_told_once_with_its_day_and_told_again_when_it_is_over(
    tmp_path: Path, journal: Journal
) -> None:
    clock = Clock(DAY)
    keeper = keeper_of(tmp_path, journal, clock)
    weeks(keeper, clock, 3, "CR")
    keeper.freeze(DAY, clock.day)
    weeks(keeper, clock, 1, "CR")
    assert journal.events() == []
    changed_on = clock.day
    weeks(keeper, clock, 2, "DX")
    told = [event for event in journal.events() if event.code == "DRIFT_BEGUN"]
    assert len(told) == 1
    assert "CR 100 %, DX 0 %" in told[0].detail
    assert f"since about {changed_on}" in told[0].detail
    (open_,) = keeper.register.open.values()
    assert (open_.sender, open_.tag, open_.since) == ("CT1", "Modality", changed_on)
    assert (open_.raised_on - changed_on).days < 4
    # A restart tells nothing again.
    keeper = keeper_of(tmp_path, journal, clock)
    weeks(keeper, clock, 2, "CR")
    assert [event.code for event in journal.events()] == ["DRIFT_ENDED", "DRIFT_BEGUN"]
    assert keeper.register.open == {}


def test_another_reference_ends_what_the_old_one_had_raised(tmp_path: Path, journal: Journal) -> None:
    clock = Clock(DAY)
    keeper = keeper_of(tmp_path, journal, clock)
    weeks(keeper, clock, 2, "CR")
    keeper.freeze(DAY, clock.day)
    begin = clock.day
    weeks(keeper, clock, 2, "DX")
    assert len(keeper.register.open) == 1
    keeper.freeze(begin, clock.day)
    run_day(keeper)
    assert keeper.register.open == {}


def test_a_reference_of_too_little_is_refused_with_what_is_wanted(tmp_path: Path, journal: Journal) -> None:
    keeper = keeper_of(tmp_path, journal, Clock(DAY))
    with pytest.raises(ValueError, match="holds 0 observations, at least 50 are wanted"):
        keeper.freeze(DAY, DAY)


def test_what_was_counted_is_on_the_disk_when_the_thread_has_stopped(
    tmp_path: Path, journal: Journal
) -> None:
    keeper = keeper_of(tmp_path, journal, Clock(DAY), save_minutes=600)
    keeper.start()
    for _ in range(30):
        keeper.observe(study())
    keeper.stop()
    assert Shelf(tmp_path / "drift").day(DAY).observations == 60  # an image and a study each
    again = keeper_of(tmp_path, journal, Clock(DAY))
    run_day(again, study())
    again.stop()
    again._save()
    assert Shelf(tmp_path / "drift").day(DAY).observations == 62


def test_senders_without_end_are_counted_together(tmp_path: Path, journal: Journal) -> None:
    keeper = keeper_of(tmp_path, journal, Clock(DAY))
    run_day(keeper, *[study(sender=f"FLOOD{number}") for number in range(60)])
    keeper._save()
    senders = Shelf(tmp_path / "drift").day(DAY).senders
    assert len(senders) == 33
    assert OTHERS in senders


def test_lanes_never_wait_for_it_however_long_it_is_busy(tmp_path: Path, journal: Journal) -> None:
    keeper = keeper_of(tmp_path, journal, Clock(DAY))
    began = time.perf_counter()
    for _ in range(3000):
        keeper.observe(study())
    assert time.perf_counter() - began < 1.0
    assert keeper.dropped == 2000


def test_a_disk_that_takes_nothing_ends_neither_the_thread_nor_what_it_holds(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_of(tmp_path, journal, Clock(DAY), save_minutes=0.0001)
    full = threading.Event()
    full.set()
    write = Shelf.put_day

    def put_day(self: Shelf, day: date, book: Book) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        write(self, day, book)

    monkeypatch.setattr(Shelf, "put_day", put_day)
    run_day(keeper, study())
    time.sleep(0.02)
    keeper._stopping.set()  # so that the pause after a fault is none
    run_day(keeper)
    assert keeper.failures >= 1
    full.clear()
    run_day(keeper)
    assert Shelf(tmp_path / "drift").day(DAY).observations == 2
