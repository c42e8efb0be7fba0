"""Names, addresses, links and hashes of the lab, as far as they can be known without Docker."""

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

from outpost_lab import ssh
from outpost_lab.errors import LabError
from outpost_lab.hosts import container_arguments, refuse_taken_ports
from outpost_lab.images import content_hash
from outpost_lab.links import (
    cut_ruleset,
    format_rate,
    interfaces_in,
    parse_rate,
    tbf_parameters,
)
from outpost_lab.settings import HOSTS, choose_hosts, network_prefixes, read_settings

BY_NAME = {host.name: host for host in HOSTS}


def test_addresses_are_those_of_the_plan() -> None:
    settings = read_settings({})
    addresses = {h.name: (settings.vpn_address(h), settings.hospital_address(h)) for h in HOSTS}
    assert addresses == {
        "centre": ("10.77.0.10", None),
        "chita": ("10.77.0.11", "10.78.0.11"),
        "tver": ("10.77.0.12", "10.78.0.12"),
        "train": ("10.77.0.13", "10.78.0.13"),
        "mirror": ("10.77.0.2", None),
        "hospital": (None, "10.78.0.5"),
    }


def test_two_labs_share_no_name_and_no_address() -> None:
    one, two = read_settings({}), read_settings({"LAB_NAME": "mol-redos", "LAB_SUBNET": "10.87"})
    for host in HOSTS:
        assert one.container(host) != two.container(host)
        assert one.docker_volume(host) != two.docker_volume(host)
        assert (one.vpn_address(host) or "") != two.vpn_address(host)
    assert {one.vpn_network, one.hospital_network}.isdisjoint({two.vpn_network, two.hospital_network})
    assert one.state != two.state
    assert one.cache == two.cache


@pytest.mark.parametrize("subnet", ["10", "10.255", "10.77.0", "256.1", "0.1", "ten.two", "10.-1"])
def test_a_subnet_without_room_for_two_networks_is_refused_by_value(subnet: str) -> None:
    with pytest.raises(LabError, match="LAB_SUBNET") as refused:
        network_prefixes(subnet)
    assert subnet in str(refused.value)


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "a_b", "x" * 32, "a b", "../x"])
def test_a_name_that_docker_ssh_or_nft_would_stumble_over_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="LAB_NAME"):
        read_settings({"LAB_NAME": name})


def test_stand_ins_are_made_of_a_debian_release_that_is_known() -> None:
    assert read_settings({}).suite == "bookworm"
    assert read_settings({"LAB_SUITE": "trixie"}).suite == "trixie"
    with pytest.raises(LabError, match="LAB_SUITE"):
        read_settings({"LAB_SUITE": "sid"})


def test_a_vendor_image_is_never_called_a_stand_in() -> None:
    settings = read_settings({"LAB_IMAGE_REDOS": "registry.example/ubi8/ubi", "LAB_IMAGE_ASTRA": ""})
    assert settings.image_kind("redos") == "vendor image"
    assert settings.image_kind("astra") == "stand-in"
    assert settings.image_kind("mirror") == "appliance"


def test_a_host_can_be_given_another_os_but_an_appliance_cannot() -> None:
    assert [(host.name, host.os) for host in choose_hosts(["centre=redos", "mirror"])] == [
        ("centre", "redos"),
        ("mirror", "mirror"),
    ]
    assert choose_hosts([]) == list(HOSTS)
    for wrong in ("mirror=ubuntu", "chita=windows", "omsk"):
        with pytest.raises(LabError, match=wrong.split("=")[0]):
            choose_hosts([wrong])


def test_hosts_may_not_touch_the_machines_clock_modules_or_limits() -> None:
    arguments, _ = container_arguments(read_settings({}), BY_NAME["chita"])
    assert "--cap-add=SYS_ADMIN" in arguments
    refused = ("ALL", "SYS_TIME", "SYS_MODULE", "SYS_RAWIO", "SYS_RESOURCE")
    assert not {"--privileged", *(f"--cap-add={capability}" for capability in refused)} & set(arguments)


def test_pages_are_published_on_the_loopback_only_and_not_at_all_when_switched_off() -> None:
    for host in HOSTS:
        on, _ = container_arguments(read_settings({}), host)
        off, _ = container_arguments(read_settings({"LAB_PUBLISH": "no"}), host)
        published = [word for word in on if word.startswith("--publish")]
        assert all(word.startswith("--publish=127.0.0.1:") for word in published)
        assert len(published) == (host.page is not None)
        assert not [word for word in off if word.startswith("--publish")]


