"""Looking at one system from beside it: what the service says of itself, and what its folders say of its work.

Only reads. The verdict is asked for over the API; all else comes from the journal and the folders, so it is there too
when the service is down or hangs.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from outpost import __version__
from outpost.config import Config
from outpost.health import host
from outpost.health.codes import CHECKS, CheckCode
from outpost.health.verdict import Check, disk_check
from outpost.intake.room import MIB, disk_of
from outpost.quarantine.client import Refused, RemoteDesk
from outpost.records.counts import stored
from outpost.records.journal import JournalError, StudyRecord, utc_now
from outpost.records.readonly import JournalReading

_ANSWER_SECONDS: Final = 5.0
_LAST: Final = 5
# What the host's wrapper knows of the unit, such as "failed (exit code 137), restarted 4 times".
UNIT: Final = "OUTPOST_UNIT"


class CannotAsk(Exception):
    """There is nothing to look at; the text says why and what to do."""


@contextmanager
def reading(config: Config) -> Iterator[JournalReading]:
    """The system's journal, for reading. Raises `CannotAsk`."""
    root = config.storage.root
    if not os.access(root, os.R_OK | os.X_OK):
        why = "cannot be read" if root.exists() else "does not exist"
        raise CannotAsk(f"storage.root {root} {why}: run this where the service runs, as root or as its user")
    try:
        journal = JournalReading(root / "journal.sqlite3", config.system)
    except JournalError as error:
        raise CannotAsk(str(error)) from None
    try:
        yield journal
    finally:
        journal.close()


def summary(config: Config) -> dict[str, Any]:
    """All that `outpost status` shows of a system, ready for JSON. Never raises for what is broken: it says so."""
    service = _service(config)
    checks = service.pop("checks")
    found: dict[str, Any] = {
        "system": config.system,
        "region": config.region,
        "release": os.environ.get("OUTPOST_RELEASE", __version__),
        "at": utc_now().isoformat(timespec="seconds"),
        "service": service,
        "failing": sorted((c for c in checks if not c["ok"]), key=lambda c: not c["critical"]),
        "passed": sum(1 for c in checks if c["ok"]),
        "rung": next((c["value"] for c in checks if c["code"] == CheckCode.LADDER_REDUCED), None),
        "disk": _disk(config),
        "outbox": _outbox(config),
        "work": None,
        "work_fault": "",
    }
    try:
        with reading(config) as journal:
            found["work"] = _work(journal)
    except (CannotAsk, OSError, ValueError, sqlite3.Error) as error:
        found["work_fault"] = str(error)
    return found


def _service(config: Config) -> dict[str, Any]:
    """Whether it runs, its verdict, and its checks: without an answer, those that only read."""
    unit = os.environ.get(UNIT, "")
    try:
        verdict = RemoteDesk(config.api, os.environ.get("OUTPOST_TOKEN", "")).verdict(_ANSWER_SECONDS)
    except (Refused, OSError, ValueError) as fault:
        state = "running" if isinstance(fault, Refused) and fault.answered else _held(config)
        checks = [_shown(asdict(check)) for check in _beside(config)]
        return {"state": state, "verdict": None, "fault": str(fault), "unit": unit, "checks": checks}
    checks = [_shown(check) for check in verdict["checks"]]
    return {"state": "running", "verdict": verdict["status"], "fault": "", "unit": unit, "checks": checks}


