"""What is wrong between hosts: names, groups, addresses, ports, what each region must have. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from outpost.controller.inventory.fault import Fault, Place, fault, near
from outpost.controller.inventory.names import Known, nearest
from outpost.controller.inventory.shapes import NAME
from outpost.controller.inventory.sources import Sources
from outpost.controller.inventory.values import MISSING, Unknown
from outpost.platform.line import Words, same

OURS: Final = ("region", "fleet")
_POSTGRESQL_PORT: Final = 5432
_PAGE_PORT: Final = 8090
_SSH_PORT: Final = 22


@dataclass(frozen=True, slots=True)
class Host:
    """A host as Ansible loaded it.

    groups: in the order in which Ansible reads them, the deepest last. variables: those of ours and ansible_ ones,
    templates replaced; UNKNOWN where a value is not known before the run. given: names from the command line (-e).
    """

    name: str
    groups: tuple[str, ...]
    variables: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def value(self, name: str, default: Any = None) -> Any:
        found = self.variables.get(name)
        return default if found is None else found

    @property
    def is_ours(self) -> bool:
        return any(group in self.groups for group in OURS)

    def place(self, sources: Sources, name: str, path: Sequence[str | int] = ()) -> Place:
        """Where the host's variable is written."""
        if name in self.given:
            return Place(who="-e")
        return sources.place(name, self.name, self.groups, path)


def host_place(sources: Sources, host: str) -> Place:
    """Where a host is listed, at best with its variables."""
    listed = sources.hosts.get(host, [])
    best = next((place for place, _, given in listed if given), listed[0][0] if listed else None)
    return best or Place(who=host)


def judge_hosts(hosts: Sequence[Host], sources: Sources, names: Known) -> Iterator[Fault]:
    """Names, groups and addresses."""
    for host in hosts:
        place = host_place(sources, host.name)
        if "region" in host.groups and not NAME.fullmatch(host.name):
            yield fault("region-code", place, "", repr(host.name))
        if all(group in host.groups for group in OURS):
            yield fault(
                "host-both", place, host.name, Words("in region and in fleet", "и в region, и в fleet")
            )
        if not host.is_ours and host.name not in ("localhost", "127.0.0.1"):
            telling = [
                name for name in ("region_pacs", "region_title", "region_timezone") if name in host.variables
            ]
            if telling:
                close = near(next((one for one in map(_ours, host.groups) if one), ""))
                yield fault("host-nowhere", place, host.name, ", ".join(_groups(host)), near=close)
        yield from _listed_twice(host, sources, names)
    yield from _addresses(hosts, sources)
    yield from _codes(hosts, sources)
    loaded = {host.name for host in hosts}
    for name, place in sources.promised.items():
        # A range such as web[1:3] stands for names that are not written; host:22 for one with a port.
        if name not in loaded and not re.search(r"[\[:]", name):
            yield fault("host-unread", place, "", repr(name))


def _ours(group: str) -> str:
    return nearest(group, OURS, 0.7)


def _groups(host: Host) -> list[str]:
    return [group for group in host.groups if group != "all"] or ["all"]


def _listed_twice(host: Host, sources: Sources, names: Known) -> Iterator[Fault]:
    """A host that two files describe as ours. One that another file only puts into a further group is lawful."""
    listed = sources.hosts.get(host.name, [])
    described = {
        place.file: place
        for place, group, given in listed
        if group in OURS or "ansible_host" in given or any(names.is_ours(name) for name in given)
    }
    if len(described) > 1:
        *_, last = described.values()
        places = ", ".join(place.said("en") for place in described.values())
        yield fault(
            "host-twice",
            last,
            host.name,
            Words("in {n} files", "в {n} файлах").by(n=len(described)),
            places=places,
        )


