"""Every secret that comes out of the root secrets of the tests, and where one of them is found."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from outpost.controller import certificates
from outpost.derived import CENTRE_TOKEN, derived, system_tokens

# Nobody else's: a process list shows what other tests start, too.
NOW, BEFORE, FIRST = (token_hex(32) for _ in range(3))
ROOTS = {"now": NOW, "before": BEFORE, "first": FIRST}
# What an admin adds on his own.
STOW_TOKEN = "Stow4Token-of-the-hospital-9c1d"


def labels(host: str) -> list[str]:
    """Labels of all that is derived by outpost_secret for a region and the centre."""
    return [
        f"postgres/{host}/outpost_recorder",
        f"postgres/{host}/fleet_reader",
        "postgres/centre/fleet_collector",
        f"uid-key/{host}",
        CENTRE_TOKEN,
    ]


def all_secrets(hosts: Iterable[str], systems: Iterable[str], peers: Iterable[str] = ()) -> dict[str, str]:
    """What it is -> a text that must be nowhere: of each root itself, passwords, keys, tokens, private keys."""
    found: dict[str, str] = {"token of the archive": STOW_TOKEN}
    moment = datetime.now(UTC)
    for when, root in ROOTS.items():
        found[f"root secret {when}"] = root
        found[f"authority's key {when}"] = _body(certificates.authority(root).key)
        for host in hosts:
            found |= {f"{label} {when}": derived(root, label) for label in labels(host)}
            for system in systems:
                found |= {
                    f"{host}/{system}/{k} {when}": v for k, v in system_tokens(root, host, system).items()
                }
        for name in (*hosts, *(f"peer/{peer}" for peer in peers)):
            found[f"key of {name} {when}"] = _body(certificates.server(root, name, [name], moment).key)
    return found


def _body(pem: str) -> str:
    """A line of a private key's secret half, which is the same however the text is quoted.

    The first line of PKCS #8 begins with what is common to all P-256 keys; the key itself follows at once.
    """
    return pem.splitlines()[1][-16:]


def found_in(texts: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
    """One line for each secret in a text, plain or in base64; the secret itself is not repeated."""
    wanted = {
        what: (secret, base64.b64encode(secret.encode()).decode().rstrip("="))
        for what, secret in known.items()
    }
    said = [
        f"{what} in {where}"
        for where, text in texts.items()
        for what, forms in wanted.items()
        if any(f in text for f in forms)
    ]
    return said + [
        f"{mark} in {where}"
        for where, text in texts.items()
        for mark in ("PRIVATE KEY", "SCRAM-SHA-256$")
        if mark in text
    ]


def files_below(*folders: Path) -> dict[str, str]:
    return {
        str(path): path.read_text(errors="replace")
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
