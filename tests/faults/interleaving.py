"""The race that makes a pynetdicom sender wait for an answer that has come, made certain.

Nothing is changed but the time that passes at two points, as a busy processor might let it pass:

* the association's reactor stands between `_reactor_checkpoint.wait()` and the line after it;
* the sender stands between sending its request and beginning to wait for the answer;
* meanwhile the answer comes; then the reactor goes on first, and after it the sender.

`python tests/faults/interleaving.py` shows it with pynetdicom as it is (docs/decisions/0015-c-store-that-hangs.md).
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association

_LIMIT_SECONDS = 10.0


class _Checkpoint(threading.Event):
    """The event at which the reactor pauses; it goes on only when told to, though it was let through."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.reached, self.go = threading.Event(), threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        passed = super().wait(timeout)
        self.reached.set()
        self.go.wait(_LIMIT_SECONDS)
        return passed


def interleave(opened: Association) -> None:
    """Have the next request on this association meet the race."""
    messages: Any = opened.dimse
    checkpoint = _Checkpoint()
    looked = threading.Event()
    send, get = messages.send_msg, messages.get_msg

    def get_msg(block: bool = False) -> Any:
        found = get(block)
        if not block and checkpoint.go.is_set():
            looked.set()
        return found

    def send_msg(primitive: Any, context_id: int) -> None:
        send(primitive, context_id)
        deadline = time.monotonic() + _LIMIT_SECONDS
        while messages.msg_queue.empty() and time.monotonic() < deadline:
            time.sleep(0.001)
        checkpoint.go.set()
        looked.wait(_LIMIT_SECONDS)

    opened._reactor_checkpoint = checkpoint
    messages.get_msg, messages.send_msg = get_msg, send_msg
    assert checkpoint.reached.wait(_LIMIT_SECONDS)


def image() -> Dataset:
    """The least that can be sent by C-STORE."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.StudyInstanceUID = made.SeriesInstanceUID = generate_uid()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


class Receiver:
    """A storage SCP that answers at once; `stored` are the instances it has."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        entity = AE("PACS")
        entity.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
        entity.add_supported_context("1.2.840.10008.1.1")
        self._server: Any = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)]
        )
        self.port: int = self._server.server_address[1]

    def _on_store(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def stop(self) -> None:
        self._server.shutdown()


def stock(port: int, timeout_seconds: float) -> tuple[Dataset, float]:
    """One C-STORE by pynetdicom as it is, meeting the race: its status, and how many seconds it took."""
    entity = AE("SENDER")
    entity.dimse_timeout = timeout_seconds
    entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    opened = entity.associate("127.0.0.1", port)
    assert opened.is_established
    interleave(opened)
    began = time.monotonic()
    status = opened.send_c_store(image())
    seconds = time.monotonic() - began
    # The thread of an association that nobody ends keeps the process from ending.
    opened.abort()
    return status, seconds


if __name__ == "__main__":
    receiver = Receiver()
    answer, seconds = stock(receiver.port, 5.0)
    receiver.stop()
    sys.stdout.write(
        f"the receiver holds {len(receiver.stored)} instance and has answered; "
        f"the sender has {'an answer' if 'Status' in answer else 'NO answer'} after {seconds:.1f} s\n"
    )
