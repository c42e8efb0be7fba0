"""Who may reach the ports of a host: everybody named in the inventory, nobody else, by IPv4 and IPv6 alike.

The rules go into one nftables table of ours (roles/base), which the kernel loads at boot, before there is a network: so
only addresses are taken, never names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any

from outpost.platform.line import Language, Words

Network = IPv4Network | IPv6Network

_MISSING = {
    "outpost_hospital_networks": Words(
        "outpost_hospital_networks is not set. Name the networks whose devices and archives may send to this host and"
        " read its API, such as [192.168.75.0/24], in the region's file or in group_vars/region.yml; [] lets in"
        " the archive of region_pacs alone. Who sends now: ss -tn state established on the host. Nothing was changed.",
        "outpost_hospital_networks не задана. Назовите сети, из которых аппараты и архивы отправляют на этот узел и"
        " читают его API, например [192.168.75.0/24], в файле региона или в group_vars/region.yml; [] пропускает"
        " только архив из region_pacs. Кто отправляет сейчас: ss -tn state established на узле. Ничего не изменено.",
    ),
    "outpost_admin_networks": Words(
        "outpost_admin_networks is not set. Name the networks from which duty engineers open the pages of the regions"
        " and of the centre, such as [10.0.0.0/24], in group_vars/all; [] leaves the pages to the hosts themselves"
        " (ssh -L) and, in a region, to the hospital's networks. Nothing was changed.",
        "outpost_admin_networks не задана. Назовите сети, из которых дежурные инженеры открывают страницы регионов и"
        " центра, например [10.0.0.0/24], в group_vars/all; [] оставляет страницы самим узлам (ssh -L), а в регионе ещё"
        " сетям больницы. Ничего не изменено.",
    ),
}
_UNUSABLE = Words(
    "{variable}: {value}: {why}. Nothing was changed.", "{variable}: {value}: {why}. Ничего не изменено."
)
_NO_CENTRE = Words(
    "The centre is called {value}, and the firewall takes no names. Set outpost_centre_networks to the addresses that"
    " the region sees it under, such as [10.0.0.10]. Nothing was changed.",
    "Центр назван {value}, а межсетевой экран имён не принимает. Задайте outpost_centre_networks: адреса, под которыми"
    " регион видит центр, например [10.0.0.10]. Ничего не изменено.",
)


_NOWHERE = Words(
    "outpost_centre_networks is not set, and the inventory has no centre (group fleet is empty): the region's"
    " database would be closed to it, and the fleet view would see this region no more. Put the centre back, or set"
    " outpost_centre_networks to the addresses that the region sees it under, such as [10.0.0.10]; [] where there is"
    " none. Nothing was changed.",
    "outpost_centre_networks не задана, и центра в инвентаре нет (группа fleet пуста): база региона"
    " закрылась бы для него, и общая картина потеряла бы этот регион. Верните центр или задайте"
    " outpost_centre_networks: адреса, под которыми регион видит центр, например [10.0.0.10];"
    " [], если центра нет. Ничего не изменено.",
)


class NotANetwork(ValueError):
    """What stands where an address or a network should; the text says what to write."""


def network(text: object) -> Network:
    """The network that a word of the inventory names. Raises `NotANetwork`."""
    said = str(text).strip()
    if "%" in said:  # fe80::1%eth0: Python takes it, a firewall does not
        raise NotANetwork(f"{said!r} is no address and no network; leave out the interface")
    try:
        return ip_network(said)
    except ValueError:
        pass
    try:
        wide = ip_network(said, strict=False)
    except ValueError:
        raise NotANetwork(
            f"{said!r} is no address and no network; write 10.0.0.7, 10.0.0.0/24 or fd00::/64, no name"
        ) from None
    alone = said.partition("/")[0]
    raise NotANetwork(f"{said!r} names a host and a network at once; write {wide} or {alone}")


def called(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """How the inventory calls hosts, as whoever connects does: by ansible_host, or by name where they have none."""
    return [str(host.get("ansible_host") or host.get("inventory_hostname") or "?") for host in hosts]


def is_address(text: object) -> bool:
    """Whether this is one address and not a name."""
    try:
        ip_address(str(text))
    except ValueError:
        return False
    return True


def sources(words: Iterable[object]) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """The networks by family, sorted, those inside others left out: nft refuses sets that overlap.

    Raises `NotANetwork`.
    """
    networks = [network(word) for word in words]
    return (
        list(collapse_addresses(one for one in networks if isinstance(one, IPv4Network))),
        list(collapse_addresses(one for one in networks if isinstance(one, IPv6Network))),
    )


def faults(wanted: Mapping[str, Any], language: Language = "en") -> list[str]:
    """What the inventory leaves open or has wrong, a sentence each.

    wanted: `region` (whether the host is one), and `hospital`, `admin`, `centre`: lists of words, None where not set;
    `centre_named`: how the inventory calls the centre's hosts.
    """
    found = []
    variables = {"outpost_admin_networks": wanted.get("admin")}
    if wanted["region"]:
        variables = {"outpost_hospital_networks": wanted.get("hospital"), **variables}
    for variable, words in variables.items():
        if words is None:
            found.append(_MISSING[variable].said(language))
    if wanted["region"] and wanted.get("centre") is None:
        known = list(wanted.get("centre_named") or [])
        names = [str(name) for name in known if not is_address(name)]
        if not known:
            found.append(_NOWHERE.said(language))
        found += [_NO_CENTRE.by(value=name).said(language) for name in names]
    variables["outpost_centre_networks"] = wanted.get("centre")
    for variable, words in variables.items():
        if words is None:
            continue
        if isinstance(words, str) or not isinstance(words, Sequence):
            why = Words(
                "a list is wanted, such as [10.0.0.0/24]", "нужен список, например [10.0.0.0/24]"
            ).said(language)
            found.append(_UNUSABLE.by(variable=variable, value=repr(words), why=why).said(language))
            continue
        for word in words:
            try:
                network(word)
            except NotANetwork as error:
                found.append(_UNUSABLE.by(variable=variable, value=str(word), why=str(error)).said(language))
    return found


def region_ports(
    systems: Mapping[str, Mapping[str, Any]],
    archives: Iterable[object],
    hospital: Iterable[object],
    admin: Iterable[object],
    centre: Iterable[object],
    database_port: int,
) -> list[dict[str, Any]]:
    """Ports of a region with who may connect: `{port, from}` each, for role base.

    archives: hosts of the archives that results go to. Each may always send and report a commitment; one that is known
    by name must be in the hospital's networks.
    """
    devices = [*hospital, *(str(host) for host in archives if is_address(host))]
    rules = [{"port": int(database_port), "from": [str(one) for one in centre]}]
    for system in systems.values():
        rules.append({"port": int(system["dicom_port"]), "from": devices})
        rules.append({"port": int(system["api_port"]), "from": [*devices, *admin]})
    return rules


def joined(rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One rule a port: who is named twice for a port is let in by either."""
    ports: dict[int, list[str]] = {}
    for rule in rules:
        ports.setdefault(int(rule["port"]), []).extend(str(word) for word in rule["from"])
    return [{"port": port, "from": list(dict.fromkeys(words))} for port, words in sorted(ports.items())]


def rule_lines(rules: Iterable[Mapping[str, Any]]) -> list[str]:
    """The rules in nft's language: who may (chain `named` of the table), then nobody. Raises `NotANetwork`."""
    lines = []
    for rule in joined(rules):
        port = rule["port"]
        v4, v6 = sources(rule["from"])
        families: tuple[tuple[str, str, Sequence[Network]], ...] = (("ipv4", "ip", v4), ("ipv6", "ip6", v6))
        for family, protocol, networks in families:
            if any(one.prefixlen == 0 for one in networks):
                lines.append(f"meta nfproto {family} tcp dport {port} jump named")
            elif networks:
                lines.append(
                    f"{protocol} saddr {{ {', '.join(map(str, networks))} }} tcp dport {port} jump named"
                )
        lines.append(f"tcp dport {port} drop")
    return lines
