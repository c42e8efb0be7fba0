"""Calls to the kernel for one listening socket in a flood: as few of them as can be, and none that costs others.

Python gives the interpreter away around each call of a socket, and takes it back from whoever works meanwhile. For a
call that never waits, and a thousand times a second, that costs the threads that receive images more than the call
itself. These calls keep it; each takes some microseconds. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import random
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

_LIBC: Final = ctypes.PyDLL(None, use_errno=True)  # not CDLL, which gives the interpreter away
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_LIBC.accept4.argtypes = (_INT, _POINTER, _POINTER, _INT)
_LIBC.recv.argtypes = (_INT, _POINTER, _SIZE, _INT)
_LIBC.recv.restype = ctypes.c_ssize_t
_LIBC.setsockopt.argtypes = (_INT, _INT, _INT, _POINTER, ctypes.c_uint32)
_LIBC.close.argtypes = (_INT,)

# Closing sends a reset: what leaves keeps no port and no memory of the kernel busy.
RESET: Final = struct.pack("ii", 1, 0)
_RESET_BUFFER: Final = ctypes.create_string_buffer(RESET, len(RESET))
_FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_PEEK: Final = socket.MSG_PEEK | socket.MSG_DONTWAIT

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # Python has no names for them (asm-generic/socket.h)
_SYNCOOKIES: Final = Path("/proc/sys/net/ipv4/tcp_syncookies")  # for IPv6, too
# Classic BPF (Documentation/networking/filter.rst) over a segment from its TCP header on: drop the one that carries no
# data and is no SYN or RST. (code, jump if true, jump if false, k)
_SILENT: Final = (
    (0x30, 0, 0, 13),  # the flags
    (0x45, 6, 0, 0x06),  # SYN or RST: pass
    (0x30, 0, 0, 12),  # the header's length,
    (0x74, 0, 0, 4),
    (0x64, 0, 0, 2),  # in bytes,
    (0x07, 0, 0, 0),
    (0x80, 0, 0, 0),  # against that of the segment
    (0x1D, 1, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)
_PROGRAM: Final = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _SILENT))

# Queues of one port; the kernel puts a connection into that of its address.
QUEUES: Final = 32
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_NETWORK: Final = 0x100000000 - 0x100000  # SKF_NET_OFF: from the network's header on


def queues_beside(listening: socket.socket, backlog: int) -> list[socket.socket]:
    """More listening sockets on the same port, so that a flood from one address fills the queue of that one.

    Each address has its queue, by a hash that nobody outside knows. Empty where the kernel does not do that: then all
    wait in one queue. Whoever closes them has what waits in them reset.
    """
    made: list[socket.socket] = []
    try:
        if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listening.listen(backlog)
        # Only now: it was bound alone, so that a second service on this port was refused.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(QUEUES - 1):
            one = socket.socket(listening.family, listening.type, listening.proto)
            made.append(one)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                one.setsockopt(socket.SOL_SOCKET, option, 1)
            if listening.family == socket.AF_INET6:
                only = listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            one.bind(listening.getsockname())
            one.listen(backlog)
        steps = _by_address()
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        named = struct.pack("HL", len(steps), ctypes.addressof(program))
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, named)
    except OSError:
        log.info("the kernel shares no queues between addresses: all wait in one", exc_info=True)
        for one in made:
            one.close()
        return []
    return made


def _by_address() -> tuple[tuple[int, int, int, int], ...]:
    """Classic BPF: the queue of a packet's source address."""

    def xor(at: int) -> tuple[tuple[int, int, int, int], ...]:
        return (0x07, 0, 0, 0), (0x20, 0, 0, _NETWORK + at), (0xAC, 0, 0, 0)

    six = (*xor(12), *xor(16), *xor(20))
    return (
        (0x30, 0, 0, _NETWORK),
        (0x74, 0, 0, 4),
        (0x15, 0, 2, 4),
        (0x20, 0, 0, _NETWORK + 12),  # IPv4
        (0x05, 0, 0, 1 + len(six)),
        (0x20, 0, 0, _NETWORK + 8),  # IPv6
        *six,
        (0xA4, 0, 0, random.SystemRandom().getrandbits(32)),
        (0x24, 0, 0, 0x9E3779B1),
        (0x74, 0, 0, 33 - QUEUES.bit_length()),
        (0x16, 0, 0, 0),
    )


