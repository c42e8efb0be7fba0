"""Who may reach a host's ports, and the fleet's certificates: what comes out of an inventory."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from cryptography import x509
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from loaded import load
from starting import ROOT_SECRET

from outpost.controller import certificates, networks
from outpost.health.certificate import validities
from outpost.platform.line import LANGUAGES

ROOT = Path(__file__).parents[2]
SECRET = ROOT_SECRET
ANOTHER = SECRET[::-1]
NAMED: dict[str, Any] = {
    "region": True, "hospital": ["192.168.75.0/24"], "admin": ["10.0.0.0/24"], "centre": None,
    "centre_named": ["10.0.0.10"],
}  # fmt: skip


@pytest.fixture(scope="module")
def closed() -> ModuleType:
    return load(ROOT / "plugins/filter/outpost_closed.py")


def rules(*rows: dict[str, Any], new_per_second: int = 50) -> str:
    """The firewall's file as role base writes it."""
    folder = FileSystemLoader(ROOT / "roles/base/templates")
    environment = Environment(loader=folder, undefined=StrictUndefined, autoescape=False)  # noqa: S701 - nft
    environment.filters["outpost_firewall"] = networks.rule_lines
    template = environment.get_template("firewall.nft.j2")
    return template.render(
        ansible_managed="", base_firewall_ports=rows,
        base_firewall_new_per_second=new_per_second, base_firewall_new_burst=500,
    )  # fmt: skip


def lines(*rows: dict[str, Any]) -> list[str]:
    return [line.strip() for line in rules(*rows).splitlines() if "tcp dport " in line and "@" not in line]


# --- Who may connect.


def test_a_port_is_open_to_the_named_by_both_families_and_closed_to_all_else() -> None:
    assert lines({"port": 8080, "from": ["10.0.0.0/24", "fd00::/64", "192.168.75.5"]}) == [
        "ip saddr { 10.0.0.0/24, 192.168.75.5/32 } tcp dport 8080 jump named",
        "ip6 saddr { fd00::/64 } tcp dport 8080 jump named",
        "tcp dport 8080 drop",
    ]


def test_a_port_that_nobody_is_named_for_is_closed_to_all() -> None:
    assert lines({"port": 5432, "from": []}) == ["tcp dport 5432 drop"]


def test_networks_inside_each_other_are_joined_since_nft_refuses_sets_that_overlap() -> None:
    named = ["10.0.0.0/8", "10.0.0.5", "10.0.0.5", "10.9.0.0/16", "11.0.0.0/8"]
    assert lines({"port": 1, "from": named})[0] == "ip saddr { 10.0.0.0/7 } tcp dport 1 jump named"


def test_everybody_may_be_named_and_a_port_named_twice_is_open_to_both() -> None:
    assert lines({"port": 1, "from": ["0.0.0.0/0"]}, {"port": 1, "from": ["::/0"]}) == [
        "meta nfproto ipv4 tcp dport 1 jump named", "meta nfproto ipv6 tcp dport 1 jump named", "tcp dport 1 drop",
    ]  # fmt: skip


def test_loopback_and_what_is_connected_pass_before_any_port_is_closed() -> None:
    text = rules({"port": 1, "from": []})
    places = [
        text.index(word) for word in ('iif "lo" accept', "ct state established,related accept", "tcp dport 1")
    ]
    assert all(one < next_one for one, next_one in pairwise(places))


def test_who_is_let_in_is_counted_by_address_and_port_before() -> None:
    text = rules({"port": 1, "from": ["10.0.0.0/8"]}, new_per_second=20)
    for family, address in (("ipv4", "ip"), ("ipv6", "ip6")):
        rate = "limit rate over 20/second burst 500 packets"
        limit = f"update @new_{family} {{ {address} saddr . tcp dport {rate} }} drop"
        assert " ".join(limit.split()) in " ".join(text.split())
    assert text.index("@new_ipv6") < text.index("accept"), "who is let in is counted first"
    assert "limit" not in rules({"port": 1, "from": []}, new_per_second=0)


def test_the_centre_is_who_the_networks_name_or_else_how_the_inventory_calls_it(closed: ModuleType) -> None:
    hosts = [{"inventory_hostname": "centre", "ansible_host": "fd00::10"}, {"inventory_hostname": "second"}]
    assert closed.outpost_centre(None, hosts) == ["fd00::10", "second"], (
        "without an address by name, which is refused"
    )
    assert closed.outpost_centre([], hosts) == [], "nobody is an answer, too"
    assert closed.outpost_centre(["10.9.9.9"], hosts) == ["10.9.9.9"]


