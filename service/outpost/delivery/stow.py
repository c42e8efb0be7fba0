"""Sending results to a DICOMweb server (STOW-RS, PS3.18 10.5): proven instance by instance from its reply."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from outpost.delivery.scu import NotSent, PeerUnreachable

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 120.0
_CHUNK = 1 << 20
_OF_THE_RESULT = (400, 413, 415, 422)
_REFERENCED, _FAILED = "00081199", "00081198"
_SOP_INSTANCE, _FAILURE_REASON = "00081155", "00081197"


class StowPeer:
    """One DICOMweb server. `url` is that of its studies, such as https://pacs/dicom-web/studies."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None) -> None:
        self._url = url
        self._client = httpx.Client(
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=context if context is not None else True,
            trust_env=False,  # a proxy of the environment is not where results are to go
        )

    def store(self, files: Sequence[Path]) -> dict[Path, str | None]:
        """Send the files of one study; for each None when the server holds it, else why not.

        Raises:
            PeerUnreachable: the server does not answer, or not at all as a DICOMweb server would.
        """
        boundary = uuid.uuid4().hex
        try:
            reply = self._client.post(
                self._url,
                content=_body(files, boundary),
                headers={
                    "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                    "Accept": "application/dicom+json",
                },
            )
        except httpx.HTTPError as error:
            # The error's text may name a URL with a study in it.
            raise PeerUnreachable(
                f"the DICOMweb server cannot be reached ({type(error).__name__}): check stow_url, TLS, firewall"
            ) from None
        if reply.status_code in (401, 403):
            raise PeerUnreachable(f"the DICOMweb server answered {reply.status_code}: check stow_token")
        if reply.status_code in _OF_THE_RESULT:  # another result may fare better
            return dict.fromkeys(files, f"the DICOMweb server answered {reply.status_code}: see its log")
        if reply.status_code not in (200, 202, 409):
            raise PeerUnreachable(f"the DICOMweb server answered {reply.status_code}: see its log")
        return _verdicts(files, reply)

    def close(self) -> None:
        self._client.close()


def require_stored(verdict: str | None) -> None:
    """Raise `NotSent` with the reason when the server did not take an instance."""
    if verdict is not None:
        raise NotSent(verdict)


def _body(files: Sequence[Path], boundary: str) -> Iterator[bytes]:
    for file in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _verdicts(files: Sequence[Path], reply: httpx.Response) -> dict[Path, str | None]:
    """A reply that does not name an instance proves nothing about it."""
    body: dict[str, Any] = {}
    with suppress(ValueError):
        found = reply.json()
        body = found if isinstance(found, dict) else {}
    stored = {_value(item, _SOP_INSTANCE) for item in _items(body, _REFERENCED)}
    failed = {_value(item, _SOP_INSTANCE): _value(item, _FAILURE_REASON) for item in _items(body, _FAILED)}
    verdicts: dict[Path, str | None] = {}
    for file in files:
        uid = file.stem
        if uid in stored:
            verdicts[file] = None
        elif uid in failed:
            verdicts[file] = f"the DICOMweb server refused it, failure reason {failed[uid]}: see its log"
        else:
            verdicts[file] = f"the DICOMweb server answered {reply.status_code} without naming the instance"
    return verdicts


def _items(body: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    items = body.get(tag, {}).get("Value", []) if isinstance(body.get(tag), dict) else []
    return [item for item in items if isinstance(item, dict)]


def _value(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value", []) if isinstance(item.get(tag), dict) else []
    return str(values[0]) if values else ""
