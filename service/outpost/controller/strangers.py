"""What of the hospital's own on a host stands in our way, as lines of the preflight verdict.

Judged out of what the module outpost_strangers read. Nothing of others is ever stopped, removed or renumbered by a run:
what cannot live beside ours is said here, with the name of who has it and the variable that moves ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from outpost.controller.docker_settings import Plan, Wanted, plan
from outpost.platform.codes import line
from outpost.platform.line import Line, Words, listed, same

Network = IPv4Network | IPv6Network
_ENGINE_LEAST: Final = (20, 10)
_ENGINE_CDI: Final = (25, 0)
# Of dockerd: it makes its bridge, and then each network, of the first that no route of the host touches. The pool
# after these, 192.168.0.0/16, is reached by the sixteenth network only, and half of all hospitals are in it.
_POOLS: Final = tuple(ip_network(f"172.{number}.0.0/16") for number in range(17, 32))
_SPARE: Final = tuple(ip_network(f"10.{number}.0.0/16") for number in (253, 213, 173, 133, 93)) + tuple(
    ip_network(f"172.{number}.0.0/16") for number in (28, 22)
)
_DOCKERS: Final = ("docker", "br-", "veth", "cni", "virbr", "podman", "lo")
# What our roles and the service put into these directories, whole names or ends of names.
_OURS_IN: Final[Mapping[str, tuple[str, ...]]] = {
    "/etc/outpost": (
        "tls",
        "filter",
        "firewall.nft",
        ".env",
        ".token",
        ".yaml",
        ".json",
        ".started",
        ".lock",
    ),
    "/opt/outpost": ("releases", "current", "previous", "driver", "drivers", ".lock"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the inventory asks of the host.

    Attributes:
        systems: name -> dicom_port, api_port.
        extra_ports: unit -> port of services beside the systems (outpost-fleet.service).
        database_port: of our PostgreSQL.
        docker: what role container_runtime asks for.
        networks: name of a variable -> addresses and networks that systems and centre speak with.
        packages: what role container_runtime would install, where the inventory names it.
        family: deb or rpm.
    """

    systems: Mapping[str, Mapping[str, Any]]
    database_port: int
    extra_ports: Mapping[str, int] = field(default_factory=dict)
    docker: Wanted = field(default_factory=Wanted)
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    packages: Sequence[str] = ()
    family: str = "deb"


def lines(read: Mapping[str, Any], asked: Asked) -> list[Line]:
    """All of it. read: of outpost_strangers, parts listeners, docker, accounts, places, routes, time."""
    docker = read["docker"]
    planned = plan(
        docker["settings"], asked.docker, record=docker["record"], flags=docker["flags"],
        swarm=docker["swarm"] not in ("", "inactive"),
    )  # fmt: skip
    return [
        *_ports(read["listeners"], asked),
        *_engine(docker, asked),
        *_settings(planned),
        *_networks(read, planned, asked),
        *_others_containers(docker, planned),
        *account_lines(read["accounts"]),
        *_places(read["places"]),
        *_time(read["time"]),
    ]


# --- Ports.


def ports_of(asked: Asked) -> list[tuple[str, str, int, Words]]:
    """(unit, container, port, the variable that moves it) of every port that we listen on."""
    of_system = "outpost_systems: {name}.{key}"
    ports = [
        (f"outpost@{name}.service", f"outpost-{name}", int(system[key]), same(of_system.format(name=name, key=key)))
        for name, system in asked.systems.items()
        for key in ("dicom_port", "api_port")
        if str(system.get(key, "")).isdigit()
    ]  # fmt: skip
    for unit, port in asked.extra_ports.items():
        variable = "fleet_database_page_port" if unit == "outpost-fleet.service" else "preflight_extra_ports"
        ports.append((unit, unit.removesuffix(".service"), int(port), same(variable)))
    if asked.database_port:
        ports.append(("postgresql", "", int(asked.database_port), same("postgresql_port")))
    return ports


def _ports(listeners: Sequence[Mapping[str, Any]], asked: Asked) -> Iterator[Line]:
    systems = {f"outpost-{name}" for name in asked.systems}
    for unit, container, port, variable in ports_of(asked):
        here = [one for one in listeners if int(one["port"]) == port]
        strangers = [one for one in here if not _ours(one, unit, container, systems)]
        free = Words("{port} held by nobody", "{port}: свободен").by(port=port)
        own = Words("{port} held by our own {unit}", "{port}: занят нашей {unit}").by(port=port, unit=unit)
        shown = (strangers or here)[:1]
        who = _who(shown[0]) if shown else same("")
        value = (
            Words("{port} held by {who}", "{port}: занят {who}").by(port=port, who=who)
            if strangers
            else own if here else free
        )  # fmt: skip
        yield line(
            "port-free",
            not strangers,
            value,
            Words("free, or held by {unit}", "свободен или занят {unit}").by(unit=unit),
            subject=str(port),
            remedy=_port_remedy(strangers[0], port, who, variable) if strangers else None,
        )


def _ours(one: Mapping[str, Any], unit: str, container: str, systems: Iterable[str]) -> bool:
    """Whether a listener is what should listen there, or another system of the inventory, which moves in this run."""
    if unit == "postgresql":
        return one["cluster"] in ("ours", "empty")
    if one["container"]:
        # Ours have the host's own network: what is published through Docker's proxy is somebody else's.
        return one["process"] != "docker-proxy" and bool(one["pid"]) and (
            one["container"] == container or (container in systems and one["container"] in systems)
        )  # fmt: skip
    return bool(one["unit"]) and one["unit"] == unit


def _who(one: Mapping[str, Any]) -> Words:
    """Process, unit or container, cluster and address, as far as they are known."""
    parts = [same(f"{one['process'] or '?'} (pid {one['pid']})" if one["pid"] else "?")]
    if one["container"]:
        parts.append(Words("container {name}", "контейнер {name}").by(name=one["container"]))
    elif one["unit"]:
        parts.append(same(one["unit"]))
    if one["data"]:
        parts.append(Words("cluster {data}", "кластер {data}").by(data=one["data"]))
    if one["address"]:
        address = f"[{one['address']}]" if ":" in one["address"] else one["address"]
        parts.append(same(f"{address}:{one['port']}"))
    return Words(", ".join(part.en for part in parts), ", ".join(part.ru for part in parts))


def _port_remedy(one: Mapping[str, Any], port: int, who: Words, variable: Words) -> Words:
    if one["container"].startswith("outpost-") and one["process"] != "docker-proxy":
        name = one["container"].removeprefix("outpost-")
        return Words(
            "A system that the inventory does not name any more runs there. Take it out of service"
            " (`playbooks/remove.yml -e outpost_system={name}`), or set {variable} to another port.",
            "Там работает система, которой больше нет в инвентаре. Выведите её из работы"
            " (`playbooks/remove.yml -e outpost_system={name}`) или задайте {variable} другой порт.",
        ).by(name=name, variable=variable)
    return Words(
        "Leave {who} as it is and move ours: set {variable} to a free port (`ss -ltn`); or stop it, if nobody"
        " needs it.",
        "Оставьте {who} и перенесите наш порт: задайте {variable} свободный порт (`ss -ltn`); или остановите, если это"
        " никому не нужно.",
    ).by(who=who, variable=variable)


# --- Docker.


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split("+")[0].split("-")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def gives_gpus(docker: Mapping[str, Any]) -> bool:
    """Whether the engine that runs knows CDI."""
    return _version(docker["answers"]) >= _ENGINE_CDI


def engine_installs(docker: Mapping[str, Any], packages: Sequence[str]) -> bool:
    """Whether the role's packages are to be installed: where no engine is, or the one that is there is of them."""
    return not docker["engine"] or docker["package"][0] in packages


