"""Assembly: when the instances of a study are all there, so far as anyone can know: DICOM has no end of study.

Three timers, whichever comes first:

- quiet: nothing came for `quiet_seconds`; for `open_quiet_seconds`, where the association (or request) that brought the
  last instance is still open: its sender has not said that it is through, and lines stall;
- series: every series that the model needs is there, and quiet for `series_quiet_seconds`, whatever else the
  sender still has to send;
- forced: `forced_seconds` after the first instance, even while more arrive: a study must not wait for ever.

All run on the monotonic clock, as on a train the wall clock may jump. Quiet begins again at a restart; the
forced time goes on by the study's age. What comes afterwards makes a new revision.

Three things keep a study although a timer ran out: an image of it that is half here (until its transfer ends, or is
silent for too long); a revision beyond the study's budget (REVISIONS_HELD, until its time); and images that the worker
found missing (STUDY_INCOMPLETE, until another one comes or the forced time is over).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from outpost.events import EventCode
from outpost.inference.codes import Code
from outpost.intake.header import Header
from outpost.intake.transfer import Transfer
from outpost.records.journal import Instance, Journal, JournalError, StudyRecord, utc_now

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class RequiredSeries:
    """A series that the model needs.

    `description`: regular expression, searched in Series Description whatever the case; empty for any.
    `modality`: as in the instances; empty for any. Raises `re.error` where the expression is none.
    """

    description: str = ""
    modality: str = ""
    min_instances: int = 1

    def __post_init__(self) -> None:
        re.compile(self.description)

    def fits(self, modality: str, description: str) -> bool:
        return (not self.modality or self.modality == modality) and (
            re.search(self.description, description, re.IGNORECASE) is not None
        )


@dataclass(slots=True)
class _Series:
    rules: frozenset[int]  # which of the required series it may be
    last_sign: float
    instances: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Study:
    last_sign: float
    forced_at: float
    held_for: str = ""  # a code, as in the journal
    held_until: float = 0.0
    series: dict[str, _Series] = field(default_factory=dict)


class Assembly:
    """Watches studies that are being received, and says when each is complete. All times are seconds.

    `header_of` reads an instance's header from its file, None where that is gone: series descriptions are not
    in the journal, which says all else that a restart needs.
    """

    def __init__(
        self,
        journal: Journal,
        quiet_seconds: float,
        *,
        series_quiet_seconds: float = 2,
        forced_seconds: float = 5400,
        open_quiet_seconds: float = 0,
        required_series: Sequence[RequiredSeries] = (),
        header_of: Callable[[Instance], Header | None] | None = None,
    ) -> None:
        self._journal = journal
        self._quiet = quiet_seconds
        self._series_quiet = series_quiet_seconds
        self._forced = forced_seconds
        self._open_quiet = max(quiet_seconds, open_quiet_seconds)
        self._required = tuple(required_series)
        self._header_of = header_of
        self._lock = threading.Lock()
        self._transfers: set[Transfer] = set()
        # When the forced time of studies that are in work is over: the wall clock may jump meanwhile.
        self._forced_at: dict[int, float] = {}
        self._receiving = {study.row: self._from_journal(study) for study in journal.in_state("receiving")}

    def instance_taken(self, row: int, header: Header) -> None:
        """A new instance of this study was journalled."""
        now = time.monotonic()
        with self._lock:
            study = self._receiving.get(row)
            if study is None:
                # The first, or a late one, of a study whose earlier revisions have instances too.
                study = self._receiving[row] = self._from_journal(self._journal.study(row))
            study.last_sign = now
            if study.held_for == Code.STUDY_INCOMPLETE:
                study.held_for = ""
            self._add(study, header.series_uid, header.modality, header.series_description, header.sop_uid)

    def transfer(
        self,
        source: str,
        address: str = "",
        *,
        what: str = "association",
        half: Callable[[], bool] = lambda: False,
        alive: Callable[[], bool] = lambda: True,
    ) -> Transfer:
        """A transfer that begins; see `Transfer`."""
        return Transfer(self._journal, self, source, address, what=what, half=half, alive=alive)

    def transfer_began(self, transfer: Transfer) -> None:
        """It has brought its first instance."""
        with self._lock:
            self._transfers.add(transfer)

    def transfer_ended(self, transfer: Transfer) -> None:
        """It brings no more."""
        with self._lock:
            self._transfers.discard(transfer)

    def wake(self, row: int) -> None:
        """What this study waited for may have come: quiet begins again."""
        with self._lock:
            if study := self._receiving.get(row):
                study.last_sign, study.held_for = time.monotonic(), ""

    def forced_after(self, record: StudyRecord) -> float:
        """Seconds until the forced time of a study in work is over; it may be so already."""
        now = time.monotonic()
        with self._lock:
            known = self._forced_at.get(record.row)
        return (known if known is not None else self._forced_from(record, now)) - now

    def hold(self, row: int) -> None:
        """The journal says that this study, which was in work, waits for images."""
        record = self._journal.study(row)
        if record.state != "receiving":
            return
        study = self._from_journal(record)
        with self._lock:
            study.forced_at = self._forced_at.get(row, study.forced_at)
            self._receiving.setdefault(row, study)

    def still_arriving(self, row: int, series_uid: str) -> None:
        """The sender of this series is transmitting; over a slow link one instance can take minutes."""
        now = time.monotonic()
        with self._lock:
            if study := self._receiving.get(row):
                study.last_sign = now
                if series := study.series.get(series_uid):
                    series.last_sign = now

    def complete_due_studies(self) -> int:
        """Move studies whose time has come to `complete`; returns how many.

        What the journal raises (a full disk) is raised; the studies stay due.
        """
        now = time.monotonic()
        with self._lock:
            transfers = list(self._transfers)
        for transfer in transfers:
            transfer.check(now)
        half = {transfer.row for transfer in transfers if transfer.in_instance()}
        sending: dict[int, set[str]] = {}  # series of studies that an open transfer sent to last
        for transfer in transfers:
            if transfer.row is not None and (series := transfer.open_series()) is not None:
                sending.setdefault(transfer.row, set()).add(series)
        with self._lock:
            for transfer in transfers:  # over a slow link one instance can take minutes
                if transfer.row is not None and (sent_to := self._receiving.get(transfer.row)):
                    sent_to.last_sign = max(sent_to.last_sign, transfer.last_sign)
            due = {
                row: by
                for row, study in self._receiving.items()
                if (by := self._due(study, now, row in half, sending.get(row, frozenset())))
            }
            taken = {row: self._receiving.pop(row) for row in due}
            for row, study in taken.items():
                self._forced_at[row] = study.forced_at
            while len(self._forced_at) > _MOST_REMEMBERED:
                self._forced_at.pop(next(iter(self._forced_at)))
        completed = 0
        try:
            for row, by in due.items():
                try:
                    self._journal.complete(row, by=by)
                    completed += 1
                    log.info("study %d complete (%s)", row, by)
                except JournalError:
                    pass  # complete already: its instance was journalled, it fell due, then the sign came
                del taken[row]
        finally:
            with self._lock:
                for row, study in taken.items():
                    self._receiving.setdefault(row, study)
        return completed

    def adopt(self) -> int:
        """Watch studies that are being received by the journal and by nobody here; returns how many.

        A fault between journalling an instance and saying so leaves one. Not while another thread completes studies.
        """
        with self._lock:
            known = set(self._receiving)
        strays = [study for study in self._journal.in_state("receiving") if study.row not in known]
        for study in strays:
            watched = self._from_journal(study)
            with self._lock:
                self._receiving.setdefault(study.row, watched)
        return len(strays)

    def receiving(self) -> int:
        """How many studies are being received; not those that are held."""
        with self._lock:
            return sum(not study.held_for for study in self._receiving.values())

    def _due(self, study: _Study, now: float, half: bool, sending: Collection[str]) -> str | None:
        """The timer that has run out, if any; named as the journal names it.

        `half`: an image of it is half here. `sending`: series of it that open transfers sent to last.
        """
        quiet_since = now - (self._open_quiet if sending else self._quiet)
        if study.held_for == EventCode.REVISIONS_HELD:
            if now < study.held_until:
                return None
            study.held_for = ""
        if study.forced_at <= now:
            # Quiet all the same: then nothing was cut short.
            quiet = not half and not study.held_for and study.last_sign <= quiet_since
            return "quiet" if quiet else "forced"
        if half or study.held_for:
            return None
        if study.last_sign <= quiet_since:
            return "quiet"
        if self._required and self._all_there_and_quiet(study, now - self._series_quiet, sending):
            return "series"
        return None

    def _all_there_and_quiet(self, study: _Study, since: float, sending: Collection[str]) -> bool:
        for number, rule in enumerate(self._required):
            fitting = {uid: series for uid, series in study.series.items() if number in series.rules}
            if any(uid in fitting for uid in sending):
                return False  # whose sender may have stalled in the middle of it
            if not any(len(series.instances) >= rule.min_instances for series in fitting.values()):
                return False
            if any(series.last_sign > since for series in fitting.values()):
                return False
        return True

    def _from_journal(self, record: StudyRecord) -> _Study:
        now = time.monotonic()
        study = _Study(last_sign=now, forced_at=self._forced_from(record, now), held_for=record.held_for)
        if study.held_for == EventCode.REVISIONS_HELD and record.held_until is not None:
            study.held_until = now + (record.held_until - utc_now()).total_seconds()
            study.forced_at = study.held_until + self._forced
        if self._required:
            described: dict[str, str] = {}
            for instance in self._journal.instances(record.study_uid, record.revision):
                if instance.series_uid not in described:
                    header = self._header_of(instance) if self._header_of is not None else None
                    described[instance.series_uid] = header.series_description if header is not None else ""
                description = described[instance.series_uid]
                self._add(study, instance.series_uid, instance.modality, description, instance.sop_uid)
        return study

    def _forced_from(self, record: StudyRecord, now: float) -> float:
        # Where the wall clock was set back meanwhile, the age would be negative: then it is new.
        return now + self._forced - max(0.0, (utc_now() - record.received_at).total_seconds())

    def _add(self, study: _Study, series_uid: str, modality: str, description: str, sop_uid: str) -> None:
        if not self._required:
            return
        series = study.series.get(series_uid)
        if series is None:
            rules = (i for i, rule in enumerate(self._required) if rule.fits(modality, description))
            series = study.series[series_uid] = _Series(frozenset(rules), 0.0)
        series.instances.add(sop_uid)
        series.last_sign = time.monotonic()
