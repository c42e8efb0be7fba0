"""The desk of a running service, asked over its HTTP API; the same questions as `outpost.quarantine.desk`."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import httpx

from outpost.config import Api
from outpost.quarantine.desk import Format
from outpost.reasons import Language

# Looking at a file may wait for another one, and then take its time.
_SECONDS = 60.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call what listens there


class Refused(Exception):
    """The service does not do it, or does not answer (`answered` is false); the text says what to do."""

    def __init__(self, text: str, *, answered: bool = True) -> None:
        super().__init__(text)
        self.answered = answered


class RemoteDesk:
    """Asks the service that listens where `api` says, on this host. `token` is empty where none is needed."""

    def __init__(self, api: Api, token: str) -> None:
        host = _EVERYWHERE.get(api.listen, api.listen)
        address = f"[{host}]" if ":" in host else host
        verify: ssl.SSLContext | bool = True
        if api.tls is not None:
            # On this host the certificate itself is known: it is trusted, whoever signed it and for which name.
            context = ssl.create_default_context(cafile=str(api.tls.certificate))
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.check_hostname = False
            if api.tls.require_client_certificate:
                context.load_cert_chain(api.tls.certificate, api.tls.key)
            verify = context
        self._http = httpx.Client(
            base_url=f"{'https' if api.tls is not None else 'http'}://{address}:{api.port}",
            verify=verify,
            timeout=_SECONDS,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
        )

    def verdict(self, seconds: float) -> dict[str, Any]:
        """The service's own verdict, whether it is ready or not. Raises `Refused` where it does not say one."""
        request = self._http.build_request("GET", "/health/light", timeout=seconds)
        try:
            reply = self._http.send(request)
            found = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Refused(f"no answer in {seconds:g} s ({type(error).__name__})", answered=False) from None
        if reply.status_code not in (200, 503) or not isinstance(found, dict) or "checks" not in found:
            raise Refused(f"it answers {reply.status_code} to a request for its verdict: set OUTPOST_TOKEN")
        return found

    def listed(
        self,
        *,
        reason: str | None = None,
        sender: str | None = None,
        since: datetime | None = None,
        after: str | None = None,
        gone: bool = False,
        limit: int = 100,
    ) -> dict[str, Any]:
        """As `Desk.listed`."""
        moment = since.isoformat() if since is not None else None
        asked = {"reason": reason, "sender": sender, "since": moment, "after": after}
        given = {key: value for key, value in asked.items() if value is not None}
        found: dict[str, Any] = self._get("/quarantine", gone=gone, limit=limit, **given).json()
        return found

    def reasons(self) -> list[dict[str, Any]]:
        """As `Desk.reasons`."""
        found: list[dict[str, Any]] = self._get("/quarantine/reasons").json()
        return found

    def show(self, name: str, *, identity: bool = False) -> dict[str, Any]:
        """As `Desk.show`; identity needs a token with the role admin."""
        found: dict[str, Any] = self._get(f"/quarantine/{name}{'/identity' if identity else ''}").json()
        return found

    def picture(self, name: str, image: int | None = None, *, large: bool = False) -> bytes:
        """As `Desk.picture`; a large one needs a token with the role admin."""
        which = {} if image is None else {"image": image}
        return self._get(f"/quarantine/{name}/{'image' if large else 'thumbnail'}.png", **which).content

    def resubmit(self, name: str, *, skip_filter: bool = False) -> dict[str, Any]:
        """As `Desk.resubmit`; needs a token with the role admin."""
        place = "quarantine" if "-" in name else "studies"
        done: dict[str, Any] = self._answer(
            self._http.build_request("POST", f"/{place}/{name}/resubmit", params={"skip_filter": skip_filter})
        ).json()
        return done

    def studies(
        self, *, state: str | None = None, marked: bool = False, held: bool = False, limit: int = 100
    ) -> list[dict[str, Any]]:
        """As `Desk.studies`."""
        given = {} if state is None else {"state": state}
        found: list[dict[str, Any]] = self._get(
            "/studies", marked=marked, held=held, limit=limit, **given
        ).json()
        return found

    def ladder(self, what: Literal["status", "reset"]) -> dict[str, Any]:
        """What the service knows of rungs that fail; `reset` has it forgotten and needs the role admin."""
        if what == "reset":
            found: dict[str, Any] = self._answer(self._http.build_request("POST", "/ladder/reset")).json()
        else:
            found = self._get("/ladder").json()
        return found

    def archive(self, name: str) -> Iterator[bytes]:
        """As `Desk.archive`; needs a token with the role admin."""
        reply = self._answer(self._http.build_request("GET", f"/quarantine/{name}/export.tar"), stream=True)
        try:
            yield from reply.iter_bytes()
        except httpx.HTTPError as error:
            raise Refused(f"the archive broke off ({type(error).__name__}): export again") from None
        finally:
            reply.close()

    def report(
        self, since: datetime, until: datetime, form: Format, language: Language
    ) -> str | dict[str, Any]:
        """As `Desk.report`, in whole days."""
        reply = self._get(
            "/quarantine/report",
            days=max(1, round((until - since).total_seconds() / 86400)),
            until=until.isoformat(),
            format=form,
            language=language,
        )
        if form != "json":
            return reply.text
        found: dict[str, Any] = reply.json()
        return found

    def _get(self, path: str, **asked: str | int | bool) -> httpx.Response:
        return self._answer(self._http.build_request("GET", path, params=asked))

    def _answer(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            reply = self._http.send(request, stream=stream)
            if reply.is_success:
                return reply
            reply.read()
        except httpx.HTTPError as error:
            raise Refused(
                f"the service holds the storage but does not answer at {self._http.base_url} "
                f"({type(error).__name__}): is it starting? try again, or see its log",
                answered=False,
            ) from None
        try:
            detail = reply.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = reply.text[:200]
        more = ": set OUTPOST_TOKEN to one" if reply.status_code == 401 else ""
        raise Refused(
            f"{detail if isinstance(detail, str) else f'the service says {reply.status_code}'}{more}"
        )
