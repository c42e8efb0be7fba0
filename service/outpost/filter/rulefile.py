"""A rule file: YAML on disk -> `RuleSet`, or every fault of it by line, key, reason and nearest right key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from outpost.config import UniqueKeyLoader, faults_of, yaml_fault
from outpost.filter.pixel_policy import CheckAction, PixelPolicy
from outpost.filter.rules import KnownClass, RuleSet

_BUNDLE_FILE: Final = "filter.yaml"
_KNOWN_FILE: Final = "known.yaml"
# A rule set is a page or two; a file of this size is something else.
_LARGEST_BYTES: Final = 256 * 1024


class _Loader(UniqueKeyLoader):
    """YAML 1.1 reads NO as false, 1:30 as 90 and 2026-01-01 as a date; attributes have such texts: only true and
    false are that here, numbers are decimal, and all else is text."""


# The class's own table: PyYAML's is shared by all loaders.
_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0].endswith((":null", ":merge"))]
    for first, entries in UniqueKeyLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class RulesInvalid(Exception):
    """A rule file cannot be used.

    Attributes:
        faults: each with line, key, reason and remedy.
    """

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        what = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{path}: {what}\n" + "\n".join(f"  - {fault}" for fault in faults))


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule set that may judge.

    Attributes:
        rules: what it says.
        digest: sha256 of its text, in hexadecimal; names it in the journal.
        text: as it stands in the file.
    """

    rules: RuleSet
    digest: str
    text: bytes

    @property
    def short(self) -> str:
        """The digest as it stands in messages; an empty file is what the service judges by anyway."""
        return self.digest[:12] if self.text else "built-in"


def load_rules(path: Path) -> RuleFile:
    """Read a rule file. Raises `RulesInvalid`."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise RulesInvalid(path, [f"cannot be read ({error.strerror}): name an existing file"]) from None
    return parse_rules(text, path)


def parse_rules(text: bytes, path: Path) -> RuleFile:
    """Understand the text of a rule file; `path` is for messages. Raises `RulesInvalid`."""
    if len(text) > _LARGEST_BYTES:
        raise RulesInvalid(path, [f"is larger than {_LARGEST_BYTES >> 10} KiB: this is no rule file"])
    try:
        decoded = text.decode("utf-8")
        node = yaml.compose(decoded, Loader=yaml.SafeLoader)
        content = yaml.load(decoded, Loader=_Loader)  # noqa: S506 - a SafeLoader that refuses double keys
    except UnicodeDecodeError as error:
        raise RulesInvalid(path, [f"is not UTF-8 text ({error.reason} at byte {error.start})"]) from None
    except yaml.YAMLError as error:
        raise RulesInvalid(path, [f"is not YAML: {yaml_fault(error)}"]) from None
    except RecursionError:
        raise RulesInvalid(path, ["is nested too deeply: simplify it"]) from None
    if content is None:
        content = {}  # an empty file, or nothing but comments
    if not isinstance(content, dict):
        raise RulesInvalid(
            path, [f"holds {type(content).__name__}, not keys and values: see docs/filter-rules.md"]
        )
    try:
        rules = RuleSet.model_validate(content, context={"known": tuple(known_classes())})
    except ValidationError as error:
        raise RulesInvalid(
            path, [f"line {_line(node, place)}: {told}" for place, told in faults_of(RuleSet, error)]
        ) from None
    if twice := _named_twice(rules):
        number, name = twice
        line = _line(node, ("rules", number, "name"))
        raise RulesInvalid(
            path, [f"line {line}: rules[{number}].name: another rule is called {name!r}: give each its own"]
        )
    return RuleFile(rules, hashlib.sha256(text).hexdigest(), text)


def no_rules() -> RuleFile:
    """The rule set of a bundle that ships none: kinds known by name, with their defaults."""
    return parse_rules(b"", Path("built-in"))


@cache
def open_rules() -> RuleFile:
    """Rules that leave nothing out and look at no pixels: for a study that an administrator answers for."""
    checks = [
        name
        for name, field in PixelPolicy.model_fields.items()
        if get_args(field.annotation) == get_args(CheckAction)
    ]
    content = {
        "about": "everything is taken: an administrator has overruled the filter",
        "missing": "accept",
        "known": dict.fromkeys(known_classes(), "keep"),
        # The answer is judged all the same: who reads the result was not asked, and is told.
        "pixels": dict.fromkeys(checks, "off") | {"plausible": "accept", "unsure": "accept"},
        "identity": "off",
    }
    return parse_rules(yaml.safe_dump(content).encode(), Path("skip_filter"))


def source_of(bundle: Path, configured: Path | None) -> Path | None:
    """The rule file of a system: what its configuration names, else the bundle's, else none."""
    if configured is not None:
        return configured
    shipped = bundle / _BUNDLE_FILE
    return shipped if shipped.is_file() else None


def rules_of(source: Path | None) -> RuleFile:
    """Read a rule file; without one, what is known by name is left out. Raises `RulesInvalid`."""
    return no_rules() if source is None else load_rules(source)


@cache
def known_classes() -> dict[str, KnownClass]:
    """What is known by name, in the order in which it is judged."""
    text = resources.files("outpost.filter").joinpath(_KNOWN_FILE).read_text(encoding="utf-8")
    return TypeAdapter(dict[str, KnownClass]).validate_python(yaml.load(text, Loader=_Loader))  # noqa: S506


def _named_twice(rules: RuleSet) -> tuple[int, str] | None:
    seen: set[str] = set()
    for number, rule in enumerate(rules.rules):
        if rule.name in seen:
            return number, rule.name
        seen.add(rule.name)
    return None


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    """The line, from 1, of the deepest part of a place that is in the file."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
