"""The self-test: proves that this host can compute and deliver, beside the running service or without it.

It writes only under names of its own, computes in a worker process of its own, and asks the running service what
only that can know.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from outpost.config import Config
from outpost.health import host
from outpost.health.codes import CHECKS, CheckCode
from outpost.health.verdict import Check, Verdict, asserted, check, disk_check, golden_check
from outpost.inference import Code, InferenceFailed, InferenceWorker
from outpost.inference.plan import Plan, make_plan
from outpost.inference.state import Golden
from outpost.options import Language
from outpost.records.journal import Journal

# A worker that cannot start cannot say what it found either; some causes are one of its asserts.
_ASSERT_OF = {
    Code.WEIGHTS_MISMATCH: CheckCode.WEIGHTS_DIGEST,
    Code.NO_KERNEL_IMAGE: CheckCode.COMPUTE_CAPABILITY,
    Code.INFERENCE_OUT_OF_MEMORY: CheckCode.MEMORY_FITS,
    Code.WORKER_OUT_OF_MEMORY: CheckCode.MEMORY_FITS,
}
_WIDTH = 110


def selftest(config: Config) -> Verdict:
    """Look at the host, compute the golden case in a worker of its own, call every destination."""
    return Verdict(tuple(_checks(config)))


_LABELS: dict[Language, tuple[str, str]] = {"en": ("wanted", "remedy"), "ru": ("нужно", "что делать")}
_MARKS: dict[Language, tuple[str, str, str]] = {"en": ("ok", "FAIL", "warn"), "ru": ("ok", "СБОЙ", "вним")}
_ALL: dict[Language, str] = {"en": "{} checks", "ru": "проверок {}"}


def table(verdict: Verdict, language: Language = "en") -> str:
    """A verdict for people: a line a check, its remedy below it when it failed."""
    width = max(len(found.code) for found in verdict.checks)
    lines = []
    for found in verdict.checks:
        word = _MARKS[language][0 if found.ok else 1 if CHECKS[found.code].critical else 2]
        value, wanted = (found.value_ru, found.wanted_ru) if language == "ru" else (found.value, found.wanted)
        lines.append(f"{word:4}  {found.code:{width}}  {'-' if value is None else value}")
        if not found.ok:
            told = found.remedy_ru if language == "ru" and found.remedy_ru else found.remedy
            for label, text in zip(_LABELS[language], (wanted, told), strict=True):
                start = f"{'':{width + 8}}{label}: "
                lines += textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    failed = [found.code for found in verdict.checks if not found.ok]
    return "\n".join([*lines, f"{verdict.status}: {', '.join(failed) or _ALL[language].format(len(lines))}"])


def _checks(config: Config) -> Iterator[Check]:
    # A journal of its own in memory: what is known to fail on this host is tried here all the same.
    journal = Journal(Path(":memory:"), config.system)
    try:
        plan = make_plan(config, journal)
    finally:
        journal.close()
    need_mib = plan.bundle.manifest.resources.memory_mib if plan.bundle is not None else 0
    yield from host.quick_checks(config, need_mib, config.inference.workers)
    yield disk_check(config)
    yield host.journal_sound(config.storage.root / "journal.sqlite3")
    yield host.ports_usable(config)
    yield engine_measured(plan)
    yield from _worker(config, plan)
    yield from host.destinations(config)


def engine_measured(plan: Plan) -> Check:
    """Whether measuring on this host chose the engine."""
    rung = plan.ladder.top
    found = f"{rung.engine} {rung.precision}, {'measured here' if plan.fresh else 'not measured here yet'}"
    return check(CheckCode.ENGINE_MEASURED, plan.fresh, found, "measured here")


def _worker(config: Config, plan: Plan) -> Iterator[Check]:
    inference = config.inference
    worker = InferenceWorker(
        inference.bundle,
        plan.ladder.top,
        inference.timeout_seconds,
        config.storage.root,
        keep_memory=plan.keep_memory,
    )
    try:
        started = worker.start()
    except InferenceFailed as failure:
        told = f"{failure.code}: {failure.message}"
        yield golden_check(Golden(ok=False, at=time.monotonic(), code=told))
        if failure.code in _ASSERT_OF:
            code = _ASSERT_OF[failure.code]
            yield check(code, False, failure.message, CHECKS[code].proves)
        return
    finally:
        worker.close()
    golden = started.golden
    yield golden_check(Golden(golden.ok, time.monotonic(), golden.value, golden.wanted, metric=golden.metric))
    yield from (asserted(assertion) for assertion in started.asserts)
