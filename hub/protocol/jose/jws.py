"""Compact JWS: a strict parser, one verification with one key, and signing.

Source: RFC 7515, RFC 7518 sections 3.4 and 3.5, RFC 8037 section 3.1, RFC 8725 section 3.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256

from hub.protocol.jose.strict import b64url, decode_b64url, decode_json, plain_json
from hub.protocol.jose.values import JoseFault, Parsed, PrivateKey, PublicKey

_PSS: Final = PSS(mgf=MGF1(SHA256()), salt_length=32)
_SHA256: Final = SHA256()
_ECDSA: Final = ECDSA(SHA256())
_EMBEDDED: Final = ("jwk", "jku", "x5u", "x5c")
_TEXTS: Final = ("iss", "sub", "jti")
_MOMENTS: Final = ("exp", "nbf", "iat")
_LATEST: Final = 1 << 53
_SHORT: Final = 512
_NOT_BASE64: Final = "a part is not canonical base64url without padding"


def parse(token: str | bytes, *, limit: int = 65536, dpop: bool = False) -> Parsed | JoseFault:
    """Take a compact JWS apart without believing it.

    Args:
        token: As received.
        limit: Largest size, octets.
        dpop: Allow (and require) an embedded public ``jwk``.

    Returns:
        The parts, or a JoseFault: ``jose.size``, ``jose.parts``, ``jose.base64``, ``jose.json``,
        ``jose.duplicate_member``, ``jose.type``, ``jose.alg``, ``jose.crit``, ``jose.embedded_key``.
    """
    if len(token) > limit:
        return JoseFault("jose.size", f"larger than {limit} octets")
    raw = token.encode("utf-8", "replace") if isinstance(token, str) else token
    parts = raw.split(b".")
    if len(parts) != 3 or not all(parts):
        return JoseFault("jose.parts", f"expected three parts that are not empty, got {len(parts)}")
    payload, signature = decode_b64url(parts[1]), decode_b64url(parts[2])
    if payload is None or signature is None:
        return JoseFault("jose.base64", _NOT_BASE64)
    short = len(parts[0]) <= _SHORT
    header = _header_before(parts[0], dpop) if short else _header(parts[0], dpop)
    if isinstance(header, JoseFault):
        return header
    claims = plain_json(payload)
    if not isinstance(claims, dict):
        claims = _object(payload, "payload")
    if isinstance(claims, JoseFault):
        return claims
    fault = _check_claims(claims)
    if fault is not None:
        return fault
    return Parsed(
        header=header,
        claims=claims,
        signing_input=raw[: raw.rindex(b".")],
        signature=signature,
        raw=raw.decode("ascii"),
    )


def _header(part: bytes, dpop: bool) -> Mapping[str, Any] | JoseFault:  # noqa: FBT001 - a key of the memory
    """Read a protected header; those of one signer are alike, so they are remembered (and never changed)."""
    octets = decode_b64url(part)
    if octets is None:
        return JoseFault("jose.base64", _NOT_BASE64)
    header = _object(octets, "header")
    if isinstance(header, JoseFault):
        return header
    return check_header(header, dpop=dpop) or MappingProxyType(header)


_header_before: Final = lru_cache(maxsize=1024)(_header)


def _object(octets: bytes, what: str) -> dict[str, Any] | JoseFault:
    value = decode_json(octets)
    if isinstance(value, JoseFault):
        return JoseFault(value.check, f"{what}: {value.why}")
    if not isinstance(value, dict):
        return JoseFault("jose.type", f"{what}: expected a JSON object")
    return value


def check_header(header: Mapping[str, Any], *, dpop: bool = False) -> JoseFault | None:
    """Refuse a protected header with wrong types, extensions, or keys of its own."""
    for name in ("alg", "typ", "cty", "kid"):
        if name in header and not isinstance(header[name], str):
            return JoseFault("jose.type", f"header member {name}: expected a string")
    if not header.get("alg"):
        return JoseFault("jose.alg", "header member alg is missing")
    if "crit" in header or "b64" in header:
        return JoseFault("jose.crit", "header extensions (crit, b64) are not understood here")
    for name in _EMBEDDED:
        if name in header and not (dpop and name == "jwk"):
            return JoseFault("jose.embedded_key", f"header member {name} is not allowed")
    if dpop and not isinstance(header.get("jwk"), dict):
        return JoseFault("jose.embedded_key", "header member jwk: expected a public key")
    return None


def _check_claims(claims: Mapping[str, Any]) -> JoseFault | None:
    for name in _TEXTS:
        if name in claims and not isinstance(claims[name], str):
            return JoseFault("jose.type", f"claim {name}: expected a string")
    for name in _MOMENTS:
        if name in claims and not _is_moment(claims[name]):
            return JoseFault("jose.type", f"claim {name}: expected a number of seconds")
    audience = claims.get("aud", "")
    if isinstance(audience, str):
        return None
    if isinstance(audience, list) and all(isinstance(item, str) for item in audience):
        return None
    return JoseFault("jose.type", "claim aud: expected a string or an array of strings")


def _is_moment(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST


def verify(parsed: Parsed, key: PublicKey, algs: Sequence[str]) -> JoseFault | None:
    """Check the signature with one key under a closed list of algorithms; None means valid.

    Faults: ``jose.alg`` (not in the list), ``jose.key`` (the key is not for it), ``jose.signature``.
    """
    alg = parsed.header["alg"]
    if alg not in algs:
        return JoseFault("jose.alg", f"alg: expected {' or '.join(algs)}, got {alg[:32]!r}")
    if key.use != "sig" or key.alg not in {"", alg}:
        return JoseFault("jose.key", f"the key is not for signatures with {alg}")
    return verify_octets(alg, key, parsed.signature, parsed.signing_input)


def verify_octets(alg: str, key: PublicKey, signature: bytes, signed: bytes) -> JoseFault | None:
    """Check a raw JWS signature over octets; the algorithm must be one of ours and fit the key's type."""
    try:
        if alg == "PS256" and isinstance(key.key, RSAPublicKey):
            key.key.verify(signature, signed, _PSS, _SHA256)
        elif alg == "ES256" and isinstance(key.key, EllipticCurvePublicKey):
            if len(signature) != 64:
                return JoseFault("jose.signature", "the signature does not verify")
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            key.key.verify(encode_dss_signature(r, s), signed, _ECDSA)
        elif alg == "EdDSA" and isinstance(key.key, Ed25519PublicKey):
            key.key.verify(signature, signed)
        else:
            return JoseFault("jose.key", f"the key's type does not fit {alg}")
    except InvalidSignature:
        return JoseFault("jose.signature", "the signature does not verify")
    return None


