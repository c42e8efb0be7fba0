"""What went wrong with a region, as a stable class and a sentence a duty engineer can act on.

postgres_fdw reports every failed connection as SQLSTATE 08001 and leaves the cause in libpq's text, so the
text is read too; the collector's role has lc_messages = C to keep it English. Text not recognised is passed
on as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind`: stable, for metrics and alerts. `sentence`: what failed, without a full stop."""

    kind: str
    sentence: str


class RegionFault(Exception):
    """The region answered, and the answer cannot be used."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = Fault(kind, sentence)


NO_ANSWER = "no answer from {at}: the host is off, the link is down, or a firewall drops the packets"

# (pattern in libpq's text, kind, sentence); {at} is host:port, {text} the text itself.
_CONNECT: tuple[tuple[str, str, str], ...] = (
    (r"timeout expired|timed out", "unreachable", NO_ANSWER),
    (
        r"connection refused",
        "refused",
        "{at} refuses connections: PostgreSQL is not running there, or does not listen on that address",
    ),
    (r"no route to host|network is unreachable|host is down", "unreachable", "there is no route to {at}"),
    (r"could not translate host name", "address", "the name in {at} cannot be resolved"),
    (
        r"password authentication failed|password is required|role .* does not exist",
        "login",
        "{at} does not accept the login: the password or role differs between the region and the centre;"
        " run site.yml -l {region}, then -l fleet",
    ),
    (
        r"pg_hba\.conf.*(no encryption|SSL off)",
        "tls",
        "{at} takes encrypted connections alone, and the centre asked without: run site.yml -l fleet",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "login",
        "pg_hba.conf at {at} does not let the centre in",
    ),
    (r"too many (clients|connections)|remaining connection slots", "busy", "{at} has no free connection"),
    (
        r"is starting up|is shutting down|in recovery mode|not yet accepting",
        "starting",
        "PostgreSQL at {at} is starting or stopping",
    ),
    (r"database .* does not exist", "address", "PostgreSQL at {at} has no such database"),
    (
        r"server does not support SSL",
        "tls",
        "PostgreSQL at {at} offers no encryption, as an earlier release left it: run site.yml -l {region}",
    ),
    (
        r"root certificate file .* does not exist|could not read root certificate file",
        "tls",
        "the centre lacks the authorities of the fleet ({text}): run site.yml -l fleet",
    ),
    (
        r"does not match host name|could not get server's host name",
        "tls",
        "the certificate of {at} is for another name: the region's address has changed, or another host answers;"
        " if the address is right, run site.yml -l {region} ({text})",
    ),
    (r"certificate|ssl|tls", "tls", "no trusted encrypted connection to {at} ({text})"),
)


def said_by_region(error: psycopg.Error) -> bool:
    """Whether the region's server raised it, and not the centre's."""
    return "remote SQL command" in (error.diag.context or "")


def describe(error: psycopg.Error, at: str, region: str = "REGION") -> Fault:
    """The fault behind an error met while reading `region` at `at` (host:port)."""
    state = error.sqlstate or ""
    primary = (error.diag.message_primary or str(error)).strip()
    detail = " ".join((error.diag.message_detail or "").split())
    if state == "08001":
        return _connect_fault(detail or primary, at, region)
    if state.startswith("08"):
        return Fault("cut", f"the link to {at} was cut during the transfer ({_one_line(primary)})")
    if state == "57014":
        return Fault("timeout", f"{at} answers too slowly: the read was stopped ({_one_line(primary)})")
    if state in ("57P01", "57P02", "57P03"):
        return Fault("cut", f"PostgreSQL at {at} ended the session ({_one_line(primary)})")
    remote = said_by_region(error)
    if remote and state in ("42P01", "42703", "3F000"):
        return Fault("incompatible", f"the region lacks what the contract promises ({_one_line(primary)})")
    if remote and state == "42501":
        return Fault("permission", f"fleet_reader may not read the export at {at} ({_one_line(primary)})")
    if state == "25P03":
        return Fault("timeout", f"{at} ended a session that stood idle ({_one_line(primary)})")
    return Fault("other", f"reading {at} failed: {_one_line(primary)} (SQLSTATE {state or 'none'})")


def _connect_fault(text: str, at: str, region: str) -> Fault:
    for pattern, kind, sentence in _CONNECT:
        if re.search(pattern, text, re.IGNORECASE):
            return Fault(kind, sentence.format(at=at, region=region, text=_one_line(text)))
    return Fault("connect", f"cannot connect to {at}: {_one_line(text)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
