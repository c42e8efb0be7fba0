"""What the files under the storage root say of studies that a rebuilt journal does not know: spool, outbox, quarantine.

* Results that wait in the outbox are delivered, not computed again.
* What lies in quarantine stays there, with the reason that its folder names.
* What only the spool has is received: it waits for its quiet time and is computed, under the revision it had if its
  images are the ones it had then (`outpost.heal.marks`), so that its results have the UIDs they had.
"""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from outpost.codes.notes import Note
from outpost.codes.notes import as_text as notes_as_text
from outpost.durable import sync_folder
from outpost.heal.marks import digest_of, mark_in
from outpost.heal.salvage import raise_sequence
from outpost.intake.header import is_uid, read_attributes
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import Spool
from outpost.reasons import GROUPS, PipelineCode
from outpost.records.journal import OUTCOMES, Instance

log = logging.getLogger(__name__)

# What a rebuilt row names as who sent it; as `Spool.reconcile` does.
SOURCE: Final = "reconciled"
_REVISION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)+)\.r([0-9]{1,9})")
_MADE_WITH: Final = re.compile(
    r", engine (?P<engine>.*?), precision (?P<precision>.*?), rung (?P<rung>.*?), device (?P<device>.*?),"
    r" revision (?P<revision>[0-9]{1,9})(?![0-9])"
)
_NOTES: Final = re.compile(r"(?:^|,)notes=([A-Z0-9_ ]*)")
# Reasons of which studies end rejected; of all others a study is held for a person.
_REJECTED: Final = {
    *(code for group in (GROUPS[1], GROUPS[3]) for code in group.reasons),
    PipelineCode.STUDY_EMPTY,
}


