"""The page and the commands: plots without anything from elsewhere, nothing of a sender's read as HTML."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from outpost.cli import main
from outpost.drift.alarms import Alarm
from outpost.drift.book import Book
from outpost.drift.judge import Limits
from outpost.drift.page import render
from outpost.drift.replay import replay
from outpost.drift.shelf import Shelf
from outpost.options import Language

FIRST = date(2026, 1, 1)
HOSTILE = "<script>alert(1)"


def day(number: int, changed: bool) -> Book:
    made, when = Book(), FIRST + timedelta(days=number)
    for image in range(40):
        made.add(
            f"chita/brain/{when}",
            HOSTILE if image % 4 == 0 else "CT1",
            {
                "Modality": "DX" if changed else "CR",
                "Manufacturer": HOSTILE,
                "Rows": 2000.0 + image if image % 3 else None,
            },
        )
    return made


@pytest.fixture(scope="module")
def page() -> str:
    return made("en")


def made(language: Language) -> str:
    days = {FIRST + timedelta(days=number): day(number, number >= 28) for number in range(56)}
    reference = Book()
    for number in range(14):
        reference = reference.merged(day(number, False))
    weeks = [(FIRST + timedelta(days=7 * week), FIRST + timedelta(days=7 * week + 6)) for week in range(2, 8)]
    windows = list(replay(days, reference, weeks, Limits(min_sample=20)))
    alarms: list[Alarm] = [alarm for window in windows for alarm in window.changed]
    assert {alarm.tag for alarm in alarms} == {"Modality"}
    return render("Drift of brain", reference, windows, alarms, Limits(min_sample=20), language=language)


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert page.count("<svg") >= 6


def test_every_colour_comes_from_the_style_sheet_that_the_policy_of_the_page_takes(page: str) -> None:
    assert not re.search(r"<[^>]*\sstyle\s*=", page)
    named = set(re.findall(r'<i class="(in-[a-z0-9]+)">', page))
    assert named >= {"in-c0", "in-now", "in-missing"}
    for name in named:
        assert f".{name}{{background:var(--{name.removeprefix('in-')})}}" in page


def test_what_a_sender_calls_itself_is_shown_and_not_read(page: str) -> None:
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_says_how_many_alarms_are_open_and_since_when(page: str) -> None:
    # The two senders, and both together.
    assert "3 open alarms" in page
    assert str(FIRST + timedelta(days=28)) in page
    assert "CR 100 %" in page


def test_the_page_speaks_russian_where_it_is_asked_for() -> None:
    russian = made("ru")
    assert 'lang="ru"' in russian
    for words in (
        "открытых тревог: 3",
        "Отправитель",
        "Все отправители",
        "нет значения в ",
        "эталон",
        "эффект",
    ):
        assert words in russian
    ours = re.sub(r"<style>.*?</style>|<[^>]+>|&[a-z]+;", " ", russian, flags=re.DOTALL)
    for word in ("alarm", "sender", "reference", "missing", "median", "effect", "Since", "Before"):
        assert not re.search(rf"\b{word}\b", ours), word
    assert "закрепите их: outpost drift freeze" in " ".join(
        render("Дрейф", None, [], [], Limits(), language="ru").split()
    )


def test_without_a_reference_the_page_says_how_to_have_one() -> None:
    assert "outpost drift freeze" in render("Drift of brain", None, [], [], Limits())


def test_files_of_devices_merge_by_command_whatever_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf(tmp_path / "drift")
    for number in range(5):
        shelf.put_day(FIRST + timedelta(days=number), day(number, False))
    files = [str(file) for file in sorted((tmp_path / "drift" / "days").glob("*.gz"))]
    assert main(["drift", "merge", *files, "--out", str(tmp_path / "one.gz")]) == 0
    assert main(["drift", "merge", *files[::-1], files[0], "--out", str(tmp_path / "two.gz")]) == 0
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    assert "2026-01-01 to 2026-01-05, 5 days of systems, 200 observations" in capsys.readouterr().out


def test_a_file_that_is_no_sketch_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.gz").write_bytes(b"no sketch")
    assert main(["drift", "merge", str(tmp_path / "x.gz"), "--out", str(tmp_path / "out.gz")]) == 2
    assert f"{tmp_path / 'x.gz'}: this is no drift book" in capsys.readouterr().err
    assert not (tmp_path / "out.gz").exists()


def test_a_table_is_replayed_by_command_and_its_page_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["when,kind"]
    for number in range(90):
        when = FIRST + timedelta(days=number)
        rows += [f"{when:%Y%m%d},{'DX' if when.month == 3 else 'CR'}"] * 10
    table = tmp_path / "headers.csv"
    table.write_text("\n".join(rows) + "\n")
    arguments = ["--column", "StudyDate=when", "--column", "Modality=kind"]
    asked = ["drift", "replay", str(table), *arguments, "--reference", "2026-01-01:2026-01-31"]
    assert main([*asked, "--out", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr().out
    assert "2026-03-31 begins: sender TABLE: modality (Modality): CR 100 %, DX 0 % -> " in told
    assert "since about 2026-03-01" in told
    assert "2 windows, 1 alarms, 1 of them open" in told
    assert "1 open alarm" in (tmp_path / "page.html").read_text()
    assert main(["drift", "replay", str(table), "--reference", "2026-01-01:2026-01-31"]) == 2
    assert "--column StudyDate=NAME is missing" in capsys.readouterr().err
