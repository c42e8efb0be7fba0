"""Every check of the service: its stable code, what it proves, what to do when it fails.

Codes are an interface (verdicts, alerts, runbooks): never renamed or reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class CheckCode(StrEnum):
    """Stable identifier of one check; the table `CHECKS` explains each."""

    PIPELINE_TICKING = "PIPELINE_TICKING"
    WORKER_ALIVE = "WORKER_ALIVE"
    GOLDEN_PASSED = "GOLDEN_PASSED"
    GOLDEN_RECENT = "GOLDEN_RECENT"
    INTAKE_LISTENING = "INTAKE_LISTENING"
    DISK_RESERVE = "DISK_RESERVE"
    DELIVERY_RUNNING = "DELIVERY_RUNNING"
    QUEUE_AGE = "QUEUE_AGE"
    OUTBOX_AGE = "OUTBOX_AGE"
    RECORDER_RUNNING = "RECORDER_RUNNING"
    RECORDS_SHIPPED = "RECORDS_SHIPPED"
    DESTINATION_ANSWERS = "DESTINATION_ANSWERS"
    STORAGE_WRITABLE = "STORAGE_WRITABLE"


@dataclass(frozen=True, slots=True)
class CheckKind:
    """`critical`: without it the service is not ready; otherwise it is degraded, and works on."""

    proves: str
    remedy: str
    critical: bool = True


CHECKS: Final[dict[CheckCode, CheckKind]] = {
    CheckCode.PIPELINE_TICKING: CheckKind(
        "The thread that moves studies has passed its loop within the last seconds.",
        "Wait for systemd's watchdog to restart the unit; report the log before the last line.",
    ),
    CheckCode.WORKER_ALIVE: CheckKind(
        "The inference process runs.",
        "It is started again by itself; if this stays, read GOLDEN_PASSED and the unit's log.",
    ),
    CheckCode.GOLDEN_PASSED: CheckKind(
        "The golden case gave the right answer on the worker that computes studies.",
        "The code shown is explained in outpost/reasons.py; studies are held, not lost.",
    ),
    CheckCode.GOLDEN_RECENT: CheckKind(
        "The golden case was computed not long ago.",
        "A study may be taking long: compare inference.timeout_seconds and golden_period_seconds.",
    ),
    CheckCode.INTAKE_LISTENING: CheckKind(
        "The C-STORE listener accepts associations.",
        "Restart the unit; report the log.",
    ),
    CheckCode.DISK_RESERVE: CheckKind(
        "There is more free space than intake.disk_reserve_mib.",
        "Free space on the file system of storage.root; senders are refused until then, nothing is lost.",
    ),
    CheckCode.DELIVERY_RUNNING: CheckKind(
        "Every destination has a running courier.",
        "Restart the unit; report the log.",
    ),
    CheckCode.QUEUE_AGE: CheckKind(
        "No complete study has been waiting for inference for long.",
        "More studies arrive than this host computes, or they are held: see GOLDEN_PASSED.",
        critical=False,
    ),
    CheckCode.OUTBOX_AGE: CheckKind(
        "No result has been waiting for a destination for long.",
        "See the last error at /studies?state=delivering; check the destination and the link to it.",
        critical=False,
    ),
    CheckCode.RECORDER_RUNNING: CheckKind(
        "The thread that ships records to Postgres runs.",
        "Restart the unit; report the log. Studies are not affected.",
        critical=False,
    ),
    CheckCode.RECORDS_SHIPPED: CheckKind(
        "The region's Postgres has been taking records.",
        "Check that PostgreSQL runs and records.* in the configuration fits it. Studies are not affected.",
        critical=False,
    ),
    CheckCode.DESTINATION_ANSWERS: CheckKind(
        "A destination answers C-ECHO (self-test only).",
        "Check its address, port and firewall, and that it knows our AE title. Results wait in the outbox.",
        critical=False,
    ),
    CheckCode.STORAGE_WRITABLE: CheckKind(
        "Files can be written and synced under storage.root (self-test only).",
        "Check that the path is mounted, not read-only, and owned by the service's user (uid 10001).",
    ),
}
