"""The collector's configuration file. Which regions exist is not in it: the table fleet.regions says so."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator

from outpost.config import AbsolutePath, DatabaseLink, Host, ListenAddress, Port, Seconds, Section, Tls, Token
from outpost.health.certificate import validities

# The region's server options end a dead link after 10 + 3 x 5 s without an answer (fleet.server_options).
DEAD_LINK_SECONDS = 25.0
# A batch is not begun with less time than this left: a timeout that fires before the dead link is noticed
# makes PostgreSQL send a cancel request over that very link, and hang in it.
BATCH_RESERVE_SECONDS = 30.0


class Centre(DatabaseLink):
    """The centre's own database, and the login of the collector in it (no superuser)."""

    host: Host = "127.0.0.1"
    port: Port = 5432
    database: str = "fleet"
    user: str = "fleet_collector"
    password: SecretStr

    @field_validator("password")
    @classmethod
    def _not_empty(cls, password: SecretStr) -> SecretStr:
        if not password.get_secret_value():
            raise ValueError("the password is empty: set the one of the role fleet_collector")
        return password


class Sync(Section):
    """How often each region is read, how long one pass may take, how many go at once, the longest pause.

    Half a minute, so that a service that stops is seen within two: a heartbeat a minute, and a reading after it.
    """

    period_seconds: Annotated[float, Field(ge=1, le=86400)] = 30
    deadline_seconds: Seconds = 60
    parallel: Annotated[int, Field(ge=1, le=64)] = 16
    backoff_max_seconds: Seconds = 900

    @field_validator("deadline_seconds")
    @classmethod
    def _longer_than_detection(cls, seconds: float) -> float:
        if seconds < BATCH_RESERVE_SECONDS + 5:
            raise ValueError(
                f"a dead link is noticed after {DEAD_LINK_SECONDS:g} s, so a pass needs longer: "
                f"set at least {BATCH_RESERVE_SECONDS + 5:g}"
            )
        return seconds


class PageTls(Tls):
    """The page's certificate. Browsers have none of their own, unless a site says so: then `ca` signs them."""

    ca: AbsolutePath = Path("/etc/outpost/tls/fleet-ca.pem")
    require_client_certificate: bool = False

    def until(self) -> datetime | None:
        """When the first of the certificates in the file ends; None where none can be read."""
        try:
            return min((one.until for one in validities(self.certificate.read_bytes())), default=None)
        except OSError:
            return None


class Api(Section):
    """Where the page, JSON and metrics are served, and to whom, as for a system's own API (`outpost.config.Api`).

    With `tls` nothing is spoken but TLS; who speaks plain HTTP there is told so and gets nothing else.
    """

    listen: ListenAddress = "0.0.0.0"  # noqa: S104 - duty engineers look from elsewhere; the firewall limits it
    port: Port = 8090
    tls: PageTls | None = None
    tokens: tuple[Token, ...] = ()
    open: bool = False
    hosts: tuple[Host, ...] = ()

    @model_validator(mode="after")
    def _open_or_not(self) -> Api:
        if self.open and self.tokens:
            raise ValueError(
                "open is true and tokens are named: tokens would close nothing, keep one of the two"
            )
        return self


class FleetConfig(Section):
    """Everything `outpost fleet` needs to know."""

    centre: Centre
    sync: Sync = Sync()
    api: Api = Api()