def test_the_database_lets_its_roles_in_by_both_families_and_nobody_unencrypted() -> None:
    tasks = yaml.safe_load((ROOT / "roles/postgresql/tasks/server.yml").read_text())
    [task] = [one for one in tasks if "ansible.builtin.blockinfile" in one]
    environment = Environment(autoescape=False, trim_blocks=True)  # noqa: S701 - no page
    block = environment.from_string(task["ansible.builtin.blockinfile"]["block"])
    said = block.render(
        postgresql_database="outpost", postgresql_roles=[{"name": "recorder"}],
        postgresql_access=[{"role": "reader", "from": "fd00::/64"}, {"role": "reader", "from": "all"}],
    )  # fmt: skip
    assert said.splitlines() == [
        "hostnossl all all all reject", "hostnossl replication all all reject",
        "hostssl outpost recorder 127.0.0.1/32 scram-sha-256", "hostssl outpost recorder ::1/128 scram-sha-256",
        "hostssl outpost reader all scram-sha-256", "hostssl outpost reader fd00::/64 scram-sha-256",
    ]  # fmt: skip


def test_the_port_of_the_database_is_one_variable() -> None:
    """5432 is written down as a default alone: whoever speaks to the database takes postgresql_port."""
    for path in [
        *(ROOT / "roles").rglob("*.yml"),
        *(ROOT / "roles").rglob("*.j2"),
        *(ROOT / "playbooks").glob("*.yml"),
    ]:
        for line in path.read_text().splitlines():
            if re.search(r"\b5432\b", line) and not line.lstrip().startswith("#"):
                assert re.search(r"postgresql_port|region_port|default: 5432", line), f"{path}: {line}"
        text = path.read_text()
        tasks = re.split(r"\n\s*- name: ", text)
        for task in tasks:
            if "community.postgresql." in task and "<<: *ask" not in task:
                assert "login_port" in task, f"{path}: {task[:60]}"


def test_the_ports_of_a_region_come_from_its_systems() -> None:
    systems = {
        "brain": {"dicom_port": 11112, "api_port": 8080},
        "chest": {"dicom_port": 11113, "api_port": 8081},
    }
    found = networks.joined(
        networks.region_ports(
            systems, ["192.168.75.5", "pacs.local"], ["192.168.75.0/24"], ["10.0.0.0/24"], ["10.0.0.10"], 5433
        )
    )
    devices = ["192.168.75.0/24", "192.168.75.5"]
    assert found == [
        {"port": 5433, "from": ["10.0.0.10"]},
        {"port": 8080, "from": [*devices, "10.0.0.0/24"]},
        {"port": 8081, "from": [*devices, "10.0.0.0/24"]},
        {"port": 11112, "from": devices},
        {"port": 11113, "from": devices},
    ]


def test_an_inventory_that_names_everybody_has_no_fault() -> None:
    assert networks.faults(NAMED) == []
    assert networks.faults(NAMED | {"hospital": [], "admin": []}) == [], "nobody is an answer, too"
    assert networks.faults({**NAMED, "region": False, "hospital": None}) == [], "the centre has no hospital"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hospital": None}, "outpost_hospital_networks is not set"),
        ({"admin": None}, "outpost_admin_networks is not set"),
        ({"region": False, "admin": None}, "outpost_admin_networks is not set"),
        ({"centre_named": ["centre.region.ru"]}, "Set outpost_centre_networks"),
        ({"centre_named": ["10.0.0.10", "centre"]}, "The centre is called centre"),
        ({"centre_named": ["10.0.0.10/24"]}, "The centre is called 10.0.0.10/24"),
        ({"centre_named": ["[fd00::10]"]}, "The centre is called [fd00::10]"),
        ({"centre_named": []}, "the inventory has no centre"),
        ({"centre_named": None}, "the inventory has no centre"),
        ({"hospital": ["10.0.0.7/24"]}, "write 10.0.0.0/24 or 10.0.0.7"),
        ({"admin": ["duty.local"]}, "no name"),
        ({"admin": "10.0.0.0/24"}, "a list is wanted"),
        ({"centre": ["10.0.0.256"]}, "outpost_centre_networks: 10.0.0.256"),
        ({"hospital": ["fe80::1%eth0/64"]}, "no address and no network"),
        ({"hospital": ["10.0.0.1 } accept; tcp dport { 1"]}, "no address and no network"),
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_is_said_with_what_to_write(given: dict[str, Any], said: str) -> None:
    for language in LANGUAGES:
        (fault,) = networks.faults(NAMED | given, language)
        assert ("Nothing was changed" if language == "en" else "Ничего не изменено") in fault
    assert said in networks.faults(NAMED | given)[0]


