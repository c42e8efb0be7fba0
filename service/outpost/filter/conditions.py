"""Conditions made ready to judge: a `Condition` of a rule file -> something that says true, false or unknown.

`test` is what judging calls, `trace` is the same with every value found, for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.datadict import dictionary_VR

from outpost.filter.facts import FACTS, Value
from outpost.filter.rules import Condition, uid_of
from outpost.filter.values import Attribute, Values, shown, that_differ
from outpost.inference.header import ImageHeader

Truth = bool | None  # None is unknown
Headers = Sequence[ImageHeader]

_AGE_UNITS: Final = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at one attribute or fact: what it is, what was wanted, what was found, and what follows."""

    what: str
    wanted: str
    found: str
    truth: Truth


class Test:
    """A condition made ready. `paths` are the attributes it looks at, `facts` the facts."""

    paths: frozenset[str] = frozenset()
    facts: frozenset[str] = frozenset()

    def test(self, headers: Headers) -> Truth:
        """Judge the instances of a scope together: one for an instance, all for a series or a study."""
        raise NotImplementedError

    def trace(self, headers: Headers, *, descriptions: bool) -> Iterator[Seen]:
        """Every look that judging may take, none left out."""
        raise NotImplementedError


def ready(condition: Condition) -> Test:
    """Make a condition ready to judge."""
    if condition.all is not None:
        return _Several([ready(part) for part in condition.all], stops_at=False)
    if condition.any is not None:
        return _Several([ready(part) for part in condition.any], stops_at=True)
    if condition.not_ is not None:
        return _Not(ready(condition.not_))
    if condition.fact is not None:
        return _OfFact(condition)
    return _OfTag(condition)


class _Several(Test):
    """`all` (stops at what does not hold) and `any` (stops at what does)."""

    def __init__(self, parts: Sequence[Test], stops_at: bool) -> None:
        self._parts = parts
        self._stops_at = stops_at
        self.paths = frozenset().union(*(part.paths for part in parts))
        self.facts = frozenset().union(*(part.facts for part in parts))

    def test(self, headers: Headers) -> Truth:
        unknown = False
        for part in self._parts:
            truth = part.test(headers)
            if truth is self._stops_at:
                return truth
            unknown = unknown or truth is None
        return None if unknown else not self._stops_at

    def trace(self, headers: Headers, *, descriptions: bool) -> Iterator[Seen]:
        for part in self._parts:
            yield from part.trace(headers, descriptions=descriptions)


class _Not(Test):
    def __init__(self, part: Test) -> None:
        self._part = part
        self.paths, self.facts = part.paths, part.facts

    def test(self, headers: Headers) -> Truth:
        truth = self._part.test(headers)
        return None if truth is None else not truth

    def trace(self, headers: Headers, *, descriptions: bool) -> Iterator[Seen]:
        for seen in self._part.trace(headers, descriptions=descriptions):
            truth = None if seen.truth is None else not seen.truth
            yield Seen(seen.what, negated(seen.wanted), seen.found, truth)


class _OfFact(Test):
    def __init__(self, condition: Condition) -> None:
        assert condition.fact is not None
        self._name = condition.fact
        self._measure = FACTS[condition.fact].measure
        self._wanted = _wanted(condition)
        self._holds = _holds(condition, "fact")
        self.facts = frozenset({condition.fact})
        self._exists = condition.exists

    def test(self, headers: Headers) -> Truth:
        return self._truth(self._measure(headers)) if headers else None

    def _truth(self, value: Value) -> Truth:
        if self._exists is not None:
            return (value is not None) is self._exists
        return None if value is None else self._holds(value)

    def trace(self, headers: Headers, *, descriptions: bool) -> Iterator[Seen]:
        value = self._measure(headers) if headers else None
        found = "unknown" if value is None else value if isinstance(value, str) else f"{value:g}"
        yield Seen(self._name, self._wanted, found, self._truth(value))


