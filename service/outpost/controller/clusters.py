"""Which cluster of PostgreSQL holds our database, judged by what the module postgresql_clusters read on the host.

A wrong answer is a new empty database behind a green run: what is not clear stops the run, with every cluster in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from outpost.platform.line import Language, Words

OURS: Final = frozenset({"outpost", "fleet"})
RUNBOOK: Final = Words("docs/runbooks/en/postgres-upgrade.md", "docs/runbooks/ru/postgres-upgrade.md")
# What a cluster is made as where the role makes it.
_NAME: Final = {"deb": "main", "rpm": "data"}
_OWN_NAME: Final = "outpost"
_NONE: Final = Words("", "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the role asks for. `cluster`: VERSION/NAME or a data directory, empty where the host decides. `anew`: a new
    database may be made although there was one. `family`: deb or rpm, as packages make clusters there.
    """

    database: str
    port: int
    family: str
    cluster: str = ""
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """`use` the cluster, `create` it, or `stop`; `install` is `create` before the packages are there."""

    kind: Literal["use", "create", "install", "stop"]
    cluster: Mapping[str, Any]
    words: Words = _NONE


def choose(read: Mapping[str, Any], wanted: Wanted) -> Choice:
    """Says which cluster holds the database, or which one it is to be made in. `read`: of postgresql_clusters."""
    read = {
        **read,
        "traces": [path for path in read["traces"] if ("/fleet." in path) == (wanted.database == "fleet")],
    }
    clusters = list(read["clusters"])
    holders = [one for one in clusters if wanted.database in one["databases"]]
    if wanted.cluster:
        return _named(read, wanted, clusters, holders)
    if read["mark"] == "damaged":
        why = Words(
            "the file that remembers our cluster cannot be read", "файл, где записан наш кластер, не читается"
        )
        return _stop(read, wanted, why, _NAME_IT)
    if read["mark"]:
        return _marked(read, wanted, clusters, holders)
    if len(holders) > 1:
        why = Words("{n} clusters hold a database of that name", "база с таким именем есть в кластерах: {n}")
        return _stop(read, wanted, why.by(n=len(holders)), _NAME_IT)
    if holders:
        return _usable(read, wanted, holders[0])
    return _without(read, wanted, clusters)


def _marked(
    read: Mapping[str, Any], wanted: Wanted, clusters: Sequence[Any], holders: Sequence[Any]
) -> Choice:
    mark = read["mark"]
    same = [one for one in clusters if one["system_identifier"] == str(mark["system_identifier"])]
    ours = [one for one in same if one in holders]
    if len(ours) > 1:
        why = Words("{n} clusters are copies of ours", "кластеров - копий нашего: {n}").by(n=len(ours))
        return _stop(read, wanted, why, _NAME_IT)
    if not same:
        if wanted.anew:
            return _without(read, wanted, clusters)
        why = Words(
            "our cluster (PostgreSQL {version}, {data}, system identifier {id}) is not on this host",
            "нашего кластера (PostgreSQL {version}, {data}, system identifier {id}) на узле нет",
        ).by(version=mark.get("version", "?"), data=mark.get("data", "?"), id=mark["system_identifier"])
        return _stop(read, wanted, why, _BRING_BACK)
    if not ours:
        # After a power cut the newest names are in its log alone: they are read when it has started.
        if wanted.anew or (same[0]["unnamed"] and not same[0]["running"]):
            return _usable(read, wanted, same[0])
        why = Words(
            "our cluster ({data}) is there and holds no database {database}",
            "наш кластер ({data}) на месте, но базы {database} в нём нет",
        ).by(data=same[0]["data"], database=wanted.database)
        return _stop(read, wanted, why, _RESTORE)
    chosen = ours[0]
    other = next((one for one in holders if one is not chosen and _leads(one, chosen, wanted)), None)
    if other:
        why = Words(
            "our cluster ({data}) does not serve, and another one that does ({other}) holds a database of that name: "
            "an upgrade was made",
            "наш кластер ({data}) не работает, а работает другой ({other}), и база с таким именем есть и в нём: "
            "было обновление",
        ).by(data=chosen["data"], other=other["data"])
        return _stop(read, wanted, why, _NAME_IT)
    return _usable(read, wanted, chosen)


