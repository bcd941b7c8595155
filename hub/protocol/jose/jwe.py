"""Compact JWE, RSA-OAEP-256 with A256GCM and nothing else.

Source: RFC 7516, RFC 7518 sections 4.3 and 5.3; no ``zip`` (RFC 8725 section 3.6).
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from hub.protocol.jose.jws import check_header
from hub.protocol.jose.strict import decode_b64url, decode_json
from hub.protocol.jose.values import JWE_ALG, JWE_ENC, JoseFault, PrivateKey, PublicKey

_ALGORITHMS: Final = (JWE_ALG, JWE_ENC)
_IV_OCTETS: Final = 12
_TAG_OCTETS: Final = 16


def encrypts(key: PublicKey) -> bool:
    """Tell whether something can be encrypted to a key: an RSA key for encryption."""
    return isinstance(key.key, RSAPublicKey) and key.use == "enc"


def encrypt(plaintext: bytes, key: PublicKey, *, cty: str = "") -> str:
    """Make a compact JWE, RSA-OAEP-256 and A256GCM.

    Raises:
        ValueError: The key is not an RSA key for encryption; that is a bug of the caller.
    """
    if not isinstance(key.key, RSAPublicKey) or key.use != "enc":
        raise ValueError(f"key {key.kid} is not an RSA encryption key")
    header = {"alg": JWE_ALG, "enc": JWE_ENC, "kid": key.kid}
    if cty:
        header["cty"] = cty
    return jwe.encrypt_compact(header, plaintext, RSAKey.import_key(key.key), list(_ALGORITHMS))


def decrypt(token: str, key: PrivateKey, *, limit: int = 262144) -> bytes | JoseFault:
    """Open a compact JWE of exactly those algorithms; ``zip`` and other algorithms are refused.

    Faults: as of ``parse``, and ``jose.decryption``, which says the same whatever failed.
    """
    fault = _check(token, limit)
    if fault is not None:
        return fault
    if not isinstance(key.key, RSAPrivateKey):
        return JoseFault("jose.key", f"the key's type does not fit {JWE_ALG}")
    try:
        opened = jwe.decrypt_compact(token, RSAKey.import_key(key.key), list(_ALGORITHMS))
    except (JoseError, ValueError):
        opened = None
    if opened is None or opened.plaintext is None:
        return JoseFault("jose.decryption", "cannot be decrypted with this key")
    return opened.plaintext


def _check(token: str, limit: int) -> JoseFault | None:
    if len(token) > limit:
        return JoseFault("jose.size", f"larger than {limit} octets")
    parts = token.split(".")
    if len(parts) != 5:
        return JoseFault("jose.parts", f"expected five parts, got {len(parts)}")
    protected, _, iv, _, tag = decoded = [decode_b64url(part) for part in parts]
    if protected is None or iv is None or tag is None or None in decoded:
        return JoseFault("jose.base64", "a part is not canonical base64url without padding")
    header = decode_json(protected)
    if isinstance(header, JoseFault):
        return header
    if not isinstance(header, dict):
        return JoseFault("jose.type", "header: expected a JSON object")
    fault = check_header(header)
    if fault is not None:
        return fault
    if header["alg"] != JWE_ALG or header.get("enc") != JWE_ENC or "zip" in header:
        return JoseFault("jose.alg", f"expected {JWE_ALG} with {JWE_ENC} and no zip")
    if len(iv) != _IV_OCTETS or len(tag) != _TAG_OCTETS:
        return JoseFault("jose.decryption", "cannot be decrypted with this key")
    return None
