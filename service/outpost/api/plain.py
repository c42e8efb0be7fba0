"""Who speaks plain HTTP to a port that speaks TLS is told so, and gets nothing else.

No redirect: a program that sends its token with each first request would go on sending it in the clear, and nobody
would notice. So it fails, in words, and somebody corrects the address.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

_SECONDS: Final = 1.0
_WORDS: Final = (
    "This port speaks HTTPS alone: write https:// in the address. What was sent came unencrypted and was not read; "
    "if there was a token in it, whoever listens on the network may have it.\n"
    "Этот порт отвечает только по HTTPS: начните адрес с https://. Запрос пришёл незашифрованным и не обработан; если "
    "в нём был токен, его могли прочитать в сети.\n"
).encode()
_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n%s"
) % (len(_WORDS), _WORDS)


async def is_told(connection: socket.socket) -> bool:
    """Whether the peer spoke plain HTTP; it is answered and done with then. Nothing is read of any other."""
    try:
        begins = connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    if not begins.isalpha():  # a TLS record of a client begins with 22; a method is letters
        return False
    loop = asyncio.get_running_loop()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SECONDS):
            await loop.sock_sendall(connection, _ANSWER)
            connection.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(connection, 65536):  # closing at once would take the answer from it
                pass
    connection.close()
    return True
