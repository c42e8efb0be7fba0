"""DICOM data sets whose structure is hostile, each made again by its seed and number, offered to a real service.

    python tests/faults/hostile_structures.py SEED FIRST COUNT [--keep RESULT.json]
    python tests/faults/hostile_structures.py SEED NUMBER --write FILE

Not bytes are mutated but the tree: items, frames, fragments, private sequences, lengths, VRs, nesting, in each
transfer syntax. By turns they go to C-STORE and to STOW-RS of `outpost serve`; meanwhile its readiness is asked for
all the time. Every one has to be answered; what a run tells is the memory of the serving process, the longest answer
of readiness, and beside it how late a process came that only slept: what the machine adds by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "service"))
from running import BEARER, Service

_HEAVY: Final = 0.05
sys.setrecursionlimit(10_000)  # what is nested deep is written so, too
SEED: Final = 20261130
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70"
SYNTAXES: Final = (IMPLICIT, EXPLICIT, BIG, DEFLATED, JPEG)
CLASSES: Final = (
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.66.4",  # SEG
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT structure set
    "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive SR
)
_LONG = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF

# --- a tree, and how it is written ---

# (tag, VR, value): bytes, or a list of items, each a list of such elements; fragments are a tuple of bytes.
Element = tuple[int, str, Any]


class Writer:
    """Writes elements in one encoding; `chance` decides on lengths, and now and then on what is wrong."""

    def __init__(self, chance: random.Random, syntax: str, wrong: float = 0.0) -> None:
        self.chance, self.wrong = chance, wrong
        self.implicit, self.order = syntax == IMPLICIT, ">" if syntax == BIG else "<"

    def number(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order + form, *values)

    def tag(self, tag: int) -> bytes:
        return self.number("HH", tag >> 16, tag & 0xFFFF)

    def length(self, size: int) -> int:
        if self.chance.random() >= self.wrong:
            return size
        return (
            self.chance.choice(
                (0, 1, size + 1, size + 8, max(size - 2, 0), size * 2, 0x7FFFFFFF, 0xFFFFFFFE, _UNDEFINED)
            )
            & _UNDEFINED
        )

    def elements(self, elements: list[Element]) -> bytes:
        return b"".join(self.element(*element) for element in elements)

    def element(self, tag: int, vr: str, value: Any) -> bytes:
        if vr and self.chance.random() < self.wrong:
            vr = self.chance.choice(("SQ", "UN", "OB", "US", "??", "LO", "UT", "sq"))
        undefined = False
        if not vr:
            return bytes(value)  # elements, written already
        if isinstance(value, tuple):
            body, undefined = self.fragments(value), True
        elif isinstance(value, list):
            undefined = self.chance.random() < 0.5
            body = self.items(value) + (self.tag(0xFFFEE0DD) + bytes(4) if undefined else b"")
            if undefined and self.chance.random() < self.wrong:
                body = body[:-8]
        else:
            body = value + b" " * (len(value) % 2)
        length = _UNDEFINED if undefined else self.length(len(body))
        if self.implicit:
            return self.tag(tag) + self.number("L", length) + body
        head = self.tag(tag) + vr.encode()
        if vr in _LONG:
            return head + self.number("HL", 0, length) + body
        return head + self.number("H", length & 0xFFFF) + body

    def items(self, items: list[list[Element]]) -> bytes:
        if len(items) > 100:  # all alike
            return self.item(items[0]) * len(items)
        return b"".join(map(self.item, items))

    def item(self, elements: list[Element]) -> bytes:
        body = self.elements(elements)
        if self.chance.random() < 0.5:
            return (
                self.tag(0xFFFEE000) + self.number("L", _UNDEFINED) + body + self.tag(0xFFFEE00D) + bytes(4)
            )
        return self.tag(0xFFFEE000) + self.number("L", self.length(len(body))) + body

    def fragments(self, pieces: tuple[bytes, ...]) -> bytes:
        if len(pieces) > 1000:  # likewise
            pieces = ((self.tag(0xFFFEE000) + self.number("L", len(pieces[0])) + pieces[0]) * len(pieces),)
        else:
            pieces = tuple(self.tag(0xFFFEE000) + self.number("L", self.length(len(p))) + p for p in pieces)
        body = b"".join(pieces)
        return body + self.tag(0xFFFEE0DD) + bytes(4)


def identity(number: int, sop_class: str) -> list[Element]:
    """What makes it an instance; ten of them are one study."""
    return [
        (0x00080016, "UI", sop_class.encode()),
        (0x00080018, "UI", f"1.2.826.1.{number}".encode()),
        (0x00080060, "CS", b"MR"),
        (0x0008103E, "LO", b"hostile"),
        (0x0020000D, "UI", f"1.2.826.2.{number // 10}".encode()),
        (0x0020000E, "UI", f"1.2.826.3.{number // 10}".encode()),
    ]


def pixels(chance: random.Random, syntax: str, frames: int = 1) -> list[Element]:
    """Pixel Data of 16 x 16, whatever the frames."""
    if syntax == JPEG:
        pieces = (b"", *(chance.randbytes(16) for _ in range(min(frames, 1000))))
        return [(0x7FE00010, "OB", pieces)]
    return [(0x7FE00010, "OW", bytes(512 * min(frames, 100)))]


def small(chance: random.Random, depth: int = 0) -> list[Element]:
    """Some elements, perhaps with sequences in them, private ones too."""
    found: list[Element] = []
    tags = sorted(chance.sample(range(0x00100020, 0x00101000), chance.randrange(1, 5)))
    for tag in tags:
        if depth < 4 and chance.random() < 0.4:
            tag = tag | 0x00010000 if chance.random() < 0.3 else tag
            items = [small(chance, depth + 1) for _ in range(chance.randrange(4))]
            found.append((tag, chance.choice(("SQ", "SQ", "UN")), items))
        else:
            vr = chance.choice("LO SH UN OB US FD UT DS PN".split())
            found.append((tag, vr, chance.randbytes(chance.choice((0, 1, 7, 64, 3000)))))
    return sorted(found, key=lambda element: element[0])


# --- kinds of hostile structures ---


def many(chance: random.Random, usual: tuple[int, ...], heavy: tuple[int, ...]) -> int:
    """Now and then so many that they hurt whoever makes an object of each."""
    return chance.choice(heavy if chance.random() < _HEAVY else usual)


def _wrong_lengths(chance: random.Random, _: str) -> list[Element]:
    return small(chance)


def _countless_items(chance: random.Random, _: str) -> list[Element]:
    count = many(chance, (10, 1000, 5000), (60_000, 250_000, 500_000))
    item: list[Element] = chance.choice(([], [(0x00080100, "SH", b"1")]))
    vr, tag = chance.choice((("SQ", 0x00081140), ("UN", 0x00091010), ("SQ", 0x00091010), ("UN", 0x00081140)))
    return [(tag, vr, [item] * (count if not item else count // 4))]


def _countless_elements(chance: random.Random, syntax: str) -> list[Element]:
    count = many(chance, (100, 5000), (50_000, 400_000))
    # All with one tag: they are out of order, too.
    one = Writer(chance, syntax).element(chance.choice((0x00100020, 0x00111000)), "SH", b"")
    return [(0x00100020, "SH", b""), (0x00120020, "", one * count)]


def _deep(chance: random.Random, _: str) -> list[Element]:
    tag, vr = chance.choice(((0x00081140, "SQ"), (0x00091010, "UN"), (0x0040A730, "SQ")))
    nested: list[Element] = []
    for _ in range(chance.choice((10, 47, 49, 200))):
        nested = [(tag, vr, [nested])]
    return nested


def _frames(chance: random.Random, _: str) -> list[Element]:
    frames = many(chance, (2, 20, 200), (5000, 2_000_000_000))
    told = chance.choice((str(frames), str(frames), "", "N/A", "-1", "9" * 40)).encode()
    inside: list[Element] = [(0x00209111, "SQ", [[(0x00189151, "DT", b"20200101")]])]
    return [
        (0x00280008, "IS", told),
        (0x00280010, "US", b"\x10\0"),
        (0x00280011, "US", b"\x10\0"),
        (0x52009230, "SQ", [inside] * min(frames, 5000)),
    ]


def _countless_fragments(chance: random.Random, syntax: str) -> list[Element]:
    pieces = (chance.randbytes(2),) * many(chance, (10, 1000), (50_000, 300_000))
    tag = 0x7FE00010 if syntax == JPEG else chance.choice((0x00091010, 0x7FE00010))
    return [(tag, "OB", pieces)]


def _behind_the_pixels(chance: random.Random, syntax: str) -> list[Element]:
    return [
        *pixels(chance, syntax),
        *[(0x7FE11010, "SQ", [[]] * many(chance, (10, 1000), (100_000,)))],
        *small(chance),
    ]


def _large_values(chance: random.Random, _: str) -> list[Element]:
    size = many(chance, (1 << 10, 1 << 16), (1 << 20, 8 << 20))
    tag, vr = chance.choice(((0x00100010, "UT"), (0x00104000, "UT"), (0x00091010, "UN"), (0x0020000D, "UC")))
    return [(tag, vr, b"7" * size)]


def _hidden_sequences(chance: random.Random, syntax: str) -> list[Element]:
    writer = Writer(chance, IMPLICIT)
    held = b"".join(writer.item([]) for _ in range(many(chance, (10, 1000), (30_000,))))
    return [(chance.choice((0x00091010, 0x00111010)), chance.choice(("UN", "OB", "UT")), held)]


def _group_lengths(chance: random.Random, _: str) -> list[Element]:
    return [(group << 16, "UL", b"\xff\xff\xff\xff") for group in range(0x0010, 0x0040, 2)] + small(chance)


KINDS: Final[tuple[Callable[[random.Random, str], list[Element]], ...]] = (
    *(_wrong_lengths,) * 8,
    _countless_items,
    _countless_elements,
    _deep,
    _deep,
    _frames,
    _countless_fragments,
    _behind_the_pixels,
    _large_values,
    _hidden_sequences,
    _group_lengths,
)


def case(seed: int, number: int) -> tuple[str, str, str, bytes]:
    """Class, instance UID, transfer syntax and data set of this number."""
    chance = random.Random(f"{seed}:{number}")
    syntax, sop_class = chance.choice(SYNTAXES), chance.choice(CLASSES)
    kind = chance.choice(KINDS)
    wrong = (
        chance.choice((0.0, 0.01, 0.1)) if kind is _wrong_lengths else chance.choice((0.0, 0.0, 0.0, 0.001))
    )
    known = identity(number, sop_class)
    what = kind(chance, syntax)
    elements = sorted(known + [e for e in what if e[0] < 0x7FE00010], key=lambda element: element[0])
    last = [e for e in what if e[0] >= 0x7FE00010] or pixels(chance, syntax)
    writer = Writer(chance, syntax, wrong)
    # Who it is stays right: what cannot be told apart would be refused at the first look.
    sound = Writer(chance, syntax)
    data = b"".join((sound if e in known else writer).element(*e) for e in elements) + writer.elements(last)
    if chance.random() < 0.1:
        data = data[: chance.randrange(len(data))]
    if syntax == DEFLATED:
        packed = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = packed.compress(data) + packed.flush()
    return sop_class, f"1.2.826.1.{number}", syntax, data


def part10(sop_class: str, sop_uid: str, syntax: str, data: bytes) -> bytes:
    """As a file."""
    meta: list[Element] = [
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", _uid(sop_class)),
        (0x00020003, "UI", _uid(sop_uid)),
        (0x00020010, "UI", _uid(syntax)),
    ]
    head = Writer(random.Random(0), EXPLICIT).elements(meta)
    return bytes(128) + b"DICM\x02\0\0\0UL\4\0" + struct.pack("<L", len(head)) + head + data


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


# --- a C-STORE sender that says what it likes ---


class Sender:
    """One association over a socket of its own: no library stands between the bytes and the service."""

    def __init__(
        self, port: int, title: str = "HOSTILE", address: str = "127.0.0.1", seconds: float = 120
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds, (address, 0))
        self.contexts: dict[tuple[str, str], int] = {}
        for sop_class in CLASSES:
            for syntax in SYNTAXES:
                self.contexts[sop_class, syntax] = 2 * len(self.contexts) + 1
        items = [
            (number, [(0x30, sop_class.encode()), (0x40, syntax.encode())])
            for (sop_class, syntax), number in self.contexts.items()
        ]
        self.socket.sendall(request_pdu(items, title=title))
        kind, _ = self.pdu()
        if kind != 2:
            raise ConnectionRefusedError(f"answered by a PDU of type {kind}")

    def pdu(self) -> tuple[int, bytes]:
        head = self._read(6)
        return head[0], self._read(int.from_bytes(head[2:6], "big"))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (piece := self.socket.recv(size - len(data))):
                raise ConnectionResetError("the service closed the connection")
            data += piece
        return data

    def store(self, sop_class: str, sop_uid: str, syntax: str, data: bytes) -> int:
        """C-STORE; returns the status. Raises `OSError` where the association ends instead."""
        context = self.contexts[sop_class, syntax]
        command = command_set(
            {
                0x0002: _uid(sop_class),
                0x0100: struct.pack("<H", 1),
                0x0110: struct.pack("<H", 1),
                0x0700: struct.pack("<H", 2),
                0x0800: struct.pack("<H", 1),
                0x1000: _uid(sop_uid),
            }
        )
        self.socket.sendall(fragment_pdu(context, 3, command))
        pieces = range(0, max(len(data), 1), 100_000)
        for at in pieces:
            self.socket.sendall(fragment_pdu(context, 2 if at == pieces[-1] else 0, data[at : at + 100_000]))
        return self.status()

    def status(self) -> int:
        kind, pdu = self.pdu()
        if kind != 4:
            raise ConnectionAbortedError(f"answered by a PDU of type {kind}")
        at = pdu.index(b"\0\0\0\x09\x02\0\0\0")
        return int.from_bytes(pdu[at + 8 : at + 10], "little")

    def close(self) -> None:
        self.socket.close()


def request_pdu(
    contexts: list[tuple[int, list[tuple[int, bytes]]]],
    user: list[tuple[int, bytes]] | None = None,
    title: str = "HOSTILE",
) -> bytes:
    """A-ASSOCIATE-RQ of these presentation contexts (number, sub-items) and items of user information."""

    def item(kind: int, body: bytes) -> bytes:
        return bytes([kind, 0]) + struct.pack(">H", len(body)) + body

    body = struct.pack(">HH", 1, 0) + b"OUTPOST".ljust(16) + title.encode().ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, inside in contexts:
        body += item(0x20, bytes([number & 255, 0, 0, 0]) + b"".join(item(*one) for one in inside))
    told = [(0x51, struct.pack(">L", 131072)), (0x52, b"1.2.3"), *(user or [])]
    body += item(0x50, b"".join(item(*one) for one in told)[:65535])
    return b"\1\0" + struct.pack(">L", len(body)) + body


def command_set(values: dict[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHL", 0, e, len(v)) + v for e, v in sorted(values.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def fragment_pdu(context: int, control: int, data: bytes) -> bytes:
    item = struct.pack(">LBB", len(data) + 2, context, control) + data
    return b"\4\0" + struct.pack(">L", len(item)) + item


# --- the service, watched ---

_WATCH = """
import http.client, json, sys, time
port, longest, late, count = int(sys.argv[1]), 0.0, 0.0, 0
times = []
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
print("watching", flush=True)
import select
while not select.select([sys.stdin], [], [], 0.02)[0]:
    begun = time.monotonic()
    try:
        connection.request("GET", "/v2/health/ready")
        connection.getresponse().read()
    except OSError:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        continue
    times.append(time.monotonic() - begun)
