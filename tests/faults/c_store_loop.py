"""C-STORE again and again, by the couriers' code or by pynetdicom's own, to count answers that do not arrive.

    python tests/faults/c_store_loop.py ours|stock [NUMBER] [--storescp]

Each association carries 100 instances, as a courier's does; the receiver is a process of its own: pynetdicom, or
DCMTK's storescp. Load the host meanwhile: the race needs a thread that has to wait for a processor.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interleaving import Receiver, image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from outpost.delivery.scu import NotSent, Peer, association, store

_BATCH = 100
_SECONDS = 5.0  # an answer that has not come by then does not come


def ours(port: int, file: Path, number: int) -> int:
    """Returns how many C-STOREs had no answer."""
    lost = 0
    for _ in range(number // _BATCH):
        with association(Peer("127.0.0.1", port, "PACS", "LOOP", answer_seconds=_SECONDS), [file]) as link:
            for _ in range(_BATCH):
                try:
                    store(link, file)
                except NotSent as why:
                    print(why)
                    lost += 1
                    break
    return lost


def stock(port: int, file: Path, number: int) -> int:
    """The same by pynetdicom's `send_c_store`."""
    lost = 0
    entity = AE("LOOP")
    entity.dimse_timeout = _SECONDS
    entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    for _ in range(number // _BATCH):
        opened = entity.associate("127.0.0.1", port, evt_handlers=[(evt.EVT_CONN_OPEN, _promptly)])
        for _ in range(_BATCH):
            if "Status" not in opened.send_c_store(file):
                lost += 1
                break
        opened.release()
    return lost


def _promptly(event: evt.Event) -> None:
    """As ours does, else each waits 40 ms for the receiver's delayed acknowledgement."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    who, number = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.dcm"
        image().save_as(file, enforce_file_format=True)
        if "--storescp" in sys.argv:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            command = ["/usr/bin/storescp", "--ignore", str(port)]
        else:
            receive = (
                "import sys, time, interleaving; r = interleaving.Receiver(); print(r.port, flush=True); "
                "time.sleep(1e6)"
            )
            command = [sys.executable, "-c", receive]
        receiver = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL
        )
        assert receiver.stdout is not None
        port = port if "--storescp" in sys.argv else int(receiver.stdout.readline())
        time.sleep(0.5)
        began = time.monotonic()
        lost = {"ours": ours, "stock": stock}[who](port, file, number)
        seconds = time.monotonic() - began
        receiver.kill()
        receiver.wait()
    print(f"{who}: {number} C-STOREs in {seconds:.0f} s, {lost} without an answer")


if __name__ == "__main__":
    assert Receiver  # what the other process runs
    main()
