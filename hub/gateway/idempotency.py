"""Idempotency keys: one use per client and day; the first answer kept so that only a true repetition can read it.

Theory. What is stored of a use are two digests and a sealed answer. The name is a hash of client and key. The digest of the
message is keyed by a secret of the tenant, so that it tells nothing of the message. The answer is sealed (AES-256-GCM) under
a key derived (HKDF, RFC 5869) from the idempotency key and the SHA-256 of the canonical message, neither of which stands
beside it: whoever repeats the request brings both, nobody else can read it.

The canonical message is its JSON with sorted members, not the JWS around it: a repetition is signed anew.

Source: errors.md section 7; decisions.md section 3; architecture 2.11.
"""

import hashlib
import hmac
from typing import Any, Final

import msgspec
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hub.gateway.values import Call
from hub.model.clock import Dice
from hub.model.fault import Fault, caller_fault
from hub.model.http import Headers
from hub.model.records import digest_of

DAY_S: Final = 86_400
_NONCE: Final = 12
_INFO: Final = b"hub idempotent answer v1"


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """Hold an answer as it left."""

    status: int
    headers: Headers
    body: bytes


class Use(msgspec.Struct, frozen=True):
    """Hold one use of a key.

    Attributes:
        name: Under which it is stored.
        key: As sent; a secret.
        message: SHA-256 of the canonical message; a secret.
    """

    name: str
    key: str
    message: bytes

    def digest(self, secret: bytes) -> str:
        """Return what the message is compared by.

        Args:
            secret: Of the tenant.
        """
        return hmac.digest(secret, self.message, "sha256").hex()

    def seal(self, stored: Stored, dice: Dice) -> bytes:
        """Return an answer sealed for a true repetition."""
        nonce = dice.token(_NONCE)
        plain = msgspec.msgpack.encode(stored)
        return nonce + AESGCM(self._derived()).encrypt(nonce, plain, self.name.encode())

    def unseal(self, sealed: bytes) -> Stored | None:
        """Return a sealed answer; None if it was sealed for another request."""
        try:
            plain = AESGCM(self._derived()).decrypt(
                sealed[:_NONCE], sealed[_NONCE:], self.name.encode()
            )
        except (InvalidTag, ValueError):
            return None
        return msgspec.msgpack.decode(plain, type=Stored)

    def _derived(self) -> bytes:
        # RFC 5869 section 2: extract, then the one block of expand that 32 octets take.
        extracted = hmac.digest(self.message, self.key.encode(), "sha256")
        return hmac.digest(extracted, _INFO + b"\x01", "sha256")


def use_of(call: Call, client_id: str, message: Any) -> Use | Fault:
    """Return the use that a request makes of its key.

    Faults: 400 ``Resource.InvalidFormat``.
    """
    key = idempotency_key(call)
    if isinstance(key, Fault):
        return key
    canonical = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
    return Use(use_name(client_id, key), key, hashlib.sha256(canonical).digest())


def use_name(client_id: str, key: str) -> str:
    """Return the name under which the use of a key is stored."""
    return digest_of(f"{client_id}\x00{key}")


def idempotency_key(call: Call) -> str | Fault:
    """Return the request's idempotency key: 1 to 40 visible characters.

    Faults: 400 ``Resource.InvalidFormat``.
    """
    values = call.request.header_values(b"x-idempotency-key")
    text = values[0].decode("latin-1") if len(values) == 1 else ""
    if 1 <= len(text) <= 40 and text.isascii() and text.isprintable() and " " not in text:
        return text
    what = "x-idempotency-key: expected 1 to 40 visible characters"
    return caller_fault(400, "Resource.InvalidFormat", what, check="request.idempotency_key")
