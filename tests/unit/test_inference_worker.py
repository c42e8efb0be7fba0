"""The child process under real faults: a study ends in a result or one code, the next one is served."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faulty_model
import numpy as np
import pydicom
import pytest
from mr_series import ball, write_mr_series

from outpost.inference import Code, InferenceFailed, InferenceWorker, InputRejected, load_bundle
from outpost.inference.bundle import full_rung
from outpost.inference.golden import write_golden
from outpost.inference.phantom import head_phantom

BUNDLE = Path(__file__).parents[2] / "service/bundles/brain_extraction"


def faulty_bundle(folder: Path) -> Path:
    """The bundle with a model that fails on demand, and the golden mask of that model."""
    shutil.copytree(BUNDLE, folder)
    config = json.loads((folder / "configs/inference.json").read_text())
    config["inferer"] = {"_target_": "faulty_model.FaultyModel"}
    (folder / "configs/inference.json").write_text(json.dumps(config))
    write_golden(head_phantom() > 45, folder / "golden/head_phantom.npz")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_bundle(tmp_path_factory.mktemp("bundles") / "faulty")


@pytest.fixture(scope="module")
def worker(bundle: Path) -> Iterator[InferenceWorker]:
    worker = a_worker(bundle)
    assert worker.start().golden.ok
    yield worker
    worker.close()


def a_worker(bundle: Path, timeout_seconds: float = 60) -> InferenceWorker:
    """One that computes as the bundle was released; it keeps converted models beside the bundle."""
    return InferenceWorker(bundle, full_rung(load_bundle(bundle)), timeout_seconds, bundle.parent)


def study(folder: Path, brightest: int = 500) -> list[Path]:
    return write_mr_series(folder, ball(value=brightest))


def fault(worker: InferenceWorker, folder: Path, brightest: int) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as failed:
        worker.run(study(folder, brightest), folder)
    return failed.value


@pytest.mark.parametrize(
    ("brightest", "code"),
    [
        (faulty_model.SEGFAULT, Code.WORKER_DIED),
        (faulty_model.OUT_OF_MEMORY, Code.INFERENCE_OUT_OF_MEMORY),
        (faulty_model.RAISE, Code.NO_KERNEL_IMAGE),
        (faulty_model.EMPTY, Code.OUTPUT_CONSTANT),
    ],
)
def test_after_a_fault_another_process_serves_the_next_study(
    worker: InferenceWorker, tmp_path: Path, brightest: int, code: Code
) -> None:
    before = worker.pid
    failed = fault(worker, tmp_path / "bad", brightest)
    assert (failed.code, failed.outside) == (code, False)
    assert not worker.alive
    assert not list(tmp_path.rglob("2.25.*")), "a failed study left a result"
    assert worker.run(study(tmp_path / "good"), tmp_path).files[0].exists()
    assert worker.pid != before


def test_a_study_that_hangs_is_ended_in_time_and_its_process_is_gone(bundle: Path, tmp_path: Path) -> None:
    with a_worker(bundle, 1) as worker:
        before = worker.pid
        assert before
        started = time.monotonic()
        assert fault(worker, tmp_path, faulty_model.HANG).code == Code.INFERENCE_TIMEOUT
        assert time.monotonic() - started < 3
        assert not Path(f"/proc/{before}").exists()
        assert worker.golden().ok


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1], ids=lambda one: one.name)
def test_a_signal_from_outside_in_the_middle_of_a_study_is_told_as_that(
    worker: InferenceWorker, tmp_path: Path, number: signal.Signals
) -> None:
    assert worker.golden().ok
    pid = worker.pid
    assert pid
    threading.Timer(0.7, lambda: os.kill(pid, number)).start()
    failed = fault(worker, tmp_path, faulty_model.HANG)
    assert (failed.code, failed.outside) == (Code.WORKER_DIED, True)
    assert number.name in failed.message


def test_a_process_that_ends_between_reading_and_computing_is_told_as_that(
    worker: InferenceWorker, tmp_path: Path
) -> None:
    worker.read(study(tmp_path / "study"))
    pid = worker.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InferenceFailed) as failed:
        worker.compute(worker.rung, tmp_path)
    assert (failed.value.code, failed.value.outside) == (Code.WORKER_DIED, True)
    assert worker.step != "computing", "the rung had no part in it"
    assert worker.golden().ok


def test_a_worker_that_was_stopped_is_replaced_in_seconds_and_says_where_it_was(
    worker: InferenceWorker, tmp_path: Path
) -> None:
    assert worker.golden().ok
    pid = worker.pid
    assert pid
    threading.Timer(1.0, lambda: os.kill(pid, signal.SIGSTOP)).start()
    began = time.monotonic()
    failed = fault(worker, tmp_path, faulty_model.HANG)
    assert (failed.code, failed.outside) == (Code.WORKER_HUNG, True)
    assert worker.step in ("reading", "computing")  # on a loaded host it may be reading still
    assert time.monotonic() - began < 9
    assert worker.golden().ok


def test_a_worker_stopped_while_idle_counts_as_none(worker: InferenceWorker, tmp_path: Path) -> None:
    assert worker.golden().ok
    pid = worker.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)
    assert not worker.alive
    assert worker.run(study(tmp_path), tmp_path).files
    assert worker.pid != pid


def test_kill_9_between_studies_costs_no_study(worker: InferenceWorker, tmp_path: Path) -> None:
    assert worker.start().golden.ok
    before = worker.pid
    assert before
    os.kill(before, signal.SIGKILL)
    assert worker.run(study(tmp_path), tmp_path).files
    assert worker.pid != before


def test_closing_ends_a_running_study_at_once(bundle: Path, tmp_path: Path) -> None:
    worker = a_worker(bundle, 60)
    worker.start()
    threading.Timer(0.7, worker.close).start()
    started = time.monotonic()
    assert fault(worker, tmp_path, faulty_model.HANG).code == Code.WORKER_CLOSED
    assert time.monotonic() - started < 5
    assert not worker.alive
    with pytest.raises(InferenceFailed) as failed:
        worker.golden()
    assert failed.value.code == Code.WORKER_CLOSED


def test_what_a_library_prints_does_not_disturb_the_answer(worker: InferenceWorker, tmp_path: Path) -> None:
    assert worker.run(study(tmp_path, faulty_model.CHATTER), tmp_path).files


def test_a_refused_study_keeps_its_process(worker: InferenceWorker, tmp_path: Path) -> None:
    assert worker.golden().ok
    before = worker.pid
    files = study(tmp_path)
    with pytest.raises(InputRejected) as rejected:
        worker.run([*files[:9], *files[10:]], tmp_path)
    assert rejected.value.code == Code.SLICES_MISSING
    assert worker.pid == before


def test_the_mask_lies_over_the_voxels_it_was_drawn_on(worker: InferenceWorker, tmp_path: Path) -> None:
    volume = ball()
    result = worker.run(study(tmp_path), tmp_path)
    segmentation = pydicom.dcmread(result.files[0])
    positions = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    ]
    mask = np.zeros(volume.shape, dtype=bool)
    for frame, position in zip(segmentation.pixel_array, positions, strict=True):
        mask[round((position + 50) / 2)] = frame
    assert np.array_equal(mask, volume > 45)


def test_a_wrong_answer_to_the_golden_case_keeps_the_worker_from_serving(tmp_path: Path) -> None:
    bundle = faulty_bundle(tmp_path / "bundle")
    write_golden(np.roll(head_phantom() > 45, 3, axis=0), bundle / "golden/head_phantom.npz")
    worker = a_worker(bundle)
    with pytest.raises(InferenceFailed) as failed:
        worker.run(study(tmp_path / "study"), tmp_path)
    worker.close()
    assert failed.value.code == Code.GOLDEN_MISMATCH
    assert not list(tmp_path.rglob("2.25.*"))


def test_a_bundle_that_does_not_load_says_why(tmp_path: Path) -> None:
    bundle = faulty_bundle(tmp_path / "bundle")
    config = (bundle / "configs/inference.json").read_text()
    (bundle / "configs/inference.json").write_text(config.replace("FaultyModel", "NoSuchModel"))
    worker = a_worker(bundle)
    with pytest.raises(InferenceFailed) as failed:
        worker.start()
    worker.close()
    assert failed.value.code == Code.BUNDLE_INVALID
    assert "NoSuchModel" in failed.value.message


def test_the_child_dies_with_its_parent_but_not_with_the_thread_that_started_it(bundle: Path) -> None:
    program = (
        "import sys, threading, time; from pathlib import Path\n"
        "from outpost.inference import InferenceWorker, load_bundle\n"
        "from outpost.inference.bundle import full_rung\n"
        "path = Path(sys.argv[1])\n"
        "worker = InferenceWorker(path, full_rung(load_bundle(path)), 8, path.parent)\n"
        "starter = threading.Thread(target=worker.start); starter.start(); starter.join()\n"
        "time.sleep(0.5); print(worker.pid, worker.alive, flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(bundle)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid, alive = parent.stdout.readline().split()
        parent.kill()
    assert alive == "True"
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def faults_of(worker: InferenceWorker) -> int:
    """Pages that the kernel had to give the child so far (proc(5), stat: minflt)."""
    return int(Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[7])


def test_a_worker_keeps_its_memory_from_study_to_study_only_where_it_may(tmp_path: Path) -> None:
    """At the smallest size, where a study touches 100,000 pages too: twice as fast as at full."""
    pages = {}
    rung = replace(full_rung(load_bundle(BUNDLE)), name="128", size="128")
    for keep in (True, False):
        with InferenceWorker(BUNDLE, rung, 60, tmp_path, keep_memory=keep) as worker:
            worker.golden()
            before = faults_of(worker)
            worker.golden()
            pages[keep] = faults_of(worker) - before
    assert pages[True] < 0.2 * pages[False]
