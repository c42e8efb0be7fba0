"""The host around the service: disk, clock, memory, files of secrets, destinations, ports, journal.

Nothing here needs a running service, and nothing here disturbs one: what is written has a name of its own and
is removed at once, the journal is opened for reading, and a port is asked for, not taken from anyone.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from outpost.config import Config, Tls
from outpost.delivery.link import reach
from outpost.delivery.scu import NotSent, Peer, echo
from outpost.durable import sync_file
from outpost.health.certificate import Validity, validities
from outpost.health.codes import CheckCode
from outpost.health.verdict import Check, check
from outpost.inference import memory
from outpost.records import readonly
from outpost.records.journal import utc_now
from outpost.shares import PARENT_MIB, needed_mib

log = logging.getLogger(__name__)

# Why the launcher (roles/inference/files/outpost-run) started a container without the host's GPU.
WITHHELD = "OUTPOST_GPU_WITHHELD"
# When the release was made, by its manifest: the launcher says so to the container.
MADE_AT = "OUTPOST_RELEASE_MADE_AT"
_NVIDIA = Path("/dev/nvidiactl")
_PERIOD_SECONDS = 600.0
_SYNC_LIMIT_SECONDS = 1.0
_RENEW = timedelta(days=30)
# Clocks are set back by seconds all the time (NTP, leap seconds): only more says that the date is lost.
_CLOCK_TOLERANCE = timedelta(minutes=5)
_NEWEST_ROWS = 1000
_PORT_SECONDS = 5.0


class HostWatch(threading.Thread):
    """Looks at the host as it is made, and every ten minutes while its thread runs.

    `checks` is always the newest whole answer. `need_mib` is the memory of one worker; 0 when not known.
    """

    def __init__(self, config: Config, need_mib: int, workers: int, stopping: threading.Event) -> None:
        super().__init__(name="host-watch", daemon=True)  # a destination that hangs must not hold up an end
        self._config = config
        self._need_mib = need_mib
        self._workers = workers
        self._stopping = stopping
        self.checks = tuple(quick_checks(config, need_mib, workers))

    def run(self) -> None:
        """Look until told to stop. Never raises: an unexpected fault is logged and shows as an old answer."""
        while not self._stopping.is_set():
            try:
                quick = tuple(quick_checks(self._config, self._need_mib, self._workers))
                self.checks = (*quick, *destinations(self._config))
            except Exception:
                log.exception("host-watch: unexpected fault, going on")
            self._stopping.wait(_PERIOD_SECONDS)


def quick_checks(config: Config, need_mib: int, workers: int) -> Iterator[Check]:
    """What is known at once: all but destinations, ports and the journal's soundness."""
    yield from storage_writable(config.storage.root)
    yield clock_sane(utc_now(), release_made_at(), newest_in_journal(config.storage.root / "journal.sqlite3"))
    if need_mib:
        yield memory_share(workers, need_mib, config.inference.memory_mib, memory.limit_mib())
    yield gpu_given(os.environ.get(WITHHELD, ""))
    yield secrets_readable(config)
    yield from certificates(config, utc_now())


def storage_writable(root: Path, sync: Callable[[Path], None] = sync_file) -> Iterator[Check]:
    """Write, sync and remove a small file; how long the disk took to confirm it is a check of its own."""
    probe = root / f".probe-{os.getpid()}-{threading.get_ident()}"
    wanted = "writable"
    try:
        try:
            probe.write_bytes(b"outpost\n" * 512)
            began = time.monotonic()
            sync(probe)
            seconds = time.monotonic() - began
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        yield check(CheckCode.STORAGE_WRITABLE, False, f"{root}: {error.strerror}", wanted)
        return
    yield check(CheckCode.STORAGE_WRITABLE, True, str(root), wanted)
    yield check(
        CheckCode.SYNC_PROMPT,
        seconds <= _SYNC_LIMIT_SECONDS,
        f"{seconds * 1000:.1f} ms",
        f"<= {_SYNC_LIMIT_SECONDS:g} s",
    )


