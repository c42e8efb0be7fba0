"""An item as a tar archive: its images as they came, then manifest.json with why it is here and a digest of each.

The archive is made while it is read: a study may be larger than the memory. It holds what the sender sent, patient
data included; whoever exports it answers for where it goes.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from typing import Any

from outpost import __version__
from outpost.intake.spool import Spool
from outpost.quarantine import shelf
from outpost.reasons import explain
from outpost.records.journal import Journal, utc_now

_CHUNK = 1 << 20
_BLOCK = 512  # POSIX.1-2001 pax, ustar


def archive(journal: Journal, spool: Spool, item: shelf.Item) -> Iterator[bytes]:
    """The archive, piece by piece. An image that leaves meanwhile is named as missing in the manifest."""
    told: list[dict[str, Any]] = []
    for instance, path in shelf.files(journal, spool, item):
        name = f"{item.item}/{instance.sop_uid}.dcm"
        entry: dict[str, Any] = {"file": name, "sender": instance.source}
        told.append(entry)
        try:
            stream = path.open("rb") if path is not None else None
        except FileNotFoundError:
            stream = None
        if stream is None:
            entry["missing"] = True
            continue
        with stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            yield _header(name, size, item.at.timestamp())
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                yield chunk
            yield bytes(-size % _BLOCK)
            entry |= {"bytes": size, "sha256": digest.hexdigest()}
    reason = explain(item.reason)
    manifest = json.dumps(
        {
            "item": item.item,
            "system": journal.system,
            "outcome": item.outcome,
            "reason": item.reason,
            "meaning": reason.meaning if reason else "",
            "remedy": reason.remedy if reason else "",
            "detail": item.detail,
            "ended_at": item.at.isoformat(),
            "study_uid": item.study_uid,
            "revision": item.revision,
            "senders": list(item.senders),
            "exported_at": utc_now().isoformat(timespec="seconds"),
            "release": __version__,
            "files": told,
        },
        indent=1,
    ).encode()
    yield _header(f"{item.item}/manifest.json", len(manifest), item.at.timestamp())
    yield manifest + bytes(-len(manifest) % _BLOCK) + bytes(2 * _BLOCK)


def _header(name: str, size: int, moment: float) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(moment), 0o600
    return info.tobuf(tarfile.PAX_FORMAT)
