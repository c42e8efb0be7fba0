"""The hospital's own things stay: Docker and its settings, ports, clusters, accounts, time servers, networks."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loaded import load

from outpost.controller import automatic, docker_settings, strangers, timekeeping
from outpost.controller.docker_settings import Wanted
from outpost.platform.line import Line

ROOT = Path(__file__).parents[2]
SYSTEMS = {"brain": {"dicom_port": 11112, "api_port": 8080}, "chest": {"dicom_port": 11113, "api_port": 8081}}
DOCKER: dict[str, Any] = {
    "engine": "/usr/sbin/dockerd", "package": ["docker.io", "24.0.7"], "client": "/usr/bin/docker",
    "client_package": ["docker.io", "24.0.7"], "podman": False, "snap": False,
    "containerd_package": ["containerd", "1.7"], "newer": False,
    "answers": "24.0.7", "error": "", "unit": "loaded", "active": "active", "settings": None, "record": "",
    "intended": "",
    "flags": ["H", "containerd"], "swarm": "inactive", "containers": ["outpost-brain"],
    "info": {"LoggingDriver": "json-file", "LiveRestoreEnabled": True, "DockerRootDir": "/var/lib/docker"},
    "bridge": [{"subnet": "172.17.0.0/16", "gateway": "172.17.0.1"}],
    "networks": [{"name": "bridge", "subnet": "172.17.0.0/16"}],
}  # fmt: skip
READ: dict[str, Any] = {
    "listeners": [],
    "docker": DOCKER,
    "accounts": {
        "uid": 10001, "user_of_uid": "outpost", "group_of_gid": "outpost", "uid_of_name": 10001, "gid_of_name": 10001,
    },
    "places": {
        "entries": {
            "/etc/outpost": ["tls", "brain.yaml"], "/opt/outpost": ["current", "releases"],
            "/var/lib/outpost": ["brain"],
        },
        "journals": ["brain"], "files": {"/etc/systemd/system/outpost@.service": True},
    },
    "routes": [{"network": "192.168.75.0/24", "device": "eth0"}, {"network": "172.17.0.0/16", "device": "docker0"}],
    "time": {
        "active": ["chrony.service"], "synchronised": True, "vmware": False, "timesyncd": "",
        "chrony": {"config": "", "text": "", "beside": {}},
    },
}  # fmt: skip
BARE: dict[str, Any] = {
    "docker": {
        **DOCKER, "engine": "", "package": ["", ""], "client": "", "client_package": ["", ""], "answers": "",
        "active": "",
        "unit": "not-found", "info": {}, "bridge": [], "networks": [], "containers": [], "containerd_package": ["", ""],
    },
    "accounts": {"uid": 10001, "user_of_uid": "", "group_of_gid": "", "uid_of_name": None, "gid_of_name": None},
    "places": {
        "entries": {"/etc/outpost": [], "/opt/outpost": [], "/var/lib/outpost": []}, "journals": [], "files": {},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def hospital() -> ModuleType:
    return load(ROOT / "plugins/filter/outpost_hospital.py")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load(ROOT / "plugins/modules/outpost_strangers.py")


def changed(**changes: Any) -> dict[str, Any]:
    """The host above with a few values changed; a dict is changed within."""
    read = copy.deepcopy(READ)
    for key, value in changes.items():
        read[key] = {**read[key], **value} if isinstance(value, dict) else value
    return read


def failing(read: dict[str, Any], **asked: Any) -> list[Line]:
    wanted = strangers.Asked(**{"systems": SYSTEMS, "database_port": 5432, **asked})
    return [line for line in strangers.lines(read, wanted) if not line.ok]


def test_a_host_of_ours_and_a_bare_one_have_nothing_in_the_way() -> None:
    assert failing(READ) == []
    assert failing(changed(**BARE)) == []


# --- Ports: whose listener is it?


def listener(port: int, **more: Any) -> dict[str, Any]:
    return {
        "port": port, "address": "0.0.0.0", "pid": 77, "process": "python3", "unit": "", "container": "", "data": "",
        "cluster": "", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    "ours",
    [
        listener(11112, unit="docker-0.scope", container="outpost-brain"),
        listener(8080, address="::", container="outpost-brain"),
        listener(11112, container="outpost-chest"),  # two systems change their ports with each other
        listener(8090, container="outpost-fleet"),
        listener(5432, process="postgres", cluster="ours", unit="postgresql@15-main.service"),
        listener(5432, process="postgres", cluster="empty"),
    ],
)
def test_what_listens_there_of_ours_is_let_be(ours: dict[str, Any]) -> None:
    assert failing(changed(listeners=[ours]), extra_ports={"outpost-fleet.service": 8090}) == []


@pytest.mark.parametrize(
    ("stranger", "named", "variable"),
    [
        # While our own unit runs, too: whose the listener is counts, not which units are active.
        (listener(11112, process="storescp", unit="dcmtk.service"), "dcmtk.service", "brain.dicom_port"),
        (listener(8081, address="::", process="nginx", unit="nginx.service"), "nginx.service", "chest.api_port"),
        (listener(8080, address="192.168.75.4", process="java"), "192.168.75.4:8080", "brain.api_port"),
        (listener(8090, process="node", container="grafana"), "grafana", "fleet_database_page_port"),
        # A name that only begins like ours, and one that is published through Docker's proxy.
        (listener(11112, container="outpost-brain-old"), "outpost-brain-old", "brain.dicom_port"),
        (listener(11112, process="docker-proxy", container="outpost-brain"), "outpost-brain", "brain.dicom_port"),
        (listener(11112, pid=0, process="", container="orthanc"), "orthanc", "brain.dicom_port"),
        (listener(5432, process="postgres", cluster="another", data="/var/lib/postgresql/15/his",
                  unit="postgresql@15-his.service"), "/var/lib/postgresql/15/his", "postgresql_port"),
        (listener(5432, process="postgres", container="his-db"), "his-db", "postgresql_port"),
        (listener(5432, process="pgbouncer", address="127.0.0.1"), "pgbouncer", "postgresql_port"),
    ],
)  # fmt: skip
def test_a_stranger_on_one_of_our_ports_is_named_with_the_variable_that_moves_ours(
    stranger: dict[str, Any], named: str, variable: str
) -> None:
    ours = listener(11113, container="outpost-chest")
    found = failing(changed(listeners=[stranger, ours]), extra_ports={"outpost-fleet.service": 8090})
    assert [(line.code, line.level) for line in found] == [("port-free", "critical")]
    assert named in found[0].value.en
    assert variable in found[0].remedy.en
    assert variable in found[0].remedy.ru


def test_a_removed_system_that_runs_on_is_not_taken_for_a_stranger_to_live_with() -> None:
    [found] = failing(changed(listeners=[listener(11112, container="outpost-liver")]))
    assert "playbooks/remove.yml -e outpost_system=liver" in found.remedy.en
    assert "playbooks/remove.yml -e outpost_system=liver" in found.remedy.ru


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET, "127.84.0.9"), (socket.AF_INET6, "::"), (socket.AF_INET6, "::1")],
)  # fmt: skip
def test_real_listeners_of_both_families_are_read_with_their_process(
    module: ModuleType, family: socket.AddressFamily, address: str
) -> None:
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        [row] = module.listeners([port])
    assert (row["port"], row["address"], row["pid"]) == (port, address, os.getpid())
    assert row["process"] == Path("/proc/self/comm").read_text().strip()
    assert module.listeners([port]) == []


def test_a_servers_child_that_has_its_socket_too_is_not_taken_for_it(
    module: ModuleType, tmp_path: Path
) -> None:
    script = "import os, socket, time; s = socket.create_server(('127.0.0.1', 0)); "
    script += "print(s.getsockname()[1], flush=True); os.fork(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        try:
            deadline = time.monotonic() + 5
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
            while not children.read_text().split() and time.monotonic() < deadline:
                time.sleep(0.02)
            child = int(children.read_text().split()[0])
            [row] = module.listeners([port])
        finally:
            os.kill(child, 9)
            server.kill()
    assert row["pid"] == server.pid


def test_a_host_that_is_a_container_itself_has_services_of_its_own(module: ModuleType) -> None:
    host, inner = "1d" * 32, "2e" * 32
    around = f"0::/docker/{host}/init.scope\n"
    service = f"0::/docker/{host}/system.slice/system-postgresql.slice/postgresql@15-main.service\n"
    assert module.containers_of(service, around) == []
    assert module.containers_of(f"0::/docker/{host}/docker/{inner}\n", around) == [inner]
    assert module.containers_of(f"0::/system.slice/docker-{inner}.scope\n", "0::/init.scope\n") == [inner]


@pytest.mark.parametrize(
    ("ports", "port", "who"),
    [
        ("0.0.0.0:8080->80/tcp, :::8080->80/tcp", 8080, "web"),
        ("0.0.0.0:11100-11120->100-120/tcp", 11112, "web"),
        ("0.0.0.0:8080->80/udp", 8080, ""),
        ("8080/tcp", 8080, ""),
    ],
)
def test_a_published_port_is_a_containers(module: ModuleType, ports: str, port: int, who: str) -> None:
    assert module.publisher({"a": {"name": "web", "ports": ports}}, port) == who


# --- Docker's engine.


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        ({**BARE["docker"], "client": "/usr/bin/docker", "client_package": ["podman-docker", "4.3"]}, "podman-docker"),
        ({**BARE["docker"], "client": "/usr/bin/docker", "podman": True}, "Podman"),
        ({**BARE["docker"], "snap": True, "client": "/snap/bin/docker"}, "snap"),
        ({"package": ["docker-ce", "5:19.03"], "answers": "19.03.15"}, "docker-ce 19.03.15"),
        ({"answers": "", "error": "Cannot connect to the Docker daemon"}, "Cannot connect"),
        ({"answers": "", "active": "inactive", "unit": "masked"}, "stopped"),
        ({**BARE["docker"], "containerd_package": ["containerd.io", "1.7"]}, "containerd.io"),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_be_used_is_named_and_stops(docker: dict[str, Any], said: str) -> None:
    [found] = failing(changed(docker=docker))
    assert (found.code, found.level) == ("docker-engine", "critical")
    assert said in found.value.en
    assert (
        "remove" not in found.remedy.en or "yourself" in found.remedy.en or "would remove" in found.remedy.en
    )


@pytest.mark.parametrize(
    "docker",
    [
        {"package": ["docker-ce", "5:27.3.1"], "answers": "27.3.1"},
        {"package": ["moby-engine", "24.0.9"], "answers": "24.0.9+azure-1"},
        {"package": ["", ""], "engine": "/usr/local/bin/dockerd", "answers": "25.0.0-rc1"},
        {"answers": "", "active": "inactive"},  # the role starts it
        {"snap": True},  # beside Docker of packages
    ],
)
def test_an_engine_of_the_sites_is_used(docker: dict[str, Any], hospital: ModuleType) -> None:
    assert failing(changed(docker=docker)) == []
    read = changed(docker=docker)["docker"]
    planned = hospital.outpost_docker_plan(read, {"packages": ["docker.io"]})
    assert planned["installs"] is (read["package"][0] == "docker.io")


def test_a_card_asks_for_an_engine_that_gives_gpus() -> None:
    [found] = failing(READ, docker=Wanted(cdi=True))
    assert "25.0" in found.wanted.en
    assert (
        failing(
            changed(docker={"answers": "26.1.5", "package": ["docker.io", "26.1.5"]}), docker=Wanted(cdi=True)
        )
        == []
    )


# --- daemon.json.

OWN = {
    "data-root": "/srv/docker", "bip": "10.9.0.1/24", "registry-mirrors": ["https://mirror.hospital"],
    "log-driver": "journald", "features": {"buildkit": True}, "insecure-registries": ["his:5000"],
}  # fmt: skip


def planned(text: str | None, **more: Any) -> docker_settings.Plan:
    wanted = Wanted(
        **{key: more.pop(key) for key in list(more) if key not in ("record", "intended", "flags", "swarm")}
    )
    return docker_settings.plan(text, wanted, **more)


def test_every_key_of_the_sites_stays_and_ours_join_them() -> None:
    found = planned(json.dumps(OWN), insecure_registries=["ours:5000"], cdi=True)
    assert found.faults == ()
    assert found.settings == {
        **OWN, "features": {"buildkit": True, "cdi": True}, "insecure-registries": ["his:5000", "ours:5000"],
        "live-restore": True,
    }  # fmt: skip
    assert json.loads(found.text) == found.settings
    assert list(json.loads(found.text))[: len(OWN)] == list(OWN), "in the site's order"
    assert found.ours == {
        "features": {"cdi": True}, "insecure-registries": ["ours:5000"], "live-restore": True,
    }  # fmt: skip
    again = planned(
        found.text,
        insecure_registries=["ours:5000"],
        cdi=True,
        record=docker_settings.record_text(found.ours),
    )
    assert (again.text, again.ours) == ("", found.ours)


def test_what_is_ours_can_change_later_and_what_is_theirs_cannot() -> None:
    first = planned(json.dumps(OWN), insecure_registries=["ours:5000"], cdi=True)
    record = docker_settings.record_text(first.ours)
    theirs_since = {**first.settings, "debug": True}
    later = planned(json.dumps(theirs_since), insecure_registries=["new:5000"], record=record)
    assert later.settings == {
        **OWN,
        "insecure-registries": ["his:5000", "new:5000"],
        "live-restore": True,
        "debug": True,
    }
    bounded = planned(None, log_max_size="20m")
    bigger = planned(bounded.text, log_max_size="50m", record=docker_settings.record_text(bounded.ours))
    assert bigger.settings["log-opts"]["max-size"] == "50m"
    by_hand = {**bounded.settings, "log-opts": {"max-size": "1g"}}
    kept = planned(json.dumps(by_hand), log_max_size="50m", record=docker_settings.record_text(bounded.ours))
    assert kept.settings["log-opts"] == {"max-size": "1g"}


def test_a_file_that_an_earlier_release_wrote_or_a_cut_run_left_is_ours() -> None:
    before = {"insecure-registries": ["m:5000"], "live-restore": True, "log-driver": "json-file",
              "log-opts": {"max-file": "3", "max-size": "20m"}}  # fmt: skip
    former = json.dumps(before, indent=2, sort_keys=True) + "\n"
    assert planned(former, insecure_registries=["m:5000"]).text == ""
    assert planned(former, log_max_size="50m").settings == {
        "live-restore": True, "log-driver": "json-file", "log-opts": {"max-file": "3", "max-size": "50m"},
    }  # fmt: skip
    cut = planned(None).text
    assert planned(cut, log_max_files=9).settings["log-opts"]["max-file"] == "9"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  "bip": "10.9.0.1/24",\n  // ours\n  "debug": true\n}', "line 3, column 3"),
        ('{\n  "debug": true,\n}', "line 3, column 1"),
        ('{"http-proxy": "http://u:geheim@p"', "line 1"),
        ("[]", "list"),
        ('{"bip": "10.1.0.1/24", "bip": "10.2.0.1/24"}', "bip twice"),
        ('{"max-concurrent-downloads": NaN}', "NaN"),
    ],
)
def test_a_file_that_is_no_json_is_refused_with_its_line_and_without_its_content(
    text: str, said: str
) -> None:
    found = planned(text)
    assert found.text == ""
    [fault] = found.faults
    assert said in fault.en
    assert "geheim" not in fault.en + fault.ru
    [line] = failing(changed(docker={"settings": text}))
    assert (line.code, line.level) == ("docker-settings", "critical")


@pytest.mark.parametrize("text", [None, "", "\n", "{}", "\ufeff{}\n"])
def test_no_settings_are_settings(text: str | None) -> None:
    assert planned(text).settings["live-restore"] is True


@pytest.mark.parametrize(
    ("own", "more", "said"),
    [
        ({"hosts": ["tcp://127.0.0.1:2375"]}, {}, "unix:///var/run/docker.sock"),
        ({"userns-remap": "default"}, {}, "10001"),
        ({"features": {"cdi": False}}, {"cdi": True}, "features.cdi: false"),
        ({"features": [1]}, {"cdi": True}, "features"),
        ({"insecure-registries": "a:1"}, {"insecure_registries": ["b:1"]}, "insecure-registries"),
        ({"bridge": "br0"}, {"bip": "10.9.0.1/24"}, "bridge"),
        ({}, {"bip": "10.9.0.300/24"}, "10.253.0.1/24"),
        ({}, {"insecure_registries": ["b:1"], "flags": ["insecure-registry"]}, "command line"),
        ({}, {"bip": "10.9.0.1/24", "flags": ["bip"]}, "command line"),
        ({}, {"flags": ["userns-remap"]}, "renumbers"),
    ],
)
def test_what_contradicts_is_refused_with_the_difference_in_words(
    own: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    [fault] = planned(json.dumps(own), **more).faults
    assert said in fault.en
    assert fault.ru != fault.en


def test_a_variable_takes_a_key() -> None:
    found = planned(
        json.dumps({"hosts": ["tcp://127.0.0.1:2375"], "bip": "172.17.0.1/16"}), bip="10.9.0.1/24",
        address_pools=[{"base": "10.10.0.0/16", "size": "24"}],
        settings={"hosts": ["unix:///var/run/docker.sock"], "live-restore": False},
    )  # fmt: skip
    assert found.faults == ()
    assert found.settings["hosts"] == ["unix:///var/run/docker.sock"]
    assert (found.settings["bip"], found.settings["live-restore"]) == ("10.9.0.1/24", False)
    assert found.settings["default-address-pools"] == [{"base": "10.10.0.0/16", "size": 24}]


def test_what_the_unit_gives_dockerd_is_not_written_again() -> None:
    """It does not start where its command line and the file name one key."""
    found = planned(None, flags=["log-driver", "live-restore"])
    assert found.settings == {}
    assert found.text == ""


def test_what_a_cut_run_wrote_runs_and_is_still_ours(hospital: ModuleType) -> None:
    """Cut between daemon.json and the record: a setting is brought in by the next run, and goes with the inventory."""
    wanted: dict[str, Any] = {"packages": ["docker.io"]}
    fresh = hospital.outpost_docker_plan(DOCKER, wanted)
    settled = {**DOCKER, "settings": fresh["text"], "record": fresh["record"]}
    for more in (
        {"insecure_registries": ["ours:5000"]},
        {"bip": "10.9.0.1/24"},
        {"settings": {"data-root": "/d"}},
    ):
        [key] = [
            "insecure-registries"
            if "insecure_registries" in more
            else "bip"
            if "bip" in more
            else "data-root"
        ]
        written = hospital.outpost_docker_plan(settled, {**wanted, **more})
        cut = {**settled, "settings": written["text"], "intended": written["record"]}
        found = hospital.outpost_docker_plan(cut, {**wanted, **more})
        assert (found["text"], found["differs"], found["told"]) == ("", [key], [key])
        assert found["record"] == written["record"]
        back = hospital.outpost_docker_plan(cut, wanted)
        assert key not in back["settings"], "the inventory no longer names it"
        # Cut before the file was written.
        before = hospital.outpost_docker_plan({**settled, "intended": written["record"]}, wanted)
        assert (before["text"], before["differs"]) == ("", [])
        assert before["record"], "what was intended is taken away"
        # Even where that is lost, what the inventory names must run.
        lost = hospital.outpost_docker_plan({**cut, "intended": ""}, {**wanted, **more})
        assert (lost["text"], lost["told"], lost["pending"]) == ("", [key], [])


def test_a_swarm_has_no_live_restore_and_log_options_of_another_driver_are_not_mixed() -> None:
    assert "live-restore" not in planned(None, swarm=True).settings
    assert planned('{"log-opts": {"tag": "x"}}').settings == {"log-opts": {"tag": "x"}, "live-restore": True}


def test_docker_is_restarted_for_what_runs_differently_and_for_nothing_else(hospital: ModuleType) -> None:
    wanted = {"packages": ["docker.io"]}
    fresh = hospital.outpost_docker_plan(DOCKER, wanted)
    settled = {**DOCKER, "settings": fresh["text"], "record": fresh["record"]}
    quiet = hospital.outpost_docker_plan(settled, wanted)
    assert (quiet["text"], quiet["record"], quiet["differs"]) == ("", "", [])
    asleep = {**settled, "info": {**DOCKER["info"], "LiveRestoreEnabled": False}}
    assert hospital.outpost_docker_plan(asleep, wanted)["differs"] == ["live-restore"]
    # Written by a run that was cut before the restart: the record has what runs, and without one the file is newer.
    bigger = {**wanted, "log_max_size": "50m"}
    written = {**settled, "settings": hospital.outpost_docker_plan(settled, bigger)["text"]}
    assert hospital.outpost_docker_plan(written, bigger)["differs"] == ["log-opts"]
    cut = {**DOCKER, "settings": hospital.outpost_docker_plan(DOCKER, bigger)["text"]}
    assert "log-opts" in hospital.outpost_docker_plan({**cut, "newer": True}, bigger)["differs"]
    assert hospital.outpost_docker_plan({**cut, "newer": False}, bigger)["differs"] == []
    # Taken out of the inventory again: Docker runs with it until it is restarted.
    more = hospital.outpost_docker_plan(settled, {**wanted, "bip": "10.9.0.1/24", "settings": {"mtu": 1400}})
    assert sorted(more["differs"]) == ["bip", "mtu"]
    there = {**settled, "settings": more["text"], "record": more["record"]}
    assert sorted(hospital.outpost_docker_plan(there, wanted)["differs"]) == ["bip", "mtu"]
    theirs = json.dumps(
        {**json.loads(fresh["text"]), "registry-mirrors": ["https://m"], "data-root": "/srv/docker"}
    )
    found = hospital.outpost_docker_plan({**settled, "settings": theirs}, wanted)
    assert (found["differs"], found["pending"]) == ([], ["data-root"]), "theirs are not brought in by us"


def test_others_containers_are_told_of() -> None:
    docker = {
        "containers": ["outpost-brain", "his-db"],
        "info": {**DOCKER["info"], "LiveRestoreEnabled": False},
    }
    assert failing(changed(docker=docker)) == [], "live-restore comes first"
    [found] = failing(changed(docker={**docker, "settings": '{"live-restore": false}'}))
    assert (found.code, found.level) == ("containers-others", "warning")
    assert "his-db" in found.value.en


# --- Networks.


@pytest.mark.parametrize(
    ("read", "networks", "said"),
    [
        ({}, {"region_pacs": ["172.17.4.5"]}, "172.17.4.5/32 (region_pacs)"),
        ({}, {"outpost_hospital_networks": ["172.16.0.0/12"]}, "172.16.0.0/12"),
        ({}, {"outpost_centre_networks": ["172.20.0.9"]}, "pool 172.20.0.0/16"),
        (BARE, {"region_pacs": ["172.17.4.5"]}, "docker0"),
        ({"routes": [{"network": "172.17.8.0/24", "device": "tun0"}]}, {}, "route, tun0"),
        ({"docker": {"networks": [{"name": "his_net", "subnet": "10.5.0.0/16"}]}},
         {"outpost_admin_networks": ["10.5.1.0/24"]}, "his_net"),
        ({"docker": {"settings": '{"bip": "192.168.75.1/24"}'}}, {}, "192.168.75.0/24"),
        ({"docker": {"settings": '{"default-address-pools": [{"base": "10.5.0.0/16", "size": 24}]}'}},
         {"region_pacs": ["10.5.7.7"]}, "pool 10.5.0.0/16"),
    ],
)  # fmt: skip
def test_a_network_of_dockers_in_the_hospitals_is_refused_with_one_that_is_free(
    read: dict[str, Any], networks: dict[str, list[str]], said: str
) -> None:
    [found] = failing(changed(**read), networks=networks)
    assert (found.code, found.level) == ("docker-networks", "critical")
    assert said in found.value.en
    assert "container_runtime_" in found.remedy.en or "his_net" in found.remedy.en


def test_networks_that_do_not_meet_pass() -> None:
    networks = {
        "region_pacs": ["192.168.75.5", "pacs.hospital", ""],
        "outpost_hospital_networks": ["0.0.0.0/0", "fd00::/8"],
    }
    assert failing(READ, networks=networks) == []
    # Docker itself goes round the routes of the host where it makes its bridge.
    assert failing(changed(**BARE, routes=[{"network": "172.17.0.0/16", "device": "eth0"}])) == []


def test_the_remedy_of_a_network_is_one_that_helps() -> None:
    networks = {"outpost_hospital_networks": ["172.16.0.0/12", "10.253.0.0/16"]}
    [found] = failing(READ, networks=networks)
    assert "container_runtime_bip: 10.213.0.1/24" in found.remedy.en
    moved = Wanted(bip="10.213.0.1/24", address_pools=[{"base": "10.213.128.0/17", "size": 24}])
    assert failing(READ, networks=networks, docker=moved) == []


# --- Accounts, directories, names.


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        ({"user_of_uid": "oracle", "uid_of_name": None}, "10001 is user oracle"),
        ({"group_of_gid": "pacs", "gid_of_name": None}, "10001 is group pacs"),
        ({"uid_of_name": 1005, "user_of_uid": ""}, "user outpost is there with number 1005"),
        ({"gid_of_name": 990, "group_of_gid": ""}, "group outpost is there with number 990"),
    ],
)
def test_an_account_of_others_is_named_and_never_renumbered(
    accounts: dict[str, Any], said: str, hospital: ModuleType
) -> None:
    [found] = failing(changed(accounts=accounts))
    assert (found.code, found.level) == ("service-account", "critical")
    assert said in found.value.en
    assert said in hospital.outpost_account_fault({**READ["accounts"], **accounts})
    assert hospital.outpost_account_fault(READ["accounts"]) == ""


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"/opt/outpost": ["bin", "lib"]}, "/opt/outpost holds bin, lib"),
        ({"/etc/outpost": ["agent.conf"]}, "/etc/outpost holds agent.conf"),
        ({"/etc/outpost": [], "/var/lib/outpost": ["db.sqlite"]}, "/var/lib/outpost holds db.sqlite"),
        ({"/var/lib/outpost": None}, "/var/lib/outpost is a file"),
    ],
)
def test_a_directory_of_another_origin_is_named(places: dict[str, Any], said: str) -> None:
    there = {**READ["places"]["entries"], **places}
    [found] = failing(changed(places={"entries": there, "journals": []}))
    assert (found.code, found.level) == ("names-ours", "critical")
    assert said in found.value.en


def test_a_unit_or_command_of_our_name_that_is_not_ours_is_named_and_a_restored_host_is_ours() -> None:
    [found] = failing(changed(places={"files": {"/etc/systemd/system/outpost@.service": False}}))
    assert "/etc/systemd/system/outpost@.service" in found.value.en
    restored = {**BARE["places"]["entries"], "/var/lib/outpost": ["brain"]}
    assert failing(changed(places={"entries": restored, "journals": ["brain"], "files": {}})) == []


def test_every_file_of_a_name_of_ours_is_known_as_ours(module: ModuleType) -> None:
    files = {
        "outpost@.service": "inference",
        "outpost": "inference",
        "outpost-fleet.service": "fleet_database",
    }
    looks_after = ("outpost-firewall", "outpost-firewall-watch.service", "outpost-firewall-watch.timer")
    files |= dict.fromkeys(("outpost-firewall.service", *looks_after), "base")
    assert {Path(path).name for path in module.UNITS} == set(files)
    for name, role in files.items():
        text = (ROOT / "roles" / role / "files" / name).read_text()
        assert any(word in text[:2000] for word in module.OURS_SAYS), name
    assert not any(word in "[Unit]\nDescription=An outpost of another product" for word in module.OURS_SAYS)


# --- Time.

DEBIAN = "pool 2.debian.pool.ntp.org iburst\nsourcedir /run/chrony-dhcp\nsourcedir /etc/chrony/sources.d\n"
REDOS = "server ntp.hospital iburst\nsourcedir /run/chrony-dhcp\ndriftfile /var/lib/chrony/drift\n"


def clock(**more: Any) -> dict[str, Any]:
    chrony = {"config": "", "text": "", "beside": {}, **more.pop("chrony", {})}
    return {"active": [], "synchronised": False, "vmware": False, "timesyncd": "", "chrony": chrony, **more}


def test_chronys_own_settings_stay_and_our_servers_go_beside_them() -> None:
    debian = clock(active=["chrony.service"], chrony={"config": "/etc/chrony/chrony.conf", "text": DEBIAN})
    found = timekeeping.plan(debian, ["10.0.0.1", "2.debian.pool.ntp.org"])
    assert list(found.files) == ["/etc/chrony/sources.d/outpost.sources"]
    content = str(found.files["/etc/chrony/sources.d/outpost.sources"])
    assert "server 10.0.0.1 iburst" in content
    assert "debian.pool" not in content, "it is a source already"
    debian["chrony"]["beside"] = {"/etc/chrony/sources.d/outpost.sources": content}
    assert timekeeping.plan(debian, ["10.0.0.1"]).files == {}
    assert timekeeping.plan(debian, []).files == {"/etc/chrony/sources.d/outpost.sources": None}
    assert timekeeping.plan(clock(chrony={"config": "/etc/chrony.conf", "text": REDOS}), []).files == {}


def test_where_chrony_reads_no_other_file_ours_is_a_block_that_comes_and_goes() -> None:
    read = clock(chrony={"config": "/etc/chrony.conf", "text": REDOS})
    written = str(timekeeping.plan(read, ["10.0.0.1"]).files["/etc/chrony.conf"])
    assert written.startswith(REDOS)
    assert "server 10.0.0.1 iburst" in written
    read["chrony"]["text"] = written
    assert timekeeping.plan(read, ["10.0.0.1"]).files == {}
    changed_ = str(timekeeping.plan(read, ["10.0.0.2"]).files["/etc/chrony.conf"])
    assert "10.0.0.1" not in changed_
    assert timekeeping.plan(read, []).files["/etc/chrony.conf"].rstrip() == REDOS.rstrip()  # type: ignore[union-attr] # text


def test_the_file_that_an_earlier_release_wrote_over_the_sites_is_given_back_once() -> None:
    former = (
        "server 10.0.0.1 iburst\nlocal stratum 10\n"
        "# Steps are allowed only at start: a jump under a running study would spoil its times.\nmakestep 1.0 3\n"
    )
    read = clock(chrony={"config": "/etc/chrony/chrony.conf", "text": former})
    files = dict(timekeeping.plan(read, ["10.0.0.1"]).files)
    assert "local stratum" not in str(files["/etc/chrony/chrony.conf"])
    assert "10.0.0.1" in str(files["/etc/chrony/sources.d/outpost.sources"])
    read["chrony"] |= {
        "text": files["/etc/chrony/chrony.conf"],
        "beside": {"/etc/chrony/sources.d/outpost.sources": files["/etc/chrony/sources.d/outpost.sources"]},
    }
    assert timekeeping.plan(read, ["10.0.0.1"]).files == {}


@pytest.mark.parametrize(
    ("chrony", "reads"),
    [
        (
            {"config": "/etc/chrony/chrony.conf", "text": DEBIAN},
            ["/etc/chrony/chrony.conf", "/etc/chrony/sources.d/outpost.sources"],
        ),
        ({"config": "/etc/chrony.conf", "text": REDOS}, ["/etc/chrony.conf"]),
    ],
)
def test_what_the_keeper_runs_on_is_the_same_in_every_run(chrony: dict[str, Any], reads: list[str]) -> None:
    """A run that was cut behind the write finds nothing to write: the unit is compared with its files all the same."""
    read = clock(active=["chrony.service"], chrony=chrony)
    first = timekeeping.plan(read, ["10.0.0.1"])
    text = first.files.get(chrony["config"], chrony["text"])
    beside = {path: content for path, content in first.files.items() if path != chrony["config"]}
    after = timekeeping.plan(clock(chrony={**chrony, "text": text, "beside": beside}), ["10.0.0.1"])
    assert (dict(after.files), list(after.reads), list(first.reads)) == ({}, reads, reads)
    assert set(first.files) <= set(reads)
    timesyncd = timekeeping.plan(clock(active=["systemd-timesyncd.service"]), [])
    assert (timesyncd.files, len(timesyncd.reads)) == ({}, 1)


@pytest.mark.parametrize("unit", ["ntp.service", "ntpd.service", "ntpsec.service", "openntpd.service"])
def test_a_program_that_keeps_the_time_stays_and_chrony_is_not_put_over_it(unit: str) -> None:
    found = timekeeping.plan(clock(active=[unit], synchronised=True), ["10.0.0.1"])
    assert (found.keeper, found.installs, found.files, found.told) == (unit, False, {}, ("10.0.0.1",))
    assert failing(changed(time={"active": [unit], "synchronised": True})) == []
    [line] = failing(changed(time={"active": [unit], "synchronised": False}))
    assert (line.code, line.level) == ("time-keeper", "warning")


def test_timesyncd_gets_our_servers_by_a_file_beside_its_own_and_tools_of_a_vm_are_let_be() -> None:
    found = timekeeping.plan(clock(active=["systemd-timesyncd.service"]), ["10.0.0.1"])
    assert not found.installs
    [(path, content)] = found.files.items()
    assert path == "/etc/systemd/timesyncd.conf.d/outpost.conf"
    assert "NTP=10.0.0.1" in str(content)
    assert (
        timekeeping.plan(clock(active=["systemd-timesyncd.service"], timesyncd=content), ["10.0.0.1"]).files
        == {}
    )
    assert timekeeping.plan(clock(vmware=True), []).keeper == "vmware"
    assert timekeeping.plan(clock(), []).installs


# --- What upgrades by itself.

AUTOMATIC = "[commands]\napply_updates = yes\n\n[base]\n# This section overrides dnf.conf\ndebuglevel = 1\n"


def test_dnf_automatic_leaves_alone_what_unattended_upgrades_leaves_alone() -> None:
    names = ["nvidia-", "linux-", "docker", "postgresql"]
    text = automatic.excluded(AUTOMATIC, names)
    base = text.partition("[base]\n")[2]
    assert base.startswith(
        "excludepkgs = nvidia-*, kmod-nvidia*, akmod-nvidia*, dkms-nvidia*, xorg-x11-drv-nvidia*, cuda-drivers*, "
        "kernel*, docker*, moby-engine*, postgresql*\n"
    )
    assert text.replace(base.splitlines()[0] + "\n", "") == AUTOMATIC
    assert automatic.excluded(text, names) == text


@pytest.mark.parametrize(
    ("site", "kept"),
    [
        ("excludepkgs=his-app*\n", ["his-app*"]),
        ("exclude = his-app* other\n", ["his-app*", "other"]),
        ("excludepkgs = a,\n    b\n", ["a", "b"]),
        ("exclude = a\nexcludepkgs = b\n", ["a", "b"]),
    ],
)
def test_what_the_site_excludes_stays_excluded(site: str, kept: list[str]) -> None:
    text = automatic.excluded(f"[base]\n{site}debuglevel = 1\n[email]\nexclude = no\n", ["runc"])
    assert (
        text
        == f"[base]\nexcludepkgs = {', '.join([*kept, 'runc*'])}\ndebuglevel = 1\n[email]\nexclude = no\n"
    )
    assert automatic.excluded(text, ["runc"]) == text
    assert "\n[base]\nexcludepkgs = runc*\n" in automatic.excluded("[commands]\nx = 1\n", ["runc"])


def test_a_limit_of_the_journal_that_the_site_has_set_is_not_set_by_us(hospital: ModuleType) -> None:
    assert hospital.outpost_unset(
        {"SystemMaxUse": "1G", "Storage": "persistent"}, {"SystemMaxUse": "20G"}
    ) == {"Storage": "persistent"}


def test_images_are_asked_room_where_the_hospital_keeps_them(hospital: ModuleType) -> None:
    there = {"settings": None, "info": {"DockerRootDir": "/srv/docker"}}
    assert hospital.outpost_docker_root(there) == ["/srv/docker"]
    assert hospital.outpost_docker_root({"settings": '{"data-root": "/data/docker"}', "info": {}}) == [
        "/data/docker"
    ]
    assert hospital.outpost_docker_root({"settings": "{", "info": {}}) == []
