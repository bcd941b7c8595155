"""The peer certificate: from the DER that TLS verified to the identity that the Trust Framework knows.

Theory. TLS has decided about chain and dates before this runs; here the subject is read, once per connection. The
subject of a client certificate is ``C, O=<legal name>, OU=<organisation id>, CN=<client id>``. Values come from the
parsed ASN.1 structure and never from a printed name, so commas, plus signs, quotes and escapes inside a value cannot
shift its borders, and it does not matter how attributes are grouped into RDNs.

Invariants. Each of O, OU and CN is taken only if it occurs at most once: with two of them it would be a matter of
taste who the caller is, so such a subject is refused. Control characters are refused, for these values go into log
lines, headers and tokens. A missing attribute is an empty string; whether that suffices is the decision of ``trust``.
"""

import hashlib
from base64 import urlsafe_b64encode
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from hub.model.caller import Peer
from hub.model.fault import Fault, caller_fault

CERTIFICATE_LIMIT: Final = 32_768
"""Octets of the largest leaf that is read; one with an RSA-4096 key needs about 2,500."""


def x5t_s256_of(der: bytes) -> str:
    """Return the base64url SHA-256 of a certificate in DER, without padding (RFC 8705 section 3.1)."""
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def read_peer(der: bytes, *, address: str, tls_version: str) -> Peer | Fault:
    """Read who is at the other end of a connection.

    Args:
        der: The peer's leaf certificate as TLS verified it; empty when none was presented.
        address: Remote address without port.
        tls_version: As the connection reports it.

    Returns:
        The peer; without a certificate its identity is empty. Or a Fault (401 ``invalid_client``):
        ``peer.malformed`` when the bytes are not one certificate that can be read, ``peer.subject`` when
        the subject is ambiguous or holds control characters.

    Source: RFC 8705 section 3.1, RFC 5280 section 4.1.2.6, RFC 4514; hub-behaviour 2.2.
    """
    if not der:
        return Peer(address=address, tls_version=tls_version)
    if len(der) > CERTIFICATE_LIMIT:
        return _refuse("peer.malformed", f"certificate of {len(der)} octets")
    try:
        return _read(der, address, tls_version)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        return _refuse("peer.malformed", f"certificate cannot be read ({type(error).__name__})")


def _read(der: bytes, address: str, tls_version: str) -> Peer | Fault:
    certificate = x509.load_der_x509_certificate(der)
    if certificate.serial_number <= 0:
        return _refuse("peer.malformed", "serial number is not positive")
    values = [
        _single(certificate.subject, oid)
        for oid in (
            NameOID.ORGANIZATIONAL_UNIT_NAME,
            NameOID.ORGANIZATION_NAME,
            NameOID.COMMON_NAME,
        )
    ]
    organisation_id, organisation_name, client_id = values
    if organisation_id is None or organisation_name is None or client_id is None:
        return _refuse("peer.subject", "O, OU or CN occurs twice or holds control characters")
    return Peer(
        address=address,
        x5t_s256=x5t_s256_of(der),
        organisation_id=organisation_id,
        organisation_name=organisation_name,
        client_id=client_id,
        serial=f"{certificate.serial_number:x}",
        issuer=certificate.issuer.rfc4514_string(),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        tls_version=tls_version,
        certificate=der,
    )


def _single(name: x509.Name, oid: ObjectIdentifier) -> str | None:
    """Return the only value of an attribute, empty when absent, None when it must not be believed."""
    found = [attribute.value for attribute in name.get_attributes_for_oid(oid)]
    if not found:
        return ""
    value = found[0]
    if len(found) > 1 or not isinstance(value, str) or not value.isprintable():
        return None
    return value


def _refuse(check: str, private: str) -> Fault:
    return caller_fault(
        401,
        "invalid_client",
        "The client certificate cannot be used: expected one with a single O, OU and CN.",
        check=check,
        private=private,
    )
