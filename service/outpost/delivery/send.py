"""`outpost send`: files from the command line to a peer, with progress for a person."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydicom.misc import is_dicom
from pydicom.uid import UID

from outpost import logs
from outpost.codes.answers import complain
from outpost.codes.spoken import spoken
from outpost.delivery.scu import NotSent, Peer, PeerUnreachable, association, sent_as, store
from outpost.options import preferred_language

# Files an association, which carries 128 presentation contexts: each file may need one of its own, and up to two
# more for other encodings of the same values.
_BATCH = 42


def send(peer: Peer, paths: Iterable[Path]) -> int:
    """Send files, and what is DICOM in folders. Exit status 0 when the peer has confirmed all, else 1."""
    logs.configure()
    files, faults = _find(paths)
    started, sent, size = time.monotonic(), 0, 0
    told: Counter[str] = Counter()  # what else there is to say of files that were confirmed
    for begin in range(0, len(files), _BATCH):
        batch = files[begin : begin + _BATCH]
        try:
            with association(peer, batch) as link:
                for file in batch:
                    try:
                        remark = store(link, file)
                    except PeerUnreachable as reason:
                        faults.append(f"{file}: {reason}")
                        raise
                    except NotSent as reason:
                        faults.append(f"{file}: {reason}")
                    else:
                        sent, size = sent + 1, size + file.stat().st_size
                        if remark:
                            told[f"with the remark {remark}"] += 1
                        if syntax := sent_as(link, file):
                            told[f"in {UID(syntax).name}, as the peer does not take their own encoding"] += 1
                    _show(sent, len(files))
        except PeerUnreachable as reason:
            if not faults or str(reason) not in faults[-1]:
                faults.append(str(reason))
            break
    _show(sent, len(files), end=True)
    for fault in faults:
        complain("outpost send", fault)
    seconds = time.monotonic() - started
    language = preferred_language()
    print(spoken(f"{sent} of {len(files)} files confirmed, {size / 1e6:.1f} MB in {seconds:.1f} s", language))
    for what, count in told.items():
        print(spoken(f"{count} of them {what}", language))
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
