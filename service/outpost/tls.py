"""TLS for DIMSE (PS3.15 B.9 to B.12) and HTTP: one section of the configuration, one context for each side.

TLS 1.2 is the oldest version spoken. A peer's certificate is always checked against the section's own `ca`,
never against the system's store: whom a PACS trusts is decided by the site, not by the world's authorities.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from outpost.config import Tls


class TlsUnusable(Exception):
    """The TLS files cannot be used; the text names the key, the path and the remedy."""


def server_context(tls: Tls, section: str) -> ssl.SSLContext:
    """For a listener. `section` names the configuration key in errors, such as `intake.tls`.

    With `require_client_certificate` a client without a certificate of our `ca` ends in the handshake.
    Raises `TlsUnusable`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls, section)
    context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_NONE
    return context


def client_context(tls: Tls, section: str, *, check_hostname: bool = False) -> ssl.SSLContext:
    """For calling a peer, whose certificate must be of our `ca`; we always show ours.

    `check_hostname` is for HTTP: certificates of DICOM peers name devices more often than host names.
    Raises `TlsUnusable`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, tls, section)
    context.check_hostname = check_hostname
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, tls: Tls, section: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for key in ("certificate", "key", "ca"):
        _require_readable(getattr(tls, key), f"{section}.{key}")
    try:
        # Without a password function OpenSSL would ask for one on the terminal and wait.
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except ssl.SSLError as error:
        raise TlsUnusable(
            f"{section}: {tls.certificate} and {tls.key} are not a certificate and its unencrypted key in PEM "
            f"({_reason(error)}): make them anew, or name the pair that belongs together"
        ) from None
    except ValueError:
        raise TlsUnusable(
            f"{section}.key: {tls.key} is encrypted, and nobody is there to type its password: store it "
            "without one, readable by this service alone"
        ) from None
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise TlsUnusable(
            f"{section}.ca: {tls.ca} holds no PEM certificates ({_reason(error)}): name the file with the "
            "certificates of the authorities that peers are signed by"
        ) from None


def _require_readable(path: Path, key: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsUnusable(
            f"{key}: {path} cannot be read ({error.strerror}): put the file there, readable by this service's "
            "user, or correct the path"
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: ssl.SSLError) -> str:
    return error.reason or "not PEM"
