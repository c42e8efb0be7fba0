"""The command `outpost`. Exit status: 0 done, 1 it failed, 2 the command or the configuration is wrong."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from outpost import __version__
from outpost.config import Config, ConfigError, load

# Commands import what they need when they run: `outpost send` does not wait for the whole service to load.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1  # the reader of our output has gone
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="outpost", description="DICOM in, trained model, DICOM out; and the view over many such places."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the service until told to end")
    serve.add_argument("--config", type=Path, required=True, help="YAML file of this system")
    serve.set_defaults(run=_serve)

    send = commands.add_parser("send", help="send DICOM files to a peer by C-STORE")
    send.add_argument("--host", required=True)
    send.add_argument("--port", type=int, required=True)
    send.add_argument("--called-aet", default="OUTPOST", help="the peer's AE title (default: %(default)s)")
    send.add_argument("--calling-aet", default="OUTPOST-SEND", help="our AE title (default: %(default)s)")
    send.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files, or folders to search")
    send.set_defaults(run=_send)

    selftest = commands.add_parser("selftest", help="prove that this host can compute and deliver")
    selftest.add_argument("--config", type=Path, required=True, help="YAML file of this system")
    selftest.add_argument("--json", action="store_true", help="print the verdict as JSON")
    selftest.set_defaults(run=_selftest)

    optimise = commands.add_parser("optimise", help="measure the engines on this host and keep the fastest")
    optimise.add_argument("--config", type=Path, required=True, help="YAML file of this system")
    optimise.add_argument("--json", action="store_true", help="print the evidence as JSON")
    optimise.set_defaults(run=_optimise)

    bundle = commands.add_parser("bundle", help="look at a model bundle")
    bundles = bundle.add_subparsers(required=True, metavar="COMMAND")
    check = bundles.add_parser("check", help="say whether a bundle is sound, and what to do if not")
    check.add_argument("path", type=Path, metavar="PATH", help="folder of the bundle")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(run=_bundle_check)

    token = commands.add_parser("token", help="make a token for the HTTP API, and its line of configuration")
    token.add_argument("name", help="who it is for, a-z, 0-9 and '-'")
    token.add_argument(
        "role", choices=("read", "send", "admin"), help="read looks; send sends, no more; admin may all"
    )
    token.set_defaults(run=_token)

    from outpost.drift import cli as drift_cli
    from outpost.filter import cli as filter_cli
    from outpost.fleet import cli as fleet_cli
    from outpost.platform import cli as platform_cli
    from outpost.quarantine import cli as quarantine_cli
    from outpost.quarantine import studies_cli

    filter_cli.add_parsers(commands)
    studies_cli.add_parsers(commands)
    quarantine_cli.add_parsers(commands)
    drift_cli.add_parsers(commands)
    fleet_cli.add_parsers(commands)
    platform_cli.add_parsers(commands)
    return parser


def _serve(options: argparse.Namespace) -> int:
    config = load(options.config, Config)
    from outpost.serve import CannotStart, serve

    try:
        return serve(config, options.config)
    except CannotStart as error:
        print(f"outpost: {error}", file=sys.stderr)
        return 1


def _selftest(options: argparse.Namespace) -> int:
    config = load(options.config, Config)
    from outpost.selftest import selftest, table

    verdict = selftest(config)
    print(json.dumps(verdict.as_json()) if options.json else table(verdict))
    return 0 if verdict.ready else 1


def _optimise(options: argparse.Namespace) -> int:
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
        print(f"outpost: {error}", file=sys.stderr)
        return 1
    best = evidence["chosen"]
    if options.json:
        print(json.dumps(evidence))
    else:
        print(table(evidence))
        if best is None:
            print("no engine that may be used gives the golden answer: nothing was kept")
        else:
            page = evidence_file(bundle, config.storage.root).with_suffix(".html")
            print(f"chosen: {best['engine']} in {best['precision']}; evidence: {page}")
    return 0 if best else 1


def _bundle_check(options: argparse.Namespace) -> int:
    from outpost.inference.check import check_bundle

    findings = check_bundle(options.path)
    if options.json:
        print(json.dumps([finding.as_json() for finding in findings]))
    else:
        print("\n".join(str(finding) for finding in findings))
    return 0 if all(finding.ok for finding in findings) else 1


def _token(options: argparse.Namespace) -> int:
    from outpost.api.security import new_token

    secret, sha256 = new_token()
    print(f"token (shown once, kept nowhere): {secret}")
    print("under api.tokens in the configuration:")
    print(f"  - {{name: {options.name}, role: {options.role}, sha256: {sha256}}}")
    return 0


def _send(options: argparse.Namespace) -> int:
    from outpost.delivery.scu import Peer
    from outpost.delivery.send import send

    return send(Peer(options.host, options.port, options.called_aet, options.calling_aet), options.paths)


if __name__ == "__main__":
    sys.exit(main())
