"""What dnf-automatic may not move: one line of its own settings, beside what the site excludes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_SECTION: Final = re.compile(r"^\s*\[([^]]+)\]")
_KEY: Final = re.compile(r"^\s*(?:excludepkgs|exclude)\s*[=:]\s*(.*?)\s*$")
# Beginnings of names on Debian that are called otherwise here.
_NAMES: Final = {
    "linux-": ("kernel",),
    "docker": ("docker", "moby-engine"),
    "nvidia-": (
        "nvidia-",
        "kmod-nvidia",
        "akmod-nvidia",
        "dkms-nvidia",
        "xorg-x11-drv-nvidia",
        "cuda-drivers",
    ),
}


def patterns(beginnings: Sequence[str]) -> list[str]:
    """Beginnings of package names, as unattended-upgrades takes them, in dnf's words."""
    names = [name for beginning in beginnings for name in _NAMES.get(beginning, (beginning,))]
    return [f"{name.removesuffix('.*').rstrip('*')}*" for name in dict.fromkeys(names)]


def excluded(text: str, beginnings: Sequence[str]) -> str:
    """The settings with those names excluded in section [base], which overrides dnf.conf for dnf-automatic alone.

    What the site excludes stays. Several lines of one key, of which only the last counts, become one.
    """
    wanted, lines = patterns(beginnings), text.splitlines()
    section, there, at, base, keys = "", list[str](), list[int](), -1, 0
    for number, line in enumerate(lines):
        if head := _SECTION.match(line):
            section = head.group(1).strip()
            base = number if section == "base" and base < 0 else base
            continue
        found = _KEY.match(line) if section == "base" else None
        continues = at and number == at[-1] + 1 and line[:1].isspace() and line.strip()
        if found or continues:
            at.append(number)
            keys += bool(found)
            there += (found.group(1) if found else line).replace(",", " ").split()
    if set(wanted) <= set(there) and keys == 1:
        return text
    line = f"excludepkgs = {', '.join(dict.fromkeys([*there, *wanted]))}"
    if at:
        lines[at[0]] = line
        lines = [kept for number, kept in enumerate(lines) if number not in at[1:]]
    elif base >= 0:
        lines.insert(base + 1, line)
    else:
        lines += ["", "[base]", line]
    return "\n".join(lines) + "\n"
