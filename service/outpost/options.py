"""What all commands of `outpost` have in common: options, the language of texts, examples, exit statuses.

Standard library only: the controller, and a host's wrapper, read it where the service's libraries are not installed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Literal

Language = Literal["en", "ru"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ru")


class Exit(IntEnum):
    """Exit statuses of every command."""

    OK = 0
    FOUND = 1  # it was done, and what it found needs somebody; or it could not be done for what it found
    USAGE = 2  # the command line, or a configuration or other file named there, is wrong: nothing was done
    CANNOT_ASK = 3  # what had to be asked cannot be: no service, no storage, no library, no centre


EPILOG: Final = (
    "exit status: 0 ok, 1 found a problem, 2 the command or a file it names is wrong, 3 cannot ask"
)


def preferred_language(environment: Mapping[str, str] = os.environ) -> Language:
    """The language of texts for people: $OUTPOST_LANGUAGE, else that of the locale."""
    for name in ("OUTPOST_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name, ""):
            return "ru" if value.startswith("ru") else "en"
    return "en"


def examples(*lines: str) -> dict[str, Any]:
    """Arguments of `add_parser` that show examples, and the exit statuses, below the options."""
    shown = "\n".join(f"  {line}" for line in lines)
    text = f"examples:\n{shown}\n\n{EPILOG}"
    return {"epilog": text, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_config(parser: argparse.ArgumentParser, what: str = "YAML file of this system") -> None:
    """--config, by default $OUTPOST_CONFIG; required where that is not set."""
    configured = os.environ.get("OUTPOST_CONFIG")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(configured) if configured else None,
        required=not configured,
        help=f"{what} (default: $OUTPOST_CONFIG)",
    )


def add_json(parser: argparse.ArgumentParser, what: str = "print it as JSON") -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help=what)


def add_language(parser: argparse.ArgumentParser) -> None:
    """--language; its older spelling --lang works on."""
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        default=preferred_language(),
        help="of texts for people (default: $OUTPOST_LANGUAGE, else that of the locale)",
    )
    parser.add_argument(
        "--lang", dest="language", choices=LANGUAGES, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def moment(text: str) -> datetime:
    """A day (its beginning, UTC), or a moment; without an offset it is taken as UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no day or moment: write YYYY-MM-DD or YYYY-MM-DDTHH:MM, in UTC"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
