"""The spool: received files on disk, durable before anyone is told so.

Layout under the storage root::

    spool/.incoming/                      bytes still arriving; nothing in it was acknowledged
    spool/<study>/<instance>.dcm          instances of studies on their way
    quarantine/<REASON>/<study>.r<n>/     all files of a revision that was rejected or quarantined
    quarantine/<REASON>/<time>-<hex>.dcm  single instances that were refused
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from outpost.durable import sync_file, sync_folder
from outpost.heal.found import put_aside as put_aside_damaged
from outpost.heal.marks import mark_computed
from outpost.intake.content import examine
from outpost.intake.header import Header, is_uid, read_header
from outpost.intake.poison import Poison
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.role import reads, role_of
from outpost.intake.room import MIB, Room, disk_of
from outpost.intake.same import Answer, compare
from outpost.intake.waiting import Most, Waiting
from outpost.records.journal import OUTCOMES, Added, Instance, Journal, StudyRecord

__all__ = ["MIB", "FilesMissing", "Spool"]

log = logging.getLogger(__name__)

# Longer than any association may be idle: by then whoever wrote to a file is gone.
_ABANDONED_SECONDS = 600.0
_ANY_REVISION = 1 << 31


@dataclass(frozen=True, slots=True)
class _Ready:
    """A received file whose bytes are on the disk; `number` is its place among those that came with it."""

    number: int
    path: Path
    header: Header
    instance: Instance


class FilesMissing(Exception):
    """Files of a revision are neither in the spool nor in quarantine: they were removed after delivery."""


class Spool:
    """Takes instances in, hands out the files of a revision, and puts aside what ended without a result.

    `reserve_mib` and `used_percent`: the two marks of `Room` beyond which nothing is taken. `model_reads`: the SOP
    classes of images that the model here reads; None where no model says (`outpost.intake.role`). `most`: how many
    studies may wait, and how large one may be.
    """

    def __init__(
        self,
        root: Path,
        journal: Journal,
        reserve_mib: int,
        used_percent: float = 100,
        model_reads: Collection[str] | None = None,
        most: Most | None = None,
    ) -> None:
        self.root = root
        self._model_reads = frozenset(model_reads) if model_reads is not None else None
        self.studies = root / "spool"
        self.incoming = self.studies / ".incoming"
        self.quarantine = root / "quarantine"
        self._journal = journal
        self.poison = Poison()
        self.waiting = Waiting(journal, most, root)
        self.room = Room(root, reserve_mib, used_percent)
        self._lock = threading.Lock()  # between looking an instance up and having it journalled
        for folder in (self.incoming, self.quarantine):
            folder.mkdir(parents=True, exist_ok=True)
        sync_folder(root)

    # --- room ---

    def free_bytes(self) -> int:
        return disk_of(self.root).free

    def below_reserve(self) -> bool:
        """Whether the disk has come to one of its marks: then nothing new may be taken."""
        return self.room.closed()

    # --- taking instances in ---

    def may_be_image(self, sop_class: str) -> bool:
        """Whether the model here may read objects of this class."""
        return reads(sop_class, self._model_reads)

    @contextmanager
    def receiving_file(self) -> Iterator[IO[bytes]]:
        """A file for arriving bytes, gone afterwards unless `take` or `put_aside` linked it elsewhere."""
        with tempfile.NamedTemporaryFile(dir=self.incoming, suffix=".dcm") as file:
            yield file

    def take(
        self,
        arrived: Path,
        source: str,
        announced_uid: str | None = None,
        *,
        transfer: str = "",
        address: str = "",
    ) -> tuple[Header, StudyRecord | None]:
        """Take a whole received Part 10 file; when this returns it is durable and in the journal.

        `announced_uid` is the instance UID of the C-STORE command, where there is one; `transfer` names the
        association or request it came by, `address` the host. The study is None when no study waits for more
        because of it: a duplicate, or no image (those are kept with their study). Raises `InstanceRefused`; the
        bytes are then in quarantine, except when there is no room for them.
        """
        [taken] = self.take_all([arrived], source, announced_uid, transfer=transfer, address=address)
        if isinstance(taken, InstanceRefused):
            raise taken
        return taken

    def take_all(
        self,
        arrived: Sequence[Path],
        source: str,
        announced_uid: str | None = None,
        *,
        transfer: str = "",
        address: str = "",
        study_uid: str | None = None,
    ) -> list[tuple[Header, StudyRecord | None] | InstanceRefused]:
        """`take` for each file, in order, with one sync of a folder and one transaction for all of them.

        What `take` raises stands in the place of the file it is about; this raises nothing of it. Where `study_uid`
        is given, instances of other studies are refused.
        """
        taken: dict[int, tuple[Header, StudyRecord | None] | InstanceRefused] = {}
        ready: dict[str, _Ready] = {}
        for number, path in enumerate(arrived):
            try:
                one = self._examined(number, path, source, announced_uid, address)
                if study_uid not in (None, one.header.study_uid):
                    raise InstanceRefused(Refusal.OTHER_STUDY, one.header.sop_class, one.header.sop_uid)
            except Exception as error:
                taken[number] = self._refusal(error, path, source, address)
                continue
            if (
                one.instance.sop_uid in ready
            ):  # the same instance twice: the second meets the first in the journal
                taken |= self._admit(list(ready.values()), transfer)
                ready.clear()
            ready[one.instance.sop_uid] = one
        taken |= self._admit(list(ready.values()), transfer)
        return [taken[number] for number in range(len(arrived))]

    def _examined(
        self, number: int, path: Path, source: str, announced_uid: str | None, address: str
    ) -> _Ready:
        """A file whose bytes are on the disk and which says what it is. Raises `InstanceRefused`, or anything."""
        if self.below_reserve():
            raise InstanceRefused(Refusal.OUT_OF_SPACE)
        header, digest = self._walked(path, source, address)
        if announced_uid is not None and announced_uid != header.sop_uid:
            raise InstanceRefused(Refusal.UID_MISMATCH, header.sop_class, header.sop_uid)
        sync_file(path)
        return _Ready(number, path, header, self._instance(path, header, digest, source, address))

    def _walked(self, path: Path, source: str, address: str) -> tuple[Header, str]:
        """`examine`, unless the same sender sent the same before and it was too complex."""
        if words := self.poison.known(source, address, path):
            refused = InstanceRefused(Refusal.TOO_COMPLEX, comment=words)
            refused.kept = refused.repeated = True
        else:
            try:
                return examine(path)
            except InstanceRefused as error:
                if error.refusal is not Refusal.TOO_COMPLEX:
                    raise
                refused = error
        refused.wait = self.poison.struck(source, address)
        raise refused

    def _instance(self, path: Path, header: Header, digest: str, source: str, address: str = "") -> Instance:
        return Instance(
            sop_uid=header.sop_uid,
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            sop_class=header.sop_class,
            transfer_syntax=header.transfer_syntax,
            modality=header.modality,
            digest=digest,
            bytes=path.stat().st_size,
            source=source,
            role=role_of(header, self._model_reads, self._journal.is_result),
            address=address,
        )

    def describe(self, path: Path, source: str) -> Instance:
        """What a file of the spool or quarantine is, read as intake reads. Raises `InstanceRefused`, OSError."""
        return self._instance(path, *examine(path), source)

    def _refusal(self, error: Exception, path: Path, source: str, address: str = "") -> InstanceRefused:
        """What becomes of an instance for which something went wrong: its sender gets an answer."""
        if isinstance(error, InstanceRefused):
            refused = error
        else:
            refused = InstanceRefused(Refusal.OUT_OF_SPACE if _means_full(error) else Refusal.INTERNAL)
            refused.__cause__ = error
        if refused.refusal is not Refusal.OUT_OF_SPACE and not refused.repeated:
            kept = self._put_aside_if_possible(path, refused.refusal, source, address)
            refused.kept = kept is not None
            if kept is not None and refused.refusal is Refusal.TOO_COMPLEX:
                self.poison.remember(source, address, path, refused.comment, kept)
        return refused

    def _admit(
        self, ready: Sequence[_Ready], transfer: str
    ) -> dict[int, tuple[Header, StudyRecord | None] | InstanceRefused]:
        """Place and journal files of different instances; by their numbers what became of them."""
        if not ready:
            return {}
        found: dict[int, tuple[Header, StudyRecord | None] | InstanceRefused] = {}
        try:
            with self._lock:
                ready = self._with_room(ready, found)
                if not ready:
                    return found
                unknown = [one for one in ready if self._journal.lookup(one.instance.sop_uid) is None]
                for one in unknown:
                    # What lies there without a row was never acknowledged: its own journalling had failed.
                    self._path(one.instance).unlink(missing_ok=True)
                self._place(unknown)
                missing = {one.instance.sop_uid for one in ready if not self._path(one.instance).exists()}
                results = self._journal.add_all([one.instance for one in ready], missing, transfer)
                beside: dict[int, StudyRecord] = {}
                for one, (added, study) in zip(ready, results, strict=True):
                    if added is Added.CONFLICT:
                        continue
                    # A known instance whose file had been removed, sent again: its study needs, or may need, it.
                    placed = False
                    if (
                        added in (Added.DUPLICATE, Added.RESTORED, Added.KEPT)
                        and one.instance.sop_uid in missing
                        and study is not None
                        and (study.state in ("receiving", "complete") or added is Added.KEPT)
                    ):
                        with suppress(FileExistsError):
                            self._place([one])
                            placed = True
                    if added is Added.BESIDE and study is not None:
                        beside[study.row] = study
                    news = added in (Added.NEW, Added.RESTORED) or (placed and added is Added.DUPLICATE)
                    found[one.number] = (one.header, study if news else None)
                for study in beside.values():
                    self._keep_with_ended(study)
        except Exception as error:
            if len(ready) > 1:  # what one of them does not bear shall not be refused to the others
                return found | {
                    number: one for each in ready for number, one in self._admit([each], transfer).items()
                }
            refused = self._refusal(error, ready[0].path, ready[0].instance.source, ready[0].instance.address)
            refused.sop_class, refused.sop_uid = ready[0].header.sop_class, ready[0].header.sop_uid
            return found | {ready[0].number: refused}
        for one in ready:
            if one.number not in found:
                found |= self._contradicting(one, transfer)
        return found

    def _with_room(
        self,
        ready: Sequence[_Ready],
        found: dict[int, tuple[Header, StudyRecord | None] | InstanceRefused],
    ) -> list[_Ready]:
        """Those that may be taken, whatever else waits; the refusals of the others go into `found`."""
        taken: list[_Ready] = []
        for one, refused in zip(ready, self.waiting.admit([one.instance for one in ready]), strict=True):
            if refused is None:
                taken.append(one)
                continue
            refused.sop_class, refused.sop_uid = one.header.sop_class, one.header.sop_uid
            refused.study_uid = one.header.study_uid
            found[one.number] = refused
        return taken

    def _keep_with_ended(self, study: StudyRecord) -> None:
        """What came late to a study that lies in quarantine joins its files there, and the spool is free again.

        Where they have left quarantine, or were delivered, it stays in the spool until housekeeping (`removable`).
        """
        latest = self._journal.revisions(study.study_uid)[-1]
        if self._in_quarantine(latest):
            self._quarantine_late(latest)
            shutil.rmtree(self.folder(latest.study_uid), ignore_errors=True)
            sync_folder(self.studies)

    def _in_quarantine(self, study: StudyRecord) -> bool:
        return study.state in ("rejected", "quarantined") and not self._journal.left_quarantine(study.row)

    def _quarantine_late(self, latest: StudyRecord) -> None:
        """Link what the spool has of a study in quarantine, and quarantine has not, there too."""
        folder, kept = self.folder(latest.study_uid), self.quarantine_folder(latest, latest.reason)
        here = {path.name for path in folder.glob("*.dcm")}
        if here - ({path.name for path in kept.iterdir()} if kept.is_dir() else set()):
            self._journal.note_kept(latest.row, self.quarantine_study(latest, latest.reason))

    def _contradicting(
        self, one: _Ready, transfer: str
    ) -> dict[int, tuple[Header, StudyRecord | None] | InstanceRefused]:
        """What becomes of an instance whose UID is held with other values: perhaps it is only encoded differently."""
        held = self._journal.lookup(one.instance.sop_uid)
        answer = self._same_image(one, held) if held is not None else None
        if held is not None and answer is not None and answer.same:
            # By the digest of the instance that is held, the journal knows it for that one.
            return self._admit([replace(one, instance=replace(one.instance, digest=held.digest))], transfer)
        conflict = InstanceRefused(
            Refusal.CONTENT_CONFLICT,
            one.header.sop_class,
            one.header.sop_uid,
            answer.comment if answer is not None else "",
        )
        return {one.number: self._refusal(conflict, one.path, one.instance.source, one.instance.address)}

    def _same_image(self, one: _Ready, held: Instance) -> Answer | None:
        """Compare what arrived with what is held, or with its digest alone where its file is gone."""
        if (held.study_uid, held.series_uid, held.sop_class) != (
            one.header.study_uid,
            one.header.series_uid,
            one.header.sop_class,
        ):
            return None
        return compare(one.path, self._held_file(held), held.digest)

    def _held_file(self, held: Instance) -> Path | None:
        """Where the bytes of a known instance are now, in the spool or in quarantine; None where they are gone."""
        revisions = self._journal.revisions(held.study_uid)
        folders = [self.folder(held.study_uid)]
        folders += [self.quarantine_folder(r, r.reason) for r in reversed(revisions) if r.reason]
        files = (folder / f"{held.sop_uid}.dcm" for folder in folders)
        return next((file for file in files if file.exists()), None)

    def _place(self, ready: Sequence[_Ready]) -> None:
        """Link, not rename: an existing file is never overwritten."""
        folders = {self.folder(one.instance.study_uid) for one in ready}
        made = [folder for folder in folders if not folder.exists()]
        for folder in made:
            folder.mkdir()
        if made:
            sync_folder(self.studies)
        for one in ready:
            os.link(one.path, self._path(one.instance))
        for folder in folders:
            sync_folder(folder)

    def _path(self, instance: Instance) -> Path:
        return self.folder(instance.study_uid) / f"{instance.sop_uid}.dcm"

    def _put_aside_if_possible(
        self, arrived: Path, refusal: Refusal, source: str, address: str
    ) -> Path | None:
        try:
            return self.put_aside(arrived, refusal, source, address)
        except (OSError, sqlite3.Error):
            log.exception("refused bytes (%s) could not be kept", refusal.name)
            return None

    def put_aside(self, arrived: Path, refusal: Refusal, source: str, address: str = "") -> Path:
        """Keep refused bytes where a person can look at them; returns where."""
        folder = self.quarantine / refusal.name
        folder.mkdir(exist_ok=True)
        kept = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.dcm"
        os.link(arrived, kept)
        sync_file(kept)
        sync_folder(folder)
        size = kept.stat().st_size
        self._journal.refuse(refusal.name, str(kept.relative_to(self.root)), size, source, address)
        return kept

    # --- files of a study ---

    def header_of(self, instance: Instance) -> Header | None:
        """The header of an instance that the journal knows; None where its file is gone."""
        path = self._path(instance)
        if not path.exists():
            return None
        try:
            return read_header(path)
        except InstanceRefused:
            return None

    def folder(self, study_uid: str) -> Path:
        if not is_uid(study_uid):
            raise ValueError("not a UID: it may not become a path")
        return self.studies / study_uid

    def quarantine_folder(self, study: StudyRecord, reason: str) -> Path:
        return self.quarantine / reason / f"{study.study_uid}.r{study.revision}"

    def files(self, study: StudyRecord) -> list[Path]:
        """All files of a revision, fetching those that an earlier revision took into quarantine.

        Raises `FilesMissing` when an image is gone: half a study must not be computed as if it were whole. What is
        no image is handed out where it is still here.
        """
        folder = self.folder(study.study_uid)
        folder.mkdir(exist_ok=True)
        earlier = [
            self.quarantine_folder(revision, revision.reason)
            for revision in self._journal.revisions(study.study_uid)
            if revision.revision < study.revision and revision.reason
        ]
        files, missing, images = [], 0, 0
        names = []
        for instance in self._journal.instances(study.study_uid, study.revision):
            path = self._path(instance)
            images += instance.role == "image"
            if instance.role == "image":
                names.append(instance.sop_uid)
            if not path.exists():
                kept = next((f / path.name for f in earlier if (f / path.name).exists()), None)
                try:
                    if kept is not None:
                        os.link(kept, path)
                except FileNotFoundError:  # evicted at this very moment
                    kept = None
                if kept is None:
                    missing += instance.role == "image"
                    continue
            files.append(path)
        if missing:
            raise FilesMissing(
                f"{missing} of {images} images were removed after an earlier end of the study and not sent again"
            )
        mark_computed(folder, study.revision, names)
        sync_folder(folder)
        return files

    def quarantine_study(self, study: StudyRecord, reason: str) -> int:
        """Link every file of a revision that is still here into quarantine; returns the bytes that lie there.

        Safe to repeat after a crash.
        """
        target = self.quarantine_folder(study, reason)
        target.mkdir(parents=True, exist_ok=True)
        for instance in self._journal.instances(study.study_uid, study.revision):
            with suppress(FileExistsError, FileNotFoundError):
                path = self._path(instance)
                os.link(path, target / path.name)
        sync_folder(target)
        sync_folder(target.parent)
        sync_folder(self.quarantine)
        return sum(file.stat().st_size for file in target.iterdir())

    def located(self, study: StudyRecord) -> list[tuple[Instance, Path | None]]:
        """Where each image of a revision lies now, in the spool or in quarantine; None where it is gone."""
        folders = [
            *(
                self.quarantine_folder(revision, revision.reason)
                for revision in reversed(self._journal.revisions(study.study_uid))
                if revision.reason
            ),
            self.folder(study.study_uid),
        ]
        return [
            (
                instance,
                next((f for folder in folders if (f := folder / f"{instance.sop_uid}.dcm").exists()), None),
            )
            for instance in self._journal.instances(study.study_uid, study.revision)
        ]

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Nothing is placed and no study is removed: from a look at files until what follows is journalled."""
        with self._lock:
            yield

    def remove_study(self, study: StudyRecord) -> bool:
        """Free the spool of an ended study; its journal rows and what quarantine links stay.

        Returns False, doing nothing, when a later revision has opened meanwhile, or files were sent again: they are
        needed. What is no image and came while the study ended is in quarantine, too, before the spool is freed.
        """
        with self._lock:
            latest = self._journal.revisions(study.study_uid)[-1]
            if latest.row != study.row or latest.restored_at != study.restored_at:
                return False
            in_quarantine = self._in_quarantine(latest)
            if in_quarantine:
                self._quarantine_late(latest)
            shutil.rmtree(self.folder(study.study_uid), ignore_errors=True)
            sync_folder(self.studies)
            if latest.state in OUTCOMES and not in_quarantine:
                self._journal.note_spool_removed(latest)
            return True

    def drop_abandoned(self) -> None:
        """Remove bytes whose sender went away in the middle: nothing was acknowledged for them."""
        limit = time.time() - _ABANDONED_SECONDS
        for leftover in self.incoming.iterdir():
            with suppress(FileNotFoundError):  # a transfer has just ended
                if leftover.stat().st_mtime < limit:
                    leftover.unlink()

    # --- after a restart ---

    def _sender_of(self, study_uid: str) -> tuple[str, str]:
        """AE title and address of whoever sent what the journal has of a study."""
        for instance in reversed(self._journal.instances(study_uid, _ANY_REVISION)):
            if instance.source and instance.source != "reconciled":
                return instance.source, instance.address
        return "reconciled", ""

    def reconcile(self) -> int:
        """Bring files and journal together after a crash; returns the number of instances adopted.

        Bytes that were still arriving were never acknowledged and go. A file that was placed but not
        journalled is whole (it was synced before it was linked): it is adopted. A row without a file shows
        in `files`.
        """
        for leftover in self.incoming.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                put_aside_damaged(leftover, "it is no file", "nothing was acknowledged for what it held")
            else:
                leftover.unlink()
        adopted = 0
        for path in sorted(self.studies.glob("[0-9]*/*.dcm")):
            if self._journal.lookup(path.stem) is not None:
                continue
            try:
                instance = self.describe(path, "reconciled")
                if (instance.study_uid, instance.sop_uid) != (path.parent.name, path.stem):
                    raise InstanceRefused(Refusal.UID_MISMATCH)
                self._journal.add(instance)
                adopted += 1
            except InstanceRefused as refused:
                source, address = self._sender_of(path.parent.name)
                self.put_aside(path, refused.refusal, source, address)
                path.unlink()
                who = f"{source} at {address}" if address else source
                log.warning("instance of %s refused: %s, %s", who, refused.refusal.name, refused.comment)
            except OSError as error:  # a sector that the disk cannot read, a folder by the name of a file
                move = not isinstance(error, PermissionError)
                put_aside_damaged(
                    path, error.strerror or "it cannot be read", "its study goes on without it", move=move
                )
        for folder in self.studies.glob("[0-9]*"):
            revisions = self._journal.revisions(folder.name)
            if (
                revisions
                and revisions[-1].state in ("rejected", "quarantined")
                and not self._journal.left_quarantine(revisions[-1].row)
            ):
                self.remove_study(revisions[-1])  # the crash came between its end and this
        return adopted


def _means_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL
