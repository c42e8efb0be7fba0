"""`outpost filter explain`: what each rule says of each instance, series and study, with the values found and wanted.

It judges as the service does, and shows what judging stops short of: every rule, also behind the one that decided.
Values that tell who the patient is are never shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outpost.codes.spoken import spoken
from outpost.filter.conditions import Headers, Seen
from outpost.filter.rulefile import RuleFile
from outpost.filter.values import Fingerprint
from outpost.filter.verdict import HeaderVerdict, Judge, Judged, series_name
from outpost.inference.codes import InputRejected
from outpost.inference.header import ImageHeader, read_header
from outpost.options import Language


@dataclass(frozen=True, slots=True)
class Answer:
    """One rule about instances that are alike, a series or the study.

    `verdict` is `met`, `excluded`, `left to pixels`, or `missing, accepted`. `decided`: this rule is what left
    them out.
    """

    rule: str
    scope: str
    where: str
    instances: int
    verdict: str
    code: str
    looks: tuple[Seen, ...]
    decided: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """One study: the verdict, and every rule's answer. `unreadable` names files that are no DICOM, and why."""

    verdict: HeaderVerdict | None
    answers: tuple[Answer, ...]
    unreadable: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        verdict = self.verdict
        return {
            "decision": verdict.decision if verdict is not None else "reject",
            "code": next(iter(verdict.left_out), "") if verdict is not None and not verdict.accepted else "",
            "instances": verdict.judged if verdict is not None else 0,
            "accepted": len(verdict.accepted) if verdict is not None else 0,
            "left_out": verdict.left_out if verdict is not None else {},
            "unreadable": list(self.unreadable),
            "rules": [
                {
                    "rule": answer.rule,
                    "scope": answer.scope,
                    "where": answer.where,
                    "instances": answer.instances,
                    "verdict": answer.verdict,
                    "code": answer.code,
                    "decided": answer.decided,
                    "looks": [
                        {"what": s.what, "wanted": s.wanted, "found": s.found, "holds": s.truth}
                        for s in answer.looks
                    ],
                }
                for answer in self.answers
            ],
        }


def explain(path: Path, rules: RuleFile) -> list[Explained]:
    """Judge a file, or every file below a folder, study by study."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    studies: dict[str, list[ImageHeader]] = defaultdict(list)
    unreadable: list[str] = []
    for file in files:
        try:
            header = read_header(file)
        except InputRejected as rejection:
            unreadable.append(rejection.message)
            continue
        studies[str(header.dataset.get("StudyInstanceUID", ""))].append(header)
    judge = Judge(rules)
    found = [_explained(judge, headers) for headers in studies.values()]
    return [*found, Explained(None, (), tuple(unreadable))] if unreadable else found


def _explained(judge: Judge, headers: Sequence[ImageHeader]) -> Explained:
    verdict = judge(headers)
    accepted = set(map(id, verdict.accepted))
    decided = {(f.rule, f.where) for f in verdict.findings if f.effect == "exclude"}
    answers: list[Answer] = []
    for one in judge.judged:
        for group in _groups(one, headers):
            truth = one.test.test(group)
            effect = one.effect(truth)
            where = "the study" if one.scope == "study" else series_name(group[0])
            answers.append(
                Answer(
                    one.name,
                    one.scope,
                    where,
                    len(group),
                    _word(effect, missing=truth is None and not one.known),
                    one.reason(truth) if effect is not None else "",
                    tuple(one.test.trace(group, descriptions=True)),
                    effect == "exclude"
                    and (one.name, where) in decided
                    and not accepted & set(map(id, group)),
                )
            )
    return Explained(verdict, tuple(answers))


def _groups(one: Judged, headers: Sequence[ImageHeader]) -> Iterator[Headers]:
    """What a rule judges together, as `Judge` does; instances that are alike for it are shown once."""
    if one.scope == "study":
        yield headers
        return
    fingerprint = Fingerprint(one.test.paths)
    groups: dict[Any, list[ImageHeader]] = defaultdict(list)
    for header in headers:
        key = header.series_instance_uid
        # A fact of an instance is measured of each: those may differ where no attribute compared here does.
        alike = (key, id(header)) if one.test.facts else fingerprint(header)
        groups[key if one.scope == "series" else alike].append(header)
    yield from groups.values()


def _word(effect: str | None, *, missing: bool) -> str:
    if effect is None:
        return "missing, accepted" if missing else "met"
    if effect == "pixels":
        return "missing, left to pixels" if missing else "left to pixels"
    return "missing, excluded" if missing else "excluded"


def text(number: int, one: Explained, language: Language = "en") -> str:
    """One study for people."""
    verdict = one.verdict
    if verdict is None:
        unread = (spoken(told, language) for told in one.unreadable)
        return "\n".join([spoken("not judged:", language), *(f"  {told}" for told in unread)])
    words = {"accept": "accepted", "reject": "REJECTED", "pixels_decide": "accepted, the pixels decide"}
    counted = ", ".join(f"{code} {count}" for code, count in verdict.left_out.items())
    left = f"{len(verdict.accepted)} of {verdict.judged} instances left" + (
        f" ({counted})" if counted else ""
    )
    lines = [spoken(f"study {number}: {words[verdict.decision]}; {left}; rules {verdict.rules}", language)]
    not_one: dict[str, list[str]] = defaultdict(list)
    for answer in one.answers:
        if answer.rule.startswith("known.") and answer.verdict == "met":
            if answer.rule not in not_one[answer.where]:
                not_one[answer.where].append(answer.rule)
            continue
        many = "" if answer.scope != "instance" else f", {answer.instances} instances"
        code = f" {answer.code}" if answer.code else ""
        line = spoken(f"  {answer.rule} ({answer.where}{many}): {answer.verdict}{code}", language)
        lines.append(spoken(f"{line}  <- decided", language) if answer.decided else line)
        shown = (
            [s for s in answer.looks if s.truth is True] if answer.rule.startswith("known.") else answer.looks
        )
        lines += [
            spoken(
                f"      {look.what}: found {look.found}, wanted {look.wanted}: {_told(look.truth)}", language
            )
            for look in shown
        ]
    for where, names in not_one.items():
        kinds = ", ".join(name.removeprefix("known.") for name in names)
        lines.append(spoken(f"  {where} is none of: {kinds}", language))
    return "\n".join(lines)


def _told(truth: bool | None) -> str:
    return {True: "holds", False: "does not hold", None: "unknown"}[truth]
