"""JOSE: what signs, verifies, encrypts and decrypts here, with closed algorithm lists (RFC 7515 to 7519, 8725).

Theory. ``parse`` looks at a compact JWS before any cryptography and refuses what libraries let through: wrong number of
parts, non-canonical base64url, duplicate members, embedded keys (``jwk``, ``jku``, ``x5u``, ``x5c`` except where a
DPoP proof needs ``jwk``), any ``crit``, wrong types, oversize. ``verify`` then checks one signature with one key and
one algorithm of the caller's closed list. ``load_key`` refuses RSA below 2048 bits and foreign curves. Nothing here
looks at a clock; windows are checked by ``authz``.

Algorithms: PS256 everywhere; ES256 and EdDSA only where a list says so. Never none, HS*, RS256. JWE: RSA-OAEP-256
with A256GCM.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from typing_extensions import override

UAE_ALGS: Final = ("PS256",)
GENERAL_ALGS: Final = ("PS256", "ES256", "EdDSA")
DPOP_ALGS: Final = ("PS256", "ES256")
JWE_ALG: Final = "RSA-OAEP-256"
JWE_ENC: Final = "A256GCM"


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one parsed public key of a key set: ``use`` is ``sig`` or ``enc``; ``thumbprint`` is RFC 7638, base64url."""

    kid: str
    use: str
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    thumbprint: str = ""


class PrivateKey(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one of our own private keys; its repr shows the ``kid`` only."""

    kid: str
    key: RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

    @override
    def __repr__(self) -> str:
        """Show the key id, never the key."""
        return f"PrivateKey(kid={self.kid!r})"


class JoseFault(msgspec.Struct, frozen=True):
    """Say why a token is refused: ``check`` is stable (``jose.duplicate_member``), ``why`` one sentence without secrets."""

    check: str
    why: str


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a compact JWS that is well formed but not verified: nothing in it may be believed yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes
    raw: str


def parse(token: str | bytes, *, limit: int = 65536, dpop: bool = False) -> Parsed | JoseFault:
    """Take a compact JWS apart without believing it.

    Args:
        token: As received.
        limit: Largest size, octets.
        dpop: Allow (and require) an embedded public ``jwk``.
    """
    raise NotImplementedError


def verify(parsed: Parsed, key: PublicKey, algs: Sequence[str]) -> JoseFault | None:
    """Check the signature with one key under a closed list of algorithms; None means valid."""
    raise NotImplementedError


def sign(
    claims: Mapping[str, Any] | bytes,
    key: PrivateKey,
    *,
    alg: str = "PS256",
    typ: str = "",
    header: Mapping[str, Any] | None = None,
) -> str:
    """Make a compact JWS; ``kid`` is always in its header."""
    raise NotImplementedError


def encrypt(plaintext: bytes, key: PublicKey, *, cty: str = "") -> str:
    """Make a compact JWE, RSA-OAEP-256 and A256GCM."""
    raise NotImplementedError


def decrypt(token: str, key: PrivateKey, *, limit: int = 262144) -> bytes | JoseFault:
    """Open a compact JWE of exactly those algorithms; ``zip`` and other algorithms are refused."""
    raise NotImplementedError


def load_key(jwk: Mapping[str, Any]) -> PublicKey | JoseFault:
    """Parse one public JWK: RSA of 2048 to 8192 bits, P-256 or Ed25519; private members are refused."""
    raise NotImplementedError


def load_key_set(document: bytes, *, limit: int = 262144) -> tuple[PublicKey, ...] | JoseFault:
    """Parse a JWK set; keys of foreign types are left out, malformed documents refused."""
    raise NotImplementedError


def public_jwk(
    key: PrivateKey | PublicKey, *, use: str = "sig", alg: str = "PS256"
) -> dict[str, Any]:
    """Return the public JWK of a key, for our own key set."""
    raise NotImplementedError


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public JWK, base64url without padding."""
    raise NotImplementedError
