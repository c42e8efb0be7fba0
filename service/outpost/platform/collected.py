"""A host's file of collect.yml: what was read, redacted, as one JSON file to send and to keep as a fixture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from outpost.platform.facts import ReadError, sections_of
from outpost.platform.redact import redact

FORMAT: Final = "outpost-collected/1"


class CollectedWrong(ValueError):
    """The file is no file of collect.yml; the message names file, reason and remedy."""


@dataclass(frozen=True, slots=True)
class Collected:
    """One host's sections, by name, each a list of lines."""

    host: str
    sections: Mapping[str, Sequence[str]]


def collected_json(host: str, read: str) -> str:
    """The file's content, of what collect.sh printed: every line redacted before it is written anywhere.

    Raises:
        ReadError: the answer is incomplete.
    """
    found = sections_of(read)
    if "end" not in found:
        raise ReadError(
            f"The answer of {host} broke off in its section {list(found)[-1]}; run the playbook again."
        )
    # Blocks that span lines (keys, certificates) go first: line by line they would not be known.
    sections = {
        name: [redact(line) for line in _without_blocks(lines)]
        for name, lines in found.items()
        if name != "end"
    }
    content: dict[str, Any] = {"format": FORMAT, "host": host, "sections": sections}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def load(path: Path) -> Collected:
    """Reads a file of collect.yml.

    Raises:
        CollectedWrong: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise CollectedWrong(f"{path}: {error.strerror}; name the file that collect.yml wrote") from error
    except ValueError as error:
        raise CollectedWrong(f"{path} is no JSON ({error}); send it as a file, not as pasted text") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CollectedWrong(
            f"{path} has the format {found!r}, {FORMAT!r} is wanted; run collect.yml of this release"
        )
    sections = content["sections"]
    try:
        sections_of("\n".join(f"=== {name} ===" for name in sections))
    except ReadError as error:
        raise CollectedWrong(f"{path}: {error}") from error
    return Collected(str(content["host"]), sections)


def _without_blocks(lines: Sequence[str]) -> list[str]:
    kept, inside = [], False
    for line in lines:
        if "-----BEGIN " in line or line.startswith("$ANSIBLE_VAULT"):
            inside = True
            kept.append("[redacted block]")
        if not inside:
            kept.append(line)
        if inside and ("-----END " in line or not line.strip()):
            inside = False
    return kept
