"""The ladder as a policy: what is tried next, what is remembered, when the system climbs back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outpost.inference.codes import Code
from outpost.inference.ladder import CLASSES, Ladder, Reductions, build_rungs
from outpost.records.journal import Journal

SIZES = ("full", "192", "128")
SMALL, LARGE = (128, 128, 100), (512, 512, 300)


class Clock:
    """Starts at the journal's own time, so that ages are as in life; `pass_` lets time go by."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def pass_(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", "brain")
    yield journal
    journal.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def offers(batches: tuple[int, ...] = (8, 1)) -> Reductions:
    return Reductions(batches, SIZES, ("bfloat16",), ("torchscript", "float32"))


def on_cpu(journal: Journal, clock: Clock, workers: int = 4) -> Ladder:
    return Ladder(
        build_rungs("openvino", "float32", "cpu", workers, offers()), SIZES, journal, "b 1", 3600, clock
    )


def on_gpu(journal: Journal, clock: Clock) -> Ladder:
    return Ladder(
        build_rungs("tensorrt", "float16", "cuda:0", 2, offers()), SIZES, journal, "b 1", 3600, clock
    )


def name(rung: object) -> str:
    return getattr(rung, "name", "hold")


def test_rungs_reduce_parallelism_then_batch_then_size_then_precision_then_leave_the_engine() -> None:
    names = [rung.name for rung in build_rungs("openvino", "float32", "cpu", 4, offers())]
    assert names == [
        "full",
        "parallel-2",
        "parallel-1",
        "batch-1",
        "size-192",
        "size-128",
        "precision-bfloat16",
        "reference",
        "reference-parallel-2",
        "reference-parallel-1",
        "reference-batch-1",
        "reference-size-192",
        "reference-size-128",
    ]


def test_each_step_keeps_the_reductions_before_it() -> None:
    rungs = {rung.name: rung for rung in build_rungs("openvino", "float32", "cpu", 4, offers())}
    assert rungs["size-128"].parallel == 1
    assert rungs["size-128"].batch == 1
    assert rungs["precision-bfloat16"].size == "128"
    assert rungs["reference"].parallel == 4  # another engine begins anew: perhaps only the engine was wrong


def test_without_another_engine_the_ladder_ends_at_the_smallest(journal: Journal, clock: Clock) -> None:
    rungs = build_rungs("torchscript", "float32", "cpu", 1, offers((1,)))
    assert [rung.name for rung in rungs] == ["full", "size-192", "size-128", "precision-bfloat16"]


def test_memory_steps_down_one_rung_at_a_time_and_at_last_holds(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock, workers=2)
    steps, rung = [], ladder.rung_for(LARGE)
    while rung is not None:
        steps.append(rung.name)
        rung = ladder.failed(rung, Code.WORKER_OUT_OF_MEMORY, LARGE)
    assert steps[:6] == ["full", "parallel-1", "batch-1", "size-192", "size-128", "precision-bfloat16"]
    # The reference engine at full size needs no less: only what is no larger is worth a try.
    assert "reference" not in steps
    assert ladder.rung_for(SMALL) == ladder.top


@pytest.mark.parametrize("odd", [(256, 256, 200), (1, 1, 100_000), (20, 20, 60), (16384, 16384, 64)])
def test_what_failed_for_memory_is_skipped_for_inputs_of_that_shape_and_of_no_other(
    journal: Journal, clock: Clock, odd: tuple[int, ...]
) -> None:
    ladder = on_cpu(journal, clock)
    ladder.failed(ladder.top, Code.INFERENCE_OUT_OF_MEMORY, odd)
    assert name(ladder.rung_for(odd)) == "parallel-2"
    for other in (SMALL, LARGE, (256, 256, 170)):
        assert name(ladder.rung_for(other)) == "full"
    assert name(ladder.rung_for()) == "full", "one large study is no reason to start lower"
    # The same after a restart, and a success elsewhere takes nothing back that it knows nothing of.
    ladder = on_cpu(journal, clock)
    ladder.succeeded(ladder.top, LARGE)
    assert name(ladder.rung_for(odd)) == "parallel-2"


