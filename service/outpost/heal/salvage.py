"""What can still be read of a damaged journal, brought row by row into a new one."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from outpost.heal.carve import carve
from outpost.heal.damage import JOURNAL, check, is_damage
from outpost.records import readonly
from outpost.records.journal import OUTCOMES, STATES

# What a journal that was lost from under a running service was written to before that ended.
RESCUED: Final = "journal-rescued.sqlite3"
# Studies first: what belongs to one is held against them.
TABLES: Final = (
    "studies",
    "instances",
    "refused",
    "refused_gone",
    "deliveries",
    "results",
    "failures",
    "transfers",
    "ladder",
    "events",
    "facts",
)
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_GAP_LIMIT: Final = 1 << 40
_CHANGE: Final = 21  # column of studies, in every version


@dataclass
class Salvaged:
    """Rows that were saved, by table, and tables of which some could not be read."""

    rows: Counter[str] = field(default_factory=Counter)
    damaged: set[str] = field(default_factory=set)


def salvage(folder: Path, db: sqlite3.Connection, tick: Callable[[], None]) -> Salvaged:
    """Bring into the empty journal `db` what the files in `folder` still hold. `tick` is called now and then.

    The caller has begun a transaction and switched foreign keys off. Raises sqlite3.Error of `db` alone.
    """
    found = Salvaged()
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for trigger in triggers:  # they keep up what the rows that come have already
        db.execute(f"DROP TRIGGER {trigger['name']}")
    sources = list(_sources(folder))
    lacking = set(TABLES)  # tables that no source had whole
    for path, alone in sources:
        one = Salvaged()
        if _from_tables(path, alone, db, one, tick):
            lacking &= one.damaged
        found.rows.update(one.rows)
        found.damaged |= one.damaged
        if not lacking:
            break
    found.damaged &= lacking
    if lacking:
        for name in (JOURNAL, f"{JOURNAL}-wal"):
            if (folder / name).is_file():
                _from_pages(folder / name, lacking, db, found, tick)
    for trigger in triggers:
        db.execute(trigger["sql"])
    return found


def _sources(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Files to read, the most trusted first, and whether without the write-ahead log beside it."""
    if (folder / RESCUED).is_file():
        yield folder / RESCUED, True
    file = folder / JOURNAL
    # Opening an empty file would have SQLite remove the log beside it.
    if not file.is_file() or file.stat().st_size < 512:
        return
    if not (folder / f"{JOURNAL}-wal").is_file():
        yield file, True
        return
    # A log of another file is told by this: with it the journal is damaged, without it it is not.
    foreign = bool(_found(file, alone=False)) and not _found(file, alone=True)
    yield file, foreign
    if not foreign:
        yield file, True


def _found(file: Path, *, alone: bool) -> str:
    try:
        return check(file, alone=alone)
    except Exception as error:  # whatever it is, this source is not to be trusted
        return str(error) or type(error).__name__


def _from_tables(
    path: Path, alone: bool, db: sqlite3.Connection, found: Salvaged, tick: Callable[[], None]
) -> bool:
    """Read each table in the order of its rows; False where there is no reading at all."""
    try:
        with closing(readonly.connect(path, alone=alone)) as source:
            source.text_factory = lambda raw: raw.decode("utf-8", "replace")
            try:
                there = {
                    r["name"] for r in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                }
            except sqlite3.Error:
                return False
            for table in TABLES:
                if table in there:
                    _table(source, table, db, found, tick)
            _sequences(source, db)
            if not there & {"studies"}:
                return False
    except sqlite3.Error as error:
        if is_damage(error) or isinstance(error, sqlite3.OperationalError):
            return False
        raise
    return True


def _table(
    source: sqlite3.Connection, table: str, db: sqlite3.Connection, found: Salvaged, tick: Callable[[], None]
) -> None:
    try:
        here = [row["name"] for row in source.execute(f"PRAGMA table_info({table})")]
    except sqlite3.Error:
        found.damaged.add(table)
        return
    wanted = {row["name"] for row in db.execute(f"PRAGMA table_info({table})")}
    columns = [name for name in here if name in wanted]
    if not columns:
        found.damaged.add(table)
        return
    insert = _insert(table, columns)
    for number, row in enumerate(_rows(source, table, columns, found)):
        values = dict(zip(columns, tuple(row)[1:], strict=True))
        if not is_sane(table, values):
            found.damaged.add(table)
            continue
        if table == "facts" and values["name"] == "schema":
            continue
        found.rows[table] += db.execute(insert, tuple(values.values())).rowcount
        if number % 5000 == 0:
            tick()


def _rows(
    source: sqlite3.Connection, table: str, columns: Sequence[str], found: Salvaged
) -> Iterator[sqlite3.Row]:
    """Every row that can be read, around those that cannot."""
    select = f"SELECT rowid, {', '.join(columns)} FROM {table} NOT INDEXED WHERE rowid >= ? ORDER BY rowid"
    at = -(1 << 62)
    while True:
        try:
            for row in source.execute(select, (at,)):
                yield row
                at = int(row[0]) + 1
        except (sqlite3.Error, OverflowError):
            found.damaged.add(table)
        else:
            return
        beyond = _beyond(source, f"{select} LIMIT 1", at)
        if beyond is None:
            return
        at = beyond


