"""The self-test: proves without the running service that this host can compute and deliver."""

from __future__ import annotations

import os
import time

from outpost.config import Config
from outpost.delivery.scu import Peer, PeerUnreachable, echo
from outpost.durable import sync_file
from outpost.health.codes import CheckCode
from outpost.health.verdict import Check, Verdict, check, golden_check
from outpost.inference import InferenceFailed, InferenceWorker
from outpost.intake.spool import MIB
from outpost.pipeline import Golden


def selftest(config: Config) -> Verdict:
    """Write to the storage, compute the golden case in a worker of its own, call every destination."""
    return Verdict((_storage(config), _disk(config), _golden(config), *_destinations(config)))


def _storage(config: Config) -> Check:
    probe = config.storage.root / f".selftest-{os.getpid()}"
    try:
        probe.write_bytes(b"outpost")
        sync_file(probe)
        probe.unlink()
    except OSError as error:
        return check(CheckCode.STORAGE_WRITABLE, False, f"{probe.parent}: {error.strerror}", "writable")
    return check(CheckCode.STORAGE_WRITABLE, True, str(probe.parent), "writable")


def _disk(config: Config) -> Check:
    reserve = config.intake.disk_reserve_mib
    try:
        status = os.statvfs(config.storage.root)
    except OSError as error:
        return check(CheckCode.DISK_RESERVE, False, error.strerror, f">= {reserve} MiB")
    free = status.f_bavail * status.f_frsize // MIB
    return check(CheckCode.DISK_RESERVE, free >= reserve, free, f">= {reserve} MiB")


def _golden(config: Config) -> Check:
    inference = config.inference
    worker = InferenceWorker(inference.bundle, inference.threads, inference.timeout_seconds)
    try:
        verdict = worker.start()
        golden = Golden(verdict.ok, time.monotonic(), verdict.value, verdict.wanted)
    except InferenceFailed as failure:
        golden = Golden(ok=False, at=time.monotonic(), code=f"{failure.code}: {failure.message}")
    finally:
        worker.close()
    return golden_check(golden)


def _destinations(config: Config) -> list[Check]:
    checks = []
    for destination in config.delivery.destinations:
        peer = Peer(destination.host, destination.port, destination.ae_title, config.intake.ae_title)
        try:
            echo(peer)
            checks.append(check(CheckCode.DESTINATION_ANSWERS, True, destination.name, "answers C-ECHO"))
        except PeerUnreachable as absence:
            found = f"{destination.name}: {absence}"
            checks.append(check(CheckCode.DESTINATION_ANSWERS, False, found, "answers C-ECHO"))
    return checks