class Rebuild:
    """Brings into a journal what the files know. One transaction of the caller's; `tick` is called now and then.

    Args:
        db: of the new journal, foreign keys off.
        spool: over that same journal; its reading of files is the one that intake trusts.
        aside: a folder for what cannot be told whose it is.
    """

    def __init__(self, db: sqlite3.Connection, spool: Spool, aside: Path, tick: Callable[[], None]) -> None:
        self._db = db
        self._spool = spool
        self._root = spool.root
        self._aside = aside
        self._tick = tick
        self.made: Counter[str] = Counter()  # rows made, by the state they have
        self.instances = 0

    def run(self) -> None:
        """Raises OSError, sqlite3.Error."""
        self._number_safely()
        self._quarantined()
        self._waiting()
        self._spooled()
        self._headless()
        self._refused()
        self._settle()

    # --- quarantine ---

    def _quarantined(self) -> None:
        found: dict[tuple[str, int], list[Path]] = defaultdict(list)
        for folder in self._root.glob("quarantine/*/*.r[0-9]*"):
            named = _REVISION.fullmatch(folder.name)
            if named is not None and folder.is_dir() and int(named[2]) > 0 and is_uid(named[1]):
                found[named[1], int(named[2])].append(folder)
        for (study_uid, revision), folders in sorted(found.items()):
            if self._find(study_uid, revision) is not None:
                continue
            # Where it went twice, the journal would have said the last.
            folder = max(folders, key=lambda one: one.stat().st_mtime)
            reason = folder.parent.name
            files = sorted(path for path in folder.glob("*.dcm") if path.is_file())
            self._take(files, study_uid, revision)
            self._open(
                study_uid,
                revision,
                "rejected" if reason in _REJECTED or reason.startswith("SITE_") else "quarantined",
                reason=reason,
                detail="its journal row was lost",
                finished_at=_time_of(folder),
                kept_bytes=sum(file.stat().st_size for file in files),
            )

    def _refused(self) -> None:
        known = {row["file"] for row in self._db.execute("SELECT file FROM refused")}
        for path in sorted(self._root.glob("quarantine/*/*.dcm")):
            name = str(path.relative_to(self._root))
            if name not in known and path.is_file() and path.parent.name in Refusal.__members__:
                self._db.execute(
                    "INSERT INTO refused (at, reason, file, bytes, source) VALUES (?, ?, ?, ?, ?)",
                    (_time_of(path), path.parent.name, name, path.stat().st_size, SOURCE),
                )
                self.made["refused"] += 1

    # --- outbox ---

    def _waiting(self) -> None:
        outbox = self._root / "outbox"
        for folder in sorted(outbox.glob("[0-9]*")):
            self._tick()
            if not folder.is_dir():
                continue
            results = [result_in(file) for file in sorted(folder.glob("*.dcm"))]
            said = results[0] if results else None
            if said is None or any(one is None or one["study"] != said["study"] for one in results):
                number = int(folder.name) if folder.name.isdecimal() and len(folder.name) < 16 else 0
                if self._state(number) is None:  # else `Outbox.reconcile` sees to it
                    shutil.move(folder, self._aside / f"outbox-{folder.name}")
                continue
            study_uid, revision = said["study"]
            held = self._find(study_uid, revision)
            number = int(folder.name) if len(folder.name) < 16 else 0
            if held is None:
                spooled = self._root / "spool" / study_uid
                self._take(
                    sorted(path for path in spooled.glob("*.dcm") if path.is_file()), study_uid, revision
                )
                wanted = number if number and self._state(number) is None else self._next_id()
                row = self._open(study_uid, revision, "delivering", row=wanted, **said["made"])
            elif held["state"] in OUTCOMES:
                continue  # it has ended, and the folder has outlived that by a moment
            else:
                row = int(held["id"])
                if held["state"] != "delivering":
                    self._become(row, said["made"])
            if row != number:
                target = outbox / str(row)
                if target.exists():
                    continue
                folder.rename(target)
                sync_folder(outbox)
            mark = mark_in(self._root / "spool" / study_uid)
            if (
                held is None
                and mark is not None
                and mark.revision == revision
                and mark.images != digest_of(self._images(study_uid))
                and self._find(study_uid, revision + 1) is None
            ):
                self._receive(study_uid, revision + 1)  # what came since is among its images
            self._db.executemany(
                "INSERT OR IGNORE INTO results (sop_uid, study, sop_class, series_uid, made_at) VALUES (?, ?, ?, ?, ?)",
                [
                    (one["sop"], row, one["class"], one["series"], _time_of(outbox / str(row)))
                    for one in results
                    if one
                ],
            )

    def _become(self, row: int, made: dict[str, Any]) -> None:
        columns = {**made, "state": "delivering", "change": self._next_change()}
        columns["completed_at"] = columns.get("completed_at") or _now()
        names = ", ".join(f"{name} = ?" for name in columns)
        self._db.execute(
            f"UPDATE studies SET {names}, held_for = '', held_until = NULL WHERE id = ?",
            (*columns.values(), row),
        )
        self.made["delivering"] += 1

    # --- spool ---

    def _spooled(self) -> None:
        for folder in sorted(self._root.glob("spool/[0-9]*")):
            study_uid = folder.name
            files = sorted(path for path in folder.glob("*.dcm") if path.is_file())
            mark = mark_in(folder)
            if not is_uid(study_uid) or (not files and mark is None):
                continue
            latest = self._latest(study_uid)
            if latest is not None and (mark is None or mark.revision <= latest["revision"]):
                # It may have lost instances: what its row counts and nobody names is among these, and is not new.
                lacking = int(latest["instances"]) - self._count(study_uid, int(latest["revision"]))[0]
                if lacking > 0:
                    self._take(files, study_uid, int(latest["revision"]), most=lacking)
                continue
            revision = mark.revision if mark is not None else self._instances_upto(study_uid) or 1
            if latest is not None:
                revision = max(revision, int(latest["revision"]) + 1)
            self._take(files, study_uid, revision)
            if mark is None:
                self._receive(study_uid, revision)
                continue
            same = digest_of(self._images(study_uid)) == mark.images
            if mark.delivered:
                self._delivered(study_uid, mark.revision, mark.said, folder)
            elif same:
                self._receive(study_uid, mark.revision)
            else:
                # Its result may be out there: another one, of other images, must not have its UID.
                self._lost(study_uid, mark.revision, "a later revision has its images", _now())
            if not same:
                self._receive(study_uid, mark.revision + 1)

    def _receive(self, study_uid: str, revision: int) -> None:
        self._open(study_uid, revision, "receiving")

    def _delivered(self, study_uid: str, revision: int, said: dict[str, Any], folder: Path) -> None:
        columns = {
            name: said[name]
            for name in ("model", "model_version", "engine", "precision", "rung", "device", "notes")
            if isinstance(said.get(name), str)
        }
        row = self._open(study_uid, revision, "delivered", finished_at=_time_of(folder), **columns)
        for one in said.get("results") or ():
            if (
                isinstance(one, list)
                and len(one) == 3
                and all(isinstance(uid, str) and is_uid(uid) for uid in one)
            ):
                self._db.execute(
                    "INSERT OR IGNORE INTO results (sop_uid, study, sop_class, series_uid, made_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (one[0], row, one[1], one[2], _time_of(folder)),
                )

    def _headless(self) -> None:
        """Instances whose study has lost its rows, and of which no file is left: it was delivered long ago, or went."""
        rows = self._db.execute(
            "SELECT study_uid, max(revision) AS revision, max(received_at) AS at FROM instances i WHERE NOT EXISTS"
            " (SELECT 1 FROM studies s WHERE s.study_uid = i.study_uid) GROUP BY study_uid"
        ).fetchall()
        for row in rows:
            told = "its row was lost, and no file of it is left"
            made = self._lost(row["study_uid"], row["revision"], told, row["at"])
            self._db.execute(
                "UPDATE studies SET wanted = 1 WHERE id = ?", (made,)
            )  # sent again, it is taken as new

    def _lost(self, study_uid: str, revision: int, detail: str, at: str) -> int:
        """A revision of which nothing is known but that it was. It is not shipped: Postgres may know more of it."""
        row = self._open(
            study_uid,
            revision,
            "rejected",
            reason=PipelineCode.JOURNAL_LOST_IT,
            detail=detail,
            finished_at=at,
        )
        self._db.execute(
            "UPDATE studies SET shipped_change = change, evicted_at = ?, evicted_for = 'lost', removed_at = ?"
            " WHERE id = ?",
            (_now(), _now(), row),
        )
        return row

    # --- rows ---

    def _take(self, files: list[Path], study_uid: str, revision: int, most: int | None = None) -> None:
        """Journal the instances in these files that it does not know; what is none of the study stays where it is."""
        for file in files:
            self._tick()
            if most is not None and most <= 0:
                return
            if self._db.execute("SELECT 1 FROM instances WHERE sop_uid = ?", (file.stem,)).fetchone():
                continue
            try:
                instance = self._spool.describe(file, SOURCE)
            except (InstanceRefused, OSError):
                continue
            if (instance.study_uid, instance.sop_uid) != (study_uid, file.stem):
                continue
            self._add(instance, revision, _time_of(file))
            if most is not None:
                most -= 1

    def _add(self, one: Instance, revision: int, at: str) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO instances (sop_uid, study_uid, series_uid, sop_class, transfer_syntax, modality,"
            " digest, bytes, revision, source, received_at, role) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                one.sop_uid,
                one.study_uid,
                one.series_uid,
                one.sop_class,
                one.transfer_syntax,
                one.modality,
                one.digest,
                one.bytes,
                revision,
                one.source,
                at,
                one.role,
            ),
        )
        self.instances += 1

    def _open(self, study_uid: str, revision: int, state: str, row: int | None = None, **columns: Any) -> int:
        """A row of a study that has none. What is not said of it is taken from its instances."""
        first = self._db.execute(
            "SELECT modality, received_at FROM instances WHERE study_uid = ? ORDER BY role <> 'image', id LIMIT 1",
            (study_uid,),
        ).fetchone()
        senders = [
            r["source"]
            for r in self._db.execute(
                "SELECT source, min(id) AS first FROM instances WHERE study_uid = ? AND revision <= ?"
                " AND source <> '' GROUP BY source ORDER BY first",
                (study_uid, revision),
            )
        ]
        count, size = self._count(study_uid, revision)
        received = first["received_at"] if first is not None else columns.get("finished_at") or _now()
        values: dict[str, Any] = {
            "id": row or self._next_id(),
            "study_uid": study_uid,
            "revision": revision,
            "modality": first["modality"] if first is not None else "",
            "state": state,
            "received_at": received,
            "completed_at": None if state == "receiving" else received,
            "instances": count,
            "bytes": size,
            "change": self._next_change(),
            "senders": "\\".join(senders),
            **columns,
        }
        self._db.execute(
            f"INSERT INTO studies ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            tuple(values.values()),
        )
        # The trigger has taken the senders of the revision before it.
        self._db.execute("UPDATE studies SET senders = ? WHERE id = ?", (values["senders"], values["id"]))
        self.made[state] += 1
        self._tick()
        return int(values["id"])

    def _settle(self) -> None:
        """Nothing speaks of a study that there is not, and counts are of what is there."""
        for table in ("deliveries", "results"):
            self._db.execute(f"DELETE FROM {table} WHERE study NOT IN (SELECT id FROM studies)")
        self._db.execute("UPDATE failures SET study = NULL WHERE study NOT IN (SELECT id FROM studies)")
        for row in self._db.execute(
            "SELECT id, study_uid, revision FROM studies WHERE instances = 0"
        ).fetchall():
            count, size = self._count(row["study_uid"], row["revision"])
            self._db.execute(
                "UPDATE studies SET instances = ?, bytes = ? WHERE id = ?", (count, size, row["id"])
            )
        # The recorder ships refusals beyond the last it shipped: no later one may be before that.
        fact = self._db.execute("SELECT value FROM facts WHERE name = 'refused_shipped'").fetchone()
        if fact is not None and str(fact["value"]).isdecimal():
            raise_sequence(self._db, "refused", int(fact["value"]))

    def _number_safely(self) -> None:
        """Numbers of rows that were lost are not given to other studies: the outbox and deliveries name them."""
        highest = [0]
        for table, column in (
            ("studies", "id"),
            ("deliveries", "study"),
            ("results", "study"),
            ("failures", "study"),
        ):
            highest.append(
                self._db.execute(f"SELECT coalesce(max({column}), 0) AS n FROM {table}").fetchone()["n"]
            )
        for folder in self._root.glob("outbox/[0-9]*"):
            if folder.name.isdecimal() and len(folder.name) < 16:
                highest.append(int(folder.name))
        self._last_id = max(highest)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _next_change(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(change), 0) + 1 AS n FROM studies").fetchone()["n"])

    def _find(self, study_uid: str, revision: int) -> sqlite3.Row | None:
        found = self._db.execute(
            "SELECT * FROM studies WHERE study_uid = ? AND revision = ?", (study_uid, revision)
        ).fetchone()
        assert found is None or isinstance(found, sqlite3.Row)
        return found

    def _latest(self, study_uid: str) -> sqlite3.Row | None:
        found = self._db.execute(
            "SELECT * FROM studies WHERE study_uid = ? ORDER BY revision DESC LIMIT 1", (study_uid,)
        ).fetchone()
        assert found is None or isinstance(found, sqlite3.Row)
        return found

    def _state(self, row: int) -> str | None:
        found = self._db.execute("SELECT state FROM studies WHERE id = ?", (row,)).fetchone()
        return str(found["state"]) if found is not None else None

    def _count(self, study_uid: str, revision: int) -> tuple[int, int]:
        found = self._db.execute(
            "SELECT count(*) AS n, coalesce(sum(bytes), 0) AS size FROM instances"
            " WHERE study_uid = ? AND revision <= ?",
            (study_uid, revision),
        ).fetchone()
        return int(found["n"]), int(found["size"])

    def _instances_upto(self, study_uid: str) -> int:
        found = self._db.execute(
            "SELECT coalesce(max(revision), 0) AS n FROM instances WHERE study_uid = ?", (study_uid,)
        ).fetchone()
        return int(found["n"])

    def _images(self, study_uid: str) -> list[str]:
        rows = self._db.execute(
            "SELECT sop_uid FROM instances WHERE study_uid = ? AND role = 'image'", (study_uid,)
        )
        return [row["sop_uid"] for row in rows]