class _OfTag(Test):
    def __init__(self, condition: Condition) -> None:
        assert condition.tag is not None
        self._attribute = Attribute(condition.tag)
        self._position = condition.value
        self._enough = all if condition.values == "all" else any
        self._over = all if condition.over == "all" else any
        self._exists = condition.exists
        self._wanted = _wanted(condition)
        self._holds = _holds(condition, dictionary_VR(condition.tag.split(".")[-1]))
        self._memory: dict[Values, Truth] = {}
        self.paths = frozenset({condition.tag})

    def test(self, headers: Headers) -> Truth:
        if len(headers) == 1:
            return self._of(self._picked(headers[0]))
        differing = that_differ(headers, self._attribute.path)
        truths = {self._of(values) for values in {self._picked(header) for header in differing}}
        if self._exists is None and len(truths) > 1:
            truths.discard(None)  # those without it count only where no other has it
        if truths <= {None}:
            return None
        return self._over(bool(truth) for truth in truths)

    def _picked(self, header: ImageHeader) -> Values:
        values = self._attribute.read(header.dataset)
        if self._position is None:
            return values
        value = values[self._position - 1 : self._position]
        return () if value == ("",) else value

    def _of(self, values: Values) -> Truth:
        if self._exists is not None:
            return bool(values) is self._exists
        if not values:
            return None
        if values not in self._memory:
            if len(self._memory) > 4096:
                self._memory.clear()
            self._memory[values] = self._compared(values)
        return self._memory[values]

    def _compared(self, values: Values) -> Truth:
        truths = [self._holds(value) for value in values]
        known = [truth for truth in truths if truth is not None]
        return self._enough(known) if known else None

    def trace(self, headers: Headers, *, descriptions: bool) -> Iterator[Seen]:
        path = self._attribute.path
        several = sorted({self._picked(header) for header in that_differ(headers, path)}, key=str)
        found = "; ".join(
            dict.fromkeys(shown(path, values, descriptions=descriptions) for values in several[:5])
        )
        name = path if self._position is None else f"{path} value {self._position}"
        yield Seen(name, self._wanted, found + ("; ..." if len(several) > 5 else ""), self.test(headers))


def negated(wanted: str) -> str:
    """The contrary of what is wanted, as a person reads it."""
    return wanted.removeprefix("not ") if wanted.startswith("not ") else f"not {wanted}"


def _wanted(condition: Condition) -> str:
    """An operator and what it was given, as a person reads it."""
    operator = condition.operator
    operand = condition.operand(operator)
    if operator == "exists":
        return "present" if operand else "absent"
    if operator == "between":
        return f"between {operand[0]:g} and {operand[1]:g}"
    if operator == "in":
        words = ", ".join(map(str, operand))
        return f"in {words if len(words) <= 60 else words[:57] + '...'}"
    number = f"{operand:g}" if isinstance(operand, float) else str(operand)
    return f"{operator.replace('_', ' ')} {number if len(number) <= 60 else number[:57] + '...'}"


def _holds(condition: Condition, kind: str) -> Callable[[Any], Truth]:
    """The comparison of one value, by its VR: None where the value is no number and one is wanted."""
    operator = condition.operator
    operand = condition.operand(operator)
    match operator:
        case "equals" | "in":
            wanted = {_comparable(word, kind) for word in (operand if operator == "in" else (operand,))}
            return lambda value: _comparable(value, kind) in wanted
        case "contains":
            part = operand.casefold()
            return lambda value: part in _text(value).casefold()
        case "matches":
            expression = re.compile(operand, re.IGNORECASE)
            return lambda value: expression.search(_text(value)) is not None
        case "at_least":
            return lambda value: _compared(value, kind, lambda number: number >= operand)
        case "at_most":
            return lambda value: _compared(value, kind, lambda number: number <= operand)
        case "more_than":
            return lambda value: _compared(value, kind, lambda number: number > operand)
        case "less_than":
            return lambda value: _compared(value, kind, lambda number: number < operand)
        case "between":
            least, greatest = operand
            return lambda value: _compared(value, kind, lambda number: least <= number <= greatest)
    return lambda value: None  # `exists`, which asks no single value


def _compared(value: Any, kind: str, compare: Callable[[float], bool]) -> Truth:
    number = _number(value, kind)
    return None if number is None else compare(number)


def _comparable(value: Any, kind: str) -> Any:
    """What two values are equal by: UIDs as they are, numbers as numbers, text whatever its case."""
    if kind == "UI":
        return uid_of(value)
    number = _number(value, "")
    return _text(value).casefold() if number is None else number


def _number(value: Any, kind: str) -> float | None:
    """A value as a number; ages (AS, such as 018M) in years."""
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    if kind == "AS":
        age = re.fullmatch(r"(\d{1,3})([DWMY])", text.upper())
        return int(age[1]) * _AGE_UNITS[age[2]] if age else None
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", text) else None


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).strip()
