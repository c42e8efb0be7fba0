"""Docker's settings on a host that may have its own: what we need is merged into daemon.json key by key.

What others wrote stays. A key of theirs with which a system could not run is told, never replaced; what the inventory
names by a variable of role container_runtime is set as said there. A record on the host remembers which values are
ours, so that they can change later and theirs cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from typing import Any, Final

from outpost.platform.line import Words

FILE: Final = "/etc/docker/daemon.json"
_SOCKETS: Final = ("unix:///var/run/docker.sock", "unix:///run/docker.sock", "unix://", "fd://", "fd:")
# A flag of dockerd to the key it stands for. dockerd does not start where both name it.
_FLAGS: Final[Mapping[str, str]] = {
    "log-driver": "log-driver", "log-opt": "log-opts", "live-restore": "live-restore", "bip": "bip",
    "insecure-registry": "insecure-registries", "default-address-pool": "default-address-pools",
    "feature": "features", "userns-remap": "userns-remap", "bridge": "bridge", "b": "bridge",
    "data-root": "data-root", "g": "data-root", "registry-mirror": "registry-mirrors",
}  # fmt: skip
# What `docker info` shows of every release; the others are known by the record alone.
TOLD: Final = (
    "log-driver", "live-restore", "data-root", "insecure-registries", "registry-mirrors", "default-address-pools",
    "bip",
)  # fmt: skip
_OUR_KEYS: Final = frozenset({"log-driver", "log-opts", "live-restore", "insecure-registries", "features"})


class Unreadable(ValueError):
    """daemon.json cannot be understood; `words` say where. Its content is not repeated: it may hold a password."""

    def __init__(self, words: Words) -> None:
        super().__init__(words.en)
        self.words = words


@dataclass(frozen=True, slots=True)
class Wanted:
    """What role container_runtime asks for.

    `insecure_registries` and `cdi` are needed where asked; the log's bounds and live-restore are set where nobody has
    set them; `bip`, `address_pools` and `settings` are set as the inventory says, over what is there.
    """

    insecure_registries: Sequence[str] = ()
    log_max_size: str = "20m"
    log_max_files: int = 3
    cdi: bool = False
    bip: str = ""
    address_pools: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def explicit(self) -> dict[str, Any]:
        pools = [{"base": str(pool["base"]), "size": int(pool["size"])} for pool in self.address_pools]
        named = {"bip": self.bip, "default-address-pools": pools}
        return {**{key: value for key, value in named.items() if value}, **self.settings}


@dataclass(frozen=True, slots=True)
class Plan:
    """`text` to be written (empty where the file is as it should be), all `settings`, and what of them is `ours`.

    `needed`: keys that must run as `settings` has them, whoever wrote them: ours, and what the inventory names.
    """

    settings: dict[str, Any]
    text: str
    ours: dict[str, Any]
    faults: tuple[Words, ...] = ()
    needed: frozenset[str] = frozenset()


def parse(text: str | None) -> dict[str, Any]:
    """The settings in a daemon.json; {} where there is none or it is empty. Raises `Unreadable`."""
    body = (text or "").lstrip("\ufeff")
    if not body.strip():
        return {}
    try:
        found = json.loads(body, object_pairs_hook=_distinct, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise Unreadable(
            Words(
                "{file} is no JSON: line {line}, column {column}: {why}",
                "{file} - не JSON: строка {line}, позиция {column}: {why}",
            ).by(file=FILE, line=error.lineno, column=error.colno, why=error.msg)
        ) from None
    if not isinstance(found, dict):
        raise Unreadable(
            Words("{file} holds no settings, but a {kind}", "{file}: там не настройки, а {kind}").by(
                file=FILE, kind=type(found).__name__
            )
        )
    return found


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Unreadable(
            Words("{file} names {key} twice", "{file}: {key} указан дважды").by(
                file=FILE, key=", ".join(twice)
            )
        )
    return dict(pairs)


def _no_number(word: str) -> Any:
    raise Unreadable(
        Words("{file} is no JSON: {word} is no number", "{file} - не JSON: {word} не число").by(
            file=FILE, word=word
        )
    )


def plan(
    text: str | None,
    wanted: Wanted,
    *,
    record: str = "",
    intended: str = "",
    flags: Iterable[str] = (),
    swarm: bool = False,
) -> Plan:
    """What daemon.json is to hold.

    Args:
        text: the file as it is, None where there is none.
        wanted: of the role.
        record: the file that remembers what of it is ours, as `record_text` made it; empty where there is none.
        intended: the same of a run that wrote, or was about to write, the file and has not come to its end.
        flags: what dockerd gets on its command line.
        swarm: whether the host is in a swarm, which live-restore excludes.
    """
    try:
        current = parse(text)
    except Unreadable as error:
        return Plan({}, "", {}, (error.words,))
    ours_before = recorded(record) if record else _former_file(text, current)
    theirs = _without(_without(current, ours_before), recorded(intended) if intended else {})
    by_flag = {_FLAGS[flag] for flag in flags if flag in _FLAGS}
    result, faults = dict(theirs), []

    if not {"log-driver", "log-opts"} & (theirs.keys() | by_flag):
        result["log-driver"] = "json-file"
        result["log-opts"] = {"max-size": wanted.log_max_size, "max-file": str(wanted.log_max_files)}
    if "live-restore" not in theirs.keys() | by_flag and not swarm:
        result["live-restore"] = True

    explicit = wanted.explicit
    if wanted.insecure_registries and "insecure-registries" not in explicit:
        faults += _registries(result, theirs, by_flag, wanted)
    if wanted.cdi and "features" not in explicit:
        faults += _cdi(result, theirs, by_flag)
    for key, value in explicit.items():
        if key in by_flag:
            faults.append(_both(key))
        result[key] = value
    faults += _against_us(result, by_flag)

    result = {key: result[key] for key in [*current, *result] if key in result}
    changed = result != current
    ours = {key: _our_part(key, value, theirs) for key, value in result.items() if value != theirs.get(key)}
    named = {"insecure-registries"} if wanted.insecure_registries else set()
    return Plan(
        result,
        # All ours: in the order by which `_former_file` knows it again, should the run be cut before the record.
        json.dumps(result, indent=2, ensure_ascii=False, sort_keys=not current) + "\n" if changed else "",
        ours,
        tuple(faults),
        frozenset(ours.keys() | explicit.keys() | named),
    )


def _registries(
    result: dict[str, Any], theirs: Mapping[str, Any], by_flag: set[str], wanted: Wanted
) -> list[Words]:
    there = theirs.get("insecure-registries", [])
    if not isinstance(there, list):
        return [_no_kind("insecure-registries", Words("a list", "список"))]
    if "insecure-registries" in by_flag:
        return [_both("insecure-registries")]
    result["insecure-registries"] = [
        *there,
        *(name for name in wanted.insecure_registries if name not in there),
    ]
    return []


def _cdi(result: dict[str, Any], theirs: Mapping[str, Any], by_flag: set[str]) -> list[Words]:
    there = theirs.get("features", {})
    if not isinstance(there, dict):
        return [_no_kind("features", Words("an object", "объект"))]
    if there.get("cdi") is False:
        return [
            Words(
                "{file} says features.cdi: false; needed: true, or containers get no GPU. Set it to true there, or by"
                " container_runtime_settings, or give up the card: container_runtime_cdi: false",
                "{file}: features.cdi: false; нужно true, иначе контейнеры не получат GPU. Поставьте true там или через"
                " container_runtime_settings, или откажитесь от видеокарты: container_runtime_cdi: false",
            ).by(file=FILE)
        ]
    if "features" in by_flag:
        return [_both("features")]
    result["features"] = {**there, "cdi": True}
    return []


def _against_us(result: Mapping[str, Any], by_flag: set[str]) -> list[Words]:
    """Settings of others with which no system of ours would run."""
    faults = []
    hosts = result.get("hosts")
    if isinstance(hosts, list) and hosts and not any(str(host).startswith(_SOCKETS) for host in hosts):
        faults.append(
            Words(
                "{file} says hosts: {hosts}; needed as well: unix:///var/run/docker.sock, by which the systems are"
                " started. Add it there, or set hosts in container_runtime_settings",
                "{file}: hosts: {hosts}; нужен ещё unix:///var/run/docker.sock, через него запускаются системы."
                " Добавьте его там или задайте hosts в container_runtime_settings",
            ).by(file=FILE, hosts=", ".join(map(str, hosts)))
        )
    if result.get("userns-remap") or "userns-remap" in by_flag:
        faults.append(
            Words(
                "Docker renumbers the users of containers (userns-remap: {value}); needed: not set. The systems' user"
                " 10001 could not read its own directories. Give the systems another host, or take it out",
                "Docker меняет номера пользователей в контейнерах (userns-remap: {value}); нужно: не задано."
                " Пользователь систем 10001 не прочёл бы свои каталоги. Дайте системам другой узел или уберите её",
            ).by(value=result.get("userns-remap", "--userns-remap"))
        )
    if result.get("bip") and "bridge" in result.keys() | by_flag:
        faults.append(
            Words(
                "{file} has bridge, and bip cannot be set beside it. Take bip or bridge out",
                "{file}: есть bridge, рядом с ним bip не задают. Уберите bip или bridge",
            ).by(file=FILE)
        )
    try:
        if result.get("bip"):
            ip_interface(str(result["bip"]))
        for pool in result.get("default-address-pools") or ():
            ip_network(str(pool["base"]), strict=False)
    except (ValueError, TypeError, KeyError) as error:
        faults.append(
            Words(
                "bip or default-address-pools cannot be read: {why}; wanted: 10.253.0.1/24, and"
                " [{{base: 10.254.0.0/16, size: 24}}]",
                "bip или default-address-pools не читаются: {why}; нужно: 10.253.0.1/24 и"
                " [{{base: 10.254.0.0/16, size: 24}}]",
            ).by(why=error)
        )
    return faults


def _both(key: str) -> Words:
    return Words(
        "dockerd gets {key} on its command line (systemctl cat docker.service), and does not start where {file} names"
        " it too. Set it in one of the two",
        "dockerd получает {key} в командной строке (systemctl cat docker.service) и не запустится, если он есть и в"
        " {file}. Оставьте его в одном месте",
    ).by(key=key, file=FILE)


def _no_kind(key: str, kind: Words) -> Words:
    return Words("{file}: {key} is no {kind}", "{file}: {key} - не {kind}").by(
        file=FILE, key=key, kind=Words(kind.en.split()[-1], kind.ru)
    )


def _former_file(text: str | None, current: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a file that we wrote whole, with no record beside it (releases before it; a run that was cut)."""
    whole = current.keys() >= {"log-driver", "log-opts", "live-restore"} and current.keys() <= _OUR_KEYS
    form = json.dumps(current, indent=2, sort_keys=True, ensure_ascii=False)
    if not whole or (text or "").strip() != form or current["log-driver"] != "json-file":
        return {}
    return dict(current) if set(current["log-opts"]) == {"max-size", "max-file"} else {}


