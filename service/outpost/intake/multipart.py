"""Splitting a multipart body (RFC 2046 5.1) that arrives in chunks of any size.

Lines should end with CR LF. Some senders end them with LF alone: a body whose first boundary line ends so is read so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

_HEADER_LIMIT = 16 * 1024  # bytes of one part's headers; a few dozen are usual
LONGEST_TYPE = (
    1024  # characters of a Content-Type; the parser of mail headers takes time with the square of it
)
_PIECE = 1 << 20  # bytes that are looked at together, whatever a chunk has
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


class MalformedBody(Exception):
    """The request body is not the multipart that its Content-Type announces."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part begins. `content_type` is lower-case without parameters; empty when the part names none.

    `transfer_syntax` is its parameter of that name (PS3.18 8.7.3), empty where there is none.
    """

    content_type: str
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part is whole."""


Event = PartBegins | bytes | PartEnds


class MultipartReader:
    """`feed` gives, in order: PartBegins, pieces of the part's bytes, PartEnds, and so on.

    It holds at most one chunk and one boundary, or the headers of one part.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\n--" + boundary  # until the first one shows how lines end
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like every other
        self._step = self._skip_preamble
        self._events: list[Event] = []
        self._parts = 0
        self.finished = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the body. Raises `MalformedBody`."""
        return list(self.events(chunk))

    def events(self, chunk: bytes) -> Iterator[Event]:
        """What `feed` gives, one by one as it is found. Raises `MalformedBody`."""
        for begin in range(0, len(chunk), _PIECE):
            if self.finished:
                return  # an epilogue, which RFC 2046 allows and tells to ignore
            self._buffer += chunk[begin : begin + _PIECE]
            going = True
            while going:
                going = not self.finished and self._step()
                # A step finds two events at most: countless parts in a chunk are not held together.
                yield from self._events
                self._events.clear()

    def close(self) -> None:
        """The body has ended. Raises `MalformedBody` unless all parts are whole."""
        # A last boundary that lacks its two hyphens ends its part all the same.
        if self._step == self._skip_preamble and not self.finished:
            raise MalformedBody("the boundary that the Content-Type names is not in the body")
        if not self.finished and (self._step == self._read_part or self._buffer.strip(b"\r\n -")):
            raise MalformedBody(
                "the body ends before its closing boundary: its last part may be cut off, and was not stored"
            )
        if not self._parts:
            raise MalformedBody("the body holds no part")

    # Each step consumes what it can; False means that it needs more bytes.

    def _skip_preamble(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            del self._buffer[: -len(self._delimiter)]
            return False
        line = self._buffer.find(b"\n", at + len(self._delimiter))
        if line < 0 and len(self._buffer) - at < _HEADER_LIMIT:
            return self._buffer[at + len(self._delimiter) :][:2] == b"--" and self._end(at)
        begin = self._delimiter
        if self._buffer[line - 1] == ord("\r"):
            self._delimiter = b"\r" + begin
        del self._buffer[: at + len(begin)]
        self._step = self._read_headers
        return True

    def _end(self, at: int) -> bool:
        self._pass_delimiter(at)
        self.finished = True
        return False

    def _read_headers(self) -> bool:
        if self._buffer[:2] == b"--":
            self.finished = True
            return False
        found = _BLANK_LINE.search(self._buffer, 0, _HEADER_LIMIT)
        if found is None:
            if len(self._buffer) > _HEADER_LIMIT:
                raise MalformedBody(f"the headers of a part exceed {_HEADER_LIMIT} bytes")
            return False
        padding, *lines = bytes(self._buffer[: found.start()]).decode("latin-1").split("\n")
        if padding.strip():
            raise MalformedBody("a boundary is followed by other text on its line")
        del self._buffer[: found.end()]
        self._parts += 1
        self._events.append(_part(lines))
        self._step = self._read_part
        return True

    def _read_part(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            # The tail may be the beginning of a delimiter.
            sure = len(self._buffer) - len(self._delimiter) + 1
            if sure > 0:
                self._events.append(bytes(self._buffer[:sure]))
                del self._buffer[:sure]
            return False
        if at:
            self._events.append(bytes(self._buffer[:at]))
        self._pass_delimiter(at)
        self._events.append(PartEnds())
        return True

    def _pass_delimiter(self, at: int) -> None:
        del self._buffer[: at + len(self._delimiter)]
        self._step = self._read_headers


def _part(lines: list[str]) -> PartBegins:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type" and len(value) <= LONGEST_TYPE:
            header = Message()
            header["Content-Type"] = value.strip()
            syntax = str(header.get_param("transfer-syntax", ""))
            return PartBegins(header.get_content_type(), syntax)
    return PartBegins("")