def _leads(other: Mapping[str, Any], chosen: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether the other cluster serves in place of the chosen one."""
    if other["running"] != chosen["running"]:
        return bool(other["running"])
    return str(other["port"]) == str(wanted.port) != str(chosen["port"])


def _named(
    read: Mapping[str, Any], wanted: Wanted, clusters: Sequence[Any], holders: Sequence[Any]
) -> Choice:
    """postgresql_cluster of the inventory decides, but never for an empty cluster beside one that has our rows."""
    name = wanted.cluster.rstrip("/")
    found = [one for one in clusters if name in (f"{one['version']}/{one['name']}", one["data"].rstrip("/"))]
    others = [one for one in holders if one not in found]
    if others and not any(one in holders for one in found) and not wanted.anew:
        why = Words(
            "postgresql_cluster names {name}, and the database is in {other}",
            "postgresql_cluster называет {name}, а база есть в {other}",
        ).by(name=name, other=", ".join(one["data"] for one in others))
        return _stop(read, wanted, why, _NAME_IT)
    if found:
        empty = not any(one in holders for one in found)
        if empty and read["mark"] and not wanted.anew:
            why = Words(
                "postgresql_cluster names {name}, which holds no database {database}, and there was one",
                "postgresql_cluster называет {name}, базы {database} там нет, а она была",
            ).by(name=name, database=wanted.database)
            return _stop(read, wanted, why, _RESTORE)
        if found[0]["contents"] != "initialised":
            return _make(read, wanted, found[0])
        return _usable(read, wanted, found[0])
    if (read["mark"] or read["traces"]) and not wanted.anew:
        why = Words(
            "postgresql_cluster names {name}, which is not there, and there was a database",
            "postgresql_cluster называет {name}, его нет, а база была",
        ).by(name=name)
        return _stop(read, wanted, why, _BRING_BACK)
    version, _, own = name.partition("/")
    if wanted.family != "deb" or not version.isdigit() or not own or "/" in own:
        why = Words(
            "postgresql_cluster names {name}, which is not there",
            "postgresql_cluster называет {name}, его нет",
        )
        return _stop(read, wanted, why.by(name=name), _NAME_IT)
    return _make(read, wanted, _new(wanted.family, version, own))


def _without(read: Mapping[str, Any], wanted: Wanted, clusters: Sequence[Any]) -> Choice:
    """No cluster holds the database: is that so because there never was one?"""
    unread = [one for one in clusters if one["unnamed"]]
    away = [
        one for one in clusters
        if one["contents"] in ("missing", "empty", "other") and (one["layout"] == "deb" or _at_mount(read, one["data"]))
    ]  # fmt: skip
    if not wanted.anew:
        if read["traces"]:
            why = Words(
                "no cluster holds it, and systems have worked with it ({trace})",
                "её нет ни в одном кластере, а системы с ней работали ({trace})",
            ).by(trace=read["traces"][0])
            return _stop(read, wanted, why, _BRING_BACK)
        if unread:
            why = Words("what is in {data} cannot be read", "что в {data}, прочесть нельзя").by(
                data=unread[0]["data"]
            )
            return _stop(read, wanted, why, _START_IT)
        if away:
            why = Words(
                "the data directory {data} of a cluster that is configured is {what}",
                "каталог данных {data} настроенного кластера: {what}",
            ).by(data=away[0]["data"], what=_CONTENTS[away[0]["contents"]])
            return _stop(read, wanted, why, _BRING_BACK)
    free = [
        one for one in clusters
        if one["contents"] == "initialised" and one["programs"] and one["layout"] in ("deb", "rpm")
        and set(one["databases"]) <= OURS and not one["unnamed"]
    ]  # fmt: skip
    if free:
        # Where several are empty: the one on our port, then the one that runs, then the newest.
        best = max(
            free,
            key=lambda one: (str(one["port"]) == str(wanted.port), one["running"], _number(one["version"])),
        )
        return _usable(read, wanted, best)
    strangers = [one for one in clusters if one["contents"] == "initialised" and one["databases"]]
    if not read["installed"]:
        base = "/var/lib/postgresql" if wanted.family == "deb" else "/var/lib/pgsql"
        below = next((one for one in read["unmounted"] if f"{one['path']}/".startswith(f"{base}/")), None)
        return _make(
            read, wanted, _new(wanted.family, "", "") | {"data": below["path"] if below else base}, "install"
        )
    version = max(read["installed"], key=_number)
    if wanted.family == "rpm":
        place = next(
            (one for one in clusters if one["contents"] in ("missing", "empty") and one["programs"]),
            None,
        )
        if place is None and strangers:
            why = Words(
                "every cluster is somebody else's, and packages of this system make one a version",
                "все кластеры чужие, а пакеты этой системы создают один на версию",
            )
            return _stop(read, wanted, why, _NAME_IT)
        if place is None and read["installed"][version].endswith("/usr/bin"):
            place = {
                **_new("rpm", version, "data"),
                "data": "/var/lib/pgsql/data",
                "config": "/var/lib/pgsql/data",
            }
            place["unit"] = "postgresql.service"
        return _make(read, wanted, place or _new("rpm", version, "data"))
    return _make(read, wanted, _new("deb", version, _OWN_NAME if strangers else _NAME["deb"]))


def _usable(read: Mapping[str, Any], wanted: Wanted, one: Mapping[str, Any]) -> Choice:
    """The cluster is the right one; can it be started by what is installed, and as what?"""
    if one["contents"] != "initialised":
        why = Words("{data} holds no cluster: {what}", "в {data} кластера нет: {what}")
        return _stop(read, wanted, why.by(data=one["data"], what=_CONTENTS[one["contents"]]), _BRING_BACK)
    away = _at_mount(read, one["data"])
    if away and not (read["mark"] and one["system_identifier"] == str(read["mark"]["system_identifier"])):
        return _stop(read, wanted, _away(one["data"], away), _BRING_BACK)
    if one["layout"] in ("orphan", "other"):
        why = Words(
            "it is in {data}, which no configuration of this system's packages names",
            "она в {data}, а настройки пакетов этой системы такого кластера не знают",
        )
        return _stop(read, wanted, why.by(data=one["data"]), _CONFIGURE)
    foreign = bool(one["version"] and one["data_version"] != one["version"])
    if not one["programs"] or foreign:
        have = ", ".join(sorted(read["installed"], key=_number)) or "-"
        why = Words(
            "it is in {data}, written by PostgreSQL {version}; installed: {have}. That server does not start on it",
            "она в {data}, записана PostgreSQL {version}; установлены: {have}. Такой сервер на ней не запустится",
        ).by(data=one["data"], version=one["data_version"], have=have)
        return _stop(read, wanted, why, _UPGRADE)
    blocked = _port_taken(read, wanted, one)
    return blocked or Choice("use", one)


def _make(
    read: Mapping[str, Any],
    wanted: Wanted,
    one: Mapping[str, Any],
    kind: Literal["create", "install"] = "create",
) -> Choice:
    """A cluster is to be made there, or comes with the packages."""
    away = _at_mount(read, str(one["data"]))
    if away:
        why = Words(
            "{data} is on {path}, which is not mounted ({source})",
            "{data} на {path}, а он не смонтирован ({source})",
        ).by(data=one["data"], path=away["path"], source=away["from"])
        return _stop(read, wanted, why, _BRING_BACK)
    if one["contents"] == "other":
        why = Words("{data} holds files that are no cluster", "в {data} лежат файлы, но это не кластер")
        return _stop(read, wanted, why.by(data=one["data"]), _BRING_BACK)
    return _port_taken(read, wanted, one) or Choice(kind, one)


def _port_taken(read: Mapping[str, Any], wanted: Wanted, one: Mapping[str, Any]) -> Choice | None:
    """Two servers on one port: the second does not start, or the first one does not after the next boot."""
    other = next(
        (
            other for other in read["clusters"]
            if other["data"] != one["data"] and other["running"] and str(other["port"]) == str(wanted.port)
        ),
        None,
    )  # fmt: skip
    if other is None:
        return None
    why = Words(
        "port {port} is that of another cluster ({data})", "порт {port} занят другим кластером ({data})"
    ).by(port=wanted.port, data=other["data"])
    return _stop(read, wanted, why, _OTHER_PORT)


def _at_mount(read: Mapping[str, Any], data: str) -> Mapping[str, Any] | None:
    """The mount point at or above a data directory that should be mounted and is not."""
    return next(
        (
            one
            for one in read["unmounted"]
            if (data.rstrip("/") + "/").startswith(one["path"].rstrip("/") + "/")
        ),
        None,
    )


def _away(data: str, away: Mapping[str, Any]) -> Words:
    return Words(
        "{data} is on {path}, which is not mounted ({source})",
        "{data} на {path}, а он не смонтирован ({source})",
    ).by(data=data, path=away["path"], source=away["from"])


def _new(family: str, version: str, name: str) -> dict[str, Any]:
    """A cluster that the packages' own tools make, as it will be."""
    deb = family == "deb"
    data = f"/var/lib/postgresql/{version}/{name}" if deb else f"/var/lib/pgsql/{version}/data"
    return {
        "layout": family, "version": version, "name": name, "data": data,
        "config": f"/etc/postgresql/{version}/{name}" if deb else data,
        "unit": f"postgresql@{version}-{name}.service" if deb else f"postgresql-{version}.service",
        "port": "", "running": False, "contents": "missing", "data_version": "", "system_identifier": "",
        "clean": True, "databases": [], "unnamed": False,
        "programs": f"/usr/lib/postgresql/{version}/bin" if deb else f"/usr/pgsql-{version}/bin",
    }  # fmt: skip


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version).split(".") if part.isdigit())