class Listening:
    """One listening socket, which stays the caller's and is made non-blocking. For one thread."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self._descriptor = listening.fileno()
        self._address = ctypes.create_string_buffer(128)  # a sockaddr_storage
        self._length = ctypes.c_uint32()
        self._data = ctypes.create_string_buffer(16 << 10)
        self._can_hold_back = True
        listening.setblocking(False)

    def fileno(self) -> int:
        return self._descriptor

    def accept(self) -> tuple[int, Any] | None:
        """The descriptor of the next connection, non-blocking, and its address as Python writes it; None: none waits.

        Raises `OSError`.
        """
        self._length.value = len(self._address)
        descriptor = _LIBC.accept4(self._descriptor, self._address, ctypes.byref(self._length), _FLAGS)
        if descriptor < 0:
            error = ctypes.get_errno()
            if error == errno.EAGAIN:
                return None
            raise OSError(error, os.strerror(error))
        return descriptor, _address(self._address.raw[: self._length.value])

    def peek(self, descriptor: int) -> bytes:
        """What has arrived, up to 16 KiB, without its being read; empty where it says nothing or has gone."""
        size = _LIBC.recv(descriptor, self._data, len(self._data), _PEEK)
        return ctypes.string_at(self._data, size) if size > 0 else b""

    def reset(self, descriptor: int) -> None:
        """Close it; its peer sees a reset."""
        _LIBC.setsockopt(descriptor, socket.SOL_SOCKET, socket.SO_LINGER, _RESET_BUFFER, len(RESET))
        _LIBC.close(descriptor)

    def socket_of(self, descriptor: int) -> socket.socket:
        """A socket that owns the descriptor from now on."""
        connection = socket.socket(
            self._socket.family, self._socket.type, self._socket.proto, fileno=descriptor
        )
        connection.setblocking(False)
        _detach(
            connection
        )  # inherited where silent ones are, or were, held back: it would lose their receipts
        return connection

    # --- silent connections ---

    def hold_back_silent(self) -> bool:
        """Have the kernel keep connections to itself until they say something; whether it does.

        Theirs is a handshake that lacks its last part: what they say ends it, at once or a minute later. Where many
        wait so, the kernel keeps nothing of them (SYN cookies). Without these, their queue would be full for all:
        where they are switched off, nothing is held back.
        """
        if not self._can_hold_back:
            return False
        try:
            if int(_SYNCOOKIES.read_text(encoding="ascii")) == 0:
                return False
            program = struct.pack("HL", len(_SILENT), ctypes.addressof(_PROGRAM))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        except (OSError, ValueError):
            self._can_hold_back = False
            log.info(
                "the kernel does not hold silent connections back: they are accepted and reset", exc_info=True
            )
            return False
        return True

    def hold_back_nobody(self) -> None:
        """As before `hold_back_silent`. Safe to repeat."""
        _detach(self._socket)


def _detach(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBADF):  # it has none, or is closed
            raise


def _address(raw: bytes) -> Any:
    """As `socket.accept` writes it."""
    family = int.from_bytes(raw[:2], sys.byteorder) if raw else 0
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntoa(raw[4:8]), port
    if family == socket.AF_INET6:
        flow, scope = int.from_bytes(raw[4:8], "big"), struct.unpack("I", raw[24:28])[0]
        host = socket.inet_ntop(socket.AF_INET6, raw[8:24])
        return (f"{host}%{socket.if_indextoname(scope)}" if scope else host), port, flow, scope
    return "", 0
