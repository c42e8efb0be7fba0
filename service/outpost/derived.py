"""Secrets derived from the fleet's one root secret. Standard library only: the controller and the lab read it.

Labels of tokens: token/<host>/<system>/read|send|admin of a system's API, token/centre/read of the centre's page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from outpost.platform.ground import SECRET_LENGTH, secret_fault

SYSTEM_ROLES = ("read", "send", "admin")
CENTRE_TOKEN = "token/centre/read"  # noqa: S105 - a label


def derived(root: str, label: str, length: int = 32) -> str:
    """The secret named by label (HMAC-SHA512, base32, lower case), `length` characters of it.

    Base32 needs no quoting in a shell, YAML, SQL or a URL. Raises ValueError where the root secret is none.
    """
    fault = secret_fault(root)
    if fault is not None:
        raise ValueError(
            f"outpost_root_secret is {fault.en}; a secret of your own, {SECRET_LENGTH} characters or more, is wanted. "
            f"Make one with `openssl rand -hex 32` and keep it in ansible-vault (inventories/example/README.md)."
        )
    made = hmac.new(root.encode(), label.encode(), hashlib.sha512).digest()
    return base64.b32encode(made).decode().rstrip("=").lower()[:length]


def system_tokens(root: str, host: str, system: str) -> dict[str, str]:
    """The tokens of one system's API by role."""
    return {role: derived(root, f"token/{host}/{system}/{role}") for role in SYSTEM_ROLES}


def configured(tokens: dict[str, str], suffix: str = "") -> list[dict[str, str]]:
    """Tokens by role as a configuration file holds them: by their digests. `suffix`: of their names in logs."""
    return [
        {"name": f"fleet-{role}{suffix}", "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
        for role, token in tokens.items()
    ]
