"""How many studies may wait to be computed, so that no sender takes the room of another.

A study is what a peer makes of it: one image under a UID of its own opens one. Each costs a row, a folder, timers, and
a place in the queue until it is computed. Beyond these numbers no other study is opened: its image is refused for now,
and its sender, as it does when a disk is full, sends it again later. What has been taken is never dropped, and images
of studies that are open are taken whatever else waits.

As for associations (`outpost.intake.guests`), one AE title at one address has half of the places, one address three
quarters: who names itself anew each time takes no other's.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.records.journal import Instance, Journal

_COUNTED_AGAIN_SECONDS: Final = 1.0
# In the system's state directory, while it is taken out of service (playbooks/remove.yml): no study is opened any more.
OUT_OF_SERVICE: Final = "out-of-service"


@dataclass(frozen=True, slots=True)
class Most:
    """Studies that may wait in all, of an AE title at an address, of an address; and instances of one study."""

    studies: int = 20_000
    per_sender: int = 10_000
    per_address: int = 15_000
    instances: int = 50_000

    @classmethod
    def of(cls, studies: int, per_sender: int, instances: int) -> Most:
        """`per_sender` 0: half of them, all where there are fewer than four."""
        per_sender = (
            min(studies, per_sender) if per_sender else (studies + 1) // 2 if studies >= 4 else studies
        )
        return cls(studies, per_sender, max(per_sender, studies - studies // 4), instances)


class Waiting:
    """The studies that wait, counted by who opened them. Safe to use from any thread.

    Between two counts of the journal it only adds, so it never believes that there are fewer than there are; an
    administrator's own (a study that is submitted again) are counted with the next.
    """

    def __init__(self, journal: Journal, most: Most | None = None, state: Path | None = None) -> None:
        """`state`: the directory in which a file of the name OUT_OF_SERVICE closes the system to other studies."""
        self.most = most or Most()
        self._closed = state / OUT_OF_SERVICE if state is not None else None
        self._journal = journal
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()  # by address and AE title
        self._of_address: Counter[str] = Counter()
        self._total = 0
        self._counted: float | None = None

    def admit(self, instances: Sequence[Instance]) -> list[InstanceRefused | None]:
        """Which of these, of one sender, may be taken: None, or why not. Studies that they open are counted.

        Not from two threads at a time: what one has counted, and not yet journalled, the other would forget.
        """
        prospects = [self._journal.prospect(instance) for instance in instances]
        new = dict.fromkeys(
            instance.study_uid for instance, one in zip(instances, prospects, strict=True) if one.opens
        )
        if new and self._closed is not None and self._closed.exists():
            return [InstanceRefused(Refusal.OUT_OF_SERVICE) if one.opens else None for one in prospects]
        refused = self._open(instances[0], list(new)) if new else {}
        return [
            InstanceRefused(Refusal.TOO_MANY_INSTANCES)
            if one.adds and one.instances >= self.most.instances
            else InstanceRefused(Refusal.TOO_MANY_STUDIES, comment=refused[instance.study_uid])
            if one.opens and instance.study_uid in refused
            else None
            for instance, one in zip(instances, prospects, strict=True)
        ]

    def fullest(self) -> float:
        """How full it is for whoever has most in it, 0 to 1."""
        counts = Counter(self._journal.uncomputed())
        of_address: Counter[str] = Counter()
        for (address, _), studies in counts.items():
            of_address[address] += studies if address else 0
        return max(
            counts.total() / self.most.studies,
            max(counts.values(), default=0) / self.most.per_sender,
            max(of_address.values(), default=0) / self.most.per_address,
        )

    def _open(self, first: Instance, studies: Sequence[str]) -> dict[str, str]:
        """Count these studies as this sender's; of those that have no place, why not, in words."""
        key, refused = (first.address, first.source), {}
        with self._lock:
            if self._counted is None or self._words(key, len(studies)):
                self._count()
            for study in studies:
                if words := self._words(key, 1):
                    refused[study] = words
                else:
                    self._add(key, 1)
        return refused

    def _count(self) -> None:
        """As the journal has it; not more often than a flood may ask."""
        now = time.monotonic()
        if self._counted is None or now - self._counted >= _COUNTED_AGAIN_SECONDS:
            self._counts.clear()
            self._of_address.clear()
            self._total = 0
            for key, studies in self._journal.uncomputed().items():
                self._add(key, studies)
            self._counted = now

    def _add(self, key: tuple[str, str], studies: int) -> None:
        self._counts[key] += studies
        self._of_address[key[0]] += studies
        self._total += studies

    def _words(self, key: tuple[str, str], more: int) -> str:
        """Why this sender may not open so many more studies, in at most 64 characters; empty where it may."""
        if self._counts[key] + more > self.most.per_sender:
            return f"{self._counts[key]} studies of this sender wait, send it later"
        of_address = self._of_address[key[0]]
        if key[0] and of_address + more > self.most.per_address:
            return f"{of_address} studies of this address wait, send it later"
        if self._total + more > self.most.studies:
            return f"{self._total} studies wait, send it later"
        return ""
