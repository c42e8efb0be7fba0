"""Hostile structures, requests and commands hurt nobody but their sender (hostile_structures.py)."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_structures as hostile
import pytest
from hostile_structures import (
    CLASSES,
    EXPLICIT,
    IMPLICIT,
    SEED,
    Sender,
    Writer,
    case,
    command_set,
    forget_peak,
    fragment_pdu,
    identity,
    part10,
    pixels,
    request_pdu,
    rss,
    serving,
    warm,
    watched,
)
from running import Service, wait_for

MIB = 1024  # KiB
MR, ENHANCED_MR, RT_STRUCTURES = CLASSES[0], CLASSES[1], CLASSES[4]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = serving(tmp_path_factory.mktemp("hostile"))
    warm(service)
    yield service
    service.stop()


class Watch:
    """Memory of the serving process and readiness, from the beginning of a test to its end."""

    def __init__(self, service: Service) -> None:
        assert service.process is not None
        self.pid = service.process.pid
        self.before = rss(self.pid)
        forget_peak(self.pid)
        self._watching = watched(service.http_port)
        self._seen = self._watching.__enter__()

    def end(self) -> None:
        grown = (rss(self.pid, "VmHWM") - self.before) / MIB
        self._watching.__exit__(None, None, None)
        late, slept = self._seen["readiness"], self._seen["sleeper"]
        assert grown <= 64, f"{grown:.0f} MiB"
        # 100 ms, and what this machine takes of anybody at the time: of a process that only sleeps, several turns. Of
        # few answers the 99th percentile is the longest, which other tests on the same cores decide; `make hostile`
        # judges it by thousands.
        assert late["p99" if late["asked"] >= 500 else "median"] <= 0.1 + 4 * slept["longest"], (late, slept)
        assert late["longest"] <= 1.0 + 4 * slept["longest"], (late, slept)


@pytest.fixture
def watch(service: Service) -> Iterator[Watch]:
    watch = Watch(service)
    yield watch
    watch.end()
    assert service.process is not None
    assert service.process.poll() is None


_numbers = iter(range(10**6, 2 * 10**6))


def data_set(
    what: list[hostile.Element], sop_class: str = MR, syntax: str = EXPLICIT
) -> tuple[str, str, str, bytes]:
    """An instance of its own with these elements, as `Sender.store` takes it."""
    number = next(_numbers)
    chance = hostile.random.Random(number)
    elements = sorted(identity(number, sop_class) + what, key=lambda element: element[0])
    data = Writer(chance, syntax).elements(elements + pixels(chance, syntax))
    return sop_class, f"1.2.826.1.{number}", syntax, data


def items(count: int) -> list[hostile.Element]:
    return [(0x00081140, "SQ", [[(0x00080100, "SH", b"1")]] * count)]


def enhanced(frames: int) -> list[hostile.Element]:
    """Functional groups as scanners write them: eight a frame, each a sequence with an item."""
    groups: list[hostile.Element] = [
        (tag, "SQ", [[(0x00189151, "DT", b"20200101"), (0x00189157, "UL", b"\1\0\0\0")]])
        for tag in (
            0x00189112,
            0x00189114,
            0x00209111,
            0x00209113,
            0x00209116,
            0x00289110,
            0x00289132,
            0x00289145,
        )
    ]
    return [(0x00280008, "IS", str(frames).encode()), (0x52009230, "SQ", [groups] * frames)]


def test_hundreds_of_hostile_structures_are_each_answered(service: Service, watch: Watch) -> None:
    """A sample of `make hostile`."""
    answered, sender = 0, None
    for number in range(200):
        one = case(SEED, number)
        address = f"127.3.0.{number // 10 + 1}"
        if number % 2:
            client = hostile._client(address)
            assert hostile._stow(service, [part10(*one)], client) in (200, 202, 409), number
            client.close()
            answered += 1
            continue
        try:
            sender = sender or Sender(service.dicom_port, "HOSTILE", address)
            sender.store(*one)
            answered += 1
        except OSError:
            sender = None
        if number % 10 == 8 and sender is not None:
            sender.close()
            sender = None
    assert answered == 200
    hostile._forget(service)


def test_half_a_million_items_are_refused_with_sender_and_bound_by_either_way(
    service: Service, watch: Watch
) -> None:
    sender = Sender(service.dicom_port, "POISONER", "127.4.0.1")
    assert sender.store(*data_set(items(500_000))) == 0xC003
    sender.close()
    client = hostile._client("127.4.0.2")
    assert hostile._stow(service, [part10(*data_set(items(500_000)))], client) == 409
    client.close()
    assert "instance of 'POISONER' at 127.4.0.1 refused: TOO_COMPLEX, more than 50000 items" in service.log
    assert "instance of 'stow' at 127.4.0.2 refused: TOO_COMPLEX, more than 50000 items" in service.log
    kept = [
        item for item in service.http.get("/quarantine").json()["items"] if item["reason"] == "TOO_COMPLEX"
    ]
    assert {"POISONER", "stow"} <= {name for item in kept for name in item["senders"]}
    told = events(service, "SENDER_REFUSED")
    assert [
        sum("TOO_COMPLEX" in detail and who in detail for detail in told)
        for who in ("127.4.0.1", "127.4.0.2")
    ] == [1, 1]


def events(service: Service, code: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(service.storage / "journal.sqlite3")) as journal:
        return [row[0] for row in journal.execute("SELECT detail FROM events WHERE code = ?", (code,))]


def test_six_at_once_are_refused_and_nothing_grows(service: Service, watch: Watch) -> None:
    files = [data_set(items(500_000), syntax=syntax) for syntax in (EXPLICIT, IMPLICIT) for _ in range(3)]
    found: list[int] = []

    def send(number: int) -> None:
        sender = Sender(service.dicom_port, f"SIX{number}", f"127.5.0.{number + 1}")
        found.append(sender.store(*files[number]))
        sender.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0xC003] * 6


def test_an_enhanced_mr_of_twenty_thousand_frames_is_taken(service: Service, watch: Watch) -> None:
    one = data_set(enhanced(20_000), ENHANCED_MR)
    sender = Sender(service.dicom_port, "SCANNER", "127.6.0.1")
    assert sender.store(*one) == 0
    sender.close()


def test_contours_by_the_hundred_thousand_are_kept_with_their_study(service: Service, watch: Watch) -> None:
    sender = Sender(service.dicom_port, "PLANNING", "127.6.0.2")
    assert sender.store(*data_set(items(150_000), RT_STRUCTURES)) == 0
    sender.close()


@pytest.mark.parametrize("where", ["deep", "behind the pixels", "private", "fragments", "in a value"])
def test_it_is_the_whole_tree_that_is_bounded(service: Service, watch: Watch, where: str) -> None:
    nested: list[hostile.Element] = []
    for _ in range(300):
        nested = [(0x00081140, "SQ", [nested])]
    writer = Writer(hostile.random.Random(1), IMPLICIT)
    what: list[hostile.Element] = {
        "deep": nested,
        "behind the pixels": [(0x7FE11010, "SQ", [[]] * 200_000)],
        "private": [(0x00091010, "UN", [[]] * 200_000)],
        "fragments": [(0x00091010, "OB", (b"xx",) * 300_000)],
        "in a value": [(0x00091010, "UN", writer.items([[]] * 200_000))],
    }[where]
    one = list(data_set([] if where == "behind the pixels" else what))
    if where == "behind the pixels":
        one[3] += Writer(hostile.random.Random(2), EXPLICIT).elements(what)
    sender = Sender(service.dicom_port, "DEEP", f"127.7.0.{len(where)}")
    assert sender.store(*one) == 0xC003
    sender.close()


def test_a_sender_that_repeats_poison_is_slowed_and_no_other(service: Service) -> None:
    poison, sound = data_set(items(60_000)), data_set([])
    bad, good = (Sender(service.dicom_port, title, "127.8.0.1") for title in ("REPEATS", "INNOCENT"))
    took = []
    for _ in range(4):
        begun = time.monotonic()
        assert bad.store(*poison) == 0xC003
        took.append(time.monotonic() - begun)
        begun = time.monotonic()
        assert good.store(*sound) == 0
        assert time.monotonic() - begun < 3
    assert took[2] < took[3]
    assert took[3] > 1.5
    bad.close()
    good.close()
    events = service.http.get("/quarantine").json()["items"]
    assert sum(item["senders"] == ["REPEATS"] for item in events) == 1, "the same bytes are kept once"
    assert "'REPEATS' at 127.8.0.1 repeats what is refused (TOO_COMPLEX)" in service.log


# --- the protocol around the data set ---


def closed_with_words(service: Service, connection: socket.socket, words: str) -> None:
    """The service ends the connection by itself, and says why in its log."""
    connection.settimeout(20)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    wait_for(lambda: words in service.log, 5, words)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("contexts", "more than 128 presentation contexts"),
        ("syntaxes", "more than 12000 transfer syntaxes"),
        ("user", "more than 1024 items of user information"),
        ("bytes", "more than 256 KiB"),
    ],
)
def test_a_request_of_thousands_of_items_is_refused_by_its_size(
    service: Service, watch: Watch, what: str, words: str
) -> None:
    one = [(0x30, b"1.2.840.10008.1.1"), (0x40, b"1.2.840.10008.1.2")]
    contexts = {
        "contexts": [(1, one)] * 4000,
        "syntaxes": [(1, [*one, *[(0x40, b"1")] * 13_000])],
        "user": [(1, one)],
        "bytes": [(1, [*one, *[(0x40, b"1" * 1000)] * 60])] * 10,
    }[what]
    user = [(0x54, struct.pack(">H", 3) + b"1.2\1\1")] * 5000 if what == "user" else []
    with socket.create_connection(("127.0.0.1", service.dicom_port)) as connection:
        connection.sendall(request_pdu(contexts, user, title="GREEDY"))
        closed_with_words(service, connection, words)
    assert "association of 'GREEDY' at 127.0.0.1 refused: BEYOND_BOUNDS, a request" in service.log


def _endless_command(sender: Sender) -> None:
    for _ in range(2000):
        sender.socket.sendall(fragment_pdu(1, 1, bytes(100_000)))


def _endless_identifier(sender: Sender) -> None:
    find = {
        0x0002: b"1.2.840.10008.5.1.4.1.2.2.1\0",
        0x0100: b"\x20\0",
        0x0110: b"\1\0",
        0x0700: b"\2\0",
        0x0800: b"\1\0",
    }
    sender.socket.sendall(fragment_pdu(1, 3, command_set(find)))
    for _ in range(2000):
        sender.socket.sendall(fragment_pdu(1, 0, bytes(100_000)))


def _data_without_a_command(sender: Sender) -> None:
    sender.socket.sendall(fragment_pdu(1, 2, b"data"))


def _command_in_a_data_set(sender: Sender) -> None:
    store = {0x0002: b"1.2\0", 0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\1\0", 0x1000: b"1.2.3\0"}
    for _ in range(100):
        sender.socket.sendall(fragment_pdu(1, 3, command_set(store)))


def _command_of_sequences(sender: Sender) -> None:
    sender.socket.sendall(fragment_pdu(1, 3, b"\0\0\0\1\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" * 1500))


def _countless_fragments(sender: Sender) -> None:
    one = struct.pack(">LBB", 2, 1, 1)
    sender.socket.sendall(b"\4\0" + struct.pack(">L", 100_000 * 6) + one * 100_000)


@pytest.mark.parametrize(
    ("send", "words"),
    [
        (_endless_command, "a command of more than 16384 bytes"),
        (_endless_identifier, "a data set of more than 1 MiB"),
        (_data_without_a_command, "a data set without a command"),
        (_command_in_a_data_set, "a command in the middle of a data set"),
        (_command_of_sequences, "a command that is no list of command elements"),
        (_countless_fragments, "a PDU of more than 1024 fragments"),
    ],
)
def test_what_is_no_message_of_dicom_ends_its_association(
    service: Service, watch: Watch, send: Callable[[Sender], None], words: str
) -> None:
    sender = Sender(service.dicom_port, "ODD")
    with contextlib.suppress(OSError):  # it has been closed meanwhile
        send(sender)
    closed_with_words(service, sender.socket, words)
    sender.close()
    incoming = service.storage / "spool" / ".incoming"
    wait_for(lambda: not list(incoming.iterdir()), 10, "nothing half is left")


def test_two_messages_in_one_pdu_are_both_answered(service: Service) -> None:
    sender = Sender(service.dicom_port, "DENSE")
    pdu = b""
    for _ in range(2):
        sop_class, uid, syntax, data = data_set([])
        context = sender.contexts[sop_class, syntax]
        store = {
            0x0002: hostile._uid(sop_class),
            0x0100: b"\1\0",
            0x0110: b"\1\0",
            0x0700: b"\2\0",
            0x0800: b"\1\0",
        }
        command = command_set(store | {0x1000: hostile._uid(uid)})
        pdu += fragment_pdu(context, 3, command)[6:] + fragment_pdu(context, 2, data)[6:]
    sender.socket.sendall(b"\4\0" + struct.pack(">L", len(pdu)) + pdu)
    assert [sender.status(), sender.status()] == [0, 0]
    sender.close()


def test_requests_that_nobody_waits_for_an_answer_to_do_not_pile_up(service: Service, watch: Watch) -> None:
    sender = Sender(service.dicom_port, "HASTY")
    report = command_set(
        {0x0002: b"1.2\0", 0x0100: struct.pack("<H", 0x100), 0x0110: b"\1\0", 0x0800: b"\1\1"}
    )
    sender.socket.settimeout(3)
    begun = time.monotonic()
    try:
        for _ in range(20_000):
            sender.socket.sendall(fragment_pdu(1, 3, report))
            if time.monotonic() - begun > 3:
                break
    except OSError:
        pass
    assert service.process is not None
    threads = int(Path(f"/proc/{service.process.pid}/status").read_text().split("Threads:")[1].split()[0])
    sender.close()
    assert threads < 150


# --- HTTP ---


def test_countless_parts_and_headers_of_a_body_are_bounded(service: Service, watch: Watch) -> None:
    def post(
        body: bytes, content_type: str = 'multipart/related; type="application/dicom"; boundary=B'
    ) -> int:
        reply = service.http.post(
            "/dicom-web/studies", content=body, headers={"Content-Type": content_type}, timeout=60
        )
        return reply.status_code

    assert post(b"--B\r\n\r\n\r\n" * 50_000 + b"--B--\r\n") == 413
    assert post(b"--B\r\n" + b"X: 1\r\n" * 1_000_000 + b"\r\n\r\n--B--\r\n") == 400
    assert post(b"--B\r\nContent-Type: " + b';"' * 8000 + b"\r\n\r\nx\r\n--B--\r\n") == 409
    assert post(b"--B--", "multipart/related; " + ';"' * 8000) == 415
