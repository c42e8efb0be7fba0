"""The header verdict: the headers of a study and a rule set enter; what is worth computing, and why not the rest,
leave.

Order: kinds known by name and rules of single instances; then kinds and rules of series, over what is left of each;
then rules of the study. What is left out has one reason: the first. Nothing here reads pixels, and no message names
a patient.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from outpost.filter.codes import FilterCode
from outpost.filter.conditions import Headers, Seen, Test, Truth, negated, ready
from outpost.filter.rulefile import RuleFile, known_classes
from outpost.filter.rules import Missing, Scope, Unmet
from outpost.filter.values import Fingerprint
from outpost.inference.codes import InputRejected
from outpost.inference.header import ImageHeader

Decision = Literal["accept", "reject", "pixels_decide"]
Effect = Literal["exclude", "pixels"]

# Attributes that facts of a single instance are measured from.
_FACT_PATHS: Final = (
    "NumberOfFrames",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SharedFunctionalGroupsSequence",
)
_LOOKS_TOLD: Final = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that spoke about some instances.

    Attributes:
        rule: its name; that of a kind known by name begins with `known.`.
        code: the reason it counts under.
        effect: whether it leaves them out, or has the pixels decide.
        where: which series, or the study.
        instances: how many.
        detail: what was found and what is wanted, without patient data.
    """

    rule: str
    code: str
    effect: Effect
    where: str
    instances: int
    detail: str


