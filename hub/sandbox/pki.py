"""The sandbox's certification authority: root, issuing CA, the twelve kinds of the key map, CRL and OCSP.

Theory. One folder is one PKI. It holds both CAs with their private keys, and every certificate that was issued under
a name is written where the caller wants it and reused on later runs while the sandbox clock says it is valid. All
subjects say "API Hub Sandbox": these CAs stand in no store, and a production Hub that is configured with the real
Trust Framework's bundle refuses everything they signed.

The key id of a certificate is its SHA-256 thumbprint, base64url (``x5t#S256``); that of a bare key (``SERVER ENCKEY``)
is its RFC 7638 thumbprint. Profile: hub-behaviour.md 2.1 and 2.2, trust-framework.md 2.
"""

import os
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import NameOID
from joserfc.jwk import RSAKey

from hub.model.clock import Clock
from hub.sandbox.pki_profile import (
    KEY_TYPES,
    KeyType,
    Kind,
    authority_id,
    key_usage,
    moment,
    pem_of,
    subject_of,
    transport_extensions,
    usage_of,
)
from hub.sandbox.pki_revocation import Revocation, Revocations

__all__ = [
    "KEY_TYPES",
    "Issued",
    "KeyType",
    "Kind",
    "Pki",
    "Revocation",
    "read_certificate",
    "read_key",
    "write_private",
    "x5t_s256",
]

ORGANISATION: Final = "API Hub Project"
UNIT: Final = "API Hub Sandbox Trust Framework"
LEAF_SECONDS: Final = 397 * 86_400
"""Thirteen months (trust-framework.md 2)."""
_YEAR: Final = 365 * 86_400
_PAST: Final = 86_400
"""Certificates begin a day ago, so that clocks a little behind accept them."""


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """Hold where one certificate and its key are. ``cert_path`` of a bare key is its public key in PEM."""

    kind: Kind
    cert_path: Path
    key_path: Path
    kid: str

    @property
    def key_type(self) -> KeyType:
        """Return the framework's label of the type."""
        return KEY_TYPES[self.kind]


def x5t_s256(certificate: x509.Certificate) -> str:
    """Return the base64url SHA-256 of a certificate, without padding."""
    return urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


