"""pynetdicom's readers of PDUs and messages, with bounds on what a peer may have them hold.

They gather a message in memory before anybody looks at it, and make objects of each item of a request: without bounds
a peer chooses how many. What is beyond any DICOM, or out of the order that PS3.7 and PS3.8 lay down, ends the
association, and says why.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, cast

from pynetdicom import evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import _MESSAGE_TYPES, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, N_EVENT_REPORT
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA

log = logging.getLogger(__name__)

MIB: Final = 1 << 20
# Larger than any PDU we allow (128 KiB of data) and any association request: such a length is no DICOM.
LARGEST_PDU: Final = MIB
_ASSOCIATE, _ASSOCIATE_AC, _DATA = 1, 2, 4
# An association carries 128 presentation contexts at most (PS3.8 9.3.2: odd numbers up to 255), each of which may
# propose every transfer syntax there is.
_REQUEST_BYTES: Final = 256 * 1024
_CONTEXTS: Final = 128
_USER_ITEMS: Final = 1024
_ITEMS_INSIDE: Final = 12_000
_CONTEXT, _USER = (0x20, 0x21), 0x50
# A PDU carries a fragment, of some senders a command and a data set.
_FRAGMENTS: Final = 1024
_COMMAND_BYTES: Final = 16 * 1024
_COMMAND_ELEMENTS: Final = 64
_COMMAND_FIELD, _DATA_SET_TYPE = 0x0100, 0x0800
# Of all but C-STORE, whose data set goes to a file: storage commitment reports, and what nobody here looks at.
_DATA_SET_BYTES: Final = MIB
# Requests that wait for their turn; no peer has more than one on its way (PS3.7 D.3.3.3).
MOST_WAITING: Final = 8


class BeyondBounds(Exception):
    """A peer sends what no DICOM peer does. The text says what, never with a value of it."""


def _noted(_title: str, words: str) -> None:
    log.warning("an association ends: %s", words)


class BoundedDul(DULServiceProvider):
    """Looks at a PDU before pynetdicom makes objects of it."""

    refused: Callable[[str, str], None] = staticmethod(
        _noted
    )  # with the calling AE title where that is known, and why

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        title = ""
        try:
            if bytestream[0] in (_ASSOCIATE, _ASSOCIATE_AC):
                title = bytes(bytestream[26:42]).decode("ascii", "replace").strip()
                _require_request(bytestream)
            elif bytestream[0] == _DATA:
                _require_fragments(bytestream)
            elif len(bytestream) > _COMMAND_BYTES:
                raise BeyondBounds("a PDU that has no content bears some")
        except BeyondBounds as bound:
            self.refused(title, str(bound))
            raise  # pynetdicom ends the association at what it cannot decode
        return super()._decode_pdu(bytestream)


class BoundedDimse(DIMSEServiceProvider):
    """Gathers messages as pynetdicom does, each within bounds and in its order."""

    refused: Callable[[str, str], None] = staticmethod(_noted)
    _reporting: tuple[threading.Thread, ...] = ()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of a PDU. Never raises: what is wrong ends the association."""
        try:
            fragments = primitive.presentation_data_value_list
            for fragment in fragments:
                self._require_order(fragment[1])
                # One by one: pynetdicom drops what follows the end of a message in the same PDU.
                if len(fragments) > 1:
                    primitive = P_DATA()
                    primitive.presentation_data_value_list.append(fragment)
                self._take(primitive)
        except BeyondBounds as bound:
            self.refused("", str(bound))
            self.dul.event_queue.put("Evt19")  # pynetdicom's name for a PDU that is none
        except Exception as error:  # pynetdicom and pydicom raise many types on hostile commands
            self.refused("", f"a command that cannot be read ({type(error).__name__})")
            self.dul.event_queue.put("Evt19")

    def _require_order(self, data: bytes) -> None:
        if not data:
            raise BeyondBounds("a fragment without a control header")
        message = self.message
        has_command = message is not None and type(message) is not DIMSEMessage
        if data[0] & 1:
            if has_command:
                raise BeyondBounds("a command in the middle of a data set")
            before = message.encoded_command_set if message is not None else None
            if (before.tell() if before is not None else 0) + len(data) > _COMMAND_BYTES:
                raise BeyondBounds(f"a command of more than {_COMMAND_BYTES} bytes")
            if data[0] & 2:
                _require_command((before.getvalue() if before is not None else b"") + data[1:])
            return
        if not has_command:
            raise BeyondBounds("a data set without a command")
        assert message is not None  # as it has a command
        if (
            message._data_set_file is None
            and cast("Any", message.data_set).tell() + len(data) > _DATA_SET_BYTES
        ):
            raise BeyondBounds(
                f"a data set of more than {_DATA_SET_BYTES // MIB} MiB that is not to be stored"
            )

    def _take(self, primitive: P_DATA) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
        if not self.message.decode_msg(primitive, self.assoc):
            return
        message, self.message = self.message, None
        evt.trigger(self.assoc, evt.EVT_DIMSE_RECV, {"message": message})
        context_id = cast("int", message.context_id)
        request = message.message_to_primitive()
        if isinstance(request, C_CANCEL):
            return  # nothing here takes so long that it could be cancelled
        if isinstance(request, N_EVENT_REPORT) and request.is_valid_request and self.assoc.is_requestor:
            # In a thread, as pynetdicom does: that of the association waits for an answer.
            threading.Thread(
                target=self.assoc._serve_request, args=(request, context_id), daemon=True
            ).start()
            return
        self.msg_queue.put((context_id, request))


