"""Lines on what a run starts from, before any host is asked: the release on the controller and the root secret.

Standard library only. Nothing here says a secret's value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from outpost.platform.codes import line
from outpost.platform.line import Line, Words, same

EXAMPLE: Final = "example-only"
SECRET_LENGTH: Final = 32
# A secret of `openssl rand -hex 32` has 12 or more different characters but once in a billion billion times.
_DISTINCT: Final = 10
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_TOLERANCE = timedelta(minutes=5)


def secret_fault(root: object) -> Words | None:
    """What is wrong with the root secret, without saying it; None where nothing is."""
    if not isinstance(root, str):
        # Ansible gives its values types of its own, derived from those that an admin knows.
        kind = next(one.__name__ for one in type(root).__mro__ if one.__module__ == "builtins")
        return Words("not a text ({kind})", "не текст ({kind})").by(kind=kind)
    if not root.strip():
        return Words("not set", "не задан")
    if root.startswith(EXAMPLE):
        return Words(
            "the worthless one of inventories/example, which everybody can read",
            "ничего не стоящий секрет из inventories/example, который может прочесть каждый",
        )
    if len(root) < SECRET_LENGTH:
        return Words("{n} characters long", "длина {n} знаков").by(n=len(root))
    repeated = any(root == (root[:n] * len(root))[: len(root)] for n in range(1, len(root) // 2 + 1))
    if repeated or len(set(root)) < _DISTINCT:
        return Words("a pattern that is quickly guessed", "узор, который быстро подобрать")
    return None


def secret_line(root: object) -> Line:
    """Judges outpost_root_secret."""
    fault = secret_fault(root)
    wanted = Words("a secret of your own, {n} characters or more", "собственный секрет, {n} знака или больше")
    return line("root-secret", fault is None, fault or Words("set", "задан"), wanted.by(n=SECRET_LENGTH))


def release_lines(directory: str, release: str, url: str, now: datetime) -> list[Line]:
    """Judges a release on the controller.

    Args:
        directory: where releases are, DIRECTORY/RELEASE/manifest.json.
        release: its version; empty names none, which is a fault.
        url: a web server that hosts fetch the archive from; the controller then needs the manifest alone.
        now: of the controller's clock, aware.
    """
    return list(_release(Path(directory), release, url, now))


def _release(directory: Path, release: str, url: str, now: datetime) -> Iterator[Line]:
    folder = directory / release
    fault, manifest = _manifest(folder, release)
    yield line(
        "release-there",
        fault is None,
        fault or same(release),
        Words("a manifest of that version in {d}", "манифест этой версии в {d}").by(d=directory),
        subject=release,
    )
    if fault is not None:
        return
    if made := _made_at(manifest):
        yield line(
            "controller-clock",
            now >= made - _TOLERANCE,
            same(now.isoformat(timespec="seconds")),
            same(f">= {made.isoformat(timespec='seconds')}"),
            subject=release,
        )
    if url:
        return
    image = manifest["image"]
    archive = folder / image["archive"]
    broken = _archive_fault(archive, image)
    yield line(
        "release-whole",
        broken is None,
        broken or Words("as the manifest says", "как в манифесте"),
        Words("{n} bytes, sha256 {d}…", "{n} байт, sha256 {d}…").by(
            n=image["archive_bytes"], d=image["archive_sha256"][:12]
        ),
        subject=str(archive),
    )


def _manifest(folder: Path, release: str) -> tuple[Words | None, Mapping[str, Any]]:
    if not release.strip():
        return Words("outpost_release names none", "outpost_release не задан"), {}
    file = folder / "manifest.json"
    try:
        manifest = json.loads(file.read_text())
    except OSError as error:
        return Words("{f}: {why}", "{f}: {why}").by(f=file, why=error.strerror), {}
    except ValueError as error:
        return Words("{f} is no JSON: {why}", "{f}: это не JSON: {why}").by(f=file, why=error), {}
    image = manifest.get("image") if isinstance(manifest, dict) else None
    if not isinstance(image, dict) or not (
        isinstance(image.get("archive"), str)
        and Path(image["archive"]).name == image["archive"]
        and isinstance(image.get("archive_bytes"), int)
        and _DIGEST.fullmatch(str(image.get("archive_sha256")))
        and _DIGEST.fullmatch(str(image.get("id")).removeprefix("sha256:"))
    ):
        return Words("{f} names no image", "{f} не называет образа").by(f=file), {}
    if manifest.get("version") != release:
        said = Words("{f} is of version {v}", "{f}: версия {v}").by(f=file, v=manifest.get("version"))
        return said, {}
    return None, manifest


def _made_at(manifest: Mapping[str, Any]) -> datetime | None:
    """None for a manifest of before, or one whose date cannot be read."""
    try:
        made = datetime.fromisoformat(str(manifest.get("made_at")))
    except ValueError:
        return None
    return made if made.tzinfo is not None else None


def _archive_fault(archive: Path, image: Mapping[str, Any]) -> Words | None:
    try:
        size = archive.stat().st_size
        if size != image["archive_bytes"]:
            return Words("{n} bytes", "{n} байт").by(n=size)
        digest = hashlib.sha256()
        with archive.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        return same(error.strerror or error)
    if digest.hexdigest() != image["archive_sha256"]:
        return Words("{n} bytes, sha256 {d}…", "{n} байт, sha256 {d}…").by(n=size, d=digest.hexdigest()[:12])
    return None


def disk_wanted_mib(manifest: Mapping[str, Any], least_mib: int) -> int:
    """Free MiB a host needs for this release: the archive, the image out of it, and the share that stays free.

    `image.unpacked_bytes` is what Docker's own count of the image is; of older manifests four times the archive.
    """
    image = manifest.get("image") or {}
    archive = int(image.get("archive_bytes", 0))
    unpacked = int(image.get("unpacked_bytes", 4 * archive))
    return max(least_mib, (archive + unpacked) // (1 << 20) + 1024)
