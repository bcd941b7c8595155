"""What the JOSE modules pass on: keys, a parsed JWS, a fault, and the closed lists of algorithms."""

from collections.abc import Mapping
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
    """Hold one parsed public key of a key set.

    Attributes:
        kid: Its id; may be empty.
        use: ``sig`` or ``enc``.
        key: The key itself.
        thumbprint: RFC 7638, base64url.
        alg: The only algorithm it may be used with; empty for any that fits its type.
    """

    kid: str
    use: str
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    thumbprint: str = ""
    alg: str = ""


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
