"""Mutated DICOM files, each made again by its seed and number, and a run of intake over them.

    python tests/faults/mutated_dicom.py SEED FIRST COUNT        # through Spool.take, in a folder that goes away
    python tests/faults/mutated_dicom.py SEED NUMBER --write F   # one file, to look at

The model of allowed outcomes: each file is taken (then it is on the disk and in the journal), known already, or
refused with a code (then its very bytes are in quarantine). Nothing else may come out, within limits of time
and memory: the run ends at the first breach, and its last line names the number.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

from pydicom.data import get_testdata_file

from outpost import logs
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import Spool
from outpost.records.journal import Journal

SEED = 20261124
SECONDS_PER_FILE = 5  # of CPU; ten times that by the clock, for what waits instead
MEMORY_BYTES = 2 << 30  # of address space; a deflate bomb of 1 GiB must not be held
_LARGEST = 300_000
_VRS = (
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV"
)
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+){5,}")


@cache
def corpus() -> list[bytes]:
    """pydicom's test files: truncated ones, without preamble, big endian, deflated, compressed, DICOMDIRs."""
    folder = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    files = sorted(folder.rglob("*.dcm")) + sorted(folder.rglob("DICOMDIR*"))
    return [data for file in files if file.is_file() and len(data := file.read_bytes()) <= _LARGEST]


def mutated(seed: int, number: int) -> bytes:
    """The file of this number."""
    chance = random.Random(f"{seed}:{number}")
    data = bytearray(chance.choice(corpus()))
    if chance.random() < 0.7:
        _other_uids(chance, data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        chance.choice(_MUTATIONS)(chance, data)
    return bytes(data)


def _other_uids(chance: random.Random, data: bytearray) -> None:
    """UIDs of its own, of the same length everywhere, so that not every file is one instance."""
    change = bytes(chance.choice(b"123456789") for _ in range(3))
    for uid in {found for found in _UID.findall(bytes(data)) if not found.startswith(b"1.2.840.10008")}:
        if uid[-3:].isdigit():
            at = data.find(uid)
            while at >= 0:
                data[at + len(uid) - 3 : at + len(uid)] = change
                at = data.find(uid, at + len(uid))


def _place(chance: random.Random, data: bytearray) -> int:
    """Mostly early, where the attributes are; a quarter of the time anywhere."""
    end = len(data) if chance.random() < 0.25 else min(len(data), 2000)
    return chance.randrange(max(1, end))


def _flip_bits(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 8, 64))):
        if data:
            data[_place(chance, data)] ^= 1 << chance.randrange(8)


def _truncate(chance: random.Random, data: bytearray) -> None:
    del data[_place(chance, data) :]


def _zero(chance: random.Random, data: bytearray) -> None:
    at, size = _place(chance, data), chance.randrange(1, 200)
    data[at : at + size] = bytes(len(data[at : at + size]))


def _remove(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    del data[at : at + chance.randrange(1, 64)]


def _repeat(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    data[at:at] = data[at : at + chance.randrange(1, 400)] * chance.choice((1, 1, 50))


def _splice(chance: random.Random, data: bytearray) -> None:
    other = chance.choice(corpus())
    data[_place(chance, data) :] = other[chance.randrange(len(other)) :]


def _vr(chance: random.Random, data: bytearray) -> None:
    found = [m.start() for m in re.finditer(rb"[A-Z]{2}(?=[\0-\x7f]\0)", bytes(data[132:6000]))]
    if found:
        at = 132 + chance.choice(found)
        data[at : at + 2] = chance.choice([*_VRS.split(), b"??", b"\0\0", b"sq"])


def _length(chance: random.Random, data: bytearray) -> None:
    """After what looks like an explicit VR, else anywhere."""
    found = [m.end() for m in re.finditer(rb"[A-Z]{2}(?=[\0-\x7f]\0)", bytes(data[132:6000]))]
    at = 132 + chance.choice(found) if found and chance.random() < 0.8 else _place(chance, data)
    value = chance.choice(
        (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xfe\xff", b"\0\0", b"\1\0", b"\0\0\0\x80")
    )
    data[at : at + len(value)] = value


def _tag(chance: random.Random, data: bytearray) -> None:
    tags = (
        b"08001800 20000d00 08001600 feff00e0 feff0de0 feffdde0 e07f1000 fcfffcff 02001000 08000500 00000000"
    )
    at = _place(chance, data) & ~1
    data[at : at + 4] = bytes.fromhex(chance.choice(tags.split()).decode())


def _unsafe_uid(chance: random.Random, data: bytearray) -> None:
    found = list(_UID.finditer(bytes(data)))
    if found:
        uid = chance.choice(found)
        name = chance.choice(
            (b"../../../../etc/passwd", b"..", b"/", b"1.2\n3", b"1\0.2", b".", b"%s%n", b"\xff\xfe")
        )
        data[uid.start() : uid.end()] = name.ljust(len(uid[0]), chance.choice((b"\0", b"0", b" ")))[
            : len(uid[0])
        ]


def _character_set(chance: random.Random, data: bytearray) -> None:
    at = bytes(data).find(b"ISO_IR")
    if at >= 0:
        name = chance.choice(
            (b"ISO_IR 192", b"ISO 2022 IR 87", b"\\\\\\\\\\\\", b"utf-7     ", b"\x1b\x1b\x1b$B(J")
        )
        data[at : at + len(name)] = name


def _deep_sequence(chance: random.Random, data: bytearray) -> None:
    """Sequences within sequences, in front of the data set or behind it."""
    depth = chance.choice((10, 100, 1000, 5000))
    if chance.random() < 0.5:
        nested = (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    else:
        nested = (b"\x08\x00\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    data[len(data) if chance.random() < 0.5 else _place(chance, data) :] = nested


def _deflate_bomb(chance: random.Random, data: bytearray) -> None:
    whole = Path(str(get_testdata_file("image_dfl.dcm", download=False))).read_bytes()
    offset = 144 + int.from_bytes(whole[140:144], "little")
    plain = zlib.decompress(whole[offset:], -zlib.MAX_WBITS)
    size = chance.choice((1, 4, 16)) << 20
    plain = plain[: chance.randrange(len(plain))] + bytes(size)
    packed = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    stream = packed.compress(plain) + packed.flush()
    data[:] = (
        whole[:offset] + stream[: len(stream) if chance.random() < 0.5 else chance.randrange(len(stream))]
    )


_OFTEN = (_flip_bits, _truncate, _zero, _remove, _repeat, _splice, _vr, _length, _tag)
_MUTATIONS = (
    *_OFTEN * 4,
    _unsafe_uid,
    _unsafe_uid,
    _character_set,
    _deep_sequence,
    _deep_sequence,
    _deflate_bomb,
)


class Breach(Exception):
    """An outcome that the model does not allow."""


def offer(spool: Spool, journal: Journal, data: bytes) -> str:
    """Have intake take one file; returns what became of it. Raises `Breach`."""
    with spool.receiving_file() as file:
        file.write(data)
        file.flush()
        before = sum(journal.instances_refused().values())
        try:
            header, study = spool.take(Path(file.name), "FUZZ")
        except InstanceRefused as refused:
            if refused.refusal in (Refusal.INTERNAL, Refusal.OUT_OF_SPACE):
                raise Breach(f"{refused.refusal.name} from {refused.__cause__!r}") from refused
            if sum(journal.instances_refused().values()) != before + 1:
                raise Breach("refused, but not in the journal") from refused
            [kept] = journal._rows("SELECT file FROM refused ORDER BY id DESC LIMIT 1")
            if (spool.root / kept["file"]).read_bytes() != data:
                raise Breach("refused, but the bytes are not in quarantine") from refused
            (spool.root / kept["file"]).unlink()  # so that a run of ten thousand fits any disk
            return refused.refusal.name
        path = spool.folder(header.study_uid) / f"{header.sop_uid}.dcm"
        if not path.exists() or journal.lookup(header.sop_uid) is None:
            raise Breach("acknowledged, but not on the disk and in the journal")
        if study is None:
            return "DUPLICATE"
        if path.read_bytes() != data:
            raise Breach("acknowledged, but other bytes are on the disk")
        return "TAKEN"


def run(seed: int, first: int, count: int) -> None:
    """Offer every file; ends the process at a breach, a hang (SIGPROF, SIGALRM) or where memory does not suffice."""
    logs.configure()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        journal = Journal(root / "journal.sqlite3", "fuzz")
        spool = Spool(root, journal, reserve_mib=0)
        for number in range(first, first + count):
            data = mutated(seed, number)
            print(
                number, end="\r", file=sys.stderr, flush=True
            )  # what a killed process leaves as its last word
            signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_FILE)
            signal.alarm(10 * SECONDS_PER_FILE)
            try:
                outcomes[offer(spool, journal, data)] += 1
            except Exception as error:
                sys.exit(f"\nseed {seed} number {number}: {type(error).__name__}: {error}")
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
        if leftover := list(spool.incoming.iterdir()):
            sys.exit(f"\n{len(leftover)} files left in .incoming")
        if adopted := spool.reconcile():
            sys.exit(f"\nreconcile adopted {adopted}: on the disk, but not in the journal")
        held = journal.instances_received()
        journal.close()
    if held != outcomes["TAKEN"]:
        sys.exit(f"\n{held} in the journal, {outcomes['TAKEN']} acknowledged")
    print(" ".join(f"{name}={number}" for name, number in sorted(outcomes.items())))


def counted(count: int) -> dict[str, int]:
    """How the first `count` files ended, in a process of its own, by the outcome's code; fails where it broke off."""
    run = subprocess.run(
        [sys.executable, __file__, str(SEED), "0", str(count)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    last = run.stderr.splitlines()[-1] if run.stderr else ""
    assert run.returncode == 0, f"ended with {run.returncode}: seed {SEED}, last words {last!r}"
    return {code: int(number) for code, number in (pair.split("=") for pair in run.stdout.split())}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    if arguments.write:
        arguments.write.write_bytes(mutated(arguments.seed, arguments.first))
    else:
        run(arguments.seed, arguments.first, arguments.count)


if __name__ == "__main__":
    main()
