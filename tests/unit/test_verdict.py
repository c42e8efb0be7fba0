"""The verdict on a running service: each state a pipeline may be in, and the one code that tells of it."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outpost.config import Config
from outpost.filter.rulefile import RuleFile, no_rules
from outpost.health.codes import CheckCode, page
from outpost.health.host import clock_sane, release_made_at
from outpost.health.verdict import Check, Health, Verdict, golden_check
from outpost.inference.rung import Rung
from outpost.inference.state import Assertion, Golden, LaneState
from outpost.records.journal import utc_now

ROOT = Path(__file__).resolve().parents[2]
FULL = Rung("full", 2, 1, "full", "torchscript", "float32", "cpu")


def golden(age: float = 0.0, **values: Any) -> Golden:
    return Golden(
        **({"ok": True, "at": time.monotonic() - age, "value": 1.0, "wanted": 0.995, "seconds": 1.0} | values)
    )


def lane(**values: Any) -> LaneState:
    asserts = (Assertion(CheckCode.DECODERS_WORK, True, "all", "all"),)
    return LaneState(**({"rung": FULL, "alive": True, "golden": golden(), "asserts": asserts} | values))


@dataclass
class Rules:
    """Of `outpost.filter.active.ActiveRules`; a real one is in tests/unit/test_filter_active.py."""

    fault: str = ""
    file: RuleFile = field(default_factory=no_rules)


@dataclass
class Pipeline:
    """What `Health` reads of a pipeline; a real one is in tests/service/test_health.py."""

    lanes: tuple[LaneState, ...] = field(default_factory=lambda: (lane(), lane()))
    golden: Golden | None = field(default_factory=golden)
    golden_fastest: float | None = 1.0
    golden_period: float = 1e6  # golden cases made above are as old as the test session
    stall_seconds: float = 8.0
    receive_only: str = ""
    rung: Rung = FULL
    queue: dict[str, Any] = field(default_factory=dict)
    last_tick: float = field(default_factory=time.monotonic)
    journal_answered: float = field(default_factory=time.monotonic)
    rules: Rules = field(default_factory=lambda: Rules())


@dataclass
class Scp:
    listening: bool = True


@pytest.fixture
def running() -> Iterator[threading.Thread]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="courier-pacs")
    thread.start()
    yield thread
    end.set()
    thread.join()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate(
        {
            "system": "brain",
            "region": "chita",
            "storage": {"root": str(tmp_path)},
            "intake": {"disk_reserve_mib": 0, "disk_used_percent": 100},
            "delivery": {
                "destinations": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}]
            },
            "records": {"enabled": False},
        }
    )


def judged(config: Config, thread: threading.Thread, scp: Scp | None = None, **state: Any) -> Verdict:
    parts: dict[str, Any] = {"scp": scp or Scp(), "pipeline": Pipeline(**state)}
    return Health(config, couriers=[thread], recorder=None, **parts).light()


def failing(verdict: Verdict) -> set[str]:
    return {check.code for check in verdict.checks if not check.ok}


def test_a_result_that_is_refused_for_good_shows_with_destination_and_reason(
    config: Config, running: threading.Thread
) -> None:
    class Refused:
        name = "pacs"

        def refused(self) -> dict[str, int]:
            return {"sop-class-not-supported": 3}

    parts: dict[str, Any] = {"scp": Scp(), "pipeline": Pipeline(), "deliveries": [Refused()]}
    verdict = Health(config, couriers=[running], recorder=None, **parts).light()
    (shown,) = [check for check in verdict.checks if not check.ok]
    assert (shown.code, shown.value) == ("RESULTS_TAKEN", "pacs: 3 for sop-class-not-supported")
    assert verdict.status == "degraded"


def test_a_service_that_works_is_ok(config: Config, running: threading.Thread) -> None:
    verdict = judged(config, running)
    assert (verdict.status, failing(verdict)) == ("ok", set())
    assert len({check.code for check in verdict.checks}) == len(verdict.checks)


@pytest.mark.parametrize(
    ("state", "codes", "status"),
    [
        ({"last_tick": -60.0}, {"PIPELINE_TICKING"}, "failed"),
        ({"receive_only": "WEIGHTS_MISMATCH"}, {"RECEIVE_ONLY"}, "failed"),
        ({"rung": replace(FULL, name="parallel-1", parallel=1)}, {"LADDER_REDUCED"}, "degraded"),
        ({"lanes": (lane(), lane(alive=False))}, {"WORKERS_ALIVE"}, "degraded"),
        # A dead process proves nothing: its last golden case does not count.
        (
            {"lanes": (lane(alive=False), lane(alive=False))},
            {"WORKER_ALIVE", "WORKERS_ALIVE", "GOLDEN_RECENT"},
            "failed",
        ),
        ({"golden": None}, {"GOLDEN_PASSED"}, "failed"),
        ({"golden": golden(ok=False, value=0.4)}, {"GOLDEN_PASSED"}, "failed"),
        ({"golden_fastest": 0.3}, {"GOLDEN_SPEED"}, "degraded"),
        ({"golden_fastest": 0.1}, {"GOLDEN_SPEED", "GOLDEN_CRAWLS"}, "failed"),
        ({"golden_fastest": None}, set(), "ok"),
        ({"queue": {"complete": (1, utc_now() - timedelta(hours=1))}}, {"QUEUE_AGE"}, "degraded"),
        ({"queue": {"delivering": (1, utc_now() - timedelta(hours=2))}}, {"OUTBOX_AGE"}, "degraded"),
        ({"rules": Rules(fault="filter.yaml: line 3: rules: ...")}, {"FILTER_RULES"}, "degraded"),
    ],
)
def test_each_fault_of_the_pipeline_shows_as_its_own_code(
    config: Config, running: threading.Thread, state: dict[str, Any], codes: set[str], status: str
) -> None:
    if "last_tick" in state:  # given as an age
        state = {"last_tick": time.monotonic() + state["last_tick"]}
    verdict = judged(config, running, **state)
    assert (failing(verdict), verdict.status) == (codes, status)


def test_a_worker_that_has_not_proven_itself_lately_is_not_believed(
    config: Config, running: threading.Thread
) -> None:
    """The limit: twice the period between golden cases, and what a study in between may take."""
    for age, codes in ((107.0, set()), (109.0, {"GOLDEN_RECENT"})):
        verdict = judged(config, running, lanes=(lane(), lane(golden=golden(age))), golden_period=50.0)
        assert failing(verdict) == codes
    starting = lane(golden=None, what="start", busy_since=time.monotonic() - 100)
    assert failing(judged(config, running, lanes=(lane(), starting), golden_period=50.0)) == set()


def test_a_study_of_many_files_that_is_being_read_is_no_reason_not_to_be_ready(
    config: Config, running: threading.Thread
) -> None:
    """It is in work for two minutes, and the worker told of another file a second ago."""
    now = time.monotonic()
    busy = {"what": "study", "busy_since": now - 120, "golden": golden(130)}
    for heard, in_studies, codes in (
        (1.0, 120.0, set[str]()),
        (8.5, 120.0, {"INFERENCE_PROGRESS"}),
        (1.0, 0.0, {"GOLDEN_RECENT"}),
    ):
        reading = lane(**busy, heard_at=now - heard, in_studies=in_studies)
        verdict = judged(config, running, lanes=(lane(), reading), golden_period=5.0)
        assert failing(verdict) == codes


@pytest.mark.parametrize("what", ["study", "golden"])
def test_work_that_does_not_get_on_shows_within_the_stall_limit(
    config: Config, running: threading.Thread, what: str
) -> None:
    for age, codes in ((7.5, set()), (8.5, {"INFERENCE_PROGRESS"})):
        stalled = lane(what=what, busy_since=time.monotonic() - age)
        verdict = judged(config, running, lanes=(lane(), stalled))
        assert failing(verdict) == codes
        assert verdict.ready == (not codes)


def test_what_any_worker_asserts_is_in_the_verdict_and_names_the_worker(
    config: Config, running: threading.Thread
) -> None:
    broken = lane(asserts=(Assertion(CheckCode.DECODERS_WORK, False, "1.2.840: missing", "all"),))
    verdict = judged(config, running, lanes=(lane(), broken))
    (found,) = [check for check in verdict.checks if check.code == CheckCode.DECODERS_WORK]
    assert (found.ok, found.value) == (False, "worker 1: 1.2.840: missing")
    assert found.remedy
    assert verdict.status == "failed"


def test_an_intake_that_does_not_listen_or_has_no_room_is_not_ready(
    config: Config, running: threading.Thread
) -> None:
    assert failing(judged(config, running, scp=Scp(listening=False))) == {"INTAKE_LISTENING"}
    greedy = config.model_copy(
        update={"intake": config.intake.model_copy(update={"disk_reserve_mib": 1 << 40})}
    )
    assert failing(judged(greedy, running)) == {"DISK_RESERVE"}
    narrow = config.model_copy(
        update={"intake": config.intake.model_copy(update={"disk_used_percent": 1e-9})}
    )
    assert failing(judged(narrow, running)) == {"DISK_RESERVE"}


def test_a_courier_that_ended_is_named(config: Config) -> None:
    ended = threading.Thread(target=lambda: None, name="courier-pacs")
    ended.start()
    ended.join()
    verdict = judged(config, ended)
    (found,) = [check for check in verdict.checks if not check.ok]
    assert (found.code, found.value) == (CheckCode.DELIVERY_RUNNING, "courier-pacs")


def test_the_golden_check_speaks_of_the_metric_it_measured() -> None:
    assert golden_check(golden()).wanted == "Dice >= 0.995"
    found = golden_check(golden(metric="max_abs", value=1e-7, wanted=1e-6))
    assert (found.wanted, found.value) == ("largest difference <= 1e-06", 1e-7)


def test_the_host_is_part_of_the_verdict(config: Config, running: threading.Thread) -> None:
    class Host:
        checks = (Check(CheckCode.CLOCK_SANE, False, "1970-01-01", ">= 2026", "Set the clock"),)

    parts: dict[str, Any] = {"scp": Scp(), "pipeline": Pipeline(), "host": Host()}
    verdict = Health(config, couriers=[running], recorder=None, **parts).light()
    assert (verdict.status, failing(verdict)) == ("degraded", {"CLOCK_SANE"})


@pytest.mark.parametrize("said", ["2031-01-02T03:04:05+00:00", "2031-01-02T06:04:05+03:00"])
def test_the_clock_is_held_against_the_manifests_date(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("OUTPOST_RELEASE_MADE_AT", said)
    made = release_made_at()
    assert made == datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert not clock_sane(datetime(2030, 1, 1, tzinfo=UTC), made, None).ok
    assert clock_sane(made + timedelta(days=1), made, None).ok


@pytest.mark.parametrize("said", ["", "never", "2031-01-02"])
def test_without_a_date_the_newest_file_counts(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("OUTPOST_RELEASE_MADE_AT", said)
    assert release_made_at() <= utc_now()


def test_the_light_check_takes_under_a_millisecond(config: Config, running: threading.Thread) -> None:
    """The promise is 1 ms (benchmarks/health.py measures it); here 5, on a machine full of tests."""
    parts: dict[str, Any] = {"scp": Scp(), "pipeline": Pipeline(lanes=tuple(lane() for _ in range(16)))}
    health = Health(config, couriers=[running], recorder=None, **parts)

    def seconds() -> float:
        began = time.perf_counter()
        health.light()
        return time.perf_counter() - began

    assert statistics.median(seconds() for _ in range(200)) < 0.005


def test_the_page_of_codes_is_the_table() -> None:
    kept = (ROOT / "docs" / "health-codes.md").read_text()
    assert kept == page(), "python -m outpost.health > docs/health-codes.md"
    assert set(re.findall(r"^\| `(\w+)` \|", kept, re.MULTILINE)) == set(CheckCode)