def _addresses(hosts: Sequence[Host], sources: Sources) -> Iterator[Fault]:
    """The centre dials a region by its address alone; we dial a host by address and port."""
    dialled: dict[tuple[str, str], list[tuple[Host, str]]] = {}
    for host in hosts:
        if not host.is_ours:
            continue
        named = host.value("ansible_host", host.name)
        known = []
        if not isinstance(named, Unknown) and host.value("ansible_connection") != "local":
            known.append((_plain(named), str(host.value("ansible_port", _SSH_PORT)), "ansible_host"))
        if "region" in host.groups:
            centre = host.value("region_address", named)
            variable = "region_address" if host.value("region_address") is not None else "ansible_host"
            if not isinstance(centre, Unknown):
                known.append((_plain(centre), "centre", variable))
        for address, way, variable in known:
            dialled.setdefault((address, way), []).append((host, variable))
    told: set[tuple[str, ...]] = set()
    for (address, _), users in dialled.items():
        who = tuple(host.name for host, _ in users)
        if len(users) < 2 or who in told:
            continue
        told.add(who)
        host, variable = users[-1]
        place = host.place(sources, variable)
        place = place if place.file else host_place(sources, host.name)
        yield fault(
            "address-twice", place, f"{host.name}.{variable}", address, others=", ".join(who[:-1][:5])
        )


def _codes(hosts: Sequence[Host], sources: Sources) -> Iterator[Fault]:
    """Regions that call themselves alike: one's records would be taken for the other's."""
    named: dict[str, list[Host]] = {}
    for host in hosts:
        if "region" in host.groups:
            code = host.value("inference_region", host.name)
            named.setdefault(host.name if isinstance(code, Unknown) else str(code), []).append(host)
    for code, regions in named.items():
        if len(regions) > 1:
            host = next(
                (one for one in reversed(regions) if "inference_region" in one.variables), regions[-1]
            )
            others = ", ".join(one.name for one in regions if one is not host)
            place = host.place(sources, "inference_region")
            yield fault("code-twice", place, f"{host.name}.inference_region", repr(code), others=others)


def _plain(address: Any) -> str:
    said = str(address).strip().rstrip(".").casefold()
    try:
        return str(ip_address(said))
    except ValueError:
        return said


def judge_region(
    host: Host, sources: Sources, bundles: Collection[str], *, deploys: bool, asks: bool
) -> Iterator[Fault]:
    """What a region must have, and what must agree in it. deploys: whether the run brings it up; asks: whether it
    says that it could.

    A host may be looked at before there are systems for it; where there are, results must have a place to go.
    """
    systems = host.value("outpost_systems", host.value("inference_systems", {}))
    systems = systems if isinstance(systems, Mapping) else {}
    here = host_place(sources, host.name)
    if deploys and "outpost_systems" not in host.variables and "inference_systems" not in host.variables:
        wanted = Words("the inference systems of the region", "системы вывода региона")
        yield fault("missing", here, f"{host.name}.outpost_systems", MISSING, wanted=wanted)
    if "region_pacs" in host.variables or (asks and systems and host.value("inference_destinations") is None):
        yield from _pacs(host, host.variables.get("region_pacs"), here, sources)
    for name in systems:
        if not NAME.fullmatch(str(name)):
            wanted = Words(
                "2 to 31 of a-z, 0-9 and -, beginning with a letter",
                "от 2 до 31 знаков a-z, 0-9 и -, первой буква",
            )
            yield fault(
                "form",
                host.place(sources, "outpost_systems", (str(name),)),
                f"outpost_systems.{name}",
                repr(str(name)),
                wanted=wanted,
            )
    asked = host.value("preflight_bundles", {})
    for system, bundle in asked.items() if isinstance(asked, Mapping) else ():
        place = host.place(sources, "preflight_bundles", (str(system),))
        said = f"preflight_bundles.{system}"
        if systems and system not in systems:
            close, known = (
                near(nearest(str(system), [str(one) for one in systems])),
                ", ".join(map(str, systems)),
            )
            yield fault("unknown-system", place, said, same(system), known=known, near=close)
        if isinstance(bundle, str) and bundles and bundle not in bundles:
            yield fault(
                "unknown-bundle",
                place,
                said,
                repr(bundle),
                known=", ".join(sorted(bundles)),
                near=near(nearest(bundle, bundles)),
            )
    mine, recorder = host.value("postgresql_port", _POSTGRESQL_PORT), host.value("inference_database_port")
    if _number(recorder) and _number(mine) and int(recorder) != int(mine):
        place = host.place(sources, "inference_database_port")
        yield fault(
            "ports-differ",
            place,
            "inference_database_port",
            recorder,
            port=mine,
            key="inference_database_port",
        )


