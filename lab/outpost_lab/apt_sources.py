"""Which Debian mirror this machine uses, so that the lab's images use the same one.

No mirror is written in the repository: behind a proxy or a site's own mirror only the machine knows which one
is right. Both formats of sources.list(5) are read: one-line and deb822.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Source:
    """One line of apt sources: where, which suite, which components."""

    uri: str
    suite: str
    components: tuple[str, ...]


def parse_one_line(text: str) -> list[Source]:
    """Sources of a `*.list` file; deb-src and disabled lines are left out."""
    sources = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] != "deb":
            continue
        words = words[1:]
        if words and words[0].startswith("["):
            while words and not words[0].endswith("]"):
                words.pop(0)
            words = words[1:]
        if len(words) >= 2:
            sources.append(Source(words[0], words[1], tuple(words[2:])))
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Sources of a `*.sources` file; stanzas with `Enabled: no` are left out."""
    sources = []
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() == "no":
            continue
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                sources.append(Source(uri, suite, tuple(stanza.get("components", "").split())))
    return sources


def _stanzas(text: str) -> list[dict[str, str]]:
    stanzas: list[dict[str, str]] = [{}]
    field = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
            field = ""
        elif line[0] in " \t" and field:
            stanzas[-1][field] += " " + line.strip()
        else:
            field, _, value = line.partition(":")
            field = field.strip().lower()
            stanzas[-1][field] = value.strip()
    return stanzas


def read_machine(root: Path = Path("/")) -> list[Source]:
    """All enabled sources of the machine whose file system begins at `root`."""
    apt = root / "etc/apt"
    sources = []
    for path in sorted([apt / "sources.list", *(apt / "sources.list.d").glob("*")]):
        if path.suffix == ".list" and path.is_file():
            sources += parse_one_line(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            sources += parse_deb822(path.read_text())
    return [Source(_resolve_mirror_list(s.uri, root), s.suite, s.components) for s in sources]


def _resolve_mirror_list(uri: str, root: Path) -> str:
    """Debian's cloud images name a file with the mirrors (`mirror+file:/etc/apt/mirrors/debian.list`)."""
    if not uri.startswith("mirror+file:"):
        return uri
    listed = root / uri[len("mirror+file:") :].lstrip("/")
    for line in listed.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            return line.split()[0]
    return uri


def sources_for(suite: str, machine_release: dict[str, str], machine: list[Source]) -> list[str]:
    """One-line sources of Debian `suite` at the machine's own mirrors.

    `machine_release` is the machine's os-release. Empty when the machine is not Debian (an Ubuntu mirror has
    no Debian in it): mmdebstrap then takes its built-in default.
    """
    if machine_release.get("ID") != "debian":
        return []
    codename = machine_release.get("VERSION_CODENAME", "")
    lines = []
    for pocket in ("", "-updates", "-security"):
        uris = [s.uri for s in machine if s.suite == codename + pocket and "main" in s.components]
        if uris:
            lines.append(f"deb [signed-by={KEYRING}] {uris[0]} {suite}{pocket} main")
    return lines if lines and lines[0].endswith(f" {suite} main") else []


def read_os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """os-release as a dictionary; quotes removed as a shell would."""
    fields = {}
    for line in path.read_text().splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            fields[key.strip()] = "".join(shlex.split(value))
    return fields
