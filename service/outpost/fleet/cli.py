"""`outpost fleet sync|serve|table`: one pass, the running service, the view as text."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from outpost.codes.answers import complain
from outpost.codes.spoken import spoken
from outpost.options import Exit, add_config, examples, preferred_language

if TYPE_CHECKING:  # what a command needs is imported as it runs
    from outpost.fleet.config import FleetConfig


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `fleet` to the main command. The parsed namespace's `run` takes it and returns the exit code."""
    fleet = subparsers.add_parser(
        "fleet",
        help="the centre: gather what the regions did, and show it",
        **examples("outpost fleet table", "outpost fleet sync --strict"),
    )
    verbs = fleet.add_subparsers(dest="verb", required=True)
    for verb, text, run in (
        ("sync", "read every region once and say how that went", _sync),
        ("serve", "read the regions for ever and serve the page", _serve),
        ("table", "print the fleet view", _table),
    ):
        parser = verbs.add_parser(verb, help=text, description=text, **examples(f"outpost fleet {verb}"))
        add_config(parser, "the fleet's YAML file")
        parser.set_defaults(run=run)
        if verb == "sync":
            parser.add_argument(
                "--strict", action="store_true", help="exit 1 when not every region is fully read"
            )


def _sync(arguments: argparse.Namespace) -> int:
    import psycopg

    from outpost import logs
    from outpost.fleet.collector import sync_all
    from outpost.fleet.sync import CentreError

    config = _load(arguments)
    logs.configure()
    try:
        attempts = sync_all(config)
    except (CentreError, psycopg.Error) as error:
        return _fault(" ".join(str(error).split()))
    language = preferred_language()
    for attempt in attempts:
        how = attempt.fault.sentence if attempt.fault else "up to date"
        told = f"{attempt.region}: {attempt.rows} rows, {attempt.took_seconds:.1f} s, {how}"
        sys.stdout.write(spoken(told, language) + "\n")
    whole = sum(attempt.fault is None for attempt in attempts)
    sys.stdout.write(spoken(f"{whole} of {len(attempts)} regions read", language) + "\n")
    return int(arguments.strict and whole < len(attempts))


def _table(arguments: argparse.Namespace) -> int:
    from outpost.fleet import console

    found = console.summary(_load(arguments))
    if found["fault"]:
        return _fault(found["fault"])
    language = getattr(arguments, "language", preferred_language())
    sys.stdout.write(console.text(found | {"unit": ""}, language) + "\n")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from outpost import logs
    from outpost.api.limits import LimitedServer, Limits
    from outpost.descriptors import TooFewDescriptors, provide
    from outpost.fleet.app import create_app
    from outpost.fleet.collector import Collector
    from outpost.intake.doors import Doors
    from outpost.notify import Notifier
    from outpost.tls import TlsUnusable, server_context

    config = _load(arguments)
    logs.configure()
    try:
        tls = server_context(config.api.tls, "api.tls") if config.api.tls is not None else None
    except TlsUnusable as error:
        return _fault(str(error), Exit.USAGE)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        listener = socket.create_server((config.api.listen, config.api.port))
    except OSError as error:
        return _fault(
            f"cannot listen on {config.api.listen}:{config.api.port} ({os.strerror(error.errno or 0)}): "
            "end what uses the port, or set api.port",
            Exit.USAGE,
        )
    notifier = Notifier()
    collector = Collector(config, alive=notifier.watchdog)
    try:
        shares = provide(associations=0)
    except TooFewDescriptors as error:
        return _fault(str(error), Exit.USAGE)
    doors = Doors()
    http = LimitedServer(
        create_app(config, collector),
        Limits.of(shares.http),
        lambda reason, words, address, times=1: doors.turned_away(
            "request" if reason == "TOO_MANY_REQUESTS" else "connection",
            reason,
            words,
            "",
            address,
            times=times,
        ),
        tls,
        explains=True,
    )
    pages = threading.Thread(target=http.run, kwargs={"sockets": [listener]}, name="pages", daemon=True)
    collector.start()
    pages.start()
    notifier.ready()
    while not stopping.wait(1.0) and pages.is_alive() and collector.is_alive():
        pass
    ended_by_itself = not stopping.is_set()
    notifier.stopping()
    http.should_exit = True
    collector.stop()
    pages.join(10)
    return int(ended_by_itself)


def _load(arguments: argparse.Namespace) -> FleetConfig:
    from outpost.config import load
    from outpost.fleet.config import FleetConfig

    return load(arguments.config, FleetConfig)


def _fault(text: str, status: Exit = Exit.CANNOT_ASK) -> int:
    complain("", text)
    return status
