"""A verdict: lines with a stable code, what was seen, what is wanted, what to do, in English and in Russian."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Language = Literal["en", "ru"]
Level = Literal["ok", "warning", "critical"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ru")


@dataclass(frozen=True, slots=True)
class Words:
    """The same said in both languages."""

    en: str
    ru: str

    def by(self, **values: object) -> Words:
        """Both with {name} replaced; a value that is Words itself takes the language's own."""

        def filled(language: Language) -> str:
            return self.said(language).format_map(
                {
                    name: value.said(language) if isinstance(value, Words) else value
                    for name, value in values.items()
                }
            )

        return Words(filled("en"), filled("ru"))

    def said(self, language: Language) -> str:
        return self.ru if language == "ru" else self.en

    def __add__(self, other: Words) -> Words:
        return Words(self.en + other.en, self.ru + other.ru)


def same(text: object) -> Words:
    """What is the same in every language: numbers, names, versions."""
    return Words(str(text), str(text))


@dataclass(frozen=True, slots=True)
class Line:
    """One judgement.

    Attributes:
        code: of the table in codes.py.
        ok: whether what was seen is what is wanted.
        subject: what of several is meant (a GPU, a path, a port, a system), the same in every language.
        remedy: what to do; left out of reports when ok.
        critical: whether it stops the host. Never so when the only ground for it is an unverified fact.
        unverified: the fact behind it is from memory or inferred by somebody; shown as such.
        source: where the fact behind it comes from; empty where the host itself was asked.
        runbook: file and section that say more.
        proves: what is true when it is ok.
    """

    code: str
    ok: bool
    value: Words
    wanted: Words
    remedy: Words
    critical: bool
    subject: str = ""
    unverified: bool = False
    source: str = ""
    runbook: Words = Words("", "")
    proves: Words = Words("", "")

    @property
    def level(self) -> Level:
        if self.ok:
            return "ok"
        return "critical" if self.critical and not self.unverified else "warning"

    def as_json(self, language: Language) -> dict[str, Any]:
        """The contract of JSON reports. `code`, `ok` and `level` are for machines, the rest for people."""
        return {
            "code": self.code,
            "ok": self.ok,
            "level": self.level,
            "subject": self.subject,
            "proves": self.proves.said(language),
            "value": self.value.said(language),
            "wanted": self.wanted.said(language),
            "remedy": "" if self.ok else self.remedy.said(language),
            "runbook": self.runbook.said(language),
            "verified": not self.unverified,
            "source": self.source,
        }


def worst(lines: Iterable[Line]) -> Level:
    """The level of a whole: its worst line's."""
    levels = {line.level for line in lines}
    return "critical" if "critical" in levels else "warning" if "warning" in levels else "ok"


def numbers(version: str) -> tuple[int, ...]:
    """A version for comparing: "580.95.05" -> (580, 95, 5).

    Raises:
        ValueError: there is something else than numbers and dots in it.
    """
    parts = version.split(".")
    if not version or not all(part.isdigit() for part in parts):
        raise ValueError(
            f"{version!r} is no version: numbers with dots between them are wanted, such as 580.95.05"
        )
    return tuple(int(part) for part in parts)


def listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items)