def _engine(docker: Mapping[str, Any], asked: Asked) -> Iterator[Line]:
    name, version = docker["package"]
    least = Words(
        "Docker's own engine, {least} or later, or none", "движок самого Docker, {least} или новее, или никакого"
    ).by(least=".".join(map(str, _ENGINE_CDI if asked.docker.cdi else _ENGINE_LEAST)))  # fmt: skip
    value, remedy = Words("none; the role installs one", "нет; роль установит"), None
    if docker["client_package"][0] == "podman-docker" or docker["podman"]:
        value = Words("{client} is Podman's (package {name})", "{client} - это Podman (пакет {name})").by(
            client=docker["client"], name=docker["client_package"][0] or "?"
        )
        remedy = Words(
            "The systems need Docker's engine, and podman-docker takes its name. Remove that package yourself,"
            " if nobody"
            " here types `docker` and means Podman (Podman itself may stay), or give the systems another host.",
            "Системам нужен движок Docker, а podman-docker занял его имя. Удалите этот пакет сами, если никто здесь не"
            " набирает `docker`, имея в виду Podman (сам Podman может остаться), или дайте системам другой узел.",
        )
    elif docker["snap"] and not (docker["engine"] and not docker["engine"].startswith("/snap")):
        value = Words("Docker from snap", "Docker из snap")
        remedy = Words(
            "Docker from snap sees neither /etc/outpost nor /opt/outpost. Move its containers to Docker from the"
            " system's"
            " packages and remove it yourself (`snap remove docker`), or give the systems another host.",
            "Docker из snap не видит ни /etc/outpost, ни /opt/outpost. Перенесите его контейнеры в Docker из"
            " пакетов системы"
            " и удалите его сами (`snap remove docker`), или дайте системам другой узел.",
        )
    elif docker["engine"]:
        said = f"{name or docker['engine']} {docker['answers'] or version}".strip()
        value = (
            Words("{said} answers", "{said} отвечает")
            if docker["answers"]
            else Words("{said} is stopped", "{said} остановлен")
        )
        value, remedy = value.by(said=said), _engine_fault(docker, asked, said)
        if not docker["answers"] and docker["active"] == "active":
            value = Words("{said} gives no answer: {why}", "{said} не отвечает: {why}").by(
                said=said, why=docker["error"] or "?"
            )
    elif asked.family == "deb" and docker["containerd_package"][0] == "containerd.io" and not asked.packages:
        value = Words("no engine, but containerd.io", "движка нет, но есть containerd.io")
        remedy = Words(
            "docker.io brings a containerd of its own, and apt would remove containerd.io for it. Take Docker"
            " from where"
            " containerd.io comes: container_runtime_packages: [docker-ce, docker-ce-cli, containerd.io].",
            "docker.io приносит свой containerd, и apt удалил бы ради него containerd.io. Возьмите Docker оттуда"
            " же, откуда"
            " containerd.io: container_runtime_packages: [docker-ce, docker-ce-cli, containerd.io].",
        )
    yield line("docker-engine", remedy is None, value, least, remedy=remedy)


def _engine_fault(docker: Mapping[str, Any], asked: Asked, said: str) -> Words | None:
    """Why the engine that is there cannot be used; None where it can."""
    if docker["unit"] in ("masked", "not-found", "bad-setting", "error"):
        return Words(
            "docker.service is {state}: the systems' engine would not start with the host. Bring the unit back"
            " (`systemctl unmask docker`, or the package that has it), or give the systems another host.",
            "docker.service: {state}, движок не запустится вместе с узлом. Верните службу (`systemctl unmask"
            " docker` или"
            " пакет, в котором она есть) или дайте системам другой узел.",
        ).by(state=docker["unit"])
    if not docker["answers"]:
        if docker["active"] != "active":
            return None  # the role starts it
        return Words(
            "Look at `systemctl status docker` and `journalctl -u docker`; it was not touched.",
            "Посмотрите `systemctl status docker` и `journalctl -u docker`; его не трогали.",
        )
    least = _ENGINE_CDI if asked.docker.cdi else _ENGINE_LEAST
    if _version(docker["answers"]) < least:
        return Words(
            "{said} is too old. Its packages are the site's: bring {least} or later by the way they came; a run never"
            " replaces them.",
            "{said} слишком старый. Пакеты принадлежат площадке: поставьте {least} или новее тем же путём; запуск их не"
            " заменяет.",
        ).by(said=said, least=".".join(map(str, least)))
    return None


def _settings(planned: Plan) -> Iterator[Line]:
    faults = planned.faults
    kept = Words("nothing in the way", "ничто не мешает")
    value = (
        Words("; ".join(one.en for one in faults), "; ".join(one.ru for one in faults)) if faults else kept
    )
    yield line(
        "docker-settings",
        not faults,
        value,
        Words("settings that ours can be merged into", "настройки, к которым можно добавить наши"),
    )


