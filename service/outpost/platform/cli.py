"""`outpost platform verdict|facts|codes`: will it run? Answered without a host, a network or Ansible.

Exit status: 0 it will run, 1 it will not, 2 the question cannot be read.
`python -m outpost.platform` is the same, on a controller where the service's libraries are not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from outpost.codes.answers import complain
from outpost.options import add_language, examples
from outpost.platform import codes
from outpost.platform.collected import CollectedWrong, load
from outpost.platform.facts import SUPPORTED, facts_of_sections, release_of
from outpost.platform.fit import Asked, AskedWrong, Bundle
from outpost.platform.gpus import UnknownId, lookup
from outpost.platform.page import host_page
from outpost.platform.verdict import judge, text


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `platform` to the main command. The parsed namespace's `run` takes it and returns the exit code."""
    platform = subparsers.add_parser(
        "platform",
        help="will it run: GPU, driver, CUDA, torch, operating system",
        **examples("outpost platform verdict --gpu 10de:1b06 --driver 580.95.05 --os astra-1.8"),
    )
    add_verbs(platform)


def add_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    verdict = verbs.add_parser(
        "verdict",
        help="judge a set before it is bought or installed",
        description="Judge a set. What is left out is not judged. Exit status 0: it will run, 1: it will not.",
        **examples(
            "outpost platform verdict --gpu 10de:1b06 --driver 580.95.05 --torch 2.13.0+cu126 --os astra-1.8",
            "outpost platform verdict --collected .collected/chita.json --html > chita.html",
        ),
    )
    verdict.add_argument(
        "--gpu", action="append", default=[], metavar="10de:1b06", help="PCI id; repeat for each card"
    )
    verdict.add_argument(
        "--driver", default="", metavar="580.95.05", help="full version of the NVIDIA driver"
    )
    verdict.add_argument(
        "--modules", default="", choices=("open", "proprietary"), help="kind of kernel module"
    )
    verdict.add_argument(
        "--cuda", default="", metavar="12.6", help="CUDA version (default: the torch build's)"
    )
    verdict.add_argument("--torch", default="", metavar="2.13.0+cu126", help="torch build")
    verdict.add_argument("--os", default="", metavar="astra-1.8", help="operating system and release")
    verdict.add_argument("--min-driver", default="", metavar="VERSION", help="what the model bundle asks for")
    verdict.add_argument("--min-capability", default="", metavar="7.0", help="what the model bundle asks for")
    verdict.add_argument("--collected", type=Path, metavar="FILE", help="a host's file of collect.yml")
    verdict.add_argument(
        "--date", type=date.fromisoformat, default=None, metavar="YYYY-MM-DD", help="judge as of that day"
    )
    add_language(verdict)
    form = verdict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the verdict as JSON")
    form.add_argument("--html", action="store_true", help="print the verdict as a page to send")
    verdict.set_defaults(run=_verdict)

    facts = verbs.add_parser(
        "facts",
        help="print the facts of a host's file of collect.yml",
        **examples("outpost platform facts .collected/chita.json"),
    )
    facts.add_argument("file", type=Path)
    facts.set_defaults(run=_facts)

    table = verbs.add_parser(
        "codes",
        help="print the table of codes (docs/preflight.md)",
        **examples("outpost platform codes --language ru > docs/preflight.ru.md"),
    )
    table.add_argument("--language", choices=("en", "ru"), default="en")
    table.set_defaults(run=_codes)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m outpost.platform`."""
    parser = argparse.ArgumentParser(prog="python -m outpost.platform", description=__doc__.split("\n")[0])
    add_verbs(parser)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _verdict(options: argparse.Namespace) -> int:
    try:
        facts, host = _asked_facts(options)
        bundle = Bundle("bundle", options.min_driver, options.min_capability)
        asked = Asked(options.driver, options.modules, options.cuda, options.torch, (bundle,))
        verdict = judge(host, facts, asked, options.date or date.today())
    except (AskedWrong, UnknownId, CollectedWrong) as error:
        complain("", error, options.language)
        return 2
    report = verdict.as_json(options.language)
    if options.json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    elif options.html:
        sys.stdout.write(host_page(report))
    else:
        sys.stdout.write("\n".join(text(report)) + "\n")
    return 1 if verdict.level == "critical" else 0


def _asked_facts(options: argparse.Namespace) -> tuple[Mapping[str, Any], str]:
    """Facts of the collected file, those named by hand over them; and what to call the host."""
    facts: dict[str, Any] = {}
    host = ""
    if options.collected:
        collected = load(options.collected)
        facts, host = dict(facts_of_sections(collected.sections)), collected.host
    if options.os:
        os_id, _, version = options.os.partition("-")
        if os_id not in SUPPORTED or not version:
            raise AskedWrong(
                f"os: {options.os!r} is none of ours: it looks like ubuntu-24.04, astra-1.8, redos-8"
            )
        release = release_of(os_id, version)
        facts |= {
            "id": os_id, "release": release, "version": version, "pretty": options.os,
            "supported": release in SUPPORTED[os_id],
        }  # fmt: skip
    if options.gpu or not options.collected:
        facts["gpus"] = [lookup(gpu).id for gpu in options.gpu]
    return facts, host or ", ".join(lookup(gpu).spoken for gpu in facts["gpus"]) or options.os or "host"


def _facts(options: argparse.Namespace) -> int:
    try:
        collected = load(options.file)
    except CollectedWrong as error:
        complain("", error)
        return 2
    sys.stdout.write(json.dumps(facts_of_sections(collected.sections), ensure_ascii=False, indent=2) + "\n")
    return 0


def _codes(options: argparse.Namespace) -> int:
    sys.stdout.write(codes.page(options.language))
    return 0