def read_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def read_key(path: Path) -> rsa.RSAPrivateKey:
    """Read an RSA private key (PKCS#8, PEM)."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError(f"{path}: expected an RSA key")
    return key


def write_private(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    part.replace(path)


@final
class Pki:
    """Issue, revoke and vouch for certificates under one root. Made by ``Pki.open``."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        root: tuple[x509.Certificate, rsa.RSAPrivateKey],
        issuing: tuple[x509.Certificate, rsa.RSAPrivateKey],
        base: str,
    ) -> None:
        """Use ``Pki.open``."""
        self.folder = folder
        self.ca_bundle = folder / "ca.pem"
        self._clock = clock
        self._root, _ = root
        self._issuing, self._key = issuing
        self._base = base.rstrip("/")
        self._revocations = Revocations(folder / "revoked.json", clock, self._issuing, self._key)

    @classmethod
    def open(cls, folder: Path, clock: Clock, *, base: str = "") -> "Pki":
        """Open the PKI of a folder, or make one there.

        Args:
            folder: Made with mode 0700 when absent.
            clock: The sandbox's.
            base: Plain http address of CRL and OCSP (``http://localhost:8412``), written into certificates.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = _authority(folder, "root", "Root CA - G1", 15, clock.now(), None)
        issuing = _authority(folder, "issuing", "Issuing CA - G1", 10, clock.now(), root)
        bundle = b"".join(pem_of(certificate) for certificate, _ in (issuing, root))
        (folder / "ca.pem").write_bytes(bundle)
        return cls(folder, clock, root, issuing, base)

    @property
    def issuing(self) -> x509.Certificate:
        """Return the issuing CA's certificate."""
        return self._issuing

    @property
    def root(self) -> x509.Certificate:
        """Return the root's certificate."""
        return self._root

    def issue(
        self,
        kind: Kind | str,
        *,
        organisation_id: str,
        organisation_name: str,
        client_id: str = "",
        dns: Sequence[str] = (),
        folder: Path,
        name: str,
        not_before: int | None = None,
        not_after: int | None = None,
        renew: bool = False,
    ) -> Issued:
        """Return the certificate of that name in ``folder``: the stored one while it is valid, else a new one.

        Args:
            kind: Id in the key map (``C1``).
            organisation_id: Subject OU.
            organisation_name: Subject O.
            client_id: Subject CN of the client kinds; empty leaves it out.
            dns: Names besides the default ones, for the server transport kinds.
            folder: Where ``NAME.pem`` (leaf, then issuing CA) and ``NAME.key`` (mode 0600) lie.
            name: File name without ending.
            not_before: Seconds; a day ago by default.
            not_after: Seconds; in thirteen months by default.
            renew: Issue anew, with a new key, even if the stored one is valid.
        """
        kind = Kind(kind)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_path = folder / f"{name}.key"
        key = _stored_key(key_path, renew=renew)
        if kind is Kind.ENC1:
            return _bare(kind, folder / f"{name}.pub.pem", key_path, key)
        path = folder / f"{name}.pem"
        subject = subject_of(organisation_name, organisation_id, client_id)
        explicit = not_before is not None or not_after is not None
        stored = None if renew or explicit else self._usable(path, key, subject)
        if stored is None:
            now = self._clock.now()
            stored = self.certify(
                kind,
                key.public_key(),
                subject=subject,
                dns=dns,
                not_before=now - _PAST if not_before is None else not_before,
                not_after=now + LEAF_SECONDS if not_after is None else not_after,
            )
            path.write_bytes(pem_of(stored) + pem_of(self._issuing))
        return Issued(kind=kind, cert_path=path, key_path=key_path, kid=x5t_s256(stored))

    def certify(
        self,
        kind: Kind,
        public_key: rsa.RSAPublicKey,
        *,
        subject: x509.Name,
        dns: Sequence[str] = (),
        not_before: int,
        not_after: int,
    ) -> x509.Certificate:
        """Sign one leaf certificate of a kind for a public key (of ours, or of a certificate request)."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._issuing.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(not_before))
            .not_valid_after(moment(not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage_of(KEY_TYPES[kind]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(authority_id(self._key), critical=False)
        )
        for extension in self._addresses():
            builder = builder.add_extension(extension, critical=False)
        for extension in transport_extensions(KEY_TYPES[kind], dns):
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def revoke(self, serial: int, reason: str = "unspecified") -> None:
        """Revoke a certificate by its serial number; ``reason`` as RFC 5280 names it (``keyCompromise``)."""
        self._revocations.add(serial, reason)

    def restore(self, serial: int) -> None:
        """Take a revocation back (a sandbox may; a real CA may only lift ``certificateHold``)."""
        self._revocations.discard(serial)

    def revoked(self, serial: int) -> Revocation | None:
        """Return the revocation of a certificate, or None."""
        return self._revocations.get(serial)

    def crl(self, *, lifetime: int = 3600) -> bytes:
        """Return the certificate revocation list now, DER, valid for ``lifetime`` seconds."""
        return self._revocations.crl(lifetime=lifetime)

    def ocsp(self, request: bytes, *, lifetime: int = 300) -> bytes:
        """Answer an OCSP request (RFC 6960), DER in and out."""
        return self._revocations.ocsp_answer(request, lifetime=lifetime)

    def _usable(
        self, path: Path, key: rsa.RSAPrivateKey, subject: x509.Name
    ) -> x509.Certificate | None:
        """Return the stored certificate if it still is what would be issued."""
        if not path.exists():
            return None
        stored = read_certificate(path)
        now = moment(self._clock.now())
        good = (
            stored.issuer == self._issuing.subject
            and stored.subject == subject
            and stored.public_key() == key.public_key()
            and stored.not_valid_before_utc <= now < stored.not_valid_after_utc
            and self.revoked(stored.serial_number) is None
        )
        return stored if good else None

    def _addresses(self) -> list[x509.ExtensionType]:
        if not self._base:
            return []
        responder = x509.AccessDescription(
            Access.OCSP, x509.UniformResourceIdentifier(f"{self._base}/ocsp")
        )
        point = x509.DistributionPoint(
            [x509.UniformResourceIdentifier(f"{self._base}/issuer.crl")], None, None, None
        )
        return [
            x509.AuthorityInformationAccess([responder]),
            x509.CRLDistributionPoints([point]),
        ]


def _authority(
    folder: Path,
    name: str,
    common_name: str,
    years: int,
    now: int,
    parent: tuple[x509.Certificate, rsa.RSAPrivateKey] | None,
) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Load a CA of the folder, or make it: self-signed without a parent."""
    path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    key = _stored_key(key_path)
    if path.exists():
        return read_certificate(path), key
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "AE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNIT),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{UNIT} {common_name}"),
        ]
    )
    signer = key if parent is None else parent[1]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if parent is None else parent[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now - _PAST))
        .not_valid_after(moment(now + years * _YEAR))
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0), critical=True
        )
        .add_extension(key_usage("key_cert_sign", "crl_sign", "digital_signature"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_id(signer), critical=False)
        .sign(signer, hashes.SHA512())
    )
    path.write_bytes(pem_of(certificate))
    return certificate, key


def _stored_key(path: Path, *, renew: bool = False) -> rsa.RSAPrivateKey:
    """Return the key of a file, made there when absent."""
    if path.exists() and not renew:
        return read_key(path)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    write_private(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return key


def _bare(kind: Kind, path: Path, key_path: Path, key: rsa.RSAPrivateKey) -> Issued:
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path.write_bytes(pem)
    kid = RSAKey.import_key(pem.decode()).thumbprint()
    return Issued(kind=kind, cert_path=path, key_path=key_path, kid=kid)