def _others_containers(docker: Mapping[str, Any], planned: Plan) -> Iterator[Line]:
    others = [name for name in docker["containers"] if not name.startswith("outpost-")]
    if not others or planned.faults:
        return
    lives = docker["info"].get("LiveRestoreEnabled") or planned.settings.get("live-restore")
    yield line(
        "containers-others",
        not planned.text or bool(lives),
        Words("{n} of others: {names}", "чужих: {n}: {names}").by(n=len(others), names=listed(others)),
        Words("not stopped by a restart of Docker", "перезапуск Docker их не останавливает"),
    )


# --- Networks.


def _network(word: object) -> Network | None:
    try:
        return ip_network(str(word).strip(), strict=False)
    except ValueError:
        return None


def _meets(one: Network, others: Iterable[tuple[Network, str]]) -> list[str]:
    return [
        f"{other} ({why})" for other, why in others if one.version == other.version and one.overlaps(other)
    ]


def _networks(read: Mapping[str, Any], planned: Plan, asked: Asked) -> Iterator[Line]:
    docker = read["docker"]
    named = [
        (network, variable)
        for variable, words in asked.networks.items()
        for word in words
        # 0.0.0.0/0 means everybody, not a network that is somewhere.
        if (network := _network(word)) is not None and network.prefixlen
    ]
    routes = [
        (network, f"route, {row['device'] or '?'}")
        for row in read["routes"]
        if not row["device"].startswith(_DOCKERS) and (network := _network(row["network"])) is not None
        and network.version == 4 and network.prefixlen
    ]  # fmt: skip
    pools = _pools(planned)
    bridge = _bridge(docker, planned, [network for network, _ in routes], pools)
    used = [
        bridge,
        *((one["name"], _network(one["subnet"])) for one in docker["networks"] if one["name"] != "bridge"),
    ]
    spare = _spare([network for network, _ in [*named, *routes]])
    found = {name: _meets(network, [*named, *routes]) for name, network in used if network is not None}
    found |= {f"pool {pool}": _meets(pool, named) for pool in pools}
    met = {name: meets for name, meets in found.items() if meets}
    value = Words(
        "; ".join(f"{name} meets {listed(meets)}" for name, meets in met.items()) or f"bridge {bridge[1]}",
        "; ".join(f"{name} и {listed(meets)}" for name, meets in met.items()) or f"мост {bridge[1]}",
    )
    yield line(
        "docker-networks",
        not met,
        value,
        Words("no network of Docker's in the hospital's", "ни одной сети Docker среди сетей больницы"),
        remedy=_network_remedy(met, spare),
    )


def _pools(planned: Plan) -> list[Network]:
    """What networks will be made of. Of Docker's own default, the part that comes first."""
    pools = planned.settings.get("default-address-pools")
    if not isinstance(pools, list):
        return list(_POOLS)
    bases = (_network(pool.get("base")) for pool in pools if isinstance(pool, Mapping))
    return [base for base in bases if base is not None and base.version == 4]


def _bridge(
    docker: Mapping[str, Any], planned: Plan, routes: Sequence[Network], pools: Sequence[Network]
) -> tuple[str, Network | None]:
    """docker0: as it will be by `bip`, as it is, or as Docker will choose it."""
    if planned.settings.get("bip"):
        return "docker0", _network(planned.settings["bip"])
    if planned.settings.get("bridge") == "none":
        return "docker0", None
    there = next((_network(one["subnet"]) for one in docker["bridge"] if ":" not in one["subnet"]), None)
    if there is not None:
        return "docker0", there
    free = (
        pool
        for pool in pools
        if not any(pool.version == route.version and pool.overlaps(route) for route in routes)
    )
    return "docker0", next(free, None)


def _spare(taken: Sequence[Network]) -> list[Network]:
    """Networks that nothing known touches, to be named in the remedy."""
    return [
        one for one in _SPARE if not any(one.version == other.version and one.overlaps(other) for other in taken)
    ]  # fmt: skip


