"""Whose study is computed next: the oldest, and where many wait, the oldest of each sender in turn.

Who has ten thousand studies waiting keeps nobody else's waiting for more than one of them. Addresses take turns, and at
one address its AE titles. A title is whatever a peer writes: those that had no turn yet share one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from outpost.records.journal import Journal, StudyRecord

_MOST_REMEMBERED: Final = 2000
_NEWCOMERS: Final = "\\"  # no AE title has one


class Turns:
    """Remembers who had a turn, since the start. Its caller sees to it that one thread at a time asks."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._number = 0
        self._had: OrderedDict[tuple[str, ...], int] = OrderedDict()  # address, or address and AE title

    def oldest_of_each(self, claimed: Collection[int], limit: int) -> list[StudyRecord]:
        """Complete studies that nobody has, one of each sender, whose turn it is first."""
        heads = sorted(
            self._journal.queued_of_each(claimed),
            key=lambda head: (
                self._had.get((head[0],), 0),
                self._had.get(self._slot(head[0], head[1]), 0),
                head[2],
            ),
        )
        return [self._journal.study(row) for _, _, row in heads[:limit]]

    def took(self, study: StudyRecord) -> None:
        """This one is computed now: its sender had a turn."""
        address, title = self._journal.opener(study.row)
        self._number += 1
        for key in ((address,), self._slot(address, title), (address, title)):
            self._had[key] = self._number
            self._had.move_to_end(key)
        while len(self._had) > _MOST_REMEMBERED:
            self._had.popitem(last=False)

    def _slot(self, address: str, title: str) -> tuple[str, ...]:
        return (address, title) if (address, title) in self._had else (address, _NEWCOMERS)