def _require_request(pdu: bytearray) -> None:
    """An A-ASSOCIATE of a size that can be. Raises `BeyondBounds`; what is malformed pynetdicom says."""
    if len(pdu) > _REQUEST_BYTES:
        raise BeyondBounds(f"a request for an association of more than {_REQUEST_BYTES // 1024} KiB")
    contexts = users = inside = 0
    at = 74
    while at + 4 <= len(pdu):
        kind, length = pdu[at], int.from_bytes(pdu[at + 2 : at + 4], "big")
        end = at + 4 + length
        if kind in _CONTEXT:
            contexts += 1
            inside += _count(pdu, at + 8, end)
        elif kind == _USER:
            users += 1 + _count(pdu, at + 4, end)
        else:
            users += 1
        if contexts > _CONTEXTS:
            raise BeyondBounds(f"a request for more than {_CONTEXTS} presentation contexts")
        if inside > _ITEMS_INSIDE:
            raise BeyondBounds(f"a request of more than {_ITEMS_INSIDE} transfer syntaxes")
        if users > _USER_ITEMS:
            raise BeyondBounds(f"a request of more than {_USER_ITEMS} items of user information")
        at = end


def _count(pdu: bytearray, at: int, end: int) -> int:
    count = 0
    while at + 4 <= min(end, len(pdu)):
        at += 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")
        count += 1
    return count


def _require_fragments(pdu: bytearray) -> None:
    at, count = 6, 0
    while at + 4 <= len(pdu):
        length = int.from_bytes(pdu[at : at + 4], "big")
        if length < 2 or at + 4 + length > len(pdu):
            raise BeyondBounds("a fragment that is not as long as it says")
        at += 4 + length
        count += 1
        if count > _FRAGMENTS:
            raise BeyondBounds(f"a PDU of more than {_FRAGMENTS} fragments")
    if at != len(pdu):
        raise BeyondBounds("a fragment that is not as long as it says")


def _require_command(command: bytes) -> None:
    """A command set: elements of group 0000 in Implicit VR Little Endian, with a length (PS3.7 6.3.1)."""
    at, last = 0, -1
    values: dict[int, bytes] = {}
    while at < len(command):
        if at + 8 > len(command):
            raise BeyondBounds("a command that ends in the middle of an element")
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8 + length
        if group or element <= last or at > len(command) or len(values) >= _COMMAND_ELEMENTS:
            raise BeyondBounds("a command that is no list of command elements")
        last = element
        values[element] = command[at - length : at]
    if int.from_bytes(values.get(_COMMAND_FIELD, b""), "little") not in _MESSAGE_TYPES:
        raise BeyondBounds("a command that DICOM does not know")
    if len(values.get(_DATA_SET_TYPE, b"")) != 2:
        raise BeyondBounds("a command that does not say whether a data set follows")