def clock_sane(now: datetime, made: datetime, newest: datetime | None) -> Check:
    """Hold the clock against what cannot lie in the future: this release, and what the journal saw."""
    floor = max(made, newest or made)
    since = "the journal's newest row" if newest is not None and newest > made else "this release"
    return check(
        CheckCode.CLOCK_SANE,
        now >= floor - _CLOCK_TOLERANCE,
        now.isoformat(timespec="seconds"),
        f">= {floor.isoformat(timespec='seconds')} ({since})",
    )


def release_made_at() -> datetime:
    """When this release was made, by its manifest.

    Without one (a checkout, a launcher of before), when the newest file of this package was written.
    """
    try:
        made = datetime.fromisoformat(os.environ.get(MADE_AT, ""))
    except ValueError:
        made = None
    if made is not None and made.tzinfo is not None:
        return made.astimezone(UTC)
    package = Path(__file__).resolve().parents[1]
    return datetime.fromtimestamp(max(file.stat().st_mtime for file in package.rglob("*.py")), UTC)


def newest_in_journal(journal: Path) -> datetime | None:
    """The newest moment the journal knows; None when there is no journal, or none that can be read."""
    newest = """
        SELECT max(at) FROM (
            SELECT at FROM (SELECT received_at AS at FROM instances ORDER BY id DESC LIMIT :rows)
            UNION ALL SELECT coalesce(finished_at, completed_at, received_at) FROM
                (SELECT * FROM studies ORDER BY change DESC LIMIT :rows)
        )"""
    try:
        with closing(readonly.connect(journal)) as db:
            (found,) = db.execute(newest, {"rows": _NEWEST_ROWS}).fetchone()
    except sqlite3.Error:
        return None  # JOURNAL_SOUND says more
    return datetime.fromisoformat(found) if found else None


def memory_share(workers: int, need_mib: int, share_mib: int, limit_mib: int | None) -> Check:
    """Whether all workers fit. `share_mib` is what the configuration gives this system, 0 for no limit."""
    limits = [limit for limit in (share_mib, limit_mib) if limit]
    need = needed_mib(workers, need_mib)
    wanted = f">= {need} MiB ({workers} workers of {need_mib} MiB, {PARENT_MIB} MiB for the service)"
    if not limits:
        return check(CheckCode.MEMORY_SHARE, True, "no limit known", wanted)
    return check(CheckCode.MEMORY_SHARE, min(limits) >= need, f"{min(limits)} MiB", wanted)


def gpu_given(withheld: str) -> Check:
    """Whether the launcher gave this container what the host has; `withheld` is why it did not."""
    found = withheld or ("given" if _NVIDIA.exists() else "none to give, or none asked for")
    return check(CheckCode.GPU_GIVEN, not withheld, found, "what the host has")


def secrets_readable(config: Config) -> Check:
    """Whether every file that the configuration names for secrets and certificates can be read."""
    unreadable = []
    files = dict(secret_files(config))
    for key, path in files.items():
        try:
            with path.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            unreadable.append(f"{key} {path}: {error.strerror}")
    found = "; ".join(unreadable) or (f"{len(files)} files" if files else "none configured")
    return check(CheckCode.SECRETS_READABLE, not unreadable, found, "readable")


def certificates(config: Config, now: datetime) -> Iterator[Check]:
    """Whether the certificates in use are valid, and stay so for a while."""
    found: list[tuple[str, Validity]] = []
    for key, tls in tls_sections(config):
        for name, file in (("certificate", tls.certificate), ("ca", tls.ca)):
            with suppress(OSError):  # SECRETS_READABLE says so
                found += [(f"{key}.{name}", validity) for validity in validities(file.read_bytes())]
    if not found:
        return
    wrong = [
        f"{key}: {'expired ' + _day(v.until) if v.until <= now else 'valid from ' + _day(v.since)}"
        for key, v in found
        if not v.since <= now < v.until
    ]
    key, first = min(found, key=lambda entry: entry[1].until)
    ends = f"{key}: {_day(first.until)}"
    yield check(CheckCode.CERTIFICATE_VALID, not wrong, "; ".join(wrong) or ends, "valid now")
    # An expired one is told above: each fault has one code.
    soon = [f"{key}: {_day(v.until)}" for key, v in found if now < v.until <= now + _RENEW]
    yield check(
        CheckCode.CERTIFICATE_EXPIRES, not soon, "; ".join(soon) or ends, f"later than in {_RENEW.days} days"
    )


