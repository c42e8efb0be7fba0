"""Books on disk, one file a day, older ones a file a month, and the reference. All under one folder.

    drift/days/2026-11-26.gz    drift/months/2026-08.gz    drift/reference.gz

A file is replaced as a whole or not at all. A month is written before its days are removed, and knows which days
are in it: days still lying there after a crash are not counted twice.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from outpost.drift.book import Book, BookUnusable, merge
from outpost.durable import write_durably
from outpost.errand import go_on
from outpost.heal.found import put_aside

REFERENCE = "reference.gz"
# A bundle may bring the reference that its input is held against, under this name.
SHIPPED_REFERENCE = "drift_reference.gz"


class Shelf:
    """The books of one system below `folder`, which is made where it does not exist."""

    def __init__(self, folder: Path) -> None:
        self._days = folder / "days"
        self._months = folder / "months"
        self._folder = folder
        for made in (self._days, self._months):
            made.mkdir(parents=True, exist_ok=True)

    def put_day(self, day: date, book: Book) -> None:
        """Keep the book of a day, durably; raises OSError."""
        write_durably(self._days / f"{day}.gz", lambda stream: stream.write(book.encode()))

    def day(self, day: date) -> Book:
        """The book of a day; an empty one where there is none, or none that can be read."""
        return _read(self._days / f"{day}.gz") or Book()

    def days(self, first: date, last: date) -> list[tuple[date, Book]]:
        """Books of single days from first to last, in order; days without one are left out."""
        found = []
        # By what there is, not by what was asked for: a calendar has days without end.
        for name in sorted(file.stem for file in self._days.glob("*.gz")):
            day = _day(name)
            if day is not None and first <= day <= last and (book := _read(self._days / f"{name}.gz")):
                found.append((day, book))
        return found

    def period(self, first: date, last: date) -> Book:
        """All of a period as one book. Of a month that is kept as a whole, all or nothing is taken."""
        books = [book for _, book in self.days(first, last)]
        held = {part for book in books for part in book.parts}
        for file, begin in self._whole_months():
            end = (begin + timedelta(days=32)).replace(day=1) - timedelta(days=1)
            if first <= begin and end <= last and (book := _read(file)) is not None:
                books = [one for one in books if not one.parts.keys() & book.parts.keys()]
                books.append(book)
                held |= book.parts.keys()
        return merge(books)

    def months(self) -> list[tuple[date, Book]]:
        """Every month there is, by its first day, whether kept as a whole or in days; for pages."""
        begins = {begin for _, begin in self._whole_months()}
        begins |= {
            day.replace(day=1) for file in self._days.glob("*.gz") if (day := _day(file.stem)) is not None
        }
        return [
            (begin, self.period(begin, (begin + timedelta(days=32)).replace(day=1) - timedelta(days=1)))
            for begin in sorted(begins)
        ]

    def _whole_months(self) -> list[tuple[Path, date]]:
        """Files of months that are kept as a whole, with their first day, in order."""
        found = [(file, _day(f"{file.stem}-01")) for file in sorted(self._months.glob("*.gz"))]
        return [(file, begin) for file, begin in found if begin is not None]

    def compact(self, before: date) -> int:
        """Make months of all days of months that ended before a day; returns how many days went into them."""
        by_month: dict[str, list[Path]] = {}
        for file in sorted(self._days.glob("*.gz")):
            if _day(file.stem) is not None:
                by_month.setdefault(file.stem[:7], []).append(file)
        moved = 0
        for month, files in by_month.items():
            begin = date.fromisoformat(f"{month}-01")
            if (begin + timedelta(days=32)).replace(day=1) > before:
                continue
            target = self._months / f"{month}.gz"
            whole = _read(target) or Book()
            # A day that cannot be read stays: it was put aside, or a person gives us the permission.
            days = {file: book for file in files if (book := _read(file)) is not None}
            whole = merge(
                [whole, *(book for book in days.values() if not book.parts.keys() & whole.parts.keys())]
            )
            write_durably(target, lambda stream, book=whole: stream.write(book.encode()))  # type: ignore[misc]
            for file in days:
                file.unlink()
                moved += 1
        return moved

    def reference(self, shipped: Path | None = None) -> Book | None:
        """What windows are held against: frozen here, else shipped with the bundle, else nothing."""
        frozen = _read(self._folder / REFERENCE)
        return frozen if frozen is not None or shipped is None else _read(shipped, ours=False)

    def freeze(self, book: Book) -> None:
        """Make a book the reference, durably; raises OSError."""
        write_durably(self._folder / REFERENCE, lambda stream: stream.write(book.encode()))


def _day(name: str) -> date | None:
    """The day a file is named by; None for a file that somebody else has put there."""
    try:
        return date.fromisoformat(name) if len(name) == 10 else None
    except ValueError:
        return None


def _read(file: Path, *, ours: bool = True) -> Book | None:
    go_on()
    try:
        return Book.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, BookUnusable) as error:
        why = str(error.strerror) if isinstance(error, OSError) else str(error)
        # What may not be read may not be ours to move either.
        put_aside(file, why, "drift goes on without it", move=ours and not isinstance(error, PermissionError))
        return None
