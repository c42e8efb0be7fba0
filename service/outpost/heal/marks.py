"""A word in a study's folder of the spool on what became of it, for the day on which the journal is lost.

The folder of a study that a worker was given has one empty file `.r<revision>-<digest of its images' names>`, synced
with the folder and so for nothing. Once every destination has the result it is `.d...` instead, and says in JSON what
was delivered. By it a rebuilt journal computes a study again under the very UIDs it had, and none that was delivered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_NAME: Final = re.compile(r"\.([rd])([0-9]{1,9})-([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest word in a folder. `said` is what was delivered, as `delivered` took it; empty where it is lost."""

    revision: int
    delivered: bool
    images: str
    said: dict[str, Any]


def digest_of(images: Iterable[str]) -> str:
    """The digest of a set of SOP Instance UIDs."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()[:16]


def mark_computed(folder: Path, revision: int, images: Iterable[str]) -> None:
    """A worker is about to be given these images. The caller syncs the folder. Raises OSError."""
    wanted = f".r{revision}-{digest_of(images)}"
    for old in folder.glob(".[rd][0-9]*-*"):
        if old.name != wanted:
            old.unlink()
    (folder / wanted).touch()


def mark_delivered(folder: Path, revision: int, said: dict[str, Any]) -> None:
    """Every destination has the results of this revision. Not synced: lost, it costs computing it once more."""
    for file in folder.glob(f".r{revision}-*"):
        with suppress(OSError):
            file.write_text(json.dumps(said), encoding="utf-8")
            file.rename(folder / f".d{file.name[2:]}")


def mark_in(folder: Path) -> Mark | None:
    """The word on the newest revision in this folder; None where there is none."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            named = _NAME.fullmatch(path.name)
            if named is not None:
                found.append((int(named[2]), named[1] == "d", named[3], path))
    if not found:
        return None
    revision, delivered, images, path = max(found, key=lambda one: one[:3])
    said: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        read = json.loads(path.read_text(encoding="utf-8")) if delivered else {}
        said = read if isinstance(read, dict) else {}
    return Mark(revision, delivered, images, said)
