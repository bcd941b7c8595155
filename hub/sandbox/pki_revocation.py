"""Revocation in the sandbox: the list of what is revoked, the CRL and the OCSP answers made of it."""

from pathlib import Path
from typing import final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp

from hub.model.clock import Clock
from hub.sandbox.pki_profile import authority_id, moment


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one revoked certificate: serial number in hex, moment in seconds, reason of RFC 5280."""

    serial: str
    time: int
    reason: str = "unspecified"


@final
class Revocations:
    """Keep what is revoked under one issuing CA, and sign what says so."""

    def __init__(
        self, path: Path, clock: Clock, issuing: x509.Certificate, key: rsa.RSAPrivateKey
    ) -> None:
        """Read the list of a file; an absent one is an empty list."""
        self._path = path
        self._clock = clock
        self._issuing = issuing
        self._key = key
        self._revoked = _read_revoked(path)

    def add(self, serial: int, reason: str) -> None:
        """Revoke; doing it twice changes nothing."""
        row = Revocation(
            serial=f"{serial:x}", time=self._clock.now(), reason=x509.ReasonFlags(reason).value
        )
        self._revoked.setdefault(row.serial, row)
        self._keep()

    def discard(self, serial: int) -> None:
        """Take a revocation back."""
        self._revoked.pop(f"{serial:x}", None)
        self._keep()

    def get(self, serial: int) -> Revocation | None:
        """Return the revocation of a certificate, or None."""
        return self._revoked.get(f"{serial:x}")

    def crl(self, *, lifetime: int = 3600) -> bytes:
        """Return the certificate revocation list now, DER, valid for ``lifetime`` seconds."""
        now = self._clock.now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._issuing.subject)
            .last_update(moment(now))
            .next_update(moment(now + lifetime))
            .add_extension(authority_id(self._key), critical=False)
            .add_extension(x509.CRLNumber(now), critical=False)
        )
        for row in self._revoked.values():
            builder = builder.add_revoked_certificate(_revoked_entry(row))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def ocsp_answer(self, request: bytes, *, lifetime: int = 300) -> bytes:
        """Answer an OCSP request (RFC 6960), DER in and out; a malformed or foreign one gets its error status."""
        try:
            asked = ocsp.load_der_ocsp_request(request)
            serial, algorithm = asked.serial_number, asked.hash_algorithm
            foreign = not self._is_ours(asked)
        except ValueError:
            return _ocsp_error(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        if foreign:
            return _ocsp_error(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        row = self.get(serial)
        now = self._clock.now()
        answer = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                issuer_name_hash=asked.issuer_name_hash,
                issuer_key_hash=asked.issuer_key_hash,
                serial_number=serial,
                algorithm=algorithm,
                cert_status=ocsp.OCSPCertStatus.GOOD
                if row is None
                else ocsp.OCSPCertStatus.REVOKED,
                this_update=moment(now),
                next_update=moment(now + lifetime),
                revocation_time=None if row is None else moment(row.time),
                revocation_reason=None if row is None else x509.ReasonFlags(row.reason),
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self._issuing)
            .sign(self._key, hashes.SHA256())
        )
        return answer.public_bytes(serialization.Encoding.DER)

    def _is_ours(self, asked: ocsp.OCSPRequest) -> bool:
        """Tell whether the request names our issuing CA: its name and key as the request's algorithm hashes them."""
        key = self._issuing.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.PKCS1
        )
        wanted = [asked.issuer_name_hash, asked.issuer_key_hash]
        return wanted == [
            _digest(asked.hash_algorithm, self._issuing.subject.public_bytes()),
            _digest(asked.hash_algorithm, key),
        ]

    def _keep(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(list(self._revoked.values())))
        part.replace(self._path)


def _read_revoked(path: Path) -> dict[str, Revocation]:
    if not path.exists():
        return {}
    rows = msgspec.json.decode(path.read_bytes(), type=list[Revocation])
    return {row.serial: row for row in rows}


def _revoked_entry(row: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(row.serial, 16))
        .revocation_date(moment(row.time))
    )
    reason = x509.ReasonFlags(row.reason)
    if reason is not x509.ReasonFlags.unspecified:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def _ocsp_error(status: ocsp.OCSPResponseStatus) -> bytes:
    answer = ocsp.OCSPResponseBuilder.build_unsuccessful(status)
    return answer.public_bytes(serialization.Encoding.DER)


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()