def alg_of(key: PrivateKey | PublicKey) -> str:
    """Return the algorithm that a key of ours signs with."""
    if isinstance(key.key, RSAPrivateKey | RSAPublicKey):
        return "PS256"
    elliptic = isinstance(key.key, EllipticCurvePrivateKey | EllipticCurvePublicKey)
    return "ES256" if elliptic else "EdDSA"


def sign(
    claims: Mapping[str, Any] | bytes,
    key: PrivateKey,
    *,
    alg: str = "",
    typ: str = "",
    header: Mapping[str, Any] | None = None,
) -> str:
    """Make a compact JWS; ``kid`` is always in its header.

    Args:
        claims: The payload, as a mapping or as octets that are signed as they are.
        key: Ours.
        alg: ``PS256``, ``ES256`` or ``EdDSA``; must fit the key. Empty: the one that fits it.
        typ: Header member ``typ``; empty for none.
        header: Further header members.

    Raises:
        ValueError: The algorithm does not fit the key; that is a bug of the caller.
    """
    alg = alg or alg_of(key)
    protected: dict[str, Any] = {"alg": alg, "kid": key.kid, **(header or {})}
    if typ:
        protected["typ"] = typ
    payload = claims if isinstance(claims, bytes) else orjson.dumps(dict(claims))
    signed = f"{b64url(orjson.dumps(protected))}.{b64url(payload)}"
    return f"{signed}.{b64url(_signature(alg, key, signed.encode()))}"


def _signature(alg: str, key: PrivateKey, signed: bytes) -> bytes:
    private = key.key
    if alg == "PS256" and isinstance(private, RSAPrivateKey):
        return private.sign(signed, _PSS, _SHA256)
    if alg == "ES256" and isinstance(private, EllipticCurvePrivateKey):
        if not isinstance(private.curve, SECP256R1):
            raise ValueError("ES256 needs a P-256 key")
        r, s = decode_dss_signature(private.sign(signed, _ECDSA))
        return r.to_bytes(32) + s.to_bytes(32)
    if alg == "EdDSA" and isinstance(private, Ed25519PrivateKey):
        return private.sign(signed)
    raise ValueError(f"algorithm {alg} does not fit the key {key.kid}")