def test_a_taken_port_is_refused_with_its_number_and_a_free_one_is_not() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        chita = replace(BY_NAME["chita"], page=(8080, port))
        with pytest.raises(LabError, match=f"127.0.0.1:{port}.*chita"):
            refuse_taken_ports(read_settings({}), [chita])
        refuse_taken_ports(read_settings({"LAB_PUBLISH": "no"}), [chita])
    refuse_taken_ports(read_settings({}), [chita])


def test_every_region_gets_both_networks_and_the_centre_only_the_vpn() -> None:
    settings = read_settings({})
    for name in ("chita", "tver", "train"):
        arguments, connect = container_arguments(settings, BY_NAME[name])
        assert f"--network={settings.vpn_network}" in arguments
        assert [settings.hospital_network in command for command in connect] == [True]
    assert container_arguments(settings, BY_NAME["centre"])[1] == []


@pytest.mark.parametrize(("text", "rate"), [("512kbit", 512_000), ("10mbit", 10**7), ("1Gbit", 10**9)])
def test_rates_are_read_and_written_alike(text: str, rate: int) -> None:
    assert parse_rate(text) == rate
    assert format_rate(rate) == text.lower()


@pytest.mark.parametrize("text", ["", "fast", "10", "10mb", "0mbit", "-1mbit", "1.5mbit", "10 mbit"])
def test_a_rate_tc_would_read_differently_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="kbit, mbit or gbit"):
        parse_rate(text)


def test_the_bucket_of_a_slow_link_still_holds_two_frames() -> None:
    assert tbf_parameters(64_000)[4] == "3200b"
    assert tbf_parameters(10**8)[4] == "125000b"


def test_a_healed_lab_leaves_no_table_and_a_cut_one_names_each_link_in_both_directions() -> None:
    assert "chain" not in cut_ruleset("t", set())
    ruleset = cut_ruleset("t", {"veth1", "veth2"})
    assert 'iifname { "veth1", "veth2" } ether type != arp counter drop' in ruleset
    assert 'oifname { "veth1", "veth2" } ether type != arp counter drop' in ruleset


def test_cut_links_are_read_back_from_nft_json_one_or_many() -> None:
    def table(right: object) -> dict[str, object]:
        match = {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": right}
        listed = {
            "nftables": [
                {"metainfo": {}},
                {"chain": {}},
                {"rule": {"expr": [{"match": match}, {"drop": None}]}},
            ]
        }
        return json.loads(json.dumps(listed))

    assert interfaces_in(table("veth1")) == {"veth1"}
    assert interfaces_in(table({"set": ["veth1", "veth2"]})) == {"veth1", "veth2"}
    assert interfaces_in({}) == set()


def test_ssh_checks_host_keys_strictly_and_asks_no_one() -> None:
    text = ssh.ssh_config(read_settings({}))
    assert text.count("Host ") == text.count("StrictHostKeyChecking yes") == 4
    assert "10.77.0.13" in text
    assert "hospital" not in text


def test_remembering_one_host_keeps_the_others(tmp_path: Path) -> None:
    settings = read_settings({"LAB_DIR": str(tmp_path)})
    settings.state.mkdir(parents=True)
    ssh.remember(settings, {"chita": "ssh-ed25519 AAAA1 root@chita", "tver": "ssh-ed25519 BBBB1 root@tver"})
    ssh.remember(settings, {"chita": "ssh-ed25519 AAAA2 root@chita"})
    assert ssh.known_hosts_file(settings).read_text().splitlines() == [
        "chita,10.77.0.11 ssh-ed25519 AAAA2",
        "tver,10.77.0.12 ssh-ed25519 BBBB1",
    ]


def test_the_image_hash_sees_content_names_modes_and_inputs_but_not_times(tmp_path: Path) -> None:
    directory = tmp_path / "image"
    directory.mkdir()
    script = directory / "prepare"
    script.write_text("true\n")
    script.chmod(0o644)
    seen = {content_hash([directory], ["a", "b"])}
    same = content_hash([directory], ["a", "b"])
    assert {same} == seen
    for change in (
        lambda: script.write_text("false\n"),
        lambda: script.chmod(0o755),
        lambda: script.rename(directory / "other"),
        lambda: (directory / "link").symlink_to("other"),
    ):
        change()
        digest = content_hash([directory], ["a", "b"])
        assert digest not in seen
        seen.add(digest)
    assert content_hash([directory], ["ab"]) not in seen
    assert content_hash([directory], ["a", "b", ""]) not in seen
