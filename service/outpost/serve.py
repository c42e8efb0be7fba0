"""Putting the service together: which parts run, in which order they start and end."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import IO

import uvicorn
from fastapi import FastAPI

from outpost import __version__, logs
from outpost.api.app import create_app
from outpost.api.metrics import Metrics
from outpost.config import Config
from outpost.delivery.commitment import Reports
from outpost.delivery.courier import Courier
from outpost.delivery.outbox import Outbox
from outpost.drift.keeper import Keeper
from outpost.drift.shelf import SHIPPED_REFERENCE
from outpost.drift.ship import shipper
from outpost.events import EventCode
from outpost.filter.active import ActiveRules
from outpost.filter.rulefile import RulesInvalid, source_of
from outpost.health.host import HostWatch
from outpost.health.verdict import Health
from outpost.inference.plan import Plan, make_plan
from outpost.intake.assembly import Assembly, RequiredSeries
from outpost.intake.doors import Doors
from outpost.intake.scp import StorageScp
from outpost.intake.spool import Spool
from outpost.notify import Notifier
from outpost.optimiser import IdleOptimiser
from outpost.pipeline import Pipeline
from outpost.quarantine.quota import QuotaKeeper
from outpost.records.journal import Budget, Journal
from outpost.records.recorder import Recorder
from outpost.tls import TlsUnusable, server_context

log = logging.getLogger(__name__)

_STOP_SECONDS = 20.0
# The release this process runs from; the launcher sets it, a checkout has only its version.
RELEASE = os.environ.get("OUTPOST_RELEASE", __version__)


class CannotStart(Exception):
    """Something outside the configuration file keeps the service from starting; the text says what to do."""


def serve(config: Config, config_file: Path) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. Raises `CannotStart`.

    `config_file` is where `config` was read from: helpers in processes of their own read it too.
    """
    logs.configure()
    notifier = Notifier()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as ending:
        ending.enter_context(_only_one(config))
        budget = Budget(config.study.revisions, config.study.revisions_hours)
        journal = Journal(config.storage.root / "journal.sqlite3", config.system, budget)
        ending.callback(journal.close)
        plan = make_plan(config, journal)
        spool = Spool(
            config.storage.root,
            journal,
            config.intake.disk_reserve_mib,
            config.intake.disk_used_percent,
            plan.bundle.sop_class_uids if plan.bundle is not None else None,
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
        api_socket = _listen(config.api.listen, config.api.port, "api.port")
        try:
            scp = StorageScp(
                config.intake,
                spool,
                assembly,
                reports.take,
                [d.ae_title for d in config.delivery.destinations if d.commitment and d.ae_title],
                doors,
            )
        except TlsUnusable as error:
            raise CannotStart(str(error)) from None
        except OSError as error:
            raise CannotStart(
                _port_in_use(config.intake.listen, config.intake.dicom_port, "intake.dicom_port", error)
            ) from None

        pipeline_thread = threading.Thread(target=pipeline.run, name="pipeline")
        courier_threads = [
            threading.Thread(target=courier.run, args=(stopping,), name=courier.name) for courier in couriers
        ]
        quota = QuotaKeeper(config.quarantine, journal, spool)
        also = [shipper(keeper.register, config.system)] if keeper is not None else []
        recorder = Recorder(journal, config.records, RELEASE, also) if config.records.enabled else None
        need_mib = plan.bundle.manifest.resources.memory_mib if plan.bundle is not None else 0
        host = HostWatch(config, need_mib, config.inference.workers, stopping)
        health = Health(config, scp, pipeline, courier_threads, recorder, host, couriers)
        metrics.follow(journal, health, pipeline, config.intake.known_ae_titles)
        metrics.follow_deliveries(journal, couriers)
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
        )
        # Access logs would carry study UIDs in paths.
        http = uvicorn.Server(_http_config(app, config))
        http_thread = threading.Thread(target=http.run, kwargs={"sockets": [api_socket]}, name="api")

        essential = [pipeline_thread, http_thread]
        threads = [
            *essential,
            *courier_threads,
            quota,
            *([recorder] if recorder else []),
            *([keeper] if keeper else []),
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
            ended = [thread.name for thread in essential if not thread.is_alive()]
            if ended or not scp.listening:
                log.error(
                    "%s ended by itself: ending the service, to be restarted", ", ".join(ended) or "intake"
                )
                break
        failed = not stopping.is_set()
        notifier.stopping()
        stopping.set()
        pipeline.stop()
        http.should_exit = True
        wake_couriers()
        scp.stop()
        quota.stop()
        if recorder is not None:
            recorder.stop()
        if keeper is not None:
            pipeline_thread.join(_STOP_SECONDS)  # what its lanes still end is counted, too
            keeper.stop()
        for thread in threads:
            thread.join(_STOP_SECONDS)
        late = [thread.name for thread in threads if thread.is_alive()]
        if late:
            # The journal is consistent at any moment; waiting longer would only delay the restart.
            log.error("%s did not end within %g s: leaving", ", ".join(late), _STOP_SECONDS)
            pipeline.close()
            os._exit(1)
        log.info("ended")
        return 1 if failed else 0


def _http_config(app: FastAPI, config: Config) -> uvicorn.Config:
    tls = config.api.tls
    if tls is None:
        if not config.api.tokens and not ip_address(config.api.listen).is_loopback:
            log.warning(
                "the HTTP API on %s takes anyone's word: see api.tls and api.tokens", config.api.listen
            )
        return uvicorn.Config(app, access_log=False, log_config=None, lifespan="off")
    try:
        context = server_context(tls, "api.tls")
    except TlsUnusable as error:
        raise CannotStart(str(error)) from None
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="off",
        ssl_context_factory=lambda _config, _default: context,
    )


def _keeper(config: Config, journal: Journal) -> Keeper | None:
    """What watches for drift; nothing where it is not wanted, or has no folder: no study shall miss it."""
    if not config.drift.enabled:
        return None
    folder = config.storage.root / "drift"
    shipped = config.inference.bundle / SHIPPED_REFERENCE
    try:
        return Keeper(config.region, config.system, folder, shipped, config.drift, journal)
    except Exception:
        # Whatever state of its own is broken: no study may wait for it.
        log.exception("drift is not watched: %s cannot be used", folder)
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
        lock = (root / ".lock").open("w")
    except OSError as error:
        raise CannotStart(
            f"storage.root {root} cannot be written ({error.strerror}): mount or chown it"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise CannotStart(
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
