"""The bytes of a request's body as they were before they were compressed for the way (RFC 9110 8.4)."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from outpost.intake.multipart import MalformedBody

MIB: Final = 1 << 20
# Images compress to a tenth, empty ones to a thousandth: so much is believed of a body.
_INFLATED_BYTES: Final = 64 * MIB
_INFLATED_TIMES: Final = 100
_PIECE: Final = MIB
_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class UnsupportedEncoding(Exception):
    """The Content-Encoding is none that this service takes."""


class BodyTooLarge(Exception):
    """The body unfolds to more than any image does."""


def plain(body: AsyncIterable[bytes], encoding: str) -> AsyncIterable[bytes]:
    """The body without its Content-Encoding, in pieces of at most 1 MiB where it has one.

    Raises `UnsupportedEncoding` at once; the body raises `MalformedBody` and `BodyTooLarge`.
    """
    named = [name for part in encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if not named:
        return body
    if len(named) > 1 or named[0] not in _WINDOWS:
        raise UnsupportedEncoding("this Content-Encoding is not taken: send gzip, deflate, or none")
    return _inflated(body, _WINDOWS[named[0]])


async def _inflated(body: AsyncIterable[bytes], window: int) -> AsyncIterator[bytes]:
    inflate = zlib.decompressobj(window)
    came = gave = 0
    begun = False
    async for chunk in body:
        came += len(chunk)
        pending, full = chunk, False
        while pending or full:
            if inflate.eof:  # several streams, one behind the other (RFC 1952 2.2)
                inflate = zlib.decompressobj(window)
            try:
                piece = inflate.decompress(pending, _PIECE)
            except zlib.error:
                raise MalformedBody("the body is not compressed as its Content-Encoding says") from None
            begun = True
            pending = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            full = len(piece) == _PIECE and not inflate.eof  # then more may be waiting inside
            gave += len(piece)
            if gave > _INFLATED_BYTES + _INFLATED_TIMES * came:
                raise BodyTooLarge(
                    f"the body unfolds to more than {_INFLATED_TIMES} times its size: send it without compressing it"
                )
            if piece:
                yield piece
    if begun and not inflate.eof:
        raise MalformedBody("the compressed body ends before its end")
