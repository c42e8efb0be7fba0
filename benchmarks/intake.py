#!/usr/bin/env python3
"""C-STORE intake against DCMTK's storescp and stock pynetdicom, over a real link.

    sudo benchmarks/intake.py [--rounds 3]

Sender: unmodified /usr/bin/storescu, one association. Two network namespaces joined by a veth pair (MTU 1500), as
loopback with its MTU of 64 KiB hides what Nagle's algorithm and delayed acknowledgement do to real links. Each
receiver starts anew on an empty folder of the same disk; runs of all receivers are interleaved. Outpost keeps its
promise meanwhile: fsync of the file, of its folder and the journal's commit before each Success; the peers only
write the file. Bars on CT slices (513 KiB): >= 4 x storescp, >= 1.4 x stock pynetdicom, best run against best.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from report import Spread, finish, table

PORT = 11112
SENDER, RECEIVER = "10.213.7.1", "10.213.7.2"
SIZES = {"9 KiB": ("MR_small.dcm", 200), "513 KiB": ("693_UNCI.dcm", 150), "6.9 MiB": ("RG1_UNCI.dcm", 15)}
RECEIVERS = ("outpost", "storescp", "pynetdicom")
BARS = {"pynetdicom": 1.4, "storescp": 4.0}
DECISIVE, DECISIVE_PEER = "513 KiB", "storescp"


def main() -> int:
    """Measure, print the table and the verdicts, keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--storage", type=Path, default=Path(__file__).parents[1], help="on the disk to measure"
    )
    parser.add_argument("--only", choices=list(SIZES), help="one size; nothing is kept then")
    parser.add_argument("--receive", choices=RECEIVERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        receive(arguments.receive, arguments.storage)
        return 0
    sizes = {arguments.only: SIZES[arguments.only]} if arguments.only else SIZES
    rates: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as ending:
        work = Path(ending.enter_context(tempfile.TemporaryDirectory(dir=arguments.storage)))
        sender, receiver = ending.enter_context(link())
        for size, (name, count) in sizes.items():
            write_files(work / size.replace(" ", ""), name, count)
        for _ in range(arguments.rounds):
            for size, (_, count) in sizes.items():
                for kind in RECEIVERS:
                    seconds = run(
                        kind, work / size.replace(" ", ""), work / "received", sender, receiver, count
                    )
                    rates.setdefault((size, kind), []).append(count / seconds)
    return conclude(rates, list(sizes), keep=arguments.only is None and arguments.rounds >= 3)


@contextmanager
def link() -> Iterator[tuple[str, str]]:
    """Two namespaces and a veth pair between them, gone at the end whatever happens."""
    sender, receiver = (f"opb{os.getpid()}{end}" for end in "sr")

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check)

    try:
        for name in (sender, receiver):
            ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", sender, "type", "veth", "peer", "name", "eth0", "netns", receiver)
        for name, address in ((sender, SENDER), (receiver, RECEIVER)):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield sender, receiver
    finally:
        for name in (sender, receiver):
            ip("netns", "delete", name, check=False)


def write_files(folder: Path, name: str, count: int) -> None:
    """`count` instances of one study, made of a real image."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file
    from pydicom.uid import generate_uid

    folder.mkdir()
    image = dcmread(str(get_testdata_file(name)))
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.remove_private_tags()
    for number in range(count):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)


def run(kind: str, files: Path, target: Path, sender: str, receiver: str, count: int) -> float:
    """Seconds that one receiver takes for all files; it must have them at the end."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    commands = {
        "storescp": ["/usr/bin/storescp", "-od", str(target), "-uf", "+xa", "-fe", ".dcm", str(PORT)],
        "pynetdicom": [sys.executable, "-m", "pynetdicom", "storescp", str(PORT), "-q", "-od", str(target)],
        "outpost": [sys.executable, __file__, "--receive", "outpost", "--storage", str(target)],
    }
    process = subprocess.Popen(
        ["ip", "netns", "exec", receiver, *commands[kind]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    within = ["ip", "netns", "exec", sender]
    try:
        for _ in range(200):
            if (
                subprocess.run(
                    [*within, "/usr/bin/echoscu", RECEIVER, str(PORT)], capture_output=True
                ).returncode
                == 0
            ):
                break
            time.sleep(0.05)
        os.sync()  # the last run's pages are not this one's burden
        begun = time.perf_counter()
        subprocess.run([*within, "/usr/bin/storescu", "+sd", RECEIVER, str(PORT), str(files)], check=True)
        seconds = time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()
    kept = [file for file in target.rglob("*") if file.is_file() and file.stat().st_size > 5000]
    kept = [file for file in kept if "journal" not in file.name]
    if len(kept) != count:
        raise SystemExit(f"{kind} kept {len(kept)} of {count} files: nothing can be said of its speed")
    return seconds


def receive(kind: str, root: Path) -> None:
    """Outpost's own intake, as `outpost serve` puts it together, until it is killed."""
    from outpost import logs
    from outpost.config import Intake
    from outpost.intake.assembly import Assembly
    from outpost.intake.scp import StorageScp
    from outpost.intake.spool import Spool
    from outpost.records.journal import Journal

    assert kind == "outpost"
    logs.configure()
    config = Intake(check_called_ae_title=False, listen=RECEIVER, dicom_port=PORT)
    journal = Journal(root / "journal.sqlite3", "bench")
    spool = Spool(root, journal, config.disk_reserve_mib, config.disk_used_percent)
    scp = StorageScp(config, spool, Assembly(journal, 3600))
    scp.start()
    if seconds := os.environ.get("OUTPOST_PROFILE_SECONDS"):
        time.sleep(float(seconds))
        return
    threading.Event().wait()


def conclude(rates: dict[tuple[str, str], list[float]], sizes: list[str], keep: bool) -> int:
    """The table and a verdict for each bar; the last line is the decisive one."""
    print("instances a second, median (least-greatest), over veth of MTU 1500; x: best to best")
    spreads = {pair: Spread.of(values) for pair, values in rates.items()}
    rows: list[list[object]] = [[kind, *(spreads[size, kind] for size in sizes)] for kind in RECEIVERS]

    def ratio(size: str, peer: str) -> float:
        return spreads[size, "outpost"].greatest / spreads[size, peer].greatest

    rows += [[f"x {peer}", *(f"{ratio(size, peer):.2f}" for size in sizes)] for peer in BARS]
    print(table(["", *sizes], rows))
    status = 0
    for peer, bar in BARS.items():
        status |= finish(
            f"intake-{peer}" if peer != DECISIVE_PEER else "intake",
            ratio=ratio(DECISIVE, peer) if DECISIVE in sizes else None,
            peer=f"{peer}, C-STORE of {DECISIVE} slices",
            bar=f">= {bar}",
            ok=DECISIVE in sizes and ratio(DECISIVE, peer) >= bar,
            details={f"{size}, {kind}": spread for (size, kind), spread in spreads.items()},
            packages=("pynetdicom", "pydicom"),
            keep=keep,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
