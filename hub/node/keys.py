"""Our private keys, read from PEM or PKCS#12 files; a key id is its certificate's thumbprint, as the Trust Framework has it."""

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from cryptography.x509 import Certificate

from hub.node.errors import StartError
from hub.protocol.jose import PrivateKey, public_jwk, thumbprint

PKCS12: Final = frozenset({".p12", ".pfx"})
_VALIDATED_MOST: Final = 64
_validated: Final[set[bytes]] = set()
"""Digests of PEM files whose key this process has validated: that takes 35 ms for an RSA key, and a start reads each file thrice."""

_Key = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
KINDS: Final[dict[str, Callable[[], _Key]]] = {
    "PS256": lambda: rsa.generate_private_key(65537, 3072),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate,
}
"""How a new key for each algorithm is made."""


def new_signing_key(path: Path, alg: str) -> PrivateKey:
    """Make a key of its owner's only, and return it as ``load_signing_key`` would.

    Args:
        path: A new file; an existing one is never written over.
        alg: One of ``KINDS``.

    Raises:
        StartError: The file is there already, or cannot be written.
    """
    octets = KINDS[alg]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        _fill(number, path, octets)
    except OSError as error:
        raise StartError(f"{path}: cannot be written: {error.strerror}") from None
    return load_signing_key(path)


def _fill(number: int, path: Path, octets: bytes) -> None:
    """Write the file just made, whole or not at all."""
    try:
        with open(number, "wb") as file:
            file.write(octets)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def load_signing_key(path: Path, password: Path | None = None) -> PrivateKey:
    """Read one private key; ``password`` is the file with the password of encrypted ones.

    The ``kid`` is the S256 thumbprint of the key's certificate, looked for in the same file and in the file beside it
    with the ending ``.pem`` or ``.crt``; without a certificate it is the RFC 7638 thumbprint of the public key.

    Raises:
        StartError: The file is missing, not a PEM private key, or of a kind we do not sign with.
    """
    try:
        octets = path.read_bytes()
        secret = password.read_bytes().rstrip(b"\r\n") if password is not None else None
        key, certificate = _read(path, octets, secret)
    except (OSError, ValueError, TypeError) as error:
        raise StartError(f"{path}: expected a PEM or PKCS#12 private key: {error}") from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise StartError(f"{path}: expected an RSA, P-256 or Ed25519 key")
    if isinstance(key, EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        raise StartError(f"{path}: an EC key needs the curve P-256, this one has {key.curve.name}")
    if isinstance(key, RSAPrivateKey) and key.key_size < 2048:
        raise StartError(f"{path}: an RSA key needs 2048 bits or more, this one has {key.key_size}")
    certificate = certificate or _certificate_of(path, key)
    if certificate is not None:
        digest = certificate.fingerprint(SHA256())
        return PrivateKey(kid=urlsafe_b64encode(digest).rstrip(b"=").decode(), key=key)
    bare = PrivateKey(kid="", key=key)
    return PrivateKey(kid=thumbprint(public_jwk(bare)), key=key)


def _read(path: Path, octets: bytes, secret: bytes | None) -> tuple[object, Certificate | None]:
    if path.suffix.lower() in PKCS12:
        key, certificate, _ = load_key_and_certificates(octets, secret)
        return key, certificate
    encrypted = b"ENCRYPTED" in octets
    digest = sha256(octets).digest()
    key = load_pem_private_key(
        octets,
        secret if encrypted else None,
        unsafe_skip_rsa_key_validation=digest in _validated,
    )
    if len(_validated) < _VALIDATED_MOST:
        _validated.add(digest)
    return key, None


def _certificate_of(path: Path, key: _Key) -> Certificate | None:
    wanted = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if path.suffix.lower() in PKCS12:
        return None
    for place in (path, path.with_suffix(".pem"), path.with_suffix(".crt")):
        if not place.is_file() or b"BEGIN CERTIFICATE" not in (pem := place.read_bytes()):
            continue
        certificate = x509.load_pem_x509_certificates(pem)[0]
        found = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        if found == wanted:
            return certificate
    return None
