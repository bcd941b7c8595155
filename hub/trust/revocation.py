"""Revocation as we check it: the CRL read once per round, OCSP asked in the background for certificates in use.

Theory. Neither is asked while a request waits. The CRL's serial numbers are a set in memory; an OCSP answer is kept
until its ``nextUpdate`` and only ever adds to what is revoked. Both are believed only with the issuing CA's signature,
from the CA bundle of the configuration, and only inside their own dates.

Sources: RFC 5280 section 5, RFC 6960.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import ocsp

from hub.trust.mirror import DocumentFault, Revoked

_SKEW: Final = 300
"""Seconds that the publisher's clock may be ahead."""


class OcspAnswer(msgspec.Struct, frozen=True):
    """Hold a verified answer: revoked or not, believed until a moment in seconds, asked for at another."""

    revoked: bool
    until: int
    asked: int = 0


def read_authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """Read the CA bundle.

    Raises:
        OSError, ValueError: It cannot be read.
    """
    return tuple(x509.load_pem_x509_certificates(path.read_bytes()))


def read_crl(
    document: bytes, authorities: Sequence[x509.Certificate], now: int
) -> Revoked | DocumentFault:
    """Read a revocation list in DER (or PEM) and believe it if one of the authorities signed it and it is current.

    Args:
        document: As fetched.
        authorities: Who may have signed it.
        now: Seconds.
    """
    try:
        load = x509.load_pem_x509_crl if document[:5] == b"-----" else x509.load_der_x509_crl
        crl = load(document)
        signed = any(_signed_by(crl, authority) for authority in authorities)
        following = crl.next_update_utc
        until = int(following.timestamp()) if following is not None else 0
        begin = int(crl.last_update_utc.timestamp())
        serials = frozenset(f"{row.serial_number:x}" for row in crl)
    except (ValueError, TypeError) as error:
        return DocumentFault(f"the revocation list cannot be read ({type(error).__name__})")
    if not signed:
        return DocumentFault("the revocation list is not signed by an authority of the CA bundle")
    if until <= now or begin > now + _SKEW:
        return DocumentFault("the revocation list is out of date")
    return Revoked(serials=serials, fetched=now, next_update=until)


def _signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return (
        crl.issuer == authority.subject
        and isinstance(key, rsa.RSAPublicKey)
        and crl.is_signature_valid(key)
    )


def ask_for(certificate: bytes, authorities: Sequence[x509.Certificate]) -> bytes | None:
    """Return the OCSP request for a certificate in DER, or None where no authority of ours issued it."""
    leaf = x509.load_der_x509_certificate(certificate)
    issuer = _issuer(leaf, authorities)
    if issuer is None:
        return None
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA256())
    return builder.build().public_bytes(serialization.Encoding.DER)


def _issuer(
    leaf: x509.Certificate, authorities: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    return next((a for a in authorities if a.subject == leaf.issuer), None)


def read_ocsp(
    document: bytes, certificate: bytes, authorities: Sequence[x509.Certificate], now: int
) -> OcspAnswer | DocumentFault:
    """Read an OCSP answer about a certificate and believe it if its issuer signed it and it is current.

    Answers of delegated responders are not believed: the framework's CA answers itself.
    """
    leaf = x509.load_der_x509_certificate(certificate)
    issuer = _issuer(leaf, authorities)
    try:
        answer = ocsp.load_der_ocsp_response(document)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL or issuer is None:
            return DocumentFault(f"the responder says {answer.response_status.name}")
        if answer.serial_number != leaf.serial_number or not _answer_signed(answer, issuer):
            return DocumentFault("the OCSP answer is for another certificate or not signed")
        following = answer.next_update_utc
        until = int(following.timestamp()) if following is not None else now + _SKEW
        begin = int(answer.this_update_utc.timestamp())
        status = answer.certificate_status
    except (ValueError, TypeError) as error:
        return DocumentFault(f"the OCSP answer cannot be read ({type(error).__name__})")
    if until <= now or begin > now + _SKEW:
        return DocumentFault("the OCSP answer is out of date")
    if status is ocsp.OCSPCertStatus.UNKNOWN:
        return DocumentFault("the responder does not know the certificate")
    return OcspAnswer(status is ocsp.OCSPCertStatus.REVOKED, until, now)


def _answer_signed(answer: ocsp.OCSPResponse, issuer: x509.Certificate) -> bool:
    key, algorithm = issuer.public_key(), answer.signature_hash_algorithm
    if not isinstance(key, rsa.RSAPublicKey) or algorithm is None:
        return False
    try:
        key.verify(answer.signature, answer.tbs_response_bytes, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True
