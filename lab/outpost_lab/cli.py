"""The commands of `lab/lab`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys

from outpost_lab import hosts as lab_hosts
from outpost_lab import rpm_repository, ssh
from outpost_lab.commands import docker, docker_command
from outpost_lab.errors import LabError
from outpost_lab.images import RECIPES, ImageStore
from outpost_lab.links import Links, parse_rate
from outpost_lab.locks import exclusive
from outpost_lab.progress import say
from outpost_lab.settings import HOSTS, Host, Settings, choose_hosts, read_settings

EPILOGUE = """environment:
  LAB_NAME       name of the lab, prefix of its containers, networks and volumes (outpost)
  LAB_SUBNET     first two numbers of its VPN network; the hospital network takes the next one (10.77)
  LAB_DIR        where keys and caches are kept (<repository>/.lab)
  LAB_PUBLISH    no: pages are not published on 127.0.0.1 (yes)
  LAB_SUITE      Debian release of the stand-ins (bookworm); trixie has a newer Docker
  LAB_IMAGE_UBUNTU, LAB_IMAGE_ASTRA, LAB_IMAGE_REDOS   a vendor's image instead of the stand-in
"""


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 with a sentence when not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(os.environ)
        return int(options.run(settings, options) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab/lab",
        description="Outpost's lab in Docker: a centre, three regional hosts, a package mirror, a hospital.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="bring up all hosts, or those named; safe to repeat")
    command.add_argument(
        "hosts", nargs="*", metavar="HOST[=OS]", help="such as: train mirror, or centre=astra"
    )
    command.set_defaults(run=_up)

    command = commands.add_parser("down", help="remove all of the lab, or the hosts named; images stay")
    command.add_argument("hosts", nargs="*", metavar="HOST")
    command.set_defaults(run=_down)

    command = commands.add_parser("status", help="hosts, addresses, links, pages")
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_status)

    for verb, explanation in (("cut", "drop all packets of a region's VPN"), ("heal", "undo cut and slow")):
        command = commands.add_parser(verb, help=explanation)
        command.add_argument("region")
        command.set_defaults(run=_cut if verb == "cut" else _heal)
    command = commands.add_parser("slow", help="limit a region's VPN to a rate, each way")
    command.add_argument("region")
    command.add_argument("rate", help="such as 512kbit or 10mbit")
    command.set_defaults(run=_slow)

    command = commands.add_parser("exec", help="run a command in a host, past network and SSH")
    command.add_argument("host")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    command.set_defaults(run=_exec)

    command = commands.add_parser("ssh", help="log in to a host, or run a command there, over SSH")
    command.add_argument("host")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    command.set_defaults(run=_ssh)

    command = commands.add_parser("logs", help="the journal of a host, or the output of mirror and hospital")
    command.add_argument("host")
    command.add_argument("-n", "--lines", type=int, default=200)
    command.set_defaults(run=_logs)

    command = commands.add_parser("images", help="build all images and RPMs, start nothing")
    command.add_argument("--remove", action="store_true", help="remove the images instead")
    command.set_defaults(run=_images)
    return parser


def _up(settings: Settings, options: argparse.Namespace) -> None:
    lab_hosts.up(settings, choose_hosts(options.hosts), ImageStore(settings))
    say(f"lab {settings.name} is up; SSH: ssh -F {ssh.config_file(settings)} HOST")


def _down(settings: Settings, options: argparse.Namespace) -> None:
    lab_hosts.down(settings, choose_hosts(options.hosts), _links_where_possible(settings))


def _links(settings: Settings) -> Links:
    store = ImageStore(settings)
    store.ensure(["base"])
    return Links(settings, store.tag("base"))


def _links_where_possible(settings: Settings) -> Links | None:
    """Links without building an image for them: where it is gone, so is every lab that could have a cut."""
    tag = ImageStore(settings).tag("base")
    present = docker("image", "inspect", tag, check=False).returncode == 0
    return Links(settings, tag) if present else None


def _status(settings: Settings, options: argparse.Namespace) -> None:
    links = _links(settings) if lab_hosts.running(settings) else Links(settings, "unused: nothing runs")
    rows = lab_hosts.status(settings, links)
    if options.json:
        print(
            json.dumps({"name": settings.name, "hosts": [dataclasses.asdict(row) for row in rows]}, indent=2)
        )
        return
    head = ("HOST", "OS", "IMAGE", "STATE", "VPN", "HOSPITAL", "LINK", "PAGE")
    table = [head] + [tuple(value or "-" for value in dataclasses.astuple(row)) for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _region(settings: Settings, name: str) -> Host:
    regions = [host for host in lab_hosts.running(settings) if host.is_region]
    for host in regions:
        if host.name == name:
            return host
    names = ", ".join(host.name for host in regions) or "none; bring one up with lab/lab up"
    raise LabError(f"{name!r} is no running region of lab {settings.name}. Running: {names}.")


def _cut(settings: Settings, options: argparse.Namespace) -> None:
    _links(settings).cut(_region(settings, options.region))
    say(f"{options.region}: VPN link cut (packets vanish); lab/lab heal {options.region} restores it")


def _heal(settings: Settings, options: argparse.Namespace) -> None:
    _links(settings).heal(_region(settings, options.region))
    say(f"{options.region}: VPN link whole and at full speed")


def _slow(settings: Settings, options: argparse.Namespace) -> None:
    rate = parse_rate(options.rate)
    _links(settings).slow(_region(settings, options.region), rate)
    say(f"{options.region}: VPN link at {options.rate} each way; lab/lab heal {options.region} restores it")


def _running_host(settings: Settings, name: str) -> Host:
    [host] = choose_hosts([name])
    if host.name not in {running.name for running in lab_hosts.running(settings)}:
        raise LabError(f"{name} of lab {settings.name} is not running. lab/lab up {name} starts it.")
    return host


def _exec(settings: Settings, options: argparse.Namespace) -> None:
    host = _running_host(settings, options.host)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    program = [*docker_command(), "exec", "-i", *terminal, settings.container(host), *(command or ["bash"])]
    os.execvp(program[0], program)  # noqa: S606 - the command takes over this terminal


def _ssh(settings: Settings, options: argparse.Namespace) -> None:
    host = _running_host(settings, options.host)
    if not host.has_ssh:
        raise LabError(f"{host.name} has no SSH. lab/lab exec {host.name} -- COMMAND runs a command in it.")
    program = ["ssh", "-F", str(ssh.config_file(settings)), host.name, *options.command]
    os.execvp(program[0], program)  # noqa: S606 - the command takes over this terminal


def _logs(settings: Settings, options: argparse.Namespace) -> None:
    host = _running_host(settings, options.host)
    lines = str(options.lines)
    if host.has_ssh:
        arguments = ["exec", settings.container(host), "journalctl", "--no-pager", "-n", lines]
    else:
        arguments = ["logs", "--tail", lines, settings.container(host)]
    program = [*docker_command(), *arguments]
    os.execvp(program[0], program)  # noqa: S606 - the command takes over this terminal


def _images(settings: Settings, options: argparse.Namespace) -> None:
    store = ImageStore(settings)
    if options.remove:
        say(f"{store.remove()} images removed")
        return
    with exclusive(settings.directory / "build.lock"):
        store.ensure(image for image in RECIPES if image != "rpm")
        rpm_repository.ensure(settings, store)
    for host in HOSTS:
        if host.is_region:
            say(f"{host.os}: {settings.image_kind(host.os)}, {store.tag(host.os)}")
