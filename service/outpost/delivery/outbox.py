"""The outbox: one folder a study revision, named by its journal row, holding the DICOM files to deliver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.filereader import dcmread, read_file_meta_info, read_preamble
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from outpost.codes.notes import as_text as notes_as_text
from outpost.durable import sync_folder
from outpost.heal.found import put_aside
from outpost.heal.marks import mark_delivered
from outpost.records.journal import Journal, StudyRecord


class Outbox:
    """Result files on disk. What lies under `.work` is unfinished; a numbered folder is whole and durable."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "outbox"
        self._spool = root / "spool"
        self._work = self._folder / ".work"
        self._work.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def work_folder(self, study: StudyRecord) -> Iterator[Path]:
        """An empty folder to write the study's results into; it goes afterwards unless it was published."""
        folder = self._work / str(study.row)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, study: StudyRecord, work: Path) -> None:
        """Make the files in `work` the study's results, durably and all at once."""
        target = self._folder / str(study.row)
        shutil.rmtree(target, ignore_errors=True)  # of a run that was never journalled
        sync_folder(work)
        work.rename(target)
        sync_folder(self._folder)

    def files(self, study: StudyRecord) -> list[Path]:
        """The study's results, in the order of delivery; empty when there are none (any more)."""
        return sorted((self._folder / str(study.row)).glob("*.dcm"))

    def remove(self, study: StudyRecord) -> None:
        """Every destination has them: let them go, and leave word of it beside the study's images."""
        made = {
            name: getattr(study, name)
            for name in ("model", "model_version", "engine", "precision", "rung", "device")
        }
        results = [result for file in self.files(study) if (result := _identity(file))]
        said = made | {"notes": notes_as_text(study.notes), "results": results}
        mark_delivered(self._spool / study.study_uid, study.revision, said)
        shutil.rmtree(self._folder / str(study.row), ignore_errors=True)

    def reconcile(self, journal: Journal) -> int:
        """After a restart: drop what is unfinished or delivered; have lost results computed again.

        Returns the number of studies that go back to inference.
        """
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        delivering = {str(study.row): study for study in journal.in_state("delivering")}
        for folder in self._folder.glob("[0-9]*"):
            if folder.name not in delivering:
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.is_dir():
                folder.unlink(missing_ok=True)
                continue
            for file in folder.glob("*.dcm"):
                if not _whole(file):
                    put_aside(file, "it is no whole result", "its study is computed again")
                    shutil.rmtree(folder, ignore_errors=True)
                    break
        lost = [study for study in delivering.values() if not self.files(study)]
        for study in lost:
            journal.recompute(study.row)
        return len(lost)


def _identity(file: Path) -> tuple[str, str, str] | None:
    """UIDs of a result, its class and its series."""
    try:
        found = dcmread(
            file,
            stop_before_pixels=True,
            specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"],
        )
        return str(found.SOPInstanceUID), str(found.SOPClassUID), str(found.SeriesInstanceUID)
    except Exception:  # a disk that tore it up: it is delivered all the same
        return None


def _whole(file: Path) -> bool:
    """Whether a result ends where its last element does: a destination must not be offered half of one for ever.

    Results are written in Explicit VR Little Endian with explicit lengths; one that is not is left to its readers.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            if read_preamble(stream, force=False) is None:
                return False
            meta = read_file_meta_info(file)
            if meta.TransferSyntaxUID != ExplicitVRLittleEndian:
                return True
            at = 144 + int(meta.FileMetaInformationGroupLength)
            while at < size:
                stream.seek(at)
                head = stream.read(12)
                vr = head[4:6].decode("ascii")
                begin, length = (12, head[8:12]) if vr in EXPLICIT_VR_LENGTH_32 else (8, head[6:8])
                count = int.from_bytes(length, "little")
                if len(head) < begin or not vr.isupper():
                    return False
                if count == 0xFFFFFFFF:
                    return True
                at += begin + count
            return at == size
    except Exception:  # pydicom raises many types on what it cannot parse
        return False
