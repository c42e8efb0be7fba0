"""What a run starts from, for tests whose playbooks judge it: a root secret, a release, an archive for results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT_SECRET = hashlib.sha256(b"a root secret of the tests").hexdigest()
ARCHIVE = b"an image"


def release(directory: Path, version: str = "1.2.3", **more: str) -> None:
    """A release that a run could deploy."""
    folder = directory / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.tar.gz").write_bytes(ARCHIVE)
    image = {
        "id": "sha256:" + "a" * 64, "archive": "image.tar.gz", "archive_bytes": len(ARCHIVE),
        "archive_sha256": hashlib.sha256(ARCHIVE).hexdigest(),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"version": version, "image": image, **more}))


def started_from(folder: Path) -> dict[str, Any]:
    """Inventory variables with which a run may begin; `folder` gets the release."""
    release(folder / "releases")
    return {
        "outpost_root_secret": ROOT_SECRET,
        "outpost_release": "1.2.3",
        "outpost_release_directory": str(folder / "releases"),
        "outpost_hospital_networks": [],
        "outpost_admin_networks": [],
        "outpost_centre_networks": [],
        "region_pacs": {"ae_title": "PACS", "host": "192.0.2.5", "port": 104},
    }
