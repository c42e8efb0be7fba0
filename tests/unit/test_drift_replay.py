"""The monitor, replayed over ten years of a real hospital: silent where nothing changed, loud where it did."""

from __future__ import annotations

from datetime import date

import pytest
from padchest import COLUMNS, table

from outpost.drift.alarms import Alarm
from outpost.drift.book import Book, merge
from outpost.drift.judge import Limits
from outpost.drift.replay import TableUnusable, Window, months, read_days, replay, rolling

# Dated on the table by hand before the monitor was written (docs/drift.md).
BITS_STORED = date(2014, 5, 1)
VENDOR_GONE, VENDOR_BACK = date(2014, 12, 1), date(2015, 4, 1)
EQUIPMENT = date(2016, 1, 1)


@pytest.fixture(scope="module")
def days() -> dict[date, Book]:
    return read_days(table(), COLUMNS)


@pytest.fixture(scope="module")
def reference(days: dict[date, Book]) -> Book:
    return merge([book for day, book in days.items() if day.year == 2011])


@pytest.fixture(scope="module")
def windows(days: dict[date, Book], reference: Book) -> list[Window]:
    return list(replay(days, reference, months(date(2012, 1, 1), date(2017, 11, 30)), Limits()))


def begun(windows: list[Window], month: date) -> dict[str, Alarm]:
    """Alarms that began in the window of a month or the one after it, by tag."""
    following = [window for window in windows if window.days[0] >= month][:2]
    return {alarm.tag: alarm for window in following for alarm in window.changed if alarm.ended_on is None}


def test_it_is_silent_through_2012_and_2013(windows: list[Window]) -> None:
    quiet = [window for window in windows if window.days[0].year in (2012, 2013)]
    assert len(quiet) == 24
    assert [str(alarm) for window in quiet for alarm in window.changed] == []


def test_it_sees_ten_bit_images_end_in_may_2014(windows: list[Window]) -> None:
    alarm = begun(windows, BITS_STORED)["BitsStored"]
    assert alarm.raised_on == date(2014, 5, 31)
    assert abs((alarm.since - date(2014, 5, 1)).days) <= 7
    assert alarm.now.startswith("12 100 %")


def test_it_sees_a_vendor_vanish_and_come_back(windows: list[Window]) -> None:
    alarms = begun(windows, VENDOR_GONE)
    assert {"Manufacturer", "ViewPosition"} <= alarms.keys()
    assert alarms["Manufacturer"].raised_on == date(2014, 12, 31)
    ended = [
        (alarm.tag, alarm.ended_on)
        for window in windows
        for alarm in window.changed
        if alarm.ended_on is not None and alarm.raised_on == date(2014, 12, 31)
    ]
    assert ("Manufacturer", date(2015, 4, 30)) in ended
    assert ("ViewPosition", date(2015, 4, 30)) in ended


def test_it_sees_the_equipment_of_january_2016_within_two_windows(windows: list[Window]) -> None:
    alarms = begun(windows, EQUIPMENT)
    assert {"Modality", "Manufacturer"} <= alarms.keys()
    assert alarms["Modality"].raised_on == date(2016, 1, 31)
    assert alarms["Modality"].since.year == 2016
    assert alarms["Modality"].since.month == 1
    assert alarms["Manufacturer"].raised_on <= date(2016, 2, 29)


def test_a_change_that_stays_is_told_once(windows: list[Window]) -> None:
    told = [alarm for window in windows for alarm in window.changed if alarm.tag == "Modality"]
    assert len(told) == 1


def test_windows_of_28_days_that_end_every_day_are_silent_through_the_quiet_years_too(
    days: dict[date, Book], reference: Book
) -> None:
    rolled = replay(days, reference, rolling(date(2012, 1, 1), date(2013, 12, 31), 28), Limits())
    assert [str(alarm) for window in rolled for alarm in window.changed] == []


def test_a_few_images_say_nothing(days: dict[date, Book], reference: Book) -> None:
    (window,) = replay(days, reference, [(date(2017, 8, 1), date(2017, 8, 31))], Limits())
    assert window.findings == []


def test_a_year_of_the_hospital_is_a_few_kilobytes(reference: Book) -> None:
    assert reference.observations > 20_000
    assert len(reference.encode()) < 4_000


def test_a_table_without_a_column_names_those_it_has(tmp_path) -> None:
    file = tmp_path / "headers.csv"
    file.write_text("StudyDate,Modality\n20110101,CR\n")
    with pytest.raises(TableUnusable, match="no column Hersteller: it has StudyDate, Modality"):
        read_days(file, {"StudyDate": "StudyDate", "Manufacturer": "Hersteller"})
