"""`outpost send`: files from the command line to a peer, with progress for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from pydicom.misc import is_dicom

from outpost import logs
from outpost.delivery.scu import NotSent, Peer, association, store

_BATCH = 128  # files an association; each may need a presentation context of its own, and 128 is the most


def send(peer: Peer, paths: Iterable[Path]) -> int:
    """Send files, and what is DICOM in folders. Exit status 0 when the peer has confirmed all, else 1."""
    logs.configure()
    files, faults = _find(paths)
    started, sent, size = time.monotonic(), 0, 0
    for begin in range(0, len(files), _BATCH):
        batch = files[begin : begin + _BATCH]
        try:
            with association(peer, batch) as opened:
                for file in batch:
                    try:
                        store(opened, file)
                    except NotSent as reason:
                        faults.append(f"{file}: {reason}")
                        if not opened.is_established:
                            raise
                    else:
                        sent, size = sent + 1, size + file.stat().st_size
                    _show(sent, len(files))
        except NotSent as reason:
            faults.append(str(reason))
            break
    _show(sent, len(files), end=True)
    for fault in faults:
        print(f"outpost send: {fault}", file=sys.stderr)
    seconds = time.monotonic() - started
    print(f"{sent} of {len(files)} files confirmed, {size / 1e6:.1f} MB in {seconds:.1f} s")
    return 0 if sent == len(files) and sent and not faults else 1


def _find(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """DICOM files to send, and what was named but cannot be sent. A DICOMDIR is an index, not an instance."""
    files, faults = [], []
    for path in paths:
        if path.is_dir():
            found = [
                f for f in sorted(path.rglob("*")) if f.is_file() and f.name != "DICOMDIR" and is_dicom(f)
            ]
            files += found
            if not found:
                faults.append(f"{path}: no DICOM files in this folder")
        elif path.is_file() and is_dicom(path):
            files.append(path)
        else:
            faults.append(f"{path}: not a DICOM file (Part 10): name files or folders of such")
    return files, faults


def _show(sent: int, of: int, *, end: bool = False) -> None:
    if sys.stderr.isatty():
        print(f"\r{sent}/{of}", end="\n" if end else "", file=sys.stderr, flush=True)
