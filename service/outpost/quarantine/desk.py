"""What can be asked of quarantine, as values ready for JSON: for the API's routes, and for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from outpost.codes.found import detail_ru
from outpost.config import Quarantine
from outpost.intake.assembly import Assembly
from outpost.intake.header import is_uid
from outpost.intake.spool import MIB, Spool
from outpost.quarantine import again, export, look, shelf
from outpost.quarantine.page import render
from outpost.quarantine.report import make_report, text
from outpost.reasons import Language, explain
from outpost.records.explained import explained
from outpost.records.journal import Journal
from outpost.records.readonly import Questions
from outpost.records.said import newest

Format = Literal["text", "html", "json"]


class Desk:
    """Answers from the journal and the storage. `assembly` is of the running service; None where none runs."""

    def __init__(
        self, journal: Journal, spool: Spool, assembly: Assembly | None, settings: Quarantine
    ) -> None:
        self._journal = journal
        # What is decided on what is there must see it as it is written.
        self._deciding = journal.journal if isinstance(journal, Questions) else journal
        self._spool = spool
        self._assembly = assembly
        self._settings = settings

    def listed(
        self,
        *,
        reason: str | None = None,
        sender: str | None = None,
        since: datetime | None = None,
        after: str | None = None,
        gone: bool = False,
        limit: int = 100,
    ) -> dict[str, Any]:
        """A page of items, newest first, and the `after` of the next page. Raises `NoSuchItem` for `after`."""
        items = shelf.listed(
            self._journal, reason=reason, sender=sender, since=since, after=after, gone=gone, limit=limit + 1
        )
        page = items[:limit]
        return {
            "items": [_item(item) for item in page],
            "next": page[-1].item if len(items) > limit else None,
        }

    def reasons(self) -> list[dict[str, Any]]:
        """What quarantine holds of each reason, what it may hold, and what a quota has removed."""
        found = []
        for count in shelf.by_reason(self._journal):
            quota = self._settings.of(count.reason)
            found.append(
                asdict(count)
                | {"max_items": quota.max_items, "max_bytes": quota.max_mib * MIB}
                | _explained(count.reason)
            )
        return found

    def show(self, name: str, *, identity: bool = False) -> dict[str, Any]:
        """One item, with the header of its middle image; who the patient is only where `identity` is asked for.

        Raises `NoSuchItem`.
        """
        item = shelf.find(self._journal, name)
        there = [path for _, path in shelf.files(self._journal, self._spool, item) if path is not None]
        told = _item(item) | {"images": len(there), "header": {}, "header_fault": ""}
        if there:
            try:
                told["header"] = look.header(there[len(there) // 2], identity=identity)
            except look.CannotLook as fault:
                told["header_fault"] = str(fault)
        return told

    def picture(self, name: str, image: int | None = None, *, large: bool = False) -> bytes:
        """A PNG of the middle image, or of the one of this number (from 0). Raises `NoSuchItem`, `CannotLook`."""
        item = shelf.find(self._journal, name)
        there = [path for _, path in shelf.files(self._journal, self._spool, item) if path is not None]
        number = len(there) // 2 if image is None else image
        if not 0 <= number < len(there):
            raise look.CannotLook(f"{name} has {len(there)} images here; number {number} is none of them")
        return look.picture(there[number], look.LARGE if large else look.SMALL)

    def resubmit(self, name: str, *, skip_filter: bool = False, who: str = "") -> dict[str, Any]:
        """Have `study-N`, `file-N` or the newest revision of a Study Instance UID computed again.

        Raises `NoSuchItem`, `CannotResubmit`.
        """
        if is_uid(name):
            revisions = self._deciding.revisions(name)
            if not revisions:
                raise shelf.NoSuchItem("no study with this Study Instance UID was received here")
            name = f"study-{revisions[-1].row}"
        return asdict(
            again.resubmit(
                self._deciding, self._spool, self._assembly, name, skip_filter=skip_filter, who=who
            )
        )

    def studies(
        self, *, state: str | None = None, marked: bool = False, held: bool = False, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Studies of any end, newest first; `marked`: only partial or doubtful results, `held`: only what waits."""
        found = newest(self._journal, state=state, marked=marked, held=held, limit=limit)
        return explained(self._journal, found)

    def archive(self, name: str) -> Iterator[bytes]:
        """A tar archive of an item, piece by piece. Raises `NoSuchItem`, before the first piece."""
        item = shelf.find(self._journal, name)
        return export.archive(self._journal, self._spool, item)

    def report(
        self, since: datetime, until: datetime, form: Format, language: Language
    ) -> str | dict[str, Any]:
        """What each sender sent and what became of it, for a person to read, to forward, or as data."""
        report = make_report(self._journal, since, until)
        if form == "json":
            return asdict(report)
        return text(report, language) if form == "text" else render(report, language)


def _item(item: shelf.Item) -> dict[str, Any]:
    return asdict(item) | {"detail_ru": detail_ru(item.detail)} | _explained(item.reason)


def _explained(code: str) -> dict[str, str]:
    reason = explain(code)
    return {
        "meaning": reason.meaning if reason else "",
        "remedy": reason.remedy if reason else "",
        "meaning_ru": reason.meaning_ru if reason else "",
        "remedy_ru": reason.remedy_ru if reason else "",
    }
