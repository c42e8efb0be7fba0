"""Ports of servers that tests and benchmarks start. Standard library only: the benchmarks' peers have no other."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

_PORT_LOCKS: list[IO[str]] = []


def free_port() -> int:
    """A port for a server that is started later, on any address of this machine; nobody else of a test is given it.

    It is below the ports that the kernel gives to clients: of these, the flood of another test can take one between
    the question and the start. The lock lasts as long as this process.
    """
    lowest_of_clients = int(
        Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0]
    )
    locks = Path(tempfile.gettempdir()) / "outpost-test-ports"
    locks.mkdir(exist_ok=True)
    for _ in range(1000):
        port = random.SystemRandom().randrange(15000, lowest_of_clients)
        lock = (locks / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            lock.close()
            continue
        _PORT_LOCKS.append(lock)
        return port
    raise AssertionError(f"no free port from 15000 to {lowest_of_clients}")
