"""Who keeps a host's clock, and how our time servers get to it without touching what the site has set.

One program keeps the clock. Where one already does it stays, whichever it is; chrony comes where nobody does. Servers
of the inventory go into a file of ours beside the site's, or into a marked block where the program reads no such file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_CHRONY: Final = ("chrony.service", "chronyd.service")
_TIMESYNCD: Final = "systemd-timesyncd.service"
_TIMESYNCD_FILE: Final = "/etc/systemd/timesyncd.conf.d/outpost.conf"
_BEGIN: Final = "# BEGIN Outpost, role base"
_END: Final = "# END Outpost, role base"
_HEAD: Final = "# Set by Outpost's role base: time servers of the inventory (outpost_ntp_servers).\n"
# Of the file by which releases before this one replaced the site's.
_FORMER: Final = "# Steps are allowed only at start: a jump under a running study would spoil its times.\n"
_SOURCE: Final = re.compile(r"^\s*(?:server|pool|peer|refclock)\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Plan:
    """`keeper`: chrony, the unit of another, or vmware. `installs`: chrony is to be installed. `files`: path to content
    to be written, None where a file of ours goes. `reads`: of the files that the keeper starts with, those that may be
    in it; the same in every run, whatever is to be written. `told`: servers that the keeper was not given: it is the
    site's.
    """

    keeper: str
    installs: bool
    files: Mapping[str, str | None]
    reads: Sequence[str] = ()
    told: Sequence[str] = ()


def plan(read: Mapping[str, Any], servers: Sequence[str]) -> Plan:
    """What is to be done. read: part `time` of outpost_strangers."""
    active, chrony = list(read["active"]), read["chrony"]
    others = [unit for unit in active if unit not in _CHRONY]
    if not set(_CHRONY) & set(active) and (others or read["vmware"]):
        keeper = others[0] if others else "vmware"
        if keeper == _TIMESYNCD:
            files = _differing({_TIMESYNCD_FILE: read["timesyncd"]}, _timesyncd(servers))
            return Plan(keeper, False, files, (_TIMESYNCD_FILE,))
        return Plan(keeper, False, {}, told=tuple(servers))
    if not chrony["config"]:
        return Plan("chrony", True, {})
    return Plan("chrony", False, _chrony(chrony, servers), _chrony_reads(chrony))


def _timesyncd(servers: Sequence[str]) -> dict[str, str | None]:
    content = f"{_HEAD}[Time]\nNTP={' '.join(servers)}\n" if servers else None
    return {_TIMESYNCD_FILE: content}


def _chrony(chrony: Mapping[str, Any], servers: Sequence[str]) -> dict[str, str | None]:
    config, text = str(chrony["config"]), str(chrony["text"])
    beside = dict(chrony["beside"])
    wanted = _own_again(config) if _FORMER in text else _without_block(text)
    place = _place(wanted)
    ours = {path for path in beside if path.rpartition("/")[2].startswith("outpost.")}
    theirs = [wanted, *(content for path, content in beside.items() if path not in ours)]
    known = {source for content in theirs for source in _SOURCE.findall(content)}
    lines = "".join(f"server {server} iburst\n" for server in servers if server not in known)
    files: dict[str, str | None] = dict.fromkeys(ours)
    if lines and place:
        files[place] = _HEAD + lines
    elif lines:
        wanted = f"{wanted.rstrip()}\n\n{_BEGIN}\n{lines}{_END}\n"
    files[config] = wanted
    return _differing({**beside, config: text}, files)


def _chrony_reads(chrony: Mapping[str, Any]) -> tuple[str, ...]:
    config, text = str(chrony["config"]), str(chrony["text"])
    place = _place(_own_again(config) if _FORMER in text else text)
    return (config, *([place] if place else []))


def _differing(found: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    return {path: content for path, content in wanted.items() if (found.get(path) or None) != content}


def _place(text: str) -> str:
    """The file beside chrony's own that it reads; empty where it reads none that outlives a boot."""
    for kind, name in (("sourcedir", "outpost.sources"), ("confdir", "outpost.conf")):
        found = re.search(rf"^\s*{kind}\s+(/etc/\S+)", text, re.MULTILINE)
        if found:
            return f"{found.group(1).rstrip('/')}/{name}"
    return ""


def _without_block(text: str) -> str:
    """The site's own file: without our block, where there is one."""
    if _BEGIN not in text:
        return text
    head, _, rest = text.partition(_BEGIN)
    return head.rstrip() + "\n" + rest.partition(_END)[2].lstrip("\n")


def _own_again(config: str) -> str:
    """In place of the file that an earlier release wrote over the site's own, which is not known any more."""
    folder = (
        "confdir /etc/chrony/conf.d\nsourcedir /etc/chrony/sources.d\n"
        if config.startswith("/etc/chrony/")
        else ""
    )
    return (
        "# Set by Outpost's role base, once; yours from here on.\n"
        f"{folder}driftfile /var/lib/chrony/drift\nmakestep 1.0 3\nrtcsync\n"
    )
