"""The fleet view over three regions, and over three regions of which one is cut off without a word (DROP)."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    ADDRESSES,
    HOSPITAL,
    PAGE,
    REGIONS,
    TLS,
    host_of,
    http_json,
    lab,
    psql,
    send_head_series,
    study_end,
    token,
    wait_for,
)
from testinfra.host import Host

CUT = "tver"


@pytest.fixture
def centre() -> Host:
    return host_of("centre")


def freshness(centre: Host) -> dict[str, dict[str, Any]]:
    rows = psql(
        centre, "fleet", "SELECT region, state, coalesce(reason, '') FROM fleet.freshness"
    ).splitlines()
    return {
        region: {"state": state, "reason": reason}
        for region, state, reason in (row.split("|", 2) for row in rows)
    }


def studies(centre: Host) -> set[tuple[str, str]]:
    rows = psql(
        centre, "fleet", "SELECT region, study_key FROM fleet.studies WHERE outcome = 'delivered'"
    ).splitlines()
    return {(region, key) for region, key in (row.split("|") for row in rows)}


def test_the_collector_runs_and_starts_at_boot(centre: Host) -> None:
    assert centre.service("outpost-fleet.service").is_running
    assert centre.service("outpost-fleet.service").is_enabled


def test_every_region_is_fresh(centre: Host) -> None:
    """And heard from since now: what was fresh a moment ago still looks so after the collector has ended."""
    began = psql(centre, "fleet", "SELECT clock_timestamp()")

    def all_fresh() -> bool:
        heard = psql(centre, "fleet", f"SELECT region FROM fleet.sync WHERE ok_at > '{began}'").split()
        states = {name: row["state"] for name, row in freshness(centre).items()}
        return set(heard) == set(REGIONS) and states == dict.fromkeys(REGIONS, "fresh")

    wait_for("every region fresh and heard from again", all_fresh, 60)


def test_a_study_of_each_region_reaches_the_centre_without_its_uid(centre: Host, tmp_path: Path) -> None:
    before = studies(centre)
    uids = {
        region: send_head_series(region, f"fleet {time.time_ns()}", tmp_path / region) for region in REGIONS
    }
    for region, uid in uids.items():
        assert study_end(region, uid)["state"] == "delivered"
    wait_for(
        "a new study of each region at the centre",
        lambda: {r for r, _ in studies(centre) - before} == set(REGIONS),
        60,
    )
    dump = centre.run_expect([0], "cd / && sudo -u postgres pg_dump fleet").stdout
    marks = psql(
        centre,
        "fleet",
        "SELECT region, bool_and(notes IS NOT NULL AND NOT partial AND NOT doubtful) FROM fleet.studies"
        " WHERE outcome = 'delivered' GROUP BY region ORDER BY region",
    ).splitlines()
    assert marks == [f"{region}|t" for region in sorted(REGIONS)], "whole heads, and every region says so"
    told = psql(
        centre, "fleet", "SELECT bool_and(told AND partial_day = 0 AND doubtful_day = 0) FROM fleet.marked"
    )
    assert told == "t", "each region speaks the contract that tells"
    assert not [uid for uid in uids.values() if uid in dump], "a Study Instance UID left its region"


def test_the_page_shows_what_the_database_says(centre: Host) -> None:
    rows = http_json(f"{PAGE}/freshness.json")["regions"]
    assert {row["region"] for row in rows} == set(REGIONS)


def test_the_page_is_closed_to_who_has_no_token(centre: Host) -> None:
    for path in ("/", "/freshness.json", "/studies.json", "/metrics", "/docs"):
        for bearer in ("", "guessed", token(REGIONS[0], "admin")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                http_json(f"{PAGE}{path}", bearer)
            assert refused.value.code == 401, path
            refused.value.close()
    assert centre.file("/etc/outpost/fleet.token").mode == 0o600


@pytest.mark.skipif("page" not in TLS, reason="this scenario's page is plain")
def test_the_page_is_spoken_over_tls_alone(centre: Host) -> None:
    """It proves itself by the fleet's authority, under its address; plain HTTP gets 400 and not a word of a region."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        http_json(f"http://{ADDRESSES['centre']}:8090/freshness.json")
    said = refused.value.read().decode()
    assert (refused.value.code, "https://" in said, REGIONS[0] in said) == (400, True, False)
    assert {row["region"] for row in http_json(f"{PAGE}/freshness.json")["regions"]} == set(REGIONS)
    key = centre.file("/etc/outpost/tls/page.pem")
    assert (key.user, key.group, key.mode) == ("root", "outpost", 0o640)


def test_the_command_on_the_centre_says_how_the_regions_are(centre: Host) -> None:
    asked = centre.run("outpost status --json")
    found = json.loads(asked.stdout)
    assert {row["region"] for row in found["regions"]} == set(REGIONS)
    green = all(row["colour"] == "green" for row in found["regions"])
    assert asked.rc == (0 if green else 1), asked.stderr
    assert centre.run("outpost top --once").rc in (0, 1)
    for words in ("studies", "events"):
        refused = centre.run(f"outpost {words}")
        assert refused.rc == 2, refused.stdout
        assert "outpost status" in refused.stderr
    assert centre.run_expect([0], "LC_ALL=C outpost config check").stdout.endswith("collector\n")


@pytest.fixture
def cut_off() -> Iterator[str]:
    lab("cut", CUT)
    yield CUT
    lab("heal", CUT)


def test_with_one_region_cut_the_view_answers_and_says_which_is_stale_and_why(
    centre: Host, cut_off: str, tmp_path: Path
) -> None:
    known = studies(centre)

    def stale() -> dict[str, dict[str, Any]] | None:
        rows = freshness(centre)
        # Old first, and a moment later the attempt under way has failed.
        told = rows[cut_off]["state"] == "stale" and ADDRESSES[cut_off] in rows[cut_off]["reason"]
        assert told, rows
        return rows

    rows = wait_for(f"{cut_off} stale, and why", stale, 120)
    others = {region: row["state"] for region, row in rows.items() if region != cut_off}
    assert others == dict.fromkeys(others, "fresh"), "a cut region must not hold up the others"
    # The history of the region that is off is still there, and asking costs no network.
    asked = time.monotonic()
    assert studies(centre) >= known
    assert time.monotonic() - asked < 5

    # The region works on without its link: the hospital's network is another one.
    uid = send_head_series(cut_off, f"cut {time.time_ns()}", tmp_path / "cut", address=HOSPITAL[cut_off])
    lab("heal", cut_off)
    assert study_end(cut_off, uid)["state"] == "delivered"
    wait_for(f"{cut_off} fresh again", lambda: freshness(centre)[cut_off]["state"] == "fresh", 120)
    wait_for("the study made while the link was cut", lambda: len(studies(centre) - known) == 1, 60)
