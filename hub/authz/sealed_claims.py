"""What a bank adds to an id_token, kept between ``doConfirm`` and the redemption: sealed under the code, which nobody keeps.

The store holds the digest of a code only, so whoever reads the store cannot open this, also not after the redemption. Each code
seals one text, so its key never meets a second nonce.

Source: Headless Heimdall, doConfirm (hub APIs 2.1); RFC 5869; NIST SP 800-38D section 8.
"""

import hmac
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_INFO: Final = b"hub claims of a code v1"
_NONCE: Final = bytes(12)


def seal(claims: Mapping[str, str], code: str) -> bytes:
    """Return claims sealed under a code; empty for none."""
    if not claims:
        return b""
    return AESGCM(_key_of(code)).encrypt(_NONCE, msgspec.msgpack.encode(claims), None)


def unseal(sealed: bytes, code: str) -> dict[str, str]:
    """Return the claims that were sealed under this code.

    Raises:
        InvalidTag: They were sealed under another one; that is a bug, for a code finds its own record only.
    """
    if not sealed:
        return {}
    plain = AESGCM(_key_of(code)).decrypt(_NONCE, sealed, None)
    return msgspec.msgpack.decode(plain, type=dict[str, str])


def _key_of(code: str) -> bytes:
    return hmac.digest(code.encode(), _INFO, "sha256")
