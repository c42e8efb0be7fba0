"""Finding the Russian of an English sentence by the sentence itself: `{}` stands for what is filled in.

Standard library only: the controller reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


class Sentences:
    """A table of sentences, English to Russian. `{}` or `{0}` in the Russian take what was filled in."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table
        self._patterns: list[tuple[str, re.Pattern[str], str]] | None = None

    def russian(self, sentence: str, filled: Callable[[str], str]) -> str | None:
        """The Russian of a sentence, its filled-in values through `filled`; None where the table has none."""
        if (exact := self.exact(sentence)) is not None:
            return exact
        for fixed, pattern, told in self._compiled():
            if fixed in sentence and (found := pattern.fullmatch(sentence)):
                return told.format(*map(filled, found.groups()))
        return None

    def exact(self, sentence: str) -> str | None:
        """The Russian of a sentence with nothing to fill in."""
        return None if "{}" in sentence else self._table.get(sentence)

    def _compiled(self) -> list[tuple[str, re.Pattern[str], str]]:
        """(its longest fixed part, the sentence as a pattern, its Russian), what is most exact first."""
        if self._patterns is None:
            found = []
            for english, told in sorted(self._table.items(), key=lambda one: -len(one[0].replace("{}", ""))):
                parts = english.split("{}")
                pattern = re.compile("(.*?)".join(map(re.escape, parts)), re.DOTALL)
                found.append((max(parts, key=len), pattern, told))
            self._patterns = found
        return self._patterns
