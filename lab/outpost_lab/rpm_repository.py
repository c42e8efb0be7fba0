"""The signed RPM repository of the lab's mirror; built in a container of the image `rpm`, cached by content.

LAB_DIR/cache/rpm/<hash>/ is the repository, `current` the link the mirror serves: a rebuild swaps the link
and a running mirror has the new content at once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from outpost_lab import rpm_key
from outpost_lab.commands import docker
from outpost_lab.images import IMAGES, ImageStore, content_hash
from outpost_lab.progress import step
from outpost_lab.settings import REPOSITORY, Settings

_PACKAGE = REPOSITORY / "lab" / "outpost_lab"
_SOURCES = ("rpm_build.py", "rpm_catalogue.py", "rpm_spec.py")


def directory(settings: Settings) -> Path:
    """What the mirror mounts."""
    return settings.cache / "rpm"


def ensure(settings: Settings, store: ImageStore) -> None:
    """Build the repository unless one with the same inputs is there."""
    sources = [(_PACKAGE / name).read_text() for name in _SOURCES]
    inputs = [store.tag("rpm"), rpm_key.public_key(settings), *sources]
    wanted = content_hash([IMAGES / "rpm" / "payloads"], inputs)
    current = directory(settings) / "current"
    if not (current.is_symlink() and current.readlink() == Path(wanted) and (current / "repodata").is_dir()):
        store.ensure(["rpm"])
        with step("RPM repository"):
            _build(settings, store, wanted)


def _build(settings: Settings, store: ImageStore, wanted: str) -> None:
    base = directory(settings)
    debs, partial = settings.cache / "debs", base / f"{wanted}.partial"
    # Where the images are there already, from another checkout, nobody has made the folder of the logs yet.
    logs = settings.directory / "logs"
    shutil.rmtree(partial, ignore_errors=True)
    for path in (debs, partial, logs):
        path.mkdir(parents=True, exist_ok=True)
    mounts = {
        _PACKAGE: "/lab/outpost_lab:ro",
        IMAGES / "rpm" / "payloads": "/payloads:ro",
        rpm_key.home(settings): "/keys",
        debs: "/debs",
        partial: "/output",
    }
    volumes = [f"--volume={source}:{target}" for source, target in mounts.items()]
    with (logs / "rpm-repository.log").open("w") as log:
        workshop = [f"--label=outpost.lab={settings.name}", *volumes, "--workdir=/lab", store.tag("rpm")]
        program = ["python3", "-B", "-m", "outpost_lab.rpm_build", "/payloads", "/keys", "/debs", "/output"]
        docker("run", "--rm", *workshop, *program, f"{os.getuid()}:{os.getgid()}", log=log)
    final = base / wanted
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    link = base / "current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(wanted)
    link.replace(base / "current")
    for old in base.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name != wanted:
            shutil.rmtree(old)