def recorded(record: str) -> dict[str, Any]:
    """Which settings are ours, and with which Docker was last started by us."""
    try:
        found = json.loads(record)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _without(current: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The settings less what we wrote; what somebody changed since is theirs."""
    theirs = {}
    pair = all(current.get(key) == ours.get(key) for key in ("log-driver", "log-opts"))
    for key, value in current.items():
        mine = ours.get(key)
        if key in ("log-driver", "log-opts") and mine is not None:
            if not pair:
                theirs[key] = value
        elif isinstance(value, list) and isinstance(mine, list) and key == "insecure-registries":
            left = [item for item in value if item not in mine]
            if left:
                theirs[key] = left
        elif isinstance(value, dict) and isinstance(mine, dict):
            left_over = {
                name: item for name, item in value.items() if mine.get(name, item) != item or name not in mine
            }
            if left_over:
                theirs[key] = left_over
        elif mine is None or value != mine:
            theirs[key] = value
    return theirs


def _our_part(key: str, value: Any, theirs: Mapping[str, Any]) -> Any:
    there = theirs.get(key)
    if key == "insecure-registries" and isinstance(there, list):
        return [item for item in value if item not in there]
    if isinstance(value, dict) and isinstance(there, dict):
        return {name: item for name, item in value.items() if there.get(name) != item}
    return value


def record_text(ours: Mapping[str, Any]) -> str:
    """The file that remembers what of the settings is ours and runs."""
    return json.dumps(ours, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def differing(
    settings: Mapping[str, Any], info: Mapping[str, Any], bridge: Sequence[Mapping[str, str]]
) -> list[str]:
    """Keys that the engine runs with otherwise than the settings say, as far as it tells.

    Args:
        settings: of a daemon.json.
        info: of `docker info`, the keys that outpost_strangers keeps.
        bridge: of its network `bridge`, `subnet` and `gateway`.
    """
    registries = info.get("RegistryConfig") or {}
    indexes = registries.get("IndexConfigs") or {}
    insecure = {name for name, one in indexes.items() if not one.get("Secure", True)}
    insecure |= set(registries.get("InsecureRegistryCIDRs") or ())
    mirrors = [str(mirror).rstrip("/") for mirror in registries.get("Mirrors") or ()]
    pools = [(pool.get("Base"), pool.get("Size")) for pool in info.get("DefaultAddressPools") or ()]
    same: dict[str, bool] = {
        "log-driver": settings.get("log-driver") == info.get("LoggingDriver"),
        "live-restore": settings.get("live-restore") == info.get("LiveRestoreEnabled"),
        "data-root": str(settings.get("data-root", "")).rstrip("/") == str(info.get("DockerRootDir", "")),
        "insecure-registries": set(map(str, settings.get("insecure-registries") or ())) <= insecure,
        "registry-mirrors": [str(one).rstrip("/") for one in settings.get("registry-mirrors") or ()] == mirrors,
        "default-address-pools": [
            (pool.get("base"), pool.get("size")) for pool in settings.get("default-address-pools") or ()
        ] == pools,
        "bip": _has_bridge(str(settings.get("bip", "")), bridge),
    }  # fmt: skip
    return [key for key in settings if not same.get(key, True)]


def _has_bridge(bip: str, bridge: Sequence[Mapping[str, str]]) -> bool:
    try:
        wanted = ip_interface(bip)
    except ValueError:
        return True
    return any(
        one.get("gateway", "").split("/")[0] == str(wanted.ip) or
        (not one.get("gateway") and one.get("subnet") == str(wanted.network))
        for one in bridge
    )  # fmt: skip