def destinations(config: Config) -> Iterator[Check]:
    """Call every destination: by C-ECHO, or by connecting where that needs more (TLS, HTTP)."""
    for destination in config.delivery.destinations:
        wanted = "answers C-ECHO"
        try:
            if destination.host is None or destination.port is None or destination.ae_title is None:
                wanted = "answers"
                url = urlsplit(destination.stow_url or "")
                reach(url.hostname or "", url.port or (443 if url.scheme == "https" else 80), _PORT_SECONDS)
            elif destination.tls is not None:
                wanted = "answers"
                reach(destination.host, destination.port, _PORT_SECONDS)
            else:
                calling = config.intake.ae_title
                echo(Peer(destination.host, destination.port, destination.ae_title, calling))
            yield check(CheckCode.DESTINATION_ANSWERS, True, destination.name, wanted)
        except NotSent as absence:
            found = f"{destination.name}: {absence}"
            yield check(CheckCode.DESTINATION_ANSWERS, False, found, wanted)


def ports_usable(config: Config) -> Check:
    """Whether our ports are free, or taken by the very service that this configuration describes."""
    wanted = "free, or ours"
    taken = [
        f"{key} {port}"
        for key, address, port in (
            ("intake.dicom_port", config.intake.listen, config.intake.dicom_port),
            ("api.port", config.api.listen, config.api.port),
        )
        if not _free(address, port)
    ]
    if not taken:
        return check(CheckCode.PORTS_USABLE, True, "free", wanted)
    told = _running_service(config)
    if told is None:
        return check(
            CheckCode.PORTS_USABLE, False, f"{' and '.join(taken)}: taken, and not by this service", wanted
        )
    return check(CheckCode.PORTS_USABLE, True, f"this service runs: {told}", wanted)


def journal_sound(journal: Path) -> Check:
    """SQLite's own check of the file, without its slow part (each index against its table)."""
    wanted = "ok"
    if not journal.exists():
        return check(CheckCode.JOURNAL_SOUND, True, "none yet", wanted)
    try:
        with closing(readonly.connect(journal)) as db:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        found = str(error)
    return check(CheckCode.JOURNAL_SOUND, found == wanted, found, wanted)


def tls_sections(config: BaseModel, key: str = "") -> Iterator[tuple[str, Tls]]:
    """Every TLS section of a configuration, by the path of its key."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        path = f"{key}.{name}" if key else name
        for where, part in (
            [(f"{path}[{n}]", item) for n, item in enumerate(value)]
            if isinstance(value, tuple)
            else [(path, value)]
        ):
            if isinstance(part, Tls):
                yield where, part
            elif isinstance(part, BaseModel):
                yield from tls_sections(part, where)


def secret_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Every file of secrets and certificates, by the path of its key."""
    for key, tls in tls_sections(config):
        for name in ("certificate", "key", "ca"):
            yield f"{key}.{name}", getattr(tls, name)


def _free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))  # without listen(2) nobody can connect to it
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _running_service(config: Config) -> str | None:
    """What a service with our ports says of itself at /health/light; None when there is none."""
    listen = config.api.listen
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)  # noqa: S104 - compared, not bound
    tls = next((tls for key, tls in tls_sections(config) if key == "api.tls"), None)
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection(address, config.api.port, timeout=_PORT_SECONDS)
    else:
        # Whether it is the right one shows in what it says; its certificate names the host, not this address.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with suppress(OSError):
            context.load_cert_chain(tls.certificate, tls.key)
        connection = http.client.HTTPSConnection(
            address, config.api.port, timeout=_PORT_SECONDS, context=context
        )
    try:
        with closing(connection):
            connection.request("GET", "/health/light")
            answer = connection.getresponse()
            verdict = json.loads(answer.read())
        if answer.status in (401, 403):  # it says no more without a token
            return "it asks for a token"
        intake = next(c for c in verdict["checks"] if c["code"] == CheckCode.INTAKE_LISTENING)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, StopIteration):
        return None
    return str(verdict["status"]) if intake["value"] == f"port {config.intake.dicom_port}" else None


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
