"""`outpost backup` and `outpost restore`: one system's studies, results and memory as a tar file, and back.

A backup may be taken while the service runs: the journal is copied by SQLite's own way (a consistent moment), and only
then the files. What the service finishes and removes in between is missing from the archive and named in its manifest;
of a study that was on its way, the restored service makes up for it as after any start. The manifest comes last: an
archive without one was cut off, and is not restored.

Not in it: the configuration (made from the inventory) and the region's database (filled again from the journal).
**It holds patients' images**: keep it as such.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from outpost.codes.answers import complain, said
from outpost.options import Exit, add_config, examples, preferred_language

if TYPE_CHECKING:  # what the commands need is imported as they run
    from outpost.config import Config

JOURNAL: Final = "journal.sqlite3"
MANIFEST: Final = "outpost-backup.json"
# Unfinished, of one process alone, or the journal's own files, which are copied by SQLite.
_LEFT_OUT: Final = frozenset({".lock", ".incoming", ".work", JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"})
_OWN: Final = (".backup-", ".restore-", ".probe-")
_FORMAT: Final = 1


class CannotDo(Exception):
    """The backup or the restore is not done; nothing of the system was changed. The text says why and what to do."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `backup` and `restore`."""
    backup = commands.add_parser(
        "backup",
        help="copy a system's journal, studies, results and quarantine into a tar file, while it runs or not",
        description="It holds patients' images. The configuration is not in it: the inventory makes that again.",
        **examples("outpost backup -o /srv/backup/brain.tar", "outpost backup > /srv/backup/brain.tar"),
    )
    add_config(backup)
    backup.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write (default: standard output)"
    )
    backup.set_defaults(run=_backup)

    restore = commands.add_parser(
        "restore",
        help="put a backup into the empty storage of a system that does not run",
        description="Writes nothing unless the archive is whole and the storage empty.",
        **examples("outpost restore /srv/backup/brain.tar", "outpost restore - < /srv/backup/brain.tar"),
    )
    add_config(restore)
    restore.add_argument("path", type=Path, metavar="FILE", help="the archive; - for standard input")
    restore.set_defaults(run=_restore)


def _backup(options: argparse.Namespace) -> int:
    config = _config(options)
    try:
        if options.output is None:
            if sys.stdout.isatty():
                raise CannotDo("this is no text: write it to a file with -o FILE, or with > FILE")
            manifest = backup(config, sys.stdout.buffer)
        else:
            partial = options.output.with_name(f"{options.output.name}.partial")
            try:
                # Nobody but its owner reads it: it holds images.
                with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:  # noqa: PTH123 - a descriptor
                    manifest = backup(config, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(options.output)
            finally:
                partial.unlink(missing_ok=True)
    except (CannotDo, OSError, sqlite3.Error) as error:
        complain("outpost backup", error)
        return Exit.CANNOT_ASK if isinstance(error, FileNotFoundError) else Exit.FOUND
    complain(
        "",
        f"{manifest['files']} files, {manifest['bytes'] / 1e6:.1f} MB, studies: {manifest['studies']}, "
        f"as of {manifest['at']}",
    )
    return Exit.OK


def _restore(options: argparse.Namespace) -> int:
    config = _config(options)
    try:
        if str(options.path) == "-":
            manifest = restore(config, sys.stdin.buffer)
        else:
            with options.path.open("rb") as stream:
                manifest = restore(config, stream)
    except (CannotDo, OSError, sqlite3.Error, tarfile.TarError) as error:
        complain("outpost restore", error)
        return Exit.FOUND
    done = (
        f"restored: {manifest['studies']} studies, {manifest['files']} files, as of {manifest['at']}. Now start the "
        f"service: sudo systemctl start outpost@{config.system}"
    )
    print(said(done, preferred_language()))
    return Exit.OK


def _config(options: argparse.Namespace) -> Config:
    from outpost.config import Config, load

    return load(options.config, Config)


def backup(config: Config, stream: IO[bytes]) -> dict[str, Any]:
    """Write the archive; returns its manifest. Raises `CannotDo`, OSError, sqlite3.Error."""
    root = config.storage.root
    journal = root / JOURNAL
    if not journal.exists():
        raise CannotDo(f"there is no journal at {journal}: this system has not run here yet")
    copy = root / f".backup-{os.getpid()}.sqlite3"
    if shutil.disk_usage(root).free < journal.stat().st_size + config.intake.disk_reserve_mib * (1 << 20):
        raise CannotDo(f"no room for a copy of the journal beside it in {root}: free space there")
    vanished: list[str] = []
    files = size = 0
    try:
        at = datetime.now(UTC)
        _copy_journal(journal, copy)
        with closing(sqlite3.connect(copy)) as db:
            (studies,) = db.execute("SELECT count(*) FROM studies").fetchone()
        digest = hashlib.sha256(copy.read_bytes()).hexdigest()
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            size += _add(archive, copy, JOURNAL)
            for path in _files(root):
                name = path.relative_to(root).as_posix()
                try:
                    size += _add(archive, path, name)
                    files += 1
                except FileNotFoundError:  # delivered, or given up for a quota, since the journal was copied
                    vanished.append(name)
            manifest = {
                "format": _FORMAT,
                "system": config.system,
                "region": config.region,
                "at": at.isoformat(timespec="seconds"),
                "studies": studies,
                "files": files,
                "bytes": size,
                "vanished": len(vanished),
                "journal_sha256": digest,
            }
            text = json.dumps(manifest, indent=1).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mode, entry.mtime = len(text), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(text))
    finally:
        copy.unlink(missing_ok=True)
    return manifest


