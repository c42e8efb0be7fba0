"""Faults that senders bring: for `benchmarks/faults.py`, Outpost alone, as the peers know no DICOM.

Good studies flow at a steady rate; beside them a sender does what senders do. The service has to stay ready, every good
study has to come out right, and each study of the fault has to come to its own right end.
"""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import studies
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import RLELossless

FAULTS = {
    "loop": "the PACS sends every result, and every image of the study, back",
    "names": "a scanner writes dates, times and names that DICOM does not allow",
    "part": "20 of 24 images of a study come, the rest of half of the studies 10 s later",
    "patients": "the second half of a study's images is of another patient",
    "sizes": "studies of 24 x 16384 x 16384 (RLE), of 1e6 and 1e-6 mm, of one line, of numbers beyond float32",
    "many": "studies of 10,000 files, in one request or in a hundred",
    "stopped": "a worker is stopped (SIGSTOP), killed or terminated every 5 s, whatever it does",
}
SECONDS = 25.0  # how long the fault lasts
RATE = 0.5  # studies of the fault a second
FORCED_SECONDS = 30  # after which a part is waited for no more
_LATER_SECONDS = 10.0
_PART = 20  # images, which the model would read
_FIRST = 1_000_000  # serial number of the first study of the fault
# Values that a sender really wrote, by keyword; each study of the fault has them all.
_ILLEGAL = {
    "StudyDate": b"20261332",
    "StudyTime": b"10:15:00",
    "PatientBirthDate": b"00000000",
    "PatientName": b"Ivanov\\Ivan^^^^^^",
    "AccessionNumber": b"an accession number of forty characters.",
    "StudyID": b"one\x01two",
}


@dataclass(slots=True)
class InputCell:
    """What one fault of a sender did.

    Attributes:
        polls: how often readiness was asked, and how often it was not there.
        failing: which critical checks failed then, and how often.
        lost: studies, good ones and the fault's, that came to no end, or to another than the table says.
        wrong: results that are of a part, of two patients, or of other voxels, without saying so.
        revisions: the most that one study had.
        reduced: good studies that were computed at another rung than the full one.
        ends: what came of all studies: those of the fault after `fault:`.
    """

    polls: tuple[int, int] = (0, 0)
    lost: int = 0
    wrong: int = 0
    revisions: int = 0
    reduced: int = 0
    failing: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    cannot: str = ""

    @property
    def ok(self) -> bool:
        return not (self.cannot or self.lost or self.wrong or self.reduced) and self.revisions <= 2

    def ready_enough(self, fault: str) -> bool:
        """Whether it was ready throughout; where its workers are killed, it says so, and is not."""
        return fault == "stopped" or not self.polls[1]


class Outpost(Protocol):
    """What is asked of the server under test (`faults.OfOutpost`)."""

    pacs_folder: Path
    studies: studies.Studies

    def ready(self) -> bool: ...

    def failing(self) -> list[str]:
        """Codes of the critical checks that fail now, or why it does not say so."""

    def stow(self, files: Sequence[bytes], seconds: float = 30.0) -> int:
        """Send files; returns the HTTP status. Raises `OSError` where none comes in so many seconds."""

    def revisions(self, study_uid: str) -> list[dict[str, Any]]:
        """What the service says of a study; empty where it knows none."""

    def computing(self) -> list[int]: ...


