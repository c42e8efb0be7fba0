"""Who may use the HTTP API: bearer tokens with a role, of which only digests are configured.

Health stays open to all: load balancers, watchdogs and systemd ask it, and it names no study.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from outpost.config import Token

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 10.0
# `admin` may all that `read` may.
_ALLOWED = {"read": ("read", "admin"), "admin": ("admin",)}


def new_token() -> tuple[str, str]:
    """A new random token and its SHA-256 in hex; the token itself is kept nowhere."""
    token = secrets.token_urlsafe(32)
    return token, digest(token)


def digest(token: str) -> str:
    """What the configuration holds of a token. It has 256 random bits: a slow hash would guard nothing more."""
    return hashlib.sha256(token.encode()).hexdigest()


class Guard:
    """Makes the dependencies that routes ask: `needs("read")`, `needs("admin")`."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)
        self._lock = threading.Lock()
        self._logged_at = float("-inf")
        self._unlogged = 0

    def needs(self, role: str) -> Callable[..., None]:
        """A dependency that lets in who may act as `role`; everyone, where no tokens are configured.

        The token's name is then in `request.state.token_name`.
        """
        bearer = HTTPBearer(auto_error=False, description=f"a token with the role {role}")

        def check(
            request: Request,
            # As a default, not in Annotated: FastAPI could not look up this function's own `bearer` there.
            credentials: HTTPAuthorizationCredentials | None = Security(bearer),  # noqa: B008
        ) -> None:
            if not self._tokens:
                return
            if credentials is None:
                raise HTTPException(
                    401,
                    f"a token with the role {role} is needed: send Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )
            token = self._find(credentials.credentials)
            if token is None:
                self._log("unknown token")
                raise HTTPException(401, "this token is not known here", {"WWW-Authenticate": "Bearer"})
            if token.role not in _ALLOWED[role]:
                self._log(f"token {token.name} has the role {token.role}, {role} is needed")
                raise HTTPException(403, f"the token {token.name} may {token.role} only; {role} is needed")
            request.state.token_name = token.name

        return check

    def _find(self, presented: str) -> Token | None:
        found = None
        wanted = digest(presented)
        for token in self._tokens:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(token.sha256, wanted):
                found = token
        return found

    def _log(self, what: str) -> None:
        """One line now and then: somebody guessing must not fill the log."""
        with self._lock:
            now = time.monotonic()
            if now - self._logged_at < _LOG_EVERY_SECONDS:
                self._unlogged += 1
                return
            more, self._unlogged, self._logged_at = self._unlogged, 0, now
        log.warning("HTTP request refused: %s%s", what, f" (and {more} more)" if more else "")
