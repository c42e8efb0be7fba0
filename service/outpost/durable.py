"""Surviving a power cut on POSIX: fsync of the file, then of the folder that names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Wait until names created, renamed or removed in this folder are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def write_durably(target: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that appears under its name only once it is complete and on the disk.

    Args:
        target: its name; the folder exists. A file of that name is replaced.
        write: puts the content into the stream it is given.
    """
    partial = target.with_suffix(".partial")
    with partial.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(target)
    sync_folder(target.parent)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
