"""How many workers a system has: its cores, unless its memory, or its share of the GPU's, holds fewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outpost.config import Config
from outpost.inference import memory
from outpost.inference.plan import PARENT_MIB, make_plan
from outpost.records.journal import Journal

BRAIN = Path(__file__).parents[2] / "service/bundles/brain_extraction"
NEED = 1600  # MiB a worker, as the bundle declares


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    yield journal
    journal.close()


def config(tmp_path: Path, **inference: Any) -> Config:
    return Config.model_validate(
        {
            "system": "brain",
            "region": "chita",
            "storage": {"root": tmp_path},
            "inference": {"bundle": BRAIN, "device": "cpu", "workers": 4, **inference},
            "delivery": {"destinations": [{"name": "pacs", "ae_title": "P", "host": "h", "port": 1}]},
            "records": {"enabled": False},
        }
    )


@pytest.mark.parametrize(
    ("inference", "workers"),
    [
        ({"memory_mib": PARENT_MIB + 4 * NEED}, 4),
        ({"memory_mib": PARENT_MIB + 4 * NEED - 1}, 3),
        ({"memory_mib": PARENT_MIB + 2 * NEED}, 2),
        ({"memory_mib": 100}, 1),
        ({"memory_mib": PARENT_MIB + 9 * NEED, "device": "cuda:0", "vram_mib": 8000}, 2),
        ({"memory_mib": PARENT_MIB + 9 * NEED, "device": "cpu", "vram_mib": 8000}, 4),
    ],
)
def test_workers_fit_the_system_s_share(
    tmp_path: Path,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    inference: dict[str, Any],
    workers: int,
) -> None:
    monkeypatch.setattr(memory, "limit_mib", lambda: 64 << 10)  # this machine's own memory shall not decide
    plan = make_plan(config(tmp_path, **inference), journal)
    assert plan.ladder.top.parallel == workers
    told = [event.code for event in journal.events()]
    assert told == (["WORKERS_REDUCED"] if workers < 4 else [])


def test_what_a_rung_failed_of_is_forgotten_on_a_host_with_more_memory(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "limit_mib", lambda: 64 << 10)
    small = make_plan(config(tmp_path, memory_mib=4000), journal).ladder
    small.failed(small.top, "WORKER_OUT_OF_MEMORY")
    again = make_plan(config(tmp_path, memory_mib=4000), journal).ladder
    assert again.rung_for() != again.top
    more = make_plan(config(tmp_path, memory_mib=9000), journal).ladder
    assert more.rung_for() == more.top


def test_a_broken_bundle_still_gives_a_plan_to_receive_with(tmp_path: Path, journal: Journal) -> None:
    plan = make_plan(config(tmp_path, bundle=tmp_path), journal)
    assert plan.bundle is None
    assert plan.ladder.top.parallel == 1