_CONTENTS: Final[Mapping[str, Words]] = {
    "initialised": Words("a cluster", "кластер"),
    "empty": Words("empty", "пуст"),
    "missing": Words("missing", "отсутствует"),
    "other": Words("full of other files", "полон посторонних файлов"),
}
_NAME_IT: Final = Words(
    "Look which one has our rows, and name it: -e postgresql_cluster=VERSION/NAME, or its data directory "
    "(then keep it in the host's file); {runbook}.",
    "Посмотрите, в каком наши строки, и назовите его: -e postgresql_cluster=ВЕРСИЯ/ИМЯ или каталог данных (потом "
    "сохраните в файле узла); {runbook}.",
)
_BRING_BACK: Final = Words(
    "Mount the disk or bring the directory back from the backup, and run this again. If its rows may be lost: "
    "-e postgresql_database_anew=true, once; {runbook}.",
    "Смонтируйте диск или верните каталог из резервной копии и запустите снова. Если её строки могут пропасть: один "
    "раз -e postgresql_database_anew=true; {runbook}.",
)
_RESTORE: Final = Words(
    "Restore it from a dump, or name the cluster that has it. If its rows may be lost: "
    "-e postgresql_database_anew=true, once; {runbook}.",
    "Восстановите её из дампа или назовите кластер, где она есть. Если её строки могут пропасть: один раз "
    "-e postgresql_database_anew=true; {runbook}.",
)
_START_IT: Final = Words(
    "Start that cluster and shut it down cleanly, or mend it, and run this again. If there is nothing of ours in it: "
    "-e postgresql_database_anew=true, once; {runbook}.",
    "Запустите этот кластер и остановите штатно, или почините, и запустите снова. Если нашего в нём нет: один раз "
    "-e postgresql_database_anew=true; {runbook}.",
)
_CONFIGURE: Final = Words(
    "Give it back its configuration (Debian: /etc/postgresql/VERSION/NAME; else a unit with PGDATA), and run this "
    "again; {runbook}.",
    "Верните ему настройки (Debian: /etc/postgresql/ВЕРСИЯ/ИМЯ; иначе служба с PGDATA) и запустите снова; {runbook}.",
)
_UPGRADE: Final = Words(
    "Install the server of that version as well, or upgrade: {runbook}.",
    "Установите ещё и сервер той версии или обновите базу: {runbook}.",
)
_OTHER_PORT: Final = Words(
    "Set postgresql_port of this host to a free one (5433), or stop that cluster for good; {runbook}.",
    "Задайте узлу свободный postgresql_port (5433) или остановите тот кластер насовсем; {runbook}.",
)
_STOPPED: Final = Words(
    "Database {database}: {why}. Clusters here: {clusters}. {remedy} No cluster was changed.",
    "База {database}: {why}. Кластеры здесь: {clusters}. {remedy} Ни один кластер не изменён.",
)