def _held(config: Config) -> str:
    """`silent`: a process holds the storage and does not answer; `stopped`: none does; `unknown`: not to be seen."""
    try:
        with (config.storage.root / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "silent"
    except FileNotFoundError:
        return "stopped"
    except OSError:
        return "unknown"
    return "stopped"


def _beside(config: Config) -> Iterator[Check]:
    """The checks that need no service and write nothing."""
    yield disk_check(config)
    yield host.secrets_readable(config)
    yield from host.certificates(config, utc_now())
    newest = host.newest_in_journal(config.storage.root / "journal.sqlite3")
    yield host.clock_sane(utc_now(), host.release_made_at(), newest)


def _shown(check: dict[str, Any]) -> dict[str, Any]:
    code = check["code"]
    critical = CHECKS[CheckCode(code)].critical if code in CheckCode.__members__ else True
    return check | {"code": str(code), "critical": critical}


def _disk(config: Config) -> dict[str, Any] | None:
    try:
        disk = disk_of(config.storage.root)
    except OSError:
        return None
    return {
        "free_mib": disk.free // MIB,
        "used_percent": round(disk.used_percent, 1),
        "reserve_mib": config.intake.disk_reserve_mib,
    }


def _outbox(config: Config) -> dict[str, Any] | None:
    """Results that wait for their destination: how many studies, how many MiB."""
    folder = config.storage.root / "outbox"
    try:
        studies = [entry for entry in os.scandir(folder) if entry.name.isdigit()]
        size = sum(_size(Path(entry.path)) for entry in studies)
    except OSError:
        return None
    return {"studies": len(studies), "mib": round(size / MIB, 1)}


def _size(folder: Path) -> int:
    """Bytes in one folder; a file that is delivered and removed meanwhile counts for nothing."""
    size = 0
    for file in folder.glob("*.dcm"):
        try:
            size += file.stat().st_size
        except OSError:
            continue
    return size


def _work(journal: JournalReading) -> dict[str, Any]:
    now = utc_now()
    day = stored(now - timedelta(days=1))
    ended = journal.rows(
        "SELECT state, reason, count(*) AS n FROM studies WHERE finished_at >= ? GROUP BY state, reason"
        " ORDER BY n DESC",
        (day,),
    )
    hour = journal.rows(
        "SELECT count(*) AS n, avg(inference_seconds) AS seconds FROM studies"
        " WHERE state = 'delivered' AND finished_at >= ?",
        (stored(now - timedelta(hours=1)),),
    )[0]
    refused = journal.rows(
        "SELECT reason, sum(n) AS n FROM (SELECT reason, count(*) AS n FROM refused WHERE at >= ?1 GROUP BY reason"
        " UNION ALL SELECT reason, sum(instances) FROM refused_gone WHERE day > substr(?1, 1, 10) GROUP BY reason)"
        " GROUP BY reason ORDER BY n DESC",
        (day,),
    )
    late = journal.rows(
        "SELECT destination, count(*) AS n, min(coalesce(last_attempt_at, '')) AS since, max(error) AS error,"
        " max(refused_for) AS refused_for FROM deliveries WHERE confirmed_at IS NULL AND study IN"
        " (SELECT id FROM studies WHERE state = 'delivering') GROUP BY destination ORDER BY destination"
    )
    return {
        "queue": {
            state: {"studies": count, "oldest_seconds": _seconds(now, since)}
            for state, (count, since) in journal.queue().items()
        },
        "held": journal.held(),
        "waiting_for": [
            {"destination": r["destination"], "results": r["n"], "error": r["refused_for"] or r["error"]}
            for r in late
        ],
        "ended_last_day": [{"state": r["state"], "reason": r["reason"], "studies": r["n"]} for r in ended],
        "refused_last_day": [{"reason": r["reason"], "images": r["n"]} for r in refused],
        "delivered_last_hour": hour["n"],
        "mean_seconds": round(hour["seconds"], 1) if hour["seconds"] is not None else None,
        "in_work": [_study(record, now) for record in journal.in_state("inferring", 8)],
        "last": [_study(record, now) for record in journal.newest(None, _LAST)],
        "last_event": _event(journal),
    }


def _study(record: StudyRecord, now: datetime) -> dict[str, Any]:
    """A study without anything of its patient: no UIDs, and no detail, which may quote one."""
    return {
        "study": f"study-{record.row}",
        "received_at": record.received_at.isoformat(timespec="seconds"),
        "age_seconds": _seconds(now, record.received_at),
        "senders": list(record.senders),
        "modality": record.modality,
        "instances": record.instances,
        "state": record.state,
        "reason": record.reason,
        "rung": record.rung,
        "seconds": record.inference_seconds,
    }


def _event(journal: JournalReading) -> dict[str, Any] | None:
    found = journal.events(1)
    return {"at": found[0].at.isoformat(timespec="seconds"), "code": found[0].code} if found else None


def _seconds(now: datetime, since: datetime | None) -> float:
    return round(max(0.0, (now - since).total_seconds()), 1) if since is not None else 0.0


def events(
    journal: JournalReading,
    *,
    code: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Events, newest first: moment, code and detail."""
    conditions, parameters = ["1"], []
    for condition, value in (
        ("code = ?", code),
        ("at >= ?", stored(since) if since else None),
        ("at < ?", stored(until) if until else None),
    ):
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    rows = journal.rows(
        f"SELECT at, code, detail FROM events WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",
        (*parameters, limit),
    )
    return [
        {"at": datetime.fromisoformat(r["at"]).astimezone(UTC).isoformat(timespec="seconds")}
        | {"code": r["code"], "detail": r["detail"]}
        for r in rows
    ]
