"""Keys in JWK form: strict loading of other people's public keys, our own for publication, thumbprints.

A key that could sign or decrypt for its owner has no business in a document we fetch: private members are refused. RSA keys
made by a broken generator (CVE-2017-15361) are recognised by their modulus and refused.

Source: RFC 7517, RFC 7518 section 6, RFC 7638, RFC 8037 section 2; FIPS 186-5 on exponents.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    RSAPublicNumbers,
)

from hub.protocol.jose.strict import b64url, decode_b64url, decode_json
from hub.protocol.jose.values import JoseFault, PrivateKey, PublicKey

_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_USE_OF_OPERATION: Final = {"verify": "sig", "encrypt": "enc", "wrapKey": "enc"}
_THUMBED: Final = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}
_KEYS: Final = 256
_SMALL_MODULUS: Final = 3072
_EXPONENT: Final = 64
"""OpenSSL verifies and encrypts nothing with a longer exponent and a larger modulus than these (bits): it would take too long."""
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


def load_key(jwk: Mapping[str, Any]) -> PublicKey | JoseFault:
    """Parse one public JWK: RSA of 2048 to 8192 bits, P-256 or Ed25519; private members are refused.

    Faults: ``jose.key``, with a sentence on what is wrong with it.
    """
    for name in ("kty", "kid", "use", "alg", "crv"):
        if not isinstance(jwk.get(name, ""), str):
            return _bad(f"member {name}: expected a string")
    if any(name in jwk for name in _PRIVATE):
        return _bad("private or symmetric members are not allowed")
    use = _use_of(jwk)
    if use not in {"sig", "enc"}:
        return _bad("use: expected sig or enc")
    key = _key_of(jwk)
    if isinstance(key, JoseFault):
        return key
    return PublicKey(
        kid=jwk.get("kid", ""),
        use=use,
        key=key,
        thumbprint=thumbprint(jwk),
        alg=jwk.get("alg", ""),
    )


def _bad(why: str) -> JoseFault:
    return JoseFault("jose.key", f"key: {why}")


def _use_of(jwk: Mapping[str, Any]) -> str:
    """Return ``use``, or what ``key_ops`` says, or ``sig`` when both are silent."""
    stated = str(jwk.get("use", ""))
    operations = jwk.get("key_ops")
    if operations is None:
        return stated or "sig"
    if not isinstance(operations, list):
        return ""
    uses = {_USE_OF_OPERATION.get(str(operation), "") for operation in operations}
    if stated:
        uses.add(stated)
    return uses.pop() if len(uses) == 1 else ""


def _key_of(
    jwk: Mapping[str, Any],
) -> RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | JoseFault:
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", _:
            return _rsa(jwk)
        case "EC", "P-256":
            return _p256(jwk)
        case "OKP", "Ed25519":
            return _ed25519(jwk)
        case _:
            return _bad("expected RSA, EC with P-256, or OKP with Ed25519")


def _rsa(jwk: Mapping[str, Any]) -> RSAPublicKey | JoseFault:
    modulus, exponent = _unsigned(jwk.get("n")), _unsigned(jwk.get("e"))
    if modulus is None or exponent is None:
        return _bad("n and e: expected base64url unsigned integers")
    if not 2048 <= modulus.bit_length() <= 8192:
        return _bad(f"RSA of {modulus.bit_length()} bits: expected 2048 to 8192")
    if exponent % 2 == 0 or not 65537 <= exponent < 1 << 256:
        return _bad("RSA exponent: expected an odd number from 65537 on")
    if modulus % 2 == 0:
        return _bad("RSA modulus: expected an odd number")
    if modulus.bit_length() > _SMALL_MODULUS and exponent.bit_length() > _EXPONENT:
        return _bad(f"RSA exponent: expected at most {_EXPONENT} bits with so large a modulus")
    if _is_roca(modulus):
        return _bad("RSA modulus of a broken generator (CVE-2017-15361)")
    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        return _bad("not a valid RSA key")


def _is_roca(modulus: int) -> bool:
    """Tell whether the modulus is a power of 65537 modulo each small prime, as the broken generator's are."""
    for prime in _ROCA_PRIMES:
        power, rest = 1, modulus % prime
        for _ in range(prime):
            power = power * 65537 % prime
            if power == rest:
                break
        else:
            return False
    return True