def measure(subject: Outpost, fault: str, settle_seconds: float) -> InputCell:
    """One cell: 5 s of health, the fault, and until every study has its end."""
    stop = threading.Event()
    polls = [0, 0]
    failing: Counter[str] = Counter()

    def poll() -> None:
        while not stop.wait(0.1):
            polls[0] += 1
            if not subject.ready():
                polls[1] += 1
                failing.update(subject.failing())

    rate = _RATES.get(fault, RATE)
    good, bad = _Sender(subject, 1, 2.0, _as_it_is), _Sender(subject, _FIRST, rate, _SENDERS[fault])
    looping = threading.Event()
    threads = [threading.Thread(target=poll), threading.Thread(target=good.run)]
    for thread in threads:
        thread.start()
    time.sleep(5.0)
    others = [threading.Thread(target=bad.run)]
    if fault == "loop":
        others.append(threading.Thread(target=_return_all, args=(subject, looping)))
    for thread in others:
        thread.start()
    time.sleep(SECONDS)
    bad.stop.set()
    others[0].join()
    time.sleep(3.0)
    good.stop.set()
    threads[1].join()
    ends = _settled(subject, [*good.sent, *bad.sent], settle_seconds)
    looping.set()
    for thread in others[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    cell = _judged(subject, fault, good.sent, bad.sent, ends, (polls[0], polls[1]))
    cell.failing = dict(failing.most_common())
    if bad.failed:
        cell.cannot = bad.failed[0]
    return cell


Send = Callable[[Outpost, int], None]


class _Sender:
    """Studies at a steady rate, each in a thread of its own."""

    def __init__(self, subject: Outpost, first: int, rate: float, send: Send) -> None:
        self._subject, self._next, self._rate, self._send = subject, first, rate, send
        self.stop = threading.Event()
        self.sent: list[int] = []
        self.failed: list[str] = []  # what kept the fault from being done: then the cell says nothing

    def run(self) -> None:
        threads = []
        while True:
            serial, self._next = self._next, self._next + 1
            self.sent.append(serial)
            threads.append(threading.Thread(target=self._one, args=(serial,)))
            threads[-1].start()
            if self.stop.wait(1 / self._rate):
                break
        for thread in threads:
            thread.join()

    def _one(self, serial: int) -> None:
        try:
            self._send(self._subject, serial)
        except NothingInjected as error:
            self.failed.append(str(error))


class NothingInjected(Exception):
    """There was no process that a fault could be done to."""


def _as_it_is(subject: Outpost, serial: int) -> None:
    _sent(subject, subject.studies.files(serial))


def _illegal_names(subject: Outpost, serial: int) -> None:
    def spoil(image: Dataset, _: int) -> None:
        for keyword, value in _ILLEGAL.items():
            tag = Tag(keyword)
            vr = image[tag].VR if tag in image else "LO"
            image._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    _sent(subject, _edited(subject.studies.files(serial), spoil))


def _a_part(subject: Outpost, serial: int) -> None:
    def counted(image: Dataset, _: int) -> None:
        image.ImagesInAcquisition = len(subject.studies.template)

    files = _edited(subject.studies.files(serial), counted)
    _sent(subject, files[:_PART])
    if _made_whole(serial):
        time.sleep(_LATER_SECONDS)
        _sent(subject, files[_PART:])


def _made_whole(serial: int) -> bool:
    return serial % 2 == 0


def _two_patients(subject: Outpost, serial: int) -> None:
    def mixed(image: Dataset, number: int) -> None:
        if number >= len(subject.studies.template) // 2:
            image.PatientID, image.PatientName = "B2", "Bench^Second"

    _sent(subject, _edited(subject.studies.files(serial), mixed))


def _huge(image: Dataset, _: int) -> None:
    """Each image is 16384 x 16384 of one value, in RLE: 8 MiB that decode to 512."""
    segment = bytes((129, 7)) * (1 << 21)
    head = struct.pack("<16L", 2, 64, 64 + len(segment), *([0] * 13))
    image.Rows = image.Columns = 16384
    image.file_meta.TransferSyntaxUID = RLELossless
    image.PixelData = encapsulate([head + segment[:4096] + segment[:4096]])
    image["PixelData"].is_undefined_length = True


def _spaced(first: float, second: float) -> Callable[[Dataset, int], None]:
    def edit(image: Dataset, _: int) -> None:
        image.PixelSpacing = [first, second]

    return edit


def _line(image: Dataset, _: int) -> None:
    image.Rows, image.Columns, image.NumberOfFrames = 1, 1, 100_000


def _no_numbers(image: Dataset, _: int) -> None:
    image.RescaleSlope, image.RescaleIntercept = "3e38", "3e38"


_SIZES: list[tuple[Callable[[Dataset, int], None], str]] = [
    (_huge, "quarantined STUDY_TOO_LARGE"),
    (_spaced(1e6, 1e6), "quarantined STUDY_TOO_LARGE"),
    (_spaced(1e-6, 1e-6), "rejected NO_SERIES_FOR_BUNDLE"),
    (_spaced(1e6, 1e-6), "rejected NO_SERIES_FOR_BUNDLE"),
    (_line, "rejected NO_SERIES_FOR_BUNDLE"),
    (_no_numbers, "rejected PIXELS_UNREADABLE"),
]


def _odd_size(subject: Outpost, serial: int) -> None:
    _sent(subject, _edited(subject.studies.files(serial), _SIZES[serial % len(_SIZES)][0]))


def _many_files(subject: Outpost, serial: int) -> None:
    """10,000 images of a projection, each with a UID of its own: of every other study, all in one request."""
    first = dcmread(io.BytesIO(subject.studies.files(serial)[0]))
    first.ImageType = ["DERIVED", "PRIMARY", "LOCALIZER"]
    uid = str(first.SOPInstanceUID)
    requests: list[list[bytes]] = []  # made before the first is sent: between them no quiet time shall pass
    for hundred in range(100):
        files = []
        for number in range(100):
            first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = (
                f"{uid[:50]}.{hundred}.{number + 1}"
            )
            buffer = io.BytesIO()
            first.save_as(buffer)
            files.append(buffer.getvalue())
        requests.append(files)
    if serial % 2:
        requests = [[file for files in requests for file in files]]
    for files in requests:
        _sent(subject, files, _ONE_REQUEST_SECONDS)


def _stops_a_worker(subject: Outpost, serial: int) -> None:
    kinds = (signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM)
    deadline = time.monotonic() + _WORKER_SECONDS
    while not _hit(subject.computing(), serial, kinds[serial % len(kinds)]):
        if time.monotonic() > deadline:
            raise NothingInjected(f"nothing injected: no process that computes in {_WORKER_SECONDS:g} s")
        time.sleep(0.05)
    _as_it_is(subject, serial)


def _hit(workers: Sequence[int], serial: int, kind: signal.Signals) -> bool:
    """Send a signal to one of the workers; returns whether it was there."""
    try:
        os.kill(workers[serial % len(workers)], kind)
    except (ZeroDivisionError, ProcessLookupError):
        return False
    return True


_RATES = {"many": 1 / 15, "stopped": 1 / 5}
_ONE_REQUEST_SECONDS = 120.0  # for an answer to 10,000 files
_WORKER_SECONDS = 30.0  # until one computes again

_SENDERS: dict[str, Send] = {
    "sizes": _odd_size,
    "many": _many_files,
    "stopped": _stops_a_worker,
    "loop": _as_it_is,
    "names": _illegal_names,
    "part": _a_part,
    "patients": _two_patients,
}


def _edited(files: Sequence[bytes], edit: Callable[[Dataset, int], None]) -> list[bytes]:
    made = []
    for number, file in enumerate(files):
        image = dcmread(io.BytesIO(file))
        edit(image, number)
        buffer = io.BytesIO()
        image.save_as(buffer)
        made.append(buffer.getvalue())
    return made


def _sent(subject: Outpost, files: Sequence[bytes], seconds: float = 30.0) -> None:
    """Until it is taken, as senders do."""
    for _ in range(20):
        with suppress(OSError):
            if subject.stow(files, seconds) == 200:
                return
        time.sleep(0.5)


def _return_all(subject: Outpost, stop: threading.Event) -> None:
    """What an archive does that routes all it has of a study to us whenever something new of it comes."""
    seen: set[str] = set()
    while not stop.wait(0.2):
        for file in list(subject.pacs_folder.iterdir()):
            if file.name in seen:
                continue
            try:
                result = dcmread(file, specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
                again = [
                    file.read_bytes(),
                    *subject.studies.files(studies.serial_of(str(result.StudyInstanceUID))),
                ]
            except Exception:  # noqa: S112 - the archive is still writing it: next time
                continue
            seen.add(file.name)
            _sent(subject, again)


def _settled(subject: Outpost, sent: Sequence[int], seconds: float) -> dict[int, list[dict[str, Any]]]:
    """The revisions of each study, once all have their end, or the time is over."""
    found: dict[int, list[dict[str, Any]]] = {}
    left = list(sent)
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        for serial in list(left):
            with suppress(OSError):
                revisions = subject.revisions(studies.study_uid(subject.studies, serial))
                found[serial] = revisions
                if revisions and all(one["outcome"] != "pending" for one in revisions):
                    left.remove(serial)
        time.sleep(0.5)
    time.sleep(2.0)  # what a loop would still open
    for serial in sent:
        with suppress(OSError):
            found[serial] = subject.revisions(studies.study_uid(subject.studies, serial))
    return found


def _judged(
    subject: Outpost,
    fault: str,
    good: Sequence[int],
    bad: Sequence[int],
    ends: dict[int, list[dict[str, Any]]],
    polls: tuple[int, int],
) -> InputCell:
    results: dict[str, list[Dataset]] = {}
    for file in subject.pacs_folder.iterdir():
        result = dcmread(file)
        results.setdefault(str(result.StudyInstanceUID), []).append(result)
    voxels = {uid: [int(one.pixel_array.sum()) for one in found] for uid, found in results.items()}
    usual = Counter(count for counts in voxels.values() for count in counts).most_common(1)
    cell = InputCell(polls=polls)
    told: Counter[str] = Counter()
    for serial in [*good, *bad]:
        uid = studies.study_uid(subject.studies, serial)
        revisions = ends.get(serial, [])
        last = revisions[-1] if revisions else {"outcome": "unknown", "reason": ""}
        cell.revisions = max(cell.revisions, len(revisions))
        of_fault = serial >= _FIRST
        end = f"{last['outcome']} {last['reason']}".strip()
        told[f"fault: {end}" if of_fault else end] += 1
        cell.lost += end != _wanted(fault if of_fault else "", serial)
        cell.reduced += not of_fault and last.get("rung", "full") not in ("full", "", None)
        right = bool(usual) and all(count == usual[0][0] for count in voxels.get(uid, []))
        cell.wrong += not right or (last["outcome"] == "delivered" and len(voxels.get(uid, [])) != 1)
    cell.ends = dict(told)
    return cell


def _wanted(fault: str, serial: int) -> str:
    """The only right end of a study."""
    if fault == "patients":
        return "quarantined TWO_PATIENTS"
    if fault == "sizes":
        return _SIZES[serial % len(_SIZES)][1]
    if fault == "many":
        return "rejected LOCALIZER"
    if fault == "part" and not _made_whole(serial):
        return "quarantined STUDY_INCOMPLETE"
    return "delivered"
