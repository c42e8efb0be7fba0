"""Assembly: when the instances of a study are all there, so far as anyone can know: DICOM has no end of study.

Three timers, whichever comes first:

- quiet: nothing came for `quiet_seconds`;
- series: every series that the model needs is there, and quiet for `series_quiet_seconds`, whatever else the
  sender still has to send;
- forced: `forced_seconds` after the first instance, even while more arrive: a study must not wait for ever.

All run on the monotonic clock, as on a train the wall clock may jump. Quiet begins anew at a restart; the
forced time goes on by the study's age. What comes afterwards makes a new revision.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outpost.intake.header import Header
from outpost.records.journal import Instance, Journal, JournalError, StudyRecord, utc_now

log = logging.getLogger(__name__)


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
        required_series: Sequence[RequiredSeries] = (),
        header_of: Callable[[Instance], Header | None] | None = None,
    ) -> None:
        self._journal = journal
        self._quiet = quiet_seconds
        self._series_quiet = series_quiet_seconds
        self._forced = forced_seconds
        self._required = tuple(required_series)
        self._header_of = header_of
        self._lock = threading.Lock()
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
            self._add(study, header.series_uid, header.modality, header.series_description, header.sop_uid)

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
            due = {row: by for row, study in self._receiving.items() if (by := self._due(study, now))}
            taken = {row: self._receiving.pop(row) for row in due}
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
        """How many studies are being received."""
        with self._lock:
            return len(self._receiving)

    def _due(self, study: _Study, now: float) -> str | None:
        """The timer that has run out, if any; named as the journal names it."""
        if study.last_sign <= now - self._quiet:
            return "quiet"
        if self._required and self._all_there_and_quiet(study, now - self._series_quiet):
            return "series"
        return "forced" if study.forced_at <= now else None

    def _all_there_and_quiet(self, study: _Study, since: float) -> bool:
        for number, rule in enumerate(self._required):
            fitting = [series for series in study.series.values() if number in series.rules]
            if not any(len(series.instances) >= rule.min_instances for series in fitting):
                return False
            if any(series.last_sign > since for series in fitting):
                return False
        return True

    def _from_journal(self, record: StudyRecord) -> _Study:
        now = time.monotonic()
        # Where the wall clock was set back meanwhile, the age would be negative: then it is new.
        age = max(0.0, (utc_now() - record.received_at).total_seconds())
        study = _Study(last_sign=now, forced_at=now + self._forced - age)
        if self._required:
            described: dict[str, str] = {}
            for instance in self._journal.instances(record.study_uid, record.revision):
                if instance.series_uid not in described:
                    header = self._header_of(instance) if self._header_of is not None else None
                    described[instance.series_uid] = header.series_description if header is not None else ""
                description = described[instance.series_uid]
                self._add(study, instance.series_uid, instance.modality, description, instance.sop_uid)
        return study

    def _add(self, study: _Study, series_uid: str, modality: str, description: str, sop_uid: str) -> None:
        if not self._required:
            return
        series = study.series.get(series_uid)
        if series is None:
            rules = (i for i, rule in enumerate(self._required) if rule.fits(modality, description))
            series = study.series[series_uid] = _Series(frozenset(rules), 0.0)
        series.instances.add(sop_uid)
        series.last_sign = time.monotonic()
