"""Whether a region works, as the centre sees it: real databases, heartbeats as the service writes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_cluster import Fleet, the_fleet

from outpost.fleet.sync import prepare, sync_region


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = the_fleet()
    fleet.reset()
    prepare(fleet.config.centre, fleet.config.sync.period_seconds)
    yield fleet


def read(fleet: Fleet, code: str = "chita") -> None:
    assert sync_region(fleet.config.centre, fleet.config.sync, code).fault is None


def test_green(fleet: Fleet) -> None:
    fleet.regions["chita"].beat()
    read(fleet)
    print(fleet.health("chita"))
    print(fleet.ask("select * from fleet.health"))
    print(fleet.ask("select region, reason, health from fleet.freshness"))
    assert fleet.health("chita")["colour"] == "green"