def result_in(file: Path) -> dict[str, Any] | None:
    """What a result of ours says of itself: study and revision, UIDs, how it was made. None where it is none."""
    try:
        with file.open("rb") as stream:
            dataset = read_attributes(
                stream,
                (
                    "SOPClassUID",
                    "SOPInstanceUID",
                    "StudyInstanceUID",
                    "SeriesInstanceUID",
                    "ManufacturerModelName",
                    "ContributingEquipmentSequence",
                    "SegmentSequence",
                ),
            )
        made = dataset.ContributingEquipmentSequence[-1]
        text = str(made.ContributionDescription)
        how = _MADE_WITH.search(text)
        if how is None:
            return None
        model = str(made.ManufacturerModelName)
        study_uid, sop, series = (
            str(dataset.StudyInstanceUID),
            str(dataset.SOPInstanceUID),
            str(dataset.SeriesInstanceUID),
        )
        if not all(map(is_uid, (study_uid, sop, series))) or sop != file.stem or int(how["revision"]) < 1:
            return None
        notes = ""
        for segment in dataset.get("SegmentSequence") or ():
            for algorithm in segment.get("SegmentationAlgorithmIdentificationSequence") or ():
                told = _NOTES.search(str(algorithm.get("AlgorithmParameters") or ""))
                if told is not None:
                    notes = notes_as_text([Note(code) for code in told[1].split()])
        return {
            "study": (study_uid, int(how["revision"])),
            "sop": sop,
            "class": str(dataset.SOPClassUID),
            "series": series,
            "made": {
                "model": model,
                "model_version": text[: how.start()].removeprefix(model).strip(),
                "engine": how["engine"],
                "precision": how["precision"],
                "rung": how["rung"],
                "device": how["device"],
                "notes": notes,
            },
        }
    except Exception:  # pydicom raises many types on what it cannot parse
        return None


def _time_of(path: Path) -> str:
    """When a file, or a folder's content, last changed; as the journal writes times."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="microseconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
