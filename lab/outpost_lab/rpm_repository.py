"""The signed RPM repository of the lab's mirror; built in a container of the image `rpm`, cached by content."""

from __future__ import annotations

from pathlib import Path

from outpost_lab.errors import LabError
from outpost_lab.images import ImageStore
from outpost_lab.settings import Settings


def directory(settings: Settings) -> Path:
    """What the mirror serves as /redos/."""
    return settings.cache / "redos"


def ensure(settings: Settings, store: ImageStore) -> None:
    """Build the repository where it is missing."""
    raise LabError("The RPM repository is not built yet in this commit; hosts but train and mirror work.")
