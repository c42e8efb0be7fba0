"""Sending results to a DICOMweb server (STOW-RS, PS3.18 10.5): proven instance by instance from its reply."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydicom.filereader import read_file_meta_info

from outpost.delivery import encoding
from outpost.delivery.cause import HELD, Cause, Cure, NotSent, PeerUnreachable, status_of
from outpost.delivery.link import connection_fault, name_fault, tls_fault
from outpost.delivery.scu import require_taken

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 120.0
_CHUNK = 1 << 20
_REFERENCED, _FAILED = "00081199", "00081198"
_SOP_INSTANCE, _FAILURE_REASON, _WARNING_REASON = "00081155", "00081197", "00081196"
_BEING_STORED = 0xB00F  # not of the standard: a server of Microsoft is just taking the instance
_SYNTAX_NOT_SUPPORTED = 0xC122

# Of the whole server: status -> cause, what it says, what to do.
_OF_THE_SERVER = {
    401: (Cause.NOT_AUTHORISED, "not authenticated", "check stow_token"),
    403: (Cause.NOT_AUTHORISED, "not allowed", "let this token, or this host, store there; check stow_token"),
    404: (Cause.WRONG_ADDRESS, "nothing there", "check stow_url: the URL of its studies"),
    405: (Cause.WRONG_ADDRESS, "it takes no POST", "check stow_url: the URL of its studies"),
    407: (Cause.NOT_AUTHORISED, "a proxy asks who we are", "let this host pass the proxy"),
    408: (Cause.NO_ANSWER, "our request took too long", "see the link to it and its limits"),
    429: (Cause.BUSY, "too many requests", "we try again when it wants"),
    503: (Cause.BUSY, "not available now", "we try again when it wants; see its log if it stays"),
    507: (Cause.OUT_OF_RESOURCES, "no room", "free space there"),
}
# Of the result: another may fare better. Said by proxies, too, in passing trouble.
_OF_THE_RESULT = {
    400: (Cause.REQUEST_REFUSED, "bad request", "see its log"),
    406: (Cause.REQUEST_REFUSED, "it does not reply in DICOM JSON", "see its log"),
    413: (Cause.TOO_LARGE, "too large", "raise the limit of the server, or of the proxy before it"),
    415: (
        Cause.TRANSFER_SYNTAX_NOT_SUPPORTED,
        "media type or transfer syntax not supported",
        "have it take Explicit or Implicit VR Little Endian as application/dicom",
    ),
    422: (Cause.REQUEST_REFUSED, "it cannot process the instance", "see its log"),
}


class StowPeer:
    """One DICOMweb server. `url` is that of its studies, such as https://pacs/dicom-web/studies.

    `proxy` is the one that it is behind; the environment's is not where results are to go.
    """

    def __init__(
        self, url: str, token: str, context: ssl.SSLContext | None, proxy: str | None = None
    ) -> None:
        self._url = url
        self._with_length = False  # what the server answered 411 to went without
        self._client = httpx.Client(
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=context if context is not None else True,
            trust_env=False,
            proxy=proxy,
        )

    def store(self, file: Path) -> str:
        """Send a file; returns once the server has named it as stored, with its remark if it had one.

        Where the server does not take the file's transfer syntax, it gets the same values in another.

        Raises:
            NotSent: the server did not take it, and says why.
            PeerUnreachable: the server does not answer, or not at all as a DICOMweb server would.
        """
        meta = read_file_meta_info(file)
        own, instance = str(meta.TransferSyntaxUID), str(meta.MediaStorageSOPInstanceUID)
        for syntax in (own, *encoding.also(own)):
            try:
                return self._store(file, instance, syntax if syntax != own else None)
            except NotSent as refused:
                if refused.cause is not Cause.TRANSFER_SYNTAX_NOT_SUPPORTED:
                    raise
                last = refused
        raise last

    def _store(self, file: Path, instance: str, syntax: str | None) -> str:
        try:
            encoded = encoding.part10(file, syntax) if syntax is not None else None
        except encoding.NotEncodable as fault:
            raise NotSent(
                f"the DICOMweb server does not take the result's transfer syntax, and in {syntax} it cannot be sent "
                f"({fault}): enable it there",
                Cause.TRANSFER_SYNTAX_NOT_SUPPORTED,
                Cure.PERSON,
            ) from None
        reply = self._post(file, encoded)
        if reply.status_code == 411 and not self._with_length:
            self._with_length = True
            reply = self._post(file, encoded)
        if reply.status_code not in (200, 202, 409):
            raise _refused(reply)
        return _verdict(instance, reply)

    def _post(self, file: Path, encoded: bytes | None) -> httpx.Response:
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        if self._with_length:
            size = len(encoded) if encoded is not None else file.stat().st_size
            headers["Content-Length"] = str(len(head) + size + len(tail))
        try:
            return self._client.post(self._url, content=_body(head, file, encoded, tail), headers=headers)
        except httpx.HTTPError as error:
            raise _unreachable(error, self._url) from None

    def close(self) -> None:
        self._client.close()


def _body(head: bytes, file: Path, encoded: bytes | None, tail: bytes) -> Iterator[bytes]:
    yield head
    if encoded is not None:
        yield encoded
    else:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    yield tail


def _unreachable(error: httpx.HTTPError, url: str) -> PeerUnreachable:
    """Why there was no reply. The error's own text may hold a URL with a study in it."""
    where = urlsplit(url).netloc.rpartition("@")[2]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return tls_fault(cause, where)
        if isinstance(cause, ConnectionResetError) and isinstance(error, httpx.ConnectError):
            return tls_fault(cause, where)  # what was reset had been connected: it shook hands
        if isinstance(cause, OSError) and getattr(cause, "errno", None) is not None:
            if type(cause).__name__ == "gaierror":
                return name_fault(cause, where)
            if isinstance(error, httpx.ConnectError):
                return connection_fault(cause, where)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout):
        return connection_fault(TimeoutError(), where)
    if isinstance(error, httpx.TimeoutException):
        return PeerUnreachable(
            f"{where} has not answered the request for {_ANSWER_SECONDS:g} s: see its log and the link to it",
            Cause.NO_ANSWER,
        )
    return PeerUnreachable(
        f"{where} ended the connection without a reply ({type(error).__name__}): see its log, and check scheme and "
        "port of stow_url",
        Cause.ASSOCIATION_ABORTED,
    )