def _network_remedy(met: Mapping[str, Sequence[str]], spare: Sequence[Network]) -> Words | None:
    if not met or not spare:
        return None
    first = IPv4Address(int(spare[0].network_address) + 1)
    bip = f"container_runtime_bip: {first}/24"
    # The bridge in its lower half, what is made later in the upper one.
    later = list(spare[0].subnets(new_prefix=17))[1]
    pools = f"container_runtime_address_pools: [{{base: {later}, size: 24}}]"
    own = [name for name in met if name != "docker0" and not name.startswith("pool ")]
    wanted = [bip] if "docker0" in met else []
    wanted += [pools] if any(name.startswith("pool ") for name in met) else []
    words = Words(
        "Set {wanted} in the host's file, with a network that is free there." if wanted else "",
        "Задайте в файле узла {wanted}: сеть, свободную у вас." if wanted else "",
    ).by(wanted=listed(wanted))
    if own:
        words = words + Words(
            " Move the networks {own} with their containers yourself (docker network rm, create --subnet).",
            " Сети {own} перенесите с их контейнерами сами (docker network rm, create --subnet).",
        ).by(own=listed(own))
    return words


# --- Accounts, directories, names.


def account_lines(read: Mapping[str, Any]) -> Iterator[Line]:
    uid, faults = read["uid"], []
    for kind, holder in (
        (Words("user", "пользователь"), read["user_of_uid"]),
        (Words("group", "группа"), read["group_of_gid"]),
    ):
        if holder and holder != "outpost":
            faults.append(
                Words("{uid} is {kind} {holder}", "{uid}: это {kind} {holder}").by(uid=uid, kind=kind, holder=holder)
            )  # fmt: skip
    for kind, number in (
        (Words("user", "пользователь"), read["uid_of_name"]),
        (Words("group", "группа"), read["gid_of_name"]),
    ):
        if number is not None and number != uid:
            faults.append(
                Words("{kind} outpost is there with number {number}", "{kind} outpost уже есть, с номером {number}").by(
                    kind=kind, number=number
                )
            )  # fmt: skip
    value = Words("{uid} free, or ours", "{uid} свободен или наш").by(uid=uid)
    if faults:
        value = Words("; ".join(one.en for one in faults), "; ".join(one.ru for one in faults))
    yield line(
        "service-account",
        not faults,
        value,
        Words("user and group outpost, {uid}", "пользователь и группа outpost, {uid}").by(uid=uid),
    )


def _places(read: Mapping[str, Any]) -> Iterator[Line]:
    faults = []
    entries = read["entries"]
    for path, names in entries.items():
        if names is None:
            faults.append(Words("{path} is a file", "{path} - файл").by(path=path))
    for path, known in _OURS_IN.items():
        names = entries.get(path) or []
        if names and not any(name.endswith(known) for name in names):
            faults.append(_others_directory(path, names))
    states = entries.get("/var/lib/outpost") or []
    ours_here = any(name.endswith(_OURS_IN["/etc/outpost"]) for name in entries.get("/etc/outpost") or [])
    if states and not ours_here and not read["journals"]:
        faults.append(_others_directory("/var/lib/outpost", states))
    faults += [
        Words("{path} is not of our making", "{path} сделан не нами").by(path=path)
        for path, ours in read["files"].items()
        if not ours and path != "/usr/bin/outpost"
    ]
    value = Words("free, or ours", "свободны или наши")
    if faults:
        value = Words("; ".join(one.en for one in faults), "; ".join(one.ru for one in faults))
    yield line("names-ours", not faults, value, Words("free, or ours", "свободны или наши"))


def _others_directory(path: str, names: Sequence[str]) -> Words:
    return Words("{path} holds {names}, nothing of ours", "в {path} лежит {names}, нашего там нет").by(
        path=path, names=listed(names[:3])
    )


def _time(read: Mapping[str, Any]) -> Iterator[Line]:
    active = [*read["active"], *(["vmware-toolbox-cmd timesync"] if read["vmware"] else [])]
    alone = len(active) < 2
    stuck = (
        len(active) == 1
        and not read["synchronised"]
        and active[0] not in ("chrony.service", "chronyd.service")
    )
    synchronised = (
        Words("synchronised", "синхронно")
        if read["synchronised"]
        else Words("not synchronised", "не синхронно")
    )
    none = Words("none; the role installs chrony", "никто; роль установит chrony")
    yield line(
        "time-keeper",
        alone and not stuck,
        Words("{who}, {how}", "{who}, {how}").by(who=listed(active), how=synchronised) if active else none,
        Words("one, which stays", "один, он остаётся"),
    )
