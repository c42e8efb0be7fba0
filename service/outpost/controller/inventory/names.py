"""The variables that we read, with what each wants: the roles' argument_specs, docs/variables.yaml, `shapes`."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What playbooks tell each other; no inventory sets it.
_OF_PLAYBOOKS: Final = ("outpost_deploys",)
# Cyrillic letters that look Latin: typed on the wrong layout they make another name.
_LOOKALIKES: Final = str.maketrans("аеорсухіѕјАВЕКМНОРСТУХ", "aeopcyxisjABEKMHOPCTYX")


@dataclass(frozen=True, slots=True)
class Option:
    """What one variable or key wants.

    kind: str, int, float, bool, list, dict, path. elements: of a list. options: of a dict, or of a list's dicts, by
    key; None where any key goes. each: what every value of a dict wants whose keys are names of the site's own.
    """

    kind: str = "str"
    elements: str = ""
    choices: tuple[str, ...] = ()
    options: Mapping[str, Option] | None = None
    each: Option | None = None
    required: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """All variables by name, and the beginnings of names that are ours."""

    options: Mapping[str, Option] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()

    def is_ours(self, name: str) -> bool:
        return not name.startswith("ansible_") and (name in self.options or name.startswith(self.prefixes))


def known(root: Path, shapes: Mapping[str, Option]) -> Known:
    """Reads what the checkout at `root` documents; `shapes` says more of structures than the files do."""
    options = {name: Option("raw") for name in _OF_PLAYBOOKS}
    prefixes = {"outpost_", "region_"}
    for path in sorted((root / "roles").glob("*/meta/argument_specs.yml")):
        prefixes.add(f"{path.parts[-3]}_")
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)["argument_specs"]  # noqa: S506 - CSafeLoader
        for entry in entries.values():
            for name, option in entry.get("options", {}).items():
                options[name] = _option(option)
    site = yaml.load((root / "docs/variables.yaml").read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - CSafeLoader
    options |= {name: _option(option) for name, option in site.items()}
    return Known({**options, **shapes}, tuple(sorted(prefixes)))


def _option(said: Mapping[str, Any]) -> Option:
    inner = said.get("options")
    return Option(
        kind=str(said.get("type", "str")),
        elements=str(said.get("elements", "")),
        choices=tuple(map(str, said.get("choices", ()))),
        options=None if inner is None else {name: _option(option) for name, option in inner.items()},
        required=bool(said.get("required", False)),
        secret=bool(said.get("no_log", False)),
    )


def nearest(name: str, names: Collection[str], cutoff: float = 0.6) -> str:
    """The name most like this one; empty where none is. Case, hyphens and look-alike letters do not count."""
    plain = plainly(name)
    if plain in names:
        return plain
    found = difflib.get_close_matches(plain, list(names), n=1, cutoff=cutoff)
    return found[0] if found else ""


def plainly(name: str) -> str:
    """A name as it was probably meant: Latin, lower case, underscores."""
    seen = "".join(
        letter for letter in name if unicodedata.category(letter) != "Cf"
    )  # those that nobody sees
    latin = unicodedata.normalize("NFKC", seen).translate(_LOOKALIKES)
    return latin.strip().lower().replace("-", "_").replace(" ", "_")


def looks_like_ours(name: str, names: Known) -> str:
    """The variable that a name without our prefixes is surely meant to be; empty where it is the site's own.

    Sure is another case, a hyphen, letters of another alphabet, or a slip in the first word of a name that is ours to
    the letter otherwise.
    """
    plain = plainly(name)
    if plain in names.options:
        return plain
    if plain != name and plain.startswith(names.prefixes):
        return nearest(plain, names.options)
    head, _, rest = plain.partition("_")
    if not rest:
        return ""
    for prefix in ("outpost", "region", "inference", "preflight"):
        if (
            f"{prefix}_{rest}" in names.options
            and difflib.SequenceMatcher(None, head, prefix).ratio() >= 0.88
        ):
            return f"{prefix}_{rest}"
    if difflib.SequenceMatcher(None, head, "outpost").ratio() >= 0.8:
        return nearest(plain, names.options, 0.85)
    return ""
