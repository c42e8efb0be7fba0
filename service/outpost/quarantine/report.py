"""The report by sender: who sends what cannot be used, in words an admin can forward to whoever can change it.

"38 % of studies from CT2 (19 of 50): LOCALIZER ..." Nothing in it names a patient or a study.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from outpost.codes.notes import NOTES, NoteCode
from outpost.reasons import Language, explain
from outpost.records.counts import Ended, RefusedDay, ended, refused
from outpost.records.journal import Journal
from outpost.records.said import marked_by_sender

# Beyond these, senders are summed up: a report is read by a person.
MOST_SENDERS = 30
OTHERS = "*"


@dataclass(frozen=True, slots=True)
class Share:
    """How many studies (or single images) ended for one reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Sender:
    """What came from one AE title, each study once, as it ended at last; reasons most frequent first.

    `name` is empty where the sender is not known, and "*" for all that are not named.
    """

    name: str
    studies: int
    delivered: int
    rejected: int
    quarantined: int
    reasons: tuple[Share, ...]
    modalities: tuple[str, ...]
    refused_images: int
    refused_reasons: tuple[Share, ...]
    partial: int = 0  # results of the period that say they are of a part; each revision for itself
    doubtful: int = 0  # the same of doubt


@dataclass(frozen=True, slots=True)
class Day:
    """How many studies ended how on one day (UTC)."""

    day: date
    delivered: int
    rejected: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Report:
    """A period of one system, senders with the most unusable studies first."""

    system: str
    since: datetime
    until: datetime
    senders: tuple[Sender, ...]
    days: tuple[Day, ...]

    @property
    def studies(self) -> int:
        return sum(sender.studies for sender in self.senders)

    @property
    def unusable(self) -> int:
        return sum(sender.rejected + sender.quarantined for sender in self.senders)

    @property
    def partial(self) -> int:
        return sum(sender.partial for sender in self.senders)

    @property
    def doubtful(self) -> int:
        return sum(sender.doubtful for sender in self.senders)


def make_report(journal: Journal, since: datetime, until: datetime) -> Report:
    """Read the journal for the time from `since` up to, without, `until`."""
    studies, images = ended(journal, since, until), refused(journal, since, until)
    rank: Counter[str] = Counter()
    for one in studies:
        rank[one.sender] += one.studies
    for one_day in images:
        rank[one_day.sender] += 0
    named = {name for name, _ in rank.most_common(MOST_SENDERS)}
    of_sender: dict[str, list[Ended]] = defaultdict(list)
    refused_of: dict[str, list[RefusedDay]] = defaultdict(list)
    for one in studies:
        of_sender[one.sender if one.sender in named else OTHERS].append(one)
    for one_day in images:
        refused_of[one_day.sender if one_day.sender in named else OTHERS].append(one_day)
    partial: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()
    for marked in marked_by_sender(journal, since, until):
        name = marked.sender if marked.sender in named else OTHERS
        partial[name] += marked.partial
        doubtful[name] += marked.doubtful
    names = {**of_sender, **dict(refused_of), **partial}
    senders = [
        _sender(name, of_sender[name], refused_of[name], partial[name], doubtful[name]) for name in names
    ]
    senders.sort(
        key=lambda s: (
            -(s.rejected + s.quarantined),
            -(s.partial + s.doubtful),
            -s.refused_images,
            -s.studies,
            s.name,
        )
    )
    return Report(journal.system, since, until, tuple(senders), _days(studies, since, until))


def _sender(name: str, studies: list[Ended], images: list[RefusedDay], partial: int, doubtful: int) -> Sender:
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    modalities: Counter[str] = Counter()
    for one in studies:
        outcomes[one.outcome] += one.studies
        modalities[one.modality] += one.studies
        if one.outcome != "delivered":
            reasons[one.reason] += one.studies
    refused_reasons: Counter[str] = Counter()
    for one_day in images:
        refused_reasons[one_day.reason] += one_day.instances
    return Sender(
        name=name,
        studies=sum(outcomes.values()),
        delivered=outcomes["delivered"],
        rejected=outcomes["rejected"],
        quarantined=outcomes["quarantined"],
        reasons=tuple(Share(reason, n) for reason, n in reasons.most_common()),
        modalities=tuple(name for name, _ in modalities.most_common() if name),
        refused_images=sum(refused_reasons.values()),
        refused_reasons=tuple(Share(reason, n) for reason, n in refused_reasons.most_common()),
        partial=partial,
        doubtful=doubtful,
    )


def _days(studies: list[Ended], since: datetime, until: datetime) -> tuple[Day, ...]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in studies:
        counts[one.day][one.outcome] += one.studies
    first, last = since.date(), (until - timedelta(microseconds=1)).date()
    # A period may begin long before the system did.
    first = max(first, date.fromisoformat(min(counts)) - timedelta(days=1)) if studies else last
    return tuple(
        Day(day, *(counts[day.isoformat()][outcome] for outcome in ("delivered", "rejected", "quarantined")))
        for day in (first + timedelta(days=n) for n in range((last - first).days + 1))
    )


# --- in words ---


def percent(part: int, whole: int) -> str:
    """A share in whole %, never 0 % of something nor 100 % of less than all."""
    if not whole:
        return "0 %"
    share = round(100 * part / whole)
    if share == 0 and part:
        return "<1 %"
    if share == 100 and part < whole:
        return ">99 %"
    return f"{share} %"