def test_a_study_alone_that_memory_does_not_hold_leaves_no_rung_that_differs_in_parallel_studies_only(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_cpu(journal, clock)
    assert name(ladder.failed_alone(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)) == "batch-1"
    assert name(ladder.rung_for(LARGE)) == "batch-1"
    assert name(ladder.rung_for(SMALL)) == "full"
    last = ladder.named("reference-size-128")
    assert last is not None
    assert ladder.failed_alone(last, Code.WORKER_OUT_OF_MEMORY, LARGE) is None


def test_one_odd_study_condemns_no_engine_and_several_of_one_shape_do_for_that_shape(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_cpu(journal, clock)
    for study in (1, 1, 1, 2, 2):
        assert not ladder.witness(ladder.top, Code.OUTPUT_NOT_FINITE, SMALL, study)
    assert not ladder.known()
    assert ladder.witness(ladder.top, Code.OUTPUT_NOT_FINITE, SMALL, 3)
    assert ladder.rung_for(SMALL) != ladder.top
    assert ladder.rung_for(LARGE) == ladder.top
    assert ladder.rung_for() == ladder.top


def test_a_device_that_a_study_lost_is_left_for_no_other_shape(journal: Journal, clock: Clock) -> None:
    ladder = on_gpu(journal, clock)
    assert [ladder.witness(ladder.top, Code.DEVICE_LOST, LARGE, study) for study in (1, 2, 3)][-1]
    assert name(ladder.rung_for(LARGE)) == "cpu"
    assert ladder.rung_for(SMALL) == ladder.top
    assert ladder.rung_for() == ladder.top


def test_shapes_nobody_else_sends_push_out_neither_each_others_memory_nor_that_of_the_host(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_gpu(journal, clock)
    ladder.failed(ladder.top, Code.NO_KERNEL_IMAGE)
    rung = ladder.rung_for(SMALL)
    assert rung is not None
    for size in range(100):
        ladder.condemn(rung, Code.OUTPUT_NOT_FINITE, (1, 1, 1000 + size))
    known = ladder.known()
    assert max(Counter(one.rung for one in known).values()) <= 65
    assert name(ladder.rung_for()) == "cpu"
    assert name(on_gpu(journal, clock).rung_for(SMALL)) == "cpu"


def test_status_by_class_of_shapes_names_the_lowest_and_has_no_more_classes_than_five(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_cpu(journal, clock)
    for size in range(40):
        ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, (512, 512, 100 + size))
    found = ladder.by_class()
    assert set(found) == set(CLASSES)
    assert {name(rung) for label, rung in found.items() if label != "to_128m"} == {"full"}
    assert name(found["to_128m"]) == "parallel-2"
    assert len(ladder.resting()) == 40
    assert len(ladder.reset()) == 40
    assert not ladder.known()
    assert not on_cpu(journal, clock).known()
    assert {name(rung) for rung in ladder.by_class().values()} == {"full"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shape", "256xAx3"),
        ("failed_at", "yesterday"),
        ("failures", "many"),
        ("shape", b"\xff\x00"),
        ("failed_at", 7),
    ],
)
def test_a_damaged_row_of_the_ladder_is_as_if_it_were_not_there(
    journal: Journal, clock: Clock, column: str, value: object
) -> None:
    ladder = on_cpu(journal, clock)
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, SMALL)
    journal._db.execute(f"UPDATE ladder SET {column} = ? WHERE shape = '128x128x100'", (value,))
    ladder = on_cpu(journal, clock)
    assert ladder.rung_for(SMALL) == ladder.top
    assert name(ladder.rung_for(LARGE)) == "parallel-2"


def test_a_card_without_kernels_is_left_for_the_cpu_at_once_and_for_every_input(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_gpu(journal, clock)
    lower = ladder.failed(ladder.top, Code.NO_KERNEL_IMAGE, SMALL)
    assert lower is not None
    assert (lower.device, lower.engine, lower.name) == ("cpu", "torchscript", "cpu")
    assert lower.size == "full"
    assert name(ladder.rung_for()) == "cpu"
    assert name(ladder.rung_for(SMALL)) == "cpu"


def test_a_lost_card_gets_a_second_try_before_the_cpu(journal: Journal, clock: Clock) -> None:
    ladder = on_gpu(journal, clock)
    assert ladder.failed(ladder.top, Code.DEVICE_LOST) == ladder.top
    assert name(ladder.failed(ladder.top, Code.DEVICE_LOST)) == "cpu"


def test_a_success_between_gives_the_second_try_back(journal: Journal, clock: Clock) -> None:
    ladder = on_gpu(journal, clock)
    ladder.failed(ladder.top, Code.DEVICE_LOST)
    ladder.succeeded(ladder.top)
    assert ladder.failed(ladder.top, Code.DEVICE_LOST) == ladder.top


def test_memory_of_the_card_says_nothing_about_memory_of_the_host(journal: Journal, clock: Clock) -> None:
    ladder = on_gpu(journal, clock)
    rung = ladder.rung_for(LARGE)
    seen = []
    while rung is not None and rung.device != "cpu":
        seen.append(rung.name)
        rung = ladder.failed(rung, Code.INFERENCE_OUT_OF_MEMORY, LARGE)
    assert seen[-1] == "precision-bfloat16"
    assert name(rung) == "cpu"


def test_a_wrong_golden_case_leaves_the_engine_and_not_only_the_size(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock)
    lower = ladder.failed(ladder.top, Code.GOLDEN_MISMATCH)
    assert lower is not None
    assert lower.process != ladder.top.process
    assert name(ladder.rung_for()) not in ("full", "size-128")


def test_a_broken_bundle_is_helped_by_no_rung(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock)
    assert ladder.failed(ladder.top, Code.WEIGHTS_MISMATCH) is None
    assert ladder.rung_for() == ladder.top


def test_a_study_that_fails_is_tried_on_another_engine_without_blaming_the_first(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_cpu(journal, clock)
    other = ladder.alternative(ladder.top, Code.INFERENCE_ERROR, SMALL)
    assert other.process != ladder.top.process
    assert ladder.rung_for(SMALL) == ladder.top
    ladder.condemn(ladder.top, Code.INFERENCE_ERROR, SMALL)  # it succeeded there
    assert ladder.rung_for(SMALL) != ladder.top
    assert ladder.rung_for((64, 64, 64)) == ladder.top


def test_what_was_learnt_outlives_a_restart(journal: Journal, clock: Clock) -> None:
    on_cpu(journal, clock).failed(on_cpu(journal, clock).top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    assert name(on_cpu(journal, clock).rung_for(LARGE)) == "parallel-2"


def test_after_a_quiet_time_the_fuller_rung_is_tried_again_and_kept_when_it_works(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_cpu(journal, clock)
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    clock.pass_(3599)
    assert name(ladder.rung_for(LARGE)) == "parallel-2"
    clock.pass_(2)
    assert ladder.rung_for(LARGE) == ladder.top
    assert ladder.succeeded(ladder.top, LARGE), "it had failed before: this is news"
    assert not ladder.succeeded(ladder.top, LARGE)
    assert not ladder.known()


def test_a_rung_that_fails_at_each_new_try_rests_twice_as_long(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock)
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    journal._db.execute("UPDATE ladder SET failed_at = ?", ("2026-01-01T00:00:00+00:00",))
    ladder = on_cpu(journal, clock)
    assert ladder.rung_for(LARGE) == ladder.top
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    clock.pass_(3601)
    assert name(ladder.rung_for(LARGE)) == "parallel-2"
    clock.pass_(3600)
    assert ladder.rung_for(LARGE) == ladder.top


def test_a_success_with_a_small_input_does_not_bring_the_large_one_back(
    journal: Journal, clock: Clock
) -> None:
    ladder = on_cpu(journal, clock)
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    assert not ladder.succeeded(ladder.top, SMALL)
    assert name(ladder.rung_for(LARGE)) == "parallel-2"


def test_a_clock_set_back_does_not_keep_a_rung_away_for_ever(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock)
    ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    clock.pass_(-86400)
    assert ladder.rung_for(LARGE) == ladder.top


def test_two_workers_that_fail_of_the_same_count_once(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock)
    first = ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE)
    assert ladder.failed(ladder.top, Code.WORKER_OUT_OF_MEMORY, LARGE) == first
    assert [known.failures for known in ladder.known()] == [1]


def test_what_took_too_long_is_tried_alone_and_then_smaller(journal: Journal, clock: Clock) -> None:
    ladder = on_cpu(journal, clock)
    alone = ladder.alternative(ladder.top, Code.INFERENCE_TIMEOUT, LARGE)
    assert alone.name == "parallel-1"
    assert ladder.alternative(alone, Code.INFERENCE_TIMEOUT, LARGE).name == "size-192"