def _unsigned(text: object) -> int | None:
    octets = decode_b64url(text) if isinstance(text, str) and len(text) <= 2048 else None
    if not octets or octets[0] == 0:
        return None
    return int.from_bytes(octets)


def _p256(jwk: Mapping[str, Any]) -> EllipticCurvePublicKey | JoseFault:
    x, y = _octets32(jwk.get("x")), _octets32(jwk.get("y"))
    if x is None or y is None:
        return _bad("x and y: expected 32 octets in base64url")
    try:
        return EllipticCurvePublicNumbers(
            int.from_bytes(x), int.from_bytes(y), SECP256R1()
        ).public_key()
    except ValueError:
        return _bad("the point is not on the curve P-256")


def _ed25519(jwk: Mapping[str, Any]) -> Ed25519PublicKey | JoseFault:
    x = _octets32(jwk.get("x"))
    if x is None:
        return _bad("x: expected 32 octets in base64url")
    try:
        return Ed25519PublicKey.from_public_bytes(x)
    except ValueError:
        return _bad("not an Ed25519 key")


def _octets32(text: object) -> bytes | None:
    octets = decode_b64url(text) if isinstance(text, str) else None
    return octets if octets is not None and len(octets) == 32 else None


def load_key_set(document: bytes, *, limit: int = 262144) -> tuple[PublicKey, ...] | JoseFault:
    """Parse a JWK set; keys of foreign types are left out, malformed documents refused.

    Two different keys with the same ``kid`` and ``use`` cannot be told apart: both are left out.

    Faults: ``jose.size``, ``jose.json``, ``jose.duplicate_member``, ``jose.type``.
    """
    if len(document) > limit:
        return JoseFault("jose.size", f"key set larger than {limit} octets")
    value = decode_json(document)
    if isinstance(value, JoseFault):
        return value
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list) or len(entries) > _KEYS:
        return JoseFault("jose.type", f"key set: expected keys, an array of at most {_KEYS}")
    loaded = (load_key(entry) for entry in entries if isinstance(entry, dict))
    keys = {
        (key.kid, key.use, key.thumbprint): key for key in loaded if not isinstance(key, JoseFault)
    }
    named = Counter((kid, use) for kid, use, _ in keys)
    return tuple(key for (kid, use, _), key in keys.items() if named[kid, use] == 1)


def load_private_key(pem: bytes, password: bytes | None = None) -> PrivateKey | JoseFault:
    """Parse one of our private keys from PEM; its ``kid`` is the RFC 7638 thumbprint.

    Faults: ``jose.key``; the sentence never holds key material.
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError):
        return _bad("not a PEM private key, or the wrong password")
    if isinstance(key, RSAPrivateKey) and not 2048 <= key.key_size <= 8192:
        return _bad(f"RSA of {key.key_size} bits: expected 2048 to 8192")
    if isinstance(key, EllipticCurvePrivateKey) and not isinstance(key.curve, SECP256R1):
        return _bad("EC: expected the curve P-256")
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        return _bad("expected RSA, P-256 or Ed25519")
    return PrivateKey(kid=thumbprint(_members_of(key.public_key())), key=key)


def public_jwk(
    key: PrivateKey | PublicKey, *, use: str = "sig", alg: str = "PS256"
) -> dict[str, Any]:
    """Return the public JWK of a key, for our own key set."""
    public = key.key if isinstance(key, PublicKey) else key.key.public_key()
    return {**_members_of(public), "kid": key.kid, "use": use, "alg": alg}


def _members_of(key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) -> dict[str, Any]:
    if isinstance(key, RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _text_of(numbers.n), "e": _text_of(numbers.e)}
    if isinstance(key, Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(key.public_bytes_raw())}
    point = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": b64url(point.x.to_bytes(32)),
        "y": b64url(point.y.to_bytes(32)),
    }


def _text_of(number: int) -> str:
    return b64url(number.to_bytes((number.bit_length() + 7) // 8))


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public JWK, base64url without padding.

    Raises:
        KeyError: The key's type is unknown or a required member is missing.
    """
    members = {name: jwk[name] for name in _THUMBED[jwk["kty"]]}
    return b64url(hashlib.sha256(orjson.dumps(members)).digest())