def sender_name(name: str, language: Language) -> str:
    """How a sender is called in a sentence."""
    russian = language == "ru"
    if name == OTHERS:
        return "остальных отправителей" if russian else "all other senders"
    if not name:
        return "неизвестного отправителя" if russian else "an unknown sender"
    if name == "stow":
        return "STOW-RS (DICOMweb)"
    return name


def meaning(code: str, language: Language) -> str:
    """What a reason code means, in a sentence; a site's own code explains itself."""
    reason = explain(code)
    if reason is None:
        return "Код правила этой площадки." if language == "ru" else "A code of a rule of this site."
    return reason.meaning_ru if language == "ru" else reason.meaning


def remedy(code: str, language: Language) -> str:
    """What to do about a reason code; empty for a site's own."""
    reason = explain(code)
    if reason is None:
        return ""
    return reason.remedy_ru if language == "ru" else reason.remedy


def period(report: Report, language: Language) -> str:
    """From when till when, in UTC."""
    first, last = report.since, report.until
    if language == "ru":
        return f"{first:%d.%m.%Y %H:%M} - {last:%d.%m.%Y %H:%M} UTC"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def headline(report: Report, language: Language) -> str:
    """How much of all was no use, in a sentence."""
    share = percent(report.unusable, report.studies)
    if language == "ru":
        if not report.studies:
            return "За этот период не закончено ни одного исследования."
        said = (
            f" Неполных результатов: {report.partial}, сомнительных: {report.doubtful}."
            if report.partial or report.doubtful
            else ""
        )
        return (
            f"Без результата осталось {share} исследований ({report.unusable} из {report.studies}); "
            f"отправителей: {len(report.senders)}.{said}"
        )
    if not report.studies:
        return "No study ended in this period."
    said = (
        f" Partial results: {report.partial}, doubtful: {report.doubtful}."
        if report.partial or report.doubtful
        else ""
    )
    return (
        f"{share} of all studies ({report.unusable} of {report.studies}) gave no result; "
        f"senders: {len(report.senders)}.{said}"
    )


def sentence(sender: Sender, share: Share, language: Language) -> str:
    """ "38 % of studies from CT2 (19 of 50): LOCALIZER. Nothing but localizers ..." """
    part = percent(share.count, sender.studies)
    name = sender_name(sender.name, language)
    told = meaning(share.reason, language)
    if language == "ru":
        return f"{part} исследований от {name} ({share.count} из {sender.studies}): {share.reason}. {told}"
    return f"{part} of studies from {name} ({share.count} of {sender.studies}): {share.reason}. {told}"


def refused_sentence(sender: Sender, share: Share, language: Language) -> str:
    """The same of single images that were not taken."""
    name, told = sender_name(sender.name, language), meaning(share.reason, language)
    if language == "ru":
        return f"Отдельных снимков от {name} не принято: {share.count}, {share.reason}. {told}"
    return f"Single images from {name} not taken: {share.count}, {share.reason}. {told}"


def marked_sentences(sender: Sender, language: Language) -> list[tuple[str, str]]:
    """What results from this sender say of themselves: a sentence, and what to do; nothing where none says anything."""
    name = sender_name(sender.name, language)
    told = []
    for count, code, english, russian in (
        (sender.partial, NoteCode.STUDY_PARTIAL, "Partial results", "Неполных результатов по исследованиям"),
        (
            sender.doubtful,
            NoteCode.RESULT_DOUBTFUL,
            "Doubtful results",
            "Сомнительных результатов по исследованиям",
        ),
    ):
        note = NOTES[code]
        if count and language == "ru":
            told.append((f"{russian} от {name}: {count}. {note.meaning_ru}", note.remedy_ru))
        elif count:
            told.append((f"{english} from {name}: {count}. {note.meaning}", note.remedy))
    return told


def text(report: Report, language: Language) -> str:
    """The report as plain text, for a letter."""
    russian = language == "ru"
    title = (
        f"Что присылают в систему {report.system}: отчёт по отправителям"
        if russian
        else f"What is sent to system {report.system}: report by sending AE title"
    )
    lines = [title, period(report, language), "", headline(report, language)]
    for sender in report.senders:
        lines += ["", _line(sender, language)]
        for share in sender.reasons:
            lines.append(f"  - {sentence(sender, share, language)}")
            if advice := remedy(share.reason, language):
                lines.append(f"    {'Что делать' if russian else 'What to do'}: {advice}")
        for told, advice in marked_sentences(sender, language):
            lines += [f"  - {told}", f"    {'Что делать' if russian else 'What to do'}: {advice}"]
        for share in sender.refused_reasons:
            lines.append(f"  - {refused_sentence(sender, share, language)}")
            if advice := remedy(share.reason, language):
                lines.append(f"    {'Что делать' if russian else 'What to do'}: {advice}")
    return "\n".join([*lines, ""])


def _line(sender: Sender, language: Language) -> str:
    name = sender_name(sender.name, language)
    kinds = f" ({', '.join(sender.modalities)})" if sender.modalities else ""
    if language == "ru":
        return (
            f"От {name}{kinds}: исследований {sender.studies}; доставлено {sender.delivered}, "
            f"отклонено {sender.rejected}, в карантине {sender.quarantined}"
        )
    return (
        f"From {name}{kinds}: studies {sender.studies}; delivered {sender.delivered}, "
        f"rejected {sender.rejected}, quarantined {sender.quarantined}"
    )