@dataclass(frozen=True, slots=True)
class HeaderVerdict:
    """What is left of a study, and why not the rest.

    Attributes:
        decision: `pixels_decide` where something is left that a rule could not judge.
        accepted: the headers that are left, in the order they came.
        findings: every rule that spoke, in the order of judging.
        judged: how many instances there were.
        rules: digest of the rule set that judged, shortened as in messages.
    """

    decision: Decision
    accepted: tuple[ImageHeader, ...]
    findings: tuple[Finding, ...]
    judged: int
    rules: str

    @property
    def left_out(self) -> dict[str, int]:
        """Instances left out by reason code, the most first."""
        counted: Counter[str] = Counter()
        for finding in self.findings:
            if finding.effect == "exclude":
                counted[finding.code] += finding.instances
        return dict(counted.most_common())

    def require(self) -> tuple[ImageHeader, ...]:
        """What is left. Raises InputRejected, with the code of the most instances, where that is nothing."""
        if self.decision != "reject":
            return self.accepted
        left_out = self.left_out
        code = next(iter(left_out))
        told = next(f for f in self.findings if f.code == code and f.effect == "exclude")
        counted = ", ".join(f"{code} {count}" for code, count in left_out.items())
        raise InputRejected(
            code,
            f"none of {self.judged} instances is left ({counted}); {told.where}: {told.detail} "
            f"({told.rule}; rules {self.rules})",
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule, or a kind known by name, made ready.

    `wants` is the truth its condition must have for the instances to be taken.
    """

    name: str
    scope: Scope
    code: str
    test: Test
    wants: bool
    missing: Missing
    unmet: Unmet

    def effect(self, truth: Truth) -> Effect | None:
        """What follows from the truth of the condition; None where the rule is met."""
        if truth is None:
            return {"accept": None, "reject": "exclude", "pixels": "pixels"}[self.missing]
        return None if truth is self.wants else self.unmet

    def reason(self, truth: Truth) -> str:
        """The code to count under."""
        return FilterCode.ATTRIBUTE_MISSING if truth is None else self.code

    def told(self, headers: Headers, truth: Truth) -> str:
        """The looks that decided, for a message."""
        looks = [seen for seen in self.test.trace(headers, descriptions=False) if seen.truth is truth]
        return "; ".join(dict.fromkeys(self.look(seen) for seen in looks[:_LOOKS_TOLD]))

    def look(self, seen: Seen) -> str:
        """One look, with what a rule wants of it: the contrary of what it excludes by. A kind wants nothing."""
        if self.known:
            return f"{seen.what} is {seen.found}"
        return f"{seen.what} is {seen.found}, wanted: {seen.wanted if self.wants else negated(seen.wanted)}"

    @property
    def known(self) -> bool:
        """Whether this is a kind known by name."""
        return self.name.startswith("known.")


@dataclass
class _Tally:
    """Findings while they are counted: those of many instances alike become one."""

    counts: dict[tuple[int, str, Effect, str, str], int] = field(default_factory=dict)

    def add(self, number: int, code: str, effect: Effect, where: str, detail: str, instances: int) -> None:
        key = (number, code, effect, where, detail)
        self.counts[key] = self.counts.get(key, 0) + instances


class Judge:
    """A rule set made ready to judge studies; holds nothing of a study."""

    def __init__(self, file: RuleFile) -> None:
        self.file = file
        self.judged = tuple(_judged(file))
        self._of_instances = [(n, one) for n, one in enumerate(self.judged) if one.scope == "instance"]
        self._of_series = [(n, one) for n, one in enumerate(self.judged) if one.scope == "series"]
        self._of_study = [(n, one) for n, one in enumerate(self.judged) if one.scope == "study"]
        paths = {path for _, one in self._of_instances for path in one.test.paths}
        if any(one.test.facts for _, one in self._of_instances):
            paths.update(_FACT_PATHS)
        self._fingerprint = Fingerprint(paths)

    def __call__(self, headers: Sequence[ImageHeader]) -> HeaderVerdict:
        """Judge the headers of one study."""
        tally = _Tally()
        left = self._instances(headers, tally)
        series: dict[str, list[ImageHeader]] = defaultdict(list)
        for header in left:
            series[header.series_instance_uid].append(header)
        kept = {uid for uid, images in series.items() if self._passes(self._of_series, images, tally)}
        left = [header for header in left if header.series_instance_uid in kept]
        if left and not self._passes(self._of_study, left, tally, study=True):
            left = []
        findings = tuple(
            Finding(self.judged[number].name, code, effect, where, count, detail)
            for (number, code, effect, where, detail), count in sorted(
                tally.counts.items(), key=lambda entry: entry[0][0]
            )
        )
        doubted = any(finding.effect == "pixels" for finding in findings)
        decision: Decision = "reject" if not left else "pixels_decide" if doubted else "accept"
        return HeaderVerdict(decision, tuple(left), findings, len(headers), self.file.short)

    def _instances(self, headers: Sequence[ImageHeader], tally: _Tally) -> list[ImageHeader]:
        """The instances that no kind and no rule of instances leaves out; those alike are judged once."""
        alike: dict[tuple[object, ...], list[ImageHeader]] = defaultdict(list)
        for header in headers:
            alike[self._fingerprint(header)].append(header)
        out: set[int] = set()
        for group in alike.values():
            if not self._passes(self._of_instances, group[:1], tally, count=len(group)):
                out.update(map(id, group))
        return [header for header in headers if id(header) not in out] if out else list(headers)

    def _passes(
        self,
        rules: Sequence[tuple[int, Judged]],
        headers: Sequence[ImageHeader],
        tally: _Tally,
        *,
        count: int | None = None,
        study: bool = False,
    ) -> bool:
        """Whether headers judged together stay; what the rules say of them goes into the tally."""
        doubts: list[tuple[int, str, str]] = []
        where = "the study" if study else series_name(headers[0])
        for number, one in rules:
            truth = one.test.test(headers)
            effect = one.effect(truth)
            if effect is None:
                continue
            detail = one.told(headers, truth)
            if effect == "exclude":
                tally.add(number, one.reason(truth), effect, where, detail, count or len(headers))
                return False
            doubts.append((number, one.reason(truth), detail))
        for number, code, detail in doubts:
            tally.add(number, code, "pixels", where, detail, count or len(headers))
        return True


def judge_headers(headers: Sequence[ImageHeader], rules: RuleFile) -> HeaderVerdict:
    """Judge the headers of one study by a rule set."""
    return Judge(rules)(headers)


def series_name(header: ImageHeader) -> str:
    """A series as messages name it: without its UID."""
    return "series without number" if header.series_number is None else f"series {header.series_number}"


def _judged(file: RuleFile) -> Iterator[Judged]:
    rules = file.rules
    for name, kind in known_classes().items():
        if rules.known.get(name, kind.default) == "exclude":
            yield Judged(f"known.{name}", kind.scope, kind.code, ready(kind.when), False, "accept", "exclude")
    for rule in rules.rules:
        yield Judged(
            rule.name,
            rule.scope,
            rule.code,
            ready(rule.condition),
            rule.require is not None,
            rule.missing or rules.missing,
            rule.unmet,
        )
