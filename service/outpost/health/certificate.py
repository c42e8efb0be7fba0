"""From when until when a certificate is valid, read from its PEM file without a library of its own.

Only the way to the two dates is walked: Certificate -> tbsCertificate -> validity (RFC 5280, 4.1), in DER
(X.690: tag, length, contents).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_EXPLICIT_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18


@dataclass(frozen=True, slots=True)
class Validity:
    """Both moments are inside."""

    since: datetime
    until: datetime


def validities(pem: bytes) -> list[Validity]:
    """Of every certificate in a PEM file, in order; one that is broken is left out: TLS refuses it anyway."""
    found = []
    for block in _PEM.findall(pem):
        try:
            found.append(_validity(ssl.PEM_cert_to_DER_cert(block.decode("ascii"))))
        except (ValueError, IndexError):
            continue
    return found


def _validity(der: bytes) -> Validity:
    (_, certificate), *_ = _parts(der)
    (_, signed), *_ = _parts(certificate)
    fields = list(_parts(signed))
    # It comes after the version, which may be left out, the serial number, the signature and the issuer.
    validity = fields[4 if fields[0][0] == _EXPLICIT_VERSION else 3][1]
    since, until = (_time(tag, contents) for tag, contents in _parts(validity))
    return Validity(since, until)


def _time(tag: int, contents: bytes) -> datetime:
    # Two-digit years up to 49 are 20YY (RFC 5280, 4.1.2.5.1); strptime's border lies elsewhere (68).
    text = contents.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag:#x} is not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _parts(contents: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, contents) of each element in the contents of a constructed one."""
    at = 0
    while at < len(contents):
        tag, length, at = contents[at], contents[at + 1], at + 2
        if length & 0x80:  # the long form: that many bytes of length follow
            size = length & 0x7F
            length, at = int.from_bytes(contents[at : at + size]), at + size
        yield tag, contents[at : at + length]
        at += length
