"""The fleet's rules that need no database: pauses, ranges, words for faults, the table, configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from outpost.config import ConfigError, load
from outpost.fleet.config import BATCH_RESERVE_SECONDS, DEAD_LINK_SECONDS, FleetConfig, Sync
from outpost.fleet.faults import _connect_fault
from outpost.fleet.schedule import failure_delay, success_delay
from outpost.fleet.sync import SPAN_LEAST, SPAN_MOST, next_span
from outpost.fleet.table import columns, render
from outpost.fleet.view import Counted, Region, age, headline

SETTINGS = Sync(period_seconds=60, backoff_max_seconds=900)


@pytest.mark.parametrize(
    ("failures", "wanted"), [(1, 60), (2, 120), (3, 240), (4, 480), (5, 900), (5000, 900)]
)
def test_the_pause_after_failures_doubles_up_to_the_limit(failures: int, wanted: float) -> None:
    pauses = [failure_delay(SETTINGS, failures) for _ in range(200)]
    assert all(0.8 * wanted <= pause <= wanted for pause in pauses)
    assert max(pauses) - min(pauses) > 0.1 * wanted, "spread, so that regions do not come in step"


def test_the_pause_after_success_is_never_longer_than_the_period() -> None:
    assert all(54 <= success_delay(SETTINGS) <= 60 for _ in range(200))


def test_ranges_widen_while_quick_narrow_when_slow_and_stay_in_bounds() -> None:
    assert next_span(2000, 0.2) == 4000
    assert next_span(2000, 10) == 2000
    assert next_span(2000, 20) == 1000
    assert next_span(SPAN_MOST, 0.1) == SPAN_MOST
    assert next_span(SPAN_LEAST, 29) == SPAN_LEAST


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            'connection to server at "10.77.0.11", port 5432 failed: timeout expired',
            "unreachable",
            "no answer from",
        ),
        ('connection to server at "h", port 5 failed: Connection timed out', "unreachable", "no answer from"),
        ('connection to server at "h", port 5 failed: No route to host', "unreachable", "no route"),
        ('connection to server at "h", port 5 failed: Connection refused', "refused", "refuses connections"),
        (
            'could not translate host name "chita" to address: Name or service not known',
            "address",
            "resolved",
        ),
        ('FATAL:  password authentication failed for user "fleet_reader"', "login", "login"),
        ('FATAL:  no pg_hba.conf entry for host "10.77.0.10"', "login", "pg_hba.conf"),
        ('FATAL:  too many connections for role "fleet_reader"', "busy", "no free connection"),
        ("FATAL:  the database system is starting up", "starting", "starting or stopping"),
        ('FATAL:  database "outpost" does not exist', "address", "no such database"),
        ('server certificate for "x" does not match host name "y"', "tls", "trusted"),
        ("ВАЖНО:  что-то ещё", "connect", "что-то ещё"),
    ],
)
def test_each_way_a_connection_fails_has_its_kind_and_its_words(text: str, kind: str, words: str) -> None:
    fault = _connect_fault(text, "chita.example:5432")
    assert fault.kind == kind
    assert words in fault.sentence
    assert "\n" not in fault.sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (9e5, "10 d")],
)
def test_ages_are_written_for_people(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def region(code: str, state: str, reason: str = "up to date", colour: str = "green") -> Region:
    when = datetime(2026, 11, 23, 14, 0, 1, tzinfo=UTC)
    return Region(
        code, code, state, 4.0, when, 0, 0.1, reason, None, None, 0, when, when, 10, 0, 0.1, "0.1.0", colour
    )  # fmt: skip


def test_the_headline_says_for_how_many_regions_the_numbers_speak() -> None:
    assert headline([]) == "no region is attached yet"
    assert headline([region("a", "fresh")]) == "1 of 1 regions work; data of 1 fresh"
    mixed = [
        region("a", "fresh", colour="red"),
        region("b", "dead", colour="red"),
        region("c", "late", colour="amber"),
        region("d", "fresh"),
    ]
    assert headline(mixed) == "1 of 4 regions work (2 red, 1 amber); data of 2 fresh (1 late, 1 dead)"


def test_the_table_aligns_its_columns_and_lets_the_reason_run_on() -> None:
    when = datetime(2026, 11, 23, 13, 0, 0, tzinfo=UTC)
    counted = [Counted("chita", "brain", "delivered", "brain_extraction", "1.0.2", "full", 12, when, None)]
    text = render(
        [region("chita", "fresh"), region("tver", "stale", "no answer: " + "x" * 100, "red")], counted
    )
    lines = text.splitlines()
    assert lines[0] == "1 of 2 regions work (1 red); data of 1 fresh (1 stale)"
    assert lines[2].startswith("REGION  STATE  AGE  RELEASE  DATA THROUGH (UTC)   REASON")
    assert lines[3] == "chita   fresh  4 s  0.1.0    2026-11-23 14:00:01  up to date"
    assert lines[4].endswith("x" * 100)
    assert lines[7].split() == (
        "chita brain delivered brain_extraction 1.0.2 full 12 2026-11-23 13:00:00".split()
    )
    assert "no studies yet" in render([region("chita", "fresh")], [])


def test_columns_are_as_wide_as_their_widest_value() -> None:
    assert (
        columns(("A", "B"), [("long value", "x"), ("y", "z")])
        == "A           B\nlong value  x\ny           z"
    )


def write(directory: Path, text: str) -> Path:
    path = directory / "fleet.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shortest_configuration_names_only_the_password(tmp_path: Path) -> None:
    config = load(write(tmp_path, "centre: {password: secret}\n"), FleetConfig)
    assert (config.sync.parallel, config.sync.backoff_max_seconds, config.api.port) == (16, 900, 8090)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("centre: {pasword: x}\n", "centre.pasword: there is no such key; did you mean password?"),
        ("centre: {password: ''}\n", "the password is empty"),
        ("centre: {password: x}\nregions: [chita]\n", "regions: there is no such key"),
        ("centre: {password: x}\nsync: {deadline_seconds: 20}\n", "a dead link is noticed after 25 s"),
        ("centre: {password: x}\nsync: {parallel: 0}\n", "sync.parallel"),
    ],
)
def test_a_fault_in_the_configuration_is_named_with_its_remedy(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(write(tmp_path, text), FleetConfig)
    assert words in str(raised.value)


def test_a_range_is_never_stopped_before_a_dead_link_would_be_noticed() -> None:
    assert BATCH_RESERVE_SECONDS > DEAD_LINK_SECONDS