def _beyond(source: sqlite3.Connection, select: str, at: int) -> int | None:
    """The least rowid from which reading works again; None where there is none."""

    def works(place: int) -> bool:
        try:
            source.execute(select, (place,)).fetchall()
        except (sqlite3.Error, OverflowError):
            return False
        return True

    at = max(at, 0)
    step = 1
    while not works(at + step):
        step *= 2
        if step > _GAP_LIMIT:
            return None
    bad, good = at + step // 2, at + step
    while good - bad > 1:
        middle = (bad + good) // 2
        bad, good = (bad, middle) if works(middle) else (middle, good)
    return good


def _sequences(source: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Numbers that were given once are not given again."""
    try:
        rows = source.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
    except sqlite3.Error:
        return
    for row in rows:
        if row["name"] in TABLES and isinstance(row["seq"], int) and 0 <= row["seq"] < 1 << 62:
            raise_sequence(db, row["name"], row["seq"])


def raise_sequence(db: sqlite3.Connection, table: str, number: int) -> None:
    """The next row of an AUTOINCREMENT table has a number beyond this one."""
    if not db.execute(
        "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, table)
    ).rowcount:
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))


def _from_pages(
    file: Path, lacking: set[str], db: sqlite3.Connection, found: Salvaged, tick: Callable[[], None]
) -> None:
    """Rows that no tree leads to any more. A study is taken in its newest form."""
    columns = {table: [row["name"] for row in db.execute(f"PRAGMA table_info({table})")] for table in TABLES}
    studies: dict[int, list[Any]] = {}
    try:
        for number, (table, rowid, values) in enumerate(carve(file)):
            if number % 5000 == 0:
                tick()
            if table not in lacking or len(values) > len(columns[table]):
                continue
            if table == "studies":
                held = studies.get(rowid)
                if held is None or _change(values) > _change(held):
                    studies[rowid] = values
                continue
            _put(table, rowid, values, columns[table], db, found)
    except OSError:
        found.damaged |= lacking
    for rowid, values in studies.items():
        _put("studies", rowid, values, columns["studies"], db, found)


def _put(
    table: str, rowid: int, values: list[Any], names: list[str], db: sqlite3.Connection, found: Salvaged
) -> None:
    row = dict(zip(names, values, strict=False))
    if names[0] == "id":
        row["id"] = rowid
    if is_sane(table, row):
        found.rows[table] += db.execute(_insert(table, list(row)), tuple(row.values())).rowcount


def _change(values: list[Any]) -> int:
    return values[_CHANGE] if isinstance(values[_CHANGE], int) else 0


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def is_sane(table: str, row: dict[str, Any]) -> bool:
    """Whether a row can have been written by the journal: what a flipped bit makes of one is not taken."""

    def uid(name: str) -> bool:
        value = row.get(name)
        return isinstance(value, str) and len(value) <= 64 and _UID.fullmatch(value) is not None

    def number(name: str, least: int = 0) -> bool:
        value = row.get(name)
        return isinstance(value, int) and least <= value < 1 << 62

    def moment(name: str, *, empty: bool = False) -> bool:
        value = row.get(name)
        if value is None:
            return empty
        try:
            return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            return False

    if any(isinstance(value, str) and "\ufffd" in value for value in row.values()):
        return False
    match table:
        case "studies":
            return (
                uid("study_uid")
                and number("id", 1)
                and number("revision", 1)
                and number("instances")
                and number("bytes")
                and number("change")
                and row.get("state") in STATES
                and moment("received_at")
                and moment("completed_at", empty=True)
                and moment("finished_at", empty=row["state"] not in OUTCOMES)
                and (row["state"] not in ("rejected", "quarantined") or bool(row.get("reason")))
                and all(_is_json(row.get(name)) for name in ("notes", "broken_off"))
            )
        case "instances":
            return (
                all(map(uid, ("sop_uid", "study_uid", "series_uid")))
                and number("id", 1)
                and number("revision", 1)
                and number("bytes")
                and moment("received_at")
            )
        case "refused":
            return moment("at") and number("bytes") and isinstance(row.get("file"), str)
        case "refused_gone":
            whole = all(map(number, ("instances", "bytes", "evicted", "first", "last")))
            return isinstance(row.get("sender"), str) and whole
        case "deliveries":
            return number("study", 1) and all(
                moment(n, empty=True) for n in ("confirmed_at", "last_attempt_at")
            )
        case "results":
            return uid("sop_uid") and uid("series_uid") and number("study", 1)
        case "events" | "failures":
            return moment("at")
        case "ladder":
            shape = row.get("shape")
            return (
                isinstance(shape, str)
                and re.fullmatch(r"([0-9]{1,6}(x[0-9]{1,6})*)?", shape) is not None
                and (moment("failed_at") and number("failures"))
            )
        case "facts":
            name, value = row.get("name"), row.get("value")
            if not isinstance(name, str) or not isinstance(value, str):
                return False
            counts = name in ("refused_shipped", "success") or name.startswith(("unreleased ", "contexts "))
            return value.isdecimal() if counts else True
    return True


def _is_json(value: object) -> bool:
    """Whether a column is empty or a list in JSON."""
    if value is None or value == "":
        return True
    try:
        return isinstance(value, str) and isinstance(json.loads(value), list)
    except (ValueError, RecursionError):
        return False
