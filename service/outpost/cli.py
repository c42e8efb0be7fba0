"""The command `outpost`. Exit statuses are those of `outpost.options.Exit`, for every command."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from outpost import __version__
from outpost.codes.answers import complain, faults, said
from outpost.codes.spoken import spoken
from outpost.options import Exit, add_config, add_json, add_language, examples, preferred_language

# Commands import what they need when they run: `outpost send` does not wait for the whole service to load, and a
# controller, which has few of the service's libraries, still has the commands that need none.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if os.getpid() == 1:  # of a container: there the kernel ends no process that has not asked for it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "outpost":
            raise
        complain(
            "outpost",
            f"this command needs {error.name}, which is not installed here: run it on a host that Outpost "
            "is installed on, or install the service's libraries (make setup)",
        )
        return Exit.CANNOT_ASK
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FOUND
    except KeyboardInterrupt:
        return 130  # as a shell says it of a program ended by Ctrl-C
    except Exception as error:
        from outpost.config import ConfigError

        if not isinstance(error, ConfigError):
            raise
        print(faults(str(error), preferred_language()), file=sys.stderr)
        return Exit.USAGE
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in the language of whoever wrote it; so do those of the commands."""

    def error(self, message: str) -> NoReturn:
        super().error(said(message, preferred_language()))


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="outpost",
        description="DICOM in, trained model, DICOM out; and the view over many such places.",
        **examples(
            "outpost status",
            "outpost studies --state quarantined --since 2026-11-20",
            "outpost COMMAND --help",
        ),
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="run the service until told to end",
        **examples("outpost serve --config /etc/outpost/brain.yaml"),
    )
    add_config(serve)
    serve.set_defaults(run=_serve)

    send = commands.add_parser(
        "send",
        help="send DICOM files to a peer by C-STORE",
        **examples("outpost send --host 10.75.0.11 --port 11112 study/"),
    )
    send.add_argument("--host", required=True)
    send.add_argument("--port", type=int, required=True)
    send.add_argument("--called-aet", default="OUTPOST", help="the peer's AE title (default: %(default)s)")
    send.add_argument("--calling-aet", default="OUTPOST-SEND", help="our AE title (default: %(default)s)")
    send.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files, or folders to search")
    send.set_defaults(run=_send)

    selftest = commands.add_parser(
        "selftest",
        help="prove that this host can compute and deliver",
        **examples("outpost selftest", "outpost selftest --language ru"),
    )
    add_config(selftest)
    add_json(selftest, "print the verdict as JSON")
    add_language(selftest)
    selftest.set_defaults(run=_selftest)

    optimise = commands.add_parser(
        "optimise",
        help="measure the engines on this host and keep the fastest",
        **examples("outpost optimise"),
    )
    add_config(optimise)
    add_json(optimise, "print the evidence as JSON")
    add_language(optimise)
    optimise.set_defaults(run=_optimise)

    bundle = commands.add_parser(
        "bundle",
        help="look at a model bundle",
        **examples("outpost bundle check /opt/outpost/bundles/brain_extraction"),
    )
    bundles = bundle.add_subparsers(required=True, metavar="COMMAND")
    check = bundles.add_parser(
        "check",
        help="say whether a bundle is sound, and what to do if not",
        **examples("outpost bundle check /opt/outpost/bundles/brain_extraction"),
    )
    check.add_argument("path", type=Path, metavar="PATH", help="folder of the bundle")
    add_json(check, "print the findings as JSON")
    add_language(check)
    check.set_defaults(run=_bundle_check)

    token = commands.add_parser(
        "token",
        help="make a token for the HTTP API, and its line of configuration",
        **examples("outpost token night-shift read"),
    )
    token.add_argument("name", help="who it is for, a-z, 0-9 and '-'")
    token.add_argument(
        "role", choices=("read", "send", "admin"), help="read looks; send sends, no more; admin may all"
    )
    token.set_defaults(run=_token)

    from outpost import backup, completion
    from outpost.console import cli as console_cli
    from outpost.console import ladder_cli
    from outpost.drift import cli as drift_cli
    from outpost.filter import cli as filter_cli
    from outpost.fleet import cli as fleet_cli
    from outpost.heal import cli as journal_cli
    from outpost.platform import cli as platform_cli
    from outpost.quarantine import cli as quarantine_cli

    console_cli.add_parsers(commands)
    backup.add_parsers(commands)
    completion.add_parsers(commands)
    filter_cli.add_parsers(commands)
    quarantine_cli.add_parsers(commands)
    ladder_cli.add_parsers(commands)
    drift_cli.add_parsers(commands)
    journal_cli.add_parsers(commands)
    fleet_cli.add_parsers(commands)
    platform_cli.add_parsers(commands)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from outpost.config import Config, load

    config = load(options.config, Config)
    from outpost.serve import CannotStart, serve

    try:
        return serve(config, options.config)
    except CannotStart as error:
        complain("outpost", error)
        return 1


def _selftest(options: argparse.Namespace) -> int:
    from outpost.config import Config, load

    config = load(options.config, Config)
    from outpost.selftest import selftest, table

    verdict = selftest(config)
    print(json.dumps(verdict.as_json()) if options.json else table(verdict, options.language))
    return 0 if verdict.ready else 1


def _optimise(options: argparse.Namespace) -> int:
    from outpost.config import Config, load

    config = load(options.config, Config)
    from outpost.inference.bundle import load_bundle
    from outpost.inference.choice import evidence_file, gpus
    from outpost.inference.codes import InferenceFailed
    from outpost.inference.optimise import optimise, table

    settings = config.inference
    device = {"auto": "cuda:0" if gpus() else "cpu", "cuda": "cuda:0"}.get(settings.device, settings.device)
    try:
        bundle = load_bundle(settings.bundle)
        evidence = optimise(bundle, config.storage.root, device=device, configured=settings.engine)
    except (InferenceFailed, OSError) as error:
        complain("outpost", spoken(str(error), options.language), options.language)
        return 1
    best = evidence["chosen"]
    if options.json:
        print(json.dumps(evidence))
    else:
        print(table(evidence, options.language))
        if best is None:
            told = "no engine that may be used gives the golden answer: nothing was kept"
            print(spoken(told, options.language))
        else:
            page = evidence_file(bundle, config.storage.root).with_suffix(".html")
            told = f"chosen: {best['engine']} in {best['precision']}; evidence: {page}"
            print(spoken(told, options.language))
    return 0 if best else 1


def _bundle_check(options: argparse.Namespace) -> int:
    from outpost.inference.check import check_bundle

    findings = check_bundle(options.path)
    if options.json:
        print(json.dumps([finding.as_json() for finding in findings]))
    else:
        print("\n".join(finding.said(options.language) for finding in findings))
    return 0 if all(finding.ok for finding in findings) else 1


def _token(options: argparse.Namespace) -> int:
    from outpost.web.tokens import new_token

    secret, sha256 = new_token()
    language = preferred_language()
    print(spoken(f"token (shown once, kept nowhere): {secret}", language))
    print(spoken("under api.tokens in the configuration:", language))
    print(f"  - {{name: {options.name}, role: {options.role}, sha256: {sha256}}}")
    return 0


def _send(options: argparse.Namespace) -> int:
    from outpost.delivery.scu import Peer
    from outpost.delivery.send import send

    return send(Peer(options.host, options.port, options.called_aet, options.calling_aet), options.paths)


if __name__ == "__main__":
    sys.exit(main())