def _pacs(host: Host, pacs: Any, here: Place, sources: Sources) -> Iterator[Fault]:
    if isinstance(pacs, Unknown):
        return
    wanted = {
        "ae_title": Words("the AE title of the archive", "AE title архива"),
        "host": Words("the address of the archive", "адрес архива"),
        "port": Words("the archive's DICOM port, such as 104", "DICOM-порт архива, например 104"),
    }
    if pacs is None:
        said = Words(
            "{ae_title, host, port} of the archive that results go to",
            "{ae_title, host, port} архива, куда идут результаты",
        )
        if "region_pacs" not in host.variables:
            yield fault("missing", here, f"{host.name}.region_pacs", MISSING, wanted=said)
        return
    if not isinstance(pacs, Mapping) or "stow_url" in pacs:
        return
    for key, said in wanted.items():
        if key not in pacs:
            place = host.place(sources, "region_pacs")
            yield fault("missing", place, f"{host.name}.region_pacs.{key}", MISSING, wanted=said)


def judge_ports(host: Host, sources: Sources) -> Iterator[Fault]:
    """Who listens on which port of a host, and where two want the same."""
    users: dict[int, list[tuple[str, Place]]] = {}

    def uses(port: Any, who: str, name: str, path: Sequence[str | int] = ()) -> None:
        if _number(port):
            users.setdefault(int(float(port)), []).append((who, host.place(sources, name, path)))

    if str(host.value("ansible_connection", "ssh")) in ("ssh", "smart", "paramiko", "paramiko_ssh"):
        uses(_SSH_PORT, "sshd", "ansible_port")
    uses(host.value("postgresql_port", _POSTGRESQL_PORT), "postgresql_port", "postgresql_port")
    extra = host.value("preflight_extra_ports", {})
    extra = extra if isinstance(extra, Mapping) else {}
    if "fleet" in host.groups:
        page = host.value("fleet_database_page_port", _PAGE_PORT)
        uses(page, "fleet_database_page_port", "fleet_database_page_port")
    systems = host.value("outpost_systems", {})
    if "region" in host.groups and isinstance(systems, Mapping):
        for name, system in systems.items():
            for key in ("dicom_port", "api_port"):
                if isinstance(system, Mapping) and key in system:
                    uses(system[key], f"{name}.{key}", "outpost_systems", (str(name), key))
    for unit, port in extra.items():
        if unit != "outpost-fleet.service" and not str(unit).startswith("outpost@"):
            uses(port, str(unit), "preflight_extra_ports", (str(unit),))
    for port, who in users.items():
        if len(who) > 1:
            place = next((place for _, place in reversed(who) if place.file), who[-1][1])
            said = ", ".join(dict.fromkeys(name for name, _ in who))
            yield fault("port-twice", place, "", Words("port {p}", "порт {p}").by(p=port), users=said)


def _number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value) is not None
    )


def judge_files(hosts: Collection[str], groups: Collection[str], sources: Sources) -> Iterator[Fault]:
    """Files of group_vars and host_vars whose group or host there is not."""
    kinds = {"group": Words("group", "группы"), "host": Words("host", "узла")}
    everything = {
        "group": {*groups, *OURS, "all", "ungrouped"},
        "host": {*hosts, "localhost", "127.0.0.1", "::1"},
    }
    for (kind, name), file in sources.named:
        if name in everything[kind]:
            continue
        close = nearest(name, everything[kind] - {"ungrouped", "127.0.0.1", "::1"}, 0.7)
        yield fault("vars-of-nobody", Place(file), value=repr(name), kind=kinds[kind], near=near(close))


def judge_limit(
    limit: Sequence[str], hosts: Collection[str], groups: Collection[str], chosen: Collection[str] | None
) -> Iterator[Fault]:
    """The patterns of -l. chosen: hosts of the limit that a play is for; None where that is not known."""
    unknown = False
    for word in limit:
        plain = word.strip().lstrip("!&")
        if not plain or plain.startswith(("~", "@")):
            continue
        plain = re.sub(r"\[[-0-9:]*\]$", "", plain)
        everything = {*hosts, *groups, "all", "*", "localhost", "127.0.0.1", "::1", "ungrouped"}
        if plain in everything or any(fnmatch.fnmatchcase(one, plain) for one in everything):
            continue
        unknown = True
        close = nearest(plain, everything - {"*", "127.0.0.1", "::1"}, 0.5)
        said = Words("Did you mean {n}? ", "Возможно, {n}? ").by(n=close) if close else same("")
        yield fault("limit", Place(who="-l"), "", repr(plain), near=said)
    if chosen is not None and not chosen and not unknown:
        yield fault("limit-nobody", Place(who="-l"), "", repr(", ".join(limit)))
