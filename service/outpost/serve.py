"""Putting the service together: which parts run, in which order they start and end."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import IO, NoReturn

from outpost import __version__, logs
from outpost.api.app import create_app
from outpost.api.limits import App, LimitedServer, Limits
from outpost.api.metrics import Metrics
from outpost.codes.failure import told
from outpost.config import Config
from outpost.delivery.commitment import Reports
from outpost.delivery.courier import Courier
from outpost.delivery.outbox import Outbox
from outpost.descriptors import TooFewDescriptors, provide
from outpost.drift.keeper import Keeper
from outpost.drift.shelf import SHIPPED_REFERENCE
from outpost.drift.ship import shipper
from outpost.ending import at_the_latest, end_all
from outpost.events import EventCode
from outpost.filter.active import ActiveRules
from outpost.filter.rulefile import RulesInvalid, source_of
from outpost.heal.damage import JournalTooNew
from outpost.heal.folders import make_folders
from outpost.heal.found import put_aside
from outpost.heal.start import Stopped, open_journal
from outpost.heal.waiting import WaitingRoom
from outpost.heal.watch import JournalWatch
from outpost.health.heartbeat import Heartbeat, Working, tell_cannot_start
from outpost.health.host import HostWatch
from outpost.health.verdict import JOURNAL_LIMIT_SECONDS, Health
from outpost.inference.bundle import load_bundle
from outpost.inference.codes import InferenceFailed
from outpost.inference.plan import Plan, make_plan
from outpost.intake.assembly import Assembly, RequiredSeries
from outpost.intake.doors import Doors, What
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.intake.waiting import Most as MostStudies
from outpost.lobby import Room
from outpost.notify import Notifier
from outpost.optimiser import IdleOptimiser
from outpost.pipeline import Pipeline
from outpost.quarantine.quota import QuotaKeeper
from outpost.records.journal import Budget, Journal
from outpost.records.recorder import Recorder
from outpost.tls import TlsUnusable, server_context

log = logging.getLogger(__name__)

_STOP_SECONDS = 20.0
_LAST_SECONDS = 3.0
# The release this process runs from; the launcher sets it, a checkout has only its version.
RELEASE = os.environ.get("OUTPOST_RELEASE", __version__)


class CannotStart(Exception):
    """Something outside the configuration file keeps the service from starting; the text says what to do."""


class AlreadyRuns(CannotStart):
    """Another process of this system works on the same storage."""


def serve(config: Config, config_file: Path) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. Raises `CannotStart`.

    `config_file` is where `config` was read from: helpers in processes of their own read it too.
    """
    try:
        return _serve(config, config_file)
    except AlreadyRuns:
        raise  # the one that runs speaks for itself
    except Exception as error:
        tell_cannot_start(config, RELEASE, error)
        raise


