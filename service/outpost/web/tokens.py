"""Who may use an HTTP API: tokens with a role, of which only digests are configured.

A program sends `Authorization: Bearer TOKEN`. A person's browser asks for a name and a password (HTTP Basic): any name,
and the token as the password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from outpost.config import Token

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS: Final = 10.0
# `admin` may all that the others may.
_ALLOWED: Final = {"read": ("read", "admin"), "send": ("send", "admin"), "admin": ("admin",)}
# Wrong tokens of one address: those beyond are answered 429. The right one is always let in: somebody else behind the
# same address must not be able to lock it out, and 160 random bits are not found by guessing faster.
_WRONG_ALLOWED, _WRONG_SECONDS = 10, 60.0
_MOST_ADDRESSES: Final = 4096
_LONGEST_CREDENTIALS: Final = 1024


def new_token() -> tuple[str, str]:
    """A new random token and its SHA-256 in hex; the token itself is kept nowhere."""
    token = secrets.token_urlsafe(32)
    return token, digest(token)


def digest(token: str) -> str:
    """What the configuration holds of a token. It is random and long: a slow hash would guard nothing more."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the token's name (empty where the API is open to all) and what it may."""

    name: str
    role: str
    ambient: bool = False  # credentials that a browser adds by itself, whoever had it send the request

    def may(self, role: str) -> bool:
        """Whether it may act as `role`."""
        return self.role in _ALLOWED[role]


class Denied(Exception):
    """A request that is not let in: status, words, and headers of the answer."""

    def __init__(self, status: int, words: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.headers = status, words, headers or {}


class Guard:
    """Finds out who asks, and makes the dependencies that name a route's role: `needs("read")`."""

    def __init__(self, tokens: Sequence[Token], *, open_to_all: bool = False) -> None:
        self._tokens = tuple(tokens)
        self._open = open_to_all
        self._lock = threading.Lock()
        self._logged_at = float("-inf")
        self._unlogged = 0
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def needs(self, role: str) -> Callable[..., None]:
        """A dependency that lets in who may act as `role`: the shield has asked before, this tells the schema."""
        bearer = HTTPBearer(auto_error=False, description=f"a token with the role {role}")

        def check(
            request: Request,
            # As a default, not in Annotated: FastAPI could not look up this function's own `bearer` there.
            _credentials: HTTPAuthorizationCredentials | None = Security(bearer),  # noqa: B008
        ) -> None:
            caller = getattr(request.state, "caller", None)
            if not isinstance(caller, Caller) or not caller.may(role):  # only where no shield stands before
                raise HTTPException(403, f"{role} is needed")

        check.role = role  # type: ignore[attr-defined]  # a function may carry attributes; mypy knows none of its own
        return check

    def caller(self, authorization: str | None, address: str) -> Caller | None:
        """Who asks; None where nothing is said. Raises `Denied` where what is said is wrong."""
        if self._open:
            return Caller("", "admin")
        if authorization is None:
            return None
        presented, ambient = _presented(authorization)
        token = self._find(presented) if presented else None
        if token is None:
            self._log("unknown token")
            if self._too_many(address):
                words = "too many wrong tokens from this address: wait a minute, then send the right one"
                raise Denied(429, words, {"Retry-After": f"{_WRONG_SECONDS:.0f}"})
            raise Denied(401, "this token is not known here")
        return Caller(token.name, token.role, ambient)

    def ask(self, caller: Caller | None, role: str) -> None:
        """Raise `Denied` where this caller may not act as `role`."""
        if caller is None:
            if not self._tokens:
                words = (
                    "nobody may use this API but for its health, as no tokens are configured: `outpost token NAME ROLE`"
                    " makes one for api.tokens; the playbook site.yml sets those of the fleet"
                )
                raise Denied(401, words)
            raise Denied(401, f"a token with the role {role} is needed: send Authorization: Bearer TOKEN")
        if not caller.may(role):
            self._log(f"token {caller.name} has the role {caller.role}, {role} is needed")
            raise Denied(403, f"the token {caller.name} may {caller.role} only; {role} is needed")

    def _find(self, presented: str) -> Token | None:
        found = None
        wanted = digest(presented)
        for token in self._tokens:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(token.sha256, wanted):
                found = token
        return found

    def _too_many(self, address: str) -> bool:
        """Note a wrong token of this address; whether it had too many of late."""
        key, now = _network(address), time.monotonic()
        with self._lock:
            began, count = self._wrong.pop(key, (now, 0))
            if now - began > _WRONG_SECONDS:
                began, count = now, 0
            self._wrong[key] = began, count + 1
            if len(self._wrong) > _MOST_ADDRESSES:
                self._wrong.popitem(last=False)
            return count >= _WRONG_ALLOWED

    def _log(self, what: str) -> None:
        """One line now and then: somebody guessing must not fill the log."""
        with self._lock:
            now = time.monotonic()
            if now - self._logged_at < _LOG_EVERY_SECONDS:
                self._unlogged += 1
                return
            more, self._unlogged, self._logged_at = self._unlogged, 0, now
        log.warning("HTTP request refused: %s%s", what, f" (and {more} more)" if more else "")


def _presented(authorization: str) -> tuple[str, bool]:
    """The token in an Authorization header, empty where there is none; and whether a browser adds it by itself."""
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if len(rest) > _LONGEST_CREDENTIALS:
        return "", False
    match scheme.lower():
        case "bearer":
            return rest, False
        case "basic":
            try:
                return base64.b64decode(rest, validate=True).decode().partition(":")[2], True
            except (binascii.Error, UnicodeDecodeError):
                return "", True
    return "", False


def _network(address: str) -> str:
    """What counts as one address: of IPv6 the /64 that one peer has to itself."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known)
