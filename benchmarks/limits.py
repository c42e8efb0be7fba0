#!/usr/bin/env python3
"""C-STORE throughput of the whole service while somebody tries to spend it, against the same without, in one run.

    benchmarks/limits.py [--rounds 3] [--only ATTACK]

Sender: unmodified /usr/bin/storescu, 513 KiB slices, new UIDs each time. Attackers are processes of their own on the
same machine, of the lowest priority: what they use of the CPU themselves is not what is measured. Meanwhile somebody
asks for health each half second, once from the attacker's own address and once from another. Bar: throughput falls by
at most 20 %, the service goes on, and every question for health from elsewhere is answered.

The peer is DCMTK's storescp, in the same minutes: what it still takes beside the same attack (that is what the kernel
and two cores leave to anybody), and, where the attack is one on a DICOM port, what it takes when it is attacked itself.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "service"), str(ROOT / "tests" / "service"), str(ROOT / "benchmarks")]

from report import Spread, finish, table  # noqa: E402 - not installed
from running import TOKEN, Service, StoreScp, wait_for  # noqa: E402 - not installed

ATTACKER = "127.0.0.66"
IMAGES, FEW = 200, 60
BAR = 0.8
_HEALTH_SECONDS = 5.0  # one question

# Who may ask: of a Host that is refused, or without a token, nothing is answered that costs.
_MAY = b"Host: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
_LIVE = b"GET /v2/health/live HTTP/1.1\r\n" + _MAY + b"\r\n"
_LIGHT = b"GET /health/light HTTP/1.1\r\n" + _MAY + b"\r\n"
_STUDIES = b"GET /studies?marked=true HTTP/1.1\r\n" + _MAY + b"\r\n"
_EVER = b"GET /drift/sketch?from=0001-01-01&to=9999-12-31 HTTP/1.1\r\n" + _MAY + b"\r\n"
_PAGE = b"GET /drift/page HTTP/1.1\r\n" + _MAY + b"\r\n"
_BODY = (
    b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
    b'Content-Type: multipart/related; type="application/dicom"; boundary=x\r\n\r\n--x\r\n'
)
# The same of one who may send, so that it is read: no Host that is refused, and a token.
_BODY_OF_A_SENDER = _BODY.replace(b"Host: x\r\n", _MAY)


def connect(port: int) -> socket.socket:
    """A connection of the attacker, that never blocks."""
    one = socket.socket()
    one.setblocking(False)
    with contextlib.suppress(OSError):
        one.bind((ATTACKER, 0))
    with contextlib.suppress(BlockingIOError):
        one.connect(("127.0.0.1", port))
    return one


def hold(port: int, count: int, first: bytes, drip: bytes, each: float = 1.0) -> None:
    """Keep so many connections open for ever: say `first`, then `drip` each so many seconds; come again when closed."""
    most = min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    poll = select.epoll()
    held: dict[int, socket.socket] = {}
    said: set[int] = set()
    next_drip = time.monotonic() + each
    while True:
        for _ in range(200):
            if len(held) >= most:
                break
            one = connect(port)
            held[one.fileno()] = one
            poll.register(one.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP | select.EPOLLET)
        for descriptor, what in poll.poll(min(0.05, each / 2)):
            one = held[descriptor]
            try:
                if what & (select.EPOLLHUP | select.EPOLLERR) or (
                    what & select.EPOLLIN and not one.recv(65536)
                ):
                    raise OSError
                if first and descriptor not in said and what & select.EPOLLOUT:
                    one.send(first)
                    said.add(descriptor)
            except BlockingIOError:
                continue
            except OSError:
                said.discard(descriptor)
                del held[descriptor]
                one.close()
        if drip and time.monotonic() >= next_drip:
            next_drip = max(next_drip + each, time.monotonic())
            for descriptor in list(said):
                with contextlib.suppress(OSError):
                    held[descriptor].send(drip)


def ask(port: int, count: int, request: bytes) -> None:
    """So many connections that ask, read the answer and ask again, as fast as they are answered."""
    poll = select.epoll()
    held: dict[int, socket.socket] = {}
    while True:
        while len(held) < count:
            one = connect(port)
            held[one.fileno()] = one
            poll.register(one.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        for descriptor, what in poll.poll(0.05):
            one = held[descriptor]
            try:
                if what & select.EPOLLIN and not one.recv(1 << 20):
                    raise OSError
                one.send(request)
            except BlockingIOError:
                continue
            except OSError:
                del held[descriptor]
                one.close()


def knock(port: int, request: bytes) -> None:
    """A new connection for each request, and away."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as one:
            one.settimeout(2)
            one.bind((ATTACKER, 0))
            one.connect(("127.0.0.1", port))
            one.sendall(request)
            one.recv(4096)