def _serve(config: Config, config_file: Path) -> int:
    logs.configure()
    notifier = Notifier()
    stopping = threading.Event()
    ended_once = threading.Event()

    def end(*_: object) -> None:
        if ended_once.is_set():
            os._exit(1)  # who says it twice does not want to wait; the journal is consistent at any moment
        ended_once.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with ExitStack() as ending:
        ending.enter_context(_only_one(config))
        try:
            shares = provide(config.intake.max_associations)
        except TooFewDescriptors as error:
            raise CannotStart(str(error)) from None
        api_socket = _listen(config.api.listen, config.api.port, "api.port")
        ending.callback(api_socket.close)
        make_folders(config.storage.root)
        most = Limits.of(shares.http, shares.storing)
        journal = _journal(config, api_socket, most, notifier, stopping)
        if journal is None:
            return 0
        ending.callback(journal.close)
        plan = make_plan(config, journal)
        spool = Spool(
            config.storage.root,
            journal,
            config.intake.disk_reserve_mib,
            config.intake.disk_used_percent,
            plan.bundle.sop_class_uids if plan.bundle is not None else None,
            MostStudies.of(
                config.intake.max_waiting_studies,
                config.intake.max_waiting_studies_per_peer,
                config.intake.max_instances_per_study,
            ),
        )
        outbox = Outbox(config.storage.root)
        adopted, lost, cut = spool.reconcile(), outbox.reconcile(journal), journal.transfers_cut()
        if adopted or lost or cut:
            log.warning(
                "after the last end: %d instances adopted, %d results to compute again, %d studies whose transfer"
                " was cut off",
                adopted,
                lost,
                cut,
            )
        try:
            rules = ActiveRules(
                source_of(config.inference.bundle, config.filter.rules),
                config.storage.root / "rules",
                journal,
            )
        except RulesInvalid as invalid:
            raise CannotStart(str(invalid)) from None
        assembly = Assembly(
            journal,
            config.study.quiet_seconds,
            series_quiet_seconds=config.study.series_quiet_seconds,
            forced_seconds=config.study.forced_seconds,
            open_quiet_seconds=config.study.open_quiet_seconds,
            required_series=_required_series(plan),
            header_of=spool.header_of,
        )
        couriers: list[Courier] = []

        def wake_couriers() -> None:
            for courier in couriers:
                courier.wake()

        reports = Reports(journal, heard=wake_couriers, config=config.delivery)
        try:
            couriers += [
                Courier(destination, config.delivery, config.intake.ae_title, journal, outbox, reports)
                for destination in config.delivery.destinations
            ]
        except TlsUnusable as error:
            raise CannotStart(str(error)) from None

        metrics = Metrics()
        doors = Doors(lambda detail: journal.note_event(EventCode.SENDER_REFUSED, detail))
        metrics.follow_doors(doors)
        keeper = _keeper(config, journal)
        pipeline = Pipeline(
            config,
            journal,
            spool,
            assembly,
            outbox,
            plan,
            rules,
            IdleOptimiser(
                config_file,
                not plan.fresh,
                config.inference.optimise_after_idle_seconds,
                first=not plan.room_to_measure,
            ),
            notifier,
            published=wake_couriers,
            observed=metrics.observe,
            keeper=keeper,
        )
        try:
            scp = StorageScp(
                config.intake,
                spool,
                assembly,
                reports.take,
                [d.ae_title for d in config.delivery.destinations if d.commitment and d.ae_title],
                doors,
                Room(most=shares.waiting, per_peer=max(1, shares.waiting // 2), per_second=25, burst=50),
            )
        except TlsUnusable as error:
            raise CannotStart(str(error)) from None
        except OSError as error:
            raise CannotStart(
                _port_in_use(config.intake.listen, config.intake.dicom_port, "intake.dicom_port", error)
            ) from None

        pipeline_thread = threading.Thread(target=pipeline.run, name="pipeline", daemon=True)
        courier_threads = [
            threading.Thread(target=courier.run, args=(stopping,), name=courier.name, daemon=True)
            for courier in couriers
        ]
        quota = QuotaKeeper(config.quarantine, journal, spool)
        also = [shipper(keeper.register, config.system)] if keeper is not None else []
        recorder = Recorder(journal, config.records, RELEASE, also) if config.records.enabled else None
        need_mib = plan.bundle.manifest.resources.memory_mib if plan.bundle is not None else 0
        host = HostWatch(config, need_mib, config.inference.workers, stopping)
        watch = JournalWatch(config.storage.root, journal, stopping)
        health = Health(config, scp, pipeline, courier_threads, recorder, host, couriers, watch)
        heartbeat = _heartbeat(config, health, pipeline, plan)
        metrics.follow(journal, health, pipeline, config.intake.known_ae_titles)
        metrics.follow_deliveries(journal, couriers)
        metrics.follow_waiting(spool.waiting)
        if keeper is not None:
            metrics.follow_drift(keeper)
        app = create_app(
            config,
            plan.bundle.name if plan.bundle is not None else config.inference.bundle.name,
            journal,
            spool,
            assembly,
            health,
            metrics,
            keeper,
            doors,
            pipeline,
        )
        http = _http_server(app, config, doors, most)
        metrics.follow_connections(
            lambda: {
                ("dicom", "waiting"): scp.waiting,
                ("dicom", "association"): scp.guests.open(),
                ("http", "waiting"): http.waiting,
                ("http", "open"): len(http.server_state.connections),
            }
        )
        http_thread = threading.Thread(
            target=http.run, kwargs={"sockets": [api_socket]}, name="api", daemon=True
        )

        essential = [pipeline_thread, http_thread]
        threads = [
            *essential,
            *courier_threads,
            quota,
            *([recorder] if recorder else []),
            *([keeper] if keeper else []),
            watch,
            *([heartbeat] if heartbeat else []),
        ]
        scp.start()
        for thread in [*threads, host]:
            thread.start()
        log.info(
            "release %s, system %s: C-STORE on %s:%d, HTTP on %s:%d",
            RELEASE,
            config.system,
            config.intake.listen,
            config.intake.dicom_port,
            config.api.listen,
            config.api.port,
        )
        while not stopping.wait(1.0):
            if journal.damage:
                log.error("the journal is damaged (%s): ending, to rebuild it at once", journal.damage)
                break
            ended = [thread.name for thread in essential if not thread.is_alive()]
            if ended or not scp.listening:
                log.error(
                    "%s ended by itself: ending the service, to be restarted", ", ".join(ended) or "intake"
                )
                break
        failed = not stopping.is_set()
        healing = failed and watch.hand_over()
        if not healing:
            notifier.stopping()
        at_the_latest(_STOP_SECONDS + 2 * _LAST_SECONDS, 1)
        stopping.set()

        def end_drift() -> None:
            if keeper is not None:
                pipeline_thread.join(_STOP_SECONDS)  # what its lanes still end is counted, too
                keeper.stop()

        def end_http() -> None:
            http.should_exit = True

        undone = end_all(
            [
                ("pipeline", pipeline.stop),
                ("api", end_http),
                ("delivery", wake_couriers),
                ("intake", scp.stop),
                ("quarantine", quota.stop),
                *([("heartbeat", heartbeat.stop)] if heartbeat is not None else []),
                *([("recorder", recorder.stop)] if recorder is not None else []),
                ("drift", end_drift),
                *(
                    (thread.name, partial(thread.join, _STOP_SECONDS))
                    for thread in [*essential, *courier_threads]
                ),
            ],
            _STOP_SECONDS,
        )
        late = [thread.name for thread in threads if thread.is_alive()]
        if undone or late:
            # The journal is consistent at any moment; waiting longer would only delay the restart.
            names = dict.fromkeys([*undone, *late])
            log.error("%s did not end as they should: leaving", ", ".join(names))
            end_all([("workers", pipeline.close), ("journal", journal.close)], _LAST_SECONDS)
            if not healing:
                os._exit(1)
        if healing:
            _begin_again(config_file)
        log.info("ended")
        return 1 if failed else 0


def _journal(
    config: Config, api_socket: socket.socket, most: Limits, notifier: Notifier, stopping: threading.Event
) -> Journal | None:
    """The journal, rebuilt if it was damaged; None when the service was told to end meanwhile."""

    def model_reads() -> Collection[str] | None:
        try:
            return load_bundle(config.inference.bundle).sop_class_uids
        except InferenceFailed:
            return None

    room = WaitingRoom(api_socket, lambda app: _http_server(app, config, Doors(), most), notifier)
    budget = Budget(config.study.revisions, config.study.revisions_hours)
    try:
        return open_journal(config.storage.root, config.system, budget, model_reads, room, stopping)
    except Stopped:
        return None
    except JournalTooNew as error:
        raise CannotStart(str(error)) from None


def _begin_again(config_file: Path) -> NoReturn:
    """Become a fresh process under the same number: no thread of this one, and no unit's limit of restarts, is left.

    The lock on the storage and all sockets are closed by it.
    """
    log.info("beginning again")
    command = [sys.executable, "-m", "outpost.cli", "serve", "--config", str(config_file)]
    os.execv(sys.executable, command)  # noqa: S606 - ourselves


def _http_server(app: App, config: Config, doors: Doors, most: Limits) -> LimitedServer:
    def turned_away(reason: str, words: str, address: str, times: int = 1) -> None:
        what: What = "request" if reason == "TOO_MANY_REQUESTS" else "connection"
        doors.turned_away(what, reason, words, "", address, times=times)

    tls = config.api.tls
    if config.api.open and not ip_address(config.api.listen).is_loopback:
        log.warning(
            "the HTTP API on %s takes anyone's word (api.open): see api.tls and api.tokens", config.api.listen
        )
    if not config.api.open and not config.api.tokens:
        log.warning(
            "the HTTP API answers how this system is, and nothing else: api.tokens is empty; see `outpost token`"
        )
    if tls is None:
        return LimitedServer(app, most, turned_away)
    try:
        return LimitedServer(app, most, turned_away, server_context(tls, "api.tls"))
    except TlsUnusable as error:
        raise CannotStart(str(error)) from None


def _heartbeat(config: Config, health: Health, pipeline: Pipeline, plan: Plan) -> Heartbeat | None:
    """What says every minute how this system is; nothing where no records are kept."""
    if not config.records.enabled:
        return None

    def working() -> Working:
        answers = time.monotonic() - pipeline.journal_answered <= JOURNAL_LIMIT_SECONDS
        queue = pipeline.queue if answers else None
        return Working(pipeline.rung.name, pipeline.receive_only, queue)

    bundle = (plan.bundle.name, plan.bundle.version) if plan.bundle is not None else ("", "")
    return Heartbeat(config, health.light, working, RELEASE, bundle)


def _keeper(config: Config, journal: Journal) -> Keeper | None:
    """What watches for drift; nothing where it is not wanted, or has no folder: no study shall miss it."""
    if not config.drift.enabled:
        return None
    folder = config.storage.root / "drift"
    shipped = config.inference.bundle / SHIPPED_REFERENCE
    try:
        return Keeper(config.region, config.system, folder, shipped, config.drift, journal)
    except Exception as error:
        # Whatever state of its own is broken: no study may wait for it.
        log.exception("drift is not watched: %s cannot be used", folder)
        put_aside(folder, f"it cannot be used ({told(error)})", "drift is not watched", move=False)
        return None


def _required_series(plan: Plan) -> list[RequiredSeries]:
    """The series a study is complete with, as the bundle names them; none when the quiet time decides."""
    if plan.bundle is None or plan.bundle.manifest.completeness is None:
        return []
    return [
        RequiredSeries(series.description, series.modality, series.min_instances)
        for series in plan.bundle.manifest.completeness.required_series
    ]


def _only_one(config: Config) -> IO[str]:
    """Hold the storage: two services over one journal would deliver twice."""
    root = config.storage.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        if (root / ".lock").is_dir():
            put_aside(root / ".lock", "it is no file", "an empty file has its place")
        lock = (root / ".lock").open("w")
    except OSError as error:
        raise CannotStart(
            f"storage.root {root} cannot be written ({error.strerror}): mount or chown it"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise AlreadyRuns(
            f"storage.root {root} is in use by another outpost process: stop that one"
        ) from None
    return lock


def _listen(host: str, port: int, key: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of TCP by name: else asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CannotStart(_port_in_use(host, port, key, error)) from None
    return listening


def _port_in_use(host: str, port: int, key: str, error: OSError) -> str:
    return f"{key}: cannot listen on {host}:{port} ({error.strerror}): see `ss -ltnp`, or choose another port"
