"""What a code of a playbook says. Standard library only: the controller reads it."""

from __future__ import annotations

from dataclasses import dataclass

from outpost.options import Language


@dataclass(frozen=True, slots=True)
class CodeText:
    """What a code means and what to do about it, in both languages.

    The meaning of a check is what is true when it is ok. `{name}` is filled in by who says it. `remedy` is empty where
    each line of what is filled in says its own.
    """

    meaning: str
    remedy: str
    meaning_ru: str
    remedy_ru: str

    def said(self, language: Language) -> tuple[str, str]:
        """(meaning, remedy) in the language."""
        return (self.meaning_ru, self.remedy_ru) if language == "ru" else (self.meaning, self.remedy)
