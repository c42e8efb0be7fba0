"""The fleet's own certificate authority, derived from the root secret: same inputs, same bytes.

So there is no store of keys to keep or to lose, nothing is read from a host to issue, and a run that changes nothing
writes nothing. Whoever holds the root secret holds the authority; rotating the one (playbooks/rotate.yml) replaces the
other.

P-256 and not Ed25519: PostgreSQL cannot bind a login by SCRAM to the channel of a certificate signed so ("could not
find digest for NID"). Signatures are RFC 6979's, which take no random number.

How long: no host may lose its link because nobody ran a playbook for years, or because its battery is empty and its
clock says 1970. So all is valid from 1970 on; the authority has no end (RFC 5280, 4.1.2.5); a host's certificate is
renewed by the first run in each new span of five years, and ends ten years after that span. A lost key is answered by
rotation, not by waiting.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SPAN_YEARS = 5
SPARE_YEARS = 10
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

# Order of P-256 (SEC 2, 2.4.2).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM texts; `key` is PKCS #8 without a password."""

    certificate: str
    key: str


def end_of(moment: datetime) -> datetime:
    """Until when a certificate issued at `moment` is valid."""
    span = moment.year - moment.year % SPAN_YEARS
    return datetime(span + SPAN_YEARS + SPARE_YEARS, 1, 1, tzinfo=UTC)


def authority(root: str) -> Issued:
    """The authority of a root secret."""
    key = _key(root, "ca")
    name = _authority_name(key)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(_serial(root, "ca"))
        .not_valid_before(FIRST.replace(tzinfo=None))
        .not_valid_after(NO_END.replace(tzinfo=None))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return _issued(builder, key, key)


def server(root: str, host: str, addresses: Iterable[str], moment: datetime) -> Issued:
    """A certificate for `host` (its name in the inventory) under everything in `addresses`: IP addresses and names.

    It serves listeners and, for DICOM, the side that calls.
    """
    names = list(dict.fromkeys(str(one) for one in addresses))
    until = end_of(moment)
    label = f"server/{host}"
    ca, key = _key(root, "ca"), _key(root, label)
    described = "|".join([label, *names, until.isoformat()])
    # The common name is for people and has 64 characters at most; clients go by the names below.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_authority_name(ca))
        .public_key(key.public_key())
        .serial_number(_serial(root, described))
        .not_valid_before(FIRST.replace(tzinfo=None))
        .not_valid_after(until.replace(tzinfo=None))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
    )
    return _issued(builder, key, ca)


def trusted(*roots: str) -> str:
    """PEM of the authorities of all `roots` that are set, the newest first."""
    return "".join(authority(root).certificate for root in dict.fromkeys(roots) if root)


def _authority_name(key: ec.EllipticCurvePrivateKey) -> x509.Name:
    # The key's mark is in the name: during a rotation both authorities are trusted, and verifiers look them up by name.
    mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Outpost fleet {mark}")])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))


def _key(root: str, label: str) -> ec.EllipticCurvePrivateKey:
    # 512 bits brought into the range of keys: what one half of the keys is likelier than the other is below 2^-250.
    number = int.from_bytes(_derived(root, f"certificate-key/{label}"))
    return ec.derive_private_key(number % (_ORDER - 1) + 1, ec.SECP256R1())


def _serial(root: str, label: str) -> int:
    # RFC 5280, 4.1.2.2: positive, 20 octets at most.
    return int.from_bytes(_derived(root, f"certificate-serial/{label}")[:16]) | 1


def _derived(root: str, label: str) -> bytes:
    # The same function that every other secret of the fleet comes from (plugins/filter/outpost.py).
    return hmac.new(root.encode(), label.encode(), hashlib.sha512).digest()


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _issued(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey
) -> Issued:
    certificate = builder.sign(issuer, hashes.SHA256(), ecdsa_deterministic=True)
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )
