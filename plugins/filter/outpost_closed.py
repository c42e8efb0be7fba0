"""What closes the hosts: firewall rules and certificates. outpost/controller works, here are the names.

Keys of certificates pass through here: every task that uses them says no_log, and a rescue beside it says by
outpost_reason why it failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.controller import certificates, networks
from outpost.controller.reason import reason
from outpost.derived import derived


def _usable(root: str) -> str:
    """The root secret, if it is one: what it issues opens the fleet's links."""
    try:
        derived(root, "any")
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    return root


def outpost_network_faults(wanted: dict[str, Any], language: str = "en") -> list[str]:
    """What the inventory leaves open about who may reach a host (outpost.controller.networks.faults)."""
    return networks.faults(wanted, "ru" if language == "ru" else "en")


def outpost_centre(named: Any, hosts: Iterable[Mapping[str, Any]]) -> Any:
    """Whom a region's database is open to: outpost_centre_networks, or where that is not set what the centre is called.

    hosts: variables of the hosts of the group fleet.
    """
    return list(networks.called(hosts)) if named is None else named


def outpost_region_ports(systems: dict[str, dict[str, Any]], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Ports of a region and who may connect. wanted: `archives`, `hospital`, `admin`, `centre`, `database_port`."""
    return networks.region_ports(systems, **wanted)


def outpost_joined_ports(rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a port."""
    return networks.joined(rules)


def outpost_firewall(rules: Iterable[Mapping[str, Any]]) -> list[str]:
    """The rules as lines of nft.

    Raises:
        AnsibleFilterError: a source is no address and no network.
    """
    try:
        return networks.rule_lines(rules)
    except networks.NotANetwork as error:
        raise AnsibleFilterError(f"base_firewall_ports: {error}") from error


def outpost_certificate(root: str, host: str, addresses: Iterable[str], now: str = "") -> dict[str, str]:
    """`certificate` and `key` of a host, PEM, by the authority of the root secret.

    now: the moment of issue as ISO 8601, the controller's clock if empty.
    """
    moment = datetime.fromisoformat(now) if now else datetime.now(UTC)
    issued = certificates.server(_usable(root), host, addresses, moment)
    return {"certificate": issued.certificate, "key": issued.key}


def outpost_trusted(root: str, before: str = "") -> str:
    """The authorities that the fleet trusts, PEM: that of the root secret, and during a rotation the one before."""
    return certificates.trusted(_usable(root), before and _usable(before))


def outpost_differing(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names whose value in `found` is not the wanted one, or is not there."""
    return [name for name, value in wanted.items() if found.get(name) != value]


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_centre": outpost_centre,
            "outpost_certificate": outpost_certificate,
            "outpost_differing": outpost_differing,
            "outpost_firewall": outpost_firewall,
            "outpost_joined_ports": outpost_joined_ports,
            "outpost_network_faults": outpost_network_faults,
            "outpost_reason": reason,
            "outpost_region_ports": outpost_region_ports,
            "outpost_trusted": outpost_trusted,
        }
