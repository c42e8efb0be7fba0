"""The folders of the storage root, there and folders, whatever has their names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from outpost.heal.found import put_aside

# What the service makes, by its parts: intake, delivery, quarantine, filter, drift, engines.
FOLDERS: Final = (
    "spool",
    "spool/.incoming",
    "outbox",
    "outbox/.work",
    "quarantine",
)
_OPTIONAL: Final = ("rules", "drift", "drift/days", "drift/months", "engines", "journal-damaged")


def make_folders(root: Path) -> None:
    """Have every folder in its place; what has the name of one and is none is put aside. Never raises.

    What cannot be made is told by whoever needs it.
    """
    for name in (*FOLDERS, *_OPTIONAL):
        folder = root / name
        try:
            if folder.is_dir() or (name in _OPTIONAL and not folder.exists() and not folder.is_symlink()):
                continue
            if folder.is_symlink() and not folder.exists():
                continue  # to a file system that is not mounted: whoever needs it says so
            if folder.exists():
                put_aside(folder, "it is no folder", "an empty folder has its place")
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
