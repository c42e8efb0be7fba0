"""Which rule set judges now: the site's file, or the bundle's; looked at again and again while the service runs.

A file that is wrong where none has judged before keeps the service from starting. Where one has, it goes on judging,
from its copy after a restart, and health says so until the file is right again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path
from typing import Final

from outpost.durable import write_durably
from outpost.events import EventCode
from outpost.filter.rulefile import RuleFile, RulesInvalid, load_rules, rules_of
from outpost.heal.found import put_aside
from outpost.records.journal import Journal

log = logging.getLogger(__name__)

_FACT: Final = "filter_rules"


class ActiveRules:
    """The rule set in use. `look` is called by one thread; the attributes may be read by any.

    Args:
        source: the rule file; None for none.
        kept: folder in which a copy of every rule set that judged is kept, by its digest.
        journal: where changes are noted.

    Attributes:
        file: the rule set in use.
        fault: why the file on disk is not the one in use; empty while it is.

    Raises:
        RulesInvalid: the file is wrong, and there is no copy of one that judged before.
    """

    def __init__(self, source: Path | None, kept: Path, journal: Journal) -> None:
        self._source = source
        self._kept = kept
        self._journal = journal
        self.fault = ""
        self._refused: bytes | str | None = None  # what was refused last: it is told once
        try:
            self.file = rules_of(source)
        except RulesInvalid as invalid:
            last = self._last_good()
            if last is None or source is None:
                raise
            self.file = last
            self._refuse(invalid, _text_of(source))
        self._seen: bytes | str | None = None  # what the last look saw on disk
        if journal.fact(_FACT) != self.file.digest:
            self._note_use()
        else:
            self._keep_copy()

    def look(self) -> None:
        """Take the file on disk if it has changed and is right; else keep what is in use, and say why."""
        if self._source is None:
            return
        text = _text_of(self._source)
        if text == self.file.text:
            if self.fault:
                self._journal.note_event(
                    EventCode.FILTER_RULES_CHANGED, f"{self.file.short} is on disk again"
                )
            self.fault, self._refused = "", None
            return
        if text == self._refused:
            return
        if (
            text != self._seen
        ):  # somebody may be in the middle of saving it: the next look sees whether it stays
            self._seen = text
            return
        try:
            self.file = load_rules(self._source)
        except RulesInvalid as invalid:
            self._refuse(invalid, text)
        else:
            self.fault, self._refused = "", None
            log.info("rules changed: %s judges from now on", self.file.short)
            self._note_use()

    def _refuse(self, invalid: RulesInvalid, text: bytes | str) -> None:
        assert self._source is not None  # without a file there is none to be wrong
        self._refused = text
        self.fault = f"{self._source.name}: {invalid.faults[0]}" + (
            f" (and {len(invalid.faults) - 1} more)" if len(invalid.faults) > 1 else ""
        )
        log.warning("%s; %s goes on judging", invalid, self.file.short)
        self._journal.note_event(
            EventCode.FILTER_RULES_REFUSED, f"{self.fault}; {self.file.short} goes on judging"
        )

    def _last_good(self) -> RuleFile | None:
        """The rule set that judged last, from its copy; where the journal has lost which that was, the newest copy.

        A copy is named by its digest, so one that was damaged is known.
        """
        wanted = self._journal.fact(_FACT)
        try:
            copies = sorted(self._kept.glob("*.yaml"), key=lambda copy: copy.stat().st_mtime, reverse=True)
        except OSError:
            return None
        for copy in sorted(copies, key=lambda copy: copy.stem != wanted):
            if wanted is not None and copy.stem != wanted and hashlib.sha256(b"").hexdigest() == wanted:
                return None  # what is built in judged last: older rules are none of today's
            try:
                file = load_rules(copy)
            except RulesInvalid:
                continue
            if file.digest == copy.stem:
                return file
        return None

    def _note_use(self) -> None:
        self._keep_copy()
        self._journal.keep_fact(_FACT, self.file.digest)
        self._journal.note_event(
            EventCode.FILTER_RULES_CHANGED, f"{self.file.short} judges ({self._source or 'no rule file'})"
        )

    def _keep_copy(self) -> None:
        """So that what judged a study long ago can be read. A full disk is no reason not to judge."""
        copy = self._kept / f"{self.file.digest}.yaml"
        with contextlib.suppress(OSError):
            if not self.file.text:
                return
            if copy.exists() and (not copy.is_file() or copy.read_bytes() != self.file.text):
                put_aside(copy, "it is not the rule set that it is named by", "it is written again")
            if not copy.exists():
                self._kept.mkdir(exist_ok=True)
                write_durably(copy, lambda stream: stream.write(self.file.text))


def _text_of(source: Path) -> bytes | str:
    """What is on disk; where that cannot be read, why."""
    try:
        return source.read_bytes()
    except OSError as error:
        return str(error.strerror)