def _stop(read: Mapping[str, Any], wanted: Wanted, why: Words, remedy: Words) -> Choice:
    away = [
        Words("{path} is not mounted", "{path} не смонтирован").by(path=one["path"])
        for one in read["unmounted"]
    ]
    said = [cluster_words(one) for one in read["clusters"]] + away
    listed = _joined(said) if said else Words("none", "нет")
    words = _STOPPED.by(database=wanted.database, why=why, clusters=listed, remedy=remedy.by(runbook=RUNBOOK))
    return Choice("stop", {}, words)


def _joined(parts: Sequence[Words]) -> Words:
    return Words("; ".join(part.en for part in parts), "; ".join(part.ru for part in parts))


def cluster_words(one: Mapping[str, Any]) -> Words:
    """One cluster: version and name, data directory, port, whether it runs, what is in it."""
    if one["contents"] != "initialised":
        holds = _CONTENTS[one["contents"]]
    elif one["databases"]:
        names = ", ".join(one["databases"])
        holds = Words("databases {names}", "базы {names}").by(names=names)
    else:
        holds = Words("no database", "баз нет")
    return Words(
        "{version}/{name} in {data}, port {port}, {state}, {holds}",
        "{version}/{name} в {data}, порт {port}, {state}, {holds}",
    ).by(
        version=one["data_version"] or one["version"] or "?", name=one["name"], data=one["data"], port=one["port"],
        state=Words("runs", "работает") if one["running"] else Words("does not run", "не работает"), holds=holds,
    )  # fmt: skip


