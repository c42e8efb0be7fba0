"""Lines on what else a run rests on: packages and their repositories, the release's web server, places to write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from outpost.platform.codes import line
from outpost.platform.line import Line, Words, listed, same
from outpost.platform.packages import looked, repair

# An installation of all packages and an image makes about 60 000 files under /var/lib, and a thousand elsewhere.
INODES_WANTED: Final = 100_000
# What a module and a package's script need for themselves.
_TEMPORARY_MIB: Final = 64


def surroundings_lines(read: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Line]:
    """Judges what preflight_read found around a run.

    Args:
        read: what the module preflight_read returned; what it lacks was not asked and is not judged.
        wanted: `packages` {manager, names} and `archive` {url, path, bytes}, each empty where nothing is to come.
    """
    return [
        *_places(read, wanted.get("archive") or {}),
        *_packages(read.get("surroundings") or {}, wanted.get("packages") or {}),
        *_release(read.get("surroundings") or {}, wanted.get("archive") or {}),
    ]


def _places(read: Mapping[str, Any], archive: Mapping[str, Any]) -> Iterator[Line]:
    around = read.get("surroundings") or {}
    for path, may in (around.get("writable") or {}).items():
        value = (
            Words("{p} can be written", "{p} доступен для записи")
            if may
            else Words("{p} is read-only", "{p} доступен только для чтения")
        )
        yield line("writable", may, value.by(p=path), Words("writable", "доступен для записи"), subject=path)
    for path, free in (read.get("inodes_free") or {}).items():
        if free >= 0:
            yield line(
                "inodes",
                free >= INODES_WANTED,
                Words("room for {n} more files at {p}", "в {p} есть место ещё для {n} файлов").by(
                    n=free, p=path
                ),
                Words("at least {n}", "не меньше {n}").by(n=INODES_WANTED),
                subject=path,
            )
    for path, free in (read.get("temporary_free_mib") or {}).items():
        # Copied from here, the archive comes by way of Ansible's own directory of temporary files.
        copied = (
            archive and not archive["url"] and not around["archive_there"] and path == around["remote_tmp"]
        )
        least = _TEMPORARY_MIB + (archive["bytes"] >> 20 if copied else 0)
        yield line(
            "temp-space",
            free >= least,
            Words("{n} MiB free at {p}", "{n} MiB свободно в {p}").by(n=free, p=path),
            Words("at least {n} MiB", "не меньше {n} MiB").by(n=least),
            subject=path,
        )


def _packages(read: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Line]:
    if not wanted or not read.get("packages"):
        return
    manager, names = wanted["manager"], wanted["names"]
    found = looked(manager, names, str(read["packages"]))
    if found is None:
        return
    readable = Words("its database can be read", "база пакетов читается")
    yield line(
        "package-tool",
        not found.unreadable,
        same(found.unreadable[:300]) if found.unreadable else readable,
        readable,
        subject=manager,
        remedy=Words("On the host: {c}", "На сервере: {c}").by(c=repair(manager, found.unreadable)),
    )
    if found.unreadable:
        return
    torn = listed(found.torn)
    yield line(
        "package-torn",
        not found.torn,
        Words("half installed: {n}", "установлены наполовину: {n}").by(n=torn or "-"),
        Words("every package whole", "все пакеты целы"),
    )
    if not found.missing:
        return
    answers = read.get("repositories") or {}
    dead = {place: why for place, why in answers.items() if why != "ok"}
    missing = Words("missing: {n}", "не хватает: {n}").by(n=listed(found.missing))
    yield line(
        "package-source",
        len(dead) < len(answers),
        missing
        + Words("; repositories that answer: {a} of {n}", "; отвечают репозитории: {a} из {n}").by(
            a=len(answers) - len(dead), n=len(answers)
        ),
        Words("a repository that answers", "репозиторий, который отвечает"),
    )
    for place, why in dead.items():
        yield line(
            "repository",
            False,
            Words("{p}: {w}", "{p}: {w}").by(p=place, w=why),
            Words("a TCP connection", "соединение TCP"),
            subject=place,
        )


def _release(read: Mapping[str, Any], archive: Mapping[str, Any]) -> Iterator[Line]:
    answer = read.get("release")
    if answer:
        yield line(
            "release-fetch",
            answer == "ok",
            same(f"{archive.get('url')}: {answer}"),
            Words("{n} bytes for this host", "{n} байт для этого сервера").by(n=archive.get("bytes")),
            subject=str(archive.get("url")),
        )
