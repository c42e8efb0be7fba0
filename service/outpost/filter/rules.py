"""The rule language: what a rule file may say. `outpost.filter.rulefile` reads one, docs/filter-rules.md explains it.

A condition is true, false or unknown, the last where an attribute it needs is missing or unreadable. Unknown goes
through all, any and not as Kleene has it, and ends at the rule's `missing`.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag, tag_for_keyword
from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # public by its documentation

from outpost.config import Section
from outpost.filter.codes import SITE_PREFIX, FilterCode
from outpost.filter.facts import FACTS
from outpost.filter.pixel_policy import PixelPolicy

Scope = Literal["instance", "series", "study"]
Missing = Literal["accept", "reject", "pixels"]
Unmet = Literal["exclude", "pixels"]
Known = Literal["exclude", "keep"]

_PIXEL_GROUP: Final = 0x7FE0
_UID_BY_KEYWORD: Final = {entry[4]: uid for uid, entry in UID_dictionary.items() if entry[4]}

# Operators of a condition on one attribute or fact, with what each wants; the order of docs/filter-rules.md.
OPERATORS: Final[dict[str, str]] = {
    "exists": "the attribute is there with a value (`true`), or is not (`false`); never unknown",
    "equals": "a value is this one",
    "in": "a value is one of these",
    "contains": "a value has this text in it",
    "matches": "the regular expression is found in a value (Python's `re.search`)",
    "at_least": "a number is this or greater",
    "at_most": "a number is this or smaller",
    "more_than": "a number is greater than this",
    "less_than": "a number is smaller than this",
    "between": "a number lies between these two, both included",
}


def _nearest(name: str, names: Any, cutoff: float = 0.6) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def _keywords(path: str) -> str:
    """Check a keyword, or keywords joined by dots that lead into sequences."""
    *sequences, last = parts = path.split(".")
    for part in parts:
        if hexadecimal := re.fullmatch(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?", part):
            word = keyword_for_tag(int("".join(hexadecimal.groups()), 16))
            raise ValueError(f"write the keyword, not the number of the tag{word and f': {word}'}")
        if part not in keyword_dict:
            raise ValueError(
                f"{part!r} is no keyword of the DICOM data dictionary{_nearest(part, keyword_dict)}"
            )
    for part in sequences:
        if dictionary_VR(part) != "SQ":
            raise ValueError(f"{part} is no sequence: nothing lies below it")
    if dictionary_VR(last) == "SQ":
        raise ValueError(f"{last} is a sequence: name an attribute in it, such as {last}.CodeValue")
    if (tag_for_keyword(parts[0]) or 0) >> 16 >= _PIXEL_GROUP:
        raise ValueError(f"{parts[0]} lies behind the header: pixels are judged by `pixels`, not by rules")
    return path


def _expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"this is not a regular expression: {error}") from None
    return pattern


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    raise ValueError("give text or a number, and put true and false in quotes")


def _code(code: str) -> str:
    if code not in FilterCode.__members__ and not re.fullmatch(SITE_PREFIX + r"[A-Z0-9_]{2,40}", code):
        near = _nearest(code.upper(), FilterCode.__members__) or "; see docs/filter-rules.md"
        raise ValueError(f"this is no reason code, and a code of your own begins with {SITE_PREFIX}{near}")
    return code


def _rule_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,60}", name):
        raise ValueError("use up to 61 of a-z, 0-9 and '-', beginning with a letter")
    return name


def _known(name: str, info: ValidationInfo) -> str:
    # The names come from known.yaml, which is read by the same loader: it hands them in.
    names = (info.context or {}).get("known", ())
    if names and name not in names:
        raise ValueError(f"no kind is known by this name ({', '.join(names)}){_nearest(name, names)}")
    return name


Keywords = Annotated[str, AfterValidator(_keywords)]
Expression = Annotated[str, AfterValidator(_expression)]
Plain = Annotated[str | int | float, BeforeValidator(_plain)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
ReasonCode = Annotated[str, AfterValidator(_code)]
KnownName = Annotated[str, AfterValidator(_known)]
RuleName = Annotated[str, AfterValidator(_rule_name)]


class Condition(Section):
    """`all`, `any` or `not` of other conditions; or one operator on a `tag` or a `fact`.

    Attributes:
        all: each of these holds.
        any: one of these holds at least.
        not_: this does not hold.
        tag: DICOM keyword, or keywords joined by dots that lead through sequences, of which any item counts.
        fact: what the filter measures itself, see `outpost.filter.facts`.
        value: look at this value of a tag alone, counted from 1.
        values: whether any value of a tag shall do, or all must.
        over: in a series or study, whether any instance shall do, or all must; those without the tag count only
            where no other has it.
    """

    model_config = ConfigDict(populate_by_name=False)

    all: Annotated[tuple[Condition, ...], Field(min_length=1)] | None = None
    any: Annotated[tuple[Condition, ...], Field(min_length=1)] | None = None
    not_: Condition | None = Field(default=None, alias="not")
    tag: Keywords | None = None
    fact: str | None = None
    value: Annotated[int, Field(ge=1, le=100)] | None = None
    values: Literal["any", "all"] = "any"
    over: Literal["any", "all"] = "all"
    exists: bool | None = None
    equals: Plain | None = None
    in_: Annotated[tuple[Plain, ...], Field(min_length=1)] | None = Field(default=None, alias="in")
    contains: Annotated[str, Field(min_length=1)] | None = None
    matches: Expression | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    more_than: Number | None = None
    less_than: Number | None = None
    between: tuple[Number, Number] | None = None

    @property
    def operator(self) -> str:
        """The one operator of a condition on a tag or a fact; empty for `all`, `any` and `not`."""
        return next((name for name in OPERATORS if self.operand(name) is not None), "")

    def operand(self, operator: str) -> Any:
        """What an operator was given; None where the condition does not use it."""
        return getattr(self, "in_" if operator == "in" else operator)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        kinds = [
            name
            for name, given in (
                ("all", self.all),
                ("any", self.any),
                ("not", self.not_),
                ("tag", self.tag),
                ("fact", self.fact),
            )
            if given is not None
        ]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            raise ValueError(f"a condition has one of all, any, not, tag and fact, here is {found}")
        operators = [name for name in OPERATORS if self.operand(name) is not None]
        if kinds[0] in ("all", "any", "not"):
            modifiers = [name for name in ("value", "values", "over") if name in self.model_fields_set]
            if operators or modifiers:
                raise ValueError(
                    f"{(operators + modifiers)[0]} beside {kinds[0]}: put it into a condition with a tag or a fact"
                )
        elif len(operators) != 1:
            found = " and ".join(operators) or "none"
            raise ValueError(f"a {kinds[0]} has one operator ({', '.join(OPERATORS)}), here is {found}")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError("between is given as [least, greatest]: exchange the two")
        if self.fact is not None:
            self._check_fact()
        if self.tag is not None and dictionary_VR(self.tag.split(".")[-1]) == "UI":
            self._check_uids()
        return self

    def _check_fact(self) -> None:
        assert self.fact is not None
        if self.fact not in FACTS:
            raise ValueError(f"{self.fact!r} is no fact ({', '.join(FACTS)}){_nearest(self.fact, FACTS)}")
        if self.value is not None or "values" in self.model_fields_set or "over" in self.model_fields_set:
            raise ValueError("a fact is one value: value, values and over are for tags")
        words = FACTS[self.fact].words
        given = (self.equals,) if self.equals is not None else self.in_ or ()
        if words and (wrong := [word for word in given if word not in words]):
            raise ValueError(
                f"{self.fact} is one of {', '.join(words)}, never {wrong[0]!r}{_nearest(str(wrong[0]), words)}"
            )

    def _check_uids(self) -> None:
        for word in (self.equals,) if self.equals is not None else self.in_ or ():
            if not re.fullmatch(r"[0-9.]+", str(word)) and word not in _UID_BY_KEYWORD:
                raise ValueError(
                    f"{word!r} is neither a UID nor the keyword of one{_nearest(str(word), _UID_BY_KEYWORD)}"
                )


def uid_of(word: Any) -> str:
    """A UID, given as itself or by its keyword such as MRImageStorage."""
    return _UID_BY_KEYWORD.get(word, str(word))


class Rule(Section):
    """One rule: what it is about, what it wants, what becomes of what does not meet it.

    Attributes:
        name: for messages; unique in the file.
        scope: what is judged: each instance, each series (of what instance rules left), or the study (of what
            is left of it).
        require: must hold.
        exclude: must not hold.
        code: reason under which is counted what the rule leaves out.
        missing: where the condition is unknown: take it, leave it out, or take it and have the pixels decide.
        unmet: where the rule is not met: leave it out, or take it and have the pixels decide.
        about: why, for people.
    """

    name: RuleName
    scope: Scope = "series"
    require: Condition | None = None
    exclude: Condition | None = None
    code: ReasonCode = FilterCode.RULE_UNMET
    missing: Missing | None = None
    unmet: Unmet = "exclude"
    about: str = ""

    @model_validator(mode="after")
    def _wants_one_thing(self) -> Self:
        if (self.require is None) == (self.exclude is None):
            raise ValueError("a rule has either require or exclude")
        check_scope(self.condition, self.scope)
        return self

    @property
    def condition(self) -> Condition:
        """What is looked at: the condition of `require` or of `exclude`."""
        condition = self.require or self.exclude
        assert condition is not None  # checked above
        return condition


class KnownClass(Section):
    """A kind of object known by name: an entry of known.yaml, never of a rule set.

    Attributes:
        code: reason under which it is counted.
        about: what it is.
        scope: whether single instances are recognised, or whole series.
        default: what becomes of it where a rule set does not say.
        when: the condition by which it is recognised; unknown is no.
    """

    code: ReasonCode
    about: str
    scope: Literal["instance", "series"] = "instance"
    default: Known = "exclude"
    when: Condition

    @model_validator(mode="after")
    def _fits_scope(self) -> Self:
        check_scope(self.when, self.scope)
        return self


def check_scope(condition: Condition, scope: Scope) -> None:
    """Raise ValueError where a condition asks for a fact that a scope does not have."""
    for part in (
        *(condition.all or ()),
        *(condition.any or ()),
        *((condition.not_,) if condition.not_ else ()),
    ):
        check_scope(part, scope)
    if condition.fact is not None and scope not in FACTS[condition.fact].scopes:
        raise ValueError(
            f"the fact {condition.fact} is known of a {' or '.join(FACTS[condition.fact].scopes)}: "
            f"scope {scope} does not have it"
        )


class RuleSet(Section):
    """A whole rule file. An empty one leaves out what is known by name to be no image, and nothing else.

    Attributes:
        about: what it is for, for people.
        missing: `missing` of the rules that do not say.
        known: what becomes of kinds known by name, where it differs from their default.
        rules: in the order in which they are judged, within each scope.
        pixels: what the pixel verdict shall do.
        identity: when images are taken for those of two patients, which ends the study in quarantine: `normal`
            knows names and ids that are written differently, `strict` knows case, spaces and character sets alone,
            `off` ends no study and notes what differs (see `outpost.filter.identity`).
    """

    about: str = ""
    missing: Missing = "pixels"
    known: dict[KnownName, Known] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    pixels: PixelPolicy = PixelPolicy()
    identity: Literal["strict", "normal", "off"] = "normal"
