"""Why a region's certificate is not believed: libpq says "certificate verify failed" and no more.

So the certificate is asked for once more from here, by the same authorities, and OpenSSL's own reason is
put into words. Only after a failure, and for a few seconds at most.
"""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime

from outpost.fleet.faults import Fault

ASK_SECONDS = 5.0
# PostgreSQL, "Message Formats", SSLRequest: its length and 80877103.
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")

# OpenSSL's X509_V_ERR_*.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64


def why_not_trusted(fault: Fault, at: str, region: str, authorities: str) -> Fault:
    """`fault` with the reason in words, where the certificate that `at` (host:port) shows is the reason."""
    if not authorities or "verify failed" not in fault.sentence:
        return fault
    host, _, port = at.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=authorities)
        # From Python 3.13 on the default is stricter than libpq, which is what judged.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with socket.create_connection((host, int(port)), timeout=ASK_SECONDS) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                return fault
            context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return Fault(fault.kind, _in_words(error, at, region))
    except (OSError, ValueError):
        pass  # it answered libpq and does not answer now: what libpq said stays
    return fault


def _in_words(error: ssl.SSLCertVerificationError, at: str, region: str) -> str:
    clock = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if error.verify_code == _EXPIRED:
        return (
            f"the certificate of {at} has expired by the centre's clock ({clock}): if the clock is right,"
            f" run site.yml -l {region}, which renews it"
        )
    if error.verify_code == _NOT_YET_VALID:
        return f"the certificate of {at} is not yet valid by the centre's clock ({clock}): set the centre's clock"
    if error.verify_code in (_WRONG_NAME, _WRONG_ADDRESS):
        return (
            f"the certificate of {at} is for another name: the region's address has changed, or another host answers;"
            f" if the address is right, run site.yml -l {region}"
        )
    return (
        f"the certificate of {at} is not of the fleet's authority ({error.verify_message}): the region was set up by"
        f" an earlier release or under another root secret, or another host answers; run site.yml -l {region}"
    )