def test_a_name_among_the_sources_stops_the_run_and_not_the_next_boot(closed: ModuleType) -> None:
    with pytest.raises(AnsibleFilterError, match=r"pacs\.local"):
        closed.outpost_firewall([{"port": 1, "from": ["pacs.local"]}])


@pytest.mark.parametrize("site", ["lab", "example"])
def test_the_inventories_name_the_networks(site: str) -> None:
    text = "".join(path.read_text() for path in (ROOT / "inventories" / site).rglob("*.yml"))
    assert "outpost_admin_networks: [" in text
    assert "outpost_hospital_networks: [" in text


# --- The fleet's authority.


def test_the_same_secret_issues_the_same_bytes_and_another_secret_others() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    one = certificates.server(SECRET, "chita", ["10.0.0.1"], now)
    assert one == certificates.server(SECRET, "chita", ["10.0.0.1"], now)
    others = [
        certificates.server(SECRET, "tver", ["10.0.0.1"], now),
        certificates.server(ANOTHER, "chita", ["10.0.0.1"], now),
    ]  # fmt: skip
    assert len({one.key, *(other.key for other in others)}) == 3, "no key is another host's"
    assert certificates.authority(SECRET).key not in {one.key}


def test_a_host_is_proven_under_each_of_its_names_and_under_no_other() -> None:
    issued = certificates.server(
        SECRET, "chita", ["10.0.0.1", "fd00::1", "chita", "127.0.0.1"], datetime.now(UTC)
    )
    found = x509.load_pem_x509_certificate(issued.certificate.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == [
        "10.0.0.1",
        "fd00::1",
        "127.0.0.1",
    ]
    assert names.get_values_for_type(x509.DNSName) == ["chita"]
    authority = x509.load_pem_x509_certificate(certificates.authority(SECRET).certificate.encode())
    found.verify_directly_issued_by(authority)
    stranger = x509.load_pem_x509_certificate(certificates.authority(ANOTHER).certificate.encode())
    with pytest.raises(ValueError, match="Issuer"):
        found.verify_directly_issued_by(stranger)


def test_a_certificate_is_the_same_for_five_years_and_renewed_ten_years_before_its_end() -> None:
    def issued(year: int) -> str:
        return certificates.server(
            SECRET, "chita", ["10.0.0.1"], datetime(year, 12, 31, tzinfo=UTC)
        ).certificate

    assert len({issued(year) for year in range(2025, 2030)}) == 1
    assert issued(2029) != issued(2030)
    for year in (2025, 2029, 2030, 2034):
        (validity,) = validities(issued(year).encode())
        assert validity.until.year - year >= 11
        assert validity.since.year == 1970, "a host whose battery is empty still has a valid one"


def test_the_authority_outlives_them_all_and_its_service_reads_its_dates() -> None:
    (validity,) = validities(certificates.authority(SECRET).certificate.encode())
    assert validity.until.year == 9999


def test_during_a_rotation_both_authorities_are_trusted(closed: ModuleType) -> None:
    both = closed.outpost_trusted(SECRET, ANOTHER)
    assert both.count("BEGIN CERTIFICATE") == 2
    assert closed.outpost_trusted(SECRET, "").count("BEGIN CERTIFICATE") == 1
    context = ssl.create_default_context(cadata=both)
    assert context.cert_store_stats()["x509_ca"] == 2


def test_a_worthless_secret_issues_nothing(closed: ModuleType) -> None:
    for worthless in ("short", "example-only-" + "0" * 64):
        with pytest.raises(AnsibleFilterError, match="outpost_root_secret"):
            closed.outpost_certificate(worthless, "chita", ["10.0.0.1"])
        with pytest.raises(AnsibleFilterError, match="outpost_root_secret"):
            closed.outpost_trusted(SECRET, worthless)


# --- What an interrupted run leaves.


def test_a_service_that_was_not_started_on_what_is_written_is_named(closed: ModuleType) -> None:
    wanted = {"brain": "a", "chest": "b", "spine": "c"}
    assert closed.outpost_differing(wanted, {"brain": "a", "chest": "old", "spine": ""}) == ["chest", "spine"]