def as_json(choice: Choice, language: Language) -> dict[str, Any]:
    """For the role: kind, cluster, why it stops."""
    return {"kind": choice.kind, "cluster": dict(choice.cluster), "words": choice.words.said(language)}


def upgrade_target(read: Mapping[str, Any], name: str, family: str) -> dict[str, Any]:
    """The cluster that an upgrade goes to, VERSION/NAME; as the packages' tools would make it where it is not there."""
    version, _, own = name.partition("/")
    found = next((one for one in read["clusters"] if f"{one['version']}/{one['name']}" == name), None)
    return dict(found) if found else _new(family, version, own)


def upgrade_fault(
    old: Mapping[str, Any], new: Mapping[str, Any], name: str, database: str, installed: Mapping[str, str]
) -> Words:
    """Why the database cannot be brought from one cluster into the other; empty where it can."""
    version, _, own = name.partition("/")
    if not version.isdigit() or not own or "/" in own:
        return Words(
            f"Say where the database goes: -e postgresql_upgrade_to=VERSION/NAME, as 17/main. Given: {name or '-'}.",
            f"Куда перенести базу: -e postgresql_upgrade_to=ВЕРСИЯ/ИМЯ, например 17/main. Дано: {name or '-'}.",
        )
    if version not in installed:
        have = ", ".join(sorted(installed, key=_number))
        return Words(
            f"PostgreSQL {version} is not installed (there is: {have}). Install its server and contrib packages first.",
            f"PostgreSQL {version} не установлен (есть: {have}). Сначала установите его сервер и contrib.",
        )
    if _number(version) < _number(old["version"]):
        return Words(
            f"{name} is older than {old['version']}/{old['name']}: PostgreSQL brings no database back.",
            f"{name} старее, чем {old['version']}/{old['name']}: назад PostgreSQL базы не переносит.",
        )
    others = sorted((set(old["databases"]) | set(new["databases"])) - {database})
    if old["data"] != new["data"] and others:
        return Words(
            f"The clusters hold other databases, too ({', '.join(others)}): they are somebody else's to bring over.",
            f"В кластерах есть и другие базы ({', '.join(others)}): их переносит их хозяин.",
        )
    if new["contents"] == "initialised" and new["data_version"] != version:
        return Words(
            f"{new['data']} was written by PostgreSQL {new['data_version']}.",
            f"{new['data']} записан PostgreSQL {new['data_version']}.",
        )
    return _NONE
