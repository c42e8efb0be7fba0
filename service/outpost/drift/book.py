"""A book: the sketches of a period, by sender and tag, as it is kept, shipped, merged and compared.

A book knows the days it was made of. Adding one day twice would count it twice; so merging takes a day that both
have once where it is the same or grows, and refuses where it cannot be told apart any more.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from typing import Any

from outpost.drift.categorical import Categories
from outpost.drift.compare import RARE
from outpost.drift.quantiles import Quantiles
from outpost.drift.tags import Kind, tag_of
from outpost.errand import go_on

FORMAT_VERSION = 1
# What stands in the place of senders beyond the number a system keeps apart.
OTHERS = "(others)"
ALL = "*"
# What stands in the place of values beyond the number that a day keeps apart.
MORE = "(more)"
_LONGEST = 64 << 20  # unpacked; a year of a busy region is some hundred kilobytes

Sketch = Categories | Quantiles
Value = str | float | None


class BookUnusable(Exception):
    """The bytes are no book, or of another version, or cannot be merged; the text says what to do."""


@dataclass(slots=True)
class Book:
    """Sketches of one or more days of one or more systems.

    Attributes:
        parts: `region/system/day` -> observations counted on that day there.
        senders: AE title -> tag -> sketch.
    """

    parts: dict[str, int] = field(default_factory=dict)
    senders: dict[str, dict[str, Sketch]] = field(default_factory=dict)

    def add(self, part: str, sender: str, values: Mapping[str, Value]) -> None:
        """Count one observation: the value of each tag, None where it is missing. Unknown tags are left out."""
        self.parts[part] = self.parts.get(part, 0) + 1
        sketches = self.senders.setdefault(sender, {})
        for name, value in values.items():
            sketch = sketches.get(name)
            if sketch is None:
                tag = tag_of(name)
                if tag is None:
                    continue
                sketch = sketches[name] = Categories() if tag.kind is Kind.CATEGORY else Quantiles()
            if isinstance(sketch, Categories):
                sketch.add(None if value is None else str(value))
            else:
                sketch.add(float(value) if isinstance(value, int | float) else None)

    def known(self, sender: str, values: Mapping[str, Value]) -> dict[str, Value]:
        """These values, so that the book grows no more: those that it does not have of this sender yet stand under
        one name, and numbers that would need another cell are left out.
        """
        sketches = self.senders.get(sender, {})
        found: dict[str, Value] = {}
        for name, value in values.items():
            sketch = sketches.get(name)
            if isinstance(sketch, Categories) and value is not None and not sketch.has(str(value)):
                found[name] = MORE
            elif not (
                isinstance(sketch, Quantiles) and isinstance(value, int | float) and not sketch.has(value)
            ):
                found[name] = value
        return found

    @property
    def cells(self) -> int:
        """What it takes to keep: counts of values and numbers."""
        return sum(len(sketch.cells) for tags in self.senders.values() for sketch in tags.values())

    @property
    def days(self) -> tuple[date, date] | None:
        """First and last day; None for an empty book."""
        found = sorted(part.rsplit("/", 1)[1] for part in self.parts)
        return (date.fromisoformat(found[0]), date.fromisoformat(found[-1])) if found else None

    @property
    def observations(self) -> int:
        return sum(self.parts.values())

    def pooled(self) -> dict[str, Sketch]:
        """All senders as one: tag -> sketch."""
        tags: dict[str, Sketch] = {}
        for sketches in self.senders.values():
            for name, sketch in sketches.items():
                tags[name] = _sum(tags[name], sketch) if name in tags else sketch
        return tags

    def with_senders(self, most: int, first: Collection[str] = ()) -> Book:
        """The same with so many senders apart: those of `first`, then those most was counted of; the rest as one."""
        if len(self.senders) <= most:
            return self

        def counted(sender: str) -> int:
            return max((one.present + one.missing for one in self.senders[sender].values()), default=0)

        ranked = sorted(
            self.senders.keys() - {OTHERS}, key=lambda sender: (sender not in first, -counted(sender), sender)
        )
        kept = Book(dict(self.parts), {sender: self.senders[sender] for sender in ranked[:most]})
        rest = {sender: self.senders[sender] for sender in self.senders if sender not in kept.senders}
        kept.senders[OTHERS] = Book(senders=rest).pooled()
        return kept

    def merged(self, other: Book) -> Book:
        """Both together. A day that both hold alone is taken once, from whichever has counted more of it.

        Raises:
            BookUnusable: they share a day that is merged with others in one of them.
        """
        shared = self.parts.keys() & other.parts.keys()
        if shared:
            if len(self.parts) == len(other.parts) == 1:
                return max(self, other, key=lambda book: (book.observations, book.encode()))
            if self.parts == other.parts and self == other:
                return self
            raise BookUnusable(
                f"both hold {sorted(shared)[0]}, at least one together with other days: "
                "merge the books of single days, or take one of the two out"
            )
        both = Book(self.parts | other.parts, {sender: dict(s) for sender, s in self.senders.items()})
        for sender, sketches in other.senders.items():
            held = both.senders.setdefault(sender, {})
            for name, sketch in sketches.items():
                held[name] = _sum(held[name], sketch) if name in held else sketch
        return both

    def for_others(self, least: int = RARE) -> Book:
        """The book as it may leave the host: values that occurred fewer than `least` times are not named.

        A header may hold anything in any attribute; what is rare is no device and might be a person.
        """
        return Book(
            dict(self.parts),
            {
                sender: {
                    name: sketch.without_rare(least) if isinstance(sketch, Categories) else sketch
                    for name, sketch in sketches.items()
                }
                for sender, sketches in self.senders.items()
            },
        )

    def encode(self) -> bytes:
        """Packed JSON; equal books give equal bytes."""
        value = {
            "outpost_drift": FORMAT_VERSION,
            "parts": dict(sorted(self.parts.items())),
            "senders": {
                sender: {name: sketch.as_json() for name, sketch in sorted(sketches.items())}
                for sender, sketches in sorted(self.senders.items())
            },
        }
        return gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0)

    @classmethod
    def decode(cls, packed: bytes) -> Book:
        """Raises `BookUnusable` for anything that `encode` of this version does not give."""
        try:
            unpacking = zlib.decompressobj(wbits=31)
            text = unpacking.decompress(packed, _LONGEST)
            if not unpacking.eof:
                raise ValueError(f"cut off, or more than {_LONGEST >> 20} MiB unpacked")
            value = json.loads(text)
            version = value["outpost_drift"]
            if version != FORMAT_VERSION:
                raise BookUnusable(
                    f"this book has format {version}, this release reads {FORMAT_VERSION}: use the release "
                    "that wrote it"
                )
            for part in value["parts"]:
                date.fromisoformat(part.rsplit("/", 1)[1])
            return cls(
                {str(part): int(count) for part, count in value["parts"].items()},
                {
                    sender: {name: _sketch(sketch) for name, sketch in sketches.items()}
                    for sender, sketches in value["senders"].items()
                },
            )
        except (
            *(ValueError, KeyError, TypeError, AttributeError, IndexError),
            *(OverflowError, RecursionError, zlib.error),
        ) as error:
            raise BookUnusable(
                f"this is no drift book ({type(error).__name__}: {error}): copy the file again from its source"
            ) from error


def merge(books: list[Book]) -> Book:
    """All of them together; in any order the same. Raises `BookUnusable`."""
    # A day that comes twice is settled before it is lost among others.
    days: dict[str, Book] = {}
    merged = []
    for book in books:
        if len(book.parts) == 1:
            (part,) = book.parts
            days[part] = days[part].merged(book) if part in days else book
        else:
            merged.append(book)
    return reduce(_both, [*merged, *days.values()], Book())


def _both(left: Book, right: Book) -> Book:
    go_on()
    return left.merged(right)


def _sum(left: Sketch, right: Sketch) -> Sketch:
    if isinstance(left, Categories) and isinstance(right, Categories):
        return left.merged(right)
    if isinstance(left, Quantiles) and isinstance(right, Quantiles):
        return left.merged(right)
    raise BookUnusable("one tag is counted in categories here and as a number there: the books do not match")


def _sketch(value: Mapping[str, Any]) -> Sketch:
    kinds: dict[str, type[Categories] | type[Quantiles]] = {"categories": Categories, "quantiles": Quantiles}
    return kinds[value["kind"]].from_json(value)
