"""JOSE: what signs, verifies, encrypts and decrypts here, with closed algorithm lists (RFC 7515 to 7519, 8725).

Theory. ``parse`` looks at a compact JWS before any cryptography and refuses what libraries let through: wrong number of
parts, non-canonical base64url, duplicate members, embedded keys (``jwk``, ``jku``, ``x5u``, ``x5c`` except where a
DPoP proof needs ``jwk``), any ``crit``, wrong types, oversize. ``verify`` then checks one signature with one key and
one algorithm of the caller's closed list. ``load_key`` refuses RSA below 2048 bits and foreign curves. Nothing here
looks at a clock; windows are checked by ``authz``.

Algorithms: PS256 everywhere; ES256 and EdDSA only where a list says so. Never none, HS*, RS256. JWE: RSA-OAEP-256
with A256GCM.
"""

from hub.protocol.jose.jwe import decrypt, encrypt, encrypts
from hub.protocol.jose.jwk import (
    load_key,
    load_key_set,
    load_private_key,
    public_jwk,
    thumbprint,
)
from hub.protocol.jose.jws import alg_of, parse, sign, verify
from hub.protocol.jose.strict import b64url, decode_b64url, decode_json
from hub.protocol.jose.values import (
    DPOP_ALGS,
    GENERAL_ALGS,
    JWE_ALG,
    JWE_ENC,
    UAE_ALGS,
    JoseFault,
    Parsed,
    PrivateKey,
    PublicKey,
)

__all__ = [
    "DPOP_ALGS",
    "GENERAL_ALGS",
    "JWE_ALG",
    "JWE_ENC",
    "UAE_ALGS",
    "JoseFault",
    "Parsed",
    "PrivateKey",
    "PublicKey",
    "alg_of",
    "b64url",
    "decode_b64url",
    "decode_json",
    "decrypt",
    "encrypt",
    "encrypts",
    "load_key",
    "load_key_set",
    "load_private_key",
    "parse",
    "public_jwk",
    "sign",
    "thumbprint",
    "verify",
]