times.sort()
print(json.dumps({"asked": len(times)} | {"median": times[len(times)//2], "p99": times[int(len(times)*.99)]}
    | {"longest": times[-1]}))
"""
_SLEEP = """
import json, select, sys, time
times = []
print("watching", flush=True)
while True:
    begun = time.monotonic()
    if select.select([sys.stdin], [], [], 0.02)[0]: break
    times.append(time.monotonic() - begun - 0.02)
times.sort()
print(json.dumps({"median": times[len(times)//2], "p99": times[int(len(times)*.99)], "longest": times[-1]}))
"""


@contextlib.contextmanager
def watched(port: int) -> Iterator[dict[str, Any]]:
    """How readiness answers meanwhile, in seconds; and how late a process came that only slept."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for code in (_WATCH, _SLEEP)
    ]
    found: dict[str, Any] = {}
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield found
        found["readiness"], found["sleeper"] = (
            json.loads(process.communicate("\n", timeout=90)[0]) for process in processes
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rss(pid: int, what: str = "VmRSS") -> int:
    """KiB of memory of a process; `VmHWM`: the most it ever had since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def serving(root: Path) -> Service:
    """A service that receives and computes nothing: what is measured is intake."""
    (root / "bundle").mkdir(parents=True, exist_ok=True)
    return Service(
        root, [("NOWHERE", 9)], study={"quiet_seconds": 86400}, inference={"bundle": str(root / "bundle")}
    ).start()


def run(seed: int, first: int, count: int, root: Path) -> dict[str, Any]:
    """Offer each to the service, by turns to C-STORE and STOW-RS."""
    service = serving(root)
    assert service.process is not None
    pid = service.process.pid
    outcomes: Counter[str] = Counter()
    try:
        warm(service)
        before = rss(pid)
        forget_peak(pid)
        begun, sender, http, longest = time.monotonic(), None, None, 0.0
        with watched(service.http_port) as seen:
            for number in range(first, first + count):
                one = case(seed, number)
                asked = time.monotonic()
                # A sender of its own every twenty: one that repeats itself is slowed, as it should be.
                address = f"127.1.{number // 20 // 250}.{number // 20 % 250 + 1}"
                if number % 2:
                    if http is None or number % 20 == 1:
                        http = _client(address)
                    outcomes[f"stow {_stow(service, [part10(*one)], http)}"] += 1
                else:
                    try:
                        if sender is None or number % 20 == 0:
                            if sender is not None:
                                sender.close()
                            sender = Sender(service.dicom_port, "HOSTILE", address)
                        outcomes[f"c-store {sender.store(*one):04X}"] += 1
                    except OSError as error:
                        outcomes[f"c-store {type(error).__name__}"] += 1
                        sender = None
                longest = max(longest, time.monotonic() - asked)
                if service.process.poll() is not None:
                    raise AssertionError(
                        f"seed {seed} number {number} ended the service: {service.log[-2000:]}"
                    )
                _forget(service)
        return {
            "seed": seed,
            "first": first,
            "cases": count,
            "deaths": 0,
            "seconds": round(time.monotonic() - begun, 1),
            "longest_answer_seconds": round(longest, 2),
            "rss_before_mib": round(before / 1024, 1),
            "rss_peak_growth_mib": round((rss(pid, "VmHWM") - before) / 1024, 1),
            "rss_growth_mib": round((rss(pid) - before) / 1024, 1),
            **{name: {k: round(v, 4) for k, v in times.items()} for name, times in seen.items()},
            "outcomes": dict(sorted(outcomes.items())),
        }
    finally:
        service.stop()


def warm(service: Service) -> None:
    """An object of each syntax by each way: what a service holds once it has worked is no growth."""
    for number, syntax in enumerate(SYNTAXES):
        chance = random.Random(number)
        for way in range(2):
            uid = f"1.2.826.9.{number}.{way}"
            elements = identity(10**9 + number, CLASSES[0])
            elements[1] = (0x00080018, "UI", uid.encode())
            data = Writer(chance, syntax).elements(elements + pixels(chance, syntax))
            if syntax == DEFLATED:
                data = zlib.compress(data, 1)[2:-4]
            if way:
                assert _stow(service, [part10(CLASSES[0], uid, syntax, data)]) == 200
            else:
                sender = Sender(service.dicom_port, "WARM")
                assert sender.store(CLASSES[0], uid, syntax, data) == 0
                sender.close()


def _client(address: str) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(local_address=address, verify=False), headers=BEARER, timeout=120
    )


def _stow(service: Service, files: list[bytes], http: httpx.Client | None = None) -> int:
    body = (
        b"".join(b"--B\r\nContent-Type: application/dicom\r\n\r\n" + f + b"\r\n" for f in files)
        + b"--B--\r\n"
    )
    reply = (http or service.http).post(
        f"http://127.0.0.1:{service.http_port}/dicom-web/studies",
        content=body,
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'},
        timeout=120,
    )
    return reply.status_code


def _forget(service: Service) -> None:
    """Remove what quarantine has, so that ten thousand fit any disk."""
    for file in (service.storage / "quarantine").glob("*/*.dcm"):
        file.unlink(missing_ok=True)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    if arguments.write:
        arguments.write.write_bytes(part10(*case(arguments.seed, arguments.first)))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = run(arguments.seed, arguments.first, arguments.count, Path(folder))
    result |= {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=2))
    if arguments.keep:
        arguments.keep.write_text(json.dumps(result, indent=2) + "\n")
    if result["rss_peak_growth_mib"] > 64:
        sys.exit("the serving process grew by more than 64 MiB")


if __name__ == "__main__":
    main()
