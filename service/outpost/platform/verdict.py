"""The verdict on one host as a value: all lines, their worst level, and the forms in which it leaves this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from outpost.platform.fit import Asked, fit
from outpost.platform.gpus import lookup
from outpost.platform.host import Systems, device_lines, platform_lines
from outpost.platform.line import Language, Level, Line, Words, worst

_FORMAT: Final = "outpost-verdict/1"
STATUS: Final[Mapping[Level, Words]] = {
    "ok": Words("it will run", "будет работать"),
    "warning": Words("it will run; read the warnings", "будет работать; прочтите предупреждения"),
    "critical": Words("it will not run", "работать не будет"),
}
_MARKS: Final[Mapping[Level, Words]] = {
    "ok": Words("ok  ", "ок  "),
    "warning": Words("warn", "вним"),
    "critical": Words("STOP", "СТОП"),
}
_UNVERIFIED: Final = Words("not verified", "не проверено")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was judged (`host`, and of it `facts`), for which `systems`, and the lines in the order they were judged."""

    host: str
    lines: tuple[Line, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    systems: Systems = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)

    @property
    def level(self) -> Level:
        return worst(self.lines)

    def of_system(self, name: str) -> Level:
        """The level of one system: the host's lines and those that name it; another system's do not count."""
        others = self.systems.keys() - {name}
        return worst(line for line in self.lines if line.subject not in others)

    def as_json(self, language: Language) -> dict[str, Any]:
        """The whole of it for machines and the page; `format` changes when a key changes its meaning."""
        return {
            "format": _FORMAT,
            "host": self.host,
            "language": language,
            "level": self.level,
            "status": STATUS[self.level].said(language),
            "systems": {name: self.of_system(name) for name in self.systems},
            "platform": {
                key: self.facts[key]
                for key in ("id", "release", "version", "edition", "pretty", "arch", "gpus")
                if key in self.facts
            },
            "asked": {
                "driver": self.asked.driver,
                "modules": self.asked.modules,
                "cuda": self.asked.cuda,
                "torch": self.asked.torch,
            },
            "lines": [line.as_json(language) for line in self.lines],
        }


def judge(
    host: str,
    facts: Mapping[str, Any],
    asked: Asked,
    today: date,
    *,
    systems: Systems | None = None,
    more: Iterable[Line] = (),
    key_enrolled: bool = False,
) -> Verdict:
    """Judges a host by its facts, and what is asked to run there; `more` are lines judged elsewhere (capacity).

    Raises:
        UnknownId: a GPU of the facts is no PCI id.
    """
    gpus = [lookup(gpu) for gpu in facts.get("gpus", ())]
    lines = [
        *platform_lines(facts, asked, key_enrolled=key_enrolled),
        *more,
        *device_lines(len(gpus), systems or {}),
        *fit(gpus, asked, today),
    ]
    return Verdict(host, tuple(lines), facts, systems or {}, asked)


def text(report: Mapping[str, Any], *, only_problems: bool = False) -> list[str]:
    """Renders a JSON report as lines of text: one a check, its remedy under it, the worst first.

    Args:
        report: what Verdict.as_json gave.
        only_problems: leave out what is ok.
    """
    language: Language = report["language"]
    rendered = [f"{report['host']}: {report['status']}"]
    for name, level in report["systems"].items():
        if level != "ok" or not only_problems:
            rendered.append(f"  {_MARKS[level].said(language)} {name}: {STATUS[level].said(language)}")
    for one in by_level(report["lines"]):
        if only_problems and one["ok"]:
            continue
        mark = _MARKS[one["level"]].said(language)
        unverified = "" if one["verified"] else f" ({_UNVERIFIED.said(language)})"
        of = f"{one['subject']}: " if one["subject"] and one["subject"] not in one["value"] else ""
        rendered.append(f"  {mark} [{one['code']}] {of}{one['value']}; {_wanted(one, language)}{unverified}")
        if not one["ok"]:
            rendered.append(f"         {one['remedy']} {one['runbook']}")
    return rendered


def by_level(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Lines of a JSON report, those that stop the host first, then warnings; within a level as judged."""
    order: dict[str, int] = {"critical": 0, "warning": 1, "ok": 2}
    return sorted(lines, key=lambda one: order[one["level"]])


def _wanted(one: Mapping[str, Any], language: Language) -> str:
    return Words("wanted: {w}", "нужно: {w}").by(w=one["wanted"]).said(language)