def _copy_journal(journal: Path, copy: Path) -> None:
    """By SQLite's backup: one moment of the journal, whoever writes to it meanwhile."""
    from outpost.records import readonly

    with (
        closing(readonly.connect(journal, timeout=30)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        found = str(target.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise CannotDo(f"the journal is damaged ({found}): see the runbook on a damaged journal")


def _files(root: Path) -> Iterator[Path]:
    """Every regular file that belongs into the archive, sorted, so that two archives can be compared."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _left_out(name))
        for name in sorted(names):
            path = Path(folder) / name
            if not _left_out(name) and not path.is_symlink():
                yield path


def _left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith(_OWN)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> int:
    """One file as it is now: opened first, so that removing it meanwhile takes nothing from it."""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = status.st_size, 0o640, int(status.st_mtime)
        archive.addfile(entry, stream)
    return status.st_size


def restore(config: Config, stream: IO[bytes]) -> dict[str, Any]:
    """Fill the system's empty storage from an archive; returns its manifest. Raises `CannotDo` and changes nothing."""
    root = config.storage.root
    root.mkdir(parents=True, exist_ok=True)
    with _held(root):
        _only_empty(root)
        work = root / f".restore-{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            manifest = _unpack(stream, work)
            if manifest["system"] != config.system:
                raise CannotDo(
                    f"the archive is of system {manifest['system']}, this one is {config.system}: give the "
                    "configuration of that system"
                )
            _prepare(work / JOURNAL)
            _place(work, root)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return manifest


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """The storage, held against a service that starts."""
    with (root / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotDo(f"{root} is in use: stop the service first") from None
        yield


def _only_empty(root: Path) -> None:
    if (root / JOURNAL).exists() or any(_files(root)):
        raise CannotDo(
            f"{root} is not empty: nothing is overwritten. Move it aside (sudo mv {root} {root}.old), make it again, "
            "and repeat"
        )


def _unpack(stream: IO[bytes], work: Path) -> dict[str, Any]:
    """Every file into `work`, durable; the manifest, which must be there and fit."""
    manifest: dict[str, Any] | None = None
    files = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                name = PurePosixPath(entry.name)
                if not entry.isreg() or name.is_absolute() or ".." in name.parts:
                    raise CannotDo(
                        f"{entry.name!r} has no place in a backup of ours: this archive is another's"
                    )
                content = archive.extractfile(entry)
                assert content is not None  # of a regular file
                if entry.name == MANIFEST:
                    manifest = json.loads(content.read())
                    continue
                target = work / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
                    out.flush()
                    os.fsync(out.fileno())
                files += entry.name != JOURNAL
    except (tarfile.ReadError, EOFError) as error:
        raise CannotDo(f"the archive cannot be read to its end ({error}): take another one") from None
    if manifest is None:
        raise CannotDo("the archive has no manifest at its end: it was cut off, take another one")
    if manifest["format"] != _FORMAT:
        raise CannotDo(f"the archive has format {manifest['format']}, this release reads {_FORMAT}")
    journal = work / JOURNAL
    if not journal.exists() or hashlib.sha256(journal.read_bytes()).hexdigest() != manifest["journal_sha256"]:
        raise CannotDo("the archive's journal is not the one that was written: take another archive")
    if files != manifest["files"]:
        raise CannotDo(f"the archive holds {files} files, {manifest['files']} were written: take another one")
    return manifest


def _prepare(journal: Path) -> None:
    """Have the journal say that it was restored, and every study shipped to the region's database again."""
    from outpost.events import EventCode
    from outpost.records.journal import Journal

    opened = Journal(journal, "restored")
    try:
        with opened.writing() as db:
            db.execute("UPDATE studies SET shipped_change = 0")
            db.execute("DELETE FROM facts WHERE name = 'refused_shipped'")
        opened.note_event(EventCode.BACKUP_RESTORED, "studies, results and quarantine of a backup are here")
    finally:
        opened.close()


def _place(work: Path, root: Path) -> None:
    """What was unpacked becomes the storage; the journal last: without it there is no storage."""
    for path in sorted(work.iterdir(), key=lambda one: one.name == JOURNAL):
        target = root / path.name
        if path.is_dir() and target.is_dir():
            shutil.rmtree(target)  # empty but for folders: that was asked first
        with suppress(FileNotFoundError):
            path.rename(target)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