def request_of(title: str) -> bytes:
    """An A-ASSOCIATE-RQ with Verification alone."""

    def item(kind: int, value: bytes) -> bytes:
        return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value

    syntax = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3.4")
    body = b"\x00\x01\x00\x00" + b"OUTPOST".ljust(16) + title.encode().ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\x01\x00\x00\x00" + syntax) + item(0x50, user)
    return b"\x01\x00" + len(body).to_bytes(4, "big") + body


# What each does; the first port is DICOM's, the second HTTP's.
ATTACKS: dict[str, Callable[[int, int], None]] = {
    "half-open-http": lambda _, http: hold(http, 20_000, b"", b""),
    "half-open-dicom": lambda dicom, _: hold(dicom, 20_000, b"", b""),
    "slow-head": lambda _, http: hold(http, 2000, b"GET /studies HTTP/1.1\r\n" + _MAY, b"X-A: b\r\n"),
    "slow-body": lambda _, http: hold(http, 2000, _BODY, b"x"),
    "slow-body-of-a-sender": lambda _, http: hold(http, 28, _BODY_OF_A_SENDER, b"x", 0.01),
    "slow-request": lambda dicom, _: hold(dicom, 2000, request_of("SLOW")[:20], b"\x20"),
    "silent-associations": lambda dicom, _: hold(dicom, 64, request_of("SILENT"), b""),
    "stalled-pdu": lambda dicom, _: hold(
        dicom, 64, request_of("STALL") + b"\x04\x00\x00\x01\x00\x00xx", b"x"
    ),
    "flood-live": lambda _, http: ask(http, 64, _LIVE),
    "flood-light": lambda _, http: ask(http, 64, _LIGHT),
    "flood-studies": lambda _, http: ask(http, 64, _STUDIES),
    "flood-of-ages": lambda _, http: ask(http, 45, _EVER),
    "flood-pages": lambda _, http: ask(http, 45, _PAGE),
    "flood-connections": lambda _, http: knock(http, _LIVE),
    "flood-associations": lambda dicom, _: knock(dicom, request_of("FLOOD")),
}

ON_DICOM = ("half-open-dicom", "slow-request", "silent-associations", "stalled-pdu", "flood-associations")


def main() -> int:
    """Measure, print the table, keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(ATTACKS), action="append", help="nothing is kept then")
    parser.add_argument("--attack", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        name, dicom, http_port = arguments.attack
        os.nice(19)
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        _end_with_parent()
        ATTACKS[name](int(dicom), int(http_port))
        return 0
    names = arguments.only or list(ATTACKS)
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        return measure(Path(folder), names, arguments.rounds, keep=arguments.only is None)


def _end_with_parent() -> None:
    """No attack outlives who started it, whatever becomes of that one."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def measure(folder: Path, names: list[str], rounds: int, *, keep: bool) -> int:
    """One service for all; each attack has a quiet run before and behind it."""
    images, few = write_images(folder / "images", IMAGES), write_images(folder / "few", FEW)
    pacs = StoreScp(folder / "pacs").start()
    # Studies stay open: what is measured is intake, and not the model.
    service = Service(
        folder / "site", [("PACS", pacs.port)], study={"quiet_seconds": 3600, "open_quiet_seconds": 3600}
    )
    rates: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {}
    attacked: dict[str, float] = {}
    health: dict[str, dict[str, list[float]]] = {}
    try:
        service.start()
        wait_for(lambda: service.http.get("/v2/health/ready").status_code == 200, 300, "the service is ready")
        send(service.dicom_port, images)
        for turn in range(rounds):
            before, peer_before = send(service.dicom_port, images), send(pacs.port, few)
            for name in names:
                slowest: dict[str, list[float]] = {}
                with attack(name, service.dicom_port, service.http_port), asking(service, slowest):
                    time.sleep(1.5)  # until it is in full swing
                    under = send(service.dicom_port, images)
                    peer_under = send(pacs.port, few)
                time.sleep(1)
                after, peer_after = send(service.dicom_port, images), send(pacs.port, few)
                rates.setdefault(name, []).append(under / statistics.mean((before, after)))
                beside.setdefault(name, []).append(peer_under / statistics.mean((peer_before, peer_after)))
                print(
                    f"{name}: {before:.1f} {under:.1f} {after:.1f} images a second, "
                    f"storescp beside it {peer_before:.1f} {peer_under:.1f} {peer_after:.1f}",
                    file=sys.stderr,
                    flush=True,
                )
                peer_before = peer_after
                if name in ON_DICOM and turn == 0:
                    attacked[name] = attacked_itself(folder / f"attacked-{name}", name, few)
                for source, seconds in slowest.items():
                    health.setdefault(name, {}).setdefault(source, []).extend(seconds)
                before = after
                assert service.process is not None
                if service.process.poll() is not None:
                    raise SystemExit(f"{name}: the service ended with {service.process.returncode}")
        memory = resident(service.process.pid)
        status = service.stop()
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
        pacs.stop()
    return conclude(rates, beside, attacked, health, memory, status, keep=keep and rounds >= 3)


def write_images(folder: Path, count: int) -> Path:
    from pydicom.data import get_testdata_file

    folder.mkdir()
    source = get_testdata_file("693_UNCI.dcm", download=False)
    for number in range(count):
        shutil.copy(source, folder / f"{number}.dcm")
    return folder


def send(port: int, images: Path) -> float:
    """Images a second; 0 where they were not all taken."""
    begun = time.perf_counter()
    command = ["/usr/bin/storescu", "+II", "+sd", "-to", "10", "-ta", "10", "-td", "60"]
    ended = subprocess.run([*command, "127.0.0.1", str(port), str(images)], capture_output=True, timeout=300)
    count = sum(1 for _ in images.iterdir())
    return count / (time.perf_counter() - begun) if ended.returncode == 0 else 0.0


def attacked_itself(folder: Path, name: str, images: Path) -> float:
    """What storescp takes under this attack on its own port, of what it takes without."""
    victim = StoreScp(folder).start()
    try:
        alone = send(victim.port, images)
        with attack(name, victim.port, victim.port):
            time.sleep(1.5)
            return send(victim.port, images) / alone
    finally:
        victim.stop()


@contextmanager
def attack(name: str, dicom_port: int, http_port: int) -> Iterator[None]:
    ports = (str(dicom_port), str(http_port))
    process = subprocess.Popen([sys.executable, __file__, "--attack", name, *ports])
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"{name}: the attacker gave up: nothing can be said")
    finally:
        process.kill()
        process.wait()


@contextmanager
def asking(service: Service, slowest: dict[str, list[float]]) -> Iterator[None]:
    """Ask for health meanwhile; one that is not answered counts as the longest."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.5):
            for source in (ATTACKER, "127.0.0.1"):
                begun = time.perf_counter()
                asked = http.client.HTTPConnection(
                    "127.0.0.1", service.http_port, timeout=_HEALTH_SECONDS, source_address=(source, 0)
                )
                try:
                    asked.request("GET", "/v2/health/ready")
                    answered = asked.getresponse().status == 200
                except (OSError, http.client.HTTPException):
                    answered = False
                finally:
                    asked.close()
                taken = time.perf_counter() - begun if answered else _HEALTH_SECONDS
                slowest.setdefault(source, []).append(taken)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def resident(pid: int) -> int:
    """MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) // 1024


def conclude(
    rates: dict[str, list[float]],
    beside: dict[str, list[float]],
    attacked: dict[str, float],
    health: dict[str, dict[str, list[float]]],
    memory: int,
    status: int,
    *,
    keep: bool,
) -> int:
    """The table and the line; the attack that costs most decides."""
    spreads = {name: Spread.of(values) for name, values in rates.items()}
    peers = {name: Spread.of(values) for name, values in beside.items()}
    rows = [
        [name, f"{spread.median:.2f} ({spread.least:.2f}-{spread.greatest:.2f})", f"{peers[name].median:.2f}"]
        + [f"{attacked[name]:.2f}" if name in attacked else ""]
        + [f"{max(health[name][source]):.2f}" for source in ("127.0.0.1", ATTACKER)]
        for name, spread in spreads.items()
    ]
    print(
        table(
            [
                "attack",
                "throughput, of that without",
                "storescp beside it",
                "attacked itself",
                "slowest health, s",
                "from the attacker's address",
            ],
            rows,
        )
    )
    worst = min(spreads, key=lambda name: spreads[name].median)
    answered = all(max(of["127.0.0.1"]) < _HEALTH_SECONDS for of in health.values())
    return finish(
        "limits",
        ratio=spreads[worst].median,
        peer=f"the same without; worst of {len(spreads)}: {worst}",
        bar=f">= {BAR} under each, health answered within {_HEALTH_SECONDS:g} s, end with status 0",
        ok=spreads[worst].median >= BAR and answered and status == 0,
        details={
            "throughput": spreads,
            "storescp_beside_it": peers,
            "storescp_attacked_itself": attacked,
            "slowest_health_seconds": {
                name: {source: max(values) for source, values in of.items()} for name, of in health.items()
            },
            "resident_mib": memory,
            "exit_status": status,
        },
        packages=("pynetdicom", "uvicorn", "h11"),
        keep=keep,
    )


if __name__ == "__main__":
    sys.exit(main())
