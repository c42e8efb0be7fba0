"""Splitting a multipart body (RFC 2046 5.1) that arrives in chunks of any size."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message

_HEADER_LIMIT = 16 * 1024  # bytes of one part's headers; a few dozen are usual


class MalformedBody(Exception):
    """The request body is not the multipart that its Content-Type announces."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part begins. `content_type` is lower-case without parameters; empty when the part names none."""

    content_type: str


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part is whole."""


Event = PartBegins | bytes | PartEnds


class MultipartReader:
    """`feed` gives, in order: PartBegins, pieces of the part's bytes, PartEnds, and so on.

    It holds at most one chunk and one boundary, or the headers of one part.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like every other
        self._step = self._skip_preamble
        self._events: list[Event] = []
        self.finished = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the body. Raises `MalformedBody`."""
        if self.finished:
            return []  # an epilogue, which RFC 2046 allows and tells to ignore
        self._buffer += chunk
        while not self.finished and self._step():
            pass
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """The body has ended. Raises `MalformedBody` when its closing boundary is missing."""
        if not self.finished:
            raise MalformedBody("the body ends before its closing boundary")

    # Each step consumes what it can; False means that it needs more bytes.

    def _skip_preamble(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            del self._buffer[: -len(self._delimiter)]
            return False
        self._pass_delimiter(at)
        return True

    def _read_headers(self) -> bool:
        if self._buffer[:2] == b"--":
            self.finished = True
            return False
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEADER_LIMIT:
                raise MalformedBody(f"the headers of a part exceed {_HEADER_LIMIT} bytes")
            return False
        padding, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        if padding.strip():
            raise MalformedBody("a boundary is followed by other text on its line")
        del self._buffer[: end + 4]
        self._events.append(PartBegins(_content_type(lines)))
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


def _content_type(lines: list[str]) -> str:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            header = Message()
            header["Content-Type"] = value.strip()
            return header.get_content_type()
    return ""
