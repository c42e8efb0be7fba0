"""Cutting, slowing and healing a region's VPN link.

A cut drops frames on the machine's side of the link, in the bridge: the region's own firewall cannot undo it,
and senders on both ends see silence, as with a dead VPN, not an error. ARP passes, so that nobody learns "no
route to host" from a neighbour table; a real VPN tunnel has no neighbours either. The hospital network is not
touched.

nft and tc run in a short-lived container of the base image with CAP_NET_ADMIN in the machine's network: the
machine needs neither program nor a root shell. State is read back from the kernel each time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outpost_lab.commands import docker
from outpost_lab.errors import LabError
from outpost_lab.settings import Host, Settings

_RATE = re.compile(r"([1-9]\d*)([kmg])bit")
_SCALE = {"k": 10**3, "m": 10**6, "g": 10**9}


@dataclass(frozen=True)
class Link:
    """State of a region's VPN link; `rate` is bit/s each way when slowed."""

    cut: bool
    rate: int | None

    def __str__(self) -> str:
        if self.cut:
            return "cut"
        return "up" if self.rate is None else f"slow {format_rate(self.rate)}"


def parse_rate(text: str) -> int:
    """'512kbit' -> 512000 bit/s; tc's own units, without its many synonyms."""
    match = _RATE.fullmatch(text.lower())
    if not match:
        raise LabError(f"Rate {text!r}: use a number and kbit, mbit or gbit, such as 512kbit or 10mbit.")
    return int(match[1]) * _SCALE[match[2]]


def format_rate(rate: int) -> str:
    """The inverse of parse_rate for what it accepts; other rates come out as bit."""
    for unit in ("g", "m", "k"):
        if rate % _SCALE[unit] == 0:
            return f"{rate // _SCALE[unit]}{unit}bit"
    return f"{rate}bit"


def tbf_parameters(rate: int) -> list[str]:
    """tc-tbf(8) for `rate` bit/s: a bucket of 10 ms, at least two full frames, and 400 ms of queue."""
    burst = max(rate // 8 // 100, 2 * 1600)
    return ["tbf", "rate", f"{rate}bit", "burst", f"{burst}b", "latency", "400ms"]


def cut_ruleset(table: str, interfaces: set[str]) -> str:
    """nft script after which exactly `interfaces` (machine-side ends) are cut; with none, no table."""
    replace = f"table bridge {table} {{}}\ndelete table bridge {table}\n"
    if not interfaces:
        return replace
    names = ", ".join(f'"{name}"' for name in sorted(interfaces))
    return f"""{replace}table bridge {table} {{
    chain from_region {{
        type filter hook prerouting priority -300; policy accept;
        iifname {{ {names} }} ether type != arp counter drop
    }}
    chain to_region {{
        type filter hook postrouting priority 300; policy accept;
        oifname {{ {names} }} ether type != arp counter drop
    }}
}}
"""


def interfaces_in(ruleset: dict[str, Any]) -> set[str]:
    """Machine-side ends that a listed cut table (`nft -j list table`) names."""
    names: set[str] = set()
    for entry in ruleset.get("nftables", []):
        for expression in entry.get("rule", {}).get("expr", []):
            match = expression.get("match", {})
            if match.get("left", {}).get("meta", {}).get("key") in ("iifname", "oifname"):
                right = match["right"]
                names.update(right["set"] if isinstance(right, dict) else [right])
    return names


class Links:
    """The VPN links of one lab. `helper_image` has nft, tc and ip."""

    def __init__(self, settings: Settings, helper_image: str) -> None:
        self._settings = settings
        self._image = helper_image
        self._table = "outpost_lab_" + settings.name.replace("-", "_")

    def _helper(self, network: str, script: str, stdin: str | None = None) -> str:
        label = f"outpost.lab={self._settings.name}"
        capabilities = ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]
        arguments = ["run", "--rm", "-i", "--label", label, "--network", network, *capabilities, self._image]
        return docker(*arguments, "sh", "-ec", script, stdin=stdin, timeout=60).stdout

    def _ends(self, host: Host) -> tuple[str, str]:
        """(interface in the host, its other end on the machine)."""
        network = f"{self._settings.vpn_prefix}.0.0/24"
        listed = docker(
            "exec", self._settings.container(host), "ip", "-j", "-4", "addr", "show", "to", network
        ).stdout
        found = [item for item in json.loads(listed) if item]
        if not found:
            raise LabError(
                f"{host.name} has no interface in {network}. `lab/lab down` and `up` make it anew."
            )
        for path in Path("/sys/class/net").iterdir():
            if int((path / "ifindex").read_text()) == found[0]["link_index"]:
                return found[0]["ifname"], path.name
        raise LabError(
            f"The other end of {host.name}'s link is not on this machine; use cut and slow where Docker runs."
        )

    def _cut_interfaces(self) -> set[str]:
        listed = self._helper("host", f"nft -j list table bridge {self._table} 2>/dev/null || echo '{{}}'")
        return interfaces_in(json.loads(listed))

    def cut(self, host: Host) -> None:
        interfaces = self._cut_interfaces() | {self._ends(host)[1]}
        self._helper("host", "nft -f -", stdin=cut_ruleset(self._table, interfaces))

    def slow(self, host: Host, rate: int) -> None:
        """Shape both directions to `rate` bit/s."""
        inner, outer = self._ends(host)
        shape = " ".join(tbf_parameters(rate))
        self._helper("host", f"tc qdisc replace dev {outer} root {shape}")
        self._helper(
            f"container:{self._settings.container(host)}", f"tc qdisc replace dev {inner} root {shape}"
        )

    def heal(self, host: Host) -> None:
        """Remove cut and slow."""
        inner, outer = self._ends(host)
        remaining = self._cut_interfaces() - {outer}
        script = (
            f"nft -f -; if tc qdisc show dev {outer} | grep -q tbf; then tc qdisc del dev {outer} root; fi"
        )
        self._helper("host", script, stdin=cut_ruleset(self._table, remaining))
        unshape = f"if tc qdisc show dev {inner} | grep -q tbf; then tc qdisc del dev {inner} root; fi"
        self._helper(f"container:{self._settings.container(host)}", unshape)

    def read(self, hosts: list[Host]) -> dict[str, Link]:
        """The links of running `hosts` by name, as the kernel has them now."""
        if not hosts:
            return {}
        cut = self._cut_interfaces()
        shaped = {
            item["dev"]: int(item["options"]["rate"]) * 8
            for item in json.loads(self._helper("host", "tc -j qdisc show"))
            if item.get("kind") == "tbf" and "dev" in item
        }
        links = {}
        for host in hosts:
            outer = self._ends(host)[1]
            links[host.name] = Link(cut=outer in cut, rate=shaped.get(outer))
        return links

    def forget(self) -> None:
        """Remove the lab's cut table from the machine."""
        self._helper("host", "nft -f -", stdin=cut_ruleset(self._table, set()))
