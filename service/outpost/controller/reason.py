"""Why a task failed whose output is hidden (no_log), in words that hold no secret.

Ansible hides the whole result of such a task, the reason with it. A rescue asks here and says the reason alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

MASK: Final = "[secret]"
_LONGEST: Final = 400
# What outpost.derived makes (base32 in lower case, 32 characters), a root secret as the example makes it (hexadecimal),
# and what is longer, such as either in base64. A digest of a file goes with them, which is no loss in a reason.
_DERIVED: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:[a-z2-7]{32}|[0-9A-Fa-f]{32,}|[A-Za-z0-9]{40,}={0,2})(?![A-Za-z0-9])"
)
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# community.postgresql repeats the statement with all its arguments before the reason.
_STATEMENT: Final = re.compile(
    r"\ACannot execute SQL '.*' (?:\[.*\]|\(.*\)|\{.*\}|None): (?P<why>.*?)(?:, query list: .*)?\Z", re.DOTALL
)
_SQL: Final = re.compile(r"\ACannot execute SQL '.*': (?P<why>.*)\Z", re.DOTALL)
# A module that crashes repeats the program, with its arguments; the exception is the last line.
_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\):.*\n(?=\S)", re.DOTALL)
# PostgreSQL repeats statements in what follows its first lines.
_CONTEXT: Final = re.compile(r"\n\s*(?:CONTEXT|STATEMENT|QUERY|LINE \d+|DETAIL):.*", re.DOTALL)


def reason(result: Mapping[str, Any], secrets: Iterable[object] = ()) -> str:
    """One line for an admin: what a failed result says, of a loop what its failed items say.

    Args:
        result: ansible_failed_result of a rescue.
        secrets: values that are taken out besides everything that looks like a derived secret; those that are no text
            or empty are passed over.
    """
    items = result.get("results")
    failed = (
        [one for one in items if isinstance(one, Mapping) and one.get("failed")]
        if isinstance(items, list)
        else []
    )
    said = dict.fromkeys(_said(one, secrets) for one in failed or [result])
    return " ".join(said)


def _said(result: Mapping[str, Any], secrets: Iterable[object]) -> str:
    """What one result says, as a sentence."""
    words = [str(result[key]) for key in ("msg", "module_stderr", "stderr") if result.get(key)]
    # A traceback's last line is the exception; what is above it quotes the program.
    parts = [
        _without_statement(word) if number == 0 else word.strip().splitlines()[-1:]
        for number, word in enumerate(words)
    ]
    joined = ": ".join(" ".join(part) if isinstance(part, list) else part for part in parts)
    masked = masked_text(joined, secrets)
    line = " ".join(masked.split()) or "the task failed without a word"
    if len(line) > _LONGEST:
        line = line[:_LONGEST] + " ..."
    return line if line.endswith((".", "!", "?")) else line + "."


def _without_statement(text: str) -> str:
    found = _STATEMENT.match(text) or _SQL.match(text)
    said = "PostgreSQL refused: " + found["why"] if found else text
    return _CONTEXT.sub("", _TRACEBACK.sub("", said))


def masked_text(text: str, secrets: Iterable[object] = ()) -> str:
    """The text with every given secret, as it is and in base64, and all that looks like a derived one masked."""
    known = [one for one in secrets if isinstance(one, str) and one.strip()]
    for one in sorted(known, key=len, reverse=True):
        text = text.replace(one, MASK).replace(base64.b64encode(one.encode()).decode(), MASK)
    return _DERIVED.sub(MASK, _PEM.sub(MASK, text))
