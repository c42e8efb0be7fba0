"""The whole verdict on an inventory."""

from __future__ import annotations

import zoneinfo
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from outpost.controller.inventory import hosts as between
from outpost.controller.inventory.fault import Fault, Place, fault, near, text
from outpost.controller.inventory.hosts import Host
from outpost.controller.inventory.names import Known, known, looks_like_ours, nearest
from outpost.controller.inventory.shapes import SHAPES
from outpost.controller.inventory.sources import Sources
from outpost.controller.inventory.values import Written, judge
from outpost.platform.line import Language, Words

# Fewer are no data base of time zones but a controller without one: then no zone is judged.
_LEAST_ZONES = 100
# What an unknown name holds is not said: it may be a secret.
_NOT_KNOWN = Words("not known", "неизвестна")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What Ansible loaded.

    groups: names of all. limit: the patterns of -l. chosen: hosts of the limit that a play is for, None
    without a limit. deploys: whether the run brings regions up, so that what they need must be there;
    asks: whether it says that it could.
    """

    hosts: Sequence[Host]
    groups: Collection[str]
    limit: Sequence[str] = ()
    chosen: Collection[str] | None = None
    deploys: bool = True
    asks: bool = True
    bundles: Collection[str] = field(default_factory=frozenset)


@cache
def variables(root: Path) -> Known:
    """The variables that the checkout at `root` knows."""
    return known(root, SHAPES)


@cache
def zones() -> frozenset[str]:
    """The time zones that this controller knows; empty where it has no data base of them."""
    found = zoneinfo.available_timezones()
    return frozenset(found) if len(found) >= _LEAST_ZONES else frozenset()


def faults(inventory: Inventory, sources: Sources, names: Known) -> list[Fault]:
    """All that is wrong, files first."""
    found = list(sources.faults)
    everybody = [host.name for host in inventory.hosts]
    if not any(host.is_ours for host in inventory.hosts):
        value = Words("no host is in region or fleet", "ни одного узла в region или fleet")
        close = next(
            (one for one in (nearest(group, between.OURS, 0.7) for group in inventory.groups) if one), ""
        )
        found.append(fault("no-hosts", _first_group(sources, close), value=value))
    found += between.judge_hosts(inventory.hosts, sources, names)
    found += between.judge_files(everybody, inventory.groups, sources)
    if inventory.limit:
        found += between.judge_limit(inventory.limit, everybody, inventory.groups, inventory.chosen)
    # What 85 regions have from one place is judged once.
    judged: dict[tuple[Any, ...], bool] = {}
    for host in inventory.hosts:
        if not (host.is_ours or "region_pacs" in host.variables):
            continue
        found += _variables(host, sources, names, judged)
        if "region" in host.groups:
            found += between.judge_region(
                host, sources, inventory.bundles, deploys=inventory.deploys, asks=inventory.asks
            )
        if host.is_ours:
            found += between.judge_ports(host, sources)
    found += _names_in_files(inventory, sources, names)
    return list(dict.fromkeys(found))


def _first_group(sources: Sources, close: str) -> Place:
    for group, place in sources.groups.items():
        if close and nearest(group, between.OURS, 0.7) == close:
            return place
    return Place()


def _variables(
    host: Host, sources: Sources, names: Known, judged: dict[tuple[Any, ...], bool]
) -> Iterator[Fault]:
    for name, value in host.variables.items():
        definition = None if name in host.given else sources.definition(name, host.name, host.groups)
        key = (name, id(definition) if definition is not None else name in host.given, repr(value))
        if key in judged:
            continue
        judged[key] = True
        option = names.options.get(name)
        if option is None:
            yield from _unknown(host, name, sources, names)
            continue
        given = name in host.given

        def place(path: tuple[str | int, ...], name: str = name) -> Place:
            return host.place(sources, name, path)

        def text(path: tuple[str | int, ...], name: str = name, given: bool = given) -> str | None:
            return None if given else sources.written(name, host.name, host.groups, path)

        yield from judge(name, option, value, Written(place, text), zones())


def _unknown(host: Host, name: str, sources: Sources, names: Known) -> Iterator[Fault]:
    meant = nearest(name, names.options) if name.startswith(names.prefixes) else looks_like_ours(name, names)
    if name.startswith(names.prefixes) or meant:
        place = host.place(sources, name)
        yield fault("unknown-name", place, name, _NOT_KNOWN, near=near(meant))


def _names_in_files(inventory: Inventory, sources: Sources, names: Known) -> Iterator[Fault]:
    """Names in files that Ansible has loaded for nobody yet, such as those of a group without hosts. What belongs to
    hosts of the site's own is the site's own: other roles begin their names as ours do."""
    ours: set[tuple[str, str]] = set()
    others: set[tuple[str, str]] = set()
    for host in inventory.hosts:
        reached = ours if host.is_ours else others
        reached |= {("host", host.name), *(("group", group) for group in host.groups)}
    for name, defined in sources.definitions.items():
        if name in names.options:
            continue
        prefixed = name.startswith(names.prefixes)
        meant = nearest(name, names.options) if prefixed else looks_like_ours(name, names)
        if not (prefixed or meant):
            continue
        for one in defined:
            if one.scope in ours or one.scope not in others:
                yield fault("unknown-name", Place(one.file, one.line), name, _NOT_KNOWN, near=near(meant))


def language(hosts: Sequence[Host], sources: Sources) -> Language:
    """In which language to speak: outpost_language of any host, else as a file says it; en otherwise."""
    for host in hosts:
        said = host.variables.get("outpost_language")
        if said in ("en", "ru"):
            return "ru" if said == "ru" else "en"
    for one in sources.definitions.get("outpost_language", ()):
        if one.node is not None and str(one.node.value) == "ru":
            return "ru"
    return "en"


def said(found: Sequence[Fault], hosts: Sequence[Host], sources: Sources) -> list[str]:
    """What to print: a line that says how it stands, and one for each fault; empty where nothing is wrong."""
    if not found:
        return []
    spoken = language(hosts, sources)
    lines = text(found, spoken)
    head = Words(
        "The inventory is wrong in {n} places. No host was asked and nothing was changed:",
        "Ошибок в инвентаре: {n}. Ни один узел не опрошен, ничего не изменено:",
    )
    return [head.by(n=len(lines)).said(spoken), *lines]