def _refused(reply: httpx.Response) -> NotSent:
    """What a status other than those of a STOW-RS reply says."""
    code = reply.status_code
    if code in _OF_THE_RESULT:
        cause, said, remedy = _OF_THE_RESULT[code]
        return NotSent(
            f"the DICOMweb server answered {code} ({said}): {remedy}", cause, Cure.PERSON_IF_REPEATED
        )
    if 300 <= code < 400:
        to = urlsplit(reply.headers.get("Location", ""))
        where = (
            f"{to.scheme}://{to.netloc.rpartition('@')[2]}{to.path}" if to.netloc else to.path or "nowhere"
        )
        return PeerUnreachable(
            f"the DICOMweb server answered {code} (moved to {where}): correct stow_url; results and tokens are sent "
            "to no address but that",
            Cause.WRONG_ADDRESS,
        )
    cause, said, remedy = _OF_THE_SERVER.get(
        code,
        (Cause.SERVER_FAULT, "a fault of the server or of a proxy before it", "see its log")
        if code >= 500
        else (Cause.REQUEST_REFUSED, "not a reply to STOW-RS", "check stow_url, and see its log"),
    )
    return PeerUnreachable(
        f"the DICOMweb server answered {code} ({said}): {remedy}", cause, retry_seconds=_retry_after(reply)
    )


def _retry_after(reply: httpx.Response) -> float | None:
    """Seconds that the server wants to be left alone for (RFC 9110 10.2.3)."""
    text = reply.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return None


def _verdict(instance: str, reply: httpx.Response) -> str:
    """The server's remark on an instance that it stored. A reply that does not name it proves nothing about it."""
    body: dict[str, Any] = {}
    with suppress(ValueError):
        found = reply.json()
        body = found if isinstance(found, dict) else {}
    for item in _items(body, _FAILED):
        if _value(item, _SOP_INSTANCE) == instance:
            return _failed(_number(item, _FAILURE_REASON))
    for item in _items(body, _REFERENCED):
        if _value(item, _SOP_INSTANCE) == instance:
            warning = _number(item, _WARNING_REASON)
            return str(status_of(warning)) if warning else ""
    raise NotSent(
        f"the DICOMweb server answered {reply.status_code} without naming the instance: that proves nothing; see its "
        "log",
        Cause.NOT_NAMED,
    )


def _failed(reason: int | None) -> str:
    """A failed instance may be one that is held; else raises `NotSent`."""
    what = f"the DICOMweb server refused the instance, failure reason {reason}"
    if reason is None:
        raise NotSent(f"{what}: see its log", Cause.UNKNOWN_STATUS)
    if reason in HELD:
        return f"0x{reason:04X} (the instance is held already)"
    if reason == _BEING_STORED:
        raise NotSent(f"{what} (it is just being stored): we ask again", Cause.BUSY)
    said = status_of(reason)
    if 0xB000 <= reason <= 0xBFFF:  # a warning among the failures
        raise NotSent(f"{what} ({said}): see its log", Cause.UNKNOWN_STATUS)
    return require_taken(said, f"STOW-RS for the instance, failure reason {reason},")


def _items(body: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    values = body[tag].get("Value") if isinstance(body.get(tag), dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _value(item: dict[str, Any], tag: str) -> str:
    values = item[tag].get("Value") if isinstance(item.get(tag), dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _number(item: dict[str, Any], tag: str) -> int | None:
    text = _value(item, tag)
    return int(text) if text.isdigit() else None
